"""Pages that tell what the code has: error codes, test cards and test accounts. Each is held to its table.

`python tests/test_docs.py` writes the tables of the latter two anew.
"""

import re
from pathlib import Path

import pytest

from tillway.domain.bank_account import FAILURES
from tillway.domain.refusal import RULES
from tillway.http.errors import OWN_DOCS, STRIPE_CODES, doc_url
from tillway.sandbox.bank_accounts import TestAccount, all_accounts
from tillway.sandbox.cards import TestCard, all_cards

DOCS = Path(__file__).parents[1] / "docs"


def between(page: str, name: str) -> str:
    found = re.search(rf"<!-- {name} -->\n(.*)\n<!-- /{name} -->", (DOCS / page).read_text(), re.DOTALL)
    assert found is not None, f"docs/{page} has lost its markers"
    return found.group(1)


# Errors.


def test_every_code_of_ours_has_its_row_and_no_other_has() -> None:
    rows = re.findall(r'^\| <a id="([a-z0-9-]+)"></a>`(\w+)` \| (\d+) \|', between("errors.md", "codes"), re.MULTILINE)
    assert [(code, int(status)) for _, code, status in rows] == [
        (code, rule.status) for code, rule in RULES.items() if code not in STRIPE_CODES
    ]
    assert {f"{OWN_DOCS}#{anchor}" for anchor, _, _ in rows} == {doc_url(code) for _, code, _ in rows}
    assert between("errors.md", "codes").count("\n") == len(rows) + 1, "a row that cannot be read"


# Security.

ASVS_CHAPTERS = 17


def test_the_page_about_security_names_files_that_are_there() -> None:
    page = (DOCS / "security.md").read_text()
    named = {name for name in re.findall(r"`([\w./-]+)`", page) if "/" in name or name.endswith((".py", ".yml"))}
    root = DOCS.parent
    missing = [name for name in named if not (root / name).exists() and not (root / "src/tillway" / name).exists()]
    assert len(named) > 60 and missing == []


def test_the_page_about_security_has_every_chapter_and_a_reason_for_each_requirement() -> None:
    page = (DOCS / "security.md").read_text()
    found = {int(number) for number in re.findall(r"\bV(\d+)\b", page)}
    assert found == set(range(1, ASVS_CHAPTERS + 1))
    rows = [row.split("|") for row in page.splitlines() if re.match(r"\| \d", row)]
    assert len(rows) > 90 and all(len(row) == 4 and row[2].strip() for row in rows)


# Test cards.

_SECURE = {
    "not_supported": "has no 3-D Secure",
    "unenrolled": "",
    "optional": "3-D Secure where the merchant asks for it",
    "required_on_session": "3-D Secure while the customer is there; counts as set up for payments without them",
    "required_unless_set_up": "3-D Secure, but for payments without the customer once it was set up",
    "required": "3-D Secure always",
}
_AUTHENTICATED = {"challenge": "", "frictionless": "without a challenge", "error": "which fails with an error"}
_DISPUTED = {
    "chargeback": "disputed after its capture",
    "inquiry": "an inquiry after its capture",
    "warning": "an early fraud warning after its capture",
}
_REFUNDED = {
    "succeeds": "",
    "fails_later": "a refund succeeds and fails later",
    "succeeds_later": "a refund is pending and succeeds later",
}


def what_it_does(card: TestCard) -> str:
    """One test card in words. What every card does without being asked is left out."""
    words = [_SECURE[card.three_d_secure]]
    if card.three_d_secure not in ("not_supported", "unenrolled"):
        words.append(_AUTHENTICATED[card.authentication])
    if card.charge is not None:
        reason = f"`{card.charge.code}`" + (f", `{card.charge.decline_code}`" if card.charge.decline_code else "")
        words.append(f"declined: {reason}")
        if card.blocked is None and card.attach == "ok":
            words.append("can be attached to a customer")
    if card.blocked is not None:
        words.append("blocked for its risk")
    elif card.risk_level != "normal":
        words.append(f"risk level {card.risk_level}")
    checks = {"CVC": card.cvc_check, "postal code": card.postal_code_check, "address": card.address_line1_check}
    words += [f"{name} check: {result}" for name, result in checks.items() if result != "pass"]
    if card.dispute is not None:
        reason = f" (`{card.dispute_reason}`)" if card.dispute != "warning" else ""
        words.append(_DISPUTED[card.dispute] + reason + (" twice" if card.disputes > 1 else ""))
    words.append(_REFUNDED[card.refund])
    if card.funds_available_at_once:
        words.append("its money is available at once")
    return "; ".join(word for word in words if word) or "succeeds"


def card_table() -> str:
    rows = ["| number | brand | country | `pm_card_…` and `tok_…` | what it does |", "|---|---|---|---|---|"]
    for card in all_cards():
        brand = f"{card.brand} {card.funding}" if card.funding != "credit" else card.brand
        names = " ".join(
            f"`{alias.removeprefix('pm_card_')}`" for alias in card.aliases if alias.startswith("pm_card_")
        )
        rows.append(f"| `{card.number}` | {brand} | {card.country} | {names} | {what_it_does(card)} |")
    return "\n".join(rows)


def test_the_page_of_test_cards_is_the_table() -> None:
    assert between("test-cards.md", "cards") == card_table(), "write it anew: python tests/test_docs.py"


# Test accounts.


def what_it_comes_to(account: TestAccount) -> str:
    if account.failure is not None:
        return f"comes back: `{account.failure}`"
    if account.settles == "never":
        return "stays `processing`"
    return "settles, and is disputed" if account.dispute else "settles"


def account_table() -> str:
    rows = ["| type | number | payment method | what it does |", "|---|---|---|---|"]
    for account in all_accounts():
        names = " ".join(f"`{alias}`" for alias in account.aliases)
        rows.append(f"| `{account.type}` | `{account.number}` | {names} | {what_it_comes_to(account)} |")
    return "\n".join(rows)


def failure_table() -> str:
    rows = [f"| `{code}` | {message} |" for code, message in FAILURES.items()]
    return "\n".join(["| code | what it means |", "|---|---|", *rows])


def test_the_page_of_test_accounts_is_the_tables() -> None:
    assert between("test-accounts.md", "accounts") == account_table(), "write it anew: python tests/test_docs.py"
    assert between("test-accounts.md", "failures") == failure_table(), "write it anew: python tests/test_docs.py"


# Links and the index.

ROOT = DOCS.parent
PAGES = sorted(DOCS.rglob("*.md"))
FIRST_PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]


def prose(page: Path) -> str:
    """A page without its code: brackets in there are no links, and `#` begins no heading."""
    return re.sub(r"^ *```.*?^ *```$|`[^`\n]*`", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """Where a link can lead to within a page: its own anchors, and the host's for each heading."""
    text = re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | {*re.findall(r'<a id="([^"]+)">', text)}


@pytest.mark.parametrize("page", [*FIRST_PAGES, *PAGES], ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_somewhere(page: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#:\s]*)(?:#([^)\s]+))?\)", prose(page)):
        there = page.parent / target if target else page
        assert there.exists(), f"{page.name} links to {target}"
        if anchor:
            assert anchor in anchors(there), f"{page.name} links to {target}#{anchor}"


def test_the_index_lists_every_page_once() -> None:
    listed = re.findall(r"^- \[.+\]\((.+)\)$", (DOCS / "README.md").read_text(), re.MULTILINE)
    assert len(listed) == len({*listed})
    # Decision records have an index of their own, which tests/test_decisions.py holds.
    records = {*(DOCS / "decisions").glob("[0-9]*.md")}
    pages = {page for page in PAGES if page != DOCS / "README.md" and page not in records}
    assert {(DOCS / target).resolve() for target in listed} == pages | {*FIRST_PAGES} - {ROOT / "README.md"}


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: page.name)
def test_a_test_that_is_named_is_there(page: Path) -> None:
    for name, target in re.findall(r"\[`(test_\w+)`\]\(([^)#:]+\.py)\)", page.read_text()):
        assert f"def {name}(" in (page.parent / target).read_text(), f"{page.name} names {name}"


if __name__ == "__main__":
    tables = {
        ("test-cards.md", "cards"): card_table(),
        ("test-accounts.md", "accounts"): account_table(),
        ("test-accounts.md", "failures"): failure_table(),
    }
    for (page, name), table in tables.items():
        head, rest = (DOCS / page).read_text().split(f"<!-- {name} -->\n")
        (DOCS / page).write_text(
            f"{head}<!-- {name} -->\n{table}\n<!-- /{name} -->{rest.partition(f'<!-- /{name} -->')[2]}"
        )


def test_the_dashboards_table_of_checks_names_tests_that_there_are() -> None:
    table = (DOCS / "dashboard.md").read_text().partition("\n## Checks\n")[2]
    rows = re.findall(r"^\| (\d+) \|.*\| (.*) \|$", table, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 31))
    for number, held in rows:
        for path, test in re.findall(r"`([a-z0-9_/]+\.py)(?:::(test_\w+)…?)?`", held):
            file = ROOT / "tests" / path
            assert file.is_file() and f"def {test or 'test_'}" in file.read_text(), f"check {number}: {path} {test}"
