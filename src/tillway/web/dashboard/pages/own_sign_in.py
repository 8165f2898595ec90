"""Your sign-in: the operator's own sessions, password and second factor."""

import msgspec

from tillway.domain.refusal import Refused
from tillway.domain.sign_in_proofs import PASSWORD_MIN, needs_second_factor
from tillway.operations import own_sign_in, sign_ins
from tillway.operations.passkeys import passkeys_of
from tillway.web.dashboard import words
from tillway.web.dashboard.proving import answer_in, ask_proof
from tillway.web.dashboard.visit import Document, Redirect, Reply, Shown, Visit, browser_of, page

PATH = "/security"
CODE_MAX = 40
WAIT = "There were too many wrong tries. Wait 15 minutes."


@page("GET", "/security", place="/settings")
async def show_sign_in(visit: Visit) -> Reply:
    return await _sign_in(visit)


async def _sign_in(
    visit: Visit, *, codes: tuple[str, ...] = (), wrong: str = "", at: str = "", done: str = ""
) -> Shown:
    """The page; `wrong` stands at the field `at`, `codes` are shown this once."""
    engine, operator = visit.platform.engine, visit.signed.operator
    proofs = await own_sign_in.proofs_of(engine, operator)
    values = {
        "sessions": await own_sign_in.sessions_of(engine, operator),
        "session": visit.signed.session,
        "proofs": proofs,
        "strong": own_sign_in.is_strong(engine, visit.signed),
        "needs_factor": needs_second_factor(operator, for_all=engine.settings.second_factor_for_all),
        "shortest": PASSWORD_MIN,
        "codes": codes,
        "wrong": wrong,
        "at": at,
        "passkeys": await passkeys_of(engine, operator),
        "possible": visit.passkeys.possible,
        "browser": words.browser(visit.signed.session.agent),
        "email": visit.sent("email") or operator.email,
        "done": done,
    }
    return Shown("security.html", values, 429 if wrong == WAIT else 422 if wrong else 200)


@page("POST", "/security/sessions/{id}/end", place="/settings")
async def end_session(visit: Visit) -> Reply:
    await sign_ins.end_session(visit.platform.engine, visit.signed, visit.id, visit.request.client_ip)
    return Redirect(visit.url(PATH))


@page("POST", "/security/sessions/end", place="/settings")
async def end_others(visit: Visit) -> Reply:
    await own_sign_in.end_other_sessions(visit.platform.engine, visit.signed, address=visit.request.client_ip)
    return Redirect(visit.url(PATH))


@page("GET", "/security/passkeys/new", place="/settings")
async def ask_for_passkey(visit: Visit) -> Reply:
    """The options for a new passkey, for the module of the page."""
    return Document(msgspec.json.encode(await visit.passkeys.ask_for_new(visit.signed)))


@page("GET", "/security/passkeys/prove", place="/settings")
async def ask_for_proof_by_passkey(visit: Visit) -> Reply:
    """The options for a proof by a passkey, for the module of the page."""
    return Document(msgspec.json.encode(visit.passkeys.ask(visit.signed)))


@page("POST", "/security/passkeys/add", place="/settings")
async def begin_passkey(visit: Visit) -> Reply:
    """Ask the browser for a new passkey, after a fresh proof."""
    if (asked := await ask_proof(visit)) is not None:
        return asked
    return Shown("new-passkey.html", {"name": visit.sent("name"), "told": ""})


@page("POST", "/security/passkeys", place="/settings")
async def add_passkey(visit: Visit) -> Reply:
    """Keep the passkey that the browser has made."""
    if not own_sign_in.is_strong(visit.platform.engine, visit.signed):
        return Redirect(visit.url(PATH))
    address = visit.request.client_ip
    try:
        made = await visit.passkeys.add(visit.signed, visit.sent("name"), answer_in(visit.form), address=address)
    except Refused as refused:
        return Shown("new-passkey.html", {"name": visit.sent("name"), "told": refused.message}, 422)
    if made is None:
        told = "The browser made no passkey that can be used here. Try again."
        return Shown("new-passkey.html", {"name": visit.sent("name"), "told": told}, 422)
    return await _sign_in(visit, done=f"The passkey {made.name} is added: sign in with it from now on.")


@page("POST", "/security/passkeys/{id}/remove", place="/settings")
async def remove_passkey(visit: Visit) -> Reply:
    if (asked := await ask_proof(visit)) is not None:
        return asked
    try:
        await visit.passkeys.remove(visit.signed, visit.id, address=visit.request.client_ip)
    except Refused as refused:
        return await _sign_in(visit, wrong=refused.message)
    return Redirect(visit.url(PATH))


@page("POST", "/security/password", place="/settings")
async def change_password(visit: Visit) -> Reply:
    """Change the password; the other sessions end."""
    present, new = ((visit.form.get(name) or [""])[0] for name in ("present", "password"))
    try:
        outcome = await own_sign_in.change_password(
            visit.platform.engine, visit.signed, present, new, browser_of(visit.request)
        )
    except Refused as refused:
        if refused.param != "password":
            raise
        return await _sign_in(visit, wrong=refused.message, at="password")
    match outcome:
        case "right":
            return await _sign_in(visit, done="Your password is changed. All other sessions were ended.")
        case "wait":
            return await _sign_in(visit, wrong=WAIT, at="present")
        case "unable":
            return Redirect(visit.url(PATH))
        case _:
            told = "This is not your password." if present else "Enter the password that you have."
            return await _sign_in(visit, wrong=told, at="present")


@page("POST", "/security/password/first", place="/settings")
async def set_first_password(visit: Visit) -> Reply:
    """Set a password where there is none. The sign-in by an address was the proof, if it is fresh."""
    if (asked := await ask_proof(visit)) is not None:
        return asked
    email, new = ((visit.form.get(name) or [""])[0] for name in ("email", "password"))
    try:
        await own_sign_in.set_first_password(
            visit.platform.engine, visit.signed, email, new, address=visit.request.client_ip
        )
    except Refused as refused:
        if refused.param not in ("email", "password"):
            raise
        return await _sign_in(visit, wrong=refused.message, at=refused.param)
    return await _sign_in(visit, done=f"You have a password now, and sign in with {email.strip()}.")


@page("POST", "/security/authenticator", place="/settings")
async def begin_authenticator(visit: Visit) -> Reply:
    """Show a new secret for an authenticator, this once."""
    if (asked := await ask_proof(visit)) is not None:
        return asked
    made = await own_sign_in.begin_authenticator(
        visit.platform.engine, visit.platform.cards.vault, visit.signed, address=visit.request.client_ip
    )
    if made is None:
        return Redirect(visit.url(PATH))
    return Shown("authenticator.html", {"made": made, "wrong": ""})


@page("POST", "/security/authenticator/confirm", place="/settings")
async def confirm_authenticator(visit: Visit) -> Reply:
    """Turn the authenticator on with its first code, and show the recovery codes, this once."""
    answer = await own_sign_in.confirm_authenticator(
        visit.platform.engine,
        visit.platform.cards.vault,
        visit.signed,
        visit.sent("code")[:CODE_MAX],
        browser_of(visit.request),
    )
    match answer:
        case "wait":
            return Shown("authenticator.html", {"made": None, "wrong": WAIT}, 429)
        case "wrong":
            told = "This code is wrong. Does the phone show the right time?"
            return Shown("authenticator.html", {"made": None, "wrong": told}, 422)
        case tuple():
            return await _sign_in(visit, codes=answer, done="The code from your app is on.")
        case _:
            return Redirect(visit.url(PATH))


@page("POST", "/security/recovery-codes", place="/settings")
async def new_recovery_codes(visit: Visit) -> Reply:
    """Show new recovery codes, this once; the earlier ones are worth nothing from now on."""
    if (asked := await ask_proof(visit)) is not None:
        return asked
    codes = await own_sign_in.new_recovery_codes(visit.platform.engine, visit.signed, address=visit.request.client_ip)
    return await _sign_in(visit, codes=codes) if codes else Redirect(visit.url(PATH))


@page("POST", "/security/authenticator/off", place="/settings")
async def switch_authenticator_off(visit: Visit) -> Reply:
    if (asked := await ask_proof(visit)) is not None:
        return asked
    await own_sign_in.switch_authenticator_off(visit.platform.engine, visit.signed, address=visit.request.client_ip)
    return Redirect(visit.url(PATH))
