//! `cargo fuzz run hello`, in `shared/wire`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| observer_wire_fuzz::hello(bytes));
