"""Aliases: a merchant's own id for a thing, and ours.

A dialect lets a merchant choose ids (`customer_id`, `user_id`). The alias is written in the commit that makes the thing
and must be absent before it: of two requests that bring the same id, one makes the thing and the other finds it.
"""

import hashlib

from tillway.domain.record import Moment, Record


class Alias(Record, frozen=True, kw_only=True):
    """`name`, of that `kind`, is the record `target`."""

    kind: str
    name: str
    target: str


def alias_id(kind: str, name: str) -> str:
    """The id under which the alias of `name` is kept, if there is one. Names of any form are told apart by digest."""
    return "als_" + hashlib.blake2b(f"{kind}:{name}".encode(), digest_size=16).hexdigest()


def new_alias(kind: str, name: str, target: str, at: Moment) -> Alias:
    return Alias(id=alias_id(kind, name), created=at.created, kind=kind, name=name, target=target)
