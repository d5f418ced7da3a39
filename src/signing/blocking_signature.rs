//! Signatures for interfaces that are synchronous, such as those of TLS and of certificates: they ask for a signature
//! and want it at once, while a key of a key service makes it elsewhere and later.
//!
//! A thread that runs an event loop must never wait for one. So a signature is waited for inside [`may_block`] alone,
//! which a thread without an event loop enters; anywhere else [`sign_blocking`] is an error, and no signature is asked
//! for.

use std::cell::Cell;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use super::algorithm::SigningAlgorithm;
use super::signature::DigitalSignature;
use super::signer::{Signer, SigningError};
use crate::base::time::{Stopwatch, Within};

/// A signature takes no longer.
const LIMIT: Duration = Duration::from_secs(1);
/// A signer that keeps to its limit has answered by then.
const GRACE: Duration = Duration::from_millis(250);

thread_local! {
    static MAY_BLOCK: Cell<bool> = const { Cell::new(false) };
}

/// The end of a stretch in which the thread may block.
struct BlockingStretch {
    before: bool,
}

impl Drop for BlockingStretch {
    fn drop(&mut self) {
        MAY_BLOCK.set(self.before);
    }
}

/// Runs work that may wait for signatures. To be called on a thread that has no event loop.
pub fn may_block<T>(work: impl FnOnce() -> T) -> T {
    let _stretch = BlockingStretch { before: MAY_BLOCK.replace(true) };
    work()
}

/// Signs a message, and waits for the signature: a second at most. An error outside of [`may_block`].
pub fn sign_blocking(
    signer: &dyn Signer,
    algorithm: SigningAlgorithm,
    message: &[u8],
) -> Result<DigitalSignature, SigningError> {
    if !MAY_BLOCK.get() {
        return Err(SigningError::Unavailable("this thread may not wait for a signature".to_owned()));
    }
    let waker = Waker::from(Arc::new(Unparker(thread::current())));
    let (mut pending, waiting) = (signer.sign(algorithm, message, Within(LIMIT)), Stopwatch::start());
    loop {
        if let Poll::Ready(made) = pending.as_mut().poll(&mut Context::from_waker(&waker)) {
            return made;
        }
        let left = (LIMIT + GRACE).saturating_sub(waiting.elapsed());
        if left.is_zero() {
            return Err(SigningError::Unavailable("no signature within a second".to_owned()));
        }
        thread::park_timeout(left);
    }
}

/// Wakes a thread that waits for a signature.
struct Unparker(Thread);

impl Wake for Unparker {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use super::super::algorithm::KeyType;
    use super::super::key::SigningKey;
    use super::super::pkcs;
    use super::super::private_key_pool::PrivateKeyPool;
    use super::super::public_key::{PublicKey, VerifyingKey};
    use super::super::signer::PendingSignature;
    use super::*;

    /// A signer that never answers.
    #[derive(Debug)]
    struct SilentSigner;

    impl Signer for SilentSigner {
        fn key_type(&self) -> KeyType {
            KeyType::Rsa
        }

        fn public_key(&self) -> Option<PublicKey> {
            None
        }

        fn sign<'a>(&'a self, _: SigningAlgorithm, _: &'a [u8], _: Within) -> PendingSignature<'a> {
            Box::pin(pending())
        }
    }

    #[test]
    fn a_signature_of_another_thread_is_waited_for_where_the_thread_may_block() {
        let pem = include_bytes!("../../tests/fixtures/signing/rsa-pkcs8.pem");
        let key = Arc::new(SigningKey::Private(pkcs::private_key(pem, None).expect("a key")));
        let public = key.public().expect("a public key").clone();
        let signer = PrivateKeyPool::start(1, 8).signer(key);
        let sign = || sign_blocking(&*signer, SigningAlgorithm::Ps256, b"m");
        let refused = sign();
        assert!(matches!(&refused, Err(SigningError::Unavailable(why)) if why.contains("may not wait")), "{refused:?}");
        let made = may_block(sign).expect("a signature");
        assert!(VerifyingKey::Public(public).verify(SigningAlgorithm::Ps256, b"m", made.bytes()));
        assert!(sign().is_err(), "the stretch has ended");
    }

    #[test]
    fn a_signer_that_never_answers_is_given_up() {
        let waited = Stopwatch::start();
        let made = may_block(|| sign_blocking(&SilentSigner, SigningAlgorithm::Ps256, b"m"));
        assert!(matches!(&made, Err(SigningError::Unavailable(why)) if why.contains("within a second")), "{made:?}");
        assert!((LIMIT..LIMIT * 3).contains(&waited.elapsed()), "{:?}", waited.elapsed());
    }
}
