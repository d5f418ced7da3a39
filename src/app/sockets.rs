//! The listening sockets of the process: inherited or bound, spread over the workers, handed on or closed.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

use socket2::{Domain, Protocol, Socket, Type};
use thiserror::Error;

use super::inherited::{Given, Inherited, ListenAddress, OWN, Predecessor, fd_name};
use super::unix_socket::{self, UnixSocketFile};
use crate::config::Bind;
use crate::serve::Listening;

/// Connections that wait to be accepted, per socket.
pub(super) const BACKLOG: i32 = 4096;

/// Name of the admin listener's socket among those that are handed over.
const DOOR: &str = "admin";

/// Every listening socket, once more.
#[derive(Debug, Default)]
pub struct Sockets {
    inherited: Inherited,
    held: Vec<SocketHandle>,
    files: Vec<UnixSocketFile>,
    /// Files of sockets that are a predecessor's until we serve.
    heritage: Vec<PathBuf>,
}

/// A second handle on a socket, to hand it on by.
#[derive(Debug)]
struct SocketHandle {
    name: String,
    /// True if this process alone holds the socket, once its predecessor has ended.
    own: bool,
    /// It is the admin listener's.
    admin_listener: bool,
    socket: Socket,
}

/// Sockets of one listener, distributed over the workers.
pub struct OpenedSockets {
    /// Its real address; none for a Unix socket.
    pub address: Option<SocketAddr>,
    /// Sockets to accept from, one list per worker.
    pub sockets: Vec<Vec<Listening>>,
}

/// The reason for which a listener has no socket.
#[derive(Debug, Error)]
pub enum OpenError {
    /// It could not be bound.
    #[error("{0}")]
    Bind(#[from] io::Error),
    /// Inherited sockets that are unusable for the listener. The text is for a person.
    #[error("{0}")]
    Inherited(String),
}

impl Sockets {
    /// Builds the set with no socket open; the inherited ones are used first.
    pub fn new(inherited: Inherited) -> Self {
        Self { inherited, ..Self::default() }
    }

    /// Takes the sockets of a listener that were inherited, or binds.
    pub fn open(&mut self, name: &str, bind: &Bind, workers: usize) -> Result<OpenedSockets, OpenError> {
        let given = self.inherited.claim(name, bind).map_err(OpenError::Inherited)?;
        if !given.is_empty() {
            return Ok(self.take(given, name, workers)?);
        }
        let own = |name: &str| format!("{OWN}{}", fd_name(name));
        match bind {
            Bind::Tcp(address) => {
                let (address, sockets) = bind_all(*address, workers)?;
                for socket in &sockets {
                    self.held.push(SocketHandle {
                        name: own(name),
                        own: true,
                        admin_listener: false,
                        socket: socket.try_clone()?,
                    });
                }
                let sockets = spread(sockets, workers)?;
                Ok(OpenedSockets { address: Some(address), sockets })
            }
            Bind::Unix(path) => {
                let (socket, file) = unix_socket::bind(path)?;
                self.files.push(file);
                let socket = Socket::from(socket);
                self.held.push(SocketHandle {
                    name: own(name),
                    own: true,
                    admin_listener: false,
                    socket: socket.try_clone()?,
                });
                Ok(OpenedSockets { address: None, sockets: spread(vec![socket], workers)? })
            }
        }
    }

    /// The admin listener's one socket, inherited or bound.
    pub fn open_admin(&mut self, address: SocketAddr) -> Result<TcpListener, OpenError> {
        let given = self.inherited.claim(DOOR, &Bind::Tcp(address)).map_err(OpenError::Inherited)?;
        if given.len() > 1 {
            let text = format!("there are {} inherited sockets for [admin]; it takes one", given.len());
            return Err(OpenError::Inherited(text));
        }
        let (name, own, socket) = match given.into_iter().next() {
            Some(Given { name, own, socket, .. }) => (if own { format!("{OWN}{name}") } else { name }, own, socket),
            None => (format!("{OWN}{DOOR}"), true, bind_one(address, false)?),
        };
        self.held.push(SocketHandle { name, own, admin_listener: true, socket: socket.try_clone()? });
        Ok(socket.into())
    }

    /// All listeners have theirs: what is left of the inherited ones is closed, with a word in the log.
    pub fn settle(&mut self) {
        self.inherited.close_the_rest();
    }

    /// We serve: the process before us may go, and its sockets are ours. Until then a start that fails leaves all as it was.
    pub fn take_over(&mut self) -> io::Result<()> {
        let relieved = self.inherited.predecessor().map_or(Ok(()), Predecessor::relieve);
        let files = self.heritage.drain(..).map(|path| UnixSocketFile::adopt(&path));
        self.files.extend(files.flatten());
        relieved
    }

    fn take(&mut self, given: Vec<Given>, name: &str, workers: usize) -> io::Result<OpenedSockets> {
        let mut address = None;
        let mut sockets = Vec::new();
        tracing::info!(listener = name, sockets = given.len(), "inherited");
        for Given { name, own, socket, place } in given {
            match place {
                ListenAddress::Tcp(at) => address = Some(at),
                ListenAddress::Unix(Some(path)) if own => self.heritage.push(path),
                // The holder of the socket takes care of its file.
                ListenAddress::Unix(_) => {}
            }
            let name = if own { format!("{OWN}{name}") } else { name };
            self.held.push(SocketHandle { name, own, admin_listener: false, socket: socket.try_clone()? });
            sockets.push(socket);
        }
        Ok(OpenedSockets { address, sockets: spread(sockets, workers)? })
    }

    /// Handles for a successor, each with its name.
    pub fn for_a_successor(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        let handles = self.held.iter().map(|held| Ok((held.name.clone(), held.socket.try_clone()?.into())));
        handles.collect()
    }

    /// Closes the sockets of a process without a successor: a connection that is not in a queue yet is not accepted,
    /// except at the admin listener, which reports the state to the end. Must be called before the workers stop.
    pub fn close(&mut self) {
        // A client that looks for the socket file finds none from here on; one that found it earlier is in the queue.
        self.files.clear();
        for held in self.held.drain(..) {
            let tcp = held.socket.local_addr().is_ok_and(|address| !address.is_unix());
            if held.own && tcp && !held.admin_listener {
                shut(&held.socket);
            }
        }
    }

    /// A successor accepts from the same sockets.
    pub fn leave(&mut self) {
        self.files.drain(..).for_each(UnixSocketFile::leave);
        self.held.clear();
    }
}

/// Distributes the sockets over the workers: every worker gets at least one, and every socket belongs to a worker. The
/// kernel spreads connections over all sockets of an address, so connections to a socket from which no worker accepts
/// would never be served.
fn spread(sockets: Vec<Socket>, workers: usize) -> io::Result<Vec<Vec<Listening>>> {
    let mut shares: Vec<Vec<Listening>> = (0..workers).map(|_| Vec::new()).collect();
    for (share, socket) in shares.iter_mut().skip(sockets.len()).zip(sockets.iter().cycle()) {
        share.push(listening(socket.try_clone()?)?);
    }
    for (index, socket) in sockets.into_iter().enumerate() {
        if let Some(share) = index.checked_rem(workers).and_then(|worker| shares.get_mut(worker)) {
            share.push(listening(socket)?);
        }
    }
    Ok(shares)
}

fn listening(socket: Socket) -> io::Result<Listening> {
    Ok(if socket.local_addr()?.is_unix() { Listening::Unix(socket.into()) } else { Listening::Tcp(socket.into()) })
}

/// Attempts to find a port of the kernel's choice that every worker's socket can have.
const PORT_CHOICES: usize = 8;

/// One listening socket per worker on the same address. Port 0 is chosen once, and chosen anew if another process took
/// the choice before all sockets had it.
fn bind_all(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<Socket>)> {
    let mut choices = if address.port() == 0 { PORT_CHOICES } else { 1 };
    loop {
        choices -= 1;
        match bind_each(address, workers) {
            Err(error) if choices > 0 && error.kind() == io::ErrorKind::AddrInUse => {}
            bound => return bound,
        }
    }
}

fn bind_each(address: SocketAddr, workers: usize) -> io::Result<(SocketAddr, Vec<Socket>)> {
    // SO_REUSEPORT would let two instances share an address unnoticed: first check that the address is free.
    let probe = TcpListener::from(bind_one(address, false)?);
    let address = probe.local_addr()?;
    drop(probe);
    let sockets: io::Result<Vec<_>> = (0..workers).map(|_| bind_one(address, true)).collect();
    Ok((address, sockets?))
}

fn bind_one(address: SocketAddr, shared: bool) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() {
        // `[::]` serves IPv4 as well.
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// Prevents new connections without dropping those that exist: closing the socket at once would reset every connection
/// that arrived between the last look into its queue and the close. A client that is not accepted tries again after a
/// second (RFC 6298 section 2.1), and finds the port closed, or a new process there.
#[cfg(target_os = "linux")]
fn shut(socket: &Socket) {
    use socket2::SockFilter;

    // A classic BPF program; a packet begins with the TCP header (RFC 9293 section 3.1), its byte 13 has the flags.
    const LOAD_BYTE: u16 = 0x30;
    const JUMP_IF_SET: u16 = 0x45;
    const RETURN: u16 = 0x06;
    const SYN: u32 = 0x02;
    let program = [
        SockFilter::new(LOAD_BYTE, 0, 0, 13),
        SockFilter::new(JUMP_IF_SET, 0, 1, SYN),
        // Drops the packet.
        SockFilter::new(RETURN, 0, 0, 0),
        // Keeps all of it.
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    // A kernel that has no filters closes a little less kindly.
    let _ = socket.attach_filter(&program);
}

#[cfg(not(target_os = "linux"))]
fn shut(_: &Socket) {}

#[cfg(test)]
mod tests {
    use std::io::{ErrorKind, Read as _, Write as _};
    use std::net::TcpStream;
    use std::time::Duration;

    use super::*;

    #[test]
    fn every_worker_has_a_socket_and_every_socket_a_worker() {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        for (sockets, workers, expected) in [(1, 3, vec![1, 1, 1]), (3, 3, vec![1, 1, 1]), (5, 2, vec![3, 2])] {
            let sockets = (0..sockets).map(|_| bind_one(loopback, true).unwrap()).collect();
            let shares: Vec<_> = spread(sockets, workers).unwrap().iter().map(Vec::len).collect();
            assert_eq!(shares, expected);
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_shut_socket_keeps_whom_it_has_and_lets_in_nobody() {
        let socket = bind_one(SocketAddr::from(([127, 0, 0, 1], 0)), false).unwrap();
        socket.set_nonblocking(false).unwrap();
        let address = socket.local_addr().unwrap().as_socket().unwrap();
        let mut queued = TcpStream::connect(address).unwrap();
        shut(&socket);
        // Its system would try again after a second.
        let late = TcpStream::connect_timeout(&address, Duration::from_millis(50)).unwrap_err();
        assert_eq!(late.kind(), ErrorKind::TimedOut);
        let (mut accepted, _) = TcpListener::from(socket).accept().unwrap();
        queued.write_all(b"ask").unwrap();
        let mut text = [0; 3];
        accepted.read_exact(&mut text).unwrap();
        accepted.write_all(&text).unwrap();
        drop(accepted);
        let mut answer = String::new();
        queued.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "ask");
    }
}
