//! The parts of a call that are made of secrets, without any: the fields that go into its body, and what is signed.
//!
//! There is no second implementation of signing here: the profile's `[request]` is compiled once more, with a mark in
//! the place of each secret setting, and with a signer that keeps the bytes that it is asked to sign. The call is dressed
//! and signed with that as usual, and names take the place of the marks. No key is used.

use std::future::ready;
use std::pin::pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::{HeaderMap, HeaderValue, Method};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::base::time::Within;
use crate::provider::body_fields;
use crate::provider::compiled_signature::{SignatureFailure, SignedMessage};
use crate::provider::describe::StandIn;
use crate::provider::injection::{CallInputs, Injection, SentIds};
use crate::provider::module::{CallAs, Module};
use crate::signing::algorithm::{KeyType, SigningAlgorithm};
use crate::signing::dpop::access_token_hash;
use crate::signing::encoding::from_base64url;
use crate::signing::public_key::PublicKey;
use crate::signing::signature::DigitalSignature;
use crate::signing::signer::{PendingSignature, Signer, SigningError};
use crate::token::grant::CallPlace;

/// A dressed call that is never sent.
pub struct SampleCall<'a> {
    /// The method of the request.
    pub method: &'a Method,
    /// The host of the provider.
    pub authority: &'a str,
    /// The request target in origin form, before anything is put into its query.
    pub path_and_query: &'a str,
    /// The dressed header fields.
    pub headers: HeaderMap,
    /// The client's body, as far as it is known.
    pub body: &'a [u8],
}

/// The parts of a call that are made of secrets, with names in the place of these.
#[derive(Debug, Default)]
pub struct ForeseenContent {
    /// Pointers to the fields that are put into the body, with their values.
    pub body_fields: Vec<(String, String)>,
    /// The messages that the body, or a field of it, becomes before anything is signed.
    pub messages: Vec<ForeseenMessage>,
    /// The signatures, in the order in which they are made.
    pub signatures: Vec<ForeseenSignature>,
}

/// A signed or encrypted message that a body becomes.
#[derive(Debug)]
pub struct ForeseenMessage {
    /// `jws` or `jwe`.
    pub form: &'static str,
    /// The algorithms that make it.
    pub algorithms: String,
    /// The JSON pointer to what it takes; empty: all of the body.
    pub from: String,
    /// The JSON pointer to where it goes; empty: it becomes all of the body.
    pub to: String,
}

/// A signature that a call would have.
#[derive(Debug)]
pub struct ForeseenSignature {
    /// The place where it goes.
    pub place: String,
    /// The word of its `form`; `dpop` for a proof of possession.
    pub form: &'static str,
    /// The algorithm that makes it.
    pub algorithm: SigningAlgorithm,
    /// The text that is signed. What is signed in base64url stands as it was before.
    pub text: String,
}

/// A signer that keeps what it is asked to sign.
#[derive(Debug, Default)]
struct RecordingSigner {
    seen: Mutex<Vec<Vec<u8>>>,
}

impl RecordingSigner {
    fn take(&self) -> Vec<Vec<u8>> {
        std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Signer for RecordingSigner {
    fn key_type(&self) -> KeyType {
        KeyType::Secret
    }

    fn public_key(&self) -> Option<PublicKey> {
        None
    }

    fn sign<'a>(&'a self, algorithm: SigningAlgorithm, message: &'a [u8], _: Within) -> PendingSignature<'a> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(message.to_vec());
        // As long as a signature, and worth nothing.
        let lengths = [32, 48, 64, 96, 256];
        let nothing = lengths.into_iter().find_map(|len| DigitalSignature::from_jose(algorithm, vec![0; len]));
        Box::pin(ready(nothing.ok_or(SigningError::Failed)))
    }
}

impl Module {
    /// Shows what is put into the body of a dressed call, and what is signed of it. `sent`: the values that it was dressed
    /// with.
    pub fn foresee(
        &self,
        call: SampleCall<'_>,
        with: CallInputs<'_>,
        sent: &SentIds,
        stand_in: &mut StandIn,
    ) -> Result<ForeseenContent, SignatureFailure> {
        if !self.signs() && !self.changes_body() {
            return Ok(ForeseenContent::default());
        }
        let signer = Arc::new(RecordingSigner::default());
        let marked = self.marked(stand_in, signer.clone()).map_err(|_| SigningError::Failed)?;
        let lease = stand_in.lease(&marked, with.lease.key);
        let with = CallInputs { lease: &lease, ..with };
        let SampleCall { method, authority, path_and_query, mut headers, body } = call;
        let sent = marked.dress(&mut headers, with, Some(sent), stand_in);
        stand_in.note(&sent);
        // HTTP Basic hides a mark in base64.
        for (place, text) in marked.all_shown() {
            if let CallPlace::Header(name) = place
                && let Ok(mark) = HeaderValue::try_from(stand_in.mark(text.to_owned()))
            {
                headers.insert(name.clone(), mark);
            }
        }
        let mut target = path_and_query.to_owned();
        if marked.changes_query() {
            target = marked.target(path_and_query, with, &sent, stand_in).to_string();
        }
        let fields = marked.body_fields(with, &sent, stand_in);
        let changed = !fields.is_empty() && !body.is_empty();
        let body = match changed {
            true => body_fields::put_into(&headers, body, &fields)
                .map_err(|unfit| SignatureFailure::Unfit(unfit.text()))?
                .to_vec(),
            false => body.to_vec(),
        };
        let mut content = ForeseenContent::default();
        content.messages.extend(self.injection.messages().map(|message| {
            let ((form, algorithms), (from, to)) = (message.outline(), message.places());
            ForeseenMessage { form, algorithms, from, to }
        }));
        let digests = if changed { marked.digests(&body)? } else { Vec::new() };
        let before = target.len();
        if marked.signs() {
            let nonce = stand_in.mark("‹nonce of the API›".to_owned());
            let message = SignedMessage {
                method: method.as_str(),
                authority,
                path_and_query: &mut target,
                headers: &mut headers,
                body: &body,
                token: None,
            };
            let signing = marked.sign(message, Some(&nonce), with, &sent, stand_in, Within(Duration::ZERO));
            match pin!(signing).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(signed) => signed?,
                // The signer answers at once.
                Poll::Pending => return Err(SigningError::Failed.into()),
            }
        }
        // What is made of stand-ins, and would be taken for the real thing.
        let mut made: Vec<(String, &str)> = digests.into_iter().map(|text| (text, "‹digest of the body›")).collect();
        made.push((access_token_hash(stand_in.token()), "‹hash of the token›"));
        let added = target.get(before..).unwrap_or_default();
        for (_, value) in added.split(['?', '&']).filter_map(|pair| pair.split_once('=')) {
            // OAuth 1.0a encodes it once more.
            let encoded = utf8_percent_encode(value, NON_ALPHANUMERIC).to_string();
            made.extend([(value.to_owned(), "‹signature›"), (encoded, "‹signature›")]);
        }
        let signers = marked.signers(method.as_str());
        for (place, form, _) in &signers {
            let shown = if *form == "dpop" { "‹proof of possession›" } else { "‹signature›" };
            let value = place.as_header().and_then(|name| headers.get(name)).and_then(|value| value.to_str().ok());
            made.extend(value.map(|value| (value.to_owned(), shown)));
        }
        made.retain(|(text, _)| !text.is_empty());
        let named = |text: String| {
            let text = made.iter().fold(text, |text, (known, name)| text.replace(known, name));
            stand_in.named(text)
        };
        for ((place, form, algorithm), bytes) in signers.into_iter().zip(signer.take()) {
            let text = named(readable(form, &bytes));
            content.signatures.push(ForeseenSignature { place: place.to_string(), form, algorithm, text });
        }
        content.body_fields =
            fields.iter().map(|(pointer, value)| (pointer.to_string(), named(value.to_string()))).collect();
        Ok(content)
    }

    /// Its `[request]` with marks in the place of secrets, signed by this signer.
    fn marked(&self, stand_in: &mut StandIn, signer: Arc<dyn Signer>) -> Result<Injection, String> {
        let declared = &self.profile.settings;
        let settings = self.settings.with_texts(|name| {
            let is_secret = declared.iter().any(|setting| *setting.name == *name && setting.secret);
            is_secret.then(|| stand_in.mark(format!("‹secret: {name}›")).into())
        });
        let orders = match (self.caller, &self.profile.consent) {
            (CallAs::User, Some(consent)) => &consent.orders,
            (CallAs::Application | CallAs::User, _) => &self.profile.orders,
        };
        let dpop = self.injection.dpop().map(|dpop| dpop.signed_by(signer.clone()));
        // A mark is no key for a message.
        Ok(orders.without_jose().compile(declared, &settings, std::iter::empty(), dpop)?.signed_by(&signer))
    }
}

/// The text of what was signed. The parts of a JSON Web Signature are shown as they were before base64url.
fn readable(form: &str, bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes).into_owned();
    let is_jose = matches!(form, "dpop" | "jws" | "jws-detached" | "jws-unencoded" | "jwt");
    let Some((header, payload)) = text.split_once('.').filter(|_| is_jose) else { return text };
    let decoded = |part: &str| match from_base64url(part) {
        Some(bytes) => format!("base64url({})", String::from_utf8_lossy(&bytes)),
        None => part.to_owned(),
    };
    let payload = if form == "jws-unencoded" { payload.to_owned() } else { decoded(payload) };
    format!("{}.{payload}", decoded(header))
}
