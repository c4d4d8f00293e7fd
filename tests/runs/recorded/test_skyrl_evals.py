"""SkyRL's evaluations: text with special tokens, after the update they are filed under."""

import pytest

from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded import find_recorded, read_recorded

from .written import lines, refusal, skyrl_eval


def folder(tmp_path, step=10):
    return tmp_path / "exports" / "dumped_evals" / f"global_step_{step}_evals"


def test_an_evaluation(tmp_path):
    path = skyrl_eval(folder(tmp_path) / "openai_gsm8k.jsonl")
    lines(folder(tmp_path) / "aggregated_results.jsonl", {"eval/all/avg_score": 0.5})
    (file,) = find_recorded(tmp_path)
    assert (file.path, file.format, file.step, file.evaluation) == (path, "skyrl-evals", 10, True)
    assert read_recorded(file) == [
        Recorded(
            place=f"{path}, line 1",
            step=10,
            updates=10,
            exactness="text-with-specials",
            prompt="<user>2 + 2 =<end><assistant>",
            response="4<end>",
            stop_reason="stop",
            reward=1.0,
            answer="4",
            group="openai/gsm8k",
        )
    ]


@pytest.mark.parametrize(
    ("value", "reason"), [("length", "length"), ("abort", "unknown"), (None, "unknown"), ([1], "unknown")]
)
def test_why_it_ended(tmp_path, value, reason):
    path = skyrl_eval(folder(tmp_path) / "a.jsonl", stop_reason=value, env_extras=None)
    assert [(r.stop_reason, r.answer) for r in read_recorded(path)] == [(reason, None)]


def test_the_means_beside_it_are_no_responses(tmp_path):
    path = lines(folder(tmp_path) / "aggregated_results.jsonl", {"eval/all/avg_score": 0.5})
    assert refusal(path).startswith(
        "aggregated_results.jsonl is of no format that opd-diag reads: its first line has the fields "
        "eval/all/avg_score. "
        "Known are opd-diag rollouts/*.jsonl; TRL completions/*.parquet; "
    )
