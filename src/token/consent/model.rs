//! Random lives: a store, replicas, a provider that rotates and remembers every refresh token that it was shown, and
//! everything that goes wrong between them. The model knows only what an onlooker sees.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::tokens::tests::{START, fresh, key};
use super::*;
use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::Now;
use crate::token::failure::{Class, Failure};
use crate::token::grant::RefreshGrant;

const REALM: ConsentRealm = ConsentRealm([1; 32]);
const UPKEEP: Upkeep = Upkeep { refresh_before: Duration::from_secs(60), keep_alive: Duration::from_secs(12 * 3600) };

/// A consent arrives at some replica, somehow.
#[derive(Clone, Debug)]
enum ModelVisit {
    /// With a wrong owner, provider or user, an error, no code, or all as it should be.
    Come {
        which: usize,
        how: ConsentCourse,
        provider: bool,
        realm: bool,
    },
    Pass(u64),
}

#[derive(Clone, Copy, Debug)]
enum ConsentCourse {
    App { owner: bool, user: bool },
    Browser,
    Denied,
    Empty,
}

fn visits() -> impl Strategy<Value = ModelVisit> {
    let how = prop_oneof![
        3 => Just(ConsentCourse::Browser),
        2 => any::<(bool, bool)>().prop_map(|(owner, user)| ConsentCourse::App { owner, user }),
        1 => Just(ConsentCourse::Denied),
        1 => Just(ConsentCourse::Empty),
    ];
    prop_oneof![
        5 => (0_usize..4, how, prop::bool::weighted(0.9), prop::bool::weighted(0.9))
            .prop_map(|(which, how, provider, realm)| ModelVisit::Come { which, how, provider, realm }),
        1 => (0_u64..400).prop_map(ModelVisit::Pass),
    ]
}

proptest! {
    /// No state is accepted twice, none after its time, none for another user, owner or provider; and only what was
    /// accepted leaves a code behind that could be sent, once, and only while it is fresh.
    #[test]
    fn no_state_is_ever_accepted_twice(visits in proptest::collection::vec(visits(), 1..40)) {
        let states: Vec<State> = (0..3).map(|n| State::from_random([n; 32])).collect();
        let users = ["alice", "bob", "carol"];
        let mut now = START;
        let mut store: HashMap<StateId, Vec<u8>> = HashMap::new();
        for (state, user) in states.iter().zip(users) {
            let pending = PendingConsent::start(key(user), "erp".into(), REALM, None, CodeVerifier::from_random([0; 32]), now);
            store.insert(state.id(), PendingEntry::Pending(pending).seal().expose_secret().clone());
        }
        let mut accepted: HashSet<StateId> = HashSet::new();
        let mut visited: HashSet<StateId> = HashSet::new();
        for visit in visits {
            let (which, how, right_provider, right_realm) = match visit {
                ModelVisit::Pass(seconds) => {
                    now = now.plus(Duration::from_secs(seconds));
                    continue;
                }
                ModelVisit::Come { which, how, provider, realm } => (which, how, provider, realm),
            };
            // The fourth was never started.
            let state = states.get(which).cloned().unwrap_or_else(|| State::from_random([99; 32]));
            let id = state.id();
            let old = store.get(&id).cloned();
            if old.is_some() {
                store.insert(id, PendingEntry::Spent { at: now.wall }.seal().expose_secret().clone());
            }
            let found = old.map(|bytes| PendingEntry::open(&bytes).expect("what we wrote"));
            let mut named = key(users.get(which).copied().unwrap_or("mallory"));
            if let ConsentCourse::App { owner, user } = how {
                if !owner {
                    named.owner = ConsentOwner::Client("other".into());
                }
                if !user {
                    named.user = UserName::parse("eve").expect("a name");
                }
            }
            let asked = match how {
                ConsentCourse::App { .. } => ConsentOrigin::Application(&named),
                ConsentCourse::Browser | ConsentCourse::Denied | ConsentCourse::Empty => ConsentOrigin::Browser,
            };
            let callback = CallbackAnswer {
                state: Some(state),
                code: (!matches!(how, ConsentCourse::Empty)).then(|| AuthorizationCode::new(SecretString::from("code"), now)),
                error: matches!(how, ConsentCourse::Denied).then(|| "access_denied".to_owned()),
                issuer: None,
            };
            let realm = if right_realm { REALM } else { ConsentRealm([2; 32]) };
            let first = visited.insert(id);
            match judge(found, if right_provider { "scb" } else { "oauth2" }, &realm, None, asked, callback, now) {
                Ok(consenting) => {
                    prop_assert!(first && accepted.insert(id), "accepted twice");
                    prop_assert!(right_provider && right_realm && which < 3);
                    prop_assert!(now.since(START) < PENDING_LIFE);
                    let right = matches!(how, ConsentCourse::Browser | ConsentCourse::App { owner: true, user: true });
                    prop_assert!(right);
                    prop_assert_eq!(consenting.pending().user().as_str(), users[which]);
                    let (_, code) = consenting.into_parts();
                    let late = now.plus(Duration::from_secs(60));
                    prop_assert!(code.spend(Duration::from_secs(60), late).is_none(), "a minute old");
                }
                Err(rejection) => {
                    let why = match rejection.why {
                        NotExchanged::Unknown => which == 3,
                        NotExchanged::Reused => !first,
                        NotExchanged::OtherProvider => first && !right_provider,
                        NotExchanged::Changed => first && !right_realm,
                        NotExchanged::OtherOwner => matches!(how, ConsentCourse::App { owner: false, .. }),
                        NotExchanged::OtherIssuer => false,
                        NotExchanged::OtherUser => matches!(how, ConsentCourse::App { user: false, .. }),
                        NotExchanged::Refused(_) => matches!(how, ConsentCourse::Denied),
                        NotExchanged::NoCode => matches!(how, ConsentCourse::Empty),
                        NotExchanged::Expired => now.since(START) >= PENDING_LIFE,
                    };
                    prop_assert!(why, "{:?}", rejection);
                    prop_assert!(rejection.return_to.is_none(), "there was none");
                }
            }
        }
    }
}

#[test]
fn a_code_that_arrived_a_minute_ago_is_dropped() {
    let life = Duration::from_secs(60);
    let code = || AuthorizationCode::new(SecretString::from("c"), START);
    assert!(code().spend(life, START.plus(Duration::from_millis(59_999))).is_some());
    assert!(code().spend(life, START.plus(life)).is_none());
    assert!(code().spend(life, Now::at(START.boot, START.wall + 60_000)).is_none(), "either clock");
}

/// A provider by the strictest reading: one refresh token works once; shown twice, the whole consent is dead.
#[derive(Default)]
struct StrictBank {
    live: HashMap<String, String>,
    shown: HashMap<String, u32>,
    dead: HashSet<String>,
    next: u64,
}

impl StrictBank {
    fn grant(&mut self, user: &str) -> crate::token::grant::UserGrant {
        self.next += 1;
        let refresh = format!("refresh-{}", self.next);
        self.live.insert(refresh.clone(), user.to_owned());
        fresh(&format!("{user}-access-{}", self.next), Some(&refresh), Some(user))
    }

    fn refresh(&mut self, token: &str) -> Result<crate::token::grant::UserGrant, RotationRefusal> {
        *self.shown.entry(token.to_owned()).or_default() += 1;
        assert!(!self.dead.contains(token), "asked again with what the bank called dead");
        match self.live.remove(token) {
            Some(user) => Ok(self.grant(&user)),
            None => {
                self.dead.insert(token.to_owned());
                Err(RotationRefusal::Dead("9300".to_owned()))
            }
        }
    }
}

#[derive(Clone, Debug)]
enum TokenLife {
    Call {
        user: usize,
        refused: bool,
        weather: BankBehavior,
        saves: u32,
    },
    Consent(usize),
    KeepAlive {
        user: usize,
    },
    Pass(u64),
    /// The user, or the bank, takes the consent back.
    Revoke(usize),
    /// The store mixes two records up.
    Swap,
}

#[derive(Clone, Copy, Debug)]
enum BankBehavior {
    Fair,
    /// The answer is lost on its way: the provider has rotated, we do not know.
    Lost,
    Unreachable,
}

fn lives() -> impl Strategy<Value = TokenLife> {
    let weather =
        prop_oneof![5 => Just(BankBehavior::Fair), 1 => Just(BankBehavior::Lost), 2 => Just(BankBehavior::Unreachable)];
    prop_oneof![
        6 => (0_usize..2, any::<bool>(), weather, 0_u32..4)
            .prop_map(|(user, refused, weather, saves)| TokenLife::Call { user, refused, weather, saves }),
        2 => (0_usize..2).prop_map(TokenLife::Consent),
        2 => (0_usize..2).prop_map(|user| TokenLife::KeepAlive { user }),
        3 => (0_u64..2400).prop_map(TokenLife::Pass),
        1 => (0_usize..2).prop_map(TokenLife::Revoke),
        1 => Just(TokenLife::Swap),
    ]
}

const USERS: [&str; 2] = ["alice", "bob"];

/// One replica's way through a rotation, the store and the bank at its hands.
struct ReplicaModel {
    bank: StrictBank,
    store: HashMap<String, Vec<u8>>,
    now: Now,
}

impl ReplicaModel {
    fn read(&self, key: &UserKey) -> Option<Arc<UserTokens>> {
        let bytes = self.store.get(&key.record_key().to_string())?;
        Some(Arc::new(UserTokens::open(bytes).expect("what we wrote")))
    }

    fn write(&mut self, key: &UserKey, tokens: &UserTokens) {
        self.store.insert(key.record_key().to_string(), tokens.seal().expose_secret().clone());
    }

    fn run(&mut self, key: &UserKey, goal: RotationGoal, weather: BankBehavior, failing_saves: u32) -> RotationEnding {
        let locking = match Looking::begin(key.clone(), REALM, goal, UPKEEP).found(self.read(key), self.now) {
            LookResult::Done(ending) => return ending,
            LookResult::Lock(locking) => locking,
        };
        let asking = match locking.found(self.read(key), self.now) {
            Locked::Done(ending) => return ending,
            Locked::Ask(asking) => asking,
        };
        let refresh = asking.tokens().refresh.as_ref().expect("there is something to ask with").token.clone();
        let lost = || Err(RotationRefusal::Failed(Failure::new(Class::Transient, "weather")));
        let answer = match weather {
            BankBehavior::Fair => self.bank.refresh(refresh.expose_secret()),
            BankBehavior::Lost => self.bank.refresh(refresh.expose_secret()).and_then(|_| lost()),
            BankBehavior::Unreachable => lost(),
        };
        let mut saving = match asking.answered(answer, self.now, self.now) {
            Ok(saving) => saving,
            Err(ending) => return ending,
        };
        for _ in 0..failing_saves {
            saving = saving.failed("it is slow", 0).expect("not yet").0;
        }
        let next = saving.tokens().clone();
        self.write(key, &next);
        saving.saved(self.now)
    }
}

proptest! {
    /// For any sequence of events: each served token is in the store and belongs to the user; no expired or refused
    /// token is served; a refresh token that the provider rejected is never sent again; and a consent without usable
    /// tokens causes no provider calls.
    #[test]
    fn every_life_keeps_the_promises(lives in proptest::collection::vec(lives(), 1..60)) {
        let mut world = ReplicaModel { bank: StrictBank::default(), store: HashMap::new(), now: START };
        let mut delivered: HashMap<usize, u64> = HashMap::new();
        for life in lives {
            match life {
                TokenLife::Pass(seconds) => world.now = world.now.plus(Duration::from_secs(seconds)),
                TokenLife::Consent(user) => {
                    let key = key(USERS[user]);
                    let grant = world.bank.grant(USERS[user]);
                    let before = world.read(&key).filter(|before| before.key == key);
                    let tokens = UserTokens::consented(key.clone(), REALM, grant, world.now, before.as_deref());
                    prop_assert!(before.is_none_or(|before| before.generation < tokens.generation));
                    world.write(&key, &tokens);
                }
                TokenLife::Revoke(user) => world.bank.live.retain(|_, owner| owner != USERS[user]),
                TokenLife::Swap => {
                    let keys = USERS.map(|user| key(user).record_key().to_string());
                    let (one, other) = (world.store.remove(&keys[0]), world.store.remove(&keys[1]));
                    world.store.extend(one.map(|bytes| (keys[1].clone(), bytes)));
                    world.store.extend(other.map(|bytes| (keys[0].clone(), bytes)));
                }
                TokenLife::Call { .. } | TokenLife::KeepAlive { .. } => {
                    let (user, goal, weather, saves) = match life {
                        TokenLife::Call { user, refused, weather, saves } => {
                            let newer_than = if refused { delivered.get(&user).copied().unwrap_or(0) } else { 0 };
                            (user, RotationGoal::Serve { newer_than }, weather, saves)
                        }
                        TokenLife::KeepAlive { user } => (user, RotationGoal::KeepAlive, BankBehavior::Fair, 0),
                        TokenLife::Consent(_) | TokenLife::Pass(_) | TokenLife::Revoke(_) | TokenLife::Swap => continue,
                    };
                    let key = key(USERS[user]);
                    let before: u32 = world.bank.shown.values().sum();
                    let ending = world.run(&key, goal, weather, saves);
                    let shown: u32 = world.bank.shown.values().sum();
                    prop_assert!(shown - before <= 1, "one attempt, one call");
                    match ending {
                        RotationEnding::Ready(tokens) => {
                            prop_assert_eq!(&tokens.key, &key);
                            prop_assert!(tokens.access.token.expose_secret().starts_with(USERS[user]), "another user's token");
                            let stored = world.read(&key).expect("it was saved first");
                            let (stored, served) = (stored.seal(), tokens.seal());
                            prop_assert_eq!(stored.expose_secret(), served.expose_secret());
                            if let RotationGoal::Serve { newer_than } = goal {
                                prop_assert!(tokens.valid(world.now) && tokens.generation > newer_than);
                                delivered.insert(user, tokens.generation);
                            }
                        }
                        RotationEnding::ConsentRequired(_) => {
                            // From here on no call is made until something else changes.
                            let calls: u32 = world.bank.shown.values().sum();
                            if let RotationGoal::Serve { .. } = goal {
                                let again = world.run(&key, goal, BankBehavior::Fair, 0);
                                prop_assert!(matches!(again, RotationEnding::ConsentRequired(_)), "{:?}", again);
                            }
                            prop_assert_eq!(calls, world.bank.shown.values().sum::<u32>(), "a dead consent asks nobody");
                        }
                        RotationEnding::Failed(_) => prop_assert!(!matches!(weather, BankBehavior::Fair)),
                    }
                }
            }
        }
    }
}

#[test]
fn who_finds_that_another_replica_was_quicker_does_not_ask() {
    let key = key("alice");
    let old = Arc::new(UserTokens::consented(key.clone(), REALM, fresh("a1", Some("r1"), None), START, None));
    let late = START.plus(Duration::from_secs(1790));
    let looking = Looking::begin(key, REALM, RotationGoal::Serve { newer_than: old.generation }, UPKEEP);
    let LookResult::Lock(locking) = looking.found(Some(old.clone()), late) else { panic!("it is due") };
    let renewed = Arc::new(old.rotated(fresh("a2", Some("r2"), None), late));
    let Locked::Done(RotationEnding::Ready(found)) = locking.found(Some(renewed.clone()), late) else {
        panic!("no call")
    };
    assert!(Arc::ptr_eq(&found, &renewed));
}

/// A valid token keeps serving while its renewal fails; one that was refused does not.
#[test]
fn what_lives_serves_while_its_renewal_fails() {
    let key = key("alice");
    let old = Arc::new(UserTokens::consented(key.clone(), REALM, fresh("a1", Some("r1"), None), START, None));
    let late = START.plus(Duration::from_secs(1790));
    let failing = |newer_than: u64, now: Now| {
        let looking = Looking::begin(key.clone(), REALM, RotationGoal::Serve { newer_than }, UPKEEP);
        let LookResult::Lock(locking) = looking.found(Some(old.clone()), late) else { panic!("it is due") };
        let Locked::Ask(asking) = locking.found(Some(old.clone()), late) else { panic!("nobody was quicker") };
        let failure = Failure::new(Class::Transient, "weather");
        asking.answered(Err(RotationRefusal::Failed(failure)), late, now).expect_err("nothing to save")
    };
    assert!(matches!(failing(0, late), RotationEnding::Ready(_)));
    assert!(matches!(failing(old.generation, late), RotationEnding::Failed(_)), "refused");
    assert!(
        matches!(failing(0, START.plus(Duration::from_secs(1800))), RotationEnding::Failed(_)),
        "expired meanwhile"
    );
    let looking = Looking::begin(key.clone(), REALM, RotationGoal::Serve { newer_than: 0 }, UPKEEP);
    let LookResult::Lock(locking) = looking.found(Some(old.clone()), late) else { panic!("it is due") };
    assert!(matches!(locking.unreadable("no lock", late), RotationEnding::Ready(_)));
}

#[test]
fn what_changed_under_a_save_is_respected() {
    let key = key("alice");
    let old = Arc::new(UserTokens::consented(key.clone(), REALM, fresh("a1", Some("r1"), None), START, None));
    let late = START.plus(Duration::from_secs(1790));
    let saving = || {
        let looking = Looking::begin(key.clone(), REALM, RotationGoal::Serve { newer_than: 0 }, UPKEEP);
        let LookResult::Lock(locking) = looking.found(Some(old.clone()), late) else { panic!("it is due") };
        let Locked::Ask(asking) = locking.found(Some(old.clone()), late) else { panic!("nobody was quicker") };
        asking.answered(Ok(fresh("a2", Some("r2"), None)), late, late).expect("something to save")
    };
    let touched = Arc::new(old.touched(&UPKEEP, late).expect("half an hour later"));
    let again = saving().outdated(Some(touched), late).expect_err("only a call was noted: save again");
    assert_eq!((again.tokens().last_call, again.tokens().generation), (late.wall, old.generation + 1));
    let Ok(RotationEnding::ConsentRequired(_)) = saving().outdated(None, late) else { panic!("revoked stays revoked") };
    let consented = UserTokens::consented(key.clone(), REALM, fresh("b1", Some("s1"), None), late, Some(&old));
    let Ok(RotationEnding::Ready(found)) = saving().outdated(Some(Arc::new(consented)), late) else {
        panic!("a new consent")
    };
    assert_eq!(found.access.token.expose_secret(), "b1");
}

#[test]
fn an_access_token_that_was_refused_stays_so_whatever_its_renewal_brings() {
    let key = key("alice");
    let old = Arc::new(UserTokens::consented(key.clone(), REALM, fresh("a1", Some("r1"), None), START, None));
    let saving = |answer| {
        let looking = Looking::begin(key.clone(), REALM, RotationGoal::Serve { newer_than: old.generation }, UPKEEP);
        let LookResult::Lock(locking) = looking.found(Some(old.clone()), START) else { panic!("it was refused") };
        let Locked::Ask(asking) = locking.found(Some(old.clone()), START) else { panic!("nobody was quicker") };
        asking.answered(answer, START, START).expect("something to save")
    };
    let odd = Failure::new(Class::Transient, "odd");
    let alone = RefreshGrant { token: SecretString::from("r2"), life: None };
    let answers = [
        (RotationRefusal::Dead("invalid_grant".to_owned()), None),
        (RotationRefusal::Unusable(odd, alone), Some("r2")),
    ];
    for (answer, refresh) in answers {
        // The refusal is noted in the store while the provider is asked.
        let again = saving(Err(answer)).outdated(Some(Arc::new(old.refused())), START).expect_err("save again");
        let tokens = again.tokens();
        assert_eq!(tokens.refresh.as_ref().map(|refresh| refresh.token.expose_secret()), refresh);
        assert!(!tokens.valid(START), "it is over");
    }
}

/// Two replicas hold the same refresh token because one of them had lost its lock. The replica with the successful
/// response is right.
#[test]
fn a_success_counts_for_more_than_dead_and_dead_for_nothing_newer() {
    let key = key("alice");
    let old = Arc::new(UserTokens::consented(key.clone(), REALM, fresh("a1", Some("r1"), None), START, None));
    let late = START.plus(Duration::from_secs(1790));
    let saving = |answer| {
        let looking = Looking::begin(key.clone(), REALM, RotationGoal::Serve { newer_than: 0 }, UPKEEP);
        let LookResult::Lock(locking) = looking.found(Some(old.clone()), late) else { panic!("it is due") };
        let Locked::Ask(asking) = locking.found(Some(old.clone()), late) else { panic!("nobody was quicker") };
        asking.answered(answer, late, late).expect("something to save")
    };
    let text = |tokens: &UserTokens| tokens.refresh.as_ref().map(|refresh| refresh.token.expose_secret().to_owned());
    let alone = |token: &str| RefreshGrant { token: SecretString::from(token), life: None };
    let renewed = || saving(Ok(fresh("a2", Some("r2"), None)));
    let dead = || saving(Err(RotationRefusal::Dead("invalid_grant".to_owned())));
    let unusable = || saving(Err(RotationRefusal::Unusable(Failure::new(Class::Transient, "odd"), alone("r9"))));

    for found in [old.bereft(), old.refreshed_only(alone("r9"), late)] {
        let again = renewed().outdated(Some(Arc::new(found)), late).expect_err("the success is written");
        assert_eq!((text(again.tokens()).as_deref(), again.tokens().generation), (Some("r2"), old.generation + 1));
        let RotationEnding::Ready(tokens) = again.saved(late) else { panic!("and serves") };
        assert_eq!(tokens.access.token.expose_secret(), "a2");
    }
    for found in [old.rotated(fresh("a2", Some("r2"), None), late), old.refreshed_only(alone("r9"), late)] {
        let found = Arc::new(found);
        dead().outdated(Some(found.clone()), late).expect("what lives stays");
        unusable().outdated(Some(found), late).expect("what lives stays");
    }
    let again =
        unusable().outdated(Some(Arc::new(old.bereft())), late).expect_err("a refresh token is better than none");
    assert_eq!(text(again.tokens()).as_deref(), Some("r9"));
}

#[test]
fn a_refresh_token_without_an_access_token_is_saved_and_asked_with_next() {
    let key = key("alice");
    let old = Arc::new(UserTokens::consented(key.clone(), REALM, fresh("a1", Some("r1"), None), START, None));
    let refresh = RefreshGrant { token: SecretString::from("r2"), life: Some(Duration::from_secs(3600)) };
    let late = START.plus(Duration::from_secs(1790));
    let asking = |record: &Arc<UserTokens>, newer_than, now| {
        let looking = Looking::begin(key.clone(), REALM, RotationGoal::Serve { newer_than }, UPKEEP);
        let LookResult::Lock(locking) = looking.found(Some(record.clone()), now) else { panic!("it is due") };
        let Locked::Ask(asking) = locking.found(Some(record.clone()), now) else { panic!("nobody was quicker") };
        asking
    };
    let answer = Err(RotationRefusal::Unusable(Failure::new(Class::Transient, "odd"), refresh));
    let saving = asking(&old, old.generation, late).answered(answer, late, late).expect("something to save");
    let saved = saving.tokens().clone();
    assert!(matches!(saving.saved(late), RotationEnding::Failed(_)), "the old one was refused");
    let next = asking(&saved, old.generation, late);
    let sent = next.tokens().refresh.as_ref().expect("a refresh token");
    assert_eq!((sent.token.expose_secret(), sent.expires), ("r2", Some(late.wall + 3_600_000)));
    assert_eq!(saved.generation, old.generation, "no other access token, no other generation");
}
