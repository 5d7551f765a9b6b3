"""kafka-python, a client of its own lineage: producing, consuming and administering."""

import os
import random
import time

import pytest
from conftest import TIMEOUT_S, create_topic, produce_all, read, unique_name
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import AlterConfigOp, ConfigFilterType, ConfigResource, ConfigResourceType, KafkaAdminClient, OffsetSpec
from kafka.errors import InvalidTopicError, MessageSizeTooLargeError, TopicAlreadyExistsError, UnknownTopicOrPartitionError

CODECS = [None, "gzip", "snappy", "lz4", "zstd"]


@pytest.fixture
def client(broker):
    """Makes producers, consumers and admin clients, closed at the end."""
    made = []

    def make(kind, **config):
        made.append(kind(bootstrap_servers=broker.bootstrap, **config))
        return made[-1]

    yield make
    for one in made:
        one.close()


def consume(client, name, count, partition=0, offset=0):
    consumer = client(KafkaConsumer, auto_offset_reset="none", group_id=None)
    target = TopicPartition(name, partition)
    consumer.assign([target])
    consumer.seek(target, offset)
    records, end = [], time.monotonic() + TIMEOUT_S
    while len(records) < count:
        assert time.monotonic() < end, f"{len(records)} of {count} records"
        records += consumer.poll(500).get(target, [])
    return records


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("idempotent", [False, True])
def test_round_trip(client, topic, codec, idempotent):
    name = topic()
    rng = random.Random(f"{codec}{idempotent}")
    values = [rng.randbytes(rng.randrange(1500)) if n % 2 else b"again and " * rng.randrange(100) for n in range(1000)]
    producer = client(KafkaProducer, compression_type=codec, enable_idempotence=idempotent, acks="all", linger_ms=10)
    sent = [producer.send(name, v, key=b"%d" % n, headers=[("n", b"%d" % n)], partition=0) for n, v in enumerate(values)]
    producer.flush(TIMEOUT_S)
    answers = [f.get(TIMEOUT_S) for f in sent]
    assert [(a.topic, a.partition, a.offset) for a in answers] == [(name, 0, n) for n in range(1000)]
    records = consume(client, name, 1000)
    assert [(r.offset, r.key, r.value, list(r.headers)) for r in records] == [
        (n, b"%d" % n, v, [("n", b"%d" % n)]) for n, v in enumerate(values)
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_each_client_reads_what_the_other_wrote(broker, client, topic, codec):
    name = topic()
    values = [os.urandom(500) + b"z" * 500 for _ in range(200)]
    producer = client(KafkaProducer, compression_type=codec)
    for value in values:
        producer.send(name, value, partition=0)
    producer.flush(TIMEOUT_S)
    assert [m.value() for m in read(broker, name)] == values
    produce_all(broker, name, [{"value": v} for v in reversed(values)], compression_type=codec or "none")
    assert [r.value for r in consume(client, name, 200, offset=200)] == values[::-1]


@pytest.mark.parametrize("acks", [0, 1, "all"])
def test_acks(client, topic, acks):
    name = topic()
    producer = client(KafkaProducer, acks=acks, enable_idempotence=False)
    sent = [producer.send(name, b"%d" % n, partition=0) for n in range(300)]
    producer.flush(TIMEOUT_S)
    for n, future in enumerate(sent):
        assert future.get(TIMEOUT_S).offset == n or acks == 0
    assert [r.value for r in consume(client, name, 300)] == [b"%d" % n for n in range(300)]


def test_nulls_and_empties(client, topic):
    name = topic()
    producer = client(KafkaProducer)
    sent = [(None, b""), (b"", b""), (b"k", None), (b"", None), (None, b"v")]
    for key, value in sent:
        producer.send(name, value, key=key, partition=0).get(TIMEOUT_S)
    assert [(r.key, r.value) for r in consume(client, name, len(sent))] == sent


def test_large_and_too_large(client, topic):
    name = topic(max_message_bytes=3_000_000)
    producer = client(KafkaProducer, max_request_size=10_000_000, batch_size=0)
    fits = os.urandom(3_000_000 - 80)
    assert producer.send(name, fits, partition=0).get(TIMEOUT_S).offset == 0
    with pytest.raises(MessageSizeTooLargeError):
        producer.send(name, os.urandom(3_000_000), partition=0).get(TIMEOUT_S)
    assert consume(client, name, 1)[0].value == fits


def test_offsets_by_time_and_ends(client, topic):
    name = topic(partitions=2)
    base = int(time.time() * 1000) - 100_000
    producer = client(KafkaProducer)
    for n in range(500):
        producer.send(name, b"%d" % n, partition=1, timestamp_ms=base + 10 * n)
    producer.flush(TIMEOUT_S)
    consumer = client(KafkaConsumer, group_id=None)
    zero, one = TopicPartition(name, 0), TopicPartition(name, 1)
    consumer.assign([zero, one])
    assert consumer.beginning_offsets([zero, one]) == {zero: 0, one: 0}
    assert consumer.end_offsets([zero, one]) == {zero: 0, one: 500}
    found = consumer.offsets_for_times({one: base + 1234})[one]
    assert (found.offset, found.timestamp) == (124, base + 1240)
    assert consumer.offsets_for_times({one: base + 5000})[one] is None
    consumer.seek(one, 321)
    records = []
    while not records:
        records = consumer.poll(1000).get(one, [])
    assert (records[0].offset, records[0].value, records[0].timestamp) == (321, b"321", base + 3210)


def test_topics_come_and_go(client):
    admin = client(KafkaAdminClient)
    name = unique_name("kp")
    admin.create_topics({name: {"num_partitions": 3, "replication_factor": 1}}, wait_for_metadata=True)
    assert name in admin.list_topics()
    described = admin.describe_topics([name])[0]
    assert sorted(p["partition_index"] for p in described["partitions"]) == [0, 1, 2]
    with pytest.raises(TopicAlreadyExistsError):
        admin.create_topics({name: {"num_partitions": 1, "replication_factor": 1}})
    with pytest.raises(InvalidTopicError):
        admin.create_topics({"not/legal": {"num_partitions": 1, "replication_factor": 1}})
    admin.create_partitions({name: 5})
    end = time.monotonic() + TIMEOUT_S
    while len(admin.describe_topics([name])[0]["partitions"]) != 5:
        assert time.monotonic() < end
    admin.delete_topics([name])
    with pytest.raises(UnknownTopicOrPartitionError):
        admin.delete_topics([name])


def test_configs(client, topic):
    admin, name = client(KafkaAdminClient), topic(retention_ms=5000)

    def changed():
        return {k: v["value"] for k, v in admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)])["topic"][name].items()}

    assert changed() == {"retention.ms": "5000"}
    admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, name, {"segment.ms": (AlterConfigOp.SET, "60000"), "retention.ms": "6000"})])
    end = time.monotonic() + TIMEOUT_S
    while changed() != {"retention.ms": "6000", "segment.ms": "60000"}:
        assert time.monotonic() < end, changed()
    admin.reset_configs([ConfigResource(ConfigResourceType.TOPIC, name, ["retention.ms"])])
    while changed() != {"segment.ms": "60000"}:
        assert time.monotonic() < end, changed()
    everything = admin.describe_configs([ConfigResource(ConfigResourceType.TOPIC, name)], config_filter=ConfigFilterType.ALL)["topic"][name]
    assert everything["retention.ms"]["value"] == "604800000"


def test_delete_records_and_list_offsets(broker, client, topic):
    admin, name = client(KafkaAdminClient), topic()
    produce_all(broker, name, [{"value": b"%d" % n} for n in range(50)])
    target = TopicPartition(name, 0)
    admin.delete_records({target: 20})
    listed = admin.list_partition_offsets({target: OffsetSpec.EARLIEST})
    assert listed[target].offset == 20
    assert admin.list_partition_offsets({target: OffsetSpec.LATEST})[target].offset == 50
    assert [r.offset for r in consume(client, name, 30, offset=20)] == list(range(20, 50))


def test_log_dirs_cluster_and_producers(broker, client, topic):
    admin, name = client(KafkaAdminClient), topic()
    produce_all(broker, name, [{"value": bytes(1000)} for n in range(10)], enable_idempotence=True)
    cluster = admin.describe_cluster()
    assert [(b["host"], b["port"]) for b in cluster["brokers"]] == [("127.0.0.1", broker.port)]
    assert name in str(admin.describe_log_dirs({name: [0]}))
    producers = admin.describe_producers([TopicPartition(name, 0)])
    assert name in str(producers) and "last_sequence=9" in str(producers).lower().replace("': ", "=").replace(" ", "")
