//! How a store of many users behaves: `bench/scale` runs this, docs/scale.md has what it printed.
//!
//! The real store, the real records, no bank: `scale load` fills a store, `scale use` is another process that opens it
//! and looks up, renews and lists, `scale cache` fills a keeper. Each prints rows of a table.

#[path = "../args.rs"]
mod args;
mod cache;
mod drive;
mod gauge;
mod place;
mod users;

use std::process::ExitCode;

use tokio::runtime::Builder;
use tokio::task::LocalSet;

/// Whatever went wrong, for a person.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let mut words = std::env::args().skip(1);
    let part = words.next().unwrap_or_default();
    let done = args::Args::read(words).and_then(|args| run(&part, args));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale {part}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Everything on one thread, as the proxy's control thread is.
fn run(part: &str, args: args::Args) -> Result<(), Failure> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let local = LocalSet::new();
    match part {
        "cache" => local.block_on(&runtime, cache::fill(args)),
        "load" => local.block_on(&runtime, drive::load(args)),
        "use" => local.block_on(&runtime, drive::exercise(args)),
        _ => Err("usage: scale cache | load | use, each with --name value options".into()),
    }
}

/// One row of the table.
pub fn row(what: &str, figure: impl std::fmt::Display) {
    println!("| {what} | {figure} |");
}
