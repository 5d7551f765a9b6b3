// A member of a group by kafkajs. See tests/python/groups/member.py for what it is told and says.
'use strict'

const readline = require('node:readline')
const { Kafka, Partitioners, logLevel } = require('kafkajs')

const options = JSON.parse(process.argv[2])
const kafka = new Kafka({
  brokers: [options.bootstrap],
  logLevel: logLevel.ERROR,
  // The default, a second, also bounds the first answer on a connection: where a machine stands still for longer, everything that waited
  // for the connection would be sent again, each in its own time and so in another order.
  connectionTimeout: 30000,
  retry: { initialRetryTime: 100, maxRetryTime: 500, retries: 200 },
})
const consumer = kafka.consumer({
  groupId: options.group,
  sessionTimeout: options.session_ms,
  heartbeatInterval: options.heartbeat_ms,
  metadataMaxAge: options.metadata_ms,
  maxWaitTimeInMs: 100,
})
let held = {}
let positions = new Map()

const say = (event, what) => process.stdout.write(JSON.stringify({ event, ...what }) + '\n')
const list = (assignment) => Object.entries(assignment).flatMap(([topic, partitions]) => partitions.map((p) => [topic, p]))
const byTopic = (partitions) => {
  const topics = new Map()
  for (const [topic, partition] of partitions) topics.set(topic, [...(topics.get(topic) ?? []), partition])
  return [...topics].map(([topic, numbers]) => ({ topic, partitions: numbers }))
}

consumer.on(consumer.events.GROUP_JOIN, ({ payload }) => {
  held = payload.memberAssignment
  positions = new Map()
  say('assigned', { partitions: list(held) })
})
consumer.on(consumer.events.REBALANCING, () => say('revoked', { partitions: list(held) }))
consumer.on(consumer.events.CRASH, ({ payload }) => {
  if (!payload.restart) say('fatal', { error: String(payload.error) })
})

const offsets = () => [...positions.values()].map(({ topic, partition, next }) => ({ topic, partition, offset: String(next) }))

const fetched = async (admin, topics) => {
  const found = await admin.fetchOffsets({ groupId: options.group, topics })
  return new Map(found.flatMap(({ topic, partitions }) => partitions.map((p) => [`${topic} ${p.partition}`, Number(p.offset)])))
}

const withAdmin = async (work) => {
  const admin = kafka.admin()
  await admin.connect()
  try {
    return await work(admin)
  } finally {
    await admin.disconnect()
  }
}

const commands = {
  async produce({ topic, values, partitions }) {
    const producer = kafka.producer({ createPartitioner: Partitioners.DefaultPartitioner })
    await producer.connect()
    // An answer names the first offset of a request, so every record is a request of its own.
    const sent = values.map(async (value, n) => {
      const [{ topicName, partition, baseOffset }] = await producer.send({ topic, messages: [{ value, partition: n % partitions }] })
      return [topicName, partition, Number(baseOffset), value]
    })
    const delivered = await Promise.all(sent)
    await producer.disconnect()
    return { delivered }
  },
  async commit() {
    const wanted = offsets()
    await consumer.commitOffsets(wanted)
    const found = await withAdmin((admin) => fetched(admin, [...new Set(wanted.map((o) => o.topic))]))
    return { offsets: wanted.map(({ topic, partition }) => [topic, partition, found.get(`${topic} ${partition}`)]) }
  },
  // Its commit without waiting is autoCommit, which the member was started with: what the broker then has says that it worked.
  async commit_async() {
    const wanted = offsets()
    return withAdmin(async (admin) => {
      for (const end = Date.now() + 60_000; ; await new Promise((done) => setTimeout(done, 50))) {
        const found = await fetched(admin, [...new Set(wanted.map((o) => o.topic))])
        const said = wanted.map(({ topic, partition }) => [topic, partition, found.get(`${topic} ${partition}`)])
        if (said.every(([, , offset], n) => offset === Number(wanted[n].offset)) || Date.now() > end) return { offsets: said }
      }
    })
  },
  async pause({ partitions }) {
    consumer.pause(byTopic(partitions))
  },
  async resume({ partitions }) {
    consumer.resume(byTopic(partitions))
  },
  async seek({ partition: [topic, partition], offset }) {
    consumer.seek({ topic, partition, offset: String(offset) })
  },
  async lag({ partitions }) {
    return withAdmin(async (admin) => {
      const topics = [...new Set(partitions.map(([topic]) => topic))]
      const committed = await fetched(admin, topics)
      const ends = new Map()
      for (const topic of topics) {
        for (const { partition, high } of await admin.fetchTopicOffsets(topic)) ends.set(`${topic} ${partition}`, Number(high))
      }
      return { lag: partitions.map(([t, p]) => [t, p, ends.get(`${t} ${p}`) - committed.get(`${t} ${p}`)]) }
    })
  },
  async close() {
    await consumer.disconnect()
  },
}

const obey = async (command) => {
  try {
    say('reply', { id: command.id, ...(await commands[command.do](command)) })
  } catch (error) {
    say('reply', { id: command.id, error: String(error) })
  }
  if (command.do === 'close') process.exit(0)
}

const main = async () => {
  await consumer.connect()
  const topics = options.pattern ? [new RegExp(options.pattern)] : options.topics
  await consumer.subscribe({ topics, fromBeginning: true })
  await consumer.run({
    autoCommit: options.commits === 'async',
    eachMessage: async ({ topic, partition, message }) => {
      positions.set(`${topic} ${partition}`, { topic, partition, next: Number(message.offset) + 1 })
      say('records', { records: [[topic, partition, Number(message.offset), message.value.toString()]] })
    },
  })
}

const lines = readline.createInterface({ input: process.stdin })
let last = Promise.resolve()
const enqueue = (command) => (last = last.then(() => obey(command)))
lines.on('line', (line) => enqueue(JSON.parse(line)))
lines.on('close', () => enqueue({ id: 0, do: 'close' })) // the test is gone
main().catch((error) => {
  say('fatal', { error: String(error) })
  process.exit(1)
})
