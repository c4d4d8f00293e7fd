"""Whether intervals cover and tests hold their level, and what ten thousand resamplings cost.

``python -m benchmarks.statistics`` prints every grid; ``--draws 200`` looks sooner and less closely.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator

import numpy as np
from scipy.special import ndtr
from scipy.stats import rankdata

from benchmarks.memory import PeakMemory
from benchmarks.simulated import CHANGE, TAILS, Floats, Tail, curves, truth, two_checkpoints
from opd_diag import stats

PROMPTS = (10, 20, 50, 200)
DELTA = 0.1


def main() -> None:
    """Print all grids."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=2000, help="simulated samples a cell")
    draws = parser.parse_args().draws
    for part in (coverage, bands, trends, equivalences, change_points, cost):
        began = time.perf_counter()
        part(draws)
        print(f"\n({part.__name__}: {time.perf_counter() - began:.0f} s)\n", flush=True)


def coverage(draws: int) -> None:
    """How often 95 % intervals hold the truth, and how often they are called approximate."""
    heading("95 % intervals", "tails", "prompts", "mean", "approximate", "tokens alone", "difference", "jackknife")
    for tail in TAILS:
        for prompts in PROMPTS:
            rng = np.random.default_rng(prompts)
            hits = np.mean([_covered(rng, tail, prompts) for _ in range(draws)], axis=0)
            row(tail.name, prompts, *hits)


def _covered(rng: np.random.Generator, tail: Tail, prompts: int) -> list[bool]:
    first, second, of = two_checkpoints(rng, tail, prompts)
    mean = stats.clustered_mean(first, of)
    tokens = stats.clustered_mean(first, np.arange(len(of)))
    moved = stats.clustered_mean_difference(first, of, second, of)
    without = _left_out(first, of)
    jackknife = stats.clustered_jackknife(mean.value, without, n=len(of))
    inside = [e.ci_low <= truth(tail) <= e.ci_high for e in (mean, tokens, jackknife)]
    return [inside[0], mean.is_approximate, inside[1], moved.ci_low <= CHANGE <= moved.ci_high, inside[2]]


def _left_out(values: Floats, of: np.ndarray) -> Floats:
    tops, totals = np.bincount(of, weights=values), np.bincount(of)
    return (tops.sum() - tops) / (totals.sum() - totals)


def bands(draws: int) -> None:
    """How often the band holds a whole curve of ten checkpoints, and how often ten intervals do."""
    heading("Bands over ten checkpoints", "tails", "prompts", "band", "ten intervals")
    for heavy in (False, True):
        for prompts in PROMPTS:
            hits, rng = [], np.random.default_rng(prompts)
            resampling = stats.Resampling(range(prompts), draws=1000)
            for _ in range(draws // 4):
                values, _ = curves(rng, np.zeros(10), prompts, heavy=heavy)
                points = stats.clustered_means(values, range(prompts))
                low, high = stats.simultaneous_band(points, resampling.means(values, range(prompts)))
                at_once = all(e.ci_low <= 0 <= e.ci_high for e in points)
                hits.append([bool(((low <= 0) & (high >= 0)).all()), at_once])
            row("heavy" if heavy else "light", prompts, *np.mean(hits, axis=0))


def trends(draws: int) -> None:
    """How often a trend is found where there is none, but checkpoints with effects of their own."""
    names = ("falls", "rises or falls", "change alone", "Page")
    heading(f"Trends found where there is none, delta = {DELTA}", "checkpoints", "effect / delta", *names)
    for checkpoints in (3, 4, 5, 8, 12):
        for size in (0.0, 0.5, 1.0, 2.0):
            row(checkpoints, size, *_trends_found(draws, checkpoints, lambda c, rng, s=size: _scatter(c, rng, s)))
    for checkpoints in (5, 8):
        row(checkpoints, "wanders", *_trends_found(draws, checkpoints, _walk))
    for checkpoints in (4, 5, 8):
        row(checkpoints, "true fall", *_trends_found(draws, checkpoints, _fall))


def _scatter(checkpoints: int, rng: np.random.Generator, size: float) -> Floats:
    return rng.normal(scale=size * DELTA, size=checkpoints)


def _walk(checkpoints: int, rng: np.random.Generator) -> Floats:
    return np.cumsum(rng.normal(scale=DELTA, size=checkpoints))


def _fall(checkpoints: int, rng: np.random.Generator) -> Floats:
    return np.linspace(0, -10 * DELTA, checkpoints) + _scatter(checkpoints, rng, 1.0)


def _trends_found(draws: int, checkpoints: int, means: Callable[[int, np.random.Generator], Floats]) -> Floats:
    """Shares of: a fall found when one is asked for; any when none is; a change alone; Page's test over prompts."""
    found, rng, of = [], np.random.default_rng(checkpoints), np.arange(50)
    for _ in range(draws):
        values, _ = curves(rng, means(checkpoints, rng), len(of))
        change = stats.clustered_mean_difference(values[:, 0], of, values[:, -1], of)
        asked, open_ended = (stats.trend(values.mean(0), change, delta=DELTA, direction=d) for d in (-1, 0))
        changed = change.ci_high < -DELTA or change.ci_low > DELTA
        found.append([asked.outcome == "falls", open_ended.sign != 0, changed, page_p(-values) <= 0.05])
    return np.mean(found, axis=0)


def page_p(values: Floats) -> float:
    """p-value of Page's test that later columns are higher, prompts as blocks; its normal approximation."""
    blocks, places = values.shape
    score = float((rankdata(values, axis=1).sum(0) * np.arange(1, places + 1)).sum())
    mean = blocks * places * (places + 1) ** 2 / 4
    variance = blocks * places**2 * (places + 1) * (places**2 - 1) / 144
    return float(ndtr(-(score - mean) / np.sqrt(variance)))


def equivalences(draws: int) -> None:
    """How often equality within delta is claimed where the truth is delta itself."""
    names = ("of these two", "of a pair", "plateau of 4", "plateau of 8", "truth 0: of a pair", "plateau of 8")
    heading("'Equivalent' claimed at a true difference of delta", "prompts", "effect / delta", *names)
    for prompts in (10, 50, 200):
        for size in (0.0, 0.5, 1.0):
            rng = np.random.default_rng(prompts)
            row(prompts, size, *np.mean([_equivalents(rng, prompts, size) for _ in range(draws)], axis=0))


def _equivalents(rng: np.random.Generator, prompts: int, size: float) -> list[bool]:
    """Claims about: the difference of these two checkpoints; of two like them; the drift of four and of eight."""
    said = []
    for level in (DELTA, 0.0):
        values, effects = curves(rng, [0.0, level], prompts, shared=size * DELTA)
        these = values - effects  # their own difference is then exactly `level`
        said += [_pair(these), _pair(values), _plateau(rng, 4, level, prompts, size)]
        said.append(_plateau(rng, 8, level, prompts, size))
    return [*said[:4], said[5], said[7]]


def _pair(values: Floats) -> bool:
    of = range(len(values))
    change = stats.clustered_mean_difference(values[:, 0], of, values[:, 1], of)
    return stats.equivalence(change, DELTA).outcome == "equivalent"


def _plateau(rng: np.random.Generator, checkpoints: int, level: float, prompts: int, size: float) -> bool:
    values, _ = curves(rng, np.linspace(0, level, checkpoints), prompts, shared=size * DELTA)
    places, of = range(checkpoints), np.arange(prompts)
    samples = [(values[:, [i]], of) for i in places]
    drift = stats.clustered_contrasts(samples, stats.plateau_weights(places).tolist())[0]
    return stats.plateau(places, values.mean(0), drift, DELTA).outcome == "equivalent"


def change_points(draws: int) -> None:
    """How often a change of level is found where there is none; and where there is one, how often it is located."""
    names = ("none there", "effects, not asked", "effects, asked", "one there", "location held", "one there, asked")
    heading("Change points in curves of eight", "tails", "prompts", *names)
    for heavy in (False, True):
        for prompts in PROMPTS:
            rng, resampling = np.random.default_rng(prompts), stats.Resampling(range(prompts), draws=1000)
            found = np.array([list(_changes(rng, resampling, heavy)) for _ in range(draws // 4)])
            share = found.mean(axis=0)
            row("heavy" if heavy else "light", prompts, *share[:4], share[4] / max(share[3], 1e-9), share[5])


def _changes(rng: np.random.Generator, resampling: stats.Resampling, heavy: bool) -> Iterator[bool]:
    """Find changes in level curves, in curves with effects of their own, and in curves that change before point 5."""
    of, level, step = np.arange(len(resampling.labels)), np.zeros(8), np.repeat([0.2, 0.0], [5, 3])
    for means, shared, asked in ((level, 0, False), (level, DELTA, False), (level, DELTA, True), (step, 0, False)):
        values, _ = curves(rng, means, len(of), shared=shared, heavy=heavy)
        found = stats.change_point(values.mean(0), resampling.means(values, of), len(of), shared_effects=asked)
        yield found.location is not None
        if means is step:
            yield found.location is not None and found.location_low <= 5 <= found.location_high  # type: ignore[operator]
    values, _ = curves(rng, 5 * step, len(of), shared=DELTA, heavy=heavy)
    drawn = resampling.means(values, of)
    yield stats.change_point(values.mean(0), drawn, len(of), shared_effects=True).location is not None


def cost(_: int) -> None:
    """Time 10,000 resamplings of 40 metrics at 10 steps with 500 prompts of 100 states."""
    rng, prompts = np.random.default_rng(0), np.repeat(np.arange(500), 100)
    tables = [rng.random((len(prompts), 40)) for _ in range(10)]
    with PeakMemory() as memory:
        began, before = time.perf_counter(), memory.peak
        resampling = stats.Resampling(prompts, draws=10_000)
        drawn = time.perf_counter()
        sums = [resampling.sums(table, prompts) for table in tables]
        summed = time.perf_counter()
        tops, totals = (np.concatenate(of, axis=1) for of in zip(*sums, strict=True))
        means = resampling.means_of(tops, totals).reshape(10_000, 10, 40)
        multiplied = time.perf_counter()
        for metric in range(40):
            curve = means[:, :, metric]
            stats.percentile_interval(stats.taus(curve))
            stats.percentile_interval(stats.sen_slopes(range(10), curve))
            stats.percentile_interval(curve[:, -1] - curve[:, 0])
        ended = time.perf_counter()
    heading("10,000 resamplings, 40 metrics, 10 steps, 500 prompts of 100 states", "part", "seconds")
    times = np.diff([began, drawn, summed, multiplied, ended])
    for name, seconds in zip(("weights", "sums by prompt", "means", "differences, taus, slopes"), times, strict=True):
        row(name, f"{seconds:.2f}")
    row("together", f"{ended - began:.2f}")
    print(f"\nPeak memory above the data: {(memory.peak - before) / 2**20:.0f} MiB")


def heading(title: str, *names: str) -> None:
    """Begin a table."""
    print(f"### {title}\n\n| {' | '.join(names)} |\n|{'---|' * len(names)}")


def row(*cells: object) -> None:
    """Print one row; shares as .xxx."""
    print("|", " | ".join(f"{c:.3f}" if isinstance(c, np.floating) else str(c) for c in cells), "|", flush=True)


if __name__ == "__main__":
    main()
