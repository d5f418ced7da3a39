//! Threads that sign and decrypt: an operation with a private key takes a millisecond, which no event loop should spend.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use thiserror::Error;

use super::algorithm::KeyType;
use super::algorithm::SigningAlgorithm;
use super::key::SigningKey;
use super::public_key::PublicKey;
use super::signer::PendingSignature;
use super::signer::Signer;
use super::signer::SigningError;
use crate::base::time::Stopwatch;
use crate::base::time::Within;

/// The threads of the process's pool. Two sign some thousand messages in a second.
const THREADS: usize = 2;
/// The operations that may wait for a thread: at a millisecond each, the last one waits for an eighth of a second.
const MOST_WAITING: usize = 256;

/// Threads with a bounded queue of operations.
#[derive(Clone)]
pub struct PrivateKeyPool {
    queue: SyncSender<Job>,
}

/// The reason for which an operation was not performed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PoolError {
    #[error("its thread has ended")]
    Ended,
    #[error("too many messages wait for it")]
    Full,
    #[error("its turn came too late")]
    Late,
    #[error("it has no threads")]
    NoThreads,
}

impl PrivateKeyPool {
    /// Starts a pool. A thread that cannot be started is left out; without any, every operation is refused.
    pub fn start(threads: usize, most_waiting: usize) -> Self {
        let (queue, jobs) = sync_channel(most_waiting);
        let jobs = Arc::new(Mutex::new(jobs));
        for number in 0..threads {
            let jobs = jobs.clone();
            let started = thread::Builder::new().name(format!("signing-{number}")).spawn(move || work(&jobs));
            if let Err(error) = started {
                tracing::error!(%error, "a thread for signatures cannot be started");
            }
        }
        Self { queue }
    }

    /// Returns the pool of the process, which starts with its first operation.
    pub fn of_process() -> Self {
        static OF_PROCESS: LazyLock<PrivateKeyPool> = LazyLock::new(|| PrivateKeyPool::start(THREADS, MOST_WAITING));
        OF_PROCESS.clone()
    }

    /// Returns a signer whose signatures are made by these threads.
    pub fn signer(&self, key: Arc<SigningKey>) -> Arc<dyn Signer> {
        Arc::new(PooledKey { key, pool: self.clone() })
    }

    /// Has one of the threads perform an operation, if its turn comes in time.
    pub async fn run<T: Send + 'static>(
        &self,
        within: Within,
        operation: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, PoolError> {
        let slot = Arc::new(Mutex::new(ResultSlot::default()));
        let (given, waiting) = (SlotWriter(slot.clone()), Stopwatch::start());
        let job = move || given.give(if waiting.elapsed() > within.0 { Err(PoolError::Late) } else { Ok(operation()) });
        match self.queue.try_send(Box::new(job)) {
            Ok(()) => PendingResult(slot).await,
            Err(TrySendError::Full(_)) => Err(PoolError::Full),
            Err(TrySendError::Disconnected(_)) => Err(PoolError::NoThreads),
        }
    }
}

impl fmt::Debug for PrivateKeyPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PrivateKeyPool").finish_non_exhaustive()
    }
}

/// An operation with its arguments, and the place of its result.
type Job = Box<dyn FnOnce() + Send>;

/// Performs what comes, until no pool is left.
fn work(jobs: &Mutex<Receiver<Job>>) {
    loop {
        // The lock is held while one thread waits; the others wait for the lock.
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        job();
    }
}

/// The place of a result, empty until it is there.
struct ResultSlot<T> {
    made: Option<Result<T, PoolError>>,
    waker: Option<Waker>,
}

impl<T> Default for ResultSlot<T> {
    fn default() -> Self {
        Self { made: None, waker: None }
    }
}

fn locked<T>(slot: &Mutex<ResultSlot<T>>) -> MutexGuard<'_, ResultSlot<T>> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's end of a result's place. An operation that is dropped before it has a result leaves an error.
struct SlotWriter<T>(Arc<Mutex<ResultSlot<T>>>);

impl<T> SlotWriter<T> {
    fn give(&self, made: Result<T, PoolError>) {
        let mut slot = locked(&self.0);
        slot.made.get_or_insert(made);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl<T> Drop for SlotWriter<T> {
    fn drop(&mut self) {
        self.give(Err(PoolError::Ended));
    }
}

/// The other end of it.
struct PendingResult<T>(Arc<Mutex<ResultSlot<T>>>);

impl<T> Future for PendingResult<T> {
    type Output = Result<T, PoolError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut slot = locked(&self.0);
        match slot.made.take() {
            Some(made) => Poll::Ready(made),
            None => {
                slot.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A key in memory, used by the threads of a pool.
struct PooledKey {
    key: Arc<SigningKey>,
    pool: PrivateKeyPool,
}

impl fmt::Debug for PooledKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PooledKey").field(&self.key).finish()
    }
}

impl Signer for PooledKey {
    fn key_type(&self) -> KeyType {
        self.key.key_type()
    }

    fn public_key(&self) -> Option<PublicKey> {
        self.key.public().cloned()
    }

    fn sign<'a>(&'a self, algorithm: SigningAlgorithm, message: &'a [u8], within: Within) -> PendingSignature<'a> {
        let (key, message) = (self.key.clone(), message.to_vec());
        Box::pin(async move {
            let signed = self.pool.run(within, move || key.sign(algorithm, &message)).await;
            signed.unwrap_or_else(|error| Err(SigningError::Unavailable(error.to_string())))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;
    use std::thread::Thread;
    use std::time::Duration;

    use super::super::pkcs;
    use super::super::signature::DigitalSignature;
    use super::*;

    fn key() -> Arc<SigningKey> {
        let pem = include_bytes!("../../tests/fixtures/signing/rsa-pkcs8.pem");
        Arc::new(SigningKey::Private(pkcs::private_key(pem, None).unwrap()))
    }

    const SOON: Within = Within(Duration::from_secs(60));

    struct Unpark(Thread);

    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }

    fn finished(mut pending: PendingSignature<'_>) -> Result<DigitalSignature, SigningError> {
        let waker = Waker::from(Arc::new(Unpark(thread::current())));
        loop {
            match pending.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(made) => return made,
                Poll::Pending => thread::park(),
            }
        }
    }

    #[test]
    fn a_pool_signs_as_the_key_itself_does() {
        let (key, pool) = (key(), PrivateKeyPool::start(2, 8));
        let signer = pool.signer(key.clone());
        for message in [&b"one"[..], b"two", b""] {
            let made = finished(signer.sign(SigningAlgorithm::Rs256, message, SOON));
            assert_eq!(made, key.sign(SigningAlgorithm::Rs256, message));
        }
        let wrong = finished(signer.sign(SigningAlgorithm::Es256, b"one", SOON));
        assert!(matches!(wrong, Err(SigningError::WrongKey { .. })), "{wrong:?}");
    }

    #[test]
    fn a_full_queue_a_late_turn_and_a_dead_pool_are_errors() {
        let none = PrivateKeyPool::start(0, 8).signer(key());
        let made = finished(none.sign(SigningAlgorithm::Rs256, b"m", SOON));
        assert_eq!(made, Err(SigningError::Unavailable("it has no threads".to_owned())));
        let late = PrivateKeyPool::start(1, 8).signer(key());
        let made = finished(late.sign(SigningAlgorithm::Rs256, b"m", Within(Duration::ZERO)));
        assert_eq!(made, Err(SigningError::Unavailable("its turn came too late".to_owned())));
        // A queue without room: a message is taken only while a thread waits for one.
        let narrow = PrivateKeyPool::start(1, 0).signer(key());
        let asked = (0..50).map(|_| narrow.sign(SigningAlgorithm::Rs256, b"m", SOON));
        let mut polled: Vec<_> = asked
            .map(|mut signature| (signature.as_mut().poll(&mut Context::from_waker(Waker::noop())), signature))
            .collect();
        let full = polled.iter().filter(|(polled, _)| matches!(polled, Poll::Ready(Err(_)))).count();
        polled.retain(|(polled, _)| polled.is_pending());
        for (_, taken) in polled {
            assert!(finished(taken).is_ok());
        }
        assert!(full > 0, "fifty messages at once are too many");
    }
}
