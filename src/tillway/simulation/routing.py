"""Routed worlds: two banks, a routing document with failover, and a bank that dies and returns.

`RouteWatch` follows each authorization through commits and requests. It takes nothing from the routing of the engine:
a payment's way is the chain of attempts of which each was written in the commit that deleted the one before.
"""

import asyncio
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from tillway.connectors import port
from tillway.connectors.http_bank import operation_of
from tillway.domain.account import SYSTEM
from tillway.domain.attempt import Attempt, reference_of
from tillway.domain.charge import Charge
from tillway.domain.connector_config import ConnectorConfig
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.record import Record
from tillway.domain.routing import read_document, routing_id
from tillway.engine.connections import SIMULATOR
from tillway.engine.references import reference_of_record
from tillway.http.messages import Request
from tillway.simulation.world import EPOCH_SECONDS, SECOND, Merchant, Violation, World
from tillway.store.codec import decode, encode
from tillway.store.port import ABSENT, Write

_EITHER = [{"connector": SIMULATOR, "weight": 1}, {"connector": SECOND, "weight": 1}]

DOCUMENTS: tuple[dict[str, Any], ...] = (
    {"otherwise": [SIMULATOR, SECOND]},
    {"otherwise": [SECOND, SIMULATOR]},
    {"rules": [{"name": "shared", "use": _EITHER}]},
    {
        "rules": [
            {"name": "large", "when": {"amount_gte": 1000}, "use": [SECOND, SIMULATOR]},
            {"name": "dollars", "when": {"currency": ["usd"]}, "use": _EITHER},
        ],
        "otherwise": [SIMULATOR, SECOND],
    },
)
"""One of these is in force in a routed world."""

DIES_AFTER_SECONDS = (0.0, 0.2, 2.0, 4.0)
DEAD_SECONDS = (1.0, 5.0, 15.0)

CLOSES_WITHIN_SECONDS = 60
"""How long after a bank's return a breaker may stay open."""

PAID = ("Accepted", "Pending")


def writes_of(world: World) -> list[Write]:
    """The second connector and the routing document of a routed world."""
    document = world.routing_random.choice(DOCUMENTS)
    read = read_document(document.get("rules"), document.get("otherwise"), world.banks.keys())
    records: tuple[Record, ...] = (
        ConnectorConfig(id=f"con_test_{SECOND}", created=EPOCH_SECONDS, name=SECOND, kind=SECOND, mode="test"),
        msgspec.structs.replace(read, id=routing_id("test", None), created=EPOCH_SECONDS, mode="test", version=1),
    )
    world.tell("world", f"routes by {document}")
    return [Write(f"{SYSTEM}/{record.id}", ABSENT, encode(record)) for record in records]


async def let_a_bank_die(world: World) -> None:
    """One of the banks cannot be reached for a while. The calm brings it back, too."""
    chance = world.routing_random
    await asyncio.sleep(chance.choice(DIES_AFTER_SECONDS))
    world.dead = chance.choice([*world.banks])
    world.tell("bank", f"{world.dead} dies")
    await asyncio.sleep(chance.choice(DEAD_SECONDS))
    world.tell("bank", f"{world.dead} returns")
    world.dead = None


class RouteWatch:
    """Looks at the attempts of a routed world, as they are committed and sent."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.ways: dict[str, list[tuple[str, Attempt]]] = defaultdict(list)
        """The attempts of a payment's latest confirmation, oldest first, each with its reference; by the payment's
        key."""
        self.authorizations: dict[str, set[str]] = defaultdict(set)
        """The references of all authorizations of a payment, by its key."""
        self._connectors: dict[str, str] = {}
        """The connector of each attempt, by its reference."""
        self._disclosed: set[str] = set()
        """The references that a bank may have read."""
        self._drawn: dict[str, tuple[str, ...]] = {}
        """The candidates of a payment's way, by the reference of its first attempt."""

    def tries(self, writes: Sequence[Write]) -> None:
        """Of two commits that begin the same way, one may have been lost: both must have drawn the same."""
        for write in writes:
            scope, _, id = write.key.partition("/")
            if write.body is None or not id.startswith(("pi_", "dpi_")):
                continue
            payment = decode(id, write.body)
            assert isinstance(payment, PaymentIntent)
            route = payment.route
            if route is None or not route.reference:
                continue
            before = self._drawn.setdefault(f"{scope}{route.reference}", route.candidates)
            if before != route.candidates:
                told = f"{id} drew {before} and then {route.candidates} for the reference {route.reference}"
                self._world.violate("same draw", told)

    def committed(self, writes: Sequence[Write]) -> None:
        ended = {write.key for write in writes if write.body is None}
        for write in writes:
            scope, _, id = write.key.partition("/")
            if write.body is None or not id.startswith("att_"):
                continue
            attempt = decode(id, write.body)
            assert isinstance(attempt, Attempt)
            reference = reference_of(scope, attempt)
            self._connectors[reference] = attempt.connector
            if attempt.kind == "authorize":
                self._authorizes(scope, reference, attempt, ended)

    def _authorizes(self, scope: str, reference: str, attempt: Attempt, ended: set[str]) -> None:
        payment = f"{scope}/{attempt.subject}"
        if reference in self.authorizations[payment]:
            return
        self.authorizations[payment].add(reference)
        way = self.ways[payment]
        if way and f"{scope}/{way[-1][1].id}" in ended:
            self._follows(way, attempt)
        else:
            way.clear()
        way.append((reference, attempt))

    def _follows(self, way: list[tuple[str, Attempt]], attempt: Attempt) -> None:
        """A payment goes on to another connector: the one before surely has not taken the money."""
        world, (reference, last) = self._world, way[-1]
        world.met["failed over"] += 1
        known = world.banks[last.connector].find(reference)
        if known is not None and known.status in PAID:
            told = f"the bank of {last.connector} has it {known.status}"
        elif known is None and reference in self._disclosed:
            told = f"the bank of {last.connector} may have read {reference}"
        elif any(attempt.connector == before.connector for _, before in way):
            told = "that was tried before"
        else:
            return
        world.violate("failover", f"{attempt.subject} went on to {attempt.connector}, and {told}")

    def sends(self, request: port.Request, connector: str) -> None:
        """All that is said about a reference goes to one connector."""
        if request.fields and operation_of(request.path) == "dispute":
            return
        reference = _reference_in(request)
        due = self._connectors.get(reference)
        if due is not None and due != connector:
            self._world.violate("one connector", f"{reference} is of {due}, and {request.path} went to {connector}")

    def discloses(self, request: port.Request) -> None:
        if request.fields:
            self._disclosed.add(_reference_in(request))


def _reference_in(request: port.Request) -> str:
    return str(request.fields["reference"] if request.fields else request.path.rpartition("/")[2])


# At rest.


async def check_breakers(world: World) -> None:
    """Every breaker has closed by itself, soon after all banks can be reached again. Raises Violation."""
    closes_by = world.loop.time() + CLOSES_WITHIN_SECONDS
    while open_at := [
        f"{process.name} has the breaker of {name} {health.state}"
        for process in world.processes
        for name, health in ((name, process.connections.health_of("test", name)) for name in world.banks)
        if health.state != "closed"
    ]:
        if world.loop.time() > closes_by:
            raise Violation("breaker", ", ".join(open_at))
        await asyncio.sleep(1.0)


async def check_routes(
    world: World, watch: RouteWatch, merchant: Merchant, payments: Iterable[PaymentIntent], charges: Iterable[Charge]
) -> None:
    """Over all connectors, each payment was taken at most once, and where it says; and its route is told as it was.
    Raises Violation."""
    scope = merchant.scope.key
    for charge in charges:
        taken_there = charge.connector and charge.status == "succeeded"
        if taken_there and world.banks[charge.connector].find(reference_of_record(scope, charge)) is None:
            raise Violation("whose money", f"{charge.id} is not at the bank of {charge.connector}")
    for payment in payments:
        key = f"{scope}/{payment.id}"
        taken = [
            f"{name} has {operation.reference}"
            for name, bank in world.banks.items()
            for operation in map(bank.find, sorted(watch.authorizations[key]))
            if operation is not None and operation.status in PAID
        ]
        if len(taken) > 1:
            raise Violation("taken once", f"{payment.id}: {', '.join(taken)}")
        if key in watch.ways:
            told = await _route_of(world, merchant, payment.id)
            was = [(attempt.connector, _outcome(world, reference, attempt)) for reference, attempt in watch.ways[key]]
            if told != was:
                raise Violation("route", f"{payment.id} went {was}, and its route tells {told}")


def _outcome(world: World, reference: str, attempt: Attempt) -> str:
    """The outcome of a settled attempt, as its bank knows it."""
    known = world.banks[attempt.connector].find(reference)
    if known is None:
        return "not_sent"
    return "succeeded" if known.status in PAID else "declined"


async def _route_of(world: World, merchant: Merchant, payment: str) -> list[tuple[str, str]]:
    """The attempts of a payment's route, as the API tells them."""
    process = await world.reachable()
    headers = {"authorization": f"Bearer {merchant.secret}"}
    answer = await process.api.handle(Request("GET", f"/ops/v1/payments/{payment}/route", "", headers, b""))
    if answer.status != 200:
        raise Violation("route", f"{payment}: {answer.status} {answer.body[:300]!r}")
    return [(step["connector"], step["outcome"]) for step in msgspec.json.decode(answer.body)["attempts"]]
