"""Text and messages become the ids that both models ought to see, and ids become text that people can read."""

from __future__ import annotations

from typing import ClassVar

import pytest
from models import CHATML, WORDS, byte_tokenizer, save, sentencepiece_tokenizer, tiny_model, word_tokenizer
from tokenizers import processors

from opd_diag.errors import InputError, PromptsError, TokenizerMismatchError
from opd_diag.records.prompt import Prompt
from opd_diag.tokenization import (
    TeacherView,
    Tokenizer,
    check_same_ids,
    encode_prompts,
    load_tokenizer,
    read_template,
    tokenizer_differences,
)

BOS, EOS = 1, 2
"""Of the word tokenizer."""

WITH_BOS = (
    "{{ bos_token }}{% for m in messages %}{{ m['content'] }} {% endfor %}{% if add_generation_prompt %}?{% endif %}"
)
"""A template that brings a BOS, in the manner of Llama."""

SWITCHED = "{% if loud %}cat {% endif %}{% for m in messages %}{{ m['content'] }} {% endfor %}"


def user(*contents):
    """Give a conversation that alternates from the user on."""
    return tuple({"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents))


def encode(content, tokenizer, **options):
    """Encode one prompt."""
    teacher_content = options.pop("teacher_content", None)
    (encoded,) = encode_prompts([Prompt(content, "p7", teacher_content=teacher_content)], tokenizer, **options)
    return encoded


def ids_of(words, tokenizer):
    return tuple(tokenizer.hf.convert_tokens_to_ids(words.split()))


def refusal(content, tokenizer, **options) -> str:
    with pytest.raises(PromptsError) as caught:
        encode(content, tokenizer, **options)
    return str(caught.value)


class TestText:
    def test_ids(self):
        tokenizer = word_tokenizer()
        encoded = encode("the cat sat", tokenizer)
        assert encoded.ids == ids_of("the cat sat", tokenizer)
        assert encoded.teacher_ids == encoded.ids

    def test_a_bos_where_the_tokenizer_adds_one(self):
        tokenizer = word_tokenizer(adds_bos=True)
        assert encode("the cat", tokenizer).ids == (BOS, *ids_of("the cat", tokenizer))

    @pytest.mark.parametrize("adds_bos", [True, False])
    def test_a_bos_that_the_text_brings_is_not_doubled(self, adds_bos):
        tokenizer = byte_tokenizer(adds_bos=adds_bos)
        bos = tokenizer.hf.bos_token_id
        ids = encode("<s>the cat", tokenizer).ids
        assert ids[0] == bos
        assert ids.count(bos) == 1
        assert tokenizer.text(ids) == "<s>the cat"

    def test_an_end_that_the_tokenizer_adds_is_left_out(self):
        tokenizer = word_tokenizer()
        tokenizer.hf.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A </s>", special_tokens=[("<s>", BOS), ("</s>", EOS)]
        )
        assert encode("the cat", tokenizer).ids == (BOS, *ids_of("the cat", tokenizer))
        assert encode("the </s>", word_tokenizer()).ids == (*ids_of("the", tokenizer), EOS)  # the user's own stays

    def test_a_tokenizer_without_bos(self):
        tokenizer = word_tokenizer(bos_token=None)
        assert encode("the cat", tokenizer).ids == ids_of("the cat", tokenizer)

    def test_places_count_from_zero_and_the_prompt_is_kept(self):
        prompts = [Prompt("the", "a"), Prompt("cat", "b", answer="3")]
        encoded = encode_prompts(prompts, word_tokenizer())
        assert [(e.index, e.prompt) for e in encoded] == [(0, prompts[0]), (1, prompts[1])]

    def test_text_without_a_token_is_refused(self):
        message = "Prompt p7 has no token under the tokenizer of tiny tokenizer."
        assert refusal(" ", word_tokenizer()) == message


class TestMessages:
    @pytest.mark.parametrize("adds_bos", [True, False])
    @pytest.mark.parametrize("template", [CHATML, WITH_BOS])
    @pytest.mark.parametrize("contents", [("the cat",), ("the cat", "sat", "on é")])
    def test_ids_are_those_of_the_rendered_text(self, adds_bos, template, contents):
        tokenizer = byte_tokenizer(adds_bos=adds_bos, template=template)
        messages = user(*contents)
        text = tokenizer.hf.apply_chat_template([*messages], tokenize=False, add_generation_prompt=True)
        ids = encode(messages, tokenizer).ids
        assert list(ids) == tokenizer.hf(text, add_special_tokens=False)["input_ids"]
        assert tokenizer.text(ids) == text
        assert text.endswith("<|im_start|>assistant\n" if template == CHATML else "?")
        assert ids.count(tokenizer.hf.bos_token_id) == (template == WITH_BOS)  # never two

    def test_special_tokens_of_the_template_are_single_ids(self):
        tokenizer = byte_tokenizer(template=CHATML)
        ids = encode(user("the"), tokenizer).ids
        assert ids.count(tokenizer.hf.convert_tokens_to_ids("<|im_start|>")) == 2
        assert ids.count(tokenizer.hf.convert_tokens_to_ids("<|im_end|>")) == 1

    def test_a_last_message_of_the_assistant_is_continued(self):
        tokenizer = byte_tokenizer(template=CHATML)
        ids = encode(user("the cat", "sat on"), tokenizer).ids
        assert tokenizer.text(ids) == (
            "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\nsat on"  # nothing closes it, nothing follows
        )

    def test_template_arguments(self):
        tokenizer = word_tokenizer(template=SWITCHED)
        loud = encode(user("dog"), tokenizer, template_kwargs={"loud": True})
        assert loud.ids == loud.teacher_ids == ids_of("cat dog", tokenizer)
        assert encode(user("dog"), tokenizer).ids == ids_of("dog", tokenizer)

    def test_without_a_template(self):
        assert refusal(user("the"), word_tokenizer()) == (
            "Prompt p7 is chat messages, but the tokenizer of tiny tokenizer has no chat template. "
            "Give the prompts as text, or name a tokenizer that has one with --tokenizer."
        )
        assert encode("the", word_tokenizer()).ids  # text needs none

    @pytest.mark.parametrize(
        ("template", "reason"),
        [
            ("{{ raise_exception('No such role') }}", "No such role"),
            ("{{ messages[7].content.strip() }}", "has no element 7"),
            ("{% if %}", "Expected an expression"),
            ("{{ 1 + 'a' }}", "unsupported operand"),
        ],
    )
    def test_a_template_that_fails(self, template, reason):
        message = refusal(user("the"), word_tokenizer(template=template))
        assert message.startswith("Prompt p7: the chat template fails: ")
        assert reason in message

    def test_an_argument_that_no_template_may_have(self):
        tokenizer = word_tokenizer(template=SWITCHED)
        assert "the chat template fails" in refusal(user("the"), tokenizer, template_kwargs={"tokenize": False})

    def test_a_template_that_renders_nothing(self):
        message = "Prompt p7 has no token under the tokenizer of tiny tokenizer."
        assert refusal(user("the"), word_tokenizer(template="{{ '' }}")) == message


class TestTeacherView:
    TOKENIZER = word_tokenizer(template="{% for m in messages %}{{ m['role'] }} {{ m['content'] }} {% endfor %}")

    def ids(self, words):
        return ids_of(words, self.TOKENIZER)

    def test_another_template(self):
        view = TeacherView(template="{{ messages[0]['content'] }} ?")
        encoded = encode(user("the cat"), self.TOKENIZER, teacher=view)
        assert encoded.ids == self.ids("user the cat")
        assert encoded.teacher_ids == self.ids("the cat ?")

    def test_another_template_leaves_text_as_it_is(self):
        encoded = encode("the cat", self.TOKENIZER, teacher=TeacherView(template="{{ 'dog' }}"))
        assert encoded.teacher_ids == encoded.ids == self.ids("the cat")

    def test_another_system_prompt_replaces_the_prompts_own(self):
        view = TeacherView(system_prompt="dog ran")
        bare = encode(user("the cat"), self.TOKENIZER, teacher=view)
        assert bare.ids == self.ids("user the cat")
        assert bare.teacher_ids == self.ids("system dog ran user the cat")
        messages = ({"role": "system", "content": "mat"}, *user("the cat"))
        replaced = encode(messages, self.TOKENIZER, teacher=view)
        assert replaced.ids == self.ids("system mat user the cat")
        assert replaced.teacher_ids == bare.teacher_ids

    def test_what_the_prompt_shows_the_teacher(self):
        encoded = encode("the cat", self.TOKENIZER, teacher_content="the cat sat on the mat")
        assert encoded.ids == self.ids("the cat")
        assert encoded.teacher_ids == self.ids("the cat sat on the mat")
        encoded = encode(user("the"), self.TOKENIZER, teacher_content="answer is 7")
        assert encoded.teacher_ids == self.ids("answer is 7")

    def test_a_hint_and_a_system_prompt_together(self):
        encoded = encode(
            user("the cat"),
            self.TOKENIZER,
            teacher_content=user("the cat sat"),
            teacher=TeacherView(system_prompt="dog"),
        )
        assert encoded.ids == self.ids("user the cat")
        assert encoded.teacher_ids == self.ids("system dog user the cat sat")

    def test_a_system_prompt_for_text_is_refused(self):
        message = refusal("the cat", self.TOKENIZER, teacher=TeacherView(system_prompt="dog"))
        assert message == (
            "Prompt p7 is text, so the teacher cannot be given a system prompt. Give the prompts as chat messages, "
            "or what the teacher sees as 'teacher_prompt'."
        )


class TestReading:
    def test_text_goes_round(self):
        tokenizer = byte_tokenizer()
        for text in ("the cat", "  two  spaces ", "é € 你好 🙂\n\t", "I 'm here , n't", "<s>the</s>", "a .b"):
            assert tokenizer.text(tokenizer.hf(text, add_special_tokens=False)["input_ids"]) == text

    def test_special_tokens_are_in_text_and_not_in_plain_text(self):
        tokenizer = byte_tokenizer()
        ids = tokenizer.hf("<s>the cat</s>")["input_ids"]
        assert tokenizer.text(ids) == "<s>the cat</s>"
        assert tokenizer.plain_text(ids) == "the cat"

    def test_stop_ids(self):
        assert word_tokenizer().stop_ids == (EOS,)
        assert word_tokenizer(eos_token=None).stop_ids == ()

    def test_tokens_of_a_byte_level_tokenizer(self):
        tokenizer = byte_tokenizer(extra=("<｜begin▁of▁sentence｜>",))

        def read(text):
            return [tokenizer.token(i).text for i in tokenizer.hf(text)["input_ids"]]

        assert read(" cat at") == [" cat", " ", "at"]
        assert read("\n\t") == ["\n", "\t"]
        assert read("é€") == ["<0xC3>", "<0xA9>", "<0xE2>", "<0x82>", "<0xAC>"]
        assert read("▁") == ["<0xE2>", "<0x96>", "<0x81>"]
        assert read("<｜begin▁of▁sentence｜>") == ["<｜begin▁of▁sentence｜>"]

    def test_tokens_in_the_manner_of_sentencepiece(self):
        tokenizer = sentencepiece_tokenizer()

        def read(*raws):
            return [tokenizer.token(i).text for i in tokenizer.hf.convert_tokens_to_ids(list(raws))]

        assert read("▁the", "the", "▁", "s") == [" the", "the", " ", "s"]
        assert read("<0xE2>", "<0x80>", "<0xFF>") == ["<0xE2>", "<0x80>", "<0xFF>"]
        assert read("<0x0A>", "<0x20>", "<0x41>") == ["\n", " ", "A"]
        assert tokenizer.text(tokenizer.hf("the cat é", add_special_tokens=False)["input_ids"]) == "the cat é"

    def test_special_tokens_are_marked(self):
        tokenizer = word_tokenizer()
        assert [(tokenizer.token(i).text, tokenizer.token(i).special) for i in (0, 1, 2, 24)] == [
            ("<unk>", True),
            ("<s>", True),
            ("</s>", True),
            ("the", False),
        ]
        tokenizer = byte_tokenizer()
        without_a_role = tokenizer.hf.convert_tokens_to_ids("<|im_start|>")
        assert without_a_role not in tokenizer.hf.all_special_ids
        assert tokenizer.token(without_a_role).special
        assert tokenizer.plain_text([without_a_role]) == ""

    def test_ids_beyond_the_tokenizer(self):
        tokenizer = word_tokenizer()
        token = tokenizer.token(len(tokenizer.hf))
        assert (token.text, token.special) == ("<no token>", False)


class TestDifferences:
    def test_none(self):
        assert tokenizer_differences(word_tokenizer(), word_tokenizer()) == []

    def test_size_and_entries(self):
        fewer = word_tokenizer(words=WORDS[:-1])
        assert tokenizer_differences(word_tokenizer(), fewer) == [
            "The student's tokenizer has 39 entries, the teacher's 38."
        ]
        swapped = word_tokenizer(words=(WORDS[1], WORDS[0], *WORDS[2:]))
        assert tokenizer_differences(word_tokenizer(), swapped) == ["2 of 39 ids stand for other tokens (24, 25)."]
        reversed_words = word_tokenizer(words=WORDS[::-1])
        assert tokenizer_differences(word_tokenizer(), reversed_words) == [
            "14 of 39 ids stand for other tokens (24, 25, 26, 27, 28, …)."
        ]

    def test_special_tokens(self):
        other = word_tokenizer(eos_token="<unk>", bos_token=None, pad_token="</s>")
        assert tokenizer_differences(word_tokenizer(), other) == [
            "bos_token is '<s>' for the student and None for the teacher.",
            "eos_token is '</s>' for the student and '<unk>' for the teacher.",
            "pad_token is None for the student and '</s>' for the teacher.",
        ]

    def test_templates(self):
        wanted = [
            "The chat templates differ; unless --teacher-template says otherwise, the student's was used for both."
        ]
        assert tokenizer_differences(word_tokenizer(template=CHATML), word_tokenizer(template=WITH_BOS)) == wanted
        assert tokenizer_differences(word_tokenizer(template=CHATML), word_tokenizer()) == wanted
        assert tokenizer_differences(word_tokenizer(template=CHATML), word_tokenizer(template=CHATML)) == []
        assert tokenizer_differences(word_tokenizer(template=""), word_tokenizer()) == []


class TestSameIds:
    SWAPPED = word_tokenizer(words=(WORDS[1], WORDS[0], *WORDS[2:]))

    def test_equal_tokenizers_pass(self):
        check_same_ids(range(50), word_tokenizer(), word_tokenizer())
        check_same_ids(range(300), byte_tokenizer(), byte_tokenizer())  # fragments of characters too

    def test_other_roles_of_the_same_tokens_pass(self):
        check_same_ids(range(39), word_tokenizer(), word_tokenizer(eos_token="<unk>", pad_token="</s>"))

    def test_ids_that_do_not_occur_are_nobodys_business(self):
        check_same_ids([1, 2, 3, 26], word_tokenizer(), self.SWAPPED)

    def test_a_permuted_id_is_refused_with_both_readings(self):
        with pytest.raises(TokenizerMismatchError) as caught:
            check_same_ids([3, 25, 3], word_tokenizer(), self.SWAPPED)
        assert str(caught.value) == (
            "Student and teacher read 1 of the ids that occur differently: 25 is 'a' for the student, 'the' for the "
            "teacher. Scores of such a pair would compare different tokens. Use a teacher with the student's tokenizer."
        )
        assert caught.value.code == "TOKENIZER_MISMATCH"

    def test_many_are_counted_and_three_are_shown(self):
        with pytest.raises(TokenizerMismatchError) as caught:
            check_same_ids(range(39), word_tokenizer(), word_tokenizer(words=WORDS[::-1]))
        assert "read 14 of the ids that occur differently: 24 is 'the'" in str(caught.value)
        assert str(caught.value).count("for the student") == 3

    def test_padding_rows_that_neither_knows_pass(self):
        check_same_ids([39, 40, 150], word_tokenizer(), word_tokenizer())

    def test_an_id_that_only_one_knows_is_refused(self):
        with pytest.raises(TokenizerMismatchError, match=r"38 is 'is' for the student, '<no token>' for the teacher\."):
            check_same_ids([38], word_tokenizer(), word_tokenizer(words=WORDS[:-1]))

    def test_another_special_token_is_refused(self):
        ours, theirs = byte_tokenizer(extra=("<pad>",)), byte_tokenizer(extra=("<end>",))
        pad = ours.hf.convert_tokens_to_ids("<pad>")
        check_same_ids(range(pad), ours, theirs)
        with pytest.raises(TokenizerMismatchError, match="'<pad>' for the student, '<end>' for the teacher"):
            check_same_ids([pad], ours, theirs)

    def test_other_spellings_of_the_same_text_pass(self):
        """``▁cat`` of one kind of tokenizer is `` cat`` of the other."""
        sentencepiece, byte_level = sentencepiece_tokenizer(), byte_tokenizer()
        ours = byte_level.hf.convert_tokens_to_ids("Ġcat")
        theirs = sentencepiece.hf.convert_tokens_to_ids("▁cat")
        check_same_ids([ours], byte_level, _Shifted(sentencepiece, theirs - ours))

    def test_a_space_more_or_less_is_another_token(self):
        """Alone, both ▁the and the decode to one text, as sentencepiece drops the first space."""
        tokenizer = sentencepiece_tokenizer()
        spaced, bare = tokenizer.hf.convert_tokens_to_ids(["▁the", "the"])
        assert tokenizer.text([spaced]) == tokenizer.text([bare])
        with pytest.raises(TokenizerMismatchError, match="' the' for the student, 'the' for the teacher"):
            check_same_ids([spaced], tokenizer, _Shifted(tokenizer, bare - spaced))

    def test_fragments_of_different_characters_are_refused(self):
        """Both bytes decode to the replacement character."""
        tokenizer = byte_tokenizer()
        first, second = tokenizer.hf("é")["input_ids"]
        assert tokenizer.text([first]) == tokenizer.text([second])
        with pytest.raises(TokenizerMismatchError, match="'<0xC3>' for the student, '<0xA9>' for the teacher"):
            check_same_ids([first], tokenizer, _Shifted(tokenizer, second - first))

    def test_fragments_that_cannot_be_told_apart_are_refused(self):
        """Two names for what is only part of a character prove nothing."""
        with pytest.raises(TokenizerMismatchError):
            check_same_ids([5], Tokenizer(_Fragments("你"), "a"), Tokenizer(_Fragments("好"), "b"))
        check_same_ids([5], Tokenizer(_Fragments("你"), "a"), Tokenizer(_Fragments("你"), "b"))


class _Fragments:
    """Every id is part of a character, under a name that says nothing of its bytes."""

    all_special_ids = ()
    added_tokens_decoder: ClassVar = {}

    def __init__(self, name):
        self.name = name

    def __len__(self):
        return 10

    def get_vocab(self):
        return {self.convert_ids_to_tokens(i): i for i in range(10)}

    def decode(self, ids, **options):
        return "\N{REPLACEMENT CHARACTER}" * len(ids)

    def convert_ids_to_tokens(self, token_id):
        return f"{self.name}{token_id}"


class _Shifted(Tokenizer):
    """A tokenizer under which every id is what another's is some places further."""

    def __init__(self, tokenizer, by):
        super().__init__(_ShiftedHF(tokenizer.hf, by), tokenizer.source)


class _ShiftedHF:
    def __init__(self, hf, by):
        self.hf, self.by = hf, by

    def __len__(self):
        return len(self.hf)

    def get_vocab(self):
        return {token: i - self.by for token, i in self.hf.get_vocab().items()}

    @property
    def all_special_ids(self):
        return [i - self.by for i in self.hf.all_special_ids]

    @property
    def added_tokens_decoder(self):
        return {i - self.by: token for i, token in self.hf.added_tokens_decoder.items()}

    def decode(self, ids, **options):
        return self.hf.decode([i + self.by for i in ids], **options)

    def convert_ids_to_tokens(self, token_id):
        return self.hf.convert_ids_to_tokens(token_id + self.by)


class TestSize:
    def test_gaps_in_the_vocabulary_count(self):
        class Gap(_Fragments):
            def get_vocab(self):
                return {"a": 0, "b": 41}

        assert Tokenizer(Gap("x"), "here").size == 42


class TestFiles:
    def test_a_tokenizer_beside_a_model(self, tmp_path):
        made = byte_tokenizer(adds_bos=True, template=CHATML)
        save(tmp_path, tiny_model(), made)
        read = load_tokenizer(str(tmp_path))
        assert read.source == str(tmp_path)
        assert tokenizer_differences(made, read) == []
        for content in ("the cat é", user("the cat", "sat", "?")):
            assert encode(content, read).ids == encode(content, made).ids

    def test_no_tokenizer(self, tmp_path):
        for source in (tmp_path / "gone", save(tmp_path / "bare", tiny_model())):
            with pytest.raises(InputError) as caught:
                load_tokenizer(str(source))
            assert str(caught.value).startswith(f"No tokenizer can be loaded from {source}: ")
            assert str(caught.value).endswith(" Name one with --tokenizer.")
            assert "\n" not in str(caught.value)

    @pytest.mark.parametrize("text", ["{broken", "{}", ""])
    def test_a_damaged_tokenizer(self, tmp_path, text):
        save(tmp_path, tiny_model(), word_tokenizer())
        (tmp_path / "tokenizer.json").write_text(text)
        with pytest.raises(InputError, match=f"^No tokenizer can be loaded from {tmp_path}: "):
            load_tokenizer(str(tmp_path))

    def test_templates(self, tmp_path):
        (tmp_path / "t.jinja").write_text("{{ 'é' }}", encoding="utf-8")
        assert read_template(tmp_path / "t.jinja") == "{{ 'é' }}"
        (tmp_path / "latin.jinja").write_bytes(b"\xe9")
        for name in ("gone.jinja", "latin.jinja"):
            with pytest.raises(InputError) as caught:
                read_template(tmp_path / name)
            assert str(caught.value).startswith(f"Chat template {tmp_path / name} cannot be read: ")
            assert str(caught.value).endswith(". Name a file with --teacher-template.")


def test_text_becomes_ids_as_it_is_and_back():
    tokenizer = byte_tokenizer(adds_bos=True)
    ids = tokenizer.ids("a cat</s>")
    assert tokenizer.text(ids) == "a cat</s>", "no BOS is added, and the end is the token"
    assert ids[-1] == tokenizer.hf.eos_token_id
    assert tokenizer.stripped(ids) == {"a cat"}


def test_stripped_text_has_spaces_as_they_are_or_as_the_tokenizer_cleans_them():
    tokenizer = word_tokenizer()
    tokenizer.hf.clean_up_tokenization_spaces = True
    assert tokenizer.stripped(tokenizer.ids("the cat .")) == {"the cat .", "the cat."}
