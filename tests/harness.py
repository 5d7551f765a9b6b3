"""Starts, stops, kills and restarts the broker that the client suites talk to.

For the suites of this folder: a real `ringlog` binary, or a real Kafka from the jars on the class
path that tests/java resolves (what passes there is what has to pass here). One broker is one process and one data
directory; the process dies with its parent, whatever happens. It never decides whether a test passed.

    python3 tests/harness.py run [--broker ringlog|kafka] [--set name=value]... -- COMMAND...

starts a broker, runs COMMAND with BOOTSTRAP=host:port in its environment, stops the broker and exits with COMMAND's status
(or 1 if the broker itself did not stop cleanly). The data directory and the broker's log are kept only after a failure.
"""

import argparse
import atexit
import base64
import ctypes
import os
import pathlib
import random
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import uuid

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = pathlib.Path(os.environ.get("TEST_BUILD_DIR", ROOT / "build"))
HOST = "127.0.0.1"
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None, use_errno=True)


class BrokerError(Exception):
    """The broker did not start, or did not end as it was asked to."""


def die_with_parent():
    """For `preexec_fn`: a child that does not outlive us, however we end."""
    LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


_ports = {}


def free_port():
    """A loopback port that is ours until this process ends, whatever else runs: a broker that is killed finds it again. It is none
    that the kernel would give to a client that connects, and no other process of tests gets it: a name in the abstract namespace
    of Unix sockets (unix(7)), which goes with its process, holds it."""
    with open("/proc/sys/net/ipv4/ip_local_port_range") as file:
        first_of_clients = int(file.read().split()[0])
    candidates = list(range(10_000, first_of_clients if first_of_clients > 11_000 else 32_768))
    random.SystemRandom().shuffle(candidates)
    for port in candidates:
        holder = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            holder.bind(f"\0ringlog-tests-port-{port}")
            with socket.socket() as s:
                s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as brokers do: a connection that just ended does no harm
                s.bind((HOST, port))
        except OSError:
            holder.close()
            continue
        _ports[port] = holder
        return port
    raise BrokerError("no port is free")


def receive_frame(sock):
    """One length-prefixed frame's body, or None if the peer closed first."""
    data = b""
    size = 4
    while len(data) < size:
        try:
            piece = sock.recv(size - len(data))
        except ConnectionResetError:
            return None
        if not piece:
            return None
        data += piece
        if size == 4 and len(data) == 4:
            size = 4 + struct.unpack(">i", data)[0]
    return data[4:]


def answers(port, timeout_s=5):
    """Whether a broker on `port` answers ApiVersions v0 without an error."""
    try:
        with socket.create_connection((HOST, port), timeout=timeout_s) as s:
            body = struct.pack(">hhih", 18, 0, 7, -1)
            s.sendall(struct.pack(">i", len(body)) + body)
            answer = receive_frame(s)
            return answer is not None and len(answer) > 6 and struct.unpack(">ih", answer[:6]) == (7, 0)
    except OSError:
        return False


class Broker:
    """One broker process over one data directory, which outlives stops, kills and restarts."""

    name = "broker"

    def __init__(self, settings=None, work_dir=None, port=None):
        """`settings`: broker configs by Kafka's names. `work_dir`: where the data and the log go (made when absent)."""
        if work_dir is None:
            (BUILD / "run").mkdir(parents=True, exist_ok=True)
            work_dir = tempfile.mkdtemp(prefix=f"{self.name}-", dir=BUILD / "run")
        self.work_dir = pathlib.Path(work_dir)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.data_dir = self.work_dir / "data"
        self.log_path = self.work_dir / "broker.log"
        self.settings = dict(settings or {})
        self.port = port or free_port()
        self.process = None
        atexit.register(self.kill)

    @property
    def bootstrap(self):
        return f"{HOST}:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    def command(self):
        raise NotImplementedError

    def environment(self):
        return dict(os.environ)

    def prepare(self):
        """What has to be done once before the first start."""

    def is_ready(self):
        return answers(self.port)

    def launch(self):
        """Starts the process without waiting for it to be ready."""
        assert self.process is None, "already running"
        self.prepare()
        with open(self.log_path, "ab") as log:
            self.log_start = log.tell()
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=self.environment(), preexec_fn=die_with_parent,
            )
        return self

    def start(self, timeout_s=180):
        """Starts the process and returns once it answers."""
        self.launch()
        end = time.monotonic() + timeout_s
        while not self.is_ready():
            if self.process.poll() is not None:
                status, self.process = self.process.returncode, None
                raise BrokerError(f"{self.name} exited with {status} at start:\n{self.log_tail()}")
            if time.monotonic() > end:
                self.kill()
                raise BrokerError(f"{self.name} does not answer after {timeout_s} s:\n{self.log_tail()}")
            time.sleep(0.02)
        return self

    def stop(self, timeout_s=120):
        """SIGTERM; the broker has to end by itself and with the status it promises."""
        if self.process is None:
            return
        process, self.process = self.process, None
        if process.poll() is not None:
            raise BrokerError(f"{self.name} ended by itself with {process.returncode}:\n{self.log_tail()}")
        process.terminate()
        try:
            status = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise BrokerError(f"{self.name} still ran {timeout_s} s after SIGTERM:\n{self.log_tail()}") from None
        if status not in self.clean_statuses:
            raise BrokerError(f"{self.name} exited with {status} after SIGTERM:\n{self.log_tail()}")

    clean_statuses = (0,)

    def kill(self):
        """SIGKILL, as a crash of the process."""
        if self.process is not None:
            process, self.process = self.process, None
            process.kill()
            process.wait()

    def is_running(self):
        return self.process is not None and self.process.poll() is None

    def remove(self):
        """Ends the process and removes all that it wrote."""
        self.kill()
        shutil.rmtree(self.work_dir, ignore_errors=True)

    def log_tail(self, lines=40):
        try:
            text = self.log_path.read_text(errors="replace")
        except OSError:
            return ""
        return "\n".join(text.splitlines()[-lines:])

    def partition_dir(self, topic, partition):
        return self.data_dir / f"{topic}-{partition}"


class Ringlog(Broker):
    """`ringlog serve`. RINGLOG_BIN names the binary; without it, the debug build of this checkout."""

    name = "ringlog"

    @staticmethod
    def binary():
        return os.environ.get("RINGLOG_BIN") or str(built("ringlog"))

    def command(self):
        command = [self.binary(), "serve", "--data-dir", str(self.data_dir), "--listen", self.bootstrap]
        for name, value in {"group.initial.rebalance.delay.ms": 0, **self.settings}.items():
            command += ["--set", f"{name}={value}"]
        return command


def built(name):
    """A program of this checkout's debug build."""
    return pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug" / name


def class_path():
    """The jars of Kafka, its tools and clients, as tests/java resolved them, and what tests/java itself compiles to."""
    return f"{(BUILD / 'java' / 'classpath.txt').read_text().strip()}:{BUILD / 'java' / 'classes'}"


def java(*arguments, heap="256m"):
    """A command line that runs a class of the Kafka jars. Most of these processes live for a second or two and would spend it on
    loading classes: they find them ready, as `scripts/test` left them (class data sharing, JEP 350), and say nothing if they do not."""
    return [
        "java", f"-Xmx{heap}", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1",
        f"-XX:SharedArchiveFile={BUILD / 'java' / 'classes.jsa'}", "-Xshare:auto", "-Xlog:disable", "-Xlog:all=error:stderr",
        f"-Dlog4j2.configurationFile={ROOT / 'tests' / 'java' / 'log4j2.properties'}", "-cp", class_path(), *arguments,
    ]


def new_id():
    """A UUID as Kafka writes it: never with a dash in front, which its tools would take for an option."""
    while True:
        text = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
        if not text.startswith("-"):
            return text


class Kafka(Broker):
    """A single Kafka in KRaft mode, broker and controller in one process, 1 GiB of heap."""

    name = "kafka"
    clean_statuses = (0, 143)  # the JVM's status after a handled SIGTERM

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.controller_port = free_port()
        self.config_path = self.work_dir / "server.properties"

    def prepare(self):
        config = {
            "process.roles": "broker,controller",
            "node.id": "0",
            "controller.quorum.voters": f"0@{HOST}:{self.controller_port}",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{HOST}:{self.controller_port}",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "controller.listener.names": "CONTROLLER",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self.data_dir),
            "offsets.topic.replication.factor": "1",
            "offsets.topic.num.partitions": "1",
            "transaction.state.log.replication.factor": "1",
            "transaction.state.log.min.isr": "1",
            "transaction.state.log.num.partitions": "1",
            "share.coordinator.state.topic.replication.factor": "1",
            "share.coordinator.state.topic.min.isr": "1",
            "group.initial.rebalance.delay.ms": "0",
            **self.settings,
        }
        self.config_path.write_text("".join(f"{k}={v}\n" for k, v in config.items()))
        if not (self.data_dir / "meta.properties").exists():
            cluster_id = new_id()
            subprocess.run(
                java("kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(self.config_path)),
                check=True, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            )

    def command(self):
        return [
            "java", "-Xmx1g", "-Xms1g", "-XX:+UseG1GC", "-XX:MaxGCPauseMillis=20", "-XX:InitiatingHeapOccupancyPercent=35",
            "-XX:TieredStopAtLevel=1",  # it is not here to be fast for long
            f"-Dlog4j2.configurationFile={ROOT / 'tests' / 'java' / 'log4j2.properties'}",
            "-cp", class_path(), "kafka.Kafka", str(self.config_path),
        ]

    def is_ready(self):
        with open(self.log_path, "rb") as log:
            log.seek(self.log_start)
            return b"Kafka Server started" in log.read() and answers(self.port)


BROKERS = {"ringlog": Ringlog, "kafka": Kafka}


def broker_class(name=None):
    """The broker under test: `name`, else what BROKER says, else Ringlog."""
    return BROKERS[name or os.environ.get("BROKER", "ringlog")]


def _settings(pairs):
    return dict(pair.split("=", 1) for pair in pairs)


def main():
    parser = argparse.ArgumentParser(description="Runs a command against a freshly started broker.")
    parser.add_argument("action", choices=["run"])
    parser.add_argument("--broker", choices=BROKERS, default=os.environ.get("BROKER", "ringlog"))
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE")
    split = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    args, command = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1:]
    if not command:
        parser.error("no command after --")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    broker = BROKERS[args.broker](_settings(args.set))
    status = 1
    try:
        broker.start()
        environment = dict(os.environ, BOOTSTRAP=broker.bootstrap)
        status = subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, preexec_fn=die_with_parent).returncode
        broker.stop()
    except BrokerError as e:
        print(e, file=sys.stderr)
        status = status or 1
    if status == 0:
        broker.remove()
    else:
        broker.kill()
        print(f"\nthe broker's log ends with:\n{broker.log_tail()}\nkept: {broker.work_dir}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
