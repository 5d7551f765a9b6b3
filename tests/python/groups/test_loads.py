"""What producers and consumers of every client library live through beside groups: a broker that is killed under their load, and many
topics at once."""

import threading
import time

import pytest
from conftest import create_topic
from groups.member import SHORT_SESSION_MS

KILLS = 2
BATCH = 600


@pytest.fixture(autouse=True)
def once(story):
    """Producers do not know by which protocol the group's members speak."""
    if story.protocol == "consumer":
        pytest.skip("told with the classic protocol")


def test_what_was_acknowledged_survives_kill_9_under_load(story, own_broker):
    broker = own_broker()
    story.create(broker)
    member = story.join(broker=broker, session_ms=SHORT_SESSION_MS)  # who lets go of its place meanwhile has to wait for it
    member.wait("an assignment", lambda m: m.held == set(story.partitions))
    delivered, unknown, failures, killed = [], set(), [], threading.Event()

    def load():
        number = 0
        while True:
            is_last = killed.is_set()
            values = [f"v{n}" for n in range(number, number + BATCH)]
            number += BATCH
            try:
                delivered.extend(member.produce(story.topic, values))
            except AssertionError as error:
                # Some give up where the broker is away when they begin.
                unknown.update(values)
                if is_last:
                    failures.append(error)
            if is_last:
                return

    # The broker ends with the thread that started it.
    loading = threading.Thread(target=load)
    loading.start()
    for _ in range(KILLS):
        time.sleep(0.5)
        broker.kill()
        broker.start()
    killed.set()
    loading.join()
    assert not failures, failures
    assert len(delivered) >= BATCH and len(delivered) % BATCH == 0, "each record of a load that ended was acknowledged"
    assert len({record[:3] for record in delivered}) == len(delivered), "at an offset of its own"
    member.wait("all that was acknowledged", lambda m: set(delivered) <= set(m.records))
    # What was sent twice, since its answer was lost, may be there twice; nothing else may be.
    acknowledged = {record[3] for record in delivered}
    assert acknowledged <= set(member.values()) <= acknowledged | unknown
    seen = {}
    for record in member.records:
        assert seen.setdefault(record[:3], record[3]) == record[3], "an offset keeps its record"
    member.close()


def test_many_topics_at_once(story, broker):
    topics = [f"{story.topic}-{n}" for n in range(30)]
    for topic in topics:
        create_topic(broker, topic, 3)
    member = story.join(topics=topics)
    member.wait("every partition", lambda m: m.held is not None and len(m.held) == 90)
    delivered = []
    for topic in topics:
        delivered += member.produce(topic, [f"{topic}:{n}" for n in range(9)])
    member.wait_count(270)
    assert sorted(member.records) == sorted(delivered)
    member.close()
