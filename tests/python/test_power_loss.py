"""The power goes, again and again, while a broker on a real file system works: what it said was durable is there afterwards. The disk
below is one that forgets what was not flushed (forgetful.py): FUSE, a loop device, ext4 or XFS. A few rounds always; more with --long
(RINGLOG_POWER_ROUNDS, RINGLOG_POWER_SEED). Needs root, /dev/fuse and loop devices: without, it is skipped and says so."""

import os
import pathlib
import random
import shutil
import subprocess
import sys
import time

import harness
import pytest
from conftest import unique_name
from crash import SETTINGS, Commands, Topic, wait_for_progress

pytestmark = [
    pytest.mark.xdist_group("disks"),  # one after the other: looking for a free loop device and taking it is not one step
    pytest.mark.skipif(harness.broker_class() is not harness.Ringlog, reason="Kafka leaves syncing to the operating system"),
    pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: power loss needs root for FUSE and loop devices"),
    pytest.mark.skipif(not os.path.exists("/dev/fuse"), reason="NOT TESTED: power loss needs /dev/fuse"),
]

SIZE_BYTES = 1 << 30
# What the disk writes whole. ext4 replays blocks that were torn; XFS takes the sequence number in a block's first sector for that of
# all of it, and does not mount if a block of its own was torn.
WHOLE_BYTES = {"ext4": 512, "xfs": 4096}


def command(*words):
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout.strip()


class ForgetfulDisk:
    """A file system whose power can be taken away."""

    def __init__(self, root, kind):
        self.root, self.kind = root, kind
        self.image, self.fuse, self.mount, self.control = (root / name for name in ("image", "fuse", "mount", "control"))
        for folder in (self.fuse, self.mount):
            folder.mkdir()
        os.mkfifo(self.control)
        with open(self.image, "wb") as file:
            file.truncate(SIZE_BYTES)
        self.server = self.loop = None
        self.attach()
        command(f"mkfs.{kind}", *{"ext4": ["-q", "-m", "0"], "xfs": ["-q", "-f"]}[kind], self.loop)
        command("mount", self.loop, str(self.mount))

    def attach(self):
        server = pathlib.Path(__file__).with_name("forgetful.py")
        self.server = subprocess.Popen(
            [sys.executable, server, self.fuse, self.image, self.control, str(WHOLE_BYTES[self.kind])], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            preexec_fn=harness.die_with_parent,
        )
        if self.server.stdout.readline() != "ready\n":
            reason = self.server.stderr.read().strip()
            self.server = None
            pytest.skip(f"NOT TESTED: power loss: {reason}")
        self.commands = open(self.control, "w")
        done = subprocess.run(["losetup", "--show", "-f", str(self.fuse / "disk")], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode != 0:
            self.detach()
            pytest.skip(f"NOT TESTED: power loss: no loop device here: {done.stderr.strip()}")
        self.loop = done.stdout.strip()

    def say(self, line):
        self.commands.write(line + "\n")
        self.commands.flush()

    def power_off(self, seed):
        """The power goes. Returns how many sectors that were not flushed stayed, and how many are lost."""
        self.say(f"power {seed}")
        word, kept, lost, _ = self.server.stdout.readline().split()
        assert word == "off"
        return int(kept), int(lost)

    def power_on(self):
        """The same disk again; whoever used it has ended."""
        self.detach()
        self.attach()
        command("mount", self.loop, str(self.mount))

    def detach(self):
        subprocess.run(["umount", "-l", str(self.mount)], stdin=subprocess.DEVNULL, capture_output=True)
        if self.loop:
            subprocess.run(["losetup", "-d", self.loop], stdin=subprocess.DEVNULL, capture_output=True)
            self.loop = None
        if self.server:
            self.say("end")
            self.commands.close()
            self.server.wait(60)
            self.server = None
        subprocess.run(["umount", "-l", str(self.fuse)], stdin=subprocess.DEVNULL, capture_output=True)


@pytest.fixture(params=["ext4", "xfs"])
def disk(request, tmp_path):
    if shutil.which(f"mkfs.{request.param}") is None:
        pytest.skip(f"NOT TESTED: power loss on {request.param}: there is no mkfs.{request.param} (Debian: e2fsprogs, xfsprogs)")
    made = ForgetfulDisk(tmp_path, request.param)
    yield made
    made.detach()
    made.image.unlink()


def test_the_disk_really_forgets(disk):
    """What the other tests stand on: what was synced stays, and what was not does not have to."""
    with open(disk.mount / "kept", "wb") as file:
        file.write(b"kept" * 5000)
        file.flush()
        os.fsync(file.fileno())
    directory = os.open(disk.mount, os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)
    with open(disk.mount / "lost", "wb") as file:
        file.write(b"lost" * 5000)
    disk.power_off(1)
    with pytest.raises(OSError), open(disk.mount / "later", "wb") as file:
        os.fsync(file.fileno())
    disk.power_on()
    assert (disk.mount / "kept").read_bytes() == b"kept" * 5000
    lost = disk.mount / "lost"
    assert not lost.exists() or lost.read_bytes() != b"lost" * 5000


def rounds_without_power(disk, tmp_path, rounds, seed):
    rng = random.Random(seed)
    broker = harness.Ringlog(SETTINGS, work_dir=tmp_path / "work")
    broker.data_dir = disk.mount / "data"
    topics, commands, unsynced = [], None, 0
    try:
        broker.start()
        kinds = [(True, True), (True, False), (False, False)]  # durable, idempotent
        topics = [Topic(broker, unique_name("power"), 2, seed + n, *kind) for n, kind in enumerate(kinds)]
        commands = Commands(broker, unique_name("come-and-go"))
        for _ in range(rounds):
            wait_for_progress(topics, rng.randrange(1, 2500))
            time.sleep(rng.random() * 0.3)
            unsynced += sum(disk.power_off(rng.randrange(1 << 30)))
            broker.kill()
            disk.power_on()
            if rng.random() < 0.3:
                # And once more while it recovers.
                broker.launch()
                time.sleep(rng.random() * 0.3)
                disk.power_off(rng.randrange(1 << 30))
                broker.kill()
                disk.power_on()
            broker.start()
            for topic in topics:
                topic.check_newest(power_was_lost=True)
        wait_for_progress(topics, 300)
        for thing in (*topics, commands):
            thing.pause()
        for topic in topics:
            assert topic.deliveries.errors == []
            topic.check(power_was_lost=True)
        commands.check()
        assert unsynced > 0, "there was never anything to lose: nothing was tested"
        broker.stop()
        verified = subprocess.run([broker.binary(), "log", "verify", str(broker.data_dir)], capture_output=True, text=True)
        assert verified.returncode == 0, verified.stdout
    finally:
        for thing in [*topics, *([commands] if commands else [])]:
            thing.ending.set()
        broker.kill()


def test_power_is_lost_under_load(disk, tmp_path):
    rounds_without_power(disk, tmp_path, 3, seed=int(os.environ.get("RINGLOG_POWER_SEED", "1")))


@pytest.mark.long
def test_power_is_lost_many_times(disk, tmp_path):
    seed = int(os.environ.get("RINGLOG_POWER_SEED", str(time.time_ns())))
    print(f"RINGLOG_POWER_SEED={seed}")
    rounds_without_power(disk, tmp_path, int(os.environ.get("RINGLOG_POWER_ROUNDS", "40")), seed)
