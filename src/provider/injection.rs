//! The headers that are put on a resource call, those that a client may not set, and the identifiers of a replay.

use std::sync::Arc;

use http::header::AUTHORIZATION;
use http::{HeaderMap, HeaderName, HeaderValue};
use zeroize::Zeroizing;

use crate::base::id::Ids;
use crate::base::vars::Vars;
use crate::provider::exchange::names_secret;
use crate::provider::setting::{Setting, Settings};
use crate::provider::template::{ConsentVariables, Fill, FilledText, Template, TemplateContext, TemplateScope};
use crate::provider::values::{FieldName, OneOrManyValues, WholeMatch, choice};
use crate::syntax::{Diagnostics, Fields, Node};
use crate::token::grant::{CredentialHeaders, Grant};

/// The treatment of a client's own value of an injected header.
#[derive(Clone, Debug)]
enum ClientValue {
    /// It is kept when it is the only one and all of it matches.
    Keep(WholeMatch),
    Replace,
}

/// One entry of `inject`, in `[request]` or `[consent.request]`.
#[derive(Clone, Debug)]
struct InjectionRule {
    name: HeaderName,
    value: Template,
    client: ClientValue,
}

/// The table `[request]` of a profile, as read.
#[derive(Clone, Debug, Default)]
pub(super) struct InjectionRules {
    rules: Vec<InjectionRule>,
    strip: Vec<HeaderName>,
    renew: bool,
}

impl InjectionRules {
    /// Reads the table `[request]` of a profile.
    pub(super) fn read(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Self {
        let scope = TemplateScope { place: TemplateContext::Inject, ..scope };
        let fields = Fields::new(node, "[request]", report);
        let before = report.errors();
        let mut rules: Vec<InjectionRule> = Vec::new();
        if fields.take("inject").is_none() {
            fields.missing("inject", "[{ header = \"authorization\", value = \"Bearer {token}\" }]");
        }
        for node in super::refusal::tables(fields.take("inject"), "inject = [{ header = …, value = … }]", report) {
            let Some(rule) = InjectionRule::read(node, scope, report) else { continue };
            if rules.iter().any(|known| known.name == rule.name) {
                node.error(report, format!("`{}` is injected twice", rule.name), "", None);
            }
            rules.push(rule);
        }
        if !rules.is_empty() && !rules.iter().any(|rule| rule.value.is_credential()) && report.errors() == before {
            let help = "add `{ header = \"authorization\", value = \"Bearer {token}\" }`".to_owned();
            fields.node().error(report, "the token is put nowhere", "", Some(help));
        }
        let strip =
            fields.or("strip", OneOrManyValues::<FieldName>(Vec::new())).0.into_iter().map(|name| name.0).collect();
        let words = [("keep", false), ("renew", true)];
        let renew = fields.take("replay_id").and_then(|node| choice(node, report, &words)).unwrap_or(true);
        fields.finish();
        Self { rules, strip, renew }
    }

    /// `[consent.request]`: these orders, with what `node` says of a header in place of what they say of it.
    pub(super) fn overridden(&self, node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Self {
        let scope = TemplateScope { place: TemplateContext::Inject, ..scope };
        let fields = Fields::new(node, "[consent.request]", report);
        let mut merged = self.clone();
        if fields.take("inject").is_none() {
            fields.missing("inject", "[{ header = \"x-user\", value = \"{captured.user}\" }]");
        }
        for node in super::refusal::tables(fields.take("inject"), "inject = [{ header = …, value = … }]", report) {
            let Some(rule) = InjectionRule::read(node, scope, report) else { continue };
            match merged.rules.iter_mut().find(|known| known.name == rule.name) {
                Some(known) => *known = rule,
                None => merged.rules.push(rule),
            }
        }
        fields.finish();
        merged
    }

    /// Every template, with its header.
    pub(super) fn templates(&self) -> impl Iterator<Item = (&HeaderName, &Template)> {
        self.rules.iter().map(|rule| (&rule.name, &rule.value))
    }

    /// The route variables that it names.
    pub(super) fn vars(&self) -> impl Iterator<Item = &Arc<str>> {
        self.rules.iter().flat_map(|rule| rule.value.vars())
    }

    /// With the settings put in. `also_stripped`: headers that carry a credential elsewhere.
    pub(super) fn compile(
        &self,
        declared: &[Setting],
        settings: &Settings,
        also_stripped: impl Iterator<Item = HeaderName>,
    ) -> Result<Injection, String> {
        let mut injection = Injection { renew: self.renew, ..Injection::default() };
        injection.replaced.push(AUTHORIZATION);
        injection.replaced.extend(self.strip.iter().cloned().chain(also_stripped));
        for InjectionRule { name, value, client } in &self.rules {
            match client {
                ClientValue::Keep(_) => injection.kept.push(name.clone()),
                ClientValue::Replace => injection.replaced.push(name.clone()),
            }
            let Some(text) = value.resolve(settings) else { continue };
            if names_secret(value, declared) {
                injection.shown.push((name.clone(), value.described(declared, settings)));
            }
            if value.is_credential() {
                injection.credentials.push((name.clone(), text));
                continue;
            }
            let made = match text.as_fixed() {
                Some(fixed) => {
                    let mut fixed = HeaderValue::from_str(fixed)
                        .map_err(|_| format!("the value for `{name}` holds what no header can carry"))?;
                    fixed.set_sensitive(names_secret(value, declared));
                    ValueSource::Fixed(fixed)
                }
                None if value.is_fresh() => ValueSource::Fresh(text),
                None => ValueSource::Varying(text),
            };
            injection.headers.push(InjectedHeader { name: name.clone(), made, client: client.clone() });
        }
        injection.replaced.retain(|name| !injection.kept.contains(name));
        Ok(injection)
    }
}

impl InjectionRule {
    fn read(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, "an `inject` entry", report);
        let name = fields.req::<FieldName>("header", "\"authorization\"");
        let value = match fields.take("value") {
            Some(node) => Template::read(node, scope, report),
            None => {
                fields.missing("value", "\"Bearer {token}\"");
                None
            }
        };
        let keep = fields.take("client").and_then(|node| choice(node, report, &[("keep", true), ("replace", false)]));
        let pattern_node = fields.take("pattern");
        let pattern = fields.opt::<WholeMatch>("pattern");
        let client = match (keep == Some(true), pattern) {
            (true, Some(pattern)) => ClientValue::Keep(pattern),
            (true, None) => {
                if pattern_node.is_none() {
                    fields.missing("pattern", "\"[0-9a-f-]{36}\"");
                }
                ClientValue::Replace
            }
            (false, _) => {
                if let Some(node) = pattern_node {
                    let help = "add `client = \"keep\"`, or leave the pattern out".to_owned();
                    node.error(report, "a pattern says which value of a client is kept", "", Some(help));
                }
                ClientValue::Replace
            }
        };
        fields.finish();
        let (name, value) = (name?.0, value?);
        let credential = value.is_credential() || names_secret(&value, scope.settings) || name == AUTHORIZATION;
        if credential && keep == Some(true) {
            node.error(report, "a client's own credential is never kept", "", Some("leave `client` out".to_owned()));
        }
        let varies = value.vars().next().is_some();
        if [value.is_credential(), value.is_fresh(), varies].iter().filter(|yes| **yes).count() > 1 {
            let help = "the token, identifiers and route variables change at different times: use one header for each";
            node.error(report, "these placeholders cannot share a header", "", Some(help.to_owned()));
        }
        Some(Self { name, value, client })
    }
}

/// The source of a header's value.
#[derive(Clone, Debug)]
enum ValueSource {
    /// Made once, as the settings are put in.
    Fixed(HeaderValue),
    /// With a fresh identifier for every request.
    Fresh(FilledText),
    /// From the route variables of each request.
    Varying(FilledText),
}

#[derive(Clone, Debug)]
struct InjectedHeader {
    name: HeaderName,
    made: ValueSource,
    client: ClientValue,
}

/// `[request]` with the settings of one provider put in.
#[derive(Clone, Debug, Default)]
pub(super) struct Injection {
    /// Headers with the token or captured values, made once per grant.
    credentials: Vec<(HeaderName, FilledText)>,
    /// All other injected headers, made for each call.
    headers: Vec<InjectedHeader>,
    /// Headers that a client may not set, in any spelling.
    replaced: Vec<HeaderName>,
    /// Headers that a client may set, in exactly this spelling.
    kept: Vec<HeaderName>,
    /// Headers that hold a secret setting, with its name in its place.
    shown: Vec<(HeaderName, String)>,
    renew: bool,
}

impl Injection {
    /// The headers that carry this grant.
    pub(super) fn credentials(&self, grant: &Grant, ids: &mut dyn Ids) -> CredentialHeaders {
        let mut fill =
            Fill { vars: &Vars::none(), ids, now: None, grant: Some(grant), consent: ConsentVariables::default() };
        let mut made = Vec::with_capacity(self.credentials.len());
        for (name, text) in &self.credentials {
            let value = text.render(&mut fill).and_then(|text| HeaderValue::from_str(&text).ok());
            if let Some(mut value) = value {
                value.set_sensitive(true);
                made.push((name.clone(), value));
            }
        }
        made.into()
    }

    /// Returns whether a client's header of this name is removed.
    pub(super) fn strips(&self, name: &HeaderName) -> bool {
        self.replaced.iter().any(|stripped| alike(stripped, name))
            || self.kept.iter().any(|kept| kept != name && alike(kept, name))
    }

    /// Returns the displayed value of a header that holds a secret setting, with the name in place of the secret.
    pub(super) fn shown(&self, name: &HeaderName) -> Option<&str> {
        self.shown.iter().find(|(known, _)| known == name).map(|(_, text)| text.as_str())
    }

    /// Puts everything on but the credentials, and says which identifiers the request now has.
    pub(super) fn dress(&self, headers: &mut HeaderMap, vars: &Vars, ids: &mut dyn Ids) -> SentIds {
        let mut sent = SentIds::default();
        for (index, header) in self.headers.iter().enumerate() {
            let is_id = matches!(header.made, ValueSource::Fresh(_));
            if let Some(own) = header.own(headers) {
                if is_id {
                    sent.push(SentId { index, name: header.name.clone(), value: own.clone(), own: true });
                }
                continue;
            }
            let Some(value) = header.value(vars, ids) else {
                headers.remove(&header.name);
                continue;
            };
            if is_id {
                sent.push(SentId { index, name: header.name.clone(), value: value.clone(), own: false });
            }
            headers.insert(header.name.clone(), value);
        }
        sent
    }

    /// Renews the identifiers that were made here, where the profile asks for that.
    pub(super) fn redress(&self, headers: &mut HeaderMap, sent: &SentIds, ids: &mut dyn Ids) -> SentIds {
        let mut again = SentIds::default();
        for id in sent.all() {
            let mut id = id.clone();
            if self.renew
                && !id.own
                && let Some(header) = self.headers.get(id.index)
                && let Some(value) = header.value(&Vars::none(), ids)
            {
                headers.insert(header.name.clone(), value.clone());
                id.value = value;
            }
            again.push(id);
        }
        again
    }
}

impl InjectedHeader {
    /// The client's own value, if it is kept.
    fn own<'a>(&self, headers: &'a HeaderMap) -> Option<&'a HeaderValue> {
        let ClientValue::Keep(pattern) = &self.client else { return None };
        let mut found = headers.get_all(&self.name).iter();
        let (Some(one), None) = (found.next(), found.next()) else { return None };
        one.to_str().is_ok_and(|text| pattern.fits(text)).then_some(one)
    }

    fn value(&self, vars: &Vars, ids: &mut dyn Ids) -> Option<HeaderValue> {
        let text = match &self.made {
            ValueSource::Fixed(value) => return Some(value.clone()),
            ValueSource::Fresh(text) | ValueSource::Varying(text) => text,
        };
        // The common case is written on the stack: one identifier and nothing else.
        if let Some(dashes) = text.as_uuid() {
            let mut buffer = uuid::Uuid::encode_buffer();
            let id = ids.fresh();
            let id =
                if dashes { id.hyphenated().encode_lower(&mut buffer) } else { id.simple().encode_lower(&mut buffer) };
            return HeaderValue::from_str(id).ok();
        }
        let text: Zeroizing<String> =
            text.render(&mut Fill { vars, ids, now: None, grant: None, consent: ConsentVariables::default() })?;
        HeaderValue::from_str(&text).ok()
    }
}

/// Returns whether two names are equal if `_` counts as `-`, as CGI-style servers read them. `http` keeps names
/// lower-case.
fn alike(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    let dash = |byte: u8| if byte == b'_' { b'-' } else { byte };
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| dash(*a) == dash(*b))
}

/// The request ids that were sent, so that a replay can keep or renew them, and a log can name them.
#[derive(Clone, Debug, Default)]
pub struct SentIds {
    /// Almost every bank wants one id: it needs no allocation.
    first: Option<SentId>,
    more: Vec<SentId>,
}

#[derive(Clone, Debug)]
struct SentId {
    index: usize,
    name: HeaderName,
    value: HeaderValue,
    own: bool,
}

impl SentIds {
    /// Header names and values, the client's own ids among them.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.all().map(|id| (&id.name, &id.value))
    }

    fn all(&self) -> impl Iterator<Item = &SentId> {
        self.first.iter().chain(&self.more)
    }

    fn push(&mut self, id: SentId) {
        if self.first.is_none() { self.first = Some(id) } else { self.more.push(id) }
    }
}
