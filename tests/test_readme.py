"""The README says what is so: its table is the catalogue's, its options exist, its Python runs."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner
from verdicts.synthetic import run

from opd_diag.cli import app
from opd_diag.tables.catalogue import CATALOGUE, markdown_table
from opd_diag.verdicts import judge

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [*sorted(ROOT.glob("*.md")), ROOT / "benchmarks" / "README.md"]


def test_the_metric_table_is_the_catalogues():
    assert markdown_table() in README
    assert all(f"`{metric.name}`" in README for metric in CATALOGUE)


def test_every_verdict_has_its_row():
    names = [v.name for v in judge(run(), step_zero_known=True)]
    assert re.findall(r"^\| `(\w+)` \| [^|]+\?", README, re.MULTILINE) == names


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
