"""Tiny language models: their shapes, and how they are written to disk."""

from dataclasses import dataclass
from pathlib import Path

import torch
from transformers import (
    AutoModelForCausalLM,
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from opd_diag.lab.tokenizer import save_tokenizer


@dataclass(frozen=True)
class Shape:
    """The shape of a tiny Qwen3 model with tied embeddings.

    Attributes
    ----------
    layers, width, inner_width : int
        Number of blocks, size of the hidden state, size inside the feed-forward part.
    heads, head_width : int
        Query heads and their size; there are half as many key-value heads.
    """

    layers: int
    width: int
    inner_width: int
    heads: int = 4
    head_width: int = 32


STUDENT_SHAPE = Shape(layers=2, width=64, inner_width=96)
TEACHER_SHAPE = Shape(layers=2, width=88, inner_width=176)


def build_model(shape: Shape, tokenizer: PreTrainedTokenizerBase, seed: int) -> PreTrainedModel:
    """Make a model with random weights in float32.

    Parameters
    ----------
    shape : Shape
        How big it is.
    tokenizer : PreTrainedTokenizerBase
        Gives the size of the vocabulary, the pad token and the stop token.
    seed : int
        Of the weights.

    Returns
    -------
    PreTrainedModel
        A `Qwen3ForCausalLM`.
    """
    config = Qwen3Config(
        vocab_size=len(tokenizer),
        hidden_size=shape.width,
        intermediate_size=shape.inner_width,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=max(1, shape.heads // 2),
        head_dim=shape.head_width,
        max_position_embeddings=128,
        tie_word_embeddings=True,
        initializer_range=0.05,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    torch.manual_seed(seed)
    return Qwen3ForCausalLM(config)


def save_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> None:
    """Write a model in bfloat16 and its tokenizer, as one folder that the Auto classes load.

    The model itself is rounded to bfloat16 by this; load it again for work in float32.
    """
    model.generation_config = GenerationConfig(
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, do_sample=True
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)  # safetensors lets the owner alone read it; these files are shipped
    save_tokenizer(tokenizer, folder)


def load_model(folder: Path) -> PreTrainedModel:
    """Load a model in float32, ready for evaluation."""
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
