"""What the stories of consumer groups share. `--client NAME` (several times) says with which clients; all of them otherwise."""

import os
import types
import uuid

import pytest
from conftest import TIMEOUT_S, admin, create_topic
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from groups.member import CLIENTS, CONSUMER_HEARTBEAT_MS, LACKS, LIBRDKAFKA_HEARTBEAT_MS, SESSION_MS, Member


def pytest_addoption(parser):
    parser.addoption("--client", action="append", choices=list(CLIENTS), help="only with this client library")
    parser.addoption("--protocol", choices=["classic", "consumer"], default="classic", help="group.protocol of the members")


def pytest_generate_tests(metafunc):
    if "client" in metafunc.fixturenames:
        metafunc.parametrize("client", metafunc.config.getoption("--client") or list(CLIENTS))


@pytest.fixture(scope="session")
def broker():
    """A broker that somebody else started and stops, so that several processes of tests may share it."""
    return types.SimpleNamespace(bootstrap=os.environ["BOOTSTRAP"])


@pytest.fixture
def needs(client):
    """Skips a story that tells of something the client does not have."""

    def check(*features):
        for feature in features:
            if feature in LACKS.get(client, {}):
                pytest.skip(f"{client} {LACKS[client][feature]}")

    return check


def set_times(broker, group, client, session_ms):
    """By the new protocol not the member says how long it may be silent, but its group's own settings."""
    heartbeat_ms = LIBRDKAFKA_HEARTBEAT_MS if client in ("confluent-kafka", "rdkafka") else CONSUMER_HEARTBEAT_MS
    times = {"consumer.session.timeout.ms": session_ms, "consumer.heartbeat.interval.ms": heartbeat_ms}
    entries = [ConfigEntry(name, str(value), incremental_operation=AlterConfigOpType.SET) for name, value in times.items()]
    resource = ConfigResource(ResourceType.GROUP, group, incremental_configs=entries)
    admin(broker).incremental_alter_configs([resource])[resource].result(TIMEOUT_S)


@pytest.fixture
def story(request, broker, client):
    """A topic of three partitions, a group, and members of it; they are ended afterwards."""
    members = []
    protocol = request.config.getoption("--protocol")
    name = f"story-{uuid.uuid4().hex[:8]}"

    times = {}
    shared = broker

    def join(topics=None, broker=broker, **options):
        options = {"protocol": protocol, "session_ms": SESSION_MS, **options}
        if protocol == "consumer" and broker is shared and times.get(name) != options["session_ms"]:
            times[name] = options["session_ms"]
            set_times(broker, name, client, options["session_ms"])
        if "pattern" not in options:
            options["topics"] = [name] if topics is None else topics
        members.append(Member(client, broker, name, **options))
        return members[-1]

    yield types.SimpleNamespace(
        topic=name, group=name, join=join, protocol=protocol, partitions=[(name, p) for p in range(3)],
        create=lambda broker=broker, partitions=3: create_topic(broker, name, partitions),
    )
    for member in members:
        member.kill()
