"""Weights in the form of Hugging Face are told from names and small text files; every blocker names its way out."""

import json

import pytest

from opd_diag.runs.holdings import SAVE_AGAIN
from opd_diag.runs.weights import classify_weights

from .folders import TENSORS, adapter, full_model, sharded_model, write


def blocked(folder, base_model=None):
    weights = classify_weights(folder, base_model)
    assert weights is not None
    assert weights.blocker, "expected a blocker"
    assert weights.way_out, "a blocker needs a way out"
    assert weights.code, "a blocker needs a code"
    return weights.blocker, weights.way_out


def test_full_weights(tmp_path):
    weights = classify_weights(full_model(tmp_path))
    assert (weights.kind, weights.blocker, weights.base_model) == ("full", None, None)
    assert weights.files == (tmp_path / "model.safetensors",)


def test_sharded_weights(tmp_path):
    weights = classify_weights(sharded_model(tmp_path, shards=3))
    assert (weights.kind, weights.blocker) == ("full", None)
    assert [f.name for f in weights.files] == [f"model-0000{i}-of-00003.safetensors" for i in (1, 2, 3)]


def test_adapter(tmp_path):
    weights = classify_weights(adapter(tmp_path, "org/base"))
    assert (weights.kind, weights.blocker, weights.base_model) == ("adapter", None, "org/base")


def test_adapter_wins_over_a_config_of_its_base(tmp_path):
    weights = classify_weights(adapter(tmp_path, **{"config.json": "{}"}))
    assert (weights.kind, weights.note) == ("adapter", None)


def test_adapter_wins_over_full_weights_beside_it_and_says_so(tmp_path):
    weights = classify_weights(adapter(full_model(tmp_path)))
    assert weights.kind == "adapter"
    assert weights.note == "Full weights lie beside the adapter; the adapter on its base model is used."


def test_one_whole_file_wins_over_an_index_as_in_transformers(tmp_path):
    weights = classify_weights(full_model(sharded_model(tmp_path)))
    assert [f.name for f in weights.files] == ["model.safetensors"]


def test_truncated_weights(tmp_path):
    full_model(tmp_path, **{"model.safetensors": TENSORS[:-5]})
    expected = f"model.safetensors is truncated: expected {len(TENSORS)} bytes, found {len(TENSORS) - 5}."
    assert blocked(tmp_path) == (expected, SAVE_AGAIN)


def test_truncated_shard_and_truncated_adapter(tmp_path):
    shard = sharded_model(tmp_path / "a") / "model-00002-of-00002.safetensors"
    shard.write_bytes(TENSORS[:-1])
    assert blocked(tmp_path / "a")[0].startswith("model-00002-of-00002.safetensors is truncated: expected ")
    adapter(tmp_path / "b", **{"adapter_model.safetensors": TENSORS[:20]})
    assert blocked(tmp_path / "b")[0].startswith("adapter_model.safetensors is truncated: expected at least ")


def test_lfs_pointer(tmp_path):
    full_model(tmp_path, **{"model.safetensors": "version https://git-lfs.github.com/spec/v1\noid sha256:1\n"})
    blocker, way_out = blocked(tmp_path)
    assert blocker == "model.safetensors is a Git LFS pointer, not the weights themselves."
    assert way_out == "Run git lfs pull there."


def test_index_with_missing_and_empty_shards(tmp_path):
    sharded_model(tmp_path, shards=4)
    (tmp_path / "model-00002-of-00004.safetensors").unlink()
    (tmp_path / "model-00003-of-00004.safetensors").write_bytes(b"")
    assert blocked(tmp_path)[0] == (
        "model.safetensors.index.json names 4 files, of which are missing or empty: "
        "model-00002-of-00004.safetensors, model-00003-of-00004.safetensors."
    )


def test_many_missing_shards_are_counted(tmp_path):
    sharded_model(tmp_path, shards=9)
    for shard in tmp_path.glob("model-*"):
        shard.unlink()
    assert blocked(tmp_path)[0].endswith("model-00005-of-00009.safetensors and 4 more.")


@pytest.mark.parametrize(
    "index",
    ["{}", '{"weight_map": []}', '{"weight_map": {}}', '{"weight_map": {"a": 1}}', '{"weight_map": {"a": "../x"}}'],
)
def test_index_without_a_usable_map(tmp_path, index):
    write(tmp_path, {"config.json": "{}", "model.safetensors.index.json": index})
    assert blocked(tmp_path)[0] == "model.safetensors.index.json has no 'weight_map' from tensors to files beside it."


@pytest.mark.parametrize(("content", "problem"), [('{"a":', "is not JSON ("), ("[1]", "holds no JSON object.")])
def test_broken_json_is_a_blocker(tmp_path, content, problem):
    full_model(tmp_path / "full", **{"config.json": content})
    assert blocked(tmp_path / "full")[0].startswith(f"config.json {problem}")
    adapter(tmp_path / "adapter", **{"adapter_config.json": content})
    assert blocked(tmp_path / "adapter")[0].startswith(f"adapter_config.json {problem}")
    write(sharded_model(tmp_path / "sharded"), {"model.safetensors.index.json": content})
    assert blocked(tmp_path / "sharded")[0].startswith(f"model.safetensors.index.json {problem}")


def test_json_that_is_not_text_is_a_blocker(tmp_path):
    full_model(tmp_path, **{"config.json": b"\xff\x00"})
    assert blocked(tmp_path)[0].startswith("config.json is not JSON (")


def test_config_without_weights(tmp_path):
    write(tmp_path, {"config.json": "{}"})
    blocker, way_out = blocked(tmp_path)
    assert blocker == "It has config.json but no weights."
    assert way_out == "Save the model into it with save_pretrained, as model.safetensors."


def test_shards_without_index(tmp_path):
    sharded_model(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    blocker, _ = blocked(tmp_path)
    assert blocker == "It has 2 weight shards but no index: the save was interrupted."
    assert len(classify_weights(tmp_path).files) == 2


def test_training_args_beside_safetensors_do_not_block(tmp_path):
    assert (
        classify_weights(full_model(tmp_path, **{"training_args.bin": b"\x80", "optimizer.bin": b"\x80"})).blocker
        is None
    )


@pytest.mark.parametrize("base", ["/models/gone", "./gone", "../gone", "a/b/gone"])
def test_adapter_on_a_local_base_that_is_gone(tmp_path, base):
    adapter(tmp_path, base)
    assert blocked(tmp_path) == (
        f"The base model {base} that adapter_config.json names does not exist here.",
        "Name it with --base-model (a folder or a hub id).",
    )


def test_base_model_option_wins_over_what_the_adapter_names(tmp_path):
    base = full_model(tmp_path / "base")
    weights = classify_weights(adapter(tmp_path / "a", "/models/gone"), str(base))
    assert (weights.blocker, weights.base_model) == (None, str(base))


def test_base_model_in_the_home_folder_is_named_in_full(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    full_model(tmp_path / "base")
    weights = classify_weights(adapter(tmp_path / "a"), "~/base")
    assert (weights.blocker, weights.base_model) == (None, str(tmp_path / "base"))


def test_base_model_option_that_is_gone(tmp_path):
    blocker, way_out = blocked(adapter(tmp_path), "/also/gone")
    assert blocker == "The base model /also/gone given for the adapter does not exist here."
    assert "--base-model" in way_out


@pytest.mark.parametrize("base", [None, ""])
def test_adapter_that_names_no_base(tmp_path, base):
    adapter(tmp_path, base)
    expected = "The adapter names no base model ('base_model_name_or_path' in adapter_config.json)."
    assert blocked(tmp_path)[0] == expected
    assert classify_weights(tmp_path, "org/base").blocker is None


def test_base_model_is_of_adapters_only(tmp_path):
    weights = classify_weights(full_model(tmp_path), "/models/gone")
    assert (weights.blocker, weights.base_model) == (None, None)


def test_weights_without_config(tmp_path):
    write(tmp_path / "a", {"model.safetensors": TENSORS})
    assert blocked(tmp_path / "a") == (
        "It has model.safetensors but no config.json.",
        "Copy config.json of the model that was trained into it, or name that model with --student or --base-model.",
    )
    assert classify_weights(tmp_path / "a").code == "CONFIG_MISSING"
    found = classify_weights(tmp_path / "a", configs=[full_model(tmp_path / "student")])
    assert (found.blocker, found.config) == (None, tmp_path / "student")


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin"])
def test_pickles_of_tensors_are_given_to_whoever_loads_them(tmp_path, name):
    write(
        tmp_path, {"config.json": "{}", "adapter_config.json": '{"base_model_name_or_path": "org/base"}', name: b"\x80"}
    )
    if name == "pytorch_model.bin":
        (tmp_path / "adapter_config.json").unlink()
    weights = classify_weights(tmp_path)
    assert (weights.blocker, weights.files) == (None, (tmp_path / name,))
    (tmp_path / name).write_bytes(b"")
    assert blocked(tmp_path)[0] == f"{name} is empty."


def test_safetensors_go_before_pickles_beside_them(tmp_path):
    full_model(tmp_path / "full", **{"pytorch_model.bin": b"\x80"})
    assert [f.name for f in classify_weights(tmp_path / "full").files] == ["model.safetensors"]
    adapter(tmp_path / "adapter", **{"adapter_model.bin": b"\x80"})
    assert [f.name for f in classify_weights(tmp_path / "adapter").files] == ["adapter_model.safetensors"]


def test_sharded_pickles_and_a_missing_one(tmp_path):
    names = [f"pytorch_model-0000{i}-of-00002.bin" for i in (1, 2)]
    index = json.dumps({"weight_map": {"a": names[0], "b": names[1]}})
    write(tmp_path, {"config.json": "{}", "pytorch_model.bin.index.json": index, **dict.fromkeys(names, b"\x80")})
    assert [f.name for f in classify_weights(tmp_path).files] == names
    (tmp_path / names[1]).unlink()
    assert blocked(tmp_path)[0] == (
        f"pytorch_model.bin.index.json names 2 files, of which are missing or empty: {names[1]}."
    )
    (tmp_path / "pytorch_model.bin.index.json").unlink()
    assert blocked(tmp_path)[0] == "It has 1 weight shards but no index: the save was interrupted."


def test_an_adapter_without_weights(tmp_path):
    (adapter(tmp_path) / "adapter_model.safetensors").unlink()
    expected = "It has adapter_config.json but no adapter_model.safetensors: the save was interrupted."
    assert blocked(tmp_path) == (expected, SAVE_AGAIN)
    assert classify_weights(tmp_path).code == "INCOMPLETE_WEIGHTS"


def test_a_quantised_base_is_said(tmp_path):
    weights = classify_weights(adapter(tmp_path, "unsloth/llama-bnb-4bit"))
    assert (weights.blocker, weights.note) == (
        None,
        "The adapter names unsloth/llama-bnb-4bit, which is quantised. Name another with --base-model.",
    )


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"model.safetensors": TENSORS[:-1]}, "INCOMPLETE_WEIGHTS"),
        ({"model.safetensors": "version https://git-lfs.github.com/spec/v1\n"}, "INCOMPLETE_WEIGHTS"),
        ({"config.json": "{"}, "UNREADABLE"),
        ({"adapter_config.json": "[]"}, "UNREADABLE"),
        ({"adapter_config.json": '{"base_model_name_or_path": "/gone"}'}, "INCOMPLETE_WEIGHTS"),
        (
            {"adapter_config.json": '{"base_model_name_or_path": "/gone"}', "adapter_model.safetensors": TENSORS},
            "BASE_MODEL_MISSING",
        ),
    ],
)
def test_codes(tmp_path, change, code):
    assert classify_weights(full_model(tmp_path, **change)).code == code


@pytest.mark.parametrize("text", ['{"base_model_name_or_path": "org/base", "r": NaN}', "[" * 100_000, "1" * 5000])
def test_json_that_trips_readers_is_read_or_named(tmp_path, text):
    found = classify_weights(adapter(tmp_path, **{"adapter_config.json": text}))
    if text.startswith("{"):
        assert (found.blocker, found.base_model) == (None, "org/base")
    else:
        assert found.code == "UNREADABLE"
        assert found.blocker.startswith("adapter_config.json ")
