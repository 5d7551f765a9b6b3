"""Frames and record batches built by hand, for what no client sends."""

import socket
import struct
import time

import crc32c
import harness


class Connection:
    """One socket to the broker; never tries again."""

    def __init__(self, broker, timeout_s=120):
        self.socket = socket.create_connection((harness.HOST, broker.port), timeout=timeout_s)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data)

    def frame(self, body):
        self.send(struct.pack(">i", len(body)) + body)

    def request(self, key, version, correlation, body=b"", flexible=False):
        self.frame(header(key, version, correlation, flexible) + body)

    def receive(self):
        """The next response without its length, or None once the broker has closed."""
        return harness.receive_frame(self.socket)

    def is_closed_by_peer(self):
        try:
            return self.socket.recv(1) == b""
        except ConnectionResetError:
            return True


def header(key, version, correlation, flexible=False):
    return struct.pack(">hhih4s", key, version, correlation, 4, b"wire") + (b"\0" if flexible else b"")


def string(text):
    return struct.pack(">h", len(text)) + text.encode()


def compact(text):
    """A string of a flexible version."""
    return bytes([len(text) + 1]) + text.encode()


def varint(value):
    value = (value << 1) ^ (value >> 63)
    out = b""
    while value > 127:
        out += bytes([value & 127 | 128])
        value >>= 7
    return out + bytes([value])


def record(value, delta=0):
    body = b"\0" + varint(0) + varint(delta) + varint(-1) + varint(len(value)) + value + varint(0)
    return varint(len(body)) + body


def batch(
    values=(b"x",), *, magic=2, base_offset=0, attributes=0, timestamp=None, producer_id=-1, producer_epoch=-1, sequence=-1,
    last_delta=None, count=None, crc=None, length=None, payload=None,
):
    """A record batch v2; every field that can lie may be told to."""
    if payload is None:
        payload = b"".join(record(v, n) for n, v in enumerate(values))
    timestamp = int(time.time() * 1000) if timestamp is None else timestamp
    last_delta = len(values) - 1 if last_delta is None else last_delta
    count = len(values) if count is None else count
    checked = struct.pack(
        ">hiqqqhii", attributes, last_delta, timestamp, timestamp, producer_id, producer_epoch, sequence, count,
    ) + payload
    crc = crc32c.crc32c(checked) if crc is None else crc
    length = 9 + len(checked) if length is None else length
    return struct.pack(">qiibI", base_offset, length, 0, magic, crc) + checked


def produce(topic, records, partition=0, acks=-1, timeout_ms=30_000):
    """Body of Produce v3 to v8. `records`: bytes or None; or a list of (topic, partition, bytes)."""
    parts = [(topic, partition, records)] if not isinstance(records, list) else records
    body = struct.pack(">hhii", -1, acks, timeout_ms, len(parts))
    for name, index, data in parts:
        size = -1 if data is None else len(data)
        body += string(name) + struct.pack(">iii", 1, index, size) + (data or b"")
    return body


def produce_result(response):
    """(error code, base offset) of the only partition in a Produce v7 response."""
    position = 8
    size = struct.unpack_from(">h", response, position)[0]
    position += 2 + size
    count, _, error, offset = struct.unpack_from(">iihq", response, position)
    assert count == 1
    return error, offset


def send_batch(broker, topic, data, partition=0, acks=-1):
    """Produces raw bytes with Produce v7 and returns (error code, base offset)."""
    with Connection(broker) as c:
        c.request(0, 7, 5, produce(topic, data, partition, acks))
        response = c.receive()
        assert response is not None, "the connection was closed"
        assert struct.unpack_from(">i", response)[0] == 5
        return produce_result(response)
