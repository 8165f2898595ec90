"""Airbyte's source of Stripe reads streams of the account. It prints the records of each stream as JSON."""

import json
import os
import subprocess
import sys
from collections import Counter
from typing import Any

from airbyte_cdk.sources.declarative.yaml_declarative_source import YamlDeclarativeSource
from source_stripe.run import run

wanted = sys.argv[1:]
read_yaml = YamlDeclarativeSource._read_and_parse_yaml_file


def read_with_address(self: YamlDeclarativeSource, path: str) -> Any:
    """The source's manifest, with the address of the server."""
    manifest = dict(read_yaml(self, path))
    manifest["definitions"]["base_requester"]["url_base"] = os.environ["TILLWAY_URL"] + "/v1"
    return manifest


YamlDeclarativeSource._read_and_parse_yaml_file = read_with_address


if wanted[:1] == ["source"]:
    sys.argv = ["source-stripe", *wanted[1:]]
    sys.exit(run())


def messages(*arguments: str) -> list[Any]:
    """The messages of the source with these arguments."""
    done = subprocess.run([sys.executable, __file__, "source", *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


given = {"account_id": os.environ["TILLWAY_ACCOUNT"], "client_secret": os.environ["TILLWAY_KEY"]}
with open("config.json", "w") as file:
    json.dump({**given, "start_date": "2026-01-01T00:00:00Z"}, file)
checked = [one["connectionStatus"] for one in messages("check", "--config", "config.json") if "connectionStatus" in one]
assert checked and checked[0]["status"] == "SUCCEEDED", checked
found = next(one["catalog"] for one in messages("discover", "--config", "config.json") if "catalog" in one)
streams = [
    {"stream": stream, "sync_mode": "full_refresh", "destination_sync_mode": "append"}
    for stream in found["streams"]
    if not wanted or stream["name"] in wanted
]
with open("catalog.json", "w") as file:
    json.dump({"streams": streams}, file)
told = messages("read", "--config", "config.json", "--catalog", "catalog.json")
failed = [one["trace"]["error"] for one in told if one.get("type") == "TRACE" and "error" in one["trace"]]
assert not failed, failed
print(json.dumps(Counter(one["record"]["stream"] for one in told if one.get("type") == "RECORD")))
