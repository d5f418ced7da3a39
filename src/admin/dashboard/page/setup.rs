//! `/ui/setup`: how programs come to use it.

use askama::Template;

use super::super::super::view::RouteView;
use super::super::Admin;
use super::super::format::ShownMoment;
use super::super::session::SessionVisitor;
use super::{StatusBadge, Top, validity};
use crate::base::time::Now;
use crate::config::{Bind, ForwardListener, ListenerConfig};
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
    /// The first of the calls in other languages.
    languages: Vec<(&'static str, String)>,
    is_tls: bool,
}

/// A call of one route.
struct ReverseCall {
    /// The route's path.
    path: String,
    url: String,
    /// Its own header fields: the name, what stands before the value, and the environment's variable with the value.
    fields: Vec<CallField>,
    /// The names of those who may make it.
    callers: String,
    /// A line for a shell.
    curl: String,
}

/// A header field of a call, as `Authorization`, `Bearer ` and `KEY`.
struct CallField {
    name: String,
    before: &'static str,
    variable: &'static str,
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
            let socket = match &listener.bind {
                Bind::Unix(path) => Some(path.display().to_string()),
                Bind::Tcp(_) => None,
            };
            // A name stands in for the address of a socket without one.
            let base = if socket.is_some() { base.replace(&address, "localhost") } else { base };
            let socket = socket.as_deref();
            let calls = served.filter_map(|route| {
                let path = route.path.clone()?;
                Some(call(&base, socket, route, user(&route.name), path))
            });
            let calls: Vec<ReverseCall> = calls.take(MOST_CALLS).collect();
            let languages = calls.first().filter(|_| socket.is_none()).map(languages).unwrap_or_default();
            let (name, is_tls) = (listener.name.to_string(), listener.tls.is_some());
            reverse.push(ReverseSetup { name, calls, languages, is_tls });
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
fn call(base: &str, socket: Option<&str>, route: &RouteView, user: Option<&str>, path: String) -> ReverseCall {
    let mut fields = Vec::new();
    if !route.open_to_everyone {
        fields.push(CallField { name: "Authorization".to_owned(), before: "Bearer ", variable: "KEY" });
    }
    fields.extend(user.map(|name| CallField { name: name.to_owned(), before: "", variable: "BANK_USER" }));
    let url = format!("{base}{}/", path.trim_end_matches('/'));
    let mut curl = "curl".to_owned();
    if let Some(socket) = socket {
        curl += &format!(" --unix-socket \"{socket}\"");
    }
    if base.starts_with("https:") {
        curl += " --cacert ca.crt";
    }
    for CallField { name, before, variable } in &fields {
        curl += &format!(" -H \"{name}: {before}${variable}\"");
    }
    curl += &format!(" {url}");
    let callers = match (route.open_to_everyone, route.clients.as_slice()) {
        (true, _) => "anyone".to_owned(),
        (false, []) => "nobody yet".to_owned(),
        (false, clients) => clients.join(", "),
    };
    ReverseCall { path, url, fields, callers, curl }
}

/// Writes a call in languages other than the shell's, for programs that run with the variables of its fields in their environment.
fn languages(call: &ReverseCall) -> Vec<(&'static str, String)> {
    let ReverseCall { url, fields, .. } = call;
    let is_tls = url.starts_with("https:");
    let when_tls = |text: &str| if is_tls { text.to_owned() } else { String::new() };
    let each = |one: &dyn Fn(&CallField) -> String, between: &str| {
        fields.iter().map(one).collect::<Vec<String>>().join(between)
    };
    let joined = |field: &CallField, operator: &str, value: &str| match field.before {
        "" => value.to_owned(),
        before => format!("\"{before}\"{operator}{value}"),
    };
    let python = format!(
        "import os, requests\n\nheaders = {{{}}}\nanswer = requests.get(\"{url}\", headers=headers, timeout=60{})",
        each(
            &|field| {
                let value = format!("os.environ[\"{}\"]", field.variable);
                format!("\"{}\": {}", field.name, joined(field, " + ", &value))
            },
            ", "
        ),
        when_tls(", verify=\"ca.crt\""),
    );
    let java = format!(
        "{}var request = HttpRequest.newBuilder(URI.create(\"{url}\"))\n{}    .build();\n\
         var answer = HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());",
        when_tls(
            "// keytool -importcert -noprompt -alias countersign -file ca.crt -keystore ca.p12 -storepass changeit\n\
             // java -Djavax.net.ssl.trustStore=ca.p12 -Djavax.net.ssl.trustStorePassword=changeit Call.java\n"
        ),
        each(
            &|field| {
                let value = format!("System.getenv(\"{}\")", field.variable);
                format!("    .header(\"{}\", {})\n", field.name, joined(field, " + ", &value))
            },
            ""
        ),
    );
    let node = format!(
        "{}const headers = {{{}}};\nconst answer = await fetch(\"{url}\", {{ headers }});",
        when_tls("// NODE_EXTRA_CA_CERTS=ca.crt node call.mjs\n"),
        each(
            &|field| {
                let value = format!("process.env.{}", field.variable);
                format!("\"{}\": {}", field.name, joined(field, " + ", &value))
            },
            ", "
        ),
    );
    let go = format!(
        "{}request, err := http.NewRequest(\"GET\", \"{url}\", nil)\nif err != nil {{\n\tlog.Fatal(err)\n}}\n{}\
         answer, err := http.DefaultClient.Do(request)",
        when_tls("// SSL_CERT_FILE=ca.crt go run call.go (on Linux)\n"),
        each(
            &|field| {
                let value = format!("os.Getenv(\"{}\")", field.variable);
                format!("request.Header.Set(\"{}\", {})\n", field.name, joined(field, "+", &value))
            },
            ""
        ),
    );
    vec![("Python", python), ("Java", java), ("Node.js", node), ("Go", go)]
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

#[cfg(test)]
mod tests {
    use super::*;

    fn example(url: &str, user: Option<&str>) -> Vec<(&'static str, String)> {
        let mut fields = vec![CallField { name: "Authorization".to_owned(), before: "Bearer ", variable: "KEY" }];
        fields.extend(user.map(|name| CallField { name: name.to_owned(), before: "", variable: "BANK_USER" }));
        let (path, callers, curl) = ("/scb".to_owned(), "erp".to_owned(), "curl".to_owned());
        languages(&ReverseCall { path, url: url.to_owned(), fields, callers, curl })
    }

    #[test]
    fn each_language_has_the_address_the_fields_and_the_ca() {
        let named = example("https://127.0.0.1:8443/scb/", Some("countersign-user"));
        let titles: Vec<&str> = named.iter().map(|(title, _)| *title).collect();
        assert_eq!(titles, ["Python", "Java", "Node.js", "Go"]);
        for (title, lines) in &named {
            for part in
                ["https://127.0.0.1:8443/scb/", "\"Bearer \"", "KEY", "\"countersign-user\"", "BANK_USER", "ca.crt"]
            {
                assert!(lines.contains(part), "{title} lacks {part}:\n{lines}");
            }
        }
        // In the clear there is no CA, and without users there is no header of theirs.
        for (title, lines) in example("http://127.0.0.1:8080/scb/", None) {
            assert!(!lines.contains("ca.") && !lines.contains("BANK_USER"), "{title}:\n{lines}");
        }
    }
}
