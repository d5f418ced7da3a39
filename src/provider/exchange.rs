//! The request for a token: what a profile says it looks like, and making one.

use std::fmt;
use std::sync::Arc;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::Value as Json;
use zeroize::Zeroizing;

use crate::base::id::Ids;
use crate::base::origin::{BaseUrl, EndpointUrl};
use crate::base::secret::{ExposeSecret, SecretBox, SecretString};
use crate::base::time::{Now, Within};
use crate::base::vars::Vars;
use crate::provider::client_auth::{ClientAuth, CompiledAssertion, Mechanism};
use crate::provider::compiled_signature::{
    CompiledSignature, SignatureFailure, SignedMessage, SigningInputs, sign_message,
};
use crate::provider::document::DocumentFormat;
use crate::provider::dpop::CompiledDpop;
use crate::provider::id_rule::IdRule;
use crate::provider::message_values::{Fresh, MessageValues};
use crate::provider::setting::{Setting, SettingMember, SettingValue, Settings};
use crate::provider::signature_rule::{SignatureContext, SignatureRule};
use crate::provider::template::{
    ConsentVariable, ConsentVariables, Fill, FilledText, KeptConsentVariables, Template, TemplateContext,
    TemplateScope, TemplateSegment,
};
use crate::provider::values::{FieldName, choice, method};
use crate::signing::key_material::KeyStatement;
use crate::syntax::{Diagnostics, Fields, Kind, Node, TableEntry};

/// A request to a token endpoint, ready to be sent. Header values and body may hold secrets.
pub struct TokenRequest {
    /// Method of the request, usually POST.
    pub method: Method,
    /// Origin and path, without the query.
    pub url: BaseUrl,
    /// The query without `?`, if the profile sends one.
    pub query: Option<SecretString>,
    /// All headers but `Host` and `Content-Length`.
    pub headers: HeaderMap,
    /// The body; empty when there is none.
    pub body: SecretBox<Vec<u8>>,
    /// What has to be signed before it is sent.
    due: Option<Arc<DueSignatures>>,
}

/// The signatures that a request lacks: what they are, and all that it was made from.
struct DueSignatures {
    template: Arc<CompiledTokenRequest>,
    vars: Vars,
    values: MessageValues,
    consent: KeptConsentVariables,
    steps: Vec<(Arc<str>, SecretString)>,
}

impl TokenRequest {
    /// Returns what makes the request once more, if it carries a proof of possession: its server may only want a nonce in
    /// that.
    pub fn repeatable(&self) -> Option<RepeatableRequest> {
        self.due.clone().filter(|due| due.template.dpop.is_some()).map(RepeatableRequest)
    }

    /// Signs the request as its profile asks for: the client's assertion goes into the body, then the proof of possession
    /// and signatures are put on. A request that has none of them stays as it is. `nonce`: that of its server, for the
    /// proof.
    pub async fn signed(
        mut self,
        nonce: Option<&str>,
        ids: &mut dyn Ids,
        within: Within,
    ) -> Result<Self, SignatureFailure> {
        let Some(due) = self.due.take() else { return Ok(self) };
        let mut body = Zeroizing::new(self.body.expose_secret().clone());
        let path = if self.url.path().is_empty() { "/" } else { self.url.path() };
        let mut path_and_query = match &self.query {
            Some(query) => format!("{path}?{}", query.expose_secret()),
            None => path.to_owned(),
        };
        let DueSignatures { template, vars, values, consent, steps } = &*due;
        let (consent, in_json) = (consent.view(), template.encoding == Encoding::Json);
        if let Some(assertion) = &template.assertion {
            let inputs = SigningInputs { vars, ids: &mut *ids, values, consent, steps, within };
            let token = assertion.token(inputs).await?;
            put_fields(&mut body, in_json, &[("client_assertion_type", ASSERTION_TYPE), ("client_assertion", &token)]);
        }
        let authority = self.url.authority();
        if let Ok(host) = HeaderValue::try_from(&authority) {
            self.headers.insert(HOST, host);
        }
        let mut inputs = SigningInputs { vars, ids, values, consent, steps, within };
        // Fields of the body come first: what is signed behind them may cover them.
        for (is_field, signatures) in [(true, &template.field_signatures), (false, &template.signatures)] {
            let mut message = SignedMessage {
                method: self.method.as_str(),
                authority: &authority,
                path_and_query: &mut path_and_query,
                headers: &mut self.headers,
                body: &body,
                token: None,
            };
            if let (false, Some(dpop)) = (is_field, &template.dpop) {
                dpop.prove(&mut message, nonce, &mut inputs).await?;
            }
            let fields = sign_message(signatures, message, &mut inputs).await?;
            let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (&**name, value.as_str())).collect();
            if !fields.is_empty() {
                put_fields(&mut body, in_json, &fields);
            }
        }
        // The connection's own: it is put on again when the request is sent.
        self.headers.remove(HOST);
        if let Some((_, query)) = path_and_query.split_once('?') {
            self.query = Some(SecretString::from(query));
        }
        self.body = SecretBox::new(Box::new(body.to_vec()));
        Ok(self)
    }
}

/// A request with a proof of possession, which can be made for one more attempt.
pub struct RepeatableRequest(Arc<DueSignatures>);

impl RepeatableRequest {
    /// Makes it once more: what belongs to the call stays, all else is drawn anew.
    pub fn again(&self, ids: &mut dyn Ids, now: Now) -> TokenRequest {
        let DueSignatures { template, vars, values, consent, steps } = &*self.0;
        let values = values.again(&template.ids, Fresh::Attempt, ids, now);
        template.request(RequestInputs { vars, ids, values: &values, consent: consent.view(), steps })
    }
}

impl fmt::Debug for RepeatableRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RepeatableRequest").field(&self.0.template.url).finish()
    }
}

/// The type of an assertion that is a JSON Web Token (RFC 7523 section 2.2).
const ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";

/// Adds fields behind those of a body.
fn put_fields(body: &mut Zeroizing<Vec<u8>>, in_json: bool, pairs: &[(&str, &str)]) {
    if in_json {
        // What was written is an object.
        body.pop();
        for (name, value) in pairs {
            if body.len() > 1 {
                body.push(b',');
            }
            quote(name, body);
            body.push(b':');
            quote(value, body);
        }
        body.push(b'}');
        return;
    }
    let mut form = form_urlencoded::Serializer::new(String::new());
    form.extend_pairs(pairs);
    if !body.is_empty() {
        body.push(b'&');
    }
    body.extend_from_slice(form.finish().as_bytes());
}

impl fmt::Debug for TokenRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.headers.keys().map(HeaderName::as_str).collect();
        let Self { method, url, .. } = self;
        f.debug_struct("TokenRequest")
            .field("method", method)
            .field("url", url)
            .field("headers", &names)
            .finish_non_exhaustive()
    }
}

/// The encoding of a token request's fields.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Encoding {
    /// In a body of type `application/x-www-form-urlencoded`.
    Form,
    /// In a body of type `application/json`.
    Json,
    /// No fields are sent at all.
    None,
    /// In the query of the URL.
    Query,
}

/// A field of the body, as a profile has it.
#[derive(Clone, Debug)]
pub(super) enum Field {
    Array(Vec<Field>),
    /// JSON as the text of a form's field, such as `authorization_details` (RFC 9396 section 2).
    JsonText(Box<Field>),
    Literal(Json),
    Object(Vec<(String, Field)>),
    Table(Arc<str>),
    Text(Template),
}

/// The kind of a request: the name of its table in messages, and the contexts that decide what its templates may name.
#[derive(Clone, Copy, Debug)]
pub(super) struct RequestKind {
    /// Name of its table in messages, such as `[token.request]`.
    pub table: &'static str,
    /// The context of templates in its headers.
    pub headers: TemplateContext,
    /// The context of templates in its fields.
    pub body: TemplateContext,
    /// The context of templates in its signatures.
    pub sign: TemplateContext,
}

impl RequestKind {
    /// The request for the application's own token.
    pub(super) const TOKEN: Self = Self {
        table: "[token.request]",
        headers: TemplateContext::TokenHeader,
        body: TemplateContext::TokenBody,
        sign: TemplateContext::TokenSign,
    };
    /// A request that comes before it.
    pub(super) const STEP: Self = Self {
        table: "[[token.steps]]",
        headers: TemplateContext::TokenHeader,
        body: TemplateContext::TokenBody,
        sign: TemplateContext::TokenSign,
    };
    /// The beginning of a consent.
    pub(super) const AUTHORIZE: Self = Self {
        table: "[consent.authorize]",
        headers: TemplateContext::Authorize,
        body: TemplateContext::Authorize,
        sign: TemplateContext::TokenSign,
    };
    /// The same, sent to the provider before the browser goes there (RFC 9126).
    pub(super) const PUSH: Self = Self {
        table: "[consent.push]",
        headers: TemplateContext::Push,
        body: TemplateContext::Push,
        sign: TemplateContext::PushSign,
    };
    /// The exchange of a code for tokens.
    pub(super) const EXCHANGE: Self = Self {
        table: "[consent.exchange]",
        headers: TemplateContext::Exchange,
        body: TemplateContext::Exchange,
        sign: TemplateContext::TokenSign,
    };
    /// A refresh token for tokens.
    pub(super) const REFRESH: Self = Self {
        table: "[consent.refresh]",
        headers: TemplateContext::Refresh,
        body: TemplateContext::Refresh,
        sign: TemplateContext::TokenSign,
    };
}

/// `[token.request]` of a profile, or a request of its `[consent]`.
#[derive(Clone, Debug)]
pub(super) struct RequestTemplate {
    method: Method,
    /// Under the provider's base URL; absent: the config must say `token_url`.
    path: Option<Template>,
    encoding: Encoding,
    headers: Vec<(HeaderName, Template)>,
    body: Vec<(String, Field)>,
    client_auth: Option<ClientAuth>,
    sign: Vec<SignatureRule>,
}

impl RequestTemplate {
    /// Reads the table, and reports its unknown keys.
    pub(super) fn read(node: &Node, spot: RequestKind, scope: TemplateScope<'_>, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, spot.table, report);
        let plan = Self::take(&fields, spot, scope);
        fields.finish();
        plan
    }

    /// Takes the table's keys from `fields`; the caller finishes them.
    pub(super) fn take(fields: &Fields<'_>, spot: RequestKind, scope: TemplateScope<'_>) -> Option<Self> {
        let report = fields.report();
        let method = fields.take("method").map_or(Some(Method::POST), |node| method(node, report));
        let path = fields.take("path").map(|node| {
            let template = Template::read(node, TemplateScope { place: TemplateContext::Build, ..scope }, report);
            if node.as_str().is_some_and(|text| !text.starts_with('/')) {
                let help = "it is put behind the provider's `base_url`; leave it out if a `token_url` must be given";
                node.error(report, "a path starts with `/`", "", Some(help.to_owned()));
            }
            if template.as_ref().is_some_and(|template| names_secret(template, scope.settings)) {
                let help = "put it into `headers` or `body`".to_owned();
                node.error(report, "a path names no secret: URLs are shown", "", Some(help));
            }
            template
        });
        let encodings =
            [("form", Encoding::Form), ("json", Encoding::Json), ("none", Encoding::None), ("query", Encoding::Query)];
        let encoding = match fields.take("encoding") {
            Some(node) => choice(node, report, &encodings),
            None => {
                fields.missing("encoding", "\"json\"");
                None
            }
        };
        let headers = fields.take("headers").map_or(Vec::new(), |node| {
            let inner = Fields::new(node, format!("{} headers", spot.table), report);
            let read = |entry: &&TableEntry| {
                let template = Template::read(&entry.value, TemplateScope { place: spot.headers, ..scope }, report);
                Some((FieldName::of_key(entry, report)?.0, template?))
            };
            let headers = inner.rest().iter().filter_map(read).collect();
            inner.finish();
            headers
        });
        let body_node = fields.take("body");
        let body_scope = TemplateScope { place: spot.body, ..scope };
        let is_flat = matches!(encoding, Some(Encoding::Form | Encoding::Query));
        let body = body_node.map_or(Vec::new(), |node| match is_flat {
            true => flat_fields(node, body_scope, report),
            false => object(node, body_scope, report),
        });
        let client_auth = fields.take("client_auth");
        let auth = client_auth.and_then(|node| ClientAuth::read(node, scope, report));
        let signed = TemplateScope { place: spot.sign, ..scope };
        let context = SignatureContext { table: "sign of a request", scope: signed, own: None };
        let sign = SignatureRule::read_all(fields.take("sign"), context, report);
        let (encoding, method) = (encoding?, method?);
        if let (Encoding::None | Encoding::Query, Some(node), true) =
            (encoding, fields.take("sign"), sign.iter().any(SignatureRule::is_field))
        {
            let help = "use `encoding = \"form\"` or `\"json\"`, or put it into a `header`".to_owned();
            node.error(report, "there is no body to put the signature into", "", Some(help));
        }
        match (encoding, body_node) {
            (Encoding::None, Some(node)) => {
                node.error(report, "`encoding = \"none\"` sends no body", "", None);
            }
            (Encoding::Form | Encoding::Query, Some(node)) => flat(node, scope.settings, report),
            (Encoding::Json | Encoding::None, _) | (Encoding::Form | Encoding::Query, None) => {}
        }
        if let (Encoding::None | Encoding::Query, Some(node), true) =
            (encoding, client_auth, auth.as_ref().is_some_and(ClientAuth::is_post))
        {
            let help = "use `encoding = \"form\"` or `\"json\"`, or `mechanism = \"basic\"`".to_owned();
            node.error(report, "`client_auth` of this mechanism needs a body", "", Some(help));
        }
        Some(Self { method, path: path.flatten(), encoding, headers, body, client_auth: auth, sign })
    }

    /// Every template whose value lands in a header as it is.
    pub(super) fn header_templates(&self) -> impl Iterator<Item = &(HeaderName, Template)> {
        self.headers.iter()
    }

    /// Returns whether it has an endpoint of its own.
    pub(super) const fn has_path(&self) -> bool {
        self.path.is_some()
    }

    /// Its own endpoint, if the settings that its path names are set.
    pub(super) fn own_url(&self, settings: &Settings, base_url: &BaseUrl) -> Option<BaseUrl> {
        let path = self.path.as_ref()?.resolve(settings)?;
        let url = EndpointUrl::parse(&format!("{base_url}{}", path.as_fixed().unwrap_or_default()));
        url.ok().map(|url| url.base)
    }

    /// Returns whether it is only a URL with a query, as a browser opens it.
    pub(super) fn is_link(&self) -> bool {
        self.method == Method::GET
            && self.encoding == Encoding::Query
            && self.headers.is_empty()
            && self.sign.is_empty()
    }

    /// The templates of its fields, and of its headers.
    pub(super) fn templates(&self) -> Vec<&Template> {
        let mut found: Vec<&Template> = self.headers.iter().map(|(_, template)| template).collect();
        self.body.iter().for_each(|(_, field)| field.templates(&mut found));
        found
    }

    /// The names of its fields.
    pub(super) fn field_names(&self) -> impl Iterator<Item = &str> {
        self.body.iter().map(|(name, _)| name.as_str())
    }

    /// Returns whether it names this piece of a consent.
    pub(super) fn has_consent(&self, piece: ConsentVariable) -> bool {
        self.templates().into_iter().any(|template| template.has_consent(piece))
    }

    /// Returns whether it has a field of this name and this fixed value.
    pub(super) fn says(&self, name: &str, value: &str) -> bool {
        let field = self.body.iter().find(|(known, _)| known == name);
        field.is_some_and(|(_, field)| field.shape() == *value)
    }

    /// The signatures of it.
    pub(super) fn signatures(&self) -> impl Iterator<Item = &SignatureRule> {
        self.sign.iter()
    }

    /// The authentication of the client in it.
    pub(super) const fn client_auth(&self) -> Option<&ClientAuth> {
        self.client_auth.as_ref()
    }

    /// The settings that go into the URL.
    pub(super) fn path_settings(&self) -> impl Iterator<Item = &Arc<str>> {
        self.path.iter().flat_map(Template::settings)
    }

    /// The route variables that it names itself.
    pub(super) fn vars(&self) -> Vec<Arc<str>> {
        let signed = self.sign.iter().flat_map(SignatureRule::templates);
        let stated = self.client_auth.iter().flat_map(ClientAuth::templates);
        self.templates().into_iter().chain(signed).chain(stated).flat_map(|template| template.vars().cloned()).collect()
    }

    /// With settings and URLs put in; `token_url` wins over the path. The error is for a person.
    pub(super) fn compile(
        &self,
        settings: &Settings,
        base_url: &BaseUrl,
        token_url: Option<EndpointUrl>,
    ) -> Result<CompiledTokenRequest, String> {
        let url = match (token_url, &self.path) {
            (Some(url), _) => url,
            (None, None) => {
                return Err("this profile needs `token_url = \"https://…\"`: the bank's token endpoint \
                                        cannot be derived from `base_url`"
                    .to_owned());
            }
            (None, Some(path)) => {
                let path = path.resolve(settings).ok_or("the token path names a setting that is not set")?;
                let url = format!("{base_url}{}", path.as_fixed().unwrap_or_default());
                EndpointUrl::parse(&url).map_err(|reason| format!("the token endpoint's URL is wrong: {reason}"))?
            }
        };
        let mut headers = Vec::new();
        for (name, template) in &self.headers {
            if let Some(text) = template.resolve(settings) {
                headers.push((name.clone(), text));
            }
        }
        let mut body: Vec<(String, Filled)> = Vec::new();
        for (name, field) in &self.body {
            body.extend(field.resolve(settings).map(|filled| (name.clone(), filled)));
        }
        let (mut authorization, mut assertion) = (None, None);
        if let Some(auth) = &self.client_auth {
            match auth.mechanism(settings)? {
                Mechanism::Basic => authorization = Some(auth.basic(settings)?),
                Mechanism::None => {}
                Mechanism::Post | Mechanism::SignedJwt | Mechanism::TlsClientAuth
                    if matches!(self.encoding, Encoding::None | Encoding::Query) =>
                {
                    return Err("this `client_auth` needs a body, and this profile's token request has none: choose \
                                `basic`"
                        .to_owned());
                }
                Mechanism::Post => {
                    for (name, template) in [("client_id", &auth.id), ("client_secret", &auth.secret)] {
                        body.extend(template.resolve(settings).map(|text| (name.to_owned(), Filled::Text(text))));
                    }
                }
                Mechanism::SignedJwt => {
                    assertion = Some(auth.assertion(settings, &url.base.to_string())?);
                }
                Mechanism::TlsClientAuth => {
                    body.extend(auth.id.resolve(settings).map(|text| ("client_id".to_owned(), Filled::Text(text))));
                }
            }
        }
        let mut ids: Vec<Arc<IdRule>> = headers.iter().flat_map(|(_, text)| text.ids().cloned()).collect();
        body.iter().for_each(|(_, field)| field.ids(&mut ids));
        let compiled = self.sign.iter().map(|rule| CompiledSignature::compile(rule, settings));
        let signatures: Vec<CompiledSignature> = compiled.filter_map(Result::transpose).collect::<Result<_, _>>()?;
        signatures.iter().for_each(|signature| signature.ids(&mut ids));
        let (field_signatures, signatures) = signatures.into_iter().partition(CompiledSignature::is_field);
        assertion.iter().for_each(|assertion: &CompiledAssertion| assertion.jwt.ids(&mut ids));
        ids.sort_unstable_by(|one, other| one.name.cmp(&other.name));
        ids.dedup();
        Ok(CompiledTokenRequest {
            method: self.method.clone(),
            url: url.base,
            query: url.query,
            accept: DocumentFormat::Json.accept(),
            encoding: self.encoding,
            headers,
            authorization,
            body,
            ids,
            assertion,
            dpop: None,
            field_signatures,
            signatures,
        })
    }
}

/// Reads a table of body fields.
pub(super) fn object(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Vec<(String, Field)> {
    let fields = Fields::new(node, "the body", report);
    let read = |entry: &&TableEntry| Some((entry.key.clone(), field(&entry.value, scope, report)?));
    let members = fields.rest().iter().filter_map(read).collect();
    fields.finish();
    members
}

/// Reads the fields of a form or query, in which `{ json = … }` is a text.
fn flat_fields(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Vec<(String, Field)> {
    let fields = Fields::new(node, "the body", report);
    let read = |entry: &&TableEntry| {
        let field = match json_text(&entry.value) {
            Some(inner) => Field::JsonText(Box::new(field(inner, scope, report)?)),
            None => field(&entry.value, scope, report)?,
        };
        Some((entry.key.clone(), field))
    };
    let members = fields.rest().iter().filter_map(read).collect();
    fields.finish();
    members
}

/// Returns what stands in `{ json = … }`.
fn json_text(node: &Node) -> Option<&Node> {
    match node.as_table()?.entries.as_slice() {
        [TableEntry { key, value, .. }] if key == "json" => Some(value),
        _ => None,
    }
}

fn field(node: &Node, scope: TemplateScope<'_>, report: &Diagnostics) -> Option<Field> {
    Some(match &node.kind {
        Kind::Array(items) => Field::Array(items.iter().filter_map(|item| field(item, scope, report)).collect()),
        Kind::Boolean(yes) => Field::Literal(Json::Bool(*yes)),
        Kind::Float(number) => Field::Literal(Json::from(*number)),
        Kind::Integer(number) => Field::Literal(Json::from(*number)),
        Kind::Table(_) => Field::Object(object(node, scope, report)),
        Kind::String(_) => {
            let template = Template::read(node, scope, report)?;
            let is_table = |name: &Arc<str>| scope.settings.iter().any(|s| s.name == *name && s.is_table());
            match template.sole_setting() {
                Some(name) if is_table(name) => Field::Table(name.clone()),
                Some(_) | None => {
                    if template.settings().any(is_table) {
                        node.error(report, "a table stands alone in its field", "write the placeholder only", None);
                    }
                    Field::Text(template)
                }
            }
        }
    })
}

/// Reports what cannot be said as `name=value`.
fn flat(node: &Node, settings: &[Setting], report: &Diagnostics) {
    for entry in node.as_table().into_iter().flat_map(|table| &table.entries) {
        let is_table = |kind: &Kind| match kind {
            Kind::Table(_) => true,
            Kind::String(text) => settings.iter().any(|s| s.is_table() && text.contains(&format!("{{{}}}", s.name))),
            Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) => false,
        };
        let nested = match &entry.value.kind {
            // The field once for each value.
            Kind::Array(items) => items.iter().any(|item| matches!(item.kind, Kind::Array(_)) || is_table(&item.kind)),
            kind => is_table(kind) && json_text(&entry.value).is_none(),
        };
        if nested {
            let help = "use `encoding = \"json\"` or flat fields, or send it as a text: `{ json = … }`".to_owned();
            entry.value.error(report, "only JSON can carry a table, or a list of lists", "", Some(help));
        }
    }
}

impl Field {
    /// A text without placeholders.
    pub(super) fn literal(text: &str) -> Self {
        Field::Literal(Json::from(text))
    }

    /// The templates in it.
    pub(super) fn templates<'a>(&'a self, found: &mut Vec<&'a Template>) {
        match self {
            Field::Array(items) => items.iter().for_each(|item| item.templates(found)),
            Field::JsonText(inner) => inner.templates(found),
            Field::Literal(_) | Field::Table(_) => {}
            Field::Object(members) => members.iter().for_each(|(_, member)| member.templates(found)),
            Field::Text(template) => found.push(template),
        }
    }

    /// The value as far as it is known without settings: placeholders are left out.
    pub(super) fn shape(&self) -> Json {
        match self {
            Field::Array(items) => Json::Array(items.iter().map(Field::shape).collect()),
            Field::JsonText(inner) => Json::String(inner.shape().to_string()),
            Field::Literal(value) => value.clone(),
            Field::Object(members) => {
                Json::Object(members.iter().map(|(name, member)| (name.clone(), member.shape())).collect())
            }
            Field::Table(_) => Json::Object(serde_json::Map::new()),
            Field::Text(template) => {
                let literals = template.segments.iter().filter_map(|segment| {
                    if let TemplateSegment::Literal(text) = segment { Some(text.as_str()) } else { None }
                });
                Json::String(literals.collect())
            }
        }
    }

    /// `None` when it names an optional setting that is not set: then it is left out.
    pub(super) fn resolve(&self, settings: &Settings) -> Option<Filled> {
        Some(match self {
            Field::Array(items) => Filled::Array(items.iter().filter_map(|item| item.resolve(settings)).collect()),
            Field::JsonText(inner) => Filled::JsonText(Box::new(inner.resolve(settings)?)),
            Field::Literal(value) => Filled::Literal(value.clone()),
            Field::Object(members) => {
                let resolve = |(name, field): &(String, Field)| Some((name.clone(), field.resolve(settings)?));
                Filled::Object(members.iter().filter_map(resolve).collect())
            }
            Field::Table(name) => match settings.find(name)? {
                SettingValue::Table(members) => {
                    let fill = |(name, member): &(String, SettingMember)| {
                        let text = match member {
                            SettingMember::Text(text) => FilledText::fixed(text.clone()),
                            SettingMember::Var { name, .. } => FilledText::var(name.clone()),
                        };
                        (name.clone(), Filled::Text(text))
                    };
                    Filled::Object(members.iter().map(fill).collect())
                }
                SettingValue::Key(_) | SettingValue::PublicKeys(_) => return None,
                SettingValue::Text(text) => Filled::Text(FilledText::fixed(text.clone())),
            },
            Field::Text(template) => match template.sole_key_statement() {
                // A list, as RFC 7515 section 4.1.6 has it.
                Some((name, KeyStatement::X5c)) => Filled::Literal(Json::from(settings.key(name)?.x5c()?)),
                Some(_) | None => Filled::Text(template.resolve(settings)?),
            },
        })
    }
}

/// A field of the body with the settings put in.
#[derive(Clone, Debug)]
pub(super) enum Filled {
    Array(Vec<Filled>),
    JsonText(Box<Filled>),
    Literal(Json),
    Object(Vec<(String, Filled)>),
    Text(FilledText),
}

impl Filled {
    pub(super) fn vars(&self, found: &mut Vec<Arc<str>>) {
        match self {
            Filled::Array(items) => items.iter().for_each(|item| item.vars(found)),
            Filled::JsonText(inner) => inner.vars(found),
            Filled::Literal(_) => {}
            Filled::Object(members) => members.iter().for_each(|(_, member)| member.vars(found)),
            Filled::Text(text) => found.extend(text.vars().cloned()),
        }
    }

    pub(super) fn ids(&self, found: &mut Vec<Arc<IdRule>>) {
        match self {
            Filled::Array(items) => items.iter().for_each(|item| item.ids(found)),
            Filled::JsonText(inner) => inner.ids(found),
            Filled::Literal(_) => {}
            Filled::Object(members) => members.iter().for_each(|(_, member)| member.ids(found)),
            Filled::Text(text) => found.extend(text.ids().cloned()),
        }
    }

    /// Its JSON as a text; `None`: a variable of it is absent.
    fn json_text(&self, fill: &mut Fill<'_>) -> Option<Zeroizing<String>> {
        let mut text = Zeroizing::new(Vec::with_capacity(256));
        let is_there = self.write(fill, &mut text);
        let text = Zeroizing::new(String::from_utf8(std::mem::take(&mut text)).ok()?);
        is_there.then_some(text)
    }

    /// Appends it as JSON. Says whether there was anything: a field whose variable is absent is left out.
    fn write(&self, fill: &mut Fill<'_>, out: &mut Vec<u8>) -> bool {
        match self {
            Filled::Array(items) => {
                out.push(b'[');
                let mut more = false;
                for item in items {
                    let start = out.len();
                    if more {
                        out.push(b',');
                    }
                    if item.write(fill, out) { more = true } else { out.truncate(start) }
                }
                out.push(b']');
            }
            Filled::JsonText(inner) => match inner.json_text(fill) {
                Some(text) => quote(&**text, out),
                None => return false,
            },
            Filled::Literal(value) => quote(value, out),
            Filled::Object(members) => write_object(members, fill, out),
            Filled::Text(text) => match text.render(fill) {
                Some(text) => quote(&**text, out),
                None => return false,
            },
        }
        true
    }
}

/// Appends an object as JSON; members whose variable is absent are left out.
pub(super) fn write_object(members: &[(String, Filled)], fill: &mut Fill<'_>, out: &mut Vec<u8>) {
    out.push(b'{');
    let mut more = false;
    for (name, member) in members {
        let start = out.len();
        if more {
            out.push(b',');
        }
        quote(name, out);
        out.push(b':');
        if member.write(fill, out) { more = true } else { out.truncate(start) }
    }
    out.push(b'}');
}

fn quote<T: serde::Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) {
    serde_json::to_writer(out, value).expect("texts, numbers and booleans always serialise, and a Vec takes all bytes");
}

/// `[token.request]` with the settings of one provider put in.
#[derive(Debug)]
pub(super) struct CompiledTokenRequest {
    method: Method,
    pub url: BaseUrl,
    /// The query of the endpoint's own URL; the fields of a query follow it.
    pub query: Option<Arc<str>>,
    /// The answer that is asked for.
    pub accept: &'static str,
    encoding: Encoding,
    headers: Vec<(HeaderName, FilledText)>,
    authorization: Option<HeaderValue>,
    body: Vec<(String, Filled)>,
    /// The declared identifiers that it has, sorted by name.
    pub ids: Vec<Arc<IdRule>>,
    /// The signed statement by which the client authenticates.
    assertion: Option<CompiledAssertion>,
    /// The key by which it proves that the token is to be bound to it.
    pub dpop: Option<Arc<CompiledDpop>>,
    /// The signatures that become fields of the body, such as a request object (RFC 9101).
    field_signatures: Vec<CompiledSignature>,
    /// All others.
    signatures: Vec<CompiledSignature>,
}

/// The inputs of one token request, besides the profile and its settings.
pub(super) struct RequestInputs<'a> {
    pub vars: &'a Vars,
    pub ids: &'a mut dyn Ids,
    pub values: &'a MessageValues,
    pub consent: ConsentVariables<'a>,
    /// The values that earlier steps of the login captured.
    pub steps: &'a [(Arc<str>, SecretString)],
}

impl CompiledTokenRequest {
    /// Adds fields with fixed values behind its own.
    pub(super) fn add_fields(&mut self, fields: &[(String, String)]) {
        let text = |value: &String| Filled::Text(FilledText::fixed(SecretString::from(value.as_str())));
        self.body.extend(fields.iter().map(|(name, value)| (name.clone(), text(value))));
    }

    /// The URL that it goes to.
    pub(super) fn endpoint(&self) -> EndpointUrl {
        EndpointUrl { base: self.url.clone(), query: self.query.clone() }
    }

    /// The route variables that go into it, sorted, each once.
    pub(super) fn vars(&self) -> Vec<Arc<str>> {
        let mut found: Vec<Arc<str>> = self.headers.iter().flat_map(|(_, text)| text.vars().cloned()).collect();
        self.body.iter().for_each(|(_, field)| field.vars(&mut found));
        let signatures = self.field_signatures.iter().chain(&self.signatures);
        signatures.for_each(|signature| signature.vars(&mut found));
        self.assertion.iter().for_each(|assertion| assertion.jwt.vars(&mut found));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The request for a token, generated values and all. First fetch and renewal are the same request.
    pub(super) fn request(self: &Arc<Self>, inputs: RequestInputs<'_>) -> TokenRequest {
        let RequestInputs { vars, ids, values, consent, steps } = inputs;
        let mut fill = Fill { vars, ids, values: Some(values), grant: None, consent, message: None, steps };
        let mut headers = HeaderMap::with_capacity(self.headers.len() + 3);
        headers.insert(ACCEPT, HeaderValue::from_static(self.accept));
        match self.encoding {
            Encoding::Form => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
            }
            Encoding::Json => {
                headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
            }
            Encoding::None | Encoding::Query => {}
        }
        if let Some(value) = &self.authorization {
            headers.insert(AUTHORIZATION, value.clone());
        }
        for (name, text) in &self.headers {
            // A route variable with a character that no header carries leaves its header out.
            if let Some(mut value) = text.render(&mut fill).and_then(|text| HeaderValue::from_str(&text).ok()) {
                value.set_sensitive(true);
                headers.insert(name.clone(), value);
            }
        }
        let (mut query, mut body) = (None, Vec::new());
        match self.encoding {
            Encoding::Form => body = self.pairs(&mut fill).as_bytes().to_vec(),
            Encoding::Json => {
                body.reserve(1024);
                write_object(&self.body, &mut fill, &mut body);
            }
            Encoding::None => {}
            Encoding::Query => query = Some(SecretString::from(self.pairs(&mut fill).as_str())),
        }
        let query = query.filter(|query| !query.expose_secret().is_empty());
        let query = match (&self.query, query) {
            (None, query) => query,
            (Some(own), None) => Some(SecretString::from(&**own)),
            (Some(own), Some(query)) => {
                let joined = Zeroizing::new(format!("{own}&{}", query.expose_secret()));
                Some(SecretString::from(joined.as_str()))
            }
        };
        TokenRequest {
            method: self.method.clone(),
            url: self.url.clone(),
            query,
            headers,
            body: SecretBox::new(Box::new(body)),
            due: self.due_signatures(vars, values, consent, steps),
        }
    }

    /// What of it is signed once it is made.
    fn due_signatures(
        self: &Arc<Self>,
        vars: &Vars,
        values: &MessageValues,
        consent: ConsentVariables<'_>,
        steps: &[(Arc<str>, SecretString)],
    ) -> Option<Arc<DueSignatures>> {
        let signs = !self.field_signatures.is_empty() || !self.signatures.is_empty();
        if self.assertion.is_none() && self.dpop.is_none() && !signs {
            return None;
        }
        Some(Arc::new(DueSignatures {
            template: self.clone(),
            vars: vars.clone(),
            values: values.clone(),
            consent: KeptConsentVariables::keep(consent),
            steps: steps.to_vec(),
        }))
    }

    /// Encodes the fields as `a=b&c=d`, as in a form.
    fn pairs(&self, fill: &mut Fill<'_>) -> Zeroizing<String> {
        let mut out = form_urlencoded::Serializer::new(String::with_capacity(1024));
        for (name, field) in &self.body {
            // A list is the field once for each value, as RFC 8707 section 2 has it of `resource`.
            let values = if let Filled::Array(items) = field { items.as_slice() } else { std::slice::from_ref(field) };
            for value in values {
                match value {
                    Filled::Literal(value) => {
                        out.append_pair(name, &value.to_string());
                    }
                    Filled::Text(text) => {
                        if let Some(text) = text.render(fill) {
                            out.append_pair(name, &text);
                        }
                    }
                    Filled::JsonText(inner) => {
                        if let Some(text) = inner.json_text(fill) {
                            out.append_pair(name, &text);
                        }
                    }
                    // Refused when the profile was read.
                    Filled::Array(_) | Filled::Object(_) => {}
                }
            }
        }
        Zeroizing::new(out.finish())
    }
}

/// Returns whether a template names a secret setting, or what a step of the login captured.
pub(super) fn names_secret(template: &Template, settings: &[Setting]) -> bool {
    template.segments.iter().any(|segment| match segment {
        TemplateSegment::Setting(name) => settings.iter().any(|setting| setting.name == *name && setting.secret),
        TemplateSegment::Step(_) => true,
        TemplateSegment::Captured(_)
        | TemplateSegment::Consent(_)
        | TemplateSegment::Id(_)
        | TemplateSegment::Key(..)
        | TemplateSegment::Literal(_)
        | TemplateSegment::Message(_)
        | TemplateSegment::Time(_)
        | TemplateSegment::Token
        | TemplateSegment::Uuid
        | TemplateSegment::UuidHex
        | TemplateSegment::Var(_) => false,
    })
}
