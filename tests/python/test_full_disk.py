"""A full disk: producers get an error that they try again after, reads and topic deletion go on, and space that comes back is
used without a restart. Needs root for a small file system of its own. For Ringlog alone: Kafka gives such a disk up."""

import os
import random
import subprocess
import time

import harness
import pytest
import wire
from conftest import TIMEOUT_S, Deliveries, admin, create_topic, produce_all, producer, read

pytestmark = [
    pytest.mark.alone,
    pytest.mark.skipif(harness.broker_class() is not harness.Ringlog, reason="Kafka gives a full disk up"),
    pytest.mark.skipif(os.geteuid() != 0, reason="mounting a small file system needs root"),
]

MIB = 1 << 20
KAFKA_STORAGE_ERROR = 56  # retriable


@pytest.fixture
def small_disk(tmp_path):
    image, mount = tmp_path / "image", tmp_path / "mount"
    mount.mkdir()
    with open(image, "wb") as file:
        file.truncate(320 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(image)], check=True, stdin=subprocess.DEVNULL)
    mounted = subprocess.run(["mount", "-o", "loop", str(image), str(mount)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if mounted.returncode != 0:
        pytest.skip(f"no loop mount here: {mounted.stderr.strip()}")
    yield mount
    subprocess.run(["umount", "-l", str(mount)], check=True, stdin=subprocess.DEVNULL)


def fill(broker, topic, size_bytes, message_timeout_ms=5000):
    """Produces until `size_bytes` are sent or the disk takes no more. Returns what was acknowledged as {offset: value} and the errors."""
    client = producer(broker, message_timeout_ms=message_timeout_ms, acks="all", max_in_flight=1, queue_buffering_max_kbytes=4096)
    deliveries = Deliveries()
    rng = random.Random(topic)
    sent = 0
    while sent < size_bytes and not deliveries.errors:
        value = rng.randbytes(20_000)
        try:
            client.produce(topic, value, partition=0, on_delivery=deliveries)
            sent += len(value)
        except BufferError:
            client.poll(0.05)
        client.poll(0)
    assert client.flush(TIMEOUT_S) == 0
    return {m.offset(): m.value() for m in deliveries.messages}, deliveries.errors


def test_a_full_disk_and_its_recovery(small_disk, request):
    broker = harness.Ringlog({"ringlog.journal.bytes": 32 * MIB}, work_dir=small_disk / "work")
    request.addfinalizer(broker.kill)
    broker.start()
    create_topic(broker, "ballast", segment_bytes=8 * MIB)
    create_topic(broker, "kept", segment_bytes=8 * MIB)
    ballast, errors = fill(broker, "ballast", 80 * MIB, message_timeout_ms=300_000)
    assert not errors
    kept, errors = fill(broker, "kept", 600 * MIB)
    assert errors, "the disk took more than it has"
    assert broker.is_running(), broker.log_tail()
    # A client's library may have given up by itself, and before the disk was full if the broker stood still: what the broker says is an
    # error that one tries again after, and it says it.
    for _ in range(4000):
        value = os.urandom(100_000)
        error, offset = wire.send_batch(broker, "kept", wire.batch([value]))
        if error != 0:
            break
        kept[offset] = value
    assert error == KAFKA_STORAGE_ERROR, f"answered with {error}"

    # Reads go on.
    stored = {m.offset(): m.value() for m in read(broker, "kept")}
    assert all(stored[offset] == value for offset, value in kept.items())
    assert read(broker, "ballast", count=10)[9].value() == ballast[9]

    # So does the deletion of a topic, and what it gives back is used.
    admin(broker).delete_topics(["ballast"])["ballast"].result(TIMEOUT_S)
    end = time.monotonic() + TIMEOUT_S
    while True:
        more, errors = fill(broker, "kept", 10 * MIB)
        kept.update(more)
        if not errors:
            break
        assert time.monotonic() < end, f"still refused after the deletion: {errors[:3]}\n{broker.log_tail()}"
    stored = {m.offset(): m.value() for m in read(broker, "kept")}
    assert all(stored[offset] == value for offset, value in kept.items())

    # Everything acknowledged is there after a crash, too.
    broker.kill()
    broker.start()
    assert "ballast" not in admin(broker).list_topics(timeout=TIMEOUT_S).topics
    stored = {m.offset(): m.value() for m in read(broker, "kept")}
    assert all(stored[offset] == value for offset, value in kept.items())
    produce_all(broker, "kept", [{"value": b"on it goes"}])
    broker.stop()
