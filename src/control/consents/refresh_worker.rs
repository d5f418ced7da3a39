//! Keeping refresh tokens alive that no call renews, and other rounds through the store.
//!
//! A round looks at every consent and waits for none: what is due is put into the queue of its provider, from which so many
//! are renewed at one moment. A renewal under way belongs to the tracker, so no error of a round ends it.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, VecDeque};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::records::{forget, patiently, tokens_of, user_key, write_record};
use super::renewal::{Means, Renewal};
use super::rests::Rests;
use super::sweep::Sweeper;
use crate::base::draw::draw;
#[cfg(test)]
use crate::base::planted::{PlantedFault, planted};
use crate::base::time::{Clock, Now, millis};
use crate::config::ProviderConfig;
use crate::control::{Reloads, TokenHandle};
use crate::observe::audit::Auditor;
use crate::observe::metrics::Metrics;
use crate::store::{Kind, Version};
use crate::token::consent::{RotationEnding, RotationGoal, Upkeep, UserKey, UserTokens};
use crate::token::key::KeyMap;

/// So many refresh tokens of one provider are kept alive at one moment: a slow bank must not be what lets them die.
const AT_ONCE: usize = 64;
/// So many wait for that; the others are found again by the next round.
const MOST_WAITING: usize = 65_536;
/// All consents are looked through this often.
const ROUND: Duration = Duration::from_secs(60);

/// The renewal of refresh tokens that no call renews.
pub(super) struct RefreshWorker {
    pub(super) means: Means,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    pub(super) reloads: Reloads,
    pub(super) leases: TokenHandle,
    pub(super) audit: Auditor,
}

/// Looks through all consents, again and again. Ends when the process does.
pub(super) async fn keep_alive(upkeeper: RefreshWorker) {
    let (queues, mut sweeper) = (Queues::new(upkeeper.means.clone()), Sweeper::default());
    while upkeeper.means.tasks.is_open() {
        let snapshot = upkeeper.reloads.current();
        upkeeper.means.rests.tidy(upkeeper.clock.now());
        upkeeper.round(&snapshot.providers, &queues).await;
        sweeper.round(&upkeeper.means.store, upkeeper.clock.now()).await;
        tokio::time::sleep(ROUND).await;
    }
}

/// Ends all rests with each new config, at once: what fails later rests anew.
pub(super) async fn forgive(reloads: Reloads, rests: Rests) {
    let mut news = reloads.news();
    while news.changed().await.is_ok() {
        rests.forgive();
    }
}

impl RefreshWorker {
    async fn round(&self, providers: &[Arc<ProviderConfig>], queues: &Queues) {
        for provider in providers.iter().filter(|provider| provider.consents.is_none()) {
            // It may have had some before a reload.
            self.metrics.consents_expire(&provider.name, None);
        }
        if providers.iter().all(|provider| provider.consents.is_none()) {
            return;
        }
        // When the first consent of each provider dies.
        let mut first = vec![None; providers.len()];
        // Calls with a token that is held in memory leave no other trace.
        let idle = self.leases.idle_users().await;
        let mut from = None;
        loop {
            let page = match patiently(async || self.means.store.page(Kind::User, from.as_ref()).await).await {
                Ok(page) => page,
                Err(error) => {
                    tracing::warn!(%error, "consents cannot be listed");
                    #[cfg(test)]
                    if planted(PlantedFault::BrokenRound) {
                        self.means.tasks.abort();
                    }
                    return;
                }
            };
            for (name, record) in page.records {
                match tokens_of(&name, &record) {
                    Ok(tokens) => self.see_to(providers, tokens, record.version, &idle, &mut first, queues).await,
                    Err(error) => tracing::error!(%error, "a consent is not kept alive"),
                }
            }
            from = page.next;
            if from.is_none() {
                break;
            }
        }
        for (provider, first) in providers.iter().zip(first).filter(|(provider, _)| provider.consents.is_some()) {
            let first = first.map(|at: u64| i64::try_from(at / 1000).unwrap_or(i64::MAX));
            self.metrics.consents_expire(&provider.name, first);
        }
    }

    /// Notes when a user's consent dies, and queues its renewal if that is due.
    async fn see_to(
        &self,
        providers: &[Arc<ProviderConfig>],
        tokens: UserTokens,
        version: Version,
        idle: &KeyMap<Duration>,
        first: &mut [Option<u64>],
        queues: &Queues,
    ) {
        let known = providers.iter().zip(first);
        let mut known = known.filter_map(|(provider, first)| Some((provider, provider.consents.as_ref()?, first)));
        let Some((provider, consents, first)) = known.find(|(known, ..)| known.name == tokens.key.provider) else {
            return;
        };
        let now = self.clock.now();
        if !tokens.spent(now) {
            let dies = tokens.refresh.as_ref().map_or(Some(tokens.access.expires), |refresh| refresh.expires);
            *first = [*first, dies].into_iter().flatten().min();
        }
        let idle = idle.get(&tokens.key.record_key()).copied();
        let tokens = self.note_call(tokens, version, &consents.upkeep, idle, now).await;
        let due = tokens.keep_alive_in(&consents.upkeep, now, draw());
        if !due.is_some_and(|wait| wait.is_zero()) {
            return;
        }
        let (provider, audit) = (provider.clone(), self.audit.clone());
        queues.add(Renewal { provider, user: tokens.key, clock: self.clock.clone(), audit });
    }

    /// Records the last call for the user if that is worth a write. A write by another task or replica in the meantime
    /// takes precedence.
    async fn note_call(
        &self,
        tokens: UserTokens,
        version: Version,
        upkeep: &Upkeep,
        idle: Option<Duration>,
        now: Now,
    ) -> UserTokens {
        // Half of the time is early enough, and few writes.
        let stale = now.wall.saturating_sub(tokens.last_call) >= millis(upkeep.keep_alive / 2);
        let touched = idle.filter(|_| stale).and_then(|idle| tokens.touched(upkeep, now.minus(idle)));
        let Some(touched) = touched else { return tokens };
        let (name, sealed) = (user_key(&touched.key), write_record(&touched.seal()));
        let written = self.means.store.swap(Kind::User, &name, Some(version), &sealed, forget(&touched)).await;
        if written.is_ok() { touched } else { tokens }
    }
}

/// Renewals that are due, by provider. Clones are the same queues.
#[derive(Clone)]
struct Queues {
    means: Means,
    all: Rc<RefCell<HashMap<Arc<str>, Queue>>>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Renewal>,
    /// Those that wait or are under way.
    known: HashSet<UserKey>,
    running: usize,
}

impl Queues {
    fn new(means: Means) -> Self {
        Self { means, all: Rc::default() }
    }

    /// Puts a renewal into the queue of its provider, unless it is there.
    fn add(&self, renewal: Renewal) {
        let name = renewal.provider.name.clone();
        {
            let mut all = self.all.borrow_mut();
            let queue = all.entry(name.clone()).or_default();
            if queue.waiting.len() >= MOST_WAITING || !queue.known.insert(renewal.user.clone()) {
                return;
            }
            queue.waiting.push_back(renewal);
        }
        self.pump(&name);
    }

    /// Begins as many renewals of this provider as may be under way.
    fn pump(&self, name: &Arc<str>) {
        while let Some(renewal) = self.next(name) {
            let (queues, work) = (self.clone(), renewal.work());
            // The slot is freed for any outcome of the renewal.
            let place = RefreshSlot { queues: self.clone(), user: renewal.user.clone() };
            let kept_alive = async move {
                let place = place;
                if let RotationEnding::Failed(failure) =
                    renewal.run(&queues.means, RotationGoal::KeepAlive).await.ending
                {
                    let provider = &renewal.provider.name;
                    tracing::warn!(%provider, error = %failure.inside, "consent keep-alive failed");
                }
                drop(place);
                queues.pump(&renewal.provider.name);
            };
            #[cfg(test)]
            let kept_alive = crate::control::simulation::as_upkeep(kept_alive);
            if !self.means.tasks.spawn(work, kept_alive) {
                return;
            }
        }
    }

    /// The next renewal that may begin. Those that must not are dropped: the next round finds them again.
    fn next(&self, name: &Arc<str>) -> Option<Renewal> {
        let Means { tasks, rests, .. } = &self.means;
        let most = if rests.is_suspect(name) { 1 } else { AT_ONCE };
        let mut all = self.all.borrow_mut();
        let queue = all.get_mut(name)?;
        while queue.running < most {
            let renewal = queue.waiting.pop_front()?;
            let now = renewal.clock.now();
            let closed = renewal.provider.hours.as_deref().is_some_and(|hours| hours.fetches_in(now).is_some());
            if tasks.is_open() && !closed && !rests.rests(name, renewal.user.record_key(), now) {
                queue.running += 1;
                return Some(renewal);
            }
            queue.known.remove(&renewal.user);
        }
        None
    }
}

/// The place of a renewal under way.
struct RefreshSlot {
    queues: Queues,
    user: UserKey,
}

impl Drop for RefreshSlot {
    fn drop(&mut self) {
        if let Some(queue) = self.queues.all.borrow_mut().get_mut(&self.user.provider) {
            queue.running = queue.running.saturating_sub(1);
            queue.known.remove(&self.user);
        }
    }
}
