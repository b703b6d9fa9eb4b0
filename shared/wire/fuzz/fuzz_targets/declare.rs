//! `cargo fuzz run declare`, in `shared/wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| observer_wire_fuzz::declare(bytes));
