//! Keys of the store that a key service has wrapped.

use std::fs;
use std::path::Path;

use aws_lc_rs::rsa::{OAEP_SHA1_MGF1SHA1, OaepPublicEncryptingKey, PublicEncryptingKey};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use countersign::base::secret::{hex, sha256};
use countersign::base::time::{Clock, Stopwatch};
use countersign::sim::{Bank, LeafSpec, SimAuthority, SimHandle};
use rustix::process::{Signal, kill_process};
use tempfile::TempDir;

use super::kms_server::KmsServer;
use super::soft_token::SoftToken;
use super::{checked, children, tell};
use crate::client::{Client, converse, get};
use crate::harness::{KEY, bank};
use crate::secrets::{Canary, Outputs, Process};
use crate::signing::RSA_KEY;

/// The key of the token's case, in base64.
const DATA_KEY: [u8; 32] = [0x5a; 32];

/// Wraps a key under the public half of the token's RSA key. SoftHSM knows OAEP with SHA-1 alone.
fn wrapped(key: &[u8]) -> String {
    let public = include_str!("../../fixtures/signing/rsa-public.pem");
    let der: String = public.lines().filter(|line| !line.starts_with('-')).collect();
    let public = PublicEncryptingKey::from_der(&BASE64_STANDARD.decode(der).expect("base64")).expect("a key");
    let public = OaepPublicEncryptingKey::new(public).expect("an RSA key");
    let mut out = vec![0; public.ciphertext_size()];
    let made = public.encrypt(&OAEP_SHA1_MGF1SHA1, key, &mut out, None).expect("encrypted").len();
    BASE64_STANDARD.encode(&out[..made])
}

/// Writes a config with a bank and a store in a file, sealed under this key.
fn write_config(folder: &Path, sim: &SimHandle, key: &str, more: &str) -> SimAuthority {
    let now = Clock::System.now();
    let authority = SimAuthority::new("listener's CA", now).expect("a CA");
    let leaf = authority.issue(&LeafSpec::server(now)).expect("a leaf");
    let put = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
    put("server.crt", &leaf.cert_pem);
    put("server.key", &leaf.key_pem);
    put("bank-ca.crt", &sim.ca_pem());
    put(
        "proxy.toml",
        &format!(
            "[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:0\"\n\
             tls = {{ cert = \"server.crt\", key = \"server.key\" }}\n[client.erp]\nkey_sha256 = [\"{}\"]\n\
             [runtime]\nworkers = 1\n[admin]\nbind = \"127.0.0.1:0\"\n\
             [store]\nurl = \"file:tokens.redb\"\nkeys = [{key}]\n\
             {}\n[[route]]\nname = \"meed\"\npath = \"/meed\"\nprovider = \"meed\"\n{more}",
            hex(&sha256(KEY.as_bytes())),
            sim.settings_toml_as("meed", "bank-ca.crt"),
        ),
    );
    authority
}

fn start(folder: &TempDir, token: &SoftToken) -> Process {
    Process::start_with(&["run", "-c", "proxy.toml"], folder.path(), &[("SOFTHSM2_CONF", &token.config())])
}

#[test]
fn a_store_is_sealed_under_a_key_that_a_service_unwraps_at_the_start() {
    let (token, kms) = (SoftToken::with(&[("wrap", RSA_KEY)]), KmsServer::with(&[]));
    let (data_key, wrapped_by_kms) = kms.data_key();
    for kind in ["kms", "token"] {
        let (sim, folder) = (bank(Bank::Meed), tempfile::tempdir().expect("a folder"));
        let (service, plain, ciphertext) = match kind {
            "kms" => (kms.setting(folder.path(), "store"), data_key.clone(), wrapped_by_kms.clone()),
            _ => (SoftToken::setting(folder.path(), "wrap"), BASE64_STANDARD.encode(DATA_KEY), wrapped(&DATA_KEY)),
        };
        fs::write(folder.path().join("wrapped.txt"), format!("{ciphertext}\n")).expect("written");
        fs::write(folder.path().join("plain.key"), &plain).expect("written");
        let in_file = format!("{{ {service}, ciphertext = {{ file = \"wrapped.txt\" }} }}");
        let in_place = format!("{{ {service}, ciphertext = \"{ciphertext}\" }}");
        // What one of them sealed, the others open: the bank is asked for one token.
        for (round, key) in [in_place.as_str(), &in_file, "{ file = \"plain.key\" }"].into_iter().enumerate() {
            let authority = write_config(folder.path(), &sim, key, "");
            converse(async {
                let process = start(&folder, &token);
                let client = Client::new(process.address("gateway").await, authority.pem());
                let answer = client.send(get("/meed/echo/x", KEY)).await;
                assert_eq!(answer.status, 200, "{kind}, {round}: {answer:?}\n{}", process.stderr());
                assert_eq!(children(&process), Vec::<u32>::new(), "the module's process has ended with its work");
                let mut outputs = Outputs::default();
                process.finish(&mut outputs);
                assert_eq!(outputs.search(&[Canary::new("key of the store", &plain)]), Vec::<String>::new());
            });
            assert_eq!(sim.token_calls(), 1, "{kind}, {round}");
        }
    }
}

#[test]
fn a_start_needs_the_service_and_a_reload_that_changes_no_key_does_not() {
    let (token, mut kms) = (SoftToken::with(&[]), KmsServer::with(&[]));
    let (sim, folder) = (bank(Bank::Meed), tempfile::tempdir().expect("a folder"));
    let key = format!("{{ {}, ciphertext = \"{}\" }}", kms.setting(folder.path(), "store"), kms.data_key().1);
    write_config(folder.path(), &sim, &key, "");
    converse(async {
        let process = start(&folder, &token);
        process.address("gateway").await;
        kms.kill();
        write_config(folder.path(), &sim, &key, "[log]\nlevel = \"debug\"\n");
        kill_process(process.pid(), Signal::HUP).expect("signalled");
        for _ in 0..400 {
            if process.stderr().contains("the config was reloaded") {
                break;
            }
            tokio::time::sleep(std::time::Duration::from_millis(25)).await;
        }
        let said = process.stderr();
        assert!(said.contains("the config was reloaded") && !said.contains("is rejected"), "{said}");
        process.finish(&mut Outputs::default());
    });
    let took = Stopwatch::start();
    let (is_fine, said) = checked(folder.path(), &token.config());
    tell(&format!("refused after {:?}", took.elapsed()));
    assert!(!is_fine && said.contains("the key service `kms:eu-central-1` does not answer: "), "{said}");
    assert!(said.contains("the key of the store is decrypted there"), "{said}");
}

#[test]
fn check_says_what_is_wrong_with_a_wrapped_key() {
    let (token, kms) = (SoftToken::with(&[("wrap", RSA_KEY)]), KmsServer::with(&[("rsa", RSA_KEY)]));
    let (sim, folder) = (bank(Bank::Meed), tempfile::tempdir().expect("a folder"));
    let (soft, aws) = (SoftToken::setting(folder.path(), "wrap"), kms.setting(folder.path(), "store"));
    let (by_token, by_kms) = (wrapped(&DATA_KEY), kms.data_key().1);
    let with = |service: &str, ciphertext: &str| format!("{{ {service}, ciphertext = \"{ciphertext}\" }}");
    let cases = [
        (with(&soft, &by_token), None),
        (with(&aws, &by_kms), None),
        (with(&soft, &by_kms), Some("the token does not decrypt: ")),
        (with(&soft, &wrapped(&DATA_KEY[..16])), Some("it has 16 bytes instead of 32")),
        (with(&soft, "?"), Some("this is not a wrapped key in base64")),
        (with(&soft, ""), Some("this is not a wrapped key in base64")),
        (with(&aws, &by_token), Some("AWS KMS answers 400 with ")),
        (with(&aws.replace("alias/store", "alias/none"), &by_kms), Some("AWS KMS answers 400 with NotFoundException")),
        (with(&soft.replace("\"wrap\"", "\"none\""), &by_token), Some("has no private key with label `none`")),
        (format!("{{ {soft} }}"), Some("a wrapped key of the store has no `ciphertext`")),
        (with(&format!("{soft}, {aws}"), &by_kms), Some("a key comes from one place")),
        (format!("{{ {soft}, cipher = \"x\" }}"), Some("unknown key `cipher` in a key of [store]")),
        (format!("{}, {}", with(&soft, &by_token), with(&soft, &by_token)), Some("this key is in the list already")),
    ];
    for (key, mistake) in cases {
        write_config(folder.path(), &sim, &key, "");
        let (is_fine, said) = checked(folder.path(), &token.config());
        match mistake {
            None => assert!(is_fine, "{key}\n{said}"),
            Some(mistake) => assert!(!is_fine && said.contains(mistake), "{mistake}\n{said}"),
        }
        assert!(!said.contains(super::PIN) && !said.contains(super::kms_server::SECRET), "{said}");
    }
}
