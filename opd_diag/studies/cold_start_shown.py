"""What a page shows of a pair before and after a cold start: small tables, pictures, responses to read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import pandas as pd

from opd_diag import plots
from opd_diag.plots.cold_start import PART_NAMES
from opd_diag.records.rollout import Rollout
from opd_diag.replay import Replay, ReplayPlan
from opd_diag.replay.recorded import TEACHER_LABEL
from opd_diag.stats.rounding import between, known_between, with_interval
from opd_diag.studies.served import of_server
from opd_diag.studies.study import Picture, Shown
from opd_diag.tables import BY_NAME, Tables
from opd_diag.tables.baselines import CHANCE, SHUFFLED
from opd_diag.tables.bounds import ends_of_states
from opd_diag.tables.catalogue import ESTIMATE
from opd_diag.tables.depth import positions
from opd_diag.tables.distance import OPENING, PARTS, infinite_states
from opd_diag.verdicts.evidence import is_partly_known
from opd_diag.verdicts.pair import MASSES
from opd_diag.verdicts.thresholds import Thresholds

NONE = "–"
OF_HIDDEN = "fitted temperature, gradient coherence and coverage"
OF_WHOLE = "the distance at the teacher's states by part, by token and by position"
"""What is not known of a teacher whose server returned its top K alone."""

BLOCK = ("overlap_ratio", "student_overlap_mass", "teacher_overlap_mass", "entropy_gap", "reverse_kl", "forward_kl")
"""What a pair is compared by on own states."""

MOST_TOKENS = 8

MOST_READ = 3
"""Prompts whose responses are given to be read."""


def pair_shown(tables: Tables, labels: Sequence[str], *, served: bool = False) -> Shown:
    """Show how alike the pair is on the student's own states, beside what would be without any likeness.

    Of a teacher behind a server (`served`) coverage is not known, and metrics may be between bounds.
    """
    rows, at = [], BLOCK.index("reverse_kl") + 1
    for metric in (*BLOCK[:at], *([ESTIMATE] if is_partly_known(tables) else []), *BLOCK[at:]):
        cells = [_said(tables.summary, metric, label, "on-policy") for label in labels]
        base = [_baseline(tables.baselines, metric, which, labels[0]) for which in (CHANCE, SHUFFLED)]
        rows.append([BY_NAME[metric].title, *cells, *base])
    if is_partly_known(tables):
        far = [_said(tables.summary, "forward_kl", label, "teacher") for label in labels]
        rows.append(["Forward KL at the teacher's states", *far, NONE, NONE])
    covered = [_said(tables.summary, "teacher_state_coverage", label, "on-policy") for label in labels]
    covered = ["not from a server"] * len(labels) if served else covered
    rows.append(["Teacher states that own ones come near", *covered, NONE, NONE])
    bounds = " “a to b” and “at least a” are bounds: the truth lies there for certain." * is_partly_known(tables)
    return Shown(
        "On the student's own states",
        "By chance: the teacher's tokens drawn at random. Shuffled: the teacher at another position of the same "
        f"prompt, which shares common words and format.{bounds}",
        ["", *labels, "by chance", "shuffled teacher"],
        rows,
    )


def distance_shown(tables: Tables, distance: pd.DataFrame, labels: Sequence[str]) -> list[Shown]:
    """Show what the distance at the teacher's states is made of, a table a student."""
    names = {"whole": "all of it", **PART_NAMES}
    shown = []
    for label in labels if len(distance) else ():
        of = distance[distance["label"] == label].set_index("part")
        rows = [
            [
                names[part],
                with_interval(*of.loc[part, ["value", "ci_low", "ci_high"]]),
                with_interval(*of.loc[part, ["per_response", "per_response_ci_low", "per_response_ci_high"]]),
                _percent(of["share"][part]),
                _percent(of["token_share"][part]),
            ]
            for part in PARTS
            if part in of.index and of.loc[part, "n_states"]
        ]
        shown.append(
            Shown(
                f"Distance at the teacher's states, {label}",
                f"Forward KL, what supervised fine-tuning on the teacher's responses lowers. The opening is the first "
                f"{OPENING} tokens.{_temperature(tables.fits, label)}",
                ["", "nats a token", "nats a response", "share of it", "share of the tokens"],
                rows,
            )
        )
    return shown


def tokens_shown(by_token: pd.DataFrame, labels: Sequence[str]) -> list[Shown]:
    """Show on which of the teacher's tokens most of the first student's distance lies, where that is known."""
    of = by_token[by_token["label"] == labels[0]].head(MOST_TOKENS)
    if by_token.empty:
        return []
    return [
        Shown(
            f"Tokens of the teacher that {labels[0]} expects least",
            f"{MOST_TOKENS} at most, by their share of the distance; distance_by_token.csv has all.",
            ["token", "times", "nats each", "share of the distance"],
            [
                [repr(row["token"]), f"{row['n_states']:,}", f"{row['value']:.2f}", _percent(row["share"])]
                for _, row in of.iterrows()
            ],
        )
    ]


def pictures_of(tables: Tables, distance: pd.DataFrame, labels: Sequence[str], limits: Thresholds) -> list[Picture]:
    """Give the pictures: mass on shared tokens, the distance by part and by position, shared tokens against k."""
    shown = list(dict.fromkeys([labels[0], labels[-1]]))
    all_of_it = distance[distance["part"] == "whole"]
    whole = dict(zip(all_of_it["label"], all_of_it["per_response"], strict=True))
    far = " → ".join(f"{whole[label]:.2f}" for label in shown if label in whole)
    own = tables.summary[(tables.summary["states"] == "on-policy") & (tables.summary["label"] == shown[-1])]
    least = own.loc[own["metric"].isin(MASSES), "value"].min()
    of_distance = [
        Picture(
            "distance",
            "Distance to close",
            f"Forward KL at the teacher's states: {far} nats a response.",
            partial(plots.distance_by_part, distance, shown),
        ),
        Picture(
            "distance_by_depth",
            "Distance by position",
            _depth_reading(tables.depth, shown[-1]),
            partial(plots.metric_by_depth, tables.depth, "forward_kl", states="teacher"),
        ),
    ]
    return [
        Picture(
            "shared_mass",
            "Mass on shared tokens",
            f"From {limits.shared_mass:g} on, on both sides, a pair counts as alike; on own states {shown[-1]} has "
            f"{least:.2f} at least.",
            partial(plots.shared_mass_by_states, tables.summary, shown, least=limits.shared_mass),
        ),
        *(of_distance if not is_partly_known(tables) else []),
        Picture(
            "concentration",
            "Mass on shared tokens against k",
            "On own states; a pair that is alike is near 1 from k = 16 on.",
            partial(plots.concentration_curves, tables.concentration),
        ),
    ]


def excerpts_of(replayed: Replay, states: pd.DataFrame) -> list[dict[str, Rollout]]:
    """Give first responses of all writers to the prompts with the largest distance at the first student."""
    written = {s.rollouts[0].provenance.weights: s.rollouts for s in replayed.scored if s.states != "start"}
    first = replayed.checkpoints[0].label
    of = states[(states["states"] == "teacher") & (states["label"] == first) & (states["rollout_index"] == 0)]
    low, _ = ends_of_states(of, ["forward_kl"])
    furthest = of.assign(far=low[:, 0]).groupby("prompt_index")["far"].sum().sort_values(ascending=False, kind="stable")
    order = [*dict.fromkeys([first, *(c.label for c in replayed.checkpoints), TEACHER_LABEL])]
    found = []
    for prompt in furthest.index[:MOST_READ]:
        to_it = {w: next((r for r in written[w] if r.prompt_index == prompt), None) for w in order if w in written}
        found.append({writer: rollout for writer, rollout in to_it.items() if rollout is not None})
    return found


def measured_of(plan: ReplayPlan, replayed: Replay, data: pd.DataFrame, files: Sequence[str]) -> tuple[str, ...]:
    """Say what was measured and how, and what of it is in which file."""
    settings, kept = plan.settings, int(data["kept"].sum())
    n_states = sum(len(s.scores.position) for s in replayed.scored)
    used = f"{settings.temperature:g}, top-p {settings.top_p:g}, at most {settings.max_new_tokens} tokens"
    plain = settings.temperature == settings.top_p == 1.0
    other = "" if plain else " Distillation samples at temperature 1: own states there are others than here."
    return (
        f"{len(plan.prompts)} prompts, {settings.rollouts_per_prompt} responses each of every model, temperature "
        f"{used}; {n_states:,} states were scored.{other}",
        f"{len(data):,} responses of the teacher were looked at as data, {_to_which(plan, data)}; {kept:,} are in "
        f"{', '.join(files) or 'no file: none can be taught'}.",
        "Intervals are 95 %, over prompts.",
        *([of_server(plan.served, hidden=OF_HIDDEN, whole=OF_WHOLE, bounds=True)] if plan.served else []),
        *plan.notes,
    )


def left_out_of(states: pd.DataFrame) -> tuple[str, ...]:
    """Say how many states no distance could be given for, a sentence a student; none where there are no such."""
    return tuple(
        f"{label}: {n:,} of the {of:,} states of the teacher are left out of the distance. It is infinite there, as "
        "the student rules out a token that the teacher may write."
        for label, (n, of) in infinite_states(states).items()
        if n
    )


def limits_of(data: pd.DataFrame, *, only_correct: bool, after: bool) -> tuple[str, ...]:
    """Say what no number of it tells."""
    graded = data["is_correct"].notna().any()
    rightness = (
        "Responses that are not correct were left out; a right answer by a wrong way is still taught."
        if only_correct
        else "Rightness is not filtered: "
        + ("--only-correct leaves out what is wrong." if graded else "the prompts have no reference answers.")
    )
    trained = ("Prompts that the cold start was trained on flatter it: ask again on others.",) if after else ()
    return (
        "Whether distillation would get there without a cold start: far apart is slow and rough, not impossible.",
        rightness,
        "What the trainer's own chat template makes of the data: here it was read with the student's.",
        *trained,
    )


def _to_which(plan: ReplayPlan, data: pd.DataFrame) -> str:
    """Say whether the prompts that were measured are among those that are taught."""
    shared = len({prompt.index for prompt in plan.prompts} & {*data["prompt_index"]})
    if not shared:
        return "to other prompts than those measured, which can so be asked again with --after"
    return f"to {data['prompt_index'].nunique():,} prompts, {shared:,} of them measured: after training, ask on others"


def _depth_reading(depth: pd.DataFrame, label: str) -> str:
    of = depth[(depth["metric"] == "forward_kl") & (depth["states"] == "teacher") & (depth["label"] == label)]
    of = of[of["value"].notna()]
    of = of[2 * of["n_rollouts"] >= of["n_rollouts"].max()]  # few responses are long, and they differ from the others
    if of.empty:
        return "Nowhere is it known."
    most = of.sort_values("value", kind="stable").iloc[-1]
    return (
        f"Where half of the responses still go on, {label} is furthest at {positions(most)}, "
        f"{most['value']:.2f} nats a token."
    )


def _said(table: pd.DataFrame, metric: str, label: str, states: str) -> str:
    rows = table[(table["metric"] == metric) & (table["label"] == label) & (table["states"] == states)]
    if len(rows) and known_between(rows.iloc[0]):
        return between(*rows.iloc[0][["bound_low", "bound_high"]])
    if rows.empty or pd.isna(rows["value"].iloc[0]):
        return NONE
    return with_interval(*rows.iloc[0][["value", "ci_low", "ci_high"]])


def _baseline(table: pd.DataFrame, metric: str, which: str, label: str) -> str:
    rows = table[
        (table["metric"] == metric)
        & (table["baseline"] == which)
        & (table["label"] == label)
        & (table["states"] == "on-policy")
    ]
    return NONE if rows.empty or pd.isna(rows["value"].iloc[0]) else f"{rows['value'].iloc[0]:.2f}"


def _percent(share: float) -> str:
    return NONE if pd.isna(share) else f"{100 * share:.0f} %"


def _temperature(fits: pd.DataFrame, label: str) -> str:
    """Say how much of the disagreement there is only about how sure to be."""
    rows = fits[(fits["label"] == label) & (fits["states"] == "teacher")]
    if rows.empty or pd.isna(rows["explained_share"].iloc[0]):
        return ""
    row = rows.iloc[0]
    return (
        f" Another temperature of the student ({row['fitted_temperature']:.2f}) would by itself take away "
        f"{_percent(row['explained_share'])} of the reverse KL there."
    )
