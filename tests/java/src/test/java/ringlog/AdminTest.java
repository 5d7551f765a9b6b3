package ringlog;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertNotEquals;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.AlterConfigOp.OpType;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.ConfigEntry.ConfigSource;
import org.apache.kafka.clients.admin.CreateTopicsOptions;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicCollection;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.Uuid;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.InvalidConfigurationException;
import org.apache.kafka.common.errors.InvalidPartitionsException;
import org.apache.kafka.common.errors.InvalidReplicationFactorException;
import org.apache.kafka.common.errors.InvalidTopicException;
import org.apache.kafka.common.errors.OffsetOutOfRangeException;
import org.apache.kafka.common.errors.TopicExistsException;
import org.apache.kafka.common.errors.UnknownTopicIdException;
import org.apache.kafka.common.errors.UnknownTopicOrPartitionException;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** kafka-clients' Admin. */
class AdminTest {
    private static Admin admin;

    @BeforeAll
    static void open() {
        admin = Cluster.admin();
    }

    @AfterAll
    static void close() {
        admin.close();
    }

    private static ConfigResource resource(String topic) {
        return new ConfigResource(ConfigResource.Type.TOPIC, topic);
    }

    private static ConfigEntry config(String topic, String name) throws Exception {
        return admin.describeConfigs(List.of(resource(topic))).all().get().get(resource(topic)).get(name);
    }

    private static void awaitConfig(String topic, String name, String value) throws Exception {
        long end = System.nanoTime() + Cluster.TIMEOUT.toNanos();
        while (!config(topic, name).value().equals(value)) {
            assertTrue(System.nanoTime() < end, () -> name + " is not " + value);
            Thread.sleep(50);
        }
    }

    private static void awaitGroupConfig(ConfigResource group, String name, String value, ConfigSource source) throws Exception {
        long end = System.nanoTime() + Cluster.TIMEOUT.toNanos();
        while (true) {
            ConfigEntry entry = admin.describeConfigs(List.of(group)).all().get().get(group).get(name);
            if (entry.value().equals(value) && entry.source() == source) {
                return;
            }
            assertTrue(System.nanoTime() < end, () -> name + " is " + entry);
            Thread.sleep(50);
        }
    }

    private static AlterConfigOp set(String name, String value) {
        return new AlterConfigOp(new ConfigEntry(name, value), OpType.SET);
    }

    @Test
    void createDescribeDelete() throws Exception {
        String name = Cluster.name();
        var created = admin.createTopics(List.of(new NewTopic(name, 3, (short) 1).configs(Map.of("retention.ms", "12345"))));
        created.all().get();
        assertEquals(3, created.numPartitions(name).get());
        assertEquals(1, created.replicationFactor(name).get());
        assertEquals("12345", created.config(name).get().get("retention.ms").value());
        Uuid id = created.topicId(name).get();
        assertNotEquals(Uuid.ZERO_UUID, id);

        var described = Cluster.await(admin, name, 3);
        assertEquals(id, described.topicId());
        assertFalse(described.isInternal());
        for (var partition : described.partitions()) {
            assertEquals(1, partition.replicas().size());
            assertEquals(partition.replicas(), partition.isr());
        }
        assertEquals(name, admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds().get().get(id).name());
        assertTrue(admin.listTopics().listings().get().stream().anyMatch(t -> t.name().equals(name) && t.topicId().equals(id)));

        admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all().get();
        long end = System.nanoTime() + Cluster.TIMEOUT.toNanos();
        while (admin.listTopics().names().get().contains(name)) {
            assertTrue(System.nanoTime() < end);
        }
        assertInstanceOf(UnknownTopicIdException.class, Cluster.failure(admin.describeTopics(TopicCollection.ofTopicIds(List.of(id))).allTopicIds()));
        assertInstanceOf(UnknownTopicOrPartitionException.class, Cluster.failure(admin.deleteTopics(List.of(name)).all()));
        assertInstanceOf(UnknownTopicIdException.class, Cluster.failure(admin.deleteTopics(TopicCollection.ofTopicIds(List.of(id))).all()));
    }

    @Test
    void refusedTopics() throws Exception {
        String exists = Cluster.topic(admin);
        assertInstanceOf(TopicExistsException.class, create(new NewTopic(exists, 1, (short) 1)));
        assertInstanceOf(InvalidTopicException.class, create(new NewTopic("no/slash", 1, (short) 1)));
        assertInstanceOf(InvalidPartitionsException.class, create(new NewTopic(Cluster.name(), 0, (short) 1)));
        assertInstanceOf(InvalidReplicationFactorException.class, create(new NewTopic(Cluster.name(), 1, (short) 5)));
        assertInstanceOf(InvalidConfigurationException.class, create(new NewTopic(Cluster.name(), 1, (short) 1).configs(Map.of("a.b", "c"))));
    }

    private static Throwable create(NewTopic topic) throws Exception {
        return Cluster.failure(admin.createTopics(List.of(topic)).all());
    }

    @Test
    void validateOnlyAndManualAssignment() throws Exception {
        String name = Cluster.name();
        admin.createTopics(List.of(new NewTopic(name, 2, (short) 1)), new CreateTopicsOptions().validateOnly(true)).all().get();
        assertFalse(admin.listTopics().names().get().contains(name));
        int node = admin.describeCluster().nodes().get().iterator().next().id();
        admin.createTopics(List.of(new NewTopic(name, Map.of(0, List.of(node), 1, List.of(node))))).all().get();
        Cluster.await(admin, name, 2);
    }

    @Test
    void morePartitions() throws Exception {
        String topic = Cluster.topic(admin);
        admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(4))).all().get();
        Cluster.await(admin, topic, 4);
        assertInstanceOf(InvalidPartitionsException.class, Cluster.failure(admin.createPartitions(Map.of(topic, NewPartitions.increaseTo(2))).all()));
    }

    @Test
    void configs() throws Exception {
        String topic = Cluster.topic(admin, 1, Map.of("retention.ms", "1000000"));
        assertEquals(ConfigSource.DYNAMIC_TOPIC_CONFIG, config(topic, "retention.ms").source());
        assertEquals(ConfigSource.DEFAULT_CONFIG, config(topic, "segment.ms").source());
        Map<ConfigResource, Collection<AlterConfigOp>> changes =
                Map.of(resource(topic), List.of(set("segment.bytes", "3000000"), new AlterConfigOp(new ConfigEntry("retention.ms", ""), OpType.DELETE)));
        admin.incrementalAlterConfigs(changes).all().get();
        awaitConfig(topic, "segment.bytes", "3000000");
        awaitConfig(topic, "retention.ms", "604800000");
        assertInstanceOf(InvalidConfigurationException.class,
                Cluster.failure(admin.incrementalAlterConfigs(Map.of(resource(topic), List.of(set("segment.bytes", "none")))).all()));
        assertInstanceOf(UnknownTopicOrPartitionException.class,
                Cluster.failure(admin.incrementalAlterConfigs(Map.of(resource(Cluster.name()), List.of(set("segment.bytes", "3000000")))).all()));
        assertTrue(admin.listConfigResources(Set.of(ConfigResource.Type.TOPIC), new org.apache.kafka.clients.admin.ListConfigResourcesOptions())
                .all().get().contains(resource(topic)));
    }

    @Test
    void groupConfigs() throws Exception {
        var group = new ConfigResource(ConfigResource.Type.GROUP, Cluster.name());
        String session = "consumer.session.timeout.ms";
        admin.incrementalAlterConfigs(Map.of(group, List.of(set(session, "50000")))).all().get();
        awaitGroupConfig(group, session, "50000", ConfigSource.DYNAMIC_GROUP_CONFIG);
        var options = new org.apache.kafka.clients.admin.ListConfigResourcesOptions();
        assertTrue(admin.listConfigResources(Set.of(ConfigResource.Type.GROUP), options).all().get().contains(group));
        assertInstanceOf(InvalidConfigurationException.class,
                Cluster.failure(admin.incrementalAlterConfigs(Map.of(group, List.of(set(session, "1")))).all()));
        admin.incrementalAlterConfigs(Map.of(group, List.of(new AlterConfigOp(new ConfigEntry(session, ""), OpType.DELETE)))).all().get();
        awaitGroupConfig(group, session, "45000", ConfigSource.DEFAULT_CONFIG);
    }

    @Test
    void brokerConfigs() throws Exception {
        String node = admin.describeCluster().nodes().get().iterator().next().idString();
        var broker = new ConfigResource(ConfigResource.Type.BROKER, node);
        var configs = admin.describeConfigs(List.of(broker)).all().get().get(broker);
        assertEquals("104857600", configs.get("socket.request.max.bytes").value());
        assertEquals("1", configs.get("num.partitions").value());
    }

    @Test
    void deleteRecords() throws Exception {
        String topic = Cluster.topic(admin);
        var partition = new TopicPartition(topic, 0);
        Cluster.sendValues(topic, 100, Map.of());
        var deleted = admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(60))).lowWatermarks().get(partition).get();
        assertEquals(60, deleted.lowWatermark());
        assertEquals(60, Cluster.read(partition, 60, 40, Map.of()).get(0).offset());
        assertInstanceOf(OffsetOutOfRangeException.class,
                Cluster.failure(admin.deleteRecords(Map.of(partition, RecordsToDelete.beforeOffset(101))).all()));
        assertEquals(60, admin.listOffsets(Map.of(partition, OffsetSpec.earliest())).all().get().get(partition).offset());
    }

    @Test
    void listOffsetsWithEverySpec() throws Exception {
        String topic = Cluster.topic(admin);
        var partition = new TopicPartition(topic, 0);
        long base = System.currentTimeMillis() - 50_000;
        List<ProducerRecord<byte[], byte[]>> records = new ArrayList<>();
        for (int n = 0; n < 100; n++) {
            records.add(new ProducerRecord<>(topic, 0, n == 30 ? base + 10_000 : base + n, null, new byte[10]));
        }
        Cluster.send(records, Map.of());
        assertEquals(0, offset(partition, OffsetSpec.earliest()));
        assertEquals(100, offset(partition, OffsetSpec.latest()));
        assertEquals(30, offset(partition, OffsetSpec.maxTimestamp()));
        assertEquals(20, offset(partition, OffsetSpec.forTimestamp(base + 20)));
        assertEquals(30, offset(partition, OffsetSpec.forTimestamp(base + 50)));
        assertEquals(-1, offset(partition, OffsetSpec.forTimestamp(base + 10_001)));
        assertEquals(0, offset(partition, OffsetSpec.earliestLocal()));
        assertEquals(-1, offset(partition, OffsetSpec.latestTiered()));
        var max = admin.listOffsets(Map.of(partition, OffsetSpec.maxTimestamp())).all().get().get(partition);
        assertEquals(base + 10_000, max.timestamp());
    }

    private static long offset(TopicPartition partition, OffsetSpec spec) throws Exception {
        return admin.listOffsets(Map.of(partition, spec)).all().get().get(partition).offset();
    }

    @Test
    void describeLogDirs() throws Exception {
        String topic = Cluster.topic(admin);
        Cluster.sendValues(topic, 100, Map.of());
        int node = admin.describeCluster().nodes().get().iterator().next().id();
        var dirs = admin.describeLogDirs(List.of(node)).allDescriptions().get().get(node);
        assertEquals(1, dirs.size());
        var dir = dirs.values().iterator().next();
        assertEquals(null, dir.error());
        assertTrue(dir.totalBytes().getAsLong() > dir.usableBytes().getAsLong() && dir.usableBytes().getAsLong() > 0);
        var replica = dir.replicaInfos().get(new TopicPartition(topic, 0));
        assertTrue(replica.size() > 1000, () -> "size " + replica.size());
        assertEquals(0, replica.offsetLag());
        assertFalse(replica.isFuture());
    }

    @Test
    void describeProducers() throws Exception {
        String topic = Cluster.topic(admin);
        var partition = new TopicPartition(topic, 0);
        Cluster.sendValues(topic, 42, Map.of("enable.idempotence", true));
        var state = admin.describeProducers(List.of(partition)).partitionResult(partition).get();
        assertEquals(1, state.activeProducers().size());
        var producer = state.activeProducers().get(0);
        assertEquals(41, producer.lastSequence());
        assertEquals(0, producer.producerEpoch());
        assertTrue(producer.producerId() >= 0);
        assertTrue(producer.currentTransactionStartOffset().isEmpty());
        String plain = Cluster.topic(admin);
        Cluster.sendValues(plain, 1, Map.of("enable.idempotence", false));
        var none = new TopicPartition(plain, 0);
        assertTrue(admin.describeProducers(List.of(none)).partitionResult(none).get().activeProducers().isEmpty());
    }

    @Test
    void describeCluster() throws Exception {
        var cluster = admin.describeCluster();
        assertEquals(Cluster.bootstrap(), cluster.nodes().get().iterator().next().host() + ":" + cluster.nodes().get().iterator().next().port());
        assertEquals(1, cluster.nodes().get().size());
        assertEquals(cluster.nodes().get().iterator().next().id(), cluster.controller().get().id());
        assertEquals(22, cluster.clusterId().get().length());
    }
}
