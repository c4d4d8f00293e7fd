"""Drawing one token from logits with a given uniform number, so that equal numbers draw equal tokens.

The cumulative distribution is inverted exactly, but not summed up token by token: weights e^(x - max) are summed in
blocks of the vocabulary, the blocks' sums are cumulated in float64, and only the block that the number falls into is
cumulated itself. That reads the vocabulary three times in float32, where the plain way goes six times over doubles.
"""

from __future__ import annotations

import torch
from torch import Tensor

from opd_diag.metrics.topk import topk

BLOCK = 128
"""Vocabulary entries whose weights are summed before they are cumulated."""

CANDIDATES = 128
"""Most probable tokens among which the nucleus of top-p is looked for first."""

PART_BYTES = 2**20
"""Memory for the weights of the rows that are drawn at a time on a CPU, whose caches hold as much."""


def tempered_logprobs(logits: Tensor, temperature: float) -> Tensor:
    """Give log-probabilities at a temperature; at 0 (greedy) those at 1."""
    return (logits / temperature if temperature > 0 else logits).log_softmax(-1)


def draw(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    """Draw one id a row by inverting the cumulative distribution.

    Parameters
    ----------
    logits
        (rows, V) float32.
    uniforms
        (rows,) float64, each in [0, 1).
    temperature
        Logits are divided by it; 0 takes the most probable token.
    top_p
        Below 1, only the fewest most probable tokens that hold this much are drawn from. Of equal ones the lower ids
        are more probable.

    Returns
    -------
    ids, logprobs
        (rows,) each; log-probabilities are those before top-p, and NaN where logits are NaN or +inf, or all -inf. A
        token of probability zero is never drawn.
    """
    rows = max(1, PART_BYTES // (4 * logits.shape[-1])) if logits.device.type == "cpu" else len(logits)
    parts = zip(logits.split(rows), uniforms.split(rows), strict=True)
    drawn = [_draw(x, u.double().unsqueeze(-1), temperature, top_p) for x, u in parts]
    ids, logprobs = zip(*drawn, strict=True)
    return torch.cat(ids), torch.cat(logprobs)


def _draw(logits: Tensor, uniforms: Tensor, temperature: float, top_p: float) -> tuple[Tensor, Tensor]:
    divisor = temperature if temperature > 0 else 1.0
    top = logits.amax(-1, keepdim=True)
    weights = _weights(logits, top, divisor)
    sums = weights.sum(-1).double()
    total = sums.sum(-1, keepdim=True)
    if temperature == 0:
        ids = logits.argmax(-1, keepdim=True)
    elif top_p < 1:
        ids = _from_nucleus(logits, weights, top_p * total, uniforms)
    else:
        ids = _from_all(weights, sums, uniforms, logits.shape[-1])
    logprobs = (logits.gather(-1, ids).double() - top) / divisor - total.log()
    return ids.squeeze(-1), logprobs.float().squeeze(-1)


def _weights(logits: Tensor, top: Tensor, divisor: float) -> Tensor:
    """Give (rows, blocks, BLOCK) weights in float32, 1 for the most probable token; zeros fill the last block."""
    rows, size = logits.shape
    weights = logits.new_empty(rows, -(-size // BLOCK) * BLOCK)
    weights[:, size:] = 0.0
    used = torch.sub(logits, top, out=weights[:, :size])
    if divisor != 1.0:
        used.div_(divisor)
    used.exp_()
    return weights.unflatten(-1, (-1, BLOCK))


def _from_all(weights: Tensor, sums: Tensor, uniforms: Tensor, size: int) -> Tensor:
    cumulative = sums.cumsum(-1)
    target = uniforms * cumulative[:, -1:]
    block = _invert(cumulative, target)
    before = torch.nn.functional.pad(cumulative, (1, 0)).gather(-1, block)
    inside = weights.gather(1, block.unsqueeze(-1).expand(-1, 1, BLOCK)).squeeze(1).double()
    # NaN falls past the last block, which may be a part of one.
    return (block * BLOCK + _invert(inside.cumsum(-1), target - before)).clamp_(max=size - 1)


def _from_nucleus(logits: Tensor, weights: Tensor, mass: Tensor, uniforms: Tensor) -> Tensor:
    """Draw from the fewest most probable tokens that hold `mass`: looked for among a few, and if need be among all."""
    order = topk(logits, min(CANDIDATES, logits.shape[-1]))[1]
    kept = weights.flatten(1).gather(-1, order).double()
    cumulative = kept.cumsum(-1)
    kept[cumulative - kept >= mass] = 0.0  # the token that crosses it still belongs
    by_id, places = order.sort(dim=-1)
    inside = kept.gather(-1, places).cumsum(-1)
    ids = by_id.gather(-1, _invert(inside, uniforms * inside[:, -1:]))
    wide = ~(cumulative[:, -1:] >= mass).squeeze(-1)
    if wide.any():
        nucleus = _nucleus(weights[wide], mass[wide])
        ids[wide] = _from_all(nucleus, nucleus.sum(-1).double(), uniforms[wide], logits.shape[-1])
    return ids


def _nucleus(weights: Tensor, mass: Tensor) -> Tensor:
    """Give the weights with all outside the nucleus set to 0.

    Positive floats are ordered as their bits are. So the smallest weight that belongs is found ten bits at a time: what
    the weights with the same bits so far hold is summed up by their next ones. Sorting would cost five times as much.
    """
    flat = weights.flatten(1)
    bits, double = flat.view(torch.int32), flat.double()
    found, above = torch.zeros_like(mass, dtype=torch.int32), torch.zeros_like(mass)
    for shift in (20, 10, 0):  # weights are 1 at most, so their two highest bits are 0
        digits = ((bits >> shift) & 1023).long()
        alike = torch.where(bits >> (shift + 10) == found, double, 0.0)
        held = double.new_zeros(len(flat), 1024).scatter_add_(-1, digits, alike).flip(-1).cumsum(-1) + above
        place = (held < mass).sum(-1, keepdim=True).clamp_(max=1023)  # digits from 1023 down that do not hold enough
        above = torch.cat([above, held], dim=-1).gather(-1, place)
        found = (found << 10) | (1023 - place).int()
    last = found.view(torch.float32)
    equal = flat == last
    wanted = ((mass - above) / last).ceil()  # of equal tokens the lower ids come first
    return torch.where((flat > last) | (equal & (equal.cumsum(-1) <= wanted)), flat, 0.0).view_as(weights)


def _invert(cumulative: Tensor, target: Tensor) -> Tensor:
    """Give the first place whose cumulative sum exceeds the target, which rounding must not carry past the last."""
    last = cumulative[:, -1:]
    below = torch.minimum(target, last.nextafter(torch.zeros_like(last)))
    return torch.searchsorted(cumulative, below, right=True).clamp_(max=cumulative.shape[-1] - 1)
