package ringlog;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.Set;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** A member of a group by kafka-clients. See tests/python/groups/member.py for what it is told and says. */
public final class Member implements ConsumerRebalanceListener {
    private static final ObjectMapper JSON = new ObjectMapper();
    private static final Map<String, String> ASSIGNORS = Map.of(
            "range", RangeAssignor.class.getName(), "cooperative-sticky", CooperativeStickyAssignor.class.getName());

    private final JsonNode options;
    private final KafkaConsumer<String, String> consumer;
    private final Queue<JsonNode> commands = new ConcurrentLinkedQueue<>();
    private final Map<TopicPartition, OffsetAndMetadata> positions = new HashMap<>();
    private boolean isAssigned;
    private Set<TopicPartition> held;

    private Member(JsonNode options) {
        this.options = options;
        Map<String, Object> config = new HashMap<>(Map.of(
                "bootstrap.servers", options.get("bootstrap").asText(), "group.id", options.get("group").asText(),
                "group.protocol", options.get("protocol").asText(), "auto.offset.reset", "earliest", "enable.auto.commit", false,
                "metadata.max.age.ms", options.get("metadata_ms").asText()));
        if (options.get("protocol").asText().equals("classic")) {
            config.put("session.timeout.ms", options.get("session_ms").asText());
            config.put("heartbeat.interval.ms", options.get("heartbeat_ms").asText());
            config.put("partition.assignment.strategy", ASSIGNORS.get(options.get("strategy").asText()));
        }
        if (options.has("instance")) {
            config.put("group.instance.id", options.get("instance").asText());
        }
        consumer = new KafkaConsumer<>(config, new StringDeserializer(), new StringDeserializer());
        if (options.has("pattern")) {
            consumer.subscribe(Pattern.compile(options.get("pattern").asText()), this);
        } else {
            List<String> topics = JSON.convertValue(options.get("topics"), JSON.getTypeFactory().constructCollectionType(List.class, String.class));
            consumer.subscribe(topics, this);
        }
    }

    public static void main(String[] arguments) throws Exception {
        new Member(JSON.readTree(arguments[0])).run();
    }

    private synchronized void say(ObjectNode event) {
        System.out.println(event);
        System.out.flush();
    }

    private static ObjectNode event(String name) {
        return JSON.createObjectNode().put("event", name);
    }

    private static ObjectNode reply(JsonNode command) {
        ObjectNode reply = event("reply");
        reply.set("id", command.get("id"));
        return reply;
    }

    private static ArrayNode array(TopicPartition partition) {
        return JSON.createArrayNode().add(partition.topic()).add(partition.partition());
    }

    private static ArrayNode arrays(Collection<TopicPartition> partitions) {
        ArrayNode arrays = JSON.createArrayNode();
        partitions.forEach(p -> arrays.add(array(p)));
        return arrays;
    }

    private static ArrayNode offsets(Map<TopicPartition, OffsetAndMetadata> offsets) {
        ArrayNode arrays = JSON.createArrayNode();
        offsets.forEach((p, o) -> arrays.add(array(p).add(o.offset())));
        return arrays;
    }

    private static TopicPartition partition(JsonNode array) {
        return new TopicPartition(array.get(0).asText(), array.get(1).asInt());
    }

    private static List<TopicPartition> partitions(JsonNode command) {
        List<TopicPartition> all = new java.util.ArrayList<>();
        command.get("partitions").forEach(p -> all.add(partition(p)));
        return all;
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
        isAssigned = true;
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
        ObjectNode event = event("revoked");
        event.set("partitions", arrays(revoked));
        say(event);
        revoked.forEach(positions::remove);
    }

    private void read() {
        try (var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            for (String line; (line = in.readLine()) != null; ) {
                commands.add(JSON.readTree(line));
            }
        } catch (java.io.IOException e) {
            System.err.println(e);
        }
        commands.add(JSON.createObjectNode().put("id", 0).put("do", "close")); // the test is gone
    }

    private void run() throws Exception {
        Thread reader = new Thread(this::read);
        reader.setDaemon(true);
        reader.start();
        while (true) {
            var records = JSON.createArrayNode();
            try {
                for (var record : consumer.poll(Duration.ofMillis(50))) {
                    var partition = new TopicPartition(record.topic(), record.partition());
                    positions.put(partition, new OffsetAndMetadata(record.offset() + 1));
                    records.add(array(partition).add(record.offset()).add(record.value()));
                }
            } catch (KafkaException e) {
                say(event("fatal").put("error", e.toString()));
            }
            Set<TopicPartition> holds = Set.copyOf(consumer.assignment());
            if (isAssigned || (held != null && !holds.equals(held))) {
                isAssigned = false;
                held = holds;
                ObjectNode event = event("assigned");
                event.set("partitions", arrays(holds));
                say(event);
            }
            if (!records.isEmpty()) {
                ObjectNode event = event("records");
                event.set("records", records);
                say(event);
            }
            for (JsonNode command; (command = commands.poll()) != null; ) {
                if (command.get("do").asText().equals("close")) {
                    consumer.close();
                    say(reply(command));
                    return;
                }
                try {
                    obey(command);
                } catch (KafkaException | java.util.concurrent.ExecutionException e) {
                    say(reply(command).put("error", e.toString()));
                }
            }
        }
    }

    private void obey(JsonNode command) throws Exception {
        ObjectNode reply = reply(command);
        switch (command.get("do").asText()) {
            case "produce" -> produce(command, reply);
            case "commit" -> {
                Map<TopicPartition, OffsetAndMetadata> committed = Map.copyOf(positions);
                consumer.commitSync(committed);
                reply.set("offsets", offsets(consumer.committed(committed.keySet())));
            }
            case "commit_async" -> {
                consumer.commitAsync(Map.copyOf(positions), (committed, error) -> {
                    if (error == null) {
                        reply.set("offsets", offsets(committed));
                    } else {
                        reply.put("error", error.toString());
                    }
                    say(reply);
                });
                return;
            }
            case "pause" -> consumer.pause(partitions(command));
            case "resume" -> consumer.resume(partitions(command));
            case "seek" -> consumer.seek(partition(command.get("partition")), command.get("offset").asLong());
            case "lag" -> lag(command, reply);
            default -> throw new IllegalArgumentException(command.toString());
        }
        say(reply);
    }

    private void produce(JsonNode command, ObjectNode reply) {
        ArrayNode delivered = JSON.createArrayNode();
        Map<String, Object> config = Map.of("bootstrap.servers", options.get("bootstrap").asText());
        try (var producer = new KafkaProducer<>(config, new StringSerializer(), new StringSerializer())) {
            int number = 0;
            for (JsonNode value : command.get("values")) {
                int partition = number++ % command.get("partitions").asInt();
                var record = new ProducerRecord<String, String>(command.get("topic").asText(), partition, null, value.asText());
                producer.send(record, (metadata, error) -> {
                    synchronized (delivered) {
                        if (error == null) {
                            delivered.add(array(new TopicPartition(metadata.topic(), metadata.partition())).add(metadata.offset()).add(value.asText()));
                        } else {
                            reply.put("error", error.toString());
                        }
                    }
                });
            }
        }
        reply.set("delivered", delivered);
    }

    private void lag(JsonNode command, ObjectNode reply) throws Exception {
        List<TopicPartition> partitions = partitions(command);
        ArrayNode lag = JSON.createArrayNode();
        try (Admin admin = Admin.create(Map.of("bootstrap.servers", options.get("bootstrap").asText()))) {
            var committed = admin.listConsumerGroupOffsets(options.get("group").asText()).partitionsToOffsetAndMetadata().get();
            var ends = admin.listOffsets(partitions.stream().collect(Collectors.toMap(p -> p, p -> OffsetSpec.latest()))).all().get();
            partitions.forEach(p -> lag.add(array(p).add(ends.get(p).offset() - committed.get(p).offset())));
        }
        reply.set("lag", lag);
    }
}
