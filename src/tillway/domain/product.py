"""Products and their stock: what can be ordered, what is held for orders under way, and what has been sold.

An order takes its items in two steps: `reserve`, then `sell` or `release`. Each moves the product's version, so
of two orders that want the last item one finds it gone. Whatever orders do, the sum of the three counts stands.
"""

from collections.abc import Iterable, Mapping

import msgspec

from tillway.domain.commands import PutProduct
from tillway.domain.record import Changes, Moment, Record

COUNT_MAX = 1_000_000_000
"""Most items of a product, and most of one in an order."""


class Product(Record, frozen=True, kw_only=True):
    """`product_id` is the merchant's own name for it. `price_minor` is what it costs in minor units of `currency`, for
    whoever asks: an order brings its own prices."""

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
    """Describe a product, new or known. Items that orders hold or have bought stay as they are: `available_count` is
    the number that others can order from now on."""
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
    """Of the wanted `counts` by product id: the products there are none of, and those of which there are too few."""
    unknown = [id for id in counts if products[id] is None]
    short = [
        id for id, count in counts.items() if (product := products[id]) is not None and product.available_count < count
    ]
    return unknown, short


def reserve(products: Iterable[Product], counts: Mapping[str, int]) -> tuple[Product, ...]:
    """Hold what an order wants; there is enough of each."""
    return tuple(
        msgspec.structs.replace(
            product,
            available_count=product.available_count - counts[product.product_id],
            reserved_count=product.reserved_count + counts[product.product_id],
        )
        for product in products
    )


def release(products: Iterable[Product], counts: Mapping[str, int]) -> tuple[Product, ...]:
    """Give back what was held: others can order it again."""
    return tuple(
        msgspec.structs.replace(
            product,
            available_count=product.available_count + counts[product.product_id],
            reserved_count=product.reserved_count - counts[product.product_id],
        )
        for product in products
    )


def sell(products: Iterable[Product], counts: Mapping[str, int]) -> tuple[Product, ...]:
    """What was held has gone to its buyer."""
    return tuple(
        msgspec.structs.replace(
            product,
            reserved_count=product.reserved_count - counts[product.product_id],
            sold_count=product.sold_count + counts[product.product_id],
        )
        for product in products
    )
