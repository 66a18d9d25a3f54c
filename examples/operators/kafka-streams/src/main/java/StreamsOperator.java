import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.CountDownLatch;
import org.apache.kafka.common.serialization.Serdes;
import org.apache.kafka.streams.KafkaStreams;
import org.apache.kafka.streams.StreamsBuilder;
import org.apache.kafka.streams.StreamsConfig;
import org.apache.kafka.streams.Topology;
import org.apache.kafka.streams.processor.api.ContextualFixedKeyProcessor;
import org.apache.kafka.streams.processor.api.FixedKeyRecord;

/** Copies each record, with the record's Kafka timestamp as timestamp_start. */
public final class StreamsOperator {

    /** Your own work would be done here too; key, headers and partition stay as they are. */
    static final class AddTimestampStart extends ContextualFixedKeyProcessor<byte[], byte[], byte[]> {
        private final ObjectMapper json = new ObjectMapper();

        @Override
        public void process(FixedKeyRecord<byte[], byte[]> record) {
            try {
                ObjectNode event = (ObjectNode) json.readTree(record.value());
                event.put("timestamp_start", record.timestamp());
                context().forward(record.withValue(json.writeValueAsBytes(event)));
            } catch (IOException error) {
                throw new UncheckedIOException(error);
            }
        }
    }

    static Topology topology(String input, String output) {
        StreamsBuilder builder = new StreamsBuilder();
        builder.<byte[], byte[]>stream(input).processValues(AddTimestampStart::new).to(output);
        return builder.build();
    }

    static Properties properties(String output, boolean exactlyOnce) {
        Properties properties = new Properties();
        properties.put(StreamsConfig.APPLICATION_ID_CONFIG, output + "-kafka-streams");
        properties.put(StreamsConfig.BOOTSTRAP_SERVERS_CONFIG, System.getenv("KAFKA_BROKERS"));
        properties.put(StreamsConfig.DEFAULT_KEY_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        properties.put(StreamsConfig.DEFAULT_VALUE_SERDE_CLASS_CONFIG, Serdes.ByteArraySerde.class);
        if (exactlyOnce) {
            properties.put(StreamsConfig.PROCESSING_GUARANTEE_CONFIG, StreamsConfig.EXACTLY_ONCE_V2);
        }
        return properties;
    }

    /** Runs until stopped: --input TOPIC --output TOPIC [--exactly-once], with KAFKA_BROKERS in the environment. */
    public static void main(String[] args) throws InterruptedException {
        List<String> arguments = List.of(args);
        String input = arguments.get(arguments.indexOf("--input") + 1);
        String output = arguments.get(arguments.indexOf("--output") + 1);
        Properties properties = properties(output, arguments.contains("--exactly-once"));
        KafkaStreams streams = new KafkaStreams(topology(input, output), properties);
        CountDownLatch ended = new CountDownLatch(1);
        streams.setStateListener((state, before) -> {
            if (state == KafkaStreams.State.RUNNING) {
                System.out.println("operator ready: " + input + " -> " + output);
            } else if (state.hasCompletedShutdown()) {
                ended.countDown();
            }
        });
        Runtime.getRuntime().addShutdownHook(new Thread(streams::close));
        streams.start();
        ended.await();
        System.exit(streams.state() == KafkaStreams.State.ERROR ? 1 : 0); // it would end with 0 after an error too
    }
}
