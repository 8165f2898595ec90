"""The keys as a secret of AWS Secrets Manager: the same document as the key file, under a key of KMS.

A process reads it once, again for a key id that it does not know, and every quarter of an hour while it seals. No card
costs a call.

Two writers never overwrite each other. Secrets Manager accepts one content for each `ClientRequestToken` (API reference
of PutSecretValue), and the token of a change follows from the version that it replaces.
"""

import hashlib
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Final

from tillway.aws_client import SECRETS, AwsError, Lost, NoCredentials, call_and_wait
from tillway.vault.keyring import KeyFileUnfit, Stamp
from tillway.vault.port import KeyRefused

FIRST: Final = "first"
_EMPTY: Final = (
    "is empty. Make the keys with `tillway init`, or those of a stage with the action `init` of its admin function."
)


class SecretPlace:
    """The secret with that name or ARN, in the region of AWS_REGION. It exists, and is empty before `create`."""

    check_every_seconds = 900.0

    def __init__(self, name: str) -> None:
        self._name = name
        self._version = FIRST

    def __str__(self) -> str:
        return f"the secret {self._name}"

    def read(self, known: Stamp = ()) -> tuple[bytes, Stamp] | None:
        try:
            answer = self._call("GetSecretValue", {"SecretId": self._name})
        except AwsError as error:
            if error.code == "ResourceNotFoundException":
                raise KeyFileUnfit(f"{self} does not exist or {_EMPTY}") from None
            raise KeyFileUnfit(f"{self} cannot be read: {error}") from None
        self._version = str(answer["VersionId"])
        document = answer.get("SecretString")
        if not document:
            raise KeyFileUnfit(f"{self} {_EMPTY}")
        stamp = (self._version,)
        return None if stamp == known else (str(document).encode(), stamp)

    def create(self, document: bytes) -> None:
        # Tried before it is written, for a good message; of two that come here at once, one is refused below.
        try:
            self.read()
        except KeyFileUnfit as unfit:
            if _EMPTY not in str(unfit):
                raise
        else:
            raise KeyFileUnfit(f"{self} has keys already, and is not written over.")
        try:
            self.replace(document)
        except KeyRefused:
            raise KeyFileUnfit(f"{self} has keys already, and is not written over.") from None

    def changing(self) -> AbstractContextManager[None]:
        return nullcontext()

    def replace(self, document: bytes) -> None:
        token = hashlib.sha256(f"{self._name} {self._version}".encode()).hexdigest()[:32]
        request = {"SecretId": self._name, "ClientRequestToken": token, "SecretString": document.decode()}
        try:
            self._call("PutSecretValue", request)
        except AwsError as error:
            if error.code == "ResourceExistsException":
                raise KeyRefused("The keys were changed by another process at the same moment. Try again.") from None
            raise KeyFileUnfit(f"{self} cannot be written: {error}") from None

    def _call(self, operation: str, request: dict[str, Any]) -> dict[str, Any]:
        try:
            return call_and_wait(SECRETS, operation, request)
        except (Lost, NoCredentials) as away:
            raise KeyFileUnfit(f"{self} cannot be reached: {away}") from None
