"""Aliases: a merchant's own id for an object, and Tillway's id.

A dialect lets a merchant choose ids (`customer_id`, `user_id`). The commit that makes the object also writes the alias,
which must be absent before: of two requests with the same id, one makes the object and the other finds it.
"""

import hashlib

from tillway.domain.record import Moment, Record


class Alias(Record, frozen=True, kw_only=True):
    """`name`, of that `kind`, is the record `target`."""

    kind: str
    name: str
    target: str


def alias_id(kind: str, name: str) -> str:
    """The id of the alias of `name`. A digest keeps names of any form apart."""
    return "als_" + hashlib.blake2b(f"{kind}:{name}".encode(), digest_size=16).hexdigest()


def new_alias(kind: str, name: str, target: str, at: Moment) -> Alias:
    return Alias(id=alias_id(kind, name), created=at.created, kind=kind, name=name, target=target)
