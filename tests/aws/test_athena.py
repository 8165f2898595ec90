"""The tables for Athena name the members that lines of the copies have, and the places where they lie.

Athena itself is not there to be asked: SQL that only it understands is not run.
"""

import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import fields

from tillway.domain.account import SYSTEM, Scope
from tillway.domain.audit import AuditEntry
from tillway.domain.ledger_copy import CopiedEntry, CopiedSource
from tillway.testing.in_process import InProcessApp

ROOT = Path(__file__).parents[2]
SQL = (ROOT / "deploy" / "aws" / "athena.sql").read_text()


def view(name: str = "tillway_audit") -> str:
    """The statement that makes a view."""
    (found,) = re.findall(rf"VIEW {name} AS\n(.+?;)", SQL, re.DOTALL)
    return str(found)


def columns(name: str = "tillway_audit") -> dict[str, str]:
    """The columns of the view by the members of a line that they show."""
    return dict(re.findall(r"json_extract(?:_scalar)?\(line, '\$\.(\w+)'\)(?: AS bigint\))? AS (\w+)", view(name)))


@pytest.mark.parametrize(
    ("name", "kind", "nested"),
    [
        ("tillway_audit", AuditEntry, {"changes", "detail", "events"}),
        ("tillway_ledger", CopiedEntry, {"postings"}),
        ("tillway_ledger_sources", CopiedSource, {"fields"}),
    ],
)
def test_a_view_has_every_member_of_a_line_under_its_name(name: str, kind: type[Any], nested: set[str]) -> None:
    named = {field.encode_name: field.encode_name for field in fields(kind)}
    assert columns(name) == named
    scalars = set(re.findall(r"json_extract_scalar\(line, '\$\.(\w+)'\)", view(name)))
    assert named.keys() - scalars == nested, "a scalar of an object or a list is null"
    tag = kind.__struct_config__.tag
    assert tag is None or f"'$.object') = '{tag}'" in view(name)


async def test_lines_as_they_are_stored_have_no_other_member(tmp_path: Path) -> None:
    app = await InProcessApp.open(tmp_path)
    try:
        merchant = await app.merchant()
        assert (await app.send("POST", "/v1/customers", key=merchant.key, body=b"name=Ann")).status == 200
        scopes = (SYSTEM, Scope(account=merchant.account, mode="test").key)
        lines = [row.body for scope in scopes for row in await app.store.query(None, f"{scope}/aud_")]
        members = {member for line in lines for member in msgspec.json.decode(line)}
        assert {"id", "actor", "changes", "events"} <= members <= columns().keys()
        assert all(b"\x01" not in line and b"\n" not in line for line in lines)
    finally:
        await app.close()


def test_the_tables_lie_where_the_worker_writes() -> None:
    template = (ROOT / "deploy" / "aws" / "template.yaml").read_text()
    (bucket,) = re.findall(r'BucketName: !Sub "(tillway-\$\{Stage\}-audit-\$\{AWS::AccountId\})"', template)
    place = bucket.replace("${Stage}", "STAGE").replace("${AWS::AccountId}", "ACCOUNT")
    for prefix in ("audit", "ledger"):
        assert f"LOCATION 's3://{place}/{prefix}/'" in SQL
        assert f"'storage.location.template' = 's3://{place}/{prefix}/${{day}}/'" in SQL
        assert f"/{prefix}/*" in template
    assert SQL.count("'projection.day.format' = 'yyyy/MM/dd'") == 2
    (pattern,) = re.findall(r"regexp_extract\(\"\$path\", '(.+)', 1\)", SQL)
    path = f"s3://{place}/audit/2026/12/01/acct_1.t/{1:012d}-{1:012d}.ndjson"
    found = re.search(pattern, path)
    assert found is not None and found[1] == "acct_1.t"
