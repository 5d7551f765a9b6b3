package ringlog;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.atomic.AtomicInteger;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.TopicDescription;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Clients of the broker at BOOTSTRAP, topics of one's own, and reading them back. */
final class Cluster {
    static final Duration TIMEOUT = Duration.ofSeconds(120);
    private static final AtomicInteger NUMBER = new AtomicInteger();

    private Cluster() {}

    static String bootstrap() {
        String bootstrap = System.getenv("BOOTSTRAP");
        if (bootstrap == null) {
            throw new IllegalStateException("BOOTSTRAP names no running broker");
        }
        return bootstrap;
    }

    static Admin admin() {
        return Admin.create(Map.of("bootstrap.servers", bootstrap()));
    }

    static KafkaProducer<byte[], byte[]> producer(Map<String, Object> config) {
        Map<String, Object> all = new HashMap<>(Map.of("bootstrap.servers", bootstrap(), "max.request.size", 50_000_000));
        all.putAll(config);
        return new KafkaProducer<>(all, new ByteArraySerializer(), new ByteArraySerializer());
    }

    static KafkaConsumer<byte[], byte[]> consumer(Map<String, Object> config) {
        Map<String, Object> all = new HashMap<>(
                Map.of("bootstrap.servers", bootstrap(), "enable.auto.commit", false, "auto.offset.reset", "none"));
        all.putAll(config);
        return new KafkaConsumer<>(all, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    static String name() {
        return "java-" + NUMBER.getAndIncrement();
    }

    static String topic(Admin admin, int partitions, Map<String, String> configs) throws Exception {
        String name = name();
        admin.createTopics(List.of(new NewTopic(name, partitions, (short) 1).configs(configs))).all().get();
        await(admin, name, partitions);
        return name;
    }

    static String topic(Admin admin) throws Exception {
        return topic(admin, 1, Map.of());
    }

    /** A broker's metadata may follow its controller a little later. */
    static TopicDescription await(Admin admin, String name, int partitions) throws Exception {
        long end = System.nanoTime() + TIMEOUT.toNanos();
        while (true) {
            try {
                TopicDescription found = admin.describeTopics(List.of(name)).allTopicNames().get().get(name);
                if (found.partitions().size() == partitions && found.partitions().stream().allMatch(p -> p.leader() != null)) {
                    return found;
                }
            } catch (ExecutionException e) {
                if (!(e.getCause() instanceof UnknownTopicOrPartitionException)) {
                    throw e;
                }
            }
            if (System.nanoTime() > end) {
                throw new KafkaException(name + " has no " + partitions + " partitions");
            }
            Thread.sleep(50);
        }
    }

    /** Sends all; each must be acknowledged. */
    static List<RecordMetadata> send(List<ProducerRecord<byte[], byte[]>> records, Map<String, Object> config) throws Exception {
        try (var producer = producer(config)) {
            var futures = records.stream().map(producer::send).toList();
            producer.flush();
            List<RecordMetadata> sent = new ArrayList<>();
            for (var future : futures) {
                sent.add(future.get());
            }
            return sent;
        }
    }

    static List<RecordMetadata> sendValues(String topic, int count, Map<String, Object> config) throws Exception {
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int n = 0; n < count; n++) {
            records.add(new ProducerRecord<>(topic, 0, null, ("v" + n).getBytes()));
        }
        return send(records, config);
    }

    /** `count` records of a partition from `offset` on. */
    static List<ConsumerRecord<byte[], byte[]>> read(TopicPartition partition, long offset, int count, Map<String, Object> config) {
        try (var consumer = consumer(config)) {
            consumer.assign(List.of(partition));
            consumer.seek(partition, offset);
            return poll(consumer, count);
        }
    }

    static List<ConsumerRecord<byte[], byte[]>> poll(KafkaConsumer<byte[], byte[]> consumer, int count) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        long end = System.nanoTime() + TIMEOUT.toNanos();
        while (records.size() < count) {
            if (System.nanoTime() > end) {
                throw new KafkaException(records.size() + " of " + count + " records");
            }
            consumer.poll(Duration.ofMillis(200)).forEach(records::add);
        }
        return records;
    }

    /** The error that a future ends with. */
    static Throwable failure(java.util.concurrent.Future<?> future) throws InterruptedException {
        try {
            future.get();
            return null;
        } catch (ExecutionException e) {
            return e.getCause();
        }
    }
}
