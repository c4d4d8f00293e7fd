"""Weights are found under whatever a trainer wraps around a model, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from opd_diag.inference.names import sort_names

MODEL = ("model.embed_tokens.weight", "model.layers.0.q_proj.weight", "model.norm.weight", "lm_head.weight")


def stored(wrap) -> dict[str, str]:
    return {name: wrap(name) for name in MODEL}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda name: name,
        lambda name: f"model.{name}",
        lambda name: f"module.{name}",
        lambda name: f"app.model.{name}",
        lambda name: f"model.module.{name}",
        lambda name: f"_orig_mod.{name}",
        lambda name: f"module._orig_mod.{name}",
        lambda name: f"_fsdp_wrapped_module.{name.replace('layers.0.', 'layers.0._fsdp_wrapped_module.')}",
        lambda name: name.replace("layers.0.", "layers.0._checkpoint_wrapped_module."),
        lambda name: (
            f"app.model._orig_mod.{name.replace('layers.0.', 'layers.0._orig_mod._checkpoint_wrapped_module.')}"
        ),
    ],
)
def test_wrappers_come_off(wrap):
    names = sort_names(stored(wrap).values(), MODEL)
    assert names.weights == stored(wrap)
    assert names.factors == {}


def test_optimiser_states_and_what_else_was_saved_are_left():
    others = [
        "app.optimizers.state.model.norm.weight.exp_avg",
        "app.optimizers.param_groups.model.norm.weight.lr",
        "app.scheduler.last_epoch",
        "app.progress.step",
        "optim.state.model.norm.weight.step",
    ]
    names = sort_names([*others, *(f"app.model.{name}" for name in MODEL)], MODEL)
    assert set(names.weights.values()) == {f"app.model.{name}" for name in MODEL}


def test_what_the_model_has_no_place_for_is_kept_to_be_refused():
    names = sort_names([*(f"model.{name}" for name in MODEL), "model.model.layers.1.q_proj.weight"], MODEL)
    assert names.weights["model.layers.1.q_proj.weight"] == "model.model.layers.1.q_proj.weight"
    assert "v_head.weight" not in sort_names([*MODEL, "v_head.weight"], MODEL).weights  # beside the model, not in it


def test_a_head_that_is_tied_may_be_missing():
    assert len(sort_names([f"model.{name}" for name in MODEL[:-1]], MODEL).weights) == 3


def test_nothing_of_the_model():
    names = sort_names(["encoder.weight", "decoder.weight"], MODEL)
    assert (names.weights, names.factors) == ({}, {})
    assert sort_names([], MODEL).weights == {}


LORA = {
    "base_model.model.model.embed_tokens.weight": "model.embed_tokens.weight",
    "base_model.model.model.layers.0.q_proj.base_layer.weight": "model.layers.0.q_proj.weight",
    "base_model.model.model.norm.weight": "model.norm.weight",
    "base_model.model.lm_head.original_module.weight": "lm_head.weight",
}
Q = "base_model.model.model.layers.0.q_proj"
FACTORS = {
    f"{Q}.lora_A.default.weight": f"{Q}.lora_A.weight",
    f"{Q}.lora_B.default.weight": f"{Q}.lora_B.weight",
    "base_model.model.lm_head.modules_to_save.default.weight": "base_model.model.lm_head.weight",
}


@pytest.mark.parametrize("root", ["", "model.", "_fsdp_wrapped_module."])
def test_a_model_with_an_adapter(root):
    names = sort_names([root + name for name in (*LORA, *FACTORS)], MODEL)
    assert names.weights == {ours: root + name for name, ours in LORA.items()}
    assert names.factors == {ours: root + name for name, ours in FACTORS.items()}


def test_an_adapter_alone():
    names = sort_names([name for name in FACTORS if "lora" in name], MODEL)
    assert names.weights == {}
    assert list(names.factors.values()) == [name for name in FACTORS if "lora" in name]
