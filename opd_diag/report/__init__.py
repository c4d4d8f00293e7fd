"""One run, one page: a report as HTML, JSON, Markdown, CSV and parquet.

================  ==========================================================================
`content.py`      ``Report``: what a report holds, and how it is written
`json_file.py`    ``report.json``, its JSON Schema and reading it back
`markdown.py`     ``report.md``, short enough for a pull-request comment
`junit.py`        verdicts and self-tests as JUnit XML
`page.py`         ``report.html``, one file that works offline
`study.py`        ``write_study``: one question of :mod:`opd_diag.studies`, one page
`figures.py`      every picture of the page, drawn once
`maps.py`         of them the maps by depth and step, each with its sentence
`tails.py`        and how far the farthest states are
`served.py`       what a server's top K leaves open, and which K would do
`sections.py`     the tables and lists of the page, as plain data for the template
`belief.py`       what the self-tests said, and which conclusions hang on the average
`grids.py`        small tables beside the pictures: baselines, strata, ends of responses
`logged.py`       what it says of the trainer's own log
`reconciled.py`   what it says of our values against the loss that the trainer logged
`choosing.py`     which responses it shows token by token, and what leads to them
`tokens.py`       the view of them
`token_reader.py` what it says of each token
`shown_tokens.py` records of what is shown
`responses.py`    the responses it gives to be read, and what it says first of a false success
`provenance.py`   what was measured and how, for ``report.json`` and the page
`measured.py`     what the page says of that, and what it cannot show
`readings.py`     one sentence a picture, computed from the tables
`wording.py`      what pages call things; a user's text made to fit a line
`templates/`      the page and its style sheet
================  ==========================================================================
"""

from opd_diag.report.content import Report
from opd_diag.report.json_file import load_report_json

__all__ = ["Report", "load_report_json"]
