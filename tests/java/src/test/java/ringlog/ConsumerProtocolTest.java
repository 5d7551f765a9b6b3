package ringlog;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.time.Duration;
import java.util.ArrayList;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.BooleanSupplier;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.ConsumerGroupDescription;
import org.apache.kafka.clients.admin.ListGroupsOptions;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.GroupState;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.InvalidRegularExpression;
import org.apache.kafka.common.errors.UnsupportedAssignorException;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

/** kafka-clients with group.protocol=consumer (KIP-848). The broker's heartbeat interval and session timeout are its defaults. */
class ConsumerProtocolTest {
    private static Admin admin;

    @BeforeAll
    static void open() {
        admin = Cluster.admin();
    }

    @AfterAll
    static void close() {
        admin.close();
    }

    private static KafkaConsumer<byte[], byte[]> member(String group, Map<String, Object> config) {
        Map<String, Object> all = new HashMap<>(Map.of(
                "group.id", group, "group.protocol", "consumer", "auto.offset.reset", "earliest", "metadata.max.age.ms", 1000));
        all.putAll(config);
        return Cluster.consumer(all);
    }

    private static List<ConsumerRecord<byte[], byte[]>> run(List<KafkaConsumer<byte[], byte[]>> members, BooleanSupplier until) {
        List<ConsumerRecord<byte[], byte[]>> records = new ArrayList<>();
        long end = System.nanoTime() + Cluster.TIMEOUT.toNanos();
        while (!until.getAsBoolean()) {
            assertTrue(System.nanoTime() < end, () -> members.stream().map(m -> m.assignment().toString()).toList().toString());
            members.forEach(member -> member.poll(Duration.ofMillis(50)).forEach(records::add));
        }
        return records;
    }

    /** Whether these have `count` partitions together, none of them twice, and everybody about as many. */
    private static boolean share(List<KafkaConsumer<byte[], byte[]>> members, int count) {
        Set<TopicPartition> all = new HashSet<>();
        for (var member : members) {
            int size = member.assignment().size();
            boolean isFair = size == count / members.size() || size == (count + members.size() - 1) / members.size();
            if (!isFair || !member.assignment().stream().allMatch(all::add)) {
                return false;
            }
        }
        return all.size() == count;
    }

    @Test
    void twoMembersShareThreePartitionsAndOneTakesOver() throws Exception {
        String topic = Cluster.topic(admin, 3, Map.of());
        String group = Cluster.name();
        var one = member(group, Map.of());
        try (var two = member(group, Map.of())) {
            one.subscribe(List.of(topic));
            two.subscribe(List.of(topic));
            run(List.of(one, two), () -> share(List.of(one, two), 3));
            one.close();
            run(List.of(two), () -> share(List.of(two), 3));
        }
    }

    @Test
    void commitsAreWhereTheNextGoesOn() throws Exception {
        String topic = Cluster.topic(admin);
        String group = Cluster.name();
        Cluster.sendValues(topic, 100, Map.of());
        var partition = new TopicPartition(topic, 0);
        try (var member = member(group, Map.of())) {
            member.subscribe(List.of(topic));
            Cluster.poll(member, 100);
            member.commitSync(Map.of(partition, new OffsetAndMetadata(60, "so far")));
            assertEquals(60, member.committed(Set.of(partition)).get(partition).offset());
        }
        try (var member = member(group, Map.of())) {
            member.subscribe(List.of(topic));
            assertEquals(60, Cluster.poll(member, 40).get(0).offset());
        }
        var offsets = admin.listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get();
        assertEquals("so far", offsets.get(partition).metadata());
    }

    @Test
    void thePatternIsResolvedByTheBroker() throws Exception {
        String stem = Cluster.name();
        for (String name : List.of(stem + "-a", "x" + stem + "-a")) {
            admin.createTopics(List.of(new org.apache.kafka.clients.admin.NewTopic(name, 1, (short) 1))).all().get();
            Cluster.await(admin, name, 1);
        }
        try (var member = member(Cluster.name(), Map.of())) {
            member.subscribe(new SubscriptionPattern(stem + "-.*"));
            run(List.of(member), () -> member.assignment().equals(Set.of(new TopicPartition(stem + "-a", 0))));
            admin.createTopics(List.of(new org.apache.kafka.clients.admin.NewTopic(stem + "-b", 1, (short) 1))).all().get();
            var both = Set.of(new TopicPartition(stem + "-a", 0), new TopicPartition(stem + "-b", 0));
            run(List.of(member), () -> member.assignment().equals(both));
        }
        try (var member = member(Cluster.name(), Map.of())) {
            member.subscribe(new SubscriptionPattern("(unclosed"));
            assertThrows(InvalidRegularExpression.class, () -> run(List.of(member), () -> false));
        }
    }

    @Test
    void aStaticMemberComesBackToWhatItHad() throws Exception {
        String topic = Cluster.topic(admin, 4, Map.of());
        String group = Cluster.name();
        var one = member(group, Map.of("group.instance.id", "one"));
        try (var two = member(group, Map.of("group.instance.id", "two"))) {
            one.subscribe(List.of(topic));
            two.subscribe(List.of(topic));
            run(List.of(one, two), () -> share(List.of(one, two), 4));
            Set<TopicPartition> had = Set.copyOf(one.assignment());
            one.close();
            try (var again = member(group, Map.of("group.instance.id", "one"))) {
                again.subscribe(List.of(topic));
                run(List.of(again, two), () -> share(List.of(again, two), 4));
                assertEquals(had, again.assignment());
            }
        }
    }

    @Test
    void anAssignorThatIsNotThere() {
        try (var member = member(Cluster.name(), Map.of("group.remote.assignor", "sticky"))) {
            member.subscribe(List.of("whatever"));
            assertThrows(UnsupportedAssignorException.class, () -> run(List.of(member), () -> false));
        }
    }

    @Test
    void toolsSeeTheGroup() throws Exception {
        String topic = Cluster.topic(admin, 2, Map.of());
        String group = Cluster.name();
        try (var member = member(group, Map.of("group.remote.assignor", "range", "client.id", "seen"))) {
            member.subscribe(List.of(topic));
            run(List.of(member), () -> share(List.of(member), 2));
            var consumers = admin.listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.CONSUMER))).all().get();
            assertTrue(consumers.stream().anyMatch(listed -> listed.groupId().equals(group)));
            var classics = admin.listGroups(new ListGroupsOptions().withTypes(Set.of(GroupType.CLASSIC))).all().get();
            assertTrue(classics.stream().noneMatch(listed -> listed.groupId().equals(group)));
            ConsumerGroupDescription described = admin.describeConsumerGroups(List.of(group)).all().get().get(group);
            assertEquals(GroupType.CONSUMER, described.type());
            assertEquals(GroupState.STABLE, described.groupState());
            assertEquals("range", described.partitionAssignor());
            var found = described.members().iterator().next();
            assertEquals("seen", found.clientId());
            assertEquals(member.assignment(), found.assignment().topicPartitions());
            assertEquals(member.assignment(), found.targetAssignment().orElseThrow().topicPartitions());
            var failure = Cluster.failure(admin.deleteConsumerGroups(List.of(group)).all());
            assertInstanceOf(org.apache.kafka.common.errors.GroupNotEmptyException.class, failure);
        }
        admin.deleteConsumerGroups(List.of(group)).all().get();
        var left = admin.listGroups().all().get().stream().map(listed -> listed.groupId()).collect(Collectors.toSet());
        assertTrue(!left.contains(group));
    }

    @Test
    void aGroupGoesToTheNewProtocolAndBack() throws Exception {
        String topic = Cluster.topic(admin, 4, Map.of());
        String group = Cluster.name();
        Map<String, Object> classic = Map.of(
                "group.protocol", "classic", "heartbeat.interval.ms", 500,
                "partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");
        var old = member(group, classic);
        old.subscribe(List.of(topic));
        run(List.of(old), () -> share(List.of(old), 4));
        var modern = member(group, Map.of());
        modern.subscribe(List.of(topic));
        run(List.of(old, modern), () -> share(List.of(old, modern), 4));
        assertEquals(GroupType.CONSUMER, admin.describeConsumerGroups(List.of(group)).all().get().get(group).type());
        modern.close();
        run(List.of(old), () -> share(List.of(old), 4));
        assertEquals(GroupType.CLASSIC, admin.describeConsumerGroups(List.of(group)).all().get().get(group).type());
        old.close();
    }
}
