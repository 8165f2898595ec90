"""Client secrets: with a publishable key, each gives access to one object."""

from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.client_secrets import ClientSecrets, Secretive


def check(secrets: ClientSecrets, caller: Caller, subject: Secretive, given: str | None) -> None:
    """Check the secret: a publishable key reaches an object only together with the object's own secret."""
    if given is not None and not secrets.opens(subject, given):
        raise Refused("client_secret_invalid", param="client_secret")
    if caller.publishable and given is None:
        raise Refused(
            "parameter_missing",
            "Missing required param: client_secret. A publishable key needs it.",
            param="client_secret",
        )
