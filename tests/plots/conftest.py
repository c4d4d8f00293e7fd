from __future__ import annotations

import matplotlib
import pytest

from plots.synthetic_run import SyntheticRun


@pytest.fixture(scope="session")
def run() -> SyntheticRun:
    return SyntheticRun()


@pytest.fixture(scope="session")
def one_checkpoint() -> SyntheticRun:
    return SyntheticRun(steps=[40])


@pytest.fixture(scope="session")
def one_prompt() -> SyntheticRun:
    return SyntheticRun(prompts=1)


@pytest.fixture(scope="session")
def unknown_steps() -> SyntheticRun:
    labels = ["_start", "run $1$ 100%", "名前\x00", "a" * 80, "final"]
    return SyntheticRun(steps=[None] * 5, labels=labels)


@pytest.fixture(autouse=True)
def leaves_pyplot_alone():
    """Every picture leaves matplotlib's settings and pyplot's list of figures as they were."""
    from matplotlib import pyplot

    before = dict(matplotlib.rcParams)
    yield
    assert dict(matplotlib.rcParams) == before
    assert pyplot.get_fignums() == []
