"""Operations on uploaded files: keep one, read it back, and check those that evidence names."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tillway.domain import file as domain
from tillway.domain import file_link
from tillway.domain.commands import UpdateFileLink
from tillway.domain.file import EVIDENCE, File, FileChunk, chunk_id
from tillway.domain.file_link import FileLink, LinkedFile, NewLink
from tillway.domain.record import Changes, Moment
from tillway.domain.refusal import Refused
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.platform import Platform


async def upload(
    platform: Platform,
    caller: Caller,
    content: bytes,
    filename: str | None,
    purpose: str,
    wanted: NewLink | None = None,
) -> Done[File | LinkedFile]:
    """Keep a file, in one commit with the link that is wanted."""

    async def work(load: Load, at: Moment) -> Changes[File | LinkedFile]:
        kept = domain.upload(content, filename, purpose, at)
        if wanted is None:
            return kept
        file, params = kept.result, ("purpose", "file_link_data[expires_at]")
        linked = file_link.create(file, wanted.expires_at, wanted.metadata, at, params=params)
        shown = LinkedFile(id=file.id, created=file.created, file=file, link=linked.result)
        return kept.then(Changes(result=shown, records=linked.records))

    return await platform.engine.run(caller, work)


async def read(platform: Platform, scope_key: str, id: str) -> tuple[File, bytes]:
    """The file of that id, with its bytes."""
    load = platform.engine.load(scope_key)
    file = await load.get(File, id)
    if not file.chunks:
        raise Refused("resource_missing", f"The bytes of the file {id} were removed by a redaction.", param="id")
    chunks = [await load.get(FileChunk, chunk_id(id, number)) for number in range(file.chunks)]
    return file, b"".join(chunk.content for chunk in chunks)


async def create_link(
    platform: Platform, caller: Caller, file: str, expires_at: int | None, metadata: dict[str, str | None] | None
) -> Done[FileLink]:
    async def work(load: Load, at: Moment) -> Changes[FileLink]:
        return file_link.create(await load.get(File, file, "file"), expires_at, metadata, at)

    return await platform.engine.run(caller, work)


async def update_link(platform: Platform, caller: Caller, id: str, command: UpdateFileLink) -> Done[FileLink]:
    async def work(load: Load, at: Moment) -> Changes[FileLink]:
        return file_link.update(await load.get(FileLink, id), command, at)

    return await platform.engine.run(caller, work)


async def check_evidence(load: Load, evidence: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Raise `Refused` for a member of `names` in `evidence` that is not the id of a file for evidence."""
    for name in names:
        id = evidence.get(name)
        if id is None:
            continue
        param = f"evidence[{name}]"
        file = await load.get(File, id, param)
        if file.purpose != EVIDENCE:
            raise Refused(
                "parameter_invalid_string",
                f"The file {id} has the purpose {file.purpose}. Upload it with the purpose {EVIDENCE}.",
                param=param,
            )
