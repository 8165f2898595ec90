"""Sealing and opening, and what must not open."""

import base64
import copy
import pickle

import msgspec
import pytest
from card_traces import traces
from hypothesis import given
from hypothesis import strategies as st

from tillway.domain.cards import Secret
from tillway.vault.envelope import EnvelopeVault
from tillway.vault.keyring import Keyring
from tillway.vault.port import (
    AccountContents,
    CardContents,
    KeyMissing,
    SealedAccount,
    SealedCard,
    SealedCvc,
    VaultTampered,
)

NUMBER = "4242424242424242"
SCOPE, OWNER = "1234567890123456t", "vlt_1"
CARD = CardContents(number=Secret(NUMBER), exp_month=12, exp_year=2030, name="Zoë Ünal")


@pytest.fixture(scope="module")
def vault(tmp_path_factory):
    keyring = Keyring.create(tmp_path_factory.mktemp("vault") / "keys.json")
    return EnvelopeVault(keyring, keyring.fingerprint_key)


@given(
    number=st.text("0123456789", min_size=1, max_size=19),
    month=st.integers(1, 12),
    year=st.integers(2000, 2100),
    name=st.none() | st.text(st.characters(exclude_categories=["Cs"]), max_size=50),
    scope=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
    owner=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
)
def test_what_was_sealed_is_opened(vault, number, month, year, name, scope, owner):
    card = CardContents(number=Secret(number), exp_month=month, exp_year=year, name=name)
    stored = msgspec.json.encode(vault.seal(scope, owner, card))
    assert vault.open(scope, owner, msgspec.json.decode(stored, type=SealedCard)) == card


@given(cvc=st.text("0123456789", min_size=3, max_size=4))
def test_a_security_code_too(vault, cvc):
    stored = msgspec.json.encode(vault.seal_cvc(SCOPE, "cvc_1", Secret(cvc)))
    assert vault.open_cvc(SCOPE, "cvc_1", msgspec.json.decode(stored, type=SealedCvc)) == Secret(cvc)


@pytest.mark.parametrize(("routing", "name"), [("110000000", "Zoë Ünal"), (None, None)])
def test_a_bank_account_too(vault, routing, name):
    account = AccountContents(number=Secret("DE89370400440532013000"), routing=routing, name=name)
    stored = msgspec.json.encode(vault.seal_account(SCOPE, OWNER, account))
    assert traces(stored, "370400440532013000") == []
    sealed = msgspec.json.decode(stored, type=SealedAccount)
    assert vault.open_account(SCOPE, OWNER, sealed) == account
    with pytest.raises(VaultTampered):
        vault.open_account(SCOPE, "vlt_2", sealed)
    assert vault.rewrap(sealed) is sealed


def test_two_seals_share_nothing_but_the_key_id(vault):
    one, other = vault.seal(SCOPE, OWNER, CARD), vault.seal(SCOPE, OWNER, CARD)
    assert one.key_id == other.key_id
    assert {one.nonce, one.ciphertext, one.wrapped_key}.isdisjoint({other.nonce, other.ciphertext, other.wrapped_key})


def test_the_number_is_not_in_the_record(vault):
    sealed = vault.seal(SCOPE, OWNER, CARD)
    assert traces(msgspec.json.encode(sealed), NUMBER) == []
    assert traces(sealed.ciphertext + sealed.wrapped_key + sealed.nonce, NUMBER) == []


@pytest.mark.parametrize("field", ["wrapped_key", "nonce", "ciphertext"])
def test_every_bit_counts(vault, field):
    sealed = vault.seal(SCOPE, OWNER, CARD)
    good = getattr(sealed, field)
    for place in range(len(good)):
        for bit in range(8):
            bad = bytearray(good)
            bad[place] ^= 1 << bit
            with pytest.raises(VaultTampered):
                vault.open(SCOPE, OWNER, msgspec.structs.replace(sealed, **{field: bytes(bad)}))


@pytest.mark.parametrize("field", ["wrapped_key", "nonce", "ciphertext"])
@pytest.mark.parametrize(
    "change", [lambda b: b"", lambda b: b[:-1], lambda b: b[1:], lambda b: b + b"\0", lambda b: b * 40]
)
def test_no_other_length_opens(vault, field, change):
    sealed = vault.seal(SCOPE, OWNER, CARD)
    with pytest.raises(VaultTampered):
        vault.open(SCOPE, OWNER, msgspec.structs.replace(sealed, **{field: change(getattr(sealed, field))}))


@pytest.mark.parametrize("version", [0, 2, -1])
def test_another_version_does_not_open(vault, version):
    with pytest.raises(VaultTampered):
        vault.open(SCOPE, OWNER, msgspec.structs.replace(vault.seal(SCOPE, OWNER, CARD), version=version))


def test_an_unknown_key_says_what_to_do(vault):
    sealed = msgspec.structs.replace(vault.seal(SCOPE, OWNER, CARD), key_id="kek_elsewhere")
    with pytest.raises(KeyMissing, match="restore the key file"):
        vault.open(SCOPE, OWNER, sealed)


def test_a_wrapped_key_is_bound_to_its_key_id(vault, tmp_path):
    keyring = Keyring.create(tmp_path / "keys.json")
    own = EnvelopeVault(keyring, keyring.fingerprint_key)
    first = own.seal(SCOPE, OWNER, CARD)
    second_id = keyring.add_kek()
    with pytest.raises(VaultTampered):
        own.open(SCOPE, OWNER, msgspec.structs.replace(first, key_id=second_id))
    assert own.open(SCOPE, OWNER, first) == CARD


@pytest.mark.parametrize(
    ("scope", "owner"),
    [
        ("1234567890123456l", OWNER),  # live instead of test
        ("6543210987654321t", OWNER),  # another merchant
        (SCOPE, "vlt_2"),  # another card of the same merchant
        (SCOPE + "v", "lt_1"),  # the same characters, cut elsewhere
        ("", SCOPE + OWNER),
    ],
)
def test_a_moved_record_does_not_open(vault, scope, owner):
    sealed = vault.seal(SCOPE, OWNER, CARD)
    with pytest.raises(VaultTampered):
        vault.open(scope, owner, sealed)


def test_parts_of_two_records_do_not_open_together(vault):
    one, other = vault.seal(SCOPE, OWNER, CARD), vault.seal(SCOPE, OWNER, CARD)
    for field in ("wrapped_key", "nonce", "ciphertext"):
        with pytest.raises(VaultTampered):
            vault.open(SCOPE, OWNER, msgspec.structs.replace(one, **{field: getattr(other, field)}))


def test_a_security_code_does_not_open_as_a_card_nor_a_card_as_a_code(vault):
    cvc = msgspec.structs.asdict(vault.seal_cvc(SCOPE, OWNER, Secret("123")))
    card = msgspec.structs.asdict(vault.seal(SCOPE, OWNER, CARD))
    with pytest.raises(VaultTampered):
        vault.open(SCOPE, OWNER, SealedCard(**cvc))
    with pytest.raises(VaultTampered):
        vault.open_cvc(SCOPE, OWNER, SealedCvc(**card))


def test_another_installations_keys_open_nothing(vault, tmp_path):
    keyring = Keyring.create(tmp_path / "keys.json")
    with pytest.raises(VaultTampered):
        EnvelopeVault(keyring, keyring.fingerprint_key).open(SCOPE, OWNER, vault.seal(SCOPE, OWNER, CARD))


def test_rewrap_changes_the_wrapping_alone(tmp_path):
    keyring = Keyring.create(tmp_path / "keys.json")
    vault = EnvelopeVault(keyring, keyring.fingerprint_key)
    sealed, cvc = vault.seal(SCOPE, OWNER, CARD), vault.seal_cvc(SCOPE, "cvc_1", Secret("123"))
    assert vault.rewrap(sealed) is sealed
    keyring.add_kek()
    again, cvc_again = vault.rewrap(sealed), vault.rewrap(cvc)
    assert again.key_id == cvc_again.key_id == keyring.current_id()
    assert (again.ciphertext, again.nonce) == (sealed.ciphertext, sealed.nonce)
    assert vault.open(SCOPE, OWNER, again) == vault.open(SCOPE, OWNER, sealed) == CARD
    assert vault.open_cvc(SCOPE, "cvc_1", cvc_again) == Secret("123")
    assert vault.rewrap(again) is again


def test_rewrap_refuses_what_does_not_open(tmp_path):
    keyring = Keyring.create(tmp_path / "keys.json")
    vault = EnvelopeVault(keyring, keyring.fingerprint_key)
    sealed = vault.seal(SCOPE, OWNER, CARD)
    keyring.add_kek()
    with pytest.raises(VaultTampered):
        vault.rewrap(msgspec.structs.replace(sealed, wrapped_key=bytes(60)))


def test_fingerprints(vault):
    mark = vault.fingerprint(SCOPE, Secret(NUMBER))
    assert len(mark) == 16 and mark.isascii() and mark.isalnum()
    assert vault.fingerprint(SCOPE, Secret(NUMBER)) == mark
    assert vault.fingerprint("1234567890123456l", Secret(NUMBER)) != mark
    assert vault.fingerprint(SCOPE, Secret("4242424242424259")) != mark


def test_digests(vault, tmp_path):
    mark = vault.digest(SCOPE, b"4242")
    assert len(mark) == 32 and set(mark) <= set("0123456789abcdef")
    assert vault.digest(SCOPE, b"4242") == mark
    assert vault.digest("1234567890123456l", b"4242") != mark
    assert vault.digest(SCOPE, b"4243") != mark
    others = Keyring.create(tmp_path / "keys.json")
    assert EnvelopeVault(others, others.fingerprint_key).digest(SCOPE, b"4242") != mark


def test_a_rotation_leaves_fingerprints_as_they_are(tmp_path):
    keyring = Keyring.create(tmp_path / "keys.json")
    before = EnvelopeVault(keyring, keyring.fingerprint_key).fingerprint(SCOPE, Secret(NUMBER))
    keyring.add_kek()
    keyring = Keyring.load(tmp_path / "keys.json")
    assert EnvelopeVault(keyring, keyring.fingerprint_key).fingerprint(SCOPE, Secret(NUMBER)) == before


def test_nothing_shows_a_number(vault):
    assert NUMBER not in repr(CARD) + str(CARD) + f"{CARD} {CARD.number} {CARD.number!r} {CARD.number:>20}"
    with pytest.raises(TypeError):
        msgspec.json.encode(CARD)
    with pytest.raises(TypeError):
        pickle.dumps(CARD.number)
    with pytest.raises(TypeError):
        copy.copy(CARD.number)
    with pytest.raises(VaultTampered) as caught:
        vault.open("elsewhere", OWNER, vault.seal(SCOPE, OWNER, CARD))
    assert traces(repr(caught.value).encode(), NUMBER) == []
    assert base64.b64encode(NUMBER.encode()).decode() not in repr(caught.value)
