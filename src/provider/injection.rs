//! The values that are put on a resource call, those that a client may not set, and the identifiers of a replay.

use std::fmt;
use std::sync::Arc;

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use zeroize::Zeroizing;

use crate::base::id::Ids;
use crate::base::secret::ExposeSecret;
use crate::base::time::{Now, Within};
use crate::base::vars::Vars;
use crate::provider::body_fields::{self, UnfitBody};
use crate::provider::challenge_rule::ChallengeRule;
use crate::provider::client_auth::ClientAuth;
use crate::provider::compiled_jose::{CompiledJoseProtection, JoseBody, protect};
use crate::provider::compiled_signature::{
    CompiledSignature, SignatureFailure, SignedMessage, SigningInputs, sign_message,
};
use crate::provider::dpop;
use crate::provider::dpop::{CompiledDpop, DPOP, DpopRule};
use crate::provider::exchange::names_secret;
use crate::provider::id_rule::IdRule;
use crate::provider::jose_rule::RequestJoseRule;
use crate::provider::key_use::KeyUse;
use crate::provider::message_values::{Fresh, MessageValues};
use crate::provider::parameters::{Parameters, RenderedParameters, is_cookie_value};
use crate::provider::setting::{Setting, Settings};
use crate::provider::signature_rule::{SignatureContext, SignatureRule};
use crate::provider::template::{
    ConsentVariables, Fill, FilledText, SignedView, Template, TemplateContext, TemplateScope, TemplateSegment,
};
use crate::provider::values::{FieldName, OneOrManyValues, Pointer, WholeMatch, choice};
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::jwe::Entropy;
use crate::signing::signer::Signer;
use crate::syntax::{Diagnostics, Fields, FromNode, Node};
use crate::token::grant::{CallCredentials, CallPlace, Grant};
use crate::token::lease::Lease;

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
    place: CallPlace,
    /// Its value; of HTTP Basic the value before it is encoded.
    value: Template,
    /// The pair of HTTP Basic, if that is the value.
    basic: Option<ClientAuth>,
    client: ClientValue,
}

/// The table `[request]` of a profile, as read.
#[derive(Clone, Debug)]
pub(super) struct InjectionRules {
    rules: Vec<InjectionRule>,
    strip: Vec<HeaderName>,
    /// The scope of identifiers that declare none: `replay_id`.
    replay_id: Fresh,
    sign: Vec<SignatureRule>,
    /// Signature and encryption of the body.
    jose: Vec<RequestJoseRule>,
    /// The proof of possession that a call carries.
    dpop: Option<DpopRule>,
    /// The answer that asks for the same call once more.
    challenge: Option<ChallengeRule>,
}

impl Default for InjectionRules {
    fn default() -> Self {
        Self {
            rules: Vec::new(),
            strip: Vec::new(),
            replay_id: Fresh::Attempt,
            sign: Vec::new(),
            jose: Vec::new(),
            dpop: None,
            challenge: None,
        }
    }
}

impl InjectionRules {
    /// Reads the table `[request]` of a profile. Templates stand in the context of `scope`.
    pub(super) fn read(
        node: &Node,
        scope: TemplateScope<'_>,
        dpop: Option<&DpopRule>,
        challenge: Option<&ChallengeRule>,
        report: &Diagnostics,
    ) -> Self {
        let fields = Fields::new(node, "[request]", report);
        let before = report.errors();
        let words = [("keep", Fresh::Call), ("renew", Fresh::Attempt)];
        let replay_id =
            fields.take("replay_id").and_then(|node| choice(node, report, &words)).unwrap_or(Fresh::Attempt);
        let mut rules: Vec<InjectionRule> = Vec::new();
        let jose = RequestJoseRule::read_all(fields.take("jose"), scope, report);
        if fields.take("inject").is_none() && fields.take("sign").is_none() {
            fields.missing("inject", "[{ header = \"authorization\", value = \"Bearer {token}\" }]");
        }
        for node in super::refusal::tables(fields.take("inject"), "inject = [{ header = …, value = … }]", report) {
            let Some(rule) = InjectionRule::read(node, scope, replay_id, report) else { continue };
            if rules.iter().any(|known| known.place == rule.place) {
                node.error(report, format!("`{}` is injected twice", rule.place), "", None);
            }
            rules.push(rule);
        }
        judge_cookies(&rules, &fields);
        let wants_token = scope.place != TemplateContext::Standing;
        judge_dpop(&rules, dpop, &fields);
        let made = dpop.map(|_| DPOP).into_iter().chain(challenge.map(|rule| rule.header().clone()));
        let sign = signatures(&fields, &rules, made, scope);
        let is_signed = sign.iter().any(SignatureRule::covers_token);
        if wants_token
            && !rules.is_empty()
            && !is_signed
            && !rules.iter().any(|rule| rule.value.is_credential())
            && report.errors() == before
        {
            let help = "add `{ header = \"authorization\", value = \"Bearer {token}\" }`".to_owned();
            fields.node().error(report, "the token is put nowhere", "", Some(help));
        }
        let strip =
            fields.or("strip", OneOrManyValues::<FieldName>(Vec::new())).0.into_iter().map(|name| name.0).collect();
        fields.finish();
        if let Some(header) = challenge.map(ChallengeRule::header)
            && rules.iter().any(|rule| rule.place.as_header() == Some(header))
        {
            let title = format!("the header `{header}` takes back the challenge of an answer");
            node.error(report, title, "", Some("take it out of `inject`".to_owned()));
        }
        Self { rules, strip, replay_id, sign, jose, dpop: dpop.cloned(), challenge: challenge.cloned() }
    }

    /// `[consent.request]`: these orders, with what `node` says of a place instead of what they say of it.
    pub(super) fn overridden(&self, node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Self {
        let fields = Fields::new(node, "[consent.request]", report);
        let mut merged = self.clone();
        if fields.take("inject").is_none() {
            fields.missing("inject", "[{ header = \"x-user\", value = \"{captured.user}\" }]");
        }
        for node in super::refusal::tables(fields.take("inject"), "inject = [{ header = …, value = … }]", report) {
            let Some(rule) = InjectionRule::read(node, scope, self.replay_id, report) else { continue };
            match merged.rules.iter_mut().find(|known| known.place == rule.place) {
                Some(known) => *known = rule,
                None => merged.rules.push(rule),
            }
        }
        judge_cookies(&merged.rules, &fields);
        judge_dpop(&merged.rules, merged.dpop.as_ref(), &fields);
        fields.finish();
        merged
    }

    /// Every template whose value goes out.
    pub(super) fn templates(&self) -> impl Iterator<Item = &Template> {
        self.rules.iter().map(|rule| &rule.value).chain(self.sign.iter().map(|rule| &rule.value))
    }

    /// The signatures of a call.
    pub(super) fn signatures(&self) -> impl Iterator<Item = &SignatureRule> {
        self.sign.iter()
    }

    /// The same without signature and encryption of the body.
    pub(super) fn without_jose(&self) -> Self {
        Self { jose: Vec::new(), ..self.clone() }
    }

    /// The uses of keys by signature and encryption of the body.
    pub(super) fn jose_uses(&self) -> impl Iterator<Item = (Arc<str>, KeyUse)> {
        self.jose.iter().flat_map(RequestJoseRule::uses)
    }

    /// The places with a generated identifier that is another one on a replay.
    pub(super) fn renewed_ids(&self) -> impl Iterator<Item = &CallPlace> {
        let is_renewed = |rule: &&InjectionRule| rule.value.has_id() && rule.value.changes_on_replay(self.replay_id);
        self.rules.iter().filter(is_renewed).map(|rule| &rule.place)
    }

    /// The places of a payment's identity that only the time of a call tells apart.
    pub(super) fn timed_identities(&self) -> impl Iterator<Item = &CallPlace> {
        let is_timed = |rule: &&InjectionRule| {
            let value = &rule.value;
            rule.place.names_payment() && value.has_time() && !value.has_id() && value.vars().next().is_none()
        };
        self.rules.iter().filter(is_timed).map(|rule| &rule.place)
    }

    /// The route variables that it names.
    pub(super) fn vars(&self) -> impl Iterator<Item = &Arc<str>> {
        let signed = self.sign.iter().flat_map(SignatureRule::templates);
        let signed = signed.chain(self.jose.iter().flat_map(RequestJoseRule::templates));
        self.rules.iter().map(|rule| &rule.value).chain(signed).flat_map(Template::vars)
    }

    /// With the settings put in. `also_stripped`: headers that carry a credential elsewhere.
    pub(super) fn compile(
        &self,
        declared: &[Setting],
        settings: &Settings,
        also_stripped: impl Iterator<Item = HeaderName>,
        dpop: Option<Arc<CompiledDpop>>,
    ) -> Result<Injection, String> {
        let mut injection =
            Injection { replay_id: self.replay_id, signs_token: dpop.is_some(), ..Injection::default() };
        injection.replaced.push(AUTHORIZATION);
        injection.replaced.extend(dpop.is_some().then_some(DPOP));
        injection.dpop = dpop;
        injection.challenge = self.challenge.clone();
        injection.replaced.extend(self.challenge.iter().map(|rule| rule.header().clone()));
        injection.replaced.extend(self.strip.iter().cloned().chain(also_stripped));
        for InjectionRule { place, value, basic, client } in &self.rules {
            let text = value.resolve(settings);
            if names_secret(value, declared) && text.is_some() {
                injection.shown.push((place.clone(), value.described(declared, settings)));
            }
            injection.ids.extend(text.iter().flat_map(FilledText::ids).cloned());
            let is_credential = value.is_credential();
            if let (true, Some(text)) = (is_credential, &text) {
                injection.credentials.push((place.clone(), text.clone()));
            }
            let unfit = || format!("the value for `{place}` holds what it cannot carry");
            match place {
                CallPlace::Body(pointer) => injection.body.push(pointer.clone(), text.filter(|_| !is_credential)),
                CallPlace::Cookie(name) => {
                    if text.as_ref().and_then(FilledText::as_fixed).is_some_and(|fixed| !is_cookie_value(fixed)) {
                        return Err(unfit());
                    }
                    injection.cookies.push(name.clone(), text.filter(|_| !is_credential));
                }
                CallPlace::Header(name) => {
                    match client {
                        ClientValue::Keep(_) => injection.kept.push(name.clone()),
                        ClientValue::Replace => injection.replaced.push(name.clone()),
                    }
                    let Some(text) = text.filter(|_| !is_credential) else { continue };
                    let source = match (basic, text.as_fixed()) {
                        (Some(basic), _) => ValueSource::Fixed(basic.basic(settings)?),
                        (None, Some(fixed)) => {
                            let mut fixed = HeaderValue::from_str(fixed).map_err(|_| unfit())?;
                            fixed.set_sensitive(names_secret(value, declared));
                            ValueSource::Fixed(fixed)
                        }
                        (None, None) => ValueSource::Text(text),
                    };
                    let content = match (value.has_id(), value.has_time()) {
                        (true, _) => HeaderContent::Id { draws_uuid: value.draws_uuid() },
                        (false, true) => HeaderContent::Time,
                        (false, false) => HeaderContent::Given,
                    };
                    let (name, client) = (name.clone(), client.clone());
                    injection.headers.push(InjectedHeader { name, source, content, client });
                }
                CallPlace::Query(name) => injection.query.push(name.clone(), text.filter(|_| !is_credential)),
                // The place of no entry.
                CallPlace::Signature => {}
            }
        }
        for rule in &self.sign {
            // A client's own is taken off, whether or not the message is signed with these settings.
            injection.replaced.extend(rule.headers());
            if let CallPlace::Query(name) = &rule.place {
                injection.query.push(name.clone(), None);
            }
            let Some(mut signature) = CompiledSignature::compile(rule, settings)? else { continue };
            let challenge = self.challenge.as_ref().map(ChallengeRule::header);
            signature.only_with = challenge.filter(|header| rule.covers_header(header)).cloned();
            signature.ids(&mut injection.ids);
            injection.signs_body |= rule.covers_body();
            injection.signs_token |= rule.covers_token();
            injection.signatures.push(signature);
        }
        for rule in &self.jose {
            let protection = CompiledJoseProtection::compile(rule, settings)?;
            protection.ids(&mut injection.ids);
            injection.protections.push(protection);
        }
        injection.ids.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        injection.ids.dedup();
        injection.replaced.retain(|name| !injection.kept.contains(name));
        Ok(injection)
    }
}

/// Takes `sign`. A signature has a place of its own.
/// `made`: header fields that countersign puts on besides `inject`.
fn signatures(
    fields: &Fields<'_>,
    rules: &[InjectionRule],
    made: impl Iterator<Item = HeaderName>,
    scope: TemplateScope<'_>,
) -> Vec<SignatureRule> {
    let report = fields.report();
    let own = rules.iter().filter_map(|rule| rule.place.as_header().cloned());
    let own: Vec<HeaderName> = own.chain(made).collect();
    let is_standing = scope.place == TemplateContext::Standing;
    let place = if is_standing { TemplateContext::StandingSign } else { TemplateContext::Sign };
    let context =
        SignatureContext { table: "[[request.sign]]", scope: TemplateScope { place, ..scope }, own: Some(&own) };
    let sign = SignatureRule::read_all(fields.take("sign"), context, report);
    for rule in &sign {
        let is_taken =
            rules.iter().any(|known| known.place == rule.place) || rule.headers().iter().any(|name| own.contains(name));
        if let (true, Some(node)) = (is_taken, fields.take("sign")) {
            let title = format!("`{}` is injected already, and would be signed over", rule.place);
            node.error(report, title, "", Some("take it out of `inject`".to_owned()));
        }
    }
    sign
}

/// Reports what makes a proof of possession worthless: the scheme of `Authorization` says that the token is bound to a
/// key, and the header field of the proof is made for each attempt.
fn judge_dpop(rules: &[InjectionRule], dpop: Option<&DpopRule>, fields: &Fields<'_>) {
    if dpop.is_none() {
        return;
    }
    let (report, node) = (fields.report(), fields.take("inject").unwrap_or(fields.node()));
    let at = |wanted: HeaderName| rules.iter().find(|rule| rule.place == CallPlace::Header(wanted.clone()));
    if at(DPOP).is_some() {
        node.error(report, "the header `dpop` holds the proof that [dpop] makes", "take it out", None);
    }
    let bound = at(AUTHORIZATION).is_some_and(|rule| match rule.value.segments.as_slice() {
        [TemplateSegment::Literal(scheme), TemplateSegment::Token] => dpop::presents(scheme),
        _ => false,
    });
    if !bound {
        let help = "write `{ header = \"authorization\", value = \"DPoP {token}\" }` (RFC 9449 section 7.1)".to_owned();
        node.error(report, "a token that is bound to a key is presented as one", "", Some(help));
    }
}

/// Reports a whole header `Cookie` beside single cookies.
fn judge_cookies(rules: &[InjectionRule], fields: &Fields<'_>) {
    let has_header = rules.iter().any(|rule| matches!(&rule.place, CallPlace::Header(name) if name == COOKIE));
    let has_cookie = rules.iter().any(|rule| matches!(rule.place, CallPlace::Cookie(_)));
    if has_header && has_cookie {
        let help = "write each cookie as `{ cookie = \"NAME\", value = \"…\" }`".to_owned();
        fields.node().error(fields.report(), "the header `cookie` holds all cookies already", "", Some(help));
    }
}

impl InjectionRule {
    fn read(node: &Node, scope: TemplateScope<'_>, replay_id: Fresh, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, "an `inject` entry", report);
        let place = place(&fields);
        let basic_node = fields.take("basic");
        let basic = basic_node.and_then(|node| ClientAuth::read_basic(node, scope, report));
        let value = match (fields.take("value"), basic_node) {
            (Some(node), None) => Template::read(node, scope, report),
            (Some(node), Some(_)) => {
                node.error(report, "`basic` is the value already", "take one of them out", None);
                None
            }
            (None, Some(_)) => basic.as_ref().map(ClientAuth::as_template),
            (None, None) => {
                fields.missing("value", "\"Bearer {token}\"");
                None
            }
        };
        let keep_node = fields.take("client");
        let keep = keep_node.and_then(|node| choice(node, report, &[("keep", true), ("replace", false)]));
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
        let (place, value) = (place?, value?);
        let is_header = matches!(place, CallPlace::Header(_));
        let is_authorization = matches!(&place, CallPlace::Header(name) if name == AUTHORIZATION);
        if let (Some(node), false) = (basic_node, is_header) {
            node.error(report, "only a header holds HTTP Basic", "", None);
        }
        let credential = value.is_credential() || names_secret(&value, scope.settings) || is_authorization;
        if credential && keep == Some(true) {
            node.error(report, "a client's own credential is never kept", "", Some("leave `client` out".to_owned()));
        } else if let (true, false, Some(node)) = (keep == Some(true), is_header, keep_node) {
            node.error(report, "only a header of a client can be kept", "leave `client` out", None);
        }
        let varies = value.has_id() || value.has_time() || value.vars().next().is_some();
        if value.is_credential() && varies {
            let help = "the token's text is made once for each token; identifiers, times and route variables change with \
                        each call: use an entry for each";
            node.error(report, "these placeholders cannot share a header", "", Some(help.to_owned()));
        }
        let declare = "declare it as `[ids.NAME]`, and name it with `{id.NAME}`".to_owned();
        if value.draws_uuid() && !is_header {
            node.error(report, "only a header can hold an identifier that is not declared", "", Some(declare));
        } else if value.draws_uuid() && replay_id == Fresh::Call && value.changes_on_replay(replay_id) {
            let title = "a part of this stays on the replay and another part changes";
            node.error(report, title, "the identifier stays", Some(declare));
        }
        if place.names_payment() && value.changes_on_replay(replay_id) {
            let title = format!("the replay would have another `{place}`: the bank would take it for another payment");
            let help = "declare the value with `fresh = \"call\"`, or say `replay_id = \"keep\"`".to_owned();
            node.error(report, title, "it changes with each attempt", Some(help));
        }
        if place.names_payment() && !varies {
            let title = format!("every payment would have the same `{place}`: the bank would take all for one");
            let help =
                "make an id for each call: declare `[ids.NAME]` with `kind = \"uuid\"` and `fresh = \"call\"`, write \
                        `{id.NAME}` here, and have the client's own stay by `client = \"keep\"`"
                    .to_owned();
            node.error(report, title, "it never changes", Some(help));
        }
        Some(Self { place, value, basic, client })
    }
}

/// Takes the place of an entry: one of `header`, `cookie`, `query` and `body`.
fn place(fields: &Fields<'_>) -> Option<CallPlace> {
    let report = fields.report();
    let (cookie, header, query) = (fields.take("cookie"), fields.take("header"), fields.take("query"));
    match (cookie, header, query, fields.take("body")) {
        (None, None, None, None) => {
            fields.missing("header", "\"authorization\"");
            None
        }
        (None, Some(node), None, None) => FieldName::from_node(node, report).map(|name| CallPlace::Header(name.0)),
        (Some(node), None, None, None) => {
            let name = String::from_node(node, report)?;
            let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
            if name.is_empty() || !name.bytes().all(fits) {
                node.error(report, format!("{name:?} is not the name of a cookie"), "", None);
                return None;
            }
            Some(CallPlace::Cookie(name.into()))
        }
        (None, None, None, Some(node)) => {
            let pointer = Pointer::from_node(node, report)?;
            if pointer.0.len() < 2 {
                let help = "name a field, as in `body = \"/pin\"`".to_owned();
                node.error(report, "the whole body cannot be replaced", "", Some(help));
                return None;
            }
            Some(CallPlace::Body(pointer.0.into()))
        }
        (None, None, Some(node), None) => {
            let name = String::from_node(node, report)?;
            if name.is_empty() || name.chars().any(char::is_control) {
                node.error(report, format!("{name:?} is not the name of a query parameter"), "", None);
                return None;
            }
            Some(CallPlace::Query(name.into()))
        }
        (..) => {
            let help = "make an entry of each".to_owned();
            fields.node().error(report, "an `inject` entry has one place", "", Some(help));
            None
        }
    }
}

/// The source of a header's value.
#[derive(Clone, Debug)]
enum ValueSource {
    /// Made once, as the settings are put in.
    Fixed(HeaderValue),
    /// Made for each attempt.
    Text(FilledText),
}

/// The kind of what a header holds, which decides about it on a replay.
#[derive(Clone, Copy, Debug)]
enum HeaderContent {
    /// Settings and route variables.
    Given,
    /// A generated identifier, among others.
    Id {
        /// True if it is one that no `[ids.NAME]` declares.
        draws_uuid: bool,
    },
    /// A time, and no identifier.
    Time,
}

#[derive(Clone, Debug)]
struct InjectedHeader {
    name: HeaderName,
    source: ValueSource,
    content: HeaderContent,
    client: ClientValue,
}

/// `[request]` with the settings of one provider put in.
#[derive(Clone, Debug)]
pub(super) struct Injection {
    /// Texts with the token or captured values, made once per grant.
    credentials: Vec<(CallPlace, FilledText)>,
    /// All other injected headers, made for each attempt.
    headers: Vec<InjectedHeader>,
    /// Cookies, in their order. Those without a text are credentials, or have no value.
    cookies: Parameters,
    /// Query parameters, likewise.
    query: Parameters,
    /// Pointers to fields of the body, likewise.
    body: Parameters,
    /// The declared identifiers that a call has, sorted by name.
    ids: Vec<Arc<IdRule>>,
    /// Headers that a client may not set, in any spelling.
    replaced: Vec<HeaderName>,
    /// Headers that a client may set, in exactly this spelling.
    kept: Vec<HeaderName>,
    /// Places that hold a secret setting, with its name in its place.
    shown: Vec<(CallPlace, String)>,
    replay_id: Fresh,
    /// The signatures of a call, in their order.
    signatures: Vec<CompiledSignature>,
    signs_body: bool,
    signs_token: bool,
    /// Signature and encryption of the body, in their order.
    protections: Vec<CompiledJoseProtection>,
    /// The key by which a call proves that its token is bound to it.
    dpop: Option<Arc<CompiledDpop>>,
    /// The answer that asks for the same call once more.
    challenge: Option<ChallengeRule>,
}

impl Default for Injection {
    fn default() -> Self {
        Self {
            credentials: Vec::new(),
            headers: Vec::new(),
            cookies: Parameters::default(),
            query: Parameters::default(),
            body: Parameters::default(),
            ids: Vec::new(),
            replaced: Vec::new(),
            kept: Vec::new(),
            shown: Vec::new(),
            replay_id: Fresh::Attempt,
            signatures: Vec::new(),
            signs_body: false,
            signs_token: false,
            protections: Vec::new(),
            dpop: None,
            challenge: None,
        }
    }
}

/// The inputs with which one attempt of a call is dressed, besides the request itself.
#[derive(Clone, Copy, Debug)]
pub struct CallInputs<'a> {
    /// The token that is spent on it.
    pub lease: &'a Lease,
    /// The route's variables.
    pub vars: &'a Vars,
    /// The instant that its times show.
    pub now: Now,
}

impl Injection {
    /// The texts that carry this grant.
    pub(super) fn credentials(&self, grant: &Grant, ids: &mut dyn Ids) -> CallCredentials {
        let vars = Vars::none();
        let mut fill = Fill {
            vars: &vars,
            ids,
            values: None,
            grant: Some(grant),
            consent: ConsentVariables::default(),
            message: None,
            steps: &[],
        };
        let mut made = Vec::with_capacity(self.credentials.len());
        for (place, text) in &self.credentials {
            let text = text.render(&mut fill);
            let fits = |text: &Zeroizing<String>| !matches!(place, CallPlace::Cookie(_)) || is_cookie_value(text);
            let value = text.filter(fits).and_then(|text| HeaderValue::from_str(&text).ok());
            if let Some(mut value) = value {
                value.set_sensitive(true);
                made.push((place.clone(), value));
            }
        }
        if self.signs_token
            && let Ok(mut value) = HeaderValue::from_str(grant.access_token.expose_secret())
        {
            value.set_sensitive(true);
            made.push((CallPlace::Signature, value));
        }
        made.into()
    }

    /// Returns whether a client's header of this name is removed.
    pub(super) fn strips(&self, name: &HeaderName) -> bool {
        self.replaced.iter().any(|stripped| alike(stripped, name))
            || self.kept.iter().any(|kept| kept != name && alike(kept, name))
    }

    /// Returns the places that hold a secret setting, with their displayed values.
    pub(super) fn all_shown(&self) -> impl Iterator<Item = (&CallPlace, &str)> {
        self.shown.iter().map(|(place, text)| (place, text.as_str()))
    }

    /// Returns the displayed value of a place that holds a secret setting, with the name in place of the secret.
    pub(super) fn shown(&self, place: &CallPlace) -> Option<&str> {
        self.shown.iter().find(|(known, _)| known == place).map(|(_, text)| text.as_str())
    }

    /// Puts everything on that goes into the head, and says which generated values the request now has. `before`: those of
    /// the attempt before this one; the headers are then those of that attempt.
    pub(super) fn dress(
        &self,
        headers: &mut HeaderMap,
        with: CallInputs<'_>,
        before: Option<&SentIds>,
        ids: &mut dyn Ids,
    ) -> SentIds {
        let values = match before {
            None => MessageValues::first(&self.ids, ids, with.now),
            Some(before) => before.values.again(&self.ids, self.replay_id, ids, with.now),
        };
        for (place, value) in &with.lease.credentials {
            if let CallPlace::Header(name) = place {
                headers.insert(name.clone(), value.clone());
            }
        }
        let mut fill = Fill {
            vars: with.vars,
            ids,
            values: Some(&values),
            grant: None,
            consent: ConsentVariables::default(),
            message: None,
            steps: &[],
        };
        let (mut first, mut more) = (None, Vec::new());
        let mut note = |id: SentId| if first.is_none() { first = Some(id) } else { more.push(id) };
        for header in &self.headers {
            let earlier = before.and_then(|before| before.all().find(|id| id.name == header.name));
            let own = match earlier {
                Some(earlier) => earlier.own.then_some(&earlier.value),
                None => header.own(headers),
            };
            if let Some(own) = own {
                if header.is_generated() {
                    note(header.sent(own.clone(), true));
                }
                continue;
            }
            let stays =
                matches!(header.content, HeaderContent::Id { draws_uuid: true }) && self.replay_id == Fresh::Call;
            let value = match earlier.filter(|_| stays) {
                Some(earlier) => Some(earlier.value.clone()),
                None => header.value(&mut fill),
            };
            let Some(value) = value else {
                headers.remove(&header.name);
                continue;
            };
            if header.is_generated() {
                note(header.sent(value.clone(), false));
            }
            headers.insert(header.name.clone(), value);
        }
        if !self.cookies.is_empty() {
            let cookies = self.cookies.render(&mut fill, &with.lease.credentials, CallPlace::as_cookie);
            put_cookies(headers, &self.cookies, &cookies);
        }
        SentIds { values, first, more }
    }

    /// Returns whether calls are signed, in whatever way.
    pub(super) const fn signs(&self) -> bool {
        !self.signatures.is_empty() || self.proves() || self.protects_body()
    }

    /// Returns whether bodies are signed or encrypted.
    pub(super) const fn protects_body(&self) -> bool {
        !self.protections.is_empty()
    }

    /// Returns whether a call carries a proof of possession.
    pub(super) const fn proves(&self) -> bool {
        self.dpop.is_some()
    }

    /// Returns the field that takes back the challenge of an answer, with that, if the answer brings one.
    pub(super) fn challenge<'a>(
        &'a self,
        status: StatusCode,
        answer: &'a HeaderMap,
    ) -> Option<(&'a HeaderName, &'a HeaderValue)> {
        let rule = self.challenge.as_ref()?;
        rule.challenge(status, answer).map(|challenge| (rule.header(), challenge))
    }

    /// The header fields that a call's signatures set.
    pub(super) fn signature_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.signatures.iter().flat_map(CompiledSignature::places).filter_map(CallPlace::as_header)
    }

    /// Returns whether a signature covers the body.
    pub(super) const fn signs_body(&self) -> bool {
        self.signs_body
    }

    /// Signs a dressed call. The values are those that the head was dressed with. `nonce`: that of the provider, for the
    /// proof of possession.
    pub(super) async fn sign(
        &self,
        message: SignedMessage<'_>,
        nonce: Option<&str>,
        with: CallInputs<'_>,
        sent: &SentIds,
        ids: &mut dyn Ids,
        within: Within,
    ) -> Result<(), SignatureFailure> {
        let token = with.lease.credentials.iter().find(|(place, _)| *place == CallPlace::Signature);
        let token = token.and_then(|(_, value)| value.to_str().ok());
        let consent = ConsentVariables::default();
        let mut inputs = SigningInputs { vars: with.vars, ids, values: &sent.values, consent, steps: &[], within };
        let mut message = SignedMessage { token, ..message };
        if let Some(dpop) = &self.dpop {
            dpop.prove(&mut message, nonce, &mut inputs).await?;
        }
        // None of a call goes into its body.
        sign_message(&self.signatures, message, &mut inputs).await.map(drop)
    }

    /// The messages that bodies become, in their order.
    pub(super) fn messages(&self) -> impl Iterator<Item = &CompiledJoseProtection> {
        self.protections.iter()
    }

    /// Signs and encrypts the body of a dressed call, which has one.
    pub(super) async fn protect<E: Entropy + Clone + Send + 'static>(
        &self,
        message: SignedMessage<'_>,
        with: CallInputs<'_>,
        sent: &SentIds,
        (ids, entropy): (&mut dyn Ids, &E),
        within: Within,
    ) -> Result<JoseBody, SignatureFailure> {
        let consent = ConsentVariables::default();
        let mut inputs = SigningInputs { vars: with.vars, ids, values: &sent.values, consent, steps: &[], within };
        let view = SignedView {
            method: message.method,
            authority: message.authority,
            path_and_query: message.path_and_query,
            headers: message.headers,
            body: message.body,
            body_digest: None,
            token: None,
            signature: None,
            status: None,
        };
        protect(&self.protections, view, &mut inputs, entropy).await
    }

    /// The same with another signer for all that it signs, but for proofs of possession.
    pub(super) fn signed_by(mut self, signer: &Arc<dyn Signer>) -> Self {
        self.signatures = self.signatures.into_iter().map(|signature| signature.signed_by(signer.clone())).collect();
        self
    }

    /// What is signed of a request of this method, in its order: the place, the word of the form, the algorithm.
    pub(super) fn signers(&self, method: &str) -> Vec<(CallPlace, &'static str, SigningAlgorithm)> {
        let proof = self.dpop.iter().map(|dpop| (CallPlace::Header(DPOP), "dpop", dpop.algorithm()));
        // Those over a challenge are made only after one.
        let usual =
            self.signatures.iter().filter(|signature| signature.only_with.is_none() && signature.is_for(method));
        let outlines = usual.map(CompiledSignature::outline);
        proof.chain(outlines.map(|(place, form, algorithm)| (place.clone(), form, algorithm))).collect()
    }

    /// The texts in which signatures may state the digest of a body.
    pub(super) fn digests(&self, body: &[u8]) -> Result<Vec<String>, SignatureFailure> {
        let texts = self.signatures.iter().map(|signature| signature.digest_texts(body));
        Ok(texts.collect::<Result<Vec<_>, _>>()?.concat())
    }

    /// Returns the key by which a call proves that its token is bound to it.
    pub(super) const fn dpop(&self) -> Option<&Arc<CompiledDpop>> {
        self.dpop.as_ref()
    }

    /// Returns whether parameters are put into the query.
    pub(super) const fn changes_query(&self) -> bool {
        !self.query.is_empty()
    }

    /// Returns whether fields are put into the body.
    pub(super) const fn changes_body(&self) -> bool {
        !self.body.is_empty()
    }

    /// A body with the fields put in. The values are those that the head was dressed with.
    pub(super) fn body(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        with: CallInputs<'_>,
        sent: &SentIds,
        ids: &mut dyn Ids,
    ) -> Result<Zeroizing<Vec<u8>>, UnfitBody> {
        body_fields::put_into(headers, body, &self.body_fields(with, sent, ids))
    }

    /// The fields that are put into a body, by their pointers.
    pub(super) fn body_fields(&self, with: CallInputs<'_>, sent: &SentIds, ids: &mut dyn Ids) -> RenderedParameters {
        let mut fill = Fill {
            vars: with.vars,
            ids,
            values: Some(&sent.values),
            grant: None,
            consent: ConsentVariables::default(),
            message: None,
            steps: &[],
        };
        self.body.render(&mut fill, &with.lease.credentials, CallPlace::as_body)
    }

    /// The request target with the parameters of the query put in, and without a client's own of those names. The values
    /// are those that the head was dressed with.
    pub(super) fn target(
        &self,
        path_and_query: &str,
        with: CallInputs<'_>,
        sent: &SentIds,
        ids: &mut dyn Ids,
    ) -> Zeroizing<String> {
        let mut fill = Fill {
            vars: with.vars,
            ids,
            values: Some(&sent.values),
            grant: None,
            consent: ConsentVariables::default(),
            message: None,
            steps: &[],
        };
        let parameters = self.query.render(&mut fill, &with.lease.credentials, CallPlace::as_query);
        self.query.put_into(path_and_query, &parameters)
    }
}

/// Puts cookies behind the client's own, of which those of the same names are taken off.
fn put_cookies(headers: &mut HeaderMap, names: &Parameters, cookies: &[(Arc<str>, Zeroizing<String>)]) {
    let mut whole = Zeroizing::new(Vec::new());
    let begin = |whole: &mut Vec<u8>| {
        if !whole.is_empty() {
            whole.extend_from_slice(b"; ");
        }
    };
    for value in headers.get_all(COOKIE) {
        for cookie in value.as_bytes().split(|byte| *byte == b';').map(<[u8]>::trim_ascii) {
            let name = cookie.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
            if !cookie.is_empty() && !names.has_cookie(name) {
                begin(&mut whole);
                whole.extend_from_slice(cookie);
            }
        }
    }
    for (name, value) in cookies {
        begin(&mut whole);
        whole.extend_from_slice(format!("{name}=").as_bytes());
        whole.extend_from_slice(value.as_bytes());
    }
    match HeaderValue::from_bytes(&whole) {
        Ok(mut value) if !whole.is_empty() => {
            value.set_sensitive(true);
            headers.insert(COOKIE, value);
        }
        Ok(_) | Err(_) => {
            headers.remove(COOKIE);
        }
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

    const fn is_generated(&self) -> bool {
        match self.content {
            HeaderContent::Given => false,
            HeaderContent::Id { .. } | HeaderContent::Time => true,
        }
    }

    fn sent(&self, value: HeaderValue, own: bool) -> SentId {
        SentId { name: self.name.clone(), value, own, is_id: matches!(self.content, HeaderContent::Id { .. }) }
    }

    fn value(&self, fill: &mut Fill<'_>) -> Option<HeaderValue> {
        let text = match &self.source {
            ValueSource::Fixed(value) => return Some(value.clone()),
            ValueSource::Text(text) => text,
        };
        // The common case is written on the stack: one identifier and nothing else.
        if let Some(dashes) = text.as_uuid() {
            let mut buffer = uuid::Uuid::encode_buffer();
            let id = fill.ids.fresh();
            let id =
                if dashes { id.hyphenated().encode_lower(&mut buffer) } else { id.simple().encode_lower(&mut buffer) };
            return HeaderValue::from_str(id).ok();
        }
        HeaderValue::from_str(&text.render(fill)?).ok()
    }
}

/// Returns whether two names are equal if `_` counts as `-`, as CGI-style servers read them. `http` keeps names
/// lower-case.
fn alike(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str().as_bytes(), other.as_str().as_bytes());
    let dash = |byte: u8| if byte == b'_' { b'-' } else { byte };
    one.len() == other.len() && one.iter().zip(other).all(|(a, b)| dash(*a) == dash(*b))
}

/// The generated values that were sent, so that a replay can keep or renew them, and a log can name request ids.
#[derive(Clone)]
pub struct SentIds {
    values: MessageValues,
    /// Almost every bank wants one id: it needs no allocation.
    first: Option<SentId>,
    more: Vec<SentId>,
}

#[derive(Clone)]
struct SentId {
    name: HeaderName,
    value: HeaderValue,
    own: bool,
    /// False for a time.
    is_id: bool,
}

impl fmt::Debug for SentIds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl SentIds {
    /// Header names and values of request ids, the client's own among them.
    pub fn iter(&self) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
        self.all().filter(|id| id.is_id).map(|id| (&id.name, &id.value))
    }

    /// Names and values of the declared identifiers.
    pub(super) fn declared(&self) -> impl Iterator<Item = (&str, &str)> {
        self.values.ids()
    }

    fn all(&self) -> impl Iterator<Item = &SentId> {
        self.first.iter().chain(&self.more)
    }
}
