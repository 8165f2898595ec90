"""A small Adyen for the connector `adyen`: payments, modifications and signed notifications over the simulated bank.

It keeps Adyen's rules that the connector relies on: a repeated `Idempotency-Key` gets the first answer, and
modifications are only received. It answers by amount, as the contract suite expects.
"""

from collections.abc import Mapping
from typing import Any

import msgspec
from provider_side import ProviderSide

from tillway.connectors.adyen import AdyenConnector, amount_of, signature
from tillway.connectors.port import ActionRequired, Connector, Outcome, Pending, Request, Response, Succeeded, Transport
from tillway.sandbox.bank import Bank, BankOperation
from tillway.sandbox.faults import plan_notices
from tillway.testing.connector_contract import CHALLENGED, REFUSED
from tillway.testing.far_side import Handler, answer, in_process

KEY = bytes(range(32))
ACCOUNT = "ShopECOM"
_CODES = {"insufficient_funds": "12", "expired_card": "6", "incorrect_cvc": "24"}
_CHANGES = {
    "captures": ("capture", "authorization"),
    "cancels": ("void", "authorization"),
    "refunds": ("refund", "payment"),
}
_EVENTS = {"captures": "CAPTURE", "cancels": "CANCELLATION", "refunds": "REFUND"}


class AdyenFarSide(ProviderSide):
    """The connector with its sandbox, for the contract suite. `peer` can also be served over HTTP."""

    def __init__(self) -> None:
        self.bank = Bank(knows_all=True, operations_max=None)
        self.peer = Handler(self.handle, _describe)
        self.connector: Connector = AdyenConnector(
            "http://127.0.0.1:1", "key", ACCOUNT, hmac_key=KEY, multicapture=True
        )
        self.transport: Transport = in_process(self.peer)
        self.requests: list[Request] = []
        self._answers: dict[str, tuple[dict[str, Any], Response]] = {}
        self._verifications: dict[str, Response] = {}
        self._waiting: dict[str, dict[str, Any]] = {}
        self._due: list[dict[str, Any]] = []

    async def notices(self, outcome: Outcome | None, count: int) -> list[tuple[Mapping[str, str], bytes]]:
        assert isinstance(outcome, Pending | Succeeded)
        about = [item for item in self._due if outcome.bank_id in (item["pspReference"], item["originalReference"])]
        return [({}, notification(item)) for item in about[:count]]

    # The provider.

    def handle(self, request: Request) -> Response:
        self.requests.append(request)
        key, fields = request.headers.get("idempotency-key", ""), request.fields
        if request.path.endswith("/payments/details"):
            return self._details(key, fields["details"]["redirectResult"])
        if request.path.endswith("/cancels") and "paymentReference" in fields:
            self._waiting.pop(fields["paymentReference"], None)
            return answer(201, {"pspReference": "X", "status": "received"})
        assert fields["merchantAccount"] == ACCOUNT and fields["reference"] == key
        known = self._answers.get(key)
        if known is not None and known[0].get("amount") != fields.get("amount"):
            return answer(422, {"status": 422, "errorCode": "702", "errorType": "validation"})
        parts = request.path.removeprefix("/v71").strip("/").split("/")
        if known is None:
            done = self._pay(fields) if parts == ["payments"] else self._modify(parts[1], parts[2], fields)
            self._answers[key] = (fields, done)
        elif parts == ["payments"] and key in self._verifications:
            return self._verifications[key]
        elif parts == ["payments"]:
            self.bank.handle(Request("GET", f"/v1/operations/{key}"))  # A question settles.
            return self._payment(key, fields)
        return self._answers[key][1]

    def _pay(self, fields: Mapping[str, Any]) -> Response:
        reference, card, amount = fields["reference"], fields["paymentMethod"], fields["amount"]
        manual = fields.get("additionalData", {}).get("manualCapture") == "true"
        body = {
            "reference": reference,
            "amount": amount["value"],
            "currency": amount["currency"].lower(),
            "capture": not manual,
            "card": {
                "number": card["number"],
                "exp_month": int(card["expiryMonth"]),
                "exp_year": int(card["expiryYear"]),
            },
            "by_amount": True,
        }
        if card["number"] == CHALLENGED.number:
            assert "/returns/" in fields["returnUrl"]
            self._waiting[reference] = body
            return self._redirect(reference)
        if amount["value"] == 0:
            return self._verified(reference, amount, card["number"])
        handled = self.bank.handle(Request("POST", "/v1/authorizations", body))
        if handled.effect is not None:
            self._announce(handled.effect, amount)
        return self._payment(reference, fields)

    def _verified(self, reference: str, amount: Mapping[str, Any], number: str) -> Response:
        """The answer to a zero-value authorization, which the bank does not count. A repeat gets it again."""
        shown = {"pspReference": f"P{reference}", "merchantReference": reference, "amount": amount}
        if number == REFUSED.number:
            self._verifications[reference] = answer(200, {**shown, "resultCode": "Refused", "refusalReasonCode": "2"})
        else:
            more = {"networkTxReference": f"net-{reference}", "cvcResult": "1 Matches"}
            self._verifications[reference] = answer(200, {**shown, "resultCode": "Authorised", "additionalData": more})
        return self._verifications[reference]

    def _redirect(self, reference: str) -> Response:
        action = {"type": "redirect", "method": "GET", "url": f"https://checkout.adyen.com/3ds?r={reference}"}
        return answer(200, {"resultCode": "RedirectShopper", "merchantReference": reference, "action": action})

    async def customer(self, waiting: ActionRequired, *, passed: bool) -> str | None:
        return f"{'pass' if passed else 'fail'}!{waiting.redirect_url.partition('r=')[2]}"

    def _details(self, key: str, result: str) -> Response:
        outcome, _, reference = result.partition("!")
        body = self._waiting.get(reference)
        if body is None or not key.startswith(f"{reference}."):
            return answer(422, {"status": 422, "errorCode": "167", "errorType": "validation"})
        amount = {"currency": body["currency"].upper(), "value": body["amount"]}
        if outcome == "fail":
            shown = {"pspReference": f"P{reference}", "merchantReference": reference, "amount": amount}
            return answer(200, {**shown, "resultCode": "Refused", "refusalReasonCode": "11"})
        if amount["value"] == 0:
            return self._verified(reference, amount, body["card"]["number"])
        handled = self.bank.handle(Request("POST", "/v1/authorizations", body))
        if handled.effect is not None:
            self._announce(handled.effect, amount)
        return self._payment(reference, {"amount": amount})

    def _payment(self, reference: str, fields: Mapping[str, Any]) -> Response:
        done = self.bank.find(reference)
        if done is None:
            return self._redirect(reference)
        shown = {"pspReference": f"P{reference}", "merchantReference": reference, "amount": fields["amount"]}
        if done.status == "Accepted":
            more = {"networkTxReference": done.network_id, "cvcResult": "1 Matches"}
            return answer(200, {**shown, "resultCode": "Authorised", "additionalData": more})
        if done.status == "Pending":
            return answer(200, {**shown, "resultCode": "Received"})
        code = _CODES.get(str(done.decline_code), "2")
        return answer(200, {**shown, "resultCode": "Refused", "refusalReasonCode": code})

    def _modify(self, parent: str, place: str, fields: Mapping[str, Any]) -> Response:
        kind, name = _CHANGES[place]
        reference = fields["reference"]
        body: dict[str, Any] = {"reference": reference, name: parent.removeprefix("P")}
        amount = fields.get("amount", {"currency": "EUR", "value": 0})
        if kind != "void":
            body |= {"amount": amount["value"], "currency": amount["currency"].lower()}
        if kind == "capture":
            body["final"] = False  # Where several captures are enabled, Adyen keeps the rest until it expires.
        done = self.bank.handle(Request("POST", f"/v1/{kind}s", body)).response.body
        assert done is not None
        item = self.item(_EVENTS[place], reference, f"M{reference}", amount, done.get("status") == "Accepted")
        self._due.append({**item, "originalReference": parent})
        received = {"pspReference": f"M{reference}", "reference": reference, "status": "received"}
        return answer(201, {**received, "merchantAccount": ACCOUNT, "paymentPspReference": parent, **_given(fields)})

    def _announce(self, done: BankOperation, amount: Mapping[str, Any]) -> None:
        for _, announcement in plan_notices(self.bank.forthcoming(done), self.peer.notice_faults):
            if announcement is None:
                accepted = done.status == "Accepted"
                self._due.append(self.item("AUTHORISATION", done.reference, f"P{done.reference}", amount, accepted))
            elif announcement.what == "dispute":
                told = self.bank.foretell(announcement)
                disputed = amount_of(told["amount"], told["currency"])
                item = self.item("CHARGEBACK", done.reference, "D1", disputed, True)
                code = {"chargebackReasonCode": "10.4"}
                self._due.append({**item, "originalReference": f"P{done.reference}", "additionalData": code})

    def item(self, kind: str, reference: str, id: str, amount: Mapping[str, Any], success: bool) -> dict[str, Any]:
        """A notification item without its signature."""
        return {
            "pspReference": id,
            "originalReference": "",
            "merchantAccountCode": ACCOUNT,
            "merchantReference": reference,
            "amount": dict(amount),
            "eventCode": kind,
            "success": "true" if success else "false",
        }


def notification(*items: Mapping[str, Any], key: bytes = KEY) -> bytes:
    """The body of a notification with these items, signed."""
    signed = [
        {**item, "additionalData": {**item.get("additionalData", {}), "hmacSignature": signature(item, key)}}
        for item in items
    ]
    told = [{"NotificationRequestItem": item} for item in signed]
    return msgspec.json.encode({"live": "false", "notificationItems": told})


def _given(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {"amount": fields["amount"]} if "amount" in fields else {}


def _describe(request: Request) -> tuple[str, int | None]:
    """The operation of a request, for the rules of faults."""
    last = request.path.rpartition("/")[2]
    return {"captures": "capture", "cancels": "void", "refunds": "refund"}.get(last, "authorize"), None
