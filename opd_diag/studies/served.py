"""What a study says of a teacher behind a server: who answered, and what is left out of it and why."""

from __future__ import annotations

from pathlib import Path

from opd_diag.errors import InputError
from opd_diag.replay import ReplayPlan
from opd_diag.replay.served import Served
from opd_diag.servers import addressed, is_address, model_here
from opd_diag.verdicts.unanswered import BOUNDS_ADVICE


def of_server(served: Served, *, hidden: str = "", whole: str = "", bounds: bool = False) -> str:
    """Say who answered, and what is left out for it.

    Parameters
    ----------
    served
        The teacher.
    hidden
        What of this study takes the teacher's hidden states or weights, as words of a sentence.
    whole
        What takes its whole distributions, and is left out where they do not come back.
    bounds
        Whether what else hangs on them is shown between bounds.
    """
    said = [f"The teacher is {served.said()}"]
    if hidden:
        said.append(f"its hidden states and weights are not here, so these are left out: {hidden}")
    if whole and not served.whole:
        said.append(f"the rest of its vocabulary is not known, so these are left out: {whole}")
    between = " What else hangs on the rest lies between bounds; nothing is filled in." * (bounds and not served.whole)
    return f"{'; '.join(said)}.{between}"


def refuse_top_k(plan: ReplayPlan, what: str, instead: str = "") -> None:
    """Refuse what needs more of a server's teacher than its most probable ids, before any work.

    Parameters
    ----------
    plan
        Of a replay.
    what
        What needs it, and which quantity that is, as ``--by x needs y``.
    instead
        What else may be done, as a sentence without its end.

    Raises
    ------
    InputError
        Its teacher's server is asked for a top K.
    """
    if plan.served is not None and not plan.served.whole:
        raise InputError(
            f"{what}, and the teacher's top {plan.served.top} gives a lower bound of it alone. "
            f"{f'{instead}, or a' if instead else 'A'}{BOUNDS_ADVICE[1:]}"
        )


def folder_in(teacher: str | Path) -> str | Path:
    """Give the folder or hub id that ``vllm=…`` loads a teacher from; what else is named is given back."""
    text = str(teacher)
    return (model_here(addressed(text).address) or teacher) if is_address(text) else teacher
