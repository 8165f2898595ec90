"""A service manager that passes a socket and hears notices, in the place of systemd; and the unit files for systemd."""

import re
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from sdk_shop import until
from tillway_server import TillwayServer, init, tillway

from tillway.crash.postgres_server import any_server, fresh

UNITS = Path(__file__).parents[2] / "deploy/systemd"

PASSES_SOCKETS = """
import os, sys
descriptors = [int(each) for each in sys.argv[1].split(",")]
for nth, each in enumerate(descriptors):
    os.dup2(each, 3 + nth)
    os.set_inheritable(3 + nth, True)
os.environ.update(LISTEN_PID=str(os.getpid()), LISTEN_FDS=str(len(descriptors)))
os.execv(sys.argv[2], sys.argv[2:])
"""
"""Becomes the command that follows, as systemd does: with the sockets as descriptors 3 and on."""

WITHOUT_NEW_CODE = """
import ctypes, os, sys
if ctypes.CDLL(None, use_errno=True).prctl(65, 1, 0, 0, 0):  # PR_SET_MDWE, PR_MDWE_REFUSE_EXEC_GAIN
    sys.exit("this kernel has no MDWE")
os.execv(sys.argv[1], sys.argv[1:])
"""
"""Becomes the command that follows, with memory that is either written or executed (MemoryDenyWriteExecute=)."""


class Manager:
    """Holds a listening socket and hears notices."""

    def __init__(self, directory: Path, store: str = "") -> None:
        self.listening = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = self.listening.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.notices = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notices.bind(str(directory / "notices"))
        self.notices.settimeout(60)
        self.environment = {"NOTIFY_SOCKET": str(directory / "notices")}
        self.data_dir = directory / "data"
        self.made = init(self.data_dir, store)
        self.arguments = ("--workers", "2", "--store", store) if store else ()

    def start(self) -> TillwayServer:
        descriptor = self.listening.fileno()
        return TillwayServer(
            self.data_dir,
            self.made,
            self.arguments,
            (sys.executable, "-c", PASSES_SOCKETS, str(descriptor)),
            self.environment,
            (descriptor,),
        )

    def hear(self, word: str) -> str:
        """The next notice that has `word`."""
        while True:
            notice = self.notices.recv(4096).decode()
            if word in notice.splitlines():
                return notice

    def close(self) -> None:
        self.listening.close()
        self.notices.close()


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path)
    yield manager
    manager.close()


def test_a_restart_refuses_no_connection(manager: Manager) -> None:
    _restart_twice(manager)


@pytest.mark.soak
def test_a_restart_of_workers_refuses_none_either(tmp_path: Path) -> None:
    """And none waits for a worker that waits in accept(), as it did while the passed socket blocked."""
    database = any_server()
    manager = Manager(tmp_path, fresh(database.url))
    try:
        _restart_twice(manager)
    finally:
        manager.close()
        database.close()


def _restart_twice(manager: Manager) -> None:
    statuses: list[int] = []
    failed: list[Exception] = []
    done = threading.Event()

    def ask() -> None:
        while not done.is_set():
            try:
                # A connection of its own each time: it waits in the socket's queue while no server runs.
                statuses.append(httpx.get(f"{manager.url}/healthz", timeout=20).status_code)
            except httpx.HTTPError as error:
                failed.append(error)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    server = None
    try:
        server = manager.start()
        assert server.port == manager.port
        assert f"STATUS=Serves {manager.url}" in manager.hear("READY=1")
        for _ in range(2):
            before = len(statuses)
            until(lambda before=before: len(statuses) > before)  # type: ignore[misc]
            assert server.stop() == 0
            manager.hear("STOPPING=1")
            server = manager.start()
            manager.hear("READY=1")
        before = len(statuses)
        until(lambda: len(statuses) > before)
        assert server.call("GET", "/v1/balance")[0] == 200
    finally:
        done.set()
        if server is not None:
            asking.join()
            server.stop()
    # A worker that stops may close a connection that has just come: its caller connects again.
    lost = [error for error in failed if isinstance(error, httpx.ConnectError | httpx.TimeoutException)]
    assert not lost and set(statuses) == {200}


def test_copies_of_a_passed_socket_do_not_block() -> None:
    """All processes share the mode of the socket, and each worker serves a copy."""
    code = (
        "import os; from tillway.service_manager import take_passed_socket as take; passed = take();"
        "copy = passed.dup(); print(os.get_blocking(copy.fileno()), os.get_blocking(passed.fileno()))"
    )
    with socket.create_server(("127.0.0.1", 0)) as listening:
        descriptor = listening.fileno()
        command = (sys.executable, "-c", PASSES_SOCKETS, str(descriptor), sys.executable, "-c", code)
        shown = subprocess.run(command, pass_fds=(descriptor,), capture_output=True, text=True, timeout=60)
    assert shown.stdout.split() == ["False", "False"], shown.stderr


def test_a_renewal_is_told_with_its_end(manager: Manager) -> None:
    server = manager.start()
    try:
        manager.hear("READY=1")
        server.process.send_signal(1)
        assert re.search(r"^MONOTONIC_USEC=\d+$", manager.hear("RELOADING=1"), re.M)
        manager.hear("READY=1")
    finally:
        assert server.stop() == 0


def test_sockets_that_cannot_be_served_are_named(tmp_path: Path) -> None:
    init(tmp_path)
    with socket.socket(type=socket.SOCK_DGRAM) as datagrams, socket.create_server(("127.0.0.1", 0)) as one:
        for passed, reason in (((datagrams,), "not TCP"), ((one, datagrams), "passes 2 sockets")):
            places = ",".join(str(each.fileno()) for each in passed)
            command = (sys.executable, "-c", PASSES_SOCKETS, places, sys.executable, "-m", "tillway.cli.main")
            done = subprocess.run(
                (*command, "serve", "--data-dir", tmp_path),
                pass_fds=[each.fileno() for each in passed],
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert done.returncode == 1 and reason in done.stderr, done.stderr


def test_sockets_for_another_process_are_left_alone(tmp_path: Path) -> None:
    server = TillwayServer(tmp_path, init(tmp_path), environment={"LISTEN_PID": "1", "LISTEN_FDS": "1"})
    assert server.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="systemd is of Linux")
def test_the_server_needs_no_memory_that_is_written_and_executed(tmp_path: Path) -> None:
    probe = subprocess.run((sys.executable, "-c", WITHOUT_NEW_CODE, "/bin/true"), capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(probe.stderr.strip())
    server = TillwayServer(tmp_path, init(tmp_path), (), (sys.executable, "-c", WITHOUT_NEW_CODE))
    try:
        made = {"amount": "2000", "currency": "eur", "payment_method": "pm_card_visa", "confirm": "true"}
        paid = httpx.post(
            f"{server.base_url}/v1/payment_intents", data=made, auth=(server.secret_key, ""), timeout=60
        ).json()
        assert paid["status"] == "succeeded", paid
    finally:
        assert server.stop() == 0


def test_systemd_takes_the_units(tmp_path: Path) -> None:
    """Of the same file, but with a program that is there."""
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("systemd-analyze is not installed (Debian: systemd)")
    for unit in UNITS.iterdir():
        (tmp_path / unit.name).write_text(unit.read_text().replace("/opt/tillway/bin/tillway", "/bin/true"))
    units = sorted(tmp_path.iterdir())
    done = subprocess.run((analyze, "verify", *units), capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and not done.stderr.strip(), done.stderr


def test_the_units_name_options_that_there_are() -> None:
    service = (UNITS / "tillway.service").read_text()
    [command] = re.findall(r"^ExecStart=/opt/tillway/bin/tillway (.*)$", service, re.M)
    told = tillway(command.split()[0], "--help").stdout
    assert all(option in told for option in re.findall(r"--[a-z-]+", command))
