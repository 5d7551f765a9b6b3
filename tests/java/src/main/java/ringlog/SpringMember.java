package ringlog;

import static ringlog.Line.array;
import static ringlog.Line.arrays;
import static ringlog.Line.offsets;
import static ringlog.Line.partition;
import static ringlog.Line.partitions;
import static ringlog.Line.reply;
import static ringlog.Line.say;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.consumer.Consumer;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.UnreleasedInstanceIdException;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.context.event.EventListener;
import org.springframework.core.env.MapPropertySource;
import org.springframework.kafka.annotation.EnableKafka;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.config.KafkaListenerEndpointRegistry;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaAdmin;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.kafka.event.ConsumerStoppedEvent;
import org.springframework.kafka.listener.AbstractConsumerSeekAware;
import org.springframework.kafka.listener.ConsumerAwareRebalanceListener;
import org.springframework.kafka.listener.ContainerProperties.AckMode;
import org.springframework.kafka.listener.DefaultErrorHandler;
import org.springframework.kafka.listener.MessageListenerContainer;
import org.springframework.kafka.support.Acknowledgment;
import org.springframework.kafka.support.SendResult;

/**
 * A member of a group by Spring Kafka: an application whose listener acknowledges by hand, when it is told to. See
 * tests/python/groups/member.py for what it is told and says. With the option "commits": "async" its container commits without
 * waiting, which is a setting of a container and not of one commit.
 */
public final class SpringMember {
    private static final long TIMEOUT_S = 60;

    /** The last record of a partition that the listener has got, and the way to acknowledge it. */
    private record Got(long offset, Acknowledgment acknowledgment) {}

    /** What the listener's thread leaves for the commands. */
    private static final Map<TopicPartition, Got> got = new ConcurrentHashMap<>();
    /** What commits that nobody waited for have said: offsets, or why they failed. */
    private static final LinkedBlockingQueue<Object> committed = new LinkedBlockingQueue<>();

    private static Line line;

    private final AnnotationConfigApplicationContext context = new AnnotationConfigApplicationContext();
    private final MessageListenerContainer container;

    /** The application. */
    @Configuration
    @EnableKafka
    static class Application {
        @Bean
        KafkaTemplate<String, String> template() {
            Map<String, Object> config = Map.of("bootstrap.servers", line.option("bootstrap"));
            return new KafkaTemplate<>(new DefaultKafkaProducerFactory<>(config, new StringSerializer(), new StringSerializer()));
        }

        @Bean
        KafkaAdmin admin() {
            return new KafkaAdmin(Map.of("bootstrap.servers", line.option("bootstrap")));
        }

        @Bean
        ConcurrentKafkaListenerContainerFactory<String, String> kafkaListenerContainerFactory() {
            var factory = new ConcurrentKafkaListenerContainerFactory<String, String>();
            factory.setConsumerFactory(new DefaultKafkaConsumerFactory<>(Member.config(line), new StringDeserializer(), new StringDeserializer()));
            factory.setCommonErrorHandler(new SayingErrorHandler());
            var properties = factory.getContainerProperties();
            properties.setAckMode(AckMode.MANUAL);
            properties.setPollTimeout(50); // how soon a command shows
            properties.setShutdownTimeout(TimeUnit.SECONDS.toMillis(TIMEOUT_S)); // it has left its group by then
            properties.setConsumerRebalanceListener(new Rebalances());
            if (line.options.has("commits")) {
                properties.setSyncCommits(false);
                properties.setCommitCallback((offsets, error) -> committed.add(error == null ? offsets : error));
            }
            return factory;
        }

        @Bean
        Listener listener() {
            return new Listener();
        }

        @EventListener
        void stopped(ConsumerStoppedEvent event) {
            if (event.getReason() != ConsumerStoppedEvent.Reason.NORMAL) {
                Line.fatal(event.getReason());
            }
        }
    }

    /** Two listeners, of which the one that is wanted is started. */
    static class Listener extends AbstractConsumerSeekAware {
        @KafkaListener(id = "topics", idIsGroup = false, topics = "#{'${topics}'.split(',')}", autoStartup = "false")
        void listen(ConsumerRecord<String, String> record, Acknowledgment acknowledgment) {
            TopicPartition partition = new TopicPartition(record.topic(), record.partition());
            got.put(partition, new Got(record.offset(), acknowledgment));
            say("records", "records", Line.JSON.createArrayNode().add(array(partition).add(record.offset()).add(record.value())));
        }

        @KafkaListener(id = "pattern", idIsGroup = false, topicPattern = "${pattern}", autoStartup = "false")
        void listenToPattern(ConsumerRecord<String, String> record, Acknowledgment acknowledgment) {
            listen(record, acknowledgment);
        }

        void seek(TopicPartition partition, long offset) {
            var callbacks = getSeekCallbacksFor(partition);
            if (callbacks == null || callbacks.isEmpty()) {
                throw new KafkaException(partition + " is not assigned");
            }
            callbacks.forEach(callback -> callback.seek(partition.topic(), partition.partition(), offset));
        }
    }

    /** Says what is assigned and revoked. */
    static class Rebalances implements ConsumerAwareRebalanceListener {
        private final Set<TopicPartition> held = new HashSet<>();

        @Override
        public void onPartitionsAssigned(Consumer<?, ?> consumer, Collection<TopicPartition> assigned) {
            held.addAll(assigned);
            say("assigned", "partitions", arrays(held));
        }

        @Override
        public void onPartitionsRevokedAfterCommit(Consumer<?, ?> consumer, Collection<TopicPartition> revoked) {
            say("revoked", "partitions", arrays(revoked));
            revoked.forEach(got::remove);
            if (held.removeAll(revoked)) {
                say("assigned", "partitions", arrays(held));
            }
        }

        @Override
        public void onPartitionsLost(Consumer<?, ?> consumer, Collection<TopicPartition> lost) {
            onPartitionsRevokedAfterCommit(consumer, lost);
        }
    }

    /** What a container's consumer runs into: the rest is Spring's to handle. */
    static class SayingErrorHandler extends DefaultErrorHandler {
        @Override
        public void handleOtherException(Exception error, Consumer<?, ?> consumer, MessageListenerContainer container, boolean isBatch) {
            if (error instanceof UnreleasedInstanceIdException || error instanceof FencedInstanceIdException) {
                Line.fatal(error);
            }
            super.handleOtherException(error, consumer, container, isBatch);
        }
    }

    private SpringMember() {
        Map<String, Object> properties = new HashMap<>(Map.of("topics", "unused", "pattern", "unused"));
        String listener = line.options.has("pattern") ? "pattern" : "topics";
        properties.put(listener, listener.equals("pattern") ? line.option("pattern") : String.join(",", line.topics()));
        context.getEnvironment().getPropertySources().addFirst(new MapPropertySource("member", properties));
        context.register(Application.class);
        context.refresh();
        container = context.getBean(KafkaListenerEndpointRegistry.class).getListenerContainer(listener);
        container.start();
    }

    public static void main(String[] arguments) throws Exception {
        line = new Line(arguments[0]);
        var member = new SpringMember();
        while (true) {
            JsonNode command = line.commands.take();
            if (command.get("do").asText().equals("close")) {
                member.container.stop();
                member.context.close();
                say(reply(command));
                return;
            }
            ObjectNode reply = reply(command);
            try {
                member.obey(command, reply);
            } catch (KafkaException | java.util.concurrent.ExecutionException | java.util.concurrent.TimeoutException e) {
                reply.put("error", e.toString());
            }
            say(reply);
        }
    }

    private void obey(JsonNode command, ObjectNode reply) throws Exception {
        switch (command.get("do").asText()) {
            case "produce" -> produce(command, reply);
            case "commit" -> {
                Map<TopicPartition, OffsetAndMetadata> wanted = acknowledge();
                // A container that waits for its commits tells nobody when: the broker does.
                try (Admin admin = admin()) {
                    await(() -> {
                        var found = admin.listConsumerGroupOffsets(line.option("group")).partitionsToOffsetAndMetadata().get();
                        found.keySet().retainAll(wanted.keySet());
                        reply.set("offsets", offsets(found));
                        return wanted.entrySet().stream().allMatch(e -> found.get(e.getKey()) != null && found.get(e.getKey()).offset() == e.getValue().offset());
                    });
                }
            }
            case "commit_async" -> {
                Map<TopicPartition, OffsetAndMetadata> wanted = acknowledge();
                Map<TopicPartition, OffsetAndMetadata> said = new HashMap<>();
                while (!said.keySet().containsAll(wanted.keySet())) {
                    Object one = committed.poll(TIMEOUT_S, TimeUnit.SECONDS);
                    if (!(one instanceof Map<?, ?> offsets)) {
                        throw new KafkaException("the callback said " + one);
                    }
                    offsets.forEach((partition, offset) -> said.put((TopicPartition) partition, (OffsetAndMetadata) offset));
                }
                reply.set("offsets", offsets(said));
            }
            case "pause" -> {
                partitions(command).forEach(container::pausePartition);
                await(() -> partitions(command).stream().allMatch(container::isPartitionPaused));
            }
            case "resume" -> {
                partitions(command).forEach(container::resumePartition);
                await(() -> partitions(command).stream().noneMatch(container::isPartitionPaused));
            }
            case "seek" -> context.getBean(Listener.class).seek(partition(command.get("partition")), command.get("offset").asLong());
            case "lag" -> {
                try (Admin admin = admin()) {
                    line.lag(admin, command, reply);
                }
            }
            default -> throw new IllegalArgumentException(command.toString());
        }
    }

    /** Acknowledges all that was read; the container commits it. */
    private static Map<TopicPartition, OffsetAndMetadata> acknowledge() {
        Map<TopicPartition, OffsetAndMetadata> offsets = new HashMap<>();
        Map.copyOf(got).forEach((partition, last) -> {
            last.acknowledgment().acknowledge();
            offsets.put(partition, new OffsetAndMetadata(last.offset() + 1));
        });
        return offsets;
    }

    private Admin admin() {
        return Admin.create(context.getBean(KafkaAdmin.class).getConfigurationProperties());
    }

    private interface Condition {
        boolean holds() throws Exception;
    }

    private static void await(Condition condition) throws Exception {
        long end = System.nanoTime() + TimeUnit.SECONDS.toNanos(TIMEOUT_S);
        while (!condition.holds()) {
            if (System.nanoTime() > end) {
                throw new KafkaException("it did not come to that");
            }
            Thread.sleep(20);
        }
    }

    @SuppressWarnings("unchecked")
    private void produce(JsonNode command, ObjectNode reply) throws Exception {
        KafkaTemplate<String, String> template = context.getBean(KafkaTemplate.class);
        ArrayNode delivered = Line.JSON.createArrayNode();
        List<CompletableFuture<SendResult<String, String>>> sent = new ArrayList<>();
        for (JsonNode value : command.get("values")) {
            int partition = sent.size() % command.get("partitions").asInt();
            sent.add(template.send(command.get("topic").asText(), partition, null, value.asText()).whenComplete((result, error) -> {
                if (error == null) {
                    var metadata = result.getRecordMetadata();
                    synchronized (delivered) {
                        delivered.add(array(new TopicPartition(metadata.topic(), metadata.partition())).add(metadata.offset()).add(value.asText()));
                    }
                }
            }));
        }
        CompletableFuture.allOf(sent.toArray(CompletableFuture[]::new)).get(TIMEOUT_S, TimeUnit.SECONDS);
        reply.set("delivered", delivered);
    }
}
