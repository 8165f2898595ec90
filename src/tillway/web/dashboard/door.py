"""The door from a page to the API: each call runs through the route table, with the operator's rights."""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final
from urllib.parse import urlencode

import msgspec

from tillway.domain.credentials import Grant
from tillway.http.messages import Request, Response

IN_USE_WAITS: Final = (0.1, 0.2, 0.4, 0.8, 1.5, 3.0, 6.0)
"""Seconds between the tries of a call under a key that an earlier press still uses: 12 in all."""

SAID: Final = {
    "idempotency_key_reused": "This form was sent before with other entries, and nothing was done now. Look at what "
    "came of it, then send the form again.",
    "parameter_invalid_empty": "Fill in the field “{field}”: it cannot be empty.",
}
"""The texts of pages in place of words for programs. The first meets a person who went back to a form and changed it:
the key has served the first sending."""

Answer = Callable[[Request], Awaitable[Response]]
"""Answers a call of the API inside this process: `Api.answer`."""


class CallRefused(Exception):
    """The API refused a call. `error` is the error object of its answer."""

    def __init__(self, status: int, error: dict[str, Any], request_id: str) -> None:
        super().__init__(error.get("message", ""))
        self.status = status
        self.error = error
        self.request_id = request_id

    @property
    def code(self) -> str:
        return str(self.error.get("code") or "")

    @property
    def message(self) -> str:
        return str(self.error.get("message") or "")

    @property
    def param(self) -> str:
        return str(self.error.get("param") or "")


class Upload(msgspec.Struct, frozen=True):
    """A file of a form, as its browser named it."""

    name: str
    content: bytes


class Door:
    """The API for one request of a page: one operator, one merchant, one mode."""

    def __init__(self, answer: Answer, grant: Grant, account: str, client_ip: str | None) -> None:
        self._answer = answer
        self._grant = grant
        self._account = account
        self._client_ip = client_ip
        self.refused: CallRefused | None = None
        """The last refusal, so that a page that shows its message can show its explanation and request id too."""

    async def get(self, path: str, /, **params: Any) -> Any:
        """The document at `path`. Parameters that are None are left out. Raises `CallRefused`."""
        return msgspec.json.decode(await self.get_text(path, **params))

    async def get_text(self, path: str, /, **params: Any) -> bytes:
        """The answer at `path`, byte for byte. Raises `CallRefused`."""
        return await self._send(Request("GET", path, _encoded(params), self._headers(), b"", self._client_ip))

    async def post(
        self,
        path: str,
        params: dict[str, Any] | None = None,
        *,
        key: str | None = None,
        reason: str = "",
        expect: str = "",
    ) -> Any:
        """The answer to a call that changes something.

        It is made once under the idempotency `key`, with the operator's `reason` in the audit trail, and only on
        records of the versions in `expect`. A second press waits for the outcome of the first. Raises `CallRefused`.
        """
        headers = self._headers() | {"content-type": "application/x-www-form-urlencoded"}
        more = {"idempotency-key": key, "tillway-reason": reason, "tillway-expect": expect}
        headers |= {name: value for name, value in more.items() if value}
        request = Request("POST", path, "", headers, _encoded(params or {}).encode(), self._client_ip)
        for seconds in IN_USE_WAITS:
            try:
                return msgspec.json.decode(await self._send(request))
            except CallRefused as refused:
                if refused.code != "idempotency_key_in_use":
                    raise
            await asyncio.sleep(seconds)
        return msgspec.json.decode(await self._send(request))

    async def delete(self, path: str, *, reason: str = "", expect: str = "", **params: Any) -> Any:
        """The answer to a call that ends something, on records of the versions in `expect`. Raises `CallRefused`."""
        more = {"tillway-reason": reason, "tillway-expect": expect}
        headers = self._headers() | {name: value for name, value in more.items() if value}
        request = Request("DELETE", path, _encoded(params), headers, b"", self._client_ip)
        return msgspec.json.decode(await self._send(request))

    async def put(self, path: str, document: Any, *, reason: str) -> Any:
        """The answer to a call that replaces a document, with the operator's `reason` in the audit trail. Raises
        `CallRefused`."""
        headers = self._headers() | {"content-type": "application/json", "tillway-reason": reason}
        body = msgspec.json.encode(document)
        return msgspec.json.decode(await self._send(Request("PUT", path, "", headers, body, self._client_ip)))

    async def upload(self, path: str, fields: dict[str, str], file: "Upload", *, key: str) -> Any:
        """The answer to a call that takes a file, made once under the idempotency `key`. Raises `CallRefused`."""
        boundary = secrets.token_hex(16)
        head = f"--{boundary}\r\nContent-Disposition: form-data; name="
        parts = [f'{head}"{name}"\r\n\r\n{value}\r\n' for name, value in fields.items()]
        name = "".join(sign for sign in file.name if sign.isprintable() and sign not in '"\\')[:200]
        parts.append(f'{head}"file"; filename="{name}"\r\n\r\n')
        body = "".join(parts).encode() + file.content + f"\r\n--{boundary}--\r\n".encode()
        headers = self._headers() | {
            "content-type": f"multipart/form-data; boundary={boundary}",
            "idempotency-key": key,
        }
        return msgspec.json.decode(await self._send(Request("POST", path, "", headers, body, self._client_ip)))

    async def post_json(self, path: str, document: Any) -> Any:
        """The answer to a call that reads a document and changes nothing. Raises `CallRefused`."""
        headers = self._headers() | {"content-type": "application/json"}
        body = msgspec.json.encode(document)
        return msgspec.json.decode(await self._send(Request("POST", path, "", headers, body, self._client_ip)))

    def _headers(self) -> dict[str, str]:
        return {"tillway-account": self._account}

    async def _send(self, request: Request) -> bytes:
        request.grant = self._grant
        response = await self._answer(request)
        if response.status >= 400:
            error = msgspec.json.decode(response.body).get("error") or {}
            if said := SAID.get(error.get("code", "")):
                error["message"] = said.format(field=error.get("param"))
            request_id = next((value for name, value in response.headers if name == "request-id"), "")
            self.refused = CallRefused(response.status, error, request_id)
            raise self.refused
        return response.body


def _encoded(params: dict[str, Any]) -> str:
    return urlencode(list(_flat(params)))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested parameters as a form writes them: `created[gte]=1`, `state[0]=declined`."""
    match value:
        case None:
            return
        case dict():
            for key, member in value.items():
                yield from _flat(member, f"{name}[{key}]" if name else key)
        case list() | tuple():
            for place, member in enumerate(value):
                yield from _flat(member, f"{name}[{place}]")
        case bool():
            yield name, "true" if value else "false"
        case _:
            yield name, str(value)
