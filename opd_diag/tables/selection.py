"""Which prompts to train on: ranked by one quantity, with a floor on entropy and a share drawn from the rest."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from opd_diag import stats
from opd_diag.errors import InputError
from opd_diag.stats.rounding import number, with_interval
from opd_diag.tables.prompts import ABOUT, QUANTITIES, Estimates, mean_of, prompt_table, within_its_range

BY = ("teacher_lead", "reverse_kl_of_response", "student_overlap_mass")
"""What prompts can be ranked by; more comes first. Unless one is named it is the first where responses are graded, else
the second. Ours, from real distillations of the bundled student (``python -m benchmarks.prompts``): prompts of the
largest lead taught the missing skill faster than random ones, at the cost of what they crowded out, and over all skills
were as good; those of the largest student overlap mass, the marker of aligned prompts in arXiv 2604.13016, section 5.2,
taught less than random ones, even where all prompts asked for that skill."""

LOW_ENTROPY = 0.1
"""The floor on student entropy, unless one is given: this quantile of all prompts. Ours."""

SELECTION_COLUMNS = [*ABOUT, "is_chosen", "outcome", "rank", "reason"]


@dataclass(frozen=True)
class Choice:
    """How prompts are chosen."""

    select: int
    """Prompts to choose."""
    by: str
    """Quantity that ranks them, of `BY`."""
    min_entropy: float | None = None
    """Least student entropy of a chosen prompt, in nats; None: the lowest tenth of the prompts is left out, or fewer
    where more are to be chosen."""
    out_of_distribution: float = 0.2
    """Share of the chosen that is drawn at random from the rest, in [0, 1]."""
    seed: int = 0
    """Of that draw, and of the order of equal prompts."""

    def __post_init__(self) -> None:
        """Refuse what is out of range."""
        problems = (
            (self.select < 1, f"select must be at least 1, found {self.select}"),
            (self.by not in BY, f"by must be one of {', '.join(BY)}, found '{self.by}'"),
            (not 0 <= self.out_of_distribution <= 1, f"out_of_distribution must be 0 to 1, found "
             f"{self.out_of_distribution}"),
            (self.min_entropy is not None and not 0 <= self.min_entropy < math.inf,
             f"min_entropy must be 0 or more, found {self.min_entropy}"),
        )  # fmt: skip
        for wrong, message in problems:
            if wrong:
                raise InputError(f"Option {message}.")

    @property
    def n_drawn(self) -> int:
        """How many are drawn from the rest."""
        return math.floor(self.select * self.out_of_distribution + 0.5)


def choose(prompts: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    """Choose prompts, and say of each why it is in or out.

    Of the prompts whose student entropy reaches the floor the first by `choice.by` are taken, and a share is drawn at
    random from those that remain. Means drawn toward that of all prompts are what ranks (``<by>_shrunken``), and what
    is held against the floor. Equal ones, as leads of few responses are, come in an order that the seed draws.

    Parameters
    ----------
    prompts
        From :func:`~opd_diag.tables.prompts.prompt_table`.
    choice
        How.

    Returns
    -------
    DataFrame
        One row a prompt, in their order: `SELECTION_COLUMNS`. `outcome` is one of ``top``, ``drawn`` (both chosen),
        ``low entropy``, ``lower``, ``not ranked``. `rank` counts from 1 over all prompts that can be ranked, missing
        for the others.

    Raises
    ------
    InputError
        More are asked for than there are, than can be ranked, or than reach the floor; or the quantity is the same for
        all.
    """
    _refuse(prompts, choice)
    return _reasons(prompts, choice, *_outcomes(prompts, choice))


def floor_of(prompts: pd.DataFrame, choice: Choice) -> float:
    """Give the least student entropy of a chosen prompt, in nats."""
    if choice.min_entropy is not None:
        return choice.min_entropy
    entropies = _ranked(prompts, choice)["student_entropy_shrunken"].to_numpy(float)
    low = float(np.quantile(entropies, LOW_ENTROPY))
    return min(low, float(np.sort(entropies)[::-1][: choice.select].min(initial=math.inf)))


def held_out_comparison(values: pd.DataFrame, choice: Choice) -> Estimates:
    """Hold chosen prompts against the others on responses that had no part in choosing them.

    Whoever is chosen for a high mean owes part of it to chance. So prompts are chosen by half of the responses to each
    and compared by the other half, in both ways, and the two are averaged.

    Parameters
    ----------
    values
        From :func:`~opd_diag.tables.prompts.prompt_values`.
    choice
        How; a floor that half of the responses do not let enough prompts reach is lowered.

    Returns
    -------
    dict
        Of each quantity the mean of the others, that of the chosen, and the chosen's minus the others'; NaN with one
        response to each prompt, and where all are chosen.
    """
    halves = [values[values["rollout_index"] % 2 == rest] for rest in (0, 1)]
    found: dict[str, list[tuple[stats.Estimate, ...]]] = {name: [] for name in QUANTITIES}
    for chosen_by, judged_by in (halves, halves[::-1]):
        taken: set[int] = set()
        if len(chosen_by) and len(judged_by):
            table = prompt_table(chosen_by)
            table, lenient = _with_floor_lowered(table, choice)
            outcomes, _ = _outcomes(table, lenient)
            taken = set(table.loc[np.isin(outcomes, CHOSEN), "prompt_index"])
        is_in = judged_by["prompt_index"].isin(taken).to_numpy()
        for name in QUANTITIES:
            found[name].append(_apart(judged_by, name, is_in))
    means = {name: [stats.cautious_mean(of) for of in zip(*both, strict=True)] for name, both in found.items()}
    return {
        name: (within_its_range(name, one), within_its_range(name, two), difference)
        for name, (one, two, difference) in means.items()
    }


CHOSEN = ("top", "drawn")


def _apart(values: pd.DataFrame, name: str, is_in: np.ndarray) -> tuple[stats.Estimate, ...]:
    column, prompts = values[name].to_numpy(float), values["prompt_index"].to_numpy()
    one, two = (mean_of(name, column[of], prompts[of]) for of in (~is_in, is_in))
    return one, two, stats.unpaired_difference(one, two)


def _with_floor_lowered(table: pd.DataFrame, choice: Choice) -> tuple[pd.DataFrame, Choice]:
    reach = (_ranked(table, choice)["student_entropy_shrunken"] >= (choice.min_entropy or 0.0)).sum()
    return table, choice if reach >= choice.select else replace(choice, min_entropy=None)


def _ranked(prompts: pd.DataFrame, choice: Choice) -> pd.DataFrame:
    return prompts[prompts[choice.by].notna()]


def _outcomes(prompts: pd.DataFrame, choice: Choice) -> tuple[np.ndarray, np.ndarray]:
    """Give the outcome of each prompt and its rank, from 1; rank 0 where it has none."""
    ties = np.random.default_rng([choice.seed, 1]).permutation(len(prompts))
    ranked = _ranked(prompts.assign(ties=ties), choice)
    order = ranked.sort_values([f"{choice.by}_shrunken", choice.by, "ties"], ascending=False).index.to_numpy()
    ranks = np.zeros(len(prompts), dtype=np.int64)
    ranks[order] = np.arange(1, len(order) + 1)
    outcomes = np.where(ranks > 0, "lower", "not ranked").astype(object)
    floor = floor_of(prompts, choice)
    low = prompts["student_entropy_shrunken"].to_numpy(float)[order] < floor
    outcomes[order[low]] = "low entropy"
    able = order[~low]
    n_top = min(choice.select, len(able)) - choice.n_drawn
    outcomes[able[: max(n_top, 0)]] = "top"
    rest = np.sort(able[max(n_top, 0) :])
    drawn = np.random.default_rng(choice.seed).choice(rest, min(choice.n_drawn, len(rest)), replace=False)
    outcomes[drawn] = "drawn"
    return outcomes, ranks


def _refuse(prompts: pd.DataFrame, choice: Choice) -> None:
    n, ranked, name = len(prompts), _ranked(prompts, choice), choice.by
    if choice.select > n:
        raise InputError(f"--select {choice.select} is more than the {n} prompts there are. Select fewer.")
    if choice.select > len(ranked):
        raise InputError(
            f"--select {choice.select} is more than the {len(ranked)} of {n} prompts that {name} is known of. Select "
            f"fewer, give answers{' and a teacher that answers' if name == 'teacher_lead' else ''}, or rank by another "
            "quantity with --by."
        )
    if n > 1 and ranked[name].nunique() == 1:
        raise InputError(
            f"Every prompt has the same {name}, {number(ranked[name].iloc[0], 2)}, so it ranks none. "
            f"{_SAME.get(name, '')}Rank by another quantity with --by."
        )
    if choice.min_entropy is not None:
        reach = int((ranked["student_entropy_shrunken"] >= choice.min_entropy).sum())
        if reach < choice.select:
            raise InputError(
                f"Only {reach} of {len(ranked)} prompts have a student entropy of --min-entropy "
                f"{choice.min_entropy:g} nats, fewer than --select {choice.select}. Lower it, or select fewer."
            )


_SAME = {"teacher_lead": "Student and teacher solve all prompts alike, or none. "}


def _reasons(prompts: pd.DataFrame, choice: Choice, outcomes: np.ndarray, ranks: np.ndarray) -> pd.DataFrame:
    floor, n, by = floor_of(prompts, choice), int((ranks > 0).sum()), choice.by
    called = by.replace("_", " ")
    columns = [by, f"{by}_ci_low", f"{by}_ci_high", "student_entropy_shrunken"]
    reasons = []
    for outcome, rank, (value, low, high, entropy) in zip(
        outcomes, ranks, prompts[columns].to_numpy(float), strict=True
    ):
        place = f"rank {rank} of {n}"
        reasons.append(
            {
                "top": f"chosen: {called} {with_interval(value, low, high)}, {place}",
                "drawn": f"kept against entropy collapse: drawn at random from the rest, {place}",
                "low entropy": f"left out: student entropy {number(entropy, 3)} is below the floor "
                f"{number(floor, 3)}, {place}",
                "lower": f"left out: {called} {with_interval(value, low, high)}, {place}",
                "not ranked": f"left out: {called} is not known",
            }[outcome]
        )
    table = prompts[ABOUT].assign(is_chosen=np.isin(outcomes, CHOSEN), outcome=outcomes, reason=reasons)
    return table.assign(rank=pd.array(np.where(ranks > 0, ranks, 0), dtype="Int64").copy()).assign(
        rank=lambda of: of["rank"].mask(of["rank"] == 0)
    )[SELECTION_COLUMNS]
