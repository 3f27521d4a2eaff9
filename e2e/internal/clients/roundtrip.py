# Produces records and consumes them in a group, with the library that the order
# on standard input names, and prints {"produced": n, "consumed": n}.
import json
import sys

order = json.load(sys.stdin)
n = order["records"]
expected = {(b"key-%d" % i, b"value-%d" % i) for i in range(n)}


def confluent():
    from confluent_kafka import Consumer, Producer

    produced = 0
    failures = []

    def delivered(err, _):
        nonlocal produced
        if err:
            failures.append(str(err))
        else:
            produced += 1

    producer = Producer({**order["librdkafka"], "message.timeout.ms": 30000})
    for key, value in sorted(expected):
        producer.produce(order["topic"], key=key, value=value, on_delivery=delivered)
    producer.flush(40)
    if failures:
        sys.exit("produce: " + failures[0])

    consumer = Consumer({
        **order["librdkafka"],
        "group.id": order["group"], "auto.offset.reset": "earliest", "enable.auto.commit": False,
    })
    consumer.subscribe([order["topic"]])
    seen = set()
    while len(seen) < n:
        message = consumer.poll(30)
        if message is None:
            sys.exit("consume: nothing for 30 s after %d records" % len(seen))
        if message.error():
            sys.exit("consume: " + str(message.error()))
        seen.add((message.key(), message.value()))
    consumer.commit(asynchronous=False)
    consumer.close()
    return produced, len(seen & expected)


def kafka_python():
    from kafka import KafkaConsumer, KafkaProducer

    conf = {"bootstrap_servers": order["bootstrap"], "security_protocol": order["protocol"]}
    if order["ca"]:
        conf["ssl_cafile"] = order["ca"]
    if order["cert"]:
        conf.update(ssl_certfile=order["cert"], ssl_keyfile=order["key"])
    if order["mechanism"]:
        conf.update(sasl_mechanism=order["mechanism"],
                    sasl_plain_username=order["user"], sasl_plain_password=order["password"])

    producer = KafkaProducer(**conf)
    sent = [producer.send(order["topic"], key=key, value=value) for key, value in sorted(expected)]
    producer.flush(timeout=30)
    for future in sent:
        future.get(timeout=30)
    producer.close()

    consumer = KafkaConsumer(order["topic"], group_id=order["group"], auto_offset_reset="earliest",
                             enable_auto_commit=False, consumer_timeout_ms=30000, **conf)
    seen = set()
    for record in consumer:
        seen.add((record.key, record.value))
        if len(seen) == n:
            break
    consumer.commit()
    consumer.close()
    return len(sent), len(seen & expected)


produced, consumed = {"confluent-kafka": confluent, "kafka-python": kafka_python}[order["library"]]()
print(json.dumps({"produced": produced, "consumed": consumed}))
