"""Files: parameters, calls and shape."""

import base64
import binascii
from typing import Any

from tillway.domain.file import File
from tillway.domain.file_link import LinkedFile, NewLink
from tillway.domain.refusal import Refused
from tillway.http.lists import list_page
from tillway.http.params import (
    Boolean,
    Created,
    Enum,
    Expand,
    Metadata,
    Object,
    Parameter,
    Params,
    Text,
    Timestamp,
    list_params,
)
from tillway.http.routes import Answer, Call, Plain, route
from tillway.http.shapes import View, render_record, shape
from tillway.http.wire import BODY_BYTES_MAX, quote
from tillway.operations import files

PURPOSES = (
    "account_requirement",
    "additional_verification",
    "business_icon",
    "business_logo",
    "customer_signature",
    "dispute_evidence",
    "identity_document",
    "pci_document",
    "tax_document_user_upload",
)


class FileData(Parameter):
    """The bytes of a file in base64; a multipart body has them as they are."""

    def read(self, value: Any, name: str) -> bytes:
        if type(value) is str:
            try:
                return base64.b64decode(value, validate=True)
            except (binascii.Error, ValueError):
                pass
        raise Refused("parameter_invalid_string", "Send the bytes of the file in base64.", param=quote(name))

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "contentEncoding": "base64", "maxLength": BODY_BYTES_MAX}


CREATE = Params(
    file=Object(data=FileData(required=True), filename=Text(maximum=255), required=True),
    purpose=Enum(*PURPOSES, required=True),
    expand=Expand(),
    file_link_data=Object(create=Boolean(required=True), expires_at=Timestamp(), metadata=Metadata()),
)
LIST = list_params(created=Created(), purpose=Enum(*PURPOSES))
EXPAND_ONLY = Params(expand=Expand())


@route("POST", "/v1/files", CREATE, returns="file")
async def create(call: Call) -> Answer:
    """Upload a file of at most 1 MiB, as multipart/form-data, and make a link to it if `file_link_data` says so."""
    given, wanted = call.params["file"], call.params.get("file_link_data") or {}
    link = NewLink(expires_at=wanted.get("expires_at"), metadata=wanted.get("metadata"))
    return await files.upload(
        call.platform,
        call.caller,
        given["data"],
        given.get("filename"),
        call.params["purpose"],
        link if wanted.get("create") else None,
    )


@route("GET", "/v1/files", LIST, returns="list", of="file")
async def list_files(call: Call) -> Answer:
    """List files, newest first."""
    purpose = call.params.get("purpose")
    keep = (lambda file: file.purpose == purpose) if purpose else None
    return await list_page(call, "file", keep=keep, noun="file")


@route("GET", "/v1/files/{id}", EXPAND_ONLY, returns="file")
async def retrieve(call: Call) -> Answer:
    """Retrieve a file's facts."""
    return await call.platform.engine.load(call.caller.scope_key).get(File, call.id)


@route("GET", "/v1/files/{id}/contents", returns="bytes")
async def contents(call: Call) -> Answer:
    """Retrieve the bytes of a file."""
    file, content = await files.read(call.platform, call.caller.scope_key, call.id)
    # A browser must download it and show nothing, since a merchant can upload a page with a script.
    named = f"{file.id}.{file.type}" if file.type else file.id
    headers = (("content-disposition", f'attachment; filename="{named}"'), ("cache-control", "no-store"))
    return Plain(200, content, "application/octet-stream", headers)


@shape(LinkedFile, object="file")
def linked_file_shape(reading: LinkedFile, view: View) -> dict[str, Any]:
    links = {
        "object": "list",
        "data": [render_record(reading.link, view)],
        "has_more": False,
        "url": f"/v1/file_links?file={reading.id}",
    }
    return {**file_shape(reading.file, view), "links": links}


@shape(File)
def file_shape(file: File, view: View) -> dict[str, Any]:
    return {
        "id": file.id,
        "object": "file",
        "created": file.created,
        "expires_at": None,
        "filename": file.filename,
        "purpose": file.purpose,
        "size": file.size,
        "title": None,
        "type": file.type,
        "url": f"{view.base_url}/v1/files/{file.id}/contents",
    }
