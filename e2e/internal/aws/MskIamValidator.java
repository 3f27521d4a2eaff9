package tollgate;

import java.io.Reader;
import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.time.Duration;
import java.time.Instant;
import java.time.LocalDateTime;
import java.time.ZoneOffset;
import java.time.format.DateTimeFormatter;
import java.util.Base64;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.Set;
import java.util.TreeMap;
import javax.crypto.Mac;
import javax.crypto.spec.SecretKeySpec;
import javax.security.auth.callback.Callback;
import javax.security.auth.login.AppConfigurationEntry;
import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerExtensionsValidatorCallback;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerToken;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallback;

/**
 * What a broker of Amazon MSK does with a token of OAUTHBEARER: it is a presigned request for kafka-cluster:Connect, whose
 * signature of AWS's version 4 must be that of a key in force. The keys are in a file that is read for every token:
 * KEYID.secret, KEYID.token (of a temporary key) and KEYID.principal.
 */
public class MskIamValidator implements AuthenticateCallbackHandler {
    private static final DateTimeFormatter AMZ = DateTimeFormatter.ofPattern("yyyyMMdd'T'HHmmss'Z'");
    private Map<String, ?> options = Map.of();

    @Override public void configure(Map<String, ?> configs, String mechanism, List<AppConfigurationEntry> jaas) {
        options = jaas.get(0).getOptions();
    }

    @Override public void close() { }

    @Override public void handle(Callback[] callbacks) {
        for (Callback c : callbacks) {
            if (c instanceof OAuthBearerValidatorCallback v) {
                try {
                    v.token(check(v.tokenValue()));
                } catch (Exception e) {
                    System.err.println("MskIamValidator: refused: " + e.getMessage());
                    v.error("invalid_token", null, null);
                }
            } else if (c instanceof OAuthBearerExtensionsValidatorCallback x) {
                x.inputExtensions().map().keySet().forEach(x::valid);
            }
        }
    }

    private OAuthBearerToken check(String token) throws Exception {
        String region = String.valueOf(options.get("region"));
        URI u = URI.create(new String(Base64.getUrlDecoder().decode(token), StandardCharsets.UTF_8));
        require("https".equals(u.getScheme()), "scheme");
        require(("kafka." + region + ".amazonaws.com").equals(u.getHost()), "host " + u.getHost());
        TreeMap<String, String> raw = new TreeMap<>(); // as they were sent, percent-encoded
        TreeMap<String, String> q = new TreeMap<>();
        for (String pair : u.getRawQuery().split("&")) {
            int i = pair.indexOf('=');
            String name = pair.substring(0, i), value = pair.substring(i + 1);
            require(raw.put(name, value) == null, "repeated " + name);
            q.put(URLDecoder.decode(name, StandardCharsets.UTF_8), URLDecoder.decode(value.replace("+", "%2B"), StandardCharsets.UTF_8));
        }
        require("kafka-cluster:Connect".equals(q.get("Action")), "action");
        require("AWS4-HMAC-SHA256".equals(q.get("X-Amz-Algorithm")), "algorithm");
        require("host".equals(q.get("X-Amz-SignedHeaders")), "signed headers");
        Instant begin = LocalDateTime.parse(q.get("X-Amz-Date"), AMZ).toInstant(ZoneOffset.UTC), now = Instant.now();
        long seconds = Long.parseLong(q.get("X-Amz-Expires"));
        require(seconds >= 1 && seconds <= 900, "lifetime of " + seconds + " s");
        require(!begin.isAfter(now.plus(Duration.ofMinutes(5))), "signed in the future");
        Instant end = begin.plusSeconds(seconds);
        require(now.isBefore(end), "expired");
        String[] scope = q.get("X-Amz-Credential").split("/"); // key, date, region, service, aws4_request
        require(scope.length == 5 && q.get("X-Amz-Date").startsWith(scope[1]) && scope[2].equals(region)
            && scope[3].equals("kafka-cluster") && scope[4].equals("aws4_request"), "scope " + String.join("/", scope));

        Properties keys = new Properties();
        try (Reader r = Files.newBufferedReader(Path.of(String.valueOf(options.get("keys"))))) {
            keys.load(r);
        }
        String secret = keys.getProperty(scope[0] + ".secret"), session = keys.getProperty(scope[0] + ".token");
        require(secret != null, "unknown key " + scope[0]);
        require(session == null ? !q.containsKey("X-Amz-Security-Token") : session.equals(q.get("X-Amz-Security-Token")), "session token");

        raw.remove("X-Amz-Signature");
        raw.remove("User-Agent"); // the signers add it afterwards
        StringBuilder query = new StringBuilder();
        raw.forEach((name, value) -> query.append(query.length() == 0 ? "" : "&").append(name).append('=').append(value));
        String path = u.getRawPath().isEmpty() ? "/" : u.getRawPath();
        String request = "GET\n" + path + "\n" + query + "\nhost:" + u.getHost() + "\n\nhost\n" + hex(sha(""));
        String text = "AWS4-HMAC-SHA256\n" + q.get("X-Amz-Date") + "\n"
            + String.join("/", scope[1], region, scope[3], scope[4]) + "\n" + hex(sha(request));
        byte[] key = ("AWS4" + secret).getBytes(StandardCharsets.UTF_8);
        for (String part : List.of(scope[1], region, scope[3], scope[4])) {
            key = mac(key, part);
        }
        require(MessageDigest.isEqual(hex(mac(key, text)).getBytes(), q.get("X-Amz-Signature").getBytes()), "signature of " + scope[0]);

        String principal = keys.getProperty(scope[0] + ".principal", scope[0]);
        return new OAuthBearerToken() {
            @Override public String value() { return token; }
            @Override public Set<String> scope() { return Set.of(); }
            @Override public long lifetimeMs() { return end.toEpochMilli(); }
            @Override public String principalName() { return principal; }
            @Override public Long startTimeMs() { return begin.toEpochMilli(); }
        };
    }

    private static void require(boolean ok, String what) {
        if (!ok) throw new IllegalArgumentException(what);
    }

    private static byte[] sha(String s) throws Exception {
        return MessageDigest.getInstance("SHA-256").digest(s.getBytes(StandardCharsets.UTF_8));
    }

    private static byte[] mac(byte[] key, String s) throws Exception {
        Mac m = Mac.getInstance("HmacSHA256");
        m.init(new SecretKeySpec(key, "HmacSHA256"));
        return m.doFinal(s.getBytes(StandardCharsets.UTF_8));
    }

    private static String hex(byte[] b) { return HexFormat.of().formatHex(b); }
}
