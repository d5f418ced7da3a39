//! The manifest of a pack, `pack.toml`: its name, its version, and the SHA-256 of each of its profiles.

use std::cmp::Ordering;
use std::fmt;
use std::fmt::Write as _;
use std::sync::Arc;

use crate::base::secret::hex;
use crate::provider::template::is_name;
use crate::syntax::{Diagnostics, Fields, FromNode, Node, SourceText};

/// The name of the manifest in a pack's folder.
pub const MANIFEST_FILE: &str = "pack.toml";

/// A pack has at most this many profiles.
pub const MOST_PROFILES: usize = 256;

/// The version of a pack: one to four numbers with dots between them, the first of which counts most.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PackVersion(Vec<u32>);

impl PackVersion {
    /// Reads a version such as `2026.11.30`. The error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let number = |part: &str| {
            let digits = (1..=9).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_digit());
            part.parse().ok().filter(|_| digits)
        };
        let numbers: Option<Vec<u32>> = text.split('.').map(number).collect();
        let numbers = numbers.filter(|numbers| numbers.len() <= 4);
        numbers.map(Self).ok_or("a version is one to four numbers with dots between them, as in `\"2026.11.30\"`")
    }
}

/// Missing numbers are zeros: `2` and `2.0` are the same age.
impl Ord for PackVersion {
    fn cmp(&self, other: &Self) -> Ordering {
        let number = |version: &Self, at: usize| version.0.get(at).copied().unwrap_or_default();
        (0..4).map(|at| number(self, at).cmp(&number(other, at))).find(|found| found.is_ne()).unwrap_or(Ordering::Equal)
    }
}

impl PartialOrd for PackVersion {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl fmt::Display for PackVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.0.iter().map(u32::to_string).collect();
        f.write_str(&numbers.join("."))
    }
}

impl FromNode for PackVersion {
    fn from_node(node: &Node, report: &Diagnostics) -> Option<Self> {
        let text = String::from_node(node, report)?;
        Self::parse(&text)
            .map_err(|help| {
                node.error(report, format!("`{}` is no version", text.escape_debug()), "", Some(help.to_owned()));
            })
            .ok()
    }
}

/// A manifest, read.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PackManifest {
    /// Name of the pack: letters, digits, `_` and `-`.
    pub name: String,
    pub version: PackVersion,
    /// The profiles by name, sorted, each with the SHA-256 of its file, which is the name with `.toml`.
    pub profiles: Vec<(String, [u8; 32])>,
}

impl PackManifest {
    /// Reads a manifest. Every mistake goes to `report`; `None` when there was one.
    pub fn parse(source: &Arc<SourceText>, report: &Diagnostics) -> Option<Self> {
        let before = report.errors();
        let node = Node::parse(source, report);
        let fields = Fields::new(&node, "the manifest", report);
        let name = fields.req::<String>("name", "\"our-banks\"");
        if let (Some(name), Some(node)) = (&name, fields.take("name"))
            && (!is_name(name) || name.len() > 64)
        {
            let help = "names are 1 to 64 letters, digits, `_` and `-`".to_owned();
            node.error(report, format!("`{}` cannot be a pack's name", name.escape_debug()), "", Some(help));
        }
        let version = fields.req::<PackVersion>("version", "\"2026.11.30\"");
        let mut profiles = Vec::new();
        match fields.take("files") {
            Some(node) => {
                let files = Fields::new(node, "[files]", report);
                for entry in files.rest() {
                    let stem = entry.key.strip_suffix(".toml").filter(|stem| is_name(stem) && is_profile(&entry.key));
                    let digest = entry.value.as_str().and_then(digest);
                    if stem.is_none() {
                        let title = format!("`{}` cannot be a profile's file", entry.key.escape_debug());
                        let help = "it is named as in \"newbank.toml\", and lies in the folder itself".to_owned();
                        report.error(source, entry.key_span.clone(), title, "", Some(help));
                    }
                    if digest.is_none() {
                        let help = "write its SHA-256 as 64 hexadecimal digits in a text".to_owned();
                        entry.value.error(report, "this is no digest", "", Some(help));
                    }
                    profiles.extend(stem.map(ToOwned::to_owned).zip(digest));
                }
                files.finish();
                if profiles.len() > MOST_PROFILES {
                    let help = "make two packs of it".to_owned();
                    node.error(report, format!("more than {MOST_PROFILES} profiles"), "", Some(help));
                }
            }
            None => fields.missing("files", "{ \"newbank.toml\" = \"…\" }"),
        }
        fields.finish();
        profiles.sort();
        let manifest = Self { name: name?, version: version?, profiles };
        (report.errors() == before).then_some(manifest)
    }

    /// Returns the text of the manifest.
    pub fn to_toml(&self) -> String {
        let mut text = format!("name    = \"{}\"\nversion = \"{}\"\n\n[files]\n", self.name, self.version);
        for (name, digest) in &self.profiles {
            let _ = writeln!(text, "\"{name}.toml\" = \"{}\"", hex(digest));
        }
        text
    }
}

/// Returns whether a file of this name in a pack's folder is one of its profiles.
pub(super) fn is_profile(file: &str) -> bool {
    file.ends_with(".toml") && !file.starts_with('.') && file != MANIFEST_FILE
}

fn digest(text: &str) -> Option<[u8; 32]> {
    let pairs = text.as_bytes().chunks(2);
    let bytes = pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
    // A sign is no digit.
    let plain = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    bytes.collect::<Option<Vec<u8>>>().filter(|_| plain)?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<PackManifest, Vec<String>> {
        let report = Diagnostics::new();
        let manifest = PackManifest::parse(&SourceText::new(MANIFEST_FILE, text), &report);
        manifest.ok_or_else(|| report.into_diagnostics().iter().map(|found| found.one_line()).collect())
    }

    #[test]
    fn a_manifest_is_read_as_it_was_written() {
        let profiles = vec![("newbank".to_owned(), [7; 32]), ("scb".to_owned(), [0xab; 32])];
        let manifest =
            PackManifest { name: "our-banks".to_owned(), version: PackVersion::parse("2026.11.30").unwrap(), profiles };
        assert_eq!(read(&manifest.to_toml()), Ok(manifest));
    }

    #[test]
    fn a_manifest_names_files_of_its_folder_alone() {
        let digest = "ab".repeat(32);
        for name in ["../scb.toml", "a/b.toml", "/etc/x.toml", "scb", "pack.toml", ".toml", "sc b.toml", ".x.toml"] {
            let text = format!("name = \"x\"\nversion = \"1\"\n[files]\n\"{name}\" = \"{digest}\"\n");
            let found = read(&text).unwrap_err();
            assert!(found.len() == 1 && found[0].starts_with("pack.toml:4:1: error: `"), "{found:?}");
        }
    }

    #[test]
    fn mistakes_of_a_manifest_are_told_with_their_place() {
        let found = read("name = \"a b\"\nversion = \"1.x\"\n[files]\n\"a.toml\" = \"+1\"\n").unwrap_err().join("\n");
        for part in
            ["pack.toml:1:8: error: `a b`", "pack.toml:2:11: error: `1.x` is no version", "pack.toml:4:12: error"]
        {
            assert!(found.contains(part), "{part}\nin\n{found}");
        }
        let found = read("").unwrap_err().join("\n");
        assert!(["`name`", "`version`", "`files`"].iter().all(|key| found.contains(key)), "{found}");
        let many: String = (0..=MOST_PROFILES).map(|n| format!("\"p{n}.toml\" = \"{}\"\n", "00".repeat(32))).collect();
        let found = read(&format!("name = \"x\"\nversion = \"1\"\n[files]\n{many}")).unwrap_err();
        assert!(found[0].contains("more than 256 profiles"), "{found:?}");
    }

    #[test]
    fn versions_are_compared_number_by_number() {
        let version = |text| PackVersion::parse(text).unwrap();
        assert!(version("2026.9.30") < version("2026.11.1"));
        assert!(version("2") < version("2.0.1") && version("10") > version("9.9.9.9"));
        assert!(version("2").cmp(&version("2.0")).is_eq());
        for text in ["", "1.", ".1", "1.2.3.4.5", "v1", "-1", "+1", "1.0-rc", "4294967296", "1 "] {
            assert!(PackVersion::parse(text).is_err(), "{text}");
        }
    }
}
