"""The signature of webhooks: Stripe's scheme, https://docs.stripe.com/webhooks#verify-manually."""

import hmac

from tillway.domain.cards import Secret
from tillway.engine.ids import random_text

SECRET_PREFIX = "whsec_"
SECRET_LENGTH = 32


def new_secret() -> str:
    return SECRET_PREFIX + random_text(SECRET_LENGTH)


def signature_header(payload: bytes, *secrets: Secret[str], now: int) -> str:
    """The value of `Stripe-Signature`: for each secret HMAC-SHA256 over `now` (epoch seconds), a full stop and the
    body. Receivers accept the header if one of the signatures is good.

    The time is that of sending, not of the event: receivers refuse signatures older than five minutes, and a delivery
    may be tried again for three days.
    """
    signed = b"%d." % now + payload
    digests = [hmac.digest(secret.reveal().encode(), signed, "sha256").hex() for secret in secrets]
    return ",".join([f"t={now}", *(f"v1={digest}" for digest in digests)])
