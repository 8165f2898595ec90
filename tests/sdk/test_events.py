"""Events: what happened, in the words and the order of Stripe."""

import pytest
import stripe
from sdk_shop import Shop


def types_about(shop: Shop, *ids: str) -> list[str]:
    """The types of the events about these objects, oldest first."""
    found = shop.v1.events.list({"limit": 100}).data
    return [event.type for event in reversed(found) if getattr(event.data.object, "id", None) in ids]


def test_a_payment(own_shop: Shop) -> None:
    paid = own_shop.pay()
    assert types_about(own_shop, paid.id, str(paid.latest_charge)) == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.succeeded",
    ]


def test_a_capture(own_shop: Shop) -> None:
    held = own_shop.authorized()
    own_shop.v1.payment_intents.capture(held.id, {"amount_to_capture": 100})
    assert types_about(own_shop, held.id, str(held.latest_charge)) == [
        "payment_intent.created",
        "charge.succeeded",
        "payment_intent.amount_capturable_updated",
        "charge.captured",
        "payment_intent.succeeded",
    ]


def test_a_cancellation(own_shop: Shop) -> None:
    held = own_shop.authorized()
    own_shop.v1.payment_intents.cancel(held.id)
    assert types_about(own_shop, held.id)[-1] == "payment_intent.canceled"


def test_a_decline(own_shop: Shop) -> None:
    error = own_shop.declined().error
    assert error is not None
    assert types_about(own_shop, error.payment_intent.id, str(error.charge)) == [
        "payment_intent.created",
        "charge.failed",
        "payment_intent.payment_failed",
    ]


def test_a_refund(own_shop: Shop) -> None:
    paid = own_shop.pay()
    refund = own_shop.v1.refunds.create({"payment_intent": paid.id})
    seen = types_about(own_shop, refund.id, str(paid.latest_charge))
    assert set(seen) >= {"refund.created", "charge.refunded"}


def test_an_authentication(own_shop: Shop) -> None:
    waiting = own_shop.pay("pm_card_authenticationRequired")
    assert types_about(own_shop, waiting.id) == ["payment_intent.created", "payment_intent.requires_action"]


def test_a_customer(own_shop: Shop) -> None:
    made = own_shop.v1.customers.create({"name": "Anna"})
    own_shop.v1.customers.update(made.id, {"name": "Änne"})
    own_shop.v1.customers.delete(made.id)
    assert types_about(own_shop, made.id) == ["customer.created", "customer.updated", "customer.deleted"]
    event = own_shop.v1.events.list({"type": "customer.updated", "limit": 1}).data[0]
    assert event.data.previous_attributes is not None
    assert event.data.previous_attributes.to_dict() == {"name": "Anna"}
    assert event.data.object["name"] == "Änne"


def test_attaching(own_shop: Shop) -> None:
    customer = own_shop.v1.customers.create()
    method = own_shop.v1.payment_methods.attach("pm_card_visa", {"customer": customer.id})
    own_shop.v1.payment_methods.detach(method.id)
    assert types_about(own_shop, method.id) == ["payment_method.attached", "payment_method.detached"]


def test_setting_up(own_shop: Shop) -> None:
    done = own_shop.v1.setup_intents.create({"payment_method": "pm_card_visa", "confirm": True})
    assert types_about(own_shop, done.id) == ["setup_intent.created", "setup_intent.succeeded"]


def test_retrieve_and_filter(own_shop: Shop) -> None:
    own_shop.pay()
    event = own_shop.v1.events.list({"type": "charge.*", "limit": 1}).data[0]
    assert event.type.startswith("charge.")
    assert own_shop.v1.events.retrieve(event.id) == event
    several = own_shop.v1.events.list({"types": ["charge.succeeded", "charge.failed"], "limit": 100}).data
    assert {one.type for one in several} <= {"charge.succeeded", "charge.failed"}
    assert event.data.object["object"] == "charge"
    assert event.api_version and event.created and event.pending_webhooks == 0


def test_an_event_is_as_it_was(own_shop: Shop) -> None:
    made = own_shop.v1.payment_intents.create({"amount": 700, "currency": "eur"})
    own_shop.v1.payment_intents.update(made.id, {"amount": 900})
    created = next(
        one
        for one in own_shop.v1.events.list({"type": "payment_intent.created", "limit": 5}).data
        if one.data.object["id"] == made.id
    )
    assert created.data.object["amount"] == 700


def test_pages(own_shop: Shop) -> None:
    own_shop.pay()
    ids = [one.id for one in own_shop.v1.events.list({"limit": 100}).data]
    page = own_shop.v1.events.list({"limit": 7})
    assert [one.id for _, one in zip(range(20), page.auto_paging_iter(), strict=False)] == ids[:20]


def test_a_type_that_cannot_be_asked_for(own_shop: Shop) -> None:
    with pytest.raises(stripe.InvalidRequestError) as caught:
        own_shop.v1.events.list({"type": "charge.[*", "limit": 1})
    assert caught.value.param == "type"
