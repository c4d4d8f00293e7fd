"""The heads alone: one pass over the vocabulary against the matrix products in it, and the exact top tokens."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from benchmarks.models import Shape
from opd_diag.inference.head import Head
from opd_diag.inference.linear import linear
from opd_diag.inference.onepass import OnePass
from opd_diag.metrics import topk

STATES = 512
KEPT = 128


def fastest(run: Callable[[], object], repeats: int = 4) -> float:
    """Give the seconds of the fastest of some runs, after one that does not count."""
    run()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times)


@torch.inference_mode()
def report_head(shape: Shape) -> None:
    """Print what the pass costs beyond its two matrix products, and how exact it is."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(STATES, shape.width, generator=generator)
    weights = [torch.randn(shape.vocabulary, shape.width, generator=generator) * 0.06]
    weights.append(weights[0] * 0.5 + torch.randn(shape.vocabulary, shape.width, generator=generator) * 0.05)
    heads = [Head(weight, None, 1.0, None) for weight in weights]
    one_pass = OnePass(heads[0], heads[1], shape.vocabulary, k=KEPT)

    def everything() -> None:
        for start in range(0, STATES, one_pass.rows):
            block = hidden[start : start + one_pass.rows]
            one_pass.load(block, block)
            one_pass.sums()

    def plain(product: Callable[[Tensor, Tensor], Tensor], rows: int) -> Callable[[], None]:
        def run() -> None:
            for start in range(0, STATES, rows):
                for weight in weights:
                    product(hidden[start : start + rows], weight)

        return run

    ours = fastest(everything)
    by_torch = fastest(plain(lambda h, w: h @ w.T, 256))
    by_onednn = min(fastest(plain(linear, rows)) for rows in (one_pass.rows, 256))
    print(
        f"head, everything: {ours / STATES * 1e3:.3f} ms a state = {ours / by_torch:.2f} × the two plain products "
        f"by torch ({by_torch / STATES * 1e3:.3f}), {ours / by_onednn:.2f} × the same by oneDNN "
        f"({by_onednn / STATES * 1e3:.3f}); blocks of {one_pass.rows} states, tiles of {one_pass.width} ids"
    )
    _report_exactness(one_pass, heads, hidden[: one_pass.rows])
    logits = torch.randn(64, shape.vocabulary, generator=generator)
    for k in (32, 128):
        theirs, mine = (fastest(partial(find, logits, k)) for find in (torch.topk, topk))
        print(f"exact top-{k}: {theirs / mine:.2f} × as fast as torch.topk ({mine / 64 * 1e6:.0f} µs a state)")


def _report_exactness(one_pass: OnePass, heads: list[Head], hidden: Tensor) -> None:
    """Print the largest difference from float64 sums over float64 products of the same hidden states and heads."""
    one_pass.load(hidden, hidden)
    sums = one_pass.sums()
    p, q = ((hidden.double() @ head.weight.double().T).log_softmax(-1) for head in heads)
    true = {
        "student entropy": (sums.student_entropy, -(p.exp() * p).sum(-1)),
        "teacher entropy": (sums.teacher_entropy, -(q.exp() * q).sum(-1)),
        "reverse KL": (sums.reverse_kl, (p.exp() * (p - q)).sum(-1)),
        "forward KL": (sums.forward_kl, (q.exp() * (q - p)).sum(-1)),
    }
    worst = {name: float((found - expected).abs().max()) for name, (found, expected) in true.items()}
    print("largest error, nats: " + ", ".join(f"{name} {error:.1e}" for name, error in worst.items()))
    if max(worst.values()) > 1e-5:
        raise AssertionError(f"An error exceeds 1e-5 nats: {worst}.")
