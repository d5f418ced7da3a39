//! A signature with the settings of one provider put in, and signing with it.
//!
//! Signing takes turns with the signer: the bytes of one signature are made, the signer signs them, the text goes on the
//! message, and the next signature may cover it. All times and declared identifiers are those of the message.

use std::sync::Arc;
use std::time::Duration;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::base::id::Ids;
use crate::base::secret::{ExposeSecret, SecretString, sha256};
use crate::base::time::Within;
use crate::base::vars::Vars;
use crate::provider::exchange::{Field, Filled, write_object};
use crate::provider::id_rule::IdRule;
use crate::provider::message_values::{Fresh, MessageValues};
use crate::provider::setting::{SettingValue, Settings};
use crate::provider::signature_rule::{
    AlgorithmChoice, DigestRule, JwtTemplate, KeyChoice, ParameterRule, SignatureForm, SignatureRule,
};
use crate::provider::template::{
    ConsentVariables, Fill, FilledText, MessagePart, SignedView, Template, TemplateSegment,
};
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::cavage::{CavageField, CavageSignature, UnsignedCavage};
use crate::signing::claims::Claims;
use crate::signing::encoding::{TextEncoding, base64};
use crate::signing::http_signature::{
    CoveredComponent, HttpMessage, SignatureParameter, SignatureParameters, UnsignedHttpSignature,
};
use crate::signing::jws::{JwsHeader, PayloadForm, UnsignedJws};
use crate::signing::key::SigningKey;
use crate::signing::minified_json::minified_json;
use crate::signing::oauth1::{OAuth1Method, OAuth1Request, UnsignedOAuth1, hmac_secret};
use crate::signing::public_key::PublicKey;
use crate::signing::request_parts::RequestParts;
use crate::signing::shared_secret::SharedSecret;
use crate::signing::signature::DigitalSignature;
use crate::signing::signer::{Signer, SigningError};
use crate::token::grant::CallPlace;

/// The reason for which a message cannot be signed.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
pub enum SignatureFailure {
    /// The signer does not sign now.
    #[error("the message cannot be signed: {0}")]
    Signer(#[from] SigningError),
    /// The message lacks something that is signed, or has it in a form that cannot be. The text holds nothing of it.
    #[error("{0}")]
    Unfit(&'static str),
}

const MISSING: SignatureFailure = SignatureFailure::Unfit(
    "The provider's signature covers a header field, a variable or another part that this request lacks, or that cannot \
     be signed as it is.",
);
const NO_JSON: SignatureFailure =
    SignatureFailure::Unfit("The provider's signature covers the body as JSON, and the body is none.");

/// A key with the algorithm by which it signs.
#[derive(Clone, Debug)]
pub(super) struct CompiledKey {
    signer: Arc<dyn Signer>,
    algorithm: SigningAlgorithm,
}

impl CompiledKey {
    /// Finds the key among the settings. `None`: the setting is optional, and not set. The error is for a person.
    pub(super) fn find(
        choice: &KeyChoice,
        form: Option<&SignatureForm>,
        settings: &Settings,
    ) -> Result<Option<Self>, String> {
        let name = &choice.setting;
        let algorithm = match &choice.algorithm {
            AlgorithmChoice::Fixed(algorithm) => *algorithm,
            AlgorithmChoice::Setting(setting) => {
                let word = settings.text(setting).ok_or_else(|| format!("`{setting}` is not set"))?;
                SigningAlgorithm::parse(word).map_err(|error| format!("`{setting}` names no algorithm: {error}"))?
            }
        };
        let signer: Arc<dyn Signer> = match settings.find(name) {
            None => return Ok(None),
            Some(SettingValue::Key(material)) => {
                material.check(algorithm).map_err(|error| format!("`{name}`: {error}"))?;
                material.signer().clone()
            }
            Some(SettingValue::PublicKeys(_)) => return Err(format!("`{name}` is a public key, which signs nothing")),
            Some(SettingValue::Table(_)) => return Err(format!("`{name}` is a table, not a key")),
            Some(SettingValue::Text(text)) => {
                let secret = secret(text, choice.encoding, form).map_err(|error| format!("`{name}`: {error}"))?;
                let key = SigningKey::Secret(secret);
                // Its length counts, too.
                key.sign(algorithm, b"").map_err(|error| format!("`{name}`: {error}"))?;
                Arc::new(key)
            }
        };
        Ok(Some(Self { signer, algorithm }))
    }

    /// Returns the algorithm by which it signs.
    pub(super) const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// Returns its public half; a shared secret has none.
    pub(super) fn public_key(&self) -> Option<PublicKey> {
        self.signer.public_key()
    }

    /// The same algorithm with another signer.
    pub(super) const fn signed_by(&self, signer: Arc<dyn Signer>) -> Self {
        Self { signer, algorithm: self.algorithm }
    }

    /// Signs what was prepared.
    pub(super) async fn sign(&self, bytes: &[u8], within: Within) -> Result<DigitalSignature, SignatureFailure> {
        Ok(self.signer.sign(self.algorithm, bytes, within).await?)
    }
}

/// The key of authentication codes that a text holds.
fn secret(
    text: &SecretString,
    encoding: Option<TextEncoding>,
    form: Option<&SignatureForm>,
) -> Result<SharedSecret, String> {
    let is_oauth1 = matches!(form, Some(SignatureForm::OAuth1 { .. }));
    if is_oauth1 {
        return hmac_secret(text, None).map_err(|error| error.to_string());
    }
    let bytes = secret_bytes(text, encoding)?;
    // The length of a secret for JOSE is a rule of its own (RFC 7518 section 3.2); elsewhere the bank has chosen it.
    let made = match form {
        Some(SignatureForm::Text { .. } | SignatureForm::Cavage { .. } | SignatureForm::Http { .. }) => {
            SharedSecret::as_issued(bytes)
        }
        Some(SignatureForm::Jws { .. } | SignatureForm::Jwt(_) | SignatureForm::OAuth1 { .. }) | None => {
            SharedSecret::new(bytes)
        }
    };
    made.map_err(|error| error.to_string())
}

/// The bytes of a secret that a text holds. The error is for a person.
pub(super) fn secret_bytes(
    text: &SecretString,
    encoding: Option<TextEncoding>,
) -> Result<Zeroizing<Vec<u8>>, &'static str> {
    let bytes = match encoding {
        None => text.expose_secret().as_bytes().to_vec(),
        Some(encoding) => encoding.decode(text.expose_secret()).ok_or("it is not in the encoding of `key_encoding`")?,
    };
    Ok(Zeroizing::new(bytes))
}

/// The members of a JSON object with the settings put in.
#[derive(Clone, Debug)]
pub(super) struct CompiledMembers {
    members: Vec<(String, Filled)>,
    numbers: Vec<String>,
}

impl CompiledMembers {
    pub(super) fn compile(fields: &[(String, Field)], numbers: &[String], settings: &Settings) -> Result<Self, String> {
        let mut templates = Vec::new();
        fields.iter().for_each(|(_, field)| field.templates(&mut templates));
        templates.into_iter().try_for_each(|template| has_key_statements(template, settings))?;
        let resolve = |(name, field): &(String, Field)| Some((name.clone(), field.resolve(settings)?));
        Ok(Self { members: fields.iter().filter_map(resolve).collect(), numbers: numbers.to_vec() })
    }

    pub(super) fn ids(&self, found: &mut Vec<Arc<IdRule>>) {
        self.members.iter().for_each(|(_, member)| member.ids(found));
    }

    pub(super) fn vars(&self, found: &mut Vec<Arc<str>>) {
        self.members.iter().for_each(|(_, member)| member.vars(found));
    }

    pub(super) fn render(&self, fill: &mut Fill<'_>) -> Result<Map<String, Value>, SignatureFailure> {
        let mut text = Zeroizing::new(Vec::with_capacity(256));
        write_object(&self.members, fill, &mut text);
        let mut members: Map<String, Value> = serde_json::from_slice(&text).map_err(|_| MISSING)?;
        for name in &self.numbers {
            if let Some(value) = members.get_mut(name)
                && let Some(text) = value.as_str()
            {
                *value = Value::from(text.parse::<i64>().map_err(|_| MISSING)?);
            }
        }
        Ok(members)
    }
}

/// A JSON Web Token with the settings put in.
#[derive(Clone, Debug)]
pub(super) struct CompiledJwt {
    header: CompiledMembers,
    claims: CompiledMembers,
    life: Duration,
}

impl CompiledJwt {
    pub(super) fn compile(rule: &JwtTemplate, settings: &Settings) -> Result<Self, String> {
        Ok(Self {
            header: CompiledMembers::compile(&rule.header, &rule.numbers, settings)?,
            claims: CompiledMembers::compile(&rule.claims, &rule.numbers, settings)?,
            life: rule.life,
        })
    }

    /// The declared identifiers that it needs.
    pub(super) fn ids(&self, found: &mut Vec<Arc<IdRule>>) {
        self.header.ids(found);
        self.claims.ids(found);
    }

    pub(super) fn vars(&self, found: &mut Vec<Arc<str>>) {
        self.header.vars(found);
        self.claims.vars(found);
    }

    /// Builds the token. `usual` are claims that the profile's own replace; `jti`, `iat` and `exp` are made for each.
    pub(super) fn unsigned(
        &self,
        key: &CompiledKey,
        usual: Claims,
        fill: &mut Fill<'_>,
    ) -> Result<UnsignedJws, SignatureFailure> {
        let now = fill.values.map_or(0, |values| values.instant(Fresh::Attempt).unix_seconds());
        let header = JwsHeader::new(key.algorithm, self.header.render(fill)?).map_err(|_| MISSING)?;
        let id = fill.ids.fresh().hyphenated().to_string();
        let mut claims = usual.id(&id).issued_at(now).expires_at(now.saturating_add(self.life.as_secs()));
        for (name, value) in self.claims.render(fill)? {
            claims = claims.with(&name, value);
        }
        claims.under(&header).map_err(|_| MISSING)
    }
}

#[derive(Clone, Debug)]
enum CompiledForm {
    Cavage { key_id: FilledText, algorithm: Option<String>, fields: Vec<CavageField>, life: Duration },
    Http { label: String, components: Vec<CoveredComponent>, parameters: Vec<CompiledParameter> },
    Jws { payload: PayloadForm, header: CompiledMembers },
    Jwt(CompiledJwt),
    OAuth1 { consumer_key: FilledText, token: Option<FilledText>, realm: Option<String>, body_hash: bool },
    Text { text: FilledText, encoding: TextEncoding, der: bool },
}

#[derive(Clone, Debug)]
enum CompiledParameter {
    Alg,
    Created,
    Expires(Duration),
    KeyId(FilledText),
    Nonce,
    Tag(FilledText),
}

/// A signature of a message, compiled.
#[derive(Clone, Debug)]
pub(super) struct CompiledSignature {
    key: CompiledKey,
    place: CallPlace,
    value: FilledText,
    digest: Option<DigestRule>,
    names_digest: bool,
    form: CompiledForm,
    /// Where it puts anything.
    places: Vec<CallPlace>,
    /// The header field without which it is not made: that of a challenge.
    pub only_with: Option<HeaderName>,
    /// The methods of the requests that it is made for; empty: all.
    methods: Vec<String>,
}

/// Checks that a key has what a template says of it.
fn has_key_statements(template: &Template, settings: &Settings) -> Result<(), String> {
    for segment in &template.segments {
        if let TemplateSegment::Key(name, statement) = segment
            && let Some(key) = settings.key(name)
            && key.statement(*statement).is_none()
        {
            let needed = statement.needs().unwrap_or("file");
            return Err(format!("the profile's signature names what `{name}` lacks: give it `{needed} = \"…\"`"));
        }
    }
    Ok(())
}

fn filled(template: &Template, settings: &Settings) -> Result<FilledText, String> {
    has_key_statements(template, settings)?;
    template.resolve(settings).ok_or_else(|| "a signature of the profile names a setting that is not set".to_owned())
}

impl CompiledSignature {
    /// Puts the settings in. `None`: its key is optional, and not set. The error is for a person.
    pub(super) fn compile(rule: &SignatureRule, settings: &Settings) -> Result<Option<Self>, String> {
        let Some(key) = CompiledKey::find(&rule.key, Some(&rule.form), settings)? else { return Ok(None) };
        rule.form.check(key.algorithm)?;
        let form = match &rule.form {
            SignatureForm::Cavage { key_id, algorithm, fields, life } => CompiledForm::Cavage {
                key_id: filled(key_id, settings)?,
                algorithm: algorithm.clone(),
                fields: fields.clone(),
                life: *life,
            },
            SignatureForm::Http { label, components, parameters } => {
                let parameters = parameters.iter().map(|parameter| {
                    Ok(match parameter {
                        ParameterRule::Alg => CompiledParameter::Alg,
                        ParameterRule::Created => CompiledParameter::Created,
                        ParameterRule::Expires(life) => CompiledParameter::Expires(*life),
                        ParameterRule::KeyId(template) => CompiledParameter::KeyId(filled(template, settings)?),
                        ParameterRule::Nonce => CompiledParameter::Nonce,
                        ParameterRule::Tag(template) => CompiledParameter::Tag(filled(template, settings)?),
                    })
                });
                let parameters = parameters.collect::<Result<_, String>>()?;
                CompiledForm::Http { label: label.clone(), components: components.clone(), parameters }
            }
            SignatureForm::Jws { payload, header, numbers } => {
                CompiledForm::Jws { payload: *payload, header: CompiledMembers::compile(header, numbers, settings)? }
            }
            SignatureForm::Jwt(jwt) => CompiledForm::Jwt(CompiledJwt::compile(jwt, settings)?),
            SignatureForm::OAuth1 { consumer_key, token, realm, body_hash } => CompiledForm::OAuth1 {
                consumer_key: filled(consumer_key, settings)?,
                token: token.as_ref().map(|token| filled(token, settings)).transpose()?,
                realm: realm.clone(),
                body_hash: *body_hash,
            },
            SignatureForm::Text { text, encoding, der } => {
                CompiledForm::Text { text: filled(text, settings)?, encoding: *encoding, der: *der }
            }
        };
        let names_digest =
            rule.templates().iter().any(|template| template.parts().any(|part| *part == MessagePart::BodyDigest));
        Ok(Some(Self {
            key,
            place: rule.place.clone(),
            value: filled(&rule.value, settings)?,
            digest: rule.digest.clone(),
            names_digest,
            form,
            places: rule.places(),
            only_with: None,
            methods: rule.methods.clone(),
        }))
    }

    /// Returns whether it is made for requests of this method.
    pub(super) fn is_for(&self, method: &str) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|known| known == method)
    }

    /// Its places on a message: its own, and those of what it needs beside it.
    pub(super) fn places(&self) -> impl Iterator<Item = &CallPlace> {
        self.places.iter()
    }

    /// The same signature, made by another signer.
    pub(super) fn signed_by(self, signer: Arc<dyn Signer>) -> Self {
        Self { key: self.key.signed_by(signer), ..self }
    }

    /// Its place, the word of its form, and its algorithm.
    pub(super) const fn outline(&self) -> (&CallPlace, &'static str, SigningAlgorithm) {
        let form = match &self.form {
            CompiledForm::Cavage { .. } => "cavage",
            CompiledForm::Http { .. } => "http",
            CompiledForm::Jws { payload: PayloadForm::Attached, .. } => "jws",
            CompiledForm::Jws { payload: PayloadForm::Detached, .. } => "jws-detached",
            CompiledForm::Jws { payload: PayloadForm::Unencoded, .. } => "jws-unencoded",
            CompiledForm::Jwt(_) => "jwt",
            CompiledForm::OAuth1 { .. } => "oauth1",
            CompiledForm::Text { .. } => "text",
        };
        (&self.place, form, self.key.algorithm)
    }

    /// The texts in which it may state the digest of a body.
    pub(super) fn digest_texts(&self, body: &[u8]) -> Result<Vec<String>, SignatureFailure> {
        let stated = self.digest_of(body)?.zip(self.digest.as_ref()).map(|(BodyDigest { text, bytes }, rule)| {
            vec![rule.algorithm.field(&bytes), rule.algorithm.old_field(&bytes), text]
        });
        let mut texts = stated.unwrap_or_default();
        if let CompiledForm::OAuth1 { body_hash: true, .. } = &self.form {
            // Encoded as a value, and once more as a part of the base string (RFC 5849 section 3.4.1).
            let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
            texts.push(encoded(&encoded(&base64(&sha256(body)))));
        }
        Ok(texts)
    }

    /// Returns whether it becomes a field of the body.
    pub(super) const fn is_field(&self) -> bool {
        matches!(self.place, CallPlace::Body(_))
    }

    /// Adds the declared identifiers that it needs.
    pub(super) fn ids(&self, found: &mut Vec<Arc<IdRule>>) {
        found.extend(self.texts().into_iter().flat_map(|text| text.ids().cloned()));
        match &self.form {
            CompiledForm::Jws { header, .. } => header.ids(found),
            CompiledForm::Jwt(jwt) => jwt.ids(found),
            CompiledForm::Cavage { .. }
            | CompiledForm::Http { .. }
            | CompiledForm::OAuth1 { .. }
            | CompiledForm::Text { .. } => {}
        }
    }

    /// Adds the route variables that it needs.
    pub(super) fn vars(&self, found: &mut Vec<Arc<str>>) {
        found.extend(self.texts().into_iter().flat_map(|text| text.vars().cloned()));
        match &self.form {
            CompiledForm::Jws { header, .. } => header.vars(found),
            CompiledForm::Jwt(jwt) => jwt.vars(found),
            CompiledForm::Cavage { .. }
            | CompiledForm::Http { .. }
            | CompiledForm::OAuth1 { .. }
            | CompiledForm::Text { .. } => {}
        }
    }

    fn texts(&self) -> Vec<&FilledText> {
        let mut texts = vec![&self.value];
        match &self.form {
            CompiledForm::Cavage { key_id, .. } => texts.push(key_id),
            CompiledForm::Http { parameters, .. } => texts.extend(parameters.iter().filter_map(|one| match one {
                CompiledParameter::KeyId(text) | CompiledParameter::Tag(text) => Some(text),
                CompiledParameter::Alg
                | CompiledParameter::Created
                | CompiledParameter::Expires(_)
                | CompiledParameter::Nonce => None,
            })),
            CompiledForm::Jws { .. } | CompiledForm::Jwt(_) => {}
            CompiledForm::OAuth1 { consumer_key, token, .. } => texts.extend([consumer_key].into_iter().chain(token)),
            CompiledForm::Text { text, .. } => texts.push(text),
        }
        texts
    }

    /// The digest of the body, where anything states it.
    fn digest_of(&self, body: &[u8]) -> Result<Option<BodyDigest>, SignatureFailure> {
        let Some(rule) = self.digest.as_ref().filter(|rule| rule.field.is_some() || self.names_digest) else {
            return Ok(None);
        };
        let is_minified = rule.minified && !body.is_empty();
        let minified = is_minified.then(|| minified_json(body, body.len()).map_err(|_| NO_JSON)).transpose()?;
        let bytes = Zeroizing::new(minified.unwrap_or_else(|| body.to_vec()));
        Ok(Some(BodyDigest { text: rule.algorithm.text(&bytes, rule.encoding), bytes }))
    }

    /// Makes the bytes to sign.
    fn prepare(
        &self,
        view: &SignedView<'_>,
        inputs: &mut SigningInputs<'_>,
    ) -> Result<UnsignedMessage, SignatureFailure> {
        let now = inputs.values.instant(Fresh::Attempt).unix_seconds();
        let algorithm = self.key.algorithm;
        let (path, query) = view.path_and_query();
        let parts = RequestParts {
            method: view.method,
            scheme: "https",
            authority: view.authority,
            path,
            query,
            headers: view.headers,
        };
        let mut fill = inputs.fill(view);
        Ok(match &self.form {
            CompiledForm::Cavage { key_id, algorithm, fields, life } => {
                let key_id = key_id.render(&mut fill).ok_or(MISSING)?;
                let created = fields.contains(&CavageField::Created).then_some(now);
                let expires = fields.contains(&CavageField::Expires).then(|| now.saturating_add(life.as_secs()));
                let signature =
                    CavageSignature { key_id: &key_id, algorithm: algorithm.as_deref(), created, expires, fields };
                UnsignedMessage::Cavage(signature.over(&parts).map_err(|_| MISSING)?)
            }
            CompiledForm::Http { label, components, parameters } => {
                let mut stated = Vec::with_capacity(parameters.len());
                for parameter in parameters {
                    let mut text =
                        |text: &FilledText| text.render(&mut fill).map(|text| text.to_string()).ok_or(MISSING);
                    stated.push(match parameter {
                        CompiledParameter::Alg => {
                            SignatureParameter::Alg(algorithm.http_name().unwrap_or_default().to_owned())
                        }
                        CompiledParameter::Created => SignatureParameter::Created(now),
                        CompiledParameter::Expires(life) => {
                            SignatureParameter::Expires(now.saturating_add(life.as_secs()))
                        }
                        CompiledParameter::KeyId(id) => SignatureParameter::KeyId(text(id)?),
                        CompiledParameter::Nonce => SignatureParameter::Nonce(fill.ids.fresh().simple().to_string()),
                        CompiledParameter::Tag(tag) => SignatureParameter::Tag(text(tag)?),
                    });
                }
                let parameters = SignatureParameters::new(components.clone(), stated);
                let message = HttpMessage::Request(parts);
                let unsigned = UnsignedHttpSignature::new(&message, label, &parameters, algorithm);
                UnsignedMessage::Http(unsigned.map_err(|_| MISSING)?)
            }
            CompiledForm::Jws { payload, header } => {
                let header = JwsHeader::new(algorithm, header.render(&mut fill)?).map_err(|_| MISSING)?;
                UnsignedMessage::Jws(header.over(view.body, *payload).map_err(|_| MISSING)?)
            }
            CompiledForm::Jwt(jwt) => UnsignedMessage::Jws(jwt.unsigned(&self.key, Claims::new(), &mut fill)?),
            CompiledForm::OAuth1 { consumer_key, token, realm, body_hash } => {
                let consumer_key = consumer_key.render(&mut fill).ok_or(MISSING)?;
                let token = token.as_ref().map(|token| token.render(&mut fill).ok_or(MISSING)).transpose()?;
                let nonce = fill.ids.fresh().simple().to_string();
                let target = format!("https://{}{}", view.authority, view.path_and_query);
                let is_form = view.headers.get(CONTENT_TYPE).is_some_and(|kind| {
                    kind.as_bytes().to_ascii_lowercase().starts_with(b"application/x-www-form-urlencoded")
                });
                let form = if is_form { Some(std::str::from_utf8(view.body).map_err(|_| MISSING)?) } else { None };
                let is_hmac = algorithm == SigningAlgorithm::Hs256;
                let method = if is_hmac { OAuth1Method::HmacSha256 } else { OAuth1Method::RsaSha256 };
                let request = OAuth1Request {
                    method: view.method,
                    target: &target,
                    form,
                    hashed_body: (*body_hash && form.is_none()).then_some(view.body),
                    consumer_key: &consumer_key,
                    token: token.as_ref().map(|token| token.as_str()),
                    nonce: &nonce,
                    timestamp: now,
                    signature_method: method,
                    realm: realm.as_deref(),
                };
                UnsignedMessage::OAuth1(request.unsigned().map_err(|_| MISSING)?)
            }
            CompiledForm::Text { text, encoding, der } => {
                UnsignedMessage::Text(text.render_bytes(&mut fill).ok_or(MISSING)?, *encoding, *der)
            }
        })
    }
}

/// The digest of a body as text, and the bytes that it is of.
struct BodyDigest {
    text: String,
    bytes: Zeroizing<Vec<u8>>,
}

/// A message whose signature is due.
enum UnsignedMessage {
    Cavage(UnsignedCavage),
    Http(UnsignedHttpSignature),
    Jws(UnsignedJws),
    OAuth1(UnsignedOAuth1),
    Text(Zeroizing<Vec<u8>>, TextEncoding, bool),
}

impl UnsignedMessage {
    fn bytes(&self) -> &[u8] {
        match self {
            UnsignedMessage::Cavage(unsigned) => unsigned.signing_string().as_bytes(),
            UnsignedMessage::Http(unsigned) => unsigned.base().as_bytes(),
            UnsignedMessage::Jws(unsigned) => unsigned.input(),
            UnsignedMessage::OAuth1(unsigned) => unsigned.base_string().as_bytes(),
            UnsignedMessage::Text(bytes, _, _) => bytes,
        }
    }

    /// Returns the text of the signature, and the `Signature-Input` of an HTTP message signature.
    fn complete(&self, signature: &DigitalSignature) -> Result<(String, Option<String>), SignatureFailure> {
        let failed = SignatureFailure::Signer(SigningError::Failed);
        Ok(match self {
            UnsignedMessage::Cavage(unsigned) => (unsigned.complete(signature), None),
            UnsignedMessage::Http(unsigned) => {
                let fields = unsigned.complete(signature).map_err(|_| failed)?;
                (fields.signature, Some(fields.input))
            }
            UnsignedMessage::Jws(unsigned) => (unsigned.complete(signature).map_err(|_| failed)?, None),
            UnsignedMessage::OAuth1(unsigned) => (unsigned.complete(signature).map_err(|_| failed)?, None),
            UnsignedMessage::Text(_, encoding, true) => (encoding.encode(&signature.to_der()), None),
            UnsignedMessage::Text(_, encoding, false) => (encoding.encode(signature.bytes()), None),
        })
    }
}

/// The message that signatures go on.
pub(super) struct SignedMessage<'a> {
    pub method: &'a str,
    pub authority: &'a str,
    /// The request target in origin form; a signature in the query is added to it.
    pub path_and_query: &'a mut String,
    pub headers: &'a mut HeaderMap,
    pub body: &'a [u8],
    pub token: Option<&'a str>,
}

/// The values that the templates of a signature show, besides the message itself.
pub(super) struct SigningInputs<'a> {
    pub vars: &'a Vars,
    pub ids: &'a mut dyn Ids,
    pub values: &'a MessageValues,
    pub consent: ConsentVariables<'a>,
    pub steps: &'a [(Arc<str>, SecretString)],
    pub within: Within,
}

impl SigningInputs<'_> {
    /// The values of a text that belongs to a signature of this message.
    pub(super) fn fill<'a>(&'a mut self, view: &'a SignedView<'a>) -> Fill<'a> {
        Fill {
            vars: self.vars,
            ids: &mut *self.ids,
            values: Some(self.values),
            grant: None,
            consent: self.consent,
            message: Some(view),
            steps: self.steps,
        }
    }
}

/// Signs a message, signature by signature. Returns what is to be put into fields of its body, by their names.
pub(super) async fn sign_message(
    signatures: &[CompiledSignature],
    message: SignedMessage<'_>,
    inputs: &mut SigningInputs<'_>,
) -> Result<Vec<(Arc<str>, String)>, SignatureFailure> {
    let mut body_fields = Vec::new();
    let SignedMessage { method, authority, path_and_query, headers, body, token } = message;
    // Those of an attempt before are signed by none of this one.
    for place in signatures.iter().flat_map(CompiledSignature::places) {
        if let CallPlace::Header(name) = place {
            headers.remove(name);
        }
    }
    for signature in signatures {
        let lacks_challenge = signature.only_with.as_ref().is_some_and(|name| !headers.contains_key(name));
        if lacks_challenge || !signature.is_for(method) {
            continue;
        }
        let digest = signature.digest_of(body)?;
        if let (Some(rule), Some(BodyDigest { text, bytes })) = (&signature.digest, &digest)
            && let Some(field) = &rule.field
        {
            let stated = match field.as_str() {
                "content-digest" | "repr-digest" => rule.algorithm.field(bytes),
                "digest" => rule.algorithm.old_field(bytes),
                _ => text.clone(),
            };
            headers.insert(field.clone(), HeaderValue::from_str(&stated).map_err(|_| MISSING)?);
        }
        let target = path_and_query.clone();
        let mut view = SignedView {
            method,
            authority,
            path_and_query: &target,
            headers,
            body,
            body_digest: digest.as_ref().map(|digest| digest.text.as_str()),
            token,
            signature: None,
            status: None,
        };
        let unsigned = signature.prepare(&view, inputs)?;
        let made = signature.key.sign(unsigned.bytes(), inputs.within).await?;
        let (text, input) = unsigned.complete(&made)?;
        view.signature = Some(&text);
        let value = signature.value.render(&mut inputs.fill(&view)).ok_or(MISSING)?;
        match &signature.place {
            CallPlace::Query(name) => {
                path_and_query.push(if target.contains('?') { '&' } else { '?' });
                for (text, end) in [(&**name, "="), (value.as_str(), "")] {
                    path_and_query.extend(utf8_percent_encode(text, NON_ALPHANUMERIC));
                    path_and_query.push_str(end);
                }
            }
            CallPlace::Header(name) => {
                let mut value = HeaderValue::from_str(&value).map_err(|_| MISSING)?;
                value.set_sensitive(true);
                headers.insert(name.clone(), value);
            }
            CallPlace::Body(name) => body_fields.push((name.clone(), value.to_string())),
            CallPlace::Cookie(_) | CallPlace::Signature => {}
        }
        if let Some(input) = input {
            let input = HeaderValue::from_str(&input).map_err(|_| MISSING)?;
            headers.insert(HeaderName::from_static("signature-input"), input);
        }
    }
    Ok(body_fields)
}
