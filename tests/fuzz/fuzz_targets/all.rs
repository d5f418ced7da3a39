//! All targets in one binary, which is linked once; `FUZZ_TARGET` says which one runs.
#![no_main]

use std::sync::OnceLock;

static TARGET: OnceLock<String> = OnceLock::new();

libfuzzer_sys::fuzz_target!(
    init: {
        let name = std::env::var("FUZZ_TARGET").expect("FUZZ_TARGET names a target");
        TARGET.get_or_init(|| name);
    },
    |data: &[u8]| countersign::fuzzing::try_on(TARGET.get().map_or("", String::as_str), data)
);
