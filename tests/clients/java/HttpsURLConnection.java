// Pays with HttpsURLConnection: java Pay.java URL
import java.net.Authenticator;
import java.net.PasswordAuthentication;
import java.net.URL;
import java.nio.charset.StandardCharsets;
import javax.net.ssl.HttpsURLConnection;

class Pay {
    public static void main(String[] args) throws Exception {
        String key = System.getenv("KEY");
        String user = System.getenv("PROXY_USER");
        if (user != null) {
            String proxyKey = System.getenv("PROXY_KEY");
            Authenticator.setDefault(new Authenticator() {
                @Override
                protected PasswordAuthentication getPasswordAuthentication() {
                    boolean proxy = getRequestorType() == RequestorType.PROXY;
                    return proxy ? new PasswordAuthentication(user, proxyKey.toCharArray()) : null;
                }
            });
        }
        HttpsURLConnection call = (HttpsURLConnection) new URL(args[0]).openConnection();
        if (key != null) {
            call.setRequestProperty("Authorization", "Bearer " + key);
        }
        call.setRequestProperty("Content-Type", "application/json");
        call.setDoOutput(true);
        call.getOutputStream().write("{\"amount\": \"12.50\"}".getBytes(StandardCharsets.UTF_8));
        int status = call.getResponseCode();
        var answer = status < 400 ? call.getInputStream() : call.getErrorStream();
        System.out.println(status + " " + new String(answer.readAllBytes(), StandardCharsets.UTF_8));
    }
}
