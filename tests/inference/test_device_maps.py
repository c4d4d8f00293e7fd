"""What ``--device`` and ``--device-map`` name, and what is refused."""

from __future__ import annotations

import json

import pytest
import torch

from opd_diag.errors import InputError
from opd_diag.inference.device_maps import (
    Sharded,
    device_type,
    normal_form,
    read_device_maps,
    resolve_device,
    wanted_places,
)


def _json_error(text):
    with pytest.raises(ValueError, match="line 1") as found:
        json.loads(text)
    return f"{found.value}."


@pytest.mark.parametrize("name", ["auto", "balanced", "sequential", "cpu"])
def test_a_name_is_for_both(name):
    assert read_device_maps(name) == {"student": name, "teacher": name}
    assert read_device_maps(json.dumps({"teacher": name})) == {"teacher": name}


def test_none_is_none():
    assert read_device_maps(None) == {}


def test_a_file_holds_the_same(tmp_path):
    (tmp_path / "map.json").write_text('{"student": "cpu"}')
    assert read_device_maps(str(tmp_path / "map.json")) == {"student": "cpu"}


def test_gpus_have_numbers(two_gpus):
    both = read_device_maps('{"model": "cuda:1", "lm_head": "cuda", "model.norm": 1, "model.embed_tokens": "cpu"}')
    assert both["teacher"] == {"model": 1, "lm_head": 0, "model.norm": 1, "model.embed_tokens": "cpu"}


def test_one_device_is_no_map(two_gpus):
    assert read_device_maps('{"model": 1, "lm_head": "cuda:1"}') == {"student": "cuda:1", "teacher": "cuda:1"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{1}", "--device-map is no JSON: " + _json_error("{1}")),
        ("{}", "--device-map must be auto, balanced, sequential, a device, or JSON of {module: device}, found {}."),
        ("abacus", "Device 'abacus' is not available here. Use --device cpu or --device auto."),
        ('{"model": [1]}', '--device-map must name devices as 0, "cuda:0" or "cpu", found [1].'),
        ('{"model": true}', '--device-map must name devices as 0, "cuda:0" or "cpu", found True.'),
        ('{"model": 99}', "Device 'cuda:99' is not available here. Use --device cpu or --device auto."),
        (
            '{"model": "disk"}',
            "--device-map puts a part on the disk, where it would be read from the checkpoint's files at every "
            'pass. Put it on "cpu", use --dtype bfloat16, or spread the model over more devices.',
        ),
    ],
)
def test_what_cannot_be_read(text, message):
    with pytest.raises(InputError) as found:
        read_device_maps(text)
    assert str(found.value) == message


def test_a_teacher_in_shards_is_there_whatever_a_map_says():
    assert wanted_places(None, None) == {}
    assert wanted_places('{"student": "auto"}', 2) == {"student": "auto", "teacher": Sharded(2)}
    assert wanted_places("auto", 4) == {"student": "auto", "teacher": Sharded(4)}
    assert wanted_places("auto", None) == read_device_maps("auto")


@pytest.mark.parametrize(
    ("given", "normal"),
    [
        (("cpu", None), ("cpu", None)),
        (("auto", "cpu"), ("cpu", None)),
        (("cpu", '{"student": "cuda:1"}'), ("cuda:1", '{"teacher": "cpu"}')),
        (("cuda:1", '{"teacher": "cuda:1"}'), ("cuda:1", None)),
        (("cpu", "auto"), ("auto", '{"student": "auto", "teacher": "auto"}')),
        (("cpu", '{"student": "auto"}'), ("auto", '{"student": "auto", "teacher": "cpu"}')),
        (("cpu", '{"teacher": {"model": 0, "lm_head": 1}}'), ("cpu", '{"teacher": {"model": 0, "lm_head": 1}}')),
    ],
)
def test_the_device_is_where_students_compute(two_gpus, given, normal):
    assert normal_form(*given) == normal
    assert normal_form(*normal) == normal


def test_devices():
    assert resolve_device("cpu") == torch.device("cpu")
    assert resolve_device("auto").type == ("cuda" if torch.cuda.is_available() else "cpu")


def test_the_type_of_a_device_is_in_its_name(two_gpus):
    assert [device_type(name) for name in ("cpu", "cuda", "cuda:7", "auto")] == ["cpu", "cuda", "cuda", "cuda"]
