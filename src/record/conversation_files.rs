//! The conversation files of a folder.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The `*.toml` files of a folder, in the order of their names.
pub fn conversation_files(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_file() && path.extension().is_some_and(|kind| kind == "toml") {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}
