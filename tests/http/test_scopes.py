"""Scopes: every route has one, nothing is let through without it, and the page lists them.

`python tests/http/test_scopes.py` writes the page's table anew.
"""

import re
from pathlib import Path

import pytest
from good_calls import GOOD, MerchantObjects, name_of, path_of

from tillway.api import handlers
from tillway.dialects import handlers as dialect_handlers
from tillway.domain.credentials import SCOPES
from tillway.http.routes import DIALECT_ROUTES, ROUTES
from tillway.http.scopes import EXACTLY, NOUNS, scope_of
from tillway.operations.accounts import new_key, system_write
from tillway.testing.in_process import InProcessApp

assert handlers.LOADED and dialect_handlers.LOADED

PAGE = Path(__file__).parents[2] / "docs" / "authentication.md"
MARKED = re.compile(r"(?<=<!-- scopes -->\n).*?(?=<!-- /scopes -->)", re.DOTALL)
LOCKED = [entry for entry in ROUTES + DIALECT_ROUTES if entry.access not in ("anyone", "operator")]


def scope_table() -> str:
    rows = ["| scopes | calls below |", "|---|---|"]
    for noun in sorted({scope.partition(":")[0] for scope in SCOPES}):
        scopes = ", ".join(f"`{scope}`" for scope in SCOPES if scope.startswith(f"{noun}:"))
        paths = ", ".join(f"`/{path.replace('*', '{id}')}`" for path in sorted(NOUNS) if NOUNS[path] == noun)
        rows.append(f"| {scopes} | {paths} |")
    rows += ["", "Exceptions from the rule of methods:", ""]
    rows += [f"- `{call}` needs `{scope}`." for call, scope in sorted(EXACTLY.items())]
    return "\n".join(rows) + "\n"


def test_every_route_has_a_scope() -> None:
    for entry in LOCKED:
        scope = scope_of(entry.method, entry.path)
        assert scope in SCOPES, f"{name_of(entry)}: give it a scope in http/scopes.py"


def test_a_route_that_the_table_does_not_know_is_for_unrestricted_keys_alone() -> None:
    assert scope_of("GET", "/v3/rockets") == ""


def test_the_page_lists_them() -> None:
    found = MARKED.search(PAGE.read_text())
    assert found is not None and found.group(0) == scope_table(), "write it anew: python tests/http/test_scopes.py"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("keys")


async def test_no_route_is_open_without_its_scope_and_each_is_with_it(data_dir: Path) -> None:
    app = await InProcessApp.open(data_dir)
    objects = MerchantObjects(app, await app.merchant())
    account = objects.merchant.account
    with_all_but: dict[str, str] = {}
    with_only: dict[str, str] = {}
    for scope in SCOPES:
        but = new_key(account, "test", "secret", created=1, scopes=tuple(one for one in SCOPES if one != scope))
        only = new_key(account, "test", "secret", created=1, scopes=(scope,))
        await app.store.commit([system_write(but.record), system_write(only.record)])
        with_all_but[scope], with_only[scope] = but.secret, only.secret
    for entry in LOCKED:
        scope = scope_of(entry.method, entry.path)
        unknown = tuple("x_1" for part in entry.path.split("/") if part.startswith("{"))
        path = path_of(entry, unknown)
        answer = await app.send(entry.method, path, key=with_all_but[scope], content_type="application/json")
        challenge = answer.headers.get("www-authenticate", "")
        assert f'error="insufficient_scope", scope="{scope}"' in challenge, f"{name_of(entry)}: {answer.body!r}"
        answer = await app.send(entry.method, path, key=with_only[scope], content_type="application/json")
        assert "www-authenticate" not in answer.headers, f"{name_of(entry)}: {answer.body!r}"
    await app.close()


async def test_a_restricted_key_does_what_it_may(data_dir: Path) -> None:
    app = await InProcessApp.open(data_dir)
    objects = MerchantObjects(app, await app.merchant())
    made = new_key(objects.merchant.account, "test", "secret", created=1, scopes=("refunds:write",))
    await app.store.commit([system_write(made.record)])
    good = await GOOD["POST /v1/refunds"](objects)
    assert (await app.call(made.secret, "POST", "/v1/refunds", good.params)).status == 200
    refused = await app.call(made.secret, "GET", "/v1/refunds")
    assert (refused.status, refused.json["error"]["code"]) == (403, "insufficient_scope")
    # What was refused can be looked up by who may look.
    seen = await app.ok(objects.merchant, "GET", f"/ops/v1/requests/{refused.headers['request-id']}")
    assert seen["code"] == "insufficient_scope"
    await app.close()


if __name__ == "__main__":
    PAGE.write_text(MARKED.sub(lambda _: scope_table(), PAGE.read_text()))
