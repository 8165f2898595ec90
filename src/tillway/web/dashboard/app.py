"""The requests of browsers: who has signed in, whether a form is genuine, which page answers, and strict headers."""

import hmac
import logging
from base64 import b64decode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Callable
from typing import Any, Final
from urllib.parse import parse_qs, quote, unquote, urlsplit

import msgspec

from tillway.domain.account import Mode
from tillway.domain.credentials import Grant, SignedInBy
from tillway.domain.dashboard import SESSION_SECONDS, csrf_token
from tillway.domain.refusal import RULES, STORE_CODES, Refused
from tillway.engine.ids import random_text
from tillway.engine.platform import Platform
from tillway.http.messages import Request, Response
from tillway.http.multipart import is_multipart, parse_multipart
from tillway.operations import password_sign_ins, sign_ins
from tillway.operations.identities import sign_in_by_identity
from tillway.operations.passkeys import Passkeys
from tillway.operations.sign_in_tries import tries_left
from tillway.operations.sign_ins import TOKEN_LENGTH, SignedIn
from tillway.store.codec import RecordDamaged
from tillway.store.port import Unavailable
from tillway.web.dashboard import pages
from tillway.web.dashboard.assets import find_asset
from tillway.web.dashboard.badges import Badges
from tillway.web.dashboard.door import Answer, CallRefused, Door, Upload
from tillway.web.dashboard.identity_provider import IdentityProvider, ProviderFailed
from tillway.web.dashboard.kept_pages import KeptPages, dimmed
from tillway.web.dashboard.proving import SEALED, answer_in, is_secret
from tillway.web.dashboard.rendering import render
from tillway.web.dashboard.visit import (
    BASE,
    PAGES,
    Document,
    File,
    Page,
    Pages,
    Redirect,
    Reply,
    Shown,
    Visit,
    browser_of,
)
from tillway.web.dashboard.words import forbidden

log = logging.getLogger(__name__)

assert pages.LOADED, "the files of pages declare them when they are imported"

POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'"
)
_HEADERS: Final = (
    ("content-security-policy", POLICY),
    ("referrer-policy", "same-origin"),
    ("cross-origin-opener-policy", "same-origin"),
    ("x-content-type-options", "nosniff"),
    ("server", ""),
)
_NO_STORE: Final = ("cache-control", "no-store")
_FOR_EVER: Final = ("cache-control", "public, max-age=31536000, immutable")
_HTML: Final = "text/html; charset=utf-8"

FIELDS_MAX: Final = 1300
"""Most fields of a form or an address: a routing document of 100 rules has eleven for each."""
CHECKS: Final = "/settings/system"
AGAIN: Final = f"{BASE}/again"
KEPT_TO: Final = "kept_to"
"""The field with the address of a form that is sent again after a new sign-in."""

NEVER_KEPT: Final = frozenset(("csrf", KEPT_TO, "proof", "passkey", "ticket"))
"""Fields that are not sent again after a new sign-in, besides those with secrets. Sealed ones open for their operator
and their form alone."""

ONWARD_MAX: Final = 2000
"""Most characters of the address that a sign-in leads to: a list with many filters has some hundred."""

UNSEEN: Final = frozenset(("merchant", "idempotency_key", "version", "preview", "previewed", "do", SEALED))
OF_NO_MERCHANT: Final = ("/merchant", "/sign-out", "/security")
"""Forms that do the same whichever merchant is shown."""

SSO_SECONDS: Final = 10 * 60
"""How long a sign-in at the identity provider may take."""

CHOICES: Final = {f"{BASE}/theme": ("dark", "light"), f"{BASE}/shortcuts": ("off",)}
"""Choices of a browser that a cookie keeps, by the address of their form; another value ends the choice."""
CHOICE_SECONDS: Final = 365 * 24 * 60 * 60


class Dashboard:
    """Answers every request below `/dashboard`. Never raises."""

    prefix = BASE

    def __init__(
        self,
        platform: Platform,
        answer: Answer,
        public_url: str,
        passkeys: Passkeys,
        provider: IdentityProvider | None,
        count_failure: Callable[[str | None], None],
        *,
        secure: bool = True,
        idle_seconds: int = 0,
        refreshes: bool = True,
    ) -> None:
        """`answer` answers calls of the API inside this process; `count_failure` counts a failed sign-in of an
        address, and raises Refused where there were too many. `secure`: cookies go over TLS alone, as they must except
        for plain http on this host itself. `idle_seconds`: how long a session may be unused; 0: for as long as it
        lasts. `refreshes`: open pages ask for themselves anew.
        """
        self._platform = platform
        self._answer = answer
        self._public = urlsplit(public_url)
        self._passkeys = passkeys
        self._provider = provider
        self._count_failure = count_failure
        self._pages = Pages(PAGES)
        self._kept = KeptPages()
        self._badges = Badges()
        self._secure = secure
        self._idle_seconds = idle_seconds
        self.cookie = "__Host-tillway" if secure else "tillway"
        self.refreshes = refreshes

    async def knows(self, request: Request) -> bool:
        """Whether a request has a session, so that a large body of it is worth reading."""
        try:
            return (await self._session(request))[1] is not None
        except (Unavailable, RecordDamaged):
            return False

    async def respond(self, request: Request) -> tuple[Response, str]:
        """The response, and the pattern of its page for the metrics."""
        request_id = f"req_{random_text(14)}"
        try:
            response, pattern = await self._respond(request)
        except (Unavailable, RecordDamaged) as stopped:
            log.error("the store cannot be read", extra={"request": request_id, "why": str(stopped)})
            code = stopped.code if isinstance(stopped, Unavailable) else "record_damaged"
            response, pattern = await self._trouble(request, Refused(code), request_id), BASE
        except Refused as refused:
            response, pattern = await self._trouble(request, refused, request_id), BASE
        except Exception:
            log.exception("a page failed inside", extra={"request": request_id, "route": request.path[:200]})
            response, pattern = await self._trouble(request, Refused("internal"), request_id), BASE
        response.headers.append(("request-id", request_id))
        return response, pattern

    async def _respond(self, request: Request) -> tuple[Response, str]:
        path = request.path.rstrip("/") or BASE
        if path.startswith(f"{BASE}/static/"):
            return _static(path), f"{BASE}/static/*"
        if request.method not in ("GET", "HEAD", "POST"):
            return self._plain(405, "Use GET or POST.", ("allow", "GET, HEAD, POST")), BASE
        form, files = dict[str, list[str]](), dict[str, Upload]()
        if request.method == "POST":
            if not self._is_own_site(request):
                return self._page(request, Shown("forged.html", {}, 403)), BASE
            form, files = _form_of(request)
        if path in CHOICES and request.method == "POST":
            return self._keep_choice(request, path, form), path
        if path == f"{BASE}/sign-in" or path.startswith(f"{BASE}/sign-in/"):
            return await self._sign_in(request, path, form), f"{BASE}/sign-in"
        token, signed = await self._session(request)
        if path == AGAIN and request.method == "POST":
            return self._send_again(request, form, token, signed), AGAIN
        if signed is None:
            self._kept.forget(token)
            return self._send_to_sign_in(request, path, form, with_files=bool(files)), BASE
        return await self._visit(request, path, form, files, token, signed)

    async def _visit(
        self,
        request: Request,
        path: str,
        form: dict[str, list[str]],
        files: dict[str, Upload],
        token: str,
        signed: SignedIn,
    ) -> tuple[Response, str]:
        """Answer a signed-in operator."""
        mode: Mode = "live" if path == f"{BASE}/live" or path.startswith(f"{BASE}/live/") else "test"
        inner = path.removeprefix(BASE).removeprefix("/live" if mode == "live" else "") or "/"
        if request.method == "POST" and not _has_token(form, token):
            return self._page(request, Shown("forged.html", {}, 403)), BASE
        visit = await self._begin(request, form, token, signed, mode)
        visit.files, visit.refreshes = files, self.refreshes
        if request.headers.get("sec-fetch-dest", "document") == "document":
            # A page that refreshes itself does not keep a session in use.
            await sign_ins.note_use(self._platform.engine, signed.session)
        if request.method == "POST" and inner == "/sign-out":
            await sign_ins.end_session(self._platform.engine, signed, signed.session.id, request.client_ip)
            self._forget_pages(token)
            return self._redirect(f"{BASE}/sign-in", self._cookie_header("", 0)), f"{BASE}/sign-out"
        if request.method == "POST" and inner == "/merchant":
            self._forget_pages(token)
        methods, visit.ids = self._pages.find(inner)
        chosen = methods.get("GET" if request.method == "HEAD" else request.method)
        pattern = f"{BASE}{chosen.path}" if chosen is not None else f"{BASE}/*"
        try:
            if chosen is None:
                reply: Reply = _no_page(visit, bool(methods))
            else:
                reply = _of_another_merchant(visit, inner) or await chosen.handler(visit)
        except CallRefused as refused:
            if refused.code in STORE_CODES:
                raise Refused(refused.code) from refused
            reply = await self._refused(visit, refused, chosen.place if chosen is not None else "")
        if request.method == "POST":
            self._badges.forget(visit)
            self._platform.engine.tell_siblings()
        if isinstance(reply, Shown):
            visit.frame = await self._badges.of(visit)
        response = self._reply(visit, chosen, reply)
        if visit.renewed:
            left = visit.signed.session.expires_at - self._platform.engine.clock.now_ms() // 1000
            response.headers.append(self._cookie_header(visit.token, left))
        if request.method == "GET" and isinstance(reply, Shown) and reply.status == 200:
            self._kept.keep(visit.token, _address_of(request), response.body, visit.now)
        return response, pattern

    def drop(self) -> None:
        """Drop the numbers and pages of this process: an operator has done something, or signed out, at another."""
        self._badges.drop()
        self._kept.drop()

    def _forget_pages(self, token: str) -> None:
        """Drop the pages of a session that has ended, in every process."""
        self._kept.forget(token)
        self._platform.engine.tell_siblings()

    async def _begin(
        self, request: Request, form: dict[str, list[str]], token: str, signed: SignedIn, mode: Mode
    ) -> Visit:
        accounts = await sign_ins.accounts_of(self._platform.engine, signed.operator)
        chosen = next((one for one in accounts if one.id == signed.session.account), accounts[0])
        operator = signed.operator
        grant = Grant(
            id=operator.id,
            hint=operator.name,
            account=chosen.id,
            mode=mode,
            kind="operator",
            role=operator.role,
            accounts=operator.accounts,
            signed_in=SignedInBy(factor=signed.session.factor, role=operator.role, browser=signed.session.agent),
        )
        door = Door(self._answer, grant, chosen.id, request.client_ip)
        query = _query_of(request)
        visit = Visit(
            self._platform,
            request,
            signed,
            token,
            csrf_token(token),
            mode,
            chosen,
            accounts,
            door,
            self._passkeys,
            query,
            form,
        )
        visit.theme = _theme_of(request)
        visit.has_shortcuts = _cookies_of(request).get("shortcuts") != "off"
        visit.sso = self._provider is not None
        return visit

    # Signing in

    async def _session(self, request: Request) -> tuple[str, SignedIn | None]:
        token = self._token(request)
        if not token:
            return "", None
        return token, await sign_ins.signed_in(self._platform.engine, token, idle_seconds=self._idle_seconds)

    def _token(self, request: Request) -> str:
        """The token in the cookie, whether its session lasts or not; empty where there is none."""
        token = _cookies_of(request).get(self.cookie, "")
        return token if len(token) <= 100 and token.isalnum() else ""

    def _send_to_sign_in(
        self, request: Request, path: str, form: dict[str, list[str]], *, with_files: bool
    ) -> Response:
        """A page leads to the sign-in and back; a form is answered there, with a way to send it again. One with files
        has none: it would be sent without them."""
        if request.method == "POST":
            values = _typed(path, form) | {"with_files": with_files}
            return self._page(request, Shown("signed-out.html", values, 401))
        onward = quote(path) + (f"?{request.query}" if request.query else "")
        return self._redirect(f"{BASE}/sign-in" + (f"?next={quote(onward, safe='/')}" if onward != BASE else ""))

    def _send_again(
        self, request: Request, form: dict[str, list[str]], token: str, signed: SignedIn | None
    ) -> Response:
        """Show a form once more that was sent without a session, with a token of the new one. It changes nothing."""
        to = own_address((form.get(KEPT_TO) or [BASE])[0])
        values = _typed(to, form)
        if signed is None:
            return self._page(request, Shown("signed-out.html", values | {"with_files": False}, 401))
        values |= {"csrf": csrf_token(token), "name": signed.operator.name}
        return self._page(request, Shown("again.html", values))

    async def _sign_in(self, request: Request, path: str, form: dict[str, list[str]]) -> Response:
        token = path.removeprefix(f"{BASE}/sign-in").strip("/")
        if not token:
            return await self._sign_in_page(request, form)
        if token == "code":
            return await self._code_page(request, form)
        if token in ("sso", "sso/callback") and self._provider is not None:
            return await self._single_sign_on(request, self._provider, begins=token == "sso")
        if token == "passkey":
            return await self._passkey_page(request, form)
        engine = self._platform.engine
        operator = await sign_ins.operator_of_link(engine, token) if token.isalnum() and len(token) <= 100 else None
        if operator is None:
            self._count_failure(request.client_ip)
            return self._page(request, Shown("link-used.html", {}, 404))
        if request.method != "POST":
            return self._page(request, Shown("sign-in-link.html", {"name": operator.name, "role": operator.role}))
        opened = await sign_ins.sign_in_by_link(engine, token, browser_of(request))
        if opened is None:
            return self._page(request, Shown("link-used.html", {}, 404))
        return await self._opened(request, opened)

    async def _sign_in_page(self, request: Request, form: dict[str, list[str]]) -> Response:
        """The page with e-mail and password; it sends on to the page with the code."""
        onward = _onward(request, form)
        if request.method != "POST":
            _, signed = await self._session(request)
            if signed is not None:
                return self._redirect(onward)
            return self._page(request, await self._sign_in_form(next=onward))
        email, password = ((form.get(name) or [""])[0] for name in ("email", "password"))
        answer = await password_sign_ins.sign_in_by_password(
            self._platform.engine, email[:300], password, browser_of(request)
        )
        values = {"email": email[:200], "passkeys": await self._passkeys.are_there(), "sso": self._provider is not None}
        if answer == "wrong":
            values["left"] = await tries_left(self._platform.engine, email[:300])
        return await self._proven(request, answer, "sign-in.html", values | {"host": self._public.netloc}, onward)

    async def _sign_in_form(self, status: int = 200, **values: Any) -> Shown:
        """The page with e-mail and password, and with a passkey where there are any."""
        there = await self._passkeys.are_there()
        values |= {"passkeys": there, "sso": self._provider is not None, "host": self._public.netloc}
        return _try_page("sign-in.html", status, **values)

    async def _single_sign_on(self, request: Request, provider: IdentityProvider, *, begins: bool) -> Response:
        """Send the browser to the identity provider, or sign the person in who comes back from there."""
        cookie, now = f"{self.cookie}-sso", self._platform.engine.clock.now_ms() // 1000
        query = {name: values[0] for name, values in _query_of(request).items()}
        try:
            if begins:
                token = random_text(TOKEN_LENGTH)
                to = await provider.address(token, again="again" in query)
                kept = f"{token}.{urlsafe_b64encode(_onward(request, {}).encode()).decode().rstrip('=')}"
                return self._redirect(to, self._cookie_header(kept, SSO_SECONDS, cookie))
            token, _, kept = _cookies_of(request).get(cookie, "").partition(".")
            onward = own_address(_decoded(kept))
            if not token:
                raise ProviderFailed("the browser has no cookie of a sign-in that it began")
            person = await provider.identity(token, query, now=now)
        except ProviderFailed as failed:
            log.warning("the identity provider signed nobody in", extra={"why": str(failed)})
            self._count_failure(request.client_ip)
            told = "Single sign-on did not work. Try again; the server’s log says why."
            return self._page(request, await self._sign_in_form(401, sso_refused=told))
        opened = await sign_in_by_identity(
            self._platform.engine,
            person.issuer,
            person.subject,
            person.email,
            browser_of(request),
            strong=person.is_fresh,
        )
        if opened is None:
            told = "Single sign-on knows you, but no user here has your verified e-mail address. Ask an admin."
            return self._page(request, await self._sign_in_form(403, sso_refused=told))
        used_up = self._cookie_header("", 0, cookie)
        return await self._opened(request, opened, used_up, onward=onward)

    async def _passkey_page(self, request: Request, form: dict[str, list[str]]) -> Response:
        """The options for a sign-in with a passkey, as JSON; or the answer of a browser to them."""
        if request.method != "POST":
            options = msgspec.json.encode(self._passkeys.ask())
            return Response(200, [*_HEADERS, _NO_STORE, ("content-type", "application/json")], options)
        opened = await self._passkeys.sign_in(answer_in(form), browser_of(request))
        onward = _onward(request, form)
        if opened is not None:
            return await self._opened(request, opened, onward=onward)
        self._count_failure(request.client_ip)
        told = "This passkey is not known here."
        return self._page(request, await self._sign_in_form(401, refused=told, next=onward))

    async def _code_page(self, request: Request, form: dict[str, list[str]]) -> Response:
        """The page with the code of an authenticator, after the password."""
        if request.method != "POST":
            return self._redirect(f"{BASE}/sign-in")
        ticket, code = ((form.get(name) or [""])[0] for name in ("ticket", "code"))
        answer = await password_sign_ins.sign_in_by_code(
            self._platform.engine,
            self._platform.cards.vault,
            ticket[:100],
            code[:40],
            browser_of(request),
        )
        onward = _onward(request, form)
        return await self._proven(request, answer, "sign-in-code.html", {"ticket": ticket[:100]}, onward)

    async def _proven(
        self, request: Request, answer: password_sign_ins.Answer, template: str, values: dict[str, Any], onward: str
    ) -> Response:
        match answer:
            case password_sign_ins.Opened(token=token):
                return await self._opened(request, token, onward=onward)
            case password_sign_ins.CodeNeeded(ticket=ticket, email=email):
                return self._page(request, _try_page("sign-in-code.html", ticket=ticket, email=email, next=onward))
            case _:
                self._count_failure(request.client_ip)
                status, values = 429 if answer == "wait" else 401, values | {"wait": answer == "wait", "next": onward}
                return self._page(request, _try_page(template, status, wrong=True, **values))

    async def _opened(self, request: Request, opened: str, *headers: tuple[str, str], onward: str = BASE) -> Response:
        """Send the browser on with its new session. The one that it had before ends: a proof gives a new one."""
        token, before = await self._session(request)
        if before is not None:
            self._forget_pages(token)
            address = request.client_ip
            await sign_ins.end_session(self._platform.engine, before, before.session.id, address)
        return self._redirect(onward, *headers, self._cookie_header(opened, SESSION_SECONDS))

    def _cookie_header(self, token: str, seconds: int, name: str = "") -> tuple[str, str]:
        secure = "; Secure" if self._secure else ""
        return "set-cookie", f"{name or self.cookie}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}"

    def _keep_choice(self, request: Request, path: str, form: dict[str, list[str]]) -> Response:
        """Keep a choice of this browser in its cookie: the colours, or the keyboard shortcuts."""
        token = self._token(request)
        if token and not _has_token(form, token):
            return self._page(request, Shown("forged.html", {}, 403))
        name = path.removeprefix(f"{BASE}/")
        given = (form.get(name) or [""])[0]
        chosen = given if given in CHOICES[path] else ""
        back = (form.get("back") or [BASE])[0]
        kept = CHOICE_SECONDS if chosen else 0
        return self._redirect(
            own_address(back), ("set-cookie", f"{name}={chosen}; Path=/; Max-Age={kept}; SameSite=Lax")
        )

    def _is_own_site(self, request: Request) -> bool:
        """Whether a form was sent by a page of this server, as far as the browser says. Programs say nothing."""
        site = request.headers.get("sec-fetch-site")
        if site is not None and site != "same-origin":
            return False
        origin = request.headers.get("origin")
        if origin is None:
            return True
        parts = urlsplit(origin)
        if not parts.netloc:
            return False
        ours = (self._public.netloc, request.headers.get("host") or "")
        return parts.netloc in ours and parts.scheme in ("http", "https")

    # Answers

    async def _refused(self, visit: Visit, refused: CallRefused, place: str) -> Reply:
        """The page for a call that the API refused, where the page has no form to say it beside."""
        if refused.status == 403:
            values = {
                "heading": forbidden(place, visit.lacks),
                "message": refused.message,
                "request": refused.request_id,
                "ask": await _admin_to_ask(visit),
                "lacks": visit.lacks,
                "back": place if visit.request.method == "POST" or visit.request.path != visit.url(place) else "",
            }
            return Shown("forbidden.html", values, 403)
        if refused.code == "resource_missing":
            return Shown("not-found.html", {"message": refused.message}, 404)
        values = {
            "message": refused.message,
            "code": refused.code,
            "explained": refused.error.get("doc_url"),
            "request": refused.request_id,
        }
        return Shown("error.html", values, refused.status)

    def _reply(self, visit: Visit, chosen: Page | None, reply: Reply) -> Response:
        match reply:
            case Redirect():
                return self._redirect(reply.to)
            case Document():
                return Response(200, [*_HEADERS, _NO_STORE, ("content-type", "application/json")], reply.body)
            case File():
                headers = [*_HEADERS, _NO_STORE, ("content-type", reply.content_type)]
                headers.append(("content-disposition", f'attachment; filename="{reply.name}"'))
                return Response(200, headers, reply.body)
            case Shown():
                body = render(reply.template, visit, chosen.place if chosen is not None else "", reply.values)
                return Response(reply.status, [*_HEADERS, _NO_STORE, ("content-type", _HTML)], body)

    def _page(self, request: Request, shown: Shown) -> Response:
        """A page without navigation, for a visitor who has not signed in."""
        body = render(shown.template, None, "", shown.values | {"theme": _theme_of(request)})
        return Response(shown.status, [*_HEADERS, _NO_STORE, ("content-type", _HTML)], body)

    def _last_shown(self, request: Request, refused: Refused, request_id: str) -> Response | None:
        """The page as its session last saw it, dimmed, with its time; None where there is none, or where the request is
        at fault."""
        if RULES[refused.code].status < 500:
            return None
        token, now = _cookies_of(request).get(self.cookie, ""), self._platform.engine.clock.now_ms() // 1000
        found = self._kept.find(token, _address_of(request), now) if request.method == "GET" else None
        if found is None:
            return None
        body, at = found
        values = {"at": at, "message": refused.message, "request": request_id, "address": _address_of(request)}
        values |= _meaning(refused.code) | {"checks": f"{BASE}{CHECKS}"}
        note = render("stale.html", None, "", values)
        return Response(503, [*_HEADERS, _NO_STORE, ("content-type", _HTML)], dimmed(body, note))

    async def _trouble(self, request: Request, refused: Refused, request_id: str) -> Response:
        """The page for a failure outside of any page: the store is away, or there were too many tries. In place of the
        page of the system it tells the checks that fail."""
        status = RULES[refused.code].status
        is_system = request.path.endswith(CHECKS) and status >= 500
        shown = self._last_shown(request, refused, request_id) if not is_system else None
        if shown is not None:
            return shown
        values: dict[str, Any] = {"message": refused.message, "code": refused.code, "request": request_id}
        values["failing"] = await self._failing_checks() if is_system else []
        values["checks"] = f"{BASE}{CHECKS}" if status >= 500 and not is_system else ""
        kept = self._kept_form(request) if status >= 500 else None
        if kept is not None:
            return self._page(request, Shown("unfinished.html", values | kept | _meaning(refused.code), status))
        return self._page(request, Shown("trouble.html", values | _meaning(refused.code), status))

    async def _failing_checks(self) -> list[str]:
        """The reasons why no payment could be taken now."""
        answer = await self._answer(Request("GET", "/readyz", "", {}, b"", None))
        return [str(one["reason"]) for one in msgspec.json.decode(answer.body).get("reasons", [])]

    def _kept_form(self, request: Request) -> dict[str, Any] | None:
        """The fields of a form that could not be finished, for the page that sends it again; None where there are none
        to keep, as at the sign-in."""
        path = request.path.rstrip("/")
        if request.method != "POST" or not self._is_own_site(request) or path.startswith(f"{BASE}/sign-in"):
            return None
        try:
            form, files = _form_of(request)
        except Refused:
            return None
        to = own_address((form.get(KEPT_TO) or [BASE])[0]) if path == AGAIN else path
        return _typed(to, form) | {"with_files": bool(files), "is_once": "idempotency_key" in form}

    def _redirect(self, to: str, *headers: tuple[str, str]) -> Response:
        return Response(303, [*_HEADERS, _NO_STORE, ("location", to), *headers, ("content-type", _HTML)], b"")

    def _plain(self, status: int, text: str, *headers: tuple[str, str]) -> Response:
        content_type = ("content-type", "text/plain; charset=utf-8")
        return Response(status, [*_HEADERS, _NO_STORE, content_type, *headers], text.encode())


def _has_token(form: dict[str, list[str]], token: str) -> bool:
    """Whether a form has the CSRF token of the session with that token."""
    return hmac.compare_digest((form.get("csrf") or [""])[0].encode(), csrf_token(token).encode())


def _meaning(code: str) -> dict[str, str]:
    """The meaning of a failure for the money, as its page tells it."""
    if code in STORE_CODES:
        told = "As long as this lasts, new payments are refused too. Payments that were taken stay as they are."
    else:
        told = (
            "Payments go on being taken or refused by the same rules as before; nothing is lost by this page failing."
        )
    return {"meaning": told}


def own_address(text: str) -> str:
    """`text` if it is an address of the dashboard; else that of its first page. It never leads to another site."""
    path = unquote(text.partition("?")[0])
    fits = path == BASE or (path.startswith(f"{BASE}/") and "/.." not in path and "\\" not in path)
    return text if fits and text.isascii() and text.isprintable() else BASE


def _onward(request: Request, form: dict[str, list[str]]) -> str:
    """The page that a sign-in leads to, from the field `next` of the form or the address."""
    sent = form.get("next") or _query_of(request).get("next") or [BASE]
    return own_address(sent[0][:ONWARD_MAX])


def _decoded(text: str) -> str:
    """Text from a cookie in Base64; empty where it is none."""
    try:
        return urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except ValueError:
        return ""


def _address_of(request: Request) -> str:
    return request.path + (f"?{request.query}" if request.query else "")


def _typed(to: str, form: dict[str, list[str]]) -> dict[str, Any]:
    """The fields of a form that was sent without a session, except secrets, and those that a person wrote."""
    kept = {name: values for name, values in form.items() if name not in NEVER_KEPT and not is_secret(name)}
    fields = [(name, value) for name, values in kept.items() for value in values]
    typed = [(name, value) for name, value in fields if name not in UNSEEN and value]
    return {"to": to, "fields": fields, "typed": typed}


def _of_another_merchant(visit: Visit, inner: str) -> Shown | None:
    """The refusal of a form that was shown for another merchant: another tab, or a new sign-in, has changed it."""
    of = visit.sent("merchant")
    if visit.request.method != "POST" or of in ("", visit.account.id) or inner.startswith(OF_NO_MERCHANT):
        return None
    name = next((one.name for one in visit.accounts if one.id == of), "") or of[:40]
    told = (
        f"This form is about {name}, and you are looking at {visit.account.name or visit.account.id} now. Nothing was "
        "changed: choose the merchant at the top, and open the form again."
    )
    return Shown("error.html", {"message": told, "request": ""}, 409)


async def _admin_to_ask(visit: Visit) -> dict[str, Any] | None:
    """Another admin of the merchant; None if there is none, or none can be told now."""
    try:
        admins = (await visit.door.get("/ops/v1/admins"))["data"]
    except CallRefused:
        return None
    return next((one for one in admins if one["id"] != visit.signed.operator.id), None)


def _no_page(visit: Visit, other_method: bool) -> Shown:
    if other_method:
        return Shown("error.html", {"message": "This address takes a form.", "request": ""}, 405)
    return Shown("not-found.html", {"message": f"There is no page {visit.request.path[:100]}."}, 404)


def _query_of(request: Request) -> dict[str, list[str]]:
    """The fields of an address. Refused if there are too many."""
    try:
        return parse_qs(request.query, max_num_fields=FIELDS_MAX)
    except ValueError:
        raise Refused("parameter_invalid_string", f"An address has at most {FIELDS_MAX} fields.") from None


def _form_of(request: Request) -> tuple[dict[str, list[str]], dict[str, Upload]]:
    """The fields of a form, and its files. Refused if it is too large or of another type."""
    if request.unread:
        raise Refused("body_too_large")
    content_type = request.headers.get("content-type") or ""
    if is_multipart(content_type):
        return _with_files(parse_multipart(content_type, request.body))
    kind = content_type.partition(";")[0].strip().lower()
    if kind not in ("application/x-www-form-urlencoded", ""):
        raise Refused("content_type_unsupported")
    try:
        return parse_qs(request.body.decode(), max_num_fields=FIELDS_MAX, keep_blank_values=True), {}
    except ValueError:
        raise Refused("body_malformed") from None


def _with_files(parts: dict[str, Any]) -> tuple[dict[str, list[str]], dict[str, Upload]]:
    """The fields and the files of a form with files; a field for a file that was left empty is none."""
    files = {
        name: Upload(part["filename"], b64decode(part["data"]))
        for name, part in parts.items()
        if isinstance(part, dict) and part.keys() == {"filename", "data"} and part["filename"]
    }
    return {name: [part] for name, part in parts.items() if isinstance(part, str)}, files


TRY: Final[dict[str, Any]] = {
    "host": "",
    "left": 0,
    "email": "",
    "ticket": "",
    "wrong": False,
    "wait": False,
    "passkeys": False,
    "refused": "",
    "sso": False,
    "sso_refused": "",
    "next": BASE,
}


def _try_page(template: str, status: int = 200, **values: Any) -> Shown:
    """A page that takes a password or a code."""
    return Shown(template, {**TRY, **values}, status)


def _cookies_of(request: Request) -> dict[str, str]:
    # A process without the dashboard's visitors does not import it.
    from http.cookies import SimpleCookie

    cookies: SimpleCookie = SimpleCookie()
    try:
        cookies.load(request.headers.get("cookie") or "")
    except Exception:  # A malformed header is as good as none.
        return {}
    return {name: morsel.value for name, morsel in cookies.items()}


def _theme_of(request: Request) -> str:
    theme = _cookies_of(request).get("theme", "")
    return theme if theme in ("dark", "light") else ""


def _static(path: str) -> Response:
    found = find_asset(path)
    if found is None:
        return Response(404, [*_HEADERS, _NO_STORE, ("content-type", "text/plain; charset=utf-8")], b"No such file.")
    return Response(200, [*_HEADERS, _FOR_EVER, ("content-type", found[0])], found[1])
