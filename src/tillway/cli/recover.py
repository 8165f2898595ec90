"""`tillway recover`: after a restore, fetch and book the operations that the providers know since the backup."""

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tillway.cli.installation import author, records, repeat_conflicts, with_platform
from tillway.cli.options import Options, takes
from tillway.cli.terminal import Document, WrongUsage, counted, fail, moment, say
from tillway.settings import Settings

if TYPE_CHECKING:
    from tillway.operations.held_payouts import HeldPayout
    from tillway.operations.recovery import Report
    from tillway.wiring import Running

SHOWN_MAX = 200
"""Most operations that the text shows for a connector; the document has all."""


@takes("as_json")
def recover(
    options: Options,
    yes: Annotated[bool, typer.Option("--yes", help="Book what was found, and end the recovery.")] = False,
    since: Annotated[
        str | None, typer.Option(help="List operations from this day or time on; default: an hour before the backup.")
    ] = None,
    skip: Annotated[
        list[str] | None, typer.Option(help="Do not ask this connector; rely on references. Can be repeated.")
    ] = None,
    send: Annotated[
        list[str] | None, typer.Option(help="Let this payout that is held be sent. Can be repeated.")
    ] = None,
) -> None:
    """Show the providers' operations since the backup; with --yes, book them and end the recovery.

    Payouts, and requests that move money under an Idempotency-Key, wait until then. Payouts that were scheduled at the
    backup are held afterwards, until each is cancelled or released with --send.
    """
    settings = options.settings
    begin = moment(since, "--since") if since is not None else None
    document = with_platform(
        settings, lambda running: _recover(running, settings, begin, skip or [], send or [], book=yes)
    )
    options.show(document, _text(document))
    if document["errors"]:
        raise fail("Not every provider could be asked, so nothing has ended. Try again, or leave one out with --skip.")
    if document["decide"]:
        say("A person must decide on the operations that are marked so; see docs/recovery.md.")


async def _recover(
    running: "Running", settings: Settings, since: int | None, skip: Sequence[str], send: Sequence[str], *, book: bool
) -> Document:
    from tillway.engine.restores import find_generation
    from tillway.wiring import look_for_restore

    await look_for_restore(settings, running.platform.engine)
    held, _ = await find_generation(running.store)
    reason = held.recovering if held is not None else ""
    if not reason and since is None:
        reports, begin, ended = list["Report"](), None, False
    else:
        known_until = held.since if held is not None else 0
        reports, begin, ended = await _survey(running, reason, known_until, since, skip, book=book)
    if send:
        await _release(running, send, recovering=bool(reason) and not ended)
    payouts = await _held_payouts(running, reports, scheduled=bool(reason) and not ended)
    return _document(reason, begin, reports, payouts, ended=ended)


async def _survey(
    running: "Running", reason: str, known_until: int, since: int | None, skip: Sequence[str], *, book: bool
) -> "tuple[list[Report], int, bool]":
    """The reports of all connectors, when their lists begin, and whether the recovery has ended."""
    from tillway.domain.connector_config import ConnectorConfig
    from tillway.operations.held_payouts import hold_scheduled
    from tillway.operations.recovery import OVERLAP_SECONDS, Recovery, survey
    from tillway.store.walk import merchant_scopes

    configs = [config for config, _ in await records(running.store, ConnectorConfig)]
    unknown = sorted({*skip} - {config.name for config in configs})
    if unknown:
        raise WrongUsage(f"--skip {unknown[0]}: there is no such connector (`tillway connectors list`)")
    begin = since if since is not None else max(min(known_until, int(time.time())) - OVERLAP_SECONDS, 0)
    attempts = running.platform.attempts
    recovery = Recovery(attempts, actor=author("recover").actor if book else None)
    reports = await survey(recovery, attempts, configs, begin, skip)
    ended = book and not any(report.error for report in reports)
    if ended:
        if reason:
            await hold_scheduled(running.platform.engine, await merchant_scopes(running.store), author("recover").actor)
        await _end(running, begin, reports)
    return reports, begin, ended


async def _held_payouts(running: "Running", reports: "Sequence[Report]", *, scheduled: bool) -> "list[HeldPayout]":
    """The payouts that wait for a person, without those that a list has."""
    from tillway.operations.held_payouts import find_held
    from tillway.store.walk import merchant_scopes

    listed = {found.subject for report in reports for found in report.found}
    found = await find_held(running.platform.engine, await merchant_scopes(running.store), scheduled=scheduled)
    return [one for one in found if one.payout not in listed]


async def _release(running: "Running", payouts: Sequence[str], *, recovering: bool) -> None:
    from tillway.operations.held_payouts import release
    from tillway.store.walk import merchant_scopes

    if recovering:
        raise WrongUsage("--send: end the recovery first, with --yes")
    engine, actor = running.platform.engine, author("recover").actor
    missing = {*payouts} - {*await release(engine, await merchant_scopes(running.store), payouts, actor)}
    if missing:
        raise WrongUsage(f"--send {min(missing)}: no such payout is held (`tillway recover` shows those that are)")


async def _end(running: "Running", since: int, reports: "Sequence[Report]") -> None:
    """End the recovery, with its numbers in the audit trail."""
    from tillway.engine.restores import recovered_writes

    told: dict[str, object] = {"since": since}
    for report in reports:
        told[f"{report.connector}.{report.mode}"] = report.counts if report.lists else "no list"
    relied_on = sorted({report.connector for report in reports if report.skipped or not report.lists})

    async def end() -> None:
        at = running.platform.engine.clock.moment()
        writes = await recovered_writes(running.store, at=at, by=author("recover"), detail=told, relied_on=relied_on)
        await running.store.commit(writes)

    await repeat_conflicts(end, "Servers keep writing the record of the store's generation. Try again.")


def _document(
    reason: str, since: int | None, reports: "Sequence[Report]", payouts: "Sequence[HeldPayout]", *, ended: bool
) -> Document:
    import msgspec

    found = [one for report in reports for one in report.found]
    return {
        "recovering": bool(reason) and not ended,
        "reason": reason or None,
        "since": since,
        "ended": ended,
        "errors": sum(bool(report.error) for report in reports),
        "decide": sum(one.verdict in ("unexplained", "foreign", "decide") for one in found) + len(payouts),
        "connectors": [{**msgspec.to_builtins(report), "counts": report.counts} for report in reports],
        "payouts": msgspec.to_builtins(payouts),
    }


_WORDS = {
    "agrees": "agree with the store",
    "booked": "are news about operations that the store has",
    "waits": "wait until their client repeats the request under its Idempotency-Key",
    "unexplained": "are explained by nothing",
    "no_money": "are explained by nothing, and moved no money",
    "foreign": "are not of this installation",
    "decide": "need a person's look",
}


def _text(document: Document) -> str:
    return "\n".join(_lines(document))


def _lines(document: Document) -> Iterator[str]:
    if document["since"] is None:
        yield "No store waits for a recovery. `--since` compares anyway."
        yield from map(_payout_line, document["payouts"])
        return
    if document["reason"]:
        yield f"The store was restored: {document['reason']}."
    for report in document["connectors"]:
        yield from _connector_lines(report, document["since"])
    yield from map(_payout_line, document["payouts"])
    lists = any(report["lists"] for report in document["connectors"])
    if document["ended"] and not lists:
        yield "No request waits any more: clients may repeat theirs."
    elif document["ended"]:
        yield "Booked; operations that nothing explains are open items (/ops/v1/open_items). Nothing waits any more."
    else:
        follows = "books this and ends" if lists else "ends"
        yield f"Nothing was changed. `tillway recover --yes` {follows} the recovery."


def _payout_line(payout: dict[str, Any]) -> str:
    return (
        f"  decide       {payout['payout']} of {payout['account']} ({payout['mode']}), {payout['amount_minor']} "
        f"{payout['currency']}: it was scheduled at the backup, and may have been cancelled since. It is held: cancel "
        "it, or let it be sent with --send"
    )


def _connector_lines(report: dict[str, Any], since: int) -> Iterator[str]:
    name = f"{report['connector']} ({report['mode']})"
    if report["error"]:
        yield f"{name}: {report['error']}"
    elif not report["lists"] or report["skipped"]:
        why = "has no list" if not report["lists"] else "was left out"
        yield (
            f"{name} {why}. Tillway relies on the references: what a client repeats under its Idempotency-Key is not "
            "performed twice, and what no client repeats stays unknown."
        )
    else:
        at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(since))
        yield f"{name}: {counted(len(report['found']), 'operation')} since {at}"
    for verdict, count in report["counts"].items():
        if count:
            yield f"  {count:6} {_WORDS[verdict]}"
    told = [found for found in report["found"] if found["verdict"] not in ("agrees", "no_money")]
    for found in told[:SHOWN_MAX]:
        yield f"  {_operation_line(found)}"
    if len(told) > SHOWN_MAX:
        yield f"  … and {len(told) - SHOWN_MAX} more; --json shows all"


def _operation_line(found: "dict[str, Any]") -> str:
    amount = f" {found['amount_minor']} {found['currency']}" if found.get("amount_minor") is not None else ""
    of = f" of {found['subject']}" if found.get("subject") else ""
    why = f": {found['why']}" if found.get("why") else ""
    return f"{found['verdict']:12} {found['kind']}{amount} {found.get('status', '')}{of} {found['reference']}{why}"
