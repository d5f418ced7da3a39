//! Starting a simulator, and its remote control.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::Ordering;
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use tokio::sync::oneshot;

use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::Clock;
use crate::sim::authority::{LeafSpec, SimAuthority, SimLeaf};
use crate::sim::bank_file::{DrawnSettings, SimSecretPlace};
use crate::sim::credentials::Credentials;
use crate::sim::faults::Faults;
use crate::sim::member::{Bank, BankSpec, SettingLines};
use crate::sim::received::ReceivedRequest;
use crate::sim::sim_memory::SimMemory;
use crate::sim::sim_state::SimState;
use crate::sim::{scb, server};

/// The start options of a simulator. The default is a bank on a free port of 127.0.0.1, with a CA of its own.
#[derive(Debug)]
pub struct SimOptions {
    /// The address to listen on; port 0 takes a free port.
    pub bind: SocketAddr,
    /// The clock by which its tokens live. Certificates go by the machine's, as their verifiers do.
    pub clock: Clock,
    /// What it and others have drawn before; see [`SimMemory`].
    pub memory: SimMemory,
    /// The CA that issues its certificate; absent: a new one.
    pub authority: Option<SimAuthority>,
    /// Its certificate, instead of a good one for `localhost`, `127.0.0.1` and `::1`.
    pub leaf: Option<SimLeaf>,
    /// Only who shows a certificate of this CA (PEM) gets in.
    pub client_ca: Option<String>,
    /// The application's credentials; `None`: fresh ones in the bank's format.
    pub credentials: Option<Credentials>,
    /// The faults that are active from the start.
    pub faults: Faults,
    /// Maximum number of requests that [`SimHandle::received`] keeps.
    pub received_limit: usize,
    /// Keep the bytes of every connection for [`SimHandle::wire`].
    pub record_wire: bool,
    /// True if HTTP/2 is not offered.
    pub only_http1: bool,
}

impl Default for SimOptions {
    fn default() -> Self {
        Self {
            bind: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            clock: Clock::System,
            memory: SimMemory::default(),
            authority: None,
            leaf: None,
            client_ca: None,
            credentials: None,
            faults: Faults::default(),
            received_limit: 16_384,
            record_wire: false,
            only_http1: false,
        }
    }
}

/// The entry point of a simulator; see [`Sim::start`].
#[derive(Debug)]
pub struct Sim;

impl Sim {
    /// Starts a simulator on a thread of its own. It is ready for connections when this returns.
    ///
    /// Fails if the address cannot be bound, the certificate cannot be used, or the machine has no thread left.
    pub fn start(bank: Bank, options: SimOptions) -> io::Result<SimHandle> {
        let now = Clock::System.now();
        let member = bank.member();
        let authority = match options.authority {
            Some(authority) => authority,
            None => SimAuthority::new("countersign simulator CA", now).map_err(io::Error::other)?,
        };
        let leaf = match options.leaf {
            Some(leaf) => leaf,
            None => authority.issue(&LeafSpec::server(now)).map_err(io::Error::other)?,
        };
        let identity = leaf.identity().map_err(io::Error::other)?;
        let tls = server::tls(identity, options.client_ca.as_deref(), options.only_http1).map_err(io::Error::other)?;
        let listener = listen(options.bind, member.name, &options.memory)?;
        let address = listener.local_addr()?;
        let described = match bank {
            Bank::Described(file) => (Some(file), file.draw(&options.memory).map_err(io::Error::other)?),
            Bank::AbbeyCross | Bank::Meed | Bank::OAuth2 | Bank::Rakbank | Bank::Scb => {
                (None, DrawnSettings::default())
            }
        };
        let desk = Arc::new(SimState::new(
            member,
            options.credentials.unwrap_or_else(|| credentials(member, &options.memory)),
            described,
            options.clock,
            options.faults,
            options.received_limit,
            options.record_wire,
        ));
        let (stop, stopped) = oneshot::channel();
        let (ready, begun) = mpsc::channel();
        let thread = {
            let desk = desk.clone();
            let name = format!("sim-{}", member.name);
            std::thread::Builder::new()
                .name(name)
                .spawn(move || server::run_server(listener, tls, desk, &ready, stopped))?
        };
        begun.recv().map_err(|_| io::Error::other("the simulator's thread ended before it began"))??;
        Ok(SimHandle { bank, address, authority, desk, stop: Some(stop), thread: Some(thread) })
    }
}

/// Listens at the port that it had before, where a port is to be chosen and that one is free.
fn listen(bind: SocketAddr, bank: &str, memory: &SimMemory) -> io::Result<TcpListener> {
    let place = format!("{bank}/port");
    let known = memory.known(&place).and_then(|port| port.expose_secret().parse().ok()).filter(|_| bind.port() == 0);
    let before = known.and_then(|port| server::listen(SocketAddr::new(bind.ip(), port)).ok());
    let listener = before.map_or_else(|| server::listen(bind), Ok)?;
    memory.note(&place, listener.local_addr()?.port().to_string());
    Ok(listener)
}

/// Draws an application's credentials, or recalls them.
fn credentials(member: &BankSpec, memory: &SimMemory) -> Credentials {
    let drawn = (member.credentials)();
    let recall = |what: &str, text: &str| {
        memory.recall(&format!("{}/{what}", member.name), || text.to_owned()).expose_secret().to_owned()
    };
    Credentials::new(recall("client", drawn.id()), recall("secret", drawn.secret().expose_secret()))
}

/// A running simulator. It stops when this is dropped.
pub struct SimHandle {
    bank: Bank,
    address: SocketAddr,
    authority: SimAuthority,
    desk: Arc<SimState>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl SimHandle {
    /// Replaces what goes wrong; `times` and `every` count from here.
    pub fn set(&self, faults: Faults) {
        self.desk.set(faults);
    }

    /// Changes some of what goes wrong and keeps the rest; `times` and `every` count from here, in what is kept, too.
    pub fn change(&self, change: impl FnOnce(&mut Faults)) {
        let mut faults: Faults = (**self.desk.faults()).clone();
        change(&mut faults);
        self.desk.set(faults);
    }

    /// Every live token dies at once. Answers how many did.
    pub fn revoke_all(&self) -> usize {
        self.desk.revoke_all()
    }

    /// SCB only: the user agrees to a pending consent; answers the authorization code. `login` is the last part of the
    /// `callbackUrl` that authorize answered; `None` if nothing of the kind is pending.
    pub fn consent(&self, login: &str, user: &str) -> Option<String> {
        scb::consent(&self.desk, login, Some(user), self.desk.clock.now())?.code
    }

    /// SCB only: the same, and where the bank's app goes next: the registered
    /// [`callback_url`](crate::sim::ScbManner::callback_url) with the query of authorize, `code`, `state` and `status`
    /// overwritten. `user` absent: the user declines, and there is no code. `None` also when no URL is registered.
    pub fn consent_callback(&self, login: &str, user: Option<&str>) -> Option<String> {
        scb::consent(&self.desk, login, user, self.desk.clock.now())?.callback
    }

    /// A user takes the consent back: the user's tokens, codes and refresh tokens die at once. Answers how many access
    /// tokens did.
    pub fn withdraw(&self, user: &str) -> usize {
        self.desk.withdraw(&self.known_as(user))
    }

    /// Returns the name by which the bank identifies a user to a partner: SCB's `resourceOwnerId`, at other banks the
    /// user's own name.
    pub fn known_as(&self, user: &str) -> String {
        match self.bank {
            Bank::Scb => scb::known_as(user),
            Bank::AbbeyCross | Bank::Described(_) | Bank::Meed | Bank::OAuth2 | Bank::Rakbank => user.to_owned(),
        }
    }

    /// OAuth2 only: where users consent.
    pub fn authorize_url(&self) -> String {
        format!("{}/authorize", self.base_url())
    }

    /// Forgets what was received so far; the counters go on.
    pub fn forget_received(&self) {
        self.desk.forget_received();
    }

    pub const fn bank(&self) -> Bank {
        self.bank
    }

    /// Returns the bound address, with the actual port.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its API's base URL: `https://127.0.0.1:PORT` and the bank's base path.
    pub fn base_url(&self) -> String {
        format!("https://{}{}", self.address, self.bank.member().base_path)
    }

    /// Its token endpoint, whether or not `proxy.toml` must name it.
    pub fn token_url(&self) -> String {
        format!("https://{}{}", self.address, self.bank.member().token_path)
    }

    /// Returns the credentials that the bank gave to the application.
    pub fn credentials(&self) -> &Credentials {
        &self.desk.credentials
    }

    /// A second secret of the application, good beside the first from now on: as when a secret is being replaced.
    pub fn second_secret(&self) -> &SecretString {
        self.desk.credentials.second()
    }

    /// From now on the bank accepts these secrets of the application, and no others.
    pub fn rotate_secrets(&self, accepted: &[&str]) {
        self.desk.credentials.rotate(accepted.iter().map(|secret| SecretString::from(*secret)).collect());
    }

    /// Returns the CA's certificate as PEM.
    pub fn ca_pem(&self) -> String {
        self.authority.pem()
    }

    /// The CA, to issue further certificates.
    pub const fn authority(&self) -> &SimAuthority {
        &self.authority
    }

    /// Returns the clock by which its tokens expire.
    pub fn clock(&self) -> &Clock {
        &self.desk.clock
    }

    /// The `[provider.NAME]` lines for `proxy.toml`, named like the bank, with the CA in `sim-ca.crt`. They hold the
    /// secret.
    pub fn settings_toml(&self) -> String {
        self.settings_toml_as(self.bank.name(), "sim-ca.crt")
    }

    /// The same with another name, and with the path of the CA's file.
    pub fn settings_toml_as(&self, name: &str, ca: &str) -> String {
        self.setting_lines(name, ca, SimSecretPlace::Line)
    }

    /// The same lines with every secret in a file beside `proxy.toml`, and those files: names and contents.
    pub fn settings_and_files(&self) -> (String, Vec<(String, SecretString)>) {
        let name = self.bank.name();
        let mut files = self.desk.drawn.files(name, SimSecretPlace::File);
        if let SettingLines::Credentials([_, secret, _]) = self.bank.member().settings {
            files.push((format!("{name}-{secret}"), self.credentials().secret().clone()));
        }
        (self.setting_lines(name, "sim-ca.crt", SimSecretPlace::File), files)
    }

    fn setting_lines(&self, name: &str, ca: &str, secrets: SimSecretPlace) -> String {
        let member = self.bank.member();
        let text = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let settings = match member.settings {
            SettingLines::Credentials([id, secret, more]) => {
                let value = match secrets {
                    SimSecretPlace::File => format!("{{ file = {} }}", text(&format!("{name}-{secret}"))),
                    SimSecretPlace::Line => self.credentials().secret_toml(),
                };
                format!("{id} = {}\n{secret} = {value}\n{more}", text(self.credentials().id()))
            }
            SettingLines::Drawn => self.desk.drawn.lines(name, secrets),
        };
        let token_url =
            if member.names_token_url { format!("token_url = {}\n", text(&self.token_url())) } else { String::new() };
        format!(
            "[provider.{name}]\nprofile = {}\nbase_url = {}\n{token_url}{settings}tls = {{ ca = {} }}\n",
            text(member.name),
            text(&self.base_url()),
            text(ca),
        )
    }

    /// The files beside `proxy.toml` that those lines name, besides the CA's: the keys of the bank's client.
    pub fn key_files(&self, name: &str) -> Vec<(String, SecretString)> {
        self.desk.drawn.files(name, SimSecretPlace::Line)
    }

    /// `text` with the bank's secrets and tokens in it replaced by fingerprints.
    pub fn mask(&self, text: &str) -> String {
        self.desk.mask(text)
    }

    /// Returns the number of calls of the token endpoint, with any outcome.
    pub fn token_calls(&self) -> u64 {
        self.desk.counters.token_calls.load(Ordering::Relaxed)
    }

    /// Returns the number of all other calls, with any outcome.
    pub fn resource_calls(&self) -> u64 {
        self.desk.counters.resource_calls.load(Ordering::Relaxed)
    }

    /// Returns the number of accepted TCP connections.
    pub fn connections(&self) -> u64 {
        self.desk.counters.connections.load(Ordering::Relaxed)
    }

    /// Returns the number of accepted connections that are open.
    pub fn open_connections(&self) -> u64 {
        self.desk.counters.open_connections.load(Ordering::Relaxed)
    }

    /// Returns the number of accepted connections that did not complete their TLS handshake.
    pub fn failed_handshakes(&self) -> u64 {
        self.desk.counters.failed_handshakes.load(Ordering::Relaxed)
    }

    /// Returns the number of issued tokens.
    pub fn tokens_issued(&self) -> u64 {
        self.desk.issued_count()
    }

    /// The last 1,024 issued tokens, oldest first.
    pub fn issued(&self) -> Vec<SecretString> {
        self.desk.issued()
    }

    /// Returns the requests that arrived, oldest first: whole ones, and those whose body broke off.
    pub fn received(&self) -> Vec<Arc<ReceivedRequest>> {
        self.desk.received()
    }

    /// The first 256 KiB that a connection (counted from 1) brought, inside TLS. Empty unless asked for at the start.
    pub fn wire(&self, connection: u64) -> Vec<u8> {
        self.desk.wire(connection)
    }

    /// Returns how often each payment was processed, by its ID, that is, the number of times that its token was
    /// accepted.
    pub fn payments(&self) -> BTreeMap<String, u64> {
        self.desk.payments()
    }

    /// Returns the actions of the caller that the bank's rules forbid.
    pub fn violations(&self) -> Vec<String> {
        self.desk.violations()
    }
}

impl Drop for SimHandle {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic of the simulator was already reported by the thread itself.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for SimHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimHandle").field("bank", &self.bank).field("address", &self.address).finish_non_exhaustive()
    }
}
