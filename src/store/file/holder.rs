//! The processes that have a store's file open, if the system reveals them.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// A process that has the file open.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Holder {
    /// The process ID, as listed in `/proc`.
    pub pid: u32,
    /// The command name of the process; empty if the system does not reveal it.
    pub name: String,
}

/// The processes that have this file open, as far as we may look into them (proc(5)); none where there is no `/proc`.
pub fn holders(path: &Path) -> Vec<Holder> {
    let (Ok(file), Ok(processes)) = (fs::metadata(path), fs::read_dir("/proc")) else { return Vec::new() };
    let is_it = |found: fs::Metadata| (found.dev(), found.ino()) == (file.dev(), file.ino());
    let holds = |pid: u32| {
        let mut open = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
        open.any(|entry| fs::metadata(entry.path()).is_ok_and(is_it))
    };
    let pids = processes.flatten().filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let mut found: Vec<Holder> = pids
        .filter(|pid| holds(*pid))
        .map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Holder { pid, name: name.trim().chars().filter(|c| !c.is_control()).collect() }
        })
        .collect();
    found.sort_by_key(|holder| holder.pid);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_has_a_file_open_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.redb");
        assert!(holders(&path).is_empty());
        let file = fs::File::create(&path).unwrap();
        let found = holders(&path);
        let own = |holder: &&Holder| holder.pid == std::process::id();
        assert!(!found.iter().find(own).unwrap().name.is_empty());
        drop(file);
        assert!(holders(&path).iter().find(own).is_none());
    }
}
