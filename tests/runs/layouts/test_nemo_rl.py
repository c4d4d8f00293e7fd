"""NeMo-RL: the step is that of the folder, whatever Megatron calls it inside, and the best of what was saved counts."""

import pytest

from opd_diag.runs import find_run
from opd_diag.runs.layouts.nemo_rl import CAVEAT, nemo_rl
from opd_diag.runs.layouts.run import Run

from .. import trainers
from ..folders import write
from .reading import rows


@pytest.mark.parametrize(
    ("weights", "kind", "path"),
    [
        ("dtensor", "distributed", "policy/weights"),
        ("consolidated", "full", "policy/weights/model/consolidated"),
        ("adapter", "adapter", "policy/weights/model"),
    ],
)
def test_what_loads(tmp_path, weights, kind, path):
    assert rows(nemo_rl, trainers.nemo_rl(tmp_path, weights)) == [
        (f"step {n}", n, kind, f"step_{n}/{path}", None) for n in (10, 20)
    ]
    first = nemo_rl(Run(tmp_path))[0]
    assert (first.complete, first.tokenizer) == (True, str(tmp_path / "step_10/policy/tokenizer"))
    assert str(first.config) == ("org/student" if weights == "dtensor" else "None")


def test_megatron_is_converted_with_the_configuration_of_the_step(tmp_path):
    first = nemo_rl(Run(trainers.nemo_rl(tmp_path, "megatron")))[0]
    assert (first.step, first.code) == (10, "NEEDS_MERGE")
    assert first.way_out == (
        "Run, in a clone of NeMo-RL: uv run --extra mcore examples/converters/convert_megatron_to_hf.py --config "
        f"{tmp_path}/step_10/config.yaml --megatron-ckpt-path {tmp_path}/step_10/policy/weights/iter_0000000 "
        "--hf-ckpt-path merged/step-10; then list it with --steps '10=merged/step-10'."
    )


def test_safetensors_of_ranks_must_be_consolidated(tmp_path):
    first = nemo_rl(Run(trainers.nemo_rl(tmp_path, "safetensors")))[0]
    assert (first.code, first.blocker) == (
        "NEEDS_MERGE",
        f"{tmp_path}/step_10/policy/weights/model holds 2 safetensors shards of ranks, not of Hugging Face.",
    )
    assert first.way_out == (
        "Consolidate them with tools/offline_hf_consolidation.py of NeMo-Automodel; for runs to come set "
        "checkpointing.save_consolidated=true."
    )


def test_the_run_says_what_was_passed_over_and_that_the_best_were_kept(tmp_path):
    assert find_run(trainers.nemo_rl(tmp_path)).notes == (
        CAVEAT,
        "Nothing to load in: tmp_step_30 (an unfinished save).",
    )


@pytest.mark.parametrize(
    "config",
    [
        "policy:\n  model_name: 'org/student'\n",
        "a: 1\npolicy:\n\n  # of the student\n  b:\n    model_name: other\n  model_name: org/student # here\n",
    ],
)
def test_the_model_is_named_in_the_configuration(tmp_path, config):
    write(trainers.nemo_rl(tmp_path) / "step_10", {"config.yaml": config})
    assert str(nemo_rl(Run(tmp_path))[0].config) == "org/student"


@pytest.mark.parametrize("config", ["teacher:\n  model_name: org/teacher\n", "policy: {}\n", "\x00", ""])
def test_a_configuration_that_does_not_say(tmp_path, config):
    write(trainers.nemo_rl(tmp_path) / "step_10", {"config.yaml": config})
    assert nemo_rl(Run(tmp_path))[0].code == "CONFIG_MISSING"
    assert nemo_rl(Run(tmp_path, student="org/start"))[0].loadable
