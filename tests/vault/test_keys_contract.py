"""Every kind of `vault_keys` holds keys as the contract says."""

from pathlib import Path

import pytest

from tillway.settings import CHOICES
from tillway.testing.keys_contract import KEYS_CHECKS, KeysCheck
from tillway.vault.port import Keys
from tillway.vault.registry import KINDS


class Directory:
    """The place of a kind that works beside a key file in a data directory."""

    def __init__(self, kind: str, path: Path) -> None:
        self._kind = KINDS[kind]
        self._path = path / "keys.json"

    def make(self) -> Keys:
        return self._kind.create(self._path)

    def open(self) -> Keys:
        return self._kind.load(self._path)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("check", KEYS_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: KeysCheck, kind: str, tmp_path: Path) -> None:
    check(Directory(kind, tmp_path))


def test_the_setting_names_every_kind() -> None:
    assert set(CHOICES["vault_keys"]) == set(KINDS)
