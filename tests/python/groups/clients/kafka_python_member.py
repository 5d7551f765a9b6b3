"""A member of a group by kafka-python. See ../member.py."""

import sys

from kafka import ConsumerRebalanceListener, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.coordinator.assignors.cooperative_sticky import CooperativeStickyAssignor
from kafka.coordinator.assignors.range import RangePartitionAssignor
from kafka.errors import FencedInstanceIdError, KafkaError
from kafka.structs import OffsetAndMetadata
from line import Line

# Longer than the others': a poll whose time runs out in a join may have to begin it again.
POLL_MS = 500
ASSIGNORS = {"range": RangePartitionAssignor, "cooperative-sticky": CooperativeStickyAssignor}


class Member(ConsumerRebalanceListener):
    def __init__(self, line):
        self.line, options = line, line.options
        self.positions = {}
        self.is_assigned = False
        self.consumer = KafkaConsumer(
            bootstrap_servers=options["bootstrap"], group_id=options["group"], auto_offset_reset="earliest", enable_auto_commit=False,
            session_timeout_ms=options["session_ms"], heartbeat_interval_ms=options["heartbeat_ms"],
            metadata_max_age_ms=options["metadata_ms"], group_instance_id=options.get("instance"),
            partition_assignment_strategy=[ASSIGNORS[options["strategy"]]], reconnect_backoff_max_ms=500,
        )
        if "pattern" in options:
            self.consumer.subscribe(pattern=options["pattern"], listener=self)
        else:
            self.consumer.subscribe(topics=options["topics"], listener=self)

    def on_partitions_assigned(self, assigned):
        self.is_assigned = True

    def on_partitions_revoked(self, revoked):
        self.line.say("revoked", partitions=[(p.topic, p.partition) for p in revoked])
        for p in revoked:
            self.positions.pop(p, None)

    def run(self):
        while True:
            try:
                polled = self.consumer.poll(POLL_MS)
            except FencedInstanceIdError as error:
                self.line.say("fatal", error=repr(error))
                polled = {}
            except KafkaError as error:
                # While a broker restarts, poll may raise what an application tries again on.
                print(f"poll: {error!r}", file=sys.stderr)
                polled = {}
            # Where kafka-python 3.0.12 joins again because of the metadata, as a leader does that was first to assign and did not know the
            # topics yet, it has no reason to join any more once it has assigned: a poll whose time runs out then leaves a join that no later
            # one goes on with, and the consumer neither fetches nor sends heartbeats. What it begins it is to end.
            coordinator = self.consumer._coordinator
            if coordinator.rejoining:
                coordinator.request_rejoin()
            is_assigned, self.is_assigned = self.is_assigned, False
            self.line.holds({(p.topic, p.partition) for p in self.consumer.assignment()}, is_assigned)
            for partition, records in polled.items():
                self.positions[partition] = records[-1].offset + 1
                self.line.records([(r.topic, r.partition, r.offset, r.value) for r in records])
            while (command := self.line.next()) is not None:
                try:
                    if command["do"] == "close":
                        self.consumer.close(autocommit=False)
                        return self.line.reply(command)
                    getattr(self, command["do"])(command)
                except KafkaError as error:
                    self.line.reply(command, error=repr(error))

    def produce(self, command):
        delivered, failed = [], []
        producer = KafkaProducer(bootstrap_servers=self.line.options["bootstrap"])
        for number, value in enumerate(command["values"]):
            sent = producer.send(command["topic"], value.encode(), partition=number % command["partitions"])
            sent.add_callback(lambda m, value=value: delivered.append((m.topic, m.partition, m.offset, value)))
            sent.add_errback(lambda error: failed.append(repr(error)))
        producer.flush(60)
        producer.close()
        self.line.reply(command, delivered=delivered, **({"error": failed} if failed else {}))

    def offsets(self):
        return {p: OffsetAndMetadata(offset, "", -1) for p, offset in self.positions.items()}

    def commit(self, command):
        offsets = self.offsets()
        self.consumer.commit(offsets)
        self.line.reply(command, offsets=[(p.topic, p.partition, self.consumer.committed(p)) for p in offsets])

    def commit_async(self, command):
        def done(offsets, answer):
            if isinstance(answer, Exception):
                self.line.reply(command, error=repr(answer))
            else:
                self.line.reply(command, offsets=[(p.topic, p.partition, o.offset) for p, o in offsets.items()])

        self.consumer.commit_async(self.offsets(), callback=done)

    def pause(self, command):
        self.consumer.pause(*[TopicPartition(t, p) for t, p in command["partitions"]])
        self.line.reply(command)

    def resume(self, command):
        self.consumer.resume(*[TopicPartition(t, p) for t, p in command["partitions"]])
        self.line.reply(command)

    def seek(self, command):
        self.consumer.seek(TopicPartition(*command["partition"]), command["offset"])
        self.line.reply(command)

    def lag(self, command):
        admin = KafkaAdminClient(bootstrap_servers=self.line.options["bootstrap"])
        group = self.line.options["group"]
        committed = admin.list_group_offsets({group: None})[group]
        partitions = [TopicPartition(t, p) for t, p in command["partitions"]]
        ends = self.consumer.end_offsets(partitions)
        self.line.reply(command, lag=[(p.topic, p.partition, ends[p] - committed[p].offset) for p in partitions])
        admin.close()


if __name__ == "__main__":
    Member(Line()).run()
