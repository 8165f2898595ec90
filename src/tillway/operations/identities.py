"""Operators whom an identity provider signs in: found by the provider's own id for them, the first time by e-mail."""

from __future__ import annotations

from tillway.domain.account import SYSTEM
from tillway.domain.dashboard import IdentityLink, identity_link_id
from tillway.domain.operator import Operator
from tillway.domain.record import Moment, Record
from tillway.domain.sign_in_proofs import SignInProofs, proofs_id
from tillway.engine.core import Engine, Load
from tillway.operations.sign_ins import Browser, open_session_with
from tillway.store.walk import records_of


async def sign_in_by_identity(
    engine: Engine, issuer: str, subject: str, email: str, browser: Browser, *, strong: bool
) -> str | None:
    """Open a session for the operator whom the provider knows as `subject`. Return its token.

    The first time it is the operator with that e-mail address, which the provider has verified, unless they are known
    to a provider already. None: there is no such operator, or they are disabled.
    """
    id = identity_link_id(issuer, subject)
    link = await engine.load(SYSTEM).maybe(IdentityLink, id)
    found = link.operator if link is not None else await _operator_with(engine, email)
    operator = await engine.load(SYSTEM).maybe(Operator, found) if found is not None else None
    if operator is None or operator.disabled_at is not None:
        return None

    async def use_up(load: Load, at: Moment) -> tuple[Record, ...] | None:
        current = await load.maybe(IdentityLink, id)
        if current is not None:
            return () if current.operator == operator.id else None
        if any([one.operator == operator.id async for one in records_of(engine.store, SYSTEM, IdentityLink)]):
            return None  # The address now belongs to somebody else at the provider.
        return (IdentityLink(id=id, created=at.created, operator=operator.id, issuer=issuer),)

    return await open_session_with(engine, operator, "oidc", browser, use_up, strong=strong)


async def _operator_with(engine: Engine, email: str) -> str | None:
    """The id of the one operator with that e-mail address."""
    if not email:
        return None
    ids = {
        one.id
        async for one in records_of(engine.store, SYSTEM, Operator)
        if one.email.lower() == email.lower() and one.disabled_at is None
    }
    proofs = await engine.load(SYSTEM).maybe(SignInProofs, proofs_id(email))
    ids |= {proofs.operator} if proofs is not None else set()
    return ids.pop() if len(ids) == 1 else None
