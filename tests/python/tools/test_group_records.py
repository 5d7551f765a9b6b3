"""The records of groups of the new protocol (KIP-848) are Kafka's: its decoder reads what is in __consumer_offsets."""

import json
import re
import subprocess
import time

import harness
from conftest import TIMEOUT_S, create_topic
from confluent_kafka import Consumer, TopicPartition

# The types of records, by Kafka's CoordinatorRecordType.
OFFSET, GROUP, MEMBER, ASSIGNMENT_EPOCH, ASSIGNMENT, CURRENT, PATTERN = 1, 3, 5, 6, 7, 8, 16


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
    consumer = Consumer({
        "bootstrap.servers": broker.bootstrap, "group.id": "decoded-group", "group.protocol": "consumer", "client.id": "decoder",
        "group.instance.id": "one", "group.remote.assignor": "range", "enable.auto.commit": False, "log_level": 0,
    })
    consumer.subscribe(["^decode.*"])
    end = time.monotonic() + TIMEOUT_S
    while len(consumer.assignment()) != 3:
        assert time.monotonic() < end
        consumer.poll(0.1)
    consumer.commit(offsets=[TopicPartition(topic, 2, 0)], asynchronous=False)
    consumer.close()
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
