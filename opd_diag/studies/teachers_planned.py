"""Which teachers a study holds side by side: their names, what each is asked for, and one planned replay each."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from opd_diag.errors import InputError, OpdDiagError
from opd_diag.records.settings import Settings
from opd_diag.replay import ReplayPlan, plan_models
from opd_diag.replay.served import Served
from opd_diag.replay.store import refuse_inside, refuse_unfit
from opd_diag.runs.digests import Digests
from opd_diag.servers import addressed, is_address, model_here, parsed
from opd_diag.servers.addresses import KEY_VARIABLE, host_of
from opd_diag.studies.naming import distinct_names, folder_name
from opd_diag.studies.served import folder_in
from opd_diag.studies.teachers_shown import BEFORE, STUDENT

RESERVED = (BEFORE, STUDENT)
"""Names that no folder gets: one that is called so has the folder above it before it."""


def names_of(models: Sequence[str], past: str | None = None, places: Mapping[str, str] | None = None) -> dict[str, str]:
    """Give each model a name of its own; what the student was is called ``before``.

    `places` are those of models behind servers, as paths that end in what the server calls them.

    Raises
    ------
    InputError
        There is none, or one is named twice.
    """
    if not models:
        raise InputError("No teacher. Name one or more with --teacher, folders or hub ids.")
    real = [os.path.realpath(os.path.expanduser(model)) if os.path.isdir(model) else model for model in models]
    real = [(places or {}).get(model, place) for model, place in zip(models, real, strict=True)]
    for model, place in zip(models, real, strict=True):
        if real.count(place) > 1:
            raise InputError(f"Teacher {model} is named twice. Name each model once.")
    others = [place for model, place in zip(models, real, strict=True) if model != past]
    names = dict(zip(others, distinct_names(others), strict=True))
    names = {place: "/".join(Path(place).parts[-2:]) if name in RESERVED else name for place, name in names.items()}
    return {model: names.get(place, BEFORE) for model, place in zip(models, real, strict=True)}


@dataclass(frozen=True)
class PlannedTeachers:
    """One replay a teacher, planned, so that what cannot be used is known before any work."""

    folder: Path
    """Of the study."""
    settings: Settings
    plans: Mapping[str, ReplayPlan]
    """By the teacher's name."""
    errors: Mapping[str, OpdDiagError]
    """Why a teacher is left out, by its name."""

    def folder_of(self, name: str) -> Path:
        """Give the folder of one replay."""
        return _folder(self.folder, name)


def planned_teachers(models: Sequence[str], past: str | None, settings: Settings, folder: Path) -> PlannedTeachers:
    """Plan the replay of the student against each teacher; load no weights, write nothing.

    Parameters
    ----------
    models
        Folders, hub ids and addresses of servers.
    past
        The one of them that the student was.
    settings
        Of all of them; options of servers hold for those that are behind one.
    folder
        Of the study.

    Raises
    ------
    OpdDiagError
        None can be used, or `folder` cannot; or two cannot be told apart.
    """
    names_of(models, past)
    _refuse_addresses(models)
    refuse_inside(folder, settings.student, *map(folder_in, models))
    settings, digests = replace(settings, store=settings.store or str(folder / "replay" / "shared")), Digests()
    plans: dict[str, ReplayPlan] = {}
    errors: dict[str, OpdDiagError] = {}
    for model in models:
        try:
            plans[model] = plan_models(_settings_of(model, models, settings), digests=digests)
        except OpdDiagError as error:
            errors[model] = error
    served = {model: plan.served for model, plan in plans.items() if plan.served}
    _refuse_alike(served)
    names = names_of(models, past, {model: of.place for model, of in served.items()})
    for model, plan in [*plans.items()]:
        try:
            refuse_unfit(_folder(folder, names[model]), plan.run_dir, plan.settings.store)
        except OpdDiagError as error:
            errors[model] = error
            del plans[model]
    if not plans:
        raise next(iter(errors.values()))
    by_name = {names[model]: plan for model, plan in plans.items()}
    return PlannedTeachers(folder, settings, by_name, {names[model]: error for model, error in errors.items()})


def _settings_of(model: str, models: Sequence[str], settings: Settings) -> Settings:
    """Give the settings of one teacher: options of servers go with those that are behind one, if any is."""
    if is_address(model) or not any(map(is_address, models)):
        return replace(settings, teacher=model)
    return replace(settings, teacher=model, teacher_model=None, teacher_top=None, teacher_tokenizer=None)


def _refuse_addresses(models: Sequence[str]) -> None:
    """Refuse addresses that are none, before any server is asked: they may have a password in them.

    Refuse several hosts where a key is set: each would be sent it.
    """
    loaded, hosts = set(), set()
    for address in (addressed(model).address for model in models if is_address(model)):
        if (here := model_here(address)) is None:
            hosts.add(host_of(parsed(address)[1]))
        else:
            loaded.add(here)
    if len(loaded) > 1:
        raise InputError(
            f"{len(loaded)} teachers are to be loaded into vLLM here, {', '.join(sorted(loaded))}, and one process has "
            "room for one. Start servers for the others, as vllm=http://HOST:PORT, or load them without vLLM."
        )
    if len(hosts) > 1 and os.environ.get(KEY_VARIABLE, "").strip():
        raise InputError(
            f"The key in the environment variable {KEY_VARIABLE} would be sent to {len(hosts)} hosts, "
            f"{', '.join(sorted(hosts))}. Ask each in a command of its own, with its own key, or unset the variable if "
            "none of them wants one."
        )


def _refuse_alike(served: Mapping[str, Served]) -> None:
    """Refuse two servers that say the same of themselves: what one answered would be taken for the other's."""
    first: dict[str, str] = {}
    for model, of in served.items():
        if (other := first.setdefault(of.key, model)) != model:
            raise InputError(
                f"Teachers {other} and {model} cannot be told apart: both servers call theirs {of.server.about.model}, "
                "and say the same of it. Name it once, or start one with another --served-model-name."
            )


def _folder(folder: Path, name: str) -> Path:
    return folder / "replay" / "teachers" / folder_name(name)
