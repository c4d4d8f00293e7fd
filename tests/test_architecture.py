"""The layout is a contract: who imports whom, what loads what, and that every room is tested."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "opd_diag"
TESTS = ROOT / "tests"
MODULES = sorted(path for path in SOURCE.rglob("*.py") if "data" not in path.relative_to(SOURCE).parts)
NAMES = [str(path.relative_to(SOURCE)) for path in MODULES]
HEAVY = ("torch", "transformers", "matplotlib", "seaborn", "pandas", "pyarrow", "scipy")

RUN_A_USERS_CODE = {"cli/grading.py", "studies/outcome.py"}
"""A grader of the user's may raise anything: it is one sentence then, with its cause, and goes on."""

UNTESTED = {
    "errors.py": "a tree of classes; every test of a refusal uses it",
    "runs/unpickling.py": "tested through runs/recorded/test_pickles.py and inference/test_pickles.py",
    "records/recorded.py": "tested through runs/recorded, whose readers make it",
    "records/sampling.py": "tested through records/test_settings.py, which holds it",
    "lab/models.py": "tested by growing runs with it, lab/test_grow.py",
    "lab/outcomes.py": "tested by growing runs with it, lab/test_grow.py",
    "lab/distillation.py": "tested by growing runs with it, lab/test_grow.py",
    "lab/words.py": "lists of words",
    "inference/attention.py": "tested through inference/test_packing.py, which holds packs against single sequences",
    "inference/model.py": "tested through inference/test_loading.py, which wraps what it loads",
    "inference/libraries.py": "tested through inference/test_loading.py: nothing leaks, every error is a sentence",
    "inference/completeness.py": "tested through inference/test_loading.py, whose damaged models are refused by it",
    "inference/configs.py": "tested through inference/test_loading.py and test_merging.py: configs and stop ids",
    "inference/adapters.py": "tested through inference/test_loading.py, which merges adapters",
    "inference/batches.py": "tested through inference/test_sampling.py, which reads prompts as it groups them",
    "records/json_lines.py": "tested through records/test_prompt.py and test_rollout.py, which read with it",
    "tables/catalogue/advantages.py": "tested through tables/test_catalogue_laws.py, entry by entry",
    "tables/catalogue/distances.py": "tested through tables/test_catalogue_laws.py, entry by entry",
    "tables/catalogue/entropies.py": "tested through tables/test_catalogue_laws.py, entry by entry",
    "tables/catalogue/gradient.py": "tested through tables/test_catalogue_laws.py, entry by entry",
    "tables/catalogue/kept.py": "tested through tables/test_catalogue_laws.py, whose entries read with it",
    "tables/catalogue/masses.py": "tested through tables/test_catalogue_laws.py, entry by entry",
    "tables/catalogue/metric.py": "tested through tables/test_catalogue_laws.py, entry by entry",
    "tables/catalogue/overlap.py": "tested through tables/test_catalogue_laws.py, entry by entry",
    "tables/catalogue/sampled.py": "tested through tables/test_catalogue_laws.py, entry by entry",
    "tables/catalogue/topk_losses.py": "tested through tables/test_catalogue_laws.py, entry by entry",
    "verdicts/unanswered.py": "tested through verdicts/test_rules.py, which asks what cannot be answered",
    "studies/teachers_measured.py": "tested through studies/test_teachers.py, which measures with it",
    "replay/spread/worker.py": "tested through replay/spread/test_parts.py, whose reports are made by workers",
    "replay/served_parts.py": "tested through replay/test_served.py, whose reports it makes",
    "replay/hidden.py": "tested through replay/test_between.py, which keeps and finds hidden states",
    "replay/measured.py": "tested through test_diagnosis.py: every report goes through it",
    "cli/exits.py": "tested through cli/test_program.py, which fails on verdicts",
    "replay/recorded.py": "tested through replay/test_planning.py, which plans with recorded rollouts",
    "replay/prompts.py": "tested through replay/test_planning.py and replay/test_near.py, which plan with both",
    "replay/selftests/limits.py": "numbers; every self-test holds something against one",
    "replay/selftests/inputs.py": "tested through replay/selftests/test_battery.py, which runs all self-tests",
    "replay/selftests/pair.py": "tested through replay/selftests/test_battery.py, which runs all self-tests",
    "replay/selftests/written.py": "tested through replay/selftests/test_battery.py, which runs all self-tests",
    "report/shown_tokens.py": "tested through report/test_tokens.py, which looks at what is shown",
    "report/token_reader.py": "tested through report/test_tokens.py, number by number",
    "report/sections.py": "tested through report/test_page.py, which shows it",
    "plots/of_responses.py": "tested through plots/test_quantities.py, entry by entry",
    "plots/quantity.py": "tested through plots/test_quantities.py, which holds them",
    "cli/printing.py": "tested through cli/test_program.py, which reads what it prints",
    "cli/terminal.py": "tested through cli/test_program.py: every mistake goes through it",
}
"""Modules without a test file of their own, and why."""


def run_python(script, *args, **environment):
    command = [sys.executable, "-c", script, *map(str, args)]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env={**os.environ, **environment}
    )


def loaded_by(script, *args):
    """Names of the heavy packages that are loaded after `script`."""
    tail = f"\nimport sys, json; print(json.dumps([n for n in {HEAVY!r} if n in sys.modules]))"
    return json.loads(run_python(script + tail, *args).stdout.splitlines()[-1])


def test_rooms_import_only_what_lies_below_them():
    lint = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([lint, "--no-cache"], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr
    assert "3 kept, 0 broken" in done.stdout


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import opd_diag") == []


def test_importing_the_terminal_program_loads_nothing_heavy():
    assert loaded_by("import opd_diag.cli") == []


def test_inspect_loads_neither_torch_nor_pandas(tiny_run):
    script = (
        "import sys\n"
        "from opd_diag.cli import app\n"
        "try: app(['inspect', sys.argv[1]])\n"
        "except SystemExit as done: assert done.code in (0, None), done.code\n"
    )
    assert loaded_by(script, tiny_run.run_dir) == []


def test_a_metric_needs_torch_alone():
    assert loaded_by("import opd_diag; opd_diag.metrics.reverse_kl") == ["torch"]


def test_statistics_need_no_model():
    assert set(loaded_by("import opd_diag; opd_diag.stats.clustered_mean([1, 2], [0, 1])")) <= {"scipy"}


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_modules_open_with_one_sentence(path):
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    assert docstring, "no docstring"
    first = docstring.splitlines()[0]
    assert re.fullmatch(r"[\"'`A-Z].*[.?!]", first), first
    assert not re.search(r"[a-z0-9`)][.!?] [A-Z]", first.rstrip(".").replace("Read this first", "")), first


@pytest.mark.parametrize("path", MODULES, ids=NAMES)
def test_nothing_is_swallowed_or_printed(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ExceptHandler):
            caught = [n.id for n in ast.walk(node.type) if isinstance(n, ast.Name)] if node.type else ["everything"]
            broad = {"Exception", "BaseException", "everything"} & set(caught)
            if broad == {"Exception"} and str(path.relative_to(SOURCE)) in RUN_A_USERS_CODE:
                assert isinstance(node.body[-1], ast.Raise), f"line {node.lineno}"
                continue
            assert not broad, f"line {node.lineno}"


def test_names_of_modules_say_what_they_hold():
    vague = {"utils", "helpers", "common", "base", "core", "misc"}
    parts = {part for name in NAMES for part in Path(name).with_suffix("").parts}
    assert not parts & vague
    assert not [part for part in parts if "and" in part.split("_") or part.startswith(("get_", "do_"))]


@pytest.mark.parametrize("name", [name for name in NAMES if not name.endswith("__init__.py")])
def test_every_module_is_mirrored_by_tests(name):
    module = Path(name)
    own = list((TESTS / module.parent).glob(f"test_{module.stem}*.py"))
    assert own or name in UNTESTED, f"write tests/{module.parent}/test_{module.name}"
    assert not (own and name in UNTESTED), f"{name} is exempt and has {[path.name for path in own]}"


def test_exempt_modules_exist():
    assert not set(UNTESTED) - set(NAMES)


def test_every_room_has_tests():
    rooms = [path for path in SOURCE.iterdir() if (path / "__init__.py").is_file()]
    assert len(rooms) > 8
    for room in rooms:
        found = list((TESTS / room.name).glob("test_*.py"))
        assert any("def test_" in path.read_text(encoding="utf-8") for path in found), room.name


def test_the_version_is_the_packages():
    from importlib import metadata

    done = run_python("from opd_diag.cli import app; app(['--version'])")
    assert done.stdout == metadata.version("opd-diag") + "\n"
