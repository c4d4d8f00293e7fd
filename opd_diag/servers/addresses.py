"""What a user writes for a server: ``vllm=http://127.0.0.1:8000``; or for vLLM in this process: ``vllm=DIR``.

Behind a ``#`` stands what holds for this teacher alone: ``vllm=http://127.0.0.1:8000#big,top=-1,tokenizer=org/model``.
"""

from __future__ import annotations

import ipaddress
import os
import re
from dataclasses import dataclass
from urllib.parse import urlsplit

from opd_diag.errors import InputError
from opd_diag.servers.answers import ALL
from opd_diag.servers.server import NAMES
from opd_diag.text import visible

KEY_VARIABLE = "OPD_DIAG_SERVER_KEY"
"""The environment variable with the key that a server asks for, if it asks for one."""

OWN = ("top", "tokenizer")
"""What an address may say of its teacher by name, behind the name of the model."""


@dataclass(frozen=True)
class Addressed:
    """An address, and what it says of its teacher; None where it says nothing."""

    address: str
    """What stands before the ``#``."""
    model: str | None = None
    """What the server calls it."""
    top: int | None = None
    """Most probable ids that are asked for, -1 for the whole vocabulary."""
    tokenizer: str | None = None
    """Folder or hub id."""


_HUB_ID = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*", re.ASCII)


def is_address(text: str) -> bool:
    """Tell whether what may also be a folder or a hub id is meant for an engine, well written or not.

    Examples
    --------
    >>> is_address("vllm=http://127.0.0.1:8000"), is_address("http://127.0.0.1:8000"), is_address("runs/teacher")
    (True, True, False)
    """
    engine, equals, url = text.strip().partition("=")
    return (bool(equals) and engine in NAMES) or (url if equals else engine).startswith(("http://", "https://"))


def addressed(text: str) -> Addressed:
    """Take what holds for one teacher off its address; a folder that has a ``#`` in its name is a folder.

    Raises
    ------
    InputError
        What stands behind the ``#`` is no name, ``top=K`` or ``tokenizer=T``, or stands there twice.

    Examples
    --------
    >>> addressed("vllm=http://host:8000#org/big,top=64")
    Addressed(address='vllm=http://host:8000', model='org/big', top=64, tokenizer=None)
    >>> addressed("sglang=http://host:30000").model
    """
    text = text.strip()
    engine, _, rest = text.partition("=")
    if "#" not in text or (engine in NAMES and os.path.isdir(rest)):
        return Addressed(text)
    address, _, said = text.partition("#")
    found: dict[str, str] = {}
    for part in said.split(","):
        name, equals, value = (word.strip() for word in part.partition("="))
        key, value = (name, value) if equals else ("model", name)
        if key not in ("model", *OWN) or not value or key in found:
            raise InputError(
                f"Behind # an address has the name of one model, top=K and tokenizer=T, each once and with commas "
                f"between them; found {_short(said)!r}. Write it as #NAME,top=64, or use --teacher-model for other "
                "names."
            )
        found[key] = value
    return Addressed(address.strip(), found.get("model"), _top(found.get("top")), found.get("tokenizer"))


def model_here(address: str) -> str | None:
    """Give the folder or hub id of ``vllm=…``, which vLLM loads in this process; None where it is none.

    Examples
    --------
    >>> model_here("vllm=Qwen/Qwen3-8B"), model_here("vllm=http://127.0.0.1:8000"), model_here("sglang=org/model")
    ('Qwen/Qwen3-8B', None, None)
    """
    engine, equals, model = address.strip().partition("=")
    if engine != "vllm" or not equals or "://" in model:
        return None
    return model if os.path.isdir(model) or _HUB_ID.fullmatch(model) else None


def parsed(address: str) -> tuple[str, str]:
    """Take an address apart into engine and URL, without a final slash or ``/v1``.

    Raises
    ------
    InputError
        It names no engine, is no http address, or has a password in it.

    Examples
    --------
    >>> parsed("sglang=https://teacher.example:30000/v1/")
    ('sglang', 'https://teacher.example:30000')
    """
    engine, equals, url = address.strip().partition("=")
    if not equals or engine not in NAMES:
        raise InputError(
            f"A server is written as vllm=http://HOST:PORT or sglang=http://HOST:PORT; found {_short(address)!r}."
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise InputError(f"{_short(url)!r} is no address: {error}. Write {engine}=http://HOST:PORT.") from error
    if parts.scheme not in ("http", "https") or not host:
        what, loaded = (
            ("no http address, folder or hub id", ", or vllm=DIR") if engine == "vllm" else ("no http address", "")
        )
        raise InputError(f"{_short(url)!r} is {what}. Write {engine}=http://HOST:PORT{loaded}.")
    if parts.username is not None or parts.password is not None:
        raise InputError(
            f"The address of {host} has a name or password in it, which would be written to reports. Leave it out, and "
            f"put the server's key into the environment variable {KEY_VARIABLE}."
        )
    if parts.query or parts.fragment:
        raise InputError(f"{_short(url)!r} has more than host, port and path. Write {engine}=http://HOST:PORT.")
    return engine, url.rstrip("/").removesuffix("/v1")


def is_loopback(url: str) -> bool:
    """Tell whether an address is this machine's own; it is then never asked for through a proxy."""
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def host_of(url: str) -> str:
    """Give the host of an address; of all that are this machine's own, ``localhost``.

    Examples
    --------
    >>> host_of("http://Teacher.example:8000"), host_of("http://127.0.0.1:8000"), host_of("http://[::1]:8000")
    ('teacher.example', 'localhost', 'localhost')
    """
    return "localhost" if is_loopback(url) else urlsplit(url).hostname or ""


def _top(text: str | None) -> int | None:
    if text is None:
        return None
    try:
        top = int(text)
    except ValueError:
        top = 0
    if top < 1 and top != ALL:
        raise InputError(
            f"Behind # in an address top must be at least 1, or {ALL} for the whole vocabulary, found {_short(text)!r}."
        )
    return top


def _short(text: str) -> str:
    shown = visible(text, keep="")
    return shown if len(shown) <= 100 else shown[:99] + "…"
