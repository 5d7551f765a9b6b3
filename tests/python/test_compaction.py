"""Compacted topics: the last value of each key stays, at its offset, whatever the broker goes through meanwhile."""

import random
import struct
import threading
import time

import pytest
from conftest import TIMEOUT_S, admin, consumer, create_topic, produce_all, producer, read, watermarks
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

SETTINGS = {"log.cleaner.backoff.ms": 100}
COMPACTED = {"cleanup_policy": "compact", "segment_bytes": 1_048_576, "min_cleanable_dirty_ratio": 0.01}
CODECS = ["none", "gzip", "snappy", "zstd"]
KEYS = 300


def clean_point(broker, topic, partition=0):
    """How far the partition is compacted, as the checkpoint of the data directory says."""
    try:
        lines = (broker.data_dir / "cleaner-offset-checkpoint").read_text().splitlines()[2:]
    except FileNotFoundError:
        return 0
    points = {(t, int(p)): int(offset) for t, p, offset in (line.rsplit(" ", 2) for line in lines)}
    return points.get((topic, partition), 0)


def newest_on_disk(broker, topic):
    """The first offset of the newest segment that has a file, and the offset after the last that is in it."""
    path = max(broker.partition_dir(topic, 0).glob("*.log"), key=lambda log: int(log.stem))
    data, at, base = path.read_bytes(), 0, int(path.stem)
    after = base
    while at + 27 <= len(data):
        first, length, last_delta = *struct.unpack_from(">qi", data, at), *struct.unpack_from(">i", data, at + 23)
        if length <= 0 or at + 12 + length > len(data):
            break
        after, at = first + last_delta + 1, at + 12 + length
    return base, after


def wait_until_compacted(broker, topic):
    """Until all but the active segment is. A segment has a file from its first flush on: only with the last record on the disk the newest
    file is the active segment's, and no other one will be compacted while somebody looks."""
    end, log_end = time.monotonic() + TIMEOUT_S, watermarks(broker, topic)[1]
    while True:
        active, on_disk = newest_on_disk(broker, topic)
        if on_disk == log_end and clean_point(broker, topic) >= active > 0:
            return active
        assert time.monotonic() < end, (clean_point(broker, topic), active, on_disk, log_end, broker.log_tail())
        time.sleep(0.2)


def fill(broker, topic, rounds, sent, seed=0, idempotent=True):
    """Writes every key a few times, each round with another codec; adds (offset, key, value) to `sent`. None is a tombstone."""
    rng = random.Random(seed)
    for round_ in range(rounds):
        keys = [b"key %d" % n for n in range(KEYS)]
        rng.shuffle(keys)
        records = [
            {"key": key, "value": None if rng.random() < 0.1 else 3 * rng.randbytes(rng.randrange(1, 1500)), "headers": [("n", key)]}
            for key in keys
        ]
        messages = produce_all(
            broker, topic, records, compression_type=CODECS[round_ % len(CODECS)], enable_idempotence=idempotent and round_ % 2 == 0,
            batch_num_messages=20,
        )
        sent += [(m.offset(), m.key(), m.value()) for m in messages]


def found(broker, topic, offset=0):
    messages = read(broker, topic, offset=offset)
    assert all(m.headers() == [("n", m.key())] for m in messages)
    return [(m.offset(), m.key(), m.value()) for m in messages]


def check(sent, found, active):
    """What is there was sent, offsets and all; of each key the last; below the active segment, nothing that is superseded."""
    assert [offset for offset, _, _ in found] == sorted(offset for offset, _, _ in found)
    assert set(found) <= set(sent)
    last = {}
    for offset, key, _ in sorted(sent):
        last[key] = offset
    assert set(last.values()) <= {offset for offset, _, _ in found}
    below = [(offset, key) for offset, key, _ in found if offset < active]
    newest = {}
    for offset, key, _ in sorted(sent):
        if offset < active:
            newest[key] = offset
    assert below == sorted((offset, key) for key, offset in newest.items())


def test_the_last_value_of_each_key_stays(own_broker):
    broker = own_broker(SETTINGS)
    create_topic(broker, "compacted", **COMPACTED)
    sent = []
    fill(broker, "compacted", 12, sent)
    active = wait_until_compacted(broker, "compacted")
    there = found(broker, "compacted")
    check(sent, there, active)
    assert len(there) < len(sent) / 2
    assert watermarks(broker, "compacted") == (0, len(sent))
    # Whoever asks for an offset that is gone gets what follows it.
    offsets = [offset for offset, _, _ in there]
    gone = next(offset for offset in range(len(sent)) if offset not in set(offsets))
    assert found(broker, "compacted", offset=gone) == [record for record in there if record[0] >= gone]
    broker.stop()
    left = [file.name for file in broker.partition_dir("compacted", 0).iterdir() if file.suffix in (".cleaned", ".swap", ".deleted")]
    assert left == []
    broker.start()
    assert found(broker, "compacted") == there
    # It goes on: more of the same keys, another cleaning, and a crash.
    fill(broker, "compacted", 8, sent, seed=1)
    wait_until_compacted(broker, "compacted")
    broker.kill()
    broker.start()
    active = wait_until_compacted(broker, "compacted")
    check(sent, found(broker, "compacted"), active)


def test_kills_while_it_compacts_lose_nothing(own_broker):
    broker = own_broker({**SETTINGS, "log.cleaner.io.max.bytes.per.second": 8_000_000})
    create_topic(broker, "killed", **COMPACTED)
    sent, rng = [], random.Random(5)
    for seed in range(4):
        fill(broker, "killed", 4, sent, seed)
        time.sleep(rng.random())
        broker.kill()
        broker.start()
        last = {key: (offset, value) for offset, key, value in sorted(sent)}
        there = {key: (offset, value) for offset, key, value in found(broker, "killed")}
        assert there == last
    active = wait_until_compacted(broker, "killed")
    check(sent, found(broker, "killed"), active)


def test_a_consumer_in_the_middle_sees_nothing_odd(own_broker):
    broker = own_broker(SETTINGS)
    create_topic(broker, "followed", **COMPACTED)
    seen, failed, ending = [], [], threading.Event()

    def follow():
        try:
            client = consumer(broker, fetch_message_max_bytes=50_000)
            client.assign([TopicPartition("followed", 0, 0)])
            while not ending.is_set():
                message = client.poll(0.1)
                if message is None or (message.error() and message.error().code() == KafkaError._PARTITION_EOF):
                    continue
                assert message.error() is None, message.error()
                seen.append((message.offset(), message.key(), message.value()))
                if len(seen) % 100 == 0:
                    time.sleep(0.02)  # behind, so that compaction overtakes it
            client.close()
        except BaseException as e:  # noqa: BLE001
            failed.append(e)

    thread = threading.Thread(target=follow)
    thread.start()
    sent = []
    for seed in range(4):
        fill(broker, "followed", 4, sent, seed)
        wait_until_compacted(broker, "followed")
    end = time.monotonic() + TIMEOUT_S
    while not failed and not (seen and seen[-1][0] == len(sent) - 1):
        assert time.monotonic() < end
        time.sleep(0.05)
    ending.set()
    thread.join()
    assert failed == []
    offsets = [offset for offset, _, _ in seen]
    assert offsets == sorted(set(offsets))
    assert set(seen) <= set(sent)
    assert {key: value for _, key, value in seen} == {key: value for _, key, value in sorted(sent)}


def test_a_record_without_a_key_is_refused(broker, topic):
    name = topic(cleanup_policy="compact")
    client, errors = producer(broker), []
    client.produce(name, b"no key", on_delivery=lambda error, _: errors.append(error and error.code()))
    client.produce(name, b"a key", key=b"k", on_delivery=lambda error, _: errors.append(error and error.code()))
    assert client.flush(TIMEOUT_S) == 0
    assert KafkaError.INVALID_RECORD in errors


@pytest.mark.parametrize("policy", ["compact,delete", "compact"])
def test_records_are_deleted_below_an_offset(own_broker, policy):
    broker = own_broker(SETTINGS)
    create_topic(broker, "cut", **{**COMPACTED, "cleanup_policy": policy})
    sent = []
    fill(broker, "cut", 8, sent)
    wait_until_compacted(broker, "cut")
    cut = TopicPartition("cut", 0, 1500)
    admin(broker).delete_records([cut])[cut].result(TIMEOUT_S)
    there = found(broker, "cut", offset=1500)
    assert watermarks(broker, "cut") == (1500, len(sent))
    fill(broker, "cut", 6, sent, seed=3)
    active = wait_until_compacted(broker, "cut")
    assert there != found(broker, "cut", offset=1500)
    check([r for r in sent if r[0] >= 1500], found(broker, "cut", offset=1500), active)


HOUR_MS = 3_600_000


def fill_at(broker, topic, count, timestamp_ms, sent):
    """Writes records of a few keys and of this time, about a megabyte for each 50 of them."""
    rng = random.Random(count)
    records = [{"key": b"key %d" % (n % 7), "value": rng.randbytes(20_000), "timestamp": timestamp_ms} for n in range(count)]
    messages = produce_all(broker, topic, records, batch_num_messages=5)
    sent += [(m.offset(), m.key(), m.value()) for m in messages]


def segments(broker, topic):
    """The base offsets of those that are on the disk."""
    return sorted(int(log.stem) for log in broker.partition_dir(topic, 0).glob("*.log"))


def wait_until_clean_to(broker, topic, offset):
    end = time.monotonic() + TIMEOUT_S
    while clean_point(broker, topic) < offset:
        assert time.monotonic() < end, (clean_point(broker, topic), offset, broker.log_tail())
        time.sleep(0.05)


def stored(broker, topic):
    return [(m.offset(), m.key(), m.value()) for m in read(broker, topic)]


def set_config(broker, topic, name, value):
    entry = ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin(broker).incremental_alter_configs([resource])[resource].result(TIMEOUT_S)


def test_records_younger_than_the_min_lag_are_left_alone(own_broker):
    """What counts is what producers say of the time, and of a segment its newest record (KIP-58)."""
    broker = own_broker(SETTINGS)
    create_topic(broker, "young", **COMPACTED, min_compaction_lag_ms=HOUR_MS)
    sent, now_ms = [], int(time.time() * 1000)
    fill_at(broker, "young", 200, now_ms - 2 * HOUR_MS, sent)
    fill_at(broker, "young", 150, now_ms, sent)
    # The segment in which the first young record is, and all behind it.
    end = time.monotonic() + TIMEOUT_S
    while segments(broker, "young")[-1] < 300:
        assert time.monotonic() < end, segments(broker, "young")
        time.sleep(0.05)
    first_left_alone = max(base for base in segments(broker, "young") if base <= 200)
    wait_until_clean_to(broker, "young", first_left_alone)
    time.sleep(1)  # ten times the backoff
    assert clean_point(broker, "young") == first_left_alone
    there = stored(broker, "young")
    check([record for record in sent if record[0] < first_left_alone], [r for r in there if r[0] < first_left_alone], first_left_alone)
    assert [r for r in there if r[0] >= first_left_alone] == [r for r in sent if r[0] >= first_left_alone]
    set_config(broker, "young", "min.compaction.lag.ms", 0)
    active = wait_until_compacted(broker, "young")
    check(sent, stored(broker, "young"), active)


def test_the_max_lag_forces_a_cleaning_though_the_ratio_is_low(own_broker):
    """By the ratio this log would never be cleaned (KIP-354)."""
    broker = own_broker(SETTINGS)
    never = {**COMPACTED, "min_cleanable_dirty_ratio": 1.0, "max_compaction_lag_ms": HOUR_MS}
    sent, old, now_ms = [], [], int(time.time() * 1000)
    create_topic(broker, "new", **never)
    create_topic(broker, "old", **never)
    fill_at(broker, "new", 200, now_ms, sent)
    fill_at(broker, "old", 200, now_ms - 2 * HOUR_MS, old)
    active = wait_until_compacted(broker, "old")
    check(old, stored(broker, "old"), active)
    time.sleep(1)
    assert clean_point(broker, "new") == 0 and stored(broker, "new") == sent
    # A second old, all of it: the segment that is written to is sealed with the next record.
    set_config(broker, "new", "max.compaction.lag.ms", 1000)
    time.sleep(1.1)
    fill_at(broker, "new", 1, int(time.time() * 1000), sent)
    wait_until_clean_to(broker, "new", 200)
    check(sent, stored(broker, "new"), 200)
