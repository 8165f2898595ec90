"""Files that a merchant uploads, as evidence in disputes for instance."""

import hashlib
from typing import Final

from tillway.domain.record import Changes, EventDraft, Moment, Record
from tillway.domain.refusal import Refused

CHUNK_BYTES: Final = 192 * 1024
"""The bytes of a file in one record: DynamoDB takes items of up to 400 KiB, and base64 adds a third."""

EVIDENCE: Final = "dispute_evidence"

_TYPES: Final = ((b"%PDF-", "pdf"), (b"\xff\xd8\xff", "jpg"), (b"\x89PNG\r\n\x1a\n", "png"))
"""The first bytes of the types that banks take as evidence."""


class File(Record, frozen=True, kw_only=True):
    """An uploaded file. Its bytes are in `chunks` further records; `digest` is their SHA-256 in hexadecimal."""

    purpose: str
    size: int
    chunks: int
    digest: str
    filename: str | None = None
    type: str | None = None


class FileChunk(Record, frozen=True, kw_only=True):
    """A part of a file's bytes."""

    content: bytes


def chunk_id(file: str, number: int) -> str:
    return f"fchk_{file.partition('_')[2]}{number:02}"


def upload(content: bytes, filename: str | None, purpose: str, at: Moment) -> Changes[File]:
    """Keep a file. Evidence is a PDF, JPEG or PNG file, as at Stripe (https://docs.stripe.com/file-upload)."""
    if not content:
        raise Refused("parameter_invalid_empty", "The file is empty.", param="file")
    type = next((name for start, name in _TYPES if content.startswith(start)), None)
    if type is None and purpose == EVIDENCE:
        raise Refused(
            "parameter_invalid_string", "Evidence is a PDF, JPEG or PNG file; this file is none of them.", param="file"
        )
    pieces = [content[start : start + CHUNK_BYTES] for start in range(0, len(content), CHUNK_BYTES)]
    file = File(
        id=at.new_id("file"),
        created=at.created,
        purpose=purpose,
        size=len(content),
        chunks=len(pieces),
        digest=hashlib.sha256(content).hexdigest(),
        filename=filename,
        type=type or _extension(filename),
    )
    chunks = [
        FileChunk(id=chunk_id(file.id, number), created=at.created, content=piece)
        for number, piece in enumerate(pieces)
    ]
    return Changes(result=file, records=(file, *chunks), events=(EventDraft(type="file.created", record=file),))


def _extension(filename: str | None) -> str | None:
    extension = (filename or "").rpartition(".")[2].lower() if "." in (filename or "") else ""
    return extension if extension.isalnum() and extension.isascii() and len(extension) <= 8 else None
