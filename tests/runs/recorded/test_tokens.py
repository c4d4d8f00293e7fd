"""Ids and masks made into prompt and response: laws that hold for any mask."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from opd_diag.errors import RolloutsError
from opd_diag.records.recorded import Recorded
from opd_diag.runs.recorded.tokens import with_ids

BLANK = Recorded("here", 1, 0, "text-stripped")


@given(st.lists(st.tuples(st.integers(0, 99), st.booleans()), max_size=12))
def test_prompt_and_response_are_the_ids_up_to_the_last_generated_one(pairs):
    ids, flags = [i for i, _ in pairs], [flag for _, flag in pairs]
    logprobs = [-1.0 - i for i in range(len(ids))]
    made = with_ids(BLANK, ids, flags, logprobs)
    if True not in flags or flags[0]:
        assert made is None
        return
    own = made.generated or (True,) * len(made.response_ids)
    assert made.exactness == "ids"
    assert (*made.prompt_ids, *made.response_ids) == tuple(ids[: len(flags) - flags[::-1].index(True)])
    assert (False,) * len(made.prompt_ids) + own == tuple(flags[: len(made.prompt_ids) + len(own)])
    assert own[0]
    assert own[-1]
    start = len(made.prompt_ids)
    kept = {start + i: p for i, p in enumerate(made.sampled_logprobs) if not math.isnan(p)}
    assert kept == {i: logprobs[i] for i, flag in enumerate(flags) if flag}


def test_a_given_start_holds():
    made = with_ids(BLANK, [1, 2, 3, 4], [False, False, True, True], start=1)
    assert (made.prompt_ids, made.response_ids, made.generated) == ((1,), (2, 3, 4), (False, True, True))
    assert made.sampled_logprobs is None
    assert with_ids(BLANK, [1, 2], [False, True], start=0) is None
    assert with_ids(BLANK, [1, 2, 3], [True, True, False], start=2) is None


@pytest.mark.parametrize("filler", [[0.0, 0.0, 0.0], [0, math.nan, math.nan], [-5.0, 0.0, math.nan]])
def test_log_probabilities_that_nobody_wrote_are_unknown(filler):
    assert with_ids(BLANK, [1, 2, 3], [False, True, True], filler).sampled_logprobs is None


def test_lists_of_different_lengths_are_refused():
    with pytest.raises(RolloutsError) as caught:
        with_ids(BLANK, [1, 2, 3], [False, True, True], [0.5])
    assert str(caught.value) == (
        "here: 3 token ids, but 1 entries of log-probabilities. Mend it or leave the file out."
    )
