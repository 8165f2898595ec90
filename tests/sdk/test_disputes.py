"""Dispute cards: the dispute is there when the payment is answered, takes the money, and is closed or answered."""

import io
from collections.abc import Callable
from typing import Any

import pytest
import stripe
from sdk_shop import Shop
from tillway_server import TillwayServer

Disputed = Callable[..., stripe.Dispute]


@pytest.fixture
def disputed(shop: Shop) -> Disputed:
    """The dispute over a new payment of 42.00 EUR, as `stripe trigger charge.dispute.closed` looks for it: at once."""

    def take(method: str = "pm_card_createDispute") -> Any:
        (dispute,) = shop.v1.disputes.list({"payment_intent": shop.pay(method).id}).data
        return dispute

    return take


def moves(shop: Shop, dispute: stripe.Dispute) -> list[tuple[int, int, int]]:
    """The balance transactions of a dispute, oldest first: amount, fee, net."""
    rows = shop.v1.balance_transactions.list({"source": dispute.id}).data
    return [(row.amount, row.fee, row.net) for row in reversed(rows)]


def test_a_dispute_takes_the_money(shop: Shop, disputed: Disputed) -> None:
    dispute = disputed()
    assert (dispute.status, dispute.reason, dispute.amount) == ("needs_response", "fraudulent", 4200)
    charge = shop.v1.charges.retrieve(str(dispute.charge))
    assert charge.disputed
    assert moves(shop, dispute) == [(-4200, 1500, -5700)]
    assert [row.net for row in dispute.balance_transactions] == [-5700]
    seen = {event.type for event in shop.v1.events.list({"types": ["charge.dispute.created"], "limit": 5}).data}
    assert seen == {"charge.dispute.created"}


def test_the_reason_of_the_card(shop: Shop, disputed: Disputed) -> None:
    assert disputed("pm_card_createDisputeProductNotReceived").reason == "product_not_received"


def test_an_inquiry_takes_nothing(shop: Shop, disputed: Disputed) -> None:
    dispute = disputed("pm_card_createDisputeInquiry")
    assert (dispute.status, dispute.is_charge_refundable) == ("warning_needs_response", True)
    assert moves(shop, dispute) == []
    assert shop.v1.refunds.create({"charge": str(dispute.charge), "amount": 100}).status == "succeeded"
    assert shop.v1.disputes.close(dispute.id).status == "warning_closed"


def test_winning_evidence(shop: Shop, disputed: Disputed) -> None:
    dispute = disputed()
    won = shop.v1.disputes.update(dispute.id, {"evidence": {"uncategorized_text": "winning_evidence"}})
    assert (won.status, won.evidence_details.has_evidence, won.evidence_details.submission_count) == ("won", True, 1)
    assert moves(shop, dispute) == [(-4200, 1500, -5700), (4200, -1500, 5700)]
    assert [row.net for row in won.balance_transactions] == [-5700, 5700]
    assert shop.v1.charges.retrieve(str(dispute.charge)).disputed
    assert shop.v1.refunds.create({"charge": str(dispute.charge)}).amount == 4200


def test_losing_evidence(shop: Shop, disputed: Disputed) -> None:
    dispute = disputed()
    lost = shop.v1.disputes.update(dispute.id, {"evidence": {"uncategorized_text": "losing_evidence"}})
    assert (lost.status, lost.is_charge_refundable) == ("lost", False)
    assert moves(shop, dispute) == [(-4200, 1500, -5700)]


def test_evidence_is_staged_and_then_submitted(shop: Shop, disputed: Disputed) -> None:
    dispute = disputed()
    staged = shop.v1.disputes.update(
        dispute.id, {"evidence": {"customer_name": "Anna"}, "submit": False, "metadata": {"case": "1"}}
    )
    assert (staged.status, staged.evidence.customer_name) == ("needs_response", "Anna")
    assert staged.metadata.to_dict() == {"case": "1"}
    sent = shop.v1.disputes.update(dispute.id, {"evidence": {"product_description": "A chair"}})
    assert (sent.status, sent.evidence.customer_name) == ("under_review", "Anna")
    with pytest.raises(stripe.InvalidRequestError):
        shop.v1.disputes.update(dispute.id, {"evidence": {"customer_name": "Bert"}})


def test_close_is_giving_in(shop: Shop, disputed: Disputed) -> None:
    dispute = disputed()
    assert shop.v1.disputes.close(dispute.id).status == "lost"
    with pytest.raises(stripe.InvalidRequestError):
        shop.v1.disputes.close(dispute.id)


def test_a_disputed_charge_cannot_be_refunded(shop: Shop, disputed: Disputed) -> None:
    dispute = disputed()
    with pytest.raises(stripe.InvalidRequestError) as caught:
        shop.v1.refunds.create({"charge": str(dispute.charge)})
    assert caught.value.code == "charge_disputed"


def test_list_by_payment_and_expand(shop: Shop, disputed: Disputed) -> None:
    dispute = disputed()
    found = shop.v1.disputes.list({"payment_intent": str(dispute.payment_intent), "expand": ["data.charge"]}).data
    assert [one.id for one in found] == [dispute.id]
    assert isinstance(found[0].charge, stripe.Charge)


def test_what_is_disputed_is_what_was_captured(shop: Shop) -> None:
    held = shop.authorized(method="pm_card_createDispute")
    shop.v1.payment_intents.capture(held.id, {"amount_to_capture": 1000})
    charge = str(held.latest_charge)
    assert [one.amount for one in shop.v1.disputes.list({"charge": charge}).data] == [1000]


def test_a_warning_is_no_dispute(shop: Shop) -> None:
    paid = shop.pay("pm_card_createIssuerFraudRecord")
    charge = str(paid.latest_charge)
    warned = shop.v1.charges.retrieve(charge)
    assert "stripe_report" in (warned.to_dict()["fraud_details"] or {})
    assert not warned.disputed
    assert not shop.v1.disputes.list({"payment_intent": paid.id}).data


def test_evidence_is_a_file(tillway_server: TillwayServer, shop: Shop, disputed: Disputed) -> None:
    """The SDK sends files to an address of their own, which is Tillway's as well."""
    places: Any = dict.fromkeys(("api", "files"), tillway_server.base_url)
    client = stripe.StripeClient(tillway_server.secret_key, base_addresses=places)
    pdf = io.BytesIO(b"%PDF-1.7 receipt")
    file = client.v1.files.create({"purpose": "dispute_evidence", "file": pdf})
    assert (file.type, file.size, client.v1.files.retrieve(file.id).purpose) == ("pdf", 16, "dispute_evidence")
    answered = shop.v1.disputes.update(disputed().id, {"evidence": {"receipt": file.id}, "submit": True})
    assert (answered.evidence.receipt, answered.status) == (file.id, "under_review")
