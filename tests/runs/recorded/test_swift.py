"""ms-swift's flushes: columns, whose updates are known only where the flush before tells since when they come."""

import pytest

from opd_diag.runs.recorded import find_recorded, read_recorded

from .written import lines, refusal, swift_flush


def test_flushes_of_a_distillation(tmp_path):
    path = lines(tmp_path / "completions.jsonl", swift_flush(1), swift_flush(2), swift_flush(7), swift_flush(8, n=1))
    (file,) = find_recorded(tmp_path)
    assert (file.format, file.step, file.exactness) == ("ms-swift", None, "text-stripped")
    recorded = read_recorded(file)
    assert [(r.step, r.updates) for r in recorded] == [(1, 0)] * 2 + [(2, 1)] * 2 + [(7, None)] * 2 + [(8, 7)]
    assert recorded[1].place == f"{path}, line 1, row 2"
    assert (recorded[1].prompt, recorded[1].response) == ("<user>1 + 1 =<assistant>", "2")


def test_grpo_keeps_the_last_batch_alone(tmp_path):
    flush = swift_flush(10, advantages=[0.5, -0.5], accuracy=[1.0, 0.0], solution=["1", "2"])
    recorded = read_recorded(lines(tmp_path / "completions.jsonl", flush))
    assert [(r.updates, r.reward, r.answer) for r in recorded] == [(9, 1.0, "1"), (9, 0.0, "2")]


def test_rewards_of_several_functions_are_not_summed(tmp_path):
    flush = swift_flush(10, advantages=[0.5, -0.5], accuracy=[1.0, 0.0], form=[0.5, 0.5])
    assert {r.reward for r in read_recorded(lines(tmp_path / "completions.jsonl", flush))} == {None}


def test_a_generation_step_counts_updates(tmp_path):
    flush = {"gen_step": [4, 4], "prompt": ["a", "b"], "completion": ["c", "d"], "accuracy": [1.0, 0.0]}
    recorded = read_recorded(lines(tmp_path / "completions.jsonl", flush))
    assert [(r.step, r.updates, r.reward) for r in recorded] == [(4, 4, 1.0), (4, 4, 0.0)]


def test_rows_as_ray_writes_them(tmp_path):
    rows = [{"gen_step": step, "prompt": "a", "completion": "b", "reward": 0.5} for step in (0, 1)]
    recorded = read_recorded(lines(tmp_path / "completions.jsonl", *rows))
    assert [(r.step, r.updates, r.reward) for r in recorded] == [(0, 0, 0.5), (1, 1, 0.5)]


def test_an_empty_flush_and_a_column_of_another_length_are_passed_over(tmp_path):
    empty = {"step": [], "prompt": [], "completion": [], "advantages": []}
    path = lines(tmp_path / "completions.jsonl", empty, swift_flush(3, advantages=[0.5, 0.5], num_turns=[1]))
    assert [(r.step, r.updates) for r in read_recorded(path)] == [(3, 2), (3, 2)]


@pytest.mark.parametrize(
    ("flush", "message"),
    [
        (
            {"step": ["1"], "prompt": ["a"], "completion": ["b", "c"]},
            "completions.jsonl, line 1: columns of different lengths (prompt 1, completion 2). Mend it or leave the "
            "file out.",
        ),
        (
            {"step": ["one"], "prompt": ["a"], "completion": ["b"]},
            "completions.jsonl, line 1, row 1: expected 'step' as a whole number from 0, found str ('one'). Mend it or "
            "leave the file out.",
        ),
    ],
)
def test_columns_that_do_not_fit_are_named(tmp_path, flush, message):
    assert refusal(lines(tmp_path / "completions.jsonl", flush)) == message
