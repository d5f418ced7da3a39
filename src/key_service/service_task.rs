//! The task that drives the device of a key service.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::{sleep, timeout};

use super::breaker::BreakerEvent;
use super::device::{DeviceError, KeyDevice, KeyPart};
use super::service::{
    ANSWER_TIME, KeyName, KnownKey, OPEN_TIME, Proof, SERVICE_PARALLEL, ServiceJob, ServiceSettings, ServiceState,
    SignJob, locked,
};
use crate::base::time::{Stopwatch, millis};
use crate::signing::algorithm::SigningAlgorithm;
use crate::signing::device_input::DeviceInput;
use crate::signing::public_key::VerifyingKey;
use crate::signing::signature::DigitalSignature;
use crate::signing::signer::SigningError;

/// A trial takes no longer, unless reading the key took more than half of it.
const TRIAL_TIME: Duration = Duration::from_millis(2500);

/// The message that is signed when a key is read, to see that it can be.
pub(super) const PROOF: &[u8] = b"countersign reads a key and tries whether it signs";

/// The task of a service, before it runs.
pub(super) struct ServiceTask {
    pub(super) settings: ServiceSettings,
    pub(super) queue: mpsc::Receiver<ServiceJob>,
    pub(super) state: Arc<ServiceState>,
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
            ServiceJob::Open { name, algorithms, proof, answer } => {
                let late = || Err(DeviceError::Failed(format!("no answer within {} s", OPEN_TIME.as_secs())));
                let taken = Stopwatch::start();
                let opened = timeout(OPEN_TIME, self.open(&name, &algorithms, proof)).await.unwrap_or_else(|_| late());
                self.state.slowest.fetch_max(millis(taken.elapsed()), Ordering::Relaxed);
                // A reader that has given up is no error.
                let _ = answer.send(opened);
            }
            ServiceJob::Unwrap { name, ciphertext, answer } => {
                let late = || Err(DeviceError::Failed(format!("no answer within {} s", OPEN_TIME.as_secs())));
                let unwrapped = timeout(OPEN_TIME, self.device.unwrap(&name, &ciphertext)).await;
                // A reader that has given up is no error.
                let _ = answer.send(unwrapped.unwrap_or_else(|_| late()));
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
    async fn open(
        &self,
        name: &KeyName,
        algorithms: &[SigningAlgorithm],
        proof: Proof,
    ) -> Result<KnownKey, DeviceError> {
        let public = self.device.public_key(name).await?;
        let (mut proven, mut refused, mut problem) = (Vec::new(), Vec::new(), None);
        for algorithm in algorithms.iter().filter(|algorithm| algorithm.key_type() == public.key_type()) {
            let Some(input) = DeviceInput::of(*algorithm, PROOF) else { continue };
            let made = match self.device.sign(name, *algorithm, &input).await {
                Ok(made) => made,
                Err(DeviceError::Refused(why)) if proof == Proof::Any && why.part == KeyPart::Key => {
                    refused.push(*algorithm);
                    problem.get_or_insert(why);
                    continue;
                }
                Err(error) => return Err(error),
            };
            if !VerifyingKey::Public(public.clone()).verify(*algorithm, PROOF, made.bytes()) {
                let what = format!("what the key signs by {algorithm} does not fit its own public key");
                let cure = "the private and the public key of this name do not belong together";
                return Err(DeviceError::refused(KeyPart::Key, what, cure));
            }
            proven.push(*algorithm);
        }
        match problem {
            Some(problem) if proven.is_empty() => Err(DeviceError::Refused(problem)),
            _ => Ok(KnownKey { public, proven, refused }),
        }
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
