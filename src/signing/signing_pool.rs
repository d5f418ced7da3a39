//! Threads that sign: a signature with a private key takes a millisecond, which no event loop should spend.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

use super::algorithm::KeyType;
use super::algorithm::SigningAlgorithm;
use super::key::SigningKey;
use super::public_key::PublicKey;
use super::signature::DigitalSignature;
use super::signer::PendingSignature;
use super::signer::Signer;
use super::signer::SigningError;
use crate::base::time::Stopwatch;
use crate::base::time::Within;

/// The threads of the process's pool. Two sign some thousand messages in a second.
const THREADS: usize = 2;
/// The messages that may wait for a thread: at a millisecond each, the last one waits for an eighth of a second.
const MOST_WAITING: usize = 256;

/// Threads with a bounded queue of messages to sign.
#[derive(Clone)]
pub struct SigningPool {
    queue: SyncSender<SigningJob>,
}

impl SigningPool {
    /// Starts a pool. A thread that cannot be started is left out; without any, every message is refused.
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

    /// Returns the pool of the process, which starts with its first key.
    pub fn of_process() -> Self {
        static OF_PROCESS: LazyLock<SigningPool> = LazyLock::new(|| SigningPool::start(THREADS, MOST_WAITING));
        OF_PROCESS.clone()
    }

    /// Returns a signer whose signatures are made by these threads.
    pub fn signer(&self, key: Arc<SigningKey>) -> Arc<dyn Signer> {
        Arc::new(PooledKey { key, pool: self.clone() })
    }
}

impl fmt::Debug for SigningPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningPool").finish_non_exhaustive()
    }
}

/// Signs what comes, until no pool is left.
fn work(jobs: &Mutex<Receiver<SigningJob>>) {
    loop {
        // The lock is held while one thread waits; the others wait for the lock.
        let next = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = next else { return };
        let made = if job.waiting.elapsed() > job.within.0 {
            Err(SigningError::Unavailable("its turn came too late".to_owned()))
        } else {
            job.key.sign(job.algorithm, &job.message)
        };
        job.answer.give(made);
    }
}

/// A message to sign.
struct SigningJob {
    key: Arc<SigningKey>,
    algorithm: SigningAlgorithm,
    message: Vec<u8>,
    waiting: Stopwatch,
    within: Within,
    answer: SignatureAnswer,
}

/// The place of a signature, empty until it is made.
#[derive(Default)]
struct AnswerSlot {
    made: Option<Result<DigitalSignature, SigningError>>,
    waker: Option<Waker>,
}

fn locked(slot: &Mutex<AnswerSlot>) -> MutexGuard<'_, AnswerSlot> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread's end of a signature's place. A thread that ends before it has signed leaves an error.
struct SignatureAnswer(Arc<Mutex<AnswerSlot>>);

impl SignatureAnswer {
    fn give(&self, made: Result<DigitalSignature, SigningError>) {
        let mut slot = locked(&self.0);
        slot.made.get_or_insert(made);
        let waker = slot.waker.take();
        drop(slot);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

impl Drop for SignatureAnswer {
    fn drop(&mut self) {
        self.give(Err(SigningError::Unavailable("its thread has ended".to_owned())));
    }
}

/// The other end of it.
struct PooledSignature(Arc<Mutex<AnswerSlot>>);

impl Future for PooledSignature {
    type Output = Result<DigitalSignature, SigningError>;

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
    pool: SigningPool,
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
        let slot = Arc::<Mutex<AnswerSlot>>::default();
        let job = SigningJob {
            key: self.key.clone(),
            algorithm,
            message: message.to_vec(),
            waiting: Stopwatch::start(),
            within,
            answer: SignatureAnswer(slot.clone()),
        };
        let refused = |why: &str| Err(SigningError::Unavailable(why.to_owned()));
        match self.pool.queue.try_send(job) {
            Ok(()) => Box::pin(PooledSignature(slot)),
            Err(TrySendError::Full(_)) => Box::pin(std::future::ready(refused("too many messages wait for it"))),
            Err(TrySendError::Disconnected(_)) => Box::pin(std::future::ready(refused("it has no threads"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;
    use std::thread::Thread;
    use std::time::Duration;

    use super::super::pkcs;
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
        let (key, pool) = (key(), SigningPool::start(2, 8));
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
        let none = SigningPool::start(0, 8).signer(key());
        let made = finished(none.sign(SigningAlgorithm::Rs256, b"m", SOON));
        assert_eq!(made, Err(SigningError::Unavailable("it has no threads".to_owned())));
        let late = SigningPool::start(1, 8).signer(key());
        let made = finished(late.sign(SigningAlgorithm::Rs256, b"m", Within(Duration::ZERO)));
        assert_eq!(made, Err(SigningError::Unavailable("its turn came too late".to_owned())));
        // A queue without room: a message is taken only while a thread waits for one.
        let narrow = SigningPool::start(1, 0).signer(key());
        let made: Vec<_> = (0..50).map(|_| narrow.sign(SigningAlgorithm::Rs256, b"m", SOON)).collect();
        let mut full = 0;
        for made in made {
            full += usize::from(finished(made).is_err());
        }
        assert!(full > 0, "fifty messages at once are too many");
    }
}
