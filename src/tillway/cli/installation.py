"""The installation behind the commands: create it, open its store, read and alter its records."""

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tillway.cli.options import Options, takes
from tillway.cli.terminal import Document, WrongUsage, fail, run, say, show_once
from tillway.settings import FILE_NAME, Settings

if TYPE_CHECKING:
    from tillway.domain.account import Scope
    from tillway.domain.api_key import ApiKey
    from tillway.domain.credentials import OAuthClient
    from tillway.domain.record import Moment, Record
    from tillway.engine.audit.entries import Author
    from tillway.engine.caller import Caller
    from tillway.store.port import Store, Write
    from tillway.wiring import Running

    Alteration = tuple[int, Record | None, Record | None]

T = TypeVar("T")
R = TypeVar("R", bound="Record")
Owned = TypeVar("Owned", "ApiKey", "OAuthClient")

Name = Annotated[str, typer.Option(help="Name of the account.")]

DEMO_FILE = "demo.json"
TRIES_MAX = 20
"""Tries of a commit that other commands or servers are faster with."""


@takes("as_json")
def init(options: Options, name: Name = "") -> None:
    """Make a data directory, the first account and its keys. The keys are shown once."""
    settings = options.settings
    made = create(settings, name=name)
    if made is None and settings.store:
        serve = "tillway serve" if settings.keys != "file" else f"copy its keys.json to {settings.data_dir}"
        raise fail(
            f"The store has an installation already. To serve it from this host as well: {serve}; "
            "for a new account: tillway accounts create."
        )
    if made is None:
        raise fail(
            f"{settings.data_dir} has an installation already. Its keys are not shown again; "
            f"make new ones with: tillway keys create --data-dir {settings.data_dir}"
        )
    say(f"Made {settings.data_dir}. These keys are shown once; keep them.")
    show_keys_once(made, lambda: forget_account(settings, "init", made["account"]), as_json=options.as_json)


def create(settings: Settings, *, name: str = "") -> Document | None:
    """Create an installation in the data directory and return its account and keys; None if it exists already.

    The account comes last, in one commit with its keys: a command that is killed before that leaves nothing that counts
    and can be run again. Raises `DataDirectoryUnfit`, `KeyFileUnfit`, `StoreUnfit`.
    """
    from tillway.data_directory import GENERATION_FILE, LOCK_FILE, DataDirectoryUnfit, make_private, occupied
    from tillway.installation import DATABASE, KEY_FILE, check_key_file, create_keys, key_file, open_keys, open_store
    from tillway.operations.accounts import found, is_founded

    directory = settings.data_dir
    if directory.is_dir():
        ours = (LOCK_FILE, GENERATION_FILE, DATABASE, KEY_FILE, FILE_NAME, DEMO_FILE)
        foreign = sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith(ours))
        if foreign:
            raise DataDirectoryUnfit(f"{directory} is not empty ({foreign[0]}). Name a new directory.")
    make_private(directory)

    async def build() -> Document | None:
        # The key file comes after the database. If it exists, the database is whole and must not be touched.
        begun = key_file(settings).exists()
        store = await open_store(settings, create=not begun)
        try:
            if await is_founded(store):
                return None
            keyring = open_keys(settings) if begun else create_keys(settings)
            await check_key_file(settings, store, keyring)
            made = await found(store, name=name, by=author("init"))
        finally:
            await store.close()
        return made | {"data_dir": str(directory.absolute())}

    with occupied(directory, "tillway init"):
        return run(build)


def show_keys_once(made: Document, undo: Callable[[], None], *, as_json: bool) -> None:
    """Print a document with new keys, one a line. If it cannot be written, call `undo` and end the command."""
    show_once(made, "\n".join(f"{name:22} {value}" for name, value in made.items()), undo, as_json=as_json)


def forget_account(settings: Settings, command: str, account: str) -> None:
    """Delete a new account, with its keys and tasks: the keys could not be shown."""
    from tillway.domain.account import Account, Scope
    from tillway.domain.api_key import ApiKey
    from tillway.domain.audit import TASK_ID
    from tillway.store.port import Write

    async def work(store: "Store") -> None:
        made = [
            (version, record, None)
            for kind in (ApiKey, Account)
            for record, version in await records(store, kind)
            if account in (record.id, getattr(record, "account", None))
        ]
        places = [f"{Scope(account=account, mode=mode).key}/{TASK_ID}" for mode in ("test", "live")]
        tasks = [Write(key, row.version, None) for key, row in (await store.get_many(places)).items()]
        await store.commit([*build_writes(command, await moment_above(store), *made), *tasks])

    with_store(settings, work)


def with_store(settings: Settings, work: "Callable[[Store], Coroutine[Any, Any, T]]") -> T:
    """Open the installation's store and return the result of `work`. A running server may use the store at the same
    time."""
    from tillway.installation import open_store

    async def opened() -> T:
        store = await open_store(settings)
        try:
            return await work(store)
        finally:
            await store.close()

    return run(opened)


def with_platform(settings: Settings, work: "Callable[[Running], Awaitable[T]]") -> T:
    """Return the result of `work` with the installation's platform, beside a server that may run."""
    from tillway.installation import check_key_file
    from tillway.wiring import assemble

    async def opened() -> T:
        running = await assemble(settings)
        try:
            await check_key_file(settings, running.store, running.keyring)
            return await work(running)
        finally:
            await running.close()

    return run(opened)


async def repeat_conflicts(work: Callable[[], Awaitable[T]], failing: str) -> T:
    """Return the result of `work`, which reads and commits. It is repeated as long as other commits are faster; after
    TRIES_MAX times the command ends with the text `failing`."""
    from tillway.store.port import Conflict

    for _ in range(TRIES_MAX):
        try:
            return await work()
        except Conflict:
            continue
    raise fail(failing)


def author(command: str) -> "Author":
    """The actor of a command for the audit trail: the operating system's user (not the name in the environment) and the
    host."""
    import os
    import pwd
    import socket

    from tillway.engine.audit.entries import Author

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = str(os.getuid())  # In a container the user may have no name.
    return Author(f"cli:{user}@{socket.gethostname()}", f"tillway {command}")


async def moment_above(store: "Store") -> "Moment":
    """Now, for the records of one commit. Ids and `created` come after the store's mark of time, wherever the clock of
    this host stands."""
    from tillway.engine.time_mark import clock_above

    return (await clock_above(store)).moment()


def build_writes(
    command: str, at: "Moment", *alterations: "Alteration", detail: dict[str, Any] | None = None
) -> "list[Write]":
    """Build the writes of an administrative action, its entry in the audit trail included.

    `at` is a `moment_above` the store's mark. An alteration is (version seen, record before, record after); None stands
    for no record.
    """
    from tillway.domain.account import SYSTEM
    from tillway.engine.audit.entries import build_writes

    return build_writes(SYSTEM, author(command), at, *alterations, detail=detail)


def alter_record(
    settings: Settings,
    command: str,
    kind: type[R],
    id: str,
    change: Callable[[R], R],
    *,
    noun: str,
    listing: str,
    beside: "Callable[[Store, R, R], Awaitable[Sequence[Alteration]]] | None" = None,
) -> R:
    """Change the record `id` and enter the change into the audit trail; end the command if the record does not exist.

    `change` may be called more than once; if it changes nothing, no entry is written. `beside` gives the alterations of
    the same commit, `noun` is the word for the record in messages, `listing` the command that lists such records.
    """

    async def work(store: "Store") -> R:
        async def alter() -> R:
            found = next(((one, version) for one, version in await records(store, kind) if one.id == id), None)
            if found is None:
                raise fail(f"There is no {noun} {id!r}. `tillway {listing}` shows them.")
            before, version = found
            after = change(before)
            if after == before and beside is None:
                return before
            others = await beside(store, before, after) if beside is not None else ()
            await store.commit(build_writes(command, await moment_above(store), (version, before, after), *others))
            return after

        return await repeat_conflicts(alter, f"Other commands keep changing {id}. Try again.")

    return with_store(settings, work)


async def list_records_of(store: "Store", kind: "type[Owned]", account: str | None) -> "list[Owned]":
    """The records of one kind of one account, or of all accounts, oldest first. Ends the command if the account does
    not exist."""
    if account is not None:
        await find_account_id(store, account)
    found = [record for record, _ in await records(store, kind) if account in (None, record.account)]
    return sorted(found, key=lambda record: (record.account, record.created, record.id))


async def last_uses(store: "Store") -> dict[str, int]:
    """When each credential was last used, by its id; epoch seconds, up to two minutes too early, on AWS an hour."""
    from tillway.domain.key_use import KeyUse

    return {use.id.partition("_")[2]: use.last_used_at for use, _ in await records(store, KeyUse)}


async def find_account_id(store: "Store", named: str | None) -> str:
    """The id of the account that a command is for. If there is only one account, it need not be named."""
    from tillway.domain.account import Account

    accounts = [account.id for account, _ in await records(store, Account)]
    if named is not None:
        if named not in accounts:
            raise fail(f"There is no account {named!r}. `tillway accounts list` shows them.")
        return named
    if len(accounts) != 1:
        raise WrongUsage(f"there are {len(accounts)} accounts; name one with --account (`tillway accounts list`)")
    return accounts[0]


async def find_living_account_id(store: "Store", named: str | None) -> str:
    """The same for a command that gives access to the account: one that is deleted gets no more."""
    from tillway.domain.account import SYSTEM, Account
    from tillway.store.codec import decode

    id = await find_account_id(store, named)
    row = await store.get(f"{SYSTEM}/{id}")
    account = decode(id, row.body) if row is not None else None
    if isinstance(account, Account) and account.deleted_at is not None:
        raise fail(f"{id} is deleted, and gets no new access. Its books stay as they are.")
    return id


async def scope_of_merchant(store: "Store", options: Options) -> "Scope":
    """The scope of a command: the merchant of `--account`, or the only one, in the mode of `--mode`."""
    from tillway.domain.account import Scope

    return Scope(account=await find_account_id(store, options.account), mode=options.mode)


def caller_of(scope: "Scope", command: str, reason: str = "") -> "Caller":
    """The command as a caller of operations, with the operating system's user as actor for the audit trail."""
    from tillway.engine.caller import Caller

    by = author(command)
    caller = Caller.system(scope, by.operation, actor=by.actor)
    caller.reason = reason
    return caller


async def records(store: "Store", kind: type[R]) -> list[tuple[R, int]]:
    """All records of one kind in the installation, with their versions, by id."""
    from tillway.domain.account import SYSTEM
    from tillway.store.walk import versions_of

    return [found async for found in versions_of(store, SYSTEM, kind)]
