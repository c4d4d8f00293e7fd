"""The two streams of the terminal, and how an error becomes one sentence and an exit code."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from typing import ParamSpec, TypeVar

import typer
from rich.console import Console
from rich.markup import escape

from opd_diag.errors import InputError, OpdDiagError, RankError
from opd_diag.text import visible

P = ParamSpec("P")
R = TypeVar("R")

UNCUT = 10_000
"""Width at which no cell of a table is cut; the terminal wraps long lines itself."""
out = Console(soft_wrap=True, highlight=False, emoji=False, width=UNCUT)
err = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

INTERRUPTED = 130


def plain(text: str) -> str:
    r"""Give text of the user's, or of a file's, so that it prints as it is: no markup, no control characters.

    A name may hold line breaks, escape sequences, bytes that are no text, or marks that turn the direction of reading.

    Examples
    --------
    >>> print(plain("a\x1bb\nдва [red]"))
    a\x1bb\nдва \[red]
    """
    return escape(inert(text))


def inert(text: str) -> str:
    r"""Give text without control characters, on one line, for where markup is not read.

    Examples
    --------
    >>> print(inert("a\x1bb\n[red]"))
    a\x1bb\n[red]
    """
    return visible(text, keep="")


def _refuse_ranks() -> None:
    """Refuse to be one of several processes that a launcher started: all of them would do, and write, the same."""
    ranks = os.environ.get("WORLD_SIZE", "")
    if "LOCAL_RANK" in os.environ and ranks.isdigit() and int(ranks) > 1:
        raise InputError(
            f"A launcher started {ranks} processes of opd-diag, which is one process: start it without torchrun. "
            "--tensor-parallel N starts the processes of a teacher in shards itself, --device-map auto spreads large "
            "models over GPUs, and a teacher may run behind a server."
        )


def shows_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn our errors into one sentence and exit code 2, Ctrl-C into 130."""

    @functools.wraps(command)
    def shown(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            _refuse_ranks()
            RankError.ends_process = True
            return command(*args, **kwargs)
        except OpdDiagError as error:
            code = f" [{error.code}]" if error.code else ""
            err.print(f"[red]error:[/red] {plain(str(error) + code)}")
            raise typer.Exit(2) from error
        except PermissionError as error:  # of a folder above something that was named
            err.print(f"[red]error:[/red] {plain(f'{error.filename} may not be read. Ask for the permission.')}")
            raise typer.Exit(2) from error
        except KeyboardInterrupt as error:
            err.print("Interrupted. Run the same command again: what was finished is kept.")
            raise typer.Exit(INTERRUPTED) from error
        finally:
            RankError.ends_process = False

    return shown
