//! The opening of a store's file: from a path to a sound database that countersign wrote, or to an error text that
//! states the reason.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use aws_lc_rs::rand;
use redb::{Builder, Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, StorageError, TableError};

use super::super::envelope::SCHEMA;
use super::super::error::Error;
use super::overlay::{Original, OverlayStorage};
use super::reopening_db::{ABOUT, ASIDE, RECORDS};
use crate::base::secret::hex;

/// The only one who may read and write the file is its owner.
const MODE: u32 = 0o600;
/// The same for a folder that is made for it.
const FOLDER_MODE: u32 = 0o700;
/// Enough for thousands of records.
const CACHE: usize = 4 << 20;

/// The part of the error text that reports a file as open in another process.
pub(in crate::store) const IN_USE: &str = "is in use by another process";

/// Opens the file at `path`, or makes it. A file that a later version wrote is not touched.
pub(super) fn open(path: &Path) -> Result<Database, Error> {
    let seen = match fs::metadata(path) {
        Ok(found) if !found.is_file() => return Err(unavailable(path, "is no file", "name a file in [store]")),
        Ok(found) if found.len() == 0 => {
            return Err(unavailable(path, "is empty", "restore it, or remove it to start anew"));
        }
        Ok(found) => {
            // No other process writes to the file while it is read.
            let reading = foresee(path)?;
            let original = fs::File::open(path).map_err(|error| io_error(path, &error))?;
            let seen = rehearse(path, original)?;
            drop(reading);
            if found.permissions().mode() & 0o077 != 0 {
                fs::set_permissions(path, Permissions::from_mode(MODE)).map_err(|error| io_error(path, &error))?;
            }
            seen
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_folder(path).map_err(|error| io_error(path, &error))?;
            make(path)?;
            OpeningResult::Unclean
        }
        Err(error) => return Err(io_error(path, &error)),
    };
    let database = builder().open(path).map_err(|error| refused(path, error))?;
    sound(path, database, seen)
}

/// Makes the folder that the file is to lie in, for its owner alone, if there is none.
fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() && !folder.exists() => {
            fs::DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder)
        }
        Some(_) | None => Ok(()),
    }
}

/// The result of a trial opening of the file.
#[derive(Clone, Copy)]
enum OpeningResult {
    /// Every page is as it was written.
    Clean,
    /// It was not closed, or has just been made: to be checked once more.
    Unclean,
}

/// Opens it and checks every page, without a byte being written to it.
fn rehearse(path: &Path, original: impl Original) -> Result<OpeningResult, Error> {
    let storage = OverlayStorage::of(original).map_err(|error| io_error(path, &error))?;
    let mut database = builder().create_with_backend(storage).map_err(|error| refused(path, error))?;
    match database.check_integrity() {
        Ok(true) => Ok(OpeningResult::Clean),
        Ok(false) => Ok(OpeningResult::Unclean),
        Err(error) => Err(refused(path, error)),
    }
}

/// A database on a storage that is not a file: for tests of what a disk may do.
#[cfg(test)]
pub(super) fn open_on(storage: impl redb::StorageBackend + Clone) -> Result<Database, Error> {
    let path = Path::new("storage");
    let new = storage.len().is_ok_and(|len| len == 0);
    let seen = if new { OpeningResult::Unclean } else { rehearse(path, PictureBackend(storage.clone()))? };
    let database = builder().create_with_backend(storage).map_err(|error| refused(path, error))?;
    if new {
        found(&database).map_err(|error| refused(path, StorageError::Io(io::Error::other(error)).into()))?;
    }
    sound(path, database, seen)
}

#[cfg(test)]
struct PictureBackend<S>(S);

#[cfg(test)]
impl<S: redb::StorageBackend> Original for PictureBackend<S> {
    fn size(&self) -> io::Result<u64> {
        self.0.len()
    }

    fn bytes_at(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.read(offset, out)
    }
}

fn builder() -> Builder {
    let mut builder = Builder::new();
    builder.set_cache_size(CACHE);
    builder
}

/// Looks at a file without writing to it. One that needs repair can only be looked at afterwards.
fn foresee(path: &Path) -> Result<Option<ReadOnlyDatabase>, Error> {
    match builder().open_read_only(path) {
        Ok(database) => {
            known(path, schema(&database).map_err(|error| refused(path, error.into()))?)?;
            Ok(Some(database))
        }
        Err(DatabaseError::RepairAborted) => Ok(None),
        Err(error) => Err(refused(path, error)),
    }
}

/// Checks that the file is a store of this schema and, unless that was done, that every page is sound.
fn sound(path: &Path, mut database: Database, seen: OpeningResult) -> Result<Database, Error> {
    known(path, schema(&database).map_err(|error| refused(path, error.into()))?)?;
    if matches!(seen, OpeningResult::Clean) {
        return Ok(database);
    }
    match database.check_integrity() {
        Ok(true) => Ok(database),
        Ok(false) => {
            tracing::warn!(path = %path.display(), "the file of the store was repaired");
            Ok(database)
        }
        Err(error) => Err(refused(path, error)),
    }
}

fn known(path: &Path, schema: Option<u64>) -> Result<(), Error> {
    match schema {
        Some(SCHEMA) => Ok(()),
        Some(later) if later > SCHEMA => {
            let what =
                format!("was written by a later version of countersign (schema {later}, this one knows {SCHEMA})");
            Err(unavailable(path, &what, "run that version, or name another file; nothing was changed"))
        }
        Some(_) | None => {
            let cure = "name another file in [store], or restore it if it was one";
            Err(unavailable(path, "is not a store of countersign", cure))
        }
    }
}

/// The schema that a database says it has.
fn schema(database: &impl ReadableDatabase) -> Result<Option<u64>, StorageError> {
    let reading = database.begin_read().map_err(|error| match error {
        redb::TransactionError::Storage(error) => error,
        other => StorageError::Corrupted(other.to_string()),
    })?;
    match reading.open_table(ABOUT) {
        Ok(table) => Ok(table.get("schema")?.map(|schema| schema.value())),
        Err(TableError::Storage(error)) => Err(error),
        Err(_) => Ok(None),
    }
}

/// Creates the file under another name and gives it its own name only once it is complete. A file that another process
/// creates at the same time is not overwritten.
fn make(path: &Path) -> Result<(), Error> {
    let mut random = [0; 8];
    rand::fill(&mut random).map_err(|_| unavailable(path, "cannot be made", "the system gives no randomness"))?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", hex(&random)));
    let new = path.with_file_name(name);
    let made = make_at(&new).and_then(|()| match fs::hard_link(&new, path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        // Not every file system has links; then nothing but the moment keeps two from making it.
        Err(_) if !path.exists() => fs::rename(&new, path),
        linked => linked,
    });
    let _ = fs::remove_file(&new);
    made.map_err(|error| match error.kind() {
        ErrorKind::NotFound => unavailable(path, "cannot be made: there is no such folder", "make the folder first"),
        _ => io_error(path, &error),
    })?;
    // The name itself must be on the disk, too.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(|error| io_error(path, &error))
}

fn make_at(new: &Path) -> io::Result<()> {
    let file = OpenOptions::new().read(true).write(true).create_new(true).mode(MODE).open(new)?;
    let database = builder().create_file(file).map_err(|error| match error {
        DatabaseError::Storage(StorageError::Io(error)) => error,
        other => io::Error::other(other.to_string()),
    })?;
    found(&database).map_err(io::Error::other)
}

/// Writes what makes a database ours.
fn found(database: &Database) -> Result<(), redb::Error> {
    let writing = database.begin_write()?;
    writing.open_table(ABOUT)?.insert("schema", SCHEMA)?;
    writing.open_table(RECORDS)?;
    writing.open_table(ASIDE)?;
    writing.commit()?;
    Ok(())
}

fn refused(path: &Path, error: DatabaseError) -> Error {
    match error {
        DatabaseError::DatabaseAlreadyOpen => {
            let cure = "give each process a file of its own, or share `redis://` in [store]";
            unavailable(path, IN_USE, cure)
        }
        DatabaseError::UpgradeRequired(_) => {
            unavailable(path, "has another file format", "name another file in [store]")
        }
        // Invalid, or cut off: that is no fault of the disk.
        DatabaseError::Storage(StorageError::Io(error))
            if !matches!(error.kind(), ErrorKind::InvalidData | ErrorKind::UnexpectedEof) =>
        {
            io_error(path, &error)
        }
        _ => unavailable(path, "is damaged or not a store of countersign", "restore it, or put it aside to start anew"),
    }
}

fn io_error(path: &Path, error: &io::Error) -> Error {
    let why = format!("cannot be used: {}", error.kind());
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
            Error::Full(format!("the store {} has no room: {}", path.display(), error.kind()))
        }
        _ => unavailable(path, &why, "see that this user may read and write it"),
    }
}

fn unavailable(path: &Path, what: &str, cure: &str) -> Error {
    Error::Unavailable(format!("the store {} {what}; {cure}", path.display()))
}
