//! Client certificates whose keys stay in a key service, towards a bank that demands one in every connection.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use countersign::base::secret::{hex, sha256};
use countersign::base::time::Clock;
use countersign::sim::{LeafSpec, SimAuthority};
use countersign::tls::provider;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustix::process::Signal;
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::version::{TLS12, TLS13};
use rustls::{RootCertStore, ServerConfig, SupportedProtocolVersion};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use super::kms_server::KmsServer;
use super::soft_token::{LABEL, SoftToken};
use super::{P384_KEY, checked, judge, outage, signal_module, tell, tells};
use crate::client::{Client, converse, get};
use crate::harness::KEY;
use crate::secrets::Process;
use crate::signing::RSA_KEY;

/// A bank whose credential is an API key.
const PROFILE: &str = r#"
name = "static"
[settings.api_key]
secret = true
[request]
inject = [{ header = "authorization", value = "Bearer {api_key}" }]
"#;

/// The CAs of a bank, and of its clients.
struct Authorities {
    bank: SimAuthority,
    clients: CertifiedIssuer<'static, KeyPair>,
}

impl Authorities {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let clients = CertifiedIssuer::self_signed(params, key).expect("a CA");
        Self { bank: SimAuthority::new("bank's CA", Clock::System.now()).expect("a CA"), clients }
    }

    /// A client certificate for a private key.
    fn certificate(&self, key: &str) -> String {
        let key = KeyPair::from_pem(key).expect("a key");
        CertificateParams::default().signed_by(&key, &self.clients).expect("a certificate").pem()
    }

    /// Starts a bank that speaks one version of TLS, remembers no sessions, and ends each connection after its answer.
    /// Returns its base URL.
    async fn bank(&self, version: &'static SupportedProtocolVersion) -> String {
        let mut roots = RootCertStore::empty();
        roots.add(self.clients.der().clone()).expect("a root");
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider()).build();
        let leaf = self.bank.issue(&LeafSpec::server(Clock::System.now())).expect("a leaf");
        let identity = leaf.identity().expect("an identity");
        let builder = ServerConfig::builder_with_provider(provider()).with_protocol_versions(&[version]);
        let builder = builder.expect("a version").with_client_cert_verifier(verifier.expect("a verifier"));
        let mut config = builder.with_single_cert(identity.chain, identity.key).expect("a config");
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        tokio::task::spawn_local(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let acceptor = acceptor.clone();
                tokio::task::spawn_local(async move {
                    let Ok(tls) = acceptor.accept(tcp).await else { return };
                    let answer = service_fn(|_: Request<Incoming>| async {
                        Ok::<_, std::convert::Infallible>(Response::new(Full::new(Bytes::from_static(b"served"))))
                    });
                    let _ = http1::Builder::new().keep_alive(false).serve_connection(TokioIo::new(tls), answer).await;
                });
            }
        });
        url
    }
}

/// A provider of a config: its name, its base URL and the value of its `client_key`.
type Wanted<'a> = (&'a str, &'a str, &'a str);

/// Writes a config with these providers; the certificate of each is in `NAME.crt`.
fn write_config(folder: &Path, authorities: &Authorities, providers: &[Wanted<'_>], more: &str) -> SimAuthority {
    let now = Clock::System.now();
    let authority = SimAuthority::new("listener's CA", now).expect("a CA");
    let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
    let put = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
    put("server.crt", &leaf.cert_pem);
    put("server.key", &leaf.key_pem);
    put("bank-ca.crt", &authorities.bank.pem());
    put("static.toml", PROFILE);
    put("api-key", "canary-api-key-of-the-bank");
    let provider = |(name, url, key): &Wanted<'_>| {
        format!(
            "[provider.{name}]\nprofile = \"./static.toml\"\nbase_url = \"{url}\"\napi_key = {{ file = \"api-key\" }}\n\
             tls = {{ ca = \"bank-ca.crt\", client_cert = \"{name}.crt\", client_key = {key}{more} }}\n\
             [[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprovider = \"{name}\"\n"
        )
    };
    put(
        "proxy.toml",
        &format!(
            "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\n\
             tls = {{ cert = \"server.crt\", key = \"server.key\" }}\n[client.erp]\nkey_sha256 = [\"{}\"]\n\
             [runtime]\nworkers = 1\n[admin]\nbind = \"127.0.0.1:0\"\n{}",
            hex(&sha256(KEY.as_bytes())),
            providers.iter().map(provider).collect::<String>()
        ),
    );
    authority
}

fn start(folder: &TempDir, token: &SoftToken) -> Process {
    Process::start_with(&["run", "-c", "proxy.toml"], folder.path(), &[("SOFTHSM2_CONF", &token.config())])
}

#[test]
fn client_certificates_are_presented_with_keys_of_a_token_and_of_a_kms() {
    let keys = [("rsa", RSA_KEY), ("p384", P384_KEY)];
    let (token, kms, authorities) = (SoftToken::with(&keys), KmsServer::with(&keys), Authorities::new());
    let folder = tempfile::tempdir().expect("a folder");
    converse(async {
        let banks = [("tls12", authorities.bank(&TLS12).await), ("tls13", authorities.bank(&TLS13).await)];
        let mut wanted = Vec::new();
        for (label, pem) in keys {
            let settings =
                [("token", SoftToken::setting(folder.path(), label)), ("kms", kms.setting(folder.path(), label))];
            for ((kind, setting), (version, url)) in
                settings.iter().flat_map(|setting| banks.iter().map(move |bank| (setting, bank)))
            {
                let name = format!("{kind}-{label}-{version}");
                fs::write(folder.path().join(format!("{name}.crt")), authorities.certificate(pem)).expect("written");
                wanted.push((name, url.as_str(), format!("{{ {setting} }}")));
            }
        }
        let providers: Vec<Wanted<'_>> = wanted.iter().map(|(name, url, key)| (&**name, *url, &**key)).collect();
        let authority = write_config(folder.path(), &authorities, &providers, "");
        let process = start(&folder, &token);
        let client = Client::new(process.address("gateway").await, authority.pem());
        for (name, ..) in &providers {
            for _ in 0..3 {
                let answer = client.send(get(&format!("/{name}/v1/balance"), KEY)).await;
                assert_eq!(answer.status, 200, "{name}: {answer:?}\n{}", process.stderr());
            }
        }
        // A trial shows them, too. The bank is on this thread, so the trial is not.
        let (at, config) = (folder.path().to_owned(), token.config());
        let trial = tokio::task::spawn_blocking(move || {
            let mut command = Command::new(env!("CARGO_BIN_EXE_countersign"));
            command.args(["check", "--live", "-c", "proxy.toml"]).current_dir(at).env("SOFTHSM2_CONF", config);
            command.output().expect("the binary starts")
        });
        let output = trial.await.expect("no panic");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said.matches("it asks for a client certificate, and ours is shown").count(), 8, "{output:?}");
        // Each connection was signed by the service, besides the trials at the start.
        for service in [format!("pkcs11:{LABEL}"), "kms:eu-central-1".to_owned()] {
            tells(&process, &format!("service=\"{service}\",outcome=\"ok\"}} 12")).await;
        }
    });
}

#[test]
fn a_token_that_is_gone_fails_handshakes_within_a_second_and_delays_nobody_else() {
    let (token, authorities) = (SoftToken::with(&[("p384", P384_KEY)]), Authorities::new());
    let folder = tempfile::tempdir().expect("a folder");
    let certificate = authorities.certificate(P384_KEY);
    for (name, text) in [("bank.crt", &*certificate), ("plain.crt", &certificate), ("plain.key", P384_KEY)] {
        fs::write(folder.path().join(name), text).expect("written");
    }
    converse(async {
        let url = authorities.bank(&TLS13).await;
        let remote = format!("{{ {} }}", SoftToken::setting(folder.path(), "p384"));
        let providers = [("bank", &*url, &*remote), ("plain", &url, "\"plain.key\"")];
        let authority = write_config(folder.path(), &authorities, &providers, "");
        let process = start(&folder, &token);
        let client = Client::new(process.address("gateway").await, authority.pem());
        let killed = outage(&client, Duration::ZERO, || signal_module(&process, Signal::KILL), || {}).await;
        judge("a killed module process", &killed);
        let hung = outage(&client, Duration::ZERO, || signal_module(&process, Signal::STOP), || {}).await;
        judge("a module process that hangs", &hung);
        let (there, gone) = (token.config().with_file_name("tokens"), token.config().with_file_name("gone"));
        let take = || {
            fs::rename(&there, &gone).expect("renamed");
            signal_module(&process, Signal::KILL);
        };
        let (from, to) = (gone.clone(), there.clone());
        let back = move || fs::rename(from, to).expect("renamed");
        let taken = outage(&client, Duration::from_secs(2), take, back).await;
        judge("a token that is taken out", &taken);
        let said = process.stderr();
        assert!(said.contains(&format!("client certificate: the signer did not answer: pkcs11:{LABEL}")), "{said}");
        tells(&process, &format!("countersign_key_service_up{{service=\"pkcs11:{LABEL}\"}} 1")).await;
        tell(&format!("{} good calls", killed.good + hung.good + taken.good));
    });
}

#[test]
fn check_says_what_is_wrong_with_the_key_of_a_client_certificate() {
    let (token, authorities) = (SoftToken::with(&[("rsa", RSA_KEY), ("p384", P384_KEY)]), Authorities::new());
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("bank.crt"), authorities.certificate(P384_KEY)).expect("written");
    let setting = SoftToken::setting(folder.path(), "p384");
    let remote = format!("{{ {setting} }}");
    let cases = [
        (remote.clone(), "", None),
        (remote.clone(), ", min_version = \"1.3\"", None),
        (remote.replace("p384", "rsa"), "", Some("does not belong to the certificate in `bank.crt`")),
        (remote.replace("p384", "none"), "", Some("the token has no private key with label `none`")),
        (remote.clone(), ", client_key_password = \"x\"", Some("a key of a key service has no password")),
        ("{ fil = \"x\" }".to_owned(), "", Some("`client_key` does not say where the key is")),
        ("{ fil = \"x\" }".to_owned(), "", Some("did you mean `file`?")),
        (format!("{{ {setting}, kms = {{}} }}"), "", Some("a key comes from one place")),
    ];
    for (key, more, mistake) in cases {
        write_config(folder.path(), &authorities, &[("bank", "https://bank.example", &key)], more);
        let (is_fine, said) = checked(folder.path(), &token.config());
        match mistake {
            None => assert!(is_fine, "{key}\n{said}"),
            Some(mistake) => assert!(!is_fine && said.contains(mistake), "{mistake}\n{said}"),
        }
        assert!(!said.contains(super::PIN), "{said}");
    }
    let without = fs::read_to_string(folder.path().join("proxy.toml")).expect("read");
    let without = without.replace("client_cert = \"bank.crt\", ", "").replace(", kms = {}", "");
    fs::write(folder.path().join("proxy.toml"), without).expect("written");
    let (is_fine, said) = checked(folder.path(), &token.config());
    assert!(!is_fine && said.contains("`client_cert` is missing here"), "{said}");
}
