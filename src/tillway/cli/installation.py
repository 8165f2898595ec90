"""`tillway init`: a data directory with its key file, its database, the first account and that account's keys."""

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from tillway.cli.terminal import AsJson, DataDir, Document, fail, run, say, settings_from, show
from tillway.settings import FILE_NAME, Settings

if TYPE_CHECKING:
    from tillway.domain.account import Account
    from tillway.engine.setup import NewKey
    from tillway.store.port import Store

T = TypeVar("T")

Name = Annotated[str, typer.Option(help="What the account is called.")]


def init(
    context: typer.Context,
    data_dir: DataDir = None,
    name: Name = "",
    as_json: AsJson = False,
) -> None:
    """Make a data directory, the first account and its keys. The keys are shown once."""
    settings = settings_from(context.params)
    made = create(settings, name=name)
    if made is None:
        raise fail(
            f"{settings.data_dir} has an installation already. Its keys are not shown again; "
            f"make new ones with: tillway keys create --data-dir {settings.data_dir}"
        )
    say(f"Made {settings.data_dir}. These keys are shown once; keep them.")
    show(made, "\n".join(f"{key:22} {value}" for key, value in made.items()), as_json=as_json)


def create(settings: Settings, *, name: str = "") -> Document | None:
    """A new installation in the data directory, and what it is to be used with; None where one is there already.

    The account is the last thing made, in one commit with its keys: what dies before it leaves nothing that counts, and
    runs again. Raises `DataDirectoryUnfit`, `KeyFileUnfit`, `StoreUnfit`.
    """
    from tillway.data_directory import LOCK_FILE, DataDirectoryUnfit, make_private, occupied
    from tillway.engine.clock import Clock
    from tillway.engine.setup import create_account, system_records
    from tillway.vault.keyring import Keyring
    from tillway.wiring import DATABASE, KEY_FILE, key_file, open_store

    directory = settings.data_dir
    if directory.is_dir():
        ours = (LOCK_FILE, DATABASE, KEY_FILE, FILE_NAME)
        foreign = sorted(entry.name for entry in directory.iterdir() if not entry.name.startswith(ours))
        if foreign:
            raise DataDirectoryUnfit(f"{directory} is not empty ({foreign[0]}). Name a new directory.")
    make_private(directory)

    async def build() -> Document | None:
        store = await open_store(settings, create=True)
        try:
            if await system_records(store, "acct"):
                return None
            if not key_file(settings).exists():
                Keyring.create(key_file(settings))
            else:
                Keyring.load(key_file(settings))
            account, keys = await create_account(store, Clock(), name=name)
        finally:
            await store.close()
        return first_use(account, keys) | {"data_dir": str(directory.absolute())}

    with occupied(directory, "tillway init"):
        return run(build)


def first_use(account: "Account", keys: "list[NewKey]") -> Document:
    """A new account and its keys as they are shown once. `keys` are in the order of `create_account`."""
    secret, publishable, live_secret, live_publishable = (key.secret for key in keys)
    return {
        "account": account.id,
        "secret_key": secret,
        "publishable_key": publishable,
        "live_secret_key": live_secret,
        "live_publishable_key": live_publishable,
    }


def with_store(settings: Settings, work: "Callable[[Store], Coroutine[Any, Any, T]]") -> T:
    """What `work` makes of the installation's store, which may be a running server's at the same time."""
    from tillway.wiring import open_store

    async def opened() -> T:
        store = await open_store(settings)
        try:
            return await work(store)
        finally:
            await store.close()

    return run(opened)
