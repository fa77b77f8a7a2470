"""What clients and browsers do, through the proxy at PSA_TEST_PROXY in front of a server."""

import base64
import gzip
import http.client
import json
import os
import socket
import threading
import time

ADDRESS = os.environ["PSA_TEST_PROXY"]
HOST, PORT = ADDRESS.split(":")
# Only how long a failure takes.
PATIENCE = 30


def topic(name):
    """A topic of this run alone: the server may have seen others."""
    return f"{name}-{PORT}"


def ask(method, path, body=None, **headers):
    client = http.client.HTTPConnection(HOST, int(PORT), timeout=PATIENCE)
    client.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = client.getresponse()
    said = answer.status, answer.headers, answer.read()
    client.close()
    return said


class Stream:
    """An event stream, event by event."""

    def __init__(self, path, **headers):
        self.client = http.client.HTTPConnection(HOST, int(PORT), timeout=PATIENCE)
        headers = {"Accept": "text/event-stream", "Accept-Encoding": "gzip", **headers}
        self.client.request("GET", path, headers=headers)
        self.answer = self.client.getresponse()
        assert self.answer.status == 200, self.answer.status
        # It would be gathered.
        assert self.answer.getheader("Content-Encoding") is None, self.answer.getheaders()

    def next(self):
        event = {}
        while line := self.answer.readline().decode().rstrip("\n"):
            name, _, value = line.partition(":")
            event[name] = value.strip()
        assert event, "the stream ended"
        return event

    def close(self):
        self.client.close()


def compression_is_on():
    records = "".join(json.dumps({"n": n, "text": "x" * 40}) + "\n" for n in range(1000))
    status, _, _ = ask("POST", f"/topics/{topic('large')}", records, Content_Type="application/x-ndjson")
    assert status == 200, status
    status, said, body = ask("GET", f"/topics/{topic('large')}/records?limit=1000", Accept_Encoding="gzip")
    assert status == 200 and said.get("Content-Encoding") == "gzip", (status, said)
    assert json.loads(gzip.decompress(body))["count"] == 1000


def large_bodies_pass():
    status, _, said = ask("POST", f"/topics/{topic('bytes')}", b"x" * (1 << 20))
    assert status == 200, (status, said)


def events_arrive_at_once_and_resume():
    stream = Stream(f"/topics/{topic('t')}/events?from=next")
    begin = stream.next()
    assert begin["event"] == "begin", begin
    assert stream.next()["event"] == "caught-up"
    for n in range(5):
        began = time.monotonic()
        ask("POST", f"/topics/{topic('t')}", f"record {n}")
        event = stream.next()
        assert event["data"] == f"record {n}", event
        # Not in heaps: far less than any proxy's buffer takes to fill, which is for ever.
        assert time.monotonic() - began < PATIENCE
    stream.close()
    for n in range(5, 8):
        ask("POST", f"/topics/{topic('t')}", f"record {n}")
    # As a browser does, with what it had.
    stream = Stream(f"/topics/{topic('t')}/events?from=next", **{"Last-Event-ID": event["id"]})
    assert stream.next()["event"] == "begin"
    assert [stream.next()["data"] for _ in range(3)] == ["record 5", "record 6", "record 7"]
    stream.close()


def waits_are_answered():
    answers = []
    waiting = threading.Thread(target=lambda: answers.append(ask("GET", f"/topics/{topic('w')}/records?from=next&wait=20s")))
    ask("PUT", f"/topics/{topic('w')}")
    waiting.start()
    time.sleep(0.3)
    ask("POST", f"/topics/{topic('w')}", "hello")
    waiting.join(PATIENCE)
    assert json.loads(answers[0][2])["records"][0]["data"] == "hello"


def the_servers_own_page_may_publish():
    # The page's origin is the proxy's address.
    own = f"http://{ADDRESS}"
    assert ask("POST", f"/topics/{topic('t')}", "x", Origin=own)[0] == 200
    # One that is reached by TLS in front of this proxy: only its browser knows.
    assert ask("POST", f"/topics/{topic('t')}", "x", Origin="https://app.example", Sec_Fetch_Site="same-origin")[0] == 200
    for foreign in ({}, {"Sec_Fetch_Site": "cross-site"}):
        assert ask("POST", f"/topics/{topic('t')}", "x", Origin="https://evil.example", **foreign)[0] == 403
    assert ask("GET", "/")[0] == 200


def websockets_pass():
    client = socket.create_connection((HOST, int(PORT)), timeout=PATIENCE)
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET /topics/{topic('t')}/events?from=last:1 HTTP/1.1\r\nHost: {ADDRESS}\r\nOrigin: http://{ADDRESS}\r\n"
    head += f"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n"
    client.sendall(head.encode())
    said = b""
    while b'"begin"' not in said:
        more = client.recv(4096)
        assert more, said
        said += more
    assert said.startswith(b"HTTP/1.1 101"), said
    client.close()


def a_place_is_where_the_client_finds_it():
    status, said, _ = ask("PUT", f"/v1/stream/{topic('s')}", "", Content_Type="text/plain")
    path = f"/v1/stream/{topic('s')}"
    assert status == 201 and said["Location"] in (path, f"http://{ADDRESS}{path}"), said


for check in (
    compression_is_on,
    large_bodies_pass,
    events_arrive_at_once_and_resume,
    waits_are_answered,
    the_servers_own_page_may_publish,
    websockets_pass,
    a_place_is_where_the_client_finds_it,
):
    check()
    print(f"{check.__name__}: ok")
