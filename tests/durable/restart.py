"""The protocol's official Python client, unmodified, while the server is killed and started again over its folder.

The client of this version knows no producers, so appends that are sent again are sent by plain HTTP.
"""

import json
import os
import re
import signal
import subprocess
import tempfile
import threading
import time

import httpx
from durable_streams import DurableStream, stream

BINARY = os.environ["PSA_TEST_DURABLE_BINARY"]
COUNT = 600


class Server:
    def __init__(self, folder):
        self.folder, self.address = folder, "127.0.0.1:0"

    def start(self):
        command = [BINARY, "serve", "--listen", "127.0.0.1:0", "--http", self.address, "--data", self.folder]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        for line in self.process.stdout:
            found = re.search(r"curl -N http://([^/]*)/", line)
            if found:
                self.address = found.group(1)
                threading.Thread(target=self.process.stdout.read, daemon=True).start()
                return
        raise AssertionError("the server did not start")

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


def publish(url):
    """Sends each item until it is acknowledged."""
    with httpx.Client(timeout=10) as client:
        for n in range(COUNT):
            headers = {
                "Content-Type": "application/json",
                "Producer-Id": "python",
                "Producer-Epoch": "0",
                "Producer-Seq": str(n),
            }
            while True:
                try:
                    answer = client.post(url, headers=headers, content=json.dumps({"n": n}))
                except httpx.TransportError:
                    time.sleep(0.02)
                    continue
                # 503: it is going.
                if answer.status_code in (200, 204):
                    break
                assert answer.status_code == 503, answer.text


def follow(url, live, found):
    offset = "-1"
    while len(found) < COUNT:
        try:
            with stream(url, offset=offset, live=live) as response:
                for event in response.iter_events(mode="json"):
                    found.extend(event.data if isinstance(event.data, list) else [event.data])
                    offset = event.next_offset
                    if len(found) >= COUNT:
                        break
        except Exception as error:  # noqa: BLE001: whatever a client says of a server that is gone
            assert "Assertion" not in type(error).__name__
            time.sleep(0.05)


def main():
    with tempfile.TemporaryDirectory() as folder:
        server = Server(os.path.join(folder, "data"))
        server.start()
        url = f"http://{server.address}/v1/stream/killed/python"
        with DurableStream.create(url, content_type="application/json"):
            pass
        publisher = threading.Thread(target=publish, args=(url,))
        followers = [(live, []) for live in ("long-poll", "sse")]
        threads = [threading.Thread(target=follow, args=(url, live, found)) for live, found in followers]
        for thread in [publisher, *threads]:
            thread.start()
        kills = 0
        while publisher.is_alive() or kills < 3:
            time.sleep(0.3)
            server.kill()
            kills += 1
            server.start()
        for thread in threads:
            thread.join(60)
        expected = [{"n": n} for n in range(COUNT)]
        for live, found in followers:
            assert found == expected, (live, len(found))
        with stream(url, offset="-1", live=False) as response:
            assert response.read_json() == expected
        server.kill()
        print(f"python client: each item is there once, after {kills} kills: ok")


main()
