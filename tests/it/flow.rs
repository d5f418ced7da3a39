//! The main job, end to end: a plain call reaches a bank with the right token, and what may go wrong goes right.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;
use countersign::base::secret::{ExposeSecret, hex, sha256};
use countersign::sim::{self, Bank, Faults, ResponseFault, Sim, SimEndpoint, SimFault, Verbatim};

use crate::client::{converse, get, post, request};
use crate::harness::{KEY, OTHER_KEY, Plan, bank};
use crate::new_tokens::{by_hand, settle};

const BANKS: [Bank; 5] = [Bank::Scb, Bank::Meed, Bank::AbbeyCross, Bank::Rakbank, Bank::OAuth2];

fn path(bank: Bank, rest: &str) -> String {
    format!("/{}/{rest}", bank.name())
}

#[test]
fn first_call_cached_call_and_replay_at_every_bank() {
    for kind in BANKS {
        let sim = bank(kind);
        let stage = Plan::default().with(&sim, kind.name(), "", "").start();
        converse(async {
            let first = stage.client.send(post(&path(kind, "echo/v1/x?a=1&b=%20"), KEY, "{\"n\":1}")).await;
            assert_eq!(first.status, 200, "{kind:?}: {first:?}");
            assert_eq!(first.json()["query"], "a=1&b=%20");
            assert_eq!(first.header("proxy-status"), "");
            let second = stage.client.send(get(&path(kind, "echo/v1/x"), KEY)).await;
            assert_eq!(second.status, 200);
            assert_eq!(sim.token_calls(), 1, "{kind:?}: the token is kept");
            assert_eq!(sim.revoke_all(), 1);
            let third = stage.client.send(post(&path(kind, "echo/v1/x"), KEY, "{\"n\":3}")).await;
            assert_eq!(third.status, 200, "{kind:?}: {third:?}");
            assert_eq!(third.header("proxy-status"), "countersign; received-status=401; details=\"replayed\"");
            assert_eq!((sim.token_calls(), sim.resource_calls()), (2, 4), "{kind:?}");
        });
        assert_eq!(sim.violations(), Vec::<String>::new());
        let lines = stage.stop();
        assert_eq!(lines.len(), 3);
        assert_eq!(lines[2]["countersign.replay"], "replayed");
        assert_eq!(lines[2]["countersign.token_generation"], 2);
    }
}

#[test]
fn each_bank_receives_its_own_dress_and_nothing_of_the_clients_credentials() {
    for kind in BANKS {
        let sim = bank(kind);
        let stage = Plan::default().with(&sim, kind.name(), "", "").start();
        converse(async {
            let hostile = [
                ("proxy-authorization", format!("Bearer {KEY}")),
                ("x-ibm-client-secret", "stolen".to_owned()),
                ("x_ibm_client_id", "forged".to_owned()),
                ("resourceownerid", "forged".to_owned()),
                ("via", "1.1 inner".to_owned()),
                ("x-forwarded-for", "10.9.8.7".to_owned()),
                ("connection", "authorization, requestuid, msgid, x-gone".to_owned()),
                ("x-gone", "1".to_owned()),
                ("x-kept", "1".to_owned()),
            ];
            let hostile: Vec<(&str, &str)> = hostile.iter().map(|(name, value)| (*name, value.as_str())).collect();
            let answer = stage.client.send(request("POST", &path(kind, "echo/y"), KEY, &hostile, "{}")).await;
            assert_eq!(answer.status, 200, "{kind:?}: {answer:?}");
        });
        let received = sim.received();
        let arrival = received.iter().find(|arrival| arrival.endpoint == SimEndpoint::Resource).expect("it arrived");
        let token = sim.issued().pop().expect("a token");
        assert_eq!(arrival.bearer(), Some(token.expose_secret()), "{kind:?}");
        assert_eq!(arrival.count("authorization"), 1);
        for gone in ["proxy-authorization", "via", "x-forwarded-for", "x-gone"] {
            assert_eq!(arrival.count(gone), 0, "{kind:?}: {gone}");
        }
        if kind == Bank::Rakbank {
            assert_eq!(arrival.count("x-ibm-client-secret") + arrival.count("x_ibm_client_id"), 0);
        }
        assert_eq!(arrival.header("x-kept"), Some("1"));
        assert_eq!(arrival.authority.as_deref(), Some(sim.address().to_string().as_str()));
        match kind {
            Bank::Scb => {
                assert_eq!(arrival.header("resourceownerid"), Some(sim.credentials().id()));
                assert_eq!(arrival.header("requestuid").map(str::len), Some(32));
            }
            Bank::Rakbank => {
                assert_eq!(arrival.header("x-ibm-client-id"), Some(sim.credentials().id()));
                assert_eq!(arrival.header("msgid").map(str::len), Some(36));
            }
            Bank::AbbeyCross | Bank::Described(_) | Bank::Meed | Bank::OAuth2 => {
                assert_eq!(arrival.count("requestuid") + arrival.count("msgid"), 0, "{kind:?}");
            }
        }
        drop(stage);
    }
}

#[test]
fn a_large_post_is_replayed_to_the_byte_at_every_bank() {
    let body: Vec<u8> = (0..300 * 1024_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let sent = sha256(&body);
    for kind in BANKS {
        let sim = bank(kind);
        let stage = Plan::default().with(&sim, kind.name(), "", "").start();
        converse(async {
            assert_eq!(stage.client.send(get(&path(kind, "echo/warm"), KEY)).await.status, 200);
            sim.revoke_all();
            let answer = stage.client.send(post(&path(kind, "echo/upload"), KEY, body.clone())).await;
            assert_eq!(answer.status, 200, "{kind:?}: {answer:?}");
            assert_eq!(answer.json()["body"]["sha256"], hex(&sent));
            assert!(answer.header("proxy-status").contains("replayed"));
        });
        let uploads: Vec<_> = sim.received().into_iter().filter(|arrival| arrival.path.ends_with("upload")).collect();
        let last = uploads.last().expect("it arrived");
        assert_eq!((last.body_length, last.body_sha256), (body.len() as u64, sent), "{kind:?}");
        drop(stage);
    }
}

#[test]
fn a_refusal_before_the_body_was_read_is_replayed_with_the_whole_body() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    let body: Vec<u8> = (0..700 * 1024_u32).map(|n| n as u8).collect();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/warm", KEY)).await.status, 200);
        let refusal =
            Verbatim::json(401, r#"{"status":{"code":9300,"description":"Invalid/expired temporary token"}}"#);
        sim.change(|faults| faults.resource = SimFault::once(ResponseFault::AnswerEarly(refusal)));
        let answer = stage.client.send(post("/scb/echo/upload", KEY, body.clone())).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["body"]["sha256"], hex(&sha256(&body)));
    });
}

#[test]
fn a_body_beyond_the_limit_still_streams_and_its_refusal_says_why_it_passed() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "replay_limit = \"64KiB\"").start();
    let body = vec![7_u8; 200 * 1024];
    converse(async {
        assert_eq!(stage.client.send(post("/scb/echo/big", KEY, body.clone())).await.status, 200);
        sim.revoke_all();
        let refused = stage.client.send(post("/scb/echo/big", KEY, body.clone())).await;
        assert_eq!(refused.status, 401);
        assert_eq!(refused.json()["status"]["code"], 9300, "the bank's own answer");
        assert!(refused.header("proxy-status").contains("details=\"not-replayed: body-too-large\""), "{refused:?}");
        let next = stage.client.send(get("/scb/echo/next", KEY)).await;
        assert_eq!(next.status, 200, "the token was renewed for the next call");
        assert_eq!(next.header("proxy-status"), "");
    });
    assert_eq!(sim.token_calls(), 2);
}

#[test]
fn a_thousand_first_calls_cause_one_token_call() {
    let sim = bank(Bank::Scb);
    sim.change(|faults| faults.token.delay = Some(Duration::from_millis(300)));
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    let statuses = converse(herd(&stage, 1000));
    assert_eq!(statuses, BTreeSet::from([200]));
    assert_eq!(sim.token_calls(), 1);
    assert_eq!(sim.resource_calls(), 1000);
}

#[test]
fn a_thousand_refusals_of_one_generation_cause_one_token_call() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    let statuses = converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/warm", KEY)).await.status, 200);
        sim.revoke_all();
        // Every first attempt is refused before any replay can succeed.
        sim.change(|faults| faults.token.delay = Some(Duration::from_millis(1500)));
        herd(&stage, 1000).await
    });
    assert_eq!(statuses, BTreeSet::from([200]));
    assert_eq!(sim.token_calls(), 2, "one for the warm call, one for the storm");
}

/// So many calls at once, over 20 h2 connections. Their statuses.
async fn herd(stage: &crate::harness::Harness, calls: usize) -> BTreeSet<u16> {
    let mut waiting = Vec::new();
    for _ in 0..20 {
        let sender = stage.client.http2().await;
        for _ in 0..calls / 20 {
            let mut sender = sender.clone();
            waiting.push(tokio::task::spawn_local(async move {
                let request = http::Request::get("https://localhost/scb/echo/herd");
                let request = request.header("authorization", format!("Bearer {KEY}"));
                let request = request.body(http_body_util::Full::new(Bytes::new())).expect("a request");
                sender.ready().await.expect("ready");
                sender.send_request(request).await.expect("an answer").status().as_u16()
            }));
        }
    }
    let mut statuses = BTreeSet::new();
    for call in waiting {
        statuses.insert(call.await.expect("no panic"));
    }
    statuses
}

#[test]
fn two_clients_on_one_path_with_different_credentials_are_never_mixed() {
    let (erp_bank, treasury_bank) = (bank(Bank::Scb), bank(Bank::Scb));
    let routed = |name: &str| format!("clients = [\"{name}\"]");
    let plan = Plan::default().with_two_clients();
    let mut plan = plan.with(&erp_bank, "erp-scb", "", &routed("erp")).with(
        &treasury_bank,
        "treasury-scb",
        "",
        &routed("treasury"),
    );
    plan.config = plan
        .config
        .replace("path = \"/erp-scb\"", "path = \"/scb\"")
        .replace("path = \"/treasury-scb\"", "path = \"/scb\"");
    let stage = plan.start();
    converse(async {
        let mut calls = Vec::new();
        for n in 0..200 {
            let client = stage.client.clone();
            let key = if n % 2 == 0 { KEY } else { OTHER_KEY };
            let tag = if n % 2 == 0 { "erp" } else { "treasury" };
            calls.push(tokio::task::spawn_local(async move {
                client.send(get(&format!("/scb/echo/{tag}"), key)).await.status
            }));
        }
        for call in calls {
            assert_eq!(call.await.expect("no panic"), 200);
        }
    });
    for (sim, tag) in [(&erp_bank, "erp"), (&treasury_bank, "treasury")] {
        let tokens: Vec<String> = sim.issued().iter().map(|token| token.expose_secret().to_owned()).collect();
        let arrivals: Vec<_> =
            sim.received().into_iter().filter(|arrival| arrival.endpoint == SimEndpoint::Resource).collect();
        assert_eq!(arrivals.len(), 100);
        for arrival in arrivals {
            assert!(arrival.path.ends_with(tag), "a call reached the other client's bank");
            assert!(tokens.iter().any(|token| Some(token.as_str()) == arrival.bearer()), "a foreign token");
        }
        assert_eq!(sim.token_calls(), 1);
    }
}

#[test]
fn equal_credentials_under_two_names_do_not_share_a_token() {
    let sim = bank(Bank::Meed);
    let stage = Plan::default().with(&sim, "one", "", "").with(&sim, "two", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/one/echo/x", KEY)).await.status, 200);
        assert_eq!(stage.client.send(get("/two/echo/x", KEY)).await.status, 200);
    });
    assert_eq!(sim.token_calls(), 2);
}

#[test]
fn rakbank_tokens_are_one_per_account() {
    let sim = bank(Bank::Rakbank);
    let stage = Plan::default()
        .with(
            &sim,
            "rak",
            "oauth_metadata = { account_id = { var = \"account\" } }",
            "vars = { account = { header = \"x-account-id\", pattern = \"[0-9]{13}\" } }",
        )
        .start();
    converse(async {
        for round in 0..2 {
            for account in ["0188000049916", "0188000049917"] {
                let path = format!("/rak/v1/accounts/{account}/transfers");
                let body =
                    format!("{{\"transaction_id\":\"T-{account}-{round}\",\"amount\":\"5.00\",\"currency\":\"AED\"}}");
                let headers = [("x-account-id", account), ("content-type", "application/json")];
                let answer = stage.client.send(request("POST", &path, KEY, &headers, body)).await;
                assert_eq!(answer.status, 200, "{answer:?}");
            }
        }
        assert_eq!(sim.token_calls(), 2, "one per account");
        // The wrong account for the token: the bank says 401001, which proves nothing about the token.
        let headers = [("x-account-id", "0188000049916"), ("content-type", "application/json")];
        let body = "{\"transaction_id\":\"T-x\",\"amount\":\"5.00\",\"currency\":\"AED\"}";
        let answer =
            stage.client.send(request("POST", "/rak/v1/accounts/0188000049917/transfers", KEY, &headers, body)).await;
        assert_eq!((answer.status, answer.json()["response_code"].as_str()), (401, Some("401001")));
        assert_eq!(sim.token_calls(), 2, "401001 never fetches again");
        let bad = request("POST", "/rak/v1/accounts/1/transfers", KEY, &[("x-account-id", "1")], "{}");
        assert_eq!(stage.client.send(bad).await.error(), "malformed-request");
        let none = request("POST", "/rak/v1/accounts/1/transfers", KEY, &[], "{}");
        assert_eq!(stage.client.send(none).await.error(), "malformed-request");
    });
    let arrivals = sim.received();
    assert!(
        arrivals.iter().all(|arrival| arrival.count("x-account-id") == 0),
        "the variable's header is not forwarded"
    );
}

#[test]
fn a_new_bank_is_added_by_a_file_alone() {
    let sim = bank(Bank::OAuth2);
    let profile = r#"
extends = "oauth2"
name = "newbank"
title = "A bank that nobody has heard of"
"#;
    let mut plan = Plan::default().with(&sim, "newbank", "", "");
    plan.files = plan.files.with_file("stage/newbank.toml", profile.as_bytes());
    plan.config = plan.config.replace("profile = \"oauth2\"", "profile = \"newbank.toml\"");
    let stage = plan.start();
    converse(async {
        assert_eq!(stage.client.send(get("/newbank/echo/x", KEY)).await.status, 200);
        sim.revoke_all();
        assert_eq!(stage.client.send(get("/newbank/echo/x", KEY)).await.status, 200);
    });
    assert_eq!(sim.token_calls(), 2);
}

#[test]
fn a_second_refusal_passes_to_the_client_and_the_key_rests() {
    let sim = bank(Bank::Scb);
    let (plan, hand) = by_hand();
    let stage = plan.with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        let refusal = Verbatim::json(401, r#"{"status":{"code":9300,"description":"x"}}"#);
        sim.change(|faults| faults.resource = SimFault::new(ResponseFault::Verbatim(refusal)));
        let refused = stage.client.send(post("/scb/echo/x", KEY, "{}")).await;
        assert_eq!(refused.status, 401);
        assert_eq!((sim.token_calls(), sim.resource_calls()), (2, 3));
        settle(&stage, &hand).await;
        let refused = stage.client.send(post("/scb/echo/x", KEY, "{}")).await;
        assert_eq!(refused.status, 503, "it was tried once more when it was old enough, and fetching does not help");
        assert_eq!((sim.token_calls(), sim.resource_calls()), (2, 4));
        let resting = stage.client.send(post("/scb/echo/x", KEY, "{}")).await;
        assert_eq!((resting.status, resting.error().as_str()), (503, "token-unavailable"));
        assert!(resting.header("retry-after").parse::<u64>().is_ok_and(|seconds| seconds >= 1));
        assert_eq!((sim.token_calls(), sim.resource_calls()), (2, 4), "no loop");
    });
}

#[test]
fn a_token_fetched_for_this_very_request_is_tried_again_when_it_is_old_enough_and_then_not_fetched_anew() {
    let sim = bank(Bank::Scb);
    let refusal = Verbatim::json(401, r#"{"status":{"code":9300,"description":"x"}}"#);
    sim.set(Faults { resource: SimFault::new(ResponseFault::Verbatim(refusal)), ..Faults::default() });
    let (plan, hand) = by_hand();
    let stage = plan.with(&sim, "scb", "", "").start();
    converse(async {
        let request = stage.client.send(post("/scb/echo/x", KEY, "{}"));
        let (refused, ()) = tokio::join!(request, settle(&stage, &hand));
        assert_eq!(refused.status, 401, "the bank's own answer");
    });
    assert_eq!((sim.token_calls(), sim.resource_calls()), (1, 2));
}

#[test]
fn an_unknown_401_passes_through_once_and_renews_in_the_background() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/x", KEY)).await.status, 200);
        let strange = Verbatim::json(401, r#"{"oops":"who are you"}"#);
        sim.change(|faults| faults.resource = SimFault::new(ResponseFault::Verbatim(strange)));
        for _ in 0..3 {
            let answer = stage.client.send(post("/scb/echo/x", KEY, "{}")).await;
            assert_eq!((answer.status, &answer.body[..]), (401, &br#"{"oops":"who are you"}"#[..]));
        }
        assert_eq!(sim.resource_calls(), 4, "never replayed");
        sim.set(Faults::default());
        for _ in 0..50 {
            if sim.token_calls() == 2 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert_eq!(sim.token_calls(), 2, "renewed once in the rest period");
        let metrics = String::from_utf8(stage.admin("/metrics").await.body.to_vec()).expect("text");
        assert!(metrics.contains("countersign_unknown_refusals_total{provider=\"scb\"} 3"), "{metrics}");
    });
}

#[test]
fn nothing_but_a_proven_refusal_is_ever_sent_twice() {
    let troubles: [(&str, ResponseFault, u16); 8] = [
        ("500", ResponseFault::Verbatim(Verbatim::json(500, "{}")), 500),
        ("503", ResponseFault::Verbatim(Verbatim::json(503, "{}")), 503),
        ("409", ResponseFault::Verbatim(Verbatim::json(409, r#"{"status":{"code":8101}}"#)), 409),
        ("429", ResponseFault::Verbatim(Verbatim::bare(429, &[("retry-after", "1")])), 429),
        ("403", ResponseFault::Verbatim(Verbatim::json(403, r#"{"status":{"code":9300}}"#)), 403),
        ("reset before the answer", ResponseFault::ResetBeforeAnswer, 502),
        ("garbage", ResponseFault::Garbage(Bytes::from_static(b"\x16\x03nonsense")), 502),
        ("401/9500", ResponseFault::Verbatim(Verbatim::json(401, r#"{"status":{"code":9500}}"#)), 401),
    ];
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/warm", KEY)).await.status, 200);
        for (n, (name, trouble, expected)) in troubles.into_iter().enumerate() {
            sim.set(Faults { resource: SimFault::new(trouble), ..Faults::default() });
            let before = sim.resource_calls();
            let answer = stage.client.send(post(&format!("/scb/payments/P{n}"), KEY, "{}")).await;
            assert_eq!(answer.status, expected, "{name}: {answer:?}");
            assert_eq!(sim.resource_calls() - before, 1, "{name}: sent once");
        }
    });
    assert_eq!(sim.token_calls(), 1);
    assert!(sim.payments().values().all(|times| *times <= 1), "{:?}", sim.payments());
}

#[test]
fn a_payment_over_a_stale_connection_is_not_sent_twice_and_a_get_may_be() {
    let sim = bank(Bank::Scb);
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "scb", "", "").start();
    converse(async {
        sim.change(|faults| faults.resource.close = countersign::sim::Close::Silent);
        for n in 0..40 {
            let paid = stage.client.send(post(&format!("/scb/payments/S{n}"), KEY, "{}")).await;
            assert!(paid.status == 200 || paid.status == 502, "{paid:?}");
            let read = stage.client.send(get("/scb/echo/x", KEY)).await;
            assert_eq!(read.status, 200, "a GET survives a stale connection: {read:?}");
        }
    });
    assert!(sim.payments().values().all(|times| *times == 1), "{:?}", sim.payments());
}

#[test]
fn a_request_body_that_stops_half_way_breaks_off_at_the_bank_and_is_never_replayed() {
    let sim = bank(Bank::Scb);
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/warm", KEY)).await.status, 200);
        let half = format!(
            "POST /scb/payments/HALF HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\ncontent-length: 1000\r\n\r\nhalf"
        );
        use tokio::io::AsyncWriteExt;
        let mut stream = stage.client.tls(&[b"http/1.1"]).await.expect("TLS");
        stream.write_all(half.as_bytes()).await.expect("written");
        stream.flush().await.expect("flushed");
        tokio::time::sleep(Duration::from_millis(100)).await;
        drop(stream);
        for _ in 0..100 {
            if sim.received().iter().any(|arrival| arrival.aborted) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let aborted: Vec<_> = sim.received().into_iter().filter(|arrival| arrival.aborted).collect();
        assert_eq!(aborted.len(), 1, "it arrived once, and broke off");
        assert_eq!(stage.client.send(get("/scb/echo/after", KEY)).await.status, 200);
    });
    assert!(sim.payments().is_empty());
    let lines = stage.stop();
    assert_eq!(lines.len(), 3, "the broken request is told, too: {lines:#?}");
}

#[test]
fn a_cut_answer_is_cut_for_the_client_too() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/warm", KEY)).await.status, 200);
        sim.change(|faults| faults.resource = SimFault::new(ResponseFault::CutBody));
        let mut sender = stage.client.http1().await;
        let response = sender.send_request(get("/scb/echo/x", KEY)).await.expect("a head");
        assert_eq!(response.status(), 200);
        assert!(crate::client::Whole::read(response).await.is_err(), "half a body must not look whole");
    });
    let lines = stage.stop();
    assert_eq!(lines[1]["complete"], false);
}

#[test]
fn a_refusal_in_a_compressed_body_is_recognised_and_an_unreadable_one_proves_nothing() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(get("/scb/echo/warm", KEY)).await.status, 200);
        sim.change(|faults| faults.resource.compress = true);
        sim.revoke_all();
        let zipped = request("GET", "/scb/echo/x", KEY, &[("accept-encoding", "br, gzip")], "");
        let answer = stage.client.send(zipped).await;
        assert_eq!(answer.status, 200);
        assert!(answer.header("proxy-status").contains("replayed"));
        assert_eq!(answer.header("content-encoding"), "gzip", "given on as it came");
        let broken = Verbatim {
            status: 401,
            headers: vec![
                ("content-type".into(), "application/json".into()),
                ("content-encoding".into(), "gzip".into()),
            ],
            body: Bytes::from_static(b"{\"status\":{\"code\":9300}}"),
        };
        sim.set(Faults { resource: SimFault::new(ResponseFault::Verbatim(broken)), ..Faults::default() });
        let before = sim.resource_calls();
        let answer = stage.client.send(get("/scb/echo/x", KEY)).await;
        assert_eq!((answer.status, &answer.body[..]), (401, &b"{\"status\":{\"code\":9300}}"[..]));
        assert_eq!(sim.resource_calls() - before, 1);
    });
    let asked: Vec<String> =
        sim.received().iter().filter_map(|arrival| arrival.header("accept-encoding").map(str::to_owned)).collect();
    assert!(asked.iter().all(|asked| !asked.contains("br")), "{asked:?}");
}

#[test]
fn h2_clients_are_served_over_http_1_1_upstream() {
    let options = sim::SimOptions { only_http1: true, ..sim::SimOptions::default() };
    let sim = Sim::start(Bank::Meed, options).expect("a simulator");
    let stage = Plan::default().with(&sim, "meed", "", "").start();
    converse(async {
        let mut sender = stage.client.http2().await;
        let request = http::Request::post("https://localhost/meed/echo/h2")
            .header("authorization", format!("Bearer {KEY}"))
            .header("cookie", "a=1")
            .header("cookie", "b=2")
            .body(http_body_util::Full::new(Bytes::from_static(b"hello")))
            .expect("a request");
        let answer =
            crate::client::Whole::read(sender.send_request(request).await.expect("answer")).await.expect("whole");
        assert_eq!(answer.status, 200);
        assert_eq!(answer.json()["body"]["length"], 5);
    });
    let received = sim.received();
    let arrival = received.last().expect("it arrived");
    assert_eq!(arrival.version, http::Version::HTTP_11);
    assert_eq!((arrival.count("cookie"), arrival.header("cookie")), (1, Some("a=1; b=2")));
}

#[test]
fn bodies_stream_both_ways_and_downloads_arrive_whole() {
    let sim = bank(Bank::OAuth2);
    let stage = Plan::default().with(&sim, "oauth2", "", "").start();
    converse(async {
        for query in ["bytes=20000000", "bytes=20000000&length=unknown", "bytes=0"] {
            let answer = stage.client.send(get(&format!("/oauth2/download?{query}"), KEY)).await;
            assert_eq!(answer.status, 200);
            assert_eq!(answer.body.len(), if query == "bytes=0" { 0 } else { 20_000_000 }, "{query}");
        }
        let head = stage.client.send(request("HEAD", "/oauth2/download?bytes=5", KEY, &[], "")).await;
        assert_eq!((head.status, head.body.len()), (200, 0));
        let upload = vec![1_u8; 8_000_000];
        let answer = stage.client.send(post("/oauth2/echo/up", KEY, upload.clone())).await;
        assert_eq!(answer.json()["body"]["sha256"], hex(&sha256(&upload)));
    });
    let lines = stage.stop();
    assert_eq!(lines[0]["http.response.body.size"], 20_000_000);
    assert_eq!(lines[4]["http.request.body.size"], 8_000_000);
}

#[test]
fn connections_to_a_bank_are_reused() {
    let sim = bank(Bank::Scb);
    let stage = Plan { workers: 1, ..Plan::default() }.with(&sim, "scb", "", "").start();
    converse(async {
        let mut sender = stage.client.http1().await;
        for n in 0..30 {
            sender.ready().await.expect("kept alive");
            let asked = if n % 2 == 0 { get("/scb/echo/x", KEY) } else { post("/scb/echo/x", KEY, "{}") };
            let answer =
                crate::client::Whole::read(sender.send_request(asked).await.expect("answer")).await.expect("whole");
            assert_eq!(answer.status, 200);
        }
    });
    assert_eq!(sim.connections(), 2, "one for the token call, one for all the rest");
}
