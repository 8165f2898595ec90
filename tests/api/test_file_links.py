"""File links: made, changed, ended, and opened by all who have the address."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from good_calls import MerchantObjects

from tillway.domain.operator import Role
from tillway.testing.in_process import Answer, InProcessApp

PDF = b"%PDF-1.7 a receipt"
ONCE = {"idempotency_key": "one link"}


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(tmp_path)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


async def upload(objects: MerchantObjects, purpose: str = "dispute_evidence", name: str = "a.pdf") -> str:
    data = base64.b64encode(PDF if name == "a.pdf" else b"<script>1</script>").decode()
    return str((await objects.post("/v1/files", purpose=purpose, file={"data": data, "filename": name}))["id"])


async def look(objects: MerchantObjects, url: str) -> Answer:
    return await objects.app.send("GET", urlsplit(url).path)


async def test_all_who_have_the_address_may_download(objects: MerchantObjects) -> None:
    app, file = objects.app, await upload(objects)
    made = [await app.call(objects.merchant, "POST", "/v1/file_links", {"file": file}, **ONCE) for _ in range(2)]
    assert made[0].body == made[1].body
    link = made[0].json
    assert (link["file"], link["expired"], link["expires_at"]) == (file, False, None)
    opened = await look(objects, link["url"])
    assert (opened.status, opened.body, opened.headers["content-type"]) == (200, PDF, "application/pdf")
    assert opened.headers["content-security-policy"] == "default-src 'none'; sandbox"
    for wrong in (link["url"][:-1] + "0", link["url"].replace("link_", "link_0"), "/f/nothing"):
        if wrong != link["url"]:
            assert (await look(objects, wrong)).status == 404
    secret = link["url"][-32:].encode()
    assert not [row.key for row in await app.store.query(None, "", limit=1000) if secret in row.body]

    page = await upload(objects, "business_logo", "logo.html")
    shown = await look(objects, (await objects.post("/v1/file_links", file=page))["url"])
    assert shown.headers["content-type"] == "application/octet-stream"
    assert shown.headers["content-disposition"].startswith("attachment")


async def test_a_file_comes_with_a_link(objects: MerchantObjects) -> None:
    file = {"data": base64.b64encode(PDF).decode(), "filename": "a.pdf"}
    given: dict[str, Any] = {"purpose": "dispute_evidence", "file": file}
    made = await objects.post("/v1/files", **given, file_link_data={"create": True, "metadata": {"for": "Anna"}})
    (link,) = made["links"]["data"]
    assert (link["file"], link["metadata"], made["object"]) == (made["id"], {"for": "Anna"}, "file")
    assert (await look(objects, link["url"])).body == PDF
    assert "links" not in await objects.post("/v1/files", **given, file_link_data={"create": False})
    past = {**given, "file_link_data": {"create": True, "expires_at": 1}}
    wrong = {**given, "purpose": "identity_document", "file_link_data": {"create": True}}
    for params, param in ((past, "file_link_data[expires_at]"), (wrong, "purpose")):
        refused = await objects.app.call(objects.merchant, "POST", "/v1/files", params)
        assert (refused.status, refused.json["error"]["param"]) == (400, param)


async def test_a_link_ends(objects: MerchantObjects) -> None:
    app, file = objects.app, await upload(objects)
    link = await objects.post("/v1/file_links", file=file, metadata={"for": "Anna"})
    path, url = f"/v1/file_links/{link['id']}", link["url"]
    assert (await look(objects, url)).status == 200
    ended = await objects.post(path, expires_at="now", metadata={"for": ""})
    assert (ended["expired"], ended["url"], ended["metadata"]) == (True, None, {})
    assert (await look(objects, url)).status == 404
    shown = await app.ok(objects.merchant, "GET", path, {"expand": ["file"]})
    assert (shown["expired"], shown["file"]["id"]) == (True, file)
    other = (await objects.post("/v1/file_links", file=file))["id"]
    for filters, expected in (({"expired": True}, [link["id"]]), ({"expired": False}, [other])):
        listed = await app.ok(objects.merchant, "GET", "/v1/file_links", {"file": file, **filters})
        assert [one["id"] for one in listed["data"]] == expected

    again = await objects.post(path, expires_at="")
    assert (again["expired"], again["expires_at"], again["url"]) == (False, None, url)
    await objects.post(path, expires_at=app.clock.now_ms() // 1000 + 3600)
    assert (await look(objects, url)).status == 200
    app.clock.ahead_seconds += 3601
    assert (await look(objects, url)).status == 404
    await app.store.purge_expired(now=app.clock.now_ms() // 1000, limit=100)
    assert (await app.ok(objects.merchant, "GET", path))["id"] == link["id"], "it is listed as expired"


async def test_who_may_not_see_a_file_sees_no_link_to_it(objects: MerchantObjects) -> None:
    """A viewer could read the address of a link, and with it the evidence whose contents are kept from viewers."""
    link = (await objects.post("/v1/file_links", file=await upload(objects)))["id"]
    statuses: dict[Role, int] = {"viewer": 403, "support": 200}
    for role, status in statuses.items():
        key = await objects.app.operator(role, objects.merchant.account)
        for path in ("/v1/file_links", f"/v1/file_links/{link}"):
            assert (await objects.app.send("GET", path, key=key)).status == status, (role, path)


async def test_what_a_link_refuses(objects: MerchantObjects) -> None:
    file, private = await upload(objects), await upload(objects, "identity_document")
    link = (await objects.post("/v1/file_links", file=file))["id"]
    past: dict[str, Any] = {"expires_at": 1_700_000_000}
    for path, params, code, param in (
        ("/v1/file_links", {}, "parameter_missing", "file"),
        ("/v1/file_links", {"file": "file_none"}, "resource_missing", "file"),
        ("/v1/file_links", {"file": private}, "parameter_invalid_string", "file"),
        ("/v1/file_links", {"file": file, **past}, "parameter_invalid_integer", "expires_at"),
        (f"/v1/file_links/{link}", past, "parameter_invalid_integer", "expires_at"),
        (f"/v1/file_links/{link}", {"expires_at": "soon"}, "parameter_invalid_integer", "expires_at"),
    ):
        answer = await objects.app.call(objects.merchant, "POST", path, params)
        error = answer.json["error"]
        assert (answer.status, error["code"], error.get("param")) == (400, code, param), (path, params)
