//! Users' consents, from their start to the resulting tokens, and the renewal of those tokens.
//!
//! A worker sends its request through [`ConsentHandle`] and waits for the response; everything else happens here, on
//! the control thread, where the store is. The state machines of `token::consent` make the decisions. Each piece of
//! work is a task of its own, so a slow bank delays no other work, and a caller that disconnects stops nothing that was
//! begun.

mod news;
mod records;
mod refresh_worker;
mod renewal;
mod rests;
mod sweep;

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use self::news::follow_news;
use self::records::{
    UserRecordError, announce, forget, pending_key, pending_of, read_entry, read_tokens, tokens_of, user_key,
    write_record,
};
pub(super) use self::records::{lease, patiently};
use self::refresh_worker::{RefreshWorker, forgive, keep_alive};
use self::renewal::Means;
pub use self::renewal::user_spec;
pub use self::rests::Rests;
use super::journal;
use super::token_call::{MOST_ANSWER, MOST_GRANT, exchange, note_type};
use super::tracker::{Tracker, Work};
use super::{ConsentSubject, EventKind, Events, Reloads, TokenHandle};
use crate::base::draw::draw;
use crate::base::id::RandomIds;
use crate::base::time::{Clock, Now, Within};
use crate::config::{ConsentSettings as Settings, ProviderConfig};
use crate::observe::audit::Auditor;
use crate::observe::metrics::Metrics;
use crate::provider::{Authorize, CodeExchange, CompiledConsent, TokenRequest};
use crate::store::{Error, Kind, RecordKey, Store};
use crate::token::consent::{
    CallbackAnswer, CodeVerifier, ConsentOrigin, NotExchanged, PendingConsent, PendingEntry, ReturnTo, RotationRefusal,
    State, UserKey, UserTokens, brings_tokens,
};
use crate::token::failure::{Class, Failure};
use crate::token::grant::UserGrant;

/// The most names that a list answers.
const MOST_LISTED: usize = 10_000;
/// The most started consents that a list answers,
const MOST_PENDING: usize = 1000;
/// and the most pages of records that are read for it: spent ones are among them.
const MOST_PENDING_PAGES: usize = 100;

/// A consent that was started.
#[derive(Debug)]
pub struct StartedConsent {
    /// URL that the user opens to consent.
    pub consent_url: String,
    /// Value that is returned with the code. The application binds it to its user's session.
    pub state: String,
    /// When it is too late, in milliseconds since 1970.
    pub expires_at: u64,
}

/// The outcome of a callback.
#[derive(Debug)]
pub enum Finished {
    /// Success: the user's tokens are in the store. Contains the URL that the browser is sent to, if any.
    Consented(Option<String>),
    /// The provider failed; the user may try again.
    Failed(Failure),
    /// Rejection: the code is not exchanged. Contains the reason, and the URL that the browser is sent to, if any.
    Rejected(NotExchanged, Option<String>),
}

/// The party that delivers a code.
pub enum CodeSource {
    /// An application that received it itself: for this user, with this state.
    Application(UserKey),
    /// A browser, whose user is not known in advance.
    Browser,
}

/// One user's consent, without anything secret.
#[derive(Clone, Debug)]
pub struct ConsentSummary {
    /// Provider, owner and user of the consent.
    pub key: UserKey,
    /// True if calls can be made; if not, the user must consent again.
    pub alive: bool,
    /// When the access token dies, in milliseconds since 1970.
    pub access_expires: u64,
    /// Expiry of the refresh token, likewise; `None`: there is none, or its expiry is unknown.
    pub refresh_expires: Option<u64>,
    /// When the user consented, likewise.
    pub consented: u64,
}

/// A consent that was started, anywhere that this store is used, and has not been given yet. Without its state, which
/// would finish it.
#[derive(Clone, Debug)]
pub struct PendingSummary {
    /// Provider, owner and user of the consent.
    pub key: UserKey,
    /// Name of the client for which it was started.
    pub client: Arc<str>,
    /// Moment of the start, in milliseconds since 1970.
    pub started: u64,
    /// When it is too late, likewise.
    pub expires: u64,
}

enum ConsentMessage {
    Finish {
        provider: Arc<ProviderConfig>,
        bringer: CodeSource,
        callback: CallbackAnswer,
        answer: oneshot::Sender<Finished>,
    },
    List {
        answer: oneshot::Sender<Vec<ConsentSummary>>,
    },
    ListPending {
        answer: oneshot::Sender<Vec<PendingSummary>>,
    },
    Revoke {
        key: UserKey,
        by: Arc<str>,
        answer: oneshot::Sender<Result<bool, Failure>>,
    },
    Start {
        ask: Box<StartConsent>,
        answer: oneshot::Sender<Result<StartedConsent, Failure>>,
    },
}

/// Parameters of a consent that is to be started.
pub struct StartConsent {
    /// Provider at which the user consents.
    pub provider: Arc<ProviderConfig>,
    /// Key of the user who is to consent.
    pub key: UserKey,
    /// Name of the client for which the consent is started.
    pub client: Arc<str>,
    /// Requester, for the audit log: `client:NAME`, or `admin` and the name of the token that was presented.
    pub by: Arc<str>,
    /// Final destination of the browser; `None`: there is none.
    pub return_to: Option<ReturnTo>,
}

/// The workers' end. Cheap to clone.
#[derive(Clone)]
pub struct ConsentHandle(mpsc::UnboundedSender<ConsentMessage>);

/// The receiving end, on the control thread.
pub struct Registry {
    inbox: mpsc::UnboundedReceiver<ConsentMessage>,
}

/// State and handles that every consent task needs.
#[derive(Clone)]
pub struct ConsentService {
    /// Store in which consents are kept.
    pub store: Store,
    /// Source of the current time, for expiries and deadlines.
    pub clock: Clock,
    /// The way to the keeper.
    pub leases: TokenHandle,
    /// Recipient of consent events.
    pub events: Events,
    /// The way to the audit log.
    pub audit: Auditor,
    /// The owner of what must not be abandoned.
    pub tasks: Tracker,
    /// Users and providers that are not asked for a while.
    pub rests: Rests,
}

impl fmt::Debug for ConsentHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ConsentHandle")
    }
}

impl ConsentHandle {
    /// Creates both ends of the channel.
    pub fn open() -> (Self, Registry) {
        let (sender, inbox) = mpsc::unbounded_channel();
        (Self(sender), Registry { inbox })
    }

    /// Starts a consent and returns the URL for the user.
    pub async fn start(&self, ask: StartConsent) -> Result<StartedConsent, Failure> {
        let ask = Box::new(ask);
        self.ask(|answer| ConsentMessage::Start { ask, answer }).await.unwrap_or_else(|| Err(gone()))
    }

    /// Handles a callback: exchanges its code and stores the tokens.
    pub async fn finish(
        &self,
        provider: Arc<ProviderConfig>,
        bringer: CodeSource,
        callback: CallbackAnswer,
    ) -> Finished {
        let finished = self.ask(|answer| ConsentMessage::Finish { provider, bringer, callback, answer }).await;
        finished.unwrap_or_else(|| Finished::Failed(gone()))
    }

    /// Every consent in the store, 10,000 at most.
    pub async fn list(&self) -> Vec<ConsentSummary> {
        self.ask(|answer| ConsentMessage::List { answer }).await.unwrap_or_default()
    }

    /// Every consent that was started and waits for its user, 1,000 at most; those that end first come first.
    pub async fn pending(&self) -> Vec<PendingSummary> {
        self.ask(|answer| ConsentMessage::ListPending { answer }).await.unwrap_or_default()
    }

    /// Forgets a user's tokens, as `by` wishes: `admin`, and the name of the token that was shown. Says whether there
    /// were any.
    pub async fn revoke(&self, key: UserKey, by: &str) -> Result<bool, Failure> {
        let by = by.into();
        self.ask(|answer| ConsentMessage::Revoke { key, by, answer }).await.unwrap_or_else(|| Err(gone()))
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> ConsentMessage) -> Option<T> {
        let (answer, waiting) = oneshot::channel();
        self.0.send(message(answer)).ok()?;
        waiting.await.ok()
    }
}

impl Registry {
    /// Serves until no handle is left. Must run inside a `LocalSet`.
    pub async fn run(mut self, desk: ConsentService, metrics: Arc<Metrics>, reloads: Reloads) {
        let means = Means {
            store: desk.store.clone(),
            tasks: desk.tasks.clone(),
            rests: desk.rests.clone(),
            leases: Some(desk.leases.clone()),
        };
        let (clock, leases, audit) = (desk.clock.clone(), desk.leases.clone(), desk.audit.clone());
        tokio::task::spawn_local(forgive(reloads.clone(), desk.rests.clone()));
        let upkeeper = RefreshWorker { means, clock, metrics, reloads, leases, audit };
        tokio::task::spawn_local(keep_alive(upkeeper));
        tokio::task::spawn_local(follow_news(desk.store.clone(), desk.leases.clone()));
        while let Some(message) = self.inbox.recv().await {
            let (desk, tasks) = (desk.clone(), desk.tasks.clone());
            // The requester may have disconnected. Work that is not begun because the process ends is dropped with its
            // sender, so the requester gets a failure.
            match message {
                ConsentMessage::Finish { provider, bringer, callback, answer } => {
                    let work = Work { what: "consent.finish", provider: provider.name.clone() };
                    tasks.spawn(work, async move {
                        let finished = desk.finish(&provider, &bringer, callback).await;
                        drop(answer.send(finished));
                    });
                }
                ConsentMessage::List { answer } => {
                    tokio::task::spawn_local(async move { drop(answer.send(desk.list().await)) });
                }
                ConsentMessage::ListPending { answer } => {
                    tokio::task::spawn_local(async move { drop(answer.send(desk.pending().await)) });
                }
                ConsentMessage::Revoke { key, by, answer } => {
                    let work = Work { what: "consent.revoke", provider: key.provider.clone() };
                    tasks.spawn(work, async move { drop(answer.send(desk.revoke(&key, &by).await)) });
                }
                ConsentMessage::Start { ask, answer } => {
                    tokio::task::spawn_local(async move { drop(answer.send(desk.start(*ask).await)) });
                }
            }
        }
    }
}

impl ConsentService {
    async fn start(&self, ask: StartConsent) -> Result<StartedConsent, Failure> {
        let (by, key, provider) = (ask.by.clone(), ask.key.clone(), ask.provider.name.clone());
        let started = self.begin(ask).await;
        let outcome = started.as_ref().map_or_else(journal::failure, |_| "ok");
        journal::journal_consent(&self.audit, &by, "consent.start", &provider, Some(&key), outcome);
        started
    }

    async fn begin(&self, ask: StartConsent) -> Result<StartedConsent, Failure> {
        let StartConsent { provider, key, client, return_to, .. } = ask;
        let (_, consent) = settings(&provider)?;
        let consenter = consenter(&key);
        let now = self.clock.now();
        let (verifier, state) = (CodeVerifier::from_random(draw()), State::from_random(draw()));
        let pending = PendingConsent::start(key, client, consent.realm(), return_to.as_ref(), verifier, now);
        let expires_at = pending.expires();
        let entry = write_record(&PendingEntry::Pending(pending.clone()).seal());
        // This state was drawn at random just now, so there is no entry to overwrite.
        let key = pending_key(&state);
        let filed = patiently(async || self.store.put(Kind::Pending, &key, &entry, Some(expires_at)).await).await;
        filed.map_err(|error| unkept(&error))?;
        let pushed = match consent.push(&pending, &state, &mut RandomIds, now) {
            None => None,
            Some(request) => {
                let within = Within(provider.timeouts.token);
                let (head, body) = exchange(&provider, request, MOST_ANSWER, within, now).await?.into_parts();
                Some(consent.push_answer(head.status, &head.headers, &body, now, self.clock.now())?)
            }
        };
        let consent_url = match consent.authorize(&pending, &state, pushed.as_ref(), &mut RandomIds, now) {
            Authorize::Open(url) => url,
            Authorize::Ask(request) => {
                let within = Within(provider.timeouts.token);
                let (head, body) = exchange(&provider, request, MOST_ANSWER, within, now).await?.into_parts();
                consent.authorize_answer(head.status, &head.headers, &body, now, self.clock.now())?
            }
        };
        tracing::info!(provider = %provider.name, client = %pending.client, "consent started");
        self.events.tell(EventKind::ConsentStarted(consenter));
        Ok(StartedConsent { consent_url, state: state.as_str().to_owned(), expires_at })
    }

    async fn finish(&self, provider: &Arc<ProviderConfig>, bringer: &CodeSource, callback: CallbackAnswer) -> Finished {
        let (actor, mut whose) = match bringer {
            CodeSource::Application(key) => (format!("{}:{}", key.owner.kind(), key.owner.name()), Some(key.clone())),
            CodeSource::Browser => ("browser".to_owned(), None),
        };
        let finished = self.exchange(provider, bringer, callback, &mut whose).await;
        let outcome = match &finished {
            Finished::Consented(_) => "ok",
            Finished::Failed(failure) => journal::failure(failure),
            Finished::Rejected(why, _) => journal::rejection(why),
        };
        journal::journal_consent(&self.audit, &actor, "consent.finish", &provider.name, whose.as_ref(), outcome);
        finished
    }

    /// `whose` is told as soon as it is known.
    async fn exchange(
        &self,
        provider: &Arc<ProviderConfig>,
        bringer: &CodeSource,
        callback: CallbackAnswer,
        whose: &mut Option<UserKey>,
    ) -> Finished {
        let (_, consent) = match settings(provider) {
            Ok(settings) => settings,
            Err(failure) => return Finished::Failed(failure),
        };
        let within = Within(provider.timeouts.token);
        if !self.tasks.allows(within.0) {
            return Finished::Failed(gone());
        }
        // First the entry is spent, then its content is judged: a second callback finds it spent.
        let found = match &callback.state {
            Some(state) => match self.spend(state).await {
                Ok(found) => found,
                Err(error) => return Finished::Failed(unkept(&error)),
            },
            None => None,
        };
        let asked = match bringer {
            CodeSource::Application(key) => ConsentOrigin::Application(key),
            CodeSource::Browser => ConsentOrigin::Browser,
        };
        let consenting = match consent.judge(found, asked, callback, self.clock.now()) {
            Ok(consenting) => consenting,
            Err(rejection) => {
                tracing::info!(provider = %provider.name, why = %rejection.why, "consent failed");
                return Finished::Rejected(rejection.why, rejection.return_to);
            }
        };
        let sent = self.clock.now();
        let (active, other) = provider.by_slot(sent);
        let consent = match settings(active) {
            Ok((_, consent)) => consent,
            Err(failure) => return Finished::Failed(failure),
        };
        let of_other = other.and_then(|other| settings(other).ok()).map(|(_, consent)| consent);
        let exchanged = consent.exchange(of_other, consenting, &mut RandomIds, sent);
        let Ok((CodeExchange { first, other: again }, pending)) = exchanged else {
            return Finished::Rejected(NotExchanged::Expired, None);
        };
        *whose = Some(pending.key.clone());
        let ask = async |provider: &Arc<ProviderConfig>, request: TokenRequest| -> Result<UserGrant, RotationRefusal> {
            let sent = self.clock.now();
            // A code cannot be exchanged later: this call is counted and never refused.
            self.rests.note_call(&provider.name, provider.token_budget, sent);
            let response = exchange(provider, request, MOST_GRANT, within, sent).await;
            let (head, body) = response.map_err(RotationRefusal::Failed)?.into_parts();
            let answered = consent.exchange_answer(head.status, &head.headers, &body, sent, self.clock.now());
            answered.inspect(|fresh| note_type(provider, &fresh.grant))
        };
        let mut answered = ask(active, first).await;
        if let (Err(refusal), Some(other), Some(again)) = (&answered, other, again)
            && refusal.is_of_credentials()
        {
            let second = ask(other, again).await;
            if brings_tokens(&second) {
                self.leases.promote(other);
                answered = second;
            }
        }
        let name = user_key(&pending.key);
        let before = match &answered {
            Ok(_) | Err(RotationRefusal::Unusable(..)) => {
                patiently(async || read_tokens(&self.store, &name).await).await.ok().flatten()
            }
            Err(RotationRefusal::Dead(_) | RotationRefusal::Failed(_)) => None,
        };
        let before = before.as_ref().map(|(tokens, _)| &**tokens);
        let tokens = match answered {
            Ok(fresh) => UserTokens::consented(pending.key.clone(), pending.realm, fresh, sent, before),
            Err(RotationRefusal::Unusable(failure, refresh)) => {
                let inside = &failure.inside;
                tracing::warn!(provider = %provider.name, error = %inside, "the code exchange returned only a refresh token");
                UserTokens::consented_without_access(pending.key.clone(), pending.realm, refresh, sent, before)
            }
            Err(RotationRefusal::Dead(inside)) => {
                tracing::warn!(provider = %provider.name, error = %inside, "the provider rejected the code");
                return Finished::Rejected(NotExchanged::Refused(None), pending.return_to);
            }
            Err(RotationRefusal::Failed(failure)) => {
                tracing::warn!(provider = %provider.name, error = %failure.inside, "the code exchange failed");
                return Finished::Failed(failure);
            }
        };
        // The code is spent, so nothing else can bring them.
        if let Err(error) = self.keep(&name, &tokens).await {
            return Finished::Failed(unkept(&error));
        }
        self.rests.answered(&provider.name, pending.key.record_key());
        let _hint = announce(&self.store, Kind::User, &name).await;
        self.leases.record_changed(pending.key.record_key(), Some(tokens.generation)).await;
        tracing::info!(provider = %provider.name, client = %pending.client, "user consented");
        self.events.tell(EventKind::ConsentGiven(consenter(&pending.key)));
        Finished::Consented(pending.return_to)
    }

    /// Writes the tokens of a code exchange. A write whose answer was lost may have been done, and the tokens may have been
    /// renewed since by another process: so it is not repeated over its own result.
    async fn keep(&self, name: &RecordKey, tokens: &UserTokens) -> Result<(), Error> {
        let (sealed, expiry, again) = (write_record(&tokens.seal()), forget(tokens), Cell::new(false));
        let keep = async || {
            if !again.replace(true) {
                return self.store.put(Kind::User, name, &sealed, expiry).await.map(drop);
            }
            let expected = match read_tokens(&self.store, name).await {
                Ok(Some((found, _))) if found.consented == tokens.consented && found.realm == tokens.realm => {
                    return Ok(());
                }
                Ok(found) => found.map(|(_, version)| version),
                Err(UserRecordError::Sealed(..)) => {
                    return self.store.put(Kind::User, name, &sealed, expiry).await.map(drop);
                }
                Err(UserRecordError::Store(error)) => return Err(error),
            };
            self.store.swap(Kind::User, name, expected, &sealed, expiry).await.map(drop)
        };
        patiently(keep).await
    }

    /// Replaces the entry of a state by a spent one. Returns the entry that was there; `None` if there was none, or it
    /// cannot be read.
    async fn spend(&self, state: &State) -> Result<Option<PendingEntry>, Error> {
        let key = pending_key(state);
        loop {
            let found = patiently(async || self.store.load(Kind::Pending, &key).await).await?;
            let Some(record) = found else { return Ok(None) };
            let Some(entry) = read_entry(&record) else { return Ok(None) };
            if matches!(entry, PendingEntry::Spent { .. }) {
                return Ok(Some(entry));
            }
            let spent = write_record(&PendingEntry::Spent { at: self.clock.now().wall }.seal());
            match self.store.swap(Kind::Pending, &key, Some(record.version), &spent, record.expiry).await {
                Ok(_) => return Ok(Some(entry)),
                Err(Error::Conflict) => {}
                Err(error) => return Err(error),
            }
        }
    }

    async fn list(&self) -> Vec<ConsentSummary> {
        let now = self.clock.now();
        // By key: a record may come twice.
        let mut lines = BTreeMap::new();
        let mut from = None;
        while let Ok(page) = patiently(async || self.store.page(Kind::User, from.as_ref()).await).await {
            for (name, record) in page.records {
                if let Ok(tokens) = tokens_of(&name, &record)
                    && lines.len() < MOST_LISTED
                {
                    lines.insert(tokens.key.clone(), line(&tokens, now));
                }
            }
            from = page.next;
            if from.is_none() || lines.len() >= MOST_LISTED {
                break;
            }
        }
        lines.into_values().collect()
    }

    async fn pending(&self) -> Vec<PendingSummary> {
        let now = self.clock.now();
        // By name: a record may come twice.
        let mut waiting = BTreeMap::new();
        let mut from = None;
        for _ in 0..MOST_PENDING_PAGES {
            let Ok(page) = patiently(async || self.store.page(Kind::Pending, from.as_ref()).await).await else { break };
            for (name, record) in page.records {
                if let Some(pending) = pending_of(&record)
                    && !pending.expired(now)
                    && waiting.len() < MOST_PENDING
                {
                    let expires = pending.expires();
                    let PendingConsent { key, client, started, .. } = pending;
                    waiting.insert(name, PendingSummary { key, client, started, expires });
                }
            }
            from = page.next;
            if from.is_none() || waiting.len() >= MOST_PENDING {
                break;
            }
        }
        let mut waiting: Vec<PendingSummary> = waiting.into_values().collect();
        waiting.sort_by(|a, b| (a.expires, &a.key).cmp(&(b.expires, &b.key)));
        waiting
    }

    async fn revoke(&self, key: &UserKey, by: &str) -> Result<bool, Failure> {
        let revoked = self.strike(key).await;
        let outcome = match &revoked {
            Ok(true) => "ok",
            Ok(false) => "nothing to revoke",
            Err(failure) => journal::failure(failure),
        };
        journal::journal_consent(&self.audit, by, "consent.revoke", &key.provider, Some(key), outcome);
        revoked
    }

    async fn strike(&self, key: &UserKey) -> Result<bool, Failure> {
        let name = user_key(key);
        // A removal whose response was lost may have been executed, and then the next one finds no record. The record
        // that was there before shows whether one was removed.
        let found = patiently(async || self.store.load(Kind::User, &name).await).await;
        let removed = patiently(async || self.store.remove(Kind::User, &name).await).await;
        // Also after an error: unknown state is looked up by the next caller that needs it.
        self.leases.record_changed(key.record_key(), None).await;
        let told = announce(&self.store, Kind::User, &name).await;
        let removed = removed.map_err(|error| unkept(&error))? || matches!(found, Ok(Some(_)));
        if removed {
            tracing::info!(provider = %key.provider, "consent revoked");
            self.events.tell(EventKind::ConsentRevoked(consenter(key)));
        }
        // Other replicas may continue to use the consent: a repeated request announces the removal again.
        told.map_err(|error| unkept(&error))?;
        Ok(removed)
    }
}

fn consenter(key: &UserKey) -> ConsentSubject {
    ConsentSubject { provider: key.provider.clone(), owner: key.owner.name().into() }
}

fn line(tokens: &UserTokens, now: Now) -> ConsentSummary {
    ConsentSummary {
        key: tokens.key.clone(),
        alive: !tokens.spent(now),
        access_expires: tokens.access.expires,
        refresh_expires: tokens.refresh.as_ref().and_then(|refresh| refresh.expires),
        consented: tokens.consented,
    }
}

/// Returns the consent settings of a provider; fails if it has none any more.
fn settings(provider: &ProviderConfig) -> Result<(&Settings, &CompiledConsent), Failure> {
    let settings = provider.consents.as_ref();
    let found = settings.and_then(|settings| Some((settings, settings.module.consent()?)));
    found.ok_or_else(|| Failure::new(Class::Transient, "this provider has no consent any more"))
}

fn unkept(error: &Error) -> Failure {
    Failure::new(Class::Transient, format!("the store of consents: {error}"))
}

fn gone() -> Failure {
    Failure {
        retry_after: Some(Duration::from_secs(1)),
        ..Failure::new(Class::Transient, "the control thread has stopped")
    }
}
