"""Operations on ephemeral keys: make one for a customer's app, and end it."""

# Without this, each call would evaluate the annotations of its inner functions anew.
from __future__ import annotations

from tillway.domain.api_key import hint_of
from tillway.domain.cards import Secret
from tillway.domain.ephemeral_key import (
    LIFETIME_SECONDS,
    RANDOM_LENGTH,
    EphemeralKey,
    EphemeralKeyReading,
    ephemeral_key_id,
    secret_of,
)
from tillway.domain.record import Changes, Moment
from tillway.engine.caller import Caller
from tillway.engine.core import Done, Load
from tillway.engine.ids import random_text
from tillway.engine.platform import Platform
from tillway.operations import customers


async def create(platform: Platform, caller: Caller, customer: str, api_version: str) -> Done[EphemeralKeyReading]:
    """Make a key of one customer, for the hour from now on."""

    async def work(load: Load, at: Moment) -> Changes[EphemeralKeyReading]:
        await customers.existing(load, customer, "customer")
        secret = secret_of(caller.scope, random_text(RANDOM_LENGTH))
        key = EphemeralKey(
            id=ephemeral_key_id(secret),
            created=at.created,
            customer=customer,
            api_version=api_version,
            hint=hint_of(secret),
            made_with=caller.actor,
            expires_at=at.now + LIFETIME_SECONDS,
            scopes=caller.scopes,
        )
        return Changes(result=EphemeralKeyReading.of(key, Secret(secret)), records=(key,))

    return await platform.engine.run(caller, work)


async def delete(platform: Platform, caller: Caller, id: str) -> Done[EphemeralKeyReading]:
    """End a key at once."""

    async def work(load: Load, at: Moment) -> Changes[EphemeralKeyReading]:
        key = await load.get(EphemeralKey, id)
        return Changes(result=EphemeralKeyReading.of(key), deletes=(key.id,))

    done = await platform.engine.run(caller, work)
    platform.authenticator.forget()
    return done
