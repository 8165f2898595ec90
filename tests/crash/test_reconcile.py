"""The rules of the crash harness, each on a small world in which just that is wrong."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.crash.clients import Order, Reply
from tillway.crash.disputes import (
    Case,
    Heard,
    find_unanswered,
    numbered,
    read_cases,
    unreturned_payments_are_disputed,
)
from tillway.crash.hook import EVENTS
from tillway.crash.issuer import Word
from tillway.crash.reconcile import Performed, Platform, Said, read_journal, reconcile
from tillway.crash.report import explain

SCOPE = "abcdefghijklmnopt"
World = dict[str, Any]


def world() -> World:
    """One payment of 100.00, for two books of three, of which 30.00 went back and 10.00 were paid out; and a
    disbursement of 5.00, as everybody tells it. 10.00 were charged back and lost. Later the bank says
    that they were won, and that it never authorized the payment."""
    payment = {
        "id": "pi_000000000000001",
        "object": "payment_intent",
        "status": "succeeded",
        "amount": 10_000,
        "amount_received": 10_000,
        "currency": "usd",
        "latest_charge": "ch_000000000000002",
        "metadata": {"story": "7-1"},
    }
    charge = {
        "id": "ch_000000000000002",
        "object": "charge",
        "status": "succeeded",
        "amount": 10_000,
        "amount_captured": 10_000,
        "amount_refunded": 3_000,
        "captured": True,
        "currency": "usd",
        "payment_intent": "pi_000000000000001",
        "metadata": {},
    }
    refund = {
        "id": "re_000000000000003",
        "object": "refund",
        "status": "succeeded",
        "amount": 3_000,
        "currency": "usd",
        "charge": "ch_000000000000002",
        "balance_transaction": "txn_2",
        "metadata": {},
    }
    payout = {
        "id": "po_000000000000005",
        "object": "payout",
        "status": "paid",
        "amount": 1_000,
        "currency": "usd",
        "balance_transaction": "txn_1",
    }
    dispute = {
        "id": "du_000000000000011",
        "object": "dispute",
        "status": "lost",
        "amount": 1_000,
        "currency": "usd",
        "charge": "ch_000000000000002",
        "evidence_details": {"submission_count": 1, "due_by": 1},
        "payment_method_details": {"card": {"case_type": "chargeback", "network_reason_code": "1"}},
    }
    won = {
        "id": "oi_000000000000011.won",
        "kind": "contradiction",
        "reference": "case-1",
        "ours": "lost",
        "theirs": "won",
        "subject": "du_000000000000011",
    }
    denied = {
        "id": "oi_000000000000002.declined",
        "kind": "contradiction",
        "reference": f"{SCOPE}000000000000002",
        "ours": "succeeded",
        "theirs": "declined",
        "subject": "ch_000000000000002",
    }
    disbursed = {**payout, "id": "po_000000000000006", "amount": 500, "balance_transaction": None}
    happened: tuple[tuple[str, dict[str, Any]], ...] = (
        ("payment_intent.created", payment),
        ("payment_intent.succeeded", payment),
        ("charge.succeeded", charge),
        ("refund.created", refund),
        ("charge.dispute.created", dispute),
        ("charge.dispute.funds_withdrawn", dispute),
        ("open_item.created", won),
        ("open_item.created", denied),
        *((f"payout.{word}", one) for one in (payout, disbursed) for word in ("created", "paid")),
    )
    pay = Order(story="7-1", what="pay", path="/v1/payment_intents", params={"amount": 10_000}, key="7-1-1-pay")
    said = msgspec.json.encode(payment)
    put = Order(story="7-2", what="stock", path="/products/book", params={"available_count": 3}, key="7-2-stock")
    buy = Order(story="7-2", what="order", path="/orders", params={}, key="7-2-1-order")
    accepted = {"order_id": "7-2-0", "products": [{"product_id": "book", "requested_count": 2}]}
    return {
        "told": [
            Reply(at=1.0, order=pay, status=200, body=said),
            Reply(at=2.0, order=pay, status=200, body=said),
            Reply(at=0.1, order=put, status=200, body=b'{"product_id":"book"}'),
            Reply(at=0.2, order=buy, status=202, body=msgspec.json.encode(accepted)),
        ],
        "orders": [
            {
                "id": "ord_000000000000007",
                "order_id": "7-2-0",
                "status": "placed",
                "amount_total": 10_000,
                "payment_intent": "pi_000000000000001",
                "refund": None,
            }
        ],
        "products": [{"product_id": "book", "available_count": 1, "reserved_count": 0, "sold_count": 2}],
        "payments": [payment],
        "charges": [charge],
        "refunds": [refund],
        "payouts": [payout, disbursed],
        "entries": [{"currency": "usd", "net": net} for net in (9_680, -3_000, -1_000, -2_500)],
        "events": [
            {"id": f"evt_{number}", "type": type, "data": {"object": {"id": thing["id"]}}}
            for number, (type, thing) in enumerate(happened)
        ],
        "delivered": {f"evt_{number}": 1 for number, (type, _) in enumerate(happened) if type in EVENTS},
        "ledger": {
            "balanced": True,
            "accounts": [
                {"account": "receivable:bank", "currency": "usd", "balance": 5_000},
                {"account": "merchant", "currency": "usd", "balance": -3_180},
                {"account": "fees", "currency": "usd", "balance": -1_820},
                {"account": "refunds", "currency": "usd", "balance": 0},
                {"account": "payouts", "currency": "usd", "balance": 0},
                {"account": "disbursements", "currency": "usd", "balance": 500},
                {"account": "provider:bank", "currency": "usd", "balance": -500},
            ],
        },
        "balance": {
            "available": [{"currency": "usd", "amount": -3_500}],
            "pending": [{"currency": "usd", "amount": 6_680}],
        },
        "doubts": [],
        "disputes": [dispute],
        "items": [won, denied],
        "cases": {"1": case("Opened", "Lost", "Won")},
        "words": [authorization_denied()],
        "logs": f"ERROR a provider contradicts a settled outcome reference={SCOPE}000000000000002",
        "routes": {"pi_000000000000001": [{"connector": "bank", "outcome": "succeeded"}]},
        "bank": {
            f"{SCOPE}000000000000002": performed("000000000000002", "authorization", 10_000, capture=True),
            f"{SCOPE}000000000000003": performed("000000000000003", "refund", 3_000, parent="000000000000002"),
            f"{SCOPE}000000000000005": performed("000000000000005", "payout", 1_000),
            f"{SCOPE}000000000000006": performed("000000000000006", "payout", 500),
        },
    }


def performed(suffix: str, kind: str, amount: int, *, parent: str | None = None, **more: Any) -> Performed:
    parent = None if parent is None else SCOPE + parent
    fields = {"status": "Accepted", "currency": "usd", **more}
    return Performed(reference=SCOPE + suffix, kind=kind, amount=amount, parent=parent, **fields)


def case(*verdicts: str, **more: Any) -> Case:
    """A chargeback of 10.00 with these reports, all of which were heard, and one piece of evidence."""
    reports = [Heard("chargeback", verdict, certain=True) for verdict in verdicts]
    fields = {"amount": 1_000, "currency": "usd", "stage": "chargeback", "verdict": verdicts[-1], "evidence": 1, **more}
    parent, told = f"{SCOPE}000000000000002", len(verdicts)
    return Case(connector="bank", reference="case-1", parent=parent, told=told, reports=reports, **fields)


def authorization_denied() -> Word:
    return Word(
        connector="bank",
        reference=f"{SCOPE}000000000000002",
        kind="authorization",
        status="Declined",
        amount=10_000,
        currency="usd",
        heard=True,
        alarming=True,
    )


def rules_broken(world: World) -> set[str]:
    platform = Platform(**{name: world[name] for name in Platform.__struct_fields__})
    banks = {"bank": world["bank"], **({"second": world["second"]} if "second" in world else {})}
    found = reconcile(world["told"], platform, banks, said=said_by_banks(world), delivered=world["delivered"])
    return {violation.rule for violation in found}


def said_by_banks(world: World) -> Said:
    charge_of = {f"{SCOPE}000000000000002": "ch_000000000000002"}
    return Said(cases=world["cases"], words=world["words"], charge_of=charge_of, logs=world["logs"])


def test_the_world_is_in_order() -> None:
    assert rules_broken(world()) == set()


def _told(world: World, **fields: Any) -> None:
    world["told"][1] = msgspec.structs.replace(world["told"][1], **fields)


def _second(world: World, name: str, **fields: Any) -> None:
    world[name].append({**copy.deepcopy(world[name][0]), **fields})


def _bank(world: World, suffix: str, kind: str, amount: int, **more: Any) -> Any:
    world["bank"][SCOPE + suffix] = performed(suffix, kind, amount, **more)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        (lambda w: _told(w, status=500, body=b"{}"), "nothing the caller sends makes a 500"),
        (lambda w: _told(w, status=400, body=b'{"error":{"code":"parameter_unknown"}}'), "a refusal is earned"),
        (lambda w: _told(w, body=w["told"][1].body.replace(b"7-1", b"7-9")), "a key has one answer"),
        (lambda w: w["payments"][0].update(status="canceled"), "answers stay true"),
        (lambda w: w["payments"].clear(), "answers stay true"),
        (lambda w: w["payments"][0].update(status="processing"), "nothing is left under way"),
        (lambda w: w["refunds"][0].update(status="pending"), "nothing is left under way"),
        (lambda w: w["doubts"].append({"id": "att_1", "subject": "pi_1"}), "nothing is left under way"),
        (
            lambda w: _bank(w, "4", "capture", 1, parent="000000000000002", status="Pending"),
            "nothing is left under way",
        ),
        (lambda w: _second(w, "payments", id="pi_000000000000009"), "one key, one payment"),
        (lambda w: _second(w, "charges", id="ch_000000000000009"), "a payment is taken once"),
        (lambda w: w["charges"][0].update(amount=9_999), "charges are the bank's authorizations"),
        (lambda w: w["charges"][0].update(amount_captured=9_999), "charges are the bank's authorizations"),
        (lambda w: w["charges"][0].update(status="failed"), "charges are the bank's authorizations"),
        (lambda w: w["bank"].pop(SCOPE + "000000000000002"), "charges are the bank's authorizations"),
        (lambda w: _bank(w, "4", "authorization", 5), "charges are the bank's authorizations"),
        (lambda w: _bank(w, "4", "void", 10_000, parent="000000000000002"), "charges are the bank's authorizations"),
        (lambda w: w["routes"].update(pi_000000000000001=[]), "routes lead to the money"),
        (lambda w: w["refunds"][0].update(amount=2_999), "refunds are the bank's refunds"),
        (lambda w: w["refunds"][0].update(status="failed"), "refunds are the bank's refunds"),
        (lambda w: w["charges"][0].update(amount_refunded=2_999), "refunds are the bank's refunds"),
        (lambda w: _bank(w, "4", "refund", 5, parent="000000000000002"), "refunds are the bank's refunds"),
        (lambda w: w["payouts"][0].update(status="pending"), "nothing is left under way"),
        (lambda w: w["payouts"][0].update(status="failed"), "payouts are the bank's payouts"),
        (lambda w: w["payouts"][0].update(amount=999), "payouts are the bank's payouts"),
        (lambda w: w["payouts"].pop(), "payouts are the bank's payouts"),
        (
            lambda w: w["payouts"][0].update(status="canceled") or _bank(w, "000000000000005", "payout", 1_000),
            "payouts are the bank's payouts",
        ),
        (lambda w: w["bank"].pop(SCOPE + "000000000000006"), "payouts are the bank's payouts"),
        (lambda w: w["ledger"]["accounts"][4].update(balance=1), "the sums agree"),
        (lambda w: w["ledger"]["accounts"][6].update(balance=-499), "the sums agree"),
        (lambda w: _bank(w, "4", "capture", 5, parent="000000000000008"), "nothing else was done"),
        (lambda w: w["ledger"]["accounts"][0].update(balance=6_999), "the sums agree"),
        (lambda w: w["ledger"]["accounts"][3].update(balance=1), "the sums agree"),
        (lambda w: w["balance"]["pending"][0].update(amount=1), "the sums agree"),
        (lambda w: w["entries"].pop(), "the sums agree"),
        (lambda w: w["ledger"].update(balanced=False), "the sums agree"),
        (lambda w: w["events"].append(w["events"][1]), "events are told once"),
        (lambda w: w["events"].pop(), "events are told once"),
        (lambda w: w["delivered"].popitem(), "events reach the merchant"),
        (lambda w: w["delivered"].update(evt_never=1), "events reach the merchant"),
        (lambda w: w["orders"][0].update(status="paying"), "nothing is left under way"),
        (lambda w: w["orders"][0].update(status="payment_failed"), "orders end well"),
        (lambda w: w["orders"][0].update(payment_intent=None), "orders end well"),
        (lambda w: w["orders"][0].update(amount_total=9_999), "orders end well"),
        (lambda w: w["orders"][0].update(refund="re_000000000000003"), "orders end well"),
        (lambda w: _second(w, "orders", id="ord_000000000000008"), "orders end well"),
        (lambda w: w["orders"].clear(), "orders end well"),
        (lambda w: w["payments"][0]["metadata"].update(order_id="7-9-0") or w["orders"].clear(), "orders end well"),
        (lambda w: w["products"][0].update(available_count=2), "orders end well"),
        (lambda w: w["products"][0].update(reserved_count=1), "orders end well"),
        (lambda w: _second(w, "disputes", id="du_000000000000012"), "disputes are the bank's"),
        (lambda w: w["disputes"].clear(), "disputes are the bank's"),
        (lambda w: w["cases"].clear(), "disputes are the bank's"),
        (lambda w: w["disputes"][0].update(amount=999), "disputes are the bank's"),
        (lambda w: w["disputes"][0].update(amount=999), "the sums agree"),
        (lambda w: w["disputes"][0].update(status="under_review"), "disputes are the bank's"),
        (lambda w: w["disputes"][0].update(status="won"), "contradictions are open items"),
        (lambda w: w["disputes"][0].update(status="won"), "the sums agree"),
        (lambda w: w["cases"].update({"1": case("Opened", "Lost")}), "contradictions are open items"),
        (lambda w: w["items"].pop(0), "contradictions are open items"),
        (lambda w: w["items"].pop(1), "contradictions are open items"),
        (lambda w: _second(w, "items", id="oi_3", subject="ch_3"), "contradictions are open items"),
        (lambda w: w["items"][1].update(theirs="succeeded"), "contradictions are open items"),
        (lambda w: w["words"].clear(), "contradictions are open items"),
        (lambda w: w.update(logs=""), "contradictions are open items"),
        (lambda w: w["cases"].update({"1": case("Lost", "Won", evidence=2)}), "replies arrive once"),
        (lambda w: w["cases"].update({"1": case("Opened", evidence=0)}), "replies arrive once"),
        (
            lambda w: w["ledger"]["accounts"].append({"account": "disputes", "currency": "usd", "balance": -1}),
            "the sums agree",
        ),
        (lambda w: w["events"].append(w["events"][4]), "events are told once"),
    ],
)
def test_what_is_wrong_is_seen(wrong: Callable[[World], None], rule: str) -> None:
    broken = world()
    wrong(broken)
    assert rule in rules_broken(broken)


def _release(world: World) -> None:
    """An authorization of 50.00 that a refund has released: a void at the bank, and no money anywhere."""
    released = {"id": "ch_000000000000008", "amount": 5_000, "amount_captured": 0, "captured": False}
    _second(world, "charges", **released, payment_intent=None, amount_refunded=5_000)
    refund = {"id": "re_000000000000009", "amount": 5_000, "charge": "ch_000000000000008"}
    _second(world, "refunds", **refund, balance_transaction=None)
    _bank(world, "000000000000008", "authorization", 5_000)
    _bank(world, "000000000000010", "void", 5_000, parent="000000000000008")
    for number, (type, id) in enumerate((("charge.succeeded", released["id"]), ("refund.created", refund["id"]))):
        world["events"].append({"id": f"evt_r{number}", "type": type, "data": {"object": {"id": id}}})
        if type in EVENTS:
            world["delivered"][f"evt_r{number}"] = 1


def test_a_refund_that_releases_an_authorization_is_a_void_and_no_money() -> None:
    released = world()
    _release(released)
    assert rules_broken(released) == set()
    released["bank"].pop(SCOPE + "000000000000010")
    assert rules_broken(released) == {"refunds are the bank's refunds"}
    _bank(released, "000000000000010", "void", 5_000, parent="000000000000008")
    released["refunds"][1].update(status="failed")
    assert "refunds are the bank's refunds" in rules_broken(released)


def test_money_at_two_banks_is_seen() -> None:
    two = world()
    two["second"] = {}
    assert rules_broken(two) == set()
    reference = SCOPE + "000000000000003"
    two["second"][reference] = two["bank"][reference]
    assert "a reference is at one bank" in rules_broken(two)
    two["second"] = {reference: two["bank"].pop(reference)}
    assert rules_broken(two) == {"the sums agree"}


def test_more_refunded_than_captured_is_seen() -> None:
    broken = world()
    _second(broken, "refunds", id="re_000000000000004", amount=8_000)
    _bank(broken, "000000000000004", "refund", 8_000, parent="000000000000002")
    assert "refunds never exceed captures" in rules_broken(broken)


def test_a_reference_that_stands_for_two_things_is_seen(tmp_path: Path) -> None:
    first = performed("2", "authorization", 100, status="Pending", contents="a")
    journal = tmp_path / "bank.journal"
    later = msgspec.structs.replace(first, status="Accepted")
    lines = [first, later, {"noticed": "settles-1-x"}]
    journal.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines) + b'{"torn')
    operations, violations = read_journal(journal)
    assert (operations, violations) == ({first.reference: later}, [])
    other = msgspec.structs.replace(first, amount=101)
    journal.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in (first, other)))
    assert [found.rule for found in read_journal(journal)[1]] == ["a reference is one thing for ever"]


def test_the_disputes_of_a_journal_are_read_with_their_replies(tmp_path: Path) -> None:
    first = {"reference": "case-1", "kind": "dispute", "status": "Accepted", "amount": 500, "currency": "usd"}
    first |= {"parent": f"{SCOPE}2", "dispute": "inquiry", "told": 1}
    evidence = {"reference": "inquiry-evidence-case-1", "kind": "evidence", "status": "Accepted", "parent": "case-1"}
    later = {**first, "dispute": "chargeback", "amount": 900, "told": 2}
    accepted = {**evidence, "reference": "chargeback-accept-case-1", "kind": "accept"}
    lines = [first, evidence, {"noticed": "report-1-case-1"}, later, accepted]
    journal = tmp_path / "bank.journal"
    journal.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in lines))
    assert read_journal(journal) == ({}, [])
    found = read_cases(journal, "bank")["case-1"]
    assert (found.amount, found.stage, found.verdict, found.evidence, found.accepted) == (
        900,
        "chargeback",
        "Accepted",
        1,
        1,
    )
    assert [(one.stage, one.verdict, one.certain) for one in found.reports] == [
        ("inquiry", "Opened", True),
        ("chargeback", "Opened", False),
        ("chargeback", "Accepted", True),
    ]


def test_a_dispute_under_way_is_waited_for() -> None:
    now = 1_000_000.0
    due, waiting = world(), case("Opened", evidence=1, acknowledged=True)
    assert find_unanswered(due["disputes"], numbered([waiting]), now=now) == []
    assert find_unanswered([], numbered([waiting]), now=now) == ["case-1 is not told"]
    waiting.acknowledged = False
    assert find_unanswered(due["disputes"], numbered([waiting]), now=now) == ["case-1 is not told"]
    waiting.acknowledged, waiting.evidence = True, 0
    assert find_unanswered(due["disputes"], numbered([waiting]), now=now) == [
        "the evidence of du_000000000000011 is not at the bank"
    ]
    waiting.evidence = 1
    due["disputes"][0].update(status="needs_response", evidence_details={"submission_count": 1, "due_by": now + 8})
    assert find_unanswered(due["disputes"], numbered([waiting]), now=now) == ["du_000000000000011 has a deadline"]


def test_a_story_has_the_orders_the_deaths_between_them_and_the_bank(tmp_path: Path) -> None:
    broken = world()
    broken["charges"][0].update(status="failed")
    clients, journal = tmp_path / "clients.jsonl", tmp_path / "bank.journal"
    clients.write_bytes(
        b"".join(
            msgspec.json.encode(
                {
                    "at": told.at,
                    **{name: getattr(told.order, name) for name in ("story", "what", "path", "params", "key")},
                    "status": told.status,
                    "body": told.body.decode(),
                    "replayed": told.replayed,
                    "why": told.why,
                }
            )
            + b"\n"
            for told in broken["told"]
        )
    )
    journal.write_bytes(b"".join(msgspec.json.encode(line) + b"\n" for line in broken["bank"].values()))
    platform = Platform(**{name: broken[name] for name in Platform.__struct_fields__})
    told, delivered = broken["told"], broken["delivered"]
    said = said_by_banks(broken)
    [violation, *_] = reconcile(told, platform, {"bank": broken["bank"]}, said=said, delivered=delivered)
    story = explain(violation, clients, [journal], [(0.5, "the bank"), (1.5, "the server, any moment")])
    assert [line.split()[0] for line in story] == ["1.000", "1.500", "2.000", "bank", "bank"]
    assert "*** the server, any moment dies" in story[1]


def test_the_payment_of_a_failed_order_is_left_only_under_a_dispute() -> None:
    item = {"id": "oi_1", "kind": "unreturned", "subject": "pi_1"}
    charge, card = {"id": "ch_1", "payment_intent": "pi_1"}, {"card": {"case_type": "chargeback"}}
    dispute = {"charge": "ch_1", "payment_method_details": card}
    assert not list(unreturned_payments_are_disputed([dispute], [item], [charge]))
    assert [found.about for found in unreturned_payments_are_disputed([], [item], [charge])] == [("oi_1",)]
