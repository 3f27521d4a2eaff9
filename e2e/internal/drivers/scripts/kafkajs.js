// kafkajs: the protocol written in JavaScript.
const fs = require('fs')
const { Kafka, CompressionTypes, KafkaJSError, logLevel } = require(process.env.KAFKAJS)

const job = JSON.parse(fs.readFileSync(0, 'utf8'))

function kafka (step) {
  const conf = { brokers: job.bootstrap.split(','), clientId: 'kafkajs', logLevel: logLevel.NOTHING, connectionTimeout: 10000, ...step.config }
  if (job.ca) {
    conf.ssl = { ca: [fs.readFileSync(job.ca, 'utf8')] }
    if (job.cert) Object.assign(conf.ssl, { cert: fs.readFileSync(job.cert, 'utf8'), key: fs.readFileSync(job.key, 'utf8') })
  }
  if (job.mechanism) conf.sasl = { mechanism: job.mechanism.toLowerCase(), username: job.user, password: job.password }
  return new Kafka(conf)
}

const pairs = step => Array.from({ length: step.count || 1 }, (_, i) =>
  ({ key: `${step.prefix || ''}k${i}`, value: `${step.prefix || ''}v${i}` }))

async function send (producer, topic, messages, step, emit) {
  const compression = { none: CompressionTypes.None, gzip: CompressionTypes.GZIP }[step.compression || 'none']
  if (compression === undefined) throw new Error(`kafkajs has no ${step.compression} of its own`)
  for (const a of await producer.send({ topic, messages, acks: -1, compression })) {
    emit('produced', { topic: a.topicName, partition: a.partition, offset: Number(a.baseOffset) })
  }
}

// Reads count records and returns them with the offset to commit for each partition.
async function read (consumer, step, emit) {
  const count = step.count || 1
  const got = []
  const next = new Map()
  await consumer.connect()
  await consumer.subscribe({ topics: [step.topic, ...(step.also || [])], fromBeginning: true })
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, ({ payload }) => reject(payload.error))
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ topic, partition, message }) => {
        if (got.length >= count) return
        got.push(message)
        next.set(`${topic}/${partition}`, { topic, partition, offset: Number(message.offset) + 1 })
        emit('record', {
          topic, partition, offset: Number(message.offset),
          key: message.key ? message.key.toString() : '', value: message.value ? message.value.toString() : ''
        })
        if (got.length === count) resolve()
      }
    }).catch(reject)
  })
  return { got, offsets: [...next.values()] }
}

async function finish (txn, step) {
  if (step.abort) await txn.abort()
  else await txn.commit()
}

const transactional = step => kafka(step).producer({
  transactionalId: step.transactional_id, maxInFlightRequests: 1, idempotent: true, transactionTimeout: step.seconds * 1000
})

const consumerOf = step => kafka(step).consumer({ groupId: step.group, readUncommitted: !!step.read_uncommitted, maxWaitTimeInMs: 200 })

async function withAdmin (step, f) {
  const admin = kafka(step).admin()
  await admin.connect()
  try { return await f(admin) } finally { await admin.disconnect() }
}

const steps = {
  async produce (step, emit) {
    const producer = kafka(step).producer({ idempotent: !!step.idempotent })
    await producer.connect()
    try { await send(producer, step.topic, pairs(step), step, emit) } finally { await producer.disconnect() }
  },
  async consume (step, emit) {
    const consumer = consumerOf(step)
    try {
      const { offsets } = await read(consumer, step, emit)
      await consumer.commitOffsets(offsets.map(o => ({ ...o, offset: String(o.offset) })))
      for (const o of offsets) emit('committed', o)
    } finally { await consumer.disconnect() }
  },
  async transaction (step, emit) {
    const producer = transactional(step)
    await producer.connect()
    try {
      const txn = await producer.transaction()
      await send(txn, step.topic, pairs(step), step, emit)
      await finish(txn, step)
    } finally { await producer.disconnect() }
  },
  async 'after-refusal' (step, emit) {
    const producer = transactional(step)
    await producer.connect()
    try {
      const one = await producer.transaction()
      let refused = false
      try {
        if (step.mixed) await one.send({ topic: step.topic, messages: [{ key: 'aborted', value: 'aborted' }], acks: -1 })
        await one.send({ topic: step.to, messages: [{ key: 'refused', value: 'refused' }], acks: -1 })
      } catch (err) {
        refused = true
        const e = cause(err)
        emit('refused', { code: e.code > 0 ? e.code : 0, name: e.type || e.name, message: e.message })
      }
      if (!refused) throw new Error('the record was not refused')
      await one.abort()
      const two = await producer.transaction()
      await send(two, step.topic, pairs(step), step, emit)
      await two.commit()
    } finally { await producer.disconnect() }
  },
  async transform (step, emit) {
    const consumer = consumerOf(step)
    const producer = transactional(step)
    try {
      const { got, offsets } = await read(consumer, step, emit)
      await producer.connect()
      const txn = await producer.transaction()
      await send(txn, step.to, got.map(m => ({ key: m.key, value: m.value })), step, emit)
      await txn.sendOffsets({
        consumerGroupId: step.group,
        topics: [...new Set(offsets.map(o => o.topic))].map(topic => ({
          topic, partitions: offsets.filter(o => o.topic === topic).map(o => ({ partition: o.partition, offset: String(o.offset) }))
        }))
      })
      await finish(txn, step)
    } finally {
      await consumer.disconnect()
      await producer.disconnect()
    }
  },
  'create-topic': (step) => withAdmin(step, a =>
    a.createTopics({ waitForLeaders: true, topics: [{ topic: step.topic, numPartitions: step.partitions, replicationFactor: -1 }] })),
  'delete-topic': (step) => withAdmin(step, a => a.deleteTopics({ topics: [step.topic] })),
  'describe-topic': (step, emit) => withAdmin(step, async a => {
    const { topics } = await a.fetchTopicMetadata({ topics: [step.topic] })
    emit('topic', { topic: step.topic, count: topics[0].partitions.length })
  }),
  'list-topics': (step, emit) => withAdmin(step, async a => emit('topics', { names: (await a.listTopics()).sort() })),
  'list-groups': (step, emit) => withAdmin(step, async a =>
    emit('groups', { names: (await a.listGroups()).groups.map(g => g.groupId).sort() }))
}

function deadline (seconds) {
  return new Promise((resolve, reject) => {
    setTimeout(() => reject(Object.assign(new Error(`not done after ${seconds} s`), { name: 'TIMEOUT' })), seconds * 1000).unref()
  })
}

// The error that Kafka sent lies below those of the retries around it.
function cause (e) {
  while (e instanceof KafkaJSError && e.type === undefined && (e.cause || e.originalError)) e = e.cause || e.originalError
  if (e.errors && e.errors.length) return cause(e.errors[0])
  return e
}

async function main () {
  for (const [number, step] of job.steps.entries()) {
    const emit = (event, fields) => fs.writeSync(1, JSON.stringify({ step: number, event, ...fields }) + '\n')
    try {
      await Promise.race([steps[step.do](step, emit), deadline(step.seconds)])
      emit('done')
    } catch (err) {
      const e = cause(err)
      emit('error', { code: e.code > 0 ? e.code : 0, name: e.type || e.name, message: e.message })
    }
  }
  process.exit(0) // connections of a step that failed may still be open
}

process.on('unhandledRejection', () => {}) // of a step that has already been reported
main()
