import java.io.*;
import java.nio.charset.StandardCharsets;
import java.security.cert.*;
import java.util.*;
import java.util.regex.Pattern;
import javax.security.auth.x500.X500Principal;

/** Answers, in hex, a line for each line: what Java makes of a name, a certificate or a rule. */
public final class Oracle {
    public static void main(String[] args) throws Exception {
        var in = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
        var out = new PrintStream(new BufferedOutputStream(new FileOutputStream(FileDescriptor.out)), false, StandardCharsets.US_ASCII);
        for (String line; (line = in.readLine()) != null; ) {
            String[] f = line.split(" ", -1);
            String answer;
            switch (f[0]) {
                case "name":
                    answer = new X500Principal(HexFormat.of().parseHex(f[1])).getName();
                    break;
                case "certificate":
                    var der = new ByteArrayInputStream(HexFormat.of().parseHex(f[1]));
                    answer = ((X509Certificate) CertificateFactory.getInstance("X.509").generateCertificate(der))
                        .getSubjectX500Principal().getName();
                    break;
                case "rule": // pattern, replacement, case, name
                    String name = text(f[4]);
                    if (!Pattern.compile(text(f[1])).matcher(name).matches()) {
                        answer = "no match";
                        break;
                    }
                    answer = name.replaceAll(text(f[1]), text(f[2]));
                    if (f[3].equals("L")) answer = answer.toLowerCase(Locale.ENGLISH);
                    if (f[3].equals("U")) answer = answer.toUpperCase(Locale.ENGLISH);
                    break;
                default:
                    throw new IllegalArgumentException(line);
            }
            out.println(HexFormat.of().formatHex(answer.getBytes(StandardCharsets.UTF_8)));
        }
        out.flush();
    }

    private static String text(String hex) {
        return new String(HexFormat.of().parseHex(hex), StandardCharsets.UTF_8);
    }
}
