//! `countersign health`: for container probes. One `GET /readyz` at the admin door of a running instance.

use std::fs;
use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use super::{complain, print};

/// A door on loopback that takes longer than this is not healthy.
const PATIENCE: Duration = Duration::from_secs(3);

/// Asks the admin door, at `admin` or where the config says. 0: ready, 1: not, 2: nobody knows where to ask.
pub fn run(admin: Option<&str>, config: &Path) -> ExitCode {
    let address = match address(admin, config) {
        Ok(address) => address,
        Err(why) => {
            complain(&why);
            return ExitCode::from(2);
        }
    };
    match ask(address) {
        Ok(200) => {
            print("ready\n");
            ExitCode::SUCCESS
        }
        Ok(503) => {
            complain(&format!("{address} is not ready"));
            ExitCode::from(1)
        }
        Ok(status) => {
            complain(&format!("{address} answers {status} to /readyz; is it the admin door?"));
            ExitCode::from(1)
        }
        Err(error) => {
            complain(&format!("{address} does not answer: {error}; is it running?"));
            ExitCode::from(1)
        }
    }
}

/// Where the admin door is: at `admin`, or where the config says.
pub(super) fn address(admin: Option<&str>, config: &Path) -> Result<SocketAddr, String> {
    admin.map_or_else(|| configured(config), named)
}

/// The address in `http://host:port`, or in `host:port`.
fn named(url: &str) -> Result<SocketAddr, String> {
    let wrong = || format!("`{}` is not the URL of an admin door: write `http://127.0.0.1:9901`", url.escape_debug());
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return Err(wrong()),
        None => url,
    };
    let mut found = rest.trim_end_matches('/').to_socket_addrs().map_err(|_| wrong())?;
    found.next().map(reachable).ok_or_else(wrong)
}

/// `[admin] bind` of a config. The rest of the file is not looked at: a probe needs no secrets.
fn configured(path: &Path) -> Result<SocketAddr, String> {
    let shown = path.display();
    let text =
        fs::read_to_string(path).map_err(|error| format!("{shown} cannot be read: {error}; or use `--admin URL`"))?;
    let table: toml::Table = text.parse().map_err(|_| format!("{shown} is not TOML; run `countersign check`"))?;
    let bind = table.get("admin").and_then(|admin| admin.get("bind")).and_then(toml::Value::as_str);
    let bind = bind.ok_or_else(|| format!("{shown} has no [admin] with a `bind`; add it, or use `--admin URL`"))?;
    match bind.parse::<SocketAddr>() {
        Ok(address) if address.port() == 0 => {
            Err(format!("{shown} lets the admin door take any port; use `--admin URL`"))
        }
        Ok(address) => Ok(reachable(address)),
        Err(_) => Err(format!("`{}` in {shown} is not an address; run `countersign check`", bind.escape_debug())),
    }
}

/// Where somebody on this machine reaches what is bound to every address.
fn reachable(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => SocketAddr::new(Ipv4Addr::LOCALHOST.into(), address.port()),
        IpAddr::V6(ip) if ip.is_unspecified() => SocketAddr::new(Ipv6Addr::LOCALHOST.into(), address.port()),
        IpAddr::V4(_) | IpAddr::V6(_) => address,
    }
}

/// The status of `GET /readyz`.
fn ask(address: SocketAddr) -> io::Result<u16> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let request = format!("GET /readyz HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    // "HTTP/1.1 200"
    let mut line = [0; 12];
    stream.read_exact(&mut line)?;
    let status = line.strip_prefix(b"HTTP/1.1 ").and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
    status.ok_or_else(|| io::Error::other("that is not HTTP"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_admin_door_is_named_with_or_without_its_scheme() {
        for text in ["http://127.0.0.1:9901", "http://127.0.0.1:9901/", "127.0.0.1:9901", "0.0.0.0:9901"] {
            assert_eq!(named(text), Ok("127.0.0.1:9901".parse().unwrap()), "{text}");
        }
        assert_eq!(named("[::]:1"), Ok("[::1]:1".parse().unwrap()));
        for text in ["", "https://127.0.0.1:9901", "127.0.0.1", "http://", "unix:/run/x"] {
            assert!(named(text).is_err(), "{text}");
        }
    }
}
