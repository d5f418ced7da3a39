//! The command line: one file per command, and [`boot`], the only file that knows every room.
//!
//! Exit codes: 0 done · 1 it did not hold (a mistake in the config, a failed step of the demo, a failed start) ·
//! 2 it could not be tried (an unreadable file, wrong arguments). Errors go to standard error in one line that says what
//! and what to do.

pub mod boot;
mod bypass;
mod ca;
mod check;
mod courier;
mod demo;
mod env;
mod exec;
mod gateway;
mod key;
mod run;
mod sim;
mod sketch;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "countersign", version, about = "The egress proxy that signs an application's calls to bank APIs")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The interception CA: make it, show it, export it, have it trusted
    Ca {
        #[command(subcommand)]
        command: ca::CaCommand,
    },
    /// Report every mistake in the config, with file, line, column and what to write instead
    #[command(alias = "validate")]
    Check {
        /// The config file
        #[arg(short, long, value_name = "FILE", default_value = "proxy.toml")]
        config: PathBuf,
        /// Print the answer as JSON on standard output
        #[arg(long)]
        json: bool,
    },
    /// Show the whole thing against simulated banks: no set-up, no files
    Demo {
        /// Exit after the tour; 0 only if every step held
        #[arg(long)]
        once: bool,
        /// Show this provider only
        #[arg(long, value_name = "NAME")]
        provider: Option<String>,
    },
    /// Print the variables by which programs use the proxy and trust its CA
    Env(env::EnvArguments),
    /// Run a command that uses the proxy and trusts its CA
    Exec(exec::ExecArguments),
    /// Make a client's key
    Key {
        #[command(subcommand)]
        command: KeyCommand,
    },
    /// Serve until SIGTERM or SIGINT, then drain
    Run {
        /// The config file
        #[arg(short, long, value_name = "FILE", default_value = "proxy.toml")]
        config: PathBuf,
    },
    /// Run the bank simulators alone
    Sim {
        /// Which banks; all of them if none is named
        names: Vec<String>,
        /// Write ca.crt and a ready proxy.toml into this folder
        #[arg(long, value_name = "DIR")]
        write: Option<PathBuf>,
    },
}

#[derive(Debug, Subcommand)]
enum KeyCommand {
    /// Make a key, print it once, with the lines to paste into the config
    New {
        /// The client's name
        #[arg(default_value = "app")]
        name: String,
    },
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Ca { command } => ca::run(&command),
        Command::Check { config, json } => check::run(&config, json),
        Command::Demo { once, provider } => demo::run(once, provider.as_deref()),
        Command::Env(arguments) => env::run(&arguments),
        Command::Exec(arguments) => exec::run(&arguments),
        Command::Key { command: KeyCommand::New { name } } => key::new(&name),
        Command::Run { config } => run::run(&config),
        Command::Sim { names, write } => sim::run(&names, write.as_deref()),
    }
}

/// Says on standard error what went wrong and what to do.
#[expect(clippy::print_stderr, reason = "the command line speaks on standard error")]
fn complain(message: &str) {
    eprintln!("countersign: {message}");
}
