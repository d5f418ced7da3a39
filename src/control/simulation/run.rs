//! One run, from its seed to its verdict.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

use super::NETWORK;
use super::client::{Need, RequestOutcome, request};
use super::network::{Network, REFRESH_LIFE};
use super::panics;
use super::plan::Clocks;
use super::process::Process;
use super::settings::{PROVIDERS, WITH_USERS};
use super::simulation_world::Simulation;
use super::user::{ConsentKnowledge, all_idle, consent, revoke};
use crate::base::draw::seeded;
use crate::token::failure::Class;

/// A process that is told to end has so long, in milliseconds: a call of a bank, and what saving may take.
const DRAIN: u64 = 20_000;
/// The longest rest, jitter included, in milliseconds.
const LONGEST_REST: u64 = 4_400_000;

/// A process at rest has so many clocks at most: one for each of its parts, and for each token that it knows.
const MOST_HANDLES: usize = 60;

/// The result of a run.
pub(super) struct RunVerdict {
    /// The promise that was broken, if one was.
    pub(super) broken: Option<String>,
    /// The events of the run, line by line.
    pub(super) trace: Vec<String>,
    /// Number of calls to banks.
    pub(super) calls: u32,
}

/// Runs the simulation of one seed to its verdict.
pub(super) fn play(seed: u64, traced: bool) -> RunVerdict {
    let _listening = panics::listen();
    seeded::set(Some(seed));
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().expect("a runtime");
    let verdict = LocalSet::new().block_on(&runtime, async {
        let world = Simulation::new(seed, traced);
        world.note(|| format!("seed {seed}: {:?}", world.plan));
        NETWORK.set(Some(Rc::new(Network::new(world.clone()))));
        rage(&world).await;
        if !world.is_broken() {
            recover(&world).await;
        }
        for process in world.processes.take() {
            process.kill();
        }
        tokio::task::yield_now().await;
        NETWORK.set(None);
        let (broken, trace) = world.outcome();
        RunVerdict { broken, trace, calls: world.bank.borrow().calls }
    });
    drop(runtime);
    seeded::set(None);
    verdict
}

/// The processes that serve, one for each replica that has one.
fn serving(world: &Simulation) -> Vec<Rc<Process>> {
    world.processes.borrow().iter().filter(|process| process.is_running()).cloned().collect()
}

fn some_process(world: &Simulation) -> Option<Rc<Process>> {
    let mut serving = serving(world);
    if serving.is_empty() { None } else { Some(serving.swap_remove(world.below(serving.len() as u64) as usize)) }
}

/// Starts a process, on a machine that has just booted or has been up for days.
fn start(world: &Rc<Simulation>, replica: usize, config: usize) {
    let uptime = match world.plan.fresh_boots && world.chance(60) {
        true => world.between(500, 40_000),
        false => 300_000_000 + world.now(),
    };
    let error = clock_error(world, replica);
    Process::start(world, replica, config, uptime, error);
}

/// Returns the error that a replica's wall clock has from now on, in milliseconds.
fn clock_error(world: &Simulation, replica: usize) -> i64 {
    let most = match world.plan.clocks {
        _ if !world.storm.get() => return 0,
        Clocks::Right => return 0,
        Clocks::Day if replica == 0 => return 26 * 3_600_000,
        Clocks::Day => return 0,
        Clocks::Seconds => 5_000,
        Clocks::Minutes => 600_000,
    };
    i64::try_from(world.below(2 * most)).unwrap_or(0) - i64::try_from(most).unwrap_or(0)
}

/// Runs the phase in which faults happen.
async fn rage(world: &Rc<Simulation>) {
    let plan = &world.plan;
    for replica in 0..plan.replicas {
        start(world, replica, 0);
    }
    for user in 0..world.users.len() {
        if world.chance(80) {
            act_consent(world, user);
        }
    }
    while world.now() < plan.storm && !world.is_broken() {
        world.pause(20, plan.pace).await;
        step(world);
    }
}

/// Carries out one random event, such as a call, a consent or a fault.
fn step(world: &Rc<Simulation>) {
    let plan = &world.plan;
    let Some(process) = some_process(world) else { return };
    match world.below(100) {
        0..40 => call(world, process, Need::Application(PROVIDERS[world.below(3) as usize])),
        40..75 => call(world, process, Need::User(world.below(world.users.len() as u64) as usize)),
        75..79 => act_consent(world, world.below(world.users.len() as u64) as usize),
        79..82 if plan.revocations => {
            let user = world.below(world.users.len() as u64) as usize;
            world.spawn(revoke(world.clone(), user, process));
        }
        82..84 if plan.revocations => bank_revokes(world),
        84..86 if plan.crashes => {
            process.kill();
            restart(world, &process);
        }
        86..88 if plan.drains => end_politely(world, &process),
        88..90 if plan.reloads => {
            let config = world.below(4) as usize;
            for process in serving(world) {
                process.reload(config);
            }
        }
        90..93 if plan.outages && plan.shared => {
            let length = if world.chance(70) { world.between(300, 5_000) } else { world.between(5_000, 90_000) };
            let (operations, news) = (length + world.below(4_000), length + world.below(4_000));
            if world.chance(70) { process.lane.cut(operations, news) } else { process.lane.cut(0, news) }
        }
        90..93 if plan.outages => process.lane.cut(world.between(300, 20_000), 0),
        93..95 => {
            let error = clock_error(world, process.replica);
            if error != process.watch.error() {
                world.note(|| format!("{process}: the wall clock is set wrong by {error} ms"));
                world.set_wall(&process.watch, error);
            }
        }
        _ => {}
    }
    replace_killed(world);
}

/// A replica whose process was killed in the middle of something gets another.
fn replace_killed(world: &Rc<Simulation>) {
    let killed: Vec<_> =
        world.processes.borrow().iter().filter(|process| process.is_killed_by_itself()).cloned().collect();
    for process in killed {
        restart(world, &process);
    }
}

fn call(world: &Rc<Simulation>, process: Rc<Process>, need: Need) {
    let own = world.clone();
    world.spawn(async move { drop(request(own, process, need).await) });
}

fn act_consent(world: &Rc<Simulation>, user: usize) {
    if let (Some(first), Some(second)) = (some_process(world), some_process(world)) {
        world.spawn(consent(world.clone(), user, first, second));
    }
}

/// A bank takes a consent, or all tokens of the application, back.
fn bank_revokes(world: &Simulation) {
    let mut bank = world.bank.borrow_mut();
    if world.chance(50) && !bank.consents.is_empty() {
        let consent = world.below(bank.consents.len() as u64) as usize;
        world.note(|| format!("the bank takes consent {consent} back"));
        bank.kill(consent);
        bank.consents[consent].excuse = Some("the bank took it back");
    } else {
        let host = format!("{}-a.example", PROVIDERS[world.below(3) as usize]);
        world.note(|| format!("{host} takes the application's tokens back"));
        bank.revoke_applications(&host);
    }
}

/// Another process takes the place of one that is gone.
fn restart(world: &Rc<Simulation>, before: &Rc<Process>) {
    if before.replaced.replace(true) {
        return;
    }
    let (own, before) = (world.clone(), before.clone());
    world.spawn(async move {
        own.pause(50, 15_000).await;
        start(&own, before.replica, before.config_number());
    });
}

/// A process is told to end, and another takes its place.
pub(super) fn end_politely(world: &Rc<Simulation>, process: &Rc<Process>) {
    if process.replaced.replace(true) {
        return;
    }
    let (own, process) = (world.clone(), process.clone());
    world.spawn(async move {
        let world = own;
        // On Redis the next process may serve before this one ends; a file belongs to one process at a time.
        let draining = process.clone().drain(DRAIN);
        if world.plan.shared && world.chance(50) {
            start(&world, process.replica, process.config_number());
            draining.await;
        } else {
            draining.await;
            world.pause(50, 3_000).await;
            start(&world, process.replica, process.config_number());
        }
    });
}

/// Runs the phase after the faults: checks that all activity comes to rest, and that every request that should be
/// served is served.
async fn recover(world: &Rc<Simulation>) {
    world.storm.set(false);
    world.note(|| "the faults are over".to_owned());
    for process in world.processes.borrow().iter() {
        process.lane.heal();
    }
    let calm = world.now();
    all_idle(world).await;
    replace_killed(world);
    // Processes that are still to start have started after this. Then set the clocks right, and end the rests that
    // earlier failures caused.
    tokio::time::sleep(Duration::from_millis(DRAIN + 16_000)).await;
    for process in serving(world) {
        world.set_wall(&process.watch, 0);
        process.forgive();
    }
    if serving(world).len() != world.plan.replicas {
        return world.broken(|| "a replica has no process".to_owned());
    }
    for user in 0..world.users.len() {
        if let Some(process) = some_process(world).filter(|_| !runs_out_soon(world, user)) {
            user_is_served(world, &process, user, calm).await;
        }
    }
    // Long enough for every refresh token that lives now to die, unless it is renewed.
    let until = world.now() + REFRESH_LIFE + 100_000;
    while world.now() < until && !world.is_broken() {
        tokio::time::sleep(Duration::from_secs(20)).await;
        if let Some(process) = some_process(world) {
            call(world, process, Need::Application(PROVIDERS[world.below(3) as usize]));
        }
    }
    boots(world).await;
    for process in serving(world) {
        for name in PROVIDERS {
            served(world, &process, Need::Application(name)).await;
        }
        for user in 0..world.users.len() {
            user_is_served(world, &process, user, calm).await;
        }
    }
    rests(world).await;
}

/// Returns whether a user's consent may expire before a request could have been served.
fn runs_out_soon(world: &Simulation, user: usize) -> bool {
    let ConsentKnowledge::Consented(consent) = world.users[user].freshness.get() else { return false };
    let bank = world.bank.borrow();
    bank.consents[consent].refresh.is_none_or(|refresh| bank.refreshes[refresh].expires < world.now() + 60_000)
}

/// Checks that a stored token outlives its process: even on a machine that has just booted, no new token has to be
/// requested.
async fn boots(world: &Rc<Simulation>) {
    let (Some(process), name) = (some_process(world), WITH_USERS[world.below(2) as usize]) else { return };
    let need = Need::Application(name);
    let newest = || {
        let bank = world.bank.borrow();
        let key = process.asks_with(name);
        let token = bank.tokens.iter().rfind(|token| token.asked_with == key);
        token.map(|token| (token.issued, token.expires, token.process))
    };
    let mut moment = None;
    for _ in 0..2 {
        served(world, &process, need).await;
        let Some((issued, expires, _)) = newest() else { return };
        // Late in its life, and before its renewal.
        let late = issued + (expires - issued) * 6 / 10;
        if world.now() < late {
            moment = Some(late);
            break;
        }
        tokio::time::sleep(Duration::from_millis(expires.saturating_sub(world.now()) + 1_000)).await;
    }
    let Some(late) = moment.filter(|_| !world.is_broken()) else { return };
    tokio::time::sleep(Duration::from_millis(late - world.now())).await;
    // A process that was killed has left its locks behind.
    while world.bank.borrow().flying > 0 || world.place.locks() > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    process.replaced.set(true);
    process.clone().drain(DRAIN).await;
    let fresh = Process::start(world, process.replica, process.config_number(), world.between(500, 5_000), 0);
    let worth = newest().is_some_and(|(issued, expires, _)| expires > world.now() + (expires - issued) * 3 / 10);
    let outcome = request(world.clone(), fresh.clone(), need).await;
    let own = newest().is_some_and(|(.., process)| process == fresh.number);
    if worth && (own || !matches!(outcome, RequestOutcome::Accepted)) {
        world.broken(|| format!("{fresh} has just booted and does not use the token in the store: {outcome:?}"));
    }
}

/// A request is served, after the rest that it is told of.
async fn served(world: &Rc<Simulation>, process: &Rc<Process>, need: Need) {
    for _ in 0..4 {
        if world.is_broken() {
            return;
        }
        match request(world.clone(), process.clone(), need).await {
            RequestOutcome::Accepted => return,
            RequestOutcome::Gone | RequestOutcome::Refused => {}
            RequestOutcome::None(unavailable) => {
                let rest = unavailable.retry_after.min(Duration::from_millis(LONGEST_REST));
                tokio::time::sleep(rest + Duration::from_millis(100)).await;
            }
        }
    }
    world.broken(|| format!("{process} does not serve {need:?} although nothing is wrong any more"));
}

/// A user who should be served is, and one who should not be is not.
async fn user_is_served(world: &Rc<Simulation>, process: &Rc<Process>, user: usize, calm: u64) {
    if world.is_broken() {
        return;
    }
    let me = &world.users[user];
    match me.freshness.get() {
        ConsentKnowledge::Consented(consent) => {
            let host = super::settings::provider(&process.config(), &me.key.provider).base_url.bare_host().to_owned();
            let excused = {
                let bank = world.bank.borrow();
                let found = &bank.consents[consent];
                let dies = found.refresh.map_or(u64::MAX, |refresh| bank.refreshes[refresh].expires);
                let ran_out = dies <= world.now() && dies <= world.hindered().max(calm) + 2 * 60_000 + 40_000;
                found.excuse.is_some() || found.host != host || ran_out
            };
            if !excused {
                served(world, process, Need::User(user)).await;
            }
        }
        ConsentKnowledge::Revoked { .. } => match request(world.clone(), process.clone(), Need::User(user)).await {
            RequestOutcome::None(unavailable) if unavailable.class == Class::Consent => {}
            outcome => world.broken(|| format!("{process} has revoked {} and answers {outcome:?}", me.key.user)),
        },
        ConsentKnowledge::None | ConsentKnowledge::Unknown => world.note(|| format!("{}: {}", me.key.user, me.why())),
    }
}

/// Checks that no calls, locks, tasks, clocks or waiters are left over.
async fn rests(world: &Simulation) {
    if world.is_broken() {
        return;
    }
    // Renewals go on, so a moment is looked for in which nothing is done.
    let mut left = Vec::new();
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        left = serving(world)
            .into_iter()
            .map(|process| (process.running(), Arc::strong_count(&process.watch), process))
            .collect();
        let busy = |(running, _, process): &(usize, usize, Rc<Process>)| *running > 0 || process.requests.get() > 0;
        if world.bank.borrow().flying == 0 && world.place.locks() == 0 && !left.iter().any(busy) {
            break;
        }
    }
    let flying = world.bank.borrow().flying;
    if flying > 0 {
        world.broken(|| format!("{flying} calls of banks never end"));
    }
    let locks = world.place.locks();
    if locks > 0 {
        world.broken(|| format!("{locks} locks are held although nothing is done"));
    }
    for (running, handles, process) in left {
        world.note(|| format!("{process}: {running} tasks, {handles} clocks"));
        if running > 0 || handles > MOST_HANDLES {
            world.broken(|| format!("{process}: {running} tasks and {handles} clocks are left over"));
        }
        let ledger = process.leases.ledger().await;
        let waiters: usize = ledger.lines.iter().map(|line| line.waiters).sum();
        if waiters > 0 || process.requests.get() > 0 {
            world.broken(|| {
                format!("{process}: {waiters} waiters, {} requests, and nothing happens", process.requests.get())
            });
        }
    }
}
