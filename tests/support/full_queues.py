"""A listener that lets nobody in."""

import contextlib
import socket
from collections.abc import Iterator


@contextlib.contextmanager
def full_queue() -> Iterator[int]:
    """The port of a listener whose queue, of one, is full: the kernel lets further connections wait."""
    with contextlib.ExitStack() as opened:
        full = opened.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port: int = full.getsockname()[1]
        for _ in range(4):
            filling = opened.enter_context(socket.socket())
            filling.setblocking(False)
            filling.connect_ex(("127.0.0.1", port))
        yield port
