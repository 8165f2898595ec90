"""Stripe's SDKs of several versions, each as its registry has it, run a shop's calls unmodified.

`docs/stripe-compatibility.md` names the versions that ran.
"""

import json
from pathlib import Path
from typing import Any

import pytest
from own_environment import node_with, output_of, python_with
from tillway_server import TillwayServer

pytestmark = pytest.mark.soak

SCRIPTS = Path(__file__).parent / "scripts"

PYTHON = ("5.5.0", "7.14.0", "9.12.0", "11.6.0", "12.4.0", "16.1.0")
NODE = ("8.222.0", "10.17.0", "12.18.0", "14.25.0", "17.7.0", "23.1.0")


def expected(version: str) -> dict[str, Any]:
    """What each shop sees, whatever its SDK."""
    return {
        "version": version,
        "payment": "succeeded",
        "same": True,
        "charge": 4200,
        "declined": "insufficient_funds",
        "captured": 800,
        "refund": "succeeded",
        "customers": 4,
        "events": ["charge.refunded", "payment_intent.succeeded"],
        "session": "c",
        "deleted": True,
    }


def address_of(server: TillwayServer) -> dict[str, str]:
    return {"TILLWAY_URL": server.base_url, "TILLWAY_KEY": server.new_account()["secret_key"]}


@pytest.mark.parametrize("version", PYTHON)
def test_stripe_python(tillway_server: TillwayServer, tmp_path: Path, version: str) -> None:
    python = python_with(tmp_path / "environment", f"stripe=={version}")
    told = output_of(python, SCRIPTS / "stripe_python.py", cwd=tmp_path, **address_of(tillway_server))
    assert json.loads(told) == expected(version)


@pytest.mark.parametrize("version", NODE)
def test_stripe_node(tillway_server: TillwayServer, tmp_path: Path, version: str) -> None:
    installed = tmp_path / "environment"
    node = node_with(installed, f"stripe@{version}")
    script = installed / "shop.js"
    script.write_text((SCRIPTS / "stripe_node.js").read_text())
    told = output_of(node, script, cwd=installed, **address_of(tillway_server))
    assert json.loads(told) == expected(version)
