"""The supported API versions and their differences."""

import re
from typing import Any

from tillway.domain.refusal import Refused

CURRENT = "2026-10-28.endive"

_VERSION = re.compile(r"\d{4}-\d{2}-\d{2}(\.[a-z]+)?\Z")


def check_version(header: str | None) -> str | None:
    """Return the version that a request names; None if it names none, so that the older, more lenient rules apply."""
    if header is None:
        return None
    if not _VERSION.match(header):
        raise Refused(
            "api_version_invalid",
            f"Invalid Stripe API version. Send a date such as {CURRENT}, or leave the Stripe-Version header out.",
            param="Stripe-Version",
        )
    return header


def check_parameters(raw: dict[str, Any], version: str | None) -> None:
    """Refuse `payment_method_types` in `2026-10-28.endive`, which renamed it. Older versions and requests without one
    keep it."""
    if version is not None and version >= CURRENT and "payment_method_types" in raw:
        raise Refused(
            "parameter_unknown",
            "Received unknown parameter: payment_method_types. Since this API version it is called "
            "allowed_payment_method_types.",
            param="payment_method_types",
        )
