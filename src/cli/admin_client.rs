//! The client of the admin listener for commands: one request on one connection, then the response.
//!
//! If the config gives the listener's address, it also gives its certificate: only this certificate is trusted,
//! regardless of the names in it. A token is never sent without TLS, except on this machine.

use std::fs;
use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueHint};
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, StreamOwned};
use serde_json::Value;

use super::config_path;
use super::event_stream::EventStream;
use crate::base::origin::BaseUrl;
use crate::config::{MachineFiles, sketch};
use crate::tls::{ClientTls, client, pinned};

/// A bank is asked meanwhile.
const PATIENCE: Duration = Duration::from_secs(30);
/// A stream of events has a comment every 15 seconds; a longer silence is the end of the connection.
const SILENCE: Duration = Duration::from_secs(40);
/// More of an answer is not read.
const MOST: u64 = 16 << 20;
/// Name of the environment variable that holds the token to send.
pub(super) const TOKEN: &str = "COUNTERSIGN_ADMIN_TOKEN";

/// The location of the admin API. The token to send is in COUNTERSIGN_ADMIN_TOKEN.
#[derive(Args, Debug)]
pub struct AdminClient {
    /// Its admin listener, as in http://127.0.0.1:9901 or https://host:9901; default: where the config says
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url, conflicts_with = "config")]
    admin: Option<String>,
    /// The CA of its certificate, PEM; default: the certificate in the config, or else the system's CAs
    #[arg(long, value_name = "FILE")]
    admin_ca: Option<PathBuf>,
    /// Path of the config file; COUNTERSIGN_CONFIG names another default
    #[arg(short, long, value_name = "FILE", default_value_os_t = config_path::usual())]
    config: PathBuf,
    /// Print the answer as JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// The reason for which there is no successful response: the exit code, and the message.
pub(super) type AdminCallError = (u8, String);

impl AdminClient {
    /// The admin API at this URL, or where the config says.
    pub(super) const fn new(admin: Option<String>, admin_ca: Option<PathBuf>, config: PathBuf) -> Self {
        Self { admin, admin_ca, config, json: true }
    }

    /// Sends a request and parses the JSON of a successful response. Exit code 1: it was refused; 2: no admin listener
    /// was reached.
    pub(super) fn ask(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, AdminCallError> {
        let place = AdminAddress::find(self.admin.as_deref(), &self.config, self.admin_ca.as_deref())
            .map_err(|why| (2, why))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let answer = place.exchange(method, path, &body, PATIENCE);
        let (status, answer) =
            answer.map_err(|error| (2, format!("{} does not answer: {error}; is it running?", place.address)))?;
        if (200..300).contains(&status) {
            let read = serde_json::from_str(&answer).ok();
            return read.ok_or_else(|| (2, format!("{} answers no JSON; is it the admin listener?", place.address)));
        }
        Err(refusal(status, &answer))
    }

    /// Begins a stream of events. Errors are as in [`AdminClient::ask`].
    pub(super) fn events(&self, path: &str) -> Result<EventStream, AdminCallError> {
        let place = AdminAddress::find(self.admin.as_deref(), &self.config, self.admin_ca.as_deref())
            .map_err(|why| (2, why))?;
        let (status, stream) = place
            .open(path, SILENCE)
            .map_err(|error| (2, format!("{} does not answer: {error}; is it running?", place.address)))?;
        if (200..300).contains(&status) { Ok(stream) } else { Err(refusal(status, &stream.rest())) }
    }
}

/// The error of a response that is no success.
fn refusal(status: u16, answer: &str) -> AdminCallError {
    let read: Option<Value> = serde_json::from_str(answer).ok();
    let detail = read.as_ref().and_then(|read| read.get("detail")?.as_str()).unwrap_or(answer.trim());
    (1, if status == 401 { format!("{detail}: put it into {TOKEN}") } else { detail.to_owned() })
}

/// The address of an admin listener, with its TLS settings and the token to send.
pub(super) struct AdminAddress {
    pub(super) address: SocketAddr,
    /// Value of the request's `Host` field.
    authority: String,
    tls: Option<(Arc<ClientConfig>, ServerName<'static>)>,
    token: Option<String>,
}

impl AdminAddress {
    /// The admin listener at this URL, or where the config says.
    pub(super) fn find(admin: Option<&str>, config: &Path, ca: Option<&Path>) -> Result<Self, String> {
        let mut place = admin.map_or_else(|| configured(config, ca), |url| named(url, ca))?;
        place.token = std::env::var(TOKEN).ok().filter(|token| !token.is_empty());
        if place.token.as_ref().is_some_and(|token| !token.bytes().all(|byte| byte.is_ascii_graphic())) {
            return Err(format!(
                "what is in {TOKEN} cannot be a token: it has spaces or signs that no header may have"
            ));
        }
        if place.token.is_some() && place.tls.is_none() && !place.address.ip().to_canonical().is_loopback() {
            return Err(format!("a token never travels without TLS: write `https://{}`", place.authority));
        }
        Ok(place)
    }

    /// One request and its answer: status and body.
    pub(super) fn exchange(
        &self,
        method: &str,
        path: &str,
        body: &str,
        patience: Duration,
    ) -> io::Result<(u16, String)> {
        let request = self.request(method, path, body);
        match self.connect(patience)? {
            (stream, None) => converse(stream, &request),
            (stream, Some(session)) => converse(StreamOwned::new(session, stream), &request),
        }
    }

    /// Sends a request whose response goes on. Returns the status and the stream; a silence longer than `patience` breaks
    /// it off.
    fn open(&self, path: &str, patience: Duration) -> io::Result<(u16, EventStream)> {
        let request = self.request("GET", path, "");
        match self.connect(patience)? {
            (mut stream, None) => {
                stream.write_all(request.as_bytes())?;
                EventStream::begin(stream)
            }
            (stream, Some(session)) => {
                let mut stream = StreamOwned::new(session, stream);
                stream.write_all(request.as_bytes())?;
                stream.flush()?;
                EventStream::begin(stream)
            }
        }
    }

    fn connect(&self, patience: Duration) -> io::Result<(TcpStream, Option<ClientConnection>)> {
        let stream = TcpStream::connect_timeout(&self.address, patience)?;
        stream.set_read_timeout(Some(patience))?;
        stream.set_write_timeout(Some(patience))?;
        let session = self.tls.as_ref().map(|(tls, name)| ClientConnection::new(tls.clone(), name.clone()));
        Ok((stream, session.transpose().map_err(io::Error::other)?))
    }

    /// A request as it is written on the wire.
    fn request(&self, method: &str, path: &str, body: &str) -> String {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n", self.authority);
        if let Some(token) = &self.token {
            head += &format!("Authorization: Bearer {token}\r\n");
        }
        if !body.is_empty() {
            head += "Content-Type: application/json\r\n";
        }
        format!("{head}Content-Length: {}\r\n\r\n{body}", body.len())
    }
}

fn converse(mut stream: impl Read + Write, request: &str) -> io::Result<(u16, String)> {
    stream.write_all(request.as_bytes())?;
    stream.flush()?;
    let mut answer = Vec::new();
    match stream.take(MOST).read_to_end(&mut answer) {
        // An end without a farewell; the length below says whether it was the end.
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
        read => drop(read?),
    }
    let wrong = || io::Error::other("that is not HTTP");
    let answer = String::from_utf8(answer).map_err(|_| wrong())?;
    let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(wrong)?;
    let status = head.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok()).ok_or_else(wrong)?;
    let length =
        head.lines().filter_map(|line| line.split_once(':')).find(|(n, _)| n.eq_ignore_ascii_case("content-length"));
    if length.is_some_and(|(_, length)| length.trim().parse() != Ok(body.len())) {
        return Err(io::Error::other("the answer broke off"));
    }
    Ok((status, body.to_owned()))
}

/// The admin listener in `http://host:port`, `https://host:port` or `host:port`.
fn named(url: &str, ca: Option<&Path>) -> Result<AdminAddress, String> {
    let wrong =
        || format!("`{}` is not the URL of an admin listener: write `http://127.0.0.1:9901`", url.escape_debug());
    if url.get(..8).is_some_and(|scheme| scheme.eq_ignore_ascii_case("https://")) {
        let url = BaseUrl::parse(url).map_err(|error| format!("{}: {error}", wrong()))?;
        let address = (url.bare_host(), url.port()).to_socket_addrs().ok().and_then(|mut found| found.next());
        let address = address.ok_or_else(|| format!("there is no host `{}`", url.bare_host()))?;
        return Ok(AdminAddress {
            address,
            authority: url.authority(),
            tls: Some((trusting(ca)?, url.server_name().clone())),
            token: None,
        });
    }
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return Err(wrong()),
        None => url,
    };
    let mut found = rest.trim_end_matches('/').to_socket_addrs().map_err(|_| wrong())?;
    let address = found.next().map(reachable).ok_or_else(wrong)?;
    Ok(AdminAddress { address, authority: address.to_string(), tls: None, token: None })
}

/// TLS with the CA in this file, or with the system's.
fn trusting(ca: Option<&Path>) -> Result<Arc<ClientConfig>, String> {
    let pem = ca.map(|path| fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display())));
    let pem = pem.transpose()?;
    let config = client(ClientTls { ca: pem.as_deref(), ..ClientTls::default() });
    config.map_err(|error| format!("{}: {error}", ca.unwrap_or(Path::new("the system's CAs")).display()))
}

/// `[admin]` of a config. The rest of the file is not looked at: who asks needs no secrets.
fn configured(path: &Path, ca: Option<&Path>) -> Result<AdminAddress, String> {
    let shown = path.display();
    let named = |error| config_path::with_first_config(format!("{error}; or use `--admin URL`"), path);
    let table = sketch(path, &MachineFiles).map_err(named)?;
    let admin = table.get("admin");
    let bind = admin.and_then(|admin| admin.get("bind")).and_then(toml::Value::as_str);
    let bind = bind.ok_or_else(|| format!("{shown} has no [admin] with a `bind`; add it, or use `--admin URL`"))?;
    let address = match bind.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            return Err(format!("{shown} lets the admin listener take any port; use `--admin URL`"));
        }
        Ok(address) => reachable(address),
        Err(_) => {
            return Err(format!("`{}` in {shown} is not an address; run `countersign check`", bind.escape_debug()));
        }
    };
    let tls = match (admin.and_then(|admin| admin.get("tls")), ca) {
        (None, _) => None,
        (Some(_), Some(ca)) => Some(trusting(Some(ca))?),
        (Some(tls), None) => Some(own_certificate(tls, path)?),
    };
    let tls = tls.map(|tls| (tls, ServerName::from(address.ip())));
    Ok(AdminAddress { address, authority: address.to_string(), tls, token: None })
}

/// The certificate that the config gives the admin listener.
fn own_certificate(tls: &toml::Value, config: &Path) -> Result<Arc<ClientConfig>, String> {
    let cert = tls.get("cert").and_then(toml::Value::as_str);
    let cert =
        cert.ok_or_else(|| format!("{} names no certificate of [admin]; use `--admin-ca FILE`", config.display()))?;
    let path = config.parent().unwrap_or(Path::new("")).join(cert);
    let pem = fs::read(&path)
        .map_err(|error| format!("{} cannot be read: {error}; or use `--admin-ca FILE`", path.display()))?;
    pinned(&pem).map_err(|error| format!("{}: {error}", path.display()))
}

/// Replaces an unspecified address by loopback, at which a client on this machine reaches it.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_listener_is_named_with_or_without_its_scheme() {
        let at = |text: &str| named(text, None).map(|place| (place.address, place.tls.is_some()));
        for text in ["http://127.0.0.1:9901", "http://127.0.0.1:9901/", "127.0.0.1:9901", "0.0.0.0:9901"] {
            assert_eq!(at(text), Ok(("127.0.0.1:9901".parse().unwrap(), false)), "{text}");
        }
        assert_eq!(at("[::]:1"), Ok(("[::1]:1".parse().unwrap(), false)));
        assert_eq!(at("https://127.0.0.1:9901"), Ok(("127.0.0.1:9901".parse().unwrap(), true)));
        for text in ["", "127.0.0.1", "http://", "unix:/run/x", "https://", "ftp://127.0.0.1:1"] {
            assert!(at(text).is_err(), "{text}");
        }
    }

    #[test]
    fn an_answer_that_breaks_off_is_none() {
        struct Wire<'a>(&'a [u8]);
        impl Read for Wire<'_> {
            fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
                self.0.read(into)
            }
        }
        impl Write for Wire<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let whole = converse(Wire(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"), "");
        assert_eq!(whole.unwrap(), (200, "{}".to_owned()));
        for bad in [&b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}"[..], b"SSH-2.0-x\r\n", b"", b"\xff\xfe"] {
            assert!(converse(Wire(bad), "").is_err());
        }
    }
}
