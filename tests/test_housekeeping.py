"""The commands that the API runs: none goes on where its request was given up."""

import asyncio
from pathlib import Path

import pytest
from tillway_server import init

from tillway.housekeeping import Housekeeping
from tillway.settings import Settings

WITHIN_SECONDS = 10.0


def _children() -> list[str]:
    """The running processes that this one has started."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        for child in (task / "children").read_text().split():
            try:
                found.append(Path(f"/proc/{child}/cmdline").read_text().replace("\0", " "))
            except OSError:
                continue
    return [command for command in found if "tillway.cli.main doctor" in command]


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the processes from Linux's /proc")
async def test_a_cancelled_request_ends_its_command(tmp_path: Path) -> None:
    await asyncio.to_thread(init, tmp_path / "data")
    house = Housekeeping(Settings(data_dir=tmp_path / "data"))
    asked = asyncio.ensure_future(house.doctor())
    async with asyncio.timeout(WITHIN_SECONDS):
        while not _children():
            await asyncio.sleep(0.001)
    for _ in range(100):  # From its start on, the process is the loop's to end; then it is the command's.
        await asyncio.sleep(0)
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert _children() == []
    assert (await house.doctor())["data_dir"], "the next command runs, alone"
