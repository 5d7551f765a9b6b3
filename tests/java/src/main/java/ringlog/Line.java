package ringlog;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.InputStreamReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Collection;
import java.util.List;
import java.util.Map;
import java.util.concurrent.BlockingQueue;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.LinkedBlockingQueue;
import java.util.stream.Collectors;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.common.TopicPartition;

/** What the Java members share: their options, commands from stdin, events to stdout. See tests/python/groups/member.py for what is said. */
final class Line {
    static final ObjectMapper JSON = new ObjectMapper();

    final JsonNode options;
    final BlockingQueue<JsonNode> commands = new LinkedBlockingQueue<>();

    Line(String options) throws IOException {
        this.options = JSON.readTree(options);
        Thread reader = new Thread(this::read);
        reader.setDaemon(true);
        reader.start();
    }

    private void read() {
        try (var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8))) {
            for (String line; (line = in.readLine()) != null; ) {
                commands.add(JSON.readTree(line));
            }
        } catch (IOException e) {
            System.err.println(e);
        }
        commands.add(JSON.createObjectNode().put("id", 0).put("do", "close")); // the test is gone
    }

    String option(String name) {
        return options.get(name).asText();
    }

    List<String> topics() {
        return JSON.convertValue(options.get("topics"), JSON.getTypeFactory().constructCollectionType(List.class, String.class));
    }

    static synchronized void say(ObjectNode event) {
        System.out.println(event);
        System.out.flush();
    }

    static void say(String event, String field, JsonNode value) {
        ObjectNode said = event(event);
        said.set(field, value);
        say(said);
    }

    static void fatal(Object error) {
        say(event("fatal").put("error", error.toString()));
    }

    private static ObjectNode event(String name) {
        return JSON.createObjectNode().put("event", name);
    }

    static ObjectNode reply(JsonNode command) {
        ObjectNode reply = event("reply");
        reply.set("id", command.get("id"));
        return reply;
    }

    static ArrayNode array(TopicPartition partition) {
        return JSON.createArrayNode().add(partition.topic()).add(partition.partition());
    }

    static ArrayNode arrays(Collection<TopicPartition> partitions) {
        ArrayNode arrays = JSON.createArrayNode();
        partitions.forEach(p -> arrays.add(array(p)));
        return arrays;
    }

    static ArrayNode offsets(Map<TopicPartition, OffsetAndMetadata> offsets) {
        ArrayNode arrays = JSON.createArrayNode();
        offsets.forEach((p, o) -> arrays.add(array(p).add(o.offset())));
        return arrays;
    }

    static TopicPartition partition(JsonNode array) {
        return new TopicPartition(array.get(0).asText(), array.get(1).asInt());
    }

    static List<TopicPartition> partitions(JsonNode command) {
        List<TopicPartition> all = new ArrayList<>();
        command.get("partitions").forEach(p -> all.add(partition(p)));
        return all;
    }

    /** How far the group is behind, by the admin client. */
    void lag(Admin admin, JsonNode command, ObjectNode reply) throws ExecutionException, InterruptedException {
        List<TopicPartition> partitions = partitions(command);
        ArrayNode lag = JSON.createArrayNode();
        var committed = admin.listConsumerGroupOffsets(option("group")).partitionsToOffsetAndMetadata().get();
        var ends = admin.listOffsets(partitions.stream().collect(Collectors.toMap(p -> p, p -> OffsetSpec.latest()))).all().get();
        partitions.forEach(p -> lag.add(array(p).add(ends.get(p).offset() - committed.get(p).offset())));
        reply.set("lag", lag);
    }
}
