"""SnapStart: many environments begin as copies of one, some time later. A fork of the process that has imported the
function is one, whose wall clock goes on four minutes later and whose connections lead nowhere."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from aws_stage import Stage
from clock_of_processes import ProcessClock

# More would be another time than the table's, and no payment is then begun (`SKEW_SECONDS`).
COPIES = """
import ctypes, json, os, socket, stat, sys
from tillway.aws import api
from tillway.engine.ids import random_text

random_text(6)  # Randomness is drawn ahead, and the snapshot holds what is left of it.
key, method, before, clock = sys.argv[1:]
body = "amount=4200&currency=eur&confirm=true&return_url=https://shop.example/back&payment_method=" + method
event = {
    "version": "2.0", "rawPath": "/v1/payment_intents", "rawQueryString": "",
    "headers": {"authorization": "Bearer " + key, "content-type": "application/x-www-form-urlencoded"},
    "requestContext": {
        "domainName": "shop.example", "stage": "$default",
        "http": {"method": "POST", "path": "/v1/payment_intents", "sourceIp": "203.0.113.7"},
    },
    "body": body, "isBase64Encoded": False,
}

def connections():
    found = []
    for fd in [int(name) for name in os.listdir("/proc/self/fd")]:
        try:
            if stat.S_ISSOCK(os.fstat(fd).st_mode):
                with socket.socket(fileno=os.dup(fd)) as one:
                    found += [fd] if one.family in (socket.AF_INET, socket.AF_INET6) else []
        except OSError:  # The descriptor of the listing itself.
            continue
    return found

def pay(times):
    answers = [api.handler(event) for _ in range(times)]
    paid = [json.loads(answer["body"]) for answer in answers]
    return [[answer["statusCode"], one["id"], one["created"]] for answer, one in zip(answers, paid)]

first = pay(int(before))
fork = ctypes.CDLL(None).fork  # A snapshot tells Python nothing, as `os.fork` does.
for _ in range(2):
    if fork() == 0:
        kept, pairs = connections(), []
        for fd in kept:  # No word comes from the other side any more, not even that it has closed.
            pairs.append(socket.socketpair())
            os.dup2(pairs[-1][0].fileno(), fd)
        with open(clock, "r+b", buffering=0) as ahead:
            ahead.write(b"+000000240s")
        paid, sent = pay(2), 0
        for _, other in pairs:
            other.setblocking(False)
            try:
                sent += len(other.recv(1 << 20))
            except BlockingIOError:
                continue
        print(json.dumps({"first": first, "kept": len(kept), "paid": paid, "sent": sent}), flush=True)
        os._exit(0)
    _, status = os.wait()
    assert status == 0, status
"""


@pytest.mark.soak
# The second one begins above the mark of time that the copies of the first have left in the table.
@pytest.mark.parametrize("before", [1, 0], ids=["after a request", "before the first one"])
def test_copies_of_one_snapshot_have_ids_connections_and_a_clock_of_their_own(
    stage: Stage, tmp_path: Path, before: int
) -> None:
    admin = stage.function("admin")
    made = admin.invoke({"action": "init", "name": "Shop"})
    keys = made if "secret_key" in made else admin.invoke({"action": "keys"})
    clock = ProcessClock("hook", tmp_path)
    done = subprocess.run(
        [sys.executable, "-c", COPIES, keys["secret_key"], "pm_card_visa", str(before), tmp_path / "ahead"],
        capture_output=True,
        text=True,
        timeout=120,
        env={**stage.environment, **clock.environment},
    )
    assert done.returncode == 0, done.stderr
    copies = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"first"')]
    assert [(len(copy["paid"]), copy["sent"]) for copy in copies] == [(2, 0)] * 2
    answers = [*copies[0]["first"], *(answer for copy in copies for answer in copy["paid"])]
    assert [status for status, _, _ in answers] == [200] * (before + 4), done.stdout
    # Ids begin with the time; the six characters before the last two are chance.
    assert len({id[-8:-2] for _, id, _ in answers}) == before + 4, answers
    if before:
        assert all(copy["kept"] > 0 for copy in copies), "there was no connection to lose"
        at = copies[0]["first"][0][2]
        assert all(235 <= created - at < 300 + 240 for copy in copies for _, _, created in copy["paid"]), answers
