"""A merchant who does anything in any order, and the books after each step.

Hypothesis walks through calls of the API; a model of a few lines says what each of them comes to. After every step the
ledger, the balance, the simulated bank and the payments tell of the same money, to the minor unit.
"""

import asyncio
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tillway.domain.money import fee_minor
from tillway.testing.in_process import Answer, InProcessApp

_KEYS = TemporaryDirectory()
"""One key file for all examples: making one costs more than an example does."""

AMOUNTS = st.integers(10, 500).map(lambda tens: 10 * tens)
"""Above the minimum charge of each currency, and with the last digit 0 that three decimals need."""

LEAST = 25
"""Below this lie the amounts that mean something to the simulated bank."""

CURRENCIES = st.sampled_from(["eur", "jpy", "kwd"])
APPROVED = ("pm_card_visa", "pm_card_bypassPending")
CARDS = st.sampled_from([*APPROVED, "pm_card_chargeDeclined", "pm_card_authenticationRequired"])
PICK = st.integers(0, 1000)


@dataclass
class Payment:
    """What the model knows of one payment. `charge` is the one that succeeded."""

    id: str
    amount: int
    currency: str
    manual: bool
    status: str = "requires_payment_method"
    charge: str | None = None
    challenge: str | None = None
    captured: int = 0
    refunded: int = 0

    @property
    def direct(self) -> bool:
        return self.id.startswith("ch_")


def part_of(whole: int, share: int, currency: str) -> int:
    """That share of a charge in percent. Parts in three decimals end in 0, as card networks know two of them."""
    part = max(LEAST, whole * share // 100)
    return -(-part // 10) * 10 if currency == "kwd" else part


@dataclass
class Sent:
    """A request that was answered under an idempotency key."""

    path: str
    params: dict[str, Any]
    key: str
    day: int
    answer: Answer = field(repr=False)


class Shop(RuleBasedStateMachine):
    @initialize()
    def open(self) -> None:
        self.runner = asyncio.Runner()
        self.app = self.runner.run(InProcessApp.open(Path(_KEYS.name)))
        self.merchant = self.runner.run(self.app.merchant())
        self.bank = self.runner.run(self.app.simulator(self.merchant)).bank
        self.payments: list[Payment] = []
        self.sent: list[Sent] = []
        self.keys, self.day = 0, 0

    def teardown(self) -> None:
        if hasattr(self, "runner"):
            self.runner.run(self.app.close())
            self.runner.close()

    def post(self, path: str, **params: Any) -> Answer:
        """One call under a key of its own; a bad one changes nothing."""
        self.keys += 1
        key = f"key-{self.keys}"
        before = self.app.store.commits
        answer = self.runner.run(self.app.call(self.merchant, "POST", path, params, idempotency_key=key))
        assert answer.status in (200, 400, 402), answer.body
        if answer.status == 400:
            assert self.app.store.commits == before, f"a refused call wrote something: {path} {params}"
        else:
            self.sent.append(Sent(path, params, key, self.day, answer))
        return answer

    def get(self, path: str) -> Any:
        return self.runner.run(self.app.ok(self.merchant, "GET", path))

    def one(self, pick: int, *statuses: str, direct: bool = False) -> Payment | None:
        fitting = [one for one in self.payments if one.status in statuses and one.direct is direct]
        return fitting[pick % len(fitting)] if fitting else None

    # What a merchant does.

    @rule(amount=AMOUNTS, currency=CURRENCIES, manual=st.booleans())
    def create(self, amount: int, currency: str, manual: bool) -> None:
        method = "manual" if manual else "automatic"
        made = self.post("/v1/payment_intents", amount=amount, currency=currency, capture_method=method).json
        self.payments.append(Payment(made["id"], amount, currency, manual))

    @rule(amount=AMOUNTS, currency=CURRENCIES, manual=st.booleans(), card=CARDS)
    def pay(self, amount: int, currency: str, manual: bool, card: str) -> None:
        method = "manual" if manual else "automatic"
        params = {"amount": amount, "currency": currency, "capture_method": method, "payment_method": card}
        answer = self.post("/v1/payment_intents", confirm=True, **params)
        document = answer.json if answer.status == 200 else answer.json["error"]["payment_intent"]
        payment = Payment(document["id"], amount, currency, manual)
        self.payments.append(payment)
        self.confirmed(payment, answer, card)

    @rule(pick=PICK, card=CARDS)
    def confirm(self, pick: int, card: str) -> None:
        payment = self.one(pick, "requires_payment_method", "requires_action")
        if payment is not None:
            path = f"/v1/payment_intents/{payment.id}/confirm"
            self.confirmed(payment, self.post(path, payment_method=card), card)

    def confirmed(self, payment: Payment, answer: Answer, card: str) -> None:
        payment.challenge = None
        if card == "pm_card_chargeDeclined":
            assert (answer.status, answer.json["error"]["code"]) == (402, "card_declined")
            payment.status = "requires_payment_method"
        elif card == "pm_card_authenticationRequired":
            assert answer.status == 200
            payment.status = "requires_action"
            payment.challenge = answer.json["next_action"]["redirect_to_url"]["url"]
        else:
            assert answer.status == 200
            self.approved(payment, answer.json["latest_charge"])

    def approved(self, payment: Payment, charge: str) -> None:
        payment.charge = charge
        payment.status = "requires_capture" if payment.manual else "succeeded"
        payment.captured = 0 if payment.manual else payment.amount

    @rule(pick=PICK, outcome=st.sampled_from(["pass", "fail"]))
    def challenge(self, pick: int, outcome: str) -> None:
        payment = self.one(pick, "requires_action")
        if payment is None:
            return
        assert payment.challenge is not None
        path, _, query = payment.challenge.partition("/3ds/")[2].partition("?")
        body = f"outcome={outcome}".encode()
        answer = self.runner.run(self.app.send("POST", f"/3ds/{path}", query=query, body=body))
        assert answer.status == 200
        payment.challenge = None
        if outcome == "pass":
            self.approved(payment, self.get(f"/v1/payment_intents/{payment.id}")["latest_charge"])
        else:
            payment.status = "requires_payment_method"

    @rule(pick=PICK, share=st.integers(1, 110))
    def capture(self, pick: int, share: int) -> None:
        payment = self.one(pick, "requires_capture")
        if payment is None:
            return
        amount = part_of(payment.amount, share, payment.currency)
        answer = self.post(f"/v1/payment_intents/{payment.id}/capture", amount_to_capture=amount)
        if amount > payment.amount:
            assert answer.status == 400
            return
        assert answer.status == 200, answer.body
        payment.captured, payment.status = amount, "succeeded"

    @rule(pick=PICK, more=st.integers(-1, 50).map(lambda tens: 10 * tens))
    def increment(self, pick: int, more: int) -> None:
        payment = self.one(pick, "requires_capture")
        if payment is None:
            return
        amount = payment.amount + more
        answer = self.post(f"/v1/payment_intents/{payment.id}/increment_authorization", amount=amount)
        assert (answer.status == 200) is (more > 0)
        if more > 0:
            payment.amount = amount

    @rule(pick=PICK)
    def cancel(self, pick: int) -> None:
        payment = self.one(pick, "requires_payment_method", "requires_action", "requires_capture")
        if payment is not None:
            assert self.post(f"/v1/payment_intents/{payment.id}/cancel").status == 200
            payment.status = "canceled"

    @rule(pick=PICK)
    def do_what_cannot_be_done(self, pick: int) -> None:
        payment = self.one(pick, "succeeded", "canceled")
        if payment is not None:
            for verb in ("confirm", "cancel", "capture"):
                assert self.post(f"/v1/payment_intents/{payment.id}/{verb}").status == 400

    @rule(pick=PICK, share=st.integers(1, 110), direct=st.booleans())
    def refund(self, pick: int, share: int, direct: bool) -> None:
        payment = self.one(pick, "succeeded", direct=direct)
        if payment is None:
            return
        left = payment.captured - payment.refunded
        amount = part_of(left, share, payment.currency)
        answer = self.post("/v1/refunds", charge=payment.charge, amount=amount)
        assert (answer.status == 200) is (0 < amount <= left), answer.body
        if answer.status == 200:
            payment.refunded += amount

    @rule(amount=AMOUNTS, currency=CURRENCIES, manual=st.booleans(), decline=st.booleans())
    def charge(self, amount: int, currency: str, manual: bool, decline: bool) -> None:
        source = "tok_chargeDeclined" if decline else "tok_visa"
        answer = self.post("/v1/charges", amount=amount, currency=currency, source=source, capture=not manual)
        assert answer.status == (402 if decline else 200)
        if decline:
            return
        payment = Payment(answer.json["id"], amount, currency, manual)
        self.approved(payment, payment.id)
        self.payments.append(payment)

    @rule(pick=PICK, share=st.integers(1, 110))
    def capture_charge(self, pick: int, share: int) -> None:
        payment = self.one(pick, "requires_capture", direct=True)
        if payment is None:
            return
        amount = part_of(payment.amount, share, payment.currency)
        answer = self.post(f"/v1/charges/{payment.id}/capture", amount=amount)
        assert (answer.status == 200) is (amount <= payment.amount), answer.body
        if answer.status == 200:
            payment.captured, payment.status = amount, "succeeded"

    @precondition(lambda self: self.sent)
    @rule(pick=PICK)
    def say_it_again(self, pick: int) -> None:
        """A retry gets the first answer, byte by byte, whatever has happened since."""
        sent = self.sent[pick % len(self.sent)]
        if sent.day < self.day:
            return  # A key holds for 24 hours.
        before = self.app.store.commits
        again = self.runner.run(self.app.call(self.merchant, "POST", sent.path, sent.params, idempotency_key=sent.key))
        assert (again.status, again.body) == (sent.answer.status, sent.answer.body)
        assert again.headers["idempotent-replayed"] == "true"
        assert self.app.store.commits == before

    @rule(days=st.integers(0, 3))
    def time_goes_by(self, days: int) -> None:
        self.day += days
        self.runner.run(self.app.wait(days * 86_400 + 5))

    # What is true after every step.

    @invariant()
    def the_books_agree(self) -> None:
        if not hasattr(self, "runner"):
            return
        captured: Counter[str] = Counter()
        refunded: Counter[str] = Counter()
        fees: Counter[str] = Counter()
        for payment in self.payments:
            captured[payment.currency] += payment.captured
            refunded[payment.currency] += payment.refunded
            if payment.captured:
                fees[payment.currency] += fee_minor(payment.captured, rate_bps=290, fixed_minor=30)
        ledger = self.get("/ops/v1/ledger")
        assert ledger["balanced"]
        accounts = {f"{row['account']}/{row['currency']}": row["balance"] for row in ledger["accounts"]}
        balance = self.get("/v1/balance")
        bank = self.bank.totals()
        for currency in captured:
            there = captured[currency] - refunded[currency]
            owed = there - fees[currency]
            assert accounts.get(f"receivable:simulator/{currency}", 0) == there
            assert -accounts.get(f"fees/{currency}", 0) == fees[currency]
            assert -accounts.get(f"merchant/{currency}", 0) == owed
            assert accounts.get(f"refunds/{currency}", 0) == 0
            shown = [
                row["amount"]
                for state in ("available", "pending")
                for row in balance[state]
                if row["currency"] == currency
            ]
            assert sum(shown) == owed
            kinds = bank.get(currency, {})
            taken = kinds.get("captured", {"amount": 0})["amount"]
            assert taken - kinds.get("refund", {"amount": 0})["amount"] == there

    @invariant()
    def the_newest_payment_is_what_the_model_says(self) -> None:
        for payment in getattr(self, "payments", [])[-3:]:
            if payment.charge is not None:
                charge = self.get(f"/v1/charges/{payment.charge}")
                assert charge["amount_captured"] == payment.captured
                released = payment.amount - payment.captured
                gone = payment.refunded + (0 if payment.status == "requires_capture" else released)
                assert charge["amount_refunded"] == gone
            if not payment.direct:
                seen = self.get(f"/v1/payment_intents/{payment.id}")
                assert (seen["status"], seen["amount"]) == (payment.status, payment.amount)
                assert seen["amount_received"] == payment.captured
                waiting = payment.amount if payment.status == "requires_capture" else 0
                assert seen["amount_capturable"] == waiting


TestShop = Shop.TestCase
TestShop.settings = settings(
    max_examples=settings().max_examples * 2 // 5,
    stateful_step_count=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
