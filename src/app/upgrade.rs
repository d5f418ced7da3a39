//! Replacement of this process by a new one, without a moment in which no process listens.
//!
//! The program file that this process was started from is started again, with the same arguments, and inherits every
//! listening socket ([`super::inherited`]). Both accept from them until the new process reports that it serves; then
//! this one drains. A new process that fails or reports nothing in time is ended, and nothing has changed.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::Duration;

use command_fds::{CommandFdExt as _, FdMapping};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::AsyncReadExt as _;
use tokio::net::UnixStream;
use tokio::time::{Instant, sleep, timeout_at};

use super::inherited::{CHANNEL, READY, about_us};
use crate::config::Snapshot;

/// A new process that does not serve by then is ended.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// One that gave up needs a moment to end.
const LAST_THOUGHT: Duration = Duration::from_millis(500);
/// One that was told to end and does not is killed.
const LAST_WORDS: Duration = Duration::from_secs(5);
/// Interval at which the child's end is checked.
const LOOK: Duration = Duration::from_millis(10);
/// The first descriptor that is handed over, by sd_listen_fds(3).
const FIRST: i32 = 3;

/// The program, name and arguments that this process was started with, and its successor will be.
#[derive(Debug)]
pub struct UpgradeImage {
    path: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
}

/// A new process that is to succeed this one.
#[derive(Debug)]
pub struct SuccessorProcess {
    child: Child,
    channel: UnixStream,
    deadline: Instant,
}

impl UpgradeImage {
    /// To be asked at the start: what lies at that path later is another version. A path by way of links is kept as it
    /// is, since links are what is changed by many.
    pub fn of_this_process() -> io::Result<Self> {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let running = env::current_exe()?;
        let same = |path: &PathBuf| identity(path).is_ok_and(|file| identity(&running).is_ok_and(|own| own == file));
        // A first argument may be any text.
        let path = located(Path::new(&name)).filter(same).unwrap_or_else(|| running.clone());
        Ok(Self { path: std::path::absolute(path)?, name, arguments: arguments.collect() })
    }
}

/// Returns the device and inode of a file.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|file| (file.dev(), file.ino()))
}

/// Finds the program of this name as a shell does, or returns `None`.
fn located(name: &Path) -> Option<PathBuf> {
    if name.components().count() > 1 || name.is_absolute() {
        return name.is_file().then(|| name.to_owned());
    }
    let mut folders = env::split_paths(&env::var_os("PATH")?).collect::<Vec<_>>().into_iter();
    folders.find_map(|folder| Some(folder.join(name)).filter(|path| !name.as_os_str().is_empty() && path.is_file()))
}

/// Returns the reason for which this process cannot be succeeded as it is configured, or `None` if it can. The text is
/// for a person.
pub fn obstacle(config: &Snapshot) -> Option<&'static str> {
    if std::process::id() == 1 {
        return Some(
            "this is process 1 of a container, which ends with it: start a new container, and end this one by SIGTERM",
        );
    }
    if config.audit.is_some() {
        return Some("an audit log is written by one process at a time: let systemd hold the sockets and restart");
    }
    config.store.settings.file().map(|_| {
        "a store in a file is open to one process at a time: let systemd hold the sockets and restart, or use Redis"
    })
}

impl SuccessorProcess {
    /// Starts it; it has this long to say that it serves. To be called on a runtime.
    pub fn start(image: &UpgradeImage, sockets: Vec<(String, OwnedFd)>, patience: Duration) -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let channel = UnixStream::from_std(ours)?;
        let (mut names, mut descriptors): (Vec<_>, Vec<_>) = sockets.into_iter().unzip();
        names.push(CHANNEL.to_owned());
        descriptors.push(theirs.into());
        let count = names.len().to_string();
        let mappings = descriptors.into_iter().zip(FIRST..);
        let mappings = mappings.map(|(parent_fd, child_fd)| FdMapping { parent_fd, child_fd }).collect();
        let mut command = Command::new(&image.path);
        command.arg0(&image.name).args(&image.arguments);
        for variable in about_us() {
            command.env_remove(variable);
        }
        command.env("LISTEN_FDS", count).env("LISTEN_FDNAMES", names.join(":"));
        command.fd_mappings(mappings).map_err(io::Error::other)?;
        let child = command.spawn()?;
        // Our copy of its end of the channel goes with the command: then its end is the end of the channel.
        drop(command);
        Ok(Self { child, channel, deadline: Instant::now() + patience })
    }

    /// Returns the process id of the successor.
    pub fn process(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the successor serves. The error gives the reason for which it will not; the process has ended by
    /// then, unless the text says that it cannot be ended. The wait may be dropped and repeated.
    pub async fn ready(&mut self) -> Result<(), String> {
        let why = match timeout_at(self.deadline, self.word()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) if error.kind() == io::ErrorKind::UnexpectedEof => "it ended, or gave up".to_owned(),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it was not ready in time".to_owned(),
        };
        match self.end().await {
            Ok(status) => Err(format!("{why} ({status})")),
            Err(error) => Err(format!("{why}, and cannot be ended: {error}")),
        }
    }

    async fn word(&mut self) -> io::Result<()> {
        let mut word = [0; READY.len()];
        self.channel.read_exact(&mut word).await?;
        if word == *READY { Ok(()) } else { Err(io::Error::other("it does not speak as we do")) }
    }

    /// Waits until it has ended: first by itself, then because it was asked to, then by force.
    pub async fn end(&mut self) -> io::Result<ExitStatus> {
        if let Some(status) = self.ended_within(LAST_THOUGHT).await? {
            return Ok(status);
        }
        // It has not been waited for, so the number is still its own.
        let number = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        kill_process(number.ok_or_else(|| io::Error::other("it has no number"))?, Signal::TERM)?;
        if let Some(status) = self.ended_within(LAST_WORDS).await? {
            return Ok(status);
        }
        self.child.kill()?;
        self.child.wait()
    }

    async fn ended_within(&mut self, patience: Duration) -> io::Result<Option<ExitStatus>> {
        let deadline = Instant::now() + patience;
        loop {
            let ended = self.child.try_wait()?;
            if ended.is_some() || Instant::now() >= deadline {
                return Ok(ended);
            }
            sleep(LOOK).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(path: &str, arguments: &[&str]) -> UpgradeImage {
        let arguments = arguments.iter().map(OsString::from).collect();
        UpgradeImage { path: located(Path::new(path)).unwrap_or_else(|| path.into()), name: path.into(), arguments }
    }

    fn refused(image: &UpgradeImage, patience: Duration) -> String {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let mut successor = SuccessorProcess::start(image, Vec::new(), patience).unwrap();
            let why = successor.ready().await.unwrap_err();
            assert!(successor.child.try_wait().unwrap().is_some(), "it has ended");
            why
        })
    }

    #[test]
    fn a_successor_that_is_silent_is_ended() {
        let why = refused(&image("sleep", &["600"]), Duration::from_millis(1));
        assert!(why.contains("not ready in time") && why.contains("signal: 15"), "{why}");
    }

    #[test]
    fn a_successor_that_fails_or_says_something_else_is_given_up_at_once() {
        let why = refused(&image("sh", &["-c", "exit 7"]), PATIENCE);
        assert!(why.contains("gave up") && why.contains('7'), "{why}");
        let why = refused(&image("sh", &["-c", "printf 'HELLO=1\\n' >&3; exec sleep 600"]), PATIENCE);
        assert!(why.contains("does not speak"), "{why}");
    }

    #[test]
    fn a_program_is_found_as_it_was_named() {
        assert_eq!(located(Path::new("/bin/sh")), Some("/bin/sh".into()));
        assert!(located(Path::new("sh")).is_some_and(|path| path.is_absolute()));
        for nowhere in ["", "no-such-program", "/no/such/program"] {
            assert_eq!(located(Path::new(nowhere)), None);
        }
    }
}
