"""The broker's scrub: what rots in a segment at rest is told in the log, once, while everything else goes on. For Ringlog alone: Kafka
has none."""

import os
import random
import re
import struct
import subprocess
import time

import harness
import pytest
from conftest import TIMEOUT_S, consumer, create_topic, produce_all, read
from confluent_kafka import KafkaError, TopicPartition

pytestmark = pytest.mark.skipif(harness.broker_class() is not harness.Ringlog, reason="Kafka has no scrub")

SETTINGS = {"ringlog.scrub.interval.ms": 1000, "ringlog.scrub.io.max.bytes.per.second": 200 << 20}
SEGMENT_BYTES = 1 << 20


def batches(path):
    """(position, size, first offset, offset after the last) of each batch of a segment."""
    data, at = path.read_bytes(), 0
    while at < len(data):
        base, length = struct.unpack_from(">qi", data, at)
        (last_delta,) = struct.unpack_from(">i", data, at + 23)
        yield at, length + 12, base, base + last_delta + 1
        at += length + 12


def flip(path, position):
    """Changes a byte of a file on the device, and has the page cache forget it."""
    file = os.open(path, os.O_RDWR)
    try:
        byte = os.pread(file, 1, position)[0]
        os.pwrite(file, bytes([byte ^ 0x04]), position)
        os.fsync(file)
        os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(file)


def log_text(broker):
    return re.sub(r"\x1b\[[0-9;]*m", "", broker.log_path.read_text(errors="replace"))


def wait_for(broker, what, count=1):
    end = time.monotonic() + TIMEOUT_S
    while log_text(broker).count(what) < count:
        assert time.monotonic() < end, f"no {what!r} in the log:\n{broker.log_tail()}"
        time.sleep(0.1)


def sealed_segments(broker, topic):
    """The segments behind which there is another one, once they are whole on the disk."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        logs = sorted(broker.partition_dir(topic, 0).glob("*.log"))[:-1]
        if len(logs) >= 2 and all(list(batches(log))[-1][3] == int(follows.stem) for log, follows in zip(logs, logs[1:])):
            return logs[:-1]
        assert time.monotonic() < end, logs
        time.sleep(0.2)


def assert_refused(broker, topic, offset, **config):
    client = consumer(broker, **config)
    try:
        client.assign([TopicPartition(topic, 0, offset)])
        end = time.monotonic() + TIMEOUT_S
        while (message := client.poll(1.0)) is None:
            assert time.monotonic() < end, broker.log_tail()
        assert message.error() is not None and message.error().code() == KafkaError.INVALID_MSG, (message.error(), message.offset())
    finally:
        client.close()


@pytest.mark.parametrize("value_bytes", [2_000, 20 << 20], ids=["small", "large"])
def test_rot_is_refused_however_often_it_is_asked_for(own_broker, value_bytes):
    """Looking at it brings it into the page cache, from where it must not be served either."""
    broker = own_broker({"ringlog.scrub.enable": "false"})
    topic = create_topic(broker, max_message_bytes=40 << 20)
    rng = random.Random(2)
    config = {"batch_num_messages": 1, "message_max_bytes": 40 << 20}
    values = [rng.randbytes(value_bytes) for _ in range(3)]
    for value in values:
        produce_all(broker, topic, [{"value": value, "partition": 0}], **config)
    broker.stop()
    (segment,) = broker.partition_dir(topic, 0).glob("*.log")
    position, size, first, _ = list(batches(segment))[1]
    flip(segment, position + size - 10)
    broker.start()
    # Whoever reads what lies before it comes upon it, too.
    assert read(broker, topic, offset=0, count=1, fetch_message_max_bytes=1_000)[0].value() == values[0]
    for _ in range(3):
        assert_refused(broker, topic, first, fetch_message_max_bytes=1_000)
    for offset in (0, 2):
        assert read(broker, topic, offset=offset, count=1)[0].value() == values[offset]
    assert_refused(broker, topic, first)
    broker.stop()


def test_rot_is_told_once_and_the_rest_goes_on(own_broker):
    broker = own_broker(SETTINGS)
    topic = create_topic(broker, segment_bytes=SEGMENT_BYTES)
    rng = random.Random(1)
    sent = produce_all(broker, topic, [{"value": rng.randbytes(20_000), "partition": 0} for _ in range(300)], batch_num_messages=5)
    segment = sealed_segments(broker, topic)[0]
    # What was written lately is in memory, and served from there.
    broker.stop()
    broker.start()
    wait_for(broker, "scrubbed", log_text(broker).count("scrubbed") + 3)
    assert "the scrub found damage" not in log_text(broker), broker.log_tail()

    found = list(batches(segment))
    position, size, first, after = found[len(found) // 2]
    flip(segment, position + size - 10)
    wait_for(broker, "the scrub found damage")
    (line,) = [line for line in log_text(broker).splitlines() if "the scrub found damage" in line]
    assert " ERROR " in line and str(segment) in line and "ringlog log verify" in line, line
    assert f"position={position}" in line and f"offset={first}" in line, line

    # What is sound is served, before and behind it, and produced; what is not is refused.
    values = {message.offset(): message.value() for message in sent}
    for start, count in ((0, first), (after, len(values) - after)):
        assert {m.offset(): m.value() for m in read(broker, topic, offset=start, count=count)}.items() <= values.items()
    assert_refused(broker, topic, first)
    (more,) = produce_all(broker, topic, [{"value": b"more", "partition": 0}])
    assert read(broker, topic, offset=more.offset(), count=1)[0].value() == b"more"

    # Told once, however often it is passed.
    passes = log_text(broker).count("scrubbed")
    wait_for(broker, "scrubbed", passes + 3)
    assert log_text(broker).count("the scrub found damage") == 1, broker.log_tail()
    verified = subprocess.run([broker.binary(), "log", "verify", str(broker.data_dir)], capture_output=True, text=True)
    assert verified.returncode != 0 and segment.name in verified.stdout, verified.stdout
    broker.stop()


def test_it_can_be_turned_off(own_broker):
    broker = own_broker({**SETTINGS, "ringlog.scrub.enable": "false"})
    topic = create_topic(broker)
    produce_all(broker, topic, [{"value": b"x", "partition": 0}])
    time.sleep(3)
    assert "scrubbed" not in log_text(broker)
    broker.stop()
