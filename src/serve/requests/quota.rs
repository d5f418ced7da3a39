//! The quotas of a request's provider.

use std::borrow::Cow;

use crate::base::time::Clock;
use crate::config::Clients;
use crate::control::CountedQuota;
use crate::route::Caller;
use crate::route::QuotaDimension;
use crate::route::QuotaKey;
use crate::serve::fault::Fault;
use crate::serve::requests::permit::Permit;
use crate::serve::worker_state::{RouteState, WorkerState};

/// Takes a request out of every quota of its provider. If one has no more, the others get it back.
pub async fn spend_quotas(
    worker: &WorkerState,
    route: &RouteState,
    caller: Caller,
    permit: &Permit,
) -> Result<(), Fault> {
    let clock: &Clock = &worker.shared.clock;
    let mut taken = Vec::new();
    for quota in &route.quotas {
        let key = key((quota, route), &worker.shared.snapshot.clients, caller, permit);
        match quota.take(key, clock).await {
            Ok(()) => taken.push((quota, key)),
            Err(left) => {
                for (quota, key) in taken {
                    quota.give_back(key, clock);
                }
                return Err(Fault::RateLimited(left));
            }
        }
    }
    Ok(())
}

fn key((quota, route): (&CountedQuota, &RouteState), clients: &Clients, caller: Caller, permit: &Permit) -> QuotaKey {
    let value = |dimension: &QuotaDimension| -> Cow<'_, [u8]> {
        match dimension {
            QuotaDimension::Client => match caller {
                Caller::Anyone => Cow::default(),
                Caller::Client(id) => {
                    let name = clients.all.get(usize::from(id.0)).map(|client| client.name.as_bytes());
                    Cow::Borrowed(name.unwrap_or_default())
                }
            },
            QuotaDimension::User if route.route.user.is_some() => {
                Cow::Owned(permit.spec().key.to_string().into_bytes())
            }
            QuotaDimension::User => Cow::default(),
            QuotaDimension::Var(name) => Cow::Borrowed(permit.vars().find(name).map(str::as_bytes).unwrap_or_default()),
        }
    };
    let values: Vec<Cow<'_, [u8]>> = quota.rule.by.iter().map(value).collect();
    quota.rule.key(values.iter().map(|value| &**value))
}
