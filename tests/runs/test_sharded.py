"""What trainers write for themselves is told by names: which ranks are there, and what merges what cannot be loaded."""

import os

import pytest

from opd_diag.runs.holdings import NAME_CONFIG, SAVE_AGAIN
from opd_diag.runs.weights import classify_weights

from .folders import write
from .trainers import ASSETS, SHARD, distributed, megatron, rank_files


def held(folder, **options):
    weights = classify_weights(folder, **options)
    assert weights is not None
    return weights


def test_all_ranks_in_their_order_with_the_config_of_huggingface(tmp_path):
    rank_files(tmp_path, world=12)
    write(tmp_path / "huggingface", ASSETS)
    weights = held(tmp_path)
    assert (weights.kind, weights.blocker, weights.config) == ("fsdp", None, tmp_path / "huggingface")
    assert [f.name for f in weights.files] == [f"model_world_size_12_rank_{rank}.pt" for rank in range(12)]


def test_missing_and_empty_ranks(tmp_path):
    rank_files(tmp_path, world=4, ranks=(0, 2, 3))
    write(tmp_path, {"model_world_size_4_rank_3.pt": b"", "config.json": "{}"})
    weights = held(tmp_path)
    assert (weights.code, weights.blocker, weights.way_out) == (
        "INCOMPLETE_WEIGHTS",
        "It has shards of 2 of 4 ranks; missing or empty: 1, 3.",
        SAVE_AGAIN,
    )


def test_many_missing_ranks_are_counted(tmp_path):
    rank_files(tmp_path, world=64, ranks=(0,))
    assert held(tmp_path).blocker == (
        "It has shards of 1 of 64 ranks; missing or empty: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and 53 more."
    )


def test_a_world_size_that_nobody_has_costs_nothing(tmp_path):
    write(tmp_path, {f"model_world_size_{10**200}_rank_0.pt": SHARD, "model_world_size_2_rank_7.pt": SHARD})
    assert held(tmp_path).blocker.endswith(f"missing or empty: 1, 2, 3, 4, 5, 6, 7, 8, 9, 10 and {10**200 - 11} more.")


def test_shards_of_two_saves(tmp_path):
    rank_files(rank_files(tmp_path, world=16), world=8)
    weights = held(tmp_path)
    assert weights.code == "MIXED_SHARDS"
    assert weights.blocker == "It has shards for world sizes 8 and 16; fsdp_config.json says 8."
    assert weights.way_out == (
        f"Move those of the other save away: mkdir ASIDE && mv {tmp_path}/*_world_size_16_rank_*.pt ASIDE."
    )
    assert len(weights.files) == 24
    (tmp_path / "fsdp_config.json").unlink()
    assert held(tmp_path).blocker == "It has shards for world sizes 8 and 16."


def test_shards_without_a_config(tmp_path):
    rank_files(tmp_path)
    weights = held(tmp_path)
    assert (weights.code, weights.way_out) == ("CONFIG_MISSING", NAME_CONFIG)
    assert weights.blocker == (f"It has shards of 2 ranks but no config.json; looked in {tmp_path}/huggingface too.")


def test_a_distributed_checkpoint(tmp_path):
    write(distributed(tmp_path), {"config.json": "{}"})
    weights = held(tmp_path)
    assert (weights.kind, weights.blocker, weights.folder) == ("distributed", None, None)
    assert [f.name for f in weights.files] == [".metadata", "__0_0.distcp", "__1_0.distcp"]


@pytest.mark.parametrize(
    ("gone", "said"),
    [
        ([".metadata"], "It has 2 .distcp files but no .metadata: the save was interrupted."),
        (["__0_0.distcp", "__1_0.distcp"], "It has .metadata but no .distcp file: the save was interrupted."),
    ],
)
def test_half_of_a_distributed_checkpoint(tmp_path, gone, said):
    distributed(tmp_path)
    for name in gone:
        (tmp_path / name).unlink()
    weights = held(tmp_path)
    assert (weights.code, weights.blocker, weights.way_out) == ("INCOMPLETE_WEIGHTS", said, SAVE_AGAIN)


def test_that_of_accelerate_lies_one_deeper_and_takes_the_config_above_it(tmp_path):
    inner = distributed(tmp_path / "pytorch_model_fsdp_0")
    assert held(tmp_path).code == "CONFIG_MISSING"
    write(tmp_path, {"config.json": "{}"})
    weights = held(tmp_path)
    assert (weights.kind, weights.blocker, weights.folder, weights.config) == ("distributed", None, inner, tmp_path)
    for name in os.listdir(inner):
        (inner / name).unlink()
    assert held(tmp_path).blocker == "pytorch_model_fsdp_0 in it holds no shards: the save was interrupted."


def test_megatron_comes_with_the_command_that_converts_it(tmp_path):
    tail = "--origin-hf-dir HF_CHECKPOINT; then list it with --steps 'STEP=merged/it'."
    for folder, what in (
        (megatron(tmp_path / "new"), "a Megatron distributed checkpoint"),
        (
            write(tmp_path / "old" / "mp_rank_00", {"model_optim_rng.pt": SHARD}).parent,
            "Megatron shards, a folder a rank",
        ),
    ):
        weights = held(folder, out="merged/it")
        assert (weights.kind, weights.code) == ("other", "NEEDS_MERGE")
        assert weights.blocker == f"It holds {what}, not Hugging Face weights."
        assert weights.way_out == (
            "Run, in a clone of slime (other trainers have tools of their own): python "
            f"tools/convert_torch_dist_to_hf.py --input-dir {folder} --output-dir merged/it {tail}"
        )


def test_deepspeed_comes_with_the_command_that_merges_it(tmp_path):
    root = write(tmp_path / "a checkpoint", {"zero_to_fp32.py": "", "config.json": "{}"})
    inner = write(root / "global_step20", {"zero_pp_rank_0_mp_rank_00_model_states.pt": SHARD})
    command = f"python '{root}/zero_to_fp32.py' '{root}' merged/it --safe_serialization"
    rest = (
        "; then copy config.json and tokenizer of the model that was trained into it and list it with --steps "
        "'STEP=merged/it'."
    )
    for folder, tag in ((root, ""), (inner, " --tag global_step20")):
        weights = held(folder, out="merged/it")
        assert weights.blocker == "It holds DeepSpeed shards, not Hugging Face weights."
        assert (weights.code, weights.way_out) == ("NEEDS_MERGE", f"Run: {command}{tag}{rest}")


def test_where_nobody_says_so_the_result_is_named_after_the_folder(tmp_path):
    assert "--output-dir merged/iter_7 " in held(megatron(tmp_path / "iter_7")).way_out
