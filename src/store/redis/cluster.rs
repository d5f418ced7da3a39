//! A Cluster: one link to each master, and the map of slots that says which to ask.
//!
//! The `redis` crate has a client for it. It is not used: it connects by itself, with TLS settings of its own instead of
//! ours, from tasks that it starts on the runtime, and it retries beyond the deadline of an operation while the Cluster
//! is not whole. A link has all that a node needs; what is added here is the map, and following redirections.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use ::redis::{FromRedisValue, Value, cmd};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::super::changes::ChangeNotifier;
use super::super::error::Error;
use super::super::redis_settings::RedisAddress;
use super::link::{LinkPlace, RedisLink};
use super::redis_call::RedisCall;
use super::redis_target::{RedisTarget, driven};
use super::slot_map::{SlotMap, slot_of};
use super::verdict::RedisVerdict;
use crate::base::backoff::jittered;

/// The map is read this often even if nothing is wrong with it.
const MAP_READ: Duration = Duration::from_secs(60);
/// And no more often than this.
const MAP_PAUSE: Duration = Duration::from_millis(200);
/// So many nodes are asked for the map at once.
const NODES_ASKED: usize = 3;
/// A question follows so many redirections.
const MOST_REDIRECTIONS: usize = 5;

/// The state of the map.
#[derive(Clone, Debug)]
enum MapPhase {
    /// No node has told it yet.
    Failed(RedisVerdict),
    Read,
    Trying,
}

#[derive(Debug)]
struct ClusterState {
    target: Rc<RedisTarget>,
    seeds: Vec<RedisAddress>,
    notifier: ChangeNotifier,
    made: watch::Sender<u64>,
    map: RefCell<SlotMap>,
    phase: watch::Sender<MapPhase>,
    links: RefCell<BTreeMap<RedisAddress, Rc<RedisLink>>>,
    /// The slot of the channel for news, and its master.
    news_slot: u16,
    news_at: watch::Sender<Option<RedisAddress>>,
    /// Somebody has found the map to be wrong.
    doubted: Notify,
    reported: Cell<bool>,
}

/// Dropping it ends all connections.
#[derive(Debug)]
pub(super) struct RedisCluster {
    state: Rc<ClusterState>,
    _task: JoinSet<()>,
}

impl RedisCluster {
    /// Begins to read the map. `channel` is the channel for news.
    pub(super) fn open(
        target: Rc<RedisTarget>,
        seeds: Vec<RedisAddress>,
        channel: &str,
        notifier: ChangeNotifier,
        made: watch::Sender<u64>,
    ) -> Self {
        let state = Rc::new(ClusterState {
            target,
            seeds,
            notifier,
            made,
            map: RefCell::default(),
            phase: watch::Sender::new(MapPhase::Trying),
            links: RefCell::default(),
            news_slot: slot_of(channel.as_bytes()),
            news_at: watch::Sender::new(None),
            doubted: Notify::new(),
            reported: Cell::new(false),
        });
        let mut task = JoinSet::new();
        task.spawn_local(keep(state.clone()));
        Self { state, _task: task }
    }

    /// Returns the node where news are told: the master of the channel's slot, so that they need no way between nodes.
    pub(super) fn news_at(&self) -> watch::Receiver<Option<RedisAddress>> {
        self.state.news_at.subscribe()
    }

    /// Waits until all masters are connected to.
    pub(super) async fn reach(&self, within: Duration) -> Result<(), Error> {
        let mut phases = self.state.phase.subscribe();
        if timeout(within, phases.wait_for(|phase| matches!(phase, MapPhase::Read))).await.is_err() {
            let phase = self.state.phase.borrow().clone();
            return Err(match phase {
                MapPhase::Failed(why) => why.into_error(),
                MapPhase::Read | MapPhase::Trying => self.silent(within).into_error(),
            });
        }
        for master in self.known_masters() {
            self.state.link(&master).reach(within).await?;
        }
        Ok(())
    }

    /// Returns the masters that are known, in the order of their slots.
    pub(super) fn known_masters(&self) -> Vec<RedisAddress> {
        self.state.map.borrow().masters()
    }

    /// The same, once any is known.
    pub(super) async fn masters(&self) -> Result<Vec<RedisAddress>, RedisVerdict> {
        self.known().await?;
        Ok(self.known_masters())
    }

    /// Asks the master of a key.
    pub(super) async fn ask<T: FromRedisValue>(&self, key: &[u8], call: &RedisCall<'_>) -> Result<T, RedisVerdict> {
        let (state, slot) = (&self.state, slot_of(key));
        self.known().await?;
        let master = state.map.borrow().master(slot).cloned();
        let Some(mut at) = master else {
            state.doubted.notify_one();
            return Err(RedisVerdict::NotNow(format!(
                "no node of the Cluster at {} has this record's slot",
                self.seeds()
            )));
        };
        for _ in 0..MOST_REDIRECTIONS {
            let (to, asking) = match self.ask_node(&at, call).await {
                Err(RedisVerdict::Elsewhere { to, asking }) => (to, asking),
                answer => return answer,
            };
            let host = if to.host.is_empty() { at.host } else { to.host };
            at = RedisAddress { host, port: to.port };
            if asking {
                return self.ask_importing(&at, call).await;
            }
            state.map.borrow_mut().moved(slot, at.clone());
            state.doubted.notify_one();
        }
        Err(RedisVerdict::NotNow(format!("the Cluster at {} redirects without end", self.seeds())))
    }

    /// Asks a node.
    pub(super) async fn ask_node<T: FromRedisValue>(
        &self,
        at: &RedisAddress,
        call: &RedisCall<'_>,
    ) -> Result<T, RedisVerdict> {
        let answer = self.state.link(at).ask(call).await;
        if matches!(&answer, Err(RedisVerdict::Broken(_) | RedisVerdict::NotNow(_))) {
            self.state.doubted.notify_one();
        }
        answer
    }

    /// Waits for the map, as long as an operation may take.
    async fn known(&self) -> Result<(), RedisVerdict> {
        let patience = self.state.target.patience.operation;
        let mut phases = self.state.phase.subscribe();
        match timeout(patience, phases.wait_for(|phase| !matches!(phase, MapPhase::Trying))).await {
            Ok(Ok(phase)) => match &*phase {
                MapPhase::Failed(why) => Err(why.clone()),
                MapPhase::Read | MapPhase::Trying => Ok(()),
            },
            Ok(Err(_)) | Err(_) => Err(self.silent(patience)),
        }
    }

    /// Asks a node that is being given the slot, over a connection of its own: `ASKING` holds for the next question of a
    /// connection, whoever asks it.
    async fn ask_importing<T: FromRedisValue>(
        &self,
        at: &RedisAddress,
        call: &RedisCall<'_>,
    ) -> Result<T, RedisVerdict> {
        let target = &self.state.target;
        let answer = async {
            let (mut connection, mut driver) = target.open(at, &target.greeting()).await?;
            driven(at, &mut driver, call.run_asking(&mut connection)).await
        };
        let patience = target.patience.operation;
        timeout(patience, answer).await.unwrap_or_else(|_| Err(target.silent(at, patience)))
    }

    fn silent(&self, within: Duration) -> RedisVerdict {
        self.state.target.silent(self.seeds(), within)
    }

    fn seeds(&self) -> String {
        self.state.target.settings.topology.to_string()
    }
}

impl ClusterState {
    /// Returns the link to a node, and opens it if there is none.
    fn link(&self, at: &RedisAddress) -> Rc<RedisLink> {
        let mut links = self.links.borrow_mut();
        let open = || {
            let place = LinkPlace::Node(at.clone());
            Rc::new(RedisLink::open(self.target.clone(), place, self.notifier.clone(), self.made.clone()))
        };
        links.entry(at.clone()).or_insert_with(open).clone()
    }

    /// Takes a map that was read: opens links to new masters, ends those to nodes that are none any more.
    fn take(&self, map: SlotMap) {
        let masters = map.masters();
        self.links.borrow_mut().retain(|at, _| masters.contains(at));
        for master in &masters {
            self.link(master);
        }
        let news_at = map.master(self.news_slot).cloned();
        *self.map.borrow_mut() = map;
        if news_at.is_some() {
            self.news_at.send_if_modified(|known| {
                let other = *known != news_at;
                *known = news_at;
                other
            });
        }
        self.reported.set(false);
        self.phase.send_replace(MapPhase::Read);
    }

    /// Tells that no node has the map. One that is known is used on.
    fn fail(&self, why: RedisVerdict) {
        if !self.reported.replace(true) {
            tracing::warn!("{}", why.clone().into_error());
        }
        self.phase.send_if_modified(|phase| {
            let unread = !matches!(phase, MapPhase::Read);
            if unread {
                *phase = MapPhase::Failed(why);
            }
            unread
        });
    }
}

/// Reads the map, and reads it again when somebody doubts it.
async fn keep(state: Rc<ClusterState>) {
    let (target, mut failures) = (&state.target, 0_u32);
    loop {
        match read_map(&state).await {
            Ok(map) => {
                failures = 0;
                state.take(map);
                sleep(MAP_PAUSE).await;
                let _in_time = timeout(jittered(MAP_READ, rand::random()), state.doubted.notified()).await;
            }
            Err(why) => {
                failures = failures.saturating_add(1);
                state.fail(why);
                sleep(target.rest(failures)).await;
            }
        }
    }
}

/// Asks nodes for the map, a few at once, beginning anywhere, until one has it.
async fn read_map(state: &Rc<ClusterState>) -> Result<SlotMap, RedisVerdict> {
    let mut nodes = state.map.borrow().masters();
    nodes.extend(state.seeds.iter().filter(|seed| !nodes.contains(seed)).cloned().collect::<Vec<_>>());
    let turn = rand::random::<u16>();
    let middle = usize::from(turn) % nodes.len().max(1);
    nodes.rotate_left(middle);
    let mut failure = None;
    for some in nodes.chunks(NODES_ASKED) {
        let mut asked = JoinSet::new();
        for node in some {
            let (target, node) = (state.target.clone(), node.clone());
            asked.spawn_local(async move {
                let within = target.patience.connect / 2;
                let told = timeout(within, ask_for_map(&target, &node)).await;
                told.unwrap_or_else(|_| Err(target.silent(&node, within)))
            });
        }
        while let Some(told) = asked.join_next().await {
            match told {
                Ok(Ok(map)) => return Ok(map),
                Ok(Err(why)) => failure = Some(why),
                Err(_) => {}
            }
        }
    }
    Err(failure.unwrap_or_else(|| state.target.silent(&state.target.settings.topology, state.target.patience.connect)))
}

async fn ask_for_map(target: &RedisTarget, node: &RedisAddress) -> Result<SlotMap, RedisVerdict> {
    let mut question = cmd("CLUSTER");
    question.arg("SLOTS");
    let answer: Value = target.ask_once(node, &target.greeting(), &question).await?;
    let none =
        || RedisVerdict::Broken(format!("the node at {node} knows no slots: is it part of a Cluster that is whole?"));
    SlotMap::parse(&answer, node).ok_or_else(none)
}
