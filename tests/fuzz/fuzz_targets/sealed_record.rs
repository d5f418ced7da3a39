#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| countersign::fuzzing::try_on("sealed_record", data));
