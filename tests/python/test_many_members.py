"""One connection that makes groups and members without end: what they take is bounded, it is told so by Kafka's code, everybody else's
groups go on, and all of it comes back once the sessions are over. For Ringlog alone: Kafka does not bound the number of groups.

With `--long`, a million of each kind against the broker's own limit of memory."""

import pathlib
import resource
import struct
import time

import harness
import pytest
from conftest import TIMEOUT_S, create_topic, unique_name
from test_bad_groups import (
    CONSUMER_HEARTBEAT, JOIN, MEMBER_ID_REQUIRED, NONE, SUBSCRIPTION, Member, blob, commit, committed, consumer_heartbeat, wait_for_groups,
)
from wire import Connection, compact, header, string

pytestmark = pytest.mark.skipif(harness.broker_class() is not harness.Ringlog, reason="Kafka has no limit for all groups together")

MIB = 1 << 20
MAX_SIZE_REACHED = 81
# So many requests are sent before the first answer is read: all of them fit into the buffers of a socket.
WINDOW = 200


def classic_join(group, version, session_ms):
    """JoinGroup by somebody new; from version 4 on it is told an id first."""
    body = string(group) + struct.pack(">ii", session_ms, session_ms) + string("") + string("consumer") + struct.pack(">i", 1)
    return header(JOIN, version, 7) + body + string("range") + blob(SUBSCRIPTION)


def new_join(group, member):
    """ConsumerGroupHeartbeat by somebody new."""
    body = compact(group) + compact(member) + struct.pack(">i", 0) + b"\0\0" + struct.pack(">i", 30_000) + b"\2" + compact("t")
    return header(CONSUMER_HEARTBEAT, 0, 7, True) + body + b"\0" + b"\1" + b"\0"


# Each: the n-th request, where the error is in its answer, and what it is when it is taken. `run` makes names that nobody had before.
KINDS = {
    "groups of the classic protocol": (lambda run, n, ms: classic_join(f"{run}-{n}", 2, ms), 8, NONE),
    "groups of the new protocol": (lambda run, n, ms: new_join(f"{run}-{n}", "m"), 9, NONE),
    "ids of members of a classic group": (lambda run, n, ms: classic_join(run, 4, ms), 8, MEMBER_ID_REQUIRED),
    "members of a group of the new protocol": (lambda run, n, ms: new_join(run, f"m{n}"), 9, NONE),
}


def overrun(broker, kind, session_ms, count=None):
    """Asks over one connection until a thousand in a row were refused, or so often. Gives how many were taken, and how many refused."""
    request, at, good = KINDS[kind]
    run = unique_name("flood")
    taken = refused = in_a_row = sent = 0
    with Connection(broker, TIMEOUT_S) as connection:
        answers = connection.socket.makefile("rb")
        while in_a_row < 1000 if count is None else sent < count:
            frames = [request(run, n, session_ms) for n in range(sent, sent + WINDOW)]
            connection.send(b"".join(struct.pack(">i", len(frame)) + frame for frame in frames))
            sent += WINDOW
            assert count is not None or sent < 300_000, f"{taken} were taken, and there is no end"
            for _ in frames:
                (size,) = struct.unpack(">i", answers.read(4))
                (code,) = struct.unpack_from(">h", answers.read(size), at)
                assert code in (good, MAX_SIZE_REACHED), (code, taken, refused)
                in_a_row = 0 if code == good else in_a_row + 1
                taken += code == good
                refused += code != good
    return taken, refused


def rss_bytes(broker):
    return int(pathlib.Path(f"/proc/{broker.pid}/statm").read_text().split()[1]) * resource.getpagesize()


def start(own_broker, settings, session_ms):
    """A broker, and somebody with a group of its own: (broker, member, topic)."""
    broker = own_broker({
        "group.initial.rebalance.delay.ms": 0, "group.min.session.timeout.ms": 1, "group.consumer.min.session.timeout.ms": 1,
        "group.consumer.min.heartbeat.interval.ms": 1, "group.consumer.heartbeat.interval.ms": min(1000, session_ms // 3),
        "group.consumer.session.timeout.ms": session_ms, "offsets.retention.check.interval.ms": 1000, **settings,
    })
    wait_for_groups(broker)
    member, topic = Member(broker, "bystander", session_ms=600_000), create_topic(broker)
    assert commit(broker, member.group, [(topic, 0)], member.generation, member.id) == {(topic, 0): NONE}
    return broker, member, topic


def goes_on(broker, member, topic):
    assert broker.is_running(), broker.log_tail()
    assert member.heartbeat() == NONE
    assert commit(broker, member.group, [(topic, 0)], member.generation, member.id) == {(topic, 0): NONE}
    assert committed(broker, member.group, topic) == 5


def wait_until_it_is_given_back(broker, kind, taken, session_ms):
    """As many are taken again, once the sessions are over and the groups gone."""
    end = time.monotonic() + TIMEOUT_S + session_ms / 1000
    while True:
        again, _ = overrun(broker, kind, session_ms)
        if again >= 0.9 * taken:
            return
        assert time.monotonic() < end, f"{taken} were taken before, {again} now\n{broker.log_tail()}"
        # What was taken now has to go first.
        time.sleep(1.5 * session_ms / 1000)


@pytest.mark.parametrize("kind", KINDS)
def test_who_joins_without_end_is_refused_and_disturbs_nobody(own_broker, kind):
    # Where sessions end meanwhile, others are taken in their place, and so many would not be taken again: a slow machine needs longer ones.
    for session_ms in (4000, 15_000, 45_000):
        broker, member, topic = start(own_broker, {"ringlog.group.memory.bytes": MIB}, session_ms)
        overrun(broker, kind, 1, 1000)  # the first of its kind, so that what a process takes once is not counted
        time.sleep(1.5 * session_ms / 1000)
        before, began = rss_bytes(broker), time.monotonic()
        taken, refused = overrun(broker, kind, session_ms)
        if time.monotonic() - began < session_ms / 1000:
            break
    assert taken > 100 and refused >= 1000, (taken, refused)
    goes_on(broker, member, topic)
    # Its records wait in the log's memory, which has a limit of its own.
    assert rss_bytes(broker) - before < 48 * MIB, f"{(rss_bytes(broker) - before) / MIB:.1f} MiB more for {taken} and {refused}"
    wait_until_it_is_given_back(broker, kind, taken, session_ms)
    goes_on(broker, member, topic)


@pytest.mark.parametrize("version", ["classic", "new"])
def test_a_group_has_no_more_members_than_it_may(own_broker, version):
    broker, member, topic = start(own_broker, {"group.max.size": 10, "group.consumer.max.size": 10}, 60_000)
    kind = "ids of members of a classic group" if version == "classic" else "members of a group of the new protocol"
    taken, refused = overrun(broker, kind, 60_000, 1000)
    assert (taken, refused) == (10, 990)
    goes_on(broker, member, topic)


@pytest.mark.long
@pytest.mark.parametrize("kind", KINDS)
def test_a_million(own_broker, kind):
    session_ms = 60_000
    broker, member, topic = start(own_broker, {}, session_ms)
    overrun(broker, kind, 1, 1000)
    time.sleep(1)
    before, began = rss_bytes(broker), time.monotonic()
    taken, refused = overrun(broker, kind, session_ms, 1_000_000)
    took, more = time.monotonic() - began, rss_bytes(broker) - before
    print(f"\n{kind}: {taken:,} taken, {refused:,} refused in {took:.0f} s; {more / MIB:.0f} MiB more", flush=True)
    goes_on(broker, member, topic)
    assert taken + refused == 1_000_000
    # The limit of memory for groups, 256 MiB, and what the log takes for their records.
    assert more < (256 + 128) * MIB, f"{more / MIB:.0f} MiB more"
    end = time.monotonic() + 2 * TIMEOUT_S + session_ms / 1000
    while consumer_heartbeat(broker, unique_name("later")) != NONE:
        assert time.monotonic() < end, broker.log_tail()
        time.sleep(1)
    goes_on(broker, member, topic)
    print(f"{kind}: {(rss_bytes(broker) - before) / MIB:.0f} MiB more after the sessions' end", flush=True)
