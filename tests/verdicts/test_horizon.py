"""Rules on depth, on made-up excesses whose answer is known."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from opd_diag.tables.excess import excess_of
from opd_diag.verdicts import DEFAULTS, Thresholds
from opd_diag.verdicts.horizon import depth_signal, instability

LENGTH = 12


def states(label, place=None, *, metric="reverse_kl", jump=2.0, prompts=24, level=0.2, seed=0, noise=0.05):
    """Own and the teacher's responses of one checkpoint; own ones are higher from `place` on."""
    rng = np.random.default_rng([seed, len(label)])
    rows = []
    for prompt in range(prompts):
        for of in ("on-policy", "teacher"):
            values = level + noise * rng.normal(size=LENGTH)
            if place is not None and of == "on-policy":
                values[place:] += jump * (0.5 + rng.random())
            about = {"step": 0, "label": label, "states": of, "prompt_index": prompt, "rollout_index": 0}
            rows += [about | {"position": i, metric: value} for i, value in enumerate(values)]
    return pd.DataFrame(rows)


def excesses(table, label, metric="reverse_kl", first=None):
    found = [excess_of(table, metric, label, LENGTH, than=(label, "teacher"))]
    if first is not None:
        found.append(excess_of(table, metric, label, LENGTH, than=(first, "on-policy"), control=first))
    return [of for of in found if of is not None]


def signal(table, label="step 9", first=None, limits=DEFAULTS):
    return depth_signal(excesses(table, label, first=first), LENGTH, limits)


class TestSignal:
    def test_a_break(self):
        found = signal(states("step 9", 7))
        assert (found.name, found.status, found.value) == ("depth_signal", "warn", 7)
        assert found.ci_low <= 7 <= found.ci_high
        assert found.evidence.startswith("It breaks at token 7 [7, 7] of the first 12: from there reverse KL is ")
        assert found.evidence.endswith(
            "beyond that on the teacher's own (δ = 0.1 nats); 24 prompts, 24 responses of step 9 that get there."
        )

    def test_none(self):
        found = signal(states("step 9"))
        assert (found.status, found.evidence[:29]) == ("pass", "None seen in the first 12 tok")
        assert math.isnan(found.value)

    def test_neither(self):
        found = signal(states("step 9", noise=1.0))
        assert found.status == "unknown"
        assert found.evidence.startswith("Inconclusive: no break is established in the first 12 tokens, but reverse KL")
        assert found.evidence.endswith("prompts would tell.")

    def test_delta_is_an_option(self):
        assert signal(states("step 9", 7), limits=Thresholds(depth_change=9.0)).status == "pass"

    def test_too_few_prompts_say_how_many(self):
        found = signal(states("step 9", 7, prompts=3))
        assert found.status == "unknown"
        assert found.evidence == (
            "3 prompts have responses of 12 tokens by both models, too few to tell; at least 5 are needed."
        )
        assert depth_signal([], LENGTH, DEFAULTS).evidence.startswith("0 prompts have responses of 12 tokens")

    def test_a_student_that_breaks_everywhere_is_held_against_the_start(self):
        """It breaks on the teacher's responses too, so that these are no control."""
        broken = states("step 9", 7)
        theirs = broken["states"] == "teacher"
        broken.loc[theirs, "reverse_kl"] = broken.loc[~theirs, "reverse_kl"].to_numpy() + 0.01
        table = pd.concat([states("step 0"), broken])
        assert signal(table).status == "pass"
        found = signal(table, first="step 0")
        assert (found.status, found.value) == ("warn", 7)
        assert "beyond that in those of step 0" in found.evidence

    def test_a_second_control_on_too_few_prompts_is_not_asked(self):
        """As above, but the first checkpoint has responses so long to six prompts alone."""
        broken = states("step 9", 7)
        theirs = broken["states"] == "teacher"
        broken.loc[theirs, "reverse_kl"] = broken.loc[~theirs, "reverse_kl"].to_numpy() + 0.01
        table = pd.concat([states("step 0", prompts=6), broken])
        assert signal(table, first="step 0").status == "warn"
        assert signal(table, first="step 0", limits=Thresholds(prompts=10)).status == "pass"

    def test_what_was_learned_early_makes_the_late_tokens_no_worse(self):
        """At the start the first tokens were far off, and the last checkpoint is level."""
        first = states("step 0")
        first.loc[first["position"] < 6, "reverse_kl"] += 2.0
        assert signal(pd.concat([first, states("step 9")]), first="step 0").status == "pass"


def course(places, prompts=24):
    """Student entropy of checkpoints that blow up from these places on, None where they do not."""
    labels = [f"step {10 * i}" for i in range(len(places))]
    table = pd.concat(
        [
            states(label, at, metric="student_entropy", prompts=prompts, seed=i)
            for i, (label, at) in enumerate(zip(labels, places, strict=True))
        ]
    )
    every = [of for label in labels for of in excesses(table, label, "student_entropy")]
    return instability(every, labels, LENGTH, DEFAULTS)


class TestInstability:
    def test_none(self):
        found = course([None, None, None])
        assert found.status == "pass"
        assert found.evidence.startswith("No blow-up seen: at step 20 the student's entropy rises along its responses")

    @pytest.mark.parametrize(
        ("places", "half", "moved"),
        [
            ([None, 10, 7], "late", "it moved forward"),
            ([None, 3, 8], "early", "it moved back"),
            ([None, 8, 8], "late", "it is not seen to move"),
        ],
    )
    def test_its_course(self, places, half, moved):
        found = course(places)
        one, two = places[1:]
        assert (found.status, found.value) == ("warn", two)
        assert found.evidence.startswith(
            f"Entropy blows up at step 10 from token {one} [{one}, {one}] of 12 on, in the {half} half, and by step 20 "
            f"from token {two} [{two}, {two}] on: {moved} (δ = 0.1 nats); 24 prompts."
        )

    def test_seen_once(self):
        found = course([None, None, 9])
        assert found.status == "warn"
        assert "it is seen at one checkpoint, so whether it moves is not known" in found.evidence

    def test_gone_at_last(self):
        found = course([None, 9, None])
        assert (found.status, math.isnan(found.value)) == ("pass", True)
        assert found.evidence.startswith("Entropy blows up at step 10 from token 9 [9, 9] of 12 on")
        assert "; at step 20 the student's entropy rises along its responses nowhere beyond" in found.evidence

    def test_one_checkpoint(self):
        assert course([None]).evidence == "There is one checkpoint, so nothing can be compared."
        found = course([9])
        assert (found.status, found.value) == ("warn", 9)

    def test_too_few_prompts(self):
        found = course([9, 9], prompts=1)
        assert found.status == "unknown"
        assert found.evidence == (
            "1 prompt has responses of 12 tokens by both models, too few to tell; at least 5 are needed."
        )
