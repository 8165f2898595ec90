"""A small Stripe for the connector `stripe`: payment intents, refunds, payouts and disputes over the simulated bank.

It keeps Stripe's rules that the connector relies on: a key answers with the first answer and refuses other parameters,
and an intent is confirmed once. It answers by amount, as the contract suite expects.
"""

import hashlib
import hmac
import time
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
from provider_side import ProviderSide

from tillway.connectors.port import ActionRequired, Connector, Outcome, Request, Response, Transport
from tillway.connectors.stripe import StripeConnector
from tillway.sandbox.bank import Bank, BankOperation
from tillway.sandbox.faults import plan_notices
from tillway.testing.connector_contract import CHALLENGED, REFUSED
from tillway.testing.far_side import Handler, answer, form_fields, in_process

SECRET = "whsec_of_the_far_side"
_STATUS = {"Accepted": "succeeded", "Pending": "processing", "Declined": "failed", "InsufficientFunds": "failed"}


class StripeFarSide(ProviderSide):
    """The connector with its sandbox, for the contract suite. `peer` can also be served over HTTP."""

    def __init__(self, *, searches: bool = True) -> None:
        self.bank = Bank(knows_all=True, operations_max=None)
        self.peer = Handler(self.handle, _describe)
        self.connector: Connector = StripeConnector(
            "http://127.0.0.1:1", "sk_test_1", webhook_secret=SECRET, multicapture=True
        )
        self.transport: Transport = in_process(self.peer)
        self.searches = searches
        self.objects: dict[str, dict[str, Any]] = {}
        self.destination: Any = "ba_1"
        self.forms: list[dict[str, str]] = []
        self._keys: dict[str, tuple[Any, Response]] = {}
        self._waiting: dict[str, dict[str, Any]] = {}
        self._due: list[dict[str, Any]] = []

    async def notices(self, outcome: Outcome | None, count: int) -> list[tuple[Mapping[str, str], bytes]]:
        return [signed(thing) for thing in self._due[:count]]

    # The provider.

    def handle(self, request: Request) -> Response:
        parts = urlsplit(request.path)
        path = parts.path.strip("/").split("/")[1:]
        if request.method == "GET":
            return self._read(path, parse_qs(parts.query))
        key, fields = request.headers.get("idempotency-key"), dict(form_fields(request))
        assert key is not None and len(key) <= 64, "a request that moves money has a key of at most 64 characters"
        self.forms.append(fields)
        known = self._keys.get(key)
        if known is not None:
            same = known[0] == (request.path, fields)
            return known[1] if same else _error(400, "idempotency_error", None)
        done = self._write(path, fields)
        self._keys[key] = ((request.path, fields), done)
        return done

    def _read(self, path: list[str], query: Mapping[str, list[str]]) -> Response:
        match path:
            case ["payment_intents", "search"] if not self.searches:
                return _error(404, "invalid_request_error", "url_invalid")
            case ["payment_intents", "search"]:
                reference = query["query"][0].split("'")[3]
                return _page([found for found in self._all("pi_") if _reference(found) == reference])
            case ["payment_intents", id]:
                return self._shown(id)
            case ["setup_intents", id]:
                return answer(200, self.objects[id]) if id in self.objects else _error(404, "x", "resource_missing")
            case [noun]:
                prefixes = {"payment_intents": "pi_", "refunds": "re_", "payouts": "po_", "setup_intents": "seti_"}
                found = self._all(prefixes[noun])
                if "payment_intent" in query:
                    found = [thing for thing in found if thing["payment_intent"] == query["payment_intent"][0]]
                return _page(found)
        return _error(404, "invalid_request_error", "url_invalid")

    def _write(self, path: list[str], fields: dict[str, str]) -> Response:
        match path:
            case ["setup_intents"]:
                return self._create_setup(fields)
            case ["setup_intents", id, "confirm"]:
                return self._confirm_setup(self.objects[id], fields)
            case ["setup_intents", id, "cancel"]:
                if self.objects[id]["status"] != "succeeded":
                    self.objects[id] |= {"status": "canceled", "next_action": None}
                return answer(200, self.objects[id])
            case ["payment_intents"]:
                return self._create(fields)
            case ["payment_intents", id, "confirm"]:
                return self._confirm(self.objects[id], fields)
            case ["payment_intents", id, change]:
                return self._change(self.objects[id], change, fields)
            case ["refunds"]:
                return self._make("re_", "refund", "/v1/refunds", fields, {"payment": fields["payment_intent"][3:]})
            case ["payouts"]:
                recipient = {"type": "bank_account", "value": "DE89370400440532013000"}
                return self._make("po_", "payout", "/v1/payouts", fields, {"recipient": recipient})
            case ["payouts", id, "cancel"]:
                self.objects[id]["status"] = "canceled"
                return answer(200, self.objects[id])
        return _error(404, "invalid_request_error", "url_invalid")

    def _create(self, fields: dict[str, str]) -> Response:
        reference = fields["metadata[tillway_reference]"]
        intent = {
            "id": f"pi_{reference}",
            "object": "payment_intent",
            "amount": int(fields["amount"]),
            "currency": fields["currency"],
            "capture_method": fields["capture_method"],
            "status": "requires_payment_method",
            "metadata": {"tillway_reference": reference},
            "last_payment_error": None,
            "latest_charge": None,
            "next_action": None,
        }
        self.objects[f"pi_{reference}"] = intent
        return answer(200, intent)

    def _confirm(self, intent: dict[str, Any], fields: dict[str, str]) -> Response:
        if intent["status"] != "requires_payment_method" or intent["last_payment_error"] is not None:
            return _error(400, "invalid_request_error", "payment_intent_unexpected_state", payment_intent=intent)
        card = {name: fields[f"payment_method_data[card][{name}]"] for name in ("number", "exp_month", "exp_year")}
        body = {
            "reference": _reference(intent),
            "amount": intent["amount"],
            "currency": intent["currency"],
            "capture": intent["capture_method"] == "automatic",
            "card": {**card, "exp_month": int(card["exp_month"]), "exp_year": int(card["exp_year"])},
            "by_amount": True,
        }
        if card["number"] == CHALLENGED.number:
            url = f"https://hooks.stripe.com/3d_secure/{intent['id']}"
            intent |= {"status": "requires_action", "next_action": {"redirect_to_url": {"url": url}}}
            self._waiting[intent["id"]] = body
            return answer(200, intent)
        return self._authorize(intent, body)

    def _create_setup(self, fields: dict[str, str]) -> Response:
        reference = fields["metadata[tillway_reference]"]
        setup = {
            "id": f"seti_{reference}",
            "object": "setup_intent",
            "usage": fields["usage"],
            "status": "requires_payment_method",
            "metadata": {"tillway_reference": reference},
            "last_setup_error": None,
            "latest_attempt": None,
            "next_action": None,
        }
        self.objects[f"seti_{reference}"] = setup
        return answer(200, setup)

    def _confirm_setup(self, setup: dict[str, Any], fields: dict[str, str]) -> Response:
        number = fields["payment_method_data[card][number]"]
        if setup["status"] != "requires_payment_method" or setup["last_setup_error"] is not None:
            return _error(400, "invalid_request_error", "setup_intent_unexpected_state", setup_intent=setup)
        if number == CHALLENGED.number:
            url = f"https://hooks.stripe.com/3d_secure/{setup['id']}"
            setup |= {"status": "requires_action", "next_action": {"redirect_to_url": {"url": url}}}
            return answer(200, setup)
        return self._end_setup(setup, declined=number == REFUSED.number)

    def _end_setup(self, setup: dict[str, Any], *, declined: bool) -> Response:
        if declined:
            setup["last_setup_error"] = {"code": "card_declined", "decline_code": "generic_decline"}
            return _error(402, "card_error", setup_intent=setup, **setup["last_setup_error"])
        attempt = {"payment_method_details": {"card": {"checks": {"cvc_check": "pass"}}}}
        setup |= {"status": "succeeded", "latest_attempt": attempt}
        return answer(200, setup)

    async def customer(self, waiting: ActionRequired, *, passed: bool) -> str | None:
        assert waiting.bank_id is not None
        intent = self.objects[waiting.bank_id]
        if intent["object"] == "setup_intent":
            intent |= {"status": "requires_payment_method", "next_action": None}
            if passed:
                self._end_setup(intent, declined=False)
            else:
                intent["last_setup_error"] = {"code": "setup_intent_authentication_failure"}
            return None
        assert intent["next_action"]["redirect_to_url"]["url"] == waiting.redirect_url
        intent |= {"status": "requires_payment_method", "next_action": None}
        if passed:
            self._authorize(intent, self._waiting[waiting.bank_id])
        else:
            intent["last_payment_error"] = {"code": "payment_intent_authentication_failure"}
        return None

    def _authorize(self, intent: dict[str, Any], body: dict[str, Any]) -> Response:
        handled = self.bank.handle(Request("POST", "/v1/authorizations", body))
        self._know(intent)
        if handled.effect is not None:
            self._announce(handled.effect, intent)
        if intent["last_payment_error"] is not None:
            return _error(402, "card_error", payment_intent=intent, **intent["last_payment_error"])
        return answer(200, intent)

    def _know(self, intent: dict[str, Any]) -> None:
        """Bring an intent up to date with the bank."""
        done = self.bank.find(_reference(intent))
        if done is None:
            return
        intent["status"] = {
            "Accepted": "succeeded" if done.capture else "requires_capture",
            "Pending": "processing",
        }.get(done.status, "requires_payment_method")
        if done.status == "Accepted":
            intent["latest_charge"] = {"status": "succeeded", "payment_method_details": {"card": _card(done)}}
        elif done.status != "Pending":
            intent["last_payment_error"] = {"code": "card_declined", "decline_code": done.decline_code}
        if done.captured and done.status == "Accepted":
            still = done.open and not done.voided
            intent |= {"status": "requires_capture" if still else "succeeded", "amount_received": done.captured}
        elif done.voided:
            intent["status"] = "canceled"

    def _change(self, intent: dict[str, Any], change: str, fields: dict[str, str]) -> Response:
        if change == "cancel" and intent["status"] == "requires_action":
            intent |= {"status": "canceled", "next_action": None}
            return answer(200, intent)
        if change == "increment_authorization":
            return self._increment(intent, int(fields["amount"]))
        if intent["status"] != "requires_capture":
            return _error(400, "invalid_request_error", "payment_intent_unexpected_state", payment_intent=intent)
        body: dict[str, Any] = {"reference": f"{change}-{len(self._keys)}", "authorization": _reference(intent)}
        if change == "capture":
            amount = int(fields["amount_to_capture"])
            if amount > intent["amount"] - intent.get("amount_received", 0):
                return _error(400, "invalid_request_error", "amount_too_large")
            body |= {"amount": amount, "currency": intent["currency"]}
            if fields.get("final_capture") == "false":
                body["final"] = False
            intent["metadata"]["tillway_captured_by"] = fields["metadata[tillway_captured_by]"]
        self.bank.handle(Request("POST", {"capture": "/v1/captures", "cancel": "/v1/voids"}[change], body))
        self._know(intent)
        return answer(200, intent)

    def _increment(self, intent: dict[str, Any], amount: int) -> Response:
        if intent["status"] != "requires_capture":
            return _error(400, "invalid_request_error", "payment_intent_unexpected_state", payment_intent=intent)
        body: dict[str, Any] = {"reference": f"increment-{len(self._keys)}", "authorization": _reference(intent)}
        body |= {"amount": amount, "currency": intent["currency"]}
        done = self.bank.handle(Request("POST", "/v1/increments", body)).response.body
        assert done is not None
        if done["status"] != "Accepted":
            return _error(402, "card_error", "card_declined", decline_code="insufficient_funds")
        intent["amount"] = amount
        return answer(200, intent)

    def _make(self, prefix: str, noun: str, path: str, fields: dict[str, str], more: dict[str, Any]) -> Response:
        """A refund or payout."""
        reference = fields["metadata[tillway_reference]"]
        body = {"reference": reference, "amount": int(fields["amount"]), "currency": fields.get("currency"), **more}
        if noun == "refund":
            body["currency"] = self.objects[fields["payment_intent"]]["currency"]
        done = self.bank.handle(Request("POST", path, body)).response.body
        assert done is not None
        if done["status"] == "Declined":
            return _error(400, "invalid_request_error", "charge_already_refunded")
        made = {
            "id": f"{prefix}{reference}",
            "object": noun,
            "amount": body["amount"],
            "currency": body["currency"],
            "status": _STATUS[done["status"]] if noun == "refund" else "pending",
            "metadata": {"tillway_reference": reference},
            "payment_intent": fields.get("payment_intent"),
            "destination": self.destination,
        }
        self.objects[made["id"]] = made
        return answer(200, made)

    def _announce(self, done: BankOperation, intent: dict[str, Any]) -> None:
        for _, announcement in plan_notices(self.bank.forthcoming(done), self.peer.notice_faults):
            if announcement is None:
                self._due += [intent]
            elif announcement.what == "dispute":
                told = self.bank.foretell(announcement)
                self._due.append(
                    {
                        "id": "dp_1",
                        "object": "dispute",
                        "payment_intent": intent["id"],
                        "amount": told["amount"],
                        "currency": told["currency"],
                        "reason": told["reason"],
                        "status": "needs_response",
                    }
                )

    def _shown(self, id: str) -> Response:
        intent = self.objects.get(id)
        if intent is None:
            return _error(404, "invalid_request_error", "resource_missing")
        self.bank.handle(Request("GET", f"/v1/operations/{_reference(intent)}"))  # A question settles.
        self._know(intent)
        return answer(200, intent)

    def _all(self, prefix: str) -> list[dict[str, Any]]:
        """Objects of a kind, newest first."""
        return [thing for id, thing in reversed(self.objects.items()) if id.startswith(prefix)]


def signed(thing: dict[str, Any], secret: str = SECRET, *, at: float | None = None) -> tuple[dict[str, str], bytes]:
    """An event about a thing, and the header that proves it."""
    now = int(time.time() if at is None else at)
    event = {"id": "evt_1", "object": "event", "type": f"{thing['object']}.updated", "created": now}
    body = msgspec.json.encode({**event, "data": {"object": thing}})
    proof = hmac.new(secret.encode(), f"{now}.".encode() + body, hashlib.sha256).hexdigest()
    return {"stripe-signature": f"t={now},v1={proof}"}, body


def _describe(request: Request) -> tuple[str, int | None]:
    """The operation of a request, for the rules of faults. The creation of an intent moves no money: it is a question
    to them."""
    path = request.path.partition("?")[0]
    kinds = {
        "confirm": "authorize",
        "capture": "capture",
        "cancel": "void",
        "increment_authorization": "increment",
        "refunds": "refund",
        "payouts": "payout",
    }
    return "look_up" if request.method == "GET" else kinds.get(path.rpartition("/")[2], "look_up"), None


def _reference(thing: Mapping[str, Any]) -> str:
    return str(thing["metadata"]["tillway_reference"])


def _card(done: BankOperation) -> dict[str, Any]:
    return {"network_transaction_id": done.network_id, "checks": {"cvc_check": "pass"}}


def _page(found: list[dict[str, Any]]) -> Response:
    return answer(200, {"object": "list", "data": found, "has_more": False})


def _error(status: int, type: str, code: str | None = None, **more: Any) -> Response:
    return answer(status, {"error": {"type": type, "code": code, **more}})
