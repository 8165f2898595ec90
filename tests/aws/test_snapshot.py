"""SnapStart: many environments begin as copies of one. A fork of the process that has imported the function is one."""

import json
import subprocess
import sys

import pytest
from aws_stage import Stage

COPIES = """
import ctypes, json, os, sys
from tillway.aws import api
from tillway.engine.ids import random_text

random_text(6)  # Randomness is drawn ahead, and the snapshot holds what is left of it.
key, method = sys.argv[1:]
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
fork = ctypes.CDLL(None).fork  # A snapshot tells Python nothing, as `os.fork` does.
for _ in range(2):
    if fork() == 0:
        answers = [api.handler(event) for _ in range(2)]
        print(json.dumps([[answer["statusCode"], json.loads(answer["body"])["id"]] for answer in answers]), flush=True)
        os._exit(0)
    os.wait()
"""


@pytest.mark.soak
def test_copies_of_one_snapshot_make_ids_of_their_own(stage: Stage) -> None:
    keys = stage.function("admin").invoke({"action": "init", "name": "Shop"})
    done = subprocess.run(
        [sys.executable, "-c", COPIES, keys["secret_key"], "pm_card_visa"],
        capture_output=True,
        text=True,
        timeout=120,
        env=stage.environment,
    )
    assert done.returncode == 0, done.stderr
    copies = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("[[")]
    answers = [answer for copy in copies for answer in copy]
    assert [status for status, _ in answers] == [200] * 4, done.stdout
    # Ids begin with the time; the six characters before the last two are chance.
    assert len({id[-8:-2] for _, id in answers}) == 4, answers
