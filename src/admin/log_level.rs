//! The level of the log at run time: `POST /api/v1/log-level` sets another one for a while, `DELETE` ends it early. It
//! ends by itself, so that a talkative log is not forgotten.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;

use http::StatusCode;
use serde::Deserialize;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::Admin;
use super::admin_response::{AdminResponse, json, problem};
use super::api::AdminRequest;
use super::view::LogLevelView;
use crate::base::time::{millis, rfc3339};
use crate::observe::audit::AuditAction;
use crate::observe::logging::{LogLevel, LogLevelError, LogLevels, TemporaryLevel};
use crate::syntax::byte_size::duration;

/// Time of a level where the request names none.
const USUAL: Duration = Duration::from_secs(15 * 60);
/// The shortest and the longest time of a level.
const SHORTEST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(3600);

/// The level of the log, and the timer that ends a temporary one.
#[derive(Debug)]
pub struct LogLevelSwitch {
    levels: LogLevels,
    timer: RefCell<Option<AbortHandle>>,
}

impl LogLevelSwitch {
    /// Builds a switch of these levels, with no timer yet.
    pub fn new(levels: LogLevels) -> Self {
        Self { levels, timer: RefCell::default() }
    }

    /// Sets the one timer: an earlier one goes.
    fn set_timer(&self, timer: Option<AbortHandle>) {
        if let Some(earlier) = self.timer.replace(timer) {
            earlier.abort();
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LevelRequest {
    level: String,
    #[serde(default, rename = "for")]
    span: Option<String>,
}

type LevelRefusal = (StatusCode, String);

impl Admin {
    /// The level of the log as it is now.
    pub(crate) fn log_level(&self) -> LogLevelView {
        LogLevelView::of(&self.log_level.levels, self.clock.now())
    }
}

/// Sets a level for a while, and responds with it.
pub(super) fn set(admin: &Rc<Admin>, admin_request: &AdminRequest<'_>) -> AdminResponse {
    answered(begin(admin, admin_request))
}

/// Ends a temporary level, if there is one, and responds with the level that is in force then.
pub(super) fn restore(admin: &Admin, admin_request: &AdminRequest<'_>) -> AdminResponse {
    answered(end(admin, admin_request))
}

fn answered(done: Result<LogLevelView, LevelRefusal>) -> AdminResponse {
    match done {
        Ok(view) => json(StatusCode::OK, &view),
        Err((status, why)) => problem(status, why),
    }
}

pub(super) fn begin(admin: &Rc<Admin>, admin_request: &AdminRequest<'_>) -> Result<LogLevelView, LevelRefusal> {
    let (level, span) = asked(&admin_request.body).map_err(|why| (StatusCode::BAD_REQUEST, why))?;
    let by = admin_request.visitor.actor();
    let until = admin.clock.now().wall.saturating_add(millis(span));
    let temporary = TemporaryLevel { level: level.clone(), until, by: by.as_str().into() };
    let serial = admin.log_level.levels.set(temporary).map_err(failed)?;
    let levels = admin.log_level.levels.clone();
    let timer = tokio::task::spawn_local(async move {
        sleep(span).await;
        match levels.restore(Some(serial)) {
            Ok(Some(level)) => tracing::info!(level, "the time of the other log level is over"),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "the log level stays as it is"),
        }
    });
    admin.log_level.set_timer(Some(timer.abort_handle()));
    admin_request.done("log level", &format!("{level} until {}", rfc3339(until)));
    note(admin, &by, level.as_str());
    Ok(admin.log_level())
}

pub(super) fn end(admin: &Admin, admin_request: &AdminRequest<'_>) -> Result<LogLevelView, LevelRefusal> {
    let restored = admin.log_level.levels.restore(None).map_err(failed)?;
    admin.log_level.set_timer(None);
    if let Some(level) = restored {
        admin_request.done("log level", &level);
        note(admin, &admin_request.visitor.actor(), &level);
    }
    Ok(admin.log_level())
}

/// Reads what is asked for. The error says what to send.
fn asked(body: &[u8]) -> Result<(LogLevel, Duration), String> {
    let wanted = "send { \"level\": \"debug\", \"for\": \"15m\" }";
    let LevelRequest { level, span } = serde_json::from_slice(body).map_err(|_| wanted.to_owned())?;
    let level = LogLevel::parse(&level).ok_or_else(|| {
        let words = LogLevel::WORDS.join(", ");
        format!("`level` is one of {words}, or such a level of a module, as in countersign::control=debug")
    })?;
    let span = match span {
        None => USUAL,
        Some(text) => {
            let span = duration(&text).filter(|span| (SHORTEST..=LONGEST).contains(span));
            span.ok_or_else(|| "`for` is a time from 1s to 1h, as in 15m".to_owned())?
        }
    };
    Ok((level, span))
}

fn failed(error: LogLevelError) -> LevelRefusal {
    (StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
}

fn note(admin: &Admin, actor: &str, level: &str) {
    let target = [("level", level)];
    admin.audit.note(&AuditAction { actor, what: "log.level", target: &target, outcome: "ok" });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_asked_for_with_a_time_of_at_most_an_hour() {
        let read = |body: &str| asked(body.as_bytes()).map(|(level, span)| (level.to_string(), span.as_secs()));
        assert_eq!(read(r#"{"level":"debug"}"#), Ok(("debug".to_owned(), 900)));
        assert_eq!(read(r#"{"level":"trace","for":"1h"}"#), Ok(("trace".to_owned(), 3600)));
        for (body, part) in [
            ("", "send {"),
            (r#"{"level":"debug","until":"1m"}"#, "send {"),
            (r#"{"level":"loud"}"#, "`level` is one of"),
            (r#"{"level":"hyper=trace"}"#, "`level` is one of"),
            (r#"{"level":"debug","for":"61m"}"#, "from 1s to 1h"),
            (r#"{"level":"debug","for":"10ms"}"#, "from 1s to 1h"),
            (r#"{"level":"debug","for":"soon"}"#, "from 1s to 1h"),
        ] {
            let why = read(body).unwrap_err();
            assert!(why.contains(part), "{body}: {why}");
        }
    }
}
