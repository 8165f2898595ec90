"""The keys that sign access tokens, as stored; tests/http/test_access_tokens.py has the tokens themselves."""

import base64
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tillway.store.codec import decode, encode
from tillway.vault.keyring import Keyring
from tillway.vault.port import TokenUnfit, VaultTampered
from tillway.vault.signer import SIGNING_PURPOSE, Es256Signer

CLAIMS: dict[str, Any] = {
    "iss": "https://pay.example",
    "aud": "a",
    "sub": "s",
    "jti": "1",
    "iat": 10,
    "nbf": 10,
    "exp": 20,
}


def signer_of(place: Path) -> Es256Signer:
    keyring = Keyring.load(place) if place.exists() else Keyring.create(place)
    return Es256Signer(keyring.derive(SIGNING_PURPOSE))


def test_another_process_with_the_same_key_file_signs_and_checks(tmp_path: Path) -> None:
    key = signer_of(tmp_path / "keys.json").new_key("jwk_1", created=1)
    token = signer_of(tmp_path / "keys.json").sign(key, CLAIMS)
    other = signer_of(tmp_path / "keys.json")
    assert other.key_id(token) == "jwk_1"
    assert other.claims(token, key, issuer=CLAIMS["iss"], audiences=["a", "b"], now=15) == CLAIMS


def test_a_rotation_of_the_vaults_keys_leaves_tokens_alone(tmp_path: Path) -> None:
    keyring = Keyring.create(tmp_path / "keys.json")
    key = Es256Signer(keyring.derive(SIGNING_PURPOSE)).new_key("jwk_1", created=1)
    keyring.add_kek()
    assert signer_of(tmp_path / "keys.json").sign(key, CLAIMS)


def test_what_is_stored_has_no_private_part_that_opens_elsewhere(tmp_path: Path) -> None:
    signer = signer_of(tmp_path / "keys.json")
    key = signer.new_key("jwk_1", created=1)
    numbers: Any = signer._private(key).raw_value
    private = base64.urlsafe_b64encode(numbers.private_numbers().private_value.to_bytes(32))
    assert private.rstrip(b"=") not in encode(key) and b'"d"' not in encode(key) and "d" not in key.public
    assert decode(key.id, encode(key)) == key
    with pytest.raises(VaultTampered):
        signer_of(tmp_path / "others.json").sign(key, CLAIMS)
    fresh = signer_of(tmp_path / "keys.json")
    with pytest.raises(VaultTampered):
        fresh.sign(msgspec.structs.replace(key, id="jwk_2"), CLAIMS)
    with pytest.raises(VaultTampered):
        fresh.sign(msgspec.structs.replace(key, sealed=key.sealed[:-1] + bytes([key.sealed[-1] ^ 1])), CLAIMS)


def test_the_last_second_is_not_in_it(tmp_path: Path) -> None:
    signer = signer_of(tmp_path / "keys.json")
    key = signer.new_key("jwk_1", created=1)
    token = signer.sign(key, CLAIMS)
    where: Any = {"issuer": CLAIMS["iss"], "audiences": ["a"]}
    assert signer.claims(token, key, now=19, **where)
    with pytest.raises(TokenUnfit) as unfit:
        signer.claims(token, key, now=20, **where)
    assert unfit.value.expired
