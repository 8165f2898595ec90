"""Rules for the banks' words of a world at rest, beside their money: outcomes and replies of disputes, and words that
contradict."""

from collections import Counter

from tillway.domain.account import SCOPE_KEY_LENGTH
from tillway.domain.dispute import Dispute
from tillway.domain.open_item import OpenItem, item_id
from tillway.simulation.checks import Books, fail
from tillway.simulation.world import World


def check_disputes(world: World, books: Books) -> None:
    items = {(item.subject, item.theirs): item for item in books.of(OpenItem).values()}
    for dispute in books.of(Dispute).values():
        reports = world.disputed.get(dispute.reference, [])
        told = {verdict for stage, verdict in reports if stage == "chargeback"}
        _check_outcome(dispute, told - {"Opened"}, items)
        _check_replies(world, dispute, ended=any(verdict != "Opened" for _, verdict in reports))


def check_words(world: World, books: Books) -> None:
    """Each word against the outcome of an operation that was heard is an open item with both sides, and no other is."""
    items = {id: item for id, item in books.of(OpenItem).items() if item.kind == "contradiction"}
    for reference, word in world.words.items():
        if not reference.startswith(books.scope_key) or not word.theirs:
            continue
        item = items.pop(item_id(reference[SCOPE_KEY_LENGTH:], word.theirs), None)
        if word.heard and (item is None or (item.ours == "succeeded") != (word.theirs == "declined")):
            fail("contradictions", f"the bank has said that {reference} {word.theirs}, and the item is {item}")
    for item in items.values():
        if item.subject is None or not item.subject.startswith("du_"):
            fail("contradictions", f"no bank has contradicted {item}")


def _check_outcome(dispute: Dispute, told: set[str], items: dict[tuple[str | None, str], OpenItem]) -> None:
    """The outcome that was booked is one that the bank told, the merchant's or the deadline's; each that contradicts
    it is an open item with both sides, and none that agrees is."""
    if dispute.inquiry:
        if told:
            fail("disputes", f"the bank has ended the chargeback {dispute.id} with {told}, and it is an inquiry")
        return
    if dispute.status == "won" and "Won" not in told:
        fail("disputes", f"{dispute.id} is won, and the bank has told {told}")
    if told and dispute.status not in ("won", "lost"):
        fail("disputes", f"{dispute.id} is {dispute.status}, and the bank has told {told}")
    for verdict in ("Won", "Lost", "Accepted"):
        contradicts = verdict in told and (verdict == "Won") != (dispute.status == "won")
        item = items.get((dispute.id, verdict.lower()))
        if contradicts and (item is None or item.ours != dispute.status):
            fail("contradictions", f"{dispute.id} is {dispute.status}, the bank says {verdict}, and the item is {item}")
        if item is not None and verdict in told and not contradicts:
            fail("contradictions", f"{dispute.id} is {dispute.status}, as the bank says, and there is {item.id}")


def _check_replies(world: World, dispute: Dispute, *, ended: bool) -> None:
    """Each piece of evidence is at the bank once, unless the dispute ended before it came: by the bank, or by the
    merchant's acceptance."""
    replies = [operation for operation in world.operations() if operation.parent == dispute.reference]
    taken = Counter(operation.kind for operation in replies)
    ended = ended or taken["accept"] > 0
    if taken["evidence"] > dispute.submissions or (taken["evidence"] < dispute.submissions and not ended):
        fail("replies", f"{dispute.id} was answered {dispute.submissions} times; the bank has {dict(taken)}")
    # The acceptance of an inquiry does not end the chargeback that may follow.
    accepted = any(one.kind == "accept" and one.reference.startswith("chargeback") for one in replies)
    if accepted and dispute.status != "lost":
        fail("replies", f"{dispute.id} is {dispute.status}, and the bank has its acceptance")
