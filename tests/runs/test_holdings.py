"""Where a config comes from: beside the weights, else the best place that has one, else a hub id, else nowhere."""

import pytest

from opd_diag.runs.disk import Disk
from opd_diag.runs.holdings import Weights, is_local, with_config

from .folders import write

WEIGHTS = Weights("fsdp")


def test_the_folder_itself_then_the_others_in_order(tmp_path):
    folders = [write(tmp_path / name, {}) for name in "abc"]
    write(folders[2], {"config.json": "{}"})
    assert with_config(WEIGHTS, Disk(), folders[0], folders[1:], "shards").config == folders[2]
    write(folders[1], {"config.json": "{}"})
    assert with_config(WEIGHTS, Disk(), folders[0], folders[1:], "shards").config == folders[1]
    write(folders[0], {"config.json": "{}"})
    assert with_config(WEIGHTS, Disk(), folders[0], folders[1:], "shards").config is None


def test_a_hub_id_comes_last_and_is_taken_at_its_word(tmp_path):
    write(tmp_path / "b", {"config.json": "{}"})
    places = ["org/model", tmp_path / "b"]
    assert with_config(WEIGHTS, Disk(), tmp_path, places, "shards").config == tmp_path / "b"
    found = with_config(WEIGHTS, Disk(), tmp_path, ["org/model", tmp_path / "gone"], "shards")
    assert (str(found.config), found.blocker) == ("org/model", None)


@pytest.mark.parametrize("place", ["/models/gone", "./gone", "a/b/c"])
def test_a_path_that_is_not_there_is_no_hub_id(tmp_path, place):
    found = with_config(WEIGHTS, Disk(), tmp_path, [place], "shards of 2 ranks")
    assert found.code == "CONFIG_MISSING"
    assert found.blocker == f"It has shards of 2 ranks but no config.json; looked in {place} too."


def test_a_broken_config_blocks(tmp_path):
    write(tmp_path, {"config.json": "[]"})
    found = with_config(WEIGHTS, Disk(), tmp_path, [], "shards")
    assert (found.code, found.blocker) == ("UNREADABLE", "config.json holds no JSON object.")


def test_is_local():
    names = ("a", "org/a", "org/a@main", "./a", "../a", "/a", "~/a", "a/b/c")
    assert [name for name in names if is_local(name)] == ["./a", "../a", "/a", "~/a", "a/b/c"]
