"""Reading answers that may be of any form: a path into JSON, sizes, an array, one sampled response."""

from __future__ import annotations

import base64
import binascii
import io
import math
from typing import Any

import numpy as np

from opd_diag.errors import ServerError
from opd_diag.servers import contract
from opd_diag.servers.answers import Floats, Sampled
from opd_diag.servers.server import About
from opd_diag.text import visible

_BYTES_A_VALUE = 2**8
"""What one id with its log-probability, rank and text takes at most, as JSON; some 90 as a rule."""


def at_path(data: Any, *path: str | int) -> Any:
    """Follow names and places into JSON; None where it has none.

    Examples
    --------
    >>> at_path({"choices": [{"text": "a"}]}, "choices", 0, "text")
    'a'
    >>> at_path([], 0, "text") is None
    True
    """
    for step in path:
        if isinstance(step, str):
            data = data.get(step) if isinstance(data, dict) else None
        else:
            data = data[step] if isinstance(data, list) and len(data) > step else None
    return data


def most_bytes(rows: int, ids: int) -> int:
    """Bound the bytes of an answer with so many rows of so many ids each.

    Examples
    --------
    >>> most_bytes(1000, 33) // 2**20
    9
    """
    return 2**20 + _BYTES_A_VALUE * rows * (ids + 1)


def sampled_of(about: About, ids: Any, logprobs: Any, finish: Any, most: int) -> Sampled:
    """Check one sampled response.

    Parameters
    ----------
    about
        Whose.
    ids, logprobs
        One each a token; no log-probabilities where they are not wanted.
    finish
        Why it ended.
    most
        Tokens that were allowed.

    Raises
    ------
    ServerError
        It is no response, or was broken off.
    """
    if finish not in ("stop", "length"):
        mend = "Look into the server's log, and ask again." if about.url else about.mend
        found = str(finish)[:40]
        raise ServerError(f"{about.name}: a response that ends by stop or length was expected, found {found!r}. {mend}")
    integers = isinstance(ids, list) and all(type(one) is int and one >= 0 for one in ids)
    if not integers or not 0 < len(ids) <= most:
        found = f"{len(ids)} of them" if integers else "none"
        raise ServerError(f"{about.name}: 1 to {most} token ids a response were expected, found {found}. {about.mend}")
    values = None if logprobs is None else contract.log_probabilities(logprobs, len(ids))
    if logprobs is not None and values is None:
        raise ServerError(
            f"{about.name}: {len(ids)} log-probabilities of sampled tokens were expected, found others. "
            f"{about.mend_logits}"
        )
    return Sampled(tuple(ids), None if values is None else np.asarray(values), finish)


def npy_array(coded: Any, shape: tuple[int, ...], about: About) -> Floats:
    """Decode base64 of an .npy array of floats; of nothing else, and never of pickled objects.

    Raises
    ------
    ServerError
        It is none, or has another shape.
    """
    found = "no .npy array"
    try:
        stream = io.BytesIO(base64.b64decode(coded, validate=True))
        if np.lib.format.read_magic(stream) == (1, 0):
            stored, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
            found = visible(f"{dtype} of shape {stored}", keep="")[:100]
            content = stream.read()
            if stored == shape and dtype.kind == "f" and len(content) == dtype.itemsize * math.prod(shape):
                values = np.frombuffer(content, dtype).astype(np.float64)
                return values.reshape(shape[::-1]).T if fortran else values.reshape(shape)
    except (TypeError, ValueError, binascii.Error, EOFError):
        pass
    raise ServerError(
        f"{about.name}: floating-point numbers of shape {shape} were expected for the ids asked, found {found}. "
        f"{about.mend}"
    )
