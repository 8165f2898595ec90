"""A copy of the audit trail and the ledger, as a command names it: a bucket of S3, or a directory."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tillway.cli.terminal import WrongUsage, fail

if TYPE_CHECKING:
    from tillway.engine.audit.ledger_copies import Bucket


@asynccontextmanager
async def opened_copy(place: str) -> "AsyncIterator[Bucket]":
    """The copy at `s3://NAME`, or in a directory. Ends the command where it cannot be read."""
    from tillway.aws_client import OBJECTS, AwsError, Lost, NoCredentials, client_of
    from tillway.engine.audit.copies import Directory

    if "://" not in place:
        if not Path(place).is_dir():
            raise WrongUsage(f"--copy {place} is no directory, and no bucket (s3://NAME)")
        yield Directory(Path(place))
        return
    bucket = place.removeprefix("s3://").rstrip("/")
    if not place.startswith("s3://") or not bucket or "/" in bucket:
        raise WrongUsage(f"--copy {place} is no bucket; write s3://NAME, or a directory")
    try:
        client = client_of(OBJECTS)
    except NoCredentials as none:
        raise WrongUsage(f"--copy: {none}") from None

    class Objects:
        async def names(self, prefix: str) -> list[str]:
            return await client.names(bucket, prefix)

        async def fetch(self, name: str) -> bytes | None:
            return await client.fetch(f"/{bucket}/{name}")

    try:
        yield Objects()
    except (AwsError, Lost) as failed:
        raise fail(f"The bucket {bucket} cannot be read: {failed}") from None
    finally:
        await client.close()
