"""File links: parameters, calls and shape, and the address itself."""

import re
from typing import Any

from msgspec import UNSET

from tillway.domain.account import scope_of
from tillway.domain.commands import UpdateFileLink
from tillway.domain.file import File
from tillway.domain.file_link import FileLink
from tillway.domain.refusal import Refused
from tillway.http.lists import list_page
from tillway.http.params import (
    Boolean,
    Created,
    Expand,
    Id,
    KnownParams,
    Metadata,
    Parameter,
    Params,
    Timestamp,
    list_params,
)
from tillway.http.routes import Answer, Call, Plain, route
from tillway.http.shapes import View, shape
from tillway.operations import files


class End(Parameter):
    """A time in epoch seconds, "now", or empty for no end."""

    _time = Timestamp(unsettable=True)

    def read(self, value: Any, name: str) -> int | str | None:
        return "now" if value == "now" else self._time.read(value, name)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [{"type": "string", "enum": ["", "now"]}, self._time.schema()]}


CREATE = Params(expand=Expand(), expires_at=Timestamp(), file=Id(required=True), metadata=Metadata())
UPDATE = Params(expand=Expand(), expires_at=End(), metadata=Metadata())
EXPAND_ONLY = Params(expand=Expand())
LIST = list_params(created=Created(), expired=Boolean(), file=Id())
LOOK = KnownParams()

_ADDRESS = re.compile(r"([0-9A-Za-z]{16}[tl])-(link_[0-9A-Za-z]{17})_secret_([0-9a-f]{32})")

_TYPES = {"jpg": "image/jpeg", "pdf": "application/pdf", "png": "image/png"}
"""The files that a browser may show. It must download every other one: a merchant can upload a page with a script."""


@route("POST", "/v1/file_links", CREATE, returns="file_link")
async def create(call: Call) -> Answer:
    """Create a link, at which all who have it may download a file."""
    params = call.params
    return await files.create_link(
        call.platform, call.caller, params["file"], params.get("expires_at"), params.get("metadata")
    )


@route("GET", "/v1/file_links", LIST, returns="list", of="file_link")
async def list_links(call: Call) -> Answer:
    """List file links, newest first."""
    params, now = call.params, call.platform.engine.clock.now_ms() // 1000
    if "file" in params:
        await call.platform.engine.load(call.caller.scope_key).get(File, params["file"], "file")

    def keep(link: FileLink) -> bool:
        return params.get("file") in (None, link.file) and params.get("expired") in (None, link.has_expired(now))

    return await list_page(call, "link", keep=keep, noun="file link")


@route("GET", "/v1/file_links/{id}", EXPAND_ONLY, returns="file_link")
async def retrieve(call: Call) -> Answer:
    """Retrieve a file link."""
    return await call.platform.engine.load(call.caller.scope_key).get(FileLink, call.id)


@route("POST", "/v1/file_links/{id}", UPDATE, returns="file_link")
async def update(call: Call) -> Answer:
    """Change the end and the metadata of a file link."""
    command = UpdateFileLink(
        expires_at=call.params.get("expires_at", UNSET), metadata=call.params.get("metadata", UNSET)
    )
    return await files.update_link(call.platform, call.caller, call.id, command)


@route("GET", "/f/{link}", LOOK, returns="file_contents", access="anyone")
async def download(call: Call) -> Answer:
    """Download the file of a link that has not expired, without a key."""
    match = _ADDRESS.fullmatch(call.id)
    if match is None:
        raise Refused("resource_missing", param="link")
    scope, id, engine = scope_of(match[1]), match[2], call.platform.engine
    if not engine.client_secrets.opens_page(id, match[3]):
        raise Refused("resource_missing", param="link")
    assert call.guard is not None, "calls that need no key have their guard"
    call.guard.count_page(id, call.caller.client_ip)
    link = await engine.load(scope.key).maybe(FileLink, id)
    if link is None or link.has_expired(engine.clock.now_ms() // 1000):
        raise Refused("resource_missing", "This link has expired.", param="link")
    file, content = await files.read(call.platform, scope.key, link.file)
    kind = _TYPES.get(file.type or "")
    named = f"{file.id}.{file.type}" if file.type else file.id
    headers = (
        ("content-disposition", f'{"inline" if kind else "attachment"}; filename="{named}"'),
        ("content-security-policy", "default-src 'none'; sandbox"),
        ("cache-control", "no-store"),
        ("referrer-policy", "no-referrer"),
        ("x-robots-tag", "noindex"),
    )
    return Plain(200, content, kind or "application/octet-stream", headers)


@shape(FileLink, expandable="file")
def link_shape(link: FileLink, view: View) -> dict[str, Any]:
    expired = link.has_expired(view.now)
    return {
        "id": link.id,
        "object": "file_link",
        "created": link.created,
        "expired": expired,
        "expires_at": link.expires_at,
        "file": link.file,
        "livemode": view.livemode,
        "metadata": link.metadata,
        "url": None if expired else f"{view.base_url}/f/{view.scope_key}-{view.client_secrets.page_of(link)}",
    }
