"""A broker that runs out of descriptors or memory, or has many, slow, or deaf clients: errors, no end of the process, bounded memory.
For Ringlog alone: what Kafka does there is its own."""

import os
import pathlib
import resource
import socket
import struct
import time

import harness
import pytest
import wire
from conftest import TIMEOUT_S, Deliveries, admin, create_topic, produce_all, producer, read, unique_name, watermarks
from confluent_kafka import KafkaError
from confluent_kafka.admin import NewTopic

pytestmark = pytest.mark.skipif(harness.broker_class() is not harness.Ringlog, reason="Kafka has its own limits")

MIB = 1 << 20


@pytest.fixture(autouse=True, scope="module")
def descriptors_for_clients():
    """The tests' own: as many as they may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class Limited(harness.Ringlog):
    """A broker with resource limits of its own (setrlimit(2): both soft and hard)."""

    def __init__(self, limits, settings=None, work_dir=None):
        super().__init__(settings, work_dir)
        self.limits = limits

    def command(self):
        # The limits are the child's alone: prlimit(1) sets them before it becomes the broker.
        return ["prlimit", *[f"--{name}={value}:{value}" for name, value in self.limits.items()], "--", *super().command()]


@pytest.fixture
def limited(request):
    brokers = []

    def start(limits, settings=None):
        brokers.append(Limited(limits, settings).start())
        return brokers[-1]

    yield start
    for broker in brokers:
        broker.remove()


def rss_bytes(broker):
    return int(pathlib.Path(f"/proc/{broker.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def descriptors(broker):
    return len(os.listdir(f"/proc/{broker.pid}/fd"))


def connect_all(broker, count, timeout_s=30):
    """As many connections as there can be, up to `count`; those that are refused or cut at once are not among them."""
    sockets = []
    for _ in range(count):
        try:
            sockets.append(socket.create_connection((harness.HOST, broker.port), timeout=timeout_s))
        except OSError:
            break
    return sockets


def close_all(sockets):
    for each in sockets:
        each.close()


def test_no_descriptor_is_left(limited):
    """Connections would take all descriptors there are: files have theirs all the same, and when the connections go, others are taken."""
    broker = limited({"nofile": 1024})
    topic = create_topic(broker, "before", 2)
    produce_all(broker, topic, [{"partition": n % 2, "value": b"%d" % n} for n in range(100)])
    first = wire.Connection(broker)
    sockets = connect_all(broker, 1200)
    end = time.monotonic() + TIMEOUT_S
    while "RLIMIT_NOFILE" not in broker.log_tail():
        assert broker.is_running() and time.monotonic() < end, broker.log_tail()
        time.sleep(0.1)
    # Connections from before are served, and what they ask for may open files.
    first.request(0, 7, 5, wire.produce(topic, wire.batch([b"x"]), 0))
    assert wire.produce_result(first.receive())[0] == 0
    create_topic(broker, "meanwhile", 20)
    first.request(0, 7, 6, wire.produce("meanwhile", wire.batch([b"y"]), 19))
    assert wire.produce_result(first.receive())[0] == 0
    close_all(sockets)
    end = time.monotonic() + TIMEOUT_S
    while not harness.answers(broker.port):
        assert time.monotonic() < end, f"no connection is taken any more\n{broker.log_tail()}"
        time.sleep(0.1)
    first.socket.close()
    create_topic(broker, "after", 2)
    assert len(read(broker, topic)) >= 50
    broker.stop()


def leave_memory(broker, left_bytes):
    """Bounds the broker's address space (RLIMIT_AS) to what it takes now and so much more."""
    now = int(pathlib.Path(f"/proc/{broker.pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(broker.pid, resource.RLIMIT_AS, (now + left_bytes, resource.RLIM_INFINITY))


def test_no_memory_is_left(own_broker):
    """An address space (RLIMIT_AS) that is all but full: what there is no memory for is refused or waits, the broker goes on, and what it
    acknowledged is there."""
    broker = own_broker()
    topic = create_topic(broker, "memory", 4, max_message_bytes=40 * MIB)
    produce_all(broker, topic, [{"partition": n % 4, "value": b"%d" % n} for n in range(100)])
    leave_memory(broker, 16 * MIB)
    client, deliveries = producer(broker, acks="all", message_timeout_ms=6000, queue_buffering_max_kbytes=400_000), Deliveries()
    for n in range(40):
        client.produce(topic, os.urandom(4 * MIB) + b"%d" % n, partition=n % 4, on_delivery=deliveries)
        client.poll(0)
    sockets = connect_all(broker, 200)
    client.flush(TIMEOUT_S)
    close_all(sockets)
    assert broker.is_running(), broker.log_tail()
    # What needs little goes on.
    produce_all(broker, topic, [{"partition": n % 4, "value": b"little"} for n in range(100)])
    for restart in (False, True):
        if restart:
            broker.kill()
            broker.start()
        for partition in range(4):
            stored = {m.offset(): m.value() for m in read(broker, topic, partition)}
            assert len(stored) >= 50
            assert all(stored[m.offset()] == m.value() for m in deliveries.messages if m.partition() == partition)


def test_reading_needs_next_to_no_memory(own_broker):
    """Batches of megabytes, on the disk alone, are served by a broker that gets no memory any more."""
    broker = own_broker({"ringlog.memory.bytes": 64 * MIB})
    topic = create_topic(broker, "large", 2, max_message_bytes=40 * MIB)
    values = {p: [os.urandom(size) for size in [100, 5 * MIB, 20 * MIB, 3 * MIB, 3 * MIB, 100]] for p in range(2)}
    produce_all(broker, topic, [{"partition": p, "value": value} for p in values for value in values[p]],
                message_max_bytes=50 * MIB)
    broker.stop()
    broker.start()
    produce_all(broker, topic, [{"partition": p, "value": b"little"} for p in values])
    leave_memory(broker, MIB)
    for partition in values:
        assert [m.value() for m in read(broker, topic, partition)] == [*values[partition], b"little"]


def test_a_batch_larger_than_the_memory_for_records_is_refused_at_once(own_broker):
    broker = own_broker({"ringlog.memory.bytes": 16 * MIB})
    topic = create_topic(broker, "larger", 1, max_message_bytes=40 * MIB)
    client, deliveries = producer(broker, message_max_bytes=50 * MIB), Deliveries()
    client.produce(topic, os.urandom(17 * MIB), on_delivery=deliveries)
    client.flush(TIMEOUT_S)
    assert deliveries.errors == [KafkaError.RECORD_LIST_TOO_LARGE]
    produce_all(broker, topic, [{"value": os.urandom(3 * MIB)} for _ in range(10)], message_max_bytes=50 * MIB)
    assert len(read(broker, topic)) == 10


def test_many_idle_connections_take_little(broker):
    before, count = rss_bytes(broker), 800
    sockets = connect_all(broker, count, TIMEOUT_S)
    assert len(sockets) == count
    for each in sockets[::2]:
        each.sendall(struct.pack(">ihhih", 10, 18, 0, 1, -1))
    for each in sockets[::2]:
        assert each.recv(4)
    took = rss_bytes(broker) - before
    close_all(sockets)
    assert took < count * 48 * 1024, f"{took} bytes for {count} idle connections"


def test_a_byte_a_second(broker, topic):
    """Slow clients in the middle of requests delay nobody, and their requests are served when they are whole."""
    name = topic()
    body = wire.header(0, 7, 9) + wire.produce(name, wire.batch([b"slow" * 2]))
    frame = struct.pack(">i", len(body)) + body
    slow = [wire.Connection(broker) for _ in range(50)]
    for at, connection in enumerate(slow):
        connection.send(frame[: 1 + at % 5])
    sent = [1 + at % 5 for at in range(len(slow))]
    for _ in range(3):
        time.sleep(1)
        for at, connection in enumerate(slow):
            connection.send(frame[sent[at]:sent[at] + 1])
            sent[at] += 1
        # The others are served meanwhile.
        produce_all(broker, name, [{"value": b"quick"}])
    for at, connection in enumerate(slow):
        for byte in frame[sent[at]:]:
            connection.send(bytes([byte]))
    for connection in slow:
        assert wire.produce_result(connection.receive())[0] == 0
        connection.socket.close()
    assert watermarks(broker, name) == (0, 53)


def test_clients_that_never_read_take_bounded_memory(broker, topic):
    """Fetches by the hundred whose answers nobody takes: each connection holds one answer's worth at most, and the others go on."""
    name = topic()
    produce_all(broker, name, [{"partition": 0, "value": os.urandom(100_000)} for _ in range(300)])
    before = rss_bytes(broker)
    fetch = struct.pack(">iiiib", -1, 100, 1, 10 * MIB, 0) + struct.pack(">i", 1) + wire.string(name) + struct.pack(
        ">iiqi", 1, 0, 0, 10 * MIB)
    deaf = []
    for _ in range(30):
        connection = wire.Connection(broker)
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.socket.setblocking(False)
        deaf.append(connection)
        body = wire.header(1, 4, 1) + fetch
        for _ in range(100):
            try:
                connection.socket.send(struct.pack(">i", len(body)) + body)
            except BlockingIOError:
                break
    time.sleep(2)
    took = rss_bytes(broker) - before
    # 3000 answers of 10 MiB were asked for.
    assert took < 400 * MIB, f"{took} bytes for clients that do not read"
    assert len(read(broker, name)) == 300
    for connection in deaf:
        connection.socket.close()


def more_partitions_than_descriptors(broker, topics, partitions, limit):
    names = [f"wide-{n}" for n in range(topics)]
    futures = admin(broker).create_topics([NewTopic(name, partitions, 1) for name in names], request_timeout=TIMEOUT_S)
    for future in futures.values():
        future.result(TIMEOUT_S)
    records = [{"partition": p, "value": b"%d" % p} for p in range(partitions)]
    for name in names:
        produce_all(broker, name, records)
    # What is idle is written to its segment file after five seconds: more files than descriptors.
    time.sleep(8)
    assert descriptors(broker) < limit
    for name in names[:2]:
        produce_all(broker, name, records)
    for crash in (True, False):
        broker.kill() if crash else broker.stop()
        broker.start()
        for partition in (0, partitions // 2, partitions - 1):
            assert [m.value() for m in read(broker, names[0], partition)] == [b"%d" % partition] * 2
            assert [m.value() for m in read(broker, names[-1], partition)] == [b"%d" % partition]
    broker.stop()


def test_more_partitions_than_descriptors(limited):
    more_partitions_than_descriptors(limited({"nofile": 1024}), 3, 400, 1024)


@pytest.mark.long
def test_ten_thousand_partitions_with_4096_descriptors(limited):
    more_partitions_than_descriptors(limited({"nofile": 4096}), 10, 1000, 4096)
