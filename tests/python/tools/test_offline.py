"""`ringlog log dump` and `ringlog log verify` on directories that Kafka wrote, and on ours after a clean stop and after a crash."""

import base64
import json
import subprocess

import harness
import pytest
from test_directories import fill


def ringlog(*arguments):
    return subprocess.run(
        [harness.Ringlog.binary(), *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=180,
    )


def as_bytes(field):
    if field is None:
        return None
    return base64.b64decode(field["base64"]) if isinstance(field, dict) else field.encode()


def dumped(directory, partition):
    """The batches of one partition as `log dump --json --records` tells them."""
    done = ringlog("log", "dump", directory, "--json", "--records")
    assert done.returncode == 0, done.stderr + done.stdout[-2000:]
    return [line for line in map(json.loads, done.stdout.splitlines()) if line["partition"] == partition]


def check(lines, sent):
    batches = [line for line in lines if "base_offset" in line]
    assert all(b["ok"] for b in batches)
    next_offset = 0
    for batch in batches:
        assert batch["base_offset"] == next_offset
        next_offset = batch["last_offset"] + 1
    records = [record for batch in batches for record in batch["records"]]
    assert [r["offset"] for r in records] == list(range(len(sent)))
    for record, original in zip(records, sent):
        assert as_bytes(record["key"]) == original["key"]
        assert as_bytes(record["value"]) == original["value"]
        assert record["timestamp"] == original["timestamp"]
        headers = [(as_bytes(k).decode(), as_bytes(v)) for k, v in record.get("headers", [])]
        assert headers == (original["headers"] or [])
    assert {b["codec"] for b in batches} == {"none", "gzip", "snappy", "lz4", "zstd"}


@pytest.fixture
def kafka_directory(request):
    """A directory of Kafka's with one topic, stopped cleanly, and what was sent to it."""
    kafka = harness.Kafka()
    request.addfinalizer(kafka.remove)
    kafka.start()
    sent = fill(kafka, "theirs")
    kafka.stop()
    return kafka, sent


def test_a_directory_of_kafkas(kafka_directory):
    kafka, sent = kafka_directory
    check(dumped(kafka.data_dir, "theirs-0"), sent)
    check(dumped(kafka.partition_dir("theirs", 0), "theirs-0"), sent)
    text = ringlog("log", "dump", kafka.partition_dir("theirs", 0))
    assert text.returncode == 0 and "offsets 0.." in text.stdout
    verified = ringlog("log", "verify", kafka.data_dir)
    assert verified.returncode == 0, verified.stdout + verified.stderr

    # One bit of rot is found and named.
    log = sorted(kafka.partition_dir("theirs", 0).glob("*.log"))[1]
    with open(log, "r+b") as file:
        file.seek(200)
        byte = file.read(1)
        file.seek(200)
        file.write(bytes([byte[0] ^ 1]))
    verified = ringlog("log", "verify", kafka.data_dir)
    assert verified.returncode == 1
    assert log.name in verified.stdout + verified.stderr
    assert ringlog("log", "dump", kafka.data_dir, "--json", "--records").returncode == 1


def test_our_directory_after_a_clean_stop(own_broker):
    broker = own_broker()
    sent = fill(broker, "ours")
    broker.stop()
    check(dumped(broker.data_dir, "ours-0"), sent)
    verified = ringlog("log", "verify", broker.data_dir)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_our_directory_after_a_crash(own_broker):
    broker = own_broker()
    sent = fill(broker, "crashed")
    broker.kill()
    check(dumped(broker.data_dir, "crashed-0"), sent)
    verified = ringlog("log", "verify", broker.data_dir)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_what_is_no_directory():
    for command in ("dump", "verify"):
        done = ringlog("log", command, "/nonexistent/directory")
        assert done.returncode != 0
        assert len(done.stderr.strip().splitlines()) == 1 and "/nonexistent/directory" in done.stderr
