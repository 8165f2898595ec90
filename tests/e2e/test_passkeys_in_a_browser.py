"""A passkey in Chromium, with a virtual authenticator: made at Your sign-in, signed in with, proved with, removed."""

from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import CHROMIUM, browsing
from tillway_server import StartServer, init, invoked

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine (Debian: chromium)")

OFFERED = "document.querySelector('form[data-passkey]:not([hidden])') !== null"
"""The module has been loaded, and shows the form for a passkey."""

DEVICE = {
    "protocol": "ctap2",
    "transport": "internal",
    "hasResidentKey": True,
    "hasUserVerification": True,
    "isUserVerified": True,
    "automaticPresenceSimulation": True,
}


@pytest.fixture
def address(start_server: StartServer, tmp_path: Path) -> str:
    """An address that signs a new admin in at a server with a name: browsers make no passkeys for 127.0.0.1."""
    data_dir = tmp_path / "data"
    server = start_server(data_dir, init(data_dir), ["--host", "localhost"])
    assert urlsplit(server.base_url).hostname == "localhost"
    added = invoked("operators", "add", "Mara", "--role", "admin", "--data-dir", data_dir)
    assert added.returncode == 0, added.stderr
    # Without another way to sign in, the last passkey would stay.
    (tmp_path / "password").write_text("three-words-of-nothing")
    given = ("--email", "mara@shop.example", "--password", f"@{tmp_path / 'password'}", "--data-dir", data_dir)
    assert invoked("operators", "password", "Mara", *given).returncode == 0
    return invoked("operators", "sign-in", "Mara", "--data-dir", data_dir).stdout.strip()


async def test_a_passkey_is_made_used_and_removed(address: str, tmp_path: Path) -> None:
    dashboard = address.partition("/sign-in/")[0]
    async with browsing(tmp_path / "profile") as page:
        await page.send("WebAuthn.enable")
        device = (await page.send("WebAuthn.addVirtualAuthenticator", options=DEVICE))["authenticatorId"]
        await page.open(f"{dashboard}/sign-in")
        assert not await page.look("document.body.textContent.includes('Sign in with a passkey')"), "there is none"
        await page.open(address)
        await page.press("Sign in")
        await page.until("location.pathname === '/dashboard' && document.readyState === 'complete'")
        await page.open(f"{dashboard}/security")
        await page.fill("Name of the passkey", "Laptop")
        await page.press("Add")
        await page.until(OFFERED)
        await page.press("Make the passkey")
        await page.until("document.body.textContent.includes('The passkey Laptop is added')")
        kept = (await page.send("WebAuthn.getCredentials", authenticatorId=device))["credentials"]
        assert [one["rpId"] for one in kept] == ["localhost"]
        await page.press("Sign out")
        await page.until("location.pathname === '/dashboard/sign-in' && document.readyState === 'complete'")
        await page.until(OFFERED)
        await page.press("Sign in with a passkey")
        await page.until("location.pathname === '/dashboard' && document.readyState === 'complete'")
        await page.open(f"{dashboard}/security")
        assert await page.look("document.body.textContent.includes('by passkey since')")
        await page.press("Remove")
        await page.until("document.body.textContent.includes('/security/passkeys/') === false")
        await page.until("!document.querySelector('form[action*=\"/passkeys/dpk_\"]')")
        # The browser has advice for forms with a new password.
        assert [one for one in page.complaints if not one.startswith("[DOM]")] == []
