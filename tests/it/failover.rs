//! A master of Redis that dies under load, with Sentinels and in a Cluster: what it costs those who call, and that no
//! refresh token goes out twice and no consent is lost. And what renewals cost a Redis and a bank, by the number of
//! replicas that want them at once.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use countersign::base::time::Stopwatch;
use countersign::sim::{Bank, SimHandle};
use futures_util::future::join_all;

use crate::client::converse;
use crate::harness::{KEY, bank};
use crate::redis_group::{ClusterGroup, SentinelGroup};
use crate::redis_server::RedisServer;
use crate::replicas::{Fleet, Line, ask, consent, lines, store_key, until};

/// Users, each with a consent, who call through every replica.
const USERS: [&str; 9] = ["alice", "bob", "carol", "dave", "erin", "frank", "grace", "heidi", "ivan"];
/// A call whose token the bank refused twice.
const REFUSED: &str = "401 by the bank";
/// Until the master dies.
const BEFORE: Duration = Duration::from_secs(2);
/// So many rounds in a row must succeed as a whole before it is over.
const WHOLE_ROUNDS: usize = 3;

/// What the calls of one kind came to.
#[derive(Default)]
struct CallFigures {
    calls: u32,
    longest: Duration,
    /// By their errors.
    failed: BTreeMap<String, u32>,
    /// When the first and the last one failed.
    failing: Option<(Duration, Duration)>,
}

impl CallFigures {
    fn note(&mut self, began: Duration, ended: Duration, error: Option<String>) {
        self.calls += 1;
        self.longest = self.longest.max(ended.saturating_sub(began));
        if let Some(error) = error {
            *self.failed.entry(error).or_default() += 1;
            let (first, _) = self.failing.unwrap_or((ended, ended));
            self.failing = Some((first, ended));
        }
    }
}

/// Calls in rounds: in each, all tokens of users are refused, and every user calls through every replica at once, while
/// an application calls all the time. The master dies meanwhile.
struct FailoverRun {
    users: CallFigures,
    applications: CallFigures,
    rounds: usize,
    rotations: u64,
    twice: usize,
    killed: Duration,
}

async fn timed(line: Line, path: &str, user: &str, watch: Stopwatch, figures: &RefCell<CallFigures>) -> bool {
    let began = watch.elapsed();
    let answer = ask(line, path, user).await;
    let error = match answer.status {
        200 => None,
        // The bank's own: a renewal that was saved late brought a token that all are refused with by now.
        401 => Some(REFUSED.to_owned()),
        status => Some(format!("{status} {}", answer.error())),
    };
    let is_served = error.is_none();
    figures.borrow_mut().note(began, watch.elapsed(), error);
    is_served
}

async fn run(lines: &[Line], scb: &SimHandle, kill: impl FnOnce()) -> FailoverRun {
    let (users, applications) = (RefCell::default(), Rc::new(RefCell::new(CallFigures::default())));
    let (watch, stop) = (Stopwatch::start(), Rc::new(Cell::new(false)));
    let others: Vec<_> = lines
        .iter()
        .map(|line| {
            let (line, stop, applications) = (line.clone(), stop.clone(), applications.clone());
            tokio::task::spawn_local(async move {
                while !stop.get() {
                    timed(line.clone(), "/meed/echo/x", "", watch, &applications).await;
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            })
        })
        .collect();
    let rotations = scb.token_calls();
    let (mut kill, mut killed, mut rounds, mut whole) = (Some(kill), Duration::ZERO, 0, 0);
    let mut killer = None;
    while whole < WHOLE_ROUNDS {
        scb.revoke_all();
        let all = USERS.iter().flat_map(|user| lines.iter().map(move |line| (line.clone(), *user)));
        let calls = all.map(|(line, user)| timed(line, "/scb/echo/x", user, watch, &users));
        if watch.elapsed() > BEFORE
            && let Some(kill) = kill.take()
        {
            killed = watch.elapsed();
            killer = Some(kill);
        }
        let calls = async { join_all(calls).await.into_iter().all(|served| served) };
        let (is_whole, ()) = tokio::join!(calls, async {
            if let Some(kill) = killer.take() {
                // In the middle of renewals.
                tokio::time::sleep(Duration::from_millis(3)).await;
                kill();
            }
        });
        rounds += 1;
        whole = if is_whole && kill.is_none() { whole + 1 } else { 0 };
        // Whoever is refused asks again a little later.
        tokio::time::sleep(Duration::from_millis(if is_whole { 5 } else { 100 })).await;
        assert!(watch.elapsed() < Duration::from_secs(45), "never whole again: {:?}", users.borrow().failed);
    }
    stop.set(true);
    for other in others {
        other.await.expect("the load");
    }
    let twice = scb.violations().len();
    let applications = applications.take();
    FailoverRun { users: users.take(), applications, rounds, rotations: scb.token_calls() - rotations, twice, killed }
}

/// Appends figures to the file that `FAILOVER_FIGURES` names.
fn write_figures(text: &str) {
    if let Some(path) = std::env::var_os("FAILOVER_FIGURES") {
        let before = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, before + text).expect("written");
    }
}

/// Writes figures, and checks them.
fn judge(what: &str, run: &FailoverRun) {
    let FailoverRun { users, applications, rounds, rotations, twice, killed } = run;
    let (first, last) = users.failing.unwrap_or_default();
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{what}: {rounds} rounds, {} calls of users, longest {} ms, failed {:?} from {} to {} ms after the kill; \
         {rotations} rotations, {twice} refresh tokens sent twice; {} calls of applications, longest {} ms, failed {:?}",
        users.calls,
        users.longest.as_millis(),
        users.failed,
        first.saturating_sub(*killed).as_millis(),
        last.saturating_sub(*killed).as_millis(),
        applications.calls,
        applications.longest.as_millis(),
        applications.failed,
    );
    write_figures(&text);
    assert_eq!(*twice, 0, "{text}");
    assert!(applications.failed.is_empty(), "{text}");
    let is_bearable = |error: &String| error == "503 token-unavailable" || error == REFUSED;
    assert!(users.failed.keys().all(is_bearable), "a consent is lost: {text}");
}

fn on(url: &str) -> String {
    format!("[store]\nurl = \"{url}\"\nkeys = [\"{}\"]\n", store_key())
}

/// Waits until every replica reaches every master: users whom nobody knows lie all over the store.
async fn reach_all(lines: &[Line]) {
    for line in lines {
        for number in 0..12 {
            let user = format!("nobody-{number}");
            until("an answer of the store", async || {
                ask(line.clone(), "/scb/echo/x", &user).await.error() == "consent-required"
            })
            .await;
        }
    }
}

/// Lets users consent at three replicas on this store, and lets them call while a master dies.
fn fail_over(what: &str, url: &str, master: &RefCell<RedisServer>) {
    let (scb, meed) = (bank(Bank::Scb), bank(Bank::Meed));
    let fleet = Fleet::new(&[&scb, &meed], &on(url));
    let run = converse(async {
        let replicas = [fleet.replica().await, fleet.replica().await, fleet.replica().await];
        let lines = lines(&replicas).await;
        reach_all(&lines).await;
        for user in USERS {
            consent(&replicas[0].client, KEY, &scb, user, user).await;
        }
        run(&lines, &scb, || master.borrow_mut().kill()).await
    });
    judge(what, &run);
}

#[test]
fn a_master_that_dies_under_load_is_replaced_by_sentinels_without_a_loss() {
    let mut group = SentinelGroup::start(["", ""], &[]);
    let url = format!("redis+sentinel://{}", group.place());
    let master = RefCell::new(group.servers.remove(0));
    fail_over("Sentinels", &url, &master);
}

#[test]
fn a_master_of_a_cluster_that_dies_under_load_is_replaced_without_a_loss() {
    let mut group = ClusterGroup::start(true, "", &[]);
    let url = format!("redis+cluster://{}", group.place());
    let master = RefCell::new(group.nodes.remove(0));
    fail_over("Cluster", &url, &master);
}

#[test]
fn a_renewal_costs_the_bank_one_call_and_redis_little_more_however_many_replicas_want_it() {
    for count in [1, 3, 6] {
        let (redis, scb) = (RedisServer::start(), bank(Bank::Scb));
        let fleet = Fleet::new(&[&scb], &on(&format!("redis://127.0.0.1:{}", redis.port)));
        let commands = || -> usize {
            let told = redis.cli(&["INFO", "stats"]);
            let number = told.lines().find_map(|line| line.strip_prefix("total_commands_processed:"));
            number.expect("a number").trim().parse().expect("a number")
        };
        let text = converse(async {
            let mut replicas = Vec::new();
            for _ in 0..count {
                replicas.push(fleet.replica().await);
            }
            let lines = lines(&replicas).await;
            reach_all(&lines).await;
            for user in USERS {
                consent(&replicas[0].client, KEY, &scb, user, user).await;
            }
            for user in USERS {
                for line in &lines {
                    until("the consent", async || ask(line.clone(), "/scb/echo/x", user).await.status == 200).await;
                }
            }
            let (watch, figures) = (Stopwatch::start(), RefCell::new(CallFigures::default()));
            let (rotations, before, rounds) = (scb.token_calls(), commands(), 10);
            for _ in 0..rounds {
                scb.revoke_all();
                let all = USERS.iter().flat_map(|user| lines.iter().map(move |line| (line.clone(), *user)));
                // A machine with too much to do may keep one of them waiting for longer than the store is waited for.
                let figures = &figures;
                let calls = all.map(|(line, user)| async move {
                    let call = async || timed(line.clone(), "/scb/echo/x", user, watch, figures).await;
                    until("the call", call).await;
                });
                join_all(calls).await;
            }
            let (elapsed, asked) = (watch.elapsed(), commands() - before);
            let (renewals, wanted) = (rounds * USERS.len(), scb.token_calls() - rotations);
            // A token that was refused as soon as it came is renewed once more.
            let most = renewals as u64 * 6 / 5;
            assert!((renewals as u64..=most).contains(&wanted), "{count} replicas: {wanted} calls of the bank");
            let each = asked / renewals;
            assert!(each <= 15 + 40 * count, "{count} replicas: {each} commands for a renewal");
            let longest = figures.borrow().longest.as_millis();
            format!(
                "{count} replicas: {renewals} renewals, {each} commands of Redis each, {} ms each, longest call {longest} ms\n",
                elapsed.as_millis() / renewals as u128
            )
        });
        write_figures(&text);
        assert_eq!(scb.violations(), Vec::<String>::new());
    }
}
