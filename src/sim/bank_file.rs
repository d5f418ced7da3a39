//! A simulated bank that is described by a file: what it checks, in which order, and what it answers.
//!
//! The format is in docs/simulators.md. A file says what a bank's documents say; the code here knows no bank.

mod answer;
mod check;
mod drawn;
mod proof;
mod recorded_answer;
mod text;

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::OnceLock;
use std::time::Duration;

use http::StatusCode;
use serde::{Deserialize, Deserializer};
use serde_json::json;

use crate::base::secret::hex;
use crate::record::RecordedCall;
use crate::sim::call::{Bearer, SimCall};
use crate::sim::credentials::Credentials;
use crate::sim::issued_tokens::Binding;
use crate::sim::member::{BankSpec, SettingLines};
use crate::sim::sim_memory::SimMemory;
use crate::sim::sim_response::SimResponse;
use crate::sim::sim_state::{Issued, SimState};

use answer::AnswerText;
use check::Check;
use drawn::SettingText;
pub(super) use drawn::{DrawnSettings, SimSecretPlace};
use text::Values;

/// The files that come with countersign: names and texts.
const BUILTIN: [(&str, &str); 46] = [
    ("adyen", include_str!("banks/adyen.toml")),
    ("airtel-money", include_str!("banks/airtel-money.toml")),
    ("apigee", include_str!("banks/apigee.toml")),
    ("arab-bank", include_str!("banks/arab-bank.toml")),
    ("bangkok-bank", include_str!("banks/bangkok-bank.toml")),
    ("bank-of-london", include_str!("banks/bank-of-london.toml")),
    ("bca", include_str!("banks/bca.toml")),
    ("berlin-group", include_str!("banks/berlin-group.toml")),
    ("berlin-group-certificate", include_str!("banks/berlin-group-certificate.toml")),
    ("bri", include_str!("banks/bri.toml")),
    ("citi", include_str!("banks/citi.toml")),
    ("clearbank", include_str!("banks/clearbank.toml")),
    ("doku", include_str!("banks/doku.toml")),
    ("first-citizens", include_str!("banks/first-citizens.toml")),
    ("ibm-api-connect", include_str!("banks/ibm-api-connect.toml")),
    ("isbank", include_str!("banks/isbank.toml")),
    ("jpmorgan", include_str!("banks/jpmorgan.toml")),
    ("kbank", include_str!("banks/kbank.toml")),
    ("krungsri", include_str!("banks/krungsri.toml")),
    ("krungthai", include_str!("banks/krungthai.toml")),
    ("kuveyt-turk", include_str!("banks/kuveyt-turk.toml")),
    ("kuveyt-turk-query", include_str!("banks/kuveyt-turk-query.toml")),
    ("mandiri", include_str!("banks/mandiri.toml")),
    ("mangopay", include_str!("banks/mangopay.toml")),
    ("mastercard", include_str!("banks/mastercard.toml")),
    ("maya", include_str!("banks/maya.toml")),
    ("memo-bank", include_str!("banks/memo-bank.toml")),
    ("mpesa", include_str!("banks/mpesa.toml")),
    ("mtn-momo", include_str!("banks/mtn-momo.toml")),
    ("neonomics", include_str!("banks/neonomics.toml")),
    ("open-finance-brasil", include_str!("banks/open-finance-brasil.toml")),
    ("paypal", include_str!("banks/paypal.toml")),
    ("paysera", include_str!("banks/paysera.toml")),
    ("plaid", include_str!("banks/plaid.toml")),
    ("qonto", include_str!("banks/qonto.toml")),
    ("rabobank", include_str!("banks/rabobank.toml")),
    ("revolut-business", include_str!("banks/revolut-business.toml")),
    ("snap-bi", include_str!("banks/snap-bi.toml")),
    ("stripe", include_str!("banks/stripe.toml")),
    ("teller", include_str!("banks/teller.toml")),
    ("uk-open-banking", include_str!("banks/uk-open-banking.toml")),
    ("unionbank-ph", include_str!("banks/unionbank-ph.toml")),
    ("visa", include_str!("banks/visa.toml")),
    ("wise", include_str!("banks/wise.toml")),
    ("wise-personal-token", include_str!("banks/wise-personal-token.toml")),
    ("wso2", include_str!("banks/wso2.toml")),
];

/// What a file says about a bank.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BankText {
    #[serde(default)]
    base_path: String,
    /// `proxy.toml` must name the token endpoint.
    #[serde(default)]
    token_url: bool,
    #[serde(default = "usual_life", deserialize_with = "duration")]
    life: Duration,
    #[serde(default)]
    settings: BTreeMap<String, SettingText>,
    /// Calls that want no token, such as the first steps of a login.
    #[serde(default)]
    open: Vec<Endpoint>,
    /// Absent: credentials are static.
    token: Option<Endpoint>,
    call: CallText,
    /// Calls of a recording, with their answers. If there are some, no other calls are answered.
    #[serde(skip)]
    recorded: Vec<RecordedCall>,
}

/// An endpoint that wants no token: the token endpoint itself, before all.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Endpoint {
    #[serde(default = "post")]
    method: String,
    /// Behind the base path.
    path: String,
    #[serde(default)]
    expect: Vec<Check>,
    answer: AnswerText,
}

/// What holds for every call beside those.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CallText {
    token: Option<TokenPlace>,
    #[serde(default)]
    expect: Vec<Check>,
    /// The answer to a token that is expired, revoked or unknown.
    refused: Option<AnswerText>,
    answer: AnswerText,
    demo: Option<DemoCall>,
}

/// Where a call carries its token.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokenPlace {
    header: Option<String>,
    query: Option<String>,
    /// The value, with `{token}` in it.
    value: String,
}

/// A call that shows the bank at its work.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DemoCall {
    /// The method, such as `POST`.
    #[serde(default = "post")]
    pub method: String,
    /// Behind the base path.
    pub path: String,
    /// The body; may be empty.
    #[serde(default)]
    pub body: String,
    /// Header fields that the application sends.
    #[serde(default)]
    pub headers: BTreeMap<String, String>,
    /// The bank answers each call with a challenge first.
    #[serde(default)]
    pub challenged: bool,
    /// One sentence on what is particular about this bank.
    pub says: String,
}

/// A bank of a file.
pub struct BankFile {
    spec: BankSpec,
    text: BankText,
}

/// Two are the same if they have the same name.
impl PartialEq for BankFile {
    fn eq(&self, other: &Self) -> bool {
        self.spec.name == other.spec.name
    }
}

impl Eq for BankFile {}

impl Hash for BankFile {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.spec.name.hash(state);
    }
}

impl fmt::Debug for BankFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.spec.name)
    }
}

fn post() -> String {
    "POST".to_owned()
}

const fn usual_life() -> Duration {
    Duration::from_secs(3600)
}

/// Reads a number with its unit: `90s`, `15m`, `12h`.
fn duration<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(from)?;
    let wrong = || serde::de::Error::custom("a life is a number with `s`, `m` or `h`, such as \"15m\"");
    let unit = match text.as_bytes().last() {
        Some(b's') => 1,
        Some(b'm') => 60,
        Some(b'h') => 3600,
        Some(_) | None => return Err(wrong()),
    };
    let number: u32 = text.get(..text.len() - 1).and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    Ok(Duration::from_secs(u64::from(number) * unit))
}

impl BankFile {
    /// Reads a file. The error is for a person and says where it is. `name` is that of its profile.
    pub fn parse(name: &str, text: &str) -> Result<Self, String> {
        let text: BankText = toml::from_str(text).map_err(|error| error.to_string())?;
        text.judge()?;
        let token_path = text.token.as_ref().map(|token| format!("{}{}", text.base_path, token.path));
        Ok(Self::new(name, text, token_path.unwrap_or_default()))
    }

    /// A bank with its token endpoint at this absolute path.
    fn new(name: &str, text: BankText, token_path: String) -> Self {
        // A bank lives as long as the process: its name stands in those of threads.
        let kept = |text: String| -> &'static str { Box::leak(text.into_boxed_str()) };
        let spec = BankSpec {
            name: kept(name.to_owned()),
            base_path: kept(text.base_path.clone()),
            token_path: kept(token_path),
            names_token_url: text.token_url && text.token.is_some(),
            settings: SettingLines::Drawn,
            life: text.life,
            credentials: || Credentials::new(String::new(), hex(&rand::random::<[u8; 16]>())),
            token,
            open,
            admit,
            resource,
            missing,
        };
        Self { spec, text }
    }

    /// The banks whose files come with countersign, in alphabetical order.
    pub fn all() -> &'static [BankFile] {
        static ALL: OnceLock<Vec<BankFile>> = OnceLock::new();
        // A test reads each file and says what is wrong with it.
        ALL.get_or_init(|| BUILTIN.iter().filter_map(|(name, text)| Self::parse(name, text).ok()).collect())
    }

    /// The name of its profile.
    pub const fn name(&self) -> &'static str {
        self.spec.name
    }

    /// A call that shows the bank at its work; `None`: only its users can make one.
    pub const fn demo(&self) -> Option<&DemoCall> {
        self.text.call.demo.as_ref()
    }

    /// Returns the number of calls that bring a token: none where the credentials are static.
    pub fn token_calls(&self) -> usize {
        self.text.token.as_ref().map_or(0, |_| 1 + self.text.open.len())
    }

    pub(super) const fn spec(&self) -> &BankSpec {
        &self.spec
    }

    /// Draws the values of its settings, or recalls them.
    pub(super) fn draw(&self, memory: &SimMemory) -> Result<DrawnSettings, String> {
        DrawnSettings::draw(&self.text.settings, self.spec.name, memory)
    }

    /// Returns whether a path belongs to the fetching of a token.
    pub(super) fn is_login(&self, path: &str) -> bool {
        let below = path.strip_prefix(self.spec.base_path);
        below.is_some_and(|below| self.text.open.iter().any(|open| open.path == below))
    }
}

impl BankText {
    /// Finds what the types of the format do not rule out.
    fn judge(&self) -> Result<(), String> {
        let names: Vec<&str> = self.settings.keys().map(String::as_str).collect();
        let checks = self.open.iter().chain(&self.token).flat_map(|endpoint| &endpoint.expect).chain(&self.call.expect);
        for check in checks {
            check.judge(&names)?;
        }
        match &self.call.token {
            Some(place) if !place.value.contains("{token}") => Err("`call.token` has no {token} in its value".into()),
            Some(place) if place.header.is_some() == place.query.is_some() => {
                Err("`call.token` names a header or a query parameter".into())
            }
            Some(_) if self.token.is_none() => Err("calls carry a token, and there is no [token]".into()),
            Some(_) | None => Ok(()),
        }
    }
}

impl TokenPlace {
    /// The token that a call carries in this place.
    fn presented<'a>(&self, found: Option<&'a str>) -> Bearer<'a> {
        let Some(found) = found else { return Bearer::Absent };
        let (before, behind) = self.value.split_once("{token}").unwrap_or_default();
        match found.strip_prefix(before).and_then(|rest| rest.strip_suffix(behind)) {
            Some(token) if !token.is_empty() => Bearer::Token(token),
            Some(_) | None => Bearer::Malformed,
        }
    }
}

/// The file of a simulator that has one.
fn described(desk: &SimState) -> Option<(&'static BankText, Values<'_>)> {
    desk.described.map(|file| (&file.text, Values::new(&desk.drawn)))
}

fn token(desk: &SimState, call: &SimCall) -> SimResponse {
    let Some((text, values)) = described(desk) else { return missing(call) };
    match &text.token {
        Some(endpoint) => endpoint.answer(call, values, |call| {
            Some(desk.issue(call, Binding::default(), |_| hex(&rand::random::<[u8; 32]>())))
        }),
        None => missing(call),
    }
}

fn open(desk: &SimState, call: &SimCall) -> Option<SimResponse> {
    let (text, values) = described(desk)?;
    text.open.iter().find(|open| open.path == call.below).map(|open| open.answer(call, values, |_| None))
}

impl Endpoint {
    /// The answer to a call; `issue` makes the token that it brings, if it brings one.
    fn answer(
        &self,
        call: &SimCall,
        values: Values<'_>,
        issue: impl FnOnce(&SimCall) -> Option<Issued>,
    ) -> SimResponse {
        if call.method.as_str() != self.method {
            return SimResponse::json(StatusCode::METHOD_NOT_ALLOWED, json!({ "error": "method not allowed" }));
        }
        if let Some(refusal) = Check::first_failure(&self.expect, call, values) {
            return refusal;
        }
        self.answer.fill(call, values, issue(call).as_ref())
    }
}

fn admit(desk: &SimState, call: &SimCall) -> Result<Binding, SimResponse> {
    let Some((text, values)) = described(desk) else { return Err(missing(call)) };
    if let Some(place) = &text.call.token {
        let by_query = place.query.as_ref().and_then(|name| call.parameter(name));
        let found = place.header.as_ref().map_or(by_query.as_deref(), |name| call.header(name));
        if desk.standing_of(call, place.presented(found)).alive().is_none() {
            return Err(match &text.call.refused {
                Some(refused) => refused.fill(call, values, None),
                None => SimResponse::bare(StatusCode::UNAUTHORIZED),
            });
        }
    }
    match Check::first_failure(&text.call.expect, call, values) {
        Some(refusal) => Err(refusal),
        None => Ok(Binding::default()),
    }
}

fn resource(desk: &SimState, call: &SimCall, _: &Binding) -> Option<SimResponse> {
    let (text, values) = described(desk)?;
    if !text.recorded.is_empty() {
        return Some(recorded_answer::recorded_answer(&text.recorded, call));
    }
    Some(text.call.answer.fill(call, values, None))
}

fn missing(_: &SimCall) -> SimResponse {
    SimResponse::json(StatusCode::NOT_FOUND, json!({ "error": "no such resource" }))
}

#[cfg(test)]
mod tests;
