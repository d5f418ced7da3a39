//! What a cached user costs in a keeper, and what one more costs a keeper that is full.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use countersign::base::secret::{ExposeSecret as _, Fingerprint};
use countersign::base::time::{Clock, Deadline};
use countersign::control::{FetchContext, FetchProcedure, Fetched, Keeper, Limits, TokenHandle, TokenSpec};
use countersign::token::consent::UserKey;
use countersign::token::failure::{Class, Failure as Why};
use countersign::token::grant::CallPlace;
use hyper::header::{AUTHORIZATION, HeaderName, HeaderValue};

use crate::args::Args;
use crate::gauge::resident;
use crate::users;
use crate::{Failure, row};

/// Keys that a keeper holds by default.
const HELD: usize = 10_000;
/// Users who come once the keeper is full.
const MORE: usize = 5_000;

/// A user's token that is at hand at once.
struct AtHand {
    number: u64,
    /// Held as the real procedure holds it.
    _user: UserKey,
}

impl FetchProcedure for AtHand {
    fn fetch(&self, _: FetchContext) -> Pin<Box<dyn Future<Output = Result<Fetched, Why>>>> {
        let fetched = fetched(self.number).map_err(|error| Why::new(Class::Transient, error.to_string()));
        Box::pin(async { fetched })
    }
}

fn fetched(number: u64) -> Result<Fetched, Failure> {
    let now = Clock::System.now();
    let tokens = users::tokens(number, now)?;
    let grant = tokens.grant(now).ok_or("it is dead")?;
    let bearer = HeaderValue::from_str(&format!("Bearer {}", grant.access_token.expose_secret()))?;
    let owner = grant.captured.into_iter().map(|(_, value)| (HeaderName::from_static("resourceownerid"), value));
    let headers = std::iter::once((AUTHORIZATION, bearer)).chain(owner);
    let credentials = headers.map(|(name, value)| (CallPlace::Header(name), value)).collect();
    let fingerprint = Fingerprint::of(tokens.access.token.expose_secret().as_bytes());
    let expires = Deadline::after(now, grant.life);
    let record = tokens.generation;
    Ok(Fetched { issued: now, expires, credentials, fingerprint, adopted: true, young: false, record })
}

fn spec(number: u64) -> Result<Arc<TokenSpec>, Failure> {
    let user = users::user(number)?;
    Ok(Arc::new(TokenSpec {
        key: user.record_key(),
        module: None,
        serial: 0,
        provider: "scb".into(),
        refresh_before: Duration::from_secs(60),
        fetch_timeout: Duration::from_secs(10),
        procedure: Box::new(AtHand { number, _user: user }),
    }))
}

/// `scale cache [--users 10000]`
pub async fn fill(mut args: Args) -> Result<(), Failure> {
    let users: usize = args.or("users", HELD)?;
    args.end()?;
    let (leases, inbox) = TokenHandle::open();
    let limits = Limits { keys: users, ..Limits::default() };
    tokio::task::spawn_local(Keeper::behind(inbox, Clock::System, limits, Box::new(()), None).run());
    // What the first ones bring into memory is not theirs alone.
    ask(&leases, 0..100).await?;
    let (before, _) = resident()?;
    let free = ask(&leases, 100..users).await?;
    let each = (resident()?.0 - before) * 1024.0 / users.saturating_sub(100) as f64;
    row("keeper: users held", users);
    row("keeper: memory per user", format!("{each:.1} KiB"));
    row("keeper: a user's first call, while there is room", format!("{:.0} µs", free * 1e6));
    let full = ask(&leases, users..users + MORE).await?;
    row("keeper: a user's first call, when it is full", format!("{:.0} µs", full * 1e6));
    Ok(())
}

/// Seconds per user.
async fn ask(leases: &TokenHandle, users: std::ops::Range<usize>) -> Result<f64, Failure> {
    let (many, begun) = (users.len(), Instant::now());
    for number in users {
        let issued = leases.need(spec(number as u64)?).await;
        issued.map_err(|unavailable| unavailable.inside.to_string())?;
    }
    Ok(begun.elapsed().as_secs_f64() / many as f64)
}
