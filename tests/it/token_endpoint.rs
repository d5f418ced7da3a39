//! A token endpoint in all its moods, end to end: what the application sees, how often the bank is asked, and how soon
//! all is well again. Time is moved by hand, except where a deadline of the network is the subject.

use std::fmt::Write as _;
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use countersign::base::secret::SecretString;
use countersign::base::time::{Clock, ManualClock, Stopwatch};
use countersign::sim::{
    self, Bank, Expiry, Faults, Hours, LeafSpec, ResponseFault, Sim, SimAuthority, SimEndpoint, SimFault, SimHandle,
    SimLeaf, Usage, Verbatim,
};

use crate::client::{Whole, converse, get};
use crate::harness::{Harness, KEY, Plan, bank};
use crate::new_tokens::settle;

/// Nobody who asks during a rest waits longer than this: there is nothing to wait for.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Longer than any token, rest or backoff.
const LONG: Duration = Duration::from_secs(3 * 24 * 3600);

/// A bank and a proxy that live by one clock, which only we move.
struct Rig {
    hand: Arc<ManualClock>,
    sim: SimHandle,
    stage: Harness,
}

impl Rig {
    fn new(kind: Bank, more: &str) -> Self {
        let hand = ManualClock::at(Clock::System.now());
        let clock = Clock::Manual(hand.clone());
        let options = sim::SimOptions { clock: clock.clone(), ..sim::SimOptions::default() };
        let sim = Sim::start(kind, options).expect("a simulator");
        let stage = Plan { clock, workers: 1, ..Plan::default() }.with(&sim, "bank", more, "").start();
        Self { hand, sim, stage }
    }

    async fn call(&self) -> Whole {
        self.stage.client.send(get("/bank/echo/x", KEY)).await
    }

    /// The token that the bank's API was shown last.
    fn spent(&self) -> String {
        let received = self.sim.received();
        let last = received.iter().rev().find(|arrival| arrival.endpoint == SimEndpoint::Resource);
        last.and_then(|arrival| arrival.bearer()).expect("a token").to_owned()
    }

    /// Moves both clocks, and lets the keeper see it.
    async fn advance(&self, by: Duration) {
        self.hand.advance(by);
        self.stage.running.leases.tick().await;
    }

    /// The live token's generation and its whole life.
    async fn token(&self) -> Option<(u64, Duration)> {
        let ledger = self.stage.running.leases.ledger().await;
        let token = ledger.lines.first()?.token?;
        Some((token.generation, Duration::from_millis(token.expires - token.issued)))
    }

    async fn until_token_calls(&self, calls: u64) {
        for _ in 0..500 {
            if self.sim.token_calls() >= calls {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("the bank was asked {} times, never {calls}", self.sim.token_calls());
    }

    /// From a rested key: one call that fails like this, twenty that fail at once without asking the bank, and, when
    /// the time named in `Retry-After` is over and the bank well again, one that succeeds. Answers `Retry-After`.
    async fn suffers(&self, what: &str, faults: Faults, status: u16, error: &str) -> u64 {
        self.sim.set(faults);
        self.advance(LONG).await;
        let before = (self.sim.token_calls(), self.sim.resource_calls());
        let first = self.call().await;
        assert_eq!((first.status, first.error().as_str()), (status, error), "{what}: {first:?}");
        let wait = retry_after(what, &first);
        let mut sender = self.stage.client.http1().await;
        for _ in 0..20 {
            sender.ready().await.expect("kept alive");
            let watch = Stopwatch::start();
            let again = sender.send_request(get("/bank/echo/x", KEY)).await.expect("an answer");
            let again = Whole::read(again).await.expect("whole");
            assert!(watch.elapsed() < AT_ONCE, "{what}: {:?} for an answer that is known", watch.elapsed());
            assert_eq!((again.status, again.error().as_str()), (status, error), "{what}");
            assert!(retry_after(what, &again) <= wait, "{what}: the rest is not prolonged by asking");
        }
        let after = (self.sim.token_calls(), self.sim.resource_calls());
        assert_eq!(
            (after.0 - before.0, after.1 - before.1),
            (1, 0),
            "{what}: asked once, and nothing went out unsigned"
        );
        self.sim.set(Faults::default());
        self.advance(Duration::from_secs(wait)).await;
        let healed = self.call().await;
        assert_eq!(healed.status, 200, "{what}: after Retry-After it works again: {healed:?}");
        wait
    }
}

fn retry_after(what: &str, answer: &Whole) -> u64 {
    let seconds = answer.header("retry-after").parse().unwrap_or(0);
    assert!(seconds >= 1, "{what}: no Retry-After in {:?}", answer.headers);
    seconds
}

fn token(fault: SimFault) -> Faults {
    Faults { token: fault, ..Faults::default() }
}

fn says(body: impl Into<Bytes>) -> Faults {
    token(SimFault::new(ResponseFault::Verbatim(Verbatim::json(200, body))))
}

// T21
#[test]
fn an_answer_that_is_no_grant_is_a_failure_that_rests_and_heals() {
    let mut nested = "[".repeat(40);
    nested += &"]".repeat(40);
    let padded = |length: usize| {
        let frame = r#"{"access_token":"abc","token_type":"Bearer","expires_in":60,"pad":""}"#.len();
        format!(
            r#"{{"access_token":"abc","token_type":"Bearer","expires_in":60,"pad":"{}"}}"#,
            "x".repeat(length - frame)
        )
    };
    let answer = |status, kind: &str, body: &'static str| {
        let headers = vec![("content-type".to_owned(), kind.to_owned())];
        token(SimFault::new(ResponseFault::Verbatim(Verbatim {
            status,
            headers,
            body: Bytes::from_static(body.as_bytes()),
        })))
    };
    let rows: Vec<(&str, Faults)> = vec![
        ("an empty 200", says("")),
        ("a 204", token(SimFault::new(ResponseFault::Verbatim(Verbatim::bare(204, &[]))))),
        ("white space", says(" \r\n\t ")),
        ("a page with status 200", token(SimFault::new(ResponseFault::HtmlError(200)))),
        ("a page with status 500", token(SimFault::new(ResponseFault::HtmlError(500)))),
        ("a page with status 502", token(SimFault::new(ResponseFault::HtmlError(502)))),
        ("a form", answer(200, "application/x-www-form-urlencoded", "access_token=abc&token_type=Bearer")),
        ("one byte more than 64 KiB", says(padded(64 * 1024 + 1))),
        ("10 MB", token(SimFault::new(ResponseFault::HugeBody(10_000_000)))),
        ("nested beyond 32", token(SimFault::new(ResponseFault::DeepJson(33)))),
        ("nested very deep", token(SimFault::new(ResponseFault::DeepJson(20_000)))),
        ("nested beside a token", says(format!(r#"{{"access_token":"abc","expires_in":60,"x":{nested}}}"#))),
        ("truncated JSON", says(r#"{"access_token":"abc","expires_in":3"#)),
        ("two documents", says(r#"{"access_token":"abc"}{"access_token":"abd"}"#)),
        ("bytes that are not UTF-8", says(&b"{\"access_token\":\"\xff\xfe\"}"[..])),
        ("null", says("null")),
        ("an array", says(r#"["access_token"]"#)),
        ("a bare string", says(r#""abc""#)),
        ("no token", says(r#"{"token_type":"Bearer","expires_in":60}"#)),
        ("a null token", says(r#"{"access_token":null,"token_type":"Bearer","expires_in":60}"#)),
        ("a number for a token", says(r#"{"access_token":12345,"token_type":"Bearer","expires_in":60}"#)),
        ("an object for a token", says(r#"{"access_token":{"v":"abc"},"token_type":"Bearer","expires_in":60}"#)),
        ("a list for a token", says(r#"{"access_token":["abc"],"token_type":"Bearer","expires_in":60}"#)),
        ("an empty token", says(r#"{"access_token":"","token_type":"Bearer","expires_in":60}"#)),
        ("a token with a newline", says("{\"access_token\":\"a\\nb\",\"token_type\":\"Bearer\",\"expires_in\":60}")),
        ("a token that smuggles", says("{\"access_token\":\"a\\r\\nx-evil: 1\",\"expires_in\":60}")),
        ("a token with a space", says(r#"{"access_token":"a b","token_type":"Bearer","expires_in":60}"#)),
        ("a token outside ASCII", says(r#"{"access_token":"töken","token_type":"Bearer","expires_in":60}"#)),
        ("a token of 20 KiB", says(format!(r#"{{"access_token":"{}","expires_in":60}}"#, "a".repeat(20 * 1024)))),
        ("an answer that breaks off", token(SimFault::new(ResponseFault::CutBody))),
        ("a reset after the head", token(SimFault::new(ResponseFault::ResetAfterHead))),
        ("a reset without an answer", token(SimFault::new(ResponseFault::ResetBeforeAnswer))),
        (
            "no HTTP at all",
            token(SimFault::new(ResponseFault::Garbage(Bytes::from_static(b"SSH-2.0-OpenSSH_9.9\r\n")))),
        ),
        (
            "a head that breaks off",
            token(SimFault::new(ResponseFault::Garbage(Bytes::from_static(b"HTTP/1.1 200 OK\r\nCont")))),
        ),
    ];
    let rig = Rig::new(Bank::OAuth2, "");
    converse(async {
        for (what, faults) in rows {
            let wait = rig.suffers(what, faults, 503, "token-unavailable").await;
            assert!(wait <= 2, "{what}: one hiccup rests a second or so, not {wait}");
        }
    });
    assert_eq!(rig.sim.violations(), Vec::<String>::new());
}

#[test]
fn an_answer_of_exactly_64_kib_and_a_long_token_are_read() {
    let rig = Rig::new(Bank::Rakbank, "");
    converse(async {
        let frame = r#"{"access_token":"abc","token_type":"bearer","expires_in":60,"pad":""}"#.len();
        let pad = "x".repeat(64 * 1024 - frame);
        rig.sim.set(says(format!(r#"{{"access_token":"abc","token_type":"bearer","expires_in":60,"pad":"{pad}"}}"#)));
        // The bank does not know this token, which shows that it was read, and sent.
        let (refused, ()) = tokio::join!(rig.call(), settle(&rig.stage, &rig.hand));
        assert_eq!(refused.status, 401);
        rig.advance(LONG).await;
        rig.sim.set(Faults::default());
        rig.sim.change(|faults| faults.issue.token = Some(SecretString::from("t".repeat(5000))));
        assert_eq!(rig.call().await.status, 200, "RAKBANK's tokens may have 5000 characters");
    });
}

// T21
#[test]
fn what_the_answer_says_about_a_life_is_read_with_suspicion() {
    let rig = Rig::new(Bank::OAuth2, "");
    converse(async {
        let now = rig.hand.now().wall + 2 * countersign::base::time::millis(LONG);
        let seconds = Duration::from_secs;
        let day = seconds(86_400);
        // `expires_in`, and the life that comes of it. The clock stands still, so it is exact.
        let dated = |in_seconds: u64| now / 1000 + in_seconds;
        let lives: [(&str, Expiry, Duration); 15] = [
            ("a number", Expiry::Raw("3600".to_owned()), seconds(3600)),
            ("one second", Expiry::Raw("1".to_owned()), seconds(1)),
            ("a text", Expiry::Raw("\"3600\"".to_owned()), seconds(3600)),
            ("a padded text", Expiry::Raw("\" 3600 \"".to_owned()), seconds(3600)),
            ("a fraction", Expiry::Raw("3599.5".to_owned()), Duration::from_millis(3_599_500)),
            ("an exponent", Expiry::Raw("36e2".to_owned()), seconds(3600)),
            ("a week", Expiry::Raw("604800".to_owned()), day),
            ("a huge number", Expiry::Raw("9".repeat(300)), day),
            ("more than 64 bits", Expiry::Raw("18446744073709551616".to_owned()), day),
            ("a date in seconds", Expiry::Raw(dated(1800).to_string()), Duration::ZERO),
            ("a date in milliseconds", Expiry::Raw((dated(1800) * 1000).to_string()), Duration::ZERO),
            ("a date as text", Expiry::Raw(format!("\"{}\"", dated(1800))), Duration::ZERO),
            ("null", Expiry::Raw("null".to_owned()), seconds(300)),
            ("-1, which says nothing", Expiry::Raw("-1".to_owned()), seconds(300)),
            ("nothing", Expiry::Absent, seconds(300)),
        ];
        for (what, said, life) in lives {
            let dated = life.is_zero();
            let base = rig.hand.now().wall;
            // Dates were written for one moment: go there.
            if dated {
                rig.hand.set_wall(now);
            }
            rig.stage.running.leases.tick().await;
            if !dated {
                rig.advance(LONG).await;
            }
            purge(&rig).await;
            rig.sim.change(|faults| faults.issue.expires_in = said);
            let answer = rig.call().await;
            assert_eq!(answer.status, 200, "{what}: {answer:?}");
            let (_, found) = rig.token().await.expect("a token");
            if dated {
                let about = found.abs_diff(seconds(1800));
                assert!(about <= seconds(1), "{what}: {found:?}");
                rig.hand.set_wall(base);
            } else {
                assert_eq!(found, life, "{what}");
            }
        }
        for (what, said) in [
            ("-2", "-2"),
            ("zero", "0"),
            ("minus zero", "-0.0"),
            ("less than a millisecond", "0.0001"),
            ("a text", "\"abc\""),
            ("an empty text", "\"\""),
            ("inf", "\"inf\""),
            ("NaN", "\"NaN\""),
            ("beyond every number", "1e400"),
            ("beyond every number, as text", "\"1e400\""),
            ("hexadecimal", "\"0x10\""),
            ("a date gone by", "1600000000"),
            ("true", "true"),
            ("a list", "[3600]"),
            ("an object", "{}"),
        ] {
            let mut faults = Faults::default();
            faults.issue.expires_in = Expiry::Raw(said.to_owned());
            rig.suffers(what, faults, 503, "token-unavailable").await;
        }
    });
}

async fn purge(rig: &Rig) {
    for line in rig.stage.running.leases.ledger().await.lines {
        rig.stage.running.leases.purge(line.key).await;
    }
}

#[test]
fn each_banks_errors_have_the_right_name_and_the_right_rest() {
    const FATAL: (u16, &str) = (502, "provider-credentials-rejected");
    const AWAY: (u16, &str) = (503, "token-unavailable");
    const CLOSED: (u16, &str) = (503, "provider-closed");
    for kind in Bank::ALL {
        let rig = Rig::new(kind, "");
        converse(async {
            for status in [400, 401, 403, 404, 405, 409, 422, 429, 500, 502, 503, 504] {
                let (expected, rest) = match (kind, status) {
                    (_, 400 | 401 | 403) => (FATAL, 300),
                    (Bank::Rakbank, 422) => (FATAL, 300),
                    (_, 429) => (AWAY, 30),
                    (Bank::AbbeyCross, 503) => (CLOSED, 300),
                    (Bank::AbbeyCross, 409 | 500) => (AWAY, 30),
                    _ => (AWAY, 1),
                };
                let what = format!("{kind:?} {status}");
                for body in ["", "{}", "<html><h1>Error</h1></html>"] {
                    let faults = token(SimFault::new(ResponseFault::Verbatim(Verbatim::json(status, body))));
                    let wait = rig.suffers(&what, faults, expected.0, expected.1).await;
                    // Jitter lengthens by a fifth at most, and whole seconds are rounded up.
                    assert!((rest..=rest * 6 / 5 + 1).contains(&wait), "{what}: rests {wait} s instead of {rest}");
                }
                let asked =
                    Verbatim { headers: vec![("retry-after".into(), "120".into())], ..Verbatim::json(status, "{}") };
                let faults = token(SimFault::new(ResponseFault::Verbatim(asked)));
                let wait = rig.suffers(&what, faults, expected.0, expected.1).await;
                let floor = rest.max(120);
                assert!((floor..=floor * 6 / 5 + 1).contains(&wait), "{what} with Retry-After: 120 rests {wait} s");
            }
        });
    }
}

#[test]
fn each_banks_own_refusal_of_our_credentials_is_fatal_and_grows_to_an_hour() {
    for kind in [Bank::Meed, Bank::OAuth2, Bank::Rakbank, Bank::Scb] {
        let hand = ManualClock::at(Clock::System.now());
        let clock = Clock::Manual(hand.clone());
        let options = sim::SimOptions { clock: clock.clone(), ..sim::SimOptions::default() };
        let sim = Sim::start(kind, options).expect("a simulator");
        let mut plan = Plan { clock, workers: 1, ..Plan::default() }.with(&sim, "bank", "", "");
        let line = plan.config.lines().find(|line| line.contains("secret")).expect("a secret").to_owned();
        let (name, _) = line.split_once('=').expect("a setting");
        plan.config = plan.config.replace(&line, &format!("{name} = \"wrong-wrong-wrong\""));
        let rig = Rig { hand, sim, stage: plan.start() };
        converse(async {
            let mut waits = Vec::new();
            for round in 1..=6 {
                let refused = rig.call().await;
                assert_eq!(refused.error(), "provider-credentials-rejected", "{kind:?}: {refused:?}");
                assert_eq!((refused.status, rig.sim.token_calls()), (502, round), "{kind:?}");
                waits.push(retry_after("fatal", &refused));
                rig.advance(Duration::from_secs(*waits.last().expect("one"))).await;
            }
            for (wait, base) in waits.iter().zip([300, 600, 1200, 2400, 3600, 3600]) {
                assert!((base..=base * 6 / 5 + 1).contains(wait), "{kind:?}: {waits:?}");
            }
        });
        assert_eq!(rig.sim.resource_calls(), 0);
    }
}

#[test]
fn a_retry_after_is_believed_up_to_an_hour_in_either_form() {
    let rig = Rig::new(Bank::OAuth2, "");
    converse(async {
        for (said, floor) in [
            ("7", 7),
            ("0", 1),
            ("999999999999999999999999", 3600),
            ("Fri, 01 Jan 2100 00:00:00 GMT", 3600),
            ("Thu, 01 Jan 1970 00:00:00 GMT", 1),
            ("-5", 1),
            ("soon", 1),
            ("", 1),
        ] {
            let busy = Verbatim { headers: vec![("retry-after".into(), said.into())], ..Verbatim::json(503, "{}") };
            let wait =
                rig.suffers(said, token(SimFault::new(ResponseFault::Verbatim(busy))), 503, "token-unavailable").await;
            assert!((floor..=floor * 6 / 5 + 1).contains(&wait), "{said:?}: rests {wait} s");
        }
    });
}

#[test]
fn a_bank_outside_its_hours_is_left_alone_until_it_may_have_opened() {
    let rig = Rig::new(Bank::AbbeyCross, "");
    converse(async {
        let mut faults = Faults::default();
        faults.abbeycross.hours = Hours::Closed;
        let wait = rig.suffers("closed", faults.clone(), 503, "provider-closed").await;
        assert!((300..=361).contains(&wait), "{wait}");
        faults.abbeycross.retry_after = Some(1800);
        let wait = rig.suffers("closed until", faults, 503, "provider-closed").await;
        assert!((1800..=2161).contains(&wait), "{wait}");
    });
}

// T11, T21: the secret goes to the endpoint that was configured, and nowhere else.
#[test]
fn a_redirect_is_never_followed() {
    let other = bank(Bank::OAuth2);
    let rig = Rig::new(Bank::OAuth2, "");
    converse(async {
        for status in [301, 302, 303, 307, 308] {
            for target in [other.token_url(), format!("http://{}/token", other.address()), "/elsewhere".to_owned()] {
                let away = Verbatim::bare(status, &[("location", &target)]);
                let what = format!("{status} to {target}");
                rig.suffers(&what, token(SimFault::new(ResponseFault::Verbatim(away))), 503, "token-unavailable").await;
            }
        }
    });
    assert_eq!(other.connections(), 0, "nobody called there");
    assert!(rig.sim.received().iter().all(|arrival| !arrival.path.contains("elsewhere")));
}

/// A stage whose provider `bank` fetches its tokens from this URL; its resources are the simulator's.
fn with_token_url(sim: &SimHandle, token_url: &str, more: &str) -> Plan {
    let mut plan = Plan { workers: 1, ..Plan::default() }.with(sim, "bank", more, "");
    plan.config = plan.config.replace(&sim.token_url(), token_url);
    plan
}

/// Certificates that nobody should accept for `127.0.0.1` who trusts this CA alone, each with what is wrong with it.
pub fn bad_leaves(home: &SimAuthority) -> Vec<(&'static str, SimLeaf)> {
    let now = Clock::System.now();
    let hour = 3_600_000;
    let foreign = SimAuthority::new("foreign CA", now).expect("a CA");
    let good = LeafSpec::server(now);
    let past = LeafSpec { valid_from: now.wall - 3 * hour, valid_until: now.wall - hour, ..good.clone() };
    let future = LeafSpec { valid_from: now.wall + hour, valid_until: now.wall + 3 * hour, ..good.clone() };
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned(), "127.0.0.1".to_owned()]).expect("a leaf");
    let issued = |issuer: &SimAuthority, spec: LeafSpec| issuer.issue(&spec).expect("a leaf");
    vec![
        ("another name", issued(home, LeafSpec { names: vec!["bank.example".to_owned()], ..good.clone() })),
        ("no name but the common one", issued(home, LeafSpec { names: Vec::new(), ..good.clone() })),
        ("expired", issued(home, past)),
        ("not yet valid", issued(home, future)),
        ("for clients only", issued(home, LeafSpec { usage: Usage::Client, ..good.clone() })),
        ("of an unknown CA", issued(&foreign, good)),
        ("self-signed", SimLeaf { cert_pem: own.cert.pem(), key_pem: own.signing_key.serialize_pem() }),
    ]
}

/// A good bank and one with this certificate, under one CA.
pub fn bank_and_impostor(home: &SimAuthority, leaf: SimLeaf) -> (SimHandle, SimHandle) {
    let start = |leaf| {
        let options = sim::SimOptions { authority: Some(home.clone()), leaf, ..sim::SimOptions::default() };
        Sim::start(Bank::OAuth2, options).expect("a simulator")
    };
    (start(None), start(Some(leaf)))
}

// T20
#[test]
fn a_token_endpoint_that_cannot_prove_who_it_is_never_sees_the_secret() {
    let home = SimAuthority::new("home CA", Clock::System.now()).expect("a CA");
    for (what, leaf) in bad_leaves(&home) {
        let (sim, impostor) = bank_and_impostor(&home, leaf);
        let stage = with_token_url(&sim, &impostor.token_url(), "").start();
        converse(async {
            let refused = stage.client.send(get("/bank/echo/x", KEY)).await;
            assert_eq!((refused.status, refused.error().as_str()), (503, "token-unavailable"), "{what}: {refused:?}");
        });
        assert!(impostor.connections() >= 1, "{what}: it was dialled");
        assert_eq!((impostor.token_calls(), impostor.resource_calls()), (0, 0), "{what}: it saw no request");
        assert_eq!(sim.connections(), 0, "{what}");
    }
}

#[test]
fn a_token_endpoint_that_is_not_there_costs_one_attempt_per_rest() {
    let sim = bank(Bank::OAuth2);
    // A socket that accepts and says nothing, one that nobody listens on any more, and a name that no one has.
    let mute = TcpListener::bind("127.0.0.1:0").expect("a port");
    let gone = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let at = |address: std::net::SocketAddr| format!("https://{address}/token");
    for (what, url) in [
        ("mute", at(mute.local_addr().expect("an address"))),
        ("refused", at(gone)),
        ("unresolvable", "https://no-such-bank.invalid/token".to_owned()),
    ] {
        let stage = with_token_url(&sim, &url, "timeouts = { connect = \"300ms\", token = \"1s\" }").start();
        converse(async {
            let watch = Stopwatch::start();
            let refused = stage.client.send(get("/bank/echo/x", KEY)).await;
            assert_eq!((refused.status, refused.error().as_str()), (503, "token-unavailable"), "{what}: {refused:?}");
            assert!(watch.elapsed() < Duration::from_secs(5), "{what}: {:?}", watch.elapsed());
            retry_after(what, &refused);
        });
    }
    assert_eq!(sim.connections(), 0);
}

#[test]
fn a_token_call_that_hangs_ends_by_its_deadline_for_all_who_wait() {
    let sim = bank(Bank::Scb);
    sim.set(token(SimFault { delay: Some(Duration::from_secs(20)), ..SimFault::default() }));
    let plan = Plan { workers: 1, ..Plan::default() };
    let stage = plan.with(&sim, "bank", "timeouts = { token = \"400ms\" }", "").start();
    converse(async {
        let watch = Stopwatch::start();
        let mut calls = Vec::new();
        for _ in 0..10 {
            let client = stage.client.clone();
            calls.push(tokio::task::spawn_local(async move { client.send(get("/bank/echo/x", KEY)).await }));
        }
        for call in calls {
            let refused = call.await.expect("no panic");
            assert_eq!((refused.status, refused.error().as_str()), (503, "token-unavailable"), "{refused:?}");
        }
        assert!(watch.elapsed() < Duration::from_secs(5), "{:?}", watch.elapsed());
        assert_eq!(sim.token_calls(), 1);
        // A body that drips is bounded by the same deadline. (This answer is about 100 bytes long.)
        sim.set(token(SimFault::new(ResponseFault::SlowBody { chunk: 1, pause: Duration::from_millis(100) })));
        let mut slow = stage.client.send(get("/bank/echo/x", KEY)).await;
        for _ in 0..100 {
            if sim.token_calls() == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
            slow = stage.client.send(get("/bank/echo/x", KEY)).await;
        }
        assert_eq!((sim.token_calls(), slow.error().as_str()), (2, "token-unavailable"), "{slow:?}");
    });
}

/// How the calls that reached the bank fared there: a dead token would show as a replay in our log.
fn replays(lines: &[serde_json::Value]) -> usize {
    lines.iter().filter(|line| !line["countersign.replay"].is_null()).count()
}

// T29
#[test]
fn an_expired_token_is_never_sent_whichever_clock_jumps() {
    let rig = Rig::new(Bank::Scb, "");
    let life = Duration::from_secs(1800);
    converse(async {
        rig.sim.change(|faults| faults.issue.life = Some(life));
        assert_eq!(rig.call().await.status, 200);
        assert_eq!(rig.token().await, Some((1, life)));

        // Both clocks, to the last millisecond and one further. (A renewal may be under way at the same time.)
        let first = rig.spent();
        rig.hand.advance(life - Duration::from_millis(1));
        assert_eq!(rig.call().await.status, 200);
        assert_eq!(rig.spent(), first, "valid to the last millisecond");
        rig.hand.advance(Duration::from_millis(1));
        assert_eq!(rig.call().await.status, 200);
        assert_ne!(rig.spent(), first, "dead at its end");
        assert_eq!(rig.sim.token_calls(), 2);

        // The wall clock alone, forward: better one fetch too many.
        let wall = rig.hand.now().wall;
        rig.hand.set_wall(wall + 24 * 3_600_000);
        assert_eq!(rig.call().await.status, 200);
        assert_eq!(rig.sim.token_calls(), 3, "the wall clock is enough to kill it");

        // The wall clock alone, back by a day: no life is gained.
        rig.hand.set_wall(wall);
        for _ in 0..5 {
            assert_eq!(rig.call().await.status, 200);
        }
        let after_jump = rig.sim.token_calls();
        assert!(after_jump - 3 <= 2, "a jump costs two calls at most, not {}", after_jump - 3);
        rig.hand.advance(life);
        assert_eq!(rig.call().await.status, 200);
        assert_eq!(rig.sim.token_calls(), after_jump + 1, "it died by the boot clock");

        // A machine that slept for a week.
        rig.hand.advance(Duration::from_secs(7 * 24 * 3600));
        assert_eq!(rig.call().await.status, 200);
        assert_eq!(rig.sim.token_calls(), after_jump + 2);
    });
    let lines = rig.stage.stop();
    assert_eq!(replays(&lines), 0, "the bank never had to refuse a token");
}

#[test]
fn a_token_is_renewed_in_the_background_while_the_old_one_serves() {
    let rig = Rig::new(Bank::Meed, "refresh_before = \"60s\"");
    let life = Duration::from_secs(1000);
    converse(async {
        rig.sim.change(|faults| faults.issue.life = Some(life));
        assert_eq!(rig.call().await.status, 200);
        rig.advance(Duration::from_secs(900)).await;
        assert_eq!(rig.call().await.status, 200);
        assert_eq!(rig.sim.token_calls(), 1, "not yet");
        // Between 910 and 940 seconds, by the dice. The bank takes its time; nobody waits for it.
        rig.sim.change(|faults| faults.token.delay = Some(Duration::from_millis(700)));
        rig.advance(Duration::from_secs(41)).await;
        rig.until_token_calls(2).await;
        for _ in 0..5 {
            let watch = Stopwatch::start();
            assert_eq!(rig.call().await.status, 200);
            assert!(watch.elapsed() < Duration::from_millis(400), "it waited for the renewal: {:?}", watch.elapsed());
            assert_eq!(rig.token().await.map(|(generation, _)| generation), Some(1));
        }
        for _ in 0..500 {
            if rig.token().await.is_some_and(|(generation, _)| generation == 2) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert_eq!(rig.call().await.status, 200);
        assert_eq!(rig.token().await, Some((2, life)), "a whole life from when the renewal was sent");
        assert_eq!(rig.sim.token_calls(), 2);
    });
    let generations: Vec<_> =
        rig.stage.stop().iter().map(|line| line["countersign.token_generation"].clone()).collect();
    assert_eq!(generations.last(), Some(&serde_json::json!(2)));
}

// T27, T28
#[test]
fn a_valid_token_keeps_serving_while_its_renewal_fails_and_not_a_moment_longer() {
    let rig = Rig::new(Bank::Meed, "refresh_before = \"60s\"");
    converse(async {
        rig.sim.change(|faults| faults.issue.life = Some(Duration::from_secs(1000)));
        assert_eq!(rig.call().await.status, 200);
        let broken = SimFault::new(ResponseFault::Verbatim(Verbatim::json(500, "{}")));
        rig.sim.change(|faults| faults.token = broken);
        rig.advance(Duration::from_secs(941)).await;
        rig.until_token_calls(2).await;
        // To one second before the end: the outage costs nobody anything, and the bank is asked with pauses.
        for _ in 0..58 {
            rig.advance(Duration::from_secs(1)).await;
            assert_eq!(rig.call().await.status, 200);
        }
        let probes = rig.sim.token_calls() - 1;
        assert!((2..=8).contains(&probes), "{probes} probes in a minute");
        rig.advance(Duration::from_secs(1)).await;
        let dead = rig.call().await;
        assert_eq!((dead.status, dead.error().as_str()), (503, "token-unavailable"), "{dead:?}");
        let resources = rig.sim.resource_calls();
        assert_eq!(resources, 59, "nothing goes out with the dead token");
        rig.sim.set(Faults::default());
        rig.advance(Duration::from_secs(retry_after("expired", &dead))).await;
        assert_eq!(rig.call().await.status, 200);
        assert!(rig.token().await.is_some_and(|(generation, _)| generation == 2));
    });
    assert_eq!(replays(&rig.stage.stop()), 0);
}

#[test]
fn a_token_is_asked_for_with_the_same_credentials_every_time() {
    for kind in Bank::ALL {
        let rig = Rig::new(kind, "");
        converse(async {
            for _ in 0..3 {
                assert_eq!(rig.call().await.status, 200);
                rig.hand.advance(LONG);
            }
        });
        let mut seen = String::new();
        for arrival in rig.sim.received().iter().filter(|arrival| arrival.endpoint == SimEndpoint::Token) {
            let names: Vec<_> = arrival.headers.iter().map(|(name, _)| name.as_str()).collect();
            let _ = writeln!(seen, "{} {} {names:?} {}", arrival.method, arrival.path, arrival.body_length);
        }
        let lines: Vec<&str> = seen.lines().collect();
        assert_eq!(lines.len(), 3);
        assert!(lines.iter().all(|line| *line == lines[0]), "{kind:?}: a renewal asks otherwise:\n{seen}");
    }
}
