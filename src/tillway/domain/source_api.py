"""The HTTP contracts that make objects: `/v1` and one for each source system."""

from enum import Enum


class SourceApi(Enum):
    """The contract of the request that made an object.

    Members carry the public name: API objects, list filters, metrics, logs and the audit trail say `name`. Values are
    those in rows and index terms, under STORED_FIELD. They are the values of the first releases and stay: rows in a
    store need no rewriting, and an older process can read, list and rewrite the rows of a newer one.
    """

    v1 = "v1"
    gateway = "gateway"
    token_charge = "charge"
    online_platform = "platform"
    disbursements = "disbursement"
    orders = "orders"


SOURCE_API_NAMES = tuple(api.name for api in SourceApi)
"""The public names, in the order of the documentation."""

STORED_FIELD = "door"
"""The name in stored rows and index terms of the field `source_api`."""

_PUBLIC_NAMES = {api.value: api.name for api in SourceApi}


def public_name(stored: str) -> str:
    """The public name of a stored value; an unknown value is returned as it is."""
    return _PUBLIC_NAMES.get(stored, stored)
