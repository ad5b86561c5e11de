"""Where a version stands, or how it ended, in the words of every page and command."""

from __future__ import annotations

from orrery.timeline.state import ModelState, Version
from orrery.types import PRODUCTION


def standing(model: ModelState, version: Version) -> str:
    """Return what is to be said of a version, as the end of a sentence that begins with it."""
    number = version.number
    if version.deleted:
        return f"was deleted by {version.deleted['by']}: {version.deleted['why'].rstrip('.')}"
    waits = [place for one, place, _ in model.waiting() if one.number == number]
    review = f"waits for a review before {waits[0]}" if waits else ""
    asked = [issue for one in model.unreviewed() if one[0].number == number and (issue := model.question(*one))]
    if asked and not review:
        review = f"waits for an answer to {asked[0].opened_by}: {asked[0].why.rstrip('.')}"
    answers = [lane for lane in model.lanes.values() if lane.champion == number]
    if answers:
        where = " and ".join(lane.environment for lane in reversed(answers))
        since = next((lane.since for lane in answers if lane.environment == PRODUCTION), answers[0].since)
        return f"answers in {where} since {since:%Y-%m-%d %H:%M}" + (f"; {review}" if review else "")
    for lane in model.lanes.values():
        if number in lane.challengers:
            return f"runs beside the champion of {lane.environment} ({lane.challengers[number].standing})"
    tenure = next((one for one in reversed(model.lane(PRODUCTION).tenures) if one[0] == number), None)
    if tenure is not None and tenure[2] is not None:
        return f"answered in production from {tenure[1]:%Y-%m-%d %H:%M} to {tenure[2]:%Y-%m-%d %H:%M}"
    if version.rejected:
        return f"was rejected: {version.rejected.rstrip('.')}"
    if version.failed:
        return f"failed: {version.failed.rstrip('.')}"
    if version.passed is None:
        return "waits for the gates"
    if not version.released:
        refused = [gate for gate, verdict in version.gates.items() if verdict.get("verdict") == "refused"]
        return f"was refused by {', '.join(refused) or 'the gates'}: nobody was answered by it"
    return review or "answers nowhere"
