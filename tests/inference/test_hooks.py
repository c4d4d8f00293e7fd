"""Models whose modules accelerate moves about give, to the digit, what they give where nothing is moved."""

from __future__ import annotations

import accelerate
import numpy as np
import pytest
import torch
from models import FAMILIES, random_rollouts, tiny_model, word_tokenizer, wrapped

from opd_diag.inference import OtherPrecision, check_head, hidden_at, sample_rollouts, score, second_pass, wrap_model
from opd_diag.inference.head import Head
from opd_diag.inference.hooks import brought, first_device, has_hooks, own_kept, runs_on
from opd_diag.inference.libraries import quiet
from opd_diag.inference.onepass import OnePass
from opd_diag.records.prompt import Prompt
from opd_diag.records.sampling import Sampling
from opd_diag.tokenization import encode_prompts

from .two_devices import Mixed, on_two, spread

ROLLOUTS = random_rollouts([(5, 7), (5, 9), (8, 3)])
CPU = torch.device("cpu")


def offloaded(family, **changes):
    """A model whose weights are brought to each module for the moment it computes."""
    with quiet():
        return accelerate.cpu_offload(tiny_model(family, **changes), execution_device=CPU)


def forced(family, **changes):
    return accelerate.dispatch_model(tiny_model(family, **changes), {"": "cpu"}, force_hooks=True)


def same(ours, theirs):
    for name, values in vars(theirs).items():
        if isinstance(values, np.ndarray):
            np.testing.assert_array_equal(getattr(ours, name), values, err_msg=name)


@pytest.mark.parametrize(
    ("family", "moved"), [*((family, offloaded) for family in FAMILIES), ("llama", forced), ("qwen3", forced)]
)
def test_scores_precision_and_packs_are_those_of_the_model_in_one_place(family, moved):
    plain, hooked, other = wrapped(family), wrap_model(moved(family), name="model"), wrapped("llama", seed=3)
    assert hooked.takes_packs == plain.takes_packs
    check_head(hooked, [*ROLLOUTS[0].prompt_ids, *ROLLOUTS[0].response_ids])
    for pair in (lambda m: (m, other), lambda m: (other, m)):
        same(score(*pair(hooked), ROLLOUTS), score(*pair(plain), ROLLOUTS))
    ids = torch.tensor([ROLLOUTS[0].prompt_ids])
    with torch.inference_mode():
        found, expected = (OtherPrecision.of(m, body_dtype=torch.float64).hidden(ids) for m in (hooked, plain))
        assert torch.equal(found, expected)
        assert torch.equal(hooked.hidden(ids), plain.hidden(ids)), "afterwards too"


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "lfm2"])
def test_what_is_sampled_is_the_same(family):
    tokenizer = word_tokenizer()
    prompts = encode_prompts([Prompt("a", "the cat sat"), Prompt("b", "a dog ran on the mat")], tokenizer)
    plain, hooked = (
        sample_rollouts(wrap_model(hf, name="m"), tokenizer, prompts, sampling=Sampling(max_new_tokens=6))
        for hf in (tiny_model(family), offloaded(family))
    )
    assert hooked == plain


def test_a_head_that_is_kept_elsewhere_is_read_once_in_float32():
    hf = offloaded("phi", seed=1)
    assert hf.lm_head.weight.device.type == "meta"
    head, expected = wrap_model(hf, name="m").head, wrapped("phi", seed=1).head
    assert torch.equal(head.weight, expected.weight)
    assert torch.equal(head.bias, expected.bias)
    assert hf.lm_head.weight.device.type == "meta", "and is kept elsewhere again"


def test_where_modules_compute():
    plain, hooked = tiny_model("llama"), offloaded("llama")
    assert (has_hooks(plain), has_hooks(hooked)) == (False, True)
    assert hooked.lm_head.weight.device.type == "meta"
    assert {runs_on(m) for m in (plain.lm_head, hooked.lm_head)} == {CPU}
    assert first_device(hooked) == CPU
    with brought(hooked.lm_head):
        assert torch.equal(hooked.lm_head.weight, plain.lm_head.weight)


def test_kept_weights_get_memory_of_their_own():
    hf = tiny_model("qwen3")
    mapped = hf.model.norm.weight
    with quiet():
        accelerate.cpu_offload(hf, execution_device=CPU, state_dict=dict(hf.state_dict()))
    expected = wrap_model(hf, name="m").hidden(torch.tensor([[1, 2, 3]])).clone()
    own_kept(hf)
    with torch.no_grad():
        mapped.fill_(7.0)  # as a trainer that writes to the file would
    assert torch.equal(wrap_model(hf, name="m").hidden(torch.tensor([[1, 2, 3]])), expected)


def test_addresses_of_tied_weights_are_forgotten_once_they_have_moved():
    """What is read from files later may be given the address that a tied weight had, and would be taken for it."""
    hf = tiny_model("qwen3")
    with quiet():
        hf = accelerate.dispatch_model(hf, {"": "cpu"}, force_hooks=True)
    known = hf.model.embed_tokens._hf_hook.tied_params_map
    assert [*known] == [hf.lm_head.weight.data_ptr()]
    own_kept(hf)
    assert known == {}


class TestTwoGpus:
    """Layers on two devices, and two models whose heads are on different ones."""

    @pytest.fixture
    def devices(self, monkeypatch):
        return on_two(monkeypatch)

    @staticmethod
    def one_after_another(devices):
        """Embeddings and head first, the second layer and the last norm on the other device."""
        return spread(devices, tiny_model("llama"), layers__1="cuda:1", norm="cuda:1", lm_head="cuda:0")

    def test_the_devices_notice_what_is_mixed(self, devices):
        hf = self.one_after_another(devices)
        with devices, torch.inference_mode(), pytest.raises(Mixed, match=r"cuda:0.*cuda:1"):
            hf.lm_head.weight @ hf.model(input_ids=torch.tensor([[1, 2]])).last_hidden_state[0].T

    @pytest.mark.parametrize("head", ["cuda:0", "cuda:1"])
    def test_scores_are_those_of_one_device(self, devices, head):
        larger = {"vocabulary": 176, "seed": 3}  # by padding rows, whose mass the other head's states tell
        both = spread(devices, tiny_model("llama")), spread(devices, tiny_model("qwen3", **larger))
        with devices:
            plain, other = (wrap_model(hf, name="model") for hf in both)
            expected = score(plain, other, ROLLOUTS), score(other, plain, ROLLOUTS)
            assert not devices.moved_between
        hf = spread(devices, tiny_model("llama"), layers__1="cuda:1", norm="cuda:1", lm_head=head)
        teacher = spread(devices, tiny_model("qwen3", **larger), embed_tokens="cuda:1", lm_head="cuda:1")
        with devices:
            ours, theirs = wrap_model(hf, name="model"), wrap_model(teacher, name="model")
            assert (str(ours.enters_at), str(ours.device), str(theirs.device)) == ("cuda:0", head, "cuda:1")
            assert ours.takes_packs
            check_head(ours, list(range(9)))
            found = score(ours, theirs, ROLLOUTS), score(theirs, ours, ROLLOUTS)
        assert devices.moved_between
        for pair in zip(found, expected, strict=True):
            same(*pair)

    @pytest.mark.parametrize(("family", "head"), [("llama", "cuda:1"), ("gemma2", "cuda:0")])
    def test_samples_are_those_of_one_device(self, devices, family, head):
        tokenizer = word_tokenizer()
        prompts = encode_prompts([Prompt("a", "the cat sat"), Prompt("b", "a dog ran on the mat")], tokenizer)
        asked = {"tokenizer": tokenizer, "prompts": prompts, "sampling": Sampling(max_new_tokens=6)}
        expected = sample_rollouts(wrapped(family), **asked)
        hf = spread(devices, tiny_model(family), layers__1="cuda:1", norm="cuda:1", lm_head=head)
        with devices:
            assert sample_rollouts(wrap_model(hf, name="model"), **asked) == expected

    def test_a_second_pass_has_heads_on_both(self, devices):
        places = [(0, 1), (1, 4), (2, 2)]
        models = wrapped("llama"), wrapped("qwen3", seed=3)
        hidden = [hidden_at(model, ROLLOUTS, places) for model in models]
        expected = second_pass(tuple(m.head for m in models), tuple(hidden), 160, (1.0, 1.0))
        on_second = {"embed_tokens": "cuda:1", "lm_head": "cuda:1"}
        hfs = spread(devices, tiny_model("llama")), spread(devices, tiny_model("qwen3", seed=3), **on_second)
        with devices:
            heads = tuple(wrap_model(hf, name="m").head for hf in hfs)
            found = second_pass(heads, tuple(h.to("cuda:0") for h in hidden), 160, (1.0, 1.0))
        for name, values in vars(expected).items():
            assert torch.equal(getattr(found, name), values), name

    def test_tops_are_found_by_blocks(self, devices):
        generator = torch.Generator().manual_seed(0)
        weights = [torch.randn(256, 8, generator=generator) for _ in range(2)]
        states = [torch.randn(5, 8, generator=generator) for _ in range(2)]

        def tops(*names):
            with devices:
                heads = [Head(w.to(name), None, 1.0, None) for w, name in zip(weights, names, strict=True)]
                return OnePass(*heads, 256).load(*(s.to("cuda:0") for s in states))

        for found, expected in zip(tops("cuda:0", "cuda:1"), tops("cuda:0", "cuda:0"), strict=True):
            assert torch.equal(found.ids, expected.ids)
            assert torch.equal(found.logits, expected.logits)

    def test_another_precision(self, devices):
        ids = torch.tensor([[1, 2, 3, 4]])
        with torch.inference_mode():
            expected = OtherPrecision.of(wrapped("llama"), body_dtype=torch.float64).hidden(ids)
            hf = self.one_after_another(devices)
            with devices:
                found = OtherPrecision.of(wrap_model(hf, name="m"), body_dtype=torch.float64).hidden(ids)
                assert str(found.device) == "cuda:0"
        assert torch.equal(found, expected)
