//! A corporate HTTP proxy on the way to a provider: `CONNECT` (RFC 9110 section 9.3.6), then TLS inside.
//!
//! The proxy learns the provider's host and port and nothing else; it resolves the name. Its password is a sensitive
//! header value from the moment it is read, and no error here quotes what the proxy was told.

use std::pin::pin;
use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use http::header::{HOST, PROXY_AUTHORIZATION};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::Empty;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use percent_encoding::percent_decode_str;
use rustls::pki_types::ServerName;
use thiserror::Error;
use tokio::net::TcpStream;

use super::dial::DialError;

/// Maximum size of the head of a proxy's response, in bytes.
const MOST_HEAD: usize = 16 * 1024;

/// The address of a proxy, and the credentials for it. Its `Debug` shows no password.
#[derive(Clone, Debug)]
pub struct ForwardProxy {
    host: Arc<str>,
    port: u16,
    authorization: Option<HeaderValue>,
}

/// The reason for which a proxy gave no tunnel. No part of a request to the provider was sent.
#[derive(Debug, Error)]
pub enum ProxyError {
    /// It answered, but not with 2xx.
    #[error("answered {} to CONNECT: {}", .0.as_u16(), advice(*.0))]
    Answered(StatusCode),
    /// It hung up or sent what is not HTTP.
    #[error("no answer to CONNECT: {0}")]
    Broken(#[from] hyper::Error),
    /// It sent bytes into the tunnel before TLS had begun there.
    #[error("sent bytes into the tunnel before TLS began")]
    Intruded,
    /// The provider's host has characters that an authority does not have.
    #[error("the provider's host cannot stand in CONNECT")]
    MalformedHost,
    /// It cannot be reached.
    #[error("{0}")]
    Unreachable(#[source] Box<DialError>),
}

/// Returns what an operator can conclude from the status of a refused CONNECT.
fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::PROXY_AUTHENTICATION_REQUIRED => "it wants other credentials in `http_proxy`",
        StatusCode::FORBIDDEN => "it does not allow this host and port",
        status if status.is_server_error() => "it cannot reach the provider",
        _ => "it gives no tunnel",
    }
}

impl ForwardProxy {
    /// Reads `http://[user[:password]@]host[:port]`; the port is 80 unless it is given, user and password are
    /// percent-decoded. The error says what is wrong, for a person, and quotes nothing.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let rest = match text.split_once("://") {
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => rest,
            Some((scheme, _)) if scheme.eq_ignore_ascii_case("https") => {
                return Err("a proxy is spoken to over plain HTTP, with TLS to the provider inside: write `http://…`");
            }
            Some(_) | None => return Err("write `http://host:port` or `http://user:password@host:port`"),
        };
        let rest = rest.strip_suffix('/').unwrap_or(rest);
        let (user_info, place) = match rest.rsplit_once('@') {
            Some((user_info, place)) => (Some(user_info), place),
            None => (None, rest),
        };
        if place.contains(['/', '?', '#']) {
            return Err("a proxy's URL has no path; a `/`, `?` or `#` in a password is written `%2F`, `%3F` or `%23`");
        }
        let (host, port) = match (place.rfind(']'), place.rfind(':')) {
            (bracket, Some(colon)) if bracket.is_none_or(|bracket| bracket < colon) => place.split_at(colon),
            (_, _) => (place, ":80"),
        };
        let port = match port.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()) {
            Some(port) if port != 0 => port,
            Some(_) | None => return Err("the port is not a number from 1 to 65535"),
        };
        let bare = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(inner) => inner.parse::<std::net::Ipv6Addr>().is_ok().then_some(inner),
            None => (!host.contains(':')).then_some(host),
        };
        match bare {
            Some(bare) if ServerName::try_from(bare).is_ok() => {
                let authorization = user_info.map(basic).transpose()?;
                Ok(Self { host: bare.to_ascii_lowercase().into(), port, authorization })
            }
            Some(_) | None => Err("its host is not a host name or address"),
        }
    }

    /// The host to resolve; no brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Returns whether a user name or password is sent to the proxy.
    pub const fn has_credentials(&self) -> bool {
        self.authorization.is_some()
    }

    /// Asks for a tunnel to `authority` (`host:port`, always with its port) over a fresh connection to the proxy.
    pub(super) async fn tunnel(&self, stream: TcpStream, authority: &str) -> Result<TcpStream, ProxyError> {
        let mut builder = http1::Builder::new();
        builder.max_buf_size(MOST_HEAD);
        let (mut sender, connection) = builder.handshake(TokioIo::new(stream)).await?;
        let mut ending = pin!(connection.without_shutdown());
        let mut answering = pin!(sender.send_request(self.request(authority)?));
        let mut ended = None;
        let status = loop {
            tokio::select! {
                answered = &mut answering => break answered?.status(),
                end = &mut ending, if ended.is_none() => ended = Some(end),
            }
        };
        if !status.is_success() {
            return Err(ProxyError::Answered(status));
        }
        let parts = match ended {
            Some(ended) => ended?,
            None => ending.await?,
        };
        // In TLS the client speaks first: bytes that are already here do not come from the provider.
        if !parts.read_buf.is_empty() {
            return Err(ProxyError::Intruded);
        }
        Ok(parts.io.into_inner())
    }

    fn request(&self, authority: &str) -> Result<Request<Empty<Bytes>>, ProxyError> {
        let mut request = Request::new(Empty::new());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = Uri::builder().authority(authority).build().map_err(|_| ProxyError::MalformedHost)?;
        let headers = request.headers_mut();
        headers.insert(HOST, HeaderValue::try_from(authority).map_err(|_| ProxyError::MalformedHost)?);
        if let Some(authorization) = &self.authorization {
            headers.insert(PROXY_AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }
}

/// `Basic` credentials (RFC 7617) from a URL's user information.
fn basic(user_info: &str) -> Result<HeaderValue, &'static str> {
    let (user, password) = user_info.split_once(':').unwrap_or((user_info, ""));
    let user: Vec<u8> = percent_decode_str(user).collect();
    if user.contains(&b':') {
        return Err("a user name of Basic credentials has no `:`");
    }
    let mut pair = user;
    pair.push(b':');
    pair.extend(percent_decode_str(password));
    if pair.iter().any(u8::is_ascii_control) {
        return Err("user name and password have no control characters");
    }
    let value = HeaderValue::try_from(format!("Basic {}", BASE64_STANDARD.encode(pair)));
    let mut value = value.map_err(|_| "these credentials cannot be sent")?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream::race::tests::converse;

    #[test]
    fn a_proxys_url_is_taken_apart_and_its_password_never_shown() {
        let proxy = ForwardProxy::parse("http://us%65r:p%40ss:w@Corp-Proxy:8080/").unwrap();
        assert_eq!((proxy.host(), proxy.port()), ("corp-proxy", 8080));
        let header = proxy.authorization.clone().unwrap();
        assert_eq!(header, format!("Basic {}", BASE64_STANDARD.encode("user:p@ss:w")));
        let shown = format!("{proxy:?}");
        assert!(!shown.contains("p@ss") && !shown.contains(&BASE64_STANDARD.encode("user:p@ss:w")), "{shown}");
        let plain = ForwardProxy::parse("HTTP://[::1]").unwrap();
        assert_eq!((plain.host(), plain.port(), plain.has_credentials()), ("::1", 80, false));
    }

    #[test]
    fn what_is_no_proxys_url_is_refused_with_the_reason() {
        for (text, reason) in [
            ("corp-proxy:8080", "write `http://"),
            ("socks5://corp-proxy", "write `http://"),
            ("https://corp-proxy", "plain HTTP"),
            ("http://", "host"),
            ("http://u:p@", "host"),
            ("http://:8080", "host"),
            ("http://corp proxy:1", "host"),
            ("http://[::g]:1", "host"),
            ("http://a:b:1", "host"),
            ("http://corp:0", "port"),
            ("http://corp:65536", "port"),
            ("http://corp:1/path", "no path"),
            ("http://u:p/q@corp:1?x", "no path"),
            ("http://a%3Ab:p@corp:1", "no `:`"),
            ("http://u:p%0d%0a@corp:1", "control"),
        ] {
            let error = ForwardProxy::parse(text).expect_err(text);
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    /// Runs a proxy that sends this response to any request. Also returns the request that it received.
    async fn answered(answer: &'static [u8], more: bool) -> (Result<TcpStream, ProxyError>, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let serving = tokio::task::spawn_local(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") {
                asked.push(stream.read_u8().await.unwrap());
            }
            stream.write_all(answer).await.unwrap();
            let mut echo = [0; 4];
            if more && stream.read_exact(&mut echo).await.is_ok() {
                stream.write_all(&echo).await.unwrap();
            }
            String::from_utf8(asked).unwrap()
        });
        let proxy = ForwardProxy::parse("http://user:pass@proxy:1").unwrap();
        let tunnel = proxy.tunnel(stream, "bank.example:443").await;
        let tunnel = match tunnel {
            Ok(mut tunnel) if more => {
                tunnel.write_all(b"ping").await.unwrap();
                let mut back = [0; 4];
                tunnel.read_exact(&mut back).await.unwrap();
                assert_eq!(&back, b"ping");
                Ok(tunnel)
            }
            other => other,
        };
        (tunnel, serving.await.unwrap())
    }

    #[test]
    fn a_tunnel_is_asked_for_by_host_and_port_with_credentials() {
        let (tunnel, asked) = converse(answered(b"HTTP/1.0 200 Connection established\r\nVia: x\r\n\r\n", true));
        assert!(tunnel.is_ok());
        let asked = asked.to_ascii_lowercase();
        assert!(asked.starts_with("connect bank.example:443 http/1.1\r\n"), "{asked}");
        assert!(asked.contains("\r\nhost: bank.example:443\r\n"), "{asked}");
        let credentials = BASE64_STANDARD.encode("user:pass").to_ascii_lowercase();
        assert!(asked.contains(&format!("\r\nproxy-authorization: basic {credentials}\r\n")), "{asked}");
    }

    #[test]
    fn a_refusal_says_its_status_and_what_to_do() {
        for (answer, reported) in [
            (&b"HTTP/1.1 407 No\r\nContent-Length: 3\r\n\r\nno\n"[..], "407 to CONNECT: it wants other credentials"),
            (b"HTTP/1.1 403 No\r\nConnection: close\r\n\r\n", "403 to CONNECT: it does not allow"),
            (b"HTTP/1.1 502 No\r\nContent-Length: 0\r\n\r\n", "502 to CONNECT: it cannot reach"),
            (b"HTTP/1.1 302 No\r\nLocation: http://x\r\n\r\n", "302 to CONNECT: it gives no tunnel"),
        ] {
            let (tunnel, _) = converse(answered(answer, false));
            let error = tunnel.expect_err(reported).to_string();
            assert!(error.contains(reported), "{error}");
        }
    }

    #[test]
    fn bytes_before_tls_and_what_is_no_http_are_errors() {
        let (tunnel, _) = converse(answered(b"HTTP/1.1 200 OK\r\n\r\n\x16\x03\x03", false));
        assert!(matches!(tunnel, Err(ProxyError::Intruded)), "{tunnel:?}");
        let (tunnel, _) = converse(answered(b"SSH-2.0-OpenSSH_9\r\n", false));
        assert!(matches!(tunnel, Err(ProxyError::Broken(_))), "{tunnel:?}");
        let (tunnel, _) = converse(answered(b"", false));
        assert!(matches!(tunnel, Err(ProxyError::Broken(_))), "{tunnel:?}");
    }
}
