"""The balance, payouts and the accounts of the ledger; pay out."""

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

from tillway.domain.money import MINOR_UNITS
from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.exports import export_csv, rows_of
from tillway.web.dashboard.pages.refunds import read_amount
from tillway.web.dashboard.proving import ask_proof
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

STATUSES = {
    "pending": ("info", "clock", "Pending"),
    "in_transit": ("info", "clock", "On its way"),
    "paid": ("ok", "check", "Paid"),
    "failed": ("bad", "cross", "Failed"),
    "canceled": ("", "minus", "Canceled"),
}
MOVEMENTS_IN_WORDS = {**words.LEDGER_FOR, "charge": "Payment"}
MOST = "can be paid out"


@page("GET", "/balance", place="/balance")
async def show_balance(visit: Visit) -> Reply:
    door = visit.door
    balance = await door.get("/v1/balance")
    ledger = await door.get("/ops/v1/ledger")
    disputed = {one["currency"]: one["balance"] for one in ledger["accounts"] if one["account"] == "disputes"}
    rows = [
        {
            "currency": one["currency"],
            "available": one["amount"],
            "pending": next((two["amount"] for two in balance["pending"] if two["currency"] == one["currency"]), 0),
            "pending_until": ledger["pending_until"].get(one["currency"]),
            "disputed": disputed.get(one["currency"], 0),
        }
        for one in balance["available"]
    ]
    accounts = await accounts_of(visit)
    payouts, _ = await _payouts(visit, accounts)
    values = {
        "rows": rows,
        "payouts": payouts,
        "paid_out_to": await with_failures(visit, accounts, payouts),
        "can_add": visit.may("configure"),
        "movements": await _movements(visit, accounts),
        "ledger": ledger,
        "accounts": _by_currency(ledger["accounts"]),
        "statuses": STATUSES,
        "named": MOVEMENTS_IN_WORDS,
        "can_pay": visit.may("settle"),
        "has_money": any(one["available"] > 0 for one in rows),
    }
    return Shown("balance.html", values)


async def _movements(visit: Visit, accounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The newest movements of the balance, each with the words for what it is `of` and its `place`."""
    found = (await visit.door.get("/v1/balance_transactions", limit=MOVEMENTS_SHOWN))["data"]
    ids = [one["id"] for one in found]
    rows = (await visit.door.get("/ops/v1/balance_transactions", ids=ids, limit=MOVEMENTS_SHOWN))["data"] if ids else []
    names = {one["id"]: one["told"] for one in accounts}
    return [one | _subject(one, row, names) for one, row in zip(found, rows, strict=True)]


def _subject(movement: dict[str, Any], row: dict[str, Any], names: dict[str, str]) -> dict[str, str]:
    """The words for a movement's subject, and the place of its page; `names` are those of the accounts by id."""
    payment, source = row["payment"], movement["source"] or ""
    if payment is not None:
        told = ", ".join(text for text in (payment["description"], customer_name(payment)) if text)
        return {"of": told or payment["id"], "place": f"/payments/{payment['id']}"}
    if source.startswith("po_"):
        destination = row["destination"]
        return {"of": f"to {names.get(destination, destination)}" if destination else "", "place": f"/payouts/{source}"}
    return {"of": movement["description"] or source, "place": f"/search?q={quote(source or movement['id'])}"}


def customer_name(payment: dict[str, Any]) -> str:
    """The name of a payment's customer, or else the e-mail address; empty where neither is known."""
    return str(payment["customer"]["name"] or payment["customer"]["email"] or "")


MOVEMENTS_SHOWN = 20
PAYOUTS = 20
STATED = {
    "not_due": ("", "minus", "Not due"),
    "none": ("", "minus", "None"),
    "not_closed": ("", "minus", "Not given yet"),
    "matches": ("ok", "check", "Matches"),
    "missing": ("warn", "warning", "Missing"),
    "booked": ("ok", "check", "Booked"),
    "explained": ("ok", "check", "Explained"),
}
COUNTED = (
    ("payment", "payments", ("charge", "payment")),
    ("refund", "refunds", ("refund", "payment_refund")),
    ("dispute", "disputes", ("adjustment",)),
)


async def accounts_of(visit: Visit) -> list[dict[str, Any]]:
    """The accounts that payouts go to."""
    found: list[dict[str, Any]] = (await visit.door.get("/v1/account"))["external_accounts"]["data"]
    return [{**one, "told": _account_words(one)} for one in found]


async def with_failures(
    visit: Visit, accounts: list[dict[str, Any]], payouts: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """The accounts, each with its last payout among `payouts` and the failed ones where that has failed: an account
    that banks send money back from goes on doing so until somebody acts."""
    failed = (await visit.door.get("/v1/payouts", status="failed", limit=PAYOUTS))["data"] if accounts else []
    last: dict[str, dict[str, Any]] = {}
    for one in sorted((*payouts, *failed), key=lambda one: one["created"]):
        if one["status"] in ("paid", "failed"):
            last[one["destination"]] = one
    found = []
    for account in accounts:
        one = last.get(account["id"]) or {"status": "", "failure_code": ""}
        code = str(one["failure_code"] or "")
        failure = {"at": one["created"], "why": words.readable(code).lower()} if one["status"] == "failed" else None
        state = code.removeprefix("account_") if code in ("account_closed", "account_frozen") else "failed"
        found.append({**account, "failure": failure, "state": state if failure else ""})
    return found


def _account_words(one: dict[str, Any]) -> str:
    """An account as people know it: DE ···· 3000."""
    return f"{one.get('bank_name') or one.get('brand') or one.get('country') or ''} ···· {one['last4']}".strip()


@page("GET", "/payouts", place="/balance")
async def list_payouts(visit: Visit) -> Reply:
    after = visit.asked("after")
    payouts, has_more = await _payouts(visit, await accounts_of(visit), after or None)
    values = {
        "payouts": payouts,
        "list": {"data": payouts, "has_more": has_more},
        "fields": {"after": after},
        "statuses": STATUSES,
    }
    return Shown("payouts.html", values)


async def _payouts(
    visit: Visit, accounts: list[dict[str, Any]], after: str | None = None
) -> tuple[list[dict[str, Any]], bool]:
    """The newest payouts, or those before the payout of that id, with their contents and what statements show of them;
    and whether there are older ones."""
    names = {one["id"]: one["told"] for one in accounts}
    listed = await visit.door.get("/v1/payouts", limit=PAYOUTS, starting_after=after)
    rows = (await visit.door.get("/ops/v1/payouts/contents", limit=PAYOUTS, starting_after=after))["data"]
    contents = {row["payout"]: row for row in rows}
    found = []
    for one in listed["data"]:
        row = contents.get(one["id"])
        failed = f"{words.readable(one['failure_code']).lower()}, money is back" if one["failure_code"] else ""
        found.append(
            {
                **one,
                "to": names.get(one["destination"]) or one["destination"] or "",
                "told": failed or (_counted(row["contents"]) if row else ""),
                "stated": stated_badge(row["statement"], one["currency"]) if row else None,
            }
        )
    return found, listed["has_more"]


def _counted(contents: Any) -> str:
    """How many payments, refunds and disputes a payout took; empty where that is not known."""
    if contents is None:
        return ""
    told = []
    for one, several, types in COUNTED:
        count = sum(contents["counts"].get(type, 0) for type in types)
        if count:
            told.append(f"{count} {one if count == 1 else several}")
    return ", ".join(told) or "from before"


def stated_badge(statement: Any, currency: str) -> tuple[str, str, str]:
    """The badge of a payout's line in a statement: 0.40 less."""
    if statement["state"] != "differs":
        return STATED[statement["state"]]
    excess = statement["excess"] or 0
    return "warn", "warning", f"{words.figures(abs(excess), currency)} {'less' if excess > 0 else 'more'}"


@page("GET", "/balance.csv", place="/balance")
async def balance_csv(visit: Visit) -> Reply:
    """Every movement of the balance."""
    rows = [_csv_row(one) for one in await rows_of(visit, "/v1/balance_transactions")]
    return await export_csv(visit, "balance_transactions", "balance.csv", CSV_COLUMNS, rows)


CSV_COLUMNS = (
    *("id", "created", "type", "description", "source"),
    *("gross", "fee", "net", "currency", "available_on", "status"),
)


def _csv_row(one: dict[str, Any]) -> list[str]:
    currency = one["currency"]
    return [
        *(one["id"], words.iso(one["created"]), one["type"], one["description"] or "", one["source"] or ""),
        *(words.plain(one[name], currency) for name in ("amount", "fee", "net")),
        *(currency.upper(), words.iso(one["available_on"]), one["status"]),
    ]


def _by_currency(accounts: list[dict[str, Any]]) -> list[tuple[str, list[dict[str, Any]], int]]:
    """Each currency with its accounts and their sum, which is 0 where debits equal credits."""
    return [
        (currency, own, sum(account["balance"] for account in own))
        for currency in sorted({account["currency"] for account in accounts})
        for own in [[account for account in accounts if account["currency"] == currency]]
    ]


@page("GET", "/balance/payout", place="/balance")
async def ask_payout(visit: Visit) -> Reply:
    await visit.check_role("settle", "/v1/payouts")
    balance = await visit.door.get("/v1/balance")
    asked = visit.asked("currency")
    chosen = next((one for one in balance["available"] if one["currency"] == asked), None)
    own = visit.account.default_currency
    chosen = chosen or max(balance["available"], key=lambda one: (one["amount"] > 0, one["currency"] == own))
    amount = words.plain(max(chosen["amount"], 0), chosen["currency"])
    return await _form(visit, chosen["currency"], amount)


@page("POST", "/balance/payout", place="/balance")
async def pay_out(visit: Visit) -> Reply:
    """Pay available money out to the merchant's bank account."""
    await visit.check_role("settle", "/v1/payouts")
    currency, amount = visit.sent("currency"), visit.sent("amount")
    if currency not in MINOR_UNITS:
        raise CallRefused(400, {"code": "invalid_currency", "message": "Choose a currency of the balance."}, "")
    available = await _available(visit, currency)
    minor, wrong = read_amount(amount, currency, available, MOST)
    if wrong or (visit.sent("preview") and visit.sent("previewed") != str(minor)):
        return await _form(visit, currency, amount, wrong=wrong, previewed=not wrong)
    if await _is_new_account(visit, currency) and (asked := await ask_proof(visit)) is not None:
        return asked
    params: dict[str, Any] = {"amount": minor, "currency": currency}
    if visit.sent("destination"):
        params["destination"] = visit.sent("destination")
    try:
        made = await visit.door.post(
            "/v1/payouts", params, key=visit.idempotency_key, reason=visit.sent("reason") or "Paid out by hand"
        )
    except CallRefused as refused:
        if refused.code == "operator_forbidden":
            raise
        return await _form(visit, currency, amount, wrong=refused.message, status=refused.status)
    return Redirect(visit.url(f"/payouts/{made['id']}"))


async def _is_new_account(visit: Visit, currency: str) -> bool:
    """Whether the money would go to an account that no payout has reached yet."""
    chosen = visit.sent("destination")
    if not chosen:
        account = await visit.door.get("/v1/account")
        own = [one for one in account["external_accounts"]["data"] if one["currency"] == currency]
        chosen = next((one["id"] for one in own if one["default_for_currency"]), "")
    if not chosen:
        return False  # The provider's standing account.
    return not (await visit.door.get("/v1/payouts", destination=chosen, status="paid", limit=1))["data"]


async def _available(visit: Visit, currency: str) -> int:
    balance = await visit.door.get("/v1/balance")
    return int(next((one["amount"] for one in balance["available"] if one["currency"] == currency), 0))


async def _form(
    visit: Visit, currency: str, amount: str, *, wrong: str = "", previewed: bool = False, status: int = 200
) -> Shown:
    balance = (await visit.door.get("/v1/balance"))["available"]
    available = next((int(one["amount"]) for one in balance if one["currency"] == currency), 0)
    minor, unfit = read_amount(amount, currency, available, MOST)
    accounts = [one for one in await accounts_of(visit) if one["currency"] == currency]
    chosen = visit.sent("destination")
    nothing = available <= 0 and not wrong
    values = {
        "currency": currency,
        "currencies": [one["currency"] for one in balance if one["amount"] > 0],
        "nothing": nothing,
        "pending_until": (await visit.door.get("/ops/v1/ledger"))["pending_until"].get(currency) if nothing else None,
        "amount": amount,
        "wrong": wrong,
        "previewed": previewed,
        "available": available,
        "minor": max(available, 0) if unfit else minor,
        "decimals": MINOR_UNITS[currency],
        "destinations": await with_failures(visit, accounts, []),
        "chosen": chosen or next((one["id"] for one in accounts if one["default_for_currency"]), ""),
        "key": visit.idempotency_key,
        "reason": visit.sent("reason"),
    }
    return Shown("pay-out.html", values, 422 if wrong and status == 200 else status)


@page("GET", "/payouts/{id}", place="/balance")
async def show_payout(visit: Visit) -> Reply:
    return await _payout_page(visit)


async def _payout_page(visit: Visit, wrong: str = "", status: int = 200) -> Shown:
    payout = await visit.door.get(f"/v1/payouts/{visit.id}")
    found = await visit.door.get(f"/ops/v1/payouts/{visit.id}/contents")
    accounts = await accounts_of(visit)
    values = {
        "payout": payout,
        "found": found,
        "named": MOVEMENTS_IN_WORDS,
        "taken": [one | _taken(one) for one in found["transactions"]],
        "counted": _counted(found["contents"]),
        "to": next((one["told"] for one in accounts if one["id"] == payout["destination"]), payout["destination"]),
        "moved": [
            await visit.door.get(f"/v1/balance_transactions/{payout[name]}")
            for name in ("balance_transaction", "failure_balance_transaction")
            if payout.get(name)
        ],
        "stated": stated_badge(found["statement"], payout["currency"]),
        "stated_on": _day_words(found["statement"]["day"], visit.now),
        "statuses": STATUSES,
        "maker": await _maker(visit, payout["id"]),
        "can_book": visit.may("settle") and found["statement"]["state"] == "differs",
        "wrong": wrong,
        "reason": visit.sent("reason"),
        "text": words.document(payout),
    }
    return Shown("payout.html", values, status)


def _day_words(day: str | None, now: float) -> str:
    """A day of ISO 8601 in words: 26 November."""
    return words.day(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp(), now) if day else ""


def _taken(movement: dict[str, Any]) -> dict[str, str]:
    """The words for a movement that a payout took, and its customer. A payment has the words of its description."""
    payment, kind = movement.get("payment"), MOVEMENTS_IN_WORDS.get(movement["type"], words.readable(movement["type"]))
    if payment is None:
        return {"what": movement["description"] or kind, "customer": ""}
    described = payment["description"] or ""
    if movement["type"] not in ("charge", "payment"):
        described = f"{kind}: {described}" if described else ""
    return {"what": described or kind, "customer": customer_name(payment)}


async def _maker(visit: Visit, payout: str) -> str:
    """The name of who made a payout, for those who may read the audit trail; empty where it is not known."""
    if not visit.may("export_audit"):
        return ""
    trail = (await visit.door.get("/ops/v1/audit", record=payout, limit=100))["data"]
    made = [entry for entry in trail for one in entry["changes"] if one["record"] == payout and one["what"] == "made"]
    return str(made[0]["hint"] or made[0]["actor"]) if made else ""


@page("GET", "/payouts/{id}/contents.csv", place="/balance")
async def payout_csv(visit: Visit) -> Reply:
    """The movements that a payout took."""
    found = await visit.door.get(f"/ops/v1/payouts/{visit.id}/contents")
    rows = [_csv_row(one) for one in found["transactions"]]
    return await export_csv(visit, "payout_transactions", "payout.csv", CSV_COLUMNS, rows, payout=visit.id)


@page("POST", "/payouts/{id}/book", place="/balance")
async def book_difference(visit: Visit) -> Reply:
    """Book the difference between a payout and its line in the statement."""
    day, difference = visit.sent("day"), visit.sent("difference")
    path = f"/ops/v1/closes/{quote(day or '-', safe='')}/differences/{quote(difference or '-', safe='')}"
    await visit.check_role("settle", path)
    reason = visit.sent("reason")
    if not reason:
        return await _payout_page(visit, "Say why the bank has another amount, such as its fee for the transfer.", 422)
    try:
        await visit.door.post(path, {"decision": "difference", "reason": reason}, reason=reason)
    except CallRefused as refused:
        if refused.status == 403:
            raise
        if refused.code != "difference_decided":
            return await _payout_page(visit, refused.message, refused.status)
    return Redirect(visit.url(f"/payouts/{visit.id}"))
