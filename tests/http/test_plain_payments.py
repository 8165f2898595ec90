"""A plain payment goes a straight way, and leaves the same rows and gives the same answers as in the general way."""

import asyncio
import copy
import random
import re
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from doses import Dose

from tillway.domain.commands import CreatePayment
from tillway.domain.event import WebhookEndpoint
from tillway.domain.record import Record
from tillway.engine.caller import Caller
from tillway.engine.clock import Clock
from tillway.engine.connections import SIMULATOR
from tillway.engine.core import Done
from tillway.engine.ids import ALPHABET
from tillway.engine.plain_payments import Generally, PlainPayments
from tillway.engine.platform import Platform
from tillway.engine.time_mark import COMMIT_SECONDS_MAX
from tillway.installation import KEY_FILE
from tillway.operations.accounts import create_account
from tillway.settings import Settings
from tillway.store.port import CommitUnknown, Conflict, NotFirst, StorageFull, Unavailable, Write
from tillway.telemetry.metrics import Metrics
from tillway.telemetry.recorder import Recorder
from tillway.testing.compared_payments import ComparedPayments
from tillway.testing.in_process import Answer, InProcessApp, Merchant, MovedClock, ReadableStore
from tillway.testing.memory_store import MemoryStore
from tillway.vault.keyring import Keyring
from tillway.wiring import assemble

PLAIN: dict[str, Any] = {"amount": 2000, "currency": "usd", "payment_method": "pm_card_visa", "confirm": True}

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "another amount": {"amount": 123_456},
    "the smallest amount": {"amount": 50},
    "too small": {"amount": 3},
    "no decimals": {"currency": "jpy", "amount": 4711},
    "three decimals": {"currency": "kwd", "amount": 1230},
    "mastercard": {"payment_method": "pm_card_mastercard"},
    "declined": {"payment_method": "pm_card_chargeDeclined"},
    "3-D Secure": {"payment_method": "pm_card_threeDSecure2Required"},
    "3-D Secure without its customer": {"payment_method": "pm_card_threeDSecure2Required", "off_session": True},
    "no redirect": {"payment_method": "pm_card_authenticationRequired", "error_on_requires_action": True},
    "disputed": {"payment_method": "pm_card_createDispute"},
    "available at once": {"payment_method": "pm_card_bypassPending"},
    "refunds fail": {"payment_method": "pm_card_refundFail"},
    "no such card": {"payment_method": "pm_card_nobody"},
    "a bank account": {"payment_method": "pm_usBankAccount", "payment_method_types[]": "us_bank_account"},
    "captured later": {"capture_method": "manual"},
    "off session": {"off_session": True},
    "3-D Secure is asked for": {"payment_method_options[card][request_three_d_secure]": "any"},
    "described": {"description": "Tea", "receipt_email": "jane@example.com", "transfer_group": "May"},
    "shipped": {"shipping[name]": "Jane Doe", "shipping[address][line1]": "Main Street 7"},
    "metadata": {"metadata[order]": "6735", "metadata[shop]": "Zürich"},
    "a descriptor": {"statement_descriptor_suffix": "TEA"},
    "kept": {"setup_future_usage": "off_session"},
    "expanded": {"expand[]": "latest_charge"},
    "a page to return to": {"return_url": "https://example.com/back"},
    "automatic methods": {
        "automatic_payment_methods[enabled]": True,
        "automatic_payment_methods[allow_redirects]": "never",
    },
    "not confirmed": {"confirm": False},
}

NAMES = re.compile(r"(?<=req_)[0-9A-Za-z]{14}|(?<=_)[0-9A-Za-z]{15}(?=[0-9A-Za-z]{2}(?![0-9A-Za-z]))")
"""What differs in the ids: a payment that turns out not to be plain has used up a moment."""

DERIVED = re.compile(
    r'(?<="~":")[0-9a-f]{8}|(?<="digest":")[^"]*|_secret_[0-9A-Za-z]+'
    r'|(?:secret=|fingerprint":"|\*{4})[0-9a-f]{32}'
)
"""What follows from the ids: checksums, digests and secrets."""


Meanwhile = Callable[[Platform, Callable[[], Awaitable[None]]], Awaitable[None]]
"""Does a commit, or not, and something else."""


class DisturbedStore(ReadableStore):
    """Lets something happen during commits of attempts: `meanwhile` has it by their numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: dict[int, Meanwhile] = {}
        self.platform: Platform | None = None
        self._number = 0

    async def commit(self, writes: Sequence[Write]) -> None:
        if any("/att_" in write.key for write in writes):
            self._number += 1
            meanwhile = self.meanwhile.pop(self._number, None)
            if meanwhile is not None:
                assert self.platform is not None
                return await meanwhile(self.platform, lambda: super(DisturbedStore, self).commit(writes))
        return await super().commit(writes)

    def disturb(self, platform: Platform, after: int, meanwhile: Meanwhile) -> None:
        """Let it happen during the next commit of an attempt but `after`."""
        self.platform = platform
        self.meanwhile = {self._number + 1 + after: meanwhile}


def _changes(change: Callable[[Platform], object]) -> Meanwhile:
    async def meanwhile(platform: Platform, commit: Callable[[], Awaitable[None]]) -> None:
        change(platform)
        await commit()

    return meanwhile


def _fails(error: Exception, *, happens: bool = False) -> Meanwhile:
    async def meanwhile(platform: Platform, commit: Callable[[], Awaitable[None]]) -> None:
        if happens:
            await commit()
        raise error

    return meanwhile


def _fails_late(error: Exception, *, happens: bool = False) -> Meanwhile:
    """The same after more than COMMIT_SECONDS_MAX: a store gives up after STORE_SECONDS_MAX."""

    async def meanwhile(platform: Platform, commit: Callable[[], Awaitable[None]]) -> None:
        clock = platform.engine.clock
        assert isinstance(clock, MovedClock)
        clock.ahead_seconds += COMMIT_SECONDS_MAX + 1
        await _fails(error, happens=happens)(platform, commit)

    return meanwhile


def _rely_on_the_bank(platform: Platform) -> None:
    """Learn that a recovery has ended, for which the bank gave no list."""
    restores = platform.engine.restores
    restores._relied_on, restores._relied_on_until = (SIMULATOR,), 2_000_000_000


def _change_the_account_later(platform: Platform) -> None:
    """Let the account settle later whenever the endpoints are read, and let them be read next."""
    engine = platform.engine
    read, accounts = engine.endpoints, engine.accounts._known

    async def endpoints(scope_key: str) -> list[WebhookEndpoint]:
        for id, (until_ns, account) in accounts.items():
            assert account is not None
            accounts[id] = until_ns, msgspec.structs.replace(account, settlement_days=9)
        return await read(scope_key)

    engine.drop_endpoints()
    setattr(engine, "endpoints", endpoints)  # noqa: B010 - a method cannot be assigned to.


MEANWHILE: dict[str, Meanwhile] = {
    "a recovery ends": _changes(_rely_on_the_bank),
    "a recovery begins": _changes(lambda platform: setattr(platform.engine.restores, "reason", "put back")),
    "the clock jumps": _changes(lambda platform: setattr(platform.engine.time, "trouble", "it jumped")),
    "the mark grows old": _changes(lambda platform: setattr(platform.engine.time, "fresh_until_ns", -1)),
    "an endpoint changes": _changes(lambda platform: platform.engine.drop_endpoints()),
    "the account changes": _changes(lambda platform: platform.engine.accounts.forget()),
    "the account changes later": _changes(_change_the_account_later),
    "a connector changes": _changes(lambda platform: platform.attempts.connections.forget()),
    "the day's task is forgotten": _changes(lambda platform: platform.attempts.foreseen.clear()),
    "the store is away": _fails(Unavailable("away")),
    "the disk is full": _fails(StorageFull("full")),
    "an unknown end, written": _fails(CommitUnknown("lost"), happens=True),
    "an unknown end, not written": _fails(CommitUnknown("lost")),
    "an unknown end, written, late": _fails_late(CommitUnknown("lost"), happens=True),
    "an unknown end, not written, late": _fails_late(CommitUnknown("lost")),
    "the disk is full, late": _fails_late(StorageFull("full")),
    "another record changes, late": _fails_late(Conflict("another")),
    "another record changes": _fails(Conflict("another")),
    "the reference is taken": _fails(NotFirst("taken")),
}


class GeneralPayments(PlainPayments):
    """Takes every payment in the general way."""

    def take(self, caller: Caller, command: CreatePayment, generally: Generally) -> Awaitable[Done[Record | None]]:
        return generally()


class StandingClock(MovedClock):
    """A clock that only the test moves, and the same ids in each installation."""

    def __init__(self) -> None:
        chance = random.Random(2)
        self.ahead_seconds = 0
        Clock.__init__(
            self,
            lambda: (1_796_000_000 + self.ahead_seconds) * 1_000_000_000,
            lambda length: "".join(chance.choices(ALPHABET, k=length)),
        )


class Twins:
    """Two installations to which the same requests are sent. One of them knows no straight way."""

    def __init__(self, straight: InProcessApp, general: InProcessApp, merchant: Merchant) -> None:
        self.straight = straight
        self.general = general
        self.merchant = merchant
        self._sent = 0
        self._made: dict[int, str] = {}

    async def ask(self, path: str, params: dict[str, Any], **headers: str) -> Answer:
        """Send a request to both, and compare all that they answer and hold. "<id>" stands for the id of what the last
        one made."""
        self._sent += 1
        headers = {"idempotency_key": f"key {self._sent}", **headers}
        answers = []
        for app in (self.straight, self.general):
            app.clock.ahead_seconds += 1
            await app.running.platform.engine.endpoints(f"{self.merchant.account.removeprefix('acct_')}t")
            made = self._made.get(id(app), "")
            named = {name: made if value == "<id>" else value for name, value in params.items()}
            answer = await app.call(self.merchant, "POST", path.replace("<id>", made), named, **headers)
            answers.append(answer)
            self._made[id(app)] = answer.json.get("id", made)
        one, other = (repr((answer.status, answer.headers, answer.body)) for answer in answers)
        assert _named(one) == _named(other)
        self.compare()
        return answers[0]

    async def listen(self, *types: str) -> None:
        """Make a webhook endpoint in one, and copy it to the other: its secret is random."""
        params = {"url": "https://example.com/hook", "enabled_events": types}
        await self.straight.ok(self.merchant, "POST", "/v1/webhook_endpoints", params)
        _copy(self.straight.store, self.general.store)
        self.general.running.platform.engine.drop_endpoints()

    def disturb(self, after: int, meanwhile: Meanwhile) -> None:
        """Let it happen in both during the next payment's first commit, or the one `after` that."""
        for app in (self.straight, self.general):
            assert isinstance(app.store, DisturbedStore)
            app.store.disturb(app.running.platform, after, meanwhile)

    def compare(self) -> None:
        one, other = _named(_held(self.straight)).splitlines(), _named(_held(self.general)).splitlines()
        assert [line for line in one if line not in other] == [line for line in other if line not in one]


def _copy(store: MemoryStore, other: MemoryStore) -> None:
    other.__dict__.update(copy.deepcopy(store.__dict__))


def _held(app: InProcessApp) -> str:
    """All that is stored, apart from the mark of time and the request log."""
    kept: dict[str, Write] = app.store._writes
    return "\n".join(repr(kept[key]) for key in sorted(kept) if "/clk_" not in key and "/rql_" not in key)


def _counted(app: InProcessApp) -> list[str]:
    """What telemetry has counted: payments, commits, exchanges with the bank."""
    recorder = app.running.platform.engine.telemetry
    assert isinstance(recorder, Recorder)
    return [line for line in recorder.metrics.exposition().splitlines() if "_total{" in line]


def _named(text: str) -> str:
    """The text with its ids numbered in their order."""
    names: dict[str, str] = {}
    return NAMES.sub(lambda found: names.setdefault(found[0], f"<{len(names)}>"), DERIVED.sub("", text))


async def _twins(tmp_path: Path) -> Twins:
    Keyring.create(tmp_path / KEY_FILE)
    apps, merchant = [], None
    for _ in range(2):
        store, clock = DisturbedStore(), StandingClock()
        app = InProcessApp(await assemble(Settings(data_dir=tmp_path), store, clock), store, clock)
        if merchant is None:
            account, keys = await create_account(store, clock)
            secret, public, live, live_public = (key.secret for key in keys)
            merchant = Merchant(account.id, secret, public, live, live_public, "")
        else:
            _copy(apps[0].store, store)
            clock.moment()  # The same ids have been made.
        apps.append(app)
    assert merchant is not None
    straight, general = apps
    general.running.platform.plain_payments = GeneralPayments(general.running.platform.attempts)
    return Twins(straight, general, merchant)


@pytest.fixture
async def twins(tmp_path: Path) -> Any:
    made = await _twins(tmp_path)
    yield made
    await made.straight.close()
    await made.general.close()


async def test_payments_of_each_kind(twins: Twins) -> None:
    before = ComparedPayments.compared
    for times in range(2):
        for kind, other in KINDS.items():
            answer = await twins.ask("/v1/payment_intents", {**PLAIN, **other})
            assert answer.status < 500, f"{kind}: {answer.body!r}"
            if times and kind in ("plain", "described", "metadata", "shipped", "mastercard"):
                assert ComparedPayments.compared >= before + 2, f"{kind} did not go the straight way"
            before = ComparedPayments.compared


async def test_payments_whose_merchant_listens(twins: Twins) -> None:
    await twins.listen("payment_intent.succeeded")
    await twins.listen("*")
    await twins.listen("refund.created")
    for _ in range(2):
        for other in KINDS.values():
            await twins.ask("/v1/payment_intents", {**PLAIN, **other})


async def test_repeats_and_other_requests_under_a_key(twins: Twins) -> None:
    first = await twins.ask("/v1/payment_intents", PLAIN, idempotency_key="again")
    again = await twins.ask("/v1/payment_intents", PLAIN, idempotency_key="again")
    assert again.body == first.body and again.headers["idempotent-replayed"] == "true"
    other = await twins.ask("/v1/payment_intents", {**PLAIN, "amount": 2100}, idempotency_key="again")
    assert other.status == 400
    for app in (twins.straight, twins.general):
        app.clock.ahead_seconds += 25 * 60 * 60
    late = await twins.ask("/v1/payment_intents", PLAIN, idempotency_key="again")
    assert late.status == 200 and late.body != first.body


async def test_what_follows_a_plain_payment(twins: Twins) -> None:
    for _ in range(3):
        await twins.ask("/v1/payment_intents", PLAIN)
        back = await twins.ask("/v1/refunds", {"payment_intent": "<id>", "amount": 500})
        assert back.status == 200
        held = await twins.ask("/v1/payment_intents", {**PLAIN, "capture_method": "manual"})
        assert held.json["status"] == "requires_capture"
        taken = await twins.ask("/v1/payment_intents/<id>/capture", {"amount_to_capture": 700})
        assert taken.json["amount_received"] == 700


@pytest.mark.parametrize("what", MEANWHILE)
@pytest.mark.parametrize("after", [0, 1])
async def test_what_happens_during_a_commit(twins: Twins, what: str, after: int) -> None:
    await twins.listen("*")
    apps = (twins.straight, twins.general)
    for app in apps:
        app.running.platform.engine.telemetry = Recorder(Metrics())
    await twins.ask("/v1/payment_intents", PLAIN)
    twins.disturb(after, MEANWHILE[what])
    answer = await twins.ask("/v1/payment_intents", PLAIN, idempotency_key="disturbed")
    for app in apps:
        await asyncio.gather(*app.running.platform.attempts._settling)
    again = await twins.ask("/v1/payment_intents", PLAIN, idempotency_key="disturbed")
    assert answer.status in (200, 503) and again.status == 200
    assert _counted(twins.straight) == _counted(twins.general)


async def test_any_mixture(tmp_path: Path, twins: Twins, dose: Dose) -> None:
    chance = random.Random(15)
    kinds = list(KINDS.values())
    for _ in range(dose(60, 300)):
        params = dict(PLAIN)
        for other in chance.choices(kinds, k=chance.randint(0, 3)):
            params |= other
        if chance.random() < 0.5:
            params["amount"] = chance.choice((1, 49, 50, 51, 99, 100, 999_999, 99_999_999, chance.randint(1, 10**8)))
        await twins.ask("/v1/payment_intents", params)
