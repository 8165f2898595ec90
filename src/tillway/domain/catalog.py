"""The catalogue of hosted checkout: products and their prices.

The stock of the orders contract is another thing (`domain/product.py`): it counts items, and this describes them.
"""

from msgspec.structs import replace

from tillway.domain.amount_limits import check_charge
from tillway.domain.commands import CreatePrice, CreateProduct, UpdatePrice, UpdateProduct
from tillway.domain.record import Changes, EventDraft, Moment, Record, changed, merged_metadata
from tillway.domain.refusal import Refused

QUANTITY_MAX = 999_999
"""Most items in one line (https://docs.stripe.com/api/checkout/sessions/create, `line_items.quantity`)."""


class CatalogProduct(Record, frozen=True, kw_only=True):
    """Something that a merchant sells. `updated` is epoch seconds."""

    name: str
    active: bool = True
    default_price: str | None = None
    description: str | None = None
    images: tuple[str, ...] = ()
    metadata: dict[str, str] = {}
    statement_descriptor: str | None = None
    unit_label: str | None = None
    updated: int = 0
    url: str | None = None


class Price(Record, frozen=True, kw_only=True):
    """The price of one item of `product`, in minor units of `currency`. It may be 0 in a cart that costs something."""

    product: str
    currency: str
    unit_amount_minor: int
    active: bool = True
    metadata: dict[str, str] = {}
    nickname: str | None = None
    tax_behavior: str = "unspecified"


def create_product(command: CreateProduct, at: Moment) -> Changes[CatalogProduct]:
    """Create a product, and its default price where the command has one."""
    product = CatalogProduct(
        id=at.new_id("prd"),
        created=at.created,
        name=command.name,
        active=command.active,
        description=command.description,
        images=command.images,
        metadata=merged_metadata({}, command.metadata),
        statement_descriptor=command.statement_descriptor,
        unit_label=command.unit_label,
        updated=at.created,
        url=command.url,
    )
    if command.default_price is None:
        return Changes(result=product, records=(product,), events=(_event("product.created", product),))
    price = _price(command.default_price, product.id, at)
    product = replace(product, default_price=price.id)
    return Changes(
        result=product,
        records=(product, price),
        events=(_event("product.created", product), _event("price.created", price)),
    )


def update_product(product: CatalogProduct, command: UpdateProduct, at: Moment) -> Changes[CatalogProduct]:
    after = changed(product, command.given())
    if after == product:
        return Changes(result=product)
    after = replace(after, updated=at.now)
    return Changes(result=after, records=(after,), events=(_event("product.updated", after, product),))


def delete_product(product: CatalogProduct, has_prices: bool) -> Changes[CatalogProduct]:
    """Delete a product. Refused `parameter_invalid_string` where it has prices: what was sold must stay readable."""
    if has_prices:
        raise Refused(
            "parameter_invalid_string",
            "This product cannot be deleted because it has one or more prices. Set `active` to false instead.",
            param="id",
        )
    return Changes(result=product, deletes=(product.id,), events=(_event("product.deleted", product),))


def create_price(command: CreatePrice, product: CatalogProduct | None, at: Moment) -> Changes[Price]:
    """Create a price of `product`, or of a new product that the command describes."""
    made = Changes[None](result=None)
    if product is None:
        assert command.new_product is not None, "a price has a product"
        created = create_product(command.new_product, at)
        made, product = Changes(result=None, records=created.records, events=created.events), created.result
    price = _price(command, product.id, at)
    return made.then(Changes(result=price, records=(price,), events=(_event("price.created", price),)))


def update_price(price: Price, command: UpdatePrice) -> Changes[Price]:
    after = changed(price, command.given())
    if after == price:
        return Changes(result=price)
    return Changes(result=after, records=(after,), events=(_event("price.updated", after, price),))


def _price(command: CreatePrice, product: str, at: Moment) -> Price:
    if command.unit_amount_minor:
        check_largest(command.unit_amount_minor, command.currency)
    return Price(
        id=at.new_id("price"),
        created=at.created,
        product=product,
        currency=command.currency,
        unit_amount_minor=command.unit_amount_minor,
        active=command.active,
        metadata=merged_metadata({}, command.metadata),
        nickname=command.nickname,
        tax_behavior=command.tax_behavior,
    )


def check_largest(amount_minor: int, currency: str) -> None:
    """Refuse an amount above the bound of a payment. One below its least may be a part of a cart."""
    try:
        check_charge(amount_minor, currency)
    except Refused as refused:
        if refused.code != "amount_too_small":
            raise Refused(refused.code, refused.message, param="unit_amount") from None


def _event(type: str, record: Record, previous: Record | None = None) -> EventDraft:
    return EventDraft(type=type, record=record, previous=previous)
