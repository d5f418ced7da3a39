//! Entry points for fuzzing, compiled only for tests and with the feature `fuzzing`.
//!
//! A target takes arbitrary bytes and panics if a property does not hold. The properties are defined in the
//! `fuzzing.rs` of the module that guarantees them, next to the code and with access to its private items. `tests/fuzz`
//! runs the targets under libFuzzer; the test below runs them on the stored corpus, and on mutations of it.

/// A fuzz target: a function that takes arbitrary bytes and panics if a property does not hold.
#[derive(Clone, Copy, Debug)]
pub struct FuzzTarget {
    /// Its name, and that of its corpus.
    pub name: &'static str,
    /// Longer inputs, in bytes, are not tried: their readers have limits of their own, or an operator writes them.
    pub longest: usize,
    /// Number of mutations of the corpus that an ordinary test run tries; lower for a target that takes long.
    pub mutations: u64,
    run: fn(&[u8]),
}

/// All fuzz targets, sorted by name.
pub const TARGETS: [FuzzTarget; 9] = [
    FuzzTarget { name: "audit_log", longest: 8 << 10, mutations: 150, run: crate::observe::audit::fuzzing::audit_log },
    FuzzTarget { name: "authority", longest: 1 << 10, mutations: 500, run: crate::route::fuzzing::authority },
    FuzzTarget { name: "challenge", longest: 4 << 10, mutations: 500, run: crate::provider::fuzzing::challenge },
    FuzzTarget { name: "config", longest: 8 << 10, mutations: 12, run: crate::config::fuzzing::config },
    FuzzTarget { name: "path", longest: 4 << 10, mutations: 500, run: crate::route::fuzzing::path },
    FuzzTarget { name: "profile", longest: 8 << 10, mutations: 30, run: crate::provider::fuzzing::profile },
    FuzzTarget { name: "refusal", longest: 8 << 10, mutations: 500, run: crate::provider::fuzzing::refusal },
    FuzzTarget { name: "sealed_record", longest: 4 << 10, mutations: 300, run: crate::store::fuzzing::sealed_record },
    FuzzTarget { name: "token_answer", longest: 8 << 10, mutations: 500, run: crate::provider::fuzzing::token_answer },
];

/// Runs the target of this name on an input.
///
/// # Panics
///
/// When there is no such target, or when a promise does not hold.
pub fn try_on(name: &str, data: &[u8]) {
    let target = TARGETS.iter().find(|target| target.name == name);
    let target = target.unwrap_or_else(|| panic!("there is no target called {name:?}"));
    if data.len() <= target.longest {
        (target.run)(data);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::{Path, PathBuf};

    use super::*;

    /// Texts that mean something to some reader.
    const WORDS: [&[u8]; 24] = [
        b"%2e",
        b"%2f",
        b"%25",
        b"%c0%ae",
        b"..",
        b"//",
        b";",
        b"\\",
        b"\0",
        b"\n",
        b"\r\n",
        b"\"",
        b"\\\"",
        b",",
        b"=",
        b"{",
        b"]",
        b"null",
        b"-1",
        b"1e999",
        b"Bearer error=",
        b"\xef\xbb\xbf",
        b"\xff",
        b"401",
    ];

    /// SplitMix64: equal seeds, equal mutations.
    struct Dice(u64);

    impl Dice {
        fn below(&mut self, end: usize) -> usize {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = self.0;
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((mixed ^ (mixed >> 31)) % end.max(1) as u64).expect("below a usize")
        }
    }

    fn mutated(corpus: &[(PathBuf, Vec<u8>)], random: &mut Dice) -> Vec<u8> {
        let mut data = corpus[random.below(corpus.len())].1.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(data.len() + 1);
            let end = (at + random.below(16)).min(data.len());
            match random.below(6) {
                0 if at < data.len() => data[at] ^= 1 << random.below(8),
                1 => drop(data.drain(at..end)),
                2 => data.truncate(at),
                3 => {
                    let again = data[at..end].to_vec();
                    data.splice(at..at, again);
                }
                4 => {
                    let other = &corpus[random.below(corpus.len())].1;
                    data.truncate(at);
                    data.extend_from_slice(&other[random.below(other.len() + 1)..]);
                }
                _ => drop(data.splice(at..at, WORDS[random.below(WORDS.len())].iter().copied())),
            }
        }
        data
    }

    fn corpus(target: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
        let listed = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        let mut files: Vec<PathBuf> = listed.map(|entry| entry.unwrap().path()).collect();
        files.sort();
        files.into_iter().map(|path| (path.clone(), fs::read(path).unwrap())).collect()
    }

    /// Runs a target; a failure shows the input that does not hold.
    fn holds(target: FuzzTarget, data: &[u8], from: &dyn std::fmt::Display) {
        let held = std::panic::catch_unwind(|| try_on(target.name, data));
        assert!(held.is_ok(), "{} does not hold for {from}: {:?}", target.name, String::from_utf8_lossy(data));
    }

    #[test]
    fn every_target_holds_on_its_corpus_and_on_mutations_of_it() {
        std::thread::scope(|scope| {
            for target in TARGETS {
                scope.spawn(move || {
                    let corpus = corpus(target.name);
                    assert!(corpus.len() >= 12, "{} has only {} files", target.name, corpus.len());
                    for (path, data) in &corpus {
                        assert!(data.len() <= target.longest, "{} is too long to be tried", path.display());
                        holds(target, data, &path.display());
                    }
                    let mut random = Dice(7);
                    for round in 0..target.mutations {
                        let data = mutated(&corpus, &mut random);
                        holds(target, &data, &format_args!("mutation {round}"));
                    }
                });
            }
        });
    }

    #[test]
    fn every_target_has_a_program_and_a_corpus() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
        let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
        let names = |of: &str| {
            let listed = fs::read_dir(folder.join(of)).unwrap();
            let mut names: Vec<String> =
                listed.map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned()).collect();
            names.sort();
            names
        };
        let targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
        assert_eq!(names("corpus"), targets);
        let mut programs = names("fuzz_targets");
        programs.retain(|name| name != "all");
        assert_eq!(programs, targets);
        assert!(programs.iter().all(|name| manifest.contains(&format!("name = \"{name}\""))));
    }

    /// Dependencies of one version are built once for the proxy, its tests and the fuzzer.
    #[test]
    fn the_fuzzers_lock_file_follows_the_proxys() {
        let versions = |path: &str| -> Vec<(String, String)> {
            let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
            let lock: toml::Table = text.parse().unwrap();
            let packages = lock["package"].as_array().unwrap().iter();
            let field = |package: &toml::Value, name: &str| package[name].as_str().unwrap().to_owned();
            packages.map(|package| (field(package, "name"), field(package, "version"))).collect()
        };
        let (own, fuzzing) = (versions("Cargo.lock"), versions("tests/fuzz/Cargo.lock"));
        let own_crates = ["arbitrary", "countersign-fuzz", "libfuzzer-sys"];
        let strange: Vec<_> = fuzzing
            .iter()
            .filter(|package| !own.contains(package) && !own_crates.contains(&package.0.as_str()))
            .collect();
        assert!(strange.is_empty(), "take these versions from Cargo.lock: {strange:?}");
    }
}
