//! Secrets that come from the servers that keep them, into the real binary.

mod secret_server;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use countersign::base::secret::ExposeSecret as _;
use countersign::sim::{Bank, SimHandle};
use rustix::process::{Signal, kill_process};

use crate::client::{converse, get};
use crate::harness::{KEY, bank};
use crate::key_services::admin;
use crate::key_services::kms_server::{ACCESS_KEY, KmsServer, SECRET};
use crate::reload::{Pod, until};
use crate::secrets::{Canary, Outputs};
use secret_server::{ACCOUNT_TOKEN, GIVEN_TOKEN, NAMESPACE, ROLE_ID, SECRET_ID, SecretServer, SourceFault};

/// The section of a Vault with a login.
fn vault(address: &str, login: &str) -> String {
    format!(
        "[secret_source.corp]\nkind = \"vault\"\naddress = \"{address}\"\nca = \"bank.crt\"\nnamespace = \"{NAMESPACE}\"\n\
         timeout = \"1s\"\nttl = \"1s\"\n{login}\n"
    )
}

fn app_role() -> String {
    format!("app_role = {{ role_id = \"{ROLE_ID}\", secret_id = {{ file = \"secret-id\" }} }}")
}

fn from(name: &str) -> String {
    format!("{{ source = \"corp\", name = \"{name}\", field = \"password\" }}")
}

/// Starts a proxy whose bank's secret comes from the source. The files that a login needs lie beside its config.
async fn start(sim: &SimHandle, section: &str, secret: &str) -> Pod {
    let files = [("secret-id", SECRET_ID), ("vault-token", GIVEN_TOKEN), ("account-token", ACCOUNT_TOKEN)];
    Pod::start_with_files(sim, section, secret, &files).await
}

/// Everything that a process shows, searched for what it must not show.
async fn shows_nothing(pod: Pod, canaries: Vec<(String, String)>, secrets: &[&str]) {
    let mut outputs = Outputs::default();
    for page in ["/metrics", "/api/v1/status", "/api/v1/providers", "/ui/"] {
        outputs.add(page, admin(&pod.process, page).await);
    }
    let Pod { process, folder, .. } = pod;
    process.finish(&mut outputs);
    drop(folder);
    let canaries =
        canaries.into_iter().chain(secrets.iter().map(|secret| ("a secret".to_owned(), (*secret).to_owned())));
    let canaries: Vec<Canary> = canaries.map(|(name, text)| Canary::new(name, &text)).collect();
    let found = outputs.search(&canaries);
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_secret_comes_from_each_kind_of_place_and_a_new_one_is_taken_up() {
    let logins = [
        ("secret/data/bank", "token = { file = \"vault-token\" }".to_owned()),
        ("kv/bank", app_role()),
        (
            "secret/data/bank",
            "kubernetes = { role = \"countersign\", mount = \"k8s\", token_file = \"account-token\" }".to_owned(),
        ),
        ("bank", String::new()),
    ];
    for (name, login) in logins {
        let sim = bank(Bank::Meed);
        converse(async {
            let first = sim.credentials().secret().expose_secret().to_owned();
            let second = sim.second_secret().expose_secret().to_owned();
            let server = SecretServer::start(&sim, &first).await;
            let section = if login.is_empty() {
                format!(
                    "[secret_source.corp]\nkind = \"kubernetes\"\naddress = \"{}\"\nca = \"bank.crt\"\n\
                     namespace = \"pay\"\ntoken_file = \"account-token\"\nttl = \"1s\"\n",
                    server.address
                )
            } else {
                vault(&server.address, &login)
            };
            let pod = start(&sim, &section, &from(name)).await;
            assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200, "{name} {login}");
            server.world.borrow_mut().value.clone_from(&second);
            pod.says(&format!("changed `{name}` of [secret_source.corp]")).await;
            until("the new secret is fetched with", async || sim.token_calls() == 2).await;
            assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
            let status = admin(&pod.process, "/api/v1/status").await;
            assert!(status.contains("\"secret_sources\":[{\"name\":\"corp\","), "{status}");
            let canaries = server.world.borrow().canaries();
            shows_nothing(pod, canaries, &[&first, &second]).await;
        });
    }
}

#[test]
fn the_last_value_stays_in_use_whatever_a_source_does() {
    let sim = bank(Bank::Meed);
    converse(async {
        let first = sim.credentials().secret().expose_secret().to_owned();
        let server = SecretServer::start(&sim, &first).await;
        let pod = start(&sim, &vault(&server.address, &app_role()), &from("secret/data/bank")).await;
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        let failing = async |count: usize| {
            let line = format!("countersign_secrets_failing{{kind=\"vault\"}} {count}\n");
            until(&line, async || admin(&pod.process, "/metrics").await.contains(&line)).await;
        };
        failing(0).await;
        for (fault, words) in [
            (SourceFault::Forbidden, "Vault refuses the login by AppRole"),
            (SourceFault::HangUp, "does not answer"),
            (SourceFault::Hangs, "no answer within 1 s"),
            (SourceFault::Html, "the answer is none of Vault's"),
            (SourceFault::Megabytes, "the body is too long"),
            (SourceFault::Sealed, "Vault is sealed or in maintenance"),
        ] {
            server.world.borrow_mut().fault = fault;
            failing(1).await;
            until(words, async || admin(&pod.process, "/api/v1/status").await.contains(words)).await;
            assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200, "{fault:?}");
            // A config that is read meanwhile gets the last value.
            let read = pod.process.stderr().matches("the config was reloaded").count();
            let config = pod.folder.path().join("proxy.toml");
            let text = fs::read_to_string(&config).expect("read");
            fs::write(&config, format!("{text}# {fault:?}\n")).expect("written");
            kill_process(pod.process.pid(), Signal::HUP).expect("sent");
            let reloaded = || pod.process.stderr().matches("the config was reloaded").count() > read;
            until("it is reloaded", async || reloaded()).await;
            failing(1).await;
            assert!(admin(&pod.process, "/ui/").await.contains("the last values of its secrets are in use"));
            server.world.borrow_mut().fault = SourceFault::None;
            failing(0).await;
        }
        let second = sim.second_secret().expose_secret().to_owned();
        server.world.borrow_mut().value.clone_from(&second);
        pod.says("changed `secret/data/bank` of [secret_source.corp]").await;
        until("the new secret is fetched with", async || sim.token_calls() == 2).await;
        let canaries = server.world.borrow().canaries();
        shows_nothing(pod, canaries, &[&first, &second]).await;
    });
}

#[test]
fn a_lease_is_renewed_and_at_its_end_another_secret_is_drawn() {
    let sim = bank(Bank::Meed);
    converse(async {
        let server = SecretServer::start(&sim, sim.credentials().secret().expose_secret()).await;
        server.world.borrow_mut().lease = 3;
        let pod = start(&sim, &vault(&server.address, &app_role()), &from("database/creds/bank")).await;
        let renewals = || server.world.borrow().count("PUT /v1/sys/leases/renew");
        until("the lease is renewed", async || renewals() >= 2).await;
        kill_process(pod.process.pid(), Signal::HUP).expect("sent");
        until("the lease is renewed again", async || renewals() >= 4).await;
        assert_eq!(server.world.borrow().count("GET /v1/database/creds/bank"), 1, "a reload draws no other");
        let second = sim.second_secret().expose_secret().to_owned();
        {
            let mut world = server.world.borrow_mut();
            world.renews = false;
            world.value.clone_from(&second);
        }
        pod.says("changed `database/creds/bank` of [secret_source.corp]").await;
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        // The session ends, and a login follows: the token that was given first is refused from now on.
        server.world.borrow_mut().login += 7;
        until("it logs in again", async || server.world.borrow().count("POST /v1/auth/approle/login") >= 2).await;
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
    });
}

async fn ended(folder: &Path, command: &str) -> Output {
    let mut process = Command::new(env!("CARGO_BIN_EXE_countersign"));
    process.args([command, "-c", "proxy.toml"]).current_dir(folder).env_remove("RUST_LOG");
    tokio::task::spawn_blocking(move || process.output().expect("it starts")).await.expect("no panic")
}

#[test]
fn a_start_without_the_secret_fails_in_words_and_check_says_so_before() {
    let sim = bank(Bank::Meed);
    converse(async {
        let server = SecretServer::start(&sim, sim.credentials().secret().expose_secret()).await;
        let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("bound").local_addr().expect("an address");
        let (here, nowhere) = (server.address.clone(), format!("https://{closed}"));
        let good = vault(&here, &app_role());
        let cases = [
            (vault(&nowhere, &app_role()), "secret/data/bank", SourceFault::None, "does not answer"),
            (good.clone(), "secret/data/bank", SourceFault::Hangs, "gives no secrets: no answer within 1 s"),
            (good.clone(), "secret/data/bank", SourceFault::Html, "the answer is none of Vault's"),
            (good.clone(), "secret/data/bank", SourceFault::Megabytes, "the body is too long"),
            (good.clone(), "secret/data/bank", SourceFault::Sealed, "Vault is sealed or in maintenance"),
            (good.clone(), "secret/data/other", SourceFault::None, "capabilities = [\"read\"]"),
            (good.clone(), "secret/bank", SourceFault::None, "its secrets are read below `data/`"),
            (good.clone(), "secret/data/none", SourceFault::None, "there is no such secret"),
            (good.clone(), "../sys/seal", SourceFault::None, "cannot be the name of a secret"),
            (
                good.replace("secret-id", "bank.crt"),
                "secret/data/bank",
                SourceFault::None,
                "refuses the login by AppRole",
            ),
            (
                vault(&here, "kubernetes = { role = \"x\", token_file = \"nowhere\" }"),
                "secret/data/bank",
                SourceFault::None,
                "the token of the service account cannot be read",
            ),
            (
                good.replace("[secret_source.corp]", "[secret_source.crop]"),
                "a",
                SourceFault::None,
                "did you mean `crop`?",
            ),
            (vault(&here, ""), "a", SourceFault::None, "has no `token`"),
            (
                format!("{good}region = \"x\"\n"),
                "a",
                SourceFault::None,
                "`region` is of no use with `kind = \"vault\"`",
            ),
            (
                vault(&here, "token = { source = \"corp\", name = \"a\" }"),
                "a",
                SourceFault::None,
                "cannot come from a source itself",
            ),
            (good.replace(&here, "http://127.0.0.1:1"), "a", SourceFault::None, "write `https://"),
        ];
        for (section, name, fault, words) in cases {
            server.world.borrow_mut().fault = fault;
            let folder = Pod::folder(&sim, &section, &from(name), &[("secret-id", SECRET_ID)]).0;
            for command in ["check", "run"] {
                let said = ended(folder.path(), command).await;
                let text =
                    format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
                assert_eq!(said.status.code(), Some(1), "{command} {words}: {text}");
                assert!(text.contains(words), "{command} {words}: {text}");
                assert!(!text.contains(SECRET_ID) && !text.contains(ROLE_ID), "{text}");
            }
        }
        server.world.borrow_mut().fault = SourceFault::None;
        let folder = Pod::folder(&sim, &good, &from("kv/bank"), &[("secret-id", SECRET_ID)]).0;
        let said = ended(folder.path(), "check").await;
        assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
    });
}

/// A web identity that the server knows.
const WEB_IDENTITY: &str = "canary.web-identity.8Lm2";

#[test]
fn a_secret_comes_from_aws_with_keys_and_with_a_web_identity() {
    let sim = bank(Bank::Meed);
    converse(async {
        let secret = sim.credentials().secret().expose_secret().to_owned();
        let server = KmsServer::with_secret(&secret, WEB_IDENTITY);
        let url = server.url();
        let section = |more: &str| {
            format!(
                "[secret_source.corp]\nkind = \"aws\"\nregion = \"eu-central-1\"\nendpoint = \"{url}\"\nca = \"aws.crt\"\n{more}\n"
            )
        };
        let keys = section("access_key_id = { file = \"aws-id\" }\nsecret_access_key = { file = \"aws-key\" }");
        let web = |token: &str| {
            let role = "arn:aws:iam::123456789012:role/bank";
            section(&format!(
                "web_identity = {{ role_arn = \"{role}\", token_file = \"{token}\", sts_endpoint = \"{url}\" }}"
            ))
        };
        let files = [
            ("aws.crt", server.ca()),
            ("aws-id", ACCESS_KEY),
            ("aws-key", SECRET),
            ("web-identity", WEB_IDENTITY),
            ("other-identity", "canary.web-identity.unknown"),
        ];
        let reference = "{ source = \"corp\", name = \"bank\", field = \"client_secret\" }";
        for section in [keys.clone(), web("web-identity")] {
            let pod = Pod::start_with_files(&sim, &section, reference, &files).await;
            assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200, "{section}");
            let canaries =
                [("key", SECRET), ("identity", WEB_IDENTITY)].map(|(name, text)| (name.to_owned(), text.to_owned()));
            shows_nothing(pod, canaries.to_vec(), &[&secret]).await;
        }
        for (section, reference, words) in [
            (keys.clone(), reference.replace("\"bank\"", "\"none\""), "there is no such secret"),
            (
                keys.clone(),
                reference.replace("client_secret", "password"),
                "it has no field `password`; it has `client_secret`",
            ),
            (keys.replace("aws-key", "aws-id"), reference.to_owned(), "correct `secret_access_key`"),
            (web("other-identity"), reference.to_owned(), "the role trusts"),
            (section(""), reference.to_owned(), "does not say who asks"),
        ] {
            let folder = Pod::folder(&sim, &section, &reference, &files).0;
            let said = ended(folder.path(), "check").await;
            let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
            assert_eq!(said.status.code(), Some(1), "{words}: {text}");
            assert!(text.contains(words), "{words}: {text}");
        }
        let before = reference.replace("}", ", version = \"AWSPREVIOUS\" }");
        let folder = Pod::folder(&sim, &keys, &before, &files).0;
        let said = ended(folder.path(), "check").await;
        assert_eq!(said.status.code(), Some(0), "{}", String::from_utf8_lossy(&said.stderr));
    });
}
