//! Which store, and what it occupies.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, TcpStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use countersign::base::secret::SecretString;
use countersign::base::time::Clock;
use countersign::store::{
    KeyRing, Patience, RedisAddress, RedisLogin, RedisSettings, RedisTopology, SealingKey, Store, StoreSettings,
};

use crate::Failure;
use crate::args::Args;

/// Where the records are.
pub enum Place {
    File(PathBuf),
    /// On loopback.
    Redis(u16),
}

/// A place and the key to it.
pub struct Where {
    pub place: Place,
    ring: Arc<KeyRing>,
}

impl Where {
    /// Reads `--file PATH` or `--redis PORT`, and `--key FILE`.
    pub fn read(args: &mut Args) -> Result<Self, Failure> {
        let place = match args.take("file") {
            Some(path) => Place::File(path.into()),
            None => Place::Redis(args.parse("redis")?),
        };
        let key = SecretString::from(fs::read_to_string(args.text("key")?)?);
        let ring = Arc::new(KeyRing::new(SealingKey::from_base64(&key)?, Vec::new()));
        Ok(Self { place, ring })
    }

    /// Opens the store and waits until it answers.
    pub async fn open(&self, patience: Patience) -> Result<Store, Failure> {
        let ring = self.ring.clone();
        let wish = match &self.place {
            Place::File(path) => StoreSettings::File { path: path.clone(), ring },
            Place::Redis(port) => StoreSettings::Redis(RedisSettings {
                topology: RedisTopology::Single(RedisAddress { host: Ipv4Addr::LOCALHOST.to_string(), port: *port }),
                database: 0,
                tls: None,
                login: RedisLogin::default(),
                sentinel_login: RedisLogin::default(),
                wait_replicas: 0,
                namespace: "countersign".to_owned(),
                ring,
            }),
        };
        let store = Store::open(&wish, patience, Clock::System).await?;
        store.reach(Duration::from_secs(5)).await?;
        Ok(store)
    }

    /// What it occupies: bytes, and of what.
    pub fn bytes(&self) -> Result<(f64, &'static str), Failure> {
        match &self.place {
            Place::File(path) => Ok((fs::metadata(path)?.len() as f64, "in the file")),
            Place::Redis(port) => {
                let memory = info(*port, "memory")?;
                let used = memory.lines().find_map(|line| line.strip_prefix("used_memory:"));
                Ok((used.ok_or("Redis does not say its used_memory")?.trim().parse()?, "of Redis's memory"))
            }
        }
    }

    /// How often Redis was asked what, since its start: command and number. Nothing for a file.
    pub fn commands(&self) -> Result<Vec<(String, u64)>, Failure> {
        let Place::Redis(port) = &self.place else { return Ok(Vec::new()) };
        let told = info(*port, "commandstats")?;
        let read = |line: &str| {
            let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
            Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
        };
        Ok(told.lines().filter_map(read).filter(|(name, _)| name != "info").collect())
    }
}

/// A section of what Redis says of itself.
fn info(port: u16, section: &str) -> Result<String, Failure> {
    let mut redis = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    redis.set_read_timeout(Some(Duration::from_secs(10)))?;
    redis.write_all(format!("INFO {section}\r\nQUIT\r\n").as_bytes())?;
    let mut told = String::new();
    redis.read_to_string(&mut told)?;
    Ok(told)
}
