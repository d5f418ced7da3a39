//! Requests of applications, as a worker carries them out: a lease, a call, perhaps a refusal and one replay.

use std::future::Future;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::bank::{RefreshDelivery, TokenOwner, number};
use super::process::Process;
use super::settings::{TOKEN_TIMEOUT, provider};
use super::simulation_world::Simulation;
use super::user::ConsentKnowledge;
use crate::control::{Issued, TokenSpec, Unavailable};
use crate::token::failure::Class;
use crate::token::grant::CallPlace;
use crate::token::lease::Lease;

/// A caller may be answered this much later than its fetch may take, in milliseconds.
const MARGIN: u64 = 100;
/// A revoked user is out everywhere within this, in milliseconds, where link and news work: who waits for a call that is
/// under way may be given what was read before.
const REVOKED_WITHIN: u64 = 4_000;
/// The same after a broken link has come back.
const CAUGHT_UP_WITHIN: u64 = 6_000;

/// The owner of the token that a request needs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Need {
    /// The application's, at this provider.
    Application(&'static str),
    /// The user with this index in `Simulation::users`.
    User(usize),
}

/// The outcome of a request.
#[derive(Debug)]
pub(super) enum RequestOutcome {
    /// The bank took the token.
    Accepted,
    /// The process ended during the request.
    Gone,
    /// The keeper gave no token, for this reason.
    None(Unavailable),
    /// The bank refused it, once or twice.
    Refused,
}

/// Waits for an answer that must come within so many milliseconds.
pub(super) async fn within<T>(
    world: &Simulation,
    bound: u64,
    what: &str,
    answer: impl Future<Output = T>,
) -> Option<T> {
    match tokio::time::timeout(Duration::from_millis(bound), answer).await {
        Ok(answer) => Some(answer),
        Err(_) => {
            world.broken(|| format!("{what} was not answered within {bound} ms"));
            None
        }
    }
}

/// Carries out one request, and counts it while it runs.
pub(super) async fn request(world: Rc<Simulation>, process: Rc<Process>, need: Need) -> RequestOutcome {
    process.requests.set(process.requests.get() + 1);
    let outcome =
        SimulatedRequest { world: world.clone(), process: process.clone(), need, host: host(&world, &process, need) };
    let outcome = outcome.run().await;
    process.requests.set(process.requests.get() - 1);
    outcome
}

fn host(world: &Simulation, process: &Process, need: Need) -> String {
    let config = process.config();
    let name: &str = match need {
        Need::Application(name) => name,
        Need::User(user) => &world.users[user].key.provider,
    };
    provider(&config, name).base_url.bare_host().to_owned()
}

struct SimulatedRequest {
    world: Rc<Simulation>,
    process: Rc<Process>,
    need: Need,
    /// The bank that it goes to.
    host: String,
}

impl SimulatedRequest {
    async fn run(&self) -> RequestOutcome {
        let (process, world) = (&self.process, &self.world);
        let spec = match self.need {
            Need::Application(name) => process.application(name),
            Need::User(user) => process.of_user(user),
        };
        let now = process.clock().now();
        let at_hand = process.shelves.borrow().get(&spec.key).and_then(|token_slot| token_slot.take(now));
        let (lease, fresh) = match at_hand {
            Some(lease) => (lease, false),
            None => match self.wait("a token", &spec, process.leases.need(spec.clone())).await {
                Some(Ok(Issued { lease, token_slot, fresh })) => {
                    process.shelves.borrow_mut().insert(spec.key, token_slot);
                    (lease, fresh)
                }
                Some(Err(unavailable)) => return self.none(unavailable),
                None => return RequestOutcome::Gone,
            },
        };
        // A token that is sent this young may be refused only because the bank does not know it yet: such a refusal is
        // no proof.
        let settled = !lease.is_newly_issued(process.clock().now());
        let Some(token) = self.send(&lease) else { return RequestOutcome::Gone };
        world.pause(5, 400).await;
        if self.accepts(token) {
            lease.prove();
            // An unknown 401 that has nothing to do with the token.
            if world.strikes(50) {
                world.suspect();
                process.leases.suspect(spec, lease.generation);
            }
            return RequestOutcome::Accepted;
        }
        if !process.is_running() {
            return RequestOutcome::Gone;
        }
        let is_newly_issued = lease.is_newly_issued(process.clock().now());
        if fresh && !is_newly_issued && !self.lost_to_another(&spec, &lease).await {
            process.leases.refused_at_birth(spec.clone(), lease.generation);
            self.report(&spec, &lease, token, settled);
            return RequestOutcome::Refused;
        }
        if world.chance(10) {
            process.leases.withdrawn(spec.clone(), lease.generation, false);
            self.report(&spec, &lease, token, settled);
            return RequestOutcome::Refused;
        }
        let replaced = is_newly_issued && self.lost_to_another(&spec, &lease).await;
        let newer = process.leases.refused_for(spec.clone(), lease.generation, replaced, None);
        self.report(&spec, &lease, token, settled || replaced);
        let lease = match self.wait("a newer token", &spec, newer).await {
            Some(Ok(issued)) => issued.lease,
            Some(Err(unavailable)) => return self.none(unavailable),
            None => return RequestOutcome::Gone,
        };
        let settled = !lease.is_newly_issued(process.clock().now());
        let Some(token) = self.send(&lease) else { return RequestOutcome::Gone };
        world.pause(5, 400).await;
        if self.accepts(token) {
            lease.prove();
            return RequestOutcome::Accepted;
        }
        if process.is_running() {
            if self.lost_to_another(&spec, &lease).await {
                process.leases.withdrawn(spec.clone(), lease.generation, true);
            } else {
                process.leases.refused_at_birth(spec.clone(), lease.generation);
            }
            self.report(&spec, &lease, token, settled);
        }
        RequestOutcome::Refused
    }

    fn none(&self, unavailable: Unavailable) -> RequestOutcome {
        if !self.process.is_running() {
            return RequestOutcome::Gone;
        }
        let Unavailable { class, retry_after, inside, .. } = &unavailable;
        self.world.note(|| {
            format!("{} has no token for {:?}: {class:?}, {retry_after:?}, {inside}", self.process, self.need)
        });
        if let Need::User(user) = self.need
            && unavailable.class == Class::Consent
            && self.needs_no_consent(user)
        {
            self.world.broken(|| format!("{} says that user {user} must consent, who has: {inside}", self.process));
        }
        RequestOutcome::None(unavailable)
    }

    /// Returns whether a user's consent is alive and all processes have had the time to know it.
    fn needs_no_consent(&self, user: usize) -> bool {
        let (world, process) = (&self.world, &self.process);
        let bank = world.bank.borrow();
        let ConsentKnowledge::Consented(number) = world.users[user].freshness.get() else { return false };
        let consent = &bank.consents[number];
        let lives = consent.alive && consent.excuse.is_none() && consent.host == self.host;
        let renewable = consent.refresh.is_some_and(|refresh| bank.refreshes[refresh].expires > world.now() + 1_000);
        let whole = |process: &Process| process.lane.whole_since() + 15_000 < world.now();
        // The process that received the last successor must have had the time to save it.
        let told =
            bank.refreshes.iter().filter(|refresh| refresh.consent == number).filter_map(|one| one.spent).next_back();
        let saved = match told {
            None => true,
            Some(RefreshDelivery::Delivered { process, at }) => {
                let processes = world.processes.borrow();
                let holder = processes.iter().find(|known| known.number == process);
                at + 15_000 < world.now() && holder.is_some_and(|holder| holder.is_running() && whole(holder))
            }
            Some(RefreshDelivery::Awaited | RefreshDelivery::Lost) => false,
        };
        let calm = world.spread() == 0 && !world.users[user].is_busy();
        // News are late by half a second, and a request may have begun before them.
        let known = world.users[user].consented_at.get() + TOKEN_TIMEOUT + 1_000 < world.now();
        lives && renewable && saved && calm && known && whole(process)
    }

    async fn wait(
        &self,
        what: &str,
        spec: &TokenSpec,
        answer: impl Future<Output = Result<Issued, Unavailable>>,
    ) -> Option<Result<Issued, Unavailable>> {
        let timeout = u64::try_from(spec.fetch_timeout.as_millis()).unwrap_or(u64::MAX);
        // A token that settles may end early where the wall clock is set: then another one is fetched.
        let times = if self.world.spread() == 0 { 1 } else { 2 };
        let bound = timeout * times + MARGIN;
        let what = format!("{} asked for {what} for {:?}: it", self.process, self.need);
        let answer = within(&self.world, bound, &what, answer).await?;
        (self.process.is_running() || answer.is_ok()).then_some(answer)
    }

    async fn lost_to_another(&self, spec: &Arc<TokenSpec>, lease: &Lease) -> bool {
        spec.procedure.is_contested() && self.process.leases.is_replaced(spec.key, lease.generation).await
    }

    fn accepts(&self, token: usize) -> bool {
        let world = &self.world;
        let spurious = world.strikes(world.plan.refusals);
        let accepted = world.bank.borrow().accepts(token, &self.host, world.now()) && !spurious;
        if !accepted {
            world.note(|| format!("{} refuses access-{token}", self.host));
            // A token that was refused once stays refused, unless the bank does not know it yet.
            if let Some(token) = world.bank.borrow_mut().tokens.get_mut(token) {
                token.doubted = true;
                token.revoked |= world.now() >= token.known;
            }
        }
        accepted
    }

    /// This token was refused, and the keeper knows. Settled: not because the bank might not know it yet.
    fn report(&self, spec: &TokenSpec, lease: &Lease, token: usize, settled: bool) {
        if let Some(token_slot) = self.process.shelves.borrow().get(&spec.key) {
            token_slot.distrust(lease.generation);
        }
        if settled {
            self.process.refused.borrow_mut().insert(token);
            // By its own clock it may have expired meanwhile; then nobody notes that it was refused, too.
            if lease.valid(self.process.clock().now()) {
                self.world.report(self.process.replica, token);
            }
        }
    }

    /// The token goes out: here it must be good, as far as anybody could know. Its number.
    fn send(&self, lease: &Lease) -> Option<usize> {
        let (world, process) = (&self.world, &self.process);
        if !process.is_running() && !matches!(process.state(), super::process::State::Draining(_)) {
            return None;
        }
        let now = world.now();
        let value =
            lease.credentials.iter().find(|(place, _)| *place == CallPlace::Header(http::header::AUTHORIZATION));
        let text = value.and_then(|(_, value)| value.to_str().ok()).and_then(|value| value.strip_prefix("Bearer "));
        let Some(sent) = text.and_then(|text| number(text, "access")) else {
            world.broken(|| format!("{process} sends something that is no token"));
            return None;
        };
        let need = self.need;
        world.note(|| format!("{process} sends access-{sent} for {need:?}"));
        world.bank.borrow_mut().held(sent, process.number);
        let bank = world.bank.borrow();
        let token = &bank.tokens[sent];
        let broken = |why: String| world.broken(|| format!("{process} sends access-{sent} for {need:?}: {why}"));
        // A token that the process fetched itself expires by its own boot clock; a token that others wrote, by two wall
        // clocks. So does one of its own that came too late for its fetch, and was found in the store when the wall
        // clock had been set.
        let known = process.sent.borrow().contains(&sent) || token.error == process.watch.error();
        if now < token.expires {
            process.sent.borrow_mut().insert(sent);
        }
        let own = token.process == process.number && token.owner == TokenOwner::Application && known;
        let tolerance = if own { 0 } else { world.spread() };
        if now >= token.expires + tolerance {
            broken(format!("it expired {} ms ago", now - token.expires));
        }
        if process.refused.borrow().contains(&sent) {
            broken("it was refused here before".to_owned());
        } else if world.was_reported(process.replica, sent, process.since) {
            broken("it was refused before this process started".to_owned());
        }
        if token.host != self.host {
            broken(format!("it was issued by {}, and goes to {}", token.host, self.host));
        }
        match (token.owner, need) {
            (TokenOwner::Application, Need::Application(_)) => {}
            (TokenOwner::User { user, consent }, Need::User(wanted)) if user == wanted => {
                let user = &world.users[user];
                if let ConsentKnowledge::Revoked { at, process: by } = user.freshness.get()
                    && consent < user.counts_from.get()
                {
                    let whole = process.lane.whole_since();
                    let out = match () {
                        () if by == process.number => at,
                        () if whole > at => (at + REVOKED_WITHIN).max(whole + CAUGHT_UP_WITHIN),
                        () => at + REVOKED_WITHIN,
                    };
                    if now > out {
                        broken(format!("the user revoked it {} ms ago", now - at));
                    }
                }
            }
            (owner, _) => broken(format!("it belongs to {owner:?}")),
        }
        Some(sent)
    }
}
