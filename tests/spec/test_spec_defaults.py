from __future__ import annotations

import tomllib

import jsonschema
import pytest

from orrery import spec as specs
from orrery.errors import NotUnderstood

SMALLEST = """
[model]
name = "tides"
task = "regression"
target = "height"
[data]
tides = "tides"
"""
TIMED = SMALLEST.replace("[data]", 'time = "at"\n[data]') + "[triggers]\n"


EARNS = SMALLEST + "[rollout.business.revenue]\n"


def test_the_smallest_file_has_careful_defaults() -> None:
    spec = specs.parse(SMALLEST)
    assert list(spec.environments) == ["staging", "production"]
    assert spec.rollout.primary == "absolute_error" and spec.rollout.redesign.shadow
    assert spec.gates.metrics["absolute_error"].versus == "champion"


@pytest.mark.parametrize(
    ("change", "kept"),
    [("redesign", ("shadow", True)), ("refresh", ("approval", "policy")), ("repair", ("window", "30d"))],
)
def test_what_a_burden_leaves_out_is_the_default_of_its_own_kind(change: str, kept: tuple[str, object]) -> None:
    spec = specs.parse(f'{SMALLEST}[rollout.{change}]\nguard = "3d"\n')
    burden = getattr(spec.rollout, change)
    assert burden.guard == "3d" and getattr(burden, kept[0]) == kept[1]


def test_a_loss_of_the_project_stands_beside_the_known_ones() -> None:
    text = (
        SMALLEST + "[losses.missed]\nbound = 10\n[gates]\nmissed = { max = 3 }\nabsolute_error = { max = 1 }\n"
        '[rollout]\nprimary = "missed"\nguardrails = { absolute_error = 0.1 }\n'
    )
    spec = specs.parse(text)
    assert spec.losses["missed"].function == "losses:missed" and spec.rollout.primary == "missed"
    assert spec.gates.metrics["missed"].max == 3 and specs.from_dict(specs.to_dict(spec)) == spec
    jsonschema.validate(tomllib.loads(text), specs.json_schema())


def test_environments_follow_their_needs_however_they_are_stored() -> None:
    spec = specs.parse(SMALLEST)
    stored = specs.to_dict(spec)
    stored["environments"] = dict(reversed(list(stored["environments"].items())))
    assert specs.from_dict(stored) == spec and list(specs.from_dict(stored).environments) == ["staging", "production"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('[modl]\nname = "x"', "Did you mean 'model'"),
        (SMALLEST + "[gates]\nabsolut_error = { max = 1 }", "Did you mean 'absolute_error'"),
        (SMALLEST + '[rollout.refresh]\ngard = "1d"', "Did you mean 'guard'"),
        (SMALLEST + '[rollout]\nprimary = "brier"', "no loss of a regression"),
        (SMALLEST + '[gates]\nholdout = "7d"', "needs [model] time"),
        (SMALLEST + '[triggers]\nschedule = "every day"', "cron"),
        (SMALLEST + '[monitors]\nevery = "often"', "length of time"),
        (EARNS + "low = 5\nhigh = 1", "not below high"),
        (EARNS + "low = 0\nhigh = 1\nmargin = 1", "tolerates everything"),
        (EARNS + "low = 1\nhigh = 2", "not between low and high"),
        (EARNS + 'low = 0\nhigh = 2\nby = "week"', "by"),
        (EARNS + "low = 0\nhigh = 2", "needs [model] entity"),
        (EARNS.replace("[data]", 'entity = "who"\n[data]') + "low = 0\nhigh = 2", "units of an A/B or a canary"),
        (EARNS.replace("revenue", "brier") + "low = 0\nhigh = 2", "name of a loss"),
        (SMALLEST + "[losses.missed]\nbound = 0", "bound"),
        (SMALLEST + "[losses.missed]", "bound"),
        (SMALLEST + "[losses.brier]\nbound = 1", "cannot be the name of a loss"),
        (SMALLEST + "[losses.segments]\nbound = 1", "cannot be the name of a loss"),
        (SMALLEST + '[losses.missed]\nbound = 1\nfunction = "rm -rf:x"', "names no function"),
        (
            SMALLEST + '[losses.missed]\nbound = 1\n[rollout]\nprimary = "misst"',
            "squared_error, missed",
        ),
        (TIMED + 'windows = ["all"]', "nothing to choose"),
        (TIMED + 'windows = ["all", "1w", "7d"]', "the same window twice"),
        (TIMED + 'windows = ["all", "0s"]', 'Write "all"'),
        (TIMED + 'windows = ["all", "-3d"]', "length of time"),
        (TIMED + 'windows = ["all", "a while"]', "length of time"),
        (TIMED + 'windows = ["all", "7d"]\n[rollout.refresh]\nwindow = "31d"', "the same question"),
        (SMALLEST + '[triggers]\nwindows = ["all", "7d"]', "needs [model] time"),
        (
            SMALLEST + '[environments.staging]\nneeds = ["production"]\n[environments.production]\nneeds = ["staging"]',
            "each other",
        ),
        (SMALLEST.replace('"tides"\ntask', '"mlflow"\ntask'), "cannot be called"),
        ("[model", "not TOML"),
    ],
)
def test_what_is_not_understood_is_refused_with_a_hint(text: str, words: str) -> None:
    with pytest.raises(NotUnderstood) as error:
        specs.parse(text)
    assert words in str(error.value)


def test_the_published_schema_says_the_same() -> None:
    import tomllib

    schema = specs.json_schema()
    jsonschema.validate(tomllib.loads(SMALLEST), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(SMALLEST + "[nonsense]\nx = 1"), schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(SMALLEST.replace("regression", "guessing")), schema)
