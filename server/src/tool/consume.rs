//! `ringlog consume`: records to standard output, up to the end as it was at the start, or on and on.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::thread;
use std::time::Duration;

use ringlog_engine::batch::batches;
use ringlog_protocol::api::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData};
use ringlog_protocol::{ApiKey, ErrorCode, Records};

use super::args::{ConsumeArgs, From, OutputFormat};
use super::client::{Client, ClientError, Cluster};
use super::record::Consumed;
use super::{ToolError, offsets};

/// The most that one answer brings, and of one partition.
const FETCH_BYTES: i32 = 16 << 20;
const PARTITION_BYTES: i32 = 4 << 20;
/// How long a broker may hold an answer back until there are records, and the pause where several brokers are asked in turn.
const WAIT: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(50);
/// What the records of one batch may take when decompressed.
const RECORDS_BYTES_MAX: usize = 1 << 30;

/// A partition that is read.
#[derive(Debug)]
struct Position {
    topic: String,
    partition: i32,
    /// The next offset.
    next: i64,
    /// Where to stop; nowhere if it goes on.
    end: Option<i64>,
}

impl Position {
    fn is_at_end(&self) -> bool {
        self.end.is_some_and(|end| self.next >= end)
    }
}

/// What is shown, and how much more.
struct Output<'a> {
    args: &'a ConsumeArgs,
    format: OutputFormat,
    left: u64,
    out: BufWriter<io::StdoutLock<'static>>,
}

pub(super) fn run(args: &ConsumeArgs) -> Result<(), ToolError> {
    let mut client = args.target.client()?;
    let names: Vec<_> = args.topics.iter().map(String::as_str).collect();
    let mut cluster = client.retry(|client| client.cluster(Some(&names)))?;
    let mut positions = start(&mut client, &cluster, args)?;
    let mut output = Output::new(args);
    while output.left > 0 && positions.iter().any(|position| !position.is_at_end()) {
        let polled = poll(&mut client, &cluster, args.follow, &mut positions, &mut output);
        output.out.flush().map_err(ToolError::Output)?;
        match polled {
            Ok(0) if args.follow && cluster.brokers.len() > 1 => thread::sleep(PAUSE),
            Ok(_) => {}
            Err(PollError::Broker(error)) if error.is_retriable() => {
                thread::sleep(PAUSE);
                cluster = client.retry(|client| client.cluster(Some(&names)))?;
            }
            Err(PollError::Broker(error)) => return Err(error.into()),
            Err(PollError::Other(error)) => return Err(error),
        }
    }
    Ok(())
}

/// Where each partition is begun.
fn start(client: &mut Client, cluster: &Cluster, args: &ConsumeArgs) -> Result<Vec<Position>, ToolError> {
    let mut positions = Vec::new();
    for name in &args.topics {
        let topic = cluster.topic(name)?;
        if let Some(missing) = args.partition.iter().find(|wanted| !topic.partitions.iter().any(|p| p.index == **wanted)) {
            let count = topic.partitions.len();
            return Err(ToolError::Usage(format!("topic {name} has {count} partitions, and none is {missing}")));
        }
        let is_wanted = |index| args.partition.is_empty() || args.partition.contains(&index);
        let partitions: Vec<_> = topic.partitions.iter().filter(|p| is_wanted(p.index)).cloned().collect();
        let mut list = |timestamp| client.retry(|client| offsets::list(client, cluster, name, &partitions, timestamp));
        let (first, last) = (list(offsets::EARLIEST)?, list(offsets::LATEST)?);
        let by_time = match args.from {
            From::Time(time) => list(time)?,
            _ => BTreeMap::new(),
        };
        for partition in &partitions {
            let of = |offsets: &BTreeMap<i32, Option<i64>>| offsets.get(&partition.index).copied().flatten();
            let (first, last) = (of(&first).unwrap_or(0), of(&last).unwrap_or(0));
            let next = match args.from {
                From::Beginning => first,
                From::End => last,
                From::Offset(offset) => {
                    if offset < first || offset > last {
                        let why = format!("partition {} of {name} has offsets from {first} to {last}", partition.index);
                        return Err(ToolError::Usage(format!("{why}; {offset} is not among them")));
                    }
                    offset
                }
                From::Last(count) => first.max(last.saturating_sub(count)),
                From::Time(_) => of(&by_time).unwrap_or(last),
            };
            let end = (!args.follow).then_some(last);
            positions.push(Position { topic: name.clone(), partition: partition.index, next, end });
        }
    }
    Ok(positions)
}

/// Why nothing more was read.
enum PollError {
    /// The broker, which may be better soon.
    Broker(ClientError),
    /// Anything else.
    Other(ToolError),
}

impl std::convert::From<ClientError> for PollError {
    fn from(error: ClientError) -> Self {
        Self::Broker(error)
    }
}

impl std::convert::From<ToolError> for PollError {
    fn from(error: ToolError) -> Self {
        Self::Other(error)
    }
}

/// Asks every leader once. Gives how many records there were.
fn poll(
    client: &mut Client,
    cluster: &Cluster,
    follow: bool,
    positions: &mut [Position],
    output: &mut Output<'_>,
) -> Result<u64, PollError> {
    let mut leaders: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
    for (at, position) in positions.iter().enumerate().filter(|(_, position)| !position.is_at_end()) {
        let topic = cluster.topic(&position.topic)?;
        let leader = topic.partitions.iter().find(|p| p.index == position.partition).map_or(-1, |p| p.leader);
        leaders.entry(leader).or_default().push(at);
    }
    let wait = if follow && leaders.len() == 1 { WAIT.min(client.timeout() / 2) } else { Duration::ZERO };
    let mut records = 0;
    for (leader, wanted) in leaders {
        let address = cluster.address(leader)?;
        let request = fetch_request(cluster, positions, &wanted, wait)?;
        let answer = client.ask(address, &request)?;
        let has_ids = answer.version() >= 13;
        let response: FetchResponse<'_> = answer.decode()?;
        if !response.error_code.is_none() {
            return Err(ClientError::refused(ApiKey::Fetch, "", response.error_code, None).into());
        }
        for topic in &response.responses {
            for data in &topic.partitions {
                let is_meant = |at: &&usize| {
                    let position = &positions[**at];
                    let known = cluster.topics.get(&position.topic);
                    let is_topic =
                        if has_ids { known.is_some_and(|t| t.id == topic.topic_id) } else { position.topic == topic.topic };
                    is_topic && position.partition == data.partition_index
                };
                let Some(&at) = wanted.iter().find(is_meant) else { continue };
                records += take(client, cluster, &mut positions[at], data, output)?;
            }
        }
    }
    Ok(records)
}

fn fetch_request<'a>(
    cluster: &Cluster,
    positions: &'a [Position],
    wanted: &[usize],
    wait: Duration,
) -> Result<FetchRequest<'a>, ClientError> {
    let mut topics: Vec<FetchTopic<'a>> = Vec::new();
    for position in wanted.iter().map(|at| &positions[*at]) {
        let partition = FetchPartition {
            partition: position.partition,
            fetch_offset: position.next,
            partition_max_bytes: PARTITION_BYTES,
            ..Default::default()
        };
        match topics.iter_mut().find(|topic| topic.topic == position.topic) {
            Some(topic) => topic.partitions.push(partition),
            None => topics.push(FetchTopic {
                topic: position.topic.as_str().into(),
                topic_id: cluster.topic(&position.topic)?.id,
                partitions: vec![partition],
            }),
        }
    }
    Ok(FetchRequest {
        max_wait_ms: wait.as_millis().try_into().unwrap_or(0),
        min_bytes: i32::from(!wait.is_zero()),
        max_bytes: FETCH_BYTES,
        topics,
        ..Default::default()
    })
}

/// Shows the records that came of one partition and moves on behind them.
fn take(
    client: &mut Client,
    cluster: &Cluster,
    position: &mut Position,
    data: &PartitionData<'_>,
    output: &mut Output<'_>,
) -> Result<u64, PollError> {
    match data.error_code {
        ErrorCode::NONE => {}
        // What was to be read next has been deleted meanwhile: go on with what there is, as consumers do.
        ErrorCode::OFFSET_OUT_OF_RANGE => {
            let topic = cluster.topic(&position.topic)?;
            let only: Vec<_> = topic.partitions.iter().filter(|p| p.index == position.partition).cloned().collect();
            let first = offsets::list(client, cluster, &position.topic, &only, offsets::EARLIEST)?;
            let first = first.get(&position.partition).copied().flatten().unwrap_or(0);
            let (topic, partition) = (&position.topic, position.partition);
            if first <= position.next {
                let of = format!("of partition {partition} of {topic} at offset {}", position.next);
                return Err(ClientError::refused(ApiKey::Fetch, of, data.error_code, None).into());
            }
            eprintln!("ringlog: partition {partition} of {topic}: offsets {} to {first} have been deleted", position.next);
            position.next = first;
            return Ok(0);
        }
        code => {
            let of = format!("of partition {} of {}", position.partition, position.topic);
            return Err(ClientError::refused(ApiKey::Fetch, of, code, None).into());
        }
    }
    let Records::Bytes(bytes) = data.records else { return Ok(0) };
    let mut shown = 0;
    for batch in batches(bytes) {
        let damaged = |position: &Position, why: String| ToolError::Damaged {
            topic: position.topic.clone(),
            partition: position.partition,
            offset: position.next,
            why,
        };
        let batch = batch.map_err(|error| damaged(position, error.to_string()))?;
        batch.check_crc().map_err(|error| damaged(position, error.to_string()))?;
        let header = batch.header();
        if !header.attributes.is_control() {
            let records = batch.records(RECORDS_BYTES_MAX).map_err(|error| damaged(position, error.to_string()))?;
            for record in records.iter() {
                let record = record.map_err(|error| damaged(position, error.to_string()))?;
                let offset = header.offset_of(&record).0;
                // A batch is served whole, also where reading begins within it; and it may reach over the end as it was.
                if offset < position.next || position.end.is_some_and(|end| offset >= end) {
                    continue;
                }
                if output.left == 0 {
                    return Ok(shown);
                }
                let (topic, partition) = (position.topic.as_str(), position.partition);
                let timestamp = header.timestamp_of(&record).0;
                output.show(&Consumed { topic, partition, offset, timestamp, record }).map_err(ToolError::Output)?;
                position.next = offset + 1;
                shown += 1;
            }
        }
        position.next = position.next.max(header.next_offset().0);
    }
    Ok(shown)
}

impl<'a> Output<'a> {
    fn new(args: &'a ConsumeArgs) -> Self {
        let format = if args.target.json { OutputFormat::Json } else { args.format };
        Self { args, format, left: args.count.unwrap_or(u64::MAX), out: BufWriter::new(io::stdout().lock()) }
    }

    fn show(&mut self, record: &Consumed<'_>) -> io::Result<()> {
        self.left -= 1;
        record.write(self.format, self.args.key_separator.as_deref(), &mut self.out)
    }
}
