"""The banks' own words in the crash harness: disputes of payments, and notices that contradict a settled outcome.

The issuer reads the banks' journals. It disputes some of the payments that were taken, through the bank, which sends
the notices; and it denies some authorizations that were settled here, in the bank's name, by notices that it signs.
An authorization counts as settled once it was captured, voided or refunded: Tillway asks for that only afterwards.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Coroutine, Sequence
from pathlib import Path
from typing import Any, Literal

import aiohttp
import msgspec

from tillway.connectors.http_bank import signature
from tillway.crash.disputes import noticed_report
from tillway.sandbox.dispute_stories import STORIES

DISPUTED = 0.12
"""The part of the captured payments that is disputed."""

DENIED = 0.06
"""The part of the captures, voids and refunds after which the bank denies the authorization."""

FOLLOWS = ("capture", "void")
MOVES = ("authorization", *FOLLOWS, "refund", "payout")

DUE_SECONDS = (None, None, 2, 8)
"""How long a merchant may answer, drawn from these. None: the bank names no deadline, and it is in nine days."""

PAUSE_SECONDS = (0.01, 0.3, 1.5)
"""The time before each report."""

HEARD_SECONDS = 3.0
"""After this long without an acknowledgement, a bank that makes certain tells a report again."""

POLL_SECONDS = 0.1
AT_REST_MAX = 20
"""Most declined operations of each bank that it claims to have accepted, at rest; and as many captures and voids, which
it claims to have declined."""


class Bank(msgspec.Struct, frozen=True):
    """One bank: the connector that leads to it, its own URL, and its journal."""

    connector: str
    url: str
    journal: Path


class Word(msgspec.Struct, kw_only=True):
    """A notice that contradicts a settled outcome. `heard`: it was taken. `alarming`: by a server that has surely
    logged the alarm, because it got no other copy, and was not killed: log lines are written up to 20 ms later."""

    connector: str
    reference: str
    kind: str
    status: Literal["Declined", "Accepted"]
    amount: int
    currency: str
    parent: str | None = None
    heard: bool = False
    alarming: bool = False

    @property
    def theirs(self) -> str:
        """The word as open items have it."""
        return "declined" if self.status == "Declined" else "succeeded"


class Issuer:
    """`words` are its contradictions, in order."""

    def __init__(
        self, banks: Sequence[Bank], server_urls: Sequence[str], secret: str, seed: int, *, denies: bool = True
    ) -> None:
        """`denies`: whether it denies authorizations before everything is at rest."""
        self.words: list[Word] = []
        self._banks = banks
        self._denies = denies
        self._urls = server_urls
        self._secret = secret
        self._chance = random.Random(f"issuer {seed}")
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=8.0))
        self._read: dict[str, int] = {}
        self._latest: dict[str, dict[str, dict[str, Any]]] = {bank.connector: {} for bank in banks}
        self._noticed: set[str] = set()
        self._accepted: set[str] = set()
        """The references of all that a bank has ever accepted: that a returned refund was accepted is no news."""
        self._denied: set[str] = set()
        self._cases = 0
        self._closing = False
        self._speaking: set[asyncio.Task[None]] = set()
        self._failure: BaseException | None = None

    async def close(self) -> None:
        for task in self._speaking:
            task.cancel()
        await asyncio.gather(*self._speaking, return_exceptions=True)
        await self._session.close()

    async def speak(self) -> None:
        """Dispute and deny until cancelled."""
        while True:
            for bank in self._banks:
                for line in self._new_lines(bank):
                    self._react(bank, line)
            if self._failure is not None:
                raise self._failure
            await asyncio.sleep(POLL_SECONDS)

    async def finish(self) -> None:
        """Tell the rest, without pauses. The banks must be there."""
        self._closing = True
        while self._speaking:
            await asyncio.wait(set(self._speaking))
        if self._failure is not None:
            raise self._failure

    async def contradict_the_rest(self) -> None:
        """Claim that declined operations were accepted, and captures and voids declined. All outcomes must be
        settled."""
        for bank in self._banks:
            for _ in self._new_lines(bank):
                pass
            known = self._latest[bank.connector].values()
            declined = [
                line for line in known if line["kind"] in MOVES and line["status"] not in ("Accepted", "Pending")
            ]
            declined = [line for line in declined if line["reference"] not in self._accepted]
            for line in self._chance.sample(declined, min(AT_REST_MAX, len(declined))):
                self._contradict(bank, line, "Accepted")
            performed = [line for line in known if line["kind"] in FOLLOWS and line["status"] == "Accepted"]
            for line in self._chance.sample(performed, min(AT_REST_MAX, len(performed))):
                self._contradict(bank, line, "Declined")
        await self.finish()

    def _new_lines(self, bank: Bank) -> list[dict[str, Any]]:
        """The lines of a journal since the last look. A bank that starts again cuts off only a broken line."""
        try:
            with bank.journal.open("rb") as file:
                file.seek(self._read.get(bank.connector, 0))
                content = file.read()
        except FileNotFoundError:
            return []
        whole = content[: content.rfind(b"\n") + 1]
        self._read[bank.connector] = self._read.get(bank.connector, 0) + len(whole)
        lines: list[dict[str, Any]] = [msgspec.json.decode(line) for line in whole.splitlines()]
        self._noticed |= {line["noticed"] for line in lines if "noticed" in line}
        operations = [line for line in lines if "noticed" not in line]
        self._accepted |= {line["reference"] for line in operations if line["status"] == "Accepted"}
        self._latest[bank.connector].update({line["reference"]: line for line in operations})
        return operations

    def _react(self, bank: Bank, line: dict[str, Any]) -> None:
        if line["status"] != "Accepted":
            return
        parent = line.get("parent")
        if (line["kind"] == "capture" or line.get("capture")) and self._chance.random() < DISPUTED:
            self._cases += 1
            taken = line["amount"]
            self._start(self._dispute(bank, parent or line["reference"], taken, self._cases, self._chance.random()))
        if not self._denies or line["kind"] not in ("capture", "void", "refund") or parent in self._denied:
            return
        authorization = self._latest[bank.connector].get(parent or "")
        if authorization is not None and self._chance.random() < DENIED:
            self._denied.add(authorization["reference"])
            self._contradict(bank, authorization, "Declined")

    def _start(self, speaking: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(speaking)
        self._speaking.add(task)
        task.add_done_callback(self._on_task_done)

    def _on_task_done(self, task: "asyncio.Task[None]") -> None:
        self._speaking.discard(task)
        if not task.cancelled() and task.exception() is not None:
            self._failure = self._failure or task.exception()

    # Disputes.

    async def _dispute(self, bank: Bank, parent: str, taken: int, number: int, seed: float) -> None:
        """Tell the reports of one dispute. Half of the banks make certain that each was heard before they tell the
        next; of the others, a killed bank has only its latest report left to tell. The number stands in the network's
        reason code, which the API shows."""
        chance = random.Random(seed)
        due, makes_certain = chance.choice(DUE_SECONDS), chance.random() < 0.5
        parts = {stage: chance.choice((1, 2)) for stage in ("inquiry", "chargeback")}
        for step in chance.choice(STORIES).split(", "):
            if not self._closing:
                await asyncio.sleep(chance.choice(PAUSE_SECONDS))
            stage, verdict = step.split(" ")
            report: dict[str, Any] = {
                "parent": parent,
                "reference": f"case-{number}",
                "dispute": stage,
                "status": verdict,
                "amount": max(taken // parts[stage], 1),
                "network_reason_code": str(number),
            }
            if due is not None:
                report["evidence_due"] = int(time.time()) + due
            await self._report(bank, report)
            while makes_certain and not self._closing and not await self._is_heard(bank, report["reference"]):
                await self._report(bank, report)

    async def _report(self, bank: Bank, report: dict[str, Any]) -> None:
        """Have the bank report, until it answers."""
        while True:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with self._session.post(f"{bank.url}/_disputes", json=report) as answer:
                    assert answer.status == 200, f"{report} was answered {answer.status}: {await answer.text()}"
                    return
            await asyncio.sleep(POLL_SECONDS)

    async def _is_heard(self, bank: Bank, reference: str) -> bool:
        """Whether the latest report of a dispute is acknowledged, within HEARD_SECONDS."""
        until = time.monotonic() + HEARD_SECONDS
        while time.monotonic() < until:
            latest = self._latest[bank.connector].get(reference)
            if latest is not None and noticed_report(reference, latest.get("told", 0)) in self._noticed:
                return True
            await asyncio.sleep(POLL_SECONDS)
        return False

    # Contradictions.

    def _contradict(self, bank: Bank, line: dict[str, Any], status: Literal["Declined", "Accepted"]) -> None:
        word = Word(
            connector=bank.connector,
            reference=line["reference"],
            kind=line["kind"],
            status=status,
            amount=line["amount"],
            currency=line["currency"],
            parent=line.get("parent"),
        )
        self.words.append(word)
        copies = self._chance.choice((1, 1, 2))
        for _ in range(copies):
            self._start(self._insist(word, alone=copies == 1))

    async def _insist(self, word: Word, *, alone: bool) -> None:
        """Send a word until it is taken. `alone`: no copy of it is under way."""
        said: dict[str, Any] = {"reference": word.reference, "kind": word.kind, "status": word.status}
        said |= {"amount": word.amount, "currency": word.currency}
        if word.parent is not None:
            said["parent"] = word.parent
        first = alone
        while True:
            body = msgspec.json.encode({**said, "created": int(time.time())})
            headers = {"x-bank-signature": signature(self._secret, body), "content-type": "application/json"}
            url = f"{self._chance.choice(self._urls)}/connectors/test/{word.connector}/notices"
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, OSError):
                async with self._session.post(url, data=body, headers=headers) as answer:
                    assert answer.status in (200, 409, 429, 503), (
                        f"{word} was answered {answer.status}: {answer.reason}"
                    )
                    if answer.status == 200:
                        word.heard, word.alarming = True, first and self._closing
                        return
            first = False
            await asyncio.sleep(POLL_SECONDS)
