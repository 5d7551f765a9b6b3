"""The records of groups are Kafka's: its decoder and its console consumer's formatters read what is in __consumer_offsets, of classic
groups and of those of the new protocol (KIP-848)."""

import base64
import json
import re
import subprocess
import time

import harness
from conftest import TIMEOUT_S, create_topic, watermarks
from confluent_kafka import Consumer, TopicPartition
from test_kafka_tools import TOOLS, run

# The types of records, by Kafka's CoordinatorRecordType.
OFFSET, CLASSIC_GROUP, GROUP, MEMBER, ASSIGNMENT_EPOCH, ASSIGNMENT, CURRENT, PATTERN = 1, 2, 3, 5, 6, 7, 8, 16


def formatted(broker, formatter, count):
    """What a formatter of the console consumer makes of __consumer_offsets: (key, value or None), each with its type or version. Those of
    the group "classic-group", so many at least."""
    until, decoder = time.monotonic() + TIMEOUT_S, json.JSONDecoder()
    while True:
        text = run(
            TOOLS + "consumer.ConsoleConsumer", "--bootstrap-server", broker.bootstrap, "--topic", "__consumer_offsets", "--from-beginning",
            "--timeout-ms", 8000, "--formatter", f"org.apache.kafka.tools.consumer.{formatter}", status=None,
        )
        found, at = [], text.find('{"key"')
        while at >= 0:
            record, end = decoder.raw_decode(text, at)
            found.append((record["key"], record["value"]))
            at = text.find('{"key"', end)
        found = [(key, value) for key, value in found if key["data"]["group"] == "classic-group"]
        # It ends where nothing came for its time: in the middle, too, where something stood still.
        if len(found) >= count or time.monotonic() > until:
            return found


def member_of_all(broker, group, subscription, **config):
    """The static member "one" of a group, once it has three partitions."""
    consumer = Consumer({
        "bootstrap.servers": broker.bootstrap, "group.id": group, "group.instance.id": "one", "enable.auto.commit": False, "log_level": 0,
        **{name.replace("_", "."): value for name, value in config.items()},
    })
    consumer.subscribe([subscription])
    end = time.monotonic() + TIMEOUT_S
    while len(consumer.assignment()) != 3:
        assert time.monotonic() < end
        consumer.poll(0.1)
    return consumer


def test_kafkas_formatters_and_decoder_read_a_classic_group(own_broker):
    broker = own_broker({"offsets.topic.num.partitions": 4, "offsets.topic.replication.factor": 1})
    topic = create_topic(broker, "formatted", partitions=3)
    strategy = {"partition_assignment_strategy": "range", "session_timeout_ms": 45_000}
    consumer = member_of_all(broker, "classic-group", topic, client_id="reader", **strategy)
    consumer.commit(offsets=[TopicPartition(topic, p, p + 10, metadata=f"m{p}") for p in range(3)], asynchronous=False)

    # confluent-kafka sends the end of its string along.
    offsets = {
        (key["data"]["group"], key["data"]["topic"], key["data"]["partition"]): (value["data"]["offset"], value["data"]["metadata"].rstrip("\0"))
        for key, value in formatted(broker, "OffsetsMessageFormatter", 3) if value is not None
    }
    assert offsets == {("classic-group", topic, p): (p + 10, f"m{p}") for p in range(3)}

    def check(group, members):
        assert (group["protocolType"], group["protocol"], group["generation"]) == ("consumer", "range", 1)
        (member,) = members
        assert group["leader"] == member["memberId"] and member["memberId"].startswith("one-")
        assert (member["groupInstanceId"], member["clientId"], member["sessionTimeout"]) == ("one", "reader", 45_000)

    # The consoles' own groups are there, too.
    groups = formatted(broker, "GroupMetadataMessageFormatter", 1)
    key, value = [found for found in groups if found[1] is not None and found[1]["data"]["members"]][-1]
    assert key["type"] == CLASSIC_GROUP
    check(value["data"], value["data"]["members"])
    (member,) = value["data"]["members"]
    assert topic.encode() in base64.b64decode(member["subscription"]) and topic.encode() in base64.b64decode(member["assignment"])
    broker.stop()
    consumer.close()

    found = [(kind, key, payload) for kind, key, payload in records(broker) if key.get("group") == "classic-group" and payload is not None]
    assert {key["partition"]: payload["offset"] for kind, key, payload in found if kind == OFFSET} == {0: 10, 1: 11, 2: 12}
    group = [payload for kind, _, payload in found if kind == CLASSIC_GROUP][-1]
    check(group, group["members"])


def records(broker):
    """What DumpLogSegments finds in all partitions: (type, key, payload or None)."""
    logs = [str(broker.partition_dir("__consumer_offsets", n) / "00000000000000000000.log") for n in range(4)]
    done = subprocess.run(
        harness.java("org.apache.kafka.tools.DumpLogSegments", "--offsets-decoder", "--files", ",".join(logs)),
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180,
    )
    assert done.returncode == 0 and "Exception" not in done.stdout, done.stdout[-3000:]
    found = []
    for line in done.stdout.splitlines():
        if match := re.search(r" key: (\{.*\}) payload: (.*)$", line):
            key, payload = json.loads(match[1]), match[2]
            found.append((int(key["type"]), key["data"], json.loads(payload)["data"] if payload.startswith("{") else None))
    return found


def test_kafkas_decoder_reads_the_records(own_broker):
    broker = own_broker({"offsets.topic.num.partitions": 4, "offsets.topic.replication.factor": 1})
    topic = create_topic(broker, "decoded", partitions=3)
    protocol = {"group_protocol": "consumer", "group_remote_assignor": "range"}
    consumer = member_of_all(broker, "decoded-group", "^decode.*", client_id="decoder", **protocol)
    consumer.commit(offsets=[TopicPartition(topic, 2, 0)], asynchronous=False)
    written = lambda: sum(watermarks(broker, "__consumer_offsets", partition)[1] for partition in range(4))  # noqa: E731
    before, end = written(), time.monotonic() + TIMEOUT_S
    consumer.close()
    while written() == before:  # the library does not wait for the answer to its farewell for long
        assert time.monotonic() < end, "nothing is written of the member that left"
        time.sleep(0.05)
    broker.stop()

    found = records(broker)
    # The newest of each that says something: the member has left for now, and its records stay.
    last = {kind: (key, payload) for kind, key, payload in found if payload is not None}
    assert set(last) == {OFFSET, GROUP, MEMBER, ASSIGNMENT_EPOCH, ASSIGNMENT, CURRENT, PATTERN}, found
    assert all(key.get("groupId", key.get("group")) == "decoded-group" for key, _ in last.values())
    _, member = last[MEMBER]
    assert (member["instanceId"], member["clientId"], member["serverAssignor"]) == ("one", "decoder", "range")
    # librdkafka makes one pattern of all.
    assert member["subscribedTopicRegex"] == "(^decode.*)"
    # Kafka finds the topics of a pattern later, and begins a second epoch with them.
    assert last[GROUP][1]["epoch"] == last[ASSIGNMENT_EPOCH][1]["assignmentEpoch"] in (1, 2)
    (assigned,) = last[ASSIGNMENT][1]["topicPartitions"]
    assert sorted(assigned["partitions"]) == [0, 1, 2]
    assert last[CURRENT][1]["memberEpoch"] == -2
    assert last[PATTERN][0]["regularExpression"] == "(^decode.*)" and last[PATTERN][1]["topics"] == [topic]
    assert last[OFFSET][1]["offset"] == 0
