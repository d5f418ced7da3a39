//! Permission to call a provider with its token.
//!
//! A [`Permit`] is made after all authorisation (route, variables, the client's bounds, the user, readiness of the audit
//! log), and a lease is reached through a permit alone.

use std::rc::Rc;
use std::sync::Arc;

use http::HeaderMap;

use crate::base::time::Now;
use crate::base::vars::Vars;
use crate::config::Clients;
use crate::control::{Issued, TokenSpec, Unavailable, user_spec};
use crate::observe::metrics::ProviderLimit;
use crate::observe::trace::Context;
use crate::route::{Admitted, Caller};
use crate::serve::fault::{Fault, Refusal, RefusalCause};
use crate::serve::reports::request_log::RequestLog;
use crate::serve::requests::consent;
use crate::serve::worker_state::{RouteState, WorkerState};
use crate::token::failure::Class;
use crate::token::lease::Lease;

/// Permission for one request to spend a token of its route, or of the user that it names.
pub struct Permit {
    spec: Arc<TokenSpec>,
    /// The lease of a static credential: there is no token to ask for.
    standing: Option<Arc<Lease>>,
    vars: Vars,
}

/// A token that this worker did not hold yet.
pub struct Obtained {
    /// The lease to spend.
    pub lease: Arc<Lease>,
    /// True if it was fetched for this request, rather than earlier for another worker's.
    pub fresh: bool,
    /// The route before a secret was changed, if the lease is one of its leases.
    pub previous: Option<Rc<RouteState>>,
    /// The route with the credentials of the other slot, if the lease is one of theirs.
    pub other: Option<Rc<RouteState>>,
}

impl Permit {
    /// Authorizes a request that was admitted to its route. Returns the permit and the path and query for the provider.
    pub fn authorize(
        worker: &WorkerState,
        route: &RouteState,
        caller: Caller,
        admitted: Admitted,
        headers: &HeaderMap,
        log: &mut RequestLog,
    ) -> Result<(Self, String), Fault> {
        match within_bounds(&worker.shared.snapshot.clients, caller, &admitted) {
            Err(fault) if !route.route.enforce => log.tolerate(fault),
            done => done?,
        }
        if admitted.tolerated() {
            log.tolerate(Fault::ClientNotAllowed(Refusal::of(RefusalCause::Path)));
        }
        let user = match &route.route.user {
            None => None,
            Some(header) => Some(consent::named_user(headers, header)?),
        };
        let (path_and_query, vars) = admitted.into_parts();
        let spec = match user {
            None => route.token(&vars, &worker.shared.clock),
            Some(user) => users_token(worker, route, caller, user)?,
        };
        if !worker.shared.audit.ready() {
            return Err(Fault::Unaudited);
        }
        log.speak_of(user, &vars);
        Ok((Self { spec, standing: route.standing().cloned(), vars }, path_and_query))
    }

    /// The token that may be spent.
    pub const fn spec(&self) -> &Arc<TokenSpec> {
        &self.spec
    }

    /// Returns the lease that stands for a static credential, which needs no token.
    pub const fn standing(&self) -> Option<&Arc<Lease>> {
        self.standing.as_ref()
    }

    /// The route's variables with this request's values.
    pub const fn vars(&self) -> &Vars {
        &self.vars
    }

    /// Requests a token from the keeper, and notes in `log` why there is none. If a secret was changed and there is no
    /// token of the new one yet, one of the old secret is used meanwhile.
    pub async fn obtain(
        &mut self,
        worker: &Rc<WorkerState>,
        route: &Rc<RouteState>,
        cause: Option<Context>,
        log: &mut RequestLog,
    ) -> Result<Obtained, Fault> {
        if let Some((previous, lease)) = worker.previous_lease(route, &self.vars, &self.spec.key).await {
            let (worker, route, spec) = (worker.clone(), route.clone(), self.spec.clone());
            tokio::task::spawn_local(async move {
                if let Ok(issued) = worker.shared.leases.need(spec).await {
                    worker.remember(&issued);
                    route.was_issued();
                }
            });
            return Ok(Obtained { lease, fresh: false, previous: Some(previous), other: None });
        }
        let (issued, other) = match worker.shared.leases.need_for(self.spec.clone(), cause).await {
            Ok(issued) => {
                worker.remember(&issued);
                route.was_issued();
                (issued, None)
            }
            Err(refused) => {
                log.because(refused.inside.clone());
                if refused.ours && refused.class == Class::RateLimited {
                    let provider = &route.route.provider.name;
                    worker.shared.metrics.provider_limited(provider, ProviderLimit::TokenBudget);
                }
                let (issued, other) = self.obtain_other(worker, route, (&refused, None), cause).await?;
                (issued, Some(other))
            }
        };
        Ok(Obtained { lease: issued.lease, fresh: issued.fresh, previous: None, other })
    }

    /// Requests a token with the credentials of the other slot, after those of this route were refused. The permit is one
    /// for that route then. If there is none of them either, the first failure is the one that counts.
    ///
    /// `later_than`: calls with another token were refused after this, and one of theirs that is older is renewed first.
    pub async fn obtain_other(
        &mut self,
        worker: &WorkerState,
        route: &RouteState,
        (refused, later_than): (&Unavailable, Option<Now>),
        cause: Option<Context>,
    ) -> Result<(Issued, Rc<RouteState>), Fault> {
        let other = worker.other_credentials(route, refused.class).ok_or_else(|| Fault::from(refused))?;
        let spec = other.token(&self.vars, &worker.shared.clock);
        let issued = worker.shared.leases.need_since(spec.clone(), later_than, cause).await;
        let issued = issued.map_err(|_| Fault::from(refused))?;
        worker.remember(&issued);
        worker.promote(&other);
        other.was_issued();
        (self.spec, self.standing) = (spec, other.standing().cloned());
        Ok((issued, other))
    }
}

/// Checks that the client may name these values.
pub fn within_bounds(clients: &Clients, caller: Caller, admitted: &Admitted) -> Result<(), Fault> {
    let Caller::Client(id) = caller else { return Ok(()) };
    let client = clients.all.get(usize::from(id.0)).ok_or(Fault::Internal)?;
    let bounded = |name: &str| client.vars.iter().find(|(bound, _)| **bound == *name).map(|(_, values)| values);
    let fits = |(name, value): (&str, &str)| {
        bounded(name).is_none_or(|values| values.iter().any(|permitted| permitted == value))
    };
    if client.vars.is_empty() || admitted.vars().iter().all(fits) {
        Ok(())
    } else {
        Err(Fault::ClientNotAllowed(Refusal::of(RefusalCause::Value)))
    }
}

/// The token of a user in whose name the caller may call.
fn users_token(worker: &WorkerState, route: &RouteState, caller: Caller, user: &str) -> Result<Arc<TokenSpec>, Fault> {
    let Caller::Client(id) = caller else {
        return Err(Fault::ClientNotAllowed(Refusal::of(RefusalCause::Client)));
    };
    let client = worker.shared.snapshot.clients.all.get(usize::from(id.0)).ok_or(Fault::Internal)?;
    // Its renewal knows both slots of credentials.
    let providers = &worker.shared.snapshot.providers;
    let provider = providers.get(route.route.provider.index).ok_or(Fault::Internal)?;
    let key = consent::user_key(client, provider, user)?;
    user_spec(provider, key, worker.shared.serial, &worker.shared.clock, &worker.shared.audit).ok_or(Fault::Internal)
}
