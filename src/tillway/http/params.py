"""Definitions of the parameters of a route, and their validation.

    CAPTURE = Params(
        amount_to_capture=Amount(),
        final_capture=Boolean(),
        metadata=Metadata(),
        application_fee_amount=Unsupported("Connect accounts"),
        expand=Expand(),
    )
    params = CAPTURE.validate(parse_body(content_type, body))

`validate` returns a dict of typed values that holds only the parameters that were sent. An empty string or a JSON null
means "unset": the value of an `unsettable` parameter is then None; any other parameter is refused, as Stripe does. A
number or boolean may be written as text, because a form has only text. Errors have Stripe's codes and wording, and name
a nested parameter as `card[number]`. They never repeat a possible card number. Free text that holds one is refused.

The same definitions yield the JSON schemas of the OpenAPI document. Work that does not depend on the request is done
once, when a definition is made at import.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal
from typing import Any, Final, NoReturn
from urllib.parse import urlsplit

import msgspec

from tillway.domain.cards import contains_card_number
from tillway.domain.charge import STATEMENT_DESCRIPTOR_MAX, descriptor_fault
from tillway.domain.country import COUNTRIES
from tillway.domain.late_pattern import late_pattern
from tillway.domain.money import AMOUNT_MAX, AMOUNT_MIN, check_amount, check_currency
from tillway.domain.record import METADATA_KEYS_MAX
from tillway.domain.refusal import Refused
from tillway.http.wire import quote

INTEGER_MAX: Final = 99_999_999_999
"""The largest magnitude of an integer parameter: eleven digits, so that no card number passes as one."""

TEXT_MAX: Final = 5000
OPEN_TEXT_MAX: Final = 20_000
"""The most characters of all names and values of an `Open` parameter: to search 300,000 of them for card numbers held
the event loop for 0.7 s."""

ID_MAX: Final = 255
EMAIL_MAX: Final = 254
"""The longest e-mail address, in characters (RFC 5321, 4.5.3.1.3, less the angle brackets)."""

URL_MAX: Final = 2048
SECRET_MAX: Final = 64

METADATA_KEY_MAX: Final = 40
METADATA_VALUE_MAX: Final = 500
"""Stripe's bounds, https://docs.stripe.com/api/metadata."""

EXPAND_MAX: Final = 20
EXPAND_DEPTH_MAX: Final = 4
LIMIT_MAX: Final = 100
LIMIT_DEFAULT: Final = 10
"""The page size of a list if `limit` was not sent."""

TIME_MAX: Final = 253_402_300_799
"""The last second of the year 9999, in epoch seconds."""

DIGITS_MAX: Final = 19
"""The longest integer that is read, in characters."""

SECURITY_CODES: Final = frozenset(("cvc", "cvv"))
"""The names of a card's security code, wherever it stands."""

_UNKNOWN_SHOWN_MAX = 5

Reader = Callable[[dict[str, Any]], dict[str, Any] | None]
"""From parameters of the names that it was written for, in their order, to typed values; None if one is not plain."""


Form = Callable[[str], dict[str, Any] | None]
"""From the text of a form with the names that it was written for to its parameters; None for any other text."""


class Parameter:
    """The definition of one parameter. The module's docstring explains `unsettable`."""

    shape = "scalar"

    def __init__(self, *, required: bool = False, unsettable: bool = False) -> None:
        self.required = required
        self.unsettable = unsettable

    def read(self, value: Any, name: str) -> Any:
        """Return the typed value, None if it was unset. Raises `Refused`. `name` is the parameter's full name."""
        raise NotImplementedError

    def schema(self) -> dict[str, Any]:
        """Return the JSON schema of a value that is not unset."""
        raise NotImplementedError

    def openapi(self) -> dict[str, Any]:
        """Return the JSON schema of the parameter."""
        if self.unsettable:
            return {"anyOf": [self.schema(), {"type": "string", "enum": [""]}]}
        return self.schema()

    def _check_unsettable(self, name: str) -> None:
        """Return None. Raises `Refused` if the parameter is not `unsettable`."""
        if not self.unsettable:
            raise Refused(
                "parameter_invalid_empty",
                f"You passed an empty string for '{quote(name)}'. We assume empty values are an attempt to unset a "
                f"parameter; however '{quote(name)}' cannot be unset. You should remove '{quote(name)}' from your "
                "request or supply a non-empty value.",
                param=quote(name),
            )


class Integer(Parameter):
    """An integer in plain digits from `minimum` to `maximum`, both inclusive. Booleans and fractions are refused."""

    def __init__(
        self,
        *,
        minimum: int = -INTEGER_MAX,
        maximum: int = INTEGER_MAX,
        required: bool = False,
        unsettable: bool = False,
    ) -> None:
        super().__init__(required=required, unsettable=unsettable)
        self.minimum = minimum
        self.maximum = maximum

    def read(self, value: Any, name: str) -> int | None:
        if type(value) is str and value.isdecimal() and value.isascii() and len(value) <= DIGITS_MAX:
            number = int(value)
        elif type(value) is int:
            number = value
        elif value == "" or value is None:
            self._check_unsettable(name)
            return None
        else:
            number = _parse_integer(value, name)
        return self._check_bounds(number, name)

    def _check_bounds(self, number: int, name: str) -> int:
        if number < self.minimum:
            _refuse_integer(f"This value must be greater than or equal to {self.minimum}.", name)
        if number > self.maximum:
            _refuse_integer(f"This value must be less than or equal to {self.maximum}.", name)
        return number

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "minimum": self.minimum, "maximum": self.maximum}


class Amount(Integer):
    """An amount in minor units from 1 to `maximum`, both inclusive.

    On `/v1` the maximum is that of the largest currency; `domain.amount_limits` checks the currency's own.
    """

    def __init__(self, *, maximum: int = AMOUNT_MAX, required: bool = False, unsettable: bool = False) -> None:
        super().__init__(minimum=AMOUNT_MIN, maximum=maximum, required=required, unsettable=unsettable)

    def _check_bounds(self, number: int, name: str) -> int:
        return check_amount(number, name, self.maximum)


class MajorUnits(Parameter):
    """An amount in major units: a JSON number, exactly as it was written and never a float.

    `money.major_to_minor` converts it, because its minor units depend on the currency. `minimum` and `maximum` are for
    the schema only; the handler, which knows the currency, enforces them.
    """

    def __init__(self, *, minimum: int = 0, maximum: int | None = None, required: bool = False) -> None:
        super().__init__(required=required)
        self.minimum = minimum
        self.maximum = maximum

    def read(self, value: Any, name: str) -> int | Decimal:
        if type(value) is not int and type(value) is not Decimal:
            raise Refused(
                "parameter_invalid_string",
                f"Write {quote(name)} as a JSON number in major units, such as 10.50.",
                param=quote(name),
            )
        if value < 0:
            raise Refused("amount_too_small", "An amount cannot be negative.", param=quote(name))
        return value

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "number", "minimum": self.minimum, "description": "Major units: 10.50."}
        if self.maximum is not None:
            schema["maximum"] = self.maximum
        return schema


class Timestamp(Integer):
    """A time in epoch seconds."""

    def __init__(self, *, required: bool = False, unsettable: bool = False) -> None:
        super().__init__(minimum=0, maximum=TIME_MAX, required=required, unsettable=unsettable)

    def schema(self) -> dict[str, Any]:
        return {"type": "integer", "format": "unix-time", "minimum": 0, "maximum": TIME_MAX}


class Limit(Integer):
    """The largest number of objects on a page; `default` tells how many there are if it was not sent."""

    def __init__(self, default: int = LIMIT_DEFAULT) -> None:
        super().__init__(minimum=1, maximum=LIMIT_MAX)
        self._default = default

    def schema(self) -> dict[str, Any]:
        return {**super().schema(), "default": self._default}


class Boolean(Parameter):
    """A JSON boolean, or the text `true` or `false`; stripe-python before 12.5 sends `True` and `False`."""

    def read(self, value: Any, name: str) -> bool | None:
        if value is True or value == "true" or value == "True":
            return True
        if value is False or value == "false" or value == "False":
            return False
        if value == "" or value is None:
            self._check_unsettable(name)
            return None
        raise Refused("parameter_invalid_boolean", f"Invalid boolean: {_quote(value)}", param=quote(name))

    def schema(self) -> dict[str, Any]:
        return {"type": "boolean"}


class Text(Parameter):
    """Free text of at most `maximum` characters that holds no card number and is not blank."""

    _free = True

    def __init__(self, *, maximum: int = TEXT_MAX, required: bool = False, unsettable: bool = False) -> None:
        super().__init__(required=required, unsettable=unsettable)
        self.maximum = maximum

    def read(self, value: Any, name: str) -> str | None:
        if type(value) is not str or not value:
            if value == "" or value is None:
                self._check_unsettable(name)
                return None
            _refuse_string(value, name)
        if len(value) > self.maximum:
            _refuse_long(value, self.maximum, name)
        if value.isspace():
            raise Refused("parameter_invalid_string_blank", param=quote(name))
        if self._free and contains_card_number(value):
            raise Refused("card_number_in_free_text", param=quote(name))
        return self._check(value, name)

    def _check(self, text: str, name: str) -> str:
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": self.maximum}


class ProviderText(Text):
    """Text that a provider has made and only it can read. It is not searched for card numbers: it may be encrypted."""

    _free = False


class Id(Text):
    """The id of an object, Tillway's or the caller's own. The handler checks that the object exists."""

    FORM = re.compile(r"[A-Za-z0-9_.:-]+")

    def __init__(self, *, required: bool = False, unsettable: bool = False) -> None:
        super().__init__(maximum=ID_MAX, required=required, unsettable=unsettable)

    def _check(self, text: str, name: str) -> str:
        if self.FORM.fullmatch(text) is None:
            raise Refused("resource_missing", f"No such {_last_step(name)}: '{quote(text)}'", param=quote(name))
        return text


class OwnId(Text):
    """A merchant's own id of an object. It may look like a card number; therefore no log line quotes such an id."""

    _free = False


class Email(Text):
    """An e-mail address as browsers check it (HTML, "valid e-mail address"), with at least two labels in its domain."""

    _FORM = late_pattern(
        r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@"
        r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)+[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    )

    def __init__(self, *, required: bool = False, unsettable: bool = False) -> None:
        super().__init__(maximum=EMAIL_MAX, required=required, unsettable=unsettable)

    def _check(self, text: str, name: str) -> str:
        if self._FORM.fullmatch(text) is None:
            raise Refused("email_invalid", f"Invalid email address: {quote(text)}", param=quote(name))
        return text

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "email", "maxLength": self.maximum}


class Url(Text):
    """An absolute http or https URL without credentials; with `app_schemes`, also one that opens an app (`shop://…`)."""

    _APP_SCHEME = late_pattern(r"[a-z][a-z0-9+.-]+")
    _NO_APPS = frozenset(
        {"about", "blob", "data", "file", "filesystem", "jar", "javascript", "vbscript", "view-source"}
    )
    """Schemes that the browser itself handles: a redirect to one could run a script or open a local file."""

    def __init__(self, *, app_schemes: bool = False, required: bool = False, unsettable: bool = False) -> None:
        super().__init__(maximum=URL_MAX, required=required, unsettable=unsettable)
        self.app_schemes = app_schemes

    def _check(self, text: str, name: str) -> str:
        if not self._usable(text):
            raise Refused("url_invalid", f"Not a valid URL: {quote(text)}", param=quote(name))
        return text

    def _usable(self, text: str) -> bool:
        if not text.isprintable() or " " in text or "\\" in text:
            return False
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError:
            return False
        if parts.scheme in ("http", "https"):
            return bool(parts.hostname) and port != 0 and "@" not in parts.netloc
        return (
            self.app_schemes
            and parts.scheme not in self._NO_APPS
            and self._APP_SCHEME.fullmatch(parts.scheme) is not None
            and text[len(parts.scheme) :].startswith("://")
        )

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "format": "uri", "maxLength": self.maximum}


class StatementDescriptor(Text):
    """The text on the cardholder's statement: at most 22 Latin characters, with a letter, and none of <>\\'\"*."""

    def __init__(self, *, required: bool = False, unsettable: bool = False) -> None:
        super().__init__(maximum=STATEMENT_DESCRIPTOR_MAX, required=required, unsettable=unsettable)

    def _check(self, text: str, name: str) -> str:
        fault = descriptor_fault(text)
        if fault:
            raise Refused("parameter_invalid_string", fault, param=quote(name))
        return text


class Hidden(str):
    """Text whose repr is masked, so that no traceback or log line shows it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'****'"


class CardField(Parameter):
    """Card data, such as a number or a security code: the only text that may hold a card number.

    Its value is `Hidden` text, also if JSON held an integer, and no error repeats it. `domain.cards` checks the digits.
    """

    def __init__(self, *, maximum: int = SECRET_MAX, required: bool = False, unsettable: bool = False) -> None:
        super().__init__(required=required, unsettable=unsettable)
        self.maximum = maximum

    def read(self, value: Any, name: str) -> Hidden | None:
        if value == "" or value is None:
            self._check_unsettable(name)
            return None
        if type(value) is int:
            value = str(value)
        if type(value) is not str or len(value) > self.maximum:
            raise Refused(
                "parameter_invalid_string",
                f"Invalid string; must be text of at most {self.maximum} characters",
                param=quote(name),
            )
        return Hidden(value)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": self.maximum, "writeOnly": True}


class Credential(Parameter):
    """A key or token in a body. Authentication has read it before; its value is dropped here."""

    def read(self, value: Any, name: str) -> Hidden:
        return Hidden()

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "writeOnly": True}


class AccountField(CardField):
    """The number of a bank account. It must be text: an integer loses leading zeros and so names another account."""

    def read(self, value: Any, name: str) -> Hidden | None:
        if type(value) is int:
            raise Refused(
                "parameter_invalid_string",
                "Invalid string; send it as text, because an integer has no leading zeros",
                param=quote(name),
            )
        return super().read(value, name)


class Enum(Parameter):
    """One of the given words."""

    def __init__(self, *words: str, required: bool = False, unsettable: bool = False) -> None:
        super().__init__(required=required, unsettable=unsettable)
        self.words = words
        self._known = frozenset(words)

    def read(self, value: Any, name: str) -> str | None:
        if type(value) is str and value in self._known:
            return value
        if value == "" or value is None:
            self._check_unsettable(name)
            return None
        raise Refused(
            "parameter_invalid_enum", f"Invalid {quote(name)}: must be {_one_of(self.words)}", param=quote(name)
        )

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "enum": list(self.words)}


class Currency(Parameter):
    """A currency of `money.MINOR_UNITS`, in any case; the value is in lower case."""

    def read(self, value: Any, name: str) -> str | None:
        if value == "" or value is None:
            self._check_unsettable(name)
            return None
        return check_currency(value if type(value) is str else "", name)

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 3, "maxLength": 3, "description": "ISO 4217, in lower case"}


class Country(Parameter):
    """A country of ISO 3166-1 alpha-2, in any case; the value is in upper case."""

    def read(self, value: Any, name: str) -> str | None:
        if type(value) is str and value.isascii() and value.upper() in COUNTRIES:
            return value.upper()
        if value == "" or value is None:
            self._check_unsettable(name)
            return None
        raise Refused(
            "parameter_invalid_enum",
            f"Country '{_quote(value)}' is unknown. Use a two-letter code, such as 'DE' or 'US'.",
            param=quote(name),
        )

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "minLength": 2, "maxLength": 2, "description": "ISO 3166-1 alpha-2"}


class Metadata(Parameter):
    """Key-value notes of the caller. The value is a dict in which None marks a key to delete, or None: delete all.

    Use `merged` to apply it. Always unsettable. Numbers and booleans in JSON become the text that a form would send.
    """

    shape = "object"

    def __init__(self) -> None:
        super().__init__(unsettable=True)

    def read(self, value: Any, name: str) -> dict[str, str | None] | None:
        if type(value) is not dict:
            if value == "" or value is None:
                return None
            _refuse_object(name)
        _check_metadata_count(len(value), name)
        return {key: self._value(key, text, name) for key, text in value.items()}

    def _value(self, key: str, value: Any, name: str) -> str | None:
        if len(key) > METADATA_KEY_MAX:
            _refuse_long(key, METADATA_KEY_MAX, name)
        member = f"{name}[{key}]"
        if not key or "[" in key or "]" in key:
            raise Refused(
                "parameter_invalid_string",
                "Metadata keys can be neither empty nor hold square brackets.",
                param=quote(member),
            )
        if value is None or value == "":
            text = None
        elif type(value) is str:
            text = value
        elif type(value) is bool:
            text = "true" if value else "false"
        elif type(value) is int or type(value) is Decimal:
            text = str(value)
        else:
            _refuse_string(value, member)
        if text is not None and len(text) > METADATA_VALUE_MAX:
            _refuse_long(text, METADATA_VALUE_MAX, member)
        if contains_card_number(key) or (text is not None and contains_card_number(text)):
            raise Refused("card_number_in_free_text", param=quote(member))
        return text

    def schema(self) -> dict[str, Any]:
        return {
            "type": "object",
            "additionalProperties": {"type": "string", "maxLength": METADATA_VALUE_MAX},
            "maxProperties": METADATA_KEYS_MAX,
        }


class Object(Parameter):
    """A dict with the given members, and no others."""

    shape = "object"

    def __init__(self, *, required: bool = False, unsettable: bool = False, **members: Parameter) -> None:
        super().__init__(required=required, unsettable=unsettable)
        self.members = members
        self._read = {name: member.read for name, member in members.items()}
        self._required = frozenset(name for name, member in members.items() if member.required)
        self._ignored = frozenset(name for name, member in members.items() if isinstance(member, Ignored))

    def read(self, value: Any, name: str) -> dict[str, Any] | None:
        if type(value) is not dict:
            if value == "" or value is None:
                self._check_unsettable(name)
                return None
            _refuse_object(name)
        return self._read_members(value, name)

    def _read_members(self, raw: dict[str, Any], name: str) -> dict[str, Any]:
        readers = self._read
        values: dict[str, Any] = {}
        try:
            for key, value in raw.items():
                # A name that Tillway defined, so there is nothing to hide.
                values[key] = readers[key](value, f"{name}[{key}]" if name else key)
        except (KeyError, Refused):
            # Unknown names are refused before wrong values, in any order.
            if not raw.keys() <= readers.keys():
                self._refuse_unknown(raw, name)
            raise
        for key in self._required:
            if key not in values:
                self._refuse_missing(values, name)
        if not self._ignored.isdisjoint(values):
            for key in self._ignored:
                values.pop(key, None)
        return values

    def _refuse_unknown(self, raw: dict[str, Any], name: str) -> NoReturn:
        unknown = [key for key in raw if key not in self._read]
        names = [quote(_member(name, key)) for key in unknown[:_UNKNOWN_SHOWN_MAX]]
        if len(unknown) > 1:
            more = ", …" if len(unknown) > _UNKNOWN_SHOWN_MAX else ""
            raise Refused("parameter_unknown", f"Received unknown parameters: {', '.join(names)}{more}", param=names[0])
        from difflib import get_close_matches  # Half as long to import as all of this file.

        close = get_close_matches(unknown[0], self._read, n=1, cutoff=0.7)
        hint = f". Did you mean {_member(name, close[0])}?" if close else ""
        raise Refused("parameter_unknown", f"Received unknown parameter: {names[0]}{hint}", param=names[0])

    def _refuse_missing(self, values: dict[str, Any], name: str) -> NoReturn:
        first = next(key for key in self.members if key in self._required and key not in values)
        missing = _member(name, first)
        raise Refused("parameter_missing", f"Missing required param: {missing}.", param=missing)

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {
            "type": "object",
            "properties": {name: member.openapi() for name, member in self.members.items()},
            "additionalProperties": False,
        }
        if self._required:
            schema["required"] = [name for name in self.members if name in self._required]
        return schema


class Address(Object):
    def __init__(self, *, required: bool = False, unsettable: bool = False) -> None:
        super().__init__(
            required=required,
            unsettable=unsettable,
            city=Text(unsettable=True),
            country=Country(unsettable=True),
            line1=Text(unsettable=True),
            line2=Text(unsettable=True),
            postal_code=Text(unsettable=True),
            state=Text(unsettable=True),
        )


class Shipping(Object):
    def __init__(self, *, required: bool = False, unsettable: bool = False) -> None:
        super().__init__(
            required=required,
            unsettable=unsettable,
            address=Address(required=True),
            name=Text(required=True),
            phone=Text(maximum=100, unsettable=True),
            carrier=Text(unsettable=True),
            tracking_number=Text(unsettable=True),
        )


class Open(Parameter):
    """An object with any members, as deep as `wire` allows, without card numbers and overlong texts.

    All its texts have at most OPEN_TEXT_MAX characters.
    """

    shape = "object"

    def read(self, value: Any, name: str) -> Any:
        if value == "" or value is None:
            self._check_unsettable(name)
            return None
        texts = list(_texts(value, name))
        if sum(len(text) for text, _ in texts) > OPEN_TEXT_MAX:
            message = f"Invalid object: all its names and values must be at most {OPEN_TEXT_MAX} characters"
            raise Refused("parameter_invalid_object", message, param=quote(name))
        for text, member in texts:
            if len(text) > TEXT_MAX:
                _refuse_long(text, TEXT_MAX, member)
            if contains_card_number(text):
                raise Refused("card_number_in_free_text", param=quote(member))
        if type(value) is not dict:
            _refuse_object(name)
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "object"}


class Ignored(Parameter):
    """A parameter that is accepted and dropped, such as the facts that Stripe.js reports about the browser."""

    shape = "any"

    def read(self, value: Any, name: str) -> None:
        return None

    def schema(self) -> dict[str, Any]:
        return {"description": "Accepted and ignored."}


class Unsupported(Parameter):
    """A parameter of Stripe's that Tillway lacks and refuses by name. `reason` names the missing feature."""

    shape = "any"

    def __init__(self, reason: str) -> None:
        super().__init__()
        self.reason = reason

    def read(self, value: Any, name: str) -> NoReturn:
        raise Refused(
            "parameter_unsupported",
            f"Tillway does not support {name} ({self.reason}). Leave it out of the request.",
            param=name,
        )

    def schema(self) -> dict[str, Any]:
        return {"not": {}, "description": f"Not supported: {self.reason}."}


class Array(Parameter):
    """A list of `minimum` to `maximum` elements, each read by `of`."""

    shape = "array"

    def __init__(
        self, of: Parameter, *, maximum: int = 100, minimum: int = 0, required: bool = False, unsettable: bool = False
    ) -> None:
        super().__init__(required=required, unsettable=unsettable)
        self.of = of
        self.minimum = minimum
        self.maximum = maximum

    def read(self, value: Any, name: str) -> list[Any] | None:
        if type(value) is not list:
            if value == "" or value is None:
                self._check_unsettable(name)
                return None
            raise Refused("parameter_invalid_array", f"Invalid array; write {quote(name)}[0]=…", param=quote(name))
        if not self.minimum <= len(value) <= self.maximum:
            raise Refused(
                "parameter_invalid_array",
                f"Invalid array: must have {self.minimum} to {self.maximum} elements, and has {len(value)}",
                param=quote(name),
            )
        return [self.of.read(element, f"{name}[{i}]") for i, element in enumerate(value)]

    def schema(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "array", "items": self.of.openapi(), "maxItems": self.maximum}
        if self.minimum:
            schema["minItems"] = self.minimum
        return schema


class Expand(Array):
    """The references to expand into objects: dotted paths of at most four steps, including `data`."""

    def __init__(self) -> None:
        super().__init__(_ExpandPath(), maximum=EXPAND_MAX, unsettable=True)


class _ExpandPath(Parameter):
    _FORM = late_pattern(r"[a-z0-9_]+(?:\.[a-z0-9_]+)*")

    def read(self, value: Any, name: str) -> str:
        if type(value) is not str or len(value) > ID_MAX or self._FORM.fullmatch(value) is None:
            raise Refused(
                "parameter_invalid_string",
                f"This property cannot be expanded: {_quote(value)}. Write a path such as latest_charge.refunds.",
                param=name,
            )
        if value.count(".") >= EXPAND_DEPTH_MAX:
            raise Refused(
                "parameter_invalid_string",
                f"You cannot expand more than {EXPAND_DEPTH_MAX} levels of a property: {quote(value)}",
                param=name,
            )
        return value

    def schema(self) -> dict[str, Any]:
        return {"type": "string", "maxLength": ID_MAX}


class AnyOf(Parameter):
    """A parameter with several definitions, of which the first that accepts the value reads it.

    The refusal is that of the last definition with the value's shape (a dict, a list, else a plain value).
    """

    shape = "any"

    def __init__(self, *definitions: Parameter, required: bool = False, unsettable: bool = False) -> None:
        super().__init__(required=required, unsettable=unsettable)
        self.definitions = definitions
        self._by_shape = {
            shape: [one for one in definitions if one.shape in (shape, "any")] or list(definitions)
            for shape in ("scalar", "object", "array")
        }

    def read(self, value: Any, name: str) -> Any:
        if value == "" or value is None:
            self._check_unsettable(name)
            return None
        shape = "object" if type(value) is dict else "array" if type(value) is list else "scalar"
        *others, last = self._by_shape[shape]
        for definition in others:
            try:
                return definition.read(value, name)
            except Refused as refused:
                if refused.code == "card_number_in_free_text":
                    raise
        return last.read(value, name)

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [definition.openapi() for definition in self.definitions]}


class Span(msgspec.Struct, frozen=True):
    """A time span in epoch seconds, both ends inclusive. It is empty if `first` is after `last`."""

    first: int = 0
    last: int = TIME_MAX

    def __contains__(self, time: int) -> bool:
        return self.first <= time <= self.last


class Created(Parameter):
    """A filter by time: one epoch second, or any of `[gt]`, `[gte]`, `[lt]`, `[lte]`. The value is a `Span`."""

    shape = "any"
    _time = Timestamp()
    _bounds = Object(gt=_time, gte=_time, lt=_time, lte=_time)

    def read(self, value: Any, name: str) -> Span | None:
        if type(value) is not dict:
            second = self._time.read(value, name)
            assert second is not None
            return Span(second, second)
        bounds = self._bounds._read_members(value, name)
        return Span(
            max(bounds.get("gte", 0), bounds.get("gt", -1) + 1),
            min(bounds.get("lte", TIME_MAX), bounds.get("lt", TIME_MAX + 1) - 1),
        )

    def schema(self) -> dict[str, Any]:
        return {"anyOf": [self._bounds.schema(), self._time.schema()]}


def pick(params: dict[str, Any], *names: str) -> dict[str, Any]:
    """Return those of the named parameters that were sent."""
    return {name: params[name] for name in names if name in params}


class Params(Object):
    """The parameters of one route."""

    def __init__(self, **members: Parameter) -> None:
        super().__init__(required=False, unsettable=False, **members)
        self.exclusive: tuple[tuple[str, ...], ...] = ()
        self.readers: dict[tuple[str, ...], Reader | None] = {}
        """By the names that a request sent, of `plain_params`: its reader; None where there is none, or none yet."""
        self.forms: list[tuple[Form, Reader, bool]] = []
        """The forms that `plain_params` knows, the readers of their parameters, and whether these are texts without a
        security code; the last used one first."""
        self.forms_seen: set[tuple[str, ...]] = set()
        """The names of forms that were read once."""
        self.forms_missed = 0
        """The forms of other names since all of `forms` were found."""

    def at_most_one(self, *names: str) -> "Params":
        """Return these parameters with the rule that at most one of `names` may have a value."""
        assert self.members.keys() >= set(names)
        params = Params(**self.members)
        params.exclusive = (*self.exclusive, names)
        return params

    def extend(self, **members: Parameter) -> "Params":
        """Return these parameters with others added or replaced, for a similar route or an older version."""
        params = Params(**{**self.members, **members})
        params.exclusive = self.exclusive
        return params

    def check_types(self, raw: dict[str, Any]) -> None:
        """Refuse the first parameter whose value has the wrong JSON type, whatever else is wrong with the request.

        An amount in minor units is a number here. Digits of other integers, such as a card's year, may be text.
        """
        for name, value in raw.items():
            parameter = self.members.get(name)
            if value is None:
                if parameter is not None and parameter.required:
                    raise Refused("parameter_missing", f"Missing required param: {name}.", param=name)
            elif isinstance(parameter, Credential):
                if type(value) is not str:
                    raise Refused("parameter_invalid_string", f"Invalid {quote(name)}: a string", param=quote(name))
            elif isinstance(parameter, Amount) and type(value) is str:
                _refuse_integer(f"Write {quote(name)} as a JSON number of minor units, such as 1050.", name)
            elif (
                (isinstance(parameter, Text | Currency) and type(value) is not str)
                or (isinstance(parameter, Integer) and type(value) is not int)
                or (isinstance(parameter, MajorUnits) and type(value) is not int and type(value) is not Decimal)
                or (isinstance(parameter, CardField) and type(value) is not str and type(value) is not int)
            ):
                parameter.read(value, name)

    def validate(self, raw: dict[str, Any]) -> dict[str, Any]:
        """Return the typed values of `raw`, parsed by `wire`. Raises `Refused`: unknown names first, missing last."""
        if not raw and not self._required:
            return {}
        values = self._read_members(raw, "")
        for names in self.exclusive:
            sent = [name for name in names if values.get(name) is not None]
            if len(sent) > 1:
                raise Refused(
                    "parameters_exclusive",
                    f"You may only specify one of these parameters: {', '.join(sent)}.",
                    param=sent[1],
                )
        return values

    def openapi_query(self) -> list[dict[str, Any]]:
        """Return the parameters as OpenAPI parameter objects of a query string."""
        return [
            {
                "name": name,
                "in": "query",
                "required": member.required,
                "style": "form" if member.shape == "scalar" else "deepObject",
                "explode": True,
                "schema": member.openapi(),
            }
            for name, member in self.members.items()
        ]


class KnownParams(Params):
    """The parameters of an address that other sites complete: those without a definition are passed over."""

    def validate(self, raw: dict[str, Any]) -> dict[str, Any]:
        return super().validate({name: value for name, value in raw.items() if name in self.members})


def drop_nulls(raw: Any, definition: Parameter) -> Any:
    """Return `raw` without the JSON nulls of members that `definition` knows.

    Some clients send a null for a field without a value. This is for contracts in which nothing can be unset.
    """
    match definition:
        case Object() if type(raw) is dict:
            members = definition.members
            return {
                name: drop_nulls(value, members[name]) if name in members else value
                for name, value in raw.items()
                if value is not None or name not in members
            }
        case Array() if type(raw) is list:
            return [drop_nulls(element, definition.of) for element in raw]
        case _:
            return raw


def list_params(**filters: Parameter) -> Params:
    """Return the parameters of a list: those of paging, `expand`, and the given filters."""
    return Params(
        limit=Limit(),
        starting_after=Id(),
        ending_before=Id(),
        expand=Expand(),
        include=Unsupported("the total count of a list"),
        **filters,
    ).at_most_one("starting_after", "ending_before")


def _texts(value: Any, name: str) -> Iterator[tuple[str, str]]:
    """Every name and value in `value` as text, with the name of its parameter."""
    if isinstance(value, dict):
        for key, member in value.items():
            yield key, name
            yield from _texts(member, f"{name}[{key}]")
    elif isinstance(value, list):
        for i, element in enumerate(value):
            yield from _texts(element, f"{name}[{i}]")
    elif value is not None:
        yield str(value), name


def _member(name: str, key: str) -> str:
    return f"{name}[{key}]" if name else key


def _last_step(name: str) -> str:
    return name.rstrip("]").rpartition("[")[2]


def _quote(value: Any) -> str:
    """Return the caller's value as a message may repeat it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str | int | Decimal):
        return quote(str(value))
    return "an array" if isinstance(value, list) else "an object"


def _one_of(words: Sequence[str]) -> str:
    """Join `words` as Stripe does: "one of a, b, or c"."""
    match words:
        case [only]:
            return only
        case [first, second]:
            return f"one of {first} or {second}"
        case _:
            return f"one of {', '.join(words[:-1])}, or {words[-1]}"


def _parse_integer(value: Any, name: str) -> int:
    if isinstance(value, str) and value[:1] == "-" and len(value) <= DIGITS_MAX:
        digits = value[1:]
        if digits.isdecimal() and digits.isascii():
            return -int(digits)
    _refuse_integer(f"Invalid integer: {_quote(value)}", name)


def _refuse_integer(message: str, name: str) -> NoReturn:
    raise Refused("parameter_invalid_integer", message, param=quote(name))


def _refuse_string(value: Any, name: str) -> NoReturn:
    raise Refused("parameter_invalid_string", f"Invalid string: {_quote(value)}", param=quote(name))


def _refuse_object(name: str) -> NoReturn:
    raise Refused("parameter_invalid_object", f"Invalid object; write {quote(name)}[…]=…", param=quote(name))


def _refuse_long(text: str, characters_max: int, name: str) -> NoReturn:
    raise Refused(
        "parameter_invalid_string",
        f"Invalid string: {quote(text, 20)}; must be at most {characters_max} characters",
        param=quote(name),
    )


def _check_metadata_count(keys: int, name: str) -> None:
    if keys > METADATA_KEYS_MAX:
        raise Refused(
            "parameter_invalid_object",
            f"Metadata can have at most {METADATA_KEYS_MAX} keys, and this has {keys}",
            param=quote(name),
        )
