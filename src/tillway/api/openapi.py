"""`/openapi.json` and `/openapi/<dialect>.json`: the OpenAPI documents of this server."""

from functools import cache

import msgspec

from tillway.domain.refusal import Refused
from tillway.domain.source_api import SourceApi
from tillway.http.openapi import dialect_document, document
from tillway.http.routes import DIALECT_ROUTES, Answer, Call, Plain, route


@route("GET", "/openapi.json", returns="document", access="anyone")
async def openapi(call: Call) -> Answer:
    """Retrieve this document."""
    return Plain(200, _encode_document())


@route("GET", "/openapi/{dialect}", returns="document", access="anyone")
async def openapi_of(call: Call) -> Answer:
    """Retrieve the document of a dialect."""
    name = call.id.removesuffix(".json")
    if name in _OLD_NAMES:
        return Plain(301, b"", headers=(("location", f"/openapi/{_OLD_NAMES[name]}.json"),))
    found = next((entry.dialect for entry in DIALECT_ROUTES if entry.dialect and entry.dialect.name == name), None)
    if found is None:
        raise Refused("resource_missing", f"No such dialect: '{name[:100]}'", param="dialect")
    return Plain(200, msgspec.json.encode(dialect_document(found)))


_OLD_NAMES = {
    api.value: api.name for api in (SourceApi.token_charge, SourceApi.online_platform, SourceApi.disbursements)
}
"""The names by which the first releases served three of the documents."""


@cache
def _encode_document() -> bytes:
    return msgspec.json.encode(document())
