"""What tests of several rooms share."""

from __future__ import annotations

import functools
import json
import os
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import filelock
import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None, derandomize=True)  # no test depends on the clock or on luck
settings.load_profile("untimed")


def pytest_collection_modifyitems(items):
    """Notebooks are slow: each takes half a minute."""
    for item in items:
        if item.path.suffix == ".ipynb":
            item.add_marker(pytest.mark.slow)


@pytest.fixture(scope="session", autouse=True)
def pace_measured_once():
    """The pace of this machine is measured once for models of one size, and not in every report: it takes a second."""
    from opd_diag.replay import cost

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "measured_pace", functools.cache(cost.measured_pace))
        yield


@pytest.fixture(scope="session")
def tiny_run(tmp_path_factory):
    """The run of `tiny_run.build`, to be read and not changed; `copied_to` gives one that may be."""
    from tiny_run import build

    return build(tmp_path_factory.mktemp("tiny"))


@dataclass(frozen=True)
class Demo:
    """What ``opd-diag demo`` left, and what it said."""

    folder: str
    """Holds the report of each bundled run, with everything it rests on; to be read and not changed."""
    exit_code: int
    stdout: str
    stderr: str
    data_unchanged: bool
    """Whether the folders of the bundled runs are as they were."""

    def report(self, name: str) -> Path:
        """Give the OUT_DIR of a bundled run."""
        return Path(self.folder) / name


@pytest.fixture(scope="session")
def shared_once(tmp_path_factory):
    """Folders that are filled once for all processes that test: ``with shared_once(name) as (folder, is_there)``."""
    base = tmp_path_factory.getbasetemp()
    base = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base  # each process has a folder below it

    @contextmanager
    def filled(name):
        folder, whole = base / name, base / f"{name}.whole"
        with filelock.FileLock(base / f"{name}.lock"):
            folder.mkdir(exist_ok=True)
            yield folder, whole.exists()
            whole.touch()

    return filled


@pytest.fixture(scope="session")
def demo(shared_once):
    """The reports of all bundled runs, which take half a minute each."""
    with shared_once("demo") as (folder, is_there):
        told = folder / "told.json"
        if not is_there:
            told.write_text(json.dumps(asdict(_made_demo(folder / "made"))))
    return Demo(**json.loads(told.read_text()))


def _made_demo(folder: Path) -> Demo:
    from tiny_run import listing
    from typer.testing import CliRunner

    from opd_diag import cli

    data = Path(__file__).parents[1] / "data"
    before = listing(data)
    result = CliRunner().invoke(cli.app, ["demo", "--out", str(folder), "--quiet"])
    return Demo(str(folder), result.exit_code, result.stdout, result.stderr, listing(data) == before)


@pytest.fixture(scope="session")
def sharded_forms(tmp_path_factory):
    """Checkpoints in parts, of every form that `sharded_runs` writes, to be read and not changed."""
    from sharded_runs import write_all

    return write_all(tmp_path_factory.mktemp("sharded"))


@pytest.fixture
def own_run(tiny_run, tmp_path):
    """A copy of the run, to be broken."""
    return tiny_run.copied_to(tmp_path / "own")


@pytest.fixture
def small_disk(tmp_path):
    """A disk of one megabyte, where this user may mount one."""
    import subprocess

    folder = tmp_path / "disk"
    folder.mkdir()
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    try:
        mounted = subprocess.run(mounting, capture_output=True, check=False).returncode == 0
    except OSError:
        mounted = False
    if not mounted:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def without_pages(monkeypatch):
    """Reports write their numbers alone: pictures and pages take seconds and have tests of their own."""
    _write_numbers_alone(monkeypatch)


@pytest.fixture(scope="module")
def module_without_pages():
    """As `without_pages`, for fixtures that make a report for a whole module."""
    with pytest.MonkeyPatch.context() as patch:
        _write_numbers_alone(patch)
        yield


def _write_numbers_alone(patch):
    from opd_diag.report import Report
    from opd_diag.report.json_file import write_report_json

    def write(report, out_dir=None):
        write_report_json((out_dir or report.out_dir) / "report.json", report)
        return report.out_dir / "report.html"

    patch.setattr(Report, "write", write)


@pytest.fixture
def without_pictures(monkeypatch):
    """Pages have all but their pictures, which take most of the time and have tests of their own."""
    _draw_nothing(monkeypatch)


@pytest.fixture(scope="module")
def module_without_pictures():
    """As `without_pictures`, for fixtures that make a report for a whole module."""
    with pytest.MonkeyPatch.context() as patch:
        _draw_nothing(patch)
        yield


def _draw_nothing(patch):
    from opd_diag.report.figures import Figures

    patch.setattr("opd_diag.report.figures.draw_figures", lambda tables, k: Figures({}, {}, {}, []))


@pytest.fixture(scope="module")
def browser():
    """Chromium; not for the whole session, since its event loop would be in the way of tests that run their own."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    from chromium import CHROMIUM

    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM)
        yield found
        found.close()


@pytest.fixture
def open_file(browser):
    """Open a page at a width and scheme; afterwards nothing was logged, asked for or said in a dialog."""
    opened, said, asked = [], [], []

    def at(path, width: int = 1280, scheme: str = "light"):
        page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("dialog", lambda dialog: (said.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(path.as_uri())
        opened.append(page)
        return page

    yield at
    assert said == []
    assert [url for url in asked if not url.startswith(("file:", "data:"))] == []
    assert len([url for url in asked if url.startswith("file:")]) == len(opened)
    for page in opened:
        page.close()


@pytest.fixture
def problems_of(open_file):
    """Ask axe-core about a page with all that is folded opened, on a phone and a desk, in both schemes."""
    from chromium import SCHEMES, WIDTHS, accessibility_problems, unfold

    def everywhere(path, prepare=unfold):
        page, found = open_file(path), []
        prepare(page)
        for width in WIDTHS:
            page.set_viewport_size({"width": width, "height": 900})
            for scheme in SCHEMES:
                page.emulate_media(color_scheme=scheme)
                found += [f"{width}, {scheme}: {problem}" for problem in accessibility_problems(page)]
        return found

    return everywhere
