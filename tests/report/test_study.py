"""A study as a page: escaped, whole, offline, with its tables and pictures beside it."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from opd_diag.errors import StoreError
from opd_diag.report.study import write_study
from opd_diag.studies import Shown

from .made_up_study import made_up_study, response
from .strict_html import StrictReader


@pytest.fixture
def study():
    return made_up_study()


def test_its_files(study, tmp_path):
    page = write_study(study, tmp_path / "new")
    assert page == tmp_path / "new" / "outcome.html"
    assert sorted(f.name for f in page.parent.iterdir()) == ["one.svg", "outcome.html", "outcome.json", "rows.csv"]
    assert (page.parent / "rows.csv").read_text() == "a,b\n1,0.5\n2,\n"


def test_the_page(study, tmp_path):
    text = write_study(study, tmp_path).read_text(encoding="utf-8")
    StrictReader(text)
    for said in (
        "Something &amp; &lt;more&gt;",
        "&lt;run&gt;",
        "first &lt;b&gt;is&lt;/b&gt;.",
        "It is &lt;one&gt;.",
        "Twice &lt;m",
    ):
        assert said in text
    assert 'class="headline warn"' in text
    assert '<span class="sign" role="img" aria-label="pass">' in text
    assert '<span class="sign" role="img" aria-label="warning">' in text
    assert "http-equiv" in text
    assert "<script" not in text


def test_a_comparison_that_could_be_made_is_no_good_news(study, tmp_path):
    told = replace(study, headline_status="pass", compares=True)
    text = write_study(told, tmp_path).read_text(encoding="utf-8")
    block = text[text.index('<div class="headline') : text.index("</div>", text.index('<div class="headline'))]
    assert block.startswith('<div class="headline unknown">')
    assert "pass" not in block
    assert "<title>outcome of " in text
    assert 'class="headline warn"' in write_study(replace(told, headline_status="warn"), tmp_path).read_text("utf-8")


def test_tables_to_read(study, tmp_path):
    shown = Shown("Side <by> side", "See <it>.", ["model", "value"], [["a<b", "0.5"], ["c", "–"]])
    text = write_study(replace(study, shown=[shown]), tmp_path).read_text(encoding="utf-8")
    StrictReader(text)
    assert '<th scope="row">a&lt;b</th><td class="n">0.5</td>' in text
    assert '<th scope="col">model</th><th scope="col" class="n">value</th>' in text
    assert "See &lt;it&gt;." in text
    assert "<caption>Side &lt;by&gt; side</caption>" in text


def test_a_column_without_a_name_has_no_heading(study, tmp_path):
    text = write_study(replace(study, shown=[Shown("It", "So.", ["", "v"], [["a", "1"]])]), tmp_path).read_text("utf-8")
    assert '<tr><td></td><th scope="col" class="n">v</th></tr>' in text


def test_a_study_without_tables_and_pictures(study, tmp_path):
    text = write_study(replace(study, tables={}, pictures=[]), tmp_path).read_text(encoding="utf-8")
    StrictReader(text)
    assert "Pictures" not in text
    assert "beside this page" not in text


def test_responses_to_read(study, tmp_path):
    before, after = response("step 0", "<yes>", True), response("step <9>", "<no>", False)
    read = replace(study, excerpts=[{"step 0": before, "step <9>": after}], excerpts_intro="<These> fell.")
    text = write_study(read, tmp_path).read_text(encoding="utf-8")
    StrictReader(text)
    places = [text.index(f"&lt;{said}&gt;") for said in ("These", "id", "yes", "9", "no")]
    assert places == sorted(places)
    assert text.index("✓ correct") < text.index("✗ wrong")
    assert "Responses to read" in text
    assert "Responses to read" not in write_study(study, tmp_path).read_text(encoding="utf-8")


def test_the_record(study, tmp_path):
    write_study(study, tmp_path)
    record = json.loads((tmp_path / "outcome.json").read_text())
    assert (record["study"], record["subject"], record["headline"]) == ("outcome", "<run>", "Something & <more>")
    assert [v["status"] for v in record["verdicts"]] == ["pass", "warn"]
    assert record["verdicts"][0]["ci_high"] is None
    assert record["tables"] == {"rows": [{"a": 1, "b": 0.5}, {"a": 2, "b": None}]}


def test_a_folder_that_cannot_be_written_to(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="Cannot write"):
        write_study(study, tmp_path / "file")
