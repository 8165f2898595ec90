"""`tillway backup`, `tillway restore` and `tillway migrate`: the database as a file."""

from contextlib import nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tillway.cli.installation import author, build_writes, moment_above, with_store
from tillway.cli.options import Options, takes
from tillway.cli.terminal import Document, WrongUsage, counted, run, say
from tillway.settings import Settings

if TYPE_CHECKING:
    from tillway.store.backup import Manifest
    from tillway.store.port import Store

Directory = Annotated[Path, typer.Argument(help="The directory of the backup.", show_default=False)]


@takes("as_json")
def backup(
    options: Options,
    directory: Directory,
    verify: Annotated[bool, typer.Option("--verify", help="Check an existing backup; make none.")] = False,
    with_keys: Annotated[
        bool, typer.Option("--with-keys", help="Copy the key file too: the backup then opens its own cards.")
    ] = False,
) -> None:
    """Copy the database and the settings into a new directory, while the server runs; the key file only if asked."""
    from tillway.installation import DATABASE, key_file
    from tillway.settings import FILE_NAME
    from tillway.store import backup as backups

    if verify:
        manifest = backups.verify(directory)
        options.show(
            _manifest_document(manifest, directory),
            f"{directory} is whole, made {manifest.made_at}",
        )
        return
    settings = options.settings
    _refuse_without_file(settings)
    if with_keys:
        _check_key_file(settings)
    database = settings.data_dir / DATABASE
    beside = [settings.data_dir / FILE_NAME, *([key_file(settings)] if with_keys else [])]
    extra = [path for path in beside if path.exists()]
    if database.exists():
        # The audit entry comes first: the trail knows every copy of the keys, and the copy holds its own entry.
        _tell(settings, "backup", {"directory": str(directory.absolute()), "keys": with_keys})
    manifest = backups.backup(database, directory, extra=extra)
    if with_keys:
        say("The backup holds the key file beside the cards that it opens: guard it like the data directory.")
    else:
        say(
            f"The key file is not in the backup. Keep a copy of {key_file(settings)} elsewhere: without it no stored "
            "card can be opened."
        )
    size = sum(file.bytes for file in manifest.files)
    options.show(_manifest_document(manifest, directory), f"{directory}: {counted(size, 'byte')}, checked")


@takes("as_json")
def restore(
    options: Options,
    directory: Directory,
    replace: Annotated[
        bool, typer.Option("--replace", help="Rename existing files to NAME.before-restore-TIME.")
    ] = False,
) -> None:
    """Check a backup and put it into a data directory that no server uses."""
    from tillway.data_directory import make_private, occupied
    from tillway.installation import key_file
    from tillway.store import backup as backups

    settings = options.settings
    _refuse_without_file(settings)
    backups.verify(directory)
    make_private(settings.data_dir)
    with occupied(settings.data_dir, "tillway restore"):
        manifest = backups.restore(directory, settings.data_dir, existing="replace" if replace else "refuse")
        _begin_recovery(settings, manifest)
    if not key_file(settings).exists():
        say(f"The backup has no key file. Put the one of its time at {key_file(settings)} before you start the server.")
    shown = _manifest_document(manifest, settings.data_dir)
    say("Payouts, and requests that move money under an Idempotency-Key, wait until you run `tillway recover`.")
    options.show(shown, f"{settings.data_dir} is as it was at {manifest.made_at}")


@takes("as_json")
def migrate(options: Options) -> None:
    """Migrate the store to this version's schema. Make a backup first; with an embedded database, stop the server."""
    from tillway.cli.accounts import tell_amounts
    from tillway.data_directory import occupied
    from tillway.engine.restores import set_form
    from tillway.installation import migrate_store

    settings = options.settings
    # Other stores are migrated while processes of the previous version keep working.
    with nullcontext() if settings.store else occupied(settings.data_dir, "tillway migrate"):
        version = run(lambda: migrate_store(settings))
        _tell(settings, "migrate", {"schema_version": version})
        # Until then, records are written so that processes of the previous version find them.
        with_store(settings, lambda store: set_form(store, "before" if settings.store else "now"))
        _seal(settings)
        tell_amounts(settings, "migrate", move=not settings.store)
    options.show({"schema_version": version}, f"schema {version}")


def _seal(settings: Settings) -> None:
    """Seal the secrets that an earlier version stored in the clear, and leave no old copy of them in the file."""
    from tillway.cli.vault import seal_stored
    from tillway.installation import DATABASE, key_file
    from tillway.store import sqlite

    if settings.store:
        say(
            "When all processes run this version, run `tillway vault seal`: it encrypts secrets of earlier versions, "
            "and lets new records have this version's shorter form."
        )
    elif not key_file(settings).exists():
        say(f"{key_file(settings)} is missing: secrets of earlier versions stay as they are. Run `tillway vault seal`.")
    elif sealed := seal_stored(settings, "migrate"):
        sqlite.rewrite(settings.data_dir / DATABASE)
        say(f"The secrets of {sealed} webhook endpoints and connectors are encrypted now.")


def _begin_recovery(settings: Settings, manifest: "Manifest") -> None:
    """Let the restored store wait for `tillway recover`, with an entry in the audit trail."""
    import time
    from datetime import datetime

    from tillway.data_directory import GenerationFile
    from tillway.engine.restores import recovering_writes
    from tillway.engine.time_mark import read_mark
    from tillway.store.port import StoreUnfit

    made = int(datetime.fromisoformat(manifest.made_at).timestamp())

    async def work(store: "Store") -> None:
        mark = await read_mark(store)
        since = min(made, mark.until) if mark is not None else made
        at = await moment_above(store)
        reason = f"the backup of {manifest.made_at} was restored"
        by = author("restore")
        told = {"made_at": manifest.made_at}
        await store.commit(await recovering_writes(store, reason, since=since, at=at, by=by, detail=told))

    with suppress(StoreUnfit):
        with_store(settings, work)
    # A backup with an older schema cannot be written to, and is noticed by this file when it is served.
    GenerationFile(settings.data_dir).write(time.time_ns() // 1000, durable=True)


def _check_key_file(settings: Settings) -> None:
    """Refuse a key file that is missing, or that does not open this store."""
    from tillway.installation import check_key_file, key_file, open_keys
    from tillway.store.port import StoreUnfit

    keys = open_keys(settings)
    if not key_file(settings).exists():
        raise WrongUsage(f"The keys are not in {key_file(settings)}: leave out --with-keys, and copy them there.")
    # A store with an older schema is compared when it is migrated.
    with suppress(StoreUnfit):
        with_store(settings, lambda store: check_key_file(settings, store, keys))


def _refuse_without_file(settings: Settings) -> None:
    if settings.store:
        raise WrongUsage(
            "backup and restore are for the database in the data directory. Back this store up with its own tools, and "
            "keep the key file with it (docs/stores.md)."
        )


def _tell(settings: Settings, command: str, detail: Document) -> None:
    """Enter an action on the whole store into the audit trail."""

    async def work(store: "Store") -> None:
        await store.commit(build_writes(command, await moment_above(store), detail=detail))

    from tillway.store.port import StoreUnfit

    # A backup with an older schema gets its audit entry when it is migrated.
    with suppress(StoreUnfit):
        with_store(settings, work)


def _manifest_document(manifest: "Manifest", directory: Path) -> Document:
    import msgspec

    return {"directory": str(directory.absolute()), **msgspec.to_builtins(manifest)}
