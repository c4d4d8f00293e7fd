"""Files of recorded responses in the form that the trainers' sources show, a few responses each."""

from __future__ import annotations

import json
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from opd_diag.errors import RolloutsError
from opd_diag.runs.recorded import read_recorded

TRL = Path(__file__).parent / "trl"
"""Runs of TRL's own trainers, see `make_trl.py`."""


def lines(path: Path, *records, end: str = "\n") -> Path:
    """Write one record a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(record) for record in records) + end, encoding="utf-8")
    return path


def refusal(path, **options) -> str:
    """What the reader says of a file that it refuses, without the folder's name."""
    with pytest.raises(RolloutsError) as caught:
        read_recorded(path, **options)
    return str(caught.value).replace(f"{Path(path).parent}/", "")


def verl(path: Path, step: int = 5, **changes) -> Path:
    rows = [
        {"input": "user\n2 + 2 =", "output": " 4", "gts": "4", "score": 1.0, "step": step, "uid": "a_0_0"},
        {"input": "user\n2 + 3 =", "output": " 6", "gts": "5", "score": 0.0, "step": step, "uid": "b_0_0"},
    ]
    return lines(path, *[row | changes for row in rows])


def kdflow(path: Path) -> Path:
    return lines(path, {"prompt": "<user>2 + 2 =<assistant>", "output": " 4", "reward_result": 0.5})


def nemo(path: Path, *rows) -> Path:
    """As `log_batched_dict_as_jsonl` writes it: each value a slice of one, the row's number beside them."""
    return lines(path, *[{k: [v] for k, v in row.items()} | {"idx": i} for i, row in enumerate(rows)])


NEMO_IDS = {
    "content": ["<user>2 + 2 =<assistant>", "4", "Environment: correct"],
    "rewards": 1.0,
    "input_lengths": 6,
    "token_ids": [1, 2, 3, 10, 11, 7, 0, 0],
    "token_loss_mask": [0, 0, 0, 1, 1, 0, 0, 0],
    "sample_loss_mask": 1.0,
    "advantages": [0.0, 0.0, 0.0, 0.5, 0.5, 0.0, 0.0, 0.0],
    "generation_logprobs": [0.0, 0.0, 0.0, -0.5, -0.25, 0.0, 0.0, 0.0],
    "prev_logprobs": [0.0, -9.0, -9.0, -0.6, -0.2, -9.0, 0.0, 0.0],
}
NEMO_TEXT = {"content": ["<user>2 + 2 =<assistant>", "4", "Environment: correct"], "input_lengths": 6}

PRIME_TOKENS = {
    "schema_version": 1,
    "step": 4,
    "rank": 0,
    "env_name": "gsm8k",
    "token_ids": [1, 2, 10, 11, 5, 12, 6],
    "position_ids": [0, 1, 2, 3, 4, 5, 6],
    "loss_mask": [False, False, True, True, False, True, False],
    "inference_logprobs": [0.0, 0.0, -0.5, None, 0.0, -0.75, 0.0],
    "rl_weights": [None] * 7,
}


def episode(*traces, policy=None) -> dict:
    work = {"type": "train", "step": 5} | ({"policy": policy} if policy else {})
    return {
        "id": "e",
        "env": {"id": "gsm8k", "name": "gsm"},
        "task": {"type": "Gsm", "data": {"answer": "4"}, "key": "gsm-7"},
        "run": {"type": "train", "id": "r", "work": work},
        "ok": True,
        "errors": [],
        "traces": list(traces),
    }


def trace(*nodes, calls=(), trainable=True) -> dict:
    return {
        "version": 1,
        "task": {"type": "Gsm", "data": {"answer": "4"}, "key": "gsm-7", "hash": "abc"},
        "agent": {"config": {}, "name": "solver", "trainable": trainable},
        "nodes": list(nodes),
        "calls": list(calls),
        "rewards": {"exact": {"score": 1.0, "weight": 0.5}, "form": {"score": 0.25, "weight": 1.0}, "late": None},
        "ok": True,
    }


def node(role: str, content: str, ids=(), mask=(), logprobs=(), parent=None) -> dict:
    sampled = {"sampled": role == "assistant"}
    ids_of = {"token_ids": list(ids), "mask": [bool(m) for m in mask], "is_content": [], "logprobs": list(logprobs)}
    return (
        sampled
        | ids_of
        | {"message": {"role": role, "content": content}}
        | ({} if parent is None else {"parent": parent})
    )


def skyrl_eval(path: Path, **changes) -> Path:
    row = {
        "input_prompt": "<user>2 + 2 =<end><assistant>",
        "output_response": "4<end>",
        "score": [0.0, 1.0],
        "stop_reason": "stop",
        "env_class": "gsm8k",
        "env_extras": {"reward_spec": {"method": "rule", "ground_truth": "4"}},
        "data_source": "openai/gsm8k",
    }
    return lines(path, row | changes)


def areal(path: Path, version: int = 3, **changes) -> Path:
    row = {
        "task_id": 8,
        "sample_idx": 0,
        "seqlen": 9,
        "prompt_len": 4,
        "head_version": -1,
        "tail_version": version,
        "reward": 1.0,
        "prompt": "<user>2 + 2 =<end><assistant>",
        "completion": "4<end>",
    }
    return lines(path, row | changes)


def swift_flush(step: int, n: int = 2, **columns) -> dict:
    prompts = [f"<user>{i} + 1 =<assistant>" for i in range(n)]
    return {"step": [str(step)] * n, "prompt": prompts, "completion": [f"{i + 1}" for i in range(n)], **columns}


def roll(path: Path, step: int = 2, **changes) -> Path:
    columns = {
        "global_step": [step] * 2,
        "id": ["a", "b"],
        "prompt": ["2 + 2 =", "2 + 3 ="],
        "ground_truth": ["4", "5"],
        "domain": ["math", "math"],
        "responses": [" 4", " 6"],
        "scores": [1.0, 0.0],
        "sampling_params": [json.dumps({"generation_config": {"temperature": 0.75}})] * 2,
    }
    return lines(path, {k: v for k, v in (columns | changes).items() if v is not None})


def slime_sample(**changes) -> dict:
    """What `Sample.to_dict` gives, as far as it matters."""
    return {
        "group_index": 0,
        "index": 1,
        "rollout_id": None,
        "prompt": "<user>2 + 2 =<assistant>",
        "tokens": [1, 2, 3, 10, 11, 12],
        "response": "4",
        "response_length": 3,
        "label": "4",
        "reward": 1.0,
        "loss_mask": [1, 0, 1],
        "weight_versions": ["8"],
        "rollout_log_probs": [-0.5, 0.0, -0.25],
        "status": "completed",
        "metadata": {},
    } | changes


def slime(path: Path, *samples, step: int = 7) -> Path:
    import torch

    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"rollout_id": step, "samples": list(samples)}, path)
    return path


class _Stored:
    """A pickle that is made as SkyRL makes its own: a function of its module, given its class and a state."""

    def __init__(self, state, kind, rebuilt):
        self.state, self.kind, self.rebuilt = state, kind, rebuilt

    def __reduce__(self):
        return self.rebuilt, (self.kind, self.state)


def skyrl_batch(path: Path, tensors: dict, metadata: dict, package: str = "skyrl") -> Path:
    """Pickle a batch under the names of SkyRL's module, which is not installed."""
    name = {"skyrl": "skyrl.backends.skyrl_train.training_batch", "skyrl_train": "skyrl_train.training_batch"}[package]
    module = types.ModuleType(name)
    module.TrainingInputBatch = type("TrainingInputBatch", (dict,), {"__module__": name})

    def _rebuild_tensor_batch(cls, state):
        raise AssertionError("the reader has a function of its own")

    _rebuild_tensor_batch.__module__, _rebuild_tensor_batch.__qualname__ = name, "_rebuild_tensor_batch"
    module._rebuild_tensor_batch = _rebuild_tensor_batch
    batch = {k: None if v is None else _serialized(np.asarray(v)) for k, v in tensors.items()}
    count = len(next(iter(tensors.values())))
    state = {"batch_dict": batch, "batch_size": count, "device": None, "metadata": metadata}
    parents = [types.ModuleType(name.rsplit(".", i)[0]) for i in range(1, name.count(".") + 1)]
    added = {m.__name__: m for m in (*parents, module)}
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.modules.update(added)
    try:
        path.write_bytes(pickle.dumps(_Stored(state, module.TrainingInputBatch, _rebuild_tensor_batch)))
    finally:
        for module_name in added:
            del sys.modules[module_name]
    return path


def _serialized(array) -> dict:
    return {"format": "numpy", "data": array.tobytes(), "shape": array.shape, "dtype": str(array.dtype)}


SKYRL = {
    "sequences": [[0, 1, 2, 10, 11, 12], [1, 2, 3, 20, 21, 22], [0, 1, 2, 10, 11, 12]],
    "attention_mask": [[0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1]],
    "response_mask": [[1, 1, 1], [1, 1, 1], [1, 1, 1]],
    "loss_mask": [[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [0.0, 0.0, 0.0]],
    "rollout_logprobs": [[-0.5, 0.0, -0.25], [-1.0, -1.0, -1.0], [-0.5, 0.0, -0.25]],
    "kl": None,
}
