//! One run, from its seed to its verdict.

use std::path::Path;
use std::rc::Rc;
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::LocalSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::bank::{ExchangeBank, TLS};
use super::client::{Front, over_http1, over_http2};
use super::world::World;
use crate::base::draw::seeded;
use crate::base::time::Clock;
use crate::config::{InMemory, Snapshot, build};
use crate::control::{ConsentHandle, Issuers, Keeper, Limits, QuotaBook, TokenHandle};
use crate::observe::access::{AccessLog, AccessSink};
use crate::observe::audit::Auditor;
use crate::observe::metrics::Metrics;
use crate::observe::trace::Tracer;
use crate::serve::current_state::CurrentState as Present;
use crate::serve::worker_state::{ProcessState, WorkerState};
use crate::upstream::simulated::set_network;

/// Idle connections are looked through this often.
const SWEEP: Duration = Duration::from_secs(1);
/// All comes to rest within this after the last client has gone: every timeout there is, one after the other.
const REST: Duration = Duration::from_secs(60);

thread_local! {
    /// Making them takes longer than a run may.
    static METRICS: Arc<Metrics> = Arc::new(Metrics::new());
    static ACCESS: AccessLog = AccessLog::start(Box::new(std::io::sink()), AccessSink::Off).expect("a thread").0;
}

static SNAPSHOTS: LazyLock<[Arc<Snapshot>; 2]> = LazyLock::new(|| ["one", "two"].map(read));

fn read(name: &str) -> Arc<Snapshot> {
    let text = format!(
        r#"
[[listener]]
bind = "127.0.0.1:0"
clients = "anyone"
[provider.{name}]
profile = "oauth2"
base_url = "https://{name}.example"
token_url = "https://login.example/token"
client_id = "key"
client_secret = {{ env = "SECRET" }}
refresh_before = "1s"
tls = {{ ca = "bank.pem", key_exchange = ["x25519"] }}
timeouts = {{ connect = "4s", token = "3s", response = "4s", idle = "4s", body_idle = "3s" }}
[[route]]
path = "/bank"
provider = "{name}"
replay_limit = "64KiB"
[[route]]
name = "kept"
path = "/kept"
provider = "{name}"
request_buffering = true
[limits]
header_timeout = "5s"
idle_timeout = "5s"
"#
    );
    let files = InMemory::new().with_file("/bank.pem", TLS.0.clone()).with_env("SECRET", "secret");
    let (snapshot, found) = build(Path::new("/proxy.toml"), text, &files);
    Arc::new(snapshot.unwrap_or_else(|| panic!("the simulation's config is wrong: {found:?}")))
}

/// The result of a run.
pub(super) struct ExchangeVerdict {
    /// The promise that was broken, if one was.
    pub(super) broken: Option<String>,
    /// The events of the run, line by line; empty unless it was traced.
    pub(super) trace: Vec<String>,
}

/// Plays the run that this seed determines.
pub(super) fn play(seed: u64, traced: bool) -> ExchangeVerdict {
    seeded::set(Some(seed));
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let (broken, trace) = LocalSet::new().block_on(&runtime, async {
        let world = World::new(seed, traced);
        world.note(|| format!("seed {seed}: {:?}", world.plan));
        set_network(Some(Rc::new(ExchangeBank(world.clone()))));
        live(&world).await;
        set_network(None);
        world.outcome()
    });
    drop(runtime);
    seeded::set(None);
    ExchangeVerdict { broken, trace }
}

/// Builds the state that workers share, with a keeper that runs on this thread as well.
fn shared(world: &World) -> ProcessState {
    let clock = Clock::Simulated(Arc::new(world.watch()));
    let snapshot = SNAPSHOTS[usize::from(world.plan.http2)].clone();
    let (leases, inbox) = TokenHandle::open();
    tokio::task::spawn_local(Keeper::behind(inbox, clock.clone(), Limits::default(), Box::new(()), None).run());
    ProcessState {
        listeners: snapshot.listeners.iter().cloned().map(Some).collect(),
        pages: [None].into(),
        snapshot,
        leases,
        metrics: METRICS.with(Arc::clone),
        tracer: Tracer::open().0,
        buffered: Arc::default(),
        connections: Arc::default(),
        connection_limits: Arc::default(),
        issuers: Issuers::open(clock.clone()).0,
        clock,
        consents: ConsentHandle::open().0,
        guard: Arc::new(crate::route::Guard::new(&[], &[])),
        stats_sender: None,
        audit: Auditor::off(),
        quotas: QuotaBook::open(false).0,
        serial: 0,
    }
}

async fn live(world: &Rc<World>) {
    let shared = shared(world);
    let lines = ACCESS.with(|access| access.lines(shared.clock.clone()));
    let site = WorkerState::new(shared.clone(), lines);
    let present = Present::begin(site.clone(), CancellationToken::new());
    let swept = site.clone();
    let sweeping = tokio::task::spawn_local(async move {
        loop {
            sleep(SWEEP).await;
            swept.sweep();
        }
    });
    let front = Rc::new(Front { world: world.clone(), present });
    for _ in 0..world.plan.clients {
        if world.chance(50) {
            world.spawn(|world| &world.clients, over_http1(front.clone()));
        } else {
            world.spawn(|world| &world.clients, over_http2(front.clone()));
        }
    }
    while world.clients.get() > 0 {
        sleep(Duration::from_millis(500)).await;
        if world.chance(world.plan.revokes) {
            world.revoke();
        }
    }
    sleep(REST).await;
    sweeping.abort();
    rests(world, &site);
    shared.leases.shutdown();
}

/// Checks that no resource is left over: promise 6.
fn rests(world: &World, site: &WorkerState) {
    let endpoint = site.route(0).map_or(0, |route| route.endpoint.open());
    let left = [
        ("connections of clients", world.at_front.get() as usize),
        ("connections to the bank, as we count them", endpoint),
        ("connections to the bank, as it counts them", world.at_bank.get() as usize),
        ("exchanges at the bank", world.held(None)),
        ("bytes for replays", site.shared.buffered.current().unsigned_abs() as usize),
    ];
    for (what, count) in left {
        if count > 0 {
            world.broken(|| format!("{count} {what} are left over"));
        }
    }
}
