//! An interception CA whose key stays in a token.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use countersign::base::secret::{ExposeSecret, hex, sha256};
use countersign::base::time::{Clock, Stopwatch};
use countersign::tls::mint::{Constraints, KeyKind, MintAuthority};
use countersign::tls::{ClientTls, client};
use rustix::process::Signal;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::soft_token::{LABEL, SoftToken};
use super::{checked, signal_module, tell, tells};
use crate::client::converse;
use crate::harness::KEY;
use crate::secrets::Process;

/// A bank whose credential is an API key, at hosts that nobody reaches.
const PROFILE: &str = "name = \"static\"\n[settings.api_key]\nsecret = true\n[request]\n\
                       inject = [{ header = \"authorization\", value = \"Bearer {api_key}\" }]\n";

/// Makes a CA; returns its certificate and its key.
fn authority(kind: KeyKind) -> (String, String) {
    let made = MintAuthority::new(kind, &Constraints::NONE, Clock::System.now(), 1).expect("a CA");
    (made.1, made.2.expose_secret().to_owned())
}

fn write_config(folder: &Path, ca: &str, key: &str, hosts: &[&str]) {
    let put = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
    put("ca.crt", ca);
    put("static.toml", PROFILE);
    put("api-key", "canary-api-key-of-the-bank");
    let route =
        |host: &&str| format!("[[route]]\nname = \"{host}\"\nprovider = \"bank\"\nupstream = \"https://{host}\"\n");
    put(
        "proxy.toml",
        &format!(
            "[[listener]]\nname = \"egress\"\nmode = \"forward\"\nbind = \"127.0.0.1:0\"\n\
             intercept = {{ ca_cert = \"ca.crt\", ca_key = {key} }}\n[client.erp]\nkey_sha256 = [\"{}\"]\n\
             [runtime]\nworkers = 1\n[admin]\nbind = \"127.0.0.1:0\"\n\
             [provider.bank]\nprofile = \"./static.toml\"\nbase_url = \"https://{}\"\n\
             api_key = {{ file = \"api-key\" }}\n{}",
            hex(&sha256(KEY.as_bytes())),
            hosts[0],
            hosts.iter().map(route).collect::<String>()
        ),
    );
}

/// Opens a tunnel to a host, and shakes hands inside. Returns how long the handshake took.
async fn shake(process: &Process, ca: &str, host: &str) -> std::io::Result<Duration> {
    use base64::Engine as _;
    let mut stream = TcpStream::connect(process.address("egress").await).await?;
    let basic = base64::prelude::BASE64_STANDARD.encode(format!("erp:{KEY}"));
    let connect =
        format!("CONNECT {host}:443 HTTP/1.1\r\nHost: {host}:443\r\nProxy-Authorization: Basic {basic}\r\n\r\n");
    stream.write_all(connect.as_bytes()).await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&head));
    let config = client(ClientTls { ca: Some(ca.as_bytes()), ..ClientTls::default() }).expect("a good CA");
    let name = ServerName::try_from(host.to_owned()).expect("a name");
    let took = Stopwatch::start();
    let shaken = TlsConnector::from(Arc::clone(&config)).connect(name, stream).await;
    shaken.map(|_| took.elapsed())
}

#[test]
fn leaves_are_signed_by_a_token_and_kept_while_it_is_gone() {
    for kind in [KeyKind::EcdsaP256, KeyKind::Rsa2048] {
        let (ca, key) = authority(kind);
        let (token, folder) = (SoftToken::with(&[("ca", &key)]), tempfile::tempdir().expect("a folder"));
        let hosts = ["one.bank.example", "two.bank.example", "three.bank.example"];
        let setting = format!("{{ {} }}", SoftToken::setting(folder.path(), "ca"));
        write_config(folder.path(), &ca, &setting, &hosts);
        let config = token.config();
        converse(async {
            let process =
                Process::start_with(&["run", "-c", "proxy.toml"], folder.path(), &[("SOFTHSM2_CONF", &config)]);
            for host in &hosts[..2] {
                for _ in 0..2 {
                    shake(&process, &ca, host).await.expect("a handshake");
                }
            }
            // A leaf is signed once.
            tells(&process, &format!("service=\"pkcs11:{LABEL}\",outcome=\"ok\"}} 2")).await;
            signal_module(&process, Signal::STOP);
            let refused = Stopwatch::start();
            let (new, kept) = tokio::join!(shake(&process, &ca, hosts[2]), shake(&process, &ca, hosts[0]));
            let (new, refused) = (new.expect_err("nobody signs"), refused.elapsed());
            let kept = kept.expect("a leaf that is kept needs no signature");
            tell(&format!("{kind:?}: refused after {refused:?} ({new}); the neighbour took {kept:?}"));
            assert!(refused < Duration::from_millis(1500) && kept < Duration::from_millis(700));
            // Three silent signatures open the breaker, and a new process takes the module's place.
            let back = Stopwatch::start();
            while shake(&process, &ca, hosts[2]).await.is_err() {
                assert!(back.elapsed() < Duration::from_secs(8), "{}", process.stderr());
            }
            tell(&format!("{kind:?}: back after {:?}", back.elapsed()));
            let said = process.stderr();
            assert!(said.contains("no certificate could be signed by the key of the interception CA"), "{said}");
            assert!(said.contains(&format!("pkcs11:{LABEL}")), "{said}");
        });
    }
}

#[test]
fn check_says_what_is_wrong_with_the_key_of_a_ca() {
    let ((ca, key), (other, _)) = (authority(KeyKind::EcdsaP256), authority(KeyKind::EcdsaP256));
    let ed25519 = include_str!("../../fixtures/signing/ed25519-pkcs8.pem");
    let token = SoftToken::with(&[("ca", &key), ("ed25519", ed25519)]);
    let folder = tempfile::tempdir().expect("a folder");
    let setting = format!("{{ {} }}", SoftToken::setting(folder.path(), "ca"));
    let foreign = "the key of the key service does not belong to the certificate in `ca.crt`";
    let cases = [
        (&ca, setting.clone(), None),
        (&other, setting.clone(), Some(foreign)),
        (&ca, setting.replace("\"ca\"", "\"none\""), Some("the token has no private key with label `none`")),
        (&ca, setting.replace("\"ca\"", "\"ed25519\""), Some("an Ed25519 key is of no use here")),
        (&ca, "{ file = \"ca.key\" }".to_owned(), Some("`ca_key` does not say where the key is")),
    ];
    for (ca, key, mistake) in cases {
        write_config(folder.path(), ca, &key, &["bank.example"]);
        let (is_fine, said) = checked(folder.path(), &token.config());
        match mistake {
            None => assert!(is_fine, "{key}\n{said}"),
            Some(mistake) => assert!(!is_fine && said.contains(mistake), "{mistake}\n{said}"),
        }
    }
}
