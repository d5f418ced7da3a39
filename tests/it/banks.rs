//! Banks as banks are: early answers, HTTP/2 that is offered and declined, connections that go silent, odd heads.

use std::cell::{Cell, RefCell};
use std::path::Path;
use std::rc::Rc;
use std::time::Duration;

use countersign::base::time::{Clock, ManualClock};
use countersign::config::{InMemory, build};
use countersign::sim::{self, Bank, Sim, SimHandle};
use countersign::upstream::{Destination, DialError, EgressPath};
use pkcs8::EncryptedPrivateKeyInfo;
use pkcs8::der::Encode as _;
use pkcs8::der::asn1::OctetStringRef;
use pkcs8::pkcs5::pbes2::{EncryptionScheme, Kdf, Parameters, Pbkdf2Params};
use rustls::version::TLS13;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{converse, get, post};
use crate::harness::{Harness, KEY, Plan, now};
use crate::raw_server::{RawServer, honest, read, respond};
use crate::scripted_server::ScriptedSource;

fn bank(only_http1: bool) -> SimHandle {
    Sim::start(Bank::OAuth2, sim::SimOptions { only_http1, ..sim::SimOptions::default() }).expect("a simulator")
}

/// A proxy of one worker whose route leads to `upstream`, with its token at hand; the provider gets `more`.
async fn warm(sim: &SimHandle, clock: Clock, more: &str, upstream: &str) -> Harness {
    let other = "[[route]]\nname = \"warm\"\npath = \"/warm\"\nprovider = \"oauth2\"";
    let plan = Plan { workers: 1, clock, ..Plan::default() };
    let stage = plan.with(sim, "oauth2", more, &format!("upstream = \"{upstream}\"\n{other}")).start();
    assert_eq!(stage.client.send(get("/warm/echo/x", KEY)).await.status, 200);
    stage
}

#[test]
fn an_early_answer_is_passed_on_and_a_refusal_in_it_replayed() {
    const TOO_LARGE: &str = "HTTP/1.1 413 Content Too Large\r\nconnection: close\r\ncontent-length: 3\r\n\r\nbig";
    const REFUSED: &str = "HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer error=\"invalid_token\"\r\n\
                           content-length: 0\r\n\r\n";
    const FINE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    converse(async {
        for (early, wanted) in [(TOO_LARGE, 413), (REFUSED, 200)] {
            let sim = bank(true);
            let refuse = Rc::new(Cell::new(true));
            let refuses = refuse.clone();
            let scripted = ScriptedSource::start(&sim, move |head, mut line| {
                let early = (early == TOO_LARGE || refuses.replace(false)).then_some(early);
                async move {
                    if let Some(early) = early {
                        // The body is not read, so the kernel resets the connection when it is closed.
                        line.write_all(early.as_bytes()).await.ok()?;
                        line.flush().await.ok()?;
                        return None;
                    }
                    let length: usize = head.split("content-length: ").nth(1)?.split("\r\n").next()?.parse().ok()?;
                    let mut body = vec![0; length];
                    line.read_exact(&mut body).await.ok()?;
                    line.write_all(FINE.as_bytes()).await.ok()?;
                    line.flush().await.ok()?;
                    Some(line)
                }
            })
            .await;
            let more = "timeouts = { response = \"5s\" }";
            let stage = warm(&sim, Clock::System, more, &scripted.base_url).await;
            let mut arrived = 0;
            for _ in 0..10 {
                refuse.set(true);
                let answer = stage.client.send(post("/oauth2/pay", KEY, vec![7_u8; 60_000])).await;
                arrived += usize::from(answer.status == wanted);
                assert!([wanted, 502].contains(&answer.status), "{answer:?}");
            }
            // The network may lose an answer with its connection.
            assert!(arrived >= 7, "{wanted}: {arrived} of 10");
        }
    });
}

#[test]
fn a_bank_that_requires_http_1_gets_it_at_once_and_from_then_on() {
    converse(async {
        let sim = bank(true);
        let streams = Rc::new(Cell::new(0));
        let counted = streams.clone();
        let odd = RawServer::start(&sim, &[b"h2", b"http/1.1"], &[&TLS13], move |(mut tls, _, _)| {
            let streams = counted.clone();
            async move {
                if tls.get_ref().1.alpn_protocol() == Some(b"h2") {
                    let Ok(mut connection) = h2::server::handshake(tls).await else { return };
                    while let Some(Ok((_, mut answer))) = connection.accept().await {
                        streams.set(streams.get() + 1);
                        answer.send_reset(h2::Reason::HTTP_1_1_REQUIRED);
                    }
                    return;
                }
                while let Some(head) = crate::scripted_server::head(&mut tls).await {
                    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.split("\r\n").next());
                    let mut body = vec![0; length.and_then(|length| length.parse().ok()).unwrap_or(0)];
                    if tls.read_exact(&mut body).await.is_err() {
                        return;
                    }
                    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n{:05}", body.len());
                    if tls.write_all(answer.as_bytes()).await.is_err() || tls.flush().await.is_err() {
                        return;
                    }
                }
            }
        })
        .await;
        let stage = warm(&sim, Clock::System, "", &format!("https://{}", odd.address)).await;
        for _ in 0..3 {
            let answer = stage.client.send(post("/oauth2/pay", KEY, vec![7_u8; 3000])).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &b"03000"[..]));
        }
        assert_eq!(streams.get(), 1, "it was told once");
        let told = warm(&sim, Clock::System, "http = \"1.1\"", &format!("https://{}", odd.address)).await;
        assert_eq!(told.client.send(post("/oauth2/pay", KEY, "{}")).await.status, 200);
        assert_eq!(streams.get(), 1, "it was never asked");
    });
}

#[test]
fn a_silent_http_2_connection_takes_no_new_payments() {
    converse(async {
        let sim = bank(false);
        let odd = RawServer::start(&sim, &[b"h2"], &[&TLS13], |(tls, number, book)| async move {
            if number > 1 {
                return honest((tls, number, book)).await;
            }
            let Ok(mut connection) = h2::server::handshake(tls).await else { return };
            let Some(Ok((request, answer))) = connection.accept().await else { return };
            let answering = async {
                read(1, request).await;
                respond(answer, "ok");
                tokio::time::sleep(Duration::from_millis(50)).await;
            };
            tokio::select! {
                () = answering => {}
                _ = std::future::poll_fn(|cx| connection.poll_closed(cx)) => {}
            }
            // From now on nothing is read, and nothing said.
            std::future::pending::<()>().await;
        })
        .await;
        let hand = ManualClock::at(now());
        let stage = warm(&sim, Clock::Manual(hand.clone()), "", &format!("https://{}", odd.address)).await;
        let pay = || stage.client.send(post("/oauth2/pay", KEY, "{}"));
        assert_eq!(pay().await.status, 200);
        let waiting = {
            let client = stage.client.clone();
            tokio::task::spawn_local(async move { client.send(post("/oauth2/pay", KEY, "{}")).await })
        };
        // It has to be on its way.
        tokio::time::sleep(Duration::from_millis(100)).await;
        hand.advance(Duration::from_secs(6));
        for _ in 0..2 {
            assert_eq!(pay().await.status, 200);
        }
        assert_eq!(odd.book.connections.get(), 2);
        assert!(!waiting.is_finished(), "what waits is not cut off");
        waiting.abort();
    });
}

#[test]
fn names_of_fields_are_written_as_profile_and_client_wrote_them_where_that_is_asked() {
    converse(async {
        let sim = bank(true);
        let scripted = ScriptedSource::saying(&sim, "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await;
        let request = format!(
            "GET /oauth2/x HTTP/1.1\r\nHOST: localhost\r\nAUTHORIZATION: Bearer {KEY}\r\nX-cHannel: erp\r\nconnection: close\r\n\r\n"
        );
        for (more, names) in [
            ("header_case = \"preserve\"", ["\r\nX-cHannel: erp\r\n", "\r\nauthorization: Bearer "]),
            ("", ["\r\nx-channel: erp\r\n", "\r\nhost: "]),
        ] {
            let stage = warm(&sim, Clock::System, more, &scripted.base_url).await;
            let answer = stage.client.raw(request.as_bytes(), Duration::from_secs(10)).await;
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
            let head = scripted.heads.borrow().last().cloned().expect("a head");
            assert!(names.iter().all(|name| head.contains(name)), "{more}: {head}");
        }
    });
}

#[test]
fn answers_with_many_fields_pass_and_malformed_lines_where_that_is_asked() {
    converse(async {
        let sim = bank(true);
        let many: String = (0..300).map(|number| format!("x-h{number}: {number}\r\n")).collect();
        let script = Rc::new(RefCell::new(String::new()));
        let lines = script.clone();
        let scripted = ScriptedSource::start(&sim, move |_, mut line| {
            let answer = format!("HTTP/1.1 200 OK\r\n{}content-length: 2\r\n\r\nok", lines.borrow());
            async move {
                line.write_all(answer.as_bytes()).await.ok()?;
                line.flush().await.ok()?;
                Some(line)
            }
        })
        .await;
        let strict = warm(&sim, Clock::System, "", &scripted.base_url).await;
        let lenient = warm(&sim, Clock::System, "invalid_header_lines = \"drop\"", &scripted.base_url).await;
        *script.borrow_mut() = many;
        // The client of these tests takes no more than 100 fields itself.
        let request = format!(
            "GET /oauth2/x HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {KEY}\r\nconnection: close\r\n\r\n"
        );
        let answer = strict.client.raw(request.as_bytes(), Duration::from_secs(10)).await;
        let answer = String::from_utf8_lossy(&answer);
        assert!(answer.starts_with("HTTP/1.1 200") && answer.contains("x-h299: 299"), "{answer}");
        for (lines, refused) in [
            ("", false),
            ("X-Node : a\r\n", true),
            ("X-Frame-Options SAMEORIGIN\r\n", true),
            ("X-Long: a\r\n b\r\n", true),
        ] {
            *script.borrow_mut() = lines.to_owned();
            let answer = strict.client.send(post("/oauth2/pay", KEY, "{}")).await;
            assert_eq!(answer.status, if refused { 502 } else { 200 }, "{lines}");
            let answer = lenient.client.send(post("/oauth2/pay", KEY, "{}")).await;
            assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]), "{lines}");
        }
        *script.borrow_mut() = "Content-Length : 9\r\n".to_owned();
        assert_eq!(lenient.client.send(post("/oauth2/pay", KEY, "{}")).await.status, 502, "it might frame the answer");
    });
}

#[test]
fn a_handshake_that_fails_for_want_of_a_cipher_says_so() {
    converse(async {
        let sim = bank(true);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        tokio::task::spawn_local(async move {
            while let Ok((mut tcp, _)) = listener.accept().await {
                let mut hello = [0; 512];
                let _ = tcp.read(&mut hello).await;
                // A fatal alert: handshake_failure.
                let _ = tcp.write_all(&[21, 3, 3, 0, 2, 2, 40]).await;
                let _ = tcp.read(&mut hello).await;
            }
        });
        let ca = sim.ca_pem();
        let wish = countersign::tls::ClientTls { ca: Some(ca.as_bytes()), ..Default::default() };
        let destination = Destination {
            host: "127.0.0.1".into(),
            port,
            tls: countersign::tls::client(wish).expect("TLS"),
            server_name: "localhost".try_into().expect("a name"),
            path: EgressPath::default(),
            connect_timeout: Duration::from_secs(5),
        };
        let error = destination.attempt(now()).await.ended.expect_err("no handshake");
        assert!(
            matches!(error, DialError::Tls(_)) && error.to_string().contains("no cipher suite is shared"),
            "{error}"
        );
    });
}

#[test]
fn a_client_key_may_be_encrypted_under_a_password() {
    let key = rcgen::KeyPair::generate().expect("a key");
    let certificate = rcgen::CertificateParams::default().self_signed(&key).expect("a certificate").pem();
    let encryption = EncryptionScheme::Aes256Cbc { iv: [3; 16] };
    let kdf = Kdf::Pbkdf2(Pbkdf2Params::hmac_sha256(10, &[7; 8]).expect("a salt"));
    let parameters = Parameters { kdf, encryption };
    let data = parameters.encrypt(b"open sesame", &key.serialize_der()).expect("encrypted");
    let encrypted_data = OctetStringRef::new(&data).expect("an octet string");
    let info = EncryptedPrivateKeyInfo { encryption_algorithm: parameters.into(), encrypted_data };
    let text = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, info.to_der().expect("DER"));
    let pem = format!("-----BEGIN ENCRYPTED PRIVATE KEY-----\n{text}\n-----END ENCRYPTED PRIVATE KEY-----\n");
    let judged = |password: &str| {
        let files = InMemory::new()
            .with_file("c/k", pem.clone())
            .with_file("c/c", format!("\u{feff}{certificate}"))
            .with_file("c/p", "\u{feff}open sesame\r\n")
            .with_env("WRONG", "sesame");
        let config = format!(
            "[[listener]]\nname = \"gw\"\nbind = \"127.0.0.1:0\"\nclients = \"anyone\"\n[provider.oauth2]\nprofile = \"oauth2\"\n\
             base_url = \"https://bank.example\"\ntoken_url = \"https://bank.example/token\"\nclient_id = \"i\"\n\
             client_secret = {{ file = \"p\" }}\ntls = {{ client_cert = \"c\", client_key = \"k\"{password} }}\n\
             [[route]]\npath = \"/bank\"\nprovider = \"oauth2\"\n"
        );
        let (snapshot, found) = build(Path::new("c/proxy.toml"), config, &files);
        let found: Vec<String> = found.iter().map(|found| found.one_line()).collect();
        assert!(found.iter().all(|line| !line.contains("sesame")), "{found:?}");
        (snapshot.is_some(), found.join("\n"))
    };
    assert_eq!(judged(", client_key_password = { file = \"p\" }"), (true, String::new()));
    let (fine, said) = judged("");
    assert!(!fine && said.contains("is encrypted"), "{said}");
    let (fine, said) = judged(", client_key_password = { env = \"WRONG\" }");
    assert!(!fine && said.contains("password is wrong"), "{said}");
    let (fine, said) = judged(", client_key_password = \"open sesame\"");
    assert!(fine && said.contains("stands in the config file"), "{said}");
}
