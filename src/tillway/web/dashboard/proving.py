"""The step before a grave action: prove again who you are, where the session's last proof is too old."""

from typing import Any, Final

import msgspec

from tillway.operations.own_sign_in import is_strong, proofs_of, prove_again
from tillway.operations.passkeys import passkeys_of
from tillway.operations.sealed_fields import open_fields, seal_fields
from tillway.operations.sign_ins import Renewed
from tillway.web.dashboard.visit import Shown, Visit, browser_of

STATUSES = {"wrong": 401, "passkey": 401, "wait": 429}
PROOF_MAX = 1000
PROOFS = ("proof", "passkey")
"""The fields that a proof is in."""

SECRETS: Final = frozenset(("password", "present", "code"))
SECRET: Final = "secret."
"""Fields with secrets: these, and those of a connector, which begin so. No page has them as they were typed."""
SEALED: Final = "sealed"
"""The field with the secrets of a form, sealed by the vault, while its page asks for a proof."""


def is_secret(name: str) -> bool:
    """Whether a field of a form holds a secret."""
    return name in SECRETS or name.startswith(SECRET)


async def ask_proof(visit: Visit) -> Shown | None:
    """The page that asks for a code or the password; None where the last proof is fresh or the form brings a new one.

    The page sends the same form once more, with the proof in the field `proof`: nothing that was typed is lost. Secrets
    that were typed go back to the browser sealed by the vault, for this operator and this form.
    """
    engine = visit.platform.engine
    if SEALED in visit.form and not _unseal(visit):
        told = (
            "What you typed was kept for 15 minutes, and that time is over. Nothing was changed: open the form again."
        )
        return Shown("error.html", {"message": told, "request": ""}, 409)
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
        "fields": _fields_to_send_again(visit),
        "passkeys": visit.passkeys.possible and bool(await passkeys_of(engine, visit.signed.operator)),
        "action": visit.request.path,
        "asks": "" if proofs is None else "code" if proofs.totp else "password",
        "sso": visit.sso,
        "outcome": outcome,
    }
    return Shown("prove.html", values, STATUSES.get(outcome, 200))


def _fields_to_send_again(visit: Visit) -> list[tuple[str, str]]:
    """The fields of the form for its next try, without proofs, and with its secrets in one sealed field."""
    fields = {name: sent for name, sent in visit.form.items() if name not in PROOFS}
    plain = [(name, value) for name, sent in fields.items() if not is_secret(name) for value in sent]
    secrets = {name: sent for name, sent in fields.items() if is_secret(name)}
    if not secrets:
        return plain
    vault = visit.platform.cards.vault
    return [*plain, (SEALED, seal_fields(vault, _owner_of_sealed(visit), secrets, now=visit.now))]


def _unseal(visit: Visit) -> bool:
    """Put the secrets of the field SEALED back into the form; False where they are too old or of another form."""
    vault, sealed = visit.platform.cards.vault, visit.form.pop(SEALED)[0]
    fields = open_fields(vault, _owner_of_sealed(visit), sealed, now=visit.now)
    visit.form |= fields or {}
    return fields is not None


def _owner_of_sealed(visit: Visit) -> str:
    """The operator and the form that sealed fields belong to; the vault authenticates it with them."""
    return f"{visit.signed.operator.id} {visit.request.path}"


def answer_in(form: dict[str, list[str]]) -> dict[str, Any]:
    """A browser's answer to the challenge for a passkey, from the field `passkey`; empty where it is none."""
    try:
        answer = msgspec.json.decode(form.get("passkey", [""])[0])
    except (msgspec.DecodeError, RecursionError):
        return {}
    return answer if isinstance(answer, dict) else {}
