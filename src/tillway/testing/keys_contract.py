"""The contract of adapters that hold key-encryption keys, as checks that run against yours.

    @pytest.mark.parametrize("check", KEYS_CHECKS, ids=lambda check: check.__name__)
    def test_contract(check):
        check(MyPlace())

A check raises AssertionError.
"""

from collections.abc import Callable
from functools import partial
from typing import Protocol

from tillway.vault.port import KeyMissing, KeyRefused, Keys, VaultTampered

DATA_KEY = bytes(range(32))
CONTEXT = b"tillway.data_key.card.1"


class Place(Protocol):
    """A place that holds the keys of one installation. Every check gets a fresh one."""

    def make(self) -> Keys:
        """The keys of a new installation."""

    def open(self) -> Keys:
        """The same keys, as another process opens them."""


KeysCheck = Callable[[Place], None]


def opens_what_it_wrapped(place: Place) -> None:
    keys = place.make()
    key_id, wrapped = keys.wrap(DATA_KEY, CONTEXT)
    assert key_id == keys.current_id() and ":" not in key_id
    assert DATA_KEY not in wrapped
    for opened in (keys, place.open()):
        assert opened.unwrap(key_id, wrapped, CONTEXT) == DATA_KEY
    assert keys.wrap(DATA_KEY, CONTEXT)[1] != wrapped


def opens_nothing_that_was_changed(place: Place) -> None:
    keys = place.make()
    key_id, wrapped = keys.wrap(DATA_KEY, CONTEXT)
    changed = wrapped[:-1] + bytes((wrapped[-1] ^ 1,))
    for bytes_, context in ((changed, CONTEXT), (wrapped[:-1], CONTEXT), (b"", CONTEXT), (wrapped, CONTEXT + b"2")):
        assert _raises(VaultTampered, partial(keys.unwrap, key_id, bytes_, context))
    assert _raises(KeyMissing, lambda: keys.unwrap("kek_of_nobody", wrapped, CONTEXT))


def rotates(place: Place) -> None:
    keys = place.make()
    first, wrapped = keys.wrap(DATA_KEY, CONTEXT)
    second = keys.add_kek()
    assert second != first and keys.current_id() == second
    assert keys.wrap(DATA_KEY, CONTEXT)[0] == second
    assert keys.unwrap(first, wrapped, CONTEXT) == DATA_KEY
    assert [(key.id, key.state) for key in keys.list_keys()] == [(first, "old"), (second, "current")]
    # Another process that was opened before learns of the key when it meets it.
    assert place.open().unwrap(*keys.wrap(DATA_KEY, CONTEXT), CONTEXT) == DATA_KEY


def prepares_a_key_before_it_wraps(place: Place) -> None:
    keys = place.make()
    first = keys.current_id()
    coming = keys.prepare_kek()
    assert keys.prepare_kek() == coming != first
    assert keys.current_id() == first
    assert keys.add_kek() == coming
    assert keys.current_id() == coming


def retires_and_forgets_in_order(place: Place) -> None:
    keys = place.make()
    first, wrapped = keys.wrap(DATA_KEY, CONTEXT)
    assert _raises(KeyRefused, lambda: keys.retire(first))
    assert _raises(KeyRefused, lambda: keys.forget(first))
    keys.add_kek()
    assert _raises(KeyRefused, lambda: keys.forget(first))
    keys.retire(first)
    keys.retire(first)
    assert keys.unwrap(first, wrapped, CONTEXT) == DATA_KEY
    keys.forget(first)
    for opened in (keys, place.open()):
        assert _raises(KeyMissing, partial(opened.unwrap, first, wrapped, CONTEXT))
    assert _raises(KeyRefused, lambda: keys.forget("kek_of_nobody"))


def derives_the_same_keys_for_ever(place: Place) -> None:
    keys = place.make()
    derived = keys.derive("one purpose").reveal()
    fingerprint = keys.fingerprint_key.reveal()
    assert len(derived) == len(fingerprint) == 32
    assert len({derived, fingerprint, keys.derive("another purpose").reveal()}) == 3
    keys.add_kek()
    for opened in (keys, place.open()):
        assert opened.derive("one purpose").reveal() == derived
        assert opened.fingerprint_key.reveal() == fingerprint


def shows_no_key(place: Place) -> None:
    keys = place.make()
    text = repr(keys) + repr(keys.list_keys())
    for secret in (keys.fingerprint_key.reveal(), keys.derive("one purpose").reveal()):
        assert secret.hex() not in text and repr(secret)[2:-1] not in text


KEYS_CHECKS: tuple[KeysCheck, ...] = (
    opens_what_it_wrapped,
    opens_nothing_that_was_changed,
    rotates,
    prepares_a_key_before_it_wraps,
    retires_and_forgets_in_order,
    derives_the_same_keys_for_ever,
    shows_no_key,
)
"""Every check of the contract."""


def _raises(kind: type[Exception], call: Callable[[], object]) -> bool:
    """Whether `call` raises an exception of that kind."""
    try:
        call()
    except kind:
        return True
    return False
