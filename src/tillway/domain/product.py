"""Products and their stock: available items, items reserved by open orders, and sold items.

An order takes its items in two steps: `reserve`, then `sell` or `release`. Each changes the product's version, so of
two orders for the last item one fails. Orders never change the sum of the three counts.
"""

from collections.abc import Iterable, Mapping

import msgspec

from tillway.domain.commands import PutProduct
from tillway.domain.record import Changes, Moment, Record

COUNT_MAX = 1_000_000_000
"""Most items of a product, and most of one in an order."""


class Product(Record, frozen=True, kw_only=True):
    """`product_id` is the merchant's own id. `price_minor` is its listed price in minor units of `currency`; an order
    has its own prices."""

    product_id: str
    name: str
    price_minor: int
    currency: str
    type: str
    available_count: int = 0
    reserved_count: int = 0
    sold_count: int = 0

    def __post_init__(self) -> None:
        assert min(self.available_count, self.reserved_count, self.sold_count) >= 0, "a count below nothing"


def put(product: Product | None, command: PutProduct, at: Moment) -> Changes[Product]:
    """Describe a product, new or known. Reserved and sold items stay unchanged: `available_count` is the number that
    can be ordered from now on."""
    after = Product(
        id=product.id if product is not None else at.new_id("prod"),
        created=product.created if product is not None else at.created,
        product_id=command.product_id,
        name=command.name,
        price_minor=command.price_minor,
        currency=command.currency,
        type=command.type,
        available_count=command.available_count,
        reserved_count=product.reserved_count if product is not None else 0,
        sold_count=product.sold_count if product is not None else 0,
    )
    return Changes(result=after, records=(after,) if after != product else ())


def lacking(products: Mapping[str, Product | None], counts: Mapping[str, int]) -> tuple[list[str], list[str]]:
    """Of the wanted `counts` by product id: the unknown products, and those with too few items."""
    unknown = [id for id in counts if products[id] is None]
    short = [
        id for id, count in counts.items() if (product := products[id]) is not None and product.available_count < count
    ]
    return unknown, short


def reserve(products: Iterable[Product], counts: Mapping[str, int]) -> tuple[Product, ...]:
    """Reserve the items of an order; there is enough of each."""
    return tuple(
        msgspec.structs.replace(
            product,
            available_count=product.available_count - counts[product.product_id],
            reserved_count=product.reserved_count + counts[product.product_id],
        )
        for product in products
    )


def release(products: Iterable[Product], counts: Mapping[str, int]) -> tuple[Product, ...]:
    """Release reserved items: others can order them again."""
    return tuple(
        msgspec.structs.replace(
            product,
            available_count=product.available_count + counts[product.product_id],
            reserved_count=product.reserved_count - counts[product.product_id],
        )
        for product in products
    )


def sell(products: Iterable[Product], counts: Mapping[str, int]) -> tuple[Product, ...]:
    """Mark reserved items as sold."""
    return tuple(
        msgspec.structs.replace(
            product,
            reserved_count=product.reserved_count - counts[product.product_id],
            sold_count=product.sold_count + counts[product.product_id],
        )
        for product in products
    )
