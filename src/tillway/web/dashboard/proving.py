"""The step before a grave action: prove again who you are, where the session's last proof is too old."""

from tillway.operations.own_sign_in import is_strong, proofs_of, prove_again
from tillway.operations.sign_ins import Renewed
from tillway.web.dashboard.visit import Shown, Visit, browser_of

STATUSES = {"wrong": 401, "wait": 429}
PROOF_MAX = 1000


async def ask_proof(visit: Visit) -> Shown | None:
    """The page that asks for a code or the password; None where the last proof is fresh or the form brings a new one.

    The page sends the same form once more, with the proof in the field `proof`: nothing that was typed is lost.
    """
    engine = visit.platform.engine
    if is_strong(engine, visit.signed):
        return None
    outcome: str = ""
    if "proof" in visit.form:
        given = visit.form["proof"][0][:PROOF_MAX]
        answer = await prove_again(engine, visit.platform.cards.vault, visit.signed, given, browser_of(visit.request))
        if isinstance(answer, Renewed):
            visit.renew(answer)
            return None
        outcome = answer
    proofs = await proofs_of(engine, visit.signed.operator)
    values = {
        "fields": [(name, value) for name, sent in visit.form.items() if name != "proof" for value in sent],
        "action": visit.request.path,
        "asks": "" if proofs is None else "code" if proofs.totp else "password",
        "outcome": outcome,
    }
    return Shown("prove.html", values, STATUSES.get(outcome, 200))
