"""The kinds of place that can hold an installation's keys, by the value of the setting `vault_keys`."""

from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from tillway.vault.keyring import Keyring
from tillway.vault.port import Keys


class Kind(NamedTuple):
    """How the keys of a kind are opened and made: with the path of the key file in the data directory.

    Both raise `KeyFileUnfit` with the remedy; `create` never writes over keys.
    """

    load: Callable[[Path], Keys]
    create: Callable[[Path], Keys]


KINDS: Final = {"file": Kind(Keyring.load, Keyring.create)}
