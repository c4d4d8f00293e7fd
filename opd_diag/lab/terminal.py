"""What the commands of this room have in common: threads, a clock before every line, one sentence for an error."""

import argparse
import time
from collections.abc import Callable, Sequence

import torch
from transformers.utils.logging import disable_progress_bar

from opd_diag.errors import OpdDiagError

Say = Callable[[str], None]


def run(
    parser: argparse.ArgumentParser,
    work: Callable[[argparse.Namespace, Say], object],
    arguments: Sequence[str] | None = None,
) -> None:
    """Parse the command line and do the work.

    Parameters
    ----------
    parser : ArgumentParser
        Gets one more option, ``--threads``.
    work : callable
        Receives the options and a function that prints one line of progress.
    arguments : sequence of str, optional
        Instead of the command line.
    """
    parser.add_argument("--threads", type=int, default=1, help="torch threads (default 1, which repeats exactly)")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    disable_progress_bar()
    start = time.monotonic()
    try:
        work(options, lambda line: print(f"[{time.monotonic() - start:5.0f} s] {line}", flush=True))
    except OpdDiagError as error:
        parser.error(str(error))
