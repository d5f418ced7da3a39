//! The way to a host: names, addresses, proxies, handshakes. Each finding gives the result of a step, and advice for a
//! person.

use std::io::ErrorKind;
use std::net::IpAddr;

use http::StatusCode;
use rustls::Error as TlsError;

use super::certificates;
use super::finding::Finding;
use crate::base::time::Now;
use crate::tls::Paper;
use crate::upstream::{ConnectTrial, Destination, DialError, ProxyError, Step, TlsSession};

/// More addresses than this are only counted.
const MOST_SHOWN: usize = 3;

/// The facts that are known besides the trial itself.
pub(super) struct ConnectTrialContext<'a> {
    pub to: &'a Destination,
    /// Certificates that a second look has seen, if the first certificate did not hold.
    pub presented: &'a [Paper],
    /// True if the other side asked for a client certificate.
    pub asked: bool,
    /// True if a client certificate is configured.
    pub own: bool,
    /// True if the environment names a proxy for other programs.
    pub shell_proxy: bool,
    /// Key of the config that names the host.
    pub key: &'static str,
    pub now: Now,
    /// A handshake that was cut off comes through with a shorter first message.
    pub small_hello: bool,
}

/// The steps of a trial, each with what came of it.
pub(super) fn steps(trial: &ConnectTrial, around: &ConnectTrialContext<'_>) -> Vec<Finding> {
    let to = around.to;
    let mut found = Vec::new();
    if trial.step > Step::Dns {
        found.push(names(trial.addresses.as_deref().unwrap_or_default(), around));
    }
    if trial.step > Step::Tcp {
        let peer = trial.peer.map_or("?".to_owned(), |peer| peer.to_string());
        found.push(Finding::fine("tcp", format!("connected to {peer}")).with("peer", peer));
    }
    if trial.step > Step::Proxy
        && let Some(proxy) = &to.path.proxy
    {
        found.push(Finding::fine("proxy", format!("{}:{} opens a tunnel", proxy.host(), proxy.port())));
    }
    match &trial.ended {
        Ok(session) => {
            found.push(secured(session, around));
            found.push(certificates::provider_chain(&certificates::read_certificates(&session.chain), around.now));
        }
        Err(error) => found.push(stopped(error, trial, around)),
    }
    found
}

/// Returns the host and port to connect to, and the key that names them.
fn target<'a>(around: &'a ConnectTrialContext<'_>) -> (&'a str, u16, &'static str) {
    match &around.to.path.proxy {
        Some(proxy) => (proxy.host(), proxy.port(), "http_proxy"),
        None => (&around.to.host, around.to.port, around.key),
    }
}

fn names(addresses: &[IpAddr], around: &ConnectTrialContext<'_>) -> Finding {
    let (host, _, _) = target(around);
    let shown: Vec<String> = addresses.iter().take(MOST_SHOWN).map(IpAddr::to_string).collect();
    let more = if addresses.len() > MOST_SHOWN {
        format!(" and {} more", addresses.len() - MOST_SHOWN)
    } else {
        String::new()
    };
    let listed = format!("{}{more}", shown.join(", "));
    let all: Vec<String> = addresses.iter().map(IpAddr::to_string).collect();
    let odd = |address: &IpAddr| address.is_unspecified() || address.is_loopback();
    let literal = host.parse::<IpAddr>().is_ok();
    let found = if literal {
        Finding::fine("dns", format!("{host} needs no name"))
    } else if host != "localhost" && addresses.iter().any(odd) {
        let help = "a filter may answer in the place of the name's owner: ask who runs this network's name server, and \
                    look into /etc/hosts";
        Finding::warned("dns", format!("{host} stands for {listed}, this machine itself"), help)
    } else {
        Finding::fine("dns", format!("{host} stands for {listed}"))
    };
    found.with("addresses", all)
}

fn secured(session: &TlsSession, around: &ConnectTrialContext<'_>) -> Finding {
    let version = match session.version {
        Some(rustls::ProtocolVersion::TLSv1_2) => "TLS 1.2",
        _ => "TLS 1.3",
    };
    let speaks = if session.h2 { "HTTP/2" } else { "HTTP/1.1" };
    let plain = format!("{version}, {speaks}");
    let found = match (around.asked, around.own) {
        (true, false) => Finding::warned(
            "tls",
            format!("{plain}; it asks for a client certificate, and none is configured"),
            "if the provider issued or registered one, name it: `tls = { client_cert = …, client_key = … }`",
        ),
        (true, true) => Finding::fine("tls", format!("{plain}; it asks for a client certificate, and ours is shown")),
        (false, true) => Finding::fine("tls", format!("{plain}; it asks for no client certificate")),
        (false, false) => Finding::fine("tls", plain),
    };
    found.with("version", version).with("http", speaks).with("asks_client_certificate", around.asked)
}

fn stopped(error: &DialError, trial: &ConnectTrial, around: &ConnectTrialContext<'_>) -> Finding {
    let (host, port, key) = target(around);
    let own_proxy = around.to.path.proxy.is_none() && around.shell_proxy;
    let hint = if own_proxy {
        "; HTTPS_PROXY is set here, but countersign heeds the `http_proxy` of the provider alone"
    } else {
        ""
    };
    let direct = if around.to.path.proxy.is_none() {
        "or name the proxy that leads there as `http_proxy`"
    } else {
        "or correct `http_proxy`"
    };
    match error {
        DialError::Dns(why) => Finding::failed(
            "dns",
            format!("the name {host} does not resolve: {}", plain(why)),
            format!("see the spelling in `{key}`; `getent hosts {host}` must answer on this machine, {direct}{hint}"),
        ),
        DialError::Tcp(_) | DialError::Timeout if around.small_hello => Finding::failed(
            "tls",
            "the handshake is cut off, and comes through without post-quantum key exchange",
            "a box on the way does not bear a first message of more than one packet: write `tls = { key_exchange = \
             [\"x25519\", \"secp256r1\", \"secp384r1\"] }` for this provider",
        ),
        DialError::Tcp(error) if trial.step < Step::Tls => {
            unreached(error.kind(), &plain(&error.to_string()), trial, around, hint)
        }
        DialError::Tcp(error) => {
            let detail = match error.kind() {
                ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::BrokenPipe => {
                    "it hangs up during the handshake".to_owned()
                }
                _ => format!("the handshake broke off: {}", plain(&error.to_string())),
            };
            Finding::failed(
                "tls",
                detail,
                format!(
                    "a firewall may cut connections by their host name: ask for {}:{} to be let through{hint}; or \
                     something else than HTTPS answers there",
                    around.to.host, around.to.port
                ),
            )
        }
        DialError::Timeout => {
            let limit = around.to.connect_timeout.as_secs_f64();
            let ask = format!("ask for connections to {host}:{port} to be let through the firewall, {direct}{hint}");
            match trial.step {
                Step::Dns => Finding::failed(
                    "dns",
                    format!("no name server answered for {host} within {limit} s"),
                    "see /etc/resolv.conf and whether that name server can be reached from here",
                ),
                Step::Tcp => {
                    Finding::failed("tcp", format!("nothing answers at {host}:{port} within {limit} s (timeout)"), ask)
                }
                Step::Proxy => Finding::failed(
                    "proxy",
                    format!("the proxy {host}:{port} does not answer CONNECT within {limit} s (timeout)"),
                    "ask who runs the proxy whether it may reach the provider; or set a longer `timeouts.connect`",
                ),
                Step::Tls => Finding::failed(
                    "tls",
                    format!("the connection stands, but no handshake within {limit} s (timeout)"),
                    format!(
                        "something accepts connections and does not speak TLS: a firewall, or another service at port \
                         {}; or set a longer `timeouts.connect`",
                        around.to.port
                    ),
                ),
            }
        }
        DialError::Proxy(error) => proxied(error, host, port, around),
        DialError::Signer(error) => Finding::failed(
            "tls",
            format!("our side of the handshake was not signed: {}", plain(&error.to_string())),
            "see the key service that `client_key` names",
        ),
        DialError::Source(error) => Finding::failed(
            "tcp",
            format!("nothing can go there from `source_address`: {}", plain(&error.to_string())),
            "write an address of this machine (`ip address` lists them), of the same family as the provider's",
        ),
        DialError::Http(error) => {
            Finding::failed("http", format!("it breaks HTTP: {}", plain(&error.to_string())), "ask the provider")
        }
        DialError::Tls(error) => match error.get_ref().and_then(|inner| inner.downcast_ref::<TlsError>()) {
            Some(TlsError::AlertReceived(alert)) => certificates::alerted("tls", *alert, around.own && around.asked),
            Some(inner) => certificates::refused(inner, &around.to.server_name, around.presented, around.now),
            None => Finding::failed(
                "tls",
                format!("the handshake failed: {}", plain(&error.to_string())),
                "ask the provider",
            ),
        },
    }
}

fn unreached(
    kind: ErrorKind,
    text: &str,
    trial: &ConnectTrial,
    around: &ConnectTrialContext<'_>,
    hint: &str,
) -> Finding {
    let (host, port, key) = target(around);
    let count = trial.addresses.as_ref().map_or(0, Vec::len);
    let none = if count > 1 { format!(", at none of its {count} addresses") } else { String::new() };
    let through = around.to.path.proxy.is_some();
    match kind {
        ErrorKind::ConnectionRefused => Finding::failed(
            "tcp",
            format!("{host}:{port} refuses connections{none}"),
            if through {
                "see host and port of `http_proxy`: no proxy listens there".to_owned()
            } else {
                format!("see the port in `{key}`; a firewall may refuse in its place: ask for {host}:{port}{hint}")
            },
        ),
        ErrorKind::TimedOut => Finding::failed(
            "tcp",
            format!("nothing answers at {host}:{port}{none} (timeout)"),
            format!(
                "ask for connections to {host}:{port} to be let through the firewall, or name the proxy that leads there as `http_proxy`{hint}"
            ),
        ),
        _ => Finding::failed(
            "tcp",
            format!("{host}:{port} cannot be reached{none}: {text}"),
            format!(
                "no way leads there from this machine: see its network, or name the proxy that leads there as `http_proxy`{hint}"
            ),
        ),
    }
}

fn proxied(error: &ProxyError, host: &str, port: u16, around: &ConnectTrialContext<'_>) -> Finding {
    let place = format!("{}:{}", around.to.host, around.to.port);
    let detail = |what: &str| format!("the proxy {host}:{port} {what}");
    match error {
        ProxyError::Answered(status) => {
            let code = status.as_u16();
            let (what, help) = match *status {
                StatusCode::PROXY_AUTHENTICATION_REQUIRED => (
                    "wants credentials that hold",
                    "write them as `http://user:password@host:port` into the file or variable behind `http_proxy`, \
                     percent-encoded; NTLM and Kerberos are not spoken here"
                        .to_owned(),
                ),
                StatusCode::FORBIDDEN => {
                    ("does not allow it", format!("ask who runs the proxy to allow CONNECT to {place}"))
                }
                StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST => (
                    "does not open tunnels",
                    "`http_proxy` must name a forward proxy that takes CONNECT; this looks like a web server"
                        .to_owned(),
                ),
                status if status.is_server_error() => (
                    "cannot reach the provider",
                    format!("see the spelling of {place}; else ask who runs the proxy whether it may go there"),
                ),
                _ => ("opens no tunnel", format!("ask who runs the proxy to allow CONNECT to {place}")),
            };
            Finding::failed("proxy", detail(&format!("answered {code} to CONNECT: it {what}")), help)
                .with("status", code)
        }
        ProxyError::Broken(_) => Finding::failed(
            "proxy",
            detail("hung up, or what listens there speaks no HTTP"),
            "`http_proxy` must name an HTTP proxy; SOCKS and HTTPS proxies are not spoken to",
        ),
        ProxyError::Intruded => Finding::failed(
            "proxy",
            detail("sent bytes of its own into the tunnel"),
            "ask who runs the proxy; nothing was sent through it",
        ),
        ProxyError::MalformedHost | ProxyError::Unreachable(_) => Finding::failed(
            "proxy",
            detail(&format!("cannot be used: {}", plain(&error.to_string()))),
            "correct `http_proxy`",
        ),
    }
}

/// A text that is not ours, so that it can do nothing to a terminal.
pub(super) fn plain(text: &str) -> String {
    text.chars().take(200).map(|c| if c.is_control() { '?' } else { c }).collect()
}
