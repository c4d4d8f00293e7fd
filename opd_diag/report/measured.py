"""What was measured and how, and what that cannot show: lists for the page, from whatever the provenance holds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from opd_diag.plots.quantities import quantity
from opd_diag.records.settings import NEAR_ON_POLICY
from opd_diag.report.json_file import plain
from opd_diag.report.wording import STATES_NAMES, count, one_line

if TYPE_CHECKING:
    from opd_diag.report.content import Report

FEW_PROMPTS = 20
"""Under this many prompts the page says that intervals are rough."""

_ALWAYS = (
    "Agreement with the teacher is not success: a student can agree with a teacher that has nothing new to teach, or "
    "at states where agreeing is easy. Only accuracy on prompts with answers says whether something was learned.",
    "Intervals cover the choice of prompts and the sampling of responses; they do not cover another seed of training, "
    "another prompt set or another teacher.",
    "Metrics are means over all states, so long responses weigh more than short ones.",
    "The paper's findings come from mathematics with models of 1.5 to 14 billion parameters; other domains and sizes "
    "may behave otherwise.",
)

_SAMPLING = {
    "temperature": "temperature",
    "top_p": "top-p",
    "seed": "seed",
    "rollouts_per_prompt": "responses a prompt:",
    "max_new_tokens": "tokens at most:",
}

_STEP_ZERO = {
    "True": "known: the initial student",
    "False": "unknown, so changes before the first checkpoint are invisible",
}

Facts = list[tuple[str, str]]


def measured(report: Report) -> Facts:
    """Give (name, value) of everything known about how the run was measured; what is unknown is left out."""
    provenance = report.provenance
    settings = _dict(provenance, "settings")
    facts = [
        *_prompts(_dict(provenance, "prompts")),
        *_states(report),
        ("Recorded responses", _recorded(provenance.get("recorded"))),
        ("Tokens compared", f"k = {report.k}; the curves run over powers of two"),
        ("Sampling", _joined(settings, **_SAMPLING)),
        ("Sampled by", _sampler(_dict(provenance, "sampler"))),
        ("Scored at", _joined(settings, student_temperature="student temperature", teacher_temperature="teacher's")),
        ("Computed with", " on ".join(filter(None, (_text(provenance, "dtype"), _text(provenance, "device"))))),
        *_floors(provenance.get("precision"), teachers_of(report)),
        *_logprobs(provenance.get("logprobs"), teachers_of(report)),
        *_vocabulary(_dict(provenance, "vocabulary")),
        *_tokenizer(_dict(provenance, "tokenizer")),
        ("Step 0", _STEP_ZERO.get(_text(provenance, "step_zero"), "")),
        ("Versions", ", ".join(f"{k} {v}" for k, v in _versions(provenance).items())),
    ]
    return [(name, one_line(value, 400)) for name, value in facts if value]


def settings_of(report: Report) -> Facts:
    """Give every setting as text."""
    settings = _dict(report.provenance, "settings")
    return [(one_line(name, 60), one_line(plain(value), 300)) for name, value in settings.items()]


def models_of(report: Report) -> list[dict[str, str]]:
    """Give the models of the run as text: role, label, parameters, vocabulary, path."""
    models = report.provenance.get("models")
    return [_model(m) for m in models if isinstance(m, dict)] if isinstance(models, list) else []


def limitations(report: Report) -> list[str]:
    """Say in plain words what this report cannot show."""
    provenance, summary = report.provenance, report.tables.summary
    settings = _dict(provenance, "settings")
    said = list(_ALWAYS)
    sampled = summary[summary["states"] != NEAR_ON_POLICY]
    prompts = int(sampled["n_prompts"].max()) if len(sampled) else 0
    if 0 < prompts < FEW_PROMPTS:
        said.insert(0, f"Only {count(prompts, 'prompt')}: intervals are rough, and with one prompt there are none.")
    if provenance.get("step_zero") is False:
        said.insert(0, "The initial student is not known: the start is the first checkpoint, and what happened before "
                    "it is invisible here. Name it with --student.")  # fmt: skip
    if not (summary["states"] == "start").any():
        said.append("The start's states were not scored: whether the policy itself came closer is not seen.")
    if not (summary["states"] == "teacher").any():
        said.append("States that the teacher visits were not scored: whether the student covers them is not seen.")
    if not report.tables.split.empty and not (report.tables.split["part"] == "order_difference").any():
        said.append(
            "What policy and states change together only is counted as state change. With back among --states both "
            "orders of the split are averaged, and their difference is shown."
        )
    if (settings.get("temperature", 1), settings.get("top_p", 1)) != (1, 1):
        said.append(
            "Responses were not sampled at temperature 1 and top-p 1, so sampled quantities are left undefined."
        )
    if (
        not (summary["metric"] == "accuracy").any()
        or summary.loc[summary["metric"] == "accuracy", "value"].isna().all()
    ):
        said.append("The prompts have no reference answers, so accuracy is unknown.")
    return said


def _recorded(parts: Any) -> str:
    """Say how many responses of a trainer's record were scored, how stale they are and how exact, by checkpoint."""
    found = parts if isinstance(parts, list) else []
    return "; ".join(
        f"{count(part['n_rollouts'], 'response')} at {part['label']} "
        f"({', '.join(f'{n} {grade}' for grade, n in part['exactness'].items())}), "
        f"{part['staleness']['min']} to {part['staleness']['max']} updates stale, mean {part['staleness']['mean']:.3g}"
        for part in found
    )


def _dict(data: dict[str, Any], name: str) -> dict[str, Any]:
    value = data.get(name)
    return value if isinstance(value, dict) else {}


def _text(data: dict[str, Any], name: str) -> str:
    value = plain(data.get(name))
    return "" if value is None else str(value)


def _joined(data: dict[str, Any], **names: str) -> str:
    return ", ".join(f"{title} {_text(data, name)}" for name, title in names.items() if _text(data, name))


def _sampler(sampler: dict[str, Any]) -> str:
    """Say who sampled; nothing where all responses were recorded, or nothing tells."""
    who = {"local": "opd-diag", "vllm": "vLLM"}.get(_text(sampler, "name"), "")
    if not who or not sampler.get("models"):
        return ""
    beside = ", in a process of its own for each model" if who == "vLLM" else ""
    return " ".join(filter(None, (who, _text(sampler, "version")))) + beside


def _prompts(prompts: dict[str, Any]) -> Facts:
    n, path, digest = (_text(prompts, name) for name in ("n", "path", "sha256"))
    return [("Prompts", " ".join(part for part in (n, f"from {path}" if path else "") if part)),
            ("Prompts' SHA-256", digest)]  # fmt: skip


def _states(report: Report) -> Facts:
    summary, facts = report.tables.summary, []
    for states, name in STATES_NAMES.items():
        rows = summary[(summary["states"] == states) & (summary["aggregation"] == "token mean")]
        if rows.empty:
            continue
        most = rows.loc[rows.groupby("label", sort=False)["n_states"].idxmax()]
        low, high = int(most["n_states"].min()), int(most["n_states"].max())
        scored = count(high, "state") if low == high else f"{low:,} to {high:,} states"
        rollouts, prompts = count(most["n_rollouts"].max(), "rollout"), count(most["n_prompts"].max(), "prompt")
        facts.append((name.capitalize(), f"{scored} a checkpoint, {rollouts}, {prompts}"))
    return facts


_FLOORS_SHOWN = ("reverse_kl", "forward_kl", "entropy_gap", "overlap_ratio", "top1_agreement")


def _floors(floors: Any, teachers: set[str]) -> Facts:
    """Say what models that are scored against themselves show, part by part; the larger number of each metric."""
    known = [f for f in floors if isinstance(f, dict)] if isinstance(floors, list) else []
    if not known:
        return []
    names = {
        "precision": f"Precision floor: {_text(known[0], 'dtype')} against {_text(known[0], 'other_dtype')}",
        "batches": "Precision floor: together against alone",
    }
    whose = _whose([_called(f, teachers) for f in known])
    states = count(max(int(f.get("n_states", 0)) for f in known), "state")
    told = {name: _distances([_dict(f, part) for f in known]) for part, name in names.items()}
    return [
        (name, f"a model scored against itself is off by {shown} ({whose}{states})")
        for name, shown in told.items()
        if shown
    ]


def teachers_of(report: Report) -> set[str]:
    """Give the names under which tables and checks know a teacher, and no checkpoint."""
    summary = report.tables.summary
    return {*summary["teacher"].astype(str)} - {*summary["label"].astype(str)}


def _called(record: dict[str, Any], teachers: set[str]) -> str:
    name = _text(record, "model")
    return "the teacher" if name in teachers else name


def _whose(models: list[str]) -> str:
    return "" if len(models) < 2 else f"the larger of {' and '.join(models)}; "


def _short(value: float) -> str:
    """Write one digit, so that no line is broken within an exponent."""
    return f"{value:.1g}".replace("-", "−")


def _distances(parts: list[dict[str, Any]]) -> str:
    found = []
    for metric in _FLOORS_SHOWN:
        values = [float(part[metric]) for part in parts if isinstance(part.get(metric), float)]
        defined = [value for value in values if not math.isnan(value)]
        if defined:
            name = quantity(metric).title
            found.append(f"{_short(max(defined))} in {name[0].lower()}{name[1:]}")
    return ", ".join(found)


def _logprobs(checks: Any, teachers: set[str]) -> Facts:
    """Say how far log-probabilities as sampled are from the replayed ones, each number of the model furthest off."""
    known = [c for c in checks if isinstance(c, dict)] if isinstance(checks, list) else []
    if not known:
        return []
    means, largest, shares = (
        [math.inf if c.get(name) is None else float(c[name]) for c in known]
        for name in ("mean_abs_difference", "max_abs_difference", "share_above")
    )
    tokens = count(sum(int(c.get("n_tokens", 0)) for c in known), "token")
    worst = _called(known[means.index(max(means))], teachers)
    share = f"{100 * max(shares):.2g} % of the tokens of one model at most" if max(shares) > 0 else "no token"
    told = [
        f"log-probabilities of {tokens} differ by {_short(max(means))} nats on average ({worst}, the most)",
        f"by {_short(max(largest))} at most",
        f"by more than 0.01 at {share}",
    ]
    return [("Sampled against replayed", ", ".join(told))]


def _vocabulary(vocabulary: dict[str, Any]) -> Facts:
    sizes = _joined(vocabulary, common="common", student="student", teacher="teacher")
    cuts = [
        f"{who} at most {100 * float(value):.2g} %"
        for who in ("student", "teacher")
        if isinstance(value := plain(vocabulary.get(f"{who}_cut_mass_max")), (int, float))
    ]
    return [("Vocabulary", sizes), ("Probability outside it", ", ".join(cuts))]


def _tokenizer(tokenizer: dict[str, Any]) -> Facts:
    differences = tokenizer.get("differences")
    if not isinstance(differences, list):
        return []
    return [("Tokenizers", "; ".join(map(str, differences)) or "student's and teacher's agree")]


def _versions(provenance: dict[str, Any]) -> dict[str, str]:
    versions = {"opd-diag": _text(provenance, "opd_diag")} | _dict(provenance, "versions")
    return {str(k): str(v) for k, v in versions.items() if v}


def _model(model: dict[str, Any]) -> dict[str, str]:
    def counted(name: str) -> str:
        value = plain(model.get(name))
        return f"{value:,}" if isinstance(value, int) else ""

    texts = {name: one_line(_text(model, name), 200) for name in ("role", "label", "path", "base_model")}
    return texts | {"parameters": counted("parameters"), "vocabulary": counted("vocabulary")}
