//! A key service: as much of AWS KMS as countersign asks of it, `GetPublicKey` and `Sign`, with a P-256 key of its own.
//!
//! A signature is answered after [`job::SIGN_BY`] milliseconds. Who asks is not checked. That its signatures are right is
//! checked by countersign, when it reads the key.

use std::convert::Infallible;
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, LocalOptions};
use tokio::time::{Instant, sleep_until};
use tokio_rustls::TlsAcceptor;

use crate::args::Args;
use crate::origin::{bind, tls};
use crate::{Failure, job};

const ALGORITHM: &str = "ECDSA_SHA_256";

/// The key and its public half, in base64 of DER.
struct KeyService {
    key: EcdsaKeyPair,
    public_key: String,
}

/// `bench keys --work DIR --port P`
pub fn main(mut args: Args) -> Result<(), Failure> {
    let work = args.text("work")?;
    let port = args.parse("port")?;
    args.end()?;
    let acceptor = TlsAcceptor::from(tls(Path::new(&work), "origin")?);
    let service = Rc::new(KeyService::new()?);
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async move {
        let socket = TcpListener::from_std(bind(port)?)?;
        loop {
            let Ok((stream, _)) = socket.accept().await else { continue };
            let _ = stream.set_nodelay(true);
            let (acceptor, service) = (acceptor.clone(), service.clone());
            tokio::task::spawn_local(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let service = service_fn(move |request| {
                    let service = service.clone();
                    async move { Ok::<_, Infallible>(service.answer(request).await) }
                });
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    })
}

impl KeyService {
    fn new() -> Result<Self, Failure> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)?;
        let public_key = BASE64_STANDARD.encode(&*key.public_key().as_der()?);
        Ok(Self { key, public_key })
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let due = Instant::now() + Duration::from_millis(job::SIGN_BY);
        let (head, body) = request.into_parts();
        let target = head.headers.get("x-amz-target").map_or(&b""[..], HeaderValue::as_bytes);
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        let question: Value = serde_json::from_slice(&body).unwrap_or_default();
        let told = match target {
            b"TrentService.GetPublicKey" => Some(json!({ "PublicKey": self.public_key, "KeyUsage": "SIGN_VERIFY" })),
            b"TrentService.Sign" => {
                let signed = self.sign(&question);
                sleep_until(due).await;
                signed
            }
            _ => None,
        };
        let (status, told) = match told {
            Some(told) => (StatusCode::OK, told),
            None => (StatusCode::BAD_REQUEST, json!({ "__type": "ValidationException" })),
        };
        let mut response = Response::new(Full::new(told.to_string().into()));
        *response.status_mut() = status;
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/x-amz-json-1.1"));
        response
    }

    /// Signs a digest. Nothing, if the question asks for anything else.
    fn sign(&self, question: &Value) -> Option<Value> {
        let word = |name: &str| question.get(name).and_then(Value::as_str);
        if word("MessageType")? != "DIGEST" || word("SigningAlgorithm")? != ALGORITHM {
            return None;
        }
        let digest = BASE64_STANDARD.decode(word("Message")?).ok()?;
        let signature = self.key.sign_digest(&Digest::import_less_safe(&digest, &SHA256).ok()?).ok()?;
        Some(json!({ "Signature": BASE64_STANDARD.encode(signature), "SigningAlgorithm": ALGORITHM }))
    }
}
