//! `countersign init`: a config for one bank, with what it needs beside it.
//!
//! Everything can be said by flags, so it works without a terminal; at a terminal it asks for what is missing. Nothing
//! that exists is overwritten. Secrets are never taken from the command line: they are asked for at a terminal and go
//! into files that only their owner reads, or stay in environment variables.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, ErrorKind, IsTerminal as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueHint};
use rustix::termios::{LocalModes, OptionalActions, tcgetattr, tcsetattr};
use secrecy::{ExposeSecret as _, SecretString};

use super::check::CheckOutput;
use super::key::{BAD_NAME, client_key, is_client_name};
use super::known_names::KnownNames;
use super::{check, complain, print, profiles};
use crate::base::time::Clock;
use crate::provider::{DeclaredSetting, Profile};
use crate::sim::{LeafSpec, SimAuthority};

/// The time for which the certificates are valid.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

/// The arguments of `countersign init`.
#[derive(Args, Debug)]
pub struct InitArguments {
    /// The bank: the name of a built-in profile, or the path of a profile; `countersign profiles` lists them
    #[arg(value_parser = KnownNames::PROFILES, hide_possible_values = true)]
    bank: Option<String>,
    /// Folder to write into
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, default_value = ".")]
    dir: PathBuf,
    /// One of the bank's environments, such as sandbox
    #[arg(long, value_name = "NAME", conflicts_with = "base_url")]
    environment: Option<String>,
    /// Base URL of the bank's API, where the profile has no environments
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    base_url: Option<String>,
    /// The token endpoint, where the profile has none
    #[arg(long, value_name = "URL", value_hint = ValueHint::Url)]
    token_url: Option<String>,
    /// A setting of the profile that is no secret; may be repeated
    #[arg(long = "set", value_name = "NAME=VALUE")]
    settings: Vec<String>,
    /// Name of the application that may call
    #[arg(long, value_name = "NAME", default_value = "app")]
    client: String,
    /// Address to listen on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8443")]
    bind: SocketAddr,
    /// Address of the admin listener, with the dashboard
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9901")]
    admin: SocketAddr,
    /// Listen without TLS; on loopback only
    #[arg(long)]
    plain: bool,
    /// Try the bank at the end, as `check --live` does
    #[arg(long)]
    live: bool,
}

impl InitArguments {
    /// The arguments for a profile that was just written, with everything else as usual.
    pub(super) fn of_profile(profile: &Path, folder: &Path, base_url: String) -> Self {
        Self {
            bank: Some(profile.display().to_string()),
            dir: folder.to_owned(),
            environment: None,
            base_url: Some(base_url),
            token_url: None,
            settings: Vec::new(),
            client: "app".to_owned(),
            bind: SocketAddr::from(([127, 0, 0, 1], 8443)),
            admin: SocketAddr::from(([127, 0, 0, 1], 9901)),
            plain: false,
            live: false,
        }
    }
}

/// The answers to everything that a config needs to know.
struct InitPlan {
    bank: String,
    profile_path: Option<String>,
    base: (&'static str, String),
    token_url: Option<String>,
    /// Lines of `[provider.NAME]`, each with a remark.
    settings: Vec<(String, String, String)>,
    vars: Vec<Arc<str>>,
    authorize_url: bool,
    /// Files with secrets, to be written for their owner alone.
    secrets: Vec<(String, SecretString)>,
    /// Commands that make or set what is missing.
    missing: Vec<String>,
}

/// Writes the config. Exit code 0: done; 1: with `--live`, the bank could not be reached as it should; 2: nothing was
/// written.
pub fn run(arguments: &InitArguments) -> ExitCode {
    match prepare(arguments).and_then(|plan| write(arguments, &plan)) {
        Ok(config) if arguments.live => check::check_live(&config, CheckOutput::Text, &[]),
        Ok(_) => ExitCode::SUCCESS,
        Err(why) => {
            complain(&why);
            ExitCode::from(2)
        }
    }
}

/// Writes the config, for a command that has said all arguments. Returns its path; on an error nothing was written.
pub(super) fn write_for(arguments: &InitArguments) -> Result<PathBuf, String> {
    prepare(arguments).and_then(|plan| write(arguments, &plan))
}

fn prepare(arguments: &InitArguments) -> Result<InitPlan, String> {
    if !is_client_name(&arguments.client) {
        return Err(BAD_NAME.to_owned());
    }
    if arguments.plain && !arguments.bind.ip().is_loopback() {
        return Err("`--plain` is for loopback addresses; without it the listener has TLS".to_owned());
    }
    let mut desk = Desk::new();
    let named = match &arguments.bank {
        Some(named) => named.clone(),
        None => desk.ask("Which bank? (`countersign profiles` lists them)", None)?.ok_or_else(no_bank)?,
    };
    let (profile, profile_path) = profile(&named, &arguments.dir)?;
    let config = arguments.dir.join("proxy.toml");
    if config.exists() {
        return Err(format!(
            "{} is there already and stays as it is; name another folder with --dir",
            config.display()
        ));
    }
    let base = base(arguments, &profile, &mut desk)?;
    let token_url = match (&arguments.token_url, profile.wants_token_url()) {
        (Some(url), _) => Some(url.clone()),
        (None, true) => Some(
            desk.ask("The token endpoint's URL?", None)?
                .ok_or_else(|| format!("`{named}` has no token endpoint of its own: say --token-url"))?,
        ),
        (None, false) => None,
    };
    let mut plan = InitPlan {
        bank: profile.name().to_owned(),
        profile_path,
        base,
        token_url,
        settings: Vec::new(),
        vars: profile.vars(),
        authorize_url: profile.wants_authorize_url(),
        secrets: Vec::new(),
        missing: Vec::new(),
    };
    let mut given = given(&arguments.settings)?;
    for setting in profile.declared() {
        let said = given.remove(&*setting.name);
        plan.add(&setting, said, &mut desk)?;
    }
    match given.into_keys().next() {
        Some(unknown) => Err(format!("--set {unknown}=…: the profile `{named}` has no such setting")),
        None => Ok(plan),
    }
}

fn no_bank() -> String {
    format!("say which bank: `countersign init BANK`. There are: {}", Profile::builtin_names().join(", "))
}

/// The profile of a name or of a file, with the file's path as the config will name it.
fn profile(named: &str, folder: &Path) -> Result<(Arc<Profile>, Option<String>), String> {
    let (parsed, _) = profiles::find(named, false).map_err(|(why, _)| why)?;
    if Profile::builtin_text(named).is_some() {
        return Ok((parsed, None));
    }
    let path = fs::canonicalize(named).map_err(|error| format!("{named} cannot be read: {error}"))?;
    // A profile in the same folder is named as its neighbour.
    let home = fs::canonicalize(folder).ok();
    let shown = home.and_then(|home| path.strip_prefix(home).ok().map(Path::to_path_buf)).unwrap_or(path);
    Ok((parsed, Some(shown.display().to_string())))
}

/// `environment` or `base_url`, whichever the profile and the arguments decide.
fn base(arguments: &InitArguments, profile: &Profile, desk: &mut Desk) -> Result<(&'static str, String), String> {
    if let Some(url) = &arguments.base_url {
        return Ok(("base_url", url.clone()));
    }
    let known = profile.environments();
    let asked = match (&arguments.environment, known.as_slice()) {
        (Some(name), _) => Some(name.clone()),
        (None, []) => None,
        (None, [first, ..]) => {
            let question = format!("Which environment? ({})", known.join(", "));
            Some(desk.ask(&question, Some(first))?.unwrap_or_else(|| (*first).to_owned()))
        }
    };
    match asked {
        Some(name) if known.contains(&name.as_str()) => Ok(("environment", name)),
        Some(name) => Err(format!("`{}` has no environment `{name}`; there are: {}", profile.name(), listed(&known))),
        None => match desk.ask("The base URL of the bank's API?", None)? {
            Some(url) => Ok(("base_url", url)),
            None => {
                let also =
                    if arguments.token_url.is_none() && profile.wants_token_url() { " and --token-url" } else { "" };
                Err(format!("`{}` names no host of its own: say --base-url{also}", profile.name()))
            }
        },
    }
}

fn listed(names: &[&str]) -> String {
    if names.is_empty() { "none (say --base-url)".to_owned() } else { names.join(", ") }
}

fn given(settings: &[String]) -> Result<BTreeMap<String, String>, String> {
    let split = |one: &String| {
        let (name, value) = one.split_once('=').ok_or_else(|| format!("--set {one}: write NAME=VALUE"))?;
        Ok((name.to_owned(), value.to_owned()))
    };
    settings.iter().map(split).collect()
}

impl InitPlan {
    fn add(&mut self, setting: &DeclaredSetting, said: Option<String>, desk: &mut Desk) -> Result<(), String> {
        let name = &*setting.name;
        let remark = setting.description.clone();
        if setting.key || setting.public_key {
            let file = said.unwrap_or_else(|| format!("secrets/{name}.pem"));
            self.settings.push((name.to_owned(), format!("{{ file = {} }}", quoted(&file)), remark));
            self.missing.push(match setting.public_key {
                true => format!("cp BANK-KEY.pem {file}    # {name}: the bank's public key"),
                false => format!("openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out {file}    # {name}: register its public half at the bank"),
            });
            return Ok(());
        }
        if setting.secret {
            if said.is_some() {
                return Err(format!(
                    "--set {name}=…: a secret on a command line ends in the shell's history; leave it out, and set {} or answer when asked",
                    self.variable(name)
                ));
            }
            if !setting.required {
                return Ok(());
            }
            let value =
                match desk.ask_secret(&format!("{name} ({remark}); empty: {} will have it", self.variable(name)))? {
                    Some(secret) => {
                        let file = format!("secrets/{name}");
                        self.secrets.push((file.clone(), secret));
                        format!("{{ file = {} }}", quoted(&file))
                    }
                    None => self.environment_value(name),
                };
            self.settings.push((name.to_owned(), value, remark));
            return Ok(());
        }
        let said = match said {
            None if setting.required && !setting.table => desk.ask(&format!("{name} ({remark})"), None)?,
            said => said,
        };
        match said {
            Some(value) => self.settings.push((name.to_owned(), quoted(&value), remark)),
            None if setting.required && setting.table => {
                self.settings.push((name.to_owned(), "{ }".to_owned(), remark));
            }
            None if setting.required => {
                let value = self.environment_value(name);
                self.settings.push((name.to_owned(), value, remark));
            }
            None => {
                let example = setting.default.as_deref().map_or_else(|| "…".to_owned(), ToOwned::to_owned);
                self.settings.push((format!("# {name}"), quoted(&example), remark));
            }
        }
        Ok(())
    }

    fn variable(&self, setting: &str) -> String {
        format!("{}_{setting}", self.bank).to_uppercase().replace('-', "_")
    }

    fn environment_value(&mut self, setting: &str) -> String {
        let variable = self.variable(setting);
        self.missing.push(format!("export {variable}=…"));
        format!("{{ env = {} }}", quoted(&variable))
    }

    fn config(&self, arguments: &InitArguments, hash: &str) -> String {
        let bank = &self.bank;
        let mut text = format!(
            "# countersign: an application calls {}/{bank}/…, and the bank receives the call with its credentials.\n\
             # `countersign check` reports every mistake; all keys are explained in docs/config.md. For completion in editors:\n\
             # `countersign schema > proxy.schema.json`, and `#:schema ./proxy.schema.json` as the first line here.\n\n\
             [[listener]]\nname = \"gateway\"\nbind = \"{}\"\n",
            url(arguments),
            arguments.bind
        );
        if !arguments.plain {
            text.push_str("tls  = { cert = \"certs/server.crt\", key = \"certs/server.key\" }\n");
        }
        let _ = writeln!(text, "\n[provider.{bank}]");
        let profile = self.profile_path.as_ref().unwrap_or(bank);
        let mut lines = vec![("profile".to_owned(), quoted(profile), String::new())];
        lines.push((self.base.0.to_owned(), quoted(&self.base.1), String::new()));
        lines.extend(self.token_url.iter().map(|url| ("token_url".to_owned(), quoted(url), String::new())));
        lines.extend(self.settings.iter().cloned());
        let width = lines.iter().map(|(name, ..)| name.trim_start_matches("# ").len()).max().unwrap_or_default();
        for (name, value, remark) in lines {
            let (hidden, name) = name.strip_prefix("# ").map_or(("", name.as_str()), |name| ("# ", name));
            let _ = write!(text, "{hidden}{name:<width$} = {value}");
            if !remark.is_empty() {
                let _ = write!(text, "    # {remark}");
            }
            text.push('\n');
        }
        if self.authorize_url {
            let _ = writeln!(
                text,
                "\n# For users who consent:\n# [provider.{bank}.consent]\n# authorize_url = \"https://…\"\n# public_url    = \"https://…\""
            );
        }
        let _ = write!(
            text,
            "\n[[route]]\nname     = \"{bank}\"\npath     = \"/{bank}\"\nprovider = \"{bank}\"\nclients  = [\"{}\"]\n",
            arguments.client
        );
        if !self.vars.is_empty() {
            let vars: Vec<String> = self
                .vars
                .iter()
                .map(|var| {
                    format!("{var} = {{ header = \"x-{}\", pattern = \"[!-~]{{1,64}}\" }}", var.replace('_', "-"))
                })
                .collect();
            let _ = writeln!(text, "vars     = {{ {} }}", vars.join(", "));
        }
        let _ = write!(
            text,
            "\n[client.{}]\nkey_sha256 = [\"{hash}\"]\n\n# Dashboard, API and metrics.\n[admin]\nbind = \"{}\"\n",
            arguments.client, arguments.admin
        );
        text
    }
}

fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

fn url(arguments: &InitArguments) -> String {
    match arguments.plain {
        true => format!("http://{}", arguments.bind),
        false => format!("https://localhost:{}", arguments.bind.port()),
    }
}

/// Writes everything, and says what comes next. Returns the config's path.
fn write(arguments: &InitArguments, plan: &InitPlan) -> Result<PathBuf, String> {
    let (key, hash) = client_key().ok_or("the system gives no randomness")?;
    let now = Clock::System.now();
    let mut files = Vec::new();
    if !arguments.plain {
        let authority = SimAuthority::lasting("countersign development CA", now, YEAR)?;
        let mut spec = LeafSpec::server(now);
        spec.valid_until = now.plus(YEAR).wall;
        let leaf = authority.issue(&spec)?;
        files.push(("certs/ca.crt".to_owned(), SecretString::from(authority.pem()), 0o644));
        files.push(("certs/server.crt".to_owned(), SecretString::from(leaf.cert_pem), 0o644));
        files.push(("certs/server.key".to_owned(), SecretString::from(leaf.key_pem), 0o600));
    }
    files.extend(plan.secrets.iter().map(|(name, secret)| (name.clone(), secret.clone(), 0o600)));
    files.push(("proxy.toml".to_owned(), SecretString::from(plan.config(arguments, &hash)), 0o644));
    for (name, _, _) in &files {
        let path = arguments.dir.join(name);
        if path.exists() {
            return Err(format!(
                "{} is there already and stays as it is; name another folder with --dir",
                path.display()
            ));
        }
    }
    for (name, content, mode) in &files {
        put(&arguments.dir.join(name), content, *mode)?;
    }
    // Where keys that are still to be made belong.
    fs::create_dir_all(arguments.dir.join("secrets")).map_err(|error| format!("secrets/ cannot be made: {error}"))?;
    let config = arguments.dir.join("proxy.toml");
    let names: Vec<String> = files.iter().map(|(name, ..)| arguments.dir.join(name).display().to_string()).collect();
    let mut text = format!(
        "Written: {}\n\nThe key of the client `{}`, shown this once:\n\n  {key}\n\nNext:\n\n",
        names.join(", "),
        arguments.client
    );
    for line in &plan.missing {
        let _ = writeln!(text, "  {line}");
    }
    let trust = if arguments.plain {
        String::new()
    } else {
        format!("--cacert {} ", arguments.dir.join("certs/ca.crt").display())
    };
    let _ = write!(
        text,
        "  countersign check --live -c {config}\n  countersign run -c {config}\n  curl {trust}-H 'Authorization: Bearer {key}' {}/{}/…\n\n\
         The dashboard is then at http://{}/\n",
        url(arguments),
        plan.bank,
        arguments.admin,
        config = config.display()
    );
    print(&text);
    Ok(config)
}

/// Writes a file that is not there yet, with these permissions.
pub(super) fn put(path: &Path, content: &SecretString, mode: u32) -> Result<(), String> {
    let told = |error: io::Error| match error.kind() {
        ErrorKind::AlreadyExists => format!("{} is there already and stays as it is", path.display()),
        _ => format!("{} cannot be written: {error}", path.display()),
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(told)?;
    }
    let mut options = fs::OpenOptions::new();
    let mut file = options.write(true).create_new(true).mode(mode).open(path).map_err(told)?;
    file.write_all(content.expose_secret().as_bytes()).map_err(told)
}

/// Asks at a terminal; where there is none, nobody answers.
pub(super) struct Desk {
    is_attended: bool,
}

impl Desk {
    pub(super) fn new() -> Self {
        Self { is_attended: io::stdin().is_terminal() && io::stderr().is_terminal() }
    }

    /// The answer; `usual` or nothing if it is empty or nobody is there.
    pub(super) fn ask(&mut self, question: &str, usual: Option<&str>) -> Result<Option<String>, String> {
        if !self.is_attended {
            return Ok(usual.map(str::to_owned));
        }
        let hint = usual.map(|usual| format!(" [{usual}]")).unwrap_or_default();
        say(&format!("{question}{hint} "));
        let line = read_line()?;
        Ok(if line.is_empty() { usual.map(str::to_owned) } else { Some(line) })
    }

    /// The same without an echo.
    fn ask_secret(&mut self, question: &str) -> Result<Option<SecretString>, String> {
        if !self.is_attended {
            return Ok(None);
        }
        say(&format!("{question}: "));
        let stdin = io::stdin();
        let before = tcgetattr(&stdin).map_err(|error| format!("the terminal cannot be asked: {error}"))?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(&stdin, OptionalActions::Now, &silent)
            .map_err(|error| format!("the echo cannot be switched off: {error}"))?;
        let line = read_line();
        let _ = tcsetattr(&stdin, OptionalActions::Now, &before);
        say("\n");
        let line = line?;
        Ok(if line.is_empty() { None } else { Some(SecretString::from(line)) })
    }
}

fn read_line() -> Result<String, String> {
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| format!("the answer cannot be read: {error}"))?;
    Ok(line.trim().to_owned())
}

#[expect(clippy::print_stderr, reason = "questions belong to the terminal, results to standard output")]
fn say(text: &str) {
    eprint!("{text}");
    let _ = io::stderr().flush();
}
