"""A member of a group by aiokafka. See ../member.py."""

import asyncio

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError
from line import Line


class Member(ConsumerRebalanceListener):
    def __init__(self, line):
        self.line, options = line, line.options
        self.positions = {}
        self.is_assigned = False
        self.tasks = set()
        self.consumer = AIOKafkaConsumer(
            bootstrap_servers=options["bootstrap"], group_id=options["group"], auto_offset_reset="earliest", enable_auto_commit=False,
            session_timeout_ms=options["session_ms"], heartbeat_interval_ms=options["heartbeat_ms"],
            metadata_max_age_ms=options["metadata_ms"], group_instance_id=options.get("instance"),
        )
        if "pattern" in options:
            self.consumer.subscribe(pattern=options["pattern"], listener=self)
        else:
            self.consumer.subscribe(topics=options["topics"], listener=self)

    async def on_partitions_assigned(self, assigned):
        self.is_assigned = True

    async def on_partitions_revoked(self, revoked):
        self.line.say("revoked", partitions=[(p.topic, p.partition) for p in revoked])
        self.positions.clear()

    async def run(self):
        await self.consumer.start()
        while True:
            try:
                polled = await self.consumer.getmany(timeout_ms=50)
            except KafkaError as error:
                self.line.say("fatal", error=repr(error))
                polled = {}
            is_assigned, self.is_assigned = self.is_assigned, False
            self.line.holds({(p.topic, p.partition) for p in self.consumer.assignment()}, is_assigned)
            for partition, records in polled.items():
                self.positions[partition] = records[-1].offset + 1
                self.line.records([(r.topic, r.partition, r.offset, r.value) for r in records])
            while (command := self.line.next()) is not None:
                try:
                    if command["do"] == "close":
                        await self.consumer.stop()
                        return self.line.reply(command)
                    await getattr(self, command["do"])(command)
                except KafkaError as error:
                    self.line.reply(command, error=repr(error))

    async def produce(self, command):
        producer = AIOKafkaProducer(bootstrap_servers=self.line.options["bootstrap"])
        await producer.start()
        sent = [
            await producer.send(command["topic"], value.encode(), partition=number % command["partitions"])
            for number, value in enumerate(command["values"])
        ]
        answers = await asyncio.gather(*sent)
        await producer.stop()
        self.line.reply(
            command, delivered=[(a.topic, a.partition, a.offset, v) for a, v in zip(answers, command["values"], strict=True)],
        )

    async def commit(self, command):
        offsets = dict(self.positions)
        await self.consumer.commit(offsets)
        self.line.reply(command, offsets=[(p.topic, p.partition, await self.consumer.committed(p)) for p in offsets])

    async def commit_async(self, command):
        # In its own way: a task that nobody waits for.
        task = asyncio.ensure_future(self.commit(command))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def pause(self, command):
        self.consumer.pause(*[TopicPartition(t, p) for t, p in command["partitions"]])
        self.line.reply(command)

    async def resume(self, command):
        self.consumer.resume(*[TopicPartition(t, p) for t, p in command["partitions"]])
        self.line.reply(command)

    async def seek(self, command):
        self.consumer.seek(TopicPartition(*command["partition"]), command["offset"])
        self.line.reply(command)

    async def lag(self, command):
        admin = AIOKafkaAdminClient(bootstrap_servers=self.line.options["bootstrap"])
        await admin.start()
        committed = await admin.list_consumer_group_offsets(self.line.options["group"])
        await admin.close()
        partitions = [TopicPartition(t, p) for t, p in command["partitions"]]
        ends = await self.consumer.end_offsets(partitions)
        self.line.reply(command, lag=[(p.topic, p.partition, ends[p] - committed[p].offset) for p in partitions])


async def main():
    await Member(Line()).run()


if __name__ == "__main__":
    asyncio.run(main())
