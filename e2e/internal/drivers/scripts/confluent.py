"""confluent-kafka: librdkafka from Python."""
import common
from common import Failure
from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic


class Client:
    def __init__(self, job):
        self.base = {"bootstrap.servers": job["bootstrap"], "security.protocol": job["protocol"], "log_level": 3}
        if "ca" in job:
            self.base["ssl.ca.location"] = job["ca"]
        if "cert" in job:
            self.base["ssl.certificate.location"] = job["cert"]
            self.base["ssl.key.location"] = job["key"]
        if job.get("mechanism") == "OAUTHBEARER":
            self.base.update({"sasl.mechanism": "OAUTHBEARER", "sasl.oauthbearer.method": "oidc",
                              "sasl.oauthbearer.client.id": job["user"], "sasl.oauthbearer.client.secret": job["password"],
                              "sasl.oauthbearer.token.endpoint.url": job["token_url"]})
        elif "mechanism" in job:
            self.base.update({"sasl.mechanism": job["mechanism"], "sasl.username": job["user"], "sasl.password": job["password"]})
        self.fatal = None

    def config(self, step, **more):
        def on_error(e):
            # A refused login is repeated for ever; no call fails for it.
            if e.code() in (KafkaError._AUTHENTICATION, KafkaError._SSL):
                self.fatal = e

        self.fatal = None
        named = {k.replace("_", "."): v for k, v in more.items()}
        return {**self.base, "error_cb": on_error, **named, **step.get("config", {})}

    def check(self):
        if self.fatal:
            raise KafkaException(self.fatal)

    def flush(self, producer, deadline, failures):
        while len(producer) > 0:
            producer.poll(min(0.1, deadline.left()))
            self.check()
        if failures:
            raise KafkaException(failures[0])

    def send(self, producer, topic, pairs, emit, failures):
        def delivered(err, msg):
            if err:
                failures.append(err)
            else:
                emit("produced", topic=msg.topic(), partition=msg.partition(), offset=msg.offset(), key=common.text(msg.key()))

        for key, value in pairs:
            producer.produce(topic, key=key, value=value, on_delivery=delivered)

    def produce(self, step, deadline, emit):
        producer = Producer(self.config(step, enable_idempotence=step.get("idempotent", False),
                                        compression_type=step.get("compression", "none"), linger_ms=5,
                                        message_timeout_ms=step["seconds"] * 1000))
        failures = []
        self.send(producer, step["topic"], common.records(step), emit, failures)
        self.flush(producer, deadline, failures)

    def consumer(self, step, **more):
        isolation = "read_uncommitted" if step.get("read_uncommitted") else "read_committed"
        return Consumer(self.config(step, group_id=step["group"], auto_offset_reset="earliest", enable_auto_commit=False,
                                    isolation_level=isolation, **more))

    def read(self, consumer, step, deadline, emit):
        got = []
        consumer.subscribe(common.topics(step))
        while len(got) < step.get("count", 1):
            msg = consumer.poll(min(0.2, deadline.left()))
            self.check()
            if msg is None:
                continue
            if msg.error():
                # The group may be older than the topic's leaders; librdkafka goes on by itself.
                if msg.error().retriable():
                    continue
                raise KafkaException(msg.error())
            got.append(msg)
            emit("record", topic=msg.topic(), partition=msg.partition(), offset=msg.offset(),
                 key=common.text(msg.key()), value=common.text(msg.value()))
        return got

    def consume(self, step, deadline, emit):
        consumer = self.consumer(step)
        try:
            self.read(consumer, step, deadline, emit)
            for p in consumer.commit(asynchronous=False):
                if p.error:
                    raise KafkaException(p.error)
                emit("committed", topic=p.topic, partition=p.partition, offset=p.offset)
        finally:
            consumer.close()

    def transactional(self, step, deadline):
        producer = Producer(self.config(step, transactional_id=step["transactional_id"],
                                        transaction_timeout_ms=step["seconds"] * 1000))
        producer.init_transactions(deadline.left())
        producer.begin_transaction()
        return producer

    def end(self, producer, step, deadline):
        if step.get("abort"):
            producer.abort_transaction(deadline.left())
        else:
            producer.commit_transaction(deadline.left())

    def transaction(self, step, deadline, emit):
        producer = self.transactional(step, deadline)
        failures = []
        self.send(producer, step["topic"], common.records(step), emit, failures)
        self.flush(producer, deadline, failures)
        self.end(producer, step, deadline)

    def after_refusal(self, step, deadline, emit):
        producer = self.transactional(step, deadline)
        if step.get("mixed"):
            producer.produce(step["topic"], key="aborted", value="aborted")
            self.flush(producer, deadline, [])
        producer.produce(step["to"], key="refused", value="refused")
        try:
            producer.commit_transaction(deadline.left())
            raise Failure(0, "NOT_REFUSED", "the record was not refused")
        except KafkaException as e:
            emit("refused", code=e.args[0].code(), name=e.args[0].name(), message=str(e))
        producer.abort_transaction(deadline.left())
        producer.begin_transaction()
        failures = []
        self.send(producer, step["topic"], common.records(step), emit, failures)
        self.flush(producer, deadline, failures)
        producer.commit_transaction(deadline.left())

    def transform(self, step, deadline, emit):
        consumer = self.consumer(step)
        try:
            got = self.read(consumer, step, deadline, emit)
            producer = self.transactional(step, deadline)
            failures = []
            self.send(producer, step["to"], [(m.key(), m.value()) for m in got], emit, failures)
            self.flush(producer, deadline, failures)
            producer.send_offsets_to_transaction(consumer.position(consumer.assignment()),
                                                 consumer.consumer_group_metadata(), deadline.left())
            self.end(producer, step, deadline)
        finally:
            consumer.close()

    def admin(self, step):
        return AdminClient(self.config(step))

    def wait(self, admin, future, deadline):
        while not future.done():
            admin.poll(min(0.05, deadline.left()))
            self.check()
        return future.result()

    def create_topic(self, step, deadline, emit):
        admin = self.admin(step)
        new = NewTopic(step["topic"], num_partitions=step["partitions"], replication_factor=-1)
        self.wait(admin, admin.create_topics([new])[step["topic"]], deadline)

    def delete_topic(self, step, deadline, emit):
        admin = self.admin(step)
        self.wait(admin, admin.delete_topics([step["topic"]])[step["topic"]], deadline)

    def describe_topic(self, step, deadline, emit):
        admin = self.admin(step)
        topic = self.listed(admin, deadline, step["topic"]).topics[step["topic"]]
        if topic.error:
            raise KafkaException(topic.error)
        emit("topic", topic=step["topic"], count=len(topic.partitions))

    def listed(self, admin, deadline, topic=None):
        while True:
            try:
                return admin.list_topics(topic, timeout=min(2, deadline.left())) if topic else admin.list_topics(timeout=min(2, deadline.left()))
            except KafkaException as e:
                admin.poll(0)
                self.check()
                if not e.args[0].retriable() and e.args[0].code() not in (KafkaError._TIMED_OUT, KafkaError._TRANSPORT):
                    raise

    def list_topics(self, step, deadline, emit):
        emit("topics", names=sorted(self.listed(self.admin(step), deadline).topics))

    def list_groups(self, step, deadline, emit):
        admin = self.admin(step)
        found = self.wait(admin, admin.list_consumer_groups(), deadline)
        for e in found.errors:
            raise e
        emit("groups", names=sorted(g.group_id for g in found.valid))


def explain(e):
    if isinstance(e, KafkaException) and e.args and isinstance(e.args[0], KafkaError):
        return e.args[0].code(), e.args[0].name()
    return 0, type(e).__name__


common.run(Client, explain)
