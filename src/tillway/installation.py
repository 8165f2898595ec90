"""The store, the key file and the vault of an installation, opened as its settings say.

Commands that need no more than these import this file and not `wiring.py`, which imports the whole platform.
"""

import asyncio
from pathlib import Path
from urllib.parse import urlsplit

from tillway.engine.clock import Clock
from tillway.engine.key_binding import BINDING_PURPOSE, bind_or_compare
from tillway.settings import Settings
from tillway.store import registry as stores
from tillway.store.port import Finding, Store
from tillway.vault.envelope import EnvelopeVault
from tillway.vault.head_signer import HEADS_PURPOSE, Ed25519HeadSigner
from tillway.vault.keyring import KeyFileUnfit, Keyring
from tillway.vault.port import Keys
from tillway.vault.registry import place_of

DATABASE = "tillway.db"
KEY_FILE = "keys.json"

OWN_KEY_FILE = "Put this store's own key file in its place: its backup, or a copy from another host."
OWN_SECRET = "Name this store's own secret in the setting `keys`."
"""The remedies where the keys are those of another installation."""


async def open_store(settings: Settings, *, create: bool = False) -> Store:
    """Open the store of an installation. Raises `StoreUnfit` with the remedy."""
    if settings.store:
        return await stores.kind(settings.store).open(settings.store, create=create)
    # A server on another store does not import SQLite.
    from tillway.store.sqlite import SqliteStore

    return await SqliteStore.open(settings.data_dir / DATABASE, create=create)


async def migrate_store(settings: Settings) -> int:
    """Migrate the store to this code's schema and return its version. Raises `StoreUnfit` with the remedy."""
    if settings.store:
        return await stores.kind(settings.store).migrate(settings.store)
    from tillway.store import sqlite

    return await asyncio.to_thread(sqlite.migrate, settings.data_dir / DATABASE)


async def inspect_store(settings: Settings) -> list[Finding]:
    """Return findings about the store's durability and schema."""
    if settings.store:
        return await stores.kind(settings.store).inspect(settings.store)
    from tillway.store import sqlite

    return await asyncio.to_thread(sqlite.inspect, settings.data_dir / DATABASE)


def key_file(settings: Settings) -> Path:
    return settings.data_dir / KEY_FILE


def open_keys(settings: Settings) -> Keys:
    """Open the keys of an installation. Raises `KeyFileUnfit` with the remedy."""
    file, store = key_file(settings), urlsplit(settings.store)
    if settings.keys == "file" and store.scheme == "dynamodb" and not file.exists():
        raise KeyFileUnfit(
            f"{file} does not exist. If {store.netloc} is the table of a stage on AWS, its keys are a secret, which "
            f"the function {store.netloc}-admin makes: set TILLWAY_KEYS=secretsmanager:{store.netloc}/keys, with "
            "credentials that may read it, or add connectors by POST /ops/v1/connectors of the stage. Else make a key "
            "file with `tillway init`, or restore it from backup."
        )
    return Keyring.load(place_of(settings.keys, file))


def create_keys(settings: Settings) -> Keys:
    """Make the keys of a new installation. Raises `KeyFileUnfit` if it has keys already."""
    return Keyring.create(place_of(settings.keys, key_file(settings)))


async def open_vault(settings: Settings, store: Store) -> EnvelopeVault:
    """Open the vault of `store` for a command. Raises `KeyFileUnfit` if the keys are another installation's."""
    keys = open_keys(settings)
    await check_key_file(settings, store, keys)
    return EnvelopeVault(keys, keys.fingerprint_key)


async def check_key_file(settings: Settings, store: Store, keyring: Keys) -> None:
    """Bind the store to its key file, if it is not bound yet. Raises `KeyFileUnfit` if it is bound to another one."""
    if not await bind_or_compare(store, keyring.derive(BINDING_PURPOSE), now=Clock().now_ms() // 1000):
        raise foreign_keys(settings)


def foreign_keys(settings: Settings) -> KeyFileUnfit:
    """The error, with its remedy, for keys that are not those of this store."""
    place = place_of(settings.keys, key_file(settings))
    if settings.keys != "file":
        return KeyFileUnfit(f"{place} has the keys of another installation. {OWN_SECRET}")
    return KeyFileUnfit(f"{place} is the key file of another installation. {OWN_KEY_FILE}")


def head_signer(keyring: Keys) -> Ed25519HeadSigner:
    """Return the signer of the audit trail's heads, with the key that follows from the key file."""
    return Ed25519HeadSigner(keyring.derive(HEADS_PURPOSE))


def dashboard_url(settings: Settings) -> str:
    """The URL of the dashboard's own address; that of the server where it has none."""
    scheme = "https" if settings.tls_cert else "http"
    own = settings.dashboard_url or (f"{scheme}://{settings.dashboard_listen}" if settings.dashboard_listen else "")
    return own.rstrip("/") or public_url(settings)


def public_url(settings: Settings) -> str:
    scheme = "https" if settings.tls_cert else "http"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return (settings.public_url or f"{scheme}://{host}:{settings.port}").rstrip("/")
