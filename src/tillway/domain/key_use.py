"""When a credential was last used."""

from tillway.domain.record import Record


class KeyUse(Record, frozen=True, kw_only=True):
    """The last use of an API key, a client or an operator, whose id follows the prefix `kyu_`; epoch seconds."""

    last_used_at: int


def use_id(credential: str) -> str:
    """The id of the record of a credential (`key_…`, `oac_…`, `opr_…`)."""
    return f"kyu_{credential}"
