//! The trial of the store: whether it can be opened and queried. It writes nothing to the store except the cleanup that
//! every start performs.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use super::Notes;
use super::connect_trial::plain;
use super::finding::Finding;
use crate::base::counted::counted;
use crate::base::time::Clock;
use crate::store::{Error, Kind, Patience, RecordKey, Store, StoreSettings, holders};

/// A record of this name is never written.
const NOBODY: &str = "check --live";

/// Tries the store and adds one finding to `notes`.
pub(super) async fn try_store(settings: StoreSettings, clock: Clock, notes: Notes) {
    if let Some(address) = settings.address() {
        notes.at(address);
    }
    let missing = |path: &&Path| fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::NotFound);
    let found = match settings.file().filter(missing) {
        Some(path) => unmade(path),
        None if settings.outlives() => opened(&settings, clock).await,
        None => Finding::fine("store", "in memory: tokens are fetched anew after each start"),
    };
    notes.add(found.with("kind", settings.kind()));
}

/// A file that the first start makes, with its folder, below one that must let it.
fn unmade(path: &Path) -> Finding {
    let mut above =
        path.ancestors().skip(1).map(|folder| if folder.as_os_str().is_empty() { Path::new(".") } else { folder });
    let folder = above.find(|folder| folder.exists()).unwrap_or(Path::new("."));
    let trial = folder.join(format!(".countersign-check.{}", std::process::id()));
    let tried = fs::OpenOptions::new().write(true).create_new(true).open(&trial);
    match tried {
        Ok(_) => {
            // No other file has this name: it contains the process id.
            let _ = fs::remove_file(&trial);
            Finding::fine("store", format!("{} is not there yet: the first start makes it", path.display()))
        }
        Err(error) => Finding::failed(
            "store",
            format!("{} is not there, and cannot be made: {}", path.display(), error.kind()),
            format!("make the folder {} and let this user write there", folder.display()),
        ),
    }
}

async fn opened(settings: &StoreSettings, clock: Clock) -> Finding {
    let (path, patience) = (settings.file(), Patience::of_a_person());
    let asked = async {
        let store = Store::open(settings, patience, clock).await?;
        store.reach(patience.connect).await?;
        // The one question that tells nothing, and is answered from where records lie.
        store.load(Kind::Application, &RecordKey::from(NOBODY)).await?;
        let (mut records, mut damaged) = (0, 0);
        // A shared Redis may hold very many: what a file holds is counted.
        if path.is_some() {
            for kind in Kind::ALL {
                let listing = store.list(kind).await?;
                records += listing.entries.len();
                damaged += listing.damaged.len();
            }
        }
        Ok::<_, Error>((records, damaged))
    };
    match (asked.await, path) {
        (Ok((_, 0)), None) => Finding::fine("store", "it answers"),
        (Ok((records, 0)), Some(path)) => {
            Finding::fine("store", format!("{} opens, with {}", path.display(), counted(records, "record")))
                .with("records", records)
        }
        (Ok((records, damaged)), _) => Finding::warned(
            "store",
            format!("{}, and {damaged} that cannot be read", counted(records, "record")),
            "if a key was removed from `keys` of [store], put it back; else restore a backup, or let those users consent \
             again",
        )
        .with("records", records)
        .with("damaged", damaged),
        (Err(error), Some(path)) if error.is_in_use() => {
            let who: Vec<String> =
                holders(path).iter().map(|one| format!("{} (pid {})", one.name, one.pid)).collect();
            let who = if who.is_empty() { "another process".to_owned() } else { who.join(", ") };
            Finding::fine("store", format!("{} is in use by {who}, so it was not opened", path.display()))
                .with("in_use", true)
        }
        (Err(error), _) => Finding::failed("store", plain(&error.to_string()), "correct [store], or see to what it names"),
    }
}
