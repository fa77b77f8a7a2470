"""The protocol's official Python client, unmodified, against a server that runs already.

The client of this version knows no producers and cannot close a stream, so that is done by plain HTTP.
"""

import asyncio
import os
import sys
import threading

import httpx
from durable_streams import DurableStream, SeqConflictError, StreamNotFoundError, astream, stream

BASE = os.environ["PSA_TEST_DURABLE_URL"]
made = 0


def fresh():
    global made
    made += 1
    return f"{BASE}/v1/stream/python/{os.getpid()}-{made}"


def items(start, end):
    return [{"n": n} for n in range(start, end)]


def follow(url, live, offset, count):
    """Reads live until there are `count` items; says where it ended."""
    found = []
    with stream(url, offset=offset, live=live) as response:
        for event in response.iter_events(mode="json"):
            data = event.data
            found.extend(data if isinstance(data, list) else [data])
            offset = event.next_offset
            if len(found) >= count:
                break
    return found, offset


def what_is_appended_is_there_in_every_kind_of_read():
    url = fresh()
    with DurableStream.create(url, content_type="application/json") as handle:
        for item in items(0, 100):
            handle.append(item)
        assert handle.head().content_type == "application/json"
        tail = handle.head().offset
    with stream(url, offset="-1", live=False) as response:
        assert response.read_json() == items(0, 100)
    for live in ("long-poll", "sse"):
        found, end = follow(url, live, "-1", 100)
        assert found == items(0, 100), (live, found)
        assert end == tail, (live, end, tail)


def what_comes_later_is_followed_from_where_a_reader_stopped():
    for live in ("long-poll", "sse"):
        url = fresh()
        with DurableStream.create(url, content_type="application/json") as handle:
            handle.append({"n": 0})
            found, end = follow(url, live, "-1", 1)
            assert found == items(0, 1), (live, found)
            rest = []
            reader = threading.Thread(target=lambda: rest.extend(follow(url, live, end, 3)[0]))
            reader.start()
            for item in items(1, 4):
                handle.append(item)
            reader.join(60)
            assert rest == items(1, 4), (live, rest)


def a_sequence_that_does_not_grow_is_refused():
    url = fresh()
    with DurableStream.create(url, content_type="application/json", batching=False) as handle:
        handle.append({"n": 0}, seq="b")
        try:
            handle.append({"n": 1}, seq="a")
        except SeqConflictError:
            pass
        else:
            raise AssertionError("it was taken")
    with stream(url, offset="-1", live=False) as response:
        assert response.read_json() == items(0, 1)


def bytes_come_back_as_they_were():
    url = fresh()
    every = bytes(range(256))
    with DurableStream.create(url, content_type="application/octet-stream", batching=False) as handle:
        handle.append(every)
        handle.append(every)
    with stream(url, offset="-1", live=False) as response:
        assert response.read_bytes() == every + every


def a_task_reads_as_well():
    url = fresh()
    with DurableStream.create(url, content_type="application/json", body=items(0, 3)):
        pass

    async def read():
        async with astream(url, offset="-1", live=False) as response:
            return await response.read_json()

    assert asyncio.run(read()) == items(0, 3)


def a_stream_that_is_closed_ends_its_readers_and_can_be_deleted():
    url = fresh()
    with DurableStream.create(url, content_type="application/json") as handle:
        handle.append({"n": 0})
        httpx.post(url, headers={"Stream-Closed": "true"}).raise_for_status()
        with stream(url, offset="-1", live=False) as response:
            assert response.read_json() == items(0, 1)
            assert response.headers["stream-closed"] == "true"
        handle.delete()
    try:
        DurableStream.connect(url)
    except StreamNotFoundError:
        pass
    else:
        raise AssertionError("it is still there")


TESTS = [
    what_is_appended_is_there_in_every_kind_of_read,
    what_comes_later_is_followed_from_where_a_reader_stopped,
    a_sequence_that_does_not_grow_is_refused,
    bytes_come_back_as_they_were,
    a_task_reads_as_well,
    a_stream_that_is_closed_ends_its_readers_and_can_be_deleted,
]
for run in TESTS:
    run()
    print(f"python client: {run.__name__}: ok")
sys.exit(0)
