"""OAuth 2 for machines: client credentials (RFC 6749, 4.4), and the documents by which others check the tokens.

The errors of the token endpoint have the form of RFC 6749, 5.2, and not Stripe's, for OAuth libraries read no other.
"""

import base64
import binascii
import hmac
import time
from typing import Any, Final
from urllib.parse import unquote_plus

import msgspec

from tillway.domain.credentials import SCOPES, TOKEN_SECONDS, Grant, OAuthClient, live_secrets, secret_digest
from tillway.domain.refusal import Refused
from tillway.http.routes import Answer, Call, Plain, route
from tillway.http.wire import parse_body

_encode = msgspec.json.Encoder().encode
_PRIVATE: Final = (("cache-control", "no-store"), ("pragma", "no-cache"))
_PUBLIC: Final = (("cache-control", "public, max-age=60"),)
_FORM: Final = "application/x-www-form-urlencoded"
_TEXT_MAX: Final = 2000


class _Denied(Exception):
    """An error of RFC 6749, 5.2."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(error)
        self.error, self.description = error, description


@route("POST", "/oauth2/token", returns="access_token", access="anyone")
async def token(call: Call) -> Answer:
    """Exchange a client's id and secret for an access token (OAuth 2, client credentials), sent as a form, not JSON."""
    try:
        return Plain(200, _encode(await _issue_token(call)), headers=_PRIVATE)
    except _Denied as denied:
        document = {"error": denied.error, "error_description": denied.description}
        if denied.error != "invalid_client":
            return Plain(400, _encode(document), headers=_PRIVATE)
        return Plain(
            401, _encode(document), headers=(*_PRIVATE, ("www-authenticate", 'Basic realm="Tillway", charset="UTF-8"'))
        )


@route("GET", "/.well-known/jwks.json", returns="document", access="anyone")
async def jwks(call: Call) -> Answer:
    """List the public keys of access tokens (RFC 7517)."""
    keys = await call.platform.tokens.public_keys(now=time.time())
    return Plain(200, _encode({"keys": keys}), headers=_PUBLIC)


@route("GET", "/.well-known/oauth-authorization-server", returns="document", access="anyone")
async def metadata(call: Call) -> Answer:
    """Describe the token endpoint and its scopes (RFC 8414)."""
    issuer = call.platform.tokens.issuer
    document = {
        "issuer": issuer,
        "token_endpoint": f"{issuer}/oauth2/token",
        "jwks_uri": f"{issuer}/.well-known/jwks.json",
        "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
        "scopes_supported": list(SCOPES),
        "token_endpoint_auth_methods_supported": ["client_secret_basic", "client_secret_post"],
        "service_documentation": "https://github.com/tillway/tillway/blob/main/docs/authentication.md",
    }
    return Plain(200, _encode(document), headers=_PUBLIC)


async def _issue_token(call: Call) -> dict[str, Any]:
    sent = _form_fields(call)
    now = time.time()
    id, secret = _credentials(call, sent)
    client = await call.platform.authenticator.issuer(id, now=now)
    digest = secret_digest(secret)
    if not isinstance(client, OAuthClient) or not any(
        hmac.compare_digest(digest, known.digest) for known in live_secrets(client, now)
    ):
        raise _Denied("invalid_client", "There is no such client, its secret is another one, or it is revoked.")
    match sent.get("grant_type"):
        case "client_credentials":
            pass
        case None:
            raise _Denied("invalid_request", "grant_type is missing; it must be client_credentials.")
        case _:
            raise _Denied("unsupported_grant_type", "The one grant_type here is client_credentials.")
    asked = sent.get("scope")
    # RFC 6749, 3.3: scopes have no order. A request without scopes gets all scopes of the client.
    wanted = set(asked.split(" ")) - {""} if asked else set(client.scopes)
    if not wanted <= set(client.scopes):
        raise _Denied("invalid_scope", f"The client's scopes are: {' '.join(client.scopes)}.")
    scopes = tuple(scope for scope in client.scopes if scope in wanted)
    grant = Grant(id=client.id, hint=client.id, account=client.account, mode=client.mode, scopes=scopes)
    return {
        "access_token": await call.platform.tokens.issue(grant, now=now),
        "token_type": "Bearer",
        "expires_in": TOKEN_SECONDS,
        "scope": " ".join(scopes),
    }


def _form_fields(call: Call) -> dict[str, str]:
    """Return the fields of the form. Unknown fields are ignored, as the RFC demands."""
    content_type = call.headers.get("content-type", "")
    if content_type.partition(";")[0].strip().lower() != _FORM:
        raise _Denied("invalid_request", f"Send the request as {_FORM}.")
    try:
        body = parse_body(content_type, call.body)
    except Refused as refused:
        raise _Denied("invalid_request", _plain(refused.message)) from None
    for name in ("grant_type", "client_id", "client_secret", "scope"):
        value = body.get(name)
        if value is not None and (not isinstance(value, str) or len(value) > _TEXT_MAX):
            raise _Denied("invalid_request", f"{name} is one text of at most {_TEXT_MAX} characters.")
    # RFC 6749, 3.2: a parameter without a value counts as absent.
    return {name: value for name, value in body.items() if isinstance(value, str) and value}


def _credentials(call: Call, sent: dict[str, str]) -> tuple[str, str]:
    """Return the client's id and secret from the header (client_secret_basic) or the form (client_secret_post)."""
    header = call.headers.get("authorization", "")
    kind, _, value = header.partition(" ")
    if kind.lower() != "basic":
        if "client_id" not in sent or "client_secret" not in sent:
            raise _Denied("invalid_client", "Send the client's id and secret, by Basic authentication or in the form.")
        return sent["client_id"], sent["client_secret"]
    if "client_secret" in sent:
        raise _Denied("invalid_request", "The client's secret came in the header and in the form. Send it once.")
    try:
        id, colon, secret = base64.b64decode(value.strip(), validate=True).decode().partition(":")
    except (binascii.Error, UnicodeDecodeError):
        colon = ""
    if not colon:
        raise _Denied("invalid_client", "The Basic credentials are not base64 of `id:secret`.")
    id, secret = unquote_plus(id), unquote_plus(secret)
    if sent.get("client_id", id) != id:
        raise _Denied("invalid_request", "The client_id in the form is not the one in the header.")
    return id, secret


def _plain(text: str) -> str:
    """Return `text` in the characters that RFC 6749 allows in a description."""
    return "".join(c if " " <= c <= "~" and c not in '"\\' else "'" for c in text)
