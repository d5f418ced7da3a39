//! The source of files and environment variables.

use std::collections::HashMap;
use std::fmt;
use std::io::{self, Read};
use std::os::unix::fs::FileTypeExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Access, access};
use zeroize::Zeroizing;

use super::command_output::{CommandError, command_output};
use super::sources::SourceCommand;
use crate::base::time::{Clock, Now};
use crate::key_service::KeyServices;
use crate::secret_source::SecretSources;

/// No certificate, key, secret or profile is longer; what is longer is a mistake, or a device that never ends.
const LONGEST: u64 = 16 << 20;

/// The path that means standard input, where a config is named.
pub const STANDARD_INPUT_PATH: &str = "-";

/// The outside world, as far as a config may name it.
pub trait Files {
    /// Reads the whole file at `path`.
    fn read(&self, path: &Path) -> io::Result<Vec<u8>>;

    /// Reads the config at `path`. An implementation may know other places than files.
    fn read_config(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.read(path)
    }

    /// Checks whether a file at this path could be appended to or created. Succeeds if that cannot be determined.
    fn appendable(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Checks whether a file at this path could be written to, or made together with its folders. Succeeds if that cannot
    /// be determined.
    fn creatable(&self, _path: &Path) -> io::Result<()> {
        Ok(())
    }

    /// Lists the files in a folder, links included, folders not. Returns an error if the implementation has no folders.
    fn list(&self, _folder: &Path) -> io::Result<Vec<PathBuf>> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// The time by which certificates are judged; absent if none should be.
    fn now(&self) -> Option<Now> {
        None
    }

    /// The key services of the machine; absent if none are reached.
    fn key_services(&self) -> Option<&KeyServices> {
        None
    }

    /// The sources of secrets of the machine; absent if none are reached.
    fn secret_sources(&self) -> Option<&SecretSources> {
        None
    }

    /// Runs a command, and returns what it writes to standard output.
    fn command(&self, _command: &SourceCommand) -> Result<Zeroizing<Vec<u8>>, CommandError> {
        Err(CommandError::NotRun)
    }

    /// An environment variable; absent when it is not set or not readable text.
    fn env(&self, name: &str) -> Option<String>;
}

/// The machine's own files and environment.
#[derive(Clone, Copy, Debug, Default)]
pub struct MachineFiles;

impl Files for MachineFiles {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        bounded(std::fs::File::open(path)?)
    }

    /// `-` is standard input. It can be read once, so its bytes are kept for later readings.
    fn read_config(&self, path: &Path) -> io::Result<Vec<u8>> {
        static STANDARD_INPUT: Mutex<Option<Vec<u8>>> = Mutex::new(None);

        if path != Path::new(STANDARD_INPUT_PATH) {
            return match waits_for_a_writer(path) {
                true => Err(io::Error::other(
                    "it is a named pipe, which could be read only once; `-c -` reads standard input",
                )),
                false => self.read(path),
            };
        }
        let mut kept = STANDARD_INPUT.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bytes) = &*kept {
            return Ok(bytes.clone());
        }
        let bytes = bounded(io::stdin().lock())?;
        Ok(kept.insert(bytes).clone())
    }

    fn appendable(&self, path: &Path) -> io::Result<()> {
        match writable(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => takes_files(folder_of(path)),
            known => known,
        }
    }

    fn creatable(&self, path: &Path) -> io::Result<()> {
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let mut answer = writable(path);
        let mut rest = path;
        // The nearest folder that is there has to take the first that is not.
        while answer.as_ref().is_err_and(is_missing) && rest != folder_of(rest) {
            rest = folder_of(rest);
            answer = takes_files(rest);
        }
        answer
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let mut found = Vec::new();
        for entry in std::fs::read_dir(here)? {
            let path = folder.join(entry?.file_name());
            if path.is_file() {
                found.push(path);
            }
        }
        Ok(found)
    }

    fn now(&self) -> Option<Now> {
        Some(Clock::System.now())
    }

    fn key_services(&self) -> Option<&KeyServices> {
        Some(KeyServices::of_process())
    }

    fn secret_sources(&self) -> Option<&SecretSources> {
        Some(SecretSources::of_process())
    }

    fn command(&self, command: &SourceCommand) -> Result<Zeroizing<Vec<u8>>, CommandError> {
        command_output(&command.program, &command.arguments, command.timeout)
    }

    fn env(&self, name: &str) -> Option<String> {
        std::env::var(name).ok()
    }
}

/// Checks whether what is at this path is a file that this user may write to.
fn writable(path: &Path) -> io::Result<()> {
    if path.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    Ok(access(path, Access::WRITE_OK)?)
}

/// Checks whether this user may make files in a folder.
fn takes_files(folder: &Path) -> io::Result<()> {
    if !folder.metadata()?.is_dir() {
        return Err(io::ErrorKind::NotADirectory.into());
    }
    Ok(access(folder, Access::WRITE_OK | Access::EXEC_OK)?)
}

/// The folder that a path lies in.
fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Returns whether opening this path would wait for somebody to write: a named pipe. One that a shell opened for us, as
/// with `<(command)`, does not wait.
fn waits_for_a_writer(path: &Path) -> bool {
    let is_open = ["/dev/fd/", "/dev/stdin", "/proc/"]
        .iter()
        .any(|place| path.as_os_str().as_encoded_bytes().starts_with(place.as_bytes()));
    !is_open && path.metadata().is_ok_and(|known| known.file_type().is_fifo())
}

/// Reads all of it; longer than [`LONGEST`] is an error.
fn bounded(from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(LONGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LONGEST { Err(io::ErrorKind::FileTooLarge.into()) } else { Ok(bytes) }
}

/// Files and variables that exist in memory alone, for demonstrations and tests. `Debug` shows no contents.
#[derive(Clone, Default)]
pub struct InMemory {
    files: HashMap<PathBuf, Vec<u8>>,
    variables: HashMap<String, String>,
    /// The outputs of commands, by their programs.
    outputs: HashMap<PathBuf, Vec<u8>>,
}

impl InMemory {
    /// Creates a set without files and variables.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a file, or replaces the one at this path.
    #[must_use]
    pub fn with_file(mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        self.files.insert(path.into(), bytes.into());
        self
    }

    /// Adds the output of a command, or replaces it; whatever its arguments are.
    #[must_use]
    pub fn with_output(mut self, program: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        self.outputs.insert(program.into(), bytes.into());
        self
    }

    /// Adds an environment variable, or replaces its value.
    #[must_use]
    pub fn with_env(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.variables.insert(name.into(), value.into());
        self
    }
}

impl Files for InMemory {
    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn list(&self, folder: &Path) -> io::Result<Vec<PathBuf>> {
        Ok(self.files.keys().filter(|path| path.parent() == Some(folder)).cloned().collect())
    }

    fn command(&self, command: &SourceCommand) -> Result<Zeroizing<Vec<u8>>, CommandError> {
        let output = self.outputs.get(&command.program).ok_or(CommandError::Failed(Some(1)))?;
        Ok(Zeroizing::new(output.clone()))
    }

    fn env(&self, name: &str) -> Option<String> {
        self.variables.get(name).cloned()
    }
}

impl fmt::Debug for InMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.files.keys()).entries(self.variables.keys()).finish()
    }
}

#[cfg(test)]
mod tests {
    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn a_file_can_be_made_where_its_folders_can() {
        let folder = std::env::temp_dir().join(format!("countersign-creatable-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        std::fs::write(folder.join("file"), "x").expect("a file");
        let kind = |path: &str| MachineFiles.creatable(&folder.join(path)).map_err(|error| error.kind());
        let here = ["file", "new", "a/b/new", "file/new", "file/a/new", "."].map(kind);
        let missing = MachineFiles.appendable(&folder.join("a/new")).map_err(|error| error.kind());
        std::fs::remove_dir_all(&folder).expect("the folder goes");
        let no_folder = Err(io::ErrorKind::NotADirectory);
        assert_eq!(here, [Ok(()), Ok(()), Ok(()), no_folder, no_folder, Err(io::ErrorKind::IsADirectory)]);
        assert_eq!(missing, Err(io::ErrorKind::NotFound));
    }

    #[test]
    fn a_named_pipe_is_refused_at_once_and_an_open_one_is_read() {
        let folder = std::env::temp_dir().join(format!("countersign-files-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("pipe");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a pipe");
        let refused = MachineFiles.read_config(&path);
        std::fs::remove_dir_all(&folder).expect("the folder goes");
        assert!(refused.is_err_and(|error| error.to_string().contains("named pipe")));
        let (read, mut write) = io::pipe().expect("a pipe");
        io::Write::write_all(&mut write, b"a = 1").expect("written");
        drop(write);
        let open = PathBuf::from(format!("/dev/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&read)));
        assert_eq!(MachineFiles.read_config(&open).expect("it is read"), b"a = 1");
    }
}
