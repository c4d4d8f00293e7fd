"""What people read where machines read the fixed name of a verdict."""

from __future__ import annotations

TITLES: dict[str, str] = {
    "healthy": "health of the run",
    "aligned_inputs": "aligned inputs",
    "false_success": "credibility of own states",
    "degeneration": "soundness of responses",
    "alignment_on_policy": "alignment on own states",
    "alignment_at_start": "alignment at the start's states",
    "alignment_at_teacher": "alignment at the teacher's states",
    "accuracy": "accuracy at the task",
    "patterns_compatible": "likeness before training",
    "indistinguishable_teacher": "difference from the teacher",
    "new_capability": "lead of the teacher",
    "sharpness": "sharpness",
    "termination": "stopping",
    "concentrated_signal": "spread of the signal",
    "depth_decay": "signal in the depth of responses",
    "shared_mass": "mass on shared tokens",
    "entropy_gap": "entropy gap",
    "pass_at_k": "solving with many tries",
    "forgetting": "forgetting",
    "gap_recovery": "recovery of the teacher's lead",
    "depth_signal": "reach of the dense signal",
    "instability": "course of instability",
    "continuation_advantage": "teacher's advantage in continuing",
    "runs_differ": "difference of two runs",
    "teachers_alike": "likeness of two teachers",
    "pulled_back": "way back to an earlier student",
    "cold_start_needed": "need of a cold start",
    "cold_start_effect": "effect of the cold start",
    "sft_data": "data for a cold start",
    "selection_alignment": "ranking of the chosen prompts",
    "selection_entropy": "entropy on the chosen prompts",
    "selection_lead": "teacher's lead on the chosen prompts",
    "selection_groups": "groups among the chosen prompts",
    "template": "likeness under another template",
    "prompt_set": "likeness on another prompt set",
}
"""Title of each verdict. It says what is asked and not what comes of it, so that "passed" and "failed" both fit it."""


def title_of(name: str) -> str:
    """Give the title of a verdict; one without a title goes by its own name.

    Examples
    --------
    >>> title_of("alignment_on_policy"), title_of("of_tomorrow")
    ('alignment on own states', 'of tomorrow')
    """
    return TITLES.get(name, name.replace("_", " "))
