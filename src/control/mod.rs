//! The shared control plane, on its own thread: it decides about fetches of tokens and carries them out.
//!
//! The [`Keeper`] owns every token's state machine and is the only one that advances it. Workers read [`TokenSlot`]s
//! without a lock; they ask for a missing token through [`TokenHandle`], and report a provider's refusals there. A
//! worker never calls a token endpoint, and a client that disconnects from a worker never cancels such a call.
//!
//! The keys of the issuers of clients' tokens are fetched here, too, in the same manner: [`Issuers`] is the workers'
//! end.
//!
//! If there is a store, tokens are looked up and kept there ([`FetchContext`]).
//!
//! The keeper must not know listeners, routes or requests: a token is a [`TokenSpec`], whose [`FetchProcedure`] is built
//! elsewhere. The whole config is passed on to the code that knows it ([`Reloads`]). The control plane lives on the
//! control thread, a current-thread runtime; only [`TokenSlot`]s and handles such as [`TokenHandle`], [`Issuers`] and
//! [`Reloads`] leave it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;

use crate::base::secret::Fingerprint;
use crate::base::time::{Deadline, Now};
use crate::base::vars::Vars;
use crate::base::working_hours::WorkingHours;
use crate::store::{Error as StoreError, Store};
use crate::token::consent::UserKey;
use crate::token::failure::{Class, Failure};
use crate::token::grant::CallCredentials;
use crate::token::key::TokenKey;
use crate::token::lease::Lease;

mod consents;
mod events;
#[cfg(feature = "otlp")]
mod export;
mod issuers;
mod journal;
mod keeper;
mod ledger;
mod quotas;
mod recorded_token_request;
mod reload;
#[cfg(test)]
mod simulation;
mod stats;
mod token_call;
mod token_handle;
mod token_page;
mod token_slot;
mod token_source;
mod tracker;
mod watch_credentials;
mod watch_key_services;

pub use consents::{
    CodeSource, ConsentHandle, ConsentService, ConsentSummary, Finished, PendingSummary, Registry, Rests, StartConsent,
    StartedConsent, user_spec,
};
pub use events::{ConsentSubject, ControlEvent, EventKind, Events, Generation};
#[cfg(feature = "otlp")]
pub use export::Exporter;
pub use issuers::{CachedKeys, Fetcher, Issuers, KeySet, Signature, issuer_place, try_keys};
pub use journal::journal_reload;
pub use keeper::{Keeper, Limits};
pub use ledger::{
    FetchCounts, LedgerFailure, LedgerLine, LedgerRest, LedgerToken, Observer, ProviderTokens, TokenSubject, TokenTable,
};
pub use quotas::{CountedQuota, QuotaBook, QuotaClaims};
pub use reload::{ReloadOutcome, ReloadRequest, ReloadScope, Reloaded, Reloading, Reloads};
pub use stats::{StatsReceiver, StatsSender};
pub use token_call::{AGENT, TokenCallReport, TokenTrialError, destination, modules_in_force, token_spec, try_token};
pub use token_handle::{Inbox, TokenHandle};
pub use token_page::{TokenPage, TokenPageQuery, TokenSearch};
pub use token_slot::TokenSlot;
pub use token_source::FetchContext;
pub use tracker::{Tracker, Work};
pub use watch_credentials::watch_credentials;
pub use watch_key_services::watch_key_services;

/// A token that was just fetched.
#[derive(Debug)]
pub struct Fetched {
    /// When the request for it was sent.
    pub issued: Now,
    /// When it dies. Computed once: what judges a token before it is taken over judges it by this as well.
    pub expires: Deadline,
    /// The texts that carry it.
    pub credentials: CallCredentials,
    /// For logs.
    pub fingerprint: Fingerprint,
    /// True if the token came from the store, without a call of the provider. A refusal of it therefore does not show
    /// that fetching cannot help.
    pub adopted: bool,
    /// If it was adopted: it may have been issued a moment ago, so that not every server of the provider knows it yet.
    pub young: bool,
    /// The generation of the user's record that it comes from; 0 where there is none.
    pub record: u64,
}

/// A token that is known, good or not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct KnownToken {
    /// Fingerprint that identifies the token.
    pub fingerprint: Fingerprint,
    /// When its request was sent, in milliseconds since 1970.
    pub issued: u64,
    /// When it dies, likewise.
    pub expires: u64,
    /// The generation of the user's record that it comes from; 0 where there is none.
    pub record: u64,
}

/// The procedure that fetches one token: built by code that knows the provider, run by the keeper in a task of its own.
pub trait FetchProcedure: Send + Sync {
    /// One call of the token endpoint. The keeper bounds its time; it need not.
    fn fetch(&self, aid: FetchContext) -> Pin<Box<dyn Future<Output = Result<Fetched, Failure>>>>;

    /// Returns whether this provider's tokens invalidate each other, so that another replica may have replaced the
    /// token of this process.
    fn is_contested(&self) -> bool {
        false
    }

    /// Returns whether the store has a newer token than the known one; absent: the store does not say. Called for
    /// contested tokens only.
    fn is_replaced(&self, _aid: FetchContext) -> Pin<Box<dyn Future<Output = Option<bool>>>> {
        Box::pin(std::future::ready(Some(false)))
    }

    /// The key of the user's record that the token comes from; absent: it is an application's.
    fn record(&self) -> Option<TokenKey> {
        None
    }

    /// The user for whom the token is fetched; absent: it is an application's.
    fn user(&self) -> Option<&UserKey> {
        None
    }

    /// The values for which the token is fetched, as far as they narrow its key.
    fn vars(&self) -> Option<&Vars> {
        None
    }

    /// The hours outside of which the provider is not asked for it; absent: it may be asked at any time.
    fn hours(&self) -> Option<&WorkingHours> {
        None
    }

    /// The provider refused this token for good: what the store has is no longer to be taken for good, if it is this one.
    /// May be called again after an error.
    fn invalidate(&self, _store: Store, _token: Fingerprint) -> Pin<Box<dyn Future<Output = Result<(), StoreError>>>> {
        Box::pin(std::future::ready(Ok(())))
    }
}

/// A token that somebody wants: its name, and all that is needed to fetch it.
pub struct TokenSpec {
    /// Its name.
    pub key: TokenKey,
    /// The key of the module that fetches it, before the values of route variables narrow it: another one once a secret
    /// has changed. Absent for a user's token, whose consent outlives secrets.
    pub module: Option<TokenKey>,
    /// Counts the configs: one of an earlier config never takes the place of one of a later config.
    pub serial: u64,
    /// Name of the provider, for logs, metrics and the admin API.
    pub provider: Arc<str>,
    /// Renew this long before expiry.
    pub refresh_before: Duration,
    /// A fetch ends after this long.
    pub fetch_timeout: Duration,
    /// The procedure that fetches the token.
    pub procedure: Box<dyn FetchProcedure>,
}

/// A lease, with the shelf to look on next time.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The lease.
    pub lease: Arc<Lease>,
    /// The slot in which the lease's successors will be published.
    pub token_slot: Arc<TokenSlot>,
    /// True if the token was fetched while the caller waited: a refusal of it shows that fetching cannot help.
    pub fresh: bool,
}

/// There is no token, and this is why.
#[derive(Clone, Debug, Eq, Error, PartialEq)]
#[error("{inside}")]
pub struct Unavailable {
    /// Class of the failure, as in logs and metrics.
    pub class: Class,
    /// When it makes sense to ask again.
    pub retry_after: Duration,
    /// True if the pause is countersign's own: the provider neither set its length nor refused further calls.
    pub ours: bool,
    /// For our logs.
    pub inside: Arc<str>,
}
