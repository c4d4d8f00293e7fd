"""Hidden states at chosen places are those of each sequence alone; kept ones are the same to the bit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from models import RAGGED, random_rollouts, rollout, tiny_model, wrapped

from opd_diag.errors import StoreError
from opd_diag.inference import hidden, packing, score, shards, teacher_hidden, wrap_model
from opd_diag.inference.hidden import HiddenStates
from opd_diag.inference.model import Model
from opd_diag.records.arrays import save_arrays
from opd_diag.records.scores import TENSOR_FIELDS

PLACES = [(4, 29), (0, 0), (3, 2), (4, 0), (1, 11), (2, 0)]


def alone(model, rollout, position):
    ids = torch.tensor([[*rollout.teacher_prompt_ids, *rollout.response_ids]])
    with torch.no_grad():
        states = model.hf.base_model(ids).last_hidden_state[0]
    return states[len(rollout.teacher_prompt_ids) + position - 1].numpy()


@pytest.fixture
def forwarded(monkeypatch):
    """(model, tokens) of each pass through a body."""
    passes, forward = [], Model.hidden

    def spy(self, tokens, **inputs):
        passes.append((self.name, tokens.numel()))
        return forward(self, tokens, **inputs)

    monkeypatch.setattr(Model, "hidden", spy)
    return passes


class TestOfTheTeacher:
    @pytest.mark.parametrize("tokens", [1, 30, 70, 1000])
    @pytest.mark.parametrize("family", ["qwen3", "lfm2"])
    def test_each_place_is_what_the_sequence_alone_gives(self, monkeypatch, family, tokens):
        monkeypatch.setitem(packing.TOKENS_PER_PACK, "cpu", tokens)
        teacher = wrapped(family, name="teacher", seed=2)
        rollouts = [replace(r, teacher_prompt_ids=(3, *r.prompt_ids)) for r in random_rollouts(RAGGED)]
        found = teacher_hidden(teacher, rollouts, PLACES)
        assert found.shape == (len(PLACES), teacher.head.weight.shape[1])
        assert found.dtype == torch.float32
        for state, (row, position) in zip(found, PLACES, strict=True):
            np.testing.assert_allclose(state.numpy(), alone(teacher, rollouts[row], position), atol=1e-5)

    @pytest.mark.parametrize("family", ["qwen3", "lfm2"])
    def test_without_places_there_are_no_states_and_nothing_is_run(self, forwarded, family):
        teacher = wrapped(family, seed=2)
        found = teacher_hidden(teacher, random_rollouts(RAGGED), [])
        assert (found.shape, found.dtype) == ((0, teacher.head.weight.shape[1]), torch.float32)
        assert forwarded == []

    def test_rollouts_that_are_not_named_are_not_run(self, forwarded):
        teacher, rollouts = wrapped("llama", seed=2), random_rollouts(RAGGED)
        assert teacher.takes_packs
        forwarded.clear()
        teacher_hidden(teacher, rollouts, [(0, 3), (3, 1), (0, 0)])
        assert sum(tokens for _, tokens in forwarded) == 8 + 33

    def test_responses_to_one_prompt_share_it(self, forwarded):
        teacher, prompt = wrapped("llama", seed=2), list(range(3, 33))
        rollouts = [rollout(prompt, [5] * n, rollout_index=n) for n in (2, 3, 4)]
        assert teacher.takes_packs
        forwarded.clear()
        found = teacher_hidden(teacher, rollouts, [(0, 0), (1, 0), (2, 0), (2, 4)])
        assert forwarded == [("model", 30 + 2 + 3 + 4)]
        torch.testing.assert_close(found[:3], found[:1].expand(3, -1), atol=0, rtol=0)
        assert (found[3] - found[0]).abs().max() > 0.1

    def test_the_head_makes_of_them_what_is_scored(self):
        student, teacher, rollouts = wrapped("llama", seed=1), wrapped("qwen3", seed=2), random_rollouts(RAGGED)
        scores = score(student, teacher, rollouts)
        places = list(zip(scores.rollout.tolist(), scores.position.tolist(), strict=True))
        logits = teacher.head.logits(teacher_hidden(teacher, rollouts, places)).double()
        entropy = torch.distributions.Categorical(logits=logits).entropy().detach().numpy()
        np.testing.assert_allclose(entropy, scores.teacher_entropy, atol=1e-5)


DTYPES = [torch.float32, torch.bfloat16, torch.float16, torch.float64]


class TestKept:
    @pytest.fixture(params=DTYPES, ids=str)
    def saved(self, request, tmp_path):
        states = torch.randn(40, 7, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(request.param)
        states[3, 2] = -0.0
        states[4] = torch.inf
        HiddenStates(states).save(tmp_path / "states.safetensors")
        return states, HiddenStates(tmp_path / "states.safetensors")

    def test_equal_to_the_bit(self, saved):
        states, kept = saved
        for start, stop in ((0, 40), (0, 1), (3, 5), (39, 40), (7, 7)):
            found = kept.rows(start, stop)
            assert found.dtype == states.dtype
            assert found.shape == (stop - start, 7)
            assert (
                found.contiguous().numpy(force=False).tobytes() == states[start:stop].numpy().tobytes()
                if (states.dtype != torch.bfloat16)
                else torch.equal(found.view(torch.int16), states[start:stop].view(torch.int16))
            )

    def test_in_memory_they_are_themselves(self):
        states = torch.randn(9, 3)
        assert torch.equal(HiddenStates(states).rows(2, 5), states[2:5])

    def test_only_the_rows_asked_for_are_read(self, saved, monkeypatch):
        """The file is mapped, and nothing but a slice of it is ever copied."""
        states, kept = saved
        read, load = [], hidden.load_described

        class Mapped:
            def __init__(self, array):
                whole = array
                while isinstance(whole.base, np.ndarray):
                    whole = whole.base
                assert isinstance(whole, np.memmap)
                self.array = array

            def __getitem__(self, rows):
                read.append(rows)
                return self.array[rows]

        def spy(path):
            arrays, about = load(path)
            return {name: Mapped(array) for name, array in arrays.items()}, about

        monkeypatch.setattr(hidden, "load_described", spy)
        assert torch.equal(kept.rows(30, 33), states[30:33])
        assert read == [slice(30, 33)]

    def test_what_is_read_may_be_written_over(self, saved):
        states, kept = saved
        kept.rows(0, 5).zero_()
        assert torch.equal(kept.rows(0, 5), states[:5])

    @pytest.mark.parametrize("harm", ["cut", "emptied", "taken away", "other arrays", "another type"])
    def test_a_damaged_file_is_one_sentence(self, tmp_path, harm):
        path = tmp_path / "states.safetensors"
        HiddenStates(torch.randn(40, 7)).save(path)
        if harm == "cut":
            path.write_bytes(path.read_bytes()[:200])
        elif harm == "emptied":
            path.write_bytes(b"")
        elif harm == "taken away":
            path.unlink()
        elif harm == "other arrays":
            save_arrays(path, {"reverse_kl": np.ones(3)})
        else:
            save_arrays(path, {"states": np.ones((3, 2))}, {"dtype": "int9"})
        with pytest.raises(StoreError) as caught:
            HiddenStates(path).rows(0, 2)
        message = str(caught.value)
        found = "holds no hidden states" if harm.startswith(("other", "another")) else "is no readable file of arrays"
        assert message.startswith(f"{path} {found}")
        assert message.endswith(". Delete it and run report again.")
        assert "\n" not in message

    def test_a_full_disk_is_the_sentence_of_every_part(self, small_disk):
        """A real one; no half of a file stays."""
        path = small_disk / "states.safetensors"
        with pytest.raises(StoreError) as caught:
            HiddenStates(torch.zeros(1000, 600)).save(path)
        message = str(caught.value)
        assert message.startswith(f"Cannot write {path}")
        assert message.endswith(
            "No space left on device. Free some space and run the same command again: what was finished is kept."
        )
        assert list(small_disk.glob("*.safetensors*")) == []


class InAFolder:
    """Keeps the teacher's hidden states as files; counts what was made."""

    def __init__(self, folder):
        self.folder, self.made, self.found = folder, [], []

    def __call__(self, shard, make):
        path = self.folder / f"{shard.number}.safetensors"
        (self.found if path.is_file() else self.made).append((shard.number, shard.count, shard.rows))
        if not path.is_file():
            make().save(path)
        return HiddenStates(path)


class TestScoredFromKept:
    @pytest.fixture(params=["float32", "bfloat16"])
    def models(self, request):
        made = [
            tiny_model(f, seed=s).to(getattr(torch, request.param)) for s, f in enumerate(("llama", "qwen3", "llama"))
        ]
        return [wrap_model(hf, name=name) for hf, name in zip(made, ("student", "teacher", "other"), strict=True)]

    @pytest.fixture(params=["one shard", "several shards", "small packs"])
    def cut(self, request, monkeypatch):
        if request.param != "one shard":
            monkeypatch.setitem(packing.TOKENS_PER_PACK, "cpu", 30)
            monkeypatch.setattr(shards, "TOKENS_PER_SHARD", 60 if request.param == "several shards" else 10_000)
        return request.param

    @pytest.fixture
    def rollouts(self):
        made = random_rollouts(RAGGED)
        masked = rollout([5] * 4, [6] * 9, generated=(True, False, True) * 3)
        unscored = rollout([8] * 4, [6] * 9, generated=(False,) * 9)
        hinted = rollout([7, 9], [4] * 5, teacher_prompt_ids=[3] * 8)
        return [*made, masked, unscored, hinted, rollout([7, 9], [], stop_reason="length")]

    def equal(self, first, second):
        for name in TENSOR_FIELDS:
            np.testing.assert_array_equal(getattr(first, name), getattr(second, name), err_msg=name)

    def test_found_made_and_never_kept_are_equal_to_the_bit(self, models, cut, rollouts, tmp_path, forwarded):
        student, teacher, other = models
        plain = [score(s, teacher, rollouts) for s in (student, other)]
        keep = InAFolder(tmp_path)
        self.equal(score(student, teacher, rollouts, keep_teacher=keep), plain[0])
        assert keep.made
        assert not keep.found
        assert (len(keep.made) > 1) == (cut == "several shards")
        for s, expected in zip((student, other), plain, strict=True):
            forwarded.clear()
            self.equal(score(s, teacher, rollouts, keep_teacher=keep), expected)
            assert {name for name, _ in forwarded} == {s.name}, "the teacher's body does not run"
        assert keep.found == keep.made * 2
        assert (plain[0].reverse_kl != plain[1].reverse_kl).mean() > 0.9

    def test_kept_in_memory(self, models, cut, rollouts):
        student, teacher, _ = models
        memory = {}

        def keep(shard, make):
            if shard.number not in memory:
                memory[shard.number] = make()
            return memory[shard.number]

        plain = score(student, teacher, rollouts)
        for _ in range(2):
            self.equal(score(student, teacher, rollouts, keep_teacher=keep), plain)
        assert sum(len(states.source) for states in memory.values()) == len(plain)
        assert {states.source.dtype for states in memory.values()} == {teacher.dtype}

    def test_what_is_kept_is_what_is_used(self, models, rollouts, tmp_path):
        """Of another teacher, the scores are another's."""
        student, teacher, other = models
        keep = InAFolder(tmp_path)
        score(student, other, rollouts, keep_teacher=keep)
        found = score(student, replace(teacher, head=other.head), rollouts, keep_teacher=keep)
        expected = score(student, other, rollouts)
        np.testing.assert_array_equal(found.reverse_kl, expected.reverse_kl)
        assert (found.reverse_kl != score(student, teacher, rollouts).reverse_kl).mean() > 0.9

    def test_a_shard_of_scores_that_is_found_asks_for_no_states(self, models, rollouts, tmp_path):
        student, teacher, _ = models
        arrays = {}

        def keep(shard, make):
            if shard.number not in arrays:
                arrays[shard.number] = make()
            return arrays[shard.number]

        first = score(student, teacher, rollouts, keep=keep)
        states = InAFolder(tmp_path)
        self.equal(score(student, teacher, rollouts, keep=keep, keep_teacher=states), first)
        assert states.made == states.found == []
