"""Routing: the connectors that a payment may go through, in their order, and when the next one may be tried.

A routing document has rules and an order for the rest. The first rule that fits a payment gives its candidates; where
they have weights, one is drawn first and the others follow. Another candidate is tried only if the one before surely
did not take the money: the request was never sent, or the provider declined it softly. Card networks forbid to repeat
the other declines (docs/declines.md).
"""

import hashlib
from collections.abc import Collection, Mapping
from typing import Any, Literal, get_args

import msgspec
from msgspec.structs import replace

from tillway.domain.account import Mode
from tillway.domain.cards import Brand
from tillway.domain.ledger import Fee
from tillway.domain.method_types import METHOD_TYPES
from tillway.domain.money import MINOR_UNITS, fee_minor
from tillway.domain.outcome import Declined, NotSent, Outcome
from tillway.domain.record import Record, Value
from tillway.domain.refusal import Refused

RULES_MAX = 100
USES_MAX = 10
WORDS_MAX = 200
"""Most rules of a document, connectors of a rule, and values of a condition."""

BRANDS = get_args(Brand)
NAME_MAX = 60
WEIGHT_MAX = 1_000_000
TEXT_MAX = 500

FAILOVER_SECONDS = 20
"""How long after the first attempt another connector may be begun: the payer is still waiting then."""

AttemptOutcome = Literal["succeeded", "declined", "not_sent", "unknown", "pending"]


class Use(Value, frozen=True, kw_only=True):
    """A candidate of a rule. One with a `weight` may be drawn first, as often as its weight is of their sum."""

    connector: str
    weight: int | None = None


class When(Value, frozen=True, kw_only=True):
    """The conditions of a rule: all that are given must hold, and of a list one value must. Amounts are minor units;
    `bin` are the first four to eight digits of a card number, `country` is that of the card or bank account."""

    currency: tuple[str, ...] = ()
    amount_gte: int | None = None
    amount_lt: int | None = None
    card_brand: tuple[str, ...] = ()
    bin: tuple[str, ...] = ()
    country: tuple[str, ...] = ()
    method: tuple[str, ...] = ()
    account: tuple[str, ...] = ()
    metadata: dict[str, tuple[str, ...]] = {}


class Rule(Value, frozen=True, kw_only=True):
    name: str
    use: tuple[Use, ...]
    when: When = When()


class Routing(Record, frozen=True, kw_only=True):
    """The routing document of an installation (`rtg_<mode>`) or of one merchant (`rtg_<mode>_<account>`), which then
    takes its place. A document without rules and without an order sends all to the mode's default connector.

    `version` counts the changes from 1. Each version is kept beside it as `rtgv_<mode>[_<account>]_<version>`. A
    `removed` one is in force for nobody; it stays so that no later version takes a number twice.
    """

    mode: Mode
    account: str | None = None
    version: int = 0
    rules: tuple[Rule, ...] = ()
    otherwise: tuple[str, ...] = ()
    changed_by: str = ""
    removed: bool = False

    @property
    def connectors(self) -> set[str]:
        """Every connector that it names."""
        return {use.connector for rule in self.rules for use in rule.use}.union(self.otherwise)

    def place_of(self, name: str | None) -> int:
        """The place of the rule of that name, from 1; 0 if there is none."""
        return next((place for place, rule in enumerate(self.rules, 1) if rule.name == name), 0)


def routing_id(mode: Mode, account: str | None) -> str:
    return f"rtg_{mode}_{account}" if account is not None else f"rtg_{mode}"


def kept_id(routing: Routing, version: int) -> str:
    """The id of the kept copy of a version of this document."""
    return f"rtgv{routing_id(routing.mode, routing.account)[3:]}_{version:06d}"


class Facts(Value, frozen=True, kw_only=True):
    """The facts about a payment that rules ask for."""

    currency: str
    amount_minor: int
    method: str
    account: str
    card_brand: str | None = None
    bin: str | None = None
    country: str | None = None
    metadata: dict[str, str] = {}


class Step(Value, frozen=True, kw_only=True):
    """An attempt at one connector that was not the last."""

    connector: str
    outcome: AttemptOutcome


class Route(Value, frozen=True, kw_only=True):
    """The way of one payment: the rule that chose its candidates (None: the order for the rest) with its `place` among
    the rules, from 1 (0: not known), and the attempts that others followed. `reference` is the tail of the first
    attempt's reference, `began` its time (epoch seconds)."""

    candidates: tuple[str, ...]
    rule: str | None = None
    place: int = 0
    version: int = 0
    reference: str = ""
    began: int = 0
    tried: tuple[Step, ...] = ()


class ConnectorTerms(Value, frozen=True, kw_only=True):
    """The abilities and the price of a configured connector. `by_file`: it takes bank accounts only; `drained`: it
    takes no new payments; `open`: it lately could not be reached, so that others go first."""

    operations: frozenset[str] = frozenset()
    debits: frozenset[str] = frozenset()
    wallets: frozenset[str] = frozenset()
    authenticates: bool = False
    by_file: bool = False
    steps: Mapping[str, int] | None = None
    fee: Fee = Fee()
    drained: bool = False
    open: bool = False


class Needs(Value, frozen=True, kw_only=True):
    """The abilities that a payment needs of its connector. `debit` is the type of a bank account to debit,
    `wallet` that of a wallet."""

    amount_minor: int
    currency: str
    debit: str | None = None
    wallet: str | None = None
    captured_later: bool = False
    authenticates: bool = False


class Routes(Value, frozen=True, kw_only=True):
    """The routing in force for a merchant, and the connectors of the mode by name. `default` takes the payments for
    which no rule and no order is given."""

    routing: Routing
    connectors: Mapping[str, ConnectorTerms]
    account: str
    default: str | None = None


def choose(routes: Routes, facts: Facts, seed: str) -> tuple[str | None, tuple[str, ...]]:
    """The rule for these facts and its candidates in their order. The same `seed` draws the same, so that a request
    that is sent again takes the same way."""
    for rule in routes.routing.rules:
        if fits(rule.when, facts):
            return rule.name, _in_order(rule, seed)
    if routes.routing.otherwise:
        return None, routes.routing.otherwise
    return None, (routes.default,) if routes.default is not None else ()


def fits(when: When, facts: Facts) -> bool:
    """Whether every given condition holds."""
    return (
        (not when.currency or facts.currency in when.currency)
        and (when.amount_gte is None or facts.amount_minor >= when.amount_gte)
        and (when.amount_lt is None or facts.amount_minor < when.amount_lt)
        and (not when.card_brand or facts.card_brand in when.card_brand)
        and (not when.bin or (facts.bin is not None and facts.bin.startswith(when.bin)))
        and (not when.country or facts.country in when.country)
        and (not when.method or facts.method in when.method)
        and (not when.account or facts.account in when.account)
        and all(facts.metadata.get(key) in values for key, values in when.metadata.items())
    )


def _in_order(rule: Rule, seed: str) -> tuple[str, ...]:
    """The rule's connectors, the drawn one first."""
    names = tuple(use.connector for use in rule.use)
    total = sum(use.weight or 0 for use in rule.use)
    if not total:
        return names
    digest = hashlib.blake2b(f"{rule.name}\0{seed}".encode(), digest_size=8).digest()
    point = int.from_bytes(digest) % total
    for use in rule.use:
        point -= use.weight or 0
        if point < 0:
            return (use.connector, *(name for name in names if name != use.connector))
    raise AssertionError("a point below the sum of the weights lies in one of them")


def usable(
    candidates: Collection[str], connectors: Mapping[str, ConnectorTerms], needs: Needs, without: Collection[str] = ()
) -> list[str]:
    """The candidates that can take the payment now, in their order: those that could not be reached lately last."""
    able = [name for name in candidates if name not in without and _takes(connectors.get(name), needs)]
    return sorted(able, key=lambda name: connectors[name].open)


def verifier(candidates: Collection[str], connectors: Mapping[str, ConnectorTerms]) -> str | None:
    """The first candidate that can verify a card without a payment; those that could not be reached lately last."""
    able = [
        name
        for name in candidates
        if name in connectors and not connectors[name].drained and "verify" in connectors[name].operations
    ]
    return min(able, key=lambda name: connectors[name].open, default=None)


def _takes(terms: ConnectorTerms | None, needs: Needs) -> bool:
    """Whether the connector takes new payments and has the abilities that this one needs."""
    if terms is None or terms.drained:
        return False
    if "authorize" not in terms.operations or (needs.captured_later and "capture" not in terms.operations):
        return False
    if terms.by_file and needs.debit is None:
        return False
    if needs.debit is not None and needs.debit not in terms.debits:
        return False
    if needs.wallet is not None and needs.wallet not in terms.wallets:
        return False
    if needs.authenticates and not terms.authenticates:
        return False
    if terms.steps is None:
        return True
    step = terms.steps.get(needs.currency)
    return step is not None and needs.amount_minor % step == 0


def outcome_to_follow(outcome: Outcome) -> AttemptOutcome | None:
    """The outcome of an attempt as a route shows it, if another connector may be tried after it; else None. Without a
    known outcome no other may be tried, and after a hard decline the card networks forbid it."""
    match outcome:
        case NotSent():
            return "not_sent"
        case Declined(soft=True, alert=None):
            return "declined"
        case _:
            return None


def next_connector(
    route: Route, last: str, connectors: Mapping[str, ConnectorTerms], needs: Needs, now: int
) -> str | None:
    """The candidate to try after `last`; None if there is none, or the time for others is over."""
    if now - route.began > FAILOVER_SECONDS:
        return None
    tried = {last, *(step.connector for step in route.tried)}
    return next(iter(usable(route.candidates, connectors, needs, tried)), None)


def after_step(route: Route, connector: str, outcome: AttemptOutcome) -> Route:
    return replace(route, tried=(*route.tried, Step(connector=connector, outcome=outcome)))


def expected_fee(connectors: Mapping[str, ConnectorTerms], connector: str, amount_minor: int) -> int | None:
    """The fee of a payment through that connector, in minor units; None if it is not configured any more."""
    terms = connectors.get(connector)
    if terms is None:
        return None
    return fee_minor(amount_minor, rate_bps=terms.fee.rate_bps, fixed_minor=terms.fee.fixed_minor)


# Reading a document.


def read_document(rules: Any, otherwise: Any, known: Collection[str]) -> Routing:
    """The rules and the order of a document, as a Routing without its identity.

    `known` are the names of the mode's connectors. Raises Refused `routing_invalid` with the
    wrong word as `param`.
    """
    read: list[Rule] = []
    for place, given in enumerate(_list(rules if rules is not None else [], "rules", RULES_MAX)):
        rule = _read_rule(given, f"rules[{place}]", known)
        if any(rule.name == other.name for other in read):
            raise _invalid(f"rules[{place}][name]", f"two rules have the name {rule.name!r}")
        read.append(rule)
    names = _list(otherwise if otherwise is not None else [], "otherwise", USES_MAX)
    order = tuple(_connector(name, f"otherwise[{place}]", known) for place, name in enumerate(names))
    _refuse_repeated(order, "otherwise")
    return Routing(id="rtg_", created=0, mode="test", rules=tuple(read), otherwise=order)


def _read_rule(given: Any, param: str, known: Collection[str]) -> Rule:
    members = _object(given, param, ("name", "when", "use"))
    name = members.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= NAME_MAX or not name.isprintable():
        raise _invalid(f"{param}[name]", f"a rule has a name of 1 to {NAME_MAX} printable characters")
    uses = tuple(
        _read_use(use, f"{param}[use][{place}]", known)
        for place, use in enumerate(_list(members.get("use"), f"{param}[use]", USES_MAX))
    )
    if not uses:
        raise _invalid(f"{param}[use]", "a rule uses at least one connector")
    _refuse_repeated([use.connector for use in uses], f"{param}[use]")
    if any(use.weight is not None for use in uses) and not any(use.weight for use in uses):
        raise _invalid(f"{param}[use][0][weight]", "at least one of the weights must be greater than 0")
    return Rule(name=name, use=uses, when=_read_when(members.get("when", {}), f"{param}[when]"))


def _read_use(given: Any, param: str, known: Collection[str]) -> Use:
    if isinstance(given, str):
        return Use(connector=_connector(given, param, known))
    members = _object(given, param, ("connector", "weight"))
    weight = members.get("weight")
    if weight is not None:
        weight = _integer(weight, f"{param}[weight]", WEIGHT_MAX)
    return Use(connector=_connector(members.get("connector"), f"{param}[connector]", known), weight=weight)


def _read_when(given: Any, param: str) -> When:
    members = _object(given, param, When.__struct_fields__)
    read: dict[str, Any] = {}
    for name, value in members.items():
        where = f"{param}[{name}]"
        match name:
            case "amount_gte" | "amount_lt":
                read[name] = _integer(value, where, None)
            case "metadata":
                read[name] = _read_metadata(value, where)
            case _:
                read[name] = tuple(
                    _word(name, word, f"{where}[{place}]") for place, word in enumerate(_list(value, where, WORDS_MAX))
                )
                if not read[name]:
                    raise _invalid(where, "an empty list fits no payment; leave the condition out")
    when = When(**read)
    if when.amount_gte is not None and when.amount_lt is not None and when.amount_lt <= when.amount_gte:
        raise _invalid(f"{param}[amount_lt]", "no amount is below amount_lt and not below amount_gte")
    return when


def _word(condition: str, word: Any, param: str) -> str:
    """One value of a condition, as payments have it. Raises Refused."""
    if not isinstance(word, str):
        raise _invalid(param, "this must be text")
    match condition:
        case "currency":
            if word.lower() not in MINOR_UNITS:
                raise _invalid(param, f"{word[:20]!r} is not an ISO 4217 currency")
            return word.lower()
        case "card_brand":
            if word not in BRANDS:
                raise _invalid(param, f"{word[:20]!r} is not a card brand; there are {', '.join(sorted(BRANDS))}")
        case "bin":
            if not (4 <= len(word) <= 8 and word.isascii() and word.isdigit()):
                raise _invalid(param, "a bin has 4 to 8 digits, the first of a card number")
        case "country":
            if not (len(word) == 2 and word.isascii() and word.isalpha()):
                raise _invalid(param, f"{word[:20]!r} is not an ISO 3166-1 country of two letters")
            return word.upper()
        case "method":
            if word not in METHOD_TYPES:
                raise _invalid(param, f"{word[:40]!r} is no payment method type; there are {', '.join(METHOD_TYPES)}")
        case "account":
            if not word.startswith("acct_"):
                raise _invalid(param, f"{word[:40]!r} is not the id of a merchant (acct_…)")
    return word


def _read_metadata(given: Any, param: str) -> dict[str, tuple[str, ...]]:
    if not isinstance(given, dict) or not 0 < len(given) <= USES_MAX:
        raise _invalid(param, f"this is an object with 1 to {USES_MAX} names, each with its value or a list of values")
    read = {}
    for key, value in given.items():
        values = value if isinstance(value, list) else [value]
        if not values or not all(isinstance(word, str) and len(word) <= TEXT_MAX for word in values):
            raise _invalid(f"{param}[{key[:40]}]", "the value of metadata is text, or a list of texts")
        read[key] = tuple(values)
    return read


def _connector(given: Any, param: str, known: Collection[str]) -> str:
    if not isinstance(given, str) or given not in known:
        shown = repr(given[:40]) if isinstance(given, str) else "this"
        raise _invalid(param, f"{shown} is not a connector of this mode; there are {', '.join(sorted(known))}")
    return given


def _object(given: Any, param: str, words: tuple[str, ...]) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise _invalid(param, f"this is an object with {', '.join(words)}")
    for word in given:
        if word not in words:
            raise _invalid(f"{param}[{word[:40]}]", f"the word is unknown here; there are {', '.join(words)}")
    return given


def _list(given: Any, param: str, most: int) -> list[Any]:
    if not isinstance(given, list) or len(given) > most:
        raise _invalid(param, f"this is a list of at most {most}")
    return given


def _integer(given: Any, param: str, most: int | None) -> int:
    if isinstance(given, str) and given.isascii() and given.isdigit():
        raise _invalid(param, f'this is a number, not a text: {given[:12]} in place of "{given[:12]}"')
    if not isinstance(given, int) or isinstance(given, bool) or given < 0 or (most is not None and given > most):
        raise _invalid(param, "this is a whole number, 0 or greater" + (f", at most {most}" if most else ""))
    return given


def _refuse_repeated(names: Collection[str], param: str) -> None:
    for place, name in enumerate(names):
        if name in list(names)[:place]:
            raise _invalid(f"{param}[{place}]", f"{name!r} stands here twice")


def _invalid(param: str, problem: str) -> Refused:
    return Refused("routing_invalid", f"{param}: {problem}.", param=param)


def document_of(routing: Routing) -> dict[str, Any]:
    """The rules and the order as a document that `read_document` takes."""
    return {
        "rules": [
            {"name": rule.name, "when": msgspec.to_builtins(rule.when), "use": msgspec.to_builtins(rule.use)}
            for rule in routing.rules
        ],
        "otherwise": list(routing.otherwise),
    }
