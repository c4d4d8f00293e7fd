"""What a user may write for a server, and what is refused."""

import pytest

from opd_diag.errors import InputError
from opd_diag.servers.addresses import Addressed, addressed, is_address, is_loopback, model_here, parsed

WRITTEN = {
    "vllm=http://127.0.0.1:8000": ("vllm", "http://127.0.0.1:8000"),
    " sglang=https://host/models/7b/ ": ("sglang", "https://host/models/7b"),
    "vllm=http://[::1]:8000/v1": ("vllm", "http://[::1]:8000"),
}
REFUSED = {
    "http://127.0.0.1:8000": (
        "A server is written as vllm=http://HOST:PORT or sglang=http://HOST:PORT; found 'http://127.0.0.1:8000'."
    ),
    "tgi=http://h": "A server is written as vllm=http://HOST:PORT or sglang=http://HOST:PORT; found 'tgi=http://h'.",
    "vllm=file:///etc/passwd": (
        "'file:///etc/passwd' is no http address, folder or hub id. Write vllm=http://HOST:PORT, or vllm=DIR."
    ),
    "vllm=127.0.0.1:8000": (
        "'127.0.0.1:8000' is no http address, folder or hub id. Write vllm=http://HOST:PORT, or vllm=DIR."
    ),
    "vllm=/no/such/folder": (
        "'/no/such/folder' is no http address, folder or hub id. Write vllm=http://HOST:PORT, or vllm=DIR."
    ),
    "sglang=org/model": "'org/model' is no http address. Write sglang=http://HOST:PORT.",
    "vllm=http://h:port": (
        "'http://h:port' is no address: Port could not be cast to integer value as 'port'. Write vllm=http://HOST:PORT."
    ),
    "vllm=http://h/?a=1": "'http://h/?a=1' has more than host, port and path. Write vllm=http://HOST:PORT.",
    "vllm=http://me:secret@h:8000": (
        "The address of h has a name or password in it, which would be written to reports. Leave it out, and put the "
        "server's key into the environment variable OPD_DIAG_SERVER_KEY."
    ),
    "vllm=\x1b[31m": ("'\\\\x1b[31m' is no http address, folder or hub id. Write vllm=http://HOST:PORT, or vllm=DIR."),
}


@pytest.mark.parametrize("address", WRITTEN)
def test_an_address(address):
    assert parsed(address) == WRITTEN[address]


@pytest.mark.parametrize("address", REFUSED)
def test_what_is_none(address):
    with pytest.raises(InputError) as caught:
        parsed(address)
    assert str(caught.value) == REFUSED[address]


def test_this_machine_itself():
    assert all(map(is_loopback, ("http://127.0.0.1:1", "http://localhost", "http://[::1]:5")))
    assert not any(map(is_loopback, ("http://127.0.0.1.example", "https://8.8.8.8", "http://teacher")))


@pytest.mark.parametrize("text", [*WRITTEN, "http://h", "tgi=https://h", "vllm=", "sglang=h:1"])
def test_what_is_meant_as_an_address(text):
    assert is_address(text)


def test_a_model_that_is_loaded_here(tmp_path, monkeypatch):
    (tmp_path / "with:2=signs").mkdir()
    monkeypatch.chdir(tmp_path)
    assert model_here(f" vllm={tmp_path} ") == str(tmp_path)
    assert model_here("vllm=with:2=signs") == "with:2=signs"
    assert model_here("vllm=org/Model-1.5_b") == "org/Model-1.5_b"
    for none in (*WRITTEN, *REFUSED, "org/model", "vllm=", "vllm=a/b/c", "vllm=../up", "vllm=org/mo del"):
        assert model_here(none) is None, none


@pytest.mark.parametrize("text", ["", "vllm", "org/model", "runs/a=b", "./vllm=x", "C:\\models"])
def test_what_is_meant_as_a_folder(text):
    assert not is_address(text)


AT = "vllm=http://h:8000"
GRAMMAR = (
    "Behind # an address has the name of one model, top=K and tokenizer=T, each once and with commas between them; "
    "found {!r}. Write it as #NAME,top=64, or use --teacher-model for other names."
)
TOP = "Behind # in an address top must be at least 1, or -1 for the whole vocabulary, found {!r}."


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (f" {AT} ", Addressed(AT)),
        (f"{AT}#org/big-7b", Addressed(AT, "org/big-7b")),
        (f"{AT}/v1#big, top=64 ,tokenizer=org/big", Addressed(f"{AT}/v1", "big", 64, "org/big")),
        (f"{AT}#top=-1", Addressed(AT, top=-1)),
        (f"{AT}#model=a=b", Addressed(AT, "a=b")),
        ("vllm=org/model#top=20", Addressed("vllm=org/model", top=20)),
        ("http://h#x", Addressed("http://h", "x")),
    ],
)
def test_what_an_address_says_of_its_teacher(text, found):
    assert addressed(text) == found


@pytest.mark.parametrize(
    ("said", "message"),
    [
        *(
            (said, GRAMMAR.format(said))
            for said in ("", "a,b", "model=a,b", "top=1,top=2", "size=7", "tokenizer=", "a,")
        ),
        *((f"top={top}", TOP.format(top)) for top in ("0", "-2", "1.5", "all")),
    ],
)
def test_what_it_cannot_say(said, message):
    with pytest.raises(InputError) as caught:
        addressed(f"{AT}#{said}")
    assert str(caught.value) == message


def test_a_folder_with_that_sign_in_its_name_is_a_folder(tmp_path):
    (tmp_path / "a#b").mkdir()
    assert addressed(f"vllm={tmp_path}/a#b") == Addressed(f"vllm={tmp_path}/a#b")
    assert addressed(f"vllm={tmp_path}#b") == Addressed(f"vllm={tmp_path}", "b")
