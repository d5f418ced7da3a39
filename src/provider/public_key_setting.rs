//! Settings that are the provider's public keys: `bank_key = { file = "bank.pem", id = "k1" }`, or
//! `{ jwks = "bank.jwks" }`.

use std::sync::Arc;

use crate::provider::key_use::KeyUse;
use crate::provider::setting::{FileContent, ReadValue};
use crate::signing::certificate::CertificateChain;
use crate::signing::jwk;
use crate::signing::public_key::PublicKey;
use crate::signing::public_key_set::PublicKeySet;
use crate::syntax::{Diagnostics, Fields, Node};

/// Reads the value of a public key setting. All mistakes are reported.
pub(super) fn read_public_key_setting(
    name: &str,
    uses: &[KeyUse],
    node: &Node,
    read: &dyn ReadValue,
    report: &Diagnostics,
) -> Option<Arc<PublicKeySet>> {
    if node.as_table().is_none() {
        let help = format!("write `{name} = {{ file = \"bank.pem\" }}` or `{{ jwks = \"bank.jwks\" }}`");
        node.error(report, format!("`{name}` is a public key, which is read from a file"), "", Some(help));
        return None;
    }
    let fields = Fields::new(node, format!("`{name}`"), report);
    let (pem, set) = (fields.take("file"), fields.take("jwks"));
    let (id_node, id) = (fields.take("id"), fields.opt::<String>("id"));
    if pem.is_none() && set.is_none() {
        fields.missing("file", "\"bank.pem\"");
    }
    fields.finish();
    let (at, keys) = match (pem, set) {
        (Some(pem), None) => (pem, PublicKeySet::one(public_key(pem, read, report)?, id)),
        (None, Some(set)) => {
            if let Some(node) = id_node {
                node.error(report, "the keys of a set have their own names", "take this out", None);
            }
            let bytes = read.file(set, FileContent::Public, report)?;
            let keys = jwk::public_keys(&bytes);
            (set, keys.map_err(|_| set.error(report, "this is no set of JSON Web Keys (RFC 7517)", "", None)).ok()?)
        }
        (Some(_), Some(node)) => {
            node.error(report, "a key comes from one place", "", Some("keep `file` or `jwks`".to_owned()));
            return None;
        }
        (None, None) => return None,
    };
    for key_use in uses {
        let is_there = match key_use {
            KeyUse::Encrypt(management) => keys.recipient(*management).is_some(),
            KeyUse::Verify(algorithm) => keys.verifies(*algorithm),
            KeyUse::Decrypt(_) | KeyUse::Sign(_) => true,
        };
        if !is_there {
            let title = format!("{} needs {}, and here is none", key_use.algorithm(), key_use.key());
            let help = "the profile says for which algorithm; ask the bank for its key of that kind".to_owned();
            at.error(report, title, "", Some(help));
            return None;
        }
    }
    Some(Arc::new(keys))
}

/// Reads the public key or certificate of a PEM file.
fn public_key(node: &Node, read: &dyn ReadValue, report: &Diagnostics) -> Option<PublicKey> {
    let bytes = read.file(node, FileContent::Public, report)?;
    let key = match PublicKey::from_pem(&bytes) {
        Ok(key) => key,
        Err(error) => {
            let help = "name the bank's certificate, or its public key (`BEGIN PUBLIC KEY`), as PEM".to_owned();
            node.error(report, format!("`{}`: {error}", node.as_str().unwrap_or_default()), "", Some(help));
            return None;
        }
    };
    if CertificateChain::from_pem(&bytes).is_ok_and(|chain| chain.has_expired(read.unix_seconds())) {
        let title = format!("the certificate in `{}` has expired", node.as_str().unwrap_or_default());
        node.error(report, title, "", Some("ask the bank for its new one".to_owned()));
        return None;
    }
    Some(key)
}
