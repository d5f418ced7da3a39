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
mod color;
mod completions;
mod config_path;
mod consent;
mod demo;
mod demo_client;
mod event_stream;
mod events;
mod examples;
mod exec;
mod explain;
mod health;
mod import;
mod init;
mod instance_patience;
mod key;
mod known_names;
mod learn;
mod log_level;
mod profiles;
mod record;
mod requests;
mod run;
mod sim;
mod status;
mod store;
mod table;
mod token;
mod version;

use std::io::{self, Write as _};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueHint};
use tracing::Level;

use self::check::CheckOutput;
use self::color::ColorChoice;
use self::health::HealthOutput;
use self::known_names::KnownNames;
use crate::config::LogOverride;
use crate::key_service::pkcs11::run_module_process;
use crate::observe::journal::for_stderr;

#[derive(Debug, Parser)]
#[command(name = "countersign", version, about = "The egress proxy that signs an application's calls to bank APIs")]
struct Arguments {
    /// When words are coloured
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t, hide_possible_values = true)]
    color: ColorChoice,
    /// Path of the config file, for the command that follows
    #[arg(id = "config before", short = 'c', long = "config", value_name = "FILE")]
    config: Option<PathBuf>,
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
        /// Say nothing but mistakes and failed trials
        #[arg(short, long, conflicts_with = "json")]
        quiet: bool,
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
        /// Print the answer as JSON instead: at the end of the tour
        #[arg(long)]
        json: bool,
        /// Show this provider only, by its profile's name
        #[arg(long, value_name = "NAME", value_parser = KnownNames::SIMULATORS, hide_possible_values = true)]
        provider: Option<String>,
    },
    /// Print the variables by which programs use the proxy and trust its CA
    #[command(after_help = examples::ENV_EXAMPLES)]
    Env(exec::env::EnvArguments),
    /// Show what happens in a running instance, as it happens
    #[command(after_help = examples::EVENTS_EXAMPLES)]
    Events(events::EventsArguments),
    /// Run a command that uses the proxy and trusts its CA
    #[command(after_help = examples::EXEC_EXAMPLES)]
    Exec(exec::ExecArguments),
    /// Say what would become of a request, without sending anything
    #[command(after_help = examples::EXPLAIN_EXAMPLES)]
    Explain(explain::ExplainArguments),
    /// Ask a running instance whether it is ready: for container probes
    #[command(after_help = examples::HEALTH_EXAMPLES)]
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
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
        /// Print nothing: the exit code says it
        #[arg(short, long, conflicts_with = "json")]
        quiet: bool,
    },
    /// Write a config from another gateway's files, and name what could not be carried over
    #[command(after_help = examples::IMPORT_EXAMPLES)]
    Import(import::ImportArguments),
    /// Write a config for one bank, with certificates and a client's key; overwrites nothing
    #[command(after_help = examples::INIT_EXAMPLES)]
    Init(init::InitArguments),
    /// Make a key that a client authenticates with
    #[command(after_help = examples::KEY_EXAMPLES)]
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Learn a bank from examples of its calls: write a profile, a conversation and a config; overwrites nothing
    #[command(after_help = examples::LEARN_EXAMPLES)]
    Learn(learn::LearnArguments),
    /// Show the level of a running instance's log, or set it for a while
    #[command(after_help = examples::LOG_LEVEL_EXAMPLES)]
    LogLevel(log_level::LogLevelArguments),
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
    #[command(args_conflicts_with_subcommands = true, after_help = examples::PROFILES_EXAMPLES)]
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
    /// Show the last requests of a running instance, and those that follow
    #[command(after_help = examples::REQUESTS_EXAMPLES)]
    Requests(requests::RequestsArguments),
    /// Serve until SIGTERM or SIGINT, then drain
    #[command(after_help = examples::RUN_EXAMPLES)]
    Run {
        /// Path of the config file; COUNTERSIGN_CONFIG names another default
        #[arg(short, long, value_name = "FILE", default_value_os_t = config_path::usual())]
        config: PathBuf,
        /// Form of log lines, in place of `format` of [log]
        #[arg(long, value_enum, value_name = "FORMAT")]
        log_format: Option<run::LogFormatWord>,
        /// The log level in place of `level` of [log]: off, error, warn, info, debug, trace, or a filter
        #[arg(long, value_name = "LEVEL")]
        log_level: Option<String>,
    },
    /// Print the JSON Schema of proxy.toml, for editors
    Schema,
    /// Have a running instance read its config again
    #[command(after_help = examples::RELOAD_EXAMPLES)]
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
        /// Profile of the bank that FILE describes, for that proxy.toml
        #[arg(long, value_name = "PATH", requires = "write", value_hint = ValueHint::FilePath)]
        profile: Option<PathBuf>,
        /// Print the answer as JSON, on one line, once the banks can be called
        #[arg(long)]
        json: bool,
    },
    /// Show a running instance: listeners, providers, certificates, the last reload
    #[command(after_help = examples::STATUS_EXAMPLES)]
    Status {
        #[command(flatten)]
        admin_listener: admin_client::AdminClient,
        /// Show it again every so many seconds, until stopped [default: 2]
        #[arg(short, long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2", require_equals = true,
              value_parser = clap::value_parser!(u64).range(1..=3600))]
        watch: Option<u64>,
    },
    /// The store of records: seal it again under another key
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
    config_path::note_global(std::env::args_os());
    let code = match command_line().try_get_matches().and_then(|matches| read_arguments(&matches)) {
        Ok(arguments) => {
            arguments.color.choose();
            run_command(arguments.command)
        }
        Err(error) => explain_arguments(&error),
    };
    if RESULT_LOST.load(Ordering::Relaxed) { ExitCode::from(1) } else { code }
}

/// Prints what is wrong with the arguments, or the help or the version that they ask for. Returns the exit code.
fn explain_arguments(error: &clap::Error) -> ExitCode {
    if error.use_stderr() {
        // There is nowhere left to say that it cannot be said.
        let _ = error.print();
        return ExitCode::from(2);
    }
    written(error.print().and_then(|()| io::stdout().flush()));
    ExitCode::SUCCESS
}

/// The arguments; a `-c` before a command that reads no config, or that names one itself, is an error.
fn read_arguments(matches: &ArgMatches) -> Result<Arguments, clap::Error> {
    let arguments = Arguments::from_arg_matches(matches)?;
    if arguments.config.is_none() {
        return Ok(arguments);
    }
    let mut line = command_line();
    let (mut command, mut found) = (line.clone(), matches);
    while let Some((name, inner)) = found.subcommand() {
        let Some(next) = command.find_subcommand(name).cloned() else { break };
        (command, found) = (next, inner);
    }
    let name = command.get_name();
    // Commands for profiles look for packs in the usual config.
    let is_about_profiles = matches.subcommand_name() == Some("profiles");
    if !is_about_profiles && command.get_arguments().all(|argument| argument.get_id() != "config") {
        return Err(line.error(ErrorKind::ArgumentConflict, format!("`{name}` reads no config: take `-c` out")));
    }
    let names_another = |id: &str| {
        let is_known = command.get_arguments().any(|argument| argument.get_id() == id);
        is_known && found.value_source(id) == Some(ValueSource::CommandLine)
    };
    if ["file", "config", "admin"].into_iter().any(names_another) {
        let why = format!("`-c` before `{name}` and what stands behind it name two places: keep one of them");
        return Err(line.error(ErrorKind::ArgumentConflict, why));
    }
    Ok(arguments)
}

fn run_command(command: Command) -> ExitCode {
    match command {
        Command::Audit { command } => audit::run(&command),
        Command::Ca { command } => ca::run(&command),
        Command::Check { file, config, json, live, quiet, var } => {
            let path = file.unwrap_or(config);
            let output = match (json, quiet) {
                (true, _) => CheckOutput::Json,
                (false, true) => CheckOutput::Quiet,
                (false, false) => CheckOutput::Text,
            };
            if live { check::check_live(&path, output, &var) } else { check::run_check(&path, output) }
        }
        Command::Consent { command } => consent::run(&command),
        Command::Completions { shell } => completions::completions(command_line(), shell),
        Command::Demo { once, json, provider } => demo::run(once, json, provider.as_deref()),
        Command::Env(arguments) => exec::env::run(&arguments),
        Command::Events(arguments) => events::run(&arguments),
        Command::Exec(arguments) => exec::run(&arguments),
        Command::Explain(arguments) => explain::run(&arguments),
        Command::Health { live, admin, admin_ca, config, json, quiet } => {
            let output = match (json, quiet) {
                (true, _) => HealthOutput::Json,
                (false, true) => HealthOutput::Quiet,
                (false, false) => HealthOutput::Text,
            };
            health::check_health(live, admin.as_deref(), admin_ca.as_deref(), &config, output)
        }
        Command::Import(arguments) => import::run(&arguments),
        Command::Init(arguments) => init::run(&arguments),
        Command::Key { command: KeyCommand::New { name, json } } => key::new_key(&name, json),
        Command::Learn(arguments) => learn::run(&arguments),
        Command::LogLevel(arguments) => log_level::run(&arguments),
        Command::Man { words } => completions::man(command_line(), &words),
        Command::Pkcs11Module => run_module_process(),
        Command::Profiles { command: Some(command), .. } => profiles::run(&command),
        Command::Profiles { command: None, name, json } => profiles::show(name.as_deref(), json),
        Command::Record { command } => record::run(&command),
        Command::Reload { admin_listener } => status::reload(&admin_listener),
        Command::Requests(arguments) => requests::run(&arguments),
        Command::Run { config, log_format, log_level } => {
            let format = log_format.map(run::LogFormatWord::format);
            run::run(&config, LogOverride { format, level: log_level })
        }
        Command::Schema => completions::schema(),
        Command::Sim { names, from, write, bind, profile, json } => {
            sim::run_sim(&names, from.as_deref(), &sim::SimOutput { write, profile, bind, json })
        }
        Command::Status { admin_listener, watch: None } => status::run(&admin_listener),
        Command::Status { admin_listener, watch: Some(seconds) } => status::watch(&admin_listener, seconds),
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
    written(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
}

/// Takes note of a result that was written to standard output, or was not.
fn written(done: io::Result<()>) {
    match done {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
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
    let level = if message.starts_with("note: ") { Level::INFO } else { Level::ERROR };
    eprintln!("{}", for_stderr(level, &format!("countersign: {message}")));
}
