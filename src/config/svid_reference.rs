//! `{ source = "NAME", name = "spiffe://…" }`: an identity of a SPIFFE Workload API, in place of files of a certificate, its
//! key and CAs.

use crate::base::secret::sha256;
use crate::secret_source::{SVID_BUNDLE, SVID_CERTIFICATES, SVID_KEY, SecretDocument};
use crate::syntax::{Diagnostics, Fields, Node};
use crate::tls::Identity;

use super::reader::Reader;
use super::schema::{DURATION, MAY, MUST, SchemaSection, SchemaShape};
use super::secret_source::SourceReference;
use super::spanned_text::{Position, SpannedText};

/// The keys of a table that names CAs, for the schema.
pub(super) const KEYS: SchemaSection = (
    "svid",
    &[
        ("name", SchemaShape::Text, MAY, "the SPIFFE ID of the identity; default: the first that is given"),
        ("source", SchemaShape::Text, MUST, "a secret_source with kind spiffe"),
        ("ttl", DURATION, MAY, "it is looked at again after this long"),
    ],
);

/// An identity of a Workload API, as it is written.
pub(super) struct SvidReference {
    reference: SourceReference,
    place: Position,
}

impl SvidReference {
    /// Reads the keys of a table with `source`; mistakes are reported.
    pub(super) fn read(node: &Node, source: &SpannedText, fields: &Fields<'_>, reader: &Reader<'_>) -> Option<Self> {
        let report = fields.report();
        let read = SourceReference::read(source, fields, reader);
        if read.as_ref().is_some_and(|reference| !reference.is_svid()) {
            let help = "name a [secret_source] with `kind = \"spiffe\"`, or let a program write this one into a file";
            source.place.error(report, format!("`{}` gives no certificates with their keys", source.text), help);
            return None;
        }
        for key in ["field", "version"] {
            if let Some(entry) = fields.take_entry(key) {
                let place = Position::new(&entry.value.source, entry.key_span.clone());
                place.error(report, format!("`{key}` is of no use here"), "remove it: the whole identity is taken");
            }
        }
        Some(Self { reference: read?, place: Position::of(node) })
    }

    /// Reads the certificate with its key, and returns both with a digest of them.
    pub(super) fn identity(&self, reader: &Reader<'_>) -> Option<(Identity, [u8; 32])> {
        let report = reader.report;
        let (document, shown) = self.reference.document(reader, report)?;
        let chain = self.part(&document, SVID_CERTIFICATES, &shown, report)?;
        let key = self.part(&document, SVID_KEY, &shown, report)?;
        match Identity::from_pem(chain, key) {
            Ok(identity) => Some((identity, sha256(&[sha256(chain), sha256(key)].concat()))),
            Err(error) => {
                self.place.error(report, format!("{shown}: {error}"), "see the log of the agent");
                None
            }
        }
    }

    /// Reads the CAs of its trust domain, as PEM, with a name for messages.
    pub(super) fn bundle(&self, reader: &Reader<'_>) -> Option<(SpannedText, Vec<u8>)> {
        let (document, shown) = self.reference.document(reader, reader.report)?;
        let pem = self.part(&document, SVID_BUNDLE, &shown, reader.report)?.to_vec();
        Some((SpannedText { text: shown.replace('`', ""), place: self.place.clone() }, pem))
    }

    fn part<'a>(
        &self,
        document: &'a SecretDocument,
        field: &str,
        shown: &str,
        report: &Diagnostics,
    ) -> Option<&'a [u8]> {
        match document.value(Some(field)) {
            Ok(part) => Some(part),
            Err(problem) => {
                self.place.error(report, format!("{shown}: {}", problem.what), "see the log of the agent");
                None
            }
        }
    }
}
