"""`tillway retention`: how long events, the audit trail, logged requests and answers are kept, and the archive."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tillway.cli.installation import author, build_writes, moment_above, repeat_conflicts, with_store
from tillway.cli.options import Options, takes
from tillway.cli.terminal import Document, WrongUsage, fail, show, table

if TYPE_CHECKING:
    from tillway.domain.retention import Retention
    from tillway.engine.audit.archive import Filed
    from tillway.settings import Settings
    from tillway.store.port import Store

app = typer.Typer(help="How long records are kept: show, set, archive.", no_args_is_help=True)


@app.command("show")
@takes("as_json")
def show_policy(options: Options) -> None:
    """Show how long events, the audit trail, logged requests and answers of idempotency keys are kept."""
    settings = options.settings

    async def work(store: "Store") -> "Retention":
        return (await _policy(store))[0]

    _show(with_store(settings, work), settings, as_json=options.as_json)


@app.command("set")
@takes("as_json")
def set_policy(
    options: Options,
    journal: Annotated[
        int | None, typer.Option(help="Days for the audit trail and the events in it, 30 or more; 0: for ever.")
    ] = None,
    requests: Annotated[int | None, typer.Option(help="Days for the request log; 0: none is kept.")] = None,
    answers: Annotated[int | None, typer.Option(help="Hours for answers of idempotency keys, 24 to 720.")] = None,
) -> None:
    """Set how long they are kept. Servers go by it from their next start on; `archive` at once."""
    from tillway.domain.refusal import Refused
    from tillway.domain.retention import change

    if journal is None and requests is None and answers is None:
        raise WrongUsage("give --journal, --requests or --answers")
    settings = options.settings

    async def work(store: "Store") -> "Retention":
        async def alter() -> "Retention":
            before, version = await _policy(store)
            after = change(before, journal_days=journal, request_days=requests, answer_hours=answers)
            if after != before:
                alteration = (version, before if version else None, after)
                await store.commit(build_writes("retention set", await moment_above(store), alteration))
            return after

        return await repeat_conflicts(alter, "Other commands keep changing the retention. Try again.")

    try:
        _show(with_store(settings, work), settings, as_json=options.as_json)
    except Refused as refused:
        raise WrongUsage(f"--{refused.message}") from None


@app.command()
@takes("as_json")
def archive(
    options: Options,
    to: Annotated[Path, typer.Option("--to", help="Directory of the archive; it is made if it does not exist.")],
) -> None:
    """Move the audit trail from before the period, with the events in it, into NDJSON files. The server may run."""
    from tillway.domain.retention import SECONDS_PER_DAY
    from tillway.engine.audit.archive import ArchiveRefused, archive_scope
    from tillway.installation import head_signer, open_keys
    from tillway.store.walk import all_scopes

    settings = options.settings
    signer = head_signer(open_keys(settings))

    async def work(store: "Store") -> "list[Filed]":
        policy, _ = await _policy(store)
        if policy.journal_days is None:
            raise fail("The audit trail is kept for ever. Set a period first: tillway retention set --journal DAYS")
        filed = []
        for scope in await all_scopes(store):
            at = await moment_above(store)
            before = at.now - policy.journal_days * SECONDS_PER_DAY
            by = author("retention archive")
            filed.append(await archive_scope(store, scope, to, before=before, by=by, at=at, signer=signer))
        return filed

    try:
        filed = with_store(settings, work)
    except ArchiveRefused as refused:
        raise fail(str(refused)) from None
    except OSError as error:
        raise fail(f"{to} cannot be written: {error.strerror or error}") from None
    rows = [(one.scope, str(one.entries), str(one.events), str(len(one.files))) for one in filed]
    options.show(
        [{"scope": one.scope, "entries": one.entries, "events": one.events, "files": list(one.files)} for one in filed],
        table(("scope", "entries", "events", "files"), rows),
    )


async def _policy(store: "Store") -> "tuple[Retention, int]":
    """The policy with its version; the default policy where none was set."""
    from tillway.domain.account import SYSTEM
    from tillway.domain.retention import POLICY_ID, Retention
    from tillway.store.codec import decode
    from tillway.store.port import ABSENT

    row = await store.get(f"{SYSTEM}/{POLICY_ID}")
    if row is None:
        return Retention(id=POLICY_ID, created=(await moment_above(store)).created), ABSENT
    policy = decode(POLICY_ID, row.body)
    assert isinstance(policy, Retention)
    return policy, row.version


def _show(policy: "Retention", settings: "Settings", *, as_json: bool) -> None:
    days = policy.request_days if policy.request_days is not None else settings.request_log_days
    document: Document = {
        "journal_days": policy.journal_days,
        "request_days": days,
        "answer_hours": policy.answer_hours,
    }
    text = table(
        ("records", "kept for", "then"),
        [
            (
                "audit trail and events",
                f"{policy.journal_days} days" if policy.journal_days else "ever",
                "`tillway retention archive` moves them into files" if policy.journal_days else "",
            ),
            ("logged requests", f"{days} days", "the store forgets them"),
            ("answers of idempotency keys", f"{policy.answer_hours} hours", "the store forgets them"),
        ],
    )
    show(document, text, as_json=as_json)
