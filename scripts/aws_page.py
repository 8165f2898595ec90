"""Renew the parts of docs/aws-stages.md that come from deploy/aws/template.yaml: its drawing, parameters and alarms."""

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
TEMPLATE = ROOT / "deploy" / "aws" / "template.yaml"
PAGE = ROOT / "docs" / "aws-stages.md"


class Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short forms: `!Ref X` becomes `{"Ref": "X"}`, `!Sub …` `{"Fn::Sub": …}`."""


def _short_form(loader: Loader, name: str, node: yaml.Node) -> dict[str, Any]:
    match node:
        case yaml.ScalarNode():
            value: Any = loader.construct_scalar(node)
        case yaml.SequenceNode():
            value = loader.construct_sequence(node, deep=True)
        case _:
            value = loader.construct_mapping(node, deep=True)
    if name == "GetAtt":
        value = value.split(".")
    return {name if name in ("Ref", "Condition") else f"Fn::{name}": value}


Loader.add_multi_constructor("!", _short_form)


def parse(text: str) -> dict[str, Any]:
    """A template in the form of JSON."""
    return dict(yaml.load(text, Loader))


def named(value: Any) -> set[str]:
    """The names of the resources and parameters that a value refers to."""
    match value:
        case {"Ref": str(name)}:
            return {name}
        case {"Fn::GetAtt": [name, *_]}:
            return {name}
        case {"Fn::Sub": str(text)}:
            return {name.partition(".")[0] for name in re.findall(r"\$\{([^}]+)\}", text)}
        case dict():
            return set().union(*map(named, value.values()))
        case list():
            return set().union(*map(named, value))
        case _:
            return set()


_SHAPES = {
    "AWS::Lambda::Function": ("([", "])"),
    "AWS::DynamoDB::Table": ("[(", ")]"),
    "AWS::SQS::Queue": (">", "]"),
    "AWS::StepFunctions::StateMachine": ("{{", "}}"),
}
_SHOWN = (
    "AWS::ApiGatewayV2::Api",
    "AWS::Events::Rule",
    "AWS::KMS::Key",
    "AWS::S3::Bucket",
    "AWS::SecretsManager::Secret",
    *_SHAPES,
)


def drawing(template: dict[str, Any]) -> str:
    """The resources that do something, and which calls, wakes or may use which, as a Mermaid flowchart."""
    resources = template["Resources"]
    shown = {name: each for name, each in resources.items() if each["Type"] in _SHOWN}
    lines = ["flowchart LR"]
    for name, each in shown.items():
        before, after = _SHAPES.get(each["Type"], ("[", "]"))
        lines.append(f'    {name}{before}"{name}"{after}')
    edges: dict[str, None] = {}
    for name, each in resources.items():
        properties = each.get("Properties", {})
        match each["Type"]:
            case "AWS::ApiGatewayV2::Integration":
                edges |= _edges(properties["ApiId"], "calls", properties["IntegrationUri"])
            case "AWS::Events::Rule":
                edges |= _edges({"Ref": name}, "calls", properties["Targets"])
            case "AWS::Lambda::EventSourceMapping":
                word = "stream" if "StartingPosition" in properties else "messages"
                edges |= _edges(properties["EventSourceArn"], word, properties["FunctionName"])
            case "AWS::IAM::Role" | "AWS::IAM::ManagedPolicy":
                edges |= _uses(resources, name)
    return "\n".join([*lines, *edges])


def _edges(source: Any, word: str, target: Any) -> dict[str, None]:
    return {f"    {a} -->|{word}| {b}": None for a in sorted(named(source)) for b in sorted(named(target))}


_WORDS = {
    "dynamodb:PutItem": "records",
    "secretsmanager:GetSecretValue": "reads",
    "secretsmanager:PutSecretValue": "makes",
    "sqs:SendMessage": "sends",
    "states:StartExecution": "starts",
    "lambda:InvokeFunction": "calls",
    "s3:PutObject": "writes",
}


def _uses(resources: dict[str, Any], policy: str) -> dict[str, None]:
    """An edge from each function or machine under a policy (a role's own, or a managed one) to what it may use."""
    roles = [policy]
    for name, each in resources.items():
        roles += [name] if {"Ref": policy} in each.get("Properties", {}).get("ManagedPolicyArns", []) else []
    bearers = [
        name
        for name, each in resources.items()
        if any({"Fn::GetAtt": [role, "Arn"]} in each.get("Properties", {}).values() for role in roles)
    ]
    found: dict[str, None] = {}
    for statement in statements(resources[policy]):
        text = str(statement["Resource"])
        targets = named(statement["Resource"]) & resources.keys()
        targets |= {name for mark, name in _BY_ARN.items() if mark in text}
        for action, word in _WORDS.items():
            for bearer in bearers if action in statement["Action"] else ():
                found |= {f"    {bearer} -->|{word}| {target}": None for target in sorted(targets)}
    return found


_BY_ARN = {":stateMachine:": "OrderMachine", ":secret:": "KeysSecret", ":s3:": "AuditBucket"}
"""Resources that a policy names by their ARN, because they refer to the role themselves or may not be there."""


def statements(resource: dict[str, Any]) -> list[dict[str, Any]]:
    """The statements of a role's own policies or of a managed policy; conditional ones included."""
    properties = resource["Properties"]
    documents = [each["PolicyDocument"] for each in properties.get("Policies", ())]
    documents += [properties["PolicyDocument"]] if "PolicyDocument" in properties else []
    found = [statement for document in documents for statement in document["Statement"]]
    return [each["Fn::If"][1] if "Fn::If" in each else each for each in found]


def parameters(template: dict[str, Any]) -> str:
    rows = ["| parameter | default | |", "|---|---|---|"]
    for name, each in template["Parameters"].items():
        default = f"`{each['Default']}`" if each.get("Default") not in (None, "") else ""
        choices = ", ".join(f"`{value}`" for value in each.get("AllowedValues", ()))
        says = " ".join(each.get("Description", "").split())
        rows.append(f"| `{name}` | {default} | {says}{' ' if says and choices else ''}{choices} |")
    return "\n".join(rows)


def alarms(template: dict[str, Any]) -> str:
    rows = ["| alarm | meaning, and where to look first |", "|---|---|"]
    for each in template["Resources"].values():
        if each["Type"] == "AWS::CloudWatch::Alarm":
            properties = each["Properties"]
            name = properties["AlarmName"]["Fn::Sub"].removeprefix("tillway-${Stage}-")
            rows.append(f"| `{name}` | {' '.join(properties['AlarmDescription'].split())} |")
    return "\n".join(rows)


def page(text: str, template: dict[str, Any]) -> str:
    """The page with its parts made anew."""
    parts = {
        "drawing": f"```mermaid\n{drawing(template)}\n```",
        "parameters": parameters(template),
        "alarms": alarms(template),
    }
    for name, part in parts.items():
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text, count = re.subn(pattern, lambda found, part=part: f"{found[1]}{part}\n{found[2]}", text, flags=re.DOTALL)
        assert count == 1, f"the page has no place for {name}"
    return text


if __name__ == "__main__":
    PAGE.write_text(page(PAGE.read_text(), parse(TEMPLATE.read_text())))
