"""How large a model is, told from its config: no weight is read."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

from opd_diag.errors import CheckpointError
from opd_diag.inference.configs import read_config
from opd_diag.inference.libraries import errors_of, quiet
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.runs.shapes import config_source

_ACTIVE = ("num_experts_per_tok", "num_experts_per_token", "moe_topk")
_EXPERTS = ("num_experts", "num_local_experts", "n_routed_experts")
"""How configs call how many experts a token passes, and how many there are."""


@dataclass(frozen=True)
class ModelSize:
    """Sizes that decide what a token costs."""

    config: Any = field(compare=False, repr=False)
    """The transformers config of the language model."""
    layers: int
    fewest_layers: int
    """So many of the first have one of each kind."""
    width: int
    """Of a hidden state, d."""
    vocabulary: int
    """Rows of the head, V."""
    parameters: int
    """All weights, those used twice counted once."""
    body: int
    """Weights of the body that a token is multiplied with: no embeddings, and of experts only those it passes."""
    attention: int
    """Floating-point operations a token needs for each token that it sees."""
    largest: int = 0
    """Numbers in the largest tensor of the body, embeddings apart."""
    inner: int = 0
    """Most numbers that a token has within a layer."""
    cached: int = 0
    """Numbers that a token leaves in the key–value cache if every layer keeps all tokens."""
    trust_remote_code: bool = False
    """Whether code that comes with the model may run."""

    def body_flop(self, tokens: float, seen: float) -> float:
        """Give the floating-point operations of so many tokens through the body, each seeing so many on average."""
        return tokens * (2 * self.body + self.attention * seen)

    @property
    def head_flop(self) -> int:
        """Floating-point operations of one state's logits."""
        return 2 * self.width * self.vocabulary


def model_size(checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> ModelSize:
    """Read the config of a checkpoint, of an adapter that of its base model, and count.

    Raises
    ------
    CheckpointError
        The config cannot be read, or transformers does not know the architecture.
    """
    with quiet(), errors_of(checkpoint):
        config = read_config(config_source(checkpoint), trust_remote_code=trust_remote_code)
        return size_of_config(config.get_text_config(), trust_remote_code=trust_remote_code)


def limits_of(checkpoint: Checkpoint, *, trust_remote_code: bool = False) -> tuple[int | None, int | None]:
    """Give the number of ids and the most tokens that a model takes, by its config; None where that does not tell."""
    if checkpoint.kind == "served":
        return None, None
    try:
        with quiet(), errors_of(checkpoint):
            config = read_config(config_source(checkpoint), trust_remote_code=trust_remote_code).get_text_config()
    except CheckpointError:  # that it cannot be loaded is said when it is
        return None, None
    return getattr(config, "vocab_size", None), getattr(config, "max_position_embeddings", None)


def size_of_config(config: Any, *, trust_remote_code: bool = False) -> ModelSize:
    """Count what a model of this config would hold."""
    with torch.device("meta"):
        model = _from_config(copy.deepcopy(config), trust_remote_code)
    head = model.get_output_embeddings()
    heads = int(getattr(config, "num_attention_heads", None) or 0)
    width = int(head.weight.shape[1]) if head is not None else int(config.hidden_size)
    head_dim = int(getattr(config, "head_dim", None) or (width // heads if heads else 0))
    key_heads = int(getattr(config, "num_key_value_heads", None) or heads)
    shapes = [p.shape for _, p in _matrices(model)]
    return ModelSize(
        config=config,
        layers=int(config.num_hidden_layers),
        fewest_layers=_fewest_layers(config),
        width=width,
        vocabulary=int(head.weight.shape[0]) if head is not None else int(config.vocab_size),
        parameters=sum(p.numel() for p in model.parameters()),
        body=_active_weights(model, config),
        attention=4 * int(config.num_hidden_layers) * heads * head_dim,
        largest=max((shape.numel() for shape in shapes), default=0),
        inner=max((max(shape[-2:]) for shape in shapes), default=width),
        cached=2 * int(config.num_hidden_layers) * key_heads * head_dim,
        trust_remote_code=trust_remote_code,
    )


def with_layers(size: ModelSize, layers: int, vocabulary: int, dtype: torch.dtype, device: torch.device) -> Any:
    """Make a transformers model with random weights that is like this one but for how many layers and tokens it has.

    The random numbers of others are left as they are.
    """
    config = copy.deepcopy(size.config)
    config.num_hidden_layers, config.vocab_size = layers, vocabulary
    if getattr(config, "layer_types", None):
        config.layer_types = config.layer_types[:layers]
    config.pad_token_id = config.bos_token_id = config.eos_token_id = None
    with quiet(), torch.random.fork_rng(devices=[]), torch.device(device):
        return _from_config(config, size.trust_remote_code, dtype=dtype).eval()


def _from_config(config: Any, trust_remote_code: bool, **options: Any) -> Any:
    return transformers.AutoModelForCausalLM.from_config(config, trust_remote_code=trust_remote_code, **options)


def _fewest_layers(config: Any) -> int:
    kinds = list(getattr(config, "layer_types", None) or ["all are alike"])
    return 1 + max(kinds.index(kind) for kind in {*kinds})


def _active_weights(model: Any, config: Any) -> int:
    share = _share_of_experts(config)
    return round(sum(p.numel() * (share if ".experts." in name else 1.0) for name, p in _matrices(model)))


def _matrices(model: Any) -> list[tuple[str, torch.Tensor]]:
    """Give the matrices of the body with their names; embeddings are left out, and a head that is one of them."""
    tables = [module for module in model.modules() if isinstance(module, torch.nn.Embedding)]
    left_out = {id(module.weight) for module in (*tables, model.get_output_embeddings()) if module is not None}
    named = model.base_model.named_parameters()
    return [(name, p) for name, p in named if p.dim() > 1 and id(p) not in left_out]


def _share_of_experts(config: Any) -> float:
    active = next((getattr(config, name) for name in _ACTIVE if getattr(config, name, None)), 1)
    experts = next((getattr(config, name) for name in _EXPERTS if getattr(config, name, None)), 1)
    return min(1.0, int(active) / int(experts))
