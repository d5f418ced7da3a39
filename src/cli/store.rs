//! `countersign store rekey`: the records of the store, sealed anew under the first of its keys.

use std::path::Path;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;
use tokio::runtime::Builder;
use tokio::task::LocalSet;

use super::check::load_quietly;
use super::{complain, config_path, print};
use crate::base::counted::counted;
use crate::base::time::Clock;
use crate::store::{Error, Patience, Rekeyed, Store};

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Seal every record under the first of the store's keys
    Rekey {
        /// Path of the config file; COUNTERSIGN_CONFIG names another default
        #[arg(short, long, value_name = "FILE", default_value_os_t = config_path::usual())]
        config: std::path::PathBuf,
        /// Print the answer as JSON
        #[arg(long)]
        json: bool,
    },
}

/// Runs one of the commands.
pub fn run(command: &StoreCommand) -> ExitCode {
    match command {
        StoreCommand::Rekey { config, json } => rekey(config, *json),
    }
}

/// 0: every record is under the first key; 1: some are not, or cannot be read; 2: there is no such store.
fn rekey(config: &Path, as_json: bool) -> ExitCode {
    let settings = match load_quietly(config) {
        Ok(snapshot) => snapshot.store.settings.clone(),
        Err(status) => return status,
    };
    let Some(ring) = settings.ring() else {
        complain("a store in memory has nothing to seal anew: [store] must name a file or a Redis");
        return ExitCode::from(2);
    };
    if let Some(path) = settings.file().filter(|path| !path.exists()) {
        complain(&format!("there is no store at {} yet, so nothing to seal anew", path.display()));
        return ExitCode::from(2);
    }
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("the system gives no runtime: {error}"));
            return ExitCode::from(1);
        }
    };
    let done = LocalSet::new().block_on(&runtime, async {
        let patience = Patience::of_a_person();
        let store = Store::open(&settings, patience, Clock::System).await?;
        store.reach(patience.connect).await?;
        store.rekey().await
    });
    match done {
        Ok(done) => report(&done, &ring.first().id(), as_json),
        Err(error @ (Error::Conflict | Error::Damaged(_) | Error::Full(_) | Error::Unavailable(_))) => {
            complain(&error.to_string());
            ExitCode::from(1)
        }
    }
}

fn report(done: &Rekeyed, key: &str, as_json: bool) -> ExitCode {
    let Rekeyed { resealed, already, moved, damaged } = done;
    let whole = damaged.is_empty() && *moved == 0;
    if as_json {
        let names: Vec<String> = damaged.iter().map(|damaged| damaged.name.to_string()).collect();
        let answer = json!({ "key": key, "resealed": resealed, "already": already, "moved": moved, "damaged": names });
        print(&format!("{answer}\n"));
    } else {
        print(&format!("{} sealed under key {key} now, {already} before\n", counted(*resealed, "record")));
    }
    for damaged in damaged {
        complain(&damaged.to_string());
    }
    if *moved > 0 {
        complain(&format!("{} changed meanwhile: run it again", counted(*moved, "record")));
    }
    ExitCode::from(u8::from(!whole))
}
