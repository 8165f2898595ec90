"""The sandbox of Example Pay, the provider of the tutorial connector, for the contract suite.

It shows the three parts of a sandbox: translate requests into operations of the simulated bank (which performs each
reference once), translate the bank's answers back, and send the notices that fall due.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from tillway.connectors.example import ExampleConnector
from tillway.connectors.port import Connector, Outcome, Request, Response, Transport
from tillway.domain.money import major_to_minor, minor_to_major
from tillway.sandbox.bank import Bank
from tillway.sandbox.faults import plan_notices
from tillway.testing.far_side import Handler, Nowhere, answer, form_fields, in_process

_ORDERS = {
    "captures": ("/v1/captures", "authorization", "capture"),
    "voids": ("/v1/voids", "authorization", "void"),
    "refunds": ("/v1/refunds", "payment", "refund"),
}
_STATES = {"Accepted": "approved", "Pending": "pending", "Declined": "declined", "InsufficientFunds": "declined"}
_REASONS = {"insufficient_funds": "no-funds", "expired_card": "expired", "incorrect_cvc": "bad-cvc"}


class ExampleFarSide:
    """The connector with its sandbox, for the contract suite. `peer` can also be served over HTTP."""

    def __init__(self) -> None:
        self.bank = Bank(knows_all=True, operations_max=None)
        self.peer = Handler(self._handle, _describe)
        settings = {"base_url": "http://127.0.0.1:1", "api_key": "key"}
        self.connector: Connector = ExampleConnector.from_settings(settings)
        self.transport: Transport = in_process(self.peer)
        self._events: dict[str, dict[str, Any]] = {}
        self._due: list[str] = []

    async def strike(self, *rules: Mapping[str, Any]) -> None:
        self.peer.faults.replace({"rules": rules})

    async def performed(self) -> int:
        kinds = ("authorization", "capture", "void", "refund")
        totals = self.bank.totals()
        return sum(row["count"] for rows in totals.values() for kind, row in rows.items() if kind in kinds)

    def nowhere(self) -> Transport:
        return Nowhere()

    async def notices(self, outcome: Outcome | None, count: int) -> list[tuple[Mapping[str, str], bytes]]:
        return [({}, msgspec.json.encode({"event": id})) for id in self._due[:count]]

    def settle(self) -> None:
        """Settle every pending operation, and owe a notice about each."""
        for operation in list(self.bank.operations()):
            for announcement in self.bank.forthcoming(operation):
                if announcement.what == "settles":
                    told, _ = self.bank.announce(announcement)
                    self._tell(f"settled-{operation.reference}", {"type": "operation", **_as_example_pay(told)})

    # The provider.

    def _handle(self, request: Request) -> Response:
        parts = request.path.strip("/").split("/")
        match request.method, parts:
            case "GET", ["events", id]:
                return answer(200, self._events[id]) if id in self._events else answer(404)
            case "GET", ["operations", reference]:
                return _translate(self.bank.handle(Request("GET", f"/v1/operations/{reference}")).response)
            case "PUT", ["payments", reference]:
                return self._perform("/v1/authorizations", reference, _authorization(dict(form_fields(request))))
            case "PUT", ["payments", parent, orders, reference] if orders in _ORDERS:
                path, names_parent, _ = _ORDERS[orders]
                fields = {names_parent: parent, **_amount(dict(form_fields(request)))}
                return self._perform(path, reference, fields)
        return answer(404)

    def _perform(self, path: str, reference: str, fields: dict[str, Any]) -> Response:
        handled = self.bank.handle(Request("POST", path, {"reference": reference, **fields}))
        if handled.effect is not None:
            for _, announcement in plan_notices(self.bank.forthcoming(handled.effect), self.peer.notice_faults):
                if announcement is None:
                    event = {"type": "operation", **_as_example_pay(handled.effect.answer())}
                    self._tell(f"answer-{reference}", event)
                elif announcement.what == "dispute":
                    told = self.bank.foretell(announcement)
                    event = {"type": "dispute", "payment": told["parent"]}
                    self._tell(f"dispute-{reference}", event | {"amount": told["amount"], "reason": told["reason"]})
        return _translate(handled.response)

    def _tell(self, id: str, event: dict[str, Any]) -> None:
        self._events[id] = event
        self._due.append(id)


def _describe(request: Request) -> tuple[str, int | None]:
    """The operation of a request, for the rules of faults."""
    parts = request.path.strip("/").split("/")
    if request.method == "GET":
        return "look_up", None
    amount = _amount(dict(form_fields(request))).get("amount")
    return (_ORDERS[parts[2]][2] if len(parts) == 4 else "authorize"), amount


def _amount(form: Mapping[str, str]) -> dict[str, Any]:
    if "amount" not in form:
        return {}
    currency = form["currency"].lower()
    return {"amount": major_to_minor(form["amount"], currency), "currency": currency}


def _authorization(form: Mapping[str, str]) -> dict[str, Any]:
    month, _, year = form["expiry"].partition("/")
    # The sandbox of Example Pay always answers by amount.
    card: dict[str, Any] = {"number": form["card"], "exp_month": int(month), "exp_year": int(year)}
    if "cvc" in form:
        card["cvc"] = form["cvc"]
    return {**_amount(form), "capture": form["capture"] == "yes", "card": card, "by_amount": True}


def _translate(response: Response) -> Response:
    body = response.body or {}
    return answer(response.status, _as_example_pay(body) if response.status == 200 else body, response.headers)


def _as_example_pay(told: Mapping[str, Any]) -> dict[str, Any]:
    """The bank's answer as an answer of Example Pay."""
    shown = {
        "id": told["bank_id"],
        "reference": told["reference"],
        "state": _STATES[told["status"]],
        "amount": minor_to_major(told["amount"], told["currency"]),
        "currency": told["currency"].upper(),
        "network_transaction": told.get("network_transaction_id"),
    }
    if shown["state"] == "declined":
        shown["reason"] = _REASONS.get(str(told.get("decline_code")), "refused")
    return shown
