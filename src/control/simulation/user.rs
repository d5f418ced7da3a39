//! Users: they consent, take it back, and somebody calls in their name.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use super::client::within;
use super::process::Process;
use super::settings::{WITH_USERS, provider};
use super::simulation_world::Simulation;
use crate::control::{CodeSource, Finished, StartConsent};
use crate::token::consent::{ConsentOwner, UserKey, UserName};

/// Number of users at each provider.
const EACH: usize = 2;
/// A consent is started, finished or revoked within this, in milliseconds: one call of the bank, and a store that is
/// asked patiently, some times over.
const BOUND: u64 = 40_000;

/// The known state of a user's consent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum ConsentKnowledge {
    /// The user has never given a consent.
    None,
    /// They were told that they have, by this consent.
    Consented(usize),
    /// They were told that it is taken back, at this moment, by this process.
    Revoked { at: u64, process: u32 },
    /// They were told nothing, or that it failed.
    Unknown,
}

/// One user at one provider.
pub(super) struct User {
    pub(super) key: UserKey,
    pub(super) freshness: Cell<ConsentKnowledge>,
    /// When they were last told that they have one, in milliseconds of the run.
    pub(super) consented_at: Cell<u64>,
    /// Consents of this number and later count, after a revocation.
    pub(super) counts_from: Cell<usize>,
    busy: Cell<bool>,
    why: RefCell<String>,
}

impl User {
    /// Builds all users of a run.
    pub(super) fn all() -> Vec<Self> {
        let names = (0..EACH * WITH_USERS.len()).map(|number| (number, WITH_USERS[number % WITH_USERS.len()]));
        let user = |(number, provider): (usize, &str)| Self {
            key: UserKey {
                owner: ConsentOwner::Client("app".into()),
                provider: provider.into(),
                user: UserName::parse(&format!("user-{number}")).expect("a name"),
            },
            freshness: Cell::new(ConsentKnowledge::None),
            consented_at: Cell::new(0),
            counts_from: Cell::new(0),
            busy: Cell::new(false),
            why: RefCell::default(),
        };
        names.map(user).collect()
    }

    /// Returns whether the user's consent is being given or revoked.
    pub(super) const fn is_busy(&self) -> bool {
        self.busy.get()
    }

    /// Returns the reason why the state of the consent is unknown.
    pub(super) fn why(&self) -> String {
        self.why.borrow().clone()
    }

    fn unknown(&self, why: String) {
        self.freshness.set(ConsentKnowledge::Unknown);
        *self.why.borrow_mut() = why;
    }
}

/// A user consents: begun at one process, brought back to another.
pub(super) async fn consent(world: Rc<Simulation>, user: usize, first: Rc<Process>, second: Rc<Process>) {
    let me = &world.users[user];
    if me.busy.replace(true) {
        return;
    }
    let before = me.freshness.get();
    let told = give(&world, user, &first, &second).await;
    world.note(|| format!("{} consents at {first} and {second}: {told:?}", me.key.user));
    match told {
        Ok(Some(consent)) => {
            me.freshness.set(ConsentKnowledge::Consented(consent));
            me.consented_at.set(world.now());
        }
        // The consent was not changed, so the earlier state still holds.
        Ok(None) => me.freshness.set(before),
        Err(why) => me.unknown(why),
    }
    me.busy.set(false);
}

/// The consent that came of it; nothing, if it came to nothing before the code was exchanged.
async fn give(world: &Rc<Simulation>, user: usize, first: &Process, second: &Process) -> Result<Option<usize>, String> {
    let key = &world.users[user].key;
    let at = provider(&first.config(), &key.provider).clone();
    let beginning = StartConsent {
        provider: at.clone(),
        key: key.clone(),
        client: "app".into(),
        by: "client:app".into(),
        return_to: None,
    };
    let started = within(world, BOUND, "starting a consent", first.consents.start(beginning)).await;
    let Some(Ok(started)) = started else { return Ok(None) };
    world.pause(100, 5_000).await;
    let host = at.base_url.bare_host().to_owned();
    let code = world.bank.borrow_mut().agree(user, &host);
    let there = provider(&second.config(), &key.provider).clone();
    let consent = there.consents.as_ref().and_then(|consents| consents.module.consent()).expect("it has users");
    let Ok(callback) = consent.posted(&started.state, &code, None, second.clock().now()) else { return Ok(None) };
    let bringer = if world.chance(50) { CodeSource::Browser } else { CodeSource::Application(key.clone()) };
    let from = world.bank.borrow().consents.len();
    let finishing = second.consents.finish(there.clone(), bringer, callback);
    match within(world, BOUND, "finishing a consent", finishing).await {
        Some(Finished::Consented(_)) => {
            let bank = world.bank.borrow();
            let found = bank.consents.iter().enumerate().skip(from).find(|(_, consent)| consent.user == user);
            Ok(found.map(|(number, _)| number))
        }
        Some(Finished::Rejected(..)) => Ok(None),
        Some(Finished::Failed(failure)) => Err(failure.inside),
        None => Err("nothing was told".to_owned()),
    }
}

/// A user's consent is taken back, at this process.
pub(super) async fn revoke(world: Rc<Simulation>, user: usize, process: Rc<Process>) {
    let me = &world.users[user];
    if me.busy.replace(true) {
        return;
    }
    // The worst moment for another replica to lose the store: it hears of it, and cannot look.
    let others =
        world.processes.borrow().iter().filter(|other| other.number != process.number).cloned().collect::<Vec<_>>();
    for other in others {
        if world.plan.outages && world.plan.shared && other.is_running() && world.strikes(3_000) {
            other.lane.cut(world.between(500, 8_000), 0);
        }
    }
    let told = within(&world, BOUND, "revoking a consent", process.consents.revoke(me.key.clone(), "admin:ops")).await;
    world.note(|| format!("{} is revoked at {process}: {told:?}", me.key.user));
    match told {
        Some(Ok(_)) => {
            me.counts_from.set(world.bank.borrow().consents.len());
            me.freshness.set(ConsentKnowledge::Revoked { at: world.now(), process: process.number });
        }
        Some(Err(failure)) => me.unknown(failure.inside),
        None => me.unknown("nothing was told".to_owned()),
    }
    me.busy.set(false);
}

/// Waits until no user's consent is being given or revoked.
pub(super) async fn all_idle(world: &Simulation) {
    while world.users.iter().any(|user| user.busy.get()) {
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
