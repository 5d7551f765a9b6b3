//! Where runs are kept: one JSON file each, in the directory that the user named, written whole or not at all.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::results::{FORMAT, Outcome, Run};

/// A file that belongs to a run and is kept beside it: name and content.
pub type Beside = (String, Vec<u8>);

/// Whether a run can be stored there, as far as that can be known before it: the directory is made, and has room for a block.
///
/// # Errors
/// The directory cannot be made or written.
pub fn check(directory: &Path) -> Result<(), Error> {
    const BLOCK_BYTES: usize = 4096;
    fs::create_dir_all(directory).map_err(Error::io(directory))?;
    let path = directory.join(format!(".{}.partial", std::process::id()));
    let written = fs::write(&path, [0; BLOCK_BYTES]);
    let _ = fs::remove_file(&path);
    written.map_err(Error::io(directory))
}

/// Writes a run; returns its path. The name sorts by time.
///
/// # Errors
/// The directory cannot be made or written.
pub fn save(directory: &Path, run: &Run) -> Result<PathBuf, Error> {
    save_with(directory, run, &[])
}

/// The same with files that belong to the run: all of them or none. The run's own comes last, so that whoever
/// sees it finds the others.
///
/// # Errors
/// The directory cannot be made or written.
pub fn save_with(directory: &Path, run: &Run, beside: &[Beside]) -> Result<PathBuf, Error> {
    fs::create_dir_all(directory).map_err(Error::io(directory))?;
    let path = directory.join(format!("{}-{}.json", run.started_ms, command_name(&run.outcome)));
    let text = serde_json::to_string_pretty(run).map_err(|error| Error::Failed(format!("the result has no JSON: {error}")))?;
    let text = (text + "\n").into_bytes();
    let files = beside.iter().map(|(name, bytes)| (directory.join(name), bytes)).chain([(path.clone(), &text)]);
    let partial = |path: &Path| {
        let mut name = path.as_os_str().to_owned();
        name.push(".partial");
        PathBuf::from(name)
    };
    let files: Vec<_> = files.map(|(path, bytes)| (partial(&path), path, bytes)).collect();
    let mut named = 0;
    let written = files.iter().try_for_each(|(partial, path, bytes)| fs::write(partial, bytes).map_err(Error::io(path)));
    let kept = written.and_then(|()| {
        files.iter().try_for_each(|(partial, path, _)| {
            fs::rename(partial, path).map_err(Error::io(path))?;
            named += 1;
            Ok(())
        })
    });
    if let Err(error) = kept {
        let partials = files.iter().map(|(partial, ..)| partial);
        for path in partials.chain(files[..named].iter().map(|(_, path, _)| path)) {
            let _ = fs::remove_file(path);
        }
        return Err(error);
    }
    Ok(path)
}

/// Reads every run in a directory, oldest first. What is no run of ours is an error: a report must not leave out in silence.
///
/// # Errors
/// A file cannot be read, or is of another format.
pub fn load_all(directory: &Path) -> Result<Vec<(PathBuf, Run)>, Error> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory).map_err(Error::io(directory))? {
        let path = entry.map_err(Error::io(directory))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
    }
    paths.sort();
    let mut runs = Vec::with_capacity(paths.len());
    for path in paths {
        let run = load(&path)?;
        runs.push((path, run));
    }
    Ok(runs)
}

/// Reads one run.
///
/// # Errors
/// The file cannot be read, or is of another format.
pub fn load(path: &Path) -> Result<Run, Error> {
    let text = fs::read_to_string(path).map_err(Error::io(path))?;
    let run: Run = serde_json::from_str(&text)
        .map_err(|error| Error::Usage(format!("{} is not a run of ringlog-bench: {error}", path.display())))?;
    if run.format != FORMAT {
        return Err(Error::Usage(format!("{} has format {}, this version reads {FORMAT}", path.display(), run.format)));
    }
    Ok(run)
}

fn command_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Machine => "machine",
        Outcome::Disk(_) => "disk",
        Outcome::Engine(_) => "engine",
        Outcome::Load(_) => "load",
        Outcome::Groups(_) => "groups",
        Outcome::Compare(_) => "compare",
    }
}
