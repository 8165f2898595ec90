"""Moves every sealed record and every sealed text under a new key-encryption key, while the server runs.

The steps are: add a key, wait until every running server has noticed it, then pass over all sealed records and wrap the
data key of each one anew, until a whole pass finds none under another key; then the old keys are retired. The cards
themselves are not decrypted. Each step is durable by itself and harmless to repeat, so a rotation that was killed
anywhere is finished by running it again: as long as an old key is there, no further one is added.

A pass also seals secrets that were stored in the clear by a version before texts were sealed; `seal_stored` does that
alone.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.connector_config import ConnectorConfig, setting_owner
from tillway.domain.event import WebhookEndpoint
from tillway.domain.record import Record, SealedRecord
from tillway.domain.sign_in_proofs import SignInProofs
from tillway.store.codec import RecordDamaged, decode, write_of
from tillway.store.port import WRITES_MAX, CommitUnknown, Conflict, Row, Store, Unavailable, Write
from tillway.store.walk import pages_of
from tillway.vault.envelope import EnvelopeVault, sealed_text
from tillway.vault.keyring import CHECK_EVERY_SECONDS
from tillway.vault.port import KeyRefused, Keys, SealedSecret, Vault, VaultTampered

TEXT_PREFIXES = ("we_",)
"""The id prefixes of a merchant's records with a sealed text."""

PREFIXES = ("vlt_", "cvc_", *TEXT_PREFIXES)
"""The id prefixes of a merchant's records with something sealed."""

SYSTEM_PREFIXES = ("con_", "dsp_")
"""The same for the installation's own records."""

NOTICE_SECONDS = 2 * CHECK_EVERY_SECONDS
"""How long after a key is added the first pass begins. By then every server seals under the new one."""

PASSES_MAX = 10
PAGE_ROWS = WRITES_MAX - 1
"""Records moved in one commit; the last write is the audit trail's."""

TRIES_MAX = 10
_PAUSE_SECONDS = 0.02

Scopes = Callable[[], Awaitable[Sequence[str]]]
"""Every scope that there is now; asked anew for each pass, since merchants come while it runs."""


Tell = Callable[[str, Sequence[Write]], Awaitable[Sequence[Write]]]
"""Return the audit entry for a commit of these writes in that scope: one write at most."""


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """How far a pass is. `read` counts the sealed records of this pass, `moved` those that needed the new key."""

    number: int
    scope: str
    read: int
    moved: int


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """The result of a rotation. `damaged` are the keys of records that do not open: they stay as they are, for a person
    to look at."""

    key_id: str
    resumed: bool
    read: int
    moved: int
    retired: tuple[str, ...]
    damaged: tuple[str, ...]


class RotationUnfinished(Exception):
    """The store could not be written, or records kept moving. Nothing is lost: run the rotation again."""


async def rotate(
    store: Store,
    keyring: Keys,
    scopes: Scopes,
    *,
    tell: Tell,
    progress: Callable[[Progress], None] = lambda progress: None,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Rotation:
    """A new key and all records under it; or the rest of a rotation that was cut off. Raises `RotationUnfinished`."""
    resumed = bool(_old(keyring))
    if not resumed:
        await asyncio.to_thread(keyring.add_kek)
    # Also when resuming: the key may have been added a moment ago.
    await sleep(NOTICE_SECONDS)

    vault = EnvelopeVault(keyring, keyring.fingerprint_key)
    moved = 0
    for number in range(1, PASSES_MAX + 1):
        old = _old(keyring)
        places = _places(await scopes(), PREFIXES)
        passed = await _pass(store, vault, places, number, tell, progress, sleep)
        moved += passed.moved
        if passed.moved == 0:
            break
    else:
        raise RotationUnfinished(f"After {PASSES_MAX} passes records still appear under an old key. Run it again.")

    # A retired key still opens, so a record that some server commits late under it is not lost; the next rotation
    # moves it.
    for key_id in old:
        await asyncio.to_thread(keyring.retire, key_id)
    return Rotation(
        key_id=keyring.current_id(),
        resumed=resumed,
        read=passed.read,
        moved=moved,
        retired=old,
        damaged=passed.damaged,
    )


async def seal_stored(
    store: Store, vault: Vault, scopes: Scopes, *, tell: Tell, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
) -> int:
    """Seal every secret that is stored in the clear, and return how many records changed. Raises `RotationUnfinished`
    if the store cannot be written."""
    places = _places(await scopes(), TEXT_PREFIXES)
    return (await _pass(store, vault, places, 1, tell, lambda progress: None, sleep)).moved


async def forget_key(
    store: Store, keyring: Keys, key_id: str, scopes: Scopes, *, tell: Callable[[], Awaitable[None]]
) -> None:
    """Destroy a retired key, after a full pass that found no record under it. Raises `KeyRefused`.

    Backups made before the rotation can then no longer be opened. `tell` is awaited before it: the audit trail has it
    first.
    """
    for scope, prefix in _places(await scopes(), PREFIXES):
        async for rows in pages_of(store, f"{scope}/{prefix}", page=PAGE_ROWS):
            for row in rows:
                if _names_key(row, key_id):
                    raise KeyRefused(f"{row.key} is still sealed under {key_id}. Run `tillway vault rotate` first.")
    await tell()
    await asyncio.to_thread(keyring.forget, key_id)


def _places(scopes: Sequence[str], prefixes: Sequence[str]) -> list[tuple[str, str]]:
    """Where sealed things are: scopes with the prefixes of ids in them."""
    own = [(SYSTEM, prefix) for prefix in SYSTEM_PREFIXES]
    return [(scope, prefix) for scope in scopes for prefix in prefixes] + own


class _Passed(msgspec.Struct, frozen=True):
    read: int
    moved: int
    damaged: tuple[str, ...]


async def _pass(
    store: Store,
    vault: Vault,
    places: Sequence[tuple[str, str]],
    number: int,
    tell: Tell,
    progress: Callable[[Progress], None],
    sleep: Callable[[float], Awaitable[None]],
) -> _Passed:
    """Visit every sealed record once, oldest first: records that are sealed meanwhile come at the end."""
    read = moved = 0
    damaged: list[str] = []
    for scope, prefix in places:
        async for rows in pages_of(store, f"{scope}/{prefix}", page=PAGE_ROWS):
            writes = []
            for row in rows:
                try:
                    write = _rewrap(vault, row)
                except (VaultTampered, RecordDamaged, msgspec.MsgspecError):
                    damaged.append(row.key)
                    continue
                if write is not None:
                    writes.append(write)
            await _commit(store, vault, writes, tell, sleep)
            read += len(rows)
            moved += len(writes)
            progress(Progress(number=number, scope=scope, read=read, moved=moved))
    return _Passed(read, moved, tuple(damaged))


async def _commit(
    store: Store, vault: Vault, writes: Sequence[Write], tell: Tell, sleep: Callable[[float], Awaitable[None]]
) -> None:
    """All of `writes` in one commit; where that does not go, each for itself, read anew."""
    if not writes:
        return
    try:
        await store.commit([*writes, *await tell(_scope(writes[0].key), writes)])
    except (Conflict, CommitUnknown, Unavailable):
        for write in writes:
            await _commit_one(store, vault, write.key, tell, sleep)


async def _commit_one(
    store: Store, vault: Vault, key: str, tell: Tell, sleep: Callable[[float], Awaitable[None]]
) -> None:
    for tried in range(TRIES_MAX):
        row = await store.get(key)
        # Deleted meanwhile: a security code goes at the first attempt. Or moved already, by the commit with the answer
        # that was lost, or by another rotation.
        write = _rewrap(vault, row) if row is not None else None
        if write is None:
            return
        try:
            await store.commit([write, *await tell(_scope(key), [write])])
            return
        except (Conflict, CommitUnknown, Unavailable):
            await sleep(_PAUSE_SECONDS * 2**tried)
    raise RotationUnfinished(f"{key} could not be written in {TRIES_MAX} tries. Run the rotation again.")


_decode_sealed: Callable[[msgspec.Raw], SealedSecret] = msgspec.json.Decoder(SealedSecret).decode


def _rewrap(vault: Vault, row: Row) -> Write | None:
    """The write that puts this record under the current key; None where it is. Raises `VaultTampered` or
    `RecordDamaged` or `msgspec.MsgspecError` where the record is damaged.

    The lifetime of the record goes with it: without `expires_at`, a rewritten security code would stay for ever.
    """
    record = _decode(row)
    again: Record = record
    match record:
        case SealedRecord():
            sealed = _decode_sealed(record.sealed)
            rewrapped = vault.rewrap(sealed)
            if rewrapped is not sealed:
                again = msgspec.structs.replace(record, sealed=msgspec.Raw(msgspec.json.encode(rewrapped)))
        case WebhookEndpoint():
            again = reseal_endpoint(vault, _scope(row.key), record)
        case ConnectorConfig():
            again = reseal_settings(vault, record)
        case SignInProofs():
            again = reseal_proofs(vault, record)
    return write_of(_scope(row.key), again, row.version) if again != record else None


def reseal_endpoint(vault: Vault, scope: str, endpoint: WebhookEndpoint) -> WebhookEndpoint:
    """The endpoint with its secrets sealed under the current key. Raises `VaultTampered`."""
    older = tuple(
        msgspec.structs.replace(one, secret=vault.reseal_text(scope, endpoint.id, one.secret)) for one in endpoint.older
    )
    return msgspec.structs.replace(endpoint, secret=vault.reseal_text(scope, endpoint.id, endpoint.secret), older=older)


def reseal_settings(vault: Vault, config: ConnectorConfig) -> ConnectorConfig:
    """The connector with all its settings sealed under the current key. Raises `VaultTampered`."""
    sealed = {
        name: vault.reseal_text(SYSTEM, setting_owner(config.id, name), value)
        for name, value in config.settings.items()
    }
    return msgspec.structs.replace(config, settings=sealed)


def reseal_proofs(vault: Vault, proofs: SignInProofs) -> SignInProofs:
    """The proofs with the authenticator's secrets sealed under the current key. Raises `VaultTampered`."""
    totp, pending = (
        vault.reseal_text(SYSTEM, proofs.id, text) if text else "" for text in (proofs.totp, proofs.pending)
    )
    return msgspec.structs.replace(proofs, totp=totp, pending=pending)


def _scope(key: str) -> str:
    return key.partition("/")[0]


def _decode(row: Row) -> Record:
    return decode(row.key.partition("/")[2], row.body)


def _names_key(row: Row, key_id: str) -> bool:
    """Whether the record is sealed under `key_id`. One that cannot be read counts as such, to be on the safe side."""
    try:
        return key_id in _key_ids(_decode(row))
    except (VaultTampered, RecordDamaged, msgspec.MsgspecError):
        return True


def _key_ids(record: Record) -> set[str]:
    """The keys that something in the record is sealed under."""
    match record:
        case SealedRecord():
            return {_decode_sealed(record.sealed).key_id}
        case WebhookEndpoint():
            texts = [record.secret, *(one.secret for one in record.older)]
        case ConnectorConfig():
            texts = list(record.settings.values())
        case SignInProofs():
            texts = [text for text in (record.totp, record.pending) if text]
        case _:
            texts = []
    sealed = (sealed_text(record.id, text) for text in texts)
    return {text.key_id for text in sealed if text is not None}


def _old(keyring: Keys) -> tuple[str, ...]:
    return tuple(key.id for key in keyring.list_keys() if key.state == "old")
