//! countersign beside nginx, HAProxy, Envoy and Caddy at the same job, and beside mitmproxy and squid as a forward
//! proxy, on loopback: `bench/run` starts this.
//!
//! One binary, four parts: `bench origin` is the bank, `bench keys` a key service, `bench load` the clients, `bench compare`
//! starts them and the contenders, checks that all do the same job, measures them in turns and prints tables.

mod access_log;
mod args;
mod compare;
mod contender;
mod job;
mod key_service;
mod load;
mod machine;
mod measure;
mod origin;
mod pki;
mod process;
mod report;
mod stage;
mod table;
mod verify;

use std::process::ExitCode;

/// Whatever went wrong, for a person.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let part = words.next().unwrap_or_default();
    let done = args::Args::read(words).and_then(|args| match part.as_str() {
        "compare" => compare::main(args),
        "keys" => key_service::main(args),
        "load" => load::main(args),
        "origin" => origin::main(args),
        _ => Err("usage: bench compare | keys | load | origin, each with --name value options".into()),
    });
    process::end_all();
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench {part}: {error}");
            ExitCode::FAILURE
        }
    }
}
