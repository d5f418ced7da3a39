// Pays with java.net.http: java Pay.java URL
import java.net.Authenticator;
import java.net.PasswordAuthentication;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;

class Pay {
    public static void main(String[] args) throws Exception {
        String key = System.getenv("KEY");
        String user = System.getenv("PROXY_USER");
        HttpClient.Builder builder = HttpClient.newBuilder();
        if (user != null) {
            String proxyKey = System.getenv("PROXY_KEY");
            builder.authenticator(new Authenticator() {
                @Override
                protected PasswordAuthentication getPasswordAuthentication() {
                    boolean proxy = getRequestorType() == RequestorType.PROXY;
                    return proxy ? new PasswordAuthentication(user, proxyKey.toCharArray()) : null;
                }
            });
        }
        HttpClient client = builder.build();
        HttpRequest.Builder asked = HttpRequest.newBuilder(URI.create(args[0]));
        if (key != null) {
            asked.header("Authorization", "Bearer " + key);
        }
        asked.header("Content-Type", "application/json");
        asked.POST(HttpRequest.BodyPublishers.ofString("{\"amount\": \"12.50\"}"));
        var answer = client.send(asked.build(), BodyHandlers.ofString());
        System.out.println(answer.statusCode() + " " + answer.body());
    }
}
