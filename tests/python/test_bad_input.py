"""What no sane client sends: each gets Kafka's error code or a closed connection, and the broker serves on."""

import os
import random
import struct
import time

import pytest
import wire
from conftest import create_topic, produce_all, read, watermarks
from wire import Connection

CORRUPT_MESSAGE, UNKNOWN_TOPIC, INVALID_ACKS, UNSUPPORTED_VERSION, INVALID_RECORD = 2, 3, 21, 35, 87
OUT_OF_ORDER, INVALID_EPOCH = 45, 47


@pytest.fixture(autouse=True)
def still_serves(broker, topic):
    """After each of these the broker takes and gives records as before."""
    yield
    assert broker.is_running()
    name = topic()
    produce_all(broker, name, [{"value": b"still here"}])
    assert [m.value() for m in read(broker, name)] == [b"still here"]


def test_a_frame_over_the_limit_is_closed(broker):
    for size in (20_000_001, 2**31 - 1):
        with Connection(broker) as c:
            c.send(struct.pack(">i", size) + b"x" * 100)
            assert c.is_closed_by_peer()


@pytest.mark.parametrize("size", [-1, -(2**31), 0, 1, 3, 7])
def test_impossible_frame_lengths_are_closed(broker, size):
    with Connection(broker) as c:
        c.send(struct.pack(">i", size) + b"\0" * max(size, 0))
        assert c.is_closed_by_peer()


@pytest.mark.parametrize("seed", range(20))
def test_garbage_is_closed(broker, seed):
    rng = random.Random(seed)
    with Connection(broker) as c:
        body = rng.randbytes(rng.choice([8, 30, 1000]))
        # A key that no API has, so that nothing valid can come out by chance.
        c.frame(struct.pack(">h", rng.choice([-1, 500, 32767])) + body)
        assert c.is_closed_by_peer()


def test_http_and_tls_are_closed(broker):
    for hello in (b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n", bytes.fromhex("16030100f8010000f40303") + os.urandom(237)):
        with Connection(broker) as c:
            c.send(hello)
            assert c.is_closed_by_peer()


@pytest.mark.parametrize("key", [-1, 93, 200, 9999, 32767])
def test_an_unknown_api_is_closed(broker, key):
    with Connection(broker) as c:
        c.request(key, 0, 1)
        assert c.is_closed_by_peer()


@pytest.mark.parametrize("key, version", [(3, 99), (1, 1), (1, 99), (0, 99), (2, 0), (19, 77), (0, -1)])
def test_an_unknown_version_is_closed(broker, key, version):
    with Connection(broker) as c:
        c.request(key, version, 1, b"\0" * 20)
        assert c.is_closed_by_peer()


@pytest.mark.parametrize("version", [5, 99, 32767])
def test_api_versions_of_the_future_are_answered_in_v0(broker, version):
    with Connection(broker) as c:
        c.request(18, version, 77, b"\0\x05abcd\x05efgh\0")
        answer = c.receive()
        assert answer is not None
        correlation, error, count = struct.unpack_from(">ihi", answer)
        assert (correlation, error) == (77, UNSUPPORTED_VERSION)
        ranges = [struct.unpack_from(">hhh", answer, 10 + 6 * n) for n in range(count)]
        assert len(answer) == 10 + 6 * count
        assert (18, 0) in [(key, low) for key, low, _ in ranges]
        # The connection lives: the client asks again with what it was told.
        c.request(18, 0, 78)
        assert struct.unpack_from(">ih", c.receive()) == (78, 0)


@pytest.mark.parametrize("version", [0, 1, 2, 3, 4])
def test_api_versions_at_every_version(broker, version):
    with Connection(broker) as c:
        c.request(18, version, 9, b"\x05name\x041.0\0" if version >= 3 else b"", flexible=version >= 3)
        assert struct.unpack_from(">ih", c.receive()) == (9, 0)


def test_truncated_bodies_are_closed(broker):
    # Metadata v1 says 2^31-1 topics and brings none; Fetch v4 ends in the middle; CreateTopics v2 claims a million topics.
    for key, version, body in (
        (3, 1, struct.pack(">i", 2**31 - 1)), (1, 4, b"\0" * 10), (19, 2, struct.pack(">i", 1_000_000)), (3, 9, b"\xff\xff\xff\xff\x0f"),
    ):
        with Connection(broker) as c:
            c.request(key, version, 1, body, flexible=version >= 9 and key == 3)
            assert c.is_closed_by_peer()


def test_half_a_frame_then_silence_or_close(broker):
    for piece in (b"\0", b"\0\0\0", struct.pack(">i", 1000) + b"half of it"):
        with Connection(broker) as c:
            c.send(piece)
    with Connection(broker) as c:
        c.send(struct.pack(">i", 1000) + b"half of it")
        time.sleep(0.2)  # another connection is served meanwhile
        with Connection(broker) as other:
            other.request(18, 0, 1)
            assert other.receive() is not None


def test_a_frame_byte_by_byte(broker):
    with Connection(broker) as c:
        body = wire.header(18, 0, 3)
        for byte in struct.pack(">i", len(body)) + body:
            c.send(bytes([byte]))
        assert struct.unpack_from(">ih", c.receive()) == (3, 0)


def test_pipelined_requests_are_answered_in_order(broker, topic):
    name = topic()
    with Connection(broker) as c:
        data = b""
        for n in range(200):
            body = wire.header(18, 0, n) if n % 2 else wire.header(0, 7, n) + wire.produce(name, wire.batch([b"%d" % n]))
            data += struct.pack(">i", len(body)) + body
        c.send(data)
        assert [struct.unpack_from(">i", c.receive())[0] for _ in range(200)] == list(range(200))
    assert watermarks(broker, name) == (0, 100)


@pytest.mark.parametrize("version", [0, 1, 2])
def test_produce_of_old_versions_stores_nothing(broker, topic, version):
    name = topic()
    with Connection(broker) as c:
        c.request(0, version, 1, wire.produce(name, wire.batch())[2:])
        answer = c.receive()
        # Advertised for old clients' sake, never served: an error in the body, or a closed connection.
        assert answer is None or b"\0\x23" in answer or b"\0\x4c" in answer or b"\0\x57" in answer
    assert watermarks(broker, name) == (0, 0)


GOOD = wire.batch([b"a", b"b"])


BAD_BATCHES = [
    ("a wrong CRC", wire.batch([b"a"], crc=12345), [CORRUPT_MESSAGE]),
    ("a flipped bit in a value", GOOD[:-2] + bytes([GOOD[-2] ^ 1]) + GOOD[-1:], [CORRUPT_MESSAGE]),
    ("a length beyond the data", wire.batch([b"a"], length=5000), [CORRUPT_MESSAGE, INVALID_RECORD]),
    ("a length below the header", wire.batch([b"a"], length=10), [CORRUPT_MESSAGE, INVALID_RECORD]),
    ("a negative length", wire.batch([b"a"], length=-5), [CORRUPT_MESSAGE, INVALID_RECORD]),
    ("magic 3", wire.batch([b"a"], magic=3), [CORRUPT_MESSAGE, INVALID_RECORD, UNSUPPORTED_VERSION]),
    ("magic 1", wire.batch([b"a"], magic=1), [CORRUPT_MESSAGE, INVALID_RECORD, UNSUPPORTED_VERSION]),
    ("two batches", wire.batch([b"a"]) + wire.batch([b"b"], base_offset=1), [INVALID_RECORD]),
    ("a base offset", wire.batch([b"a"], base_offset=7), [INVALID_RECORD]),
    ("a count above what is there", wire.batch([b"a"], count=5, last_delta=4), [INVALID_RECORD]),
    ("a count against the last offset", wire.batch([b"a", b"b"], last_delta=7), [INVALID_RECORD]),
    ("a negative count", wire.batch([b"a"], count=-1), [INVALID_RECORD, CORRUPT_MESSAGE]),
    ("a control batch", wire.batch([b"a"], attributes=0x20), [INVALID_RECORD]),
    ("no batch", b"", [INVALID_RECORD]),
    ("half a header", GOOD[:40], [CORRUPT_MESSAGE, INVALID_RECORD]),
    ("an unknown codec", wire.batch([b"a"], attributes=7), [INVALID_RECORD, CORRUPT_MESSAGE, 76, -1]),
]


# By name: what they hold is of this moment, and several processes have to mean the same test by an id.
@pytest.mark.parametrize("what, data, errors", BAD_BATCHES, ids=[what for what, _, _ in BAD_BATCHES])
def test_bad_batches(broker, topic, what, data, errors):
    name = topic()
    with Connection(broker) as c:
        c.request(0, 7, 5, wire.produce(name, data))
        answer = c.receive()
    assert answer is not None, "the connection was closed"
    error, offset = wire.produce_result(answer)
    assert error in errors, f"{what}: error {error}"
    assert offset == -1
    assert watermarks(broker, name) == (0, 0)
    assert wire.send_batch(broker, name, GOOD) == (0, 0)
    assert [m.value() for m in read(broker, name)] == [b"a", b"b"]


def test_null_records_store_nothing(broker, topic):
    name = topic()
    with Connection(broker, timeout_s=2) as c:
        c.request(0, 7, 5, wire.produce(name, None))
        try:
            answer = c.receive()
            assert answer is None or wire.produce_result(answer)[0] != 0
        except TimeoutError:
            pass  # Kafka forgets to answer
    assert watermarks(broker, name) == (0, 0)


def test_one_bad_partition_does_not_spoil_the_others(broker, topic):
    good, bad = topic(), topic()
    with Connection(broker) as c:
        c.request(0, 7, 5, wire.produce(None, [(good, 0, GOOD), (bad, 0, wire.batch(crc=1)), ("no-such-topic!", 0, GOOD)]))
        assert c.receive() is not None
    assert watermarks(broker, good) == (0, 2)
    assert watermarks(broker, bad) == (0, 0)


def test_acks_that_do_not_exist(broker, topic):
    assert wire.send_batch(broker, topic(), GOOD, acks=2)[0] == INVALID_ACKS
    assert wire.send_batch(broker, topic(), GOOD, acks=-2)[0] == INVALID_ACKS


def test_unknown_topics_and_partitions(broker, topic):
    assert wire.send_batch(broker, topic(), GOOD, partition=5)[0] == UNKNOWN_TOPIC
    assert wire.send_batch(broker, topic(), GOOD, partition=-1)[0] == UNKNOWN_TOPIC
    assert wire.send_batch(broker, "never-created", GOOD)[0] == UNKNOWN_TOPIC


def test_with_acks_0_an_error_closes_the_connection(broker, topic):
    with Connection(broker) as c:
        c.request(0, 7, 5, wire.produce(topic(), wire.batch(crc=1), acks=0))
        assert c.is_closed_by_peer()


def test_duplicates_gaps_and_old_epochs_of_a_producer(broker, topic):
    name = topic()

    def send(sequence, epoch=0, values=(b"a", b"b"), producer=4000):
        return wire.send_batch(broker, name, wire.batch(values, producer_id=producer, producer_epoch=epoch, sequence=sequence))

    assert send(0) == (0, 0)
    assert send(2) == (0, 2)
    assert send(0) == (0, 0), "an exact duplicate is acknowledged with its first offset"
    assert send(2) == (0, 2)
    assert send(7)[0] == OUT_OF_ORDER
    assert send(3)[0] == OUT_OF_ORDER
    for n in range(2, 8):
        assert send(2 * n) == (0, 2 * n)
    assert send(6) == (0, 6), "still among the last five"
    assert send(0)[0] in (OUT_OF_ORDER, 46), "no longer among the last five"
    assert send(0, epoch=1) == (0, 16)
    assert send(16, epoch=0)[0] == INVALID_EPOCH
    assert send(5, epoch=2)[0] == OUT_OF_ORDER, "a new epoch starts at sequence 0"
    assert send(12345, producer=4001) == (0, 18), "of an unknown producer any sequence is taken"
    assert watermarks(broker, name) == (0, 20)


def test_sequences_wrap_around(broker, topic):
    name = topic()
    most = 2**31 - 1

    def send(sequence, values):
        return wire.send_batch(broker, name, wire.batch(values, producer_id=5000, producer_epoch=0, sequence=sequence))

    assert send(most - 1, [b"a"]) == (0, 0)
    assert send(most, [b"b", b"c"]) == (0, 1)
    assert send(1, [b"d"]) == (0, 3)
    assert send(most, [b"b", b"c"]) == (0, 1)


def test_many_idle_and_abandoned_connections(broker):
    connections = [Connection(broker) for _ in range(300)]
    for number, c in enumerate(connections):
        c.request(18, 0, number)
    for number, c in enumerate(connections):
        assert struct.unpack_from(">ih", c.receive()) == (number, 0)
    for c in connections:
        c.socket.close()


def test_a_reader_that_never_reads_delays_nobody(broker, topic):
    name = topic()
    produce_all(broker, name, [{"value": os.urandom(100_000)} for _ in range(200)])
    fetch = struct.pack(">iiiibi", -1, 100, 1, 20_000_000, 0, 1) + wire.string(name) + struct.pack(">iiqi", 1, 0, 0, 20_000_000)
    with Connection(broker) as lazy:
        for n in range(20):
            lazy.request(1, 4, n, fetch)
        assert len(read(broker, name)) == 200


def test_what_clients_get_wrong_is_logged_once(own_broker):
    """One line says who sent what; a client that goes on does not fill the log."""
    if os.environ.get("BROKER") == "kafka":
        pytest.skip("of Ringlog's log")
    broker = own_broker()
    name = create_topic(broker)
    began = time.monotonic()
    with Connection(broker) as c:
        for _ in range(50):
            c.request(0, 7, 5, wire.produce(name, wire.batch([b"a"], crc=1)))
            assert c.receive() is not None
    took_s = time.monotonic() - began
    lines = [line for line in broker.log_path.read_text().splitlines() if "refused" in line]
    # Two cores, should the connection have moved; more often than that only if it took ten seconds.
    assert 1 <= len(lines) <= 2 * (1 + took_s // 10), lines
    assert f"{name}-0" in lines[0] and "Produce" in lines[0] and "CRC" in lines[0], lines
