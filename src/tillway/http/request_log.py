"""The last refused requests, by id. The `request_log_url` of an error leads to them."""

from collections import OrderedDict
from typing import Any

KEPT_MAX = 2000


class RequestLog:
    """Keeps the last KEPT_MAX refusals in memory: a help for developers who integrate, not a record."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], dict[str, Any]] = OrderedDict()

    def keep(self, scope_key: str, request_id: str, document: dict[str, Any]) -> None:
        self._kept[scope_key, request_id] = document
        if len(self._kept) > KEPT_MAX:
            self._kept.popitem(last=False)

    def find(self, scope_key: str, request_id: str) -> dict[str, Any] | None:
        return self._kept.get((scope_key, request_id))
