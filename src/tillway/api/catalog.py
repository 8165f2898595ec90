"""Products and prices: parameters, calls and shapes."""

from typing import Any

from msgspec import UNSET

from tillway.api.amounts import in_minor
from tillway.domain.amount_limits import AMOUNT_LARGEST
from tillway.domain.catalog import CatalogProduct, Price
from tillway.domain.commands import CreatePrice, CreateProduct, UpdatePrice, UpdateProduct
from tillway.domain.refusal import Refused
from tillway.domain.wire_amounts import CONVERTED, to_wire
from tillway.engine.core import Load
from tillway.http.lists import list_page
from tillway.http.params import (
    Array,
    Boolean,
    Created,
    Currency,
    Enum,
    Expand,
    Id,
    Ignored,
    Integer,
    Metadata,
    Object,
    Params,
    StatementDescriptor,
    Text,
    Unsupported,
    Url,
    list_params,
)
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, includable, shape
from tillway.operations import checkout
from tillway.store.codec import by_parent

SUBSCRIPTIONS = "subscriptions"
_TIERS = "prices in tiers"
_TAX = "tax calculation"
_OTHER_CURRENCIES = "prices in several currencies; make one for each currency"

_TAX_BEHAVIOR = Enum("exclusive", "inclusive", "unspecified")
_IMAGES = Array(Url(), maximum=8, unsettable=True)

_NEW_PRICE: dict[str, Any] = {
    "currency": Currency(required=True),
    "unit_amount": Integer(minimum=0, maximum=AMOUNT_LARGEST),
    "unit_amount_decimal": Text(maximum=20),
    "recurring": Unsupported(SUBSCRIPTIONS),
    "tax_behavior": _TAX_BEHAVIOR,
    "currency_options": Unsupported(_OTHER_CURRENCIES),
    "custom_unit_amount": Unsupported("prices that the payer chooses"),
}
"""The parameters of every new price. Its amount is one of two."""

_PRODUCT: dict[str, Any] = {
    "active": Boolean(),
    "description": Text(maximum=1000),
    "images": _IMAGES,
    "marketing_features": Ignored(),
    "metadata": Metadata(),
    "package_dimensions": Ignored(),
    "shippable": Ignored(),
    "statement_descriptor": StatementDescriptor(),
    "tax_code": Ignored(),
    "tax_details": Ignored(),
    "unit_label": Text(maximum=12),
    "url": Url(),
}

PRICE_DATA = Object(
    **{name: _NEW_PRICE[name] for name in ("currency", "unit_amount", "unit_amount_decimal", "recurring")},
    product=Id(),
    product_data=Object(
        name=Text(maximum=1000, required=True),
        description=Text(maximum=1000),
        images=_IMAGES,
        metadata=Metadata(),
        tax_code=Ignored(),
        tax_details=Ignored(),
        unit_label=Text(maximum=12),
    ),
    tax_behavior=_TAX_BEHAVIOR,
)
"""`price_data` of a cart's line."""

CREATE_PRODUCT = Params(
    **_PRODUCT,
    name=Text(maximum=1000, required=True),
    id=Unsupported("ids of your own for products; put yours into `metadata`"),
    default_price_data=Object(**_NEW_PRICE, metadata=Metadata()),
    expand=Expand(),
    type=Enum("good", "service"),
)
UPDATE_PRODUCT = Params(
    **{
        **_PRODUCT,
        "description": Text(maximum=1000, unsettable=True),
        "statement_descriptor": StatementDescriptor(unsettable=True),
        "unit_label": Text(maximum=12, unsettable=True),
        "url": Url(unsettable=True),
    },
    name=Text(maximum=1000),
    default_price=Id(unsettable=True),
    expand=Expand(),
)
LIST_PRODUCTS = list_params(
    active=Boolean(),
    created=Created(),
    ids=Array(Id(), maximum=100),
    shippable=Ignored(),
    type=Ignored(),
    url=Text(maximum=2048),
)
CREATE_PRICE = Params(
    **_NEW_PRICE,
    active=Boolean(),
    billing_scheme=Enum("per_unit"),
    expand=Expand(),
    lookup_key=Unsupported("lookup keys; keep the price's id"),
    metadata=Metadata(),
    nickname=Text(maximum=1000),
    product=Id(),
    product_data=Object(
        name=Text(maximum=1000, required=True),
        active=Boolean(),
        id=Unsupported("ids of your own for products; put yours into `metadata`"),
        metadata=Metadata(),
        statement_descriptor=StatementDescriptor(),
        tax_code=Ignored(),
        tax_details=Ignored(),
        unit_label=Text(maximum=12),
    ),
    tiers=Unsupported(_TIERS),
    tiers_mode=Unsupported(_TIERS),
    transfer_lookup_key=Unsupported("lookup keys; keep the price's id"),
    transform_quantity=Unsupported("prices of packages"),
)
UPDATE_PRICE = Params(
    active=Boolean(),
    currency_options=Unsupported(_OTHER_CURRENCIES),
    expand=Expand(),
    lookup_key=Unsupported("lookup keys; keep the price's id"),
    metadata=Metadata(),
    nickname=Text(maximum=1000, unsettable=True),
    tax_behavior=_TAX_BEHAVIOR,
    transfer_lookup_key=Unsupported("lookup keys; keep the price's id"),
)
LIST_PRICES = list_params(
    active=Boolean(),
    created=Created(),
    currency=Currency(),
    lookup_keys=Array(Text(maximum=200), maximum=10),
    product=Id(),
    recurring=Unsupported(SUBSCRIPTIONS),
    type=Enum("one_time", "recurring"),
)
EXPAND_ONLY = Params(expand=Expand())


def read_new_price(call: Call, given: dict[str, Any], place: str, **more: Any) -> CreatePrice:
    """The command for the price that the parameters `given` at `place` describe."""
    currency, named = given["currency"], f"{place}[unit_amount]" if place else "unit_amount"
    amount = given.get("unit_amount")
    if given.get("unit_amount_decimal") is not None:
        if amount is not None:
            raise Refused(
                "parameters_exclusive",
                "You may only specify one of these parameters: unit_amount, unit_amount_decimal.",
                param=f"{named}_decimal",
            )
        amount = _whole(given["unit_amount_decimal"], f"{named}_decimal")
    if amount is None:
        raise Refused("parameter_missing", f"Missing required param: {named}.", param=named)
    return CreatePrice(
        currency=currency,
        unit_amount_minor=in_minor(call, {"unit_amount": amount}, currency, "unit_amount")["unit_amount"],
        metadata=given.get("metadata") or {},
        tax_behavior=given.get("tax_behavior") or "unspecified",
        **more,
    )


def _whole(text: str, param: str) -> int:
    """The whole number in `text`, which may have decimals that are zero."""
    whole, _, fraction = text.partition(".")
    if not whole.isdecimal() or not whole.isascii() or fraction.strip("0") or int(whole) > AMOUNT_LARGEST:
        raise Refused(
            "parameter_invalid_integer",
            f"Send whole units of the currency's smallest coin, at most {AMOUNT_LARGEST}: fractions are not supported.",
            param=param,
        )
    return int(whole)


def _read_product(given: dict[str, Any], **more: Any) -> CreateProduct:
    names = ("active", "description", "metadata", "name", "statement_descriptor", "unit_label", "url")
    fields = {name: given[name] for name in names if given.get(name) is not None}
    return CreateProduct(**fields, images=tuple(given.get("images") or ()), **more)


def read_price_data(call: Call, given: dict[str, Any], place: str) -> CreatePrice:
    """The command for the price in `price_data`, which has a product or describes a new one."""
    data = given.get("product_data")
    if (data is None) is (given.get("product") is None):
        raise Refused(
            "parameter_missing" if data is None else "parameters_exclusive",
            "Give a price its product: either `product` or `product_data`.",
            param=f"{place}[product]" if place else "product",
        )
    # As at Stripe, the products of carts are inactive: they are not for sale elsewhere.
    new = _read_product({**data, "active": data.get("active", not place)}) if data is not None else None
    more: dict[str, Any] = {} if not place else {"active": False}
    return read_new_price(call, given, place, product=given.get("product"), new_product=new, **more)


@route("POST", "/v1/products", CREATE_PRODUCT, returns="product")
async def create_product(call: Call) -> Answer:
    """Create a product."""
    data = call.params.get("default_price_data")
    price = read_new_price(call, data, "default_price_data") if data is not None else None
    return await checkout.create_product(call.platform, call.caller, _read_product(call.params, default_price=price))


@route("GET", "/v1/products", LIST_PRODUCTS, returns="list")
async def list_products(call: Call) -> Answer:
    """List products, newest first."""
    wanted = {name: call.params[name] for name in ("active", "url") if name in call.params}
    ids = set(call.params.get("ids") or ())

    def keep(product: CatalogProduct) -> bool:
        return all(getattr(product, name) == value for name, value in wanted.items()) and (not ids or product.id in ids)

    return await list_page(call, "prd", keep=keep if wanted or ids else None, noun="product")


@route("GET", "/v1/products/{id}", EXPAND_ONLY, returns="product")
async def retrieve_product(call: Call) -> Answer:
    """Retrieve a product."""
    return await call.platform.engine.load(call.caller.scope_key).get(CatalogProduct, call.id)


@route("POST", "/v1/products/{id}", UPDATE_PRODUCT, returns="product")
async def update_product(call: Call) -> Answer:
    """Change a product."""
    fields = {name: value for name, value in call.params.items() if name in UpdateProduct.__struct_fields__}
    if fields.get("images") is not None:
        fields["images"] = tuple(fields["images"])
    return await checkout.update_product(call.platform, call.caller, call.id, UpdateProduct(**fields))


@route("DELETE", "/v1/products/{id}", returns="product")
async def delete_product(call: Call) -> Answer:
    """Delete a product that has no prices."""
    await checkout.delete_product(call.platform, call.caller, call.id)
    return {"id": call.id, "object": "product", "deleted": True}


@route("POST", "/v1/prices", CREATE_PRICE, returns="price")
async def create_price(call: Call) -> Answer:
    """Create a price of a product."""
    params = call.params
    described = read_price_data(call, params, "")
    more = {"active": params.get("active") is not False, "nickname": params.get("nickname")}
    fields = {name: getattr(described, name) for name in CreatePrice.__struct_fields__} | more
    return await checkout.create_price(call.platform, call.caller, CreatePrice(**fields))


@route("GET", "/v1/prices", LIST_PRICES, returns="list")
async def list_prices(call: Call) -> Answer:
    """List prices, newest first; none has a lookup key or recurs."""
    wanted = {name: call.params[name] for name in ("active", "currency") if name in call.params}
    none = "lookup_keys" in call.params or call.params.get("type") == "recurring"

    def keep(price: Price) -> bool:
        return not none and all(getattr(price, name) == value for name, value in wanted.items())

    kept = keep if wanted or none else None
    if "product" in call.params:
        partition = by_parent(call.caller.scope_key, "price", call.params["product"])
        return await list_page(call, "price", index="parent", partition=partition, keep=kept, noun="price")
    return await list_page(call, "price", keep=kept, noun="price")


@route("GET", "/v1/prices/{id}", EXPAND_ONLY, returns="price")
async def retrieve_price(call: Call) -> Answer:
    """Retrieve a price."""
    return await call.platform.engine.load(call.caller.scope_key).get(Price, call.id)


@route("POST", "/v1/prices/{id}", UPDATE_PRICE, returns="price")
async def update_price(call: Call) -> Answer:
    """Change the nickname and metadata of a price; its amount stays."""
    fields = {name: call.params.get(name, UNSET) for name in UpdatePrice.__struct_fields__}
    return await checkout.update_price(call.platform, call.caller, call.id, UpdatePrice(**fields))


@shape(CatalogProduct, expandable="default_price")
def product_shape(product: CatalogProduct, view: View) -> dict[str, Any]:
    return {
        "id": product.id,
        "object": "product",
        "active": product.active,
        "created": product.created,
        "default_price": product.default_price,
        "description": product.description,
        "images": list(product.images),
        "livemode": view.livemode,
        "marketing_features": [],
        "metadata": product.metadata,
        "name": product.name,
        "package_dimensions": None,
        "shippable": None,
        "statement_descriptor": product.statement_descriptor,
        "tax_code": None,
        "type": "service",
        "unit_label": product.unit_label,
        "updated": product.updated,
        "url": product.url,
    }


@shape(Price, expandable="product")
def price_shape(price: Price, view: View) -> dict[str, Any]:
    converts = view.converts_amounts and price.currency in CONVERTED
    shown = to_wire(price.unit_amount_minor, price.currency) if converts else price.unit_amount_minor
    return {
        "id": price.id,
        "object": "price",
        "active": price.active,
        "billing_scheme": "per_unit",
        "created": price.created,
        "currency": price.currency,
        "custom_unit_amount": None,
        "livemode": view.livemode,
        "lookup_key": None,
        "metadata": price.metadata,
        "nickname": price.nickname,
        "product": price.product,
        "recurring": None,
        "tax_behavior": price.tax_behavior,
        "tiers_mode": None,
        "transform_quantity": None,
        "type": "one_time",
        "unit_amount": price.unit_amount_minor,
        "unit_amount_decimal": str(shown),
    }


@includable("price", "currency_options")
async def _include_currency_options(load: Load, document: dict[str, Any], view: View) -> dict[str, Any]:
    """The price in each currency that it has: one."""
    amounts = {name: document[name] for name in ("tax_behavior", "unit_amount", "unit_amount_decimal")}
    return {document["currency"]: {"custom_unit_amount": None, **amounts}}


@includable("price", "tiers")
async def _include_tiers(load: Load, document: dict[str, Any], view: View) -> list[Any]:
    return []
