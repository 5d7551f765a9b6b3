"""Everything at once for a while: producers of every kind, readers, topics that come and go, idle and abandoned connections, clean stops
and kills. Memory and descriptors must not drift; latency is printed, since timings decide nothing. With --long only; RINGLOG_SOAK_S
says how long (600 without)."""

import os
import pathlib
import random
import resource
import socket
import statistics
import time

import harness
import pytest
from conftest import create_topic, produce_all, read, unique_name
from crash import SETTINGS, Commands, Topic, wait_for_progress

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(harness.broker_class() is not harness.Ringlog, reason="looks at Ringlog's process"),
]

MIB = 1 << 20
# What one producer sends in one life of the broker: a gigabyte of this test's own memory.
RECORDS_MAX = 300_000
LIVES = 3


def sample(broker, topic):
    """Resident bytes, descriptors, and how long one small synced produce takes."""
    start = time.monotonic()
    produce_all(broker, topic, [{"value": b"probe", "partition": 0}], acks="all", linger_ms=0)
    took_ms = (time.monotonic() - start) * 1000
    pages = int(pathlib.Path(f"/proc/{broker.pid}/statm").read_text().split()[1])
    return pages * resource.getpagesize(), len(os.listdir(f"/proc/{broker.pid}/fd")), took_ms


def test_soak(own_broker):
    seconds = float(os.environ.get("RINGLOG_SOAK_S", "600"))
    broker = own_broker(SETTINGS)
    rng = random.Random(1)
    for life in range(LIVES):
        kinds = [(True, True), (True, False), (False, True), (False, False)]
        pace = RECORDS_MAX / (seconds / LIVES)
        topics = [Topic(broker, unique_name("soak"), 4, n, *kind, per_second_max=pace) for n, kind in enumerate(kinds)]
        create_topic(broker, topics[0].name + "-probe")
        commands = Commands(broker, unique_name("come-and-go"))
        samples, abandoned = [], []
        end = time.monotonic() + seconds / LIVES
        try:
            while time.monotonic() < end:
                wait_for_progress(topics, 200)
                abandoned.append(socket.create_connection((harness.HOST, broker.port)))
                if len(abandoned) > 100:
                    abandoned.pop(rng.randrange(100)).close()
                name = rng.choice(topics).name
                read(broker, name, rng.randrange(4), count=1)
                samples.append(sample(broker, topics[0].name + "-probe"))
        finally:
            for thing in (*topics, commands):
                thing.pause()
            for each in abandoned:
                each.close()
        third = max(1, len(samples) // 3)
        first, last = samples[third:2 * third] or samples, samples[2 * third:]
        middle = lambda some, at: statistics.median(s[at] for s in some)  # noqa: E731
        for name, at, unit in (("RSS", 0, MIB), ("descriptors", 1, 1), ("latency (ms)", 2, 1)):
            print(f"life {life}: {name} {middle(first, at) / unit:.1f} then {middle(last, at) / unit:.1f}, largest {max(s[at] for s in samples) / unit:.1f}")
        # Segments and partitions grow meanwhile, a little of them in memory.
        assert middle(last, 0) < middle(first, 0) * 1.25 + 48 * MIB, "resident memory drifts"
        assert middle(last, 1) < middle(first, 1) * 1.25 + 200, "descriptors drift"
        for topic in topics:
            assert topic.deliveries.errors == []
        broker.kill() if life % 2 else broker.stop()
        broker.start()
        for thing in (*topics, commands):
            thing.check()
