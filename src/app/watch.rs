//! Watching of the files behind a config: a renewed certificate or secret needs no reload request.
//!
//! Directories are watched, not files: a file is replaced by renaming, and Kubernetes swaps a whole directory by a
//! link. An event only triggers a check: the contents count, and they are checked every half minute in any case, since
//! some file systems report no events.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::base::secret::sha256;
use crate::config::{Files as _, MachineFiles, Snapshot, SourceCommand, WatchConfig, names_digest};
use crate::control::{ReloadScope, Reloads};
use crate::observe::metrics::Metrics;

/// Events come in flocks; after the first one it is waited for the rest.
const SETTLE: Duration = Duration::from_millis(250);
/// Without any event the files are looked at this often.
const POLL: Duration = Duration::from_secs(30);

/// The state of files and folders: a digest of each, or `None` if it cannot be read.
type FileState = HashMap<PathBuf, Option<[u8; 32]>>;

/// Reloads when the files behind the config in force change, or what its commands write. Never ends.
pub(super) async fn watch(reloads: Reloads, metrics: Arc<Metrics>) {
    let stirred = Arc::new(Notify::new());
    let mut watching = Watching::new(&stirred);
    let mut news = reloads.news();
    let mut seen = first(&reloads.current());
    let mut due = Due::of(&reloads.current());
    loop {
        let snapshot = reloads.current();
        watching.follow(&snapshot);
        tokio::select! {
            () = stirred.notified() => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(POLL) => {}
            () = due.come() => {
                let commands = due.take();
                let run = tokio::task::spawn_blocking(move || commands.iter().map(outcome).collect::<Vec<_>>());
                let Ok(outcomes) = run.await else { continue };
                metrics.secret_commands_fail(due.note(&outcomes));
                let has_changed = outcomes.contains(&CommandOutcome::Changed);
                if has_changed && reloads.read(ReloadScope::Secrets, "commands").await.is_none() {
                    return;
                }
                continue;
            }
            changed = news.changed() => {
                if changed.is_err() {
                    return;
                }
                // Somebody else had it read: what lies there now is known, unless it was changed since.
                seen = first(&reloads.current());
                due = Due::of(&reloads.current());
                metrics.secret_commands_fail(0);
                continue;
            }
        }
        let Ok(found) = tokio::task::spawn_blocking(move || look(&snapshot)).await else { continue };
        if found == seen {
            continue;
        }
        // A file that is away for a moment is being replaced; one that stays away is told of by the reload.
        seen = found;
        let scope = match reloads.current().watch {
            WatchConfig::All => ReloadScope::Everything,
            WatchConfig::Secrets => ReloadScope::Secrets,
        };
        if reloads.read(scope, "files").await.is_none() {
            return;
        }
    }
}

/// What came of running a command again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum CommandOutcome {
    Changed,
    Failed,
    Same,
}

/// Runs a command again. A failure leaves the value as it is.
fn outcome(command: &SourceCommand) -> CommandOutcome {
    match MachineFiles.command(command) {
        Ok(bytes) if sha256(&bytes) == command.digest => CommandOutcome::Same,
        Ok(_) => CommandOutcome::Changed,
        Err(error) => {
            let program = command.program.display();
            tracing::warn!(%program, %error, "a command for a secret failed; the last value stays in use");
            CommandOutcome::Failed
        }
    }
}

/// The commands that are to be run again, each with its time.
struct Due {
    commands: Vec<(Instant, SourceCommand)>,
    /// Those whose last run failed, by position.
    failing: BTreeSet<usize>,
    /// Those that are being run, by position.
    running: Vec<usize>,
}

impl Due {
    fn of(snapshot: &Snapshot) -> Self {
        let now = Instant::now();
        let timed = snapshot.sources.commands.iter().filter_map(|command| Some((now + command.ttl?, command.clone())));
        Self { commands: timed.collect(), failing: BTreeSet::new(), running: Vec::new() }
    }

    /// Waits for the next command's time; for ever if there is none.
    async fn come(&self) {
        match self.commands.iter().map(|(at, _)| *at).min() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Takes the commands whose time has come. Each is due again after its life.
    fn take(&mut self) -> Vec<SourceCommand> {
        let now = Instant::now();
        let mut taken = Vec::new();
        self.running.clear();
        for (at, (due, command)) in self.commands.iter_mut().enumerate().filter(|(_, (due, _))| *due <= now) {
            *due = now + command.ttl.unwrap_or(POLL);
            self.running.push(at);
            taken.push(command.clone());
        }
        taken
    }

    /// Notes what came of those that were taken. Returns how many fail now.
    fn note(&mut self, outcomes: &[CommandOutcome]) -> usize {
        for (at, outcome) in self.running.iter().zip(outcomes) {
            match outcome {
                CommandOutcome::Failed => self.failing.insert(*at),
                CommandOutcome::Changed | CommandOutcome::Same => self.failing.remove(at),
            };
        }
        self.failing.len()
    }
}

/// The files whose contents count.
fn watched(snapshot: &Snapshot) -> Vec<&Path> {
    let secrets = snapshot.sources.secrets.iter().map(|(path, _)| path.as_path());
    let texts = snapshot.sources.texts.iter().map(|(path, _)| path.as_path());
    match snapshot.watch {
        WatchConfig::All => secrets.chain(texts).collect(),
        WatchConfig::Secrets => secrets.collect(),
    }
}

/// The files as they were when the config was read.
fn first(snapshot: &Snapshot) -> FileState {
    let sources = &snapshot.sources;
    let mut seen: FileState = sources.secrets.iter().map(|(path, digest)| (path.clone(), Some(*digest))).collect();
    seen.extend(folders(snapshot).map(|(path, names)| (path.clone(), Some(*names))));
    if snapshot.watch == WatchConfig::All {
        seen.extend(sources.texts.iter().map(|(path, bytes)| (path.clone(), Some(sha256(bytes)))));
    }
    seen
}

/// The same as they are now.
fn look(snapshot: &Snapshot) -> FileState {
    let digest = |path: &Path| MachineFiles.read(path).ok().map(|bytes| sha256(&bytes));
    let mut seen: FileState = watched(snapshot).into_iter().map(|path| (path.to_owned(), digest(path))).collect();
    seen.extend(
        folders(snapshot)
            .map(|(path, _)| (path.clone(), MachineFiles.list(path).ok().map(|names| names_digest(&names)))),
    );
    seen
}

/// The folders whose names count.
fn folders(snapshot: &Snapshot) -> impl Iterator<Item = &(PathBuf, [u8; 32])> {
    snapshot.sources.folders.iter().filter(|_| snapshot.watch == WatchConfig::All)
}

/// The directories that the system tells us of.
struct Watching {
    stirred: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    directories: BTreeSet<PathBuf>,
}

impl Watching {
    fn new(stirred: &Arc<Notify>) -> Self {
        let told = stirred.clone();
        let heard = move |event: notify::Result<notify::Event>| {
            // Our own reading is no news.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                told.notify_one();
            }
        };
        let watcher = notify::recommended_watcher(heard)
            .inspect_err(
                |error| tracing::warn!(%error, "file watching is not available; files are checked every 30 seconds"),
            )
            .ok();
        Self { stirred: stirred.clone(), watcher, directories: BTreeSet::new() }
    }

    /// Watches the directories of this config's files.
    fn follow(&mut self, snapshot: &Snapshot) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut wanted: BTreeSet<PathBuf> = watched(snapshot).into_iter().filter_map(directory).collect();
        wanted.extend(folders(snapshot).map(|(path, _)| path.clone()));
        for gone in self.directories.difference(&wanted) {
            // It may be gone altogether.
            let _unwatched = watcher.unwatch(gone);
        }
        let mut followed: BTreeSet<PathBuf> = self.directories.intersection(&wanted).cloned().collect();
        for new in wanted.difference(&self.directories) {
            match watcher.watch(new, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    followed.insert(new.clone());
                    // Something may have happened there before.
                    self.stirred.notify_one();
                }
                Err(error) => {
                    tracing::debug!(directory = %new.display(), %error, "cannot be watched; it is looked at every 30 seconds");
                }
            }
        }
        self.directories = followed;
    }
}

/// Returns the directory in which a replacement of the file is noticed.
fn directory(path: &Path) -> Option<PathBuf> {
    let parent = path.parent()?;
    Some(if parent.as_os_str().is_empty() { PathBuf::from(".") } else { parent.to_owned() })
}
