"""The step before a grave action: prove again who you are, where the session's last proof is too old."""

from typing import Any

import msgspec

from tillway.operations.own_sign_in import is_strong, proofs_of, prove_again
from tillway.operations.passkeys import passkeys_of
from tillway.operations.sign_ins import Renewed
from tillway.web.dashboard.visit import Shown, Visit, browser_of

STATUSES = {"wrong": 401, "passkey": 401, "wait": 429}
PROOF_MAX = 1000
PROOFS = ("proof", "passkey")
"""The fields that a proof is in."""


async def ask_proof(visit: Visit) -> Shown | None:
    """The page that asks for a code or the password; None where the last proof is fresh or the form brings a new one.

    The page sends the same form once more, with the proof in the field `proof`: nothing that was typed is lost.
    """
    engine = visit.platform.engine
    if is_strong(engine, visit.signed):
        return None
    outcome: str = ""
    if visit.form.get("passkey", [""])[0]:
        renewed = await visit.passkeys.prove(visit.signed, answer_in(visit.form), browser_of(visit.request))
        if renewed is not None:
            visit.renew(renewed)
            return None
        outcome = "passkey"
    elif "proof" in visit.form:
        given = visit.form["proof"][0][:PROOF_MAX]
        answer = await prove_again(engine, visit.platform.cards.vault, visit.signed, given, browser_of(visit.request))
        if isinstance(answer, Renewed):
            visit.renew(answer)
            return None
        outcome = answer
    proofs = await proofs_of(engine, visit.signed.operator)
    values = {
        "fields": [(name, value) for name, sent in visit.form.items() if name not in PROOFS for value in sent],
        "passkeys": visit.passkeys.possible and bool(await passkeys_of(engine, visit.signed.operator)),
        "action": visit.request.path,
        "asks": "" if proofs is None else "code" if proofs.totp else "password",
        "sso": visit.sso,
        "outcome": outcome,
    }
    return Shown("prove.html", values, STATUSES.get(outcome, 200))


def answer_in(form: dict[str, list[str]]) -> dict[str, Any]:
    """A browser's answer to the challenge for a passkey, from the field `passkey`; empty where it is none."""
    try:
        answer = msgspec.json.decode(form.get("passkey", [""])[0])
    except (msgspec.DecodeError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}
