"""vLLM in a process of its own: a stand-in that is really begun, and every answer that must not be believed."""

import json
import os

import numpy as np
import pytest

from opd_diag.errors import CheckpointError, InputError, ModelError
from opd_diag.servers import vllm_beside
from opd_diag.servers.child import NoAnswer
from opd_diag.servers.vllm_beside import VLLMBeside

from .fake_vllm import put_on_path
from .stand_in import TinyModel

MODEL = TinyModel(48)
SAMPLING = {"n": 2, "max_new_tokens": 4, "temperature": 1.0, "top_p": 1.0}
GOOD = [[5, 6, 3], [-0.1, -0.2, -0.3], "stop"]
RELEASE = "Install another release of vLLM."
LOCAL = "Sample without vLLM: --sampler local."


def begun(**options):
    given = {"name": "step 40", "dtype": "float32", "drawable": 48, "stop_ids": (3, 9), "gpu_share": 0.5, "raw": False}
    return VLLMBeside("a/folder", **{**given, "variables": {}, **options})


class TestTheProcess:
    def test_responses_of_a_process_that_is_really_begun(self, tmp_path, monkeypatch):
        put_on_path(tmp_path, monkeypatch)
        engine = begun()
        try:
            assert (engine.context, engine.vocabulary) == (512, 48)
            found = dict(engine.sampled([((5, 6), 1), ((7,), 2)], **SAMPLING))
            greedy = dict(engine.sampled([((7,), 2)], **SAMPLING | {"temperature": 0.0, "n": 3}))[0]
        finally:
            engine.close()
        assert engine._child._process.returncode == 0
        for place, ids in enumerate(((5, 6), (7,))):
            assert len(found[place]) == 2
            for one in found[place]:
                rows = MODEL([*ids, *one.ids])[len(ids) - 1 : -1]
                np.testing.assert_allclose(one.logprobs, rows[np.arange(len(one.ids)), one.ids], atol=1e-6)
        best = [7]
        while len(best) < 5 and best[-1] not in (3, 9):
            best.append(int(MODEL(best)[-1].argmax()))
        assert [one.ids for one in greedy] == [tuple(best[1:])] * 3

    def test_it_asks_no_hub_and_keeps_nothing_that_it_compiles(self, tmp_path, monkeypatch):
        seen = 'f\'{os.environ["HF_HUB_OFFLINE"]} {os.environ["VLLM_DISABLE_COMPILE_CACHE"]} {os.environ["ONE"]}\''
        put_on_path(tmp_path, monkeypatch, "", f"import os; raise ImportError({seen})")
        with pytest.raises(InputError, match=r"^vLLM cannot be used here: 1 1 2\."):
            begun(variables={"ONE": "2"})

    @pytest.mark.parametrize(
        ("arguments", "lines", "error", "said"),
        [
            (
                "", "raise ImportError('libiomp5.so: cannot open.')", InputError,
                "vLLM cannot be used here: libiomp5.so: cannot open. Mend its installation, or leave --sampler out.",
            ),
            (
                "", "raise SystemExit(4)", InputError,
                "vLLM cannot be used here: its process ended with exit code 4. Mend its installation, or leave "
                "--sampler out.",
            ),
            (
                "TinyModel(48), cpu=False", "", InputError,
                "vLLM cannot be used here: it is a build for GPUs, and on --device cpu it sees none. Mend its "
                "installation, or leave --sampler out.",
            ),
            (
                "TinyModel(48), loads=False", "", CheckpointError,
                f"step 40: vLLM does not load it: No model here. {LOCAL}",
            ),
            (
                "of_folder=lambda _: os.kill(os.getpid(), 9)", "import os", CheckpointError,
                f"step 40: vLLM does not load it: its process was ended by SIGKILL. {LOCAL}",
            ),
        ],
    )  # fmt: skip
    def test_one_that_cannot_begin(self, tmp_path, monkeypatch, arguments, lines, error, said):
        put_on_path(tmp_path, monkeypatch, arguments, lines)
        with pytest.raises(error) as caught:
            begun(variables={"CUDA_VISIBLE_DEVICES": ""})
        assert str(caught.value) == said
        assert type(caught.value) is error

    def test_one_that_dies_while_it_samples(self, tmp_path, monkeypatch):
        put_on_path(tmp_path, monkeypatch, "lambda ids: TinyModel(48)(ids) if len(ids) < 3 else sys.exit('Gone.')")
        engine = begun()
        with pytest.raises(ModelError) as caught:
            list(engine.sampled([((5, 6, 7), 1)], **SAMPLING))
        assert str(caught.value) == (
            "step 40: the process in which vLLM samples it ended with exit code 1; it said last: Gone. " + LOCAL
        )
        with pytest.raises(ModelError, match="ended with exit code 1"):  # who asks once more hears the same
            list(engine.sampled([((5, 6, 7), 1)], **SAMPLING))
        engine.close(at_once=True)

    def test_nothing_stays_of_one_that_is_closed_at_once(self, tmp_path, monkeypatch):
        put_on_path(tmp_path, monkeypatch)
        engine = begun()
        pid = engine._child._process.pid
        engine.close(at_once=True)
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


class Scripted:
    """A process that answers given lines, whatever it is asked."""

    def __init__(self, *answers):
        self.answers, self.sent, self.closed = list(answers), [], None

    def send(self, line):
        self.sent.append(json.loads(json.dumps(line)))

    def answer(self, most):
        if not self.answers:
            raise NoAnswer("ended with exit code 1")
        return self.answers.pop(0)

    def close(self, *, at_once):
        self.closed = at_once


@pytest.fixture
def scripted(monkeypatch):
    """(answers) → a model whose process is there, and answers these."""

    def script(*answers, begins=({"vllm": "0.32.0"}, {"context": 64, "vocabulary": 48})):
        child = Scripted(*begins, *answers)
        monkeypatch.setattr(vllm_beside, "Child", lambda module, variables: child)
        return child

    return script


def refused(*answers, script, **options):
    script(*answers)
    with pytest.raises(ModelError) as caught:
        list(begun(**options).sampled([((5,), 1), ((6,), 2)], **SAMPLING))
    return str(caught.value)


def of(*responses, prompt=0):
    return {"prompt": prompt, "responses": list(responses)}


class TestWhatIsAsked:
    def test_the_model_then_prompts_with_their_seeds(self, scripted):
        child = scripted(of(GOOD, GOOD, prompt=1), of(GOOD, GOOD))
        found = list(begun().sampled([(np.array([5]), 1), ((6, 7), 2)], **SAMPLING))
        assert [place for place, _ in found] == [1, 0]
        assert child.sent == [
            {"model": "a/folder", "dtype": "float32", "drawable": 48, "gpu_share": 0.5, "raw": False},
            {
                "prompts": [[[5], 1], [[6, 7], 2]],
                "params": {"n": 2, "max_tokens": 4, "temperature": 1.0, "top_p": 1.0, "stop_token_ids": [3, 9]},
            },
        ]


NAME = "vLLM with step 40"
ENDS = f"{NAME}: responses that end at their first stop token or after 4 tokens were expected, found one of"
BAD = {
    "no prompt": ({"said": 1}, f"{NAME} answers a prompt that it was not asked. {RELEASE}"),
    "another prompt": (of(GOOD, GOOD, prompt=2), f"{NAME} answers a prompt that it was not asked. {RELEASE}"),
    "true as a prompt": (of(GOOD, GOOD, prompt=True), f"{NAME} answers a prompt that it was not asked. {RELEASE}"),
    "too few": (of(GOOD), f"{NAME}: 2 responses were expected, found 1. {RELEASE}"),
    "none": ({"prompt": 0}, f"{NAME}: 2 responses were expected, found none. {RELEASE}"),
    "no response": (
        of("text", GOOD),
        f"{NAME}: a response that ends by stop or length was expected, found 'None'. {RELEASE}",
    ),
    "broken off": (
        of([[5], [-0.1], "abort"], GOOD),
        f"{NAME}: a response that ends by stop or length was expected, found 'abort'. {RELEASE}",
    ),
    "too long": (
        of([[5] * 5, [-0.1] * 5, "length"], GOOD),
        f"{NAME}: 1 to 4 token ids a response were expected, found 5 of them. {RELEASE}",
    ),
    "empty": (
        of([[], [], "stop"], GOOD),
        f"{NAME}: 1 to 4 token ids a response were expected, found 0 of them. {RELEASE}",
    ),
    "no ids": (
        of([["a"], [-0.1], "length"], GOOD),
        f"{NAME}: 1 to 4 token ids a response were expected, found none. {RELEASE}",
    ),
    "outside": (
        of([[5, 48, 5, 5], [-0.1] * 4, "length"], GOOD), f"{NAME}: ids below 48 were expected, found 48. {RELEASE}",
    ),
    "logits": (
        of([[5, 6, 3], [0.5, -0.1, -0.1], "stop"], GOOD),
        f"{NAME}: 3 log-probabilities of sampled tokens were expected, found others. {RELEASE}",
    ),
    "no log-probabilities": (
        of([[5, 6, 3], None, "stop"], GOOD),
        f"{NAME}: 3 log-probabilities of sampled tokens were expected, found others. {RELEASE}",
    ),
    "nan": (
        of([[5, 6, 3], [-0.1, float("nan"), -0.1], "stop"], GOOD),
        f"{NAME} gives log-probabilities that are no numbers. Its weights are damaged.",
    ),
    "no stop token": (of([[5, 6, 7], [-0.1] * 3, "stop"], GOOD), f"{ENDS} 3 that ends by stop. {RELEASE}"),
    "a stop token before": (of([[3, 6, 9], [-0.1] * 3, "stop"], GOOD), f"{ENDS} 3 that ends by stop. {RELEASE}"),
    "short": (of([[5, 6, 7], [-0.1] * 3, "length"], GOOD), f"{ENDS} 3 that ends by length. {RELEASE}"),
    "went on": (of([[5, 3, 7, 7], [-0.1] * 4, "length"], GOOD), f"{ENDS} 4 that ends by length. {RELEASE}"),
    "refused": ({"refused": "No room\n left."}, f"{NAME} refuses what it was asked: No room left. {LOCAL}"),
}  # fmt: skip


class TestAnswersThatMustNotBeBelieved:
    @pytest.mark.parametrize("fault", BAD)
    def test_of_a_prompt(self, scripted, fault):
        answer, said = BAD[fault]
        assert refused(answer, script=scripted) == said

    def test_the_same_prompt_twice(self, scripted):
        assert refused(of(GOOD, GOOD), of(GOOD, GOOD), script=scripted) == BAD["no prompt"][1]

    def test_only_ids_that_may_be_drawn(self, scripted):
        said = f"{NAME}: ids below 6 were expected, found 6. {RELEASE}"
        assert refused(of(GOOD, GOOD), script=scripted, drawable=6) == said

    @pytest.mark.parametrize("said", [{}, {"context": 64}, {"context": "64", "vocabulary": 48}])
    def test_of_a_model_that_says_nothing_of_itself(self, scripted, said):
        child = scripted(begins=({"vllm": "0.32.0"}, said))
        with pytest.raises(CheckpointError) as caught:
            begun()
        assert str(caught.value) == f"{NAME} does not say how many tokens it takes. {RELEASE}"
        assert child.closed is True
