//! Batching of the writes of one turn of the event loop.
//!
//! A turn gives a worker many sockets that became readable. Writing to another socket during the processing of each of
//! them makes the kernel wake a receiver every few microseconds and evicts the worker's data from the caches. A
//! [`CoalescedStream`] buffers the written bytes and adds itself to a list of its thread; one task per thread runs
//! after all tasks that are ready now, and sends the contents of every buffer. If no other task is ready, it runs at
//! once, so a single request does not wait.
//!
//! Back-pressure: a buffer that holds [`FULL`] bytes takes no more; the writer then waits until it is empty again. A
//! large write to an empty buffer goes straight to the socket. Buffers belong to the thread, so an idle connection has
//! none.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

use crate::base::sent_bytes::SentBytes;

/// An outbox that holds this much takes no more.
const FULL: usize = 32 * 1024;
/// A single write of this size gains nothing from waiting.
const LARGE: usize = 16 * 1024;
/// Empty buffers that a thread keeps.
const SPARES: usize = 64;

thread_local! {
    static TURN: FlushQueue = const { FlushQueue::new() };
}

/// A TCP stream whose writes wait for the end of the turn. Must be used on a thread with a local runtime.
pub struct CoalescedStream(Rc<CoalescedState>);

struct CoalescedState {
    stream: RefCell<TcpStream>,
    waiting: RefCell<WriteBuffer>,
    /// On the thread's list, or in the hands of a task of its own.
    queued: Cell<bool>,
    /// Bytes that the socket has taken.
    sent: Rc<SentBytes>,
}

#[derive(Default)]
struct WriteBuffer {
    bytes: Vec<u8>,
    sent: usize,
    /// The task that waits for the buffer to be empty.
    writer: Option<Waker>,
    /// The task that sends to a slow reader.
    slow: Option<Waker>,
    failed: Option<io::ErrorKind>,
}

/// The streams of one thread with unsent bytes, and its spare buffers.
struct FlushQueue {
    dirty: RefCell<Vec<Rc<CoalescedState>>>,
    spares: RefCell<Vec<Vec<u8>>>,
    sender: RefCell<Option<Waker>>,
    alive: RefCell<Weak<()>>,
}

impl CoalescedStream {
    /// A stream whose writes are gathered. `sent` counts what the socket takes of them.
    pub fn new(stream: TcpStream, sent: Rc<SentBytes>) -> Self {
        sent.begin();
        let (stream, waiting, queued) = (RefCell::new(stream), RefCell::default(), Cell::new(false));
        Self(Rc::new(CoalescedState { stream, waiting, queued, sent }))
    }

    /// Takes what there is room for, or says why not. Returns the number of bytes.
    fn take(&self, cx: &Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut waiting = self.0.waiting.borrow_mut();
        if let Some(kind) = waiting.failed {
            return Poll::Ready(Err(kind.into()));
        }
        if waiting.bytes.len() >= FULL {
            waiting.writer = Some(cx.waker().clone());
            return Poll::Pending;
        }
        if waiting.bytes.capacity() == 0 {
            waiting.bytes = TURN.with(FlushQueue::spare);
        }
        let before = waiting.bytes.len();
        let wanted = bufs.iter().map(|buf| buf.len()).sum::<usize>().saturating_add(before).min(FULL);
        if wanted > waiting.bytes.capacity() {
            // Two sizes beyond the first one: buffers of any size would leave holes of any size behind.
            waiting.bytes.reserve_exact(if wanted <= LARGE { LARGE } else { FULL } - before);
        }
        for buf in bufs {
            let fits = buf.len().min(FULL - waiting.bytes.len());
            waiting.bytes.extend_from_slice(buf.get(..fits).unwrap_or_default());
        }
        let taken = waiting.bytes.len() - before;
        drop(waiting);
        if !self.0.queued.replace(true) {
            TURN.with(|turn| turn.queue(self.0.clone()));
        }
        Poll::Ready(Ok(taken))
    }

    /// Returns whether a write of this size may go straight to the socket.
    fn passes(&self, length: usize) -> bool {
        let waiting = self.0.waiting.borrow();
        length >= LARGE && waiting.bytes.is_empty() && waiting.failed.is_none()
    }
}

impl CoalescedState {
    fn count(&self, bytes: usize) {
        self.sent.add(bytes);
    }

    /// Counts what a write that went straight to the socket came to.
    fn counted(&self, wrote: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = wrote {
            self.count(bytes);
        }
        wrote
    }

    /// Sends what the socket takes. Says whether that was everything; a failure is everything, too.
    fn send(&self) -> bool {
        let mut waiting = self.waiting.borrow_mut();
        let stream = self.stream.borrow();
        while let Some(rest) = waiting.bytes.get(waiting.sent..).filter(|rest| !rest.is_empty()) {
            match stream.try_write(rest) {
                Ok(0) => waiting.failed = Some(io::ErrorKind::WriteZero),
                Ok(sent) => {
                    waiting.sent += sent;
                    self.count(sent);
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => waiting.failed = Some(error.kind()),
            }
            break;
        }
        waiting.sent = 0;
        let mut spare = std::mem::take(&mut waiting.bytes);
        if let Some(writer) = waiting.writer.take() {
            writer.wake();
        }
        spare.clear();
        TURN.with(|turn| turn.keep(spare));
        self.queued.set(false);
        true
    }

    /// Sends the rest as the socket becomes writable, unless the connection is given up.
    async fn send_slowly(self: Rc<Self>) {
        poll_fn(|cx| {
            while Rc::strong_count(&self) > 1 && !self.send() {
                // While bytes are buffered, no other task waits for writability, so no other waker is displaced.
                match self.stream.borrow().poll_write_ready(cx) {
                    Poll::Ready(Ok(())) => {}
                    Poll::Ready(Err(error)) => {
                        let mut waiting = self.waiting.borrow_mut();
                        waiting.bytes.clear();
                        waiting.failed = Some(error.kind());
                    }
                    Poll::Pending => {
                        self.waiting.borrow_mut().slow = Some(cx.waker().clone());
                        return Poll::Pending;
                    }
                }
            }
            Poll::Ready(())
        })
        .await;
    }
}

impl Drop for CoalescedStream {
    /// Gives up bytes that wait for a slow reader. Bytes that wait for the end of the turn are still sent.
    fn drop(&mut self) {
        if let Some(slow) = self.0.waiting.borrow_mut().slow.take() {
            slow.wake();
        }
    }
}

impl FlushQueue {
    const fn new() -> Self {
        Self {
            dirty: RefCell::new(Vec::new()),
            spares: RefCell::new(Vec::new()),
            sender: RefCell::new(None),
            alive: RefCell::new(Weak::new()),
        }
    }

    fn spare(&self) -> Vec<u8> {
        self.spares.borrow_mut().pop().unwrap_or_else(|| Vec::with_capacity(4 * 1024))
    }

    fn keep(&self, spare: Vec<u8>) {
        let mut spares = self.spares.borrow_mut();
        if spares.len() < SPARES && spare.capacity() <= LARGE {
            spares.push(spare);
        }
    }

    fn queue(&self, coalesced: Rc<CoalescedState>) {
        let first = {
            let mut dirty = self.dirty.borrow_mut();
            dirty.push(coalesced);
            dirty.len() == 1
        };
        if self.alive.borrow().strong_count() == 0 {
            let token = Rc::new(());
            *self.alive.borrow_mut() = Rc::downgrade(&token);
            *self.sender.borrow_mut() = None;
            tokio::task::spawn_local(send_all(token));
        } else if first && let Some(sender) = &*self.sender.borrow() {
            sender.wake_by_ref();
        }
    }
}

/// The thread's sender: woken by the first write of a turn, it runs behind everything that was ready by then.
async fn send_all(token: Rc<()>) {
    poll_fn(|cx| {
        TURN.with(|turn| {
            let known = turn.sender.borrow().as_ref().is_some_and(|sender| sender.will_wake(cx.waker()));
            if !known {
                *turn.sender.borrow_mut() = Some(cx.waker().clone());
            }
            let mut dirty = std::mem::take(&mut *turn.dirty.borrow_mut());
            for coalesced in dirty.drain(..) {
                if !coalesced.send() {
                    tokio::task::spawn_local(coalesced.send_slowly());
                }
            }
            // No stream is queued while this task runs, so the memory of the list can be reused.
            let mut list = turn.dirty.borrow_mut();
            if list.is_empty() {
                *list = dirty;
            }
        });
        Poll::<()>::Pending
    })
    .await;
    drop(token);
}

impl AsyncRead for CoalescedStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_read(cx, buf)
    }
}

impl AsyncWrite for CoalescedStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.passes(buf.len()) {
            let wrote = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write(cx, buf);
            return self.0.counted(wrote);
        }
        self.take(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let length = bufs.iter().map(|buf| buf.len()).sum();
        if self.passes(length) {
            let wrote = Pin::new(&mut *self.0.stream.borrow_mut()).poll_write_vectored(cx, bufs);
            return self.0.counted(wrote);
        }
        self.take(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    /// Reports a failure of an earlier write, if there was one. Buffered bytes are sent without a flush.
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.0.waiting.borrow().failed.map_or(Ok(()), |kind| Err(kind.into())))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let mut waiting = self.0.waiting.borrow_mut();
            if let Some(kind) = waiting.failed {
                return Poll::Ready(Err(kind.into()));
            }
            if !waiting.bytes.is_empty() {
                waiting.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        Pin::new(&mut *self.0.stream.borrow_mut()).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::runtime::{Builder, LocalOptions};
    use tokio::time::timeout;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(20);

    fn with_pair<F: Future<Output = ()>>(test: impl FnOnce(CoalescedStream, TcpStream) -> F) {
        let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default()).unwrap();
        runtime.block_on(async {
            let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
            let far = TcpStream::connect(listener.local_addr().unwrap());
            let (near, far) = tokio::join!(listener.accept(), far);
            timeout(PATIENCE, test(CoalescedStream::new(near.unwrap().0, Rc::default()), far.unwrap())).await.unwrap();
        });
    }

    /// Writes until the buffer takes no more, and returns the number of bytes that it took.
    async fn fill(near: &mut CoalescedStream) -> usize {
        let piece = [7_u8; 4096];
        let mut taken = 0;
        poll_fn(|cx| {
            while let Poll::Ready(written) = Pin::new(&mut *near).poll_write(cx, &piece) {
                taken += written.unwrap();
            }
            Poll::Ready(())
        })
        .await;
        taken
    }

    #[test]
    fn nothing_leaves_before_the_end_of_the_turn_and_all_of_it_then() {
        with_pair(|mut near, mut far| async move {
            near.write_all(b"one ").await.unwrap();
            near.write_all(b"two").await.unwrap();
            near.flush().await.unwrap();
            assert_eq!(near.0.waiting.borrow().bytes, b"one two");
            let mut read = [0; 7];
            far.read_exact(&mut read).await.unwrap();
            assert_eq!(&read, b"one two");
            assert_eq!(near.0.waiting.borrow().bytes.capacity(), 0, "a quiet connection holds no buffer");
        });
    }

    #[test]
    fn pieces_of_every_size_arrive_in_order_at_a_slow_reader() {
        with_pair(|mut near, mut far| async move {
            let whole: Vec<u8> = (0..4_000_000_u32).map(|at| (at / 7) as u8).collect();
            let sent = whole.clone();
            tokio::task::spawn_local(async move {
                let mut rest = &sent[..];
                for size in [1, 300, 5_000, 20_000, 70_000, 900_000].into_iter().cycle() {
                    let piece = rest.split_off(..size.min(rest.len())).unwrap();
                    near.write_all(piece).await.unwrap();
                    if rest.is_empty() {
                        break;
                    }
                }
                near.shutdown().await.unwrap();
            });
            let mut read = Vec::new();
            while far.read_buf(&mut read).await.unwrap() > 0 {
                tokio::task::yield_now().await;
            }
            assert!(read == whole, "{} of {} bytes", read.len(), whole.len());
        });
    }

    #[test]
    fn a_full_outbox_makes_its_writer_wait() {
        with_pair(|mut near, mut far| async move {
            assert_eq!(fill(&mut near).await, FULL, "within one turn nothing leaves");
            let mut taken = FULL;
            loop {
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
                let more = fill(&mut near).await;
                taken += more;
                if more == 0 {
                    break;
                }
                assert!(taken < 64 << 20, "a reader that does not read must stop the writer");
            }
            let mut read = 0;
            let mut buffer = vec![0; 65536];
            while read < taken {
                read += far.read(&mut buffer).await.unwrap();
            }
            poll_fn(|cx| Pin::new(&mut near).poll_write(cx, b"x")).await.unwrap();
            assert_eq!(far.read(&mut buffer).await.unwrap(), 1);
        });
    }

    #[test]
    fn a_connection_that_is_given_up_does_not_wait_for_a_slow_reader() {
        with_pair(|mut near, mut far| async move {
            while fill(&mut near).await > 0 {
                for _ in 0..4 {
                    tokio::task::yield_now().await;
                }
            }
            let inner = Rc::downgrade(&near.0);
            drop(near);
            for _ in 0..4 {
                tokio::task::yield_now().await;
            }
            assert!(inner.upgrade().is_none(), "the socket is closed though the reader never read");
            let mut buffer = vec![0; 65536];
            while far.read(&mut buffer).await.unwrap_or(0) > 0 {}
        });
    }

    #[test]
    fn a_failure_reaches_the_writer() {
        with_pair(|mut near, far| async move {
            drop(far);
            loop {
                if near.write_all(b"anybody there?").await.is_err() {
                    break;
                }
                tokio::task::yield_now().await;
            }
            assert!(near.flush().await.is_err());
        });
    }
}
