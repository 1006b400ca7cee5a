#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| headroom_tests::fuzz_targets::fdinfo(data));
