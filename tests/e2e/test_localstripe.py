"""The connector `stripe` over localstripe, a fake Stripe that others wrote (PyPI `localstripe`).

Its PaymentIntents take no card with a confirmation, so the payments here are made by localstripe's own methods; the
connector finds and refunds them. localstripe has no captures and forgets idempotency keys. Payments that Stripe's own
command line makes there, by a file of fixtures, are found, too.
"""

import json
import os
import subprocess
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from packages import ROOT
from stripe_cli import stripe_cli

from bench import servers
from tillway.connectors.conversation import converse
from tillway.connectors.port import (
    Declined,
    Form,
    NeverSeen,
    Operation,
    Outcome,
    Recipient,
    Request,
    Succeeded,
    Unknown,
)
from tillway.connectors.stripe import StripeConnector
from tillway.connectors.transport import SocketTransport
from tillway.testing.connector_contract import CARD

KEY = "sk_test_12345"


class Localstripe:
    """The connector with a running localstripe, and the calls of another client."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.connector = StripeConnector(url, KEY)
        self.transport = self.connector.transport()
        self.client = SocketTransport(url, timeout_seconds=10, headers={"authorization": f"Bearer {KEY}"})
        self._drawn = f"{time.time_ns():x}"

    def operation(self, kind: Any, number: int, **fields: Any) -> Operation:
        given = {"amount_minor": 4200, "currency": "eur", **fields}
        return Operation(reference=f"{self._drawn}{number}", kind=kind, **given)

    async def post(self, path: str, **fields: str) -> dict[str, Any]:
        told = await self.client.send(Request("POST", path, Form(tuple(fields.items()))))
        assert told.status == 200 and told.body is not None, told.content
        return told.body

    async def paid(self, operation: Operation, number: str = "4242424242424242") -> str:
        """A payment of localstripe with the operation's reference. Return its id."""
        card = {"number": number, "exp_month": "12", "exp_year": "2040", "cvc": "123"}
        method = await self.post(
            "/v1/payment_methods", type="card", **{f"card[{name}]": value for name, value in card.items()}
        )
        intent = await self.post(
            "/v1/payment_intents",
            amount=str(operation.amount_minor),
            currency=operation.currency,
            payment_method=method["id"],
            capture_method="automatic" if operation.capture else "manual",
            confirm="true",
            **{"metadata[tillway_reference]": operation.reference},
        )
        return str(intent["id"])

    async def do(self, operation: Operation) -> Outcome | NeverSeen:
        return await converse(self.connector.perform(operation), self.transport)

    async def ask(self, operation: Operation) -> Outcome | NeverSeen:
        return await converse(self.connector.look_up(operation), self.transport)


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[Localstripe]:
    try:
        running = servers.localstripe(ROOT / "build" / "bench-venv", tmp_path / "localstripe.log")
        server = running.__enter__()
    except subprocess.CalledProcessError as error:
        pytest.skip(f"localstripe cannot be installed from PyPI here: {error}")
    try:
        made = Localstripe(f"http://127.0.0.1:{server.port}")
        yield made
        await made.transport.close()
        await made.client.close()
    finally:
        running.__exit__(None, None, None)


@pytest.mark.soak
async def test_what_localstripe_has_is_found_and_refunded(peer: Localstripe) -> None:
    whole = peer.operation("authorize", 1)
    id = await peer.paid(whole)
    assert await peer.ask(whole) == Succeeded(id)
    assert await peer.ask(peer.operation("authorize", 2)) == NeverSeen()
    refund = peer.operation("refund", 3, amount_minor=1200, parent=whole.reference, parent_bank_id=id)
    done = await peer.do(refund)
    assert isinstance(done, Succeeded) and await peer.ask(refund) == done


@pytest.mark.soak
async def test_what_localstripe_refuses_is_refused(peer: Localstripe) -> None:
    nothing = peer.operation("refund", 4, parent="x", parent_bank_id="pi_nothing")
    refused = await peer.do(nothing)
    assert isinstance(refused, Unknown), "a 404 that does not say what is missing fails nothing"
    card = await peer.do(peer.operation("authorize", 5, card=CARD))
    assert isinstance(card, Declined) and card.alert is not None, "a parameter that localstripe lacks"
    wrong = msgspec.structs.replace(
        peer.operation("payout", 6, recipient=Recipient("bank_account", "DE89370400440532013000")), currency="usd"
    )
    assert isinstance(await peer.do(wrong), Declined), "localstripe pays out in euros only"


def _fixtures(*steps: tuple[str, str, dict[str, Any]]) -> str:
    """A file for `stripe fixtures`: the name, path and parameters of each step."""
    made = [{"name": name, "path": path, "method": "post", "params": params} for name, path, params in steps]
    return json.dumps({"_meta": {"template_version": 0}, "fixtures": made})


@pytest.mark.soak
async def test_card_payments_of_stripes_own_fixtures_are_found_refunded_and_released(
    peer: Localstripe, tmp_path: Path
) -> None:
    whole, held = peer.operation("authorize", 1), peer.operation("authorize", 2, capture=False)
    refund = peer.operation("refund", 3, amount_minor=1200)
    card = {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040, "cvc": "123"}
    paid = {"amount": 4200, "currency": "eur", "payment_method": "${method:id}", "confirm": True}
    file = tmp_path / "fixtures.json"
    file.write_text(
        _fixtures(
            ("method", "/v1/payment_methods", {"type": "card", "card": card}),
            (
                "whole",
                "/v1/payment_intents",
                {**paid, "capture_method": "automatic", "metadata": {"tillway_reference": whole.reference}},
            ),
            (
                "held",
                "/v1/payment_intents",
                {**paid, "capture_method": "manual", "metadata": {"tillway_reference": held.reference}},
            ),
            (
                "refund",
                "/v1/refunds",
                {
                    "payment_intent": "${whole:id}",
                    "amount": 1200,
                    "metadata": {"tillway_reference": refund.reference},
                },
            ),
        )
    )
    command = [str(stripe_cli()), "fixtures", str(file), "--api-key", KEY, "--api-base", peer.url]
    environment = {**os.environ, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=environment)
    assert done.returncode == 0, done.stderr
    found = await peer.ask(whole)
    assert isinstance(found, Succeeded) and found.bank_id is not None
    made = await peer.ask(msgspec.structs.replace(refund, parent=whole.reference, parent_bank_id=found.bank_id))
    assert isinstance(made, Succeeded), made
    rest = peer.operation("refund", 4, amount_minor=3000, parent=whole.reference, parent_bank_id=found.bank_id)
    assert isinstance(await peer.do(rest), Succeeded)
    waiting = await peer.ask(held)
    assert isinstance(waiting, Succeeded), waiting
    void = peer.operation("void", 5, parent=held.reference, parent_bank_id=waiting.bank_id)
    assert isinstance(await peer.do(void), Succeeded)
    assert await peer.ask(msgspec.structs.replace(held, amount_minor=4300)) == Unknown(
        "the intent is not about our operation"
    )
