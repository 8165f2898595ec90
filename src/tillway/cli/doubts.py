"""`tillway doubts`: operations with an unknown outcome, and their settlement by a person."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tillway.cli.installation import caller_of, with_platform
from tillway.cli.options import Options, takes
from tillway.cli.terminal import Document, WrongUsage, fail, given_reason, table

if TYPE_CHECKING:
    from tillway.domain.account import Scope
    from tillway.domain.attempt import Attempt
    from tillway.wiring import Running

app = typer.Typer(help="Money in doubt: list, show, resolve.", no_args_is_help=True)

Id = Annotated[str, typer.Argument(help="The id of the doubt, att_….")]


@app.command("list")
@takes("mode", "as_json")
def list_doubts(options: Options) -> None:
    """List the operations of all merchants whose outcome is unknown, oldest first."""
    from tillway.domain.account import scope_of
    from tillway.domain.attempt import Attempt
    from tillway.engine.core import Load
    from tillway.operations.doubts import row_of
    from tillway.store.walk import merchant_scopes, records_of

    async def work(running: "Running") -> list[Document]:
        found: list[Document] = []
        now = running.platform.engine.clock.now_ms() // 1000
        for scope_key in await merchant_scopes(running.store):
            scope = scope_of(scope_key)
            if scope.mode != options.mode:
                continue
            async for attempt in records_of(running.store, scope_key, Attempt):
                if attempt.in_doubt(now):
                    shown = await row_of(Load(running.store, scope_key), attempt, now)
                    found.append({"account": scope.account, **shown})
        return sorted(found, key=lambda doubt: (doubt["created"], doubt["id"]))

    found = with_platform(options.settings, work)
    rows = [
        (
            *(doubt["id"], doubt["subject"], f"{doubt['amount']} {doubt['currency']}", doubt["connector"]),
            *(doubt["kind"], doubt["state"], f"{doubt['age_seconds']} s", doubt["reason"] or ""),
        )
        for doubt in found
    ]
    heads = ("id", "subject", "amount", "connector", "kind", "state", "age", "reason")
    options.show(found, table(heads, rows) if rows else "No money is in doubt.")


@app.command("show")
@takes("mode", "as_json")
def show_doubt(options: Options, id: Id) -> None:
    """Show a doubt: the request that was sent, and the answer of the provider, which is asked now."""
    from tillway.engine.core import Load
    from tillway.operations.doubts import ask_now, row_of

    async def work(running: "Running") -> Document:
        scope, attempt = await _find(running, id, options.mode)
        row = await row_of(Load(running.store, scope.key), attempt, running.platform.engine.clock.now_ms() // 1000)
        says = await ask_now(running.platform.attempts, scope, attempt)
        return {"account": scope.account, **row, "provider_says": says}

    found = with_platform(options.settings, work)
    options.show(found, table(("field", "value"), [(name, str(value)) for name, value in found.items()]))


@app.command()
@takes("mode", "as_json")
def resolve(
    options: Options,
    id: Id,
    outcome: Annotated[str, typer.Option(help="succeeded or failed, as the provider told you.")],
    reason: Annotated[str, typer.Option(help="Why you know that, for the audit trail.")],
    provider_reference: Annotated[str | None, typer.Option(help="The provider's own id of the operation.")] = None,
) -> None:
    """Settle a doubt as the provider told you. It cannot be undone."""
    from tillway.operations import doubts

    if outcome not in ("succeeded", "failed"):
        raise WrongUsage(f"--outcome is {outcome!r}; it must be succeeded or failed")
    why = given_reason(reason)
    decided: Literal["succeeded", "failed"] = "succeeded" if outcome == "succeeded" else "failed"

    async def work(running: "Running") -> Document:
        scope, attempt = await _find(running, id, options.mode)
        caller = caller_of(scope, "doubts resolve", why)
        await doubts.resolve(running.platform.attempts, caller, attempt, decided, provider_reference)
        return {"id": id, "object": "doubt", "subject": attempt.subject, "resolved": decided, "account": scope.account}

    found = with_platform(options.settings, work)
    options.show(found, f"{found['subject']} is settled as {decided}.")


async def _find(running: "Running", id: str, mode: str) -> "tuple[Scope, Attempt]":
    """The attempt of that id with its scope; ends the command if there is none."""
    from tillway.domain.account import scope_of
    from tillway.domain.attempt import Attempt
    from tillway.engine.core import Load
    from tillway.store.walk import merchant_scopes

    for scope_key in await merchant_scopes(running.store):
        scope = scope_of(scope_key)
        if scope.mode == mode:
            attempt = await Load(running.store, scope_key).maybe(Attempt, id)
            if attempt is not None:
                return scope, attempt
    raise fail(f"There is no doubt {id!r} in {mode} mode. `tillway doubts list` shows them.")
