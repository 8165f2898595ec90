"""Starts the state machine that carries an order, in place of the order's own task."""

import logging
from functools import partial
from typing import Final

import msgspec

from tillway.aws_client import STATES, AwsClient, AwsError, client_of
from tillway.domain.order import OrderTask
from tillway.engine.platform import Platform
from tillway.operations import orders
from tillway.store.codec import decode
from tillway.store.port import Row
from tillway.wiring import Running

log = logging.getLogger(__name__)

NET_SECONDS: Final = 300
"""When the task of an order that a machine carries comes due again, unless the order's payment wakes it sooner. The
task then carries the order itself, even beside the machine: each step is done once."""


def carry_by_machine(running: Running, arn: str) -> None:
    """Have the state machine with that ARN carry the orders whose tasks this process runs."""
    running.runner.workers[OrderTask] = partial(_start, running.platform, client_of(STATES), arn)


async def _start(platform: Platform, client: AwsClient, arn: str, row: Row) -> None:
    scope_key, _, id = row.key.partition("/")
    task = decode(id, row.body)
    assert isinstance(task, OrderTask), f"{row.key} is not an order's task"
    given = msgspec.json.encode({"scope": scope_key, "order": task.order}).decode()
    # An execution's name is used once: of two workers, one starts it.
    name = f"{scope_key}-{task.order}"
    try:
        await client.call("StartExecution", {"stateMachineArn": arn, "name": name, "input": given})
    except AwsError as error:
        if error.code != "ExecutionAlreadyExists":
            raise
        await orders.carry(platform, row)
        return
    await orders.leave_to_machine(platform, row, NET_SECONDS)
