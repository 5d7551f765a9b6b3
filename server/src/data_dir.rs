//! The data directory: created, locked against a second process, and marked as ours by `meta.properties`, in Kafka's format
//! with one line more. Called by `main` before the cores start, so it uses the filesystem directly. What lies in the
//! directory besides is the engine's business.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustix::fs::FlockOperation;
use tracing::info;

use crate::config::properties;

/// The version of the layout that this program writes; it refuses newer ones.
pub const LAYOUT_VERSION: u32 = 1;

const LOCK_FILE: &str = ".lock";
const META_FILE: &str = "meta.properties";
const META_FILE_NEW: &str = "meta.properties.tmp";
/// The line that Kafka does not write.
const MARKER: &str = "ringlog.version";

/// Why a directory cannot be used. Each says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// It cannot be created, or nothing can be written there.
    #[error("the data directory {path} cannot be used ({action}: {error}); run as its owner, or choose another with --data-dir")]
    Io {
        /// The directory.
        path: PathBuf,
        /// What failed.
        action: &'static str,
        /// How.
        error: io::Error,
    },
    /// Another process has it.
    #[error("the data directory {path} is used by another process{holder}; stop it, or choose another directory with --data-dir")]
    Locked {
        /// The directory.
        path: PathBuf,
        /// Its process id, in words, where it is known.
        holder: String,
    },
    /// Kafka's own.
    #[error(
        "the data directory {path} was formatted by Kafka; choose an empty one with --data-dir (`ringlog log dump`, `verify` and \
         `repair` read Kafka's directories)"
    )]
    Kafka {
        /// The directory.
        path: PathBuf,
    },
    /// Partitions, and nothing that says whose.
    #[error(
        "the data directory {path} holds {name} but no {META_FILE}: restore that file if it was lost, or choose an empty directory \
         with --data-dir"
    )]
    Unmarked {
        /// The directory.
        path: PathBuf,
        /// What was found there.
        name: String,
    },
    /// Written by a later program.
    #[error(
        "the data directory {path} was written by a newer Ringlog (layout version {version}, this one knows {LAYOUT_VERSION}); use \
         that one, or choose another directory with --data-dir"
    )]
    Newer {
        /// The directory.
        path: PathBuf,
        /// Its layout version.
        version: String,
    },
    /// Another broker's.
    #[error(
        "the data directory {path} belongs to node.id={found}, and node.id={wanted} is configured; set node.id={found}, or choose \
         another directory with --data-dir"
    )]
    OtherNode {
        /// The directory.
        path: PathBuf,
        /// Whose it is.
        found: i32,
        /// Who wants it.
        wanted: i32,
    },
    /// The file makes no sense.
    #[error("{path}/{META_FILE} is damaged: {what}; restore it from a backup, or choose another directory with --data-dir")]
    Damaged {
        /// The directory.
        path: PathBuf,
        /// What is wrong.
        what: String,
    },
}

/// What `meta.properties` says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The cluster's id: 22 characters of base64url.
    pub cluster_id: String,
    /// This broker's number.
    pub node_id: i32,
    /// The directory's own id, of the same form (KIP-858).
    pub directory_id: String,
}

/// A data directory that this process has for itself.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    meta: Meta,
    /// Holds the lock.
    _lock: File,
}

impl DataDir {
    /// Takes a directory into use: creates it and its `meta.properties` where they are missing.
    ///
    /// # Errors
    /// When it cannot be written, another process has it, or it is not this broker's.
    pub fn open(path: &Path, node_id: i32) -> Result<Self, DataDirError> {
        let failed = |action| move |error| DataDirError::Io { path: path.to_owned(), action, error };
        create_all(path).map_err(failed("creating it"))?;
        let lock = lock(path)?;
        let meta = match fs::read_to_string(path.join(META_FILE)) {
            Ok(text) => {
                let meta = Meta::parse(path, &text)?;
                if meta.node_id != node_id {
                    return Err(DataDirError::OtherNode { path: path.to_owned(), found: meta.node_id, wanted: node_id });
                }
                meta
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(name) = trace_of_partitions(path).map_err(failed("listing it"))? {
                    return Err(DataDirError::Unmarked { path: path.to_owned(), name });
                }
                // Whoever made it may have ended before its name was durable. Where its parent is not ours to open, it was not us.
                match sync_dir(parent(path)) {
                    Err(error) if error.kind() != io::ErrorKind::PermissionDenied => {
                        return Err(failed("syncing its parent")(error));
                    }
                    _ => {}
                }
                let meta = Meta { cluster_id: new_id(), node_id, directory_id: new_id() };
                write_durably(path, &meta.to_text()).map_err(failed("writing meta.properties"))?;
                info!(path = %path.display(), cluster_id = meta.cluster_id, "new data directory");
                meta
            }
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                return Err(DataDirError::Damaged { path: path.to_owned(), what: "it is not text".to_owned() });
            }
            Err(error) => return Err(failed("reading meta.properties")(error)),
        };
        Ok(Self { path: path.to_owned(), meta, _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What its `meta.properties` says.
    #[must_use]
    pub fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl Meta {
    fn to_text(&self) -> String {
        let Self { cluster_id, node_id, directory_id } = self;
        format!(
            "# Written at the first start. Whose directory this is; not to be edited.\n{MARKER}={LAYOUT_VERSION}\nversion=1\n\
             cluster.id={cluster_id}\nnode.id={node_id}\ndirectory.id={directory_id}\n"
        )
    }

    fn parse(path: &Path, text: &str) -> Result<Self, DataDirError> {
        let path = path.to_owned();
        let found = match properties::parse(text) {
            Ok(found) => found,
            Err(error) => return Err(DataDirError::Damaged { path, what: error.to_string() }),
        };
        let value = |key: &str| found.iter().find(|property| property.key == key).map(|property| property.value.trim());
        match value(MARKER).map(|version| (version, version.parse::<u32>())) {
            Some((_, Ok(1..=LAYOUT_VERSION))) => {}
            // Whatever else it says is for those who know that version.
            Some((version, Ok(LAYOUT_VERSION..))) => return Err(DataDirError::Newer { version: version.to_owned(), path }),
            Some((version, _)) => return Err(DataDirError::Damaged { what: format!("{MARKER}={version}"), path }),
            None if value("version").is_some() => return Err(DataDirError::Kafka { path }),
            None => return Err(DataDirError::Damaged { what: format!("it has no {MARKER}"), path }),
        }
        let text = |key: &str| match value(key) {
            Some(value) if !value.is_empty() => Ok(value.to_owned()),
            _ => Err(DataDirError::Damaged { path: path.clone(), what: format!("it has no {key}") }),
        };
        let (cluster_id, directory_id, node_id) = (text("cluster.id")?, text("directory.id")?, text("node.id")?);
        match node_id.parse() {
            Ok(node_id) => Ok(Self { cluster_id, node_id, directory_id }),
            Err(_) => Err(DataDirError::Damaged { what: format!("node.id={node_id}"), path }),
        }
    }
}

/// A random UUID as Kafka writes ids. None begins with '-', which command lines would take for an option.
fn new_id() -> String {
    loop {
        let id = URL_SAFE_NO_PAD.encode(uuid::Uuid::new_v4().as_bytes());
        if !id.starts_with('-') {
            return id;
        }
    }
}

/// Creates a directory and those above it, durably.
fn create_all(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Ok(()) => sync_dir(parent(path)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match fs::metadata(path)?.is_dir() {
            true => Ok(()),
            false => Err(io::ErrorKind::NotADirectory.into()),
        },
        // Where nothing can be created, as in /proc, the parent is there and the error the same.
        Err(error) if error.kind() == io::ErrorKind::NotFound && parent(path) != path && !parent(path).exists() => {
            create_all(parent(path))?;
            create_all(path)
        }
        Err(error) => Err(error),
    }
}

fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Path::new("."),
        Some(parent) => parent,
        None => path,
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// Takes the lock, which the kernel gives back when this process ends, however it ends.
fn lock(path: &Path) -> Result<File, DataDirError> {
    let failed = |action| move |error| DataDirError::Io { path: path.to_owned(), action, error };
    let opened = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path.join(LOCK_FILE));
    let mut file = opened.map_err(failed("opening .lock"))?;
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = holder.trim().parse::<u32>().map(|pid| format!(" (process {pid})")).unwrap_or_default();
            return Err(DataDirError::Locked { path: path.to_owned(), holder });
        }
        Err(error) => return Err(failed("locking it")(error.into())),
    }
    // For the message above only: a full disk may refuse it.
    let _ = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    Ok(file)
}

/// The name of something that only a broker's data directory has.
fn trace_of_partitions(path: &Path) -> io::Result<Option<String>> {
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let numbered = name.rsplit_once('-').is_some_and(|(topic, number)| !topic.is_empty() && number.parse::<u32>().is_ok());
        if (numbered && entry.file_type()?.is_dir()) || name.ends_with("-checkpoint") {
            return Ok(Some(name));
        }
    }
    Ok(None)
}

/// Writes `meta.properties` so that after a crash it is there whole or not at all.
fn write_durably(path: &Path, text: &str) -> io::Result<()> {
    let new = path.join(META_FILE_NEW);
    let mut file = File::create(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path.join(META_FILE))?;
    sync_dir(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn temporary() -> tempfile::TempDir {
        tempfile::tempdir().unwrap()
    }

    fn one_line(error: &DataDirError) -> String {
        let text = error.to_string();
        assert!(!text.contains('\n'), "{text}");
        text
    }

    #[test]
    fn a_new_directory_keeps_its_ids() {
        let root = temporary();
        let path = root.path().join("a/b");
        let first = DataDir::open(&path, 3).unwrap().meta().clone();
        assert_eq!(first.node_id, 3);
        assert_ne!(first.cluster_id, first.directory_id);
        for id in [&first.cluster_id, &first.directory_id] {
            assert_eq!(id.len(), 22);
            assert!(id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_') && !id.starts_with('-'));
        }
        assert_eq!(DataDir::open(&path, 3).unwrap().meta(), &first);
        let text = fs::read_to_string(path.join(META_FILE)).unwrap();
        assert!(text.contains("\nversion=1\n") && text.contains("\nringlog.version=1\n"), "{text}");
        assert!(!path.join(META_FILE_NEW).exists());
        let error = DataDir::open(&path, 4).unwrap_err();
        assert!(matches!(error, DataDirError::OtherNode { found: 3, wanted: 4, .. }));
        one_line(&error);
    }

    #[test]
    fn no_id_begins_with_a_dash() {
        for _ in 0..2000 {
            assert!(!new_id().starts_with('-'));
        }
    }

    #[test]
    fn one_process_at_a_time() {
        let root = temporary();
        let held = DataDir::open(root.path(), 1).unwrap();
        let error = DataDir::open(root.path(), 1).unwrap_err();
        assert!(one_line(&error).contains(&format!("(process {})", std::process::id())), "{error}");
        drop(held);
        DataDir::open(root.path(), 1).unwrap();
    }

    #[test]
    fn what_is_not_ours_is_refused_and_left_alone() {
        let damaged = |error: &DataDirError| matches!(error, DataDirError::Damaged { .. });
        type Check = fn(&DataDirError) -> bool;
        let cases: [(&str, Check); 7] = [
            ("version=1\ncluster.id=x\nnode.id=1\ndirectory.id=y\n", |e| matches!(e, DataDirError::Kafka { .. })),
            ("broker.id=0\nversion=0\ncluster.id=x\n", |e| matches!(e, DataDirError::Kafka { .. })),
            ("ringlog.version=2\nsomething=new\n", |e| matches!(e, DataDirError::Newer { .. })),
            ("ringlog.version=0\nversion=1\n", damaged),
            ("ringlog.version=one\nversion=1\n", damaged),
            ("ringlog.version=1\nversion=1\nnode.id=1\ndirectory.id=y\n", damaged),
            ("", damaged),
        ];
        for (text, check) in cases {
            let root = temporary();
            fs::write(root.path().join(META_FILE), text).unwrap();
            let error = DataDir::open(root.path(), 1).unwrap_err();
            assert!(check(&error), "{text:?}: {error}");
            one_line(&error);
            assert_eq!(fs::read_to_string(root.path().join(META_FILE)).unwrap(), text);
        }
        let root = temporary();
        fs::write(root.path().join(META_FILE), b"\xff\xfe").unwrap();
        assert!(damaged(&DataDir::open(root.path(), 1).unwrap_err()));

        for name in ["topic-0", "recovery-point-offset-checkpoint"] {
            let root = temporary();
            let path = root.path().join(name);
            if name.ends_with("checkpoint") {
                fs::write(path, "0\n0\n").unwrap()
            } else {
                fs::create_dir(path).unwrap()
            }
            let error = DataDir::open(root.path(), 1).unwrap_err();
            assert!(matches!(error, DataDirError::Unmarked { .. }));
            assert!(one_line(&error).contains(name));
            assert!(!root.path().join(META_FILE).exists());
        }
        let root = temporary();
        fs::create_dir(root.path().join("lost+found")).unwrap();
        DataDir::open(root.path(), 1).unwrap();
    }

    #[test]
    fn a_file_in_the_way_is_an_error() {
        let root = temporary();
        let path = root.path().join("file");
        fs::write(&path, "").unwrap();
        let error = DataDir::open(&path, 1).unwrap_err();
        assert!(one_line(&error).contains("--data-dir"));
        let error = DataDir::open(Path::new("/proc/no/such"), 1).unwrap_err();
        assert!(one_line(&error).contains("--data-dir"));
    }
}
