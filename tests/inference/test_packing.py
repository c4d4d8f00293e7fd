"""A pack gives what its sequences give alone; where an architecture does not take packs, it is noticed and run so."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
import transformers
from models import _SIZES, FAMILIES, V, randomise, tiny_model, wrapped

from opd_diag.inference import attention, packing, wrap_model
from opd_diag.inference.attention import Span
from opd_diag.inference.model import Model
from opd_diag.inference.packing import Pack, packs, states_before, takes_packs

HEADS = {"head_dim": 8}
WINDOWS = {"sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}

# Beside those of tests/models.py: what each asks of attention.
OTHERS = {
    "window below the prompt": ("Mistral", {"sliding_window": 5}),
    "window of one token": ("Mistral", {"sliding_window": 1}),
    "window longer than the response": ("Mistral", {"sliding_window": 20}),
    "window in some layers": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
    "window, and a rotation for each kind of layer": ("Gemma3Text", HEADS | WINDOWS),
    "window, without a soft-cap of attention": (
        "Gemma2",
        HEADS | WINDOWS | {"query_pre_attn_scalar": 8, "attn_logit_softcapping": None},
    ),
    "a layer without rotation": ("Cohere2", WINDOWS),
    "as many keys as queries": ("Llama", {"num_key_value_heads": 4}),
    "one key for all queries": ("Llama", {"num_key_value_heads": 1}),
    "stretched rotation": ("Llama", {"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}),
    "values narrower than keys": (
        "DeepseekV3",
        {
            **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12},
            **{"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "n_shared_experts": 1},
            **{"moe_intermediate_size": 16, "first_k_dense_replace": 1, "num_key_value_heads": 4},
        },
    ),
}

# Packs would be wrong, or attention is not computed where it can be replaced.
UNPACKABLE = {
    "attention with sinks": (
        "GptOss",
        HEADS | WINDOWS | {"num_local_experts": 4, "num_experts_per_tok": 2, "rope_scaling": None},
    ),
    "attention of its own": ("GPTNeo", {"attention_types": [[["global"], 2]]}),
    "attention that looks into its mask": (
        "DeepseekV32",
        {
            **{"q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8, "v_head_dim": 12},
            **{"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "n_shared_experts": 1},
            **{"moe_intermediate_size": 16, "first_k_dense_replace": 1, "num_key_value_heads": 4},
            **{"index_n_heads": 4, "index_head_dim": 16, "index_topk": 8},
        },
    ),
    "a state instead of attention": ("Mamba", {"state_size": 4}),
    "linear attention in some layers": (
        "Qwen3Next",
        HEADS
        | {"layer_types": ["linear_attention", "full_attention"], "num_experts": 4, "num_experts_per_tok": 2}
        | {"moe_intermediate_size": 16, "shared_expert_intermediate_size": 16, "linear_num_value_heads": 2}
        | {"linear_num_key_heads": 2, "linear_key_head_dim": 8, "linear_value_head_dim": 8},
    ),
    "distances instead of positions": ("Bloom", {}),
    "rotation that changes with the length": (
        "Phi3",
        {
            "original_max_position_embeddings": 14,
            "rope_scaling": {"type": "longrope", "short_factor": [1.0] * 4, "long_factor": [3.0] * 4},
        },
    ),
}


def other(kind: str, changes: dict, spread: float = 0.3) -> Model:
    config = getattr(transformers, f"{kind}Config")(**{"vocab_size": V, **_SIZES, **changes})
    hf = transformers.AutoModelForCausalLM.from_config(config)
    randomise(hf, spread=spread)
    return wrap_model(hf, name=kind)


def ids(n: int, seed: int) -> list[int]:
    return torch.randint(3, V, (n,), generator=torch.Generator().manual_seed(seed)).tolist()


SEQUENCES = [
    (ids(11, 1), ids(5, 2)),
    (ids(11, 1), ids(40, 3)),  # more than three times its prompt: no mask is made
    (ids(11, 1), []),
    (ids(1, 4), ids(20, 5)),
    (ids(1, 4), ids(1, 6)),
    (ids(11, 1), ids(9, 7)),  # the first prompt again, apart from its group
    (ids(40, 8), ids(7, 9)),
    (ids(40, 8), ids(7, 10)),
]
"""(prompt, response) ids."""


def every_place(sequences) -> list[tuple[int, int]]:
    return [(i, p) for i, (_, response) in enumerate(sequences) for p in range(len(response) + 1)]


@torch.no_grad()
def alone(model: Model, sequences) -> torch.Tensor:
    """Each sequence through the body of transformers: the states before each token of the response, and the last."""
    states = []
    for prompt, response in sequences:
        hidden = model.hf.base_model(torch.tensor([[*prompt, *response]]), use_cache=False).last_hidden_state[0]
        states.append(hidden[len(prompt) - 1 :])
    return torch.cat(states)


@torch.no_grad()
def packed(model: Model, sequences) -> torch.Tensor:
    return states_before(model, Pack.of(sequences), every_place(sequences))


def assert_packed_is_single(model: Model, sequences=SEQUENCES) -> None:
    truth = alone(model, sequences)
    found = packed(model, sequences)
    assert found.shape == truth.shape
    assert found.dtype == truth.dtype
    torch.testing.assert_close(found, truth, atol=1e-5, rtol=1e-5)


class TestWhatIsPackedTogether:
    @pytest.fixture(params=range(60))
    def drawn(self, request):
        """(prompts, lengths, budget)."""
        draw = random.Random(request.param)
        size = {p: draw.choice([1, 4, 30, 90]) for p in range(draw.randint(1, 9))}
        prompts = [draw.choice(list(size)) for _ in range(draw.randint(0, 50))]
        return prompts, [(size[p], draw.choice([0, 1, 7, 40, 120])) for p in prompts], draw.choice([1, 50, 100, 400])

    def cost(self, pack, prompts, lengths):
        return sum({prompts[i]: lengths[i][0] for i in pack}.values()) + sum(lengths[i][1] for i in pack)

    def test_every_sequence_once(self, drawn):
        prompts, lengths, budget = drawn
        found = packs(prompts, lengths, budget)
        assert sorted(i for pack in found for i in pack) == list(range(len(prompts)))
        assert all(found)
        assert found == packs(prompts, lengths, budget)

    def test_those_of_one_prompt_follow_each_other_in_their_order(self, drawn):
        prompts, lengths, budget = drawn
        order = [i for pack in packs(prompts, lengths, budget) for i in pack]
        groups = list(dict.fromkeys(prompts))
        assert order == sorted(order, key=lambda i: (groups.index(prompts[i]), i))

    def test_the_budget_is_kept_but_by_a_single_sequence(self, drawn):
        prompts, lengths, budget = drawn
        for pack in packs(prompts, lengths, budget):
            assert self.cost(pack, prompts, lengths) <= budget or len(pack) == 1

    def test_a_prompt_is_repeated_only_where_its_group_does_not_fit(self, drawn):
        prompts, lengths, budget = drawn
        found = packs(prompts, lengths, budget)
        for prompt in set(prompts):
            group = [i for i in range(len(prompts)) if prompts[i] == prompt]
            parts = sum(any(i in pack for i in group) for pack in found)
            assert parts == 1 or self.cost(group, prompts, lengths) > budget

    def test_no_pack_is_closed_while_what_comes_next_would_fit(self, drawn):
        prompts, lengths, budget = drawn
        found = packs(prompts, lengths, budget)
        for pack, following in pairwise(found):
            first = following[0]
            whole = [i for i in range(len(prompts)) if prompts[i] == prompts[first]]
            more = [first] if prompts[pack[-1]] == prompts[first] else whole
            assert self.cost([*pack, *more], prompts, lengths) > budget

    def test_by_hand(self):
        lengths = [(10, 5), (4, 9), (10, 5), (10, 30)]
        assert packs("abaa", lengths, 1000) == [[0, 2, 3, 1]]
        assert packs("abaa", lengths, 25) == [[0, 2], [3], [1]]  # 10 + 5 + 5; 10 + 30 alone; 4 + 9
        assert packs("abcd", lengths, 28) == [[0, 1], [2], [3]]
        assert packs([], [], 10) == []


class TestOnePack:
    def test_by_hand(self):
        pack = Pack.of([([5, 6, 7], [1, 2]), ([5, 6, 7], []), ([5, 6, 7], [3]), ([9], [4, 4]), ([5, 6, 7], [8])])
        assert pack.ids == (5, 6, 7, 1, 2, 3, 9, 4, 4, 5, 6, 7, 8)
        assert pack.positions == (0, 1, 2, 3, 4, 3, 0, 1, 2, 0, 1, 2, 3)
        assert pack.spans == (
            *(Span((0, 3), (3, 5)), Span((0, 3), (5, 5)), Span((0, 3), (5, 6))),
            *(Span((6, 7), (7, 9)), Span((9, 12), (12, 13))),
        )
        assert [pack.before(0, p) for p in range(3)] == [2, 3, 4]
        assert pack.before(1, 0) == 2
        assert [pack.before(2, p) for p in range(2)] == [2, 5]
        assert [pack.before(3, p) for p in range(3)] == [6, 7, 8]
        assert pack.before(4, 0) == 11

    @pytest.mark.parametrize("seed", range(20))
    def test_each_sequence_stands_in_it(self, seed):
        draw = random.Random(seed)
        prompts = [tuple(draw.choices(range(9), k=draw.randint(1, 3))) for _ in range(4)]
        sequences = [(draw.choice(prompts), draw.choices(range(9), k=draw.randint(0, 4))) for _ in range(12)]
        pack = Pack.of(sequences)
        for number, ((prompt, response), span) in enumerate(zip(sequences, pack.spans, strict=True)):
            places = [*range(*span.prompt), *range(*span.own)]
            assert [pack.ids[i] for i in places] == [*prompt, *response]
            assert [pack.positions[i] for i in places] == list(range(len(places)))
            assert [pack.before(number, p) for p in range(len(response) + 1)] == places[len(prompt) - 1 :]
        used = Counter(i for span in {s.prompt for s in pack.spans} for i in range(*span))
        used += Counter(i for span in pack.spans for i in range(*span.own))
        assert used == Counter(range(len(pack.ids)))
        parted = sum(a[0] != b[0] for a, b in pairwise(sequences))
        assert len({s.prompt for s in pack.spans}) == 1 + parted


class TestPackedIsSingle:
    @pytest.mark.parametrize("family", FAMILIES)
    def test_in_every_family(self, family):
        model = wrapped(family)
        assert model.takes_packs == (family not in ("gemma2", "lfm2"))
        assert_packed_is_single(model)

    @pytest.mark.parametrize("what", OTHERS)
    def test_whatever_attention_does(self, what):
        model = other(*OTHERS[what])
        assert model.takes_packs
        assert_packed_is_single(model)

    @pytest.mark.parametrize("what", UNPACKABLE)
    def test_one_by_one_where_packs_are_not_taken(self, what):
        model = other(*UNPACKABLE[what], spread=0.1)  # a state sums up what rounds otherwise within fast_linear
        assert not model.takes_packs
        assert_packed_is_single(model)

    def test_a_prompt_whose_states_depend_on_what_follows_is_that_of_its_own_sequence(self):
        """Both responses follow one prompt, but one makes the row longer than the rotation was trained for."""
        model = other(*UNPACKABLE["rotation that changes with the length"])
        prompt, short, long = ids(8, 1), ids(3, 2), ids(20, 3)
        first, second = (alone(model, [(prompt, response)])[0] for response in (short, long))
        assert (first - second).abs().max() > 1e-3
        for sequences in ([(prompt, short), (prompt, long)], [(prompt, long), (prompt, short)]):
            assert_packed_is_single(model, sequences)

    @pytest.mark.parametrize("what", ["rope_scaling", "rope_parameters"])
    def test_a_rotation_that_is_stretched_as_rows_grow_takes_no_packs(self, what):
        model = wrapped(**{what: {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}})
        assert not model.takes_packs

    @pytest.mark.parametrize(
        "sequences",
        [
            [(ids(1, 1), ids(1, 2))],
            [(ids(30, 1), [])],
            [(ids(2, 1), ids(60, 2)), (ids(2, 1), ids(60, 3)), (ids(2, 1), ids(61, 4))],
            [(ids(5, i), ids(3, 50 + i)) for i in range(12)],
            [(ids(20, 1), ids(60, 2)), (ids(20, 1), ids(61, 3)), (ids(20, 1), ids(60, 4))],  # just with and without
        ],
        ids=["two tokens", "no response", "long responses", "no prompt twice", "at three times the prompt"],
    )
    @pytest.mark.parametrize("family", ["llama", "gpt2"])
    def test_of_every_form(self, family, sequences):
        model = wrapped(family)
        assert model.takes_packs
        assert_packed_is_single(model, sequences)

    def test_where_no_mask_may_be_made(self, monkeypatch):
        monkeypatch.setattr(attention, "MASK_ELEMENTS", 0)
        assert_packed_is_single(wrapped())

    def test_in_sixteen_bits_within_their_own_rounding(self):
        model = wrap_model(tiny_model().bfloat16(), name="half")
        assert model.takes_packs
        found, truth = packed(model, SEQUENCES), alone(model, SEQUENCES)
        assert found.dtype == torch.bfloat16
        exact = alone(wrapped(), SEQUENCES)  # but for its weights, which were rounded too
        assert (found.float() - truth.float()).abs().mean() < (truth.float() - exact).abs().mean() / 2
        torch.testing.assert_close(found.float(), truth.float(), atol=0.05, rtol=0.05)

    def test_places_in_any_order_and_more_than_once(self):
        places = [(6, 3), (0, 0), (3, 20), (6, 3), (1, 0)]
        where = [every_place(SEQUENCES).index(place) for place in places]
        for model in (wrapped(), wrapped("lfm2")):
            with torch.no_grad():
                found = states_before(model, Pack.of(SEQUENCES), places)
            torch.testing.assert_close(found, alone(model, SEQUENCES)[where], atol=1e-5, rtol=1e-5)


class TestItIsMeasured:
    @pytest.mark.parametrize(
        "leak",
        [
            lambda spans: [((0, spans[-1].own[1]), (0, 0))],
            lambda spans: [(s.own, (0, s.own[0])) for s in spans] + [(s.prompt, (0, s.prompt[0])) for s in spans],
            lambda spans: [(s.prompt, (0, 0)) for s in spans] + [(s.own, (s.own[0], s.own[0])) for s in spans],
        ],
        ids=["one long row", "all that stands before", "a response without its prompt"],
    )
    def test_attention_that_sees_what_it_should_not(self, monkeypatch, leak):
        monkeypatch.setattr(attention, "_attended", leak)
        model = wrapped()
        with torch.no_grad():
            wrong = packing._in_one_row(model, Pack.of(SEQUENCES), every_place(SEQUENCES))
        assert (wrong - alone(model, SEQUENCES)).abs().max() > 1e-3
        assert not model.takes_packs
        assert_packed_is_single(model)

    def test_positions_that_are_not_listened_to(self, monkeypatch):
        """As of an architecture that counts its tokens itself."""
        model = wrapped("gpt2")
        deaf = model.hf.base_model.forward
        monkeypatch.setattr(
            model.hf.base_model, "forward", lambda input_ids, position_ids=None, **o: deaf(input_ids, **o)
        )
        assert model.takes_positions
        assert not takes_packs(model)
        assert_packed_is_single(model)

    def test_states_that_are_not_numbers(self):
        """What is not a number is equal to nothing: such a model runs one by one, and scoring names the state."""
        model = wrapped()
        with torch.no_grad():
            model.hf.base_model.norm.weight[3] = torch.nan
        assert not model.takes_packs
        assert packed(model, SEQUENCES[:1]).isnan().any()

    def test_an_argument_of_attention_that_nobody_knows(self, monkeypatch):
        model = wrapped()
        attend = attention.attend
        interface = transformers.AttentionInterface
        interface.register(attention.ATTENTION, lambda *a, **o: attend(*a, **o | {"novel": torch.ones(1)}))
        try:
            assert not takes_packs(model)
        finally:
            interface.register(attention.ATTENTION, attend)
        assert takes_packs(model)

    def test_once_a_model(self, monkeypatch):
        model, measured = wrapped(), []
        monkeypatch.setattr("opd_diag.inference.model.takes_packs", lambda m: measured.append(m) or True)
        packed(model, SEQUENCES)
        packed(model, SEQUENCES)
        assert measured == [model]


class TestInSixteenBits:
    """Where rounding is as large as what a pack gets wrong."""

    @pytest.mark.parametrize(
        ("kind", "changes"),
        [
            UNPACKABLE["linear attention in some layers"],
            UNPACKABLE["attention that looks into its mask"],
            ("Lfm2", {"layer_types": ["conv", "full_attention"]}),
        ],
    )
    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
    def test_what_is_unpackable_stays_so(self, kind, changes, dtype):
        model = other(kind, changes, spread=0.05)
        model.hf.to(dtype)
        assert not takes_packs(model)

    @pytest.mark.parametrize("family", ["llama", "gpt2", "qwen3_moe"])
    def test_what_takes_packs_still_does_and_keeps_its_weights(self, family):
        model = wrap_model(tiny_model(family).bfloat16(), name="half")
        assert takes_packs(model)
        assert {p.dtype for p in model.hf.parameters()} == {torch.bfloat16}
        assert model.forwarded.tokens > 0


class TestNothingElseChanges:
    @pytest.mark.parametrize("implementation", ["sdpa", "eager"])
    def test_the_model_keeps_its_attention(self, implementation):
        hf = tiny_model("qwen3")
        hf.set_attn_implementation(implementation)
        model = wrap_model(hf, name="model")
        assert model.takes_packs
        packed(model, SEQUENCES)
        assert hf.config._attn_implementation == implementation
        assert_packed_is_single(model)

    def test_after_an_error_too(self):
        model = wrapped()
        assert model.takes_packs
        handle = model.hf.model.norm.register_forward_hook(_fail)
        with pytest.raises(ZeroDivisionError):
            packed(model, SEQUENCES)
        handle.remove()
        assert model.hf.config._attn_implementation == "sdpa"
        with pytest.raises(LookupError):
            attention._LAYOUT.get()
        assert_packed_is_single(model)

    def test_a_model_that_takes_no_packs_keeps_its_attention(self):
        for family in ("gemma2", "lfm2"):
            hf = tiny_model(family)
            before = hf.config._attn_implementation
            assert not wrap_model(hf, name=family).takes_packs
            assert hf.config._attn_implementation == before


class TestTokens:
    def test_a_pack_costs_its_tokens(self):
        model = wrapped()
        assert model.takes_packs
        before = model.forwarded.tokens
        packed(model, SEQUENCES)
        assert model.forwarded.tokens - before == 11 + 5 + 40 + 0 + 1 + 20 + 1 + 11 + 9 + 40 + 7 + 7

    def test_one_by_one_costs_every_prompt(self):
        model = wrapped("lfm2")
        assert not model.takes_packs
        before = model.forwarded.tokens
        packed(model, SEQUENCES)
        assert model.forwarded.tokens - before == sum(len(p) + len(r) for p, r in SEQUENCES)

    def test_the_measurement_is_small_and_counted(self):
        model = wrapped()
        assert model.forwarded.tokens == 0
        assert takes_packs(model)
        assert 0 < model.forwarded.tokens < 100
        assert replace(model).forwarded is model.forwarded


def _fail(*_):
    raise ZeroDivisionError
