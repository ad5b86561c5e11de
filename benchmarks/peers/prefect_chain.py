"""A chain of trivial steps in Prefect, its results kept: ``prefect_chain.py STEPS``; its server is one of its own."""

import sys

from prefect import flow, task  # type: ignore[import-not-found]
from prefect.cache_policies import INPUTS, TASK_SOURCE  # type: ignore[import-not-found]


@task(cache_policy=INPUTS + TASK_SOURCE, persist_result=True)
def add_one(value: int, step: int) -> int:
    return value + 1


@flow
def chain(steps: int) -> int:
    value = 0
    for step in range(steps):
        value = add_one(value, step)
    return value


steps = int(sys.argv[1])
assert chain(steps) == steps
