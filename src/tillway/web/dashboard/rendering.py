"""Pages as bytes: the templates with the values that every page has."""

from datetime import UTC
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from tillway import __version__
from tillway.web.dashboard import words
from tillway.web.dashboard.assets import asset
from tillway.web.dashboard.code_colours import coloured
from tillway.web.dashboard.icons import PATHS
from tillway.web.dashboard.visit import BASE, Visit

if TYPE_CHECKING:
    from jinja2 import Environment
    from markupsafe import Markup

_PLACE: Final = Path(__file__).parent / "templates"

NAVIGATION: Final[tuple[tuple[str, str, str], ...]] = (
    ("", "home", "Home"),
    ("/payments", "card", "Payments"),
    ("/customers", "people", "Customers"),
    ("/balance", "bank", "Balance & payouts"),
    ("/disputes", "flag", "Disputes"),
    ("/doubts", "question", "Money in doubt"),
    ("/links", "link", "Payment links"),
)
OPERATE: Final[tuple[tuple[str, str, str], ...]] = (
    ("/connectors", "plug", "Connectors"),
    ("/routing", "route", "Routing"),
    ("/developers", "code", "Developers"),
    ("/audit", "list", "Audit log"),
    ("/settings", "gear", "Settings"),
)
"""The entries of the navigation: path, icon and word."""

FIRST_TABS: Final = {"/settings": "/settings/users"}
"""The page that an entry opens, where that is not its own path."""

KEYS: Final = {
    "": "g h",
    "/payments": "g p",
    "/customers": "g c",
    "/balance": "g b",
    "/doubts": "g i",
    "/disputes": "g d",
    "/connectors": "g n",
    "/developers": "g w",
    "/audit": "g a",
}


def render(template: str, visit: Visit | None, place: str, values: dict[str, Any]) -> bytes:
    """The page of a template. `visit` is None before the sign-in; `place` is the entry of the navigation."""
    from markupsafe import Markup

    shared: dict[str, Any] = {"theme": "", "zone": UTC}
    if visit is not None:
        operator = visit.signed.operator
        shared = {
            "visit": visit,
            "url": visit.url,
            "csrf": visit.csrf,
            "theme": visit.theme,
            "test": visit.mode == "test",
            "place": place,
            "operate": tuple(one for one in OPERATE if one[0] != "/audit" or visit.may("export_audit")),
            "operator": operator,
            "initials": words.initials(operator.name),
            "now": visit.now,
            "zone": visit.zone,
            "live": Markup(' data-live="10"') if visit.refreshes else "",
            "here": visit.request.path + (f"?{visit.request.query}" if visit.request.query else ""),
            "switched": _in_other_mode(visit),
        }
    return environment().get_template(template).render(shared | values).encode()


def _in_other_mode(visit: Visit) -> str:
    """The address of this page in the other mode."""
    inner = visit.request.path.removeprefix(visit.base)
    query = f"?{visit.request.query}" if visit.request.query else ""
    return f"{BASE}/live{inner}{query}" if visit.mode == "test" else f"{BASE}{inner}{query}"


@cache
def environment() -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined, pass_context

    made = Environment(
        loader=FileSystemLoader(_PLACE),
        autoescape=True,
        auto_reload=False,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.globals |= {
        "asset": asset,
        "icon": icon,
        "base": BASE,
        "release": __version__,
        "navigation": NAVIGATION,
        "first_tabs": FIRST_TABS,
        "keys": KEYS,
        "states": words.STATES,
        "words": words,
        "visit": None,
    }
    made.filters |= {
        "figures": lambda amount, currency: words.figures(amount, currency),
        "money": lambda amount, currency: words.money(amount, currency),
        "plain": lambda amount, currency: words.plain(amount, currency),
        "time": pass_context(lambda context, seconds: words.time_of(seconds, context["zone"])),
        "minute": pass_context(lambda context, seconds: words.time_of(seconds, context["zone"])[:5]),
        "day": pass_context(lambda context, seconds, now=None: words.day(seconds, now, context["zone"])),
        "full_day": pass_context(lambda context, seconds: words.day(seconds, 0.0, context["zone"])),
        "short_day": pass_context(lambda context, seconds, now=None: words.short_day(seconds, context["zone"], now)),
        "date": pass_context(lambda context, seconds: words.date(seconds, context["zone"])),
        "zoned": pass_context(lambda context, seconds: words.zone_at(seconds, context["zone"])),
        "iso": words.iso,
        "span": words.span,
        "readable": words.readable,
        "capitalize_first": words.capitalize_first,
        "lower_first": words.lower_first,
        "document": words.document,
        "coloured": coloured,
        "without_https": lambda address: address.removeprefix("https://"),
    }
    return made


def icon(name: str, kind: str = "", label: str = "") -> "Markup":
    """An icon: decoration, or an image with a `label`."""
    from markupsafe import Markup

    means = Markup('role="img" aria-label="{}"').format(label) if label else Markup('aria-hidden="true"')
    shape = Markup('<svg class="i{}" viewBox="0 0 16 16" {}><path d="{}"/></svg>')
    return shape.format(f" {kind}" if kind else "", means, PATHS[name])
