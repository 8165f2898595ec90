"""Cash balances as Stripe shows them: of customers who have sent money by bank transfer.

Here the money of a customer is stored credit, and a transfer in test mode adds to it.
"""

from tillway.domain import stored_credit
from tillway.domain.commands import AdjustCredit
from tillway.domain.customer import Customer
from tillway.domain.record import Changes, EventDraft, Moment, Record


class CashBalance(Record, frozen=True, kw_only=True):
    """A customer's cash at one moment, in minor units of `currency`; None where there never was any. Only events and
    answers hold it."""

    customer: str
    available_minor: int = 0
    currency: str | None = None


class CashTransaction(Record, frozen=True, kw_only=True):
    """A bank transfer to a customer's cash balance. `ending_balance_minor` is the balance after it."""

    customer: str
    amount_minor: int
    currency: str
    ending_balance_minor: int
    reference: str | None = None


def cash_of(customer: Customer) -> CashBalance:
    return CashBalance(
        id=f"csb_{customer.id.partition('_')[2]}",
        created=customer.created,
        customer=customer.id,
        available_minor=-customer.balance_minor,
        currency=customer.currency,
    )


def fund(
    customer: Customer, amount_minor: int, currency: str, reference: str | None, at: Moment
) -> Changes[CashTransaction]:
    """Book a bank transfer from the customer. `stored_credit.adjust` has the refusals."""
    credited = stored_credit.adjust(customer, AdjustCredit(amount_minor=-amount_minor, currency=currency), at)
    after = next(record for record in credited.records if isinstance(record, Customer))
    transaction = CashTransaction(
        id=at.new_id("ccsbtxn"),
        created=at.created,
        customer=customer.id,
        amount_minor=amount_minor,
        currency=currency,
        ending_balance_minor=-after.balance_minor,
        reference=reference,
    )
    return credited.then(
        Changes(
            result=transaction,
            records=(transaction,),
            events=(
                EventDraft(type="customer_cash_balance_transaction.created", record=transaction),
                EventDraft(type="cash_balance.funds_available", record=cash_of(after)),
            ),
        )
    )
