"""The bank as a program: its journal survives kill -9, its notices are signed and owed until they are taken."""

import asyncio
import contextlib
import hashlib
import hmac
import json
import os
import signal
import subprocess
import sys

import aiohttp
import pytest
from bank_peers import SECRET, mailbox

from tillway.sandbox import bank_server
from tillway.sandbox.bank_server import JournalUnfit
from tillway.sandbox.faults import FaultsInvalid

CARD = {"number": "4000000000009987", "exp_month": 12, "exp_year": 2040, "cvc": "739"}


def authorization(reference, amount=4200, number="4242424242424242", **more):
    body = {"reference": reference, "amount": amount, "currency": "eur", "capture": True, "by_amount": True, **more}
    return {"card": {**CARD, "number": number}, **body}


@contextlib.asynccontextmanager
async def bank(journal, **options):
    server = await bank_server.start(0, journal, **options)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{server.port}", timeout=aiohttp.ClientTimeout(5)) as http:
        try:
            yield http
        finally:
            await server.stop()


async def post(http, path, body, **headers):
    async with http.post(path, json=body, headers=headers) as answer:
        return answer.status, await answer.json()


async def get(http, path):
    async with http.get(path) as answer:
        return answer.status, await answer.json()


def lines(journal):
    return [json.loads(line) for line in journal.read_text().splitlines()]


async def test_every_effect_is_a_line(tmp_path):
    journal = tmp_path / "journal"
    async with bank(journal) as http:
        _, first = await post(http, "/v1/authorizations", authorization("a"))
        assert first == {
            "reference": "a",
            "kind": "authorization",
            "status": "Accepted",
            "amount": 4200,
            "currency": "eur",
            "bank_id": "bank-a",
            "network_transaction_id": "000000000000097",
            "checks": {"cvc": "pass"},
        }
        assert await post(http, "/v1/authorizations", authorization("a")) == (200, first)
        assert (await post(http, "/v1/authorizations", authorization("a", 4201)))[0] == 409
        await post(http, "/_faults", {"rules": [{"fault": "pend", "operation": "refund"}]})
        await post(http, "/v1/refunds", {"reference": "r", "payment": "a", "amount": 24, "currency": "eur"})
        assert (await get(http, "/v1/operations/r"))[1]["status"] == "Accepted"
        assert (await get(http, "/v1/operations/x"))[0] == 404
        _, totals = await get(http, "/_journal")
        assert totals["accepted"]["eur"]["refund"] == {"count": 1, "amount": 24}
    assert [(line["reference"], line["kind"], line["status"], line["amount"]) for line in lines(journal)] == [
        ("a", "authorization", "Accepted", 4200),
        ("r", "refund", "Pending", 24),
        ("r", "refund", "Accepted", 24),
    ]


async def test_no_card_in_the_journal(tmp_path):
    journal = tmp_path / "journal"
    async with bank(journal) as http:
        await post(http, "/v1/authorizations", authorization("a", number=CARD["number"], amount=4300))
        await post(http, "/v1/authorizations", authorization("b", number="4000000000000259", amount=4300))
    for file in tmp_path.iterdir():
        assert file.stat().st_mode & 0o077 == 0
        for number in (CARD["number"], "4000000000000259"):
            assert number.encode() not in file.read_bytes()
    known = {"reference", "kind", "status", "amount", "currency", "bank_id", "contents", "last4", "decline_code"}
    known |= {
        "at",
        "capture",
        "authorized",
        "captured",
        "dispute",
        "disputes",
        "dispute_reason",
        "network_id",
        "checks",
    }
    assert all(line.keys() <= known for line in lines(journal))
    assert [line["last4"] for line in lines(journal)] == ["9987", "0259"]
    # A hash of so few digits would be guessed, were it not keyed.
    assert len((tmp_path / "journal.key").read_bytes()) == 32


async def test_it_remembers_after_a_restart(tmp_path):
    journal = tmp_path / "journal"
    async with bank(journal) as http:
        answers = [
            await post(http, "/v1/authorizations", authorization("a")),
            await post(http, "/v1/authorizations", authorization("d", 1)),
            await post(http, "/v1/refunds", {"reference": "r", "payment": "a", "amount": 4000, "currency": "eur"}),
        ]
        await post(http, "/v1/authorizations", authorization("p", 24))
    before = journal.read_bytes()
    journal.write_bytes(before + b'{"reference": "torn", "kind": "refu')
    async with bank(journal) as http:
        assert journal.read_bytes() == before
        assert await post(http, "/v1/authorizations", authorization("a")) == answers[0]
        assert await post(http, "/v1/authorizations", authorization("d", 1)) == answers[1]
        assert await get(http, "/v1/operations/r") == answers[2]
        assert (await post(http, "/v1/authorizations", authorization("a", 7)))[0] == 409
        _, over = await post(http, "/v1/refunds", {"reference": "r2", "payment": "a", "amount": 201, "currency": "eur"})
        assert (over["status"], over["decline_code"]) == ("Declined", "refund_exceeds_capture")
        _, settled = await post(http, "/v1/authorizations", authorization("p", 24))
        assert settled["status"] == "Accepted"


async def test_a_journal_that_is_no_witness(tmp_path):
    journal = tmp_path / "journal"
    journal.write_bytes(b"dear diary\n")
    with pytest.raises(JournalUnfit, match="line 1"):
        await bank_server.start(0, journal)
    async with bank(tmp_path / "other"):
        with pytest.raises(JournalUnfit, match="running"):
            await bank_server.start(0, tmp_path / "other")


@pytest.mark.parametrize(
    ("body", "status"),
    [(b"{nope", 400), (b"[]", 400), (b"", 400), (b"\xff", 400), (b"[" * 9000, 400), (b" " * 70_000, 400), (b"{}", 400)],
)
async def test_bad_bodies(tmp_path, body, status):
    async with bank(tmp_path / "journal") as http, http.post("/v1/authorizations", data=body) as answer:
        assert answer.status == status
        assert (await answer.json())["message"]


async def test_faults_over_http(tmp_path):
    rules = {"seed": 1, "rules": [{"fault": "error_after", "status": 502, "times": 1}]}
    async with bank(tmp_path / "journal", faults=rules) as http:
        assert (await get(http, "/_faults"))[1] == rules
        assert (await post(http, "/v1/authorizations", authorization("a")))[0] == 502
        assert (await post(http, "/v1/authorizations", authorization("a")))[0] == 200
        assert (await get(http, "/_faults"))[1] == {"seed": 1, "rules": []}
        status, said = await post(http, "/_faults", {"rules": [{"fault": "refuse"}]})
        assert (status, said["field"]) == (422, "rules[0].fault")
        assert (await post(http, "/_faults", {"rules": [{"fault": "throttle", "ms": 1500}]}))[0] == 200
        async with http.post("/v1/authorizations", json=authorization("b")) as answer:
            assert (answer.status, answer.headers["retry-after"]) == (429, "2")
        async with http.post("/_faults", data=b"[]") as answer:
            assert answer.status == 400
    with pytest.raises(FaultsInvalid):
        await bank_server.start(0, tmp_path / "other", faults={"rules": [{"fault": "refuse"}]})


async def test_notices_are_signed_and_owed_until_taken(tmp_path):
    """Nobody takes the dispute at first, the bank dies, and its next life still owes it: once."""
    journal = tmp_path / "journal"
    async with bank(journal, notice_url="http://127.0.0.1:9/", notice_secret=SECRET) as http:
        await post(http, "/v1/authorizations", authorization("a", number="4000000000000259"))
        await asyncio.sleep(1.3)
    assert [line["kind"] for line in lines(journal)] == ["authorization", "dispute"]
    async with mailbox() as (url, mail):
        async with bank(journal, notice_url=url, notice_secret=SECRET):
            headers, body = await asyncio.wait_for(mail.get(), 5)
            assert headers["x-bank-signature"] == hmac.new(SECRET.encode(), body, hashlib.sha256).hexdigest()
            assert json.loads(body)["parent"] == "a"
            await asyncio.sleep(0.1)
        async with bank(journal, notice_url=url, notice_secret=SECRET):
            await asyncio.sleep(1.2)
            assert mail.empty()


async def test_an_acceptance_is_confirmed_also_after_a_restart(tmp_path):
    journal = tmp_path / "journal"
    nowhere = {"notice_url": "http://127.0.0.1:9/", "notice_secret": SECRET}
    async with bank(journal, **nowhere) as http:
        await post(http, "/v1/authorizations", authorization("a"))
        _, opened = await post(http, "/_disputes", {"parent": "a", "reference": "fall/ö"})
        place = "/v1/disputes/fall%2F%C3%B6/accept"
        for _ in range(2):
            status, _ = await post(http, place, {"reference": "fall/ö"}, **{"idempotency-key": "chargeback-accept-1"})
            assert status == 200
        assert (await post(http, "/_disputes", {"parent": "b"}))[0] == 404
    assert [line["kind"] for line in lines(journal)] == ["authorization", "dispute", "accept"]
    async with mailbox() as (url, mail):
        async with bank(journal, notice_url=url, notice_secret=SECRET):
            _, body = await asyncio.wait_for(mail.get(), 5)
            told = json.loads(body)
            assert (told["reference"], told["status"], opened["status"]) == ("fall/ö", "Accepted", "Opened")
        assert mail.empty()


async def test_an_early_notice_comes_before_the_answer(tmp_path):
    rules = {"rules": [{"fault": "early_notice"}]}
    async with (
        mailbox() as (url, mail),
        bank(tmp_path / "journal", notice_url=url, notice_secret=SECRET, faults=rules) as http,
    ):
        await post(http, "/v1/authorizations", authorization("a"))
        assert not mail.empty()


PROGRAM = "import sys; from tillway.sandbox.bank_server import main; main(0, sys.argv[1], faults=sys.argv[2])"


def spawn(journal, faults="{}"):
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, str(journal), faults], stderr=subprocess.PIPE, text=True)
    ready = program.stderr.readline()
    assert ready.startswith("listening on 127.0.0.1:"), ready
    return program, int(ready.rsplit(":", 1)[1])


async def test_what_was_answered_is_in_the_journal_after_kill_9(tmp_path):
    journal = tmp_path / "journal"
    answered = {}
    for life in range(3):
        program, port = spawn(journal, '{"rules": [{"fault": "slow", "ms": 2, "probability": 0.2}]}')
        try:
            async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:

                async def customer(number, life=life, http=http):
                    for turn in range(10_000):
                        reference = f"l{life}-{number}-{turn}"
                        _, answer = await post(http, "/v1/authorizations", authorization(reference, 100 + turn))
                        answered[reference] = answer["amount"]

                customers = [asyncio.ensure_future(customer(number)) for number in range(8)]
                await asyncio.sleep(0.4)
                program.send_signal(signal.SIGKILL)
                await asyncio.gather(*customers, return_exceptions=True)
        finally:
            program.kill()
            program.wait()
            program.stderr.close()
    kept = {}
    for line in journal.read_text().splitlines():
        with contextlib.suppress(json.JSONDecodeError):
            effect = json.loads(line)
            assert effect["reference"] not in kept, "an effect stands twice in the journal"
            kept[effect["reference"]] = effect["amount"]
    assert len(answered) > 100
    assert {reference: kept.get(reference) for reference in answered} == answered
    async with bank(journal) as http:
        reference = next(iter(answered))
        assert (await get(http, f"/v1/operations/{reference}"))[1]["amount"] == answered[reference]


def test_main_refuses_what_cannot_be(tmp_path):
    for faults in ("{", "[]", '{"rules": [{"fault": "x"}]}'):
        with pytest.raises(FaultsInvalid):
            bank_server.main(0, os.fspath(tmp_path / "journal"), faults=faults)
