"""File links: addresses at which all who have them may download a file."""

from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from tillway.domain.commands import UpdateFileLink
from tillway.domain.file import EVIDENCE, File
from tillway.domain.record import Changes, Moment, Reading, Record, Value, changed, merged_metadata
from tillway.domain.refusal import Refused

LINKABLE: Final = (
    "business_icon",
    "business_logo",
    "customer_signature",
    EVIDENCE,
    "pci_document",
    "tax_document_user_upload",
)
"""The purposes of files that may have links (https://docs.stripe.com/api/file_links/create, `file`)."""


class FileLink(Record, frozen=True, kw_only=True):
    """An address of `file`; it ends at `expires_at` (epoch seconds), or never where that is None."""

    file: str
    expires_at: int | None = None
    metadata: dict[str, str] = {}

    def has_expired(self, now: int) -> bool:
        return self.expires_at is not None and self.expires_at <= now


class NewLink(Value, frozen=True, kw_only=True):
    """A link to be made together with its file."""

    expires_at: int | None = None
    metadata: dict[str, str | None] | None = None


class LinkedFile(Reading, frozen=True, kw_only=True):
    """A file as the answer shows it that has made it together with a link."""

    file: File
    link: FileLink


def create(
    file: File,
    expires_at: int | None,
    metadata: dict[str, str | None] | None,
    at: Moment,
    *,
    params: tuple[str, str] = ("file", "expires_at"),
) -> Changes[FileLink]:
    """Make an address of `file`. Refused for a purpose that is not in LINKABLE, and for an end that is past: `params`
    are the parameters that say them."""
    if file.purpose not in LINKABLE:
        raise Refused(
            "parameter_invalid_string",
            f"The file {file.id} has the purpose {file.purpose}. Links are for {', '.join(LINKABLE)}.",
            param=params[0],
        )
    _check_end(expires_at, at, params[1])
    link = FileLink(
        id=at.new_id("link"),
        created=at.created,
        file=file.id,
        expires_at=expires_at,
        metadata=merged_metadata({}, metadata),
    )
    return Changes(result=link, records=(link,))


def update(link: FileLink, command: UpdateFileLink, at: Moment) -> Changes[FileLink]:
    """Change the end and the metadata of a link. An end of "now" ends it at once."""
    expires_at: int | UnsetType | None
    match command.expires_at:
        case "now":
            expires_at = at.now
        case str():
            raise AssertionError(f"{command.expires_at!r} is no end of a link")
        case given:
            _check_end(None if given is UNSET else given, at)
            expires_at = given
    after = changed(link, {} if command.metadata is UNSET else {"metadata": command.metadata})
    if expires_at is not UNSET:
        after = msgspec.structs.replace(after, expires_at=expires_at)
    return Changes(result=after, records=(after,) if after != link else ())


def _check_end(expires_at: int | None, at: Moment, param: str = "expires_at") -> None:
    if expires_at is not None and expires_at <= at.now:
        raise Refused("parameter_invalid_integer", f"`{param}` must be in the future.", param=param)
