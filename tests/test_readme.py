"""The README says what is so: its table is the catalogue's, its options exist, its Python runs."""

from __future__ import annotations

import ast
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import typer.main
import yaml
from PIL import Image
from typer.testing import CliRunner
from verdicts.synthetic import HEALTHY, run

from opd_diag.cli import app
from opd_diag.runs import layouts, recorded
from opd_diag.runs.logged.trainers import TRAINERS as LOGS_OF
from opd_diag.tables.catalogue import CATALOGUE, markdown_table
from opd_diag.verdicts import judge

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "benchmarks" / "README.md"]


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_the_metric_tables_are_the_catalogues():
    primary, others = markdown_table().split("<details>")
    assert f"{primary.strip()}\n<!-- end -->" in README
    assert all(f"`{metric.name}`" in primary for metric in CATALOGUE if metric.primary)
    assert markdown_table() in text_of("METRICS.md")
    assert all(f"`{metric.name}`" in others for metric in CATALOGUE if not metric.primary)
    count = len(CATALOGUE)
    assert f"[{count} metrics](#what-it-measures)" in README
    assert f"the {count - sum(metric.primary for metric in CATALOGUE)} others" in README


def rows(text: str, heading: str) -> list[list[str]]:
    """Give the cells of the table that begins with a heading, row by row."""
    lines = text[text.index(f"| {heading} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines]


def test_every_verdict_has_its_row_with_the_question_it_asks():
    verdicts = judge(run(), step_zero_known=True)
    table = rows(README, "verdict")
    assert [row[:2] for row in table] == [[f"`{v.name}`", v.question] for v in verdicts]
    assert all(row[2] for row in table)
    assert [row[0] for row in rows(text_of("VERDICTS.md"), "verdict")] == [f"`{v.name}`" for v in verdicts]


WORSE = {name: tuple(reversed(values)) for name, values in HEALTHY.items()}
STILL = {name: values[:1] for name, values in HEALTHY.items()}
KINDS = (
    {"changes": WORSE, "start": WORSE, "teacher": WORSE},
    {"changes": STILL, "start": STILL, "teacher": STILL, "error": 1e-4},
    {"start": {"reverse_kl": (1.0, 1.0, 1.0)}, "teacher": {"forward_kl": (0.4, 0.8, 1.2)}},
    {"changes": {"student_overlap_mass": (0.5, 0.5, 0.5), "reverse_kl": (0.001,)}, "error": 1e-4},
    {"changes": {"repetition_rate": (0.0, 0.3, 0.6)}, "teacher": {"repetition_rate": (0.0,)}},
    {"answers": (0.5, 0.5), "depth": (0.5, 1.5, 0.5, 0.5)},
)
"""Made-up runs that give alarms."""


def test_what_a_verdict_can_become_is_said():
    """A row names the alarms that its rule gives."""
    said = {row[0].strip("`"): row[2] for row in rows(README, "verdict")}
    given = {(v.name, v.status) for kind in KINDS for v in judge(run(**kind), step_zero_known=True)}
    alarms = {(name, status) for name, status in given if status in ("warn", "fail")}
    assert len(alarms) > 15
    assert not [(name, status) for name, status in alarms if status not in said[name]]


def test_headlines_of_the_bundled_runs_are_ones_that_are_given():
    source = ast.walk(ast.parse(text_of("opd_diag/verdicts/headline.py")))
    given = {node.value for node in source if isinstance(node, ast.Constant)}
    quoted = [row[1].strip("*") for row in rows(README, "run")]
    assert len(quoted) == 3
    assert set(quoted) <= given


EXACT = {"ids": "ids", "text-with-specials": "text with special tokens", "text-stripped": "text"}
FAMILIES = {
    "TRL": "hf", "Hugging Face Trainer, axolotl, unsloth": "hf", "LLaMA-Factory": "hf", "ms-swift": "hf",
    "verl, thunlp/OPD": "verl", "SkyRL": "skyrl", "NeMo-RL": "nemo_rl", "prime-rl": "prime_rl", "AReaL": "areal",
    "KDFlow": "kdflow", "ROLL": "roll", "OpenRLHF": "openrlhf", "slime": "megatron", "torchtune": "torchtune",
    "tinker-cookbook": "tinker",
}  # fmt: skip
"""Trainers of the README's table and the family of layouts that finds their checkpoints."""
LOGGED_AS = {
    "TRL": "Hugging Face",
    "Hugging Face Trainer, axolotl, unsloth": "Hugging Face",
    "tinker-cookbook": "tinker",
}


def test_the_table_of_trainers_is_what_is_read():
    table = {row[0]: row[1:] for row in rows(README, "trainer")}
    assert list(table) == list(FAMILIES)
    assert set(FAMILIES.values()) == {layout.family for layout in layouts.TRAINERS}
    assert all(cells[0] == "yes" for cells in table.values())
    formats = {name: form for name, form in recorded.FORMATS.items() if name != "opd-diag"}
    for trainer, cells in table.items():
        own = [form for form in formats.values() if form.writer.startswith(trainer.split(",")[0])]
        best = min((form.exactness for form in own), key=list(EXACT).index, default=None)
        assert cells[1] == ("–" if best is None else EXACT[best]), trainer
        name = LOGGED_AS.get(trainer, trainer.split(",")[0])
        assert cells[2] == ("yes" if name in {t.name for t in LOGS_OF} else "–"), trainer
        formats = {name: form for name, form in formats.items() if form not in own}
    assert not formats, "every format has a row"
    names = {LOGGED_AS.get(trainer, trainer) for trainer in table} | {"verl", "thunlp/OPD"}
    assert {t.name for t in LOGS_OF} <= names, "every trainer whose log is read has a row"
    assert [trainer for trainer, cells in table.items() if cells[3] != "–"] == ["TRL", "verl, thunlp/OPD"]


def test_it_is_cited_as_what_it_is():
    cited = yaml.safe_load(text_of("CITATION.cff"))
    assert cited["version"] == metadata.version("opd-diag")
    assert f"version = {{{cited['version']}}}" in README
    (paper,) = cited["references"]
    assert paper["title"] in README
    for author in paper["authors"]:
        assert re.search(rf"{author['family-names']}, {author['given-names']}\b", README)
    assert "arXiv:2604.13016" in README
    assert cited["license"] == tomllib.loads(text_of("pyproject.toml"))["project"]["license"]


def test_a_newcomer_sees_what_it_is_first():
    """Three lines, the picture of a report and the two commands before anything else, and a page one can read."""
    lines = README.splitlines()
    assert len(lines) < 270
    assert len([line for line in lines[1:6] if line]) == 3
    assert "](pictures/report.png)" in lines[6]
    assert lines.index("## Two commands") < 15
    with Image.open(ROOT / "pictures" / "report.png") as picture:
        assert picture.width >= 1280
    assert (ROOT / "pictures" / "report.png").stat().st_size < 250 * 1024


def test_what_is_said_to_be_missing_is_missing():
    limits = README[README.index("## Limits") : README.index("## Citation")]
    commands = typer.main.get_command(app).commands
    assert not [name for name in commands if f"`{name}` is not there" in limits or f"`opd-diag {name}`" in limits]


def test_the_options_it_names_exist():
    commands = typer.main.get_command(app).commands
    for command, line in re.findall(r"opd-diag (report|check|inspect|demo)([^\n`]*)", README):
        known = {option for parameter in commands[command].params for option in parameter.opts}
        assert set(re.findall(r"--[a-z-]+", line)) - {"--help"} <= known, line


def test_its_commands_are_there_and_can_be_run():
    for script in ("scripts/demo", "scripts/test", ".ci/run"):
        path = ROOT / script
        assert path.stat().st_mode & 0o111, script
        subprocess.run(["bash", "-n", str(path)], check=True)
    assert CliRunner().invoke(app, ["--help"]).exit_code == 0


def test_the_metric_example_runs():
    example = next(code for code in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "import torch" in code)
    *body, last = example.strip().splitlines()
    names: dict[str, object] = {}
    exec("\n".join([*body, f"answer = ({last})"]), names)
    overlap, kl = names["answer"]  # type: ignore[misc]
    assert 0 <= overlap < 0.05
    assert kl > 0.5


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\((?!http)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target
