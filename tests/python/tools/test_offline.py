"""`ringlog log dump`, `verify` and `repair` on directories that Kafka wrote, and on ours after a clean stop and after a crash."""

import base64
import json
import subprocess
import time

import harness
import pytest
from conftest import TIMEOUT_S, produce_all, read, unique_name
from crash import SETTINGS, Commands, Topic, wait_for_progress
from test_directories import dump, fill


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


def flip(path, position):
    with open(path, "r+b") as file:
        file.seek(position)
        byte = file.read(1)
        file.seek(position)
        file.write(bytes([byte[0] ^ 1]))


def repaired(directory):
    """A dry run, the repair, a second one; returns what the first said."""
    dry = ringlog("log", "repair", directory)
    assert dry.returncode == 1 and "nothing was changed" in dry.stdout, dry.stdout + dry.stderr
    done = ringlog("log", "repair", directory, "--execute")
    assert done.returncode == 0 and done.stdout.endswith("done\n"), done.stdout + done.stderr
    again = ringlog("log", "repair", directory, "--execute")
    assert again.returncode == 0 and "nothing to repair" in again.stdout, again.stdout
    verified = ringlog("log", "verify", directory)
    assert verified.returncode == 0, verified.stdout + verified.stderr
    return dry.stdout


def test_kafka_reads_what_was_repaired(kafka_directory):
    kafka, sent = kafka_directory
    folder = kafka.partition_dir("theirs", 0)
    logs = sorted(folder.glob("*.log"))
    flip(logs[1], 200)
    flip(logs[0], 5)
    logs[1].with_suffix(".index").write_bytes(b"odd")
    (folder / "leader-epoch-checkpoint").write_text("nonsense")
    said = repaired(kafka.data_dir)
    assert f"cut: {logs[1].name} position 0" in said and f"rebuild: {logs[1].with_suffix('.index').name}" in said
    for log in logs:
        printed = dump("--files", log)
        assert "isvalid: true" in printed and "isvalid: false" not in printed
        for suffix in (".index", ".timeindex"):
            checked = dump("--files", log.with_suffix(suffix), "--index-sanity-check")
            assert "passed sanity check" in checked, checked
    kafka.start()
    in_use = ringlog("log", "repair", kafka.data_dir)
    assert in_use.returncode == 1 and "is used by another process" in in_use.stderr, in_use.stderr
    offsets = [m.offset() for m in read(kafka, "theirs")]
    kafka.stop()
    lost = set(range(len(sent))) - set(offsets)
    assert offsets == sorted(offsets) and 0 < len(lost) < len(sent) / 2


def test_ringlog_goes_on_with_what_was_repaired(own_broker):
    broker = own_broker()
    sent = fill(broker, "ours")
    broker.stop()
    refused = ringlog("log", "repair", broker.data_dir)
    assert refused.returncode == 0, refused.stdout
    logs = sorted(broker.partition_dir("ours", 0).glob("*.log"))
    flip(logs[0], 200)
    flip(logs[-1], logs[-1].stat().st_size - 3)
    repaired(broker.data_dir)
    broker.start()
    in_use = ringlog("log", "repair", broker.data_dir)
    assert in_use.returncode == 1 and "stop it first" in in_use.stderr
    # Offsets that were given out are not given again. (And what lies behind a lost end is read once there is something.)
    assert [m.offset() for m in produce_all(broker, "ours", [{"value": b"next", "partition": 0}])] == [len(sent)]
    messages = read(broker, "ours")
    assert messages.pop().value() == b"next"
    offsets = [m.offset() for m in messages]
    assert offsets == sorted(set(offsets)) and 0 < len(offsets) < len(sent)
    for message in messages:
        assert message.value() == sent[message.offset()]["value"]
    # A consumer that had read to the damage goes on behind it.
    missing = min(set(range(len(sent))) - set(offsets))
    assert read(broker, "ours", offset=missing, count=1)[0].offset() == min(o for o in offsets if o > missing)


def test_a_journal_without_its_checkpoint(own_broker):
    broker = own_broker()
    sent = fill(broker, "crashed")
    broker.kill()
    for checkpoint in broker.data_dir.glob("ringlog-journal.*/checkpoint"):
        flip(checkpoint, 40)
    with pytest.raises(harness.BrokerError, match="log repair"):
        broker.start()
    said = ringlog("log", "repair", broker.data_dir, "--execute")
    assert said.returncode == 0 and "salvage" in said.stdout, said.stdout + said.stderr
    broker.start()
    assert [m.value() for m in read(broker, "crashed")] == [s["value"] for s in sent]


def test_a_live_directory_can_be_verified(own_broker):
    """Under load, with topics that come and go: whatever the moment, nothing sound is called damaged, and nothing is disturbed."""
    broker = own_broker(SETTINGS)
    topics = [Topic(broker, unique_name("live"), 2, n, n == 0, True) for n in range(2)]
    commands = Commands(broker, unique_name("come-and-go"))
    try:
        wait_for_progress(topics, 500)
        for _ in range(8):
            verified = ringlog("log", "verify", broker.data_dir)
            assert verified.returncode == 0, verified.stdout + verified.stderr
            wait_for_progress(topics, 300)
    finally:
        for thing in (*topics, commands):
            thing.pause()
    for thing in (*topics, commands):
        thing.check()
    # What is really wrong is said here, too.
    directory = broker.partition_dir(topics[0].name, 0)
    log = sorted(directory.glob("*.log"))[0]
    end = time.monotonic() + TIMEOUT_S
    while log.stat().st_size <= 100 or "in the journal" in ringlog("log", "verify", directory).stdout:
        # All of it is in the journal until it is written to its segment, and then what is done to the segment stays.
        assert time.monotonic() < end
        time.sleep(0.1)
    flip(log, 100)
    verified = ringlog("log", "verify", directory)
    assert verified.returncode == 1 and log.name in verified.stdout, verified.stdout


def test_what_is_no_directory():
    for command in ("dump", "verify", "repair"):
        done = ringlog("log", command, "/nonexistent/directory")
        assert done.returncode != 0
        assert len(done.stderr.strip().splitlines()) == 1 and "/nonexistent/directory" in done.stderr
