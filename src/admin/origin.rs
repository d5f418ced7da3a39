//! Keeping web pages out: a browser on the operator's machine reaches the admin listener, too, and does what a page tells it.
//!
//! A page of another site may not name us by a name of its own that resolves to us (the `Host` field must be ours), may
//! not have anything changed, and may not listen in. Only a visit, a link that a person follows, may come from elsewhere.

use std::net::{IpAddr, SocketAddr};

use http::header::{HOST, ORIGIN};
use http::{HeaderMap, HeaderValue, Method};

/// Returns whether the `Host` field may name this listener. On loopback it must be the address itself or `localhost`: a
/// foreign name that resolves to this machine is an attack. Elsewhere a machine may have any name, and a token is
/// required besides.
pub(super) fn names_us(own: SocketAddr, headers: &HeaderMap) -> bool {
    let mut hosts = headers.get_all(HOST).iter();
    let (Some(host), None) = (hosts.next(), hosts.next()) else { return false };
    let Ok(host) = host.to_str() else { return false };
    if !own.ip().to_canonical().is_loopback() {
        return !host.is_empty();
    }
    if let Ok(address) = host.parse::<SocketAddr>() {
        return own.ip() == address.ip();
    }
    if let Ok(address) = host.trim_matches(['[', ']']).parse::<IpAddr>() {
        return own.ip() == address;
    }
    host.rsplit_once(':').map_or(host, |(name, _)| name).eq_ignore_ascii_case("localhost")
}

/// Returns whether the browser's header fields show that a page of another site sends this request.
pub(crate) fn is_foreign_origin(headers: &HeaderMap, tls: bool) -> bool {
    let scheme = if tls { "https" } else { "http" };
    let own = headers.get(HOST).and_then(|host| host.to_str().ok()).map(|host| format!("{scheme}://{host}"));
    let ours = |origin: &HeaderValue| {
        let origin = origin.to_str().ok();
        origin.zip(own.as_deref()).is_some_and(|(origin, own)| origin.eq_ignore_ascii_case(own))
    };
    let near = |site: &HeaderValue| site == "same-origin" || site == "none";
    !headers.get_all(ORIGIN).iter().all(ours) || !headers.get_all("sec-fetch-site").iter().all(near)
}

/// Returns whether a request must not come from a page of another site: all but a `GET` or `HEAD` by which a browser
/// follows a link.
pub(super) fn must_be_near(method: &Method, headers: &HeaderMap) -> bool {
    let looks = *method == Method::GET || *method == Method::HEAD;
    !looks || headers.get("sec-fetch-mode").is_none_or(|mode| mode != "navigate")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(fields: &[(&'static str, &str)]) -> HeaderMap {
        let read = |(name, value): &(&'static str, &str)| {
            (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())
        };
        fields.iter().map(read).collect()
    }

    #[test]
    fn a_host_must_be_the_address_itself_or_localhost() {
        let own = "127.0.0.1:9901".parse().unwrap();
        let named = |host: &str| names_us(own, &fields(&[("host", host)]));
        assert!(named("127.0.0.1:9901") && named("localhost:9901") && named("LOCALHOST") && named("127.0.0.1"));
        for foreign in
            ["evil.example", "evil.example:9901", "localhost.evil.example", "10.0.0.1:9901", "[::1]:9901", ""]
        {
            assert!(!named(foreign), "{foreign}");
        }
        assert!(!names_us(own, &HeaderMap::new()));
        let two = fields(&[("host", "localhost")]).into_iter().chain(fields(&[("host", "localhost")]));
        let mut twice = HeaderMap::new();
        two.for_each(|(_, value)| {
            twice.append(HOST, value);
        });
        assert!(!names_us(own, &twice));
        assert!(names_us("10.0.0.5:9901".parse().unwrap(), &fields(&[("host", "admin.corp")])));
    }

    #[test]
    fn a_page_of_another_site_is_foreign() {
        let with = |more: &[(&'static str, &str)]| {
            let mut all = vec![("host", "localhost:9901")];
            all.extend_from_slice(more);
            is_foreign_origin(&fields(&all), false)
        };
        assert!(!with(&[]) && !with(&[("origin", "http://localhost:9901"), ("sec-fetch-site", "same-origin")]));
        assert!(!with(&[("sec-fetch-site", "none")]));
        for origin in
            ["null", "http://evil.example", "https://localhost:9901", "http://localhost:9902", "http://localhost"]
        {
            assert!(with(&[("origin", origin)]), "{origin}");
        }
        assert!(with(&[("sec-fetch-site", "cross-site")]) && with(&[("sec-fetch-site", "same-site")]));
        assert!(with(&[("origin", "http://localhost:9901"), ("sec-fetch-site", "cross-site")]));
    }

    #[test]
    fn a_link_may_be_followed_and_nothing_else() {
        let visit = fields(&[("sec-fetch-mode", "navigate")]);
        assert!(!must_be_near(&Method::GET, &visit));
        assert!(must_be_near(&Method::POST, &visit) && must_be_near(&Method::GET, &HeaderMap::new()));
    }
}
