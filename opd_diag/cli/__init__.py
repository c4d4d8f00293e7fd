"""The terminal door: parse, call, draw progress, print, exit code.

=============  ===============================================================================
`program.py`   the commands that make, judge and show reports
`doctor.py`    the command that runs the self-tests alone
`store.py`     the command that looks after a shared folder of parts
`outcome.py`   the command that tells what came of a run at its task
`horizon.py`   the command that tells how long responses may be
`teachers.py`  the command that holds teachers side by side
`cold_start.py` the command that tells whether a pair needs a cold start, and what one did
`prompts.py`   the command that scores prompts, chooses some, and compares templates or sets
`compare.py`   the command that holds finished reports against each other
`options.py`   commands that take options of another one
`exits.py`     which verdicts make a command fail
`grading.py`   a user's own Python function, named on the command line
`inspecting.py` what ``inspect`` says of a run
`printing.py`  what is said of a report: plan, cost, verdicts
`terminal.py`  the two streams, and how an error becomes one sentence
`progress.py`  long work, drawn while it goes on
=============  ===============================================================================
"""

from opd_diag.cli.program import app, main

__all__ = ["app", "main"]
