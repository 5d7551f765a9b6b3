"""What a group of the new protocol has set for itself (KIP-848, KIP-1263), through confluent-kafka and by hand: who may set what, where
it shows, and that members obey. With BROKER=kafka it says what Kafka does."""

import struct
import time

import pytest
import wire
from conftest import TIMEOUT_S, admin, consumer, create_topic, unique_name
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ConfigSource, ResourceType

SESSION = "consumer.session.timeout.ms"
HEARTBEAT = "consumer.heartbeat.interval.ms"
ASSIGNMENT = "consumer.assignment.interval.ms"
GROUP = 32
SET, DELETE, APPEND, SUBTRACT = range(4)

INCREMENTAL_ALTER_CONFIGS, ALTER_CONFIGS, DESCRIBE_CONFIGS, LIST_CONFIG_RESOURCES, CONSUMER_GROUP_HEARTBEAT = 44, 33, 32, 74, 68
UNSUPPORTED_VERSION, INVALID_CONFIG, INVALID_REQUEST = 35, 40, 42
ONE_PARTITION = {"offsets.topic.num.partitions": 1, "offsets.topic.replication.factor": 1}


def ask(broker, key, version, body, flexible=False):
    with wire.Connection(broker) as connection:
        connection.request(key, version, 7, body, flexible)
        return connection.receive()[4:]


def array(items):
    return struct.pack(">i", len(items)) + b"".join(items)


def nullable(text):
    return struct.pack(">h", -1) if text is None else wire.string(text)


class Reader:
    def __init__(self, data):
        self.data, self.at = data, 0

    def take(self, form):
        (value,) = struct.unpack_from(form, self.data, self.at)
        self.at += struct.calcsize(form)
        return value

    def string(self):
        length = self.take(">h")
        if length < 0:
            return None
        self.at += length
        return self.data[self.at - length:self.at].decode()

    def compact(self):
        """A short text of a flexible version."""
        length = max(self.take(">B") - 1, 0)
        self.at += length
        return self.data[self.at - length:self.at]


def altered(response):
    """The error code of each resource."""
    reader = Reader(response)
    reader.take(">i")
    codes = []
    for _ in range(reader.take(">i")):
        codes.append(reader.take(">h"))
        reader.string(), reader.take(">b"), reader.string()
    return codes


def alter(broker, group, *operations, validate_only=False, copies=1):
    configs = array([wire.string(name) + struct.pack(">b", operation) + nullable(value) for name, operation, value in operations])
    resource = struct.pack(">b", GROUP) + wire.string(group) + configs
    return altered(ask(broker, INCREMENTAL_ALTER_CONFIGS, 0, array([resource] * copies) + struct.pack(">?", validate_only)))


def replace(broker, group, **settings):
    configs = array([wire.string(name.replace("_", ".")) + nullable(value) for name, value in settings.items()])
    resource = struct.pack(">b", GROUP) + wire.string(group) + configs
    return altered(ask(broker, ALTER_CONFIGS, 0, array([resource]) + b"\0"))


def listed(broker):
    """The groups that have settings of their own."""
    reader = Reader(ask(broker, LIST_CONFIG_RESOURCES, 1, bytes([2, GROUP, 0]), flexible=True))
    reader.take(">b"), reader.take(">i")
    assert reader.take(">h") == 0
    found = []
    for _ in range(reader.take(">B") - 1):
        found.append(reader.compact().decode())
        assert reader.take(">b") == GROUP
        reader.take(">b")
    return found


def eventually(condition):
    """Kafka's broker follows its controller a little later."""
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def configs(broker, group):
    resource = ConfigResource(ResourceType.GROUP, group)
    return admin(broker).describe_configs([resource])[resource].result(TIMEOUT_S)


def own(broker, group):
    return {name: entry.value for name, entry in configs(broker, group).items()
            if entry.source not in (ConfigSource.DEFAULT_CONFIG.value, ConfigSource.STATIC_BROKER_CONFIG.value)}


def put(broker, group, name, value, operation=AlterConfigOpType.SET):
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=[ConfigEntry(name, value, incremental_operation=operation)])
    return admin(broker).incremental_alter_configs([resource])[resource].result(TIMEOUT_S)


def test_set_show_and_take_back(broker):
    group = unique_name("configured")
    assert own(broker, group) == {}
    entries = configs(broker, group)
    assert (entries[SESSION].value, entries[HEARTBEAT].value) == ("45000", "5000")
    assert ASSIGNMENT in entries and not entries[SESSION].is_read_only
    put(broker, group, SESSION, "50000")
    put(broker, group, HEARTBEAT, "7000")
    eventually(lambda: own(broker, group) == {SESSION: "50000", HEARTBEAT: "7000"})
    eventually(lambda: group in listed(broker))
    put(broker, group, SESSION, None, AlterConfigOpType.DELETE)
    eventually(lambda: own(broker, group) == {HEARTBEAT: "7000"})
    with pytest.raises(KafkaException) as refused:
        put(broker, group, HEARTBEAT, "4999")
    assert refused.value.args[0].code() == KafkaError.INVALID_CONFIG
    assert "group.consumer.min.heartbeat.interval.ms" in refused.value.args[0].str()
    assert replace(broker, group, consumer_session_timeout_ms="46000") == [0]
    eventually(lambda: own(broker, group) == {SESSION: "46000"})
    assert replace(broker, group) == [0]
    eventually(lambda: own(broker, group) == {} and group not in listed(broker))


def test_what_is_refused_changes_nothing(broker):
    group = unique_name("refused")
    for operation, code in [
        (("no.such", SET, "1"), INVALID_CONFIG),
        ((SESSION, SET, "44999"), INVALID_CONFIG),
        ((SESSION, SET, "60001"), INVALID_CONFIG),
        ((SESSION, SET, "many"), INVALID_CONFIG),
        ((HEARTBEAT, SET, "15001"), INVALID_CONFIG),
        ((ASSIGNMENT, SET, "15001"), INVALID_CONFIG),
        ((ASSIGNMENT, SET, "-1"), INVALID_CONFIG),
        ((HEARTBEAT, APPEND, "6000"), INVALID_CONFIG),
        ((HEARTBEAT, SUBTRACT, "6000"), INVALID_CONFIG),
        ((HEARTBEAT, SET, None), INVALID_REQUEST),
    ]:
        other = ASSIGNMENT if operation[0] == SESSION else SESSION
        value = "2000" if other == ASSIGNMENT else "50000"
        assert alter(broker, group, (other, SET, value), operation) == [code], operation
    assert alter(broker, group, (SESSION, SET, "50000"), (SESSION, SET, "50000")) == [INVALID_REQUEST]
    assert alter(broker, group, (SESSION, SET, "50000"), copies=2) == [INVALID_REQUEST] * 2
    assert alter(broker, "", (SESSION, SET, "50000")) == [INVALID_REQUEST]
    assert alter(broker, group, (SESSION, SET, "50000"), validate_only=True) == [0]
    assert alter(broker, group, ("no.such", DELETE, None), (SESSION, DELETE, None)) == [0]
    assert own(broker, group) == {} and group not in listed(broker)


class Refused(Exception):
    """A heartbeat's error code and message."""


def beat(broker, group, member, epoch, topic=None):
    """ConsumerGroupHeartbeat v1 by hand: (member epoch, heartbeat interval)."""
    compact = lambda text: bytes([len(text) + 1]) + text.encode()  # noqa: E731
    topics = b"\0" if topic is None else bytes([2]) + compact(topic)
    owned = b"\0" if topic is None else b"\1"
    body = compact(group) + compact(member) + struct.pack(">i", epoch) + b"\0\0" + struct.pack(">i", 60000 if topic else -1)
    body += topics + b"\0\0" + owned + b"\0"
    reader = Reader(ask(broker, CONSUMER_GROUP_HEARTBEAT, 1, body, flexible=True))
    reader.take(">b"), reader.take(">i")
    error = reader.take(">h")
    message = reader.compact()
    if error:
        raise Refused(error, message)
    reader.compact()
    return reader.take(">i"), reader.take(">i")


def committed(broker, group, topic, partitions):
    """The offsets of the first partitions, once the group is served."""
    client = consumer(broker, group_id=group)
    end = time.monotonic() + TIMEOUT_S
    while True:
        try:
            found = client.committed([TopicPartition(topic, partition) for partition in range(partitions)], timeout=TIMEOUT_S)
            client.close()
            return [partition.offset for partition in found]
        except KafkaException as error:
            # A coordinator that has just begun is not one yet.
            assert error.args[0].code() == KafkaError.NOT_COORDINATOR and time.monotonic() < end
            time.sleep(0.1)


def wait_for_coordinator(broker, group):
    committed(broker, group, "none", 1)


def test_members_hear_of_it_with_their_next_heartbeat_and_a_restart_forgets_nothing(own_broker):
    broker = own_broker(ONE_PARTITION)
    topic, group = create_topic(broker), unique_name("live")
    wait_for_coordinator(broker, group)
    epoch, interval = beat(broker, group, "m", 0, topic)
    assert interval == 5000
    put(broker, group, HEARTBEAT, "7000")
    eventually(lambda: beat(broker, group, "m", epoch) == (epoch, 7000))
    broker.stop()
    broker.start()
    assert own(broker, group) == {HEARTBEAT: "7000"} and listed(broker) == [group]
    wait_for_coordinator(broker, group)
    assert beat(broker, group, "m", epoch) == (epoch, 7000)
    put(broker, group, HEARTBEAT, None, AlterConfigOpType.DELETE)
    eventually(lambda: beat(broker, group, "m", epoch) == (epoch, 5000))

    # Bounds that change later do not change what was set; it is taken into them.
    put(broker, group, HEARTBEAT, "9000")
    broker.stop()
    broker.settings["group.consumer.max.heartbeat.interval.ms"] = 6000
    broker.start()
    assert own(broker, group) == {HEARTBEAT: "9000"}
    wait_for_coordinator(broker, group)
    assert beat(broker, group, "m", epoch) == (epoch, 6000)


def test_assignments_keep_their_distance(own_broker):
    broker = own_broker({**ONE_PARTITION, "group.consumer.max.assignment.interval.ms": 600_000})
    topic, group = create_topic(broker, partitions=4), unique_name("paced")
    wait_for_coordinator(broker, group)
    put(broker, group, ASSIGNMENT, "600000")
    eventually(lambda: group in listed(broker))
    # The first assignment of a group waits for nothing; the epochs are not the same in all brokers.
    first, _ = beat(broker, group, "a", 0, topic)
    assert beat(broker, group, "b", 0, topic)[0] == first
    assert beat(broker, group, "c", 0, topic)[0] == first
    put(broker, group, ASSIGNMENT, "0")
    eventually(lambda: beat(broker, group, "c", first)[0] > first or beat(broker, group, "b", first)[0] > first)


def test_a_silent_member_is_out_after_the_groups_session(own_broker):
    broker = own_broker({
        **ONE_PARTITION, "group.consumer.min.session.timeout.ms": 1000, "group.consumer.min.heartbeat.interval.ms": 1000,
    })
    topic, group = create_topic(broker), unique_name("short")
    # librdkafka waits no longer than a heartbeat's interval for an answer, and never learns of an assignment that came later.
    put(broker, group, HEARTBEAT, "3500")
    put(broker, group, SESSION, "6000")
    put(broker, group, ASSIGNMENT, "0")
    eventually(lambda: len(own(broker, group)) == 3)
    config = {
        "bootstrap.servers": broker.bootstrap, "group.id": group, "group.protocol": "consumer", "auto.offset.reset": "earliest",
        "log_level": 0,
    }
    wait_for_coordinator(broker, group)
    beat(broker, group, "silent", 0, topic)
    client = Consumer(config)
    client.subscribe([topic])
    end = time.monotonic() + 40
    while not client.assignment():
        client.poll(0.1)
        assert time.monotonic() < end, "the broker's 45 seconds hold, not the group's"
    client.close()


@pytest.mark.parametrize("codec", [0, 1, 2, 3, 4])
def test_records_of_groups_are_compressed_as_it_is_wanted(own_broker, codec):
    broker = own_broker({**ONE_PARTITION, "offsets.topic.compression.codec": codec})
    topic, group = create_topic(broker, partitions=50), unique_name("compressed")
    client = consumer(broker, group_id=group)
    client.commit(offsets=[TopicPartition(topic, partition, partition) for partition in range(50)], asynchronous=False)
    client.close()
    broker.stop()
    [segment] = broker.partition_dir("__consumer_offsets", 0).glob("*.log")
    data, at, codecs = segment.read_bytes(), 0, set()
    while at + 61 <= len(data) and data[at + 16] == 2:
        codecs.add(data[at + 22] & 7)
        at += 12 + struct.unpack_from(">i", data, at + 8)[0]
    assert codecs == {codec}
    broker.start()
    assert committed(broker, group, topic, 50) == list(range(50))


def test_a_protocol_that_is_not_enabled_is_refused(own_broker):
    broker = own_broker({**ONE_PARTITION, "group.coordinator.rebalance.protocols": "classic"})
    topic, group = create_topic(broker), unique_name("refused")
    wait_for_coordinator(broker, group)
    with pytest.raises(Refused) as refused:
        beat(broker, group, "m", 0, topic)
    assert refused.value.args[0] == UNSUPPORTED_VERSION
