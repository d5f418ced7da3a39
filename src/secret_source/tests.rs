use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use proptest::prelude::*;
use serde_json::json;

use super::aws_credentials::{assumed_role, link_keys};
use super::vault_answer::VaultRefusal;
use super::vault_client::VaultClient;
use super::*;
use crate::base::http_call::{HttpCall, HttpWay, PendingAnswer};
use crate::base::secret::SecretString;
use crate::base::time::{Clock, ManualClock, Now};

/// One answer of a script: a status with a body, or silence.
type ScriptedAnswer = Option<(u16, String)>;

/// A server that gives prepared answers, and keeps what it was asked.
#[derive(Clone, Default)]
struct ScriptedWay(Arc<Mutex<(VecDeque<ScriptedAnswer>, Vec<String>)>>);

impl ScriptedWay {
    fn of(answers: &[(u16, serde_json::Value)]) -> Self {
        let way = Self::default();
        for (status, body) in answers {
            way.will(Some((*status, body.to_string())));
        }
        way
    }

    fn will(&self, answer: ScriptedAnswer) {
        self.0.lock().unwrap().0.push_back(answer);
    }

    /// The questions so far, each as method, path, token and body.
    fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().1)
    }
}

impl fmt::Debug for ScriptedWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ScriptedWay")
    }
}

impl HttpWay for ScriptedWay {
    fn client(&self) -> Box<dyn HttpCall> {
        Box::new(self.clone())
    }
}

impl HttpCall for ScriptedWay {
    fn call(&self, request: Request<Bytes>) -> PendingAnswer<'_> {
        let (head, body) = request.into_parts();
        let field = |name: &str| head.headers.get(name).map_or("-", |value| value.to_str().unwrap()).to_owned();
        let body = String::from_utf8_lossy(&body).into_owned();
        let line = format!("{} {} {} {body}", head.method, head.uri, field("x-vault-token"));
        let mut script = self.0.lock().unwrap();
        script.1.push(line.trim_end().to_owned());
        let answer = script.0.pop_front();
        Box::pin(async move {
            match answer {
                Some(Some((status, body))) => {
                    Ok(Response::builder().status(status).body(Bytes::from(body)).expect("an answer"))
                }
                Some(None) => std::future::pending().await,
                None => Err("connection refused".to_owned()),
            }
        })
    }
}

fn server(way: &ScriptedWay, host: &str) -> HttpServer {
    HttpServer { host: host.to_owned(), http: Arc::new(way.clone()), digest: [0; 32] }
}

fn vault(login: VaultLogin) -> VaultSettings {
    VaultSettings { base_path: String::new(), namespace: None, login }
}

fn settings(way: &ScriptedWay, clock: &Arc<ManualClock>, login: VaultLogin) -> SourceSettings {
    SourceSettings {
        name: "corp".to_owned(),
        timeout: Duration::from_secs(5),
        clock: Clock::Manual(clock.clone()),
        server: ServerSettings::Vault(server(way, "vault.corp:8200"), vault(login)),
    }
}

fn app_role() -> VaultLogin {
    let (role_id, secret_id) = (SecretString::from("role"), Some(SecretString::from("s3cr3t-id")));
    VaultLogin::AppRole { mount: "approle".to_owned(), role_id, secret_id }
}

fn client(way: &ScriptedWay, clock: &Arc<ManualClock>, login: VaultLogin) -> VaultClient {
    VaultClient::new(vault(login), &server(way, "vault.corp:8200"), &Clock::Manual(clock.clone()))
}

fn name(name: &str) -> SecretName {
    SecretName { name: name.to_owned(), version: None }
}

fn token(token: &str, seconds: u64) -> (u16, serde_json::Value) {
    (200, json!({ "auth": { "client_token": token, "lease_duration": seconds, "renewable": true } }))
}

fn versioned(fields: &serde_json::Value) -> (u16, serde_json::Value) {
    let metadata = json!({ "created_time": "2026-01-01T00:00:00Z", "version": 3, "destroyed": false });
    (
        200,
        json!({ "lease_id": "", "lease_duration": 0, "renewable": false, "data": { "data": fields, "metadata": metadata } }),
    )
}

fn forbidden() -> (u16, serde_json::Value) {
    (403, json!({ "errors": ["1 error occurred:\n\t* permission denied\n\n"] }))
}

fn run<T>(work: impl Future<Output = T>) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(work)
}

#[test]
fn a_token_that_is_refused_is_replaced_by_a_login_once() {
    let clock = ManualClock::at(Now::at(0, 0));
    let secret = json!({ "password": "hunter2" });
    let way =
        ScriptedWay::of(&[token("t-1", 60), versioned(&secret), forbidden(), token("t-2", 60), versioned(&secret)]);
    let mut vault = client(&way, &clock, app_role());
    let read = run(vault.read(&name("secret/data/bank"))).map(|read| read.document).unwrap();
    assert_eq!(read.value(Some("password")).unwrap(), b"hunter2");
    assert_eq!(read.value(None).unwrap(), b"hunter2", "it is the only one");
    assert_eq!(
        way.asked(),
        [
            "POST /v1/auth/approle/login - {\"role_id\":\"role\",\"secret_id\":\"s3cr3t-id\"}",
            "GET /v1/secret/data/bank t-1",
        ]
    );
    run(vault.read(&name("secret/data/bank"))).map(drop).unwrap();
    let asked = way.asked();
    assert_eq!(asked[0], "GET /v1/secret/data/bank t-1");
    assert!(asked[1].starts_with("POST /v1/auth/approle/login - "), "{asked:?}");
    assert_eq!(asked[2], "GET /v1/secret/data/bank t-2");
    // A new token that is refused as well has no right to it.
    for answer in [forbidden(), token("t-3", 60), forbidden()] {
        way.will(Some((answer.0, answer.1.to_string())));
    }
    let refused = run(vault.read(&name("secret/data/bank"))).map(drop).unwrap_err();
    assert_eq!((refused.part, way.asked().len()), (SourcePart::Secret, 3));
    assert!(refused.cure.contains("path \"secret/data/bank\" { capabilities = [\"read\"] }"), "{refused}");
}

#[test]
fn a_token_is_renewed_before_its_end_and_replaced_at_its_last() {
    let clock = ManualClock::at(Now::at(0, 0));
    let way = ScriptedWay::of(&[token("t-1", 60), versioned(&json!({ "a": "b" })), token("t-1", 60)]);
    let mut vault = client(&way, &clock, app_role());
    assert_eq!(vault.renewal_in(clock.now()), None, "there is no session before the first question");
    run(vault.read(&name("kv/a"))).map(drop).unwrap();
    assert_eq!(vault.renewal_in(clock.now()), Some(Duration::from_secs(40)));
    clock.advance(Duration::from_secs(40));
    way.asked();
    run(vault.renew_session()).unwrap();
    assert_eq!(way.asked(), ["PUT /v1/auth/token/renew-self t-1 {}"]);
    assert_eq!(vault.renewal_in(clock.now()), Some(Duration::from_secs(40)));
    // Near its longest life a renewal gives little: another token is asked for.
    clock.advance(Duration::from_secs(40));
    for answer in [token("t-1", 5), token("t-2", 60)] {
        way.will(Some((answer.0, answer.1.to_string())));
    }
    run(vault.renew_session()).unwrap();
    let asked = way.asked();
    assert!(asked[1].starts_with("POST /v1/auth/approle/login - "), "a login carries no token: {asked:?}");
    assert_eq!(vault.renewal_in(clock.now()), Some(Duration::from_secs(40)));
    // A server that is away is tried again soon, and the token stays.
    clock.advance(Duration::from_secs(40));
    let problem = run(vault.renew_session()).unwrap_err();
    assert_eq!(problem.part, SourcePart::Server);
    assert_eq!(vault.renewal_in(clock.now()), Some(Duration::from_secs(10)));
}

#[test]
fn a_given_token_is_renewed_if_it_can_be_and_a_lasting_one_is_not() {
    let clock = ManualClock::at(Now::at(0, 0));
    for (told, renewal) in [
        ((200, json!({ "data": { "ttl": 90, "renewable": true } })), Some(Duration::from_secs(60))),
        ((200, json!({ "data": { "ttl": 90, "renewable": false } })), None),
        ((200, json!({ "data": { "ttl": 0, "renewable": false } })), None),
        (forbidden(), None),
    ] {
        let way = ScriptedWay::of(&[told, versioned(&json!({ "a": "b" }))]);
        let mut vault = client(&way, &clock, VaultLogin::Token(SecretString::from("given")));
        run(vault.read(&name("kv/a"))).map(drop).unwrap();
        assert_eq!(vault.renewal_in(clock.now()), renewal);
        assert_eq!(way.asked(), ["GET /v1/auth/token/lookup-self given", "GET /v1/kv/a given"]);
    }
}

#[test]
fn each_answer_of_a_vault_is_told_in_words() {
    let hint =
        "Invalid path for a versioned K/V secrets engine. See the API docs for the appropriate API endpoints to use.";
    let deleted =
        json!({ "data": { "data": null, "metadata": { "version": 2, "deletion_time": "2026-01-01T00:00:00Z" } } });
    for (status, body, part, words) in [
        (404, json!({ "errors": [], "warnings": [hint] }).to_string(), SourcePart::Secret, "below `data/`"),
        (404, json!({ "errors": [] }).to_string(), SourcePart::Secret, "no such secret"),
        (404, deleted.to_string(), SourcePart::Secret, "is deleted"),
        (200, deleted.to_string(), SourcePart::Secret, "is deleted"),
        (403, json!({ "errors": ["permission denied"] }).to_string(), SourcePart::Secret, "may not read it"),
        (503, json!({ "errors": ["Vault is sealed"] }).to_string(), SourcePart::Server, "sealed"),
        (307, String::new(), SourcePart::Server, "a standby of Vault"),
        (500, "s3cr3t".to_owned(), SourcePart::Server, "answers 500"),
        (200, "<html>s3cr3t</html>".to_owned(), SourcePart::Server, "none of Vault's"),
        (200, "{\"data\":".to_owned(), SourcePart::Server, "none of Vault's"),
        (200, "[]".to_owned(), SourcePart::Server, "none of Vault's"),
        (200, "{\"data\":{}}".to_owned(), SourcePart::Server, "none of Vault's"),
    ] {
        let read = vault_answer::secret(StatusCode::from_u16(status).unwrap(), body.as_bytes());
        let problem = read.map(drop).unwrap_err().of_secret("secret/bank");
        assert_eq!(problem.part, part, "{status} {body}");
        assert!(problem.what.contains(words), "{problem}");
        assert!(!problem.to_string().contains("s3cr3t"), "{problem}");
    }
    let login = VaultRefusal::Bad.of_login("AppRole");
    assert_eq!((login.part, login.what.as_str()), (SourcePart::Credentials, "Vault refuses the login by AppRole"));
}

#[test]
fn a_secret_without_versions_may_have_fields_called_data_and_metadata() {
    let plain = json!({ "data": { "data": "x", "metadata": { "version": 1 } } }).to_string();
    let (document, lease) = vault_answer::secret(StatusCode::OK, plain.as_bytes()).unwrap();
    assert_eq!((document.value(Some("data")).unwrap(), lease), (&b"x"[..], None));
    // A length without a lease is a hint for caches.
    let plain =
        json!({ "lease_id": "", "lease_duration": 2_764_800, "data": { "a": 7, "b": true, "c": ["x"] } }).to_string();
    let (document, lease) = vault_answer::secret(StatusCode::OK, plain.as_bytes()).unwrap();
    assert_eq!(lease, None);
    assert_eq!(document.value(Some("a")).unwrap(), b"7");
    assert_eq!(document.value(Some("b")).unwrap(), b"true");
    for (field, words) in [
        (Some("c"), "a list or a table"),
        (Some("d"), "it has no field `d`; it has `a`, `b`, `c`"),
        (None, "it has 3 fields; name one of them"),
    ] {
        let problem = document.value(field).unwrap_err();
        assert_eq!(problem.part, SourcePart::Field);
        assert!(problem.to_string().contains(words), "{problem}");
    }
}

#[test]
fn values_are_bounded_and_shown_by_nothing() {
    let document = SecretDocument::of_text(vec![b'x'; (64 << 10) + 1]);
    assert!(document.value(None).unwrap_err().to_string().contains("longer than 64 KiB"));
    let document = SecretDocument::of_text(br#"{"user":"erp","password":"hunter2hunter2"}"#.to_vec());
    assert_eq!(document.value(Some("user")).unwrap(), b"erp");
    assert!(document.value(None).unwrap().starts_with(b"{\"user\""), "the whole text");
    assert!(!format!("{document:?}").contains("hunter2"));
    let other = SecretDocument::of_text(br#"{"user":"erp","password":"hunter2hunter3"}"#.to_vec());
    assert_ne!(document.digest(), other.digest());
    // A field whose name might be a secret is not told.
    let odd = json!({ "0a763d084bb01c80cae587619373b788": "x", "user": "y" });
    let odd = SecretDocument::of_object(odd.as_object().unwrap().clone());
    assert!(odd.value(Some("z")).unwrap_err().to_string().ends_with("it has `user`"));
}

/// A source with a session on a thread of its own, read as a config and its watcher do.
struct Stage {
    way: ScriptedWay,
    clock: Arc<ManualClock>,
    source: Arc<SecretSource>,
    _sources: SecretSources,
}

impl Stage {
    fn start(answers: &[(u16, serde_json::Value)]) -> Self {
        Self::with(VaultLogin::Token(SecretString::from("given")), answers)
    }

    fn with(login: VaultLogin, answers: &[(u16, serde_json::Value)]) -> Self {
        let (way, clock, sources) = (ScriptedWay::of(answers), ManualClock::at(Now::at(0, 0)), SecretSources::start());
        let settings = SourceSettings { timeout: Duration::from_millis(200), ..settings(&way, &clock, login) };
        let source = sources.source(settings);
        Self { way, clock, source, _sources: sources }
    }

    fn read(&self, purpose: ReadPurpose) -> Result<String, String> {
        let read = self.source.read(&name("db/creds/x"), purpose).map_err(|problem| problem.what)?;
        Ok(String::from_utf8_lossy(read.value(Some("password")).expect("a field")).into_owned())
    }

    fn will(&self, answer: (u16, serde_json::Value)) {
        self.way.will(Some((answer.0, answer.1.to_string())));
    }

    fn report(&self) -> (usize, usize, Option<String>) {
        let report = self.source.report();
        (report.secrets, report.failing, report.failure)
    }
}

fn leased(password: &str, id: &str, seconds: u64) -> (u16, serde_json::Value) {
    let data = json!({ "username": "v-1", "password": password });
    (200, json!({ "lease_id": id, "lease_duration": seconds, "renewable": true, "data": data }))
}

const LASTING: fn() -> (u16, serde_json::Value) = || (200, json!({ "data": { "ttl": 0 } }));

#[test]
fn a_lease_is_renewed_and_at_its_end_the_secret_is_drawn_anew() {
    let stage = Stage::start(&[LASTING(), leased("first", "db/creds/x/1", 60)]);
    assert_eq!(stage.read(ReadPurpose::Config).as_deref(), Ok("first"));
    // Readings of the config and early looks draw no other.
    assert_eq!(stage.read(ReadPurpose::Config).as_deref(), Ok("first"));
    assert_eq!(stage.read(ReadPurpose::Look).as_deref(), Ok("first"));
    assert_eq!(stage.way.asked().len(), 2);
    assert_eq!(stage.source.renewal_in(&name("db/creds/x")), Some(Duration::from_secs(40)));
    stage.clock.advance(Duration::from_secs(40));
    stage.will((200, json!({ "lease_id": "db/creds/x/1", "lease_duration": 60, "renewable": true })));
    assert_eq!(stage.read(ReadPurpose::Look).as_deref(), Ok("first"));
    assert_eq!(stage.way.asked(), ["PUT /v1/sys/leases/renew given {\"lease_id\":\"db/creds/x/1\"}"]);
    for (renewal, next) in [
        // Little time is left of the longest life.
        ((200, json!({ "lease_id": "db/creds/x/1", "lease_duration": 9, "renewable": true })), "second"),
        // It was revoked.
        ((400, json!({ "errors": ["lease not found"] })), "third"),
    ] {
        stage.clock.advance(Duration::from_secs(40));
        stage.will(renewal);
        stage.will(leased(next, "db/creds/x/2", 60));
        assert_eq!(stage.read(ReadPurpose::Look).as_deref(), Ok(next));
        assert_eq!(stage.read(ReadPurpose::Config).as_deref(), Ok(next), "the reload gets the same");
        assert_eq!(stage.way.asked().len(), 2);
    }
}

#[test]
fn a_new_session_draws_leased_secrets_anew_since_leases_end_with_their_token() {
    let stage = Stage::with(app_role(), &[token("t-1", 30), leased("first", "db/creds/x/1", 3600)]);
    assert_eq!(stage.read(ReadPurpose::Config).as_deref(), Ok("first"));
    for answer in [forbidden(), token("t-2", 30), (200, json!({ "data": { "password": "other" } }))] {
        stage.will(answer);
    }
    let other = stage.source.read(&name("kv/other"), ReadPurpose::Look).map(drop);
    assert_eq!((other, stage.way.asked().len()), (Ok(()), 5));
    stage.will(leased("second", "db/creds/x/2", 3600));
    assert_eq!(stage.read(ReadPurpose::Look).as_deref(), Ok("second"));
    assert_eq!(stage.way.asked(), ["GET /v1/db/creds/x t-2"], "a lease of the session before is not renewed");
}

#[test]
fn the_last_good_value_stays_for_configs_whatever_the_source_does() {
    let stage = Stage::start(&[LASTING()]);
    stage.will((200, json!({ "data": { "password": "good" } })));
    assert_eq!(stage.read(ReadPurpose::Config).as_deref(), Ok("good"));
    let megabytes = "x".repeat(3 << 20);
    for (answer, words) in [
        (Some(Some((403, "{}".to_owned()))), "may not read it"),
        (Some(Some((200, "no JSON".to_owned()))), "none of Vault's"),
        (Some(Some((200, megabytes))), "none of Vault's"),
        (Some(Some((503, String::new()))), "sealed"),
        (Some(None), "no answer within 0.2 s"),
        (None, "connection refused"),
    ] {
        for purpose in [ReadPurpose::Look, ReadPurpose::Config] {
            // It is not asked again for a config at once.
            stage.clock.advance(Duration::from_secs(6));
            if let Some(answer) = answer.clone() {
                stage.way.will(answer);
            }
            match (purpose, stage.read(purpose)) {
                (ReadPurpose::Config, read) => assert_eq!(read.as_deref(), Ok("good"), "{words}"),
                (ReadPurpose::Look, read) => assert!(read.clone().is_err_and(|what| what.contains(words)), "{read:?}"),
            }
            let (secrets, failing, failure) = stage.report();
            assert_eq!((secrets, failing), (1, 1));
            assert!(failure.is_some_and(|failure| failure.contains(words)));
        }
    }
    stage.way.asked();
    assert_eq!(stage.read(ReadPurpose::Config).as_deref(), Ok("good"));
    assert_eq!(stage.way.asked(), [""; 0], "it has just failed");
    stage.will((200, json!({ "data": { "password": "better" } })));
    assert_eq!(stage.read(ReadPurpose::Look).as_deref(), Ok("better"));
    assert_eq!(stage.report(), (1, 0, None));
}

#[test]
fn a_source_that_never_gave_a_value_is_a_mistake() {
    let stage = Stage::start(&[]);
    assert!(stage.read(ReadPurpose::Config).is_err_and(|what| what.contains("connection refused")));
    stage.way.will(None);
    assert!(stage.read(ReadPurpose::Config).is_err_and(|what| what.contains("no answer within 0.2 s")));
    assert_eq!(stage.report(), (0, 0, None));
}

#[test]
fn the_same_settings_are_the_same_source_and_others_are_not() {
    let (way, clock, sources) = (ScriptedWay::default(), ManualClock::at(Now::at(0, 0)), SecretSources::start());
    let one = sources.source(settings(&way, &clock, app_role()));
    assert!(*one == *sources.source(settings(&way, &clock, app_role())));
    let other = sources.source(settings(&way, &clock, VaultLogin::Token(SecretString::from("given"))));
    assert!(*one != *other);
    assert_eq!(sources.reports().len(), 2);
    drop((one, other));
    assert_eq!(sources.reports(), [], "a source that no config uses is gone");
}

#[test]
fn each_answer_of_a_cluster_is_told_in_words() {
    let object = json!({ "kind": "Secret", "data": { "password": "aHVudGVyMg==" } }).to_string();
    let read = |status: u16, body: &str| {
        kubernetes_client::secret(StatusCode::from_u16(status).unwrap(), body.as_bytes(), "bank", "pay")
    };
    assert_eq!(read(200, &object).unwrap().value(Some("password")).unwrap(), b"hunter2");
    for (status, body, part, words) in [
        (401, "{}", SourcePart::Credentials, "does not know the service account"),
        (403, "{}", SourcePart::Secret, "`resources: [\"secrets\"]`, `resourceNames: [\"bank\"]`, `verbs: [\"get\"]`"),
        (404, "{}", SourcePart::Secret, "`kubectl -n pay get secret bank`"),
        (500, "s3cr3t", SourcePart::Server, "answers 500"),
        (200, "{\"kind\":\"Status\"}", SourcePart::Server, "no `Secret`"),
        (200, "{\"kind\":\"Secret\",\"data\":{\"a\":\"s3cr3t!\"}}", SourcePart::Server, "no `Secret`"),
        (200, "<html>", SourcePart::Server, "no `Secret`"),
    ] {
        let problem = read(status, body).unwrap_err();
        assert_eq!(problem.part, part, "{status} {body}");
        assert!(problem.to_string().contains(words), "{problem}");
        assert!(!problem.to_string().contains("s3cr3t"), "{problem}");
    }
}

#[test]
fn each_answer_of_aws_is_told_in_words() {
    let read = |status: u16, body: &str| aws_secrets::secret(StatusCode::from_u16(status).unwrap(), body.as_bytes());
    let text = json!({ "Name": "bank", "SecretString": "{\"password\":\"hunter2\"}" }).to_string();
    assert_eq!(read(200, &text).unwrap().value(Some("password")).unwrap(), b"hunter2");
    let binary = json!({ "SecretBinary": "aHVudGVyMg==" }).to_string();
    assert_eq!(read(200, &binary).unwrap().value(None).unwrap(), b"hunter2");
    for (status, body, part, words) in [
        (400, json!({ "__type": "ResourceNotFoundException" }), SourcePart::Secret, "no such secret"),
        (400, json!({ "__type": "com.amazonaws#AccessDeniedException" }), SourcePart::Secret, "GetSecretValue"),
        (400, json!({ "__type": "ExpiredTokenException" }), SourcePart::Credentials, "have expired"),
        (400, json!({ "__type": "UnrecognizedClientException" }), SourcePart::Credentials, "access_key_id"),
        (403, json!("s3cr3t"), SourcePart::Credentials, "answers 403 with no error name"),
        (500, json!({ "__type": "InternalServiceError" }), SourcePart::Server, "answers 500"),
        (200, json!({ "SecretBinary": "s3cr3t!" }), SourcePart::Server, "none of AWS Secrets Manager"),
        (200, json!({ "SecretString": 7 }), SourcePart::Server, "none of AWS Secrets Manager"),
    ] {
        let problem = read(status, &body.to_string()).unwrap_err();
        assert_eq!(problem.part, part, "{status} {body}");
        assert!(problem.to_string().contains(words), "{problem}");
        assert!(!problem.to_string().contains("s3cr3t"), "{problem}");
    }
}

const ASSUMED: &str = "<?xml version=\"1.0\"?>\n<AssumeRoleWithWebIdentityResponse \
    xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><AssumeRoleWithWebIdentityResult><Credentials>\n\
    <SessionToken>AQoDYXdzEE0a8ANXXXXXXXXNO1ewxE5TijQyp+IEXAMPLE=</SessionToken>\n\
    <SecretAccessKey>wJalrXUtnFEMI/K7MDENG/bPxRfiCYzEXAMPLEKEY</SecretAccessKey>\n\
    <Expiration>2026-10-24T23:00:23Z</Expiration><AccessKeyId>ASgeIAIOSFODNN7EXAMPLE</AccessKeyId>\n\
    </Credentials></AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>";

#[test]
fn keys_for_a_web_identity_are_read_and_refusals_are_told() {
    let (keys, end) = assumed_role(StatusCode::OK, ASSUMED.as_bytes()).unwrap();
    assert_eq!((keys.access_key_id.as_str(), end), ("ASgeIAIOSFODNN7EXAMPLE", 1_792_882_823_000));
    let refused = "<ErrorResponse><Error><Type>Sender</Type><Code>InvalidIdentityToken</Code>\
                   <Message>s3cr3t</Message></Error></ErrorResponse>";
    let problem = assumed_role(StatusCode::BAD_REQUEST, refused.as_bytes()).unwrap_err();
    assert_eq!(problem.part, SourcePart::Credentials);
    assert!(problem.what.ends_with("answers 400 with InvalidIdentityToken"), "{problem}");
    for lie in ["", "<html>", "{}", "<a><AccessKeyId>x</AccessKeyId></a>", "<!DOCTYPE a [<!ENTITY b 'c'>]><a/>"] {
        let problem = assumed_role(StatusCode::OK, lie.as_bytes()).unwrap_err();
        assert_eq!(problem.part, SourcePart::Server, "{lie}");
    }
}

#[test]
fn temporary_keys_are_asked_for_once_until_they_are_near_their_end_or_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("token");
    std::fs::write(&file, "web-identity-token\n").unwrap();
    let (sts, manager, clock) = (ScriptedWay::default(), ScriptedWay::default(), ManualClock::at(Now::at(0, 0)));
    clock.set_wall(1_792_882_823_000 - 3_600_000);
    let identity = AwsIdentity::Web {
        role: "arn:aws:iam::123456789012:role/x".to_owned(),
        token: file,
        host: "sts.eu-central-1.amazonaws.com".to_owned(),
        http: Arc::new(sts.clone()),
    };
    let aws = AwsSecretsSettings { region: "eu-central-1".to_owned(), identity };
    let (server, clock_of_client) = (server(&manager, "aws"), Clock::Manual(clock.clone()));
    let mut client = aws_secrets::AwsSecretsClient::new(aws, &server, &clock_of_client);
    let good = (200, json!({ "SecretString": "hunter2" }));
    let mut read = |answers: &[(u16, serde_json::Value)], calls: usize| {
        for (status, body) in answers {
            manager.will(Some((*status, body.to_string())));
        }
        for _ in 0..calls {
            sts.will(Some((200, ASSUMED.to_owned())));
        }
        let read = run(client.read(&name("bank"))).map(|read| read.document.value(None).unwrap().to_vec());
        assert_eq!(read.as_deref(), Ok(&b"hunter2"[..]));
        assert_eq!((sts.asked().len(), manager.asked().len()), (calls, answers.len()));
    };
    read(std::slice::from_ref(&good), 1);
    read(std::slice::from_ref(&good), 0);
    read(&[(400, json!({ "__type": "ExpiredTokenException" })), good.clone()], 1);
    clock.advance(Duration::from_secs(3400));
    read(&[good], 1);
}

#[test]
fn keys_of_containers_and_instances_come_from_their_link() {
    let clock = ManualClock::at(Now::at(0, 0));
    let keys = json!({
        "Code": "Success", "AccessKeyId": "ASIA", "SecretAccessKey": "s3cr3t", "Token": "t0k3n",
        "Expiration": "2026-10-24T23:00:23Z",
    });
    let manager = ScriptedWay::default();
    let (server, clock) = (server(&manager, "aws"), Clock::Manual(clock));
    let read = |link: &ScriptedWay, identity: AwsIdentity| {
        manager.will(Some((200, json!({ "SecretString": "hunter2" }).to_string())));
        let settings = AwsSecretsSettings { region: "eu-central-1".to_owned(), identity };
        let mut client = aws_secrets::AwsSecretsClient::new(settings, &server, &clock);
        let read = run(client.read(&name("bank"))).map(|read| read.document.value(None).unwrap().to_vec());
        (read.map_err(|problem| problem.to_string()), link.asked())
    };
    let container = |link: &ScriptedWay| AwsIdentity::Container {
        path: "/v2/credentials/x".to_owned(),
        authorization: Some(ContainerToken::Text(SecretString::from("authorized"))),
        host: "169.254.170.2".to_owned(),
        http: Arc::new(link.clone()),
    };
    let link = ScriptedWay::of(&[(200, keys.clone())]);
    let (told, asked) = read(&link, container(&link));
    assert_eq!((told.as_deref(), asked), (Ok(&b"hunter2"[..]), vec!["GET /v2/credentials/x -".to_owned()]));
    let instance =
        |link: &ScriptedWay| AwsIdentity::Instance { host: "169.254.169.254".to_owned(), http: Arc::new(link.clone()) };
    let link = ScriptedWay::default();
    for text in ["session", "bank-role\n", &keys.to_string()] {
        link.will(Some((200, text.to_owned())));
    }
    let (told, asked) = read(&link, instance(&link));
    assert_eq!(told.as_deref(), Ok(&b"hunter2"[..]));
    let roles = "/latest/meta-data/iam/security-credentials/";
    assert_eq!(
        asked,
        ["PUT /latest/api/token -".to_owned(), format!("GET {roles} -"), format!("GET {roles}bank-role -")]
    );
    for (status, body, words) in [
        (404, "", "answers 404; see that the container or instance has a role"),
        (500, "s3cr3t", "answers 500"),
        (200, "<html>s3cr3t", "not understood"),
    ] {
        let link = ScriptedWay::default();
        link.will(Some((status, body.to_owned())));
        let (told, _) = read(&link, container(&link));
        assert!(told.as_ref().is_err_and(|told| told.contains(words) && !told.contains("s3cr3t")), "{told:?}");
    }
}

proptest! {
    /// No body makes a reader panic, and no text of one is repeated.
    #[test]
    fn foreign_answers_are_read_or_refused(status in 200_u16..600, body in "[ -~]{0,80}|\\{\"(data|auth|kind)\":.{0,40}\\}") {
        let (status, bytes) = (StatusCode::from_u16(status).unwrap(), body.as_bytes());
        let problems = [
            vault_answer::secret(status, bytes).map(drop).map_err(|refusal| refusal.of_secret("p")).err(),
            vault_answer::auth(status, bytes).map(drop).map_err(|refusal| refusal.of_login("m")).err(),
            kubernetes_client::secret(status, bytes, "n", "s").map(drop).err(),
            aws_secrets::secret(status, bytes).map(drop).err(),
            assumed_role(status, bytes).map(drop).err(),
            link_keys(status, bytes).map(drop).err(),
        ];
        for problem in problems.into_iter().flatten() {
            prop_assert!(body.len() < 12 || !problem.to_string().contains(&body));
        }
    }
}
