"""Of a pickle, tensors are read and nothing that it names is run; what is no whole pickle is one sentence."""

from __future__ import annotations

import os
import warnings

import pytest
import torch
from torch import nn

from opd_diag.errors import CheckpointError
from opd_diag.inference.pickles import Parted, Record, field, kind_of, read_pickle, read_tensors


class Bomb:
    """Unpickling it leaves a file."""

    def __init__(self, path, function=os.system, text="touch {}"):
        self.call = function, (text.format(path),)

    def __reduce__(self):
        return self.call


def refusal(file, **options) -> str:
    with pytest.raises(CheckpointError) as caught:
        read_pickle(file, **options)
    refusal.code = caught.value.code
    return str(caught.value)


class TestReading:
    def test_tensors_come_back_as_they_were(self, tmp_path):
        stored = {
            "weight": torch.arange(6.0).view(2, 3).t(),
            "half": torch.ones(2, dtype=torch.bfloat16),
            "count": torch.tensor(7),
            "parameter": nn.Parameter(torch.ones(1)),
            "said": [1, "two", (3.0, None)],
        }
        torch.save(stored, tmp_path / "a.bin")
        read = read_pickle(tmp_path / "a.bin")
        assert list(read) == list(stored)
        for name in ("weight", "half", "count", "parameter"):
            assert torch.equal(read[name], stored[name])
            assert read[name].dtype == stored[name].dtype
        assert read["said"] == [1, "two", (3.0, None)]

    def test_the_form_of_before_torch_1_6(self, tmp_path):
        torch.save({"a": torch.ones(3)}, tmp_path / "a.bin", _use_new_zipfile_serialization=False)
        assert torch.equal(read_pickle(tmp_path / "a.bin")["a"], torch.ones(3))

    def test_what_this_process_allows_does_not_count_here_and_is_not_forgotten(self, tmp_path):
        torch.save({"a": fractions()}, tmp_path / "a.bin")
        with torch.serialization.safe_globals([type(fractions())]):
            assert torch.load(tmp_path / "a.bin", weights_only=True) == {"a": fractions()}
            assert "fractions.Fraction" in refusal(tmp_path / "a.bin")
            assert type(fractions()) in torch.serialization.get_safe_globals()
        ours = {name for entry in torch.serialization.get_safe_globals() for name in [getattr(entry, "__name__", "")]}
        assert not ours & {"Parted", "Record"}

    def test_nothing_warns_and_nothing_is_said(self, tmp_path, capfd):
        torch.save({"a": torch.ones(3)}, tmp_path / "a.bin")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            read_pickle(tmp_path / "a.bin")
        assert capfd.readouterr() == ("", "")

    @pytest.mark.parametrize("stored", [torch.ones(2), [torch.ones(2)], {1: torch.ones(2)}], ids=["one", "list", "int"])
    def test_weights_without_names(self, tmp_path, stored):
        torch.save(stored, tmp_path / "a.bin")
        with pytest.raises(CheckpointError) as caught:
            read_tensors(tmp_path / "a.bin")
        assert str(caught.value) == f"{tmp_path / 'a.bin'} holds no weights by name. Copy or save it again."
        assert caught.value.code == "NO_WEIGHTS"


def fractions():
    from fractions import Fraction

    return Fraction(1, 3)


class TestRefusals:
    @pytest.mark.parametrize("new_form", [True, False])
    @pytest.mark.parametrize(
        ("function", "text", "named"),
        [
            (os.system, "touch {}", "posix.system"),
            (eval, "open({!r}, 'w').close()", "eval"),
            (exec, "open({!r}, 'w').close()", "exec"),
            (open, "{}", "io.open"),
        ],
        ids=["system", "eval", "exec", "open"],
    )
    def test_a_file_that_names_a_function_is_refused_and_runs_nothing(self, tmp_path, function, text, named, new_form):
        proof, file = tmp_path / "exploded", tmp_path / "a.pt"
        bomb = Bomb(str(proof), function, text)
        torch.save({"a": torch.ones(2), "b": bomb}, file, _use_new_zipfile_serialization=new_form)
        assert refusal(file) == (
            f"{file} holds more than tensors ({named}): reading it could run code that came with it. Load it where you "
            "trust it and save the model with save_pretrained, which writes safetensors."
        )
        assert refusal.code == "PICKLE_REFUSED"
        assert not proof.exists()

    def test_not_even_where_the_environment_asks_for_it(self, tmp_path, monkeypatch):
        monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
        torch.save(Bomb(tmp_path / "exploded"), tmp_path / "a.pt")
        assert "posix.system" in refusal(tmp_path / "a.pt", allow_pickle=True)
        assert not (tmp_path / "exploded").exists()

    def test_a_name_within_a_class_leads_to_a_record_and_nowhere_else(self, tmp_path):
        """Files of ShardedTensor name a class by ``getattr``; so could a file that means harm."""
        file = tmp_path / "a.pt"
        code = b"\x80\x02cbuiltins\ngetattr\ncbuiltins\nset\nX\x03\x00\x00\x00pop\x86R."
        save_pickle(file, code)
        assert read_pickle(file) is Record

    def test_an_old_torch_reads_no_pickles_unless_it_is_allowed(self, tmp_path, monkeypatch):
        file = tmp_path / "a.bin"
        torch.save({"a": torch.ones(1)}, file)
        for version, safe in (("2.9.1+cu128", False), ("2.6.0", False), ("2.10.0", True), ("3.0.0a0+git1", True)):
            monkeypatch.setattr(torch, "__version__", version)
            if safe:
                assert list(read_pickle(file)) == ["a"]
            else:
                assert refusal(file) == (
                    f"{file} is a pickle, and torch {version} reads pickles unsafely (CVE-2026-24747, mended in 2.10): "
                    "whoever wrote the file could run code here. Update torch, or pass --allow-pickle if the run is "
                    "yours."
                )
                assert refusal.code == "PICKLE_REFUSED"
                assert list(read_pickle(file, allow_pickle=True)) == ["a"]

    @pytest.mark.parametrize("kept", [0, 1, 3, 40, 0.5, -1])
    def test_a_file_that_is_cut_short(self, tmp_path, kept):
        file = tmp_path / "a.pt"
        torch.save({"a": torch.ones(2000)}, file)
        whole = file.read_bytes()
        file.write_bytes(whole[: kept if isinstance(kept, int) else int(kept * len(whole))])
        message = refusal(file)
        assert message.startswith(f"{file} is damaged: ")
        assert message.endswith(". Copy or save it again.")
        assert ("its end is missing" in message) == (kept in (40, 0.5, -1))
        assert refusal.code == "INCOMPLETE_WEIGHTS"
        assert "\n" not in message
        assert len(message) < 260 + len(str(file))

    @pytest.mark.parametrize(
        "content", [b"\x80\x02.", b"not a pickle at all", b"\x80\x02}q\x00(", b"PK\3\4" + bytes(99)]
    )
    def test_nonsense(self, tmp_path, content):
        (tmp_path / "a.pt").write_bytes(content)
        assert refusal(tmp_path / "a.pt").startswith(f"{tmp_path / 'a.pt'} is damaged: ")


def save_pickle(file, code: bytes) -> None:
    """Write a file of torch's form whose pickle is `code`."""
    torch.save(torch.ones(1), file)
    rewrite(file, lambda content: code)


def rewrite(file, change) -> None:
    """Change the pickle within a file of ``torch.save``."""
    import zipfile

    with zipfile.ZipFile(file) as stored:
        parts = {name: stored.read(name) for name in stored.namelist()}
    with zipfile.ZipFile(file, "w") as new:
        for name, content in parts.items():
            new.writestr(name, change(content) if name.endswith("data.pkl") else content)


class TestRecords:
    def test_fields_are_found_in_every_form_of_a_state(self):
        record = Record(1)
        assert field(record, "a") is None
        for state in ({"a": 3}, ({"a": 3}, None), (None, {"a": 3}), ({}, {"a": 3})):
            record.__setstate__(state)
            assert field(record, "a") == field(state, "a") == 3
            assert field(record, "b") is None
        record.__setstate__((1, 2))
        assert field(record, "a") is None
        assert kind_of(record) == "Record"

    def test_a_tensor_in_parts_is_looked_at_and_not_computed_with(self):
        parted = torch.Tensor._make_wrapper_subclass(Parted, (2, 3))
        assert parted.shape == (2, 3)
        assert parted.dim() == 2
        with pytest.raises(TypeError, match="of a tensor that is in parts"):
            torch.add(parted, 1)
