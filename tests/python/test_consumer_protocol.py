"""Groups of the new protocol (KIP-848) with confluent-kafka: what an application sees of them."""

import json
import os
import subprocess
import sys
import time

import harness
import pytest
from conftest import TIMEOUT_S, admin, create_topic, produce_all, unique_name
from confluent_kafka import Consumer, ConsumerGroupState, ConsumerGroupType, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import NewPartitions

# Long enough that nobody is put out of its group because a machine stands still for a while: where that is waited for, it is waited for.
SESSION_MS = 20_000
# The lower bounds are lowered with the values.
QUICK = {
    # librdkafka waits as long for an answer, and what an answer said that came later it never learns.
    "group.consumer.heartbeat.interval.ms": 3500,
    "group.consumer.min.heartbeat.interval.ms": 500,
    "group.consumer.session.timeout.ms": SESSION_MS,
    "group.consumer.min.session.timeout.ms": SESSION_MS,
    "group.consumer.assignment.interval.ms": 0,
    "group.initial.rebalance.delay.ms": 0,
    "offsets.topic.replication.factor": 1,
    "offsets.topic.num.partitions": 4,
}


@pytest.fixture(scope="module")
def quick():
    broker = harness.broker_class()(QUICK).start()
    yield broker
    broker.stop()
    broker.remove()


def member(broker, group, **config):
    config = {key.replace("_", "."): value for key, value in config.items()}
    return Consumer({
        "bootstrap.servers": broker.bootstrap, "group.id": group, "group.protocol": "consumer", "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "log_level": 0, "reconnect.backoff.max.ms": 500, "topic.metadata.refresh.interval.ms": 1000,
        **config,
    })


def assigned(consumer):
    return sorted((p.topic, p.partition) for p in consumer.assignment())


def run(members, condition, timeout_s=TIMEOUT_S):
    """Polls members in turn until the condition holds; returns the messages."""
    messages, end = [], time.monotonic() + timeout_s
    while not condition(messages):
        assert time.monotonic() < end, f"assignments: {[assigned(m) for m in members]}, {len(messages)} messages"
        for consumer in members:
            message = consumer.poll(0.05)
            if message is None:
                continue
            error = message.error()
            if error is None:
                messages.append(message)
            # A topic that is about to come or go is told of, and goes on being asked for.
            elif error.code() != KafkaError.UNKNOWN_TOPIC_OR_PART and not error.retriable():
                raise KafkaException(error)
    return messages


def fatal_error(consumer):
    with pytest.raises(KafkaException) as failure:
        run([consumer], lambda _: False)
    error, = failure.value.args
    assert error.code() == KafkaError._FATAL
    return error.str()


def shares(members, topics):
    """Whether these members have all partitions of topics, each one of them, and how many each has."""
    wanted = sorted((topic, partition) for topic, count in topics.items() for partition in range(count))
    return sorted(p for m in members for p in assigned(m)) == wanted and [len(assigned(m)) for m in members]


def test_members_share_and_a_third_gets_nothing(quick):
    topic, group = create_topic(quick, partitions=2), unique_name("group")
    members = [member(quick, group) for _ in range(3)]
    for consumer in members:
        consumer.subscribe([topic])
    run(members, lambda _: sorted(shares(members, {topic: 2}) or []) == [0, 1, 1])
    # The one that has something goes, and the third gets it.
    gone = next(consumer for consumer in members if assigned(consumer))
    members.remove(gone)
    gone.close()
    run(members, lambda _: shares(members, {topic: 2}) == [1, 1])
    for consumer in members:
        consumer.close()


KILLED = """
import sys
from confluent_kafka import Consumer
consumer = Consumer({"bootstrap.servers": sys.argv[1], "group.id": sys.argv[2], "group.protocol": "consumer",
                     "auto.offset.reset": "earliest", "enable.auto.commit": False})
consumer.subscribe([sys.argv[3]])
said = None
while True:
    consumer.poll(0.1)
    now = len(consumer.assignment())
    if now != said:
        said = now
        print(said, flush=True)
"""


def test_the_partitions_of_a_killed_member_move(quick):
    topic, group = create_topic(quick, partitions=3), unique_name("group")
    staying = member(quick, group)
    staying.subscribe([topic])
    run([staying], lambda _: shares([staying], {topic: 3}))
    doomed = subprocess.Popen([sys.executable, "-c", KILLED, quick.bootstrap, group, topic], stdout=subprocess.PIPE, text=True)
    try:
        run([staying], lambda _: len(assigned(staying)) in (1, 2))
        while int(doomed.stdout.readline()) != 3 - len(assigned(staying)):
            pass
        doomed.kill()
        run([staying], lambda _: shares([staying], {topic: 3}))
    finally:
        doomed.kill()
        doomed.wait()
        staying.close()


def test_commits_are_where_a_member_goes_on_also_after_a_restart(own_broker):
    broker = own_broker(QUICK)
    topic, group = create_topic(broker), unique_name("group")
    produce_all(broker, topic, [{"value": b"%d" % n} for n in range(100)])
    first = member(broker, group)
    first.subscribe([topic])
    read = run([first], lambda messages: len(messages) >= 40)
    first.commit(offsets=[TopicPartition(topic, 0, 40)], asynchronous=False)
    broker.stop()
    broker.start()
    # The group is there as it was: its member goes on, and may commit.
    run([first], lambda messages: len(read) + len(messages) >= 100)
    first.commit(offsets=[TopicPartition(topic, 0, 60)], asynchronous=False)
    first.close()
    second = member(broker, group)
    second.subscribe([topic])
    rest = run([second], lambda messages: len(messages) >= 40)
    assert [m.offset() for m in rest] == list(range(60, 100))
    second.close()


def test_a_pattern_is_followed(quick):
    stem, group = unique_name("pattern"), unique_name("group")
    one = create_topic(quick, f"{stem}-one")
    create_topic(quick, f"other-{stem}-one")
    consumer = member(quick, group)
    consumer.subscribe([f"^{stem}-.*"])
    run([consumer], lambda _: shares([consumer], {one: 1}))
    two = create_topic(quick, f"{stem}-two", partitions=2)
    run([consumer], lambda _: shares([consumer], {one: 1, two: 2}))
    admin(quick).create_partitions([NewPartitions(one, 3)])[one].result(TIMEOUT_S)
    run([consumer], lambda _: shares([consumer], {one: 3, two: 2}))
    consumer.close()


def test_a_bad_pattern_is_an_error(quick):
    consumer = member(quick, unique_name("group"))
    # The library's own engine refers back, the broker's does not.
    consumer.subscribe([r"^(a)\1"])
    assert "regular expression" in fatal_error(consumer)
    consumer.close()


def test_a_static_member_comes_back_to_what_it_had(quick):
    topic, group = create_topic(quick, partitions=4), unique_name("group")
    one, two = member(quick, group, group_instance_id="one"), member(quick, group, group_instance_id="two")
    for consumer in (one, two):
        consumer.subscribe([topic])
    run([one, two], lambda _: shares([one, two], {topic: 4}) == [2, 2])
    had = assigned(one)
    one.close()
    # Its partitions wait for it.
    end = time.monotonic() + 2
    run([two], lambda _: time.monotonic() > end)
    assert len(assigned(two)) == 2
    one = member(quick, group, group_instance_id="one")
    one.subscribe([topic])
    run([one, two], lambda _: shares([one, two], {topic: 4}) == [2, 2])
    assert assigned(one) == had
    one.close()
    # Until its session ends.
    run([two], lambda _: shares([two], {topic: 4}))
    two.close()


def test_range_is_there_and_others_are_not(quick):
    topics, group = [create_topic(quick, partitions=3) for _ in range(2)], unique_name("group")
    members = [member(quick, group, group_remote_assignor="range") for _ in range(2)]
    for consumer in members:
        consumer.subscribe(topics)
    run(members, lambda _: sorted(shares(members, {topic: 3 for topic in topics}) or []) == [2, 4])
    for consumer in members:
        consumer.close()
    wrong = member(quick, unique_name("group"), group_remote_assignor="sticky")
    wrong.subscribe(topics)
    assert "assignor" in fatal_error(wrong)
    wrong.close()


def test_tools_see_the_group(quick):
    topic, group = create_topic(quick, partitions=2), unique_name("group")
    consumer = member(quick, group, client_id="tooled")
    consumer.subscribe([topic])
    run([consumer], lambda _: shares([consumer], {topic: 2}))
    consumer.commit(offsets=[TopicPartition(topic, 1, 0)], asynchronous=False)
    client = admin(quick)

    def listed(**filters):
        found = client.list_consumer_groups(**filters).result(TIMEOUT_S)
        assert not found.errors
        return {g.group_id: g for g in found.valid}

    assert listed()[group].type == ConsumerGroupType.CONSUMER
    assert listed()[group].state == ConsumerGroupState.STABLE
    assert group in listed(types={ConsumerGroupType.CONSUMER})
    assert group not in listed(types={ConsumerGroupType.CLASSIC})
    described = client.describe_consumer_groups([group])[group].result(TIMEOUT_S)
    assert (described.state, described.type) == (ConsumerGroupState.STABLE, ConsumerGroupType.CONSUMER)
    assert described.partition_assignor == "uniform"
    found, = described.members
    assert found.client_id == "tooled"
    assert sorted((p.topic, p.partition) for p in found.assignment.topic_partitions) == [(topic, 0), (topic, 1)]
    with pytest.raises(KafkaException) as failure:
        client.delete_consumer_groups([group])[group].result(TIMEOUT_S)
    assert failure.value.args[0].code() == KafkaError.NON_EMPTY_GROUP
    consumer.close()
    end = time.monotonic() + TIMEOUT_S
    while True:
        try:
            client.delete_consumer_groups([group])[group].result(TIMEOUT_S)
            break
        except KafkaException as error:
            # The library does not wait for the answer to its farewell for long.
            assert error.args[0].code() == KafkaError.NON_EMPTY_GROUP and time.monotonic() < end
            time.sleep(0.1)
    assert group not in listed()


@pytest.mark.skipif(not os.path.exists(harness.Ringlog.binary()), reason="the tool is not built")
def test_the_tool_describes_the_group(quick):
    topic, group = create_topic(quick, partitions=2), unique_name("group")
    produce_all(quick, topic, [{"partition": 1, "value": b"x"}] * 3)
    consumer = member(quick, group, client_id="tooled")
    consumer.subscribe([topic])
    run([consumer], lambda messages: shares([consumer], {topic: 2}) and len(messages) == 3)
    consumer.commit(offsets=[TopicPartition(topic, 1, 1)], asynchronous=False)
    command = [harness.Ringlog.binary(), "group", "describe", group, "--json", "--bootstrap-server", quick.bootstrap]
    described, = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=TIMEOUT_S).stdout)
    assert (described["state"], described["assignor"]) == ("Stable", "uniform")
    (only,) = described["members"]
    assert only["client"] == "tooled" and sorted(only["assigned"]) == [[topic, 0], [topic, 1]]
    lag = {p["partition"]: (p["committed_offset"], p["lag"], p["member"]) for p in described["partitions"]}
    assert lag == {0: (None, None, only["member"]), 1: (1, 2, only["member"])}
    consumer.close()


def test_a_group_goes_from_one_protocol_to_the_other_and_back(quick):
    topic, group = create_topic(quick, partitions=4), unique_name("group")
    classic = dict(group_protocol="classic", heartbeat_interval_ms=500, partition_assignment_strategy="range")

    def kind():
        found = admin(quick).list_consumer_groups().result(TIMEOUT_S).valid
        return next(g.type for g in found if g.group_id == group)

    old = [member(quick, group, **classic) for _ in range(2)]
    for consumer in old:
        consumer.subscribe([topic])
    run(old, lambda _: shares(old, {topic: 4}) == [2, 2])
    assert kind() == ConsumerGroupType.CLASSIC
    new = [member(quick, group)]
    new[0].subscribe([topic])
    mixed = old + new
    run(mixed, lambda _: sorted(shares(mixed, {topic: 4}) or []) == [1, 1, 2])
    assert kind() == ConsumerGroupType.CONSUMER
    new.append(member(quick, group))
    new[1].subscribe([topic])
    run(old + new, lambda _: shares(old + new, {topic: 4}) == [1, 1, 1, 1])
    for consumer in old:
        consumer.close()
    run(new, lambda _: shares(new, {topic: 4}) == [2, 2])
    # And back.
    old = [member(quick, group, **classic)]
    old[0].subscribe([topic])
    run(new + old, lambda _: sorted(shares(new + old, {topic: 4}) or []) == [1, 1, 2])
    assert kind() == ConsumerGroupType.CONSUMER
    for consumer in new:
        consumer.close()
    run(old, lambda _: shares(old, {topic: 4}))
    assert kind() == ConsumerGroupType.CLASSIC
    old[0].close()
