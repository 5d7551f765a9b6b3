//! The same cells by fio, where it is installed: is our path as fast as the tool that everybody measures disks with? For [`super`].

use std::io::Read;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use super::cells::Cell;
use crate::error::Error;
use crate::results::{Direction, Pattern, Way};
use crate::stop;

const POLL: Duration = Duration::from_millis(50);

/// An installed fio.
pub(super) struct Fio {
    version: String,
}

impl Fio {
    /// The one in the path, if there is one that runs.
    pub(super) fn find() -> Option<Self> {
        let output = Command::new("fio").arg("--version").stdin(Stdio::null()).stderr(Stdio::null()).output().ok()?;
        let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        (output.status.success() && version.starts_with("fio-")).then_some(Self { version })
    }

    /// As it says, `fio-3.33`.
    pub(super) fn version(&self) -> &str {
        &self.version
    }

    /// Measures a cell in our test file; values per second, or nothing where it was stopped.
    ///
    /// # Errors
    /// fio failed, with its own words.
    pub(super) fn measure(&self, cell: &Cell, file: &Path, size_bytes: u64, time: Duration) -> Result<Option<f64>, Error> {
        let failed = |error: std::io::Error| Error::Failed(format!("fio cannot be run: {error} (--no-fio does without)"));
        let mut child = Command::new("fio")
            .args(arguments(cell, file, size_bytes, time))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        // Read while it runs: a full pipe would hold it up.
        let mut reading = [child.stdout.take().map(read_all), child.stderr.take().map(read_all)];
        let status = wait(&mut child).map_err(failed)?;
        let [output, errors] = reading.each_mut().map(|reading| match reading.take().map(std::thread::JoinHandle::join) {
            Some(Ok(text)) => text,
            _ => String::new(),
        });
        if stop::requested() {
            return Ok(None);
        }
        match status.filter(std::process::ExitStatus::success).and_then(|_| parse(&output, cell)) {
            Some(values_per_s) => Ok(Some(values_per_s)),
            None => {
                let why = errors
                    .lines()
                    .chain(output.lines())
                    .find(|line| !line.trim().is_empty())
                    .unwrap_or("no word why")
                    .trim()
                    .to_owned();
                Err(Error::Failed(format!("fio failed: {why} (--no-fio does without)")))
            }
        }
    }
}

fn read_all(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        // What came until then is what there is.
        let _ = pipe.read_to_end(&mut bytes);
        String::from_utf8_lossy(&bytes).into_owned()
    })
}

/// Waits for its end, or ends it when we are asked to stop.
fn wait(child: &mut Child) -> std::io::Result<Option<std::process::ExitStatus>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if stop::requested() {
            let _ = child.kill();
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(POLL);
    }
}

/// The command line. A direct cell goes on for all of the time; one through the page cache ends where it has seen the file.
fn arguments(cell: &Cell, file: &Path, size_bytes: u64, time: Duration) -> Vec<String> {
    let operation = match (cell.pattern, cell.direction) {
        (Pattern::Sequential, Direction::Read) => "read",
        (Pattern::Sequential, Direction::Write) => "write",
        (Pattern::Random, Direction::Read) => "randread",
        (Pattern::Random, Direction::Write) => "randwrite",
    };
    let is_direct = cell.way == Way::Direct;
    let mut arguments = vec![
        "--name=cell".to_owned(),
        "--ioengine=io_uring".to_owned(),
        "--thread".to_owned(),
        format!("--filename={}", file.display()),
        "--allow_file_create=0".to_owned(),
        format!("--size={size_bytes}"),
        format!("--rw={operation}"),
        format!("--bs={}", cell.access_bytes()),
        format!("--iodepth={}", cell.depth.unwrap_or(1)),
        format!("--direct={}", u8::from(is_direct)),
        format!("--runtime={}ms", time.as_millis().max(1)),
        "--invalidate=1".to_owned(),
        "--output-format=json".to_owned(),
    ];
    if is_direct {
        arguments.push("--time_based".to_owned());
    }
    if cell.direction == Direction::Write {
        arguments.push(format!("--fdatasync={}", cell.sync_accesses()));
        arguments.push("--end_fsync=1".to_owned());
    }
    arguments
}

/// Values per second, from fio's JSON.
fn parse(output: &str, cell: &Cell) -> Option<f64> {
    // It may say something before it.
    let json: serde_json::Value = serde_json::from_str(output.get(output.find('{')?..)?).ok()?;
    let side = match cell.direction {
        Direction::Read => "read",
        Direction::Write => "write",
    };
    let job = json.get("jobs")?.get(0)?;
    if job.get("error").and_then(serde_json::Value::as_i64).is_some_and(|error| error != 0) {
        return None;
    }
    let accesses_per_s = job.get(side)?.get("iops")?.as_f64()?;
    (accesses_per_s > 0.0).then(|| accesses_per_s * cell.values_per_access() as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Medium;

    fn cell(pattern: Pattern, direction: Direction, way: Way) -> Cell {
        Cell { medium: Medium::Disk, pattern, direction, way, depth: Some(32) }
    }

    #[test]
    fn fio_is_asked_for_the_same() {
        let random = cell(Pattern::Random, Direction::Write, Way::Direct);
        let asked = arguments(&random, Path::new("/proc/1/fd/3"), 1 << 30, Duration::from_secs(2)).join(" ");
        for part in [
            "--rw=randwrite",
            "--bs=4096",
            "--iodepth=32",
            "--direct=1",
            "--runtime=2000ms",
            "--time_based",
            "--fdatasync=2048",
            "--filename=/proc/1/fd/3",
            "--size=1073741824",
        ] {
            assert!(asked.contains(part), "{part}: {asked}");
        }
        let read = cell(Pattern::Sequential, Direction::Read, Way::PageCache);
        let asked = arguments(&read, Path::new("x"), 1 << 30, Duration::from_secs(2)).join(" ");
        assert!(asked.contains("--rw=read --bs=1048576") && asked.contains("--direct=0"), "{asked}");
        assert!(!asked.contains("time_based") && !asked.contains("fdatasync"), "{asked}");
    }

    #[test]
    fn its_answer_is_read() {
        let output = "note: something\n{\"fio version\": \"fio-3.33\", \"jobs\": [{\"jobname\": \"cell\", \"error\": 0, \
                      \"read\": {\"iops\": 100.5}, \"write\": {\"iops\": 0.0}}]}";
        let random = cell(Pattern::Random, Direction::Read, Way::Direct);
        assert_eq!(parse(output, &random), Some(100.5));
        assert_eq!(parse(output, &cell(Pattern::Sequential, Direction::Read, Way::Direct)), Some(100.5 * 262_144.0));
        assert_eq!(parse(output, &cell(Pattern::Random, Direction::Write, Way::Direct)), None, "it wrote nothing");
        for bad in ["", "{", "fio: no", "{\"jobs\": []}", &output.replace("\"error\": 0", "\"error\": 5")] {
            assert_eq!(parse(bad, &random), None, "{bad}");
        }
    }

    #[test]
    fn a_fio_that_fails_is_told() {
        // Only where fio is there: the file is not.
        let Some(fio) = Fio::find() else { return };
        let random = cell(Pattern::Random, Direction::Read, Way::Direct);
        let error = fio.measure(&random, Path::new("/nowhere/file"), 1 << 20, Duration::from_millis(10)).unwrap_err();
        let text = error.to_string();
        assert!(text.starts_with("fio failed: ") && !text.contains('\n'), "{text}");
    }
}
