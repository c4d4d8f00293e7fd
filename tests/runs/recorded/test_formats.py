"""The table of formats: names are unique, each file of a trainer fits one, and the docs name them all."""

import pytest

import opd_diag.runs.recorded as package
from opd_diag.runs.recorded.formats import FORMATS, named_like, with_fields


def test_the_table_in_the_docs_has_every_format():
    documented = [line.split("``")[1] for line in package.__doc__.splitlines() if line.startswith("``")]
    assert sorted(documented) == sorted(FORMATS)


def test_the_table_in_the_docs_has_their_exactness():
    rows = [line.split() for line in package.__doc__.splitlines() if line.startswith("``")]
    assert {row[0].strip("`"): row[1] for row in rows} == {name: form.exactness for name, form in FORMATS.items()}


@pytest.mark.parametrize(
    ("path", "names"),
    [
        ("/r/completions/completions_00040.parquet", ["trl"]),
        ("/r/rollouts/40.jsonl", ["verl"]),
        ("/r/rollout_data/40.jsonl", ["verl", "kdflow"]),
        ("/r/rollout/4/40.jsonl", ["verl", "areal"]),
        ("/r/rollout/4/a.jsonl", ["areal"]),
        ("/r/rollout_data/40.pt", ["slime"]),
        ("/r/rollout_data/eval_40.pt", []),
        ("/r/exp_001/train_data_step4.jsonl", ["nemo-rl", "nemo-rl-text"]),
        ("/r/exp_001/val_data_step4.jsonl", []),
        ("/r/token_exports/step_4/rank_1.jsonl", ["prime-tokens"]),
        ("/r/rollouts/step_4/train/all/traces.jsonl", ["prime-traces"]),
        ("/r/dumped_data/global_step_4_training_input.pkl", ["skyrl-batches"]),
        ("/r/dumped_evals/global_step_4_evals/a.jsonl", ["skyrl-evals"]),
        ("/r/completions.jsonl", ["ms-swift"]),
        ("/r/rollout_dump_data.step_4.jsonl", ["roll"]),
        ("/r/rollouts/step-000040.jsonl", ["opd-diag"]),
        ("/r/checkpoint-40/optimizer.pt", []),
        ("/r/train.jsonl", []),
        ("/r/٤.jsonl", []),
    ],
)
def test_names_tell_candidates(path, names):
    assert [form.name for form in named_like(path)] == names


def test_fields_tell_one_of_them():
    candidates = named_like("/r/rollout_data/40.jsonl")
    assert with_fields(frozenset({"prompt", "output", "more"}), candidates).name == "kdflow"
    assert with_fields(frozenset({"prompt"}), candidates) is None
    both = frozenset({"content", "input_lengths", "token_ids", "token_loss_mask"})
    assert with_fields(both, FORMATS.values()).name == "nemo-rl"
