//! The thread that scrubs a provider's exchanges and writes them into a conversation file.

use std::fs;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::io::Write as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::thread;

use super::answer_shape::{AnswerShapes, shapes};
use super::conversation_files::conversation_files;
use super::recorded_call::RecordedConversation;
use super::recording_book::{RecordingBook, TakenExchange};
use crate::base::secret::SecretString;
use crate::base::time::Now;
use crate::observe::metrics::RecordingMeters;
use crate::observe::once::Once;
use crate::provider::{RecordSettings, RecordedExchange, RecordingChannel};

/// The most recordings of one provider in a folder.
const MOST_FILES: usize = 32;
/// The most exchanges that are taken before they are written.
const BATCH: usize = 32;

/// Begins a recording, and returns the way to its thread. The thread ends once nobody holds the way any more.
///
/// `secrets` are those of the whole config. An error: the folder cannot be used, or has enough recordings.
pub fn start_recording(
    provider: &Arc<str>,
    settings: &RecordSettings,
    secrets: &[SecretString],
    meters: RecordingMeters,
    now: Now,
) -> io::Result<RecordingChannel> {
    DirBuilder::new().recursive(true).mode(0o700).create(&settings.folder)?;
    let before = conversation_files(&settings.folder)?;
    let own: Vec<PathBuf> = before.into_iter().filter(|path| is_of(path, provider)).collect();
    if own.len() >= MOST_FILES {
        let shown = settings.folder.display();
        return Err(io::Error::other(format!("{shown} has {MOST_FILES} recordings of `{provider}`: move some away")));
    }
    let path = fresh_path(&settings.folder, provider, now)?;
    let book = RecordingBook::new(
        provider.clone(),
        path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default().to_owned(),
        settings.clone(),
        &rand::random::<[u8; 32]>(),
        secrets,
        known_shapes(&own),
    );
    let (channel, receiver) = RecordingChannel::open(meters.dropped.clone());
    let writer = RecordingThread { provider: provider.clone(), path, book, meters, told: Once::default() };
    thread::Builder::new().name("recording".to_owned()).spawn(move || writer.run(&receiver))?;
    Ok(channel)
}

/// Returns whether a file is a recording of this provider: its name, a hyphen, and digits.
fn is_of(path: &Path, provider: &str) -> bool {
    let stem = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
    let rest = stem.strip_prefix(provider).and_then(|rest| rest.strip_prefix('-'));
    rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit() || b == b'-'))
}

/// A path for a new recording at which nothing is.
fn fresh_path(folder: &Path, provider: &str, now: Now) -> io::Result<PathBuf> {
    for round in 0..100 {
        let more = if round == 0 { String::new() } else { format!("-{round}") };
        let path = folder.join(format!("{provider}-{}{more}.toml", now.wall / 1000));
        if !path.exists() {
            return Ok(path);
        }
    }
    Err(io::Error::other("the names of this second are taken"))
}

/// The shapes of earlier recordings. One that cannot be read tells nothing.
fn known_shapes(files: &[PathBuf]) -> AnswerShapes {
    let calls = files.iter().filter_map(|path| {
        let text = fs::read_to_string(path).ok()?;
        Some(RecordedConversation::parse(&text).ok()?.calls)
    });
    let calls: Vec<_> = calls.flatten().collect();
    shapes(&calls, true)
}

struct RecordingThread {
    provider: Arc<str>,
    path: PathBuf,
    book: RecordingBook,
    meters: RecordingMeters,
    told: Once,
}

impl RecordingThread {
    fn run(mut self, receiver: &Receiver<Box<RecordedExchange>>) {
        while let Ok(first) = receiver.recv() {
            let mut is_more = self.take(&first);
            for exchange in receiver.try_iter().take(BATCH) {
                is_more |= self.take(&exchange);
            }
            if is_more
                && let Err(error) = self.write()
                && self.told.first(&error.kind().to_string())
            {
                tracing::error!(provider = %self.provider, path = %self.path.display(), %error, "a recording cannot be written");
            }
        }
    }

    /// Takes an exchange; returns whether there is more to write.
    fn take(&mut self, exchange: &RecordedExchange) -> bool {
        let (taken, news) = self.book.take(exchange);
        for line in news {
            self.meters.changes.inc();
            tracing::info!(provider = %self.provider, "an answer has another shape than those recorded: {line}");
        }
        match taken {
            TakenExchange::Written => self.meters.written.inc(),
            TakenExchange::Known => self.meters.known.inc(),
            TakenExchange::Withheld => {
                if self.told.first("withheld") {
                    tracing::warn!(provider = %self.provider, "an exchange is left out of the recording: it might have told a secret");
                }
                self.meters.withheld.inc()
            }
        };
        taken == TakenExchange::Written
    }

    /// Puts the text in the place of the old one in one step.
    fn write(&mut self) -> io::Result<()> {
        for (name, content) in self.book.take_files() {
            replace(&self.path.with_file_name(name), content.as_bytes())?;
        }
        match self.book.text() {
            Some(text) => replace(&self.path, text.as_bytes()),
            None => Ok(()),
        }
    }
}

/// Puts a file for this user alone in the place of what is there, in one step.
fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = PathBuf::from(beside);
    // A leftover may be a link to elsewhere, or readable for others.
    match fs::remove_file(&beside) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut options = OpenOptions::new();
    options.write(true).create_new(true).mode(0o600);
    options.open(&beside)?.write_all(content)?;
    fs::rename(&beside, path)
}
