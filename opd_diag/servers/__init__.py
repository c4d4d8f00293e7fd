"""What scoring servers answer: token ids in, log-probabilities out; this room knows no model and no torch.

====================  ==================================================================================
`connecting.py`       ``connect``: from an address to a server that is known to answer; read this first
`answers.py`          ``Question``, ``Answer``, ``Sampled``: the same for all engines
`server.py`           ``Server``, ``About``: what every server is, and what it cannot be asked
`vllm.py`             vLLM's requests and answers
`sglang.py`           SGLang's
`vllm_in_process.py`  vLLM without a server
`vllm_engine.py`      vLLM imported; its engine, and the thread that works with it
`vllm_beside.py`      vLLM in a process of its own, for the responses of one model
`vllm_child.py`       what runs in that process
`child.py`            a module in a process of its own, and its end
`contract.py`         what an answer must be before it is believed
`reading.py`          answers of any form, read
`in_flight.py`        ``answered``: many questions at once, answers in order
`transport.py`        one request: tries, pauses, limits
`patience.py`         ``Patience``: how many of them, and how long
`addresses.py`        what a user writes for a server, and of the teacher behind it
====================  ==================================================================================

A new engine is one module with a class that is a ``Server``, and a line in ``NAMES``, ``CONTEXT``, ``LOGITS`` and
``_MODULES``. requests and orjson are the extra ``servers`` and vLLM is the extra ``vllm``, loaded by ``connect``.
"""

from opd_diag.servers.addresses import Addressed, addressed, is_address, model_here, parsed
from opd_diag.servers.answers import ALL, Answer, Question, Sampled
from opd_diag.servers.connecting import connect
from opd_diag.servers.in_flight import answered
from opd_diag.servers.patience import Patience
from opd_diag.servers.server import About, Server

__all__ = [
    "ALL",
    "About",
    "Addressed",
    "Answer",
    "Patience",
    "Question",
    "Sampled",
    "Server",
    "addressed",
    "answered",
    "connect",
    "is_address",
    "model_here",
    "parsed",
]
