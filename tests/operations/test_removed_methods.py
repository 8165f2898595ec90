"""A card that goes while its payment is at the bank: the money is still accounted for."""

import asyncio
from pathlib import Path

import pytest
from calendar_shop import Calendar, call, opened

from tillway.http.messages import Request

SLOW = '{"faults":{"rules":[{"fault":"slow","ms":400,"times":1}]}}'
CARD = (
    "type=card&card[number]=4242424242424242&card[exp_month]=12&card[exp_year]=2040&card[cvc]=123"
    "&billing_details[name]=Ada"
)


@pytest.mark.parametrize("removal", ["customer", "method"])
async def test_the_payment_settles_all_the_same(tmp_path: Path, removal: str) -> None:
    running, headers = await opened(tmp_path, Calendar())
    customer = await call(running, headers, "/v1/customers", "name=Ada")
    method = await call(running, headers, "/v1/payment_methods", CARD)
    await call(running, headers, f"/v1/payment_methods/{method['id']}/attach", f"customer={customer['id']}")
    await call(running, {**headers, "content-type": "application/json"}, "/ops/v1/simulator", SLOW)

    body = f"amount=4200&currency=eur&confirm=true&customer={customer['id']}&payment_method={method['id']}"
    paying = asyncio.create_task(call(running, headers, "/v1/payment_intents", body))
    await asyncio.sleep(0.1)
    if removal == "customer":
        gone = await running.api.handle(_delete(headers, f"/v1/customers/{customer['id']}"))
        assert gone.status == 200
    else:
        await call(running, headers, f"/v1/payment_methods/{method['id']}/detach", "expand[]=customer")

    payment = await paying
    assert payment["status"] == "succeeded", payment
    charge = await call(running, headers, f"/v1/charges/{payment['latest_charge']}")
    assert charge["amount_captured"] == 4200
    ledger = await call(running, headers, "/ops/v1/ledger")
    assert ledger["balanced"] and {row["account"]: row["balance"] for row in ledger["accounts"]} == {
        "fees": -152,
        "merchant": -4048,
        "receivable:simulator": 4200,
    }
    await running.close()


def _delete(headers: dict[str, str], path: str) -> Request:
    return Request("DELETE", path, "", headers)
