//! From an alarm to its cause in the dashboard, in a real browser: of each failure, the page after at most two clicks on
//! links tells the cause. `tests/dashboard/cause.mjs` clicks, with a script and without.

use std::time::Duration;

use countersign::base::secret::ExposeSecret;
use countersign::sim::{Bank, LeafSpec, ResponseFault, Sim, SimAuthority, SimFault, SimHandle, SimOptions};
use serde_json::json;

use crate::client::{PATIENCE, converse, get};
use crate::dashboard::drive;
use crate::harness::{Harness, KEY, OTHER_KEY, Plan, bank, now};
use crate::redis_server::RedisServer;
use crate::replicas::on_redis;

/// A way from an alarm to its cause.
struct Course<'a> {
    name: &'a str,
    /// The page that the alarm names, or the overview.
    start: &'a str,
    /// Parts of the names of the links that are clicked, as regular expressions.
    clicks: &'a [&'a str],
    /// A part of the sentence that is in sight then, likewise.
    cause: &'a str,
}

/// Takes these ways, each from its start.
fn take(stage: &Harness, courses: &[Course<'_>]) {
    for Course { name, start, clicks, cause } in courses {
        let words = json!({ "name": name, "start": start, "clicks": clicks, "cause": cause }).to_string();
        let admin = stage.running.admin.expect("an admin listener");
        drive("cause.mjs", admin, &words, |asked| panic!("what is {asked}?"));
    }
}

/// Makes a call that fails, waits until the dashboard knows it, and returns the page that its error's id leads to.
fn fails(stage: &Harness, path: &str, key: &str, status: u16, error: &str) -> String {
    converse(async {
        let answer = stage.client.send(get(path, key)).await;
        assert_eq!((answer.status, answer.error().as_str()), (status, error), "{answer:?}");
        let id = answer.json()["instance"].as_str().expect("an id").to_owned();
        let place = format!("/ui/requests/{id}");
        tokio::time::timeout(PATIENCE, async {
            while stage.admin(&place).await.status != 200 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        })
        .await
        .expect("it is kept");
        place
    })
}

fn one_bank(sim: &SimHandle, more: &str, route: &str) -> Plan {
    // The clients of a route are named where there are two.
    let clients = if route.contains("clients") { "" } else { "clients = [\"erp\"]\n" };
    Plan::default().with_two_clients().with(sim, "bank", more, &format!("{clients}{route}"))
}

#[test]
fn a_token_endpoint_that_is_down() {
    let sim = bank(Bank::OAuth2);
    sim.change(|faults| faults.token = SimFault::new(ResponseFault::HtmlError(503)));
    let stage = one_bank(&sim, "", "").start();
    let place = fails(&stage, "/bank/echo/1", KEY, 503, "token-unavailable");
    let cause = "the token endpoint answered 503";
    take(
        &stage,
        &[
            Course {
                name: "token-endpoint-down",
                start: "/",
                clicks: &["token-unavailable", "GET /bank/echo/1"],
                cause,
            },
            Course { name: "token-endpoint-down-provider", start: "/", clicks: &["^bank$"], cause },
            Course { name: "token-endpoint-down-id", start: &place, clicks: &[], cause },
        ],
    );
}

#[test]
fn a_wrong_secret() {
    let sim = bank(Bank::OAuth2);
    let mut plan = one_bank(&sim, "", "");
    plan.config = plan.config.replace(sim.credentials().secret().expose_secret(), "another-secret-than-the-banks");
    let stage = plan.start();
    let place = fails(&stage, "/bank/echo/1", KEY, 502, "provider-credentials-rejected");
    let cause = "invalid_client";
    take(
        &stage,
        &[
            Course { name: "wrong-secret", start: "/", clicks: &["credentials-rejected", "GET /bank/echo/1"], cause },
            Course { name: "wrong-secret-id", start: &place, clicks: &[], cause },
        ],
    );
}

#[test]
fn a_certificate_that_has_ended() {
    let authority = SimAuthority::new("client CA", now()).expect("a CA");
    let options = SimOptions { client_ca: Some(authority.pem()), ..SimOptions::default() };
    let sim = Sim::start(Bank::OAuth2, options).expect("a simulator");
    let mut spec = LeafSpec::client("countersign", now());
    (spec.valid_from, spec.valid_until) = (now().wall - 10 * 86_400_000, now().wall - 3 * 86_400_000);
    let leaf = authority.issue(&spec).expect("a leaf");
    let mut plan = one_bank(&sim, "", "");
    plan.files = plan.files.with_file("stage/app.crt", leaf.cert_pem.into_bytes());
    plan.files = plan.files.with_file("stage/app.key", leaf.key_pem.into_bytes());
    let shown = "tls = { client_cert = \"app.crt\", client_key = \"app.key\", ca";
    plan.config = plan.config.replacen("tls = { ca", shown, 1);
    let stage = plan.start();
    let place = fails(&stage, "/bank/echo/1", KEY, 502, "provider-credentials-rejected");
    take(
        &stage,
        &[
            Course { name: "certificate-over", start: "/", clicks: &[], cause: "Our certificate for bank ended 3 d" },
            Course { name: "certificate-over-provider", start: "/", clicks: &["^app.crt$"], cause: "expired" },
            Course { name: "certificate-over-id", start: &place, clicks: &[], cause: "certificate.{0,20}expired" },
        ],
    );
}

#[test]
fn a_client_that_is_refused() {
    let sim = bank(Bank::OAuth2);
    let stage = one_bank(&sim, "", "clients = [\"erp\"]").start();
    let place = fails(&stage, "/bank/echo/1", OTHER_KEY, 403, "client-not-allowed");
    let cause = "the route is not open to this client: see its `clients`";
    take(
        &stage,
        &[
            Course { name: "client-refused", start: "/", clicks: &["client-not-allowed", "GET /bank/echo/1"], cause },
            Course { name: "client-refused-by-party", start: "/", clicks: &["^Operator$"], cause },
            Course { name: "client-refused-id", start: &place, clicks: &[], cause },
        ],
    );
}

#[test]
fn a_redis_that_is_gone() {
    let mut redis = RedisServer::start();
    let sim = bank(Bank::OAuth2);
    let mut plan = one_bank(&sim, "", "");
    plan.config += &on_redis(&redis);
    let stage = plan.start();
    converse(async { assert_eq!(stage.client.send(get("/bank/echo/1", KEY)).await.status, 200) });
    redis.kill();
    let cause = "Out of reach";
    take(&stage, &[Course { name: "redis-gone", start: "/", clicks: &[], cause }]);
}

#[test]
fn a_quota_that_is_spent() {
    let sim = bank(Bank::OAuth2);
    let quota = "[[provider.bank.quota]]\nrequests = 1\nper = \"1h\"\n";
    let stage = one_bank(&sim, quota, "").start();
    converse(async { assert_eq!(stage.client.send(get("/bank/echo/1", KEY)).await.status, 200) });
    let place = fails(&stage, "/bank/echo/2", KEY, 429, "rate-limited");
    let cause = "a `quota` of the provider is spent until its next window";
    take(
        &stage,
        &[
            Course { name: "quota-spent", start: "/", clicks: &["rate-limited", "GET /bank/echo/2"], cause },
            Course { name: "quota-spent-id", start: &place, clicks: &[], cause },
        ],
    );
}
