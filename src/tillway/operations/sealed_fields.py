"""The secrets of a form at the dashboard, sealed while its page asks the operator for a proof."""

from typing import Final

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.cards import Secret
from tillway.vault.port import Vault, VaultTampered

SEALED_SECONDS: Final = 15 * 60

Fields = dict[str, list[str]]


class _Sealed(msgspec.Struct, frozen=True):
    """`until` is epoch seconds."""

    fields: Fields
    until: int


def seal_fields(vault: Vault, owner: str, fields: Fields, *, now: int) -> str:
    """The fields as a text that opens for `owner` alone, within SEALED_SECONDS of `now` (epoch seconds)."""
    text = msgspec.json.encode(_Sealed(fields, now + SEALED_SECONDS)).decode()
    return vault.seal_text(SYSTEM, owner, Secret(text))


def open_fields(vault: Vault, owner: str, text: str, *, now: int) -> Fields | None:
    """The fields; None if they were sealed for another owner or too long ago, or were changed."""
    try:
        sealed = msgspec.json.decode(vault.open_text(SYSTEM, owner, text).reveal(), type=_Sealed)
    except (VaultTampered, ValueError):
        return None
    return sealed.fields if sealed.until > now else None
