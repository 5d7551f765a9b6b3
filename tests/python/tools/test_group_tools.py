"""Kafka's command-line tools for consumer groups, and its consumers that are tools, as members of groups."""

import contextlib
import datetime
import json
import threading
import time

import pytest
from conftest import TIMEOUT_S, admin, consumer, create_topic, produce_all, unique_name
from confluent_kafka import ConsumerGroupState, ConsumerGroupTopicPartitions, ConsumerGroupType, TopicPartition
from test_kafka_tools import TOOLS, run

GROUPS = TOOLS + "consumer.group.ConsumerGroupCommand"


def consumer_groups(broker, *arguments, **options):
    """Runs the tool, which gives up after five seconds if it is not told otherwise."""
    return run(GROUPS, "--bootstrap-server", broker.bootstrap, "--timeout", 60000, *arguments, **options)


@pytest.fixture
def groups(broker):
    return lambda *arguments, **options: consumer_groups(broker, *arguments, **options)


def table(text):
    """The rows of what the tool prints, by its own headings."""
    lines = [line.split() for line in text.splitlines() if line.strip()]
    start = next(n for n, line in enumerate(lines) if line[0] == "GROUP")
    return [dict(zip(lines[start], line)) for line in lines[start + 1:]]


@contextlib.contextmanager
def member(broker, group, topic, client_id="member", protocol="classic"):
    """A member of the group that polls until the block ends, and has left it then."""
    timeouts = {"heartbeat_interval_ms": 500} if protocol == "classic" else {}
    client = consumer(broker, group_id=group, client_id=client_id, auto_offset_reset="earliest", group_protocol=protocol, **timeouts)
    assigned, ends = threading.Event(), threading.Event()

    def poll():
        client.subscribe([topic], on_assign=lambda *_: assigned.set())
        while not ends.is_set():
            client.poll(0.1)
        client.close()

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        assert assigned.wait(TIMEOUT_S)
        yield
    finally:
        ends.set()
        thread.join(TIMEOUT_S)
    # The library does not wait for the answer to its farewell for long.
    end = time.monotonic() + TIMEOUT_S
    while not is_empty(broker, group):
        assert time.monotonic() < end, f"{group} still has a member"
        time.sleep(0.1)


def commit(broker, group, offsets):
    """Commits as a client that is no member."""
    client = consumer(broker, group_id=group)
    partitions = client.commit(offsets=[TopicPartition(t, p, o) for (t, p), o in offsets.items()], asynchronous=False)
    client.close()
    assert all(p.error is None for p in partitions)


def committed(broker, group):
    [future] = admin(broker).list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
    return {(p.topic, p.partition): p.offset for p in future.result(TIMEOUT_S).topic_partitions}


def is_empty(broker, group):
    [future] = admin(broker).describe_consumer_groups([group]).values()
    return future.result(TIMEOUT_S).state == ConsumerGroupState.EMPTY


def test_list_and_describe(broker, groups, topic):
    name, group = topic(partitions=3), unique_name("described")
    produce_all(broker, name, [{"partition": p, "value": b"v"} for p in range(3) for _ in range(10)])
    commit(broker, group, {(name, 0): 4, (name, 1): 10})
    rows = table(groups("--describe", "--group", group))
    found = {(r["PARTITION"], r["CURRENT-OFFSET"], r["LOG-END-OFFSET"], r["LAG"], r["CONSUMER-ID"]) for r in rows}
    assert found == {("0", "4", "10", "6", "-"), ("1", "10", "10", "0", "-")}
    with member(broker, group, name):
        assert group in groups("--list").split()
        listed = {r["GROUP"]: r for r in table(groups("--list", "--state", "--type"))}
        assert (listed[group]["TYPE"], listed[group]["STATE"]) == ("Classic", "Stable")
        rows = table(groups("--describe", "--group", group))
        assert sorted(r["PARTITION"] for r in rows) == ["0", "1", "2"]
        assert all(r["TOPIC"] == name and r["CONSUMER-ID"].startswith("member-") and r["HOST"] == "/127.0.0.1" for r in rows)
        assert all(r["CLIENT-ID"] == "member" for r in rows)
        [row] = table(groups("--describe", "--group", group, "--members"))
        assert row["CONSUMER-ID"].startswith("member-") and row["#PARTITIONS"] == "3"
        assert f"{name}:0,1,2" in groups("--describe", "--group", group, "--members", "--verbose")
        text = groups("--describe", "--group", group, "--state")
        assert "Stable" in text and "range" in text and broker.bootstrap in text
        # What needs an empty group is refused.
        assert "GroupNotEmptyException" in groups("--delete", "--group", group, status=None) and group in groups("--list").split()
        refused = groups("--reset-offsets", "--group", group, "--topic", name, "--to-earliest", "--execute", status=None)
        assert "only be reset if the group" in refused, refused
    assert "has no active members" in groups("--describe", "--group", group, "--state")


def test_reset_offsets_in_every_mode(broker, groups, topic, tmp_path):
    name, group = topic(partitions=2), unique_name("reset")
    start = int(time.time() * 1000) - 100_000
    produce_all(broker, name, [{"partition": p, "value": b"v", "timestamp": start + 1000 * n} for p in range(2) for n in range(20)])
    commit(broker, group, {(name, 0): 5, (name, 1): 7})

    def reset(*how, topics=name, expected):
        groups("--reset-offsets", "--group", group, "--topic", topics, *how, "--execute")
        assert committed(broker, group) == {(name, p): o for p, o in enumerate(expected)}

    dry = table(groups("--reset-offsets", "--group", group, "--topic", name, "--to-latest", "--dry-run"))
    assert sorted((r["PARTITION"], r["NEW-OFFSET"]) for r in dry) == [("0", "20"), ("1", "20")]
    assert committed(broker, group) == {(name, 0): 5, (name, 1): 7}, "a dry run changes nothing"
    plan = groups("--reset-offsets", "--group", group, "--topic", name, "--to-current", "--export", "--dry-run")
    reset("--to-earliest", expected=[0, 0])
    reset("--to-latest", expected=[20, 20])
    reset("--to-offset", 9, expected=[9, 9])
    reset("--to-offset", 99, expected=[20, 20])
    reset("--shift-by", -3, expected=[17, 17])
    reset("--shift-by", 2, topics=f"{name}:1", expected=[17, 19])
    reset("--to-current", expected=[17, 19])
    at = datetime.datetime.fromtimestamp((start + 3500) / 1000, datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%f")[:-3]
    reset("--to-datetime", at, expected=[4, 4])
    reset("--by-duration", "PT10S", expected=[20, 20])
    reset("--by-duration", "P1D", expected=[0, 0])
    file = tmp_path / "plan.csv"
    file.write_text("".join(f"{line}\n" for line in plan.splitlines() if line.startswith(f'"{name}"') or line.startswith(f"{name},")))
    groups("--reset-offsets", "--group", group, "--from-file", file, "--execute")
    assert committed(broker, group) == {(name, 0): 5, (name, 1): 7}


def test_delete_offsets_and_groups(broker, groups, topic):
    name, other, group = topic(), topic(), unique_name("deleted")
    commit(broker, group, {(name, 0): 0, (other, 0): 0})
    groups("--delete-offsets", "--group", group, "--topic", name)
    assert committed(broker, group) == {(other, 0): 0}
    assert f"('{group}') was successful" in groups("--delete", "--group", group)
    assert group not in groups("--list").split()
    assert "GroupIdNotFoundException" in groups("--delete", "--group", group, status=None)


def test_a_group_of_the_new_protocol(broker, groups, topic):
    name, group = topic(partitions=3), unique_name("new")
    produce_all(broker, name, [{"partition": p, "value": b"v"} for p in range(3) for _ in range(10)])
    with member(broker, group, name, protocol="consumer"):
        listed = {r["GROUP"]: r for r in table(groups("--list", "--state", "--type"))}
        assert (listed[group]["TYPE"], listed[group]["STATE"]) == ("Consumer", "Stable")
        rows = table(groups("--describe", "--group", group))
        assert sorted((r["TOPIC"], r["PARTITION"], r["LOG-END-OFFSET"]) for r in rows) == [(name, p, "10") for p in "012"]
        assert all(r["CLIENT-ID"] == "member" and r["HOST"] == "/127.0.0.1" and r["CONSUMER-ID"] != "-" for r in rows)
        [row] = table(groups("--describe", "--group", group, "--members", "--verbose"))
        assert (row["#PARTITIONS"], row["CURRENT-ASSIGNMENT"], row["TARGET-ASSIGNMENT"]) == ("3", f"{name}:0,1,2", f"{name}:0,1,2")
        assert row["CURRENT-EPOCH"] == row["TARGET-EPOCH"] != "-"
        state = groups("--describe", "--group", group, "--state", "--verbose")
        assert "Stable" in state and "uniform" in state and row["CURRENT-EPOCH"] in state.splitlines()[-1].split(), state
        refused = groups("--reset-offsets", "--group", group, "--topic", name, "--to-earliest", "--execute", status=None)
        assert "only be reset if the group" in refused, refused
        assert "GroupNotEmptyException" in groups("--delete", "--group", group, status=None)
    assert "has no active members" in groups("--describe", "--group", group, "--members")
    for how, expected in ((("--to-offset", 4), 4), (("--shift-by", 3), 7), (("--to-earliest",), 0), (("--to-latest",), 10)):
        groups("--reset-offsets", "--group", group, "--topic", name, *how, "--execute")
        assert committed(broker, group) == {(name, p): expected for p in range(3)}, how
    assert {(r["PARTITION"], r["LAG"]) for r in table(groups("--describe", "--group", group))} == {("0", "0"), ("1", "0"), ("2", "0")}
    groups("--delete-offsets", "--group", group, "--topic", f"{name}:1")
    assert committed(broker, group) == {(name, 0): 10, (name, 2): 10}
    assert f"('{group}') was successful" in groups("--delete", "--group", group)
    assert group not in groups("--list").split()


def test_all_groups_all_topics_and_filters(own_broker):
    broker = own_broker({"offsets.topic.num.partitions": 4})
    one, two = (create_topic(broker, unique_name(), 2) for _ in range(2))
    for name in (one, two):
        produce_all(broker, name, [{"partition": p, "value": b"v"} for p in range(2) for _ in range(10)])

    def groups(*arguments, **options):
        return consumer_groups(broker, *arguments, **options)

    def listed(*filters):
        return {r["GROUP"] for r in table(groups("--list", *filters))}

    commit(broker, "empty", {(one, 0): 1, (two, 1): 2})
    with member(broker, "old", one), member(broker, "new", two, protocol="consumer"):
        assert listed("--state") == {"empty", "old", "new"}
        assert listed("--state", "stable") == {"old", "new"} and listed("--state", "Empty") == {"empty"}
        assert listed("--state", "Empty,Stable") == {"empty", "old", "new"}
        assert listed("--type", "consumer") == {"new"} and listed("--type", "classic") == {"empty", "old"}
        text = groups("--describe", "--all-groups")
        found = {tuple(line.split()[:4]) for line in text.splitlines() if line.split()[:1] in (["empty"], ["old"], ["new"])}
        assert found >= {("empty", one, "0", "1"), ("empty", two, "1", "2")}
        assert {row[:3] for row in found} == {("empty", one, "0"), ("empty", two, "1"), *((g, t, p) for g, t in (("old", one), ("new", two)) for p in "01")}
        text = groups("--describe", "--all-groups", "--state")
        assert {line.split()[0] for line in text.splitlines() if "127.0.0.1" in line} == {"empty", "old", "new"}
        assert groups("--describe", "--all-groups", "--members").count("/127.0.0.1") == 2
    commit(broker, "new", {(two, 0): 3})
    groups("--reset-offsets", "--group", "empty", "--all-topics", "--to-offset", 9, "--execute")
    assert (committed(broker, "empty"), committed(broker, "new")) == ({(one, 0): 9, (two, 1): 9}, {(two, 0): 3})
    groups("--reset-offsets", "--all-groups", "--all-topics", "--shift-by", -1, "--execute")
    assert (committed(broker, "empty"), committed(broker, "new")) == ({(one, 0): 8, (two, 1): 8}, {(two, 0): 2})
    groups("--delete", "--all-groups")
    assert groups("--list").split() == []


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_console_consumers_of_a_group_go_on(broker, topic, protocol):
    name, group = topic(), unique_name("console")
    produce_all(broker, name, [{"value": b"%d" % n} for n in range(10)])

    def consume(count):
        text = run(
            TOOLS + "consumer.ConsoleConsumer", "--bootstrap-server", broker.bootstrap, "--topic", name, "--group", group, "--from-beginning",
            "--max-messages", count, "--timeout-ms", 60000, "--command-property", f"group.protocol={protocol}",
        )
        return [line for line in text.splitlines() if line.isdigit()]

    assert consume(4) == ["0", "1", "2", "3"]
    assert consume(6) == ["4", "5", "6", "7", "8", "9"]
    [future] = admin(broker).describe_consumer_groups([group]).values()
    assert future.result(TIMEOUT_S).type == (ConsumerGroupType.CONSUMER if protocol == "consumer" else ConsumerGroupType.CLASSIC)


def test_verifiable_consumer(broker, topic):
    name, group = topic(partitions=3), unique_name("verifiable")
    produce_all(broker, name, [{"partition": n % 3, "value": b"%d" % n} for n in range(300)])
    text = run(
        TOOLS + "VerifiableConsumer", "--bootstrap-server", broker.bootstrap, "--topic", name, "--group-id", group, "--max-messages", 300,
        "--session-timeout", 45000, "--verbose",
    )
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    names = [e["name"] for e in events]
    assert {"startup_complete", "partitions_assigned", "shutdown_complete"} <= set(names)
    read = {(e["partition"], e["offset"], e["value"]) for e in events if e["name"] == "record_data"}
    assert read == {(n % 3, n // 3, str(n)) for n in range(300)}
    last = {p["partition"]: p["offset"] for e in events if e["name"] == "offsets_committed" and e["success"] for p in e["offsets"]}
    assert last == {0: 100, 1: 100, 2: 100}
    assert committed(broker, group) == {(name, p): 100 for p in range(3)}


def test_consumer_performance(broker, topic):
    name = topic(partitions=3)
    produce_all(broker, name, [{"partition": n % 3, "value": bytes(200)} for n in range(20000)])
    text = run(
        TOOLS + "ConsumerPerformance", "--bootstrap-server", broker.bootstrap, "--topic", name, "--num-records", 20000, "--timeout", 60000,
    )
    header, row = [[cell.strip() for cell in line.split(",")] for line in text.splitlines() if "," in line][-2:]
    assert int(float(row[header.index("data.consumed.in.nMsg")])) == 20000, text


def test_configs_of_groups(broker, groups):
    group, command = unique_name("configured"), "kafka.admin.ConfigCommand"

    def configs(*arguments, **options):
        return run(command, "--bootstrap-server", broker.bootstrap, "--entity-type", "groups", *arguments, **options)

    assert "doesn't exist and doesn't have dynamic config" in configs("--describe", "--entity-name", group)
    alter = ("--alter", "--entity-name", group)
    assert "Completed updating" in configs(*alter, "--add-config", "consumer.session.timeout.ms=50000,consumer.heartbeat.interval.ms=6000")
    described = configs("--describe", "--entity-name", group)
    assert f"Dynamic configs for group {group} are:" in described
    assert "consumer.session.timeout.ms=50000 " in described and "consumer.heartbeat.interval.ms=6000 " in described
    assert "DYNAMIC_GROUP_CONFIG:consumer.session.timeout.ms=50000, DEFAULT_CONFIG:group.consumer.session.timeout.ms=45000" in described
    assert f"Dynamic configs for group {group} are:" in configs("--describe")
    assert "consumer.assignment.interval.ms=" in configs("--describe", "--all", "--entity-name", group)
    refused = configs(*alter, "--add-config", "consumer.heartbeat.interval.ms=1", status=1)
    assert "InvalidConfigurationException" in refused and "group.consumer.min.heartbeat.interval.ms" in refused
    assert "Unknown group config name: no.such" in configs(*alter, "--add-config", "no.such=1", status=1)
    configs(*alter, "--delete-config", "consumer.session.timeout.ms")
    left = configs("--describe", "--entity-name", group)
    assert "consumer.session.timeout.ms" not in left and "consumer.heartbeat.interval.ms=6000 " in left
    configs(*alter, "--delete-config", "consumer.heartbeat.interval.ms")
    assert "doesn't exist" in configs("--describe", "--entity-name", group)
