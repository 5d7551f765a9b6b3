//! `ringlog status`: the cluster at a glance.

use ringlog_protocol::api::describe_log_dirs::{DescribeLogDirsRequest, DescribeLogDirsResponse};
use serde::Serialize;

use super::args::Target;
use super::client::Client;
use super::{ToolError, output};

#[derive(Serialize)]
struct Status {
    cluster_id: Option<String>,
    controller: i32,
    topics: usize,
    partitions: usize,
    without_leader: usize,
    under_replicated: usize,
    brokers: Vec<Broker>,
}

#[derive(Serialize)]
struct Broker {
    id: i32,
    address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    directories: Vec<Directory>,
}

#[derive(Serialize)]
struct Directory {
    path: String,
    used_bytes: i64,
    free_bytes: i64,
}

pub(super) fn run(target: &Target) -> Result<(), ToolError> {
    let mut client = target.client()?;
    let cluster = client.cluster(None)?;
    let mut brokers = Vec::new();
    for (&id, (host, port)) in &cluster.brokers {
        let asked = cluster.address(id).and_then(|address| directories(&mut client, address));
        let (directories, problem) = match asked {
            Ok(directories) => (directories, None),
            Err(error) => (Vec::new(), Some(error.to_string())),
        };
        brokers.push(Broker { id, address: format!("{host}:{port}"), problem, directories });
    }
    let partitions = || cluster.topics.values().flat_map(|topic| &topic.partitions);
    let status = Status {
        cluster_id: cluster.id.clone(),
        controller: cluster.controller,
        topics: cluster.topics.len(),
        partitions: partitions().count(),
        without_leader: partitions().filter(|partition| partition.leader < 0).count(),
        under_replicated: partitions().filter(|partition| partition.in_sync.len() < partition.replicas.len()).count(),
        brokers,
    };
    if target.json {
        return output::object(&status);
    }
    output::print(&format!(
        "cluster {}, controller {}: {} topics, {} partitions, {} without a leader, {} under-replicated\n",
        status.cluster_id.as_deref().unwrap_or("without an id"),
        status.controller,
        status.topics,
        status.partitions,
        status.without_leader,
        status.under_replicated,
    ))?;
    let rows = status.brokers.iter().flat_map(|broker| {
        let row =
            |path: String, used: String, free: String| vec![broker.id.to_string(), broker.address.clone(), path, used, free];
        match &broker.problem {
            Some(problem) => vec![row(problem.clone(), "-".into(), "-".into())],
            None => {
                let of = |d: &Directory| row(d.path.clone(), output::bytes(d.used_bytes), output::bytes(d.free_bytes));
                broker.directories.iter().map(of).collect()
            }
        }
    });
    output::print(&output::table(&["BROKER", "ADDRESS", "DIRECTORY", "USED", "FREE"], rows))
}

fn directories(client: &mut Client, address: std::net::SocketAddr) -> Result<Vec<Directory>, super::ClientError> {
    let answer = client.ask(address, &DescribeLogDirsRequest { topics: None })?;
    let response: DescribeLogDirsResponse<'_> = answer.decode()?;
    let used = |result: &ringlog_protocol::api::describe_log_dirs::DescribeLogDirsResult<'_>| {
        result.topics.iter().flat_map(|topic| &topic.partitions).map(|partition| partition.partition_size).sum()
    };
    let directory = |result: &_| {
        let result: &ringlog_protocol::api::describe_log_dirs::DescribeLogDirsResult<'_> = result;
        Directory { path: result.log_dir.to_string(), used_bytes: used(result), free_bytes: result.usable_bytes }
    };
    Ok(response.results.iter().map(directory).collect())
}
