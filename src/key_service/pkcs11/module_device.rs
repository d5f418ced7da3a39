//! The other end of a module's process: starts it, asks it, and ends it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::rc::Rc;
use std::thread;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Mutex, mpsc, oneshot};
use zeroize::Zeroizing;

use super::module_call::{
    LONGEST_LINE, ModuleAnswer, ModuleCall, ModuleOutcome, ModuleRequest, SignMechanism, TokenKeyName, TokenPublicKey,
    line,
};
use super::{Pkcs11Settings, TokenName};
use crate::base::secret::{ExposeSecret, SecretBox};
use crate::key_service::device::{DeviceError, KeyPart};
use crate::key_service::service::KeyName;
use crate::signing::algorithm::{KeyType, SigningAlgorithm};
use crate::signing::device_input::DeviceInput;
use crate::signing::key::KeyError;
use crate::signing::public_key::PublicKey;
use crate::signing::signature::DigitalSignature;

/// The program that is running, also after its file was replaced.
const OWN_PROGRAM: &str = "/proc/self/exe";

/// A token, by way of a process that has its module.
pub struct ModuleDevice {
    settings: Pkcs11Settings,
    running: RefCell<Option<Rc<ModuleProcess>>>,
    /// Held while a process starts, so that one does.
    starting: Mutex<()>,
}

impl ModuleDevice {
    pub(in crate::key_service) fn new(settings: Pkcs11Settings) -> Self {
        Self { settings, running: RefCell::default(), starting: Mutex::default() }
    }

    /// Reads the public half of a key; starts the process if there is none.
    pub(in crate::key_service) async fn public_key(&self, name: &KeyName) -> Result<PublicKey, DeviceError> {
        let key = key_of(name)?;
        let process = self.started().await?;
        let told = match process.ask(ModuleCall::PublicKey { key }).await? {
            ModuleOutcome::PublicKey(told) => told,
            other => return Err(unexpected(other)),
        };
        public_key(&told).map_err(|error| DeviceError::refused(KeyPart::Key, format!("the key: {error}"), ""))
    }

    pub(in crate::key_service) async fn sign(
        &self,
        name: &KeyName,
        algorithm: SigningAlgorithm,
        input: &DeviceInput,
    ) -> Result<DigitalSignature, DeviceError> {
        let (mechanism, input) = match algorithm {
            SigningAlgorithm::EdDsa => (SignMechanism::Eddsa, input.bytes().to_vec()),
            SigningAlgorithm::Es256 | SigningAlgorithm::Es384 => (SignMechanism::Ecdsa, input.bytes().to_vec()),
            SigningAlgorithm::Ps256 => (SignMechanism::RsaPss(256), input.bytes().to_vec()),
            SigningAlgorithm::Ps384 => (SignMechanism::RsaPss(384), input.bytes().to_vec()),
            SigningAlgorithm::Ps512 => (SignMechanism::RsaPss(512), input.bytes().to_vec()),
            SigningAlgorithm::Rs256 | SigningAlgorithm::Rs384 | SigningAlgorithm::Rs512 => {
                (SignMechanism::RsaPkcs, input.digest_info())
            }
            SigningAlgorithm::Hs256 | SigningAlgorithm::Hs384 | SigningAlgorithm::Hs512 => {
                return Err(DeviceError::refused(KeyPart::Key, "a token makes no authentication codes here", ""));
            }
        };
        let process = self.running.borrow().clone();
        let process =
            process.ok_or_else(|| DeviceError::Ended("the process of the PKCS#11 module has ended".into()))?;
        match process.ask(ModuleCall::Sign { key: key_of(name)?, mechanism, input }).await? {
            ModuleOutcome::Signature(made) => DigitalSignature::from_jose(algorithm, made)
                .ok_or_else(|| DeviceError::Failed("the PKCS#11 token made a signature of another length".into())),
            other => Err(unexpected(other)),
        }
    }

    /// Decrypts a wrapped key; starts the process if there is none.
    pub(in crate::key_service) async fn unwrap(
        &self,
        name: &KeyName,
        ciphertext: &[u8],
    ) -> Result<SecretBox<[u8]>, DeviceError> {
        let (key, input) = (key_of(name)?, ciphertext.to_vec());
        match self.started().await?.ask(ModuleCall::Decrypt { key, input }).await? {
            ModuleOutcome::Plaintext(plaintext) => Ok(SecretBox::from(plaintext.to_vec())),
            other => Err(unexpected(other)),
        }
    }

    /// Ends the process, with all that it does.
    pub(in crate::key_service) fn end(&self) {
        self.running.take();
    }

    async fn started(&self) -> Result<Rc<ModuleProcess>, DeviceError> {
        let _turn = self.starting.lock().await;
        let known = self.running.borrow().clone();
        if let Some(process) = known.filter(|process| !process.replies.ended.get()) {
            return Ok(process);
        }
        let process = ModuleProcess::start();
        let process = Rc::new(process.map_err(|error| {
            DeviceError::Failed(format!("the process for the PKCS#11 module cannot be started: {error}"))
        })?);
        let module = self.settings.module.to_string_lossy().into_owned();
        let pin = self.settings.pin.as_ref().map(|pin| Zeroizing::new(pin.expose_secret().to_owned()));
        let token: TokenName = self.settings.token.clone();
        match process.ask(ModuleCall::Open { module, token, pin }).await? {
            ModuleOutcome::Opened => {}
            other => return Err(unexpected(other)),
        }
        self.running.replace(Some(process.clone()));
        Ok(process)
    }
}

fn key_of(name: &KeyName) -> Result<TokenKeyName, DeviceError> {
    match name {
        KeyName::Token(key) => Ok(key.clone()),
        KeyName::Kms(_) => Err(DeviceError::refused(KeyPart::Key, "a token has no such key", "")),
    }
}

fn unexpected(outcome: ModuleOutcome) -> DeviceError {
    match outcome {
        ModuleOutcome::Failed(what) => DeviceError::Failed(what),
        ModuleOutcome::Refused(problem) => DeviceError::Refused(problem),
        ModuleOutcome::Opened
        | ModuleOutcome::Plaintext(_)
        | ModuleOutcome::PublicKey(_)
        | ModuleOutcome::Signature(_) => {
            DeviceError::Failed("the process of the PKCS#11 module gave the answer to another question".into())
        }
    }
}

/// DER of the curves' names (RFC 5480 section 2.1.1.1, RFC 8410 section 3), and the text that PKCS#11 has for Ed25519.
const P256: &[u8] = b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x06\x05\x2b\x81\x04\x00\x22";
const ED25519: [&[u8]; 2] = [b"\x06\x03\x2b\x65\x70", b"\x13\x0cedwards25519"];

fn public_key(told: &TokenPublicKey) -> Result<PublicKey, KeyError> {
    match told {
        TokenPublicKey::Rsa { modulus, exponent } => PublicKey::rsa(modulus, exponent),
        TokenPublicKey::Ec { curve, point } => {
            // A point is a DER octet string; some modules leave the frame out.
            let bare = match point.as_slice() {
                [4, length, bare @ ..] if usize::from(*length) == bare.len() => bare,
                other => other,
            };
            match curve.as_slice() {
                P256 => PublicKey::ec(KeyType::P256, bare),
                P384 => PublicKey::ec(KeyType::P384, bare),
                other if ED25519.contains(&other) => PublicKey::ed25519(bare),
                _ => Err(KeyError::Curve),
            }
        }
    }
}

/// A process with a module. It is ended when this is dropped.
struct ModuleProcess {
    child: RefCell<Option<Child>>,
    requests: mpsc::UnboundedSender<Zeroizing<Vec<u8>>>,
    replies: Rc<Replies>,
    next: Cell<u64>,
}

/// The questions that wait for an answer, by their numbers.
#[derive(Default)]
struct Replies {
    waiting: RefCell<HashMap<u64, oneshot::Sender<ModuleOutcome>>>,
    ended: Cell<bool>,
}

impl ModuleProcess {
    /// Starts it. Must be called on a local runtime.
    fn start() -> io::Result<Self> {
        let (ours, theirs) = StdUnixStream::pair()?;
        ours.set_nonblocking(true)?;
        let mut command = Command::new(OWN_PROGRAM);
        command.arg0("countersign").arg("pkcs11-module");
        // What a module prints belongs to the log.
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        let child = command.spawn()?;
        // The command holds the other end of the socket; the process's end would not be noticed.
        drop(command);
        let (reads, writes) = UnixStream::from_std(ours)?.into_split();
        let (requests, queue) = mpsc::unbounded_channel();
        let replies = Rc::<Replies>::default();
        tokio::task::spawn_local(write_requests(queue, writes));
        tokio::task::spawn_local(read_answers(reads, replies.clone()));
        Ok(Self { child: RefCell::new(Some(child)), requests, replies, next: Cell::new(0) })
    }

    async fn ask(&self, call: ModuleCall) -> Result<ModuleOutcome, DeviceError> {
        let ended = || DeviceError::Ended("the process of the PKCS#11 module has ended".into());
        let number = self.next.replace(self.next.get() + 1);
        let (answer, told) = oneshot::channel();
        if self.replies.ended.get() || self.requests.send(line(&ModuleRequest { number, call })).is_err() {
            return Err(ended());
        }
        self.replies.waiting.borrow_mut().insert(number, answer);
        told.await.map_err(|_| ended())
    }
}

impl Drop for ModuleProcess {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let _ = child.kill();
        // A process that hangs in a driver may take its time to end.
        thread::spawn(move || child.wait());
    }
}

async fn write_requests(mut queue: mpsc::UnboundedReceiver<Zeroizing<Vec<u8>>>, mut writes: OwnedWriteHalf) {
    while let Some(line) = queue.recv().await {
        if writes.write_all(&line).await.is_err() {
            return;
        }
    }
}

async fn read_answers(reads: OwnedReadHalf, replies: Rc<Replies>) {
    let mut lines = BufReader::new(reads);
    loop {
        // It may hold a decrypted key.
        let mut line = Zeroizing::new(Vec::new());
        let read = (&mut lines).take(LONGEST_LINE).read_until(b'\n', &mut line).await;
        let Ok(ModuleAnswer { number, outcome }) = serde_json::from_slice(&line) else { break };
        if read.is_err() {
            break;
        }
        if let Some(answer) = replies.waiting.borrow_mut().remove(&number) {
            // A caller that has given up is no error.
            let _ = answer.send(outcome);
        }
    }
    replies.ended.set(true);
    replies.waiting.borrow_mut().clear();
}
