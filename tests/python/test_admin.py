"""Topics, configs and offsets through confluent-kafka's admin client."""

import time

import pytest
from conftest import TIMEOUT_S, admin, create_topic, produce_all, read, unique_name, wait_for_topic, watermarks
from confluent_kafka import KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, NewPartitions, NewTopic, OffsetSpec, ResourceType


def code_of(future):
    """The error code of a future that has to fail."""
    with pytest.raises(KafkaException) as caught:
        future.result(TIMEOUT_S)
    return caught.value.args[0].code()


def create(broker, name, partitions=1, replication=1, config=None, **options):
    return admin(broker).create_topics([NewTopic(name, partitions, replication, config=config or {})], **options)[name]


def topic_config(broker, name):
    resource = ConfigResource(ResourceType.TOPIC, name)
    return admin(broker).describe_configs([resource])[resource].result(TIMEOUT_S)


def alter(broker, kind, name, *entries):
    resource = ConfigResource(kind, name, incremental_configs=list(entries))
    return admin(broker).incremental_alter_configs([resource])[resource]


def put(name, value):
    return ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)


def test_created_topics_are_listed_with_what_was_asked(broker):
    name = unique_name()
    create(broker, name, 3).result(TIMEOUT_S)
    wait_for_topic(admin(broker), name, 3)
    listed = admin(broker).list_topics(timeout=TIMEOUT_S).topics[name]
    assert sorted(listed.partitions) == [0, 1, 2]
    for partition in listed.partitions.values():
        assert partition.replicas == partition.isrs == [partition.leader]


@pytest.mark.parametrize("name", ["a", "x" * 249, "with.dot", "with_underscore2", "With-Dash", "0"])
def test_legal_names(broker, name):
    create_topic(broker, name)
    assert [m.offset() for m in produce_all(broker, name, [{"value": b"x"}])] == [0]


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 250, "sp ace", "sla/sh", "..\\", "nul\0"[:3] + "!", "ü"])
def test_illegal_names(broker, name):
    assert code_of(create(broker, name)) in (KafkaError.TOPIC_EXCEPTION, KafkaError._INVALID_ARG)


def test_names_that_differ_only_in_dot_and_underscore_collide(broker):
    create_topic(broker, "collides.with_me")
    assert code_of(create(broker, "collides_with.me")) == KafkaError.TOPIC_EXCEPTION


def test_an_existing_topic(broker, topic):
    assert code_of(create(broker, topic())) == KafkaError.TOPIC_ALREADY_EXISTS


def test_bad_partition_counts_and_replication_factors(broker):
    assert code_of(create(broker, unique_name(), 0)) in (KafkaError.INVALID_PARTITIONS, KafkaError._INVALID_ARG)
    assert code_of(create(broker, unique_name(), 1, 3)) == KafkaError.INVALID_REPLICATION_FACTOR


@pytest.mark.parametrize("name, value", [
    ("no.such.config", "1"), ("retention.ms", "soon"), ("segment.bytes", "-5"), ("cleanup.policy", "shred"),
    ("compression.type", "rar"), ("message.timestamp.type", "Yesterday"), ("max.message.bytes", "-1"), ("min.insync.replicas", "0"),
    ("flush.messages", "0"),
])
def test_bad_configs(broker, name, value):
    assert code_of(create(broker, unique_name(), config={name: value})) == KafkaError.INVALID_CONFIG


def test_validate_only_creates_nothing(broker):
    name = unique_name()
    create(broker, name, validate_only=True).result(TIMEOUT_S)
    assert name not in admin(broker).list_topics(timeout=TIMEOUT_S).topics
    assert code_of(create(broker, name, config={"retention.ms": "x"}, validate_only=True)) == KafkaError.INVALID_CONFIG


def test_defaults_of_the_broker(broker):
    name = unique_name()
    create(broker, name, -1, -1).result(TIMEOUT_S)
    wait_for_topic(admin(broker), name, 1)


def test_delete(broker, topic):
    name = topic(partitions=2)
    produce_all(broker, name, [{"value": b"x"}])
    directory = broker.partition_dir(name, 0)
    assert directory.is_dir()
    admin(broker).delete_topics([name])[name].result(TIMEOUT_S)
    wait_until_gone(broker, name)
    assert not directory.exists()
    assert code_of(admin(broker).delete_topics([name])[name]) == KafkaError.UNKNOWN_TOPIC_OR_PART


def wait_until_gone(broker, name):
    end = time.monotonic() + TIMEOUT_S
    while name in admin(broker).list_topics(timeout=TIMEOUT_S).topics or broker.partition_dir(name, 0).exists():
        assert time.monotonic() < end, f"{name} is still there"
        time.sleep(0.05)


def test_a_recreated_topic_starts_empty(broker, topic):
    name = topic(partitions=2)
    for generation in range(3):
        values = [b"%d %d" % (generation, n) for n in range(50)]
        delivered = produce_all(broker, name, [{"partition": 1, "value": v} for v in values])
        assert [m.offset() for m in delivered] == list(range(50))
        assert [m.value() for m in read(broker, name, 1)] == values
        admin(broker).delete_topics([name])[name].result(TIMEOUT_S)
        wait_until_gone(broker, name)
        create_topic(broker, name, 2)
        assert watermarks(broker, name, 1) == (0, 0)


def test_more_partitions(broker, topic):
    name = topic(partitions=1)
    produce_all(broker, name, [{"value": b"old"}])
    admin(broker).create_partitions([NewPartitions(name, 5)])[name].result(TIMEOUT_S)
    wait_for_topic(admin(broker), name, 5)
    produce_all(broker, name, [{"partition": p, "value": b"new"} for p in range(5)])
    assert [m.value() for m in read(broker, name, 0)] == [b"old", b"new"]
    assert [m.value() for m in read(broker, name, 4)] == [b"new"]
    for count in (5, 3):
        assert code_of(admin(broker).create_partitions([NewPartitions(name, count)])[name]) == KafkaError.INVALID_PARTITIONS
    missing = unique_name()
    assert code_of(admin(broker).create_partitions([NewPartitions(missing, 2)])[missing]) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_describe_topic_configs(broker, topic):
    entries = topic_config(broker, topic(retention_ms=12345))
    assert entries["retention.ms"].value == "12345"
    assert not entries["retention.ms"].is_default
    for name in ("retention.bytes", "segment.bytes", "segment.ms", "max.message.bytes", "flush.messages", "flush.ms",
                 "message.timestamp.type", "cleanup.policy", "compression.type", "min.insync.replicas"):
        assert name in entries and entries[name].value != ""
    assert entries["segment.bytes"].is_default and entries["segment.bytes"].value == "1073741824"
    assert entries["compression.type"].value == "producer"


def test_describe_broker_configs(broker):
    node = next(iter(admin(broker).list_topics(timeout=TIMEOUT_S).brokers))
    resource = ConfigResource(ResourceType.BROKER, str(node))
    entries = admin(broker).describe_configs([resource])[resource].result(TIMEOUT_S)
    assert entries["socket.request.max.bytes"].value == "20000000"
    assert entries["num.partitions"].value == "1"


def test_alter_topic_configs(broker, topic):
    name = topic(retention_ms=1_000_000)
    alter(broker, ResourceType.TOPIC, name, put("segment.bytes", "2097152"), put("max.message.bytes", "5000")).result(TIMEOUT_S)

    def eventually(**expected):
        end = time.monotonic() + TIMEOUT_S
        while True:
            entries = topic_config(broker, name)
            found = {k: entries[k.replace("_", ".")].value for k in expected}
            if found == expected:
                return entries
            assert time.monotonic() < end, f"{found}, expected {expected}"
            time.sleep(0.05)

    eventually(segment_bytes="2097152", max_message_bytes="5000", retention_ms="1000000")
    drop = ConfigEntry("segment.bytes", None, incremental_operation=AlterConfigOpType.DELETE)
    alter(broker, ResourceType.TOPIC, name, drop).result(TIMEOUT_S)
    assert eventually(segment_bytes="1073741824", max_message_bytes="5000")["segment.bytes"].is_default
    # What was altered takes effect.
    from conftest import Deliveries, producer

    client, deliveries = producer(broker), Deliveries()
    client.produce(name, bytes(6000), on_delivery=deliveries)
    assert client.flush(TIMEOUT_S) == 0
    assert deliveries.errors == [KafkaError.MSG_SIZE_TOO_LARGE]


def test_bad_alterations_change_nothing(broker, topic):
    name = topic(retention_ms=777)
    both = alter(broker, ResourceType.TOPIC, name, put("segment.bytes", "2097152"), put("retention.ms", "soon"))
    assert code_of(both) == KafkaError.INVALID_CONFIG
    assert code_of(alter(broker, ResourceType.TOPIC, name, put("no.such.config", "1"))) == KafkaError.INVALID_CONFIG
    missing = unique_name()
    assert code_of(alter(broker, ResourceType.TOPIC, missing, put("retention.ms", "1"))) == KafkaError.UNKNOWN_TOPIC_OR_PART
    entries = topic_config(broker, name)
    assert entries["retention.ms"].value == "777" and entries["segment.bytes"].is_default


def test_describing_the_configs_of_an_unknown_topic(broker):
    resource = ConfigResource(ResourceType.TOPIC, unique_name())
    assert code_of(admin(broker).describe_configs([resource])[resource]) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_delete_records(broker, topic):
    name = topic(partitions=2)
    produce_all(broker, name, [{"partition": p, "value": b"%d" % n} for p in range(2) for n in range(100)])
    target = TopicPartition(name, 0, 40)
    result = admin(broker).delete_records([target])[target].result(TIMEOUT_S)
    assert result.low_watermark == 40
    assert watermarks(broker, name, 0) == (40, 100) and watermarks(broker, name, 1) == (0, 100)
    assert [m.offset() for m in read(broker, name, 0, offset=40)] == list(range(40, 100))
    beyond = TopicPartition(name, 0, 101)
    assert code_of(admin(broker).delete_records([beyond])[beyond]) == KafkaError.OFFSET_OUT_OF_RANGE
    everything = TopicPartition(name, 0, -1)
    assert admin(broker).delete_records([everything])[everything].result(TIMEOUT_S).low_watermark == 100
    assert watermarks(broker, name, 0) == (100, 100)
    assert [m.offset() for m in produce_all(broker, name, [{"partition": 0, "value": b"x"}])] == [100]


def test_list_offsets(broker, topic):
    name = topic()
    base = int(time.time() * 1000) - 50_000
    # The largest timestamp is not the last record's.
    stamps = [base + n for n in range(50)] + [base + 10_000] + [base + 100 + n for n in range(49)]
    produce_all(broker, name, [{"value": b"%d" % n, "timestamp": stamp} for n, stamp in enumerate(stamps)])
    partition = TopicPartition(name, 0)

    def offset(spec):
        return admin(broker).list_offsets({partition: spec})[partition].result(TIMEOUT_S).offset

    assert offset(OffsetSpec.earliest()) == 0
    assert offset(OffsetSpec.latest()) == 100
    assert offset(OffsetSpec.max_timestamp()) == 50
    assert offset(OffsetSpec.for_timestamp(base + 10)) == 10
    assert offset(OffsetSpec.for_timestamp(base + 10_001)) == -1


def test_describe_topics(broker, topic):
    name = topic(partitions=3)
    collection = TopicCollection([name])
    described = admin(broker).describe_topics(collection)[name].result(TIMEOUT_S)
    assert described.name == name and not described.is_internal
    assert [p.id for p in described.partitions] == [0, 1, 2]
    assert str(described.topic_id) != str(admin(broker).describe_topics(TopicCollection([(other := topic())]))[other].result(TIMEOUT_S).topic_id)
    missing = unique_name()
    assert code_of(admin(broker).describe_topics(TopicCollection([missing]))[missing]) == KafkaError.UNKNOWN_TOPIC_OR_PART


def test_describe_cluster(broker):
    cluster = admin(broker).describe_cluster().result(TIMEOUT_S)
    assert len(cluster.cluster_id) == 22
    assert [(n.host, n.port) for n in cluster.nodes] == [("127.0.0.1", broker.port)]
    assert cluster.controller.id == cluster.nodes[0].id
