//! A profile with the settings of one provider: everything compiled, so that a request only clones.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, Method, StatusCode};
use zeroize::Zeroizing;

use crate::base::id::{Ids, RandomIds};
use crate::base::origin::{BaseUrl, EndpointUrl};
use crate::base::secret::{ExposeSecret, Fingerprint, SecretString, hex};
use crate::base::time::{Deadline, Now, Within};
use crate::base::vars::Vars;
use crate::provider::body_fields::UnfitBody;
use crate::provider::coexistence::Coexistence;
use crate::provider::compiled_jose::{JoseBody, MessageOpener};
use crate::provider::compiled_signature::{SignatureFailure, SignedMessage};
use crate::provider::consent::{CompiledConsent, ConsentParts, ConsentProfile, ConsentWiring};
use crate::provider::dpop;
use crate::provider::dpop::CompiledDpop;
use crate::provider::exchange::{CompiledTokenRequest, RequestTemplate, names_secret};
use crate::provider::guard::Guard;
use crate::provider::injection::{CallInputs, Injection, SentIds};
use crate::provider::login::{CompiledStep, LoginStep};
use crate::provider::profile::Profile;
use crate::provider::refusal::Verdict;
use crate::provider::setting::{SettingMember, SettingValue, Settings};
use crate::signing::jwe::Entropy;
use crate::token::grant::{CallCredentials, Grant};
use crate::token::key::{KeyBuilder, TokenKey};
use crate::token::lease::{Lease, LeaseTrial};

/// Everything that a module is compiled from, besides profile and settings.
#[derive(Debug)]
pub struct Wiring<'a> {
    /// The provider's name in `proxy.toml`; part of every token key.
    pub name: &'a str,
    /// The base URL of the provider's API.
    pub base_url: BaseUrl,
    /// The URL of the token endpoint; `None`: the profile derives it from `base_url`.
    pub token_url: Option<EndpointUrl>,
    /// `default_ttl` of `proxy.toml`, if set.
    pub default_ttl: Option<Duration>,
    /// `[provider.NAME.consent]` of `proxy.toml`, if there is one.
    pub consent: Option<ConsentWiring>,
    /// In whose name the calls are made.
    pub caller: CallAs,
}

/// In whose name a route's calls are made: `as` of `proxy.toml`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum CallAs {
    /// The application's own token, without a user.
    #[default]
    Application,
    /// The token of a user who consented.
    User,
}

/// A dressed call that is to be signed.
pub struct UnsignedCall<'a> {
    pub method: &'a Method,
    /// The provider's host, with its port unless it is the usual one.
    pub authority: &'a str,
    /// The request target in origin form.
    pub path_and_query: &'a mut String,
    pub headers: &'a mut HeaderMap,
    /// Empty for a call without a body.
    pub body: &'a [u8],
    /// The nonce that the API gave last, for a proof of possession.
    pub nonce: Option<&'a str>,
}

impl<'a> UnsignedCall<'a> {
    fn into_message(self) -> SignedMessage<'a> {
        let UnsignedCall { method, authority, path_and_query, headers, body, nonce: _ } = self;
        SignedMessage { method: method.as_str(), authority, path_and_query, headers, body, token: None }
    }
}

/// Leaves out everything that may hold a credential.
impl fmt::Debug for UnsignedCall<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnsignedCall").field("method", &self.method).finish_non_exhaustive()
    }
}

/// A profile with the settings of one provider (and one route's overrides), compiled. Cheap to share, never changed.
pub struct Module {
    pub(super) profile: Arc<Profile>,
    key: TokenKey,
    /// The same but for the values of secrets.
    identity: TokenKey,
    /// The requests that come before the token request.
    pub(super) steps: Vec<CompiledStep>,
    /// The token request; `None`: the credential is static.
    pub(super) exchange: Option<Arc<CompiledTokenRequest>>,
    /// The route variables that go into the login's requests, sorted.
    vars: Vec<Arc<str>>,
    pub(super) injection: Injection,
    consent: Option<CompiledConsent>,
    /// Opens answers; `None`: they are passed on as they come.
    opener: Option<MessageOpener>,
    /// Verifies webhooks; `None`: the profile knows of none.
    webhook: Option<MessageOpener>,
    pub(super) caller: CallAs,
    guard: Guard,
    pub(super) default_ttl: Option<Duration>,
    pub(super) secrets: Vec<SecretString>,
    /// The names of settings whose value begins or ends with white space.
    padded: Vec<String>,
    judges_bodies: bool,
    pub(super) settings: Settings,
}

impl fmt::Debug for Module {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Module").field("profile", &self.profile.name).field("key", &self.key).finish_non_exhaustive()
    }
}

impl Module {
    /// Compiles everything. The error is for a person: what is wrong with the provider as a whole.
    pub fn build(profile: &Arc<Profile>, settings: Settings, wiring: Wiring<'_>) -> Result<Module, String> {
        let standing = profile.is_standing().then(|| format!("the profile `{}` has no token", profile.name));
        if let (Some(why), true) = (&standing, wiring.token_url.is_some() || wiring.default_ttl.is_some()) {
            return Err(format!("{why}: take `token_url` and `default_ttl` out"));
        }
        let dpop = profile.dpop.as_ref().map(|rule| CompiledDpop::compile(rule, &settings)).transpose()?;
        let compile = |plan: &RequestTemplate| plan.compile(&settings, &wiring.base_url, wiring.token_url.clone());
        let mut exchange = profile.plan.as_ref().map(compile).transpose()?;
        let mut steps = Vec::new();
        if let Some(exchange) = &mut exchange {
            exchange.accept = profile.answer.format.accept();
            exchange.dpop = dpop.clone();
            let compile = |step: &LoginStep| step.compile(&settings, &wiring.base_url, exchange);
            steps = profile.steps.iter().map(compile).collect::<Result<Vec<_>, _>>()?;
        }
        let exchange = exchange.map(Arc::new);
        let declared = &profile.settings;
        let plans = profile.consent.iter().flat_map(ConsentProfile::plans);
        let plans: Vec<&RequestTemplate> = profile.logins().chain(plans).collect();
        let secret_headers = plans.iter().flat_map(|plan| plan.header_templates());
        let secret_headers = secret_headers.filter(|(_, value)| names_secret(value, declared));
        let secret_headers = secret_headers.map(|(name, _)| name.clone());
        let orders = match (wiring.caller, &profile.consent) {
            (CallAs::Application, _) => &profile.orders,
            (CallAs::User, Some(ceremony)) => &ceremony.orders,
            (CallAs::User, None) => {
                return Err(format!("the profile `{}` knows no users: `as = \"user\"` cannot work", profile.name));
            }
        };
        let injection = orders.compile(declared, &settings, secret_headers, dpop.clone())?;
        let (mut key, mut identity) = (KeyBuilder::new(wiring.name), KeyBuilder::new(wiring.name));
        let mut both = |name: &str, value: &[u8]| {
            key.field(name, value);
            identity.field(name, value);
        };
        both("profile", profile.name.as_bytes());
        both("profile text", &profile.digest);
        both("base_url", wiring.base_url.to_string().as_bytes());
        if let Some(exchange) = &exchange {
            both("token_url", exchange.url.to_string().as_bytes());
            exchange.query.iter().for_each(|query| both("token_query", query.as_bytes()));
        }
        both("default_ttl", format!("{:?}", wiring.default_ttl).as_bytes());
        if wiring.caller == CallAs::User {
            both("as", b"user");
        }
        let (mut secrets, mut padded, mut keys) = (Vec::new(), Vec::new(), Vec::new());
        for setting in declared {
            match settings.find(&setting.name) {
                None => both("unset", setting.name.as_bytes()),
                Some(SettingValue::Key(material)) => {
                    both("key", setting.name.as_bytes());
                    keys.push((setting.name.clone(), material.mark()));
                }
                Some(SettingValue::PublicKeys(keys)) => {
                    both("public key", setting.name.as_bytes());
                    both("mark", &keys.mark());
                }
                Some(SettingValue::Text(text)) => {
                    both("setting", setting.name.as_bytes());
                    if text.expose_secret().trim() != text.expose_secret() {
                        padded.push(setting.name.to_string());
                    }
                    if setting.secret {
                        secrets.push((setting.name.clone(), text.clone()));
                    } else {
                        both("text", text.expose_secret().as_bytes());
                    }
                }
                Some(SettingValue::Table(members)) => {
                    both("table", setting.name.as_bytes());
                    for (name, member) in members {
                        both("member", name.as_bytes());
                        match member {
                            SettingMember::Text(text) => both("text", text.expose_secret().as_bytes()),
                            SettingMember::Var { name, .. } => both("var", name.as_bytes()),
                        }
                    }
                    both("end", b"");
                }
            }
        }
        let identity = identity.finish();
        // Its own name for a secret, so that two of them cannot change places.
        for (name, text) in &secrets {
            key.field("secret", name.as_bytes());
            key.field("text", text.expose_secret().as_bytes());
        }
        for (name, mark) in &keys {
            key.field("key", name.as_bytes());
            key.field("mark", mark);
        }
        let secrets: Vec<SecretString> = secrets.into_iter().map(|(_, text)| text).collect();
        let consent = wiring.consent.as_ref().map(|consent| {
            let exchange = exchange.as_ref().ok_or_else(|| standing.clone().unwrap_or_default())?;
            let parts = ConsentParts {
                name: wiring.name,
                settings: &settings,
                base_url: &wiring.base_url,
                token_url: exchange.endpoint(),
                wiring: consent,
                default_ttl: wiring.default_ttl,
                secrets: &secrets,
                dpop: dpop.as_ref(),
            };
            CompiledConsent::compile(profile, &parts)
        });
        let consent = consent.transpose()?;
        if wiring.caller == CallAs::User && consent.is_none() {
            return Err("`as = \"user\"` needs [provider.NAME.consent]: without it no user can consent".to_owned());
        }
        // A consent's endpoints are out of reach whether or not anybody consents.
        let mut own: Vec<BaseUrl> = steps.iter().map(|step| step.request.url.clone()).collect();
        own.extend(plans.iter().filter_map(|plan| plan.own_url(&settings, &wiring.base_url)));
        own.extend(consent.iter().flat_map(CompiledConsent::endpoints).cloned());
        let guard = Guard::new(
            wiring.base_url.clone(),
            exchange.as_ref().map(|exchange| &exchange.url),
            &own,
            &profile.guarded,
        );
        // Whoever only calls the bank needs no keys for its webhooks.
        let webhook = profile.webhook.as_ref().filter(|rules| rules.has_keys(&settings));
        let webhook = webhook.map(|rules| MessageOpener::compile(rules, &settings)).transpose()?;
        let webhook = webhook.flatten();
        let requests = steps.iter().map(|step| &step.request).chain(&exchange);
        let mut vars: Vec<Arc<str>> = requests.flat_map(|request| request.vars()).collect();
        vars.sort_unstable();
        vars.dedup();
        Ok(Module {
            profile: profile.clone(),
            key: key.finish(),
            identity,
            vars,
            steps,
            exchange,
            injection,
            consent,
            opener: MessageOpener::compile(&profile.response, &settings)?,
            webhook,
            caller: wiring.caller,
            guard,
            default_ttl: wiring.default_ttl,
            secrets,
            padded,
            judges_bodies: profile.refusal.judges_bodies(),
            settings,
        })
    }

    /// The same module, whose tokens have a name of their own: they are fetched with another certificate.
    #[must_use]
    pub fn narrowed(self, certificate: &[u8; 32]) -> Self {
        Self { key: self.key.with([("certificate", &*hex(certificate))]), ..self }
    }

    /// The name of its token when no route variable goes into it.
    pub fn key(&self) -> TokenKey {
        self.key
    }

    /// Returns whether there is a separate token for each value of some route variables.
    pub fn has_vars(&self) -> bool {
        !self.vars.is_empty()
    }

    /// Returns the names of the route variables that go into the token request, sorted.
    pub fn vars(&self) -> &[Arc<str>] {
        &self.vars
    }

    /// Returns the names of the settings whose value begins or ends with white space, most likely by a mistake in
    /// copying.
    pub fn padded(&self) -> &[String] {
        &self.padded
    }

    /// Equal for two modules that differ in nothing but the values of secrets, if in that: after a change of a secret, a
    /// token of the old one can stand in for one of the new.
    pub fn identity(&self) -> TokenKey {
        self.identity
    }

    /// The name of the token for these route variables. Only those that go into the token request count: calls that
    /// differ in others share a token.
    pub fn key_for(&self, vars: &Vars) -> TokenKey {
        if self.vars.is_empty() {
            return self.key;
        }
        self.key.with(self.vars.iter().filter_map(|name| Some((&**name, vars.find(name)?))))
    }

    /// Returns whether there is no token: its credential is static, and [`Module::standing_lease`] stands for it.
    pub const fn is_standing(&self) -> bool {
        self.exchange.is_none()
    }

    /// The lease that stands for a static credential. `None`: there is a token, of which the keeper issues leases.
    pub fn standing_lease(&self, now: Now) -> Option<Lease> {
        self.is_standing().then(|| Lease {
            key: self.key,
            generation: 0,
            credentials: CallCredentials::default(),
            issued: now,
            expires: Deadline::never(),
            fingerprint: Fingerprint::of(self.key.as_bytes()),
            trial: LeaseTrial::default(),
        })
    }

    /// Returns the consent flow of the provider's users, if the config permits it.
    pub fn consent(&self) -> Option<&CompiledConsent> {
        self.consent.as_ref()
    }

    /// Returns the effect that issuing the next token has on the current one.
    pub fn coexistence(&self) -> Coexistence {
        self.profile.coexistence()
    }

    /// In whose name its calls are made.
    pub fn caller(&self) -> CallAs {
        self.caller
    }

    /// The texts that carry this grant, built once: all of them sensitive.
    pub fn credentials(&self, grant: &Grant) -> CallCredentials {
        // No identifier shares a header with a credential, so none is drawn.
        self.injection.credentials(grant, &mut RandomIds)
    }

    /// Returns whether a client's header field of this name is removed before the module adds its own fields.
    pub fn strips(&self, name: &HeaderName) -> bool {
        self.injection.strips(name)
    }

    /// Puts everything on a request's head that this provider wants, after [`Module::strips`] had its say.
    pub fn dress(&self, headers: &mut HeaderMap, with: CallInputs<'_>, ids: &mut dyn Ids) -> SentIds {
        self.injection.dress(headers, with, None, ids)
    }

    /// Makes a dressed request ready for its replay with another lease. A client's own identifiers stay, and so do the
    /// generated values that belong to the call; it may have been dressed by this provider's module of before a change of
    /// a secret.
    pub fn redress(&self, headers: &mut HeaderMap, with: CallInputs<'_>, sent: &SentIds, ids: &mut dyn Ids) -> SentIds {
        self.injection.dress(headers, with, Some(sent), ids)
    }

    /// The request target of a request that was dressed; `None`: nothing is put into its query, so it stays.
    pub fn target(
        &self,
        path_and_query: &str,
        with: CallInputs<'_>,
        sent: &SentIds,
        ids: &mut dyn Ids,
    ) -> Option<String> {
        let changes = self.injection.changes_query();
        changes.then(|| self.injection.target(path_and_query, with, sent, ids).to_string())
    }

    /// Returns whether bodies have to be gathered before anything is sent: fields are put into them, or they are signed or
    /// encrypted.
    pub const fn wants_whole_body(&self) -> bool {
        self.changes_body() || self.protects_body() || self.signs_body()
    }

    /// Returns whether fields are put into bodies.
    pub const fn changes_body(&self) -> bool {
        self.injection.changes_body()
    }

    /// The body of a request that was dressed; `None`: nothing is put into it, so it stays.
    pub fn body(
        &self,
        headers: &HeaderMap,
        body: &[u8],
        with: CallInputs<'_>,
        sent: &SentIds,
        ids: &mut dyn Ids,
    ) -> Option<Result<Zeroizing<Vec<u8>>, UnfitBody>> {
        self.changes_body().then(|| self.injection.body(headers, body, with, sent, ids))
    }

    /// Returns whether bodies are signed or encrypted, by [`Module::protect`].
    pub const fn protects_body(&self) -> bool {
        self.injection.protects_body()
    }

    /// Signs and encrypts the body of a dressed call, before [`Module::sign`] covers what goes out.
    pub async fn protect<E: Entropy + Clone + Send + 'static>(
        &self,
        call: UnsignedCall<'_>,
        with: CallInputs<'_>,
        sent: &SentIds,
        (ids, entropy): (&mut dyn Ids, &E),
        within: Within,
    ) -> Result<JoseBody, SignatureFailure> {
        self.injection.protect(call.into_message(), with, sent, (ids, entropy), within).await
    }

    /// Returns what opens answers with this status, before anything of them is used; `None`: they pass as they come.
    pub fn opener(&self, status: StatusCode) -> Option<&MessageOpener> {
        self.opener.as_ref().filter(|opener| opener.opens(status))
    }

    /// Returns what verifies and opens the provider's webhooks, before an application gets anything of them.
    pub const fn webhook(&self) -> Option<&MessageOpener> {
        self.webhook.as_ref()
    }

    /// Returns whether dressed calls have to be signed, by [`Module::protect`] and [`Module::sign`].
    pub const fn signs(&self) -> bool {
        self.injection.signs()
    }

    /// Returns whether calls carry a proof of possession, with the nonce that the API gave last.
    pub const fn proves(&self) -> bool {
        self.injection.proves()
    }

    /// Returns whether a signature covers the body.
    pub const fn signs_body(&self) -> bool {
        self.injection.signs_body()
    }

    /// Returns the header fields that signing sets.
    pub fn signature_headers(&self) -> impl Iterator<Item = &HeaderName> {
        self.injection.signature_headers()
    }

    /// Returns the header field of the proof of possession that signing puts on, if it puts one on.
    pub fn proof_header(&self) -> Option<HeaderName> {
        self.proves().then_some(dpop::DPOP)
    }

    /// Signs a dressed call: fields are put on its head, and parameters on the end of its query. A call that is sent
    /// again, dressed with another lease, is signed anew.
    pub async fn sign(
        &self,
        call: UnsignedCall<'_>,
        with: CallInputs<'_>,
        sent: &SentIds,
        ids: &mut dyn Ids,
        within: Within,
    ) -> Result<(), SignatureFailure> {
        let nonce = call.nonce;
        self.injection.sign(call.into_message(), nonce, with, sent, ids, within).await
    }

    /// Returns whether [`Module::judge`] needs the body of a response with this head.
    pub fn wants_body(&self, status: StatusCode, headers: &HeaderMap) -> bool {
        self.judges_bodies && self.profile.refusal.wants_body(status, headers)
    }

    /// Returns whether any verdict of this module depends on a body, or bodies are opened: their content codings have to
    /// be some that are read here.
    pub fn reads_bodies(&self) -> bool {
        self.judges_bodies || self.opener.is_some()
    }

    /// Judges the meaning of a response for the token. `body` is decoded; `None` if it was not wanted, or could not be
    /// read completely.
    pub fn judge(&self, status: StatusCode, headers: &HeaderMap, body: Option<&[u8]>) -> Verdict {
        if self.injection.challenge(status, headers).is_some() {
            return Verdict::Challenged;
        }
        if self.is_standing() {
            return Verdict::Accepted;
        }
        if self.proves() && dpop::is_challenge(status, headers) {
            return Verdict::Challenged;
        }
        self.profile.refusal.judge(status, headers, body)
    }

    /// Puts the challenge that an answer brings on the call that is made once more; [`Module::sign`] then signs it. A nonce
    /// for proofs of possession is none of these.
    pub fn take_challenge(&self, status: StatusCode, answer: &HeaderMap, headers: &mut HeaderMap) {
        if let Some((name, challenge)) = self.injection.challenge(status, answer) {
            let mut challenge = challenge.clone();
            challenge.set_sensitive(true);
            headers.insert(name.clone(), challenge);
        }
    }

    /// Returns whether this path, relative to the provider's base URL, is one of its token, authorize or refresh
    /// endpoints, or a path that its profile guards.
    pub fn guards(&self, path: &str) -> bool {
        self.guard.holds(path)
    }

    /// The same for a route with an `upstream` of its own: `path` behind that.
    pub fn guards_under(&self, upstream: &BaseUrl, path: &str) -> bool {
        self.guard.holds_under(upstream, path)
    }

    /// Returns whether this path, relative to that upstream, is the token endpoint itself.
    pub fn is_token_endpoint(&self, upstream: &BaseUrl, path: &str) -> bool {
        self.guard.is_token_endpoint(upstream, path)
    }

    /// An answer with a worthless token, in the shape of this provider's token endpoint: its content type and its body.
    pub fn stub(&self, now: Now) -> (&'static str, String) {
        self.profile.answer.stub(now)
    }

    /// Returns the URL under which the provider's API lies.
    pub const fn base_url(&self) -> &BaseUrl {
        &self.guard.base
    }

    /// Returns the URL of the token endpoint, without its query; `None`: there is no token.
    pub fn token_url(&self) -> Option<&BaseUrl> {
        self.exchange.as_ref().map(|exchange| &exchange.url)
    }

    /// Returns the origins that its login's requests go to, in their order.
    pub fn login_urls(&self) -> impl Iterator<Item = &BaseUrl> {
        self.steps.iter().map(|step| &step.request).chain(&self.exchange).map(|request| &request.url)
    }

    /// The values of its secret settings, to be masked wherever they would show.
    pub fn secrets(&self) -> impl Iterator<Item = &str> {
        self.secrets.iter().map(ExposeSecret::expose_secret)
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use crate::base::id::CountingIds;
    use crate::provider::login::LoginProgress;
    use crate::syntax::{Diagnostics, Fields, FromNode, Node, SourceText};

    const SENT: Now = Now::at(1_000, 1_550_131_385_000);

    struct Given<'a> {
        profile: &'a str,
        name: &'a str,
        base_url: &'a str,
        token_url: Option<&'a str>,
        settings: &'a str,
        default_ttl: Option<Duration>,
    }

    const RAK: Given<'_> = Given {
        profile: "rakbank",
        name: "rak",
        base_url: "https://bank.example/api",
        token_url: Some("https://bank.example/token"),
        settings: "client_id = \"id\"\nclient_secret = \"hush-hush\"\nscope = \"s\"\noauth_metadata = { account_id = { var = \"account\" } }",
        default_ttl: None,
    };

    fn build(given: &Given<'_>) -> Result<Module, String> {
        let report = Diagnostics::new();
        let profile = match Profile::builtin(given.profile) {
            Some(profile) => profile,
            None => Profile::parse(&SourceText::new("profile", given.profile), &report).expect("a good profile"),
        };
        let node = Node::parse(&SourceText::new("proxy.toml", given.settings), &report);
        let fields = Fields::new(&node, "settings", &report);
        let read = |node: &Node, report: &Diagnostics| {
            String::from_node(node, report).map(|text| (SecretString::from(text), false))
        };
        let settings = profile.read_settings(&fields, &read).expect("good settings");
        fields.finish();
        assert_eq!(report.errors(), 0);
        let url = |text| BaseUrl::parse(text).expect("a good URL");
        let wiring = Wiring {
            name: given.name,
            base_url: url(given.base_url),
            token_url: given.token_url.map(|text| url(text).into()),
            default_ttl: given.default_ttl,
            consent: None,
            caller: CallAs::Application,
        };
        Module::build(&profile, settings, wiring)
    }

    fn vars(pairs: &[(&str, &str)]) -> Vars {
        let mut vars = Vars::none();
        for (name, value) in pairs {
            vars.push((*name).into(), (*value).to_owned());
        }
        vars
    }

    #[test]
    fn a_stub_has_the_shape_that_each_profile_reads() {
        let plain = "client_id = \"id\"\nclient_secret = \"hush-hush\"";
        let scb = "application_key = \"id\"\napplication_secret = \"hush-hush\"";
        for (profile, settings, token_url) in [
            ("abbeycross", plain, None),
            ("meed", plain, None),
            ("oauth2", plain, RAK.token_url),
            ("rakbank", RAK.settings, RAK.token_url),
            ("scb", scb, None),
        ] {
            let module = build(&Given { profile, settings, token_url, ..RAK }).expect("a good module");
            let headers =
                HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
            let (_, stub) = module.stub(SENT);
            let grant = LoginProgress::default().answer(&module, StatusCode::OK, &headers, stub.as_bytes(), SENT, SENT);
            let grant = grant.unwrap_or_else(|failure| panic!("{profile}: {failure:?} in {stub}")).expect("a token");
            assert_eq!(grant.access_token.expose_secret(), super::super::STUB_TOKEN, "{profile}");
        }
    }

    #[test]
    fn every_input_of_a_token_call_is_part_of_its_key() {
        let key = |given: Given<'_>| build(&given).expect("a good module").key();
        let base = key(RAK);
        assert_eq!(base, key(RAK), "the same inputs, the same key");
        let secret = RAK.settings.replace("hush-hush", "hush-husH");
        let scope = RAK.settings.replace("\"s\"", "\"t\"");
        let metadata = RAK.settings.replace("account_id", "emirates_id");
        let text = RAK.settings.replace("{ var = \"account\" }", "\"account\"");
        let other_text = format!("{}\n# another text", Profile::builtin_text("rakbank").expect("rakbank"));
        let others = [
            key(Given { name: "rak2", ..RAK }),
            key(Given { base_url: "https://bank.example/api2", ..RAK }),
            key(Given { token_url: Some("https://bank.example/token2"), ..RAK }),
            key(Given { settings: &secret, ..RAK }),
            key(Given { settings: &scope, ..RAK }),
            key(Given { settings: &metadata, ..RAK }),
            key(Given { settings: &text, ..RAK }),
            key(Given { default_ttl: Some(Duration::from_secs(1)), ..RAK }),
            key(Given { profile: &other_text, ..RAK }),
        ];
        for (at, other) in others.iter().enumerate() {
            assert_ne!(base, *other, "input {at}");
            assert!(!others[..at].contains(other), "input {at}");
        }
    }

    #[test]
    fn only_variables_of_the_token_request_are_part_of_the_key() {
        let module = build(&RAK).expect("a good module");
        let one = module.key_for(&vars(&[("account", "1")]));
        assert_eq!(one, module.key_for(&vars(&[("other", "x"), ("account", "1")])));
        assert_ne!(one, module.key_for(&vars(&[("account", "2")])));
        assert_ne!(one, module.key());
        let settings = "client_id = \"id\"\nclient_secret = \"hush-hush\"\nscope = \"s\"";
        let module = build(&Given { settings, ..RAK }).expect("a good module");
        assert_eq!(module.key_for(&vars(&[("account", "1")])), module.key());
    }

    /// The first attempt went out with a token of the old secret, and the replay goes out under the new one.
    #[test]
    fn a_replay_after_a_change_of_a_secret_keeps_what_belongs_to_the_call() {
        let profile = r#"
name = "keeping"
[settings.key]
secret = true
[ids.payment]
kind = "numeric"
length = 18
fresh = "call"
[token.request]
path = "/token"
encoding = "none"
[token.response]
access_token = "/t"
[request]
replay_id = "keep"
inject = [
  { header = "authorization", value = "Bearer {token}" },
  { header = "x-key", value = "{key}" },
  { header = "x-payment", value = "{id.payment}" },
  { header = "x-reference-id", value = "{uuid}" },
  { header = "x-own", value = "{uuid}", client = "keep", pattern = "[a-z]+" },
  { cookie = "key", value = "{key}" },
]
"#;
        let given = |settings| Given { profile, token_url: None, settings, ..RAK };
        let module = |settings| build(&given(settings)).expect("a good module");
        let (old, new) = (module("key = \"old-key\""), module("key = \"new-key\""));
        let grant = |token: &str| Grant {
            access_token: SecretString::from(token),
            life: Duration::from_secs(60),
            captured: Vec::new(),
            odd_type: None,
        };
        let lease = |module: &Module, token: &str| Lease {
            key: module.key(),
            generation: 1,
            credentials: module.credentials(&grant(token)),
            issued: SENT,
            expires: Deadline::after(SENT, Duration::from_secs(60)),
            fingerprint: grant(token).fingerprint(),
            trial: LeaseTrial::default(),
        };
        let (none, mut ids) = (Vars::none(), CountingIds::default());
        let mut headers = HeaderMap::from_iter([(HeaderName::from_static("x-own"), HeaderValue::from_static("mine"))]);
        let (first, second) = (lease(&old, "first"), lease(&new, "second"));
        let sent = old.dress(&mut headers, CallInputs { lease: &first, vars: &none, now: SENT }, &mut ids);
        let before = headers.clone();
        let again = new.redress(&mut headers, CallInputs { lease: &second, vars: &none, now: SENT }, &sent, &mut ids);
        for name in ["x-payment", "x-reference-id", "x-own"] {
            assert_eq!(headers.get(name), before.get(name), "{name}");
        }
        assert_eq!(sent.iter().collect::<Vec<_>>(), again.iter().collect::<Vec<_>>());
        let text = |name: &str| headers[name].to_str().expect("text");
        assert_eq!((text("authorization"), text("x-key"), text("cookie")), ("Bearer second", "new-key", "key=new-key"));
        assert_eq!(text("x-own"), "mine");
    }

    #[test]
    fn what_is_wrong_as_a_whole_is_said() {
        let error = build(&Given { token_url: None, ..RAK }).expect_err("no token_url");
        assert!(error.contains("token_url"), "{error}");
        let profile =
            Profile::builtin_text("oauth2").expect("oauth2").replace("form_encode = true", "form_encode = false");
        let settings = "client_id = \"a:b\"\nclient_secret = \"s\"\nclient_auth = \"basic\"";
        let error = build(&Given { profile: &profile, settings, ..RAK }).expect_err("a colon");
        assert!(error.contains("RFC 7617"), "{error}");
    }

    /// T18: no secret in what a programmer might print.
    #[test]
    fn debug_shows_no_secret() {
        let module = build(&RAK).expect("a good module");
        let request = LoginProgress::default().request(&module, &Vars::none(), &mut CountingIds::default(), SENT);
        let request = request.expect("a token request");
        let shown = format!("{module:?} {request:?} {:?} {:?}", request.headers, module.profile);
        assert!(!shown.contains("hush-hush"), "{shown}");
        assert_eq!(module.secrets().collect::<Vec<_>>(), ["hush-hush"]);
    }

    /// T12: every spelling of what we inject is taken off; what merely looks alike is not.
    #[test]
    fn strips_credentials_in_every_spelling() {
        let module = build(&RAK).expect("a good module");
        for name in
            ["authorization", "x-ibm-client-id", "x_ibm_client_id", "x-ibm_client-secret", "x-ibm-client-secret"]
        {
            assert!(module.strips(&HeaderName::from_static(name)), "{name}");
        }
        for name in ["msgid", "x-ibm-client", "cookie", "idempotency-key", "x-ibm-client-secrets"] {
            assert!(!module.strips(&HeaderName::from_static(name)), "{name}");
        }
    }

    #[test]
    fn a_body_is_wanted_only_where_it_can_decide() {
        let module = build(&RAK).expect("a good module");
        let mut headers = HeaderMap::new();
        let wants = |status: u16, headers: &HeaderMap| {
            module.wants_body(StatusCode::from_u16(status).expect("a status"), headers)
        };
        assert!(wants(401, &headers));
        for status in [200, 302, 400, 403, 500] {
            assert!(!wants(status, &headers), "{status}");
        }
        for (value, wanted) in [
            ("application/json", true),
            ("application/problem+json; charset=utf-8", true),
            ("Text/JSON", true),
            ("text/html", true),
            ("application/javascript", true),
            ("image/png", false),
            ("Text/Event-Stream", false),
        ] {
            headers.insert("content-type", HeaderValue::from_static(value));
            assert_eq!(wants(401, &headers), wanted, "{value}");
        }
        assert!(module.reads_bodies());
    }

    /// In a charset that is not known, the values of a refusal that cannot be read prove nothing: neither that it is one,
    /// nor that an exclusion does not apply.
    #[test]
    fn what_cannot_be_read_of_a_refusal_proves_nothing() {
        let module = build(&RAK).expect("a good module");
        let judge = |kind: &'static str, body: &[u8]| {
            let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, HeaderValue::from_static(kind))]);
            module.judge(StatusCode::UNAUTHORIZED, &headers, Some(body))
        };
        let refusal = |extra: &[u8]| {
            let text = br#"{"response_code":"401","description":"could not verify that you are authorized"#;
            [&text[..], extra, b"\"}"].concat()
        };
        assert_eq!(judge("application/json", &refusal(b"")), Verdict::Refused);
        assert_eq!(judge("application/json;charset=ISO-8859-1", &refusal(b" \xf3")), Verdict::Refused, "known");
        assert_eq!(judge("application/json", &refusal(b" \xf3")), Verdict::Unknown, "not known");
        assert_eq!(judge("application/json", &refusal(b"\",\"other\":\"\xf3")), Verdict::Refused, "beside what counts");
    }

    proptest! {
        /// T21: no response of a token endpoint causes a panic, and every grant can be sent.
        #[test]
        fn any_token_answer_is_survived(
            status in 100_u16..1000,
            body in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..300),
                r#"\{"access_token":"[ -~]{0,9}","expires_in":("[-0-9e.]{0,9}"|-?[0-9]{1,19}|null|\[\])\}"#.prop_map(String::into_bytes),
            ],
            header in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let module = build(&RAK).expect("a good module");
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&header) {
                headers.insert("retry-after", value.clone());
                headers.insert("content-type", value);
            }
            let status = StatusCode::from_u16(status).expect("a status");
            match LoginProgress::default().answer(&module, status, &headers, &body, SENT, SENT) {
                Ok(grant) => {
                    let grant = grant.expect("no step comes before");
                    prop_assert!(!grant.life.is_zero() && grant.life <= crate::token::grant::LIFE_CAP);
                    prop_assert_eq!(module.credentials(&grant).len(), 1);
                }
                Err(failure) => {
                    prop_assert!(failure.retry_after.is_none_or(|after| after <= Duration::from_secs(3600)));
                    prop_assert!(!failure.inside.contains("hush-hush"));
                }
            }
        }

        #[test]
        fn any_answer_is_judged_and_only_a_401_can_be_refused(
            profile in proptest::sample::select(vec!["rakbank", "oauth2"]),
            status in 100_u16..1000,
            body in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
            header in proptest::collection::vec(any::<u8>(), 0..60),
        ) {
            let settings = "client_id = \"id\"\nclient_secret = \"hush-hush\"\nscope = \"s\"";
            let module = build(&Given { profile, settings, ..RAK }).expect("a good module");
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&header) {
                headers.insert("www-authenticate", value.clone());
                headers.insert("content-type", value.clone());
                headers.insert("content-length", value);
            }
            let status = StatusCode::from_u16(status).expect("a status");
            let _ = module.wants_body(status, &headers);
            let verdict = module.judge(status, &headers, body.as_deref());
            prop_assert!(verdict == Verdict::Accepted || status == 401);
        }
    }
}
