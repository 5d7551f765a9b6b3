"""What no sane member of a group sends: each gets Kafka's error code or a closed connection, and other groups notice nothing. With
BROKER=kafka it says what Kafka does; left out there are subscriptions that Kafka 4.3 leaves without an answer, and a pattern that it takes."""

import os
import struct
import time

import pytest
from conftest import TIMEOUT_S, create_topic, unique_name
from wire import Connection, compact, string

COMMIT, FETCH, FIND_COORDINATOR, JOIN, HEARTBEAT, LEAVE, SYNC, CONSUMER_HEARTBEAT = 8, 9, 10, 11, 12, 13, 14, 68
DESCRIBE, DELETE, OFFSET_DELETE = 15, 42, 47
NONE, UNKNOWN_TOPIC, METADATA_TOO_LARGE, ILLEGAL_GENERATION, INCONSISTENT_PROTOCOL = 0, 3, 12, 22, 23
INVALID_GROUP_ID, UNKNOWN_MEMBER, INVALID_SESSION_TIMEOUT, INVALID_REQUEST, GROUP_ID_NOT_FOUND = 24, 25, 26, 42, 69
REBALANCE_IN_PROGRESS, NON_EMPTY_GROUP, MEMBER_ID_REQUIRED, FENCED_INSTANCE_ID, SUBSCRIBED_TO_TOPIC = 27, 68, 79, 82, 86
UNKNOWN_TOPIC_ID, FENCED_MEMBER_EPOCH, UNSUPPORTED_ASSIGNOR, INVALID_PATTERN = 100, 110, 112, 128

not_kafka = pytest.mark.skipif(os.environ.get("BROKER") == "kafka", reason="Kafka 4.3 leaves it without an answer, or takes it")

SUBSCRIPTION = struct.pack(">hi", 0, 1) + string("t") + struct.pack(">i", -1)


def ask(broker, key, version, body, flexible=False):
    """The answer without its correlation id and, of a flexible version, without the header's tags; None where the broker has closed."""
    with Connection(broker) as connection:
        connection.request(key, version, 7, body, flexible)
        answer = connection.receive()
    return None if answer is None else answer[5 if flexible else 4:]


def error(answer, at=0):
    assert answer is not None, "the connection was closed"
    return struct.unpack_from(">h", answer, at)[0]


def blob(data):
    return struct.pack(">i", len(data)) + data


def join_result(answer):
    """(error, generation, member id) of JoinGroup v2 to v5."""
    code, generation = struct.unpack_from(">hi", answer, 4)
    at = 10
    for _ in range(3):  # the protocol, the leader, the member
        (size,) = struct.unpack_from(">h", answer, at)
        text = answer[at + 2:at + 2 + max(size, 0)].decode()
        at += 2 + max(size, 0)
    return code, generation, text


def join(broker, group, member="", session_ms=30_000, kind="consumer", protocols=(("range", SUBSCRIPTION),)):
    """JoinGroup v2; gives (error, generation, member id)."""
    body = string(group) + struct.pack(">ii", session_ms, 30_000) + string(member) + string(kind) + struct.pack(">i", len(protocols))
    return join_result(ask(broker, JOIN, 2, body + b"".join(string(name) + blob(data) for name, data in protocols)))


def sync(broker, group, generation, member, assignments=()):
    body = string(group) + struct.pack(">i", generation) + string(member) + struct.pack(">i", len(assignments))
    return error(ask(broker, SYNC, 0, body + b"".join(string(name) + blob(data) for name, data in assignments)))


def heartbeat(broker, group, generation, member):
    return error(ask(broker, HEARTBEAT, 0, string(group) + struct.pack(">i", generation) + string(member)))


def commit(broker, group, partitions, generation=-1, member="", metadata="m"):
    """OffsetCommit v2 of offset 5; gives the error codes by (topic, partition)."""
    body = string(group) + struct.pack(">i", generation) + string(member) + struct.pack(">qi", -1, len(partitions))
    for topic, partition in partitions:
        body += string(topic) + struct.pack(">iiq", 1, partition, 5) + string(metadata)
    answer = ask(broker, COMMIT, 2, body)
    assert answer is not None, "the connection was closed"
    (count,) = struct.unpack_from(">i", answer)
    at, codes = 4, {}
    for _ in range(count):
        (size,) = struct.unpack_from(">h", answer, at)
        topic = answer[at + 2:at + 2 + size].decode()
        (partitions,) = struct.unpack_from(">i", answer, at + 2 + size)
        at += 6 + size
        for _ in range(partitions):
            partition, code = struct.unpack_from(">ih", answer, at)
            codes[topic, partition] = code
            at += 6
    return codes


def committed(broker, group, topic, partition=0):
    answer = ask(broker, FETCH, 1, string(group) + struct.pack(">i", 1) + string(topic) + struct.pack(">ii", 1, partition))
    return struct.unpack_from(">q", answer, 4 + 2 + len(topic.encode()) + 4 + 4)[0]


class Member:
    """The only member of a stable classic group."""

    def __init__(self, broker, stem="stable", data=SUBSCRIPTION, assignment=b"", session_ms=30_000):
        self.broker, self.group = broker, unique_name(stem)
        code, self.generation, self.id = join(broker, self.group, protocols=[("range", data)], session_ms=session_ms)
        assert code == NONE
        assert sync(broker, self.group, self.generation, self.id, [(self.id, assignment)]) == NONE

    def heartbeat(self):
        return heartbeat(self.broker, self.group, self.generation, self.id)


def wait_for_groups(broker):
    """Who asks for a coordinator first makes the topic of the groups, and its partitions have to be there."""
    end = time.monotonic() + TIMEOUT_S
    while error(ask(broker, FIND_COORDINATOR, 0, string("g"))) != NONE or heartbeat(broker, "g", 0, "m") != UNKNOWN_MEMBER:
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.fixture(scope="module")
def bystander(broker):
    wait_for_groups(broker)
    return Member(broker, "bystander", session_ms=600_000), create_topic(broker)


@pytest.fixture(autouse=True)
def others_notice_nothing(broker, bystander):
    yield
    member, topic = bystander
    assert broker.is_running()
    assert member.heartbeat() == NONE
    assert commit(broker, member.group, [(topic, 0)], member.generation, member.id) == {(topic, 0): NONE}
    assert committed(broker, member.group, topic) == 5


@pytest.mark.parametrize("what, wanted, arguments", [
    ("a group without a name", INVALID_GROUP_ID, {"group": ""}),
    ("a session of 1 ms", INVALID_SESSION_TIMEOUT, {"session_ms": 1}),
    ("a session of weeks", INVALID_SESSION_TIMEOUT, {"session_ms": 2**31 - 1}),
    ("a session below nothing", INVALID_SESSION_TIMEOUT, {"session_ms": -(2**31)}),
    ("a member that nobody knows", UNKNOWN_MEMBER, {"member": "nobody"}),
    ("no protocol", INCONSISTENT_PROTOCOL, {"protocols": ()}),
    ("no type of protocol", INCONSISTENT_PROTOCOL, {"kind": ""}),
])
def test_joins_that_cannot_be(broker, what, wanted, arguments):
    assert join(broker, **{"group": unique_name("refused"), **arguments})[0] == wanted


def test_a_member_that_speaks_what_the_others_do_not(broker):
    member = Member(broker)
    assert join(broker, member.group, kind="connect")[0] == INCONSISTENT_PROTOCOL
    assert join(broker, member.group, protocols=[("another", SUBSCRIPTION)])[0] == INCONSISTENT_PROTOCOL
    assert member.heartbeat() == NONE, "nobody was disturbed"


MALFORMED = {
    "nothing": b"", "one byte": b"\0", "noise": bytes(range(255, 155, -1)), "a version below zero": b"\xff\xfe" + SUBSCRIPTION[2:],
    "two thousand million topics": struct.pack(">hi", 0, 2**31 - 1), "topics below zero": struct.pack(">hi", 3, -7),
    "a name beyond the end": struct.pack(">hih", 1, 1, 32767) + b"t", "user data beyond the end": SUBSCRIPTION[:-4] + struct.pack(">i", 2**30),
    "a name that is no text": struct.pack(">hih", 0, 1, 2) + b"\xff\xfe" + struct.pack(">i", -1), "a megabyte": bytes(1_000_000),
}


@not_kafka
@pytest.mark.parametrize("data", MALFORMED.values(), ids=MALFORMED)
def test_malformed_subscriptions_and_assignments_are_the_members_own(broker, topic, data):
    # To a classic group's coordinator they are bytes: it keeps them, and what it wants to know of them it does not find.
    member, name = Member(broker, data=data, assignment=data), topic()
    assert member.heartbeat() == NONE
    assert commit(broker, member.group, [(name, 0)], member.generation, member.id) == {(name, 0): NONE}
    assert committed(broker, member.group, name) == 5
    code, generation, _ = join(broker, member.group, member.id, protocols=[("range", SUBSCRIPTION)])
    assert (code, generation) == (NONE, member.generation + 1)


@not_kafka
def test_a_group_of_malformed_members_does_not_change_its_protocol(broker):
    member = Member(broker, data=MALFORMED["noise"], assignment=MALFORMED["noise"])
    assert consumer_heartbeat(broker, member.group) == GROUP_ID_NOT_FOUND
    assert member.heartbeat() == NONE


def test_wrong_generations_and_unknown_members(broker, topic):
    member, name = Member(broker), topic()
    for generation in (member.generation + 1, member.generation - 1, 2**31 - 1):
        assert heartbeat(broker, member.group, generation, member.id) == ILLEGAL_GENERATION
        assert sync(broker, member.group, generation, member.id) == ILLEGAL_GENERATION
        assert commit(broker, member.group, [(name, 0)], generation, member.id) == {(name, 0): ILLEGAL_GENERATION}
    for group in (member.group, unique_name("absent")):
        assert heartbeat(broker, group, member.generation, "nobody") == UNKNOWN_MEMBER
        assert sync(broker, group, member.generation, "nobody") == UNKNOWN_MEMBER
        assert error(ask(broker, LEAVE, 0, string(group) + string("nobody"))) == UNKNOWN_MEMBER
    assert commit(broker, member.group, [(name, 0)], member.generation, "nobody") == {(name, 0): UNKNOWN_MEMBER}
    assert commit(broker, member.group, [(name, 0)]) == {(name, 0): UNKNOWN_MEMBER}, "who is no member commits for an empty group only"
    assert commit(broker, unique_name("absent"), [(name, 0)], 3, "nobody") == {(name, 0): ILLEGAL_GENERATION}
    assert committed(broker, member.group, name) == -1, "nothing of it was taken"
    assert member.heartbeat() == NONE


def test_commits_to_what_is_not_there(broker, topic):
    group, name = unique_name("commits"), topic(partitions=2)
    wanted = {
        (name, 0): NONE, (name, 2): UNKNOWN_TOPIC, (name, -1): UNKNOWN_TOPIC, (name, 2**31 - 1): UNKNOWN_TOPIC, ("absent", 0): UNKNOWN_TOPIC,
        ("no/name", 0): UNKNOWN_TOPIC, ("", 0): UNKNOWN_TOPIC, ("x" * 300, 0): UNKNOWN_TOPIC, (name, 1): NONE,
    }
    assert commit(broker, group, list(wanted)) == wanted
    assert [committed(broker, group, name, p) for p in (0, 1, 2)] == [5, 5, -1], "what is there is committed"
    assert commit(broker, group, [(name, 0)], metadata="x" * 4097) == {(name, 0): METADATA_TOO_LARGE}
    assert commit(broker, group, [(name, 0)], metadata="x" * 4096) == {(name, 0): NONE}
    assert commit(broker, group, [(name, 0)], metadata="é" * 4096) == {(name, 0): NONE}, "characters are counted"


def test_a_commit_by_an_id_that_no_topic_has(broker):
    unknown = bytes(range(16))
    partition = struct.pack(">iqi", 0, 5, -1) + b"\0\0"
    body = compact(unique_name("ids")) + struct.pack(">i", -1) + compact("") + b"\0" + b"\2" + unknown + b"\2" + partition + b"\0" + b"\0"
    answer = ask(broker, COMMIT, 10, body, flexible=True)
    assert answer[4:21] == b"\2" + unknown and error(answer, 21 + 1 + 4) == UNKNOWN_TOPIC_ID


@pytest.mark.parametrize("key, version, body", [
    (JOIN, 2, string("g") + struct.pack(">ii", 30_000, 30_000) + string("") + string("consumer") + struct.pack(">i", 2**31 - 1)),
    (JOIN, 2, string("g") + struct.pack(">ii", 30_000, 30_000) + string("") + string("consumer") + struct.pack(">i", 1) + string("range")
     + struct.pack(">i", 2**31 - 1)),
    (JOIN, 2, struct.pack(">h", 32767) + b"g"),
    (SYNC, 0, string("g") + struct.pack(">i", 1) + string("m") + struct.pack(">i", 50_000_000)),
    (HEARTBEAT, 0, string("g")),
    (COMMIT, 2, string("g") + struct.pack(">i", -1) + string("") + struct.pack(">qi", -1, 2**31 - 1)),
    (COMMIT, 2, string("g") + struct.pack(">i", -1) + string("") + struct.pack(">qi", -1, 1) + string("t") + struct.pack(">i", 2**31 - 1)),
    (FETCH, 1, string("g") + struct.pack(">i", 2**31 - 1)),
])
def test_claims_beyond_the_request_are_closed(broker, key, version, body):
    assert ask(broker, key, version, body) is None


def consumer_heartbeat(
    broker, group, member="m-1", epoch=0, rebalance_ms=30_000, topics=("t",), assignor=None, owned=(), pattern=None, give_member=False,
):
    """ConsumerGroupHeartbeat v1; gives the error code, or it and the member's epoch."""

    def compact(text):
        return b"\0" if text is None else bytes([len(text) + 1]) + text.encode()

    names = b"\0" if topics is None else bytes([len(topics) + 1]) + b"".join(map(compact, topics))
    partitions = b"\0" if owned is None else bytes([len(owned) + 1]) + b"".join(topic + b"\2" + struct.pack(">i", 0) + b"\0" for topic in owned)
    body = compact(group) + compact(member) + struct.pack(">i", epoch) + b"\0\0" + struct.pack(">i", rebalance_ms)
    answer = ask(broker, CONSUMER_HEARTBEAT, 1, body + names + compact(pattern) + compact(assignor) + partitions + b"\0", flexible=True)
    code = error(answer, 4)
    if not give_member:
        return code
    at = 7 + max(answer[6] - 1, 0)  # behind the message
    at += 1 + max(answer[at] - 1, 0)  # behind the member's id
    return code, struct.unpack_from(">i", answer, at)[0]


@pytest.mark.parametrize("what, wanted, arguments", [
    ("a group without a name", INVALID_REQUEST, {"group": ""}),
    ("a member without an id", INVALID_REQUEST, {"member": ""}),
    ("an epoch that is none", INVALID_REQUEST, {"epoch": -3}),
    ("no time to rebalance", INVALID_REQUEST, {"rebalance_ms": -1}),
    ("no subscription", INVALID_REQUEST, {"topics": None}),
    ("partitions before it has joined", INVALID_REQUEST, {"owned": (bytes(range(16)),)}),
    ("an assignor that nobody has", UNSUPPORTED_ASSIGNOR, {"assignor": "magic"}),
    ("a group that is not there", GROUP_ID_NOT_FOUND, {"epoch": 5, "topics": None, "owned": None}),
    ("a pattern that is none", INVALID_PATTERN, {"pattern": "(", "topics": None}),
])
def test_heartbeats_of_the_new_protocol_that_cannot_be(broker, what, wanted, arguments):
    assert consumer_heartbeat(broker, **{"group": unique_name("refused"), **arguments}) == wanted


@not_kafka
def test_a_pattern_that_would_explode_is_refused(broker):
    assert consumer_heartbeat(broker, unique_name("bomb"), topics=None, pattern="((a{0,100}){0,100}){0,100}") == INVALID_PATTERN


def test_wrong_epochs_and_members_of_the_new_protocol(broker):
    group = unique_name("epochs")
    code, epoch = consumer_heartbeat(broker, group, give_member=True)
    assert code == NONE and epoch > 0
    again = {"topics": None, "rebalance_ms": -1, "owned": None}
    assert consumer_heartbeat(broker, group, epoch=epoch, **again) == NONE
    for wrong in (epoch + 1, 2**31 - 1):
        assert consumer_heartbeat(broker, group, epoch=wrong, **again) == FENCED_MEMBER_EPOCH
    assert consumer_heartbeat(broker, group, "nobody", epoch=epoch, **again) == UNKNOWN_MEMBER
    assert consumer_heartbeat(broker, group, epoch=epoch, **again) == NONE
    assert consumer_heartbeat(broker, group, epoch=-1, **again) == NONE


def test_long_names_are_taken_or_refused(broker, topic):
    name = topic()
    group = "g" * 30_000
    code = commit(broker, group, [(name, 0)])[name, 0]
    assert code in (NONE, INVALID_GROUP_ID), code
    assert committed(broker, group, name) == (5 if code == NONE else -1)


def nullable(text):
    return struct.pack(">h", -1) if text is None else string(text)


def join_frame(group, member="", instance=None):
    """The body of JoinGroup v5."""
    body = string(group) + struct.pack(">ii", 30_000, 30_000) + string(member) + nullable(instance) + string("consumer")
    return body + struct.pack(">i", 1) + string("range") + blob(SUBSCRIPTION)


def test_a_new_member_is_told_its_id_before_it_is_in(broker):
    group = unique_name("ids")
    code, generation, member = join_result(ask(broker, JOIN, 5, join_frame(group)))
    assert (code, generation, bool(member)) == (MEMBER_ID_REQUIRED, -1, True)
    assert join_result(ask(broker, JOIN, 5, join_frame(group, "another"))) == (UNKNOWN_MEMBER, -1, "another")
    code, generation, again = join_result(ask(broker, JOIN, 5, join_frame(group, member)))
    assert (code, generation, again) == (NONE, 1, member)


def test_who_takes_an_instance_id_fences_who_had_it(broker):
    group = unique_name("static")
    code, generation, first = join_result(ask(broker, JOIN, 5, join_frame(group, instance="i")))
    assert code == NONE, "who has an instance id comes in at once"
    sync_as = lambda member: string(group) + struct.pack(">i", generation) + string(member) + string("i")  # noqa: E731
    assigned = struct.pack(">i", 1) + string(first) + blob(b"part")
    assert error(ask(broker, SYNC, 3, sync_as(first) + assigned), 4) == NONE
    code, same, second = join_result(ask(broker, JOIN, 5, join_frame(group, instance="i")))
    assert (code, same) == (NONE, generation) and second != first, "nothing changed, and nobody is disturbed"
    assert error(ask(broker, HEARTBEAT, 3, sync_as(first)), 4) == FENCED_INSTANCE_ID
    assert error(ask(broker, SYNC, 3, sync_as(first) + struct.pack(">i", 0)), 4) == FENCED_INSTANCE_ID
    assert join_result(ask(broker, JOIN, 5, join_frame(group, first, "i")))[0] == FENCED_INSTANCE_ID
    body = string(group) + struct.pack(">i", 1) + string(first) + string("i")
    answer = ask(broker, LEAVE, 3, body)
    assert error(answer, 4) == NONE and error(answer, len(answer) - 2) == FENCED_INSTANCE_ID
    assert error(ask(broker, HEARTBEAT, 3, sync_as(second)), 4) == NONE
    unknown = string(group) + struct.pack(">i", generation) + string(second) + string("nobody")
    assert error(ask(broker, HEARTBEAT, 3, unknown), 4) == UNKNOWN_MEMBER


def test_while_a_group_prepares_and_while_it_waits_for_its_parts(broker, topic):
    member, name = Member(broker), topic()
    with Connection(broker) as second:
        second.request(JOIN, 2, 7, string(member.group) + struct.pack(">ii", 30_000, 30_000) + string("") + string("consumer")
                       + struct.pack(">i", 1) + string("range") + blob(SUBSCRIPTION))
        end = time.monotonic() + TIMEOUT_S
        while member.heartbeat() == NONE:
            assert time.monotonic() < end
            time.sleep(0.01)
        # It prepares.
        assert member.heartbeat() == REBALANCE_IN_PROGRESS
        assert sync(broker, member.group, member.generation, member.id) == REBALANCE_IN_PROGRESS
        assert commit(broker, member.group, [(name, 0)], member.generation, member.id) == {(name, 0): NONE}
        assert commit(broker, member.group, [(name, 0)], member.generation + 1, member.id) == {(name, 0): ILLEGAL_GENERATION}
        code, generation, _ = join(broker, member.group, member.id)
        assert (code, generation) == (NONE, member.generation + 1)
        assert error(second.receive(), 8) == NONE
        # It waits for what its leader assigns.
        assert commit(broker, member.group, [(name, 0)], generation, member.id) == {(name, 0): REBALANCE_IN_PROGRESS}
        assert heartbeat(broker, member.group, generation, member.id) == NONE
        assert heartbeat(broker, member.group, generation - 1, member.id) == ILLEGAL_GENERATION
        assert sync(broker, member.group, generation - 1, member.id) == ILLEGAL_GENERATION
        assert sync(broker, member.group, generation, member.id, [(member.id, b"")]) == NONE
        assert commit(broker, member.group, [(name, 0)], generation, member.id) == {(name, 0): NONE}


def test_deletions_of_what_is_in_use_or_not_there(broker, topic):
    name, absent = topic(), unique_name("absent")
    subscription = struct.pack(">hi", 0, 1) + string(name) + struct.pack(">i", -1)
    member = Member(broker, data=subscription)
    assert commit(broker, member.group, [(name, 0)], member.generation, member.id) == {(name, 0): NONE}
    answer = ask(broker, DELETE, 1, struct.pack(">i", 2) + string(member.group) + string(absent))
    assert error(answer, 8 + 2 + len(member.group)) == NON_EMPTY_GROUP
    assert error(answer, len(answer) - 2) == GROUP_ID_NOT_FOUND
    one = struct.pack(">i", 1) + string(name) + struct.pack(">ii", 1, 0)
    answer = ask(broker, OFFSET_DELETE, 0, string(member.group) + one)
    assert error(answer) == NONE and error(answer, len(answer) - 2) == SUBSCRIBED_TO_TOPIC
    assert error(ask(broker, OFFSET_DELETE, 0, string(absent) + one)) == GROUP_ID_NOT_FOUND
    assert committed(broker, member.group, name) == 5
    assert error(ask(broker, LEAVE, 0, string(member.group) + string(member.id))) == NONE
    assert error(ask(broker, LEAVE, 0, string(member.group) + string(member.id))) == UNKNOWN_MEMBER
    beyond = struct.pack(">i", 1) + string(name) + struct.pack(">ii", 1, 7)
    answer = ask(broker, OFFSET_DELETE, 0, string(member.group) + beyond)
    assert error(answer) == NONE and error(answer, len(answer) - 2) == UNKNOWN_TOPIC
    answer = ask(broker, OFFSET_DELETE, 0, string(member.group) + one)
    assert error(answer) == NONE and error(answer, len(answer) - 2) == NONE
    assert committed(broker, member.group, name) == -1


@pytest.mark.parametrize("version, wanted", [(5, NONE), (6, GROUP_ID_NOT_FOUND)])
def test_a_group_that_is_not_there_is_described_as_dead(broker, version, wanted):
    group = unique_name("absent")
    answer = ask(broker, DESCRIBE, version, b"\2" + compact(group) + b"\0" + b"\0", flexible=True)
    assert error(answer, 4 + 1) == wanted and compact("Dead") in answer


@pytest.mark.parametrize("key_type, wanted", [(7, INVALID_REQUEST), (-1, INVALID_REQUEST)])
def test_a_coordinator_of_no_kind_that_there_is(broker, key_type, wanted):
    assert error(ask(broker, FIND_COORDINATOR, 1, string("g") + struct.pack(">b", key_type)), 4) == wanted
