"""QR codes: drawn as ISO/IEC 18004 says, read back module by module."""

import hashlib
from pathlib import Path

from dashboard_shop import DashboardShop

from tillway.testing.in_process import InProcessApp
from tillway.web.dashboard.qr_code import qr_path

READ = {
    "https://pay.example/p/plink_8DzVvbijqR3VYar01": (33, "fd85d702c7553327"),
    "https://pay.example/p/" + "x" * 200: (61, "aa838a94d1660e16"),
}
"""Texts that ZXing read from the code, its width in modules, and a digest of its strokes."""


def test_codes_are_those_that_a_reader_has_read() -> None:
    for address, (width, digest) in READ.items():
        drawn = qr_path(address)
        assert drawn is not None and drawn[1] == width
        assert hashlib.sha256(drawn[0].encode()).hexdigest().startswith(digest)


def test_a_text_that_fits_no_code_has_none() -> None:
    longest = qr_path("a" * 666)
    assert longest is not None and longest[1] == 97
    assert qr_path("a" * 667) is None


async def test_a_payment_link_shows_its_address_as_a_code(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    try:
        shop = DashboardShop(app, await app.merchant())
        price = {"currency": "eur", "unit_amount": 100, "product_data": {"name": "Tea"}}
        link = await shop.post("/v1/payment_links", line_items=[{"price_data": price, "quantity": 1}])
        page = (await (await shop.visitor()).get(f"/dashboard/links/{link['id']}")).body.decode()
    finally:
        await app.close()
    drawn = qr_path(link["url"])
    assert drawn is not None and f'<path d="{drawn[0]}"/>' in page
    assert f'aria-label="QR code for {link["url"]}"' in page
