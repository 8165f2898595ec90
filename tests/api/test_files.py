"""Files: uploads as SDKs send them, and evidence that names them."""

import base64
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from good_calls import PNG, MerchantObjects

from tillway.testing.in_process import Answer, InProcessApp

PDF = b"%PDF-1.7\n" + bytes(range(256)) * 3000
"""Some 750 KiB, and with every byte: more than one record holds."""

TYPE = 'multipart/form-data; boundary="b-1"'


@pytest.fixture
async def objects(tmp_path: Path) -> AsyncIterator[MerchantObjects]:
    app = await InProcessApp.open(tmp_path)
    yield MerchantObjects(app, await app.merchant())
    await app.close()


def multipart(content: bytes, *, purpose: str = "dispute_evidence", filename: str = "receipt.pdf") -> bytes:
    head = (
        f'--b-1\r\nContent-Disposition: form-data; name="purpose"\r\n\r\n{purpose}\r\n'
        f'--b-1\r\nContent-Disposition: form-data; name="file"; filename="{filename}"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    return head.encode() + content + b"\r\n--b-1--\r\n"


async def send(objects: MerchantObjects, body: bytes, content_type: str = TYPE, **headers: str) -> Answer:
    return await objects.app.send(
        "POST", "/v1/files", key=objects.merchant.key, body=body, content_type=content_type, headers=headers
    )


async def contents(objects: MerchantObjects, id: str, key: str = "") -> Answer:
    return await objects.app.send("GET", f"/v1/files/{id}/contents", key=key or objects.merchant.key)


async def test_a_file_comes_back_as_it_was_sent(objects: MerchantObjects) -> None:
    made = await send(objects, multipart(PDF))
    assert made.status == 200, made.body
    file = made.json
    facts = (file["object"], file["purpose"], file["size"], file["type"], file["filename"])
    assert facts == ("file", "dispute_evidence", len(PDF), "pdf", "receipt.pdf")
    back = await contents(objects, file["id"])
    assert (back.status, back.body, back.headers["content-type"]) == (200, PDF, "application/octet-stream")
    assert back.headers["content-disposition"] == f'attachment; filename="{file["id"]}.pdf"'
    assert file["url"].endswith(f"/v1/files/{file['id']}/contents")
    assert (await contents(objects, file["id"], (await objects.app.merchant()).key)).status == 404
    (event,) = (await objects.app.ok(objects.merchant, "GET", "/v1/events", {"type": "file.created"}))["data"]
    assert event["data"]["object"] == file


async def test_a_repeat_uploads_nothing_anew(objects: MerchantObjects) -> None:
    key = {"idempotency-key": "once"}
    first, again = [await send(objects, multipart(PDF), **key) for _ in range(2)]
    assert (first.body, again.headers["idempotent-replayed"]) == (again.body, "true")
    other = await send(objects, multipart(PDF + b"x"), **key)
    assert other.json["error"]["type"] == "idempotency_error"


async def test_who_may_not_see_personal_data_gets_no_contents(objects: MerchantObjects) -> None:
    """A receipt has a name and an address, and no member of it can be masked."""
    id = (await send(objects, multipart(PDF))).json["id"]
    viewer = await objects.app.operator("viewer", objects.merchant.account)
    support = await objects.app.operator("support", objects.merchant.account)
    assert (await objects.app.ok(viewer, "GET", f"/v1/files/{id}"))["size"] == len(PDF)
    refused = await contents(objects, id, viewer)
    assert (refused.status, refused.json["error"]["code"]) == (403, "operator_forbidden")
    assert (await contents(objects, id, support)).body == PDF


async def test_lists_by_purpose(objects: MerchantObjects) -> None:
    evidence = await objects.file()
    logo = await objects.post("/v1/files", purpose="business_logo", file={"data": base64.b64encode(b"GIF89a").decode()})
    assert (logo["type"], logo["filename"]) == (None, None)

    async def ids(**params: Any) -> list[str]:
        listed = await objects.app.ok(objects.merchant, "GET", "/v1/files", params)
        return [file["id"] for file in listed["data"]]

    assert await ids() == [logo["id"], evidence]
    assert await ids(purpose="dispute_evidence") == [evidence]


@pytest.mark.parametrize(
    ("body", "content_type", "expected"),
    [
        (multipart(b""), TYPE, (400, "parameter_invalid_empty", "file")),
        (multipart(b"MZ"), TYPE, (400, "parameter_invalid_string", "file")),
        (multipart(PDF, purpose="fun"), TYPE, (400, "parameter_invalid_enum", "purpose")),
        (multipart(b"%PDF-" + b"x" * (1 << 20)), TYPE, (413, "body_too_large", None)),
        (multipart(PDF), "multipart/form-data", (400, "body_malformed", None)),
        (multipart(PDF)[:-8], TYPE, (400, "body_malformed", None)),
        (b"--b-1\r\nContent-Type: text/plain\r\n\r\nx\r\n--b-1--", TYPE, (400, "body_malformed", None)),
        (
            b'--b-1\r\nContent-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--b-1--',
            TYPE,
            (400, "body_malformed", None),
        ),
        (b"--b-1\r\n\r\n" * 60 + b"--b-1--", TYPE, (400, "body_malformed", None)),
        (
            b'--b-1\r\nContent-Disposition: form-data; name="purpose"\r\n\r\npci_document\r\n--b-1--',
            TYPE,
            (400, "parameter_missing", "file"),
        ),
    ],
)
async def test_refusals(
    objects: MerchantObjects, body: bytes, content_type: str, expected: tuple[int, str, str | None]
) -> None:
    answer = await send(objects, body, content_type)
    error = answer.json["error"]
    assert (answer.status, error["code"], error.get("param")) == expected


async def test_only_files_come_as_multipart(objects: MerchantObjects) -> None:
    answer = await objects.app.send(
        "POST", "/v1/customers", key=objects.merchant.key, body=multipart(PDF), content_type=TYPE
    )
    assert (answer.status, answer.json["error"]["code"]) == (415, "content_type_unsupported")


async def test_evidence_names_files(objects: MerchantObjects) -> None:
    dispute, file = await objects.dispute(), await objects.file()
    path = f"/v1/disputes/{dispute}"
    given = {"evidence": {"receipt": file, "customer_name": "Ada"}, "submit": False, "expand": ["evidence.receipt"]}
    staged = (await objects.post(path, **given))["evidence"]
    assert (staged["receipt"]["id"], staged["receipt"]["size"], staged["customer_name"]) == (file, 18, "Ada")
    assert (await objects.app.ok(objects.merchant, "GET", path))["evidence"]["receipt"] == file
    logo = (await objects.post("/v1/files", purpose="business_logo", file=PNG))["id"]
    for named, code in (("file_none", "resource_missing"), (logo, "parameter_invalid_string")):
        refused = await objects.app.call(objects.merchant, "POST", path, {"evidence": {"uncategorized_file": named}})
        error = refused.json["error"]
        assert (refused.status, error["code"], error["param"]) == (400, code, "evidence[uncategorized_file]")
