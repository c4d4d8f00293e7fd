"""Every fault there is, and what must give the alarm; the list stood before any of its held-out draws was looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from opd_diag.lab.faults import files, recorded, sampled, trained, weights
from opd_diag.lab.faults.case import Case

Plant = Callable[[Case, int], None]
"""Breaks a case in place; the number is the seed of whatever it draws."""


@dataclass(frozen=True)
class Fault:
    """One way in which a run, or what is told of it, can be wrong."""

    name: str
    about: str
    """What is planted, in a few words."""
    plant: Plant
    detectors: tuple[str, ...]
    """Names of the self-tests and verdicts any of which is the alarm that is expected."""
    on: str = "healthy"
    """Kind of grown run that it is planted in."""
    is_recorded: bool = False
    """Whether it is planted in rollouts that the run brings with it."""


def nothing(case: Case, seed: int) -> None:
    """Plant nothing: the run went wrong as it was grown."""


FAULTS = (
    Fault(
        "shifted_records",
        "log-probabilities recorded one token late",
        recorded.shift_logprobs,
        ("shift", "logprobs"),
        is_recorded=True,
    ),
    Fault(
        "lost_prompt_token",
        "the teacher's prompts lack their last id",
        recorded.lose_prompt_token,
        ("template", "shift"),
        is_recorded=True,
    ),
    Fault(
        "lost_first_token",
        "responses cut at their first token",
        recorded.drop_first_token,
        ("shift", "logprobs"),
        is_recorded=True,
    ),
    Fault(
        "shifted_teacher",
        "a teacher trained on labels shifted twice",
        trained.teach_teacher_shifted,
        ("shift",),
    ),
    Fault(
        "dropped_last_token",
        "stop tokens stripped, the record says stop",
        recorded.drop_last_token,
        ("ends",),
        is_recorded=True,
    ),
    Fault(
        "dropped_last_token_silently",
        "stop tokens stripped, the record tells nothing",
        partial(recorded.drop_last_token, says_stop=False),
        ("ends", "termination"),
        is_recorded=True,
    ),
    Fault("double_bos", "the chat template adds a second BOS", files.double_bos, ("template",)),
    Fault(
        "recorded_double_bos",
        "recorded prompts begin with two BOS",
        recorded.double_bos,
        ("template",),
        is_recorded=True,
    ),
    Fault("permuted_ids", "rows of the teacher's embedding and head permuted", weights.permute_ids, ("vocabulary",)),
    Fault(
        "padding_counted",
        "padding after the stop token counts as states",
        recorded.count_padding,
        ("ends",),
        is_recorded=True,
    ),
    Fault(
        "padding_with_stop",
        "the same, padded with the stop token",
        partial(recorded.count_padding, with_stop_token=True),
        ("ends",),
        is_recorded=True,
    ),
    Fault(
        "cool_sampling",
        "sampled at temperature 0.7, said to be 1, no log-probabilities",
        partial(sampled.sample_at, temperature=0.7),
        ("logprobs",),
        is_recorded=True,
    ),
    Fault(
        "hot_sampling",
        "sampled at temperature 1.5, said to be 1, no log-probabilities",
        partial(sampled.sample_at, temperature=1.5),
        ("logprobs",),
        is_recorded=True,
    ),
    Fault(
        "misstated_temperature",
        "sampled and recorded at temperature 0.7, said to be 1",
        partial(sampled.sample_at, temperature=0.7, with_logprobs=True),
        ("logprobs",),
        is_recorded=True,
    ),
    Fault(
        "wrong_template", "the students' tokenizers have another chat template", files.replace_template, ("template",)
    ),
    Fault(
        "lost_generation_prompt",
        "prompts rendered without generation prompt",
        files.drop_generation_prompt,
        ("template",),
    ),
    Fault("other_stop", "the teacher stops with another token", weights.teach_other_stop, ("ends", "termination")),
    Fault(
        "untold_stop",
        "the same, and its settings do not tell",
        partial(weights.teach_other_stop, is_told=False),
        ("termination", "ends"),
    ),
    Fault(
        "stale_rollouts",
        "the last checkpoint's rollouts are step 0's",
        recorded.record_stale_rollouts,
        ("logprobs",),
        is_recorded=True,
    ),
    Fault("looping", "the student loops", trained.teach_loops, ("degeneration",)),
    Fault(
        "narrow",
        "the student writes random numbers",
        trained.teach_numbers,
        ("false_success", "degeneration", "alignment_at_teacher"),
    ),
    Fault(
        "collapse",
        "a learning rate more than fifty times too high",
        nothing,
        ("false_success", "degeneration", "alignment_at_teacher"),
        on="collapsing",
    ),
    Fault("sharpened", "logits of all checkpoints doubled", partial(weights.scale_logits, factor=2.0), ("sharpness",)),
    Fault("flattened", "logits of all checkpoints halved", partial(weights.scale_logits, factor=0.5), ("sharpness",)),
    Fault(
        "unrelated_teacher",
        "a teacher that writes random numbers",
        trained.teach_teacher_numbers,
        ("patterns_compatible", "vocabulary"),
    ),
    Fault(
        "random_teacher",
        "a teacher of random weights",
        weights.forget_everything,
        ("patterns_compatible", "vocabulary", "shift"),
    ),
    Fault("frozen", "all checkpoints are step 0", weights.freeze, ("alignment_on_policy", "alignment_at_start")),
    Fault(
        "reversed",
        "step 0 and the last checkpoint exchanged",
        weights.reverse,
        ("alignment_on_policy", "alignment_at_start", "accuracy"),
    ),
    Fault(
        "nothing_to_learn",
        "teacher and checkpoints are copies of step 0",
        weights.teach_by_student,
        ("indistinguishable_teacher",),
    ),
    Fault(
        "nothing_new",
        "a teacher that knows no more than the student",
        nothing,
        ("new_capability", "alignment_at_start"),
        on="idle",
    ),
    Fault(
        "noise_from_depth",
        "responses drawn at temperature 3 from token 8 on",
        partial(sampled.sample_noise_after, depth=8, temperature=3.0),
        ("logprobs", "depth_decay"),
        is_recorded=True,
    ),
    Fault(
        "breaks_at_depth",
        "the student writes random words from token 8 on",
        partial(trained.teach_noise_after, depth=8),
        ("depth_decay",),
    ),
)
"""All of them."""
