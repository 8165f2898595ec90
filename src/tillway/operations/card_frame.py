"""The card frame: find the publishable key with which a shop's page shows it."""

import msgspec

from tillway.domain.account import SYSTEM
from tillway.domain.api_key import ApiKey, key_id
from tillway.domain.credentials import is_live
from tillway.domain.refusal import Refused
from tillway.engine.platform import Platform


async def publishable_key(platform: Platform, secret: str) -> ApiKey:
    """Return the publishable key with that secret, its origins with those of its account.

    Refused `api_key_invalid` if there is none or it has ended, and `account_disabled`.
    """
    key = await platform.engine.load(SYSTEM).maybe(ApiKey, key_id(secret))
    now = platform.engine.clock.moment().now
    if key is None or key.kind != "publishable" or not is_live(key, now):
        raise Refused("api_key_invalid", "The page needs a publishable key (pk_…) that is not revoked.", param="key")
    account = await platform.engine.accounts.get(key.account)
    if account is not None and account.disabled_at is not None:
        raise Refused("account_disabled", param="key")
    if account is not None and account.origins:
        key = msgspec.structs.replace(key, origins=tuple(dict.fromkeys((*key.origins, *account.origins))))
    return key
