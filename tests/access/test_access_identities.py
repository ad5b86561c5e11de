"""Who signs in elsewhere: one account each, whatever happens at once, and roles that follow the groups."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from orrery.access.accounts import Accounts
from orrery.access.identities import Identities, groups_of
from orrery.access.oidc import Person
from orrery.access.roles import Grant
from orrery.errors import NotAllowed
from orrery.timeline.store import Timeline
from orrery.timeline.verify import verify

BY = {"by": "tom", "why": "For the test."}
MARA = Person("https://id.example", "7f3a", ("mara",), "mara@example.org", ("staff", "air"))
GROUPS = groups_of("staff=viewer; air=viewer; air=scientist@team/air; it=administrator")
BOTH = pytest.mark.parametrize(
    "timeline", ["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)], indirect=True
)


@BOTH
def test_a_person_is_one_account_however_many_browsers_come_at_once(timeline: Timeline) -> None:
    identities, accounts = Identities(timeline, GROUPS, "create"), Accounts(timeline)
    with ThreadPoolExecutor(4) as threads:
        assert set(threads.map(identities.arrive, [MARA] * 8)) == {"mara"}
    assert [one.name for one in accounts.all()] == ["mara"]
    account = accounts.get("mara")
    assert set(account.by_groups) == {Grant("viewer"), Grant("scientist", "team/air")} and account.until
    kinds = [(event.kind, event.data.get("change")) for event in timeline.read()]
    assert kinds == [("account", "added"), ("account", "identified"), ("granted", None), ("granted", None)]
    assert {event.data["group"] for event in timeline.read(kinds=["granted"])} == {"air"}  # the last that brings it

    accounts.give("mara", "viewer", **BY)  # the same as a group brings: both are kept
    identities.arrive(replace(MARA, groups=()))
    assert accounts.get("mara").grants == (Grant("viewer"),) and not accounts.get("mara").by_groups
    identities.arrive(replace(MARA, groups=("it",)))
    accounts.take("mara", "viewer", **BY)
    assert accounts.get("mara").grants == (Grant("administrator"),)
    identities.arrive(replace(MARA, groups=("it",), names=("zoe",), email="zoe@example.org"))
    assert [one.name for one in accounts.all()] == ["mara"]  # who it is does not change with what they are called
    with pytest.raises(NotAllowed, match="last administrator"):
        accounts.disable("mara", **BY)
    assert verify(event.to_json() for event in timeline.read()).holds


@BOTH
def test_who_is_refused_leaves_nothing_behind(timeline: Timeline) -> None:
    accounts = Accounts(timeline)
    accounts.add("mara", links=["mara@example.org"], **BY)
    accounts.add("nora", **BY)
    accounts.disable("mara", **BY)
    head = timeline.head()
    for newcomers, person in (
        ("both", MARA),  # the account with this address is disabled
        ("create", MARA),
        ("create", replace(MARA, names=("nora",), email="")),
        ("create", replace(MARA, names=("NORA",), email="")),
        ("link", replace(MARA, email="")),
        ("none", replace(MARA, names=("zoe",), email="zoe@example.org")),
        ("create", replace(MARA, names=("zoe",), email="zoe@example.org", groups=("it is",))),
        ("create", replace(MARA, names=("a b", "x" * 65, ""), email="")),
    ):
        with pytest.raises(NotAllowed):
            Identities(timeline, GROUPS, newcomers).arrive(person)
    assert timeline.head() == head
    assert not accounts.get("mara").issuers and not accounts.get("nora").issuers
    assert Identities(timeline, GROUPS, "create").arrive(replace(MARA, names=("zoe",), email="")) == "zoe"
