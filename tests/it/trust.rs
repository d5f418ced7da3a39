//! The interception CA as strict verifiers see it, and the commands around it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;

use countersign::base::time::{Clock, Now};
use countersign::tls::mint::{Constraints, Facts, KeyKind, Mint, MintAuthority, NameConstraint};
use countersign::tls::trust_store::{Wrapping, pem, trust_store};
use rustix::process::{Pid, Signal, kill_process};
use secrecy::ExposeSecret;
use tempfile::TempDir;

/// A config with a forward listener that nobody could start here: its secrets are missing.
const CONFIG: &str = r#"
[[listener]]
name = "egress"
mode = "forward"
bind = "127.0.0.1:PORT"
intercept = { ca_cert = "pki/ca.crt", ca_key = "pki/ca.key" }

[provider.scb]
profile = "scb"
environment = "sandbox"
application_key = { env = "SURELY_NOT_SET" }
application_secret = { file = "/surely/not/there" }

[provider.local]
profile = "oauth2"
base_url = "https://localhost:8443"

[[route]]
provider = "scb"

[[route]]
provider = "local"
path = "/local"

[client.erp]
key_sha256 = ["8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258"]
"#;

/// Variables that the commands heed.
const FORMER: [&str; 11] = [
    "AWS_CA_BUNDLE",
    "COUNTERSIGN_KEY",
    "CURL_CA_BUNDLE",
    "GIT_SSL_CAINFO",
    "JAVA_TOOL_OPTIONS",
    "NODE_EXTRA_CA_CERTS",
    "NO_PROXY",
    "REQUESTS_CA_BUNDLE",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "no_proxy",
];

/// A folder with that config, whose forward listener is a bare socket.
struct Place {
    folder: TempDir,
    _listener: TcpListener,
    port: u16,
}

impl Place {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
        let port = listener.local_addr().expect("an address").port();
        let folder = TempDir::new().expect("a folder");
        fs::create_dir(folder.path().join("tmp")).expect("a folder");
        fs::write(folder.path().join("proxy.toml"), CONFIG.replace("PORT", &port.to_string())).expect("written");
        Self { folder, _listener: listener, port }
    }

    fn with_ca() -> Self {
        let place = Self::new();
        let made = place.run(&["ca", "new"]);
        assert!(made.status.success(), "{}", err(&made));
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
        command.args(arguments).current_dir(self.folder.path());
        command.env("TMPDIR", self.path("tmp")).stdin(Stdio::null());
        // Whatever this machine trusts, and however it is told.
        for name in FORMER {
            command.env_remove(name);
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().expect("it runs")
    }

    fn leftovers(&self) -> usize {
        fs::read_dir(self.path("tmp")).expect("readable").count()
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--help").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
}

/// A CA and a leaf of it, as PEM files; ours are `kind`, permitted for `bank.example` and 127.0.0.1.
fn minted(kind: KeyKind, host: &str, folder: &Path) -> (PathBuf, PathBuf, PathBuf) {
    let now = Clock::System.now();
    let permits = ["bank.example", "127.0.0.1"].map(|text| NameConstraint::parse(text).expect(text));
    let constraints = Constraints::only(&permits).expect("something");
    let (authority, ca, _) = MintAuthority::new(kind, &constraints, now, 1).expect("a CA");
    let mint = Mint::new(authority).expect("a mint");
    let leaf = mint.certified(host, now).expect("a leaf");
    let files = (folder.join("ca.pem"), folder.join("leaf.pem"), folder.join("chain.pem"));
    fs::write(&files.0, ca).expect("written");
    fs::write(&files.1, pem(&leaf.cert[..1])).expect("written");
    fs::write(&files.2, pem(&leaf.cert)).expect("written");
    files
}

#[test]
fn openssl_accepts_a_minted_leaf_in_its_strict_mode() {
    assert!(has("openssl"), "this test needs the openssl command");
    for kind in [KeyKind::EcdsaP256, KeyKind::Rsa2048] {
        for (host, flag) in [("api.bank.example", "-verify_hostname"), ("127.0.0.1", "-verify_ip")] {
            let folder = TempDir::new().expect("a folder");
            let (ca, leaf, _) = minted(kind, host, folder.path());
            let verified = |name: &str| {
                let mut openssl = Command::new("openssl");
                openssl.args(["verify", "-x509_strict", "-purpose", "sslserver", flag, name, "-CAfile"]);
                openssl.arg(&ca).arg(&leaf).output().expect("it runs")
            };
            let output = verified(host);
            assert!(output.status.success(), "{kind:?} {host}: {}{}", out(&output), err(&output));
            let other = if flag == "-verify_ip" { "127.0.0.2" } else { "other.bank.example" };
            assert!(!verified(other).status.success(), "the name is looked at");
        }
    }
}

/// Every Python at hand: the one on the path, and those that pyenv has.
fn pythons() -> Vec<PathBuf> {
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let versions = fs::read_dir(home.join(".pyenv/versions")).into_iter().flatten().flatten();
    let versions = versions.map(|version| version.path().join("bin/python3"));
    versions.chain([PathBuf::from("python3")]).filter(|path| path.exists() || path.as_os_str() == "python3").collect()
}

/// Serves one handshake after another with the mint's leaf, `count` times.
fn serve(mint: &Mint, host: &str, now: Now, count: usize) -> u16 {
    let certified = (*mint.certified(host, now).expect("a leaf")).clone();
    let config = rustls::ServerConfig::builder_with_provider(countersign::tls::provider())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(rustls::sign::SingleCertAndKey::from(certified)));
    let config = Arc::new(config);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let port = listener.local_addr().expect("an address").port();
    std::thread::spawn(move || {
        for _ in 0..count {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut server = rustls::ServerConnection::new(Arc::clone(&config)).expect("a server");
            let mut tls = rustls::Stream::new(&mut server, &mut stream);
            // A client that refuses us hangs up; that it did is its own to tell.
            if tls.read(&mut [0; 1024]).is_ok_and(|read| read > 0) {
                let _ = tls.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\nconnection: close\r\n\r\nverified");
                server.send_close_notify();
                let _ = server.write_tls(&mut stream);
            }
        }
    });
    port
}

/// Connects as the default context does from Python 3.13 on.
const STRICT: &str = "
import socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[1])
context.verify_flags |= ssl.VERIFY_X509_STRICT
stream = socket.create_connection(('127.0.0.1', int(sys.argv[2])))
print('verified', context.wrap_socket(stream, server_hostname='api.bank.example').version())
";

#[test]
fn python_accepts_a_minted_leaf_with_strict_flags() {
    let now = Clock::System.now();
    let pythons = pythons();
    for kind in [KeyKind::EcdsaP256, KeyKind::Rsa2048] {
        let folder = TempDir::new().expect("a folder");
        let permits = [NameConstraint::parse("bank.example").expect("a domain")];
        let constraints = Constraints::only(&permits).expect("something");
        let (authority, ca, _) = MintAuthority::new(kind, &constraints, now, 1).expect("a CA");
        let file = folder.path().join("ca.pem");
        fs::write(&file, ca).expect("written");
        let port = serve(&Mint::new(authority).expect("a mint"), "api.bank.example", now, pythons.len());
        for python in &pythons {
            let mut command = Command::new(python);
            let output = command.args(["-c", STRICT]).arg(&file).arg(port.to_string()).output().expect("python3 runs");
            assert!(out(&output).starts_with("verified"), "{} {kind:?}: {}", python.display(), err(&output));
        }
    }
}

/// Java, with the store that `exec` would give it.
const JAVA: &str = r#"
import java.net.*; import javax.net.ssl.*;
public class Client {
    public static void main(String[] a) throws Exception {
        SSLSocketFactory factory = (SSLSocketFactory) SSLSocketFactory.getDefault();
        Socket plain = new Socket("127.0.0.1", Integer.parseInt(a[0]));
        SSLSocket tls = (SSLSocket) factory.createSocket(plain, "api.bank.example", 443, true);
        SSLParameters strict = tls.getSSLParameters();
        strict.setEndpointIdentificationAlgorithm("HTTPS");
        tls.setSSLParameters(strict);
        tls.getOutputStream().write("GET / HTTP/1.1\r\n\r\n".getBytes());
        System.out.println(new String(tls.getInputStream().readAllBytes()));
    }
}"#;

/// Node, with nothing but the variable that `exec` sets.
const NODE: &str = "
const options = { host: '127.0.0.1', port: process.argv[1], servername: 'api.bank.example' };
const tls = require('tls').connect(options, () => tls.write('GET / HTTP/1.1\\r\\n\\r\\n'));
tls.pipe(process.stdout);
";

#[test]
fn curl_node_and_java_accept_a_minted_leaf() {
    let now = Clock::System.now();
    for kind in [KeyKind::EcdsaP256, KeyKind::Rsa2048] {
        let folder = TempDir::new().expect("a folder");
        let path = |name: &str| folder.path().join(name);
        let permits = [NameConstraint::parse("bank.example").expect("a domain")];
        let constraints = Constraints::only(&permits).expect("something");
        let (authority, ca, _) = MintAuthority::new(kind, &constraints, now, 1).expect("a CA");
        fs::write(path("ca.pem"), ca).expect("written");
        fs::write(path("Client.java"), JAVA).expect("written");
        let store = trust_store(&authority.chain()[0], &[], Wrapping::TripleDes).expect("a store");
        fs::write(path("store.p12"), store).expect("written");
        let tools: Vec<&str> = ["curl", "node", "java"].into_iter().filter(|tool| has(tool)).collect();
        assert!(tools.contains(&"curl"), "this test needs curl at least");
        let port = serve(&Mint::new(authority).expect("a mint"), "api.bank.example", now, tools.len()).to_string();
        for tool in tools {
            let mut command = Command::new(tool);
            match tool {
                "curl" => {
                    command.args(["-sS", "--noproxy", "*", "--cacert"]).arg(path("ca.pem"));
                    command.args(["--resolve", &format!("api.bank.example:{port}:127.0.0.1")]);
                    command.arg(format!("https://api.bank.example:{port}/"));
                }
                "node" => {
                    command.env("NODE_EXTRA_CA_CERTS", path("ca.pem")).args(["-e", NODE, &port]);
                }
                _ => {
                    command.arg(format!("-Djavax.net.ssl.trustStore={}", path("store.p12").display()));
                    command
                        .args(["-Djavax.net.ssl.trustStoreType=PKCS12", "-Djavax.net.ssl.trustStorePassword=changeit"]);
                    command.arg(path("Client.java")).arg(&port);
                }
            }
            let output = command.output().expect("it runs");
            assert!(out(&output).contains("verified"), "{tool} {kind:?}: {}{}", out(&output), err(&output));
        }
    }
}

#[test]
fn openssl_refuses_what_a_constrained_ca_may_not_vouch_for() {
    // The mint refuses by itself, so a thief's tool signs here: openssl, with the stolen key.
    let folder = TempDir::new().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    let permits = [NameConstraint::parse("bank.example").expect("a domain")];
    let constraints = Constraints::only(&permits).expect("something");
    let now = Clock::System.now();
    let (_, ca, key) = MintAuthority::new(KeyKind::EcdsaP256, &constraints, now, 1).expect("a CA");
    fs::write(path("ca.pem"), ca).expect("written");
    fs::write(path("ca.key"), key.expose_secret()).expect("written");
    for (name, accepted) in [("DNS:x.bank.example", true), ("DNS:evil.example", false), ("IP:127.0.0.1", false)] {
        fs::write(path("ext"), format!("subjectAltName={name}\n")).expect("written");
        let script = "openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout leaf.key -subj /CN=leaf \
                      -out leaf.csr 2>/dev/null && openssl x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -days 1 \
                      -extfile ext -out leaf.pem 2>/dev/null && openssl verify -CAfile ca.pem leaf.pem";
        let mut shell = Command::new("sh");
        let output = shell.args(["-c", script]).current_dir(folder.path()).output().expect("it runs");
        assert_eq!(output.status.success(), accepted, "{name}: {}{}", out(&output), err(&output));
        assert!(path("leaf.pem").exists(), "the thief did sign");
        fs::remove_file(path("leaf.pem")).expect("removed");
    }
}

#[test]
fn a_ca_is_loaded_as_it_was_written_and_strangers_are_refused() {
    let now = Now::at(0, 1_790_000_000_000);
    let permits = [NameConstraint::parse("bank.example").expect("a domain")];
    let constraints = Constraints::only(&permits).expect("something");
    let (made, cert, key) = MintAuthority::new(KeyKind::EcdsaP256, &constraints, now, 2).expect("a CA");
    let loaded = MintAuthority::from_pem(cert.as_bytes(), key.expose_secret().as_bytes()).expect("the same CA");
    assert_eq!(loaded.constraints(), &constraints);
    assert_eq!(loaded.validity(), made.validity());
    assert!(loaded.permits("API.bank.example.") && !loaded.permits("10.0.0.1"));
    let facts = Facts::read(cert.as_bytes()).expect("facts");
    assert_eq!((facts.days_left(now), facts.constraints), (729, constraints));
    assert!(
        facts.subject.contains("countersign CA 2026-09-21 ") && facts.key == "ECDSA, 256 bits",
        "{}",
        facts.subject
    );

    let (_, _, other) = MintAuthority::new(KeyKind::EcdsaP256, &Constraints::NONE, now, 2).expect("a CA");
    let leaf = Mint::new(made).expect("a mint").certified("bank.example", now).expect("a leaf");
    let leaf = pem(&leaf.cert[..1]);
    for (cert, key, why) in [
        (cert.as_str(), other.expose_secret(), "does not belong"),
        (leaf.as_str(), key.expose_secret(), "not of a CA"),
        ("", key.expose_secret(), "no certificate"),
        (cert.as_str(), "", "no private key"),
    ] {
        let error = MintAuthority::from_pem(cert.as_bytes(), key.as_bytes()).expect_err(why).to_string();
        assert!(error.contains(why), "{error}");
    }
}

#[test]
fn a_new_ca_is_bound_to_the_routed_hosts_and_overwrites_nothing() {
    let place = Place::new();
    let made = place.run(&["ca", "new"]);
    assert!(made.status.success(), "{}", err(&made));
    assert!(!out(&made).contains("PRIVATE"), "the key is not shown");
    let mode = |name: &str| fs::metadata(place.path(name)).expect(name).permissions().mode() & 0o777;
    assert_eq!(mode("pki/ca.key"), 0o600);
    let key = fs::read_to_string(place.path("pki/ca.key")).expect("the key");
    let again = place.run(&["ca", "new"]);
    assert_eq!(again.status.code(), Some(2));
    assert!(err(&again).contains("exists and is not overwritten"), "{}", err(&again));
    assert_eq!(fs::read_to_string(place.path("pki/ca.key")).expect("the key"), key);

    let shown = place.run(&["ca", "show", "--json"]);
    let shown: serde_json::Value = serde_json::from_str(&out(&shown)).expect("JSON");
    assert_eq!(shown["permitted"], serde_json::json!(["localhost", "partners.scb"]));
    assert_eq!(shown["excluded"], serde_json::json!(["0.0.0.0/0", "::/0"]));
    assert_eq!(shown["days_left"], 5 * 365 - 1);
    let text = out(&place.run(&["ca", "show"]));
    let fingerprint = shown["fingerprint_sha256"].as_str().expect("text").to_uppercase();
    assert_eq!(text.replace(':', "").matches(&fingerprint).count(), 1, "{text}");
    let openssl = Command::new("openssl")
        .args(["x509", "-noout", "-fingerprint", "-sha256", "-in"])
        .arg(place.path("pki/ca.crt"))
        .output()
        .expect("it runs");
    assert!(out(&openssl).replace(':', "").contains(&fingerprint));
}

#[test]
fn a_ca_for_anything_is_made_only_when_asked_for() {
    let place = Place::new();
    fs::write(place.path("proxy.toml"), "").expect("written");
    let refused = place.run(&["ca", "new"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(err(&refused).contains("--permit"), "{}", err(&refused));
    let made = place.run(&["ca", "new", "--unconstrained", "--rsa", "--cert", "a/x.crt", "--key", "b/x.key"]);
    assert!(made.status.success() && out(&made).contains("Guard it well"), "{}", err(&made));
    let shown = out(&place.run(&["ca", "show", "--cert", "a/x.crt"]));
    assert!(shown.contains("RSA, 2048 bits") && shown.contains("vouches for any host"), "{shown}");
    let wrong = place.run(&["ca", "new", "--permit", "https://bank.example", "--out", "c"]);
    assert!(err(&wrong).contains("is not a domain") && !place.path("c").exists(), "{}", err(&wrong));
}

#[test]
fn the_ca_is_exported_in_each_form() {
    let place = Place::with_ca();
    let file = |name: &str| fs::read(place.path(name)).expect(name);
    // Two certificates stand for the system's public roots.
    let now = Clock::System.now();
    let root = || MintAuthority::new(KeyKind::EcdsaP256, &Constraints::NONE, now, 1).expect("a CA").1;
    fs::write(place.path("roots.pem"), root() + &root()).expect("written");
    let export = |form: &[&str]| {
        let mut command = place.command(&[&["ca", "export", "--format"], form].concat());
        let output = command.env("SSL_CERT_FILE", place.path("roots.pem")).output().expect("it runs");
        assert!(output.status.success(), "{form:?}: {}", err(&output));
        output.stdout
    };
    let count = |bytes: &[u8]| String::from_utf8_lossy(bytes).matches("BEGIN CERTIFICATE").count();
    assert_eq!(export(&["pem"]), file("pki/ca.crt"));
    assert_eq!(pem(&[export(&["der"]).into()]).into_bytes(), file("pki/ca.crt"));
    assert_eq!(count(&export(&["bundle"])), 3);
    let manifest = String::from_utf8(export(&["k8s-configmap"])).expect("text");
    assert!(manifest.contains("kind: ConfigMap") && manifest.matches("    -----BEGIN").count() == 4, "{manifest}");
    for more in [&[][..], &["--legacy"]] {
        export(&[&["p12", "--out", "store.p12"], more].concat());
        assert_eq!(in_store(&place.path("store.p12"), "changeit"), 3, "{more:?}");
    }
    let none = place
        .command(&["ca", "export", "--format", "bundle"])
        .env("SSL_CERT_FILE", place.path("nothing"))
        .env("SSL_CERT_DIR", place.path("nothing"))
        .output()
        .expect("it runs");
    assert!(!none.status.success() && err(&none).contains("no public roots"), "{}", err(&none));
}

/// How many certificates a PKCS#12 file holds, by Java's account where there is one, else by OpenSSL's.
fn in_store(path: &Path, password: &str) -> usize {
    if has("keytool") {
        let mut keytool = Command::new("keytool");
        keytool.args(["-J-Duser.language=en", "-list", "-storepass", password, "-keystore"]).arg(path);
        return out(&keytool.output().expect("it runs")).matches("trustedCertEntry").count();
    }
    let mut openssl = Command::new("openssl");
    openssl.args(["pkcs12", "-nokeys", "-passin", &format!("pass:{password}"), "-in"]).arg(path);
    out(&openssl.output().expect("it runs")).matches("BEGIN CERTIFICATE").count()
}

#[test]
fn the_trust_steps_cover_every_client_and_change_nothing() {
    let place = Place::with_ca();
    let told = out(&place.run(&["ca", "trust"]));
    for name in [
        "curl",
        "requests",
        "httpx",
        "urllib",
        "aiohttp",
        "Node",
        "Java",
        ".NET",
        "Go",
        "PHP",
        "Ruby",
        "Debian, Ubuntu",
        "RHEL",
        "Alpine",
        "macOS",
        "Windows",
        "Docker",
        "Kubernetes",
    ] {
        assert!(told.contains(name), "{name} is missing");
    }
    assert!(told.contains(&format!("-Dhttps.proxyPort={}", place.port)), "the config's listener is named");
}

#[test]
fn a_quiet_command_is_told_nothing_that_the_config_warns_of() {
    let place = Place::with_ca();
    let free = TcpListener::bind("127.0.0.1:0").expect("a socket").local_addr().expect("an address").port();
    let config = CONFIG.replace("PORT", &free.to_string()).replace("SURELY_NOT_SET", "SECRET");
    let (config, _) = config.split_once("[provider.local]").expect("two providers");
    let more = "[[route]]\nprovider = \"scb\"\n[client.erp]\nkey_sha256 = [\"8f1d3c6b5a7e90241bd4c0f6a2e8751993d60b4c7fe2a815d03b9c6e47f1a258\"]\n";
    let config = config.replace("{ file = \"/surely/not/there\" }", "{ env = \"SECRET\" }");
    // A warning of the config, which a proxy of the command's own reads as a whole.
    fs::write(place.path("proxy.toml"), config + more + "[audit]\nto = \"audit.log\"\n").expect("written");
    let told = place.command(&["exec", "--client", "erp", "--", "true"]).env("SECRET", "x").output().expect("it runs");
    assert!(told.status.success() && err(&told).contains("the audit log has no key"), "{}", err(&told));
    let quiet = place.command(&["exec", "-q", "--client", "erp", "--", "true"]).env("SECRET", "x").output();
    let quiet = quiet.expect("it runs");
    assert!(quiet.status.success() && err(&quiet).is_empty(), "{}", err(&quiet));
    let printed = place.command(&["env", "-q"]).output().expect("it runs");
    assert!(printed.status.success() && err(&printed).is_empty(), "{}", err(&printed));
}

#[test]
fn a_command_sees_the_variables_and_leaves_nothing_behind() {
    let place = Place::with_ca();
    let script = r#"
        for name in HTTPS_PROXY https_proxy HTTP_PROXY http_proxy NO_PROXY no_proxy NODE_USE_ENV_PROXY \
            SSL_CERT_FILE CURL_CA_BUNDLE REQUESTS_CA_BUNDLE NODE_EXTRA_CA_CERTS GIT_SSL_CAINFO AWS_CA_BUNDLE \
            JAVA_TOOL_OPTIONS COUNTERSIGN_KEY; do eval "echo $name=\$$name"; done
        grep -c BEGIN "$SSL_CERT_FILE"; cmp "$NODE_EXTRA_CA_CERTS" pki/ca.crt && echo same
        stat -c %a "$(dirname "$SSL_CERT_FILE")"
        exit 7"#;
    fs::copy(place.path("pki/ca.crt"), place.path("old.pem")).expect("copied");
    let mut command = place.command(&["exec", "--client", "erp", "--", "sh", "-c", script]);
    command.env("COUNTERSIGN_KEY", "a/key").env("NO_PROXY", "scb,corp.example").env("JAVA_TOOL_OPTIONS", "-Xmx9m");
    command.env("SSL_CERT_FILE", place.path("old.pem"));
    let output = command.output().expect("it runs");
    let (said, port) = (out(&output), place.port);
    assert_eq!(output.status.code(), Some(7), "the command's own status: {}", err(&output));
    for name in ["HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy"] {
        assert!(said.contains(&format!("{name}=http://erp:a%2Fkey@127.0.0.1:{port}\n")), "{said}");
    }
    for name in ["NO_PROXY", "no_proxy"] {
        // localhost has a route, and `scb` would cover api-sandbox.partners.scb.
        assert!(said.contains(&format!("{name}=127.0.0.1,::1,corp.example,.corp.example\n")), "{said}");
    }
    assert!(err(&output).contains("localhost, scb"), "it says so: {}", err(&output));
    for name in ["SSL_CERT_FILE", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE", "GIT_SSL_CAINFO", "AWS_CA_BUNDLE"] {
        assert!(
            said.lines().any(|line| line.starts_with(&format!("{name}=/")) && line.ends_with("/bundle.pem")),
            "{said}"
        );
    }
    let java = said.lines().find(|line| line.starts_with("JAVA_TOOL_OPTIONS=")).expect("it is set");
    assert!(
        java.starts_with(&format!("JAVA_TOOL_OPTIONS=-Xmx9m -Dhttps.proxyHost=127.0.0.1 -Dhttps.proxyPort={port} "))
    );
    assert!(java.ends_with(" -Djdk.http.auth.tunneling.disabledSchemes=") && !java.contains("a%2Fkey"), "{java}");
    assert!(said.contains("NODE_USE_ENV_PROXY=1\nSSL") && said.contains("COUNTERSIGN_KEY=\n"), "{said}");
    assert!(said.ends_with("1\nsame\n700\n"), "{said}");
    assert_eq!(place.leftovers(), 0);
}

/// Runs its arguments on a terminal, types a key, and prints what the terminal showed.
const TERMINAL: &str = r#"
import os, pty, sys
pid, terminal = pty.fork()
if pid == 0:
    os.execv(sys.argv[1], sys.argv[1:])
shown = b""
try:
    while not shown.endswith(b"Key of erp: "):
        shown += os.read(terminal, 1)
    os.write(terminal, b"typed-key\n")
    while True:
        shown += os.read(terminal, 1000)
except OSError:
    pass
print(shown.decode())
sys.exit(os.WEXITSTATUS(os.waitpid(pid, 0)[1]))
"#;

#[test]
fn a_key_is_asked_for_on_the_terminal_and_not_shown() {
    let place = Place::with_ca();
    let mut command = Command::new("python3");
    command.args(["-c", TERMINAL, env!("CARGO_BIN_EXE_countersign"), "exec", "--client", "erp", "--", "sh", "-c"]);
    command
        .arg("echo \"user ${https_proxy%%-key*}\"; stty -a | grep -o ' echo '; exit 5")
        .current_dir(place.folder.path());
    for name in FORMER {
        command.env_remove(name);
    }
    let output = command.env("TMPDIR", place.path("tmp")).stdin(Stdio::null()).output().expect("python3 runs");
    let shown = out(&output);
    assert_eq!(output.status.code(), Some(5), "{shown}{}", err(&output));
    assert!(
        shown.contains("user http://erp:typed\r\n echo \r\n"),
        "it arrives, and the terminal echoes again: {shown}"
    );
    assert!(!shown.contains("typed-key"), "{shown}");
    assert_eq!(place.leftovers(), 0);
    // Without a terminal there is nobody to ask.
    let script = "import os, sys; os.setsid(); os.execv(sys.argv[1], sys.argv[1:])";
    let mut command = Command::new("python3");
    command.args(["-c", script, env!("CARGO_BIN_EXE_countersign"), "exec", "--client", "erp", "--", "true"]);
    command.env_remove("COUNTERSIGN_KEY").current_dir(place.folder.path());
    let without = command.output().expect("python3 runs");
    assert_eq!(without.status.code(), Some(125));
    assert!(err(&without).contains("COUNTERSIGN_KEY"), "{}", err(&without));
}

#[test]
fn java_reads_the_options_and_the_store() {
    if !has("java") {
        // Java's own part; what we write for it is compared above, in text and with openssl.
        return;
    }
    let place = Place::with_ca();
    let output = place.run(&["exec", "--", "java", "-XshowSettings:properties", "-version"]);
    let said = err(&output);
    assert!(output.status.success(), "{said}");
    for line in [
        "https.proxyHost = 127.0.0.1".to_owned(),
        format!("https.proxyPort = {}", place.port),
        "http.nonProxyHosts = 127.0.0.1|[::1]".to_owned(),
        "javax.net.ssl.trustStoreType = PKCS12".to_owned(),
        "jdk.http.auth.tunneling.disabledSchemes = \n".to_owned(),
    ] {
        assert!(said.contains(&line), "{line} is missing: {said}");
    }
    assert_eq!(place.leftovers(), 0);
}

/// Starts `exec` with a script that says `ready` and waits.
fn waiting(place: &Place, script: &str) -> Child {
    let mut command = place.command(&["exec", "--", "sh", "-c", script]);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let mut ready = [0; 6];
    child.stdout.as_mut().expect("a pipe").read_exact(&mut ready).expect("the script is up");
    assert_eq!(&ready, b"ready\n");
    child
}

#[test]
fn signals_reach_the_command_and_its_end_becomes_ours() {
    for (signal, name, code) in [
        (Signal::TERM, "TERM", 31),
        (Signal::INT, "INT", 32),
        (Signal::HUP, "HUP", 33),
        (Signal::QUIT, "QUIT", 34),
        (Signal::USR1, "USR1", 35),
        (Signal::USR2, "USR2", 36),
    ] {
        let place = Place::with_ca();
        // The shell runs its trap once `wait` returns; the sleeper has its own standard output, so that none waits for it.
        let script = format!("trap 'kill $!; exit {code}' {name}; sleep 60 >/dev/null 2>&1 & echo ready; wait");
        let mut child = waiting(&place, &script);
        let number = Pid::from_raw(i32::try_from(child.id()).expect("a number")).expect("a number");
        kill_process(number, signal).expect("sent");
        assert_eq!(child.wait().expect("it ends").code(), Some(code), "{name}");
        assert_eq!(place.leftovers(), 0, "{name}");
    }
}

#[test]
fn a_command_that_a_signal_ends_gives_128_and_its_number() {
    let place = Place::with_ca();
    for (signal, code) in [("KILL", 137), ("TERM", 143)] {
        let output = place.run(&["exec", "--", "sh", "-c", &format!("kill -{signal} $$")]);
        assert_eq!(output.status.code(), Some(code), "{}", err(&output));
    }
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn what_keeps_a_command_from_running_has_a_status_of_its_own() {
    let place = Place::with_ca();
    for (arguments, code, said) in [
        (&["exec", "--", "surely-no-such-command"][..], 127, "cannot be run"),
        (&["exec", "--", "./proxy.toml"], 126, "cannot be run"),
        (&["exec", "--client", "hr", "--", "true"], 125, "no client is called `hr`; there are: erp"),
        (&["exec", "-c", "none.toml", "--", "true"], 125, "none.toml cannot be read"),
        (&["exec", "--ca", "none.crt", "--", "true"], 125, "ca new"),
        (&["exec", "--proxy", "http://127.0.0.1:1", "--", "true"], 125, "nothing listens at http://127.0.0.1:1"),
        (&["exec", "--proxy", "127.0.0.1", "--", "true"], 125, "is not a proxy's address"),
    ] {
        let output = place.run(arguments);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {}", err(&output));
        let text = err(&output);
        let mistakes: Vec<&str> = text.lines().filter(|line| !line.contains("note: ")).collect();
        assert!(mistakes.len() == 1 && mistakes[0].contains(said), "{arguments:?}: {text}");
    }
    fs::write(place.path("proxy.toml"), "").expect("written");
    let output = place.run(&["exec", "--", "true"]);
    assert!(err(&output).contains("no `[[listener]]` with `mode = \"forward\"`"), "{}", err(&output));
    assert_eq!(place.leftovers(), 0);
}

#[test]
fn env_prints_what_exec_sets_and_its_files_stay() {
    let place = Place::with_ca();
    let printed = place.run(&["env", "--shell", "bash"]);
    assert!(printed.status.success(), "{}", err(&printed));
    assert!(
        err(&printed).contains("has no credentials") && err(&printed).contains("COUNTERSIGN_KEY"),
        "{}",
        err(&printed)
    );
    let script = format!("{}\necho \"$https_proxy\"; test -s \"$SSL_CERT_FILE\" && echo there", out(&printed));
    let output = Command::new("sh").args(["-c", &script]).env_clear().output().expect("it runs");
    assert_eq!(out(&output), format!("http://127.0.0.1:{}\nthere\n", place.port), "{}", err(&output));
    let java = out(&place.run(&["env", "--shell", "java"]));
    assert!(java.starts_with("-Dhttps.proxyHost=127.0.0.1 ") && java.lines().count() == 1, "{java}");
    assert!(in_store(&place.path("certs/trust/truststore.p12"), "changeit") >= 1);
}
