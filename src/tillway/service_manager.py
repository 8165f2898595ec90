"""How a service manager such as systemd starts a server: it passes an open socket, and hears how the server does.

A socket that the manager holds stays open while the server restarts: connections wait and none is refused
(sd_listen_fds(3)). By its notices the manager knows when the server serves and when it stops (sd_notify(3)). Without a
manager both do nothing.
"""

import contextlib
import os
import socket
import time

FIRST_DESCRIPTOR = 3
"""The descriptor of the first socket that is passed, SD_LISTEN_FDS_START."""


class UnusableSocket(Exception):
    """The service manager has passed sockets of which none, or more than one, can be served. The text says why."""


def take_passed_socket() -> socket.socket | None:
    """Return the listening TCP socket that the service manager has passed to this process, and None if it passed none.

    The socket does not block, and neither do its copies. Later calls, and the processes that this one starts, find
    none. Raises `UnusableSocket`.
    """
    process, number = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if process != str(os.getpid()) or number in ("", "0"):
        return None
    if number != "1":
        raise UnusableSocket(f"the service manager passes {number} sockets. Name one ListenStream= alone.")
    try:
        passed = socket.socket(fileno=FIRST_DESCRIPTOR)
    except OSError as error:
        raise UnusableSocket(f"the socket of the service manager cannot be used: {error.strerror}") from None
    if passed.family not in (socket.AF_INET, socket.AF_INET6) or passed.type != socket.SOCK_STREAM:
        passed.detach()
        raise UnusableSocket("the service manager passes a socket that is not TCP. Name ListenStream=ADDRESS:PORT.")
    if not passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
        passed.detach()
        raise UnusableSocket("the service manager passes a connection. Set Accept=no for the socket.")
    os.set_inheritable(passed.fileno(), False)
    # Python sets the mode again for each copy of a socket, and all processes share it. A worker that copied a blocking
    # socket would leave the others waiting in accept() with the connections that they have.
    passed.setblocking(False)
    return passed


def notify_serving(url: str) -> None:
    """Tell the service manager that requests are served, from now or again."""
    _notify(f"READY=1\nSTATUS=Serves {url}")


def notify_renewing() -> None:
    """Tell the service manager that certificates and log file are being read again. `notify_serving` ends it."""
    _notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")


def notify_stopping() -> None:
    """Tell the service manager that the server finishes the requests in flight and accepts no more."""
    _notify("STOPPING=1\nSTATUS=Finishes what is in flight")


def _notify(state: str) -> None:
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return
    # A name that begins with @ is an abstract one, which begins with a zero byte.
    place = "\0" + address[1:] if address[0] == "@" else address
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender, contextlib.suppress(OSError):
        sender.setblocking(False)
        sender.sendto(state.encode(), place)
