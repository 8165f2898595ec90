"""A payment on DynamoDB costs the write units and requests that docs/stores.md says, also the first after a pause."""

import re
from pathlib import Path

from bench import units

ROOT = Path(__file__).parents[2]

REQUESTS = 3
"""Whether its reference is used, asked by the write that enters it, and two commits."""


async def test_a_payment_costs_what_the_page_says(tmp_path: Path) -> None:
    measured = await units.measured(tmp_path)
    assert (measured.requests, measured.requests_after_pause) == (REQUESTS, REQUESTS)
    page = (ROOT / "docs" / "stores.md").read_text()
    (told,) = re.findall(r"^\| \*\*together\*\* \| \*\*(\d+)\*\* \|$", page, re.M)
    assert measured.units == int(told)
