"""What a report needs of memory, by hand; and what is refused before any weight is read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from opd_diag.errors import InputError
from opd_diag.inference import placing
from opd_diag.inference.room import Room
from opd_diag.inference.size import model_size
from opd_diag.replay import memory, open_store, replay
from opd_diag.replay.memory import Needed, memory_lines, needed_memory, refuse_too_large

from .test_cost import planned

CPU = torch.device("cpu")


@pytest.fixture
def plan(tiny_run):
    return planned(tiny_run)


def sizes_of(plan):
    return model_size(plan.first), model_size(plan.teacher)


def has(monkeypatch, free, total):
    monkeypatch.setattr(memory, "room_of", lambda device: Room(free, total))


def test_by_hand(plan, monkeypatch):
    has(monkeypatch, 10**9, 2 * 10**9)
    size = sizes_of(plan)[0]
    config = size.config
    assert (size.inner, size.largest) == (config.intermediate_size, config.intermediate_size * config.hidden_size)
    assert size.cached == 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    (found,) = needed_memory(plan, sizes_of(plan))
    assert (found.device, found.room) == (CPU, Room(10**9, 2 * 10**9))
    assert found.weights == 2 * 4 * size.parameters
    logits = 256 * size.vocabulary * 4 * 2 + 3 * 4 * 256 * size.vocabulary
    one_pack = 1024 * 4 * (6 * size.width + 3 * size.inner + 2 * size.width)
    assert found.beside == logits + one_pack


def test_16_bits_need_half_the_weights_and_heads_of_32(plan):
    (wide,), (narrow,) = (
        needed_memory(replace(plan, settings=replace(plan.settings, dtype=dtype)), sizes_of(plan))
        for dtype in ("float32", "bfloat16")
    )
    size = sizes_of(plan)[0]
    assert narrow.weights == wide.weights // 2
    pack = 1024 * (6 * size.width + 3 * size.inner)
    assert narrow.beside - wide.beside == 2 * 4 * size.vocabulary * size.width - 2 * pack


def test_a_long_response_needs_its_cache(plan):
    longer = replace(plan, settings=replace(plan.settings, max_new_tokens=30_000))
    size = sizes_of(plan)[0]
    (short,), (long,) = (needed_memory(p, sizes_of(plan)) for p in (plan, longer))
    longest = max(len(p.teacher_ids) for p in plan.prompts) + 30_000 + 64
    assert long.beside - short.beside == (
        longest * size.cached * 4 + 12 * size.vocabulary - 1024 * 4 * (8 * size.width + 3 * size.inner)
    )


def test_a_spread_teacher_is_counted_where_it_lies(plan, monkeypatch):
    where = {"model.embed_tokens": 0, "model.layers": 1, "model.norm": 1, "lm_head": 0}
    monkeypatch.setattr(
        memory, "settled", lambda found, *_, **how: where if found == plan.teacher else torch.device("cuda:1")
    )
    has(monkeypatch, 10**9, 2 * 10**9)
    size = sizes_of(plan)[0]
    first, second = needed_memory(plan, sizes_of(plan))
    assert [str(n.device) for n in (first, second)] == ["cuda:0", "cuda:1"]
    tables = 2 * 4 * size.vocabulary * size.width
    assert first.weights == tables
    assert second.weights == 2 * 4 * size.parameters - tables
    assert first.beside == second.beside > 0


def test_a_teacher_in_shards_is_counted_rank_by_rank(plan, monkeypatch):
    has(monkeypatch, 10**9, 2 * 10**9)
    monkeypatch.setattr(placing, "refuse_unshardable", lambda *of: None)  # it has one head of keys
    size, config = sizes_of(plan)[1], sizes_of(plan)[1].config
    in_two = replace(plan, settings=replace(plan.settings, device="cpu", tensor_parallel=2))
    (student,) = needed_memory(plan, (sizes_of(plan)[0], None))
    (both,) = needed_memory(in_two, sizes_of(plan))  # both ranks are on the CPU
    whole = config.hidden_size * (2 * config.num_hidden_layers + 1)  # norms, and those of queries and keys
    whole += 2 * config.num_hidden_layers * config.head_dim
    assert both.weights - student.weights == 4 * (size.parameters + whole)
    head = 4 * size.vocabulary * size.width + 256 * size.vocabulary * 4 * 2 + 3 * 4 * 256 * size.vocabulary
    one_pack = 1024 * 4 * (6 * size.width + 3 * -(-size.inner // 2) + 2 * size.width)
    assert both.beside == 2 * (head + one_pack)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    first, second, on_cpu = needed_memory(in_two, sizes_of(plan))
    assert [str(n.device) for n in (first, second, on_cpu)] == ["cuda:0", "cuda:1", "cpu"]
    assert 2 * first.weights == 2 * second.weights == both.weights - student.weights
    assert on_cpu.weights == student.weights
    lines = memory_lines((first, second, on_cpu))
    assert [line[:21] for line in lines] == ["in memory    cuda:0: ", " " * 13 + "cuda:1: ", " " * 13 + "the CPU:"]


def test_what_the_second_model_finds_the_first_has_left(plan, monkeypatch):
    asked = []
    monkeypatch.setattr(memory, "settled", lambda *a, taken, **how: asked.append(taken) or CPU)
    needed_memory(plan, sizes_of(plan))
    assert asked == [{}, {"cpu": 4 * sizes_of(plan)[1].parameters}]


def test_lines():
    enough = Needed(torch.device("cuda:1"), 14_000_000_000, 600_000_000, Room(80_000_000_000, 85_000_000_000))
    scarce, unknown = replace(enough, device=CPU, room=Room(14_000_000_000, 85_000_000_000)), replace(enough, room=None)
    said = "14.0 GB of weights, about 600.0 MB beside them"
    assert memory_lines((enough,)) == [f"in memory    cuda:1: {said}, 80.0 GB free"]
    assert memory_lines((unknown,)) == [f"in memory    cuda:1: {said}"]
    assert memory_lines((scarce, enough)) == [
        f"in memory    the CPU: {said}, 14.0 GB free",
        f"             cuda:1: {said}, 80.0 GB free",
        "memory       this may not fit on the CPU",
    ]


@pytest.mark.parametrize("computes", [True, False])
def test_what_can_never_fit_is_refused_before_a_weight_is_read(plan, monkeypatch, tmp_path, computes):
    weights = 8 * sizes_of(plan)[0].parameters
    has(monkeypatch, 10**9, weights - 1)
    monkeypatch.setattr(memory, "cpu_computes", lambda dtype: computes)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", lambda *a, **o: pytest.fail("weights"))
    ways = (
        "Use --dtype bfloat16 (129.2 kB), or put the teacher behind a server (--teacher vllm=URL)."
        if computes
        else "Put the teacher behind a server (--teacher vllm=URL)."
    )
    with open_store(tmp_path / "out", plan.run_dir) as store, pytest.raises(InputError) as found:
        replay(plan, store)
    assert str(found.value) == (
        f"A student and the teacher need 258.3 kB for their weights in float32; the CPU has 258.3 kB. {ways}"
    )


def test_what_cannot_go_with_shards_is_in_their_place(plan, monkeypatch):
    size = replace(sizes_of(plan)[0], parameters=10**6)
    monkeypatch.setattr(memory, "model_size", lambda *_, **how: size)
    monkeypatch.setattr(placing, "refuse_unshardable", lambda *of: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    has(monkeypatch, 10**6, 10**6)
    in_two = replace(plan.settings, device="cpu", tensor_parallel=2, dtype="bfloat16")
    with pytest.raises(InputError) as found:
        refuse_too_large(replace(plan, settings=in_two))
    assert str(found.value) == (
        "A student and the teacher need 2.0 MB for their weights in bfloat16; the CPU has 1.0 MB. Spread them over the "
        "GPUs with --device-map auto in place of --tensor-parallel, or put the teacher behind a server (--teacher "
        "vllm=URL in place of --tensor-parallel)."
    )


def test_what_only_may_not_fit_is_tried(plan, monkeypatch):
    has(monkeypatch, 0, 10**9)
    refuse_too_large(plan)
    assert memory_lines(needed_memory(plan, sizes_of(plan)))[-1] == "memory       this may not fit on the CPU"


def test_a_config_that_cannot_be_read_is_not_refused_here(plan, tmp_path):
    (tmp_path / "config.json").write_text("{}")
    refuse_too_large(replace(plan, teacher=replace(plan.teacher, path=tmp_path)))
