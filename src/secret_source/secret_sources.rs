//! The sources that are in use, one for each server that a config names.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

use super::source::{SecretSource, SourceReport};
use super::source_settings::SourceSettings;
use super::source_task::SourceTask;

/// All sources of secrets of a process, on one thread. A source lives as long as a config uses it, and the next config,
/// if it says the same, goes on with it.
pub struct SecretSources {
    tasks: mpsc::UnboundedSender<SourceTask>,
    known: Mutex<HashMap<[u8; 32], Weak<SecretSource>>>,
}

impl SecretSources {
    /// Starts the thread. If it cannot be started, no secret of a source can be read.
    pub fn start() -> Self {
        let (tasks, queue) = mpsc::unbounded_channel();
        let started = thread::Builder::new().name("secret-sources".to_owned()).spawn(move || run(queue));
        if let Err(error) = started {
            tracing::error!(%error, "the thread of the sources of secrets cannot be started");
        }
        Self { tasks, known: Mutex::default() }
    }

    /// Returns those of the process; the thread starts with the first source.
    pub fn of_process() -> &'static Self {
        static OF_PROCESS: LazyLock<SecretSources> = LazyLock::new(SecretSources::start);
        &OF_PROCESS
    }

    /// Returns the source with these settings, and begins it if there is none.
    pub fn source(&self, settings: SourceSettings) -> Arc<SecretSource> {
        let digest = settings.digest();
        let mut known = self.known();
        known.retain(|_, source| source.strong_count() > 0);
        if let Some(source) = known.get(&digest).and_then(Weak::upgrade) {
            return source;
        }
        let (source, task) = SecretSource::new(settings);
        let source = Arc::new(source);
        known.insert(digest, Arc::downgrade(&source));
        // Without the thread, its questions find nobody.
        let _ = self.tasks.send(task);
        source
    }

    /// Returns the state of each source in use, in the order of their names.
    pub fn reports(&self) -> Vec<SourceReport> {
        let mut reports: Vec<_> =
            self.known().values().filter_map(Weak::upgrade).map(|source| source.report()).collect();
        reports.sort_by(|one, other| one.name.cmp(&other.name));
        reports
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], Weak<SecretSource>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs the tasks of sources until there is no one left to begin one.
fn run(mut queue: mpsc::UnboundedReceiver<SourceTask>) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the sources of secrets cannot run");
            return;
        }
    };
    runtime.block_on(async move {
        while let Some(task) = queue.recv().await {
            tokio::task::spawn_local(task.run());
        }
    });
}
