//! Secrets that come from the servers that keep them, into the real binary.

mod open_bao;
mod secret_server;

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use countersign::base::secret::ExposeSecret as _;
use countersign::config::{InMemory, build};
use countersign::sim::{Bank, SimHandle};
use rustix::process::{Signal, kill_process};

use crate::client::{converse, get};
use crate::harness::{KEY, bank};
use crate::key_services::admin;
use crate::key_services::kms_server::{ACCESS_KEY, KmsServer, SECRET};
use crate::redis_server::RedisServer;
use crate::reload::{Pod, until};
use crate::secrets::{Canary, Outputs};
use open_bao::{OpenBao, ROOT};
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
    for page in ["/metrics", "/api/v1/status", "/api/v1/providers", "/"] {
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
            // With its log at its most talkative.
            let section = format!("{section}[log]\nlevel = \"trace\"\n");
            let pod = start(&sim, &section, &from(name)).await;
            assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200, "{name} {login}");
            server.world.borrow_mut().value.clone_from(&second);
            pod.says(&format!("changed `{name}` of [secret_source.corp]")).await;
            until("the new secret is fetched with", async || sim.token_calls() == 2).await;
            assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
            let status = admin(&pod.process, "/api/v1/status").await;
            let status: serde_json::Value = serde_json::from_str(&status).expect("JSON");
            assert_eq!(status["secret_sources"][0]["name"], "corp", "{status}");
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
            assert!(admin(&pod.process, "/").await.contains("the last values of its secrets are in use"));
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
            (keys.clone(), reference.replace("client_secret", "password"), "it has no field `password`"),
            (keys.replace("aws-key", "aws-id"), reference.to_owned(), "AWS Secrets Manager answers 403"),
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

/// A PKCS#12 file of a certificate with its key and its CA, as OpenSSL writes it.
fn container(folder: &Path, certificate: &str, key: &str, password: &str) -> Vec<u8> {
    let put = |name: &str, text: &str| fs::write(folder.join(name), text).expect("written");
    put("own.crt", certificate);
    put("own.key", key);
    let mut openssl = Command::new("openssl");
    openssl.args(["pkcs12", "-export", "-in", "own.crt", "-inkey", "own.key", "-out", "own.p12"]);
    let done = openssl.args(["-passout", &format!("pass:{password}")]).current_dir(folder).output().expect("openssl");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    fs::read(folder.join("own.p12")).expect("written")
}

#[test]
fn a_certificate_may_stand_in_a_pkcs12_file_with_its_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let bytes = container(folder.path(), &own.cert.pem(), &own.signing_key.serialize_pem(), "open sesame");
    let files = InMemory::new()
        .with_file("own.p12", bytes)
        .with_file("own.crt", own.cert.pem())
        .with_file("other.crt", other.cert.pem())
        .with_file("own.key", own.signing_key.serialize_pem())
        .with_file("word", "open sesame\n")
        .with_env("WRONG", "sesame");
    let judged = |listener: &str, provider: &str| {
        let config = format!(
            "[[listener]]\nname = \"gw\"\nbind = \"127.0.0.1:0\"\nclients = \"anyone\"\ntls = {{ {listener} }}\n\
             [provider.oauth2]\nprofile = \"oauth2\"\nbase_url = \"https://bank.example\"\n\
             token_url = \"https://bank.example/token\"\nclient_id = \"i\"\nclient_secret = {{ file = \"word\" }}\n\
             tls = {{ {provider} }}\n[[route]]\npath = \"/bank\"\nprovider = \"oauth2\"\n"
        );
        let (snapshot, found) = build(Path::new("proxy.toml"), config, &files);
        let said: Vec<String> = found.iter().map(countersign::syntax::Diagnostic::one_line).collect();
        let said = said.join("\n");
        assert!(!said.contains("sesame"), "{said}");
        match snapshot {
            Some(snapshot) => {
                let ends: Vec<_> = snapshot.certificates.iter().map(|end| end.what.clone()).collect();
                Ok((ends, said))
            }
            None => Err(said),
        }
    };
    let word = "password = { file = \"word\" }";
    let good = format!("key = {{ pkcs12 = \"own.p12\", {word} }}");
    let (ends, said) = judged(&good, &format!("client_{good}")).expect("both are read");
    assert_eq!((ends, said.as_str()), (vec!["own.p12".to_owned()], ""), "the end of the certificate is known");
    judged(&format!("cert = \"own.crt\", {good}"), "client_cert = \"own.crt\", client_key = \"own.key\"")
        .expect("a chain");
    judged("cert = \"own.crt\", key = { file = \"own.key\" }", "").expect("a table for a file");
    for (setting, words) in [
        ("key = { pkcs12 = \"own.p12\" }", "add `password = { env = \"NAME\" }`"),
        ("key = { pkcs12 = \"own.p12\", password = { env = \"WRONG\" } }", "its password is wrong"),
        ("key = { pkcs12 = \"own.crt\", password = { env = \"WRONG\" } }", "whether the file is PKCS#12"),
        ("key = { pkcs12 = \"own.p12\", file = \"own.key\" }", "keep one of `file` and `pkcs12`"),
        ("key = { }", "does not say where the key is"),
        ("key = { fil = \"own.key\" }", "did you mean `file`?"),
        ("key = { file = \"own.key\" }", "has no `cert`"),
        ("cert = \"own.crt\"", "has no `key`"),
        (
            "cert = \"other.crt\", key = { pkcs12 = \"own.p12\", password = { file = \"word\" } }",
            "does not belong to the certificate",
        ),
        ("key = 7", "expected a path, found an integer"),
    ] {
        let said = judged(setting, "").map(drop).expect_err(setting);
        assert!(said.contains(words), "{setting}: {said}");
    }
    let said = judged(&good, &format!("client_{good}, client_key_password = {{ file = \"word\" }}")).map(drop);
    assert!(said.as_ref().is_err_and(|said| said.contains("stands beside its file")), "{said:?}");
}

#[test]
fn a_listener_serves_by_a_pkcs12_file_whose_password_a_vault_keeps() {
    let sim = bank(Bank::Meed);
    converse(async {
        let secret = sim.credentials().secret().expose_secret().to_owned();
        let server = SecretServer::start(&sim, &secret).await;
        let (folder, authority) =
            Pod::folder(&sim, &vault(&server.address, &app_role()), &from("kv/bank"), &[("secret-id", SECRET_ID)]);
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect("readable");
        let (certificate, key) = (read("server.crt"), read("server.key"));
        container(folder.path(), &certificate, &key, &secret);
        let config = read("proxy.toml").replace(
            "cert = \"server.crt\", key = \"server.key\"",
            &format!("key = {{ pkcs12 = \"own.p12\", password = {} }}", from("secret/data/bank")),
        );
        fs::write(folder.path().join("proxy.toml"), config).expect("written");
        let pod = Pod::run(folder, &authority).await;
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        let status = admin(&pod.process, "/api/v1/status").await;
        assert!(status.contains("\"own.p12\""), "{status}");
    });
}

#[test]
fn a_real_open_bao_gives_secrets_leases_and_refusals() {
    let sim = bank(Bank::Meed);
    let mut server = OpenBao::start();
    let first = sim.credentials().secret().expose_secret().to_owned();
    let second = sim.second_secret().expose_secret().to_owned();
    server.tell(&["namespace", "create", NAMESPACE], "");
    let within = format!("-namespace={NAMESPACE}");
    let within = within.as_str();
    let tell = |words: &[&str]| server.tell(&[&words[..2], &[within], &words[2..]].concat(), "");
    tell(&["auth", "enable", "approle"]);
    tell(&["secrets", "enable", "-version=2", "-path=secret", "kv"]);
    tell(&["secrets", "enable", "-version=1", "-path=kv", "kv"]);
    tell(&["secrets", "enable", "database"]);
    let redis = RedisServer::start();
    let port = redis.port.to_string();
    let database = |words: &[&str]| server.tell(&[&["write", within][..], words].concat(), "");
    redis.cli(&["acl", "setuser", "admin", "on", ">adminword", "+@all", "~*", "&*"]);
    database(&[
        "database/config/redis",
        "plugin_name=redis-database-plugin",
        "host=127.0.0.1",
        &format!("port={port}"),
        "username=admin",
        "password=adminword",
        "allowed_roles=*",
    ]);
    database(&[
        "database/roles/bank",
        "db_name=redis",
        "creation_statements=[\"+@read\"]",
        "default_ttl=3s",
        "max_ttl=8s",
    ]);
    let put = |value: &str| server.tell(&["kv", "put", within, "-mount=secret", "bank", "password=-"], value);
    put(&first);
    server.tell(&["kv", "put", within, "-mount=kv", "bank", "password=-"], &first);
    let policy = "path \"secret/data/bank\" { capabilities = [\"read\"] }\npath \"secret/bank\" { capabilities = [\"read\"] }\n\
                  path \"kv/*\" { capabilities = [\"read\"] }\npath \"database/creds/bank\" { capabilities = [\"read\"] }\n";
    server.tell(&["policy", "write", within, "bank", "-"], policy);
    server
        .tell(&["write", within, "auth/approle/role/c", "token_policies=bank", "token_ttl=3s", "token_max_ttl=8s"], "");
    let role = server.value(&["read", within, "-format=json", "auth/approle/role/c/role-id"], "/data/role_id");
    let id = server.value(&["write", within, "-f", "-format=json", "auth/approle/role/c/secret-id"], "/data/secret_id");
    let token =
        server.value(&["token", "create", within, "-policy=bank", "-ttl=10m", "-format=json"], "/auth/client_token");
    let ca = server.ca();
    let files = [("secret-id", id.as_str()), ("vault-token", token.as_str()), ("bao.crt", ca.as_str())];
    let section = |login: &str| vault(&server.address, login).replace("bank.crt", "bao.crt");
    let app_role = format!("app_role = {{ role_id = \"{role}\", secret_id = {{ file = \"secret-id\" }} }}");
    converse(async {
        for (login, name, words) in [
            (app_role.clone(), "secret/data/bank", None),
            ("token = { file = \"vault-token\" }".to_owned(), "kv/bank", None),
            (app_role.clone(), "database/creds/bank", None),
            (app_role.clone(), "secret/bank", Some("its secrets are read below `data/`")),
            (app_role.clone(), "kv/none", Some("there is no such secret")),
            (app_role.clone(), "secret/data/other", Some("capabilities = [\"read\"]")),
            (app_role.replace(&role, "nobody"), "kv/bank", Some("Vault refuses the login by AppRole")),
            ("token = { file = \"secret-id\" }".to_owned(), "kv/bank", Some("the token may not read it, or has ended")),
        ] {
            let folder = Pod::folder(&sim, &section(&login), &from(name), &files).0;
            let said = ended(folder.path(), "check").await;
            let text = format!("{}{}", String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
            assert_eq!(said.status.code(), Some(i32::from(words.is_some())), "{login} {name}: {text}");
            assert!(text.contains(words.unwrap_or_default()), "{name}: {text}");
        }
        let more = section(&app_role) + &section(&app_role).replace(".corp]", ".leases]");
        let leased = from("database/creds/bank").replace("corp", "leases");
        // The dynamic secret is that of a second provider, which no request needs.
        let (folder, authority) = Pod::folder(&sim, &more, &from("secret/data/bank"), &files);
        let config = folder.path().join("proxy.toml");
        let text = fs::read_to_string(&config).expect("readable");
        let second_provider = format!(
            "[provider.leased]\nprofile = \"oauth2\"\nbase_url = \"https://bank.example\"\n\
             token_url = \"https://bank.example/token\"\nclient_id = \"i\"\nclient_secret = {leased}\n\
             [[route]]\nname = \"leased\"\npath = \"/leased\"\nprovider = \"leased\"\n"
        );
        fs::write(&config, text + &second_provider).expect("written");
        let pod = Pod::run(folder, &authority).await;
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        put(&second);
        pod.says("changed `secret/data/bank` of [secret_source.corp]").await;
        until("the new secret is fetched with", async || sim.token_calls() == 2).await;
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        // Leases of 3 s are renewed until their 8 s are nearly over; then another secret is drawn. Tokens alike.
        for turn in 1..=2 {
            let changes =
                || pod.process.stderr().matches("changed `database/creds/bank` of [secret_source.leases]").count();
            until("another secret is drawn", async || changes() >= turn).await;
        }
        let failing = async |count: usize| {
            let line = format!("countersign_secrets_failing{{kind=\"vault\"}} {count}\n");
            until(&line, async || admin(&pod.process, "/metrics").await.contains(&line)).await;
        };
        failing(0).await;
        assert!(!pod.process.stderr().contains("cannot be read"), "{}", pod.process.stderr());
        server.tell(&["operator", "seal"], "");
        failing(2).await;
        until("it is told", async || admin(&pod.process, "/api/v1/status").await.contains("Vault is sealed")).await;
        assert_eq!(pod.client.send(get("/meed/echo/a", KEY)).await.status, 200);
        let canaries = [ROOT, &id, &token].map(|text| ("a credential".to_owned(), text.to_owned()));
        shows_nothing(pod, canaries.to_vec(), &[&first, &second]).await;
    });
    server.kill();
}
