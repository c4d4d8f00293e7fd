"""A stand-in for a scoring server: answers as vLLM 0.32 or SGLang 0.5 document it, from any model, well or badly.

::

    with stand_in("vllm", TinyModel()) as url:
        server = connect(f"vllm={url}", top=8)

A model is a function from ids to an (n, V) array: row j has the log-probabilities of what follows ``ids[: j + 1]``.
"""

from __future__ import annotations

import base64
import io
import socket
import struct
import threading
import time
from collections import Counter
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import orjson

VALUES = {"logits", "light", "heavy", "null", "noisy"}
"""What a server may do to log-probabilities: answer logits, of which some or none are above 0; sum to more than one;
leave one out; answer differently each time."""

IN_ROWS = {"other_ids", "no_echo", "few_rows", "swapped_rows", "own_missing", "short_row", "negative_id", "id_beyond"}
IN_ROWS |= {"twice", "two_values", "no_values", "at_shape", "at_pickled", "at_shifted", "at_other_ids", "fewer_read"}
"""What it may do to rows and ids."""

ON_THE_WIRE = {"busy", "busy_for_long", "unavailable", "broken", "refuses", "reset", "cut", "slow", "redirect", "huge"}
ON_THE_WIRE |= {"no_json", "bare_nan"}
"""What it may do to requests."""


class TinyModel:
    """A language model of arithmetic: what follows depends on all that came before, the last tokens most.

    Parameters
    ----------
    vocab_size
        V.
    seed
        Another number is another model.
    never
        Ids whose log-probability is -inf everywhere.
    """

    def __init__(self, vocab_size=48, seed=0, never=()):
        numbers = np.random.default_rng(seed)
        self.vocab_size = vocab_size
        self.never = list(never)
        self._in = numbers.normal(size=(vocab_size, 12))
        self._out = 0.4 * numbers.normal(size=(12, vocab_size))

    def __call__(self, ids):
        state, rows = np.zeros(12), []
        for one in ids:
            state = 0.6 * state + self._in[one]
            rows.append(state @ self._out)
        logits = np.array(rows).reshape(len(rows), self.vocab_size)
        logits[:, self.never] = -np.inf
        most = logits.max(axis=1, keepdims=True)
        return logits - most - np.log(np.exp(logits - most).sum(axis=1, keepdims=True))


class Url(str):
    """Where a stand-in is, and what it was asked."""

    def __new__(cls, text):
        url = super().__new__(cls, text)
        url.asked = []
        url.headers = []
        url.at_work = url.most_at_work = 0
        return url


@contextmanager
def stand_in(engine, model, *, misbehave=None, from_start=False, **options):
    """Run a server on a port of its own until the block ends, and give its URL.

    Parameters
    ----------
    engine
        "vllm" or "sglang".
    model
        A function from ids to (n, V) log-probabilities.
    misbehave
        The name of a fault, or {name: how many requests it lasts}. A server has it at sequences of more than two
        tokens, so that it can be connected to; GET is answered well.
    from_start
        The fault shows in every request.
    options
        As :class:`_Options` has them.
    """
    faults = {misbehave: 10**9} if isinstance(misbehave, str) else dict(misbehave or {})
    assert set(faults) <= VALUES | IN_ROWS | ON_THE_WIRE, faults
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads, server.block_on_close = True, False
    server.handle_error = lambda *_: None
    server.connections = set()
    url = Url(f"http://127.0.0.1:{server.server_address[1]}")
    server.stand_in = {"vllm": _VLLM, "sglang": _SGLang}[engine](model, faults, from_start, url, **options)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield url
    finally:
        server.shutdown()
        server.server_close()
        for connection in list(server.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        thread.join()


class _Options:
    """What both engines have in common."""

    def __init__(
        self,
        model,
        faults,
        from_start,
        url,
        *,
        names=("teacher",),
        context=512,
        top_limit=20,
        exact=True,
        key=None,
        flat=True,
        root="org/teacher",
        text=lambda ids: " ".join(map(str, ids)),
        stop_id=None,
        delay=0.0,
        generates=True,
    ):
        self.model, self.faults, self.from_start, self.url = model, Counter(faults), from_start, url
        self.names, self.context, self.top_limit, self.exact = names, context, top_limit, exact
        self.key, self.flat, self.root, self.text, self.stop_id, self.delay = key, flat, root, text, stop_id, delay
        self.generates = generates
        self.vocab_size = model([0]).shape[1]
        self._lock = threading.Lock()
        self._noise = np.random.default_rng(0)

    def has(self, fault, ids):
        """Whether a request meets a fault; each such request uses it up by one."""
        with self._lock:
            if not self.faults[fault] or not (self.from_start or len(ids) > 2):
                return False
            self.faults[fault] -= 1
            return True

    def logprobs(self, ids):
        """(n, V) values of all rows, as this server answers them."""
        values = np.array(self.model(ids), dtype=np.float64)
        if self.has("logits", ids):
            values = values + 9.0
        if self.has("light", ids):
            values = values - 9.0
        if self.has("heavy", ids):
            values = np.minimum(values + 1.2, -0.01)
        if self.has("null", ids):
            values[-2] = np.nan
        if self.has("noisy", ids):
            values = values - self._noise.uniform(0, 1e-4, values.shape)
        return values

    def drawn(self, prompt, params, seed):
        """Sample ids and their log-probabilities, at temperature 1 and as drawn from."""
        numbers, ids, raw, scaled = np.random.default_rng(seed), [], [], []
        limit = params.get("max_tokens", params.get("max_new_tokens"))
        while len(ids) < limit and (not ids or ids[-1] != self.stop_id):
            logprobs = np.array(self.model([*prompt, *ids])[-1])
            temperature = params["temperature"]
            scores = logprobs / temperature if temperature else logprobs * 1e6
            p = np.exp(scores - scores.max())
            p /= p.sum()
            ids.append(int(numbers.choice(len(p), p=p)))
            raw.append(logprobs[ids[-1]])
            scaled.append(np.log(p[ids[-1]]))
        return ids, raw, scaled, "stop" if ids[-1] == self.stop_id else "length"

    def models(self, owner):
        one = {"object": "model", "owned_by": owner, "root": self.root, "max_model_len": self.context}
        return 200, {"object": "list", "data": [{"id": name, **one} for name in self.names]}

    def refused(self, status, message):
        return status, {"error": {"message": message, "type": "BadRequestError", "param": None, "code": status}}


def _top(row, k):
    """The k best ids of a row, best first; of equal ones in no order that one may rely on."""
    order = np.argsort(-row, kind="stable")[:k]
    return order.tolist()


class _VLLM(_Options):
    def get(self, path):
        if path == "/version":
            return 200, {"version": "0.32.0"}
        return self.models("vllm") if path == "/v1/models" else (404, {"detail": "Not Found"})

    def post(self, path, body):
        if body.get("model") not in self.names:
            return self.refused(404, f"The model `{body.get('model')}` does not exist.")
        if path == "/detokenize" and self.text:
            return 200, {"prompt": self.text(body["tokens"])}
        if path == "/v1/completions":
            return self._completion(body)
        if path == "/inference/v1/generate" and self.exact is not None:
            return self._generation(body)
        return 404, {"detail": "Not Found"}

    def _completion(self, body):
        ids, k = body["prompt"], body.get("prompt_logprobs")
        if body["max_tokens"] < 1:
            return self.refused(400, "max_tokens must be at least 1, got 0.")
        if refusal := self._limits(ids, body["max_tokens"], k):
            return refusal
        choices = []
        for i in range(body.get("n", 1)):
            drawn, raw, _, finish = self.drawn(ids, body, body.get("seed", 0) + i)
            choice = {"index": i, "text": "", "finish_reason": finish, "stop_reason": None, "token_ids": drawn}
            if body.get("logprobs") is not None:
                choice["logprobs"] = {
                    "tokens": [f"token_id:{one}" for one in drawn],
                    "token_logprobs": [max(one, -9999.0) for one in raw],
                }
            choices.append({**choice, **self._prompt(ids, k)})
        return 200, {"id": "cmpl-1", "object": "text_completion", "model": body["model"], "choices": choices}

    def _generation(self, body):
        ids, params = body["token_ids"], body["sampling_params"]
        at = params.get("prompt_logprob_token_ids")
        if not self.exact:
            words = "prompt_logprob_token_ids requires the V2 model runner (VLLM_USE_V2_MODEL_RUNNER=1)"
            return self.refused(400, words)
        if refusal := self._limits(ids, params["max_tokens"], params.get("prompt_logprobs")):
            return refusal
        start, width = params["prompt_logprob_start"], max(map(len, at))
        if self.top_limit is not None and width > self.top_limit:
            return self.refused(400, f"Requested {width} token ids per row, max allowed: {self.top_limit}.")
        if len(at) != len(ids) - 1 - start:
            return self.refused(400, f"prompt_logprob_token_ids has {len(at)} rows.")
        asked = np.array(at)
        values = np.take_along_axis(self.logprobs(ids)[start : len(ids) - 1], np.maximum(asked, 0), axis=1)
        values = np.where(asked < 0, -np.inf, values).astype(np.float32)
        if self.has("at_shape", ids):
            values = values[:-1]
        if self.has("at_shifted", ids):
            values = np.roll(values, 1, axis=0)
        saved = io.BytesIO()
        pickled = self.has("at_pickled", ids)
        np.save(saved, values.astype(object) if pickled else values, allow_pickle=pickled)
        coded = base64.b64encode(saved.getvalue()).decode()
        top = self._prompt(ids, params.get("prompt_logprobs"))
        choices = [{"index": 0, "finish_reason": "length", "token_ids": [0]}]
        return 200, {"choices": choices, "prompt_token_id_logprobs": coded, **top}

    def _limits(self, ids, generated, k):
        limit = self.vocab_size if self.top_limit is None else self.top_limit
        asked = self.vocab_size if k == -1 else k
        if asked is not None and asked > limit:
            words = f"Requested prompt logprobs of {asked}, which is greater than max allowed: {limit}"
            return self.refused(400, words)
        if len(ids) + generated > self.context:
            return self.refused(400, f"This model's maximum context length is {self.context} tokens.")
        return None

    def _prompt(self, ids, k):
        """The rows of the prompt, the first of which is null, and the echo."""
        echo = [*ids[:-1], (ids[-1] + 1) % self.vocab_size] if self.has("other_ids", ids) else list(ids)
        out = {} if self.has("no_echo", ids) else {"prompt_token_ids": echo}
        if k is None:
            return out
        logprobs = self.logprobs(ids)
        rows = [None]
        for token, one in enumerate(ids[1:], start=1):
            row = logprobs[token - 1]
            best = _top(row, self.vocab_size if k == -1 else k)
            listed = [one, *(other for other in best if other != one)]
            ranks = {other: rank for rank, other in enumerate(best, start=1)}
            rank_of_own = ranks.get(one, int((row >= row[one]).sum()))
            rows.append(
                {
                    str(other): {
                        "logprob": max(row[other], -9999.0) if not np.isnan(row[other]) else None,
                        "rank": ranks.get(other, rank_of_own),
                        "decoded_token": f"<{other}>",
                    }
                    for other in listed
                }
            )
        return {**out, "prompt_logprobs": self._spoilt(ids, rows)}

    def _spoilt(self, ids, rows):
        last = rows[-1]
        if self.has("few_rows", ids):
            return rows[:-1]
        if self.has("swapped_rows", ids):
            rows[-2:] = rows[:-3:-1]
        if self.has("own_missing", ids):
            last.pop(str(ids[-1]))
        if self.has("short_row", ids):
            for other in [one for one in last if one != str(ids[-1])][:3]:
                last.pop(other)
        for fault, one in (("negative_id", "-7"), ("id_beyond", "777"), ("twice", None)):
            if self.has(fault, ids):
                other = [one for one in last if one != str(ids[-1])][-1]
                last[one or f"0{ids[-1]}"] = last.pop(other)
        if self.has("no_values", ids):
            rows[-1] = dict.fromkeys(last, "value")
        return rows


class _SGLang(_Options):
    def get(self, path):
        if path == "/v1/models":
            return self.models("sglang")
        if path == "/get_model_info":
            return 200, {"model_path": self.root, "is_generation": self.generates, "weight_version": "default"}
        return (200, {"version": "0.5.23"}) if path == "/get_server_info" else (404, {"detail": "Not Found"})

    def post(self, path, body):
        if path == "/detokenize" and self.text:
            assert body["skip_special_tokens"] is False
            return 200, {"text": self.text(body["tokens"])}
        if path != "/generate":
            return 404, {"detail": "Not Found"}
        ids, params = body["input_ids"], body["sampling_params"]
        if ids and isinstance(ids[0], list):
            return 200, [self._sampled(prompt, one) for prompt, one in zip(ids, params, strict=True)]
        if len(ids) >= self.context:
            return self.refused(400, f"The input ({len(ids)} tokens) is longer than the model's context length.")
        given = body.get("token_ids_logprob")
        if given and max(given) >= self.vocab_size:
            return self.refused(400, "token_ids_logprob contains out-of-vocabulary ids.")
        return 200, {"text": "", "output_ids": [], "meta_info": self._scored(ids, body, given)}

    def _sampled(self, prompt, params):
        ids, raw, scaled, finish = self.drawn(prompt, params, params["sampling_seed"])
        values = raw if params["temperature"] == 1 else scaled
        triples = [[value, one, None] for value, one in zip(values, ids, strict=True)]
        return {"output_ids": ids, "meta_info": {"finish_reason": {"type": finish}, "output_token_logprobs": triples}}

    def _scored(self, ids, body, given):
        start, k = body["logprob_start_len"], body["top_logprobs_num"]
        logprobs = self.logprobs(ids)
        tokens = range(start + 1, len(ids))
        own = [[None, ids[start], None], *([logprobs[t - 1, ids[t]], ids[t], None] for t in tokens)]
        best = [_top(logprobs[t - 1], k) for t in tokens]
        top = [[[logprobs[t - 1, one], one, None] for one in row] for t, row in zip(tokens, best, strict=True)]
        read = len(ids) - 1 if self.has("fewer_read", ids) else len(ids)
        meta = {"prompt_tokens": read, "finish_reason": {"type": "length", "length": 0}}
        meta["input_token_logprobs"] = self._spoilt_own(ids, own)
        self._spoil_top(ids, top)
        if given:
            order = given[::-1] if self.has("at_other_ids", ids) else given
            order = [one + 1 for one in order] if order != given else order
            rows = [[[logprobs[t - 1, one % self.vocab_size], one, None] for one in order] for t in tokens]
            meta["input_token_ids_logprobs"] = [None, *(rows[1:] + rows[:1] if self.has("at_shifted", ids) else rows)]
        if self.flat and body.get("return_flat_raw_top_logprobs"):
            size = (len(top), k)
            meta |= {"input_top_logprobs_shape": size, "input_top_logprobs_null_prefix": 1}
            for name, place, kind in (("val", 0, np.float32), ("idx", 1, np.int32)):
                flat = np.array([one[place] for row in top for one in row], dtype=kind)
                if self.flat == "list":
                    meta[f"input_top_logprobs_{name}_flat"] = flat.tolist()
                else:
                    meta[f"input_top_logprobs_{name}_flat_b64"] = base64.b64encode(flat.tobytes()).decode()
        else:
            meta["input_top_logprobs"] = [None, *top]
        return meta

    def _spoilt_own(self, ids, own):
        if self.has("few_rows", ids):
            return own[:-1]
        if self.has("swapped_rows", ids):
            own[-2:] = own[:-3:-1]
        if self.has("two_values", ids):
            own[-1][0] -= 0.5
        if self.has("no_values", ids):
            own[-1] = "value"
        return own

    def _spoil_top(self, ids, top):
        last = top[-1]
        if self.has("short_row", ids):
            last.pop()
        for fault, one in (("negative_id", -7), ("id_beyond", 777), ("twice", last[0][1])):
            if self.has(fault, ids):
                last[-1][1] = one


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self):
        self.server.connections.add(self.request)
        super().setup()

    def finish(self):
        super().finish()
        self.server.connections.discard(self.request)

    def log_message(self, *_):
        pass

    def do_GET(self):
        self._answered([0, 0], lambda stand_in: stand_in.get(self.path), {})

    def do_POST(self):
        body = orjson.loads(self.rfile.read(int(self.headers["Content-Length"])))
        ids = body.get("prompt") or body.get("input_ids") or body.get("token_ids") or []
        self._answered(ids, lambda stand_in: stand_in.post(self.path, body), body)

    def _answered(self, ids, answer, body):
        here = self.server.stand_in
        url = here.url
        with here._lock:
            url.asked.append((self.path, body))
            url.headers.append(dict(self.headers))
            url.at_work += 1
            url.most_at_work = max(url.most_at_work, url.at_work)
        try:
            if here.key is not None and self.headers.get("Authorization") != f"Bearer {here.key}":
                return self._send(401, {"error": f"Unauthorized: {self.headers.get('Authorization')}"})
            if not self._misbehaved(here, ids):
                time.sleep(here.delay if len(ids) > 2 else 0)
                status, data = answer(here)
                content = orjson.dumps(data, option=orjson.OPT_SERIALIZE_NUMPY)
                if here.has("bare_nan", ids):
                    content = content.replace(b'"logprob":', b'"logprob":NaN, "was":')
                self._send(status, content, cut=here.has("cut", ids))
        finally:
            with here._lock:
                url.at_work -= 1

    def _misbehaved(self, here, ids):
        statuses = {"busy": 429, "busy_for_long": 429, "unavailable": 503, "broken": 500, "refuses": 422}
        for fault, status in statuses.items():
            if here.has(fault, ids):
                after = {"busy": "0", "busy_for_long": "86400"}.get(fault)
                self._send(status, {"error": {"message": f"it is {fault}\x1b[31m"}}, after and {"Retry-After": after})
                return True
        if here.has("reset", ids):
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.rfile.close()
            self.connection.close()
            self.close_connection = True
            return True
        if here.has("redirect", ids):
            self._send(307, {}, {"Location": "http://elsewhere.example/generate"})
            return True
        if here.has("no_json", ids):
            self._send(200, b"<html>Welcome to a router\x1b[31m</html>")
            return True
        if here.has("huge", ids):
            self._send(200, b" " * 40 * 2**20)
            return True
        if here.has("slow", ids):
            self._send(200, b"[", cut=True, pause=0.1)
            return True
        return False

    def _send(self, status, content, headers=None, cut=False, pause=0.0):
        content = content if isinstance(content, bytes) else orjson.dumps(content)
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content) + 64 * cut))
        self.end_headers()
        self.wfile.write(content)
        if pause:
            self.wfile.flush()
            time.sleep(4 * pause)
        if cut:
            self.close_connection = True
