"""Megatron, which slime saves from 0, must be converted; torchtune names epochs, and no step."""

from opd_diag.runs import find_run
from opd_diag.runs.layouts.iterations import MEGATRON_CAVEAT, megatron, torchtune
from opd_diag.runs.layouts.run import Run

from .. import trainers
from ..folders import full_model, write
from ..trainers import SHARD, distributed
from .reading import rows


def test_iterations_count_from_0_and_come_with_the_command(tmp_path):
    assert rows(megatron, trainers.slime(tmp_path)) == [
        ("step 20", 20, "other", "iter_0000019", "NEEDS_MERGE"),
        ("step 40", 40, "other", "iter_0000039", "NEEDS_MERGE"),
    ]
    assert megatron(Run(tmp_path))[0].way_out == (
        f"Run, in a clone of slime: python tools/convert_torch_dist_to_hf.py --input-dir {tmp_path}/iter_0000019 "
        "--output-dir merged/step-20 --origin-hf-dir HF_CHECKPOINT; then list it with --steps '20=merged/step-20'."
    )
    found = find_run(tmp_path)
    assert (found.layout, found.notes) == ("megatron", (MEGATRON_CAVEAT,))
    assert find_run(tmp_path, step_base=0).notes == (MEGATRON_CAVEAT,)
    found = find_run(tmp_path, step_base=1)
    assert ([c.step for c in found.checkpoints], found.notes) == ([19, 39], ())


def test_the_format_with_a_folder_a_rank(tmp_path):
    assert rows(megatron, trainers.slime_legacy(tmp_path)) == [("step 20", 20, "other", "iter_0000019", "NEEDS_MERGE")]


def test_the_pointer_alone_is_evidence_for_nothing(tmp_path):
    write(tmp_path, {"latest_checkpointed_iteration.txt": "19"})
    assert megatron(Run(tmp_path)) == []
    write(tmp_path / "iter_0000019", {"notes.txt": ""})
    assert rows(megatron, tmp_path) == [("step 20", 20, "full", "iter_0000019", "NO_WEIGHTS")]


def test_epochs_have_no_step_and_stand_in_their_order(tmp_path):
    assert rows(torchtune, trainers.torchtune(tmp_path)) == [
        (f"epoch_{n}", None, "full", f"epoch_{n}", None) for n in (0, 1, 10)
    ]
    folders = ",".join(f"STEP={tmp_path}/epoch_{n}" for n in (0, 1, 10))
    assert find_run(tmp_path).notes == (
        "Steps are unknown, as no name tells them; 3 checkpoints stand in the order of their names. "
        f"To give their steps: --steps '{folders}'.",
    )


def test_newer_releases_name_steps_and_save_asynchronously(tmp_path):
    for step in (100, 20):
        full_model(tmp_path / f"step_{step}", **{"recipe_state.pt": SHARD})
    write(distributed(tmp_path / "dist_epoch_0"), {"config.json": "{}"})
    assert rows(torchtune, tmp_path) == [
        ("dist_epoch_0", None, "distributed", "dist_epoch_0", None),
        ("step 20", 20, "full", "step_20", None),
        ("step 100", 100, "full", "step_100", None),
    ]


def test_epochs_of_another_trainer_are_left_alone(tmp_path):
    full_model(tmp_path / "epoch_0")
    assert torchtune(Run(tmp_path)) == []
    assert find_run(tmp_path).layout == "generic_hf"
