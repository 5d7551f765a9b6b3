"""A member of a group by confluent-kafka. See ../member.py."""

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec
from line import Line


class Member:
    def __init__(self, line):
        self.line, options = line, line.options
        self.positions = {}
        self.waiting_for_commit = []
        self.is_assigned = False
        config = {
            "bootstrap.servers": options["bootstrap"], "group.id": options["group"], "group.protocol": options["protocol"],
            "auto.offset.reset": "earliest", "enable.auto.commit": False, "on_commit": self.on_commit, "error_cb": self.on_error,
            "topic.metadata.refresh.interval.ms": options["metadata_ms"], "reconnect.backoff.max.ms": 500, "log_level": 0,
        }
        if options["protocol"] == "classic":
            config |= {
                "session.timeout.ms": options["session_ms"], "heartbeat.interval.ms": options["heartbeat_ms"],
                "partition.assignment.strategy": options["strategy"],
            }
        if "instance" in options:
            config["group.instance.id"] = options["instance"]
        self.consumer = Consumer(config)
        topics = [options["pattern"]] if "pattern" in options else options["topics"]
        self.consumer.subscribe(topics, on_assign=self.on_assign, on_revoke=self.on_revoke, on_lost=self.on_revoke)

    def on_assign(self, consumer, partitions):
        self.is_assigned = True

    def on_revoke(self, consumer, partitions):
        self.line.say("revoked", partitions=[(p.topic, p.partition) for p in partitions])
        for p in partitions:
            self.positions.pop((p.topic, p.partition), None)

    def on_error(self, error):
        if error.fatal():
            self.line.say("fatal", error=str(error))

    def on_commit(self, error, partitions):
        if self.waiting_for_commit:
            command = self.waiting_for_commit.pop(0)
            bad = [p.error for p in partitions if p.error is not None]
            if error is not None or bad:
                self.line.reply(command, error=str(error or bad))
            else:
                self.line.reply(command, offsets=[(p.topic, p.partition, p.offset) for p in partitions])

    def run(self):
        while True:
            messages = self.consumer.consume(500, timeout=0.05)
            is_assigned, self.is_assigned = self.is_assigned, False
            self.line.holds({(p.topic, p.partition) for p in self.consumer.assignment()}, is_assigned)
            records = []
            for message in messages:
                if message.error() is None:
                    records.append((message.topic(), message.partition(), message.offset(), message.value()))
                    self.positions[message.topic(), message.partition()] = message.offset() + 1
                elif message.error().fatal() or message.error().code() in (KafkaError._FATAL, KafkaError.FENCED_INSTANCE_ID):
                    self.line.say("fatal", error=str(message.error()))
            self.line.records(records)
            while (command := self.line.next()) is not None:
                try:
                    if command["do"] == "close":
                        self.consumer.close()
                        return self.line.reply(command)
                    getattr(self, command["do"])(command)
                except KafkaException as error:
                    self.line.reply(command, error=str(error))

    def produce(self, command):
        delivered, failed = [], []

        def report(error, message):
            if error is None:
                delivered.append((message.topic(), message.partition(), message.offset(), message.value().decode()))
            else:
                failed.append(str(error))

        producer = Producer({"bootstrap.servers": self.line.options["bootstrap"], "log_level": 0})
        for number, value in enumerate(command["values"]):
            producer.produce(command["topic"], value, partition=number % command["partitions"], on_delivery=report)
        # The consumer is to be polled meanwhile.
        while producer.flush(0.05) > 0:
            self.line.records([])
        self.line.reply(command, delivered=delivered, **({"error": failed} if failed else {}))

    def offsets(self):
        return [TopicPartition(t, p, o) for (t, p), o in self.positions.items()]

    def commit(self, command):
        committed = self.consumer.commit(offsets=self.offsets(), asynchronous=False)
        self.line.reply(command, offsets=[(p.topic, p.partition, p.offset) for p in committed])
        if any(p.error for p in committed):
            raise KafkaException(committed)

    def commit_async(self, command):
        self.waiting_for_commit.append(command)
        self.consumer.commit(offsets=self.offsets(), asynchronous=True)

    def pause(self, command):
        self.consumer.pause([TopicPartition(t, p) for t, p in command["partitions"]])
        self.line.reply(command)

    def resume(self, command):
        self.consumer.resume([TopicPartition(t, p) for t, p in command["partitions"]])
        self.line.reply(command)

    def seek(self, command):
        topic, partition = command["partition"]
        self.consumer.seek(TopicPartition(topic, partition, command["offset"]))
        self.line.reply(command)

    def lag(self, command):
        admin = AdminClient({"bootstrap.servers": self.line.options["bootstrap"], "log_level": 0})
        partitions = [TopicPartition(t, p) for t, p in command["partitions"]]
        asked = ConsumerGroupTopicPartitions(self.line.options["group"], partitions)
        [future] = admin.list_consumer_group_offsets([asked]).values()
        committed = {(p.topic, p.partition): p.offset for p in future.result(90).topic_partitions}
        ends = admin.list_offsets({p: OffsetSpec.latest() for p in partitions})
        lag = [(p.topic, p.partition, f.result(90).offset - committed[p.topic, p.partition]) for p, f in ends.items()]
        self.line.reply(command, lag=lag)


if __name__ == "__main__":
    Member(Line()).run()
