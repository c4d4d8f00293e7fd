"""Arrays and responses in answers that may be anything."""

import base64
import io
import pickle
import struct

import numpy as np
import pytest

from opd_diag.errors import ServerError
from opd_diag.servers.reading import npy_array, sampled_of
from opd_diag.servers.server import About

ABOUT = About("vllm", None, "m", None, None, None, True, None, False, url="http://h")
MEND = "Update the server, and ask it without anything between that changes answers."


def coded(array, **options):
    saved = io.BytesIO()
    np.save(saved, array, **options)
    return base64.b64encode(saved.getvalue()).decode()


@pytest.mark.parametrize("dtype", ["<f4", "<f8", "<f2", ">f4"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_an_array_comes_back(dtype, order):
    array = np.asarray([[-0.5, -np.inf, -2.0], [-1.5, -0.25, -4.0]], dtype=dtype, order=order)
    assert npy_array(coded(array), (2, 3), ABOUT).tolist() == array.tolist()


class Danger:
    def __reduce__(self):
        return (pytest.fail, ("unpickled",))


def long_claim():
    """A header that claims numbers which do not follow."""
    header = b"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return base64.b64encode(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + b"\0" * 8).decode()


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (None, "no .npy array"),
        ("no base64!", "no .npy array"),
        (base64.b64encode(pickle.dumps([1])).decode(), "no .npy array"),
        (base64.b64encode(b"PK\x03\x04" + b"\0" * 60).decode(), "no .npy array"),
        (coded(np.array([[Danger()]], dtype=object)), "object of shape (1, 1)"),
        (coded(np.zeros((3, 2))), "float64 of shape (3, 2)"),
        (coded(np.zeros((2, 3), np.int64)), "int64 of shape (2, 3)"),
        (long_claim(), "float32 of shape (2, 3)"),
    ],
    ids=range(8),
)
def test_what_is_no_such_array(data, found):
    with pytest.raises(ServerError) as caught:
        npy_array(data, (2, 3), ABOUT)
    assert str(caught.value) == (
        "vLLM at http://h: floating-point numbers of shape (2, 3) were expected for the ids asked, found "
        f"{found}. {MEND}"
    )


@pytest.mark.parametrize(
    ("ids", "logprobs", "finish", "told"),
    [
        ([1], [-1.0], "abort", "a response that ends by stop or length was expected, found 'abort'. Look into the "
         "server's log, and ask again."),
        ([], [], "stop", f"1 to 3 token ids a response were expected, found 0 of them. {MEND}"),
        ([1, 2, 3, 4], [], "stop", f"1 to 3 token ids a response were expected, found 4 of them. {MEND}"),
        ([1, -2], [], "stop", f"1 to 3 token ids a response were expected, found none. {MEND}"),
        ([1, 2], [-1.0], "stop", "2 log-probabilities of sampled tokens were expected, found others. These are logits: "
         "start the server with --logprobs-mode raw_logprobs."),
        ([1, 2], [-1.0, None], "stop", "2 log-probabilities of sampled tokens were expected, found others. These are "
         "logits: start the server with --logprobs-mode raw_logprobs."),
        ([1, 2], [-1.0, 3.0], "stop", "2 log-probabilities of sampled tokens were expected, found others. These are "
         "logits: start the server with --logprobs-mode raw_logprobs."),
    ],
    ids=range(7),
)  # fmt: skip
def test_what_is_no_response(ids, logprobs, finish, told):
    with pytest.raises(ServerError) as caught:
        sampled_of(ABOUT, ids, logprobs, finish, 3)
    assert str(caught.value) == f"vLLM at http://h: {told}"


def test_a_response():
    read = sampled_of(ABOUT, [4, 5], [-0.5, -9999.0], "stop", 3)
    assert (read.ids, read.logprobs.tolist(), read.stop_reason) == ((4, 5), [-0.5, -np.inf], "stop")
