"""DynamoDB for tests: MiniStack, in its own virtual environment, or a real region.

TILLWAY_TEST_DYNAMODB is a URL such as dynamodb://tillway-tests?region=eu-central-1: tests then make tables there with
this prefix, using the credentials of the environment, and leave them for you to delete.
"""

import fcntl
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from unittest import SkipTest

from tillway.crash.free_port import free_port

VERSION = "1.5.33"
INSTALLS_WITHIN_SECONDS = 240
STARTS_WITHIN_SECONDS = 180
ACCOUNT = "000000000000"
REGION = "eu-central-1"


NAMED_BY = "TILLWAY_TEST_DYNAMODB"


class RealRegion:
    """The region that the environment names."""

    def __init__(self, url: str) -> None:
        self._before, _, self._after = url.partition("?")

    def url(self, table: str) -> str:
        return f"{self._before}-{os.getpid()}-{table}?{self._after}"

    def close(self) -> None:
        pass


class MiniStack:
    """An emulator on loopback and a free port. With `authorizes`, roles may do what their policies say, and no more."""

    def __init__(self, python: Path, *, authorizes: bool = False) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="tillway-aws-"))
        self.port = free_port()
        # Each environment of a function unpacks its package there.
        temporary = self.folder / "tmp"
        temporary.mkdir()
        environment = {name: value for name, value in os.environ.items() if not name.startswith("AWS_")} | {
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(self.port),
            "MINISTACK_ACCOUNT_ID": ACCOUNT,
            "AWS_ACCESS_KEY_ID": ACCOUNT,
            "AWS_SECRET_ACCESS_KEY": "test",
            "MINISTACK_REGION": REGION,
            "HOME": str(self.folder),
            "S3_DATA_DIR": str(self.folder / "s3"),
            "STATE_DIR": str(self.folder / "state"),
            "TMPDIR": str(temporary),
            # Without it a broker listens on all addresses, at a fixed port.
            "IOT_MTLS_ENABLED": "0",
            "AUTH": "true" if authorizes else "false",
        }
        self._log = (self.folder / "log").open("wb")
        self._process = subprocess.Popen(
            [python, "-m", "ministack"], cwd=self.folder, env=environment, stdout=self._log, stderr=self._log
        )
        deadline = time.monotonic() + STARTS_WITHIN_SECONDS
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"MiniStack did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.1)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def url(self, table: str) -> str:
        return f"dynamodb://{table}?region={REGION}&endpoint={self.endpoint}"

    def _answers(self) -> bool:
        try:
            urllib.request.urlopen(f"{self.endpoint}/_ministack/health", timeout=2).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    def close(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


def start_any() -> MiniStack | RealRegion:
    """The region that the environment names, else an emulator; the environment then gets its credentials."""
    named = os.environ.get(NAMED_BY)
    if named:
        return RealRegion(named)
    stack = start()
    os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"] = ACCOUNT, "test"
    return stack


def start(*, authorizes: bool = False) -> MiniStack:
    """An emulator, installed first if necessary. Raises `SkipTest`, with the reason, if it is not available."""
    return MiniStack(_install(), authorizes=authorizes)


def _install() -> Path:
    """The interpreter of MiniStack's own environment, which is made once beside ours and kept."""
    home = Path(sys.prefix) / f"ministack-{VERSION}"
    python = home / "bin" / "python"
    done = home / ".installed"
    with (Path(sys.prefix) / "ministack.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if done.exists():
            return python
        shutil.rmtree(home, ignore_errors=True)
        try:
            package = f"ministack[full]=={VERSION}"
            commands: tuple[list[str | Path], ...] = (
                [sys.executable, "-m", "venv", home],
                [python, "-m", "pip", "install", "-q", "--disable-pip-version-check", package],
            )
            for command in commands:
                subprocess.run(command, check=True, timeout=INSTALLS_WITHIN_SECONDS, capture_output=True)
        except (subprocess.SubprocessError, OSError) as error:
            raise SkipTest(f"MiniStack cannot be installed: {error}") from None
        done.touch()
    return python
