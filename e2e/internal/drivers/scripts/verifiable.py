"""librdkafka as Kafka's VerifiableProducer and VerifiableConsumer are: until it is told to end, it tells of everything
that happens to it, in their words."""
import json
import signal
import sys

from confluent_kafka import Consumer, KafkaError, Producer

job = json.load(sys.stdin)
ended = False


def say(name, **fields):
    print(json.dumps({"name": name, **fields}), flush=True)


def end(*_):
    global ended
    ended = True


def on_error(e):
    # That a connection ended is for information: librdkafka makes another one by itself. That it
    # has none left at the moment, or gives up, is what an application hears of.
    if e.code() == KafkaError._ALL_BROKERS_DOWN and not e.fatal():
        say("disconnected", message=e.str())
    elif e.code() != KafkaError._TRANSPORT or e.fatal():
        say("client_error", exception=e.name(), message=e.str())


signal.signal(signal.SIGINT, end)
signal.signal(signal.SIGTERM, end)
# Of several addresses of a host librdkafka takes one at random, also if that was down just now: it is to
# try as often as Java does.
config = {"reconnect.backoff.max.ms": 1000, "bootstrap.servers": job["bootstrap"], "security.protocol": job["protocol"], "log_level": 3, "error_cb": on_error}
if "ca" in job:
    config["ssl.ca.location"] = job["ca"]
if "mechanism" in job:
    config.update({"sasl.mechanism": job["mechanism"], "sasl.username": job["user"], "sasl.password": job["password"]})

if job["do"] == "produce":
    producer = Producer({**config, "enable.idempotence": True, "linger.ms": 50})

    def delivered(err, msg):
        if err:
            say("producer_send_error", value=msg.value().decode(), exception=err.name(), message=err.str())
        else:
            say("producer_send_success", value=msg.value().decode(), partition=msg.partition(), offset=msg.offset())

    n = 0
    while not ended:
        producer.produce(job["topic"], value=str(n), on_delivery=delivered)
        n += 1
        producer.poll(0.005)
    producer.flush(60)
else:
    consumer = Consumer({**config, "group.id": job["group"], "auto.offset.reset": "earliest", "fetch.wait.max.ms": 200, "fetch.min.bytes": 65536})
    consumer.subscribe([job["topic"]])
    while not ended:
        messages = [m for m in consumer.consume(500, 0.2)]
        read = {}
        for m in messages:
            if m.error():
                say("client_error", exception=m.error().name(), message=m.error().str())
                continue
            first, _ = read.get(m.partition(), (m.offset(), 0))
            read[m.partition()] = (first, m.offset())
        if read:
            say("records_consumed", partitions=[{"partition": p, "minOffset": a, "maxOffset": b} for p, (a, b) in read.items()])
    consumer.close()
