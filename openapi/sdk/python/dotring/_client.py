"""Clients and sessions."""

from __future__ import annotations

import base64
import http.client
import json
import random
import secrets
import ssl
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Callable, Mapping, Sequence
from urllib.parse import urlencode, urlsplit

from ._route import IN_DOUBT, NOT_APPLIED, Attempt, escape, order, parse_retry_after

if TYPE_CHECKING:
    from .generated import AuthenticatedClient as GeneratedAuthenticatedClient
    from .generated import Client as GeneratedClient

MAX_SESSION_KEYS = 10_000
"""How many keys a session remembers the contexts of, each at most 3 KiB."""
_MAX_ANSWER = 8 << 20  # more than the largest record, 3 MiB, in base64
_MAX_IDLE = 60.0  # gateways close a connection after 120 s
_OVERHEAD = 256  # about what a cached value costs beside its bytes


@dataclass(frozen=True)
class Value:
    """A value as it was stored. context is what was seen of its key; etag is empty for a merged value."""

    data: bytes
    content_type: str = ""
    etag: str = ""
    context: str = ""


@dataclass(frozen=True)
class Sibling:
    """One of several values that concurrent writes left; a tombstone is a deletion."""

    data: bytes
    content_type: str
    etag: str
    last_modified: str
    tombstone: bool


@dataclass(frozen=True)
class Written:
    """What became of a write: siblings after it, machines that hold it durably, stand-ins among them."""

    context: str
    siblings: int
    acks: int
    hinted: int


class NoValue(KeyError):
    """A key was never written, or is deleted."""


class SessionFull(Exception):
    """A session knows MAX_SESSION_KEYS keys already. Nothing was sent.

    To forget a context would let a later write replace what was never seen: begin another session.
    """


class Conflict(Exception):
    """A read found siblings. A write with its context, as the next one of the same session has, replaces them all."""

    def __init__(self, siblings: list[Sibling], context: str) -> None:
        super().__init__(f"conflict: {len(siblings)} siblings")
        self.siblings, self.context = siblings, context


class Error(Exception):
    """A request failed.

    status is 0 where no answer came; problem is the answer's RFC 9457 body. outcome is NOT_APPLIED or IN_DOUBT for a
    write, with all its attempts in mind, and empty for a read.
    """

    def __init__(self, status: int, problem: Mapping[str, Any], cause: Exception | None = None) -> None:
        super().__init__(status, problem, cause)
        self.status, self.problem, self.outcome, self.__cause__ = status, problem, "", cause

    def __str__(self) -> str:
        text = f"status {self.status}: {self.problem.get('title')}: {self.problem.get('detail')}"
        return (text if self.status else str(self.__cause__)) + (f" ({self.outcome})" if self.outcome else "")


Resolve = Callable[[bytes, "list[Sibling]"], Value]


class Client:
    """Speaks to several gateways that lead to one cluster. Safe for concurrent use."""

    def __init__(
        self,
        gateways: Sequence[str],
        *,
        token: str = "",
        read_quorum: str = "",
        write_quorum: str = "",
        resolve: Resolve | None = None,
        cache_bytes: int = 0,
        attempts: int = 4,
        timeout: float = 65.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        """gateways are http or https URLs, one at least; all else is optional.

        token is sent as a bearer token; read_quorum and write_quorum as r and w: a number, one, quorum or all. resolve merges
        siblings into the value that a read returns, instead of Conflict; nothing is written by that. cache_bytes bounds the
        cache of values, of which each use is revalidated by ETag; 0 has none. timeout, in seconds, bounds each attempt.
        """
        self._gateways = [g.rstrip("/") for g in gateways]
        for g in self._gateways:
            parts = urlsplit(g)
            if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
                raise ValueError(f"gateway {g!r} is no http or https URL")
        if not self._gateways or attempts < 1:
            raise ValueError("one gateway and one attempt are needed")
        self._token, self._quorums, self._resolve = token, {"r": read_quorum, "w": write_quorum}, resolve
        self._attempts, self._timeout, self._ssl = attempts, timeout, ssl_context
        self._cache, self._cache_bytes, self._cached, self._lock = OrderedDict[bytes, Value](), cache_bytes, 0, threading.Lock()
        self._local = threading.local()  # connections, one for each gateway and thread

    def session(self) -> Session:
        """A new session: one flow of work, such as a user's request."""
        return Session(self)

    def api(self, i: int = 0) -> GeneratedClient | GeneratedAuthenticatedClient:
        """The generated client of the ith gateway, for dotring.generated.api. It needs the extra `generated`."""
        from . import generated

        if self._token:
            return generated.AuthenticatedClient(base_url=self._gateways[i], token=self._token)
        return generated.Client(base_url=self._gateways[i])

    def _send(self, method: str, key: bytes, headers: dict[str, str], body: bytes | None) -> _Reply:
        """Sends a request under one request id until it is answered, or trying again is of no use."""
        headers["Kv-Request-Id"] = secrets.token_hex(16)
        if self._token:
            headers["Authorization"] = "Bearer " + self._token
        gateways, write, doubt, n = order(self._gateways, key), method != "GET", False, 1
        while True:
            try:
                return self._once(method, gateways[(n - 1) % len(gateways)], key, headers, body)
            except _Failed as failed:
                if write:
                    # What an earlier attempt may have done stays in doubt, whatever becomes of later ones.
                    doubt = doubt or failed.attempt.doubtful
                    failed.error.outcome = IN_DOUBT if doubt else NOT_APPLIED
                wait = failed.attempt.again(n, self._attempts, len(gateways), write, random.random())
                if wait is None:
                    raise failed.error from failed.error.__cause__
            time.sleep(wait)
            n += 1

    def _once(self, method: str, gateway: str, key: bytes, headers: dict[str, str], body: bytes | None) -> _Reply:
        quorum = "r" if method == "GET" else "w"
        query = "?" + urlencode({quorum: self._quorums[quorum]}) if self._quorums[quorum] else ""
        conn = None
        try:
            try:
                conn = self._connection(gateway)
            except OSError as e:
                raise _Failed(Error(0, {}, e), Attempt(sent=False)) from e
            conn.request(method, urlsplit(gateway).path + "/v1/kv/" + escape(key) + query, body, headers)
            response = conn.getresponse()
            data = response.read(_MAX_ANSWER + 1)
            if len(data) > _MAX_ANSWER:
                raise http.client.HTTPException(f"the answer is longer than {_MAX_ANSWER} bytes")
        except (OSError, http.client.HTTPException) as e:
            if conn:
                conn.close()
            raise _Failed(Error(0, {}, e), Attempt()) from e
        if not response.will_close:
            self._local.idle[gateway] = (conn, time.monotonic())
        status = response.status
        if status in (200, 300, 304) or status == 404 and method == "GET" and response.getheader("Kv-Context"):
            return _Reply(status, response.headers, data)
        try:
            problem = dict(json.loads(data))
        except (ValueError, TypeError):
            problem = {"title": "not a problem", "detail": data[:200].decode("utf-8", "replace")}
        attempt = Attempt(status, True, problem.get("outcome") or "", parse_retry_after(response.getheader("Retry-After")))
        raise _Failed(Error(status, problem), attempt)

    def _connection(self, gateway: str) -> http.client.HTTPConnection:
        """A connection of this thread's, which it gives back when the answer was read whole."""
        idle = self._local.__dict__.setdefault("idle", {})
        conn, since = idle.pop(gateway, (None, 0.0))
        if conn and time.monotonic() - since < _MAX_IDLE:
            return conn
        if conn:
            conn.close()
        parts = urlsplit(gateway)
        if parts.scheme == "https":
            conn = http.client.HTTPSConnection(parts.hostname or "", parts.port, timeout=self._timeout, context=self._ssl)
        else:
            conn = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=self._timeout)
        conn.connect()
        return conn

    def _cache_get(self, key: bytes) -> Value | None:
        with self._lock:
            value = self._cache.get(key)
            if value:
                self._cache.move_to_end(key)
            return value

    def _cache_put(self, key: bytes, value: Value | None) -> None:
        """Replaces what is held of a key; None only removes it."""
        with self._lock:
            old = self._cache.pop(key, None)
            if old:
                self._cached -= _size(key, old)
            if not value or not value.etag or _size(key, value) > self._cache_bytes:
                return
            self._cache[key] = value
            self._cached += _size(key, value)
            while self._cached > self._cache_bytes:
                self._cached -= _size(*self._cache.popitem(last=False))


def _size(key: bytes, value: Value) -> int:
    return _OVERHEAD + len(key) + len(value.data) + len(value.content_type)


@dataclass(frozen=True)
class _Reply:
    status: int
    headers: http.client.HTTPMessage
    body: bytes


class _Failed(Exception):
    def __init__(self, error: Error, attempt: Attempt) -> None:
        super().__init__()
        self.error, self.attempt = error, attempt


class Session:
    """Remembers the context of each key it reads and writes, and sends it.

    Its writes replace exactly what it has seen, and its reads never show less than that. Safe for concurrent use, but work
    that must not be taken for having seen what other work saw needs a session of its own. Keys are bytes, or text, which is
    sent as UTF-8.
    """

    def __init__(self, client: Client) -> None:
        self._client, self._contexts, self._lock = client, dict[bytes, str](), threading.Lock()

    def get(self, key: bytes | str) -> Value:
        """Reads a key. Raises NoValue, Conflict where the client has no resolve, SessionFull and Error."""
        raw, headers = self._begin(key)
        cached = self._client._cache_get(raw)
        if cached:
            headers["If-None-Match"] = cached.etag
        reply = self._client._send("GET", raw, headers, None)
        context = reply.headers.get("Kv-Context", "")
        self._remember(raw, context)
        if reply.status == 304 and cached:
            return replace(cached, context=context)
        if reply.status == 200:
            value = Value(reply.body, reply.headers.get("Content-Type", ""), reply.headers.get("ETag", ""), context)
            self._client._cache_put(raw, value)
            return value
        self._client._cache_put(raw, None)
        if reply.status == 404:
            raise NoValue(key)
        siblings = [
            Sibling(base64.b64decode(s["value"]), s["content_type"], s["etag"], s["last_modified"], s["tombstone"])
            for s in json.loads(reply.body)["siblings"]
        ]
        if not self._client._resolve:
            raise Conflict(siblings, context)
        return replace(self._client._resolve(raw, siblings), etag="", context=context)

    def put(self, key: bytes | str, data: bytes | str, content_type: str = "") -> Written:
        """Writes a value in place of all that the session has seen of the key. Raises SessionFull and Error.

        Text is sent as UTF-8, and as text/plain unless another content type is named.
        """
        if isinstance(data, str):
            data, content_type = data.encode(), content_type or "text/plain; charset=utf-8"
        return self._write("PUT", key, {"Content-Type": content_type} if content_type else {}, data)

    def delete(self, key: bytes | str) -> Written:
        """Deletes all that the session has seen of the key. Deleting what is not there is no error."""
        return self._write("DELETE", key, {}, None)

    def _write(self, method: str, key: bytes | str, more: dict[str, str], body: bytes | None) -> Written:
        raw, headers = self._begin(key)
        reply = self._client._send(method, raw, headers | more, body)
        self._remember(raw, reply.headers.get("Kv-Context", ""))
        answer = json.loads(reply.body)
        return Written(answer["context"], answer["siblings"], answer["acks"], answer["hinted"])

    def _begin(self, key: bytes | str) -> tuple[bytes, dict[str, str]]:
        """The key's bytes, for which room is kept, and the headers of a request for it."""
        raw = key.encode() if isinstance(key, str) else key
        if not raw:
            raise ValueError("the key is empty")
        with self._lock:
            if raw not in self._contexts and len(self._contexts) >= MAX_SESSION_KEYS:
                raise SessionFull(f"{MAX_SESSION_KEYS} keys")
            context = self._contexts.setdefault(raw, "")
        return raw, {"Kv-Context": context} if context else {}

    def _remember(self, raw: bytes, context: str) -> None:
        if context:
            with self._lock:
                self._contexts[raw] = context
