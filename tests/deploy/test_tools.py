"""CloudFormation, CDK and Terraform make the same stage in an emulator of AWS, and leave nothing of it.

The functions are stubs here, which only answer the admin's event; tests/e2e/test_aws_stage.py runs the real ones.
"""

import copy
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import SkipTest

import pytest
from aws_account import Account, missing
from aws_inventory import described, names
from packages import ROOT

pytestmark = pytest.mark.soak

FIRST, SECOND = "qx1", "qx2"
"""Stages whose names stand in no text of a resource."""

HANDLER = """
def handler(event, context=None):
    return {"account": "acct_x", "secret_key": "sk_test_x", "publishable_key": "pk_test_x"}
"""


@pytest.fixture(scope="module")
def account() -> Iterator[Account]:
    try:
        account = Account()
    except SkipTest as reason:
        pytest.skip(str(reason))
    yield account
    account.close()


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("stub") / "stub.zip"
    with zipfile.ZipFile(file, "w") as content:
        for module in ("__init__", "aws/__init__"):
            content.writestr(f"tillway/{module}.py", "")
        for function in ("api", "worker", "step", "admin"):
            content.writestr(f"tillway/aws/{function}.py", HANDLER)
    return file


@pytest.fixture(scope="module")
def plain(account: Account, stub: Path) -> Iterator[dict[str, Any]]:
    """The first stage, by CloudFormation, as it is described; it stands beside those of the tests."""
    account.deploy("cloudformation", FIRST, stub)
    yield described(account.client, FIRST)
    account.destroy("cloudformation", FIRST)
    assert names(account.client, FIRST) == set()


NOT_EMULATED = ("api stage", "table encrypted", "table forgets", "table recovers")
"""Parts of the template that the emulator's CloudFormation leaves out; test_template.py reads them."""

BY_OTHER_TOOLS = {
    "api stage": {
        "StageName": "$default",
        "AutoDeploy": True,
        "DefaultRouteSettings": {
            "DetailedMetricsEnabled": True,
            "ThrottlingBurstLimit": 2000,
            "ThrottlingRateLimit": 1000.0,
        },
    },
    "table forgets": {"TimeToLiveStatus": "ENABLED", "AttributeName": "e"},
    "table recovers": "ENABLED",
}


@pytest.mark.parametrize("tool", ["cdk", "terraform"])
def test_a_tool_makes_the_same_stage_beside_another(
    account: Account, stub: Path, plain: dict[str, Any], tool: str
) -> None:
    if reason := missing(tool, account):
        pytest.skip(reason)
    made = account.deploy(tool, SECOND, stub)
    assert made.keys() == {"url", "secret_key", "publishable_key", "store"}
    other, expected = described(account.client, SECOND), copy.deepcopy(plain)
    if tool == "terraform":
        assert other["table encrypted"]["SSEType"] == "KMS"
        assert {name: other[name] for name in BY_OTHER_TOOLS} == BY_OTHER_TOOLS
        assert other["function worker"].pop("DeadLetterConfig")["TargetArn"].endswith("STAGE-failures")
        other = {name: value for name, value in other.items() if name not in NOT_EMULATED}
        expected = {name: value for name, value in expected.items() if name not in NOT_EMULATED}
    for name in sorted(other.keys() | expected.keys()):
        assert other.get(name) == expected.get(name), name
    before = names(account.client, FIRST)
    if tool == "terraform":
        for wrong, stage in (("cloudformation", SECOND), ("terraform", FIRST)):
            done = account.stage("destroy", wrong, stage)
            assert done.returncode == 2 and f"made the stage {stage}" in done.stderr
    assert "is gone" in account.destroy(tool, SECOND)
    assert names(account.client, SECOND) == set()
    assert names(account.client, FIRST) == before and len(before) > 40


def test_a_stage_is_deployed_again_and_is_protected_if_wanted(account: Account, stub: Path) -> None:
    account.deploy("cloudformation", "kept", stub)
    account.deploy(
        "cloudformation", "kept", stub, "DeletionProtection=true", "TokensFor=operators", "AuditTrail=bucket"
    )
    [pool] = [name for name in names(account.client, "kept") if name.startswith("cognito-idp")]
    assert pool == "cognito-idp tillway-kept"
    done = account.stage("destroy", "cloudformation", "kept")
    assert done.returncode == 1 and "is protected" in done.stderr
    assert len(names(account.client, "kept")) > 40
    account.deploy("cloudformation", "kept", stub, "AuditTrail=bucket")
    assert "The audit trail stays" in account.destroy("cloudformation", "kept")
    assert {name.rpartition("-")[0] for name in names(account.client, "kept")} == {"s3 tillway-kept-audit"}
    assert "There is no stage" in account.destroy("cloudformation", "kept")


def test_terraform_takes_the_module_and_its_own_tests_pass(account: Account) -> None:
    if reason := missing("terraform", account):
        pytest.skip(reason)
    module = ROOT / "deploy" / "aws" / "terraform"
    environment = account.variables | {"TF_DATA_DIR": str(account.folder / "terraform")}
    for command in (("fmt", "-check", "-diff", "-recursive"), ("validate", "-no-color"), ("test", "-no-color")):
        done = subprocess.run(
            ("terraform", f"-chdir={module}", *command), capture_output=True, text=True, env=environment, timeout=120
        )
        assert done.returncode == 0, done.stdout + done.stderr
