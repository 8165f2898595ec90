"""Renders a record or a refusal as the bytes of an answer. The engine does this before the commit, so that the answer
and the change are stored together."""

from typing import Any, Final

import msgspec

from tillway.domain.charge import Charge
from tillway.domain.event import EventReading
from tillway.domain.record import Record
from tillway.domain.refund import Refund
from tillway.domain.refusal import RULES, Refused
from tillway.engine.caller import Caller, Settings
from tillway.engine.client_secrets import ClientSecrets
from tillway.engine.clock import Clock
from tillway.engine.core import Engine, Load
from tillway.engine.ids import random_text
from tillway.http import late
from tillway.http.errors import render_refusal
from tillway.http.routes import PRESENTERS
from tillway.http.shapes import View, expand, render_record
from tillway.http.stencils import STENCILS
from tillway.http.versions import has_older_shapes, render_as_of

encode = msgspec.json.Encoder().encode

FLOODED: Final = frozenset((401, 403, 429))
"""The statuses of refusals of which a sender may cause hundreds a second."""

KEPT_MAX: Final = 256
"""Refusals that are kept as bytes: an attacker decides how many there are."""


async def kept(engine: Engine, asked: Caller, shown: dict[str, Any]) -> dict[str, Any]:
    """Keep the answer of what was done under the key of who `asked`, so that a repeat does not do it again."""
    await engine.keep_body(asked, encode(shown))
    return shown


class Renderer:
    def __init__(
        self,
        base_url: str,
        client_secrets: ClientSecrets,
        settings: Settings | None = None,
        *,
        clock: Clock | None = None,
        compares_stencils: bool = False,
    ) -> None:
        """`clock` tells the time of an answer. `compares_stencils`: each answer is also rendered without its stencil,
        and each event with its object as it is stored; both must be the same."""
        self.base_url = base_url
        self._clock = clock or Clock()
        self._compares_stencils = compares_stencils
        self.settings = settings or Settings()
        self.client_secrets = client_secrets
        self._kept: dict[tuple[str, str, str | None], tuple[int, bytes, bytes]] = {}
        """Refusals by code, message and parameter: their status, and what stands before and after the request's id."""

    def view(self, caller: Caller, now: int | None = None) -> View:
        """The view of an answer that is given now."""
        scope, converts = caller.scope, not caller.in_minor_units
        return View(
            scope.livemode,
            self.base_url,
            self.client_secrets,
            caller.api_version,
            self._clock.now_ms() // 1000 if now is None else now,
            converts,
            scope.key,
        )

    async def __call__(
        self, caller: Caller, load: Load, record: Record | None, refusal: Refused | None
    ) -> tuple[int, bytes]:
        shown = self.at_once(caller, record, refusal)
        if shown is not None:
            return shown
        if caller.presenter:
            late.load_rest()
            status, answer = await PRESENTERS[caller.presenter](load, record, refusal, caller)
            return status, encode(answer)
        if refusal is not None:
            status, error = self._refusal(caller, refusal)
            await self.render_older(error, load, self.view(caller))
            return status, encode(error)
        assert record is not None, "that is rendered at once"
        if caller.shows_charge and isinstance(record, Refund):
            record = await load.get(Charge, record.charge)
        view = self.view(caller)
        document = render_record(record, view)
        if caller.expand:
            await expand(document, caller.expand, load, view)
        if has_older_shapes(caller.api_version) and not caller.publishable:
            await self.render_older(document, load, view)
        return 200, encode(narrow_for(caller, document))

    def at_once(self, caller: Caller, record: Record | None, refusal: Refused | None) -> tuple[int, bytes] | None:
        """The same if no other record must be read for it, else None."""
        if caller.presenter:
            return None
        if refusal is not None:
            return None if caller.older_shapes and not caller.publishable else self.refusal(caller, refusal)
        if record is None:
            return 200, b"{}"
        version = caller.api_version
        if caller.expand or caller.shows_charge or (version is not None and has_older_shapes(version)):
            return None
        if caller.publishable or caller.kind == "ephemeral":
            return 200, encode(narrow_for(caller, render_record(record, self.view(caller))))
        stencils = STENCILS.get(type(record))
        if stencils is not None:
            # Without a view, which nearly no payment needs.
            marked = stencils.mark(record)
            filled = stencils.fill(
                record, marked, caller.scope.mode == "live", not caller.in_minor_units, self.client_secrets
            )
            body = filled or stencils.render_unlike(record, marked, self.view(caller))
        else:
            # An event shows its object as it was then, and asks for no other time.
            view = self.view(caller, record.created if type(record) is EventReading else None)
            view.takes_encoded = True
            body = encode(render_record(record, view))
        if self._compares_stencils:
            stored = msgspec.structs.replace(record, shown=None) if type(record) is EventReading else record
            assert body == encode(render_record(stored, self.view(caller))), f"the stencil of {record.id} differs"
        return 200, body

    async def render_older(self, document: dict[str, Any], load: Load, view: View) -> None:
        """Change an answer into the shapes of the caller's API version, which is an older one."""
        assert view.api_version is not None

        async def fill(node: dict[str, Any], field: str) -> None:
            await expand(node, (field,), load, view)

        await render_as_of(document, view.api_version, fill)

    def refusal(self, caller: Caller, refusal: Refused) -> tuple[int, bytes]:
        """Render the error object. Records among its details have their usual shape."""
        if refusal.details or refusal.decline_code is not None or RULES[refusal.code].status not in FLOODED:
            status, body = self._refusal(caller, refusal)
            return status, encode(body)
        return self.refusal_to_all(caller.request_id or "", refusal)

    def refusal_to_all(self, request_id: str, refusal: Refused) -> tuple[int, bytes]:
        """Render a refusal that is alike for all callers, and that a sender can cause by the hundred."""
        kept = self._kept.get((refusal.code, refusal.message, refusal.param))
        status, before, after = kept or self._keep(refusal)
        return status, b"".join((before, request_id.encode(), after))

    def _keep(self, refusal: Refused) -> tuple[int, bytes, bytes]:
        """Cut a refusal that is alike for all callers where the id of the request stands, and keep it."""
        mark = random_text(24)  # It stands nowhere in what the caller sent.
        status, body = render_refusal(refusal, request_id=mark, base_url=self.base_url)
        before, after = encode(body).split(mark.encode())
        if len(self._kept) >= KEPT_MAX:
            self._kept.clear()
        kept = self._kept[refusal.code, refusal.message, refusal.param] = status, before, after
        return kept

    def _refusal(self, caller: Caller, refusal: Refused) -> tuple[int, dict[str, Any]]:
        shown = refusal
        if refusal.details:
            view = self.view(caller)
            details: dict[str, Any] = {
                name: render_record(value, view) if isinstance(value, Record) else value
                for name, value in refusal.details.items()
            }
            shown = Refused(
                refusal.code, refusal.message, param=refusal.param, decline_code=refusal.decline_code, **details
            )
        status, body = render_refusal(shown, request_id=caller.request_id or "", base_url=self.base_url)
        body = narrow_for(caller, body)
        if status == 404 and not _is_of_address(caller, refusal):
            status = 400
        return status, body


def _is_of_address(caller: Caller, refusal: Refused) -> bool:
    """Whether the missing object stands in the address of the request, not in its parameters or in another object."""
    param = refusal.param
    if param is None or param == "id" or not caller.ids:
        return param is None or param.partition("[")[0] not in caller.sent
    return any(f"'{id[:100]}'" in refusal.message for id in caller.ids)


_PRIVATE: Final = frozenset(
    (
        "balance_transaction",
        "customer",
        "dispute",
        "fraud_details",
        "metadata",
        "on_behalf_of",
        "outcome",
        "review",
        "source_api",
        "transfer_data",
    )
)

_MERCHANTS: Final = frozenset(("metadata",))
"""Stripe shows metadata to secret keys alone (https://github.com/stripe/stripe-android/pull/2704)."""


def narrow_for(caller: Caller, document: dict[str, Any]) -> dict[str, Any]:
    """Return the document as the caller may see it: for a publishable key without the fields that concern only merchant
    and platform, for an ephemeral key without metadata, also in the objects within it, such as expanded ones and the
    payment of an error."""
    if caller.publishable:
        return _without(document, _PRIVATE)
    return _without(document, _MERCHANTS) if caller.kind == "ephemeral" else document


def _without(document: dict[str, Any], private: frozenset[str]) -> dict[str, Any]:
    left_out = private if "object" in document else frozenset[str]()
    return {name: _narrow(value, private) for name, value in document.items() if name not in left_out}


def _narrow(value: Any, private: frozenset[str]) -> Any:
    if type(value) is dict:
        return _without(value, private)
    return [_narrow(member, private) for member in value] if type(value) is list else value
