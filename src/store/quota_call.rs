//! A call that counts requests in a window which replicas share.

/// Requests to be counted in a window.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct QuotaCall {
    /// Requests that are counted in any case: they were made.
    pub debt: u64,
    /// Requests that are wanted.
    pub want: u64,
    /// Requests that the window has in all.
    pub limit: u64,
    /// The end of the window, in milliseconds since 1970.
    pub until: u64,
}
