//! What machine this is, and whether a measurement on it can be trusted. Every run stores it; it changes nothing.
//!
//! [`parse`] reads what the kernel writes into /proc and /sys, and is pure; [`host`], [`storage`], [`ring`] and [`quiet`] look
//! around through [`System`]. Containers hide much of this: what cannot be seen is left out, or named as not known, and never
//! ends a command.

mod host;
mod parse;
mod quiet;
mod ring;
mod storage;

use std::fs;
use std::path::{Path, PathBuf};

use comfy_table::{ContentArrangement, Table, presets};
use serde::{Deserialize, Serialize};

pub use storage::{Room, room};

/// Where a run took place.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// What a reader sees first, in order: name and value.
    pub facts: Vec<(String, String)>,
    /// Why figures from here may not be believed.
    pub warnings: Vec<String>,
}

impl Machine {
    /// Looks around: at the host, at the filesystem that `directory` is or will be on, and for 0.2 s at who else is at work. It
    /// takes memory for a moment, to see what fresh memory costs. About a second at most.
    #[must_use]
    pub fn probe(directory: &Path) -> Self {
        let system = System::real();
        let mut machine = Self::default();
        if cfg!(debug_assertions) {
            machine.warn("this is a debug build of ringlog-bench: build it with --release");
        }
        host::look(&system, &mut machine);
        storage::look(&system, directory, &mut machine);
        ring::look(&system, &mut machine);
        quiet::look(&system, &mut machine);
        machine
    }

    /// What may slow a run down, counted up to now; for [`Machine::ran_since`].
    #[must_use]
    pub fn brakes() -> Brakes {
        Brakes(quiet::Brakes::read(&System::real()))
    }

    /// Adds what happened during a run that has ended.
    pub fn ran_since(&mut self, before: &Brakes) {
        quiet::Brakes::read(&System::real()).tell_since(&before.0, self);
    }

    /// As a table for the terminal; the warnings are the last rows.
    #[must_use]
    pub fn table(&self) -> Table {
        let mut table = Table::new();
        table.load_style(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
        for (name, value) in &self.facts {
            table.add_row([name.as_str(), value.as_str()]);
        }
        for warning in &self.warnings {
            table.add_row(["warning", warning.as_str()]);
        }
        table
    }

    fn fact(&mut self, name: &str, value: impl Into<String>) {
        self.facts.push((name.to_owned(), value.into()));
    }

    fn warn(&mut self, warning: impl Into<String>) {
        self.warnings.push(warning.into());
    }
}

/// Counters of what slows a machine down.
#[derive(Clone, Copy, Debug)]
pub struct Brakes(quiet::Brakes);

/// The size of this machine's largest cache, where the kernel tells: working sets have to be far beyond it.
#[must_use]
pub fn cache_bytes_max() -> Option<u64> {
    host::caches(&System::real()).into_iter().map(|cache| cache.bytes).max()
}

/// Memory that can be had without swapping, cgroup limits counted; `None` where /proc does not tell.
#[must_use]
pub fn memory_available_bytes() -> Option<u64> {
    host::memory_available_bytes(&System::real())
}

/// The kernel's files, below a root that tests put elsewhere.
struct System {
    root: PathBuf,
}

impl System {
    fn real() -> Self {
        Self { root: PathBuf::from("/") }
    }

    /// A path of the machine, under the root.
    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// A file's text without its last line end; `None` where it is not there, or not for us.
    fn read(&self, path: &str) -> Option<String> {
        let text = fs::read(self.path(path)).ok()?;
        Some(String::from_utf8_lossy(&text).trim_end().to_owned())
    }

    fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.trim().parse().ok()
    }

    /// The names in a directory, sorted.
    fn names(&self, path: &str) -> Vec<String> {
        let Ok(entries) = fs::read_dir(self.path(path)) else { return Vec::new() };
        let mut names: Vec<String> = entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        names
    }

    /// Where a link leads, as its last name.
    fn link_name(&self, path: &str) -> Option<String> {
        let target = fs::read_link(self.path(path)).ok()?;
        Some(target.file_name()?.to_str()?.to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine that shows nothing but these files.
    pub(super) fn system(files: &[(&str, &str)]) -> (tempfile::TempDir, System) {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path.trim_start_matches('/'));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let system = System { root: root.path().to_owned() };
        (root, system)
    }

    pub(super) fn fact<'a>(machine: &'a Machine, name: &str) -> &'a str {
        machine.facts.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
    }

    #[test]
    fn a_machine_that_shows_nothing_is_no_failure() {
        let (root, system) = system(&[]);
        let mut machine = Machine::default();
        host::look(&system, &mut machine);
        storage::look(&system, root.path(), &mut machine);
        ring::look(&system, &mut machine);
        quiet::look(&system, &mut machine);
        assert!(!machine.facts.is_empty());
        assert!(machine.facts.iter().all(|(name, value)| !name.is_empty() && !value.is_empty()), "{:?}", machine.facts);
    }

    #[test]
    fn this_machine_is_seen() {
        let directory = tempfile::tempdir().unwrap();
        let machine = Machine::probe(&directory.path().join("not/there/yet"));
        for name in ["cpu", "memory", "kernel", "filesystem", "free space", "O_DIRECT", "io_uring", "limits"] {
            assert!(!fact(&machine, name).is_empty(), "{name}: {:?}", machine.facts);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0, "it leaves nothing behind");
        let table = machine.table().to_string();
        assert!(table.contains("io_uring"), "{table}");
    }
}
