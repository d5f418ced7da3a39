//! A bank where a new token kills the old one, and several replicas that need one.

use std::cell::Cell;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use countersign::base::time::Stopwatch;
use countersign::sim::{Bank, SimHandle};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

use crate::client::{PATIENCE, Whole, converse};
use crate::harness::bank;
use crate::redis_server::RedisServer;
use crate::replicas::{Fleet, Line, Replica, ask, lines, on_redis, until};

const PATH: &str = "/meed/echo/x";

/// A bank that knows one token at a time, which lives this long.
fn jealous(life: u64) -> SimHandle {
    let sim = bank(Bank::Meed);
    sim.change(|faults| {
        faults.issue.single = true;
        faults.issue.life = Some(Duration::from_secs(life));
    });
    sim
}

/// Replicas that are told of it by a profile.
fn fleet(sim: &SimHandle, redis: &RedisServer, coexistence: &str) -> Fleet {
    let fleet = Fleet::new(&[sim], &on_redis(redis));
    let at = |name: &str| fleet.folder.path().join(name);
    let profile = format!("name = \"jealous\"\nextends = \"meed\"\n[token]\ncoexistence = \"{coexistence}\"\n");
    fs::write(at("jealous.toml"), profile).expect("written");
    let config = fs::read_to_string(at("proxy.toml")).expect("readable");
    let told = config
        .replace("profile = \"meed\"", "profile = \"jealous.toml\"")
        .replace("profile  = \"meed\"", "profile = \"jealous.toml\"");
    assert_ne!(told, config);
    fs::write(at("proxy.toml"), told).expect("written");
    fleet
}

/// So many calls at once, spread over the replicas.
async fn herd(replicas: &[Replica], lines: &[Line], calls: usize) {
    let calls = lines.iter().cycle().take(calls).map(|line| ask(line.clone(), PATH, ""));
    for answer in join_all(calls).await {
        let told = || replicas.iter().map(|replica| replica.process.stderr()).collect::<Vec<_>>().join("\n---\n");
        assert_eq!(answer.status, 200, "{answer:?}\n{}", told());
    }
}

/// Calls that go on and on, two at a time for each line. Each must be answered with 200, or be excused.
struct Load {
    tasks: Vec<JoinHandle<()>>,
    served: Rc<Cell<u64>>,
    excused: Rc<Cell<u64>>,
    stop: Rc<Cell<bool>>,
}

impl Load {
    fn on(lines: &[Line], excuse: fn(&Whole) -> bool) -> Self {
        let (served, excused, stop) = (Rc::<Cell<u64>>::default(), Rc::<Cell<u64>>::default(), Rc::default());
        let tasks = lines.iter().chain(lines).map(|line| {
            let (line, served, excused, stop) = (line.clone(), served.clone(), excused.clone(), Rc::clone(&stop));
            tokio::task::spawn_local(async move {
                while !Cell::get(&stop) {
                    let answer = ask(line.clone(), PATH, "").await;
                    if answer.status == 200 {
                        served.set(served.get() + 1);
                    } else {
                        assert!(excuse(&answer), "{answer:?}");
                        excused.set(excused.get() + 1);
                        tokio::time::sleep(Duration::from_millis(20)).await;
                    }
                }
            })
        });
        Self { tasks: tasks.collect(), served, excused, stop }
    }

    fn failed(&self) -> bool {
        self.tasks.iter().any(JoinHandle::is_finished)
    }

    async fn stop(self) -> (u64, u64) {
        self.stop.set(true);
        for task in self.tasks {
            task.await.expect("every call was served");
        }
        (self.served.get(), self.excused.get())
    }
}

#[test]
fn replicas_share_the_one_token_that_a_bank_knows() {
    for coexistence in ["single", "overlap"] {
        let (redis, meed) = (RedisServer::start(), jealous(2));
        let fleet = fleet(&meed, &redis, coexistence);
        converse(async {
            let replicas = fleet.three(&redis).await;
            let lines = lines(&replicas).await;
            herd(&replicas, &lines, 90).await;
            assert_eq!(meed.token_calls(), 1, "a cold herd");
            let (watch, received) = (Stopwatch::start(), meed.resource_calls());
            let load = Load::on(&lines, |_| false);
            until("renewals", async || meed.token_calls() >= 5 || load.failed()).await;
            let (served, _) = load.stop().await;
            let renewals = meed.token_calls() - 1;
            // 1.4 s at least lie between two.
            let most = watch.elapsed().as_millis() / 1400 + 1;
            assert!(u128::from(renewals) <= most, "{renewals} renewals in {:?}", watch.elapsed());
            let replayed = meed.resource_calls() - received - served;
            assert!(replayed <= renewals * 6, "{replayed} replays for {renewals} renewals");
            // Whoever is refused takes what another has fetched by then.
            meed.change(|faults| faults.issue.life = Some(Duration::from_secs(600)));
            let before = meed.token_calls();
            until("a token that lasts", async || {
                herd(&replicas, &lines, 6).await;
                meed.token_calls() > before
            })
            .await;
            herd(&replicas, &lines, 90).await;
            for round in 0..20 {
                let before = meed.token_calls();
                meed.revoke_all();
                herd(&replicas, &lines, 90).await;
                assert_eq!(meed.token_calls() - before, 1, "round {round}");
            }
        });
        assert_eq!(meed.violations(), Vec::<String>::new());
    }
}

#[test]
fn without_the_store_replicas_do_not_kill_each_others_tokens() {
    let (mut redis, meed) = (RedisServer::start(), jealous(600));
    let fleet = fleet(&meed, &redis, "single");
    converse(async {
        let replicas = fleet.three(&redis).await;
        let lines = lines(&replicas).await;
        herd(&replicas, &lines, 30).await;
        redis.kill();
        herd(&replicas, &lines, 300).await;
        assert_eq!(meed.token_calls(), 1, "what lives is kept");
        // It dies before its time: nobody can know whether another replica has a new one.
        meed.revoke_all();
        for answer in join_all(lines.iter().cycle().take(60).map(|line| ask(line.clone(), PATH, ""))).await {
            assert_eq!((answer.status, answer.error().as_str()), (503, "token-unavailable"), "{answer:?}");
            assert!(answer.header("retry-after").parse::<u64>().is_ok_and(|after| after <= 5), "{answer:?}");
        }
        assert_eq!(meed.token_calls(), 1);
        redis.revive();
        for line in &lines {
            until("calls again", async || ask(line.clone(), PATH, "").await.status == 200).await;
        }
        assert_eq!(meed.token_calls(), 2, "one for all");

        // Tokens that die by themselves are replaced, and no more often than that; now replicas do hurt each other.
        meed.change(|faults| faults.issue.life = Some(Duration::from_secs(2)));
        meed.revoke_all();
        herd(&replicas, &lines, 30).await;
        redis.kill();
        let (watch, before) = (Stopwatch::start(), meed.token_calls());
        let load = Load::on(&lines, |answer| answer.status == 401 || answer.error() == "token-unavailable");
        let goal = before + 5;
        tokio::time::timeout(PATIENCE, until("tokens", async || meed.token_calls() >= goal || load.failed()))
            .await
            .expect("in time");
        let (served, excused) = load.stop().await;
        let (fetched, lives) = (meed.token_calls() - before, watch.elapsed().as_secs() / 2 + 1);
        assert!(fetched <= 3 * lives, "{fetched} in {lives} lives");
        assert!(served > 10 && excused > 0, "{served} {excused}");
    });
    assert_eq!(meed.violations(), Vec::<String>::new());
}
