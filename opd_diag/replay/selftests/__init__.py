"""Self-tests: what a report asks of itself before anyone believes a verdict.

Each is one function that takes models, scores or responses and gives a :class:`~opd_diag.records.selftest.SelfTest`. A
failed one stops nothing: verdicts that rest on it become ``unknown``.

=================== =====================================================================================
`limits.py`         what they hold numbers against, with reasons
`probe.py`          the few responses they look at
`kept.py`           arithmetic on the kept ids of a state
`expected.py`       how far tokens are from what their model expected
`self_teacher.py`   the student as its own teacher
`shift.py`          tokens, records and first tokens, off by one
`batches.py`        sequences together and alone, from the precision floor
`template.py`       chat template, BOS, generation prompt, first differing id
`ends.py`           stop tokens, responses that lack theirs or go on after it
`vocabulary.py`     the map of ids, and whether models can read what they are given
`logprobs.py`       log-probabilities against replayed ones, and the temperature that fits
`repeatability.py`  scoring twice
`inputs.py`         those that need no model
`pair.py`           those that run student and teacher
`written.py`        those of what one model wrote
`battery.py`        ``Battery``: all of them, each when what it needs is there
`stored.py`         their file in OUT_DIR
`alone.py`          they and what they need, without a report
=================== =====================================================================================
"""

from opd_diag.replay.selftests.battery import Battery
from opd_diag.replay.selftests.stored import SELFTESTS, load_selftests, write_selftests

__all__ = ["SELFTESTS", "Battery", "load_selftests", "write_selftests"]
