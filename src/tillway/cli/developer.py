"""`tillway listen`, `trigger`, `events` and `logs`: for those who build a client of a running server.

They need the server's URL and a key of it, and no file of the installation.
"""

import contextlib
import http.client
import signal
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Annotated, Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec
import typer

from tillway.cli.terminal import Document, WrongUsage, counted, fail, say

LOOK_SECONDS: Final = 0.5
OVERLAP_SECONDS: Final = 5
"""An event may be committed so much later than the time in its id says."""

FORWARD_SECONDS: Final = 30
BEAT_SECONDS: Final = 600
DEAD_SECONDS: Final = 2 * 3600
"""How often `listen` says that it is alive, and after how long without a word it counts as killed."""

ANSWER_SECONDS: Final = 60
SHOWN_MAX: Final = 2000
"""Most characters of an answer that are shown."""

REMEMBERED_MAX: Final = 100_000

TAIL_AGENT: Final = "Tillway (tail)"
"""The `User-Agent` of a command that asks again and again. `logs tail` leaves these requests out."""


def _complete_type(incomplete: str) -> list[str]:
    from tillway.domain.event_types import EVENT_TYPES

    return sorted(type for type in EVENT_TYPES if type.startswith(incomplete))


def _complete_trigger(incomplete: str) -> list[str]:
    from tillway.cli.triggers import TRIGGERS

    return [type for type in TRIGGERS if type.startswith(incomplete)]


Url = Annotated[str, typer.Option("--url", envvar="TILLWAY_URL", help="The server's URL.", show_default=True)]
ApiKey = Annotated[
    str, typer.Option("--api-key", envvar="TILLWAY_API_KEY", help="A secret key of the server; better in the variable.")
]
Types = Annotated[
    str,
    typer.Option("--events", help="Event types, separated by commas; if left out, all.", autocompletion=_complete_type),
]

events = typer.Typer(help="Events of a running server: tail, resend.", no_args_is_help=True)
logs = typer.Typer(help="The request log of a running server: tail.", no_args_is_help=True)

DEFAULT_URL: Final = "http://127.0.0.1:8420"


class _Server:
    """The API of a running server under one key."""

    def __init__(self, url: str, key: str) -> None:
        if not key:
            raise WrongUsage("name a secret key with --api-key, or in the variable TILLWAY_API_KEY")
        if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
            raise WrongUsage(f"--url is {url!r}; it must be such as {DEFAULT_URL}")
        self._url = url.rstrip("/")
        self.key = key

    def send(self, method: str, path: str, params: Document, agent: str = "Tillway (command line)") -> tuple[int, Any]:
        """The status and the document of an answer. Ends the command if the server cannot be reached."""
        from tillway.cli.triggers import PAGES

        address, body = self._url + path, None
        headers = {"Authorization": f"Bearer {self.key}", "User-Agent": agent}
        if method == "POST":
            body = msgspec.json.encode(params)
            headers["Content-Type"] = "application/json"
        elif params:
            address += f"?{urlencode(params)}"
        request = urllib.request.Request(address, data=body, headers=headers, method=method)
        try:
            with urllib.request.urlopen(request, timeout=ANSWER_SECONDS) as answer:
                return answer.status, {} if path.startswith(PAGES) else msgspec.json.decode(answer.read())
        except urllib.error.HTTPError as refused:
            try:
                return refused.code, msgspec.json.decode(refused.read())
            except msgspec.DecodeError:
                return refused.code, {}
        except (OSError, http.client.HTTPException, msgspec.DecodeError) as error:
            raise fail(f"{self._url} gives no answer: {getattr(error, 'reason', error)}") from None

    def ok(self, method: str, path: str, params: Document, **given: str) -> Any:
        """The document of an answer. A refusal ends the command with its message."""
        status, document = self.send(method, path, params, **given)
        if status != 200:
            raise fail(f"HTTP {status}: {document.get('error', {}).get('message', 'no message')}")
        return document

    def tail(
        self, path: str, filters: dict[str, str] | None = None, *, beat: Callable[[], None] = lambda: None
    ) -> Iterator[Document]:
        """The objects of a list that are made from now on, oldest first, for ever. Call `beat` at every look."""
        filters = filters or {}
        since = int(time.time())
        had = dict.fromkeys(one["id"] for one in self._since(path, since, filters))
        return self._tail(path, filters, since, had, beat)

    def _tail(
        self, path: str, filters: dict[str, str], since: int, had: dict[str, None], beat: Callable[[], None]
    ) -> Iterator[Document]:
        while True:
            beat()
            now = int(time.time())
            for one in reversed(self._since(path, since, filters)):
                if one["id"] not in had:
                    had[one["id"]] = None
                    yield one
            while len(had) > REMEMBERED_MAX:
                del had[next(iter(had))]
            since = max(since, now - OVERLAP_SECONDS)
            time.sleep(LOOK_SECONDS)

    def _since(self, path: str, since: int, filters: dict[str, str]) -> list[Document]:
        found: list[Document] = []
        params: Document = {**filters, "created[gte]": since, "limit": 100}
        while True:
            page = self.ok("GET", path, params, agent=TAIL_AGENT)
            found += page["data"]
            if not page["has_more"]:
                return found
            params["starting_after"] = found[-1]["id"]


@contextlib.contextmanager
def _until_stopped() -> Iterator[None]:
    """Run until SIGINT or SIGTERM, which end the command with 0."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    try:
        yield
    except KeyboardInterrupt:
        raise typer.Exit(0) from None


def _types(text: str) -> frozenset[str]:
    """The event types of `--events`; empty: all."""
    from tillway.domain.event_types import EVENT_TYPES

    named = frozenset(part.strip() for part in text.split(",") if part.strip()) - {"*"}
    for type in sorted(named):
        if type not in EVENT_TYPES:
            raise WrongUsage(f"--events: {type} is no event type")
    return named


def listen(
    forward_to: Annotated[str, typer.Option("--forward-to", help="URL that each event is sent to, with its query.")],
    events: Types = "",
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
) -> None:
    """Send each new event of a running server to a URL of yours, signed, and show the answers."""
    server, wanted = _Server(url, api_key), _types(events)
    if urlsplit(forward_to).scheme not in ("http", "https") or not urlsplit(forward_to).hostname:
        raise WrongUsage(f"--forward-to is {forward_to!r}; it must be such as http://localhost:3000/hook")
    secret = _signing_secret(server.key)
    with _until_stopped():
        shown = _Endpoint(server, forward_to, wanted)
        found = server.tail("/v1/events", beat=shown.beat)
        with shown:
            say(f"Ready. The signing secret is {secret} (Ctrl-C ends).")
            for event in found:
                if not wanted or event["type"] in wanted:
                    _tell(f"--> {event['type']} [{event['id']}]")
                    _forward(event, forward_to, secret)


class _Endpoint:
    """A webhook endpoint by which the dashboard shows this command while it runs.

    It is switched off, so that the server delivers nothing there itself. It tells when its command was last alive, and
    the next command deletes those that killed ones have left. A key that may not make endpoints leaves no trace.
    """

    _PATH: Final = "/v1/webhook_endpoints"

    def __init__(self, server: _Server, forward_to: str, wanted: frozenset[str]) -> None:
        self._server, self._url, self._wanted = server, forward_to, wanted
        self._id = ""
        self._seen = 0.0

    def __enter__(self) -> None:
        self._sweep()
        given = {"url": self._url, "enabled_events": sorted(self._wanted) or ["*"], "description": _DESCRIPTION}
        status, made = self._server.send("POST", self._PATH, {**given, "metadata": self._mark()})
        if status == 200:
            self._id = made["id"]
            self._server.send("POST", f"{self._PATH}/{self._id}", {"disabled": True})

    def __exit__(self, *_: object) -> None:
        if self._id:
            self._server.send("DELETE", f"{self._PATH}/{self._id}", {})

    def beat(self) -> None:
        """Say now and then that the command is alive."""
        if self._id and time.time() - self._seen > BEAT_SECONDS:
            self._server.send("POST", f"{self._PATH}/{self._id}", {"metadata": self._mark()})

    def _mark(self) -> dict[str, str]:
        self._seen = time.time()
        return {"tillway": "listen", "seen": str(int(self._seen))}

    def _sweep(self) -> None:
        status, listed = self._server.send("GET", self._PATH, {"limit": 100})
        for one in listed["data"] if status == 200 else ():
            told = one["metadata"]
            if told.get("tillway") != "listen" or one["description"] != _DESCRIPTION:
                continue
            seen = told.get("seen", "")
            alive_at = int(seen) if seen.isascii() and seen.isdigit() else one["created"]
            if one["url"] == self._url or time.time() - alive_at > DEAD_SECONDS:
                self._server.send("DELETE", f"{self._PATH}/{one['id']}", {})


_DESCRIPTION: Final = "tillway listen"


def _signing_secret(key: str) -> str:
    """A secret that is the same for a key each time."""
    import hashlib

    from tillway.engine.webhooks.signing import SECRET_PREFIX

    return SECRET_PREFIX + hashlib.sha256(f"tillway listen {key}".encode()).hexdigest()[:32]


def _forward(event: Document, to: str, secret: str) -> None:
    from tillway.domain.cards import Secret
    from tillway.engine.webhooks.signing import signature_header

    body = msgspec.json.encode(event)
    headers = {
        "Content-Type": "application/json; charset=utf-8",
        "Stripe-Signature": signature_header(body, Secret(secret), now=int(time.time())),
        "User-Agent": "Tillway (listen)",
    }
    request = urllib.request.Request(to, data=body, headers=headers, method="POST")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=FORWARD_SECONDS) as answer:
            status, text = answer.status, b""
    except urllib.error.HTTPError as refused:
        status, text = refused.code, refused.read(SHOWN_MAX)
    except (OSError, http.client.HTTPException) as error:
        _tell(f"<-- no answer from {to} [{event['id']}]: {getattr(error, 'reason', error)}")
        return
    _tell(f"<-- [{status}] POST {to} [{event['id']}]")
    if text:
        print(text.decode(errors="replace"), flush=True)


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        return None


def trigger(
    event: Annotated[
        str, typer.Argument(help="The event's type, such as charge.refunded.", autocompletion=_complete_trigger)
    ],
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
) -> None:
    """Make an event happen in test mode, by the calls of a shop."""
    from tillway.cli.triggers import TRIGGERS

    if event not in TRIGGERS:
        raise WrongUsage(f"{event} cannot be triggered; these can: {', '.join(TRIGGERS)}")
    server = _Server(url, api_key)

    def send(method: str, path: str, params: Document) -> Document:
        status, document = server.send(method, path, params)
        error = document.get("error", {})
        _tell(f"{status} {method} {path}" + (f": {error.get('message')}" if error else ""))
        if status not in (200, 402):
            raise fail(f"{event} was not triggered: {error.get('message', 'no message')}")
        found: Document = document
        return found

    TRIGGERS[event](send)


@events.command("tail")
def tail_events(events: Types = "", url: Url = DEFAULT_URL, api_key: ApiKey = "") -> None:
    """Print each new event of a running server as one line of JSON."""
    server, wanted = _Server(url, api_key), _types(events)
    with _until_stopped():
        found = server.tail("/v1/events")
        say("Ready (Ctrl-C ends).")
        for event in found:
            if not wanted or event["type"] in wanted:
                print(msgspec.json.encode(event).decode(), flush=True)


@events.command()
def resend(
    event: Annotated[str, typer.Argument(help="The event (evt_…).")],
    webhook_endpoint: Annotated[
        str, typer.Option("--webhook-endpoint", help="The endpoint (we_…); if left out, all that subscribe.")
    ] = "",
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
) -> None:
    """Send an event again to one webhook endpoint, or to all that subscribe to its type."""
    params = {"webhook_endpoint": webhook_endpoint} if webhook_endpoint else {}
    sent = _Server(url, api_key).ok("POST", f"/ops/v1/events/{event}/resend", params)
    print(f"{sent['id']} {sent['type']}: {counted(sent['pending_webhooks'], 'open delivery')}.", flush=True)


@logs.command("tail")
def tail_logs(
    method: Annotated[str, typer.Option("--filter-method", help="Only this method, such as POST.")] = "",
    path: Annotated[str, typer.Option("--filter-path", help="Only paths that begin so.")] = "",
    status: Annotated[str, typer.Option("--filter-status", help="Only this status, or a class such as 4xx.")] = "",
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
) -> None:
    """Print each new request to a running server; for a refused one also its parameters and its answer."""
    given = {"method": method.upper(), "path": path, "status": status}
    server, filters = _Server(url, api_key), {name: value for name, value in given.items() if value}
    with _until_stopped():
        server.ok("GET", "/ops/v1/requests", {**filters, "limit": 1})
        found = server.tail("/ops/v1/requests", filters)
        say("Ready (Ctrl-C ends).")
        for request in found:
            if request["user_agent"] == TAIL_AGENT and request["status"] == 200:
                continue
            when = datetime.fromtimestamp(request["created"]).strftime("%Y-%m-%d %H:%M:%S")
            what = f"[{request['status']}] {request['method']} {request['path']} [{request['id']}]"
            print(f"{when} {what} {request['duration_ms']} ms", flush=True)
            if request["status"] >= 400:
                _show_refused(server.ok("GET", f"/ops/v1/requests/{request['id']}", {}))


def _show_refused(request: Document) -> None:
    for name in ("query", "request_body", "response_body"):
        if request[name] is not None:
            text = msgspec.json.encode(request[name]).decode()
            print(f"  {name}: {text[:SHOWN_MAX]}", flush=True)


def _tell(text: str) -> None:
    print(f"{datetime.now().strftime('%Y-%m-%d %H:%M:%S')} {text}", flush=True)
