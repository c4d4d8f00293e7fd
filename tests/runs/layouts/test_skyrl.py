"""SkyRL: checkpoints in shards or as adapters, exports of whole models, and what cannot be merged."""

from opd_diag.runs import find_run
from opd_diag.runs.layouts.run import Run
from opd_diag.runs.layouts.skyrl import skyrl, skyrl_export

from .. import trainers
from ..folders import write
from ..trainers import ASSETS, megatron
from .reading import rows


def test_checkpoints_in_shards(tmp_path):
    assert rows(skyrl, trainers.skyrl(tmp_path)) == [
        (f"step {n}", n, "fsdp", f"global_step_{n}/policy", None) for n in (5, 10)
    ]
    assert skyrl(Run(tmp_path))[0].config == tmp_path / "global_step_5/policy/huggingface"
    assert [c.complete for c in find_run(tmp_path).checkpoints] == [True, True]


def test_checkpoints_of_adapters(tmp_path):
    first = skyrl(Run(trainers.skyrl(tmp_path, lora=True)))[0]
    assert (first.kind, first.base_model) == ("adapter", "org/base")
    assert first.tokenizer == str(tmp_path / "global_step_5/policy/huggingface")


def test_checkpoints_of_megatron_must_be_exported(tmp_path):
    folder = write(tmp_path / "global_step_5", {"trainer_state.pt": b"x"})
    write(megatron(folder / "policy") / "huggingface", ASSETS)
    (found,) = skyrl(Run(tmp_path))
    assert (found.code, found.blocker) == (
        "NEEDS_MERGE",
        "It holds a Megatron distributed checkpoint, not Hugging Face weights.",
    )
    assert found.way_out == (
        "SkyRL has no converter: load it in SkyRL with trainer.resume_path and trainer.hf_save_interval=1, which "
        "exports it to trainer.export_path, and pass that folder."
    )


def test_a_policy_without_weights(tmp_path):
    folder = write(tmp_path / "global_step_5", {"trainer_state.pt": b"x"})
    write(folder / "policy" / "huggingface", ASSETS)
    (found,) = skyrl(Run(tmp_path))
    assert (found.code, found.blocker) == ("NO_WEIGHTS", f"Found no weights in {folder}/policy; found huggingface.")
    assert found.way_out == "For runs to come set trainer.hf_save_interval, and pass trainer.export_path."


def test_exports_are_no_checkpoints_and_the_other_way_round(tmp_path):
    assert rows(skyrl_export, trainers.skyrl_export(tmp_path / "exports")) == [
        (f"step {n}", n, "full", f"global_step_{n}/policy", None) for n in (5, 10)
    ]
    assert rows(skyrl, tmp_path / "exports") == []
    assert rows(skyrl_export, trainers.skyrl(tmp_path / "ckpts")) == []
