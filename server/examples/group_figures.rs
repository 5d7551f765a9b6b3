//! Measures what groups cost on a running broker: commits per second, a rebalance, heartbeats, and how long groups take to load.
//!
//! ```text
//! cargo run --release -p ringlog-server --example group_figures -- 127.0.0.1:9092 commits|rebalance|heartbeats|offsets|load
//! ```
//!
//! `offsets` leaves 100,000 offsets behind; restart the broker and `load` says how long it was until all of them are served. The
//! broker's processor time is its own to tell (`ps -o cputimes`). Nothing here decides whether something is fast enough.

use std::borrow::Cow;
use std::error::Error;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use ringlog_protocol::api::create_topics::{CreatableTopic, CreateTopicsRequest, CreateTopicsResponse};
use ringlog_protocol::api::find_coordinator::{FindCoordinatorRequest, FindCoordinatorResponse};
use ringlog_protocol::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ringlog_protocol::api::join_group::{JoinGroupRequest, JoinGroupRequestProtocol, JoinGroupResponse};
use ringlog_protocol::api::offset_commit::{
    OffsetCommitRequest, OffsetCommitRequestPartition, OffsetCommitRequestTopic, OffsetCommitResponse,
};
use ringlog_protocol::api::offset_fetch::{OffsetFetchRequest, OffsetFetchRequestGroup, OffsetFetchResponse};
use ringlog_protocol::api::sync_group::{SyncGroupRequest, SyncGroupRequestAssignment, SyncGroupResponse};
use ringlog_protocol::{Decoder, Encoder, ErrorCode, Message, RequestHeader, ResponseHeader, begin_request, finish_frame};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

const TOPIC: &str = "group-figures";
const PARTITIONS: i32 = 1000;
/// What `offsets` writes: so many groups with so many partitions each.
const LOAD_GROUPS: i32 = 100;

struct Connection {
    stream: TcpStream,
    next: i32,
}

impl Connection {
    fn open(address: &str) -> Result<Self> {
        let stream = TcpStream::connect(address)?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, next: 0 })
    }

    fn send<'a>(&mut self, request: &impl Message<'a>, version: i16) -> Result<()> {
        let frame = frame(request, version, self.next);
        self.next += 1;
        Ok(self.stream.write_all(&frame)?)
    }

    fn receive(&mut self) -> Result<Vec<u8>> {
        let mut len = [0; 4];
        self.stream.read_exact(&mut len)?;
        let mut body = vec![0; u32::from_be_bytes(len) as usize];
        self.stream.read_exact(&mut body)?;
        Ok(body)
    }

    fn ask<'a>(&mut self, request: &impl Message<'a>, version: i16) -> Result<Vec<u8>> {
        self.send(request, version)?;
        self.receive()
    }
}

fn frame<'a, M: Message<'a>>(request: &M, version: i16, correlation_id: i32) -> Vec<u8> {
    let mut encoder = Encoder::new();
    let header =
        RequestHeader { api_key: M::API.key(), api_version: version, correlation_id, client_id: Some(Cow::Borrowed("figures")) };
    let start = begin_request(&mut encoder, &header);
    request.encode(&mut encoder, version);
    finish_frame(&mut encoder, start);
    encoder.into_buffer()
}

fn decode<'a, M: Message<'a>>(body: &'a [u8], version: i16) -> Result<M> {
    let mut decoder = Decoder::new(body);
    ResponseHeader::decode(&mut decoder, M::API, version)?;
    Ok(M::decode(&mut decoder, version)?)
}

fn check(error: ErrorCode) -> Result<()> {
    if error.is_none() { Ok(()) } else { Err(error.to_string().into()) }
}

fn prepare(address: &str) -> Result<()> {
    let mut connection = Connection::open(address)?;
    let topic =
        CreatableTopic { name: TOPIC.into(), num_partitions: PARTITIONS, replication_factor: 1, ..CreatableTopic::default() };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 60_000, ..CreateTopicsRequest::default() };
    let body = connection.ask(&request, 7)?;
    let response: CreateTopicsResponse<'_> = decode(&body, 7)?;
    match response.topics[0].error_code {
        ErrorCode::TOPIC_ALREADY_EXISTS => {}
        error => check(error)?,
    }
    loop {
        let request = FindCoordinatorRequest { key: "g".into(), ..FindCoordinatorRequest::default() };
        let body = connection.ask(&request, 3)?;
        let response: FindCoordinatorResponse<'_> = decode(&body, 3)?;
        if response.error_code.is_none() {
            return Ok(());
        }
    }
}

fn commit(group: &str, partitions: std::ops::Range<i32>, offset: i64) -> OffsetCommitRequest<'_> {
    let partition = |partition_index| OffsetCommitRequestPartition {
        partition_index,
        committed_offset: offset,
        committed_leader_epoch: -1,
        committed_metadata: Some("".into()),
    };
    OffsetCommitRequest {
        group_id: group.into(),
        generation_id_or_member_epoch: -1,
        retention_time_ms: -1,
        topics: vec![OffsetCommitRequestTopic {
            name: TOPIC.into(),
            partitions: partitions.map(partition).collect(),
            ..OffsetCommitRequestTopic::default()
        }],
        ..OffsetCommitRequest::default()
    }
}

/// Connections that each have some commits of one offset under way.
fn commits(address: &str) -> Result<()> {
    for (connections, depth) in [(1, 1), (16, 1), (64, 1), (32, 16)] {
        let end = Instant::now() + Duration::from_secs(5);
        let threads: Vec<_> = (0..connections)
            .map(|at| {
                let address = address.to_owned();
                std::thread::spawn(move || run_commits(&address, at, depth, end).map_err(|error| error.to_string()))
            })
            .collect();
        let mut latencies = Vec::new();
        for thread in threads {
            latencies.extend(thread.join().map_err(|_| "a thread panicked")??);
        }
        latencies.sort_unstable();
        let at = |part: f64| latencies[((latencies.len() - 1) as f64 * part) as usize];
        println!(
            "{connections} connections, {depth} under way each: {} commits/s, p50 {:?}, p99 {:?}",
            latencies.len() / 5,
            at(0.5),
            at(0.99)
        );
    }
    Ok(())
}

fn run_commits(address: &str, at: usize, depth: usize, end: Instant) -> Result<Vec<Duration>> {
    let mut connection = Connection::open(address)?;
    let group = format!("commits-{at}");
    let mut sent = std::collections::VecDeque::new();
    let mut latencies = Vec::new();
    let mut offset = 0;
    loop {
        while sent.len() < depth && Instant::now() < end {
            connection.send(&commit(&group, 0..1, offset), 8)?;
            offset += 1;
            sent.push_back(Instant::now());
        }
        let Some(began) = sent.pop_front() else { return Ok(latencies) };
        let body = connection.receive()?;
        let response: OffsetCommitResponse<'_> = decode(&body, 8)?;
        check(response.topics[0].partitions[0].error_code)?;
        latencies.push(began.elapsed());
    }
}

fn join(group: &str, member: &str) -> JoinGroupRequest<'static> {
    JoinGroupRequest {
        group_id: group.to_owned().into(),
        session_timeout_ms: 60_000,
        rebalance_timeout_ms: 60_000,
        member_id: member.to_owned().into(),
        protocol_type: "consumer".into(),
        protocols: vec![JoinGroupRequestProtocol { name: "range".into(), metadata: Cow::Owned(vec![0; 100]) }],
        ..JoinGroupRequest::default()
    }
}

/// A hundred members share a thousand partitions, and do it again.
fn rebalance(address: &str) -> Result<()> {
    const MEMBERS: usize = 100;
    let mut connections = (0..MEMBERS).map(|_| Connection::open(address)).collect::<Result<Vec<_>>>()?;
    let mut ids = vec![String::new(); MEMBERS];
    for round in 0..5 {
        for (connection, id) in connections.iter_mut().zip(&ids) {
            connection.send(&join("rebalance", id), 3)?;
        }
        let last_joined = Instant::now();
        let mut leader = None;
        let mut generation = 0;
        for (at, connection) in connections.iter_mut().enumerate() {
            let body = connection.receive()?;
            let response: JoinGroupResponse<'_> = decode(&body, 3)?;
            check(response.error_code)?;
            generation = response.generation_id;
            ids[at] = response.member_id.to_string();
            if response.leader == response.member_id {
                leader = Some(at);
            }
        }
        let joined = last_joined.elapsed();
        let leader = leader.ok_or("nobody leads")?;
        for (at, connection) in connections.iter_mut().enumerate() {
            let assignment = |id: &String| SyncGroupRequestAssignment {
                member_id: Cow::Owned(id.clone()),
                // As long as what names ten partitions of a topic.
                assignment: Cow::Owned(vec![7; 80]),
            };
            let request = SyncGroupRequest {
                group_id: "rebalance".into(),
                generation_id: generation,
                member_id: Cow::Borrowed(&ids[at]),
                assignments: if at == leader { ids.iter().map(assignment).collect() } else { Vec::new() },
                ..SyncGroupRequest::default()
            };
            connection.send(&request, 2)?;
        }
        for connection in &mut connections {
            let body = connection.receive()?;
            let response: SyncGroupResponse<'_> = decode(&body, 2)?;
            check(response.error_code)?;
        }
        let all = last_joined.elapsed();
        let note = if round == 0 { ", with the delay of a new group" } else { "" };
        println!("{MEMBERS} members: all joined after {joined:?}, all have their part after {all:?}{note}");
    }
    Ok(())
}

/// Ten thousand members of a hundred groups, each of which says every three seconds that it is there.
fn heartbeats(address: &str) -> Result<()> {
    const GROUPS: usize = 100;
    const MEMBERS: usize = 100;
    let mut members: Vec<(Connection, String, Vec<String>)> = Vec::new();
    for group in 0..GROUPS {
        let mut connection = Connection::open(address)?;
        let name = format!("heartbeats-{group}");
        for _ in 0..MEMBERS / 2 {
            connection.send(&join(&name, ""), 3)?;
        }
        members.push((connection, name, Vec::new()));
    }
    // A connection has at most 64 requests unanswered: half of the members come by another one.
    let mut others = Vec::new();
    for (_, name, _) in &members {
        let mut connection = Connection::open(address)?;
        for _ in 0..MEMBERS / 2 {
            connection.send(&join(name, ""), 3)?;
        }
        others.push((connection, name.clone(), Vec::new()));
    }
    members.extend(others);
    let mut generation = 0;
    for (connection, _, ids) in &mut members {
        for _ in 0..MEMBERS / 2 {
            let body = connection.receive()?;
            let response: JoinGroupResponse<'_> = decode(&body, 3)?;
            check(response.error_code)?;
            generation = response.generation_id;
            ids.push(response.member_id.to_string());
        }
    }
    println!("{} members are in; now 30 s of heartbeats, one in 3 s from each", GROUPS * MEMBERS);
    let began = Instant::now();
    let mut count = 0_u64;
    for round in 1..=10_u32 {
        for (at, (connection, group, ids)) in members.iter_mut().enumerate() {
            let due = Duration::from_secs(3) * (round - 1) + Duration::from_secs(3) * at as u32 / (2 * GROUPS) as u32;
            std::thread::sleep(due.saturating_sub(began.elapsed()));
            for id in ids.iter() {
                let request = HeartbeatRequest {
                    group_id: Cow::Borrowed(group),
                    generation_id: generation,
                    member_id: Cow::Borrowed(id),
                    ..HeartbeatRequest::default()
                };
                connection.send(&request, 3)?;
            }
            for _ in ids.iter() {
                let body = connection.receive()?;
                let response: HeartbeatResponse = decode(&body, 3)?;
                check(response.error_code)?;
                count += 1;
            }
        }
    }
    println!("{count} heartbeats in {:?}", began.elapsed());
    Ok(())
}

fn offsets(address: &str) -> Result<()> {
    let mut connection = Connection::open(address)?;
    let began = Instant::now();
    for group in 0..LOAD_GROUPS {
        let body = connection.ask(&commit(&format!("load-{group}"), 0..PARTITIONS, 1), 8)?;
        let response: OffsetCommitResponse<'_> = decode(&body, 8)?;
        for partition in &response.topics[0].partitions {
            check(partition.error_code)?;
        }
    }
    println!("{} offsets committed in {:?}", LOAD_GROUPS * PARTITIONS, began.elapsed());
    Ok(())
}

/// From the first connection that is taken until the last group is served.
fn load(address: &str) -> Result<()> {
    let mut connection = loop {
        if let Ok(connection) = Connection::open(address) {
            break connection;
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let began = Instant::now();
    let mut count = 0;
    for group in 0..LOAD_GROUPS {
        let wanted = OffsetFetchRequestGroup { group_id: format!("load-{group}").into(), ..OffsetFetchRequestGroup::default() };
        let request = OffsetFetchRequest { groups: vec![wanted], ..OffsetFetchRequest::default() };
        loop {
            let body = connection.ask(&request, 8)?;
            let response: OffsetFetchResponse<'_> = decode(&body, 8)?;
            let group = &response.groups[0];
            match group.error_code {
                ErrorCode::COORDINATOR_LOAD_IN_PROGRESS => std::thread::sleep(Duration::from_millis(1)),
                error => {
                    check(error)?;
                    count += group.topics.iter().map(|topic| topic.partitions.len()).sum::<usize>();
                    break;
                }
            }
        }
    }
    println!("{count} offsets are served {:?} after the first connection", began.elapsed());
    Ok(())
}

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().collect();
    let [_, address, what] = &args[..] else {
        return Err("usage: group_figures HOST:PORT commits|rebalance|heartbeats|offsets|load".into());
    };
    match what.as_str() {
        "load" => load(address),
        "commits" => prepare(address).and_then(|()| commits(address)),
        "rebalance" => prepare(address).and_then(|()| rebalance(address)),
        "heartbeats" => prepare(address).and_then(|()| heartbeats(address)),
        "offsets" => prepare(address).and_then(|()| offsets(address)),
        other => Err(format!("{other} is not known; accepted: commits, rebalance, heartbeats, offsets, load").into()),
    }
}
