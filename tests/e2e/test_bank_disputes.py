"""Disputes between a live server and a bank, as two processes: notices in, evidence and acceptance out."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from server_with_bank import ServerWithBank, eventually


class LiveShop(ServerWithBank):
    """Takes live payments, and hears of disputes."""

    def paid(self, amount: int) -> tuple[Any, str]:
        """A payment, and its reference at the bank."""
        paid = self.pay(amount, "4242424242424242")
        [reference] = self.bank.operations(amount)
        return paid, reference

    def disputes(self, paid: Any, good: Callable[[list[Any]], bool]) -> list[Any]:
        """The disputes of a payment, oldest first, as soon as they are `good`."""
        return eventually(lambda: self.v1.disputes.list({"payment_intent": paid.id}).data[::-1], good)

    def dispute_is(self, paid: Any, status: str) -> Any:
        """The payment's only dispute, as soon as it has that status."""
        return self.disputes(paid, lambda found: [one.status for one in found] == [status])[0]

    def replies(self, dispute: str) -> list[dict[str, Any]]:
        """The evidence and acceptances that the bank took about the dispute of that reference."""
        return [row for row in self.bank.effects() if row.get("parent") == dispute]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveShop]:
    built = LiveShop(
        tmp_path_factory.mktemp("disputes"), mode="live", disputes="yes", timeout_seconds=0.6, ask_after_seconds=1.0
    )
    yield built
    built.close()


def test_an_inquiry_is_answered_and_its_chargeback_too(shop: LiveShop) -> None:
    """The bank takes each key once: the second answer has another key, and its lost answer costs nothing."""
    paid, parent = shop.paid(6101)
    asked = shop.bank.dispute(parent=parent, dispute="inquiry", reason="product_not_received")
    dispute = shop.dispute_is(paid, "warning_needs_response")
    assert (dispute.amount, dispute.balance_transactions) == (6101, [])
    shop.v1.disputes.update(dispute.id, {"evidence": {"uncategorized_text": "It was delivered."}})
    eventually(lambda: len(shop.replies(asked["reference"])), lambda found: found == 1)

    shop.bank.dispute(reference=asked["reference"], dispute="chargeback", amount=6000)
    dispute = shop.dispute_is(paid, "needs_response")
    assert (dispute.amount, [row.net for row in dispute.balance_transactions]) == (6000, [-7500])
    shop.bank.strike({"fault": "lose_answer", "operation": "dispute", "times": 1})
    shop.v1.disputes.update(dispute.id, {"evidence": {"uncategorized_text": "She signed for it."}})
    eventually(lambda: len(shop.replies(asked["reference"])), lambda found: found == 2)
    assert [(row["kind"], row["text"]) for row in shop.replies(asked["reference"])] == [
        ("evidence", "uncategorized_text: It was delivered."),
        ("evidence", "uncategorized_text: She signed for it."),
    ]

    shop.bank.dispute(reference=asked["reference"], status="Won")
    assert [row.net for row in shop.dispute_is(paid, "won").balance_transactions] == [-7500, 7500]
    assert shop.ledger()["disputes"] == 0


def test_several_disputes_of_one_payment_each_with_its_outcome(shop: LiveShop) -> None:
    paid, parent = shop.paid(6201)
    first, second, third = (shop.bank.dispute(parent=parent, amount=amount) for amount in (1000, 2000, 6201))
    found = shop.disputes(paid, lambda found: len(found) == 3)
    assert sorted(one.amount for one in found) == [1000, 2000, 6201]
    closed = next(one for one in found if one.amount == 1000)
    assert shop.v1.disputes.close(closed.id).status == "lost"
    eventually(lambda: [row["kind"] for row in shop.replies(first["reference"])], lambda kinds: kinds == ["accept"])
    shop.bank.dispute(reference=second["reference"], status="Accepted")
    shop.bank.dispute(reference=third["reference"], status="Won")
    statuses = {1000: "lost", 2000: "lost", 6201: "won"}
    shop.disputes(paid, lambda found: {one.amount: one.status for one in found} == statuses)
    assert shop.server.call("GET", "/ops/v1/open_items", key=shop.key)[1]["data"] == []


def test_a_bank_that_contradicts_itself(shop: LiveShop) -> None:
    """The second word moves nothing: it becomes an alarm, an event and an open item with both sides."""
    paid, parent = shop.paid(6301)
    told = shop.bank.dispute(parent=parent, status="Lost")
    lost = shop.dispute_is(paid, "lost")
    before = shop.ledger()
    shop.bank.dispute(reference=told["reference"], status="Won")

    def open_items() -> list[Any]:
        found: list[Any] = shop.server.call("GET", "/ops/v1/open_items", key=shop.key)[1]["data"]
        return found

    [item] = eventually(open_items, bool)
    assert (item["ours"], item["theirs"], item["subject"]) == ("lost", "won", lost.id)
    assert shop.v1.disputes.retrieve(lost.id).status == "lost" and shop.ledger() == before
    eventually(lambda: [line for line in shop.server.log if "contradicts what is booked of a dispute" in line], bool)
    eventually(lambda: shop.v1.events.list({"type": "open_item.created"}).data, bool)


def test_the_money_of_disputes_is_the_banks(shop: LiveShop) -> None:
    """After everything above: what the bank took, less what disputes withhold. The open item has the difference."""
    operations = shop.bank.operations().values()
    taken = sum(row["amount"] for row in operations if row.get("capture"))
    withheld = sum(row["amount"] for row in operations if row["kind"] == "dispute" and row.get("verdict") != "Won")
    [item] = shop.server.call("GET", "/ops/v1/open_items", key=shop.key)[1]["data"]
    ledger = shop.ledger()
    assert ledger["receivable:bank"] + ledger["disputes"] == taken - withheld - item["amount"]
    assert (taken, withheld, item["amount"]) == (6101 + 6201 + 6301, 3000, 6301)
