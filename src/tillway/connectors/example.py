"""A complete connector for a fictional provider: the tutorial of docs/contributing/connector.md.

The provider, Example Pay, takes forms, writes amounts in major units ("42.00"), names each operation by Tillway's
reference, and sends notices that only say "fetch event 7". `tillway.testing.example_provider` is its sandbox.
"""

import re
from collections.abc import Mapping
from typing import Any

from tillway.connectors.port import (
    Capabilities,
    CardData,
    Conversation,
    Declined,
    DisputeReply,
    Form,
    Listing,
    LookUp,
    NeverSeen,
    Notice,
    NoticeRejected,
    Notices,
    NoticeUndecided,
    NotSent,
    Operation,
    Outcome,
    Pending,
    Request,
    Response,
    Succeeded,
    Unknown,
    read_retry_after,
)
from tillway.connectors.settings import Setting, http_url, read_settings, seconds, text
from tillway.connectors.transport import SocketTransport
from tillway.domain.money import minor_to_major

SETTINGS = (
    Setting(name="base_url", read=http_url, required=True, description="where Example Pay answers"),
    Setting(name="api_key", read=text(200), required=True, secret=True, description="sent as `Authorization: Bearer`"),
    Setting(
        name="timeout_seconds",
        read=seconds(0.05, 300),
        default=15.0,
        description="how long to wait for an answer before its outcome is unknown",
    ),
)


class ExampleConnector:
    """One account at Example Pay. Make it with `from_settings`."""

    capabilities = Capabilities(
        operations=frozenset(("authorize", "capture", "void", "refund")),
        deduplicates=True,
        looks_up=True,
        livemode=True,
    )

    def __init__(self, base_url: str, api_key: str, timeout_seconds: float) -> None:
        self._base_url, self._api_key, self._timeout_seconds = base_url, api_key, timeout_seconds

    @classmethod
    def from_settings(cls, settings: Mapping[str, str]) -> "ExampleConnector":
        """Raises `SettingInvalid`, which names the setting."""
        return cls(**read_settings(settings, SETTINGS))

    @staticmethod
    def describe() -> tuple[Setting, ...]:
        return SETTINGS

    def transport(self) -> SocketTransport:
        headers = {"authorization": f"Bearer {self._api_key}"}
        return SocketTransport(self._base_url, timeout_seconds=self._timeout_seconds, headers=headers)

    def perform(self, operation: Operation) -> Conversation:
        answer = yield Request("PUT", _path(operation), _form(operation))
        if answer.status != 409:
            return _outcome(operation, answer)
        # The reference was used before with other contents: by this operation, before a crash deleted its CVC, or by
        # another one. The provider's record of it decides.
        found = yield _question(operation)
        if found.status == 200 and not _is_answer_to(operation, found):
            return Declined("processing_error", None, alert="the reference was used before, for another operation")
        return _outcome(operation, found) if found.status == 200 else Unknown("a used reference could not be read")

    def look_up(self, operation: Operation) -> LookUp:
        answer = yield _question(operation)
        if answer.status == 404:
            return NeverSeen()
        if answer.status == 200:
            return _outcome(operation, answer)
        return Unknown(f"Example Pay answered {answer.status} to a question")

    def withdraw(self, operation: Operation) -> Conversation:
        raise AssertionError("it sends no customer anywhere")

    def answer_dispute(self, reply: DisputeReply) -> Conversation:
        raise AssertionError("it takes no replies to disputes")

    def list_operations(self, since: int, after: str | None) -> Listing:
        raise AssertionError("it has no list")

    def notices(self, headers: Mapping[str, str], body: bytes) -> Notices:
        named = re.fullmatch(rb'\{"event":"([A-Za-z0-9_-]{1,80})"\}', body)
        if named is None:
            raise NoticeRejected("the body is not an event of Example Pay")
        return self._fetch(named[1].decode())

    def _fetch(self, event_id: str) -> Notices:
        """Any sender can post a notice, so its content is fetched from the provider."""
        answer = yield Request("GET", f"/events/{event_id}", moves_money=False)
        if answer.status == 404:
            raise NoticeRejected("Example Pay does not know the event")
        event = answer.body
        if answer.status != 200 or event is None:
            raise NoticeUndecided(f"Example Pay answered {answer.status}")
        if event.get("type") == "dispute":
            reason = str(event.get("reason", "general"))
            amount_minor = _minor(event.get("amount"))
            reference = str(event.get("payment"))
            return [Notice(id=event_id, kind="dispute", reference=reference, amount_minor=amount_minor, reason=reason)]
        outcome = _state(event)
        if outcome is None:
            raise NoticeUndecided("Example Pay tells of a state that is not documented")
        return [Notice(id=event_id, kind="operation", reference=str(event.get("reference")), outcome=outcome)]


# Requests.


def _path(operation: Operation) -> str:
    if operation.kind == "authorize":
        return f"/payments/{operation.reference}"
    return f"/payments/{operation.parent}/{operation.kind}s/{operation.reference}"


def _question(operation: Operation) -> Request:
    return Request("GET", f"/operations/{operation.reference}", moves_money=False)


def _form(operation: Operation) -> Form:
    fields: dict[str, str | None] = {}
    if operation.kind != "void":
        fields["amount"] = minor_to_major(operation.amount_minor, operation.currency)
        fields["currency"] = operation.currency.upper()
    if operation.kind == "authorize":
        assert operation.card is not None, "this connector debits no bank accounts"
        fields["capture"] = "yes" if operation.capture else "no"
        fields["initiator"] = "merchant" if operation.off_session else "customer"
        fields["first_transaction"] = operation.network_transaction_id
        fields["email"] = operation.email
        fields.update(_card(operation.card))
    return Form(tuple((name, value) for name, value in fields.items() if value is not None))


def _card(card: CardData) -> dict[str, str | None]:
    return {"card": card.number, "expiry": f"{card.exp_month:02d}/{card.exp_year}", "cvc": card.cvc}


# Answers.


def _outcome(operation: Operation, answer: Response) -> Outcome:
    match answer.status:
        case 200:
            if not _is_answer_to(operation, answer):
                return Unknown("the answer is not about our operation")
            assert answer.body is not None
            return _state(answer.body) or Unknown("the answer has a state that is not documented")
        case 400 | 401 | 403 | 422:
            # A fault of Tillway: no money moved, and a person must look. The text of the answer may hold a card number.
            return Declined("processing_error", None, alert=f"Example Pay answered {answer.status}")
        case 429:
            return NotSent("Example Pay answered 429", read_retry_after(answer))
        case _:
            # 5xx and every undocumented status: the operation may have happened.
            return Unknown(f"Example Pay answered {answer.status}")


def _is_answer_to(operation: Operation, answer: Response) -> bool:
    """Whether reference, amount and currency of an answer are those of the operation."""
    body = answer.body or {}
    if body.get("reference") != operation.reference:
        return False
    if operation.kind == "void":
        return True
    amount = minor_to_major(operation.amount_minor, operation.currency)
    return (body.get("amount"), body.get("currency")) == (amount, operation.currency.upper())


_DECLINES = {
    "no-funds": ("card_declined", "insufficient_funds", False),
    "expired": ("expired_card", None, False),
    "bad-cvc": ("incorrect_cvc", None, False),
    "try-later": ("card_declined", "try_again_later", True),
}
"""Example Pay's reasons: the error code, the decline code, and whether another provider may still accept."""


def _state(body: Mapping[str, Any]) -> Outcome | None:
    """The outcome of a state; None for an undocumented one."""
    id = body.get("id")
    bank_id = id if isinstance(id, str) else None
    match body.get("state"):
        case "approved":
            network_id = body.get("network_transaction")
            return Succeeded(bank_id, network_transaction_id=network_id if isinstance(network_id, str) else None)
        case "pending":
            return Pending(bank_id)
        case "declined":
            reason = str(body.get("reason"))
            code, decline_code, soft = _DECLINES.get(reason, ("card_declined", "generic_decline", False))
            return Declined(code, decline_code, bank_id=bank_id, soft=soft)
        case _:
            return None


def _minor(amount: Any) -> int | None:
    """Minor units of a disputed amount, which Example Pay states in minor units; None, the whole charge, for any other
    value."""
    return amount if type(amount) is int and amount > 0 else None
