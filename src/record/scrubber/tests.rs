use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use http::HeaderValue;
use proptest::prelude::*;
use serde_json::json;

use super::*;

const KEY: [u8; 32] = [9; 32];

fn scrubber() -> Scrubber {
    Scrubber::new(&KEY, &[])
}

fn secret(text: &str) -> SecretString {
    SecretString::from(text)
}

fn json(scrubber: &mut Scrubber, value: &Value) -> Value {
    let body = serde_json::to_vec(value).unwrap();
    match scrubber.body("application/json", &body, ScrubTrust::Resource) {
        ScrubbedBody::Json(value) => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_harmless_members_keep_their_values_and_all_keep_their_types() {
    let body = json!({
        "status": {"code": 1000, "description": "Success, Jane"},
        "accounts": [{"iban": "DE89370400440532013000", "currency": "EUR", "balance": 1520.75, "active": true, "note": null,
                      "holder": {"name": "Jane Doe", "born": "1984-02-29", "phone": "+49 170 1234567"}}],
        "0188000049916": 1,
        "empty": ""
    });
    let mut scrubber = scrubber();
    let found = json(&mut scrubber, &body);
    assert_eq!(found["status"]["code"], 1000);
    assert_eq!(found["accounts"][0]["currency"], "EUR");
    assert_eq!(found["accounts"][0]["active"], true);
    assert_eq!(found["accounts"][0]["note"], Value::Null);
    assert_eq!(found["empty"], "");
    assert!(super::super::stand_in::is_iban(found["accounts"][0]["iban"].as_str().unwrap()));
    assert!(found["accounts"][0]["balance"].is_f64(), "{found}");
    let text = found.to_string();
    for personal in ["Jane", "Doe", "1984", "DE893704", "1520", "170 123", "0188000049916", "Success"] {
        assert!(!text.contains(personal), "{personal} in {text}");
    }
    assert_eq!(found.as_object().unwrap().len(), 4, "every member has a name");
    assert_eq!(json(&mut scrubber, &body), found, "the same again");
}

#[test]
fn a_kept_value_that_is_a_secret_is_replaced_in_every_spelling() {
    let mut scrubber = scrubber();
    scrubber.know(&secret("open-sesame"));
    for spelling in [
        "open-sesame",
        "OPEN-SESAME",
        &STANDARD.encode("open-sesame"),
        &URL_SAFE.encode("open-sesame"),
        &hex(b"open-sesame"),
    ] {
        let found = json(&mut scrubber, &json!({ "error": spelling, "scope": format!("a {spelling}") }));
        assert!(!found.to_string().contains(spelling), "{found}");
    }
    assert_eq!(json(&mut scrubber, &json!({"error": "invalid_token"}))["error"], "invalid_token");
    assert!(scrubber.leaks("a = \"open-SESAME\"") && !scrubber.leaks("a = \"open\""));
}

#[test]
fn paths_keep_their_words_and_equal_segments_have_equal_stand_ins() {
    let mut scrubber = scrubber();
    let (path, pattern) = scrubber.path("/v1/accounts/DE89370400440532013000/transactions/42", "");
    assert_eq!(pattern, "/v1/accounts/{}/transactions/{}");
    assert!(path.starts_with("/v1/accounts/DE") && !path.contains("3704"), "{path}");
    let list = json(&mut scrubber, &json!([{"id": "DE89370400440532013000"}]));
    assert!(path.contains(list[0]["id"].as_str().unwrap()), "a client finds the path by the list");
    assert_eq!(scrubber.path("/", ""), ("/".to_owned(), "/".to_owned()));
    assert!(!scrubber.path("/users/j%61ne", "").0.contains("ane"));
    scrubber.know(&secret("payments/accounts"));
    assert_eq!(scrubber.path("/v1/payments/accounts", "").1, "/{}/{}/{}", "a secret with a slash");
    scrubber.know_setting("Acme");
    let (path, pattern) = scrubber.path("/openapi/acme/b2b-oauth2/jane", "/openapi/acme/b2b-oauth2");
    assert_eq!(pattern, "/openapi/{}/b2b-oauth2/{}", "words of the config, but for its settings");
    assert!(!path.contains("acme") && !path.contains("jane"), "{path}");
}

#[test]
fn heads_keep_what_tells_how_a_call_went() {
    let mut scrubber = scrubber();
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("authorization", "Bearer the-token-0188"),
        ("content-type", "application/json; charset=utf-8; secret=x"),
        ("content-length", "9"),
        ("retry-after", "30"),
        (
            "www-authenticate",
            "Bearer realm=\"Jane's\", error=\"invalid_token\", error_description=\"Jane, 0188000049916\"",
        ),
        ("set-cookie", "session=9f86d081884c7d65"),
        ("x-api-key", "the-token-0188"),
        ("x-0188000049916", "1"),
    ] {
        headers.append(name, HeaderValue::from_static(value));
    }
    let credentials = [secret("Bearer the-token-0188"), secret("the-token-0188")];
    let found = scrubber.fields(&headers, &credentials);
    let of = |name: &str| found.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    assert_eq!(of("authorization"), Some("Bearer {token}"));
    assert_eq!(of("x-api-key"), Some("{token}"));
    assert_eq!(of("content-type"), Some("application/json; charset=utf-8"));
    assert_eq!(of("retry-after"), Some("30"));
    assert_eq!((of("content-length"), of("x-0188000049916")), (None, None));
    let challenge = of("www-authenticate").unwrap();
    assert!(challenge.starts_with("Bearer realm=\"") && challenge.contains("error=\"invalid_token\""), "{challenge}");
    assert!(!challenge.contains("Jane") && !challenge.contains("0188"), "{challenge}");
    assert!(!of("set-cookie").unwrap().contains("9f86"));
}

#[test]
fn forms_xml_and_texts_keep_their_shape() {
    let mut scrubber = scrubber();
    let text = |scrubber: &mut Scrubber, kind: &str, body: &str| match scrubber.body(
        kind,
        body.as_bytes(),
        ScrubTrust::Resource,
    ) {
        ScrubbedBody::Text(text) => text,
        other => panic!("{other:?}"),
    };
    let form = text(&mut scrubber, "application/x-www-form-urlencoded", "error=invalid_grant&user=jane%20doe");
    assert!(form.starts_with("error=invalid_grant&user=") && !form.contains("jane"), "{form}");
    let xml = text(&mut scrubber, "text/xml", "<Doc id=\"0188000049916\"><Status>OK</Status><Nm>Jane</Nm></Doc>");
    assert!(xml.starts_with("<Doc id=\"") && xml.contains("<Status>OK</Status><Nm>"), "{xml}");
    assert!(!xml.contains("Jane") && !xml.contains("0188"), "{xml}");
    let plain = text(&mut scrubber, "text/html", "<html><br>Jane");
    assert!(!plain.contains("Jane") && plain.len() == "<html><br>Jane".len(), "{plain}");
    let broken = text(&mut scrubber, "application/json", "{\"name\": \"Jane");
    assert!(!broken.contains("Jane") && !broken.contains("name"), "{broken}");
    assert_eq!(scrubber.body("x/y", &[0xff, 0xfe], ScrubTrust::Resource), ScrubbedBody::LeftOut("it is no text"));
    assert_eq!(scrubber.body("x/y", b" ", ScrubTrust::Resource), ScrubbedBody::Empty);
}

/// Values that are secret or somebody's: none of them is plain.
fn canary() -> impl Strategy<Value = String> {
    prop_oneof![
        "[A-Za-z0-9+/]{16,40}",
        "[a-f0-9]{16,64}",
        // Up to eight digits may be the code of an outcome.
        "[0-9]{9,16}",
        "[a-z]{3,8}[.][a-z]{3,8}@[a-z]{4,8}[.]com",
        "eyJ[A-Za-z0-9_-]{10,30}[.][A-Za-z0-9_-]{10,30}[.][A-Za-z0-9_-]{10,30}",
        "[+]49 [0-9]{3} [0-9]{7}",
    ]
    .prop_filter("it is plain", |text| !is_plain_text(text))
}

/// The ways in which a value may be written in a message.
fn spelled(text: &str) -> Vec<String> {
    let escaped: String = text.chars().map(|c| format!("\\u{:04x}", u32::from(c))).collect();
    vec![
        text.to_owned(),
        percent_encoded(text),
        STANDARD.encode(text),
        URL_SAFE_NO_PAD.encode(text),
        hex(text.as_bytes()),
        escaped,
        text.to_uppercase(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// A secret that the process knows comes out of no place, in no spelling.
    #[test]
    fn a_canary_comes_out_nowhere(canary in canary(), place in 0_usize..12, way in 0_usize..7) {
        let mut scrubber = scrubber();
        scrubber.know(&secret(&canary));
        let put = spelled(&canary)[way].clone();
        let quoted = if way == 5 { format!("\"{put}\"") } else { serde_json::to_string(&put).unwrap() };
        let member = ["name", "error", "code", "status", "token_type", "expires_in", "scope"][place % 7];
        let written = match place {
            0..=2 => {
                let body = format!("{{\"{member}\":{quoted},\"list\":[{quoted}],\"{}\":1}}", if way == 5 { "k" } else { &quoted[1..quoted.len() - 1] });
                match scrubber.body("application/json", body.as_bytes(), ScrubTrust::Token) {
                    ScrubbedBody::Json(value) => value.to_string(),
                    ScrubbedBody::Text(text) => text,
                    other => format!("{other:?}"),
                }
            }
            3 => format!("{:?}", scrubber.body("application/x-www-form-urlencoded", form_urlencoded::Serializer::new(String::new()).append_pair(member, &put).append_pair(&put, "x").finish().as_bytes(), ScrubTrust::Token)),
            4 => format!("{:?}", scrubber.body("text/xml", format!("<a {member}=\"{put}\"><{member}>{put}</{member}></a>").as_bytes(), ScrubTrust::Token)),
            5 => format!("{:?}", scrubber.body("text/plain", put.as_bytes(), ScrubTrust::Token)),
            6 => format!("{:?}", scrubber.path(&format!("/v1/{}/accounts/{put}", percent_encoded(&put)), &format!("/v1/{}/accounts/{put}", percent_encoded(&put)))),
            7 => format!("{:?}", scrubber.query(&format!("{member}={put}&{}=1&{member}={}", percent_encoded(&put), percent_encoded(&put)), &[])),
            _ => {
                let mut headers = HeaderMap::new();
                for name in ["authorization", "x-error-code", "cache-control", "content-type", "location", "cookie"] {
                    for value in [put.clone(), format!("Basic {put}"), format!("a/{put}; charset={put}")] {
                        headers.append(name, HeaderValue::from_str(&value).unwrap());
                    }
                }
                let challenge = format!("Bearer error=\"{put}\", {}=\"x\"", put.replace(['@', ' ', '+'], "-"));
                headers.append("www-authenticate", HeaderValue::from_str(&challenge).unwrap());
                format!("{:?}", scrubber.fields(&headers, &[]))
            }
        };
        let found = written.to_ascii_lowercase();
        for spelling in spelled(&canary) {
            prop_assert!(!found.contains(&spelling.to_ascii_lowercase()), "{spelling} in {written}");
        }
    }

    /// A value that nobody knows to be secret is replaced by its shape alone.
    #[test]
    fn an_unknown_value_that_is_not_plain_comes_out_nowhere(canary in canary(), member in "[a-z]{1,12}") {
        let mut scrubber = scrubber();
        let body = json!({ &member: &canary, "error": &canary, "list": [{ "code": &canary }], "nested": { &canary: 1 } });
        let found = json(&mut scrubber, &body).to_string();
        prop_assert!(!found.contains(&canary), "{found}");
        let (path, _) = scrubber.path(&format!("/{}", percent_encoded(&canary)), "");
        prop_assert!(!path.contains(&percent_encoded(&canary)), "{path}");
        let mut headers = HeaderMap::new();
        for name in ["x-error-code", "cache-control", "content-type", "retry-after", "location", "cookie"] {
            for value in [canary.clone(), format!("a/b; charset={canary}"), format!("Basic {canary}")] {
                headers.append(name, HeaderValue::from_str(&value).unwrap());
            }
        }
        let challenge = format!("Bearer error=\"{canary}\", realm=\"{canary}\"");
        headers.append("www-authenticate", HeaderValue::from_str(&challenge).unwrap());
        let found = format!("{:?}", scrubber.fields(&headers, &[]));
        prop_assert!(!found.contains(&canary), "{found}");
        prop_assert!(scrubber.leaks(&canary), "it is looked for at the end");
    }

    /// Two scrubbings of a document differ in nothing, and its shape stays.
    #[test]
    fn shapes_stay(text in "[ -~]{0,30}", number in any::<i64>(), float in -1.0e9_f64..1.0e9, flag in any::<bool>()) {
        let body = json!({ "a": { "b": [text, number, flag, null] , "c": float }, "d": [] });
        let mut scrubber = scrubber();
        let found = json(&mut scrubber, &body);
        prop_assert_eq!(&json(&mut scrubber, &body), &found);
        let items = found["a"]["b"].as_array().unwrap();
        prop_assert!(items[0].is_string() && items[1].is_i64() | items[1].is_u64() && items[2].is_boolean() && items[3].is_null());
        prop_assert!(found["a"]["c"].is_number() && found["d"].as_array().unwrap().is_empty());
    }
}
