"""The contract of connectors, as checks that run against the connector and a far side that can commit faults.

For authors of connectors: give the suite a `FarSide` (your connector, its transport, and a sandbox or imposter of the
provider that can commit faults), and run the checks for its capabilities:

    @pytest.mark.parametrize("check", checks_for(capabilities), ids=lambda check: check.__name__)
    async def test_contract(check):
        async with my_far_side() as far:
            await check(far)

A check raises AssertionError. The far side answers an authorization by its amount, as the simulated bank does where
`Operation.by_amount` is set: 1 declined, 2 insufficient funds, 24 pending and then accepted, any other accepted. It
declines a payout to the e-mail address of `NOBODY`. Where it debits bank accounts, it knows the test accounts of
`ACCOUNTS`. Where it `authenticates`, it sends the holder of `CHALLENGED` to a page, and has the method `customer`.
"""

import itertools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, NamedTuple, Protocol

import msgspec

from tillway.connectors.conversation import converse, listen
from tillway.connectors.port import (
    REFERENCE_MAX,
    ActionRequired,
    BankAccountData,
    Capabilities,
    CardData,
    Connector,
    Declined,
    NeverSeen,
    Notice,
    NoticeRejected,
    NotSent,
    Operation,
    Outcome,
    Pending,
    Recipient,
    Request,
    Response,
    Succeeded,
    Transport,
    TransportError,
    Unknown,
    encode_body,
)
from tillway.domain.bank_account import failure
from tillway.domain.method_types import METHOD_TYPES

AMOUNT = 4200
DECLINED, NO_FUNDS, PENDING = 1, 2, 24

CARD = CardData("4242424242424242", 12, 2040, "123", "Ada Lovelace")

CHALLENGED = CardData("4000002760003184", 12, 2040, "123", "Ada Lovelace")
"""A card whose issuer asks for 3-D Secure."""

REFUSED = CardData("4000000000000002", 12, 2040, "123", "Ada Lovelace")
"""A card that the issuer does not let a merchant keep."""

RETURN_URL = "https://tillway.example/returns/1?secret=2"

NOBODY = Recipient("email", "no_account@example.com")

RECIPIENTS = {
    "email": Recipient("email", "ada@example.com", "Ada Lovelace"),
    "bank_account": Recipient("bank_account", "DE89370400440532013000", "Ada Lovelace"),
    "card": Recipient("card", "4242424242424242", "Ada Lovelace"),
}
"""For each type of recipient: one that a payout reaches."""

ACCOUNTS = {
    "us_bank_account": {"good": "000123456789", "insufficient_funds": "000222222227", "no_account": "000111111116"},
    "sepa_debit": {
        "good": "DE89370400440532013000",
        "insufficient_funds": "DE65370400440002222227",
        "generic_could_not_process": "DE62370400440532013001",
    },
}
"""For each kind of bank account: one with a debit that settles, and others by the reason of their return."""


class FarSide(Protocol):
    """A connector with the provider that it talks to. Every check gets a fresh one."""

    connector: Connector
    transport: Transport

    async def strike(self, *rules: Mapping[str, Any]) -> None:
        """Make the provider commit faults from now on: rules of `tillway.sandbox.faults`. None given: stop them."""

    async def performed(self) -> int:
        """The number of operations that the provider has accepted since the beginning."""

    def nowhere(self) -> Transport:
        """A transport to an address where nothing listens."""

    async def notices(self, outcome: Outcome, count: int) -> list[tuple[Mapping[str, str], bytes]]:
        """The first `count` notices, which come within some seconds: header names in lower case, and body."""


class Redirecting(FarSide, Protocol):
    """A far side whose connector `authenticates`."""

    async def customer(self, waiting: ActionRequired, *, passed: bool) -> str | None:
        """The customer at the provider's page passes or fails the authentication. Return the text with which the
        provider sends the customer back, None if it needs none."""


Check = Callable[[FarSide], Awaitable[None]]


def checks_for(capabilities: Capabilities) -> list[Check]:
    """The checks that a connector with these capabilities has to pass."""
    checks = [*_ALWAYS]
    if capabilities.looks_up:
        checks += _LOOKS_UP
    if capabilities.deduplicates:
        checks += _DEDUPLICATES
    for operation, more in _BY_OPERATION.items():
        if operation in capabilities.operations:
            checks += more
    if capabilities.lists:
        checks += _LISTS
    if capabilities.authenticates:
        checks += _REDIRECTS
    if capabilities.authenticates and "verify" in capabilities.operations:
        checks.append(verifies_a_card_at_its_issuers_page)
    return [*checks, *_DEBITS] if capabilities.debits else checks


# Decisions of the provider.


async def approves(far: FarSide) -> None:
    outcome = await _do(far, authorization())
    assert isinstance(outcome, Succeeded), outcome
    assert await far.performed() == 1


async def declines(far: FarSide) -> None:
    outcome = await _do(far, authorization(amount_minor=DECLINED))
    assert isinstance(outcome, Declined) and outcome.code == "card_declined", outcome
    assert outcome.alert is None, "a decline is not a fault"
    assert await far.performed() == 0


async def says_that_funds_are_missing(far: FarSide) -> None:
    outcome = await _do(far, authorization(amount_minor=NO_FUNDS))
    assert isinstance(outcome, Declined), outcome
    assert (outcome.code, outcome.decline_code) == ("card_declined", "insufficient_funds"), outcome


async def waits_for_what_is_pending(far: FarSide) -> None:
    operation = authorization(amount_minor=PENDING)
    assert isinstance(await _do(far, operation), Pending)
    settled = await _ask(far, operation) if far.connector.capabilities.looks_up else await _do(far, operation)
    assert isinstance(settled, Succeeded), settled
    assert await far.performed() == 1


async def captures_once(far: FarSide) -> None:
    held = await _authorize(far, capture=False)
    assert isinstance(await _finish(far, child("capture", held, 4000)), Succeeded)
    assert isinstance(await _finish(far, child("capture", held, 4000)), Declined), (
        "more was captured than was authorized"
    )
    assert await far.performed() == 2


async def captures_several_times(far: FarSide) -> None:
    held = await _authorize(far, capture=False)
    assert isinstance(await _finish(far, child("capture", held, 1000, final=False)), Succeeded)
    again = child("capture", held, 1200, final=False, captured_minor=1000)
    assert isinstance(await _finish(far, again), Succeeded)
    if far.connector.capabilities.looks_up:
        assert isinstance(await _ask(far, again), Succeeded), "the second capture is not known"
    more = child("capture", held, AMOUNT - 2199, captured_minor=2200)
    assert isinstance(await _finish(far, more), Declined), "more was captured than was authorized"
    assert isinstance(await _finish(far, child("refund", held, 1500)), Succeeded), "a refund of both captures"
    rest = child("void", held, AMOUNT - 2200, captured_minor=2200)
    assert isinstance(await _finish(far, rest), Succeeded), "the rest was not released"
    late = child("capture", held, 100, captured_minor=2200)
    assert isinstance(await _finish(far, late), Declined), "a released rest was captured"
    assert isinstance(await _finish(far, child("refund", held, 701)), Declined), "more was refunded than was paid"
    assert isinstance(await _finish(far, child("refund", held, 700)), Succeeded)
    other = await _authorize(far, capture=False)
    assert isinstance(await _finish(far, child("capture", other, 1000, final=False)), Succeeded)
    last = child("capture", other, AMOUNT - 1000, captured_minor=1000)
    assert isinstance(await _finish(far, last), Succeeded), "the last capture"


async def voids(far: FarSide) -> None:
    held = await _authorize(far, capture=False)
    assert isinstance(await _finish(far, child("void", held, AMOUNT)), Succeeded)
    assert isinstance(await _finish(far, child("capture", held, AMOUNT)), Declined), (
        "a voided authorization was captured"
    )


async def increments(far: FarSide) -> None:
    held = await _authorize(far, capture=False)
    assert isinstance(await _finish(far, child("increment", held, AMOUNT + 800)), Succeeded)
    assert isinstance(await _finish(far, child("capture", held, AMOUNT + 800)), Succeeded)


async def refunds_no_more_than_was_paid(far: FarSide) -> None:
    paid = await _authorize(far)
    assert isinstance(await _finish(far, child("refund", paid, 4000)), Succeeded)
    assert isinstance(await _finish(far, child("refund", paid, 201)), Declined), "more was refunded than was paid"
    assert isinstance(await _finish(far, child("refund", paid, 200)), Succeeded)
    assert await far.performed() == 3


async def verifies_a_card(far: FarSide) -> None:
    kept = verification()
    assert isinstance(await _do(far, kept), Succeeded)
    assert isinstance(await _look(far, kept), Succeeded), "a verification is not known any more"
    refused = await _do(far, verification(card=REFUSED))
    assert isinstance(refused, Declined) and refused.alert is None, refused
    assert await far.performed() == 0, "a verification took money"


async def verifies_a_card_at_its_issuers_page(far: FarSide) -> None:
    for passed, expected in ((True, Succeeded), (False, Declined)):
        operation, waiting = await _sent_away(far, verification(card=CHALLENGED))
        assert await _look(far, operation) == waiting, "the same page again"
        told = await _customer(far, waiting, passed=passed)
        outcome = await _look(far, msgspec.structs.replace(operation, returned=told))
        assert isinstance(outcome, expected), outcome
    operation, waiting = await _sent_away(far, verification(card=CHALLENGED))
    ended = await converse(far.connector.withdraw(operation), far.transport)
    assert isinstance(ended, Declined), ended
    assert await far.performed() == 0


async def pays_out(far: FarSide) -> None:
    recipients = far.connector.capabilities.recipients
    for type in recipients:
        operation = payout(recipient=RECIPIENTS[type])
        outcome: Outcome | NeverSeen = await _do(far, operation)
        assert isinstance(outcome, Succeeded | Pending), outcome
        if isinstance(outcome, Pending) and far.connector.capabilities.looks_up:
            assert isinstance(await _ask(far, operation), Succeeded | Pending), "a payout is not known any more"
    assert await far.performed() == len(recipients)
    if "email" in recipients:
        assert isinstance(await _do(far, payout(recipient=NOBODY)), Declined)


# References.


async def sends_our_reference(far: FarSide) -> None:
    """Every request that moves money has the operation's reference, which is never too long."""
    carried = _Recorder(far.transport)
    operation = authorization()
    assert len(operation.reference) == REFERENCE_MAX, "the suite means to use the longest reference"
    outcome = await converse(far.connector.perform(operation), carried)
    assert isinstance(outcome, Succeeded), outcome
    moving = [request for request in carried.requests if request.moves_money]
    assert moving, "no request says that it moves money"
    for request in moving:
        assert operation.reference in _text_of(request), f"{request!r} does not carry our reference"


async def performs_a_reference_once(far: FarSide) -> None:
    operation = authorization()
    first = await _do(far, operation)
    assert isinstance(first, Succeeded)
    for _ in range(3):
        again = await _do(far, operation)
        assert isinstance(again, Succeeded) and again.bank_id == first.bank_id, again
    assert await far.performed() == 1


async def takes_the_first_answer_when_the_resend_lacks_the_cvc(far: FarSide) -> None:
    """After a crash the card's CVC is deleted: the resend differs from the first request, but is the same operation."""
    operation = authorization()
    assert isinstance(await _do(far, operation), Succeeded)
    assert operation.card is not None
    without = msgspec.structs.replace(operation, card=msgspec.structs.replace(operation.card, cvc=None))
    assert isinstance(await _do(far, without), Succeeded)
    assert await far.performed() == 1


async def raises_an_alert_when_a_reference_is_used_for_something_else(far: FarSide) -> None:
    operation = authorization()
    assert isinstance(await _do(far, operation), Succeeded)
    outcome = await _do(far, msgspec.structs.replace(operation, amount_minor=AMOUNT + 1))
    assert isinstance(outcome, Declined) and outcome.alert, outcome
    assert await far.performed() == 1


# Looking up.


async def finds_what_was_done(far: FarSide) -> None:
    for amount, expected in ((AMOUNT, Succeeded), (DECLINED, Declined)):
        operation = authorization(amount_minor=amount)
        done = await _do(far, operation)
        found = await _ask(far, operation)
        assert isinstance(done, expected) and isinstance(found, expected), (done, found)


async def knows_nothing_of_what_was_never_sent(far: FarSide) -> None:
    assert isinstance(await _ask(far, authorization()), NeverSeen)


async def finds_what_was_done_although_the_answer_was_lost(far: FarSide) -> None:
    operation = authorization()
    await far.strike({"fault": "lose_answer", "times": 1})
    assert isinstance(await _do(far, operation), Unknown)
    assert isinstance(await _ask(far, operation), Succeeded)
    assert await far.performed() == 1


async def sees_that_a_lost_request_never_came(far: FarSide) -> None:
    operation = authorization()
    await far.strike({"fault": "lose_request", "times": 1})
    assert isinstance(await _do(far, operation), Unknown)
    assert isinstance(await _ask(far, operation), NeverSeen)
    assert isinstance(await _do(far, operation), Succeeded)
    assert await far.performed() == 1


async def a_failed_question_answers_nothing(far: FarSide) -> None:
    """The outcome stays open, unless the transport asked again, which questions allow, and got the answer."""
    operation = authorization()
    assert isinstance(await _do(far, operation), Succeeded)
    for fault in ("lose_request", "reset_before", "half_body", "error_before", "throttle"):
        await far.strike({"fault": fault, "operation": "look_up", "times": 1})
        outcome = await _ask(far, operation)
        assert isinstance(outcome, Unknown | Succeeded), f"{fault}: {outcome}"
    outcome = await converse(far.connector.look_up(operation), far.nowhere())
    assert isinstance(outcome, Unknown), f"a question that was refused says nothing of the operation: {outcome}"


# The list.


async def lists_operations_in_order(far: FarSide) -> None:
    """Every operation since a moment, oldest first, page by page, and in its present state."""
    since = int(time.time()) - 60
    authorized, declined = await _authorize(far, capture=False), authorization(amount_minor=DECLINED)
    held, capture = authorized.operation, child("capture", authorized, AMOUNT)
    done = [held, declined, capture, child("refund", authorized, 1000)]
    for operation in done[1:]:
        await _do(far, operation)
    references = [operation.reference for operation in done]
    told = await _list(far, since)
    assert [notice.reference for notice in told if notice.reference in references] == references, told
    by_reference = {notice.reference: notice for notice in told}
    assert isinstance(by_reference[held.reference].outcome, Succeeded), told
    assert isinstance(by_reference[declined.reference].outcome, Declined), told
    found = by_reference[capture.reference]
    assert (found.operation, found.amount_minor, found.currency, found.parent) == (
        "capture",
        AMOUNT,
        held.currency,
        held.reference,
    ), found
    assert await _list(far, since, capture.reference) == told[[*by_reference].index(capture.reference) + 1 :]
    assert await _list(far, int(time.time()) + 3600) == [], "operations from before a moment are listed too"


# When the network or the provider fails.


async def a_refused_connection_was_not_sent(far: FarSide) -> None:
    outcome = await converse(far.connector.perform(authorization()), far.nowhere())
    assert isinstance(outcome, NotSent), outcome
    assert await far.performed() == 0


async def what_may_have_happened_is_unknown(far: FarSide) -> None:
    done = 0
    for fault, happens in (
        ("lose_request", False),
        ("lose_answer", True),
        ("reset_before", False),
        ("reset_after", True),
        ("half_body", True),
        ("error_before", False),
        ("error_after", True),
    ):
        await far.strike({"fault": fault, "times": 1})
        outcome = await _do(far, authorization())
        assert isinstance(outcome, Unknown), f"{fault}: {outcome}"
        done += happens
        assert await far.performed() == done, fault


async def a_throttled_request_was_not_sent(far: FarSide) -> None:
    operation = authorization()
    await far.strike({"fault": "throttle", "ms": 7000, "times": 1})
    outcome = await _do(far, operation)
    assert isinstance(outcome, NotSent) and outcome.retry_after_seconds == 7.0, outcome
    assert isinstance(await _do(far, operation), Succeeded)


async def nonsense_is_unknown(far: FarSide) -> None:
    """An answer that is not about the operation, whatever its status."""
    operation = authorization()
    for answer in _nonsense(operation):
        outcome = await converse(far.connector.perform(operation), _Says(answer))
        assert isinstance(outcome, Unknown), f"{answer}: {outcome}"


async def what_we_asked_wrongly_is_an_alert(far: FarSide) -> None:
    for status in (400, 401, 403, 422):
        spoken = {"message": "card 4242424242424242 is wrong"}
        outcome = await converse(far.connector.perform(authorization()), _Says(Response(status, spoken)))
        assert isinstance(outcome, Declined) and outcome.alert, outcome
        assert "4242424242424242" not in outcome.alert, "an alert is no place for a card number"


# The customer at the provider's page.


async def _sent_away(far: FarSide, operation: Operation | None = None) -> tuple[Operation, ActionRequired]:
    operation = operation or authorization(card=CHALLENGED, return_url=RETURN_URL)
    waiting = await _do(far, operation)
    assert isinstance(waiting, ActionRequired), waiting
    assert await far.performed() == 0, "money was taken before the customer has authenticated"
    return msgspec.structs.replace(operation, bank_id=waiting.bank_id), waiting


async def _look(far: FarSide, operation: Operation) -> Outcome | NeverSeen:
    """The outcome as the engine asks for it: at a provider without questions, by a repeat without the CVC."""
    if far.connector.capabilities.looks_up:
        return await _ask(far, operation)
    assert operation.card is not None
    return await _do(far, msgspec.structs.replace(operation, card=msgspec.structs.replace(operation.card, cvc=None)))


async def _customer(far: FarSide, waiting: ActionRequired, *, passed: bool) -> str | None:
    redirecting: Any = far
    told: str | None = await redirecting.customer(waiting, passed=passed)
    return told


async def sends_the_customer_to_a_page(far: FarSide) -> None:
    """Nothing is decided until the customer has authenticated, and then the money is taken once."""
    operation, waiting = await _sent_away(far)
    again = await _look(far, operation)
    assert again == waiting, f"the same page again: {again}"
    assert await far.performed() == 0
    told = await _customer(far, waiting, passed=True)
    back = msgspec.structs.replace(operation, returned=told)
    for _ in range(2):
        paid = await _look(far, back)
        assert isinstance(paid, Succeeded) and paid.bank_id is not None, paid
        assert await far.performed() == 1
    if far.connector.capabilities.looks_up:
        ended = await converse(far.connector.withdraw(operation), far.transport)
        assert isinstance(ended, Succeeded), f"a payment was withdrawn that was made: {ended}"
        assert await far.performed() == 1


async def takes_nothing_from_a_customer_who_fails(far: FarSide) -> None:
    operation, waiting = await _sent_away(far)
    told = await _customer(far, waiting, passed=False)
    failed = await _look(far, msgspec.structs.replace(operation, returned=told))
    assert isinstance(failed, Declined) and failed.alert is None, failed
    assert await far.performed() == 0


async def withdraws_what_waits_for_its_customer(far: FarSide) -> None:
    """After a withdrawal, which may be sent twice, the customer's page takes no money any more."""
    operation, _ = await _sent_away(far)
    for _ in range(2):
        ended = await converse(far.connector.withdraw(operation), far.transport)
        assert isinstance(ended, Declined) and ended.alert is None, ended
    assert await far.performed() == 0


async def a_lost_answer_sends_nobody_away_twice(far: FarSide) -> None:
    operation = authorization(card=CHALLENGED, return_url=RETURN_URL)
    await far.strike({"fault": "lose_answer", "times": 1})
    assert isinstance(await _do(far, operation), Unknown)
    await far.strike()
    waiting = await _look(far, operation)
    assert isinstance(waiting, ActionRequired), waiting
    assert await _look(far, msgspec.structs.replace(operation, bank_id=waiting.bank_id)) == waiting


async def an_answer_about_other_money_is_unknown(far: FarSide) -> None:
    """The provider's own answer, with one thing in it changed. The outcome is found later, and is one effect."""
    for what, changed in BENT_ANSWERS.items():
        operation, before = authorization(), await far.performed()
        outcome = await converse(far.connector.perform(operation), _Bends(far.transport, changed))
        assert isinstance(outcome, Unknown), f"{what}: {outcome}"
        known = await _ask(far, operation) if far.connector.capabilities.looks_up else NeverSeen()
        settled = await _do(far, operation) if isinstance(known, NeverSeen) else known
        assert isinstance(settled, Succeeded), f"{what}, asked again: {settled}"
        assert await far.performed() == before + 1, what


# Bank accounts.


async def debits_bank_accounts(far: FarSide) -> None:
    """Debit each kind that the connector declares, in the currency of its rail; the later outcome can be asked for."""
    for type in far.connector.capabilities.debits:
        operation = debit(type)
        begun = await _do(far, operation)
        assert isinstance(begun, Pending | Succeeded), begun
        settled = await _ask(far, operation) if far.connector.capabilities.looks_up else begun
        assert isinstance(settled, Pending | Succeeded), settled
    assert await far.performed() == len(far.connector.capabilities.debits)


async def says_why_a_debit_came_back(far: FarSide) -> None:
    for type in far.connector.capabilities.debits:
        for reason in ACCOUNTS[type].keys() - {"good"}:
            operation = debit(type, reason)
            outcome = await _do(far, operation)
            if isinstance(outcome, Pending):
                asked = await _ask(far, operation)
                assert not isinstance(asked, NeverSeen), "a debit that was taken is not known any more"
                outcome = asked
            assert isinstance(outcome, Declined), outcome
            assert outcome.alert is None and failure(outcome).code == reason, outcome
    assert await far.performed() == 0


async def tells_what_became_of_a_debit(far: FarSide) -> None:
    """The last notice about a returned debit, which Tillway has not asked about."""
    operation = debit(min(far.connector.capabilities.debits), "insufficient_funds")
    outcome = await _do(far, operation)
    assert isinstance(outcome, Pending), outcome
    raw = await far.notices(outcome, 1)
    assert len(raw) == 1, "the far side sent no notice about the outcome of the debit"
    [notice] = await _read(far, *raw[0])
    assert (notice.kind, notice.reference) == ("operation", operation.reference), notice
    assert isinstance(notice.outcome, Declined) and failure(notice.outcome).code == "insufficient_funds", notice


async def refunds_a_debit(far: FarSide) -> None:
    debited = debit(min(far.connector.capabilities.debits))
    assert isinstance(await _do(far, debited), Pending | Succeeded)
    settled = await _ask(far, debited)
    assert isinstance(settled, Succeeded)
    paid = Authorized(debited, settled.bank_id)
    refund = child("refund", paid, 4000)
    assert isinstance(await _do(far, refund), Pending | Succeeded)
    assert isinstance(await _ask(far, refund), Succeeded)
    assert isinstance(await _finish(far, child("refund", paid, 201)), Declined), "more was refunded than was debited"


# Notices.


async def notices_repeat_with_the_same_id(far: FarSide) -> None:
    operation = authorization()
    await far.strike({"fault": "duplicate_notice"})
    outcome = await _do(far, operation)
    assert isinstance(outcome, Succeeded), outcome
    raw = await far.notices(outcome, 2)
    assert len(raw) >= 2, "the far side did not repeat its notice"
    told = [notice for headers, body in raw for notice in await _read(far, headers, body)]
    assert {notice.reference for notice in told} == {operation.reference}
    assert all(isinstance(notice.outcome, Succeeded) for notice in told), told
    assert len({notice.id for notice in told}) == 1, "a repeated notice has another id"


async def disputes_name_the_authorization(far: FarSide) -> None:
    operation = authorization(card=CardData("4000000000000259", 12, 2040, "123"))
    outcome = await _do(far, operation)
    assert isinstance(outcome, Succeeded), outcome
    raw = await far.notices(outcome, 1)
    assert len(raw) == 1, "the far side did not tell of the dispute"
    [notice] = await _read(far, *raw[0])
    assert (notice.kind, notice.reference, notice.stage) == ("dispute", operation.reference, "chargeback"), notice
    assert (notice.amount_minor, notice.reason) == (AMOUNT, "fraudulent"), notice


async def a_forged_notice_is_rejected(far: FarSide) -> None:
    body = msgspec.json.encode(
        {"reference": "r", "kind": "authorization", "status": "Accepted", "amount": AMOUNT, "currency": "eur"}
    )
    for headers in ({"host": "tillway"}, {"host": "tillway", "x-bank-signature": "0" * 64}):
        try:
            told = await _read(far, headers, body)
        except NoticeRejected:
            continue
        raise AssertionError(f"a notice without a valid signature was taken: {told}")


_ALWAYS: tuple[Check, ...] = (
    approves,
    declines,
    says_that_funds_are_missing,
    waits_for_what_is_pending,
    sends_our_reference,
    a_refused_connection_was_not_sent,
    what_may_have_happened_is_unknown,
    a_throttled_request_was_not_sent,
    nonsense_is_unknown,
    an_answer_about_other_money_is_unknown,
    what_we_asked_wrongly_is_an_alert,
    notices_repeat_with_the_same_id,
    disputes_name_the_authorization,
    a_forged_notice_is_rejected,
)
_LOOKS_UP: tuple[Check, ...] = (
    finds_what_was_done,
    knows_nothing_of_what_was_never_sent,
    finds_what_was_done_although_the_answer_was_lost,
    sees_that_a_lost_request_never_came,
    a_failed_question_answers_nothing,
)
_DEDUPLICATES: tuple[Check, ...] = (
    performs_a_reference_once,
    takes_the_first_answer_when_the_resend_lacks_the_cvc,
    raises_an_alert_when_a_reference_is_used_for_something_else,
)
_BY_OPERATION: dict[str, tuple[Check, ...]] = {
    "capture": (captures_once,),
    "multicapture": (captures_several_times,),
    "verify": (verifies_a_card,),
    "void": (voids,),
    "increment": (increments,),
    "refund": (refunds_no_more_than_was_paid,),
    "payout": (pays_out,),
}


_REDIRECTS: tuple[Check, ...] = (
    sends_the_customer_to_a_page,
    takes_nothing_from_a_customer_who_fails,
    withdraws_what_waits_for_its_customer,
    a_lost_answer_sends_nobody_away_twice,
)
_LISTS: tuple[Check, ...] = (lists_operations_in_order,)
_DEBITS: tuple[Check, ...] = (
    debits_bank_accounts,
    says_why_a_debit_came_back,
    tells_what_became_of_a_debit,
    refunds_a_debit,
)


# Operations of the checks.

_numbers = itertools.count(1)


def _reference() -> str:
    return f"{next(_numbers):x}".rjust(REFERENCE_MAX, "r")


def authorization(**fields: Any) -> Operation:
    """An authorization of 42.00 EUR that takes the money at once, under a new reference."""
    return Operation(
        **{
            "reference": _reference(),
            "kind": "authorize",
            "amount_minor": AMOUNT,
            "currency": "eur",
            "card": CARD,
            "by_amount": True,
            **fields,
        }
    )


class Authorized(NamedTuple):
    """An authorization that succeeded, and the provider's own id of it."""

    operation: Operation
    bank_id: str | None


def child(kind: Any, parent: Authorized, amount_minor: int, **fields: Any) -> Operation:
    """A capture, void, increment or refund of `parent`, under a new reference."""
    return Operation(
        reference=_reference(),
        kind=kind,
        amount_minor=amount_minor,
        currency=parent.operation.currency,
        parent=parent.operation.reference,
        parent_bank_id=parent.bank_id,
        **fields,
    )


def debit(type: str, account: str = "good") -> Operation:
    """A debit of 42.00 from one of `ACCOUNTS`, under a new reference."""
    routing_number = "110000000" if type == "us_bank_account" else None
    data = BankAccountData(type, ACCOUNTS[type][account], routing_number, name="Ada Lovelace")
    return authorization(card=None, account=data, currency=METHOD_TYPES[type].currency)


def verification(**fields: Any) -> Operation:
    """A set-up of a card for payments without its holder, under a new reference."""
    return authorization(
        **{"kind": "verify", "amount_minor": 0, "currency": "usd", "capture": False, "stores": "off_session"}
        | {"return_url": RETURN_URL}
        | fields
    )


def payout(**fields: Any) -> Operation:
    recipient = RECIPIENTS["email"]
    return authorization(**{"kind": "payout", "card": None, "recipient": recipient, **fields})


async def _authorize(far: FarSide, **fields: Any) -> Authorized:
    operation = authorization(**fields)
    outcome = await _do(far, operation)
    assert isinstance(outcome, Succeeded), outcome
    return Authorized(operation, outcome.bank_id)


async def _do(far: FarSide, operation: Operation) -> Outcome:
    outcome = await converse(far.connector.perform(operation), far.transport)
    assert not isinstance(outcome, NeverSeen), "only a look-up can say that"
    return outcome


async def _finish(far: FarSide, operation: Operation) -> Outcome:
    """The outcome of an operation; where the provider tells it later, the outcome in its notice."""
    outcome = await _do(far, operation)
    if isinstance(outcome, Pending):
        for headers, body in await far.notices(outcome, 1):
            for notice in await _read(far, headers, body):
                if notice.reference == operation.reference and notice.outcome is not None:
                    return notice.outcome
    return outcome


async def _ask(far: FarSide, operation: Operation) -> Outcome | NeverSeen:
    return await converse(far.connector.look_up(operation), far.transport)


async def _list(far: FarSide, since: int, after: str | None = None) -> list[Notice]:
    """All operations since a moment, and behind `after`."""
    found: list[Notice] = []
    while True:
        page = await listen(far.connector.list_operations(since, after), far.transport)
        assert not page.unreadable, page.unreadable
        found += page.notices
        after = page.after
        if after is None:
            return found


async def _read(far: FarSide, headers: Mapping[str, str], body: bytes) -> list[Notice]:
    return await listen(far.connector.notices(headers, body), far.transport)


def _nonsense(operation: Operation) -> list[Response]:
    good = {
        "reference": operation.reference,
        "kind": "authorization",
        "status": "Accepted",
        "amount": operation.amount_minor,
        "currency": operation.currency,
        "bank_id": "b1",
    }
    bodies: list[dict[str, Any] | None] = [
        None,
        {},
        {"status": "Accepted"},
        {**good, "reference": "another"},
        {**good, "status": "Fine"},
        {**good, "status": None},
        {**good, "amount": operation.amount_minor + 1},
        {**good, "amount": "4200"},
        {**good, "currency": "usd"},
        {**good, "kind": "refund"},
    ]
    return [Response(200, body) for body in bodies] + [
        Response(status, good) for status in (201, 204, 301, 404, 418, 500, 502, 503, 504)
    ]


def _with_members(names: frozenset[str], change: Callable[[Any], Any]) -> Callable[[Response], Response]:
    """Change every member of an answer's JSON with one of these names that holds a text or a number."""

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            return {
                name: change(inner) if name in names and isinstance(inner, str | int) else walk(inner)
                for name, inner in value.items()
            }
        return [walk(inner) for inner in value] if isinstance(value, list) else value

    def bend(answer: Response) -> Response:
        return Response.read(answer.status, msgspec.json.encode(walk(answer.body)), answer.headers)

    return bend


def _more(amount: Any) -> Any:
    """A larger amount, in minor units or in decimals."""
    return amount + 100 if isinstance(amount, int) else f"1{amount}"


BENT_ANSWERS: dict[str, Callable[[Response], Response]] = {
    "a page in HTML": lambda answer: Response.read(200, b"<html>Something went wrong</html>", {}),
    "an empty list": lambda answer: Response.read(200, b"[]", {}),
    "half a JSON": lambda answer: Response.read(200, b'{"status": "succ', {}),
    "another amount": _with_members(frozenset(("amount", "amount_received", "value")), _more),
    "another currency": _with_members(
        frozenset(("currency", "currency_code")), lambda said: "CHF" if str(said).isupper() else "chf"
    ),
    "a strange status": _with_members(
        frozenset(("status", "state", "resultCode", "transaction_status")), lambda said: "Perhaps"
    ),
}
"""Answers from which nothing follows, by their description: each is made of a provider's right answer."""


class _Bends:
    """Carries requests, and changes the answer to each that moves money."""

    def __init__(self, transport: Transport, change: Callable[[Response], Response]) -> None:
        self._transport, self._change = transport, change

    async def send(self, request: Request) -> Response:
        answer = await self._transport.send(request)
        return self._change(answer) if request.moves_money else answer

    async def close(self) -> None:
        """Do nothing: the caller closes the inner transport."""


def _text_of(request: Request) -> str:
    body, _ = encode_body(request)
    return f"{request.path} {(body or b'').decode(errors='replace')} {dict(request.headers)}"


class _Recorder:
    """Carries requests and records them."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self.requests: list[Request] = []

    async def send(self, request: Request) -> Response:
        self.requests.append(request)
        return await self._transport.send(request)

    async def close(self) -> None:
        """Do nothing: the caller closes the inner transport."""


class _Says:
    """Answers every request that moves money with one answer, and never answers the rest."""

    def __init__(self, answer: Response) -> None:
        self._answer = answer

    async def send(self, request: Request) -> Response:
        if not request.moves_money:
            raise TransportError("silent", spoken=True)
        return self._answer

    async def close(self) -> None:
        """Do nothing: there is no connection to close."""
