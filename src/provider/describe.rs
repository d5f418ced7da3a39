//! The description of the headers that a module puts on a call, without any secret.
//!
//! There is no second implementation of dressing here: a [`StandIn`] replaces the token and the identifiers, the module
//! dresses with it as usual, and the result is then described with names in place of the values that must not be shown.

use std::sync::Arc;
use std::time::Duration;

use http::header::COOKIE;
use http::{HeaderName, HeaderValue};
use uuid::Uuid;

use crate::base::id::Ids;
use crate::base::secret::SecretString;
use crate::base::time::{Deadline, Now};
use crate::provider::client_auth::ClientAuth;
use crate::provider::consent::ConsentProfile;
use crate::provider::exchange::RequestTemplate;
use crate::provider::injection::{Injection, SentIds};
use crate::provider::module::Module;
use crate::provider::profile::Profile;
use crate::provider::setting::{Setting, SettingKind, Settings};
use crate::provider::template::{Template, TemplateSegment};
use crate::signing::key_material::KeyStatement;
use crate::token::grant::{CallPlace, Grant};
use crate::token::key::TokenKey;
use crate::token::lease::{Lease, LeaseTrial};

/// A setting, as a profile declares it, for schemas and lists.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeclaredSetting {
    /// The setting's key in `[provider.NAME]`.
    pub name: Arc<str>,
    /// A few words about it; may be empty.
    pub description: String,
    /// True if it is a key, which is read from a file.
    pub key: bool,
    /// True if it is the provider's public key, which is read from a file.
    pub public_key: bool,
    /// True if it is a table of texts and route variables.
    pub table: bool,
    /// True if its value is a secret.
    pub secret: bool,
    /// True if it must be given.
    pub required: bool,
    /// A regular expression that the whole value must match.
    pub pattern: Option<String>,
    /// Its value when none is given.
    pub default: Option<String>,
}

/// A key of ours, as the provider may know it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SigningKeyFacts {
    /// The setting that holds it.
    pub setting: Arc<str>,
    /// Its name at the provider, if one is configured.
    pub id: Option<String>,
    /// The JWK thumbprint (RFC 7638); a shared secret has none.
    pub thumbprint: Option<String>,
}

impl Module {
    /// Returns the keys by which the requests for a token are signed, the client's assertions among them.
    pub fn login_keys(&self) -> Vec<SigningKeyFacts> {
        let of = |plan: &RequestTemplate| {
            let auth = plan.client_auth().and_then(ClientAuth::key);
            let keys = plan.signatures().map(|rule| &rule.key).chain(auth);
            keys.map(|key| key.setting.clone()).collect::<Vec<_>>()
        };
        let proofs = self.profile.dpop.iter().map(|rule| rule.key.setting.clone());
        let mut names: Vec<Arc<str>> = self.profile.logins().flat_map(of).chain(proofs).collect();
        names.sort_unstable();
        names.dedup();
        let facts = |setting: Arc<str>| {
            let key = self.settings.key(&setting)?;
            let (id, thumbprint) = (key.statement(KeyStatement::Id), key.statement(KeyStatement::Thumbprint));
            Some(SigningKeyFacts { setting, id, thumbprint })
        };
        names.into_iter().filter_map(facts).collect()
    }
}

impl Profile {
    /// The settings that a `[provider.NAME]` with this profile has, in the order of the file.
    pub fn declared(&self) -> Vec<DeclaredSetting> {
        let view = |setting: &Setting| DeclaredSetting {
            name: setting.name.clone(),
            description: setting.description.clone(),
            key: setting.is_key(),
            public_key: setting.is_public_key(),
            table: setting.kind == SettingKind::Table,
            secret: setting.secret || setting.kind == SettingKind::Key,
            required: !setting.optional && setting.default.is_none(),
            pattern: setting.pattern.as_ref().map(|pattern| pattern.text.clone()),
            default: setting.default.clone(),
        };
        self.settings.iter().map(view).collect()
    }
}

impl Template {
    /// The template with plain settings put in and secret ones by name.
    pub(super) fn described(&self, declared: &[Setting], settings: &Settings) -> String {
        let piece = |segment: &TemplateSegment| match segment {
            TemplateSegment::Captured(name) => format!("‹captured: {name}›"),
            // Known in no header of a call.
            TemplateSegment::Consent(_) => "‹consent›".to_owned(),
            TemplateSegment::Key(name, statement) => {
                settings.key(name).and_then(|key| key.statement(*statement)).unwrap_or_else(|| format!("‹key: {name}›"))
            }
            TemplateSegment::Literal(text) => text.clone(),
            TemplateSegment::Id(rule) => format!("‹id: {}›", rule.name),
            // Known in no header that is injected.
            TemplateSegment::Message(_) => "‹message›".to_owned(),
            TemplateSegment::Setting(name) => {
                let secret = declared.iter().any(|setting| setting.name == *name && setting.secret);
                match settings.text(name) {
                    Some(text) if !secret => text.to_owned(),
                    Some(_) | None => format!("‹secret: {name}›"),
                }
            }
            // Known in no header of a call.
            TemplateSegment::Step(_) => "‹step›".to_owned(),
            TemplateSegment::Time(_) => "‹now›".to_owned(),
            TemplateSegment::Token => "‹token›".to_owned(),
            TemplateSegment::Uuid | TemplateSegment::UuidHex => "‹fresh uuid›".to_owned(),
            TemplateSegment::Var(name) => format!("‹variable: {name}›"),
        };
        self.segments.iter().map(piece).collect()
    }
}

/// Takes the place of a token and of fresh identifiers: dress with it, then [`StandIn::describe`] what came of it.
#[derive(Debug)]
pub struct StandIn {
    token: String,
    captured: Vec<(Arc<str>, String)>,
    ids: Vec<Uuid>,
    /// Declared identifiers by name, as they were drawn.
    declared: Vec<(String, String)>,
    /// Texts in the place of others, with what is shown for them.
    marks: Vec<(String, String)>,
}

impl StandIn {
    /// A stand-in for a token of this module, and the lease that carries it.
    pub fn of(module: &Module, key: TokenKey) -> (Self, Lease) {
        // Random, so that nothing else in a header can be taken for one of them.
        let mark = || Uuid::new_v4().simple().to_string();
        let mut names = module.profile.answer.capture_names();
        names.extend(module.profile.consent.iter().flat_map(ConsentProfile::capture_names).cloned());
        let captured: Vec<(Arc<str>, String)> = names.into_iter().map(|name| (name, mark())).collect();
        let mut made = Self { token: mark(), captured, ids: Vec::new(), declared: Vec::new(), marks: Vec::new() };
        let lease = made.lease(&module.injection, key);
        (made, lease)
    }

    /// The lease that carries it in these places.
    pub(super) fn lease(&mut self, injection: &Injection, key: TokenKey) -> Lease {
        let headers = self.captured.iter().filter_map(|(name, text)| {
            let value = HeaderValue::from_str(text).ok()?;
            Some((name.clone(), value))
        });
        let grant = Grant {
            access_token: SecretString::from(self.token.as_str()),
            life: Duration::from_secs(1),
            captured: headers.collect(),
            odd_type: None,
        };
        let now = Now::at(0, 0);
        Lease {
            key,
            generation: 0,
            // No identifier shares a header with a credential, so none is drawn.
            credentials: injection.credentials(&grant, self),
            issued: now,
            expires: Deadline::after(now, grant.life),
            fingerprint: grant.fingerprint(),
            trial: LeaseTrial::default(),
        }
    }

    /// Returns the text that stands for the token.
    pub(super) fn token(&self) -> &str {
        &self.token
    }

    /// Makes a text that can stand wherever a setting can, and for which `shown` is shown. Decimal digits, as many as a
    /// key of HS512 needs: no encoding changes them, and each reads them.
    pub fn mark(&mut self, shown: String) -> String {
        let mark = (0..4).map(|_| format!("{:039}", Uuid::new_v4().as_u128())).collect::<String>();
        self.marks.push((mark.clone(), shown));
        mark
    }

    /// A header's value after dressing: the token, captured headers, identifiers that were drawn from this stand-in,
    /// and secret settings are named, everything else stands as it goes out.
    pub fn describe(&self, module: &Module, name: &HeaderName, value: &HeaderValue) -> String {
        if let Some(shown) = module.injection.shown(&CallPlace::Header(name.clone())) {
            return shown.to_owned();
        }
        let mut text = String::from_utf8_lossy(value.as_bytes()).into_owned();
        if name == COOKIE {
            text = pairs(&text, "; ", |name| module.injection.shown(&CallPlace::Cookie(name.into())));
        }
        let text = self.named(text);
        // Something else that must not be shown, and that has no name here.
        if value.is_sensitive() && !text.contains('‹') { "‹secret›".to_owned() } else { text }
    }

    /// A request target after dressing, described in the same way.
    pub fn describe_target(&self, module: &Module, target: &str) -> String {
        let Some((path, query)) = target.split_once('?') else { return target.to_owned() };
        let query = pairs(query, "&", |name| module.injection.shown(&CallPlace::Query(name.into())));
        format!("{path}?{}", self.named(query))
    }

    /// Takes note of the identifiers that a dressed request has.
    pub fn note(&mut self, sent: &SentIds) {
        self.declared.extend(sent.declared().map(|(name, value)| (name.to_owned(), value.to_owned())));
    }

    /// The text with names in place of marks, of the token, of captured values and of identifiers.
    pub(super) fn named(&self, text: String) -> String {
        let marks = self.marks.iter().fold(text, |text, (mark, shown)| text.replace(mark, shown));
        let mut text = marks.replace(&self.token, "‹token›");
        for (name, mark) in &self.captured {
            text = text.replace(mark, &format!("‹captured: {name}›"));
        }
        for (name, value) in &self.declared {
            text = text.replace(value, &format!("‹id: {name}›"));
        }
        for id in &self.ids {
            text = text.replace(&id.hyphenated().to_string(), "‹fresh uuid›");
            text = text.replace(&id.simple().to_string(), "‹fresh uuid, 32 hex digits›");
        }
        text
    }
}

/// Pairs of names and values with another text for some values.
fn pairs<'a>(text: &str, separator: &str, told: impl Fn(&str) -> Option<&'a str>) -> String {
    let pair = |pair: &str| match pair.split_once('=').and_then(|(name, _)| Some((name, told(name)?))) {
        Some((name, told)) => format!("{name}={told}"),
        None => pair.to_owned(),
    };
    text.split(separator).map(pair).collect::<Vec<_>>().join(separator)
}

impl Ids for StandIn {
    fn fresh(&mut self) -> Uuid {
        let id = Uuid::new_v4();
        self.ids.push(id);
        id
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::origin::BaseUrl;
    use crate::base::vars::Vars;
    use crate::provider::{CallAs, CallInputs, Wiring};
    use crate::syntax::{Diagnostics, Fields, FromNode, Node, SourceText};
    use http::HeaderMap;

    const PROFILE: &str = r#"
name = "mixed"
[settings.id]
[settings.hidden]
secret = true
[token.request]
path = "/t"
encoding = "none"
[token.response]
access_token = "/t"
captures = { ticket = "x-ticket" }
[request]
inject = [
  { header = "authorization", value = "Bearer {token}/{captured.ticket}" },
  { header = "x-ticket", value = "{hidden}/{captured.ticket}" },
  { header = "x-both", value = "{id}:{hidden}" },
  { header = "x-odd", value = "{hidden}-{uuid}" },
  { header = "x-plain", value = "{id}" },
  { header = "x-id", value = "id-{uuid_hex}" },
  { header = "x-number", value = "{id.number}" },
  { header = "x-time", value = "{now_rfc3339}" },
  { cookie = "session", value = "{hidden}" },
  { cookie = "node", value = "{captured.ticket}" },
  { query = "key", value = "{hidden}" },
  { query = "t", value = "{token}" },
]
[ids.number]
kind = "numeric"
length = 18
"#;

    fn module() -> Module {
        let report = Diagnostics::new();
        let profile = Profile::parse(&SourceText::new("profile", PROFILE), &report).expect("a good profile");
        let node = Node::parse(&SourceText::new("p", "id = \"me\"\nhidden = \"me\""), &report);
        let fields = Fields::new(&node, "settings", &report);
        let read = |node: &Node, report: &Diagnostics| {
            String::from_node(node, report).map(|text| (SecretString::from(text), false))
        };
        let settings = profile.read_settings(&fields, &read).expect("good settings");
        fields.finish();
        let base_url = BaseUrl::parse("https://bank.example").expect("a URL");
        Module::build(
            &profile,
            settings,
            Wiring {
                name: "b",
                base_url,
                token_url: None,
                default_ttl: None,
                consent: None,
                caller: CallAs::Application,
            },
        )
        .expect("a good module")
    }

    #[test]
    fn what_must_not_be_shown_is_named_and_the_rest_is_as_it_goes_out() {
        let module = module();
        let (mut stand_in, lease) = StandIn::of(&module, module.key());
        let mut headers = HeaderMap::new();
        let with = CallInputs { lease: &lease, vars: &Vars::none(), now: Now::at(0, 1_550_131_385_000) };
        let sent = module.dress(&mut headers, with, &mut stand_in);
        let target = module.target("/a?b=c", with, &sent, &mut stand_in).expect("a changed query");
        stand_in.note(&sent);
        assert_eq!(stand_in.describe_target(&module, &target), "/a?b=c&key=‹secret: hidden›&t=‹token›");
        let told: Vec<String> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", stand_in.describe(&module, name, value)))
            .collect();
        assert_eq!(
            told,
            [
                "authorization: Bearer ‹token›/‹captured: ticket›",
                "x-ticket: ‹secret: hidden›/‹captured: ticket›",
                "x-both: me:‹secret: hidden›",
                "x-odd: ‹secret: hidden›-‹fresh uuid›",
                "x-plain: me",
                "x-id: id-‹fresh uuid, 32 hex digits›",
                "x-number: ‹id: number›",
                "x-time: 2019-02-14T08:03:05.000Z",
                "cookie: session=‹secret: hidden›; node=‹captured: ticket›",
            ]
        );
    }

    #[test]
    fn declared_settings_are_those_of_the_file() {
        let declared = Profile::builtin("oauth2").expect("oauth2").declared();
        let names: Vec<(&str, bool, bool)> =
            declared.iter().map(|setting| (&*setting.name, setting.secret, setting.required)).collect();
        assert_eq!(
            names,
            [
                ("client_id", false, true),
                ("client_secret", true, true),
                ("scope", false, false),
                ("client_auth", false, false)
            ]
        );
    }
}
