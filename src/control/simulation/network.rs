//! The way to the banks' own endpoints: each call that the control plane makes goes through here.

use std::rc::Rc;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};

use super::bank::{BankConsent, BankToken, Fate, Floor, RefreshDelivery, Renewed, SimulatedBanks, TokenOwner, number};
use super::process::{Process, current};
use super::settings::TOKEN_TIMEOUT;
use super::simulation_world::Simulation;
use super::user::ConsentKnowledge;
use super::{is_upkeep, run};
use crate::upstream::{AskError, Destination};

/// Lifetime of refresh tokens, in milliseconds.
pub(super) const REFRESH_LIFE: u64 = 180_000;
/// The same where a refresh brings no new one: it must outlive the run.
const LASTING: u64 = 900_000;
/// The shortest and the longest life of an access token, in seconds.
const LIVES: (u64, u64) = (20, 120);
/// A response that a store which is away keeps from being saved may be saved so much later, in milliseconds.
const LATE_SAVE: u64 = 60_000;
/// Rests may begin this much later than the bank's answer arrives, in milliseconds.
const SLACK: u64 = 5;

/// The simulated network of this thread.
pub(in crate::control) struct Network {
    world: Rc<Simulation>,
}

/// The purpose of a call, as the bank reads it.
#[derive(Clone, Debug, Eq, PartialEq)]
enum CallKind {
    Application { secret: String },
    Authorize,
    Exchange { code: usize },
    Refresh { refresh: usize },
    Senseless,
}

/// A call on the wire. Dropped before its answer is delivered, it is lost.
struct SimulatedCall {
    world: Rc<Simulation>,
    process: Rc<Process>,
    host: String,
    wish: CallKind,
    /// True if no client's call waits for the result.
    upkeep: bool,
    begun: u64,
    delivered: bool,
    /// True if the network or the bank loses the response.
    spoiled: bool,
    /// The consent that an exchange made.
    made: Option<usize>,
    /// The refresh that this call made, if it brought a usable access token.
    renewed: Option<Renewed>,
}

impl Network {
    pub(super) fn new(world: Rc<Simulation>) -> Self {
        Self { world }
    }

    /// Sends a call to a simulated bank and returns its response.
    pub(in crate::control) async fn ask(
        &self,
        destination: &Destination,
        request: Request<Full<Bytes>>,
    ) -> Result<Response<Bytes>, AskError> {
        let (world, process) = (self.world.clone(), current().expect("asked by a process"));
        let host = destination.host.to_string();
        let wish = read(&host, request).await;
        let mut call = SimulatedCall::begin(world.clone(), process.clone(), host, wish);
        let plan = &world.plan;
        let fate = match world.strikes(plan.fate) {
            true => plan.fates[world.below(plan.fates.len() as u64) as usize],
            false => Fate::Fine,
        };
        if fate != Fate::Fine {
            world.note(|| format!("{process} is in for {fate:?}"));
        }
        // And the worst to be told to end.
        if plan.drains && call.brings_once() && world.strikes(300) && process.is_running() {
            run::end_politely(&world, &process);
        }
        world.pause(5, 200).await;
        process.perhaps_die().await;
        match fate {
            Fate::ResetBefore => {
                call.spoiled = true;
                return Err(AskError::HungUp);
            }
            Fate::SilentBefore => std::future::pending().await,
            Fate::Rejected => return Ok(call.refuse(401, "invalid_client", None)),
            Fate::ServerError => return Ok(call.refuse(500, "oops", None)),
            Fate::TooMany | Fate::Unavailable => {
                let most = if world.chance(40) { 10 } else { 90 };
                let after = world.chance(60).then(|| world.between(1, most));
                let status = if fate == Fate::TooMany { 429 } else { 503 };
                return Ok(call.refuse(status, "slow_down", after));
            }
            Fate::Fine
            | Fate::Garbage
            | Fate::Half
            | Fate::Lifeless
            | Fate::OddType
            | Fate::ResetAfter
            | Fate::SilentAfter
            | Fate::Slow => {}
        }
        let (status, answer) = call.carry_out(fate);
        process.perhaps_die().await;
        match fate {
            Fate::Slow => world.pause(1_000, 2 * TOKEN_TIMEOUT).await,
            Fate::SilentAfter => std::future::pending().await,
            _ => world.pause(5, 300).await,
        }
        match fate {
            Fate::ResetAfter => return Err(AskError::Cut(status)),
            Fate::Garbage => return Ok(respond(200, "text/html", "<h1>It works!</h1>".to_owned(), None)),
            Fate::Half => {
                let text = answer.to_string();
                return Ok(respond(status, "application/json", text[..text.len() / 2].to_owned(), None));
            }
            _ => {}
        }
        call.deliver(status);
        process.perhaps_die().await;
        // The worst moment for the store to go away.
        if plan.outages && plan.shared && call.brings_once() && world.strikes(plan.cuts) {
            let length = world.between(2_000, 90_000);
            process.lane.cut(length, length);
        }
        Ok(respond(status, "application/json", answer.to_string(), None))
    }
}

impl SimulatedCall {
    fn begin(world: Rc<Simulation>, process: Rc<Process>, host: String, wish: CallKind) -> Self {
        let (begun, upkeep) = (world.now(), is_upkeep());
        let key = rest_key(&host, &wish, upkeep);
        world.note(|| format!("{process} asks {host} for {wish:?}{}", if upkeep { ", for its own sake" } else { "" }));
        {
            let mut bank = world.bank.borrow_mut();
            bank.flying += 1;
            bank.calls += 1;
            if let CallKind::Application { .. } = &wish {
                let flying = bank.fetching.entry((process.number, key.clone())).or_default();
                *flying += 1;
                if *flying > 1 {
                    world.broken(|| format!("{process} fetches one token twice at once from {host}"));
                }
            }
            if let Some(floor) = bank.floors.get(&(process.number, key.clone()))
                && begun + SLACK < floor.until
                && !bank.cured(process.number, &key, floor)
                && (world.spread() == 0 || matches!(wish, CallKind::Application { .. }))
            {
                let early = floor.until - begun;
                world.broken(|| format!("{process} asks {host} again {early} ms too early after {}", floor.why));
            }
            if let CallKind::Refresh { refresh } = wish {
                check_refresh(&world, &bank, &process, refresh);
                bank.refreshes[refresh].flying += 1;
            }
        }
        Self { world, process, host, wish, upkeep, begun, delivered: false, spoiled: false, made: None, renewed: None }
    }

    /// Returns whether the result of the call cannot be requested again.
    const fn brings_once(&self) -> bool {
        matches!(self.wish, CallKind::Exchange { .. } | CallKind::Refresh { .. })
    }

    /// Builds a response that refuses the call, and records the rest that it imposes. The call was not carried out.
    fn refuse(&mut self, status: u16, error: &str, after: Option<u64>) -> Response<Bytes> {
        let (world, process) = (&self.world, &self.process);
        world.note(|| format!("{process} is told {status} by {}, retry after {after:?}", self.host));
        let own = match status {
            401 => 300,
            429 => 30,
            _ => 0,
        };
        let rest = own.max(after.filter(|_| status != 401).unwrap_or(0)) * 1000;
        let now = world.now();
        // Rests are stretched by a fifth at most, and double.
        world.hinder(now + 2 * rest + rest / 2);
        let rested = match &self.wish {
            CallKind::Application { .. } | CallKind::Refresh { .. } => rest > 0,
            CallKind::Authorize | CallKind::Exchange { .. } | CallKind::Senseless => false,
        };
        if rested {
            let why = format!("{status} with Retry-After {after:?}");
            let floor = Floor { since: now, until: now + rest, why };
            let mut bank = world.bank.borrow_mut();
            if !self.upkeep {
                bank.rest(process.number, rest_key(&self.host, &self.wish, false), floor.clone());
            }
            // A failed refresh imposes a rest on upkeep, whichever of the two sent it. Calls have rests of their own.
            if matches!(self.wish, CallKind::Refresh { .. }) {
                bank.rest(process.number, rest_key(&self.host, &self.wish, true), floor);
            }
        }
        self.delivered = true;
        let body = match self.host.starts_with("scb") {
            true => json!({ "status": { "code": if status == 401 { 9500 } else { 7777 } } }),
            false => json!({ "error": error }),
        };
        respond(status, "application/json", body.to_string(), after)
    }

    /// The bank does what is asked. Its answer.
    fn carry_out(&mut self, fate: Fate) -> (u16, Value) {
        self.spoiled = matches!(fate, Fate::ResetAfter | Fate::Garbage | Fate::Half);
        let world = self.world.clone();
        let plan = &world.plan;
        let now = world.now();
        let life = if fate == Fate::Lifeless { 0 } else { world.between(LIVES.0, LIVES.1) };
        let kind = if fate == Fate::OddType { "mac" } else { "Bearer" };
        let stillborn = world.strikes(plan.stillborn);
        let late = if world.strikes(plan.late) { world.between(300, 2_500) } else { 0 };
        let refresh_life = if plan.rotates { REFRESH_LIFE } else { LASTING };
        let mut bank = world.bank.borrow_mut();
        let token = |owner| BankToken {
            host: self.host.clone(),
            owner,
            process: self.process.number,
            error: self.process.watch.error(),
            known: now + late,
            expires: now + life * 1000,
            revoked: stillborn,
            doubted: false,
            issued: now,
            asked_with: rest_key(&self.host, &self.wish, false),
        };
        let (access, refresh) = match &self.wish {
            CallKind::Application { .. } => {
                if self.host.starts_with("single") {
                    bank.revoke_applications(&self.host);
                }
                (bank.issue(token(TokenOwner::Application)), None)
            }
            CallKind::Authorize => {
                let url = json!({ "callbackUrl": "scbeasysim://login/1" });
                return (200, json!({ "status": { "code": 1000 }, "data": url }));
            }
            CallKind::Exchange { code } => {
                let Some(user) = bank.codes.get(*code).filter(|code| code.host == self.host && !code.spent) else {
                    return self.dead();
                };
                let user = user.user;
                bank.codes[*code].spent = true;
                let host = self.host.clone();
                bank.consents.push(BankConsent { user, host, alive: true, refresh: None, excuse: None });
                let consent = bank.consents.len() - 1;
                self.made = Some(consent);
                let access = bank.issue(token(TokenOwner::User { user, consent }));
                (access, Some(bank.issue_refresh(consent, now + refresh_life)))
            }
            CallKind::Refresh { refresh } => {
                let refresh = *refresh;
                let consent = bank.refreshes[refresh].consent;
                let user = bank.consents[consent].user;
                if bank.refreshes[refresh].spent.is_some() && plan.punishes {
                    world.note(|| format!("the bank ends consent {consent}: refresh-{refresh} came twice"));
                    bank.kill(consent);
                    bank.consents[consent].excuse.get_or_insert("a refresh token came twice, and nobody could know");
                }
                let good = bank.consents[consent].alive
                    && bank.refreshes[refresh].spent.is_none()
                    && now < bank.refreshes[refresh].expires
                    && bank.consents[consent].host == self.host;
                if !good {
                    return self.dead();
                }
                let access = bank.issue(token(TokenOwner::User { user, consent }));
                let process = self.process.number;
                self.renewed = (life > 0 && kind == "Bearer").then(|| Renewed {
                    at: now,
                    access: number(&access, "access"),
                    process,
                    told: now,
                });
                let next = plan.rotates.then(|| {
                    bank.refreshes[refresh].spent = Some(RefreshDelivery::Awaited);
                    bank.issue_refresh(consent, now + refresh_life)
                });
                (access, next)
            }
            CallKind::Senseless => return (400, json!({ "error": "invalid_request" })),
        };
        world.note(|| format!("{} gives {access} for {life} s, {refresh:?}", self.host));
        if self.host.starts_with("scb") {
            let mut data = json!({ "accessToken": access, "tokenType": kind, "expiresIn": life });
            if let Some(refresh) = refresh {
                data["refreshToken"] = refresh.into();
                data["refreshExpiresIn"] = (refresh_life / 1000).into();
            }
            return (200, json!({ "status": { "code": 1000 }, "data": data }));
        }
        let mut answer = json!({ "access_token": access, "token_type": kind, "expires_in": life });
        if let Some(refresh) = refresh {
            answer["refresh_token"] = refresh.into();
            answer["refresh_expires_in"] = (refresh_life / 1000).into();
        }
        (200, answer)
    }

    /// The code or the refresh token is dead.
    fn dead(&self) -> (u16, Value) {
        self.world.note(|| format!("{} calls {:?} dead", self.host, self.wish));
        match self.host.starts_with("scb") {
            true => (401, json!({ "status": { "code": 9300 } })),
            false => (400, json!({ "error": "invalid_grant" })),
        }
    }

    /// The process has the answer.
    fn deliver(&mut self, status: u16) {
        self.delivered = true;
        let (process, at) = (self.process.number, self.world.now());
        self.world.note(|| format!("{} has the answer of {}: {status}", self.process, self.host));
        let error = self.process.watch.error();
        let consent = match &self.wish {
            CallKind::Exchange { .. } => self.made,
            CallKind::Refresh { refresh } => Some(self.world.bank.borrow().refreshes[*refresh].consent),
            CallKind::Application { .. } | CallKind::Authorize | CallKind::Senseless => None,
        };
        if let Some(consent) = consent.filter(|_| error.unsigned_abs() > 30_000) {
            self.world.excuse(consent, "its record was written under a wrong clock");
        }
        if let CallKind::Refresh { refresh } = self.wish {
            let mut bank = self.world.bank.borrow_mut();
            for upkeep in [self.upkeep, true] {
                bank.floors.remove(&(process, rest_key(&self.host, &self.wish, upkeep)));
            }
            let renewed = self.renewed.map(|renewed| Renewed { told: at, ..renewed });
            bank.refreshes[refresh].renewed = renewed.or(bank.refreshes[refresh].renewed);
            if bank.refreshes[refresh].spent == Some(RefreshDelivery::Awaited) {
                bank.refreshes[refresh].spent = Some(RefreshDelivery::Delivered { process, at });
            }
        }
    }
}

impl Drop for SimulatedCall {
    fn drop(&mut self) {
        let mut bank = self.world.bank.borrow_mut();
        bank.flying -= 1;
        if let CallKind::Application { .. } = &self.wish
            && let Some(flying) =
                bank.fetching.get_mut(&(self.process.number, rest_key(&self.host, &self.wish, self.upkeep)))
        {
            *flying -= 1;
        }
        let now = self.world.now();
        // Given up before its time, with an answer still to come, it is lost by our fault.
        let in_time = now < self.begun + TOKEN_TIMEOUT;
        if self.brings_once() && !self.delivered && !self.spoiled && !self.process.is_dying() && in_time {
            self.world.broken(|| format!("{} gives up {:?}, whose answer is to come", self.process, self.wish));
        }
        let CallKind::Refresh { refresh } = self.wish else { return };
        bank.refreshes[refresh].flying -= 1;
        if self.delivered || bank.refreshes[refresh].spent != Some(RefreshDelivery::Awaited) {
            return;
        }
        bank.refreshes[refresh].spent = Some(RefreshDelivery::Lost);
        let consent = bank.refreshes[refresh].consent;
        drop(bank);
        self.world.note(|| format!("{} never learns what became of refresh-{refresh}", self.process));
        self.world.excuse(consent, "the answer to a refresh was lost");
    }
}

/// Builds the key of a rest: the host, the credential of the call, and whether upkeep made it.
fn rest_key(host: &str, wish: &CallKind, upkeep: bool) -> String {
    match wish {
        CallKind::Application { secret } => format!("{host} {secret}"),
        CallKind::Refresh { refresh } if upkeep => format!("{host} refresh-{refresh}, for its own sake"),
        CallKind::Refresh { refresh } => format!("{host} refresh-{refresh}"),
        CallKind::Authorize | CallKind::Exchange { .. } | CallKind::Senseless => host.to_owned(),
    }
}

/// A refresh token is sent: it must be neither on the wire nor known to be spent.
fn check_refresh(world: &Simulation, bank: &SimulatedBanks, process: &Process, refresh: usize) {
    let found = &bank.refreshes[refresh];
    if found.flying > 0 {
        world.broken(|| format!("{process} sends refresh-{refresh} while it is on the wire already"));
    }
    if let Some(why) = needless(world, bank, refresh) {
        world.broken(|| format!("{process} sends refresh-{refresh} without need: {why}"));
    }
    let Some(RefreshDelivery::Delivered { process: before, at }) = found.spent else { return };
    if could_tell(world, before, at) {
        world.broken(|| format!("{process} sends refresh-{refresh} again, whose successor was delivered at {at} ms"));
    }
}

/// Returns whether this process could save the response that it received at this moment: a process that lost the store,
/// or was killed, could not.
fn could_tell(world: &Simulation, process: u32, at: u64) -> bool {
    world.processes.borrow().iter().any(|known| known.number == process && known.could_save_since(at))
}

/// Returns the reason why another refresh is needless: one was made recently, and its access token stays valid for a
/// while. `None`: a refresh may be needed.
fn needless(world: &Simulation, bank: &SimulatedBanks, refresh: usize) -> Option<String> {
    let now = world.now();
    let Renewed { at, access, process, told } = bank.refreshes[refresh].renewed?;
    let access = bank.tokens.get(access?)?;
    let good = !access.revoked && !access.doubted && now + 20_000 < access.expires && now < at + LASTING / 3;
    // A process with a wrong clock may judge otherwise, and so may one that received a suspicion of a token, or could not
    // take a consent back.
    // Nor is the result known if an older one was saved late, when its lock was over.
    let saved = told.saturating_sub(LATE_SAVE);
    let user = bank.consents[bank.refreshes[refresh].consent].user;
    let is_unknown = world.users[user].freshness.get() == ConsentKnowledge::Unknown;
    let known = world.spread() == 0 && !world.suspects_since(at) && !is_unknown && could_tell(world, process, saved);
    (good && known).then(|| format!("it was made at {at} ms, and its access token lives until {} ms", access.expires))
}

/// Reads a request as the bank does.
async fn read(host: &str, request: Request<Full<Bytes>>) -> CallKind {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let text = std::str::from_utf8(&body).unwrap_or_default();
    let path = head.uri.path();
    let field = |name: &str| -> Option<String> {
        if host.starts_with("scb") {
            let value: Value = serde_json::from_str(text).ok()?;
            return value.get(name)?.as_str().map(str::to_owned);
        }
        form_urlencoded::parse(text.as_bytes()).find(|(key, _)| key == name).map(|(_, value)| value.into_owned())
    };
    let names = match host.starts_with("scb") {
        true => ["authCode", "refreshToken", "applicationSecret"],
        false => ["code", "refresh_token", "client_secret"],
    };
    if path.ends_with("/authorize") {
        return CallKind::Authorize;
    }
    let [code, refresh, secret] = names.map(field);
    if let Some(code) = code {
        return number(&code, "code").map_or(CallKind::Senseless, |code| CallKind::Exchange { code });
    }
    if let Some(refresh) = refresh {
        return number(&refresh, "refresh").map_or(CallKind::Senseless, |refresh| CallKind::Refresh { refresh });
    }
    secret.map_or(CallKind::Senseless, |secret| CallKind::Application { secret })
}

fn respond(status: u16, media: &'static str, body: String, after: Option<u64>) -> Response<Bytes> {
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(http::header::CONTENT_TYPE, media.parse().expect("a media type"));
    // SCB says whose token it is in a header.
    response.headers_mut().insert("resourceownerid", "owner".parse().expect("a value"));
    if let Some(after) = after {
        response.headers_mut().insert(http::header::RETRY_AFTER, after.into());
    }
    response
}
