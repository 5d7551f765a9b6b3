"""Consumer groups as an application sees them, told once and lived through by every client library."""

import time
import uuid

import pytest
from conftest import create_topic
from groups.member import SHORT_SESSION_MS, wait_shared

# From a member's last word until the others have its partitions: its session, and then what a loaded machine needs for a rebalance
# of those that are left. Kafka's default of 45 s it is not.
TAKEOVER_S = SHORT_SESSION_MS / 1000 + 25


def numbers(start, stop):
    return [f"v{n}" for n in range(start, stop)]


def test_the_callback_names_topic_partition_and_offset(story):
    story.create()
    member = story.join()
    delivered = member.produce(story.topic, numbers(0, 300))
    assert sorted(delivered) == sorted((story.topic, n % 3, n // 3, f"v{n}") for n in range(300))
    member.wait_count(300)
    assert sorted(member.records) == sorted(delivered)
    member.close()


def test_members_share_and_the_rest_get_nothing(story):
    story.create()
    first = story.join()
    wait_shared([first], story.partitions, [3])
    second = story.join()
    wait_shared([first, second], story.partitions, [1, 2])
    first.produce(story.topic, numbers(0, 90))
    first.wait("what it holds", lambda m: len(m.records) == 30 * len(m.held))
    second.wait("what it holds", lambda m: len(m.records) == 30 * len(m.held))
    assert sorted(first.values() + second.values()) == sorted(numbers(0, 90))
    assert {r[:2] for r in first.records} == first.held and {r[:2] for r in second.records} == second.held
    third, fourth = story.join(), story.join()
    everyone = [first, second, third, fourth]
    wait_shared(everyone, story.partitions, [0, 1, 1, 1])
    # Whoever leaves is followed by the one that waited.
    leaver = next(m for m in everyone if m.held)
    others = [m for m in everyone if m is not leaver]
    leaver.close()
    wait_shared(others, story.partitions, [1, 1, 1])
    for member in others:
        member.close()


def test_the_partitions_of_a_killed_member_move(story):
    story.create()
    first, second = story.join(session_ms=SHORT_SESSION_MS), story.join(session_ms=SHORT_SESSION_MS)
    wait_shared([first, second], story.partitions, [1, 2])
    second.produce(story.topic, numbers(0, 30))
    for member in (first, second):
        member.wait("what it holds", lambda m: len(m.records) == 10 * len(m.held))
    second.ask("commit")
    first.ask("commit")
    first.kill()
    killed_at = time.monotonic()
    second.wait("the partitions of the killed one", lambda m: m.held == set(story.partitions), TAKEOVER_S)
    print(f"moved {time.monotonic() - killed_at:.1f} s after the kill, with a session of {SHORT_SESSION_MS / 1000} s")
    second.produce(story.topic, numbers(30, 60))
    everything = set(numbers(0, 60))
    second.wait("all records", lambda m: everything <= set(first.values() + m.values()))
    assert not set(first.values()) & set(second.values()), "what was committed is not read again"
    second.close()


def test_a_client_resumes_from_its_commit(story):
    story.create()
    first = story.join()
    first.produce(story.topic, numbers(0, 30))
    first.wait_count(30)
    assert sorted(map(tuple, first.ask("commit")["offsets"])) == [(*p, 10) for p in story.partitions]
    first.produce(story.topic, numbers(30, 60))
    first.wait_count(60)
    first.close()
    second = story.join(session_ms=SHORT_SESSION_MS)
    second.wait_count(30)
    assert sorted(second.values()) == numbers(30, 60), "what was read and not committed is read again, nothing else"
    second.ask("commit")
    second.kill()
    third = story.join(session_ms=SHORT_SESSION_MS)
    third.wait("an assignment", lambda m: m.held == set(story.partitions))
    third.produce(story.topic, numbers(60, 63))
    third.wait_count(3)
    assert sorted(third.values()) == numbers(60, 63)
    third.close()


def test_commits_without_waiting(story, needs):
    needs("commit_async")
    story.create()
    first = story.join(commits="async")
    first.produce(story.topic, numbers(0, 30))
    first.wait_count(30)
    assert sorted(map(tuple, first.ask("commit_async")["offsets"])) == [(*p, 10) for p in story.partitions]
    first.close()
    second = story.join()
    second.wait("an assignment", lambda m: m.held == set(story.partitions))
    second.produce(story.topic, numbers(30, 33))
    second.wait_count(3)
    assert sorted(second.values()) == numbers(30, 33)
    second.close()


@pytest.mark.parametrize("crash", [False, True])
def test_commits_survive_the_broker(story, own_broker, crash):
    broker = own_broker()
    story.create(broker)
    member = story.join(broker=broker, session_ms=SHORT_SESSION_MS)  # who lets go of its place meanwhile has to wait for it
    member.produce(story.topic, numbers(0, 30))
    member.wait_count(30)
    member.ask("commit")
    broker.kill() if crash else broker.stop()
    broker.start()
    # The one that was there goes on...
    member.produce(story.topic, numbers(30, 60))
    member.wait("all that is new", lambda m: set(numbers(30, 60)) <= set(m.values()))
    member.close()
    # ... and a new one finds the commit from before.
    second = story.join(broker=broker)
    second.wait("all behind the commit", lambda m: set(numbers(30, 60)) <= set(m.values()))
    assert sorted(second.values()) == numbers(30, 60)
    second.close()


def test_pause_resume_and_seek(story, needs):
    story.create()
    member = story.join()
    wait_shared([member], story.partitions, [3])
    running, *paused = story.partitions
    # Sarama pauses only what it reads already, which is a little later than it is assigned.
    member.produce(story.topic, numbers(0, 3))
    member.wait_count(3)
    member.ask("pause", partitions=paused)
    # A fetch that was under way may still bring what comes while it waits: this record ends it, or its time does, half a second.
    member.produce(story.topic, ["alone"], 1)
    member.wait_count(4)
    time.sleep(1)
    member.produce(story.topic, numbers(3, 33))
    member.wait_count(14)
    assert {r[:2] for r in member.records[3:]} == {running}
    member.ask("resume", partitions=paused)
    member.wait_count(34)
    assert sorted(member.values()) == sorted(["alone", *numbers(0, 33)])
    needs("pause_after_seek")
    before = len(member.records)
    member.ask("seek", partition=running, offset=6)
    member.wait_count(before + 6)
    assert [r[:3] for r in member.records[before:]] == [(*running, n) for n in range(6, 12)]
    member.close()


def test_a_pattern_of_topics(story, broker, needs):
    needs("pattern")
    stem = f"pattern-{uuid.uuid4().hex[:8]}"
    create_topic(broker, f"{stem}-one", 2)
    create_topic(broker, f"{stem}-two", 1)
    create_topic(broker, f"other-{stem}", 1)
    member = story.join(pattern=f"^{stem}-.*")
    wanted = [(f"{stem}-one", 0), (f"{stem}-one", 1), (f"{stem}-two", 0)]
    wait_shared([member], wanted)
    member.produce(f"{stem}-one", numbers(0, 10), 2)
    member.wait_count(10)
    needs("pattern_later")
    create_topic(broker, f"{stem}-three", 1)
    wait_shared([member], [*wanted, (f"{stem}-three", 0)])
    member.close()


def test_static_members_come_back_unnoticed(story, needs):
    needs("static")
    story.create()
    first, second = story.join(instance="one"), story.join(instance="two")
    wait_shared([first, second], story.partitions, [1, 2])
    held, assignments = first.held, second.assignments
    # The new protocol gives the place of a static member to another only when it was left, if not for good.
    first.close() if story.protocol == "consumer" else first.kill()
    again = story.join(instance="one")
    again.wait("what it held", lambda m: m.held == held)
    again.produce(story.topic, numbers(0, 30))
    again.wait("its records", lambda m: len(m.records) == 10 * len(held))
    second.wait("its records", lambda m: len(m.records) == 30 - 10 * len(held))
    assert second.assignments == assignments, "the other one was disturbed"


def test_a_killed_static_member_comes_back(story, needs):
    needs("static")
    story.create()
    first, second = (story.join(instance=name, session_ms=SHORT_SESSION_MS) for name in ("one", "two"))
    wait_shared([first, second], story.partitions, [1, 2])
    second.produce(story.topic, numbers(0, 30))
    for member in (first, second):
        member.wait("what it holds", lambda m: len(m.records) == 10 * len(m.held))
        member.ask("commit")
    first.kill()
    end = time.monotonic() + TAKEOVER_S
    refused = 0
    while True:
        again = story.join(instance="one", session_ms=SHORT_SESSION_MS)
        again.wait("partitions, or a refusal", lambda m: m.held or m.fatal)
        if again.held:
            break
        # The new protocol keeps the name for the killed one until its session has ended, and an application starts again.
        assert story.protocol == "consumer" and time.monotonic() < end, f"refused {refused} times; {again.said()}"
        again.kill()
        refused += 1
    print(f"refused {refused} times")
    wait_shared([again, second], story.partitions, [1, 2])
    second.produce(story.topic, numbers(30, 60))
    fresh = set(numbers(30, 60))
    again.wait("its new records", lambda m: fresh <= set(second.values()) | set(m.values()))
    assert set(again.values()) <= fresh, "what the killed one had committed is not read again"


def test_the_second_of_a_name_fences_the_first(story, needs):
    needs("fencing")
    story.create()
    first = story.join(instance="one")
    wait_shared([first], story.partitions)
    second = story.join(instance="one")
    if story.protocol == "consumer":
        # The new protocol turns it round: who comes later is refused.
        second.wait("that it is refused", lambda m: m.fatal is not None)
        assert first.fatal is None and first.held == set(story.partitions)
        return
    wait_shared([second], story.partitions)
    first.wait("that it is fenced", lambda m: m.fatal is not None)


def test_cooperative_members_keep_what_they_can(story, needs):
    needs("cooperative")
    story.create()
    first = story.join(strategy="cooperative-sticky")
    wait_shared([first], story.partitions, [3])
    second = story.join(strategy="cooperative-sticky")
    wait_shared([first, second], story.partitions, [1, 2])
    assert set().union(*first.revoked) == second.held, "what was given up is what the other got"
    first.produce(story.topic, numbers(0, 30))
    for member in (first, second):
        member.wait("what it holds", lambda m: len(m.records) == 10 * len(m.held))
    second.close()
    wait_shared([first], story.partitions, [3])
    first.close()


def test_lag_by_the_admin_client(story, needs):
    story.create()
    member = story.join()
    member.produce(story.topic, numbers(0, 30))
    member.wait_count(30)
    member.ask("commit")
    member.ask("pause", partitions=story.partitions)
    member.produce(story.topic, numbers(30, 33), 3)
    member.produce(story.topic, numbers(33, 35), 1)
    lag = member.ask("lag", partitions=story.partitions)["lag"]
    assert sorted(map(tuple, lag)) == [(story.topic, 0, 3), (story.topic, 1, 1), (story.topic, 2, 1)]
    member.close()
    needs("admin_lag")
