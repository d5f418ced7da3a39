//! The workers' end of the keeper: what they may say to it, and what it answers.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::{Issued, LedgerLine, ProviderTokens, TokenPage, TokenPageQuery, TokenSpec, TokenTable, Unavailable};
use crate::base::secret::Fingerprint;
use crate::base::time::Now;
use crate::config::ProviderConfig;
use crate::observe::trace::Context;
use crate::token::credential_slots::CredentialSlot;
use crate::token::failure::Class;
use crate::token::key::{KeyMap, TokenKey};

/// The sender of the response to a request for a token. A caller that hangs up just drops the receiver.
pub(super) type TokenReply = oneshot::Sender<Result<Issued, Unavailable>>;

/// A message to the keeper.
pub(super) enum KeeperMessage {
    AtHand { key: TokenKey, answer: oneshot::Sender<Option<Issued>> },
    CatchUp { key: TokenKey, generation: u64 },
    Contested { answer: oneshot::Sender<Vec<TokenKey>> },
    Discard { key: TokenKey, generation: u64 },
    IdleUsers { answer: oneshot::Sender<KeyMap<Duration>> },
    Ledger { answer: oneshot::Sender<TokenTable> },
    Line { key: String, answer: oneshot::Sender<Option<LedgerLine>> },
    Moved { record: TokenKey, generation: Option<u64>, answer: oneshot::Sender<()> },
    Need { spec: Arc<TokenSpec>, cause: Option<Context>, answer: TokenReply },
    Page { query: TokenPageQuery, answer: oneshot::Sender<TokenPage> },
    Promoted { provider: Arc<str>, slot: CredentialSlot, is_change: bool },
    Purge { key: TokenKey, answer: oneshot::Sender<bool> },
    Refresh { key: TokenKey, answer: oneshot::Sender<bool> },
    Refused { spec: Arc<TokenSpec>, generation: u64, replaced: bool, cause: Option<Context>, answer: TokenReply },
    RefusedAtBirth { key: TokenKey, generation: u64 },
    Reloaded { modules: KeyMap<()> },
    Shutdown,
    Sent { provider: Arc<str>, token: (Fingerprint, u64), answer: oneshot::Sender<Option<TokenKey>> },
    Standing { key: TokenKey, answer: oneshot::Sender<Freshness> },
    Summary { answer: oneshot::Sender<HashMap<Arc<str>, ProviderTokens>> },
    Suspect { key: TokenKey, generation: u64 },
    Tick { answer: oneshot::Sender<()> },
    Users { answer: oneshot::Sender<Vec<TokenKey>> },
    Withdrawn { key: TokenKey, generation: u64, replaced: bool },
}

/// The state of a contested token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Freshness {
    /// The generation that was published last.
    pub(super) generation: u64,
    /// True if the store has a newer token; absent: the store does not say.
    pub(super) outdated: Option<bool>,
}

impl Freshness {
    /// That of any other key: none replaces it.
    pub(super) const UNCONTESTED: Self = Self { generation: 0, outdated: Some(false) };
}

/// The keeper's end of the message queue.
pub struct Inbox(pub(super) mpsc::UnboundedReceiver<KeeperMessage>);

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Inbox")
    }
}

/// The workers' end of the keeper. Cheap to clone.
///
/// The queue behind it has no bound of its own. A request that finds its shelf empty sends one message and waits for
/// the answer, a refusal sends one more: the queue is as long as there are requests under way, which the listeners
/// bound, and waiters per key are bounded by the keeper. A bounded queue would make the synchronous calls here drop
/// news or wait.
///
/// Hanging up at any point cancels nothing for anybody else: the fetch belongs to the keeper.
#[derive(Clone)]
pub struct TokenHandle(mpsc::UnboundedSender<KeeperMessage>);

impl TokenHandle {
    /// A way to a keeper that is yet to be made, on whichever thread: see [`Keeper::behind`](super::Keeper::behind).
    pub fn open() -> (Self, Inbox) {
        let (sender, inbox) = mpsc::unbounded_channel();
        (Self(sender), Inbox(inbox))
    }

    /// A lease: at once where there is a valid one, else when the fetch that this may start has ended. During a rest
    /// the answer is the reason and the time left, at once.
    pub async fn need(&self, spec: Arc<TokenSpec>) -> Result<Issued, Unavailable> {
        self.need_for(spec, None).await
    }

    /// The same for a request whose wait is this span: a fetch that it starts is told as its child.
    pub async fn need_for(&self, spec: Arc<TokenSpec>, cause: Option<Context>) -> Result<Issued, Unavailable> {
        self.ask(|answer| KeeperMessage::Need { spec, cause, answer }).await.unwrap_or_else(|| Err(gone()))
    }

    /// The same where calls were refused with another token just now: one that is older than `then` may have been taken
    /// back together with it. It is renewed first, since the call has no other replay.
    pub async fn need_since(
        &self,
        spec: Arc<TokenSpec>,
        then: Option<Now>,
        cause: Option<Context>,
    ) -> Result<Issued, Unavailable> {
        let issued = self.need_for(spec.clone(), cause).await?;
        if then.is_some_and(|then| issued.lease.issued.boot < then.boot) {
            return self.refused_for(spec, issued.lease.generation, true, cause).await;
        }
        Ok(issued)
    }

    /// The valid lease of this key, if there is one: nothing is fetched for it, now or later.
    pub async fn at_hand(&self, key: TokenKey) -> Option<Issued> {
        self.ask(|answer| KeeperMessage::AtHand { key, answer }).await.flatten()
    }

    /// The provider refused this generation, and the request can be replayed: a newer lease, or why there is none. It is of
    /// the same token where that was refused in its first moments: then it comes after a pause. The keeper is told by the
    /// call, not by the waiting.
    pub fn refused(
        &self,
        spec: Arc<TokenSpec>,
        generation: u64,
    ) -> impl Future<Output = Result<Issued, Unavailable>> + use<> {
        self.refused_for(spec, generation, false, None)
    }

    /// The same for a request whose wait is this span. `replaced`: another replica's fetch has killed this generation, so
    /// it is not tried again, however young it is.
    pub fn refused_for(
        &self,
        spec: Arc<TokenSpec>,
        generation: u64,
        replaced: bool,
        cause: Option<Context>,
    ) -> impl Future<Output = Result<Issued, Unavailable>> + use<> {
        let (answer, waiting) = oneshot::channel();
        self.tell(KeeperMessage::Refused { spec, generation, replaced, cause, answer });
        async { waiting.await.unwrap_or_else(|_| Err(gone())) }
    }

    /// The provider refused this generation although it was fetched for this very request or for its replay: fetching
    /// again cannot help, so the key rests.
    pub fn refused_at_birth(&self, spec: Arc<TokenSpec>, generation: u64) {
        self.tell(KeeperMessage::RefusedAtBirth { key: spec.key, generation });
    }

    /// Returns whether this generation is no longer the newest, here or, according to the store, at another replica,
    /// whose fetch has then invalidated it. Always false for a provider whose tokens coexist.
    pub async fn is_replaced(&self, key: TokenKey, generation: u64) -> bool {
        let freshness = self.freshness(key).await;
        freshness.outdated == Some(true) || freshness.generation > generation
    }

    /// Another replica says that it has fetched a token: takes it where it has killed ours. Says whether the store could
    /// be looked at.
    pub(super) async fn heard(&self, key: TokenKey) -> bool {
        let freshness = self.freshness(key).await;
        if freshness.outdated == Some(true) {
            self.tell(KeeperMessage::CatchUp { key, generation: freshness.generation });
        }
        freshness.outdated.is_some()
    }

    /// The keys of tokens that another replica may have replaced.
    pub(super) async fn contested(&self) -> Vec<TokenKey> {
        self.ask(|answer| KeeperMessage::Contested { answer }).await.unwrap_or_default()
    }

    async fn freshness(&self, key: TokenKey) -> Freshness {
        self.ask(|answer| KeeperMessage::Standing { key, answer }).await.unwrap_or(Freshness::UNCONTESTED)
    }

    /// The provider refused this generation, but the request cannot be replayed: renew it for the next one. `replaced`:
    /// another replica's fetch has killed it.
    pub fn withdrawn(&self, spec: Arc<TokenSpec>, generation: u64, replaced: bool) {
        self.tell(KeeperMessage::Withdrawn { key: spec.key, generation, replaced });
    }

    /// An answer to this generation smelled of a refusal (a 401 that the profile does not know): at most once per
    /// rest period renew it in the background, and keep serving it meanwhile.
    pub fn suspect(&self, spec: Arc<TokenSpec>, generation: u64) {
        self.tell(KeeperMessage::Suspect { key: spec.key, generation });
    }

    /// Fetch a new token for this key now, resting or not, in the background; the old one serves meanwhile. Says
    /// whether the key is known.
    pub async fn refresh(&self, key: TokenKey) -> bool {
        self.ask(|answer| KeeperMessage::Refresh { key, answer }).await.unwrap_or(false)
    }

    /// Forget the token of this key and its failures. Says whether the key is known.
    pub async fn purge(&self, key: TokenKey) -> bool {
        self.ask(|answer| KeeperMessage::Purge { key, answer }).await.unwrap_or(false)
    }

    /// Forget this generation of a token that nobody has a use for any more.
    pub fn discard(&self, key: TokenKey, generation: u64) {
        self.tell(KeeperMessage::Discard { key, generation });
    }

    /// The store holds this generation of a user's record now, or none. A token of an older one is taken out of use if
    /// there is none, else renewed; when this returns, no shelf holds what was revoked.
    pub(super) async fn record_changed(&self, record: TokenKey, generation: Option<u64>) {
        self.ask(|answer| KeeperMessage::Moved { record, generation, answer }).await.unwrap_or(());
    }

    /// For how long a token of each user was not taken, by the key of the user's record.
    pub(super) async fn idle_users(&self) -> KeyMap<Duration> {
        self.ask(|answer| KeeperMessage::IdleUsers { answer }).await.unwrap_or_default()
    }

    /// The keys of the records of all users whose tokens are known or wanted.
    pub(super) async fn users(&self) -> Vec<TokenKey> {
        self.ask(|answer| KeeperMessage::Users { answer }).await.unwrap_or_default()
    }

    /// Another config is in force, and these are the keys of its modules. It may have cured failures: all rests end. Keys of
    /// modules that it does not have are superseded.
    pub fn reloaded(&self, modules: KeyMap<()>) {
        self.tell(KeeperMessage::Reloaded { modules });
    }

    /// The provider gave a token for these credentials after it had refused those of the other slot: calls use them from
    /// now on. The other ones are asked for anew when they are wanted again.
    pub fn promote(&self, credentials: &ProviderConfig) {
        let Some(slots) = &credentials.slots else { return };
        let (provider, slot) = (credentials.name.clone(), credentials.slot);
        self.tell(KeeperMessage::Promoted { provider, slot, is_change: slots.promote(slot) });
    }

    /// All keys as they are now; empty once the keeper has stopped. A copy of everything: those who want less ask for
    /// less.
    pub async fn ledger(&self) -> TokenTable {
        self.ask(|answer| KeeperMessage::Ledger { answer }).await.unwrap_or_default()
    }

    /// A page of the keys as they are now; empty once the keeper has stopped.
    pub async fn page(&self, query: TokenPageQuery) -> TokenPage {
        let none = TokenPage { number: 1, pages: 1, ..TokenPage::default() };
        self.ask(|answer| KeeperMessage::Page { query, answer }).await.unwrap_or(none)
    }

    /// The key that is shown as this text, as it is now.
    pub async fn line(&self, key: &str) -> Option<LedgerLine> {
        self.ask(|answer| KeeperMessage::Line { key: key.to_owned(), answer }).await.flatten()
    }

    /// The key of a provider's token of this fingerprint and generation, if that is the one that is being served.
    pub async fn key_of(&self, provider: Arc<str>, token: (Fingerprint, u64)) -> Option<TokenKey> {
        self.ask(|answer| KeeperMessage::Sent { provider, token, answer }).await.flatten()
    }

    /// The tokens of each provider, summed up; a provider of which none was asked for is missing.
    pub async fn summary(&self) -> HashMap<Arc<str>, ProviderTokens> {
        self.ask(|answer| KeeperMessage::Summary { answer }).await.unwrap_or_default()
    }

    /// Look at all timers now; returns when that is done. The keeper does so by itself, except under a clock that is
    /// moved by hand.
    pub async fn tick(&self) {
        self.ask(|answer| KeeperMessage::Tick { answer }).await.unwrap_or(());
    }

    /// Stops the keeper. Current and later callers that wait receive the error that there is no token; token slots keep
    /// their leases, so that requests may drain.
    pub fn shutdown(&self) {
        self.tell(KeeperMessage::Shutdown);
    }

    fn tell(&self, message: KeeperMessage) {
        // A keeper that has stopped needs no news.
        let _gone = self.0.send(message);
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> KeeperMessage) -> Option<T> {
        let (answer, waiting) = oneshot::channel();
        self.0.send(message(answer)).ok()?;
        waiting.await.ok()
    }
}

impl fmt::Debug for TokenHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHandle")
    }
}

fn gone() -> Unavailable {
    Unavailable {
        class: Class::Transient,
        retry_after: Duration::from_secs(1),
        ours: true,
        inside: "the token keeper has stopped".into(),
    }
}
