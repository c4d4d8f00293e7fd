"""Responses that trainers recorded as they went: which files there are, and what is in them.

==================== ===================================================================================
`discovery.py`       ``find_recorded``: files, their formats and steps; by names and first lines
`reading.py`         ``read_recorded``: the responses of one file, whatever trainer wrote it
`recorded_file.py`   ``RecordedFile``; ``Format``: what a format is told by
`formats.py`         ``FORMATS``: all formats in order of precedence
`lines.py`           lines of records, lines of columns, a last line that is half written
`values.py`          typed values, or an error that names the place
`tokens.py`          ids and masks made into prompt and response
`pickles.py`         pickles, only as far as the user allows
one for each family  `trl`, `verl`, `kdflow`, `slime`, `nemo_rl`, `prime_tokens`, `prime_traces`,
                     `skyrl_batches`, `skyrl_evals`, `areal`, `swift`, `roll`, `own`
==================== ===================================================================================

What a file tells, by format; N is its step as the trainer counts. Where the numbers are from stands in each module.

==================  ====================  =======================  ==============================================
format              exactness             updates behind           besides
==================  ====================  =======================  ==============================================
``trl``             text-stripped         N - 1                    reward, where one function gives it
``verl``            text-stripped         N - 1; N of validations  reward, answer
``kdflow``          text-stripped         N - 1                    reward
``slime``           ids                   N                        masks, log-probabilities, end, reward, answer
``nemo-rl``         ids                   N - 1                    masks, log-probabilities, reward
``nemo-rl-text``    text-stripped         N - 1
``prime-tokens``    ids                   unknown                  masks, log-probabilities
``prime-traces``    ids                   as recorded              masks, log-probabilities, end, reward, prompt
``skyrl-batches``   ids                   N - 1                    masks, log-probabilities
``skyrl-evals``     text-with-specials    N                        end, reward, answer
``areal``           text-with-specials    as recorded              reward
``ms-swift``        text-stripped         N - 1, where it tells    reward, where one function gives it; answer
``roll``            text-stripped         N                        reward, answer, temperature
``opd-diag``        ids                   as recorded              all of ``Rollout``
==================  ====================  =======================  ==============================================

Updates are counted as the trainer counts its checkpoints. Asynchronous trainers are staler than this table where they
record no version. Of text whose special tokens were stripped neither the exact prompt nor the end is known.

A new format is one module with a ``read`` and a ``FORMATS``, and its name in `formats.py`.
"""

from opd_diag.runs.recorded.discovery import find_recorded
from opd_diag.runs.recorded.formats import FORMATS
from opd_diag.runs.recorded.pickles import PICKLE_REFUSED
from opd_diag.runs.recorded.reading import read_recorded, recorded_file
from opd_diag.runs.recorded.recorded_file import Format, RecordedFile

__all__ = ["FORMATS", "PICKLE_REFUSED", "Format", "RecordedFile", "find_recorded", "read_recorded", "recorded_file"]
