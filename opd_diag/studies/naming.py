"""Short names that tell folders and hub ids apart."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path


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
