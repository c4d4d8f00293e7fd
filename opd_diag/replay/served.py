"""A teacher behind a server, known by what the server says of itself; or in vLLM here, known by its files."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from opd_diag.errors import CheckpointError, InputError, TokenizerMismatchError
from opd_diag.inference.served_teacher import ServedTeacher
from opd_diag.inference.vllm_sampling import READ_BY_VLLM, unread_by_vllm
from opd_diag.records.checkpoint import Checkpoint
from opd_diag.records.files import content_key
from opd_diag.records.settings import Settings
from opd_diag.replay.recorded import TEACHER_LABEL
from opd_diag.runs.contents import refuse_changed
from opd_diag.runs.digests import Digests
from opd_diag.runs.fingerprint import checkpoint_content
from opd_diag.servers import ALL, Server, addressed, connect, is_address
from opd_diag.servers.addresses import model_here
from opd_diag.text import visible
from opd_diag.tokenization import Tokenizer

CHECKED_AT_ONCE = 256
"""Ids whose text a server is asked for in one request."""

MOST_TOP = 128
"""Most probable ids that are asked for where the server allows as many and ``--teacher-top`` names no other number:
those of the concentration curve."""


@dataclass(frozen=True)
class Served:
    """The teacher of a plan, where it stands behind a server."""

    server: Server = field(repr=False, compare=False)
    address: str
    top: int
    """Most probable ids asked for at each state; -1: the whole vocabulary."""
    at_once: int
    """Requests in flight."""
    weights_key: str | None = None
    """Fingerprint of the folder that vLLM loaded here; None where nothing but a name is known."""

    @property
    def name(self) -> str:
        """What tables call it: the last part of the model's name."""
        return self.server.about.model.rstrip("/").rpartition("/")[2] or self.server.about.model

    @property
    def place(self) -> str:
        """Where it is and what it is called there, as a path that ends in its name."""
        return f"{self.address}/{self.server.about.model}"

    @property
    def key(self) -> str:
        """Of its weights where they lie in a folder here, else of what the server says that it is."""
        about = self.server.about
        known = [about.model, about.root] if self.weights_key is None else [self.weights_key]
        return content_key(["served", about.engine, about.version, *known])

    @property
    def is_loaded(self) -> bool:
        """Whether vLLM loaded it in this process."""
        return model_here(self.address) is not None

    @property
    def whole(self) -> bool:
        """Whether whole distributions come back."""
        return self.top == ALL

    @property
    def decides(self) -> list[object]:
        """Give what else decides which numbers come back."""
        about = self.server.about
        return [self.top, about.exact_ids and ("whole" if self.whole else "one of them drawn"), about.vocab_size]

    @property
    def checkpoint(self) -> Checkpoint:
        """The teacher as plans and pages have it."""
        return Checkpoint(TEACHER_LABEL, None, Path(self.server.about.model), "served")

    def teacher(self, tokenizer: Tokenizer) -> ServedTeacher:
        """Give it as scoring and sampling take it."""
        return ServedTeacher(
            name=self.name,
            key=self.key,
            server=self.server,
            top=self.top,
            stop_ids=tokenizer.stop_ids,
            at_once=self.at_once,
        )

    def named(self) -> str:
        """Say what it is and where."""
        about = self.server.about
        engine = " ".join(filter(None, (about.engine, about.version)))
        return visible(
            f"{about.model} in {engine}, in this process"
            if self.is_loaded
            else f"{about.model} behind {self.address} ({engine})"
        )

    def said(self) -> str:
        """Say what it is and what it gives, in a line of the plan."""
        what = "the whole vocabulary" if self.whole else f"its top {self.top}"
        exact = " and exact values at the student's" if self.server.about.exact_ids and not self.whole else ""
        return f"{self.named()}, {what}{exact} at each state"


def with_own_options(settings: Settings) -> Settings:
    """Let what an address says of its teacher go before the options that hold for every server.

    Raises
    ------
    InputError
        It says what an address cannot.
    """
    if settings.teacher is None or not is_address(settings.teacher):
        return settings
    own = addressed(settings.teacher)
    return replace(
        settings,
        teacher=own.address,
        teacher_model=own.model or settings.teacher_model,
        teacher_top=own.top or settings.teacher_top,
        teacher_tokenizer=own.tokenizer or settings.teacher_tokenizer,
    )


def served_teacher(settings: Settings, digests: Digests) -> Served | None:
    """Ask the server that ``--teacher`` names what it has, or load the model into vLLM here; None where it names none.

    Parameters
    ----------
    settings
        Of the report.
    digests
        What is known of files; a folder that is loaded here is known by them.

    Raises
    ------
    InputError
        Options that do not go with it, or a folder that cannot be read or is written to.
    ServerError
        It cannot be reached, has no such model, or returns fewer ids than are compared.
    """
    if settings.teacher is None or not is_address(settings.teacher):
        _refuse_without_server(settings)
        return None
    if settings.teacher_temperature != 1.0:
        raise InputError(
            f"Option teacher_temperature must be 1 for a teacher {where(settings.teacher)}, which gives "
            f"log-probabilities at 1; found {settings.teacher_temperature:g}. Leave --teacher-temperature out, or name "
            "a folder or hub id with --teacher."
        )
    wanted = settings.teacher_top
    top = settings.k if wanted is None else wanted
    with _known(settings.teacher, digests) as weights_key:
        named, dtype = settings.teacher_model, settings.dtype
        server = connect(settings.teacher, model=named, top=top, dtype=dtype, weights_key=weights_key)
    allowed = (MOST_TOP, server.about.top_limit, server.about.vocab_size)
    top = min(n for n in allowed if n is not None) if wanted is None else wanted
    if top != ALL and top < settings.k:
        raise InputError(
            f"Option k is {settings.k}, but only the {top} most probable ids of the teacher are asked for. Lower --k "
            f"to {top}, or raise --teacher-top."
        )
    return Served(server, settings.teacher, top, settings.requests, weights_key)


def where(address: str) -> str:
    """Say where a teacher is that is not loaded by opd-diag itself."""
    return "behind a server" if model_here(address) is None else "in vLLM"


@contextmanager
def _known(address: str, digests: Digests) -> Iterator[str | None]:
    """Give the fingerprint of a folder that is loaded in the block, during which nobody writes to it; else None."""
    folder = model_here(address)
    if folder is None or not os.path.isdir(folder):
        yield None
        return
    if (found := unread_by_vllm(Path(folder))) is not None:
        raise InputError(
            f"Teacher {visible(folder, keep='')} in vLLM: expected {READ_BY_VLLM}; found {visible(found, keep='')}. "
            "Save it so, or load it without vLLM: --teacher DIR."
        )
    try:
        content = checkpoint_content(Checkpoint(TEACHER_LABEL, None, Path(folder), "full"), digests)
        yield content.key
        for file, stamp in content.stamps.items():
            refuse_changed(file, stamp)
    except CheckpointError as error:
        raise InputError(f"The teacher cannot be read. {error}") from error


def tokenizer_of(settings: Settings, served: Served) -> str | None:
    """Give the folder or hub id of the teacher's tokenizer: as named, else the folder that the server says, if here."""
    if settings.teacher_tokenizer is not None:
        return settings.teacher_tokenizer
    root = served.server.about.root
    has = root is not None and any(os.path.isfile(os.path.join(root, n)) for n in ("tokenizer.json", "tokenizer.model"))
    return root if has else None


def check_ids_of_server(served: Served, tokenizer: Tokenizer, ids: Iterable[int]) -> bool:
    """Hold the server's own text of ids against ours, spaces aside; False where it gives no text.

    Raises
    ------
    TokenizerMismatchError
        An id means different text to the server.
    """
    ordered = sorted(ids)
    for start in range(0, len(ordered), CHECKED_AT_ONCE):
        chunk = ordered[start : start + CHECKED_AT_ONCE]
        if (text := served.server.text(chunk)) is None:
            return False
        if not _alike(text, tokenizer.text(chunk)):
            _refuse_other_text(served, tokenizer, chunk)
    return True


def _alike(theirs: str, ours: str) -> bool:
    return "".join(theirs.split()) == "".join(ours.split())


def _refuse_other_text(served: Served, tokenizer: Tokenizer, ids: Sequence[int]) -> None:
    """Refuse ids that both read apart, naming as few of them as are still read apart."""
    theirs, ours = served.server.text(ids) or "", tokenizer.text(ids)
    if _alike(theirs, ours):
        return
    for half in (ids[: len(ids) // 2], ids[len(ids) // 2 :]) if len(ids) > 1 else ():
        _refuse_other_text(served, tokenizer, half)
    ours, theirs = (visible(of)[:40] for of in (ours, theirs))
    which = f"Token id {ids[0]} is" if len(ids) == 1 else f"Token ids {', '.join(map(str, ids[:4]))} together are"
    whose = f"{'vLLM with' if served.is_loaded else 'the server of'} {served.name}"
    raise TokenizerMismatchError(
        f"{which} {ours!r} to the student's tokenizer and {theirs!r} to {whose}. Student and "
        "teacher must share a tokenizer: name another teacher, or the run's own tokenizer with --tokenizer."
    )


def _refuse_without_server(settings: Settings) -> None:
    for name in ("teacher_model", "teacher_top", "teacher_tokenizer"):
        if getattr(settings, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise InputError(
                f"{flag} is for a teacher behind a server, found teacher {settings.teacher}. Leave {flag} out, or name "
                "the server with --teacher, as vllm=http://127.0.0.1:8000."
            )
