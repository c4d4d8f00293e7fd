"""What studies call models and sets: short names, folders, and whose progress is told."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from opd_diag.records.files import content_key
from opd_diag.replay.parts import Progress

MOST_LETTERS = 60
"""Of a name, in that of a folder."""


def distinct_names(paths: Sequence[str]) -> list[str]:
    """Give each path a name of its own: its last part, or as many as tell them all apart.

    Examples
    --------
    >>> distinct_names(["a/x", "b/y"]), distinct_names(["a/x", "b/x"])
    (['x', 'y'], ['a/x', 'b/x'])
    """
    longest = max((len(Path(path).parts) for path in paths), default=1)
    for parts in range(1, longest + 1):
        names = ["/".join(Path(path).parts[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names if paths else []


def folder_name(name: str) -> str:
    """Give a name for a folder: `name` where it can be one, else what can be of it and a hash that tells it apart.

    Examples
    --------
    >>> folder_name("new"), folder_name("a/b-c"), folder_name("a-b/c")
    ('new', 'a-b-c-29818b5a', 'a-b-c-7d1d58e4')
    """
    plain = "".join(c if c.isalnum() or c in "-_." else "-" for c in name)[:MOST_LETTERS]
    return plain if plain == name and plain.strip(".") else f"{plain}-{content_key(name)[:8]}"


def study_folder(study: str, student: str | Path, out: str | Path | None = None) -> Path:
    """Give `out`, or for a study of models ``opd-diag/<study>/<student name>`` under the working directory.

    Examples
    --------
    >>> study_folder("teachers", "org/model").as_posix()
    'opd-diag/teachers/model'
    """
    if out is not None:
        return Path(out).expanduser()
    path = Path(student).expanduser()
    return Path("opd-diag") / study / (path.resolve().name if path.is_dir() else path.name)


def under_name(progress: Progress | None, name: str) -> Progress | None:
    """Let progress say which of several models or sets it is of."""
    return None if progress is None else lambda what, done, total: progress(f"{name}: {what}", done, total)
