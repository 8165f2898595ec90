"""The thinnest path, as an operator walks it: init, serve, pay, stop, start, and the payment is still there."""

from pathlib import Path

from tillway_server import TillwayServer, init


def test_a_payment_of_42_euros_is_still_there_after_a_restart(tmp_path: Path) -> None:
    made = init(tmp_path / "data")
    server = TillwayServer(tmp_path / "data", made)
    paid = server.client.v1.payment_intents.create(
        {
            "amount": 4200,
            "currency": "eur",
            "payment_method": "pm_card_visa",
            "confirm": True,
            "return_url": "https://example.com/back",
        }
    )
    assert (paid.status, paid.amount_received) == ("succeeded", 4200)
    assert server.stop() == 0

    server = TillwayServer(tmp_path / "data", made)
    again = server.client.v1.payment_intents.retrieve(paid.id)
    assert (again.status, again.amount, again.currency) == ("succeeded", 4200, "eur")
    assert server.stop() == 0
