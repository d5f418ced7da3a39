//! The table of all endpoints of the admin API, with the role that each requires. A path that is not in this table does
//! not exist.

use http::Method;

use crate::config::{PublicEndpoints, Role};

/// An operation of the admin API.
#[derive(Clone, Copy, Debug)]
pub struct ApiEndpoint {
    /// The method; where it is `GET`, `HEAD` is answered, too.
    pub method: &'static str,
    /// The path; `{key}` or `{id}` stands for one segment.
    pub path: &'static str,
    /// The least that a token must permit.
    pub role: Role,
    pub(super) body: RequestBodyRule,
    /// The name by which the config may let requests in without a token; `None`: it cannot.
    pub(super) public: Option<PublicEndpoints>,
    pub(super) call: AdminCall,
}

/// The rule for the body of a request. A body is JSON of a bounded size.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum RequestBodyRule {
    /// A body is not read.
    Ignored,
    /// A body may be absent.
    Optional,
    Required,
}

/// The call that an endpoint of the admin API stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum AdminCall {
    Config,
    ConsentRevoke,
    ConsentStart,
    Consents,
    Events,
    Livez,
    LogLevel,
    LogLevelRestore,
    LogLevelSet,
    Metrics,
    OpenApi,
    Providers,
    Purge,
    Readyz,
    Refresh,
    Reload,
    Request,
    Requests,
    Routes,
    Status,
    Tokens,
}

/// All endpoints.
pub const TABLE: &[ApiEndpoint] = &[
    get("/livez", AdminCall::Livez).public(PublicEndpoints::Livez),
    get("/readyz", AdminCall::Readyz).public(PublicEndpoints::Readyz),
    get("/metrics", AdminCall::Metrics).public(PublicEndpoints::Metrics),
    get("/api/v1/status", AdminCall::Status),
    get("/api/v1/routes", AdminCall::Routes),
    get("/api/v1/providers", AdminCall::Providers),
    get("/api/v1/tokens", AdminCall::Tokens),
    operate("POST", "/api/v1/tokens/{key}/refresh", RequestBodyRule::Optional, AdminCall::Refresh),
    operate("DELETE", "/api/v1/tokens/{key}", RequestBodyRule::Ignored, AdminCall::Purge),
    get("/api/v1/consents", AdminCall::Consents),
    operate("POST", "/api/v1/consents/start", RequestBodyRule::Required, AdminCall::ConsentStart),
    operate("POST", "/api/v1/consents/revoke", RequestBodyRule::Required, AdminCall::ConsentRevoke),
    operate("GET", "/api/v1/config", RequestBodyRule::Ignored, AdminCall::Config),
    get("/api/v1/log-level", AdminCall::LogLevel),
    operate("POST", "/api/v1/log-level", RequestBodyRule::Required, AdminCall::LogLevelSet),
    operate("DELETE", "/api/v1/log-level", RequestBodyRule::Ignored, AdminCall::LogLevelRestore),
    get("/api/v1/requests", AdminCall::Requests),
    get("/api/v1/requests/{id}", AdminCall::Request),
    operate("POST", "/api/v1/reload", RequestBodyRule::Optional, AdminCall::Reload),
    get("/api/v1/events", AdminCall::Events),
    get("/api/v1/openapi.json", AdminCall::OpenApi),
];

/// Builds the row of an endpoint that shows something.
const fn get(path: &'static str, call: AdminCall) -> ApiEndpoint {
    ApiEndpoint { method: "GET", path, role: Role::Read, body: RequestBodyRule::Ignored, public: None, call }
}

/// Builds the row of an endpoint that changes something, or shows what only those may see who may change it.
const fn operate(method: &'static str, path: &'static str, body: RequestBodyRule, call: AdminCall) -> ApiEndpoint {
    ApiEndpoint { method, path, role: Role::Operate, body, public: None, call }
}

impl ApiEndpoint {
    const fn public(self, name: PublicEndpoints) -> Self {
        Self { public: Some(name), ..self }
    }
}

/// The result of looking up a request in the table.
#[derive(Debug)]
pub(super) enum EndpointMatch<'a> {
    /// The endpoint, and the key or id in the path if it has one.
    Endpoint(&'static ApiEndpoint, Option<&'a str>),
    /// The path is there, for these methods.
    Methods(String),
    /// There is no such path.
    Nothing,
}

/// Looks up the endpoint of a request; `HEAD` matches `GET`.
pub(super) fn find<'a>(method: &Method, path: &'a str) -> EndpointMatch<'a> {
    let here = || TABLE.iter().filter_map(|endpoint| Some((endpoint, matches(endpoint.path, path)?)));
    let sought = if *method == Method::HEAD { "GET" } else { method.as_str() };
    if let Some((endpoint, key)) = here().find(|(endpoint, _)| endpoint.method == sought) {
        return EndpointMatch::Endpoint(endpoint, key);
    }
    let mut methods: Vec<&str> = here().map(|(endpoint, _)| endpoint.method).collect();
    if methods.contains(&"GET") {
        methods.push("HEAD");
    }
    if methods.is_empty() { EndpointMatch::Nothing } else { EndpointMatch::Methods(methods.join(", ")) }
}

/// Matches a path against this shape. `None`: it does not match; otherwise the segment that it names, if the shape has
/// one.
fn matches<'a>(shape: &str, path: &'a str) -> Option<Option<&'a str>> {
    let open = ["{key}", "{id}"].into_iter().find_map(|name| shape.split_once(name));
    let Some((before, after)) = open else { return (shape == path).then_some(None) };
    let key = path.strip_prefix(before)?.strip_suffix(after)?;
    (!key.is_empty() && !key.contains('/')).then_some(Some(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: &str, path: &str) -> String {
        match find(&method.parse().unwrap(), path) {
            EndpointMatch::Endpoint(endpoint, key) => format!("{:?} {}", endpoint.call, key.unwrap_or("-")),
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
        assert_eq!(found("GET", "/api/v1/requests"), "Requests -");
        assert_eq!(found("GET", "/api/v1/requests/urn:uuid:0"), "Request urn:uuid:0");
        for path in ["/", "/livez/", "//livez", "/api/v1/tokens//refresh", "/api/v1/tokens/a/b", "/API/v1/tokens"] {
            assert_eq!(found("GET", path), "nothing", "{path}");
        }
    }
}
