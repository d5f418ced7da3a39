use std::fs;
use std::path::Path;
use std::sync::Arc;

use http::HeaderMap;
use proptest::prelude::*;

use super::*;
use crate::base::id::CountingIds;
use crate::base::origin::BaseUrl;
use crate::base::secret::{ExposeSecret, SecretString};
use crate::base::time::Now;
use crate::base::vars::Vars;
use crate::provider::{CallAs, LoginProgress, Module, Profile, Wiring, fixture};
use crate::syntax::{Diagnostics, Fields, FromNode, Node, SourceText};

const SAMPLES: [&str; 10] = [
    "abbeycross.json",
    "airtel-money.txt",
    "citi.postman.json",
    "meed.txt",
    "mpesa.txt",
    "mtn-momo.har",
    "paypal.har",
    "rakbank.yaml",
    "scb.txt",
    "unionbank-ph.postman.json",
];

fn sample(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/learn").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn learned(text: &str) -> LearnedBank {
    learn(&[text.as_bytes()], Some("newbank")).unwrap_or_else(|why| panic!("{why}"))
}

/// The profile of a text, and its conversation played.
fn held(bank: &LearnedBank) -> Arc<Profile> {
    let text = bank.profile().expect("a profile without secrets");
    let report = Diagnostics::new();
    let profile = Profile::parse(&SourceText::new("learned", text.clone()), &report);
    let profile = profile.unwrap_or_else(|| {
        let found: Vec<String> = report.into_diagnostics().iter().map(|found| found.render(false)).collect();
        panic!("{}\n{text}", found.join("\n"))
    });
    let conversation = bank.conversation().expect("a conversation without secrets");
    let wrong = fixture::play("learned", &conversation, Some(&profile));
    assert!(wrong.is_empty(), "{}\n{text}\n{conversation}", wrong.join("\n"));
    profile
}

/// All texts that come of a bank.
fn outputs(bank: &LearnedBank) -> String {
    let guesses: Vec<&str> = bank.guesses().iter().map(|guess| guess.about.as_str()).collect();
    let texts = [bank.profile(), bank.conversation()].map(|text| text.unwrap_or_else(|why| why));
    let settings = format!("{:?}", bank.settings());
    [texts.join("\n"), guesses.join("\n"), bank.omitted().join("\n"), settings, format!("{bank:?}")].join("\n")
}

/// What reading the profile and playing the conversation says, if it is not as it should be.
fn rehearsed(bank: &LearnedBank) -> String {
    let (Ok(profile), Ok(conversation)) = (bank.profile(), bank.conversation()) else { return String::new() };
    let report = Diagnostics::new();
    let parsed = Profile::parse(&SourceText::new("learned", profile), &report);
    let found: Vec<String> = report.into_diagnostics().iter().map(|found| found.render(false)).collect();
    let wrong = parsed.map(|parsed| fixture::play("learned", &conversation, Some(&parsed))).unwrap_or_default();
    found.join("\n") + &wrong.join("\n")
}

/// A token request as it goes out: method, URL with query, headers, body.
#[derive(Debug, PartialEq)]
struct Wire {
    line: String,
    headers: Vec<(String, String)>,
    body: String,
}

/// Renders the token request of a profile. Headers in `fresh` are there with any value.
fn wire(profile: &Arc<Profile>, base_url: &str, settings: &[(&str, &str)], fresh: &[&str]) -> Wire {
    let text: String =
        settings.iter().map(|(name, value)| format!("{name} = {}\n", toml_value::quoted(value))).collect();
    let report = Diagnostics::new();
    let node = Node::parse(&SourceText::new("settings", text), &report);
    let fields = Fields::new(&node, "settings", &report);
    let read = |node: &Node, report: &Diagnostics| {
        String::from_node(node, report).map(|text| (SecretString::from(text), false))
    };
    let settings = profile.read_settings(&fields, &read);
    fields.finish();
    assert_eq!(report.errors(), 0, "{}: {:?}", profile.name(), report.into_diagnostics());
    let wiring = Wiring {
        name: "b",
        base_url: BaseUrl::parse(base_url).expect("a URL"),
        token_url: None,
        default_ttl: None,
        consent: None,
        caller: CallAs::Application,
    };
    let module = Module::build(profile, settings.expect("settings"), wiring).expect("a module");
    let now = Now::at(0, 1_550_131_385_000);
    let request = LoginProgress::default().request(&module, &Vars::none(), &mut CountingIds::default(), now);
    let request = request.expect("a token request");
    let query = request.query.as_ref().map(|query| format!("?{}", query.expose_secret())).unwrap_or_default();
    let shown = |headers: &HeaderMap| {
        let mut pairs: Vec<(String, String)> = headers
            .iter()
            .map(|(name, value)| {
                let value = if fresh.contains(&name.as_str()) { "(fresh)" } else { value.to_str().expect("text") };
                (name.to_string(), value.to_owned())
            })
            .collect();
        pairs.sort();
        pairs
    };
    Wire {
        line: format!("{} {}{query}", request.method, request.url),
        headers: shown(&request.headers),
        body: String::from_utf8(request.body.expose_secret().clone()).expect("text"),
    }
}

/// Learns from a sample, and compares what goes over the wire with what our own profile sends. `settings`: names in the
/// learned profile, names in ours, and the value.
fn same_wire(sample_name: &str, ours: &str, base_url: &str, settings: &[(&str, &str, &str)], fresh: &[&str]) {
    let bank = learned(&sample(sample_name));
    let profile = held(&bank);
    let learned_settings: Vec<(&str, &str)> =
        settings.iter().filter(|(name, ..)| !name.is_empty()).map(|(name, _, value)| (*name, *value)).collect();
    let our_settings: Vec<(&str, &str)> =
        settings.iter().filter(|(_, name, _)| !name.is_empty()).map(|(_, name, value)| (*name, *value)).collect();
    let found = wire(&profile, bank.base_url().unwrap_or(base_url), &learned_settings, fresh);
    let wanted = wire(&Profile::builtin(ours).expect(ours), base_url, &our_settings, fresh);
    assert_eq!(found, wanted, "{sample_name}\n{}", bank.profile().expect("a profile"));
}

#[test]
fn scb_is_learned_from_notes() {
    let settings = [
        ("application_key", "application_key", "my-key"),
        ("application_secret", "application_secret", "my-secret+ 1"),
    ];
    same_wire("scb.txt", "scb", "https://api-sandbox.partners.scb/partners/sandbox", &settings, &["requestuid"]);
}

#[test]
fn meed_is_learned_from_its_documentation() {
    // The host is a placeholder there, so both get the same.
    let settings = [("client_id", "client_id", "meed_1"), ("client_secret", "client_secret", "s&+ 1")];
    let bank = learned(&sample("meed.txt"));
    assert_eq!((bank.base_url(), bank.stand_in_base()), (None, "https://bank.example/api/partner/v1"));
    let profile = held(&bank);
    let pairs: Vec<(&str, &str)> = settings.iter().map(|(name, _, value)| (*name, *value)).collect();
    let base = "https://partner.example/api/partner";
    let ours = Profile::builtin("meed").expect("meed");
    // The base URL of what was learned ends with the segments that token call and calls have in common.
    assert_eq!(wire(&profile, &format!("{base}/v1"), &pairs, &[]), wire(&ours, base, &pairs, &[]));
}

#[test]
fn abbeycross_is_learned_from_open_api() {
    let settings = [("client_id", "client_id", "c"), ("client_secret", "client_secret", "s")];
    same_wire("abbeycross.json", "abbeycross", "https://api.abx.example", &settings, &[]);
    let text = learned(&sample("abbeycross.json")).profile().expect("a profile");
    assert!(text.contains("status = 503\nclass  = \"closed\""), "{text}");
    assert!(text.contains("# Guessed: no example shows an answer with a token"), "{text}");
}

#[test]
fn rakbank_is_learned_from_open_api_in_yaml() {
    let settings = [
        ("ibm_client_id", "client_id", "c"),
        ("ibm_client_secret", "client_secret", "s"),
        ("scope", "scope", "fetch_fields"),
    ];
    let bank = learned(&sample("rakbank.yaml"));
    let profile = held(&bank);
    let of = |at: usize| -> Vec<(&str, &str)> {
        settings.iter().map(|(learned, ours, value)| ([*learned, *ours][at], *value)).collect()
    };
    let found = wire(&profile, bank.base_url().expect("a base"), &of(0), &["msgid"]);
    // Ours has no path of its own, since the bank's pages disagree about it.
    let ours = Profile::builtin_text("rakbank")
        .expect("rakbank")
        .replace("[token.request]\n", "[token.request]\npath = \"/v1/partner_auth/token\"\n");
    let ours = Profile::parse(&SourceText::new("rakbank", ours), &Diagnostics::new()).expect("a profile");
    let wanted = wire(&ours, "https://sandboxapi.rakbank.ae/sb/api", &of(1), &["msgid"]);
    assert_eq!(found, wanted);
}

#[test]
fn paypal_is_learned_from_a_recording() {
    let settings = [("client_id", "client_id", "me"), ("client_secret", "client_secret", "s:s+1")];
    same_wire("paypal.har", "paypal", "https://api-m.sandbox.paypal.com", &settings, &[]);
    let text = learned(&sample("paypal.har")).profile().expect("a profile");
    assert!(text.contains("fresh  = \"call\""), "a payment's id stays: {text}");
    assert!(!text.contains("tracker"), "{text}");
}

#[test]
fn citi_is_learned_from_a_collection() {
    let settings = [("client_id", "client_id", "me"), ("client_secret", "client_secret", "s:s+1")];
    same_wire("citi.postman.json", "citi", "https://tts.sandbox.apib2b.citi.com/citiconnect/sb", &settings, &[]);
    let text = learned(&sample("citi.postman.json")).profile().expect("a profile");
    assert!(text.contains("matches = \"(?i)expired\""), "one code for both: the sentence decides: {text}");
}

#[test]
fn mpesa_is_learned_from_notes() {
    let settings = [("client_id", "consumer_key", "me"), ("client_secret", "consumer_secret", "s:s+1")];
    same_wire("mpesa.txt", "mpesa", "https://sandbox.safaricom.co.ke", &settings, &[]);
    let text = learned(&sample("mpesa.txt")).profile().expect("a profile");
    assert!(
        text.contains(
            "[[refusal.match]]\nstatus = 404\njson   = [{ pointer = \"/errorCode\", equals = \"404.001.03\" }]"
        ),
        "{text}"
    );
}

#[test]
fn mtn_momo_is_learned_from_a_recording() {
    let settings = [
        ("client_id", "api_user", "me"),
        ("client_secret", "api_key", "s"),
        ("ocp_apim_subscription_key", "subscription_key", "k"),
    ];
    same_wire("mtn-momo.har", "mtn-momo", "https://sandbox.momodeveloper.mtn.com", &settings, &[]);
}

#[test]
fn unionbank_is_learned_from_a_collection() {
    let settings = [
        ("client_id", "client_id", "c"),
        ("", "client_secret", "x"),
        ("username", "username", "u"),
        ("password", "password", "p&+ 1"),
        ("scope", "scope", "transfers"),
    ];
    same_wire(
        "unionbank-ph.postman.json",
        "unionbank-ph",
        "https://api-uat.unionbankph.com/partners/sb",
        &settings,
        &[],
    );
}

#[test]
fn airtel_money_is_learned_from_bare_requests() {
    let settings = [
        ("client_id", "client_id", "c"),
        ("client_secret", "client_secret", "s"),
        ("", "country", "UG"),
        ("", "currency", "UGX"),
    ];
    same_wire("airtel-money.txt", "airtel-money", "https://openapiuat.airtel.africa", &settings, &[]);
    let text = learned(&sample("airtel-money.txt")).profile().expect("a profile");
    assert!(text.contains("challenge_error = \"invalid_token\""), "{text}");
    assert!(text.contains("class = \"fatal\""), "{text}");
}

#[test]
fn times_ids_and_schemes_of_a_request_are_told_from_constants() {
    let notes = "curl -X POST https://bank.example/api/login -H 'X-TIMESTAMP: 2026-11-21T08:30:00+07:00' \\\n\
                 -H 'X-NONCE: 123456789012345678' -H 'X-Epoch-Time: 1764201600' -H 'X-Date-Stamp: 20261121083000' \\\n\
                 -H 'X-Request-Id: 85230887-e643-4fa4-84b2-4e56709c4ac4' -H 'Authorization: apikey k9d8e7f6a5b4c3d2' \\\n\
                 -H 'content-type: application/json' -H 'x-region: eu' \\\n\
                 -d '{\"user\":\"someone\",\"pin\":\"4711\",\"trace_id\":\"95230887-e643-4fa4-84b2-4e56709c4ac4\",\"version\":2}'\n\n\
                 HTTP/1.1 200 OK\n\n\
                 {\"success\":true,\"data\":{\"sessionToken\":\"s9d8e7f6a5b4c3d2x\",\"validUntil\":\"2026-11-21T09:30:00Z\"}}\n\n\
                 HTTP/1.1 200 OK\n\n\
                 {\"success\":false,\"errorCode\":\"E-7\",\"message\":\"invalid pin 4711\"}\n\n\
                 curl https://bank.example/api/accounts -H 'x-session: s9d8e7f6a5b4c3d2x' -H 'X-Payment-Ref: 123456789012'\n";
    let bank = learned(notes);
    let text = bank.profile().expect("a profile");
    held(&bank);
    for line in [
        "[times.stamp]\nformat = \"rfc3339-seconds\"\nzone   = \"+07:00\"",
        "format = \"%Y%m%d%H%M%S\"",
        "X-Epoch-Time = \"{now_epoch}\"",
        "[ids.nonce]\nkind   = \"numeric\"\nlength = 18\nfresh  = \"attempt\"",
        "[ids.payment_ref]\nkind   = \"numeric\"\nlength = 12\nfresh  = \"call\"",
        "X-Request-Id = \"{uuid}\"",
        "trace_id = \"{uuid}\"",
        "Authorization = \"apikey {authorization}\"",
        "x-region = \"eu\"",
        "user = \"{user}\"",
        "pin = \"{pin}\"",
        "version = 2",
        "success = [{ pointer = \"/success\", equals = true }]",
        "access_token = \"/data/sessionToken\"",
        "expires_at   = \"/data/validUntil\"",
        "{ header = \"x-session\", value = \"{token}\" }",
    ] {
        assert!(text.contains(line), "{line}\nin\n{text}");
    }
    assert!(!outputs(&bank).contains("4711"));
}

#[test]
fn the_key_of_a_payment_is_another_one_for_each() {
    const ONE: &str = "85230887-e643-4fa4-84b2-4e56709c4ac4";
    let profile = |header: &str, first: &str, second: &str| {
        let call = |value: &str| {
            format!(
                "\n\ncurl https://bank.example/v1/payments -H 'Authorization: Bearer <token>' -H '{header}: {value}' -d '{{}}'\n"
            )
        };
        let notes = format!(
            "curl https://bank.example/oauth/token -u <id>:<secret> -d grant_type=client_credentials\n\n\
             {{\"access_token\":\"<token>\",\"expires_in\":60}}{}{}",
            call(first),
            call(second)
        );
        let bank = learned(&notes);
        held(&bank);
        bank.profile().expect("a profile")
    };
    let headers =
        ["Idempotency-Key", "X-Idempotency-ID", "X-Client-IdempotencyKey", "idempotency_token", "PayPal-Request-Id"];
    for header in headers {
        for (first, second) in
            [(ONE, ONE), (ONE, "95230887-e643-4fa4-84b2-4e56709c4ac4"), ("<uuid>", "<key>"), ("p-1", "p-1")]
        {
            let text = profile(header, first, second);
            assert!(
                text.contains("fresh  = \"call\"") && text.contains("client = \"keep\""),
                "{header} {first}\n{text}"
            );
            let settings: Vec<&str> = text.lines().filter(|line| line.starts_with("[settings")).collect();
            assert_eq!(settings, ["[settings.id]", "[settings.secret]"], "{header} {first}\n{text}");
        }
    }
}

#[test]
fn units_and_sparse_answers_are_read_and_marked() {
    let answer = |answer: &str| {
        let notes = format!(
            "curl https://bank.example/oauth/token -u <id>:<secret> -d grant_type=client_credentials\n\n{answer}\n"
        );
        let bank = learned(&notes);
        held(&bank);
        bank.profile().expect("a profile")
    };
    let milliseconds = answer("{\"token\":\"<token>\",\"expires_in\":3600000}");
    assert!(
        milliseconds.contains("expires_in_unit = \"ms\"")
            && milliseconds.contains("Guessed: `expires_in` counts milli"),
        "{milliseconds}"
    );
    let dated = answer("{\"token\":\"<token>\",\"expires\":1764201600}");
    assert!(dated.contains("expires_at   = \"/expires\""), "{dated}");
    let none = answer("{\"token\":\"<token>\"}");
    assert!(none.contains("default_ttl  = \"5m\""), "{none}");
    let hours = answer("{\"token\":\"<token>\",\"expiresInHours\":2}");
    assert!(hours.contains("another unit") && hours.contains("default_ttl"), "{hours}");
}

#[test]
fn what_examples_of_this_kind_cannot_tell_is_said() {
    let notes = "curl https://bank.example/login/start\n\n{\"ticket\":\"t1c2k3e4t5x6y7\"}\n\
                 curl https://bank.example/oauth/token -H 'X-Signature: c2lnbmF0dXJl' -d grant_type=client_credentials -d client_id=<id> \\\n\
                 -d client_secret=<secret> -d session=t1c2k3e4t5x6y7 -d client_assertion=eyJhbGciOiJQUzI1NiJ9.e30.c2ln -d redirect_uri=https://app.example\n\n{\"access_token\":\"<token>\",\"expires_in\":60}\n\
                 curl https://bank.example/oauth/token -d grant_type=refresh_token -d refresh_token=<r>\n";
    let told = learned(notes).omitted().join("\n");
    for words in [
        "[[token.request.sign]]",
        "[[token.steps]]",
        "`client_assertion` is signed for each request",
        "`redirect_uri` belongs to a user's consent",
        "token calls of other grants",
    ] {
        assert!(told.contains(words), "{words}\nin\n{told}");
    }
}

/// Values of the samples that are secrets, or nobody's business.
const HIDDEN: [&str; 21] = [
    "l7a1b2c3d4e5f60718293a4b5c6d7e8f90",
    "5f4dcc3b5aa765d61d8327deb882cf99",
    "34362373-66e8",
    "Zm9vYmFyYmF6cXV4",
    "0987654321234",
    "1d0cb08343fffe",
    "c47f8cb732a93dd355565a185a6a04efc03ca62f",
    "QVpEeGpEU2NGcFF0",
    "AZDxjDScFpQt",
    "ELecBeLkEyQYxZ3",
    "6f1ed002ab5595859014ebf0951522d9",
    "A21AAFs9YsR6h8jQ2pLz",
    "8837@example",
    "5O190127TN364715T",
    "yD7rG5pQ0wX2nB4vL8sK1mJ3",
    "Kx8pQ2mZ7vT4nR1w",
    "Wq3eR5tY7uI9oP1a",
    "d484a1f0d34f4301916d0f2c9e9106a2",
    "f1db798c989240938c1b",
    "p@ss w0rd&1",
    "98bb7d12-7a54",
];

#[test]
fn no_sample_leaves_a_secret_in_any_output() {
    let all: String = SAMPLES.iter().map(|name| sample(name)).collect();
    for hidden in HIDDEN {
        let is_encoded = ["AZDxjDScFpQt", "ELecBeLkEyQYxZ3", "f1db798c989240938c1b"].contains(&hidden);
        assert!(all.contains(hidden) || is_encoded, "{hidden} stands in no sample");
    }
    for name in SAMPLES {
        let bank = learned(&sample(name));
        let out = outputs(&bank);
        for hidden in HIDDEN {
            assert!(!out.contains(hidden), "{name} shows {hidden}");
        }
        assert!(bank.settings().iter().any(|setting| setting.secret), "{name} has a secret");
    }
}

#[test]
fn guesses_are_marked_until_a_person_confirms_them() {
    let mut bank = learned(&sample("unionbank-ph.postman.json"));
    assert!(bank.profile().expect("a profile").contains("# Guessed: no example shows a call"));
    assert!(held(&bank).lint().iter().any(|finding| finding.reason.is_none()), "lint tells of it");
    (0..bank.guesses().len()).for_each(|number| bank.confirm(number));
    let text = bank.profile().expect("a profile");
    assert!(!text.contains("Guessed:") && text.contains("# Confirmed when it was learned: no example"), "{text}");
    assert_eq!(held(&bank).lint().iter().filter(|finding| finding.reason.is_none()).count(), 0);
}

#[test]
fn what_is_missing_or_hostile_is_refused_in_words_of_our_own() {
    let why = |text: &str| learn(&[text.as_bytes()], None).err().unwrap_or_else(|| panic!("{text:.80} was learned"));
    assert!(why("").contains("no token call"));
    assert!(why("some prose about c4n4ry-7f8e9d0c1b2a").contains("no token call"));
    assert!(why("curl -X POST https://bank.example/oauth/token").contains("no credentials"));
    assert!(why("curl https://bank.example/oauth/token -d @/etc/passwd").contains("file of its own"));
    assert!(why(&format!("{{\"log\":{}1{}}}", "[".repeat(70), "]".repeat(70))).contains("nested"));
    assert!(why("{\"a\":1}").contains("neither"));
    assert!(why("{\"swagger\":\"2.0\"}").contains("Swagger 2"));
    assert!(why("\0").contains("no text"));
    assert!(learn(&[&[0xff, 0xfe, 0x41]], None).expect_err("refused").contains("UTF-8"));
    let long = vec![b' '; LONGEST_EXAMPLE + 1];
    assert!(learn(&[&long], None).expect_err("refused").contains("16 MiB"));
    assert!(learn(&[], None).is_err());
    let aliases = "openapi: 3.0.0\na: &a [x,x,x,x,x,x,x,x,x]\nb: &b [*a,*a,*a,*a,*a,*a,*a,*a,*a]\nc: &c [*b,*b,*b,*b,*b,*b,*b,*b,*b]\n\
                   d: &d [*c,*c,*c,*c,*c,*c,*c,*c,*c]\ne: &e [*d,*d,*d,*d,*d,*d,*d,*d,*d]\nf: [*e,*e,*e,*e,*e,*e,*e,*e,*e]\n";
    assert!(why(aliases).contains("bounds"));
}

#[test]
fn a_secret_in_an_odd_place_is_not_copied() {
    let canary = "c4n4ry7f8e9d0c1b2a3f4e5d";
    let odd = [
        format!(
            "curl https://{canary}.bank.example/oauth/token -d grant_type=client_credentials -d client_secret=x1y2z3"
        ),
        format!(
            "curl https://bank.example/{canary}/oauth/token -d grant_type=client_credentials -d client_secret=x1y2z3"
        ),
        format!("curl https://u:{canary}@bank.example/oauth/token -d grant_type=client_credentials"),
        format!(
            "curl https://bank.example/oauth/token -H 'x-{canary}: 1' -d grant_type=client_credentials -d client_secret=x1y2z3"
        ),
        format!(
            "curl https://bank.example/oauth/token -H 'x-odd: {canary}' -H 'Cookie: a={canary}' -d client_secret=x1y2z3"
        ),
        format!(
            "curl https://bank.example/oauth/token -d grant_type={canary} -d scope={canary} -d client_secret=x1y2z3"
        ),
        format!("curl 'https://bank.example/oauth/token?k={canary}' -d client_secret=x1y2z3"),
        format!(
            "curl https://bank.example/oauth/token -d client_secret=x1y2z3\nHTTP/1.1 200 OK\n\n{{\"access_token\":\"{canary}\",\"token_type\":\"{canary}\",\"{canary}\":\"{canary}\",\"code\":\"{canary}\",\"expires_in\":\"{canary}\"}}"
        ),
        format!(
            "curl https://bank.example/oauth/token -d client_secret=x1y2z3\nHTTP/1.1 401 {canary}\n\n{{\"error\":\"{canary}\"}}\n{canary}"
        ),
        format!("curl https://bank.example/oauth/token -d {canary}=1 -d client_secret=x1y2z3"),
    ];
    for text in odd {
        let out = learn(&[text.as_bytes()], None).map_or_else(|why| why, |bank| outputs(&bank));
        assert!(!out.contains(canary), "{text}\n{out}");
    }
}

/// A long secret as nobody would write it by chance.
const CANARY: &str = "cAnArY0xDEADBEEF77f00dc0ffee42";

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Samples that are cut, spoilt and overwritten cause no panic; a secret that is put anywhere never comes out.
    #[test]
    fn mutations_of_samples_neither_panic_nor_leak(
        which in 0..SAMPLES.len(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0_usize..40, 0_u8..5), 1..6),
    ) {
        let mut text = sample(SAMPLES[which]);
        for (at, length, kind) in cuts {
            let mut from = at.index(text.len().max(1));
            while !text.is_char_boundary(from) {
                from -= 1;
            }
            let mut to = (from + length).min(text.len());
            while !text.is_char_boundary(to) {
                to += 1;
            }
            match kind {
                0 => text.replace_range(from..to, ""),
                1 => text.insert_str(from, CANARY),
                2 => text.replace_range(from..to, CANARY),
                3 => text.insert_str(from, "{\"a\":[\"<x>\",\"\\u0000\"]}"),
                _ => {
                    // The value of a string, whole.
                    let begin = text.get(..from).and_then(|before| before.rfind('"')).map_or(from, |at| at + 1);
                    let end = text.get(begin..).and_then(|rest| rest.find('"')).map_or(begin, |at| begin + at);
                    text.replace_range(begin..end, CANARY);
                }
            }
        }
        let out = learn(&[text.as_bytes()], Some("newbank")).map_or_else(|why| why, |bank| outputs(&bank) + &rehearsed(&bank));
        prop_assert!(!out.to_lowercase().contains(&CANARY.to_lowercase()), "{out}");
    }

    #[test]
    fn arbitrary_texts_never_panic(text in "\\PC{0,400}") {
        let _ = learn(&[text.as_bytes()], None);
        let _ = learn(&[format!("curl {text}").as_bytes()], None);
        let _ = learn(&[format!("openapi: 3.0.0\n{text}").as_bytes()], None);
    }
}
