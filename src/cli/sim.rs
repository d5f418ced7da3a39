//! `countersign sim`: the bank simulators alone, for developers without sandbox access.

use std::fs;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

use super::complain;
use super::run::wait_for_the_end;
use crate::base::time::Clock;
use crate::sim::{Authority, Bank, Options, Sim, SimHandle};

/// Runs the named simulators, or all, until told to stop.
pub fn run(names: &[String], write: Option<&Path>) -> ExitCode {
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
    match start(&banks).and_then(|sims| serve(&sims, write)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(1)
        }
    }
}

fn start(banks: &[Bank]) -> io::Result<Vec<SimHandle>> {
    let authority = Authority::new("countersign simulator CA", Clock::System.now()).map_err(io::Error::other)?;
    let begin = |bank: &Bank| Sim::start(*bank, Options { authority: Some(authority.clone()), ..Options::default() });
    banks.iter().map(begin).collect()
}

#[expect(clippy::print_stdout, reason = "addresses and settings are this command's result")]
fn serve(sims: &[SimHandle], write: Option<&Path>) -> io::Result<()> {
    let settings: String = sims.iter().map(|sim| sim.settings_toml() + "\n").collect();
    let ca = sims.first().map(SimHandle::ca_pem).unwrap_or_default();
    for sim in sims {
        println!("{:<11} {}   (help: https://{}/_sim/)", sim.bank().name(), sim.base_url(), sim.address());
    }
    match write {
        Some(folder) => {
            fs::create_dir_all(folder)?;
            fs::write(folder.join("sim-ca.crt"), &ca)?;
            write_private(&folder.join("proxy.toml"), &(listener(sims) + &settings))?;
            println!("\nReady: countersign run -c {}", folder.join("proxy.toml").display());
        }
        None => {
            println!("\nSave this as sim-ca.crt beside your proxy.toml:\n\n{ca}");
            println!("Paste this into your proxy.toml:\n\n{settings}");
        }
    }
    wait_for_the_end()
}

/// A listener on loopback with one route per bank, open to anyone on this machine.
fn listener(sims: &[SimHandle]) -> String {
    let mut text =
        String::from("[[listener]]\nname = \"gateway\"\nbind = \"127.0.0.1:8080\"\nclients = \"anyone\"\n\n");
    for sim in sims {
        let name = sim.bank().name();
        text += &format!("[[route]]\nname = \"{name}\"\npath = \"/{name}\"\nprovider = \"{name}\"\n\n");
    }
    text
}

/// The file holds simulated secrets; treat them as if they were real.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let mut options = fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path)?.write_all(text.as_bytes())
}
