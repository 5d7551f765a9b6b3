"""A member of a consumer group: a program of its own, written with one of the client libraries, so that it can be killed.

All of them speak the same: their options are one JSON object in the first argument; commands come in on stdin and events go
out on stdout, a line of JSON each. What they say:

    {"event": "assigned", "partitions": [[topic, partition], ...]}    all that it holds, after each assignment
    {"event": "revoked", "partitions": [...]}                         what it was told to give up
    {"event": "records", "records": [[topic, partition, offset, value], ...]}
    {"event": "reply", "id": n, ...}                                  the answer to a command
    {"event": "fatal", "error": "..."}                                it cannot go on

and what they are told, each with an "id":

    produce {topic, partitions, values}    value n to partition n mod partitions; replies with what the callbacks said
    commit, commit_async                   commits behind all that it has read; replies with that. Where not waiting is a matter of the
                                           whole member, commit_async is only for one that was started with {"commits": "async"}
    pause, resume {partitions}             seek {partition, offset}
    lag {partitions}                       how far the group is behind, by the library's admin client if it can (see LACKS)
    close                                  leaves the group and ends

Nothing here decides whether a test passed.
"""

import json
import pathlib
import queue
import subprocess
import sys
import threading
import time

import harness
from conftest import TIMEOUT_S

HERE = pathlib.Path(__file__).resolve().parent
# Nobody is put out of its group because a machine stands still for a while; what a story tells of a member that died ends sooner.
SESSION_MS = 45_000
SHORT_SESSION_MS = 15_000
HEARTBEAT_MS = 500
# Of groups of the new protocol. librdkafka gives an answer as long as this, and does not ask again for an assignment that came later: it
# has to be longer than a machine stands still. The other libraries wait for their requests' own time.
CONSUMER_HEARTBEAT_MS = 500
LIBRDKAFKA_HEARTBEAT_MS = 3500


def _python(name):
    return lambda: [sys.executable, str(HERE / "clients" / f"{name}.py")]


def _java(name):
    return lambda: harness.java(f"ringlog.{name}", heap="128m")


# How each client's member is started, by the client's name on the command line.
CLIENTS = {
    "confluent-kafka": _python("confluent_member"),
    "kafka-python": _python("kafka_python_member"),
    "aiokafka": _python("aiokafka_member"),
    "kafka-clients": _java("Member"),
    "spring-kafka": _java("SpringMember"),
    "rdkafka": lambda: [str(harness.built("rdkafka-member"))],
    "franz-go": lambda: [str(harness.BUILD / "go" / "franz")],
    "sarama": lambda: [str(harness.BUILD / "go" / "sarama")],
    "kafkajs": lambda: ["node", str(harness.BUILD / "kafkajs" / "member.js")],
}

# What a library cannot do, so that its story is skipped.
LACKS = {
    "kafka-python": {"fencing": "does not say that it is fenced"},
    "aiokafka": {"cooperative": "has no cooperative assignor", "fencing": "does not know that it can be fenced"},
    "rdkafka": {"admin_lag": "has no admin call for a group's offsets: its consumer reads them, and the lag is right"},
    "sarama": {
        "cooperative": "has no cooperative rebalancing",
        "pattern": "subscribes to names only",
        "pause_after_seek": "seeks with the next session only",
    },
    "kafkajs": {
        "cooperative": "has no cooperative rebalancing",
        "pattern_later": "looks for topics of a pattern when it subscribes, not later",
        "static": "has no static membership",
        "fencing": "has no static membership",
    },
}


class Member:
    """One running member. What it said is in `held`, `revoked`, `records`."""

    def __init__(self, client, broker, group, **options):
        self.held = None  # nothing was ever assigned
        self.assignments = 0
        self.revoked = []
        self.records = []
        self.fatal = None
        self._replies = queue.Queue()
        self._number = 0
        self._changed = threading.Condition()
        self._said_all = False  # its output has ended: before that, who has ended may have said more than is known
        # By the new protocol librdkafka says nothing of an assignment of nothing.
        self.is_silent_with_nothing = options.get("protocol") == "consumer"
        options = {
            "bootstrap": broker.bootstrap, "group": group, "strategy": "range", "heartbeat_ms": HEARTBEAT_MS,
            "metadata_ms": 1000, **options,
        }
        self.process = subprocess.Popen(
            [*CLIENTS[client](), json.dumps(options)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, preexec_fn=harness.die_with_parent,
        )
        self._errors = []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=lambda: self._errors.extend(self.process.stderr), daemon=True).start()

    def _read(self):
        for line in self.process.stdout:
            try:
                event = json.loads(line)
            except ValueError:
                self._errors.append(line)
                continue
            with self._changed:
                match event["event"]:
                    case "assigned":
                        self.held = {tuple(p) for p in event["partitions"]}
                        self.assignments += 1
                    case "revoked":
                        self.revoked.append({tuple(p) for p in event["partitions"]})
                    case "records":
                        self.records += [tuple(r) for r in event["records"]]
                    case "fatal":
                        self.fatal = event["error"]
                    case "reply":
                        self._replies.put(event)
                self._changed.notify_all()
        with self._changed:
            self._said_all = True
            self._changed.notify_all()

    def said(self):
        return f"{self.process.args[:2]} exit {self.process.poll()}, fatal {self.fatal}, holds {self.held}:\n{''.join(self._errors[-40:])}"

    def wait(self, what, condition, timeout_s=TIMEOUT_S):
        """Waits until `condition(self)`."""
        end = time.monotonic() + timeout_s
        with self._changed:
            while not condition(self):
                assert time.monotonic() < end, f"not within {timeout_s} s: {what}; {self.said()}"
                assert not self._said_all, f"ended before: {what}; {self.said()}"
                self._changed.wait(0.2)

    def wait_count(self, count):
        self.wait(f"{count} records, not {len(self.records)}", lambda m: len(m.records) >= count)

    def ask(self, command, **arguments):
        """Sends a command and returns the reply."""
        self._number += 1
        try:
            self.process.stdin.write(json.dumps({"id": self._number, "do": command, **arguments}) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise AssertionError(f"ended before it was told to {command}; {self.said()}") from None
        end = time.monotonic() + TIMEOUT_S
        while True:
            said_all = self._said_all
            try:
                reply = self._replies.get(timeout=0 if said_all else 0.5)
            except queue.Empty:
                assert not said_all and time.monotonic() < end, f"no reply to {command}; {self.said()}"
                continue
            if reply["id"] == self._number:
                assert "error" not in reply, f"{command}: {reply['error']}; {self.said()}"
                return reply

    def produce(self, topic, values, partitions=3):
        """Produces strings; returns what the callbacks said: (topic, partition, offset, value)."""
        return [tuple(d) for d in self.ask("produce", topic=topic, values=list(values), partitions=partitions)["delivered"]]

    def values(self):
        return [r[3] for r in self.records]

    def close(self):
        """Leaves the group and ends."""
        if self.process.poll() is None:
            self.ask("close")
            assert self.process.wait(TIMEOUT_S) == 0, self.said()

    def kill(self):
        """Ends without a word, as a crash does."""
        self.process.kill()
        self.process.wait()


def wait_shared(members, partitions, sizes=None):
    """Waits until each partition has exactly one owner among `members` (and they hold `sizes` many, in some order)."""
    wanted = sorted(partitions)
    end = time.monotonic() + TIMEOUT_S
    while True:
        held = [sorted(m.held or ()) for m in members]
        shared = sorted(p for one in held for p in one) == wanted
        shared = shared and all(m.held is not None or m.is_silent_with_nothing for m in members)
        if shared and (sizes is None or sorted(map(len, held)) == sorted(sizes)):
            return
        said = "\n".join(m.said() for m in members)
        assert time.monotonic() < end, f"not shared as {sizes or 'one owner each'}: {held}\n{said}"
        assert all(m.process.poll() is None for m in members), said
        time.sleep(0.02)
