"""Everything of one stage on AWS, as the services describe it: to compare two stages, and to see that one is gone."""

import json
import re
from typing import Any

Clients = Any
"""`client(service)` gives a boto3 client."""


def names(client: Clients, stage: str) -> set[str]:
    """The names of all resources that contain the stage. Keys that are to be deleted, and stacks, are none."""
    found: set[str] = set()
    for service, operation, member, name in (
        ("dynamodb", "list_tables", "TableNames", None),
        ("lambda", "list_functions", "Functions", "FunctionName"),
        ("lambda", "list_event_source_mappings", "EventSourceMappings", "FunctionArn"),
        ("sqs", "list_queues", "QueueUrls", None),
        ("secretsmanager", "list_secrets", "SecretList", "Name"),
        ("iam", "list_roles", "Roles", "RoleName"),
        ("iam", "list_policies", "Policies", "PolicyName"),
        ("apigatewayv2", "get_apis", "Items", "Name"),
        ("stepfunctions", "list_state_machines", "stateMachines", "name"),
        ("events", "list_rules", "Rules", "Name"),
        ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
        ("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
        ("logs", "describe_log_groups", "logGroups", "logGroupName"),
        ("logs", "describe_metric_filters", "metricFilters", "filterName"),
        ("s3", "list_buckets", "Buckets", "Name"),
        ("kms", "list_aliases", "Aliases", "AliasName"),
        ("cognito-idp", "list_user_pools", "UserPools", "Name"),
    ):
        arguments = {"MaxResults": 50} if service == "cognito-idp" else {}
        rows = getattr(client(service), operation)(**arguments).get(member, ())
        found |= {f"{service} {row if name is None else row[name]}" for row in rows}
    keys = [client("kms").describe_key(KeyId=key["KeyId"])["KeyMetadata"] for key in client("kms").list_keys()["Keys"]]
    found |= {f"kms {key['Description']}" for key in keys if key["KeyState"] != "PendingDeletion"}
    return {name for name in found if re.search(rf"tillway-{stage}\b(?!-[a-z]+\d*-code)", name)}


_FUNCTION = (
    *("Architectures", "DeadLetterConfig", "Description", "Environment", "Handler", "LoggingConfig", "MemorySize"),
    *("PackageType", "Role", "Runtime", "Timeout", "TracingConfig"),
)
_MAPPING = (
    *("BatchSize", "BisectBatchOnFunctionError", "DestinationConfig", "EventSourceArn", "FilterCriteria"),
    *("FunctionArn", "MaximumRecordAgeInSeconds", "MaximumRetryAttempts", "ParallelizationFactor", "ScalingConfig"),
    "StartingPosition",
)
_TABLE = ("AttributeDefinitions", "BillingModeSummary", "GlobalSecondaryIndexes", "KeySchema", "StreamSpecification")
_ALARM = (
    *("AlarmDescription", "ComparisonOperator", "Dimensions", "EvaluationPeriods", "ExtendedStatistic", "MetricName"),
    *("Namespace", "Period", "Statistic", "Threshold", "TreatMissingData"),
)
_QUEUE = ("MessageRetentionPeriod", "RedrivePolicy", "SqsManagedSseEnabled", "VisibilityTimeout")


def described(client: Clients, stage: str) -> dict[str, Any]:
    """The settings of every resource by its name, without the stage and without the ids that AWS gave."""
    name = f"tillway-{stage}"
    found: dict[str, Any] = {}
    [api] = [api for api in client("apigatewayv2").get_apis(MaxResults="500")["Items"] if api["Name"] == name]
    for kind in ("api", "worker", "step", "admin"):
        function = client("lambda").get_function_configuration(FunctionName=f"{name}-{kind}")
        found[f"function {kind}"] = _some(function, _FUNCTION)
        found[f"function {kind}"]["LoggingConfig"].pop("LogFormat", None)
    mappings = client("lambda").list_event_source_mappings(FunctionName=f"{name}-worker")["EventSourceMappings"]
    for mapping in mappings:
        kind = "stream" if ":dynamodb:" in mapping["EventSourceArn"] else "queue"
        found[f"mapping {kind}"] = of_mapping = _some(mapping, _MAPPING if kind == "stream" else _MAPPING[:-1])
        if kind == "stream":
            filters = of_mapping["FilterCriteria"]["Filters"]
            of_mapping["FilterCriteria"] = [json.loads(each["Pattern"]) for each in filters]
    found |= _records(client, name) | _roles(client, name) | _watch(client, name) | _door(client, api["ApiId"])
    rule = client("events").describe_rule(Name=f"{name}-every-minute")
    targets = client("events").list_targets_by_rule(Rule=f"{name}-every-minute")["Targets"]
    found["rule"] = [rule["ScheduleExpression"], rule["State"], [_some(target, ("Id", "Arn")) for target in targets]]
    [machine] = [
        m for m in client("stepfunctions").list_state_machines()["stateMachines"] if m["name"] == f"{name}-order"
    ]
    whole = client("stepfunctions").describe_state_machine(stateMachineArn=machine["stateMachineArn"])
    found["machine"] = {"definition": json.loads(whole["definition"]), "role": whole["roleArn"], "type": whole["type"]}
    key = client("kms").describe_key(KeyId=f"alias/{name}")["KeyMetadata"]
    return dict(_without(found, {name: "STAGE", stage: "STAGE", api["ApiId"]: "API", key["KeyId"]: "KEY"}))


def _records(client: Clients, name: str) -> dict[str, Any]:
    dynamodb, sqs = client("dynamodb"), client("sqs")
    table = dynamodb.describe_table(TableName=name)["Table"]
    backups = dynamodb.describe_continuous_backups(TableName=name)["ContinuousBackupsDescription"]
    found = {
        "table": _some(table, _TABLE),
        "table encrypted": _some(table.get("SSEDescription", {}), ("SSEType", "KMSMasterKeyArn")),
        "table protected": str(table.get("DeletionProtectionEnabled", False)).lower(),
        "table forgets": dynamodb.describe_time_to_live(TableName=name)["TimeToLiveDescription"],
        "table recovers": backups["PointInTimeRecoveryDescription"]["PointInTimeRecoveryStatus"],
        "secret": _some(client("secretsmanager").describe_secret(SecretId=f"{name}/keys"), ("Name", "KmsKeyId")),
    }
    found["table"]["AttributeDefinitions"].sort(key=lambda each: str(each["AttributeName"]))
    found["table"]["GlobalSecondaryIndexes"] = [
        _some(index, ("IndexName", "KeySchema", "Projection")) for index in table["GlobalSecondaryIndexes"]
    ]
    for queue in ("soon", "failures"):
        url = sqs.get_queue_url(QueueName=f"{name}-{queue}")["QueueUrl"]
        attributes = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        found[f"queue {queue}"] = {
            key: json.loads(value) if key == "RedrivePolicy" else value.lower()
            for key, value in _some(attributes, _QUEUE).items()
        }
    return found


def _roles(client: Clients, name: str) -> dict[str, Any]:
    iam, found = client("iam"), dict[str, Any]()
    for role in (each for each in iam.list_roles()["Roles"] if each["RoleName"].startswith(f"{name}-")):
        at = {"RoleName": role["RoleName"]}
        found[f"role {role['RoleName']}"] = {
            "trust": role["AssumeRolePolicyDocument"],
            "own": [
                _statements(iam.get_role_policy(**at, PolicyName=policy)["PolicyDocument"])
                for policy in iam.list_role_policies(**at)["PolicyNames"]
            ],
            "attached": [each["PolicyName"] for each in iam.list_attached_role_policies(**at)["AttachedPolicies"]],
        }
    for policy in (
        each for each in iam.list_policies(Scope="Local")["Policies"] if each["PolicyName"].startswith(name)
    ):
        version = iam.get_policy_version(PolicyArn=policy["Arn"], VersionId=policy["DefaultVersionId"])
        found[f"policy {policy['PolicyName']}"] = _statements(version["PolicyVersion"]["Document"])
    return found


def _statements(document: dict[str, Any]) -> dict[str, Any]:
    return {each["Sid"]: [each["Effect"], sorted(each["Action"]), each["Resource"]] for each in document["Statement"]}


def _watch(client: Clients, name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for alarm in client("cloudwatch").describe_alarms(AlarmNamePrefix=f"{name}-")["MetricAlarms"]:
        found[f"alarm {alarm['AlarmName']}"] = _some(alarm, _ALARM)
    body = client("cloudwatch").get_dashboard(DashboardName=name)["DashboardBody"]
    found["dashboard"] = json.loads(body)
    for group in client("logs").describe_log_groups()["logGroups"]:
        if f"{name}-" in group["logGroupName"]:
            found[f"log {group['logGroupName']}"] = _some(group, ("retentionInDays", "kmsKeyId"))
    for lines in client("logs").describe_metric_filters()["metricFilters"]:
        if lines["filterName"].startswith(f"{name}-"):
            found[f"lines {lines['filterName']}"] = _some(lines, ("filterPattern", "logGroupName"))
            [number] = lines["metricTransformations"]
            found[f"lines {lines['filterName']} count"] = _some(
                number, ("metricName", "metricNamespace", "metricValue")
            )
    return found


def _door(client: Clients, api: str) -> dict[str, Any]:
    gateway = client("apigatewayv2")
    [stage] = gateway.get_stages(ApiId=api)["Items"]
    [integration] = gateway.get_integrations(ApiId=api)["Items"]
    parts = ("IntegrationType", "IntegrationUri", "PayloadFormatVersion", "TimeoutInMillis")
    return {
        "api stage": _some(stage, ("StageName", "AutoDeploy", "DefaultRouteSettings")),
        "api access log": json.loads(stage.get("AccessLogSettings", {}).get("Format", "{}")),
        "api calls": _some(integration, parts),
        "api routes": [_some(r, ("RouteKey", "AuthorizationType")) for r in gateway.get_routes(ApiId=api)["Items"]],
    }


def _some(row: dict[str, Any], members: tuple[str, ...]) -> dict[str, Any]:
    """Without empty members: services and tools differ in whether they say nothing or leave it out."""
    return {name: row[name] for name in members if row.get(name) not in (None, "", [], {})}


def _without(value: Any, ids: dict[str, str]) -> Any:
    """The value with each id replaced, and without the time in the ARN of a stream."""
    match value:
        case str():
            for id, word in ids.items():
                value = value.replace(id, word)
            return re.sub(r"/stream/[^/]+$", "/stream", value).replace("//localhost:", "//127.0.0.1:")
        case dict():
            return {_without(key, ids): _without(each, ids) for key, each in value.items()}
        case list():
            return [_without(each, ids) for each in value]
        case _:
            return value
