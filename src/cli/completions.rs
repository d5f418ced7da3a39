//! The commands that describe the command line and the config to other programs: `completions`, `man`, `schema`.

use std::process::ExitCode;

use clap::Command;
use clap_complete::Shell;

use super::{complain, print};
use crate::config::schema;

/// Prints the completion script for this shell.
pub fn completions(mut command: Command, shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, "countersign", &mut script);
    print(&String::from_utf8_lossy(&script));
    ExitCode::SUCCESS
}

/// Prints a manual page in roff: of the whole, or of one command (`key new` is named by both words).
pub fn man(mut command: Command, words: &[String]) -> ExitCode {
    command.build();
    let mut chosen = &command;
    for word in words {
        let Some(found) = chosen.find_subcommand(word) else {
            let known: Vec<&str> = chosen.get_subcommands().map(Command::get_name).collect();
            complain(&format!("there is no command `{}`; there are: {}", word.escape_debug(), known.join(", ")));
            return ExitCode::from(2);
        };
        chosen = found;
    }
    let title = chosen.get_display_name().unwrap_or("countersign").to_owned();
    let mut roff = Vec::new();
    match clap_mangen::Man::new(chosen.clone()).title(title).render(&mut roff) {
        Ok(()) => {
            print(&(headed(&String::from_utf8_lossy(&roff)) + MAN_ENDS));
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&format!("the manual page cannot be made: {error}"));
            ExitCode::from(1)
        }
    }
}

/// The sections that end every manual page.
const MAN_ENDS: &str = "\
.fi
.SH ENVIRONMENT
.TP
COUNTERSIGN_CONFIG
The config file, where no option names one.
.TP
NO_COLOR
Any text: nothing is coloured.
.SH FILES
.TP
proxy.toml
The config file, in the current folder, where nothing names another one.
.SH SEE ALSO
.BR countersign (1).
The manual, docs/ of the source, explains the config, deployment, errors and runbooks.
";

/// Gives examples and exit codes of a page the headings that manual pages have (man-pages(7)).
fn headed(page: &str) -> String {
    page.replace("\n.SH EXTRA\nExamples:\n", "\n.SH EXAMPLES\n.nf\n")
        .replace("\n\nExit codes:\n", "\n.fi\n.SH \"EXIT STATUS\"\n.nf\n")
}

/// Prints the JSON Schema of `proxy.toml`.
pub fn schema() -> ExitCode {
    print(&format!("{:#}\n", schema::document()));
    ExitCode::SUCCESS
}
