"""Routing: show and change the document in force, tell the route of a payment, and try a document on past payments."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping
from fractions import Fraction
from typing import Any

import msgspec

from tillway.domain import routing
from tillway.domain.account import SYSTEM, Mode
from tillway.domain.attempt import TAIL_LENGTH, Attempt
from tillway.domain.charge import Charge
from tillway.domain.connector_success import Kind, Moved, Outcomes, forecast
from tillway.domain.payment_intent import PaymentIntent, facts_for_rules
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.domain.routing import (
    AttemptOutcome,
    ConnectorTerms,
    Needs,
    Route,
    Routes,
    Routing,
    Step,
    kept_id,
    routing_id,
)
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform
from tillway.store.codec import decode
from tillway.store.port import Store
from tillway.store.walk import rows_of

PAYMENTS_MAX = 10_000
"""Most payments that one simulation looks at."""


async def in_force(load: Load, mode: Mode, account: str | None) -> Routing:
    """The document in force for a merchant, or that of the installation (None). One of version 0 if there is none.
    `load` reads the installation's records."""
    for owner in (account, None):
        document = await load.maybe(Routing, routing_id(mode, owner))
        if document is not None and not document.removed:
            return document
    return Routing(id=routing_id(mode, None), created=0, mode=mode)


async def next_version(load: Load, mode: Mode, account: str | None) -> int:
    """The version of the owner's next document: a removed one has taken its number."""
    return _next_version(await load.maybe(Routing, routing_id(mode, account)))


def _next_version(before: Routing | None) -> int:
    return (before.version if before is not None else 0) + 1


async def version_of(load: Load, mode: Mode, account: str | None, version: int) -> Routing:
    """A version of the owner's document, also of one that was removed; without one of its own, of the installation's.
    Refused `resource_missing`."""
    own = await load.maybe(Routing, routing_id(mode, account)) or await in_force(load, mode, account)
    return await load.get(Routing, kept_id(own, version), "version", "routing version")


async def change(
    platform: Platform, caller: Caller, account: str | None, *, rules: Any, otherwise: Any, version: int | None
) -> Done[Routing]:
    """Put a document in force for a merchant or the installation (None), within two seconds on every process.

    Refused `routing_invalid` with the wrong word, or `routing_version_conflict` unless `version`, if given, is that of
    the document which it replaces.
    """
    mode = caller.scope.mode
    known = await platform.connections.connectors_of(mode)
    read = routing.read_document(rules, otherwise, known.keys())

    async def work(load: Load, at: Moment) -> Changes[Routing]:
        before = await load.maybe(Routing, routing_id(mode, account))
        after = successor(before, read, mode, account, by=caller.actor, at=at, version=version)
        return Changes(result=after, records=(after, kept_copy(after)))

    return await _write(platform, caller, work)


async def remove(platform: Platform, caller: Caller, account: str | None, *, version: int | None) -> Done[Routing]:
    """Take the document of a merchant or of the installation (None) out of force; the result is the one in force then.

    Refused `resource_missing` where there is none, or `routing_version_conflict` as by `change`.
    """
    mode = caller.scope.mode

    async def work(load: Load, at: Moment) -> Changes[Routing]:
        before = await load.maybe(Routing, routing_id(mode, account))
        if before is None or before.removed:
            owner = "This merchant" if account is not None else "The installation"
            raise Refused("resource_missing", f"{owner} has no routing document of its own in {mode} mode.")
        empty = Routing(id=before.id, created=at.created, mode=mode, removed=True)
        after = successor(before, empty, mode, account, by=caller.actor, at=at, version=version)
        then = await in_force(load, mode, None) if account is not None else msgspec.structs.replace(empty, version=0)
        return Changes(result=then, records=(after, kept_copy(after)))

    return await _write(platform, caller, work)


async def _write(
    platform: Platform, caller: Caller, work: Callable[[Load, Moment], Awaitable[Changes[Routing]]]
) -> Done[Routing]:
    # The document is a record of the installation, and so is its entry in the audit trail.
    by = msgspec.structs.replace(caller, scope_key=SYSTEM, idempotency=None)
    done = await platform.engine.run(by, work)
    platform.connections.forget()
    return done


def successor(
    before: Routing | None, read: Routing, mode: Mode, account: str | None, *, by: str, at: Moment, version: int | None
) -> Routing:
    """The next version of a document with the rules and the order of `read`."""
    current = before.version if before is not None and not before.removed else 0
    if version is not None and version != current:
        raise Refused(
            "routing_version_conflict",
            f"The routing document has version {current} by now, and this one was made from version {version}. Show it "
            "again, and make the change there.",
            param="version",
        )
    return msgspec.structs.replace(
        read,
        id=routing_id(mode, account),
        created=at.created,
        mode=mode,
        account=account,
        version=_next_version(before),
        changed_by=by,
    )


def kept_copy(document: Routing) -> Routing:
    """The copy of a version that stays when the next one replaces it."""
    return msgspec.structs.replace(document, id=routing.kept_id(document, document.version))


# The route of a payment.


async def route_of(load: Load, payment: PaymentIntent, connectors: Mapping[str, ConnectorTerms]) -> dict[str, Any]:
    """The rule, the candidates and the attempts of a payment's latest confirmation, in their order.

    `expected_fees` are those of the candidates with the prices of today, in minor units; None: not configured any more.
    `fee_rates` are these prices: hundredths of a percent, and a fixed part in minor units.
    """
    attempt = await load.maybe(Attempt, payment.attempt)
    charge = await load.maybe(Charge, payment.latest_charge)
    steps = list(payment.route.tried) if payment.route is not None else []
    tried = {step.connector for step in steps}
    last = _last_step(payment, attempt, charge)
    if last is not None and last.connector not in tried:
        steps.append(last)
    route = payment.route or Route(candidates=tuple(step.connector for step in steps))
    return {
        "object": "route",
        "payment": payment.id,
        "rule": route.rule,
        "rule_number": route.place or None,
        "routing_version": route.version,
        "candidates": list(route.candidates),
        "attempts": [{"connector": step.connector, "outcome": step.outcome} for step in steps],
        "expected_fees": {
            name: routing.expected_fee(connectors, name, payment.amount_minor) for name in route.candidates
        },
        "fee_rates": {
            name: {"rate_bps": connectors[name].fee.rate_bps, "fixed": connectors[name].fee.fixed_minor}
            for name in route.candidates
            if name in connectors
        },
    }


_OUTCOMES: dict[str, AttemptOutcome] = {"succeeded": "succeeded", "failed": "declined", "pending": "pending"}
"""By the status of a charge."""


def _last_step(payment: PaymentIntent, attempt: Attempt | None, charge: Charge | None) -> Step | None:
    """The latest attempt; None if no provider was asked yet."""
    if attempt is not None and attempt.kind == "authorize":
        return Step(connector=attempt.connector, outcome="unknown" if attempt.state == "unknown" else "pending")
    if charge is None or not charge.connector:
        return None
    return Step(
        connector=charge.connector,
        outcome=_OUTCOMES[charge.status],
    )


# Trying a document on past payments.


class Trial(msgspec.Struct):
    """The result of trying a document: payments by connector, those that would go elsewhere, the fees, and how many
    more of them would succeed by the outcomes of the same time."""

    payments: int = 0
    connectors: dict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    changed: list[str] = msgspec.field(default_factory=list)
    rules: dict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    """Payments by the rule that fits; under an empty name those that no rule fits."""
    moves: dict[tuple[str, str], int] = msgspec.field(default_factory=lambda: defaultdict(int))
    changed_by: dict[str, int] = msgspec.field(default_factory=lambda: defaultdict(int))
    """Payments that would go elsewhere, by the rule that fits."""
    cost: dict[str, dict[str, int]] = msgspec.field(default_factory=dict)
    cost_unknown: int = 0
    """Payments through a connector that is not configured any more: `cost` is without them."""
    outcomes: Outcomes = msgspec.field(default_factory=Outcomes)
    moved: dict[Moved, tuple[int, int]] = msgspec.field(default_factory=dict)
    """The number of those that would go elsewhere, and the sum of their amounts in minor units."""

    def document(self) -> dict[str, Any]:
        told = forecast(self.outcomes, self.moved)
        dearer = {currency: cost["after"] - cost["before"] for currency, cost in self.cost.items()}
        return {
            "object": "routing_simulation",
            "payments": self.payments,
            "connectors": dict(sorted(self.connectors.items())),
            "changed": self.changed,
            "rules": dict(self.rules),
            "moves": [
                {"from": before, "to": after, "payments": count}
                for (before, after), count in sorted(self.moves.items())
            ],
            "changed_by": dict(self.changed_by),
            "cost": dict(sorted(self.cost.items())),
            "cost_unknown": self.cost_unknown,
            "success": {
                "judged": told.judged,
                "unknown": told.unknown,
                "before": _hundredths(told.before),
                "after": _hundredths(told.after),
            },
            "gain": {currency: round(more) - dearer.get(currency, 0) for currency, more in sorted(told.more.items())},
            "rates": [
                {
                    "connector": one.connector,
                    "currency": one.kind.currency,
                    "method": one.kind.method,
                    "country": one.kind.country,
                    "succeeded": one.succeeded,
                    "ended": one.ended,
                }
                for one in self.outcomes
            ],
        }


def _hundredths(number: Fraction) -> float:
    return float(round(number, 2))


async def try_document(
    store: Store,
    scope_key: str,
    routes: Routes,
    trial: Trial,
    *,
    limit: int,
    begin: int = 0,
) -> None:
    """Add to `trial` the way that up to `limit` of a merchant's latest payments would take through `routes`, those made
    since `begin` (epoch seconds). It changes nothing and asks no provider."""
    seen: set[str] = set()
    async for row in rows_of(store, f"{scope_key}/ch_", order="newest"):
        charge = decode(row.key.partition("/")[2], row.body)
        assert isinstance(charge, Charge)
        if charge.created < begin or len(seen) >= limit:
            return
        if not charge.connector:
            continue
        kind = _kind_of(charge)
        if charge.status != "pending":
            trial.outcomes.add(charge.connector, kind, succeeded=charge.status == "succeeded")
        if charge.payment not in seen:
            seen.add(charge.payment)
            _try_payment(charge, kind, routes, trial)


def _kind_of(charge: Charge) -> Kind:
    source = charge.card or charge.bank
    method = charge.card.brand if charge.card is not None else charge.method_type
    return Kind(charge.currency, method, source.country if source is not None else None)


def _try_payment(charge: Charge, kind: Kind, routes: Routes, trial: Trial) -> None:
    seed = charge.reference if len(charge.reference) == TAIL_LENGTH else charge.payment
    rule, candidates = routing.choose(routes, facts_for_rules(charge, charge.method_type, charge, routes.account), seed)
    needs = Needs(
        amount_minor=charge.amount_minor,
        currency=charge.currency,
        debit=charge.method_type if charge.bank is not None else None,
    )
    chosen = next(iter(routing.usable(candidates, routes.connectors, needs) or candidates), None)
    trial.payments += 1
    trial.rules[rule or ""] += 1
    trial.connectors[chosen or "none"] += 1
    if chosen != charge.connector:
        trial.changed.append(charge.payment)
        trial.changed_by[rule or ""] += 1
        trial.moves[charge.connector, chosen or "none"] += 1
        move = Moved(charge.connector, chosen, kind)
        payments, amount_minor = trial.moved.get(move, (0, 0))
        trial.moved[move] = (payments + 1, amount_minor + charge.amount_minor)
    before = routing.expected_fee(routes.connectors, charge.connector, charge.amount_minor)
    after = routing.expected_fee(routes.connectors, chosen, charge.amount_minor) if chosen is not None else 0
    if before is None or after is None:
        trial.cost_unknown += 1
        return
    cost = trial.cost.setdefault(charge.currency, {"before": 0, "after": 0})
    cost["before"] += before
    cost["after"] += after


def routes_to_try(read: Routing, connectors: Mapping[str, ConnectorTerms], account: str, default: str | None) -> Routes:
    """A document as if it were in force for a merchant, all connectors reachable."""
    reachable = {name: msgspec.structs.replace(terms, open=False) for name, terms in connectors.items()}
    return Routes(routing=read, connectors=reachable, account=account, default=default)
