//! AWS Secrets Manager: `GetSecretValue`, in its JSON protocol.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};

use super::aws_credentials::{AwsIdentity, AwsKeyRing};
use super::secret_document::SecretDocument;
use super::source_client::FetchedSecret;
use super::source_problem::{SourcePart, SourceProblem};
use super::source_settings::{HttpServer, SecretName, digest_of};
use crate::base::http_call::HttpCall;
use crate::base::secret::{is_wordy_secret, sha256};
use crate::base::time::Clock;
use crate::signing::signing_scope::{SigningScope, json_request, timestamp};

const SERVICE: &str = "secretsmanager";

/// The settings of an account's Secrets Manager.
#[derive(Clone, Debug)]
pub struct AwsSecretsSettings {
    pub region: String,
    pub identity: AwsIdentity,
}

impl AwsSecretsSettings {
    pub(super) fn digest(&self) -> [u8; 32] {
        let own = digest_of(&[&self.region]);
        sha256(&[own, self.identity.digest()].concat())
    }
}

/// A client of AWS Secrets Manager.
pub(super) struct AwsSecretsClient {
    region: String,
    host: String,
    clock: Clock,
    http: Box<dyn HttpCall>,
    keys: AwsKeyRing,
}

#[derive(Deserialize)]
struct SecretValueAnswer {
    #[serde(rename = "SecretString")]
    text: Option<String>,
    #[serde(rename = "SecretBinary")]
    binary: Option<String>,
}

impl AwsSecretsClient {
    pub(super) fn new(settings: AwsSecretsSettings, server: &HttpServer, clock: &Clock) -> Self {
        let AwsSecretsSettings { region, identity } = settings;
        let (host, clock, http) = (server.host.clone(), clock.clone(), server.http.client());
        Self { region, host, clock, http, keys: AwsKeyRing::new(identity) }
    }

    /// Reads a secret. Temporary keys that are refused are replaced once.
    pub(super) async fn read(&mut self, name: &SecretName) -> Result<FetchedSecret, SourceProblem> {
        let mut question = json!({ "SecretId": name.name });
        if let (Some(object), Some(stage)) = (question.as_object_mut(), &name.version) {
            object.insert("VersionStage".to_owned(), stage.as_str().into());
        }
        let mut is_second = false;
        loop {
            let now = self.clock.now();
            let keys = self.keys.current(now).await?;
            let scope = SigningScope {
                access_key_id: &keys.access_key_id,
                secret_access_key: &keys.secret_access_key,
                region: &self.region,
                service: SERVICE,
                timestamp: &timestamp(now.wall),
            };
            let (token, target) = (keys.session_token.as_ref(), "secretsmanager.GetSecretValue");
            let request = json_request(&scope, &self.host, target, token, question.to_string()).map_err(|_| {
                let cure = "see the access key id and the session token";
                SourceProblem::new(SourcePart::Credentials, "the request cannot be written", cure)
            })?;
            let answer = self.http.call(request).await;
            let answer = answer
                .map_err(|error| SourceProblem::server(format!("`{}` does not answer: {error}", self.host), ""))?;
            match secret(answer.status(), answer.body()) {
                Ok(document) => return Ok(FetchedSecret { document, lease: None }),
                Err(problem) if problem.part == SourcePart::Credentials && !is_second && self.keys.forget() => {
                    is_second = true;
                }
                Err(problem) => return Err(problem),
            }
        }
    }
}

/// Reads the answer to `GetSecretValue`.
pub(super) fn secret(status: StatusCode, body: &[u8]) -> Result<SecretDocument, SourceProblem> {
    if status != StatusCode::OK {
        return Err(refusal(status, body));
    }
    let unread =
        || SourceProblem::server("the answer is none of AWS Secrets Manager", "see whether `endpoint` is right");
    let answer: SecretValueAnswer = serde_json::from_slice(body).map_err(|_| unread())?;
    match (answer.text, answer.binary) {
        (Some(text), _) => Ok(SecretDocument::of_text(text.into_bytes())),
        (None, Some(binary)) => BASE64_STANDARD.decode(binary).map(SecretDocument::of_text).map_err(|_| unread()),
        (None, None) => Err(unread()),
    }
}

/// Names of errors that are longer than a word may be that is repeated unknown.
const KNOWN: [&str; 5] = [
    "IncompleteSignatureException",
    "InvalidSignatureException",
    "MissingAuthenticationTokenException",
    "ResourceNotFoundException",
    "UnrecognizedClientException",
];

/// Reads an error; its name decides.
fn refusal(status: StatusCode, body: &[u8]) -> SourceProblem {
    let told: Value = serde_json::from_slice(body).unwrap_or_default();
    let name = told.get("__type").and_then(Value::as_str).unwrap_or_default();
    let is_known = |name: &&str| KNOWN.contains(name) || is_wordy_secret(name);
    let name = name.rsplit('#').next().filter(is_known).unwrap_or("no error name");
    let what = format!("AWS Secrets Manager answers {} with {name}", status.as_u16());
    let problem = |part, cure: &str| SourceProblem::new(part, what.clone(), cure);
    match name {
        "ResourceNotFoundException" => {
            problem(SourcePart::Secret, "there is no such secret, or none with this `version`, in this region")
        }
        "AccessDeniedException" => problem(
            SourcePart::Secret,
            "allow this user `secretsmanager:GetSecretValue` on it, and `kms:Decrypt` on its key if that is one of yours",
        ),
        "DecryptionFailure" => problem(SourcePart::Secret, "allow this user `kms:Decrypt` on the key of the secret"),
        "InvalidParameterException" | "InvalidRequestException" | "ValidationException" => {
            problem(SourcePart::Secret, "see its name and version, and that it is not marked for deletion")
        }
        "UnrecognizedClientException" | "InvalidClientTokenId" | "MissingAuthenticationTokenException" => {
            problem(SourcePart::Credentials, "correct `access_key_id`; temporary credentials need `session_token`, too")
        }
        "InvalidSignatureException" | "SignatureDoesNotMatch" | "IncompleteSignatureException" => {
            problem(SourcePart::Credentials, "correct `secret_access_key` and `region`, and see the machine's clock")
        }
        "ExpiredTokenException" | "RequestExpired" => {
            problem(SourcePart::Credentials, "the credentials have expired, or the machine's clock is wrong")
        }
        _ if status == StatusCode::FORBIDDEN => problem(
            SourcePart::Credentials,
            "correct the access key and `region`, and allow the user to read the secret",
        ),
        _ => problem(SourcePart::Server, "it is asked again"),
    }
}
