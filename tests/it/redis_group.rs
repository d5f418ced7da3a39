//! Several real Redis that belong together: a master with replicas and Sentinels, and a Cluster.

use std::fmt::Write as _;

use crate::redis_server::RedisServer;

/// The name of the master at the Sentinels.
pub const SERVICE: &str = "tokens";

/// A master, two replicas, and three Sentinels that watch them.
pub struct SentinelGroup {
    /// The master first.
    pub servers: Vec<RedisServer>,
    pub sentinels: Vec<RedisServer>,
}

impl SentinelGroup {
    /// `more` are further lines for servers and for Sentinels; `login` is for the tools of both.
    pub fn start(more: [&str; 2], login: &[&str]) -> Self {
        let [of_servers, of_sentinels] = more;
        let ports = if of_servers.contains("tls-port") { "tls-replication yes\n" } else { "" };
        let config = format!("repl-diskless-sync-delay 0\n{ports}{of_servers}");
        let master = RedisServer::with(&config, login);
        let replica = || RedisServer::with(&format!("{config}\nreplicaof 127.0.0.1 {}", master.port), login);
        let (one, two) = (replica(), replica());
        let watched = format!(
            "sentinel monitor {SERVICE} 127.0.0.1 {} 2\nsentinel down-after-milliseconds {SERVICE} 500\n\
             sentinel failover-timeout {SERVICE} 5000\n{ports}{of_sentinels}",
            master.port
        );
        let servers = vec![master, one, two];
        servers[0].until(&["INFO", "replication"], |told| told.matches("state=online").count() == 2);
        let sentinels: Vec<_> = (0..3).map(|_| RedisServer::sentinel(&watched, login)).collect();
        for sentinel in &sentinels {
            sentinel.until(&["SENTINEL", "CKQUORUM", SERVICE], |told| told.starts_with("OK 3"));
            sentinel.until(&["SENTINEL", "REPLICAS", SERVICE], |told| told.matches("runid").count() == 2);
        }
        Self { servers, sentinels }
    }

    /// Returns what `url` of `[store]` says behind the scheme.
    pub fn place(&self) -> String {
        let sentinels: Vec<_> = self.sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
        format!("{}/{SERVICE}", sentinels.join(","))
    }
}

/// Masters that share the slots, and as many replicas.
pub struct ClusterGroup {
    /// Masters, and then their replicas in the same order.
    pub nodes: Vec<RedisServer>,
}

impl ClusterGroup {
    /// Three masters, with a replica each if `replicated`.
    pub fn start(replicated: bool, more: &str, login: &[&str]) -> Self {
        let config = format!(
            "cluster-enabled yes\ncluster-config-file nodes.conf\ncluster-port {{bus}}\ncluster-node-timeout 1000\n\
             cluster-require-full-coverage no\nrepl-diskless-sync-delay 0\n{more}"
        );
        let count = if replicated { 6 } else { 3 };
        let nodes: Vec<_> = (0..count).map(|_| RedisServer::with(&config, login)).collect();
        let group = Self { nodes };
        for (number, node) in group.nodes.iter().enumerate() {
            assert_eq!(node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(number + 1).to_string()]), "OK");
        }
        for node in &group.nodes[1..] {
            let bus = node.cli(&["CONFIG", "GET", "cluster-port"]);
            let bus = bus.lines().last().expect("a port");
            let met = group.nodes[0].cli(&["CLUSTER", "MEET", "127.0.0.1", &node.port.to_string(), bus]);
            assert_eq!(met, "OK");
        }
        for (node, [first, last]) in group.nodes.iter().zip([[0, 5460], [5461, 10922], [10923, 16383]]) {
            let (first, last) = (first.to_string(), last.to_string());
            assert_eq!(node.cli(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]), "OK");
        }
        for node in &group.nodes {
            node.until(&["CLUSTER", "INFO"], |told| {
                told.contains("cluster_state:ok") && told.contains(&format!("cluster_known_nodes:{count}"))
            });
        }
        for (replica, master) in group.nodes.iter().skip(3).zip(&group.nodes) {
            let id = master.cli(&["CLUSTER", "MYID"]);
            replica.until(&["CLUSTER", "REPLICATE", &id], |told| told == "OK");
            replica.until(&["INFO", "replication"], |told| told.contains("master_link_status:up"));
        }
        // Every node knows every role: failovers need the votes of masters.
        for node in &group.nodes {
            node.until(&["CLUSTER", "NODES"], |told| told.matches("slave").count() == count - 3);
        }
        group
    }

    /// Returns what `url` of `[store]` says behind the scheme: two of the masters.
    pub fn place(&self) -> String {
        let mut place = String::new();
        for node in &self.nodes[..2] {
            let _ = write!(place, "{}127.0.0.1:{}", if place.is_empty() { "" } else { "," }, node.port);
        }
        place
    }
}
