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
use crate::config::{Files as _, MachineFiles, RemoteSecret, Snapshot, SourceCommand, WatchConfig, names_digest};
use crate::control::{ReloadScope, Reloads};
use crate::observe::metrics::Metrics;
use crate::secret_source::{ReadPurpose, SecretSource};

/// Events come in flocks; after the first one it is waited for the rest.
const SETTLE: Duration = Duration::from_millis(250);
/// Without any event the files are looked at this often.
const POLL: Duration = Duration::from_secs(30);

/// The state of files and folders: a digest of each, or `None` if it cannot be read.
type FileState = HashMap<PathBuf, Option<[u8; 32]>>;

/// Reloads when the files behind the config in force change, or what its commands and sources give. Never ends.
pub(super) async fn watch(reloads: Reloads, metrics: Arc<Metrics>) {
    let stirred = Arc::new(Notify::new());
    let mut watching = Watching::new(&stirred);
    let mut news = reloads.news();
    let mut seen = first(&reloads.current());
    let mut due = Due::of(&reloads.current());
    tell_failing(&metrics, &due);
    loop {
        let snapshot = reloads.current();
        watching.follow(&snapshot);
        tokio::select! {
            () = stirred.notified() => tokio::time::sleep(SETTLE).await,
            () = tokio::time::sleep(POLL) => {}
            () = due.come() => {
                let taken = due.take();
                let Ok(outcomes) = tokio::task::spawn_blocking(move || outcomes(&taken)).await else { continue };
                due.note(&outcomes);
                tell_failing(&metrics, &due);
                let has_changed = outcomes.contains(&LookOutcome::Changed);
                if has_changed && reloads.read(ReloadScope::Secrets, "secrets").await.is_none() {
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
                tell_failing(&metrics, &due);
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

/// What came of looking for a secret again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum LookOutcome {
    Changed,
    Failed,
    Same,
}

/// A secret that is looked for again.
#[derive(Clone)]
enum DueSecret {
    Command(SourceCommand),
    Remote(RemoteSecret),
}

impl DueSecret {
    /// Returns the time from one look to the next.
    fn interval(&self) -> Duration {
        match self {
            DueSecret::Command(command) => command.ttl.unwrap_or(POLL),
            // The lease may end before, with its session.
            DueSecret::Remote(secret) => {
                secret.source.renewal_in(&secret.name).map_or(secret.ttl, |renewal| renewal.min(secret.ttl))
            }
        }
    }

    /// Returns the kind of where it comes from, as in the metrics.
    fn kind(&self) -> &'static str {
        match self {
            DueSecret::Command(_) => COMMAND,
            DueSecret::Remote(secret) => secret.source.kind().word(),
        }
    }
}

/// The word for commands in the metrics, beside those of the kinds of sources.
const COMMAND: &str = "command";
/// The kinds that the metrics tell of.
const KINDS: [&str; 5] = ["aws", COMMAND, "kubernetes", "spiffe", "vault"];

/// Tells how many secrets of each kind cannot be had now.
fn tell_failing(metrics: &Metrics, due: &Due) {
    for kind in KINDS {
        metrics.secrets_fail(kind, due.failing(kind));
    }
}

/// Looks for secrets again. A source that has failed is not asked for its other secrets.
fn outcomes(due: &[DueSecret]) -> Vec<LookOutcome> {
    let mut failed: Vec<Arc<SecretSource>> = Vec::new();
    let mut remote = |secret: &RemoteSecret| {
        if failed.contains(&secret.source) {
            return LookOutcome::Failed;
        }
        match secret.source.read(&secret.name, ReadPurpose::Look) {
            Ok(document) if document.digest() == secret.digest => LookOutcome::Same,
            Ok(_) => LookOutcome::Changed,
            // It told of itself.
            Err(problem) => {
                if problem.is_of_source() {
                    failed.push(secret.source.clone());
                }
                LookOutcome::Failed
            }
        }
    };
    due.iter()
        .map(|due| match due {
            DueSecret::Command(command) => of_command(command),
            DueSecret::Remote(secret) => remote(secret),
        })
        .collect()
}

/// Runs a command again. A failure leaves the value as it is.
fn of_command(command: &SourceCommand) -> LookOutcome {
    match MachineFiles.command(command) {
        Ok(bytes) if sha256(&bytes) == command.digest => LookOutcome::Same,
        Ok(_) => LookOutcome::Changed,
        Err(error) => {
            let program = command.program.display();
            tracing::warn!(%program, %error, "a command for a secret failed; the last value stays in use");
            LookOutcome::Failed
        }
    }
}

/// The secrets that are looked for again, each with its time.
struct Due {
    secrets: Vec<(Instant, DueSecret)>,
    /// Those that could not be had, by position.
    failing: BTreeSet<usize>,
    /// Those that are being looked for, by position.
    running: Vec<usize>,
}

impl Due {
    fn of(snapshot: &Snapshot) -> Self {
        let now = Instant::now();
        let commands = snapshot.sources.commands.iter().filter(|command| command.ttl.is_some()).cloned();
        let remotes = snapshot.sources.remotes.iter().cloned().map(DueSecret::Remote);
        let secrets: Vec<_> = commands.map(DueSecret::Command).chain(remotes).collect();
        // The reading may have got the last value of a source that fails.
        let is_failing = |due: &DueSecret| match due {
            DueSecret::Command(_) => false,
            DueSecret::Remote(secret) => secret.source.is_failing(&secret.name),
        };
        let failing: BTreeSet<usize> =
            (0..).zip(&secrets).filter(|(_, due)| is_failing(due)).map(|(at, _)| at).collect();
        let timed = secrets.into_iter().map(|due| (now + due.interval(), due));
        Self { secrets: timed.collect(), failing, running: Vec::new() }
    }

    /// Waits for the time of the next look; for ever if there is none.
    async fn come(&self) {
        match self.secrets.iter().map(|(at, _)| *at).min() {
            Some(at) => tokio::time::sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Takes the secrets whose time has come.
    fn take(&mut self) -> Vec<DueSecret> {
        let now = Instant::now();
        let mut taken = Vec::new();
        self.running.clear();
        for (at, (_, due)) in self.secrets.iter().enumerate().filter(|(_, (due, _))| *due <= now) {
            self.running.push(at);
            taken.push(due.clone());
        }
        taken
    }

    /// Notes what came of those that were taken. Each is due again after its interval; one that failed, soon.
    fn note(&mut self, outcomes: &[LookOutcome]) {
        let now = Instant::now();
        for (at, outcome) in self.running.iter().zip(outcomes) {
            let Some((next, due)) = self.secrets.get_mut(*at) else { continue };
            let interval = due.interval();
            *next = now
                + match (outcome, &*due) {
                    // Its lease may be over, which leaves no time at all.
                    (LookOutcome::Failed, DueSecret::Remote(secret)) => secret.ttl.min(POLL),
                    (LookOutcome::Changed | LookOutcome::Failed | LookOutcome::Same, _) => interval,
                };
            match outcome {
                LookOutcome::Failed => self.failing.insert(*at),
                LookOutcome::Changed | LookOutcome::Same => self.failing.remove(at),
            };
        }
    }

    /// Returns how many secrets of a kind could not be had when they were last looked for.
    fn failing(&self, kind: &str) -> usize {
        let of_kind = |at: &&usize| self.secrets.get(**at).is_some_and(|(_, due)| due.kind() == kind);
        self.failing.iter().filter(of_kind).count()
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
