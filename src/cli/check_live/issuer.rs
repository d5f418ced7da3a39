//! The trial of an issuer that signs clients' tokens: its keys must be available.

use std::rc::Rc;
use std::sync::Arc;

use super::connect_trial::plain;
use super::finding::Finding;
use super::provider::PlaceVisit;
use super::{Notes, TrialOptions};
use crate::base::counted::counted;
use crate::config::{Issuer, IssuerKeys};
use crate::control::{issuer_place, try_keys};

/// Connects to the issuer, fetches its keys, and notes the findings.
pub(super) async fn try_issuer(issuer: Arc<Issuer>, options: Rc<TrialOptions>, notes: Notes) {
    let (url, what, key) = match &issuer.keys {
        IssuerKeys::At(url) => (url, "keys", "jwks_url"),
        IssuerKeys::Discovered(url) => (url, "discovery document", "issuer"),
    };
    notes.at(format!("{} ({what})", url.authority()));
    let to = issuer_place(&issuer, url);
    let visit = PlaceVisit { to: &to, own: false, key, options: &options, notes: &notes };
    if visit.connect().await.is_none() {
        return;
    }
    notes.add(match try_keys(&issuer, options.clock.now()).await {
        Ok(keys) if keys.is_empty() => {
            let help = "none of them is of a kind that is known here; see that `jwks_url` is the issuer's";
            Finding::failed("keys", "it publishes no key that can be used", help)
        }
        Ok(keys) => Finding::fine("keys", counted(keys.len(), "key")).with("keys", keys.len()),
        Err(why) => {
            let help = "correct `issuer` or `jwks_url` of [client.NAME.jwt]; until then its clients are refused";
            Finding::failed("keys", plain(&why.to_string()), help)
        }
    });
}
