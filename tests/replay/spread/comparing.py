"""Reports of two engines held against each other, number by number."""

from __future__ import annotations

import json

import pytest

OF_ENGINES = {"engine", "workers", "command"}
TIMES = {"created", "cost"}


def numbers(value, path=()):
    """Every number and word of a report, by where it stands."""
    if isinstance(value, dict):
        for name, part in value.items():
            if name not in TIMES | OF_ENGINES:
                yield from numbers(part, (*path, name))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            yield from numbers(part, (*path, place))
    else:
        yield path, value


def same_numbers(out, expected):
    found, wanted = (dict(numbers(json.loads((of / "report.json").read_text()))) for of in (out, expected))
    assert found.keys() == wanted.keys()
    assert len(found) > 5000
    for path, value in wanted.items():
        if isinstance(value, float):
            assert found[path] == pytest.approx(value, abs=1e-5, rel=0), path
        elif str(expected) not in str(value):
            assert found[path] == value, path
