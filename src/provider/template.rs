//! Texts with holes: `Bearer {token}`.
//!
//! A [`Template`] is what a profile says; its holes were checked against what may stand in that place. With the
//! settings of a provider it becomes a [`FilledText`], in which only what changes from call to call is still open.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::sync::Arc;

use http::{HeaderMap, HeaderName};
use zeroize::Zeroizing;

use crate::base::id::Ids;
use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::vars::Vars;
use crate::provider::id_rule::IdRule;
use crate::provider::message_values::{Fresh, MessageValues};
use crate::provider::setting::{Setting, SettingKind, Settings};
use crate::provider::time_rule::TimeRule;
use crate::signing::key_material::KeyStatement;
use crate::syntax::{Diagnostics, FromNode, Node, suggest};
use crate::token::grant::Grant;

/// A piece of a template.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum TemplateSegment {
    /// The captured response header of this capture name.
    Captured(Arc<str>),
    /// A piece of a consent.
    Consent(ConsentVariable),
    /// A declared identifier.
    Id(Arc<IdRule>),
    /// A statement about the key of this setting.
    Key(Arc<str>, KeyStatement),
    Literal(String),
    /// A part of the message that a signature covers.
    Message(MessagePart),
    /// The value of the setting of this name.
    Setting(Arc<str>),
    /// The value that an earlier step of the login captured under this name.
    Step(Arc<str>),
    /// The time of the message, in this form.
    Time(Arc<TimeRule>),
    Token,
    /// A version 4 UUID, 36 characters.
    Uuid,
    /// A version 4 UUID, 32 hexadecimal digits.
    UuidHex,
    /// The value of the route variable of this name.
    Var(Arc<str>),
}

/// A value that a consent supplies to a template.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ConsentVariable {
    /// The `code_challenge` of RFC 7636.
    Challenge,
    /// The authorization code (RFC 6749 section 1.3.1).
    Code,
    /// The URI to which the provider redirects the browser.
    RedirectUri,
    RefreshToken,
    /// The `request_uri` of a pushed authorization request (RFC 9126).
    RequestUri,
    /// The `state` that countersign sends in the authorization request.
    State,
    /// The `code_verifier` of RFC 7636.
    Verifier,
}

/// A part of a message, as the templates of its signatures name it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum MessagePart {
    Authority,
    Body,
    BodyDigest,
    Header(HeaderName),
    Method,
    Path,
    PathAndQuery,
    Query,
    /// The status of an answer.
    Status,
    /// The signature itself, for the text that goes out.
    Signature,
}

const PARTS: [(&str, MessagePart); 9] = [
    ("authority", MessagePart::Authority),
    ("body", MessagePart::Body),
    ("body_digest", MessagePart::BodyDigest),
    ("method", MessagePart::Method),
    ("path", MessagePart::Path),
    ("path_and_query", MessagePart::PathAndQuery),
    ("query", MessagePart::Query),
    ("signature", MessagePart::Signature),
    ("status", MessagePart::Status),
];

const PIECES: [(&str, ConsentVariable); 7] = [
    ("challenge", ConsentVariable::Challenge),
    ("code", ConsentVariable::Code),
    ("redirect_uri", ConsentVariable::RedirectUri),
    ("refresh_token", ConsentVariable::RefreshToken),
    ("request_uri", ConsentVariable::RequestUri),
    ("state", ConsentVariable::State),
    ("verifier", ConsentVariable::Verifier),
];

/// The place of a template, which decides the placeholders that it may name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum TemplateContext {
    /// The text of an answer that the provider has signed.
    Answer,
    /// A template in `[consent.authorize]` of a profile.
    Authorize,
    /// `client_auth`'s `id` and `secret`, and an endpoint's `path`: settings only.
    Build,
    /// A template in `[consent.exchange]` of a profile.
    Exchange,
    /// A header, cookie or query parameter of a resource call.
    Inject,
    /// A template in `[consent.push]` of a profile.
    Push,
    /// A signature of that request.
    PushSign,
    /// A template in `[consent.refresh]` of a profile.
    Refresh,
    /// A signature of a resource call.
    Sign,
    /// The same as [`TemplateContext::Inject`] for a profile without a token.
    Standing,
    /// The same as [`TemplateContext::Sign`] for a profile without a token.
    StandingSign,
    /// A value of the token request's body.
    TokenBody,
    /// A header of the token request.
    TokenHeader,
    /// A signature of the token request, or of another request of a login.
    TokenSign,
    /// The text of a webhook that the provider has signed.
    Webhook,
}

impl TemplateContext {
    /// Returns whether it belongs to a signature of the provider's, which is verified.
    pub(super) const fn verifies(self) -> bool {
        matches!(self, TemplateContext::Answer | TemplateContext::Webhook)
    }

    /// Returns whether it belongs to a signature, whose templates name parts of the message.
    pub(super) const fn signs(self) -> bool {
        match self {
            TemplateContext::Answer
            | TemplateContext::PushSign
            | TemplateContext::Sign
            | TemplateContext::StandingSign
            | TemplateContext::TokenSign
            | TemplateContext::Webhook => true,
            TemplateContext::Authorize
            | TemplateContext::Build
            | TemplateContext::Exchange
            | TemplateContext::Inject
            | TemplateContext::Push
            | TemplateContext::Refresh
            | TemplateContext::Standing
            | TemplateContext::TokenBody
            | TemplateContext::TokenHeader => false,
        }
    }
}

/// The names that a template may use, and its place.
#[derive(Clone, Copy, Debug)]
pub(super) struct TemplateScope<'a> {
    pub settings: &'a [Setting],
    pub captures: &'a [Arc<str>],
    /// The names that earlier steps of the login capture.
    pub steps: &'a [Arc<str>],
    /// The declared times and identifiers.
    pub generated: &'a Generators,
    pub place: TemplateContext,
}

/// The times and identifiers that a profile declares.
#[derive(Clone, Debug, Default)]
pub(super) struct Generators {
    pub times: Vec<(Arc<str>, Arc<TimeRule>)>,
    pub ids: Vec<Arc<IdRule>>,
}

/// A text with holes, as a profile has it.
#[derive(Clone, Debug, Default)]
pub(super) struct Template {
    pub segments: Vec<TemplateSegment>,
}

/// A mistake in a template: the part that is wrong, what is wrong, what to do.
#[derive(Clone, Debug)]
pub(super) struct Mistake {
    part: String,
    title: String,
    help: Option<String>,
}

/// The reason for which a text of the provider's names no value of ours.
const FOREIGN: &str = "the provider made the text: it has parts of the message and settings";

/// The placeholders that need no declaration.
const FIXED_HOLES: [&str; 6] = ["now_epoch", "now_epoch_ms", "now_rfc3339", "token", "uuid", "uuid_hex"];

/// Returns the piece that a placeholder without a declaration stands for.
fn fixed_hole(name: &str) -> Option<TemplateSegment> {
    match name {
        "token" => Some(TemplateSegment::Token),
        "uuid" => Some(TemplateSegment::Uuid),
        "uuid_hex" => Some(TemplateSegment::UuidHex),
        _ => TimeRule::builtin(name).map(TemplateSegment::Time),
    }
}

/// Returns whether `{name}` is a built-in placeholder, so that no setting can have this name.
pub(super) fn is_taken(name: &str) -> bool {
    FIXED_HOLES.contains(&name)
}

impl Template {
    /// Reads a template; every mistake is shown where it stands in the file.
    pub(super) fn read(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Option<Self> {
        let text = String::from_node(node, report)?;
        match Self::parse(&text, scope) {
            Ok(template) => Some(template),
            Err(mistakes) => {
                for mistake in mistakes {
                    let raw = node.source.text.get(node.span.clone()).unwrap_or_default();
                    let span = match raw.find(&mistake.part) {
                        Some(at) => node.span.start + at..node.span.start + at + mistake.part.len(),
                        None => node.span.clone(),
                    };
                    report.error(&node.source, span, mistake.title, "", mistake.help);
                }
                None
            }
        }
    }

    /// Takes a text apart: `{name}` is a hole, `{{` and `}}` stand for braces.
    pub(super) fn parse(text: &str, scope: TemplateScope<'_>) -> Result<Self, Vec<Mistake>> {
        let (mut segments, mut mistakes) = (Vec::new(), Vec::new());
        let mut literal = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            literal.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                literal.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                literal.push('}');
                rest = after;
            } else if let Some((name, after)) = from.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
                match scope.hole(name) {
                    Ok(segment) => {
                        if !literal.is_empty() {
                            segments.push(TemplateSegment::Literal(std::mem::take(&mut literal)));
                        }
                        segments.push(segment);
                    }
                    Err(mistake) => mistakes.push(mistake),
                }
                rest = after;
            } else {
                let brace: String = from.chars().take(1).collect();
                let title = format!("a lone `{brace}`");
                let help = Some(format!("a placeholder is `{{name}}`; a brace itself is written `{brace}{brace}`"));
                mistakes.push(Mistake { part: brace, title, help });
                rest = from.get(1..).unwrap_or_default();
            }
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            segments.push(TemplateSegment::Literal(literal));
        }
        if mistakes.is_empty() { Ok(Self { segments }) } else { Err(mistakes) }
    }

    /// Returns whether it names this piece of a consent.
    pub(super) fn has_consent(&self, piece: ConsentVariable) -> bool {
        self.segments.contains(&TemplateSegment::Consent(piece))
    }

    /// The setting that makes up the whole of it, if one does.
    pub(super) fn sole_setting(&self) -> Option<&Arc<str>> {
        match self.segments.as_slice() {
            [TemplateSegment::Setting(name)] => Some(name),
            _ => None,
        }
    }

    /// The settings that it names.
    pub(super) fn settings(&self) -> impl Iterator<Item = &Arc<str>> {
        self.segments
            .iter()
            .filter_map(|segment| if let TemplateSegment::Setting(name) = segment { Some(name) } else { None })
    }

    /// The route variables that it names.
    pub(super) fn vars(&self) -> impl Iterator<Item = &Arc<str>> {
        self.segments
            .iter()
            .filter_map(|segment| if let TemplateSegment::Var(name) = segment { Some(name) } else { None })
    }

    /// The parts of the message that it names.
    pub(super) fn parts(&self) -> impl Iterator<Item = &MessagePart> {
        self.segments
            .iter()
            .filter_map(|segment| if let TemplateSegment::Message(part) = segment { Some(part) } else { None })
    }

    /// The statement about a key that makes up the whole of it, if one does, and the key's setting.
    pub(super) fn sole_key_statement(&self) -> Option<(&Arc<str>, KeyStatement)> {
        match self.segments.as_slice() {
            [TemplateSegment::Key(name, statement)] => Some((name, *statement)),
            _ => None,
        }
    }

    /// Returns whether it carries the token itself.
    pub(super) fn has_token(&self) -> bool {
        self.segments.contains(&TemplateSegment::Token)
    }

    /// Returns whether it carries the token or a header captured with it.
    pub(super) fn is_credential(&self) -> bool {
        self.segments.iter().any(|segment| matches!(segment, TemplateSegment::Captured(_) | TemplateSegment::Token))
    }

    /// Returns whether it has an identifier that no `[ids.NAME]` declares: each place of it gets one of its own.
    pub(super) fn draws_uuid(&self) -> bool {
        self.segments.iter().any(|segment| matches!(segment, TemplateSegment::Uuid | TemplateSegment::UuidHex))
    }

    /// Returns whether it has a generated identifier.
    pub(super) fn has_id(&self) -> bool {
        self.draws_uuid() || self.segments.iter().any(|segment| matches!(segment, TemplateSegment::Id(_)))
    }

    /// Returns whether it shows a time.
    pub(super) fn has_time(&self) -> bool {
        self.segments.iter().any(|segment| matches!(segment, TemplateSegment::Time(_)))
    }

    /// Returns whether a generated value in it is another one on the replay. `otherwise`: the scope of identifiers that
    /// declare none.
    pub(super) fn changes_on_replay(&self, otherwise: Fresh) -> bool {
        let scope = |segment: &TemplateSegment| match segment {
            TemplateSegment::Id(rule) => Some(rule.fresh.unwrap_or(otherwise)),
            TemplateSegment::Time(rule) => Some(rule.fresh),
            TemplateSegment::Uuid | TemplateSegment::UuidHex => Some(otherwise),
            TemplateSegment::Captured(_)
            | TemplateSegment::Consent(_)
            | TemplateSegment::Key(..)
            | TemplateSegment::Literal(_)
            | TemplateSegment::Message(_)
            | TemplateSegment::Setting(_)
            | TemplateSegment::Step(_)
            | TemplateSegment::Token
            | TemplateSegment::Var(_) => None,
        };
        self.segments.iter().any(|segment| scope(segment) == Some(Fresh::Attempt))
    }

    /// With the settings put in; `None` when it names an optional setting that is not set.
    pub(super) fn resolve(&self, settings: &Settings) -> Option<FilledText> {
        let mut parts = Vec::new();
        let mut fixed = Zeroizing::new(String::new());
        for segment in &self.segments {
            let part = match segment {
                TemplateSegment::Literal(text) => {
                    fixed.push_str(text);
                    continue;
                }
                TemplateSegment::Setting(name) => {
                    fixed.push_str(settings.text(name)?);
                    continue;
                }
                TemplateSegment::Key(name, statement) => {
                    fixed.push_str(&settings.key(name)?.statement(*statement)?);
                    continue;
                }
                TemplateSegment::Captured(name) => TextPart::Captured(name.clone()),
                TemplateSegment::Consent(piece) => TextPart::Consent(*piece),
                TemplateSegment::Id(rule) => TextPart::Id(rule.clone()),
                TemplateSegment::Message(part) => TextPart::Message(part.clone()),
                TemplateSegment::Step(name) => TextPart::Step(name.clone()),
                TemplateSegment::Time(rule) => TextPart::Time(rule.clone()),
                TemplateSegment::Token => TextPart::Token,
                TemplateSegment::Uuid => TextPart::Uuid,
                TemplateSegment::UuidHex => TextPart::UuidHex,
                TemplateSegment::Var(name) => TextPart::Var(name.clone()),
            };
            if !fixed.is_empty() {
                parts.push(TextPart::Fixed(SecretString::from(fixed.as_str())));
                fixed = Zeroizing::new(String::new());
            }
            parts.push(part);
        }
        if !fixed.is_empty() {
            parts.push(TextPart::Fixed(SecretString::from(fixed.as_str())));
        }
        Some(FilledText { parts })
    }
}

impl TemplateScope<'_> {
    fn hole(&self, name: &str) -> Result<TemplateSegment, Mistake> {
        let mistake = |title: String, help: Option<String>| Mistake { part: format!("{{{name}}}"), title, help };
        let segment = if let Some(var) = name.strip_prefix("var.") {
            if !is_name(var) {
                return Err(mistake(format!("{var:?} cannot be the name of a route variable"), None));
            }
            TemplateSegment::Var(var.into())
        } else if let Some(wanted) = name.strip_prefix("captured.") {
            let Some(known) = self.captures.iter().find(|known| ***known == *wanted) else {
                let help = format!("name it under `[token.response] captures`: `{wanted} = \"Response-Header\"`");
                return Err(mistake(format!("nothing is captured as `{wanted}`"), Some(help)));
            };
            TemplateSegment::Captured(known.clone())
        } else if let Some(wanted) = name.strip_prefix("consent.") {
            let Some((_, piece)) = PIECES.iter().find(|(known, _)| *known == wanted) else {
                let known: Vec<String> = PIECES.iter().map(|(name, _)| format!("consent.{name}")).collect();
                let help = format!("known here: {}", known.join(", "));
                return Err(mistake(format!("unknown placeholder `{{{name}}}`"), Some(help)));
            };
            TemplateSegment::Consent(*piece)
        } else if let Some(wanted) = name.strip_prefix("time.") {
            let declared = self.generated.times.iter().find(|(known, _)| **known == *wanted);
            let Some((_, rule)) = declared else {
                let help = format!("declare it: `[times.{wanted}]` with `format = \"%Y%m%d%H%M%S\"`");
                return Err(mistake(format!("no time is called `{wanted}`"), Some(help)));
            };
            TemplateSegment::Time(rule.clone())
        } else if let Some(wanted) = name.strip_prefix("id.") {
            let Some(rule) = self.generated.ids.iter().find(|known| *known.name == *wanted) else {
                let help = format!("declare it: `[ids.{wanted}]` with `kind = \"numeric\"` and `length = 18`");
                return Err(mistake(format!("no id is called `{wanted}`"), Some(help)));
            };
            TemplateSegment::Id(rule.clone())
        } else if let Some(wanted) = name.strip_prefix("step.") {
            let Some(known) = self.steps.iter().find(|known| ***known == *wanted) else {
                let help = format!("an earlier [[token.steps]] names it: `captures = {{ {wanted} = \"/pointer\" }}`");
                return Err(mistake(format!("no step before captures `{wanted}`"), Some(help)));
            };
            TemplateSegment::Step(known.clone())
        } else if let Some(segment) = fixed_hole(name) {
            segment
        } else if let Some(part) = self.message_part(name) {
            TemplateSegment::Message(part)
        } else if let Some((key, word)) = self.key_statement(name) {
            let Some((_, statement)) = KeyStatement::WORDS.iter().find(|(known, _)| *known == word) else {
                let known: Vec<String> = KeyStatement::WORDS.iter().map(|(word, _)| format!("{key}.{word}")).collect();
                let help = format!("known here: {}", known.join(", "));
                return Err(mistake(format!("unknown placeholder `{{{name}}}`"), Some(help)));
            };
            TemplateSegment::Key(key, *statement)
        } else if let Some(setting) = self.settings.iter().find(|setting| *setting.name == *name) {
            if setting.kind == SettingKind::Table && self.place != TemplateContext::TokenBody {
                return Err(mistake(format!("`{name}` is a table; only a body's field can be one"), None));
            }
            if setting.kind == SettingKind::Key {
                let help = format!("write what it says of itself, as in `{{{name}.id}}`");
                return Err(mistake(format!("`{name}` is a key, which is shown nowhere"), Some(help)));
            }
            TemplateSegment::Setting(setting.name.clone())
        } else {
            let names = self.settings.iter().map(|setting| &*setting.name).chain(FIXED_HOLES);
            let names: Vec<&str> = names.collect();
            let help = match suggest(name, names.iter().copied()) {
                Some(near) => format!("did you mean `{{{near}}}`?"),
                None => format!("known here: {}", names.join(", ")),
            };
            return Err(mistake(format!("unknown placeholder `{{{name}}}`"), Some(help)));
        };
        match self.forbids(&segment) {
            Some(reason) => Err(mistake(format!("`{{{name}}}` cannot stand here"), Some(reason.to_owned()))),
            None => Ok(segment),
        }
    }

    /// The part of the message that a name stands for, in the places that have one.
    fn message_part(&self, name: &str) -> Option<MessagePart> {
        if !self.place.signs() {
            return None;
        }
        match name.strip_prefix("header.") {
            Some(field) => HeaderName::from_bytes(field.as_bytes()).ok().map(MessagePart::Header),
            None => {
                let is_known = |part: &MessagePart| match part {
                    MessagePart::Signature => !self.place.verifies(),
                    MessagePart::Status => self.place == TemplateContext::Answer,
                    MessagePart::Authority
                    | MessagePart::Body
                    | MessagePart::BodyDigest
                    | MessagePart::Header(_)
                    | MessagePart::Method
                    | MessagePart::Path
                    | MessagePart::PathAndQuery
                    | MessagePart::Query => true,
                };
                let (_, part) = PARTS.iter().find(|(known, part)| *known == name && is_known(part))?;
                Some(part.clone())
            }
        }
    }

    /// The key setting that a name begins with, and the rest of it.
    fn key_statement<'n>(&self, name: &'n str) -> Option<(Arc<str>, &'n str)> {
        let (key, word) = name.split_once('.')?;
        let setting = self.settings.iter().find(|setting| setting.is_key() && *setting.name == *key)?;
        Some((setting.name.clone(), word))
    }

    fn forbids(&self, segment: &TemplateSegment) -> Option<&'static str> {
        let place = self.place;
        match segment {
            TemplateSegment::Key(..)
            | TemplateSegment::Literal(_)
            | TemplateSegment::Message(_)
            | TemplateSegment::Setting(_) => None,
            TemplateSegment::Consent(piece) => (!piece.known_in(place)).then_some(piece.home()),
            TemplateSegment::Captured(_) if place == TemplateContext::Sign => {
                Some("put it into a header with `inject`, and name that: `{header.NAME}`")
            }
            TemplateSegment::Captured(_) | TemplateSegment::Token => match place {
                TemplateContext::Inject | TemplateContext::Sign => None,
                TemplateContext::Standing | TemplateContext::StandingSign => {
                    Some("without a [token] there is none: the credential is a setting")
                }
                TemplateContext::Answer
                | TemplateContext::Authorize
                | TemplateContext::Build
                | TemplateContext::Exchange
                | TemplateContext::Push
                | TemplateContext::PushSign
                | TemplateContext::Refresh
                | TemplateContext::TokenBody
                | TemplateContext::TokenHeader
                | TemplateContext::TokenSign
                | TemplateContext::Webhook => Some("there is a token only on a call, in `request.inject`"),
            },
            // Only the login's own requests know any step.
            TemplateSegment::Step(_) => None,
            TemplateSegment::Id(_) | TemplateSegment::Time(_) | TemplateSegment::Uuid | TemplateSegment::UuidHex => {
                match place {
                    TemplateContext::Build => Some("only settings may be named here"),
                    TemplateContext::Answer | TemplateContext::Webhook => Some(FOREIGN),
                    TemplateContext::Authorize
                    | TemplateContext::Exchange
                    | TemplateContext::Inject
                    | TemplateContext::Push
                    | TemplateContext::PushSign
                    | TemplateContext::Refresh
                    | TemplateContext::Sign
                    | TemplateContext::Standing
                    | TemplateContext::StandingSign
                    | TemplateContext::TokenBody
                    | TemplateContext::TokenHeader
                    | TemplateContext::TokenSign => None,
                }
            }
            TemplateSegment::Var(_) => match place {
                TemplateContext::Build => Some("only settings may be named here"),
                TemplateContext::Answer | TemplateContext::Webhook => Some(FOREIGN),
                TemplateContext::Authorize
                | TemplateContext::Exchange
                | TemplateContext::Push
                | TemplateContext::PushSign
                | TemplateContext::Refresh => Some("a consent belongs to no route"),
                TemplateContext::Inject
                | TemplateContext::Sign
                | TemplateContext::Standing
                | TemplateContext::StandingSign
                | TemplateContext::TokenBody
                | TemplateContext::TokenHeader
                | TemplateContext::TokenSign => None,
            },
        }
    }
}

impl ConsentVariable {
    const fn known_in(self, place: TemplateContext) -> bool {
        match self {
            ConsentVariable::Challenge => {
                matches!(place, TemplateContext::Authorize | TemplateContext::Push | TemplateContext::PushSign)
            }
            ConsentVariable::Code | ConsentVariable::Verifier => matches!(place, TemplateContext::Exchange),
            ConsentVariable::RedirectUri | ConsentVariable::State => {
                matches!(
                    place,
                    TemplateContext::Authorize
                        | TemplateContext::Exchange
                        | TemplateContext::Push
                        | TemplateContext::PushSign
                )
            }
            ConsentVariable::RefreshToken => matches!(place, TemplateContext::Refresh),
            ConsentVariable::RequestUri => matches!(place, TemplateContext::Authorize),
        }
    }

    /// Returns the message that names the places in which the variable is known.
    const fn home(self) -> &'static str {
        match self {
            ConsentVariable::Challenge => "it is known in `[consent.authorize]` and `[consent.push]` only",
            ConsentVariable::Code | ConsentVariable::Verifier => "it is known in `[consent.exchange]` only",
            ConsentVariable::RedirectUri | ConsentVariable::State => {
                "it is known in `[consent.authorize]`, `[consent.exchange]` and `[consent.push]` only"
            }
            ConsentVariable::RefreshToken => "it is known in `[consent.refresh]` only",
            ConsentVariable::RequestUri => "it is known in `[consent.authorize]` only",
        }
    }
}

/// A name that a profile or a route may give to something.
pub(super) fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// A piece of a text. A `Fixed` piece may hold a secret.
#[derive(Clone, Debug)]
enum TextPart {
    Captured(Arc<str>),
    Consent(ConsentVariable),
    Fixed(SecretString),
    Id(Arc<IdRule>),
    Message(MessagePart),
    Step(Arc<str>),
    Time(Arc<TimeRule>),
    Token,
    Uuid,
    UuidHex,
    Var(Arc<str>),
}

/// A template with the settings put in.
#[derive(Clone, Debug)]
pub(super) struct FilledText {
    parts: Vec<TextPart>,
}

/// The values for the placeholders that remain for each call.
pub(super) struct Fill<'a> {
    pub vars: &'a Vars,
    /// The source of identifiers that no `[ids.NAME]` declares.
    pub ids: &'a mut dyn Ids,
    /// The generated values of the message; `None`: the text belongs to no message yet, so it has none.
    pub values: Option<&'a MessageValues>,
    pub grant: Option<&'a Grant>,
    pub consent: ConsentVariables<'a>,
    /// The message that is signed; `None`: this text belongs to no signature.
    pub message: Option<&'a SignedView<'a>>,
    /// The values that earlier steps of the login captured.
    pub steps: &'a [(Arc<str>, SecretString)],
}

/// A message as the templates of its signatures see it.
#[derive(Clone, Copy)]
pub(super) struct SignedView<'a> {
    pub method: &'a str,
    pub authority: &'a str,
    /// The request target in origin form.
    pub path_and_query: &'a str,
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
    pub body_digest: Option<&'a str>,
    pub token: Option<&'a str>,
    /// The signature, once it is made.
    pub signature: Option<&'a str>,
    /// The status of an answer.
    pub status: Option<&'a str>,
}

impl<'a> SignedView<'a> {
    /// Returns the path, and the query without its question mark.
    pub(super) fn path_and_query(&self) -> (&'a str, Option<&'a str>) {
        match self.path_and_query.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (self.path_and_query, None),
        }
    }

    /// Returns the text of a part; `None` if it is not there, or is no text.
    fn part(&self, part: &MessagePart) -> Option<Cow<'a, str>> {
        Some(match part {
            MessagePart::Authority => self.authority.into(),
            MessagePart::Body => std::str::from_utf8(self.body).ok()?.into(),
            MessagePart::BodyDigest => self.body_digest?.into(),
            MessagePart::Header(name) => {
                let values: Option<Vec<&str>> =
                    self.headers.get_all(name).iter().map(|value| value.to_str().ok()).collect();
                let values = values.filter(|values| !values.is_empty())?;
                values.join(", ").into()
            }
            MessagePart::Method => self.method.into(),
            MessagePart::Path => self.path_and_query().0.into(),
            MessagePart::PathAndQuery => self.path_and_query.into(),
            MessagePart::Query => self.path_and_query().1.unwrap_or_default().into(),
            MessagePart::Signature => self.signature?.into(),
            MessagePart::Status => self.status?.into(),
        })
    }
}

/// The pieces of a consent, as far as they are known.
#[derive(Clone, Copy, Default)]
pub(super) struct ConsentVariables<'a> {
    pub challenge: Option<&'a str>,
    pub code: Option<&'a str>,
    pub redirect_uri: Option<&'a str>,
    pub refresh_token: Option<&'a str>,
    pub request_uri: Option<&'a str>,
    pub state: Option<&'a str>,
    pub verifier: Option<&'a str>,
}

impl<'a> ConsentVariables<'a> {
    const fn find(&self, piece: ConsentVariable) -> Option<&'a str> {
        match piece {
            ConsentVariable::Challenge => self.challenge,
            ConsentVariable::Code => self.code,
            ConsentVariable::RedirectUri => self.redirect_uri,
            ConsentVariable::RefreshToken => self.refresh_token,
            ConsentVariable::RequestUri => self.request_uri,
            ConsentVariable::State => self.state,
            ConsentVariable::Verifier => self.verifier,
        }
    }
}

/// The same, kept for a request that may be made once more.
#[derive(Clone, Default)]
pub(super) struct KeptConsentVariables {
    challenge: Option<SecretString>,
    code: Option<SecretString>,
    redirect_uri: Option<SecretString>,
    refresh_token: Option<SecretString>,
    request_uri: Option<SecretString>,
    state: Option<SecretString>,
    verifier: Option<SecretString>,
}

impl KeptConsentVariables {
    pub(super) fn keep(known: ConsentVariables<'_>) -> Self {
        let keep = |text: Option<&str>| text.map(SecretString::from);
        let ConsentVariables { challenge, code, redirect_uri, refresh_token, request_uri, state, verifier } = known;
        Self {
            challenge: keep(challenge),
            code: keep(code),
            redirect_uri: keep(redirect_uri),
            refresh_token: keep(refresh_token),
            request_uri: keep(request_uri),
            state: keep(state),
            verifier: keep(verifier),
        }
    }

    pub(super) fn view(&self) -> ConsentVariables<'_> {
        fn view(kept: Option<&SecretString>) -> Option<&str> {
            kept.map(ExposeSecret::expose_secret)
        }
        ConsentVariables {
            challenge: view(self.challenge.as_ref()),
            code: view(self.code.as_ref()),
            redirect_uri: view(self.redirect_uri.as_ref()),
            refresh_token: view(self.refresh_token.as_ref()),
            request_uri: view(self.request_uri.as_ref()),
            state: view(self.state.as_ref()),
            verifier: view(self.verifier.as_ref()),
        }
    }
}

impl FilledText {
    /// Builds a text that has no open placeholders.
    pub(super) fn fixed(value: SecretString) -> Self {
        Self { parts: vec![TextPart::Fixed(value)] }
    }

    /// Builds a text that is only the value of one route variable.
    pub(super) fn var(name: Arc<str>) -> Self {
        Self { parts: vec![TextPart::Var(name)] }
    }

    /// All of it, if no hole is left.
    pub(super) fn as_fixed(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [] => Some(""),
            [TextPart::Fixed(text)] => Some(text.expose_secret()),
            _ => None,
        }
    }

    /// Returns `Some` if it is one generated identifier and nothing else: `true` if with dashes, `false` if without.
    pub(super) fn as_uuid(&self) -> Option<bool> {
        match self.parts.as_slice() {
            [TextPart::Uuid] => Some(true),
            [TextPart::UuidHex] => Some(false),
            _ => None,
        }
    }

    /// The route variables that it needs.
    pub(super) fn vars(&self) -> impl Iterator<Item = &Arc<str>> {
        self.parts.iter().filter_map(|part| if let TextPart::Var(name) = part { Some(name) } else { None })
    }

    /// The declared identifiers that it needs.
    pub(super) fn ids(&self) -> impl Iterator<Item = &Arc<IdRule>> {
        self.parts.iter().filter_map(|part| if let TextPart::Id(rule) = part { Some(rule) } else { None })
    }

    /// The whole text; `None` when a variable, a capture or a generated value is not there.
    pub(super) fn render(&self, fill: &mut Fill<'_>) -> Option<Zeroizing<String>> {
        let mut out = Zeroizing::new(String::with_capacity(64));
        for part in &self.parts {
            part.write(fill, &mut out)?;
        }
        Some(out)
    }

    /// The same as bytes: a body need not be text.
    pub(super) fn render_bytes(&self, fill: &mut Fill<'_>) -> Option<Zeroizing<Vec<u8>>> {
        let mut out = Zeroizing::new(Vec::with_capacity(256));
        for part in &self.parts {
            match (part, fill.message) {
                (TextPart::Message(MessagePart::Body), Some(message)) => out.extend_from_slice(message.body),
                (part, _) => {
                    let mut text = Zeroizing::new(String::new());
                    part.write(fill, &mut text)?;
                    out.extend_from_slice(text.as_bytes());
                }
            }
        }
        Some(out)
    }
}

impl TextPart {
    fn write(&self, fill: &mut Fill<'_>, out: &mut String) -> Option<()> {
        // Writing to a string cannot fail.
        let _ = match self {
            TextPart::Captured(name) => {
                let captured = &fill.grant?.captured;
                let (_, value) = captured.iter().find(|(known, _)| known == name)?;
                out.write_str(value.to_str().ok()?)
            }
            TextPart::Consent(piece) => out.write_str(fill.consent.find(*piece)?),
            TextPart::Fixed(text) => out.write_str(text.expose_secret()),
            TextPart::Id(rule) => out.write_str(fill.values?.id(&rule.name)?),
            TextPart::Message(part) => out.write_str(&fill.message?.part(part)?),
            TextPart::Step(name) => {
                let (_, value) = fill.steps.iter().find(|(known, _)| known == name)?;
                out.write_str(value.expose_secret())
            }
            TextPart::Time(rule) => {
                rule.write(fill.values?, out);
                Ok(())
            }
            TextPart::Token => match (fill.grant, fill.message) {
                (Some(grant), _) => out.write_str(grant.access_token.expose_secret()),
                (None, message) => out.write_str(message?.token?),
            },
            TextPart::Uuid => write!(out, "{}", fill.ids.fresh().hyphenated()),
            TextPart::UuidHex => write!(out, "{}", fill.ids.fresh().simple()),
            TextPart::Var(name) => out.write_str(fill.vars.find(name)?),
        };
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scope(place: TemplateContext) -> TemplateScope<'static> {
        static NONE: Generators = Generators { times: Vec::new(), ids: Vec::new() };
        TemplateScope { settings: &[], captures: &[], steps: &[], generated: &NONE, place }
    }

    #[test]
    fn what_is_not_declared_is_named_with_its_cure() {
        let mistakes = Template::parse("{time.a}{id.b}{step.c}", scope(TemplateContext::Inject)).expect_err("three");
        let titles: Vec<&str> = mistakes.iter().map(|mistake| mistake.title.as_str()).collect();
        assert_eq!(titles, ["no time is called `a`", "no id is called `b`", "no step before captures `c`"]);
        assert!(mistakes[0].help.as_deref().is_some_and(|help| help.contains("[times.a]")));
        let mistakes = Template::parse("{token}", scope(TemplateContext::Standing)).expect_err("no token");
        assert!(mistakes[0].help.as_deref().is_some_and(|help| help.contains("without a [token]")));
    }

    #[test]
    fn holes_and_braces_are_told_apart() {
        let template =
            Template::parse("a{{b}}{uuid}c{var.account}", scope(TemplateContext::TokenBody)).expect("a good template");
        assert_eq!(
            template.segments,
            [
                TemplateSegment::Literal("a{b}".into()),
                TemplateSegment::Uuid,
                TemplateSegment::Literal("c".into()),
                TemplateSegment::Var("account".into())
            ]
        );
    }

    #[test]
    fn every_mistake_is_named() {
        let mistakes = Template::parse("{uid}{token}{captured.x}}{", scope(TemplateContext::TokenBody))
            .expect_err("four mistakes");
        let titles: Vec<&str> = mistakes.iter().map(|mistake| mistake.title.as_str()).collect();
        assert_eq!(
            titles,
            [
                "unknown placeholder `{uid}`",
                "`{token}` cannot stand here",
                "nothing is captured as `x`",
                "a lone `}`",
                "a lone `{`"
            ]
        );
        assert_eq!(mistakes[0].help.as_deref(), Some("did you mean `{uuid}`?"));
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in any::<String>()) {
            let _ = Template::parse(&text, scope(TemplateContext::Inject));
        }

        #[test]
        fn arbitrary_braces_never_panic(text in r"[{}a.é]{0,40}") {
            let _ = Template::parse(&text, scope(TemplateContext::TokenHeader));
        }

        #[test]
        fn escaped_text_comes_back(text in any::<String>()) {
            let escaped = text.replace('{', "{{").replace('}', "}}");
            let template = Template::parse(&escaped, scope(TemplateContext::Build)).expect("no holes");
            let resolved = template.resolve(&Settings::default()).expect("no settings");
            prop_assert_eq!(resolved.as_fixed(), Some(text.as_str()));
        }
    }
}
