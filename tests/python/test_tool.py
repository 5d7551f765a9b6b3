"""`ringlog` as a tool for people, against the broker under test; what it writes is read by another client, and the other way round."""

import json
import os
import pty
import shutil
import signal
import subprocess
import time

import harness
import pytest
from conftest import TIMEOUT_S, create_topic, produce_all, read, unique_name
from confluent_kafka import Producer

BINARY = harness.Ringlog.binary()

if not os.path.exists(BINARY):
    pytest.skip("the tool is not built", allow_module_level=True)


def start(broker, *arguments, **options):
    environment = {**os.environ, "RINGLOG_BOOTSTRAP_SERVER": broker.bootstrap}
    return subprocess.Popen([BINARY, *arguments], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, preexec_fn=harness.die_with_parent, **options)


def run(broker, *arguments, stdin=b"", status=0):
    """Runs the tool to its end; gives what it printed. With a status other than 0, what it complained of: one line."""
    process = start(broker, *arguments)
    out, error = process.communicate(stdin, timeout=TIMEOUT_S)
    assert process.returncode == status, (out, error)
    if status == 0:
        return out
    lines = error.decode().splitlines()
    assert lines and "panicked" not in error.decode(), lines
    return lines[-1]


def run_json(broker, *arguments, **options):
    return json.loads(run(broker, *arguments, "--json", **options))


def read_all(broker, name, partitions):
    return [message for partition in range(partitions) for message in read(broker, name, partition)]


def test_a_topics_life(broker):
    name = unique_name()
    assert run(broker, "topic", "create", name, "-p", "3", "-c", "retention.ms=86400000").decode() == f"created {name}\n"
    assert "TOPIC_ALREADY_EXISTS" in run(broker, "topic", "create", name, status=1)
    run(broker, "topic", "create", name, "--if-not-exists")
    listed = {topic["name"]: topic for topic in run_json(broker, "topic", "list")}
    assert (listed[name]["partitions"], listed[name]["replication_factor"]) == (3, 1)
    assert name in run(broker, "topic", "list").decode()

    run(broker, "topic", "alter", name, "-p", "5", "--set", "segment.bytes=1048576", "--unset", "retention.ms")
    (described,) = run_json(broker, "topic", "describe", name)
    assert [partition["partition"] for partition in described["partitions"]] == [0, 1, 2, 3, 4]
    settings = {setting["name"]: setting["value"] for setting in described["configs"]}
    assert settings["segment.bytes"] == "1048576" and "retention.ms" not in settings
    assert "INVALID_PARTITIONS" in run(broker, "topic", "alter", name, "-p", "2", status=1)

    assert "--yes" in run(broker, "topic", "delete", name, status=1)
    assert name in run(broker, "topic", "list").decode()
    run(broker, "topic", "delete", name, "--yes")
    assert name not in run(broker, "topic", "list").decode()
    assert name in run(broker, "topic", "describe", name, status=1)


def test_settings_are_shown_and_changed(broker):
    name = unique_name()
    create_topic(broker, name)
    run(broker, "config", "alter", "--topic", name, "--set", "max.message.bytes=5000")
    own = lambda: {s["name"]: s["value"] for s in run_json(broker, "config", "show", "--topic", name)}  # noqa: E731
    assert own()["max.message.bytes"] == "5000"
    assert len(run_json(broker, "config", "show", "--topic", name, "--all")) > 10
    run(broker, "config", "alter", "--topic", name, "--unset", "max.message.bytes")
    assert "max.message.bytes" not in own()
    assert "INVALID_CONFIG" in run(broker, "config", "alter", "--topic", name, "--set", "no.such=1", status=1)
    status = run_json(broker, "status")
    (node,) = status["brokers"]
    assert node["directories"] and status["without_leader"] == 0
    settings = {s["name"]: s["value"] for s in run_json(broker, "config", "show", "--broker", str(node["id"]), "--all")}
    assert "log.dirs" in settings


def test_settings_of_a_group(broker):
    group = unique_name("configured")
    show = lambda *more: {s["name"]: (s["value"], s["source"]) for s in run_json(broker, "config", "show", "--group", group, *more)}  # noqa: E731
    assert show() == {}
    assert show("--all")["consumer.session.timeout.ms"] == ("45000", "DEFAULT_CONFIG")
    run(broker, "config", "alter", "--group", group, "--set", "consumer.session.timeout.ms=50000")
    end = time.monotonic() + TIMEOUT_S
    while show() != {"consumer.session.timeout.ms": ("50000", "DYNAMIC_GROUP_CONFIG")}:
        assert time.monotonic() < end
    refused = run(broker, "config", "alter", "--group", group, "--set", "consumer.session.timeout.ms=1", status=1)
    assert "INVALID_CONFIG" in refused and "group.consumer.min.session.timeout.ms" in refused
    run(broker, "config", "alter", "--group", group, "--unset", "consumer.session.timeout.ms")
    assert b"default" in run(broker, "config", "show", "--group", group)


@pytest.mark.parametrize("codec", ["none", "gzip", "snappy", "lz4", "zstd"])
def test_lines_come_back_as_they_were(broker, codec):
    name = unique_name()
    create_topic(broker, name, 3)
    lines = [b"%d %s" % (n, b"x" * (n % 300)) for n in range(5000)] + [b"", "\u00e4\u2603".encode(), b"\x00\xff\r"]
    run(broker, "produce", name, "-c", codec, stdin=b"\n".join(lines) + b"\n")
    assert sorted(run(broker, "consume", name).split(b"\n")[:-1]) == sorted(lines)
    assert sorted(message.value() for message in read_all(broker, name, 3)) == sorted(lines)
    assert len(run(broker, "consume", name, "-n", "7").splitlines()) == 7


def test_keys_go_where_kafkas_clients_send_them(broker):
    name = unique_name()
    create_topic(broker, name, 7)
    keys = [f"key-{n}" for n in range(100)]
    run(broker, "produce", name, "-k", "=>", stdin="".join(f"{key}=>ours\n" for key in keys).encode())
    producer = Producer({"bootstrap.servers": broker.bootstrap, "partitioner": "murmur2"})
    for key in keys:
        producer.produce(name, key=key, value="theirs")
    assert producer.flush(TIMEOUT_S) == 0
    places = {}
    for message in read_all(broker, name, 7):
        places.setdefault(message.key(), set()).add(message.partition())
    assert len(places) == len(keys) and all(len(found) == 1 for found in places.values())


def test_json_carries_everything_both_ways(broker):
    name, other = unique_name(), unique_name()
    create_topic(broker, name, 2)
    create_topic(broker, other, 2)
    produce_all(broker, name, [
        {"partition": 1, "key": b"\xff", "value": None, "headers": [("h", b"1"), ("h", None)], "timestamp": 1_700_000_000_000},
        {"partition": 1, "key": None, "value": b"text", "timestamp": 1_700_000_000_001},
    ])
    lines = run(broker, "consume", name, "--json")
    first, second = map(json.loads, lines.splitlines())
    assert first["key"] == {"base64": "/w=="} and first["value"] is None and first["headers"] == [["h", "1"], ["h", None]]
    assert (second["partition"], second["offset"], second["timestamp"]) == (1, 1, 1_700_000_000_001)
    (sent,) = run_json(broker, "produce", other, "--format", "json", stdin=lines)
    assert (sent["partition"], sent["records"], sent["first_offset"], sent["last_offset"]) == (1, 2, 0, 1)
    copied = [json.loads(line) for line in run(broker, "consume", other, "--json").splitlines()]
    assert copied == [{**line, "topic": other} for line in (first, second)]
    complaint = run(broker, "produce", other, "--format", "json", stdin=b'{"value":"v"}\n{"valeu":"v"}\n', status=1)
    assert "line 2" in complaint and "valeu" in complaint


def test_reading_begins_where_it_is_told(broker):
    name = unique_name()
    create_topic(broker, name)
    produce_all(broker, name, [{"value": b"%d" % n, "timestamp": 1_700_000_000_000 + n} for n in range(10)])
    values = lambda *where: run(broker, "consume", name, *where).split()  # noqa: E731
    assert values("--from", "7") == [b"7", b"8", b"9"]
    assert values("--from", "-2") == [b"8", b"9"]
    assert values("--from", "@1700000000004")[0] == b"4"
    assert values("--from", "end") == []
    assert "offsets from 0 to 10" in run(broker, "consume", name, "--from", "11", status=1)
    assert "none is 3" in run(broker, "consume", name, "-p", "3", status=1)


def test_following_shows_what_comes_and_a_whole_file_is_one_record(broker):
    name = unique_name()
    create_topic(broker, name, 2)
    reader = start(broker, "consume", name, "--follow", "--from", "beginning", "-n", "3")
    run(broker, "produce", name, stdin=b"a\nb\n")
    assert {reader.stdout.readline(), reader.stdout.readline()} == {b"a\n", b"b\n"}
    run(broker, "produce", name, "--format", "whole", "--key", "k", "-H", "h=1", stdin=b"two\nlines")
    assert reader.communicate(timeout=TIMEOUT_S)[0] == b"two\nlines\n"
    (record,) = [json.loads(line) for line in run(broker, "consume", name, "--json").splitlines() if b"two" in line]
    assert (record["key"], record["headers"]) == ("k", [["h", "1"]])


def test_what_is_typed_while_the_broker_restarts_arrives_once(own_broker):
    broker = own_broker()
    name = unique_name()
    create_topic(broker, name)
    process = start(broker, "produce", name, "--timeout", str(TIMEOUT_S))

    def write(line):
        process.stdin.write(line)
        process.stdin.flush()

    reader = start(broker, "consume", name, "--follow", "-n", "1")
    write(b"before\n")
    assert reader.communicate(timeout=TIMEOUT_S)[0] == b"before\n"
    broker.kill()
    write(b"meanwhile\n")
    broker.start()
    write(b"after\n")
    out, error = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0, error
    assert run(broker, "consume", name).split() == [b"before", b"meanwhile", b"after"]


def test_a_topic_is_created_on_demand_where_the_broker_does_that(broker, own_broker):
    name = unique_name()
    run(broker, "produce", name, stdin=b"hello\n")
    assert run(broker, "consume", name) == b"hello\n"
    strict = own_broker({"auto.create.topics.enable": "false"})
    assert "ringlog topic create" in run(strict, "produce", name, "--timeout", "60", stdin=b"hello\n", status=1)
    assert run_json(strict, "topic", "list") == []


def test_nobody_there_is_one_clear_line():
    class Nobody:
        bootstrap = f"{harness.HOST}:{harness.free_port()}"

    for command in (["topic", "list"], ["status"], ["consume", "t"], ["produce", "t"]):
        complaint = run(Nobody, *command, "--timeout", "0.5", status=1)
        assert Nobody.bootstrap in complaint and "--bootstrap-server" in complaint


def wait_until(check):
    """Asks again until something holds."""
    end = time.monotonic() + TIMEOUT_S
    while not (found := check()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


def group_state(broker, group):
    (described,) = run_json(broker, "group", "describe", group)
    return described


def test_members_of_a_group_share_and_go_on_where_they_were(broker):
    name, group = unique_name(), unique_name("group")
    create_topic(broker, name, 3)
    lines = [b"%d" % n for n in range(300)]
    run(broker, "produce", name, "--format", "json",
        stdin=b"\n".join(b'{"value":"%s","partition":%d}' % (line, at % 3) for at, line in enumerate(lines)))
    first = run(broker, "consume", name, "--group", group, "-n", "100").split()
    assert len(first) == 100
    assert sum(p["lag"] for p in group_state(broker, group)["partitions"]) == 200
    assert sorted(first + run(broker, "consume", name, "--group", group).split(), key=int) == lines
    assert run(broker, "consume", name, "--group", group) == b""

    members = [start(broker, "consume", name, "--group", group, "--follow") for _ in range(2)]
    wait_until(lambda: sorted(len(m["assigned"]) for m in group_state(broker, group)["members"]) == [1, 2])
    assert "has members" in run(broker, "group", "reset", group, "--to", "beginning", "--yes", status=1)
    assert "has members" in run(broker, "group", "delete", group, "--yes", status=1)
    for member in members:
        member.send_signal(signal.SIGINT)
        assert member.wait(TIMEOUT_S) == 0
    described = group_state(broker, group)
    assert (described["state"], described["members"]) == ("Empty", [])

    assert "--yes" in run(broker, "group", "reset", group, "--to", "-10", status=1)
    run(broker, "group", "reset", group, "--to", "-10", "--topic", name, "--yes")
    assert len(run(broker, "consume", name, "--group", group).split()) == 30
    assert group in [found["group"] for found in run_json(broker, "group", "list")]
    run(broker, "group", "delete", group, "--yes")
    assert group not in run(broker, "group", "list").decode()
    assert "GROUP_ID_NOT_FOUND" in run(broker, "group", "describe", group, status=1)


def run_on_a_terminal(broker, typed, *arguments):
    """Runs the tool with a terminal as its standard input, types when it is asked; gives the status and what it wrote to both outputs."""
    ours, terminal = pty.openpty()
    try:
        process = subprocess.Popen(
            [BINARY, *arguments, "--bootstrap-server", broker.bootstrap], stdin=terminal, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            preexec_fn=harness.die_with_parent,
        )
        asked = b""
        while not asked.endswith(b"[y/N] "):
            piece = process.stderr.read(1)
            assert piece, (asked, process.communicate())
            asked += piece
        assert process.poll() is None, "it waits for the answer"
        os.write(ours, typed)
        out, error = process.communicate(timeout=TIMEOUT_S)
        return process.returncode, out.decode(), (asked + error).decode()
    finally:
        os.close(ours)
        os.close(terminal)


# No, in four ways: a word, a line that says nothing, the end of the input, something else.
NO = {"no": b"n\n", "nothing": b"\n", "the end": b"\x04", "something else": b"maybe\n"}


@pytest.mark.parametrize("typed", NO.values(), ids=NO)
def test_who_is_asked_may_say_no(broker, typed):
    name, group = unique_name(), unique_name("asked")
    create_topic(broker, name, 2)
    run(broker, "produce", name, "-p", "0", stdin=b"a\nb\n")
    assert len(run(broker, "consume", name, "--group", group).split()) == 2
    committed = group_state(broker, group)["partitions"]
    for command in (("topic", "delete", name), ("group", "delete", group), ("group", "reset", group, "--to", "beginning")):
        status, out, error = run_on_a_terminal(broker, typed, *command)
        assert (status, error.splitlines()[-1].split("[y/N] ")[-1]) == (1, "ringlog: nothing was changed"), error
    assert name in run(broker, "topic", "list").decode()
    assert group_state(broker, group)["partitions"] == committed


def test_who_is_asked_sees_what_goes_and_says_yes(broker):
    name, group = unique_name(), unique_name("asked")
    create_topic(broker, name, 2)
    run(broker, "produce", name, "-p", "1", stdin=b"a\nb\nc\n")
    assert len(run(broker, "consume", name, "--group", group).split()) == 3
    # The plan is beside the question, so that standard output stays JSON.
    status, out, error = run_on_a_terminal(broker, b"y\n", "group", "reset", group, "--to", "-2", "--json")
    moved = {m["partition"]: (m["committed_offset"], m["new_offset"]) for m in json.loads(out)}
    assert status == 0 and moved[1] == (3, 1)
    assert [name, "1", "3", "1"] in [line.split() for line in error.splitlines()], error
    assert f"moves group {group}" in error
    status, out, error = run_on_a_terminal(broker, b"Yes\n", "group", "delete", group)
    assert (status, out) == (0, f"deleted {group}\n") and [group, name, "1", "1"] in [line.split() for line in error.splitlines()], error
    assert group not in run(broker, "group", "list").decode()
    status, out, error = run_on_a_terminal(broker, b"y\n", "topic", "delete", name)
    assert (status, out) == (0, f"deleted {name}\n") and f"{name} (2 partitions, 3 offsets)" in error
    assert name not in run(broker, "topic", "list").decode()


def test_where_nobody_can_be_asked_nothing_happens(broker):
    name, group = unique_name(), unique_name("unasked")
    create_topic(broker, name)
    run(broker, "produce", name, stdin=b"a\nb\n")
    run(broker, "consume", name, "--group", group)
    for command in (("reset", group, "--to", "beginning"), ("delete", group)):
        for json_too in ((), ("--json",)):
            process = start(broker, "group", *command, *json_too)
            out, error = process.communicate(b"y\n", timeout=TIMEOUT_S)
            assert process.returncode == 1 and error.decode().splitlines()[-1].endswith("say --yes if that is wanted"), error
            assert name.encode() in out + error, "what it would have done is shown"
            assert not json_too or out == b""
    assert [p["committed_offset"] for p in group_state(broker, group)["partitions"]] == [2]


def tool(*arguments):
    done = subprocess.run([BINARY, *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done
    return done.stdout


COMMANDS = {
    "topic": ("list", "create", "describe", "alter", "delete"), "group": ("list", "describe", "reset", "delete"), "config": ("show", "alter"),
    "produce": (), "consume": (), "status": (), "completions": (),
}


def test_every_commands_help_has_examples():
    for command, subcommands in COMMANDS.items():
        assert {f"{s} " for s in subcommands} <= {f"{line.split()[0]} " for line in tool(command, "--help").splitlines() if line.split()}
        for arguments in [(command, s) for s in subcommands] or [(command,)]:
            _, examples = tool(*arguments, "--help").split("Example", 1)
            assert f"ringlog {' '.join(arguments)}" in examples, arguments


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish", "elvish", "powershell"])
def test_completions_name_the_commands(shell):
    script = tool("completions", shell)
    for word in (*COMMANDS, "reset", "describe"):
        assert word in script, word
    if (found := shutil.which(shell)) and shell in ("bash", "zsh", "fish"):
        checked = subprocess.run([found, "-n"], input=script, capture_output=True, text=True, timeout=TIMEOUT_S)
        assert (checked.returncode, checked.stderr) == (0, ""), checked


@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("words, wanted", [
    (["ringlog", "gr"], {"group"}), (["ringlog", "group", "de"], {"describe", "delete"}), (["ringlog", "topic", "alter", "--un"], {"--unset"}),
    (["ringlog", "produce", "--format", ""], {"lines", "json", "whole"}),
])
def test_bash_completes(tmp_path, words, wanted):
    file = tmp_path / "ringlog.bash"
    file.write_text(tool("completions", "bash"))
    quoted = " ".join(f"'{word}'" for word in words)
    asked = f'source {file}; COMP_WORDS=({quoted}); COMP_CWORD={len(words) - 1}; _ringlog ringlog "{words[-1]}" "{words[-2]}"; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "--norc", "-c", asked], capture_output=True, text=True, timeout=TIMEOUT_S)
    assert set(done.stdout.split()) == wanted, done


@pytest.mark.skipif(os.environ.get("BROKER") == "kafka", reason="it starts a Ringlog")
def test_the_demo_of_groups_misses_nothing():
    environment = {**os.environ, "RINGLOG_BIN": BINARY}
    done = subprocess.run([harness.ROOT / "scripts" / "demo-groups"], env=environment, capture_output=True, timeout=4 * TIMEOUT_S)
    assert done.returncode == 0, done
    assert b"60 of 60 orders" in done.stdout


@pytest.mark.long
def test_a_member_whose_reader_is_slow_stays_in_its_group(broker):
    name, group = unique_name(), unique_name("group")
    create_topic(broker, name)
    lines = [b"%06d %s" % (n, b"x" * 993) for n in range(600)]
    run(broker, "produce", name, stdin=b"\n".join(lines) + b"\n")
    member = start(broker, "consume", name, "--group", group)
    read = b""
    while piece := member.stdout.read(40_000):  # longer than a session in all, and never as long at once
        read += piece
        time.sleep(1.5)
    assert member.wait(TIMEOUT_S) == 0, member.stderr.read()
    assert read.split(b"\n")[:-1] == lines
    assert [p["lag"] for p in group_state(broker, group)["partitions"]] == [0]


def test_what_is_read_before_a_bad_line_is_sent(broker):
    name = unique_name()
    create_topic(broker, name)
    records = b"".join(b'{"value":"%d"}\n' % n for n in range(500))
    assert "line 501" in run(broker, "produce", name, "--format", "json", stdin=records + b"nonsense\n", status=1)
    assert len(run(broker, "consume", name).splitlines()) == 500
