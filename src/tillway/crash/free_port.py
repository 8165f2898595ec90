"""Ports for servers that tests start. A port stays reserved for this process until it ends, against other test runs
too."""

import fcntl
import os
import socket
import tempfile
from pathlib import Path
from random import SystemRandom
from typing import IO

PORTS = range(20_000, 30_000)
"""Below the ports that Linux (from 32,768) and macOS (from 49,152) give to outgoing connections."""

TRIES_MAX = 200

_locks: list[IO[str]] = []


def free_port() -> int:
    """Reserve a port on 127.0.0.1 where no server listens. Raises `RuntimeError` if none is found."""
    folder = Path(tempfile.gettempdir()) / f"tillway-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    for port in SystemRandom().sample(PORTS, TRIES_MAX):
        lock = (folder / str(port)).open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
        except OSError:
            lock.close()
            continue
        _locks.append(lock)
        return port
    raise RuntimeError(f"no free port among {TRIES_MAX} from {PORTS.start} to {PORTS.stop}")
