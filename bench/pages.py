"""How fast the dashboard's pages are over many payments: `python -m bench.pages --stored 100000`.

It makes an installation with that many payments (see `bench/stock.py`), signs an operator in as a browser does, and
asks for each page in turn, one request at a time. The measurement begins when the payments are counted, a minute after
the start. It prints p50 and p95 in milliseconds, and the page's size compressed. A page that is not answered with 200
ends the run.
"""

import argparse
import http.client
import re
import statistics
import subprocess
import tempfile
import time
import zlib
from pathlib import Path
from urllib.parse import urlencode

from bench import servers
from bench.stock import Stock, stocked
from tillway.engine.time_mark import SETTLED_SECONDS

PAGES = {
    "home": "/dashboard",
    "payments": "/dashboard/payments",
    "declined payments": "/dashboard/payments?status=declined",
    "payments of one day": "/dashboard/payments?days=1",
}
COUNTED_WITHIN_SECONDS = 3600


class Visitor:
    """A browser that has signed in, with one connection."""

    def __init__(self, port: int, address: str) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        self._cookie = ""
        answer = self._ask("POST", address)
        self._cookie = (answer.headers["set-cookie"] or "").partition(";")[0]
        assert self._cookie, f"the address {address} signed nobody in"

    def _ask(self, method: str, path: str) -> http.client.HTTPResponse:
        headers = {"cookie": self._cookie, "content-type": "application/x-www-form-urlencoded"}
        self._connection.request(method, path, urlencode({}) if method == "POST" else None, headers)
        answer = self._connection.getresponse()
        self.body = answer.read()
        return answer

    def connect_anew(self) -> None:
        self._connection.close()  # The next call opens it.

    def page(self, path: str) -> bytes:
        answer = self._ask("GET", path)
        assert answer.status == 200, f"{path}: {answer.status} {text_of(self.body)}"
        return self.body


def text_of(page: bytes) -> str:
    """The words of the page's content."""
    return " ".join(re.sub(r"<[^>]+>", " ", page.decode().partition("<main")[2].partition("</main>")[0]).split())[:500]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stored", type=int, default=100_000, help="payments in the database")
    parser.add_argument("--requests", type=int, default=100, help="requests for each page")
    parser.add_argument("--directory", type=Path, help="where the installation is made; a temporary one if left out")
    parser.add_argument("--stock", type=Path, help="directory of the installation, which is kept (bench.stock)")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as place:
        directory, keep = given.stock or Path(place) / "stock", given.stock is not None
        with stocked(directory, given.stored, keep=keep) as stock:
            _measure(stock, given.requests)


def _measure(stock: Stock, requests: int) -> None:
    with servers.tillway("pages", stock.data_dir) as server:
        visitor = Visitor(server.port, _sign_in_address(stock.data_dir))
        began = time.monotonic()
        while b"Still counting" in visitor.page("/dashboard"):
            assert time.monotonic() - began < COUNTED_WITHIN_SECONDS, "the count takes too long"
            time.sleep(0.5)
        print(f"counted in {time.monotonic() - began:.1f} s", flush=True)
        # A server that has run for so long reads only what was written since.
        time.sleep(max(SETTLED_SECONDS + 5 - (time.monotonic() - began), 0))
        visitor.connect_anew()  # The server has closed the idle connection meanwhile.
        for path in PAGES.values():
            visitor.page(path)
        for name, path in PAGES.items():
            taken = []
            for _ in range(requests):
                begin = time.perf_counter()
                page = visitor.page(path)
                taken.append(1000 * (time.perf_counter() - begin))
            cuts = statistics.quantiles(taken, n=20)
            size = len(zlib.compress(page, 6)) / 1024
            print(f"{name:22} p50 {cuts[9]:6.1f} ms   p95 {cuts[18]:6.1f} ms   {size:5.1f} KB compressed", flush=True)


def _sign_in_address(data_dir: Path) -> str:
    """The address of a new admin, as the command prints it while the server runs."""
    at, name = ("--data-dir", str(data_dir)), f"Ada {time.time_ns()}"
    subprocess.run(
        [*servers.TILLWAY, "operators", "add", name, "--role", "admin", *at], check=True, capture_output=True
    )
    told = subprocess.run(
        [*servers.TILLWAY, "operators", "sign-in", name, *at], check=True, capture_output=True, text=True
    ).stdout
    found = re.search(r"/dashboard/sign-in/\S+", told)
    assert found is not None, told
    return found[0]


if __name__ == "__main__":
    main()
