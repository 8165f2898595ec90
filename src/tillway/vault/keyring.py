"""The key file: key-encryption keys, the fingerprint key, and a root from which other parts derive keys of their own.

The file is JSON, mode 0600, owned by the user that runs the server. It is replaced whole: a new file beside it,
flushed, renamed over it, and the directory flushed, so that a kill at any point leaves the old file or the new one.
Writers exclude each other by a lock on a file beside it; a killed writer's lock is let go by the kernel.

A key is *coming* (wraps nothing yet, and goes to the key files of other hosts first), *current* (wraps new records, one
at a time), *old* (records may remain under it), or *retired* (a full pass found none). A retired key still opens:
backups made before the rotation need it, and so does a record that a slow server committed behind the pass.
`forget` destroys it, for good.

Lose this file and every stored card is lost. Back it up apart from the database.
"""

import fcntl
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple, Protocol

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from tillway.domain.cards import Secret
from tillway.vault.port import KeyInfo, KeyMissing, KeyRefused, KeyState, VaultTampered

KEY_BYTES = 32
FILE_BYTES_MAX = 1 << 20
KEYS_MAX = 1000
CHECK_EVERY_SECONDS = 1.0
"""How often, at most, a running server looks whether the file has changed."""

Stamp = tuple[object, ...]
"""A version of the document in its place: it differs once the document was replaced."""

_NONCE_BYTES = 12
_FORMAT = 1


class KeyFileUnfit(Exception):
    """The key file cannot be used as it is. The text says the remedy, and never shows a key."""


class _Key(msgspec.Struct, frozen=True, kw_only=True):
    id: str
    state: KeyState
    created: int
    key: bytes

    def __repr__(self) -> str:
        return f"_Key({self.id}, {self.state})"


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The key file as it is written. Keys are base64."""

    format: int
    keys: tuple[_Key, ...]
    fingerprint_key: bytes
    root_key: bytes

    def __repr__(self) -> str:
        return "_File(****)"


class KeyPlace(Protocol):
    """The place of the document with the keys: a file (`KeyFile`), or a secret of a service. Its text names it."""

    check_every_seconds: float
    """How often, at most, a running server looks whether the document has changed."""

    def read(self, known: Stamp = ()) -> tuple[bytes, Stamp] | None:
        """The document and its stamp; None if that is `known`. Raises `KeyFileUnfit`."""

    def create(self, document: bytes) -> None:
        """Put the document where none is, durably. Raises `KeyFileUnfit` where there is one: writing over keys would
        destroy every card sealed under them."""

    def changing(self) -> AbstractContextManager[None]:
        """Hold off other writers, as far as the place can. Raises `KeyFileUnfit`."""

    def replace(self, document: bytes) -> None:
        """Put the document in place of the one that was read last, durably. Raises `KeyRefused` if another writer was
        faster."""


class _Held(NamedTuple):
    """The key file as it was read, with its derived keys; exchanged whole, so that no thread sees half a change."""

    file: _File
    stamp: Stamp
    current_id: str
    ciphers: dict[str, AESGCM]


class Keyring:
    """The keys of one key file, or of the same document in another place, held in memory and re-read when it is
    replaced.

    `clock` gives epoch seconds for the file's records; `monotonic` paces the checks of the file.
    """

    def __init__(
        self,
        place: Path | KeyPlace,
        *,
        clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._place: KeyPlace = KeyFile(place) if isinstance(place, Path) else place
        self._clock = clock
        self._monotonic = monotonic
        self._derived: dict[str, Secret[bytes]] = {}
        self._held = self._read()
        self._look_again_at = monotonic() + self._place.check_every_seconds

    @classmethod
    def create(cls, place: Path | KeyPlace, *, clock: Callable[[], float] = time.time) -> "Keyring":
        """A new key file with one current key, durable on return. Raises `KeyFileUnfit` where a file is already there:
        writing over a key file would destroy every card sealed under it."""
        file = _File(
            format=_FORMAT,
            keys=(_new_key(clock),),
            fingerprint_key=secrets.token_bytes(KEY_BYTES),
            root_key=secrets.token_bytes(KEY_BYTES),
        )
        there: KeyPlace = KeyFile(place) if isinstance(place, Path) else place
        there.create(_document(file))
        return cls(there, clock=clock)

    @classmethod
    def load(cls, place: Path | KeyPlace) -> "Keyring":
        """The keyring of an existing file. Raises `KeyFileUnfit` for a missing or malformed file, another owner, or a
        mode that lets anybody else in."""
        return cls(place)

    @property
    def fingerprint_key(self) -> Secret[bytes]:
        """Stays the same for the life of the installation: with another one, no card would match its older self."""
        return Secret(self._held.file.fingerprint_key)

    def derive(self, purpose: str) -> Secret[bytes]:
        """32 bytes for one purpose (`pagination_cursor`), by HKDF-SHA256 (RFC 5869) from the root key; always the same
        for the same key file. Purposes are constants of the code, so the memory of them is bounded."""
        if purpose not in self._derived:
            hkdf = HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"tillway.{purpose}".encode())
            self._derived[purpose] = Secret(hkdf.derive(self._held.file.root_key))
        return self._derived[purpose]

    def list_keys(self) -> list[KeyInfo]:
        """The key-encryption keys in the order they were made."""
        self._look_at_file()
        return [KeyInfo(key.id, key.state, key.created) for key in self._held.file.keys]

    # The methods of a `KeyWrapper`.

    def current_id(self) -> str:
        self._look_now_and_then()
        return self._held.current_id

    def wrap(self, data_key: bytes, context: bytes) -> tuple[str, bytes]:
        self._look_now_and_then()
        held = self._held
        nonce = os.urandom(_NONCE_BYTES)
        cipher = held.ciphers[held.current_id]
        return held.current_id, nonce + cipher.encrypt(nonce, data_key, _bound_to(held.current_id, context))

    def unwrap(self, key_id: str, wrapped: bytes, context: bytes) -> bytes:
        if key_id not in self._held.ciphers:
            # Another process may have added the key within the last second and sealed under it.
            self._look_at_file()
        cipher = self._held.ciphers.get(key_id)
        if cipher is None:
            raise KeyMissing(
                f"key {key_id!r} is not in {self._place}; restore the key file that has it from its backup"
            )
        try:
            return cipher.decrypt(wrapped[:_NONCE_BYTES], wrapped[_NONCE_BYTES:], _bound_to(key_id, context))
        except (InvalidTag, ValueError):
            raise VaultTampered(f"a data key under {key_id} does not open") from None

    # The methods that change the file.

    def prepare_kek(self) -> str:
        """Add the key that the next rotation makes current, so that it can be copied to other hosts before anything is
        sealed under it. Its id, or that of the one which is there already; durable on return."""
        with self._changing() as file:
            for key in file.keys:
                if key.state == "coming":
                    return key.id
            key = _with_state(self._another(file), "coming")
            self._write(msgspec.structs.replace(file, keys=(*file.keys, key)))
        return key.id

    def add_kek(self) -> str:
        """Make the prepared key the current one, or else a new one; the one before becomes old. Its id; durable on
        return."""
        with self._changing() as file:
            coming = next((key for key in file.keys if key.state == "coming"), None)
            key = _with_state(coming or self._another(file), "current")
            rest = (_with_state(k, "old") if k.state == "current" else k for k in file.keys if k.id != key.id)
            self._write(msgspec.structs.replace(file, keys=(*rest, key)))
        return key.id

    def _another(self, file: _File) -> _Key:
        if len(file.keys) >= KEYS_MAX:
            raise KeyRefused(f"The key file holds {KEYS_MAX} keys, which is the bound. Forget retired ones first.")
        return _new_key(self._clock)

    def retire(self, key_id: str) -> None:
        """Mark an old key as one under which a full pass found nothing. It still opens. Retired already: no change."""
        with self._changing() as file:
            if _state_of(file, key_id) in ("current", "coming"):
                raise KeyRefused(f"{key_id} is the current key, or will be. Rotate first, then it retires by itself.")
            keys = tuple(_with_state(k, "retired") if k.id == key_id else k for k in file.keys)
            self._write(msgspec.structs.replace(file, keys=keys))

    def forget(self, key_id: str) -> None:
        """Destroy a retired key. Records that are still sealed under it, in old backups too, never open again."""
        with self._changing() as file:
            if _state_of(file, key_id) != "retired":
                raise KeyRefused(f"{key_id} is in use. Only a retired key is forgotten; rotate first.")
            self._write(msgspec.structs.replace(file, keys=tuple(k for k in file.keys if k.id != key_id)))

    @contextmanager
    def _changing(self) -> Iterator[_File]:
        """The file as it stands in its place now, with every other writer held off."""
        with self._place.changing():
            self._held = self._read()
            yield self._held.file

    def _write(self, file: _File) -> None:
        self._place.replace(_document(file))
        self._held = self._read()

    def _read(self) -> _Held:
        found = self._place.read()
        assert found is not None, "no stamp is known"
        return _hold(self._place, *found)

    def _look_now_and_then(self) -> None:
        if self._monotonic() >= self._look_again_at:
            self._look_at_file()

    def _look_at_file(self) -> None:
        """Re-read the file if it was replaced. A file that has become unfit leaves the keys as they are: a running
        server keeps serving, and the next start names the fault."""
        self._look_again_at = self._monotonic() + self._place.check_every_seconds
        try:
            found = self._place.read(self._held.stamp)
            if found is not None:
                self._held = _hold(self._place, *found)
        except (OSError, KeyFileUnfit):
            return

    def can_be_loaded(self) -> bool:
        """Whether the key file can be read, and is that of the keys in memory or their successor. Without it, a server
        goes on with the keys that it holds, and cannot start again."""
        if self._place.check_every_seconds > CHECK_EVERY_SECONDS and self._monotonic() < self._look_again_at:
            return True  # A service that is paid for each look.
        try:
            found = self._place.read(self._held.stamp)
            self._look_again_at = self._monotonic() + self._place.check_every_seconds
            return found is None or _hold(self._place, *found).file.root_key == self._held.file.root_key
        except (OSError, KeyFileUnfit):
            return False

    def __repr__(self) -> str:
        return f"Keyring({str(self._place)!r}, keys={len(self._held.file.keys)})"


class KeyFile:
    """A file in a directory of this host."""

    check_every_seconds = CHECK_EVERY_SECONDS

    def __init__(self, path: Path) -> None:
        self._path = path

    def __str__(self) -> str:
        return str(self._path)

    def read(self, known: Stamp = ()) -> tuple[bytes, Stamp] | None:
        """The content, with the stamp of the very descriptor that was checked."""
        if known and _stamp(os.stat(self._path)) == known:
            return None
        return _read(self._path)

    def create(self, document: bytes) -> None:
        with _exclusive(self._path):
            if os.path.lexists(self._path):
                raise KeyFileUnfit(f"{self} exists and is not written over. Move it away first if it is of no use.")
            _replace(self._path, document)

    def changing(self) -> AbstractContextManager[None]:
        return _exclusive(self._path)

    def replace(self, document: bytes) -> None:
        """The caller holds the lock."""
        _replace(self._path, document)


def _bound_to(key_id: str, context: bytes) -> bytes:
    """Associated data of a wrapped data key. A key id has no colon, so the two parts cannot run into each other."""
    return key_id.encode() + b":" + context


def _new_key(clock: Callable[[], float]) -> _Key:
    # The id is random, so that two files that grew apart from one backup never use one id for two keys.
    return _Key(
        id=f"kek_{secrets.token_hex(8)}", state="current", created=int(clock()), key=secrets.token_bytes(KEY_BYTES)
    )


def _with_state(key: _Key, state: KeyState) -> _Key:
    return msgspec.structs.replace(key, state=state)


def _state_of(file: _File, key_id: str) -> KeyState:
    for key in file.keys:
        if key.id == key_id:
            return key.state
    raise KeyRefused(f"There is no key {key_id!r} in the key file.")


def _stamp(status: os.stat_result) -> Stamp:
    """The parts that change when the file is replaced."""
    return (status.st_dev, status.st_ino, status.st_mtime_ns, status.st_size)


def _read(path: Path) -> tuple[bytes, Stamp]:
    """The file, with the stamp of the very descriptor that was checked. Raises `KeyFileUnfit`."""
    try:
        # Not blocking, so that a pipe in the file's place is refused below and not waited for.
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        raise KeyFileUnfit(
            f"{path} does not exist. Put its copy back. A new installation gets one by `tillway init`."
        ) from None
    except OSError as error:
        raise KeyFileUnfit(
            f"{path} cannot be read: {error.strerror}. Run the server as the user that owns it."
        ) from None
    try:
        status = os.fstat(descriptor)
        mode = stat.S_IMODE(status.st_mode)
        if not stat.S_ISREG(status.st_mode):
            raise KeyFileUnfit(f"{path} is not a regular file.")
        if status.st_uid != os.geteuid():
            raise KeyFileUnfit(
                f"{path} belongs to user {status.st_uid}, and this process is of user {os.geteuid()}. "
                f"Run as the former. If the server runs as user {os.geteuid()}: chown {os.geteuid()} {path}"
            )
        if mode & 0o077:
            raise KeyFileUnfit(f"{path} has mode {mode:04o}, so others can read the keys. Run: chmod 600 {path}")
        if status.st_size > FILE_BYTES_MAX:
            raise KeyFileUnfit(f"{path} is larger than {FILE_BYTES_MAX} bytes: it is no key file.")
        content = os.read(descriptor, FILE_BYTES_MAX)
    finally:
        os.close(descriptor)
    return content, _stamp(status)


def _hold(place: KeyPlace, content: bytes, stamp: Stamp) -> _Held:
    file = _parse(place, content)
    return _Held(
        file=file,
        stamp=stamp,
        current_id=next(key.id for key in file.keys if key.state == "current"),
        ciphers={key.id: AESGCM(key.key) for key in file.keys},
    )


def _document(file: _File) -> bytes:
    return msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n"


def _parse(place: KeyPlace, content: bytes) -> _File:
    try:
        file = msgspec.json.decode(content, type=_File)
    except msgspec.MsgspecError:
        # Not chained: the decoder's error could quote the file's contents.
        raise KeyFileUnfit(f"{place} is damaged or no key file. Restore it from backup.") from None
    if file.format != _FORMAT:
        raise KeyFileUnfit(f"{place} has format {file.format}, this version reads {_FORMAT}. Upgrade Tillway.")
    lengths = {len(secret) for secret in (file.fingerprint_key, file.root_key, *(key.key for key in file.keys))}
    ids = {key.id for key in file.keys}
    currents = sum(key.state == "current" for key in file.keys)
    if lengths != {KEY_BYTES} or len(ids) != len(file.keys) or currents != 1:
        raise KeyFileUnfit(
            f"{place} is damaged: keys of 32 bytes, each with its own id, one of them current. Restore it."
        )
    return file


def _replace(path: Path, document: bytes) -> None:
    """Put `document` at `path`, durably, or leave everything as it was. The caller holds the lock."""
    beside = path.with_name(path.name + ".new")
    # A killed writer left this file. Only the holder of the lock comes here.
    beside.unlink(missing_ok=True)
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        # The umask may have taken bits away, never added any; this makes the mode exact.
        os.fchmod(descriptor, 0o600)
        opened.write(document)
        opened.flush()
        os.fsync(descriptor)
    os.rename(beside, path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


@contextmanager
def _exclusive(path: Path) -> Iterator[None]:
    """Hold the lock on the key file's neighbour; waits for another writer, which holds it for milliseconds."""
    try:
        descriptor = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise KeyFileUnfit(f"{path.parent} cannot be written: {error.strerror}. Make the directory first.") from None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
