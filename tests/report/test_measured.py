"""What was measured, as facts for the page: log-probabilities as sampled against replayed ones."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from opd_diag.report.json_file import plain
from opd_diag.report.measured import measured

from .made_up_report import made_up_report

CHECKS = [
    {
        "model": "step 0",
        "n_tokens": 1500,
        "mean_abs_difference": 2.2e-7,
        "max_abs_difference": 3e-6,
        "share_above": 0.0,
    },
    {"model": "step 40", "n_tokens": 500, "mean_abs_difference": 0.31, "max_abs_difference": 2.0, "share_above": 0.125},
]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    return made_up_report(tmp_path_factory.mktemp("made"))


def told(report, checks):
    known = replace(report, provenance=report.provenance | {"logprobs": checks})
    return dict(measured(known)).get("Sampled against replayed")


def test_the_furthest_off_is_named(report):
    assert told(report, CHECKS) == (
        "log-probabilities of 2,000 tokens differ by 0.3 nats on average (step 40, the most), by 2 at most, "
        "by more than 0.01 at 12 % of the tokens of one model at most"
    )
    assert "2e−07 nats on average (step 0, the most), by 3e−06 at most, by more than 0.01 at no token" in told(
        report, CHECKS[:1]
    )


def test_what_is_no_number_is_the_furthest_off(report):
    broken = CHECKS[0] | {"model": "step 20", "mean_abs_difference": float("inf"), "max_abs_difference": float("inf")}
    for checks in ([broken, *CHECKS], json.loads(json.dumps(plain([broken, *CHECKS])))):
        assert "by inf nats on average (step 20, the most), by inf at most" in told(report, checks)


@pytest.mark.parametrize("checks", [[], None])
def test_nothing_is_told_where_nothing_could_be_compared(report, checks):
    assert told(report, checks) is None
    assert "Sampled against replayed" not in dict(measured(report))


@pytest.mark.parametrize(
    ("sampler", "said"),
    [
        (
            {"name": "vllm", "version": "0.32.0", "models": ["step 0"]},
            "vLLM 0.32.0, in a process of its own for each model",
        ),
        ({"name": "vllm", "version": None, "models": ["step 0"]}, "vLLM, in a process of its own for each model"),
        ({"name": "local", "version": "0.1.0", "models": ["step 0"]}, "opd-diag 0.1.0"),
        ({"name": "local", "version": "0.1.0", "models": []}, None),
        ({}, None),
    ],
)
def test_who_sampled_is_told_where_anything_was_sampled(report, sampler, said):
    known = replace(report, provenance=report.provenance | {"sampler": sampler})
    assert dict(measured(known)).get("Sampled by") == said
