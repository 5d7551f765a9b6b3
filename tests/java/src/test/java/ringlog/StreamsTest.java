package ringlog;

import static org.junit.jupiter.api.Assertions.assertEquals;

import java.nio.file.Path;
import java.time.Duration;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.concurrent.Callable;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.LongDeserializer;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.CloseOptions;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StoreQueryParameters;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.errors.InvalidStateStoreException;
import org.apache.kafka.streams.kstream.Consumed;
import org.apache.kafka.streams.kstream.Grouped;
import org.apache.kafka.streams.kstream.Materialized;
import org.apache.kafka.streams.kstream.Produced;
import org.apache.kafka.streams.state.QueryableStoreTypes;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Kafka Streams: word count, at least once. */
class StreamsTest {
    private static final int PARTITIONS = 3;
    private static final List<String> LINES = List.of("the quick brown fox", "jumps over the lazy dog", "The dog sleeps");
    private static Admin admin;

    @TempDir
    Path state;

    @BeforeAll
    static void open() {
        admin = Cluster.admin();
    }

    @AfterAll
    static void close() {
        admin.close();
    }

    private static Topology wordCount(String input, String output) {
        var builder = new StreamsBuilder();
        builder.stream(input, Consumed.with(Serdes.String(), Serdes.String()))
                .flatMapValues(line -> Arrays.asList(line.toLowerCase().split(" ")))
                .groupBy((key, word) -> word, Grouped.with(Serdes.String(), Serdes.String()))
                .count(Materialized.as("counts"))
                .toStream()
                .to(output, Produced.with(Serdes.String(), Serdes.Long()));
        return builder.build();
    }

    private KafkaStreams application(String id, String input, String output) {
        var config = new Properties();
        config.putAll(Map.of(
                "application.id", id, "bootstrap.servers", Cluster.bootstrap(), "state.dir", state.toString(), "num.stream.threads", 2,
                "default.key.serde", Serdes.StringSerde.class, "commit.interval.ms", 100, "repartition.purge.interval.ms", 100,
                // Who is put out of its group because the machine stands still counts again what it had not committed.
                "consumer.session.timeout.ms", 20_000, "consumer.heartbeat.interval.ms", 500, "consumer.auto.offset.reset", "earliest"));
        return new KafkaStreams(wordCount(input, output), config);
    }

    /** Calls until `expected` is what comes back. */
    private static <T> void await(T expected, Callable<T> found) throws Exception {
        long end = System.nanoTime() + Cluster.TIMEOUT.toNanos();
        while (true) {
            T now = found.call();
            if (expected.equals(now)) {
                return;
            }
            if (System.nanoTime() > end) {
                assertEquals(expected, now);
            }
            Thread.sleep(50);
        }
    }

    private static void send(String topic, List<String> lines) throws Exception {
        List<ProducerRecord<byte[], byte[]>> records = IntStream.range(0, lines.size())
                .mapToObj(n -> new ProducerRecord<byte[], byte[]>(topic, n % PARTITIONS, null, lines.get(n).getBytes())).toList();
        Cluster.send(records, Map.of());
    }

    private static Map<String, Long> counts(List<String> lines) {
        return lines.stream().flatMap(line -> Arrays.stream(line.toLowerCase().split(" ")))
                .collect(Collectors.groupingBy(word -> word, Collectors.counting()));
    }

    private static List<TopicPartition> partitions(String topic) {
        return IntStream.range(0, PARTITIONS).mapToObj(p -> new TopicPartition(topic, p)).toList();
    }

    private static Map<TopicPartition, Long> offsets(String topic, OffsetSpec spec) throws Exception {
        var found = admin.listOffsets(partitions(topic).stream().collect(Collectors.toMap(p -> p, p -> spec))).all().get();
        return found.entrySet().stream().collect(Collectors.toMap(Map.Entry::getKey, e -> e.getValue().offset()));
    }

    /** The last value of each key of a topic. */
    private static Map<String, Long> latest(String topic) throws Exception {
        Map<String, Long> values = new HashMap<>();
        try (var consumer = Cluster.consumer(Map.of()); var number = new LongDeserializer()) {
            var ends = offsets(topic, OffsetSpec.latest());
            consumer.assign(ends.keySet());
            consumer.seekToBeginning(ends.keySet());
            while (ends.entrySet().stream().anyMatch(end -> consumer.position(end.getKey()) < end.getValue())) {
                consumer.poll(Duration.ofMillis(100)).forEach(r -> values.put(new String(r.key()), number.deserialize(topic, r.value())));
            }
        }
        return values;
    }

    /** What the application's store holds; nothing while it is being restored. */
    private static Map<String, Long> store(KafkaStreams streams) {
        if (streams.state() == KafkaStreams.State.ERROR) {
            throw new KafkaException("the application failed");
        }
        Map<String, Long> values = new HashMap<>();
        try (var all = streams.store(StoreQueryParameters.fromNameAndType("counts", QueryableStoreTypes.<String, Long>keyValueStore())).all()) {
            all.forEachRemaining(entry -> values.put(entry.key, entry.value));
        } catch (InvalidStateStoreException e) {
            return Map.of();
        }
        return values;
    }

    private static String config(String topic, String name) throws Exception {
        var resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
        return admin.describeConfigs(List.of(resource)).all().get().get(resource).get(name).value();
    }

    @Test
    void wordsAreCountedRightAfterRestarts() throws Exception {
        String input = Cluster.topic(admin, PARTITIONS, Map.of());
        String output = Cluster.topic(admin, PARTITIONS, Map.of());
        String id = Cluster.name();
        String changelog = id + "-counts-changelog";
        String repartition = id + "-counts-repartition";
        Map<String, Long> once = counts(LINES);
        send(input, LINES);

        try (var streams = application(id, input, output)) {
            streams.start();
            await(once, () -> store(streams));
            // The topics that Streams made for itself, and what it asked of them.
            assertEquals(Set.of(changelog, repartition), admin.listTopics().names().get().stream().filter(n -> n.startsWith(id + "-")).collect(Collectors.toSet()));
            Cluster.await(admin, changelog, PARTITIONS);
            Cluster.await(admin, repartition, PARTITIONS);
            assertEquals("compact", config(changelog, "cleanup.policy"));
            assertEquals("delete", config(repartition, "cleanup.policy"));
            assertEquals("-1", config(repartition, "retention.ms"));
            // It deletes what it has read of them.
            var ends = offsets(repartition, OffsetSpec.latest());
            assertEquals(once.values().stream().mapToLong(n -> n).sum(), ends.values().stream().mapToLong(n -> n).sum());
            await(ends, () -> offsets(repartition, OffsetSpec.earliest()));
        }
        assertEquals(once, latest(output));
        assertEquals(once, latest(changelog));

        // Its own files are still there. It waits for the sessions of before to end: Streams closes its members without leaving.
        List<String> twice = IntStream.range(0, 2).boxed().flatMap(n -> LINES.stream()).toList();
        send(input, LINES);
        try (var streams = application(id, input, output)) {
            streams.start();
            await(counts(twice), () -> store(streams));
            streams.close(CloseOptions.timeout(Cluster.TIMEOUT).withGroupMembershipOperation(CloseOptions.GroupMembershipOperation.LEAVE_GROUP));
        }
        assertEquals(counts(twice), latest(output));

        // They are not: all comes from the changelog.
        try (var streams = application(id, input, output)) {
            streams.cleanUp();
            streams.start();
            await(counts(twice), () -> store(streams));
            send(input, LINES);
            List<String> thrice = IntStream.range(0, 3).boxed().flatMap(n -> LINES.stream()).toList();
            await(counts(thrice), () -> store(streams));
            await(counts(thrice), () -> latest(output));
            // It may be sent in another request than what is at the output already.
            await(counts(thrice), () -> latest(changelog));
        }
    }
}
