"""The key file: modes, owners, damage, writers that die, and readers in another process."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tillway.domain.cards import Secret
from tillway.vault.envelope import EnvelopeVault
from tillway.vault.keyring import CHECK_EVERY_SECONDS, KeyFileUnfit, Keyring
from tillway.vault.port import KeyMissing, KeyRefused

SCOPE = "1234567890123456t"


class Seconds:
    """A clock that stands still until told."""

    def __init__(self):
        self.now = 1000.0

    def __call__(self):
        return self.now


@pytest.fixture
def path(tmp_path):
    return tmp_path / "keys.json"


def states(keyring):
    return [key.state for key in keyring.list_keys()]


def edited(path, change):
    """The key file with `change` applied to its JSON."""
    file = json.loads(path.read_text())
    change(file)
    path.write_text(json.dumps(file))


def test_a_new_file_is_the_owners_alone(path):
    before = os.umask(0)
    try:
        Keyring.create(path)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o600
    assert states(Keyring.load(path)) == ["current"]


def test_a_file_is_never_written_over(path):
    Keyring.create(path)
    content = path.read_bytes()
    with pytest.raises(KeyFileUnfit, match="not written over"):
        Keyring.create(path)
    path.unlink()
    path.symlink_to(path.with_name("nowhere"))
    with pytest.raises(KeyFileUnfit, match="not written over"):
        Keyring.create(path)
    assert content


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o620, 0o601])
def test_other_modes_are_refused_with_the_command_that_mends_them(path, mode):
    Keyring.create(path)
    path.chmod(mode)
    with pytest.raises(KeyFileUnfit, match=f"chmod 600 {path}"):
        Keyring.load(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_another_owner_is_refused(path):
    Keyring.create(path)
    os.chown(path, 12345, -1)
    with pytest.raises(KeyFileUnfit, match=r"Run as the former.*chown"):
        Keyring.load(path)


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (lambda path: path.unlink(), "tillway init"),
        (lambda path: path.write_text(""), "damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-40]), "damaged"),
        (lambda path: path.write_text("[" * 100_000), "damaged"),
        (lambda path: path.write_text(" " * (2 << 20)), "larger than"),
        (lambda path: edited(path, lambda file: file.update(format=2)), "Upgrade"),
        (lambda path: edited(path, lambda file: file.update(keys=[])), "one of them current"),
        (lambda path: edited(path, lambda file: file["keys"].append(file["keys"][0])), "one of them current"),
        (lambda path: edited(path, lambda file: file["keys"][0].update(state="old")), "one of them current"),
        (lambda path: edited(path, lambda file: file["keys"][0].update(key="AAAA")), "32 bytes"),
        (lambda path: edited(path, lambda file: file.update(fingerprint_key="")), "32 bytes"),
    ],
)
def test_a_damaged_file_is_refused_and_shows_nothing(path, damage, says):
    Keyring.create(path)
    secret = json.loads(path.read_text())["root_key"]
    damage(path)
    with pytest.raises(KeyFileUnfit, match=says) as caught:
        Keyring.load(path)
    assert secret not in str(caught.value)


def test_only_a_regular_file_is_a_key_file(path):
    path.mkdir()
    with pytest.raises(KeyFileUnfit, match="regular"):
        Keyring.load(path)
    path.rmdir()
    os.mkfifo(path, 0o600)
    with pytest.raises(KeyFileUnfit, match="regular"):
        Keyring.load(path)


def test_states_of_a_key(path):
    keyring = Keyring.create(path, clock=lambda: 1_700_000_000.5)
    first = keyring.current_id()
    assert keyring.list_keys()[0].created == 1_700_000_000
    with pytest.raises(KeyRefused):
        keyring.retire(first)
    second = keyring.add_kek()
    assert keyring.current_id() == second != first and states(keyring) == ["old", "current"]
    with pytest.raises(KeyRefused):
        keyring.forget(first)
    keyring.retire(first)
    keyring.retire(first)
    assert states(keyring) == ["retired", "current"]
    keyring.forget(first)
    assert [key.id for key in keyring.list_keys()] == [second]
    with pytest.raises(KeyRefused):
        keyring.retire(first)
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_retired_key_opens_and_a_forgotten_one_does_not(path):
    keyring = Keyring.create(path)
    vault = EnvelopeVault(keyring, keyring.fingerprint_key)
    sealed = vault.seal_cvc(SCOPE, "cvc_1", Secret("123"))
    keyring.add_kek()
    keyring.retire(sealed.key_id)
    assert vault.open_cvc(SCOPE, "cvc_1", sealed) == Secret("123")
    keyring.forget(sealed.key_id)
    with pytest.raises(KeyMissing):
        vault.open_cvc(SCOPE, "cvc_1", sealed)


def test_a_running_reader_notices_a_new_key_within_its_second(path):
    Keyring.create(path)
    seconds = Seconds()
    server = Keyring(path, monotonic=seconds)
    first = server.current_id()
    second = Keyring.load(path).add_kek()
    assert server.current_id() == first, "it looks at most once a second"
    seconds.now += CHECK_EVERY_SECONDS
    assert server.current_id() == second


def test_a_record_under_a_key_added_a_moment_ago_opens_at_once(path):
    Keyring.create(path)
    seconds = Seconds()
    server = Keyring(path, monotonic=seconds)
    other = Keyring.load(path)
    other.add_kek()
    sealed = EnvelopeVault(other, other.fingerprint_key).seal_cvc(SCOPE, "cvc_1", Secret("123"))
    opened = EnvelopeVault(server, server.fingerprint_key).open_cvc(SCOPE, "cvc_1", sealed)
    assert opened == Secret("123")


def test_a_running_reader_keeps_its_keys_when_the_file_goes_bad(path):
    seconds = Seconds()
    Keyring.create(path)
    server = Keyring(path, monotonic=seconds)
    key_id = server.current_id()
    for damage in (lambda: path.write_text("{}"), lambda: path.chmod(0o644), lambda: path.unlink()):
        damage()
        seconds.now += CHECK_EVERY_SECONDS
        assert server.current_id() == key_id


def test_derived_keys(path):
    keyring = Keyring.create(path)
    cursor = keyring.derive("pagination_cursor")
    assert len(cursor.reveal()) == 32
    assert cursor == keyring.derive("pagination_cursor") == Keyring.load(path).derive("pagination_cursor")
    assert len({cursor, keyring.derive("client_secret"), keyring.fingerprint_key}) == 3
    keyring.add_kek()
    assert keyring.derive("pagination_cursor") == cursor


def test_what_a_killed_writer_left_is_swept_away(path):
    keyring = Keyring.create(path)
    leftover = path.with_name("keys.json.new")
    leftover.write_text('{"half a')
    keyring.add_kek()
    assert not leftover.exists() and states(Keyring.load(path)) == ["old", "current"]


def test_nothing_shows_a_key(path):
    keyring = Keyring.create(path)
    file = json.loads(path.read_text())
    shown = repr(keyring) + repr(keyring.list_keys()) + repr(keyring.fingerprint_key) + repr(keyring._held.file)
    assert file["root_key"] not in shown and file["keys"][0]["key"] not in shown
    assert repr(keyring.fingerprint_key.reveal()) not in shown


WRITER = """
import sys
from pathlib import Path
from tillway.vault.keyring import Keyring
keyring = Keyring.load(Path(sys.argv[1]))
print("ready", flush=True)
while True:
    old = keyring.current_id()
    keyring.add_kek()
    keyring.retire(old)
    keyring.forget(old)
"""


def test_the_file_is_whole_whenever_its_writers_are_killed(path):
    """Two writers at once, killed after a few milliseconds each: the file loads, and one key is current."""
    Keyring.create(path)
    for milliseconds in (1, 7, 23):
        writers = [
            subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE) for _ in range(2)
        ]
        for writer in writers:
            assert writer.stdout.readline() == b"ready\n"
        time.sleep(milliseconds / 1000)
        for writer in writers:
            writer.send_signal(signal.SIGKILL)
            writer.communicate()
        keyring = Keyring.load(path)
        assert states(keyring).count("current") == 1
        keyring.add_kek()


def test_a_key_that_is_coming_opens_and_seals_nothing_until_it_is_its_turn(path):
    one = Keyring.create(path)
    first = one.current_id()
    coming = one.prepare_kek()
    assert one.prepare_kek() == coming, "of two that prepare, the second finds it done"
    assert states(one) == ["current", "coming"] and one.current_id() == first
    other = Keyring.load(path)
    for change in (one.retire, one.forget):
        with pytest.raises(KeyRefused):
            change(coming)
    assert one.add_kek() == coming and states(one) == ["old", "current"]
    # The other file is as it was copied: it seals as before, and opens what is sealed under the new key.
    key_id, wrapped = one.wrap(b"k" * 32, b"c")
    assert (key_id, other.unwrap(key_id, wrapped, b"c")) == (coming, b"k" * 32)
    assert one.add_kek() != coming and states(one) == ["old", "old", "current"]
