//! Values that a route takes from a request: an account number, a user.

use std::fmt;
use std::sync::Arc;

/// Route variables with their values, in the order in which the route declares them. `Debug` shows names only.
#[derive(Clone, Default, Eq, PartialEq)]
pub struct Vars(Vec<(Arc<str>, String)>);

impl Vars {
    /// Returns an empty list of variables, without an allocation.
    pub const fn none() -> Self {
        Self(Vec::new())
    }

    /// Adds a variable after those that are already there.
    pub fn push(&mut self, name: Arc<str>, value: String) {
        self.0.push((name, value));
    }

    /// The value of a variable.
    pub fn find(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| **known == *name).map(|(_, value)| value.as_str())
    }

    /// Iterates over names and values, in the order of declaration.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, value.as_str()))
    }

    /// Returns whether there are no variables.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Vars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.iter().map(|(name, _)| name)).finish()
    }
}
