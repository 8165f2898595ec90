"""A person at the dashboard without JavaScript: a cookie, pages, and the forms on them."""

import html
import re
import time
from typing import Any
from urllib.parse import urlencode, urljoin, urlsplit

from tillway.domain.operator import Role
from tillway.operations.accounts import system_write
from tillway.operations.operators import new_operator
from tillway.operations.sign_ins import new_link
from tillway.testing.in_process import FORM, Answer, InProcessApp


class Visitor:
    """One browser. `cookies` are sent with each request, as they were set."""

    def __init__(self, app: InProcessApp) -> None:
        self.app = app
        self.cookies: dict[str, str] = {}

    @classmethod
    async def signed_in(cls, app: InProcessApp, role: Role = "admin", *accounts: str, name: str = "Ada") -> "Visitor":
        """A new operator's browser, signed in by an address."""
        visitor = cls(app)
        address = await sign_in_address(app, role, *accounts, name=name)
        entered = await visitor.post(address)
        assert (entered.status, entered.headers["location"]) == (303, "/dashboard"), entered.body
        return visitor

    async def get(self, address: str, **headers: str) -> Answer:
        return await self._send("GET", address, b"", headers)

    async def post(self, address: str, fields: dict[str, Any] | None = None, **headers: str) -> Answer:
        return await self._send("POST", address, urlencode(fields or {}, doseq=True).encode(), headers)

    async def post_file(self, address: str, fields: dict[str, str], name: str, filename: str, content: bytes) -> Answer:
        """Send a form with a file in its field `name`, as a browser does."""
        head = "--limit\r\nContent-Disposition: form-data; name="
        parts = [f'{head}"{field}"\r\n\r\n{value}\r\n' for field, value in fields.items()]
        parts.append(f'{head}"{name}"; filename="{filename}"\r\nContent-Type: image/png\r\n\r\n')
        body = "".join(parts).encode() + content + b"\r\n--limit--\r\n"
        return await self._send("POST", address, body, {}, content_type="multipart/form-data; boundary=limit")

    async def submit(self, page: Answer, action: str, fields: dict[str, Any] | None = None, **headers: str) -> Answer:
        """Send the form of a page to `action`, with its hidden fields and these."""
        return await self.post(action, form_of(page, action) | (fields or {}), **headers)

    async def _send(
        self, method: str, address: str, body: bytes, headers: dict[str, str], content_type: str = FORM
    ) -> Answer:
        parts = urlsplit(address)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        answer = await self.app.send(
            method,
            parts.path,
            query=parts.query,
            body=body,
            content_type=content_type,
            headers={"cookie": cookie} | named,
        )
        if "set-cookie" in answer.headers:
            name, _, value = answer.headers["set-cookie"].partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer


async def sign_in_address(app: InProcessApp, role: Role, *accounts: str, name: str = "Ada") -> str:
    """An address that signs a new operator in once."""
    created = app.clock.now_ms() // 1000
    operator = new_operator(name, role, accounts or None, created=created)
    token, link = new_link(operator.id, created=created, now=int(time.time()) + app.clock.ahead_seconds)
    await app.store.commit([system_write(operator), system_write(link)])
    return f"/dashboard/sign-in/{token}"


def form_of(page: Answer, action: str) -> dict[str, str]:
    """The hidden fields of the form of a page that goes to `action`."""
    for form in re.findall(r"<form\b.*?</form>", page.body.decode(), re.DOTALL):
        found = re.search(r'action="([^"]*)"', form)
        if found is not None and urljoin(action, html.unescape(found[1])) == action:
            hidden = re.findall(r'<input type="hidden" name="([\w.]+)" value="([^"]*)">', form)
            return {name: html.unescape(value) for name, value in hidden}
    raise AssertionError(f"no form leads to {action}")


def text(page: Answer) -> str:
    """The words of a page, as a person reads them."""
    body = re.sub(r"<(script|style|svg)\b.*?</\1>", "", page.body.decode(), flags=re.DOTALL)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", body)).split())
