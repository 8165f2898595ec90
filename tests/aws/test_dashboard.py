"""The dashboard through the events of API Gateway, as the api function gets and answers them."""

import re
from base64 import b64encode
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest
from dashboard_visitor import sign_in_address

from tillway.aws.events import answer_of, request_of
from tillway.testing.in_process import FORM, InProcessApp
from tillway.web.dashboard.app import Dashboard

HOST = "pay.example.com"


class Browser:
    """A browser behind API Gateway, which keeps the cookies. `version` is that of the event's payload."""

    def __init__(self, app: InProcessApp, version: str) -> None:
        self.app, self.version = app, version
        self.cookies: dict[str, str] = {}

    async def send(self, method: str, path: str, fields: dict[str, str] | None = None) -> dict[str, Any]:
        event = self._event(method, path, urlencode(fields or {}).encode())
        answer = answer_of(event, await self.app.running.api.handle(request_of(event)))
        for cookie in answer.get("cookies") or answer.get("multiValueHeaders", {}).get("set-cookie", []):
            name, _, value = cookie.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer

    def _event(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        cookies = [f"{name}={value}" for name, value in self.cookies.items()]
        headers = {"host": HOST, "content-type": FORM, "sec-fetch-site": "same-origin"}
        sent = {"body": b64encode(body).decode(), "isBase64Encoded": True}
        if self.version == "2.0":
            http = {"method": method, "path": path, "sourceIp": "203.0.113.9"}
            context: dict[str, Any] = {"domainName": HOST, "stage": "$default", "http": http}
            more = {"rawPath": path, "rawQueryString": "", "headers": headers, "cookies": cookies}
            return {"version": "2.0", "requestContext": context, **more, **sent}
        context = {"domainName": HOST, "stage": "$default", "identity": {"sourceIp": "203.0.113.9"}}
        many = {name: [value] for name, value in headers.items()} | {"cookie": ["; ".join(cookies)]}
        return {"httpMethod": method, "path": path, "requestContext": context, "multiValueHeaders": many, **sent}


@pytest.mark.parametrize("version", ["1.0", "2.0"])
async def test_pages_and_forms_pass_and_do_not_refresh(tmp_path: Path, version: str) -> None:
    app = await InProcessApp.open(tmp_path, public_url=f"https://{HOST}")
    merchant = await app.merchant()
    params = {"amount": 9900, "currency": "eur", "payment_method": "pm_card_visa", "confirm": "true"}
    payment = (await app.ok(merchant, "POST", "/v1/payment_intents", params | {"return_url": "https://a.example"}))[
        "id"
    ]
    assert isinstance(app.running.api.pages, Dashboard)
    app.running.api.pages.refreshes = False
    browser = Browser(app, version)
    assert (await browser.send("GET", "/dashboard"))["statusCode"] == 303
    entered = await browser.send("POST", await sign_in_address(app, "admin", merchant.account))
    assert entered["statusCode"] == 303 and list(browser.cookies) == ["__Host-tillway"]
    for path in ("/dashboard", "/dashboard/payments", f"/dashboard/payments/{payment}", "/dashboard/webhooks"):
        shown = await browser.send("GET", path)
        assert shown["statusCode"] == 200 and "data-live" not in shown["body"], path
        if path.endswith("payments"):
            assert payment in shown["body"]
    action = f"/dashboard/payments/{payment}/refund"
    form = (await browser.send("GET", action))["body"]
    fields = {name: unescape(value) for name, value in re.findall(r'type="hidden" name="(\w+)" value="([^"]*)"', form)}
    fields |= {"amount": "20.50", "previewed": "2050", "back": ""}
    assert (await browser.send("POST", action, fields))["statusCode"] == 303
    (refund,) = (await app.ok(merchant, "GET", "/v1/refunds"))["data"]
    assert refund["amount"] == 2050
    await app.close()
