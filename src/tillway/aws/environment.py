"""The environment of the functions: settings as everywhere, and a few variables of their own."""

import os
from collections.abc import Mapping
from typing import Final

import msgspec

from tillway.settings import Settings, SettingsInvalid, load

DEFAULTS: Final = {
    # API Gateway gives up after 30 seconds. No process extends a lease while it is frozen, so a lease is longer than
    # the longest request: it waits `answer_within_seconds`, and one time-out more.
    "TILLWAY_LEASE_SECONDS": "40",
    "TILLWAY_ANSWER_WITHIN_SECONDS": "20",
    "TILLWAY_LOG_FORMAT": "json",
    "TILLWAY_DATA_DIR": "/tmp/tillway",
    # No function listens on it. An address other than loopback says that callers come from outside.
    "TILLWAY_HOST": "0.0.0.0",
}
"""Settings of every function, unless its environment has others."""

PRIVATE_NETWORKS: Final = "127.0.0.0/8,::1/128,10.0.0.0/8,172.16.0.0/12,192.168.0.0/16,fc00::/7"
"""Addresses for `TILLWAY_PRIVATE_ADDRESSES=allow`: not those of a host's own services, such as 169.254.169.254."""


class Function(msgspec.Struct, frozen=True, kw_only=True):
    """The variables that only functions have. Texts are empty where there is nothing of the kind."""

    stage: str = ""
    queue_url: str = ""
    state_machine: str = ""
    audit_bucket: str = ""


def settings_of(environment: Mapping[str, str] | None = None) -> Settings:
    """The settings in force. Raises `SettingsInvalid`."""
    given = os.environ if environment is None else environment
    merged = {**DEFAULTS, **given}
    addresses = merged.get("TILLWAY_PRIVATE_ADDRESSES", "refuse")
    if addresses not in ("allow", "refuse"):
        raise SettingsInvalid(f"private_addresses in the environment is {addresses!r}; it must be one of allow, refuse")
    if addresses == "allow":
        # Functions let connectors reach these networks too, and no other private ones.
        named = merged.get("TILLWAY_WEBHOOK_NETWORKS")
        merged["TILLWAY_WEBHOOK_NETWORKS"] = f"{named},{PRIVATE_NETWORKS}" if named else PRIVATE_NETWORKS
    return load({}, merged)


def function_of(environment: Mapping[str, str] | None = None) -> Function:
    given = os.environ if environment is None else environment
    return Function(**{name: given.get(f"TILLWAY_{name.upper()}", "") for name in Function.__struct_fields__})
