"""The figures, read by programs that others wrote: Prometheus' Python client, promtool, and a real Prometheus, which is
asked every question of the dashboard.

PSA_TEST_BINARY is the `psa` to run, PSA_TEST_URL its HTTP address, PSA_TEST_SERVER the other one.
"""

import json
import math
import os
import pathlib
import re
import socket
import subprocess
import tempfile
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_open
from prometheus_client.parser import text_string_to_metric_families as read_plain

URL = os.environ["PSA_TEST_URL"]
DASHBOARD = pathlib.Path(__file__).parent / "../../docs/operations/grafana.json"
# Only how long a failure takes.
PATIENCE = 60


def get(url, **headers):
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=PATIENCE) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


def post(topic, record):
    request = urllib.request.Request(f"{URL}/topics/{topic}", data=record, method="POST")
    urllib.request.urlopen(request, timeout=PATIENCE).read()


def load(stop):
    """Something of every kind, until it is told to stop."""
    psa = [os.environ["PSA_TEST_BINARY"], "sub", "--server", os.environ["PSA_TEST_SERVER"], "t"]
    nowhere = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subscribers = [subprocess.Popen(psa + flags, **nowhere) for flags in ([], ["--lease", "billing"])]
    stream = urllib.request.urlopen(f"{URL}/topics/t/events", timeout=PATIENCE)
    threading.Thread(target=lambda: [None for _ in stream], daemon=True).start()
    while not stop.is_set():
        for _ in range(70):
            post("t", b"x" * 100)
        try:
            get(f"{URL}/nothing")
        except urllib.error.HTTPError:
            pass
        time.sleep(0.2)
    for subscriber in subscribers:
        subscriber.terminate()


def forms():
    media, text = get(f"{URL}/metrics", Accept="application/openmetrics-text; version=1.0.0")
    assert media.startswith("application/openmetrics-text"), media
    families = {family.name: family for family in read_open(text)}
    plain_media, plain_text = get(f"{URL}/metrics", Accept="text/plain")
    assert plain_media.startswith("text/plain; version=0.0.4"), plain_media
    plain = {family.name: family for family in read_plain(plain_text)}
    assert families.keys() == plain.keys(), families.keys() ^ plain.keys()
    for name, family in [*families.items(), *plain.items()]:
        assert family.documentation and family.type != "unknown" and family.samples, (name, family)
        if family.type == "histogram":
            everything = [sample.value for sample in family.samples if sample.labels.get("le") == "+Inf"]
            counts = [sample.value for sample in family.samples if sample.name.endswith("_count")]
            assert everything == counts, name
    checked = subprocess.run(["promtool", "check", "metrics"], input=plain_text, text=True, capture_output=True)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    samples = sum(len(family.samples) for family in families.values())
    print(f"metrics: ok, {len(families)} families with {samples} samples in both forms")


def questions():
    def gather(value):
        if isinstance(value, dict):
            for name, member in value.items():
                yield from [member] if name == "expr" else gather(member)
        elif isinstance(value, list):
            for item in value:
                yield from gather(item)

    asked = list(gather(json.loads(DASHBOARD.read_text())))
    assert len(asked) > 20, asked
    for text in asked:
        text = text.replace("$__rate_interval", "10s")
        yield re.sub(r"\$\w+", ".*", text)


def free_port():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


def dashboard():
    port, host = free_port(), urllib.parse.urlsplit(URL).netloc
    with tempfile.TemporaryDirectory() as folder:
        config = pathlib.Path(folder) / "prometheus.yml"
        scrape = {"job_name": "psa", "scrape_interval": "1s", "static_configs": [{"targets": [host]}]}
        # JSON is YAML.
        config.write_text(json.dumps({"scrape_configs": [scrape]}))
        subprocess.run(["promtool", "check", "config", config], check=True, stdout=subprocess.DEVNULL)
        command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/data"]
        command.append(f"--web.listen-address=127.0.0.1:{port}")
        log = open(f"{folder}/log", "w+")
        prometheus = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            answered = wait_for_answers(port)
        except BaseException:
            log.seek(0)
            print(log.read()[-4000:])
            raise
        finally:
            prometheus.terminate()
            prometheus.wait()
    print(f"metrics: ok, {answered} questions of the dashboard are answered by Prometheus")


def ask(port, question):
    address = f"http://127.0.0.1:{port}/api/v1/query?" + urllib.parse.urlencode({"query": question})
    found = json.loads(get(address)[1])["data"]["result"]
    values = [float(one["value"][1]) for one in found]
    return values if values and not any(map(math.isnan, values)) else None


def wait_for_answers(port):
    left, end = list(questions()), time.monotonic() + PATIENCE
    count = len(left)
    while left:
        assert time.monotonic() < end, f"Prometheus has no data for {left}"
        time.sleep(1)
        try:
            left = [question for question in left if ask(port, question) is None]
        except (urllib.error.URLError, ConnectionError):
            pass
    return count


stop = threading.Event()
loading = threading.Thread(target=load, args=(stop,))
loading.start()
try:
    time.sleep(1)
    forms()
    dashboard()
finally:
    stop.set()
    loading.join()
