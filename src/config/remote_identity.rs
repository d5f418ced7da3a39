//! `client_key = { pkcs11 = … }` of a provider: a client certificate whose key stays in a key service.

use crate::base::secret::sha256;
use crate::signing::certificate::CertificateChain;
use crate::syntax::{Fields, Node};
use crate::tls::{self, ClientIdentity, SIGNER_ALGORITHMS, SignerKey};

use super::reader::{Reader, pem_help};
use super::service_key;
use super::spanned_text::{Position, SpannedText};

/// Reads `client_cert`, and reaches the key that the table at `key` names. Returns both with a digest of them. Mistakes
/// are reported, a key that does not belong to the certificate among them.
pub(super) fn remote_identity(
    fields: &Fields<'_>,
    key: &Node,
    only_tls13: bool,
    reader: &Reader<'_>,
) -> Option<(ClientIdentity, [u8; 32])> {
    let report = reader.report;
    let Some(word) = fields.opt::<SpannedText>("client_cert") else {
        if fields.node().as_table().is_some_and(|table| table.find("client_cert").is_none()) {
            fields.missing("client_cert", "\"certs/client.crt\"");
        }
        return None;
    };
    let pem = reader.public_file(&word);
    let (kind, node) = service_key::place_of_key(key, "client_key", reader)?;
    let pem = pem?;
    let (chain, certified) = match (tls::certificates(&pem), CertificateChain::from_pem(&pem)) {
        (Ok(chain), Ok(read)) => (chain, read.public_key()),
        (Err(error), _) => {
            let help = pem_help(&pem, &word.text, "x509", "it must hold the certificate and its chain, as PEM");
            word.place.error(report, format!("`{}`: {error}", word.text), help);
            return None;
        }
        (Ok(_), Err(error)) => {
            word.place.error(report, format!("`{}`: {error}", word.text), "ask its issuer for it, as PEM");
            return None;
        }
    };
    let key = service_key::read_any(kind, node, &SIGNER_ALGORITHMS, reader)?;
    if certified.as_ref() != Ok(&key.public) {
        let title = format!("the key of the key service does not belong to the certificate in `{}`", word.text);
        let help = "name the key that the certificate was made for; its own certificate stands first in the file";
        Position::of(node).error(report, title, help);
        return None;
    }
    let digest = sha256(&[sha256(&pem), key.digest].concat());
    let key = SignerKey::new(key.signer, key.algorithms);
    if !key.signs_tls13() {
        let title = "this key signs by PKCS#1 v1.5 alone, and TLS 1.3 needs RSASSA-PSS";
        let help = "allow the key RSASSA-PSS with SHA-256, or ask for one on P-256";
        match only_tls13 {
            true => {
                Position::of(node).error(report, title, help);
                return None;
            }
            false => Position::of(node).warning(report, format!("{title}: TLS 1.2 is spoken with this provider"), help),
        }
    }
    Some((ClientIdentity::Remote(chain, key), digest))
}
