"""kafka-python: the protocol written in Python."""
import logging

import common
from common import Failure
from kafka import KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import KafkaAdminClient
from kafka.errors import KafkaError, for_code
from kafka.structs import OffsetAndMetadata

logging.basicConfig(level=logging.ERROR)


class Client:
    def __init__(self, job):
        self.base = {"bootstrap_servers": job["bootstrap"].split(","), "security_protocol": job["protocol"]}
        if "ca" in job:
            self.base["ssl_cafile"] = job["ca"]
        if "cert" in job:
            self.base.update(ssl_certfile=job["cert"], ssl_keyfile=job["key"])
        if "mechanism" in job:
            self.base.update(sasl_mechanism=job["mechanism"], sasl_plain_username=job["user"], sasl_plain_password=job["password"])

    def config(self, step, **more):
        return {**self.base, "bootstrap_timeout_ms": step["seconds"] * 1000, **more, **step.get("config", {})}

    def send(self, producer, topic, pairs, deadline, emit):
        sent = [producer.send(topic, key=key, value=value) for key, value in pairs]
        producer.flush(deadline.left())
        for future, (key, _) in zip(sent, pairs):
            m = future.get(deadline.left())
            emit("produced", topic=m.topic, partition=m.partition, offset=m.offset, key=common.text(key))

    def produce(self, step, deadline, emit):
        compression = step.get("compression", "none")
        producer = KafkaProducer(**self.config(step, enable_idempotence=step.get("idempotent", False), max_block_ms=step["seconds"] * 1000,
                                               acks="all", compression_type=None if compression == "none" else compression, linger_ms=5))
        self.send(producer, step["topic"], encoded(step), deadline, emit)
        producer.close(deadline.left())

    def consumer(self, step):
        return KafkaConsumer(*common.topics(step), **self.config(
            step, group_id=step["group"], auto_offset_reset="earliest", enable_auto_commit=False,
            isolation_level="read_uncommitted" if step.get("read_uncommitted") else "read_committed"))

    def read(self, consumer, step, deadline, emit):
        got = []
        count = step.get("count", 1)
        while len(got) < count:
            # What comes beyond count must not move the position that is committed.
            batches = consumer.poll(timeout_ms=int(min(0.5, deadline.left()) * 1000), max_records=count - len(got))
            for batch in batches.values():
                for m in batch:
                    got.append(m)
                    emit("record", topic=m.topic, partition=m.partition, offset=m.offset, key=common.text(m.key), value=common.text(m.value))
        return got

    def positions(self, consumer):
        return {p: OffsetAndMetadata(consumer.position(p), "", -1) for p in consumer.assignment()}

    def consume(self, step, deadline, emit):
        consumer = self.consumer(step)
        try:
            self.read(consumer, step, deadline, emit)
            offsets = self.positions(consumer)
            consumer.commit(offsets, timeout_ms=int(deadline.left() * 1000))
            for p, o in offsets.items():
                emit("committed", topic=p.topic, partition=p.partition, offset=o.offset)
        finally:
            consumer.close(autocommit=False, timeout_ms=2000)

    def transactional(self, step):
        producer = KafkaProducer(**self.config(step, transactional_id=step["transactional_id"], max_block_ms=step["seconds"] * 1000,
                                               transaction_timeout_ms=step["seconds"] * 1000))
        producer.init_transactions()
        producer.begin_transaction()
        return producer

    def end(self, producer, step, deadline):
        if step.get("abort"):
            producer.abort_transaction()
        else:
            producer.commit_transaction()
        producer.close(deadline.left())

    def transaction(self, step, deadline, emit):
        producer = self.transactional(step)
        self.send(producer, step["topic"], encoded(step), deadline, emit)
        self.end(producer, step, deadline)

    def after_refusal(self, step, deadline, emit):
        producer = self.transactional(step)
        refused = False
        try:
            if step.get("mixed"):
                producer.send(step["topic"], key=b"aborted", value=b"aborted").get(deadline.left())
            producer.send(step["to"], key=b"refused", value=b"refused").get(deadline.left())
        except KafkaError as e:
            refused = True
            code, name = explain(e)
            emit("refused", code=code, name=name, message=str(e))
        if not refused:
            raise Failure(0, "NOT_REFUSED", "the record was not refused")
        producer.abort_transaction()
        producer.begin_transaction()
        self.send(producer, step["topic"], encoded(step), deadline, emit)
        producer.commit_transaction()
        producer.close(deadline.left())

    def transform(self, step, deadline, emit):
        consumer = self.consumer(step)
        try:
            got = self.read(consumer, step, deadline, emit)
            producer = self.transactional(step)
            self.send(producer, step["to"], [(m.key, m.value) for m in got], deadline, emit)
            producer.send_offsets_to_transaction(self.positions(consumer), consumer.group_metadata())
            self.end(producer, step, deadline)
        finally:
            consumer.close(autocommit=False, timeout_ms=2000)

    def admin(self, step):
        return KafkaAdminClient(**self.config(step))

    def create_topic(self, step, deadline, emit):
        self.admin(step).create_topics({step["topic"]: {"num_partitions": step["partitions"], "replication_factor": -1}})

    def delete_topic(self, step, deadline, emit):
        self.admin(step).delete_topics([step["topic"]])

    def describe_topic(self, step, deadline, emit):
        topic = self.admin(step).describe_topics([step["topic"]])[0]
        if topic["error_code"]:
            raise for_code(topic["error_code"])()
        emit("topic", topic=topic["name"], count=len(topic["partitions"]))

    def list_topics(self, step, deadline, emit):
        emit("topics", names=sorted(self.admin(step).list_topics()))

    def list_groups(self, step, deadline, emit):
        emit("groups", names=sorted(g["group_id"] for g in self.admin(step).list_groups()))


def encoded(step):
    return [(k.encode(), v.encode()) for k, v in common.records(step)]


def explain(e):
    return (getattr(e, "errno", None) or 0, type(e).__name__) if isinstance(e, KafkaError) else (0, type(e).__name__)


common.run(Client, explain)
