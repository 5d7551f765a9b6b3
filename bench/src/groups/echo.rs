//! What heartbeats would cost a broker that did nothing with them: the same bytes, as often, over as many connections, to and from a
//! server that only echoes ([`super::echo_server`]). The difference to a broker's figure is the broker's own.

use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use futures_util::future::try_join_all;
use ringlog_protocol::api::heartbeat::{HeartbeatRequest, HeartbeatResponse};
use ringlog_protocol::{ApiKey, Encoder, begin_request, begin_response, finish_frame};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::member::CLASSIC_INTERVAL;
use super::scene::{OPENED_AT_ONCE, Scene};
use super::{echo_server, heartbeats, stopped};
use crate::error::Error;
use crate::load::client::{ClientError, gone, header};
use crate::load::measure::summary;
use crate::results::Echo;
use crate::stop;

/// The server, which ends when this is dropped.
struct Server {
    process: Child,
    address: SocketAddr,
}

impl Server {
    fn start(threads: usize, (request_bytes, answer_bytes): (usize, usize)) -> Result<Self, Error> {
        let failed = |error: std::io::Error| Error::Failed(format!("the bare echo cannot be started: {error}"));
        let mut process = Command::new(std::env::current_exe().map_err(failed)?)
            .arg(echo_server::COMMAND)
            .args(["--threads", &threads.to_string()])
            .args(["--request-bytes", &request_bytes.to_string()])
            .args(["--answer-bytes", &answer_bytes.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let address = match &mut process.stdout {
            Some(output) => echo_server::address_from(output),
            None => unreachable!("it was asked for"),
        };
        match address {
            Ok(address) => Ok(Self { process, address }),
            Err(error) => {
                let _ = process.kill();
                let _ = process.wait();
                Err(error)
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        let _ = self.process.wait();
    }
}

/// The sizes of a classic heartbeat and its answer, of a member like ours.
fn heartbeat_bytes() -> (usize, usize) {
    let version = ApiKey::Heartbeat.version_max();
    let mut request = Encoder::new();
    let start = begin_request(&mut request, &header(ApiKey::Heartbeat, version, 0));
    let heartbeat = HeartbeatRequest {
        group_id: "ringlog-bench-01234567-classic-heartbeats-00".into(),
        // What it calls itself, and a UUID.
        member_id: "ringlog-bench-01234567-0123-0123-0123-0123456789ab".into(),
        generation_id: 1,
        ..Default::default()
    };
    heartbeat.encode(&mut request, version);
    let mut answer = Encoder::new();
    let answer_start = begin_response(&mut answer, ApiKey::Heartbeat, version, 0);
    HeartbeatResponse::default().encode(&mut answer, version);
    (finish_frame(&mut request, start), finish_frame(&mut answer, answer_start))
}

/// Watches it.
///
/// # Errors
/// The server fails, or the user stops.
pub(super) fn measure(scene: &mut Scene<'_>) -> Result<Echo, Error> {
    let plan = scene.plan;
    heartbeats::check_file_limit(plan.heartbeat_members)?;
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let sizes = heartbeat_bytes();
    let server = Server::start(threads, sizes)?;
    let address = server.address;
    let (request, answer) = (vec![0; sizes.0], vec![0; sizes.1]);
    let watched = scene.runtime.block_on(async {
        let mut streams = connect_all(address, plan.heartbeat_members).await?;
        let beat = async |stream: &mut TcpStream| {
            let mut answer = answer.clone();
            let echoed = async {
                stream.write_all(&request).await?;
                stream.read_exact(&mut answer).await
            };
            echoed.await.map(drop).map_err(|error| gone(address, &error))
        };
        heartbeats::watch(plan, CLASSIC_INTERVAL, Some(server.process.id()), &mut streams, beat).await
    })?;
    Ok(Echo {
        connections: plan.heartbeat_members as u64,
        threads: threads as u64,
        request_bytes: sizes.0 as u64,
        answer_bytes: sizes.1 as u64,
        interval_ms: CLASSIC_INTERVAL.as_millis() as u64,
        elapsed_s: watched.elapsed_s,
        count: watched.latency.len(),
        per_s: watched.latency.len() as f64 / watched.elapsed_s,
        latency: summary(&watched.latency),
        server_cpu_percent: watched.served_percent,
        generator_cpu_percent: watched.own_percent,
    })
}

/// As many connections, some at a time.
async fn connect_all(address: SocketAddr, count: usize) -> Result<Vec<TcpStream>, ClientError> {
    let mut streams = Vec::with_capacity(count);
    while streams.len() < count {
        if stop::requested() {
            return Err(stopped());
        }
        let at_once = OPENED_AT_ONCE.min(count - streams.len());
        let opened = try_join_all((0..at_once).map(|_| async {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        }));
        streams.extend(opened.await.map_err(|source| ClientError::Unreachable { address, source })?);
    }
    Ok(streams)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_a_heartbeats() {
        let (request, answer) = heartbeat_bytes();
        // Of the answer: its size, the number of its request, no tags, the time to wait, no error, no tags.
        assert_eq!(answer, 4 + 4 + 1 + 4 + 2 + 1);
        assert!((120..200).contains(&request), "{request}");
    }
}
