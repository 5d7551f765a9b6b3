"""Writes the table of clients in docs/compatibility.md from what a run of scripts/test left behind: nothing of it is typed.

    python3 tests/compatibility.py RESULTS [--update docs/compatibility.md]

RESULTS is the directory of a run's results: a SUITE.json for each suite, for those that pytest ran its SUITE.xml, and for those
of Maven their files in SUITE/. The tables are printed; --update puts them between the marks of the document instead, and refuses
when a suite was not run or failed. It never runs a test.
"""

import argparse
import json
import pathlib
import re
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

TESTS = pathlib.Path(__file__).resolve().parent
BEGIN, END = "<!-- clients: written by scripts/test --update-docs -->", "<!-- end of clients -->"


def found(path, pattern):
    """The first group of `pattern` in a file, by its path from tests/: where a version is pinned."""
    match = re.search(pattern, (TESTS / path).read_text())
    assert match, f"no {pattern} in {path}"
    return match.group(1)


def pip(name):
    return found("python/requirements.txt", rf"(?m)^{name}==(\S+)")


def jar(name):
    return found("java/pom.xml", rf"<{name}.version>(\S+)</{name}.version>")


def kafka():
    return jar("kafka")


def kcat():
    said = subprocess.run(["kcat", "-V"], capture_output=True, text=True).stdout
    return re.search(r"kcat .*?Version (\S+)", said.replace("\n", " ")).group(1)


# Modules of the suite python whose client is confluent-kafka.
CONFLUENT = "admin|compaction|confluent|consumer_protocol|full_disk|group_configs|kills|power_loss|restart|scrub|soak"
# Tests of test_group_tools whose tool is kafka-consumer-groups.
CONSUMER_GROUPS = "test_(list_and_describe|reset_|delete_|a_group_of|all_groups)"

# Name; version; what is run; the suites and which of their tests ("" for all); the client in the stories of consumer groups.
ROWS = [
    ("Kafka's Java client", kafka, "producer, consumer, admin client", [("java", r"(?!Spring|Streams)")], "kafka-clients"),
    ("Spring Kafka", lambda: jar("spring.kafka"), "`KafkaTemplate` with callbacks, `@KafkaListener` with concurrency 2 and acknowledgment by "
     "batch and by hand, restarts of container and application", [("java", "SpringTest")], "spring-kafka"),
    ("Kafka Streams", kafka, "word count, at least once: its internal topics, restarts with its state and without", [("java", "StreamsTest")], None),
    ("Kafka Connect, standalone", kafka, "file source to a topic to file sink, a restart of the worker", [("tools", "test_connect")], None),
    ("librdkafka through confluent-kafka (Python)", lambda: pip("confluent-kafka"),
     "producer, consumer, admin client; restarts, kill -9, a full disk, compaction", [("python", f"test_({CONFLUENT})\\.")], "confluent-kafka"),
    ("librdkafka through rdkafka (Rust)", lambda: found("../Cargo.lock", r'name = "rdkafka"\nversion = "(\S+)"'),
     "producer, consumer, admin client", [("rdkafka", "")], "rdkafka"),
    ("kcat", kcat, "produce, consume, metadata, offsets by timestamp", [("kcat", "")], None),
    ("kafka-python", lambda: pip("kafka-python"), "producer, consumer, admin client", [("python", r"test_kafka_python\.")], "kafka-python"),
    ("aiokafka (Python)", lambda: pip("aiokafka"), "", [], "aiokafka"),
    ("franz-go (Go)", lambda: found("go/go.mod", r"twmb/franz-go (v\S+)"), "", [], "franz-go"),
    ("sarama (Go)", lambda: found("go/go.mod", r"IBM/sarama (v\S+)"), "", [], "sarama"),
    ("kafkajs (Node.js)", lambda: found("kafkajs/package.json", r'"kafkajs": "(\S+)"'), "", [], "kafkajs"),
    ("Kafka's command-line tools", kafka,
     "topics, configs (of topics, groups, brokers), get-offsets, delete-records, log-dirs, broker-api-versions, cluster, producer and "
     "consumer performance, console and verifiable producer and consumer",
     [("tools", rf"test_kafka_tools\.|test_group_tools\.(?!{CONSUMER_GROUPS})")], None),
    ("kafka-consumer-groups", kafka, "groups of both protocols: list, describe, members, state, filters, reset-offsets in every mode, delete, "
     "delete-offsets", [("tools", rf"test_group_tools\.{CONSUMER_GROUPS}")], None),
    ("DumpLogSegments, the console consumer's formatters, and Kafka itself", kafka,
     "read what Ringlog wrote: logs, indexes, snapshots, records of groups, a whole topic",
     [("tools", r"test_directories\.|test_group_records\.")], None),
    ("`ringlog log dump`, `ringlog log verify`", lambda: "", "read directories that Kafka wrote", [("tools", r"test_offline\.")], None),
    ("`ringlog` as a tool", lambda: "", "topics, records, groups, settings; questions on a terminal, completions", [("python", r"test_tool\.")], None),
    ("Requests by hand", lambda: "", "what no client sends: frames, batches, members of groups, and these without end; several requests in one write", [("python", r"test_(bad_|many_members|order)")], None),
]
STORY_SUITES = ["groups", "go", "kafkajs", "groups848"]
SUITES = ["kcat", "python", "java", "tools", "rdkafka", *STORY_SUITES]
# Tests of the broker itself, whoever its client is: they are in no row.
OF_NO_CLIENT = {"python": r"test_(limits|start)\."}


NEW = " (KIP-848)"


class Count:
    """Tests that ran."""

    def __init__(self, passed=0, failed=0, skipped=0):
        self.passed, self.failed, self.skipped = passed, failed, skipped

    def add(self, outcome):
        setattr(self, outcome, getattr(self, outcome) + 1)

    def __bool__(self):
        return bool(self.passed or self.failed)

    def __str__(self):
        parts = [(self.passed, "passed"), (self.failed, "FAILED")]
        return ", ".join(f"{n} {what}" for n, what in parts if n) or "not run"


def outcome_of(case):
    if case.find("failure") is not None or case.find("error") is not None:
        return "failed"
    return "skipped" if case.find("skipped") is not None else "passed"


def cases(results, suite):
    """The tests of a suite that pytest or Maven ran: (module or class and name, outcome, why it was skipped)."""
    for path in [results / f"{suite}.xml", *(results / suite).glob("TEST-*.xml")]:
        if not path.exists():
            continue
        for case in ElementTree.parse(path).iter("testcase"):
            skipped = case.find("skipped")
            name = f"{case.get('classname').rsplit('.', 1)[-1]}.{case.get('name')}"
            yield name, outcome_of(case), "" if skipped is None else skipped.get("message", "")


def count(results, suite, pattern):
    if pattern == "":
        path = results / f"{suite}.json"
        record = json.loads(path.read_text()) if path.exists() else {}
        return Count(record.get("passed", 0), record.get("failed", 0), record.get("skipped", 0))
    total = Count()
    for name, outcome, _ in cases(results, suite):
        if re.match(pattern, name):
            total.add(outcome)
    return total


def uncounted(results):
    """Tests that ran and are in no row: a new one has to be given one."""
    for suite in SUITES:
        patterns = [pattern for row in ROWS for name, pattern in row[3] if name == suite] + [OF_NO_CLIENT.get(suite, "(?!)")]
        if suite in STORY_SUITES or "" in patterns:
            continue
        for name, _, _ in cases(results, suite):
            if not any(re.match(pattern, name) for pattern in patterns):
                yield f"{suite}: {name}"


def stories(results):
    """Per story and client: the outcome, and why it was skipped. A client by the new protocol is another one."""
    clients = [row[4] for row in ROWS if row[4]]
    told = {}
    for suite in STORY_SUITES:
        for name, outcome, why in cases(results, suite):
            match = re.fullmatch(r"test_stories\.test_(\w+)\[(.*)\]", name)
            client = next((c for c in clients if match and re.fullmatch(rf"{c}(-.*)?", match.group(2))), None)
            if client is None:
                continue
            if suite == "groups848":
                client += NEW
            before = told.setdefault(match.group(1), {}).get(client)
            # One story may be told in several ways: all have to end well.
            if before is None or outcome == "failed":
                told[match.group(1)][client] = (outcome, why)
    # In the order in which they are written, not in that in which they happened to end.
    order = re.findall(r"(?m)^def test_(\w+)", (TESTS / "python/groups/test_stories.py").read_text())
    return {story: told[story] for story in order if story in told}


def tables(results):
    told = stories(results)
    lines = ["| Client or tool | Version | What was run | Result |", "|---|---|---|---|"]
    for name, version, what, suites, client in ROWS:
        total = Count()
        for suite, pattern in suites:
            found_here = count(results, suite, pattern)
            total = Count(total.passed + found_here.passed, total.failed + found_here.failed, total.skipped + found_here.skipped)
        parts, outcome = [what] if what else [], [str(total)] if suites else []
        if client:
            ended = [told[story][client][0] for story in told if client in told[story]]
            ran = Count(ended.count("passed"), ended.count("failed"), ended.count("skipped"))
            parts.append("consumer groups")
            outcome.append(f"groups: {ran}" if suites else str(ran))
            ended = [ends[client + NEW][0] for ends in told.values() if client + NEW in ends]
            if ended:
                outcome.append(f"KIP-848: {Count(ended.count('passed'), ended.count('failed'))}")
        try:
            number = version()
        except (OSError, AttributeError):
            number = "not installed"
        lines.append(f"| {name} | {number} | {'; '.join(parts)} | {'; '.join(outcome)} |")
    clients = [name for row in ROWS if row[4] for name in (row[4], row[4] + NEW) if any(name in ends for ends in told.values())]
    if clients:
        lines += ["", "Stories of consumer groups, the same for every client:", ""]
        lines += [f"| Story | {' | '.join(clients)} |", f"|---|{'---|' * len(clients)}"]
        notes = []
        for story, ends in told.items():
            cells = []
            for client in clients:
                outcome, why = ends.get(client, ("", ""))
                if outcome == "skipped" and why not in notes:
                    notes.append(why)
                cells.append({"passed": "yes", "failed": "FAILED", "skipped": f"[{notes.index(why) + 1}]" if why in notes else "", "": ""}[outcome])
            lines.append(f"| {story.replace('_', ' ')} | {' | '.join(cells)} |")
        lines += ["", *(f"{n}. {why}." for n, why in enumerate(notes, 1))]
    return "\n".join(lines) + "\n"


def main():
    parser = argparse.ArgumentParser(description="The table of clients, from a run's results.")
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--update", type=pathlib.Path, metavar="DOCUMENT")
    args = parser.parse_args()
    text = tables(args.results)
    if forgotten := list(uncounted(args.results)):
        print(f"in no row of {pathlib.Path(__file__).name}: {', '.join(forgotten)}", file=sys.stderr)
        return 1
    if args.update is None:
        print(text, end="")
        return 0
    records = {s: json.loads(p.read_text()) for s in SUITES if (p := args.results / f"{s}.json").exists()}
    bad = [suite for suite in SUITES if not records.get(suite, {}).get("passed") or records[suite]["failed"]]
    if bad:
        print(f"{args.update} stays as it is: not run, or failed: {', '.join(bad)}", file=sys.stderr)
        return 1
    document = args.update.read_text()
    before, rest = document.split(BEGIN, 1)
    _, after = rest.split(END, 1)
    args.update.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
