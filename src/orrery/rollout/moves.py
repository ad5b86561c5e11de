"""The moves of a version through the environments: pure functions from the state to the events that make the move."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime

from orrery.errors import NotAllowed, NotFound
from orrery.rollout import shares
from orrery.spec import Burden, Spec
from orrery.timeline.event import Draft
from orrery.timeline.fold import PROVING
from orrery.timeline.state import Challenger, Lane, ModelState, Version
from orrery.types import PRODUCTION, format_instant, parse_duration, percent
from orrery.workers.action import Action, record

ACTOR = "orrery/rollout"


def burden_of(policy: Spec, change: str) -> Burden:
    """Return the burden of proof that the policy lays on a kind of change."""
    burden: Burden = getattr(policy.rollout, change)
    return burden


def next_moves(model: ModelState, now: datetime) -> Iterator[Action]:
    """Yield the moves that are due in every environment."""
    policy = model.policy()
    if policy is None:
        return
    for environment in policy.environments:
        lane = model.lane(environment)
        for challenger in lane.challengers.values():
            yield from _after_looks(model, lane, challenger, now)
    for version in model.versions.values():
        yield from _towards_production(model, version, policy, now)


def _towards_production(model: ModelState, version: Version, policy: Spec, now: datetime) -> Iterator[Action]:
    if not version.released or version.rejected or version.deleted or version.failed:
        return
    for environment, rules in policy.environments.items():
        lane = model.lane(environment)
        if environment in version.entered or environment in version.left or version.number in lane.challengers:
            continue
        if _superseded(lane, version):
            why = f"Version {lane.champion} is newer and answers already."
            draft = _draft("retired", model, version.number, environment, why, {"role": "candidate"})
            yield record(f"superseded:{model.name}:{version.number}:{environment}", draft)
            continue
        missing = list(_missing(model, version, environment, rules.needs, policy))
        yield from missing
        if missing or not _fulfilled(model, version, environment, rules.needs, policy):
            return
        yield from _enter(model, version, lane, policy, now)
        return


def _superseded(lane: Lane, version: Version) -> bool:
    return version.change != "redesign" and lane.champion is not None and lane.champion > version.number


def _missing(
    model: ModelState, version: Version, environment: str, needs: tuple[str, ...], policy: Spec
) -> Iterator[Action]:
    """Yield what brings a need about that a machine can bring about: a run of the tests, a question to a reviewer."""
    commit = model.commits[version.commit]
    for need in needs:
        if need == "tests" and environment not in commit.tested:
            yield Action(
                key=f"test:{model.name}:{commit.sha}:{environment}",
                kind="test",
                model=model.name,
                environment=environment,
                args={"commit": commit.sha},
            )
        elif need.startswith("review") and not _reviewed(model, version, environment, need, policy):
            role = need.partition(":")[2]
            others = [one for one in needs if not one.startswith("review")]
            asked = f"{environment}:{role}" in version.requested
            if not asked and _fulfilled(model, version, environment, tuple(others), policy):
                why = f"{environment} needs a review" + (f" of {role}." if role else ".")
                draft = _draft("review_requested", model, version.number, environment, why, {"role": role})
                yield record(f"review:{model.name}:{version.number}:{environment}:{role}", draft)


def _fulfilled(model: ModelState, version: Version, environment: str, needs: tuple[str, ...], policy: Spec) -> bool:
    return all(_holds(model, version, environment, need, policy) for need in needs)


def _holds(model: ModelState, version: Version, environment: str, need: str, policy: Spec) -> bool:
    if need == "gates":
        return version.released
    if need == "tests":
        return model.commits[version.commit].tested.get(environment, False)
    if need.startswith("review"):
        return _reviewed(model, version, environment, need, policy)
    return need in version.entered


def _reviewed(model: ModelState, version: Version, environment: str, need: str, policy: Spec) -> bool:
    role = need.partition(":")[2]
    if version.approved(environment, role):
        return True
    by_policy = burden_of(policy, version.change).approval == "policy"
    return by_policy and policy_of_whom(model, version, environment, role) != ""


def policy_of_whom(model: ModelState, version: Version, environment: str, role: str = "") -> str:
    """Return who approved the recipe that a refresh or repair repeats; empty if nobody did."""
    for earlier in reversed(model.versions.values()):
        approval = earlier.approved(environment, role, emergency=False)
        if approval and earlier.commit == version.commit and environment in earlier.entered:
            return f"{approval.actor}, {approval.at:%Y-%m-%d}"
    return ""


def _enter(model: ModelState, version: Version, lane: Lane, policy: Spec, now: datetime) -> Iterator[Action]:
    burden, environment = burden_of(policy, version.change), lane.environment
    role = shares.first_role(burden) if lane.champion is not None and environment == PRODUCTION else ""
    if shares.taken(lane, role):
        return  # another one is being tried: its end is awaited
    if role and (role != "canary" or shares.steps_of(burden)):
        steps = shares.steps_of(burden) if role == "canary" else []
        why = {
            "shadow": f"A {version.change} is proven beside version {lane.champion} before it may answer.",
            "arm": f"A {version.change} is proven on {burden.ab} of the traffic, drawn by lot, against version "
            f"{lane.champion} on the rest.",
            "canary": f"A {version.change} answers a share of the traffic that grows, and version {lane.champion} the "
            f"rest: {', '.join(map(percent, steps))}, then all.",
        }[role]
        if role in PROVING:
            from orrery.stats import level  # brings NumPy, which whoever only asks what is due has no use for

            needed = 1 / level(policy.rollout.alpha, lane.trials + 1, lane.proven)
            why += f" Trial {lane.trials + 1} here, {lane.proven} won: its evidence counts from {needed:,.0f} on."
        draft = shares.begun(model, version, lane, policy, role, steps, why, now)
        yield record(f"challenge:{model.name}:{version.number}:{environment}", draft)
        return
    said = (one for one in version.approvals if one.environment in ("", environment) and version.stands(one))
    approval = next(said, None)
    whom = policy_of_whom(model, version, environment)
    if approval is not None and any(need.startswith("review") for need in policy.environments[environment].needs):
        how = "EMERGENCY, not reviewed: let in" if approval.emergency else "Approved"
        why = f"{how} by {approval.actor}: {approval.why}"
    elif whom and version.change != "redesign":
        why = f"By policy {version.change!r}, approved by {whom}: {version.why}"
    else:
        why = (
            f"All that {environment} needs is there: {', '.join(policy.environments[environment].needs) or 'nothing'}."
        )
    drafts = promotion(model, version, lane, policy, why, ACTOR, now)
    yield record(f"promote:{model.name}:{version.number}:{environment}", *drafts)


def promotion(
    model: ModelState, version: Version, lane: Lane, policy: Spec, why: str, actor: str, now: datetime
) -> list[Draft]:
    """Return the events that make a version champion; the former champion goes on guard where there is traffic."""
    environment, former = lane.environment, lane.champion
    facts = {"previous": former, "change": version.change, "by_policy": actor == ACTOR}
    drafts = [_draft("promoted", model, version.number, environment, why, facts, actor)]
    for other in lane.challengers.values():
        if other.version == version.number:
            continue  # it is no challenger any more: it answers
        if other.role == "guard":
            words = f"Version {version.number} took over: its guard period is over."
            drafts.append(_draft("retired", model, other.version, environment, words, {"role": "guard"}))
        elif other.role == "canary" and other.change != "redesign" and other.version < version.number:
            words = f"Version {version.number} is newer and took over."
            drafts.append(_draft("retired", model, other.version, environment, words, {"role": "canary"}))
    guard = parse_duration(burden_of(policy, version.change).guard)
    if former is not None and former != version.number:
        if guard and environment == PRODUCTION:
            until = format_instant(now + guard)
            words = (
                f"Stays in shadow until {until[:10]}, to come back if it proves better than version {version.number}."
            )
            drafts.append(
                _draft("challenged", model, former, environment, words, {"role": "guard", "until": until, "change": ""})
            )
        else:
            words = f"Version {version.number} took over."
            drafts.append(_draft("retired", model, former, environment, words, {"role": "champion"}))
    return drafts


def return_of(model: ModelState, lane: Lane, version: int, why: str, actor: str) -> list[Draft]:
    """Return the events that bring an earlier champion back and retire the present one."""
    environment, present = lane.environment, lane.champion
    drafts = [_draft("rolled_back", model, version, environment, why, {"previous": present}, actor)]
    if present is not None:
        words = f"Rolled back to version {version}: {why}"
        drafts.append(_draft("retired", model, present, environment, words, {"role": "champion"}, actor))
    return drafts


def way_back(model: ModelState, lane: Lane) -> int | None:
    """Return the newest earlier champion that is not known to fail; nothing if there is none."""
    for number, _, _ in reversed(lane.tenures):
        if number != lane.champion and number not in lane.unfit and not model.versions[number].deleted:
            return number
    return None


def _after_looks(model: ModelState, lane: Lane, challenger: Challenger, now: datetime) -> Iterator[Action]:
    version, environment = challenger.version, lane.environment
    role, facts = challenger.role, {"role": challenger.role}
    key = f"{model.name}:{version}:{environment}:{challenger.since.timestamp():.0f}"
    words = evidence_in_words(challenger)
    if role == "guard":
        if challenger.decision == "promote":
            why = f"The former champion is proven better: {words}"
            if fell := challenger.evidence.get("broken"):  # not by labels, and not beside it: see rollout/business.py
                why = f"The former champion comes back: {'; '.join(fell)}. Days, not versions, were compared. {words}"
            drafts = return_of(model, lane, version, why, ACTOR)
            yield record(f"rollback:{key}", *drafts)
        elif now >= challenger.until:
            why = f"The guard period is over; version {lane.champion} stays. {words}"
            yield record(f"relieve:{key}", _draft("retired", model, version, environment, why, {"role": "guard"}))
        return
    policy = model.policy()
    assert policy is not None
    burden = burden_of(policy, challenger.change or "redesign")
    if breach := shares.breach_of(challenger):
        why = f"Taken back: {breach}. {shares.service_in_words(challenger)}"
        yield record(f"breach:{key}", *shares.retired(model, lane, challenger, why))
    elif challenger.decision == "abort":
        broken = "; ".join(challenger.evidence.get("broken") or ["proven worse"])
        why = f"Refused, beside version {lane.champion}: {broken}. {words}"
        yield record(f"abort:{key}", _draft("retired", model, version, environment, why, facts))
    elif role == "canary" and shares.step_done(challenger, policy, now):
        yield _step(model, lane, challenger, policy, now)
    elif role != "canary" and challenger.decision == "promote" and now >= challenger.since + parse_duration(burden.min):
        yield _proven(model, lane, challenger, policy, f"Proven better: {words}", now)
    elif now >= challenger.until:
        why = f"Undecided at the end of its time; version {lane.champion} stays. {words}"
        yield record(f"undecided:{key}", _draft("retired", model, version, environment, why, facts))


def _step(model: ModelState, lane: Lane, challenger: Challenger, policy: Spec, now: datetime) -> Action:
    """Return a canary's next step: a larger share, or all of the traffic."""
    share, said = shares.next_share(challenger), shares.service_in_words(challenger)
    key = f"{model.name}:{challenger.version}:{lane.environment}:{challenger.since.timestamp():.0f}"
    if share >= 1:
        why = f"The canary kept every limit. {said} {evidence_in_words(challenger)}"
        drafts = promotion(model, model.versions[challenger.version], lane, policy, why, ACTOR, now)
        return record(f"grown:{key}", *drafts)
    facts = {"role": "canary", "share": share, "previous": challenger.share}
    why = f"{said} Next step: {percent(share)}."
    draft = _draft("shifted", model, challenger.version, lane.environment, why, facts)
    moved = challenger.moved or challenger.since
    return record(f"shift:{key}:{share:g}:{moved.timestamp():.0f}", draft)


def _proven(model: ModelState, lane: Lane, challenger: Challenger, policy: Spec, why: str, now: datetime) -> Action:
    """Return what follows a proof: the canary that the policy asks for, or the promotion."""
    version = model.versions[challenger.version]
    key = f"{model.name}:{version.number}:{lane.environment}:{challenger.since.timestamp():.0f}"
    steps = shares.steps_of(burden_of(policy, version.change), above=challenger.share)
    if not steps or shares.taken(lane, "canary"):
        return record(f"proven:{key}", *promotion(model, version, lane, policy, why, ACTOR, now))
    words = f"{why} Now it answers a share that grows: {', '.join(map(percent, steps))}, then all."
    return record(f"released:{key}", shares.begun(model, version, lane, policy, "canary", steps, words, now))


def evidence_in_words(challenger: Challenger) -> str:
    """Return what the looks at a challenger showed, in a sentence."""
    facts = challenger.evidence
    if not facts or facts.get("effect") is None:
        return "No labelled pairs yet."
    low, high = facts.get("interval") or (float("nan"), float("nan"))
    return (
        f"On {facts.get('n', 0)} pairs the challenger's loss is lower by {facts['effect']:.4f} "
        f"[{low:.4f}, {high:.4f}], evidence {facts.get('evidence') or 1.0:.3g}."
    )


# --- what people order ---------------------------------------------------------------------------------------------


def order_promotion(
    model: ModelState, number: int, environment: str, why: str, actor: str, now: datetime
) -> list[Draft]:
    """Return the events of a promotion that a person orders; every need of the environment must be fulfilled.

    Raises
    ------
    NotFound
        If there is no such version or environment.
    NotAllowed
        If the version lacks something that the environment needs.
    """
    version, lane, policy = _ready(model, number, environment)
    return promotion(model, version, lane, policy, why, actor, now)


def order_share(
    model: ModelState, number: int, environment: str, share: float, why: str, actor: str, now: datetime
) -> list[Draft]:
    """Return the events after which a version answers a share of the traffic, until a person says otherwise.

    It is watched like any canary, and taken back where it breaks a limit; it does not grow by itself.

    Raises
    ------
    NotFound, NotAllowed
        As :func:`order_promotion`; and if nobody answers the rest, or another version answers a share.
    """
    version, lane, policy = _ready(model, number, environment)
    if lane.champion is None:
        raise NotAllowed(
            f"{environment} has no champion to answer the rest.", todo="Promote a version without a share."
        )
    held = lane.challengers.get(number)
    if held is not None and held.role == "canary":
        facts = {"role": "canary", "share": share, "previous": held.share}
        return [_draft("shifted", model, number, environment, why, facts, actor)]
    other = next((one.version for one in lane.challengers.values() if one.role == "canary"), None)
    if other is not None:
        raise NotAllowed(
            f"Version {other} answers a share of {environment} already.",
            safe="Nothing was changed.",
            todo="Retire it first: one canary at a time.",
        )
    until = format_instant(now + parse_duration(burden_of(policy, version.change).max))
    facts = {"role": "canary", "until": until, "change": version.change, "share": share, "steps": []}
    facts["unit"] = policy.rollout.sticky
    return [_draft("challenged", model, number, environment, why, facts, actor)]


def _ready(model: ModelState, number: int, environment: str) -> tuple[Version, Lane, Spec]:
    """Return a version that has all that an environment needs, with its lane and the policy; raises otherwise."""
    version, policy = _version(model, number), model.policy()
    assert policy is not None
    if environment not in policy.environments:
        raise NotFound(f"There is no environment {environment!r}.", todo=f"Known: {', '.join(policy.environments)}.")
    needs = policy.environments[environment].needs
    lacking = [need for need in needs if not _holds(model, version, environment, need, policy)]
    if not version.released:
        lacking.insert(0, "gates")
    if lacking or version.deleted or version.rejected:
        reason = "it was deleted" if version.deleted else "it was rejected" if version.rejected else ", ".join(lacking)
        raise NotAllowed(f"Version {number} lacks what {environment} needs: {reason}.", safe="Nothing was changed.")
    lane = model.lane(environment)
    if lane.champion == number:
        raise NotAllowed(f"Version {number} is champion of {environment} already.")
    return version, lane, policy


def order_rollback(model: ModelState, environment: str, to: int | None, why: str, actor: str) -> list[Draft]:
    """Return the events that bring the champion before this one back, or a given earlier one.

    Raises
    ------
    NotAllowed
        If there is nothing to go back to, or its artifact was deleted.
    """
    lane = model.lane(environment)
    if to is None:
        earlier = [
            number for number, _, _ in lane.tenures if number != lane.champion and not model.versions[number].deleted
        ]
        if not earlier:
            raise NotAllowed(
                f"There is no earlier champion of {environment} to go back to.", safe="Nothing was changed."
            )
        to = earlier[-1]
    version = _version(model, to)
    if version.deleted or environment not in version.entered or to == lane.champion:
        raise NotAllowed(
            f"Version {to} cannot come back to {environment}: it "
            + ("was deleted." if version.deleted else "is champion." if to == lane.champion else "was never there."),
            safe="Nothing was changed.",
        )
    return return_of(model, lane, to, why, actor)


def order_retirement(model: ModelState, number: int, environment: str, why: str, actor: str) -> list[Draft]:
    """Return the events that take a version out of an environment, or out of all.

    Raises
    ------
    NotFound
        If the version is in none.
    """
    _version(model, number)
    drafts = []
    for lane in model.lanes.values():
        if environment in ("", lane.environment) and (lane.champion == number or number in lane.challengers):
            role = "champion" if lane.champion == number else lane.challengers[number].role
            drafts.append(_draft("retired", model, number, lane.environment, why, {"role": role}, actor))
    if not drafts:
        raise NotFound(f"Version {number} is in no environment" + (f" {environment}." if environment else "."))
    return drafts


def order_deletion(model: ModelState, number: int, why: str, actor: str) -> list[Draft]:
    """Return the event that deletes a version's artifact; the record stays.

    Raises
    ------
    NotAllowed
        If the version answers or runs beside the champion somewhere, or is deleted already.
    """
    version = _version(model, number)
    if version.deleted:
        raise NotAllowed(f"Version {number} was deleted by {version.deleted['by']}: {version.deleted['why']}")
    for lane in model.lanes.values():
        if lane.champion == number or number in lane.challengers:
            raise NotAllowed(
                f"Version {number} is in use in {lane.environment}.",
                safe="Nothing was deleted.",
                todo="Retire it first, or roll back to another version.",
            )
    return [_draft("deleted", model, number, "", why, {"artifact": version.facts.get("artifact", "")}, actor)]


def _version(model: ModelState, number: int) -> Version:
    version = model.versions.get(number)
    if version is None:
        known = ", ".join(map(str, model.versions)) or "none"
        raise NotFound(f"{model.name} has no version {number}.", todo=f"It has: {known}.")
    return version


def _draft(
    kind: str,
    model: ModelState,
    version: int,
    environment: str,
    why: str,
    data: Mapping[str, object],
    actor: str = ACTOR,
) -> Draft:
    return Draft(
        kind=kind, actor=actor, why=why, model=model.name, version=version, environment=environment, data=dict(data)
    )
