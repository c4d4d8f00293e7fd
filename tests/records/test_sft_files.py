"""Data for supervised fine-tuning: what each file holds, and that the libraries that read it take it."""

from __future__ import annotations

import json

import pytest

from opd_diag.errors import StoreError
from opd_diag.records.sft_files import Lesson, fits_llama_factory, refuse_other_data, write_sft_files


def said(role, content):
    return {"role": role, "content": content}


CHAT = Lesson((said("system", "Be brief."), said("user", "2 + 2?")), "It is 4 – «four».")
TEXT = Lesson("2 + 2 =", " 4")


def read(folder, name):
    return json.loads((folder / name).read_text(encoding="utf-8"))


def lines(folder, name):
    return [json.loads(line) for line in (folder / name).read_text(encoding="utf-8").splitlines()]


def test_chats(tmp_path):
    names = write_sft_files(tmp_path, [CHAT, CHAT])
    assert names == ["trl.jsonl", "llama_factory.json", "dataset_info.json"]
    answer = said("assistant", "It is 4 – «four».")
    assert lines(tmp_path, "trl.jsonl") == [{"prompt": list(CHAT.prompt), "completion": [answer]}] * 2
    assert read(tmp_path, "llama_factory.json") == [{"messages": [*CHAT.prompt, answer]}] * 2
    assert read(tmp_path, "dataset_info.json") == {
        "cold_start": {
            "file_name": "llama_factory.json",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {
                "role_tag": "role",
                "content_tag": "content",
                "user_tag": "user",
                "assistant_tag": "assistant",
                "system_tag": "system",
            },
        }
    }


def test_text(tmp_path):
    assert write_sft_files(tmp_path, [TEXT]) == ["trl.jsonl", "llama_factory.json", "dataset_info.json"]
    assert lines(tmp_path, "trl.jsonl") == [{"prompt": "2 + 2 =", "completion": " 4"}]
    assert read(tmp_path, "llama_factory.json") == [{"instruction": "2 + 2 =", "output": " 4"}]
    described = read(tmp_path, "dataset_info.json")["cold_start"]
    assert described["formatting"] == "alpaca"
    assert described["columns"] == {"prompt": "instruction", "response": "output"}


def test_both_forms_stand_apart(tmp_path):
    names = write_sft_files(tmp_path, [TEXT, CHAT])
    assert names == [
        "trl.jsonl", "llama_factory.json", "trl_text.jsonl", "llama_factory_text.json", "dataset_info.json",
    ]  # fmt: skip
    assert len(lines(tmp_path, "trl.jsonl")) == len(lines(tmp_path, "trl_text.jsonl")) == 1
    info = read(tmp_path, "dataset_info.json")
    assert {name: of["file_name"] for name, of in info.items()} == {
        "cold_start": "llama_factory.json",
        "cold_start_text": "llama_factory_text.json",
    }


def test_a_message_that_was_begun_is_taught_whole(tmp_path):
    begun = Lesson((said("user", "2 + 2?"), said("assistant", "<think>")), "4</think>4")
    write_sft_files(tmp_path, [begun])
    [row] = lines(tmp_path, "trl.jsonl")
    assert row == {"prompt": [said("user", "2 + 2?")], "completion": [said("assistant", "<think>4</think>4")]}


def test_what_the_template_was_given_goes_with_every_chat(tmp_path):
    write_sft_files(tmp_path, [CHAT, TEXT], template_kwargs={"enable_thinking": False})
    assert lines(tmp_path, "trl.jsonl")[0]["chat_template_kwargs"] == {"enable_thinking": False}
    assert "chat_template_kwargs" not in lines(tmp_path, "trl_text.jsonl")[0]


@pytest.mark.parametrize(
    ("roles", "fits"),
    [
        (("user",), True),
        (("system", "user"), True),
        (("user", "assistant", "user"), True),
        (("user", "assistant"), True),  # goes on from what the assistant began
        (("user", "user"), False),
        (("user", "system"), False),
        (("system", "system", "user"), False),
        (("tool",), False),
    ],
)
def test_chats_that_llama_factory_would_skip_are_left_out_of_its_file(tmp_path, roles, fits):
    lesson = Lesson(tuple(said(role, "x") for role in roles), "y")
    assert fits_llama_factory(lesson) is fits
    names = write_sft_files(tmp_path, [lesson])
    assert ("llama_factory.json" in names) is ("dataset_info.json" in names) is fits
    assert "trl.jsonl" in names


def test_what_is_older_goes(tmp_path):
    write_sft_files(tmp_path, [TEXT, CHAT])
    (tmp_path / "notes.txt").write_text("mine")
    assert write_sft_files(tmp_path, []) == []
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


class TestDataOfOthers:
    def test_a_folder_that_was_there_before(self, tmp_path):
        (tmp_path / "sft").mkdir()
        refuse_other_data(tmp_path / "sft", is_ours=False)
        (tmp_path / "sft" / "trl.jsonl").write_text("{}")
        with pytest.raises(StoreError) as error:
            refuse_other_data(tmp_path / "sft", is_ours=False)
        assert str(error.value) == (
            f"{tmp_path / 'sft'} was not made by opd-diag, and the data would go there. Choose another folder with "
            "--out."
        )
        refuse_other_data(tmp_path / "sft", is_ours=True)

    def test_a_data_set_that_was_added_to_ours(self, tmp_path):
        write_sft_files(tmp_path, [CHAT, TEXT])
        refuse_other_data(tmp_path, is_ours=True)
        described = read(tmp_path, "dataset_info.json") | {"alpaca": {"file_name": "alpaca.json"}}
        (tmp_path / "dataset_info.json").write_text(json.dumps(described))
        with pytest.raises(StoreError) as error:
            refuse_other_data(tmp_path, is_ours=True)
        assert str(error.value) == (
            f"{tmp_path / 'dataset_info.json'} also describes alpaca, and would be overwritten. Choose another folder "
            "with --out."
        )
        assert read(tmp_path, "dataset_info.json") == described


def test_no_folder_is_made_for_nothing(tmp_path):
    assert write_sft_files(tmp_path / "sft", []) == []
    assert not (tmp_path / "sft").exists()


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "sft").write_text("a file")
    with pytest.raises(StoreError) as error:
        write_sft_files(tmp_path / "sft", [CHAT])
    assert str(error.value) == (
        f"Cannot write {tmp_path / 'sft' / 'trl.jsonl'}: File exists. Choose another folder with --out."
    )


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("lesson", [CHAT, TEXT])
def test_trl_trains_on_the_completion_as_it_is(tmp_path, tiny_run, lesson):
    """The trainer's own reading of the file: the prompt as the student sees it, then the taught text, and an end."""
    datasets, trl = pytest.importorskip("datasets"), pytest.importorskip("trl")
    import tiny_run as tiny
    from transformers import AutoTokenizer

    write_sft_files(tmp_path / "sft", [lesson] * 4)
    tokenizer = AutoTokenizer.from_pretrained(tiny_run.student)
    tokenizer.chat_template = tiny.TEMPLATE.replace("{{ m.content }}", "{{ m.content }}<end>")
    data = datasets.load_dataset(
        "json", data_files=str(tmp_path / "sft" / "trl.jsonl"), split="train", cache_dir=str(tmp_path / "cache")
    )
    args = trl.SFTConfig(output_dir=str(tmp_path / "out"), max_steps=1, use_cpu=True, bf16=False, report_to="none")
    trainer = trl.SFTTrainer(tiny.model(seed=1), args=args, train_dataset=data, processing_class=tokenizer)
    row = trainer.train_dataset[0]
    taught = [i for i, label in zip(row["input_ids"], row["labels"], strict=True) if label != -100]
    assert tokenizer.decode(taught) == f"{lesson.taught}<end>"
    before = "2 + 2 =" if lesson is TEXT else "<system>Be brief.<end><user>2 + 2?<end><assistant>"
    assert tokenizer.decode(row["input_ids"][: len(row["input_ids"]) - len(taught)]) == before
    rows = datasets.load_dataset("json", data_files=str(tmp_path / "sft" / "llama_factory.json"), split="train")
    assert rows.column_names == (["instruction", "output"] if lesson is TEXT else ["messages"])
    trainer.train()
    assert trainer.state.global_step == 1
