//! The head of a request as a connection takes it.

use http::request::Parts;
use http::{Extensions, HeaderMap, Method, Request, Uri};

/// The head of a request, in the form of HTTP/1.1: the target in origin form (RFC 9112 section 3.2.1), the authority in
/// `Host`. Borrowed, so that what is sent again needs no copy before it is known to be.
#[derive(Clone, Copy)]
pub struct RequestHead<'a> {
    pub method: &'a Method,
    pub target: &'a Uri,
    pub headers: &'a HeaderMap,
    /// The spelling of field names, as hyper keeps it; empty for that of HTTP/2.
    pub spelling: &'a Extensions,
}

impl<'a> RequestHead<'a> {
    /// The head of a request that was built whole.
    pub const fn of(parts: &'a Parts) -> Self {
        Self { method: &parts.method, target: &parts.uri, headers: &parts.headers, spelling: &parts.extensions }
    }

    /// A request of its own, for a client that takes it whole.
    pub fn to_request<B>(self, body: B) -> Request<B> {
        let mut request = Request::new(body);
        *request.method_mut() = self.method.clone();
        *request.uri_mut() = self.target.clone();
        *request.headers_mut() = self.headers.clone();
        if !self.spelling.is_empty() {
            *request.extensions_mut() = self.spelling.clone();
        }
        request
    }
}
