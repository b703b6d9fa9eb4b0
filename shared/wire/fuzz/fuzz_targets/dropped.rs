//! `cargo fuzz run dropped`, in `shared/wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| observer_wire_fuzz::dropped(bytes));
