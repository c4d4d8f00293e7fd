"""Run folders as each trainer leaves them, a few kB each: real safetensors, tiny text files, shards by name alone.

Names and text files are those of the sources: transformers 5.23, verl 1dda039b9, SkyRL a9564572e, NeMo-RL 7ea279abf,
prime-rl 559b44772, AReaL 4aef98d8d, ROLL 8eb27cc2, KDFlow 3a7a21a, slime 624b824a8, torchtune bd2a0fc7c, ms-swift
3602360a5, tinker-cookbook 9dfcc3a2; OpenRLHF 0.11.0 and LLaMA-Factory by the notes on them.
"""

import json
from pathlib import Path

from .folders import adapter, full_model, sharded_model, trainer_run, write

SHARD = b"PK\x03\x04 not read at discovery"
CONFIG = '{"model_type": "llama"}'
TOKENIZER = {"tokenizer.json": "{}", "tokenizer_config.json": "{}"}
ASSETS = {"config.json": CONFIG, **TOKENIZER}


def rank_files(folder: Path, world: int = 2, ranks: tuple[int, ...] | None = None) -> Path:
    """Shards of weights, optimiser and the rest, one file a rank, as verl and SkyRL save them."""
    for kind in ("model", "optim", "extra_state"):
        names = [f"{kind}_world_size_{world}_rank_{rank}.pt" for rank in (range(world) if ranks is None else ranks)]
        write(folder, dict.fromkeys(names, SHARD))
    return write(folder, {"fsdp_config.json": json.dumps({"FSDP_version": 2, "world_size": world})})


def distributed(folder: Path, ranks: int = 2) -> Path:
    """A checkpoint of torch's distributed writer."""
    return write(folder, {".metadata": b"\x80", **{f"__{rank}_0.distcp": SHARD for rank in range(ranks)}})


def megatron(folder: Path) -> Path:
    """A checkpoint of Megatron's distributed writer, which is torch's with more beside it."""
    return write(distributed(folder), {"metadata.json": "{}", "common.pt": SHARD})


def verl_fsdp(root: Path, steps: tuple[int, ...] = (20, 40), hf: bool = False) -> Path:
    for step in steps:
        folder = root / f"global_step_{step}"
        rank_files(folder / "actor")
        write(folder / "actor" / "huggingface", ASSETS)
        if hf:
            full_model(folder / "actor" / "huggingface")
        write(folder, {"data.pt": SHARD})
    return write(root, {"latest_checkpointed_iteration.txt": str(max(steps))})


def verl_rotated(root: Path) -> Path:
    """Of three saves the first two were rotated away: ``max_actor_ckpt_to_keep`` deletes the actor alone."""
    verl_fsdp(root, (60,))
    write(root / "global_step_20", {"data.pt": SHARD})
    write(root / "global_step_40", {"data.pt": SHARD})
    (root / "global_step_40" / "actor").mkdir()
    return root


def verl_sft(root: Path) -> Path:
    for step in (100, 200):
        folder = rank_files(root / f"global_step_{step}")
        write(folder / "huggingface", ASSETS)
        write(folder, {"data_0.pt": SHARD})
    return root


def verl_v1(root: Path, hf: bool = False) -> Path:
    for step in (20, 40):
        actor = root / f"global_step_{step}" / "actor"
        megatron(actor / "dist_ckpt")
        write(actor / "huggingface", ASSETS)
        if hf:
            full_model(actor / "huggingface")
    return root


def verl_v2(root: Path, hf: bool = True, peft: bool = False) -> Path:
    for step in (20, 40):
        actor = root / f"global_step_{step}" / "actor"
        entry = {"path": "model/huggingface", "format": "huggingface", "backend": "mbridge"}
        if hf:
            full_model(actor / "model" / "huggingface", **TOKENIZER)
        else:
            entry = {"path": "model/dist_ckpt", "format": "megatron_dist_checkpoint", "backend": "dist_checkpointing"}
            megatron(actor / "model" / "dist_ckpt")
        for part in ("optimizer", "extra"):
            megatron(actor / part / "dist_ckpt")
        manifest = {"schema_version": 2, "contents": {"model": entry}, "backend": {"peft": peft}, "global_step": step}
        write(actor, {"transformer_config.json": "{}", "ckpt_contents.json": json.dumps(manifest)})
    return root


def skyrl(root: Path, lora: bool = False) -> Path:
    for step in (5, 10):
        folder = root / f"global_step_{step}"
        rank_files(folder / "policy")
        rank_files(folder / "critic")
        write(folder / "policy" / "huggingface", ASSETS)
        if lora:
            adapter(folder / "policy" / "lora_adapter")
        write(folder, {"data.pt": SHARD, "trainer_state.pt": SHARD})
    return write(root, {"latest_ckpt_global_step.txt": "10"})


def skyrl_export(root: Path) -> Path:
    for step in (5, 10):
        full_model(root / f"global_step_{step}" / "policy", **TOKENIZER)
    (root / "dumped_evals" / "global_step_5_evals").mkdir(parents=True)
    return root


def nemo_rl(root: Path, weights: str = "dtensor") -> Path:
    for step in (10, 20):
        folder = root / f"step_{step}"
        info = {"total_steps": step, "current_step": step, "consumed_samples": 64 * step, "val_reward": 0.5}
        config = "algorithm: {}\npolicy:\n  dtensor_cfg:\n    enabled: true\n  model_name: org/student\n  x: 1\n"
        write(folder, {"training_info.json": json.dumps(info), "config.yaml": config, "train_dataloader.pt": SHARD})
        write(folder / "policy" / "tokenizer", TOKENIZER)
        place = folder / "policy" / "weights"
        if weights == "dtensor":
            distributed(place)
        elif weights == "consolidated":
            write(place / "model", {"shard-00001-model-00001-of-00001.safetensors": SHARD})
            full_model(place / "model" / "consolidated")
        elif weights == "adapter":
            adapter(place / "model")
        elif weights == "safetensors":
            write(place / "model", {f"shard-0000{i}-model-00001-of-00001.safetensors": SHARD for i in (1, 2)})
            write(place / "model" / ".hf_metadata", ASSETS)
        else:
            megatron(place / "iter_0000000")
    distributed(root / "tmp_step_30" / "policy" / "weights")
    return root


def prime_rl(root: Path) -> Path:
    """From August 2026 on: shards alone; the configuration names the model."""
    for step in (10, 20):
        trainer = distributed(root / "checkpoints" / f"step_{step}" / "trainer")
        write(trainer / "dataloader", {"rank_0.pt": SHARD})
        write(root / "checkpoints" / f"step_{step}" / "orchestrator", {"progress.pt": SHARD})
    write(root / "configs", {"trainer.json": json.dumps({"model": {"name": "org/student"}})})
    full_model(root / "broadcasts" / "step_20", STABLE="")
    return root


def prime_rl_old(root: Path) -> Path:
    """Up to 0.8.0: whole weights as well, and TOML."""
    for step in (10, 20):
        distributed(root / "checkpoints" / f"step_{step}" / "trainer")
        full_model(root / "weights" / f"step_{step}", **TOKENIZER)
    write(root / "weights" / "step_10", {"STABLE": ""})
    write(root / "configs", {"trainer.toml": '[model]\nname = "org/student"\n'})
    return root


def openrlhf(root: Path) -> Path:
    for step in (100, 200):
        write(root / "_actor" / f"global_step{step}", {"mp_rank_00_model_states.pt": SHARD, "metric.json": "{}"})
    write(root / "_actor", {"latest": "global_step200", "zero_to_fp32.py": ""})
    full_model(root / "global_step200_hf", **TOKENIZER)
    return root


def openrlhf_adapter(root: Path) -> Path:
    """LoRA under ZeRO-3: the adapter as a pickle, and the config of its base beside it."""
    for step in (100, 200):
        config = {"adapter_config.json": json.dumps({"base_model_name_or_path": "org/base"}), "config.json": CONFIG}
        write(root / f"global_step{step}_hf", {**config, "adapter_model.bin": SHARD})
    return root


def areal(root: Path) -> Path:
    """The root of a run of AReaL's; the steps are five folders below."""
    trial = root / "checkpoints" / "me" / "experiment" / "trial0"
    for epoch, step, total in ((0, 9, 9), (1, 4, 19)):
        name = f"epoch{epoch}epochstep{step}globalstep{total}"
        full_model(trial / "default" / name, **TOKENIZER)
        full_model(trial / "critic" / name)
    distributed(trial / "default" / "recover_checkpoint")
    return root


def kdflow(root: Path) -> Path:
    for name in ("epoch_1_global_step_50", "epoch_1", "epoch_2_global_step_100", "epoch_2"):
        full_model(root / name, **TOKENIZER)
    write(root / "rollout_data", {"50.jsonl": ""})
    return root


def roll(root: Path, role: str = "actor_train", weights: str = "hf") -> Path:
    for step in (9, 19):
        name, worker = f"checkpoint-{step}", f"{role}-0-G0"
        folder = root / worker / name / (role if role == "student_train" else "")
        if weights == "hf":
            full_model(folder, **TOKENIZER)
        else:
            write(folder, {"mca_config.json": "{}", "latest_checkpointed_iteration.txt": "1", **TOKENIZER})
            write(folder / "iter_0000001" / "mp_rank_00", {"model_optim_rng.pt": SHARD})
        full_model(root / "critic-0-G1" / name / "critic")
        write(
            root / "pipeline" / name / "pipeline", {"worker_state_pipeline.json": "{}", "rng_state_pipeline.pth": SHARD}
        )
    return root


def swift(root: Path, version: str = "v0-20260801-120000") -> Path:
    run = trainer_run(root / version, (50, 100))
    for step in (50, 100):
        write(run / f"checkpoint-{step}", {"args.json": "{}"})
    (run / "last-checkpoint").symlink_to("checkpoint-100")
    write(run, {"logging.jsonl": "", "args.json": "{}"})
    return root


def megatron_swift(root: Path) -> Path:
    for step in (50, 100):
        folder = write(root / f"checkpoint-{step}", {"args.json": "{}", "latest_checkpointed_iteration.txt": str(step)})
        megatron(folder / f"iter_{step:07d}")
    return root


def peft(root: Path, steps: tuple[int, ...] = (20, 40)) -> Path:
    for step in steps:
        adapter(root / f"checkpoint-{step}", **TOKENIZER, **{"trainer_state.json": json.dumps({"global_step": step})})
    return root


def hf_sharded(root: Path) -> Path:
    """Two saves, the second without one of its shards."""
    for step in (20, 40):
        write(sharded_model(root / f"checkpoint-{step}"), {**TOKENIZER, "trainer_state.json": "{}"})
    (root / "checkpoint-40" / "model-00002-of-00002.safetensors").unlink()
    return root


def hf_fsdp(root: Path, final: bool = False) -> Path:
    """FSDP with SHARDED_STATE_DICT: neither config nor tokenizer in the checkpoints."""
    for step in (20, 40):
        folder = write(root / f"checkpoint-{step}", {"trainer_state.json": "{}", "scheduler.pt": SHARD})
        distributed(folder / "pytorch_model_fsdp_0")
        distributed(folder / "optimizer_0")
    if final:
        full_model(root, **TOKENIZER)
    return root


def hf_deepspeed(root: Path) -> Path:
    for step in (20, 40):
        folder = write(root / f"checkpoint-{step}", {**ASSETS, "zero_to_fp32.py": "", "latest": f"global_step{step}"})
        write(folder / f"global_step{step}", {"zero_pp_rank_0_mp_rank_00_model_states.pt": SHARD})
        write(folder, {"trainer_state.json": json.dumps({"global_step": step})})
    return root


def trl(root: Path, texts: str = "text") -> Path:
    """TRL with ``log_completions``: what is recorded changes nothing about where checkpoints are."""
    run = write(trainer_run(root), {"README.md": texts})
    return write(run / "completions", {"completions_00020.parquet": b"PAR1"}).parent


def llama_factory(root: Path) -> Path:
    for step in (20, 40):
        full_model(root / f"checkpoint-{step}", **TOKENIZER, CHECKPOINT_COMPLETE="")
    return write(root, {"trainer_log.jsonl": ""})


def slime(root: Path) -> Path:
    for number in (19, 39):
        megatron(root / f"iter_{number:07d}")
    return write(root, {"latest_checkpointed_iteration.txt": "39"})


def slime_legacy(root: Path) -> Path:
    """The torch format: one folder a rank."""
    for rank in ("mp_rank_00", "mp_rank_01"):
        write(root / "iter_0000019" / rank, {"model_optim_rng.pt": SHARD})
    return write(root, {"latest_checkpointed_iteration.txt": "19"})


def torchtune(root: Path) -> Path:
    for epoch in (0, 1, 10):
        sharded_model(root / f"epoch_{epoch}")
        write(root / f"epoch_{epoch}", TOKENIZER)
    write(root / "recipe_state", {"recipe_state.pt": SHARD})
    return root


def tinker(root: Path) -> Path:
    address = "tinker://run-1/{}/{}"
    records = [
        {"name": "000020", "batch": 20, "state_path": address.format("weights", "000020")},
        {"name": "rolling_checkpoint_000030", "batch": 30, "state_path": address.format("weights", "rolling")},
        {"name": "000040", "batch": 40, "sampler_path": address.format("sampler_weights", "000040")},
        {"name": "final", "final": True, "sampler_path": address.format("sampler_weights", "final")},
    ]
    lines = "\n".join(json.dumps(record) for record in records)
    return write(root, {"checkpoints.jsonl": lines + '\n{"name": "cut', "metrics.jsonl": "", "config.json": "{}"})


def side_by_side(root: Path, names: tuple[str, ...] = ("iter_20", "iter_100")) -> Path:
    for name in names:
        full_model(root / name, **TOKENIZER)
    return root
