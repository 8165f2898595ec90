"""`tillway doctor`: checks of an installation, with a remedy for each that fails."""

import os
import platform
import shutil
import stat
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Literal

import msgspec
import typer

from tillway.cli.installation import records, with_store
from tillway.cli.options import Options, takes
from tillway.cli.terminal import FAILED, counted, run
from tillway.settings import WITHOUT_TLS_REMEDY, Settings

if TYPE_CHECKING:
    from tillway.domain.connector_config import ConnectorConfig
    from tillway.store.port import Store
    from tillway.vault.envelope import EnvelopeVault

PYTHON_LEAST = (3, 11)
SQLITE_LEAST = (3, 51, 3)
"""Earlier versions can corrupt a database in WAL mode when two connections checkpoint at once: the WAL-reset bug,
https://sqlite.org/wal.html#walresetbug."""

DISK_BYTES_FAIL = 100 << 20
DISK_BYTES_WARN = 1 << 30
CLOCK_SKEW_SECONDS_MAX = 5
FILES_LEAST = 1024
DIFFERENCES_SHOWN = 20
RESTORE = (
    "Keep this database as it is, check the disk, and restore a backup. Find what is missing: tillway audit verify"
)
RELEASED_AT = 1_767_225_600
"""2026-01-01: a clock that shows an earlier time is wrong."""


class Finding(msgspec.Struct, frozen=True):
    """The result of one check. `fail`: payments are unsafe or impossible; `warn`: they still work."""

    check: str
    state: Literal["ok", "warn", "fail"]
    what: str
    remedy: str = ""


@takes("as_json")
def doctor(
    options: Options,
    deep: Annotated[
        bool, typer.Option("--deep", help="Also read every record and page, and add the whole ledger up.")
    ] = False,
) -> None:
    """Check durability, key file, clock, disk, versions and connectors. The exit code is 1 if a check fails."""
    settings = options.settings
    findings = list(examine(settings))
    if deep:
        findings += examine_deeply(settings)
    failed = any(finding.state == "fail" for finding in findings)
    options.show(
        {"ok": not failed, "data_dir": str(settings.data_dir.absolute()), "findings": msgspec.to_builtins(findings)},
        "\n".join(_line(finding) for finding in findings),
    )
    if failed:
        raise typer.Exit(FAILED)


def examine(settings: Settings) -> Iterator[Finding]:
    """All findings, in the order in which an operator would mend them."""
    yield from _directory(settings)
    yield from _key_file(settings)
    yield from _store(settings)
    yield from _clock(settings)
    yield from _mark(settings)
    yield from _restore(settings)
    yield from _disk(settings)
    yield from _versions()
    yield from _limits()
    yield from _tls(settings)
    yield from _mail(settings)


def examine_deeply(settings: Settings) -> Iterator[Finding]:
    """The findings of checks that read all records of a kind. A server may run meanwhile."""
    yield from _pages(settings)
    yield from _records(settings)
    yield from _balances(settings)


def _line(finding: Finding) -> str:
    line = f"{finding.state:4}  {finding.check}: {finding.what}"
    return f"{line}\n      {finding.remedy}" if finding.remedy else line


def _directory(settings: Settings) -> Iterator[Finding]:
    from tillway.data_directory import holder

    directory = settings.data_dir
    if not directory.is_dir() and settings.store and settings.keys != "file":
        remedy = f"Only `tillway serve` needs it. Run: mkdir -m 700 {directory}"
        yield Finding("directory", "warn", f"{directory} is not there; store and keys are elsewhere", remedy)
        return
    if not directory.is_dir():
        yield Finding(
            "directory", "fail", f"{directory} is not a directory", f"Run: tillway init --data-dir {directory}"
        )
        return
    status = directory.stat()
    mode = stat.S_IMODE(status.st_mode)
    if status.st_uid != os.geteuid():
        remedy = f"Run as that user. If the server runs as user {os.geteuid()}: chown -R {os.geteuid()} {directory}"
        yield Finding("directory", "fail", f"{directory} belongs to user {status.st_uid}", remedy)
    elif mode & 0o077:
        yield Finding("directory", "fail", f"{directory} has mode {mode:04o}", f"Run: chmod 700 {directory}")
    else:
        yield Finding("directory", "ok", f"{directory}, mode {mode:04o}")
    yield Finding("server", "ok", holder(directory) or "none runs on this directory")


def _key_file(settings: Settings) -> Iterator[Finding]:
    from tillway.installation import key_file, open_keys
    from tillway.vault.keyring import KeyFileUnfit
    from tillway.vault.registry import place_of

    check = _name_of_keys(settings)
    try:
        keys = open_keys(settings).list_keys()
    except KeyFileUnfit as unfit:
        what, _, remedy = str(unfit).rstrip(".").partition(". ")
        yield Finding(check, "fail", what, remedy)
        return
    old = [key.id for key in keys if key.state == "old"]
    if old:
        remedy = "Run: tillway vault rotate"
        yield Finding(check, "warn", f"a rotation was cut off; cards may remain under {old[0]}", remedy)
    else:
        mode = ", mode 0600" if settings.keys == "file" else ""
        yield Finding(check, "ok", f"{place_of(settings.keys, key_file(settings))}{mode}, {counted(len(keys), 'key')}")


def _name_of_keys(settings: Settings) -> str:
    return "key file" if settings.keys == "file" else "keys"


def _store(settings: Settings) -> Iterator[Finding]:
    from tillway.installation import inspect_store
    from tillway.store.codec import RecordDamaged
    from tillway.store.port import StoreUnfit, Unavailable

    try:
        findings = run(lambda: inspect_store(settings))
    except StoreUnfit as unfit:
        yield Finding("database", "fail", str(unfit), "Name another store, or mend the fault that the text names.")
        return
    for found in findings:
        yield Finding("database", "ok" if found.ok else "fail", found.what, found.remedy)
    if not all(found.ok for found in findings):
        return
    try:
        accounts, configs = with_store(settings, _contents)
    except (StoreUnfit, Unavailable, RecordDamaged) as unfit:
        yield Finding("database", "fail", str(unfit), "Restore a backup, or mend the fault that the text names.")
        return
    if accounts:
        yield Finding("accounts", "ok", f"{accounts}")
    else:
        remedy = f"Run: tillway init --data-dir {settings.data_dir}"
        yield Finding("accounts", "fail", "none: the installation was not finished", remedy)
    yield from _check_sealed(settings, configs)


async def _contents(store: "Store") -> "tuple[int, list[ConnectorConfig]]":
    from tillway.domain.account import Account
    from tillway.domain.connector_config import ConnectorConfig

    return len(await records(store, Account)), [config for config, _ in await records(store, ConnectorConfig)]


def _check_sealed(settings: Settings, configs: "list[ConnectorConfig]") -> Iterator[Finding]:
    """Check the records that the keys must open: the store's own binding, and the connectors."""
    from tillway.engine.key_binding import BINDING_PURPOSE, is_bound
    from tillway.installation import OWN_KEY_FILE, OWN_SECRET, open_keys
    from tillway.vault.envelope import EnvelopeVault
    from tillway.vault.keyring import KeyFileUnfit

    try:
        keys = open_keys(settings)
    except KeyFileUnfit:
        return  # The key file's own finding says so.
    if with_store(settings, lambda store: is_bound(store, keys.derive(BINDING_PURPOSE))) is False:
        if settings.keys == "file":
            yield Finding("key file", "fail", "it is the key file of another installation", OWN_KEY_FILE)
        else:
            yield Finding("keys", "fail", "they are the keys of another installation", OWN_SECRET)
        return
    yield from _connectors(EnvelopeVault(keys, keys.fingerprint_key), configs)


def _connectors(vault: "EnvelopeVault", configs: "list[ConnectorConfig]") -> Iterator[Finding]:
    import asyncio

    from tillway.connectors import registry
    from tillway.connectors.settings import SettingInvalid
    from tillway.engine.connections import open_settings
    from tillway.vault.port import VaultTampered

    for config in configs:
        name = f"{config.name} ({config.kind}, {config.mode})"
        try:
            opened = open_settings(vault, config)
            _, transport = registry.build(config.kind, opened)
            if config.mode == "live":
                registry.refuse_unencrypted(config.kind, opened)
        except VaultTampered as tampered:
            yield Finding("connector", "fail", f"{name}: {tampered}", "Put this store's own key file in its place.")
            continue
        except SettingInvalid as invalid:
            remedy = f"Run: tillway connectors add {config.name} --kind … --set … --mode {config.mode} --replace"
            yield Finding("connector", "fail", f"{name}: {invalid}", remedy)
            continue
        asyncio.run(transport.close())
        yield Finding("connector", "ok", f"{name}{', default' if config.default else ''}")
    if any(config.mode == "live" and config.default for config in configs):
        yield Finding("live mode", "ok", "has a default connector")
    else:
        remedy = "Run: tillway connectors add NAME --kind KIND --set … --mode live --default"
        yield Finding("live mode", "warn", "no connector is its default, so live payments are refused", remedy)


def _clock(settings: Settings) -> Iterator[Finding]:
    from tillway.installation import DATABASE

    remedy = "Set the clock, and keep it set with NTP (systemd-timesyncd, chrony)."
    now = time.time()
    if now < RELEASED_AT:
        yield Finding("clock", "fail", f"it shows {_date(now)}", remedy)
        return
    files = [] if settings.store else [settings.data_dir / f"{DATABASE}{suffix}" for suffix in ("", "-wal")]
    written = max((file.stat().st_mtime for file in files if file.exists()), default=0.0)
    if written > now + CLOCK_SKEW_SECONDS_MAX:
        yield Finding("clock", "fail", f"it shows {_date(now)}, and the database was written {_date(written)}", remedy)
    else:
        yield Finding("clock", "ok", _date(now))


def _mark(settings: Settings) -> Iterator[Finding]:
    """Compare the clock with the store's mark of time. A mark that lies ahead by more than the skew stops payments."""
    from tillway.domain.time_mark import ACCEPTED_SLACK_US
    from tillway.engine.ids import SKEW_SECONDS
    from tillway.engine.time_mark import read_mark
    from tillway.store.codec import RecordDamaged
    from tillway.store.port import StoreUnfit, Unavailable

    try:
        mark = with_store(settings, read_mark)
    except (StoreUnfit, Unavailable, RecordDamaged):
        return  # The store's own findings say so.
    if mark is None:
        return
    ahead = mark.mark_us / 1_000_000 - time.time()
    if ahead > SKEW_SECONDS and mark.mark_us > mark.accepted_us + ACCEPTED_SLACK_US:
        remedy = "Set the clock. Where it is right and a clock was wrong before: tillway clock accept"
        yield Finding("mark of time", "fail", f"the newest records are {ahead:.0f} s ahead of the clock", remedy)
    else:
        yield Finding("mark of time", "ok", _date(mark.mark_us / 1_000_000))


def _restore(settings: Settings) -> Iterator[Finding]:
    """Whether the store was put back from a backup, and waits until `tillway recover` has asked the providers."""
    from tillway.engine.restores import find_generation
    from tillway.store.codec import RecordDamaged
    from tillway.store.port import StoreUnfit, Unavailable

    try:
        held, _ = with_store(settings, find_generation)
    except (StoreUnfit, Unavailable, RecordDamaged):
        return  # The store's own findings say so.
    if held is not None and held.recovering:
        yield Finding("restore", "fail", held.recovering, f"Run: tillway recover --data-dir {settings.data_dir}")


def _pages(settings: Settings) -> Iterator[Finding]:
    """SQLite's own check of the file: of every page, row and index."""
    from tillway.installation import DATABASE
    from tillway.store import sqlite

    if settings.store:
        return
    faults = sqlite.check_integrity(settings.data_dir / DATABASE)
    for fault in faults[:DIFFERENCES_SHOWN]:
        yield Finding("database pages", "fail", fault, RESTORE)
    if not faults:
        yield Finding("database pages", "ok", "every page and index is whole")


def _records(settings: Settings) -> Iterator[Finding]:
    """Read every record and compare it with its checksum."""
    from tillway.operations.record_check import read_all
    from tillway.store.codec import RecordDamaged
    from tillway.store.port import StoreUnfit, Unavailable

    try:
        found = with_store(settings, read_all)
    except (StoreUnfit, Unavailable, RecordDamaged) as unfit:
        yield Finding("records", "fail", str(unfit), "Mend the database first.")
        return
    for damaged in found.damaged:
        yield Finding("records", "fail", damaged, RESTORE)
    if not found.damaged:
        without = f", {found.unchecked} of them without a checksum" if found.unchecked else ""
        yield Finding("records", "ok", f"{found.records} are as they were written{without}")


def _balances(settings: Settings) -> Iterator[Finding]:
    """Add up all entries of the ledger, and compare the sums with the balances shown and with the reports."""
    from tillway.engine.balance import StoredLedger
    from tillway.operations.balance_check import Checked, check_all
    from tillway.store.codec import RecordDamaged
    from tillway.store.port import StoreUnfit, Unavailable

    async def check(store: "Store") -> list[Checked]:
        return await check_all(await StoredLedger.open(store))

    try:
        found = with_store(settings, check)
    except (StoreUnfit, Unavailable, RecordDamaged) as unfit:
        yield Finding("balances", "fail", str(unfit), "Mend the database first.")
        return
    differences = [difference for checked in found for difference in checked.differences]
    remedy = "Take no payouts. Keep a backup of this store as it is, and find the cause with: tillway audit verify"
    for difference in differences[:DIFFERENCES_SHOWN]:
        yield Finding("balances", "fail", difference, remedy)
    if not differences:
        entries = sum(checked.entries for checked in found)
        yield Finding("balances", "ok", f"{counted(entries, 'entry')} add up to the balances shown and to the reports")


def _date(epoch_seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch_seconds))


def _disk(settings: Settings) -> Iterator[Finding]:
    if not settings.data_dir.is_dir():
        return
    free = shutil.disk_usage(settings.data_dir).free
    what = f"{free / (1 << 30):.1f} GiB free"
    remedy = "" if free >= DISK_BYTES_WARN else "Make room: without space Tillway cannot write payments and takes none."
    state: Literal["ok", "warn", "fail"] = "ok" if free >= DISK_BYTES_WARN else "warn"
    yield Finding("disk", "fail" if free < DISK_BYTES_FAIL else state, what, remedy)


def _versions() -> Iterator[Finding]:
    from importlib.metadata import version

    import apsw

    from tillway import __version__
    from tillway.connectors import registry as connectors
    from tillway.store import registry as stores

    yield Finding("tillway", "ok", __version__)
    fit = sys.version_info >= PYTHON_LEAST
    yield Finding(
        "python", "ok" if fit else "fail", platform.python_version(), "" if fit else "Use Python 3.11 or newer."
    )
    sqlite = apsw.sqlite_lib_version()
    fit = tuple(int(part) for part in sqlite.split(".")) >= SQLITE_LEAST
    remedy = "" if fit else "Run: pip install --upgrade apsw. Older ones can corrupt a database in WAL mode."
    yield Finding("sqlite", "ok" if fit else "fail", f"{sqlite} (apsw {apsw.apsw_version()})", remedy)
    yield Finding("kinds of store", "ok", f"a file, {', '.join(stores.kinds())}")
    yield Finding("kinds of connector", "ok", ", ".join(connectors.kinds()))
    for package in ("granian", "uvloop", "msgspec", "cryptography", "aiohttp"):
        yield Finding(package, "ok", version(package))


def _limits() -> Iterator[Finding]:
    import resource

    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = soft != resource.RLIM_INFINITY and soft < FILES_LEAST
    remedy = f"Each connection is an open file. Run: ulimit -n {FILES_LEAST * 16}" if few else ""
    yield Finding("open files", "warn" if few else "ok", f"at most {soft}", remedy)


def _tls(settings: Settings) -> Iterator[Finding]:
    if settings.tls_cert is None or settings.tls_key is None:
        fit = settings.encrypts_or_is_local()
        remedy = "" if fit else WITHOUT_TLS_REMEDY
        yield Finding("tls", "ok" if fit else "fail", f"none, listening on {settings.host}", remedy)
        return
    import ssl

    try:
        ssl.create_default_context(ssl.Purpose.CLIENT_AUTH).load_cert_chain(settings.tls_cert, settings.tls_key)
    except (OSError, ValueError) as error:
        remedy = "Name a PEM chain and the private key that belongs to it, both readable."
        yield Finding("tls", "fail", f"{settings.tls_cert}, {settings.tls_key}: {error}", remedy)
        return
    yield Finding("tls", "ok", str(settings.tls_cert))


def _mail(settings: Settings) -> Iterator[Finding]:
    if not settings.smtp_url:
        return
    import asyncio

    from tillway.settings import SettingsInvalid
    from tillway.wiring import mail_server

    try:
        server = mail_server(settings)
        assert server is not None, "there is a mail server in the settings"
        wrong = asyncio.run(server.greet())
    except SettingsInvalid as invalid:
        wrong = str(invalid)
    if wrong is None:
        yield Finding("mail", "ok", f"{settings.smtp_url} takes e-mail from here")
    else:
        remedy = "Correct smtp_url and smtp_password_file. E-mail to customers waits for at most a day."
        yield Finding("mail", "warn", f"{settings.smtp_url}: {wrong}", remedy)
