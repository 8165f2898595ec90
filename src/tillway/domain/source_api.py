"""The HTTP contracts that objects are made through: `/v1` and one for each source system."""

from enum import Enum


class SourceApi(Enum):
    """The contract of the request that made an object.

    Members carry the public name: API objects, list filters, metrics, logs and the audit trail say `name`. Values are
    what rows and index terms say, under STORED_FIELD. Those are the words of the first releases and stay: rows that lie
    in a store need no rewriting, and an older process can read, list and rewrite what a newer one stored.
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
