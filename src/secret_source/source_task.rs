//! The task that asks a source.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};

use super::secret_document::SecretDocument;
use super::source::{KnownLease, ReadPurpose, SourceJob, SourceState};
use super::source_client::SourceClient;
use super::source_problem::SourceProblem;
use super::source_settings::{SecretName, SourceSettings};
use crate::base::time::Now;

/// The task of a source, before it runs.
pub(super) struct SourceTask {
    pub(super) settings: SourceSettings,
    pub(super) queue: mpsc::Receiver<SourceJob>,
    pub(super) state: Arc<SourceState>,
}

/// The work of a source, with its client.
struct SourceWork {
    settings: SourceSettings,
    client: SourceClient,
    state: Arc<SourceState>,
    /// The last problem of the source itself, and its time.
    failed: Option<(SourceProblem, Now)>,
}

/// A source that has just failed is not asked for the other secrets of a config, whose last values are known.
const JUST_FAILED: Duration = Duration::from_secs(5);

impl SourceTask {
    /// Works until the source is dropped.
    pub(super) async fn run(mut self) {
        let client = SourceClient::new(&self.settings);
        let mut work = SourceWork { settings: self.settings, client, state: self.state, failed: None };
        loop {
            let renewal = work.client.renewal_in(work.settings.clock.now());
            tokio::select! {
                job = self.queue.recv() => {
                    let Some(job) = job else { return };
                    let told = work.read(&job.name, job.purpose).await;
                    // A reader that has given up is no error.
                    let _ = job.answer.send(told);
                }
                () = sleep(renewal.unwrap_or_default()), if renewal.is_some() => work.renew_session().await,
            }
        }
    }
}

impl SourceWork {
    async fn read(&mut self, name: &SecretName, purpose: ReadPurpose) -> Result<Arc<SecretDocument>, SourceProblem> {
        let now = self.settings.clock.now();
        let known = self.state.known().get(name).map(|known| (known.document.clone(), known.lease.clone()));
        if let Some((document, Some(lease))) = &known
            && lease.lasts(self.client.session(), now)
        {
            return Ok(document.clone());
        }
        if let (ReadPurpose::Config, Some((problem, at)), Some(_)) = (purpose, &self.failed, &known)
            && now.since(*at) < JUST_FAILED
        {
            return self.state.fail(name, problem).ok_or_else(|| problem.clone());
        }
        let late = SourceProblem::server(format!("no answer within {} s", self.settings.timeout.as_secs_f64()), "");
        let limit = self.settings.timeout;
        let fetched = timeout(limit, self.fetch(name, known, purpose)).await.unwrap_or(Err(late));
        let problem = fetched.as_ref().err().filter(|problem| problem.is_of_source());
        self.failed = problem.map(|problem| (problem.clone(), self.settings.clock.now()));
        match fetched {
            Ok((document, lease)) => {
                self.state.keep(name, document.clone(), lease);
                Ok(document)
            }
            Err(problem) => match (self.state.fail(name, &problem), purpose) {
                (Some(last), ReadPurpose::Config) => Ok(last),
                (Some(_) | None, _) => Err(problem),
            },
        }
    }

    /// Renews the lease of a secret, or reads it.
    async fn fetch(
        &mut self,
        name: &SecretName,
        known: Option<(Arc<SecretDocument>, Option<KnownLease>)>,
        purpose: ReadPurpose,
    ) -> Result<(Arc<SecretDocument>, Option<KnownLease>), SourceProblem> {
        if let (Some((document, Some(before))), ReadPurpose::Look) = (known, purpose)
            && before.lease.renewable
            && before.is_of(self.client.session())
            && let Some(lease) = self.client.renew(&before.lease, before.first_life).await?
        {
            let lease =
                KnownLease::new(lease, Some(before.first_life), self.client.session(), self.settings.clock.now());
            return Ok((document, Some(lease)));
        }
        let fetched = self.client.read(name).await?;
        let session = self.client.session();
        let lease = fetched.lease.map(|lease| KnownLease::new(lease, None, session, self.settings.clock.now()));
        Ok((Arc::new(fetched.document), lease))
    }

    async fn renew_session(&mut self) {
        let late = Err(SourceProblem::server("no answer in time", ""));
        let renewed = timeout(self.settings.timeout, self.client.renew_session()).await.unwrap_or(late);
        if let Err(problem) = renewed {
            tracing::warn!(source = %self.state.name, %problem, "the session with a source of secrets is not renewed");
        }
    }
}
