//! Keys of `[store]` that a key service has wrapped: `{ kms = { … }, ciphertext = "…" }`.
//!
//! The key itself is nowhere but in memory: it is decrypted by the service when a config is read that names it first.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;

use crate::base::secret::ExposeSecret;
use crate::key_service::UnwrappedKey;
use crate::syntax::Node;

use super::reader::Reader;
use super::schema::{MAY, MUST, SchemaSection, SchemaShape};
use super::service_key;
use super::spanned_text::Position;

/// The keys of such a table, for the schema.
pub(super) const KEYS: SchemaSection = (
    "wrapped_key",
    &[
        ("ciphertext", SchemaShape::Source, MUST, "the wrapped key, base64"),
        ("kms", SchemaShape::Settings, MAY, "a symmetric key in AWS KMS that decrypts it"),
        ("pkcs11", SchemaShape::Settings, MAY, "an RSA key in a PKCS#11 token that decrypts it by RSA-OAEP"),
    ],
);

/// Reads such a table, and has the key decrypted. Mistakes and refusals are reported at what they are about.
pub(super) fn wrapped_key(item: &Node, reader: &Reader<'_>) -> Option<Arc<UnwrappedKey>> {
    let report = reader.report;
    let help = "write `{ kms = { … }, ciphertext = \"…\" }` or `{ pkcs11 = { … }, ciphertext = \"…\" }`";
    let (kind, service) = service_key::place(item, "a key of [store]", &["ciphertext"], help, reader)?;
    let Some(entry) = item.as_table().and_then(|table| table.find("ciphertext")) else {
        let help = "the key service decrypts a key that it was given once, as docs/store.md says";
        Position::of(service).error(report, "a wrapped key of the store has no `ciphertext`", help);
        return None;
    };
    let (text, _) = reader.value(&entry.value, report)?;
    let text: String = text.expose_secret().split_ascii_whitespace().collect();
    let Some(ciphertext) = BASE64_STANDARD.decode(text).ok().filter(|bytes| !bytes.is_empty()) else {
        let help = "write what the key service made, in base64";
        Position::of(&entry.value).error(report, "this is not a wrapped key in base64", help);
        return None;
    };
    service_key::unwrap(kind, service, (&entry.value, &ciphertext), reader)
}
