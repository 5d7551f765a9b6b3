"""What every Python suite shares: the broker under test, topics of their own, and how to look at what is stored."""

import itertools
import pathlib
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import harness  # noqa: E402
from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

# Generous: a loaded machine must not fail a suite. Nothing here waits that long when all is well.
TIMEOUT_S = 120

# Small enough that the suites can go over them.
SESSION_SETTINGS = {"socket.request.max.bytes": 20_000_000}

_number = itertools.count()


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="also what runs for minutes")


def pytest_collection_modifyitems(config, items):
    if not config.getoption("--long"):
        skip = pytest.mark.skip(reason="only with --long")
        for item in items:
            if "long" in item.keywords:
                item.add_marker(skip)


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    report = (yield).get_result()
    if report.failed:
        item.session.config.any_failed = True
        item.own_failed = True


@pytest.fixture(scope="session")
def broker(request):
    """The broker that most tests share. It has to be alive, and to stop cleanly, after all of them."""
    broker = harness.broker_class()(SESSION_SETTINGS).start()
    yield broker
    try:
        broker.stop()
    except harness.BrokerError:
        request.config.any_failed = True
        raise
    finally:
        if getattr(request.config, "any_failed", False):
            broker.kill()
            print(f"\nthe broker's directory is kept: {broker.work_dir}\n{broker.log_tail()}")
        else:
            broker.remove()


@pytest.fixture
def own_broker(request):
    """Starts brokers that one test may stop and kill: call with the settings."""
    brokers = []

    def start(settings=None):
        brokers.append(harness.broker_class()(settings).start())
        return brokers[-1]

    yield start
    for broker in brokers:
        _admins.pop(broker.bootstrap, None)
        if getattr(request.node, "own_failed", False):
            broker.kill()
            print(f"\nthe broker's directory is kept: {broker.work_dir}\n{broker.log_tail()}")
        else:
            broker.remove()


def unique_name(stem="t"):
    return f"{stem}-{next(_number)}"


_admins = {}


def admin(broker):
    """One client per broker: its futures fail when it is collected."""
    if broker.bootstrap not in _admins:
        _admins[broker.bootstrap] = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0, "reconnect.backoff.max.ms": 500})
    return _admins[broker.bootstrap]


def create_topic(broker, name=None, partitions=1, **config):
    """Creates a topic and waits until it can be produced to. Config names with `_` for `.`."""
    name = name or unique_name()
    config = {k.replace("_", "."): str(v) for k, v in config.items()}
    client = admin(broker)
    client.create_topics([NewTopic(name, partitions, 1, config=config)])[name].result(TIMEOUT_S)
    wait_for_topic(client, name, partitions)
    return name


def wait_for_topic(client, name, partitions):
    """Kafka's metadata follows its controller a little later."""
    end = time.monotonic() + TIMEOUT_S
    while True:
        topic = client.list_topics(name, timeout=TIMEOUT_S).topics[name]
        if topic.error is None and len(topic.partitions) == partitions:
            if all(p.error is None and p.leader >= 0 for p in topic.partitions.values()):
                return
        assert time.monotonic() < end, f"{name} has no {partitions} partitions: {topic.error} {topic.partitions}"
        time.sleep(0.05)


@pytest.fixture
def topic(broker):
    """Creates topics for one test: call with partitions and configs."""
    return lambda *args, **kwargs: create_topic(broker, *args, **kwargs)


def producer(broker, **config):
    config = {k.replace("_", "."): v for k, v in config.items()}
    return Producer({"bootstrap.servers": broker.bootstrap, "linger.ms": 5, "message.max.bytes": 100_000_000, "log_level": 0, **config})


class Deliveries:
    """Collects delivery reports: (error or None, message)."""

    def __init__(self):
        self.reports = []

    def __call__(self, error, message):
        self.reports.append((error, message))

    @property
    def errors(self):
        return [error.code() for error, _ in self.reports if error is not None]

    @property
    def messages(self):
        return [message for error, message in self.reports if error is None]


def produce_all(broker, topic, records, **config):
    """Produces `records` (dicts of produce()'s arguments); every one must be delivered. Returns the delivered messages."""
    client = producer(broker, **config)
    deliveries = Deliveries()
    for record in records:
        while True:
            try:
                client.produce(topic, on_delivery=deliveries, **record)
                break
            except BufferError:
                client.poll(0.1)
        client.poll(0)
    assert client.flush(TIMEOUT_S) == 0
    assert deliveries.errors == []
    assert len(deliveries.messages) == len(records)
    return deliveries.messages


def consumer(broker, **config):
    config = {k.replace("_", "."): v for k, v in config.items()}
    return Consumer({
        "bootstrap.servers": broker.bootstrap, "group.id": "unused", "enable.auto.commit": False,
        "auto.offset.reset": "error", "enable.partition.eof": True, "fetch.message.max.bytes": 10_000_000,
        "log_level": 0, **config,
    })


def read(broker, topic, partition=0, offset=0, count=None, **config):
    """The messages of a partition from `offset`: `count` of them, or all up to the end."""
    client = consumer(broker, **config)
    try:
        client.assign([TopicPartition(topic, partition, offset)])
        messages = []
        end = time.monotonic() + TIMEOUT_S
        while count is None or len(messages) < count:
            message = client.poll(1.0)
            if message is None:
                assert time.monotonic() < end, \
                    f"{len(messages)} of {count} messages of {topic}-{partition} from {offset}; the broker's log ends:\n{broker.log_tail()}"
            elif message.error() is None:
                messages.append(message)
            elif message.error().code() == KafkaError._PARTITION_EOF:
                if count is None:
                    break
            else:
                raise AssertionError(message.error())
        return messages
    finally:
        client.close()


def watermarks(broker, topic, partition=0):
    client = consumer(broker)
    try:
        return client.get_watermark_offsets(TopicPartition(topic, partition), timeout=TIMEOUT_S, cached=False)
    finally:
        client.close()


def plain(message):
    """A message as it was sent."""
    return message.key(), message.value(), message.headers()
