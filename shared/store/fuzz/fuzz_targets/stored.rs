//! `cargo fuzz run stored`, in `shared/store`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| observer_store_fuzz::stored(bytes));
