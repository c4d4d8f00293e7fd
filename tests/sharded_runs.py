"""Checkpoints as trainers under FSDP leave them, written by torch itself in several processes (gloo, no GPU)."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import torch
from models import V, save, tiny_model
from torch import distributed, multiprocessing

from opd_diag.runs.sharded import LORA_META

MODELS: dict[str, dict] = {
    "tied": {"family": "qwen3"},
    "untied": {"family": "llama", "seed": 1},
    # Rows that no number of ranks divides, and fewer of some than there are ranks.
    "uneven": {
        "family": "qwen3",
        "vocabulary": V + 1,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "tie_word_embeddings": False,
    },
}

RANK_FORMS = [
    ("two/fsdp2-tied", "tied"),
    ("two/fsdp2-untied", "untied"),
    ("two/fsdp1", "tied"),
    ("two/sharded-tensor", "untied"),
    ("uneven/fsdp2", "uneven"),
    ("replicas", "tied"),
]
"""Folder of files of ranks, and the model that was sharded."""

DISTRIBUTED_FORMS = [
    ("two/accelerate/pytorch_model_fsdp_0", "tied"),
    ("two/accelerate-fsdp1", "untied"),
    ("uneven/distributed", "uneven"),
]
"""Folder of a distributed checkpoint with the model under "model", and the model that was sharded."""


def original(name: str):
    """Give the model that was sharded."""
    changes = dict(MODELS[name])
    return tiny_model(changes.pop("family"), **changes)


def write_all(folder: Path) -> Path:
    """Write every form that is known here, by processes of a Python of their own."""
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run([sys.executable, __file__, str(folder)], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def write_by_ranks(folder: Path, world: int, job: str) -> Path:
    """Run ``JOBS[job]`` in so many processes, each writing its part into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    multiprocessing.start_processes(_one_rank, args=(world, job, str(folder)), nprocs=world, start_method="fork")
    (folder / "rendezvous").unlink(missing_ok=True)
    return folder


def _one_rank(rank: int, world: int, job: str, folder: str) -> None:
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(world), LOCAL_RANK=str(rank))
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")  # whatever this machine calls itself
    distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=world)
    torch.manual_seed(0)
    JOBS[job](Path(folder), rank, world)
    distributed.barrier()
    distributed.destroy_process_group()


def save_verl(folder: Path, state: dict, config, rank: int, world: int, version: int = 2) -> Path:
    """Write what verl's checkpoint manager does, ``huggingface/`` without weights included."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / f"model_world_size_{world}_rank_{rank}.pt")
    if rank == 0:
        (folder / "fsdp_config.json").write_text(json.dumps({"FSDP_version": version, "world_size": world}))
        config.save_pretrained(folder / "huggingface")
    return folder


def sharded(model, mesh):
    """Shard a model as trainers do under FSDP 2: each layer, then the rest."""
    from torch.distributed.fsdp import fully_shard

    for layer in model.get_submodule("base_model.model.model" if hasattr(model, "peft_config") else "model").layers:
        fully_shard(layer, mesh=mesh)
    return fully_shard(model, mesh=mesh)


def sharded_by_fsdp1(model, mesh=None):
    """Shard a model under FSDP 1; without a mesh its state dict has the older ShardedTensor."""
    from functools import partial

    from torch.distributed.fsdp import FullyShardedDataParallel, ShardedStateDictConfig, StateDictType
    from torch.distributed.fsdp.wrap import transformer_auto_wrap_policy

    policy = partial(transformer_auto_wrap_policy, transformer_layer_cls={type(model.model.layers[0])})
    wrapped = FullyShardedDataParallel(
        model, device_mesh=mesh, auto_wrap_policy=policy, use_orig_params=True, device_id=torch.device("cpu")
    )
    FullyShardedDataParallel.set_state_dict_type(
        wrapped, StateDictType.SHARDED_STATE_DICT, ShardedStateDictConfig(offload_to_cpu=False)
    )
    return wrapped


def _mesh(*shape: int, names=("fsdp",)):
    from torch.distributed.device_mesh import init_device_mesh

    return init_device_mesh("cpu", shape, mesh_dim_names=names)


def _two(folder: Path, rank: int, world: int) -> None:
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_state_dict

    mesh = _mesh(world)
    for name in ("tied", "untied"):
        model = sharded(original(name), mesh)
        save_verl(folder / f"fsdp2-{name}", model.state_dict(), model.config, rank, world)
    half = sharded(original("untied").bfloat16(), mesh)
    save_verl(folder / "fsdp2-half", half.state_dict(), half.config, rank, world)
    model = original("tied")
    save_verl(folder / "fsdp1", sharded_by_fsdp1(model, mesh).state_dict(), model.config, rank, world, version=1)
    model = original("untied")
    save_verl(folder / "sharded-tensor", sharded_by_fsdp1(model).state_dict(), model.config, rank, world, version=1)

    # As accelerate does, and NeMo-RL: under "model".
    model = sharded(original("tied"), mesh)
    checkpoint.save({"model": model.state_dict()}, checkpoint_id=folder / "accelerate" / "pytorch_model_fsdp_0")
    model = original("untied")
    checkpoint.save({"model": sharded_by_fsdp1(model).state_dict()}, checkpoint_id=folder / "accelerate-fsdp1")
    # As prime-rl does: the model and its optimiser, after a step, under "app".
    model = sharded(original("tied"), mesh)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    model(torch.arange(6).view(1, 6), labels=torch.arange(6).view(1, 6)).loss.backward()
    optimizer.step()
    state, optim = get_state_dict(model, optimizer)
    app = {"model": state, "optimizers": optim, "scheduler": {"last_epoch": 3}, "progress": {"step": 4}}
    checkpoint.save({"app": app}, checkpoint_id=folder / "prime-rl" / "trainer")
    whole = {name: tensor.full_tensor() for name, tensor in state.items()}
    if rank == 0:
        torch.save(whole, folder / "prime-rl" / "whole.pt")


def _lora(folder: Path, rank: int, world: int) -> None:
    import peft

    base = original("tied")
    config = peft.LoraConfig(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    model = peft.get_peft_model(base, config)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    if rank == 0:
        model.save_pretrained(folder / "peft")
    state = sharded(model, _mesh(world)).state_dict()
    save_verl(folder / "whole", state, base.config, rank, world)
    save_verl(folder / "alone", {n: t for n, t in state.items() if "lora_" in n}, base.config, rank, world)
    if rank == 0:
        for name in ("whole", "alone"):
            meta = {"r": 4, "lora_alpha": 8, "task_type": "CAUSAL_LM"}
            (folder / name / LORA_META).write_text(json.dumps(meta))


def _uneven(folder: Path, rank: int, world: int) -> None:
    from torch.distributed import checkpoint

    model = sharded(original("uneven"), _mesh(world))
    save_verl(folder / "fsdp2", model.state_dict(), model.config, rank, world)
    checkpoint.save({"model": model.state_dict()}, checkpoint_id=folder / "distributed")


def _replicas(folder: Path, rank: int, world: int) -> None:
    from torch.distributed.tensor import Shard, distribute_tensor

    mesh = _mesh(2, world // 2, names=("ddp", "fsdp"))
    model = sharded(original("tied"), mesh)
    save_verl(folder, model.state_dict(), model.config, rank, world)
    grid = distribute_tensor(torch.arange(16.0).view(4, 4), mesh, [Shard(0), Shard(1)])
    save_verl(folder / "grid", {"weight": grid}, model.config, rank, world)


def _runs(folder: Path, rank: int, world: int) -> None:
    """Save the checkpoints of `tiny_run` as verl and prime-rl would."""
    import tiny_run
    import transformers
    from torch.distributed import checkpoint
    from torch.distributed.checkpoint.state_dict import get_model_state_dict

    tiny, mesh = tiny_run.TinyRun(folder / "tiny"), _mesh(world)
    if rank == 0:
        tiny_run.build(tiny.root)
        (tiny.run_dir / "opd-diag.toml").unlink()  # tests name what it names
    distributed.barrier()
    for step in tiny_run.STEPS:
        whole = transformers.Qwen3ForCausalLM.from_pretrained(tiny.checkpoint(step))
        model, actor = sharded(whole, mesh), folder / "verl" / f"global_step_{step}" / "actor"
        save_verl(actor, model.state_dict(), model.config, rank, world)
        if rank == 0:
            model.generation_config.save_pretrained(actor / "huggingface")
            tiny_run.byte_tokenizer().save_pretrained(actor / "huggingface")
        app = {"model": get_model_state_dict(model), "progress": {"step": step}}
        checkpoint.save({"app": app}, checkpoint_id=folder / "prime-rl" / "checkpoints" / f"step_{step}" / "trainer")


def _trainer(folder: Path, rank: int, world: int) -> None:
    """Train with the Trainer of Hugging Face under FSDP 2, sharded checkpoints at steps 2 and 4."""
    import accelerate
    import tiny_run
    import transformers
    from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT="1", LOCAL_WORLD_SIZE=str(world))
    model = tiny_run.model(seed=1)
    if rank == 0:
        tiny_run.save(model, folder / "student", tiny_run.byte_tokenizer())
    rows = [{name: torch.arange(i, i + 8) for name in ("input_ids", "labels")} for i in range(16)]
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "run"),
        use_cpu=True,
        fsdp=True,
        fsdp_config={"state_dict_type": "SHARDED_STATE_DICT", "transformer_layer_cls_to_wrap": ["Qwen3DecoderLayer"]},
        max_steps=4,
        save_steps=2,
        learning_rate=1e-3,
        per_device_train_batch_size=2,
        report_to="none",
        disable_tqdm=True,
    )
    accelerate.PartialState().distributed_type = accelerate.DistributedType.MULTI_GPU  # it takes CPUs for DDP alone
    trainer = transformers.Trainer(model=model, args=arguments, train_dataset=rows)
    trainer.train()
    whole = get_model_state_dict(trainer.model_wrapped, options=StateDictOptions(full_state_dict=True))
    if rank == 0:
        torch.save(whole, folder / "whole.pt")


JOBS = {"two": _two, "lora": _lora, "uneven": _uneven, "replicas": _replicas, "runs": _runs, "trainer": _trainer}

RANKS = {"two": 2, "lora": 2, "uneven": 3, "replicas": 4, "runs": 2, "trainer": 2}


def copy(source: Path, target: Path) -> Path:
    """Copy a checkpoint, so that a test can harm it."""
    return Path(shutil.copytree(source, target))


def with_config(folder: Path, name: str) -> Path:
    """Put the config of a model, and no weights, into a folder of its own."""
    save(folder, original(name))
    (folder / "model.safetensors").unlink()
    return folder


if __name__ == "__main__":
    warnings.simplefilter("ignore")  # torch's own, of what it will take away one day
    torch.set_num_threads(1)
    for name, ranks in RANKS.items():
        write_by_ranks(Path(sys.argv[1]).resolve() / name, ranks, name)
    for name in MODELS:
        with_config(Path(sys.argv[1]).resolve() / "configs" / name, name)
