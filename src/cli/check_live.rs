//! `countersign check --live`: a trial of what a config names, before the first start.
//!
//! All providers, issuers of clients' tokens and the store are tried concurrently, each step by step; a failed step is
//! reported with what was found and what to do. It opens no listener. A connection whose certificate does not verify is
//! inspected and closed: no secret is sent if TLS does not verify. A provider's token endpoint is called at most once
//! with each set of credentials, because a bank may lock an application that presents a wrong secret too often; its other places get a HEAD request
//! without any credential. Consent endpoints are not called.
//!
//! I/O is in [`provider`], [`issuer`] and [`store`]; [`connect_trial`], [`certificates`], [`clock`] and [`token`] judge
//! the results, and [`finding`] displays them.

mod certificates;
mod clock;
mod connect_trial;
mod finding;
mod issuer;
mod provider;
mod store;
mod token;

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, mpsc};

pub use finding::{Finding, Mark, TrialReport, TrialSubject, block};

use crate::base::time::Clock;
use crate::base::vars::Vars;
use crate::config::Snapshot;

/// So many are tried at the same time.
const AT_ONCE: usize = 8;

/// Settings that a trial runs with.
#[derive(Clone, Debug)]
pub struct TrialOptions {
    /// The clocks that a provider's are compared with.
    pub clock: Clock,
    /// Values of route variables, by name. An empty one: the variable is left out, as a route may.
    pub vars: Vec<(String, String)>,
    /// True if the environment of this process names a proxy in one of the variables that other programs read, such as
    /// `HTTPS_PROXY`.
    pub shell_proxy: bool,
    /// Time limit of all trials together; unfinished trials are aborted when it has passed.
    pub total: Duration,
}

impl TrialOptions {
    /// The machine's clock, this process's environment, two minutes in all.
    pub fn of_this_process(vars: Vec<(String, String)>) -> Self {
        let named = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
        let shell_proxy = named.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
        Self { clock: Clock::System, vars, shell_proxy, total: Duration::from_secs(120) }
    }
}

/// Tries everything. It takes at most `options.total`, and a moment. Fails where the system gives no runtime.
pub fn check_live(snapshot: &Snapshot, options: TrialOptions) -> io::Result<TrialReport> {
    check_live_telling(snapshot, options, &mut Silent)
}

/// The receiver of what is known while trials are under way.
pub trait TrialObserver {
    /// So many of `total` trials have ended.
    fn progress(&mut self, _ended: usize, _total: usize) {}

    /// The trial of this subject has ended.
    fn ended(&mut self, _subject: &TrialSubject, _findings: &[Finding]) {}
}

/// Tells nothing.
struct Silent;

impl TrialObserver for Silent {}

/// Tries everything as [`check_live`] does, and passes each subject with its findings to `tell` as soon as its trial has
/// ended.
pub fn check_live_telling(
    snapshot: &Snapshot,
    options: TrialOptions,
    tell: &mut dyn TrialObserver,
) -> io::Result<TrialReport> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    let report = runtime.block_on(try_all(snapshot, Rc::new(options), tell));
    // A resolver that hangs would keep us, too.
    runtime.shutdown_background();
    Ok(report)
}

/// The variables on which a token depends, of all providers.
pub fn known_vars(snapshot: &Snapshot) -> BTreeSet<Arc<str>> {
    snapshot.routes.iter().flat_map(|route| route.module.vars().iter().cloned()).collect()
}

/// The findings so far. They outlive a trial that is aborted.
#[derive(Clone, Default)]
struct Notes(Rc<RefCell<TrialOutput>>);

#[derive(Default)]
struct TrialOutput {
    place: Option<Arc<str>>,
    findings: Vec<Finding>,
    /// True for credentials that the provider need not accept yet.
    may_be_refused: bool,
}

impl Notes {
    /// Notes of credentials that the provider need not accept yet: a token call that fails is a warning.
    fn of_next_credentials() -> Self {
        Self(Rc::new(RefCell::new(TrialOutput { may_be_refused: true, ..TrialOutput::default() })))
    }

    /// Sets the place of the findings that follow.
    fn at(&self, place: String) {
        self.0.borrow_mut().place = Some(place.into());
    }

    fn add(&self, mut finding: Finding) {
        let mut page = self.0.borrow_mut();
        finding.place = page.place.clone();
        if page.may_be_refused && finding.step == "token" && finding.mark == Mark::Failed {
            finding.mark = Mark::Warned;
        }
        page.findings.push(finding);
    }
}

type Trying = Pin<Box<dyn Future<Output = ()>>>;

async fn try_all(snapshot: &Snapshot, options: Rc<TrialOptions>, tell: &mut dyn TrialObserver) -> TrialReport {
    let mut trials: Vec<(TrialSubject, Notes, Trying)> = Vec::new();
    let mut add = |notes: Notes, subject: TrialSubject, trial: &dyn Fn(Notes) -> Trying| {
        trials.push((subject, notes.clone(), trial(notes)));
    };
    for known in &snapshot.providers {
        let plan = provider::ProviderTrial::of(known, &snapshot.routes);
        add(Notes::default(), TrialSubject::Provider(known.name.clone()), &|notes| {
            Box::pin(provider::attempt(plan.clone(), options.clone(), notes))
        });
        // Before the provider changes it is told whether it accepts them already.
        if let Some(next) = &known.next {
            let routes: Vec<_> = snapshot.routes.iter().filter_map(|route| route.next.clone()).collect();
            let plan = provider::ProviderTrial::of(next, &routes);
            add(Notes::of_next_credentials(), TrialSubject::NextCredentials(known.name.clone()), &|notes| {
                Box::pin(provider::attempt(plan.clone(), options.clone(), notes))
            });
        }
    }
    for known in &snapshot.clients.issuers {
        add(Notes::default(), TrialSubject::Issuer(known.name.as_str().into()), &|notes| {
            Box::pin(issuer::try_issuer(known.clone(), options.clone(), notes))
        });
    }
    add(Notes::default(), TrialSubject::Store, &|notes| {
        Box::pin(store::try_store(snapshot.store.settings.clone(), options.clock.clone(), notes))
    });
    let room = Arc::new(Semaphore::new(AT_ONCE));
    let (ended, mut ends) = mpsc::unbounded_channel();
    let running: Vec<_> = trials
        .into_iter()
        .enumerate()
        .map(|(at, (subject, notes, trial))| {
            let (room, ended) = (room.clone(), ended.clone());
            let task = tokio::task::spawn_local(async move {
                // It is never closed.
                let _seat = room.acquire_owned().await;
                trial.await;
                let _ = ended.send(at);
            });
            (subject, notes, task)
        })
        .collect();
    // The channel ends with the last trial.
    drop(ended);
    let end = tokio::time::sleep(options.total);
    tokio::pin!(end);
    let mut told = vec![false; running.len()];
    loop {
        tell.progress(told.iter().filter(|told| **told).count(), told.len());
        let at = tokio::select! {
            biased;
            at = ends.recv() => at,
            () = &mut end => None,
        };
        let Some(at) = at else { break };
        if let (Some((subject, notes, _)), Some(told)) = (running.get(at), told.get_mut(at)) {
            tell.ended(subject, &notes.0.borrow().findings);
            *told = true;
        }
    }
    let mut groups = Vec::new();
    for ((subject, notes, task), told) in running.into_iter().zip(told) {
        if !told {
            if !task.is_finished() {
                task.abort();
                let help = "run it again; a shorter `timeouts` of the provider makes it give up earlier";
                notes.add(Finding::failed("end", format!("given up after {} s in all", options.total.as_secs()), help));
            }
            tell.ended(&subject, &notes.0.borrow().findings);
        }
        groups.push((subject, notes.0.take().findings));
    }
    TrialReport { groups, left_out: Vec::new() }
}

/// The values that were given for these variables; or the first for which there is none.
fn values(wanted: &[Arc<str>], given: &[(String, String)]) -> Result<Vars, Arc<str>> {
    let mut vars = Vars::none();
    for name in wanted {
        match given.iter().find(|(known, _)| **known == **name) {
            Some((_, value)) if value.is_empty() => {}
            Some((_, value)) => vars.push(name.clone(), value.clone()),
            None => return Err(name.clone()),
        }
    }
    Ok(vars)
}
