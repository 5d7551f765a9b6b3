"""What the Python members share: their options, commands from stdin, events to stdout. See ../member.py for what is said."""

import json
import queue
import sys
import threading


class Line:
    """The way to the test."""

    def __init__(self):
        self.options = json.loads(sys.argv[1])
        self.commands = queue.Queue()
        self._lock = threading.Lock()
        self._held = None
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in sys.stdin:
            self.commands.put(json.loads(line))
        self.commands.put({"id": 0, "do": "close"})  # the test is gone

    def next(self):
        """The next command, if there is one."""
        try:
            return self.commands.get_nowait()
        except queue.Empty:
            return None

    def say(self, event, **what):
        with self._lock:
            print(json.dumps({"event": event, **what}), flush=True)

    def reply(self, command, **what):
        self.say("reply", id=command["id"], **what)

    def holds(self, partitions, is_assigned):
        """What the member holds now; said if it was assigned just now, or if it is not what was said last."""
        if is_assigned or (self._held is not None and partitions != self._held):
            self._held = partitions
            self.say("assigned", partitions=sorted(partitions))

    def records(self, records):
        """Records as (topic, partition, offset, value)."""
        if records:
            self.say("records", records=[(t, p, o, v.decode()) for t, p, o, v in records])
