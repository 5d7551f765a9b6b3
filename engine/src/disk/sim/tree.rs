//! The names of the simulated filesystem: what look-ups show, and which changes of them are not durable yet. Pure: no time.
//! See [`super`] for the rules.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::io;
use std::path::{Component, Path};

use smallvec::{SmallVec, smallvec};

use super::CrashOutcome;
use super::content::Content;
use crate::disk::DirEntry;
use crate::env::random::Random;
use crate::types::TimestampMs;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct NodeId(u64);

const ROOT: NodeId = NodeId(0);

#[derive(Clone)]
enum Node {
    Dir(Dir),
    File(FileNode),
}

#[derive(Clone, Default)]
struct Dir {
    entries: BTreeMap<String, NodeId>,
    durable: BTreeMap<String, NodeId>,
}

#[derive(Clone, Default)]
pub(super) struct FileNode {
    pub(super) content: Content,
    pub(super) handles: u32,
    /// When it was last written to or cut.
    pub(super) modified: TimestampMs,
    /// Whether a name leads to it.
    named: bool,
}

/// One step of the filesystem's: all of its edits or none.
#[derive(Clone)]
struct Change {
    edits: SmallVec<[Edit; 2]>,
}

#[derive(Clone)]
struct Edit {
    dir: NodeId,
    name: String,
    to: Option<NodeId>,
}

#[derive(Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<NodeId, Node>,
    /// What is not durable yet, in order.
    pending: Vec<Change>,
    next_id: u64,
}

pub(super) fn errno(code: i32) -> io::Error {
    io::Error::from_raw_os_error(code)
}

/// The parts of a path. It starts at the root, whether it says so or not.
fn parts(path: &Path) -> io::Result<Vec<&str>> {
    let mut parts = Vec::new();
    for component in path.components() {
        match component {
            Component::RootDir | Component::CurDir => {}
            Component::Normal(part) => match part.to_str() {
                Some(part) if !part.contains('\0') => parts.push(part),
                _ => return Err(io::ErrorKind::InvalidInput.into()),
            },
            Component::ParentDir | Component::Prefix(_) => return Err(io::ErrorKind::InvalidInput.into()),
        }
    }
    Ok(parts)
}

impl Tree {
    pub(super) fn new() -> Self {
        Self { nodes: BTreeMap::from([(ROOT, Node::Dir(Dir::default()))]), pending: Vec::new(), next_id: 1 }
    }

    fn dir(&self, id: NodeId) -> io::Result<&Dir> {
        match self.nodes.get(&id) {
            Some(Node::Dir(dir)) => Ok(dir),
            _ => Err(errno(libc::ENOTDIR)),
        }
    }

    pub(super) fn file(&mut self, id: NodeId) -> &mut FileNode {
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => file,
            _ => unreachable!("a file that is open stays"),
        }
    }

    fn walk(&self, parts: &[&str]) -> io::Result<NodeId> {
        let mut at = ROOT;
        for part in parts {
            at = *self.dir(at)?.entries.get(*part).ok_or_else(|| errno(libc::ENOENT))?;
        }
        Ok(at)
    }

    /// The directory of a path, its last part, and what stands there.
    fn place<'a>(&self, path: &'a Path) -> io::Result<(NodeId, &'a str, Option<NodeId>)> {
        let parts = parts(path)?;
        let Some((name, parents)) = parts.split_last() else { return Err(errno(libc::EBUSY)) };
        let dir = self.walk(parents)?;
        let there = self.dir(dir)?.entries.get(*name).copied();
        Ok((dir, name, there))
    }

    fn is_dir(&self, id: NodeId) -> bool {
        matches!(self.nodes.get(&id), Some(Node::Dir(_)))
    }

    fn add(&mut self, node: Node) -> NodeId {
        let id = NodeId(self.next_id);
        self.next_id += 1;
        self.nodes.insert(id, node);
        id
    }

    fn change(&mut self, edits: SmallVec<[Edit; 2]>) {
        for edit in &edits {
            let Some(Node::Dir(dir)) = self.nodes.get_mut(&edit.dir) else { unreachable!("names are in directories") };
            let before = match edit.to {
                Some(to) => dir.entries.insert(edit.name.clone(), to),
                None => dir.entries.remove(&edit.name),
            };
            for (id, named) in [(before, false), (edit.to, true)] {
                if let Some(Node::File(file)) = id.and_then(|id| self.nodes.get_mut(&id)) {
                    file.named = named;
                }
            }
        }
        self.pending.push(Change { edits });
    }

    /// The file of that name, as the options want it.
    pub(super) fn open(&mut self, path: &Path, may_create: bool, must_create: bool, now: TimestampMs) -> io::Result<NodeId> {
        let (dir, name, there) = self.place(path)?;
        match there {
            Some(_) if must_create => Err(errno(libc::EEXIST)),
            Some(id) if self.is_dir(id) => Err(errno(libc::EISDIR)),
            Some(id) => Ok(id),
            None if !may_create => Err(errno(libc::ENOENT)),
            None => {
                let id = self.add(Node::File(FileNode { modified: now, ..FileNode::default() }));
                self.change(smallvec![Edit { dir, name: name.to_owned(), to: Some(id) }]);
                Ok(id)
            }
        }
    }

    /// The file of that name, for injectors and dumps.
    pub(super) fn find_file(&mut self, path: &Path) -> Option<&mut FileNode> {
        let id = self.find(path).ok()?;
        match self.nodes.get_mut(&id) {
            Some(Node::File(file)) => Some(file),
            _ => None,
        }
    }

    pub(super) fn create_dir(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name, there) = self.place(path)?;
        if there.is_some() {
            return Err(errno(libc::EEXIST));
        }
        let id = self.add(Node::Dir(Dir::default()));
        self.change(smallvec![Edit { dir, name: name.to_owned(), to: Some(id) }]);
        Ok(())
    }

    pub(super) fn list(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let dir = self.dir(self.find(path)?)?;
        let entry = |(name, id): (&String, &NodeId)| {
            let (len_bytes, modified) = match &self.nodes[id] {
                Node::File(file) => (file.content.bytes().len() as u64, file.modified),
                Node::Dir(_) => (0, TimestampMs::NONE),
            };
            DirEntry { name: name.clone(), is_dir: self.is_dir(*id), len_bytes, modified }
        };
        Ok(dir.entries.iter().map(entry).collect())
    }

    pub(super) fn rename(&mut self, from: &Path, to: &Path) -> io::Result<()> {
        let (from_dir, from_name, there) = self.place(from)?;
        let moved = there.ok_or_else(|| errno(libc::ENOENT))?;
        let (to_dir, to_name, replaced) = self.place(to)?;
        if self.is_dir(moved) && parts(to)?.starts_with(&parts(from)?) && from != to {
            return Err(errno(libc::EINVAL));
        }
        match replaced {
            Some(id) if id == moved => return Ok(()),
            Some(id) if self.is_dir(moved) && !self.is_dir(id) => return Err(errno(libc::ENOTDIR)),
            Some(id) if !self.is_dir(moved) && self.is_dir(id) => return Err(errno(libc::EISDIR)),
            Some(id) if self.is_dir(id) && !self.dir(id)?.entries.is_empty() => return Err(errno(libc::ENOTEMPTY)),
            _ => {}
        }
        self.change(smallvec![
            Edit { dir: from_dir, name: from_name.to_owned(), to: None },
            Edit { dir: to_dir, name: to_name.to_owned(), to: Some(moved) },
        ]);
        Ok(())
    }

    pub(super) fn remove_file(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name, there) = self.place(path)?;
        match there {
            None => return Err(errno(libc::ENOENT)),
            Some(id) if self.is_dir(id) => return Err(errno(libc::EISDIR)),
            Some(_) => {}
        }
        self.change(smallvec![Edit { dir, name: name.to_owned(), to: None }]);
        Ok(())
    }

    pub(super) fn remove_dir(&mut self, path: &Path) -> io::Result<()> {
        let (dir, name, there) = self.place(path)?;
        let id = there.ok_or_else(|| errno(libc::ENOENT))?;
        if !self.dir(id)?.entries.is_empty() {
            return Err(errno(libc::ENOTEMPTY));
        }
        self.change(smallvec![Edit { dir, name: name.to_owned(), to: None }]);
        Ok(())
    }

    fn settle(&mut self, change: &Change) {
        for edit in &change.edits {
            // A directory that is gone for good has no entries to keep.
            let Some(Node::Dir(dir)) = self.nodes.get_mut(&edit.dir) else { continue };
            match edit.to {
                Some(to) => dir.durable.insert(edit.name.clone(), to),
                None => dir.durable.remove(&edit.name),
            };
        }
    }

    /// What stands at a path.
    pub(super) fn find(&self, path: &Path) -> io::Result<NodeId> {
        self.walk(&parts(path)?)
    }

    /// The directory of that name.
    pub(super) fn find_dir(&self, path: &Path) -> io::Result<NodeId> {
        let id = self.find(path)?;
        self.dir(id).map(|_| id)
    }

    /// Makes all changes of a directory's names durable, and with each what came before it on the same names.
    pub(super) fn sync_dir(&mut self, dir: NodeId) {
        let mut needed: BTreeSet<(NodeId, &str)> = BTreeSet::new();
        let mut settled = vec![false; self.pending.len()];
        for (change, settled) in self.pending.iter().zip(&mut settled).rev() {
            *settled = change.edits.iter().any(|e| e.dir == dir || needed.contains(&(e.dir, e.name.as_str())));
            if *settled {
                needed.extend(change.edits.iter().map(|e| (e.dir, e.name.as_str())));
            }
        }
        for (change, settled) in std::mem::take(&mut self.pending).into_iter().zip(settled) {
            if settled {
                self.settle(&change);
            } else {
                self.pending.push(change);
            }
        }
    }

    pub(super) fn crash(&mut self, outcome: CrashOutcome, random: &mut Random) {
        let keep = match outcome {
            CrashOutcome::LoseUnsynced => 0.0,
            CrashOutcome::KeepUnsynced => 1.0,
            CrashOutcome::Mixed => [0.1, 0.5, 0.9][random.below(3) as usize],
        };
        let mut undone: BTreeSet<(NodeId, String)> = BTreeSet::new();
        for change in std::mem::take(&mut self.pending) {
            // What builds on a change that is undone is undone with it.
            let possible = !change.edits.iter().any(|e| undone.contains(&(e.dir, e.name.clone())));
            if possible && random.chance(keep) {
                self.settle(&change);
            } else {
                undone.extend(change.edits.into_iter().map(|e| (e.dir, e.name)));
            }
        }
        let mut nodes = std::mem::take(&mut self.nodes);
        let mut reachable = vec![ROOT];
        while let Some(id) = reachable.pop() {
            let Some(mut node) = nodes.remove(&id) else { continue };
            match &mut node {
                Node::Dir(dir) => {
                    dir.entries = dir.durable.clone();
                    reachable.extend(dir.durable.values());
                }
                Node::File(file) => {
                    file.named = true;
                    file.handles = 0;
                    file.content.crash(outcome, random);
                }
            }
            self.nodes.insert(id, node);
        }
    }

    /// Blocks in use: by files that have a name or are open.
    pub(super) fn blocks(&self) -> u64 {
        let used = |node: &Node| match node {
            Node::File(file) if file.named || file.handles > 0 => file.content.blocks(),
            _ => 0,
        };
        self.nodes.values().map(used).sum()
    }

    /// All names, a line each, with what is not durable about them.
    pub(super) fn dump(&self) -> String {
        let mut text = String::new();
        self.dump_dir(ROOT, "", &mut text);
        text
    }

    fn dump_dir(&self, id: NodeId, path: &str, text: &mut String) {
        let Some(Node::Dir(dir)) = self.nodes.get(&id) else { return };
        let names: BTreeSet<&String> = dir.entries.keys().chain(dir.durable.keys()).collect();
        for name in names {
            let (now, durable) = (dir.entries.get(name), dir.durable.get(name));
            let state = match (now, durable) {
                (Some(_), None) => " (new, not durable)",
                (None, Some(_)) => " (removed, not durable)",
                (Some(now), Some(durable)) if now != durable => " (replaced, not durable)",
                _ => "",
            };
            let path = format!("{path}/{name}");
            // Writing to a string cannot fail.
            let _ = match now.or(durable).and_then(|id| self.nodes.get(id)) {
                Some(Node::File(file)) => writeln!(
                    text,
                    "{path} {} bytes, {} sectors not durable{state}",
                    file.content.bytes().len(),
                    file.content.unsynced_sectors()
                ),
                _ => writeln!(text, "{path}/{state}"),
            };
            if let Some(now) = now {
                self.dump_dir(*now, &path, text);
            }
        }
    }
}
