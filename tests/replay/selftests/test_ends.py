"""Stop tokens: lacking, followed by more, counted as something else, and others for each model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from models import byte_tokenizer, rollout

from opd_diag.replay.selftests.ends import ends_of_models, ends_of_responses
from opd_diag.replay.selftests.kept import Kept

TOKENIZER = byte_tokenizer()
STOP, PAD = TOKENIZER.hf.eos_token_id, TOKENIZER.hf.convert_tokens_to_ids("<|im_end|>")
TOKENIZER.hf.pad_token = "<|im_end|>"


def asked(*responses, stops=(STOP,)):
    made = [r if not isinstance(r, tuple) else rollout([1], r[0], stop_reason=r[1]) for r in responses]
    return ends_of_responses("step 0", made, stops, TOKENIZER)


HEALTHY = (
    ([5, 6, STOP], "stop"),
    ([5, 6, 7], "length"),
    ([5, PAD, 6], "length"),
    ([9, STOP], "unknown"),
    ([1, 2, 3, 4], "unknown"),  # no other is longer: it may have been cut
)


class TestOfResponses:
    def test_healthy(self):
        found = asked(*HEALTHY)
        assert (found.name, found.model, found.status, found.advice) == ("ends", "step 0", "pass", "")
        assert "1 of 5 responses of step 0 stopped, all with a stop token" in found.evidence
        assert f"{STOP} ('</s>')" in found.evidence

    @pytest.mark.parametrize(("broken", "words"), [
        (([5, 6], "stop"), "stopped, but lack the stop token"),
        (([5, STOP], "length"), "count as cut, but end with a stop token"),
        (([5, STOP, 9], "length"), "count tokens after the stop token as states"),
        (([5, STOP, STOP, STOP], "stop"), "count tokens after the stop token as states"),
        (([5, STOP, PAD, PAD], "stop"), "count tokens after the stop token as states"),
        (([5, 6, PAD, PAD], "length"), "count padding as states"),
        (([5, 6], "unknown"), "end neither with a stop token nor at a limit"),
    ], ids=["stripped", "cut", "goes on", "padded with stops", "padded", "unstopped", "no reason"])  # fmt: skip
    def test_each_fault(self, broken, words):
        found = asked(*HEALTHY, broken, broken)
        assert (found.status, found.value) == ("fail", 2.0)
        assert f"2 of 7 responses of step 0 {words}" in found.evidence
        assert "with their stop token" in found.advice

    @pytest.mark.parametrize(
        ("odd", "n", "status"), [(1, 5, "pass"), (2, 5, "fail"), (2, 200, "pass"), (5, 200, "fail")]
    )
    def test_a_few_odd_ones_do_not_matter_and_are_counted(self, odd, n, status):
        """As a stop token that is drawn in the middle, by an engine that goes on."""
        found = asked(*[([5, STOP, 6], "length")] * odd, *[([5, 6, STOP], "stop")] * (n - odd))
        assert (found.status, found.value, found.threshold) == (status, odd, max(1, n // 50))
        assert f"{odd} of {n} responses of step 0 count tokens after the stop token as states" in found.evidence

    def test_where_few_stopped_only_these_count(self):
        """All of them lack the stop token, whatever share of the responses they are."""
        found = asked(*[([5, 6], "stop")] * 3, *[([5, 6, 7], "length")] * 997)
        assert (found.status, found.value, found.threshold) == ("fail", 3.0, 1.0)

    def test_responses_from_stripped_text_are_left_out(self):
        stripped = replace(rollout([1], [5, 6], stop_reason="stop"), exactness="text-stripped")
        found = asked(*HEALTHY, stripped, stripped)
        assert found.status == "pass"
        assert "1 of 5 responses" in found.evidence
        assert "The ids of 2 more are from stripped text" in found.evidence
        alone = asked(stripped, stripped)
        assert (alone.status, alone.advice) == ("unknown", "Record response ids, not text.")

    def test_what_the_student_did_not_write_is_no_padding(self):
        tool = rollout([1], [5, STOP, 8, 8, 6, STOP], generated=(True, True, False, False, True, True))
        padded = rollout([1], [5, STOP, PAD, PAD], stop_reason="unknown", generated=(True, True, False, False))
        assert asked(tool, padded).status == "pass"

    def test_a_model_without_stop_token_cannot_be_asked(self):
        found = asked(*HEALTHY, stops=())
        assert (found.status, bool(found.advice)) == ("unknown", True)


class TestOfModels:
    def kept(self, *best):
        """A teacher's side of one state each, with `best` first."""
        n = len(best)
        ids = np.array([[b, *(i for i in range(40, 71))] for b in best])
        of = {"sampled": np.zeros(n), "entropy": np.zeros(n), "rows": np.zeros(n, int), "positions": np.arange(n)}
        return Kept(
            ids=ids, logprobs=np.tile(-np.arange(1.0, 33.0), (n, 1)), prompts=np.zeros(n, int), vocabulary=300, **of
        )

    def test_the_same(self):
        found = ends_of_models([STOP], [STOP], None, np.empty(0, int), TOKENIZER)
        assert (found.name, found.status) == ("ends", "pass")

    def test_a_teacher_that_stops_by_another_one(self):
        tokens = np.array([5, STOP, 6, STOP])
        found = ends_of_models([STOP], [STOP, PAD], self.kept(7, PAD, 7, PAD), tokens, TOKENIZER)
        assert (found.status, found.value) == ("warn", 1.0)
        assert f"The student stops by {STOP} ('</s>'), the teacher by" in found.evidence
        assert "generation_config.json" in found.advice

    def test_a_teacher_that_knows_another_one_and_uses_the_students(self):
        tokens = np.array([5, STOP])
        found = ends_of_models([STOP], [STOP, PAD], self.kept(7, STOP), tokens, TOKENIZER)
        assert (found.status, found.value) == ("pass", 0.0)

    def test_no_end_was_seen(self):
        found = ends_of_models([STOP], [PAD], None, np.empty(0, int), TOKENIZER)
        assert (found.status, "no response ended" in found.evidence) == ("unknown", True)
