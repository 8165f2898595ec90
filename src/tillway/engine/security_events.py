"""Security events: failed authentication, refused access, rejected notices, read trails, opened card numbers.

Callers decide how many there are, so they are counted, and told once a minute: a log line for each address, credential
or merchant, at every `log_level`. Refused access of a known credential, and its reading of the audit trail, also enter
the trail, as one entry a minute for each credential. So nobody can fill the log or the store, or slow payments down.
"""

import logging
from collections.abc import Awaitable, Callable
from typing import Any, Literal

from tillway.domain.account import scope_of
from tillway.engine.caller import Caller

log = logging.getLogger("tillway.security")
log.setLevel(logging.INFO)

Kind = Literal[
    "authentication failed", "access refused", "notice rejected", "audit trail read", "account numbers opened"
]

PLACES_MAX = 100
"""Most lines of a minute for each kind, and most entries. Events beyond are counted in one line, without a place."""

NAMES_MAX = 10
"""Most different codes and operations that one line or entry names."""

Enter = Callable[[Caller, dict[str, Any]], Awaitable[None]]
"""Enters an action into the audit trail: `Engine.note`."""


class _Count:
    __slots__ = ("names", "times")

    def __init__(self) -> None:
        self.times = 0
        self.names: list[str] = []
        """The codes or operations, in the order in which they first came."""

    def add(self, name: str) -> None:
        self.times += 1
        if name and name not in self.names and len(self.names) < NAMES_MAX:
            self.names.append(name)


_Place = tuple[str, str, str]
"""The address, and the id and the hint of a credential; or a scope alone. All three are empty where
there are too many."""

_NOWHERE: _Place = ("", "", "")


class SecurityEvents:
    """The events of this process that are not yet told."""

    def __init__(self) -> None:
        self._counts: dict[Kind, dict[_Place, _Count]] = {}
        self._actions: dict[tuple[str, str, Kind], tuple[Caller, _Count]] = {}
        """Of the audit trail, by its scope, the credential and the kind."""

    def authentication_failed(self, address: str | None, code: str) -> None:
        """Count a request whose credential is missing, wrong or expired. `address` None: it must not be logged."""
        self._count("authentication failed", (address or "", "", ""), code)

    def access_refused(self, caller: Caller, address: str | None, code: str) -> None:
        """Count a request of a known credential for something that it may not do."""
        name = f"{caller.operation} ({code})"
        self._count("access refused", (address or "", caller.actor, caller.hint), name)
        self._enter("access refused", caller, name)

    def notice_rejected(self, connector: str, mode: str) -> None:
        """Count a notice that is not the provider's, or not one that it may send."""
        self._count("notice rejected", (connector, mode, ""))

    def trail_read(self, caller: Caller) -> None:
        self._enter("audit trail read", caller, caller.operation)

    def number_opened(self, scope_key: str) -> None:
        """Count the decryption of the number of a card or a bank account. Those of test mode are no secrets."""
        if scope_key.endswith("l"):
            self._count("account numbers opened", (scope_key, "", ""))

    def _count(self, kind: Kind, place: _Place, name: str = "") -> None:
        counts = self._counts.get(kind)
        if counts is None:
            counts = self._counts[kind] = {}
        count = counts.get(place)
        if count is None:
            if len(counts) >= PLACES_MAX:
                place = _NOWHERE
            count = counts.setdefault(place, _Count())
        count.add(name)

    def _enter(self, kind: Kind, caller: Caller, name: str) -> None:
        place = (caller.scope_key, caller.actor, kind)
        known = self._actions.get(place)
        if known is None:
            if len(self._actions) >= PLACES_MAX:
                return
            author = Caller(
                scope=caller.scope,
                scope_key=caller.scope_key,
                client_ip=caller.client_ip,
                actor=caller.actor,
                hint=caller.hint,
                operation=kind,
            )
            known = self._actions[place] = (author, _Count())
        known[1].add(name)

    @property
    def wait(self) -> bool:
        """Whether there are events that are not told."""
        return bool(self._counts or self._actions)

    async def tell(self, enter: Enter) -> None:
        """Log the events since the last call, and enter those of known credentials into the audit trail.

        Raises `Refused` if the trail cannot be written; what is not entered yet is kept for the next call.
        """
        counts, self._counts = self._counts, {}
        for kind, places in counts.items():
            for place, count in places.items():
                log.log(
                    logging.INFO if kind == "account numbers opened" else logging.WARNING,
                    kind,
                    extra=_facts(kind, place, count),
                )
        for place in list(self._actions):
            author, count = self._actions.pop(place)
            try:
                await enter(author, {"times": count.times, "operations": count.names})
            except BaseException:
                kept = self._actions.setdefault(place, (author, _Count()))[1]
                kept.times += count.times
                kept.names = list(dict.fromkeys([*count.names, *kept.names]))[:NAMES_MAX]
                raise


_FACTS: dict[Kind, tuple[str, str, str]] = {
    "authentication failed": ("address", "", ""),
    "access refused": ("address", "credential", "hint"),
    "notice rejected": ("connector", "mode", ""),
    "account numbers opened": ("account", "", ""),
}


def _facts(kind: Kind, place: _Place, count: _Count) -> dict[str, Any]:
    facts: dict[str, Any] = {"times": count.times}
    facts |= {name: value for name, value in zip(_FACTS[kind], place, strict=True) if value}
    if "account" in facts:
        facts["account"] = scope_of(facts["account"]).account
    if place == _NOWHERE:
        facts["place"] = "others"
    if count.names:
        facts["names"] = ", ".join(count.names)
    return facts
