"""Whether two folders can be steps of one training."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.shapes import shape_difference

CONFIG = {"model_type": "qwen3", "hidden_size": 32, "num_hidden_layers": 2, "vocab_size": 100}


def checkpoint(folder: Path, config, **known) -> Checkpoint:
    folder.mkdir()
    if config is not None:
        (folder / "config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return Checkpoint(folder.name, 1, folder, known.pop("kind", "full"), **known)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({}, None),
        ({"vocab_size": 128}, None),
        ({"hidden_size": 64}, "hidden_size 32 against 64"),
        ({"num_hidden_layers": 3, "hidden_size": 64}, "hidden_size 32 against 64"),
        ({"model_type": "llama"}, "model_type qwen3 against llama"),
    ],
)
def test_difference(tmp_path, changed, said):
    first, second = checkpoint(tmp_path / "a", CONFIG), checkpoint(tmp_path / "b", CONFIG | changed)
    assert shape_difference(first, second) == said


def test_the_language_model_of_a_composite_config(tmp_path):
    first = checkpoint(tmp_path / "a", {"model_type": "gemma3", "text_config": CONFIG})
    second = checkpoint(tmp_path / "b", {"model_type": "gemma3", "text_config": CONFIG | {"hidden_size": 1}})
    assert shape_difference(first, second) == "hidden_size 32 against 1"


def test_adapters_have_the_shape_of_their_base(tmp_path):
    base = checkpoint(tmp_path / "base", CONFIG)
    adapter = checkpoint(tmp_path / "adapter", None, kind="adapter", base_model=str(base.path))
    other = checkpoint(tmp_path / "other", CONFIG | {"num_hidden_layers": 5})
    assert shape_difference(base, adapter) is None
    assert shape_difference(other, adapter) == "num_hidden_layers 5 against 2"


@pytest.mark.parametrize("config", [None, "{", "[]", "\x80"])
def test_unreadable_is_no_difference(tmp_path, config):
    first, second = checkpoint(tmp_path / "a", CONFIG), checkpoint(tmp_path / "b", config)
    assert shape_difference(first, second) is None
