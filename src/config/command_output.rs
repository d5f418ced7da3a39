//! The output of a command that a config names as the source of a value.
//!
//! A command gets no input and a process group of its own, which is killed when its time is over or when it says more than
//! a secret can be. What it writes to standard error goes nowhere: it may repeat a secret.

use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use thiserror::Error;
use zeroize::Zeroizing;

use crate::base::time::Stopwatch;

/// More output than this is no secret, in bytes.
const MOST_OUTPUT: u64 = 64 << 10;
/// Interval between two looks at a process that has closed its output and has not ended.
const LOOK: Duration = Duration::from_millis(5);

/// The reason for which a command gave no value. `Display` holds nothing that it wrote.
#[derive(Debug, Error)]
pub enum CommandError {
    /// It ended with another status than 0; `None`: by a signal.
    #[error("{}", .0.map_or("ended by a signal".to_owned(), |status| format!("ended with status {status}")))]
    Failed(Option<i32>),
    /// No command is run here.
    #[error("is not run here")]
    NotRun,
    /// It could not be started, or its output could not be read.
    #[error("cannot be run: {0}")]
    Io(#[from] io::Error),
    /// It had not ended in time.
    #[error("had not ended within {} s", .0.as_secs_f64())]
    Slow(Duration),
    /// It wrote too much.
    #[error("wrote more than {} KiB", MOST_OUTPUT >> 10)]
    TooLong,
}

/// Runs a command and returns what it writes to standard output.
pub(super) fn command_output(
    program: &Path,
    arguments: &[String],
    within: Duration,
) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    let watch = Stopwatch::start();
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).process_group(0);
    let mut child = command.spawn()?;
    let output = read_until_end(&mut child, within, watch);
    if output.is_err() {
        end(&mut child);
    }
    output
}

fn read_until_end(child: &mut Child, within: Duration, watch: Stopwatch) -> Result<Zeroizing<Vec<u8>>, CommandError> {
    let stdout = child.stdout.take().ok_or(io::ErrorKind::BrokenPipe).map_err(io::Error::from)?;
    let (tell, told) = channel();
    // It ends with the process group.
    std::thread::spawn(move || {
        let mut bytes = Zeroizing::new(Vec::new());
        let read = stdout.take(MOST_OUTPUT + 1).read_to_end(&mut bytes);
        drop(tell.send(read.map(|_| bytes)));
    });
    let bytes = told.recv_timeout(within).map_err(|_| CommandError::Slow(within))??;
    if bytes.len() as u64 > MOST_OUTPUT {
        return Err(CommandError::TooLong);
    }
    loop {
        match child.try_wait()? {
            Some(status) if status.success() => return Ok(bytes),
            Some(status) => return Err(CommandError::Failed(status.code())),
            None if watch.elapsed() >= within => return Err(CommandError::Slow(within)),
            None => std::thread::sleep(LOOK),
        }
    }
}

/// Kills the process group of a command, and takes leave of the command itself.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    // It may have ended by itself.
    let _gone = group.map(|group| kill_process_group(group, Signal::KILL));
    let _gone = child.wait();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, within: Duration) -> Result<String, String> {
        let arguments = ["-c".to_owned(), script.to_owned()];
        let output = command_output(Path::new("/bin/sh"), &arguments, within);
        output.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).map_err(|error| error.to_string())
    }

    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_command_writes_is_its_value() {
        assert_eq!(shell("printf s3cr3t; echo noise >&2", LONG).as_deref(), Ok("s3cr3t"));
        assert_eq!(shell("cat", LONG).as_deref(), Ok(""), "there is no input");
    }

    #[test]
    fn a_command_that_fails_is_told_by_its_status_alone() {
        assert_eq!(shell("echo s3cr3t; exit 3", LONG), Err("ended with status 3".to_owned()));
        assert_eq!(shell("kill -9 $$", LONG), Err("ended by a signal".to_owned()));
        let missing = command_output(Path::new("/nowhere/vault"), &[], LONG).map(drop);
        assert!(missing.is_err_and(|error| error.to_string().starts_with("cannot be run")));
    }

    #[test]
    fn a_command_that_never_ends_is_ended_with_all_that_it_started() {
        let short = Duration::from_millis(300);
        for script in ["sleep 600", "sleep 600 & sleep 600", "exec >&-; sleep 600"] {
            let watch = Stopwatch::start();
            assert_eq!(shell(script, short), Err("had not ended within 0.3 s".to_owned()), "{script}");
            assert!(watch.elapsed() < LONG, "{script}");
        }
        assert_eq!(shell("yes", LONG), Err("wrote more than 64 KiB".to_owned()));
    }
}
