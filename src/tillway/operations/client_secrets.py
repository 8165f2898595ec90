"""Client secrets: with a publishable key, each gives access to one object."""

import hmac

from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller


def check(caller: Caller, expected: str, given: str | None) -> None:
    """Check the secret: a publishable key reaches an object only together with the object's own secret."""
    if given is not None and not hmac.compare_digest(given.encode(), expected.encode()):
        raise Refused("client_secret_invalid", param="client_secret")
    if caller.publishable and given is None:
        raise Refused(
            "parameter_missing",
            "Missing required param: client_secret. A publishable key needs it.",
            param="client_secret",
        )
