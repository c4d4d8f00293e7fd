"""What a study says of a teacher behind a server: who answered, and what is left out of it and why."""

from __future__ import annotations

from opd_diag.replay.served import Served


def of_server(served: Served, *, hidden: str = "", whole: str = "") -> str:
    """Say who answered, and what is left out for it.

    Parameters
    ----------
    served
        The teacher.
    hidden
        What of this study takes the teacher's hidden states or weights, as words of a sentence.
    whole
        What takes its whole distributions, and is left out where they do not come back.
    """
    said = [f"The teacher is {served.said()}"]
    if hidden:
        said.append(f"its hidden states and weights are not here, so these are left out: {hidden}")
    if whole and not served.whole:
        said.append(f"the rest of its vocabulary is not known, so these are left out: {whole}")
    bounds = "" if served.whole else " What hangs on the rest lies between bounds; nothing is filled in."
    return f"{'; '.join(said)}.{bounds}"
