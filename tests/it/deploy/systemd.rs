//! `deploy/systemd`, judged by systemd.

use std::fs;

use tempfile::TempDir;

use super::placeholder_files::checked;
use super::tools::{machine, read, told};

/// The most exposure that we allow: `systemd-analyze security` counts from 0 to 10, here in tenths. It ends with "OK" up
/// to 4. What is left: the network, `NotifyAccess=all`, and one device for reading the clock.
const EXPOSURE: &str = "14";

/// The units as they are, but with a program that this machine has.
fn units() -> TempDir {
    let folder = TempDir::new().expect("a folder");
    for name in ["countersign.service", "countersign.socket"] {
        let unit = read(&format!("deploy/systemd/{name}"));
        let unit = unit.replace("/usr/local/bin/countersign", env!("CARGO_BIN_EXE_countersign"));
        fs::write(folder.path().join(name), unit).expect("written");
    }
    folder
}

#[test]
fn systemd_understands_every_line() {
    let units = units();
    let mut verify = machine("systemd-analyze");
    verify.args(["verify", "--man=no"]);
    verify.args(["countersign.service", "countersign.socket"].map(|name| units.path().join(name)));
    let said = told(&mut verify, "");
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""), "an unknown line is only complained of");
}

#[test]
fn the_service_is_exposed_to_little() {
    let mut security = machine("systemd-analyze");
    security.args(["security", "--offline=true", "--no-pager", "--threshold", EXPOSURE]);
    let said = told(security.arg(units().path().join("countersign.service")), "");
    assert!(said.out.contains("Overall exposure level"), "{said:?}");
    said.content("the service");
}

#[test]
fn the_units_and_their_config_speak_of_the_same_things() {
    let (service, socket) = (read("deploy/systemd/countersign.service"), read("deploy/systemd/countersign.socket"));
    let config = read("deploy/systemd/proxy.toml");
    let value = |unit: &str, key: &str| {
        let found = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        found.unwrap_or_else(|| panic!("no {key}")).to_owned()
    };
    assert!(config.contains(&format!("name = \"{}\"", value(&socket, "FileDescriptorName"))));
    assert!(config.contains(&format!("bind = \"[::]:{}\"", value(&socket, "ListenStream"))));
    let state = format!("file:/var/lib/{}/", value(&service, "StateDirectory"));
    let (id, _folder) =
        value(&service, "LoadCredential").split_once(':').map(|(a, b)| (a.to_owned(), b.to_owned())).expect("an id");
    assert!(config.contains(&state), "{state}");
    for path in checked("the unit's config", &config) {
        let credential = path.strip_prefix("/run/credentials/countersign.service/");
        assert!(credential.is_some_and(|name| name.starts_with(&format!("{id}_"))), "{path}");
    }
    for (key, expected) in
        [("Type", "notify"), ("NotifyAccess", "all"), ("DynamicUser", "yes"), ("CapabilityBoundingSet", "")]
    {
        assert_eq!(value(&service, key), expected, "{key}");
    }
}
