//! `countersign learn`: from examples of a bank's calls to a profile, a conversation and a config.
//!
//! The conversation is played before anything is written, and the config is checked after that. Nothing that exists is
//! overwritten. No secret of the examples is written or shown: a config names environment variables in their place.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, ValueHint};
use zeroize::Zeroizing;

use super::init::{Desk, InitArguments, put};
use super::{init, tell};
use crate::base::secret::SecretString;
use crate::base::time::Now;
use crate::config::{Files, Loaded, MachineFiles, load};
use crate::key_service::KeyServices;
use crate::learn::{LONGEST_EXAMPLE, LearnedBank, MOST_EXAMPLES, learn};
use crate::provider::{Profile, fixture};
use crate::secret_source::SecretSources;
use crate::syntax::{Diagnostics, SourceText};

/// The arguments of `countersign learn`.
#[derive(Args, Debug)]
pub struct LearnArguments {
    /// Examples: notes with curl lines and answers, a HAR recording, a Postman collection or an OpenAPI document
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Name of the profile: letters, digits, `_` and `-`; default: one that the bank's host gives
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// Folder to write into
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath, default_value = ".")]
    out: PathBuf,
}

/// Learns and writes. Exit code 0: written, played and checked; 1: what was learned does not hold; 2: it could not be
/// tried, and nothing was written.
pub fn run(arguments: &LearnArguments) -> ExitCode {
    tell(learn_and_write(arguments))
}

/// A reason why it failed, with the exit code.
type LearnFailure = (String, u8);

fn learn_and_write(arguments: &LearnArguments) -> Result<String, LearnFailure> {
    let untried = |why: String| (why, 2);
    if let Some(name) = arguments.name.as_ref().filter(|name| !is_profile_name(name)) {
        return Err(untried(format!(
            "`{}` is no name for a profile: use letters, digits, `_` and `-`",
            name.escape_debug()
        )));
    }
    let contents = read_all(&arguments.files).map_err(untried)?;
    let examples: Vec<&[u8]> = contents.iter().map(|content| content.as_slice()).collect();
    let mut bank = learn(&examples, arguments.name.as_deref()).map_err(untried)?;
    let files = LearnedFiles::of(&arguments.out, bank.name());
    files.judge_free().map_err(untried)?;
    let base_url = ask(&mut bank).map_err(untried)?;
    let (profile, conversation) = (bank.profile().map_err(untried)?, bank.conversation().map_err(untried)?);
    rehearse(&files, &profile, &conversation).map_err(|why| failed(&bank, &why))?;
    let remarks = bank.cleared(remarks(&bank)).map_err(untried)?;
    files.write(&profile, &conversation).map_err(untried)?;
    let written = init::write_for(&InitArguments::of_profile(&files.profile, &arguments.out, base_url));
    let config = written.map_err(|why| {
        files.take_back();
        untried(why)
    })?;
    check(&config).map_err(|why| (why, 1))?;
    Ok(format!(
        "\nLearned from {}: {} and {}\nThe conversation went as written, and {} is fine.\n{remarks}",
        bank.seen(),
        files.profile.display(),
        files.conversation.display(),
        config.display(),
    ))
}

/// Something that went wrong, unless it shows a value of the examples.
fn failed(bank: &LearnedBank, why: &str) -> LearnFailure {
    let told = bank.cleared(format!("what was learned does not hold, so nothing is written:\n{why}"));
    (told.unwrap_or_else(|why| why), 1)
}

fn is_profile_name(name: &str) -> bool {
    (1..=64).contains(&name.len()) && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

fn read_all(files: &[PathBuf]) -> Result<Vec<Zeroizing<Vec<u8>>>, String> {
    if files.len() > MOST_EXAMPLES {
        return Err(format!("at most {MOST_EXAMPLES} files are read at once"));
    }
    let read = |path: &PathBuf| {
        let unreadable = |error: std::io::Error| format!("{} cannot be read: {error}", path.display());
        let mut content = Zeroizing::new(Vec::new());
        let file = File::open(path).map_err(unreadable)?;
        file.take(LONGEST_EXAMPLE as u64 + 1).read_to_end(&mut content).map_err(unreadable)?;
        Ok(content)
    };
    files.iter().map(read).collect()
}

/// Asks about every guess, at a terminal. Returns the base URL.
fn ask(bank: &mut LearnedBank) -> Result<String, String> {
    let mut desk = Desk::new();
    let base_url = match bank.base_url() {
        Some(url) => Some(url.to_owned()),
        None => desk.ask("The base URL of the bank's API?", Some(bank.stand_in_base()))?,
    };
    for number in 0..bank.guesses().len() {
        let Some(guess) = bank.guesses().get(number) else { continue };
        let question = bank.cleared(format!("Guessed: {}. Is that so? (y/n)", guess.about))?;
        let answer = desk.ask(&question, Some("n"))?.unwrap_or_default();
        if answer.eq_ignore_ascii_case("y") || answer.eq_ignore_ascii_case("yes") {
            bank.confirm(number);
        }
    }
    Ok(base_url.unwrap_or_else(|| bank.stand_in_base().to_owned()))
}

fn remarks(bank: &LearnedBank) -> String {
    let mut text = String::new();
    let open: Vec<_> = bank.guesses().iter().filter(|guess| !guess.confirmed).collect();
    if !open.is_empty() {
        text += "\nGuessed; look at each, and correct the profile where it is wrong:\n\n";
        for guess in open {
            let _ = writeln!(text, "  {:<16} {}", guess.place, guess.about);
        }
    }
    if !bank.omitted().is_empty() {
        text += "\nNot learned:\n\n";
        for line in bank.omitted() {
            let _ = writeln!(text, "  {line}");
        }
    }
    text
}

/// The files that are written, besides those of `init`.
struct LearnedFiles {
    profile: PathBuf,
    conversation: PathBuf,
    config: PathBuf,
}

impl LearnedFiles {
    fn of(folder: &Path, name: &str) -> Self {
        Self {
            profile: folder.join(format!("{name}.toml")),
            conversation: folder.join(name).join("learned.toml"),
            config: folder.join("proxy.toml"),
        }
    }

    fn judge_free(&self) -> Result<(), String> {
        match [&self.profile, &self.conversation, &self.config].into_iter().find(|path| path.exists()) {
            Some(path) => {
                Err(format!("{} is there already and stays as it is; name another folder with --out", path.display()))
            }
            None if self.profile == self.config => Err("a profile cannot be called `proxy`: say --name".to_owned()),
            None => Ok(()),
        }
    }

    fn write(&self, profile: &str, conversation: &str) -> Result<(), String> {
        put(&self.profile, &SecretString::from(profile), 0o644)?;
        put(&self.conversation, &SecretString::from(conversation), 0o644).inspect_err(|_| {
            let _ = fs::remove_file(&self.profile);
        })
    }

    /// Removes what this process has just written.
    fn take_back(&self) {
        for path in [&self.profile, &self.conversation] {
            let _ = fs::remove_file(path);
        }
        let _ = self.conversation.parent().map(fs::remove_dir);
    }
}

/// Reads the profile and plays the conversation, before either is written.
fn rehearse(files: &LearnedFiles, profile: &str, conversation: &str) -> Result<(), String> {
    let report = Diagnostics::new();
    let parsed = Profile::parse(&SourceText::new(files.profile.display().to_string(), profile), &report);
    let Some(parsed): Option<Arc<Profile>> = parsed else {
        let shown: Vec<String> = report.into_diagnostics().iter().map(|found| found.render(false)).collect();
        return Err(shown.join("\n\n"));
    };
    let wrong = fixture::play(&files.conversation.display().to_string(), conversation, Some(&parsed));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("\n")) }
}

/// Checks the config that was written, with stand-ins for environment variables that are not set yet.
fn check(config: &Path) -> Result<(), String> {
    match load(config, &UnsetVariables) {
        Loaded::Fine(..) => Ok(()),
        Loaded::Mistaken(found) => {
            let shown: Vec<String> = found.iter().map(|found| found.render(false)).collect();
            Err(format!("{} was written, and has mistakes:\n\n{}", config.display(), shown.join("\n\n")))
        }
        Loaded::Unreadable(why) => Err(why),
    }
}

/// The machine's files, with a value for each environment variable that is not set.
struct UnsetVariables;

impl Files for UnsetVariables {
    fn read(&self, path: &Path) -> std::io::Result<Vec<u8>> {
        MachineFiles.read(path)
    }

    fn appendable(&self, path: &Path) -> std::io::Result<()> {
        MachineFiles.appendable(path)
    }

    fn creatable(&self, path: &Path) -> std::io::Result<()> {
        MachineFiles.creatable(path)
    }

    fn list(&self, folder: &Path) -> std::io::Result<Vec<PathBuf>> {
        MachineFiles.list(folder)
    }

    fn now(&self) -> Option<Now> {
        MachineFiles.now()
    }

    fn key_services(&self) -> Option<&KeyServices> {
        MachineFiles.key_services()
    }

    fn secret_sources(&self) -> Option<&SecretSources> {
        MachineFiles.secret_sources()
    }

    fn env(&self, name: &str) -> Option<String> {
        MachineFiles.env(name).or_else(|| Some("not-set-yet".to_owned()))
    }
}
