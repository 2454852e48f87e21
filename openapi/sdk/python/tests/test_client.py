"""Tests against a gateway that answers by script."""

import base64
import http.server
import json
import pathlib
import socket
import threading
import unittest

import dotring
from dotring._route import IN_DOUBT, NOT_APPLIED, Attempt

GOLDEN = pathlib.Path(__file__).parents[2] / "testdata" / "rendezvous.json"


class Gateway(http.server.ThreadingHTTPServer):
    """Answers with one of the answers after the other, (status, headers, body) or None to break off, and notes requests."""

    def __init__(self, answers):
        super().__init__(("127.0.0.1", 0), Handler)
        self.answers, self.seen = list(answers), []

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}"


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.seen.append((self.command, self.path, self.headers, body))
        answer = self.server.answers.pop(0)
        if answer is None:
            self.close_connection = True
            return
        status, headers, body = answer
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_PUT = do_DELETE = answer

    def log_message(self, *args):
        pass


def written(context):
    return 200, {"Kv-Context": context}, json.dumps({"context": context, "siblings": 1, "acks": 2, "hinted": 0}).encode()


def fails(status, outcome, **headers):
    return status, headers, json.dumps({"type": "/problems/x", "title": "X", "status": status, "outcome": outcome}).encode()


class Pure(unittest.TestCase):
    def test_order_is_that_of_all_languages(self):
        golden = json.loads(GOLDEN.read_text())
        self.assertGreater(len(golden["orders"]), 20)
        for row in golden["orders"]:
            want = [golden["gateways"][i] for i in row["order"]]
            self.assertEqual(dotring.order(golden["gateways"], base64.b64decode(row["key"])), want)

    def test_escape(self):
        for key, want in {b"a/b": "a%2Fb", b"%2F": "%252F", b"a+b c": "a%2Bb%20c", b"..": "..", b"\xff\0": "%FF%00"}.items():
            self.assertEqual(dotring.escape(key), want)

    def test_again(self):
        for name, attempt, n, write, want, doubt in [
            ("no connection, another gateway", Attempt(sent=False), 1, True, 0, False),
            ("no connection anywhere", Attempt(sent=False), 2, True, 0.1, False),
            ("connection lost", Attempt(), 1, True, 0, True),
            ("attempts used up", Attempt(), 4, True, None, True),
            ("overloaded", Attempt(429, True, NOT_APPLIED, 1), 1, True, 1, False),
            ("asks for too much", Attempt(503, True, NOT_APPLIED, 11), 1, True, None, False),
            ("deadline of a write", Attempt(504, True, IN_DOUBT), 1, True, 0.05, True),
            ("disk full, for certain", Attempt(507, True, NOT_APPLIED), 1, True, None, False),
            ("disk full, in doubt", Attempt(507, True, IN_DOUBT), 1, True, 0.05, True),
            ("too many siblings", Attempt(409, True, NOT_APPLIED), 1, True, None, False),
            ("bad key", Attempt(400), 1, False, None, False),
            ("internal error of a read", Attempt(500), 1, False, None, True),
        ]:
            with self.subTest(name):
                self.assertEqual((attempt.again(n, 4, 2, write, 1), attempt.doubtful), (want, doubt))


class Scripted(unittest.TestCase):
    def script(self, *answers, **options):
        gateway = Gateway(answers)
        thread = threading.Thread(target=gateway.serve_forever, args=(0.01,))
        thread.start()
        self.addCleanup(gateway.server_close)
        self.addCleanup(thread.join)
        self.addCleanup(gateway.shutdown)
        return dotring.Client([gateway.url + "/"], **options).session(), gateway

    def test_write_keeps_its_name(self):
        session, gateway = self.script(written("c1"), fails(503, NOT_APPLIED), None, written("c2"), written("c3"), token="secret", write_quorum="all")
        for text in "one", "two", "three":
            session.put("a/b", text)
        self.assertEqual([body for *_, body in gateway.seen], [b"one", b"two", b"two", b"two", b"three"])
        self.assertEqual([h.get("Kv-Context", "") for _, _, h, _ in gateway.seen], ["", "c1", "c1", "c1", "c2"])
        ids = [h["Kv-Request-Id"] for _, _, h, _ in gateway.seen]
        self.assertEqual((len(set(ids)), ids[1], ids[2]), (3, ids[2], ids[3]))
        for method, path, headers, _ in gateway.seen:
            self.assertEqual((method, path, headers["Authorization"]), ("PUT", "/v1/kv/a%2Fb?w=all", "Bearer secret"))

    def test_doubt_stays(self):
        for answers, want in [
            ([fails(409, NOT_APPLIED)], NOT_APPLIED),
            ([None, fails(409, NOT_APPLIED)], IN_DOUBT),
            ([fails(504, IN_DOUBT), fails(507, NOT_APPLIED)], IN_DOUBT),
            ([fails(429, NOT_APPLIED), fails(429, NOT_APPLIED)], NOT_APPLIED),
        ]:
            with self.subTest(answers=answers):
                session, gateway = self.script(*answers, attempts=2)
                with self.assertRaises(dotring.Error) as caught:
                    session.delete("k")
                self.assertEqual((caught.exception.outcome, len(gateway.seen)), (want, len(answers)))

    def test_nobody_listens(self):
        with socket.socket() as bound, self.assertRaises(dotring.Error) as caught:
            bound.bind(("127.0.0.1", 0))  # and never listens
            dotring.Client([f"http://127.0.0.1:{bound.getsockname()[1]}"]).session().put("k", "v")
        self.assertEqual((caught.exception.status, caught.exception.outcome), (0, NOT_APPLIED))

    def test_cache_is_revalidated_and_bounded(self):
        def value(text, etag, context):
            return (200 if text else 304), {"Kv-Context": context, "ETag": etag}, text

        session, gateway = self.script(
            value(b"v1", '"e1"', "c1"), value(b"", '"e1"', "c2"), value(b"v2", '"e2"', "c3"),
            value(b"x" * 900, '"e3"', "c4"), value(b"v2", '"e2"', "c5"), cache_bytes=1200,
        )
        got = [session.get(k) for k in ("k", "k", "k", "other", "k")]
        self.assertEqual([v.data for v in got], [b"v1", b"v1", b"v2", b"x" * 900, b"v2"])
        self.assertEqual([v.context for v in got], ["c1", "c2", "c3", "c4", "c5"])
        self.assertEqual([h.get("If-None-Match") for _, _, h, _ in gateway.seen], [None, '"e1"', '"e1"', None, None])

    def test_resolve(self):
        siblings = [{"value": v, "content_type": "", "etag": "", "last_modified": "", "tombstone": False} for v in ("YQ==", "Yg==")]
        conflict = 300, {"Kv-Context": "both"}, json.dumps({"context": "both", "siblings": siblings}).encode()
        join = lambda key, all: dotring.Value(b"".join(s.data for s in all))  # noqa: E731
        session, gateway = self.script(conflict, written("c"), resolve=join)
        value = session.get("k")
        session.put("k", value.data)
        self.assertEqual((value.data, value.context, gateway.seen[1][2]["Kv-Context"]), (b"ab", "both", "both"))

    def test_session_is_bounded(self):
        session, gateway = self.script()
        for i in range(dotring.MAX_SESSION_KEYS):
            session._begin(f"k{i}")
        with self.assertRaises(dotring.SessionFull):
            session.put("one more", "x")
        with self.assertRaises(ValueError):
            session.put("", "x")


if __name__ == "__main__":
    unittest.main()
