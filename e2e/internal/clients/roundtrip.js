// Produces records and consumes them in a group with kafkajs, as the order on
// standard input says, and prints {"produced": n, "consumed": n}.
const fs = require('fs')
const { Kafka, logLevel } = require('kafkajs')

const order = JSON.parse(fs.readFileSync(0))
const conf = { brokers: order.bootstrap, logLevel: logLevel.ERROR, retry: { initialRetryTime: 100, retries: 8 } }
// Standard output is for the result.
conf.logCreator = () => ({ log }) => console.error(JSON.stringify(log))
if (order.ca) {
  conf.ssl = { ca: [fs.readFileSync(order.ca)] }
  if (order.cert) Object.assign(conf.ssl, { cert: fs.readFileSync(order.cert), key: fs.readFileSync(order.key) })
}
if (order.mechanism) {
  conf.sasl = { mechanism: order.mechanism.toLowerCase(), username: order.user, password: order.password }
}

async function main() {
  const kafka = new Kafka(conf)
  const messages = Array.from({ length: order.records }, (_, i) => ({ key: `key-${i}`, value: `value-${i}` }))
  const expected = new Set(messages.map(m => `${m.key}:${m.value}`))

  const producer = kafka.producer()
  await producer.connect()
  await producer.send({ topic: order.topic, messages, acks: -1 })
  await producer.disconnect()

  const consumer = kafka.consumer({ groupId: order.group, maxWaitTimeInMs: 500 })
  await consumer.connect()
  await consumer.subscribe({ topic: order.topic, fromBeginning: true })
  const seen = new Set()
  const next = new Map()
  await new Promise((resolve, reject) => {
    consumer.on(consumer.events.CRASH, e => reject(e.payload.error))
    consumer.run({
      autoCommit: false,
      eachMessage: async ({ partition, message }) => {
        seen.add(`${message.key}:${message.value}`)
        next.set(partition, (BigInt(message.offset) + 1n).toString())
        if (seen.size === order.records) resolve()
      },
    }).catch(reject)
  })
  await consumer.commitOffsets([...next].map(([partition, offset]) => ({ topic: order.topic, partition, offset })))
  await consumer.disconnect()
  console.log(JSON.stringify({ produced: messages.length, consumed: [...seen].filter(r => expected.has(r)).length }))
}

main().then(() => process.exit(0), err => { console.error(err); process.exit(1) })
