"""`tillway demo`: a demo shop with customers and payments of every kind, made through the API of its own server."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import msgspec
import typer

from tillway.cli.installation import DEMO_FILE, build_writes, create, moment_above, records, with_store
from tillway.cli.options import DataDir, StoreUrl
from tillway.cli.terminal import fail, say, setting, settings_from
from tillway.settings import Settings

if TYPE_CHECKING:
    from aiohttp import ClientSession

    from tillway.store.port import Store

RETURN_URL = "https://example.com/thank-you"

CUSTOMERS = (
    ("Ada Lovelace", "ada@example.com"),
    ("Grace Hopper", "grace@example.com"),
    ("Alan Turing", "alan@example.com"),
    ("Katherine Johnson", "katherine@example.com"),
    ("Edsger Dijkstra", "edsger@example.com"),
)


class Sale(msgspec.Struct, frozen=True):
    """One payment of the demo shop. `then` lists the calls that follow it: (path with {payment}, parameters)."""

    what: str
    customer: int
    amount: int
    currency: str
    card: str
    expect: str
    parameters: dict[str, str] = {}
    then: tuple[tuple[str, dict[str, Any]], ...] = ()


_CAPTURE = "/v1/payment_intents/{payment}/capture"
_CANCEL = "/v1/payment_intents/{payment}/cancel"
_REFUND = "/v1/refunds"
_KEPT = {"setup_future_usage": "off_session"}
_MANUAL = {"capture_method": "manual"}
_PART = {"amount_to_capture": 4000}
_NO_FUNDS = "pm_card_visa_chargeDeclinedInsufficientFunds"
_ANOTHER = "requires_payment_method"

SALES = (
    Sale("A teapot", 0, 4200, "eur", "pm_card_visa", "succeeded"),
    Sale("A kettle, with the card kept", 1, 8900, "eur", "pm_card_mastercard", "succeeded", _KEPT),
    Sale("A tea set from Kyoto", 2, 12500, "jpy", "pm_card_jcb", "succeeded"),
    Sale("Two cups, one sent back", 0, 3000, "eur", "pm_card_visa", "succeeded", {}, ((_REFUND, {"amount": 1500}),)),
    Sale("A tray, sent back", 3, 2650, "usd", "pm_card_amex", "succeeded", {}, ((_REFUND, {}),)),
    Sale("A samovar, reserved", 3, 25900, "eur", "pm_card_visa", "requires_capture", _MANUAL),
    Sale("Tea, partly in stock", 4, 6000, "eur", "pm_card_visa", "succeeded", _MANUAL, ((_CAPTURE, _PART),)),
    Sale("A reservation, given up", 4, 5000, "eur", "pm_card_visa", "canceled", _MANUAL, ((_CANCEL, {}),)),
    Sale("Tea for the office, 3-D Secure", 1, 7350, "eur", "pm_card_threeDSecure2Required", "requires_action"),
    Sale("A card without money", 2, 9900, "eur", _NO_FUNDS, _ANOTHER),
    Sale("A card that the bank refuses", 2, 1200, "usd", "pm_card_visa_chargeDeclined", _ANOTHER),
)


OPERATOR = "Demo"
"""The name of the operator whom the demo's address signs in."""


class Shop(msgspec.Struct):
    """The content of `demo.json`, by which a second run finds the first run's shop. Test keys only; `payments` are
    ids."""

    account: str
    secret_key: str
    publishable_key: str
    payments: list[str] = []


def demo(
    context: typer.Context,
    data_dir: DataDir = None,
    store: StoreUrl = None,
    host: Annotated[str | None, setting("host")] = None,
    port: Annotated[int | None, setting("port")] = None,
    serve: Annotated[bool, typer.Option("--serve/--no-serve", help="Keep serving after the shop is made.")] = True,
) -> None:
    """Make a demo shop in the data directory (./data), serve it, and print what to try next. A second run reuses it."""
    settings = settings_from(context.params)
    from tillway.serve import run

    shop = _shop(settings)
    path = settings.data_dir / DEMO_FILE

    async def visit(url: str) -> Literal["serve", "stop"]:
        import aiohttp

        headers = {"Authorization": f"Bearer {shop.secret_key}"}
        async with aiohttp.ClientSession(base_url=url, headers=headers) as session:
            if not shop.payments:
                say("Making the demo shop …")
                shop.payments = await _trade(session)
                _keep(path, shop)
            payments = [await _look(session, id) for id in shop.payments]
        print(_text(url, shop, payments, settings, await _sign_in_address(settings, url)), flush=True)
        return "serve" if serve else "stop"

    run(settings, visit)


def _shop(settings: Settings) -> Shop:
    """Load the last run's account and keys; else make an installation, or new keys for the first account of this
    one."""
    path = settings.data_dir / DEMO_FILE
    try:
        return msgspec.json.decode(path.read_bytes(), type=Shop)
    except FileNotFoundError:
        pass
    except msgspec.MsgspecError as error:
        raise fail(f"{path} cannot be read: {error}. Delete it to make a new shop.") from None
    made = create(settings, name="Tillway demo shop")
    if made is not None:
        say(f"Made {settings.data_dir}.")
        shop = Shop(made["account"], made["secret_key"], made["publishable_key"])
    else:
        shop = with_store(settings, _with_new_keys)
    _keep(path, shop)
    return shop


async def _sign_in_address(settings: Settings, url: str) -> str:
    """Return an address that signs the demo's operator in to the dashboard once, beside the server that runs."""
    from tillway.cli.operators import new_sign_in_address
    from tillway.domain.operator import Operator
    from tillway.installation import open_store
    from tillway.operations.operators import new_operator
    from tillway.store.port import ABSENT

    store = await open_store(settings)
    try:
        known = [operator for operator, _ in await records(store, Operator) if operator.name == OPERATOR]
        if not known:
            at = await moment_above(store)
            known = [new_operator(OPERATOR, "admin", None, created=at.created)]
            await store.commit(build_writes("demo", at, (ABSENT, None, known[0])))
        return await new_sign_in_address(store, known[0], url)
    finally:
        await store.close()


async def _with_new_keys(store: "Store") -> Shop:
    from tillway.domain.account import Account
    from tillway.operations.accounts import new_key
    from tillway.store.port import ABSENT

    accounts = sorted((account for account, _ in await records(store, Account)), key=lambda account: account.created)
    assert accounts, "an installation that is there has an account"
    at = await moment_above(store)
    secret, publishable = (
        new_key(accounts[0].id, "test", kind, created=at.created, name="demo") for kind in ("secret", "publishable")
    )
    await store.commit(build_writes("demo", at, (ABSENT, None, secret.record), (ABSENT, None, publishable.record)))
    return Shop(accounts[0].id, secret.secret, publishable.secret)


def _keep(path: Path, shop: Shop) -> None:
    beside = path.with_name(path.name + ".new")
    with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(shop), indent=2))
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


async def _trade(session: "ClientSession") -> list[str]:
    """Make the customers and their payments through the API, as a shop would. Return the ids of the payments."""
    customers = [
        (await _post(session, "/v1/customers", {"name": name, "email": email}, f"demo-customer-{place}"))["id"]
        for place, (name, email) in enumerate(CUSTOMERS)
    ]
    return [await _sell(session, sale, customers[sale.customer], place) for place, sale in enumerate(SALES)]


async def _sell(session: "ClientSession", sale: Sale, customer: str, place: int) -> str:
    answer = await _post(
        session,
        "/v1/payment_intents",
        {
            "amount": sale.amount,
            "currency": sale.currency,
            "customer": customer,
            "description": sale.what,
            "payment_method": sale.card,
            "confirm": "true",
            "return_url": RETURN_URL,
            **sale.parameters,
        },
        f"demo-sale-{place}",
    )
    id: str = (answer["error"]["payment_intent"] if "error" in answer else answer)["id"]
    for step, (path, parameters) in enumerate(sale.then):
        about = {"payment_intent": id} if path == _REFUND else {}
        await _post(session, path.format(payment=id), {**about, **parameters}, f"demo-sale-{place}-{step}")
    payment = await _look(session, id)
    if payment["status"] != sale.expect:
        raise fail(f"The demo's payment {id} is {payment['status']}, not {sale.expect}.")
    return id


async def _look(session: "ClientSession", id: str) -> dict[str, Any]:
    async with session.get(f"/v1/payment_intents/{id}", params={"expand[]": "latest_charge"}) as response:
        payment: dict[str, Any] = await response.json()
    if "error" in payment:
        raise fail(f"The demo's payment {id} cannot be read: {payment['error']['message']}")
    return payment


async def _post(session: "ClientSession", path: str, parameters: dict[str, Any], key: str) -> dict[str, Any]:
    """Post, and return the answer, which may be a decline. After a crash, the same key gets the same answer again."""
    async with session.post(path, data=parameters, headers={"Idempotency-Key": key}) as response:
        answer: dict[str, Any] = await response.json()
    error = answer.get("error")
    if error is not None and error.get("type") != "card_error":
        raise fail(f"The demo was refused at {path}: {error.get('message')}")
    return answer


def _text(url: str, shop: Shop, payments: list[dict[str, Any]], settings: Settings, sign_in: str) -> str:
    from tillway.web.challenge import amount_text

    amounts = [amount_text(payment["amount"], payment["currency"]) for payment in payments]
    sales = "\n".join(
        f"  {amount:>12}  {_became(payment):44}  {payment['description']}"
        for amount, payment in zip(amounts, payments, strict=True)
    )
    pages = [((payment["next_action"] or {}).get("redirect_to_url") or {}).get("url") for payment in payments]
    page = next((page for page in pages if page), None)
    challenge = f"\nComplete the 3-D Secure payment in a browser, or fail it:\n\n  {page}\n" if page else ""
    return f"""
Tillway serves {url}, on the data in {settings.data_dir.absolute()}

  secret key       {shop.secret_key}
  publishable key  {shop.publishable_key}

Sign in to the dashboard. This address works once:

  {sign_in}

The demo shop has {len(CUSTOMERS)} customers and {len(payments)} payments:

{sales}

Take a payment with curl:

  curl {url}/v1/payment_intents -u {shop.secret_key}: \\
    -d amount=4200 -d currency=eur -d payment_method=pm_card_visa \\
    -d confirm=true -d return_url={RETURN_URL}

or with Stripe's own Python SDK (pip install stripe):

  import stripe
  stripe.api_base = "{url}"
  stripe.api_key = "{shop.secret_key}"
  print(stripe.PaymentIntent.create(
      amount=4200, currency="eur", payment_method="pm_card_visa",
      confirm=True, return_url="{RETURN_URL}").status)
{challenge}
List the charges, the balance and the routes:

  curl {url}/v1/charges -u {shop.secret_key}:
  curl {url}/v1/balance -u {shop.secret_key}:
  curl {url}/openapi.json
"""


def _became(payment: dict[str, Any]) -> str:
    """A payment's status with its details: the reason of a decline, the amount captured or refunded."""
    from tillway.web.challenge import amount_text

    said: str = payment["status"]
    error, charge = payment["last_payment_error"], payment["latest_charge"]
    if error is not None:
        return f"{said} ({error.get('decline_code') or error['code']})"
    if said == "succeeded" and charge["amount_refunded"]:
        # A partial capture releases the rest to the card, and Stripe counts the rest as refunded.
        back = amount_text(charge["amount_refunded"], payment["currency"])
        return f"{said}, {back} {'refunded' if payment['amount_received'] == payment['amount'] else 'not captured'}"
    return said
