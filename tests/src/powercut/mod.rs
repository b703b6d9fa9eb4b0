//! The disk as a power cut leaves it: only what was synced, names of files included.
//!
//! A shim below the C library keeps a journal of what a process did to its files and of what it told
//! others, in one order ([`Journal`]). Replayed up to any entry it is a disk, and what had been told
//! by then; so one run is as many power cuts as it has entries. Linux only; it needs `cc`.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use tempfile::TempDir;

use crate::process::{Settings, settings};

/// Smallest piece that a disk writes whole, in bytes.
const SECTOR_BYTES: usize = 512;

/// Bytes of an entry before its text: kind, two numbers, length.
const HEAD_BYTES: usize = 1 + 8 + 8 + 4;

/// Settings that have a program keep a journal in `folder`, of what it does below the folder it runs
/// in.
///
/// # Panics
///
/// When the shim cannot be compiled.
#[must_use]
pub fn journalled(folder: &Path) -> Settings {
    settings(&[
        ("LD_PRELOAD", shim().display()),
        ("POWERCUT_JOURNAL", folder.join("journal").display()),
    ])
}

fn shim() -> &'static Path {
    static SHIM: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let compile = || {
        let folder = crate::child::folder("powercut");
        let shim = folder.path().join("shim.so");
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/powercut/shim.c");
        let mut command = Command::new("cc");
        command.args(["-shared", "-fPIC", "-O2", "-o"]).arg(&shim).arg(source).arg("-ldl");
        let compiled = command.status().expect("cc is there: Rust links with it");
        assert!(compiled.success(), "the shim does not compile");
        (folder, shim)
    };
    &SHIM.get_or_init(compile).1
}

/// What a disk keeps of what was not synced when the power went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsynced {
    /// Nothing: the strictest disk that keeps its word.
    Lost,
    /// Any of it, sector by sector, as this seed says: writes reach a disk in any order.
    Torn(u64),
}

/// What a process did and told, in order.
#[derive(Debug)]
pub struct Journal {
    bytes: Vec<u8>,
    /// Starts of entries.
    entries: Vec<usize>,
    /// Files whose syncs the disk answers and does not carry out, by the end of their names.
    lies_about: Option<&'static str>,
}

impl Journal {
    /// Reads what a program with the settings of [`journalled`] left in `folder`.
    ///
    /// # Panics
    ///
    /// When there is no journal.
    #[must_use]
    pub fn read(folder: &Path) -> Self {
        let bytes = fs::read(folder.join("journal")).expect("the program ran under the shim");
        let mut entries = Vec::new();
        let mut at = 0;
        while let Some(head) = bytes.get(at..at + HEAD_BYTES) {
            let length = u32::from_ne_bytes(head[17..].try_into().expect("four bytes")) as usize;
            if bytes.len() < at + HEAD_BYTES + length {
                break; // The process was killed while it wrote this.
            }
            entries.push(at);
            at += HEAD_BYTES + length;
        }
        Self { bytes, entries, lies_about: None }
    }

    /// The same on a disk that says it has synced files whose names end so, and has not.
    #[must_use]
    pub fn with_lies_about(mut self, end: &'static str) -> Self {
        self.lies_about = Some(end);
        self
    }

    /// Entries, each of which may be the last before the power goes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was done at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// First entry by which something was told; before it a program is only starting.
    #[must_use]
    pub fn first_told(&self) -> usize {
        let told = |at: &usize| self.bytes[*at] == SENT;
        self.entries.iter().position(told).unwrap_or(self.len())
    }

    /// Cuts the power after as many entries as `ends` say, in growing order, and gives each moment
    /// to `look`.
    pub fn cut(&self, ends: &[usize], mut look: impl FnMut(&Moment)) {
        let mut moment = Moment::default();
        let mut done = 0;
        for &end in ends {
            for entry in &self.entries[done..end.min(self.len())] {
                self.replay(*entry, &mut moment);
            }
            done = end.min(self.len());
            look(&moment);
        }
    }

    fn replay(&self, at: usize, moment: &mut Moment) {
        let number = |from: usize| {
            let bytes = self.bytes[at + from..at + from + 8].try_into().expect("eight bytes");
            u64::from_ne_bytes(bytes)
        };
        let length = &self.bytes[at + 17..at + HEAD_BYTES];
        let length = u32::from_ne_bytes(length.try_into().expect("four bytes")) as usize;
        let text = &self.bytes[at + HEAD_BYTES..at + HEAD_BYTES + length];
        let path = || PathBuf::from(String::from_utf8_lossy(text).into_owned());
        let size = |number: u64| usize::try_from(number).expect("files of a test are small");
        match self.bytes[at] {
            OPEN => moment.open(number(1), &path(), number(9) == 1),
            WRITE => moment.change(number(1), Change::Write(size(number(9)), text.to_vec())),
            TRUNCATE => moment.change(number(1), Change::Size(size(number(9)))),
            SYNC => moment.sync(number(1), self.lies_about),
            SYNC_FOLDER => moment.sync_folder(&path()),
            RENAME => {
                let text = String::from_utf8_lossy(text).into_owned();
                let (from, to) = text.split_once('\0').expect("two names");
                moment.rename(Path::new(from), Path::new(to));
            }
            UNLINK => drop(moment.folder(&path()).now.remove(&name(&path()))),
            MKDIR => drop(moment.folder(&path()).now.insert(name(&path()), Node::Folder)),
            SENT => moment.told.entry(number(1)).or_default().extend_from_slice(text),
            other => panic!("entry of kind {other}"),
        }
    }
}

const OPEN: u8 = 1;
const WRITE: u8 = 2;
const TRUNCATE: u8 = 3;
const SYNC: u8 = 4;
const SYNC_FOLDER: u8 = 5;
const RENAME: u8 = 6;
const UNLINK: u8 = 7;
const MKDIR: u8 = 8;
const SENT: u8 = 9;

/// A moment at which the power may go.
#[derive(Debug, Default)]
pub struct Moment {
    files: Vec<File>,
    /// Files by the number that the process's own file system gave them; it gives some twice.
    numbers: HashMap<u64, usize>,
    folders: HashMap<PathBuf, Folder>,
    /// What was sent, by file descriptor.
    told: BTreeMap<u64, Vec<u8>>,
}

#[derive(Debug, Default)]
struct File {
    /// Last part of the name it was opened by.
    name: String,
    synced: Vec<u8>,
    unsynced: Vec<Change>,
}

#[derive(Clone, Debug)]
enum Change {
    Write(usize, Vec<u8>),
    Size(usize),
}

#[derive(Debug, Default)]
struct Folder {
    now: BTreeMap<String, Node>,
    synced: BTreeMap<String, Node>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Node {
    File(usize),
    Folder,
}

fn name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

impl Moment {
    /// Everything that was told so far, each socket's words together.
    #[must_use]
    pub fn told(&self) -> String {
        let all = self.told.values().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        all.collect::<Vec<_>>().join("\n")
    }

    /// Makes the disk in `target`, which stands for `root`: the folder that the program ran in.
    ///
    /// # Panics
    ///
    /// When `target` cannot be written.
    pub fn disk(&self, root: &Path, target: &Path, unsynced: Unsynced) {
        let mut coins = Coins(match unsynced {
            Unsynced::Lost => None,
            Unsynced::Torn(seed) => Some(seed | 1),
        });
        self.write_folder(root, target, &mut coins);
    }

    fn write_folder(&self, from: &Path, target: &Path, coins: &mut Coins) {
        fs::create_dir_all(target).expect("the folder of a test is writable");
        let Some(folder) = self.folders.get(from) else { return };
        let mut nodes = folder.synced.clone();
        for (name, node) in &folder.now {
            if coins.kept() {
                nodes.insert(name.clone(), *node);
            }
        }
        for (name, node) in nodes {
            let target = target.join(&name);
            match node {
                Node::Folder => self.write_folder(&from.join(&name), &target, coins),
                Node::File(file) => {
                    let content = self.files[file].after_the_cut(coins);
                    fs::write(target, content).expect("the folder of a test is writable");
                }
            }
        }
    }

    fn folder(&mut self, of: &Path) -> &mut Folder {
        let parent = of.parent().unwrap_or(Path::new("/"));
        self.folders.entry(parent.to_owned()).or_default()
    }

    fn open(&mut self, number: u64, path: &Path, emptied: bool) {
        let name = name(path);
        let count = self.files.len();
        let node = *self.folder(path).now.entry(name.clone()).or_insert(Node::File(count));
        let Node::File(file) = node else { return };
        if file == count {
            self.files.push(File { name, ..File::default() });
        }
        self.numbers.insert(number, file);
        if emptied {
            self.change(number, Change::Size(0));
        }
    }

    fn change(&mut self, number: u64, change: Change) {
        let file = self.numbers[&number];
        self.files[file].unsynced.push(change);
    }

    fn sync(&mut self, number: u64, lies_about: Option<&str>) {
        let file = self.numbers[&number];
        let file = &mut self.files[file];
        if lies_about.is_some_and(|end| file.name.ends_with(end)) {
            return;
        }
        for change in std::mem::take(&mut file.unsynced) {
            change.apply(&mut file.synced);
        }
    }

    fn sync_folder(&mut self, path: &Path) {
        let folder = self.folders.entry(path.to_owned()).or_default();
        folder.synced = folder.now.clone();
    }

    fn rename(&mut self, from: &Path, to: &Path) {
        let node = self.folder(from).now.remove(&name(from)).expect("what is renamed was there");
        self.folder(to).now.insert(name(to), node);
    }
}

impl File {
    fn after_the_cut(&self, coins: &mut Coins) -> Vec<u8> {
        let mut content = self.synced.clone();
        for change in &self.unsynced {
            match change {
                Change::Size(_) if coins.kept() => change.apply(&mut content),
                Change::Size(_) => {}
                Change::Write(at, bytes) => {
                    let mut at = *at;
                    for sector in bytes.chunks(SECTOR_BYTES) {
                        if coins.kept() {
                            Change::Write(at, sector.to_vec()).apply(&mut content);
                        }
                        at += sector.len();
                    }
                }
            }
        }
        content
    }
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Self::Size(size) => content.resize(*size, 0),
            Self::Write(at, bytes) => {
                let end = at + bytes.len();
                content.resize(content.len().max(end), 0);
                content[*at..end].copy_from_slice(bytes);
            }
        }
    }
}

/// Tosses for what a torn disk keeps; a strict one keeps nothing.
struct Coins(Option<u64>);

impl Coins {
    fn kept(&mut self) -> bool {
        let Some(state) = &mut self.0 else { return false };
        // xorshift: any spread will do, and the same seed must do the same.
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state >> 63 == 1
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::time::Duration;

    use super::*;
    use crate::child::{GuardedChild, folder};

    const TWO_WRITES: &str = r#"
        #include <fcntl.h>
        #include <stdio.h>
        #include <unistd.h>
        int main(void) {
            int folder = open(".", O_RDONLY), a = open("a", O_CREAT | O_WRONLY, 0600);
            if (write(a, "safe", 4) != 4 || fsync(a) || fsync(folder)) return 1;
            int b = open("b", O_CREAT | O_WRONLY, 0600);
            if (write(a, " lost", 5) != 5 || write(b, "nameless", 8) != 8 || fsync(b)) return 1;
            return rename("a", "c");
        }
    "#;

    /// Runs [`TWO_WRITES`] under the shim; gives the files of the disk as of its end.
    async fn run() -> impl Fn(Unsynced) -> BTreeMap<String, String> {
        let (build, kept, run) = (folder("build"), folder("journal"), folder("two-writes"));
        let (source, program) = (build.path().join("x.c"), build.path().join("x"));
        fs::write(&source, TWO_WRITES).unwrap();
        assert!(Command::new("cc").arg("-o").args([&program, &source]).status().unwrap().success());
        let root = run.path().canonicalize().unwrap();
        let mut command = Command::new(program);
        command.current_dir(&root).envs(journalled(kept.path()));
        let mut child = GuardedChild::spawn("two-writes", command, run);
        let ended = child.wait(Duration::from_secs(20)).await;
        assert!(ended.success(), "{}", child.output());
        let journal = Journal::read(kept.path());
        move |unsynced| {
            let disk = folder("disk");
            journal.cut(&[journal.len()], |moment| moment.disk(&root, disk.path(), unsynced));
            let files = fs::read_dir(disk.path()).unwrap().map(|file| {
                let path = file.unwrap().path();
                (name(&path), fs::read_to_string(path).unwrap())
            });
            files.collect()
        }
    }

    #[tokio::test]
    async fn only_what_was_synced_is_kept_names_included() {
        let files = run().await(Unsynced::Lost);
        assert_eq!(files, BTreeMap::from([("a".to_owned(), "safe".to_owned())]));
    }

    #[tokio::test]
    async fn a_torn_disk_keeps_any_of_the_rest() {
        let files = run().await;
        let seeds = (1..100_u64).map(|seed| seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let seen: BTreeSet<String> = seeds
            .flat_map(|seed| files(Unsynced::Torn(seed)))
            .map(|(name, text)| format!("{name}={text}"))
            .collect();
        for expected in ["a=safe", "a=safe lost", "b=nameless", "c=safe lost"] {
            assert!(seen.contains(expected), "{expected}: {seen:?}");
        }
    }
}
