"""A disk that forgets what it was not told to keep, when its power goes: a FUSE file system of one file, spoken over /dev/fuse, under a
loop device, under ext4 or XFS. Needs root. Written for the power loss tests; a server of its own process:

    python forgetful.py MOUNT IMAGE CONTROL WHOLE_BYTES

IMAGE holds what is durable. A write is kept in memory, sector by sector, until a flush (FSYNC) writes all that came before it.
"power SEED" on CONTROL, a FIFO: of the sectors that were not flushed some are written and some not, as the seed says, and from then on
every request fails, as when the machine is gone. Those of one aligned piece of WHOLE_BYTES are written all, or none of them.
"""

import ctypes
import errno
import os
import random
import struct
import sys
import threading
import time

SECTOR = 512
# include/uapi/linux/fuse.h
LOOKUP, FORGET, GETATTR, SETATTR, OPEN, READ, WRITE, STATFS, RELEASE, FSYNC, FLUSH, INIT, OPENDIR, RELEASEDIR = 1, 2, 3, 4, 14, 15, 16, 17, 18, 20, 25, 26, 27, 29
DESTROY, BATCH_FORGET, INTERRUPT = 38, 42, 36
IN = struct.Struct("<IIQQIIIHH")
OUT = struct.Struct("<IiQ")
ATTR = struct.Struct("<QQQQQQIIIIIIIIII")
FILE, FOPEN_DIRECT_IO = 2, 1
WRITE_BYTES_MAX = 1 << 20


class Disk:
    def __init__(self, image, whole_bytes):
        self.whole_sectors = whole_bytes // SECTOR
        self.file = os.open(image, os.O_RDWR)
        self.size = os.fstat(self.file).st_size
        self.unsynced = {}  # sector: bytes
        self.dead = False
        self.lock = threading.Lock()
        self.flushes = 0

    def read(self, at, size):
        data = bytearray(os.pread(self.file, size, at))
        data.extend(bytes(size - len(data)))
        first, last = at // SECTOR, (at + size + SECTOR - 1) // SECTOR
        if self.unsynced:
            for sector in range(first, last):
                piece = self.unsynced.get(sector)
                if piece is not None:
                    start = sector * SECTOR - at
                    data[start:start + SECTOR] = piece
        return bytes(data)

    def write(self, at, data):
        assert at % SECTOR == 0 and len(data) % SECTOR == 0, "loop devices write whole sectors"
        for n in range(0, len(data), SECTOR):
            self.unsynced[(at + n) // SECTOR] = data[n:n + SECTOR]

    def flush(self):
        self.keep(sorted(self.unsynced))
        self.unsynced.clear()
        self.flushes += 1

    def keep(self, sectors):
        at = 0
        while at < len(sectors):
            end = at + 1
            while end < len(sectors) and sectors[end] == sectors[end - 1] + 1:
                end += 1
            os.pwrite(self.file, b"".join(self.unsynced[s] for s in sectors[at:end]), sectors[at] * SECTOR)
            at = end

    def power_off(self, seed):
        """Some unsynced sectors are kept: all, none, or each by chance, since a device writes its cache in an order of its own. It waits
        a little for a moment in which there are any: between flushes there is nothing to lose."""
        end = time.monotonic() + 1
        while not self.unsynced and time.monotonic() < end:
            time.sleep(0.0002)
        with self.lock:
            rng = random.Random(seed)
            chance = rng.choice([0.0, 0.5, 0.9, 0.1, 1.0])
            pieces = sorted({s // self.whole_sectors for s in self.unsynced})
            kept_pieces = {piece for piece in pieces if rng.random() < chance}
            kept = [s for s in sorted(self.unsynced) if s // self.whole_sectors in kept_pieces]
            lost = len(self.unsynced) - len(kept)
            self.keep(kept)
            self.unsynced.clear()
            self.dead = True
        return len(kept), lost


def attributes(disk, node):
    mode, size = (0o040755, 0) if node == 1 else (0o100600, disk.size)
    return ATTR.pack(node, size, (size + 511) // 512, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 4096, 0)


def answer(disk, opcode, node, body):
    """What a request gets: bytes, an error number, or None where nothing is to be said."""
    if opcode == INIT:
        major, minor, readahead, flags = struct.unpack_from("<IIII", body)
        # FUSE_BIG_WRITES and FUSE_MAX_PAGES.
        return struct.pack("<IIIIHHIIHHIIHH", 7, 31, readahead, (1 << 5 | 1 << 22) & flags, 16, 12, WRITE_BYTES_MAX, 1, WRITE_BYTES_MAX // 4096, 0, 0, 0, 0, 0) + bytes(20)
    if opcode in (FORGET, BATCH_FORGET, INTERRUPT):
        return None
    if opcode == LOOKUP:
        if body.rstrip(b"\0") != b"disk":
            return errno.ENOENT
        return struct.pack("<QQQQII", FILE, 0, 3600, 3600, 0, 0) + attributes(disk, FILE)
    if opcode in (GETATTR, SETATTR):
        return struct.pack("<QII", 3600, 0, 0) + attributes(disk, node)
    if opcode in (OPEN, OPENDIR):
        return struct.pack("<QII", 0, FOPEN_DIRECT_IO if opcode == OPEN else 0, 0)
    if opcode in (RELEASE, RELEASEDIR, FLUSH, DESTROY):
        return b""
    if opcode == STATFS:
        return struct.pack("<QQQQQIIII", 0, 0, 0, 0, 0, 4096, 255, 4096, 0) + bytes(24)
    if opcode not in (READ, WRITE, FSYNC):
        return errno.ENOSYS
    with disk.lock:
        if disk.dead:
            return errno.EIO
        if opcode == FSYNC:
            disk.flush()
            return b""
        _, at, size = struct.unpack_from("<QQI", body)
        if opcode == READ:
            return disk.read(at, min(size, max(0, disk.size - at)))
        disk.write(at, body[40:40 + size])
        return struct.pack("<II", size, 0)


def serve(fuse, disk):
    while True:
        try:
            request = os.read(fuse, WRITE_BYTES_MAX + (64 << 10))
        except OSError as e:
            if e.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                continue
            return  # ENODEV: unmounted
        _, opcode, unique, node, *_ = IN.unpack_from(request)
        result = answer(disk, opcode, node, request[IN.size:])
        if result is None:
            continue
        data = result if isinstance(result, bytes) else b""
        error = 0 if isinstance(result, bytes) else -result
        try:
            os.write(fuse, OUT.pack(OUT.size + len(data), error, unique) + data)
        except OSError:
            pass  # whoever asked is gone


def main(mount, image, control, whole_bytes):
    libc = ctypes.CDLL(None, use_errno=True)
    fuse = os.open("/dev/fuse", os.O_RDWR)
    options = f"fd={fuse},rootmode=40000,user_id=0,group_id=0,max_read={WRITE_BYTES_MAX}".encode()
    if libc.mount(b"forgetful", mount.encode(), b"fuse.forgetful", 0, options) != 0:
        sys.exit(f"no FUSE mount here: {os.strerror(ctypes.get_errno())}")
    disk = Disk(image, int(whole_bytes))
    threading.Thread(target=serve, args=(fuse, disk), daemon=True).start()
    print("ready", flush=True)
    with open(control) as commands:
        for line in commands:
            word, *seed = line.split()
            if word == "power":
                kept, lost = disk.power_off(int(seed[0]))
                print(f"off {kept} {lost} {disk.flushes}", flush=True)
            elif word == "end":
                break
    libc.umount2(mount.encode(), 2)


if __name__ == "__main__":
    main(*sys.argv[1:])
