"""Whether ids mean what they should: one map for both tokenizers, and models that can read what they are given.

A model that reads permuted ids still gives distributions, and curves that fall. What it cannot do is tell which token
comes *where*. So the tokens are held against the same tokens at other states: how much more probable is a token at its
own state than there? What a model likes to say everywhere falls out, as do names that nobody can foresee; and a model
is held against what it expects of tokens of its own, so that a small or random one is asked for little.

Prompts are not asked: models trained on responses alone give a prompt less than a uniform distribution does (-8.5 and
-9.6 nats a token in the bundled runs, where uniform is -6.2). Ids that are wrong for both models alike, in what they
read and in what they write, are therefore not seen; their tokenizers are compared for that.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from opd_diag.records.selftest import Outcome, SelfTest
from opd_diag.replay.selftests.kept import Floats, Ints, Kept
from opd_diag.replay.selftests.limits import DIVERSE, KNOWN, KNOWN_SHARE, LEAST_TOKENS, LEVEL
from opd_diag.stats import Estimate, clustered_mean
from opd_diag.tokenization import Tokenizer, check_same_ids

NAME = "vocabulary"


def vocabulary_map(ids: Iterable[int], student: Tokenizer, teacher: Tokenizer | None) -> SelfTest:
    """Say that both tokenizers read every id that occurs as the same token.

    Raises
    ------
    TokenizerMismatchError
        They do not: nothing could be scored.
    """
    occurring = set(ids)
    pair = "student and teacher"
    if teacher is None:
        why = "The teacher brings no tokenizer; its ids are taken to mean what the student's mean."
        advice = "Save the tokenizer with the teacher, or be sure that it is the student's."
        return SelfTest(NAME, pair, "unknown", math.nan, 0.0, why, advice)
    check_same_ids(occurring, student, teacher)
    said = f"Both tokenizers read all {len(occurring)} ids that occur as the same tokens."
    return SelfTest(NAME, pair, "pass", 0.0, 0.0, said, "")


def vocabulary_of_server(n: int) -> SelfTest:
    """Say that to a teacher that is not loaded here `n` ids are the text that they are to the student's tokenizer."""
    said = f"To the teacher all {n} ids that occur are the text that they are to the student's tokenizer."
    return SelfTest(NAME, "student and teacher", "pass", 0.0, 0.0, said, "")


def vocabulary_of_responses(model: str, kept: Kept, tokens: Ints) -> SelfTest:
    """Ask whether a model can read responses, its own or another's.

    Parameters
    ----------
    model
        How messages call it.
    kept
        Its side of the scores.
    tokens
        (N,) tokens of the responses, one a state.

    Returns
    -------
    SelfTest
        Its value is by how many nats the tokens are more probable at their own state than elsewhere; its threshold the
        part of what the model expects of itself that this must reach, established by an interval clustered by prompt.
    """
    shares = np.unique(tokens, return_counts=True)[1] / max(1, len(tokens))
    variety = float(-(shares * np.log(shares)).sum())
    if len(tokens) < LEAST_TOKENS or variety < DIVERSE:
        why = f"The {len(tokens)} tokens are too few, or too much alike, to tell whether {model} reads them rightly."
        return SelfTest(NAME, model, "unknown", math.nan, math.nan, why, "Score more prompts, or longer responses.")
    known, expected = known_of_place(kept, tokens), expected_of_place(kept, tokens)
    margin = clustered_mean(known - KNOWN_SHARE * expected, kept.prompts, level=LEVEL)
    wanted = clustered_mean(expected, kept.prompts, level=LEVEL)
    status = _status(margin, wanted)
    return SelfTest(
        name=NAME,
        model=model,
        status=status,
        value=float(known.mean()),
        threshold=KNOWN_SHARE * float(expected.mean()),
        evidence=f"To {model}, the {len(tokens)} tokens of the responses are {known.mean():.2g} nats more probable at "
        f"their own state than elsewhere, of {expected.mean():.2g} that it expects of its own; their mean "
        f"log-probability is {kept.sampled.mean():.3g} nats, uniform would be {-math.log(kept.vocabulary):.3g}.",
        advice=_ADVICE[status],
    )


_ADVICE = {
    "pass": "",
    "fail": "It reads these ids as other tokens, or has nothing to do with this task: compare its tokenizer and the "
    "order of the rows of its embedding and head with those of the model that wrote them.",
    "unknown": "Read a few responses to see whether they are text, and score more prompts.",
}


def known_of_place(kept: Kept, tokens: Ints) -> Floats:
    """Give, state by state, by how many nats a token is more probable there than all tokens are on average."""
    known: Floats = kept.clipped(tokens) - kept.clipped_mean(tokens)
    return known


def expected_of_place(kept: Kept, tokens: Ints) -> Floats:
    """Give what :func:`known_of_place` would be, on average, for tokens that the model drew itself."""
    own = (np.exp(kept.logprobs) * kept.logprobs).sum(1) + kept.rest * kept.floor
    expected: Floats = own - kept.clipped_mean(tokens)
    return expected


def _status(margin: Estimate, expected: Estimate) -> Outcome:
    if margin.ci_low > 0:
        return "pass"
    return "fail" if margin.ci_high < 0 and expected.ci_low > KNOWN else "unknown"
