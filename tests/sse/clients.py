"""Python's readers of Server-Sent Events, unmodified, through cuts and a restart of the server.

Neither comes back by itself: their users ask again with the id of the last event, as here.
PSA_TEST_BINARY is the `psa` to run.
"""

import atexit
import json
import os
import random
import re
import socket
import subprocess
import threading
import time
import urllib.request

import httpx
import requests
from httpx_sse import connect_sse
from sseclient import SSEClient

SEED = int(os.environ.get("PSA_TEST_SEED") or time.time())
# Only how long a failure takes.
PATIENCE = 60


class Server:
    def __init__(self, *flags):
        self.flags, self.http = flags, "127.0.0.1:0"

    def start(self):
        command = [os.environ["PSA_TEST_BINARY"], "serve", "--listen", "127.0.0.1:0", "--http", self.http, *self.flags]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        # Also where a check fails.
        atexit.register(self.kill)
        for line in self.process.stdout:
            found = re.search(r"curl -N http://([^/]*)/", line)
            if found:
                self.http = found[1]
                return self
        raise AssertionError("the server did not start")

    def kill(self):
        self.process.kill()
        self.process.wait()

    def publish(self, topic, record):
        request = urllib.request.Request(f"http://{self.http}/topics/{topic}", data=record.encode(), method="POST")
        urllib.request.urlopen(request, timeout=PATIENCE).read()


class Proxy:
    """Passes connections on; cuts each after as many bytes of its answer as `budget` says, if it says any."""

    def __init__(self, server):
        self.server, self.budget, self.cuts, self.open = server, lambda: None, 0, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            threading.Thread(target=self.serve, args=(client,), daemon=True).start()

    def serve(self, client):
        left = self.budget()
        try:
            host, port = self.server.http.split(":")
            upstream = socket.create_connection((host, int(port)))
        except OSError:
            return client.close()
        self.open += [client, upstream]
        threading.Thread(target=self.copy, args=(client, upstream), daemon=True).start()
        self.copy(upstream, client, left)

    def copy(self, source, sink, left=None):
        try:
            while data := source.recv(65536):
                if left is not None and len(data) >= left:
                    sink.sendall(data[:left])
                    self.cuts += 1
                    break
                left = left and left - len(data)
                sink.sendall(data)
        except OSError:
            pass
        cut(source, sink)

    def cut(self):
        cut(*self.open)


def cut(*sockets):
    for one in sockets:
        try:
            one.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


def by_httpx(url, headers):
    with httpx.Client(timeout=None) as client, connect_sse(client, "GET", url, headers=headers) as source:
        for event in source.iter_sse():
            yield event.event, event.data, event.id


def by_sseclient(url, headers):
    with requests.get(url, stream=True, headers={"Accept": "text/event-stream", **headers}) as answer:
        answer.raise_for_status()
        for event in SSEClient(answer).events():
            yield event.event, event.data, event.id


CUT_OFF = (httpx.HTTPError, requests.RequestException, OSError)


class Follower:
    def __init__(self, read, port, topic, start):
        self.seen, self.last = [], None
        url = f"http://127.0.0.1:{port}/topics/{topic}/events?from={start}"
        threading.Thread(target=self.run, args=(read, url), daemon=True).start()
        self.wait(lambda: self.named("caught-up"))

    def run(self, read, url):
        while True:
            try:
                for name, data, last in read(url, {"Last-Event-ID": self.last} if self.last else {}):
                    self.seen.append((name, data))
                    self.last = last or self.last
            except CUT_OFF:
                pass
            time.sleep(0.05)

    def named(self, name):
        return [data for found, data in self.seen if found == name]

    def wait(self, done):
        end = time.monotonic() + PATIENCE
        while not done():
            assert time.monotonic() < end, self.seen[-10:]
            time.sleep(0.01)


def is_cut_before_its_first_record(read):
    server = Server().start()
    proxy = Proxy(server)
    server.publish("t", "old")
    follower = Follower(read, proxy.port, "t", "next")
    proxy.budget = lambda: 1
    proxy.cut()
    for n in range(3):
        server.publish("t", f"new {n}")
    proxy.budget = lambda: None
    follower.wait(lambda: len(follower.named("message")) >= 3)
    assert follower.named("message") == ["new 0", "new 1", "new 2"], follower.seen
    assert not follower.named("gap")
    server.kill()


def is_cut_in_the_middle(read):
    draw = random.Random(SEED)
    server = Server().start()
    proxy = Proxy(server)
    server.publish("t", "old")
    follower = Follower(read, proxy.port, "t", "next")
    proxy.budget = lambda: draw.randint(1, 3_000)
    proxy.cut()
    sent = []
    while proxy.cuts < 10:
        sent.append(f"record {len(sent)} {'x' * draw.randint(0, 100)}")
        server.publish("t", sent[-1])
    proxy.budget = lambda: None
    proxy.cut()
    follower.wait(lambda: follower.named("message")[-1:] == sent[-1:])
    assert follower.named("message") == sent
    assert not follower.named("gap")
    server.kill()


def sees_a_restart(read):
    server = Server().start()
    server.publish("t", "old")
    follower = Follower(read, server.http.split(":")[1], "t", "earliest")
    server.kill()
    server.start()
    server.publish("t", "new")
    follower.wait(lambda: "new" in follower.named("message"))
    assert follower.named("message") == ["old", "new"], follower.seen
    gap, = map(json.loads, follower.named("gap"))
    assert (gap["reason"], gap["first_missed"]) == ("other-epoch", 1), gap
    server.kill()


def is_handed_nothing_that_nobody_said(read):
    server = Server("--http-heartbeat", "50ms").start()
    server.publish("t", "old")
    follower = Follower(read, server.http.split(":")[1], "t", "next")
    time.sleep(0.5)
    server.publish("t", "")
    follower.wait(lambda: len(follower.named("message")) == 1)
    time.sleep(0.5)
    server.publish("t", "last")
    follower.wait(lambda: "last" in follower.named("message"))
    told = [data if name == "message" else name for name, data in follower.seen]
    assert told == ["begin", "caught-up", "", "last"], told
    server.kill()


for read in (by_httpx, by_sseclient):
    for check in (
        is_cut_before_its_first_record,
        is_cut_in_the_middle,
        sees_a_restart,
        is_handed_nothing_that_nobody_said,
    ):
        check(read)
        print(f"{read.__name__} {check.__name__}: ok", flush=True)
