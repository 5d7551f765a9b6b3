//! `ringlog consume`: records to standard output, up to the end as it was at the start, or on and on.

use std::collections::BTreeMap;
use std::io::{self, BufWriter, Write};
use std::thread;
use std::time::{Duration, Instant};

use ringlog_engine::batch::batches;
use ringlog_protocol::api::fetch::{FetchPartition, FetchRequest, FetchResponse, FetchTopic, PartitionData};
use ringlog_protocol::{ApiKey, ErrorCode, Records};

use super::args::{ConsumeArgs, From, OutputFormat};
use super::client::{Client, ClientError, Cluster, Offsets};
use super::member::{Member, is_to_rejoin};
use super::record::Consumed;
use super::{ToolError, offsets};
use crate::net::Stop;
use crate::signals;

/// The most that one answer brings, and of one partition. A member of a group takes less at a time: it may lose the partition
/// while it shows what it has.
const FETCH_BYTES: (i32, i32) = (16 << 20, 4 << 20);
const GROUP_FETCH_BYTES: (i32, i32) = (1 << 20, 256 << 10);
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
    match &args.group {
        None => run_alone(args),
        Some(group) => run_in_group(args, group),
    }
}

fn run_alone(args: &ConsumeArgs) -> Result<(), ToolError> {
    let mut reader = Reader::new(args)?;
    let mut positions = Vec::new();
    for name in &args.topics {
        let topic = reader.cluster.topic(name)?;
        if let Some(missing) = args.partition.iter().find(|wanted| !topic.partitions.iter().any(|p| p.index == **wanted)) {
            let count = topic.partitions.len();
            return Err(ToolError::Usage(format!("topic {name} has {count} partitions, and none is {missing}")));
        }
        let is_wanted = |index| args.partition.is_empty() || args.partition.contains(&index);
        let wanted: Vec<_> = topic.partitions.iter().map(|p| p.index).filter(|index| is_wanted(*index)).collect();
        positions.extend(start(&mut reader.client, &reader.cluster, args, name, &wanted)?);
    }
    while reader.has_more(&positions) {
        reader.read(&mut positions, None)?;
    }
    Ok(())
}

/// Reads as a member of a group, until told to end.
fn run_in_group(args: &ConsumeArgs, group: &str) -> Result<(), ToolError> {
    let stop = signals::stop_on_signals().map_err(ToolError::Signals)?;
    let mut reader = Reader::new(args)?;
    for name in &args.topics {
        reader.cluster.topic(name)?;
    }
    let mut member = Member::join(&mut reader.client, group, &args.topics)?;
    let outcome = read_share(&mut reader, &mut member, &stop);
    // What was read and committed stays so; the others only have to wait longer.
    let _ = member.leave(&mut reader.client);
    outcome
}

fn read_share(reader: &mut Reader<'_>, member: &mut Member, stop: &Stop) -> Result<(), ToolError> {
    let mut positions = share(reader, member)?;
    while !stop.is_said() && (reader.args.follow && reader.output.left > 0 || reader.has_more(&positions)) {
        let mut is_in = true;
        if positions.iter().all(Position::is_at_end) {
            // Others have all there is to read.
            thread::sleep(PAUSE);
        } else {
            is_in = match reader.read(&mut positions, Some(member))? {
                Read::Records(0) => true,
                Read::Records(_) | Read::Outdated => commit(&mut reader.client, member, &offsets_of(&positions))?,
            };
        }
        if !is_in || !member.heartbeat(&mut reader.client)? {
            member.rejoin(&mut reader.client)?;
            positions = share(reader, member)?;
        }
    }
    if positions.is_empty() {
        return Ok(());
    }
    Ok(reader.client.retry(|client| client.commit(member.committer(), &offsets_of(&positions)))?)
}

/// Commits as a member. `false`: it is none any more, or of an old generation, and has to join anew.
fn commit(client: &mut Client, member: &Member, offsets: &Offsets) -> Result<bool, ClientError> {
    match client.commit(member.committer(), offsets) {
        Ok(()) => Ok(true),
        Err(ClientError::Refused { code, .. }) if is_to_rejoin(code) => Ok(false),
        // The next commit says the same and more.
        Err(error) if error.is_retriable() => Ok(true),
        Err(error) => Err(error),
    }
}

/// Where a member begins in its share of the partitions.
fn share(reader: &mut Reader<'_>, member: &Member) -> Result<Vec<Position>, ToolError> {
    let committer = member.committer();
    let committed = reader.client.retry(|client| client.committed(committer.group, Some(member.assigned())))?;
    reader.refresh()?;
    let mut topics: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    for (topic, partition) in member.assigned() {
        topics.entry(topic).or_default().push(*partition);
    }
    let mut positions = Vec::new();
    for (topic, partitions) in topics {
        positions.extend(start(&mut reader.client, &reader.cluster, reader.args, topic, &partitions)?);
    }
    for position in &mut positions {
        if let Some(offset) = committed.get(&(position.topic.clone(), position.partition)) {
            position.next = *offset;
        }
    }
    if committed.len() < positions.len() {
        // Whoever gets them next begins here too, and not at what is the end by then.
        commit(&mut reader.client, member, &offsets_of(&positions))?;
    }
    Ok(positions)
}

fn offsets_of(positions: &[Position]) -> Offsets {
    positions.iter().map(|position| ((position.topic.clone(), position.partition), position.next)).collect()
}

/// Where reading begins in these partitions of a topic, and where it ends.
fn start(
    client: &mut Client,
    cluster: &Cluster,
    args: &ConsumeArgs,
    name: &str,
    wanted: &[i32],
) -> Result<Vec<Position>, ToolError> {
    let partitions: Vec<_> = cluster.topic(name)?.partitions.iter().filter(|p| wanted.contains(&p.index)).cloned().collect();
    let mut list = |timestamp| client.retry(|client| offsets::list(client, cluster, name, &partitions, timestamp));
    let (first, last) = (list(offsets::EARLIEST)?, list(offsets::LATEST)?);
    let by_time = match args.from {
        From::Time(time) => list(time)?,
        _ => BTreeMap::new(),
    };
    let mut positions = Vec::new();
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
        positions.push(Position { topic: name.to_owned(), partition: partition.index, next, end });
    }
    Ok(positions)
}

/// The client, what it knows, and where records go.
struct Reader<'a> {
    args: &'a ConsumeArgs,
    client: Client,
    cluster: Cluster,
    output: Output<'a>,
    /// Since when nothing goes well.
    failing_since: Option<Instant>,
}

/// What came of asking the leaders.
enum Read {
    /// So many records.
    Records(u64),
    /// The group forms anew; what was read up to here stands.
    Outdated,
}

impl<'a> Reader<'a> {
    fn new(args: &'a ConsumeArgs) -> Result<Self, ToolError> {
        let mut client = args.target.client()?;
        let cluster = client.retry(|client| client.cluster(Some(&names(args))))?;
        Ok(Self { args, client, cluster, output: Output::new(args), failing_since: None })
    }

    fn has_more(&self, positions: &[Position]) -> bool {
        self.output.left > 0 && positions.iter().any(|position| !position.is_at_end())
    }

    fn refresh(&mut self) -> Result<(), ClientError> {
        self.cluster = self.client.retry(|client| client.cluster(Some(&names(self.args))))?;
        Ok(())
    }

    /// Asks every leader once and shows what comes.
    fn read(&mut self, positions: &mut [Position], member: Option<&mut Member>) -> Result<Read, ToolError> {
        let follow = self.args.follow;
        let polled = poll(&mut self.client, &self.cluster, follow, positions, member, &mut self.output);
        self.output.out.flush().map_err(ToolError::Output)?;
        match polled {
            Ok(records) => {
                self.failing_since = None;
                if records == 0 && follow && self.cluster.brokers.len() > 1 {
                    thread::sleep(PAUSE);
                }
                Ok(Read::Records(records))
            }
            Err(PollError::Outdated) => Ok(Read::Outdated),
            Err(PollError::Broker(error)) if error.is_retriable() => {
                let since = *self.failing_since.get_or_insert_with(Instant::now);
                if since.elapsed() >= self.client.timeout() {
                    return Err(error.into());
                }
                thread::sleep(PAUSE);
                self.refresh()?;
                Ok(Read::Records(0))
            }
            Err(PollError::Broker(error)) => Err(error.into()),
            Err(PollError::Other(error)) => Err(error),
        }
    }
}

fn names(args: &ConsumeArgs) -> Vec<&str> {
    args.topics.iter().map(String::as_str).collect()
}

/// Why nothing more was read.
enum PollError {
    /// The broker, which may be better soon.
    Broker(ClientError),
    /// The group forms anew.
    Outdated,
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
    mut member: Option<&mut Member>,
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
        let request = fetch_request(cluster, positions, &wanted, wait, member.is_some())?;
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
                records += take(client, cluster, &mut positions[at], data, member.as_deref_mut(), output)?;
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
    in_group: bool,
) -> Result<FetchRequest<'a>, ClientError> {
    let (bytes, partition_bytes) = if in_group { GROUP_FETCH_BYTES } else { FETCH_BYTES };
    let mut topics: Vec<FetchTopic<'a>> = Vec::new();
    for position in wanted.iter().map(|at| &positions[*at]) {
        let partition = FetchPartition {
            partition: position.partition,
            fetch_offset: position.next,
            partition_max_bytes: partition_bytes,
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
        max_bytes: bytes,
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
    mut member: Option<&mut Member>,
    output: &mut Output<'_>,
) -> Result<u64, PollError> {
    match data.error_code {
        ErrorCode::NONE => {}
        // Retriable by the book, but what is damaged stays so.
        ErrorCode::CORRUPT_MESSAGE => {
            let why = "the broker says that it is damaged (CORRUPT_MESSAGE)".to_owned();
            let (topic, partition, offset) = (position.topic.clone(), position.partition, position.next);
            return Err(ToolError::Damaged { topic, partition, offset, why }.into());
        }
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
                if let Some(member) = member.as_deref_mut().filter(|member| member.is_heartbeat_due()) {
                    // Whoever reads what we show may be slow.
                    output.out.flush().map_err(ToolError::Output)?;
                    let is_in = commit(client, member, &offsets_of(std::slice::from_ref(position)))?;
                    if !is_in || !member.heartbeat(client)? {
                        return Err(PollError::Outdated);
                    }
                }
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
