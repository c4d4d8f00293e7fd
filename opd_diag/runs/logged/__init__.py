"""What the trainer logged as it went: found by names, read however damaged, and named as we name things.

================  ==========================================================================
`finding.py`      ``find_logs``: which logs there are, by names
`lines.py`        numbers out of JSON and text
`tensorboard.py`  numbers out of TensorBoard's event files, an extra
`trainers.py`     who wrote a log, and what its steps count
`reading.py`      ``read_logs``: one number a row; where logs overlap the newest holds
`entries.py`      the tables: a trainer's name for a metric, ours, sign and differences
`canonical.py`    ``entry_for``: looking a name up in them
`gathered.py`     ``logs_of_run``: all of it for a report, and what was left out
================  ==========================================================================
"""

from opd_diag.runs.logged.canonical import entry_for
from opd_diag.runs.logged.finding import LogFile, find_logs
from opd_diag.runs.logged.gathered import LogsOfRun, logs_of_run
from opd_diag.runs.logged.reading import Logged, read_logs

__all__ = ["LogFile", "Logged", "LogsOfRun", "entry_for", "find_logs", "logs_of_run", "read_logs"]
