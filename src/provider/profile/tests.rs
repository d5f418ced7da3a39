use proptest::prelude::*;

use super::*;
use crate::syntax::Diagnostic;

fn mistakes(text: &str) -> Vec<String> {
    let report = Diagnostics::new();
    let profile = Profile::parse(&SourceText::new("bank.toml", text), &report);
    let found: Vec<String> = report.into_diagnostics().iter().map(Diagnostic::one_line).collect();
    assert_eq!(profile.is_none(), !found.is_empty(), "{found:?}");
    found
}

#[test]
fn every_built_in_profile_is_right_and_bears_its_own_name() {
    for name in Profile::builtin_names() {
        let text = Profile::builtin_text(name).expect("its text");
        assert_eq!(mistakes(text), Vec::<String>::new());
        let profile = Profile::builtin(name).expect("a profile");
        assert_eq!(profile.name(), name);
        assert!(!profile.title().is_empty());
        assert!(profile.unconfirmed().iter().all(|line| line.split(": ").nth(1).is_some_and(|note| !note.is_empty())));
    }
    assert!(Profile::builtin("nobody").is_none());
    assert_eq!(Profile::builtin("scb").expect("scb").environments(), ["sandbox", "uat", "production"]);
    assert_eq!(Profile::builtin("abbeycross").expect("abbeycross").unconfirmed().len(), 4);
}

#[test]
fn every_mistake_in_a_profile_is_found_at_once() {
    let text = r#"name = "a bank"
consnt = {}
guarded = ["v1/refresh"]
[settings.Key]
[settings.token]
[settings.tls]
[settings.secret]
secret = true
default = "x"
[settings.id]
pattern = "(["
[environments.prod]
base_url = "http://bank.example"
[token]
success = [{ pointer = "status.code", equals = 1 }]
[token.request]
method = "PSOT"
path = "v1/token"
encoding = "jsn"
headers = { host = "x", "a b" = "y" }
body = { id = "{idd}", t = "{token}" }
[token.response]
acces_token = "/t"
[[token.failure]]
status = 4000
class = "bad"
cause = "singature"
rest_ceiling = "1s"
[request]
inject = [
  { header = "x-a", value = "{id} {token} {uuid}" },
  { header = "x-a", value = "{now_epoch}" },
  { header = "x-b", value = "b", client = "keep" },
  { header = "authorization", value = "{id}", client = "keep", pattern = ".*" },
]
[[refusal.match]]
status = [401, 500]
json = [{ pointer = "/a" }]
[[refusal.match]]
status = 401
[[refusal.exclude]]
bare = true
"#;
    let found = mistakes(text);
    let expected = [
        "1:8: error: a profile's name has letters",
        "2:1: error: unknown key `consnt` in the profile; did you mean `consent`?",
        "3:11: error: a guarded path starts with `/`",
        "4:11: error: \"Key\" is no name for a setting",
        "5:11: error: \"token\" is a placeholder already",
        "6:11: error: \"tls\" is a key of every provider already",
        "9:11: error: a secret has no default",
        "11:11: error: not a regular expression",
        "13:12: error: `base_url` is wrong: the scheme is `http`",
        "15:24: error: a JSON pointer starts with `/`; write `\"/status/code\"`",
        "17:10: error: `PSOT` is not known here; did you mean `\"POST\"`?",
        "18:8: error: a path starts with `/`",
        "19:12: error: `jsn` is not known here; did you mean `\"json\"`?",
        "20:13: error: `host` belongs to the connection",
        "20:25: error: \"a b\" is not a header name",
        "21:16: error: unknown placeholder `{idd}`; did you mean `{id}`?",
        "21:29: error: `{token}` cannot stand here",
        "23:1: error: unknown key `acces_token` in [token.response]; did you mean `access_token`?",
        "25:10: error: not an HTTP status",
        "26:9: error: `bad` is not known here",
        "27:9: error: `singature` is not known here; did you mean `\"signature\"`?",
        "28:16: error: `rest_ceiling` needs a `rest`",
        "31:3: error: these placeholders cannot share a header",
        "32:3: error: `x-a` is injected twice",
        "33:3: error: an `inject` entry has no `pattern`",
        "34:3: error: a client's own credential is never kept",
        "37:10: error: only a 4xx can prove",
        "38:9: error: the JSON condition asks for nothing",
        "39:1: error: [[refusal.match]] would match every such answer",
        "41:1: error: [[refusal.exclude]] has no `status`",
    ];
    for (at, wanted) in expected.iter().enumerate() {
        let wanted = format!("bank.toml:{wanted}");
        assert!(found.get(at).is_some_and(|line| line.starts_with(&wanted)), "{wanted}\nin\n{}", found.join("\n"));
    }
    assert_eq!(found.len(), expected.len(), "{}", found.join("\n"));
}

/// `explain`, `check --live` and logs show URLs.
#[test]
fn no_path_names_a_secret() {
    let rest = "[token]\nresponse = { access_token = \"/t\" }\n[request]\n\
                    inject = [{ header = \"authorization\", value = \"Bearer {token}\" }]\n\
                    [token.request]\nencoding = \"none\"\n";
    let text = |path: &str| {
        format!("name = \"a\"\n[settings.tenant]\n[settings.key]\nsecret = true\n{rest}path = \"{path}\"\n")
    };
    assert_eq!(mistakes(&text("/{tenant}/token")), Vec::<String>::new());
    let found = mistakes(&text("/{tenant}/{key}/token"));
    assert!(matches!(&*found, [one] if one.contains("a path names no secret")), "{found:?}");
}

#[test]
fn every_mistake_in_a_consent_is_found_at_once() {
    let text = r#"name = "a"
[settings.id]
[settings.key]
secret = true
[token]
request = { encoding = "form" }
response = { access_token = "/t" }
[request]
inject = [{ header = "authorization", value = "Bearer {token}" }]
[consent]
code_lif = "60s"
[consent.params."a b"]
[consent.params.mode]
pattern = "x|y"
default = "z"
[consent.authorize]
method = "POST"
encoding = "query"
body = { key = "{key}", code = "{consent.code}", v = "{var.a}", m = "{param.mod}", s = "{consent.stat}" }
[consent.callback]
stat = "x"
[consent.exchange]
encoding = "form"
body = { r = "{consent.refresh_token}", c = "{consent.challenge}", t = "{token}" }
[consent.refresh]
encoding = "form"
[consent.response]
captures = { user = "x-user" }
[consent.request]
inject = [{ header = "x-a", value = "{captured.usr}" }, { header = "x-b", value = "{consent.state}" }]
"#;
    let found = mistakes(text);
    let expected = [
        "10:1: error: [consent] has no `dead`",
        "11:1: error: unknown key `code_lif` in [consent]; did you mean `code_life`?",
        "12:17: error: \"a b\" is no name for a parameter",
        "15:11: error: the default does not match the pattern",
        "19:33: error: `{consent.code}` cannot stand here",
        "19:55: error: `{var.a}` cannot stand here; a consent belongs to no route",
        "19:70: error: unknown placeholder `{param.mod}`; did you mean `{param.mode}`?",
        "19:89: error: unknown placeholder `{consent.stat}`; known here: consent.challenge",
        "21:1: error: unknown key `stat` in [consent.callback]; did you mean `state`?",
        "24:15: error: `{consent.refresh_token}` cannot stand here",
        "24:46: error: `{consent.challenge}` cannot stand here",
        "24:73: error: `{token}` cannot stand here",
        "25:1: error: nothing says where an answer holds the refresh token",
        "30:38: error: nothing is captured as `usr`",
        "30:84: error: `{consent.state}` cannot stand here",
    ];
    let missing: Vec<&&str> = expected
        .iter()
        .filter(|wanted| !found.iter().any(|line| line.starts_with(&format!("bank.toml:{wanted}"))))
        .collect();
    assert!(missing.is_empty(), "{missing:#?}\nin\n{}", found.join("\n"));
}

/// A secret in a URL that a browser opens is no secret.
#[test]
fn no_browser_is_shown_a_secret() {
    let text = Profile::builtin_text("oauth2").expect("oauth2");
    let told = text.replacen("response_type         = \"code\"", "secret = \"{client_secret}\"", 1);
    let found = mistakes(&told);
    assert!(found.iter().any(|line| line.contains("a browser would be shown a secret")), "{found:?}");
    let posted = text.replacen(
        "method   = \"GET\"\nencoding = \"query\"\n\n[consent.authorize.body]",
        "method   = \"POST\"\nencoding = \"query\"\n\n[consent.authorize.body]",
        1,
    );
    let found = mistakes(&posted);
    assert!(found.iter().any(|line| line.contains("a browser cannot make this request")), "{found:?}");
}

#[test]
fn parameters_of_a_consent_are_checked_against_the_profile() {
    let read = |profile: &str, text: &str| {
        let report = Diagnostics::new();
        let node = Node::parse(&SourceText::new("p", text), &report);
        let params = Profile::builtin(profile).expect(profile).read_consent_params(Some(&node), &report);
        let found: Vec<String> = report.into_diagnostics().iter().map(Diagnostic::one_line).collect();
        assert_eq!(params.is_none(), !found.is_empty(), "{found:?}");
        found.join("\n")
    };
    assert_eq!(read("scb", "endState = \"mobile_web\"\napplicationId = \"x\""), "");
    assert_eq!(read("oauth2", "prompt = \"consent\""), "");
    for (profile, text, reason) in [
        ("scb", "endStat = \"x\"", "did you mean `endState`?"),
        ("scb", "endState = \"app\"", "does not have the form"),
        ("scb", "applicationId = \"a\\r\\nb\"", "a header cannot carry"),
        ("scb", "redirectOption = \"\"", "is empty"),
        ("oauth2", "state = \"x\"", "part of the authorize request already"),
        ("oauth2", "Redirect_URI = \"x\"", "part of the authorize request already"),
        ("oauth2", "prompt = 1", "expected a string"),
    ] {
        let found = read(profile, text);
        assert!(found.contains(reason), "{text}: {found}");
    }
}

#[test]
fn a_missing_table_is_one_mistake() {
    let found = mistakes(
        "name = \"a\"\n[request]\ninject = [{ header = \"x-api-key\", value = \"k\" }]\n[consent]\ncode_life = \"1s\"\n",
    );
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("users consent to tokens, and this profile has no [token]"), "{found:?}");
}

#[test]
fn a_profile_that_could_never_work_is_refused() {
    let base = "name = \"a\"\n[settings.t]\nkind = \"table\"\n[token.request]\nencoding = \"json\"\n\
                    [token.response]\naccess_token = \"/t\"\n";
    for (rest, title) in [
        ("", "the profile has no `request`"),
        ("[request]\ninject = [{ header = \"a\", value = \"b\" }]", "the token is put nowhere"),
        (
            "[request]\ninject = [{ header = \"a\", value = \"{token}\" }, { header = \"A\", value = \"b\" }]",
            "`a` is injected twice",
        ),
        (
            "[request]\ninject = [{ header = \"a\", value = \"{token}\" }]\n[token.request.body]\nx = \"a{t}\"",
            "a table stands alone in its field",
        ),
        (
            "[request]\ninject = [{ header = \"a\", value = \"{t}{captured.x}\" }]",
            "`t` is a table; only a body's field can be one",
        ),
    ] {
        let found = mistakes(&format!("{base}{rest}"));
        assert!(found.iter().any(|line| line.contains(title)), "{title}\nin\n{}", found.join("\n"));
    }
    assert!(mistakes("").iter().any(|line| line.contains("the profile has no `request`")));
}

/// A profile with a setting, a secret, a time, two ids, a token, and these further lines.
fn generating(rest: &str) -> Vec<String> {
    mistakes(&format!(
        "name = \"a\"\n[settings.id]\n[settings.key]\nsecret = true\n[times.day]\nformat = \"%Y%m%d\"\n\
             [times.call]\nformat = \"epoch\"\nfresh = \"call\"\n[ids.once]\nkind = \"numeric\"\nlength = 18\n\
             fresh = \"call\"\n[ids.each]\nkind = \"numeric\"\nlength = 18\nfresh = \"attempt\"\n\
             [ids.usual]\nkind = \"uuid\"\n[token]\nrequest = {{ path = \"/t\", encoding = \"none\" }}\n\
             response = {{ access_token = \"/t\" }}\n{rest}\n"
    ))
}

fn injecting(entries: &str, more: &str) -> Vec<String> {
    generating(&format!(
        "[request]\ninject = [{{ header = \"authorization\", value = \"Bearer {{token}}\" }}, {entries}]\n{more}"
    ))
}

#[test]
fn a_payment_keeps_its_identity_on_the_replay() {
    for (value, replay_id, is_fine) in [
        ("{uuid}", "renew", false),
        ("{uuid}", "keep", true),
        ("{id.usual}", "renew", false),
        ("{id.usual}", "keep", true),
        ("{id.each}", "keep", false),
        ("{id.once}", "renew", true),
        ("{time.day}{id.once}", "renew", false),
        ("{time.call}-{id.once}", "renew", true),
    ] {
        for name in ["header = \"idempotency-key\"", "query = \"x_IdempotencyId\"", "header = \"PayPal-Request-Id\""] {
            let (is_query, draws) = (name.starts_with("query"), value == "{uuid}");
            let found =
                injecting(&format!("{{ {name}, value = \"{value}\" }}"), &format!("replay_id = \"{replay_id}\""));
            let told = found.iter().any(|line| line.contains("the bank would take it for another payment"));
            assert_eq!(!told, is_fine, "{name} {value} {replay_id}: {found:?}");
            assert_eq!(found.is_empty(), is_fine && !(is_query && draws), "{name} {value} {replay_id}: {found:?}");
        }
    }
    assert!(injecting("{ header = \"x-request-id\", value = \"{id.each}\" }", "").is_empty());
}

#[test]
fn no_two_payments_have_one_identity() {
    for (value, is_fine) in [
        ("{id}", false),
        ("{key}", false),
        ("{token}", false),
        ("always", false),
        ("{id}-always", false),
        ("{var.order}", true),
        ("{time.call}", true),
        ("{id}-{id.once}", true),
    ] {
        for name in ["header = \"idempotency-key\"", "query = \"x_IdempotencyId\"", "header = \"PayPal-Request-Id\""] {
            let found = injecting(&format!("{{ {name}, value = \"{value}\" }}"), "");
            let told = found.iter().any(|line| line.contains("every payment would have the same"));
            assert_eq!(!told, is_fine, "{name} {value}: {found:?}");
            assert_eq!(found.is_empty(), is_fine, "{name} {value}: {found:?}");
        }
    }
    // A client's own that is kept is no way out: the others are one payment even so.
    let kept = injecting("{ header = \"idempotency-key\", value = \"x\", client = \"keep\", pattern = \".+\" }", "");
    assert!(kept.iter().any(|line| line.contains("every payment would have the same")), "{kept:?}");
    assert!(injecting("{ header = \"x-partner-id\", value = \"{id}\" }", "").is_empty());
}

#[test]
fn mistakes_in_what_is_injected_are_told() {
    assert_eq!(
        injecting("{ cookie = \"node\", value = \"{id}\" }, { query = \"key\", value = \"{key}{time.day}\" }", ""),
        Vec::<String>::new()
    );
    for (entry, more, title) in [
        ("{ header = \"a\", query = \"b\", value = \"c\" }", "", "an `inject` entry has one place"),
        ("{ cookie = \"a b\", value = \"c\" }", "", "is not the name of a cookie"),
        ("{ query = \"\", value = \"c\" }", "", "is not the name of a query parameter"),
        ("{ cookie = \"a\", value = \"{id}\", client = \"keep\", pattern = \".\" }", "", "only a header of a client"),
        ("{ cookie = \"a\", value = \"{id}\" }, { header = \"cookie\", value = \"b\" }", "", "holds all cookies"),
        ("{ query = \"a\", value = \"{id}\" }, { query = \"a\", value = \"b\" }", "", "`query a` is injected twice"),
        ("{ query = \"a\", value = \"{uuid}\" }", "", "only a header can hold an identifier that is not declared"),
        ("{ header = \"a\", value = \"{token}{time.day}\" }", "", "cannot share a header"),
        ("{ header = \"a\", value = \"{uuid}{now_epoch}\" }", "replay_id = \"keep\"", "stays on the replay"),
        (
            "{ header = \"a\", value = \"x\", basic = { id = \"{id}\", secret = \"{key}\" } }",
            "",
            "`basic` is the value already",
        ),
        ("{ query = \"a\", basic = { id = \"{id}\", secret = \"{key}\" } }", "", "only a header holds HTTP Basic"),
        ("{ header = \"a\", basic = { id = \"{id}\", secret = \"{token}\" } }", "", "`{token}` cannot stand here"),
        ("{ header = \"a\", basic = { id = \"{id}\" } }", "", "`basic` has no `secret`"),
        ("{ header = \"a\", value = \"{time.dya}\" }", "", "no time is called `dya`"),
        ("{ header = \"a\", value = \"{step.x}\" }", "", "no step before captures `x`"),
    ] {
        let found = injecting(entry, more);
        assert!(found.iter().any(|line| line.contains(title)), "{title}\nin\n{}", found.join("\n"));
    }
}

#[test]
fn a_profile_without_a_token_has_a_static_credential() {
    let text = |rest: &str| {
        format!(
            "name = \"a\"\n[settings.key]\nsecret = true\n[request]\ninject = [{{ header = \"x-key\", value = \"{{key}}\" }}]\n{rest}"
        )
    };
    assert_eq!(mistakes(&text("")), Vec::<String>::new());
    let found = mistakes(&text("[[refusal.match]]\nstatus = 401\nbare = true\n"));
    assert!(found.len() == 1 && found[0].contains("only a token can be refused"), "{found:?}");
    let found = mistakes("name = \"a\"\n[request]\ninject = [{ header = \"a\", value = \"{token}\" }]\n");
    assert!(found.len() == 1 && found[0].contains("without a [token] there is none"), "{found:?}");
}

#[test]
fn steps_of_a_login_name_what_earlier_ones_capture() {
    let text = |steps: &str, body: &str| {
        format!(
            "name = \"a\"\n{steps}[token.request]\npath = \"/t\"\nencoding = \"form\"\nbody = {{ a = \"{body}\" }}\n\
                 [token.response]\naccess_token = \"/t\"\n\
                 [request]\ninject = [{{ header = \"authorization\", value = \"{{token}}\" }}]\n"
        )
    };
    let step = |body: &str, captures: &str| {
        format!("[[token.steps]]\npath = \"/s\"\nencoding = \"json\"\nbody = {{ b = \"{body}\" }}\n{captures}\n")
    };
    let first = step("x", "captures = { ticket = \"/ticket\" }");
    assert_eq!(mistakes(&text(&first, "{step.ticket}")), Vec::<String>::new());
    let second = step("{step.ticket}", "captures = { other = { cookie = \"c\" } }");
    assert_eq!(mistakes(&text(&format!("{first}{second}"), "{step.ticket}{step.other}")), Vec::<String>::new());
    for (steps, body, title) in [
        (step("{step.ticket}", "captures = { ticket = \"/ticket\" }"), "x", "no step before captures `ticket`"),
        (step("x", ""), "x", "[[token.steps]] has no `captures`"),
        (step("x", "captures = { t = 1 }"), "x", "a capture names a place in the answer"),
        (step("x", "captures = { t = { cookie = \"a\", header = \"b\" } }"), "x", "a capture has one source"),
        (format!("{first}{first}"), "x", "captures something as `ticket` already"),
        (first.repeat(5).replacen("ticket", "t", 2), "x", "a login has 4 steps at most"),
    ] {
        let found = mistakes(&text(&steps, body));
        assert!(found.iter().any(|line| line.contains(title)), "{title}\nin\n{}", found.join("\n"));
    }
}

#[test]
fn a_profile_whose_proofs_would_be_worth_nothing_is_refused() {
    let good = "name = \"a\"\n[settings.id]\n[settings.secret_key]\nsecret = true\n[settings.key]\nkind = \"key\"\n\
                    [dpop]\nkey = \"key\"\nalgorithm = \"ES256\"\n[token]\nrequest = { path = \"/t\", encoding = \"none\" }\n\
                    response = { access_token = \"/t\", token_type = \"/k\", token_types = \"dpop\" }\n[request]\n\
                    inject = [{ header = \"authorization\", value = \"DPoP {token}\" }]\n";
    assert_eq!(mistakes(good), Vec::<String>::new());
    let covers = "[[request.sign]]\nkey = \"key\"\nalgorithm = \"ES256\"\nheader = \"x-s\"\ntext = \"{header.dpop}\"\n";
    assert_eq!(mistakes(&format!("{good}{covers}")), Vec::<String>::new(), "a signature may cover the proof");
    for (wrong, text, title) in [
        ("key = \"key\"", "key = \"kye\"", "bank.toml:8:7: error: no setting is called `kye`; did you mean `\"key\"`?"),
        ("key = \"key\"", "", "bank.toml:7:1: error: [dpop] has no `key`"),
        ("key = \"key\"", "key = \"secret_key\"", "bank.toml:9:13: error: ES256 needs an EC key on P-256"),
        ("ES256", "HS256", "bank.toml:8:7: error: a proof is signed with a private key"),
        ("ES256", "none", "bank.toml:9:13: error: `none` is no algorithm here"),
        ("kind = \"key\"", "kind = \"key\"\noptional = true", "error: without `key` there would be no proof"),
        ("DPoP {", "Bearer {", "bank.toml:14:10: error: a token that is bound to a key is presented as one"),
        ("DPoP {", "DPoP{", "a token that is bound to a key is presented as one; write `{ header"),
        ("authorization", "x-token", "a token that is bound to a key is presented as one"),
        (
            " }]\n",
            " }, { header = \"dpop\", value = \"{id}\" }]\n",
            "the header `dpop` holds the proof that [dpop] makes",
        ),
        ("\"dpop\" }", "[\"DPoP\", \"Bearer\"] }", "bank.toml:10:1: error: a token that is bound to no key would pass"),
        (", token_types = \"dpop\"", "", "say `token_type = \"/token_type\"` and `token_types = \"DPoP\"`"),
        ("algorithm = \"ES256\"\n", "algorithm = \"ES256\"\nnonce = true\n", "unknown key `nonce` in [dpop]"),
    ] {
        let found = mistakes(&good.replacen(wrong, text, 1)).join("\n");
        assert!(found.contains(title), "{wrong} → {text}: {title}\nin\n{found}");
    }
    let standing = "name = \"a\"\n[settings.key]\nkind = \"key\"\n[settings.api_key]\nsecret = true\n[dpop]\n\
                        key = \"key\"\nalgorithm = \"ES256\"\n[request]\n\
                        inject = [{ header = \"x-key\", value = \"{api_key}\" }]\n";
    let found = mistakes(standing).join("\n");
    assert!(found.contains("bank.toml:6:1: error: a proof shows the key to which a token is bound"), "{found}");
}

#[test]
fn a_pushed_request_and_the_browsers_request_go_together() {
    let good = "name = \"a\"\nextends = \"oauth2\"\n[consent.push]\nencoding = \"form\"\n[consent.push.body]\n\
                    code_challenge = \"{consent.challenge}\"\ncode_challenge_method = \"S256\"\n\
                    authorization_details = { json = [{ type = \"t\", of = { id = \"{client_id}\" } }] }\n\
                    [consent.authorize.body]\nrequest_uri = \"{consent.request_uri}\"\n\
                    [consent.callback]\nissuer = \"https://bank.example\"\n";
    assert_eq!(mistakes(good), Vec::<String>::new());
    for (wrong, text, title) in [
        ("{consent.request_uri}", "urn:x", "the browser's request does not name the one that was pushed"),
        ("\"S256\"", "\"plain\"", "error: the provider would take the challenge for the verifier itself"),
        ("code_challenge_method = \"S256\"\n", "", "add `code_challenge_method = \"S256\"`"),
        (
            "\"{consent.challenge}\"",
            "\"{consent.request_uri}\"",
            "`{consent.request_uri}` cannot stand here; it is known in",
        ),
        ("\"{consent.challenge}\"", "\"{consent.verifier}\"", "`{consent.verifier}` cannot stand here"),
        ("{ json = [", "{ jsn = [", "only JSON can carry a table"),
        ("\"https://bank.example\"", "\"{consent.state}\"", "`{consent.state}` cannot stand here"),
        ("encoding = \"form\"\n", "encoding = \"form\"\nopens = \"/u\"\n", "unknown key `opens` in [consent.push]"),
    ] {
        let found = mistakes(&good.replacen(wrong, text, 1)).join("\n");
        assert!(found.contains(title), "{wrong} → {text}: {title}\nin\n{found}");
    }
    let (_, authorize) = good.split_once("[consent.authorize.body]").expect("a part");
    let without = format!("name = \"a\"\nextends = \"oauth2\"\n[consent.authorize.body]{authorize}");
    let found = mistakes(&without).join("\n");
    assert!(found.contains("nothing is pushed, so there is no `{consent.request_uri}`; add [consent.push]"), "{found}");
}

#[test]
fn another_status_refuses_a_token_only_with_a_confirmed_code() {
    let found = |entry: &str| {
        injecting("", &format!("[[refusal.match]]\n{entry}\n")).into_iter().find(|line| line.contains("only a 4xx"))
    };
    let code = "json = [{ pointer = \"/code\", equals = \"E7\" }]";
    assert_eq!(found(&format!("status = [200, 500]\n{code}\nconfirmed = true")), None);
    for (entry, help) in [
        (format!("status = [200]\n{code}"), "confirmed = true"),
        (format!("status = [500]\n{code}\nconfirmed = false"), "confirmed = true"),
        (format!("status = [302]\n{code}\nconfirmed = true"), "a redirect"),
        ("status = 200\nbody = [{ matches = \"expired\" }]\nconfirmed = true".to_owned(), "a code in the body"),
        (format!("status = 200\n{}\nconfirmed = true", code.replace("equals", "absent = true, equals")), "a code in"),
    ] {
        let told = found(&entry).unwrap_or_else(|| panic!("{entry}"));
        assert!(told.contains(help), "{entry}: {told}");
    }
}

#[test]
fn mistakes_in_a_profile_that_extends_another_point_into_the_right_file() {
    let found = mistakes(
        "name = \"mine\"\nextends = \"scb\"\n[token.request]\nencoding = \"form\"\n\
                              [token.request.body]\nx = { y = \"{applicaton_key}\" }\n[settings.application_key]\nkind = \"table\"\n",
    );
    let all = found.join("\n");
    assert!(
        found.contains(
            &"bank.toml:6:12: error: unknown placeholder `{applicaton_key}`; did you mean \
                                 `{application_key}`?"
                .to_owned()
        ),
        "{all}"
    );
    assert!(found.iter().any(|line| line.starts_with("bank.toml:6:5: error: only JSON can carry")), "{all}");
    let line = 1 + Profile::builtin_text("scb")
        .expect("scb")
        .lines()
        .position(|line| line.starts_with("resourceOwnerId"))
        .expect("the line that names the key");
    assert!(
        found
            .iter()
            .any(|found| found.starts_with(&format!("profile scb:{line}:20: error: `application_key` is a table"))),
        "{all}"
    );
    assert_eq!(
        mistakes("name = \"mine\"\nextends = \"sbc\"\n"),
        ["bank.toml:2:11: error: `extends` names no built-in profile; did you mean `\"scb\"`?"]
    );
}

#[test]
fn a_mistaken_parent_hides_no_other_mistake() {
    let found = mistakes("name = \"mine\"\nextends = \"sbc\"\ntitel = \"Mine\"\n");
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[1].contains("unknown key `titel`"), "{found:?}");
    assert_eq!(mistakes("name = \"mine\"\nextends = 7\n").len(), 1);
}

proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in any::<String>()) {
        let _ = Profile::parse(&SourceText::new("any", text), &Diagnostics::new());
    }

    #[test]
    fn a_profile_cut_off_anywhere_never_panics(at in 0_usize..4000) {
        let text = Profile::builtin_text("scb").expect("scb");
        let text: String = text.chars().take(at).collect();
        let _ = Profile::parse(&SourceText::new("any", text), &Diagnostics::new());
    }
}

#[test]
fn a_child_of_a_child_has_what_its_first_parent_has() {
    assert_eq!(mistakes("name = \"mine\"\nextends = \"bri\"\n"), Vec::<String>::new());
}

/// Two signatures for one place are told apart by the method alone.
#[test]
fn signatures_of_methods_may_share_a_place_only_if_they_share_no_method() {
    let profile = |one: &str, other: &str| {
        let sign = |methods: &str, text: &str| {
            format!(
                "[[request.sign]]\nkey = \"k\"\nalgorithm = \"HS256\"\nheader = \"x-sign\"\ntext = \"{text}\"\n{methods}\n"
            )
        };
        format!(
            "name = \"a\"\n[settings.k]\nsecret = true\n[request]\ninject = []\n{}{}",
            sign(one, "{path}"),
            sign(other, "{path}{body}")
        )
    };
    let told = |one: &str, other: &str| mistakes(&profile(one, other)).join("\n");
    assert_eq!(told("methods = \"GET\"", "methods = [\"POST\", \"PUT\"]"), "");
    for (one, other, said) in [
        ("", "", "signed twice"),
        ("", "methods = \"GET\"", "signed twice"),
        ("methods = [\"GET\", \"PUT\"]", "methods = [\"POST\", \"PUT\"]", "signed twice"),
        ("methods = []", "methods = \"POST\"", "no methods"),
        ("methods = \"get\"", "methods = \"POST\"", "no methods"),
    ] {
        assert!(told(one, other).contains(said), "{one} {other}: {}", told(one, other));
    }
}
