//! The authentication of an application at a token endpoint (RFC 6749 section 2.3.1).

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::HeaderValue;
use zeroize::Zeroizing;

use crate::provider::setting::Settings;
use crate::provider::template::{Template, TemplateContext, TemplateScope, TemplateSegment};
use crate::provider::values::choice;
use crate::syntax::{Diagnostics, Fields, Node, suggest};

/// A mechanism of client authentication.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mechanism {
    /// The header field `Authorization: Basic …` (RFC 7617).
    Basic,
    /// No way of its own: the profile's headers and body say it all.
    None,
    /// `client_id` and `client_secret` as fields of the body.
    Post,
}

const WORDS: [(&str, Mechanism); 3] =
    [("basic", Mechanism::Basic), ("none", Mechanism::None), ("post", Mechanism::Post)];

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
}

/// Takes `id` and `secret`.
fn parts(fields: &Fields<'_>, scope: TemplateScope<'_>) -> (Option<Template>, Option<Template>) {
    let part = |key: &str, example: &str| match fields.take(key) {
        Some(node) => Template::read(node, scope, fields.report()),
        None => {
            fields.missing(key, example);
            None
        }
    };
    (part("id", "\"{client_id}\""), part("secret", "\"{client_secret}\""))
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
        let (id, secret) = parts(&fields, scope);
        let form_encode = fields.or("form_encode", true);
        fields.finish();
        Some(Self { choice: choice?, id: id?, secret: secret?, form_encode })
    }

    /// Reads `basic = { id = …, secret = … }` of an `inject` entry: a static credential.
    pub(super) fn read_basic(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Option<Self> {
        let scope = TemplateScope { place: TemplateContext::Build, ..scope };
        let fields = Fields::new(node, "`basic`", report);
        let (id, secret) = parts(&fields, scope);
        // RFC 7617 alone: there is no form around it.
        let form_encode = fields.or("form_encode", false);
        fields.finish();
        Some(Self { choice: Choice::Fixed(Mechanism::Basic), id: id?, secret: secret?, form_encode })
    }

    /// Returns a template with the settings that it names, as its value would show them.
    pub(super) fn as_template(&self) -> Template {
        let literal = |text: &str| vec![TemplateSegment::Literal(text.to_owned())];
        let (id, secret) = (self.id.segments.clone(), self.secret.segments.clone());
        Template { segments: [literal("Basic "), id, literal(":"), secret].concat() }
    }

    /// Returns whether the mechanism is `post` regardless of the settings.
    pub(super) fn is_post(&self) -> bool {
        matches!(self.choice, Choice::Fixed(Mechanism::Post))
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
