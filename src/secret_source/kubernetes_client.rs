//! `Secret` objects of a Kubernetes cluster, read by the service account of the pod.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{Request, StatusCode};
use serde::Deserialize;
use zeroize::Zeroizing;

use super::secret_document::SecretDocument;
use super::source_client::{FetchedSecret, bearer, encoded, file_text};
use super::source_problem::{SourcePart, SourceProblem};
use super::source_settings::{HttpServer, SecretName, digest_of};
use crate::base::http_call::HttpCall;
use crate::base::secret::SecretString;

/// The settings of a cluster.
#[derive(Clone, Debug)]
pub struct KubernetesSettings {
    /// The path before `/api/`, mostly empty.
    pub base_path: String,
    pub namespace: String,
    /// The file of the service account's token, which the cluster renews.
    pub token: PathBuf,
}

impl KubernetesSettings {
    pub(super) fn digest(&self) -> [u8; 32] {
        digest_of(&[&self.base_path, &self.namespace, &self.token.display().to_string()])
    }
}

/// A client of the API server of a cluster.
pub(super) struct KubernetesClient {
    settings: KubernetesSettings,
    host: String,
    http: Box<dyn HttpCall>,
}

/// The part of a `Secret` that is read (core/v1).
#[derive(Deserialize)]
struct SecretObject {
    kind: String,
    #[serde(default)]
    data: BTreeMap<String, String>,
}

impl KubernetesClient {
    pub(super) fn new(settings: KubernetesSettings, server: &HttpServer) -> Self {
        Self { settings, host: server.host.clone(), http: server.http.client() }
    }

    pub(super) async fn read(&self, name: &SecretName) -> Result<FetchedSecret, SourceProblem> {
        let token = file_text(&self.settings.token, "the token of the service account")?;
        let request = self.request(name, &token)?;
        let answer = self.http.call(request).await;
        let answer =
            answer.map_err(|error| SourceProblem::server(format!("`{}` does not answer: {error}", self.host), ""))?;
        let document = secret(answer.status(), answer.body(), &name.name, &self.settings.namespace)?;
        Ok(FetchedSecret { document, lease: None })
    }

    fn request(&self, name: &SecretName, token: &SecretString) -> Result<Request<Bytes>, SourceProblem> {
        let (base, namespace) = (&self.settings.base_path, encoded(&self.settings.namespace));
        let path = format!("{base}/api/v1/namespaces/{namespace}/secrets/{}", encoded(&name.name));
        let request = Request::get(path).header(HOST, &*self.host).header(ACCEPT, "application/json");
        let request = request.header(AUTHORIZATION, bearer(token)?).body(Bytes::new());
        request.map_err(|_| SourceProblem::server("the request cannot be written", "see its settings"))
    }
}

/// Reads the answer to a question for a `Secret`.
pub(super) fn secret(
    status: StatusCode,
    body: &[u8],
    name: &str,
    namespace: &str,
) -> Result<SecretDocument, SourceProblem> {
    let of_secret = |what: String, cure: String| SourceProblem::new(SourcePart::Secret, what, cure);
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            let cure = "see that the file of its token is the one that the cluster mounts into this pod";
            let what = "the cluster answers 401: it does not know the service account";
            return Err(SourceProblem::new(SourcePart::Credentials, what, cure));
        }
        StatusCode::FORBIDDEN => {
            let cure = format!(
                "bind the pod's service account to a Role in namespace `{namespace}` with the rule `apiGroups: [\"\"]`, \
                 `resources: [\"secrets\"]`, `resourceNames: [\"{name}\"]`, `verbs: [\"get\"]`"
            );
            return Err(of_secret("the cluster answers 403: the service account may not read it".to_owned(), cure));
        }
        StatusCode::NOT_FOUND => {
            let cure = format!("see whether `kubectl -n {namespace} get secret {name}` finds it");
            return Err(of_secret(format!("the namespace `{namespace}` has no such secret"), cure));
        }
        other => {
            let what = format!("the cluster answers {}", other.as_u16());
            return Err(SourceProblem::server(what, "it is asked again; see its log"));
        }
    }
    let unread = || {
        let cure = "see whether `address` is that of the API server";
        SourceProblem::server("the answer is no `Secret` of a cluster", cure)
    };
    let object: SecretObject = serde_json::from_slice(body).map_err(|_| unread())?;
    if object.kind != "Secret" {
        return Err(unread());
    }
    let mut fields = Vec::new();
    for (name, text) in object.data {
        let text = Zeroizing::new(text);
        let bytes = BASE64_STANDARD.decode(text.as_bytes()).map_err(|_| unread())?;
        fields.push((name, Some(bytes)));
    }
    Ok(SecretDocument::of_fields(fields))
}
