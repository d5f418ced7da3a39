//! A network of a test's own, with an address that the egress guard takes for a public one.

use std::net::Ipv4Addr;
use std::process::Command;

/// Set in the process that runs inside.
const INSIDE: &str = "COUNTERSIGN_TEST_INSIDE";

/// An address of the world outside, which here belongs to the loopback interface.
pub const PUBLIC: Ipv4Addr = Ipv4Addr::new(11, 22, 33, 44);

/// Runs the test of this name again in a network namespace, and there `body`.
pub fn alone(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let own = std::env::current_exe().expect("this program");
    let script = format!("ip link set lo up && ip addr add {PUBLIC}/32 dev lo && exec \"$@\"");
    let ended = Command::new("unshare")
        .args(["--map-root-user", "--net", "sh", "-c", &script, "sh"])
        .arg(own)
        .args([name, "--exact", "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .expect("unshare runs (package util-linux)");
    let told = String::from_utf8_lossy(&ended.stdout).into_owned() + &String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success() && told.contains("1 passed"), "{told}");
}
