//! The `url` of a store.

use super::redis_settings::{RedisAddress, RedisTopology};

/// More addresses than this are a mistake.
const MOST_ADDRESSES: usize = 32;
const FORMS: &str = "write `memory:`, `file:PATH`, `redis://HOST:PORT/0`, `redis+sentinel://HOST:PORT,HOST:PORT/SERVICE` \
                     or `redis+cluster://HOST:PORT,HOST:PORT`; with TLS `rediss` instead of `redis`";
const SENTINELS: &str = "write the addresses of the Sentinels and the name of the master, as in \
                         `redis+sentinel://a:26379,b:26379,c:26379/mymaster`";
const CLUSTER: &str =
    "write addresses of nodes, as in `redis+cluster://a:6379,b:6379`; a Cluster has no numbered databases";
const SEVERAL: &str = "several addresses are of Sentinels or of a Cluster: write `redis+sentinel://HOST,HOST/SERVICE` or \
                       `redis+cluster://HOST,HOST`";
const NUMBER: &str = "behind the host stands the number of a database, as in `/0`";

/// The parsed `url` of a store.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum StoreUrl {
    /// `file:PATH`, as it is written.
    File(String),
    /// The URL `memory:`, with nothing after the colon.
    Memory,
    /// `redis://HOST[:PORT][/DATABASE]`, `redis+sentinel://HOST[:PORT],…/SERVICE[/DATABASE]` or
    /// `redis+cluster://HOST[:PORT],…`; with TLS `rediss://` and so on.
    Redis {
        /// True for `rediss`, false for `redis`.
        tls: bool,
        topology: RedisTopology,
        /// The number of the database; 0 if none is named.
        database: u32,
    },
}

impl StoreUrl {
    /// Reads a `url`. The error says what to write instead, and quotes nothing.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        if url == "memory:" {
            return Ok(Self::Memory);
        }
        if let Some(path) = url.strip_prefix("file:") {
            return match path {
                "" => Err("write the path behind it, as in `file:var/countersign.redb`"),
                _ if path.starts_with("//") => Err("write the path alone, as in `file:/var/lib/countersign.redb`"),
                _ => Ok(Self::File(path.to_owned())),
            };
        }
        let (scheme, rest) = url.split_once("://").ok_or(FORMS)?;
        let (tls, form) = match scheme.strip_prefix("rediss") {
            Some(form) => (true, form),
            None => (false, scheme.strip_prefix("redis").ok_or(FORMS)?),
        };
        if rest.contains('@') {
            return Err("write user and password as `username` and `password` beside it");
        }
        let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
        match form {
            "" => {
                if authority.contains(',') {
                    return Err(SEVERAL);
                }
                let database = number(path)?;
                let topology = RedisTopology::Single(address(authority, 6379).ok_or(FORMS)?);
                Ok(Self::Redis { tls, topology, database })
            }
            "+sentinel" => {
                let (service, database) = path.split_once('/').unwrap_or((path, ""));
                let database = number(database)?;
                let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
                if service.is_empty() || !service.bytes().all(plain) {
                    return Err(SENTINELS);
                }
                let sentinels = addresses(authority, 26379, SENTINELS)?;
                let topology = RedisTopology::Sentinel { sentinels, service: service.to_owned() };
                Ok(Self::Redis { tls, topology, database })
            }
            "+cluster" => {
                if !matches!(path, "" | "0") {
                    return Err(CLUSTER);
                }
                let topology = RedisTopology::Cluster(addresses(authority, 6379, CLUSTER)?);
                Ok(Self::Redis { tls, topology, database: 0 })
            }
            _ => Err(FORMS),
        }
    }
}

fn number(text: &str) -> Result<u32, &'static str> {
    if text.is_empty() { Ok(0) } else { decimal(text).ok_or(NUMBER) }
}

/// Reads addresses that are separated by commas, each once.
fn addresses(text: &str, port: u16, help: &'static str) -> Result<Vec<RedisAddress>, &'static str> {
    let mut all = Vec::new();
    for part in text.split(',') {
        let found = address(part, port).ok_or(help)?;
        if all.contains(&found) {
            return Err("an address stands there twice: write each once");
        }
        if all.len() == MOST_ADDRESSES {
            return Err("name some of the addresses, 32 at most: the others are found by them");
        }
        all.push(found);
    }
    Ok(all)
}

/// Reads `HOST` or `HOST:PORT`.
fn address(authority: &str, port: u16) -> Option<RedisAddress> {
    let (host, rest) = match authority.strip_prefix('[') {
        Some(inner) => {
            let (host, rest) = inner.split_once(']')?;
            host.parse::<std::net::Ipv6Addr>().ok()?;
            (host, rest)
        }
        None => {
            let (host, rest) = authority.split_at(authority.find(':').unwrap_or(authority.len()));
            let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
            host.bytes().all(plain).then_some((host, rest))?
        }
    };
    let port = match rest.strip_prefix(':') {
        Some(port) => decimal(port).filter(|port| *port != 0)?,
        None if rest.is_empty() => port,
        None => None?,
    };
    (!host.is_empty()).then(|| RedisAddress { host: host.to_owned(), port })
}

/// Digits only: `parse` alone would take a sign.
fn decimal<T: std::str::FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> RedisAddress {
        RedisAddress { host: host.to_owned(), port }
    }

    #[test]
    fn a_url_says_where() {
        let redis = |tls, topology, database| StoreUrl::Redis { tls, topology, database };
        let single = |host, port| RedisTopology::Single(at(host, port));
        let sentinels = |sentinels: &[(&str, u16)]| RedisTopology::Sentinel {
            sentinels: sentinels.iter().map(|(host, port)| at(host, *port)).collect(),
            service: "my-master".to_owned(),
        };
        for (url, place) in [
            ("memory:", StoreUrl::Memory),
            ("file:var/a.redb", StoreUrl::File("var/a.redb".to_owned())),
            ("file:/var/a.redb", StoreUrl::File("/var/a.redb".to_owned())),
            ("redis://h", redis(false, single("h", 6379), 0)),
            ("redis://h/", redis(false, single("h", 6379), 0)),
            ("rediss://r.corp:7000/3", redis(true, single("r.corp", 7000), 3)),
            ("redis://[::1]:7000/3", redis(false, single("::1", 7000), 3)),
            ("redis+sentinel://a,b:7/my-master", redis(false, sentinels(&[("a", 26379), ("b", 7)]), 0)),
            ("rediss+sentinel://[::1]/my-master/4", redis(true, sentinels(&[("::1", 26379)]), 4)),
            ("redis+cluster://a", redis(false, RedisTopology::Cluster(vec![at("a", 6379)]), 0)),
            ("rediss+cluster://a:1,b:2/0", redis(true, RedisTopology::Cluster(vec![at("a", 1), at("b", 2)]), 0)),
        ] {
            assert_eq!(StoreUrl::parse(url), Ok(place), "{url}");
        }
    }

    #[test]
    fn a_wrong_url_is_told_what_to_write() {
        for (url, help) in [
            ("", "`memory:`"),
            ("memory", "`memory:`"),
            ("memory:x", "`memory:`"),
            ("file:", "write the path"),
            ("file:///a", "write the path"),
            ("redis:h", "`redis://HOST:PORT/0`"),
            ("redis://", "`redis://HOST:PORT/0`"),
            ("redis://:1", "`redis://HOST:PORT/0`"),
            ("redis://h:0", "`redis://HOST:PORT/0`"),
            ("redis://h:+1", "`redis://HOST:PORT/0`"),
            ("redis://h:70000", "`redis://HOST:PORT/0`"),
            ("redis://h/x", "the number of a database"),
            ("redis://h/-1", "the number of a database"),
            ("redis://h/1/2", "the number of a database"),
            ("redis://u:p@h", "`username`"),
            ("redis://h?x=1", "`redis://HOST:PORT/0`"),
            ("redis://[::1", "`redis://HOST:PORT/0`"),
            ("redis://[h]", "`redis://HOST:PORT/0`"),
            ("http://h", "`redis+cluster://HOST:PORT,HOST:PORT`"),
            ("redis-sentinel://h/m", "`redis+sentinel://HOST:PORT,HOST:PORT/SERVICE`"),
            ("redis://a,b", "`redis+cluster://HOST,HOST`"),
            ("redis+sentinel://a,b", "the name of the master"),
            ("redis+sentinel://a,/m", "the name of the master"),
            ("redis+sentinel://a/m aster", "the name of the master"),
            ("redis+sentinel://a/m/x", "the number of a database"),
            ("redis+sentinel://a,a/m", "twice"),
            ("redis+sentinel://u:p@a/m", "`username`"),
            ("redis+cluster://a/1", "no numbered databases"),
            ("redis+cluster://", "addresses of nodes"),
            ("redis+cluster://a:1,a:1", "twice"),
        ] {
            let told = StoreUrl::parse(url).expect_err(url);
            assert!(told.contains(help), "{url}: {told}");
        }
        let many: Vec<String> = (1..=33).map(|port| format!("a:{port}")).collect();
        assert!(StoreUrl::parse(&format!("redis+cluster://{}", many.join(","))).is_err());
    }
}
