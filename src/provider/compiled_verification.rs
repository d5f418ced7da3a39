//! Signatures of the provider's messages with the settings of one provider put in, and their verification.
//!
//! A message is verified as it came: digests and signatures of HTTP cover the bytes of its body with its content coding
//! (RFC 9530 section 2), and canonical texts the body without it.

use std::fmt;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode};
use thiserror::Error;

use crate::base::id::RandomIds;
use crate::base::time::{CLOCK_TOLERANCE, Now};
use crate::base::vars::Vars;
use crate::provider::compiled_jose::Verifier;
use crate::provider::setting::Settings;
use crate::provider::signature_rule::DigestRule;
use crate::provider::template::{ConsentVariables, Fill, FilledText, SignedView, Template};
use crate::provider::verification_rule::{DIGESTS, TimeField, VerificationRule, VerifiedForm};
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::cavage::CavageField;
use crate::signing::cavage_check::{CavageCheck, UnverifiedCavage};
use crate::signing::digest;
use crate::signing::encoding::TextEncoding;
use crate::signing::http_signature::{self, CoveredComponent, HttpMessage, HttpSignatureCheck};
use crate::signing::minified_json::minified_json;
use crate::signing::public_key::VerifyingKey;
use crate::signing::request_parts::RequestParts;
use crate::signing::signature::DigitalSignature;

/// The reason for which the signature of a message is not accepted: for the operator's log, and for no sender. It holds
/// nothing of the message.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum VerificationFailure {
    /// The digest that the signature covers is missing or of another body.
    #[error("the digest that it states is missing, malformed or of another body")]
    Digest,
    /// No key goes by the name that the signature states, or there is no key.
    #[error("its signature names a key that is not known for it")]
    Key,
    /// There is no signature, or not exactly one.
    #[error("it has no signature where the profile expects one, or more than one, or a malformed one")]
    Missing,
    /// It lacks what the signature covers, so there is no text to verify.
    #[error("it lacks a part that the signature covers")]
    Part,
    /// The signature is not the key's, covers less than the profile demands, or states another time.
    #[error("its signature is not by the provider's key, was made of another text, or is too old or too narrow")]
    Refused,
    /// The time that it states is missing, or too far from ours.
    #[error("the time that it states is missing, malformed, too long ago or in the future")]
    Time,
}

/// A request as a signature covers it.
#[derive(Clone)]
pub struct SignedRequestHead {
    pub method: Method,
    /// The host that it was sent to, with its port unless that is the usual one.
    pub authority: String,
    /// The request target in origin form.
    pub path_and_query: String,
    pub headers: HeaderMap,
}

/// The head of a message of the provider's.
#[derive(Clone)]
pub enum SignedHead {
    /// An answer, and the request that it answers.
    Answer {
        status: StatusCode,
        headers: HeaderMap,
        request: Option<SignedRequestHead>,
    },
    Request(SignedRequestHead),
}

/// Leaves out everything that may hold a credential.
impl fmt::Debug for SignedHead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SignedHead::Answer { status, .. } => f.debug_tuple("Answer").field(status).finish(),
            SignedHead::Request(request) => f.debug_tuple("Request").field(&request.method).finish(),
        }
    }
}

impl SignedRequestHead {
    fn path_and_query(&self) -> (&str, Option<&str>) {
        match self.path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&self.path_and_query, None),
        }
    }

    fn parts(&self) -> RequestParts<'_> {
        let (path, query) = self.path_and_query();
        let Self { method, authority, headers, .. } = self;
        RequestParts { method: method.as_str(), scheme: "https", authority, path, query, headers }
    }
}

impl SignedHead {
    pub fn headers(&self) -> &HeaderMap {
        match self {
            SignedHead::Answer { headers, .. } => headers,
            SignedHead::Request(request) => &request.headers,
        }
    }

    /// The one value of a header field, as text.
    fn only(&self, name: &HeaderName) -> Option<&str> {
        let mut values = self.headers().get_all(name).iter();
        let (Some(one), None) = (values.next(), values.next()) else { return None };
        one.to_str().ok()
    }
}

/// A message's body, as it came and without its content coding.
#[derive(Clone, Copy)]
pub(super) struct SignedBody<'a> {
    pub raw: &'a [u8],
    pub decoded: &'a [u8],
}

#[derive(Debug)]
enum VerifyStep {
    Cavage {
        fields: Vec<CavageField>,
        key_id: Option<String>,
    },
    Http {
        label: Option<String>,
        components: Vec<CoveredComponent>,
        tag: Option<String>,
        key_id: Option<String>,
        undated: bool,
    },
    Text {
        text: FilledText,
        digest: Option<DigestRule>,
        header: HeaderName,
        around: (String, String),
        encoding: TextEncoding,
        der: bool,
    },
}

/// A signature of the provider's that is verified.
#[derive(Debug)]
pub(super) struct CompiledVerification {
    keys: Vec<Verifier>,
    algorithm: SigningAlgorithm,
    form: VerifyStep,
    time: Option<TimeField>,
    max_age: Duration,
}

impl CompiledVerification {
    /// Finds the keys among the settings. The error is for a person.
    pub(super) fn compile(rule: &VerificationRule, settings: &Settings) -> Result<Self, String> {
        let unset = || "a signature of the provider's names a setting that is not set".to_owned();
        let key_id = |template: &Option<Template>| {
            let filled = template.as_ref().map(|template| template.resolve(settings).ok_or_else(unset)).transpose()?;
            Ok::<_, String>(filled.and_then(|filled| filled.as_fixed().map(ToOwned::to_owned)))
        };
        let form = match &rule.form {
            VerifiedForm::Cavage { fields, key_id: named } => {
                VerifyStep::Cavage { fields: fields.clone(), key_id: key_id(named)? }
            }
            VerifiedForm::Http { label, components, tag, key_id: named, undated } => VerifyStep::Http {
                label: label.clone(),
                components: components.clone(),
                tag: tag.clone(),
                key_id: key_id(named)?,
                undated: *undated,
            },
            VerifiedForm::Text { text, digest, header, around, encoding, der } => VerifyStep::Text {
                text: text.resolve(settings).ok_or_else(unset)?,
                digest: digest.clone(),
                header: header.clone(),
                around: around.clone(),
                encoding: *encoding,
                der: *der,
            },
        };
        let keys = Verifier::find_all(&rule.keys, settings)?;
        Ok(Self { keys, algorithm: rule.algorithm, form, time: rule.time.clone(), max_age: rule.max_age })
    }

    /// Returns whether it covers the body without its content coding.
    pub(super) const fn reads_content(&self) -> bool {
        matches!(self.form, VerifyStep::Text { .. })
    }

    /// Verifies a message as a whole.
    pub(super) fn verify(&self, head: &SignedHead, body: SignedBody<'_>, now: Now) -> Result<(), VerificationFailure> {
        match &self.form {
            VerifyStep::Cavage { fields, key_id } => self.verify_cavage(head, fields, key_id.as_deref(), now)?,
            VerifyStep::Http { .. } => self.verify_http(head, now)?,
            VerifyStep::Text { .. } => self.verify_text(head, body.decoded)?,
        }
        // A time or a digest counts only once it is known who wrote it.
        self.check_time(head, now)?;
        self.check_digests(head.headers(), body.raw)
    }

    fn verify_cavage(
        &self,
        head: &SignedHead,
        required: &[CavageField],
        key_id: Option<&str>,
        now: Now,
    ) -> Result<(), VerificationFailure> {
        let found = UnverifiedCavage::read(head.headers()).ok_or(VerificationFailure::Missing)?;
        let request = match head {
            SignedHead::Answer { .. } => None,
            SignedHead::Request(request) => Some(request.parts()),
        };
        let check = CavageCheck { algorithm: self.algorithm, required, oldest: self.max_age, now };
        self.try_keys(Some(found.key_id()), key_id, |key| found.is_valid(head.headers(), request.as_ref(), &check, key))
    }

    fn verify_http(&self, head: &SignedHead, now: Now) -> Result<(), VerificationFailure> {
        let VerifyStep::Http { label, components, tag, key_id, undated } = &self.form else {
            return Err(VerificationFailure::Refused);
        };
        let headers = head.headers();
        if !["signature", "signature-input"].iter().all(|name| headers.contains_key(*name)) {
            return Err(VerificationFailure::Missing);
        }
        let check = HttpSignatureCheck {
            label: label.as_deref(),
            algorithm: self.algorithm,
            required: components,
            tag: tag.as_deref(),
            oldest: self.max_age,
            undated: *undated,
            now,
        };
        let message = match head {
            SignedHead::Answer { status, headers, request } => HttpMessage::Response {
                status: status.as_u16(),
                headers,
                request: request.as_ref().map(SignedRequestHead::parts),
            },
            SignedHead::Request(request) => HttpMessage::Request(request.parts()),
        };
        let named = http_signature::unverified_key_id(headers, check.label);
        self.try_keys(named.as_deref(), key_id.as_deref(), |key| http_signature::verify(&message, &check, key).is_ok())
    }

    fn verify_text(&self, head: &SignedHead, body: &[u8]) -> Result<(), VerificationFailure> {
        let VerifyStep::Text { text, digest, header, around: (before, behind), encoding, der } = &self.form else {
            return Err(VerificationFailure::Refused);
        };
        let value = head.only(header).and_then(|value| value.trim().strip_prefix(&**before)?.strip_suffix(&**behind));
        let signature = value.and_then(|value| encoding.decode(value)).ok_or(VerificationFailure::Missing)?;
        let signature = match der {
            true => match DigitalSignature::from_der(self.algorithm, &signature) {
                Some(read) => read.bytes().to_vec(),
                None => return Err(VerificationFailure::Missing),
            },
            false => signature,
        };
        let digest = digest.as_ref().map(|rule| rule.text_of(body).ok_or(VerificationFailure::Part)).transpose()?;
        let status = match head {
            SignedHead::Answer { status, .. } => Some(status.as_str()),
            SignedHead::Request(_) => None,
        };
        let request = match head {
            SignedHead::Answer { request, .. } => request.as_ref(),
            SignedHead::Request(request) => Some(request),
        };
        let view = SignedView {
            method: request.map_or("", |request| request.method.as_str()),
            authority: request.map_or("", |request| &request.authority),
            path_and_query: request.map_or("", |request| &request.path_and_query),
            headers: head.headers(),
            body,
            body_digest: digest.as_deref(),
            token: None,
            signature: None,
            status,
        };
        let (vars, consent, mut ids) = (Vars::none(), ConsentVariables::default(), RandomIds);
        let mut fill =
            Fill { vars: &vars, ids: &mut ids, values: None, grant: None, consent, message: Some(&view), steps: &[] };
        let text = text.render_bytes(&mut fill).ok_or(VerificationFailure::Part)?;
        self.try_keys(None, None, |key| key.verify(self.algorithm, &text, &signature))
    }

    /// Tries the keys that go by the name that a signature states. `wanted`: the only name that it may state.
    fn try_keys(
        &self,
        stated: Option<&str>,
        wanted: Option<&str>,
        verify: impl Fn(&VerifyingKey) -> bool,
    ) -> Result<(), VerificationFailure> {
        if wanted.is_some() && stated != wanted {
            return Err(VerificationFailure::Key);
        }
        // A name that the profile states identifies the key already.
        let named = if wanted.is_some() { None } else { stated };
        let tried = self.keys.iter().filter_map(|key| key.try_with(named, self.algorithm, &verify));
        let tried: Vec<bool> = tried.collect();
        if tried.is_empty() {
            return Err(VerificationFailure::Key);
        }
        if tried.contains(&true) { Ok(()) } else { Err(VerificationFailure::Refused) }
    }

    fn check_time(&self, head: &SignedHead, now: Now) -> Result<(), VerificationFailure> {
        let Some(TimeField { name, format }) = &self.time else { return Ok(()) };
        let at = head.only(name).and_then(|text| format.read(text.trim())).ok_or(VerificationFailure::Time)?;
        let ahead = Duration::from_secs(CLOCK_TOLERANCE);
        let is_timely = at <= now.plus(ahead).wall && now.minus(self.max_age).wall <= at;
        if is_timely { Ok(()) } else { Err(VerificationFailure::Time) }
    }

    /// Compares each digest that the signature covers with the body as it came.
    fn check_digests(&self, headers: &HeaderMap, raw: &[u8]) -> Result<(), VerificationFailure> {
        let covers = |name: &HeaderName| match &self.form {
            VerifyStep::Cavage { fields, .. } => fields.contains(&CavageField::Field(name.clone())),
            VerifyStep::Http { components, .. } => components.iter().any(|one| one.own_field() == Some(name)),
            VerifyStep::Text { .. } => false,
        };
        for name in DIGESTS.map(HeaderName::from_static) {
            if !covers(&name) {
                continue;
            }
            let values: Option<Vec<&str>> = headers.get_all(&name).iter().map(|value| value.to_str().ok()).collect();
            let stated = values.ok_or(VerificationFailure::Digest)?.join(", ");
            let is_right =
                if name == "digest" { digest::old_matches(&stated, raw) } else { digest::matches(&stated, raw) };
            if !is_right {
                return Err(VerificationFailure::Digest);
            }
        }
        Ok(())
    }
}

impl DigestRule {
    /// Returns the digest of a body as a canonical text contains it; `None` if the body is no JSON, and must be.
    fn text_of(&self, body: &[u8]) -> Option<String> {
        let is_minified = self.minified && !body.is_empty();
        let minified = is_minified.then(|| minified_json(body, body.len()).ok()).flatten();
        match (is_minified, minified) {
            (true, minified) => Some(self.algorithm.text(&minified?, self.encoding)),
            (false, _) => Some(self.algorithm.text(body, self.encoding)),
        }
    }
}

#[cfg(test)]
mod tests;
