//! `GET /api/v1/log-level`: the level of the log, and until when it differs from the config's.

use serde::Serialize;

use crate::base::time::{Now, rfc3339};
use crate::observe::logging::{LogLevels, TemporaryLevel};

/// The response body of `GET /api/v1/log-level`, and of the calls that change it.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct LogLevelView {
    /// The level in force, or a filter of several.
    pub level: String,
    /// The level of the config, which is in force where there is no other.
    pub configured: String,
    /// When the config's level is in force again; absent: it is in force now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub until: Option<String>,
    /// Whole seconds until then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seconds_left: Option<u64>,
    /// The operator who set the other level: `admin`, or `admin:` and the name of a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
}

impl LogLevelView {
    pub(crate) fn of(levels: &LogLevels, now: Now) -> Self {
        let configured = levels.configured();
        match levels.temporary() {
            None => Self { level: configured.clone(), configured, until: None, seconds_left: None, by: None },
            Some(TemporaryLevel { level, until, by }) => Self {
                level: level.to_string(),
                configured,
                until: Some(rfc3339(until)),
                seconds_left: Some(until.saturating_sub(now.wall) / 1000),
                by: Some(by.to_string()),
            },
        }
    }
}
