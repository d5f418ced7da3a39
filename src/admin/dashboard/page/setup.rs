//! `/ui/setup`: how programs come to use it.

use askama::Template;

use super::super::super::view::RouteView;
use super::super::Admin;
use super::super::format::ShownMoment;
use super::super::session::SessionVisitor;
use super::{StatusBadge, Top, validity};
use crate::base::time::Now;
use crate::config::{ForwardListener, ListenerConfig};
use crate::tls::mint::Facts;
use crate::tls::trust::{Steps, TrustWords, steps};
use crate::tls::trust_store::pem;

/// So many routes of a listener are shown.
const MOST_CALLS: usize = 20;

#[derive(Template)]
#[template(path = "setup.html")]
pub(super) struct Setup {
    top: Top,
    forward: Vec<ForwardSetup>,
    reverse: Vec<ReverseSetup>,
    digest: String,
    may: bool,
    csrf: String,
}

/// A listener that programs are told of as their proxy.
struct ForwardSetup {
    name: String,
    proxy: String,
    ca: Option<Ca>,
    steps: Vec<(&'static str, String)>,
}

struct Ca {
    subject: String,
    fingerprint: String,
    until: ShownMoment,
    state: StatusBadge,
    vouches: String,
}

/// A listener that programs call instead of the bank.
struct ReverseSetup {
    name: String,
    calls: Vec<ReverseCall>,
}

/// A call of one route.
struct ReverseCall {
    /// The route's path.
    path: String,
    /// The names of those who may make it.
    callers: String,
    /// A line for a shell.
    curl: String,
}

pub(super) fn gather(admin: &Admin, session: &SessionVisitor, top: Top) -> Setup {
    let (snapshot, now) = (admin.reloads.current(), admin.clock.now());
    let routes = admin.routes().routes;
    let (mut forward, mut reverse) = (Vec::new(), Vec::new());
    for listener in &snapshot.listeners {
        let bound = admin.addresses.iter().find(|(name, _)| *name == listener.name).map(|(_, at)| at.to_string());
        let address = bound.unwrap_or_else(|| listener.bind.to_string());
        let base = format!("{}://{address}", if listener.tls.is_some() { "https" } else { "http" });
        if let Some(mode) = listener.forward() {
            forward.push(proxy(listener, mode, base, now));
        } else if listener.mode.routes_by_path() {
            let served = routes.iter().filter(|route| route.listeners.iter().any(|name| *name == *listener.name));
            let user = |name: &str| {
                let route = snapshot.routes.iter().find(|route| *route.name == *name);
                route.and_then(|route| route.user.as_ref()).map(|header| header.as_str())
            };
            let calls = served.filter_map(|route| Some(call(&base, route, user(&route.name), route.path.clone()?)));
            reverse.push(ReverseSetup { name: listener.name.to_string(), calls: calls.take(MOST_CALLS).collect() });
        }
    }
    Setup {
        top,
        forward,
        reverse,
        digest: snapshot.digest.clone(),
        may: session.may_operate(),
        csrf: session.csrf.clone(),
    }
}

/// Writes the call of a route at a listener. A user's header is named where the route calls in a user's name.
fn call(base: &str, route: &RouteView, user: Option<&str>, path: String) -> ReverseCall {
    let mut curl = "curl".to_owned();
    if base.starts_with("https:") {
        curl += " --cacert ca.crt";
    }
    if !route.open_to_everyone {
        curl += " -H \"Authorization: Bearer $KEY\"";
    }
    if let Some(header) = user {
        curl += &format!(" -H \"{header}: $BANK_USER\"");
    }
    curl += &format!(" {base}{}/", path.trim_end_matches('/'));
    let callers = match (route.open_to_everyone, route.clients.as_slice()) {
        (true, _) => "anyone".to_owned(),
        (false, []) => "nobody yet".to_owned(),
        (false, clients) => clients.join(", "),
    };
    ReverseCall { path, callers, curl }
}

fn proxy(listener: &ListenerConfig, forward: &ForwardListener, proxy: String, now: Now) -> ForwardSetup {
    let ca = ca(forward, now);
    let names = TrustWords { ca: "ca.crt", bundle: "bundle.pem", store: "truststore.p12", proxy: &proxy };
    let steps = steps(names).into_iter().map(|Steps { title, lines }| (title, lines.join("\n"))).collect();
    ForwardSetup { name: listener.name.to_string(), ca, steps, proxy }
}

/// Describes the interception CA; `None` if it cannot be read.
fn ca(forward: &ForwardListener, now: Now) -> Option<Ca> {
    let facts = Facts::read(pem(forward.interception.authority().chain()).as_bytes()).ok()?;
    let days = i64::try_from(facts.until / 86_400).ok()? - i64::try_from(now.unix_seconds() / 86_400).ok()?;
    Some(Ca {
        subject: facts.subject,
        fingerprint: facts.fingerprint,
        until: ShownMoment::at(facts.until.saturating_mul(1000), now),
        state: validity(days),
        vouches: facts.constraints.to_string(),
    })
}
