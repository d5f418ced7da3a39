//! The process that loads a PKCS#11 module and works for countersign, which starts it.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use zeroize::Zeroizing;

use super::module_call::{LONGEST_LINE, ModuleAnswer, ModuleCall, ModuleOutcome, ModuleRequest, line};
use super::token_session::{LoadedToken, TokenSession};
use super::{MODULE_SESSIONS, TokenName};
use crate::base::secret::SecretString;
use crate::key_service::device::DeviceError;

/// Answers calls that arrive on standard input, a socket, until the other end closes it. Exit code 2: standard input is
/// no such socket.
pub fn run_module_process() -> ExitCode {
    let signals = heed_no_signals();
    if let Err(error) = &signals {
        tracing::warn!(%error, "the process of a PKCS#11 module cannot set its signals");
    }
    // A core dump would hold the PIN, and keys of a token that is software.
    let _ = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
    let code = if serve().is_ok() { ExitCode::SUCCESS } else { ExitCode::from(2) };
    drop(signals);
    code
}

/// Lets SIGTERM and SIGINT pass: a service manager and a terminal send them to all processes of a service, and signatures
/// are needed until the parent has drained. The process ends with its socket. The handlers stay for as long as the
/// returned runtime.
fn heed_no_signals() -> io::Result<Runtime> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let _context = runtime.enter();
    let _terminate = signal(SignalKind::terminate())?;
    let _interrupt = signal(SignalKind::interrupt())?;
    Ok(runtime)
}

fn serve() -> io::Result<()> {
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut lines = BufReader::new(socket.try_clone()?);
    let out = Mutex::new(socket);
    let Some(ModuleRequest { number, call: ModuleCall::Open { module, token, pin } }) = next(&mut lines)? else {
        return Ok(());
    };
    let loaded = load(&module, token, pin);
    let outcome = match &loaded {
        Ok(_) => ModuleOutcome::Opened,
        Err(error) => told(error.clone()),
    };
    write(&out, &ModuleAnswer { number, outcome })?;
    let Ok(token) = loaded else { return Ok(()) };
    let (queue, jobs) = channel::<ModuleRequest>();
    let jobs = Mutex::new(jobs);
    thread::scope(|scope| {
        for _ in 0..MODULE_SESSIONS {
            scope.spawn(|| work(&jobs, token.session(), &out));
        }
        while let Ok(Some(request)) = next(&mut lines) {
            if queue.send(request).is_err() {
                break;
            }
        }
        // The threads end when the queue does. One that hangs in the module must not keep the process.
        std::process::exit(0);
    })
}

fn next(lines: &mut BufReader<UnixStream>) -> io::Result<Option<ModuleRequest>> {
    let mut line = Zeroizing::new(Vec::new());
    lines.take(LONGEST_LINE).read_until(b'\n', &mut line)?;
    Ok(serde_json::from_slice(&line).ok())
}

/// Loads the module, and logs in once to see that it works.
fn load(module: &str, token: TokenName, pin: Option<Zeroizing<String>>) -> Result<LoadedToken, DeviceError> {
    let pin = pin.map(|pin| SecretString::from(pin.as_str()));
    let token = LoadedToken::load(module, token, pin)?;
    token.session().open_now()?;
    Ok(token)
}

fn work(jobs: &Mutex<Receiver<ModuleRequest>>, mut session: TokenSession<'_>, out: &Mutex<UnixStream>) {
    loop {
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(ModuleRequest { number, call }) = next else { return };
        let done = match call {
            // It was opened by the first call.
            ModuleCall::Open { .. } => Ok(ModuleOutcome::Opened),
            ModuleCall::Decrypt { key, input } => session.decrypt(&key, &input).map(ModuleOutcome::Plaintext),
            ModuleCall::PublicKey { key } => session.public_key(&key).map(ModuleOutcome::PublicKey),
            ModuleCall::Sign { key, mechanism, input } => {
                session.sign(&key, mechanism, &input).map(ModuleOutcome::Signature)
            }
        };
        if write(out, &ModuleAnswer { number, outcome: done.unwrap_or_else(told) }).is_err() {
            return;
        }
    }
}

fn told(error: DeviceError) -> ModuleOutcome {
    match error {
        DeviceError::Ended(what) | DeviceError::Failed(what) => ModuleOutcome::Failed(what),
        DeviceError::Refused(problem) => ModuleOutcome::Refused(problem),
    }
}

fn write(out: &Mutex<UnixStream>, answer: &ModuleAnswer) -> io::Result<()> {
    out.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line(answer))
}
