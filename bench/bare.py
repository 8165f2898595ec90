"""The bare server: what HTTP alone costs here.

The same granian server in the same mode as `tillway serve`, under the same event loop. It reads the body and answers
one constant: headers and body of a payment that Tillway has answered before, given as a file.
"""

import argparse
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from granian.constants import HTTPModes
from granian.http import HTTP1Settings
from granian.server.embed import Server

HEADER_SECONDS = 30


class Constant(msgspec.Struct, frozen=True):
    headers: list[tuple[str, str]]
    body: bytes


async def serve(port: int, constant: Constant) -> None:
    headers, body = constant.headers, constant.body

    async def answer(scope: Any, protocol: Any) -> None:
        await protocol()
        protocol.response_bytes(200, headers, body)

    server = Server(
        answer,
        address="127.0.0.1",
        port=port,
        http=HTTPModes.http1,
        websockets=False,
        backlog=1024,
        http1_settings=HTTP1Settings(header_read_timeout=HEADER_SECONDS * 1000),
        log_enabled=False,
    )
    await server.serve()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--answer", type=Path, required=True, help="file with the constant, as JSON")
    given = parser.parse_args()
    uvloop.run(serve(given.port, msgspec.json.decode(given.answer.read_bytes(), type=Constant)))


if __name__ == "__main__":
    main()
