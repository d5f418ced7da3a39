//! A parser for profile files, and the profiles that are built in.

mod lint;

use std::sync::Arc;

use crate::base::origin::BaseUrl;
use crate::provider::challenge_rule::ChallengeRule;
use crate::provider::coexistence::Coexistence;
use crate::provider::consent::{ConsentParams, ConsentProfile};
use crate::provider::dpop::DpopRule;
use crate::provider::exchange::{RequestKind, RequestTemplate};
use crate::provider::extends::Lineage;
use crate::provider::id_rule::IdRule;
use crate::provider::injection::InjectionRules;
use crate::provider::jose_rule::OpeningRules;
use crate::provider::login::LoginStep;
use crate::provider::pack::ProfilePack;
use crate::provider::provenance::Provenance;
use crate::provider::refusal::RefusalRules;
use crate::provider::setting::{ReadValue, Setting, Settings};
use crate::provider::signature_rule::uses_of_keys;
use crate::provider::template::{Generators, TemplateContext, TemplateScope, is_name};
use crate::provider::time_rule::TimeRule;
use crate::provider::token_response_rules::TokenResponseRules;
use crate::provider::values::OneOrManyValues;
use crate::syntax::{Diagnostics, Fields, Kind, Node, SourceText, TableEntry};

pub use lint::LintFinding;

/// The profiles that come with countersign: their names and texts.
const BUILTIN: [(&str, &str); 55] = [
    ("abbeycross", include_str!("profiles/abbeycross.toml")),
    ("adyen", include_str!("profiles/adyen.toml")),
    ("airtel-money", include_str!("profiles/airtel-money.toml")),
    ("apigee", include_str!("profiles/apigee.toml")),
    ("arab-bank", include_str!("profiles/arab-bank.toml")),
    ("bangkok-bank", include_str!("profiles/bangkok-bank.toml")),
    ("bank-of-london", include_str!("profiles/bank-of-london.toml")),
    ("bca", include_str!("profiles/bca.toml")),
    ("berlin-group", include_str!("profiles/berlin-group.toml")),
    ("berlin-group-certificate", include_str!("profiles/berlin-group-certificate.toml")),
    ("bri", include_str!("profiles/bri.toml")),
    ("citi", include_str!("profiles/citi.toml")),
    ("clearbank", include_str!("profiles/clearbank.toml")),
    ("doku", include_str!("profiles/doku.toml")),
    ("fapi2", include_str!("profiles/fapi2.toml")),
    ("first-citizens", include_str!("profiles/first-citizens.toml")),
    ("ibm-api-connect", include_str!("profiles/ibm-api-connect.toml")),
    ("isbank", include_str!("profiles/isbank.toml")),
    ("jpmorgan", include_str!("profiles/jpmorgan.toml")),
    ("kbank", include_str!("profiles/kbank.toml")),
    ("krungsri", include_str!("profiles/krungsri.toml")),
    ("krungthai", include_str!("profiles/krungthai.toml")),
    ("kuveyt-turk", include_str!("profiles/kuveyt-turk.toml")),
    ("kuveyt-turk-query", include_str!("profiles/kuveyt-turk-query.toml")),
    ("mandiri", include_str!("profiles/mandiri.toml")),
    ("mangopay", include_str!("profiles/mangopay.toml")),
    ("mastercard", include_str!("profiles/mastercard.toml")),
    ("maya", include_str!("profiles/maya.toml")),
    ("meed", include_str!("profiles/meed.toml")),
    ("memo-bank", include_str!("profiles/memo-bank.toml")),
    ("mpesa", include_str!("profiles/mpesa.toml")),
    ("mtn-momo", include_str!("profiles/mtn-momo.toml")),
    ("neonomics", include_str!("profiles/neonomics.toml")),
    ("oauth2", include_str!("profiles/oauth2.toml")),
    ("open-finance-brasil", include_str!("profiles/open-finance-brasil.toml")),
    ("open-finance-brasil-payments", include_str!("profiles/open-finance-brasil-payments.toml")),
    ("paypal", include_str!("profiles/paypal.toml")),
    ("paysera", include_str!("profiles/paysera.toml")),
    ("plaid", include_str!("profiles/plaid.toml")),
    ("qonto", include_str!("profiles/qonto.toml")),
    ("qonto-oauth", include_str!("profiles/qonto-oauth.toml")),
    ("rabobank", include_str!("profiles/rabobank.toml")),
    ("rakbank", include_str!("profiles/rakbank.toml")),
    ("revolut-business", include_str!("profiles/revolut-business.toml")),
    ("scb", include_str!("profiles/scb.toml")),
    ("snap-bi", include_str!("profiles/snap-bi.toml")),
    ("stripe", include_str!("profiles/stripe.toml")),
    ("teller", include_str!("profiles/teller.toml")),
    ("uk-open-banking", include_str!("profiles/uk-open-banking.toml")),
    ("unionbank-ph", include_str!("profiles/unionbank-ph.toml")),
    ("visa", include_str!("profiles/visa.toml")),
    ("visa-x-pay-token", include_str!("profiles/visa-x-pay-token.toml")),
    ("wise", include_str!("profiles/wise.toml")),
    ("wise-personal-token", include_str!("profiles/wise-personal-token.toml")),
    ("wso2", include_str!("profiles/wso2.toml")),
];

/// A parsed profile, without settings.
#[derive(Debug)]
pub struct Profile {
    pub(super) name: String,
    /// A one-line description for people; may be empty.
    title: String,
    provenance: Provenance,
    /// Of the whole text, its parent's included: another text, another token key.
    pub(super) digest: [u8; 32],
    pub(super) settings: Vec<Setting>,
    environments: Vec<Environment>,
    /// The requests that come before the token request.
    pub(super) steps: Vec<LoginStep>,
    /// The token request; `None`: there is no token, and the provider's credential is static.
    pub(super) plan: Option<RequestTemplate>,
    pub(super) answer: TokenResponseRules,
    coexistence: Coexistence,
    pub(super) orders: InjectionRules,
    pub(super) refusal: RefusalRules,
    /// The opening of answers.
    pub(super) response: OpeningRules,
    /// The verification of webhooks; `None`: the profile knows of none.
    pub(super) webhook: Option<OpeningRules>,
    /// The consent flow of users; `None`: the profile has no users who consent.
    pub(super) consent: Option<ConsentProfile>,
    /// The proofs of possession that its requests carry; `None`: tokens are bound to no key of the profile's.
    pub(super) dpop: Option<DpopRule>,
    /// Paths under the base URL that no route may reach, besides the token endpoint.
    pub(super) guarded: Vec<String>,
    /// The names of header fields, as its text spells them.
    header_names: Vec<String>,
}

/// Gathers the names of header fields that a profile puts on, as they are spelled.
fn header_names(node: &Node, into: &mut Vec<String>) {
    match &node.kind {
        Kind::Array(items) => items.iter().for_each(|item| header_names(item, into)),
        Kind::Table(table) => {
            for TableEntry { key, value, .. } in &table.entries {
                match (key.as_str(), &value.kind) {
                    ("headers", Kind::Table(headers)) => {
                        into.extend(headers.entries.iter().map(|header| header.key.clone()));
                    }
                    ("header", Kind::String(name)) => into.push(name.clone()),
                    _ => header_names(value, into),
                }
            }
        }
        Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) | Kind::String(_) => {}
    }
}

/// `[token]` of a profile.
#[derive(Default)]
struct TokenSection {
    steps: Vec<LoginStep>,
    plan: Option<RequestTemplate>,
    answer: TokenResponseRules,
    coexistence: Coexistence,
}

impl TokenSection {
    fn read(node: &Node, settings: &[Setting], generated: &Generators, report: &Diagnostics) -> Self {
        let token = Fields::new(node, "[token]", report);
        let answer = TokenResponseRules::read(&token);
        let place = TemplateContext::TokenBody;
        let captures = answer.capture_names();
        let scope = TemplateScope { settings, captures: &captures, steps: &[], generated, place };
        let (steps, captured) = LoginStep::read_all(token.take("steps"), scope, &answer, report);
        let plan = match token.take("request") {
            Some(node) => {
                RequestTemplate::read(node, RequestKind::TOKEN, TemplateScope { steps: &captured, ..scope }, report)
            }
            None => {
                token.missing("request", "{ encoding = \"json\", body = { … } }");
                None
            }
        };
        let coexistence =
            token.take("coexistence").and_then(|node| Coexistence::read(node, report)).unwrap_or_default();
        token.finish();
        Self { steps, plan, answer, coexistence }
    }
}

#[derive(Debug)]
struct Environment {
    name: String,
    base_url: BaseUrl,
    note: String,
    confirmed: bool,
}

impl Profile {
    /// Reads a profile's text. Every mistake goes to `report`; `None` when there was one.
    pub fn parse(source: &Arc<SourceText>, report: &Diagnostics) -> Option<Arc<Profile>> {
        Self::parse_in(source, None, report)
    }

    /// Reads the text of a profile that stands in a pack, if in any, as [`Profile::parse`] does.
    pub fn parse_in(
        source: &Arc<SourceText>,
        pack: Option<&ProfilePack>,
        report: &Diagnostics,
    ) -> Option<Arc<Profile>> {
        let before = report.errors();
        let mut lineage = Lineage::new(source, pack);
        let node = lineage.resolve(Node::parse(source, report), report)?;
        let profile = Self::read(&node, lineage.digest(), report).map(|mut profile| {
            header_names(&node, &mut profile.header_names);
            profile
        });
        if report.errors() == before { profile.map(Arc::new) } else { None }
    }

    /// Returns the content of a profile's text with its parents under it, unread: to be compared with another.
    pub(super) fn resolved(source: &Arc<SourceText>, pack: Option<&ProfilePack>, report: &Diagnostics) -> Option<Node> {
        Lineage::new(source, pack).resolve(Node::parse(source, report), report)
    }

    /// The profile of this name that comes with countersign.
    pub fn builtin(name: &str) -> Option<Arc<Profile>> {
        let text = Self::builtin_text(name)?;
        Self::parse(&SourceText::new(format!("profile {name}"), text), &Diagnostics::new())
    }

    /// Its text: a starting point for one's own.
    pub fn builtin_text(name: &str) -> Option<&'static str> {
        BUILTIN.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
    }

    /// The names of all profiles that come with countersign, sorted.
    pub fn builtin_names() -> Vec<&'static str> {
        BUILTIN.iter().map(|(name, _)| *name).collect()
    }

    fn read(node: &Node, digest: [u8; 32], report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(node, "the profile", report);
        let _ = fields.take("extends");
        let name = fields.req::<String>("name", "\"my-bank\"");
        if let (Some(name), Some(node)) = (&name, fields.take("name"))
            && !is_name(name)
        {
            node.error(report, "a profile's name has letters, digits, `_` and `-` only", "", None);
        }
        let title = fields.or("title", String::new());
        let provenance = Provenance::read(&fields, report);
        let mut settings: Vec<Setting> = each(fields.take("settings"), "[settings]", report)
            .into_iter()
            .filter_map(|entry| Setting::read(entry, report))
            .collect();
        let environments = each(fields.take("environments"), "[environments]", report)
            .into_iter()
            .filter_map(|entry| Environment::read(entry, report))
            .collect();
        let guarded = fields.or("guarded", OneOrManyValues::<String>(Vec::new())).0;
        if let Some(node) = fields.take("guarded")
            && guarded.iter().any(|path| !path.starts_with('/'))
        {
            node.error(report, "a guarded path starts with `/`", "it lies under `base_url`", None);
        }
        let generated = Generators {
            times: each(fields.take("times"), "[times]", report)
                .into_iter()
                .filter_map(|entry| TimeRule::read(entry, report))
                .collect(),
            ids: each(fields.take("ids"), "[ids]", report)
                .into_iter()
                .filter_map(|entry| IdRule::read(entry, report))
                .collect(),
        };
        let refusal_node = fields.take("refusal");
        let refusal = RefusalRules::read(refusal_node, report);
        let token_node = fields.take("token");
        let is_standing = token_node.is_none();
        let mut token =
            token_node.map(|node| TokenSection::read(node, &settings, &generated, report)).unwrap_or_default();
        let captures = token.answer.capture_names();
        let place = if is_standing { TemplateContext::Standing } else { TemplateContext::Inject };
        let scope =
            TemplateScope { settings: &settings, captures: &captures, steps: &[], generated: &generated, place };
        let dpop_node = fields.take("dpop");
        let dpop = dpop_node.and_then(|node| DpopRule::read(node, scope, report));
        if let (Some(node), false) = (dpop_node, is_standing) {
            token.answer.judge_bound(token_node.unwrap_or(node), report);
        }
        let challenge = fields.take("challenge").and_then(|node| ChallengeRule::read(node, report));
        let orders = match fields.take("request") {
            Some(node) => {
                let dpop = dpop.as_ref().filter(|_| !is_standing);
                InjectionRules::read(node, scope, dpop, challenge.as_ref(), report)
            }
            None => {
                fields.missing("request", "{ inject = [{ header = \"authorization\", value = \"Bearer {token}\" }] }");
                InjectionRules::default()
            }
        };
        let response = fields
            .take("response")
            .map(|node| OpeningRules::read_response(node, &settings, report))
            .unwrap_or_default();
        let webhook = fields.take("webhook").map(|node| OpeningRules::read_webhook(node, &settings, report));
        let consent_node = fields.take("consent");
        let mut consent = consent_node
            .filter(|_| !is_standing)
            .and_then(|node| ConsentProfile::read(node, &settings, &generated, &captures, &orders, report));
        for (node, title) in [
            (consent_node, "users consent to tokens, and this profile has no [token]"),
            (dpop_node, "a proof shows the key to which a token is bound, and this profile has no [token]"),
            (refusal_node, "only a token can be refused, and this profile has no [token]"),
        ] {
            if let (Some(node), true) = (node, is_standing) {
                let help = "add `[token]` with `request` and `response`, or take this out".to_owned();
                node.error(report, title, "", Some(help));
            }
        }
        fields.finish();
        if token.plan.is_none() && !is_standing {
            return None;
        }
        let TokenSection { steps, plan, answer, coexistence } = token;
        let orders_of = |orders: &InjectionRules| orders.templates().cloned().collect::<Vec<_>>();
        let mut in_header = orders_of(&orders);
        in_header.extend(consent.iter().flat_map(|consent| orders_of(&consent.orders)));
        let plans: Vec<&RequestTemplate> = (plan.iter().chain(steps.iter().map(|step| &step.request)))
            .chain(consent.iter().flat_map(ConsentProfile::plans))
            .collect();
        in_header.extend(plans.iter().flat_map(|plan| plan.header_templates()).map(|(_, template)| template.clone()));
        let in_header: Vec<Arc<str>> = in_header
            .iter()
            .flat_map(|template| template.settings())
            .chain(plans.iter().flat_map(|plan| plan.path_settings()))
            .cloned()
            .collect();
        let consents = consent.iter().map(|consent| &consent.orders);
        let rules = [&orders].into_iter().chain(consents).flat_map(InjectionRules::signatures);
        let rules = rules.chain(plans.iter().flat_map(|plan| plan.signatures()));
        let mut uses =
            uses_of_keys(rules, plans.iter().filter_map(|plan| plan.client_auth()), dpop.iter().map(|rule| &rule.key));
        uses.extend(orders.jose_uses().chain(response.uses()).chain(webhook.iter().flat_map(OpeningRules::uses)));
        for setting in &mut settings {
            setting.in_header = in_header.contains(&setting.name);
            let own = uses.iter().filter(|(name, _)| *name == setting.name);
            setting.uses = own.map(|(_, key_use)| *key_use).collect();
        }
        if let Some(consent) = &mut consent {
            consent.note_headers(&in_header);
        }
        let name = name?;
        Some(Self {
            name,
            title,
            provenance,
            digest,
            settings,
            environments,
            steps,
            plan,
            answer,
            coexistence,
            orders,
            refusal,
            response,
            webhook,
            consent,
            dpop,
            guarded,
            header_names: Vec::new(),
        })
    }

    /// Returns the name that configs and logs use for the profile.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The names of the header fields that it puts on, as it spells them.
    pub fn header_names(&self) -> impl Iterator<Item = &str> {
        self.header_names.iter().map(String::as_str)
    }

    /// One line about it, for people; may be empty.
    pub fn title(&self) -> &str {
        &self.title
    }

    /// Returns where its facts come from.
    pub const fn provenance(&self) -> &Provenance {
        &self.provenance
    }

    /// Returns the effect that issuing a successor has on a token.
    pub const fn coexistence(&self) -> Coexistence {
        self.coexistence
    }

    /// The base URL of one of its environments.
    pub fn environment(&self, name: &str) -> Option<&BaseUrl> {
        self.environments.iter().find(|environment| environment.name == name).map(|found| &found.base_url)
    }

    /// The names of its environments, in the order of the file.
    pub fn environments(&self) -> Vec<&str> {
        self.environments.iter().map(|environment| environment.name.as_str()).collect()
    }

    /// Returns one line for each statement of the profile that no public source confirms: its place in the profile and
    /// the note about it.
    pub fn unconfirmed(&self) -> Vec<String> {
        let environments = self.environments.iter().filter(|environment| !environment.confirmed);
        let mut found: Vec<String> =
            environments.map(|environment| format!("environment {}: {}", environment.name, environment.note)).collect();
        let lists = [
            ("refusal.exclude", self.refusal.exclude.iter().collect::<Vec<_>>()),
            ("refusal.match", self.refusal.matches.iter().collect()),
            ("token.failure", self.answer.failures.iter().map(|rule| &rule.when).collect()),
            ("consent.dead", self.consent.iter().flat_map(|consent| &consent.dead).collect()),
        ];
        for (list, matchers) in lists {
            let open = matchers.iter().enumerate().filter(|(_, matcher)| !matcher.confirmed);
            found.extend(open.map(|(at, matcher)| format!("{list} {}: {}", at + 1, matcher.note)));
        }
        found
    }

    /// The route variables that the profile itself names with `{var.NAME}`: every route must define them.
    pub fn vars(&self) -> Vec<Arc<str>> {
        let mut found: Vec<Arc<str>> = self.logins().flat_map(RequestTemplate::vars).collect();
        found.extend(self.orders.vars().cloned());
        found.extend(self.consent.iter().flat_map(|consent| consent.orders.vars().cloned()));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// The requests by which an application gets its token, in their order; none if its credential is static.
    pub(super) fn logins(&self) -> impl Iterator<Item = &RequestTemplate> {
        self.steps.iter().map(|step| &step.request).chain(&self.plan)
    }

    /// Returns whether a config has to say `token_url`: the profile does not know where the token endpoint is.
    pub fn needs_token_url(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| !plan.has_path())
    }

    /// Returns whether there is no token: the provider's credential is static.
    pub const fn is_standing(&self) -> bool {
        self.plan.is_none()
    }

    /// Takes the profile's settings from the fields of a `[provider.NAME]`. `None` when something was wrong, all of
    /// which was reported; unknown keys are for the caller's `finish` to report.
    pub fn read_settings(&self, fields: &Fields<'_>, read: &dyn ReadValue) -> Option<Settings> {
        Settings::read(&self.settings, fields, read)
    }

    /// Returns whether the profile supports users who consent.
    pub fn knows_users(&self) -> bool {
        self.consent.is_some()
    }

    /// Returns whether `[provider.NAME]` must set `token_url`.
    pub fn wants_token_url(&self) -> bool {
        self.plan.as_ref().is_some_and(|plan| !plan.has_path())
    }

    /// Returns whether `[provider.NAME.consent]` must set `authorize_url`.
    pub fn wants_authorize_url(&self) -> bool {
        self.consent.as_ref().is_some_and(ConsentProfile::wants_authorize_url)
    }

    /// Reads `params` of a `[provider.NAME.consent]`; `node` is their table, if there is one. `None` when something
    /// was wrong, all of which was reported, or when the profile knows no users.
    pub fn read_consent_params(&self, node: Option<&Node>, report: &Diagnostics) -> Option<ConsentParams> {
        self.consent.as_ref()?.read_params(node, report)
    }

    /// `base` with the settings in a route's `settings` table put over it.
    pub fn override_settings(&self, base: &Settings, fields: &Fields<'_>, read: &dyn ReadValue) -> Option<Settings> {
        base.overridden(&self.settings, fields, read)
    }
}

impl Environment {
    fn read(entry: &TableEntry, report: &Diagnostics) -> Option<Self> {
        let fields = Fields::new(&entry.value, format!("environment `{}`", entry.key), report);
        let url = fields.req::<String>("base_url", "\"https://api.bank.example\"");
        let note = fields.or("note", String::new());
        let confirmed = fields.or("confirmed", true);
        let node = fields.take("base_url");
        fields.finish();
        match BaseUrl::parse(&url?) {
            Ok(base_url) => Some(Self { name: entry.key.clone(), base_url, note, confirmed }),
            Err(reason) => {
                node?.error(report, format!("`base_url` is wrong: {reason}"), "", None);
                None
            }
        }
    }
}

/// The entries of a table of freely named tables.
fn each<'a>(node: Option<&'a Node>, what: &str, report: &'a Diagnostics) -> Vec<&'a TableEntry> {
    let Some(node) = node else { return Vec::new() };
    let fields = Fields::new(node, what, report);
    let entries = fields.rest();
    fields.finish();
    entries
}

#[cfg(test)]
mod tests;
