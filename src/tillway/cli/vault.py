"""`tillway vault`: the keys that encrypt stored cards and other secrets."""

from typing import TYPE_CHECKING, Annotated

import typer

from tillway.cli.installation import author, build_writes, moment_above, with_store
from tillway.cli.options import Options, takes
from tillway.cli.terminal import counted, day, fail, say, table
from tillway.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Sequence

    from tillway.store.port import Store, Write
    from tillway.vault.rotation import Progress, Rotation, Tell

app = typer.Typer(help="The keys of the vault: prepare, rotate, seal, keys, forget.", no_args_is_help=True)


@app.command()
@takes("as_json")
def prepare(options: Options) -> None:
    """Make the key for the next rotation, so that it can be copied to other hosts before it encrypts a card."""
    from tillway.installation import check_key_file, key_file, open_keys

    settings = options.settings
    keyring = open_keys(settings)

    async def work(store: "Store") -> str:
        await check_key_file(settings, store, keyring)
        told = {"state": "begun", "key": keyring.current_id()}
        await store.commit(build_writes("vault prepare", await moment_above(store), detail=told))
        return keyring.prepare_kek()

    key = with_store(settings, work)
    say(f"Copy {key_file(settings)} to every other host now, and then run `tillway vault rotate`.")
    options.show({"key": key}, key)


@app.command()
@takes("as_json")
def rotate(options: Options) -> None:
    """Encrypt every stored card under the prepared key, or a new one, while the server runs. Repeat it after an
    interruption."""
    import msgspec

    from tillway.installation import check_key_file, open_keys
    from tillway.store.walk import merchant_scopes
    from tillway.vault import rotation

    settings = options.settings
    keyring = open_keys(settings)

    def progress(done: "Progress") -> None:
        say(f"pass {done.number}: {done.read} read, {done.moved} moved")

    async def work(store: "Store") -> "Rotation":
        await check_key_file(settings, store, keyring)
        tell = _tell("vault rotate", store)
        told = {"state": "begun", "key": keyring.current_id()}
        await store.commit(build_writes("vault rotate", await moment_above(store), detail=told))
        done = await rotation.rotate(store, keyring, lambda: merchant_scopes(store), tell=tell, progress=progress)
        outcome = {"state": "done", "key": done.key_id, "moved": done.moved, "retired": done.retired}
        await store.commit(build_writes("vault rotate", await moment_above(store), detail=outcome))
        return done

    done = with_store(settings, work)
    text = f"{counted(done.moved, 'record')} moved under {done.key_id}; retired: {', '.join(done.retired) or 'none'}"
    options.show(msgspec.to_builtins(done), text)
    if done.damaged:
        raise fail(
            f"{counted(len(done.damaged), 'record')} could not be opened, and stay as before: "
            f"{', '.join(done.damaged[:10])}"
        )


@app.command()
@takes("as_json")
def seal(options: Options) -> None:
    """End an upgrade, when all processes run this version: encrypt the secrets of webhook endpoints and connectors that
    an earlier version stored in the clear, let new records have this version's form, and let /v1 write ISK, UGX and MGA
    as Stripe does to accounts that have none of these yet. `migrate` does this for an embedded database."""
    from tillway.cli.accounts import tell_amounts
    from tillway.engine.restores import set_form

    settings = options.settings
    sealed = seal_stored(settings, "vault seal")
    with_store(settings, lambda store: set_form(store, "now"))
    tell_amounts(settings, "vault seal", move=True)
    options.show({"sealed": sealed}, f"{counted(sealed, 'record')} sealed")


def seal_stored(settings: Settings, command: str) -> int:
    """Seal secrets that are stored in the clear, and return how many records changed."""
    from tillway.installation import open_vault
    from tillway.store.walk import merchant_scopes
    from tillway.vault import rotation

    async def work(store: "Store") -> int:
        vault = await open_vault(settings, store)
        return await rotation.seal_stored(store, vault, lambda: merchant_scopes(store), tell=_tell(command, store))

    return with_store(settings, work)


def _tell(command: str, store: "Store") -> "Tell":
    from tillway.engine.audit.entries import rewrap_write

    by = author(command)

    async def tell(scope_key: str, writes: "Sequence[Write]") -> "list[Write]":
        return [rewrap_write(scope_key, by, await moment_above(store), writes)]

    return tell


@app.command()
@takes("as_json")
def keys(options: Options) -> None:
    """List the keys of the key file: coming, current, old (cards may remain under it) and retired."""
    import msgspec

    from tillway.installation import open_keys

    found = open_keys(options.settings).list_keys()
    rows = [(key.id, key.state, day(key.created)) for key in found]
    options.show(msgspec.to_builtins(found), table(("id", "state", "made"), rows))


@app.command()
@takes()
def forget(
    options: Options,
    key: Annotated[str, typer.Argument(help="A retired key (kek_…).")],
) -> None:
    """Destroy a retired key. The cards in backups made before the rotation can then never be opened again."""
    from tillway.installation import check_key_file, open_keys
    from tillway.store.walk import merchant_scopes
    from tillway.vault import rotation

    settings = options.settings
    keyring = open_keys(settings)

    async def work(store: "Store") -> None:
        await check_key_file(settings, store, keyring)

        async def tell() -> None:
            await store.commit(build_writes("vault forget", await moment_above(store), detail={"key": key}))

        await rotation.forget_key(store, keyring, key, lambda: merchant_scopes(store), tell=tell)

    with_store(settings, work)
    say(f"{key} is destroyed.")
