"""Kafka's own command-line tools against a running broker; those for consumer groups are in test_group_tools.py."""

import json
import re
import subprocess
import time

import harness
import pytest
from conftest import TIMEOUT_S, admin, produce_all, read, unique_name, watermarks

TOOLS = "org.apache.kafka.tools."


def run(class_name, *arguments, text=None, status=0):
    """Runs a tool; its exit status must be `status`, unless that is None. Returns what it printed, warnings of the JVM aside."""
    done = subprocess.run(
        harness.java(class_name, *map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=180,
        **({"input": text} if text is not None else {"stdin": subprocess.DEVNULL}),
    )
    assert status is None or done.returncode == status, f"{class_name} {arguments} exited with {done.returncode}:\n{done.stdout}"
    return done.stdout


@pytest.fixture
def tool(broker):
    return lambda name, *arguments, **options: run(
        name if "." in name else TOOLS + name, "--bootstrap-server", broker.bootstrap, *arguments, **options
    )


def test_kafka_topics(broker, tool):
    name = unique_name("tool")
    assert f"Created topic {name}." in tool(
        "TopicCommand", "--create", "--topic", name, "--partitions", 3, "--replication-factor", 1, "--config", "retention.ms=98765",
    )
    assert "already exists" in tool("TopicCommand", "--create", "--topic", name, status=1)
    assert name in tool("TopicCommand", "--list").split()
    described = tool("TopicCommand", "--describe", "--topic", name)
    assert re.search(rf"Topic: {name}\s+TopicId: [\w-]{{22}}\s+PartitionCount: 3\s+ReplicationFactor: 1", described)
    assert "retention.ms=98765" in described
    assert len(re.findall(r"Partition: \d\s+Leader: (\d+)\s+Replicas: \1\s+Isr: \1", described)) == 3
    assert tool("TopicCommand", "--describe", "--under-replicated-partitions").strip() == ""
    tool("TopicCommand", "--alter", "--topic", name, "--partitions", 5)
    assert "PartitionCount: 5" in tool("TopicCommand", "--describe", "--topic", name)
    tool("TopicCommand", "--delete", "--topic", name)
    assert "does not exist" in tool("TopicCommand", "--describe", "--topic", name, status=1)


def test_kafka_configs(tool, topic):
    name, command = topic(retention_ms=5000), "kafka.admin.ConfigCommand"
    tool(command, "--alter", "--entity-type", "topics", "--entity-name", name, "--add-config", "segment.ms=60000,max.message.bytes=2000")
    described = tool(command, "--describe", "--entity-type", "topics", "--entity-name", name)
    assert all(f"  {pair} " in described for pair in ("retention.ms=5000", "segment.ms=60000", "max.message.bytes=2000")), described
    tool(command, "--alter", "--entity-type", "topics", "--entity-name", name, "--delete-config", "retention.ms")
    assert "retention.ms" not in tool(command, "--describe", "--entity-type", "topics", "--entity-name", name)
    everything = tool(command, "--describe", "--all", "--entity-type", "topics", "--entity-name", name)
    assert "retention.ms=604800000" in everything
    refused = tool(command, "--alter", "--entity-type", "topics", "--entity-name", name, "--add-config", "segment.ms=never", status=1)
    assert "InvalidConfigurationException" in refused or "Invalid value" in refused
    assert f"Dynamic configs for topic {name}" in tool(command, "--describe", "--entity-type", "topics")


def test_get_offsets_and_delete_records(broker, tool, topic, tmp_path):
    name = topic(partitions=2)
    produce_all(broker, name, [{"partition": p, "value": b"%d" % n} for p in range(2) for n in range(50)])

    def offsets(time_):
        return sorted(tool("GetOffsetShell", "--topic", name, "--time", time_).split())

    assert offsets("latest") == [f"{name}:0:50", f"{name}:1:50"]
    spec = tmp_path / "offsets.json"
    spec.write_text(json.dumps({"version": 1, "partitions": [{"topic": name, "partition": 0, "offset": 30}]}))
    assert f"partition: {name}-0\tlow_watermark: 30" in tool("DeleteRecordsCommand", "--offset-json-file", spec)
    assert offsets("earliest") == [f"{name}:0:30", f"{name}:1:0"]
    assert len(offsets("max-timestamp")) == 2


def test_get_offsets_in_every_way(broker, tool, topic):
    name, other, start = topic(partitions=3), topic(), int(time.time() * 1000) - 60_000
    produce_all(broker, name, [{"partition": p, "value": b"v", "timestamp": start + 1000 * n} for p in range(3) for n in range(10 * p)])
    produce_all(broker, other, [{"value": b"v"}])

    def offsets(*arguments):
        return sorted(tool("GetOffsetShell", *arguments).split())

    of = lambda *found: [f"{name}:{p}:{o}" for p, o in found]  # noqa: E731
    # Where no record is as young as that, or none at all, Kafka's tool says nothing.
    assert offsets("--topic", name, "--time", start + 3500) == of((1, 4), (2, 4))
    assert offsets("--topic", name, "--time", start + 12_000) == of((2, 12))
    assert offsets("--topic", name, "--time", "max-timestamp") == of((1, 9), (2, 19))
    for earliest in ("earliest", "-2", "earliest-local", "-4"):
        assert offsets("--topic", name, "--time", earliest) == of((0, 0), (1, 0), (2, 0)), earliest
    assert offsets("--topic-partitions", f"{name}:1,{other}:0") == sorted([*of((1, 10)), f"{other}:0:1"])
    assert offsets("--topic-partitions", f"{name}:1-") == of((1, 10), (2, 20)) and offsets("--topic-partitions", f"{name}:-2") == of((0, 0), (1, 10))
    assert offsets("--topic", f"{name}|{other}", "--partitions", "0") == sorted([*of((0, 0)), f"{other}:0:1"])


def test_configs_of_brokers(own_broker):
    broker = own_broker({"num.partitions": 3})

    def describe(*arguments):
        return run("kafka.admin.ConfigCommand", "--bootstrap-server", broker.bootstrap, "--describe", "--entity-type", "brokers", *arguments)

    node = str(next(iter(admin(broker).list_topics(timeout=TIMEOUT_S).brokers)))
    described = describe()
    assert f"Dynamic configs for broker {node} are:" in described and "Default configs for brokers in the cluster are:" in described
    everything = describe("--entity-name", node, "--all")
    assert "  num.partitions=3 sensitive=false synonyms={STATIC_BROKER_CONFIG:num.partitions=3" in everything, everything
    assert "  offsets.retention.minutes=10080 " in everything and f"node.id={node} " in everything


def test_log_dirs(broker, tool, topic):
    name = topic()
    produce_all(broker, name, [{"value": bytes(1000)} for _ in range(100)])
    text = tool("LogDirsCommand", "--describe", "--topic-list", name)
    described = json.loads(next(line for line in text.splitlines() if line.startswith("{")))
    directory = described["brokers"][0]["logDirs"][0]
    assert directory["error"] is None and directory["logDir"] == str(broker.data_dir)
    assert [p["partition"] for p in directory["partitions"]] == [f"{name}-0"]
    assert directory["partitions"][0]["size"] > 100_000 and directory["partitions"][0]["offsetLag"] == 0


def test_api_versions(tool, tmp_path):
    config = tmp_path / "client.properties"
    config.write_text("request.timeout.ms=60000\ndefault.api.timeout.ms=60000\n")  # not the five seconds of this tool
    text = tool("BrokerApiVersionsCommand", "--command-config", config)
    for api in ("Produce(0): ", "Fetch(1): ", "Metadata(3): ", "ApiVersions(18): ", "InitProducerId(22): "):
        assert api in text
    # Every API has a version that the tool's own client would use.
    usable = re.findall(r"\w+\((\d+)\): .*\[usable: \d+\]", text)
    assert {"0", "1", "2", "3", "18", "19", "20", "21", "22", "32", "35", "37", "44", "60", "61", "75"} <= set(usable), text


def test_cluster_id(broker):
    found = run(TOOLS + "ClusterTool", "cluster-id", "--bootstrap-server", broker.bootstrap)
    assert f"Cluster ID: {admin(broker).describe_cluster().result(TIMEOUT_S).cluster_id}" in found


@pytest.mark.parametrize("acks, codec", [("all", "none"), ("1", "zstd"), ("0", "lz4")])
def test_producer_performance(broker, tool, topic, acks, codec):
    name = topic(partitions=3)
    text = run(
        TOOLS + "ProducerPerformance", "--topic", name, "--num-records", 50000, "--record-size", 500, "--throughput", -1,
        "--producer-props", f"bootstrap.servers={broker.bootstrap}", f"acks={acks}", f"compression.type={codec}",
        f"enable.idempotence={'true' if acks == 'all' else 'false'}",
    )
    assert "50000 records sent" in text
    end = time.monotonic() + TIMEOUT_S
    while (stored := sum(watermarks(broker, name, p)[1] for p in range(3))) < 50000 and acks == "0":  # which says nothing of when
        assert time.monotonic() < end, stored
        time.sleep(0.1)
    assert stored == 50000


def test_verifiable_producer(broker, tool, topic):
    name = topic()
    text = tool("VerifiableProducer", "--topic", name, "--max-messages", 500, "--acks", -1)
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    sent = [e for e in events if e["name"] == "producer_send_success"]
    assert [(e["topic"], e["partition"], e["offset"], e["value"]) for e in sent] == [(name, 0, n, str(n)) for n in range(500)]
    assert [m.value() for m in read(broker, name)] == [b"%d" % n for n in range(500)]


def test_console_producer_and_consumer(broker, tool, topic):
    name = topic()
    tool("ConsoleProducer", "--topic", name, text="one\ntwo\nthree\n")
    text = run(
        TOOLS + "consumer.ConsoleConsumer", "--bootstrap-server", broker.bootstrap, "--topic", name, "--partition", 0, "--offset", 1,
        "--max-messages", 2, "--timeout-ms", 60000,
    )
    assert text.splitlines()[:2] == ["two", "three"]
