//! `docs/clients.md`, read: what it tells people to run.

use std::fs;
use std::path::Path;

const EXEC: &str = "All of them at once";
const FILES: &str = "Files";

/// What the manual says about one client.
pub struct Section {
    /// The shell commands for reverse mode.
    pub reverse: String,
    /// The same for forward mode.
    pub forward: String,
    /// Blocks of lines of the program, indented as suits the manual.
    pub code: Vec<String>,
}

impl Section {
    /// The section of this title.
    pub fn of(title: &str) -> Self {
        let manual = manual();
        let (_, body) = sections(&manual).into_iter().find(|(known, _)| *known == title).expect(title);
        let (reverse, forward) = body.split_once("\nForward").expect("both modes");
        let shell = |part| blocks(part).into_iter().find(|(kind, _)| *kind == "sh").expect("a command").1;
        let code = blocks(body).into_iter().filter(|(kind, _)| *kind != "sh").map(|(_, block)| block);
        Self { reverse: shell(reverse), forward: shell(forward), code: code.collect() }
    }
}

/// The clients that the manual has a section on.
pub fn titles() -> Vec<String> {
    let manual = manual();
    let titles = sections(&manual).into_iter().map(|(title, _)| title.to_owned());
    titles.filter(|title| title != FILES && title != EXEC).collect()
}

/// The commands that make the files which the others name.
pub fn files() -> String {
    first_block(FILES)
}

/// The commands that run `pay.sh` with all that forward mode needs.
pub fn exec() -> String {
    first_block(EXEC)
}

fn first_block(title: &str) -> String {
    let manual = manual();
    let (_, body) = sections(&manual).into_iter().find(|(known, _)| *known == title).expect(title);
    blocks(body).remove(0).1
}

/// A command with the manual's example addresses replaced by 127.0.0.1 and `port`.
pub fn addressed(command: &str, port: u16) -> String {
    assert!(command.contains("gateway.example:8443") || command.contains("egress.example"), "{command}");
    command
        .replace("gateway.example:8443", &format!("localhost:{port}"))
        .replace("egress.example:3128", &format!("127.0.0.1:{port}"))
        .replace("proxyHost=egress.example", "proxyHost=127.0.0.1")
        .replace("proxyPort=3128", &format!("proxyPort={port}"))
}

fn manual() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/clients.md")).expect("docs/clients.md")
}

fn sections(manual: &str) -> Vec<(&str, &str)> {
    manual.split("\n## ").skip(1).map(|section| section.split_once('\n').expect("a title and a text")).collect()
}

/// Fenced blocks: their kind and what they hold.
fn blocks(text: &str) -> Vec<(&str, String)> {
    let fenced = text.split("```").skip(1).step_by(2);
    fenced.map(|block| block.split_once('\n').expect("a kind")).map(|(kind, body)| (kind, body.to_owned())).collect()
}
