"""The comparison of stored records with the trail: many differences, and commits that happen meanwhile."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from every_store import any_store, any_store_url

from tillway.domain.account import SYSTEM, Account
from tillway.domain.api_key import ApiKey
from tillway.domain.attempt import Attempt
from tillway.domain.audit import HIDDEN, AuditEntry, Change, redact, with_digest
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.credentials import ClientSecret, OAuthClient
from tillway.domain.customer import Customer
from tillway.domain.dashboard import IdentityLink, SignInLink
from tillway.domain.event import WebhookEndpoint
from tillway.domain.generation import GENERATION_ID, Generation
from tillway.domain.ledger import Entry, Posting
from tillway.domain.outcome import OperationKind
from tillway.domain.passkey import Passkey
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Record
from tillway.domain.refund import Refund
from tillway.domain.sign_in_proofs import SignInProofs
from tillway.domain.time_mark import MARK_ID, TimeMark
from tillway.engine.audit.baseline import BASELINE, tell_of_proofs
from tillway.engine.audit.entries import Author, build_writes, entry_write, rewrap_write
from tillway.engine.audit.records import SUSPECTS_MAX, compare
from tillway.engine.clock import Clock
from tillway.engine.restores import find_generation, set_form
from tillway.simulated_bank import StoredBank
from tillway.store.codec import decode, encode, write_of
from tillway.store.port import ABSENT, Row, Store, Write
from tillway.testing.memory_store import MemoryStore

__all__ = ("any_store", "any_store_url")

SCOPE = "0123456789abcdeft"
BY = Author("cli:ada", "tillway test")
MANY = SUSPECTS_MAX * 2 + 7


class BusyStore(MemoryStore):
    """A store in which `meanwhile` is committed once, when the trail has been read."""

    meanwhile: Callable[[], Awaitable[None]] | None = None

    async def query(self, index: str | None, partition: str, **how: Any) -> list[Row]:
        rows = await super().query(index, partition, **how)
        if partition == f"{SCOPE}/aud_" and not rows and self.meanwhile is not None:
            work, self.meanwhile = self.meanwhile, None
            await work()
        return rows


async def _store_with_account() -> tuple[BusyStore, Clock]:
    store, clock = BusyStore(), Clock()
    account = Account(id=f"acct_{SCOPE[:-1]}", created=1)
    await store.commit(build_writes(SYSTEM, BY, clock.moment(), (ABSENT, None, account)))
    return store, clock


async def test_more_differences_than_are_collected_are_all_found() -> None:
    store, _ = await _store_with_account()
    for number in range(MANY // 2):
        await store.commit([write_of(SCOPE, Customer(id=f"cus_{number:06}", created=1), ABSENT)])
    await store.commit([write_of(SCOPE, Customer(id="cus_x", created=1), ABSENT)])
    assert (await compare(store, SCOPE)).records == MANY // 2 + 1
    differences = (await compare(store, SCOPE)).differences
    assert {one.kind for one in differences} == {"inserted"} and len(differences) == MANY // 2 + 1


async def test_the_memory_of_the_simulated_bank_is_no_difference() -> None:
    """On AWS it lies in the table, and has no entries."""
    store, _ = await _store_with_account()
    for scope in (SYSTEM, SCOPE):
        assert await StoredBank(store).write_faults(scope, 0, {"seed": 0, "rules": []})
        assert (await compare(store, scope)).differences == ()


async def test_records_committed_while_it_reads_are_as_told() -> None:
    store, clock = await _store_with_account()

    async def trade() -> None:
        for number in range(MANY):
            customer = Customer(id=f"cus_{number:06}", created=1)
            await store.commit(build_writes(SCOPE, BY, clock.moment(), (ABSENT, None, customer)))
        # The last one in order is untold, and must be found behind all that are only young.
        await store.commit([write_of(SCOPE, Customer(id="cus_x", created=1), ABSENT)])

    store.meanwhile = trade
    compared = await compare(store, SCOPE)
    assert compared.records == MANY + 1
    assert [one.record for one in compared.differences] == ["cus_x"]


async def test_edits_by_hand_are_named_on_each_store(any_store: Store) -> None:
    clock = Clock()
    account = Account(id=f"acct_{SCOPE[:-1]}", created=1)
    key = ApiKey(id="key_1", created=1, account=account.id, mode="test", kind="secret", hint="sk", expires_at=None)
    entries = [
        Entry(
            id=f"txn_{number}",
            created=1,
            currency="eur",
            postings=(Posting(account="available", amount_minor=100), Posting(account="sales", amount_minor=-100)),
        )
        for number in range(4)
    ]
    payments = [
        PaymentIntent(id=f"pi_{number}", created=1, amount_minor=100, currency="eur", status="succeeded")
        for number in range(7)
    ]
    waiting = PaymentIntent(
        id="pi_7", created=1, amount_minor=100, currency="eur", capture_method="manual", attempt="att_7"
    )
    attempt = _attempt("att_7", "pi_7")
    await any_store.commit(build_writes(SYSTEM, BY, clock.moment(), (ABSENT, None, account), (ABSENT, None, key)))
    made: list[tuple[int, Record | None, Record | None]] = [
        (ABSENT, None, one) for one in (*entries, *payments, waiting, attempt)
    ]
    await any_store.commit(build_writes(SCOPE, BY, clock.moment(), *made))
    for scope in (SYSTEM, SCOPE):
        assert (await compare(any_store, scope)).differences == ()

    cheaper = msgspec.structs.replace(entries[0], currency="usd")
    cancelled = [msgspec.structs.replace(payment, status="canceled") for payment in payments[:6]]
    await any_store.commit(
        [
            write_of(SYSTEM, msgspec.structs.replace(key, id="key_2"), ABSENT),
            write_of(SCOPE, cheaper, 1),
            Write(f"{SCOPE}/txn_1", 1, None),
            *(write_of(SCOPE, payment, 1) for payment in cancelled),
            write_of(SCOPE, _attempt("att_6", "pi_6"), ABSENT),
            Write(f"{SCOPE}/att_7", 1, None),
        ]
    )
    found = {one.record: one.text for one in (await compare(any_store, SCOPE)).differences}
    assert set(found) == {"txn_0", "txn_1", *(payment.id for payment in cancelled), "pi_7", "att_6"}
    assert found["txn_0"] == "txn_0 is at version 2, and the trail ends with version 1"
    assert found["txn_1"] == "txn_1 was deleted: the trail ends with its version 1"
    assert found["att_6"] == "att_6 was put in: pi_6 has no such attempt in the trail"
    assert found["pi_7"] == "att_7 was deleted: pi_7 still waits for it"
    [key_put_in] = (await compare(any_store, SYSTEM)).differences
    assert key_put_in.text == "key_2 was put in: the trail does not tell of it"


class EditedStore(MemoryStore):
    """A store whose rows are edited by hand."""

    def edit(self, scope_key: str, record: Record) -> None:
        row = self._rows[f"{scope_key}/{record.id}"]
        body = write_of(scope_key, record, row.version).body
        assert body is not None
        self._rows[row.key] = msgspec.structs.replace(row, body=body)


async def test_an_attempt_under_way_that_was_edited_is_named() -> None:
    """A process would perform it as it stands there: pay out ten times as much."""
    store, clock = EditedStore(), Clock()
    payment = PaymentIntent(
        id="pi_1",
        created=1,
        amount_minor=100,
        currency="eur",
        capture_method="manual",
        method="pm_1",
        attempt="att_1",
        references=("a" * 18, "b" * 18),
    )
    attempt = msgspec.structs.replace(_attempt("att_1", "pi_1"), method="pm_1", reference="b" * 18)
    account = Account(id=f"acct_{SCOPE[:-1]}", created=1)
    await store.commit(build_writes(SYSTEM, BY, clock.moment(), (ABSENT, None, account)))
    await store.commit(build_writes(SCOPE, BY, clock.moment(), (ABSENT, None, payment), (ABSENT, None, attempt)))
    assert (await compare(store, SCOPE)).differences == ()
    for edit, text in (
        ({"amount_minor": 1000}, "its amount_minor is 1000, and pi_1 has 100"),
        ({"currency": "usd"}, 'its currency is "usd", and pi_1 has "eur"'),
        ({"capture": True}, "its capture is true, and pi_1 has false"),
        ({"method": "pm_2"}, 'its method is "pm_2", and pi_1 has "pm_1"'),
        ({"reference": "c" * 18}, f'its reference is "{"c" * 18}", and pi_1 has ""'),
        ({"kind": "refund"}, 'its kind is "refund", and pi_1 has "authorize"'),
    ):
        store.edit(SCOPE, msgspec.structs.replace(attempt, **edit))
        [found] = (await compare(store, SCOPE)).differences
        assert found.text == f"att_1 was edited: {text}"


@pytest.mark.parametrize("kind", ["capture", "refund"])
async def test_an_attempt_about_an_authorization_is_told_from_its_beginning(kind: OperationKind) -> None:
    """A refund that was made one of another payment would give its money to another cardholder."""
    store, clock = EditedStore(), Clock()
    payment = PaymentIntent(id="pi_1", created=1, amount_minor=100, currency="eur", capturable_minor=100)
    refund = Refund(
        id="re_1", created=1, amount_minor=100, currency="eur", charge="ch_1", payment="pi_1", connector="b"
    )
    about = {"capture": payment, "refund": refund}[kind]
    subject = msgspec.structs.replace(about, attempt="att_1")
    attempt = msgspec.structs.replace(
        _attempt("att_1", subject.id), kind=kind, connector="b", parent="att_0", parent_bank_id="b-0", due_at_ms=5
    )
    account = Account(id=f"acct_{SCOPE[:-1]}", created=1)
    await store.commit(build_writes(SYSTEM, BY, clock.moment(), (ABSENT, None, account)))
    await store.commit(build_writes(SCOPE, BY, clock.moment(), (ABSENT, None, subject), (ABSENT, None, attempt)))
    assert (await compare(store, SCOPE)).differences == ()
    # The time of the next try is no entry.
    store.edit(SCOPE, msgspec.structs.replace(attempt, due_at_ms=9, sent=1))
    assert (await compare(store, SCOPE)).differences == ()
    edits: tuple[dict[str, Any], ...] = (
        {"amount_minor": 99},
        {"captured_minor": 1},
        {"connector": "c"},
        {"final": False},
        {"held": True},
        {"kind": "void"},
        {"parent": "att_9"},
        {"parent_bank_id": "b-9"},
        {"state": "scheduled"},
    )
    for edit in edits:
        store.edit(SCOPE, msgspec.structs.replace(attempt, **edit))
        [found] = (await compare(store, SCOPE)).differences
        [name] = edit
        assert found.text.startswith(f"att_1 was edited: its {name} is "), found.text


async def test_a_record_deleted_before_it_would_be_forgotten_is_named() -> None:
    store, clock = await _store_with_account()
    now = clock.now_ms() // 1000
    key = ApiKey(id="key_1", created=1, account="acct_1", mode="test", kind="secret", hint="sk", expires_at=now - 10**6)
    link = SignInLink(id="dsl_1", created=1, operator="opr_1", expires_at=now + 3600)
    over = SignInLink(id="dsl_2", created=1, operator="opr_1", expires_at=now - 3600)
    mark = TimeMark(id=MARK_ID, created=1, mark_us=now * 1_000_000)
    made: list[Record] = [key, link, over]
    await store.commit(build_writes(SYSTEM, BY, clock.moment(), *((ABSENT, None, record) for record in made)))
    await store.commit([Write(f"{SYSTEM}/{record.id}", 1, None) for record in made])
    assert [one.record for one in (await compare(store, SYSTEM)).differences] == ["key_1"], "keys stay, and only end"
    await store.commit([write_of(SYSTEM, mark, ABSENT)])
    assert [one.record for one in (await compare(store, SYSTEM)).differences] == ["key_1", "dsl_1"]
    ahead = msgspec.structs.replace(mark, mark_us=(now + 7200) * 1_000_000)
    await store.commit([write_of(SYSTEM, ahead, 1)])
    assert [one.record for one in (await compare(store, SYSTEM)).differences] == ["key_1"], "a clock was ahead"


PASSKEY = Passkey(id="dpk_1", created=1, operator="opr_1", name="Key", credential="AAAA")
PROOFS = SignInProofs(id="dsp_1", created=1, operator="opr_1", email="ada@example.com", password="$argon2id$one")
LINK = SignInLink(id="dsl_1", created=1, operator="opr_1", expires_at=1 << 40)
IDENTITY = IdentityLink(id="dil_1", created=1, operator="opr_1", issuer="https://id.example.com")


async def _store_with_proofs(*, baseline: bool = True) -> tuple[EditedStore, Clock]:
    """A store in which an earlier version has left proofs, at their second version."""
    store, clock = EditedStore(), Clock()
    account = Account(id=f"acct_{SCOPE[:-1]}", created=1)
    await store.commit(build_writes(SYSTEM, BY, clock.moment(), (ABSENT, None, account)))
    proofs = (PASSKEY, PROOFS, LINK, IDENTITY)
    for version in (0, 1):
        await store.commit([write_of(SYSTEM, record, version) for record in proofs])
    await store.commit([write_of(SYSTEM, Generation(id=GENERATION_ID, created=1), ABSENT)])
    if baseline:
        await tell_of_proofs(store)
    return store, clock


async def _differences(store: Store) -> list[str]:
    return [one.text for one in (await compare(store, SYSTEM)).differences]


async def test_proofs_of_an_earlier_version_are_told_once() -> None:
    store, clock = await _store_with_proofs(baseline=False)
    compared = await compare(store, SYSTEM)
    assert compared.differences == () and compared.older == 4, "nothing proves them yet"
    await tell_of_proofs(store)
    await tell_of_proofs(store)
    entries = [decode(row.key.partition("/")[2], row.body) for row in await store.query(None, f"{SYSTEM}/aud_")]
    [told] = [one for one in entries if isinstance(one, AuditEntry) and one.operation == BASELINE]
    assert len(told.changes) == 4 and b"argon2id" not in encode(told)
    compared = await compare(store, SYSTEM)
    assert compared.differences == () and compared.older == 0
    changed = msgspec.structs.replace(PASSKEY, count=7)
    await store.commit(build_writes(SYSTEM, BY, clock.moment(), (2, PASSKEY, changed), (2, LINK, None)))
    assert await _differences(store) == []


@pytest.mark.parametrize("kept", [PASSKEY, PROOFS, LINK, IDENTITY], ids=lambda record: type(record).__name__)
async def test_proofs_put_in_or_edited_by_hand_are_named(kept: Record) -> None:
    store, _ = await _store_with_proofs()
    put_in = msgspec.structs.replace(kept, id=f"{kept.id}9", operator="opr_2")
    await store.commit([write_of(SYSTEM, put_in, ABSENT)])
    assert await _differences(store) == [f"{put_in.id} was put in: the trail does not tell of it"]
    # Even where the store is made to say that nothing was told yet, and a second baseline follows.
    held, version = await find_generation(store)
    assert held is not None and held.proofs_told
    await store.commit([write_of(SYSTEM, msgspec.structs.replace(held, proofs_told=False), version)])
    await tell_of_proofs(store)
    assert await _differences(store) == [f"{put_in.id} was put in: the trail does not tell of it"]


async def test_another_password_in_its_place_is_named() -> None:
    store, _ = await _store_with_proofs()
    store.edit(SYSTEM, msgspec.structs.replace(PROOFS, password="$argon2id$two"))
    assert await _differences(store) == ["dsp_1 was edited: another value stands in password"]


async def test_a_link_that_was_put_in_and_used_is_named() -> None:
    store, clock = await _store_with_proofs()
    used = msgspec.structs.replace(LINK, id="dsl_2")
    await store.commit([write_of(SYSTEM, used, ABSENT)])
    await store.commit(build_writes(SYSTEM, BY, clock.moment(), (1, used, None)))
    [told] = await _differences(store)
    assert told.startswith("dsl_2 was put in and used")


async def test_the_version_before_may_still_make_proofs() -> None:
    store, _ = await _store_with_proofs(baseline=False)
    await set_form(store, "before")
    await tell_of_proofs(store)
    held, _ = await find_generation(store)
    assert held is not None and not held.proofs_told


async def test_secret_values_edited_by_hand_are_named() -> None:
    """A connector led to another bank, a webhook signed with another secret, and a client with one more secret."""
    store, clock = EditedStore(), Clock()
    account = Account(id=f"acct_{SCOPE[:-1]}", created=1)
    secret = ClientSecret(digest="a" * 64, hint="…aaaa", created=1)
    connector = ConnectorConfig(
        id="con_1", created=1, name="b", kind="b", mode="live", settings={"base_url": "sealed:one"}
    )
    client = OAuthClient(id="oac_1", created=1, account=account.id, mode="live", scopes=(), secrets=(secret,))
    endpoint = WebhookEndpoint(
        id="we_1", created=1, url="https://shop.example", enabled_events=("*",), secret="sealed:1"
    )
    await store.commit(
        build_writes(SYSTEM, BY, clock.moment(), *((ABSENT, None, one) for one in (account, connector, client)))
    )
    await store.commit(build_writes(SCOPE, BY, clock.moment(), (ABSENT, None, endpoint)))
    renewed = msgspec.structs.replace(endpoint, secret="sealed:2")
    await store.commit(build_writes(SCOPE, BY, clock.moment(), (1, endpoint, renewed)))
    resealed = write_of(SYSTEM, msgspec.structs.replace(connector, settings={"base_url": "sealed:two"}), 1)
    await store.commit([resealed, rewrap_write(SYSTEM, BY, clock.moment(), [resealed])])
    for scope in (SYSTEM, SCOPE):
        assert (await compare(store, scope)).differences == ()

    store.edit(SYSTEM, msgspec.structs.replace(connector, settings={"base_url": "https://elsewhere.example"}))
    added = msgspec.structs.replace(secret, digest="b" * 64)
    store.edit(SYSTEM, msgspec.structs.replace(client, secrets=(secret, added)))
    store.edit(SCOPE, endpoint)
    found = [one.text for scope in (SYSTEM, SCOPE) for one in (await compare(store, scope)).differences]
    assert found == [
        "con_1 was edited: another value stands in settings",
        "oac_1 was edited: another value stands in secrets",
        "we_1 was edited: another value stands in secret",
    ]


async def test_an_entry_that_tells_no_digest_proves_that_there_is_a_secret() -> None:
    """Entries of earlier versions have `****` alone."""
    store, clock = EditedStore(), Clock()
    connector = ConnectorConfig(id="con_1", created=1, name="b", kind="b", mode="test", settings={"k": "one"})
    told = msgspec.json.encode(msgspec.structs.replace(connector, settings=HIDDEN))
    change = Change(id=connector.id, version=1, new=msgspec.Raw(told))
    entry = entry_write(SYSTEM, BY, clock.moment(), [change])
    await store.commit([write_of(SYSTEM, connector, ABSENT), entry])
    assert (await compare(store, SYSTEM)).differences == ()
    store.edit(SYSTEM, msgspec.structs.replace(connector, settings={}))
    [found] = (await compare(store, SYSTEM)).differences
    assert found.text == "con_1 was edited: its settings was taken out"


async def test_a_digest_of_a_secret_in_the_clear_still_proves_it() -> None:
    """Entries of earlier versions have a digest of settings that were not sealed. New ones have none: such a secret may
    be weak, and a guess could be compared with its digest."""
    settings = {"notice_secret": "bank"}
    connector = ConnectorConfig(id="con_1", created=1, name="b", kind="b", mode="test", settings=settings)
    digest = with_digest(settings).removeprefix(HIDDEN)
    for told in (with_digest(settings), HIDDEN):
        store, clock = EditedStore(), Clock()
        change = Change(
            id=connector.id,
            version=1,
            new=msgspec.Raw(msgspec.json.encode(msgspec.structs.replace(connector, settings=told))),
        )
        entry = entry_write(SYSTEM, BY, clock.moment(), [change])
        await store.commit([write_of(SYSTEM, connector, ABSENT), entry])
        assert (await compare(store, SYSTEM)).differences == ()
    sealed = msgspec.structs.replace(connector, settings={"notice_secret": "sealed:abc"})
    for before, after in ((connector, sealed), (sealed, connector), (None, connector), (connector, None)):
        writes = build_writes(SYSTEM, BY, Clock().moment(), (1 if before else ABSENT, before, after))
        assert digest not in (writes[-1].body or b"").decode()
    assert with_digest(sealed.settings) in encode(redact(sealed)).decode()


def _attempt(id: str, subject: str) -> Attempt:
    return Attempt(
        id=id, created=1, kind="authorize", subject=subject, amount_minor=100, currency="eur", connector="simulator"
    )
