//! `cargo fuzz run records`, in `shared/wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| observer_wire_fuzz::records(bytes));
