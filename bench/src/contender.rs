//! The contenders: countersign and its peers, each from a template in `peers/`.

use std::path::{Path, PathBuf};

use crate::process::{Process, Start, free_port};
use crate::stage::Stage;
use crate::{Failure, job};

/// Whose manners it has.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Kind {
    Countersign,
    Haproxy,
    Nginx,
}

/// Something that can do the job.
#[derive(Clone, Debug)]
pub struct Contender {
    /// Its column in the tables.
    pub name: String,
    pub kind: Kind,
    pub program: PathBuf,
}

/// A contender that serves.
pub struct Running {
    pub process: Process,
    pub port: u16,
    /// Where `countersign-counted` tells its counts.
    pub counts: u16,
}

impl Contender {
    /// Reads `nginx`, `haproxy`, `countersign`, or `NAME=PROGRAM`: another build, told apart by how its name begins.
    pub fn read(text: &str, proxy: &Path) -> Self {
        let (name, program) = match text.split_once('=') {
            Some((name, program)) => (name, Some(PathBuf::from(program))),
            None => (text, None),
        };
        let (kind, usual) = if name.starts_with("nginx") {
            (Kind::Nginx, PathBuf::from("nginx"))
        } else if name.starts_with("haproxy") {
            (Kind::Haproxy, PathBuf::from("haproxy"))
        } else {
            (Kind::Countersign, proxy.to_owned())
        };
        Self { name: name.to_owned(), kind, program: program.unwrap_or(usual) }
    }

    /// Starts it in front of this port of the origin.
    pub fn start(&self, stage: &Stage, upstream: u16) -> Result<Running, Failure> {
        let (port, admin, counts) = (free_port()?, free_port()?, free_port()?);
        let (template, file) = match self.kind {
            Kind::Countersign => (include_str!("../peers/countersign.toml.in"), "toml"),
            Kind::Haproxy => (include_str!("../peers/haproxy.cfg.in"), "cfg"),
            Kind::Nginx => (include_str!("../peers/nginx.conf.in"), "conf"),
        };
        let work = &stage.work;
        // nginx's scratch directories and pid file must not be shared by two of them.
        let own = work.join(format!("{}-{port}", self.name));
        std::fs::create_dir_all(&own)?;
        for part in ["ca.crt", "proxy.crt", "proxy.key", "proxy.pem"] {
            std::fs::copy(work.join(part), own.join(part))?;
        }
        let values = [
            ("@WORK@", own.display().to_string()),
            ("@PORT@", port.to_string()),
            ("@ADMIN@", admin.to_string()),
            ("@UPSTREAM@", upstream.to_string()),
            ("@ORIGIN@", stage.origin.to_string()),
            ("@HOST@", format!("localhost:{}", stage.origin)),
            ("@OWNER@", job::OWNER.to_owned()),
            ("@TOKEN@", job::token()),
            ("@KEY_SHA256@", job::CLIENT_KEY_SHA256.to_owned()),
            ("@WORKERS@", "1".to_owned()),
        ];
        let config = values.iter().fold(template.to_owned(), |text, (name, value)| text.replace(name, value));
        let config_file = own.join(format!("config.{file}"));
        std::fs::write(&config_file, config)?;
        let path = config_file.display().to_string();
        let args = match self.kind {
            Kind::Countersign => vec!["run".to_owned(), "-c".to_owned(), path],
            Kind::Haproxy => vec!["-db".to_owned(), "-f".to_owned(), path],
            Kind::Nginx => vec!["-p".to_owned(), own.display().to_string(), "-c".to_owned(), path],
        };
        let log = own.join("log");
        let mut process = Process::start(Start {
            what: &self.name,
            program: &self.program,
            args,
            cores: &stage.proxy_core,
            env: vec![("BENCH_SECRET", job::SECRET.to_owned()), ("BENCH_COUNTS", format!("127.0.0.1:{counts}"))],
            log: &log,
            listen: false,
        })?;
        process.listens(port, &log)?;
        Ok(Running { process, port, counts })
    }
}
