use proptest::prelude::*;

use super::draft::Draft;
use super::kind::{ImportKind, IncludedFiles, read_source};
use super::*;

/// A folder without files.
struct Empty;

impl IncludedFiles for Empty {
    fn read(&self, _: &str) -> Result<Vec<(String, String)>, String> {
        Err("there is no such file".to_owned())
    }
}

/// Everything that an import of this text would write or tell.
fn all_words(text: &str, wanted: Option<ImportKind>) -> String {
    let mut draft = Draft { file: "f".to_owned(), ..Draft::default() };
    let result = read_source(text, wanted, &Empty, &mut draft);
    draft.finish();
    let config = draft.config_text("f");
    let losses: Vec<String> = draft.losses.iter().map(super::draft::Loss::line).collect();
    format!("{result:?}\n{config}\n{}\n{:?}\n{:?}", losses.join("\n"), draft.needed, draft.profiles)
}

const KINDS: [ImportKind; 7] = [
    ImportKind::Envoy,
    ImportKind::Kong,
    ImportKind::Nginx,
    ImportKind::Apache,
    ImportKind::Agentgateway,
    ImportKind::Krakend,
    ImportKind::Spring,
];

/// The files of others that the tests have.
fn fixtures() -> Vec<(String, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/import");
    let mut found = Vec::new();
    for entry in fs::read_dir(&root).expect("the folder of sources") {
        let folder = entry.expect("readable").path();
        for entry in fs::read_dir(&folder).expect("a folder of sources") {
            let path = entry.expect("readable").path();
            let name = path.file_name().expect("a name").to_string_lossy().into_owned();
            if path.is_file() && !name.ends_with(".expected.toml") && !name.ends_with(".losses") {
                found.push((path.display().to_string(), fs::read_to_string(&path).expect("text")));
            }
        }
    }
    found
}

#[test]
fn no_source_has_its_secrets_in_what_is_written_or_told() {
    let sources = fixtures();
    let with_secrets = sources.iter().filter(|(_, text)| text.contains("CANARY")).count();
    assert!(sources.len() >= 14 && with_secrets >= 7, "{} sources, {with_secrets} with secrets", sources.len());
    for (name, text) in sources {
        let said = all_words(&text, None);
        assert!(!said.contains("CANARY"), "{name}: {said}");
    }
}

#[test]
fn a_source_that_is_cut_off_anywhere_ends_in_no_panic_and_tells_no_secret() {
    for (name, text) in fixtures() {
        for at in (0..text.len()).step_by(37).filter(|at| text.is_char_boundary(*at)) {
            let said = all_words(&text[..at], None);
            assert!(!said.contains("CANARY"), "{name} cut at {at}: {said}");
        }
    }
}

#[test]
fn a_source_that_is_said_to_be_another_gateways_ends_in_no_panic_and_tells_no_secret() {
    for (name, text) in fixtures() {
        for kind in KINDS {
            let said = all_words(&text, Some(kind));
            assert!(!said.contains("CANARY"), "{name} as {kind:?}: {said}");
        }
    }
}

#[test]
fn hostile_files_are_refused() {
    let mut bomb = "services: &a [x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 0..9 {
        let before = if level == 0 { "a".to_owned() } else { format!("b{}", level - 1) };
        let alias = format!("*{before}");
        bomb += &format!("k{level}: &b{level} [{}]\n", [alias.as_str(); 9].join(", "));
    }
    let deep = format!("services: {}1{}", "[".repeat(5000), "]".repeat(5000));
    let blocks = "server {".repeat(5000);
    let sections = "<VirtualHost *:80>\n".repeat(5000);
    for text in [bomb, deep, blocks, sections] {
        for kind in KINDS.map(Some).into_iter().chain([None]) {
            let mut draft = Draft { file: "f".to_owned(), ..Draft::default() };
            let _ = read_source(&text, kind, &Empty, &mut draft);
            assert!(draft.routes.is_empty());
        }
    }
}

#[test]
fn as_many_routes_as_are_read_end_in_time_and_the_others_are_named() {
    let mut kong = "_format_version: '3.0'\nservices:\n".to_owned();
    for service in 0..1000 {
        kong += &format!(
            "- {{name: s, url: 'https://api.bank{service}.example', routes: [{{hosts: [a{service}.x, b{service}.x], paths: [/a, /b]}}]}}\n"
        );
    }
    kong += "plugins:\n- {name: upstream-oauth, config: {oauth: {token_endpoint: 'https://l.x/t', client_id: x, client_secret: x}}}\n";
    for plugin in 0..1900 {
        kong += &format!("- {{name: p{plugin}, service: other}}\n");
    }
    let mut draft = Draft { file: "f".to_owned(), ..Draft::default() };
    read_source(&kong, None, &Empty, &mut draft).expect("a config");
    draft.finish();
    assert_eq!((draft.routes.len(), draft.providers.len()), (2000, 500));
    assert!(draft.losses.iter().any(|loss| loss.what == "further routes"));
    let crowd = format!("_format_version: '3.0'\nservices: [{}1]\n", "1, ".repeat(2000));
    let why = read_source(&crowd, None, &Empty, &mut draft).expect_err("too many");
    assert!(why.contains("f, line 2"), "{why}");
}

#[test]
fn every_config_of_a_source_passes_the_check() {
    for (name, text) in fixtures() {
        let mut draft = Draft { file: "f".to_owned(), ..Draft::default() };
        read_source(&text, None, &Empty, &mut draft).unwrap_or_else(|why| panic!("{name}: {why}"));
        if draft.routes.is_empty() {
            continue;
        }
        draft.finish();
        let config = draft.config_text("f");
        let found = mistakes(&draft, &config).expect("placeholders");
        let shown: Vec<String> = found.iter().map(|diagnostic| diagnostic.render(false)).collect();
        assert!(found.is_empty(), "{name}: {}\n{config}", shown.join("\n"));
    }
}

proptest! {
    #[test]
    fn no_lines_of_directives_end_in_a_panic(
        lines in proptest::collection::vec("(proxy_pass|location|server|listen|proxy_set_header|upstream|include|<Location|ProxyPass|RequestHeader) [ -~]{0,24}[;{}>]?", 0..12),
        kind in 2usize..4,
    ) {
        let _ = all_words(&lines.join("\n"), Some(KINDS[kind]));
    }

    #[test]
    fn values_of_the_wrong_shape_end_in_no_panic(
        source in 0usize..64,
        line in 0usize..200,
        value in "(\\[\\]|\\{\\}|null|1e9|\\[\\[a\\]\\]|\\{a: \\{b: c\\}\\}|\"\"|\"\\$\\{\"|\\.\\.|\\PC{0,12})",
    ) {
        let sources = fixtures();
        let (_, text) = &sources[source % sources.len()];
        let lines: Vec<String> = text.lines().map(str::to_owned).collect();
        let at = line % lines.len().max(1);
        let changed: Vec<String> = lines
            .iter()
            .enumerate()
            .map(|(number, line)| match line.split_once(": ") {
                Some((key, _)) if number == at => format!("{key}: {value}"),
                _ => line.clone(),
            })
            .collect();
        let said = all_words(&changed.join("\n"), None);
        prop_assert!(!said.contains("CANARY"), "{}", said);
    }

    #[test]
    fn what_looks_like_a_credential_is_in_no_header(
        name in "(X-Api-Key|Cookie|X-Token|X-Auth|X-Password|Authorization)",
        word in "[a-zA-Z0-9]{8,40}",
    ) {
        let word = format!("CANARY{word}");
        let kong = format!("_format_version: '3.0'\nservices:\n- name: a\n  url: https://api.bank.example\n  routes: [{{paths: [/a]}}]\n  plugins:\n  - name: upstream-oauth\n    config: {{oauth: {{token_endpoint: 'https://a.example/t', client_id: x, client_secret: {word}}}}}\n  - name: request-transformer\n    config: {{add: {{headers: ['{name}:{word}']}}}}\n");
        let said = all_words(&kong, None);
        prop_assert!(!said.contains("CANARY"), "{}", said);
        let nginx = format!("location /a {{ proxy_pass https://api.bank.example; proxy_set_header Authorization \"{word}\"; proxy_set_header {name} {word}; }}\n");
        let said = all_words(&nginx, None);
        prop_assert!(!said.contains("CANARY"), "{}", said);
        let httpd = format!("RequestHeader set Authorization \"Bearer {word}\"\nRequestHeader set {name} {word}\nProxyPass /a https://api.bank.example/a\n");
        let said = all_words(&httpd, None);
        prop_assert!(!said.contains("CANARY"), "{}", said);
    }
}
