"""A load that remembers what was acknowledged, and holds a broker against it after whatever happened to it. Shared by the tests that
kill the broker, take the power away from its disk, or let it run for long; it never decides what happens."""

import random
import threading
import time

from conftest import TIMEOUT_S, Deliveries, admin, create_topic, producer, read
from confluent_kafka import KafkaException


# A client that asks for a topic again after a reconnect would make a deleted one anew.
SETTINGS = {"ringlog.journal.bytes": 16 << 20, "auto.create.topics.enable": "false"}

# How many of the newest records are looked at after each round.
NEWEST = 50


class Topic:
    """A topic under load by one producer. Values say which record they are, so that none can be taken for another. All of them are
    remembered: who lets it run for long bounds how many a second they are."""

    def __init__(self, broker, name, partitions, seed, durable, idempotent, message_timeout_ms=180_000, per_second_max=float("inf")):
        self.broker, self.name, self.partitions, self.durable, self.idempotent = broker, name, partitions, durable, idempotent
        config = {} if durable else {"flush_messages": 1_000_000}
        create_topic(broker, name, partitions, segment_bytes=1_048_576, **config)
        self.deliveries = Deliveries()
        # Without idempotence only one request in flight keeps the order when a request is sent again.
        self.client = producer(
            broker, acks="all", enable_idempotence=idempotent, max_in_flight=5 if idempotent else 1, linger_ms=2,
            message_timeout_ms=message_timeout_ms, reconnect_backoff_max_ms=200, retry_backoff_ms=50, queue_buffering_max_messages=2000,
        )
        self.sent = [[] for _ in range(partitions)]
        self.rng = random.Random(seed)
        self.per_second_max = per_second_max
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        number, start = 0, time.monotonic()
        while not self.ending.is_set():
            ahead_s = start + number / self.per_second_max - time.monotonic()
            if ahead_s > 0:
                self.client.poll(min(ahead_s, 0.05))
                continue
            partition = number % self.partitions
            value = b"%s %d " % (self.name.encode(), number) + self.rng.randbytes(self.rng.randrange(1500))
            try:
                self.client.produce(self.name, value, partition=partition, on_delivery=self.deliveries)
            except BufferError:
                self.client.poll(0.05)
                continue
            self.sent[partition].append(value)
            number += 1
            self.client.poll(0 if number % 50 else 0.005)

    def acknowledged(self):
        return len(self.deliveries.reports)

    def pause(self):
        """Ends the producing; what is on its way may fail, which is no loss."""
        self.ending.set()
        self.thread.join()
        self.client.flush(TIMEOUT_S)

    def check_newest(self, power_was_lost=False):
        """The newest records that were acknowledged, while the load goes on: cheap, and a loss is found in the round that caused it."""
        if power_was_lost and not self.durable:
            return
        for partition in range(self.partitions):
            newest = [m for m in self.deliveries.messages[-NEWEST * self.partitions:] if m.partition() == partition]
            if not newest:
                continue
            first, last = (choose(m.offset() for m in newest) for choose in (min, max))
            stored = {m.offset(): m.value() for m in read(self.broker, self.name, partition, first, count=last - first + 1)}
            for message in newest:
                assert stored.get(message.offset()) == message.value(), f"{self.name}-{partition} lost {message.offset()}"

    def check(self, power_was_lost=False):
        """NothingAcknowledgedIsLost: at its offset, byte for byte; the sender's order; idempotent: once; and nothing that nobody sent.
        Of a topic that is not durable the loss of power may take the end, whose offsets are given again."""
        stored = []
        for partition in range(self.partitions):
            messages = read(self.broker, self.name, partition)
            assert [m.offset() for m in messages] == list(range(len(messages))), f"{self.name}-{partition} has a gap"
            stored.append([m.value() for m in messages])
        if self.durable or not power_was_lost:
            for message in self.deliveries.messages:
                partition, offset, values = message.partition(), message.offset(), stored[message.partition()]
                assert offset < len(values), f"{self.name}-{partition} lost {offset}: it ends at {len(values)}"
                assert values[offset] == message.value(), f"{self.name}-{partition} holds another record at {offset}"
        for partition, values in enumerate(stored):
            once = values if self.idempotent else list(dict.fromkeys(values))
            sent = self.sent[partition]
            known = {value: at for at, value in enumerate(sent)}
            places = [known.get(value, -1) for value in once]
            assert -1 not in places, f"{self.name}-{partition} holds what nobody sent"
            assert places == sorted(set(places)), f"{self.name}-{partition} is out of order, or holds a record twice"


class Commands:
    """Creates and deletes topics meanwhile, and remembers what the broker has said yes to."""

    def __init__(self, broker, stem):
        self.broker, self.stem = broker, stem
        self.there, self.gone = set(), set()
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        number = 0
        while not self.ending.is_set():
            name, number = f"{self.stem}-{number}", number + 1
            try:
                create_topic(self.broker, name, 2)
                self.there.add(name)
                produce_one(self.broker, name)
                if number % 3:
                    # Neither there nor gone for certain until it is answered.
                    self.there.discard(name)
                    admin(self.broker).delete_topics([name], request_timeout=10)[name].result(TIMEOUT_S)
                    self.gone.add(name)
            except (KafkaException, AssertionError, KeyError):
                time.sleep(0.1)

    def pause(self):
        self.ending.set()
        self.thread.join()

    def check(self):
        """A deleted topic does not come back, a created one does not vanish."""
        topics = set(admin(self.broker).list_topics(timeout=TIMEOUT_S).topics)
        assert self.there <= topics, f"vanished: {self.there - topics}"
        assert not self.gone & topics, f"came back: {self.gone & topics}"


def produce_one(broker, topic):
    client = producer(broker, message_timeout_ms=10_000)
    client.produce(topic, b"x", partition=0)
    client.flush(15)


def wait_for_progress(topics, records, timeout_s=3 * TIMEOUT_S):
    """Waits until so many more records are acknowledged, in all."""
    count = lambda: sum(t.acknowledged() for t in topics)  # noqa: E731
    goal, end = count() + records, time.monotonic() + timeout_s
    while count() < goal:
        assert time.monotonic() < end, "nothing is acknowledged"
        time.sleep(0.01)
