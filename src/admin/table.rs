//! The table of all endpoints of the admin API, with the role that each requires. A path that is not in this table does
//! not exist.

use http::Method;

use crate::config::{PublicEndpoints, Role};

/// One thing that may be asked of the door.
#[derive(Clone, Copy, Debug)]
pub struct ApiEndpoint {
    /// The method; where it is `GET`, `HEAD` is answered, too.
    pub method: &'static str,
    /// The path; `{key}` stands for one segment.
    pub path: &'static str,
    /// The least that a token must permit.
    pub role: Role,
    pub(super) ask: AdminCall,
}

/// The call that an endpoint of the admin API stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AdminCall {
    ConsentRevoke,
    ConsentStart,
    Consents,
    Events,
    Livez,
    Metrics,
    OpenApi,
    Providers,
    Purge,
    Readyz,
    Refresh,
    Reload,
    Routes,
    Status,
    Tokens,
}

/// All that may be asked.
pub const TABLE: [ApiEndpoint; 15] = [
    line("GET", "/livez", Role::Read, AdminCall::Livez),
    line("GET", "/readyz", Role::Read, AdminCall::Readyz),
    line("GET", "/metrics", Role::Read, AdminCall::Metrics),
    line("GET", "/api/v1/status", Role::Read, AdminCall::Status),
    line("GET", "/api/v1/routes", Role::Read, AdminCall::Routes),
    line("GET", "/api/v1/providers", Role::Read, AdminCall::Providers),
    line("GET", "/api/v1/tokens", Role::Read, AdminCall::Tokens),
    line("POST", "/api/v1/tokens/{key}/refresh", Role::Operate, AdminCall::Refresh),
    line("DELETE", "/api/v1/tokens/{key}", Role::Operate, AdminCall::Purge),
    line("GET", "/api/v1/consents", Role::Read, AdminCall::Consents),
    line("POST", "/api/v1/consents/start", Role::Operate, AdminCall::ConsentStart),
    line("POST", "/api/v1/consents/revoke", Role::Operate, AdminCall::ConsentRevoke),
    line("POST", "/api/v1/reload", Role::Operate, AdminCall::Reload),
    line("GET", "/api/v1/events", Role::Read, AdminCall::Events),
    line("GET", "/api/v1/openapi.json", Role::Read, AdminCall::OpenApi),
];

const fn line(method: &'static str, path: &'static str, role: Role, ask: AdminCall) -> ApiEndpoint {
    ApiEndpoint { method, path, role, ask }
}

/// The result of looking up a request in the table.
#[derive(Debug)]
pub(super) enum EndpointMatch<'a> {
    /// The endpoint, and the key in the path if it has one.
    Line(&'static ApiEndpoint, Option<&'a str>),
    /// The path is there, for these methods.
    Methods(String),
    /// There is no such path.
    Nothing,
}

/// Looks up the endpoint of a request; `HEAD` matches `GET`.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> EndpointMatch<'a> {
    let here = || TABLE.iter().filter_map(|line| Some((line, matches(line.path, path)?)));
    let asked = if *method == Method::HEAD { "GET" } else { method.as_str() };
    if let Some((line, key)) = here().find(|(line, _)| line.method == asked) {
        return EndpointMatch::Line(line, key);
    }
    let mut methods: Vec<&str> = here().map(|(line, _)| line.method).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    if methods.is_empty() { EndpointMatch::Nothing } else { EndpointMatch::Methods(methods.join(", ")) }
}

/// Matches a path against this shape. `None`: it does not match; otherwise the key that it names, if the shape has one.
fn matches<'a>(shape: &str, path: &'a str) -> Option<Option<&'a str>> {
    let Some((before, after)) = shape.split_once("{key}") else { return (shape == path).then_some(None) };
    let key = path.strip_prefix(before)?.strip_suffix(after)?;
    (!key.is_empty() && !key.contains('/')).then_some(Some(key))
}

impl AdminCall {
    /// Returns whether the call requires a body.
    pub(super) const fn takes_body(self) -> bool {
        matches!(self, AdminCall::ConsentRevoke | AdminCall::ConsentStart)
    }

    /// Returns the public endpoint that can be seen without a token; `None` if this call is none.
    pub(super) const fn part(self) -> Option<PublicEndpoints> {
        match self {
            AdminCall::Livez => Some(PublicEndpoints::Livez),
            AdminCall::Metrics => Some(PublicEndpoints::Metrics),
            AdminCall::Readyz => Some(PublicEndpoints::Readyz),
            AdminCall::ConsentRevoke
            | AdminCall::ConsentStart
            | AdminCall::Consents
            | AdminCall::Events
            | AdminCall::OpenApi
            | AdminCall::Providers
            | AdminCall::Purge
            | AdminCall::Refresh
            | AdminCall::Reload
            | AdminCall::Routes
            | AdminCall::Status
            | AdminCall::Tokens => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> String {
        match find(&method.parse().unwrap(), path) {
            EndpointMatch::Line(line, key) => format!("{:?} {}", line.ask, key.unwrap_or("-")),
            EndpointMatch::Methods(methods) => methods,
            EndpointMatch::Nothing => "nothing".to_owned(),
        }
    }

    #[test]
    fn a_path_is_found_whole_or_not_at_all() {
        assert_eq!(found("GET", "/livez"), "Livez -");
        assert_eq!(found("HEAD", "/api/v1/tokens"), "Tokens -");
        assert_eq!(found("DELETE", "/api/v1/tokens/00ff"), "Purge 00ff");
        assert_eq!(found("POST", "/api/v1/tokens/00ff/refresh"), "Refresh 00ff");
        assert_eq!(found("GET", "/api/v1/tokens/00ff/refresh"), "POST");
        assert_eq!(found("POST", "/api/v1/tokens"), "GET, HEAD");
        for path in ["/", "/livez/", "//livez", "/api/v1/tokens//refresh", "/api/v1/tokens/a/b", "/API/v1/tokens"] {
            assert_eq!(found("GET", path), "nothing", "{path}");
        }
    }
}
