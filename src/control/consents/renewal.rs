//! Getting a user's token: the machine of `token::consent`, driven.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::oneshot;

use super::records::{announce, forget, lease, patiently, read_tokens, spend_access, user_key, write_record};
use super::rests::Rests;
use super::settings;
use crate::base::draw::draw;
use crate::base::id::RandomIds;
use crate::base::secret::Fingerprint;
use crate::base::time::{Clock, Deadline, Within};
use crate::base::working_hours::WorkingHours;
use crate::config::ProviderConfig;
use crate::control::journal;
use crate::control::token_call::{MOST_GRANT, exchange, note_type};
use crate::control::tracker::{Tracker, Work};
use crate::control::{FetchContext, FetchProcedure, Fetched, TokenHandle, TokenSpec};
use crate::observe::audit::Auditor;
use crate::store::{Change, Changes, Error as StoreError, Kind, Lock, LockAttempt, RecordKey, Store, Version};
use crate::token::consent::{
    Asking, Locked, LookResult, Looking, RotationEnding, RotationGoal, RotationRefusal, Saving, UserKey, UserTokens,
    brings_tokens,
};
use crate::token::failure::{Class, Failure};
use crate::token::grant::UserGrant;
use crate::token::key::TokenKey;

/// Interval between two checks of a lock that another task holds, while no change is notified.
const LOOK: Duration = Duration::from_millis(100);
/// Another's rotation is waited for so long: 8 s.
const MOST_LOOKS: u32 = 80;
/// A request that fetches a user's token may take this much longer than the provider's own call.
const ROOM: Duration = Duration::from_secs(10);
/// A refresh call that begins while the process ends must leave so much of the drain for saving what it brings.
const SAVED: Duration = Duration::from_secs(2);

/// The token of a user, by the config with this number; `None` where the provider has no consents.
pub fn user_spec(
    provider: &Arc<ProviderConfig>,
    user: UserKey,
    serial: u64,
    clock: &Clock,
    audit: &Auditor,
) -> Option<Arc<TokenSpec>> {
    let consents = provider.consents.as_ref()?;
    Some(Arc::new(TokenSpec {
        key: user.lease_key(consents.module.consent()?.realm()),
        module: None,
        serial,
        provider: provider.name.clone(),
        refresh_before: consents.upkeep.refresh_before,
        fetch_timeout: provider.timeouts.token.saturating_add(ROOM),
        procedure: Box::new(Renewal { provider: provider.clone(), user, clock: clock.clone(), audit: audit.clone() }),
    }))
}

/// One user's tokens, to be looked for and renewed.
#[derive(Clone)]
pub(super) struct Renewal {
    pub(super) provider: Arc<ProviderConfig>,
    pub(super) user: UserKey,
    pub(super) clock: Clock,
    pub(super) audit: Auditor,
}

/// Services that a renewal works with.
#[derive(Clone)]
pub(super) struct Means {
    pub(super) store: Store,
    pub(super) tasks: Tracker,
    pub(super) rests: Rests,
    /// The way to tell that other credentials are accepted; absent: nobody wants to know.
    pub(super) leases: Option<TokenHandle>,
}

impl FetchProcedure for Renewal {
    fn user(&self) -> Option<&UserKey> {
        Some(&self.user)
    }

    fn fetch(&self, aid: FetchContext) -> Pin<Box<dyn Future<Output = Result<Fetched, Failure>>>> {
        let renewal = self.clone();
        Box::pin(async move {
            let Some(store) = aid.store else {
                return Err(Failure::new(Class::Transient, "there is no store for consents"));
            };
            let means = Means { store, tasks: aid.tasks, rests: aid.rests, leases: aid.leases };
            let newer_than = aid.known.map_or(0, |known| known.record);
            let (tell, told) = oneshot::channel();
            // The task continues when its caller gives up: the response to the request must be saved.
            let tasks = means.tasks.clone();
            let begun = tasks.spawn(renewal.work(), async move {
                let ended = renewal.run(&means, RotationGoal::Serve { newer_than }).await;
                let fetched = renewal.fetched(ended);
                drop(tell.send(fetched));
            });
            if !begun {
                return Err(ending());
            }
            told.await.unwrap_or_else(|_| Err(Failure::new(Class::Transient, "the renewal was abandoned")))
        })
    }

    fn invalidate(&self, store: Store, token: Fingerprint) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>> {
        let name = user_key(&self.user);
        Box::pin(async move { spend_access(&store, &name, token).await })
    }

    fn record(&self) -> Option<TokenKey> {
        Some(self.user.record_key())
    }

    fn hours(&self) -> Option<&WorkingHours> {
        self.provider.hours.as_deref()
    }
}

fn ending() -> Failure {
    Failure::new(Class::Transient, "the process ends, and begins no renewal")
}

/// The end of a renewal, and whether the provider was asked.
pub(super) struct Ended {
    pub(super) ending: RotationEnding,
    asked: bool,
}

const fn unasked(ending: RotationEnding) -> Ended {
    Ended { ending, asked: false }
}

impl Renewal {
    fn fetched(&self, Ended { ending, asked }: Ended) -> Result<Fetched, Failure> {
        let tokens = match ending {
            RotationEnding::ConsentRequired(why) => return Err(Failure::new(Class::Consent, &*why)),
            RotationEnding::Failed(failure) => return Err(failure),
            RotationEnding::Ready(tokens) => tokens,
        };
        let now = self.clock.now();
        let module = self.provider.consents.as_ref().map(|consents| &consents.module);
        let (Some(module), Some(grant)) = (module, tokens.grant(now)) else {
            return Err(Failure::new(Class::Consent, "the consent has run out"));
        };
        let credentials = module.credentials(&grant);
        let (issued, expires) = (now.back_to(tokens.access.issued), Deadline::after(now, grant.life));
        let (fingerprint, record) = (grant.fingerprint(), tokens.generation);
        // The tokens in the record may come from another replica's renewal a moment ago, and be unknown to the bank
        // yet. But another renewal may have ended them as well, so a refusal of them is final: the record is read
        // again.
        Ok(Fetched { issued, expires, credentials, fingerprint, adopted: !asked, young: asked, record })
    }

    /// Describes the renewal as tracked work, for a process that ends.
    pub(super) fn work(&self) -> Work {
        Work { what: "token.renew", provider: self.provider.name.clone() }
    }

    /// The deadline of its call.
    fn within(&self) -> Within {
        Within(self.provider.timeouts.token)
    }

    pub(super) async fn run(&self, means: &Means, goal: RotationGoal) -> Ended {
        let store = &means.store;
        let (consents, consent) = match settings(&self.provider) {
            Ok(settings) => settings,
            Err(failure) => return unasked(RotationEnding::Failed(failure)),
        };
        let name = user_key(&self.user);
        let looking = || Looking::begin(self.user.clone(), consent.realm(), goal, consents.upkeep);
        let record = match patiently(async || read_tokens(store, &name).await).await {
            Ok(record) => record.map(|(tokens, _)| tokens),
            Err(why) => return unasked(looking().unreadable(&why.to_string())),
        };
        self.note_call(store, &name, record.as_deref(), goal).await;
        let mut locking = match looking().found(record, self.clock.now()) {
            LookResult::Done(ending) => return unasked(ending),
            LookResult::Lock(locking) => locking,
        };
        let mut turn = LockWait::new(store, &name, lease(self.within()));
        let lock = loop {
            match turn.take().await {
                Ok(Some(lock)) => break lock,
                // The holder of the lock may have renewed them by now.
                Ok(None) => match patiently(async || read_tokens(store, &name).await).await {
                    Err(why) => return unasked(locking.unreadable(&why.to_string(), self.clock.now())),
                    Ok(record) => match looking().found(record.map(|(tokens, _)| tokens), self.clock.now()) {
                        LookResult::Done(ending) => return unasked(ending),
                        LookResult::Lock(again) => locking = again,
                    },
                },
                Err(why) => return unasked(locking.unreadable(&why.to_string(), self.clock.now())),
            }
        };
        let ended = match patiently(async || read_tokens(store, &name).await).await {
            Err(why) => unasked(locking.unreadable(&why.to_string(), self.clock.now())),
            Ok(record) => {
                let (tokens, version) = record.map_or((None, None), |(tokens, version)| (Some(tokens), Some(version)));
                match (locking.found(tokens, self.clock.now()), version) {
                    (Locked::Done(ending), _) => unasked(ending),
                    (Locked::Ask(_), Some(_)) if !means.tasks.allows(self.within().0.saturating_add(SAVED)) => {
                        unasked(RotationEnding::Failed(ending()))
                    }
                    (Locked::Ask(asking), Some(version)) => {
                        let now = self.clock.now();
                        match means.rests.told(self.user.record_key(), now) {
                            Some(failure) => unasked(asking.held_up(failure, now)),
                            None => self.ask(means, &name, asking, version).await,
                        }
                    }
                    (Locked::Ask(_), None) => {
                        unasked(RotationEnding::Failed(Failure::new(Class::Transient, "the record is gone")))
                    }
                }
            }
        };
        let _ends_by_itself = patiently(async || store.unlock(lock.clone()).await).await;
        ended
    }

    async fn ask(&self, means: &Means, name: &RecordKey, asking: Asking, version: Version) -> Ended {
        let (store, sent) = (&means.store, self.clock.now());
        let (active, other) = self.provider.by_slot(sent);
        let mut answer = self.refresh(active, means, &asking).await;
        if let (Err(refusal), Some(other)) = (&answer, other)
            && refusal.is_of_credentials()
        {
            let second = self.refresh(other, means, &asking).await;
            if brings_tokens(&second) {
                means.leases.iter().for_each(|leases| leases.promote(other));
                answer = second;
            }
        }
        let (provider, whose, record) = (&self.provider.name, Some(&self.user), self.user.record_key());
        let outcome = match &answer {
            Ok(_) => "ok",
            Err(RotationRefusal::Dead(_)) => "the consent is dead",
            Err(RotationRefusal::Failed(failure) | RotationRefusal::Unusable(failure, _)) => journal::failure(failure),
        };
        match &answer {
            Ok(_) | Err(RotationRefusal::Dead(_)) => means.rests.answered(provider, record),
            Err(RotationRefusal::Failed(failure) | RotationRefusal::Unusable(failure, _)) => {
                means.rests.failed(provider, record, failure, self.clock.now(), draw());
            }
        }
        journal::journal_consent(&self.audit, "keeper", "token.renew", provider, whose, outcome);
        if let Err(RotationRefusal::Dead(inside)) = &answer {
            let key = self.user.lease_key(asking.tokens().realm);
            tracing::warn!(%provider, %key, error = %inside, "consent has ended; the user must consent again");
        }
        if let Err(RotationRefusal::Unusable(failure, _)) = &answer {
            let inside = &failure.inside;
            tracing::warn!(%provider, error = %inside, "new refresh token stored; its access token is unusable");
        }
        match asking.answered(answer, sent, self.clock.now()) {
            Err(ending) => Ended { ending, asked: true },
            Ok(saving) => Ended { ending: self.save(store, name, saving, version).await, asked: true },
        }
    }

    /// One refresh call, with the credentials of this provider.
    async fn refresh(
        &self,
        provider: &ProviderConfig,
        means: &Means,
        asking: &Asking,
    ) -> Result<UserGrant, RotationRefusal> {
        let (_, consent) = settings(provider).map_err(RotationRefusal::Failed)?;
        let sent = self.clock.now();
        means.rests.spend(&provider.name, provider.token_budget, sent).map_err(RotationRefusal::Failed)?;
        let request = consent.refresh(asking.tokens(), &mut RandomIds, sent);
        let request = request.ok_or_else(|| RotationRefusal::Dead("this provider renews no tokens".to_owned()))?;
        let response = exchange(provider, request, MOST_GRANT, self.within(), sent).await;
        let (head, body) = response.map_err(RotationRefusal::Failed)?.into_parts();
        let answered = consent.refresh_answer(head.status, &head.headers, &body, sent, self.clock.now());
        answered.inspect(|fresh| note_type(provider, &fresh.grant))
    }

    /// Saves the new tokens. No caller relies on them until the store has them.
    async fn save(&self, store: &Store, name: &RecordKey, mut saving: Saving, mut version: Version) -> RotationEnding {
        loop {
            let next = saving.tokens();
            let error =
                match store.swap(Kind::User, name, Some(version), &write_record(&next.seal()), forget(next)).await {
                    Ok(_) => {
                        let _hint = announce(store, Kind::User, name).await;
                        return saving.saved(self.clock.now());
                    }
                    Err(StoreError::Conflict) => match read_tokens(store, name).await {
                        Ok(record) => {
                            let (tokens, newer) = record.map_or((None, None), |(tokens, at)| (Some(tokens), Some(at)));
                            match saving.outdated(tokens, self.clock.now()) {
                                Ok(ending) => return ending,
                                Err(again) => {
                                    saving = again;
                                    version = newer.unwrap_or(version);
                                    continue;
                                }
                            }
                        }
                        Err(why) => why.to_string(),
                    },
                    Err(error) => error.to_string(),
                };
            tracing::error!(provider = %self.provider.name, %error, "new user tokens are not stored yet");
            match saving.failed(&error, draw()) {
                Ok((again, pause)) => {
                    saving = again;
                    tokio::time::sleep(pause).await;
                }
                Err(ending) => return ending,
            }
        }
    }

    /// Notes that somebody calls for the user, where that is worth a write. Losing it costs a little of `keep_alive`.
    async fn note_call(&self, store: &Store, name: &RecordKey, tokens: Option<&UserTokens>, goal: RotationGoal) {
        let (Some(tokens), RotationGoal::Serve { .. }, Some(consents)) = (tokens, goal, &self.provider.consents) else {
            return;
        };
        // The write is based on a record read together with its version: anything may have been noted since the first
        // read.
        if tokens.touched(&consents.upkeep, self.clock.now()).is_some()
            && let Ok(Some((known, version))) = read_tokens(store, name).await
            && let Some(touched) = known.touched(&consents.upkeep, self.clock.now())
        {
            let _lost =
                store.swap(Kind::User, name, Some(version), &write_record(&touched.seal()), forget(&touched)).await;
        }
    }
}

/// The reason for which a lock could not be taken.
#[derive(Debug, Error)]
enum LockError {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("another renewal takes too long")]
    TooLong,
}

/// Waiting for a lock that another may hold.
struct LockWait<'a> {
    store: &'a Store,
    name: &'a RecordKey,
    attempt: LockAttempt,
    changes: Option<Changes>,
    looks: u32,
}

impl<'a> LockWait<'a> {
    fn new(store: &'a Store, name: &'a RecordKey, lease: Duration) -> Self {
        Self { store, name, attempt: store.lock_attempt(name, lease, draw()), changes: None, looks: 0 }
    }

    /// Tries to take the lock. Returns `None` if another holds it and the record may have changed meanwhile, or a
    /// moment has passed.
    async fn take(&mut self) -> Result<Option<Lock>, LockError> {
        if let Some(changes) = &mut self.changes {
            tokio::select! {
                biased;
                () = heard(changes, self.name) => {}
                () = tokio::time::sleep(LOOK) => self.looks += 1,
            }
        }
        match patiently(async || self.attempt.take().await).await {
            Ok(None) if self.looks >= MOST_LOOKS => Err(LockError::TooLong),
            Ok(None) => {
                // From now on: what was said before is seen by who reads the record now.
                self.changes.get_or_insert_with(|| self.store.changes());
                Ok(None)
            }
            Ok(Some(lock)) => Ok(Some(lock)),
            Err(error) => Err(error.into()),
        }
    }
}

/// Waits until something is said about this user's record.
async fn heard(changes: &mut Changes, name: &RecordKey) {
    loop {
        match changes.next().await {
            Change::Everything => return,
            Change::Record(changed) if changed.kind == Kind::User && changed.key == *name => return,
            Change::Record(_) => {}
        }
    }
}
