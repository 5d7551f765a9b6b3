"""A broker that is killed, stopped and started again: what was acknowledged is there, in order, byte for byte, once."""

import random
import struct
import threading
import time

import pytest
import wire
from conftest import (
    TIMEOUT_S, Deliveries, admin, consumer, create_topic, plain, produce_all, producer, read, unique_name, wait_for_topic,
    watermarks,
)
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.admin import ConfigResource, NewPartitions, ResourceType

PARTITIONS = 3
# A client asks again for what it knows when its broker is back, and would have a deleted topic made anew.
ONLY_ON_REQUEST = {"auto.create.topics.enable": "false"}


class Load:
    """Produces numbered records to every partition of a topic until told to end, through whatever happens to the broker."""

    def __init__(self, broker, topic, idempotent, codec="none"):
        self.topic = topic
        self.deliveries = Deliveries()
        # Without idempotence only one request in flight keeps the order when a request is sent again.
        self.client = producer(
            broker, acks="all", enable_idempotence=idempotent, max_in_flight=5 if idempotent else 1, compression_type=codec,
            message_timeout_ms=180_000, reconnect_backoff_max_ms=200, retry_backoff_ms=50, linger_ms=2,
            queue_buffering_max_messages=10_000,  # else what waits at the end takes a slow machine longer than anybody waits
        )
        self.ending = threading.Event()
        self.sent = {p: [] for p in range(PARTITIONS)}
        self.rng = random.Random(idempotent)
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        number = 0
        while not self.ending.is_set():
            partition = number % PARTITIONS
            value = b"%d " % number + self.rng.randbytes(self.rng.randrange(2000))
            try:
                self.client.produce(self.topic, value, partition=partition, on_delivery=self.deliveries)
            except BufferError:
                self.client.poll(0.05)
                continue
            self.sent[partition].append(value)
            number += 1
            self.client.poll(0 if number % 50 else 0.005)

    def end(self):
        self.ending.set()
        self.thread.join()
        assert self.client.flush(TIMEOUT_S) == 0
        assert self.deliveries.errors == []

    def acknowledged(self):
        return len(self.deliveries.reports)


class Follower:
    """Reads a topic while it is written, through whatever happens to the broker."""

    def __init__(self, broker, topic):
        self.client = consumer(broker, reconnect_backoff_max_ms=200, enable_partition_eof=False)
        self.client.assign([TopicPartition(topic, p, 0) for p in range(PARTITIONS)])
        self.seen = {p: [] for p in range(PARTITIONS)}
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.ending.is_set():
            for message in self.client.consume(500, 0.1):
                if message.error() is None:
                    self.seen[message.partition()].append((message.offset(), message.value()))

    def end(self):
        end = time.monotonic() + TIMEOUT_S
        while not all(self.seen.values()) and time.monotonic() < end:  # whoever follows may be far behind
            time.sleep(0.05)
        self.ending.set()
        self.thread.join()
        self.client.close()


def check(broker, topic, load, exactly_once):
    """Every acknowledged record lies at the offset that was acknowledged; the order is the sender's; offsets have no gap."""
    stored = {}
    for partition in range(PARTITIONS):
        messages = read(broker, topic, partition)
        assert [m.offset() for m in messages] == list(range(len(messages)))
        stored[partition] = [m.value() for m in messages]
    for message in load.deliveries.messages:
        assert stored[message.partition()][message.offset()] == message.value()
    for partition, sent in load.sent.items():
        if exactly_once:
            assert stored[partition] == sent
        else:
            assert list(dict.fromkeys(stored[partition])) == sent
    return stored


@pytest.mark.parametrize("idempotent, codec, config", [
    (True, "none", {}),
    (True, "lz4", {"segment_bytes": 1_048_576}),
    (True, "none", {"flush_messages": 1_000_000}),
    (False, "none", {}),
])
def test_kill_9_in_the_middle_of_a_load(own_broker, idempotent, codec, config):
    broker = own_broker()
    topic = create_topic(broker, unique_name("kill"), PARTITIONS, **config)
    load, follower = Load(broker, topic, idempotent, codec), Follower(broker, topic)
    try:
        for _ in range(3):
            before = load.acknowledged()
            end = time.monotonic() + 3 * TIMEOUT_S
            while load.acknowledged() < before + 3000:
                assert time.monotonic() < end, "nothing is acknowledged"
                time.sleep(0.01)
            broker.kill()
            broker.start()
    finally:
        load.end()
        follower.end()
    assert load.acknowledged() >= 9000
    stored = check(broker, topic, load, exactly_once=idempotent)
    # No consumer ever saw a record that was lost.
    for partition, seen in follower.seen.items():
        assert seen and all(stored[partition][offset] == value for offset, value in seen)
    broker.stop()
    broker.start()
    assert check(broker, topic, load, exactly_once=idempotent) == stored


def test_a_clean_restart_keeps_all(own_broker):
    broker = own_broker(ONLY_ON_REQUEST)
    topic = create_topic(broker, "kept", 2, retention_ms=123_456_789, segment_bytes=1_048_576)
    values = [random.Random(n).randbytes(3000) for n in range(1500)]
    produce_all(broker, topic, [{"partition": 0, "value": v, "headers": [("h", v[:5])]} for v in values])
    admin(broker).create_partitions([NewPartitions(topic, 4)])[topic].result(TIMEOUT_S)
    gone = create_topic(broker, "gone")
    admin(broker).delete_topics([gone])[gone].result(TIMEOUT_S)
    cut = TopicPartition(topic, 0, 700)
    admin(broker).delete_records([cut])[cut].result(TIMEOUT_S)
    before = [(m.offset(), plain(m), m.timestamp()) for m in read(broker, topic, offset=700)]
    cluster = admin(broker).describe_cluster().result(TIMEOUT_S).cluster_id
    assert len(before) == 800
    for _ in range(2):
        broker.stop()
        broker.start()
        assert watermarks(broker, topic) == (700, 1500)
        assert [(m.offset(), plain(m), m.timestamp()) for m in read(broker, topic, offset=700)] == before
        topics = admin(broker).list_topics(timeout=TIMEOUT_S).topics
        assert len(topics[topic].partitions) == 4 and "gone" not in topics
        resource = ConfigResource(ResourceType.TOPIC, topic)
        configs = admin(broker).describe_configs([resource])[resource].result(TIMEOUT_S)
        assert (configs["retention.ms"].value, configs["segment.bytes"].value) == ("123456789", "1048576")
        assert admin(broker).describe_cluster().result(TIMEOUT_S).cluster_id == cluster
    assert [m.offset() for m in produce_all(broker, topic, [{"partition": 0, "value": b"x"}])] == [1500]


@pytest.mark.parametrize("crash", [False, True])
def test_a_producers_state_survives(own_broker, crash):
    broker = own_broker()
    topic = create_topic(broker, "state")

    now = int(time.time() * 1000)  # a producer is forgotten when its last record is too old

    def send(sequence, epoch=3):
        data = wire.batch([b"a", b"b"], producer_id=7000, producer_epoch=epoch, sequence=sequence, timestamp=now)
        return wire.send_batch(broker, topic, data)

    assert [send(0), send(2), send(4)] == [(0, 0), (0, 2), (0, 4)]
    broker.kill() if crash else broker.stop()
    broker.start()
    assert send(4) == (0, 4), "a duplicate is known after the restart"
    assert send(8)[0] == 45
    assert send(6) == (0, 6)
    assert send(0, epoch=2)[0] == 47
    assert watermarks(broker, topic) == (0, 8)


@pytest.mark.parametrize("crash", [False, True])
def test_producer_ids_are_never_given_twice(own_broker, crash):
    broker = own_broker()

    def new_id():
        with wire.Connection(broker) as c:
            end = time.monotonic() + TIMEOUT_S
            while time.monotonic() < end:
                c.request(22, 0, 1, b"\xff\xff" + (60_000).to_bytes(4, "big"))
                answer = c.receive()
                if answer[8:10] == b"\0\0":
                    return int.from_bytes(answer[10:18], "big")
                time.sleep(0.1)  # Kafka's coordinator loads first
            raise AssertionError(answer)

    ids = [new_id() for _ in range(5)]
    broker.kill() if crash else broker.stop()
    broker.start()
    ids += [new_id() for _ in range(5)]
    assert len(set(ids)) == 10


def test_the_epoch_of_a_restart_is_known_before_its_first_record(own_broker):
    broker = own_broker()
    topic = create_topic(broker, "epochs")

    def ask(key, version, question):
        body = b"\xff\xff\xff\xff" + question[0] + struct.pack(">i", 1) + wire.string(topic) + struct.pack(">i", 1) + question[1]
        with wire.Connection(broker) as c:
            c.request(key, version, 1, body)
            return c.receive()[4 + 4 + 4 + 2 + len(topic) + 4:]

    def offset_at(timestamp):
        """ListOffsets: the offset and its leader epoch."""
        answer = ask(2, 4, (b"\0", struct.pack(">iiq", 0, -1, timestamp)))
        _, error, _, offset, epoch = struct.unpack(">ihqqi", answer)
        assert error == 0
        return offset, epoch

    def end_of(epoch):
        """OffsetForLeaderEpoch."""
        error, _, found, end = struct.unpack(">hiiq", ask(23, 3, (b"", struct.pack(">iii", 0, -1, epoch))))
        assert error == 0
        return found, end

    first = offset_at(-1)[1]
    assert (offset_at(-2), end_of(first)) == ((0, first), (first, 0)), "nothing was written yet"
    count = 100
    produce_all(broker, topic, [{"value": b"%d" % n} for n in range(count)])
    for crash in (True, True, False):
        broker.kill() if crash else broker.stop()
        broker.start()
        wait_for_topic(admin(broker), topic, 1)
        end, epoch = offset_at(-1)
        assert end == count and (epoch > first or not crash)
        assert (end_of(epoch), end_of(first), offset_at(-2)) == ((epoch, count), (first, count), (0, first))
        # A client that is there already asks whether its place is still good, and stays.
        client = consumer(broker, auto_offset_reset="earliest", enable_partition_eof=True)
        client.assign([TopicPartition(topic, 0, count, leader_epoch=epoch)])
        event = client.poll(TIMEOUT_S)
        assert event and event.error() and event.error().code() == KafkaError._PARTITION_EOF and event.offset() == count
        client.close()


def test_kill_9_right_after_admin_operations(own_broker):
    broker = own_broker(ONLY_ON_REQUEST)
    create_topic(broker, "first", 2)
    create_topic(broker, "second", 2, retention_ms=1_000_000)
    admin(broker).delete_topics(["first"])["first"].result(TIMEOUT_S)
    broker.kill()
    broker.start()
    topics = admin(broker).list_topics(timeout=TIMEOUT_S).topics
    assert "first" not in topics and len(topics["second"].partitions) == 2
    produce_all(broker, "second", [{"partition": 1, "value": b"x"}])
    assert watermarks(broker, "second", 1) == (0, 1)


@pytest.mark.long
def test_many_kills(own_broker):
    broker = own_broker()
    topic = create_topic(broker, unique_name("kills"), PARTITIONS, segment_bytes=1_048_576)
    load = Load(broker, topic, True)
    rng = random.Random(1)
    try:
        for _ in range(30):
            time.sleep(rng.random() * 2)
            broker.kill()
            broker.start()
    finally:
        load.end()
    check(broker, topic, load, exactly_once=True)
