"""confluent-kafka (librdkafka): producing and consuming."""

import os
import random
import time

import pytest
from conftest import (
    TIMEOUT_S, Deliveries, admin, consumer, plain, produce_all, producer, read, unique_name, wait_for_topic, watermarks,
)
from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, KafkaError, TopicPartition

CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]


def test_delivery_reports_name_topic_partition_and_offset(broker, topic):
    name = topic(partitions=3)
    records = [{"partition": n % 3, "key": b"k%d" % n, "value": b"v%d" % n} for n in range(300)]
    delivered = produce_all(broker, name, records)
    for partition in range(3):
        mine = [m for m in delivered if m.partition() == partition]
        assert [m.offset() for m in mine] == list(range(100))
        assert all(m.topic() == name for m in mine)
        stored = read(broker, name, partition)
        assert [(m.offset(), plain(m)) for m in stored] == [(m.offset(), plain(m)) for m in mine]


def test_default_partitioner_spreads_by_key(broker, topic):
    name = topic(partitions=4)
    delivered = produce_all(broker, name, [{"key": b"key-%d" % (n % 40), "value": b"x"} for n in range(400)])
    by_key = {}
    for message in delivered:
        by_key.setdefault(message.key(), set()).add(message.partition())
    assert all(len(partitions) == 1 for partitions in by_key.values())
    assert len({next(iter(p)) for p in by_key.values()}) > 1


@pytest.mark.parametrize("codec", CODECS)
def test_keys_values_and_headers_byte_for_byte(broker, topic, codec):
    name = topic()
    odd = [
        {"key": None, "value": None},
        {"key": b"", "value": b""},
        {"key": None, "value": b"only a value"},
        {"key": b"only a key", "value": None},
        {"key": bytes(range(256)), "value": bytes(reversed(range(256)))},
        {"value": b"h", "headers": [("one", b"1"), ("one", b"again"), ("null", None), ("empty", b""), ("", b"no name")]},
        {"value": b"h", "headers": [("ünïcode-名", os.urandom(5000))]},
        {"value": b"h", "headers": [(f"n{n}", b"%d" % n) for n in range(300)]},
    ]
    produce_all(broker, name, odd, compression_type=codec)
    expected = [(r.get("key"), r["value"], r.get("headers")) for r in odd]
    assert [plain(m) for m in read(broker, name)] == expected


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("idempotent", [False, True])
def test_codecs_round_trip(broker, topic, codec, idempotent):
    name = topic()
    rng = random.Random(f"{codec}{idempotent}")
    values = [rng.randbytes(rng.randrange(0, 3000)) if n % 3 else b"squeeze me " * rng.randrange(300) for n in range(2000)]
    delivered = produce_all(
        broker, name, [{"value": v} for v in values], compression_type=codec, enable_idempotence=idempotent, linger_ms=20,
    )
    assert [m.offset() for m in delivered] == list(range(2000))
    stored = read(broker, name)
    assert [m.offset() for m in stored] == list(range(2000))
    assert [m.value() for m in stored] == values


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_acks(broker, topic, acks):
    name = topic()
    values = [b"%d" % n for n in range(500)]
    produce_all(broker, name, [{"value": v} for v in values], acks=acks)
    # With acks=0 the client has no word from the broker: read until all are there.
    assert [m.value() for m in read(broker, name, count=500)] == values
    assert watermarks(broker, name) == (0, 500)


@pytest.mark.parametrize("acks", ["0", "1", "all"])
def test_many_small_requests_in_flight(broker, topic, acks):
    name = topic()
    values = [b"%d" % n for n in range(3000)]
    produce_all(broker, name, [{"value": v} for v in values], acks=acks, batch_num_messages=1, linger_ms=0)
    assert [m.value() for m in read(broker, name, count=3000)] == values


def varint_size(value):
    value = (value << 1) ^ (value >> 63)
    size = 1
    while value > 127:
        value >>= 7
        size += 1
    return size


def batch_size(value_bytes):
    """Bytes of a batch of one record without key and headers: header, length, attributes, two deltas, key -1, value, headers."""
    record = 1 + 1 + 1 + 1 + varint_size(value_bytes) + value_bytes + 1
    return 61 + varint_size(record) + record


def value_for_batch(batch_bytes):
    value_bytes = batch_bytes - 61
    while batch_size(value_bytes) > batch_bytes:
        value_bytes -= 1
    assert batch_size(value_bytes) == batch_bytes
    return value_bytes


@pytest.mark.parametrize("limit", [1024, 1_048_588, 8_000_000])
def test_up_to_max_message_bytes_and_one_over(broker, topic, limit):
    name = topic(max_message_bytes=limit)
    fits = os.urandom(value_for_batch(limit))
    produce_all(broker, name, [{"value": fits}])
    client, deliveries = producer(broker), Deliveries()
    client.produce(name, os.urandom(len(fits) + 1), on_delivery=deliveries)
    assert client.flush(TIMEOUT_S) == 0
    assert deliveries.errors == [KafkaError.MSG_SIZE_TOO_LARGE]
    produce_all(broker, name, [{"value": b"after"}])
    assert [m.value() for m in read(broker, name)] == [fits, b"after"]


def test_a_record_larger_than_every_fetch_limit_is_returned_whole(broker, topic):
    name = topic(max_message_bytes=6_000_000)
    big = os.urandom(5_000_000)
    produce_all(broker, name, [{"value": b"before"}, {"value": big}, {"value": b"after"}], batch_num_messages=1)
    limits = {"fetch_message_max_bytes": 1000, "fetch_max_bytes": 1_000_000_000, "max_partition_fetch_bytes": 1000}
    assert [m.value() for m in read(broker, name, **limits)] == [b"before", big, b"after"]


def test_seek_by_offset_lands_inside_a_batch(broker, topic):
    name = topic()
    produce_all(broker, name, [{"value": b"%d" % n} for n in range(1000)], linger_ms=100)
    client = consumer(broker)
    try:
        client.assign([TopicPartition(name, 0, 0)])
        assert client.poll(TIMEOUT_S).value() == b"0"
        for offset in (1, 999, 500, 0, 123):
            client.seek(TopicPartition(name, 0, offset))
            message = client.poll(TIMEOUT_S)
            assert (message.offset(), message.value()) == (offset, b"%d" % offset)
    finally:
        client.close()


def test_logical_offsets_and_watermarks(broker, topic):
    name = topic()
    assert watermarks(broker, name) == (0, 0)
    produce_all(broker, name, [{"value": b"%d" % n} for n in range(10)])
    assert watermarks(broker, name) == (0, 10)
    assert [m.offset() for m in read(broker, name, offset=OFFSET_BEGINNING)] == list(range(10))
    assert read(broker, name, offset=OFFSET_END) == []
    assert [m.value() for m in read(broker, name, offset=7)] == [b"7", b"8", b"9"]


def test_an_offset_out_of_range_is_an_error(broker, topic):
    name = topic()
    produce_all(broker, name, [{"value": b"x"}])
    client = consumer(broker)
    try:
        client.assign([TopicPartition(name, 0, 100)])
        message = client.poll(TIMEOUT_S)
        assert message.error().code() == KafkaError._AUTO_OFFSET_RESET
        assert "out of range" in message.error().str().lower()
    finally:
        client.close()


def test_offsets_for_times(broker, topic):
    name = topic(partitions=2)
    base = int(time.time() * 1000) - 100_000
    produce_all(broker, name, [{"partition": 0, "value": b"%d" % n, "timestamp": base + 10 * n} for n in range(1000)], linger_ms=50)
    client = consumer(broker)

    def at(timestamp, partition=0):
        return client.offsets_for_times([TopicPartition(name, partition, timestamp)], timeout=TIMEOUT_S)[0].offset

    try:
        assert at(base - 1) == 0
        assert at(base) == 0
        assert at(base + 1) == 1
        assert at(base + 5000) == 500
        assert at(base + 5001) == 501
        assert at(base + 9990) == 999
        assert at(base + 9991) == OFFSET_END
        assert at(base, partition=1) == OFFSET_END
    finally:
        client.close()


def test_offsets_for_times_inside_a_compressed_batch(broker, topic):
    name = topic()
    base = int(time.time() * 1000) - 100_000
    records = [{"value": b"%d" % n, "timestamp": base + 10 * n} for n in range(100)]
    produce_all(broker, name, records, compression_type="zstd", linger_ms=100)
    client = consumer(broker)
    try:
        assert client.offsets_for_times([TopicPartition(name, 0, base + 455)], timeout=TIMEOUT_S)[0].offset == 46
    finally:
        client.close()


def test_timestamps_are_the_producers_or_the_brokers(broker, topic):
    create, append = topic(), topic(message_timestamp_type="LogAppendTime")
    before = int(time.time() * 1000)
    for name in (create, append):
        produce_all(broker, name, [{"value": b"x", "timestamp": 1_000_000 + before - 86_400_000} for _ in range(3)], compression_type="gzip")
    assert [m.timestamp() for m in read(broker, create)] == [(TIMESTAMP_CREATE_TIME, 1_000_000 + before - 86_400_000)] * 3
    for message in read(broker, append):
        kind, stamp = message.timestamp()
        assert kind == TIMESTAMP_LOG_APPEND_TIME
        assert before - 1000 <= stamp <= int(time.time() * 1000) + 1000


def test_timestamps_out_of_range_are_refused(broker, topic):
    name = topic(message_timestamp_before_max_ms=60_000, message_timestamp_after_max_ms=60_000)
    now = int(time.time() * 1000)
    client, deliveries = producer(broker), Deliveries()
    for stamp in (now - 600_000, now + 600_000):
        client.produce(name, b"x", timestamp=stamp, on_delivery=deliveries)
        assert client.flush(TIMEOUT_S) == 0
    assert deliveries.errors == [KafkaError.INVALID_TIMESTAMP] * 2
    produce_all(broker, name, [{"value": b"x", "timestamp": int(time.time() * 1000)}])
    assert watermarks(broker, name) == (0, 1)


def test_a_waiting_consumer_gets_what_arrives(broker, topic):
    name = topic()
    client = consumer(broker, fetch_wait_max_ms=50_000, enable_partition_eof=False)
    try:
        client.assign([TopicPartition(name, 0, 0)])
        for n in range(20):
            assert client.poll(0.2) is None
            produce_all(broker, name, [{"value": b"%d" % n}])
            message = client.poll(30)  # well below the wait it asked for: the arrival must end it
            assert message is not None, "the fetch was not ended by the record"
            assert message.value() == b"%d" % n
    finally:
        client.close()


def test_one_consumer_of_many_partitions(broker, topic):
    name = topic(partitions=20)
    produce_all(broker, name, [{"partition": n % 20, "value": b"%d" % n} for n in range(2000)])
    client = consumer(broker)
    try:
        client.assign([TopicPartition(name, p, 0) for p in range(20)])
        seen, ended = {p: [] for p in range(20)}, set()
        while len(ended) < 20:
            message = client.poll(TIMEOUT_S)
            assert message is not None
            if message.error() is not None:
                assert message.error().code() == KafkaError._PARTITION_EOF
                ended.add(message.partition())
            else:
                seen[message.partition()].append(int(message.value()))
    finally:
        client.close()
    assert seen == {p: list(range(p, 2000, 20)) for p in range(20)}


def test_many_topics_at_once(broker):
    from confluent_kafka.admin import NewTopic

    names = [unique_name("many") for _ in range(150)]
    for future in admin(broker).create_topics([NewTopic(n, 2, 1) for n in names]).values():
        future.result(TIMEOUT_S)
    wait_for_topic(admin(broker), names[-1], 2)
    client, deliveries = producer(broker), Deliveries()
    for n in range(10):
        for name in names:
            client.produce(name, b"%s %d" % (name.encode(), n), partition=n % 2, on_delivery=deliveries)
    assert client.flush(TIMEOUT_S) == 0
    assert deliveries.errors == [] and len(deliveries.messages) == 1500
    reader = consumer(broker)
    try:
        reader.assign([TopicPartition(name, p, 0) for name in names for p in range(2)])
        seen, ended = {}, 0
        while ended < 300:
            message = reader.poll(TIMEOUT_S)
            assert message is not None
            if message.error() is not None:
                ended += 1
            else:
                seen.setdefault((message.topic(), message.partition()), []).append(message.value())
    finally:
        reader.close()
    assert seen == {(name, p): [b"%s %d" % (name.encode(), n) for n in range(p, 10, 2)] for name in names for p in range(2)}


def test_auto_creation(broker):
    name = unique_name("auto")
    delivered = produce_all(broker, name, [{"value": b"%d" % n} for n in range(10)])
    assert {m.topic() for m in delivered} == {name}
    assert name in admin(broker).list_topics(timeout=TIMEOUT_S).topics


def test_without_auto_creation_an_unknown_topic_is_an_error(own_broker):
    broker = own_broker({"auto.create.topics.enable": "false"})
    client, deliveries = producer(broker, topic_metadata_propagation_max_ms=0), Deliveries()
    client.produce("nowhere", b"x", on_delivery=deliveries)
    assert client.flush(TIMEOUT_S) == 0
    assert deliveries.errors in ([KafkaError._UNKNOWN_TOPIC], [KafkaError.UNKNOWN_TOPIC_OR_PART])
    assert "nowhere" not in admin(broker).list_topics(timeout=TIMEOUT_S).topics


def test_an_unknown_partition_is_an_error(broker, topic):
    client, deliveries = producer(broker, topic_metadata_propagation_max_ms=0), Deliveries()
    client.produce(topic(partitions=2), b"x", partition=7, on_delivery=deliveries)
    assert client.flush(TIMEOUT_S) == 0
    assert deliveries.errors == [KafkaError._UNKNOWN_PARTITION]


def test_min_insync_replicas_asks_for_no_more_than_there_can_be(broker, topic):
    # Kafka bounds the setting by the number of replicas (KAFKA-15583), so one replica can always take acks=all.
    name = topic(min_insync_replicas=2)
    produce_all(broker, name, [{"value": b"x"}], acks="all")
    assert [m.value() for m in read(broker, name)] == [b"x"]


def test_many_producers_into_one_partition(broker, topic):
    name = topic()
    clients = [producer(broker, enable_idempotence=n % 2 == 0, linger_ms=1) for n in range(10)]
    deliveries = [Deliveries() for _ in clients]
    for n in range(200):
        for number, client in enumerate(clients):
            client.produce(name, b"%d" % n, key=b"%d" % number, on_delivery=deliveries[number])
            client.poll(0)
    for client in clients:
        assert client.flush(TIMEOUT_S) == 0
    stored = read(broker, name)
    assert [m.offset() for m in stored] == list(range(2000))
    at = {m.offset(): plain(m) for m in stored}
    for number, one in enumerate(deliveries):
        assert one.errors == []
        mine = [m.value() for m in stored if m.key() == b"%d" % number]
        assert mine == [b"%d" % n for n in range(200)]
        assert all(at[m.offset()] == plain(m) for m in one.messages)


def test_small_segments_roll_and_are_read_across(broker, topic):
    name = topic(segment_bytes=1_048_576)
    rng = random.Random(5)
    values = [rng.randbytes(10_000) for _ in range(800)]
    produce_all(broker, name, [{"value": v} for v in values])
    assert [m.value() for m in read(broker, name)] == values
    assert [m.value() for m in read(broker, name, offset=555)] == values[555:]
    end = time.monotonic() + TIMEOUT_S
    while len(logs := list(broker.partition_dir(name, 0).glob("*.log"))) < 7:  # a segment has a file once some of it is written there
        assert time.monotonic() < end, logs
        time.sleep(0.1)
