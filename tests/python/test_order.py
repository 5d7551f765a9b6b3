"""Requests sent back to back on one connection: each finds what those before it did, as where they are taken one after the other
(Kafka's protocol guide promises it)."""

import struct

import wire
from wire import Connection, batch, produce, string

PRODUCE, LIST_OFFSETS, METADATA, CREATE_TOPICS, DELETE_TOPICS, DELETE_RECORDS, ALTER_CONFIGS = 0, 2, 3, 19, 20, 21, 44
LATEST, EARLIEST = -1, -2
MESSAGE_TOO_LARGE, UNKNOWN_TOPIC = 10, 3
ROUNDS = 20


def at_once(broker, *requests):
    """Sends (API, version, body) in one piece; the answers without their correlation ids."""
    with Connection(broker) as c:
        frames = [wire.header(key, version, n) + body for n, (key, version, body) in enumerate(requests)]
        c.send(b"".join(struct.pack(">i", len(frame)) + frame for frame in frames))
        answers = [c.receive() for _ in requests]
    assert [struct.unpack_from(">i", a)[0] for a in answers] == list(range(len(requests)))
    return [a[4:] for a in answers]


def list_offsets(topic, timestamp):
    return LIST_OFFSETS, 1, struct.pack(">ii", -1, 1) + string(topic) + struct.pack(">iiq", 1, 0, timestamp)


def metadata(topic):
    return METADATA, 4, struct.pack(">i", 1) + string(topic) + b"\0"


def last_offset(answer):
    """Of the only partition in an answer of ListOffsets v1."""
    return struct.unpack_from(">q", answer, len(answer) - 8)[0]


def topic_error(answer):
    """Of the only topic in an answer of Metadata v4, which stands before its name."""
    position = 4 + 4  # throttle time, brokers: one
    _, host = struct.unpack_from(">ih", answer, position)
    position += 6 + host + 4 + 2  # and no rack
    position += 2 + struct.unpack_from(">h", answer, position)[0] + 4 + 4  # cluster id, controller, topics: one
    return struct.unpack_from(">h", answer, position)[0]


def test_what_was_produced_is_there_for_the_next_request(broker, topic):
    name = topic()
    for n in range(ROUNDS):
        _, answer = at_once(broker, (PRODUCE, 7, produce(name, batch())), list_offsets(name, LATEST))
        assert last_offset(answer) == n + 1


def test_what_was_deleted_is_gone_for_the_next_request(broker, topic):
    name = topic()
    for n in range(1, ROUNDS):
        delete = struct.pack(">i", 1) + string(name) + struct.pack(">iiqi", 1, 0, n, 30_000)
        produced, _, answer = at_once(
            broker, (PRODUCE, 7, produce(name, batch())), (DELETE_RECORDS, 0, delete), list_offsets(name, EARLIEST),
        )
        assert wire.produce_result(b"\0" * 4 + produced) == (0, n - 1)
        assert last_offset(answer) == n


def test_a_topic_is_there_for_the_next_request_and_gone_for_the_next(broker):
    for n in range(ROUNDS):
        name = f"test-order-{n}"
        create = struct.pack(">i", 1) + string(name) + struct.pack(">ihiiib", 1, 1, 0, 0, 30_000, 0)
        delete = struct.pack(">i", 1) + string(name) + struct.pack(">i", 30_000)
        answers = at_once(broker, (CREATE_TOPICS, 2, create), metadata(name), (DELETE_TOPICS, 1, delete), metadata(name))
        assert (topic_error(answers[1]), topic_error(answers[3])) == (0, UNKNOWN_TOPIC)


def test_a_config_holds_for_the_next_request(broker, topic):
    name = topic()
    for n in range(ROUNDS):
        bound = str(1 if n % 2 == 0 else 1_000_000)
        config = string("max.message.bytes") + b"\0" + string(bound)
        alter = struct.pack(">ib", 1, 2) + string(name) + struct.pack(">i", 1) + config + b"\0"
        _, produced = at_once(broker, (ALTER_CONFIGS, 0, alter), (PRODUCE, 7, produce(name, batch())))
        assert wire.produce_result(b"\0" * 4 + produced)[0] == (MESSAGE_TOO_LARGE if n % 2 == 0 else 0)
