"""The places that can hold an installation's keys, by the value of the setting `keys`."""

from pathlib import Path

from tillway.vault.keyring import KeyFile, KeyPlace

SECRET = "secretsmanager:"


def place_of(keys: str, key_file: Path) -> KeyPlace:
    """The place that the setting names; `key_file` is the one in the data directory."""
    if keys == "file":
        return KeyFile(key_file)
    # Imported only here: it brings the client for AWS.
    from tillway.vault.secret import SecretPlace

    return SecretPlace(keys.removeprefix(SECRET))
