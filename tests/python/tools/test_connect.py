"""Kafka Connect, standalone: its file source to a topic, and its file sink from there."""

import contextlib
import subprocess
import time

import harness
from conftest import TIMEOUT_S, admin, read, unique_name
from confluent_kafka import ConsumerGroupTopicPartitions
from confluent_kafka.admin import ConfigResource

FILES = "org.apache.kafka.connect.file.FileStream"


def write_properties(path, properties):
    path.write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
    return str(path)


@contextlib.contextmanager
def connect(directory, *files):
    """A worker that runs these connectors until the block ends."""
    output = directory / "connect.log"
    with output.open("ab") as log:
        worker = subprocess.Popen(
            harness.java("org.apache.kafka.connect.cli.ConnectStandalone", *files),
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=harness.die_with_parent,
        )

    def running():
        assert worker.poll() is None, output.read_text()

    try:
        yield running
        worker.terminate()
        # Connect does not always end (seen once in a hundred times), and nobody may have to wait for it: all it did is stored.
        with contextlib.suppress(subprocess.TimeoutExpired):
            assert worker.wait(60) in (0, 143), output.read_text()
    finally:
        worker.kill()
        worker.wait()


def wait_for_lines(path, lines, running):
    end = time.monotonic() + TIMEOUT_S
    while not path.exists() or path.read_text().count("\n") < len(lines):
        running()
        assert time.monotonic() < end, path.exists() and path.read_text()
        time.sleep(0.1)
    assert path.read_text().splitlines() == lines


def wait_for(condition, running):
    end = time.monotonic() + TIMEOUT_S
    while not condition():
        running()
        assert time.monotonic() < end
        time.sleep(0.1)


def append(path, lines):
    with path.open("a") as file:
        file.writelines(f"{line}\n" for line in lines)


def committed(broker, group):
    [future] = admin(broker).list_consumer_group_offsets([ConsumerGroupTopicPartitions(group)]).values()
    return {(p.topic, p.partition): p.offset for p in future.result(TIMEOUT_S).topic_partitions}


def test_lines_go_through_a_topic_once_over_a_restart_of_the_worker(broker, tmp_path):
    topic, sink = unique_name("lines"), unique_name("sink")
    source_file, sink_file = tmp_path / "source.txt", tmp_path / "sink.txt"
    string = "org.apache.kafka.connect.storage.StringConverter"
    files = [
        write_properties(tmp_path / "worker.properties", {
            "bootstrap.servers": broker.bootstrap, "key.converter": string, "value.converter": string,
            "offset.storage.file.filename": tmp_path / "offsets", "offset.flush.interval.ms": 500, "plugin.discovery": "service_load",
            "consumer.allow.auto.create.topics": "false", "consumer.metadata.max.age.ms": 500,
            # With 5 s, the default, a worker that stands still ends without its last commit, and what it has sent comes again.
            "task.shutdown.graceful.timeout.ms": 30000, "offset.flush.timeout.ms": 30000,
            "listeners": f"http://{harness.HOST}:{harness.free_port()}",
        }),
        # Connect makes the topic, as it is told here, with its admin client.
        write_properties(tmp_path / "source.properties", {
            "name": unique_name("source"), "connector.class": f"{FILES}SourceConnector", "file": source_file, "topic": topic,
            "topic.creation.default.partitions": 1, "topic.creation.default.replication.factor": -1,
            "topic.creation.default.retention.ms": 987654321,
        }),
        write_properties(tmp_path / "sink.properties", {
            "name": sink, "connector.class": f"{FILES}SinkConnector", "file": sink_file, "topics": topic,
        }),
    ]
    lines = [f"line {n}" for n in range(30)]

    def is_stored(count):
        position = f'"position":{source_file.stat().st_size}}}'.encode()
        source_is = (tmp_path / "offsets").exists() and position in (tmp_path / "offsets").read_bytes()
        return source_is and committed(broker, f"connect-{sink}") == {(topic, 0): count}

    append(source_file, lines[:10])
    with connect(tmp_path, *files) as running:
        wait_for_lines(sink_file, lines[:10], running)
        append(source_file, lines[10:20])
        wait_for_lines(sink_file, lines[:20], running)
        wait_for(lambda: is_stored(20), running)
    [future] = admin(broker).describe_configs([ConfigResource(ConfigResource.Type.TOPIC, topic)]).values()
    assert future.result(TIMEOUT_S)["retention.ms"].value == "987654321"
    assert committed(broker, f"connect-{sink}") == {(topic, 0): 20}
    append(source_file, lines[20:])
    with connect(tmp_path, *files) as running:
        wait_for_lines(sink_file, lines, running)
        wait_for(lambda: is_stored(30), running)
    assert sink_file.read_text().splitlines() == lines
    assert [m.value().decode() for m in read(broker, topic)] == lines
    assert committed(broker, f"connect-{sink}") == {(topic, 0): 30}
