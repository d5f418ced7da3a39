//! What all measurements stand on: a directory, certificates, the origin, the key service, and which core is whose.

use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use crate::process::{Process, Start, cores, free_port};
use crate::{Failure, pki};

/// The stage, with the origin and the key service running on it.
pub struct Stage {
    pub work: PathBuf,
    /// The core of the contenders.
    pub proxy_core: String,
    /// The cores of the origin and the generator.
    pub other_cores: String,
    /// The same two groups as numbers.
    pub cores: [Vec<usize>; 2],
    /// Threads of the origin and of the generator.
    pub threads: usize,
    /// What is shared that should not be, for the reader of the figures.
    pub caveat: Option<&'static str>,
    pub origin: u16,
    /// The origin behind a certificate of an unknown CA.
    pub stranger: u16,
    /// The origin behind a certificate for another name.
    pub other: u16,
    /// The key service.
    pub keys: u16,
    control: u16,
    _origin: Process,
    _keys: Process,
}

impl Stage {
    pub fn set(work: PathBuf) -> Result<Self, Failure> {
        std::fs::create_dir_all(&work)?;
        pki::make(&work)?;
        let cores = cores()?;
        let (proxy, others) = match cores.as_slice() {
            [] | [_] => return Err("one core is not enough: the proxy needs one of its own".into()),
            [first, second] => (*second, vec![*first]),
            [first, second, rest @ ..] => (*second, std::iter::once(*first).chain(rest.iter().copied()).collect()),
        };
        let list: Vec<String> = others.iter().map(usize::to_string).collect();
        let other_cores = list.join(",");
        let threads = others.len().div_ceil(2);
        let caveat = match others.len() {
            1 => Some("the origin and the generator share one core: they may be the limit, not the proxy"),
            _ => None,
        };
        let (origin, stranger, other, control) = (free_port()?, free_port()?, free_port()?, free_port()?);
        let log = work.join("origin.log");
        let program = std::env::current_exe()?;
        let args = format!(
            "origin --work {} --port {origin} --stranger {stranger} --other {other} --control {control} \
             --threads {threads}",
            work.display()
        );
        let start = |what, args: String, log: &Path| {
            Process::start(Start {
                what,
                program: &program,
                args: args.split(' ').map(str::to_owned).collect(),
                cores: &other_cores,
                env: Vec::new(),
                log,
                listen: false,
            })
        };
        let mut process = start("the origin", args, &log)?;
        process.listens(control, &log)?;
        process.listens(origin, &log)?;
        let (keys, log) = (free_port()?, work.join("keys.log"));
        let args = format!("keys --work {} --port {keys}", work.display());
        let mut key_service = start("the key service", args, &log)?;
        key_service.listens(keys, &log)?;
        Ok(Self {
            work,
            proxy_core: proxy.to_string(),
            other_cores,
            cores: [vec![proxy], others],
            threads,
            caveat,
            origin,
            stranger,
            other,
            keys,
            control,
            _origin: process,
            _keys: key_service,
        })
    }

    /// The cores of a contender that is to use them all.
    pub fn all_cores(&self) -> String {
        format!("{},{}", self.proxy_core, self.other_cores)
    }

    /// What the origin has seen since the last reset.
    pub fn seen(&self) -> Result<Value, Failure> {
        self.ask("/counts")
    }

    /// What it has seen; then it forgets it.
    pub fn reset(&self) -> Result<Value, Failure> {
        self.ask("/reset")
    }

    fn ask(&self, path: &str) -> Result<Value, Failure> {
        let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, self.control)))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        let body = text.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        Ok(serde_json::from_str(body)?)
    }

    /// Starts a generator.
    pub fn load(&self, port: u16, options: &str) -> Result<Process, Failure> {
        let args = format!(
            "load --address 127.0.0.1:{port} --work {} --threads {} {options}",
            self.work.display(),
            self.threads
        );
        Process::start(Start {
            what: "the generator",
            program: &std::env::current_exe()?,
            args: args.split_whitespace().map(str::to_owned).collect(),
            cores: &self.other_cores,
            env: Vec::new(),
            log: &self.work.join("load.log"),
            listen: true,
        })
    }
}

/// A counter of what the origin tells.
pub fn count(seen: &Value, name: &str) -> u64 {
    seen.get(name).and_then(Value::as_u64).unwrap_or(0)
}
