//! Listening sockets that another process opened, by the protocol of sd_listen_fds(3).
//!
//! `LISTEN_FDS` gives their number, from descriptor 3 on; `LISTEN_FDNAMES` their names; `LISTEN_PID` the process that
//! they are for. They come from a holder that outlives this process, such as systemd, or from the process that this one
//! succeeds ([`super::upgrade`]): a predecessor cannot know the successor's process ID in advance, so it sets no
//! `LISTEN_PID`, and adds a channel on which it waits for a message.

use std::env::{self, VarError};
use std::ffi::OsString;
use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf, absolute};

use listenfd::ListenFd;
use socket2::{Domain, Socket, Type};

use crate::config::Bind;

/// The name of the channel that a predecessor adds. No listener is called so.
pub const CHANNEL: &str = "countersign/ready";
/// Prefix of the name of a socket that a predecessor had opened itself, and that no other process holds.
pub const OWN: &str = "own/";
/// Message that is sent over the channel, in the words of sd_notify(3).
pub const READY: &[u8] = b"READY=1\n";
/// More listening sockets than anybody has.
const MOST: usize = 16_384;

/// The sockets that were handed to this process.
#[derive(Debug, Default)]
pub struct Inherited {
    sockets: Vec<Given>,
    predecessor: Option<Predecessor>,
    /// Reason for which no socket was taken, although some were offered.
    remark: Option<String>,
}

/// A socket that was handed to us.
#[derive(Debug)]
pub struct Given {
    /// Name of the socket, without [`OWN`].
    pub name: String,
    /// True if this process is the only holder of the socket once its predecessor has gone.
    pub own: bool,
    /// It listens, and does not block.
    pub socket: Socket,
    pub place: ListenAddress,
}

/// The address at which a socket listens.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ListenAddress {
    /// An IP address and TCP port.
    Tcp(SocketAddr),
    /// At a path, or at a name that is none.
    Unix(Option<PathBuf>),
}

/// The process that waits for us to take its place.
#[derive(Debug)]
pub struct Predecessor(UnixStream);

impl Predecessor {
    /// Tells it that we serve.
    pub fn relieve(mut self) -> io::Result<()> {
        self.0.write_all(READY)
    }
}

impl Inherited {
    /// Takes what the environment says. To be called before the process has threads, since the variables are removed.
    /// The error is for a person.
    pub fn from_env() -> Result<Self, String> {
        let Some(count) = variable("LISTEN_FDS")? else { return Ok(Self::default()) };
        let count: usize = count
            .parse()
            .ok()
            .filter(|count| *count <= MOST)
            .ok_or_else(|| format!("LISTEN_FDS is `{}`, which is no number of sockets", count.escape_debug()))?;
        if count == 0 {
            return Ok(Self::default());
        }
        let names = variable("LISTEN_FDNAMES")?;
        let names: Vec<&str> = names.as_deref().map_or_else(Vec::new, |names| names.split(':').collect());
        if !names.is_empty() && names.len() != count {
            return Err(format!("LISTEN_FDNAMES has {} names for {count} sockets; name all or none", names.len()));
        }
        let pid = variable("LISTEN_PID")?.filter(|pid| !pid.is_empty());
        let remark = match &pid {
            Some(pid) if pid.parse() == Ok(std::process::id()) => None,
            Some(pid) => Some(format!(
                "LISTEN_FDS is meant for process {}, and we are {}: its sockets are not taken; start countersign by \
                 `exec` where a script is in between",
                pid.escape_debug(),
                std::process::id()
            )),
            None if names.contains(&CHANNEL) => None,
            None => Some("LISTEN_FDS is set without LISTEN_PID: its sockets are not taken".to_owned()),
        };
        if remark.is_some() {
            return Ok(Self { remark, ..Self::default() });
        }
        let mut descriptors = ListenFd::from_env();
        let mut taken = Self::default();
        for index in 0..descriptors.len() {
            let name = names.get(index).copied().unwrap_or_default();
            let failed = |error: io::Error| {
                let number = index.saturating_add(3);
                format!("descriptor {number} (`{}`), handed over by LISTEN_FDS: {error}", name.escape_debug())
            };
            if name == CHANNEL {
                let (family, kind) = (Domain::UNIX.into(), Type::STREAM.into());
                let channel = descriptors.take_custom(index, family, kind, "channel").map_err(failed)?;
                taken.predecessor = channel.map(Predecessor);
            } else {
                taken.sockets.push(Given::take(&mut descriptors, index, name).map_err(failed)?);
            }
        }
        Ok(taken)
    }

    /// Takes the sockets that are meant for a listener: those that are called like it, or listen where it binds. None:
    /// it has to bind itself. The error is for a person.
    pub fn claim(&mut self, name: &str, bind: &Bind) -> Result<Vec<Given>, String> {
        let (claimed, others) = self.sockets.drain(..).partition(|given| given.is_for(name, bind));
        self.sockets = others;
        let claimed: Vec<Given> = claimed;
        for given in &claimed {
            match (&given.place, bind) {
                (ListenAddress::Tcp(_), Bind::Tcp(_)) | (ListenAddress::Unix(_), Bind::Unix(_)) => {}
                (ListenAddress::Tcp(_), Bind::Unix(_)) | (ListenAddress::Unix(_), Bind::Tcp(_)) => {
                    let place = &given.place;
                    return Err(format!("the inherited socket `{name}` is at {place}, and `bind` is {bind}"));
                }
            }
        }
        Ok(claimed)
    }

    /// Takes the connection to the predecessor that waits for this process, if there is one.
    pub fn predecessor(&mut self) -> Option<Predecessor> {
        self.predecessor.take()
    }

    /// Closes the sockets that no listener has claimed, and logs a warning for each.
    pub fn close_the_rest(&mut self) {
        if let Some(remark) = self.remark.take() {
            tracing::warn!("{remark}");
        }
        for given in self.sockets.drain(..) {
            tracing::warn!(
                socket = %given.name, address = %given.place,
                "an inherited socket belongs to no listener, and is closed: give one this `bind`, or call the socket like \
                 a listener (FileDescriptorName=)"
            );
        }
    }
}

impl Given {
    fn take(descriptors: &mut ListenFd, index: usize, name: &str) -> io::Result<Self> {
        let socket: Option<Socket> = match descriptors.take_tcp_listener(index) {
            Ok(socket) => socket.map(Into::into),
            Err(_) => descriptors.take_unix_listener(index).map_err(|_| wrong_kind())?.map(Into::into),
        };
        Self::of(socket.ok_or_else(wrong_kind)?, name)
    }

    fn of(socket: Socket, name: &str) -> io::Result<Self> {
        if !socket.is_listener()? {
            return Err(wrong_kind());
        }
        socket.set_nonblocking(true)?;
        let address = socket.local_addr()?;
        let place = match address.as_socket() {
            Some(address) => ListenAddress::Tcp(address),
            None => ListenAddress::Unix(address.as_pathname().map(Path::to_owned)),
        };
        let (own, name) = name.strip_prefix(OWN).map_or((false, name), |name| (true, name));
        Ok(Self { name: name.to_owned(), own, socket, place })
    }

    /// Returns whether the socket is meant for this listener. The same address always matches, and so does a name that
    /// a holder such as systemd has given. A predecessor did not choose the names: its own socket matches by name only
    /// if `bind` has port 0 at the same IP address, so that a changed `bind` is heeded.
    fn is_for(&self, name: &str, bind: &Bind) -> bool {
        let named = self.name == fd_name(name);
        match (&self.place, bind) {
            (ListenAddress::Tcp(here), Bind::Tcp(there)) => {
                here == there || named && (!self.own || here.ip() == there.ip() && there.port() == 0)
            }
            (ListenAddress::Unix(Some(here)), Bind::Unix(there)) => same(here, there) || named && !self.own,
            (ListenAddress::Unix(None), Bind::Unix(_))
            | (ListenAddress::Tcp(_), Bind::Unix(_))
            | (ListenAddress::Unix(_), Bind::Tcp(_)) => named && !self.own,
        }
    }
}

impl std::fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ListenAddress::Tcp(address) => address.fmt(f),
            ListenAddress::Unix(Some(path)) => write!(f, "unix:{}", path.display()),
            ListenAddress::Unix(None) => f.write_str("a nameless Unix socket"),
        }
    }
}

/// A listener's name as `LISTEN_FDNAMES` can hold it: colons part the names there.
pub fn fd_name(listener: &str) -> String {
    listener.replace(|c: char| c == ':' || c.is_control(), "_")
}

fn same(here: &Path, there: &Path) -> bool {
    here == there || absolute(here).ok().is_some_and(|here| absolute(there).is_ok_and(|there| here == there))
}

fn wrong_kind() -> io::Error {
    let text = "it is no listening stream socket; hand over what `ListenStream=` makes, with `Accept=no`";
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

/// A variable of the environment, as text.
fn variable(name: &str) -> Result<Option<String>, String> {
    match env::var(name) {
        Ok(text) => Ok(Some(text)),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(format!("{name} is no text")),
    }
}

/// Lists the variables that a successor must not find in its environment, because they are about this process.
pub fn about_us() -> impl Iterator<Item = OsString> {
    ["LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_FDS_FIRST_FD", "LISTEN_PID", "LISTEN_PIDFDID", "WATCHDOG_PID"]
        .into_iter()
        .map(OsString::from)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    use super::*;

    fn given(name: &str) -> (Given, SocketAddr) {
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        (Given::of(socket.into(), name).unwrap(), address)
    }

    fn anywhere() -> Bind {
        Bind::Tcp("127.0.0.1:0".parse().unwrap())
    }

    #[test]
    fn a_holders_socket_goes_by_name_or_address() {
        let ((a, _), (b, at), (c, _)) = (given("gateway"), given("countersign.socket"), given("other"));
        let mut inherited = Inherited { sockets: vec![a, b, c], ..Inherited::default() };
        assert_eq!(inherited.claim("gateway", &anywhere()).unwrap().len(), 1);
        assert_eq!(inherited.claim("gateway", &anywhere()).unwrap().len(), 0, "it is taken once");
        assert_eq!(inherited.claim("callback", &Bind::Tcp(at)).unwrap().len(), 1);
        assert_eq!(inherited.sockets.len(), 1);
        inherited.close_the_rest();
        assert_eq!(inherited.sockets.len(), 0);
    }

    #[test]
    fn a_predecessors_sockets_are_all_taken_but_never_for_another_address() {
        let ((a, at), (b, _)) = (given("own/gateway"), given("own/gateway"));
        let elsewhere = SocketAddr::new(at.ip(), 1);
        let mut inherited = Inherited { sockets: vec![a, b], ..Inherited::default() };
        assert!(inherited.claim("gateway", &Bind::Tcp(elsewhere)).unwrap().is_empty());
        assert!(inherited.claim("other", &anywhere()).unwrap().is_empty());
        assert_eq!(inherited.claim("gateway", &anywhere()).unwrap().len(), 2);
        let (c, at) = given("own/gateway");
        let mut inherited = Inherited { sockets: vec![c], ..Inherited::default() };
        assert_eq!(inherited.claim("renamed", &Bind::Tcp(at)).unwrap().len(), 1);
    }

    #[test]
    fn a_unix_socket_goes_by_its_path_and_never_for_an_address() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.sock");
        let open = |name: &str| {
            let _ = std::fs::remove_file(&path);
            Given::of(UnixListener::bind(&path).unwrap().into(), name).unwrap()
        };
        let mut inherited = Inherited { sockets: vec![open("")], ..Inherited::default() };
        assert!(inherited.claim("app", &Bind::Unix(dir.path().join("y.sock"))).unwrap().is_empty());
        assert_eq!(inherited.claim("app", &Bind::Unix(path.clone())).unwrap().len(), 1);
        let mut inherited = Inherited { sockets: vec![open("app")], ..Inherited::default() };
        let error = inherited.claim("app", &anywhere()).unwrap_err();
        assert!(error.contains("x.sock") && error.contains("127.0.0.1:0"), "{error}");
    }

    #[test]
    fn what_does_not_listen_is_refused() {
        let datagrams = Socket::new(Domain::IPV4, Type::DGRAM, None).unwrap();
        let connected = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        for socket in [datagrams, connected] {
            assert!(Given::of(socket, "x").unwrap_err().to_string().contains("ListenStream="));
        }
    }

    #[test]
    fn names_that_are_addresses_survive_the_list() {
        assert_eq!(fd_name("127.0.0.1:8080"), "127.0.0.1_8080");
        let (mut a, _) = given("x");
        a.name = "127.0.0.1_0".to_owned();
        a.own = true;
        assert!(a.is_for("127.0.0.1:0", &anywhere()));
    }
}
