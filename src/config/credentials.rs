//! Proofs of a client's identity besides its keys: a certificate's name, a local user, a signed token.

use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;

use crate::base::origin::BaseUrl;
use crate::base::secret::sha256;
use crate::route::ClientId;
use crate::syntax::{Diagnostics, Fields, Node};
use crate::tls::{self, CertName, ClientTls};

use super::client::{Clients, KnownClients};
use super::listener::{Bind, ReadListener};
use super::reader::{Reader, pem_help};
use super::schema::{MAY, MUST, SchemaSection, SchemaShape};
use super::spanned_text::{Position, SpannedText};

/// A token with these claims is this client's.
#[derive(Debug)]
pub struct JwtRule {
    /// Issuer whose signature is accepted; its name is the claim `iss`.
    pub issuer: Arc<Issuer>,
    /// One of the values of `aud`.
    pub audience: String,
    /// Required value of the claim `sub`.
    pub subject: String,
    /// Client that such a token identifies.
    pub client: ClientId,
}

/// An issuer of signed client tokens.
#[derive(Debug)]
pub struct Issuer {
    /// The claim `iss`, byte for byte.
    pub name: String,
    /// Location of the issuer's public keys.
    pub keys: IssuerKeys,
    /// The file of a token that is shown to the issuer, and to `jwks_url`, when the keys are fetched.
    pub token_file: Option<PathBuf>,
    /// TLS settings for fetching them.
    pub tls: Arc<rustls::ClientConfig>,
    /// Digest of all of the above: equal ones have equal keys.
    pub id: [u8; 32],
}

/// The location of an issuer's public keys.
#[derive(Debug)]
pub enum IssuerKeys {
    /// A JSON Web Key Set (RFC 7517) at this URL.
    At(BaseUrl),
    /// The URL in its discovery document (OpenID Connect Discovery 1.0 section 4); this is the issuer.
    Discovered(BaseUrl),
}

pub(super) const JWT_KEYS: SchemaSection = (
    "jwt",
    &[
        ("audience", SchemaShape::Text, MUST, "what its `aud` must hold"),
        ("ca", SchemaShape::Text, MAY, "path of the only CAs to trust for the issuer's keys, PEM"),
        ("issuer", SchemaShape::Text, MUST, "what its `iss` must be"),
        ("jwks_url", SchemaShape::Url, MAY, "where the issuer's keys are; default: by discovery"),
        ("subject", SchemaShape::Text, MUST, "what its `sub` must be"),
        ("token_file", SchemaShape::Text, MAY, "path of a token to be shown where the keys are fetched"),
    ],
);

/// The most users that one client may be.
const MOST_UIDS: usize = 1024;

/// Positions at which a client relies on a proof of identity that only some listeners can receive.
#[derive(Default)]
pub(super) struct DeferredChecks {
    /// On a listener with `client_ca`.
    certificates: Vec<Position>,
    /// On a listener at a Unix socket.
    uids: Vec<Position>,
}

/// Reads `certificate`, `uids` and `jwt` of one client. Says whether any of them is written.
pub(super) fn read_credentials(
    fields: &Fields<'_>,
    id: ClientId,
    clients: &mut Clients,
    deferred: &mut DeferredChecks,
    reader: &Reader<'_>,
) -> bool {
    let report = reader.report;
    let written = |key| fields.node().as_table().is_some_and(|table| table.find(key).is_some());
    if let Some(word) = fields.opt::<SpannedText>("certificate")
        && let Some(name) = cert_name(&word, report)
    {
        if clients.by_certificate.insert(name, id).is_some() {
            word.place.error(report, "another client has this certificate", "one name is one client");
        }
        deferred.certificates.push(word.place);
    }
    let uids = fields.opt::<Vec<u64>>("uids");
    if let (Some(uids), Some(node)) = (uids, fields.take("uids")) {
        read_uids(&uids, node, id, clients, report);
        deferred.uids.push(Position::of(node));
        if written("networks") {
            let help = "who comes over a Unix socket has no address, so `networks` shuts them out: use two clients";
            Position::of(node).warning(report, "`uids` cannot work together with `networks`", help);
        }
    }
    if let Some(node) = fields.take("jwt") {
        read_jwt(node, id, clients, reader);
    }
    written("certificate") || written("uids") || written("jwt")
}

/// Reports evidence that no listener could ever receive.
pub(super) fn judge(known: &KnownClients, listeners: &[ReadListener], report: &Diagnostics) {
    if !listeners.iter().any(|listener| listener.asks_certificates) {
        for position in &known.deferred.certificates {
            let help = "add `client_ca = \"…\"` to the `tls` of a [[listener]]";
            position.error(report, "no listener asks clients for certificates", help);
        }
    }
    if !listeners.iter().any(|listener| matches!(listener.bind, Some(Bind::Unix(_)))) {
        for position in &known.deferred.uids {
            let help = "add a [[listener]] with `bind = \"unix:/run/countersign.sock\"`";
            position.error(report, "no listener is a Unix socket, so nobody has a uid", help);
        }
    }
}

fn cert_name(word: &SpannedText, report: &Diagnostics) -> Option<CertName> {
    let text = word.text.as_str();
    if let Some(name) = text.strip_prefix("CN=") {
        if name.is_empty() || name != name.trim() {
            word.place.error(report, "this is no common name", "write it as in `\"CN=erp\"`");
            return None;
        }
        return Some(CertName::CommonName(name.to_owned()));
    }
    if text.contains("://") {
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            word.place.error(report, "this is no URI", "write it in ASCII, as in `\"spiffe://corp/erp\"`");
            return None;
        }
        return Some(CertName::Uri(text.to_owned()));
    }
    if is_host_name(text) {
        return Some(CertName::Dns(text.to_ascii_lowercase()));
    }
    let help = "write a URI (`\"spiffe://corp/erp\"`), a DNS name (`\"erp.corp\"`) or a common name (`\"CN=erp\"`)";
    word.place.error(report, format!("`{text}` is no name of a certificate"), help);
    None
}

/// Returns whether this is a plain host name: no wildcard, no port, no dot at its end.
pub(super) fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    text.len() <= 253 && text.split('.').all(label)
}

fn read_uids(uids: &[u64], node: &Node, id: ClientId, clients: &mut Clients, report: &Diagnostics) {
    let position = Position::of(node);
    if uids.is_empty() || uids.len() > MOST_UIDS {
        position.error(
            report,
            "that many users cannot be one client",
            format!("name 1 to {MOST_UIDS}, or leave it out"),
        );
    }
    for uid in uids.iter().take(MOST_UIDS) {
        // The kernel uses the last value, `u32::MAX`, for an unknown user.
        match u32::try_from(*uid) {
            Ok(u32::MAX) | Err(_) => position.error(report, format!("{uid} is no uid"), "`id -u NAME` prints one"),
            Ok(uid) => {
                if clients.by_uid.insert(uid, id).is_some() {
                    position.error(report, format!("uid {uid} is listed already"), "one user is one client");
                }
            }
        }
    }
}

fn read_jwt(node: &Node, id: ClientId, clients: &mut Clients, reader: &Reader<'_>) {
    let report = reader.report;
    let fields = Fields::new(node, "jwt of [client]", report);
    let issuer = fields.req::<SpannedText>("issuer", "\"https://kubernetes.default.svc\"");
    let audience = fields.req::<SpannedText>("audience", "\"countersign\"");
    let subject = fields.req::<SpannedText>("subject", "\"system:serviceaccount:pay:erp\"");
    let jwks = fields.opt::<SpannedText>("jwks_url");
    let ca = fields.opt::<SpannedText>("ca");
    let token_file = fields.opt::<SpannedText>("token_file").map(|word| reader.resolve(&word.text));
    fields.finish();
    for word in [&audience, &subject].into_iter().flatten().filter(|word| word.text.is_empty()) {
        word.place.error(report, "this is empty", "write what the tokens say, letter by letter");
    }
    let (Some(issuer), Some(audience), Some(subject)) = (issuer, audience, subject) else { return };
    let Some(issuer) = read_issuer(&issuer, jwks.as_ref(), ca.as_ref(), token_file, reader) else { return };
    let issuer = match clients.issuers.iter().find(|known| known.id == issuer.id) {
        Some(known) => known.clone(),
        None => {
            clients.issuers.push(issuer.clone());
            issuer
        }
    };
    let rule = JwtRule { issuer, audience: audience.text, subject: subject.text, client: id };
    let same = |other: &&JwtRule| {
        (&other.issuer.name, &other.audience, &other.subject) == (&rule.issuer.name, &rule.audience, &rule.subject)
    };
    if clients.jwt.iter().find(same).is_some() {
        Position::of(node).error(report, "another client has this `jwt`", "one subject is one client");
    }
    clients.jwt.push(rule);
}

fn read_issuer(
    issuer: &SpannedText,
    jwks: Option<&SpannedText>,
    ca: Option<&SpannedText>,
    token_file: Option<PathBuf>,
    reader: &Reader<'_>,
) -> Option<Arc<Issuer>> {
    let report = reader.report;
    let url = |word: &SpannedText, what: &str| match BaseUrl::parse(&word.text) {
        Ok(url) => Some(url),
        Err(error) => {
            word.place.error(report, format!("`{}` is no {what}", word.text), error);
            None
        }
    };
    let keys = match jwks {
        Some(word) => IssuerKeys::At(url(word, "URL of keys")?),
        None => {
            IssuerKeys::Discovered(url(issuer, "issuer with a discovery document; name its `jwks_url`, or correct it")?)
        }
    };
    let pem = match ca {
        Some(word) => Some(reader.ca_file(word)?),
        None => None,
    };
    let mut inputs = Vec::new();
    let jwks = jwks.map_or(b"".as_slice(), |word| word.text.as_bytes());
    let shown = token_file.as_ref().map_or(b"".as_slice(), |path| path.as_os_str().as_bytes());
    for part in [issuer.text.as_bytes(), jwks, pem.as_deref().unwrap_or(b""), shown] {
        inputs.extend(sha256(part));
    }
    let id = sha256(&inputs);
    let transport = sha256(&[b"issuer".as_slice(), pem.as_deref().unwrap_or(b"")].concat());
    let made = reader.client_tls(transport, || tls::client(ClientTls { ca: pem.as_deref(), ..ClientTls::default() }));
    match (made, ca) {
        (Ok(tls), _) => Some(Arc::new(Issuer { name: issuer.text.clone(), keys, token_file, tls, id })),
        (Err(error), Some(word)) => {
            let help = pem_help(
                pem.as_deref().unwrap_or_default(),
                &word.text,
                "x509",
                "it must hold CA certificates, as PEM",
            );
            word.place.error(report, format!("`{}`: {error}", word.text), help);
            None
        }
        (Err(error), None) => {
            issuer.place.error(report, error.to_string(), "the system's CAs cannot be used; name one with `ca`");
            None
        }
    }
}

/// Reads the path behind `unix:`.
pub(super) fn unix_path(word: &SpannedText, written: &str, reader: &Reader<'_>) -> Option<PathBuf> {
    /// `sun_path` with its final zero byte (unix(7)).
    const LONGEST: usize = 107;
    let path = reader.resolve(written);
    let (title, help) = if written.is_empty() || written.ends_with('/') {
        ("this names no file", "write `unix:/run/countersign.sock`".to_owned())
    } else if written.starts_with('@') || written.contains('\0') {
        ("abstract sockets have no permissions", "write the path of a file: `unix:/run/countersign.sock`".to_owned())
    } else if path.as_os_str().len() > LONGEST {
        ("the path is too long for a socket", format!("{LONGEST} bytes are the most"))
    } else if let Err(error) = reader.appendable(&path)
        && let ErrorKind::NotFound | ErrorKind::NotADirectory = error.kind()
    {
        ("the folder of this socket does not exist", "make it, writable for the user who runs countersign".to_owned())
    } else {
        return Some(path);
    };
    word.place.error(reader.report, title, help);
    None
}
