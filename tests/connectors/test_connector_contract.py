"""Every connector keeps the contract, and the contract notices connectors that do not."""

import itertools
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from bank_peers import InProcess, behind_http

from tillway.connectors.http_bank import HttpBank, list_operations, look_up, perform, read_notice
from tillway.connectors.port import (
    Conversation,
    Declined,
    Listing,
    LookUp,
    NeverSeen,
    Notices,
    Operation,
    OperationsPage,
    Pending,
    Request,
    Response,
    Succeeded,
    TransportError,
    Unknown,
    tell,
)
from tillway.sandbox.simulator import CallTransport, Simulator
from tillway.testing.connector_contract import Check, checks_for

SIMULATOR = Simulator().capabilities
HTTP_BANK = HttpBank(
    "http://127.0.0.1:1",
    debits=SIMULATOR.debits,
    list=True,
    redirects=True,
    increments=True,
    multicapture=True,
    verifications=True,
).capabilities


def name(check: Check) -> str:
    return check.__name__


@pytest.mark.parametrize("check", checks_for(SIMULATOR), ids=name)
async def test_simulator(check: Check) -> None:
    await check(InProcess())


@pytest.mark.parametrize("check", checks_for(HTTP_BANK), ids=name)
async def test_http_bank(check: Check, tmp_path: Path) -> None:
    async with behind_http(tmp_path / "journal") as far:
        await check(far)


# Connectors with one mistake each, and the checks that must see it.


class CallsA5xxADecline(Simulator):
    def perform(self, operation: Operation) -> Conversation:
        outcome = yield from perform(operation)
        if isinstance(outcome, Unknown) and "answered 5" in outcome.reason:
            return Declined("processing_error", None)
        return outcome


class MintsAReferencePerResend(Simulator):
    numbers = itertools.count()

    def perform(self, operation: Operation) -> Conversation:
        return perform(msgspec.structs.replace(operation, reference=f"mint-{next(self.numbers)}"))


class TakesSilenceForNever(Simulator):
    def look_up(self, operation: Operation) -> LookUp:
        outcome = yield from look_up(operation)
        return NeverSeen() if isinstance(outcome, Unknown) else outcome


class BelievesEveryNotice(Simulator):
    def notices(self, headers: Mapping[str, str], body: bytes) -> Notices:
        return tell([read_notice(body)])


class CallsPendingPaid(Simulator):
    def perform(self, operation: Operation) -> Conversation:
        outcome = yield from perform(operation)
        return Succeeded(outcome.bank_id) if isinstance(outcome, Pending) else outcome


class GivesUpOn409(Simulator):
    def perform(self, operation: Operation) -> Conversation:
        conversation = perform(operation)
        answer = yield next(conversation)
        if answer.status == 409:
            return Declined("processing_error", None, alert="used")
        try:
            conversation.send(answer)
        except StopIteration as end:
            return end.value
        raise AssertionError("a conversation of two requests without a 409")


class CallsATimeoutUnsent(Simulator):
    """The mistake is in what carries it: a time-out after the request is reported as one before it."""

    def transport(self) -> CallTransport:
        return Hasty(self.bank, self.faults, self.faults_of, self._notice_faults)


class Hasty(CallTransport):
    async def send(self, request: Request) -> Response:
        try:
            return await super().send(request)
        except TransportError as error:
            raise TransportError(error.reason, spoken=False) from error


class ListsOnePageOnly(Simulator):
    def list_operations(self, since: int, after: str | None) -> Listing:
        page = yield from list_operations(since, after)
        return OperationsPage(page.notices[:3])


class EndsTheAuthorizationWithEachCapture(Simulator):
    def perform(self, operation: Operation) -> Conversation:
        return perform(msgspec.structs.replace(operation, final=True))


@pytest.mark.parametrize(
    ("broken", "caught_by"),
    [
        (CallsA5xxADecline, {"what_may_have_happened_is_unknown"}),
        (
            MintsAReferencePerResend,
            {"performs_a_reference_once", "sends_our_reference", "finds_what_was_done_although_the_answer_was_lost"},
        ),
        (TakesSilenceForNever, {"a_failed_question_answers_nothing"}),
        (BelievesEveryNotice, {"a_forged_notice_is_rejected"}),
        (CallsPendingPaid, {"says_why_a_debit_came_back", "waits_for_what_is_pending"}),
        (GivesUpOn409, {"takes_the_first_answer_when_the_resend_lacks_the_cvc"}),
        (ListsOnePageOnly, {"lists_operations_in_order"}),
        (EndsTheAuthorizationWithEachCapture, {"captures_several_times"}),
        (CallsATimeoutUnsent, {"what_may_have_happened_is_unknown"}),
    ],
)
async def test_the_contract_bites(broken: type[Simulator], caught_by: set[str]) -> None:
    failed = set()
    for check in checks_for(SIMULATOR):
        try:
            await check(InProcess(broken()))
        except AssertionError:
            failed.add(name(check))
    assert caught_by <= failed
