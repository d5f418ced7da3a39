//! JOSE messages in bodies with the settings of one provider put in: requests are signed and encrypted, answers decrypted
//! and verified.
//!
//! Encryption, decryption and verification run in the pool of private keys: an event loop waits for them, and does not
//! perform them. Nothing of an answer is returned unless all of its steps were passed.

use std::sync::Arc;

use http::header::CONTENT_ENCODING;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::base::coding::{is_coded, without_coding};
use crate::base::secret::SecretString;
use crate::base::time::{Now, Within};
use crate::provider::compiled_signature::{
    CompiledKey, CompiledMembers, SignatureFailure, SigningInputs, secret_bytes,
};
use crate::provider::compiled_verification::{CompiledVerification, SignedBody, SignedHead, VerificationFailure};
use crate::provider::id_rule::IdRule;
use crate::provider::jose_rule::{
    HeaderRule, JoseKeys, OpenForm, OpeningRules, ProtectForm, RequestJoseRule, ResponseJoseRule,
};
use crate::provider::json_members::{find, pointer, put, quoted, steps, without};
use crate::provider::setting::{SettingValue, Settings};
use crate::provider::template::SignedView;
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::encoding::TextEncoding;
use crate::signing::jwe::{self, DecryptionKey, EncryptionKey, Entropy, JweRecipe, LibraryEntropy};
use crate::signing::jws::{JwsHeader, PayloadForm};
use crate::signing::key::SigningKey;
use crate::signing::private_key_pool::{PoolError, PrivateKeyPool};
use crate::signing::public_key::{PublicKey, VerifyingKey};
use crate::signing::public_key_set::PublicKeySet;
use crate::signing::shared_secret::SharedSecret;
use crate::signing::signer::SigningError;
use crate::signing::verify::{self, JwsCheck, JwsRefused};

const CODED: SignatureFailure =
    SignatureFailure::Unfit("The body has a content coding, and the provider needs it signed or encrypted.");
const ABSENT: SignatureFailure = SignatureFailure::Unfit(
    "The body lacks the field that the provider needs signed or encrypted, has it twice, or is no JSON object.",
);
const HEADER: SignatureFailure =
    SignatureFailure::Unfit("The provider's message names a variable or another part that this request lacks.");

/// The reason for which an answer was not opened. It holds nothing of the answer.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum OpenFailure {
    /// There is no message at its place.
    #[error("it holds no message where one is expected")]
    Absent,
    /// The pool did not open it in time.
    #[error("it could not be opened in time: {0}")]
    Busy(#[from] PoolError),
    /// Its content coding cannot be undone, or it decodes to more than the limit.
    #[error("its content coding cannot be undone, or it is too large")]
    Coded,
    /// What was opened does not fit its place: it is no UTF-8.
    #[error("what was opened is no text for its place")]
    Content,
    /// It was changed, encrypted for another key, or signed by another.
    #[error("it is not encrypted for our key, not signed by the provider's, or was changed")]
    Refused,
    /// Its signature does not hold.
    #[error(transparent)]
    Signature(#[from] VerificationFailure),
}

/// A body in which the steps of a profile were taken.
pub struct JoseBody {
    pub content: Zeroizing<Vec<u8>>,
    /// Its content type, if that is another one.
    pub content_type: Option<HeaderValue>,
}

/// Shows nothing of the content.
impl std::fmt::Debug for JoseBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("JoseBody").field("content_type", &self.content_type).finish_non_exhaustive()
    }
}

/// The place of a message and of its content, as the names on the way of a JSON pointer.
#[derive(Clone, Debug)]
struct FieldPlaces {
    from: Vec<String>,
    to: Vec<String>,
}

impl FieldPlaces {
    fn of(from: &str, to: &str) -> Self {
        Self { from: steps(from), to: steps(to) }
    }

    /// Returns what `from` names: a JSON string as its text, anything else as it is written.
    fn take(&self, body: &str) -> Option<Zeroizing<String>> {
        if self.from.is_empty() {
            return Some(Zeroizing::new(body.to_owned()));
        }
        let raw = find(body, &self.from)?;
        let text = if raw.starts_with('"') { serde_json::from_str(raw).ok()? } else { raw.to_owned() };
        Some(Zeroizing::new(text))
    }

    /// Puts a value, which is JSON unless it becomes all of the body, in the place of what [`FieldPlaces::take`] took.
    fn put(&self, body: &str, value: &str) -> Option<Zeroizing<String>> {
        if self.to.is_empty() {
            return Some(Zeroizing::new(value.to_owned()));
        }
        if self.from.is_empty() {
            return put("{}", &self.to, value);
        }
        if self.from == self.to {
            return put(body, &self.to, value);
        }
        put(&without(body, &self.from)?, &self.to, value)
    }
}

/// A key for which messages are encrypted.
#[derive(Clone, Debug)]
enum Recipient {
    Public(PublicKey),
    Secret(Arc<SharedSecret>),
}

impl Recipient {
    fn key(&self) -> EncryptionKey<'_> {
        match self {
            Recipient::Public(key) => EncryptionKey::Public(key),
            Recipient::Secret(secret) => EncryptionKey::Secret(secret),
        }
    }
}

#[derive(Clone, Debug)]
enum ProtectStep {
    Encrypt { recipient: Recipient, name: Option<String>, recipe: JweRecipe, header: CompiledMembers },
    Sign { key: CompiledKey, header: CompiledMembers },
}

/// `[[request.jose]]` with the settings put in.
#[derive(Clone, Debug)]
pub(super) struct CompiledJoseProtection {
    step: ProtectStep,
    places: FieldPlaces,
    content_type: HeaderValue,
}

impl CompiledJoseProtection {
    /// Finds the keys among the settings. The error is for a person.
    pub(super) fn compile(rule: &RequestJoseRule, settings: &Settings) -> Result<Self, String> {
        let members = |header: &HeaderRule| CompiledMembers::compile(&header.members, &header.numbers, settings);
        let step = match &rule.form {
            ProtectForm::Encrypt { keys, recipe, header } => {
                let name = keys.settings.first().ok_or("no key is named")?;
                let (recipient, id) = match settings.find(name) {
                    Some(SettingValue::PublicKeys(keys)) => {
                        let needs = || format!("`{name}` holds no key for {}", recipe.management.name());
                        let (key, id) = keys.recipient(recipe.management).ok_or_else(needs)?;
                        (Recipient::Public(key.clone()), id.map(ToOwned::to_owned))
                    }
                    Some(SettingValue::Text(text)) => {
                        (Recipient::Secret(Arc::new(secret(name, text, keys.encoding)?)), None)
                    }
                    Some(SettingValue::Key(_) | SettingValue::Table(_)) | None => {
                        return Err(format!("requests are encrypted for `{name}`, which is not set"));
                    }
                };
                judge_key(name, *recipe, recipient.key())?;
                ProtectStep::Encrypt { recipient, name: id, recipe: *recipe, header: members(header)? }
            }
            ProtectForm::Sign { key, header } => {
                let unset = || format!("bodies are signed with `{}`, which is not set", key.setting);
                let compiled = CompiledKey::find(key, None, settings)?.ok_or_else(unset)?;
                ProtectStep::Sign { key: compiled, header: members(header)? }
            }
        };
        Ok(Self { step, places: FieldPlaces::of(&rule.from, &rule.to), content_type: rule.content_type.clone() })
    }

    /// Returns the word of its form, and its algorithms.
    pub(super) fn outline(&self) -> (&'static str, String) {
        match &self.step {
            ProtectStep::Encrypt { recipe, .. } => {
                ("jwe", format!("{}, {}", recipe.management.name(), recipe.encryption.name()))
            }
            ProtectStep::Sign { key, .. } => ("jws", key.algorithm().to_string()),
        }
    }

    /// Returns the JSON pointers to what it takes and to where it goes; empty: all of the body.
    pub(super) fn places(&self) -> (String, String) {
        (pointer(&self.places.from), pointer(&self.places.to))
    }

    /// Adds the declared identifiers that it needs.
    pub(super) fn ids(&self, found: &mut Vec<Arc<IdRule>>) {
        let (ProtectStep::Encrypt { header, .. } | ProtectStep::Sign { header, .. }) = &self.step;
        header.ids(found);
    }
}

/// Takes the steps of a request's body, one after the other.
pub(super) async fn protect<E: Entropy + Clone + Send + 'static>(
    protections: &[CompiledJoseProtection],
    view: SignedView<'_>,
    inputs: &mut SigningInputs<'_>,
    entropy: &E,
) -> Result<JoseBody, SignatureFailure> {
    if is_coded(view.headers) {
        return Err(CODED);
    }
    let mut body = Zeroizing::new(std::str::from_utf8(view.body).map_err(|_| ABSENT)?.to_owned());
    let mut content_type = None;
    for CompiledJoseProtection { step, places, content_type: kind } in protections {
        let content = places.take(&body).ok_or(ABSENT)?;
        let message = match step {
            ProtectStep::Encrypt { recipient, name, recipe, header } => {
                let mut members = header.render(&mut inputs.fill(&view))?;
                if let Some(name) = name {
                    members.entry("kid").or_insert_with(|| name.as_str().into());
                }
                let (recipient, recipe, mut entropy) = (recipient.clone(), *recipe, entropy.clone());
                let encrypt = move || jwe::encrypt(recipe, &members, content.as_bytes(), recipient.key(), &mut entropy);
                let encrypted = PrivateKeyPool::of_process().run(inputs.within, encrypt).await;
                let encrypted = encrypted.map_err(|error| SigningError::Unavailable(error.to_string()))?;
                encrypted.map_err(|_| SigningError::Failed)?
            }
            ProtectStep::Sign { key, header } => {
                let members = header.render(&mut inputs.fill(&view))?;
                let header = JwsHeader::new(key.algorithm(), members).map_err(|_| HEADER)?;
                let unsigned = header.over(content.as_bytes(), PayloadForm::Attached).map_err(|_| HEADER)?;
                let signature = key.sign(unsigned.input(), inputs.within).await?;
                unsigned.complete(&signature).map_err(|_| SigningError::Failed)?
            }
        };
        if places.to.is_empty() {
            content_type = Some(kind.clone());
            body = Zeroizing::new(message);
        } else {
            body = places.put(&body, &quoted(&message)).ok_or(ABSENT)?;
            if places.from.is_empty() {
                content_type = Some(HeaderValue::from_static("application/json"));
            }
        }
    }
    Ok(JoseBody { content: Zeroizing::new(body.as_bytes().to_vec()), content_type })
}

/// A key that opens messages, with its name.
#[derive(Clone, Debug)]
struct OpeningKey {
    name: Option<String>,
    key: Arc<SigningKey>,
}

impl OpeningKey {
    fn key(&self) -> DecryptionKey<'_> {
        match &*self.key {
            SigningKey::Private(key) => DecryptionKey::Private(key),
            SigningKey::Secret(secret) => DecryptionKey::Secret(secret),
        }
    }
}

/// Keys that verify.
#[derive(Debug)]
pub(super) enum Verifier {
    Public(Arc<PublicKeySet>),
    Secret(VerifyingKey),
}

impl Verifier {
    /// Finds the keys among the settings; a successor that is not set is left out. The error is for a person.
    pub(super) fn find_all(keys: &JoseKeys, settings: &Settings) -> Result<Vec<Self>, String> {
        let find = |name: &Arc<str>| match settings.find(name) {
            Some(SettingValue::PublicKeys(set)) => Ok(Verifier::Public(set.clone())),
            Some(SettingValue::Text(text)) => {
                Ok(Verifier::Secret(VerifyingKey::Secret(secret(name, text, keys.encoding)?)))
            }
            Some(SettingValue::Key(_) | SettingValue::Table(_)) | None => Err(unset(name)),
        };
        let found: Vec<Self> = set_ones(keys, settings).map(find).collect::<Result<_, _>>()?;
        if found.is_empty() { Err(NO_KEY.to_owned()) } else { Ok(found) }
    }

    /// Tries the key that goes by this name, for this algorithm. `None`: there is none.
    pub(super) fn try_with<T>(
        &self,
        named: Option<&str>,
        algorithm: SigningAlgorithm,
        verify: impl Fn(&VerifyingKey) -> T,
    ) -> Option<T> {
        match self {
            Verifier::Public(set) => Some(verify(&VerifyingKey::Public(set.find(named, algorithm)?.clone()))),
            Verifier::Secret(secret) => Some(verify(secret)),
        }
    }
}

const NO_KEY: &str = "the profile opens or verifies messages with keys of which none is set";

fn unset(name: &str) -> String {
    format!("messages are opened with `{name}`, which is not set")
}

#[derive(Debug)]
enum OpenStep {
    Decrypt { keys: Vec<OpeningKey>, recipe: JweRecipe },
    Verify { keys: Vec<Verifier>, algorithm: SigningAlgorithm, understood: Vec<String>, detached: Option<HeaderName> },
}

#[derive(Debug)]
struct CompiledJoseOpening {
    step: OpenStep,
    places: FieldPlaces,
    is_text: bool,
    content_type: HeaderValue,
}

/// `[response]` or `[webhook]` with the settings put in: opens and verifies the provider's messages.
#[derive(Clone, Debug)]
pub struct MessageOpener(Arc<OpenerParts>);

#[derive(Debug)]
struct OpenerParts {
    verifications: Vec<CompiledVerification>,
    openings: Vec<CompiledJoseOpening>,
    opens_errors: bool,
}

/// A message that was opened and verified.
#[derive(Debug)]
pub enum OpenedMessage {
    /// Its body is what was in the message.
    Opened(JoseBody),
    /// It was verified only: its body, as it came.
    Verified(Vec<u8>),
}

impl OpenedMessage {
    /// Returns the body, and its content type if that is another one.
    pub fn into_body(self) -> (Zeroizing<Vec<u8>>, Option<HeaderValue>) {
        match self {
            OpenedMessage::Opened(JoseBody { content, content_type }) => (content, content_type),
            OpenedMessage::Verified(body) => (Zeroizing::new(body), None),
        }
    }
}

/// Returns whether an answer with this status never has a body.
const fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT | StatusCode::NOT_MODIFIED)
}

impl MessageOpener {
    /// Finds the keys among the settings. `None`: messages pass as they come. The error is for a person.
    pub(super) fn compile(rules: &OpeningRules, settings: &Settings) -> Result<Option<Self>, String> {
        let verifications = rules.signatures.iter().map(|rule| CompiledVerification::compile(rule, settings));
        let openings = rules.jose.iter().map(|rule| CompiledJoseOpening::compile(rule, settings));
        let verifications: Vec<CompiledVerification> = verifications.collect::<Result<_, _>>()?;
        let openings: Vec<CompiledJoseOpening> = openings.collect::<Result<_, _>>()?;
        let is_idle = verifications.is_empty() && openings.is_empty();
        let parts = OpenerParts { verifications, openings, opens_errors: rules.opens_errors };
        Ok((!is_idle).then(|| Self(Arc::new(parts))))
    }

    /// Returns whether answers with this status are opened. Those that never have a body can only be verified.
    pub(super) fn opens(&self, status: StatusCode) -> bool {
        let is_message =
            status != StatusCode::SWITCHING_PROTOCOLS && (!has_no_body(status) || !self.0.verifications.is_empty());
        is_message && (self.0.opens_errors || status.as_u16() < 400)
    }

    /// Opens a message whose body is no longer than `most` bytes, also decoded: it is verified and decrypted as a whole.
    pub async fn open(
        &self,
        head: SignedHead,
        body: Vec<u8>,
        most: usize,
        now: Now,
        within: Within,
    ) -> Result<OpenedMessage, OpenFailure> {
        let parts = self.0.clone();
        PrivateKeyPool::of_process().run(within, move || parts.open(&head, Zeroizing::new(body), most, now)).await?
    }
}

impl OpenerParts {
    fn open(
        &self,
        head: &SignedHead,
        raw: Zeroizing<Vec<u8>>,
        most: usize,
        now: Now,
    ) -> Result<OpenedMessage, OpenFailure> {
        let headers = head.headers();
        let is_sealed =
            !self.openings.is_empty() && !matches!(head, SignedHead::Answer { status, .. } if has_no_body(*status));
        let reads_content = is_sealed || self.verifications.iter().any(CompiledVerification::reads_content);
        let decoded = if reads_content && headers.contains_key(CONTENT_ENCODING) {
            let decoded = without_coding(headers, &raw, most).map_err(|_| OpenFailure::Coded)?;
            Some(Zeroizing::new(decoded.into_owned()))
        } else {
            None
        };
        let body = SignedBody { raw: &raw, decoded: decoded.as_ref().unwrap_or(&raw) };
        for verification in &self.verifications {
            verification.verify(head, body, now)?;
        }
        if !is_sealed {
            return Ok(OpenedMessage::Verified(raw.to_vec()));
        }
        let signatures = |opening: &CompiledJoseOpening| opening.signature(headers);
        let signatures: Vec<Option<String>> = self.openings.iter().map(signatures).collect();
        open(&self.openings, &signatures, decoded.unwrap_or(raw)).map(OpenedMessage::Opened)
    }
}

/// Takes the steps of an answer, one after the other. `signatures`: the detached one of each step.
fn open(
    openings: &[CompiledJoseOpening],
    signatures: &[Option<String>],
    mut body: Zeroizing<Vec<u8>>,
) -> Result<JoseBody, OpenFailure> {
    let mut content_type = None;
    for (opening, signature) in openings.iter().zip(signatures) {
        let CompiledJoseOpening { step, places, is_text, content_type: kind } = opening;
        let content = match step {
            OpenStep::Verify { keys, algorithm, understood, detached } => {
                let understood: Vec<&str> = understood.iter().map(String::as_str).collect();
                let check = |most| JwsCheck { algorithm: *algorithm, understood: &understood, most };
                if detached.is_some() {
                    let signature = signature.as_deref().ok_or(OpenFailure::Absent)?;
                    let check = check(signature.len());
                    let verify = |key: &_| verify::verify_detached(signature, &body, &check, key).map(drop);
                    verified(keys, signature, *algorithm, verify)?;
                    continue;
                }
                let message = message(places, &body)?;
                let check = check(message.len());
                let verify = |key: &_| verify::verify_attached(&message, &check, key).map(|jws| jws.payload);
                Zeroizing::new(verified(keys, &message, *algorithm, verify)?)
            }
            OpenStep::Decrypt { keys, recipe } => {
                let message = message(places, &body)?;
                let named = verify::unverified_key_id(&message);
                let is_candidate = |key: &&OpeningKey| match (&named, &key.name) {
                    (Some(named), Some(known)) => named == known,
                    (_, _) => true,
                };
                let opened = keys.iter().filter(is_candidate);
                let mut opened =
                    opened.filter_map(|key| jwe::decrypt(&message, *recipe, key.key(), message.len()).ok());
                opened.next().ok_or(OpenFailure::Refused)?.plaintext
            }
        };
        if places.to.is_empty() {
            content_type = Some(kind.clone());
            body = content;
            continue;
        }
        let text = std::str::from_utf8(&content).map_err(|_| OpenFailure::Content)?;
        let is_json = !is_text && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok();
        let value = Zeroizing::new(if is_json { text.to_owned() } else { quoted(text) });
        let whole = std::str::from_utf8(&body).map_err(|_| OpenFailure::Absent)?;
        let put = places.put(whole, &value).ok_or(OpenFailure::Absent)?;
        if places.from.is_empty() {
            content_type = Some(HeaderValue::from_static("application/json"));
        }
        body = Zeroizing::new(put.as_bytes().to_vec());
    }
    Ok(JoseBody { content: body, content_type })
}

/// Verifies a message by the keys that it may be signed by: those of the name that it states.
fn verified<T>(
    keys: &[Verifier],
    message: &str,
    algorithm: SigningAlgorithm,
    verify: impl Fn(&VerifyingKey) -> Result<T, JwsRefused>,
) -> Result<T, OpenFailure> {
    let named = verify::unverified_key_id(message);
    let mut tried = keys.iter().filter_map(|key| key.try_with(named.as_deref(), algorithm, &verify)?.ok());
    tried.next().ok_or(OpenFailure::Refused)
}

impl CompiledJoseOpening {
    fn compile(rule: &ResponseJoseRule, settings: &Settings) -> Result<Self, String> {
        let step = match &rule.form {
            OpenForm::Decrypt { keys, recipe } => {
                let find = |name: &Arc<str>| match settings.find(name) {
                    Some(SettingValue::Key(material)) => {
                        let key = material.in_memory().ok_or_else(|| format!("`{name}` decrypts nothing here"))?;
                        Ok(OpeningKey { name: material.id().map(ToOwned::to_owned), key: key.clone() })
                    }
                    Some(SettingValue::Text(text)) => {
                        let secret = secret(name, text, keys.encoding)?;
                        judge_key(name, *recipe, EncryptionKey::Secret(&secret))?;
                        Ok(OpeningKey { name: None, key: Arc::new(SigningKey::Secret(secret)) })
                    }
                    Some(SettingValue::PublicKeys(_) | SettingValue::Table(_)) | None => Err(unset(name)),
                };
                OpenStep::Decrypt {
                    keys: set_ones(keys, settings).map(find).collect::<Result<_, _>>()?,
                    recipe: *recipe,
                }
            }
            OpenForm::Verify { keys, algorithm, understood, detached } => OpenStep::Verify {
                keys: Verifier::find_all(keys, settings)?,
                algorithm: *algorithm,
                understood: understood.clone(),
                detached: detached.clone(),
            },
        };
        if matches!(&step, OpenStep::Decrypt { keys, .. } if keys.is_empty()) {
            return Err(NO_KEY.to_owned());
        }
        Ok(Self {
            step,
            places: FieldPlaces::of(&rule.from, &rule.to),
            is_text: rule.is_text,
            content_type: rule.content_type.clone(),
        })
    }

    /// The detached signature on an answer, if its step is one and there is exactly one.
    fn signature(&self, headers: &HeaderMap) -> Option<String> {
        let OpenStep::Verify { detached: Some(name), .. } = &self.step else { return None };
        let mut values = headers.get_all(name).iter();
        let (Some(one), None) = (values.next(), values.next()) else { return None };
        one.to_str().ok().map(ToOwned::to_owned)
    }
}

/// The keys that are set: the successor of a key may be optional.
fn set_ones<'a>(keys: &'a JoseKeys, settings: &'a Settings) -> impl Iterator<Item = &'a Arc<str>> {
    keys.settings.iter().filter(|name| settings.find(name).is_some())
}

/// Reads the shared secret that a text holds.
fn secret(name: &str, text: &SecretString, encoding: Option<TextEncoding>) -> Result<SharedSecret, String> {
    let bytes = secret_bytes(text, encoding).map_err(|why| format!("`{name}`: {why}"))?;
    SharedSecret::as_issued(bytes).map_err(|error| format!("`{name}`: {error}"))
}

/// Tries whether a key fits a recipe: the length of a secret counts, too. The error is for a person.
fn judge_key(name: &str, recipe: JweRecipe, key: EncryptionKey<'_>) -> Result<(), String> {
    let tried = jwe::encrypt(recipe, &serde_json::Map::new(), b"", key, &mut LibraryEntropy);
    tried.map(drop).map_err(|error| format!("`{name}`: {error}"))
}

/// The compact message at a place of a body.
fn message(places: &FieldPlaces, body: &[u8]) -> Result<Zeroizing<String>, OpenFailure> {
    let body = std::str::from_utf8(body).map_err(|_| OpenFailure::Absent)?;
    let taken = places.take(body.trim_ascii()).ok_or(OpenFailure::Absent)?;
    let is_compact = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let fits = !taken.is_empty() && taken.bytes().all(is_compact);
    if fits { Ok(taken) } else { Err(OpenFailure::Absent) }
}

#[cfg(test)]
mod tests;
