//! A second process that outlives ours for a moment: it ends the brokers and removes the directories that a command left behind
//! because it was killed. It is told on its standard input what there is; that input's end is the sign to clean up. `compare` and
//! `engine` start it. It never touches what it was not told of.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, BufRead, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::rc::Rc;

use rustix::process::{Pid, Signal, kill_process_group};
use serde::{Deserialize, Serialize};

use crate::error::Error;

/// The hidden command of `ringlog-bench` that runs [`serve`].
pub const COMMAND: &str = "guard";

/// What the guard is told, one JSON value a line.
#[derive(Debug, Serialize, Deserialize)]
enum Notice {
    GroupStarted(i32),
    GroupEnded(i32),
    DirectoryMade(PathBuf),
    DirectoryRemoved(PathBuf),
}

/// The guard as a command sees it.
#[derive(Debug)]
pub struct Guard {
    process: Child,
}

impl Guard {
    /// Starts it: `executable` is `ringlog-bench`.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(executable: &Path) -> Result<Self, Error> {
        // A group of its own, so that a terminal's Ctrl-C does not end it together with us.
        let process = Command::new(executable)
            .arg(COMMAND)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(Error::io(executable))?;
        Ok(Self { process })
    }

    /// A process group that must not outlive us.
    ///
    /// # Errors
    /// The guard has ended.
    pub fn group_started(&self, group: Pid) -> Result<(), Error> {
        self.tell(&Notice::GroupStarted(group.as_raw_nonzero().get()))
    }

    /// The group has ended: its number may soon be somebody else's.
    ///
    /// # Errors
    /// The guard has ended.
    pub fn group_ended(&self, group: Pid) -> Result<(), Error> {
        self.tell(&Notice::GroupEnded(group.as_raw_nonzero().get()))
    }

    /// A directory that must not outlive us.
    ///
    /// # Errors
    /// The guard has ended.
    pub fn directory_made(&self, path: &Path) -> Result<(), Error> {
        self.tell(&Notice::DirectoryMade(absolute(path)?))
    }

    /// The directory is gone.
    ///
    /// # Errors
    /// The guard has ended.
    pub fn directory_removed(&self, path: &Path) -> Result<(), Error> {
        self.tell(&Notice::DirectoryRemoved(absolute(path)?))
    }

    fn tell(&self, notice: &Notice) -> Result<(), Error> {
        let lost =
            |error: &dyn std::fmt::Display| Error::Failed(format!("the process that cleans up after a kill is gone: {error}"));
        let mut line = serde_json::to_string(notice).map_err(|error| lost(&error))?;
        line.push('\n');
        let Some(mut input) = self.process.stdin.as_ref() else { return Err(lost(&"it has no input")) };
        input.write_all(line.as_bytes()).map_err(|error| lost(&error))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// A directory of work, which goes when this is dropped, or by the guard when we are killed.
#[derive(Debug)]
pub struct Work {
    path: PathBuf,
    guard: Rc<Guard>,
}

impl Work {
    /// Makes it, and `parent` where that is not there.
    ///
    /// # Errors
    /// It cannot be made; or there is one of that name, which is not ours: a directory is only removed by whoever made it.
    pub fn make(parent: &Path, name: &str, guard: &Rc<Guard>) -> Result<Self, Error> {
        fs::create_dir_all(parent).map_err(Error::io(parent))?;
        let path = parent.join(name);
        fs::create_dir(&path).map_err(Error::io(&path))?;
        let work = Self { path, guard: Rc::clone(guard) };
        guard.directory_made(&work.path)?;
        Ok(work)
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        match remove_tree(&self.path) {
            Ok(()) => drop(self.guard.directory_removed(&self.path)),
            // The guard tries again once we have ended.
            Err(error) => eprintln!("ringlog-bench: {} cannot be removed: {error}", self.path.display()),
        }
    }
}

/// Removes a directory with all that is in it. A wide one's entries are removed by several threads: each waits for the filesystem's
/// journal most of the time, and one after the other thousands of partitions take minutes.
///
/// # Errors
/// Something cannot be removed.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    const WIDE: usize = 64;
    const THREADS: usize = 16;
    if fs::symlink_metadata(path)?.is_symlink() {
        return fs::remove_file(path);
    }
    let entries = fs::read_dir(path)?.collect::<io::Result<Vec<_>>>()?;
    let remove = |entry: &fs::DirEntry| {
        if entry.file_type()?.is_dir() { remove_tree(&entry.path()) } else { fs::remove_file(entry.path()) }
    };
    if entries.len() < WIDE {
        entries.iter().try_for_each(remove)?;
    } else {
        std::thread::scope(|scope| {
            let parts = entries.chunks(entries.len().div_ceil(THREADS));
            let threads: Vec<_> = parts.map(|part| scope.spawn(move || part.iter().try_for_each(remove))).collect();
            let ended =
                threads.into_iter().map(|thread| thread.join().unwrap_or_else(|_| Err(io::Error::other("a thread panicked"))));
            ended.collect::<Vec<_>>().into_iter().collect::<io::Result<()>>()
        })?;
    }
    fs::remove_dir(path)
}

fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::path::absolute(path).map_err(Error::io(path))
}

/// The guard's own life: listens until the input ends, then cleans up what is still there.
pub fn serve(input: impl BufRead) {
    let mut groups = BTreeSet::new();
    let mut directories = BTreeSet::new();
    for line in input.lines() {
        let Ok(line) = line else { break };
        match serde_json::from_str(&line) {
            Ok(Notice::GroupStarted(group)) => {
                groups.insert(group);
            }
            Ok(Notice::GroupEnded(group)) => {
                groups.remove(&group);
            }
            Ok(Notice::DirectoryMade(path)) => {
                directories.insert(path);
            }
            Ok(Notice::DirectoryRemoved(path)) => {
                directories.remove(&path);
            }
            // Half a line, cut off by the kill.
            Err(_) => break,
        }
    }
    for group in groups.into_iter().filter_map(Pid::from_raw) {
        let _ = kill_process_group(group, Signal::KILL);
    }
    for path in directories {
        // The killed may still be writing for a moment.
        for _ in 0..100 {
            match remove_tree(&path) {
                Ok(()) => break,
                // One of its files that went by itself is no reason to leave the others.
                Err(_) if fs::symlink_metadata(&path).is_err() => break,
                Err(_) => std::thread::sleep(std::time::Duration::from_millis(50)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_cleaned_up_and_nothing_else() {
        let directory = tempfile::tempdir().unwrap();
        let (left, gone) = (directory.path().join("left"), directory.path().join("gone"));
        for at in 0..200 {
            fs::create_dir_all(left.join(format!("deep/{at}/er"))).unwrap();
            fs::write(left.join(format!("deep/{at}/file")), "x").unwrap();
        }
        fs::create_dir_all(&gone).unwrap();
        let sleep = || Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
        let (mut left_over, mut ended) = (sleep(), sleep());
        let (first, second) = (left_over.id() as i32, ended.id() as i32);
        let told = [
            Notice::GroupStarted(first),
            Notice::GroupStarted(second),
            Notice::DirectoryMade(left.clone()),
            Notice::DirectoryMade(gone.clone()),
            Notice::GroupEnded(second),
            Notice::DirectoryRemoved(gone.clone()),
        ];
        let mut input: String = told.iter().map(|notice| serde_json::to_string(notice).unwrap() + "\n").collect();
        input.push_str("{\"DirectoryMade\":\"/ha"); // a line that a kill cut off
        serve(input.as_bytes());
        assert!(!left.exists() && gone.exists());
        assert!(!left_over.wait().unwrap().success());
        assert!(ended.try_wait().unwrap().is_none(), "a group that ended is nobody of ours");
        ended.kill().unwrap();
        ended.wait().unwrap();
    }
}
