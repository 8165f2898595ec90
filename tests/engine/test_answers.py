"""The answer of a key that follows from its payment, where another process answers the key at the same moment."""

from pathlib import Path

import msgspec
from live_bank import live_merchant

from tillway.domain.account import Scope
from tillway.domain.idempotency import IdempotencyRecord
from tillway.engine.caller import Caller
from tillway.store.walk import records_of


async def test_a_key_that_was_answered_before_its_payment_settled_keeps_that_answer(tmp_path: Path) -> None:
    """A request read its key before the answer "processing", and its payment after the settlement."""
    async with live_merchant(tmp_path) as live:
        live.status = "Pending"
        card = {"type": "card", "card": {"number": "4242424242424242", "exp_month": 12, "exp_year": 2040}}
        given = {"amount": 4200, "currency": "eur", "confirm": True, "payment_method_data": card}
        given |= {"return_url": "https://example.com/"}
        first = await live.app.call(live.key, "POST", "/v1/payment_intents", given, idempotency_key="once")
        assert first.json["status"] == "processing"
        scope = Scope(account=live.merchant.account, mode="live")
        (held,) = [held async for held in records_of(live.app.store, scope.key, IdempotencyRecord)]
        (told,) = live.told.values()
        assert (await live.notice(**{**told, "status": "Accepted"})).status == 200
        assert (await live.get(f"/v1/payment_intents/{first.json['id']}"))["status"] == "succeeded"
        early = msgspec.structs.replace(held, status=0, body=msgspec.Raw(b"null"))
        answer = await live.app.running.platform.engine.answer_of(Caller.system(scope), early)
        assert answer is not None and msgspec.json.decode(answer[1]) == first.json
