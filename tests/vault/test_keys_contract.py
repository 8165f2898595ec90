"""Every place of the keys holds them as the contract says."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from secrets_service import SecretsService, secrets_service

from tillway.testing.keys_contract import KEYS_CHECKS, KeysCheck
from tillway.vault.keyring import KeyFileUnfit, Keyring
from tillway.vault.port import KeyRefused, Keys
from tillway.vault.registry import place_of


class Directory:
    """A place beside a data directory, by the value of the setting `keys`."""

    def __init__(self, keys: str, path: Path) -> None:
        self._place = place_of(keys, path / "keys.json")

    def make(self) -> Keys:
        return Keyring.create(self._place)

    def open(self) -> Keys:
        return Keyring.load(self._place)


@pytest.fixture
def service() -> Iterator[SecretsService]:
    with secrets_service() as service:
        yield service


@pytest.mark.parametrize("keys", ["file", "secretsmanager:tillway-main/keys"])
@pytest.mark.parametrize("check", KEYS_CHECKS, ids=lambda check: check.__name__)
def test_contract(check: KeysCheck, keys: str, tmp_path: Path, service: SecretsService) -> None:
    check(Directory(keys, tmp_path))


# The secret.


def secret() -> Keyring:
    return Keyring.load(place_of("secretsmanager:tillway-main/keys", Path("unused")))


def test_keys_of_a_secret_are_made_once(service: SecretsService) -> None:
    place = place_of("secretsmanager:tillway-main/keys", Path("unused"))
    with pytest.raises(KeyFileUnfit, match=r"is empty\. Make the keys"):
        secret()
    made = Keyring.create(place)
    with pytest.raises(KeyFileUnfit, match="has keys already"):
        Keyring.create(place)
    assert secret().current_id() == made.current_id()


def test_of_two_writers_at_once_one_is_refused_and_no_key_is_lost(service: SecretsService) -> None:
    made = Keyring.create(place_of("secretsmanager:tillway-main/keys", Path("unused")))
    slow = place_of("secretsmanager:tillway-main/keys", Path("unused"))
    seen = slow.read()
    assert seen is not None
    second = secret().add_kek()
    with pytest.raises(KeyRefused, match="Try again"):
        slow.replace(seen[0] + b" ")
    assert secret().current_id() == second and len(made.list_keys()) == 2


def test_no_card_costs_a_call(service: SecretsService) -> None:
    keys = Keyring.create(place_of("secretsmanager:tillway-main/keys", Path("unused")))
    before = len(service.calls)
    for _ in range(100):
        keys.unwrap(*keys.wrap(bytes(32), b"context"), b"context")
    assert keys.can_be_loaded() and len(service.calls) == before
