"""The data directory is Kafka's: its tools read ours, Kafka serves what we wrote, and we read what Kafka wrote."""

import random
import re
import shutil
import subprocess
import time

import harness
import pytest
import test_compaction
from conftest import TIMEOUT_S, admin, consumer, create_topic, plain, produce_all, read, watermarks
from confluent_kafka import TopicPartition

DUMP = "org.apache.kafka.tools.DumpLogSegments"
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def dump(*arguments):
    """What DumpLogSegments prints; it has to be content."""
    done = subprocess.run(
        harness.java(DUMP, *map(str, arguments)), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout
    assert "Exception" not in done.stdout, done.stdout[-3000:]
    return done.stdout


def fill(broker, topic):
    """Batches of every codec, idempotent and not, with keys, headers and nulls, over several segments. Returns what was sent."""
    create_topic(broker, topic, segment_bytes=1_048_576, index_interval_bytes=4096)
    rng, sent, base = random.Random(topic), [], int(time.time() * 1000) - 1_000_000
    for round_ in range(6):
        for codec in CODECS:
            records = []
            for n in range(100):
                value = None if n % 50 == 7 else 3 * rng.randbytes(rng.randrange(1000))  # else it would not compress
                key = None if n % 3 else b"key %d" % n
                headers = [("codec", codec.encode()), ("empty", b"")] if n % 10 == 0 else None
                records.append({"key": key, "value": value, "headers": headers, "timestamp": base + 10 * (len(sent) + n)})
            # Full batches, however slowly they are filled: the tests know what lies where.
            produce_all(
                broker, topic, records, compression_type=codec, enable_idempotence=round_ % 2 == 0, batch_num_messages=20, linger_ms=10_000,
            )
            sent += records
    return sent


def expected(sent):
    return [(r["key"], r["value"], r["headers"], r["timestamp"]) for r in sent]


def stored(broker, topic, offset=0):
    return [(*plain(m), m.timestamp()[1]) for m in read(broker, topic, offset=offset)]


def test_dump_log_segments_reads_what_a_clean_stop_leaves(own_broker):
    broker = own_broker()
    sent = fill(broker, "dumped")
    cut = TopicPartition("dumped", 0, 100)
    admin(broker).delete_records([cut])[cut].result(TIMEOUT_S)
    broker.stop()
    directory = broker.partition_dir("dumped", 0)
    logs = sorted(directory.glob("*.log"))
    assert len(logs) >= 3
    next_offset, records = 0, 0
    for log in logs:
        assert int(log.stem) == next_offset
        text = dump("--deep-iteration", "--print-data-log", "--files", log)
        assert f"Log starting offset: {next_offset}" in text
        position = 0
        for batch in re.finditer(
            r"^baseOffset: (\d+) lastOffset: (\d+) count: (\d+) .* position: (\d+) .* size: (\d+) magic: 2 .* isvalid: (\w+)$", text, re.M,
        ):
            base, last, count, at, size = map(int, batch.groups()[:5])
            assert batch.group(6) == "true"
            assert (base, at) == (next_offset, position) and last == base + count - 1
            next_offset, position, records = last + 1, at + size, records + count
        assert position == log.stat().st_size, "bytes after the last batch"
        assert len(re.findall(r"^\| offset: ", text, re.M)) == next_offset - int(log.stem)
    assert (next_offset, records) == (len(sent), len(sent))


def test_indexes_are_sane(own_broker):
    broker = own_broker()
    fill(broker, "indexed")
    broker.stop()
    directory = broker.partition_dir("indexed", 0)
    indexes = sorted(directory.glob("*.index")) + sorted(directory.glob("*.timeindex"))
    assert len(indexes) == 2 * len(list(directory.glob("*.log")))
    files = ",".join(map(str, indexes))
    assert dump("--index-sanity-check", "--files", files).count("passed sanity check") == len(indexes)
    for text in (dump("--verify-index-only", "--files", files), dump("--files", files)):
        assert "Mismatches" not in text and "out of order" not in text and "Found" not in text, text
    assert re.search(r"offset: \d+ position: [1-9]", dump("--files", sorted(directory.glob("*.index"))[0])), "an index without entries"


def test_producer_snapshots_are_kafkas(own_broker):
    broker = own_broker()
    fill(broker, "snapshots")
    broker.stop()
    newest = sorted(broker.partition_dir("snapshots", 0).glob("*.snapshot"))[-1]
    text = dump("--files", newest)
    assert re.search(r"producerId: \d+ producerEpoch: 0 .* lastSequence: \d+", text), text


def wait_for_directory(broker, topic):
    """Kafka tells of a topic a little before it has made its directory."""
    end = time.monotonic() + TIMEOUT_S
    while not broker.partition_dir(topic, 0).exists():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("recover", [False, True])
def test_kafka_serves_a_directory_that_we_wrote(own_broker, request, recover):
    broker = own_broker()
    sent = fill(broker, "moved")
    broker.stop()
    kafka = harness.Kafka()
    request.addfinalizer(kafka.remove)
    kafka.start()
    create_topic(kafka, "moved")
    wait_for_directory(kafka, "moved")
    kafka.stop()
    for file in kafka.partition_dir("moved", 0).iterdir():
        if file.name != "partition.metadata":
            file.unlink()
    for file in broker.partition_dir("moved", 0).iterdir():
        if file.name != "partition.metadata":
            shutil.copy(file, kafka.partition_dir("moved", 0))
    if recover:
        (kafka.data_dir / ".kafka_cleanshutdown").unlink()
    kafka.start()
    assert watermarks(kafka, "moved") == (0, len(sent))
    assert stored(kafka, "moved") == expected(sent)
    client = consumer(kafka)
    try:
        for n in (0, 1, 333, 1999):
            asked = TopicPartition("moved", 0, sent[n]["timestamp"])
            assert client.offsets_for_times([asked], timeout=TIMEOUT_S)[0].offset == n
    finally:
        client.close()
    assert [m.offset() for m in produce_all(kafka, "moved", [{"value": b"more"}])] == [len(sent)]
    kafka.stop()


def compacted(broker, topic):
    """A compacted topic with gaps, empty batches and tombstones. Returns what was sent."""
    create_topic(broker, topic, **test_compaction.COMPACTED, index_interval_bytes=4096)
    sent = []
    test_compaction.fill(broker, topic, 12, sent)
    test_compaction.wait_until_compacted(broker, topic)
    return sent


def test_dump_log_segments_reads_what_compaction_leaves(own_broker):
    broker = own_broker(test_compaction.SETTINGS)
    sent = compacted(broker, "compacted")
    there = test_compaction.found(broker, "compacted")
    broker.stop()
    directory = broker.partition_dir("compacted", 0)
    logs, offsets, horizons = sorted(directory.glob("*.log")), [], 0
    for log in logs:
        text = dump("--deep-iteration", "--print-data-log", "--files", log)
        assert "isvalid: false" not in text and "isvalid: true" in text
        offsets += [int(offset) for offset in re.findall(r"^\| offset: (\d+)", text, re.M)]
        ends = [int(offset) for offset in re.findall(r"^baseOffset: \d+ lastOffset: (\d+)", text, re.M)]
        assert ends == sorted(ends)
        horizons += len(re.findall(r"^baseOffset: .* deleteHorizonMs: OptionalLong\[\d+\]", text, re.M))
    assert offsets == [offset for offset, _, _ in there] and len(offsets) < len(sent) / 2
    assert horizons > 0, "tombstones have got their time"
    indexes = [*directory.glob("*.index"), *directory.glob("*.timeindex")]
    text = dump("--index-sanity-check", "--files", ",".join(map(str, indexes)))
    assert "Mismatches" not in text and "out of order" not in text and "Found" not in text, text
    # Of a segment that has empty batches alone the tool finds no record with the time index's timestamp.
    filled = [index for index in indexes if index.with_suffix(".index").stat().st_size > 0]
    text = dump("--verify-index-only", "--files", ",".join(map(str, filled)))
    assert filled and "Mismatches" not in text and "out of order" not in text and "Found" not in text, text
    offline = subprocess.run([broker.binary(), "log", "verify", str(directory)], capture_output=True, text=True, timeout=180)
    assert offline.returncode == 0 and "all is well" in offline.stdout, offline.stdout
    assert f"{len(there)} records" in offline.stdout
    offline = subprocess.run([broker.binary(), "log", "dump", str(directory)], capture_output=True, text=True, timeout=180)
    assert offline.returncode == 0 and "delete-horizon" in offline.stdout and "BAD" not in offline.stdout


@pytest.mark.parametrize("recover", [False, True])
def test_kafka_serves_and_compacts_what_we_compacted(own_broker, request, recover):
    broker = own_broker(test_compaction.SETTINGS)
    sent = compacted(broker, "moved")
    there = test_compaction.found(broker, "moved")
    broker.stop()
    kafka = harness.Kafka(test_compaction.SETTINGS)
    request.addfinalizer(kafka.remove)
    kafka.start()
    create_topic(kafka, "moved", **test_compaction.COMPACTED)
    wait_for_directory(kafka, "moved")
    kafka.stop()
    for file in kafka.partition_dir("moved", 0).iterdir():
        if file.name != "partition.metadata":
            file.unlink()
    for file in broker.partition_dir("moved", 0).iterdir():
        if file.name != "partition.metadata":
            shutil.copy(file, kafka.partition_dir("moved", 0))
    checkpoint = "cleaner-offset-checkpoint"
    shutil.copy(broker.data_dir / checkpoint, kafka.data_dir / checkpoint)
    if recover:
        (kafka.data_dir / ".kafka_cleanshutdown").unlink()
    kafka.start()
    assert watermarks(kafka, "moved") == (0, len(sent))
    assert test_compaction.found(kafka, "moved") == there
    # Producer ids are a cluster's own: another one gives the same ones to others.
    test_compaction.fill(kafka, "moved", 6, sent, seed=1, idempotent=False)
    active = test_compaction.wait_until_compacted(kafka, "moved")
    test_compaction.check(sent, test_compaction.found(kafka, "moved"), active)
    kafka_has = test_compaction.found(kafka, "moved")
    kafka.stop()
    # And back: what Kafka compacted is served here, and compacted further.
    for file in broker.partition_dir("moved", 0).iterdir():
        if file.name != "partition.metadata":
            file.unlink()
    for file in kafka.partition_dir("moved", 0).iterdir():
        if file.name != "partition.metadata":
            shutil.copy(file, broker.partition_dir("moved", 0))
    broker.start()
    assert test_compaction.found(broker, "moved") == kafka_has
    test_compaction.fill(broker, "moved", 6, sent, seed=2, idempotent=False)
    active = test_compaction.wait_until_compacted(broker, "moved")
    test_compaction.check(sent, test_compaction.found(broker, "moved"), active)
