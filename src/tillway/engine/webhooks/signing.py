"""The signature of webhooks: Stripe's scheme, https://docs.stripe.com/webhooks#verify-manually."""

import hashlib
import hmac

from tillway.domain.cards import Secret
from tillway.engine.ids import random_text

SECRET_PREFIX = "whsec_"
SECRET_LENGTH = 32


def new_secret() -> str:
    return SECRET_PREFIX + random_text(SECRET_LENGTH)


def signature_header(payload: bytes, secret: Secret[str], *, now: int) -> str:
    """The value of `Stripe-Signature`: HMAC-SHA256 over `now` (epoch seconds), a full stop and the body.

    The time is that of sending, not of the event: receivers refuse signatures older than five minutes, and a delivery
    may be tried again for three days.
    """
    digest = hmac.new(secret.reveal().encode(), b"%d." % now + payload, hashlib.sha256).hexdigest()
    return f"t={now},v1={digest}"
