//! The command line: one file per command, and [`boot`], the only file that knows every room.
//!
//! Exit codes: 0 done · 1 it did not hold (a mistake in the config, a failed step of the demo, a failed start) ·
//! 2 it could not be tried (an unreadable file, wrong arguments). Errors go to standard error in one line that says what
//! and what to do.

mod admin_client;
mod audit;
mod ca;
mod check;
pub mod check_live;
mod completions;
mod config_path;
mod consent;
mod demo;
mod demo_client;
mod examples;
mod exec;
mod explain;
mod health;
mod import;
mod init;
mod key;
mod known_names;
mod learn;
mod profiles;
mod record;
mod run;
mod sim;
mod status;
mod store;
mod table;
mod token;
mod version;

use std::io::{self, ErrorKind, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::{CommandFactory as _, Parser, Subcommand, ValueHint};

use self::known_names::KnownNames;
use crate::key_service::pkcs11::run_module_process;

#[derive(Debug, Parser)]
#[command(name = "countersign", version, about = "The egress proxy that signs an application's calls to bank APIs")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The audit log: verify its chain
    Audit {
        #[command(subcommand)]
        command: audit::AuditCommand,
    },
    /// The interception CA: make it, show it, export it, have it trusted
    Ca {
        #[command(subcommand)]
        command: ca::CaCommand,
    },
    /// Report every mistake in the config, with file, line, column and what to write instead
    #[command(alias = "validate", after_help = examples::CHECK_EXAMPLES)]
    Check {
        /// The config file, as with `--config`; `-` is standard input
        #[arg(value_name = "FILE", conflicts_with = "config")]
        file: Option<PathBuf>,
        /// Path of the config file; COUNTERSIGN_CONFIG names another default
        #[arg(short, long, value_name = "FILE", default_value_os_t = config_path::usual())]
        config: PathBuf,
        /// Print the answer as JSON on standard output
        #[arg(long)]
        json: bool,
        /// Also try each provider, issuer and the store over the network; each provider's token endpoint is called once
        #[arg(long)]
        live: bool,
        /// The value of a route variable that a token depends on; may be repeated
        #[arg(long, value_name = "NAME=VALUE", requires = "live")]
        var: Vec<String>,
    },
    /// Users' consents: start one, list them, forget one
    Consent {
        #[command(subcommand)]
        command: consent::ConsentCommand,
    },
    /// Print a completion script for a shell
    Completions {
        /// Shell to print the script for
        shell: clap_complete::Shell,
    },
    /// Show the whole thing against simulated banks: no set-up, no files
    #[command(after_help = examples::DEMO_EXAMPLES)]
    Demo {
        /// Exit after the tour; 0 only if every step held
        #[arg(long)]
        once: bool,
        /// Show this provider only, by its profile's name
        #[arg(long, value_name = "NAME", value_parser = KnownNames::SIMULATORS, hide_possible_values = true)]
        provider: Option<String>,
    },
    /// Print the variables by which programs use the proxy and trust its CA
    Env(exec::env::EnvArguments),
    /// Run a command that uses the proxy and trusts its CA
    Exec(exec::ExecArguments),
    /// Say what would become of a request, without sending anything
    #[command(after_help = examples::EXPLAIN_EXAMPLES)]
    Explain(explain::ExplainArguments),
    /// Ask a running instance whether it is ready: for container probes
    Health {
        /// Ask whether it is alive, whether or not it is ready: for a liveness probe
        #[arg(long)]
        live: bool,
        /// Its admin listener, as in http://127.0.0.1:9901; default: where the config says
        #[arg(long, value_name = "URL", value_hint = ValueHint::Url, conflicts_with = "config")]
        admin: Option<String>,
        /// The CA of its certificate, PEM; default: the certificate in the config, or else the system's CAs
        #[arg(long, value_name = "FILE")]
        admin_ca: Option<PathBuf>,
        /// Path of the config file; COUNTERSIGN_CONFIG names another default
        #[arg(short, long, value_name = "FILE", default_value_os_t = config_path::usual())]
        config: PathBuf,
    },
    /// Write a config from another gateway's files, and name what could not be carried over
    Import(import::ImportArguments),
    /// Write a config for one bank, with certificates and a client's key; overwrites nothing
    #[command(after_help = examples::INIT_EXAMPLES)]
    Init(init::InitArguments),
    /// Make a key that a client authenticates with
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Learn a bank from examples of its calls: write a profile, a conversation and a config; overwrites nothing
    #[command(after_help = examples::LEARN_EXAMPLES)]
    Learn(learn::LearnArguments),
    /// Print a manual page in roff, of the whole or of one command
    Man {
        /// The command, as in `man key new`
        #[arg(value_name = "COMMAND")]
        words: Vec<String>,
    },
    /// Load a PKCS#11 module, for a countersign that starts this; standard input is a socket
    #[command(name = "pkcs11-module", hide = true)]
    Pkcs11Module,
    /// List provider profiles, print or compare them, play their tests, look one through, make packs of them
    #[command(args_conflicts_with_subcommands = true)]
    Profiles {
        #[command(subcommand)]
        command: Option<profiles::ProfilesCommand>,
        /// Print this one, or list those of this folder of a pack; default: list the built-in ones
        #[arg(value_parser = KnownNames::PROFILES, hide_possible_values = true)]
        name: Option<String>,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
    /// Recordings of providers' traffic: what has changed between two
    Record {
        #[command(subcommand)]
        command: record::RecordCommand,
    },
    /// Serve until SIGTERM or SIGINT, then drain
    #[command(after_help = examples::RUN_EXAMPLES)]
    Run {
        /// Path of the config file; COUNTERSIGN_CONFIG names another default
        #[arg(short, long, value_name = "FILE", default_value_os_t = config_path::usual())]
        config: PathBuf,
    },
    /// Print the JSON Schema of proxy.toml, for editors
    Schema,
    /// Have a running instance read its config anew
    Reload {
        #[command(flatten)]
        admin_listener: admin_client::AdminClient,
    },
    /// Run the bank simulators alone
    #[command(after_help = examples::SIM_EXAMPLES)]
    Sim {
        /// Banks to simulate, by name or by a file that describes one; scb, meed, abbeycross, rakbank and oauth2 if none is named
        #[arg(value_parser = KnownNames::SIMULATORS, hide_possible_values = true)]
        names: Vec<String>,
        /// Simulate what was recorded: a recording, or a folder of them
        #[arg(long, value_name = "DIR")]
        from: Option<PathBuf>,
        /// Write sim-ca.crt and a ready proxy.toml into this folder; a proxy.toml of another origin is not replaced
        #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
        write: Option<PathBuf>,
        /// Address at which that proxy.toml listens [default: 127.0.0.1:8080, or any free port if that is taken]
        #[arg(long, value_name = "ADDRESS", requires = "write")]
        bind: Option<SocketAddr>,
    },
    /// Show a running instance: listeners, providers, certificates, the last reload
    Status {
        #[command(flatten)]
        admin_listener: admin_client::AdminClient,
    },
    /// The store of records: seal it anew under another key
    Store {
        #[command(subcommand)]
        command: store::StoreCommand,
    },
    /// Tokens of a running instance: list them, renew one, forget one
    #[command(after_help = examples::TOKEN_EXAMPLES)]
    Token {
        #[command(subcommand)]
        command: token::TokenCommand,
    },
    /// Print version, commit, target and features of this build
    Version {
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key, print it once, with the lines to paste into the config
    New {
        /// Name of the client in the config
        #[arg(default_value = "app")]
        name: String,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Set once a result could not be written to standard output.
static RESULT_LOST: AtomicBool = AtomicBool::new(false);

/// Runs the command line of this process. A result that could not be written is a failure, even if all else succeeded.
pub fn main() -> ExitCode {
    let code = run_command(Arguments::parse().command);
    if RESULT_LOST.load(Ordering::Relaxed) { ExitCode::from(1) } else { code }
}

fn run_command(command: Command) -> ExitCode {
    match command {
        Command::Audit { command } => audit::run(&command),
        Command::Ca { command } => ca::run(&command),
        Command::Check { file, config, json, live: false, .. } => check::run_check(&file.unwrap_or(config), json),
        Command::Check { file, config, json, live: true, var } => {
            check::check_live(&file.unwrap_or(config), json, &var)
        }
        Command::Consent { command } => consent::run(&command),
        Command::Completions { shell } => completions::completions(command_line(), shell),
        Command::Demo { once, provider } => demo::run(once, provider.as_deref()),
        Command::Env(arguments) => exec::env::run(&arguments),
        Command::Exec(arguments) => exec::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Health { live, admin, admin_ca, config } => {
            health::check_health(live, admin.as_deref(), admin_ca.as_deref(), &config)
        }
        Command::Import(arguments) => import::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Key { command: KeyCommand::New { name, json } } => key::new_key(&name, json),
        Command::Learn(arguments) => learn::run(&arguments),
        Command::Man { words } => completions::man(command_line(), &words),
        Command::Pkcs11Module => run_module_process(),
        Command::Profiles { command: Some(command), .. } => profiles::run(&command),
        Command::Profiles { command: None, name, json } => profiles::show(name.as_deref(), json),
        Command::Record { command } => record::run(&command),
        Command::Reload { admin_listener } => status::reload(&admin_listener),
        Command::Run { config } => run::run(&config),
        Command::Schema => completions::schema(),
        Command::Sim { names, from, write, bind } => sim::run_sim(&names, from.as_deref(), write.as_deref(), bind),
        Command::Status { admin_listener } => status::run(&admin_listener),
        Command::Store { command } => store::run(&command),
        Command::Token { command } => token::run(&command),
        Command::Version { json } => version::print_version(json),
    }
}

/// The whole command line as clap sees it, for completions, manual pages and tests.
pub fn command_line() -> clap::Command {
    Arguments::command()
}

/// Prints what a command did, or why it did not. Returns the exit code.
fn tell(done: Result<String, (String, u8)>) -> ExitCode {
    match done {
        Ok(told) => {
            print(&told);
            ExitCode::SUCCESS
        }
        Err((why, status)) => {
            complain(&why);
            ExitCode::from(status)
        }
    }
}

/// Prints a command's result. A reader that has gone away, as `head` does, is no error; any other failure ends the
/// command with 1, and is reported once.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            if !RESULT_LOST.swap(true, Ordering::Relaxed) {
                complain(&format!("the result cannot be written to standard output: {error}"));
            }
        }
        Ok(()) | Err(_) => {}
    }
}

/// Says on standard error what went wrong and what to do.
#[expect(clippy::print_stderr, reason = "the command line speaks on standard error")]
fn complain(message: &str) {
    eprintln!("countersign: {message}");
}
