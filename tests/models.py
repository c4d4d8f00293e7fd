"""Tiny random models and tokenizers, each a stand-in for a family that a user may bring."""

from __future__ import annotations

from pathlib import Path

import torch
import transformers
from tokenizers import AddedToken, decoders, models, pre_tokenizers, processors
from tokenizers import Tokenizer as RawTokenizer

from opd_diag.inference import Model, wrap_model
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.rollout import Provenance, Rollout
from opd_diag.tokenization import Tokenizer

V = 160
"""Vocabulary of a tiny model: larger than the last k of the concentration curve."""

CONTEXT = 96
"""Most tokens that a tiny model takes."""

_SIZES = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
    "pad_token_id": None,
    "bos_token_id": 1,
    "eos_token_id": 2,
}

_FAMILIES = {
    "llama": (transformers.LlamaConfig, _SIZES),
    # Tied weights: the head is the embedding.
    "qwen3": (transformers.Qwen3Config, _SIZES | {"head_dim": 8, "tie_word_embeddings": True}),
    # Soft-capped logits, scaled embeddings, sliding windows shorter than the sequences.
    "gemma2": (
        transformers.Gemma2Config,
        _SIZES
        | {
            "head_dim": 8,
            "query_pre_attn_scalar": 8,
            "final_logit_softcapping": 3.0,
            "sliding_window": 6,
            "attn_implementation": "eager",
        },
    ),
    # Learned positions: a wrong position id is a wrong number.
    "gpt2": (
        transformers.GPT2Config,
        {
            "n_embd": 32,
            "n_layer": 2,
            "n_head": 4,
            "n_positions": CONTEXT,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "resid_pdrop": 0.5,  # wrong numbers if the model were left in training mode
        },
    ),
    # A head with a bias.
    "phi": (transformers.PhiConfig, {k: v for k, v in _SIZES.items() if k != "num_key_value_heads"}),
    # Divides its logits.
    "granite": (
        transformers.GraniteConfig,
        _SIZES | {"logits_scaling": 2.0, "embedding_multiplier": 2.0, "attention_multiplier": 0.3},
    ),
    # Multiplies its logits.
    "cohere": (transformers.CohereConfig, _SIZES | {"logit_scale": 0.5}),
    # Mixture of experts.
    "qwen3_moe": (
        transformers.Qwen3MoeConfig,
        _SIZES
        | {
            "head_dim": 8,
            "moe_intermediate_size": 16,
            "num_experts": 4,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
        },
    ),
    # Layers without attention, whose cache is a state and not a list of keys.
    "lfm2": (transformers.Lfm2Config, _SIZES | {"layer_types": ["conv", "full_attention"]}),
}

FAMILIES = tuple(_FAMILIES)
"""Names that :func:`tiny_model` knows."""


def tiny_model(family: str = "llama", *, vocabulary: int = V, seed: int = 0, spread: float = 0.3, **changes):
    """Make a transformers model of a family with random weights, biases and norms (never zeros, never ones)."""
    cls, sizes = _FAMILIES[family]
    config = cls(**{"vocab_size": vocabulary, **sizes, **changes})
    model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation=config._attn_implementation)
    model.generation_config = transformers.GenerationConfig(eos_token_id=config.eos_token_id)
    randomise(model, seed=seed, spread=spread)
    return model.eval()


@torch.no_grad()
def randomise(model, *, seed: int = 0, spread: float = 0.3) -> None:
    """Draw every parameter: matrices around 0, norms around what they were, biases too."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.dim() > 1:
            parameter.copy_(spread * noise)
        else:
            parameter.add_(0.2 * noise)


def wrapped(
    family: str = "llama", *, name: str = "model", label: str = "", step: int | None = None, **changes
) -> Model:
    """Give a tiny model as the inference room takes it."""
    return wrap_model(tiny_model(family, **changes), name=name, label=label, step=step)


def rollout(
    prompt_ids,
    response_ids,
    *,
    teacher_prompt_ids=None,
    stop_reason="stop",
    generated=None,
    prompt_index=0,
    rollout_index=0,
) -> Rollout:
    """Make a recorded rollout of ids."""
    return Rollout(
        prompt_index=prompt_index,
        rollout_index=rollout_index,
        prompt_id=f"p{prompt_index}",
        group=None,
        prompt_ids=tuple(prompt_ids),
        teacher_prompt_ids=tuple(prompt_ids if teacher_prompt_ids is None else teacher_prompt_ids),
        response_ids=tuple(response_ids),
        stop_reason=stop_reason,
        provenance=Provenance("recorded", "step 0", "", 0, 1.0, 1.0, 0),
        generated=generated,
    )


RAGGED = ((1, 7), (12, 20), (5, 1), (30, 3), (3, 30), (9, 9))
"""(prompt, response) lengths of responses that fit into no common frame."""


def random_rollouts(lengths, *, vocabulary: int = V, seed: int = 0, **about) -> list[Rollout]:
    """Make one rollout of random ids for each (prompt length, response length); every other one is truncated."""
    generator = torch.Generator().manual_seed(seed)

    def ids(n: int) -> list[int]:
        return torch.randint(0, vocabulary, (n,), generator=generator).tolist()

    reasons = ("stop", "length")
    return [
        rollout(ids(prompt), ids(response), prompt_index=i, stop_reason=reasons[i % 2], **about)
        for i, (prompt, response) in enumerate(lengths)
    ]


WORDS = ("the", "a", "cat", "dog", "sat", "ran", "on", "mat", ".", "?", "user", "assistant", "system", "answer", "is")

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""A template in the manner of Qwen; it brings no BOS."""


def word_tokenizer(*, words=WORDS, adds_bos=False, template: str | None = None, **changes) -> Tokenizer:
    """Make a tokenizer with one id a word: <unk> 0, <s> 1, </s> 2, then numbers 0 to 20, then `words`."""
    entries = ["<unk>", "<s>", "</s>", *map(str, range(21)), *words]
    raw = RawTokenizer(models.WordLevel({w: i for i, w in enumerate(entries)}, unk_token="<unk>"))
    raw.pre_tokenizer = pre_tokenizers.Whitespace()
    specials = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"} | changes
    return _finished(raw, specials, adds_bos, template)


def byte_tokenizer(
    *, merges=(("Ġ", "c"), ("Ġc", "at"), ("a", "t")), adds_bos=False, template: str | None = None, extra=()
) -> Tokenizer:
    """Make a byte-level BPE tokenizer: the 256 bytes, merges, then <s>, </s>, <|im_start|>, <|im_end|> and `extra`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    ordered = sorted(merges, key=lambda pair: len("".join(pair)))
    vocabulary = {token: i for i, token in enumerate([*alphabet, *("".join(pair) for pair in ordered)])}
    raw = RawTokenizer(models.BPE(vocabulary, list(ordered)))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.add_special_tokens([AddedToken(t, special=True) for t in ("<s>", "</s>", "<|im_start|>", "<|im_end|>", *extra)])
    return _finished(raw, {"bos_token": "<s>", "eos_token": "</s>"}, adds_bos, template)


def sentencepiece_tokenizer(pieces=("▁the", "▁cat", "s", "cat", "the"), **changes) -> Tokenizer:
    """Make a tokenizer in the manner of Llama 2: ▁ stands for a space, bytes have tokens of their own."""
    specials = ["<unk>", "<s>", "</s>"]
    entries = [*specials, *(f"<0x{b:02X}>" for b in range(256)), "▁", *"thecasd", *pieces]
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(entries))}
    merges = [("t", "h"), ("th", "e"), ("▁", "the"), ("c", "a"), ("ca", "t"), ("▁", "cat")]
    for pair in merges:
        vocabulary.setdefault("".join(pair), len(vocabulary))
    raw = RawTokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    raw.pre_tokenizer = pre_tokenizers.Metaspace()
    raw.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    raw.add_special_tokens([AddedToken(t, special=True) for t in specials])
    return _finished(raw, {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"} | changes, False, None)


def _finished(raw: RawTokenizer, specials: dict, adds_bos: bool, template: str | None) -> Tokenizer:
    if adds_bos:
        raw.post_processor = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", raw.token_to_id("<s>"))]
        )
    hf = transformers.PreTrainedTokenizerFast(
        tokenizer_object=raw, clean_up_tokenization_spaces=False, chat_template=template, **specials
    )
    return Tokenizer(hf, "tiny tokenizer")


def save(folder: Path, model, tokenizer: Tokenizer | None = None, **options) -> Path:
    """Write a model, and a tokenizer beside it, as a trainer would; give the folder."""
    model.save_pretrained(folder, **options)
    if tokenizer is not None:
        tokenizer.hf.save_pretrained(folder)
    return Path(folder)


def checkpoint(folder: Path, *, base: Path | None = None, **changes) -> Checkpoint:
    """Describe a folder of full weights, or of an adapter on `base`."""
    about = {"label": "step 10", "step": 10, "kind": "full" if base is None else "adapter"}
    return Checkpoint(path=folder, base_model=None if base is None else str(base), **{**about, **changes})
