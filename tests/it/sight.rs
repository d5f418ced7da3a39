//! What an operator sees: the admin door, metrics, the access log.

use countersign::sim::Bank;

use crate::client::{converse, get, post};
use crate::stage::{KEY, Plan, bank};

#[test]
fn health_tokens_and_metrics_are_shown_without_secrets() {
    let sim = bank(Bank::Scb);
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    converse(async {
        assert_eq!(stage.client.send(post("/scb/echo/x", KEY, "{}")).await.status, 200);
        sim.revoke_all();
        assert_eq!(stage.client.send(get("/scb/echo/x?secret=query", KEY)).await.status, 200);
        assert_eq!(stage.client.send(get("/nowhere", KEY)).await.status, 404);
        assert_eq!(&stage.admin("/livez").await.body[..], b"ok\n");
        assert_eq!(stage.admin("/readyz").await.status, 200);
        let verbose = stage.admin("/readyz?verbose").await;
        assert!(String::from_utf8_lossy(&verbose.body).contains("[+]listeners bound"), "{verbose:?}");
        let tokens = stage.admin("/api/v1/tokens").await.json();
        let token = &tokens["tokens"][0];
        assert_eq!((token["provider"].as_str(), token["state"].as_str()), (Some("scb"), Some("live")));
        assert_eq!((token["generation"].as_u64(), token["fetches"]["ok"].as_u64()), (Some(2), Some(2)));
        assert!(token["expires_at"].as_str().is_some_and(|at| at.starts_with("20")), "{tokens}");
        assert_eq!(stage.admin("/api/v1/nothing").await.status, 404);
        let metrics = String::from_utf8(stage.admin("/metrics").await.body.to_vec()).expect("text");
        for line in [
            "countersign_requests_total{listener=\"gateway\",route=\"scb\",status=\"200\"} 2",
            "countersign_requests_total{listener=\"gateway\",route=\"\",status=\"404\"} 1",
            "countersign_replays_total{provider=\"scb\",outcome=\"replayed\"} 1",
            "countersign_token_fetches_total{provider=\"scb\",outcome=\"ok\"} 2",
            "countersign_tokens{provider=\"scb\"} 1",
            "countersign_token_expiry_timestamp_seconds{provider=\"scb\"} 1",
            "countersign_certificate_expiry_timestamp_seconds{what=\"server.crt\"} 1",
            "countersign_config_last_reload_successful 1",
            "countersign_request_duration_seconds_count{route=\"scb\"} 2",
            "countersign_upstream_duration_seconds_count{route=\"scb\"} 3",
            "countersign_token_fetch_duration_seconds_count{provider=\"scb\"} 2",
            "countersign_upstream_connections{provider=\"scb\"}",
            "countersign_connections{listener=\"gateway\"}",
            "countersign_build_info{version=",
        ] {
            assert!(metrics.contains(line), "{line} is not in\n{metrics}");
        }
        let docs = include_str!("../../docs/metrics.md");
        for name in metrics.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
            let name = name.split(' ').next().unwrap_or_default();
            assert!(docs.contains(name), "docs/metrics.md does not speak of {name}");
        }
    });
    let lines = stage.stop();
    assert_eq!(lines.len(), 3);
    assert!(lines.iter().all(|line| !line.to_string().contains("query")), "queries are not logged");
    assert_eq!(lines[0]["url.path"], "/scb/echo/x");
    assert_eq!(lines[0]["countersign.provider_request_id"].as_str().map(str::len), Some(32));
    assert_eq!((&lines[2]["error.type"], &lines[2]["countersign.client"]), (&"route-not-found".into(), &"erp".into()));
}

#[test]
fn readiness_ends_when_draining_begins_and_what_is_under_way_is_finished() {
    let sim = bank(Bank::Scb);
    sim.change(|faults| faults.resource.delay = Some(std::time::Duration::from_millis(700)));
    let stage = Plan::default().with(&sim, "scb", "", "").start();
    let (client, admin) = (stage.client.clone(), stage.running.admin.expect("an admin door"));
    let running = stage.running;
    converse(async move {
        let slow = tokio::task::spawn_local(async move { client.send(get("/scb/echo/slow", KEY)).await.status });
        while sim.resource_calls() == 0 {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        let limit = std::time::Duration::from_secs(20);
        let drained = std::thread::spawn(move || running.drain(std::time::Duration::from_millis(300), limit));
        let mut seen = Vec::new();
        while !drained.is_finished() {
            if let Ok(mut stream) = tokio::net::TcpStream::connect(admin).await {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let asked = format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
                let _ = stream.write_all(asked.as_bytes()).await;
                let mut answer = String::new();
                let _ = stream.read_to_string(&mut answer).await;
                seen.push(answer.get(9..12).unwrap_or("").to_owned());
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        assert_eq!(slow.await.expect("no panic"), 200, "the slow request was finished");
        assert!(seen.iter().any(|status| status == "503"), "{seen:?}");
    });
}
