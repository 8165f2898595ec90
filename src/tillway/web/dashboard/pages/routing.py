"""Routing: the rules in force as sentences, a draft of the next version with its dry run, and putting it in force."""

from collections.abc import Iterator
from typing import Any

from tillway.domain.money import MINOR_UNITS, major_to_minor
from tillway.domain.refusal import Refused
from tillway.web.dashboard import words
from tillway.web.dashboard.door import CallRefused
from tillway.web.dashboard.proving import ask_proof
from tillway.web.dashboard.visit import Redirect, Reply, Shown, Visit, page

PATH = "/ops/v1/routing"
DAYS = (7, 28)
"""The times over which a draft is tried."""

SAMPLE, DRAFT_SAMPLE = 500, 5000
"""How many of the newest payments of that time a look at the rules tries, and how many a draft."""

LISTS = ("currency", "country", "card_brand", "method", "bin")
COLUMNS = ("place", "name", *LISTS, "amount_gte", "amount_lt", "metadata", "use")
"""The fields of a rule in the form: each rule has every one of them."""


class Unreadable(Exception):
    """A field of the draft that cannot be read. The text says the remedy."""


@page("GET", "/routing", place="/routing")
async def show_routing(visit: Visit) -> Reply:
    return await _page(visit)


async def _page(visit: Visit, wrong: str = "", status: int = 200) -> Shown:
    routing = await _in_force(visit)
    trial = await _try(visit, _document_of(routing), _days(visit.asked("days")), SAMPLE)
    values = {"wrong": wrong, "reason": visit.sent("reason"), "removable": _is_own(visit, routing)}
    return Shown("routing.html", await _values(visit, routing, routing, trial) | values, status)


def _owner(visit: Visit) -> str | None:
    """The owner of the rules on the page, for operators of the whole installation, who choose; None for others, who
    have those of their merchant."""
    if visit.signed.operator.accounts is not None:
        return None
    return "merchant" if "merchant" in (visit.asked("owner"), visit.sent("owner")) else "installation"


async def _in_force(visit: Visit) -> Any:
    return await visit.door.get(PATH, owner=_owner(visit))


def _is_own(visit: Visit, routing: Any) -> bool:
    """Whether the document in force is the owner's own, and not another's in its place."""
    own = routing["account"] is not None or _owner(visit) == "installation"
    return own and routing["version"] > 0


@page("GET", "/routing/draft", place="/routing")
async def begin_draft(visit: Visit) -> Reply:
    await _check_role(visit)
    return Shown("routing-draft.html", await _form(visit, await _in_force(visit)))


@page("POST", "/routing/draft", place="/routing")
async def change_routing(visit: Visit) -> Reply:
    """Show a draft with its dry run, or put it in force if nobody else has changed the rules since."""
    await _check_role(visit)
    routing = await _in_force(visit)
    try:
        draft = {"rules": list(_rules(visit)), "otherwise": _names(visit.sent("otherwise"))}
    except Unreadable as unreadable:
        return Shown("routing-draft.html", await _form(visit, routing, wrong=str(unreadable)), 422)
    made_from = visit.sent("version") or "0"
    changed = made_from != str(_version_to_replace(visit, routing))
    try:
        trial = await _try(visit, draft, _days(visit.sent("days")), DRAFT_SAMPLE)
        if visit.sent("do") == "force" and not changed:
            if (asked := await ask_proof(visit)) is not None:
                return asked
            reason = visit.sent("reason") or f"Routing, version {routing['next_version']}"
            owner = {"owner": name} if (name := _owner(visit)) else {}
            await visit.door.put(PATH, {**draft, **owner, "version": int(made_from)}, reason=reason)
            return Redirect(visit.url("/routing", owner=_owner(visit)))
    except CallRefused as refused:
        if refused.status == 403:
            raise
        if refused.code != "routing_version_conflict":
            wrong = f"{refused.message} ({refused.param})" if refused.param else refused.message
            return Shown("routing-draft.html", await _form(visit, routing, wrong=wrong), refused.status)
        routing, changed = await _in_force(visit), True
    values = await _form(visit, routing, changed=changed)
    shown = {**routing, **draft, "version": routing["next_version"]}
    return Shown("routing-draft.html", values | await _values(visit, routing, shown, trial), 409 if changed else 200)


@page("POST", "/routing/remove", place="/routing")
async def remove_routing(visit: Visit) -> Reply:
    """Take the rules out of force, if no other change came since."""
    await _check_role(visit)
    if (asked := await ask_proof(visit)) is not None:
        return asked
    reason = visit.sent("reason") or "Routing removed at the dashboard"
    try:
        await visit.door.delete(PATH, reason=reason, owner=_owner(visit), version=visit.sent("version") or None)
    except CallRefused as refused:
        if refused.code not in ("routing_version_conflict", "resource_missing"):
            raise
        return await _page(visit, refused.message, refused.status)
    return Redirect(visit.url("/routing", owner=_owner(visit)))


async def _check_role(visit: Visit) -> None:
    """Let the API refuse operators who may not, so that the try stands in the audit trail. Raises `CallRefused`."""
    if not visit.may("configure"):
        visit.lacks = "configure"
        await visit.door.put(PATH, {}, reason="")


async def _try(visit: Visit, document: dict[str, Any], days: int, limit: int) -> Any:
    """Try a document on at most `limit` payments of the last `days`, the newest."""
    since = visit.now - days * 86_400
    tried = await visit.door.post_json(f"{PATH}/simulate", {**document, "since": since, "limit": limit})
    return {**tried, "days": days, "table": _table(tried), "is_sample": tried["payments"] >= limit}


def _days(asked: str) -> int:
    return int(asked) if asked in map(str, DAYS) else DAYS[0]


def _document_of(routing: Any) -> dict[str, Any]:
    return {name: routing[name] for name in ("rules", "otherwise") if routing.get(name)}


def _version_to_replace(visit: Visit, routing: Any) -> int:
    """The version that a change replaces; 0 where a merchant's first rules are to stand in the installation's place."""
    return int(routing["version"]) if _is_own(visit, routing) else 0


def _table(trial: Any) -> dict[str, Any]:
    """From which connector to which, with sums: rows of counts, in the order of `names`."""
    moves = {(one["from"], one["to"]): one["payments"] for one in trial["moves"]}
    froms = {name for name, _ in moves}
    names = sorted({*trial["connectors"], *froms} - {"none"})
    columns = [*names, "none"]
    counts = {
        name: [
            moves.get((name, to), 0)
            if to != name
            else trial["connectors"].get(name, 0) - sum(count for (_, end), count in moves.items() if end == name)
            for to in columns
        ]
        for name in names
    }
    rows = [(name, line, sum(line)) for name, line in counts.items()]
    together = [sum(line[place] for line in counts.values()) for place in range(len(columns))]
    return {"columns": columns, "rows": rows, "together": together, "sum": sum(together)}


async def _values(visit: Visit, routing: Any, shown: Any, trial: Any) -> dict[str, Any]:
    before = {rule["name"]: rule for rule in routing["rules"]}
    rules = [
        {
            "name": rule["name"],
            "when": conditions(rule["when"]),
            "use": uses(rule["use"]),
            "payments": trial["rules"].get(rule["name"], 0),
            "was": ""
            if rule["name"] not in before or uses(before[rule["name"]]["use"]) == uses(rule["use"])
            else uses(before[rule["name"]]["use"]),
            "mark": _mark(before.get(rule["name"]), rule),
        }
        for rule in shown["rules"]
    ]
    return {
        "routing": routing,
        "by": await _author(visit, routing["changed_by"]),
        "rules": rules,
        "in_force": [
            {"name": rule["name"], "when": conditions(rule["when"]), "use": uses(rule["use"])}
            for rule in routing["rules"]
        ],
        "otherwise_in_force": list(routing["otherwise"]),
        "otherwise": list(shown["otherwise"]),
        "rest": trial["rules"].get("", 0),
        "gone": sorted(before.keys() - {rule["name"] for rule in shown["rules"]}),
        "edited": sum(bool(rule["mark"]) for rule in rules),
        "trial": trial,
        "days": DAYS,
        "owner_chosen": _owner(visit),
        "next_version": routing["next_version"],
        "draft_version": shown["version"],
        "text": words.document({name: shown[name] for name in ("rules", "otherwise", "version")}),
    }


async def _author(visit: Visit, id: str | None) -> str:
    """The name of the operator who made the version, for admins and for that operator; else the id."""
    if id == visit.signed.operator.id:
        return visit.signed.operator.name
    if not visit.may("configure") or not (id or "").startswith("opr_"):
        return id or ""
    users = (await visit.door.get("/ops/v1/operators"))["data"]
    return next((str(one["name"]) for one in users if one["id"] == id), id or "")


def _mark(before: Any, rule: Any) -> str:
    if before is None:
        return "new"
    same = conditions(before["when"]) == conditions(rule["when"]) and uses(before["use"]) == uses(rule["use"])
    return "" if same else "changed"


WORDS = {
    "currency": "currency is",
    "country": "country is",
    "card_brand": "brand is",
    "method": "method is",
    "bin": "card begins with",
    "account": "merchant is",
}


def conditions(when: Any) -> str:
    """The conditions of a rule in words: currency is EUR, amount ≤ 250.00."""
    told = []
    for name, word in WORDS.items():
        values = [str(value).upper() if name == "currency" else str(value) for value in when.get(name) or ()]
        if values:
            told.append(f"{word} {' or '.join(values)}")
    currency = _one_currency(when.get("currency") or ())
    for name, sign in (("amount_gte", "≥"), ("amount_lt", "<")):
        if when.get(name) is not None:
            told.append(f"amount {sign} {_amount_text(when[name], currency)}")
    for key, values in (when.get("metadata") or {}).items():
        told.append(f"metadata.{key} is {' or '.join([values] if isinstance(values, str) else values)}")
    return ", ".join(told) or "every payment"


def uses(use: Any) -> str:
    """The connectors of a rule in words: nordbank 80 %, adyen-eu 20 %."""
    given: list[dict[str, Any]] = [{"connector": one} if isinstance(one, str) else one for one in use]
    weights = sum(one.get("weight") or 0 for one in given)
    if not weights:
        return ", then ".join(one["connector"] for one in given)
    return ", ".join(f"{one['connector']} {round(100 * (one.get('weight') or 0) / weights)} %" for one in given)


def _one_currency(currencies: Any) -> str:
    return currencies[0] if len(currencies) == 1 and currencies[0] in MINOR_UNITS else ""


def _amount_text(minor: int, currency: str) -> str:
    """An amount of a condition: in major units where the rule has one currency, else in minor units."""
    return words.plain(minor, currency) if currency else str(minor)


# The form: each rule is a row of COLUMNS, and one more row stands empty for a new rule.


async def _form(visit: Visit, routing: Any, *, wrong: str = "", changed: bool = False) -> dict[str, Any]:
    sent = visit.request.method == "POST"
    rows = [dict(zip(COLUMNS, row, strict=True)) for row in _sent_rows(visit)] if sent else list(_rows(routing))
    connectors = (await visit.door.get("/ops/v1/connectors"))["data"]
    return {
        "rows": rows,
        "otherwise_text": visit.sent("otherwise") if sent else ", ".join(routing["otherwise"]),
        "connectors": sorted({one["name"] for one in connectors} | ({"simulator"} if visit.mode == "test" else set())),
        "routing": routing,
        "replaced": _version_to_replace(visit, routing),
        "draft_version": routing["next_version"],
        "reason": visit.sent("reason"),
        "wrong": wrong,
        "changed": changed,
        "trial": None,
        "days": DAYS,
        "owner_chosen": _owner(visit),
        "owner": "the installation" if _owner(visit) == "installation" else "this merchant",
    }


def _rows(routing: Any) -> Iterator[dict[str, str]]:
    for place, rule in enumerate(routing["rules"], 1):
        when, currency = rule["when"], _one_currency(rule["when"].get("currency") or ())
        uses = (one if isinstance(one, str) else _use_text(one) for one in rule["use"])
        metadata = when.get("metadata") or {}
        yield {
            "place": str(place),
            "name": rule["name"],
            **{name: ", ".join(when.get(name) or ()) for name in LISTS},
            **{
                name: "" if when.get(name) is None else _amount_text(when[name], currency)
                for name in ("amount_gte", "amount_lt")
            },
            "metadata": ", ".join(f"{key}={value}" for key, values in metadata.items() for value in values),
            "use": ", ".join(uses),
        }


def _use_text(use: Any) -> str:
    return use["connector"] if use.get("weight") is None else f"{use['connector']} {use['weight']}"


def _sent_rows(visit: Visit) -> list[tuple[str, ...]]:
    return list(zip(*(visit.form.get(f"rule_{name}", []) for name in COLUMNS), strict=False))


def _rules(visit: Visit) -> Iterator[dict[str, Any]]:
    """The rules of the form in the order of their places. A rule without a name is left out. Raises `Unreadable`."""
    rows = [dict(zip(COLUMNS, map(str.strip, row), strict=True)) for row in _sent_rows(visit)]
    named = [row for row in rows if row["name"]]
    for row in rows:
        if row["use"] and not row["name"]:
            raise Unreadable("Give each rule a name; a rule without name and connectors is taken out.")
    for row in sorted(named, key=lambda row: _place(row["place"])):
        yield {"name": row["name"], "when": _when(row), "use": [_use(text, row["name"]) for text in _split(row["use"])]}


def _place(text: str) -> float:
    try:
        return float(text.replace(",", "."))
    except ValueError:
        return float("inf")


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _names(text: str) -> list[str]:
    return _split(text.replace(" then ", " , "))


def _use(text: str, rule: str) -> dict[str, Any]:
    name, _, weight = text.removesuffix("%").strip().rpartition(" ")
    if not name:
        return {"connector": text}
    if not (weight.isascii() and weight.isdigit() and len(weight) <= 7):
        raise Unreadable(f"Rule {rule}: write each connector with its weight or without, such as “bank 80, other 20”.")
    return {"connector": name.strip(), "weight": int(weight)}


def _when(row: dict[str, str]) -> dict[str, Any]:
    when: dict[str, Any] = {}
    for name in LISTS:
        if values := _split(row[name]):
            when[name] = [value.lower() for value in values] if name == "currency" else values
    currency = _one_currency(when.get("currency") or ())
    for name in ("amount_gte", "amount_lt"):
        if row[name]:
            when[name] = _amount(row[name], currency, row["name"])
    for part in _split(row["metadata"]):
        key, sign, value = part.partition("=")
        if not sign:
            raise Unreadable(f"Rule {row['name']}: write metadata as name=value.")
        when.setdefault("metadata", {}).setdefault(key.strip(), []).append(value.strip())
    return when


def _amount(text: str, currency: str, rule: str) -> int:
    try:
        if currency:
            return major_to_minor(text, currency)
        if text.isascii() and text.isdigit() and len(text) <= 15:
            return int(text)
    except Refused:
        pass
    kind = f"an amount in {currency.upper()}, such as 250" if currency else "a whole number of minor units"
    raise Unreadable(f"Rule {rule}: write {kind}. With one currency amounts are in that currency.")
