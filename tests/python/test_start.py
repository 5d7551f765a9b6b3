"""What `ringlog` says when it cannot start, and what it takes from the command line and a file. For Ringlog alone."""

import os
import signal
import subprocess
import time

import harness
import pytest
from conftest import TIMEOUT_S, admin, create_topic, produce_all, read

pytestmark = pytest.mark.skipif(harness.broker_class() is not harness.Ringlog, reason="Kafka has its own ways")


def run(*arguments, **options):
    return subprocess.run(
        [harness.Ringlog.binary(), *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S, **options
    )


def refused(*arguments):
    """The one line of standard error that a start which has to fail ends with."""
    done = run(*arguments)
    assert done.returncode == 1, done.stderr
    line = done.stderr.strip().splitlines()[-1]
    assert line.startswith("ringlog: ") and "panicked" not in done.stderr
    return line


def test_a_port_in_use(own_broker, tmp_path):
    broker = own_broker()
    assert str(broker.port) in refused("serve", "--data-dir", tmp_path / "d", "--listen", broker.bootstrap)


def test_a_data_directory_in_use(own_broker):
    broker = own_broker()
    line = refused("serve", "--data-dir", broker.data_dir, "--listen", f"127.0.0.1:{harness.free_port()}")
    assert str(broker.data_dir) in line
    assert broker.is_running() and harness.answers(broker.port, TIMEOUT_S)


def test_a_directory_that_kafka_formatted(tmp_path):
    (tmp_path / "meta.properties").write_text("#\nversion=1\ncluster.id=MkU3OEVBNTcwNTJENDM2Qk\nnode.id=0\ndirectory.id=Wm9PSEpyTE5SUWVlUG5CQQ\n")
    assert "Kafka" in refused("serve", "--data-dir", tmp_path, "--listen", f"127.0.0.1:{harness.free_port()}")
    assert {p.name for p in tmp_path.iterdir()} <= {"meta.properties", ".lock"}


def test_a_file_where_the_data_directory_should_be(tmp_path):
    (tmp_path / "file").write_text("x")
    assert str(tmp_path / "file") in refused("serve", "--data-dir", tmp_path / "file", "--listen", f"127.0.0.1:{harness.free_port()}")


@pytest.mark.parametrize("setting", ["log.retention.hours=soon", "num.partitions=0", "log.segment.bytes=1", "auto.create.topics.enable=maybe"])
def test_wrong_values(tmp_path, setting):
    line = refused("serve", "--data-dir", tmp_path / "d", "--listen", f"127.0.0.1:{harness.free_port()}", "--set", setting)
    assert setting.split("=")[0] in line
    assert not (tmp_path / "d").exists()


def test_a_config_file_with_names_that_nobody_knows(tmp_path):
    port = harness.free_port()
    config = tmp_path / "server.properties"
    config.write_text(
        f"# Kafka's own names\nlisteners=PLAINTEXT://127.0.0.1:{port}\nadvertised.listeners=PLAINTEXT://127.0.0.1:{port}\n"
        "num.partitions=4\nlog.retention.hours=1\nmade.up.name=1\nanother.one=2\n"
    )

    class Configured(harness.Ringlog):
        def command(self):
            return [self.binary(), "serve", "--config", str(config), "--data-dir", str(self.data_dir)]

    broker = Configured(work_dir=tmp_path / "work", port=port).start()
    try:
        produce_all(broker, "from-the-file", [{"value": b"x"}])
        assert len(admin(broker).list_topics(timeout=TIMEOUT_S).topics["from-the-file"].partitions) == 4
        warnings = [line for line in broker.log_path.read_text().splitlines() if "made.up.name" in line]
        assert len(warnings) == 1 and "another.one" in warnings[0]
        broker.stop()
    finally:
        broker.kill()


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_signals_end_it_cleanly(own_broker, how):
    broker = own_broker()
    produce_all(broker, "t", [{"value": b"x"}])
    os.kill(broker.pid, how)
    assert broker.process.wait(TIMEOUT_S) == 0
    broker.process = None
    assert (broker.data_dir / ".kafka_cleanshutdown").exists()
    broker.start()
    assert [m.value() for m in read(broker, "t")] == [b"x"]


def test_a_signal_right_at_the_start(own_broker, tmp_path):
    for delay in (0.0, 0.005, 0.02, 0.05):
        broker = harness.Ringlog(work_dir=tmp_path / f"{delay}")
        broker.launch()
        time.sleep(delay)
        os.kill(broker.pid, signal.SIGTERM)
        assert broker.process.wait(TIMEOUT_S) in (0, -signal.SIGTERM)
        broker.process = None
        broker.start()
        broker.stop()


def test_help_and_version():
    assert "serve" in run("--help").stdout
    assert run("--version").stdout.startswith("ringlog ")
    assert run("no-such-command").returncode == 2


def test_a_log_that_cannot_be_written():
    """As on a full disk: its lines are lost, and nothing else."""
    broker = harness.Ringlog()
    with open("/dev/full", "wb") as full:
        process = subprocess.Popen(broker.command(), stdin=subprocess.DEVNULL, stdout=full, stderr=full, preexec_fn=harness.die_with_parent)
    try:
        end = time.monotonic() + TIMEOUT_S
        while not harness.answers(broker.port):
            assert process.poll() is None and time.monotonic() < end, "it did not come up"
            time.sleep(0.05)
        topic = create_topic(broker)
        produce_all(broker, topic, [{"value": b"a"}])
        assert [m.value() for m in read(broker, topic)] == [b"a"]
        process.send_signal(signal.SIGTERM)
        assert process.wait(TIMEOUT_S) == 0
    finally:
        process.kill()
        process.wait()
        broker.remove()
