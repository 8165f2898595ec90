"""Rotation: killed at every step, raced by a server, and told apart from what it must not touch."""

import asyncio
import sys

import msgspec
import pytest
from interruptible_store import Interruption, Killed, MemoryStore

from tillway.domain.cards import Secret
from tillway.domain.record import SealedRecord
from tillway.store.codec import encode
from tillway.store.port import ABSENT, CommitUnknown, Conflict, Unavailable, Write
from tillway.store.sqlite import SqliteStore
from tillway.vault.envelope import EnvelopeVault
from tillway.vault.keyring import CHECK_EVERY_SECONDS, Keyring
from tillway.vault.port import (
    AccountContents,
    CardContents,
    KeyMissing,
    KeyRefused,
    SealedAccount,
    SealedCard,
    SealedCvc,
)
from tillway.vault.rotation import NOTICE_SECONDS, RotationUnfinished, forget_key, rotate

SCOPES = ("1111111111111111t", "1111111111111111l", "2222222222222222t")
NUMBER = "4242424242424242"


async def scopes():
    return SCOPES


async def told(scope, writes):
    """The audit trail is the command's to keep."""
    return ()


async def told_before():
    pass


async def no_sleep(seconds):
    assert seconds <= 30


class World:
    """A store full of sealed cards and codes, and what each must open to."""

    def __init__(self, path, cards=3) -> None:
        self.path = path
        self.store = MemoryStore()
        self.seconds = 0.0
        Keyring.create(path)
        self.server = Keyring(path, monotonic=lambda: self.seconds)
        self.vault = EnvelopeVault(self.server, self.server.fingerprint_key)
        self.expected: dict[str, tuple[object, int | None]] = {}
        for scope in SCOPES:
            for n in range(cards):
                self.seal(scope, f"{n:03}")

    def seal(self, scope, n):
        """What the server does for one payment method: a card that stays and a code that does not."""
        card = CardContents(number=Secret(NUMBER), exp_month=1, exp_year=2031, name=f"{scope} {n}")
        cvc = Secret("987")
        for id, what, sealed, expires_at in (
            (f"vlt_{n}", card, self.vault.seal(scope, f"vlt_{n}", card), None),
            (f"cvc_{n}", cvc, self.vault.seal_cvc(scope, f"cvc_{n}", cvc), 1_900_000_000),
        ):
            record = SealedRecord(
                id=id, created=1, sealed=msgspec.Raw(msgspec.json.encode(sealed)), expires_at=expires_at
            )
            self.store.apply([Write(f"{scope}/{id}", ABSENT, encode(record), expires_at=expires_at)])
            self.expected[f"{scope}/{id}"] = (what, expires_at)

    def delete(self, key):
        self.store.apply([Write(key, self.store.rows[key].version, None)])
        del self.expected[key]

    def sealed(self, key):
        record = msgspec.json.decode(self.store.rows[key].body, type=SealedRecord)
        return record, msgspec.json.decode(record.sealed, type=SealedCard | SealedCvc)

    def key_ids(self):
        return {self.sealed(key)[1].key_id for key in self.store.rows}

    async def rotate(self, **how):
        return await rotate(self.store, Keyring.load(self.path), scopes, tell=told, **{"sleep": no_sleep, **how})

    def check(self, keyring=None):
        """Every record is there, opens to what was sealed, and still ends when it should."""
        keyring = keyring or Keyring.load(self.path)
        vault = EnvelopeVault(keyring, keyring.fingerprint_key)
        assert self.store.rows.keys() == self.expected.keys()
        for key, (what, expires_at) in self.expected.items():
            scope, _, id = key.partition("/")
            record, sealed = self.sealed(key)
            opened = (
                vault.open(scope, id, sealed) if isinstance(sealed, SealedCard) else vault.open_cvc(scope, id, sealed)
            )
            assert opened == what
            assert record.expires_at == self.store.writes[key].expires_at == expires_at


async def test_bank_accounts_move_too(tmp_path):
    world = World(tmp_path / "keys.json", cards=1)
    account = AccountContents(number=Secret("DE89370400440532013000"), name="Zoë Ünal")
    sealed = world.vault.seal_account(SCOPES[0], "vlt_account", account)
    record = SealedRecord(id="vlt_account", created=1, sealed=msgspec.Raw(msgspec.json.encode(sealed)))
    key = f"{SCOPES[0]}/vlt_account"
    world.store.apply([Write(key, ABSENT, encode(record))])
    rotated = await world.rotate()
    keyring = Keyring.load(world.path)
    moved = msgspec.json.decode(
        msgspec.json.decode(world.store.rows[key].body, type=SealedRecord).sealed, type=SealedAccount
    )
    assert moved.key_id == rotated.key_id != sealed.key_id
    assert EnvelopeVault(keyring, keyring.fingerprint_key).open_account(SCOPES[0], "vlt_account", moved) == account


@pytest.fixture
def world(tmp_path):
    return World(tmp_path / "keys.json")


def states(world):
    return sorted(key.state for key in Keyring.load(world.path).list_keys())


async def test_a_rotation(world):
    before = world.server.current_id()
    seen = []
    rotation = await world.rotate(progress=seen.append)
    assert (rotation.moved, rotation.read, rotation.resumed) == (18, 18, False)
    assert rotation.retired == (before,) and rotation.damaged == ()
    assert world.key_ids() == {rotation.key_id} != {before}
    assert states(world) == ["current", "retired"]
    assert [progress.number for progress in seen] == [1] * 6 + [2] * 6
    assert (seen[-1].read, seen[-1].moved) == (18, 0)
    world.check()
    # The server, which has not looked at the file since, opens what was moved.
    world.check(world.server)


async def test_every_rotation_adds_one_key(world):
    for _ in range(3):
        rotation = await world.rotate()
        assert rotation.moved == 18
    assert states(world) == ["current", "retired", "retired", "retired"]
    world.check()


async def test_many_pages(tmp_path):
    world = World(tmp_path / "keys.json", cards=0)
    for n in range(230):
        world.seal(SCOPES[0], f"{n:03}")
    rotation = await world.rotate()
    assert rotation.moved == 460 and world.store.commits == 6
    world.check()


async def test_killed_at_every_step_and_run_again(tmp_path):
    """At each step of the store in turn. After the kill everything opens; the next run finishes and adds no key."""
    for step in range(1, 200):
        world = World(tmp_path / f"{step}.json", cards=2)
        world.store.around = Interruption(step, Killed)
        try:
            await world.rotate()
            assert step > 15, "a rotation has more steps than that"
            break
        except Killed:
            pass
        world.store.around = lambda step: None
        world.check()
        rotation = await world.rotate()
        assert rotation.resumed and world.key_ids() == {rotation.key_id}
        assert states(world) == ["current", "retired"]
        world.check()
    else:
        pytest.fail("the rotation never ended")


async def test_killed_between_the_new_key_and_the_first_pass(world):
    async def killed(seconds):
        raise Killed

    with pytest.raises(Killed):
        await world.rotate(sleep=killed)
    assert states(world) == ["current", "old"]
    world.check()
    assert (await world.rotate()).resumed
    assert states(world) == ["current", "retired"]


async def test_killed_again_and_again(world):
    """Each run gets one commit further than the one before, and dies."""
    for _ in range(50):
        world.store.around = Interruption(1, Killed, only="after commit")
        try:
            await world.rotate()
            break
        except Killed:
            world.check()
    assert states(world) == ["current", "retired"]
    world.check()


@pytest.mark.parametrize(
    ("error", "moment"),
    [
        (Conflict, "before commit"),
        (Unavailable, "before commit"),
        (CommitUnknown, "before commit"),
        (CommitUnknown, "after commit"),
    ],
)
async def test_commits_that_fail_or_of_which_nothing_is_known(world, error, moment):
    for at in range(1, 12):
        world.store.around = Interruption(at, error, only=moment)
        rotation = await world.rotate()
        assert world.key_ids() == {rotation.key_id}
        world.check()


async def test_a_store_that_stays_unavailable_ends_in_a_message(world):
    def unavailable(step):
        if "commit" in step:
            raise Unavailable

    world.store.around = unavailable
    with pytest.raises(RotationUnfinished, match="Run the rotation again"):
        await world.rotate()
    assert states(world) == ["current", "old"]
    world.store.around = lambda step: None
    world.check()
    await world.rotate()
    world.check()


async def test_a_server_that_seals_and_deletes_meanwhile(world):
    """At every step of the rotation the server seals another card and deletes a code. It looks at the key file as it
    always does, so for its first second it still seals under the old key."""
    steps = 0

    def serve(step):
        nonlocal steps
        steps += 1
        world.seconds += CHECK_EVERY_SECONDS / 4
        if steps > 60:
            return
        world.seal(SCOPES[steps % 3], f"{500 + steps:03}")
        codes = sorted(key for key in world.expected if "/cvc_" in key)
        if steps % 2:
            world.delete(codes[steps * 7 % len(codes)])

    world.store.around = serve
    rotation = await world.rotate()
    assert steps > 30
    assert world.key_ids() == {rotation.key_id}
    assert states(world) == ["current", "retired"]
    world.store.around = lambda step: None
    world.check()
    world.check(world.server)


async def test_a_code_that_goes_between_read_and_write_stays_gone(world):
    key = f"{SCOPES[0]}/cvc_001"

    def delete(step):
        if step == "before commit" and key in world.expected:
            world.delete(key)

    world.store.around = delete
    await world.rotate()
    assert key not in world.store.rows
    world.check()


async def test_servers_have_noticed_before_the_first_pass(world):
    waited = []

    async def sleep(seconds):
        waited.append(seconds)
        assert not world.store.commits

    await world.rotate(sleep=sleep)
    assert waited == [NOTICE_SECONDS] and NOTICE_SECONDS > CHECK_EVERY_SECONDS


async def test_what_a_slow_server_commits_late_is_moved_next_time(world):
    late = world.vault.seal(SCOPES[0], "vlt_900", CardContents(number=Secret(NUMBER), exp_month=1, exp_year=2031))
    await world.rotate()
    record = SealedRecord(id="vlt_900", created=1, sealed=msgspec.Raw(msgspec.json.encode(late)))
    key = f"{SCOPES[0]}/vlt_900"
    world.store.apply([Write(key, ABSENT, encode(record))])
    world.expected[key] = (CardContents(number=Secret(NUMBER), exp_month=1, exp_year=2031), None)
    world.check()
    with pytest.raises(KeyRefused, match="vlt_900"):
        await forget_key(world.store, Keyring.load(world.path), late.key_id, scopes, tell=told_before)
    rotation = await world.rotate()
    assert world.key_ids() == {rotation.key_id}
    world.check()


async def test_merchants_that_come_between_two_passes(world):
    """The scopes are asked anew for each pass."""
    asked = []

    async def growing():
        asked.append(1)
        return SCOPES[: len(asked)]

    rotation = await rotate(world.store, Keyring.load(world.path), growing, tell=told, sleep=no_sleep)
    assert rotation.moved == 18 and len(asked) == 4
    assert world.key_ids() == {rotation.key_id}


async def test_damaged_records_are_named_and_left_alone(world):
    torn, foreign = f"{SCOPES[0]}/vlt_001", f"{SCOPES[1]}/cvc_002"
    record, sealed = world.sealed(foreign)
    foreign_sealed = msgspec.structs.replace(sealed, key_id="kek_elsewhere")
    for key, body in (
        (torn, b'{"id":"vlt_001"'),
        (foreign, encode(msgspec.structs.replace(record, sealed=msgspec.Raw(msgspec.json.encode(foreign_sealed))))),
    ):
        world.store.apply([Write(key, world.store.rows[key].version, body)])
        del world.expected[key]
    rotation = await world.rotate()
    assert set(rotation.damaged) == {torn, foreign} and rotation.moved == 16
    assert world.store.rows[torn].body == b'{"id":"vlt_001"'
    assert states(world) == ["current", "retired"]
    assert (await world.rotate()).resumed is False, "a damaged record does not keep a rotation open for ever"


async def test_forgetting_a_key(world):
    old = world.server.current_id()
    keyring = Keyring.load(world.path)
    with pytest.raises(KeyRefused):
        await forget_key(world.store, keyring, old, scopes, tell=told_before)
    rotation = await world.rotate()
    await forget_key(world.store, keyring, old, scopes, tell=told_before)
    assert [key.id for key in keyring.list_keys()] == [rotation.key_id]
    world.check()
    with pytest.raises(KeyMissing):
        keyring.unwrap(old, b"", b"")


async def test_two_rotations_at_once(world):
    """Started together, each may add a key; both end well, and every record is under the newest."""
    keyrings = [Keyring(world.path, monotonic=lambda: world.seconds) for _ in range(2)]

    async def sleep(seconds):
        world.seconds += seconds
        await asyncio.sleep(0)

    world.store.yields = True
    await asyncio.gather(*(rotate(world.store, keyring, scopes, tell=told, sleep=sleep) for keyring in keyrings))
    assert world.key_ids() == {Keyring.load(world.path).current_id()}
    assert set(states(world)) == {"current", "retired"}
    world.check()


ROTATOR = """
import asyncio, sys
from pathlib import Path
from tillway.store.sqlite import SqliteStore
from tillway.vault.keyring import Keyring
from tillway.vault.rotation import rotate

async def main():
    store = await SqliteStore.open(Path(sys.argv[1]))
    keyring = Keyring.load(Path(sys.argv[2]))
    async def scopes():
        return sys.argv[3:]
    async def told(scope, writes):
        return ()
    print("rotating", flush=True)
    rotation = await rotate(store, keyring, scopes, tell=told, sleep=lambda seconds: asyncio.sleep(0.05))
    print(rotation.key_id, flush=True)

asyncio.run(main())
"""


async def test_killed_for_real_while_a_server_writes(tmp_path):
    """Processes that rotate one SQLite file are killed after a few milliseconds each, while this one, the server,
    seals and deletes. Then one may finish."""
    database, key_file = tmp_path / "tillway.db", tmp_path / "keys.json"
    Keyring.create(key_file)
    keyring = Keyring.load(key_file)
    vault = EnvelopeVault(keyring, keyring.fingerprint_key)
    store = await SqliteStore.open(database, create=True)
    scope = SCOPES[0]
    alive = set()

    async def seal(n):
        id = f"cvc_{n:05}"
        sealed = vault.seal_cvc(scope, id, Secret(f"{n:04}"))
        record = SealedRecord(
            id=id, created=1, sealed=msgspec.Raw(msgspec.json.encode(sealed)), expires_at=1_900_000_000
        )
        await store.commit([Write(f"{scope}/{id}", ABSENT, encode(record), expires_at=record.expires_at)])
        alive.add(id)

    async def delete(id):
        for _ in range(50):
            row = await store.get(f"{scope}/{id}")
            try:
                await store.commit([Write(row.key, row.version, None)])
                break
            except Conflict:
                continue
        alive.remove(id)

    async def start():
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-c", ROTATOR, str(database), str(key_file), scope), stdout=asyncio.subprocess.PIPE
        )
        assert await process.stdout.readline() == b"rotating\n"
        return process

    await asyncio.gather(*map(seal, range(1500)))
    for first, milliseconds in ((2000, 52), (3000, 58), (4000, 70)):
        rotator = await start()
        ends = asyncio.get_running_loop().time() + milliseconds / 1000
        n = first
        while asyncio.get_running_loop().time() < ends:
            await seal(n)
            if (old := f"cvc_{n * 7 % 1500:05}") in alive:
                await delete(old)
            n += 1
        if rotator.returncode is None:
            rotator.kill()
        await rotator.communicate()
    rotator = await start()
    key_id = (await rotator.communicate())[0].decode().strip()
    assert rotator.returncode == 0

    rows = await store.query(None, f"{scope}/cvc_", limit=1000, order="oldest")
    while len(more := await store.query(None, f"{scope}/cvc_", after=rows[-1].key, limit=1000, order="oldest")):
        rows += more
    await store.close()
    assert {row.key.partition("/")[2] for row in rows} == alive
    for row in rows:
        record = msgspec.json.decode(row.body, type=SealedRecord)
        sealed = msgspec.json.decode(record.sealed, type=SealedCard | SealedCvc)
        assert vault.open_cvc(scope, record.id, sealed).reveal() == f"{int(record.id[4:]):04}"
        assert record.expires_at == 1_900_000_000 and sealed.key_id == key_id
    assert [key.state for key in Keyring.load(key_file).list_keys()].count("old") == 0
