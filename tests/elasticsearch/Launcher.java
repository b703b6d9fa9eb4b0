import java.nio.file.Path;
import org.elasticsearch.common.logging.LogConfigurator;
import org.elasticsearch.common.settings.Settings;
import org.elasticsearch.env.Environment;
import org.elasticsearch.node.Node;

/** Runs one real Elasticsearch node in this JVM until SIGTERM: Launcher HOME PORT DATA [setting=value ...]. */
public final class Launcher {
    public static void main(String[] args) throws Exception {
        Path data = Path.of(args[2]).toAbsolutePath();
        Settings.Builder settings = Settings.builder()
            .put("path.home", Path.of(args[0]).toAbsolutePath())
            .put("path.data", data.resolve("data"))
            .put("path.logs", data.resolve("logs"))
            .put("cluster.name", "observer-tests")
            .put("node.name", "node")
            .put("discovery.type", "single-node")
            .put("network.host", "127.0.0.1")
            .put("http.port", args[1])
            .put("transport.port", 0)
            // A developer's disk is often nearly full; that is no reason to refuse a test's index.
            .put("cluster.routing.allocation.disk.threshold_enabled", false);
        for (int i = 3; i < args.length; i++) {
            String[] setting = args[i].split("=", 2);
            settings.put(setting[0], setting[1]);
        }
        LogConfigurator.setNodeName("node");
        LogConfigurator.configureWithoutConfig(Settings.builder().put("logger.level", "WARN").build());
        Node node = new Node(new Environment(settings.build(), data.resolve("config")));
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            try {
                node.close();
            } catch (Exception e) {
                e.printStackTrace();
            }
        }));
        node.start();
        Thread.currentThread().join();
    }
}
