//! The parsers of Elasticsearch's answers, over the fuzzers' corpus, over cut and mended copies of it, and
//! over random bytes. `PROPTEST_CASES=1000000` makes a night of it.

#[path = "../fuzz/src/targets.rs"]
#[expect(unreachable_pub, reason = "they are public to the fuzzers")]
mod targets;

use std::path::{Path, PathBuf};
use std::{fs, io};

use proptest::prelude::*;
use proptest::sample::Index;

use targets::TARGETS;

/// The corpus of one target.
fn corpus(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    read_corpus(name).unwrap_or_else(|error| panic!("corpus of {name}: {error}"))
}

fn read_corpus(name: &str) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
    let read = |path: PathBuf| Ok((path.clone(), fs::read(path)?));
    fs::read_dir(&folder)?.map(|file| read(file?.path())).collect()
}

#[test]
fn every_target_has_a_corpus_and_holds_on_it() {
    for (name, target) in TARGETS {
        let corpus = corpus(name);
        assert!(!corpus.is_empty(), "{name} has no corpus");
        for (path, bytes) in corpus {
            let held = std::panic::catch_unwind(|| target(&bytes));
            assert!(held.is_ok(), "{} breaks {name}", path.display());
        }
    }
}

#[test]
fn every_folder_of_the_corpus_has_a_target() {
    let all = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for folder in fs::read_dir(all).unwrap() {
        let name = folder.unwrap().file_name().into_string().unwrap();
        assert!(TARGETS.iter().any(|(target, _)| *target == name), "{name} is replayed by nobody");
    }
}

proptest! {
    #[test]
    fn every_target_holds_on_random_bytes(
        which in any::<Index>(),
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        TARGETS[which.index(TARGETS.len())].1(&bytes);
    }

    #[test]
    fn every_target_holds_on_its_corpus_with_a_piece_changed(
        which in any::<Index>(),
        file in any::<Index>(),
        place in any::<Index>(),
        removed in 0..4_usize,
        put in prop_oneof![
            proptest::collection::vec(any::<u8>(), 0..3),
            prop::sample::select(
                [&b"["[..], b"\"", b"\\", b"{", b"}", b"]", b",", b":", b"\\u0000", b"\xff", b"409", b"201", b"null"]
                    .map(<[u8]>::to_vec).to_vec(),
            ),
        ],
    ) {
        let (name, target) = TARGETS[which.index(TARGETS.len())];
        let corpus = corpus(name);
        let (_, mut bytes) = corpus[file.index(corpus.len())].clone();
        let at = place.index(bytes.len() + 1);
        let end = (at + removed).min(bytes.len());
        bytes.splice(at..end, put);
        target(&bytes);
    }
}
