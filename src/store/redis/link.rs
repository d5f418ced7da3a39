//! One connection to a Redis, and its circuit breaker.
//!
//! A task makes the connection and restores it; no caller ever does. A caller that finds the link up sends its request;
//! one that finds it down gets an error at once; one that finds it undecided waits, but never longer than an operation
//! may take. A caller that has waited in vain takes the link down for all, so an unreachable Redis costs one wait per
//! rest.

use std::cell::Cell;
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{FromRedisValue, Value, cmd};
use tokio::sync::{Mutex, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::changes::{Change, ChangeNotifier};
use super::super::error::Error;
use super::super::redis_settings::RedisAddress;
use super::redis_call::RedisCall;
use super::redis_target::{RedisDriver, RedisTarget, closed, driven};
use super::sentinel::masters;
use super::verdict::{RedisVerdict, judge};
use crate::base::secret::ExposeSecret;
use crate::base::time::millis;

/// So often Sentinels are asked whether the master is still the one that we are connected to.
const SENTINELS_ASKED: Duration = Duration::from_secs(5);
/// Replicas are waited for so long.
const REPLICATED: Duration = Duration::from_millis(10);
/// After a write that replicas did not have in time, none is waited for in this time, in milliseconds.
const UNREPLICATED: u64 = 5_000;

/// Where the server of a link is.
#[derive(Clone, Debug)]
pub(super) enum LinkPlace {
    /// Where Sentinels say, each time anew.
    Master {
        sentinels: Vec<RedisAddress>,
        service: String,
    },
    Node(RedisAddress),
}

#[derive(Clone)]
enum LinkPhase {
    /// The reason for which requests are refused.
    Down(RedisVerdict),
    /// The state in which a connection is being made and callers wait for the outcome.
    Trying,
    /// Questions may be asked. The number tells connections apart.
    Up(MultiplexedConnection, u64),
}

struct LinkState {
    target: Rc<RedisTarget>,
    place: LinkPlace,
    /// Where the last connection led to.
    at: watch::Sender<Option<RedisAddress>>,
    notifier: ChangeNotifier,
    /// Counts the connections of the whole store.
    made: watch::Sender<u64>,
    phase: watch::Sender<LinkPhase>,
    /// True once the connection has answered a request.
    proved: Cell<bool>,
    replication: Replication,
}

/// The waiting for replicas. One wait at a time: it covers all that its connection wrote before it began.
#[derive(Default)]
struct Replication {
    turn: Mutex<()>,
    /// Waits that have begun.
    begun: Cell<u64>,
    /// The number of the connection and of the last wait that found enough replicas.
    done: Cell<(u64, u64)>,
    /// Until this time of the boot clock, in milliseconds, no replica is waited for.
    rest: Cell<u64>,
}

/// Dropping it ends the connection.
pub(super) struct RedisLink {
    shared: Rc<LinkState>,
    _task: JoinSet<()>,
}

impl RedisLink {
    /// Begins to connect. `made` is counted up with every connection that is made.
    pub(super) fn open(
        target: Rc<RedisTarget>,
        place: LinkPlace,
        notifier: ChangeNotifier,
        made: watch::Sender<u64>,
    ) -> Self {
        let known = match &place {
            LinkPlace::Master { .. } => None,
            LinkPlace::Node(address) => Some(address.clone()),
        };
        let shared = Rc::new(LinkState {
            target,
            place,
            at: watch::Sender::new(known),
            notifier,
            made,
            phase: watch::Sender::new(LinkPhase::Trying),
            proved: Cell::new(false),
            replication: Replication::default(),
        });
        let mut task = JoinSet::new();
        task.spawn_local(keep(shared.clone()));
        Self { shared, _task: task }
    }

    /// Returns where it leads to, and follows it; `None` as long as that is not known.
    pub(super) fn at(&self) -> watch::Receiver<Option<RedisAddress>> {
        self.shared.at.subscribe()
    }

    /// Waits until it is up, however often that is tried.
    pub(super) async fn reach(&self, within: Duration) -> Result<(), Error> {
        let mut phases = self.shared.phase.subscribe();
        if timeout(within, phases.wait_for(|phase| matches!(phase, LinkPhase::Up(..)))).await.is_ok() {
            return Ok(());
        }
        let phase = self.shared.phase.borrow().clone();
        match phase {
            LinkPhase::Up(..) => Ok(()),
            LinkPhase::Down(why) => Err(why.into_error()),
            LinkPhase::Trying => Err(self.shared.target.silent(self.shared.label(), within).into_error()),
        }
    }

    /// Asks, and has an answer in time, or a verdict.
    pub(super) async fn ask<T: FromRedisValue>(&self, call: &RedisCall<'_>) -> Result<T, RedisVerdict> {
        let shared = &self.shared;
        // A connection that waits for replicas answers nothing else meanwhile.
        let waiting = if shared.target.settings.wait_replicas == 0 { Duration::ZERO } else { REPLICATED };
        let patience = shared.target.patience.operation + waiting;
        let asking = Cell::new(None);
        let answer = async {
            let (mut connection, number) = shared.connection().await?;
            asking.set(Some(number));
            let answer = call.run(&mut connection).await.map_err(|error| judge(shared.label(), &error))?;
            if call.replicated {
                shared.replicate(&mut connection, number).await?;
            }
            Ok(answer)
        };
        let silent = |_| Err(shared.target.silent(shared.label(), patience));
        let answer = timeout(patience, answer).await.unwrap_or_else(silent);
        match &answer {
            Err(verdict @ RedisVerdict::Broken(_)) => shared.take_down(asking.get(), verdict),
            Err(
                RedisVerdict::Elsewhere { .. }
                | RedisVerdict::Full(_)
                | RedisVerdict::NotNow(_)
                | RedisVerdict::Refused(_)
                | RedisVerdict::WrongType,
            )
            | Ok(_) => shared.proved.set(true),
        }
        answer
    }
}

impl LinkState {
    /// Returns where it leads to, for messages.
    fn label(&self) -> String {
        let at = self.at.borrow();
        at.as_ref().map_or_else(|| self.target.settings.topology.to_string(), ToString::to_string)
    }

    async fn connection(&self) -> Result<(MultiplexedConnection, u64), RedisVerdict> {
        let mut phases = self.phase.subscribe();
        match &*phases.wait_for(|phase| !matches!(phase, LinkPhase::Trying)).await.map_err(|_| ended())? {
            LinkPhase::Down(why) => Err(why.clone()),
            LinkPhase::Trying => Err(ended()),
            LinkPhase::Up(connection, number) => Ok((connection.clone(), *number)),
        }
    }

    /// Waits until replicas have what this connection has written. Where they do not have it in time the write stands: it
    /// is told, and none is waited for in the next seconds.
    async fn replicate(&self, connection: &mut MultiplexedConnection, number: u64) -> Result<(), RedisVerdict> {
        let (target, wanted, replication) = (&self.target, self.target.settings.wait_replicas, &self.replication);
        if wanted == 0 {
            return Ok(());
        }
        let next = replication.begun.get() + 1;
        let _turn = replication.turn.lock().await;
        let (connected, done) = replication.done.get();
        let now = target.clock.now().boot;
        if now < replication.rest.get() || connected == number && done >= next {
            return Ok(());
        }
        let mine = replication.begun.get() + 1;
        replication.begun.set(mine);
        let mut wait = cmd("WAIT");
        wait.arg(wanted).arg(millis(REPLICATED));
        let had: u32 = wait.query_async(connection).await.map_err(|error| judge(self.label(), &error))?;
        if had >= wanted {
            replication.done.set((number, mine));
            if replication.rest.replace(0) > 0 {
                tracing::info!(store = self.label(), "replicas of the store have writes in time again");
            }
        } else if replication.rest.replace(now.saturating_add(UNREPLICATED)) == 0 {
            let title = "replicas of the store do not have writes in time: if it fails over now, they are lost";
            tracing::warn!(store = self.label(), wanted, had, "{title}");
        }
        Ok(())
    }

    /// Takes the link down, so that no other caller uses this connection or waits for one.
    fn take_down(&self, asked: Option<u64>, verdict: &RedisVerdict) {
        let taken = self.phase.send_if_modified(|phase| {
            let same = match (&*phase, asked) {
                (LinkPhase::Up(_, number), Some(asked)) => *number == asked,
                (LinkPhase::Trying, None) => true,
                (LinkPhase::Down(_) | LinkPhase::Trying | LinkPhase::Up(..), _) => false,
            };
            if same {
                *phase = LinkPhase::Down(verdict.clone());
            }
            same
        });
        if taken {
            tracing::warn!("{}", verdict.clone().into_error());
        }
    }

    /// Connects to where the server is now.
    async fn connect(&self) -> Result<(MultiplexedConnection, RedisDriver, RedisAddress), RedisVerdict> {
        let (sentinels, service) = match &self.place {
            LinkPlace::Node(address) => {
                let (connection, driver) = self.target.connect(address).await?;
                return Ok((connection, driver, address.clone()));
            }
            LinkPlace::Master { sentinels, service } => (sentinels, service),
        };
        let named = masters(&self.target, sentinels, service).await?;
        // One that is cut off must not keep us from the next.
        let within = self.target.patience.connect / 2;
        let mut failure = None;
        for (address, _) in named {
            let connected = timeout(within, self.connect_master(&address)).await;
            match connected.unwrap_or_else(|_| Err(self.target.silent(&address, within))) {
                Ok((connection, driver)) => return Ok((connection, driver, address)),
                Err(why) => failure = failure.or(Some(why)),
            }
        }
        Err(failure.unwrap_or_else(ended))
    }

    /// Connects to a master. One that is a replica by now refuses writes, or will lose them.
    async fn connect_master(&self, at: &RedisAddress) -> Result<(MultiplexedConnection, RedisDriver), RedisVerdict> {
        let (mut connection, mut driver) = self.target.connect(at).await?;
        let role: Value = driven(at, &mut driver, cmd("ROLE").query_async(&mut connection)).await?;
        let is_master = matches!(&role, Value::Array(parts)
            if matches!(parts.first(), Some(Value::BulkString(word)) if word == b"master"));
        if !is_master {
            return Err(RedisVerdict::Broken(format!(
                "the store at {at} is named by the Sentinels, and is no master yet"
            )));
        }
        Ok((connection, driver))
    }

    /// Waits until most Sentinels name another master.
    async fn replaced(&self, at: &RedisAddress) {
        let LinkPlace::Master { sentinels, service } = &self.place else { return std::future::pending().await };
        loop {
            sleep(SENTINELS_ASKED).await;
            let named = timeout(self.target.patience.connect, masters(&self.target, sentinels, service)).await;
            if let Ok(Ok(named)) = named
                && named.first().is_some_and(|(master, votes)| master != at && votes * 2 > sentinels.len())
            {
                return;
            }
        }
    }

    /// Shows fresh credentials before the server ends the connection for the old ones. Returns the reason for which it
    /// takes them no more.
    async fn authenticate(&self, mut connection: MultiplexedConnection) -> RedisVerdict {
        let target = &self.target;
        if !target.settings.login.ends() {
            return std::future::pending().await;
        }
        loop {
            sleep(target.patience.authenticated).await;
            let (username, password) = target.settings.login.at(target.clock.now());
            let mut auth = cmd("AUTH");
            auth.arg(username).arg(password.as_ref().map(|password| password.expose_secret()));
            match timeout(target.patience.connect, auth.query_async::<()>(&mut connection)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return judge(self.label(), &error),
                Err(_) => return target.silent(self.label(), target.patience.connect),
            }
        }
    }
}

fn ended() -> RedisVerdict {
    RedisVerdict::Broken("the store was closed".to_owned())
}

/// Makes the connection, carries it, and makes it again.
async fn keep(shared: Rc<LinkState>) {
    let (target, mut failures) = (&shared.target, 0_u32);
    for number in 0_u64.. {
        let connected = timeout(target.patience.connect, shared.connect()).await;
        match connected.unwrap_or_else(|_| Err(target.silent(shared.label(), target.patience.connect))) {
            Ok((connection, driver, at)) => {
                shared.proved.set(false);
                shared.at.send_if_modified(|known| known.replace(at.clone()).as_ref() != Some(&at));
                let mut phases = shared.phase.subscribe();
                let again = connection.clone();
                let before = shared.phase.send_replace(LinkPhase::Up(connection, number));
                if matches!(before, LinkPhase::Down(_)) {
                    tracing::info!(store = %at, "the store answers again");
                }
                shared.made.send_modify(|made| *made += 1);
                // News that came while nothing could be read led nowhere.
                shared.notifier.notify(Change::Everything);
                let is_closed = tokio::select! {
                    () = driver => true,
                    _ = phases.wait_for(|phase| !matches!(phase, LinkPhase::Up(..))) => false,
                    () = shared.replaced(&at) => true,
                    why = shared.authenticate(again) => {
                        shared.take_down(Some(number), &why);
                        false
                    }
                };
                if shared.proved.get() {
                    failures = 0;
                }
                if is_closed && failures == 0 {
                    // As a server does that restarts, or that tidies up. Callers wait a moment for the next one.
                    shared.phase.send_if_modified(|phase| {
                        let up = matches!(phase, LinkPhase::Up(..));
                        if up {
                            *phase = LinkPhase::Trying;
                        }
                        up
                    });
                    failures = 1;
                    continue;
                }
                shared.take_down(Some(number), &closed(&at));
            }
            Err(verdict) => {
                let reported = matches!(&*shared.phase.borrow(), LinkPhase::Down(before) if *before == verdict);
                shared.phase.send_replace(LinkPhase::Down(verdict.clone()));
                if !reported {
                    tracing::warn!("{}", verdict.into_error());
                }
            }
        }
        failures = failures.saturating_add(1);
        sleep(target.rest(failures)).await;
    }
}

impl fmt::Debug for RedisLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisLink").field("place", &self.shared.place).finish_non_exhaustive()
    }
}
