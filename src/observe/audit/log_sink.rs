//! The file that records are appended to: opened where the last run left off, looked at anew, turned when it is full.
//!
//! Bytes that were written are never changed, cut off or overwritten: a file that cannot go on is moved aside.

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::chain::{Head, RecordParts, Seal};
use super::entry::{OPEN, Torn};
use crate::base::secret::{hex, sha256};

/// So much of a file's end is looked at: many records, the longest included.
const TAIL: u64 = 4 << 20;

/// The destination of audit records.
#[derive(Debug)]
pub enum LogSink {
    /// A regular file, locked if the file system has locks.
    File(Pages),
    /// A destination that cannot be read again: a pipe, a terminal, a device.
    Stream(Pipe),
}

/// The regular file to which records are appended.
#[derive(Debug)]
pub struct Pages {
    file: File,
    path: PathBuf,
    /// Length of the file, in bytes.
    pub size: u64,
    /// All before it is whole records, or was told of.
    settled: u64,
}

/// A destination that can only be written to.
pub enum Pipe {
    /// A file that is none.
    Device(File, PathBuf),
    Stdout(io::Stdout),
}

impl std::fmt::Debug for Pipe {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Pipe::Device(_, path) => f.debug_tuple("Device").field(path).finish(),
            Pipe::Stdout(_) => f.write_str("Stdout"),
        }
    }
}

/// Where the file is that records are appended to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Whereabouts {
    /// It has no name any more: it was deleted, or another file was put in its place.
    Lost,
    /// It has another name than its path: it was renamed, as log rotation does.
    Moved,
    /// At its path, or it is a destination that has none.
    Place,
    /// The path cannot be looked at.
    Unknown,
}

/// The content of a log when it is opened.
#[derive(Debug, Eq, PartialEq)]
pub enum OpenedLog {
    /// Content that does not begin or does not end with a valid record.
    Broken,
    /// No content, or a destination that cannot be read again.
    Empty,
    /// A chain to go on with.
    Ours {
        /// The number of its last record.
        seq: u64,
        /// The head of its last record.
        head: Head,
        /// The content of the file after that record.
        end: LogEnd,
    },
    /// A chain under another key, or under none.
    OtherKey {
        /// The number of its last record, as it says.
        seq: u64,
        /// The head of its last record, as stated there; it cannot be verified.
        head: Head,
        /// The content of the file after that record.
        end: LogEnd,
    },
}

/// The content of a file after its last record.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum LogEnd {
    /// No content: the record's newline is the last byte.
    Clean,
    /// The record lacks even its newline.
    NoNewline,
    /// A piece of a record. The flag says whether a newline ends it.
    Torn(Torn, bool),
}

impl LogSink {
    /// Opens the file at `path`, which is made if absent, for its owner alone, and locked. Standard output without one.
    pub fn open(path: Option<&Path>, seal: &Seal) -> io::Result<(Self, OpenedLog)> {
        let Some(path) = path else { return Ok((LogSink::Stream(Pipe::Stdout(io::stdout())), OpenedLog::Empty)) };
        let device = path.metadata().is_ok_and(|known| !known.is_file());
        if device {
            let file = OpenOptions::new().append(true).open(path)?;
            return Ok((LogSink::Stream(Pipe::Device(file, path.to_owned())), OpenedLog::Empty));
        }
        let file = OpenOptions::new().read(true).append(true).create(true).mode(0o600).open(path)?;
        match file.try_lock() {
            // If the file system has no locks, the file stays unlocked.
            Ok(()) | Err(TryLockError::Error(_)) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(io::Error::new(io::ErrorKind::ResourceBusy, "another process is writing to it"));
            }
        }
        let size = file.metadata()?.len();
        let (found, settled) = look(&file, size, seal)?;
        sync_folder(path);
        Ok((LogSink::File(Pages { file, path: path.to_owned(), size, settled }), found))
    }

    /// Writes some of the bytes and returns how many were written.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            LogSink::File(pages) => {
                let written = pages.file.write(bytes)?;
                pages.size += written as u64;
                Ok(written)
            }
            LogSink::Stream(Pipe::Device(file, _)) => file.write(bytes),
            LogSink::Stream(Pipe::Stdout(out)) => out.write(bytes),
        }
    }

    /// Has all that was written reach the disk, if there is one.
    pub fn sync(&mut self) -> io::Result<()> {
        match self {
            LogSink::File(pages) => {
                pages.file.sync_data()?;
                pages.settled = pages.size;
                Ok(())
            }
            LogSink::Stream(Pipe::Device(file, _)) => file.flush(),
            LogSink::Stream(Pipe::Stdout(out)) => out.flush(),
        }
    }

    /// Looks whether the path still leads to the file: two calls of the system.
    pub fn whereabouts(&self) -> Whereabouts {
        let (file, path) = match self {
            LogSink::File(pages) => (&pages.file, &pages.path),
            LogSink::Stream(Pipe::Device(file, path)) => (file, path),
            LogSink::Stream(Pipe::Stdout(_)) => return Whereabouts::Place,
        };
        let Ok(ours) = file.metadata() else { return Whereabouts::Unknown };
        match path.metadata() {
            Ok(there) if (ours.dev(), ours.ino()) == (there.dev(), there.ino()) => Whereabouts::Place,
            Err(error) if error.kind() != io::ErrorKind::NotFound => Whereabouts::Unknown,
            Ok(_) | Err(_) if ours.nlink() == 0 => Whereabouts::Lost,
            Ok(_) | Err(_) => Whereabouts::Moved,
        }
    }

    /// A piece of a record at its end, that nothing tells of yet.
    pub fn torn(&self) -> Option<Torn> {
        let LogSink::File(pages) = self else { return None };
        let rest = tail(&pages.file, pages.settled, pages.size).ok()?;
        let mut end = 0;
        for (start, line) in lines(&rest) {
            if RecordParts::of(line).is_some() {
                end = (start + line.len() + 1).min(rest.len());
            }
        }
        let piece = rest.get(end..).filter(|piece| !piece.is_empty())?;
        Some(torn(piece.strip_suffix(b"\n").unwrap_or(piece)))
    }

    /// The file, if it is one that has a length.
    pub const fn pages(&self) -> Option<&Pages> {
        match self {
            LogSink::File(pages) => Some(pages),
            LogSink::Stream(_) => None,
        }
    }
}

/// Moves a file aside, so that `path` is free: to the path with `mark` at its end, and a number if that is taken.
/// Returns its new path.
pub fn aside(path: &Path, mark: &str) -> io::Result<PathBuf> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{mark}"));
    let plain = PathBuf::from(&name);
    let mut free = plain.clone();
    let mut number = 1;
    while free.symlink_metadata().is_ok() {
        number += 1;
        let mut numbered = plain.as_os_str().to_owned();
        numbered.push(format!(".{number}"));
        free = PathBuf::from(numbered);
    }
    std::fs::rename(path, &free)?;
    sync_folder(path);
    Ok(free)
}

/// Syncs the folder of `path`: a name in a folder is as durable as the folder. Errors are ignored: the file's own bytes
/// are durable even so.
fn sync_folder(path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
}

fn torn(piece: &[u8]) -> Torn {
    Torn { bytes: piece.len() as u64, sha256: hex(&sha256(piece)) }
}

/// The bytes from one offset to another.
fn tail(file: &File, from: u64, to: u64) -> io::Result<Vec<u8>> {
    let length = usize::try_from(to.saturating_sub(from)).map_err(io::Error::other)?;
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, from)?;
    Ok(bytes)
}

/// Lines with where they start, newlines taken off; the last one may have had none.
fn lines(text: &[u8]) -> impl Iterator<Item = (usize, &[u8])> {
    let mut start = 0;
    text.split_inclusive(|byte| *byte == b'\n').map(move |line| {
        let at = start;
        start += line.len();
        (at, line.strip_suffix(b"\n").unwrap_or(line))
    })
}

/// The first record of a file, as far as it is needed to continue the chain.
#[derive(serde::Deserialize)]
struct LogBeginning {
    #[serde(default)]
    key: Option<String>,
    before: String,
}

/// Reads the content of a file, and the offset at which its whole records end.
///
/// Its last record must be valid. After it, pieces of a record may stand, but no line that looks like a whole one:
/// otherwise an altered last record would be taken for a torn one.
fn look(file: &File, size: u64, seal: &Seal) -> io::Result<(OpenedLog, u64)> {
    if size == 0 {
        return Ok((OpenedLog::Empty, 0));
    }
    let head = tail(file, 0, size.min(TAIL))?;
    let first = head.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let beginning = RecordParts::of(first)
        .filter(|parts| parts.kind() == Some(OPEN))
        .and_then(|_| serde_json::from_slice::<LogBeginning>(first).ok());
    let Some(beginning) = beginning else { return Ok((OpenedLog::Broken, size)) };
    let from = size.saturating_sub(TAIL);
    let text = if from == 0 { head } else { tail(file, from, size)? };
    let mut records = lines(&text).filter_map(|(at, line)| Some((at, line.len(), RecordParts::of(line)?)));
    let (mut before, mut last) = (None, records.next());
    for record in records {
        before = last.replace(record);
    }
    let Some((at, length, parts)) = last else { return Ok((OpenedLog::Broken, size)) };
    let settled = from + (at + length + 1).min(text.len()) as u64;
    let piece = text.get(at + length..).unwrap_or_default();
    let end = match piece {
        b"" => LogEnd::NoNewline,
        b"\n" => LogEnd::Clean,
        [_, piece @ ..] => match piece.strip_suffix(b"\n") {
            Some(piece) => LogEnd::Torn(torn(piece), true),
            None => LogEnd::Torn(torn(piece), false),
        },
    };
    let (seq, head) = (parts.seq, parts.head);
    if beginning.key.as_deref() != seal.key() {
        return Ok((OpenedLog::OtherKey { seq, head, end }, settled));
    }
    let bound_to = match before {
        Some((_, _, before)) => Some(before.head),
        None if from == 0 && at == 0 => Head::parse(beginning.before.as_bytes()),
        None => None,
    };
    let holds = bound_to.is_some_and(|bound_to| seal.head(&bound_to, parts.body) == head);
    Ok(if holds { (OpenedLog::Ours { seq, head, end }, settled) } else { (OpenedLog::Broken, size) })
}
