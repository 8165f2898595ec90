"""The kill -9 harness: it kills server and bank repeatedly while clients pay, then compares the books.

    python -m tillway.crash.run --store postgresql --kills 3000 --seed 7 --dir /var/tmp/crashes

`tillway serve` is killed at random moments, while it starts, right after the bank has recorded an effect, and while the
store writes its log; each time it is started again at once on the same data directory. On a store that several
processes share there are several servers, and each kill draws its target: one worker, one server, all of them, or the
database (`stores.py`). The bank, `tillway bank` with faults, is the witness, and is sometimes killed too. Afterwards
the faults stop, the servers are killed and started a last time, and all work must finish within SETTLE_SECONDS. Then
the clients' answers, the API, the bank's journal and the store are compared (`reconcile.py`).

With `--failover` there are two banks, each behind a connector of its own. Payments fail over between them, every fault
has a probability of 2 %, and one of the banks dies more often and for longer.

With `--clocks`, the servers' wall clocks jump: by less than the allowed skew at any time, and by hours while they run.
With `--full-disk`, the disk of the store's file or tables is full before many kills.

docs/testing-crashes.md lists the checks and explains how to read a violation.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal, get_args

import aiohttp
import msgspec

from tillway.crash import host_clock
from tillway.crash.clients import ANSWERED, Order, Shop
from tillway.crash.disputes import Case, find_unanswered, numbered, read_cases
from tillway.crash.free_port import free_port
from tillway.crash.hook import EVENTS, Hook
from tillway.crash.issuer import Bank, Issuer
from tillway.crash.processes import Daemon, EndedAlone, Launcher
from tillway.crash.reconcile import Document, Performed, Platform, Said, name_by_ids, read_journal, reconcile
from tillway.crash.report import explain
from tillway.crash.small_disk import LEFT_BYTES, SmallDisk
from tillway.crash.stores import Place, StoreName, StoreUnderTest, Victim, modified_ns, store_under_test
from tillway.crash.violation import Violation
from tillway.domain.account import Scope
from tillway.domain.attempt import ACTION_ASK_SECONDS_MAX
from tillway.engine.balance import StoredLedger
from tillway.engine.clock import Clock
from tillway.engine.references import ids_by_reference
from tillway.installation import KEY_FILE, head_signer
from tillway.operations.balance_check import check_all
from tillway.operations.record_check import read_all
from tillway.simulation.audit_check import audit_damage
from tillway.store.codec import STORED_QUEUES
from tillway.store.port import Store
from tillway.store.walk import all_scopes
from tillway.vault.keyring import Keyring

SETTLE_SECONDS = 20.0
"""How long after a restart the work of a dead process may take to settle, as long as the bank answers."""

SETTLE_SECONDS_WITH_REDIRECTS = SETTLE_SECONDS + ACTION_ASK_SECONDS_MAX
"""The same where a shopper has not returned from the bank's page, and the bank's notice was lost: it is asked then."""

DELIVERY_SECONDS = 30.0
"""How much longer webhooks may take that were not taken. Their endpoint is in this process, which a busy machine holds
up for seconds, and the fifth try comes after ten minutes: they are sent again as by a merchant."""

REPLIES_SECONDS = 120.0
"""How long replies to disputes may take to reach the bank at rest: one that failed is sent again after 5, 10, 20 …
seconds."""

STOP_SECONDS = 30.0
COMMAND_SECONDS = 60.0
CONNECTORS = ("bank", "second")
"""The connectors, each with a bank of its own. The second is there with failover only."""

CLIENTS, REPORT = "clients.jsonl", "report.txt"
"""The records of the clients, and the report, in the directory of the run."""

ROUTING = {
    "rules": [
        {
            "name": "dollars, shared",
            "when": {"currency": ["usd"]},
            "use": [{"connector": "bank", "weight": 1}, {"connector": "second", "weight": 1}],
        }
    ],
    "otherwise": ["bank", "second"],
}
EVEN_FAULTS = 0.02
"""The probability of each fault with failover."""

BANK_KILLED_EVERY, BANK_KILLED_EVERY_WITH_FAILOVER = 12, 4
"""After how many kills of the others a bank is killed, too."""

NOTICE_SECRET = "whsec_of_the_crash_harness"
PAGE = 100
LEASES_SECONDS = (3, 3, 12)
"""Leases that restarts draw from: the shortest, so that other processes take over much work between kills, and the
default."""

REPLAYS_MAX = 2_000
"""Most answered orders that are repeated in the end."""

Point = Literal["any moment", "while it starts", "after an effect at the bank", "while it writes"]
POINTS: dict[Point, int] = {
    "any moment": 35,
    "while it starts": 8,
    "after an effect at the bank": 37,
    "while it writes": 20,
}
WAIT_MAX_SECONDS = 0.8
"""How long a kill waits for its moment."""

AWAY_SECONDS = (0.0, 0.0, 0.3, 1.0)
"""How long the bank and the database stay down, drawn from these."""

AWAY_SECONDS_WITH_FAILOVER = (0.0, 0.3, 1.5, 4.0)
"""The same of one of two banks: long enough that its breaker opens."""

FAR_SECONDS = (-40_000, -3600, 3600, 40_000)
"""How far the clock of a server is ahead while it runs: beyond the allowed skew. A server starts with a clock near the
true time, because a store in a file believes it, and a database refuses it."""

SETTLE_SECONDS_WITH_CLOCKS = SETTLE_SECONDS + 120
"""A task that was leased by a clock which was ahead waits so much longer."""

STRIKES = 0.4
"""The part of the kills before which a clock jumps or the disk becomes full."""

WORKER_STARTS_SECONDS = 3.0
"""How long a worker takes, at most, until it has read the clock."""

ANSWERS_WITHIN_TRIES = 100

AGED_SECONDS = 3600
"""By this far ahead of now, every entry of the audit trail is old enough to be linked."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One run. `at_once` and `per_second` bound the shoppers under way and the new ones; None: as many as the store can
    bear on two cores."""

    directory: Path
    store: StoreName = "sqlite"
    kills: int = 300
    seed: int = 1
    mutant: Path | None = None
    at_once: int | None = None
    per_second: float | None = None
    failover: bool = False
    """Whether there are two banks, between which payments fail over."""
    redirects: bool = False
    """Whether shoppers authenticate at the bank's page (3-D Secure)."""
    clocks: bool = False
    """Whether the servers' wall clocks jump."""
    full_disk: bool = False
    """Whether the disk of a store in a file becomes full."""
    last_lease_seconds: int | None = None
    """The lease of the last start; None: the default, for which SETTLE_SECONDS is promised."""
    replies_seconds: float = REPLIES_SECONDS
    """How long the reports and replies of disputes may take at rest."""

    @property
    def settle_seconds(self) -> float:
        """How long after a restart all work may take."""
        within = SETTLE_SECONDS_WITH_CLOCKS if self.clocks else SETTLE_SECONDS
        return max(within, SETTLE_SECONDS_WITH_REDIRECTS) if self.redirects else within

    @property
    def options(self) -> str:
        """The options that chose the kinds of faults."""
        names = ("failover", "redirects", "clocks", "full_disk")
        return "".join(f" --{name.replace('_', '-')}" for name in names if getattr(self, name))


class Report(msgspec.Struct, kw_only=True):
    """The result of a run. Durations are seconds."""

    seed: int
    store: str = "sqlite"
    kills: Counter[str] = msgspec.field(default_factory=Counter)
    victims: Counter[str] = msgspec.field(default_factory=Counter)
    bank_kills: int = 0
    jumps: int = 0
    """Jumps of clocks beyond the allowed skew."""
    full_disks: int = 0
    failovers: int = 0
    """Payments whose latest confirmation went on to another connector."""
    stories: int = 0
    answers: Counter[str] = msgspec.field(default_factory=Counter)
    operations: Counter[str] = msgspec.field(default_factory=Counter)
    replays: int = 0
    deliveries: int = 0
    disputes: Counter[str] = msgspec.field(default_factory=Counter)
    """Disputes by their final status."""
    open_items: int = 0
    repeated: int = 0
    """Deliveries of events that the merchant had already got."""
    storm_seconds: float = 0.0
    seconds: float = 0.0
    settled_after: float = 0.0
    start_median: float = 0.0
    start_longest: float = 0.0
    deaths: list[tuple[float, str]] = msgspec.field(default_factory=list)
    violations: list[Violation] = msgspec.field(default_factory=list)


Say = Callable[[str], None]


def main() -> None:
    options = argparse.ArgumentParser(description="Kill Tillway repeatedly, and compare the books.")
    options.add_argument("--store", choices=get_args(StoreName), default="sqlite", help="store of the servers")
    options.add_argument("--kills", type=int, default=300, help="how often something is killed (default 300)")
    options.add_argument("--seed", type=int, default=None, help="seed of all random choices (default: the time)")
    options.add_argument("--dir", type=Path, default=None, help="where to work; kept (default: a new directory)")
    options.add_argument("--failover", action="store_true", help="two banks, and failover between them")
    options.add_argument("--redirects", action="store_true", help="shoppers who authenticate at the bank's page")
    options.add_argument("--clocks", action="store_true", help="servers whose wall clocks jump")
    options.add_argument("--full-disk", action="store_true", help="a disk that becomes full (as root)")
    options.add_argument("--mutant", type=Path, default=None, help="a file of Python with a seeded bug")
    given = options.parse_args()
    seed = given.seed if given.seed is not None else int(time.time())
    directory = given.dir or Path(tempfile.mkdtemp(prefix="tillway-crashes-"))
    if given.full_disk and given.store == "dynamodb":
        options.error("--full-disk is for stores with a disk, and the emulator of DynamoDB is in memory.")
    if not _ours(directory):
        options.error(f"{directory} has files that are not of an earlier run. Name a new directory.")
    plan = Plan(
        directory=directory,
        store=given.store,
        kills=given.kills,
        seed=seed,
        mutant=given.mutant,
        failover=given.failover,
        redirects=given.redirects,
        clocks=given.clocks,
        full_disk=given.full_disk,
    )
    report = asyncio.run(run(plan, say=lambda text: print(text, file=sys.stderr, flush=True)))
    print(describe(report, plan))
    sys.exit(1 if report.violations else 0)


def _ours(directory: Path) -> bool:
    """Whether the directory may be emptied: it is new, empty, or an earlier run's."""
    return not directory.exists() or (directory / CLIENTS).exists() or not any(directory.iterdir())


async def run(plan: Plan, *, say: Say = lambda text: None) -> Report:
    """Carry out a plan. The directory is emptied first, and kept afterwards with journals and logs."""
    report = Report(seed=plan.seed, store=plan.store)
    chance = random.Random(f"kills {plan.seed}")
    began = time.monotonic()
    async with _stage(plan, began) as stage:
        try:
            await _kill(plan, stage, report, chance, say)
            report.storm_seconds = time.monotonic() - began
            say("faults off, the last kill; everything must come to rest")
            await _come_to_rest(stage, report)
            bank = await _account(plan, stage, report, chance, say)
            report.operations.update(f"{one.kind} {one.status}" for one in bank.values())
        except EndedAlone as ended:
            report.violations.append(Violation("processes end only when they are killed", str(ended)))
        report.stories = stage.shop.stories
        report.answers.update(f"{told.order.what} {told.status} {told.code}".strip() for told in stage.shop.told)
        report.deliveries = stage.hook.received.total()
        report.repeated = report.deliveries - len(stage.hook.received)
        starts = sorted(itertools.chain.from_iterable(server.ready_seconds for server in stage.servers)) or [0.0]
        report.start_median, report.start_longest = starts[len(starts) // 2], starts[-1]
    report.seconds = time.monotonic() - began
    (plan.directory / REPORT).write_text(describe(report, plan) + "\n")
    return report


# Servers and bank.


class Site(msgspec.Struct, frozen=True):
    """One server: its address and its process."""

    place: Place
    data: Path
    server: Daemon


class BankSite(msgspec.Struct, frozen=True):
    """One bank: the connector that leads to it, its process and its journal."""

    connector: str
    daemon: Daemon
    journal: Path


class Stage(msgspec.Struct, kw_only=True):
    """All processes, and how to start them."""

    plan: Plan
    store: StoreUnderTest
    sites: tuple[Site, ...]
    banks: tuple[BankSite, ...]
    shop: Shop
    issuer: Issuer
    hook: Hook
    account: str
    session: aiohttp.ClientSession
    disk: SmallDisk | None
    urls_in_turn: "itertools.cycle[str]"
    """The servers' URLs in turn: every server gives the same answer."""

    @property
    def servers(self) -> list[Daemon]:
        return [site.server for site in self.sites]

    async def start_server(self, site: Site, *, lease_seconds: int | None = None) -> None:
        lease = [] if lease_seconds is None else ["--lease-seconds", str(lease_seconds)]
        where = ["--data-dir", str(site.data), "--port", str(site.server.port), *self.store.arguments(site.data)]
        many = [] if site.place.workers == 1 else ["--workers", str(site.place.workers)]
        # Charges are available at once, so that there is money to pay out.
        rules = ["--settlement-days", "0", "--payout-delay-seconds", "1"]
        await site.server.start(["serve", *where, *many, *rules, *lease])

    async def ready(self) -> None:
        for server in self.servers:
            await server.ready()

    async def start_bank(self, bank: BankSite, faults: Document) -> None:
        await bank.daemon.start(
            [
                "bank",
                *("--port", str(bank.daemon.port)),
                *("--journal", str(bank.journal)),
                *("--notice-url", f"{_url(self.servers[0])}/connectors/test/{bank.connector}/notices"),
                *("--notice-secret", NOTICE_SECRET),
                *("--faults", msgspec.json.encode(faults).decode()),
            ]
        )
        await bank.daemon.ready()

    def written_by_banks(self) -> int | None:
        """When a bank's journal was last written, in nanoseconds; None before the first."""
        return max((at for bank in self.banks if (at := modified_ns(bank.journal)) is not None), default=None)


@asynccontextmanager
async def _stage(plan: Plan, began: float) -> AsyncIterator[Stage]:
    """Start everything, and stop it again after any failure."""
    directory = plan.directory.absolute()
    assert _ours(directory), f"{directory} is not of an earlier run"
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    store = await asyncio.to_thread(store_under_test, plan.store, directory)
    disk: SmallDisk | None = None
    try:
        if plan.full_disk:
            assert store.disk is not None, f"{plan.store} has no disk of its own"
            disk = SmallDisk(store.disk)
            await store.lie_on_disk()
        async with _open_stage(plan, store, disk, directory, began) as stage:
            yield stage
    finally:
        await asyncio.to_thread(store.close)
        if disk is not None:
            disk.close()


@asynccontextmanager
async def _open_stage(
    plan: Plan, store: StoreUnderTest, disk: SmallDisk | None, directory: Path, began: float
) -> AsyncIterator[Stage]:
    connectors = CONNECTORS if plan.failover else CONNECTORS[:1]
    ports = [free_port() for _ in (*connectors, *store.places)]
    bank_ports = dict(zip(connectors, ports, strict=False))
    data = [directory / place.name for place in store.places]
    account, secret_key = _install(data[0], store.arguments(data[0]), bank_ports, redirects=plan.redirects)
    for other in data[1:]:
        other.mkdir(mode=0o700)
        shutil.copy(data[0] / "keys.json", other)
    launcher = await Launcher.begin(mutant=plan.mutant, clocks=plan.clocks)
    sites = tuple(
        Site(place, where, _server(plan, launcher, place, port, directory))
        for place, where, port in zip(store.places, data, ports[len(connectors) :], strict=True)
    )
    banks = tuple(
        BankSite(name, Daemon(launcher, f"the bank {name!r}", port, directory / f"{name}.log"), journal)
        for (name, port), journal in zip(bank_ports.items(), journals_of(plan), strict=True)
    )
    urls = [_url(site.server) for site in sites]
    shop = Shop(
        urls,
        secret_key,
        plan.seed,
        directory / CLIENTS,
        account=account,
        began=began,
        redirects=plan.redirects,
    )
    issuer = Issuer(
        [Bank(bank.connector, _url(bank.daemon), bank.journal) for bank in banks],
        urls,
        NOTICE_SECRET,
        plan.seed,
        # A server with a clock that is hours ahead does not believe a notice, and asks.
        denies=not plan.clocks,
    )
    hook = Hook()
    session = aiohttp.ClientSession(
        headers={"authorization": f"Bearer {secret_key}"}, timeout=aiohttp.ClientTimeout(total=60)
    )
    try:
        await hook.open()
        yield Stage(
            plan=plan,
            store=store,
            sites=sites,
            banks=banks,
            shop=shop,
            issuer=issuer,
            hook=hook,
            disk=disk,
            account=account,
            session=session,
            urls_in_turn=itertools.cycle(urls),
        )
    finally:
        await shop.close()
        await issuer.close()
        await session.close()
        await launcher.end()
        await hook.close()


def _server(plan: Plan, launcher: Launcher, place: Place, port: int, directory: Path) -> Daemon:
    clock = directory / f"clock-{place.name}" if plan.clocks else None
    if clock is not None:
        host_clock.set_ahead(clock, 0)
    return Daemon(launcher, f"the server on {place.name}", port, directory / f"server-{place.name}.log", clock)


def journals_of(plan: Plan) -> list[Path]:
    """The journals of the banks of a run."""
    connectors = CONNECTORS if plan.failover else CONNECTORS[:1]
    return [plan.directory.absolute() / f"{connector}.journal" for connector in connectors]


def _url(server: Daemon) -> str:
    return f"http://127.0.0.1:{server.port}"


def _install(data: Path, store: list[str], bank_ports: dict[str, int], *, redirects: bool) -> tuple[str, str]:
    """A data directory with test mode paying through the banks, made by the ordinary commands."""
    where = ("--data-dir", str(data), *store)
    made = msgspec.json.decode(_tillway("init", *where, "--json"))
    for name, port in bank_ports.items():
        settings = [f"base_url=http://127.0.0.1:{port}", f"notice_secret={NOTICE_SECRET}", "disputes=yes"]
        settings += ["redirects=yes"] if redirects else []
        chosen = [argument for setting in settings for argument in ("--set", setting)]
        default = ("--default",) if name == CONNECTORS[0] else ()
        _tillway("connectors", "add", name, "--kind", "http_bank", *default, *chosen, *where)
    if len(bank_ports) > 1:
        document = data / "routing.json"
        document.write_bytes(msgspec.json.encode(ROUTING))
        _tillway("routing", "set", str(document), *where)
    return made["account"], made["secret_key"]


def _tillway(*arguments: str) -> bytes:
    """The standard output of one command. Its standard error is shown only if it fails."""
    command = (sys.executable, "-m", "tillway.cli.main", *arguments)
    done = subprocess.run(command, capture_output=True, timeout=COMMAND_SECONDS)
    if done.returncode != 0:
        raise EndedAlone(f"tillway {' '.join(arguments[:2])} failed: {done.stderr.decode(errors='replace')}")
    return done.stdout


# The kills.


def faults_for(chance: random.Random, *, even: bool = False) -> Document:
    """The bank's faults until its next kill: a little of everything, or `even` of each."""

    def rule(fault: str, probability: float, **more: Any) -> Document:
        drawn = round(probability * chance.uniform(0.3, 1.7), 4)
        return {"fault": fault, "probability": EVEN_FAULTS if even else drawn, **more}

    return {
        "seed": chance.randrange(1 << 30),
        "rules": [
            *ANSWERED,
            rule("slow", 0.20, ms=chance.choice((20, 60))),
            rule("slow", 0.02, ms=1_500),
            rule("slow", 0.05, ms=5_000),
            rule("lose_request", 0.02),
            rule("lose_answer", 0.03),
            rule("reset_before", 0.02),
            rule("reset_after", 0.03),
            rule("half_body", 0.03),
            rule("error_before", 0.02),
            rule("error_after", 0.03),
            rule("throttle", 0.04),
            rule("slow", 0.05, ms=300, operation="look_up"),
            rule("error_before", 0.06, operation="look_up"),
            rule("half_body", 0.04, operation="look_up"),
            rule("early_notice", 0.06),
            rule("late_notice", 0.06, ms=chance.choice((150, 2_000))),
            rule("duplicate_notice", 0.10),
            rule("stale_notice", 0.04),
            rule("lose_notice", 0.05),
            rule("pend", 0.03),
            rule("decline", 0.01),
        ],
    }


async def _kill(plan: Plan, stage: Stage, report: Report, chance: random.Random, say: Say) -> None:
    """The phase of kills: clients trade while servers and database are killed `plan.kills` times."""
    for bank in stage.banks:
        await stage.start_bank(bank, faults_for(chance, even=plan.failover))
    for site in stage.sites:
        await stage.start_server(site)
    await stage.ready()
    async with stage.session.post(
        next(stage.urls_in_turn) + "/v1/webhook_endpoints",
        data=[("url", stage.hook.url), *(("enabled_events[]", type) for type in EVENTS)],
    ) as answer:
        assert answer.status == 200, await answer.text()
    per_second = plan.per_second or stage.store.shoppers_per_second
    at_once = plan.at_once or stage.store.shoppers_at_once
    trading = asyncio.create_task(stage.shop.trade(at_once=at_once, per_second=per_second))
    speaking = asyncio.create_task(stage.issuer.speak())
    victims: list[Site] = list(stage.sites)
    try:
        for number in range(1, plan.kills + 1):
            point = chance.choices(list(POINTS), list(POINTS.values()))[0]
            if point == "while it starts":
                victim: Victim = "a server" if len(victims) == 1 else "all servers"
            else:
                victim = chance.choices(list(stage.store.victims), list(stage.store.victims.values()))[0]
                victims = list(stage.sites) if victim == "all servers" else [chance.choice(stage.sites)]
            if point != "while it starts":
                await _trouble(stage, report, chance)
            await _moment(point, stage, chance)
            if victim == "a worker":
                # Its server starts another at once, which would believe a clock that is hours off.
                _end_trouble(stage, chance)
            report.kills[point] += 1
            report.victims[victim] += 1
            await _strike(victim, victims, stage, report, chance, point)
            _end_trouble(stage, chance)
            if number % (BANK_KILLED_EVERY_WITH_FAILOVER if plan.failover else BANK_KILLED_EVERY) == 0:
                await _kill_a_bank(plan, stage, report, chance)
            for site in stage.sites:
                if site.server.pid is None:
                    await stage.start_server(site, lease_seconds=chance.choice(LEASES_SECONDS))
            for task in (trading, speaking):
                if task.done():
                    await task
            if number % 50 == 0:
                say(f"{number} kills, {stage.shop.stories} shoppers, {stage.shop.elapsed():.0f} s")
        await stage.ready()
    finally:
        trading.cancel()
        speaking.cancel()


async def _trouble(stage: Stage, report: Report, chance: random.Random) -> None:
    """Perhaps let a server's clock jump beyond the allowed skew, or the disk be full, until the next kill. All servers
    answer before: one that starts would believe its clock, and end where it can write nothing."""
    if stage.disk is None and not stage.plan.clocks:
        return
    await stage.ready()
    for server in stage.servers:
        await _until_it_answers(stage, server)
    if stage.plan.clocks and chance.random() < STRIKES:
        # Nobody outside can see when a worker serves that replaces a killed one.
        young = WORKER_STARTS_SECONDS - stage.shop.elapsed() + (report.deaths[-1][0] if report.deaths else 0)
        many = any(site.place.workers > 1 for site in stage.sites)
        await asyncio.sleep(max(young, 0.0) if many else 0.0)
        clock = chance.choice(stage.servers).clock
        assert clock is not None
        host_clock.set_ahead(clock, chance.choice(FAR_SECONDS))
        report.jumps += 1
    if stage.disk is not None and chance.random() < STRIKES:
        stage.disk.fill(chance.choice(LEFT_BYTES))
        report.full_disks += 1


async def _until_it_answers(stage: Stage, server: Daemon) -> None:
    """Wait until a server answers: a worker of it may just have been killed."""
    for _ in range(ANSWERS_WITHIN_TRIES):
        with contextlib.suppress(aiohttp.ClientError, TimeoutError):
            async with stage.session.get(f"{_url(server)}/healthz") as answer:
                answer.raise_for_status()
                return
        await asyncio.sleep(0.1)
    raise EndedAlone(f"{server.name} does not answer")


def _end_trouble(stage: Stage, chance: random.Random | None = None) -> None:
    """Bring the clocks near the true time, or without `chance` to it, and make room on the disk."""
    for server in stage.servers:
        if server.clock is not None:
            host_clock.set_ahead(server.clock, chance.choice(stage.store.near_seconds) if chance is not None else 0)
    if stage.disk is not None:
        stage.disk.make_room()


async def _kill_a_bank(plan: Plan, stage: Stage, report: Report, chance: random.Random) -> None:
    """Kill a bank, and start it again after a while with other faults."""
    bank = chance.choice(stage.banks) if plan.failover else stage.banks[0]
    await bank.daemon.kill()
    report.bank_kills += 1
    report.deaths.append((stage.shop.elapsed(), bank.daemon.name))
    if plan.failover:
        # Payments go on meanwhile: the servers that were killed with it run again.
        for site in stage.sites:
            if site.server.pid is None:
                await stage.start_server(site, lease_seconds=chance.choice(LEASES_SECONDS))
    await asyncio.sleep(chance.choice(AWAY_SECONDS_WITH_FAILOVER if plan.failover else AWAY_SECONDS))
    await stage.start_bank(bank, faults_for(chance, even=plan.failover))


async def _strike(
    victim: Victim, victims: list[Site], stage: Stage, report: Report, chance: random.Random, point: Point
) -> None:
    """Kill. Killed servers have the `pid` None; a server replaces its own worker, and the database runs again on
    return."""

    def died(what: str) -> None:
        report.deaths.append((stage.shop.elapsed(), f"{what}, {point},"))

    match victim:
        case "a worker":
            workers = [(site, worker) for site in stage.sites for worker in site.server.workers()]
            if workers:
                site, worker = chance.choice(workers)
                os.kill(worker, signal.SIGKILL)
                died(f"a worker of {site.server.name}")
            else:
                await victims[0].server.kill()
                died(victims[0].server.name)
        case "a server" | "all servers":
            await asyncio.gather(*(site.server.kill() for site in victims))
            died("everything" if len(victims) > 1 else victims[0].server.name)
        case "the database":
            # The remaining servers carry the load; sometimes there is none.
            alone = chance.random() < 0.7
            killed = [] if alone else [site.server.kill() for site in stage.sites]
            died("the database" if alone else "the database with everything")
            await asyncio.gather(stage.store.kill(), *killed)
            await asyncio.sleep(chance.choice(AWAY_SECONDS))
            if stage.disk is not None:
                stage.disk.make_room()  # To recover, a database writes.
            await stage.store.restart()


async def _moment(point: Point, stage: Stage, chance: random.Random) -> None:
    """Return when it is time to kill."""
    if point == "while it starts":
        await asyncio.sleep(chance.uniform(0.0, 0.03))
        return
    await stage.ready()
    await asyncio.sleep(chance.uniform(0.05, 0.3))
    written = stage.store.written if point == "while it writes" else stage.written_by_banks
    if point == "any moment" or written() is None:
        await asyncio.sleep(min(chance.expovariate(8.0), WAIT_MAX_SECONDS))
    else:
        await _wait_until_written(
            written, chance.randint(1, 6 if point == "after an effect at the bank" else 12), chance
        )


async def _wait_until_written(written: Callable[[], int | None], times: int, chance: random.Random) -> None:
    """Wait until the file was written `times` times, and 0 to 4 ms more. It looks every half millisecond."""
    deadline = time.monotonic() + WAIT_MAX_SECONDS
    seen = written()
    while times > 0 and time.monotonic() < deadline:
        await asyncio.sleep(0.0005)
        now = written()
        if now != seen:
            seen, times = now, times - 1
    await asyncio.sleep(chance.choice((0.0, 0.0, 0.001, 0.002, 0.004)))


# Rest.


async def _come_to_rest(stage: Stage, report: Report) -> None:
    """Stop the faults, kill once more, and check that nothing is under way SETTLE_SECONDS after the start. The banks
    are killed too: when they start, they repeat all notices without acknowledgement."""
    _end_trouble(stage)
    await asyncio.gather(*(server.kill() for server in (*stage.servers, *(bank.daemon for bank in stage.banks))))
    for bank in stage.banks:
        await stage.start_bank(bank, {"rules": []})
    report.deaths.append((stage.shop.elapsed(), "everything, for the last time,"))
    for site in stage.sites:
        await stage.start_server(site, lease_seconds=stage.plan.last_lease_seconds)
    await stage.ready()
    restarted = time.monotonic()
    await asyncio.gather(
        stage.shop.wind_up(within_seconds=stage.plan.settle_seconds + 10),
        stage.issuer.finish(),
        _wait_until_settled(stage, report, restarted, stage.plan.settle_seconds),
    )


async def _wait_until_settled(stage: Stage, report: Report, since: float, within_seconds: float) -> None:
    """Measure how long it takes until nothing is under way. Operations under way at the end of the time are violations.
    Webhooks that wait for their next try then are sent again at once, and are violations DELIVERY_SECONDS later."""
    sent_again = False
    while True:
        work, deliveries = await _list_in_flight(stage)
        late, within = (work, within_seconds) if work else (deliveries, within_seconds + DELIVERY_SECONDS)
        spent = time.monotonic() - since
        if not late:
            report.settled_after = max(report.settled_after, spent)
            return
        if spent >= within:
            break
        if spent >= within_seconds and not sent_again:
            await _send_webhooks_again(stage)
            sent_again = True
        await asyncio.sleep(0.5)
    for what in late[:20]:
        report.violations.append(
            Violation(
                f"all is settled {within:.0f} seconds after a restart",
                f"{what}, and {len(late) - 1} others",
                (what.split()[0],),
            )
        )


async def _send_webhooks_again(stage: Stage) -> None:
    """Send the merchant's endpoint all that it did not take."""
    (endpoint,) = (await _get(stage, "/v1/webhook_endpoints"))["data"]
    path = f"/ops/v1/webhook_endpoints/{endpoint['id']}/replay"
    async with stage.session.post(next(stage.urls_in_turn) + path, data={"since": "0"}) as answer:
        assert answer.status == 200, await answer.text()


async def _search(stage: Stage, status: str, what: str) -> list[str]:
    """The payments in this status. While the machine is too busy for a search within its bound, that itself is left."""
    params = {"query": f"status:'{status}'", "limit": str(PAGE)}
    async with stage.session.get(next(stage.urls_in_turn) + "/v1/payment_intents/search", params=params) as answer:
        document: Document = msgspec.json.decode(await answer.read())
    if answer.status == 400 and document["error"]["code"] == "search_too_broad":
        return [f"no search says yet which payments are {status}"]
    assert answer.status == 200, f"a search was answered {answer.status}: {document}"
    return [f"{payment['id']} {what}" for payment in document["data"]]


async def _list_in_flight(stage: Stage) -> tuple[list[str], list[str]]:
    """The work that is under way, and the deliveries of webhooks that are."""
    document = await _get(stage, "/ops/v1/doubts", limit=PAGE)
    found = [f"{doubt['id']} of {doubt['subject']} is {doubt['state']}" for doubt in document["data"]]
    for status, what in (("processing", "is processing"), ("requires_action", "waits for its customer")):
        found += await _search(stage, status, what)
    refunds = await _all(stage, *LISTINGS["refunds"])
    found += [f"{refund['id']} is pending" for refund in refunds if refund["status"] == "pending"]
    for status in ("pending", "in_transit"):
        page = await _get(stage, "/v1/payouts", status=status, limit=PAGE)
        found += [f"{payout['id']} is {status}" for payout in page["data"]]
    for status in ("checking", "paying", "arranging_delivery"):
        page = await _get(stage, "/ops/v1/orders", status=status, limit=PAGE)
        found += [f"{order['id']} is {status}" for order in page["data"]]
    # A filter of events would read all of them, because none is found.
    page = await _get(stage, "/ops/v1/webhook_deliveries", status="pending", limit=PAGE)
    return found, [f"{delivery['event']} is not delivered" for delivery in page["data"]]


async def _account(plan: Plan, stage: Stage, report: Report, chance: random.Random, say: Say) -> dict[str, Performed]:
    """Repeat abandoned and answered orders, unless a violation was found already; then compare the books. Return the
    bank's operations, for the report."""
    shop = stage.shop
    for order in shop.unanswered:
        report.violations.append(
            Violation("who asks is answered", f"{order.what} was never answered", (order.story, order.key))
        )
    shop.unanswered.clear()
    if not report.violations:
        await _ask_again(stage, report, chance, say)
    if not report.violations:
        await stage.issuer.contradict_the_rest()
        await _wait_for_replies(stage, report)
    platform = Platform(
        **{name: await _all(stage, path, fields) for name, (path, fields) in LISTINGS.items()},
        ledger=await _get(stage, "/ops/v1/ledger"),
        balance=await _get(stage, "/v1/balance"),
        doubts=(await _get(stage, "/ops/v1/doubts", limit=PAGE))["data"],
        routes={},
    )
    if plan.failover:
        for payment in platform.payments:
            route = await _get(stage, f"/ops/v1/payments/{payment['id']}/route")
            platform.routes[payment["id"]] = route["attempts"]
        report.failovers = sum(len(attempts) > 1 for attempts in platform.routes.values())
    await _stop(stage, report)
    banks: dict[str, dict[str, Performed]] = {}
    for bank in stage.banks:
        banks[bank.connector], violations = read_journal(bank.journal)
        report.violations += violations
    report.disputes.update(dispute["status"] for dispute in platform.disputes)
    report.open_items = len(platform.items)
    store = await stage.store.open()
    try:
        ids = await ids_by_reference(store, Scope(account=stage.account, mode="test").key)
        performed = {connector: name_by_ids(operations, ids) for connector, operations in banks.items()}
        said = Said(
            cases=_cases(stage),
            words=stage.issuer.words,
            charge_of=ids,
            logs="".join(server.log.read_text(errors="replace") for server in stage.servers),
        )
        report.violations += reconcile(shop.told, platform, performed, said=said, delivered=stage.hook.received)
        report.violations += [violation async for violation in _inside(store, stage)]
    finally:
        await store.close()
    for server in stage.servers:
        report.violations += _find_unexpected(server.log)
    return {reference: operation for operations in banks.values() for reference, operation in operations.items()}


async def _ask_again(stage: Stage, report: Report, chance: random.Random, say: Say) -> None:
    """Repeat abandoned orders, and check that answered orders get the same answers."""
    shop = stage.shop
    await shop.come_back(list(shop.given_up.values()), within_seconds=30)
    await _wait_until_settled(stage, report, time.monotonic(), stage.plan.settle_seconds)
    answered: dict[str, Order] = {told.order.key: told.order for told in shop.told if told.final}
    again = chance.sample(sorted(answered), min(len(answered), REPLAYS_MAX))
    say(f"at rest after {report.settled_after:.1f} s; asking {len(again)} orders again, then the books are opened")
    # The emulator of DynamoDB answers some ten of them a second on a busy machine.
    within_seconds = 60 + len(again) / 4
    for told in await shop.ask_again([answered[key] for key in again], within_seconds=within_seconds):
        report.replays += 1
        if not told.replayed:
            report.violations.append(
                Violation(
                    "a key is never forgotten",
                    f"{told.order.what} was answered anew with {told.status}: {told.body[:300]!r}",
                    (told.order.story, told.order.key),
                )
            )
    for order in shop.unanswered:
        report.violations.append(
            Violation("who asks is answered", f"{order.what} was not answered again", (order.story, order.key))
        )


async def _wait_for_replies(stage: Stage, report: Report) -> None:
    """Wait until the merchant has heard of each dispute, and the bank of each reply."""
    began, left = time.monotonic(), [""]
    while left and time.monotonic() - began < stage.plan.replies_seconds:
        for bank in stage.banks:
            # It answers when its journal is flushed, with the marks of the acknowledged reports.
            async with stage.session.get(f"{_url(bank.daemon)}/_journal") as answer:
                answer.raise_for_status()
        disputes = await _all(stage, *LISTINGS["disputes"])
        left = find_unanswered(disputes, _cases(stage), now=time.time())
        if left:
            await asyncio.sleep(0.5)
    for what in left[:20]:
        report.violations.append(
            Violation(
                f"disputes are at rest within {stage.plan.replies_seconds:.0f} seconds", what, (what.split()[-1],)
            )
        )


def _cases(stage: Stage) -> dict[str, Case]:
    """The disputes of all banks by number."""
    cases: dict[str, Case] = {}
    for bank in stage.banks:
        cases |= numbered(read_cases(bank.journal, bank.connector).values())
    return cases


async def _stop(stage: Stage, report: Report) -> None:
    for server in stage.servers:
        status = await asyncio.wait_for(server.terminate(), STOP_SECONDS)
        if status != 0:
            report.violations.append(Violation("SIGTERM ends the server cleanly", f"its exit code was {status}"))
    for bank in stage.banks:
        await bank.daemon.kill()


async def _inside(store: Store, stage: Stage) -> AsyncIterator[Violation]:
    """The store's own violations: its database's inspection, open tasks, and an audit trail that does not lead to the
    current records, version by version."""
    damage = await stage.store.damage()
    if damage:
        yield Violation("the database is whole", damage)
    clock = Clock()
    for queue in sorted({stored for queues in STORED_QUEUES.values() for stored in queues} - {"audit"}):
        for task in await store.peek(queue, now_ms=clock.now_ms(), limit=PAGE):
            # Uncaptured authorizations and disputes expire in some days.
            if queue != "expiries" or task.due_at_ms <= clock.now_ms() or task.key.endswith((".evidence", ".accept")):
                yield Violation("every task ends", f"{task.key} is still in {queue}: {task.body[:300]!r}", (task.key,))
    ahead = Clock(lambda: time.time_ns() + AGED_SECONDS * 1_000_000_000)
    signer = head_signer(Keyring.load(stage.sites[0].data / KEY_FILE))
    for scope in await all_scopes(store):
        torn = await audit_damage(store, scope, ahead, signer)
        if torn:
            yield Violation("the audit trail leads to the current records", f"{scope}: {torn}")
    read = await read_all(store)
    for damaged in read.damaged:
        yield Violation("every record is whole", damaged)
    for checked in await check_all(await StoredLedger.open(store)):
        for difference in checked.differences:
            yield Violation("the balances are the sums of all entries", difference)


def _find_unexpected(log: Path) -> list[Violation]:
    """The first unexpected exception in the server's log, if there was one."""
    text = log.read_text(errors="replace")
    place = text.find("Traceback (most recent call last)")
    return [] if place < 0 else [Violation("the server is never surprised", text[max(place - 300, 0) : place + 3_000])]


async def _get(stage: Stage, path: str, **params: Any) -> Document:
    async with stage.session.get(next(stage.urls_in_turn) + path, params=params) as answer:
        document: Document = msgspec.json.decode(await answer.read())
        assert answer.status == 200, f"GET {path} was answered {answer.status}: {document}"
        return document


LISTINGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "payouts": ("/v1/payouts", ("id", "object", "status", "amount", "currency", "balance_transaction")),
    "payments": (
        "/v1/payment_intents",
        ("id", "object", "status", "amount", "amount_received", "currency", "latest_charge", "metadata"),
    ),
    "charges": (
        "/v1/charges",
        (
            *("id", "object", "status", "amount", "amount_captured", "amount_refunded", "captured", "currency"),
            *("payment_intent", "metadata"),
        ),
    ),
    "refunds": (
        "/v1/refunds",
        ("id", "object", "status", "amount", "currency", "charge", "balance_transaction"),
    ),
    "entries": ("/v1/balance_transactions", ("currency", "net")),
    "disputes": (
        "/v1/disputes",
        (
            *("id", "object", "status", "amount", "currency", "charge"),
            *("evidence_details", "payment_method_details"),
        ),
    ),
    "items": ("/ops/v1/open_items", ("id", "kind", "reference", "ours", "theirs", "subject")),
    "events": ("/v1/events", ("id", "type", "data")),
    "orders": ("/ops/v1/orders", ("id", "order_id", "status", "amount_total", "payment_intent", "refund")),
    "products": ("/ops/v1/products", ("id", "product_id", "available_count", "reserved_count", "sold_count")),
}
"""The listings read in the end, and the fields kept of each object: thousands of kills leave many objects."""


async def _all(stage: Stage, path: str, fields: tuple[str, ...]) -> list[Document]:
    """Those fields of every object of a listing, newest first; of an event's data only the object's id (a balance has
    none)."""
    found: list[Document] = []
    more: dict[str, str] = {}
    while True:
        page = await _get(stage, path, limit=PAGE, **more)
        for document in page["data"]:
            kept = {name: document[name] for name in fields}
            if "data" in kept:
                kept["data"] = {"object": {"id": kept["data"]["object"].get("id", "")}}
            found.append(kept)
        if not page["has_more"]:
            return found
        more = {"starting_after": page["data"][-1]["id"]}


# The report.


def describe(report: Report, plan: Plan) -> str:
    """The report as text; each violation with the lines about it."""
    kills = sum(report.kills.values())
    lines = [
        f"seed {report.seed} on {report.store}: {kills} kills, and {report.bank_kills} of a bank, in "
        f"{report.storm_seconds:.0f} s, {report.seconds:.0f} s in all",
        *(f"  {count:6} {victim}" for victim, count in report.victims.most_common()),
        *(f"  {count:6} {point}" for point, count in report.kills.most_common()),
        f"  started in {report.start_median * 1000:.0f} ms (median), {report.start_longest * 1000:.0f} ms (longest)",
        f"  {report.stories} shoppers; at rest {report.settled_after:.1f} s after the last start; "
        f"{report.replays} orders asked again",
        *([f"  {report.failovers} payments went on to the other bank"] if plan.failover else ()),
        *([f"  clocks jumped {report.jumps} times beyond the allowed skew"] if plan.clocks else ()),
        *([f"  the disk was full {report.full_disks} times"] if plan.full_disk else ()),
        f"  {report.deliveries} webhooks, {report.repeated} of them repeated",
        f"  {report.open_items} open items; disputes: "
        + (", ".join(f"{count} {status}" for status, count in report.disputes.most_common()) or "none"),
        "the bank:",
        *(f"  {count:6} {what}" for what, count in sorted(report.operations.items())),
        "the clients heard:",
        *(f"  {count:6} {what}" for what, count in sorted(report.answers.items())),
        f"{len(report.violations)} violations",
    ]
    for violation in report.violations[:STORIES_MAX]:
        lines += ["", f"VIOLATED: {violation.rule}", f"    {violation.what}"]
        lines += explain(violation, plan.directory / CLIENTS, journals_of(plan), report.deaths)
    lines += [
        f"VIOLATED: {violation.rule}: {violation.what}" for violation in report.violations[STORIES_MAX:VIOLATIONS_MAX]
    ]
    if report.violations:
        lines += [
            "",
            f"the same again, but for the chance of the moment: --store {plan.store} --kills {kills} "
            f"--seed {plan.seed}{plan.options}",
        ]
    return "\n".join(lines)


STORIES_MAX, VIOLATIONS_MAX = 10, 100
"""Violations that are printed with their stories, and violations printed at all."""


if __name__ == "__main__":
    main()
