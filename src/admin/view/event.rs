//! `GET /api/v1/events`: what just happened.

use serde::Serialize;

use crate::base::time::rfc3339;
use crate::control::{ConsentSubject, ControlEvent, EventKind, Generation, ReloadOutcome};

/// One event. Its members depend on its kind.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct EventView {
    /// Kind of the event, as a word; also its name in the stream.
    pub kind: &'static str,
    pub at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// The token's key, as `GET /api/v1/tokens` shows it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub generation: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// The class of a failure; the outcome of a reload; the slot of credentials that was promoted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The client that a consent is given to, or its group.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Initiator of a reload; absent from other events.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The title of a key service.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,
    /// In words, for a person.
    pub text: String,
}

impl EventView {
    pub(crate) fn of(event: &ControlEvent) -> Self {
        let mut view = Self { at: rfc3339(event.at), ..Self::default() };
        match &event.what {
            EventKind::ConsentGiven(consenter) => view.consent("consent-given", consenter, "user consented"),
            EventKind::ConsentRevoked(consenter) => view.consent("consent-revoked", consenter, "consent revoked"),
            EventKind::ConsentStarted(consenter) => view.consent("consent-started", consenter, "a consent was started"),
            EventKind::CredentialsPromoted { provider, slot } => {
                view.kind = "credentials-promoted";
                view.outcome = Some(slot.as_str().to_owned());
                view.text = format!(
                    "{provider} refused the credentials in use; calls use the {} ones from now on",
                    slot.as_str()
                );
                view.provider = Some(provider.to_string());
            }
            EventKind::KeyServiceBack { service } => {
                view.kind = "key-service-back";
                view.text = format!("the key service {service} answers again");
                view.service = Some(service.to_string());
            }
            EventKind::KeyServiceGone { service, inside } => {
                view.kind = "key-service-gone";
                view.text = format!("the key service {service} does not answer: {inside}");
                view.service = Some(service.to_string());
            }
            EventKind::ProviderClosed { provider, rest } => {
                view.kind = "provider-closed";
                view.text = format!("{provider} is outside its working hours; asked again in {} s", rest.as_secs());
                view.provider = Some(provider.to_string());
            }
            EventKind::ProviderOpen { provider } => {
                view.kind = "provider-open";
                view.text = format!("{provider} is open again");
                view.provider = Some(provider.to_string());
            }
            EventKind::Reload(reloaded) => {
                view.kind = "reload";
                view.by = Some(reloaded.by.to_string());
                let (outcome, text) = match &reloaded.outcome {
                    ReloadOutcome::Applied(changes) => {
                        ("applied", format!("the config was read anew; changes: {}", changes.len()))
                    }
                    ReloadOutcome::Refused(why) => ("refused", format!("the config was not taken: {why}")),
                };
                (view.outcome, view.text) = (Some(outcome.to_owned()), text);
            }
            EventKind::Replay(token) => {
                view.token("replay", token);
                view.text = format!(
                    "{} refused generation {} of a token; the request is sent again",
                    token.provider, token.number
                );
            }
            EventKind::TokenFailed { provider, key, class, inside, rest } => {
                view.kind = "token-failed";
                view.text =
                    format!("token fetch from {provider} failed: {inside}; next attempt in {} s", rest.as_secs());
                view.outcome = Some(class.as_str().to_owned());
                (view.provider, view.key) = (Some(provider.to_string()), Some(key.to_string()));
            }
            EventKind::TokenFetched { token, fingerprint, life, renewed } => {
                view.token(if *renewed { "token-renewed" } else { "token-fetched" }, token);
                view.fingerprint = Some(fingerprint.to_string());
                view.text = format!("{} gave a token for {} s", token.provider, life.as_secs());
            }
            EventKind::TokenRefused(token) => {
                view.token("token-refused", token);
                view.text = format!("{} refused generation {} of a token", token.provider, token.number);
            }
        }
        view
    }

    fn token(&mut self, kind: &'static str, token: &Generation) {
        self.kind = kind;
        (self.provider, self.key) = (Some(token.provider.to_string()), Some(token.key.to_string()));
        self.generation = Some(token.number);
    }

    fn consent(&mut self, kind: &'static str, consenter: &ConsentSubject, text: &str) {
        self.kind = kind;
        self.provider = Some(consenter.provider.to_string());
        self.client = Some(consenter.owner.to_string());
        self.text = format!("{text} to {} for {}", consenter.owner, consenter.provider);
    }
}
