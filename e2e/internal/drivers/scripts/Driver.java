import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.TreeSet;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ListTopicsOptions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The Java client: a job on standard input, events on standard output. */
public class Driver {
    static final ObjectMapper JSON = new ObjectMapper();
    static JsonNode job;
    static int number;

    final JsonNode step;
    final long end;

    Driver(JsonNode step) {
        this.step = step;
        this.end = System.nanoTime() + TimeUnit.SECONDS.toNanos(step.get("seconds").asLong());
    }

    public static void main(String[] args) throws Exception {
        job = JSON.readTree(System.in);
        for (JsonNode step : job.get("steps")) {
            try {
                new Driver(step).run();
                emit("done", JSON.createObjectNode());
            } catch (Throwable failed) {
                fail("error", failed);
            }
            number++;
        }
        System.out.flush();
        Runtime.getRuntime().halt(0);
    }

    static void fail(String event, Throwable cause) throws Exception {
        while (cause instanceof ExecutionException && cause.getCause() != null) {
            cause = cause.getCause();
        }
        Errors error = Errors.forException(cause);
        ObjectNode fields = JSON.createObjectNode();
        fields.put("code", error == Errors.UNKNOWN_SERVER_ERROR ? 0 : error.code());
        fields.put("name", error == Errors.UNKNOWN_SERVER_ERROR ? cause.getClass().getSimpleName() : error.name());
        emit(event, fields.put("message", String.valueOf(cause.getMessage())));
    }

    static void emit(String event, ObjectNode fields) throws Exception {
        System.out.println(JSON.writeValueAsString(JSON.createObjectNode().put("step", number).put("event", event).setAll(fields)));
    }

    void run() throws Exception {
        switch (step.get("do").asText()) {
            case "produce": {
                Map<String, Object> more = new HashMap<>();
                more.put("enable.idempotence", step.path("idempotent").asBoolean());
                more.put("compression.type", step.path("compression").asText("none"));
                try (KafkaProducer<String, String> producer = producer(more)) {
                    send(producer, step.get("topic").asText(), pairs());
                }
                break;
            }
            case "consume":
                try (KafkaConsumer<String, String> consumer = consumer()) {
                    read(consumer);
                    Map<TopicPartition, OffsetAndMetadata> offsets = positions(consumer);
                    consumer.commitSync(offsets, left());
                    for (Map.Entry<TopicPartition, OffsetAndMetadata> e : offsets.entrySet()) {
                        emit("committed", at(e.getKey().topic(), e.getKey().partition(), e.getValue().offset()));
                    }
                }
                break;
            case "transaction":
                try (KafkaProducer<String, String> producer = transactional()) {
                    send(producer, step.get("topic").asText(), pairs());
                    end(producer);
                }
                break;
            case "after-refusal":
                try (KafkaProducer<String, String> producer = transactional()) {
                    boolean refused = false;
                    try {
                        if (step.path("mixed").asBoolean()) {
                            get(producer.send(new ProducerRecord<>(step.get("topic").asText(), "aborted", "aborted")));
                        }
                        get(producer.send(new ProducerRecord<>(step.get("to").asText(), "refused", "refused")));
                    } catch (ExecutionException | KafkaException e) {
                        refused = true;
                        fail("refused", e);
                    }
                    if (!refused) {
                        throw new IllegalStateException("the record was not refused");
                    }
                    producer.abortTransaction();
                    producer.beginTransaction();
                    send(producer, step.get("topic").asText(), pairs());
                    producer.commitTransaction();
                }
                break;
            case "transform":
                try (KafkaConsumer<String, String> consumer = consumer(); KafkaProducer<String, String> producer = transactional()) {
                    Map<String, String> pairs = new LinkedHashMap<>();
                    for (ConsumerRecord<String, String> r : read(consumer)) {
                        pairs.put(r.key(), r.value());
                    }
                    send(producer, step.get("to").asText(), pairs);
                    producer.sendOffsetsToTransaction(positions(consumer), consumer.groupMetadata());
                    end(producer);
                }
                break;
            default:
                int millis = (int) left().toMillis();
                try (Admin admin = Admin.create(config(Map.of("request.timeout.ms", millis, "default.api.timeout.ms", millis)))) {
                    admin(admin);
                }
        }
    }

    void admin(Admin admin) throws Exception {
        String topic = step.path("topic").asText();
        switch (step.get("do").asText()) {
            case "create-topic":
                get(admin.createTopics(List.of(new NewTopic(topic, Optional.of(step.get("partitions").asInt()), Optional.empty()))).all());
                break;
            case "delete-topic":
                get(admin.deleteTopics(List.of(topic)).all());
                break;
            case "describe-topic":
                ObjectNode fields = JSON.createObjectNode().put("topic", topic);
                emit("topic", fields.put("count", get(admin.describeTopics(List.of(topic)).allTopicNames()).get(topic).partitions().size()));
                break;
            case "list-topics":
                names("topics", get(admin.listTopics(new ListTopicsOptions().listInternal(true)).names()));
                break;
            case "list-groups":
                TreeSet<String> groups = new TreeSet<>();
                get(admin.listConsumerGroups().all()).forEach(g -> groups.add(g.groupId()));
                names("groups", groups);
                break;
            default:
                throw new IllegalArgumentException("unknown step " + step.get("do"));
        }
    }

    static void names(String event, Iterable<String> names) throws Exception {
        ObjectNode fields = JSON.createObjectNode();
        names.forEach(fields.putArray("names")::add);
        emit(event, fields);
    }

    Duration left() throws TimeoutException {
        long left = end - System.nanoTime();
        if (left <= 0) {
            throw new TimeoutException("not done after " + step.get("seconds") + " s");
        }
        return Duration.ofNanos(left);
    }

    <T> T get(Future<T> future) throws Exception {
        return future.get(left().toMillis(), TimeUnit.MILLISECONDS);
    }

    Map<String, Object> config(Map<String, Object> more) throws Exception {
        Map<String, Object> c = new HashMap<>();
        c.put("bootstrap.servers", job.get("bootstrap").asText());
        c.put("security.protocol", job.get("protocol").asText());
        if (job.has("ca")) {
            c.put("ssl.truststore.type", "PEM");
            c.put("ssl.truststore.location", job.get("ca").asText());
        }
        if (job.has("cert")) {
            c.put("ssl.keystore.type", "PEM");
            c.put("ssl.keystore.certificate.chain", Files.readString(Path.of(job.get("cert").asText())));
            c.put("ssl.keystore.key", Files.readString(Path.of(job.get("key").asText())));
        }
        if (job.has("mechanism")) {
            String mechanism = job.get("mechanism").asText();
            c.put("sasl.mechanism", mechanism);
            if (mechanism.equals("OAUTHBEARER")) {
                String url = job.get("token_url").asText();
                System.setProperty("org.apache.kafka.sasl.oauthbearer.allowed.urls", url);
                c.put("sasl.oauthbearer.token.endpoint.url", url);
                c.put("sasl.login.callback.handler.class", "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginCallbackHandler");
                c.put("sasl.jaas.config", String.format("org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
                    + " clientId=\"%s\" clientSecret=\"%s\";", job.get("user").asText(), job.get("password").asText()));
            } else {
                c.put("sasl.jaas.config", String.format("org.apache.kafka.common.security.%s required username=\"%s\" password=\"%s\";",
                    mechanism.equals("PLAIN") ? "plain.PlainLoginModule" : "scram.ScramLoginModule",
                    job.get("user").asText(), job.get("password").asText()));
            }
        }
        c.putAll(more);
        step.path("config").fields().forEachRemaining(e -> c.put(e.getKey(), e.getValue().asText()));
        return c;
    }

    KafkaProducer<String, String> producer(Map<String, Object> more) throws Exception {
        Map<String, Object> c = new HashMap<>(more);
        int millis = (int) left().toMillis();
        c.put("acks", "all");
        c.put("max.block.ms", millis);
        c.put("request.timeout.ms", millis);
        c.put("delivery.timeout.ms", millis + 5000);
        c.put("linger.ms", 5);
        return new KafkaProducer<>(config(c), new StringSerializer(), new StringSerializer());
    }

    KafkaProducer<String, String> transactional() throws Exception {
        KafkaProducer<String, String> producer = producer(Map.of(
            "transactional.id", step.get("transactional_id").asText(), "transaction.timeout.ms", (int) left().toMillis()));
        producer.initTransactions();
        producer.beginTransaction();
        return producer;
    }

    void end(KafkaProducer<String, String> producer) {
        if (step.path("abort").asBoolean()) {
            producer.abortTransaction();
        } else {
            producer.commitTransaction();
        }
    }

    Map<String, String> pairs() {
        Map<String, String> pairs = new LinkedHashMap<>();
        String prefix = step.path("prefix").asText("");
        for (int i = 0; i < step.path("count").asInt(1); i++) {
            pairs.put(prefix + "k" + i, prefix + "v" + i);
        }
        return pairs;
    }

    void send(KafkaProducer<String, String> producer, String topic, Map<String, String> pairs) throws Exception {
        Map<String, Future<RecordMetadata>> sent = new LinkedHashMap<>();
        for (Map.Entry<String, String> e : pairs.entrySet()) {
            left(); // each send may wait for metadata as long as the whole step may take
            sent.put(e.getKey(), producer.send(new ProducerRecord<>(topic, e.getKey(), e.getValue())));
        }
        for (Map.Entry<String, Future<RecordMetadata>> e : sent.entrySet()) {
            RecordMetadata m = get(e.getValue());
            emit("produced", at(m.topic(), m.partition(), m.offset()).put("key", e.getKey()));
        }
    }

    KafkaConsumer<String, String> consumer() throws Exception {
        KafkaConsumer<String, String> consumer = new KafkaConsumer<>(config(Map.of(
            "group.id", step.get("group").asText(), "auto.offset.reset", "earliest", "enable.auto.commit", "false",
            "max.poll.records", step.path("count").asInt(1),
            "isolation.level", step.path("read_uncommitted").asBoolean() ? "read_uncommitted" : "read_committed")),
            new StringDeserializer(), new StringDeserializer());
        String topic = step.get("topic").asText();
        if (topic.startsWith("^")) {
            // Since 4.0: the pattern goes to the broker. 3.9 has no such class to compile against.
            Class<?> pattern = Class.forName("org.apache.kafka.clients.consumer.SubscriptionPattern");
            KafkaConsumer.class.getMethod("subscribe", pattern).invoke(consumer, pattern.getConstructor(String.class).newInstance(topic));
        } else {
            List<String> topics = new ArrayList<>(List.of(topic));
            step.path("also").forEach(also -> topics.add(also.asText()));
            consumer.subscribe(topics);
        }
        return consumer;
    }

    List<ConsumerRecord<String, String>> read(KafkaConsumer<String, String> consumer) throws Exception {
        List<ConsumerRecord<String, String>> got = new ArrayList<>();
        while (got.size() < step.path("count").asInt(1)) {
            left();
            for (ConsumerRecord<String, String> r : consumer.poll(Duration.ofMillis(200))) {
                got.add(r);
                emit("record", at(r.topic(), r.partition(), r.offset()).put("key", r.key()).put("value", r.value()));
            }
        }
        return got;
    }

    Map<TopicPartition, OffsetAndMetadata> positions(KafkaConsumer<String, String> consumer) throws Exception {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        for (TopicPartition p : consumer.assignment()) {
            offsets.put(p, new OffsetAndMetadata(consumer.position(p, left())));
        }
        return offsets;
    }

    static ObjectNode at(String topic, int partition, long offset) {
        return JSON.createObjectNode().put("topic", topic).put("partition", partition).put("offset", offset);
    }
}
