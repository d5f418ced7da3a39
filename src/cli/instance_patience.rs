//! Commands that go on until they are stopped: their end, and their patience with an instance that is away.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use super::admin_client::AdminCallError;
use super::complain;
use super::run::wait_for_the_end;

/// Waits between attempts to reach an instance that is away, the last one for all that follow.
const WAITS: [Duration; 4] =
    [Duration::from_millis(500), Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(5)];

/// Ends the process with 0 on SIGINT, SIGTERM or SIGHUP: whoever stops a command that goes on has seen enough.
pub(super) fn end_on_signals() {
    let watch = || {
        if wait_for_the_end().is_ok() {
            std::process::exit(0);
        }
    };
    // Without the thread, a signal ends the process all the same, with another code.
    let _ = std::thread::Builder::new().name("signals".to_owned()).spawn(watch);
}

/// Writes to standard output. The error ends the command: with 0 where nobody reads any more, else with 1.
pub(super) fn tell_reader(text: &str) -> Result<(), ExitCode> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|error| {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return ExitCode::SUCCESS;
        }
        complain(&format!("the result cannot be written to standard output: {error}"));
        ExitCode::FAILURE
    })
}

/// The connection to an instance, as a command that follows it experiences it.
#[derive(Debug, Default)]
pub(super) struct InstancePatience {
    was_reached: bool,
    failures: usize,
}

impl InstancePatience {
    /// Notes an answer; says so if there was none before.
    pub(super) fn answered(&mut self) {
        if self.failures > 0 {
            complain("the instance answers again");
        }
        (self.was_reached, self.failures) = (true, 0);
    }

    /// Waits before the next attempt, and says why at the first. An instance that was never reached, and a refusal, are
    /// errors.
    pub(super) fn lost(&mut self, error: AdminCallError) -> Result<(), AdminCallError> {
        let (code, why) = &error;
        if !self.was_reached || *code != 2 {
            return Err(error);
        }
        if self.failures == 0 {
            complain(&format!("{why}; trying again until it answers"));
        }
        let wait = WAITS.get(self.failures).or(WAITS.last()).copied().unwrap_or_default();
        self.failures += 1;
        sleep(wait);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_and_an_instance_that_never_answered_are_errors() {
        let away = || (2, "away".to_owned());
        let mut patience = InstancePatience::default();
        assert_eq!(patience.lost(away()), Err(away()));
        patience.answered();
        assert_eq!(patience.lost((1, "refused".to_owned())), Err((1, "refused".to_owned())));
    }
}
