//! A key service, as its users see it: its queue, its breaker, and what is known of its keys.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::breaker::{Breaker, BreakerEvent};
use super::device::DeviceError;
use super::kms::KmsSettings;
use super::pkcs11::{Pkcs11Settings, TokenKeyName};
use super::remote_key::RemoteKey;
use super::service_task::ServiceTask;
use crate::base::secret::SecretBox;
use crate::base::time::{Clock, Now, Stopwatch, Within};
use crate::signing::algorithm::{KeyType, SigningAlgorithm};
use crate::signing::device_input::DeviceInput;
use crate::signing::public_key::PublicKey;
use crate::signing::signature::DigitalSignature;
use crate::signing::signer::{PendingSignature, SigningError};

/// The signatures that are asked of one service at once.
pub const SERVICE_PARALLEL: usize = 16;
/// The signatures that may wait for their turn.
const MOST_WAITING: usize = 2048;
/// A signature, its time in the queue included, takes no longer; a service that is silent has failed by then.
pub(super) const ANSWER_TIME: Duration = Duration::from_secs(1);
/// Reading a key takes no longer: starting a module and logging in may take their time.
pub(super) const OPEN_TIME: Duration = Duration::from_secs(10);

/// The name of a key at its service.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum KeyName {
    /// A key id, a key ARN, an alias or an alias ARN of AWS KMS.
    Kms(String),
    Token(TokenKeyName),
}

/// The settings of a service.
pub enum ServiceSettings {
    Kms(KmsSettings),
    Pkcs11(Pkcs11Settings),
    #[cfg(test)]
    Scripted(tests::ScriptedDevice),
}

impl ServiceSettings {
    /// Returns its name in logs, metrics and the status.
    pub fn title(&self) -> String {
        match self {
            ServiceSettings::Kms(settings) => settings.title(),
            ServiceSettings::Pkcs11(settings) => settings.title(),
            #[cfg(test)]
            ServiceSettings::Scripted(_) => "scripted".to_owned(),
        }
    }

    /// Returns a digest of all of them, secrets included.
    pub fn digest(&self) -> [u8; 32] {
        match self {
            ServiceSettings::Kms(settings) => settings.digest(),
            ServiceSettings::Pkcs11(settings) => settings.digest(),
            #[cfg(test)]
            ServiceSettings::Scripted(_) => [0; 32],
        }
    }
}

/// The state of a service, for the operator.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ServiceReport {
    pub title: String,
    /// When it stopped being asked; `None` while it is asked.
    pub open_since: Option<Now>,
    /// True if it is not tried again before the config is read anew.
    pub is_halted: bool,
    /// The last failure, while it is not asked.
    pub failure: Option<String>,
    /// Signatures since the start.
    pub signed: u64,
    /// Signatures that were asked for and not made.
    pub failed: u64,
}

/// A key service. Dropping it ends its task and its device.
pub struct KeyService {
    title: String,
    jobs: mpsc::Sender<ServiceJob>,
    state: Arc<ServiceState>,
}

/// The part of a service that other threads see.
pub(super) struct ServiceState {
    pub(super) title: String,
    pub(super) clock: Clock,
    pub(super) breaker: Mutex<Breaker>,
    pub(super) failure: Mutex<Option<String>>,
    /// The keys that were read.
    pub(super) keys: Mutex<HashMap<KeyName, KnownKey>>,
    /// The longest time that it took to read a key, in milliseconds.
    pub(super) slowest: AtomicU64,
    pub(super) signed: AtomicU64,
    pub(super) failed: AtomicU64,
}

/// A key that was read, with the results of its trials.
#[derive(Clone)]
pub(super) struct KnownKey {
    pub(super) public: PublicKey,
    /// The algorithms by which it has signed.
    pub(super) proven: Vec<SigningAlgorithm>,
    /// Those that were refused, where others were enough.
    pub(super) refused: Vec<SigningAlgorithm>,
}

/// The algorithms by which a key has to sign.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Proof {
    All,
    /// One of them is enough.
    Any,
}

impl KnownKey {
    /// Returns whether a trial of these algorithms would bring nothing new.
    fn answers(&self, algorithms: &[SigningAlgorithm], proof: Proof) -> bool {
        match proof {
            Proof::All => algorithms.iter().all(|algorithm| self.proven.contains(algorithm)),
            Proof::Any => {
                let tried = |algorithm| self.proven.contains(algorithm) || self.refused.contains(algorithm);
                let mut fitting = algorithms.iter().filter(|algorithm| algorithm.key_type() == self.public.key_type());
                algorithms.iter().any(|algorithm| self.proven.contains(algorithm)) && fitting.all(tried)
            }
        }
    }

    /// Adds what was known of the same key before.
    fn join(&mut self, before: KnownKey) {
        if before.public != self.public {
            return;
        }
        let new = before.proven.into_iter().filter(|algorithm| !self.proven.contains(algorithm)).collect::<Vec<_>>();
        self.proven.extend(new);
        let new = before.refused.into_iter().filter(|algorithm| !self.proven.contains(algorithm)).collect::<Vec<_>>();
        self.refused.extend(new);
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ServiceState {
    pub(super) fn step(&self, event: BreakerEvent, failure: Option<&str>) -> Breaker {
        let mut breaker = locked(&self.breaker);
        let before = *breaker;
        *breaker = before.step(event, self.clock.now());
        if before.admits() != breaker.admits() {
            if breaker.admits() {
                *locked(&self.failure) = None;
                tracing::info!(key_service = %self.title, "the key service answers again");
            } else {
                let why = failure.unwrap_or_default();
                *locked(&self.failure) = Some(why.to_owned());
                tracing::error!(key_service = %self.title, why, "the key service is gone: calls that need its signatures are refused until it answers");
            }
        } else if let (Some(why), false) = (failure, breaker.admits()) {
            *locked(&self.failure) = Some(why.to_owned());
        }
        *breaker
    }

    pub(super) fn breaker(&self) -> Breaker {
        *locked(&self.breaker)
    }
}

/// A piece of work for the task of a service.
pub(super) enum ServiceJob {
    Open {
        name: KeyName,
        algorithms: Vec<SigningAlgorithm>,
        proof: Proof,
        answer: SyncSender<Result<KnownKey, DeviceError>>,
    },
    Sign(SignJob),
    Unwrap {
        name: KeyName,
        ciphertext: Vec<u8>,
        answer: SyncSender<Result<SecretBox<[u8]>, DeviceError>>,
    },
}

pub(super) struct SignJob {
    pub(super) name: KeyName,
    pub(super) algorithm: SigningAlgorithm,
    pub(super) input: DeviceInput,
    pub(super) waiting: Stopwatch,
    pub(super) within: Duration,
    pub(super) answer: oneshot::Sender<Result<DigitalSignature, SigningError>>,
}

impl KeyService {
    pub(super) fn new(settings: ServiceSettings, clock: Clock) -> (Self, ServiceTask) {
        let (jobs, queue) = mpsc::channel(MOST_WAITING);
        let title = settings.title();
        let state = Arc::new(ServiceState {
            title: title.clone(),
            clock,
            breaker: Mutex::new(Breaker::closed()),
            failure: Mutex::default(),
            keys: Mutex::default(),
            slowest: AtomicU64::new(0),
            signed: AtomicU64::new(0),
            failed: AtomicU64::new(0),
        });
        (Self { title, jobs, state: state.clone() }, ServiceTask { settings, queue, state })
    }

    /// Reads the public half of a key, and tries whether it signs by each of these algorithms. A key that did so before
    /// is not asked for again. Blocks for ten seconds at most.
    pub fn key(self: &Arc<Self>, name: &KeyName, algorithms: &[SigningAlgorithm]) -> Result<RemoteKey, DeviceError> {
        let known = self.open(name, algorithms, Proof::All)?;
        Ok(RemoteKey::new(self.clone(), name.clone(), known.public))
    }

    /// The same for a key that has to sign by one of these algorithms. Returns also those by which it does.
    pub fn key_by_any(
        self: &Arc<Self>,
        name: &KeyName,
        algorithms: &[SigningAlgorithm],
    ) -> Result<(RemoteKey, Vec<SigningAlgorithm>), DeviceError> {
        let mut known = self.open(name, algorithms, Proof::Any)?;
        known.proven.retain(|algorithm| algorithms.contains(algorithm));
        Ok((RemoteKey::new(self.clone(), name.clone(), known.public), known.proven))
    }

    fn open(&self, name: &KeyName, algorithms: &[SigningAlgorithm], proof: Proof) -> Result<KnownKey, DeviceError> {
        let before = locked(&self.state.keys).get(name).cloned();
        if let Some(known) = before.as_ref().filter(|known| known.answers(algorithms, proof)) {
            return Ok(known.clone());
        }
        let (name_of_job, algorithms) = (name.clone(), algorithms.to_vec());
        let mut known = self.wait(|answer| ServiceJob::Open { name: name_of_job, algorithms, proof, answer })?;
        if let Some(before) = before {
            known.join(before);
        }
        locked(&self.state.keys).insert(name.clone(), known.clone());
        Ok(known)
    }

    /// Decrypts a wrapped key. Blocks for ten seconds at most.
    pub fn unwrap(&self, name: &KeyName, ciphertext: &[u8]) -> Result<SecretBox<[u8]>, DeviceError> {
        let (name, ciphertext) = (name.clone(), ciphertext.to_vec());
        self.wait(|answer| ServiceJob::Unwrap { name, ciphertext, answer })
    }

    /// Has the service do something, and waits for it.
    fn wait<T>(&self, job: impl FnOnce(SyncSender<Result<T, DeviceError>>) -> ServiceJob) -> Result<T, DeviceError> {
        let (answer, told) = sync_channel(1);
        let gone = || DeviceError::Failed("the key services of this process have ended".to_owned());
        self.jobs.try_send(job(answer)).map_err(|_| gone())?;
        match told.recv_timeout(OPEN_TIME + ANSWER_TIME) {
            Ok(told) => told,
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => Err(gone()),
        }
    }

    /// Returns the state for the operator.
    pub fn report(&self) -> ServiceReport {
        let breaker = self.state.breaker();
        ServiceReport {
            title: self.title.clone(),
            open_since: breaker.open_since(),
            is_halted: matches!(breaker, Breaker::Halted { .. }),
            failure: locked(&self.state.failure).clone(),
            signed: self.state.signed.load(Ordering::Relaxed),
            failed: self.state.failed.load(Ordering::Relaxed),
        }
    }

    pub(super) fn sign(
        &self,
        name: &KeyName,
        key: KeyType,
        algorithm: SigningAlgorithm,
        message: &[u8],
        within: Within,
    ) -> PendingSignature<'static> {
        let input = match DeviceInput::of(algorithm, message) {
            Some(input) if algorithm.key_type() == key => input,
            Some(_) | None => return Box::pin(std::future::ready(Err(SigningError::WrongKey { algorithm, key }))),
        };
        let refused = |why: String| -> PendingSignature<'static> {
            self.state.failed.fetch_add(1, Ordering::Relaxed);
            Box::pin(std::future::ready(Err(SigningError::Unavailable(why))))
        };
        if !self.state.breaker().admits() {
            return refused(self.unavailable());
        }
        let (answer, told) = oneshot::channel();
        let within = within.0.min(ANSWER_TIME);
        let job = SignJob { name: name.clone(), algorithm, input, waiting: Stopwatch::start(), within, answer };
        if let Err(error) = self.jobs.try_send(ServiceJob::Sign(job)) {
            return refused(match error {
                mpsc::error::TrySendError::Full(_) => format!("{}: too many messages wait for it", self.title),
                mpsc::error::TrySendError::Closed(_) => format!("{}: it has ended", self.title),
            });
        }
        let title = self.title.clone();
        Box::pin(async move {
            told.await.unwrap_or_else(|_| Err(SigningError::Unavailable(format!("{title}: it has ended"))))
        })
    }

    fn unavailable(&self) -> String {
        let why = locked(&self.state.failure).clone().unwrap_or_default();
        format!("{}: {why}", self.title)
    }
}

impl fmt::Debug for KeyService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("KeyService").field(&self.title).finish()
    }
}

#[cfg(test)]
pub(super) mod tests;
