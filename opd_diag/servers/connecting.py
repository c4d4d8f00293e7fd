"""From an address, or a model for vLLM in this process, to a server that is known to answer."""

from __future__ import annotations

import importlib
import os
from typing import Any

from opd_diag.errors import InputError, MissingExtra, ServerError
from opd_diag.servers.addresses import KEY_VARIABLE, model_here, parsed
from opd_diag.servers.answers import ALL
from opd_diag.servers.patience import Patience
from opd_diag.servers.server import NAMES, About, Server
from opd_diag.text import visible

EXTRA = "servers"

MODELS = "/v1/models"

_MODULES = {"vllm": ("opd_diag.servers.vllm", "VLLM"), "sglang": ("opd_diag.servers.sglang", "SGLang")}


def connect(
    address: str,
    *,
    model: str | None = None,
    top: int,
    patience: Patience | None = None,
    dtype: str | None = None,
    weights_key: str | None = None,
) -> Server:
    """Reach a server or load a model into vLLM here, and find out what it can be asked.

    Parameters
    ----------
    address
        ``vllm=http://HOST:PORT`` or ``sglang=http://HOST:PORT``; ``vllm=DIR`` or ``vllm=ORG/NAME`` loads the model.
    model
        The name of the served model. Default: the one it serves.
    top
        The most probable ids a row that will be asked; -1 for the whole vocabulary.
    patience
        How long and how often it is asked. Default: :class:`~opd_diag.servers.patience.Patience`.
    dtype
        Precision of a model that is loaded, as ``"float32"``. Default: what vLLM chooses for it.
    weights_key
        Fingerprint of a folder that is loaded. Default: not known.

    Notes
    -----
    Where the environment variable ``OPD_DIAG_SERVER_KEY`` is set, its value is sent as bearer token, and is written
    nowhere.

    Raises
    ------
    InputError
        The address is none, or `model` is named where one is loaded; or its weights changed since it was.
    MissingExtra
        requests or orjson are not installed; or vLLM, where it loads the model.
    ServerError
        The server does not answer, serves another model, gives less than `top`, or answers what it must not; or the
        model does not load.
    """
    if top < 1 and top != ALL:
        raise ValueError(f"top must be at least 1, or {ALL} for all, got {top}")
    if (here := model_here(address)) is not None:
        if model is not None:
            raise InputError(
                f"The name of a model, {visible(model, keep='')}, is for a server that has several; {address.strip()} "
                "is loaded here. Leave the name out."
            )
        loaded: Server = _loaded("opd_diag.servers.vllm_in_process").VLLMInProcess(here, top, dtype, weights_key)
        return loaded
    engine, url = parsed(address)
    patience = patience or Patience()
    transport = _loaded("opd_diag.servers.transport")
    line = transport.Line(url, patience, os.environ.get(KEY_VARIABLE, "").strip() or None)
    reply = line.wanted(MODELS, most=transport.SMALL, patience=patience.at_first())
    module, name = _MODULES[engine]
    server: Server = getattr(_loaded(module), name)(line, _about(engine, url, reply.data, model), top)
    return server


def _loaded(module: str) -> Any:
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtra(str(error.name), extra=EXTRA) from error


def _about(engine: str, url: str, data: Any, wanted: str | None) -> About:
    """Find the model in what ``/v1/models`` says."""
    listed = data.get("data") if isinstance(data, dict) else None
    models = [
        one for one in (listed if isinstance(listed, list) else []) if isinstance(one, dict) and _text(one.get("id"))
    ]
    if not models:
        raise ServerError(
            f"{url}{MODELS} was expected to list the served models, found none. Give the address of a {NAMES[engine]} "
            "server."
        )
    other = next((one.get("owned_by") for one in models if one.get("owned_by") in {*NAMES} - {engine}), None)
    if other is not None:
        raise ServerError(f"{url} is not {NAMES[engine]} but {NAMES[other]}. Write {other}={url}.")
    names = [one["id"] for one in models]
    shown = ", ".join(visible(name, keep="")[:100] for name in names[:20])
    if wanted is None and len(models) > 1:
        raise ServerError(f"{url} serves {len(models)} models: {shown}. Name one of them.")
    if wanted is not None and wanted not in names:
        raise ServerError(
            f"{url} serves {shown}; {visible(wanted, keep='')} was asked for. Name a model that it serves."
        )
    chosen = models[0] if wanted is None else models[names.index(wanted)]
    context = chosen.get("max_model_len")
    return About(
        engine=engine,
        version=None,
        model=chosen["id"],
        root=_text(chosen.get("root")),
        context=context if type(context) is int and context > 0 else None,
        top_limit=None,
        exact_ids=False,
        why_not_exact=None,
        sees_all=False,
        url=url,
    )


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) and value else None
