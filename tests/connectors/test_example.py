"""The tutorial connector keeps the contract, in process and over HTTP; its page quotes the whole file, and runs."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tillway.connectors import example
from tillway.connectors.example import ExampleConnector
from tillway.connectors.port import Connector
from tillway.testing.connector_contract import Check, checks_for
from tillway.testing.example_provider import ExampleFarSide
from tillway.testing.far_side import over_http

PAGE = Path(__file__).parents[2] / "docs" / "contributing" / "connector.md"
CHECKS = checks_for(ExampleConnector.capabilities)


def name(check: Check) -> str:
    return check.__name__


@pytest.mark.parametrize("check", CHECKS, ids=name)
async def test_contract(check: Check) -> None:
    await check(ExampleFarSide())


@pytest.mark.parametrize("check", CHECKS, ids=name)
async def test_contract_over_http(check: Check) -> None:
    far = ExampleFarSide()
    async with over_http(far.peer) as url:
        connector = ExampleConnector.from_settings({"base_url": url, "api_key": "key", "timeout_seconds": "0.3"})
        far.connector = connector
        transport = connector.transport()
        far.transport = transport
        await check(far)
        await transport.close()


def quoted() -> str:
    """The page's Python blocks, one after the other."""
    return "\n\n".join(re.findall(r"^```python\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL))


def lines(source: str) -> list[str]:
    return [line for line in source.splitlines() if line.strip()]


def test_the_page_quotes_the_whole_connector_in_order() -> None:
    assert example.__file__ is not None
    assert lines(quoted()) == lines(Path(example.__file__).read_text())


@pytest.fixture
def page() -> Iterator[ModuleType]:
    module = ModuleType("connector_page")
    sys.modules[module.__name__] = module
    exec(compile(quoted(), str(PAGE), "exec"), module.__dict__)
    yield module
    del sys.modules[module.__name__]


async def test_the_code_of_the_page_keeps_the_contract(page: ModuleType) -> None:
    for check in CHECKS:
        far = ExampleFarSide()
        connector: Connector = page.ExampleConnector.from_settings({"base_url": "http://127.0.0.1:1", "api_key": "k"})
        far.connector = connector
        await check(far)
