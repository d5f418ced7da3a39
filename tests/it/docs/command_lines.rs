//! Command lines of countersign in the pages, put before the command line's own grammar.

use clap::error::ErrorKind;

use super::markdown::{Page, page, pages};
use super::typed::commands;

/// Words of a shell's block: their names stand for values that the reader has.
const STAND_INS: [(&str, &str); 2] = [("URL", "https://localhost:8443/"), ("PID", "4711")];

/// Texts in backquotes that are no command lines: the audit log derives its keys from them.
const LABELS: [&str; 2] = ["countersign audit key", "countersign audit values"];

fn parse(words: &[String]) -> Result<(), clap::Error> {
    countersign::cli::command_line().try_get_matches_from(words).map(drop)
}

/// A command line in a sentence may be a part of one, or a synopsis: `countersign run [-c FILE]`.
fn parse_in_sentence(code: &str) -> Result<(), clap::Error> {
    let code = code.replace(['[', ']', '…'], " ").replace("help COMMAND", "help check");
    // Of alternatives the first is taken; a redirection and what reads from a pipe belong to the shell.
    let words = code
        .split(" > ")
        .next()
        .and_then(|code| code.split(" | ").next())
        .unwrap_or_default()
        .split_whitespace()
        .map(|word| word.split('|').next().unwrap_or_default().to_owned());
    let words: Vec<String> = words.filter(|word| !word.is_empty()).collect();
    match parse(&words) {
        Err(error) if !matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand) => Ok(()),
        done => done,
    }
}

/// Sample configs are blocks as a whole: a comment's backquotes hold code.
fn sample_configs() -> Vec<Page> {
    ["proxy.toml", "examples/many-banks.toml", "examples/forward.toml", "examples/users.toml"].map(page).into()
}

#[test]
fn every_command_in_the_pages_exists_with_its_options() {
    let (mut wrong, mut in_blocks, mut in_sentences) = (Vec::new(), 0, 0);
    for page in pages() {
        for fence in page.fences() {
            if !["sh", "console", "bash"].contains(&fence.info.as_str()) {
                continue;
            }
            for mut words in commands(&fence.text) {
                if words[0].rsplit('/').next() != Some("countersign") {
                    continue;
                }
                in_blocks += 1;
                for (name, value) in STAND_INS {
                    words.iter_mut().filter(|word| word.as_str() == name).for_each(|word| value.clone_into(word));
                }
                let fine = match parse(&words) {
                    Err(error) if [ErrorKind::DisplayHelp, ErrorKind::DisplayVersion].contains(&error.kind()) => Ok(()),
                    done => done,
                };
                if let Err(error) = fine {
                    wrong.push(format!("{}:{}: {}: {error}", page.path, fence.line, words.join(" ")));
                }
            }
        }
    }
    for page in pages().into_iter().chain(sample_configs()) {
        for (line, text) in page.prose() {
            for code in text.split('`').skip(1).step_by(2).filter(|code| code.starts_with("countersign ")) {
                let word = code.split_whitespace().nth(1).unwrap_or_default();
                if !word.starts_with(|c: char| c.is_ascii_lowercase() || c == '-') || LABELS.contains(&code) {
                    continue;
                }
                in_sentences += 1;
                if let Err(error) = parse_in_sentence(code) {
                    wrong.push(format!("{}:{line}: {code}: {error}", page.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(in_blocks > 60 && in_sentences > 150, "{in_blocks}, {in_sentences}");
}

#[test]
fn a_wrong_option_in_a_sentence_is_found() {
    assert!(parse_in_sentence("countersign audit verify FILE… [--alone]").is_ok());
    assert!(parse_in_sentence("countersign ca new|show").is_ok());
    assert!(parse_in_sentence("countersign run --dyr").is_err());
    assert!(parse_in_sentence("countersign status --csv").is_err());
    assert!(parse_in_sentence("countersign ca nwe").is_err());
}
