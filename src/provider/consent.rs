//! `[consent]` of a profile: the steps by which a user agrees, and by which the resulting grant becomes a token and is
//! refreshed.
//!
//! ```text
//! [consent.push]        the authorization request, sent ahead of the browser (RFC 9126)
//! [consent.authorize]   a request whose response holds the URL that the user opens, or that URL itself
//! [consent.callback]    the keys of the query that comes back
//! [consent.exchange]    a code for tokens
//! [consent.refresh]     a refresh token for tokens
//! [consent.response]    the content of their responses besides [token.response]
//! [[consent.dead]]      the responses that mean that code or refresh token is dead
//! [consent.request]     the headers of a user's calls, in place of those of the application's calls
//! ```

mod callback;
mod compiled_consent;

use std::sync::Arc;
use std::time::Duration;

use crate::base::secret::SecretString;
use crate::provider::capture::{Capture, captures};
use crate::provider::condition::{Matcher, Statuses};
use crate::provider::exchange::{RequestKind, RequestTemplate, names_secret};
use crate::provider::injection::InjectionRules;
use crate::provider::refusal::tables;
use crate::provider::setting::{Setting, header_safe};
use crate::provider::template::{ConsentVariable, Generators, TemplateContext, TemplateScope, is_name};
use crate::provider::token_response_rules::pointers;
use crate::provider::values::{OneOrManyValues, Pointer};
use crate::syntax::{Diagnostics, Fields, FromNode, Node, TableEntry, suggest};

pub use self::callback::BadCallback;
use self::callback::CallbackKeys;
pub(super) use self::compiled_consent::ConsentParts;
pub use self::compiled_consent::{Authorize, CodeExchange, CompiledConsent, ConsentWiring, Stale};

/// Lifetime of a code if none is specified: RFC 6749 section 4.1.2 recommends ten minutes at most, SCB specifies one.
const CODE_LIFE: Duration = Duration::from_secs(60);

/// The table `[consent]` of a profile, as read.
#[derive(Clone, Debug)]
pub(super) struct ConsentProfile {
    /// Parameters that a config may set, under the names that templates use: `param.NAME`.
    params: Vec<Setting>,
    /// True if parameters that the profile does not know go into the query of the authorize request.
    other_params: bool,
    /// The request that is pushed ahead of the browser, if one is.
    push: Option<PushedRequest>,
    authorize: RequestTemplate,
    /// Pointers to the URL that the user opens, in the response to the authorize call; empty: the request is that URL.
    opens: Vec<String>,
    keys: CallbackKeys,
    code_life: Duration,
    exchange: RequestTemplate,
    refresh: Option<RequestTemplate>,
    refresh_token: Vec<String>,
    refresh_expires_in: Vec<String>,
    refresh_expires_at: Vec<String>,
    default_refresh_ttl: Option<Duration>,
    captures: Vec<Capture>,
    pub dead: Vec<Matcher>,
    /// `[request]` with `[consent.request]` put over it.
    pub orders: InjectionRules,
}

/// `[consent.push]`: a pushed authorization request (RFC 9126).
#[derive(Clone, Debug)]
struct PushedRequest {
    request: RequestTemplate,
    /// Pointers to the `request_uri` in its answer.
    request_uri: Vec<String>,
}

impl PushedRequest {
    fn read(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, RequestKind::PUSH.table, report);
        let request_uri = fields.or("request_uri", OneOrManyValues(vec![Pointer("/request_uri".to_owned())])).0;
        let scope = TemplateScope { place: TemplateContext::Push, ..scope };
        let request = RequestTemplate::take(&fields, RequestKind::PUSH, scope);
        fields.finish();
        Some(Self { request: request?, request_uri: request_uri.into_iter().map(|pointer| pointer.0).collect() })
    }
}

/// The values that one `[provider.NAME.consent]` gives to its profile's parameters.
#[derive(Clone, Debug, Default)]
pub struct ConsentParams {
    known: Vec<(Arc<str>, SecretString)>,
    others: Vec<(String, String)>,
}

impl ConsentProfile {
    /// Reads the table. `token_captures` and `orders` are those of the application's own calls.
    pub(super) fn read(
        node: &Node,
        settings: &[Setting],
        generated: &Generators,
        token_captures: &[Arc<str>],
        orders: &InjectionRules,
        report: &Diagnostics,
    ) -> Option<Self> {
        let fields = Fields::new(node, "[consent]", report);
        let params: Vec<Setting> = fields.take("params").map_or_else(Vec::new, |node| {
            let inner = Fields::new(node, "[consent.params]", report);
            let params = inner.rest().into_iter().filter_map(|entry| Setting::read_param(entry, report)).collect();
            inner.finish();
            params
        });
        let other_params = fields.or("other_params", false);
        let code_life = fields.or("code_life", CODE_LIFE);
        // Settings and parameters alike can be named in the consent's own requests.
        let named: Vec<Setting> = settings.iter().chain(&params).cloned().collect();
        let place = TemplateContext::Authorize;
        let scope = TemplateScope { settings: &named, captures: &[], steps: &[], generated, place };

        let mut opens = Vec::new();
        let authorize = match fields.take("authorize") {
            Some(node) => {
                let inner = Fields::new(node, RequestKind::AUTHORIZE.table, report);
                opens = pointers(&inner, "opens");
                let plan = RequestTemplate::take(&inner, RequestKind::AUTHORIZE, scope);
                inner.finish();
                if let (Some(plan), true) = (&plan, opens.is_empty()) {
                    link(plan, node, &named, report);
                }
                plan
            }
            None => {
                fields.missing("authorize", "{ encoding = \"query\", body = { state = \"{consent.state}\" } }");
                None
            }
        };
        let push_node = fields.take("push");
        let push = push_node.and_then(|node| PushedRequest::read(node, scope, report));
        judge_push(push_node, authorize.as_ref(), fields.take("authorize"), report);
        let asking =
            [(push.as_ref().map(|push| &push.request), push_node), (authorize.as_ref(), fields.take("authorize"))];
        for (request, node) in asking {
            judge_challenge(request, node, report);
        }
        let keys = CallbackKeys::read(fields.take("callback"), scope, report);
        let exchange = match fields.take("exchange") {
            Some(node) => RequestTemplate::read(node, RequestKind::EXCHANGE, scope, report),
            None => {
                fields.missing("exchange", "{ encoding = \"form\", body = { code = \"{consent.code}\" } }");
                None
            }
        };
        let refresh_node = fields.take("refresh");
        let refresh = refresh_node.and_then(|node| RequestTemplate::read(node, RequestKind::REFRESH, scope, report));
        let dead_node = fields.take("dead");
        let dead: Vec<Matcher> = tables(dead_node, "[[consent.dead]]", report)
            .map(|node| {
                let fields = Fields::new(node, "[[consent.dead]]", report);
                let matcher = Matcher::read(&fields, Statuses::Any);
                if !matcher.says_something() {
                    let help = "name a `status`, or better what stands in the body: `json = [{ … }]`".to_owned();
                    node.error(report, "[[consent.dead]] would match every answer", "", Some(help));
                }
                fields.finish();
                matcher
            })
            .collect();
        if refresh_node.is_some() && dead_node.is_none() {
            let help = "json = [{ pointer = \"/error\", equals = \"invalid_grant\" }]";
            fields.missing("dead", &format!("[{{ {help} }}]"));
        }
        let response = fields.take("response").map(|node| Fields::new(node, "[consent.response]", report));
        let of = |key: &str| response.as_ref().map_or_else(Vec::new, |fields| pointers(fields, key));
        let (refresh_token, refresh_expires_in, refresh_expires_at) =
            (of("refresh_token"), of("refresh_expires_in"), of("refresh_expires_at"));
        let default_refresh_ttl = response.as_ref().and_then(|fields| fields.opt("default_refresh_ttl"));
        let captures = response.as_ref().map_or_else(Vec::new, captures);
        if let Some(fields) = response {
            fields.finish();
        }
        if refresh_token.is_empty()
            && let Some(node) = refresh_node
        {
            let help = "add `refresh_token = \"/refresh_token\"` to [consent.response]".to_owned();
            node.error(report, "nothing says where an answer holds the refresh token", "", Some(help));
        }
        let all_captures: Vec<Arc<str>> =
            token_captures.iter().chain(captures.iter().map(|capture| &capture.name)).cloned().collect();
        let orders = match fields.take("request") {
            Some(node) => {
                let place = TemplateContext::Inject;
                let scope = TemplateScope { settings, captures: &all_captures, steps: &[], generated, place };
                orders.overridden(node, scope, report)
            }
            None => orders.clone(),
        };
        fields.finish();
        Some(Self {
            params,
            other_params,
            push,
            authorize: authorize?,
            opens,
            keys,
            code_life,
            exchange: exchange?,
            refresh,
            refresh_token,
            refresh_expires_in,
            refresh_expires_at,
            default_refresh_ttl,
            captures,
            dead,
            orders,
        })
    }

    /// Returns the templates of its requests: authorize, exchange, push and refresh.
    pub(super) fn plans(&self) -> impl Iterator<Item = &RequestTemplate> {
        let push = self.push.iter().map(|push| &push.request);
        [&self.authorize, &self.exchange].into_iter().chain(push).chain(&self.refresh)
    }

    /// Notes which parameters land in a header, so that their values are read with that in mind.
    pub(super) fn note_headers(&mut self, in_header: &[Arc<str>]) {
        for param in &mut self.params {
            param.in_header = in_header.contains(&param.name);
        }
    }

    /// The names under which it captures response headers.
    pub(super) fn capture_names(&self) -> impl Iterator<Item = &Arc<str>> {
        self.captures.iter().map(|capture| &capture.name)
    }

    /// Returns whether `[provider.NAME.consent]` must have `authorize_url`.
    pub(super) const fn wants_authorize_url(&self) -> bool {
        !self.authorize.has_path()
    }

    /// Reads `params` of a `[provider.NAME.consent]`. `None` when something was wrong, all of which was reported.
    pub(super) fn read_params(&self, node: Option<&Node>, report: &Diagnostics) -> Option<ConsentParams> {
        let before = report.errors();
        let mut read = ConsentParams::default();
        let fields = node.map(|node| Fields::new(node, "`params` of a consent", report));
        for param in &self.params {
            let key = param.name.trim_start_matches("param.");
            let given = fields.as_ref().and_then(|fields| fields.take(key));
            let text = match given {
                Some(node) => String::from_node(node, report).filter(|text| fits(param, key, text, node, report)),
                None => param.default.clone(),
            };
            read.known.extend(text.map(|text| (param.name.clone(), SecretString::from(text))));
        }
        if let Some(fields) = fields {
            if self.other_params {
                read.others = fields.rest().into_iter().filter_map(|entry| self.other(entry, report)).collect();
            }
            fields.finish();
        }
        (report.errors() == before).then_some(read)
    }

    /// A parameter that only the provider knows: it goes into the query of the authorize request.
    fn other(&self, entry: &TableEntry, report: &Diagnostics) -> Option<(String, String)> {
        let text = String::from_node(&entry.value, report)?;
        let request = self.push.as_ref().map_or(&self.authorize, |push| &push.request);
        if request.field_names().any(|name| name.eq_ignore_ascii_case(&entry.key)) {
            let title = format!("`{}` is part of the authorize request already", entry.key);
            report.error(&entry.value.source, entry.key_span.clone(), title, "take it out", None);
            return None;
        }
        if !is_name(&entry.key) {
            let help = suggest(&entry.key, self.params.iter().map(|param| param.name.trim_start_matches("param.")));
            let help = help.map(|near| format!("did you mean `{near}`?"));
            let title = format!("{:?} is no name for a parameter", entry.key);
            report.error(&entry.value.source, entry.key_span.clone(), title, "letters, digits, `_` and `-`", help);
            return None;
        }
        Some((entry.key.clone(), text))
    }
}

/// Returns whether a value fits the profile's declaration of the parameter; reports an error if not.
fn fits(param: &Setting, key: &str, text: &str, node: &Node, report: &Diagnostics) -> bool {
    let (title, label) = if text.is_empty() {
        (format!("`{key}` is empty"), "leave it out, or write a value".to_owned())
    } else if param.in_header && !header_safe(text) {
        (format!("`{key}` has a character that a header cannot carry"), "visible ASCII only".to_owned())
    } else if let Some(pattern) = param.pattern.as_ref().filter(|pattern| !pattern.fits(text)) {
        (format!("`{key}` does not have the form it must have"), format!("must match `{}`", pattern.text))
    } else {
        return true;
    };
    let help = (!param.description.is_empty()).then(|| format!("it is the {}", param.description));
    node.error(report, title, label, help);
    false
}

/// Reports a pushed request of which the browser's request says nothing, and the other way round.
fn judge_push(push: Option<&Node>, authorize: Option<&RequestTemplate>, node: Option<&Node>, report: &Diagnostics) {
    let (Some(authorize), Some(node)) = (authorize, node) else { return };
    let (title, help) = match (push.is_some(), authorize.has_consent(ConsentVariable::RequestUri)) {
        (true, false) => (
            "the browser's request does not name the one that was pushed",
            "send `client_id` and `request_uri = \"{consent.request_uri}\"` alone (RFC 9126 section 4)",
        ),
        (false, true) => ("nothing is pushed, so there is no `{consent.request_uri}`", "add [consent.push]"),
        (true, true) | (false, false) => return,
    };
    node.error(report, title, "", Some(help.to_owned()));
}

/// Reports a PKCE challenge that the provider would take for the verifier itself (RFC 7636 section 4.3).
fn judge_challenge(request: Option<&RequestTemplate>, node: Option<&Node>, report: &Diagnostics) {
    let (Some(request), Some(node)) = (request, node) else { return };
    let in_body = request.field_names().any(|name| name == "code_challenge");
    if in_body && request.has_consent(ConsentVariable::Challenge) && !request.says("code_challenge_method", "S256") {
        let help = "add `code_challenge_method = \"S256\"`".to_owned();
        node.error(report, "the provider would take the challenge for the verifier itself", "", Some(help));
    }
}

/// Reports what a browser could not be sent with.
fn link(plan: &RequestTemplate, node: &Node, settings: &[Setting], report: &Diagnostics) {
    if !plan.is_link() {
        let help = "say `method = \"GET\"`, `encoding = \"query\"` and no headers, or where the answer holds the URL that \
                    the user opens: `opens = \"/data/url\"`";
        node.error(report, "a browser cannot make this request", "", Some(help.to_owned()));
    }
    if plan.templates().iter().any(|template| names_secret(template, settings)) {
        node.error(report, "a browser would be shown a secret", "no secret setting may be named here", None);
    }
}
