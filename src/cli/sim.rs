//! `countersign sim`: the bank simulators alone, for developers without sandbox access.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::Path;
use std::process::ExitCode;

use super::run::wait_for_the_end;
use super::{complain, print};
use crate::base::time::Clock;
use crate::sim::{Bank, Sim, SimAuthority, SimHandle, SimOptions};

/// Runs the named simulators, or all, until told to stop.
pub fn run_sim(names: &[String], write: Option<&Path>, bind: Option<SocketAddr>) -> ExitCode {
    let mut banks = Vec::new();
    for name in names {
        match Bank::named(name) {
            Some(bank) if banks.contains(&bank) => {}
            Some(bank) => banks.push(bank),
            None => {
                let known: Vec<&str> = Bank::ALL.iter().map(|bank| bank.name()).collect();
                complain(&format!("no simulator is called `{}`; there are: {}", name.escape_debug(), known.join(", ")));
                return ExitCode::from(2);
            }
        }
    }
    if banks.is_empty() {
        banks.extend(Bank::ALL);
    }
    match start(&banks).and_then(|sims| serve(&sims, write, bind)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(1)
        }
    }
}

fn start(banks: &[Bank]) -> io::Result<Vec<SimHandle>> {
    let authority = SimAuthority::new("countersign simulator CA", Clock::System.now()).map_err(io::Error::other)?;
    let begin =
        |bank: &Bank| Sim::start(*bank, SimOptions { authority: Some(authority.clone()), ..SimOptions::default() });
    banks.iter().map(begin).collect()
}

fn serve(sims: &[SimHandle], write: Option<&Path>, bind: Option<SocketAddr>) -> io::Result<()> {
    let settings: String = sims.iter().map(|sim| sim.settings_toml() + "\n").collect();
    let ca = sims.first().map(SimHandle::ca_pem).unwrap_or_default();
    let mut text = String::from("Simulated banks, until Ctrl-C:\n\n");
    for sim in sims {
        let _ = writeln!(text, "  {:<11} {}", sim.bank().name(), sim.base_url());
    }
    text += "\nEach explains itself and takes its faults at /_sim/";
    if let Some(first) = sims.first() {
        let _ = write!(text, ", as in: curl -k https://{}/_sim/", first.address());
    }
    text += "\n";
    match write {
        Some(folder) => {
            let bind = bind.map_or_else(free_port, Ok)?;
            let file = folder.join("proxy.toml");
            fs::create_dir_all(folder)?;
            fs::write(folder.join("sim-ca.crt"), &ca)?;
            write_private(&file, &(listener(sims, bind) + &settings))?;
            let _ = writeln!(text, "\nIn another terminal:\n\n  countersign run -c {}", file.display());
            if let (Some(first), true) = (sims.first(), bind.port() != 0) {
                let _ = writeln!(text, "  curl -i http://{bind}/{}/echo/hello", first.bank().name());
            }
        }
        None => {
            let _ = writeln!(text, "\nSave this as sim-ca.crt beside your proxy.toml:\n\n{ca}");
            let _ = writeln!(text, "Paste this into your proxy.toml:\n\n{settings}");
        }
    }
    print(&text);
    wait_for_the_end()
}

/// Returns a free loopback address: port 8080 if nothing listens there, else a port that is free now.
fn free_port() -> io::Result<SocketAddr> {
    let usual = TcpListener::bind((Ipv4Addr::LOCALHOST, 8080));
    usual.or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?.local_addr()
}

/// A listener on loopback with one route per bank, open to anyone on this machine.
fn listener(sims: &[SimHandle], bind: SocketAddr) -> String {
    let mut text = format!("[[listener]]\nname = \"gateway\"\nbind = \"{bind}\"\nclients = \"anyone\"\n\n");
    for sim in sims {
        let name = sim.bank().name();
        text += &format!("[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprovider = \"{name}\"\n\n");
    }
    text
}

/// The file holds simulated secrets; treat them as if they were real.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;

    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}
