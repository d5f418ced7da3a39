#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign::fuzzing::try_on("token_answer", data));
