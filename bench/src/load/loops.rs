//! What each connection does until the window closes.

use std::cell::RefCell;
use std::io;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper::header::{ACCEPT, AUTHORIZATION, USER_AGENT};
use hyper::{Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;

use super::exchange::{begin, exchange, open, request};
use super::histogram::Histogram;
use super::{Mode, Plan};
use crate::job;

/// What countersign calls the error of a call that could not be signed.
const UNSIGNED: &[u8] = b"signer-unavailable";
const BUFFER: usize = 64 << 10;
/// After a failure a connection rests, so that a broken contender is not hammered.
const REST: Duration = Duration::from_millis(20);

type Latency = Rc<RefCell<Histogram>>;

/// Starts the tasks of one thread.
pub fn spawn(plan: &Rc<Plan>, latency: &Latency) {
    if plan.mode == Mode::Rate {
        let mut queues = Vec::new();
        for _ in 0..plan.connections {
            let (queue, due) = mpsc::unbounded_channel();
            queues.push(queue);
            tokio::task::spawn_local(on_time(plan.clone(), latency.clone(), due));
        }
        tokio::task::spawn_local(pace(plan.clone(), queues));
        return;
    }
    for _ in 0..plan.connections {
        let (plan, latency) = (plan.clone(), latency.clone());
        tokio::task::spawn_local(async move {
            match plan.mode {
                Mode::H2 => streams(plan, latency).await,
                Mode::Idle => idle(plan).await,
                Mode::Keep | Mode::Rate => keep(plan, latency).await,
                Mode::New | Mode::Resumed => anew(plan, latency).await,
                Mode::Stall => stall(plan).await,
                Mode::StallH2 => stall_streams(plan).await,
            }
        });
    }
}

impl Plan {
    async fn note(&self, latency: &Latency, since: Instant, done: io::Result<u64>) -> bool {
        match done {
            Ok(bytes) => {
                self.tally.done.fetch_add(1, Relaxed);
                self.tally.bytes.fetch_add(bytes, Relaxed);
                if self.tally.open.load(Relaxed) {
                    latency.borrow_mut().record(u64::try_from(since.elapsed().as_nanos()).unwrap_or(u64::MAX));
                }
                true
            }
            Err(error) => {
                if self.tally.errors.fetch_add(1, Relaxed) < 3 {
                    eprintln!("load: {error}");
                }
                tokio::time::sleep(REST).await;
                false
            }
        }
    }
}

async fn keep(plan: Rc<Plan>, latency: Latency) {
    let (mut request, mut buffer) = (request(&plan), vec![0; BUFFER]);
    loop {
        let mut stream = match open(&plan).await {
            Ok(stream) => stream,
            Err(error) => {
                plan.note(&latency, Instant::now(), Err(error)).await;
                continue;
            }
        };
        loop {
            let since = Instant::now();
            request.turn();
            let done = exchange(&mut stream, &request, &mut buffer).await;
            if !plan.note(&latency, since, done).await {
                break;
            }
        }
    }
}

async fn anew(plan: Rc<Plan>, latency: Latency) {
    let (request, mut buffer) = (request(&plan), vec![0; BUFFER]);
    loop {
        let since = Instant::now();
        let done = async {
            let mut stream = open(&plan).await?;
            let bytes = exchange(&mut stream, &request, &mut buffer).await?;
            let _ = stream.shutdown().await;
            Ok(bytes)
        };
        let done = done.await;
        plan.note(&latency, since, done).await;
    }
}

async fn idle(plan: Rc<Plan>) {
    let opening = async {
        let mut stream = open(&plan).await?;
        exchange(&mut stream, &request(&plan), &mut vec![0; BUFFER]).await?;
        Ok(stream)
    };
    hold(&plan, 1, opening).await;
}

/// Begins a download and stops reading.
async fn stall(plan: Rc<Plan>) {
    let opening = async {
        let mut stream = open(&plan).await?;
        begin(&mut stream, &request(&plan)).await?;
        Ok(stream)
    };
    hold(&plan, 1, opening).await;
}

/// The same on each stream of an h2 connection. The windows are those of RFC 9113, and wide enough together that no stream
/// waits for another one.
async fn stall_streams(plan: Rc<Plan>) {
    const WINDOW: u32 = 65_535;
    let streams = u32::try_from(plan.streams).unwrap_or(u32::MAX);
    let opening = async {
        let stream = open(&plan).await?;
        let mut builder = http2::Builder::new(Local);
        builder.initial_stream_window_size(WINDOW).initial_connection_window_size(WINDOW.saturating_mul(streams + 1));
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(io::Error::other)?;
        tokio::task::spawn_local(connection);
        let mut bodies = Vec::new();
        for _ in 0..streams {
            let mut body = response(&plan, &mut sender).await?;
            let frame = body.frame().await.ok_or(io::ErrorKind::UnexpectedEof)?;
            frame.map_err(io::Error::other)?;
            bodies.push(body);
        }
        Ok((sender, bodies))
    };
    hold(&plan, u64::from(streams), opening).await;
}

/// Opens something, counts it and holds it.
async fn hold<T>(plan: &Plan, count: u64, opening: impl Future<Output = io::Result<T>>) {
    /// Connections that are opened at the same time, so that the memory of the busy moment stays small.
    const AT_ONCE: u64 = 16;
    static UNDER_WAY: AtomicU64 = AtomicU64::new(0);
    while UNDER_WAY.load(Relaxed) >= AT_ONCE {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    UNDER_WAY.fetch_add(1, Relaxed);
    let opened = opening.await;
    UNDER_WAY.fetch_sub(1, Relaxed);
    match opened {
        Ok(held) => {
            plan.tally.held.fetch_add(count, Relaxed);
            std::future::pending::<()>().await;
            drop(held);
        }
        Err(error) => {
            plan.tally.errors.fetch_add(count, Relaxed);
            eprintln!("load: {error}");
        }
    }
}

/// Says when each request is meant to start, whatever became of those before it. The thread never sleeps: a timer
/// would wake up to a millisecond late, which is several times what is being measured.
async fn pace(plan: Rc<Plan>, queues: Vec<mpsc::UnboundedSender<Instant>>) {
    let start = Instant::now();
    for (turn, queue) in (0_u64..).zip(queues.iter().cycle()) {
        let due = start + Duration::from_secs_f64(turn as f64 / plan.rate);
        while Instant::now() < due {
            tokio::task::yield_now().await;
        }
        if queue.send(due).is_err() {
            return;
        }
    }
}

async fn on_time(plan: Rc<Plan>, latency: Latency, mut due: mpsc::UnboundedReceiver<Instant>) {
    let (request, mut buffer) = (request(&plan), vec![0; BUFFER]);
    let mut stream = None;
    while let Some(since) = due.recv().await {
        if stream.is_none() {
            stream = open(&plan).await.ok();
        }
        let done = match &mut stream {
            Some(stream) => exchange(stream, &request, &mut buffer).await,
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        };
        if !plan.note(&latency, since, done).await {
            stream = None;
        }
    }
}

#[derive(Clone)]
struct Local;

impl<F: Future + 'static> hyper::rt::Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(async move {
            task.await;
        });
    }
}

/// One h2 connection with several streams, each a closed loop.
async fn streams(plan: Rc<Plan>, latency: Latency) {
    let opened = async {
        let stream = open(&plan).await?;
        http2::handshake::<_, _, Empty<Bytes>>(Local, TokioIo::new(stream)).await.map_err(io::Error::other)
    };
    let (sender, connection) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            plan.note(&latency, Instant::now(), Err(error)).await;
            return;
        }
    };
    tokio::task::spawn_local(connection);
    for stream in 0..plan.streams {
        let (plan, latency, mut sender) = (plan.clone(), latency.clone(), sender.clone());
        tokio::task::spawn_local(async move {
            // Not all at the same moment, then and later.
            tokio::time::sleep(plan.pause.mul_f64(stream as f64 / plan.streams as f64)).await;
            loop {
                let since = Instant::now();
                let done = call(&plan, &mut sender).await;
                plan.note(&latency, since, done).await;
                if !plan.pause.is_zero() {
                    tokio::time::sleep(plan.pause).await;
                }
            }
        });
    }
}

async fn call(plan: &Plan, sender: &mut SendRequest<Empty<Bytes>>) -> io::Result<u64> {
    let mut body = response(plan, sender).await?;
    let mut bytes = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(io::Error::other)?;
        bytes += frame.data_ref().map_or(0, |data| data.len() as u64);
    }
    Ok(bytes)
}

/// Sends the request; the body of an answer with status 200.
async fn response(plan: &Plan, sender: &mut SendRequest<Empty<Bytes>>) -> io::Result<Incoming> {
    let request = Request::get(format!("https://localhost{}", plan.path))
        .header(USER_AGENT, "bench/1")
        .header(ACCEPT, "application/json")
        .header(AUTHORIZATION, format!("Bearer {}", job::CLIENT_KEY))
        .body(Empty::new())
        .map_err(io::Error::other)?;
    let response = sender.send_request(request).await.map_err(io::Error::other)?;
    let (status, body) = (response.status(), response.into_body());
    if status == StatusCode::OK {
        return Ok(body);
    }
    let told = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    if told.windows(UNSIGNED.len()).any(|part| part == UNSIGNED) {
        plan.tally.unsigned.fetch_add(1, Relaxed);
    }
    Err(io::Error::other(status.to_string()))
}
