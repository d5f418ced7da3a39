//! The services that are in use, one for each token and account.

use std::collections::HashMap;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc;

use super::service::{KeyService, ServiceReport, ServiceSettings, ServiceTask};
use crate::base::time::Clock;

/// All key services of a process, on one thread. A service lives as long as a config uses it, and the next config, if it
/// says the same, goes on with it.
pub struct KeyServices {
    tasks: mpsc::UnboundedSender<ServiceTask>,
    known: Mutex<HashMap<[u8; 32], Weak<KeyService>>>,
}

impl KeyServices {
    /// Starts the thread. If it cannot be started, no key of a service can be read.
    pub fn start() -> Self {
        let (tasks, queue) = mpsc::unbounded_channel();
        let started = thread::Builder::new().name("key-services".to_owned()).spawn(move || run(queue));
        if let Err(error) = started {
            tracing::error!(%error, "the thread of the key services cannot be started");
        }
        Self { tasks, known: Mutex::default() }
    }

    /// Returns those of the process; the thread starts with the first key.
    pub fn of_process() -> &'static Self {
        static OF_PROCESS: LazyLock<KeyServices> = LazyLock::new(KeyServices::start);
        &OF_PROCESS
    }

    /// Returns the service with these settings, and begins it if there is none.
    pub fn service(&self, settings: ServiceSettings) -> Arc<KeyService> {
        let digest = settings.digest();
        let mut known = self.known();
        known.retain(|_, service| service.strong_count() > 0);
        if let Some(service) = known.get(&digest).and_then(Weak::upgrade) {
            return service;
        }
        let (service, task) = KeyService::new(settings, Clock::System);
        let service = Arc::new(service);
        known.insert(digest, Arc::downgrade(&service));
        // Without the thread, its questions find nobody.
        let _ = self.tasks.send(task);
        service
    }

    /// Returns the state of each service in use, in the order of their titles.
    pub fn reports(&self) -> Vec<ServiceReport> {
        let mut reports: Vec<_> =
            self.known().values().filter_map(Weak::upgrade).map(|service| service.report()).collect();
        reports.sort_by(|one, other| one.title.cmp(&other.title));
        reports
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], Weak<KeyService>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs services until there is no one left to name one.
fn run(mut queue: mpsc::UnboundedReceiver<ServiceTask>) {
    let runtime = match Builder::new_current_thread().enable_all().build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "the key services cannot run");
            return;
        }
    };
    runtime.block_on(async move {
        while let Some(task) = queue.recv().await {
            tokio::task::spawn_local(task.run());
        }
    });
}
