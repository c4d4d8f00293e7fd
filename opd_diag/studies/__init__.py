"""The questions that users ask, each answered on their own models: a function that gives a :class:`Study`.

=============  ===========================================================================
`study.py`     ``Study``: verdicts, tables, pictures, and what cannot be told
`teachers.py`  ``teachers``: which teacher fits a student and brings something new
`teachers_planned.py` which teachers: their names, what each is asked for, one planned replay each
`teachers_measured.py` what is measured of each, and of every two
`teachers_shown.py` what its page says: headline, lines, readings
`teachers_beside.py` its small tables
`served.py`    what a study says of a teacher behind a server, and refuses
`cold_start.py` ``cold_start``: whether a pair needs a cold start, data for one, and what one did
`cold_start_shown.py` what its page shows: small tables, pictures, responses to read
`horizon.py`   ``horizon``: how long responses may be
`horizon_shown.py` what its page shows: headline and small tables
`horizon_pictures.py` its pictures
`prompts.py`   ``prompts``: which prompts to train on, and which template or set is closer to agreement
`prompts_shown.py` what its page says: headline, readings and small tables
`scored_prompts.py` sets of prompts, planned together and scored
`compare.py`   ``compare``: finished reports side by side, paired where they share prompts
`outcome.py`   ``outcome``: what came of a run at its task; from a finished report alone
=============  ===========================================================================

:func:`opd_diag.report.study.write_study` writes one as a page.
"""

from opd_diag.studies.cold_start import cold_start
from opd_diag.studies.compare import compare
from opd_diag.studies.horizon import horizon
from opd_diag.studies.outcome import outcome
from opd_diag.studies.prompts import prompts
from opd_diag.studies.study import Picture, Shown, Study
from opd_diag.studies.teachers import teachers

__all__ = ["Picture", "Shown", "Study", "cold_start", "compare", "horizon", "outcome", "prompts", "teachers"]
