"""Webhook endpoints: parameters, calls and shape."""

from difflib import get_close_matches
from typing import Any

from tillway.domain.commands import CreateEndpoint, UpdateEndpoint
from tillway.domain.event import NewEndpoint, WebhookEndpoint
from tillway.domain.event_types import EVENT_TYPES, EVERYTHING
from tillway.domain.refusal import Refused
from tillway.http.lists import list_page
from tillway.http.params import Array, Boolean, Enum, Expand, Metadata, Params, Text, Url, list_params, pick
from tillway.http.routes import Answer, Call, route
from tillway.http.shapes import View, render_record, shape
from tillway.http.versions import check_version
from tillway.http.wire import quote


class EventType(Enum):
    """An event type of Stripe's, or `*`. The refusal names a similar type, because the whole list would fill a page."""

    def __init__(self) -> None:
        super().__init__(EVERYTHING, *sorted(EVENT_TYPES))

    def read(self, value: Any, name: str) -> str | None:
        try:
            return super().read(value, name)
        except Refused as refused:
            if refused.code != "parameter_invalid_enum":
                raise
            text = value if isinstance(value, str) else ""
            near = get_close_matches(text[:100], EVENT_TYPES, n=1, cutoff=0.8)
            hint = f" Did you mean {near[0]}?" if near else " See https://docs.stripe.com/api/events/types."
            raise Refused(
                refused.code, f"Invalid {quote(name)}: {quote(text)!r} is no event type.{hint}", param=refused.param
            ) from None


class Version(Text):
    """An API version: a date, followed by a name since 2024."""

    def __init__(self) -> None:
        super().__init__(maximum=40)

    def _check(self, text: str, name: str) -> str:
        try:
            check_version(text)
        except Refused as refused:
            raise Refused(refused.code, f"Invalid API version: {quote(text)}", param=quote(name)) from None
        return text


_TYPES = Array(EventType(), minimum=1, maximum=len(EVENT_TYPES))

CREATE = Params(
    api_version=Version(),
    connect=Boolean(),
    description=Text(unsettable=True),
    enabled_events=Array(EventType(), minimum=1, maximum=len(EVENT_TYPES), required=True),
    expand=Expand(),
    metadata=Metadata(),
    url=Url(required=True),
)
UPDATE = Params(
    description=Text(unsettable=True),
    disabled=Boolean(),
    enabled_events=_TYPES,
    expand=Expand(),
    metadata=Metadata(),
    url=Url(),
)
EXPAND_ONLY = Params(expand=Expand())


@route("POST", "/v1/webhook_endpoints", CREATE, returns="webhook_endpoint")
async def create(call: Call) -> Answer:
    """Create a webhook endpoint. Only this answer holds its signing secret."""
    if call.params.get("connect"):
        raise Refused(
            "parameter_unsupported",
            "Tillway does not support connect (Connect accounts). Leave it out of the request.",
            param="connect",
        )
    return await call.platform.webhooks.create_endpoint(call.caller, CreateEndpoint(**_fields(call.params)))


@route("GET", "/v1/webhook_endpoints", list_params(), returns="list", of="webhook_endpoint")
async def list_endpoints(call: Call) -> Answer:
    """List webhook endpoints, newest first."""
    return await list_page(call, "we", noun="webhook endpoint")


@route("GET", "/v1/webhook_endpoints/{id}", EXPAND_ONLY, returns="webhook_endpoint")
async def retrieve(call: Call) -> Answer:
    """Retrieve a webhook endpoint, without its secret."""
    return await call.platform.engine.load(call.caller.scope_key).get(WebhookEndpoint, call.id)


@route("POST", "/v1/webhook_endpoints/{id}", UPDATE, returns="webhook_endpoint")
async def update(call: Call) -> Answer:
    """Change a webhook endpoint, or switch it off or on with `disabled`."""
    return await call.platform.webhooks.update_endpoint(call.caller, call.id, UpdateEndpoint(**_fields(call.params)))


@route("DELETE", "/v1/webhook_endpoints/{id}", returns="deleted_webhook_endpoint")
async def delete(call: Call) -> Answer:
    """Delete a webhook endpoint and its open deliveries."""
    await call.platform.webhooks.delete_endpoint(call.caller, call.id)
    return {"id": call.id, "object": "webhook_endpoint", "deleted": True}


def _fields(params: dict[str, Any]) -> dict[str, Any]:
    fields = pick(params, "api_version", "description", "disabled", "enabled_events", "metadata", "url")
    if "enabled_events" in fields:
        fields["enabled_events"] = tuple(fields["enabled_events"])
    return fields


@shape(WebhookEndpoint)
def endpoint_shape(endpoint: WebhookEndpoint, view: View) -> dict[str, Any]:
    return {
        "id": endpoint.id,
        "object": "webhook_endpoint",
        "api_version": endpoint.api_version,
        "application": None,
        "created": endpoint.created,
        "description": endpoint.description,
        "enabled_events": list(endpoint.enabled_events),
        "livemode": view.livemode,
        "metadata": endpoint.metadata,
        "status": "disabled" if endpoint.disabled else "enabled",
        "url": endpoint.url,
    }


@shape(NewEndpoint, object="webhook_endpoint")
def new_endpoint_shape(new: NewEndpoint, view: View) -> dict[str, Any]:
    return {**render_record(new.endpoint, view), "secret": new.secret}
