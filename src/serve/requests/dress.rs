//! The header fields of a request on their way to the provider: removal of what a client must not send, then injection.

use bytes::Bytes;
use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, Uri};

use crate::base::id::Ids;
use crate::base::time::Now;
use crate::base::vars::Vars;
use crate::config::Route;
use crate::observe::trace::{TRACEPARENT, TRACESTATE};
use crate::provider::{CallInputs, Module, SentIds};
use crate::serve::exchanges::replay_body::ReplayBody;
use crate::serve::fault::Fault;
use crate::serve::requests::headers;
use crate::serve::requests::hop_options::HopOptions;
use crate::token::lease::Lease;

/// The values that a request is dressed with, besides its route.
#[derive(Clone, Copy)]
pub(in crate::serve) struct RequestDress<'a> {
    /// The `Host` field at the provider.
    pub host: &'a HeaderValue,
    pub lease: &'a Lease,
    pub vars: &'a Vars,
    /// The instant that times in it show.
    pub now: Now,
    /// True if a body follows the head.
    pub body: bool,
    /// The options that it requests for this hop.
    pub hop: HopOptions,
}

/// Strips what a client must not say, then puts on what the provider wants.
pub(in crate::serve) fn dress(
    head: &mut Parts,
    route: &Route,
    with: RequestDress<'_>,
    ids: &mut dyn Ids,
) -> Result<SentIds, Fault> {
    dress_by(&route.module, head, route, with, ids)
}

/// Does the same by another module than the route's: that of its shadow.
pub(in crate::serve) fn dress_by(
    module: &Module,
    head: &mut Parts,
    route: &Route,
    with: RequestDress<'_>,
    ids: &mut dyn Ids,
) -> Result<SentIds, Fault> {
    headers::join_cookies(&mut head.headers);
    headers::strip_request_headers(&mut head.headers, module, &route.consumed)
        .map_err(|_| Fault::Malformed("The Connection field names too much, or something that is no field."))?;
    if !route.provider.trace_context {
        head.headers.remove(TRACEPARENT);
        head.headers.remove(TRACESTATE);
    }
    with.hop.put_on(&mut head.headers);
    if !with.body && head.method != Method::GET && head.method != Method::HEAD {
        // Said aloud, since a missing length means something else to HTTP/1.1 providers.
        head.headers.entry(CONTENT_LENGTH).or_insert(HeaderValue::from_static("0"));
    }
    for (name, value) in &route.headers {
        head.headers.insert(name.clone(), value.clone());
    }
    if module.reads_bodies() {
        limit_codings(&mut head.headers);
    }
    head.headers.insert(HOST, with.host.clone());
    Ok(module.dress(&mut head.headers, with.inputs(), ids))
}

impl<'a> RequestDress<'a> {
    /// The inputs of the provider's module.
    pub const fn inputs(&self) -> CallInputs<'a> {
        CallInputs { lease: self.lease, vars: self.vars, now: self.now }
    }
}

/// The target of a dressed request, where the provider's module puts parameters into its query; `None`: it stays as it
/// is. Boxed, since few requests have one.
pub(in crate::serve) fn dressed_target(
    target: &Uri,
    route: &Route,
    with: CallInputs<'_>,
    sent: &SentIds,
    ids: &mut dyn Ids,
) -> Result<Option<Box<Uri>>, Fault> {
    let path_and_query = target.path_and_query().map_or("/", PathAndQuery::as_str);
    let Some(dressed) = route.module.target(path_and_query, with, sent, ids) else { return Ok(None) };
    // A token and the query of a client may be longer together than a target can be.
    let dressed = PathAndQuery::from_maybe_shared(Bytes::from(dressed)).map_err(|_| Fault::UriTooLong)?;
    Ok(Some(Box::new(Uri::from(dressed))))
}

/// Puts the fields into a gathered body that the provider's module has for it, always into what the client sent. A request
/// without a body stays without.
pub(in crate::serve) fn dress_body(
    body: &ReplayBody,
    headers: &mut HeaderMap,
    route: &Route,
    with: CallInputs<'_>,
    sent: &SentIds,
    ids: &mut dyn Ids,
) -> Result<(), Fault> {
    body.restore(headers);
    if !route.module.changes_body() || body.kept_bytes() == 0 {
        return Ok(());
    }
    let Some(dressed) = route.module.body(headers, &body.content(), with, sent, ids) else { return Ok(()) };
    let dressed = dressed.map_err(|unfit| Fault::Malformed(unfit.text()))?;
    if !body.replace(&Bytes::copy_from_slice(&dressed), None, headers) {
        return Err(Fault::Overloaded);
    }
    Ok(())
}

/// A profile that judges bodies must be able to read them.
fn limit_codings(headers: &mut HeaderMap) {
    let Some(wished) = headers.get(ACCEPT_ENCODING) else {
        headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        return;
    };
    let readable = ["gzip", "deflate", "identity"];
    let kept: Vec<&str> = wished
        .to_str()
        .unwrap_or("")
        .split(',')
        .map(str::trim)
        .filter(|coding| {
            let name = coding.split(';').next().unwrap_or("").trim();
            readable.iter().any(|known| name.eq_ignore_ascii_case(known))
        })
        .collect();
    let limited = if kept.is_empty() { "identity".to_owned() } else { kept.join(", ") };
    if let Ok(limited) = HeaderValue::try_from(limited) {
        headers.insert(ACCEPT_ENCODING, limited);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limited(wish: Option<&str>) -> String {
        let mut headers = HeaderMap::new();
        if let Some(wish) = wish {
            headers.insert(ACCEPT_ENCODING, wish.parse().unwrap());
        }
        limit_codings(&mut headers);
        headers[ACCEPT_ENCODING].to_str().unwrap().to_owned()
    }

    #[test]
    fn only_codings_that_we_can_read_are_asked_for() {
        assert_eq!(limited(Some("br, gzip;q=0.8, zstd, Deflate")), "gzip;q=0.8, Deflate");
        assert_eq!(limited(Some("br")), "identity");
        assert_eq!(limited(Some("*")), "identity");
        assert_eq!(limited(None), "identity");
    }
}
