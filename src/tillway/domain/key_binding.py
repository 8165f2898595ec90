"""The record that binds a store to its key file."""

from tillway.domain.record import Record

BINDING_ID = "kfb_file"


class KeyBinding(Record, frozen=True, kw_only=True):
    """`digest` follows from the key file's root key, which stays the same for the life of an installation. It tells
    nothing about the key."""

    digest: str
