//! Threads on which TLS may wait for a signature.

use std::io;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::signing::blocking_signature::may_block;

/// Threads that may wait for a key service, so many at a time. Those of a runtime's own pool are used; they end when
/// nobody has needed them for a while. Clones share their number.
#[derive(Clone, Debug)]
pub struct BlockingThreads(Arc<Semaphore>);

impl BlockingThreads {
    /// Allows so many threads at a time, over all runtimes.
    pub fn new(most: usize) -> Self {
        Self(Arc::new(Semaphore::new(most)))
    }

    /// Runs work on a thread of the runtime that may wait for signatures, once there is a turn for it. Work that has
    /// begun is not given up: it keeps its turn until it ends. The caller bounds the time.
    ///
    /// # Errors
    /// The work ended in a panic, or the runtime does.
    pub async fn run<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let turn = self.0.clone().acquire_owned().await.map_err(io::Error::other)?;
        let run = tokio::task::spawn_blocking(move || {
            let done = may_block(work);
            drop(turn);
            done
        });
        run.await.map_err(io::Error::other)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::task::{Context, Waker};
    use std::thread;

    use tokio::runtime::Builder;

    use super::*;

    #[test]
    fn work_runs_beside_the_event_loop_and_not_more_at_once_than_is_allowed() {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let (threads, own) = (BlockingThreads::new(1), thread::current().id());
            let (release, wait) = channel();
            let mut first = Box::pin(threads.run(move || wait.recv().map(|()| thread::current().id())));
            let mut second = Box::pin(threads.run(|| 2));
            let mut context = Context::from_waker(Waker::noop());
            assert!(first.as_mut().poll(&mut context).is_pending());
            assert_eq!(threads.0.available_permits(), 0, "one at a time");
            assert!(second.as_mut().poll(&mut context).is_pending());
            release.send(()).expect("it waits");
            let ran_on = first.await.expect("it ran").expect("released");
            assert_ne!(ran_on, own);
            assert_eq!(second.await.expect("it ran"), 2);
            assert_eq!(threads.0.available_permits(), 1, "a turn is given back");
        });
    }
}
