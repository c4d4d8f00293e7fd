"""The head that is applied is the model's own, and anything else is noticed."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import transformers
from models import CONTEXT, FAMILIES, V, randomise, tiny_model, wrapped
from torch import nn

from opd_diag.errors import ModelError
from opd_diag.inference import check_head, wrap_model
from opd_diag.inference.head import CHECKED_TOKENS, Head, OwnLogits, read_head

IDS = torch.randint(0, V, (CONTEXT,), generator=torch.Generator().manual_seed(0)).tolist()


def broken(model, **changes):
    """Give `model` with another head than its own."""
    return replace(model, head=replace(model.head, **changes))


def refusal(model) -> str:
    with pytest.raises(ModelError) as caught:
        check_head(model, IDS)
    return str(caught.value)


class TestHealthyHeads:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_pass_in_every_family(self, family):
        model = wrapped(family, name=family)
        result = check_head(model, IDS)
        assert result.model == family
        assert result.n_states == CHECKED_TOKENS
        assert 0 <= result.max_abs_difference < 1e-5 < result.tolerance < 0.01

    @pytest.mark.parametrize(
        ("family", "traits"),
        [
            ("llama", (False, 1.0, None)),
            ("gemma2", (False, 1.0, 3.0)),
            ("phi", (True, 1.0, None)),
            ("granite", (False, 0.5, None)),
            ("cohere", (False, 0.5, None)),
        ],
    )
    def test_what_is_read(self, family, traits):
        head = wrapped(family).head
        assert (head.bias is not None, head.scale, head.softcap) == traits
        assert head.weight.shape[0] == V
        assert head.weight.dtype == torch.float32

    @pytest.mark.parametrize(
        ("kind", "changes"),
        [
            ("RecurrentGemma", {"logits_soft_cap": 2.0, "attention_window_size": 16, "head_dim": 8}),
            ("xLSTM", {"output_logit_soft_cap": 2.0, "num_heads": 4}),
        ],
    )
    def test_a_soft_cap_by_another_name(self, kind, changes):
        sizes = {"vocab_size": V, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4}
        hf = transformers.AutoModelForCausalLM.from_config(
            getattr(transformers, f"{kind}Config")(**sizes, intermediate_size=48, pad_token_id=None, **changes)
        )
        randomise(hf)
        model = wrap_model(hf, name=kind)
        assert model.head.softcap == 2.0
        assert check_head(model, IDS).max_abs_difference < 1e-5

    def test_tied_weights_are_the_embedding(self):
        hf = tiny_model("qwen3")
        assert torch.equal(read_head(hf).weight, hf.model.embed_tokens.weight)

    @pytest.mark.parametrize("family", FAMILIES)
    def test_pass_in_bfloat16_with_its_own_tolerance(self, family):
        model = wrap_model(tiny_model(family).bfloat16(), name="half")
        result = check_head(model, IDS)
        assert model.head.weight.dtype == torch.float32
        assert result.tolerance >= 0.02
        # The model rounds its own logits to 8 bits; ours are not rounded, so the two differ.
        assert 0 < result.max_abs_difference < result.tolerance

    def test_a_short_sequence(self):
        assert check_head(wrapped(), [5]).n_states == 1

    def test_logits_masked_with_minus_infinity_on_both_sides_are_no_difference(self):
        hf = tiny_model("phi")
        hf.lm_head.bias.data[-3:] = -math.inf
        result = check_head(wrap_model(hf, name="masked"), IDS)
        assert result.max_abs_difference < 1e-5
        assert result.tolerance < 0.01  # of the finite logits: an infinite one would let everything pass


class TestBrokenHeads:
    def test_the_message_is_whole(self):
        model = wrapped(name="step 20")
        weight = model.head.weight.clone()
        weight[17] += 0.5
        ours = broken(model, weight=weight)
        hidden = model.hidden(torch.tensor([IDS[:CHECKED_TOKENS]]))[0]
        difference = (0.5 * hidden.sum(-1)).abs().max().item()
        size = model.head.logits(hidden).abs().max().item()
        assert refusal(ours) == (
            f"step 20: the head that opd-diag applies differs from model(...).logits by {difference:.3g} "
            f"(tolerance {1e-4 * size:.3g}, 64 states). This architecture (LlamaForCausalLM) does more after its last "
            "layer than opd-diag knows; please report it."
        )

    @pytest.mark.parametrize(
        ("family", "changes"),
        [
            ("phi", {"bias": None}),
            ("gemma2", {"softcap": None}),
            ("gemma2", {"softcap": 3.01}),
            ("granite", {"scale": 1.0}),
            ("granite", {"scale": 2.0}),
            ("cohere", {"scale": 1.0}),
            ("llama", {"scale": 1.001}),
            ("llama", {"softcap": 30.0}),
            ("llama", {"bias": torch.full((V,), 0.01)}),
        ],
    )
    def test_each_part_matters(self, family, changes):
        model = wrapped(family, name="a model")
        check_head(model, IDS)
        message = refusal(broken(model, **changes))
        assert message.startswith("a model: the head that opd-diag applies differs from model(...).logits by ")
        assert type(model.hf).__name__ in message

    @pytest.mark.parametrize("family", ["llama", "qwen3"])
    def test_a_head_that_was_exchanged_after_it_was_read(self, family):
        hf = tiny_model(family)
        model = wrap_model(hf, name="untied")
        hf.lm_head.weight = nn.Parameter(hf.lm_head.weight + 0.01)
        assert "untied: the head that opd-diag applies differs" in refusal(model)

    def test_a_step_after_the_head_that_nobody_knows(self):
        hf = tiny_model()
        hf.lm_head.register_forward_hook(lambda module, args, output: output * 1.01)
        assert "does more after its last layer than opd-diag knows" in refusal(wrap_model(hf, name="m"))

    def test_one_row_of_one_state_is_enough(self):
        hf = tiny_model()

        def touch(module, args, output):
            output = output.clone()
            output[0, 60, 150] += 0.01
            return output

        hf.lm_head.register_forward_hook(touch)
        assert "by 0.01 " in refusal(wrap_model(hf, name="m"))

    def test_a_break_in_bfloat16(self):
        hf = tiny_model("granite").bfloat16()
        assert "differs" in refusal(broken(wrap_model(hf, name="m"), scale=1.0))

    def test_a_break_beside_logits_that_are_masked(self):
        hf = tiny_model("phi")
        hf.lm_head.bias.data[-1] = -math.inf
        model = wrap_model(hf, name="m")
        bias = model.head.bias.clone()
        bias[3] += 1.0
        assert "differs from model(...).logits by 1 " in refusal(broken(model, bias=bias))

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
    def test_a_head_that_is_not_finite_where_the_model_is(self, value):
        model = wrapped(name="m")
        weight = model.head.weight.clone()
        weight[3] = value
        assert "differs" in refusal(broken(model, weight=weight))

    def test_another_number_of_rows(self):
        model = wrapped(name="m")
        assert refusal(broken(model, weight=model.head.weight[:-1])) == (
            "m: the head that opd-diag applies gives 159 logits a token, model(...).logits 160. This architecture "
            "(LlamaForCausalLM) is not one that opd-diag knows; please report it."
        )


class TestModelsWithoutALinearHead:
    @pytest.fixture
    def model(self):
        hf = copy.deepcopy(tiny_model())
        hf.set_output_embeddings(nn.Sequential(nn.Linear(32, 20), nn.Tanh(), nn.Linear(20, V)))
        return wrap_model(hf, name="m", stop_ids=(2,))

    def test_their_own_logits_serve_and_that_is_said(self, model):
        assert isinstance(model.head, OwnLogits)
        assert model.vocabulary == V
        check = check_head(model, IDS)
        assert check.max_abs_difference == 0
        assert check.note.startswith(
            "it has no linear output layer that can be applied apart from its body. The logits"
        )
        assert check_head(wrapped(), IDS).note == ""

    def test_tiles_are_copies(self, model):
        states = torch.randn(3, V)
        before = states.clone()
        model.head.tile(states, 5, 9).zero_()
        assert torch.equal(states, before)
        assert torch.equal(model.head.tile(states, 5, 9), states[:, 5:9])

    def test_no_model_at_all(self):
        hf = copy.deepcopy(tiny_model())
        hf.set_output_embeddings(nn.Identity())
        hf.config = SimpleNamespace(get_text_config=lambda: SimpleNamespace(model_type="odd"))
        with pytest.raises(ModelError, match="has no output layer and no vocabulary"):
            read_head(hf)


class TestLogits:
    def test_by_hand(self):
        head = Head(
            weight=torch.tensor([[1.0, 2.0], [0.0, -1.0]]), bias=torch.tensor([0.5, 0.0]), scale=2.0, softcap=4.0
        )
        # (3·1 + 1·2 + 0.5) · 2 = 11 and (-1) · 2 = -2, then 4 · tanh(x / 4)
        wanted = [[4 * math.tanh(11 / 4), 4 * math.tanh(-2 / 4)]]
        torch.testing.assert_close(head.logits(torch.tensor([[3.0, 1.0]])), torch.tensor(wanted))

    def test_sixteen_bit_states_give_float32_logits(self):
        logits = wrapped().head.logits(torch.ones(3, 32, dtype=torch.bfloat16))
        assert (logits.dtype, logits.shape) == (torch.float32, (3, V))

    def test_the_states_given_are_left_as_they_are(self):
        states = torch.ones(2, 32)
        wrapped("gemma2").head.logits(states)
        assert (states == 1).all()
