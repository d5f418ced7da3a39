//! A certificate with its private key: from files, two of PEM or one of PKCS#12, or from a SPIFFE Workload API.

use crate::base::secret::{ExposeSecret, SecretString, sha256};
use crate::signing::pkcs;
use crate::syntax::{Fields, Kind, Node};
use crate::tls::{self, Identity, TlsConfigError};

use super::reader::{Reader, pem_help};
use super::schema::{DURATION, MAY, SchemaSection, SchemaShape};
use super::service_key;
use super::spanned_text::{Position, SpannedText};
use super::svid_reference::SvidReference;

/// The keys of a table that names the file of a key, for the schema.
pub(super) const KEYS: SchemaSection = (
    "key_file",
    &[
        ("file", SchemaShape::Text, MAY, "path of the private key, PEM"),
        ("name", SchemaShape::Text, MAY, "of source: the SPIFFE ID; default: the first that is given"),
        ("password", SchemaShape::Source, MAY, "opens the file"),
        ("pkcs12", SchemaShape::Text, MAY, "or the path of a PKCS#12 file with the key and its certificates"),
        ("source", SchemaShape::Text, MAY, "or a secret_source with kind spiffe, which gives the certificate too"),
        ("ttl", DURATION, MAY, "of source: it is looked at again after this long"),
    ],
);

/// The same where the key may stay in a key service.
pub(super) const CLIENT_KEYS: SchemaSection = (
    "client_key",
    &[
        ("file", SchemaShape::Text, MAY, "path of the private key, PEM"),
        ("kms", SchemaShape::Settings, MAY, "a key that stays in AWS KMS"),
        ("name", SchemaShape::Text, MAY, "of source: the SPIFFE ID; default: the first that is given"),
        ("password", SchemaShape::Source, MAY, "opens the file"),
        ("pkcs11", SchemaShape::Settings, MAY, "a key that stays in a PKCS#11 token"),
        ("pkcs12", SchemaShape::Text, MAY, "or the path of a PKCS#12 file with the key and its certificates"),
        ("source", SchemaShape::Text, MAY, "or a secret_source with kind spiffe, which gives the certificate too"),
        ("ttl", DURATION, MAY, "of source: it is looked at again after this long"),
    ],
);

/// The names that a table gives to a certificate and its key.
pub(super) struct IdentityKeys {
    cert: &'static str,
    key: &'static str,
    /// Examples of both, for messages.
    examples: [&'static str; 2],
    is_required: bool,
}

/// The certificate of what listens.
pub(super) const SERVER: IdentityKeys = IdentityKeys {
    cert: "cert",
    key: "key",
    examples: ["\"certs/server.crt\"", "\"certs/server.key\""],
    is_required: true,
};

/// A certificate that is shown where a server asks for one.
pub(super) const CLIENT: IdentityKeys = IdentityKeys {
    cert: "client_cert",
    key: "client_key",
    examples: ["\"certs/client.crt\"", "\"certs/client.key\""],
    is_required: false,
};

/// The place of a private key.
enum TlsKeyPlace {
    File(KeyFilePlace),
    /// It comes with its certificate.
    Svid(SvidReference),
}

/// The file of a private key.
struct KeyFilePlace {
    path: SpannedText,
    is_container: bool,
    password: Option<SecretString>,
    /// Whether the password stands beside the path.
    is_beside: bool,
}

/// Reads a certificate with its key, and returns both with a digest of their files. `password` is that of a key whose
/// table does not name one.
pub(super) fn file_identity(
    fields: &Fields<'_>,
    keys: &IdentityKeys,
    password: Option<&SecretString>,
    reader: &Reader<'_>,
) -> Option<(Identity, [u8; 32])> {
    let (cert_node, key_node) = (fields.take(keys.cert), fields.take(keys.key));
    let cert = fields.opt::<SpannedText>(keys.cert);
    let has_certificate = ["pkcs12", "source"].iter().any(|word| key_node.is_some_and(|node| fields_has(node, word)));
    let is_wanted = keys.is_required || cert_node.is_some() || key_node.is_some();
    if is_wanted && cert_node.is_none() && !has_certificate {
        fields.missing(keys.cert, keys.examples[0]);
    }
    if is_wanted && key_node.is_none() {
        fields.missing(keys.key, keys.examples[1]);
    }
    let key = match key_place(key_node?, keys, password, reader)? {
        TlsKeyPlace::File(key) => key,
        TlsKeyPlace::Svid(svid) => {
            if let Some(node) = cert_node {
                let help = format!("remove `{}`: the source gives the certificate with the key", keys.cert);
                Position::of(node).error(fields.report(), format!("`{}` is of no use here", keys.cert), help);
                return None;
            }
            return svid.identity(reader);
        }
    };
    match (cert, key.is_container) {
        (Some(cert), false) => from_pem(&cert, &key, reader),
        (cert, true) if cert.is_some() == cert_node.is_some() => from_container(cert.as_ref(), &key, reader),
        (Some(_) | None, _) => None,
    }
}

fn key_place(
    node: &Node,
    keys: &IdentityKeys,
    password: Option<&SecretString>,
    reader: &Reader<'_>,
) -> Option<TlsKeyPlace> {
    let report = reader.report;
    match &node.kind {
        Kind::String(text) => {
            let path = SpannedText { text: text.clone(), place: Position::of(node) };
            let password = password.cloned();
            Some(TlsKeyPlace::File(KeyFilePlace { path, is_container: false, password, is_beside: false }))
        }
        Kind::Table(_) if fields_has(node, "source") => {
            let fields = Fields::new(node, format!("`{}`", keys.key), report);
            let source = fields.opt::<SpannedText>("source");
            let svid = source.and_then(|source| SvidReference::read(node, &source, &fields, reader));
            for other in ["file", "password", "pkcs12"] {
                if let Some(entry) = fields.take_entry(other) {
                    let place = Position::new(&entry.value.source, entry.key_span.clone());
                    place.error(report, "a key comes from one place", format!("keep one of `{other}` and `source`"));
                }
            }
            fields.finish();
            svid.map(TlsKeyPlace::Svid)
        }
        Kind::Table(_) => {
            let fields = Fields::new(node, format!("`{}`", keys.key), report);
            let (file, container) = (fields.opt::<SpannedText>("file"), fields.opt::<SpannedText>("pkcs12"));
            let own = fields.take("password");
            let literal = own.is_some_and(|node| node.as_str().is_some());
            let own_value = own.map(|node| reader.value(node, report));
            fields.finish();
            if let (true, Some(node)) = (literal, own) {
                let help = "write `password = { env = \"NAME\" }` or `{ file = \"path\" }`";
                Position::of(node).redacted().warning(report, "a password stands in the config file", help);
            }
            let own = match own_value {
                Some(read) => Some(read?.0),
                None => None,
            };
            let (path, is_container) = match (file, container) {
                (Some(path), None) => (path, false),
                (None, Some(path)) => (path, true),
                (Some(_), Some(_)) => {
                    let help = "keep one of `file` and `pkcs12`";
                    Position::of(node).redacted().error(report, "a key comes from one place", help);
                    return None;
                }
                (None, None) => {
                    if !["file", "pkcs12"].iter().any(|key| fields_has(node, key)) {
                        let title = format!("`{}` does not say where the key is", keys.key);
                        let help = format!(
                            "write `{key} = \"path\"` or `{key} = {{ pkcs12 = \"path\", password = … }}`",
                            key = keys.key
                        );
                        Position::of(node).redacted().error(report, title, help);
                    }
                    return None;
                }
            };
            let is_beside = own.is_some();
            let password = own.or_else(|| password.cloned());
            Some(TlsKeyPlace::File(KeyFilePlace { path, is_container, password, is_beside }))
        }
        Kind::Array(_) | Kind::Boolean(_) | Kind::Float(_) | Kind::Integer(_) => {
            let help = format!("write `{} = {}`", keys.key, keys.examples[1]);
            Position::of(node).redacted().error(report, format!("expected a path, found {}", node.kind_name()), help);
            None
        }
    }
}

fn fields_has(node: &Node, key: &str) -> bool {
    node.as_table().is_some_and(|table| table.find(key).is_some())
}

/// A certificate chain with its key, from two files.
fn from_pem(cert: &SpannedText, key: &KeyFilePlace, reader: &Reader<'_>) -> Option<(Identity, [u8; 32])> {
    let KeyFilePlace { path, password, is_beside, .. } = key;
    let (chain, private) = (reader.public_file(cert), reader.private_file(path));
    let chain = chain?;
    judge_chain(cert, &chain, reader)?;
    let private = private?;
    let encrypted = tls::is_encrypted(&private);
    let word = if *is_beside { "password" } else { "client_key_password" };
    if password.is_some() && !encrypted {
        let title = format!("`{}` is not encrypted, so its password is of no use", path.text);
        path.place.warning(reader.report, title, format!("leave `{word}` out, or put the encrypted key there"));
    }
    let secret = password.as_ref().map(|password| password.expose_secret().as_bytes());
    match Identity::from_encrypted_pem(&chain, &private, secret) {
        Ok(identity) => Some((identity, sha256(&[sha256(&chain), sha256(&private)].concat()))),
        Err(error @ TlsConfigError::Certificate(_)) => {
            let help = "it must hold the certificate and its chain, as PEM, whole and unchanged";
            cert.place.error(reader.report, format!("`{}`: {error}", cert.text), help);
            None
        }
        Err(error) => {
            let title = format!("`{}`: {error}", path.text);
            let help = match (encrypted, password) {
                (true, None) => {
                    "name its password: `{ file = \"path\", password = { env = \"NAME\" } }` in place of the path"
                        .to_owned()
                }
                (true, Some(_)) => format!("see the value that `{word}` names"),
                (false, _) => "it must hold the key that the certificate was made for, as PEM".to_owned(),
            };
            path.place.error(reader.report, title, pem_help(&private, &path.text, "pkey", &help));
            None
        }
    }
}

/// A key from a PKCS#12 file, with the certificates that stand in it unless others are named.
fn from_container(cert: Option<&SpannedText>, key: &KeyFilePlace, reader: &Reader<'_>) -> Option<(Identity, [u8; 32])> {
    let KeyFilePlace { path, password, .. } = key;
    let report = reader.report;
    let bytes = reader.private_file(path)?;
    let Some(password) = password else {
        let help = "add `password = { env = \"NAME\" }`";
        path.place.error(report, format!("`{}` is a PKCS#12 file, which a password opens", path.text), help);
        return None;
    };
    let (private, inside) = match pkcs::pkcs12_parts(&bytes, password.expose_secret()) {
        Ok(parts) => parts,
        Err(error) => {
            let help = "see the value that `password` names, and whether the file is PKCS#12";
            path.place.error(report, format!("`{}`: {error}", path.text), help);
            return None;
        }
    };
    let mut inputs = sha256(&bytes).to_vec();
    let chain = match cert {
        Some(cert) => {
            let pem = reader.public_file(cert)?;
            inputs.extend(sha256(&pem));
            judge_chain(cert, &pem, reader)?
        }
        None => {
            reader.container_certificates(path, &inside);
            inside.into_iter().map(Into::into).collect()
        }
    };
    if chain.is_empty() {
        let help = "name the certificate and its chain beside it, as PEM";
        path.place.error(report, format!("`{}` holds no certificate of its key", path.text), help);
        return None;
    }
    match Identity::from_pkcs8(chain, &private) {
        Ok(identity) => Some((identity, sha256(&inputs))),
        Err(error) => {
            let help = "it must hold the key that the certificate was made for";
            path.place.error(report, format!("`{}`: {error}", path.text), help);
            None
        }
    }
}

/// Reads a chain of certificates; reports that it is none.
fn judge_chain(
    cert: &SpannedText,
    pem: &[u8],
    reader: &Reader<'_>,
) -> Option<Vec<rustls::pki_types::CertificateDer<'static>>> {
    tls::certificates(pem)
        .map_err(|error| {
            let title = format!("`{}`: {error}", cert.text);
            let help = pem_help(pem, &cert.text, "x509", "it must hold the certificate and its chain, as PEM");
            cert.place.error(reader.report, title, help);
        })
        .ok()
}

/// Returns whether a key is named as one of a key service.
pub(super) fn is_remote(key: &Node) -> bool {
    key.as_table().is_some() && service_key::is_named(key)
}
