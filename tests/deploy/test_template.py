"""The CloudFormation template: rules of the house, each with a mutant that breaks it, and the linters of the field."""

import copy
import json
import os
import re
import runpy
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml
from linters import installed
from packages import ROOT
from tillway_server import tillway

from tillway.aws.wake_ups import stream_filter

AWS = ROOT / "deploy" / "aws"
TEMPLATE = AWS / "template.yaml"
PAGE = ROOT / "docs" / "aws-stages.md"
SCRIPT = runpy.run_path(str(ROOT / "scripts" / "aws_page.py"))
PARSED: dict[str, Any] = SCRIPT["parse"](TEMPLATE.read_text())

Template = dict[str, Any]

SECONDS = {"api": 29, "worker": 60, "step": 45, "admin": 300}

ENVIRONMENT = {
    *("TILLWAY_STAGE", "TILLWAY_STORE", "TILLWAY_KEYS", "TILLWAY_QUEUE_URL", "TILLWAY_STATE_MACHINE"),
    *("TILLWAY_PUBLIC_URL", "TILLWAY_PRIVATE_ADDRESSES", "TILLWAY_AUDIT_BUCKET", "TILLWAY_LOG_FORMAT"),
    "TILLWAY_LOG_LEVEL",
}

NAMES = (
    *("AlarmName", "AliasName", "BucketName", "DashboardName", "FilterName", "FunctionName", "LogGroupName"),
    *("ManagedPolicyName", "QueueName", "RoleName", "StateMachineName", "TableName", "UserPoolName"),
)
"""Properties that name a resource; `Name` and `ClientName` name some as well."""

WITH_ANY_RESOURCE = {"xray:PutTraceSegments", "xray:PutTelemetryRecords"}
"""Actions without a narrower resource."""


def of_type(template: Template, kind: str) -> dict[str, dict[str, Any]]:
    """The properties of the resources of a type, by their logical ids."""
    return {
        name: each.get("Properties", {})
        for name, each in template["Resources"].items()
        if each["Type"] == f"AWS::{kind}"
    }


# The rules: each says how a template breaks it.


def naming(template: Template) -> Iterator[str]:
    for id, resource in template["Resources"].items():
        for name, value in resource.get("Properties", {}).items():
            function = resource["Type"] in ("AWS::Lambda::EventSourceMapping", "AWS::Lambda::Permission")
            log = resource["Type"] == "AWS::Logs::MetricFilter" and name == "LogGroupName"
            if name in NAMES and not function and not log and "tillway-${Stage}" not in str(value):
                yield f"{id}: {name} does not name the stage"


def functions(template: Template) -> Iterator[str]:
    found = of_type(template, "Lambda::Function")
    names = {each["FunctionName"]["Fn::Sub"].removeprefix("tillway-${Stage}-"): each for each in found.values()}
    if names.keys() != SECONDS.keys():
        yield f"functions {sorted(names)}"
        return
    environments = [each["Environment"]["Variables"] for each in found.values()]
    if any(each != environments[0] for each in environments) or environments[0].keys() != ENVIRONMENT:
        yield "the functions have not one environment"
    if len({json.dumps(each["Role"]) for each in found.values()}) != len(found):
        yield "two functions share a role"
    for name, each in names.items():
        handler = f"tillway.aws.{name}.handler"
        if each["Handler"]["Fn::If"][2] != handler or each["ImageConfig"]["Fn::If"][1]["Command"] != [handler]:
            yield f"{name}: another handler"
        if each["Timeout"] != SECONDS[name]:
            yield f"{name}: another time-out"
        log = template["Resources"][each["LoggingConfig"]["LogGroup"]["Ref"]]["Properties"]
        if log["LogGroupName"]["Fn::Sub"] != f"/aws/lambda/tillway-${{Stage}}-{name}" or "RetentionInDays" not in log:
            yield f"{name}: its log group is not its own, or keeps lines for ever"


def permissions(template: Template) -> Iterator[str]:
    for id, resource in template["Resources"].items():
        if resource["Type"] not in ("AWS::IAM::Role", "AWS::IAM::ManagedPolicy"):
            continue
        for statement in SCRIPT["statements"](resource):
            actions, where = statement["Action"], json.dumps(statement["Resource"])
            if any("*" in action for action in actions) or "dynamodb:Scan" in actions:
                yield f"{id}: {statement['Sid']} allows {actions}"
            if "*" in where.replace("/audit/*", "").replace("/ledger/*", "") and not set(actions) <= WITH_ANY_RESOURCE:
                yield f"{id}: {statement['Sid']} reaches {where}"


def records(template: Template) -> Iterator[str]:
    [table] = of_type(template, "DynamoDB::Table").values()
    if not table.get("PointInTimeRecoverySpecification", {}).get("PointInTimeRecoveryEnabled"):
        yield "no point-in-time recovery"
    if table.get("SSESpecification", {}).get("KMSMasterKeyId") != {"Fn::GetAtt": ["Key", "Arn"]}:
        yield "the table is not encrypted under the stage's own key"
    [secret] = of_type(template, "SecretsManager::Secret").values()
    if secret.get("KmsKeyId") != {"Fn::GetAtt": ["Key", "Arn"]}:
        yield "the secret is not encrypted under the stage's own key"
    if table.get("DeletionProtectionEnabled") != {"Fn::If": ["Protected", True, False]}:
        yield "the deletion protection is no parameter"


def audit_bucket(template: Template) -> Iterator[str]:
    policy = template["Resources"].get("AuditBucketPolicy", {"Properties": {"PolicyDocument": {"Statement": []}}})
    plain = {"Bool": {"aws:SecureTransport": "false"}}
    statements = policy["Properties"]["PolicyDocument"]["Statement"]
    if not any(each["Effect"] == "Deny" and each.get("Condition") == plain for each in statements):
        yield "the audit bucket takes requests without TLS"
    elsewhere = {"Fn::And": [{"Condition": "HasAuditBucket"}, {"Fn::Not": [{"Condition": "Emulated"}]}]}
    if template["Conditions"].get(policy.get("Condition")) != elsewhere:
        yield "the audit bucket refuses requests without TLS in an emulator too, or not on AWS"


def wake_ups(template: Template) -> Iterator[str]:
    mappings = list(of_type(template, "Lambda::EventSourceMapping").values())
    streams = [each for each in mappings if "StartingPosition" in each]
    rules = [each["ScheduleExpression"] for each in of_type(template, "Events::Rule").values()]
    if rules != ["rate(1 minute)"]:
        yield "no rule of every minute"
    if len(streams) != 1 or len(mappings) != 2:
        yield "not one stream and one queue"
        return
    [stream] = streams
    if "FilterCriteria" not in stream:
        yield "the stream has no filter"
        return
    pattern = json.loads(stream["FilterCriteria"]["Filters"][0]["Pattern"])
    if pattern != stream_filter():
        yield f"the stream wakes for {pattern}"
    if "OnFailure" not in stream.get("DestinationConfig", {}) or not stream.get("BisectBatchOnFunctionError"):
        yield "a bad record of the stream holds up the others"
    soon = template["Resources"]["Soon"]["Properties"]
    if "RedrivePolicy" not in soon or soon["VisibilityTimeout"] < 6 * SECONDS["worker"]:
        yield "a message that fails comes back for ever, or while it is worked on"


def callers(template: Template) -> Iterator[str]:
    principals = {each["Principal"] for each in of_type(template, "Lambda::Permission").values()}
    if principals != {"events.amazonaws.com", "apigateway.amazonaws.com"}:
        yield f"functions are called by {sorted(principals)}"
    if any("SourceArn" not in each for each in of_type(template, "Lambda::Permission").values()):
        yield "a service may call a function for anybody"
    [stage] = of_type(template, "ApiGatewayV2::Stage").values()
    if not {"ThrottlingRateLimit", "ThrottlingBurstLimit"} <= stage.get("DefaultRouteSettings", {}).keys():
        yield "the API has no throttle"


ALARMED = {
    *("5xx", "Latency", "Errors", "Throttles", "IteratorAge", "ApproximateAgeOfOldestMessage", "Invocations"),
    *("ApproximateNumberOfMessagesVisible", "WriteThrottleEvents", "ReadThrottleEvents"),
    *("errors-logged", "webhook-failures", "clock-trouble", "doubts", "oldest-due-seconds"),
}


def alarms(template: Template) -> Iterator[str]:
    found = of_type(template, "CloudWatch::Alarm")
    if missing := ALARMED - {each["MetricName"] for each in found.values()}:
        yield f"no alarm for {sorted(missing)}"
    metrics = {
        each["MetricTransformations"][0]["MetricName"] for each in of_type(template, "Logs::MetricFilter").values()
    }
    for id, each in found.items():
        if each["Namespace"] == {"Fn::Sub": "tillway-${Stage}"} and each["MetricName"] not in metrics:
            yield f"{id}: no log line counts as {each['MetricName']}"
        if len(each.get("AlarmDescription", "")) < 60:
            yield f"{id}: no runbook"


RULES: tuple[Callable[[Template], Iterator[str]], ...] = (
    *(naming, functions, permissions, records, audit_bucket, wake_ups, callers, alarms),
)


def problems(template: Template) -> list[str]:
    return [problem for rule in RULES for problem in rule(template)]


def test_the_template_keeps_the_rules() -> None:
    assert problems(PARSED) == []


def remove(*path: str | int) -> Callable[[Template], None]:
    def change(template: Template) -> None:
        place: Any = template["Resources"]
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return change


def put(value: Any, *path: str | int) -> Callable[[Template], None]:
    def change(template: Template) -> None:
        place: Any = template["Resources"]
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


STATEMENTS = ("DataPolicy", "Properties", "PolicyDocument", "Statement")
MUTANTS: dict[str, tuple[Callable[[Template], None], str]] = {
    "no schedule": (remove("EveryMinute"), "no rule of every minute"),
    "another schedule": (put("rate(1 hour)", "EveryMinute", "Properties", "ScheduleExpression"), "no rule of every"),
    "no stream": (remove("Stream"), "not one stream"),
    "no stream filter": (remove("Stream", "Properties", "FilterCriteria"), "no filter"),
    "every change": (
        put('{"dynamodb":{}}', "Stream", "Properties", "FilterCriteria", "Filters", 0, "Pattern"),
        "the stream wakes",
    ),
    "no failure queue": (remove("Stream", "Properties", "DestinationConfig"), "holds up"),
    "no redrive": (remove("Soon", "Properties", "RedrivePolicy"), "for ever"),
    "a star in actions": (put(["dynamodb:*"], *STATEMENTS, 0, "Action"), "allows"),
    "a star in resources": (put("*", *STATEMENTS, 0, "Resource"), "reaches"),
    "every secret": (
        put({"Fn::Sub": "arn:${AWS::Partition}:secretsmanager:*:secret:*"}, *STATEMENTS, 2, "Resource"),
        "rea",
    ),
    "a scan": (put(["dynamodb:Scan"], *STATEMENTS, 0, "Action"), "allows"),
    "no recovery": (remove("Table", "Properties", "PointInTimeRecoverySpecification"), "point-in-time"),
    "no key": (remove("Table", "Properties", "SSESpecification"), "table is not encrypted"),
    "no key of the secret": (remove("KeysSecret", "Properties", "KmsKeyId"), "secret is not encrypted"),
    "never protected": (put(False, "Table", "Properties", "DeletionProtectionEnabled"), "deletion protection"),
    "plain HTTP": (remove("AuditBucketPolicy"), "takes requests without TLS"),
    "no copy in an emulator": (put("HasAuditBucket", "AuditBucketPolicy", "Condition"), "in an emulator too"),
    "a shared role": (put({"Fn::GetAtt": ["WorkerRole", "Arn"]}, "ApiFunction", "Properties", "Role"), "share a role"),
    "another variable": (put("1", "StepFunction", "Properties", "Environment", "Variables", "X"), "one environment"),
    "no retention": (remove("ApiLogs", "Properties", "RetentionInDays"), "for ever"),
    "no throttle": (remove("ApiStage", "Properties", "DefaultRouteSettings"), "no throttle"),
    "called by anybody": (remove("ApiMayInvoke", "Properties", "SourceArn"), "for anybody"),
    "no permission": (remove("EveryMinuteMayInvoke"), "called by"),
    "no stage in a name": (put("tillway-failures", "Failures", "Properties", "QueueName"), "name the stage"),
    "no alarm": (remove("DeadLetters"), "no alarm"),
    "an alarm without lines": (remove("ClockTrouble"), "no log line"),
    "no runbook": (remove("Slow", "Properties", "AlarmDescription"), "no runbook"),
}


def test_terraform_has_the_alarms_and_lines_of_the_template() -> None:
    """Read as text: Terraform itself is not everywhere, and compares the rest where it is (test_tools.py)."""
    module = (ROOT / "deploy" / "aws" / "terraform" / "watch.tf").read_text()
    blocks = dict(re.findall(r"^    ([a-z-]+) = \{\n(.*?)^    \}$", module, re.M | re.S))
    alarms = {each["AlarmName"]["Fn::Sub"]: each for each in of_type(PARSED, "CloudWatch::Alarm").values()}
    assert {f"tillway-${{Stage}}-{name}" for name in blocks} == alarms.keys()
    for name, block in blocks.items():
        told = dict(re.findall(r"^      (\w+) +=\s+\"?(.*?)\"?$", block, re.M))
        alarm = alarms[f"tillway-${{Stage}}-{name}"]
        statistic = alarm.get("Statistic") or alarm["ExtendedStatistic"]
        known = {
            "description": alarm["AlarmDescription"].strip().replace('"', '\\"'),
            "metric": alarm["MetricName"],
            "statistic": statistic,
            "period": str(alarm["Period"]),
            "periods": str(alarm["EvaluationPeriods"]),
            "threshold": str(alarm["Threshold"]),
            "comparison": alarm["ComparisonOperator"],
            "missing": alarm["TreatMissingData"],
        }
        assert {key: told[key] for key in known} == known, name
    lines = re.findall(
        r'^    ([a-z-]+) += \{ function = "(\w+)", metric = "([a-z-]+)", pattern = "(.*?)"(?:, value = "(.*?)")? \}$',
        module,
        re.M,
    )
    filters = of_type(PARSED, "Logs::MetricFilter").values()
    assert {(name, metric, pattern.replace('\\"', '"'), value or "1") for name, _, metric, pattern, value in lines} == {
        (
            each["FilterName"]["Fn::Sub"].removeprefix("tillway-${Stage}-"),
            each["MetricTransformations"][0]["MetricName"],
            each["FilterPattern"],
            each["MetricTransformations"][0]["MetricValue"],
        )
        for each in filters
    }


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_breaks_a_rule(name: str) -> None:
    change, says = MUTANTS[name]
    mutant = copy.deepcopy(PARSED)
    change(mutant)
    assert [problem for problem in problems(mutant) if says in problem], problems(mutant)


# The table is the one that `tillway migrate` makes.


@contextmanager
def dynamodb_without_a_table(made: list[dict[str, Any]]) -> Iterator[str]:
    """An address that takes CreateTable and UpdateTimeToLive and keeps their bodies in `made`."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            operation = self.headers["x-amz-target"].rpartition(".")[2]
            status, answer = 200, dict[str, Any]()
            match operation:
                case "CreateTable" | "UpdateTimeToLive":
                    made.append(body)
                case "DescribeTable" if not made:
                    status, answer = 400, {"__type": "x#ResourceNotFoundException", "message": "none"}
                case "DescribeTable":
                    answer = {"Table": {**made[0], "TableStatus": "ACTIVE"}}
                case "DescribeTimeToLive":
                    answer = {"TimeToLiveDescription": {"TimeToLiveStatus": "DISABLED"}}
            said = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("content-length", str(len(said)))
            self.end_headers()
            self.wfile.write(said)

        def log_message(self, *arguments: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.fixture(scope="module")
def migrated() -> list[dict[str, Any]]:
    """CreateTable and UpdateTimeToLive, as `tillway migrate` calls them."""
    made: list[dict[str, Any]] = []
    with dynamodb_without_a_table(made) as address:
        store = f"dynamodb://tillway-x?region=eu-central-1&endpoint={address}"
        done = tillway("migrate", "--store", store, AWS_ACCESS_KEY_ID="x", AWS_SECRET_ACCESS_KEY="x")
    assert len(made) == 2, done.stderr
    return made


def table_of(template: Template) -> dict[str, Any]:
    """The part of the template's table that `tillway migrate` decides."""
    [table] = of_type(template, "DynamoDB::Table").values()
    names = ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")
    found = {name: table.get(name) for name in names}
    stream = table.get("StreamSpecification", {})
    return found | {"Stream": stream.get("StreamViewType"), "TimeToLive": table.get("TimeToLiveSpecification")}


def expected(migrated: list[dict[str, Any]]) -> dict[str, Any]:
    created, ttl = migrated
    names = ("BillingMode", "AttributeDefinitions", "KeySchema", "GlobalSecondaryIndexes")
    found = {name: created[name] for name in names}
    assert created["StreamSpecification"]["StreamEnabled"] is True
    stream = created["StreamSpecification"]["StreamViewType"]
    return found | {"Stream": stream, "TimeToLive": ttl["TimeToLiveSpecification"]}


def test_the_table_is_the_one_that_migrate_makes(migrated: list[dict[str, Any]]) -> None:
    assert table_of(PARSED) == expected(migrated)
    for member in ("GlobalSecondaryIndexes", "TimeToLiveSpecification", "StreamSpecification"):
        mutant = copy.deepcopy(PARSED)
        remove("Table", "Properties", member)(mutant)
        assert table_of(mutant) != expected(migrated), member


# The page, and the linters.


def test_the_page_has_what_the_template_says() -> None:
    assert SCRIPT["page"](PAGE.read_text(), PARSED) == PAGE.read_text(), "run `python scripts/aws_page.py`"


def test_the_stack_is_small_enough_to_be_sent() -> None:
    """CloudFormation takes 51,200 bytes of a template that is not in a bucket."""
    assert len(TEMPLATE.read_bytes()) <= 51_200


def lint(*command: str | Path, cwd: Path) -> tuple[int, str]:
    environment = {**os.environ, "AWS_DEFAULT_REGION": "eu-central-1", "SAM_CLI_TELEMETRY": "0", "HOME": str(cwd)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=cwd, env=environment, timeout=300)
    return done.returncode, done.stdout + done.stderr


def test_cfn_lint_takes_the_template(tmp_path: Path) -> None:
    code, said = lint(installed("cfn-lint==1.58.0", "cfn-lint"), TEMPLATE, cwd=tmp_path)
    assert code == 0, said


@pytest.mark.soak
def test_sam_takes_the_template(tmp_path: Path) -> None:
    sam = installed("aws-sam-cli==1.170.0", "sam")
    code, said = lint(sam, "validate", "--lint", "--template", TEMPLATE, cwd=tmp_path)
    assert code == 0, said


@pytest.mark.soak
def test_checkov_takes_the_template_and_its_waivers_are_needed(tmp_path: Path) -> None:
    checkov = installed("checkov==3.3.30", "checkov")
    settings = AWS / "checkov.yaml"
    code, said = lint(checkov, "--config-file", settings, "--file", TEMPLATE, cwd=tmp_path)
    assert code == 0, said
    waived = yaml.safe_load(settings.read_text())["skip-check"]
    reasons = re.findall(r"^  - (CKV\w+)  # \w.{40,}\.$", settings.read_text(), re.MULTILINE)
    assert reasons == waived, "a waiver without a reason"
    own = ("--framework", "cloudformation", "--skip-download", "--compact", "--quiet")
    code, said = lint(checkov, *own, "--file", TEMPLATE, cwd=tmp_path)
    assert code == 1 and set(re.findall(r"Check: (\w+):", said)) == set(waived)
