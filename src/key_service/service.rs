//! A key service: its queue, its breaker, and the task that drives its device.

use std::collections::HashMap;
use std::fmt;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc, oneshot};
use tokio::time::{sleep, timeout};

use super::breaker::{Breaker, BreakerEvent};
use super::device::{DeviceError, KeyDevice, KeyPart};
use super::kms::KmsSettings;
use super::pkcs11::{Pkcs11Settings, TokenKeyName};
use super::remote_key::RemoteKey;
use crate::base::time::{Clock, Now, Stopwatch, Within, millis};
use crate::signing::algorithm::{KeyType, SigningAlgorithm};
use crate::signing::device_input::DeviceInput;
use crate::signing::public_key::{PublicKey, VerifyingKey};
use crate::signing::signature::DigitalSignature;
use crate::signing::signer::{PendingSignature, SigningError};

/// The signatures that are asked of one service at once.
pub const SERVICE_PARALLEL: usize = 16;
/// The signatures that may wait for their turn.
const MOST_WAITING: usize = 2048;
/// A signature, its time in the queue included, takes no longer; a service that is silent has failed by then.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// A trial takes no longer, unless reading the key took more than half of it.
const TRIAL_TIME: Duration = Duration::from_millis(2500);
/// Reading a key takes no longer: starting a module and logging in may take their time.
const OPEN_TIME: Duration = Duration::from_secs(10);

/// The message that is signed when a key is read, to see that it can be.
const PROOF: &[u8] = b"countersign reads a key and tries whether it signs";

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

    pub(super) fn digest(&self) -> [u8; 32] {
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
struct ServiceState {
    title: String,
    clock: Clock,
    breaker: Mutex<Breaker>,
    failure: Mutex<Option<String>>,
    /// The public keys that were read, with the algorithms by which they have signed.
    keys: Mutex<HashMap<KeyName, (PublicKey, Vec<SigningAlgorithm>)>>,
    /// The longest time that it took to read a key, in milliseconds.
    slowest: AtomicU64,
    signed: AtomicU64,
    failed: AtomicU64,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl ServiceState {
    fn step(&self, event: BreakerEvent, failure: Option<&str>) -> Breaker {
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

    fn breaker(&self) -> Breaker {
        *locked(&self.breaker)
    }
}

/// A piece of work for the task of a service.
enum ServiceJob {
    Open { name: KeyName, algorithms: Vec<SigningAlgorithm>, answer: SyncSender<Result<PublicKey, DeviceError>> },
    Sign(SignJob),
}

struct SignJob {
    name: KeyName,
    algorithm: SigningAlgorithm,
    input: DeviceInput,
    waiting: Stopwatch,
    within: Duration,
    answer: oneshot::Sender<Result<DigitalSignature, SigningError>>,
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
        let known = locked(&self.state.keys).get(name).cloned();
        if let Some((public, proven)) = known
            && algorithms.iter().all(|algorithm| proven.contains(algorithm))
        {
            return Ok(RemoteKey::new(self.clone(), name.clone(), public));
        }
        let (answer, told) = sync_channel(1);
        let job = ServiceJob::Open { name: name.clone(), algorithms: algorithms.to_vec(), answer };
        let gone = || DeviceError::Failed("the key services of this process have ended".to_owned());
        self.jobs.try_send(job).map_err(|_| gone())?;
        let public = match told.recv_timeout(OPEN_TIME + ANSWER_TIME) {
            Ok(told) => told?,
            Err(RecvTimeoutError::Disconnected | RecvTimeoutError::Timeout) => return Err(gone()),
        };
        locked(&self.state.keys).insert(name.clone(), (public.clone(), algorithms.to_vec()));
        Ok(RemoteKey::new(self.clone(), name.clone(), public))
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

/// The task of a service, before it runs.
pub(super) struct ServiceTask {
    settings: ServiceSettings,
    queue: mpsc::Receiver<ServiceJob>,
    state: Arc<ServiceState>,
}

/// What the work of a service shares on its thread.
struct ServiceWork {
    device: KeyDevice,
    state: Arc<ServiceState>,
    /// Woken when the breaker has opened, or a trial has ended.
    changed: Notify,
}

impl ServiceTask {
    /// Works until the service is dropped.
    pub(super) async fn run(mut self) {
        let work =
            Rc::new(ServiceWork { device: KeyDevice::new(self.settings), state: self.state, changed: Notify::new() });
        let turns = Arc::new(Semaphore::new(SERVICE_PARALLEL));
        loop {
            let trial = work.state.breaker().trial_in(work.state.clock.now());
            tokio::select! {
                next = next_job(&turns, &mut self.queue) => {
                    let Some((turn, job)) = next else { return };
                    let work = work.clone();
                    tokio::task::spawn_local(async move {
                        work.job(job).await;
                        drop(turn);
                    });
                }
                () = sleep(trial.unwrap_or_default()), if trial.is_some() => {
                    work.state.step(BreakerEvent::TrialBegan, None);
                    let work = work.clone();
                    tokio::task::spawn_local(async move { work.try_again().await });
                }
                () = work.changed.notified() => {}
            }
        }
    }
}

/// The next job, once there is a turn for it; `None` when no more will come.
async fn next_job(
    turns: &Arc<Semaphore>,
    queue: &mut mpsc::Receiver<ServiceJob>,
) -> Option<(OwnedSemaphorePermit, ServiceJob)> {
    let turn = turns.clone().acquire_owned().await.ok()?;
    Some((turn, queue.recv().await?))
}

impl ServiceWork {
    async fn job(&self, job: ServiceJob) {
        match job {
            ServiceJob::Open { name, algorithms, answer } => {
                let late = || Err(DeviceError::Failed(format!("no answer within {} s", OPEN_TIME.as_secs())));
                let taken = Stopwatch::start();
                let opened = timeout(OPEN_TIME, self.open(&name, &algorithms)).await.unwrap_or_else(|_| late());
                self.state.slowest.fetch_max(millis(taken.elapsed()), Ordering::Relaxed);
                // A reader that has given up is no error.
                let _ = answer.send(opened);
            }
            ServiceJob::Sign(job) => {
                let made = self.sign(&job).await;
                let counter = if made.is_ok() { &self.state.signed } else { &self.state.failed };
                counter.fetch_add(1, Ordering::Relaxed);
                // A caller that has hung up is no error.
                let _ = job.answer.send(made);
            }
        }
    }

    /// Reads a key, and signs with it.
    async fn open(&self, name: &KeyName, algorithms: &[SigningAlgorithm]) -> Result<PublicKey, DeviceError> {
        let public = self.device.public_key(name).await?;
        for algorithm in algorithms.iter().filter(|algorithm| algorithm.key_type() == public.key_type()) {
            let Some(input) = DeviceInput::of(*algorithm, PROOF) else { continue };
            let made = self.device.sign(name, *algorithm, &input).await?;
            if !VerifyingKey::Public(public.clone()).verify(*algorithm, PROOF, made.bytes()) {
                let what = format!("what the key signs by {algorithm} does not fit its own public key");
                let cure = "the private and the public key of this name do not belong together";
                return Err(DeviceError::refused(KeyPart::Key, what, cure));
            }
        }
        Ok(public)
    }

    async fn sign(&self, job: &SignJob) -> Result<DigitalSignature, SigningError> {
        let title = &self.state.title;
        let unavailable = |why: &str| SigningError::Unavailable(format!("{title}: {why}"));
        if !self.state.breaker().admits() {
            return Err(unavailable(locked(&self.state.failure).as_deref().unwrap_or_default()));
        }
        let left = job.within.saturating_sub(job.waiting.elapsed());
        if left.is_zero() || job.answer.is_closed() {
            return Err(unavailable("its turn came too late"));
        }
        let asked = timeout(left, self.device.sign(&job.name, job.algorithm, &job.input)).await;
        let (event, made) = match asked {
            Ok(Ok(made)) => (Some(BreakerEvent::Answered), Ok(made)),
            Ok(Err(DeviceError::Refused(problem))) => (Some(BreakerEvent::Answered), Err(problem.to_string())),
            Ok(Err(DeviceError::Failed(why))) => (Some(BreakerEvent::Failed), Err(why)),
            Ok(Err(DeviceError::Ended(why))) => (Some(BreakerEvent::Ended), Err(why)),
            // A signature that had hardly any time left says nothing about the service.
            Err(_) => {
                let event = (left >= ANSWER_TIME / 2).then_some(BreakerEvent::Failed);
                (event, Err(format!("no answer within {} ms", job.within.as_millis())))
            }
        };
        if let Some(event) = event {
            let was_asked = self.state.breaker().admits();
            let is_asked = self.state.step(event, made.as_ref().err().map(String::as_str)).admits();
            if was_asked && !is_asked {
                self.device.abandon();
                self.changed.notify_one();
            }
        }
        made.map_err(|why| unavailable(&why))
    }

    /// Tries whether the device is there again, and all that was read of it.
    async fn try_again(&self) {
        let name = locked(&self.state.keys).keys().next().cloned();
        let limit = TRIAL_TIME.max(Duration::from_millis(self.state.slowest.load(Ordering::Relaxed)) * 2);
        let tried = match name {
            Some(name) => timeout(limit, self.device.try_again(&name)).await,
            None => Ok(Ok(())),
        };
        let (event, why) = match tried {
            Ok(Ok(())) => (BreakerEvent::TrialWorked, None),
            Ok(Err(DeviceError::Refused(problem))) if problem.is_final() => {
                (BreakerEvent::TrialRefused, Some(problem.to_string()))
            }
            Ok(Err(error)) => (BreakerEvent::TrialFailed, Some(error.to_string())),
            Err(_) => (BreakerEvent::TrialFailed, Some(format!("no answer within {} ms", limit.as_millis()))),
        };
        if event != BreakerEvent::TrialWorked {
            self.device.abandon();
        }
        self.state.step(event, why.as_deref());
        self.changed.notify_one();
    }
}

#[cfg(test)]
pub(super) mod tests;
