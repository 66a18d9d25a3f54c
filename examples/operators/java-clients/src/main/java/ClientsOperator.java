import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.Producer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.WakeupException;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Copies each record, with the record's Kafka timestamp as timestamp_start. An error ends it; started again it goes on. */
public final class ClientsOperator {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** The result of a record; your own work would be done here too. It has no timestamp, so the producer sets "now". */
    static ProducerRecord<byte[], byte[]> result(String output, ConsumerRecord<byte[], byte[]> record)
            throws IOException {
        ObjectNode event = (ObjectNode) JSON.readTree(record.value());
        event.put("timestamp_start", record.timestamp());
        return new ProducerRecord<>(output, null, record.key(), JSON.writeValueAsBytes(event), record.headers());
    }

    /** What both clients need to reach the cluster: credentials would be added here. */
    static Map<String, Object> connection() {
        return new HashMap<>(Map.of("bootstrap.servers", System.getenv("KAFKA_BROKERS")));
    }

    static Map<String, Object> consumerProperties(String group) {
        Map<String, Object> properties = connection();
        properties.putAll(Map.of(
                "group.id", group,
                "auto.offset.reset", "earliest",
                "allow.auto.create.topics", false,
                "enable.auto.commit", false,
                "isolation.level", "read_committed",
                "key.deserializer", ByteArrayDeserializer.class,
                "value.deserializer", ByteArrayDeserializer.class));
        return properties;
    }

    static KafkaProducer<byte[], byte[]> producer(String output, boolean exactlyOnce) {
        Map<String, Object> properties = connection();
        properties.putAll(Map.of(
                "key.serializer", ByteArraySerializer.class,
                "value.serializer", ByteArraySerializer.class));
        if (exactlyOnce) {
            properties.put("transactional.id", output + "-java-clients");
        }
        KafkaProducer<byte[], byte[]> producer = new KafkaProducer<>(properties);
        if (exactlyOnce) {
            producer.initTransactions();
        }
        return producer;
    }

    /** Runs until stopped: --input TOPIC --output TOPIC [--exactly-once], with KAFKA_BROKERS in the environment. */
    public static void main(String[] args) throws IOException, ExecutionException, InterruptedException {
        List<String> arguments = List.of(args);
        String input = arguments.get(arguments.indexOf("--input") + 1);
        String output = arguments.get(arguments.indexOf("--output") + 1);
        boolean exactlyOnce = arguments.contains("--exactly-once");
        KafkaConsumer<byte[], byte[]> consumer = new KafkaConsumer<>(consumerProperties(output + "-java-clients"));
        endInOrder(consumer);
        try (consumer; Producer<byte[], byte[]> producer = producer(output, exactlyOnce)) {
            consumer.subscribe(List.of(input), new SayReady(input + " -> " + output));
            while (true) {
                ConsumerRecords<byte[], byte[]> records = consumer.poll(Duration.ofSeconds(1));
                if (!records.isEmpty()) {
                    copy(records, consumer, producer, output, exactlyOnce);
                }
            }
        } catch (WakeupException stopped) {
            System.out.println("operator stopped");
        }
    }

    /** Lets SIGTERM end this thread's loop, and waits until both clients are closed: Java halts after its hooks. */
    private static void endInOrder(KafkaConsumer<?, ?> consumer) {
        Thread main = Thread.currentThread();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            consumer.wakeup();
            try {
                main.join();
            } catch (InterruptedException interrupted) {
                Thread.currentThread().interrupt();
            }
        }));
    }

    /** Says once per assignment that records are read from now on. */
    private record SayReady(String topics) implements ConsumerRebalanceListener {
        @Override
        public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
            System.out.println("operator ready: " + topics);
        }

        @Override
        public void onPartitionsRevoked(Collection<TopicPartition> partitions) { }
    }

    private static void copy(
            ConsumerRecords<byte[], byte[]> records,
            KafkaConsumer<byte[], byte[]> consumer,
            Producer<byte[], byte[]> producer,
            String output,
            boolean exactlyOnce)
            throws IOException, ExecutionException, InterruptedException {
        if (exactlyOnce) {
            producer.beginTransaction();
        }
        List<Future<RecordMetadata>> sent = new ArrayList<>();
        for (ConsumerRecord<byte[], byte[]> record : records) {
            sent.add(producer.send(result(output, record)));
        }
        if (exactlyOnce) {
            producer.sendOffsetsToTransaction(records.nextOffsets(), consumer.groupMetadata());
            producer.commitTransaction();
        } else {
            producer.flush();
            for (Future<RecordMetadata> one : sent) {
                one.get(); // flush() waits, but tells of no failure
            }
            consumer.commitSync(records.nextOffsets());
        }
    }
}
