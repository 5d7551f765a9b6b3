"""kill -9 at random moments while several producers write to several topics of both durabilities and topics come and go. A few rounds
always; hundreds with --long (RINGLOG_KILL_ROUNDS says how many, RINGLOG_KILL_SEED which)."""

import os
import random
import time

import pytest
from conftest import unique_name
from crash import SETTINGS, Commands, Topic, wait_for_progress


def rounds_of_kills(broker, rounds, seed):
    rng = random.Random(seed)
    kinds = [(True, True), (False, True), (True, False), (False, False)]  # durable, idempotent
    topics = [Topic(broker, unique_name("kill"), 3, seed + n, *kind) for n, kind in enumerate(kinds)]
    commands = Commands(broker, unique_name("come-and-go"))
    try:
        for _ in range(rounds):
            # Sometimes right after the start, sometimes when segments have been rolled.
            if rng.random() < 0.7:
                wait_for_progress(topics, rng.randrange(1, 3000))
            time.sleep(rng.random() * 0.3)
            broker.kill()
            if rng.random() < 0.3:
                # And once more while it recovers.
                broker.launch()
                time.sleep(rng.random() * 0.2)
                broker.kill()
            broker.start()
            for topic in topics:
                topic.check_newest()
        wait_for_progress(topics, 500)
    finally:
        for thing in (*topics, commands):
            thing.pause()
    for topic in topics:
        assert topic.deliveries.errors == []
    for _ in range(2):
        for thing in (*topics, commands):
            thing.check()
        broker.stop()
        broker.start()


def test_a_few_kills(own_broker):
    rounds_of_kills(own_broker(SETTINGS), 4, seed=int(os.environ.get("RINGLOG_KILL_SEED", "1")))


@pytest.mark.long
def test_hundreds_of_kills(own_broker):
    rounds, seed = int(os.environ.get("RINGLOG_KILL_ROUNDS", "200")), int(os.environ.get("RINGLOG_KILL_SEED", str(time.time_ns())))
    print(f"RINGLOG_KILL_SEED={seed}")
    broker = own_broker(SETTINGS)
    for start in range(0, rounds, 10):
        # Everything is read now and then, and what is remembered stays within the memory of a test.
        rounds_of_kills(broker, min(10, rounds - start), seed + start)
