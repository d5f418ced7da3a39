//! Records in a file, touched by a thread of its own.
//!
//! A disk may be slow, and redb waits for it; so the control thread hands over one job after the other and awaits its
//! answer. A job that was handed over is done, whether or not anybody still waits.

mod holder;
mod opening;
mod overlay;
mod reopening_db;

use std::fmt;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

pub use self::holder::{Holder, holders};
pub(super) use self::opening::IN_USE;
use self::reopening_db::ReopeningDb;
use super::error::Error;
use super::record::{Kind, RecordKey, RecordName, Version};
use crate::base::time::{Now, Within};

/// Time limit for one operation, except opening.
const PATIENCE: Within = Within(Duration::from_secs(10));

type StoreJob = Box<dyn FnOnce(&mut ReopeningDb) + Send>;

/// An open file. Dropping it waits for the job under way and lets the file go.
pub(super) struct FileStore {
    jobs: Option<mpsc::Sender<StoreJob>>,
    thread: Option<JoinHandle<()>>,
}

impl FileStore {
    /// Opens the file at this path, or makes it.
    pub(super) async fn open(path: PathBuf) -> Result<Self, Error> {
        Self::with(ReopeningDb::new(Box::new(move || opening::open(&path)))).await
    }

    async fn with(mut database: ReopeningDb) -> Result<Self, Error> {
        let (jobs, inbox) = mpsc::channel::<StoreJob>();
        let work = move || inbox.into_iter().for_each(|job| job(&mut database));
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(work);
        let thread = thread.map_err(|error| Error::Unavailable(format!("no thread for the store: {error}")))?;
        let store = Self { jobs: Some(jobs), thread: Some(thread) };
        // Opening may take as long as it takes: a big file is repaired after a crash.
        store.hand_over(ReopeningDb::ready).await?;
        Ok(store)
    }

    pub(super) async fn get(&self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        let name = name.clone();
        self.ask(move |database| database.get(&name)).await
    }

    pub(super) async fn set(&self, name: &RecordName, sealed: Vec<u8>) -> Result<(), Error> {
        let name = name.clone();
        self.ask(move |database| database.set(&name, &sealed)).await
    }

    pub(super) async fn replace(
        &self,
        name: &RecordName,
        expected: Option<Version>,
        sealed: Vec<u8>,
        now: Now,
    ) -> Result<bool, Error> {
        let name = name.clone();
        self.ask(move |database| database.replace(&name, expected, &sealed, now)).await
    }

    pub(super) async fn take(&self, name: &RecordName) -> Result<Option<Vec<u8>>, Error> {
        let name = name.clone();
        self.ask(move |database| database.take(&name)).await
    }

    /// Removes those that are still this writing of the record, in one transaction.
    pub(super) async fn withdraw(&self, kind: Kind, those: Vec<(RecordKey, Version)>) -> Result<(), Error> {
        self.ask(move |database| database.withdraw(kind, &those)).await
    }

    /// The first so many of a kind, by key, behind this one.
    pub(super) async fn scan(
        &self,
        kind: Kind,
        after: Option<&RecordKey>,
        most: usize,
    ) -> Result<Vec<(RecordKey, Vec<u8>)>, Error> {
        let after = after.cloned();
        self.ask(move |database| database.scan(kind, after.as_ref(), most)).await
    }

    /// Returns the records that were set aside, still sealed.
    pub(super) async fn aside(&self) -> Result<Vec<(RecordName, Vec<u8>)>, Error> {
        self.ask(ReopeningDb::aside).await
    }

    pub(super) async fn set_aside(&self, name: &RecordName, sealed: Vec<u8>) -> Result<(), Error> {
        let name = name.clone();
        self.ask(move |database| database.set_aside(&name, &sealed)).await
    }

    /// Puts a record back that was set aside, unless another has taken its place. Returns whether it did.
    pub(super) async fn restore(&self, name: &RecordName) -> Result<bool, Error> {
        let name = name.clone();
        self.ask(move |database| database.restore(&name)).await
    }

    /// Hands a job over and waits for its answer, but not for ever: a disk may hang. The job is done when the disk is back.
    async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut ReopeningDb) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let silent = |_| Err(Error::Unavailable("the disk of the store does not answer".to_owned()));
        timeout(PATIENCE.0, self.hand_over(job)).await.unwrap_or_else(silent)
    }

    async fn hand_over<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut ReopeningDb) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (answer, asked) = oneshot::channel();
        let answered = move |database: &mut ReopeningDb| {
            // A send fails only if the caller no longer waits, which is no error.
            let _ = answer.send(job(database));
        };
        let sent = self.jobs.as_ref().is_some_and(|jobs| jobs.send(Box::new(answered)).is_ok());
        let stopped = || Error::Unavailable("the store was closed".to_owned());
        if sent { asked.await.unwrap_or_else(|_| Err(stopped())) } else { Err(stopped()) }
    }
}

impl Drop for FileStore {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // It ends with its inbox.
            let _ = thread.join();
        }
    }
}

impl fmt::Debug for FileStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileStore").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod damage;
#[cfg(test)]
mod tests;
