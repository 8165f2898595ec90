"""Client secrets: derived from a key of the key file and the object's id, and stored nowhere.

A stored answer holds a mark in the place of each secret, and the secret is written in again when the answer is
replayed. The signing secret of a new webhook endpoint and that of an ephemeral key, which are random, stand encrypted
in their marks. A mark contains
`\\/`, an escape that JSON allows and this program's encoder never writes: text of a caller cannot become a mark,
because the encoder doubles a caller's backslash.
"""

import base64
import hashlib
import hmac
import os
import re

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tillway.domain.cards import Secret
from tillway.domain.checkout import CheckoutSession
from tillway.domain.customer_session import CustomerSession
from tillway.domain.file_link import FileLink
from tillway.domain.late_pattern import late_pattern
from tillway.domain.payment_intent import PaymentIntent
from tillway.domain.payment_method import PaymentMethod
from tillway.domain.setup_intent import SetupIntent

CLIENT_SECRETS_PURPOSE = "client_secret"
"""The key's purpose at `Keyring.derive`."""

Subject = PaymentIntent | SetupIntent

Secretive = Subject | PaymentMethod
"""The objects with a client secret; of the payment methods, the Sources."""

_SECRET_BYTES = 16
_ID_MAX = 64
"""Longest id before a secret, in bytes, with room to spare: ids have at most 22."""

_SHOWN_MAX = 64
"""A secret with the words before it and the character behind it is shorter than this, in bytes."""

_CHALLENGES = "/3ds/"
_MARK = rb"\/derived\/"
_OWNER = rb"((?:pi|dpi|seti|src|ch|cs|cuss|link)_[0-9A-Za-z]+)(_secret_|\?secret=)"
_shown = re.compile(_OWNER + rb"([0-9a-f]{%d})(?![0-9A-Za-z])" % (2 * _SECRET_BYTES))
_marked = late_pattern(_OWNER + re.escape(_MARK))

_SIGNING = b"whsec_"
_IN_EPHEMERAL = b'"secret":"ek_'
_SEALED_MARK = rb"\/sealed\/"
_shown_random = late_pattern(rb"(?:(whsec_)[0-9A-Za-z]{32}|(ek_)(?:test|live)_[0-9A-Za-z]{48})(?![0-9A-Za-z])")
_sealed_random = late_pattern(rb"(whsec_|ek_)" + re.escape(_SEALED_MARK) + rb"([0-9A-Za-z_=-]+)")
_NONCE_BYTES = 12


class ClientSecrets:
    """`ClientSecrets(keyring.derive(CLIENT_SECRETS_PURPOSE))`. The rotation of the vault's keys does not change it."""

    def __init__(self, key: Secret[bytes]) -> None:
        # Every answer about a payment has a secret: a copy of a digest that has the key takes a third less.
        self._keyed = hashlib.blake2b(key=key.reveal(), digest_size=_SECRET_BYTES)
        self._cipher = AESGCM(hashlib.blake2b(b"stored answers", key=key.reveal(), digest_size=32).digest())

    def of(self, subject: Secretive) -> str:
        """The client secret, as the API shows it."""
        id: str = subject.id
        # Objects made before secrets were derived have their own; a payment method never has.
        own: str | None = getattr(subject, "secret", None)
        if own:
            return f"{id}_secret_{own}"
        digest = self._keyed.copy()  # As `_derive` does: every answer about a payment comes here.
        digest.update(id.encode())
        return f"{id}_secret_{digest.hexdigest()}"

    def opens(self, subject: Secretive, given: str) -> bool:
        """Whether `given` is the client secret of `subject`; compared in constant time."""
        return hmac.compare_digest(given.encode(), self.of(subject).encode())

    def opens_challenge(self, subject: Subject, given: str) -> bool:
        """Whether `given` is the secret in the address of the challenge page of `subject`."""
        return hmac.compare_digest(given.encode(), self._part(subject).encode())

    def page_of(self, record: CheckoutSession | CustomerSession | FileLink) -> str:
        """The record's id with its secret: in the address of its page, or the client secret of a customer session."""
        return f"{record.id}_secret_{self._derive(record.id.encode())}"

    def opens_page(self, id: str, secret: str) -> bool:
        """Whether `secret` opens the session or the page of the file link `id`; compared in constant time."""
        return hmac.compare_digest(secret.encode(), self._derive(id.encode()).encode())

    def return_secret(self, subject: Subject) -> str:
        """The secret in the address of the page to which a provider sends the customer back: it opens nothing else."""
        return self._derive(f"return of {subject.id}".encode())

    def opens_return(self, subject: Subject, given: str) -> bool:
        """Whether `given` is `return_secret` of the subject; compared in constant time."""
        return hmac.compare_digest(given.encode(), self.return_secret(subject).encode())

    def receipt(self, charge: str) -> str:
        """The secret in the address of the receipt of the charge with that id."""
        return self._derive(charge.encode())

    def receipt_path(self, scope_key: str, charge: str) -> str:
        """The address of that receipt, below the public one."""
        return f"/receipts/{scope_key}/{charge}?secret={self.receipt(charge)}"

    def opens_receipt(self, charge: str, given: str) -> bool:
        """Whether `given` is `receipt` of the charge; compared in constant time."""
        return hmac.compare_digest(given.encode(), self.receipt(charge).encode())

    def challenge(self, subject: Subject) -> str | None:
        """The address of the challenge that waits. Our own page's is stored without its secret; a provider's page is
        left as it is."""
        address = subject.challenge
        if address is None or not address.endswith(f"/{subject.id}") or _CHALLENGES not in address:
            return address
        return f"{address}?secret={self._part(subject)}"

    def way_back(self, subject: Subject) -> str | None:
        """The address to which the payer comes back; None where there is none. That of a page of hosted checkout is
        stored without its secret, for those who may look at the payment and not pay for the payer."""
        address = subject.return_url
        session = subject.checkout if isinstance(subject, PaymentIntent) else None
        if address is None or session is None or not address.endswith(f"-{session}"):
            return address
        return f"{address}_secret_{self._derive(session.encode())}"

    def conceal(self, body: bytes) -> bytes:
        """An answer (JSON) as it is stored: with a mark in the place of each secret."""
        # Only around each place where a secret may stand: a search of the whole answer would cost more than a payment's
        # other work on its answer.
        for between in (b"_secret_", b"?secret="):
            place = body.find(between)
            while place != -1:
                found = _shown.search(body, max(place - _ID_MAX, 0), place + _SHOWN_MAX)
                if found is not None:
                    head, tail = body[: found.start()], body[found.end() :]
                    body = head + self._mark(found) + tail
                place = body.find(between, place + len(between))
        return _shown_random.sub(self._seal, body) if _SIGNING in body or _IN_EPHEMERAL in body else body

    def write_in(self, body: bytes) -> bytes:
        """A stored answer as it is sent: with its secrets."""
        if _SEALED_MARK in body:
            body = _sealed_random.sub(self._open, body)
        return _marked.sub(self._write, body) if _MARK in body else body

    def _part(self, subject: Secretive) -> str:
        return self.of(subject).removeprefix(f"{subject.id}_secret_")

    def text_secret(self, text: str) -> str:
        """A secret that belongs to a text of the server's own, which is no id: 32 hexadecimal digits."""
        return self._derive(text.encode())

    def _derive(self, id: bytes) -> str:
        digest = self._keyed.copy()
        digest.update(id)
        return digest.hexdigest()

    def _mark(self, found: re.Match[bytes]) -> bytes:
        id, between, secret = found.groups()
        return id + between + (_MARK if hmac.compare_digest(secret, self._derive(id).encode()) else secret)

    def _write(self, found: re.Match[bytes]) -> bytes:
        id, between = found.groups()
        return id + between + self._derive(id).encode()

    def _seal(self, found: re.Match[bytes]) -> bytes:
        nonce, head = os.urandom(_NONCE_BYTES), found.group(1) or found.group(2)
        sealed = nonce + self._cipher.encrypt(nonce, found.group(), head)
        return head + _SEALED_MARK + base64.urlsafe_b64encode(sealed)

    def _open(self, found: re.Match[bytes]) -> bytes:
        sealed = base64.urlsafe_b64decode(found.group(2))
        return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], found.group(1))
