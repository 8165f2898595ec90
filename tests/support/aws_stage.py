"""A stage of Tillway on the emulator, without its functions: the resources as a template makes them."""

import asyncio
from typing import Any

from function_host import Function

from tillway.aws_client import DYNAMODB, QUEUES, SECRETS, AwsClient, Frozen, Service
from tillway.crash import ministack
from tillway.crash.ministack import MiniStack

REGION = "eu-central-1"


class Stage:
    """Table, secret and queue of one stage, and the functions that a test starts. `close` ends those."""

    def __init__(self, stack: MiniStack, name: str) -> None:
        self.name = name
        self.endpoint = stack.endpoint
        self._functions: list[Function] = []
        self.call(DYNAMODB, "CreateTable", _table(f"tillway-{name}"))
        self.call(SECRETS, "CreateSecret", {"Name": f"tillway-{name}/keys"})
        self.queue_url = self.call(QUEUES, "CreateQueue", {"QueueName": f"tillway-{name}-soon"})["QueueUrl"]

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": ministack.ACCOUNT,
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_ENDPOINT_URL": self.endpoint,
            "TILLWAY_STAGE": self.name,
            "TILLWAY_STORE": f"dynamodb://tillway-{self.name}?region={REGION}",
            "TILLWAY_KEYS": f"secretsmanager:tillway-{self.name}/keys",
            "TILLWAY_QUEUE_URL": self.queue_url,
            "TILLWAY_PRIVATE_ADDRESSES": "allow",
        }

    def put_back(self, table: str) -> str:
        """Restore the table, as it is now, under another name. Return the URL of that store."""
        self.call(DYNAMODB, "CreateTable", _table(table))
        begin: dict[str, Any] = {}
        while True:
            page = self.call(DYNAMODB, "Scan", {"TableName": f"tillway-{self.name}", **begin})
            for item in page["Items"]:
                self.call(DYNAMODB, "PutItem", {"TableName": table, "Item": item})
            if not page.get("LastEvaluatedKey"):
                return f"dynamodb://{table}?region={REGION}"
            begin = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def function(self, name: str, **variables: str) -> Function:
        """A new environment of the function of that name: api, worker, step or admin."""
        function = Function(name, {**self.environment, **variables})
        self._functions.append(function)
        return function

    def call(self, service: Service, operation: str, body: dict[str, Any]) -> dict[str, Any]:
        async def call() -> dict[str, Any]:
            client = AwsClient(service, REGION, self.endpoint, lambda: Frozen(ministack.ACCOUNT, "test"))
            try:
                return await client.call(operation, body)
            finally:
                await client.close()

        return asyncio.run(call())

    def close(self) -> None:
        for function in self._functions:
            function.kill()


def _table(name: str) -> dict[str, Any]:
    return {
        "TableName": name,
        "BillingMode": "PAY_PER_REQUEST",
        "AttributeDefinitions": [
            {"AttributeName": attribute, "AttributeType": kind}
            for attribute, kind in (("pk", "S"), ("sk", "S"), ("q", "S"), ("d", "N"))
        ],
        "KeySchema": [{"AttributeName": "pk", "KeyType": "HASH"}, {"AttributeName": "sk", "KeyType": "RANGE"}],
        "GlobalSecondaryIndexes": [
            {
                "IndexName": "due",
                "KeySchema": [{"AttributeName": "q", "KeyType": "HASH"}, {"AttributeName": "d", "KeyType": "RANGE"}],
                "Projection": {"ProjectionType": "KEYS_ONLY"},
            }
        ],
        "StreamSpecification": {"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
    }


def stream_of(*queues: str) -> dict[str, Any]:
    """An event of the table's stream, about new tasks in these queues of the store."""
    return {
        "Records": [
            {
                "eventSource": "aws:dynamodb",
                "eventName": "INSERT",
                "dynamodb": {"NewImage": {"q": {"S": f"{queue}#1"}, "d": {"N": "1"}}},
            }
            for queue in queues
        ]
    }
