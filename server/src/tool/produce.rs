//! `ringlog produce`: records from standard input. What arrives together goes out together; a line typed by hand goes at once.

use std::collections::BTreeMap;
use std::io::{self, BufRead, IsTerminal, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::args::{InputFormat, ProduceArgs};
use super::partitioner::partition_of;
use super::producer::{Batch, Producer};
use super::record::{self, NewRecord};
use super::{ToolError, output};

/// Lines that may have been read and wait.
const LINES_WAITING_MAX: usize = 4096;
/// A partition's batch is sent when it has as much, well below the megabyte that brokers take by default.
const BATCH_BYTES: usize = 512 << 10;

/// Something read from standard input.
enum Input {
    /// A line, without its end, and its number.
    Line(u64, Vec<u8>),
    Failed(io::Error),
}

/// What one partition got.
#[derive(Serialize)]
struct Sent {
    topic: String,
    partition: i32,
    records: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    first_offset: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_offset: Option<i64>,
}

pub(super) fn run(args: &ProduceArgs) -> Result<(), ToolError> {
    let mut producer = Producer::new(args.target.client()?, &args.topic, args.acks, args.compression)?;
    let mut sent = BTreeMap::new();
    let outcome = send_all(args, &mut producer, &mut sent);
    let sent: Vec<_> = sent.into_values().collect();
    if args.target.json {
        output::object(&sent)?;
    } else if io::stderr().is_terminal() || outcome.is_err() {
        let records: u64 = sent.iter().map(|sent| sent.records).sum();
        eprintln!("{records} records to {} partitions", sent.len());
    }
    outcome
}

fn send_all(args: &ProduceArgs, producer: &mut Producer, sent: &mut BTreeMap<i32, Sent>) -> Result<(), ToolError> {
    let lines = read_lines(args.format)?;
    let mut in_turn = 0;
    while let Ok(first) = lines.recv() {
        let mut pending: BTreeMap<i32, Batch> = BTreeMap::new();
        let (mut next, mut failed) = (Some(first), None);
        while let Some(input) = next {
            let chosen =
                record(input, args).and_then(|record| Ok((choose(&record, args, producer.partitions(), in_turn)?, record)));
            let (partition, record) = match chosen {
                Ok(chosen) => chosen,
                Err(error) => {
                    // What came before it goes out all the same: whoever goes on from here has sent it.
                    failed = Some(error);
                    break;
                }
            };
            let batch = pending.entry(partition).or_insert_with(|| producer.batch());
            batch.push(&record, now_ms());
            if batch.size_bytes() >= BATCH_BYTES {
                break;
            }
            next = lines.try_recv().ok();
        }
        // Records without a key go to one partition for as long as a batch collects, then to the next.
        in_turn += 1;
        let mut unsent = 0;
        for (partition, batch) in pending {
            let records = batch.record_count();
            let offset = match producer.send(partition, &batch) {
                Ok(offset) => offset,
                Err(error) => {
                    unsent += records;
                    failed.get_or_insert(error.into());
                    continue;
                }
            };
            let entry = sent.entry(partition).or_insert_with(|| Sent {
                topic: args.topic.clone(),
                partition,
                records: 0,
                first_offset: offset,
                last_offset: None,
            });
            entry.records += records;
            entry.last_offset = offset.map(|offset| offset + records as i64 - 1);
        }
        if let Some(error) = failed {
            if unsent > 0 {
                eprintln!("ringlog: {unsent} records that were read were not acknowledged");
            }
            return Err(error);
        }
    }
    Ok(())
}

/// Reads standard input on a thread of its own, so that what is there can be told from what is to come.
fn read_lines(format: InputFormat) -> Result<Receiver<Input>, ToolError> {
    let (sender, receiver) = sync_channel(LINES_WAITING_MAX);
    let read = move || {
        let sent = match format {
            InputFormat::Whole => {
                let mut value = Vec::new();
                match io::stdin().lock().read_to_end(&mut value) {
                    Ok(_) => sender.send(Input::Line(1, value)),
                    Err(error) => sender.send(Input::Failed(error)),
                }
            }
            InputFormat::Lines | InputFormat::Json => {
                send_lines(&sender);
                Ok(())
            }
        };
        // Nobody listens any more where sending has failed.
        drop(sent);
    };
    thread::Builder::new().name("stdin".to_owned()).spawn(read).map_err(ToolError::Input)?;
    Ok(receiver)
}

fn send_lines(sender: &SyncSender<Input>) {
    let mut input = io::stdin().lock();
    for number in 1.. {
        let mut line = Vec::new();
        let input = match input.read_until(b'\n', &mut line) {
            Ok(0) => return,
            Ok(_) => {
                if line.last() == Some(&b'\n') {
                    line.pop();
                }
                Input::Line(number, line)
            }
            Err(error) => Input::Failed(error),
        };
        let is_last = matches!(input, Input::Failed(_));
        if sender.send(input).is_err() || is_last {
            return;
        }
    }
}

/// The record that a piece of standard input is.
fn record(input: Input, args: &ProduceArgs) -> Result<NewRecord, ToolError> {
    let (number, line) = match input {
        Input::Line(number, line) => (number, line),
        Input::Failed(error) => return Err(ToolError::Input(error)),
    };
    let wrong = |why| ToolError::Record { line: number, why };
    let mut record = match args.format {
        InputFormat::Json => record::from_json(&line).map_err(wrong)?,
        InputFormat::Whole => NewRecord { value: Some(line), ..NewRecord::default() },
        InputFormat::Lines => match args.key_separator.as_deref() {
            None => NewRecord { value: Some(line), ..NewRecord::default() },
            Some(separator) => {
                let at = find(&line, separator.as_bytes())
                    .ok_or_else(|| wrong(format!("there is no {separator:?} between a key and a value")))?;
                let (key, value) = (line[..at].to_vec(), line[at + separator.len()..].to_vec());
                NewRecord { key: Some(key), value: Some(value), ..NewRecord::default() }
            }
        },
    };
    if let (None, Some(key)) = (&record.key, &args.key) {
        record.key = Some(key.clone().into_bytes());
    }
    let header = |(name, value): &(String, String)| (name.clone().into_bytes(), Some(value.clone().into_bytes()));
    record.headers.extend(args.header.iter().map(header));
    Ok(record)
}

/// Where `part` begins in `whole`; nowhere if it is empty.
fn find(whole: &[u8], part: &[u8]) -> Option<usize> {
    whole.windows(part.len().max(1)).position(|window| window == part)
}

/// The partition that a record goes to.
fn choose(record: &NewRecord, args: &ProduceArgs, partitions: &[i32], in_turn: usize) -> Result<i32, ToolError> {
    let wanted = args.partition.or(record.partition);
    if let Some(wanted) = wanted {
        if !partitions.contains(&wanted) {
            let topic = &args.topic;
            return Err(ToolError::Usage(format!("topic {topic} has {} partitions, and none is {wanted}", partitions.len())));
        }
        return Ok(wanted);
    }
    let at = record.key.as_deref().map_or(in_turn % partitions.len(), |key| partition_of(key, partitions.len()));
    Ok(partitions[at])
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_millis().try_into().unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_separator_is_found_where_it_comes_first() {
        assert_eq!(find(b"a:b:c", b":"), Some(1));
        assert_eq!(find(b"a->b", b"->"), Some(1));
        assert_eq!(find(b"ab", b":"), None);
        assert_eq!(find(b"", b":"), None);
        assert_eq!(find(b"ab", b""), None);
    }
}
