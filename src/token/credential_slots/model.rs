//! Every order in which bank and operator can change credentials, with calls between, up to a depth. The slots and the
//! state machines of both tokens are the real ones; what the keeper and the workers do between them is here in short.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use super::*;
use crate::base::time::Deadline;
use crate::token::failure::Failure;
use crate::token::policy::Policy;
use crate::token::state::{Action, Arrived, Event, PhaseKind, TokenOrigin, TokenState};

const POLICY: Policy =
    Policy { refresh_before: Duration::from_secs(60), fetch_timeout: Duration::from_secs(10), overlap: true };
const LIFE: Duration = Duration::from_secs(600);

/// A secret: `0` is the one that everything begins with.
type SecretId = u8;

/// Something that happens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum RotationMove {
    /// The bank accepts one more secret.
    Accept(SecretId),
    /// A request needs a token.
    Call,
    /// The operator writes a config and reloads.
    Configure { current: SecretId, next: Option<SecretId> },
    /// All tokens reach their end.
    Expire,
    /// The bank accepts a secret no more; tokens of it live on.
    Retire(SecretId),
    /// The bank ends all tokens that it has issued.
    Revoke,
    /// Somebody asks for a token of the slot that is not in use: a call or a reload that began before a change.
    Stray,
}

const MOVES: [RotationMove; 14] = [
    RotationMove::Accept(0),
    RotationMove::Accept(1),
    RotationMove::Accept(2),
    RotationMove::Call,
    RotationMove::Configure { current: 0, next: None },
    RotationMove::Configure { current: 0, next: Some(1) },
    RotationMove::Configure { current: 1, next: None },
    RotationMove::Configure { current: 1, next: Some(2) },
    RotationMove::Expire,
    RotationMove::Retire(0),
    RotationMove::Retire(1),
    RotationMove::Retire(2),
    RotationMove::Revoke,
    RotationMove::Stray,
];

/// The token of one secret, as the keeper holds it.
#[derive(Clone, Debug, Default)]
struct HeldToken {
    state: TokenState,
    /// The generation on the shelf, its end, and the bank's number of it.
    lease: Option<(u64, Deadline, u64)>,
}

#[derive(Clone, Debug)]
struct RotationModel {
    now: Now,
    accepted: BTreeSet<SecretId>,
    current: SecretId,
    next: Option<SecretId>,
    is_next: bool,
    tokens: HashMap<SecretId, HeldToken>,
    /// The bank's tokens are numbered; those up to this one are revoked.
    issued: u64,
    revoked: u64,
    /// A call found no secret of the config accepted: both keys rest until a reload or for an hour.
    is_blocked: bool,
    token_calls: u32,
}

impl RotationModel {
    fn new() -> Self {
        Self {
            now: Now::at(1_000_000_000, 1_700_000_000_000),
            accepted: BTreeSet::from([0]),
            current: 0,
            next: None,
            is_next: false,
            tokens: HashMap::new(),
            issued: 0,
            revoked: 0,
            is_blocked: false,
            token_calls: 0,
        }
    }

    fn slots(&self) -> CredentialSlots {
        let slots = CredentialSlots::default();
        if self.is_next {
            slots.promote(CredentialSlot::Next);
        }
        slots
    }

    fn secret(&self, slot: CredentialSlot) -> Option<SecretId> {
        if slot == CredentialSlot::Current { Some(self.current) } else { self.next }
    }

    /// One step of a token's machine, and what the keeper does for it. Returns the class of a denial.
    fn advance(&mut self, secret: SecretId, event: Event) -> Option<Class> {
        let mut denied = None;
        let mut events = vec![event];
        while !events.is_empty() {
            let event = events.remove(0);
            let mut actions = Vec::new();
            let held = self.tokens.entry(secret).or_default();
            held.state = std::mem::take(&mut held.state).step(event, self.now, &POLICY, 0, &mut actions);
            for action in actions {
                match action {
                    Action::Deny(denial) => denied = Some(denial.class),
                    Action::Fetch { flight } => {
                        self.token_calls += 1;
                        if self.accepted.contains(&secret) {
                            self.issued += 1;
                            let (issued, expires) = (self.now, Deadline::after(self.now, LIFE));
                            let arrived = Arrived { issued, expires, origin: TokenOrigin::Issued };
                            events.push(Event::Fetched { flight, arrived });
                        } else {
                            let failure = Failure::new(Class::Fatal, "invalid_client");
                            events.push(Event::Failed { flight, failure });
                        }
                    }
                    Action::Publish { generation, expires, .. } => {
                        let number = self.issued;
                        held.lease = Some((generation, expires, number));
                    }
                    Action::Withdraw { generation } | Action::Invalidate { generation }
                        if held.lease.is_some_and(|(on_shelf, ..)| on_shelf == generation) =>
                    {
                        held.lease = None;
                    }
                    _ => {}
                }
            }
        }
        denied
    }

    /// A lease of this secret's token that has not ended; or why there is none.
    fn lease(&mut self, secret: SecretId) -> Result<(u64, u64), Class> {
        let valid = |world: &Self| {
            let (generation, expires, number) = world.tokens.get(&secret)?.lease?;
            (!expires.passed(world.now)).then_some((generation, number))
        };
        if let Some(lease) = valid(self) {
            return Ok(lease);
        }
        match self.advance(secret, Event::Needed) {
            Some(class) => Err(class),
            None => valid(self).ok_or(Class::Transient),
        }
    }

    /// What a worker does for a lease: the active slot, then the other one, once.
    fn obtain(&mut self, failed: Option<Class>) -> Option<(SecretId, u64, u64)> {
        let (active, before) = (self.slots().active(self.now), self.issued);
        let first = match failed {
            Some(class) => Err(class),
            None => self.secret(active).ok_or(Class::Fatal).and_then(|secret| {
                let (generation, number) = self.lease(secret)?;
                Ok((secret, generation, number))
            }),
        };
        match first {
            Ok(lease) => Some(lease),
            Err(class) if is_refusal(class) => {
                let other = self.secret(active.other())?;
                let (mut generation, mut number) = self.lease(other).ok()?;
                // A call that has no other replay takes no token of theirs that is older than the refusal.
                if failed.is_some() && number <= before {
                    self.advance(other, Event::Refused { generation, replaced: true });
                    (generation, number) = self.lease(other).ok()?;
                }
                self.is_next = active.other() == CredentialSlot::Next;
                // The slot that was left is asked anew when it is wanted again.
                if let Some(left) = self.secret(active)
                    && self.tokens.get(&left).is_some_and(|held| held.state.waiting() == PhaseKind::Resting)
                {
                    self.advance(left, Event::Forgiven);
                }
                Some((other, generation, number))
            }
            Err(_) => None,
        }
    }

    /// A call: a token, and a new one if the bank refuses it.
    fn call(&mut self) -> bool {
        self.token_calls = 0;
        let Some((secret, generation, number)) = self.obtain(None) else { return false };
        if number > self.revoked {
            return true;
        }
        // The bank has known it for long: its refusal is final.
        self.advance(secret, Event::Proved { generation });
        let failed = self.advance(secret, Event::Refused { generation, replaced: false });
        let again = match failed {
            Some(class) => self.obtain(Some(class)),
            None => self.obtain(None),
        };
        again.is_some_and(|(_, _, number)| number > self.revoked)
    }

    /// Asks for a token of the slot that is not in use. As long as the other one serves, a refusal leaves no rest.
    fn stray(&mut self) {
        let active = self.slots().active(self.now);
        let (Some(used), Some(unused)) = (self.secret(active), self.secret(active.other())) else { return };
        let refused = self.lease(unused).is_err();
        let lease = self.tokens.get(&used).and_then(|held| held.lease);
        let serves = lease.is_some_and(|(_, expires, _)| !expires.passed(self.now));
        let rests = self.tokens.get(&unused).is_some_and(|held| held.state.waiting() == PhaseKind::Resting);
        if refused && serves && rests {
            self.advance(unused, Event::Forgiven);
        }
        // Without a token of the slot in use it rests, as after a call that found both refused.
        self.is_blocked |= refused && !serves;
    }

    /// Returns whether this move keeps the promise.
    fn make(&mut self, what: RotationMove) -> Result<(), String> {
        match what {
            RotationMove::Accept(secret) => drop(self.accepted.insert(secret)),
            RotationMove::Retire(secret) => drop(self.accepted.remove(&secret)),
            RotationMove::Revoke => self.revoked = self.issued,
            RotationMove::Stray => self.stray(),
            RotationMove::Expire => {
                self.now = self.now.plus(Duration::from_secs(7200));
                self.is_blocked = false;
                let known: Vec<SecretId> = self.tokens.keys().copied().collect();
                for secret in known {
                    self.advance(secret, Event::Tick { used: false });
                }
            }
            RotationMove::Configure { current, next } => {
                let same = (self.current, self.next) == (current, next);
                (self.current, self.next, self.is_next) = (current, next, self.is_next && same);
                self.is_blocked = false;
                let known: Vec<SecretId> = self.tokens.keys().copied().collect();
                for secret in known {
                    self.advance(secret, Event::Forgiven);
                }
            }
            RotationMove::Call => {
                let usable = [Some(self.current), self.next].into_iter().flatten();
                let can_work = usable.clone().any(|secret| self.accepted.contains(&secret));
                let done = self.call();
                // Three: a live token of the other slot may be revoked as well, and that slot refused, too.
                if self.token_calls > 3 {
                    return Err(format!("{} token calls for one request", self.token_calls));
                }
                if !done && !can_work {
                    self.is_blocked = true;
                }
                if !done && can_work && !self.is_blocked {
                    return Err("a call failed although the bank accepts a secret of the config".to_owned());
                }
            }
        }
        Ok(())
    }
}

/// Tries every sequence of moves up to `depth`. Returns the number of states.
fn explore(world: &RotationModel, depth: u32, path: &mut Vec<RotationMove>) -> u64 {
    let mut states = 1;
    if depth == 0 {
        return states;
    }
    for what in MOVES {
        let mut after = world.clone();
        path.push(what);
        if let Err(why) = after.make(what) {
            panic!("{why}: {path:?}\n{after:?}");
        }
        states += explore(&after, depth - 1, path);
        path.pop();
    }
    states
}

/// Moves before a call matter only if a call follows: every sequence ends with one, by way of the last move.
#[test]
fn no_order_of_changes_fails_a_call_that_could_succeed() {
    let mut states = 0;
    let beginnings: [&[RotationMove]; 3] = [
        &[],
        // Two tokens live.
        &[
            RotationMove::Call,
            RotationMove::Accept(1),
            RotationMove::Configure { current: 1, next: None },
            RotationMove::Call,
        ],
        // The next secret is in use.
        &[
            RotationMove::Configure { current: 0, next: Some(1) },
            RotationMove::Accept(1),
            RotationMove::Retire(0),
            RotationMove::Call,
        ],
    ];
    for beginning in beginnings {
        let mut world = RotationModel::new();
        for what in beginning {
            world.make(*what).expect("a beginning that holds");
        }
        states += explore(&world, 5, &mut beginning.to_vec());
    }
    assert_eq!(states, 3 * (0..=5).map(|depth| 14_u64.pow(depth)).sum::<u64>());
}

proptest::proptest! {
    /// Longer histories, drawn at random.
    #[test]
    fn no_long_history_fails_a_call_that_could_succeed(
        moves in proptest::collection::vec(proptest::sample::select(MOVES.to_vec()), 0..60),
    ) {
        let mut world = RotationModel::new();
        for (at, what) in moves.iter().enumerate() {
            proptest::prop_assert_eq!(world.make(*what), Ok(()), "{:?}", &moves[..=at]);
        }
    }
}
