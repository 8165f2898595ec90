#!/usr/bin/env python3
"""Take the pictures of the dashboard for the documentation: `make images`.

    python scripts/images.py DIRECTORY    # DIRECTORY/dashboard-home.png and so on

It starts `tillway demo` on a free port with data of its own, signs in by the address that the demo prints, and drives
Chromium, which must be installed, as the tests do.
"""

import asyncio
import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "support"))

from browser import CHROMIUM, Page, browsing  # noqa: E402

PAGES = {
    "home": "",
    "payments": "/payments",
    "customers": "/customers",
    "search": "/search?q=4242",
    "balance": "/balance",
    "disputes": "/disputes",
    "doubts": "/doubts",
    "links": "/links",
    "connectors": "/connectors",
    "new-connector": "/connectors/new?kind=http_bank",
    "routing": "/routing",
    "routing-draft": "/routing/draft",
    "developers": "/developers",
    "webhooks": "/webhooks",
    "events": "/events",
    "requests": "/requests",
    "audit": "/audit",
    "settings": "/settings",
    "checkout-settings": "/settings/checkout",
    "users": "/settings/users",
    "security": "/security",
    "not-found": "/payments/pi_of_another_mode",
    "live": "/live",
}
"""The picture of each page, by its address below `/dashboard`."""

FIRST = {
    "payment": ("/payments?status=partly_refunded", "/payments/pi_"),
    "customer": ("/customers", "/customers/cus_"),
    "dispute": ("/disputes", "/disputes/du_"),
    "payout": ("/balance", "/payouts/po_"),
    "link": ("/links", "/links/plink_"),
    "doubt": ("/doubts", "/doubts/att_"),
    "delivery": ("/webhooks", "/webhooks/"),
    "audit-entry": ("/audit", "/audit/aud_"),
}
"""Pictures of the page that the first row of a list leads to: the list, and the begin of that page's address. A list
that is empty in the demo has none."""

STARTS_WITHIN_SECONDS = 120


def main(arguments: list[str]) -> int:
    """Return 0 where the pictures were taken, 1 where no browser is here, 2 where no directory was named."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    if CHROMIUM is None:
        print("Chromium is not installed (Debian: chromium).", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as place:
        command = [sys.executable, "-m", "tillway.cli.main", "demo", "--data-dir", f"{place}/data", "--port", "0"]
        demo = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            address = _address_of(demo)
            furnish(Path(place) / "data", address.partition("/dashboard/")[0])
            asyncio.run(asyncio.wait_for(take(Path(arguments[0]), Path(place), address), 300))
        finally:
            demo.terminate()
            demo.wait(60)
    return 0


def _address_of(demo: "subprocess.Popen[str]") -> str:
    """The address that signs in once, as the demo prints it."""
    assert demo.stdout is not None
    for line in demo.stdout:
        if found := re.search(r"http://\S+/dashboard/sign-in/\S+", line):
            return found[0]
    raise SystemExit("The demo ended before it printed an address.")


LINK = {"price_data": {"currency": "eur", "unit_amount": 2400, "product_data": {"name": "Tasting on 5 December"}}}
PAYMENT = {"currency": "eur", "confirm": True, "return_url": "https://example.com/thank-you"}
CONNECTOR = {"name": "nordbank", "kind": "http_bank", "settings": {"base_url": "https://api.nordbank.example"}}
CALLS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/v1/webhook_endpoints", {"url": "http://127.0.0.1:9/hook", "enabled_events": ["*"]}),
    (
        "/v1/payment_links",
        {"line_items": [LINK | {"quantity": 1}], "restrictions": {"completed_sessions": {"limit": 30}}},
    ),
    ("/v1/payment_intents", PAYMENT | {"amount": 26000, "payment_method": "pm_card_bypassPending"}),
    (
        "/v1/payment_intents",
        PAYMENT | {"amount": 8900, "payment_method": "pm_card_createDispute", "description": "A kettle"},
    ),
    ("/v1/payouts", {"amount": 10000, "currency": "eur"}),
)
"""Calls that give the demo shop what it lacks for pictures."""

COMMANDS = (
    ("operators", "add", "Mara Brandt", "--role", "operator"),
    ("operators", "add", "Jonas Weidner", "--role", "support"),
    ("operators", "add", "Ines Castro", "--role", "admin"),
)


def furnish(data_dir: Path, url: str) -> None:
    """Make a dispute, a payout, a link, a webhook endpoint, users and a connector."""
    key = json.loads((data_dir / "demo.json").read_text())["secret_key"]
    for path, params in CALLS:
        _post(url + path, params, key)
    for command in COMMANDS:
        told = [sys.executable, "-m", "tillway.cli.main", *command, "--data-dir", str(data_dir), "--json"]
        made = json.loads(subprocess.run(told, check=True, capture_output=True).stdout)
    _post(f"{url}/ops/v1/connectors", CONNECTOR, made["test_key"])


def _post(url: str, params: dict[str, Any], key: str) -> None:
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(params).encode(), headers), timeout=60).close()


async def take(directory: Path, place: Path, address: str) -> None:
    """Take all pictures into `directory`, with a new browser that keeps its things in `place`."""
    directory.mkdir(parents=True, exist_ok=True)
    base = address.partition("/sign-in/")[0]
    async with browsing(place / "browser") as page:
        await page.open(address)
        await page.press("Sign in")
        await page.until("location.pathname === '/dashboard'")
        for name, path in PAGES.items():
            await _picture(page, base + path, directory / f"dashboard-{name}.png")
        found: dict[str, str] = {}
        for name, (path, begin) in FIRST.items():
            await page.open(base + path)
            rows = f"main a.go[href*='{begin}'], main ol a[href*='{begin}']"
            row = await page.look(f'(document.querySelector("{rows}") || {{}}).href')
            if row:
                found[name] = row
                await _picture(page, row, directory / f"dashboard-{name}.png")
        await _picture(page, f"{found['payment']}/refund", directory / "dashboard-refund.png")
        await page.open(f"{base}/settings/system")
        await page.press("Run the doctor")
        await page.until("document.body.textContent.includes('Key file')")
        await page.picture(directory / "dashboard-system.png")
        await page.open(base)
        await page.press("Sign out")
        await page.until("location.pathname === '/dashboard/sign-in' && document.readyState === 'complete'")
        await _picture(page, f"{base}/sign-in", directory / "dashboard-sign-in.png")


async def _picture(page: Page, address: str, file: Path) -> None:
    await page.open(address)
    await page.picture(file)
    print(file.name)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
