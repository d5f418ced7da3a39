//! The consent of one provider, compiled: its requests made, its answers read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::base::id::Ids;
use crate::base::origin::{BaseUrl, EndpointUrl};
use crate::base::planted::{PlantedFault, planted};
use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::Now;
use crate::base::vars::Vars;
use crate::provider::condition::Fit;
use crate::provider::consent::callback::{BadCallback, code};
use crate::provider::consent::{ConsentParams, ConsentProfile};
use crate::provider::document::{self, DocumentFormat};
use crate::provider::dpop::CompiledDpop;
use crate::provider::exchange::{CompiledTokenRequest, RequestInputs, RequestTemplate, TokenRequest};
use crate::provider::json;
use crate::provider::life::{LifeClaims, date};
use crate::provider::message_values::MessageValues;
use crate::provider::profile::Profile;
use crate::provider::setting::{Setting, Settings};
use crate::provider::template::ConsentVariables;
use crate::provider::token_response_rules::{ResponseContext, judged, known, transient};
use crate::token::consent::{
    CallbackAnswer, ConsentOrigin, ConsentRealm, Consenting, PendingConsent, PendingEntry, Rejection, RotationRefusal,
    State, UserTokens, judge,
};
use crate::token::failure::Failure;
use crate::token::grant::{RefreshGrant, UserGrant};
use crate::token::key::KeyBuilder;

/// The longest URL that a user is sent to, in bytes.
const LONGEST_URL: usize = 4096;

/// The content of `[provider.NAME.consent]`, as far as the provider's requests depend on it.
#[derive(Clone, Debug)]
pub struct ConsentWiring {
    /// URL at which the callback listener is reached from outside: `public_url`.
    pub public_url: BaseUrl,
    /// URL at which the user agrees, for profiles that cannot know it (RFC 6749 section 3.1); see
    /// [`Profile::wants_authorize_url`].
    pub authorize_url: Option<BaseUrl>,
    /// URL to which authorization requests are pushed, for profiles that cannot know it (RFC 9126 section 2).
    pub par_url: Option<BaseUrl>,
    /// Values of `params`, read by [`Profile::read_consent_params`].
    pub params: ConsentParams,
}

/// The first step of a consent.
#[derive(Debug)]
pub enum Authorize {
    /// Send this, and give the answer to [`CompiledConsent::authorize_answer`].
    Ask(TokenRequest),
    /// The URL that the user opens.
    Open(String),
}

/// The code arrived too long ago: it was dropped, and the user must start again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Stale;

/// The consent of one provider, compiled. Part of a [`Module`](crate::provider::Module).
pub struct CompiledConsent {
    profile: Arc<Profile>,
    provider: Arc<str>,
    realm: ConsentRealm,
    /// The authorization request that is pushed ahead of the browser, if it is.
    push: Option<Arc<CompiledTokenRequest>>,
    authorize: Arc<CompiledTokenRequest>,
    /// Further fields of the authorize request's query.
    others: Vec<(String, String)>,
    exchange: Arc<CompiledTokenRequest>,
    refresh: Option<Arc<CompiledTokenRequest>>,
    redirect_uri: String,
    /// The issuer that every authorization response must name.
    issuer: Option<String>,
    default_ttl: Option<Duration>,
    secrets: Vec<SecretString>,
}

impl fmt::Debug for CompiledConsent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledConsent")
            .field("provider", &self.provider)
            .field("realm", &self.realm)
            .finish_non_exhaustive()
    }
}

/// The inputs from which a consent is compiled, besides its profile.
pub(in crate::provider) struct ConsentParts<'a> {
    pub name: &'a str,
    pub settings: &'a Settings,
    pub base_url: &'a BaseUrl,
    pub token_url: EndpointUrl,
    pub wiring: &'a ConsentWiring,
    pub default_ttl: Option<Duration>,
    pub secrets: &'a [SecretString],
    pub dpop: Option<&'a Arc<CompiledDpop>>,
}

/// The exchange of one code: two requests, of which the second is sent only if the provider refused the credentials in the
/// first one.
pub struct CodeExchange {
    pub first: TokenRequest,
    /// The same with the credentials of the other slot.
    pub other: Option<TokenRequest>,
}

impl CompiledConsent {
    pub(in crate::provider) fn compile(profile: &Arc<Profile>, parts: &ConsentParts<'_>) -> Result<Self, String> {
        let ConsentParts { name, base_url, token_url, wiring, dpop, .. } = parts;
        let ceremony = profile.consent.as_ref().ok_or_else(|| {
            format!("the profile `{}` knows no users: take [provider.{name}.consent] out", profile.name())
        })?;
        let settings = parts.settings.and(wiring.params.known.iter().cloned());
        let authorize_url = match (&wiring.authorize_url, ceremony.wants_authorize_url()) {
            (None, true) => {
                return Err("its consent needs `authorize_url = \"https://…\"`: where users agree cannot be derived \
                            from `base_url`"
                    .to_owned());
            }
            (url, _) => url.clone(),
        };
        let authorize = ceremony.authorize.compile(&settings, base_url, authorize_url.map(EndpointUrl::from))?;
        let mut push = match (ceremony.push.as_ref(), &wiring.par_url) {
            (None, None) => None,
            (None, Some(_)) => {
                return Err(format!("the profile `{}` pushes nothing: take `par_url` out", profile.name()));
            }
            (Some(push), None) if !push.request.has_path() => {
                return Err(
                    "its consent needs `par_url = \"https://…\"`: where authorization requests are pushed cannot \
                            be derived from `base_url`"
                        .to_owned(),
                );
            }
            (Some(push), url) => Some(push.request.compile(&settings, base_url, url.clone().map(EndpointUrl::from))?),
        };
        if let Some(push) = &mut push {
            push.add_fields(&wiring.params.others);
            push.dpop = dpop.cloned();
        }
        let issuer = ceremony.keys.issuer.as_ref().map(|issuer| {
            let text =
                issuer.resolve(&settings).ok_or("`issuer` of [consent.callback] names a setting that is not set")?;
            Ok::<_, String>(text.as_fixed().unwrap_or_default().to_owned())
        });
        let issuer = issuer.transpose()?;
        // A request with a path of its own goes there; all others go to the token endpoint.
        let at_token = |has_path: bool| (!has_path).then(|| token_url.clone());
        let mut exchange = ceremony.exchange.compile(&settings, base_url, at_token(ceremony.exchange.has_path()))?;
        let refresh = ceremony.refresh.as_ref();
        let mut refresh =
            refresh.map(|plan| plan.compile(&settings, base_url, at_token(plan.has_path()))).transpose()?;
        for exchange in [&mut exchange].into_iter().chain(&mut refresh) {
            exchange.accept = profile.answer.format.accept();
            exchange.dpop = dpop.cloned();
        }
        let others = if push.is_some() { Vec::new() } else { wiring.params.others.clone() };
        let realm = realm(profile, ceremony, parts, push.as_ref(), &authorize);
        Ok(Self {
            profile: profile.clone(),
            provider: (*name).into(),
            realm,
            authorize: Arc::new(authorize),
            push: push.map(Arc::new),
            others,
            exchange: Arc::new(exchange),
            refresh: refresh.map(Arc::new),
            redirect_uri: format!("{}/.countersign/consent/{name}/callback", wiring.public_url),
            issuer,
            default_ttl: parts.default_ttl,
            secrets: parts.secrets.to_vec(),
        })
    }

    /// The endpoints that no route may reach.
    pub(in crate::provider) fn endpoints(&self) -> impl Iterator<Item = &BaseUrl> {
        let more = self.push.iter().chain(&self.refresh);
        [&self.authorize.url, &self.exchange.url].into_iter().chain(more.map(|request| &request.url))
    }

    fn ceremony(&self) -> &ConsentProfile {
        self.profile.consent.as_ref().expect("compiled from a profile with a consent")
    }

    fn moment(&self, endpoint: &'static str, sent: Now, now: Now) -> ResponseContext<'_> {
        ResponseContext { endpoint, sent, now, default_ttl: self.default_ttl, secrets: &self.secrets }
    }

    /// Returns the realm to which users consent: for [`PendingConsent::start`] and for rotations.
    pub const fn realm(&self) -> ConsentRealm {
        self.realm
    }

    /// Returns the URI to which the provider sends browsers back. It has to be registered with the provider.
    pub fn redirect_uri(&self) -> &str {
        &self.redirect_uri
    }

    /// Returns whether its tokens can be renewed without the user.
    pub const fn refreshes(&self) -> bool {
        self.refresh.is_some()
    }

    /// Returns the issuer that every authorization response must name (RFC 9207); `None`: it is not looked at.
    pub fn issuer(&self) -> Option<&str> {
        self.issuer.as_deref()
    }

    /// The authorization request that is sent ahead of the browser, of a consent that was filed under `state` (RFC 9126);
    /// `None`: nothing is pushed.
    pub fn push(&self, pending: &PendingConsent, state: &State, ids: &mut dyn Ids, now: Now) -> Option<TokenRequest> {
        let challenge = pending.verifier.challenge();
        let pieces = ConsentVariables {
            challenge: Some(challenge.as_str()),
            redirect_uri: Some(&self.redirect_uri),
            state: Some(state.as_str()),
            ..ConsentVariables::default()
        };
        Some(request(self.push.as_ref()?, ids, now, pieces))
    }

    /// Reads the answer to [`CompiledConsent::push`]: the `request_uri`, for [`CompiledConsent::authorize`].
    pub fn push_answer(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        sent: Now,
        now: Now,
    ) -> Result<SecretString, Failure> {
        let moment = self.moment("pushed authorization request endpoint", sent, now);
        let value = self.profile.answer.success(DocumentFormat::Json, status, headers, body, moment)?;
        let pointers = self.ceremony().push.as_ref().map_or(&[][..], |push| &push.request_uri);
        match json::first(&value, pointers).and_then(Value::as_str) {
            Some(uri) if is_request_uri(uri) => Ok(SecretString::from(uri)),
            Some(_) | None => Err(transient(status, headers, "but there is no usable `request_uri`", moment)),
        }
    }

    /// Begins a consent that was filed under `state`. `request_uri`: that of the request that was pushed before, if one was.
    pub fn authorize(
        &self,
        pending: &PendingConsent,
        state: &State,
        request_uri: Option<&SecretString>,
        ids: &mut dyn Ids,
        now: Now,
    ) -> Authorize {
        let challenge = pending.verifier.challenge();
        let pieces = ConsentVariables {
            challenge: Some(challenge.as_str()),
            redirect_uri: Some(&self.redirect_uri),
            request_uri: request_uri.map(ExposeSecret::expose_secret),
            state: Some(state.as_str()),
            ..ConsentVariables::default()
        };
        let mut request = request(&self.authorize, ids, now, pieces);
        if !self.others.is_empty() {
            let query = request.query.as_ref().map_or("", ExposeSecret::expose_secret).to_owned();
            let mut query = form_urlencoded::Serializer::for_suffix(query, 0);
            query.extend_pairs(&self.others);
            request.query = Some(SecretString::from(query.finish()));
        }
        if self.ceremony().opens.is_empty() {
            let query = request.query.as_ref().map_or("", ExposeSecret::expose_secret);
            Authorize::Open(format!("{}?{query}", request.url))
        } else {
            Authorize::Ask(request)
        }
    }

    /// Reads the answer to [`Authorize::Ask`]: the URL that the user opens. It is the provider's own (SCB: a deeplink
    /// of its app), so any scheme may stand there that no browser runs or reads files with.
    pub fn authorize_answer(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        sent: Now,
        now: Now,
    ) -> Result<String, Failure> {
        let moment = self.moment("authorize endpoint", sent, now);
        let value = self.profile.answer.success(DocumentFormat::Json, status, headers, body, moment)?;
        match json::first(&value, &self.ceremony().opens).and_then(Value::as_str) {
            Some(url) if opens(url) => Ok(url.to_owned()),
            Some(_) => Err(transient(status, headers, "but the URL for the user is none that can be opened", moment)),
            None => Err(transient(status, headers, "but there is no URL for the user", moment)),
        }
    }

    /// Reads what a browser brought to the callback: the query without its `?`.
    pub fn callback(&self, query: &str, now: Now) -> Result<CallbackAnswer, BadCallback> {
        self.ceremony().keys.callback(query, now)
    }

    /// The same for an application that received the code itself.
    pub fn posted(
        &self,
        state: &str,
        text: &str,
        issuer: Option<String>,
        now: Now,
    ) -> Result<CallbackAnswer, BadCallback> {
        Ok(CallbackAnswer { state: State::parse(state), code: Some(code(text, now)?), error: None, issuer })
    }

    /// Judges a callback of this provider; see [`judge`]: `found` was swapped for [`PendingEntry::Spent`] before.
    pub fn judge(
        &self,
        found: Option<PendingEntry>,
        asked: ConsentOrigin<'_>,
        callback: CallbackAnswer,
        now: Now,
    ) -> Result<Consenting, Rejection> {
        judge(found, &self.provider, &self.realm, self.issuer(), asked, callback, now)
    }

    /// The request for tokens, and the same with the credentials of `other`. It uses the permission up; a code that arrived
    /// too long ago is never sent.
    pub fn exchange(
        &self,
        other: Option<&Self>,
        consenting: Consenting,
        ids: &mut dyn Ids,
        now: Now,
    ) -> Result<(CodeExchange, PendingConsent), Stale> {
        let (pending, code) = consenting.into_parts();
        let code = code.spend(self.ceremony().code_life, now).ok_or(Stale)?;
        let pieces = ConsentVariables {
            code: Some(code.expose_secret()),
            redirect_uri: Some(&self.redirect_uri),
            verifier: Some(pending.verifier.secret().expose_secret()),
            ..ConsentVariables::default()
        };
        let first = request(&self.exchange, ids, now, pieces);
        let other = other.map(|other| request(&other.exchange, ids, now, pieces));
        Ok((CodeExchange { first, other }, pending))
    }

    /// Reads the answer to an exchange.
    pub fn exchange_answer(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        sent: Now,
        now: Now,
    ) -> Result<UserGrant, RotationRefusal> {
        self.answer(status, headers, body, self.moment("token endpoint", sent, now), true)
    }

    /// The request for new tokens. `None`: there is no refresh token that may be tried, or this provider knows none.
    pub fn refresh(&self, tokens: &UserTokens, ids: &mut dyn Ids, now: Now) -> Option<TokenRequest> {
        let refresh_token = Some(tokens.refreshable(now)?.token.expose_secret());
        let pieces = ConsentVariables { refresh_token, ..ConsentVariables::default() };
        Some(request(self.refresh.as_ref()?, ids, now, pieces))
    }

    /// Reads the response to a refresh. Captured headers may be absent from it: they stay as they were.
    pub fn refresh_answer(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        sent: Now,
        now: Now,
    ) -> Result<UserGrant, RotationRefusal> {
        self.answer(status, headers, body, self.moment("refresh endpoint", sent, now), false)
    }

    fn answer(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        moment: ResponseContext<'_>,
        first: bool,
    ) -> Result<UserGrant, RotationRefusal> {
        let captures = &self.ceremony().captures;
        match self.profile.answer.grant_with(status, headers, body, moment, captures, first) {
            Ok((grant, mut rest)) => Ok(UserGrant { grant, refresh: self.refresh_token(headers, &mut rest, moment) }),
            // No other response brings this refresh token again: it is kept, even if the rest of a successful response
            // is unusable.
            Err(failure) => {
                match self.rescued(status, headers, body, moment).filter(|_| !planted(PlantedFault::ThrownAway)) {
                    Some(refresh) => Err(RotationRefusal::Unusable(failure, refresh)),
                    None => Err(self.refusal(status, headers, body, failure)),
                }
            }
        }
    }

    /// The refresh token of an answer that is a success but for its access token.
    fn rescued(
        &self,
        status: StatusCode,
        headers: &HeaderMap,
        body: &[u8],
        moment: ResponseContext<'_>,
    ) -> Option<RefreshGrant> {
        let answer = &self.profile.answer;
        let mut value = match answer.success(answer.format, status, headers, body, moment) {
            Ok(value) => value,
            // It may be longer than answers are read; the caller bounds what this is.
            Err(_) => {
                let value = json::parse(std::str::from_utf8(body).ok()?).ok()?;
                (status.is_success() && answer.success.iter().all(|test| test.holds(&value))).then_some(value)?
            }
        };
        self.refresh_token(headers, &mut value, moment)
    }

    /// Takes the refresh token out of an answer, if there is one and this provider has a use for it.
    fn refresh_token(
        &self,
        headers: &HeaderMap,
        answer: &mut Value,
        moment: ResponseContext<'_>,
    ) -> Option<RefreshGrant> {
        let ceremony = self.ceremony();
        self.refresh.as_ref()?;
        let hit =
            ceremony.refresh_token.iter().find(|pointer| answer.pointer(pointer).is_some_and(Value::is_string))?;
        let token = match answer.pointer_mut(hit).map(Value::take)? {
            Value::String(text) if !text.is_empty() && !text.contains(char::REPLACEMENT_CHARACTER) => {
                SecretString::from(text)
            }
            Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_) | Value::String(_) => {
                return None;
            }
        };
        let claims = LifeClaims {
            expires_in: json::first(answer, &ceremony.refresh_expires_in),
            expires_at: json::first(answer, &ceremony.refresh_expires_at),
            unit: self.profile.answer.expires_in_unit,
            token: "",
            default_ttl: ceremony.default_refresh_ttl,
            date: date(headers),
        };
        Some(RefreshGrant { token, life: claims.refresh_life(moment.sent, moment.now) })
    }

    /// Classifies a failure: the code or the refresh token is dead, or only this attempt failed.
    fn refusal(&self, status: StatusCode, headers: &HeaderMap, body: &[u8], failure: Failure) -> RotationRefusal {
        let content = known(document::read(self.profile.answer.format, headers, body));
        let body = judged(content, headers, body, self.ceremony().dead.iter());
        let dead = self.ceremony().dead.iter().any(|matcher| matcher.fit(status, headers, &body) == Fit::Yes);
        if dead { RotationRefusal::Dead(failure.inside) } else { RotationRefusal::Failed(failure) }
    }
}

/// One of its requests: each is a message of its own.
fn request(
    compiled: &Arc<CompiledTokenRequest>,
    ids: &mut dyn Ids,
    now: Now,
    consent: ConsentVariables<'_>,
) -> TokenRequest {
    let values = MessageValues::first(&compiled.ids, ids, now);
    compiled.request(RequestInputs { vars: &Vars::none(), ids, values: &values, consent, steps: &[] })
}

/// Returns whether it may be a `request_uri`: it goes into a URL, where every character but these is escaped.
fn is_request_uri(uri: &str) -> bool {
    (1..=LONGEST_URL / 2).contains(&uri.len()) && uri.bytes().all(|byte| byte.is_ascii_graphic())
}

/// Returns whether a browser or a phone may be directed to open the URL.
fn opens(url: &str) -> bool {
    let Some((scheme, rest)) = url.split_once(':') else { return false };
    let scheme_like = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    let running = ["about", "blob", "data", "file", "filesystem", "http", "javascript", "vbscript", "view-source"];
    url.len() <= LONGEST_URL
        && url.bytes().all(|b| b.is_ascii_graphic())
        && scheme_like
        && !rest.is_empty()
        && !running.iter().any(|bad| scheme.eq_ignore_ascii_case(bad))
}

/// Computes the digest of the user's consent: the endpoints, and the settings in the authorize request that are neither
/// secret nor parameters (`param.NAME`).
fn realm(
    profile: &Profile,
    ceremony: &ConsentProfile,
    parts: &ConsentParts<'_>,
    push: Option<&CompiledTokenRequest>,
    authorize: &CompiledTokenRequest,
) -> ConsentRealm {
    let mut digest = KeyBuilder::new(parts.name);
    digest.field("realm", b"1");
    for (name, url) in
        [("base_url", parts.base_url), ("token_url", &parts.token_url.base), ("authorize", &authorize.url)]
    {
        digest.field(name, url.to_string().as_bytes());
    }
    push.iter().for_each(|push| digest.field("push", push.url.to_string().as_bytes()));
    let asking = [&ceremony.authorize].into_iter().chain(ceremony.push.iter().map(|push| &push.request));
    let mut named: Vec<&Arc<str>> =
        asking.flat_map(RequestTemplate::templates).flat_map(|template| template.settings()).collect();
    named.sort_unstable();
    named.dedup();
    let secret = |name: &str| profile.settings.iter().any(|setting: &Setting| *setting.name == *name && setting.secret);
    for name in named.into_iter().filter(|name| !name.starts_with("param.") && !secret(name)) {
        digest.field(name, parts.settings.text(name).unwrap_or_default().as_bytes());
    }
    ConsentRealm(*digest.finish().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_browser_would_run_is_opened() {
        for url in ["scbeasysim://login/1", "https://bank.example/a?b=c", "scbeasy:login"] {
            assert!(opens(url), "{url}");
        }
        for url in [
            "",
            "x",
            "javascript:alert(1)",
            "JavaScript:1",
            "data:text/html,x",
            "http://bank.example",
            "://x",
            "https:",
            "a b:c",
            "https://a\r\nb",
        ] {
            assert!(!opens(url), "{url}");
        }
    }
}
