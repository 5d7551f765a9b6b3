"""Ringlog beside a real Kafka on this machine: throughput, broker CPU, memory, start and idling.

    scripts/compare [--gb N] [--rounds N] [--json FILE] ...

Both brokers get the same load from the same librdkafka client (tests/rdkafka): 1000-byte records into a topic of two
partitions with acks=all in large batches, then everything is consumed by assignment. The contestants alternate, every run
starts on an empty data directory after a warm-up that is not measured, and medians are reported with all runs in the JSON.
The page cache is filled with a clean file first: memory that a virtual machine's host has not backed yet would otherwise be
what is measured. It starts and stops its own brokers on loopback, and removes all that it wrote.
"""

import argparse
import json
import os
import pathlib
import platform
import shutil
import statistics
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "python")]

import harness  # noqa: E402
import wire  # noqa: E402
from confluent_kafka.admin import AdminClient, NewTopic  # noqa: E402

PARTITIONS = 2
GIB = 1 << 30
NEVER = 9223372036854775807
MODES = {"durable": 1, "page cache": NEVER}
WARM_UP_BYTES = 500_000_000
LOAD = harness.BUILD / "rdkafka" / "release" / "kafka-load"
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def cpu_s(pid):
    """User and system time of a process so far, all its threads (kernel I/O workers included)."""
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def memory_mib(pid, name):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(name)


def mem_info(name):
    for line in pathlib.Path("/proc/meminfo").read_text().splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


class Filler:
    """A clean file that fills the page cache, so that pages come from reclaim and not fresh from the host."""

    LEAVE_FREE = GIB // 2

    def __init__(self, directory):
        self.path = directory / "filler"
        self.bytes = 0

    def fill(self):
        """Reads until little memory is free; the file has no data on the device, only its pages in memory."""
        wanted = mem_info("MemFree") - self.LEAVE_FREE
        if wanted <= 0:
            return
        self.bytes = max(self.bytes, mem_info("MemFree") + mem_info("Cached"))
        with open(self.path, "ab") as file:
            os.posix_fallocate(file.fileno(), 0, self.bytes)
        with open(self.path, "rb", buffering=0) as file:
            while mem_info("MemFree") > self.LEAVE_FREE:
                if not file.read(64 << 20):
                    break

    def remove(self):
        self.path.unlink(missing_ok=True)


def load(action, broker, topic, size_bytes):
    """Runs the client and returns its figures with the broker's CPU over that time."""
    before = cpu_s(broker.pid)
    done = subprocess.run(
        [str(LOAD), action, broker.bootstrap, topic, str(PARTITIONS), str(size_bytes)], stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=1800,
    )
    if done.returncode != 0:
        raise SystemExit(f"kafka-load {action} failed against {broker.name}: {done.stderr}\n{broker.log_tail()}")
    figures = json.loads(done.stdout)
    return {
        "mb_per_s": figures["mb_per_s"],
        "cpu_s_per_gb": (cpu_s(broker.pid) - before) / (figures["bytes"] / 1e9),
    }


def create(broker, topic, flush_messages):
    client = AdminClient({"bootstrap.servers": broker.bootstrap, "log_level": 0})
    config = {"flush.messages": str(flush_messages), "retention.ms": "-1"}
    client.create_topics([NewTopic(topic, PARTITIONS, 1, config=config)])[topic].result(60)
    while len(client.list_topics(topic, timeout=60).topics[topic].partitions) != PARTITIONS:
        time.sleep(0.05)


def run_throughput(make, filler, mode, size_bytes):
    broker = make()
    try:
        broker.start()
        create(broker, "warm-up", MODES[mode])
        load("produce", broker, "warm-up", WARM_UP_BYTES)
        load("consume", broker, "warm-up", WARM_UP_BYTES)
        create(broker, "measured", MODES[mode])
        filler.fill()
        produced = load("produce", broker, "measured", size_bytes)
        consumed = load("consume", broker, "measured", size_bytes)
        return {"produce": produced, "consume": consumed, "rss_peak_mib": memory_mib(broker.pid, "VmHWM")}
    finally:
        broker.remove()


def first_ack_ms(broker, topic):
    """From the start of the process to the first acknowledged record; a raw socket that asks again and again."""
    data = wire.batch([b"first"])
    start = time.perf_counter()
    broker.launch()
    while time.perf_counter() - start < 120:
        try:
            with wire.Connection(broker, timeout_s=10) as c:
                while True:
                    c.request(0, 7, 1, wire.produce(topic, data))
                    answer = c.receive()
                    if answer is None:
                        break
                    if wire.produce_result(answer)[0] == 0:
                        return 1000 * (time.perf_counter() - start)
                    time.sleep(0.001)
        except OSError:
            if not broker.is_running():
                break
        time.sleep(0.001)
    raise SystemExit(f"{broker.name} acknowledged nothing:\n{broker.log_tail()}")


def run_idle(make, idle_s):
    """Start to first acknowledged record on an existing directory, then what it costs to do nothing."""
    broker = make()
    try:
        broker.start()
        create(broker, "first", 1)
        broker.stop()
        started_ms = first_ack_ms(broker, "first")
        while not broker.is_ready():
            time.sleep(0.05)
        time.sleep(2)
        before = cpu_s(broker.pid)
        time.sleep(idle_s)
        return {
            "start_to_first_ack_ms": started_ms,
            "idle_cpu_percent": 100 * (cpu_s(broker.pid) - before) / idle_s,
            "idle_rss_mib": memory_mib(broker.pid, "VmRSS"),
        }
    finally:
        broker.remove()


def median(runs, *path):
    values = []
    for run in runs:
        for key in path:
            run = run[key]
        values.append(run)
    return statistics.median(values)


def describe_machine(directory):
    cpus = [line.split(":", 1)[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
    listed = subprocess.run(["df", "--output=fstype", str(directory)], capture_output=True, text=True)
    filesystem = listed.stdout.split()[-1]
    return {
        "kernel": platform.release(), "cpus": len(os.sched_getaffinity(0)), "cpu": cpus[0] if cpus else platform.machine(),
        "memory_gib": round(mem_info("MemTotal") / GIB, 1), "filesystem": filesystem,
    }


def print_table(results, names):
    rows = [("", *names, "ratio")]

    def row(title, form, getter):
        values = [getter(name) for name in names]
        ratio = f"{values[0] / values[-1]:.2f}" if len(values) > 1 and values[-1] else ""
        rows.append((title, *(form.format(v) for v in values), ratio))

    for mode, by_broker in results["throughput"].items():
        for action in ("produce", "consume"):
            row(f"{action}, {mode}, MB/s", "{:.0f}", lambda n: median(by_broker[n], action, "mb_per_s"))
            row(f"{action}, {mode}, broker CPU s/GB", "{:.2f}", lambda n: median(by_broker[n], action, "cpu_s_per_gb"))
        row(f"{mode}, peak RSS MiB", "{:.0f}", lambda n: median(by_broker[n], "rss_peak_mib"))
    if results["idle"]:
        idle = results["idle"]
        row("start to first acknowledged record, ms", "{:.0f}", lambda n: median(idle[n], "start_to_first_ack_ms"))
        row("idle CPU, % of a core", "{:.2f}", lambda n: median(idle[n], "idle_cpu_percent"))
        row("idle RSS MiB", "{:.0f}", lambda n: median(idle[n], "idle_rss_mib"))
    widths = [max(len(r[i]) for r in rows) for i in range(len(rows[0]))]
    for number, cells in enumerate(rows):
        print("| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(cells, widths))) + " |")
        if number == 0:
            print("|" + "|".join("-" * (w + 1) + ("-" if i == 0 else ":") for i, w in enumerate(widths)) + "|")


def main():
    parser = argparse.ArgumentParser(description="Compares Ringlog with Kafka on this machine.")
    parser.add_argument("--gb", type=float, default=4, help="GB (10^9 bytes) per measured run (default 4; 8 or more includes writeback)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each broker and mode (default 3)")
    parser.add_argument("--brokers", default="ringlog,kafka", help="in the order of the table (default ringlog,kafka)")
    parser.add_argument("--modes", default=",".join(MODES), help=f"of {', '.join(MODES)} (default all)")
    parser.add_argument("--idle-seconds", type=float, default=10, help="how long idling is watched; 0: neither start nor idling")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a config for Ringlog")
    parser.add_argument("--json", type=pathlib.Path, default=harness.BUILD / "compare.json", help="where all runs are written")
    args = parser.parse_args()
    names, modes = args.brokers.split(","), args.modes.split(",")
    if set(modes) - set(MODES) or set(names) - set(harness.BROKERS) or args.rounds < 1 or args.gb <= 0:
        parser.error(f"modes are {', '.join(MODES)}; brokers are {', '.join(harness.BROKERS)}; rounds and GB are positive")
    size_bytes = int(args.gb * 1e9)
    work = harness.BUILD / "compare"
    work.mkdir(parents=True, exist_ok=True)
    # One run's data, a journal, and the filler, which takes no more than the memory.
    needed = 2 * size_bytes + 4 * GIB + mem_info("MemTotal")
    if shutil.disk_usage(work).free < needed:
        raise SystemExit(f"{work}: {needed / 1e9:.0f} GB of free space are needed; choose a smaller --gb")
    settings = dict(pair.split("=", 1) for pair in args.set)
    makers = {name: (lambda n=name: harness.BROKERS[n](settings if n == "ringlog" else None, work / f"{n}-{time.monotonic_ns()}")) for name in names}
    results = {
        "machine": describe_machine(work), "gb": args.gb, "rounds": args.rounds, "partitions": PARTITIONS, "record_bytes": 1000,
        "throughput": {mode: {name: [] for name in names} for mode in modes}, "idle": {},
    }
    filler = Filler(work)
    try:
        for mode in modes:
            for number in range(args.rounds):
                for name in names:
                    filler.fill()
                    run = run_throughput(makers[name], filler, mode, size_bytes)
                    results["throughput"][mode][name].append(run)
                    print(
                        f"{mode}, round {number + 1}, {name}: produce {run['produce']['mb_per_s']:.0f} MB/s "
                        f"{run['produce']['cpu_s_per_gb']:.2f} s/GB, consume {run['consume']['mb_per_s']:.0f} MB/s "
                        f"{run['consume']['cpu_s_per_gb']:.2f} s/GB, peak RSS {run['rss_peak_mib']:.0f} MiB", file=sys.stderr,
                    )
        if args.idle_seconds > 0:
            for number in range(args.rounds):
                for name in names:
                    results["idle"].setdefault(name, []).append(run_idle(makers[name], args.idle_seconds))
    finally:
        shutil.rmtree(work, ignore_errors=True)
    args.json.write_text(json.dumps(results, indent=1) + "\n")
    machine = results["machine"]
    print(f"{machine['cpus']} CPUs ({machine['cpu']}), {machine['memory_gib']} GiB, Linux {machine['kernel']}, {machine['filesystem']}; "
          f"{args.gb:g} GB of 1000-byte records into {PARTITIONS} partitions, acks=all, medians of {args.rounds}\n")
    print_table(results, names)
    print(f"\nAll runs: {args.json}")


if __name__ == "__main__":
    main()
