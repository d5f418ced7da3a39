//! The keys in the order in which an operator looks at them, kept up to date step by step: a page of many tokens is
//! read without a look at the others.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::token::key::TokenKey;

/// The place of a key: those that somebody has to look at first, then the tokens that end soonest, then keys without
/// one.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct TokenRank {
    pub(super) is_well: bool,
    /// When its token ends, in milliseconds since 1970; the greatest number if there is none.
    pub(super) ends: u64,
}

/// All keys by their [ranks](TokenRank); equal ones by provider and key.
#[derive(Debug, Default)]
pub(super) struct TokenOrder(BTreeSet<(TokenRank, Arc<str>, TokenKey)>);

impl TokenOrder {
    /// Moves a key from one place to another. A new key comes from none, one that is forgotten goes to none.
    pub(super) fn place(&mut self, provider: &Arc<str>, key: TokenKey, from: Option<TokenRank>, to: Option<TokenRank>) {
        if let Some(rank) = from {
            self.0.remove(&(rank, Arc::clone(provider), key));
        }
        if let Some(rank) = to {
            self.0.insert((rank, Arc::clone(provider), key));
        }
    }

    /// The keys, in order.
    pub(super) fn keys(&self) -> impl Iterator<Item = &TokenKey> {
        self.0.iter().map(|(_, _, key)| key)
    }
}
