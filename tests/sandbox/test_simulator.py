"""The bank in this process: what the contract suite does not ask of every connector."""

import time

import msgspec
import pytest
from bank_peers import read_at_once

from tillway.connectors.conversation import converse, listen
from tillway.connectors.port import (
    BankAccountData,
    CardData,
    Declined,
    DisputeReply,
    NeverSeen,
    NoticeRejected,
    NoticeUndecided,
    NotSent,
    Operation,
    Pending,
    PostalAddress,
    Recipient,
    Succeeded,
    Unknown,
)
from tillway.domain.account import SCOPE_KEY_LENGTH, SYSTEM
from tillway.sandbox.bank import Bank
from tillway.sandbox.cards import all_cards, data_of
from tillway.sandbox.faults import Faults
from tillway.sandbox.simulator import KnownFree, Simulator
from tillway.simulated_bank import StoredBank
from tillway.testing.memory_store import MemoryStore


def operation(reference, kind="authorize", amount_minor=4200, number="4242424242424242", **fields):
    card = CardData(number, 12, 2040, "123") if kind == "authorize" else None
    return Operation(reference=reference, kind=kind, amount_minor=amount_minor, currency="eur", card=card, **fields)


async def do(simulator, asked):
    return await converse(simulator.perform(asked), simulator.transport())


async def test_a_bank_can_outlive_its_connector():
    first = Simulator()
    await do(first, operation("a"))
    second = Simulator(bank=first.bank)
    assert isinstance(await converse(second.look_up(operation("a")), second.transport()), Succeeded)
    another = Simulator()
    assert await converse(another.look_up(operation("a")), another.transport()) == NeverSeen()


async def test_that_a_payout_has_settled_is_not_that_it_came_back():
    """It was asked about before the notice that it has settled came; that it comes back is told by the next one."""
    simulator = Simulator()
    to = Recipient("bank_account", "110000000/000999999991")
    simulator.faults.replace({"rules": [{"fault": "pend", "operation": "payout"}]})
    payout = operation("a", "payout", 24, recipient=to)
    pending = await do(simulator, payout)
    assert isinstance(pending, Pending) and [body["status"] for _, body in pending.notices] == ["Accepted"]
    asked = await converse(simulator.look_up(payout), simulator.transport())
    assert isinstance(asked, Succeeded) and [body["status"] for _, body in asked.notices] == ["Declined"]

    def status_after(notices):
        simulator.notices({}, msgspec.json.encode(notices[0][1]))
        return simulator.bank.find("a").status

    assert status_after(pending.notices) == "Accepted"
    assert status_after(asked.notices) == "Declined"


async def test_test_mode_only():
    with pytest.raises(AssertionError):
        await do(Simulator(), operation("a", livemode=True))


async def test_faults_are_set_at_run_time():
    simulator = Simulator()
    transport = simulator.transport()
    simulator.faults.replace({"rules": [{"fault": "refuse", "times": 1}]})
    assert isinstance(await converse(simulator.perform(operation("a")), transport), NotSent)
    simulator.faults.replace({"rules": [{"fault": "slow", "ms": 30}, {"fault": "lose_answer"}]})
    began = time.monotonic()
    assert isinstance(await converse(simulator.perform(operation("a")), transport), Unknown)
    assert time.monotonic() - began >= 0.03
    simulator.faults.replace({})
    assert isinstance(await converse(simulator.look_up(operation("a")), transport), Succeeded)


async def test_what_is_pending_settles_by_notice():
    simulator = Simulator()
    outcome = await do(simulator, operation("a", amount_minor=24, by_amount=True))
    assert isinstance(outcome, Pending)
    [(after_ms, body)] = outcome.notices
    assert (after_ms, body["status"]) == (3000, "Accepted")
    assert simulator.bank.find("a").status == "Pending", "a promise is not its keeping"
    [notice] = read_at_once(simulator.notices({}, msgspec.json.encode(body)))
    assert isinstance(notice.outcome, Succeeded) and notice.reference == "a"
    assert simulator.bank.find("a").status == "Accepted"


async def test_a_debit_that_settles_by_notice_is_disputed_after_that():
    simulator = Simulator()
    account = BankAccountData("us_bank_account", "000555555559", "110000000")
    asked = msgspec.structs.replace(operation("a"), card=None, account=account, currency="usd")
    outcome = await do(simulator, asked)
    assert isinstance(outcome, Pending)
    [(_, settles)] = outcome.notices
    [notice] = read_at_once(simulator.notices({}, msgspec.json.encode(settles)))
    assert isinstance(notice.outcome, Succeeded)
    [(_, dispute)] = notice.outcome.notices
    [told] = read_at_once(simulator.notices({}, msgspec.json.encode(dispute)))
    assert (told.kind, told.reference, told.reason) == ("dispute", "a", "debit_not_authorized")


async def test_a_debit_that_never_settles_announces_nothing():
    simulator = Simulator()
    account = BankAccountData("us_bank_account", "000000000009", "110000000")
    asked = msgspec.structs.replace(operation("a"), card=None, account=account, currency="usd")
    assert await do(simulator, asked) == Pending("bank-a")
    assert await converse(simulator.look_up(asked), simulator.transport()) == Pending("bank-a")
    assert "000000000009" not in f"{asked!r} {account!r}"


@pytest.fixture
def functions():
    """Three processes that have the simulated bank in one store."""
    store = MemoryStore()
    made = [Simulator() for _ in range(3)]
    for simulator in made:
        simulator.memory = StoredBank(store)
    return made


SHOP = "0123456789abcdeft"
"""The scope key that references of a merchant's operations begin with."""


async def heard(simulator, body):
    return await listen(simulator.notices({}, msgspec.json.encode(body)), simulator.transport())


async def status_at(simulator, asked):
    """The outcome as the bank has it, without a question that would settle it."""
    found = await simulator.transport().find(asked.reference)
    return found.status if found is not None else None


async def test_a_notice_that_another_process_hears_settles_for_all(functions):
    first, second, third = functions
    asked = operation(f"{SHOP}a", amount_minor=24, by_amount=True)
    outcome = await do(first, asked)
    assert isinstance(outcome, Pending)
    [(_, settles)] = outcome.notices
    [notice] = await heard(second, settles)
    assert isinstance(notice.outcome, Succeeded)
    assert [await status_at(each, asked) for each in (first, third)] == ["Accepted", "Accepted"]


async def test_a_refund_that_comes_back_elsewhere_is_given_again(functions):
    first, second, third = functions
    await do(first, operation(f"{SHOP}a", number="4000000000005126", capture=True))
    refund = operation(f"{SHOP}b", "refund", parent=f"{SHOP}a")
    outcome = await do(second, refund)
    [(_, returned)] = outcome.notices
    await heard(third, returned)
    assert await status_at(first, refund) == "Declined"
    again = operation(f"{SHOP}c", "refund", parent=f"{SHOP}a")
    assert isinstance(await do(first, again), Succeeded), "the money is the merchant's again"


async def test_a_dispute_of_one_process_is_answered_in_another(functions):
    first, second, third = functions
    await do(first, operation(f"{SHOP}a", capture=True))
    report = {"parent": f"{SHOP}a", "reference": f"told-1-{SHOP}a", "status": "Opened"}
    told = await second.tell_dispute(report)
    # The bank knows the payment that another process has taken, so its sum need not be told.
    assert (told.status, told.body["amount"], told.body["status"]) == (200, 4200, "Opened")
    accepted = DisputeReply(reference=f"told-1-{SHOP}a", stage="chargeback", kind="accept")
    outcome = await converse(third.answer_dispute(accepted), third.transport())
    [(_, lost)] = outcome.notices
    assert lost["status"] == "Accepted"
    [notice] = await heard(first, lost)
    assert (notice.kind, notice.reference) == ("dispute", f"{SHOP}a")
    assert (await second.transport().find(f"told-1-{SHOP}a")).verdict == "Accepted"
    won = await second.tell_dispute({"reference": f"told-1-{SHOP}a", "status": "Won"})
    assert (won.status, (await first.transport().find(f"told-1-{SHOP}a")).told) == (200, 3)


async def test_a_merchants_faults_hold_for_answers_to_its_disputes_everywhere(functions):
    first, second, _ = functions
    await do(first, operation(f"{SHOP}a", capture=True))
    await first.tell_dispute({"parent": f"{SHOP}a", "reference": f"told-1-{SHOP}a"})
    await first.set_faults(SHOP, {"rules": [{"fault": "refuse", "operation": "dispute"}]})
    accepted = DisputeReply(reference=f"told-1-{SHOP}a", stage="chargeback", kind="accept")
    assert isinstance(await converse(second.answer_dispute(accepted), second.transport()), NotSent)


async def test_a_notice_is_undecided_where_the_store_takes_no_writes(functions):
    first, second, _ = functions
    outcome = await do(first, operation(f"{SHOP}a", amount_minor=24, by_amount=True))

    class Busy(StoredBank):
        async def write(self, operations):
            return False

    second.memory = Busy(second.memory._store)
    with pytest.raises(NoticeUndecided):
        await heard(second, outcome.notices[0][1])


@pytest.fixture
def workers():
    """Two processes of one server, which keep the payments of which nobody asks to themselves."""
    store = MemoryStore()
    made = [Simulator() for _ in range(2)]
    for simulator in made:
        simulator.memory, simulator.free = StoredBank(store), KnownFree()
        simulator.on_faults = lambda: [each.free.drop() for each in made]
    return made


async def at_once(simulator, asked):
    """What is performed without a conversation, after one that has found no faults."""
    await do(simulator, operation(f"{SHOP}{asked.reference[-1]}before"))
    return simulator.transport().at_once(asked)


async def test_workers_perform_ordinary_payments_at_once_and_keep_them_to_themselves(workers):
    first, second = workers
    asked = operation(f"{SHOP}a", capture=True)
    assert first.transport().at_once(asked) is None, "it does not know yet that there are no faults"
    assert isinstance(await at_once(first, asked), Succeeded)
    assert await status_at(second, asked) is None
    refund = operation(f"{SHOP}b", "refund", parent=f"{SHOP}a")
    assert isinstance(await do(second, refund), Succeeded)
    assert await status_at(first, refund) == "Accepted"


@pytest.mark.parametrize(
    "asked",
    [
        operation(f"{SHOP}a", amount_minor=24, by_amount=True),
        operation(f"{SHOP}a", number="4000000000005126", capture=True),
        operation(f"{SHOP}a", number="4000000000000259"),
    ],
    ids=["pending", "its refund comes back", "disputed once it is captured"],
)
async def test_workers_share_a_payment_that_something_follows(workers, asked):
    first, second = workers
    assert await at_once(first, asked) is None
    await do(first, asked)
    assert await status_at(second, asked) is not None


async def test_faults_that_one_worker_was_told_count_at_the_other_at_once_and_together(workers):
    first, second = workers
    assert isinstance(await at_once(second, operation(f"{SHOP}a")), Succeeded)
    await first.set_faults(SHOP, {"rules": [{"fault": "decline", "times": 3}]})
    assert second.transport().at_once(operation(f"{SHOP}b")) is None
    outcomes = [await do(workers[n % 2], operation(f"{SHOP}{n}")) for n in range(5)]
    assert [type(outcome) for outcome in outcomes] == [Declined] * 3 + [Succeeded] * 2


async def test_a_read_that_began_before_faults_were_set_teaches_nothing():
    free = KnownFree()
    drops = free.drops
    free.drop()
    free.learn(SHOP, drops)
    assert not free.has(SHOP)
    free.learn(SHOP, free.drops)
    assert free.has(SHOP)


async def test_ordinary_payments_announce_nothing():
    assert (await do(Simulator(), operation("a"))).notices == ()


async def told(simulator, outcome):
    """Deliver what was foretold, as the engine's tasks do: through JSON, from inside."""
    bodies = [msgspec.json.encode(body) for _, body in outcome.notices]
    return [notice for body in bodies for notice in read_at_once(simulator.notices({}, body))]


async def test_disputes_are_foretold_also_by_a_look_up():
    simulator = Simulator()
    done = await do(simulator, operation("a", number="4000000000001976"))
    found = await converse(simulator.look_up(operation("a")), simulator.transport())
    assert done.notices == found.notices
    [notice] = await told(simulator, done)
    assert (notice.kind, notice.reference, notice.stage, notice.amount_minor) == ("dispute", "a", "inquiry", 4200)
    assert simulator.bank.totals()["eur"]["inquiry"] == {"count": 1, "amount": 4200}
    assert await told(simulator, found) == [notice]
    assert simulator.bank.totals()["eur"]["inquiry"]["count"] == 1


async def test_a_refund_that_comes_back():
    simulator = Simulator()
    await do(simulator, operation("a", number="4000000000005126"))
    refunded = await do(simulator, operation("r", "refund", parent="a"))
    assert isinstance(refunded, Succeeded)
    [notice] = await told(simulator, refunded)
    assert notice.reference == "r"
    assert isinstance(notice.outcome, Declined) and notice.outcome.decline_code == "expired_or_canceled_card"
    assert "refund" not in simulator.bank.totals()["eur"]
    found = await converse(simulator.look_up(operation("r", "refund", parent="a")), simulator.transport())
    assert isinstance(found, Declined)


async def test_a_notice_of_another_life_is_still_a_notice():
    simulator = Simulator()
    done = await do(simulator, operation("a", number="4000000000000259"))
    [notice] = await told(Simulator(), done)
    assert notice.reference == "a"


async def test_nobody_outside_speaks_for_it():
    simulator = Simulator()
    done = await do(simulator, operation("a", number="4000000000000259"))
    with pytest.raises(NoticeRejected):
        simulator.notices({"host": "127.0.0.1"}, msgspec.json.encode(done.notices[0][1]))


@pytest.mark.parametrize(
    ("fault", "delays"),
    [
        ("duplicate_notice", [0, 0]),
        ("late_notice", [700]),
        ("early_notice", [0, 0]),
        ("stale_notice", [0, 5000]),
        ("lose_notice", []),
    ],
)
async def test_bent_notices(fault, delays):
    simulator = Simulator(faults=Faults({"rules": [{"fault": fault, "ms": 700}]}))
    done = await do(simulator, operation("a", number="4000000000000259"))
    assert [delay for delay, _ in done.notices] == delays
    await told(simulator, done)


async def test_pending_refund():
    simulator = Simulator()
    await do(simulator, operation("a", number="4000000000007726"))
    refund = operation("r", "refund", parent="a")
    assert isinstance(await do(simulator, refund), Pending)
    assert isinstance(await converse(simulator.look_up(refund), simulator.transport()), Succeeded)


async def test_an_authorization_is_cheap():
    """It is on the way of every test payment; a benchmark would see tens of microseconds. The bound is loose."""
    simulator = Simulator()
    transport = simulator.transport()
    asked = [operation(f"a{number}") for number in range(3000)]
    best = 1.0
    for part in range(0, 3000, 300):
        began = time.process_time()
        for each in asked[part : part + 300]:
            await converse(simulator.perform(each), transport)
        best = min(best, (time.process_time() - began) / 300)
    assert best < 60e-6


@pytest.mark.parametrize("card", all_cards(), ids=lambda card: card.number)
@pytest.mark.parametrize("capture", [True, False])
async def test_a_card_payment_at_once_is_that_of_a_conversation(card, capture):
    asked = operation("acct_1.t/1", number=card.number, capture=capture, email="a@example.com")
    spoken, silent = (Simulator(bank=Bank(key=b"one", now=lambda: 1.0)) for _ in range(2))
    outcome = silent.transport().at_once(asked)
    assert outcome is not None and outcome == await do(spoken, asked)
    assert silent.bank.find(asked.reference) == spoken.bank.find(asked.reference)
    assert silent.transport().at_once(asked) is None, "a repeat is compared with the first request"
    assert await do(silent, asked) == outcome


def of_alias(reference, alias="pm_card_visa", **fields):
    card = data_of(alias, 12, 2040)
    return msgspec.structs.replace(operation(reference, **fields), card=card)


@pytest.mark.parametrize("alias", [alias for card in all_cards() for alias in card.aliases[:1]])
@pytest.mark.parametrize("details", [{}, {"email": "a@example.com", "return_url": "https://example.com"}], ids=len)
async def test_a_public_card_at_once_is_that_of_a_conversation(alias, details):
    asked, other = (of_alias("acct_1.t/1", alias, amount_minor=amount, **details) for amount in (4200, 4201))
    spoken, silent = (Simulator(bank=Bank(key=b"one", now=lambda: 1.5)) for _ in range(2))
    outcome = silent.transport().at_once(asked)
    assert outcome is not None and outcome == await do(spoken, asked)
    assert list(silent.bank.operations()) == list(spoken.bank.operations())
    fresh = Simulator(bank=Bank(key=b"one", now=lambda: 1.5))
    assert fresh.transport().at_once(asked) == outcome
    assert fresh.transport().at_once(asked) is None, "a repeat is compared with the first request"
    assert await do(fresh, asked) == outcome
    assert isinstance(await do(fresh, other), Declined), "the reference was used with other contents"


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"capture": False},
        {"off_session": True},
        {"network_transaction_id": "123456789012345"},
        {"email": "a@example.com"},
        {"statement_descriptor": "SHOP"},
        {"return_url": "https://example.com"},
        {"billing_address": PostalAddress(line1="1 Main St", postal_code="12345")},
        {"amount_minor": 2, "by_amount": True},
    ],
    ids=lambda fields: ",".join(fields) or "nothing",
)
async def test_nothing_that_a_payment_of_a_public_card_says_is_lost(fields):
    """The bank keeps a short form of most, and a repeat that differs in anything is another operation."""
    for first in ({}, fields):
        spoken, silent = (Simulator(bank=Bank(key=b"one", now=lambda: 1.0)) for _ in range(2))
        said = await do(spoken, of_alias("a", **first))
        assert silent.transport().at_once(of_alias("a", **first)) == said
        for second in ({}, fields):
            assert await do(silent, of_alias("a", **second)) == await do(spoken, of_alias("a", **second))
        assert silent.bank.find("a") == spoken.bank.find("a")


async def test_what_follows_a_payment_of_a_public_card_finds_it():
    simulator = Simulator(bank=Bank(now=lambda: 7.9))
    assert isinstance(simulator.transport().at_once(of_alias("a", capture=False)), Succeeded)
    assert isinstance(await do(simulator, operation("b", "capture", 4201, parent="a")), Declined)
    assert isinstance(await do(simulator, operation("c", "capture", parent="a")), Succeeded)
    assert isinstance(await do(simulator, operation("d", "refund", 4201, parent="a")), Declined)
    assert isinstance(await do(simulator, operation("e", "refund", parent="a")), Succeeded)
    assert isinstance(await do(simulator, operation("f", "refund", 1, parent="a")), Declined)


def test_payments_of_public_cards_are_forgotten_like_others():
    simulator = Simulator(bank=Bank(operations_max=3, now=lambda: 7.9))
    for reference in ("a", "b", "c", "d"):
        assert isinstance(simulator.transport().at_once(of_alias(reference)), Succeeded)
    assert [(kept.reference, kept.at) for kept in simulator.bank.operations()] == [("b", 7), ("c", 7), ("d", 7)]


def test_only_the_card_of_an_alias_is_kept_for_a_repeat():
    """One that a customer typed may be anything, also in test mode."""
    assert Bank().accept(operation("a")) is None
    assert "4242" not in repr(data_of("pm_card_visa", 12, 2040))


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        (operation("a", "capture", parent="b"), "another operation"),
        (operation("a", account=BankAccountData("us_bank_account", "000123456789")), "a bank account"),
    ],
)
def test_other_operations_have_a_conversation(asked, why):
    if asked.account is not None:
        asked = msgspec.structs.replace(asked, card=None)
    assert Simulator().transport().at_once(asked) is None, why


async def test_an_operation_that_faults_may_disturb_has_a_conversation():
    scope_key = "x" * SCOPE_KEY_LENGTH
    simulator = Simulator()
    await simulator.set_faults(scope_key, {"rules": [{"fault": "lose_answer", "times": 1}]})
    transport = simulator.transport()
    assert transport.at_once(operation(f"{scope_key}1")) is None
    assert isinstance(await do(simulator, operation(f"{scope_key}1")), Unknown)
    assert transport.at_once(operation("another merchant's")) is not None
    await simulator.set_faults(SYSTEM, {"rules": [{"fault": "refuse"}]})
    assert transport.at_once(operation("another merchant's 2")) is None
