//! One provider: every place that its calls go to, and one token call.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::header::{HOST, USER_AGENT};
use http::response::Parts;
use http::{Method, Request};
use http_body_util::Full;
use rustls::Error as TlsError;

use super::finding::Finding;
use super::{Notes, TrialOptions, certificates, clock, connect_trial, token, values};
use crate::base::origin::BaseUrl;
use crate::base::time::Now;
use crate::config::{ProviderConfig, Route};
use crate::control::{AGENT, destination, try_token};
use crate::provider::{CallAs, Module, date};
use crate::tls::{Demand, attentive, onlooker, own_chain, short_onlooker};
use crate::upstream::{AskError, ConnectTrial, Destination, DialError, RequestHead, Sent, Step};

/// The plan of a provider's trial: the token and the places to try.
#[derive(Clone)]
pub(super) struct ProviderTrial {
    provider: Arc<ProviderConfig>,
    /// Module that fetches the token to try; an error gives the reason for which none is tried.
    token: Result<Arc<Module>, Untried>,
    /// Name of the route whose token is tried, if the routes' tokens differ.
    stands_for: Option<Arc<str>>,
    places: Vec<ProbeTarget>,
}

/// The reason for which no token is fetched.
#[derive(Clone, Copy)]
enum Untried {
    /// No route uses the provider, and without a route's settings it has no token.
    NoRoute,
    /// There is no token.
    Static,
    /// The tokens are those of users, each of whom has to consent first.
    UsersOnly,
}

impl Untried {
    const fn why(self) -> &'static str {
        match self {
            Untried::NoRoute => "not tried: no route uses it, and without a route's settings it has none",
            Untried::Static => "there is none: the provider's credential is static",
            Untried::UsersOnly => "not tried: its routes call for users only, each of whom has to consent first",
        }
    }

    const fn help(self) -> &'static str {
        match self {
            Untried::NoRoute | Untried::UsersOnly => {
                "the first real call will tell; `countersign consent start` begins a user's consent"
            }
            Untried::Static => "the first real call will tell whether the provider accepts it",
        }
    }
}

/// A host and port, and what goes there.
#[derive(Clone)]
struct ProbeTarget {
    url: BaseUrl,
    server_name: rustls::pki_types::ServerName<'static>,
    what: String,
    key: &'static str,
}

impl ProviderTrial {
    /// Its first route's token, and the places of all of them.
    pub(super) fn of(provider: &Arc<ProviderConfig>, routes: &[Arc<Route>]) -> Self {
        let own: Vec<&Arc<Route>> = routes.iter().filter(|route| route.provider.index == provider.index).collect();
        let mut calling = own.iter().filter(|route| route.module.caller() == CallAs::Application);
        let first = calling.next();
        let differs = first.is_some_and(|first| calling.any(|other| other.module.key() != first.module.key()));
        let token = match (first, own.is_empty()) {
            (Some(route), _) => Ok(route.module.clone()),
            (None, true) => provider.module.clone().ok_or(Untried::NoRoute),
            (None, false) => Err(Untried::UsersOnly),
        };
        let token = token.and_then(|module| if module.is_standing() { Err(Untried::Static) } else { Ok(module) });
        let mut places = Vec::new();
        let mut add = |url: &BaseUrl, what: String, key, server_name: &rustls::pki_types::ServerName<'static>| {
            let same = |known: &ProbeTarget| known.url.same_origin(url) && known.server_name == *server_name;
            if !places.iter().any(same) {
                places.push(ProbeTarget { url: url.clone(), server_name: server_name.clone(), what, key });
            }
        };
        if let Ok(module) = &token {
            // The token endpoint first: the token is tried there.
            for (at, url) in module.token_url().into_iter().chain(module.login_urls()).enumerate() {
                let what = if at == 0 { "token endpoint" } else { "login" };
                add(url, what.to_owned(), "token_url", &destination(provider, url).server_name);
            }
        }
        let base = &provider.base_url;
        add(base, "API".to_owned(), "base_url", &destination(provider, base).server_name);
        for route in &own {
            let name = provider.server_name.as_ref().unwrap_or(route.upstream.server_name());
            add(&route.upstream, format!("route `{}`", route.name), "upstream", name);
        }
        let stands_for = first.filter(|_| differs).map(|route| route.name.clone());
        Self { provider: provider.clone(), token, stands_for, places }
    }
}

/// Visits every place of the plan, makes at most one token call, and notes the findings.
pub(super) async fn attempt(plan: ProviderTrial, options: Rc<TrialOptions>, notes: Notes) {
    let provider = &plan.provider;
    let own = certificates::read_certificates(&own_chain(&provider.tls));
    if let Some(found) = certificates::own(&own, options.clock.now()) {
        notes.add(found);
    }
    if let Ok(module) = &plan.token {
        for name in module.padded() {
            let help = "take it away, unless the provider gave it so; a file's last line break is no part of the value";
            notes.add(Finding::warned(
                "settings",
                format!("the value of `{name}` begins or ends with white space"),
                help,
            ));
        }
    }
    let mut answered = false;
    for (number, place) in plan.places.iter().enumerate() {
        notes.at(format!("{} ({})", place.url.authority(), place.what));
        let to = Destination { server_name: place.server_name.clone(), ..destination(provider, &place.url) };
        let visit = PlaceVisit { to: &to, own: !own.is_empty(), key: place.key, options: &options, notes: &notes };
        let is_token = number == 0 && plan.token.is_ok();
        let Some(demand) = visit.connect().await else {
            if is_token {
                let why = "not tried: no secret is sent before a connection stands whose certificate holds";
                notes.add(Finding::skipped("token", why, None));
            }
            continue;
        };
        match &plan.token {
            Ok(module) if is_token => match values(module.vars(), &options.vars) {
                Ok(vars) => {
                    if let Some(route) = &plan.stands_for {
                        let what = format!("that of route `{route}`; the tokens of other routes are not tried");
                        notes.add(Finding::fine("which", what));
                    }
                    let outcome = try_token(provider, module, &vars, &options.clock).await;
                    let around = token::TokenTrialContext {
                        padded: module.padded(),
                        keys: &module.login_keys(),
                        asked: demand.made(),
                        own: !own.is_empty(),
                        patience: provider.timeouts.token.as_secs_f64(),
                    };
                    token::judge(&outcome, &around).into_iter().for_each(|found| notes.add(found));
                    answered = true;
                }
                Err(name) => {
                    let help = format!("give the value that one of your requests would have: `--var {name}=…`");
                    let why = format!("not tried: it depends on the route variable `{name}`");
                    notes.add(Finding::skipped("token", why, Some(help)));
                }
            },
            Ok(_) | Err(_) => {}
        }
        if !std::mem::take(&mut answered) {
            visit.head(&place.url, provider.timeouts.token, &demand).await;
        }
    }
    if let Err(why) = plan.token {
        notes.add(Finding::skipped("token", why.why(), Some(why.help().to_owned())));
    }
}

/// A visit to one place, with the means to note its findings.
pub(super) struct PlaceVisit<'a> {
    pub to: &'a Destination,
    /// True if a client certificate is configured.
    pub own: bool,
    pub key: &'static str,
    pub options: &'a TrialOptions,
    pub notes: &'a Notes,
}

impl PlaceVisit<'_> {
    /// Connects, and tells of each step. Answers whether a certificate was asked for; `None`: there is no connection.
    pub(super) async fn connect(&self) -> Option<Demand> {
        let now = self.options.clock.now();
        let (tls, demand) = attentive(&self.to.tls);
        let trial = Destination { tls, ..self.to.clone() }.attempt(now).await;
        let presented = match &trial.ended {
            Err(DialError::Tls(error)) if is_certificates(error) => self.look().await,
            Ok(_) | Err(_) => Vec::new(),
        };
        let around = connect_trial::ConnectTrialContext {
            to: self.to,
            presented: &presented,
            asked: demand.made(),
            own: self.own,
            shell_proxy: self.options.shell_proxy,
            key: self.key,
            now,
            small_hello: self.small_hello(&trial).await,
        };
        connect_trial::steps(&trial, &around).into_iter().for_each(|found| self.notes.add(found));
        trial.ended.is_ok().then_some(demand)
    }

    /// Returns whether, after a handshake that was cut off, the other side responds to a shorter first message: without
    /// a key share of ML-KEM.
    async fn small_hello(&self, trial: &ConnectTrial) -> bool {
        let cut = matches!(trial.ended, Err(DialError::Tcp(_) | DialError::Timeout)) && trial.step == Step::Tls;
        let Some((tls, presented)) = short_onlooker(&self.to.tls).filter(|_| cut) else { return false };
        // It always fails, but not before the other side has answered.
        let _ = Destination { tls, ..self.to.clone() }.attempt(self.options.clock.now()).await;
        !presented.chain().is_empty()
    }

    /// Returns the certificates that are presented there, to report them. None is trusted, and no data is sent.
    async fn look(&self) -> Vec<crate::tls::Paper> {
        let (tls, presented) = onlooker(&self.to.tls);
        // It always fails.
        let _ = Destination { tls, ..self.to.clone() }.attempt(self.options.clock.now()).await;
        certificates::read_certificates(presented.chain())
    }

    /// Sends a `HEAD` request without any credential, and compares the clocks. Any response is acceptable.
    async fn head(&self, url: &BaseUrl, patience: Duration, demand: &Demand) {
        let path = if url.path().is_empty() || self.key == "token_url" { "/" } else { url.path() };
        let request = Request::builder().method(Method::HEAD).uri(path).header(HOST, url.authority());
        let request = request.header(USER_AGENT, AGENT);
        let Ok(request) = request.body(Full::<Bytes>::default()) else { return };
        let sent = self.options.clock.now();
        match tokio::time::timeout(patience, first_head(self.to, request, sent)).await {
            Ok(Ok(answer)) => {
                let received = self.options.clock.now();
                let status = answer.status.as_u16();
                let detail = format!("it answers a HEAD without credentials (HTTP {status}; any answer will do)");
                self.notes.add(Finding::fine("http", detail).with("status", status));
                self.notes.add(clock::judge_clock(date(&answer.headers), sent, received));
            }
            Ok(Err(error)) => self.notes.add(token::unanswered("http", &error, demand.made(), self.own)),
            Err(_) => {
                let help = "the connection stands; the provider is slow, or ignores requests that it does not know";
                let detail = format!("no answer to a HEAD within {} s", patience.as_secs_f64());
                self.notes.add(Finding::warned("http", detail, help));
            }
        }
    }
}

/// Returns the head of the response; its body, if any, is ignored.
async fn first_head(to: &Destination, request: Request<Full<Bytes>>, now: Now) -> Result<Parts, AskError> {
    let (head, body) = request.into_parts();
    let head = RequestHead::of(&head);
    let mut connection = to.open(now).await.map_err(AskError::Dial)?;
    let mut sent = connection.send(head, body.clone()).await;
    if matches!(sent, Sent::Refused(_)) {
        connection = to.open(now).await.map_err(AskError::Dial)?;
        sent = connection.send(head, body).await;
    }
    match sent {
        Sent::Answered(response) => Ok(response.into_parts().0),
        Sent::Broken { error, .. } | Sent::Refused(error) => Err(AskError::Broken(error)),
        Sent::Unsent(_) => Err(AskError::HungUp),
    }
}

/// Returns whether the connection failed because the certificate did not hold.
fn is_certificates(error: &std::io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>());
    matches!(inner, Some(TlsError::InvalidCertificate(_)))
}
