//! `GET /api/v1/events`: what just happened.

use serde::Serialize;

/// One event. Which members it has depends on what happened.
#[derive(Clone, Debug, Default, Eq, PartialEq, Serialize)]
pub(crate) struct EventView {
    /// What happened, as a word: it names the event in the stream, too.
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
    /// The class of a failure; the outcome of a reload.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    /// The client that it is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// Who did it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// In words, for a person.
    pub text: String,
}
