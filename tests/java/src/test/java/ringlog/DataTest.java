package ringlog;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNull;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Random;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.OffsetOutOfRangeException;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.record.TimestampType;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** kafka-clients: producing and consuming with manual assignment. */
class DataTest {
    private static Admin admin;

    @BeforeAll
    static void open() {
        admin = Cluster.admin();
    }

    @AfterAll
    static void close() {
        admin.close();
    }

    @Test
    void callbacksGetTopicPartitionAndOffset() throws Exception {
        String topic = Cluster.topic(admin, 3, Map.of());
        var done = new ConcurrentLinkedQueue<RecordMetadata>();
        var failed = new ConcurrentLinkedQueue<Exception>();
        try (var producer = Cluster.producer(Map.of())) {
            for (int n = 0; n < 300; n++) {
                producer.send(new ProducerRecord<>(topic, n % 3, null, ("v" + n).getBytes()), (metadata, e) -> {
                    if (e == null) {
                        done.add(metadata);
                    } else {
                        failed.add(e);
                    }
                });
            }
        }
        assertTrue(failed.isEmpty(), failed::toString);
        for (int p = 0; p < 3; p++) {
            int partition = p;
            var offsets = done.stream().filter(m -> m.partition() == partition && m.topic().equals(topic)).map(RecordMetadata::offset).toList();
            assertEquals(IntStream.range(0, 100).mapToObj(n -> (long) n).toList(), offsets);
        }
    }

    @ParameterizedTest
    @CsvSource({
        "none,all,true", "gzip,all,true", "snappy,all,true", "lz4,all,true", "zstd,all,true",
        "none,all,false", "none,1,false", "none,0,false", "zstd,1,false", "lz4,0,false",
    })
    void roundTrip(String codec, String acks, boolean idempotent) throws Exception {
        String topic = Cluster.topic(admin);
        Random random = new Random(codec.hashCode());
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int n = 0; n < 2000; n++) {
            byte[] value = new byte[random.nextInt(1500)];
            if (n % 2 == 0) {
                random.nextBytes(value);
            }
            byte[] key = n % 5 == 0 ? null : ("k" + n).getBytes();
            var headers = List.<org.apache.kafka.common.header.Header>of(
                    new RecordHeader("n", ("" + n).getBytes()), new RecordHeader("null", null), new RecordHeader("n", new byte[0]));
            records.add(new ProducerRecord<>(topic, 0, null, key, n % 7 == 0 ? null : value, headers));
        }
        Cluster.send(records, Map.of("compression.type", codec, "acks", acks, "enable.idempotence", idempotent, "linger.ms", 5));
        var stored = Cluster.read(new TopicPartition(topic, 0), 0, 2000, Map.of());
        assertEquals(2000, stored.size());
        for (int n = 0; n < 2000; n++) {
            assertEquals(n, stored.get(n).offset());
            assertArrayEquals(records.get(n).key(), stored.get(n).key());
            assertArrayEquals(records.get(n).value(), stored.get(n).value());
            assertEquals(records.get(n).headers(), stored.get(n).headers());
        }
    }

    @Test
    void recordsUpToTheLimitAndOver() throws Exception {
        String topic = Cluster.topic(admin, 1, Map.of("max.message.bytes", "2000000"));
        byte[] fits = new byte[2_000_000 - 100];
        new Random(1).nextBytes(fits);
        try (var producer = Cluster.producer(Map.of("compression.type", "none"))) {
            assertEquals(0, producer.send(new ProducerRecord<>(topic, fits)).get().offset());
            var error = Cluster.failure(producer.send(new ProducerRecord<>(topic, new byte[2_000_000])));
            assertInstanceOf(RecordTooLargeException.class, error);
        }
        assertArrayEquals(fits, Cluster.read(new TopicPartition(topic, 0), 0, 1, Map.of()).get(0).value());
        var smallLimits = Map.<String, Object>of("max.partition.fetch.bytes", 1000, "fetch.max.bytes", 1000);
        assertArrayEquals(fits, Cluster.read(new TopicPartition(topic, 0), 0, 1, smallLimits).get(0).value());
    }

    @Test
    void seekOffsetsForTimesBeginningAndEnd() throws Exception {
        String topic = Cluster.topic(admin);
        var partition = new TopicPartition(topic, 0);
        long base = System.currentTimeMillis() - 100_000;
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int n = 0; n < 1000; n++) {
            records.add(new ProducerRecord<>(topic, 0, base + 10L * n, null, ("" + n).getBytes()));
        }
        Cluster.send(records, Map.of("linger.ms", 50, "compression.type", "lz4"));
        try (var consumer = Cluster.consumer(Map.of())) {
            consumer.assign(List.of(partition));
            assertEquals(Map.of(partition, 0L), consumer.beginningOffsets(List.of(partition)));
            assertEquals(Map.of(partition, 1000L), consumer.endOffsets(List.of(partition)));
            var found = consumer.offsetsForTimes(Map.of(partition, base + 4321)).get(partition);
            assertEquals(433, found.offset());
            assertEquals(base + 4330, found.timestamp());
            assertNull(consumer.offsetsForTimes(Map.of(partition, base + 9991)).get(partition));
            for (long offset : new long[] {999, 0, 433}) {
                consumer.seek(partition, offset);
                var first = Cluster.poll(consumer, 1).get(0);
                assertEquals(offset, first.offset());
                assertEquals(base + 10 * offset, first.timestamp());
                assertEquals(TimestampType.CREATE_TIME, first.timestampType());
            }
            consumer.seekToEnd(List.of(partition));
            assertEquals(1000, consumer.position(partition));
            consumer.seekToBeginning(List.of(partition));
            assertEquals(0, consumer.position(partition));
            consumer.seek(partition, 5000);
            assertThrows(OffsetOutOfRangeException.class, () -> Cluster.poll(consumer, 1));
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"read_committed", "read_uncommitted"})
    void isolationLevels(String level) throws Exception {
        String topic = Cluster.topic(admin);
        Cluster.sendValues(topic, 100, Map.of());
        assertEquals(100, Cluster.read(new TopicPartition(topic, 0), 0, 100, Map.of("isolation.level", level)).size());
    }

    @Test
    void manyTopicsThroughOneConsumer() throws Exception {
        List<TopicPartition> partitions = new ArrayList<>();
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int t = 0; t < 30; t++) {
            String topic = Cluster.topic(admin, 3, Map.of());
            for (int p = 0; p < 3; p++) {
                partitions.add(new TopicPartition(topic, p));
                for (int n = 0; n < 10; n++) {
                    records.add(new ProducerRecord<>(topic, p, null, (topic + p + n).getBytes()));
                }
            }
        }
        Cluster.send(records, Map.of());
        try (var consumer = Cluster.consumer(Map.of())) {
            consumer.assign(partitions);
            consumer.seekToBeginning(partitions);
            for (var record : Cluster.poll(consumer, 900)) {
                assertEquals(record.topic() + record.partition() + record.offset(), new String(record.value()));
            }
            // Nothing more comes, and what arrives now does: the fetch session goes on.
            assertTrue(consumer.poll(Duration.ofMillis(300)).isEmpty());
            Cluster.sendValues(partitions.get(0).topic(), 1, Map.of());
            assertEquals("v0", new String(Cluster.poll(consumer, 1).get(0).value()));
        }
    }

    @Test
    void autoCreation() throws Exception {
        String topic = Cluster.name();
        assertEquals(9, Cluster.sendValues(topic, 10, Map.of()).get(9).offset());
        assertTrue(admin.listTopics().names().get().contains(topic));
    }

    @Test
    void aProducerFollowsARecreatedTopic() throws Exception {
        String topic = Cluster.topic(admin);
        try (var producer = Cluster.producer(Map.of("metadata.max.age.ms", 500))) {
            assertEquals(0, producer.send(new ProducerRecord<>(topic, "old".getBytes())).get().offset());
            admin.deleteTopics(List.of(topic)).all().get();
            long end = System.nanoTime() + Cluster.TIMEOUT.toNanos();
            while (admin.listTopics().names().get().contains(topic)) {
                assertTrue(System.nanoTime() < end);
            }
            admin.createTopics(List.of(new org.apache.kafka.clients.admin.NewTopic(topic, 1, (short) 1))).all().get();
            Cluster.await(admin, topic, 1);
            Thread.sleep(1500);
            assertEquals(0, producer.send(new ProducerRecord<>(topic, "new".getBytes())).get().offset());
        }
        assertEquals("new", new String(Cluster.read(new TopicPartition(topic, 0), 0, 1, Map.of()).get(0).value()));
    }
}
