"""The calls of a shop's page that takes cards by `tillway.js`: the script, the card frame, the end of a challenge."""

from tillway.api.challenges import HTML
from tillway.domain.languages import choose
from tillway.http.params import KnownParams, Params, Text
from tillway.http.routes import Answer, Call, Plain, route
from tillway.operations.card_frame import publishable_key
from tillway.web.card_frame import SCRIPT_HEADERS, card_page, returned_page, shop_script

SCRIPT = KnownParams()
"""A shop may add a parameter of its own, such as a version, so that caches load the script anew."""

CARD = Params(key=Text(required=True, maximum=255), locale=Text(maximum=20))
RETURNED = KnownParams()
"""The bank's page adds the parameters that Stripe adds to a `return_url`."""

JAVASCRIPT = "text/javascript; charset=utf-8"


@route("GET", "/js/v1", SCRIPT, returns="script", access="anyone")
async def script(call: Call) -> Answer:
    """Load `tillway.js`, with which a shop's page takes cards."""
    return Plain(200, shop_script(), JAVASCRIPT, SCRIPT_HEADERS)


@route("GET", "/js/v1/tillway.js", SCRIPT, returns="script", access="anyone")
async def named_script(call: Call) -> Answer:
    """Load `tillway.js` by its name."""
    return Plain(200, shop_script(), JAVASCRIPT, SCRIPT_HEADERS)


@route("GET", "/js/v1/card", CARD, returns="page", access="anyone")
async def card(call: Call) -> Answer:
    """Show the fields of a card, inside the pages of origins that are registered for the publishable key."""
    assert call.guard is not None, "calls that need no key have their guard"
    call.guard.count_page(None, call.caller.client_ip)
    secret = call.params["key"]
    key = await publishable_key(call.platform, secret)
    language = choose(call.params.get("locale"), call.headers.get("accept-language"))
    page, headers = card_page(key, secret, language)
    return Plain(200, page, HTML, headers)


@route("GET", "/js/v1/returned", RETURNED, returns="page", access="anyone")
async def returned(call: Call) -> Answer:
    """End a challenge inside the dialog of a shop's page."""
    page, headers = returned_page(choose(None, call.headers.get("accept-language")))
    return Plain(200, page, HTML, headers)
