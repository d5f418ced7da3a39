//! `[provider.NAME]`: whom we call, and how to reach it.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderValue;
use rustls::pki_types::ServerName;

use crate::base::origin::{BaseUrl, EndpointUrl};
use crate::base::secret::{ExposeSecret, SecretString, sha256};
use crate::base::time::Now;
use crate::base::working_hours::WorkingHours;
use crate::key_service::SERVICE_PARALLEL;
use crate::observe::once::Once;
use crate::provider::{CallAs, DpopNonces, Module, Profile, RecordSettings, Recording, Settings, ShadowCounts, Wiring};
use crate::route::{ClientId, Opens, QuotaRule};
use crate::syntax::{Diagnostics, Fields, Node, TableEntry};
use crate::tls::{self, ClientIdentity, ClientTls, KEY_EXCHANGES};
use crate::token::call_budget::CallBudget;
use crate::token::consent::Upkeep;
use crate::token::credential_slots::{CredentialSlot, CredentialSlots, by_slot};
use crate::transport::BlockingThreads;
use crate::upstream::{EgressPath, ForwardProxy, Spellings};

use super::client::KnownClients;
use super::consent::{self, ConsentSettings, ReadConsent};
use super::file_identity::{CLIENT, file_identity, is_remote};
use super::hours;
use super::listener::only_tls13;
use super::next_credentials::{self, NextCredentials, OwnCredentials, credentials_expire};
use super::quota::{self, ReadQuota};
use super::reader::{Reader, pem_help};
use super::record;
use super::remote_identity::remote_identity;
use super::schema::{DURATION, MAY, MUST, SchemaSection, SchemaShape, TLS_VERSIONS};
use super::shadow::{self, ReadShadow};
use super::snapshot::CertificateEnd;
use super::spanned_text::{PermittedClients, Position, SpannedText, choice};
use super::timeouts::{self, Timeouts};
use super::token_budget;

/// A provider, `[provider.NAME]`, with the settings to reach it. The protocol of its calls is in the route's
/// [`Module`].
#[derive(Debug)]
pub struct ProviderConfig {
    /// Name of the provider, from `[provider.NAME]`.
    pub name: Arc<str>,
    /// Index of the provider in [`super::SnapshotFields::providers`].
    pub index: usize,
    /// Name of the profile that the provider uses; that of a pack as `PACK/NAME`.
    pub profile: Arc<str>,
    /// Base URL of the provider's API.
    pub base_url: BaseUrl,
    /// TLS settings for token and resource calls.
    pub tls: Arc<rustls::ClientConfig>,
    /// The name to verify its certificate against; absent: the host dialled.
    pub server_name: Option<ServerName<'static>>,
    /// The proxy and the source address that lead to it.
    pub way: EgressPath,
    /// Time limits of calls to the provider.
    pub timeouts: Timeouts,
    /// Renew this long before expiry, never more than a fifth of the life.
    pub refresh_before: Duration,
    /// True if the provider receives the trace context of a request.
    pub trace_context: bool,
    /// `User-Agent` of our own calls; absent: the profile's, or ours.
    pub user_agent: Option<HeaderValue>,
    /// The types of tokens that were logged as odd ones.
    pub odd_types: Once,
    /// The nonces that its servers want to see in proofs of possession.
    pub nonces: DpopNonces,
    /// Digest of the transport settings: connections are pooled by it.
    pub transport_id: u64,
    /// Settings of users' consents; `None` if users cannot consent.
    pub consents: Option<ConsentSettings>,
    /// Module for calls of the application without any route's own settings; `None` if it requires those.
    pub module: Option<Arc<Module>>,
    /// When the certificate ends that we show to it.
    pub certificate: Option<CertificateEnd>,
    /// The hours in which it may be called; `None`: at any time.
    pub hours: Option<Arc<WorkingHours>>,
    /// The bound on its token calls; `None`: there is none.
    pub token_budget: Option<CallBudget>,
    /// The bounds on requests.
    pub quotas: Vec<Arc<QuotaRule>>,
    /// The recording of its exchanges; `None`: nothing is recorded.
    pub recording: Option<Arc<Recording>>,
    /// What was found of its shadow; `None`: it has none.
    pub shadow: Option<Arc<ShadowCounts>>,
    /// The slot of its credentials.
    pub slot: CredentialSlot,
    /// The slots of its credentials; `None`: there is only the current one.
    pub slots: Option<Arc<CredentialSlots>>,
    /// The same provider with its next credentials.
    pub next: Option<Arc<ProviderConfig>>,
}

impl ProviderConfig {
    /// The provider with the credentials that calls use now, and with the other ones if there are any.
    pub fn by_slot(self: &Arc<Self>, now: Now) -> (&Arc<Self>, Option<&Arc<Self>>) {
        by_slot(self.slots.as_deref(), self, self.next.as_ref(), now)
    }
}

pub(super) const KEYS: SchemaSection = (
    "provider",
    &[
        ("base_url", SchemaShape::Url, MAY, "where its API lives"),
        ("clients", SchemaShape::Who, MAY, "bounds every route that uses this provider"),
        ("consent", SchemaShape::Table("consent"), MAY, "how its users consent"),
        (
            "credentials_expire",
            SchemaShape::Text,
            MAY,
            "the day from which its secrets are no longer accepted, as in 2027-03-31; warned of like a certificate's end",
        ),
        ("default_ttl", DURATION, MAY, "how long a token lives when the provider does not say"),
        ("environment", SchemaShape::Text, MAY, "a base URL that the profile knows"),
        (
            "header_case",
            SchemaShape::Choice(&["lower", "preserve"]),
            MAY,
            "how names of fields are written over HTTP/1.1; preserve: as the client and the profile wrote them; lower",
        ),
        ("hours", SchemaShape::Table("hours"), MAY, "when it is open; default: always"),
        ("http", SchemaShape::Choice(&["1.1"]), MAY, "HTTP/2 is not offered"),
        (
            "http_proxy",
            SchemaShape::Source,
            MAY,
            "the corporate proxy that leads there, as in http://user:password@host:3128",
        ),
        (
            "invalid_header_lines",
            SchemaShape::Choice(&["drop", "refuse"]),
            MAY,
            "what becomes of a malformed line in an answer's head; drop: it is taken out and logged; refuse",
        ),
        (
            "next",
            SchemaShape::Settings,
            MAY,
            "the credentials that follow: settings, tls and credentials_expire in place of the provider's own",
        ),
        (
            "profile",
            SchemaShape::Profile,
            MUST,
            "a built-in profile, PACK/NAME of a pack, or the path of one of your own",
        ),
        ("record", SchemaShape::Table("record"), MAY, "where its exchanges are recorded, without secrets"),
        ("quota", SchemaShape::List("quota"), MAY, "how many requests it gets"),
        ("refresh_before", DURATION, MAY, "renew a token this long before it expires; 60s"),
        (
            "shadow_profile",
            SchemaShape::Text,
            MAY,
            "a profile that is compared with this one at each call, and never sent",
        ),
        ("source_address", SchemaShape::Text, MAY, "the address that connections come from"),
        ("timeouts", SchemaShape::Table("timeouts"), MAY, "how long to wait"),
        ("tls", SchemaShape::Table("provider_tls"), MAY, "for token and resource calls alike"),
        ("token_budget", SchemaShape::Table("token_budget"), MAY, "how many token calls it gets; default: any number"),
        ("token_url", SchemaShape::Url, MAY, "where the token comes from; may have a query"),
        ("trace_context", SchemaShape::Flag, MAY, "false: it is not told which trace a request belongs to; true"),
        (
            "user_agent",
            SchemaShape::Text,
            MAY,
            "of our own calls: token, authorize, refresh; countersign and its version",
        ),
    ],
);

pub(super) const TLS_KEYS: SchemaSection = (
    "provider_tls",
    &[
        ("ca", SchemaShape::Text, MAY, "path of the only CAs to trust, PEM"),
        ("client_cert", SchemaShape::Text, MAY, "path of our certificate and its chain, PEM"),
        (
            "client_key",
            SchemaShape::TextOr("client_key"),
            MAY,
            "path of its private key, PEM, or a table: PKCS#12, a key with a password, a key of a key service",
        ),
        ("client_key_password", SchemaShape::Source, MAY, "what opens that key, if it is encrypted"),
        (
            "key_exchange",
            SchemaShape::Choices(&KEY_EXCHANGES),
            MAY,
            "the groups to offer, as in x25519; default: all but the last",
        ),
        ("min_version", TLS_VERSIONS, MAY, "1.2"),
        ("server_name", SchemaShape::Text, MAY, "the name to ask for and to verify"),
    ],
);

/// A provider as it was read; what could not be read is absent and was reported.
pub(super) struct ReadProvider {
    pub(super) name: Arc<str>,
    pub(super) position: Position,
    pub(super) profile: Option<Arc<Profile>>,
    /// The name by which the config knows a profile of a pack; `None`: it has the profile's own.
    pack_name: Option<Arc<str>>,
    pub(super) settings: Option<Settings>,
    /// The clients to which its use is limited; `None`: it is not limited.
    pub(super) bounds: Option<Vec<ClientId>>,
    pub(super) timeouts: Timeouts,
    pub(super) base_url: Option<BaseUrl>,
    pub(super) token_url: Option<EndpointUrl>,
    /// It was reported that `token_url` cannot be read, and what follows from it need not be.
    token_url_unread: bool,
    pub(super) default_ttl: Option<Duration>,
    /// A second profile, to be compared.
    pub(super) shadow: Option<ReadShadow>,
    refresh_before: Duration,
    transport: Option<ProviderTransport>,
    next: Option<NextCredentials>,
    way: ReadEgressPath,
    trace_context: bool,
    user_agent: Option<HeaderValue>,
    record: Option<RecordSettings>,
    hours: Option<Arc<WorkingHours>>,
    token_budget: Option<CallBudget>,
    pub(super) quotas: Vec<ReadQuota>,
    /// Settings of its users' consents; `None` if absent or unreadable.
    pub(super) consent: Option<ReadConsent>,
    /// That was reported, and what follows from it need not be.
    consent_unread: bool,
}

/// The egress path to the provider, with a digest of it.
struct ReadEgressPath {
    way: EgressPath,
    digest: [u8; 32],
}

pub(super) struct ProviderTransport {
    certificate: Option<CertificateEnd>,
    tls: Arc<rustls::ClientConfig>,
    server_name: Option<ServerName<'static>>,
    /// The threads on which its handshakes wait for signatures, if they have to.
    signing_threads: Option<BlockingThreads>,
    digest: [u8; 32],
}

impl ReadProvider {
    /// Compiles the module for some settings; a failure is reported at the provider's name.
    pub(super) fn compile(&self, settings: Settings, caller: CallAs, report: &Diagnostics) -> Option<Arc<Module>> {
        self.compile_for(CredentialSlot::Current, settings, caller, report)
    }

    /// Compiles the module for some settings with the credentials of a slot.
    fn compile_for(
        &self,
        slot: CredentialSlot,
        settings: Settings,
        caller: CallAs,
        report: &Diagnostics,
    ) -> Option<Arc<Module>> {
        if caller == CallAs::User && self.consent_unread {
            return None;
        }
        if self.token_url.is_none() && self.profile.as_ref().is_some_and(|profile| profile.needs_token_url()) {
            if !self.token_url_unread {
                let title = format!("[provider.{}] has no `token_url`", self.name);
                let help = "add `token_url = \"https://…\"`: the bank's token endpoint, which cannot be derived from `base_url`";
                self.position.error(report, title, help);
            }
            return None;
        }
        let wiring = Wiring {
            name: &self.name,
            base_url: self.base_url.clone()?,
            token_url: self.token_url.clone(),
            default_ttl: self.default_ttl,
            consent: self.consent.as_ref().map(|consent| consent.wiring.clone()),
            caller,
        };
        match Module::build(self.profile.as_ref()?, settings, wiring) {
            Ok(module) => Some(Arc::new(match self.own_certificate(slot) {
                Some(certificate) => module.narrowed(certificate),
                None => module,
            })),
            Err(error) => {
                let help = "correct the settings of this provider";
                self.position.error(report, format!("[provider.{}] cannot work: {error}", self.name), help);
                None
            }
        }
    }

    /// Compiles the module of the next credentials for the settings that `over` makes of them; `None` if there are none.
    pub(super) fn compile_next(
        &self,
        over: impl FnOnce(&Settings) -> Option<Settings>,
        caller: CallAs,
        report: &Diagnostics,
    ) -> Option<Arc<Module>> {
        let settings = over(&self.next.as_ref()?.settings)?;
        self.compile_for(CredentialSlot::Next, settings, caller, report)
    }

    /// Returns the digest of the certificate of the next credentials, where that is another one: tokens that are fetched
    /// with it are others, whatever the settings are.
    fn own_certificate(&self, slot: CredentialSlot) -> Option<&[u8; 32]> {
        let next = self.next.as_ref().filter(|_| slot == CredentialSlot::Next)?;
        let current = self.transport.as_ref()?;
        (next.transport.digest != current.digest).then_some(&next.transport.digest)
    }

    /// Builds the settings of its users' consents, for the current credentials and for the next ones. Mistakes in them
    /// are reported.
    pub(super) fn consents(&self, opens: &Opens, report: &Diagnostics) -> [Option<ConsentSettings>; 2] {
        let build = |slot, settings: Option<&Settings>| {
            let consent = self.consent.as_ref()?;
            let module = self.compile_for(slot, settings?.clone(), CallAs::User, report)?;
            let upkeep = Upkeep { refresh_before: self.margin()?, keep_alive: consent.keep_alive };
            Some(ConsentSettings { module, return_to: consent.return_to.clone(), upkeep, opens: opens.clone() })
        };
        let current = build(CredentialSlot::Current, self.settings.as_ref());
        // What is wrong with both is told once.
        let next = self.next.as_ref().filter(|_| current.is_some()).map(|next| &next.settings);
        [current, build(CredentialSlot::Next, next)]
    }

    /// Returns the time before expiry at which its tokens are renewed.
    fn margin(&self) -> Option<Duration> {
        Some(self.profile.as_ref()?.coexistence().margin(self.refresh_before, self.timeouts.token))
    }

    /// Builds the part of it that the snapshot keeps, with its next credentials if it has any.
    pub(super) fn finished(
        &self,
        index: usize,
        consents: [Option<ConsentSettings>; 2],
        reader: &Reader<'_>,
    ) -> Option<ProviderConfig> {
        let transport = self.transport.as_ref()?;
        let [of_current, of_next] = consents;
        let credentials = (self.settings.as_ref(), transport);
        let current = self.with_credentials(index, CredentialSlot::Current, credentials, of_current)?;
        let (shadow, recording) = (
            self.shadow_counts(current.module.as_ref(), reader),
            self.record.clone().map(Recording::new).map(Arc::new),
        );
        let current = ProviderConfig { shadow, recording: recording.clone(), ..current };
        let Some(NextCredentials { settings, transport: next_transport }) = &self.next else { return Some(current) };
        let ends = [transport, next_transport]
            .map(|transport| transport.certificate.as_ref().and_then(|end| u64::try_from(end.at).ok()));
        let slots = Some(Arc::new(CredentialSlots::new(ends)));
        let credentials = (Some(settings), next_transport);
        let next = self.with_credentials(index, CredentialSlot::Next, credentials, of_next)?;
        let next = Some(Arc::new(ProviderConfig { slots: slots.clone(), recording, ..next }));
        Some(ProviderConfig { slots, next, ..current })
    }

    fn with_credentials(
        &self,
        index: usize,
        slot: CredentialSlot,
        (settings, transport): (Option<&Settings>, &ProviderTransport),
        consents: Option<ConsentSettings>,
    ) -> Option<ProviderConfig> {
        let base_url = self.base_url.clone()?;
        let mut inputs = transport.digest.to_vec();
        inputs.extend(self.way.digest);
        inputs.extend(base_url.host().as_bytes());
        inputs.extend(base_url.port().to_be_bytes());
        // Its mistakes were reported at the places that use it.
        let alone = || self.compile_for(slot, settings?.clone(), CallAs::Application, &Diagnostics::new());
        let transport_id = sha256(&inputs).first_chunk().copied().map_or(0, u64::from_be_bytes);
        Some(ProviderConfig {
            name: self.name.clone(),
            index,
            profile: self.pack_name.clone().unwrap_or(self.profile.as_ref()?.name().into()),
            base_url,
            tls: transport.tls.clone(),
            server_name: transport.server_name.clone(),
            way: EgressPath { signing_threads: transport.signing_threads.clone(), ..self.way.way.clone() },
            timeouts: self.timeouts,
            refresh_before: self.margin()?,
            trace_context: self.trace_context,
            user_agent: self.user_agent.clone(),
            odd_types: Once::default(),
            nonces: DpopNonces::default(),
            transport_id,
            consents,
            shadow: None,
            module: alone(),
            certificate: transport.certificate.clone(),
            slot,
            slots: None,
            next: None,
            recording: None,
            hours: self.hours.clone(),
            token_budget: self.token_budget,
            quotas: self.quotas.iter().map(|quota| quota.rule.clone()).collect(),
        })
    }
}

/// Reads all providers; a mistaken one is kept without its unreadable parts.
pub(super) fn read(root: &Fields<'_>, known: &KnownClients, reader: &Reader<'_>) -> Vec<ReadProvider> {
    let Some(node) = root.take("provider") else { return Vec::new() };
    let table = Fields::new(node, "[provider]", reader.report);
    let providers = table.rest().into_iter().map(|entry| read_one(entry, known, reader)).collect();
    table.finish();
    providers
}

fn read_one(entry: &TableEntry, known: &KnownClients, reader: &Reader<'_>) -> ReadProvider {
    let report = reader.report;
    let position = Position::new(&entry.value.source, entry.key_span.clone());
    SpannedText { text: entry.key.clone(), place: position.clone() }.judge_name(report);
    let fields = Fields::new(&entry.value, format!("[provider.{}]", entry.key), report);
    let profile_word = fields.req::<SpannedText>("profile", "\"scb\"");
    let pack_name =
        profile_word.as_ref().filter(|word| reader.names_pack(&word.text)).map(|word| word.text.as_str().into());
    let profile = profile_word.and_then(|word| reader.profile(&word));
    let base_url = base_url(&fields, profile.as_ref(), report);
    let token_url = fields.opt::<SpannedText>("token_url").and_then(|word| endpoint_url(&word, report));
    let token_url_unread = token_url.is_none() && fields.take("token_url").is_some();
    let only_http1 = choice(&fields, "http", &[("1.1", true)]).unwrap_or(false);
    let tls = fields.take("tls");
    let transport = transport(tls, only_http1, reader);
    let who = fields.opt::<PermittedClients>("clients");
    let bounds = who.as_ref().and_then(|who| known.who(who, report));
    let refresh_before = fields.or("refresh_before", Duration::from_secs(60));
    let default_ttl = fields.opt::<Duration>("default_ttl");
    if default_ttl.is_some_and(|ttl| ttl.is_zero()) {
        let position = fields.take("default_ttl").map_or(position.clone(), Position::of);
        position.error(report, "a token that lives no time is of no use", "write how long it lives, as in `\"5m\"`");
    }
    let timeouts = timeouts::read(&fields, Timeouts::default());
    let way = way(&fields, profile.as_deref(), reader);
    let trace_context = fields.or("trace_context", true);
    let user_agent = user_agent(&fields);
    let record = record::read_record(&fields, reader);
    let hours = hours::read_hours(&fields, reader);
    let token_budget = token_budget::read_token_budget(&fields);
    let zone = hours.as_deref().map(|hours| hours.calendar().zone());
    let quotas = quota::read(&fields, &entry.key, zone);
    let consent_node = fields.take("consent");
    let consent = consent_node.and_then(|node| consent::read(node, profile.as_ref(), report));
    let consent_unread = consent_node.is_some() && consent.is_none();
    let settings = match &profile {
        Some(profile) => profile.read_settings(&fields, reader),
        None => {
            // The names of its settings are unknown without a profile.
            fields.accept_rest();
            None
        }
    };
    credentials_expire(&fields, &format!("the credentials of [provider.{}]", entry.key), reader);
    let next = match (fields.take("next"), &profile, &settings) {
        (Some(node), Some(profile), Some(settings)) if transport.is_some() => {
            let own = OwnCredentials { name: &entry.key, profile, settings, tls };
            next_credentials::read(node, &own, reader, |tls| self::transport(tls, only_http1, reader))
        }
        // What is wrong with the provider itself was reported.
        _ => None,
    };
    let shadow = settings.as_ref().and_then(|_| shadow::read(&fields, reader));
    if settings.is_none() {
        // Its settings are unknown, and what is wrong with the present profile was told.
        fields.take("shadow_profile");
    }
    let token_url_unread = token_url_unread || fields.is_misspelt("token_url");
    fields.finish();
    let name = entry.key.as_str().into();
    ReadProvider {
        name,
        position,
        profile,
        pack_name,
        settings,
        bounds,
        timeouts,
        base_url,
        token_url,
        token_url_unread,
        default_ttl,
        shadow,
        refresh_before,
        transport,
        next,
        way,
        trace_context,
        user_agent,
        record,
        hours,
        token_budget,
        quotas,
        consent,
        consent_unread,
    }
}

/// Reads `user_agent`: the `User-Agent` of countersign's own calls to the provider.
fn user_agent(fields: &Fields<'_>) -> Option<HeaderValue> {
    let word = fields.opt::<SpannedText>("user_agent")?;
    let plain = !word.text.is_empty() && word.text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    match HeaderValue::from_str(&word.text) {
        Ok(value) if plain && word.text.trim() == word.text => Some(value),
        Ok(_) | Err(_) => {
            let title = format!("`{}` cannot be a `User-Agent`", word.text.escape_debug());
            word.place.error(fields.report(), title, "write one line of visible ASCII, as in `\"acme-pay/7\"`");
            None
        }
    }
}

fn base_url(fields: &Fields<'_>, profile: Option<&Arc<Profile>>, report: &Diagnostics) -> Option<BaseUrl> {
    let (written, environment) = (fields.opt::<SpannedText>("base_url"), fields.opt::<SpannedText>("environment"));
    let has = |key| fields.node().as_table().is_some_and(|table| table.find(key).is_some());
    match (written, environment) {
        (Some(_), Some(environment)) => {
            let title = "`base_url` and `environment` say the same thing twice";
            environment.place.error(report, title, "keep one of them");
            None
        }
        (Some(written), None) => url(&written, report),
        (None, Some(word)) => {
            let profile = profile?;
            let known = profile.environments();
            word.find("environment of this profile", known.into_iter(), report)?;
            profile.environment(&word.text).cloned()
        }
        (None, None) => {
            if !has("base_url") && !has("environment") {
                let known = profile.map(|profile| profile.environments()).unwrap_or_default();
                match known.first() {
                    Some(first) => {
                        let example = format!("\"https://…\"` or `environment = \"{first}\"");
                        fields.missing_one_of(&["base_url", "environment"], &example);
                    }
                    None => fields.missing("base_url", "\"https://api.bank.example\""),
                }
            }
            None
        }
    }
}

/// An `https` base URL; reports what is none.
pub(super) fn url(word: &SpannedText, report: &Diagnostics) -> Option<BaseUrl> {
    parsed(word, BaseUrl::parse(&word.text), report)
}

/// The URL of an endpoint, which may have a query; reports what is none.
fn endpoint_url(word: &SpannedText, report: &Diagnostics) -> Option<EndpointUrl> {
    parsed(word, EndpointUrl::parse(&word.text), report)
}

fn parsed<T>(word: &SpannedText, parsed: Result<T, String>, report: &Diagnostics) -> Option<T> {
    match parsed {
        Ok(url) => Some(url),
        // The URL may contain credentials, which must not be shown.
        Err(error) if word.text.contains(['@', '?']) => {
            word.place.without_credentials().error(report, "this is not a usable URL", error);
            None
        }
        Err(error) => {
            word.place.error(report, format!("`{}` is not a usable URL", word.text), error);
            None
        }
    }
}

/// Reads `http_proxy`, and returns it with a digest of it.
pub(super) fn http_proxy(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<(Arc<ForwardProxy>, [u8; 32])> {
    let report = reader.report;
    let node = fields.take("http_proxy")?;
    let (text, literal) = reader.value(node, report)?;
    // It may hold a password, so it is shown in no message.
    let position = if literal { Position::of(node).without_credentials() } else { Position::of(node) };
    match ForwardProxy::parse(text.expose_secret()) {
        Ok(proxy) => {
            if literal && proxy.has_credentials() {
                let help = "write `http_proxy = { env = \"NAME\" }` or `{ file = \"path\" }`, with the whole URL in it";
                position.warning(report, "the proxy's credentials stand in the config file", help);
            }
            Some((Arc::new(proxy), sha256(text.expose_secret().as_bytes())))
        }
        Err(error) => {
            position.error(report, "`http_proxy` is not the URL of a proxy", error);
            None
        }
    }
}

/// `http_proxy`, `source_address`, and how HTTP/1.1 is spoken there.
fn way(fields: &Fields<'_>, profile: Option<&Profile>, reader: &Reader<'_>) -> ReadEgressPath {
    let report = reader.report;
    let (mut way, mut inputs) = (EgressPath::default(), Vec::new());
    if let Some((proxy, digest)) = http_proxy(fields, reader) {
        inputs.extend(digest);
        way.proxy = Some(proxy);
    }
    if let Some(word) = fields.opt::<SpannedText>("source_address") {
        match word.text.parse::<IpAddr>() {
            Ok(address) if !address.is_unspecified() && !address.is_multicast() => {
                inputs.extend(address.to_string().as_bytes());
                way.source = Some(address);
            }
            Ok(_) | Err(_) => {
                let title = format!("`{}` is not an IP address of this machine", word.text);
                word.place.error(report, title, "write the address without a port, as in `\"10.0.0.5\"`");
            }
        }
    }
    let drops = choice(fields, "invalid_header_lines", &[("drop", true), ("refuse", false)]);
    way.http1.drop_invalid = drops.unwrap_or(false);
    inputs.push(u8::from(way.http1.drop_invalid));
    if choice(fields, "header_case", &[("lower", false), ("preserve", true)]) == Some(true) {
        let names = || profile.into_iter().flat_map(Profile::header_names);
        way.http1.spellings = Some(Arc::new(Spellings::new(names())));
        names().for_each(|name| inputs.extend(sha256(name.as_bytes())));
        inputs.push(1);
    }
    ReadEgressPath { way, digest: sha256(&inputs) }
}

/// `key_exchange`: the groups to offer, of which there must be one.
fn key_exchange(fields: &Fields<'_>, report: &Diagnostics) -> Vec<&'static str> {
    let (Some(node), Some(words)) = (fields.take("key_exchange"), fields.opt::<Vec<SpannedText>>("key_exchange"))
    else {
        return Vec::new();
    };
    if words.is_empty() {
        let help = "leave it out for the usual ones, or write as in `[\"x25519\", \"secp256r1\"]`";
        Position::of(node).error(report, "without any group there is no key exchange", help);
    }
    let found = |word: &SpannedText| {
        // The registry of these names has capitals in some.
        let lower = SpannedText { text: word.text.to_ascii_lowercase(), place: word.place.clone() };
        lower.find("key exchange", KEY_EXCHANGES.into_iter(), report).and_then(|at| KEY_EXCHANGES.get(at).copied())
    };
    words.iter().filter_map(found).collect()
}

/// The handshakes with one provider that may wait for a signature at a time: as many as a key service is asked at once.
const SIGNING_THREADS: usize = SERVICE_PARALLEL;

/// Reads `client_key_password`, which is a mistake without `client_key`.
fn key_password(fields: &Fields<'_>, reader: &Reader<'_>) -> Option<SecretString> {
    let node = fields.take("client_key_password")?;
    let (password, literal) = reader.value(node, reader.report)?;
    if literal {
        let help = "write `client_key_password = { env = \"NAME\" }` or `{ file = \"path\" }`";
        Position::of(node).redacted().warning(reader.report, "a password stands in the config file", help);
    }
    let place = || Position::of(node).redacted();
    match fields.take("client_key") {
        None => place().error(reader.report, "there is no `client_key` that it could open", "add the key"),
        Some(key) if is_remote(key) => {
            place().error(reader.report, "a key of a key service has no password", "a token's is its `pin`");
        }
        Some(key) if key.as_table().is_some() => {
            let help = "write `client_key = { file = \"path\", password = … }`";
            place().error(reader.report, "the password of this key stands beside its file", help);
        }
        Some(_) => {}
    }
    Some(password)
}

fn transport(node: Option<&Node>, only_http1: bool, reader: &Reader<'_>) -> Option<ProviderTransport> {
    let report = reader.report;
    let errors = report.errors();
    let mut client_tls = ClientTls { only_http1, ..ClientTls::default() };
    let mut server_name = None;
    let mut certificate = None;
    let mut signing_threads = None;
    let mut inputs = Vec::new();
    if only_http1 {
        inputs.extend(b"http/1.1");
    }
    let ca;
    let mut ca_word = None;
    if let Some(node) = node {
        let fields = Fields::new(node, "tls of a provider", report);
        client_tls.only_tls13 = only_tls13(&fields);
        inputs.push(u8::from(client_tls.only_tls13));
        ca_word = fields.opt::<SpannedText>("ca");
        ca = ca_word.as_ref().and_then(|word| reader.ca_file(word));
        if let (Some(word), Some(pem)) = (&ca_word, &ca) {
            inputs.extend(sha256(pem));
            if let Err(error) = tls::certificates(pem) {
                let help = pem_help(pem, &word.text, "x509", "it must hold the CA, as PEM");
                word.place.error(report, format!("`{}`: {error}", word.text), help);
            }
        }
        client_tls.ca = ca.as_deref();
        client_tls.key_exchange = key_exchange(&fields, report);
        client_tls.key_exchange.iter().for_each(|name| inputs.extend(sha256(name.as_bytes())));
        let password = key_password(&fields, reader);
        let identity = match fields.take("client_key") {
            Some(key) if is_remote(key) => {
                signing_threads = Some(BlockingThreads::new(SIGNING_THREADS));
                remote_identity(&fields, key, client_tls.only_tls13, reader)
            }
            Some(_) | None => file_identity(&fields, &CLIENT, password.as_ref(), reader)
                .map(|(identity, digest)| (ClientIdentity::Local(identity), digest)),
        };
        if let Some((identity, digest)) = identity {
            inputs.extend(digest);
            client_tls.identity = Some(identity);
            let container = fields.take("client_key").and_then(|key| Some(&key.as_table()?.find("pkcs12")?.value));
            let own = fields.take("client_cert").or(container).and_then(Node::as_str);
            certificate = own.and_then(|own| reader.certificates().into_iter().find(|end| end.what == own));
        }
        if let Some(word) = fields.opt::<SpannedText>("server_name") {
            inputs.extend(word.text.as_bytes());
            server_name = ServerName::try_from(word.text.clone()).ok();
            if server_name.is_none() {
                let title = format!("`{}` is not a host name or address", word.text);
                word.place.error(report, title, "write the name that the provider's certificate carries");
            }
        }
        fields.finish();
        if report.errors() > errors {
            return None;
        }
    }
    let digest = sha256(&inputs);
    match reader.client_tls(digest, || tls::client(client_tls)) {
        Ok(tls) => Some(ProviderTransport { certificate, tls, server_name, signing_threads, digest }),
        Err(error) => {
            if let Some(node) = node {
                reader.tls_mistake(&error, ca_word.as_ref(), &Position::of(node));
            }
            None
        }
    }
}
