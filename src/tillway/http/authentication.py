"""Authentication: API keys and access tokens from the Authorization header, cached for two seconds."""

import base64
import binascii
import re
import time
from collections.abc import Awaitable, Callable, Mapping
from hashlib import blake2s
from typing import Any, TypeVar

import msgspec
from msgspec.structs import replace

from tillway.domain.account import SYSTEM, Account, Scope
from tillway.domain.api_key import ApiKey, key_id
from tillway.domain.credentials import Grant, OAuthClient, grant_of, is_live
from tillway.domain.ephemeral_key import EphemeralKey, ephemeral_key_id, scope_in
from tillway.domain.operator import REASON_MAX, Operator, OperatorKey, operator_key_id, refuse_unless_may
from tillway.domain.record import Record
from tillway.domain.refusal import Refused
from tillway.engine.access_tokens import AccessTokens
from tillway.engine.accounts import Accounts
from tillway.engine.caller import Caller
from tillway.engine.clock import Clock
from tillway.engine.siblings import Tell, tell_nobody
from tillway.http.capabilities import capability_of
from tillway.http.contract import Dialect, is_named
from tillway.http.ephemeral_keys import refuse_other_calls
from tillway.http.messages import Request, is_repeated, refuse_repeated
from tillway.http.routes import Route
from tillway.http.scopes import scope_of
from tillway.http.throttle import Rate, Throttle
from tillway.store.codec import RecordDamaged, decode
from tillway.store.port import Row, Store

R = TypeVar("R", bound=Record)

CACHE_SECONDS = 2.0
"""How long another process may still accept a key or a client that was just revoked."""

CACHE_MAX = 10_000

UNKNOWN_MAX = 1000
"""Keys that were found nowhere, known for CACHE_SECONDS: a client with a revoked key may send hundreds a second."""

RENEWED_MAX = 16
"""Most keys that a process reads again before they expire in memory: with their accounts, one `get_many`."""

IN_USE_SECONDS = 3600
"""For how long after its last request a key is read again ahead of time."""

ADMITTED_MAX = 16
"""Routes to which a process remembers that a credential was admitted."""

KEY_LENGTH_MAX = 255

UNAUTHENTICATED_BODY_BYTES_MAX = 1 << 15
"""The largest body that is parsed before its sender is known: the longest request of a dialect has some 4 KiB."""


REASON_HEADER = "tillway-reason"
"""The header with an operator's reason for a call, for the audit trail."""

EXPECT_HEADER = "tillway-expect"
"""The header with the versions of records that an operator has looked at: `pi_…=3,ch_…=2`."""

EXPECTED_MAX = 10

NOBODY = Scope(account="acct_" + "0" * 16, mode="test")
"""The scope of calls that need no key. Nothing is stored in it."""


class _Admitted(msgspec.Struct):
    """The caller of an earlier request with a credential to a route, and the account and rate of its admission."""

    caller: Caller
    account: Account | None
    rate: Rate | None


class _Known(msgspec.Struct):
    """A credential as it was read at most CACHE_SECONDS before `until`. `used_at` is when its use was last told."""

    until: float
    grant: Grant
    scope: Scope
    used_at: float
    admitted: dict[str, _Admitted] = {}
    """By the names of routes: its caller was admitted to them."""


class Authenticator:
    """Finds what a credential grants. Without `tokens`, every access token is refused."""

    def __init__(self, store: Store, tokens: AccessTokens | None = None, accounts: Accounts | None = None) -> None:
        """`accounts` is the cache of accounts that the engine uses too."""
        self._store = store
        self._tokens = tokens
        self._known: dict[bytes, _Known] = {}
        self._unknown: dict[bytes, tuple[float, Refused]] = {}
        """Until when each key counts as one that is nowhere, and the refusal that says so."""
        self._accounts = accounts or Accounts(store, Clock())
        self.known_account = self._accounts.fresh
        """The account, and until when it is known; None where it must be read."""
        self.tell: Tell = tell_nobody
        self.on_use: Callable[[str, float], None] | None = None
        """Called with the id of a credential that was found good, at most every CACHE_SECONDS for each. It must not
        raise."""

    async def authenticate_header(self, header: str | None, *, now: float) -> tuple[Grant, Scope]:
        """Return the grant of the credential in an Authorization header, and the scope that it reaches.

        The header holds a key (Bearer, or Basic with the key as user name) or an access token (Bearer). Raises Refused
        `api_key_missing`, `api_key_invalid`, `api_key_expired`, `access_token_invalid` or `access_token_expired`. `now`
        is epoch seconds.
        """
        known = self.recall(header, now=now)
        if known is not None:
            return known.grant, known.scope
        secret, digest = credential_in(header), _digest_of(header)
        self._known.pop(digest, None)
        by: Callable[[str, float], Awaitable[Grant]] = self._by_key
        if secret.startswith("ok_"):
            by = self._by_operator_key
        elif secret.startswith("ek_"):
            by = self._by_ephemeral_key
        elif is_token(secret):
            by = self._by_token
        try:
            grant = await by(secret, now)
        except Refused as refused:
            # An operator's key may become good again: only a merchant's stays what it is.
            if refused.code == "api_key_invalid" and by == self._by_key:
                if len(self._unknown) >= UNKNOWN_MAX:
                    self._unknown.clear()
                # Another one than was raised, which holds the frames that it went through.
                self._unknown[digest] = (now + CACHE_SECONDS, Refused(refused.code, refused.message))
            raise
        if len(self._known) >= CACHE_MAX:
            self._known.clear()
        scope = Scope(account=grant.account, mode=grant.mode)
        if self.on_use is not None and grant.kind != "ephemeral":
            self.on_use(grant.id, now)
        self._known[digest] = _Known(_until(grant, now), grant, scope, now)
        return grant, scope

    def recall(self, header: str | None, *, now: float) -> _Known | None:
        """A credential that is known; None for any other. Raises Refused for one that is known to be nowhere."""
        found = self.look_up(header, now=now)
        if isinstance(found, Refused):
            raise Refused(found.code, found.message)
        return found

    def look_up(self, header: str | None, *, now: float) -> _Known | Refused | None:
        """The same, with the refusal returned and not raised: it is the same one for all requests, and must not be
        changed."""
        digest = blake2s((header or "").encode("utf-8", "surrogatepass")).digest()  # `_digest_of`, without a call.
        known = self._known.get(digest)
        if known is None or known.until <= now:
            unknown = self._unknown.get(digest)
            return unknown[1] if unknown is not None and unknown[0] > now else None
        if now >= known.used_at + CACHE_SECONDS:
            known.used_at = now
            if self.on_use is not None and known.grant.kind != "ephemeral":
                self.on_use(known.grant.id, now)
        return known

    async def renew(self, *, now: float) -> list[str]:
        """Read the API keys in use and their accounts again, the last used ones first and at most RENEWED_MAX. Return
        their scopes (`acct_1.t`). Raises `Unavailable`."""
        in_use = [(digest, known) for digest, known in self._known.items() if _is_key_in_use(known, now)]
        in_use.sort(key=lambda one: one[1].used_at, reverse=True)
        del in_use[RENEWED_MAX:]
        if not in_use:
            return []
        accounts = {known.grant.account: self._accounts.held(known.grant.account) for _, known in in_use}
        ids = dict.fromkeys((*(known.grant.id for _, known in in_use), *accounts))
        rows = await self._store.get_many([f"{SYSTEM}/{id}" for id in ids])
        for digest, known in in_use:
            if self._known.get(digest) is not known:
                continue  # Forgotten during the read, which may be older than the change that it was forgotten for.
            key = _record_in(rows, known.grant.id, ApiKey)
            if key is None or not is_live(key, now):
                del self._known[digest]
                continue
            known.grant, known.admitted = grant_of(key), {}
            known.until = _until(known.grant, now)
        for id, held in accounts.items():
            account = _record_in(rows, id, Account)
            if held is not None and account is not None:
                self._accounts.renew(id, held, account)
        return list(dict.fromkeys(known.scope.key for _, known in in_use))

    async def issuer(self, id: str, *, now: float) -> ApiKey | OAuthClient | None:
        """Return the key or client of that id; None if there is none, or if it is revoked or expired."""
        if not id.startswith(("key_", "oac_")) or "/" in id:
            return None
        issuer = await self._system(id, Record)
        return issuer if isinstance(issuer, ApiKey | OAuthClient) and is_live(issuer, now) else None

    async def _by_key(self, secret: str, now: float) -> Grant:
        key = await self._system(key_id(secret), ApiKey)
        if key is not None and key.revoked_at is None and key.expires_at is not None and key.expires_at <= now:
            raise Refused("api_key_expired", f"Expired API Key provided: {mask(secret)}")
        if key is None or not is_live(key, now):
            raise _invalid(mask(secret))
        return grant_of(key)

    async def _by_operator_key(self, secret: str, now: float) -> Grant:
        key = await self._system(operator_key_id(secret), OperatorKey)
        operator = await self._system(key.operator, Operator) if key is not None else None
        if key is None or key.revoked_at is not None or operator is None or operator.disabled_at is not None:
            raise _invalid(mask(secret))
        return Grant(
            id=operator.id,
            hint=operator.name,
            account=NOBODY.account,
            mode=key.mode,
            kind="operator",
            role=operator.role,
            accounts=operator.accounts,
        )

    async def _by_ephemeral_key(self, secret: str, now: float) -> Grant:
        scope, id = scope_in(secret), ephemeral_key_id(secret)
        row = await self._store.get(f"{scope.key}/{id}") if scope is not None else None
        key = decode(id, row.body) if row is not None else None
        if scope is None or not isinstance(key, EphemeralKey):
            raise _invalid(mask(secret))
        if key.expires_at <= now:
            raise Refused("api_key_expired", f"Expired API Key provided: {mask(secret)}. Make a new ephemeral key.")
        if await self.issuer(key.made_with, now=now) is None:
            raise _invalid(mask(secret))
        return Grant(
            id=key.id,
            hint=key.hint,
            account=scope.account,
            mode=scope.mode,
            kind="ephemeral",
            customer=key.customer,
            scopes=key.scopes,
            expires_at=key.expires_at,
            api_version=key.api_version,
        )

    async def _system(self, id: str, kind: type[R]) -> R | None:
        """Return the installation's own record of that id; None if there is none, or one of another kind."""
        row = await self._store.get(f"{SYSTEM}/{id}")
        record = decode(id, row.body) if row is not None else None
        return record if isinstance(record, kind) else None

    async def scope_of_operator(self, grant: Grant, named: str | None) -> Scope:
        """Return the merchant that an operator means. `named` is the header Tillway-Account, needed with several.

        Raises Refused `operator_account_required`, `operator_forbidden` or `resource_missing`.
        """
        if named is None:
            mine = grant.accounts if grant.accounts is not None else await self._all_accounts()
            if len(mine) != 1:
                raise Refused("operator_account_required", param="Tillway-Account")
            named = mine[0]
        if grant.accounts is not None and named not in grant.accounts:
            raise Refused(
                "operator_forbidden", f"You do not work for the merchant {named[:40]}.", param="Tillway-Account"
            )
        if not named.startswith("acct_") or "/" in named or await self.account(named) is None:
            raise Refused("resource_missing", f"No such merchant: '{named[:40]}'", param="Tillway-Account")
        return Scope(account=named, mode=grant.mode)

    async def _all_accounts(self) -> tuple[str, ...]:
        """The ids of at most two accounts: enough to tell whether there is only one."""
        rows = await self._store.query(None, f"{SYSTEM}/acct_", limit=2, order="oldest")
        return tuple(row.key.partition("/")[2] for row in rows)

    async def _by_token(self, token: str, now: float) -> Grant:
        if self._tokens is None:
            raise Refused("access_token_invalid")
        grant = await self._tokens.read(token, now=now)
        issuer = await self.issuer(grant.id, now=now)
        if issuer is None or (issuer.account, issuer.mode) != (grant.account, grant.mode):
            raise Refused("access_token_invalid", "The key or client that this access token was made for is revoked.")
        return grant

    async def account(self, id: str) -> Account | None:
        """Return the account of that id as it was at most two seconds ago; None if there is none."""
        known = self.known_account(id)
        return known[1] if known is not None else await self._accounts.get(id)

    def forget(self) -> None:
        """Drop the cache, here and in the other processes of this server. This process calls it after it has changed a
        credential or an account."""
        self.drop()
        self.tell()

    def drop(self) -> None:
        """Drop the cache of this process."""
        self._known.clear()
        self._unknown.clear()
        self._accounts.forget()


def _digest_of(header: str | None) -> bytes:
    """The place of a credential in the cache. No key itself: a dump of this process's memory holds fewer keys."""
    return blake2s((header or "").encode("utf-8", "surrogatepass")).digest()


def _until(grant: Grant, now: float) -> float:
    """Until when a credential that was read at `now` is known."""
    return now + CACHE_SECONDS if grant.expires_at is None else min(now + CACHE_SECONDS, grant.expires_at)


def _is_key_in_use(known: _Known, now: float) -> bool:
    grant = known.grant
    return grant.id.startswith("key_") and grant.token is None and known.used_at > now - IN_USE_SECONDS


def _record_in(rows: Mapping[str, Row], id: str, kind: type[R]) -> R | None:
    """The installation's own record of that id; None if it is missing or damaged: a request that needs it says so."""
    row = rows.get(f"{SYSTEM}/{id}")
    try:
        record = decode(id, row.body) if row is not None else None
    except RecordDamaged:
        return None
    return record if isinstance(record, kind) else None


def credential_in(header: str | None) -> str:
    if not header:
        raise Refused("api_key_missing")
    kind, _, value = header.partition(" ")
    value = value.strip()
    match kind.lower():
        case "bearer":
            secret = value
        case "basic":
            try:
                secret = base64.b64decode(value, validate=True).decode().partition(":")[0]
            except (binascii.Error, UnicodeDecodeError):
                raise Refused("api_key_invalid", "The Basic credentials are not base64 of `key:`.") from None
        case _:
            raise Refused("api_key_missing", "Use the Bearer or the Basic scheme in the Authorization header.")
    if not secret:
        raise Refused("api_key_missing")
    if is_token(secret):
        return secret
    if len(secret) > KEY_LENGTH_MAX or not secret.isascii() or not secret.isprintable():
        raise Refused("api_key_invalid", "Invalid API Key provided.")
    return secret


def is_token(secret: str) -> bool:
    """Whether a credential has the form of a JWT. No key contains a full stop."""
    return secret.count(".") == 2 and secret.isascii() and secret.isprintable()


def _invalid(masked: str) -> Refused:
    return Refused("api_key_invalid", f"Invalid API Key provided: {masked}")


def mask(secret: str) -> str:
    """Return a key as an error may repeat it: its kind and its last four characters."""
    if len(secret) < 16:
        return "*" * len(secret)
    return f"{secret[:8]}{'*' * 12}{secret[-4:]}"


def admit_again(
    authenticator: Authenticator, throttle: Throttle, request: Request, route: Route, request_id: str
) -> Caller | Refused | None:
    """Do the same as `identify_caller` for a credential that was admitted to this route before, if it and its account
    are unchanged, and return the refusal of a key that is known to be nowhere: to raise it would take a client with a
    revoked key a tenth more. None for any other. The route must need a credential. Raises `Throttled`."""
    headers = request.headers
    header = headers.get("authorization")
    if not header or route.dialect is not None or request.grant is not None:
        return None
    known = authenticator.look_up(header, now=time.time())
    if known is None or isinstance(known, Refused):
        return known
    admitted = known.admitted.get(route.name)
    if admitted is None:
        return None
    account = authenticator.known_account(known.grant.account)
    if (
        account is None
        or account[1] is not admitted.account
        or headers.get("stripe-account") is not None
        or headers.get("tillway-account") is not None
        or (request.method != "GET" and is_repeated(request, "authorization"))
    ):
        return None
    throttle.count(known.scope.key, known.scope.mode, known.grant.id, admitted.rate)
    return replace(admitted.caller, request_id=request_id, client_ip=request.client_ip)


def identify_at_once(
    authenticator: Authenticator, throttle: Throttle, request: Request, route: Route, caller: Caller
) -> bool:
    """Do the same as `identify_caller` for a merchant's credential that is known, with its account. Return whether it
    was: nothing had to be read. Raises Refused."""
    header = request.headers.get("authorization")
    if not header or request.grant is not None or route.whole:
        return False
    now = time.time()
    known = authenticator.recall(header, now=now)
    if known is None or known.grant.kind == "operator":
        return False
    key, scope = known.grant, known.scope
    found = authenticator.known_account(scope.account)
    if found is None:
        return False
    account = found[1]
    _name(request, route, caller, key, scope)
    _admit(throttle, request, route, caller, key, scope, account, now)
    if account is None or account.amounts_moved_at is None:  # Else the caller follows from the time, too.
        if len(known.admitted) >= ADMITTED_MAX:
            known.admitted.clear()
        known.admitted[route.name] = _Admitted(replace(caller), account, _own_rate(account))
    return True


async def identify_caller(
    authenticator: Authenticator,
    throttle: Throttle,
    request: Request,
    route: Route,
    caller: Caller,
    raw: dict[str, Any] | None,
) -> None:
    """Authenticate a request, count it against the merchant's limits, and fill `caller` in. Raises Refused.

    Without a header, the key may stand in the body: `raw` is the parsed body of a dialect's request, if it is known.
    """
    if route.access == "anyone":
        return
    dialect = route.dialect
    header = _authorization(request) if request.grant is None else None
    if header is None and dialect is not None and raw is not None and dialect.key_field in raw:
        header = f"Bearer {raw[dialect.key_field]}"
    now = time.time()
    if request.grant is not None:
        key, scope = request.grant, Scope(account=request.grant.account, mode=request.grant.mode)
    else:
        known = authenticator.recall(header, now=now)
        if known is not None:
            key, scope = known.grant, known.scope
        else:
            key, scope = await authenticator.authenticate_header(header, now=now)
    _name(request, route, caller, key, scope)
    if key.kind == "operator":
        caller.scope_key = SYSTEM  # Until it is known for which merchant.
        refuse_unless_may(key.role or "viewer", capability_of(route.method, route.path))
        if not route.whole:
            refuse_repeated(request, "tillway-account")
            named = request.headers.get("tillway-account")
            scope = await authenticator.scope_of_operator(key, named)
        caller.reason = _reason_in(request.headers.get(REASON_HEADER))
        caller.expects = _versions_in(request.headers.get(EXPECT_HEADER))
    account = None if route.whole else await authenticator.account(scope.account)
    _admit(throttle, request, route, caller, key, scope, account, now)


def _name(request: Request, route: Route, caller: Caller, key: Grant, scope: Scope) -> None:
    """Say who the caller is: from here on the audit trail knows it, also where the request is refused."""
    caller.client_ip, caller.actor = request.client_ip, key.id
    caller.hint, caller.operation = key.token or key.hint, route.name
    caller.signed_in = key.signed_in
    caller.scope_key = scope.key


def _admit(
    throttle: Throttle,
    request: Request,
    route: Route,
    caller: Caller,
    key: Grant,
    scope: Scope,
    account: Account | None,
    now: float,
) -> None:
    """Admit a caller with a good credential to the call, and fill `caller` in. Raises Refused."""
    if route.access == "operator" and key.kind != "operator":
        raise Refused("operator_required")
    if account is not None and account.disabled_at is not None and key.kind != "operator":
        raise Refused("account_disabled")
    scope_key = scope.key
    throttle.count(scope_key, scope.mode, key.id, _own_rate(account))
    if key.kind == "publishable" and route.access != "publishable":
        raise Refused("secret_key_required")
    if key.kind == "ephemeral":
        refuse_other_calls(route)
        caller.api_version = key.api_version
    caller.scope, caller.scope_key = scope, scope_key
    caller.kind, caller.expires_at = key.kind, key.expires_at
    caller.customer, caller.scopes = key.customer, key.scopes
    if key.kind == "operator":
        caller.role, caller.works_for = key.role, key.accounts
        caller.whole_installation = key.accounts is None
    caller.publishable = key.kind == "publishable"
    caller.in_minor_units = request.grant is not None or (account is not None and account.has_stored_amounts(now))
    caller.original_answers = account is not None and account.online_platform_answers == "original"
    if key.audience != "api" and (route.dialect is None or key.audience != route.dialect.audience):
        raise Refused("access_token_invalid", "This access token is for the calls of another contract.")
    if key.scopes is not None:
        key.needs(scope_of(route.method, route.path))
    if request.method != "GET":
        refuse_repeated(request, "authorization")
    # The caller means another account's money, so the call must not act on this one.
    if request.headers.get("stripe-account", scope.account) != scope.account:
        raise Refused("account_invalid", param="Stripe-Account")
    if key.kind != "operator" and request.headers.get("tillway-account", scope.account) != scope.account:
        raise Refused("account_invalid", param="Tillway-Account")


async def check_named(authenticator: Authenticator, dialect: Dialect, caller: Caller, raw: dict[str, Any]) -> None:
    """Refuse a dialect's body that names another merchant or customer than its credential is for.

    This comes before the handler, so that no stored idempotent answer is replayed to the wrong token.
    """
    if dialect.merchant_field in raw:
        named = raw[dialect.merchant_field]
        account = await authenticator.account(caller.scope.account)
        # An empty name counts as missing, which the parameters refuse.
        if named not in (None, "") and (account is None or not is_named(account, named)):
            raise Refused("merchant_mismatch", param=dialect.merchant_field)
    only = caller.customer
    if only is not None and raw.get(dialect.customer_field or "", only) != only:
        raise Refused("customer_mismatch", param=dialect.customer_field)


def refuse_large_body_without_header(request: Request) -> None:
    """Refuse a large body where no header authenticates the request: the key would only be found by reading it."""
    if len(request.body) <= UNAUTHENTICATED_BODY_BYTES_MAX and request.unread <= UNAUTHENTICATED_BODY_BYTES_MAX:
        return
    if not request.headers.get("authorization"):
        raise Refused(
            "body_too_large",
            f"A request body of more than {UNAUTHENTICATED_BODY_BYTES_MAX} bytes needs its key in the Authorization "
            "header.",
        )


def _reason_in(header: str | None) -> str:
    """An operator's reason for a call, empty if there is none. Refused if it is too long."""
    reason = (header or "").strip()
    if len(reason) > REASON_MAX:
        raise Refused(
            "parameter_invalid_string", f"A reason has at most {REASON_MAX} characters.", param="Tillway-Reason"
        )
    return reason


def _versions_in(header: str | None) -> dict[str, int]:
    """The versions of records in a header, by id. Refused if it has another form."""
    if not header:
        return {}
    parts = [part.strip().partition("=") for part in header.split(",")]
    if len(parts) > EXPECTED_MAX or not all(re.fullmatch(r"[0-9]{1,12}", version) for _, _, version in parts):
        raise Refused("parameter_invalid_string", "Write versions such as pi_123=3,ch_456=2.", param="Tillway-Expect")
    return {id: int(version) for id, _, version in parts}


def _own_rate(account: Account | None) -> Rate | None:
    """Return the rate that the operator set for the account, if any; 0 a second means no limit."""
    if account is None or account.requests_per_second is None:
        return None
    return Rate(account.requests_per_second, account.requests_burst)


def _authorization(request: Request) -> str | None:
    header = request.headers.get("authorization")
    if header:
        return header
    # Browsers send a publishable key as a parameter, because Stripe.js does.
    found = re.search(
        r"(?:^|&)key=(pk_(?:test|live)_[0-9A-Za-z]+)", request.query or request.body[-4096:].decode("latin-1")
    )
    return f"Bearer {found.group(1)}" if found else None
