"""The first records of an installation: an account and its keys."""

from typing import Any

import msgspec

from tillway.domain.account import SYSTEM, Account, Mode, Scope
from tillway.domain.api_key import ApiKey, hint_of, key_id
from tillway.domain.audit import TASK_ID
from tillway.domain.credentials import ClientSecret, OAuthClient, secret_digest
from tillway.domain.key_use import KeyUse, use_id
from tillway.domain.record import Record
from tillway.domain.retention import POLICY_ID, Retention
from tillway.engine.audit.entries import Author, build_writes, task_write
from tillway.engine.clock import Clock
from tillway.engine.ids import random_text
from tillway.engine.restores import set_form
from tillway.engine.time_mark import clock_above
from tillway.store.codec import by_parent, decode, write_of
from tillway.store.port import ABSENT, PAGE_MAX, Row, Store, Write

SECRET_LENGTH = 40
GET_MAX = 100
"""Most records that a store reads at once."""

KEYS_MAX = PAGE_MAX
"""Most keys of a merchant that a list shows."""
MODES: tuple[Mode, ...] = ("test", "live")
BY_ITSELF = Author("system", "create account")


class NewKey(msgspec.Struct, frozen=True):
    """An API key with its `secret`, which is shown once and stored nowhere."""

    record: ApiKey
    secret: str


def new_key(
    account: str,
    mode: Mode,
    kind: str,
    *,
    created: int,
    name: str = "",
    expires_at: int | None = None,
    scopes: tuple[str, ...] | None = None,
    origins: tuple[str, ...] = (),
) -> NewKey:
    """Make an API key. With `scopes` it is restricted to them, and begins with `rk_`."""
    prefix = "pk" if kind != "secret" else "sk" if scopes is None else "rk"
    secret = f"{prefix}_{mode}_{random_text(SECRET_LENGTH)}"
    record = ApiKey(
        id=key_id(secret),
        created=created,
        account=account,
        mode=mode,
        kind="secret" if kind == "secret" else "publishable",
        hint=hint_of(secret),
        name=name,
        expires_at=expires_at,
        scopes=scopes,
        origins=origins,
    )
    return NewKey(record, secret)


def describe_key(key: ApiKey, now: float) -> dict[str, Any]:
    """A key for lists, without its secret. `now` is epoch seconds."""
    ended = [at for at in (key.revoked_at, key.expires_at) if at is not None and at <= now]
    return {
        "id": key.id,
        "account": key.account,
        "mode": key.mode,
        "kind": key.kind,
        "hint": key.hint,
        "name": key.name,
        "scopes": list(key.scopes) if key.scopes is not None else None,
        "origins": list(key.origins),
        "created": key.created,
        "expires_at": key.expires_at,
        "revoked_at": key.revoked_at,
        "state": "active" if not ended else "revoked" if key.revoked_at in ended else "expired",
    }


async def keys_of(store: Store, scope: Scope) -> list[tuple[ApiKey, int | None]]:
    """The keys of a merchant in one mode, newest first, each with the time of its last use (epoch seconds)."""
    rows = await store.query("parent", by_parent(SYSTEM, "key", scope.account), limit=KEYS_MAX)
    found = [decode(row.key.partition("/")[2], row.body) for row in rows]
    keys = [key for key in found if isinstance(key, ApiKey) and key.mode == scope.mode]
    places = [f"{SYSTEM}/{use_id(key.id)}" for key in keys]
    uses: dict[str, Row] = {}
    for begin in range(0, len(places), GET_MAX):
        uses |= await store.get_many(places[begin : begin + GET_MAX])
    used = {place: use.last_used_at for place, row in uses.items() if isinstance(use := _use(row), KeyUse)}
    ordered = sorted(keys, key=lambda key: (key.created, key.id), reverse=True)
    return [(key, used.get(f"{SYSTEM}/{use_id(key.id)}")) for key in ordered]


def _use(row: Row) -> Record:
    return decode(row.key.partition("/")[2], row.body)


class NewClient(msgspec.Struct, frozen=True):
    """An OAuth 2 client with its `secret`, which is shown once and stored nowhere."""

    record: OAuthClient
    secret: str


def new_client(account: str, mode: Mode, scopes: tuple[str, ...], *, created: int, name: str = "") -> NewClient:
    kept, secret = new_client_secret(created)
    record = OAuthClient(
        id=f"oac_{random_text(20)}",
        created=created,
        account=account,
        mode=mode,
        scopes=scopes,
        secrets=(kept,),
        name=name,
    )
    return NewClient(record, secret)


def new_client_secret(created: int) -> tuple[ClientSecret, str]:
    """The stored form of a new secret, and the secret."""
    secret = f"ocs_{random_text(SECRET_LENGTH)}"
    return ClientSecret(digest=secret_digest(secret), hint=f"ocs_…{secret[-4:]}", created=created), secret


def new_account(*, created: int, name: str = "") -> Account:
    return Account(id=f"acct_{random_text(16)}", created=created, name=name, amounts_on_v1="stripe")


async def create_account(
    store: Store, clock: Clock, *, name: str = "", by: Author = BY_ITSELF
) -> tuple[Account, list[NewKey]]:
    """Create an account with a test and a live key pair, in one commit. The keys come in the order test secret, test
    publishable, live secret, live publishable."""
    at = clock.moment()
    account = new_account(created=at.created, name=name)
    keys = _key_pairs(account.id, at.created)
    records: list[Record] = [account, *(key.record for key in keys)]
    await store.commit(
        [
            *build_writes(SYSTEM, by, at, *((ABSENT, None, record) for record in records)),
            *(task_write(Scope(account=account.id, mode=mode).key, at.now_ms) for mode in MODES),
        ]
    )
    return account, keys


async def is_founded(store: Store) -> bool:
    """Whether the store holds an installation: its first account is made last."""
    return bool(await store.query(None, f"{SYSTEM}/acct_", limit=1))


async def found(store: Store, *, name: str, by: Author) -> dict[str, Any]:
    """Make the first records of an installation in an empty store, and return its account with its keys as
    `first_use` shows them. One that was interrupted can be repeated."""
    await set_form(store, "now")
    clock = await clock_above(store)
    if await store.get(f"{SYSTEM}/{TASK_ID}") is None:  # A server would make it, but there may never be one.
        await store.commit([task_write(SYSTEM, clock.now_ms())])
    account, keys = await create_account(store, clock, name=name, by=by)
    return first_use(account, keys)


def first_use(account: Account, keys: list[NewKey]) -> dict[str, Any]:
    """The document of an account with new keys, which is shown once. `keys` has the order of `create_account`."""
    secret, publishable, live_secret, live_publishable = (key.secret for key in keys)
    return {
        "account": account.id,
        "secret_key": secret,
        "publishable_key": publishable,
        "live_secret_key": live_secret,
        "live_publishable_key": live_publishable,
    }


async def new_keys(store: Store, clock: Clock, account: Account, *, by: Author) -> list[NewKey]:
    """Make another key pair of an account in each mode, in the order of `create_account`."""
    at = clock.moment()
    keys = _key_pairs(account.id, at.created)
    await store.commit(build_writes(SYSTEM, by, at, *((ABSENT, None, key.record) for key in keys)))
    return keys


def _key_pairs(account: str, created: int) -> list[NewKey]:
    return [new_key(account, mode, kind, created=created) for mode in MODES for kind in ("secret", "publishable")]


async def retention_of(store: Store) -> Retention:
    """How long this installation keeps records."""
    row = await store.get(f"{SYSTEM}/{POLICY_ID}")
    policy = decode(POLICY_ID, row.body) if row is not None else None
    return policy if isinstance(policy, Retention) else Retention(id=POLICY_ID, created=0)


def system_write(record: Record, version: int = ABSENT) -> Write:
    return write_of(SYSTEM, record, version)
