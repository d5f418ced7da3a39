//! countersign's own errors: one table, from which the answers and `docs/errors.md` are made.
//!
//! Outside text is fixed by the row and never contains inside text. Each room below has its own small error; it becomes
//! a [`Fault`] here and nowhere else.

use std::fmt::Write as _;
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, PROXY_AUTHENTICATE, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode};
use uuid::Uuid;

use crate::control::Unavailable;
use crate::observe::stats::Blame;
use crate::provider::SignatureFailure;
use crate::serve::exchanges::replay_body::Ungathered;
use crate::token::failure::Class;
use crate::upstream::DialError;

/// The `Proxy-Status` field (RFC 9209).
pub const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// The refusal of a request whose caller is known: for the operator, since the answer does not tell it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Refusal {
    /// The one route that the request meant, as an index into the config's routes; `None` if it meant none, or several.
    pub route: Option<u32>,
    /// The rule that it does not keep.
    pub cause: RefusalCause,
}

impl Refusal {
    /// Builds the refusal of a request that means no single route, or whose route is known otherwise.
    pub const fn of(cause: RefusalCause) -> Self {
        Self { route: None, cause }
    }

    /// Builds the refusal of a request that means this route.
    pub fn at(route: usize, cause: RefusalCause) -> Self {
        Self { route: u32::try_from(route).ok(), cause }
    }
}

/// The rule that a refused request does not keep.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum RefusalCause {
    /// The route is not open to the client.
    Client,
    /// The endpoint is the provider's own.
    Endpoint,
    /// The listener is not open to the client.
    Listener,
    /// The route does not take the method.
    Method,
    /// The route's `allow` has no such line.
    Path,
    /// No route of the provider is open to the client.
    Provider,
    /// Several routes match, and none is open.
    Routes,
    /// The client may not speak for the user.
    User,
    /// The client may not name the value of a variable.
    Value,
    /// A web page made the request.
    WebPage,
}

impl RefusalCause {
    /// The sentence for the operator, without a full stop.
    pub const fn as_str(self) -> &'static str {
        match self {
            RefusalCause::Client => "the route is not open to this client: see its `clients`",
            RefusalCause::Endpoint => "a provider's token and consent endpoints are never reached through a route",
            RefusalCause::Listener => "the listener is not open to this client: see its `clients`",
            RefusalCause::Method => "the route does not take this method: see its `methods`",
            RefusalCause::Path => "no line of the route's `allow` has this method and path",
            RefusalCause::Provider => "no route of this provider is open to this client",
            RefusalCause::Routes => "several routes match, and none is open to this client with this method",
            RefusalCause::User => "the client may not call for this user: see its `users`",
            RefusalCause::Value => "the client may not name this value of a variable: see its `vars`",
            RefusalCause::WebPage => "a web page made the request, and nobody is asked for credentials here",
        }
    }
}

/// Something that we answer ourselves.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// Identified, but not for this.
    ClientNotAllowed(Refusal),
    /// Missing or wrong credentials of a client.
    ClientUnidentified,
    /// No or wrong credentials at a forward listener.
    ClientUnidentifiedToProxy,
    /// The request body is larger than what may be gathered of it.
    BodyTooLarge,
    /// The request body comes too slowly.
    BodyTooSlow,
    /// The user has not consented, or not any more.
    ConsentRequired,
    /// The host that a client named leads where it must not.
    DestinationForbidden,
    /// A forward listener has no route there.
    DestinationUnrouted,
    /// A defect in countersign itself.
    Internal,
    /// The request can be read in two ways, or a value does not fit. The text is ours, never the client's.
    Malformed(&'static str),
    /// A method that is never forwarded, such as `TRACE`, or that an own endpoint does not serve.
    MethodRefused,
    /// Host, SNI, names or authority disagree.
    Misdirected,
    /// Too many connections or too much buffered.
    Overloaded,
    /// An expectation other than `100-continue`.
    Expectation,
    /// The provider refuses our application credentials.
    ProviderCredentialsRejected(Duration),
    /// The provider says that it is outside working hours.
    ProviderClosed(Duration),
    /// Too many requests, or too many wrong credentials.
    RateLimited(Duration),
    /// No route matches the request.
    RouteNotFound,
    /// The provider's own token endpoint.
    ReservedEndpoint,
    /// The signature that the provider wants cannot be made now.
    SignerUnavailable,
    /// There is no token to be had now.
    TokenUnavailable(Duration),
    /// The head has too many fields.
    TooManyFields,
    /// The use of credentials cannot be recorded now, and must be.
    Unaudited,
    /// The request target is too long.
    UriTooLong,
    /// The application did not take a webhook.
    WebhookUndelivered,
    /// The signature of a webhook does not hold.
    WebhookUnverified,
    /// The provider sent something that is not HTTP, or broke off.
    UpstreamProtocol,
    /// Its name does not resolve.
    UpstreamDns,
    /// It took too long to connect.
    UpstreamConnectTimeout,
    /// Its answer holds a credential, and the route blocks such answers.
    UpstreamReflection,
    /// It took too long to answer.
    UpstreamResponseTimeout,
    /// It did not prove who it is.
    UpstreamTls,
    /// Its answer could not be decrypted or verified.
    UpstreamUnopened,
    /// Its host refuses the connection or cannot be reached.
    UpstreamUnreachable,
}

/// The entry of a fault in the error table.
pub struct Row {
    /// The NAME in the type `urn:countersign:error:NAME`.
    pub name: &'static str,
    /// The HTTP status of the fault's response.
    pub status: StatusCode,
    /// The error type for `Proxy-Status` (RFC 9209 section 2.3).
    pub proxy_error: &'static str,
    /// The `title` of the problem document, a few words.
    pub title: &'static str,
    /// A sentence on what to do.
    pub detail: &'static str,
    /// The party that has to act: `client`, `operator` or `provider`.
    pub whose: &'static str,
}

const fn row(
    name: &'static str,
    status: StatusCode,
    proxy_error: &'static str,
    whose: &'static str,
    title: &'static str,
    detail: &'static str,
) -> Row {
    Row { name, status, proxy_error, title, detail, whose }
}

impl Fault {
    /// Returns the rule that the request does not keep, if its caller is known and no route is open to it.
    pub const fn refusal(self) -> Option<Refusal> {
        if let Fault::ClientNotAllowed(refusal) = self {
            Some(refusal)
        } else if matches!(self, Fault::ReservedEndpoint) {
            Some(Refusal::of(RefusalCause::Endpoint))
        } else {
            None
        }
    }

    /// Returns its row of the error table.
    #[expect(clippy::too_many_lines, reason = "one table, one row each")]
    pub const fn row(self) -> Row {
        match self {
            Fault::BodyTooLarge => row(
                "malformed-request",
                StatusCode::PAYLOAD_TOO_LARGE,
                "http_request_error",
                "client",
                "The request body is too large",
                "On this route bodies are gathered before they are sent, up to its `replay_limit`. Nothing was sent.",
            ),
            Fault::BodyTooSlow => row(
                "overloaded",
                StatusCode::REQUEST_TIMEOUT,
                "http_request_error",
                "client",
                "The request body comes too slowly",
                "Nobody can wait for it any longer. The provider may have received its beginning, never all of it.",
            ),
            Fault::ClientNotAllowed(_) => row(
                "client-not-allowed",
                StatusCode::FORBIDDEN,
                "http_request_denied",
                "operator",
                "This client may not make this request",
                "Who you are is known, but no route is open to you for this path, method or value. Ask the operator.",
            ),
            Fault::ClientUnidentified => row(
                "client-unidentified",
                StatusCode::UNAUTHORIZED,
                "http_request_denied",
                "client",
                "Who is calling is not known",
                "Send your key as `Authorization: Bearer KEY` or Basic credentials, from an allowed network.",
            ),
            Fault::ClientUnidentifiedToProxy => row(
                "client-unidentified",
                StatusCode::PROXY_AUTHENTICATION_REQUIRED,
                "http_request_denied",
                "client",
                "Who is calling is not known",
                "Give the proxy your name and key, as in `http://NAME:KEY@proxy:3128`, from an allowed network.",
            ),
            Fault::ConsentRequired => row(
                "consent-required",
                StatusCode::FORBIDDEN,
                "http_request_denied",
                "client",
                "The user has to consent first",
                "Start a consent for this user, and send the user to the URL that comes back. See docs/consent.md.",
            ),
            Fault::DestinationForbidden => row(
                "destination-forbidden",
                StatusCode::FORBIDDEN,
                "destination_ip_prohibited",
                "client",
                "The host leads where no tunnel may go",
                "Loopback, private and special addresses and countersign's own are not reached through it.",
            ),
            Fault::DestinationUnrouted => row(
                "route-not-found",
                StatusCode::FORBIDDEN,
                "http_request_denied",
                "client",
                "No route leads there",
                "This proxy reaches the hosts and paths of its routes alone. Ask the operator.",
            ),
            Fault::Expectation => row(
                "malformed-request",
                StatusCode::EXPECTATION_FAILED,
                "http_request_error",
                "client",
                "The request's expectation cannot be met",
                "Only `Expect: 100-continue` is known here.",
            ),
            Fault::Internal => row(
                "internal",
                StatusCode::INTERNAL_SERVER_ERROR,
                "proxy_internal_error",
                "operator",
                "countersign failed",
                "This is a fault of countersign. Give its operator the instance of this error.",
            ),
            Fault::Malformed(detail) => row(
                "malformed-request",
                StatusCode::BAD_REQUEST,
                "http_request_error",
                "client",
                "The request can be read in more than one way, or not at all",
                detail,
            ),
            Fault::MethodRefused => row(
                "malformed-request",
                StatusCode::METHOD_NOT_ALLOWED,
                "http_request_error",
                "client",
                "This method is never forwarded",
                "Methods that echo a request would show its credentials.",
            ),
            Fault::Misdirected => row(
                "misdirected-request",
                StatusCode::MISDIRECTED_REQUEST,
                "http_request_error",
                "client",
                "The request names a host that this connection is not for",
                "The Host of the request and the server name of the TLS connection must agree.",
            ),
            Fault::Overloaded => row(
                "overloaded",
                StatusCode::SERVICE_UNAVAILABLE,
                "connection_limit_reached",
                "operator",
                "A limit is reached",
                "countersign holds as much as it is allowed to. Try again in a moment.",
            ),
            Fault::ProviderClosed(_) => row(
                "provider-closed",
                StatusCode::SERVICE_UNAVAILABLE,
                "destination_unavailable",
                "provider",
                "The provider is outside its working hours",
                "Try again when it opens; Retry-After says when countersign will ask it.",
            ),
            Fault::ProviderCredentialsRejected(_) => row(
                "provider-credentials-rejected",
                StatusCode::BAD_GATEWAY,
                "proxy_configuration_error",
                "operator",
                "The provider refuses countersign's credentials",
                "The operator has to correct the provider's credentials or have them unlocked.",
            ),
            Fault::RateLimited(_) => row(
                "rate-limited",
                StatusCode::TOO_MANY_REQUESTS,
                "http_request_denied",
                "client",
                "Too many requests",
                "A limit on requests, on token calls, or on wrong credentials from one address, is reached. Try again after Retry-After.",
            ),
            Fault::ReservedEndpoint => row(
                "client-not-allowed",
                StatusCode::FORBIDDEN,
                "http_request_denied",
                "client",
                "The provider's token endpoint is not reachable through a route",
                "countersign logs in by itself; call the provider's API without a token.",
            ),
            Fault::RouteNotFound => row(
                "route-not-found",
                StatusCode::NOT_FOUND,
                "destination_not_found",
                "client",
                "No route matches",
                "Neither the host nor the path of the request belongs to a route of this listener.",
            ),
            Fault::SignerUnavailable => row(
                "signer-unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "proxy_internal_error",
                "operator",
                "The request cannot be signed now",
                "Too many signatures are due at once, or the key or its service cannot be used: that of a signature, or of the client certificate. Nothing was sent. Try again in a moment.",
            ),
            Fault::TokenUnavailable(_) => row(
                "token-unavailable",
                StatusCode::SERVICE_UNAVAILABLE,
                "destination_unavailable",
                "provider",
                "There is no token for this provider",
                "Its token endpoint fails, is too slow, or is being given a rest. Try again after Retry-After.",
            ),
            Fault::TooManyFields => row(
                "overloaded",
                StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
                "http_request_error",
                "client",
                "The request's head has too many fields",
                "Send fewer header fields.",
            ),
            Fault::Unaudited => row(
                "overloaded",
                StatusCode::SERVICE_UNAVAILABLE,
                "proxy_internal_error",
                "operator",
                "The audit log cannot be written",
                "No credential is used until it can be. The request was not sent. The operator's log says why.",
            ),
            Fault::UpstreamConnectTimeout => row(
                "upstream-timeout",
                StatusCode::GATEWAY_TIMEOUT,
                "connection_timeout",
                "provider",
                "The provider did not answer in time",
                "No connection could be made in time. The request was not sent.",
            ),
            Fault::UpstreamDns => row(
                "upstream-unreachable",
                StatusCode::BAD_GATEWAY,
                "dns_error",
                "operator",
                "The provider cannot be reached",
                "Its host name does not resolve. The request was not sent.",
            ),
            Fault::UpstreamProtocol => row(
                "upstream-protocol",
                StatusCode::BAD_GATEWAY,
                "http_protocol_error",
                "provider",
                "The provider's answer is not HTTP, or broke off",
                "The request may have been processed. Inquire before you repeat it.",
            ),
            Fault::UpstreamReflection => row(
                "upstream-protocol",
                StatusCode::BAD_GATEWAY,
                "http_protocol_error",
                "provider",
                "The provider's answer holds a credential",
                "It was not passed on. The request may have been processed. Inquire before you repeat it.",
            ),
            Fault::UpstreamUnopened => row(
                "upstream-unopened",
                StatusCode::BAD_GATEWAY,
                "http_protocol_error",
                "provider",
                "The provider's answer could not be decrypted or verified",
                "It was not passed on. The request may have been processed. Inquire before you repeat it.",
            ),
            Fault::UpstreamResponseTimeout => row(
                "upstream-timeout",
                StatusCode::GATEWAY_TIMEOUT,
                "http_response_timeout",
                "provider",
                "The provider did not answer in time",
                "The request was sent and may have been processed. Inquire before you repeat it.",
            ),
            Fault::UpstreamTls => row(
                "upstream-tls",
                StatusCode::BAD_GATEWAY,
                "tls_certificate_error",
                "operator",
                "The provider did not prove who it is",
                "Its certificate or TLS version is not accepted. The request was not sent.",
            ),
            Fault::UpstreamUnreachable => row(
                "upstream-unreachable",
                StatusCode::BAD_GATEWAY,
                "destination_unavailable",
                "provider",
                "The provider cannot be reached",
                "It refuses connections or hangs up before the request could be sent.",
            ),
            Fault::UriTooLong => row(
                "overloaded",
                StatusCode::URI_TOO_LONG,
                "http_request_error",
                "client",
                "The request target is too long",
                "Shorten the path or the query.",
            ),
            Fault::WebhookUndelivered => row(
                "webhook-undelivered",
                StatusCode::BAD_GATEWAY,
                "destination_unavailable",
                "operator",
                "The application did not answer",
                "The signature of the call holds, and the application may have received it. Send it again later.",
            ),
            Fault::WebhookUnverified => row(
                "webhook-unverified",
                StatusCode::FORBIDDEN,
                "http_request_denied",
                "client",
                "The signature of the call does not hold",
                "It is missing, too old, by another key or of another message. No application got anything of it.",
            ),
        }
    }

    /// Returns the party that has to act, for statistics.
    pub fn blame(self) -> Blame {
        match self.row().whose {
            "client" => Blame::Client,
            "provider" => Blame::Provider,
            _ => Blame::Ours,
        }
    }

    /// Its name in the error table.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Returns whether nothing more is read from an HTTP/1 client after it: a client that cannot write one message
    /// cannot write two.
    pub const fn closes(self) -> bool {
        matches!(self, Fault::BodyTooSlow | Fault::Malformed(_))
    }

    const fn retry_after(self) -> Option<Duration> {
        match self {
            Fault::ProviderClosed(after)
            | Fault::ProviderCredentialsRejected(after)
            | Fault::RateLimited(after)
            | Fault::TokenUnavailable(after) => Some(after),
            Fault::BodyTooLarge
            | Fault::BodyTooSlow
            | Fault::ClientNotAllowed(_)
            | Fault::ClientUnidentified
            | Fault::ClientUnidentifiedToProxy
            | Fault::ConsentRequired
            | Fault::DestinationForbidden
            | Fault::DestinationUnrouted
            | Fault::Expectation
            | Fault::Internal
            | Fault::Malformed(_)
            | Fault::MethodRefused
            | Fault::Misdirected
            | Fault::Overloaded
            | Fault::ReservedEndpoint
            | Fault::RouteNotFound
            | Fault::SignerUnavailable
            | Fault::TooManyFields
            | Fault::Unaudited
            | Fault::UpstreamConnectTimeout
            | Fault::UpstreamDns
            | Fault::UpstreamProtocol
            | Fault::UpstreamReflection
            | Fault::UpstreamResponseTimeout
            | Fault::UpstreamTls
            | Fault::UpstreamUnopened
            | Fault::UpstreamUnreachable
            | Fault::UriTooLong
            | Fault::WebhookUndelivered
            | Fault::WebhookUnverified => None,
        }
    }

    /// The whole answer: problem+json (RFC 9457) under the request's id.
    pub fn answer(self, id: Uuid) -> Response<Bytes> {
        let row = self.row();
        let body = serde_json::json!({
            "type": format!("urn:countersign:error:{}", row.name),
            "title": row.title,
            "status": row.status.as_u16(),
            "detail": row.detail,
            "instance": format!("urn:uuid:{id}"),
        });
        let mut response = Response::new(Bytes::from(body.to_string()));
        *response.status_mut() = row.status;
        self.head(&row, response.headers_mut());
        response
    }

    fn head(self, row: &Row, headers: &mut HeaderMap) {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        let status = format!("countersign; error={}", row.proxy_error);
        if let Ok(status) = HeaderValue::try_from(status) {
            headers.insert(PROXY_STATUS, status);
        }
        if let Some(after) = self.retry_after() {
            // Whole seconds, rounded up, at least one (RFC 9110 section 10.2.3).
            let seconds = after.as_millis().div_ceil(1000).max(1);
            headers.insert(RETRY_AFTER, HeaderValue::from(u64::try_from(seconds).unwrap_or(u64::MAX)));
        }
        let bearer = HeaderValue::from_static("Bearer realm=\"countersign\"");
        let basic = HeaderValue::from_static("Basic realm=\"countersign\", charset=\"UTF-8\"");
        if self == Fault::ClientUnidentified {
            headers.append(WWW_AUTHENTICATE, bearer);
            headers.append(WWW_AUTHENTICATE, basic);
        } else if self == Fault::ClientUnidentifiedToProxy {
            // Some programs look at the first challenge alone, and know Basic alone.
            headers.append(PROXY_AUTHENTICATE, basic);
            headers.append(PROXY_AUTHENTICATE, bearer);
        }
        if self == Fault::MethodRefused {
            headers.insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"));
        }
    }
}

impl From<Ungathered> for Fault {
    fn from(ungathered: Ungathered) -> Self {
        match ungathered {
            Ungathered::Broken => Fault::Malformed("The request body ended early."),
            Ungathered::Crowded => Fault::Overloaded,
            Ungathered::TooLarge => Fault::Malformed(
                "The body must be read for a variable of the route, but is larger than what may be kept of it.",
            ),
            Ungathered::TooSlow => Fault::BodyTooSlow,
        }
    }
}

impl From<&Unavailable> for Fault {
    fn from(unavailable: &Unavailable) -> Self {
        match unavailable.class {
            Class::Closed => Fault::ProviderClosed(unavailable.retry_after),
            Class::Consent => Fault::ConsentRequired,
            Class::Fatal => Fault::ProviderCredentialsRejected(unavailable.retry_after),
            Class::RateLimited if unavailable.ours => Fault::RateLimited(unavailable.retry_after),
            Class::RateLimited | Class::Transient => Fault::TokenUnavailable(unavailable.retry_after),
        }
    }
}

impl From<&SignatureFailure> for Fault {
    fn from(failure: &SignatureFailure) -> Self {
        match failure {
            SignatureFailure::Signer(_) => Fault::SignerUnavailable,
            SignatureFailure::Unfit(why) => Fault::Malformed(why),
        }
    }
}

impl From<&DialError> for Fault {
    fn from(error: &DialError) -> Self {
        match error {
            DialError::Dns(_) => Fault::UpstreamDns,
            DialError::Http(_) => Fault::UpstreamProtocol,
            DialError::Proxy(_) | DialError::Source(_) | DialError::Tcp(_) => Fault::UpstreamUnreachable,
            DialError::Signer(_) => Fault::SignerUnavailable,
            DialError::Timeout => Fault::UpstreamConnectTimeout,
            DialError::Tls(_) => Fault::UpstreamTls,
        }
    }
}

/// One fault of every kind, in the order of `docs/errors.md`.
const ALL: [Fault; 34] = [
    Fault::ClientUnidentified,
    Fault::ClientUnidentifiedToProxy,
    Fault::ClientNotAllowed(Refusal::of(RefusalCause::Client)),
    Fault::ReservedEndpoint,
    Fault::ConsentRequired,
    Fault::RouteNotFound,
    Fault::DestinationUnrouted,
    Fault::DestinationForbidden,
    Fault::Misdirected,
    Fault::Malformed("The detail says what."),
    Fault::MethodRefused,
    Fault::Expectation,
    Fault::ProviderCredentialsRejected(Duration::ZERO),
    Fault::TokenUnavailable(Duration::ZERO),
    Fault::ProviderClosed(Duration::ZERO),
    Fault::RateLimited(Duration::ZERO),
    Fault::Overloaded,
    Fault::SignerUnavailable,
    Fault::Unaudited,
    Fault::UriTooLong,
    Fault::BodyTooLarge,
    Fault::TooManyFields,
    Fault::BodyTooSlow,
    Fault::UpstreamDns,
    Fault::UpstreamUnreachable,
    Fault::UpstreamTls,
    Fault::UpstreamProtocol,
    Fault::UpstreamReflection,
    Fault::UpstreamUnopened,
    Fault::UpstreamConnectTimeout,
    Fault::UpstreamResponseTimeout,
    Fault::WebhookUnverified,
    Fault::WebhookUndelivered,
    Fault::Internal,
];

/// The text of `docs/errors.md`. A test compares the file with it.
pub fn document() -> String {
    let mut out = String::from(
        "# Errors\n\nEvery error of countersign's own is `application/problem+json` (RFC 9457) and carries\n\
         `Proxy-Status: countersign; error=…` (RFC 9209). The provider's own errors pass through untouched and carry no\n\
         such `error`. `instance` names the request; the access log has the same id. A page for each error, called like it,\n\
         is among the [runbooks](runbooks/README.md).\n\n\
         The HTTP parser refuses some requests before countersign sees them: those answers have a status\n\
         (400, 408, 414, 431) and no body.\n\n\
         This page is made from the table in `src/serve/fault.rs`.\n\n\
         | type `urn:countersign:error:…` | status | `Retry-After` | `Proxy-Status` error | who acts | title | what to do |\n\
         |---|---|---|---|---|---|---|\n",
    );
    for fault in ALL {
        let row = fault.row();
        let retry = if fault.retry_after().is_some() { "yes" } else { "" };
        let _ = writeln!(
            out,
            "| `{}` | {} | {retry} | `{}` | {} | {} | {} |",
            row.name,
            row.status.as_u16(),
            row.proxy_error,
            row.whose,
            row.title,
            row.detail
        );
    }
    out
}
