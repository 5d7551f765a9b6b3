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
import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.Map;
import java.util.Set;
import java.util.regex.Pattern;
import org.apache.kafka.clients.admin.Admin;
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
    private static final Map<String, String> ASSIGNORS = Map.of(
            "range", RangeAssignor.class.getName(), "cooperative-sticky", CooperativeStickyAssignor.class.getName());

    private final Line line;
    private final KafkaConsumer<String, String> consumer;
    private final Map<TopicPartition, OffsetAndMetadata> positions = new HashMap<>();
    private boolean isAssigned;
    /** Polled again, one that was fenced would join anew, and fence the other; an application ends here. */
    private boolean hasFailed;
    private Set<TopicPartition> held;

    private Member(Line line) {
        this.line = line;
        consumer = new KafkaConsumer<>(config(line), new StringDeserializer(), new StringDeserializer());
        if (line.options.has("pattern")) {
            consumer.subscribe(Pattern.compile(line.option("pattern")), this);
        } else {
            consumer.subscribe(line.topics(), this);
        }
    }

    /** A consumer's settings, from the member's options. */
    static Map<String, Object> config(Line line) {
        Map<String, Object> config = new HashMap<>(Map.of(
                "bootstrap.servers", line.option("bootstrap"), "group.id", line.option("group"), "group.protocol", line.option("protocol"),
                "auto.offset.reset", "earliest", "enable.auto.commit", false, "metadata.max.age.ms", line.option("metadata_ms")));
        if (line.option("protocol").equals("classic")) {
            config.put("session.timeout.ms", line.option("session_ms"));
            config.put("heartbeat.interval.ms", line.option("heartbeat_ms"));
            config.put("partition.assignment.strategy", ASSIGNORS.get(line.option("strategy")));
        }
        if (line.options.has("instance")) {
            config.put("group.instance.id", line.option("instance"));
        }
        return config;
    }

    public static void main(String[] arguments) throws Exception {
        new Member(new Line(arguments[0])).run();
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> assigned) {
        isAssigned = true;
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> revoked) {
        say("revoked", "partitions", arrays(revoked));
        revoked.forEach(positions::remove);
    }

    private void run() throws Exception {
        while (true) {
            var records = Line.JSON.createArrayNode();
            if (hasFailed) {
                Thread.sleep(50);
            } else {
                try {
                    for (var record : consumer.poll(Duration.ofMillis(50))) {
                        var partition = new TopicPartition(record.topic(), record.partition());
                        positions.put(partition, new OffsetAndMetadata(record.offset() + 1));
                        records.add(array(partition).add(record.offset()).add(record.value()));
                    }
                } catch (KafkaException e) {
                    Line.fatal(e);
                    hasFailed = true;
                }
            }
            Set<TopicPartition> holds = Set.copyOf(consumer.assignment());
            if (isAssigned || (held != null && !holds.equals(held))) {
                isAssigned = false;
                held = holds;
                say("assigned", "partitions", arrays(holds));
            }
            if (!records.isEmpty()) {
                say("records", "records", records);
            }
            for (JsonNode command; (command = line.commands.poll()) != null; ) {
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
            case "lag" -> {
                try (Admin admin = Admin.create(Map.of("bootstrap.servers", line.option("bootstrap")))) {
                    line.lag(admin, command, reply);
                }
            }
            default -> throw new IllegalArgumentException(command.toString());
        }
        say(reply);
    }

    private void produce(JsonNode command, ObjectNode reply) {
        ArrayNode delivered = Line.JSON.createArrayNode();
        Map<String, Object> config = Map.of("bootstrap.servers", line.option("bootstrap"));
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
}
