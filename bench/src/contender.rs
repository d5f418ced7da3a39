//! The contenders: countersign and its peers, each from a template in `peers/`.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Process, Start, free_port, root};
use crate::stage::{Stage, count};
use crate::{Failure, job};

/// Time in which there must be a token for each key.
const FILL: Duration = Duration::from_secs(600);

/// Where squid's helpers usually are, on Debian.
const SQUID_HELPERS: &str = "/usr/lib/squid";

/// By which way clients come in.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Door {
    /// They are told of a proxy, ask it for a tunnel and mean the bank inside.
    Forward,
    /// They call the contender itself over TLS.
    Gateway,
}

/// Whose manners it has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Caddy,
    Countersign,
    Envoy,
    Haproxy,
    Mitmproxy,
    Nginx,
    Squid,
}

impl Kind {
    /// Whether it has such a door.
    pub const fn serves(self, door: Door) -> bool {
        match self {
            Self::Countersign => true,
            Self::Caddy | Self::Envoy | Self::Haproxy | Self::Nginx => matches!(door, Door::Gateway),
            Self::Mitmproxy | Self::Squid => matches!(door, Door::Forward),
        }
    }

    /// How it does the job of a forward proxy, where that is not obvious: printed below the tables.
    pub const fn manner(self) -> &'static str {
        match self {
            Self::Countersign => "asks for Basic credentials, fetches the token itself, writes an access log",
            Self::Mitmproxy => {
                "asks for Basic credentials (proxyauth), bearer from a script, no log; one connection to the bank for each \
                 tunnel"
            }
            Self::Squid => {
                "asks for Basic credentials (a helper checks them, squid remembers), bearer from its configuration, no log; \
                 its request id is the time and a counter, not random"
            }
            Self::Caddy | Self::Envoy | Self::Haproxy | Self::Nginx => "",
        }
    }
}

/// Something that can do the job.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its row in the tables.
    pub name: String,
    pub kind: Kind,
    pub program: PathBuf,
    /// Of countersign alone.
    pub size: Size,
}

/// What countersign is to bear beside the job.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Size {
    /// Routes in its configuration; the last one is called.
    pub routes: usize,
    /// Keys of tokens that are called in turns, each with a token of its own that is at hand.
    pub keys: usize,
    /// Threads that serve, each on a core of its own.
    pub workers: usize,
    /// The algorithm by which each call is signed; none: calls carry the token alone.
    pub signs: Option<SigningAlgorithm>,
    /// Calls beside the measured ones, with a route whose calls a key service signs in its configuration; none: no such
    /// route.
    pub beside: Option<Beside>,
}

/// The calls that a second generator makes, all at once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Beside {
    Nothing,
    /// Calls with a bearer alone and a pause after each: about as many a second as the signed ones.
    Plain,
    /// Calls that a key service signs.
    Signed,
}

impl Beside {
    pub const ALL: [Self; 3] = [Self::Nothing, Self::Plain, Self::Signed];

    /// Its name in a table.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Nothing => "alone",
            Self::Plain => "plain",
            Self::Signed => "signed",
        }
    }

    /// The generator's options: 1,000 streams.
    pub const fn options(self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Plain => "--mode h2 --connections 10 --streams 100 --pause 450",
            Self::Signed => "--mode h2 --connections 10 --streams 100 --path /v1/signed",
        }
    }
}

/// The algorithm of a signature.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SigningAlgorithm {
    EdDsa,
    Es256,
    Hs512,
}

impl SigningAlgorithm {
    /// Its name in a profile, and the key that goes with it.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::EdDsa => ("EdDSA", "signing_key        = { file = \"ed25519.key\" }"),
            Self::Es256 => ("ES256", "signing_key        = { file = \"proxy.key\" }"),
            Self::Hs512 => ("HS512", "signing_key        = { jwk = \"secret.jwk\" }"),
        }
    }
}

impl Size {
    pub const USUAL: Self = Self { routes: 1, keys: 1, workers: 1, signs: None, beside: None };

    /// The profile that it needs.
    const fn profile(self) -> &'static str {
        match (self.keys, self.signs) {
            (_, Some(_)) => "signed.toml",
            (1, None) => "scb",
            (_, None) => "keyed.toml",
        }
    }
}

/// A contender that serves.
pub struct Running {
    pub process: Process,
    port: u16,
    /// What to ask it a tunnel for.
    connect: Option<String>,
    /// Keys of tokens that its callers name in turns.
    keys: usize,
    /// What is called beside it.
    pub beside: Option<Beside>,
    /// Countersign's access log.
    pub access_log: PathBuf,
    /// Where `countersign-counted` tells its counts.
    pub counts: u16,
}

impl Running {
    /// Starts a generator that calls it.
    pub fn load(&self, stage: &Stage, options: &str) -> Result<Process, Failure> {
        match &self.connect {
            Some(target) => stage.load(self.port, &format!("--connect {target} {options}")),
            None if self.keys > 1 => stage.load(self.port, &format!("--keys {} {options}", self.keys)),
            None => stage.load(self.port, options),
        }
    }

    /// Calls until there is a token for each key.
    fn fill(&self, stage: &Stage) -> Result<(), Failure> {
        stage.reset()?;
        let begun = Instant::now();
        // One generator goes on until the last key: each one begins with the first. It ends with this function.
        let _load = self.load(stage, &format!("--mode keep --connections 64 --warm 0 --seconds {}", FILL.as_secs()))?;
        while begun.elapsed() < FILL {
            std::thread::sleep(Duration::from_millis(200));
            if count(&stage.seen()?, "tokens") >= self.keys as u64 {
                println!("- {} tokens fetched in {:.1} s", self.keys, begun.elapsed().as_secs_f64());
                return Ok(());
            }
        }
        Err(format!("{} of {} keys have tokens after {} s", count(&stage.seen()?, "tokens"), self.keys, FILL.as_secs())
            .into())
    }
}

impl Contender {
    /// Reads `nginx`, `squid`, `countersign`, or `NAME=PROGRAM`: another build, told apart by how its name begins. A variable
    /// `BENCH_NGINX` and so on replaces the peer's usual program.
    pub fn read(text: &str, proxy: &Path) -> Self {
        let (name, program) = match text.split_once('=') {
            Some((name, program)) => (name, Some(PathBuf::from(program))),
            None => (text, None),
        };
        let peers = [
            ("caddy", Kind::Caddy, "caddy", "BENCH_CADDY"),
            ("envoy", Kind::Envoy, "envoy", "BENCH_ENVOY"),
            ("haproxy", Kind::Haproxy, "haproxy", "BENCH_HAPROXY"),
            ("mitmproxy", Kind::Mitmproxy, "mitmdump", "BENCH_MITMPROXY"),
            ("nginx", Kind::Nginx, "nginx", "BENCH_NGINX"),
            ("squid", Kind::Squid, "squid", "BENCH_SQUID"),
        ];
        let peer = peers.iter().find(|(peer, ..)| name.starts_with(peer));
        let (kind, usual) = match peer {
            Some((_, kind, usual, variable)) => (*kind, chosen(variable).unwrap_or_else(|| PathBuf::from(usual))),
            None => (Kind::Countersign, proxy.to_owned()),
        };
        Self { name: name.to_owned(), kind, program: program.unwrap_or(usual), size: Size::USUAL }
    }

    /// Asks the program for its version, and for that of its TLS library where it tells.
    pub fn version(&self) -> Result<String, Failure> {
        let (args, wanted): (&[&str], &[&str]) = match self.kind {
            Kind::Caddy => (&["version"], &[]),
            Kind::Countersign | Kind::Envoy | Kind::Mitmproxy | Kind::Squid => (&["--version"], &[]),
            Kind::Haproxy => (&["-vv"], &["HAProxy version", "Running on OpenSSL", "Running on SSL"]),
            Kind::Nginx => (&["-V"], &["nginx version", "built with"]),
        };
        let program = self.program.display();
        let output = Command::new(&self.program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
        let lines: Vec<&str> = if wanted.is_empty() {
            lines.next().into_iter().collect()
        } else {
            lines.filter(|line| wanted.iter().any(|mark| line.starts_with(mark))).collect()
        };
        if lines.is_empty() {
            return Err(format!("{program} does not tell its version").into());
        }
        // Names of fields and addresses of projects say nothing new.
        let told = lines.iter().map(|line| {
            let line = line.rsplit(" : ").next().unwrap_or(line);
            let line = line.rsplit(" version: ").next().unwrap_or(line);
            line.split(" - http").next().unwrap_or(line).split_whitespace().collect::<Vec<_>>().join(" ")
        });
        Ok(told.collect::<Vec<_>>().join(", "))
    }

    /// Starts it in front of this port of the origin.
    pub fn start(&self, stage: &Stage, door: Door, upstream: u16) -> Result<Running, Failure> {
        let (port, admin, counts) = (free_port()?, free_port()?, free_port()?);
        let (template, file) = match (self.kind, door) {
            (Kind::Countersign, Door::Gateway) => (include_str!("../peers/countersign.toml.in"), "config.toml"),
            (Kind::Countersign, Door::Forward) => (include_str!("../peers/countersign-forward.toml.in"), "config.toml"),
            (Kind::Caddy, _) => (include_str!("../peers/Caddyfile.in"), "Caddyfile"),
            (Kind::Envoy, _) => (include_str!("../peers/envoy.yaml.in"), "config.yaml"),
            (Kind::Haproxy, _) => (include_str!("../peers/haproxy.cfg.in"), "config.cfg"),
            // It looks for this name itself.
            (Kind::Mitmproxy, _) => (include_str!("../peers/mitmproxy.yaml.in"), "config.yaml"),
            (Kind::Nginx, _) => (include_str!("../peers/nginx.conf.in"), "config.conf"),
            (Kind::Squid, _) => (include_str!("../peers/squid.conf.in"), "config.conf"),
        };
        let work = &stage.work;
        // nginx's scratch directories and pid file must not be shared by two of them.
        let own = work.join(format!("{}-{port}", self.name));
        std::fs::create_dir_all(&own)?;
        for part in [
            "ca.crt",
            "ed25519.key",
            "secret.jwk",
            "intercept.crt",
            "intercept.key",
            "proxy.crt",
            "proxy.key",
            "proxy.pem",
        ] {
            std::fs::copy(work.join(part), own.join(part))?;
        }
        let (algorithm, signing_key) = match (self.size.signs, self.size.beside) {
            (Some(signs), _) => signs.words(),
            (None, Some(_)) => ("ES256", ""),
            (None, None) => ("", ""),
        };
        let values = [
            ("@WORK@", own.display().to_string()),
            ("@PORT@", port.to_string()),
            ("@ADMIN@", admin.to_string()),
            ("@UPSTREAM@", upstream.to_string()),
            ("@ORIGIN@", stage.origin.to_string()),
            ("@KEYS@", stage.keys.to_string()),
            ("@HOST@", format!("localhost:{}", stage.origin)),
            ("@OWNER@", job::OWNER.to_owned()),
            ("@TOKEN@", job::token()),
            ("@CLIENT@", job::CLIENT.to_owned()),
            ("@KEY@", job::CLIENT_KEY.to_owned()),
            ("@KEY_SHA256@", job::CLIENT_KEY_SHA256.to_owned()),
            ("@LIB@", squid_helpers(&self.program).display().to_string()),
            ("@WORKERS@", self.size.workers.to_string()),
            ("@ROUTES@", routes(self.size.routes)),
            ("@PATH@", if self.size.routes == 1 { "/v1" } else { job::ITEM }.to_owned()),
            ("@PROFILE@", self.size.profile().to_owned()),
            ("@SETTINGS@", signing_key.to_owned()),
            ("@ALGORITHM@", algorithm.to_owned()),
            ("@VARS@", if self.size.keys == 1 { "" } else { VARS }.to_owned()),
            ("@TOKENS@", self.size.keys.max(10_000).to_string()),
        ];
        let fill =
            |template: &str| values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value));
        let config_file = own.join(file);
        let remote_key = if self.size.beside.is_some() { include_str!("../peers/remote-key.toml.in") } else { "" };
        std::fs::write(&config_file, fill(template) + &fill(remote_key))?;
        let path = config_file.display().to_string();
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let args: Vec<String> = match self.kind {
            Kind::Countersign => words(&["run", "-c", &path]),
            Kind::Caddy => words(&["run", "--adapter", "caddyfile", "--config", &path]),
            Kind::Envoy => {
                words(&["--disable-hot-restart", "--concurrency", "1", "--log-level", "error", "--config-path", &path])
            }
            Kind::Haproxy => words(&["-db", "-f", &path]),
            Kind::Mitmproxy => {
                std::fs::write(own.join("dress.py"), fill(include_str!("../peers/dress.py.in")))?;
                std::fs::copy(work.join("intercept.pem"), own.join("mitmproxy-ca.pem"))?;
                words(&["--set", &format!("confdir={}", own.display())])
            }
            Kind::Nginx => words(&["-p", &own.display().to_string(), "-c", &path]),
            Kind::Squid => {
                furnish_squid(work, &own, &squid_helpers(&self.program))?;
                // In the foreground, by a name of its own: two of them share memory otherwise.
                words(&["-N", "-n", &format!("bench{port}"), "-f", &path])
            }
        };
        let mut env = vec![("BENCH_SECRET", job::SECRET.to_owned()), ("BENCH_COUNTS", format!("127.0.0.1:{counts}"))];
        if self.kind == Kind::Caddy {
            // It keeps state at home.
            env.extend(["HOME", "XDG_CONFIG_HOME", "XDG_DATA_HOME"].map(|name| (name, own.display().to_string())));
        }
        std::fs::write(own.join("keyed.toml"), include_str!("../peers/keyed.toml.in"))?;
        std::fs::write(own.join("signed.toml"), fill(include_str!("../peers/signed.toml.in")))?;
        let log = own.join("log");
        let cores = if self.size.workers == 1 { stage.proxy_core.clone() } else { stage.all_cores() };
        let mut process = Process::start(Start {
            what: &self.name,
            program: &self.program,
            args,
            cores: &cores,
            env,
            log: &log,
            listen: false,
        })?;
        process.listens(port, &log)?;
        let connect = (door == Door::Forward).then(|| format!("localhost:{upstream}"));
        let access_log = own.join(format!("access.{port}.log"));
        let running =
            Running { process, port, connect, keys: self.size.keys, beside: self.size.beside, access_log, counts };
        if self.size.keys > 1 {
            running.fill(stage)?;
        }
        Ok(running)
    }
}

/// The variable that names the key of a token.
const VARS: &str = "vars     = { account = { header = \"X-Account\" } }";

/// Writes the routes that stand before the one that is called: its siblings.
fn routes(all: usize) -> String {
    (1..all)
        .map(|number| {
            format!(
                "[[route]]\nname     = \"a{number:05}\"\npath     = \"/v1/a{number:05}\"\nstrip    = false\n\
                 provider = \"scb\"\nclients  = [\"bench\"]\n\n"
            )
        })
        .collect()
}

/// Reads the program that an environment variable names.
fn chosen(variable: &str) -> Option<PathBuf> {
    std::env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// Finds squid's helpers: those of the same tree (`sbin/squid`, `lib/squid`), else Debian's.
fn squid_helpers(program: &Path) -> PathBuf {
    let tree = program.parent().and_then(Path::parent).map(|tree| tree.join("lib/squid"));
    tree.filter(|helpers| helpers.is_absolute() && helpers.is_dir()).unwrap_or_else(|| SQUID_HELPERS.into())
}

/// What squid wants to find: names, a password file and a place for certificates, all its own user's where it is started
/// as root, for it refuses to stay root.
fn furnish_squid(work: &Path, own: &Path, helpers: &Path) -> Result<(), Failure> {
    std::fs::write(own.join("hosts"), "127.0.0.1 localhost\n")?;
    std::fs::write(own.join("passwords"), format!("{}:{}\n", job::CLIENT, job::CLIENT_KEY_MD5))?;
    let certificates = own.join("ssl_db").display().to_string();
    must(&helpers.join("security_file_certgen").display().to_string(), &["-c", "-s", &certificates, "-M", "4MB"])?;
    if root() {
        must("chmod", &["711", &work.display().to_string()])?;
        must("chown", &["-R", "proxy:", &own.display().to_string()])?;
    }
    Ok(())
}

fn must(program: &str, args: &[&str]) -> Result<(), Failure> {
    let output = Command::new(program).args(args).output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{program} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)).into())
}
