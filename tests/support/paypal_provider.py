"""A small PayPal for the connector `paypal`: orders, payments, payouts and signed events over the simulated bank.

It keeps PayPal's rules that the connector relies on: a repeated `PayPal-Request-Id` gets the present state of the first
request, and a repeated `sender_batch_id` a refusal that links to the first batch. It answers by amount, as the contract
suite expects.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

import msgspec
from provider_side import ProviderSide

from tillway.connectors.paypal import PayPalConnector, WithToken
from tillway.connectors.port import REFERENCE_MAX, ActionRequired, Connector, Outcome, Request, Response, Transport
from tillway.domain.money import major_to_minor, minor_to_major
from tillway.sandbox.bank import Bank, BankOperation
from tillway.sandbox.faults import plan_notices
from tillway.testing.connector_contract import CHALLENGED, REFUSED
from tillway.testing.far_side import Handler, answer, form_fields, in_process

PROOF = {
    "paypal-auth-algo": "SHA256withRSA",
    "paypal-cert-url": "https://api.paypal.com/cert",
    "paypal-transmission-id": "t-1",
    "paypal-transmission-sig": "right",
    "paypal-transmission-time": "2026-01-01T00:00:00Z",
}
_VERIFIED = {"verification_method", "experience_context"}
_CODES = {"insufficient_funds": "5120", "expired_card": "5400", "incorrect_cvc": "5110"}


class PayPalFarSide(ProviderSide):
    """The connector with its sandbox, for the contract suite. `peer` can also be served over HTTP."""

    def __init__(self) -> None:
        self.bank = Bank(knows_all=True, operations_max=None)
        self.peer = Handler(self.handle, _describe)
        connector = PayPalConnector("http://127.0.0.1:1", "client", "secret", webhook_id="WH-1", verifications=True)
        self.connector: Connector = connector
        self.transport: Transport = WithToken(in_process(self.peer), "client", "secret")
        self.requests: list[Request] = []
        self.tokens = 0
        self.token_is_good = True
        self.batches: dict[str, str] = {}
        self._orders: dict[str, dict[str, Any]] = {}
        self._waiting: dict[str, dict[str, Any]] = {}
        self._done: dict[str, str] = {}
        self._refunds: dict[str, dict[str, Any]] = {}
        self._tokens: dict[str, dict[str, Any]] = {}
        self._due: list[dict[str, Any]] = []

    async def notices(self, outcome: Outcome | None, count: int) -> list[tuple[Mapping[str, str], bytes]]:
        return [(PROOF, msgspec.json.encode(event)) for event in self._due[:count]]

    # The provider.

    def handle(self, request: Request) -> Response:
        self.requests.append(request)
        if request.path == "/v1/oauth2/token":
            return self._token(request)
        if request.headers.get("authorization") != f"Bearer A{self.tokens}" or not self.token_is_good:
            self.token_is_good = True
            return answer(401, {"name": "AUTHENTICATION_FAILURE"})
        parts = request.path.strip("/").split("/")
        key = request.headers.get("paypal-request-id", "")
        match request.method, parts:
            case "POST", ["v1", "notifications", "verify-webhook-signature"]:
                assert isinstance(request.body, bytes | dict)
                told = request.body if isinstance(request.body, dict) else msgspec.json.decode(request.body)
                good = told["transmission_sig"] == "right" and told["webhook_id"] == "WH-1"
                return answer(200, {"verification_status": "SUCCESS" if good else "FAILURE"})
            case "POST", ["v2", "checkout", "orders"]:
                return self._order(key, request.fields)
            case "GET", ["v2", "checkout", "orders", id]:
                return self._shown(id)
            case "POST", ["v2", "checkout", "orders", id, "capture" | "authorize"]:
                assert key == f"{id[2:]}.complete"
                return self._complete(id[2:])
            case "POST", ["v3", "vault", "setup-tokens"]:
                return answer(201, self._setup_token(key, request.fields["payment_source"]["card"]))
            case "GET", ["v3", "vault", "setup-tokens", id] if id[2:] in self._tokens:
                return answer(200, self._tokens[id[2:]])
            case "POST", ["v2", "payments", "authorizations", id, change]:
                return self._change(key, change, id, request.fields)
            case "POST", ["v2", "payments", "captures", id, "refund"]:
                return self._change(key, "refund", id, request.fields)
            case "POST", ["v1", "payments", "payouts"]:
                return self._pay_out(request.fields)
            case "GET", ["v1", "payments", "payouts", batch]:
                return self._batch(batch)
        return answer(404, {"name": "RESOURCE_NOT_FOUND"})

    def _token(self, request: Request) -> Response:
        assert dict(form_fields(request)) == {"grant_type": "client_credentials"}
        if request.headers["authorization"] != "Basic Y2xpZW50OnNlY3JldA==":
            return answer(401, {"error": "invalid_client"})
        self.tokens += 1
        return answer(200, {"access_token": f"A{self.tokens}", "expires_in": 32400})

    def _order(self, reference: str, fields: Mapping[str, Any]) -> Response:
        unit, source = fields["purchase_units"][0], fields["payment_source"]
        # The bank of the sandbox knows cards: a wallet has one.
        card = source.get("card", {"number": "4242424242424242", "expiry": "2040-12", **source.get("paypal", {})})
        currency = unit["amount"]["currency_code"].lower()
        year, _, month = card["expiry"].partition("-")
        body = {
            "reference": reference,
            "amount": major_to_minor(unit["amount"]["value"], currency),
            "currency": currency,
            "capture": fields["intent"] == "CAPTURE",
            "card": {"number": card["number"], "exp_month": int(month), "exp_year": int(year)},
            "by_amount": True,
        }
        known = self._orders.get(reference)
        if known is not None and known["purchase_units"][0]["amount"] != unit["amount"]:
            return answer(422, {"name": "UNPROCESSABLE_ENTITY", "details": [{"issue": "DUPLICATE_INVOICE_ID"}]})
        if known is None:
            self._orders[reference] = {"id": f"O-{reference}", "intent": fields["intent"], "purchase_units": [unit]}
            if card["number"] == CHALLENGED.number or "paypal" in source:
                way_back = card["experience_context"]
                assert way_back["cancel_url"].startswith(way_back["return_url"])
                self._waiting[reference] = body
                link = {"rel": "payer-action", "href": f"https://www.paypal.com/checkoutnow?token=O-{reference}"}
                self._orders[reference] |= {"wallet": True} if "paypal" in source else {}
                self._orders[reference] |= {"status": "PAYER_ACTION_REQUIRED", "links": [link]}
        if reference in self._waiting:
            return self._shown(f"O-{reference}", 201)
        handled = self.bank.handle(Request("POST", "/v1/authorizations", body))
        if known is None and handled.effect is not None:
            self._announce(handled.effect)
        return self._shown(f"O-{reference}", 201)

    def _setup_token(self, key: str, card: Mapping[str, Any]) -> dict[str, Any]:
        """The token of a key. The issuer of REFUSED refuses, that of CHALLENGED asks its cardholder."""
        assert set(card) <= {"number", "expiry", "security_code", "name", "billing_address"} | _VERIFIED
        token: dict[str, Any] = {"id": f"S-{key}", "status": "APPROVED"}
        code = "5100" if card["number"] == REFUSED.number else "0000"
        verification: dict[str, Any] = {"processor_response": {"response_code": code, "cvv_code": "M"}}
        if code == "0000":
            verification["network_transaction_id"] = "016153570198200"
        if card["number"] == CHALLENGED.number:
            link = {"rel": "approve", "href": f"https://www.paypal.com/webapps/helios?token=S-{key}"}
            token |= {"status": "PAYER_ACTION_REQUIRED", "links": [link]}
            verification = {}
        token["payment_source"] = {"card": {"last_digits": card["number"][-4:], "verification": verification}}
        return self._tokens.setdefault(key, token)

    async def customer(self, waiting: ActionRequired, *, passed: bool) -> str | None:
        assert waiting.bank_id is not None
        if waiting.bank_id.startswith("S-"):
            token = self._tokens[waiting.bank_id[2:]]
            token["status"] = "APPROVED" if passed else "PAYER_ACTION_REQUIRED"
            secure = {"authentication_status": "Y" if passed else "N"}
            token["payment_source"]["card"]["verification"] = {"three_d_secure": secure}
            return None
        status, shift = ("Y", "POSSIBLE") if passed else ("N", "NO")
        secure = {"enrollment_status": "Y", "authentication_status": status}
        result = {"liability_shift": shift, "three_d_secure": secure}
        order = self._orders[waiting.bank_id[2:]]
        if "wallet" in order:
            order["status"] = "APPROVED" if passed else "PAYER_ACTION_REQUIRED"
            return None
        order["payment_source"] = {"card": {"last_digits": "3184", "authentication_result": result}}
        return None

    def _complete(self, reference: str) -> Response:
        body = self._waiting.pop(reference, None)
        if body is not None:
            handled = self.bank.handle(Request("POST", "/v1/authorizations", body))
            if handled.effect is not None:
                self._announce(handled.effect)
        return self._shown(f"O-{reference}", 201)

    def _shown(self, id: str, status: int = 200) -> Response:
        reference = id.removeprefix("O-")
        order, done = self._orders.get(reference), self.bank.find(reference)
        if order is not None and reference in self._waiting:
            return answer(status, order)
        if order is None or done is None:
            return answer(404, {"name": "RESOURCE_NOT_FOUND"})
        unit = order["purchase_units"][0]
        captures = order["intent"] == "CAPTURE"
        payments: dict[str, Any] = {"captures" if captures else "authorizations": [self._payment(done)]}
        if not captures:
            payments["captures"] = [
                _capture(child, nth) for nth, child in enumerate(self._children(reference, "capture"))
            ]
        payments["refunds"] = [self._refunds[child.reference] for child in self._children(reference, "refund")]
        return answer(status, {**order, "status": "COMPLETED", "purchase_units": [{**unit, "payments": payments}]})

    def _children(self, reference: str, kind: str) -> list[BankOperation]:
        return [
            child
            for child in self.bank.operations()
            if (child.parent, child.kind) == (reference, kind) and child.status in ("Accepted", "Pending")
        ]

    def _payment(self, done: BankOperation) -> dict[str, Any]:
        order = self._orders[done.reference]
        unit, captures = order["purchase_units"][0], order["intent"] == "CAPTURE"
        statuses = {"Accepted": "COMPLETED" if captures else "CREATED", "Pending": "PENDING"}
        status = "VOIDED" if done.voided else statuses.get(done.status, "DECLINED")
        shown = {
            "id": f"{'C' if captures else 'A'}-{done.reference}",
            "status": status,
            "amount": unit["amount"],
            "custom_id": unit["custom_id"],
            "invoice_id": unit["invoice_id"],
            "supplementary_data": {"related_ids": {"order_id": f"O-{done.reference}"}},
        }
        if status == "DECLINED":
            shown["processor_response"] = {"response_code": _CODES.get(str(done.decline_code), "5100")}
        else:
            shown["processor_response"] = {"response_code": "0000", "cvv_code": "M", "avs_code": "Y"}
        return shown

    def _change(self, key: str, change: str, id: str, fields: Mapping[str, Any]) -> Response:
        parent = id.partition("-")[2]
        captured = self.bank.find(parent)
        if change == "refund" and captured is not None and captured.kind == "capture":
            assert captured.parent is not None
            parent = captured.parent
            if self._refunded(id, but=key) + Decimal(fields["amount"]["value"]) > Decimal(_money(captured)["value"]):
                return answer(422, {"name": "UNPROCESSABLE_ENTITY", "details": [{"issue": "REFUND_AMOUNT_EXCEEDED"}]})
        names = {"capture": "authorization", "void": "authorization", "refund": "payment"}
        body: dict[str, Any] = {"reference": key[-REFERENCE_MAX:], names[change]: parent}
        if change != "void":
            currency = fields["amount"]["currency_code"].lower()
            body |= {"amount": major_to_minor(fields["amount"]["value"], currency), "currency": currency}
        if change == "capture":
            body["final"] = fields["final_capture"]
        done = self.bank.handle(Request("POST", f"/v1/{change}s", body)).response.body
        assert done is not None
        if done.get("status") not in ("Accepted", "Pending"):
            issue = {"capture": "MAX_CAPTURE_AMOUNT_EXCEEDED", "refund": "REFUND_AMOUNT_EXCEEDED"}
            return answer(422, {"name": "UNPROCESSABLE_ENTITY", "details": [{"issue": issue.get(change, "VOIDED")}]})
        if change == "void":
            return answer(204)
        status = "COMPLETED" if done["status"] == "Accepted" else "PENDING"
        shown = {"id": f"X-{key}", "status": status, "amount": fields["amount"], "invoice_id": fields["invoice_id"]}
        if change == "refund":
            up = {"rel": "up", "href": f"https://api.paypal.com/v2/payments/captures/{id}"}
            self._refunds[body["reference"]] = {**shown, "links": [up]}
        return answer(201, shown)

    def _refunded(self, capture: str, *, but: str) -> Decimal:
        """The sum of the refunds of a capture, without the one with the key `but`."""
        return sum(
            (
                Decimal(refund["amount"]["value"])
                for refund in self._refunds.values()
                if refund["id"] != f"X-{but}" and refund["links"][0]["href"].endswith(f"/{capture}")
            ),
            Decimal(),
        )

    def _pay_out(self, fields: Mapping[str, Any]) -> Response:
        reference, item = fields["sender_batch_header"]["sender_batch_id"], fields["items"][0]
        if reference in self.batches:
            link = {"href": f"https://api.paypal.com/v1/payments/payouts/B-{reference}", "rel": "self"}
            return answer(400, {"name": "USER_BUSINESS_ERROR", "links": [link]})
        currency = item["amount"]["currency"].lower()
        body = {
            "reference": reference,
            "amount": major_to_minor(item["amount"]["value"], currency),
            "currency": currency,
            "recipient": {"type": "email", "value": item["receiver"]},
        }
        done = self.bank.handle(Request("POST", "/v1/payouts", body)).response.body
        assert done is not None
        self.batches[reference] = "SUCCESS" if done["status"] == "Accepted" else "FAILED"
        self._orders[f"batch-{reference}"] = dict(item)
        return answer(201, {"batch_header": {"payout_batch_id": f"B-{reference}", "batch_status": "PENDING"}})

    def _batch(self, id: str) -> Response:
        reference = id.removeprefix("B-")
        shown = {"transaction_status": self.batches[reference], "payout_item": self._orders[f"batch-{reference}"]}
        return answer(200, {"batch_header": {"payout_batch_id": id, "batch_status": "SUCCESS"}, "items": [shown]})

    def event(self, reference: str) -> dict[str, Any]:
        """The event about a payment."""
        done = self.bank.find(reference)
        assert done is not None, f"no payment {reference}"
        return {"event_type": "PAYMENT.CAPTURE.COMPLETED", "resource": self._payment(done)}

    def payout_event(self, reference: str) -> dict[str, Any]:
        """The event about the only item of a batch."""
        item = (self._batch(f"B-{reference}").body or {})["items"][0]
        return {"event_type": "PAYMENT.PAYOUTS-ITEM.SUCCEEDED", "resource": item | {"payout_batch_id": "B1"}}

    def _announce(self, done: BankOperation) -> None:
        for _, announcement in plan_notices(self.bank.forthcoming(done), self.peer.notice_faults):
            if announcement is None:
                self._due.append(self.event(done.reference))
            elif announcement.what == "dispute":
                unit = self._orders[done.reference]["purchase_units"][0]
                dispute = {
                    "dispute_id": "PP-1",
                    "dispute_amount": unit["amount"],
                    "reason": "UNAUTHORISED",
                    "status": "OPEN",
                    "dispute_life_cycle_stage": "CHARGEBACK",
                    "disputed_transactions": [{"custom": unit["custom_id"]}],
                }
                self._due.append({"event_type": "CUSTOMER.DISPUTE.CREATED", "resource": dispute})


def _money(done: BankOperation) -> dict[str, str]:
    return {"currency_code": done.currency.upper(), "value": minor_to_major(done.amount, done.currency)}


def _capture(child: BankOperation, nth: int) -> dict[str, Any]:
    return {
        "id": f"C-{child.reference}",
        "status": "COMPLETED",
        "amount": _money(child),
        "invoice_id": child.reference,
        "custom_id": child.parent,
        "create_time": f"2026-01-01T00:00:{nth:02d}Z",
    }


def _describe(request: Request) -> tuple[str, int | None]:
    """The operation of a request, for the rules of faults."""
    if request.method == "GET" or request.path.startswith(("/v1/oauth2", "/v1/notifications")):
        return "look_up", None
    last = request.path.rpartition("/")[2]
    return {
        "orders": "authorize",
        "authorize": "authorize",
        "capture": "capture",
        "void": "void",
        "refund": "refund",
    }.get(last, "payout"), None
