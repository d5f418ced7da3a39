use super::*;
use crate::base::secret::ExposeSecret as _;

const PLAIN: &str = r#"
settings = { client_id = "{digits:8}", client_secret = { secret = "{hex32}" }, key = { key = "p256", id = "k-1" } }
[token]
path = "/token"
expect = [{ basic = ["{client_id}", "{client_secret}"] }]
answer = { json = { access_token = "{token}", expires_in = "{life}" } }
[call]
token = { header = "authorization", value = "Bearer {token}" }
answer = { json = { ok = true } }
"#;

fn mistake(change: impl Fn(&str) -> String) -> String {
    BankFile::parse("x", &change(PLAIN)).err().unwrap_or_default()
}

#[test]
fn every_file_that_comes_along_is_read() {
    for (name, text) in BUILTIN {
        if let Err(error) = BankFile::parse(name, text) {
            panic!("src/sim/banks/{name}.toml: {error}");
        }
    }
    assert_eq!(BankFile::all().len(), BUILTIN.len());
}

#[test]
fn mistakes_are_told_with_what_they_are_about() {
    assert_eq!(mistake(str::to_owned), "");
    let told = [
        (mistake(|text| text.replace("path = \"/token\"", "path = \"/token\"\nway = 1")), "unknown field `way`"),
        (mistake(|text| text.replace("Bearer {token}\" }", "Bearer\" }")), "no {token} in its value"),
        (mistake(|text| text.replace("{ basic =", "{ header = \"x\", basic =")), "names 2: header x"),
        (mistake(|text| text.replace("basic = [\"{client_id}\", \"{client_secret}\"]", "equals = \"1\"")), "names 0"),
        (
            mistake(|text| {
                text.replace(
                    "{ basic = [\"{client_id}\", \"{client_secret}\"] }",
                    "{ header = \"x\", matches = \"(\" }",
                )
            }),
            "header x",
        ),
        (
            mistake(|text| {
                text.replace(
                    "{ basic = [\"{client_id}\", \"{client_secret}\"] }",
                    "{ jws = { header = \"x\", key = \"kee\" } }",
                )
            }),
            "\"kee\"",
        ),
        (mistake(|text| format!("life = \"1 day\"\n{text}")), "such as \"15m\""),
    ];
    for (told, wanted) in told {
        assert!(told.contains(wanted), "{told:?} does not say {wanted:?}");
    }
}

#[test]
fn settings_are_drawn_and_secrets_masked() {
    let file = BankFile::parse("plain", PLAIN).expect("a file");
    let memory = SimMemory::default();
    let drawn = file.draw(&memory).expect("settings");
    let lines = drawn.lines("plain", SimSecretPlace::Line);
    let again = file.draw(&memory).expect("settings");
    assert_eq!(again.lines("plain", SimSecretPlace::Line), lines, "it is remembered");
    let named = again.lines("plain", SimSecretPlace::File);
    assert!(named.contains("client_secret = { file = \"plain-client_secret\" }"), "{named}");
    let written = again.files("plain", SimSecretPlace::File);
    let secret = written.iter().find(|(name, _)| name == "plain-client_secret").expect("its file");
    assert!(lines.contains(&format!("client_secret = \"{}\"", secret.1.expose_secret())), "{lines}");
    assert!(lines.contains("key = { file = \"plain-key.pem\", id = \"k-1\" }"), "{lines}");
    let id = lines.lines().find_map(|line| line.strip_prefix("client_id = ")).expect("an identifier");
    assert!(id.len() == 10 && id[1..9].bytes().all(|byte| byte.is_ascii_digit()), "{id}");
    let masked = drawn.mask(&lines);
    let secret = lines.lines().find_map(|line| line.strip_prefix("client_secret = ")).expect("a secret");
    assert!(!masked.contains(secret.trim_matches('"')) && masked.contains("‹secret "), "{masked}");
    assert!(drawn.files("plain", SimSecretPlace::Line)[0].1.expose_secret().starts_with("-----BEGIN PRIVATE KEY-----"));
}
