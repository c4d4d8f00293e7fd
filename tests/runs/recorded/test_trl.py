"""TRL's tables, made by its own trainers: text and messages, sampled before the update they are filed under."""

import contextlib
import io

import pandas as pd
import pytest

from opd_diag.runs.recorded import find_recorded, read_recorded

from .make_trl import make, questions
from .written import TRL, refusal

MESSAGES = [[{"role": "user", "content": q}] for q in questions()]


def table(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame({"step": [4], "prompt": ["a"], "completion": ["b"]} | columns).to_parquet(path)
    return path


@pytest.mark.parametrize("name", ["distillation", "grpo", "grpo_text"])
def test_files_of_a_run(name):
    found = find_recorded(TRL / name)
    assert [(f.format, f.step, f.exactness, f.evaluation, f.pickled) for f in found] == [
        ("trl", step, "text-stripped", False, False) for step in (1, 2)
    ]
    for file in found:
        recorded = read_recorded(file)
        assert [(r.step, r.updates) for r in recorded] == [(file.step, file.step - 1)] * 4
        assert {(r.exactness, r.stop_reason, r.prompt_ids) for r in recorded} == {("text-stripped", "unknown", None)}


def test_a_distillation_has_text():
    recorded = read_recorded(TRL / "distillation" / "completions" / "completions_00001.parquet")
    assert sorted(r.prompt for r in recorded) == sorted(questions())
    assert [r.response for r in recorded][1:3] == [
        "Step by step: 2 + 2 = 4. So the answer is 4 cards.",
        "Step by step: 9 * 2 = 11. Hence the answer is 11 plums.",
    ]
    assert {r.reward for r in recorded} == {None}
    assert recorded[1].place.endswith("completions_00001.parquet, row 2")


def test_grpo_has_messages_and_the_reward_of_its_function():
    recorded = read_recorded(TRL / "grpo" / "completions" / "completions_00001.parquet")
    assert all(list(r.prompt) in MESSAGES for r in recorded)
    assert recorded[0].response == (
        {"role": "assistant", "content": "I write it down: 16 - 12 = 4. Hence the answer is 4 shells."},
    )
    assert [r.reward for r in recorded] == [pytest.approx(-len(r.response[0]["content"]) / 100) for r in recorded]


def test_grpo_on_text_has_text():
    recorded = read_recorded(TRL / "grpo_text" / "completions" / "completions_00002.parquet")
    assert {r.prompt for r in recorded} <= set(questions())
    assert [r.reward for r in recorded] == [pytest.approx(-len(r.response) / 100) for r in recorded]


def test_what_only_another_message_has_is_left_out_of_a_message(tmp_path):
    call = [{"type": "function", "function": {"name": "calc", "arguments": "{}"}}]
    said = [
        {"role": "assistant", "content": None, "tool_calls": call},
        {"role": "tool", "content": "4", "name": "calc"},
    ]
    path = table(tmp_path / "completions" / "completions_00004.parquet", completion=[said])
    (recorded,) = read_recorded(path)
    assert list(recorded.response) == said


def test_several_columns_of_numbers_are_no_reward(tmp_path):
    path = table(tmp_path / "completions_00004.parquet", accuracy=[1.0], length=[3.0], advantage=[0.5])
    assert [r.reward for r in read_recorded(path)] == [None]


def test_mixed_steps_keep_their_own(tmp_path):
    columns = {"step": [4, 6], "prompt": ["a", "b"], "completion": ["c", "d"]}
    path = tmp_path / "completions_00006.parquet"
    pd.DataFrame(columns).to_parquet(path)
    assert [(r.step, r.updates) for r in read_recorded(path)] == [(4, 3), (6, 5)]


def test_a_table_without_steps_has_that_of_its_name(tmp_path):
    path = tmp_path / "completions" / "completions_00006.parquet"
    path.parent.mkdir()
    pd.DataFrame({"prompt": ["a"], "completion": ["b"]}).to_parquet(path)
    assert [(r.step, r.updates) for r in read_recorded(path)] == [(6, 5)]


def test_a_table_of_something_else_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"step": [1], "text": ["b"]}).to_parquet(path)
    assert refusal(path) == (
        "a.parquet, row 1: expected a field 'prompt', found step, text. Mend it or leave the file out."
    )


def test_an_empty_table_is_refused(tmp_path):
    path = tmp_path / "a.parquet"
    pd.DataFrame({"step": [], "prompt": [], "completion": []}).to_parquet(path)
    assert refusal(path) == "a.parquet holds no response that can be used. Leave the file out."


@pytest.mark.parametrize(
    ("kept", "reason"), [(0, "Parquet file size is 0 bytes"), (200, "Parquet magic bytes not found in footer")]
)
def test_a_file_that_is_being_written_is_refused(tmp_path, kept, reason):
    path = table(tmp_path / "a.parquet")
    path.write_bytes(path.read_bytes()[:kept])
    assert refusal(path) == (
        f"a.parquet is no whole parquet file ({reason}). If the trainer is writing it, run the "
        "command again later; else "
        "leave the file out."
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
@pytest.mark.filterwarnings("ignore:`gradient_checkpointing` is deprecated:FutureWarning")
def test_trl_writes_such_files_and_samples_before_the_update(tmp_path):
    """The trainers run anew; what each generation returned, and after how many updates, is held against the files."""
    generated = {}

    def watched(name, trainer):
        generate = trainer._generate_and_score_completions

        def generate_watched(inputs):
            output = generate(inputs)
            texts = trainer.processing_class.batch_decode(output["completion_ids"], skip_special_tokens=True)
            generated.setdefault((name, trainer.state.global_step), set()).update(texts)
            return output

        trainer._generate_and_score_completions = generate_watched

    with contextlib.redirect_stdout(io.StringIO()):
        run_dirs = make(tmp_path, watched)
    for name, run_dir in run_dirs.items():
        files = find_recorded(run_dir)
        assert [f.step for f in files] == [1, 2]
        for file in files:
            recorded = read_recorded(file)
            texts = {r.response if isinstance(r.response, str) else r.response[0]["content"] for r in recorded}
            (updates,) = {r.updates for r in recorded}
            assert texts == generated[name, updates]
        assert generated[name, 0] != generated[name, 1]
