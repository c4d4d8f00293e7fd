"""The questions that users ask, each answered on their own models: a function that gives a :class:`Study`.

=============  ===========================================================================
`study.py`     ``Study``: verdicts, tables, pictures, and what cannot be told
`teachers.py`  ``teachers``: which teacher fits a student and brings something new
`compare.py`   ``compare``: finished reports side by side, paired where they share prompts
`outcome.py`   ``outcome``: what came of a run at its task; from a finished report alone
=============  ===========================================================================

:func:`opd_diag.report.study.write_study` writes one as a page.
"""

from opd_diag.studies.compare import compare
from opd_diag.studies.outcome import outcome
from opd_diag.studies.study import Picture, Shown, Study
from opd_diag.studies.teachers import teachers

__all__ = ["Picture", "Shown", "Study", "compare", "outcome", "teachers"]
