//! `NO_PROXY` in the strictest form that all clients read alike.
//!
//! They disagree: for curl and Go `bank.example` covers its sub-domains, for .NET only itself; Python's requests
//! compares endings without regard to dots; .NET and Go know no `*`. So each domain is written twice
//! (`bank.example,.bank.example`), and an entry that any client could take for a routed host is left out.

use std::net::IpAddr;

use ipnet::IpNet;

/// The hosts that clients reach without the proxy.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Bypass {
    entries: Vec<BypassRule>,
    /// Entries that would have covered a routed host, as they were written.
    pub dropped: Vec<String>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum BypassRule {
    Address(IpAddr),
    Domain(String),
    Network(IpNet),
    /// `host:port`: some clients know it.
    WithPort(String),
}

impl Bypass {
    /// Loopback and what `before` lists, without anything that covers one of the `routed` hosts.
    pub fn new(before: &str, routed: &[String]) -> Self {
        let mut bypass = Self::default();
        let listed = before.split([',', ' ']).map(str::trim).filter(|word| !word.is_empty());
        for word in ["localhost", "127.0.0.1", "::1"].into_iter().chain(listed) {
            let Some(entry) = BypassRule::read(word) else {
                bypass.dropped.push(word.to_owned());
                continue;
            };
            if routed.iter().any(|host| entry.covers(host)) {
                bypass.dropped.push(word.to_owned());
            } else if !bypass.entries.contains(&entry) {
                bypass.entries.push(entry);
            }
        }
        bypass
    }

    /// Formats the entries as a value of `NO_PROXY`.
    pub fn no_proxy(&self) -> String {
        let entry = |entry: &BypassRule| match entry {
            BypassRule::Address(address) => address.to_string(),
            BypassRule::Domain(domain) if domain.contains('.') => format!("{domain},.{domain}"),
            BypassRule::Domain(domain) => domain.clone(),
            BypassRule::Network(net) => net.to_string(),
            BypassRule::WithPort(text) => text.clone(),
        };
        self.entries.iter().map(entry).collect::<Vec<_>>().join(",")
    }

    /// As Java's `http.nonProxyHosts`, which knows `*` at either end, and neither networks nor ports.
    pub fn java(&self) -> String {
        let entry = |entry: &BypassRule| match entry {
            BypassRule::Address(IpAddr::V4(address)) => Some(address.to_string()),
            BypassRule::Address(IpAddr::V6(address)) => Some(format!("[{address}]")),
            BypassRule::Domain(domain) if domain.contains('.') => Some(format!("{domain}|*.{domain}")),
            BypassRule::Domain(domain) => Some(domain.clone()),
            BypassRule::Network(_) | BypassRule::WithPort(_) => None,
        };
        self.entries.iter().filter_map(entry).collect::<Vec<_>>().join("|")
    }
}

impl BypassRule {
    /// Parses an entry. `None` for `*` and for text that is no host at all.
    fn read(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        let bare = word.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(&word);
        if let Ok(address) = bare.parse() {
            return Some(BypassRule::Address(address));
        }
        if let Ok(net) = bare.parse::<IpNet>() {
            return Some(BypassRule::Network(net.trunc()));
        }
        let domain = bare.strip_prefix('*').unwrap_or(bare).trim_matches('.');
        let plain = |text: &str| {
            let plain = text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b));
            plain && !text.is_empty()
        };
        match domain.split_once(':') {
            None => plain(domain).then(|| BypassRule::Domain(domain.to_owned())),
            Some((host, port)) => {
                (plain(host) && port.parse::<u16>().is_ok()).then(|| BypassRule::WithPort(domain.to_owned()))
            }
        }
    }

    /// Returns whether some client could apply the entry to `host`. Endings are compared without regard to dots, as
    /// requests does.
    fn covers(&self, host: &str) -> bool {
        let host = host.to_ascii_lowercase();
        let address = host.parse::<IpAddr>().ok();
        match self {
            BypassRule::Address(own) => address == Some(*own),
            BypassRule::Domain(domain) => host.ends_with(domain.as_str()),
            BypassRule::Network(net) => address.is_some_and(|address| net.contains(&address)),
            BypassRule::WithPort(text) => text.split_once(':').is_some_and(|(own, _)| host.ends_with(own)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn routed(hosts: &[&str]) -> Vec<String> {
        hosts.iter().map(|host| (*host).to_owned()).collect()
    }

    #[test]
    fn loopback_goes_around_and_so_does_what_was_listed() {
        let bypass = Bypass::new("Corp.example, *.intra.example,10.0.0.0/8 db:5432", &routed(&["api.bank.example"]));
        let all = "localhost,127.0.0.1,::1,corp.example,.corp.example,intra.example,.intra.example,10.0.0.0/8,db:5432";
        assert_eq!(bypass.no_proxy(), all);
        assert_eq!(
            bypass.java(),
            "localhost|127.0.0.1|[::1]|corp.example|*.corp.example|intra.example|*.intra.example"
        );
        assert!(bypass.dropped.is_empty());
    }

    #[test]
    fn a_routed_host_is_never_covered() {
        for (word, host) in [
            ("*", "api.bank.example"),
            ("bank.example", "api.bank.example"),
            (".bank.example", "api.bank.example"),
            ("*.example", "api.bank.example"),
            ("api.bank.example.", "api.bank.example"),
            ("*bank.example", "api.bank.example"),
            ("ank.example", "api.bank.example"),
            ("API.bank.example:443", "api.bank.example"),
            ("10.0.0.0/8", "10.1.2.3"),
            ("10.1.2.3", "10.1.2.3"),
            ("[fd00::1]", "fd00::1"),
        ] {
            let bypass = Bypass::new(word, &routed(&[host]));
            assert_eq!(bypass.dropped, [word]);
            assert_eq!(bypass.no_proxy(), "localhost,127.0.0.1,::1", "{word}");
        }
    }

    #[test]
    fn localhost_is_left_out_where_it_has_a_route() {
        let bypass = Bypass::new("localhost", &routed(&["localhost", "127.0.0.1"]));
        assert_eq!(bypass.no_proxy(), "::1");
        assert_eq!(bypass.java(), "[::1]");
        assert_eq!(bypass.dropped, ["localhost", "127.0.0.1", "localhost"]);
        let all = Bypass::new("", &routed(&["localhost", "127.0.0.1", "::1"]));
        assert_eq!((all.no_proxy(), all.java()), (String::new(), String::new()));
    }
}
