//! The header fields of a request on their way to the provider: removal of what a client must not send, then injection.

use http::header::{ACCEPT_ENCODING, CONTENT_LENGTH, HOST};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Method};

use crate::base::id::Ids;
use crate::base::vars::Vars;
use crate::config::Route;
use crate::observe::trace::{TRACEPARENT, TRACESTATE};
use crate::provider::SentIds;
use crate::serve::fault::Fault;
use crate::serve::requests::headers;
use crate::serve::requests::hop_options::HopOptions;
use crate::token::lease::Lease;

/// The values that a request is dressed with, besides its route.
pub(in crate::serve) struct RequestDress<'a> {
    /// The `Host` field at the provider.
    pub host: &'a HeaderValue,
    pub lease: &'a Lease,
    pub vars: &'a Vars,
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
    headers::join_cookies(&mut head.headers);
    headers::strip_request_headers(&mut head.headers, &route.module, &route.consumed)
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
    if route.module.judges_bodies() {
        limit_codings(&mut head.headers);
    }
    head.headers.insert(HOST, with.host.clone());
    Ok(route.module.dress(&mut head.headers, with.lease, with.vars, ids))
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
