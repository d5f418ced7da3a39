//! The forward listener that `exec`, `env` and `ca` use: its address, its CA, and the hosts that are routed there.
//!
//! The config is the proxy's own, read for its names alone ([`ConfigSketch`]). Code that starts a listener for one command
//! fills in a [`Gateway`] by hand.

use std::io::{self, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueHint};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use rustls::pki_types::CertificateDer;
use secrecy::SecretString;
use zeroize::Zeroizing;

use super::config_sketch::ConfigSketch;
use crate::cli::{complain, config_path};
use crate::config::{Files, MachineFiles};
use crate::tls::certificates;

/// A listener on this machine answers at once; one elsewhere soon enough.
const PATIENCE: Duration = Duration::from_secs(2);

/// The arguments that select the forward listener and the client.
#[derive(Args, Debug)]
pub struct ForwardArguments {
    /// Path of the config file; default: what COUNTERSIGN_CONFIG names, or proxy.toml, if it exists
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The client to be; its key is taken from `--key-file` or COUNTERSIGN_KEY, or asked for
    #[arg(long, value_name = "NAME")]
    pub client: Option<String>,
    /// A file that holds the client's key and nothing else
    #[arg(long, value_name = "FILE")]
    pub key_file: Option<PathBuf>,
    /// Say nothing of what the command may stumble over, nor of what the config warns of
    #[arg(short, long)]
    pub quiet: bool,
    /// URL of the forward listener; default: the address in the config
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    pub proxy: Option<String>,
    /// The CA that it shows, PEM; default: the one in the config
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

impl ForwardArguments {
    /// The key of the client: in the file that is named, or else in COUNTERSIGN_KEY. The error is for a person.
    pub fn key(&self) -> Result<Option<SecretString>, String> {
        let Some(path) = &self.key_file else {
            return Ok(MachineFiles.env("COUNTERSIGN_KEY").filter(|key| !key.is_empty()).map(SecretString::from));
        };
        let bytes = MachineFiles.read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let bytes = Zeroizing::new(bytes);
        let text = std::str::from_utf8(&bytes).map(str::trim).unwrap_or_default();
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(format!("{} holds no key: it is one line of letters, digits and signs", path.display()));
        }
        Ok(Some(SecretString::from(text)))
    }

    /// Says what the user may stumble over, unless nothing is to be said.
    pub fn remark(&self, what: &str) {
        if !self.quiet {
            complain(&format!("note: {what}"));
        }
    }

    /// The config file: the one that is named, or the usual one if it is there.
    pub fn config(&self) -> Option<PathBuf> {
        let named = self.config.clone().or_else(config_path::named);
        named.or_else(|| Some(config_path::usual()).filter(|path| path.exists()))
    }
}

/// A forward listener, ready to be used by a command.
#[derive(Debug)]
pub struct Gateway {
    /// `http`, or `https` for a listener with TLS of its own.
    pub scheme: &'static str,
    /// Its host, IPv6 in brackets.
    pub host: String,
    pub port: u16,
    /// The CA's certificate, and the chain above it.
    pub ca: Vec<CertificateDer<'static>>,
    /// Hosts with a route; never to be reached around the proxy.
    pub routed: Vec<String>,
    /// Name and key of the client; absent: the listener knows the caller by other means.
    pub credentials: Option<(String, SecretString)>,
}

impl Gateway {
    /// Finds the listener that the arguments and the config speak of, and who the caller is to it. The error is for a
    /// person.
    pub fn find(through: &ForwardArguments) -> Result<Self, String> {
        let (gateway, clients) = Self::locate(through)?;
        gateway.identified(through, &clients)
    }

    /// Adds the credentials of this client; its key is read from COUNTERSIGN_KEY, or asked for.
    pub fn identified(self, through: &ForwardArguments, clients: &[String]) -> Result<Self, String> {
        let key = through.key()?;
        Ok(Self { credentials: credentials(through.client.as_deref(), clients, key)?, ..self })
    }

    /// Finds the listener alone, and the clients that the config names.
    pub fn locate(through: &ForwardArguments) -> Result<(Self, Vec<String>), String> {
        let config = through.config();
        let sketch = match &config {
            Some(path) => ConfigSketch::read(path)?,
            None if through.ca.is_some() && through.proxy.is_some() => ConfigSketch::default(),
            None => {
                let why = "there is no proxy.toml here; name the config file with `-c`".to_owned();
                return Err(config_path::with_first_config(why, &config_path::usual()));
            }
        };
        let shown = config.unwrap_or_default();
        let forward = sketch.forward.as_ref();
        let url = through.proxy.clone().or_else(|| forward.map(|forward| forward.url.clone())).ok_or_else(|| {
            format!("{} has no `[[listener]]` with `mode = \"forward\"`, so there is no proxy to use", shown.display())
        })?;
        let ca = through.ca.clone().or_else(|| forward?.ca_cert.clone()).ok_or_else(|| {
            format!("the forward listener of {} has no `intercept`, so it shows no CA", shown.display())
        })?;
        let (scheme, host, port) = address(&url)?;
        let gateway = Self { scheme, host, port, ca: ca_file(&ca)?, credentials: None, routed: sketch.routed };
        Ok((gateway, sketch.clients))
    }

    /// Returns its address without credentials: `http://host:port`.
    pub fn url(&self) -> String {
        format!("{}://{}:{}", self.scheme, self.host, self.port)
    }

    /// Returns whether something accepts connections there.
    pub fn answers(&self) -> bool {
        let bare = self.host.trim_start_matches('[').trim_end_matches(']');
        let addresses = (bare, self.port).to_socket_addrs().into_iter().flatten();
        addresses.into_iter().any(|address| TcpStream::connect_timeout(&address, PATIENCE).is_ok())
    }
}

/// Reads a CA's certificate file. The error names it and says what to do.
pub fn ca_file(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let bytes = MachineFiles.read(path).map_err(|error| {
        let cure = "make a CA with `countersign ca new`, or name its certificate";
        format!("{} cannot be read: {error}; {cure}", path.display())
    })?;
    certificates(&bytes).map_err(|error| format!("{}: {error}", path.display()))
}

/// Splits `http://host:port` into scheme, host and port.
fn address(url: &str) -> Result<(&'static str, String, u16), String> {
    let wrong = || format!("`{url}` is not a proxy's address: write it like `http://127.0.0.1:3128`");
    let (scheme, rest) = url.split_once("://").ok_or_else(wrong)?;
    let scheme = match scheme {
        "http" => "http",
        "https" => "https",
        _ => return Err(wrong()),
    };
    let (host, port) = rest.trim_end_matches('/').rsplit_once(':').ok_or_else(wrong)?;
    let plain = !host.is_empty() && host.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._[]:".contains(&b));
    let port = port.parse().ok().filter(|port| *port != 0 && plain).ok_or_else(wrong)?;
    Ok((scheme, host.to_owned(), port))
}

/// Returns the name and key of the client that the command is to be. Without a name the only client of the config is
/// meant, if there is a key at all.
fn credentials(
    name: Option<&str>,
    known: &[String],
    key: Option<SecretString>,
) -> Result<Option<(String, SecretString)>, String> {
    let name = match (name, known) {
        (Some(name), known) => {
            if !known.is_empty() && !known.iter().any(|client| client == name) {
                let known = known.join(", ");
                return Err(format!("no client is called `{}`; there are: {known}", name.escape_debug()));
            }
            name.to_owned()
        }
        (None, [only]) if key.is_some() => only.clone(),
        (None, _) if key.is_some() => {
            return Err("there is a key, but whose it is is not said: use `--client NAME`".to_owned());
        }
        (None, _) => return Ok(None),
    };
    match key {
        Some(key) => Ok(Some((name, key))),
        None => {
            let key = ask(&name).map_err(|error| {
                format!("there is no key for `{name}`: set COUNTERSIGN_KEY, name a `--key-file`, or run this on a terminal ({error})")
            })?;
            Ok(Some((name, key)))
        }
    }
}

/// Asks on the terminal, without showing what is typed. Keys that would end this process are read as bytes, so that
/// the terminal is never left silent.
fn ask(name: &str) -> io::Result<SecretString> {
    let mut terminal = std::fs::OpenOptions::new().read(true).write(true).open("/dev/tty")?;
    let before = tcgetattr(&terminal)?;
    let mut silent = before.clone();
    silent.local_modes.remove(LocalModes::ECHO | LocalModes::ICANON | LocalModes::ISIG);
    // Silent before it asks: what is typed at once is neither shown nor flushed away.
    tcsetattr(&terminal, OptionalActions::Flush, &silent)?;
    let _shown_or_not = write!(terminal, "Key of {name}: ");
    let read = typed(&terminal);
    tcsetattr(&terminal, OptionalActions::Flush, &before)?;
    writeln!(terminal)?;
    read.map(|key| SecretString::from(key.as_str()))
}

/// One line of keys. Ctrl-C, Ctrl-D and Ctrl-\ give up; Backspace takes one back.
fn typed(terminal: impl io::Read) -> io::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(Vec::new());
    for byte in BufReader::new(terminal).bytes() {
        match byte? {
            b'\r' | b'\n' => break,
            0x03 | 0x04 | 0x1c => return Err(ErrorKind::Interrupted.into()),
            0x08 | 0x7f => drop(line.pop()),
            byte => line.push(byte),
        }
    }
    match std::str::from_utf8(&line) {
        Ok("") => Err(ErrorKind::UnexpectedEof.into()),
        Ok(key) => Ok(Zeroizing::new(key.to_owned())),
        Err(_) => Err(ErrorKind::InvalidData.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxys_address_is_taken_apart_or_refused() {
        assert_eq!(address("http://127.0.0.1:3128").expect("an address"), ("http", "127.0.0.1".to_owned(), 3128));
        assert_eq!(address("https://[::1]:8443/").expect("an address"), ("https", "[::1]".to_owned(), 8443));
        for text in ["127.0.0.1:3128", "socks5://127.0.0.1:1", "http://:1", "http://host", "http://a@b:1", "http://h:0"]
        {
            assert!(address(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_typed_key_ends_with_its_line_and_can_be_given_up() {
        let key = typed(&b"ab\x7fc\rd"[..]).expect("a key");
        assert_eq!(*key, "ac");
        for keys in [&b"ab\x03"[..], b"ab\x04", b"", b"\n", b"\xff\n"] {
            assert!(typed(keys).is_err(), "{keys:?}");
        }
    }

    #[test]
    fn a_key_is_read_from_its_file() {
        let path = std::env::temp_dir().join(format!("countersign-key-{}", std::process::id()));
        let through = ForwardArguments {
            config: None,
            client: None,
            key_file: Some(path.clone()),
            quiet: false,
            proxy: None,
            ca: None,
        };
        let read = |content: &str| {
            std::fs::write(&path, content).expect("written");
            through.key().map(|key| key.is_some())
        };
        assert_eq!(read("csk_abc\n"), Ok(true));
        assert!(read("\n").is_err_and(|why| why.contains("holds no key")) && read("a b").is_err());
        std::fs::remove_file(&path).expect("it goes");
        assert!(through.key().is_err_and(|why| why.contains("cannot be read")));
    }

    #[test]
    fn a_client_that_the_config_does_not_know_is_named_back() {
        let known = ["erp".to_owned(), "treasury".to_owned()];
        let error = credentials(Some("hr"), &known, None).expect_err("unknown");
        assert!(error.contains("`hr`") && error.contains("erp, treasury"), "{error}");
    }
}
