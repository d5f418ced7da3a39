//! The authentication of an application at a token endpoint (RFC 6749 section 2.3.1, RFC 7523, RFC 8705).

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::base::secret::{ExposeSecret, SecretString};
use crate::provider::compiled_signature::{CompiledJwt, CompiledKey, SignatureFailure, SigningInputs};
use crate::provider::setting::Settings;
use crate::provider::signature_rule::{JwtTemplate, KeyChoice};
use crate::provider::template::{ConsentVariables, Fill, Template, TemplateContext, TemplateScope, TemplateSegment};
use crate::provider::values::choice;
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::claims::Claims;
use crate::signing::signer::SigningError;
use crate::syntax::{Diagnostics, Fields, Kind, Node, suggest};

/// A mechanism of client authentication.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mechanism {
    /// The header field `Authorization: Basic …` (RFC 7617).
    Basic,
    /// No way of its own: the profile's headers and body say it all.
    None,
    /// `client_id` and `client_secret` as fields of the body.
    Post,
    /// `client_assertion`: a JSON Web Token that the client signs (RFC 7523 section 2.2).
    SignedJwt,
    /// `client_id` as a field of the body; the certificate of the connection proves it (RFC 8705 section 2).
    TlsClientAuth,
}

const WORDS: [(&str, Mechanism); 7] = [
    ("basic", Mechanism::Basic),
    ("client_secret_jwt", Mechanism::SignedJwt),
    ("none", Mechanism::None),
    ("post", Mechanism::Post),
    ("private_key_jwt", Mechanism::SignedJwt),
    ("self_signed_tls_client_auth", Mechanism::TlsClientAuth),
    ("tls_client_auth", Mechanism::TlsClientAuth),
];

/// The mechanism, or the setting that names it.
#[derive(Clone, Debug)]
enum Choice {
    Fixed(Mechanism),
    Setting(Arc<str>),
}

/// `client_auth` of a token request.
#[derive(Clone, Debug)]
pub(super) struct ClientAuth {
    choice: Choice,
    pub id: Template,
    pub secret: Template,
    form_encode: bool,
    assertion: Option<AssertionRule>,
}

/// The token by which a client authenticates, as a profile has it.
#[derive(Clone, Debug)]
struct AssertionRule {
    key: KeyChoice,
    jwt: JwtTemplate,
    /// Empty: the token endpoint.
    audience: Vec<Template>,
}

/// The same with the settings put in.
#[derive(Debug)]
pub(super) struct CompiledAssertion {
    key: CompiledKey,
    pub jwt: CompiledJwt,
    id: SecretString,
    audience: Vec<String>,
}

impl CompiledAssertion {
    /// Makes the token of one request (RFC 7523 section 3).
    pub(super) async fn token(&self, inputs: SigningInputs<'_>) -> Result<String, SignatureFailure> {
        let id = self.id.expose_secret();
        let audience = match self.audience.as_slice() {
            [one] => Value::from(one.as_str()),
            several => Value::from(several.to_vec()),
        };
        let usual = Claims::new().with("iss", id).with("sub", id).with("aud", audience);
        let within = inputs.within;
        let mut fill = Fill {
            vars: inputs.vars,
            ids: inputs.ids,
            values: Some(inputs.values),
            grant: None,
            consent: ConsentVariables::default(),
            message: None,
            steps: inputs.steps,
        };
        let unsigned = self.jwt.unsigned(&self.key, usual, &mut fill)?;
        let signature = self.key.sign(unsigned.input(), within).await?;
        unsigned.complete(&signature).map_err(|_| SigningError::Failed.into())
    }
}

/// Takes `id` and, where there is one, `secret`.
fn parts(fields: &Fields<'_>, scope: TemplateScope<'_>, has_secret: bool) -> (Option<Template>, Option<Template>) {
    let part = |key: &str, example: &str| match fields.take(key) {
        Some(node) => Template::read(node, scope, fields.report()),
        None => {
            fields.missing(key, example);
            None
        }
    };
    let secret = if has_secret { part("secret", "\"{client_secret}\"") } else { Some(Template::default()) };
    (part("id", "\"{client_id}\""), secret)
}

impl AssertionRule {
    /// Takes the keys of a mechanism that signs.
    fn take(fields: &Fields<'_>, scope: TemplateScope<'_>) -> Option<Self> {
        let report = fields.report();
        let key = KeyChoice::take(fields, scope);
        let algorithm = key.as_ref().map_or(SigningAlgorithm::Ps256, KeyChoice::supposed);
        let claims = TemplateScope { place: TemplateContext::TokenBody, ..scope };
        let jwt = JwtTemplate::take(fields, "header", claims, algorithm);
        let audience = match fields.take("audience") {
            None => Vec::new(),
            Some(node) => match &node.kind {
                Kind::Array(items) => items.iter().filter_map(|item| Template::read(item, scope, report)).collect(),
                Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) | Kind::Table(_) => {
                    Template::read(node, scope, report).into_iter().collect()
                }
            },
        };
        Some(Self { key: key?, jwt, audience })
    }
}

impl ClientAuth {
    /// Reads `client_auth = { mechanism = …, id = …, secret = … }`.
    pub(super) fn read(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Option<Self> {
        let scope = TemplateScope { place: TemplateContext::Build, ..scope };
        let fields = Fields::new(node, "`client_auth`", report);
        let choice = match fields.take("mechanism") {
            None => {
                fields.missing("mechanism", "\"post\"");
                None
            }
            Some(node) if node.as_str().is_some_and(|text| text.contains('{')) => {
                let template = Template::read(node, scope, report);
                template.and_then(|template| match template.sole_setting() {
                    Some(name) => Some(Choice::Setting(name.clone())),
                    None => {
                        node.error(report, "a mechanism is a word, or one setting that says the word", "", None);
                        None
                    }
                })
            }
            Some(node) => choice(node, report, &WORDS).map(Choice::Fixed),
        };
        let has_secret = match &choice {
            Some(Choice::Fixed(Mechanism::SignedJwt | Mechanism::TlsClientAuth)) => false,
            Some(Choice::Fixed(Mechanism::Basic | Mechanism::None | Mechanism::Post) | Choice::Setting(_)) | None => {
                true
            }
        };
        let (id, secret) = parts(&fields, scope, has_secret);
        let form_encode = fields.or("form_encode", true);
        let signs = matches!(choice, Some(Choice::Fixed(Mechanism::SignedJwt)));
        let assertion = if signs || fields.take("key").is_some() { AssertionRule::take(&fields, scope) } else { None };
        fields.finish();
        if signs && assertion.is_none() {
            return None;
        }
        Some(Self { choice: choice?, id: id?, secret: secret?, form_encode, assertion })
    }

    /// Reads `basic = { id = …, secret = … }` of an `inject` entry: a static credential.
    pub(super) fn read_basic(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Option<Self> {
        let scope = TemplateScope { place: TemplateContext::Build, ..scope };
        let fields = Fields::new(node, "`basic`", report);
        let (id, secret) = parts(&fields, scope, true);
        // RFC 7617 alone: there is no form around it.
        let form_encode = fields.or("form_encode", false);
        fields.finish();
        Some(Self { choice: Choice::Fixed(Mechanism::Basic), id: id?, secret: secret?, form_encode, assertion: None })
    }

    /// Returns a template with the settings that it names, as its value would show them.
    pub(super) fn as_template(&self) -> Template {
        let literal = |text: &str| vec![TemplateSegment::Literal(text.to_owned())];
        let (id, secret) = (self.id.segments.clone(), self.secret.segments.clone());
        Template { segments: [literal("Basic "), id, literal(":"), secret].concat() }
    }

    /// Returns whether the mechanism puts fields into the body regardless of the settings.
    pub(super) fn is_post(&self) -> bool {
        matches!(self.choice, Choice::Fixed(Mechanism::Post | Mechanism::SignedJwt | Mechanism::TlsClientAuth))
    }

    /// The key by which the client signs, if it does.
    pub(super) fn key(&self) -> Option<&KeyChoice> {
        self.assertion.as_ref().map(|assertion| &assertion.key)
    }

    /// The templates of what the client signs.
    pub(super) fn templates(&self) -> Vec<&Template> {
        let mut found = Vec::new();
        self.assertion.iter().for_each(|assertion| assertion.jwt.templates(&mut found));
        found
    }

    /// Puts the settings into the client's assertion. `endpoint` is its audience unless the profile says another.
    pub(super) fn assertion(&self, settings: &Settings, endpoint: &str) -> Result<CompiledAssertion, String> {
        let rule = self.assertion.as_ref().ok_or("this `client_auth` signs, and the profile names no `key` for it")?;
        let key = CompiledKey::find(&rule.key, None, settings)?;
        let key = key.ok_or_else(|| format!("`client_auth` signs with `{}`, which is not set", rule.key.setting))?;
        let text = |template: &Template| {
            let text = template.resolve(settings).ok_or("`client_auth` names a setting that is not set")?;
            Ok::<_, String>(text.as_fixed().unwrap_or_default().to_owned())
        };
        let mut audience = rule.audience.iter().map(text).collect::<Result<Vec<_>, _>>()?;
        if audience.is_empty() {
            audience.push(endpoint.to_owned());
        }
        let id = SecretString::from(text(&self.id)?);
        Ok(CompiledAssertion { key, jwt: CompiledJwt::compile(&rule.jwt, settings)?, id, audience })
    }

    /// The way that these settings choose.
    pub(super) fn mechanism(&self, settings: &Settings) -> Result<Mechanism, String> {
        let name = match &self.choice {
            Choice::Fixed(mechanism) => return Ok(*mechanism),
            Choice::Setting(name) => name,
        };
        let word = settings.text(name).unwrap_or("none");
        WORDS.iter().find(|(known, _)| *known == word).map(|(_, mechanism)| *mechanism).ok_or_else(|| {
            let near = suggest(word, WORDS.iter().map(|(known, _)| *known)).unwrap_or("post");
            format!("`{name}` names no way to authenticate: write `\"{near}\"`")
        })
    }

    /// The value of `Authorization: Basic`. RFC 6749 wants both halves form-encoded first; many banks do not.
    pub(super) fn basic(&self, settings: &Settings) -> Result<HeaderValue, String> {
        let half = |template: &Template| {
            let text = template.resolve(settings).ok_or("`client_auth` names a setting that is not set")?;
            let text = Zeroizing::new(text.as_fixed().unwrap_or_default().to_owned());
            if !self.form_encode {
                return Ok::<_, String>(text);
            }
            Ok(Zeroizing::new(form_urlencoded::byte_serialize(text.as_bytes()).collect()))
        };
        let (id, secret) = (half(&self.id)?, half(&self.secret)?);
        if id.contains(':') {
            return Err("the client's id holds a `:`, which Basic authentication cannot carry (RFC 7617)".to_owned());
        }
        let pair = Zeroizing::new(format!("{}:{}", *id, *secret));
        let value = Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
        let mut value = HeaderValue::from_str(&value).map_err(|_| "not a header value".to_owned())?;
        value.set_sensitive(true);
        Ok(value)
    }
}
