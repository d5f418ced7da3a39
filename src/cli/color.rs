//! `--color`: whether words of the output are coloured.

use std::io::{self, IsTerminal as _};
use std::sync::OnceLock;

use clap::ValueEnum;

/// When words are coloured.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, ValueEnum)]
pub(super) enum ColorChoice {
    /// Always
    Always,
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Never
    Never,
}

/// The choice of this command line.
static CHOICE: OnceLock<ColorChoice> = OnceLock::new();

impl ColorChoice {
    /// Makes it the choice of this process. The first one counts.
    pub(super) fn choose(self) {
        let _ = CHOICE.set(self);
    }

    /// Returns whether a stream is coloured. `no_color` and `term`: the values of the variables `NO_COLOR` (any text but
    /// the empty one, <https://no-color.org>) and `TERM`.
    fn colors(self, is_terminal: bool, no_color: Option<&str>, term: Option<&str>) -> bool {
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => is_terminal && no_color.is_none_or(str::is_empty) && term != Some("dumb"),
        }
    }
}

fn is_colored(is_terminal: bool) -> bool {
    let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let choice = CHOICE.get().copied().unwrap_or_default();
    choice.colors(is_terminal, variable("NO_COLOR").as_deref(), variable("TERM").as_deref())
}

/// Returns whether standard error is coloured.
pub(super) fn stderr_is_colored() -> bool {
    is_colored(io::stderr().is_terminal())
}

/// Returns whether standard output is coloured.
pub(super) fn stdout_is_colored() -> bool {
    is_colored(io::stdout().is_terminal())
}

/// The meaning of a word, by which it is coloured.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Tone {
    /// Something failed: red.
    Bad,
    /// It works: green.
    Good,
    /// It works, but somebody should look: yellow.
    Warning,
}

impl Tone {
    /// The word with the codes that colour it (ECMA-48, SGR), or as it is.
    pub(super) fn paint(self, word: &str, color: bool) -> String {
        let code = match self {
            Self::Bad => "31",
            Self::Good => "32",
            Self::Warning => "33",
        };
        if color { format!("\x1b[{code}m{word}\x1b[0m") } else { word.to_owned() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_is_coloured_unless_the_environment_or_the_caller_forbids_it() {
        let auto = |terminal, no_color, term| ColorChoice::Auto.colors(terminal, no_color, term);
        assert!(auto(true, None, Some("xterm")) && auto(true, Some(""), None));
        assert!(!auto(false, None, None) && !auto(true, Some("1"), None) && !auto(true, None, Some("dumb")));
        assert!(ColorChoice::Always.colors(false, Some("1"), Some("dumb")));
        assert!(!ColorChoice::Never.colors(true, None, None));
        assert_eq!(Tone::Good.paint("ok", true), "\x1b[32mok\x1b[0m");
        assert_eq!(Tone::Bad.paint("ok", false), "ok");
    }
}
