"""Customer sessions: which of a customer's saved payment methods a shop's page may show and remove."""

from typing import Any, Final

from tillway.domain.payment_method import PaymentMethod
from tillway.domain.record import Changes, Moment, Record
from tillway.domain.refusal import Refused

LIFETIME_SECONDS: Final = 30 * 60

SHOWN_MAX: Final = 100
SHOWN_BY_DEFAULT: Final = 3
"""https://docs.stripe.com/api/customer_sessions/object, `payment_method_redisplay_limit` of the payment element."""

_SHEET: Final[dict[str, Any]] = {
    "payment_method_allow_redisplay_filters": ["always"],
    "payment_method_remove": "disabled",
}
_MOBILE: Final[dict[str, Any]] = {
    **_SHEET,
    "payment_method_redisplay": "disabled",
    "payment_method_save": "disabled",
    "payment_method_save_allow_redisplay_override": None,
}
_ELEMENT: Final[dict[str, Any]] = {
    **_SHEET,
    "payment_method_redisplay": "disabled",
    "payment_method_redisplay_limit": SHOWN_BY_DEFAULT,
    "payment_method_save": "disabled",
    "payment_method_save_usage": None,
}
COMPONENTS: Final[dict[str, dict[str, Any] | None]] = {
    "active_entitlements": None,
    "buy_button": None,
    "customer_portal": None,
    "customer_sheet": _SHEET,
    "mobile_payment_element": _MOBILE,
    "payment_element": _ELEMENT,
    "pricing_table": None,
}
"""Stripe's components, each with the defaults of its features; None: it has none."""


class CustomerSession(Record, frozen=True, kw_only=True):
    """The permission of a page to show saved payment methods of `customer`, until `expires_at` (epoch seconds).

    `components` has each of COMPONENTS as the API shows it.
    """

    customer: str
    components: dict[str, dict[str, Any]]
    expires_at: int

    @property
    def shown_max(self) -> int:
        """The most payment methods that a page may show; 0: none."""
        return max((limit for _, limit in self._showing()), default=0)

    def shows(self, method: PaymentMethod) -> bool:
        """Whether a page may show the method."""
        return method.customer == self.customer and any(
            method.allow_redisplay in features["payment_method_allow_redisplay_filters"]
            for features, _ in self._showing()
        )

    def removes(self, method: PaymentMethod) -> bool:
        """Whether a page may detach the method: one that a component shows which lets the customer remove it."""
        return method.customer == self.customer and any(
            features["payment_method_remove"] == "enabled"
            and method.allow_redisplay in features["payment_method_allow_redisplay_filters"]
            for features, _ in self._showing()
        )

    def _showing(self) -> list[tuple[dict[str, Any], int]]:
        """The features of the components that show saved methods, each with how many at most."""
        # A customer sheet has no switch: it is there for the saved methods.
        return [
            (features, features.get("payment_method_redisplay_limit", SHOWN_MAX))
            for component in self.components.values()
            if (features := component.get("features")) is not None
            and features.get("payment_method_redisplay", "enabled") == "enabled"
        ]


def create(customer: str, given: dict[str, dict[str, Any]], at: Moment) -> Changes[CustomerSession]:
    """Make a session of the components that are enabled. Refused if there is none, and for features of one that is
    not."""
    components: dict[str, dict[str, Any]] = {}
    for name, defaults in COMPONENTS.items():
        component = given.get(name) or {}
        enabled, features = component.get("enabled", False), component.get("features")
        if features and not enabled:
            raise Refused(
                "parameter_invalid_object",
                f"Features belong to a component that is enabled. Send components[{name}][enabled]=true.",
                param=f"components[{name}][features]",
            )
        components[name] = {"enabled": enabled}
        if defaults is not None:
            components[name]["features"] = {**defaults, **(features or {})} if enabled else None
    if not any(component["enabled"] for component in components.values()):
        raise Refused(
            "parameter_invalid_object",
            "Enable at least one component, for example components[payment_element][enabled]=true.",
            param="components",
        )
    session = CustomerSession(
        id=at.new_id("cuss"),
        created=at.created,
        customer=customer,
        components=components,
        expires_at=at.now + LIFETIME_SECONDS,
    )
    return Changes(result=session, records=(session,))
