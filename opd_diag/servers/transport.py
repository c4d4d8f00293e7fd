"""Requests to one server: tries, pauses, limits; nothing here knows what is asked."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, NoReturn

import orjson
import requests
from requests.adapters import HTTPAdapter
from requests.exceptions import ChunkedEncodingError, ContentDecodingError, SSLError
from urllib3.exceptions import InvalidHeader, ReadTimeoutError
from urllib3.util.retry import Retry

from opd_diag.errors import ServerError
from opd_diag.servers.addresses import KEY_VARIABLE, is_loopback
from opd_diag.servers.patience import BUSY, Patience
from opd_diag.text import visible

SMALL = 2**24
"""The most bytes of an answer that has no long list in it: 16 MiB."""

_PIECE = 2**20
_MOST_CONNECTIONS = 256
_WORDS = 300


@dataclass(frozen=True)
class Reply:
    """What came back to one request."""

    status: int
    data: Any
    """The JSON of its body; None where the body is none, which only an error's may be."""
    size: int
    """Bytes of its body."""
    words: str
    """What the server says of an error, made visible and cut; empty where all is well."""

    @property
    def ok(self) -> bool:
        """Whether the server did what it was asked."""
        return 200 <= self.status < 300


class Line:
    """The way to one server.

    It asks again where another try may help (no connection, a connection that breaks, no answer in time, statuses
    :data:`~opd_diag.servers.patience.BUSY`): what is asked of a server changes nothing there. It follows no redirect,
    reads no more than it was told to, and sends the key to this address alone.

    Parameters
    ----------
    url
        http or https, with no final slash.
    patience
        How long and how often.
    key
        Sent as ``Authorization: Bearer``. It is in no message and no ``repr``.
    """

    def __init__(self, url: str, patience: Patience, key: str | None) -> None:
        self.url = url
        self.patience = patience
        self._auth = _Key(key)
        self._session = requests.Session()
        self._session.trust_env = not is_loopback(url)
        self._session.headers.update({"Accept": "application/json", "Accept-Encoding": "identity"})
        adapter = HTTPAdapter(pool_connections=1, pool_maxsize=_MOST_CONNECTIONS)
        self._session.mount("http://", adapter)
        self._session.mount("https://", adapter)

    def asked(
        self, path: str, body: dict[str, Any] | None = None, *, most: int, patience: Patience | None = None
    ) -> Reply:
        """Ask, and ask again where that may help; a status that would come again is part of the reply.

        Parameters
        ----------
        path
            Behind the URL, with its slash.
        body
            Sent by POST as JSON; without one it is a GET.
        most
            Bytes that the answer may have.
        patience
            In place of the line's own.

        Raises
        ------
        ServerError
            No answer in as many tries as patience allows, a redirect, too large an answer, or one that is no JSON.
        """
        patience = patience or self.patience
        count = Retry(patience.tries - 1, backoff_factor=patience.pause_s)
        while True:
            wanted = 0.0
            try:
                reply, wanted = self._once(path, body, most, patience)
                if reply.status not in BUSY:
                    return reply
                count = self._counted(count, path, f"HTTP {reply.status}{reply.words and ', '}{reply.words}", patience)
            except SSLError as error:
                raise ServerError(f"{self.url} has no valid certificate: {_reason(error, patience)}.") from error
            except (requests.ConnectionError, requests.Timeout, ChunkedEncodingError) as error:
                count = self._counted(count, path, _reason(error, patience), patience, error)
            except requests.RequestException as error:
                raise ServerError(f"{self.url}{path} cannot be asked: {_reason(error, patience)}.") from error
            time.sleep(min(max(count.get_backoff_time(), wanted), patience.longest_pause_s))

    def wanted(
        self, path: str, body: dict[str, Any] | None = None, *, most: int, patience: Patience | None = None
    ) -> Reply:
        """Ask for what the server must know.

        Raises
        ------
        ServerError
            As :meth:`asked`, and where the server refuses.
        """
        reply = self.asked(path, body, most=most, patience=patience)
        if not reply.ok:
            self.refused(path, reply)
        return reply

    def text(self, path: str, body: dict[str, Any], name: str) -> str | None:
        """Ask for the text of ids, which stands under a name; None where the server offers no such thing.

        Raises
        ------
        ServerError
            As :meth:`wanted`.
        """
        reply = self.asked(path, body, most=SMALL)
        if reply.status in (404, 405):
            return None
        if not reply.ok:
            self.refused(path, reply)
        text = reply.data.get(name) if isinstance(reply.data, dict) else None
        return text if isinstance(text, str) else None

    def refused(self, path: str, reply: Reply) -> NoReturn:
        """Say that the server refuses a request."""
        if reply.status in (401, 403):
            status = f"(HTTP {reply.status})"
            raise ServerError(
                f"{self.url} does not take the key in the environment variable {KEY_VARIABLE} {status}: correct it."
                if self._auth
                else f"{self.url} asks for a key {status}: put it into the environment variable {KEY_VARIABLE}."
            )
        raise ServerError(
            f"{self.url}{path} refuses what it was asked: HTTP {reply.status}{reply.words and ', '}{reply.words}"
        )

    def _once(self, path: str, body: Any, most: int, patience: Patience) -> tuple[Reply, float]:
        """Ask once, and give with the reply the seconds that the server asks to be left alone."""
        until = time.monotonic() + patience.answer_s
        with self._session.request(
            "GET" if body is None else "POST",
            self.url + path,
            data=None if body is None else orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY),
            headers={"Content-Type": "application/json"} if body is not None else None,
            auth=self._auth,
            timeout=(patience.connect_s, patience.answer_s),
            allow_redirects=False,
            stream=True,
        ) as response:
            if 300 <= response.status_code < 400:
                elsewhere = self._shown(response.headers.get("Location", "somewhere"))
                raise ServerError(
                    f"{self.url}{path} sends on to {elsewhere}, which is not followed. Give the address that answers."
                )
            content = self._content(response, path, most, until)
            return self._reply(response.status_code, content, path), _retry_after(response)

    def _content(self, response: requests.Response, path: str, most: int, until: float) -> bytes:
        pieces, size = [], 0
        for piece in response.iter_content(_PIECE):
            pieces.append(piece)
            size += len(piece)
            if size > most:
                raise ServerError(
                    f"{self.url}{path} answers more than the {most:,} bytes that such an answer can have. Ask a server "
                    "of the engine that is named before the address."
                )
            if time.monotonic() > until:
                raise requests.Timeout
        return b"".join(pieces)

    def _reply(self, status: int, content: bytes, path: str) -> Reply:
        try:
            data = orjson.loads(content) if content else None
        except orjson.JSONDecodeError as error:
            if 200 <= status < 300:
                raise ServerError(
                    f"{self.url}{path} answers no JSON but {self._shown(content.decode(errors='replace'), 60)!r}. Ask "
                    "a server of the engine that is named before the address."
                ) from error
            data = None
        words = "" if 200 <= status < 300 else self._shown(_words(data, content))
        return Reply(status, data, len(content), words)

    def _shown(self, text: str, most: int = _WORDS) -> str:
        shown = visible(self._auth.hidden_in(text[: 10 * most]), keep="").strip()
        return shown if len(shown) <= most else shown[: most - 1] + "…"

    def _counted(
        self, count: Retry, path: str, reason: str, patience: Patience, error: Exception | None = None
    ) -> Retry:
        """Count a try that failed; the last one ends it."""
        if count.total == 0:
            tries = "once" if patience.tries == 1 else f"{patience.tries} times"
            raise ServerError(
                f"{self.url}{path} was asked {tries} without success; what came last: {reason.rstrip('.')}. Look into "
                "the server's log, and see that it runs, that the address is right and that it has less to do."
            ) from error
        return count.increment(error=error)


class _Key(requests.auth.AuthBase):
    """Puts the key into a request, if there is one; with it no password file of the system's is read."""

    def __init__(self, key: str | None) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._key:
            request.headers["Authorization"] = f"Bearer {self._key}"
        return request

    def __bool__(self) -> bool:
        return bool(self._key)

    def hidden_in(self, text: str) -> str:
        return text.replace(self._key, "…") if self._key else text


def _retry_after(response: requests.Response) -> float:
    asked = response.headers.get("Retry-After")
    try:
        return 0.0 if asked is None else Retry().parse_retry_after(asked)
    except (InvalidHeader, ValueError, OverflowError):
        return 0.0


def _words(data: Any, content: bytes) -> str:
    """Find what a server says of an error, in the forms of both engines."""
    found = data
    for name in ("error", "message", "detail"):
        if isinstance(found, dict) and name in found:
            found = found[name]
    return found if isinstance(found, str) else content[: 10 * _WORDS].decode(errors="replace")


def _reason(error: BaseException, patience: Patience) -> str:
    """Name what went wrong in the words of the system, which libraries wrap."""
    if isinstance(error, requests.ConnectTimeout):
        return f"no connection within {patience.connect_s:g} s"
    if isinstance(error, requests.Timeout):
        return f"no whole answer within {patience.answer_s:g} s"
    if isinstance(error, ContentDecodingError):
        return "its compression cannot be read"
    within: Any = error
    while within is not None:
        if isinstance(within, ReadTimeoutError):  # within the body; requests takes it for a broken connection
            return f"no whole answer within {patience.answer_s:g} s"
        if isinstance(within, OSError) and within.strerror:
            return within.strerror
        deeper = [one for one in (*within.args, getattr(within, "reason", None)) if isinstance(one, BaseException)]
        within = within.__cause__ or within.__context__ or next(iter(deeper), None)
    return "the connection broke off"
