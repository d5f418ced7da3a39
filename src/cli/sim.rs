//! `countersign sim`: the bank simulators alone, for developers without sandbox access.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use serde_json::{Value, json};

use super::record::conversations;
use super::run::wait_for_the_end;
use super::{complain, print};
use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::Clock;
use crate::provider::Profile;
use crate::sim::{Bank, Sim, SimAuthority, SimHandle, SimMemory, SimOptions};

/// The first line of a config that this command wrote, and may replace.
const MARK: &str = "# Written by `countersign sim --write`, which replaces this file as long as this line is in it.\n";

/// The file of a folder that says what its simulators have drawn.
const MEMORY: &str = "sim-memory.json";

/// Where and how the answer is given.
#[derive(Debug)]
pub struct SimOutput {
    /// The folder for a ready config.
    pub write: Option<PathBuf>,
    /// The profile of the bank that comes without one.
    pub profile: Option<PathBuf>,
    /// The address at which that config listens.
    pub bind: Option<SocketAddr>,
    /// One document on one line, for a program.
    pub json: bool,
}

/// Runs the named simulators, or all, until told to stop.
pub fn run_sim(names: &[String], from: Option<&Path>, output: &SimOutput) -> ExitCode {
    let write = output.write.as_deref();
    let mut banks = Vec::new();
    match from.map(recorded_banks).transpose() {
        Ok(recorded) => banks.extend(recorded.into_iter().flatten()),
        Err(why) => {
            complain(&why);
            return ExitCode::from(2);
        }
    }
    for name in names {
        match bank(name) {
            Ok(bank) if banks.contains(&bank) => {}
            Ok(bank) => banks.push(bank),
            Err(why) => {
                complain(&why);
                return ExitCode::from(2);
            }
        }
    }
    if banks.is_empty() {
        banks.extend(Bank::ALL);
    }
    let without_profile = banks.iter().filter(|bank| lacks_profile(bank)).count();
    if output.profile.is_some() && without_profile != 1 {
        complain(&format!(
            "`--profile` is for one FILE whose bank has no built-in profile, and here are {without_profile} of them"
        ));
        return ExitCode::from(2);
    }
    if let Some(foreign) = write.map(|folder| folder.join("proxy.toml")).filter(|file| !may_be_replaced(file)) {
        complain(&format!(
            "{} is not a file that `sim` wrote, so it stays as it is; name another folder with `--write`",
            foreign.display()
        ));
        return ExitCode::from(2);
    }
    match remembered(write).and_then(|memory| serve(&start(&banks, &memory)?, output, &memory)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&error.to_string());
            ExitCode::from(1)
        }
    }
}

/// The banks that a recording, or a folder of them, tells of: one for each profile. The error is for a person.
fn recorded_banks(path: &Path) -> Result<Vec<Bank>, String> {
    let read = conversations(path)?;
    let mut profiles: Vec<&str> = read.iter().map(|(_, found)| found.profile.as_str()).collect();
    profiles.sort_unstable();
    profiles.dedup();
    if let Some((file, _)) = read.iter().find(|(_, found)| found.profile.is_empty()) {
        return Err(format!(
            "{} was not recorded, so it does not say what it answers to: record the bank (docs/record.md), or write a \
             simulator of it (docs/simulators.md)",
            file.display()
        ));
    }
    let bank = |profile: &&str| {
        let own: Vec<_> = read.iter().map(|(_, found)| found).filter(|found| found.profile == *profile).collect();
        Bank::of_recordings(profile, &own).map_err(|why| format!("{} cannot be simulated: {why}", path.display()))
    };
    profiles.iter().map(bank).collect()
}

/// The bank of a name, or of a file that describes one. The error is for a person.
fn bank(name: &str) -> Result<Bank, String> {
    if let Some(bank) = Bank::named(name) {
        return Ok(bank);
    }
    let path = Path::new(name);
    if !name.contains('/') && path.extension().is_none() {
        let known: Vec<&str> = Bank::known().map(Bank::name).collect();
        return Err(format!("no simulator is called `{}`; there are: {}", name.escape_debug(), known.join(", ")));
    }
    let text = fs::read_to_string(path).map_err(|error| format!("{name} cannot be read: {error}"))?;
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or("bank");
    Bank::of_file(stem, &text).map_err(|error| match is_profile(&text) {
        true => format!("{name} is a profile; a simulator is another file (docs/simulators.md)"),
        false => format!("{name} describes no bank: {error}"),
    })
}

/// Returns whether a text is that of a profile: it has sections that no file of a simulator has.
fn is_profile(text: &str) -> bool {
    let table = toml::from_str::<toml::Table>(text).unwrap_or_default();
    ["extends", "name", "refusal", "request"].iter().any(|key| table.contains_key(*key))
}

/// Returns whether no profile that comes with countersign is called like the bank.
fn lacks_profile(bank: &Bank) -> bool {
    Profile::builtin(bank.name()).is_none()
}

/// Reads what the last simulators of a folder drew, so that those that start now are the same banks.
fn remembered(folder: Option<&Path>) -> io::Result<SimMemory> {
    let Some(file) = folder.map(|folder| folder.join(MEMORY)) else { return Ok(SimMemory::default()) };
    match fs::read_to_string(&file) {
        Ok(text) => SimMemory::read(&text)
            .map_err(|error| io::Error::other(format!("{}: {error}; remove the file to begin anew", file.display()))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(SimMemory::default()),
        Err(error) => Err(io::Error::other(format!("{} cannot be read: {error}", file.display()))),
    }
}

fn start(banks: &[Bank], memory: &SimMemory) -> io::Result<Vec<SimHandle>> {
    let authority = SimAuthority::remembered("countersign simulator CA", Clock::System.now(), memory);
    let authority = authority.map_err(io::Error::other)?;
    let options = || SimOptions { authority: Some(authority.clone()), memory: memory.clone(), ..SimOptions::default() };
    banks.iter().map(|bank| Sim::start(*bank, options())).collect()
}

/// A config that was written, and the addresses in it.
struct WrittenConfig {
    file: PathBuf,
    bind: SocketAddr,
    admin: SocketAddr,
    /// Banks whose profile has to be named before the config holds.
    without_profile: Vec<String>,
}

fn serve(sims: &[SimHandle], output: &SimOutput, memory: &SimMemory) -> io::Result<()> {
    let settings: String = sims.iter().map(|sim| sim.settings_toml() + "\n").collect();
    let ca = sims.first().map(SimHandle::ca_pem).unwrap_or_default();
    let written = match &output.write {
        Some(folder) => Some(write_config(sims, folder, output, &ca, memory)?),
        None => None,
    };
    if output.json {
        print(&format!("{}\n", as_json(sims, written.as_ref(), &settings, &ca)));
    } else {
        print(&as_text(sims, written.as_ref(), &settings, &ca));
    }
    wait_for_the_end()
}

/// Writes the CA, the secrets, the keys and the config into a folder, and what the next start has to know.
fn write_config(
    sims: &[SimHandle],
    folder: &Path,
    output: &SimOutput,
    ca: &str,
    memory: &SimMemory,
) -> io::Result<WrittenConfig> {
    let bind = output.bind.map_or_else(|| proxy_address("proxy/listener", 8080, memory), Ok)?;
    let admin = match bind.port() {
        0 => (Ipv4Addr::LOCALHOST, 0).into(),
        _ => proxy_address("proxy/admin", 9901, memory)?,
    };
    if bind.port() != 0 {
        memory.note("proxy/listener", bind.to_string());
        memory.note("proxy/admin", admin.to_string());
    }
    let file = folder.join("proxy.toml");
    // A relative path would count from the folder of the config.
    let profile = output.profile.as_ref().map(std::path::absolute).transpose()?;
    let profile = profile.map(|path| path.display().to_string());
    fs::create_dir_all(folder)?;
    fs::write(folder.join("sim-ca.crt"), ca)?;
    let mut config = MARK.to_owned() + &listener(sims, bind, admin);
    for sim in sims {
        let (mut settings, files) = sim.settings_and_files();
        if let (Some(profile), true) = (&profile, lacks_profile(&sim.bank())) {
            settings = settings.replacen(&profile_line(sim.bank().name()), &profile_line(profile), 1);
        }
        config += &(settings + "\n");
        for (name, content) in files {
            write_private(&folder.join(name), content.expose_secret())?;
        }
    }
    write_private(&folder.join(MEMORY), memory.write().expose_secret())?;
    write_private(&file, &config)?;
    let nameless = sims.iter().map(SimHandle::bank).filter(|bank| profile.is_none() && lacks_profile(bank));
    let without_profile = nameless.map(|bank| bank.name().to_owned()).collect();
    Ok(WrittenConfig { file, bind, admin, without_profile })
}

/// The line of a `[provider.NAME]` that names its profile.
fn profile_line(profile: &str) -> String {
    format!("profile = {}\n", toml::Value::String(profile.to_owned()))
}

fn as_text(sims: &[SimHandle], written: Option<&WrittenConfig>, settings: &str, ca: &str) -> String {
    let mut text = String::from("Simulated banks, until Ctrl-C:\n\n");
    for sim in sims {
        let _ = writeln!(text, "  {:<18} {}", sim.bank().name(), sim.base_url());
    }
    text += "\nEach explains itself and takes its faults at /_sim/";
    if let Some(first) = sims.first() {
        let _ = write!(text, ", as in: curl -k https://{}/_sim/", first.address());
    }
    text += "\n";
    match written {
        Some(WrittenConfig { file, bind, admin, without_profile }) => {
            for name in without_profile {
                let _ = writeln!(
                    text,
                    "\nNo built-in profile is called `{name}`: end this, and start it with `--profile PATH`; or name the \
                     profile's path at `profile =` of [provider.{name}] in {}.",
                    file.display()
                );
            }
            let _ = writeln!(text, "\nIn another terminal:\n\n  countersign run -c {}", file.display());
            if let (Some(first), true) = (sims.first(), bind.port() != 0) {
                let _ = writeln!(text, "  curl -i http://{bind}/{}/echo/hello", first.bank().name());
                let _ = writeln!(text, "\nThe dashboard is then at http://{admin}/");
            }
        }
        None => {
            let _ = writeln!(text, "\nSave this as sim-ca.crt beside your proxy.toml:\n\n{ca}");
            for (name, content) in key_files(sims) {
                let _ = writeln!(text, "Save this as {name} beside your proxy.toml:\n\n{}", content.expose_secret());
            }
            let _ = writeln!(text, "Paste this into your proxy.toml:\n\n{settings}");
        }
    }
    text
}

/// The same for a program. What `--write` puts into files is in the document otherwise: `files` and `settings` hold
/// simulated secrets.
fn as_json(sims: &[SimHandle], written: Option<&WrittenConfig>, settings: &str, ca: &str) -> Value {
    let bank = |sim: &SimHandle| {
        json!({
            "name": sim.bank().name(),
            "url": sim.base_url().to_string(),
            "control": format!("https://{}/_sim/", sim.address()),
        })
    };
    let banks: Vec<Value> = sims.iter().map(bank).collect();
    // Port 0 is any free one, which `run` will choose.
    let chosen = |address: SocketAddr| (address.port() != 0).then(|| address.to_string());
    let file = |(name, content): (String, SecretString)| json!({ "name": name, "content": content.expose_secret() });
    let files: Vec<Value> = match written {
        Some(_) => Vec::new(),
        None => key_files(sims).into_iter().map(file).collect(),
    };
    json!({
        "banks": banks,
        "ca": ca,
        "config": written.map(|written| written.file.display().to_string()),
        "listener": written.and_then(|written| chosen(written.bind)),
        "admin": written.and_then(|written| chosen(written.admin)),
        "settings": if written.is_some() { Value::Null } else { settings.into() },
        "files": files,
    })
}

/// The keys of the banks' clients: names of files and their contents.
fn key_files(sims: &[SimHandle]) -> Vec<(String, SecretString)> {
    sims.iter().flat_map(|sim| sim.key_files(sim.bank().name())).collect()
}

/// Returns whether there is no file at this path, or one that `sim` wrote.
fn may_be_replaced(file: &Path) -> bool {
    match fs::read_to_string(file) {
        Ok(text) => text.starts_with(MARK),
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// Returns the loopback address that the last config of this folder had, which a running proxy may have taken, or a free
/// one: of the usual port if nothing listens there.
fn proxy_address(place: &str, usual: u16, memory: &SimMemory) -> io::Result<SocketAddr> {
    if let Some(known) = memory.known(place).and_then(|known| known.expose_secret().parse().ok()) {
        return Ok(known);
    }
    let usual = TcpListener::bind((Ipv4Addr::LOCALHOST, usual));
    usual.or_else(|_| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?.local_addr()
}

/// A listener on loopback with one route per bank, open to anyone on this machine, and an admin listener.
fn listener(sims: &[SimHandle], bind: SocketAddr, admin: SocketAddr) -> String {
    let mut text = format!(
        "[[listener]]\nname = \"gateway\"\nbind = \"{bind}\"\nclients = \"anyone\"\n\n\
         [admin]\nbind = \"{admin}\"\n\n"
    );
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
