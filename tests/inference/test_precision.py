"""The same weights in another precision: near what they are in their own, and untouched afterwards."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from models import FAMILIES, random_rollouts, tiny_model, wrapped

from opd_diag.errors import ModelError
from opd_diag.inference import OtherPrecision, Twin, score, usable_dtype, wrap_model
from opd_diag.inference import precision as precision_module
from opd_diag.inference.precision import cpu_computes, in_precision, reference_dtype

TOKENS = torch.tensor([[3, 40, 5, 60, 7, 80, 9, 100], [9, 8, 70, 6, 50, 4, 4, 4]])


def weights_of(model):
    return {name: (parameter, parameter.detach().clone()) for name, parameter in model.named_parameters()}


def assert_untouched(model, before):
    now = dict(model.named_parameters())
    assert list(now) == list(before)
    for name, (parameter, bits) in before.items():
        assert now[name] is parameter
        assert torch.equal(parameter, bits)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def other_precision(model):
    return OtherPrecision.of(model, packs=True, body_dtype=reference_dtype(model.dtype))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("family", FAMILIES)
@torch.inference_mode()
def test_gives_what_a_converted_copy_gives_and_leaves_no_trace(family, dtype):
    hf = tiny_model(family).to(dtype)
    before = weights_of(hf)
    model = wrap_model(hf, name="model")
    other = other_precision(model).hidden(TOKENS)
    assert_untouched(hf, before)
    copied = copy.deepcopy(hf).to(reference_dtype(dtype))
    if family == "qwen3_moe":
        copied.set_experts_implementation("eager")
    truth = copied.base_model(input_ids=TOKENS, use_cache=False).last_hidden_state.float()
    # a copy of the whole model rounds its buffers too, which in 16 bits is a difference of its own
    loose = dtype == torch.bfloat16 and family in ("gemma2", "lfm2")
    torch.testing.assert_close(other, truth, atol=0.05 if loose else 1e-5, rtol=0)
    error = (other - model.hidden(TOKENS).float()).abs().mean().item()
    low, high = (1e-9, 1e-4) if dtype == torch.float32 else (1e-4, 1.0)
    assert low < error < high


@torch.inference_mode()
def test_one_module_at_a_time_holds_converted_weights():
    hf = tiny_model()
    first, last = hf.model.layers[0].self_attn.q_proj, hf.model.layers[1].mlp.down_proj
    seen = []
    with in_precision(hf.model, torch.float64):
        hook = last.register_forward_hook(lambda *_: seen.append((last.weight.dtype, first.weight.dtype)))
        hook_first = first.register_forward_pre_hook(lambda *_: seen.append((last.weight.dtype, first.weight.dtype)))
        assert first.weight.dtype == torch.float32
        hf.model(input_ids=TOKENS, use_cache=False)
        hook.remove()
        hook_first.remove()
    # the hook on `last` comes after its weights were put back
    assert seen == [(torch.float32, torch.float64), (torch.float32, torch.float32)]


@torch.inference_mode()
def test_the_table_of_an_embedding_is_never_converted():
    hf = tiny_model()
    seen = []
    with in_precision(hf.model, torch.float64):
        look = hf.model.embed_tokens.register_forward_hook(
            lambda module, args, output: seen.append((module.weight.dtype, output.dtype))
        )
        hf.model(input_ids=TOKENS, use_cache=False)
        look.remove()
    assert seen == [(torch.float32, torch.float64)]


@torch.inference_mode()
def test_weights_are_put_back_where_a_layer_fails():
    hf = tiny_model()
    before = weights_of(hf)

    def broken(*_):
        raise RuntimeError("no such kernel")

    layer = hf.model.layers[1].mlp.up_proj
    layer.forward = broken
    with pytest.raises(ModelError, match=r"LlamaForCausalLM cannot be run in float64 here: no such kernel\."):
        other_precision(wrap_model(hf, name="model")).hidden(TOKENS)
    assert_untouched(hf, before)
    del layer.forward
    assert other_precision(wrap_model(hf, name="model")).hidden(TOKENS).isfinite().all()


@torch.inference_mode()
def test_an_embedding_that_gives_more_than_rows_is_refused():
    hf = tiny_model()
    hook = hf.model.embed_tokens.register_forward_hook(lambda module, args, output: (output, None))
    with pytest.raises(ModelError, match="LlamaForCausalLM cannot be run in float64 here: 'tuple' object"):
        other_precision(wrap_model(hf, name="model")).hidden(TOKENS)
    hook.remove()


@torch.inference_mode()
def test_a_body_that_goes_back_to_its_own_precision_is_refused():
    hf = tiny_model()
    hook = hf.model.norm.register_forward_hook(lambda module, args, output: output.float())
    with pytest.raises(ModelError, match="its hidden states stay float32"):
        other_precision(wrap_model(hf, name="model")).hidden(TOKENS)
    hook.remove()


@torch.inference_mode()
def test_tokens_of_a_twin_are_counted_apart():
    model = wrapped()
    for twin in (Twin.of(model, packs=True), other_precision(model)):
        twin.hidden(TOKENS)
        assert twin.forwarded.tokens == TOKENS.numel()
    assert model.forwarded.tokens == 0
    assert Twin.of(model).forwarded.tokens == 0


@pytest.mark.parametrize("packs", [True, False])
def test_a_twin_takes_packs_as_it_is_told(packs):
    model = wrapped()
    assert Twin.of(model, packs=packs).takes_packs is packs
    assert Twin.of(model).takes_packs is model.takes_packs is True


@pytest.mark.parametrize("cls", [Twin, OtherPrecision])
@torch.inference_mode()
def test_a_twin_scores_like_the_model(cls):
    model, rollouts = wrapped(), random_rollouts([(5, 9), (3, 12)])
    scores = score(model, cls.of(model), rollouts)
    np.testing.assert_allclose(scores.teacher_entropy, scores.student_entropy, atol=1e-4)
    assert scores.reverse_kl.max() < 1e-5


def capable(monkeypatch, machine, *, avx512_bf16=False, amx=False, mkldnn_bf16=False, mkldnn_fp16=False):
    monkeypatch.setattr(precision_module.platform, "machine", lambda: machine)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512_bf16, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: mkldnn_bf16, raising=False)
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_fp16_supported", lambda: mkldnn_fp16, raising=False)


@pytest.mark.parametrize(
    ("machine", "has", "dtype", "computes"),
    [
        pytest.param("x86_64", {"avx512_bf16": True}, torch.bfloat16, True, id="AVX-512 with bfloat16"),
        pytest.param("x86_64", {"amx": True}, torch.bfloat16, True, id="AMX"),
        pytest.param("AMD64", {"mkldnn_bf16": True}, torch.bfloat16, False, id="AVX-512 that emulates bfloat16"),
        pytest.param("aarch64", {"mkldnn_bf16": True}, torch.bfloat16, True, id="ARM with bfloat16"),
        pytest.param("aarch64", {}, torch.bfloat16, False, id="ARM without"),
        pytest.param("x86_64", {"avx512_bf16": True, "amx": True}, torch.float16, False, id="no float16"),
        pytest.param("x86_64", {"mkldnn_fp16": True}, torch.float16, True, id="float16"),
    ],
)
def test_which_cpus_compute_in_sixteen_bits(monkeypatch, machine, has, dtype, computes):
    capable(monkeypatch, machine, **has)
    assert cpu_computes(dtype) is computes


def test_a_build_of_torch_that_does_not_know_has_none(monkeypatch):
    capable(monkeypatch, "x86_64", avx512_bf16=True)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert cpu_computes(torch.bfloat16) is False


def test_a_cpu_without_instructions_says_so_and_takes_float32(monkeypatch):
    capable(monkeypatch, "x86_64")
    dtype, why = usable_dtype("bfloat16", "cpu")
    assert dtype == "float32"
    assert why == (
        "This CPU has no instructions for bfloat16, in which it would be slower than in float32: --dtype bfloat16 was "
        "asked for, float32 was used."
    )


def test_where_there_are_instructions_nothing_is_said(monkeypatch):
    capable(monkeypatch, "x86_64", avx512_bf16=True)
    assert usable_dtype("bfloat16", "cpu") == ("bfloat16", None)


def test_on_a_gpu_the_cpu_is_not_asked(monkeypatch):
    capable(monkeypatch, "x86_64")
    monkeypatch.setattr(precision_module, "resolve_device", torch.device)
    assert usable_dtype("bfloat16", "cuda") == ("bfloat16", None)
