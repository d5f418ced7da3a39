//! `/ui/setup`: how programs come to use it.

use askama::Template;

use super::super::Admin;
use super::super::format::ShownMoment;
use super::super::session::SessionVisitor;
use super::{StatusBadge, Top, validity};
use crate::base::time::Now;
use crate::config::{ForwardListener, ListenerConfig};
use crate::tls::mint::Facts;
use crate::tls::trust::{Steps, TrustWords, steps};
use crate::tls::trust_store::pem;

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
    base: String,
    paths: Vec<String>,
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
            let paths = served.filter_map(|route| route.path.clone()).take(20).collect();
            reverse.push(ReverseSetup { name: listener.name.to_string(), base, paths });
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
