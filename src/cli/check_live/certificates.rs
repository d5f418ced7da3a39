//! Certificates: how long they last, and why one does not hold.

use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{AlertDescription, CertificateError, Error};

use super::clock::moment;
use super::finding::{Finding, span};
use crate::base::time::Now;
use crate::tls::{Paper, paper};

/// A certificate that ends within so many seconds is told of.
const SOON: i64 = 30 * 24 * 3600;

/// Advice about a client certificate that is not accepted.
pub(super) const OURS: &str = "see that `tls.client_cert` is the one that the provider registered for this environment, \
                               whole with its intermediate certificates, and has not ended";
/// Advice about a client certificate that is missing.
pub(super) const NONE: &str =
    "name the one that the provider issued or registered: `tls = { client_cert = …, client_key = … }`";

/// Reads what can be read of a chain.
pub(super) fn read_certificates(chain: &[CertificateDer<'_>]) -> Vec<Paper> {
    chain.iter().filter_map(paper).collect()
}

/// Judges the remaining validity of a provider's chain that holds now. Certificates in it that have ended, or are their
/// own issuer, took no part in its validation and are skipped.
pub(super) fn provider_chain(chain: &[Paper], now: Now) -> Finding {
    let Some(leaf) = chain.first() else { return Finding::skipped("certificate", "it cannot be read", None) };
    let at = seconds(now);
    let lasting = chain.iter().filter(|one| !one.own_issuer && one.until >= at);
    let first = lasting.min_by_key(|one| one.until).unwrap_or(leaf);
    let whose = if first == leaf { String::new() } else { format!(", `{}` in its chain", first.subject) };
    let left = first.until.saturating_sub(at);
    let detail = format!("`{}`, issued by `{}`{whose}: {}", leaf.subject, leaf.issuer, lasts(first, at));
    let found = if left < SOON {
        Finding::warned("certificate", detail, "the provider has to renew it; ask whether that is under way")
    } else {
        Finding::fine("certificate", detail)
    };
    figures(found, leaf, at).with("days_left", left / 86_400)
}

/// Judges the remaining validity of the own client certificate; `None` if the chain is empty.
pub(super) fn own(chain: &[Paper], now: Now) -> Option<Finding> {
    let leaf = chain.first()?;
    let at = seconds(now);
    let first = chain.iter().min_by_key(|one| one.until).unwrap_or(leaf);
    let detail = format!("ours, `{}`, issued by `{}`: {}", leaf.subject, leaf.issuer, lasts(first, at));
    let renew =
        "have a new one issued and put it into `client_cert` and `client_key`: a running countersign takes it up";
    let found = if first.until < at {
        Finding::failed("client cert", detail, renew)
    } else if leaf.from > at {
        let from = moment_of(leaf.from);
        let help = "see that this machine's clock is right; else it can be used from then on";
        Finding::failed("client cert", format!("ours, `{}`, is valid from {from} only", leaf.subject), help)
    } else if first.until - at < SOON {
        Finding::warned("client cert", detail, renew)
    } else {
        Finding::fine("client cert", detail)
    };
    Some(figures(found, leaf, at).with("days_left", first.until.saturating_sub(at).max(0) / 86_400))
}

fn figures(found: Finding, leaf: &Paper, at: i64) -> Finding {
    let left = leaf.until.saturating_sub(at);
    found
        .with("subject", leaf.subject.as_str())
        .with("issuer", leaf.issuer.as_str())
        .with("names", leaf.names.clone())
        .with("not_after", moment_of(leaf.until))
        .with("leaf_days_left", left.max(0) / 86_400)
}

/// Explains the failure of a handshake. `presented`: the chain that a second look, which trusts no certificate, has
/// seen.
pub(super) fn refused(error: &Error, expected: &ServerName<'_>, presented: &[Paper], now: Now) -> Finding {
    let step = "tls";
    let expected = expected.to_str();
    let (leaf, last) = (presented.first(), presented.last());
    let issuer = last.map_or("an issuer that cannot be read".to_owned(), |last| format!("`{}`", last.issuer));
    let whole = match leaf {
        Some(leaf) => format!("presented is `{}`, issued by `{}`", leaf.subject, leaf.issuer),
        None => "what is presented cannot be seen".to_owned(),
    };
    let names = || {
        let carried = leaf.map(|leaf| leaf.names.join(", ")).filter(|names| !names.is_empty());
        carried.unwrap_or("none".to_owned())
    };
    let found = match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            let chain = match (presented.len(), last.is_some_and(|last| last.own_issuer)) {
                (1, true) => "; it is its own issuer",
                (1, false) => "; no intermediate certificate is presented",
                (_, _) => "",
            };
            Finding::failed(
                step,
                format!("unknown issuer {issuer}: {whole}{chain}"),
                "trusted are the CAs in `tls.ca` of the provider, else those of this system. If the issuer is your own \
                 network's, a proxy opens TLS on the way: have this host exempted, or name that proxy's CA in `tls.ca`. \
                 If it is the provider's, name its CA there",
            )
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Finding::failed(
            step,
            format!("the certificate is not for `{expected}`: it names {}; {whole}", names()),
            "correct the host in `base_url` or `token_url`; if the provider says that it answers under that other name, \
             write it as `tls.server_name`",
        ),
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            let ended = presented.iter().find(|one| one.until < seconds(now)).or(leaf);
            let ended = ended.map_or(String::new(), |one| format!(" `{}` on {}", one.subject, moment_of(one.until)));
            Finding::failed(
                step,
                format!("the certificate has ended:{ended}; this machine's clock shows {}", moment(now.wall)),
                "if the clock is right, the provider has to renew it; nothing here can help",
            )
        }
        Error::InvalidCertificate(CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. }) => {
            let begins = leaf.map_or(String::new(), |leaf| format!(" before {}", moment_of(leaf.from)));
            Finding::failed(
                step,
                format!("the certificate is not valid{begins}; this machine's clock shows {}", moment(now.wall)),
                "most likely this machine's clock is behind: set it, best by NTP",
            )
        }
        Error::InvalidCertificate(other) if format!("{other:?}").contains("CaUsedAsEndEntity") => Finding::failed(
            step,
            format!("the certificate calls itself a CA, so nothing vouches for it: {whole}"),
            "if the provider says that this is its very certificate, name it in `tls.ca`: then it is trusted for its \
             names while it lasts; else ask for a proper one",
        ),
        Error::InvalidCertificate(other) => Finding::failed(
            step,
            format!("the certificate does not hold ({}): {whole}", one_line(&format!("{other:?}"))),
            "ask the provider, or the owner of a proxy that opens TLS on the way, for a proper one",
        ),
        Error::AlertReceived(alert) => alerted(step, *alert, false),
        Error::InvalidMessage(_) => Finding::failed(
            step,
            "what answers does not speak TLS",
            "see that host and port are those of the HTTPS service; a proxy or a sign-in page may answer in its place",
        ),
        Error::PeerIncompatible(_) => Finding::failed(
            step,
            "no common TLS version or cipher suite; spoken here are 1.3, and 1.2 with ECDHE and AES-GCM or ChaCha20",
            "remove `tls.min_version` if it asks for 1.3 alone; else the other side, or a proxy on the way, is too old",
        ),
        other => Finding::failed(
            step,
            format!("the handshake failed: {}", one_line(&other.to_string())),
            "see whether a proxy on the way opens TLS; else ask the provider",
        ),
    };
    match leaf {
        Some(leaf) => figures(found, leaf, seconds(now)),
        None => found,
    }
}

/// The other side broke off, and said why.
pub(super) fn alerted(step: &'static str, alert: AlertDescription, ours: bool) -> Finding {
    let said = format!("{alert:?}");
    let (detail, help) = match alert {
        AlertDescription::CertificateRequired => (format!("it requires a client certificate ({said})"), NONE),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnknownCA
        | AlertDescription::AccessDenied => (format!("it rejects our client certificate ({said})"), OURS),
        AlertDescription::HandshakeFailure if ours => {
            (format!("it breaks off the handshake after it saw our client certificate ({said})"), OURS)
        }
        AlertDescription::UnrecognisedName => {
            (format!("it does not know this host name ({said})"), "correct the host in `base_url` or `token_url`")
        }
        AlertDescription::HandshakeFailure => (
            format!("it breaks off the handshake ({said}): most likely no cipher suite is shared"),
            "spoken here are TLS 1.3, and TLS 1.2 with ECDHE and AES-GCM or ChaCha20-Poly1305; neither RSA nor DHE key \
             exchange, and no CBC. Ask the provider for one of these; or it requires a client certificate \
             (`tls.client_cert`), or another `tls.key_exchange`",
        ),
        _ => (
            format!("it breaks off the handshake ({said})"),
            "it may require a client certificate (`tls.client_cert`), or a TLS version that it does not share with us",
        ),
    };
    Finding::failed(step, detail, help).with("alert", said)
}

/// The alert that stands in an error, however deep.
pub(super) fn alert_in(error: &(dyn std::error::Error + 'static)) -> Option<AlertDescription> {
    // Some layers keep no more than the text of what is below them.
    const KNOWN: [AlertDescription; 10] = [
        AlertDescription::CertificateRequired,
        AlertDescription::BadCertificate,
        AlertDescription::UnsupportedCertificate,
        AlertDescription::CertificateRevoked,
        AlertDescription::CertificateExpired,
        AlertDescription::CertificateUnknown,
        AlertDescription::UnknownCA,
        AlertDescription::AccessDenied,
        AlertDescription::HandshakeFailure,
        AlertDescription::UnrecognisedName,
    ];
    let mut next = Some(error);
    while let Some(error) = next {
        let text = error.to_string();
        let said = |alert: &AlertDescription| text.ends_with(&Error::AlertReceived(*alert).to_string());
        if let Some(alert) = KNOWN.into_iter().find(said) {
            return Some(alert);
        }
        next = error.source();
    }
    None
}

fn lasts(paper: &Paper, at: i64) -> String {
    let on = moment_of(paper.until);
    match paper.until.saturating_sub(at) {
        left @ 0.. => format!("{} left (until {on})", span(left.unsigned_abs())),
        gone => format!("ended {} ago ({on})", span(gone.unsigned_abs())),
    }
}

fn moment_of(seconds: i64) -> String {
    moment(u64::try_from(seconds).unwrap_or(0).saturating_mul(1000))
}

fn seconds(now: Now) -> i64 {
    i64::try_from(now.unix_seconds()).unwrap_or(i64::MAX)
}

/// Shortens a library's text to 160 characters, on one line.
fn one_line(text: &str) -> String {
    text.chars().take(160).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
