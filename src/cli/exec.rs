//! `countersign exec`: runs a command that uses the proxy and trusts its CA, in any programming language.
//!
//! The command has the standard streams and the process group of countersign, so terminals behave. Signals are passed
//! on to it; its exit status becomes that of countersign (128 + signal if one ended it). 125: countersign itself
//! failed; 126: the command cannot be run; 127: there is no such command.

mod bypass;
mod config_sketch;
pub(super) mod env;
mod gateway;
mod private;

use std::ffi::{OsStr, OsString};
use std::fs::{self, DirBuilder};
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt as _;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, ExitStatus, Stdio};

use aws_lc_rs::rand;
use clap::Args;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, getpgrp, kill_process, waitid};
use rustix::termios::tcgetpgrp;
use tokio::signal::unix::{Signal as Stream, SignalKind, signal};
use tokio::sync::oneshot;

pub(super) use self::config_sketch::{ConfigSketch, ForwardSketch};
use self::env::{TrustFiles, Variables};
pub(super) use self::gateway::ca_file;
use self::gateway::{ForwardArguments, Gateway};
use self::private::Private;
use super::complain;
use crate::base::secret::hex;
use crate::config::{Files, MachineFiles};

/// Our own failures, as `env`, `nohup` and `timeout` number them.
const FAILED: u8 = 125;

/// The arguments of `countersign exec`.
#[derive(Args, Debug)]
pub struct ExecArguments {
    #[command(flatten)]
    through: ForwardArguments,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "CMD")]
    command: Vec<OsString>,
}

/// Runs the command with the forward listener that is up at the configured address, or with one of its own.
pub fn run(arguments: &ExecArguments) -> ExitCode {
    match attempt(arguments) {
        Ok(code) => code,
        Err(error) => {
            complain(&error);
            ExitCode::from(FAILED)
        }
    }
}

fn attempt(arguments: &ExecArguments) -> Result<ExitCode, String> {
    let wanted = &arguments.through;
    let (gateway, clients) = Gateway::locate(wanted)?;
    if gateway.answers() {
        return Ok(through(&gateway.identified(wanted, &clients)?, wanted, &arguments.command));
    }
    let Some(config) = wanted.config().filter(|_| wanted.proxy.is_none()) else {
        return Err(format!("nothing listens at {}: start `countersign run` there first", gateway.url()));
    };
    match Private::start(&config, wanted, gateway)? {
        Some(private) => Ok(through(&private.gateway, wanted, &arguments.command)),
        None => Ok(ExitCode::from(FAILED)),
    }
}

/// Runs the command through this listener, no matter which process started it. Returns the command's exit status.
pub fn through(gateway: &Gateway, wanted: &ForwardArguments, command: &[OsString]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime
        .map_err(|error| error.to_string())
        .and_then(|runtime| runtime.block_on(attend(gateway, wanted, command)))
    {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            complain(&error);
            ExitCode::from(FAILED)
        }
    }
}

async fn attend(gateway: &Gateway, wanted: &ForwardArguments, command: &[OsString]) -> Result<u8, String> {
    // First of all, so that no signal can leave the folder behind.
    let mut signals = ForwardedSignals::catch().map_err(|error| format!("signals cannot be caught: {error}"))?;
    let folder = Folder::new().map_err(|error| format!("no temporary folder can be made: {error}"))?;
    let files = TrustFiles::write(&folder.0, gateway, wanted)?;
    let variables = Variables::new(gateway, &files, &|name| MachineFiles.env(name));
    let Some((program, rest)) = command.split_first() else { return Err("there is no command".to_owned()) };
    for what in remarks(gateway, &variables, program) {
        wanted.remark(&what);
    }
    let mut prepared = Command::new(program);
    prepared.args(rest);
    variables.apply(&mut prepared);
    let child = match prepared.spawn() {
        Ok(child) => child,
        Err(error) => {
            complain(&format!("`{}` cannot be run: {error}", program.display()));
            return Ok(if error.kind() == ErrorKind::NotFound { 127 } else { 126 });
        }
    };
    let status = wait(child, &mut signals).await.map_err(|error| format!("the command was lost: {error}"))?;
    let code = status.code().or_else(|| status.signal().map(|number| number.saturating_add(128)));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(FAILED))
}

/// Passes signals on until the command has ended. It is not reaped before we know: its number stays its own.
async fn wait(mut child: Child, signals: &mut ForwardedSignals) -> io::Result<ExitStatus> {
    let number = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(ErrorKind::InvalidData)?;
    let (tell, mut ended) = oneshot::channel();
    std::thread::Builder::new().name("wait".to_owned()).spawn(move || {
        let watch = || waitid(WaitId::Pid(number), WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        while watch().is_err_and(|error| error == rustix::io::Errno::INTR) {}
        // Sending fails only if the whole process ends.
        let _ = tell.send(());
    })?;
    loop {
        tokio::select! {
            _ = &mut ended => return child.wait(),
            signal = signals.next() => {
                let typed = matches!(signal, Signal::INT | Signal::QUIT);
                if !(typed && is_foreground()) {
                    // The command may have ended just now; then the signal has no receiver.
                    let _ = kill_process(number, signal);
                }
            }
        }
    }
}

/// Returns whether a key typed at the terminal reaches the command directly, as a member of this process group.
fn is_foreground() -> bool {
    let own = getpgrp();
    let holds = |group: rustix::io::Result<Pid>| group.is_ok_and(|group| group == own);
    holds(tcgetpgrp(io::stdin())) || holds(tcgetpgrp(io::stdout())) || holds(tcgetpgrp(io::stderr()))
}

/// The signals that are passed on.
struct ForwardedSignals {
    hangup: Stream,
    interrupt: Stream,
    quit: Stream,
    terminate: Stream,
    user1: Stream,
    user2: Stream,
}

impl ForwardedSignals {
    fn catch() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            terminate: signal(SignalKind::terminate())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.hangup.recv() => Signal::HUP,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.quit.recv() => Signal::QUIT,
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.user1.recv() => Signal::USR1,
            _ = self.user2.recv() => Signal::USR2,
        }
    }
}

/// A private folder that goes when it is dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let mut bytes = [0; 8];
        rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no randomness"))?;
        let path = std::env::temp_dir().join(format!("countersign-exec-{}", hex(&bytes)));
        DirBuilder::new().mode(0o700).create(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            complain(&format!("{} stays behind: {error}", self.0.display()));
        }
    }
}

/// Lists the problems that this command may meet behind the proxy.
fn remarks(gateway: &Gateway, variables: &Variables, program: &OsStr) -> Vec<String> {
    let mut all = Vec::new();
    if !variables.dropped.is_empty() {
        let dropped = variables.dropped.join(", ");
        all.push(format!("these go through the proxy, because they cover a host with a route: {dropped}"));
    }
    let name = Path::new(program).file_name().and_then(OsStr::to_str).unwrap_or_default();
    if matches!(name, "node" | "npm" | "npx" | "pnpm" | "yarn" | "tsx" | "ts-node") {
        let node = if name == "node" { program } else { OsStr::new("node") };
        let answer = Command::new(node).arg("--version").stdin(Stdio::null()).output();
        let answer = answer.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
        all.extend(answer.ok().and_then(|version| about_node(&version)));
    }
    if matches!(name, "java" | "mvn" | "gradle" | "sbt") && gateway.credentials.is_some() {
        let text = "Java sends a key to a proxy only if the program sets an Authenticator; otherwise let its network or \
                    certificate identify it";
        all.push(text.to_owned());
    }
    all
}

/// Node before 22.21, and 23, ignore `NODE_USE_ENV_PROXY`; 24.0 to 24.4 heed it for fetch alone.
fn about_node(version: &str) -> Option<String> {
    let mut numbers = version.strip_prefix('v')?.split('.').map(|number| number.parse::<u32>().ok());
    let (major, minor) = (numbers.next()??, numbers.next()??);
    let advice = "use Node 22.21, 24.5 or later, or give its HTTP library the proxy";
    match (major, minor) {
        (22, 21..) | (24, 5..) | (25.., _) => None,
        (24, _) => Some(format!("Node {version} sends fetch through the proxy, but not http and https: {advice}")),
        _ => Some(format!("Node {version} ignores the proxy variables: {advice}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_node_is_warned_about() {
        for (version, said) in [
            ("v20.20.2", Some("ignores")),
            ("v22.20.0", Some("ignores")),
            ("v22.21.0", None),
            ("v23.11.1", Some("ignores")),
            ("v24.0.0", Some("fetch")),
            ("v24.5.0", None),
            ("v26.1.0", None),
            ("nonsense", None),
        ] {
            let remark = about_node(version);
            assert_eq!(remark.is_some(), said.is_some(), "{version}");
            assert!(remark.unwrap_or_default().contains(said.unwrap_or_default()), "{version}");
        }
    }

    #[test]
    fn the_folder_is_private_and_goes() {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = Folder::new().expect("a folder");
        let path = folder.0.clone();
        assert_eq!(fs::metadata(&path).expect("it is there").permissions().mode() & 0o777, 0o700);
        drop(folder);
        assert!(!path.exists());
    }
}
