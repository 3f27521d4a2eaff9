import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.lang.reflect.InvocationTargetException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

/** Runs the main methods of Kafka's tools one after another, which saves the start of a JVM for each. */
public class Tools {
    /** What a tool throws instead of exiting. */
    static class Exited extends RuntimeException { }

    /** The first exit counts: some tools catch what is thrown for it, and exit once more. */
    static Integer code;

    static void exit(int asked) {
        if (code == null) {
            code = asked;
        }
        throw new Exited();
    }

    public static void main(String[] args) throws Exception {
        ObjectMapper json = new ObjectMapper();
        JsonNode runs = json.readTree(System.in);
        Exit.setExitProcedure((asked, message) -> exit(asked));
        Exit.setHaltProcedure((asked, message) -> exit(asked));
        List<Runnable> hooks = new ArrayList<>();
        Exit.setShutdownHookAdder((name, hook) -> hooks.add(hook));
        PrintStream real = System.out;
        // One stream for all runs: Scala's Console keeps the one it finds first.
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        ByteArrayOutputStream err = new ByteArrayOutputStream();
        System.setOut(new PrintStream(out, true));
        System.setErr(new PrintStream(err, true));
        for (JsonNode run : runs) {
            out.reset();
            err.reset();
            System.setIn(new ByteArrayInputStream(run.path("stdin").asText().getBytes(StandardCharsets.UTF_8)));
            List<String> line = new ArrayList<>();
            run.get("args").forEach(a -> line.add(a.asText()));
            long began = System.nanoTime();
            code = null;
            hooks.clear();
            try {
                Class.forName(run.get("class").asText()).getMethod("main", String[].class).invoke(null, (Object) line.toArray(new String[0]));
            } catch (InvocationTargetException e) {
                if (code == null) {
                    e.getCause().printStackTrace();
                    code = 1;
                }
            }
            hooks.forEach(Runnable::run);
            real.println(json.writeValueAsString(json.createObjectNode()
                .put("stdout", out.toString()).put("stderr", err.toString()).put("code", code == null ? 0 : code).put("nanos", System.nanoTime() - began)));
        }
        real.flush();
        Runtime.getRuntime().halt(0);
    }
}
