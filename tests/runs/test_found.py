"""One folder read by the layouts: the first that fits, with the steps that others of its family add."""

from opd_diag.runs.found import by_name, by_trainer, related
from opd_diag.runs.layouts.run import Run

from . import trainers
from .folders import full_model, trainer_run


def test_a_folder_of_no_trainer(tmp_path):
    assert by_trainer(Run(trainers.side_by_side(tmp_path))) is None
    assert by_name(Run(tmp_path), "generic_hf").layout == "generic_hf"
    assert by_name(Run(tmp_path), "hf_trainer") is None


def test_the_first_that_fits_names_the_layout(tmp_path):
    found = by_trainer(Run(trainers.verl_fsdp(tmp_path)))
    assert (found.layout, found.folder, found.notes) == ("verl_fsdp", tmp_path, ())


def test_exports_beside_checkpoints_of_other_steps_are_one_run(tmp_path):
    trainers.skyrl(tmp_path)
    full_model(tmp_path / "global_step_7" / "policy")
    found = by_trainer(Run(tmp_path))
    assert [(c.step, c.kind) for c in found.checkpoints] == [(5, "fsdp"), (7, "full"), (10, "fsdp")]


def test_what_lies_in_a_checkpoint_is_no_second_reading(tmp_path):
    trainers.slime(trainer_run(tmp_path) / "checkpoint-20")
    trainers.hf_deepspeed(tmp_path)
    assert by_trainer(Run(tmp_path)).layout == "hf_trainer"


def test_related(tmp_path):
    assert related(tmp_path, tmp_path)
    assert related(tmp_path / "a", tmp_path)
    assert related(tmp_path, tmp_path / "a" / "b")
    assert not related(tmp_path / "a", tmp_path / "ab")
