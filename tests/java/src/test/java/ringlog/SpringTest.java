package ringlog;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertInstanceOf;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.TimeUnit;
import java.util.function.BooleanSupplier;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.RecordTooLargeException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.core.env.MapPropertySource;
import org.springframework.kafka.annotation.EnableKafka;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.config.KafkaListenerEndpointRegistry;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.kafka.listener.ConcurrentMessageListenerContainer;
import org.springframework.kafka.listener.ContainerProperties.AckMode;
import org.springframework.kafka.listener.MessageListenerContainer;
import org.springframework.kafka.support.Acknowledgment;
import org.springframework.kafka.support.SendResult;

/** Spring Kafka: its template, and its listeners as members of a group. */
class SpringTest {
    private static final int PARTITIONS = 3;
    private static Admin admin;

    /** What a listener got, and by which of its threads. */
    record Received(int partition, long offset, String value, String thread) {
        Received(ConsumerRecord<String, String> record) {
            this(record.partition(), record.offset(), record.value(), Thread.currentThread().getName());
        }
    }

    /** An application with a template and two listeners, of which a test starts the one it wants. */
    @Configuration
    @EnableKafka
    static class Application {
        final Queue<Received> received = new ConcurrentLinkedQueue<>();
        volatile boolean acknowledges = true;

        @Bean
        KafkaTemplate<String, String> template() {
            Map<String, Object> config = Map.of("bootstrap.servers", Cluster.bootstrap());
            return new KafkaTemplate<>(new DefaultKafkaProducerFactory<>(config, new StringSerializer(), new StringSerializer()));
        }

        @Value("${protocol}")
        private String protocol;

        private ConcurrentKafkaListenerContainerFactory<String, String> listeners(AckMode mode) {
            Map<String, Object> config = new HashMap<>(Map.of(
                    "bootstrap.servers", Cluster.bootstrap(), "auto.offset.reset", "earliest", "group.protocol", protocol));
            if (protocol.equals("classic")) {
                config.put("heartbeat.interval.ms", 500);
            }
            var factory = new ConcurrentKafkaListenerContainerFactory<String, String>();
            factory.setConsumerFactory(new DefaultKafkaConsumerFactory<>(config, new StringDeserializer(), new StringDeserializer()));
            factory.getContainerProperties().setAckMode(mode);
            factory.getContainerProperties().setShutdownTimeout(Cluster.TIMEOUT.toMillis()); // what it has got is committed by then
            return factory;
        }

        @Bean
        ConcurrentKafkaListenerContainerFactory<String, String> byBatch() {
            return listeners(AckMode.BATCH); // the default
        }

        @Bean
        ConcurrentKafkaListenerContainerFactory<String, String> byHand() {
            return listeners(AckMode.MANUAL);
        }

        @KafkaListener(id = "batch", groupId = "${group}", topics = "${topic}", concurrency = "2", containerFactory = "byBatch", autoStartup = "false")
        void listen(ConsumerRecord<String, String> record) {
            received.add(new Received(record));
        }

        @KafkaListener(id = "manual", groupId = "${group}", topics = "${topic}", concurrency = "2", containerFactory = "byHand", autoStartup = "false")
        void listen(ConsumerRecord<String, String> record, Acknowledgment acknowledgment) {
            boolean acknowledge = acknowledges; // as it was before the test can see that this record has come
            received.add(new Received(record));
            if (acknowledge) {
                acknowledgment.acknowledge();
            }
        }
    }

    /** An application that runs. */
    private static final class Running implements AutoCloseable {
        final AnnotationConfigApplicationContext context = new AnnotationConfigApplicationContext();
        final Application application;
        final MessageListenerContainer container;

        Running(String listener, String group, String topic) {
            this(listener, group, topic, "classic");
        }

        Running(String listener, String group, String topic, String protocol) {
            Map<String, Object> properties = Map.of("group", group, "topic", topic, "protocol", protocol);
            context.getEnvironment().getPropertySources().addFirst(new MapPropertySource("test", properties));
            context.register(Application.class);
            context.refresh();
            application = context.getBean(Application.class);
            container = context.getBean(KafkaListenerEndpointRegistry.class).getListenerContainer(listener);
        }

        @SuppressWarnings("unchecked")
        KafkaTemplate<String, String> template() {
            return context.getBean(KafkaTemplate.class);
        }

        /** Starts the listener and returns when each of its consumers has partitions and every partition has one. */
        Running listen() throws InterruptedException {
            container.start();
            await(() -> {
                var shares = shares();
                return shares.size() == 2 && shares.stream().noneMatch(Set::isEmpty) && shares.stream().mapToInt(Set::size).sum() == PARTITIONS;
            });
            return this;
        }

        private List<Set<TopicPartition>> shares() {
            return ((ConcurrentMessageListenerContainer<?, ?>) container).getContainers().stream().map(c -> copy(c.getAssignedPartitions())).toList();
        }

        private static Set<TopicPartition> copy(Collection<TopicPartition> partitions) {
            return partitions == null ? Set.of() : Set.copyOf(partitions);
        }

        Set<String> values() {
            return application.received.stream().map(Received::value).collect(Collectors.toCollection(TreeSet::new));
        }

        @Override
        public void close() {
            context.close();
        }
    }

    private static void await(BooleanSupplier condition) throws InterruptedException {
        long end = System.nanoTime() + Cluster.TIMEOUT.toNanos();
        while (!condition.getAsBoolean()) {
            if (System.nanoTime() > end) {
                throw new KafkaException("it did not come to that");
            }
            Thread.sleep(20);
        }
    }

    /** Sends `count` values to all partitions in turn and waits for them to be acknowledged. */
    private static Set<String> send(KafkaTemplate<String, String> template, String topic, String stem, int count) throws Exception {
        List<CompletableFuture<SendResult<String, String>>> sent =
                IntStream.range(0, count).mapToObj(n -> template.send(topic, n % PARTITIONS, null, stem + n)).toList();
        for (var future : sent) {
            future.get(Cluster.TIMEOUT.toSeconds(), TimeUnit.SECONDS);
        }
        return IntStream.range(0, count).mapToObj(n -> stem + n).collect(Collectors.toCollection(TreeSet::new));
    }

    @BeforeAll
    static void open() {
        admin = Cluster.admin();
    }

    @AfterAll
    static void close() {
        admin.close();
    }

    @Test
    void theCallbackOfSendGetsTopicPartitionAndOffset() throws Exception {
        String topic = Cluster.topic(admin, PARTITIONS, Map.of("max.message.bytes", "1000"));
        try (var running = new Running("batch", Cluster.name(), topic)) {
            var delivered = new ConcurrentLinkedQueue<String>();
            List<CompletableFuture<SendResult<String, String>>> sent = IntStream.range(0, 30)
                    .mapToObj(n -> running.template().send(topic, n % PARTITIONS, null, "v" + n).whenComplete((result, error) -> {
                        var metadata = result.getRecordMetadata();
                        delivered.add(metadata.topic() + " " + metadata.partition() + " " + metadata.offset() + " " + result.getProducerRecord().value());
                    })).toList();
            CompletableFuture.allOf(sent.toArray(CompletableFuture[]::new)).get(Cluster.TIMEOUT.toSeconds(), TimeUnit.SECONDS);
            Set<String> expected = IntStream.range(0, 30)
                    .mapToObj(n -> topic + " " + n % PARTITIONS + " " + n / PARTITIONS + " v" + n).collect(Collectors.toSet());
            assertEquals(expected, Set.copyOf(delivered));
            assertEquals(30, delivered.size());
            var refused = running.template().send(topic, "x".repeat(2000)).handle((result, error) -> error).get(Cluster.TIMEOUT.toSeconds(), TimeUnit.SECONDS);
            assertInstanceOf(RecordTooLargeException.class, refused.getCause());
        }
    }

    @ParameterizedTest
    @ValueSource(strings = {"classic", "consumer"})
    void twoThreadsOfAListenerShareThreePartitions(String protocol) throws Exception {
        String topic = Cluster.topic(admin, PARTITIONS, Map.of());
        try (var running = new Running("batch", Cluster.name(), topic, protocol).listen()) {
            Set<String> expected = send(running.template(), topic, "v", 90);
            await(() -> running.application.received.size() >= 90);
            assertEquals(expected, running.values());
            assertEquals(90, running.application.received.size());
            assertEquals(2, running.application.received.stream().map(Received::thread).distinct().count());
            for (int p = 0; p < PARTITIONS; p++) {
                int partition = p;
                var own = running.application.received.stream().filter(r -> r.partition() == partition).toList();
                assertEquals(1, own.stream().map(Received::thread).distinct().count());
                assertEquals(IntStream.range(0, 30).mapToObj(n -> (long) n).toList(), own.stream().map(Received::offset).toList());
            }
        }
    }

    @Test
    void aListenerResumesAfterARestart() throws Exception {
        String topic = Cluster.topic(admin, PARTITIONS, Map.of());
        String group = Cluster.name();
        try (var running = new Running("batch", group, topic).listen()) {
            send(running.template(), topic, "before", 30);
            await(() -> running.application.received.size() >= 30);
            running.container.stop();
            running.application.received.clear();
            Set<String> meanwhile = send(running.template(), topic, "meanwhile", 30);
            running.listen();
            await(() -> running.application.received.size() >= 30);
            assertEquals(meanwhile, running.values());
            assertEquals(30, running.application.received.size());
        }
        try (var again = new Running("batch", group, topic).listen()) {
            Set<String> after = send(again.template(), topic, "after", 30);
            await(() -> again.application.received.size() >= 30);
            assertEquals(after, again.values());
            assertEquals(30, again.application.received.size());
        }
    }

    @Test
    void whatIsNotAcknowledgedByHandComesAgain() throws Exception {
        String topic = Cluster.topic(admin, PARTITIONS, Map.of());
        try (var running = new Running("manual", Cluster.name(), topic).listen()) {
            send(running.template(), topic, "acknowledged", 30);
            await(() -> running.application.received.size() >= 30);
            running.application.acknowledges = false;
            Set<String> open = send(running.template(), topic, "open", 30);
            await(() -> running.application.received.size() >= 60);
            running.container.stop();
            running.application.received.clear();
            running.application.acknowledges = true;
            running.listen();
            await(() -> running.application.received.size() >= 30);
            assertEquals(open, running.values());
            assertEquals(30, running.application.received.size());
            assertTrue(running.application.received.stream().allMatch(r -> r.offset() >= 10));
        }
    }
}
