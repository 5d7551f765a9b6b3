//! Bytes in: frames whole, split, large, oversized; the bounds on what is in flight.

use std::sync::Arc;

use ringlog_engine::log::inflow::Inflow;

use super::*;
use crate::net::reader::{SCRATCH_BYTES, SMALL_FRAME_BYTES_MAX};

#[test]
fn many_requests_in_one_write_and_one_request_in_many() {
    run(async {
        let broker = Broker::start(Limits::default(), echo());
        let mut client = broker.connect().await;
        let many: Vec<u8> = (0..1000).flat_map(|id| request(id, &pattern(id as usize % 50, id as u32))).collect();
        let (mut read, mut write) = client.split();
        let writing = async { write.write_all(&many).await.unwrap() };
        let reading = async {
            for id in 0..1000 {
                let len = read.read_i32().await.unwrap();
                assert_eq!(read.read_i32().await.unwrap(), id);
                let mut body = vec![0; len as usize - 4];
                read.read_exact(&mut body).await.unwrap();
                assert_eq!(body, pattern(id as usize % 50, id as u32));
            }
        };
        tokio::join!(writing, reading);
        assert_eq!(broker.started(), (0..1000).collect::<Vec<_>>());

        client.set_nodelay(true).unwrap();
        for byte in [request(1, b"slowly"), request(2, b"")].concat() {
            client.write_all(&[byte]).await.unwrap();
            tokio::time::sleep(Duration::from_micros(100)).await;
        }
        assert_eq!(response(&mut client).await, (1, b"slowly".to_vec()));
        assert_eq!(response(&mut client).await, (2, Vec::new()));
    });
}

#[test]
fn frames_of_every_size_come_through_whole() {
    run(async {
        let broker = Broker::start(Limits::default(), echo());
        let mut client = broker.connect().await;
        let header = request(0, b"").len() - 4;
        let around = [SMALL_FRAME_BYTES_MAX, SCRATCH_BYTES, 256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20];
        let mut sizes: Vec<usize> =
            around.iter().flat_map(|&size| [size - 1, size, size + 1]).map(|size| size - header).collect();
        sizes.extend([20 << 20, 3, 40 << 20, 0, 300_000, 5 << 20]);
        // The largest first meets a connection that has proven nothing; afterwards all are trusted.
        for round in 0..2 {
            let bodies: Vec<Vec<u8>> = sizes.iter().map(|&size| pattern(size, size as u32 + round)).collect();
            let (mut read, mut write) = client.split();
            let writing = async {
                for (id, body) in bodies.iter().enumerate() {
                    write.write_all(&request(id as i32, body)).await.unwrap();
                }
            };
            let reading = async {
                for (id, body) in bodies.iter().enumerate() {
                    let len = read.read_i32().await.unwrap();
                    assert_eq!(read.read_i32().await.unwrap(), id as i32);
                    let mut got = vec![0; len as usize - 4];
                    read.read_exact(&mut got).await.unwrap();
                    assert!(&got == body, "body {id} of {} bytes", body.len());
                }
            };
            tokio::join!(writing, reading);
        }
        broker.until(|broker| broker.pool.out_bytes() == 0).await;
        assert_eq!(broker.core.budget.available(), broker.core.limits.core_bytes_max);
    });
}

#[test]
fn bad_frames_close_the_connection_after_earlier_answers() {
    let oversized = (i32::try_from(Limits::default().request_bytes_max).unwrap() + 1).to_be_bytes();
    let bad: [(&str, Vec<u8>); 8] = [
        ("oversized", oversized.to_vec()),
        ("negative", (-1_i32).to_be_bytes().to_vec()),
        ("no header", framed(b"\0\x02\0")),
        ("empty", framed(b"")),
        ("unknown API", request_to(200, 0, 1, b"")),
        ("unknown version", request_to(KEY, 100, 1, b"")),
        ("client id beyond the frame", framed(b"\0\x02\0\x01\0\0\0\x01\x7f\xff")),
        ("TLS", b"\x16\x03\x01\x02\0\x01\0\x01".to_vec()),
    ];
    run(async {
        let broker = Broker::start(Limits::default(), echo());
        for (what, bytes) in bad {
            let mut client = broker.connect().await;
            client.write_all(&[request(1, b"good"), bytes, request(2, b"never")].concat()).await.unwrap();
            assert_eq!(response(&mut client).await, (1, b"good".to_vec()), "{what}");
            assert_eq!(rest_of(&mut client).await, b"", "{what}");
        }
        assert_eq!(broker.started(), [1; 8]);
    });
}

#[test]
fn half_a_frame_is_no_request_and_keeps_nothing() {
    run(async {
        let broker = Broker::start(Limits::default(), echo());
        for len in [2, 4, 10, 30_000, 3 << 20] {
            let mut client = broker.connect().await;
            let whole = request(1, &pattern(4 << 20, 1));
            client.write_all(&whole[..len]).await.unwrap();
            client.shutdown().await.unwrap();
            assert_eq!(rest_of(&mut client).await, b"");
        }
        assert!(broker.started().is_empty());
        broker.until(|broker| broker.pool.out_bytes() == 0 && broker.dealer.connections() == 0).await;
        assert_eq!(broker.core.budget.available(), broker.core.limits.core_bytes_max);
    });
}

#[test]
fn a_claimed_size_alone_gets_little_memory() {
    run(async {
        let broker = Broker::start(Limits::default(), echo());
        let mut client = broker.connect().await;
        client.write_all(&(90_i32 << 20).to_be_bytes()).await.unwrap();
        broker.until(|broker| broker.pool.out_bytes() > 0).await;
        client.write_all(&pattern(10_000, 1)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert!(broker.pool.out_bytes() <= 64 << 10, "{} bytes", broker.pool.out_bytes());
    });
}

#[test]
fn a_connection_has_so_many_requests_in_flight_and_no_more() {
    run(async {
        let gates = Gates::default();
        let limits = Limits { connection_requests_max: 3, ..Limits::default() };
        let broker = Broker::start(limits, gates.echo());
        let mut client = broker.connect().await;
        let many: Vec<u8> = (0..10).flat_map(|id| request(id, b"x")).collect();
        client.write_all(&many).await.unwrap();
        broker.until(|broker| broker.started().len() == 3).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(broker.started(), [0, 1, 2]);
        // An answer that cannot be sent yet keeps its place.
        gates.open(1);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(broker.started(), [0, 1, 2]);
        gates.open(0);
        assert_eq!(response(&mut client).await.0, 0);
        assert_eq!(response(&mut client).await.0, 1);
        for id in 2..10 {
            broker.until(|broker| broker.started().contains(&id)).await;
            gates.open(id);
            assert_eq!(response(&mut client).await.0, id);
        }
    });
}

#[test]
fn a_connection_has_so_many_bytes_in_flight_and_one_request_more() {
    run(async {
        let gates = Gates::default();
        let limits = Limits { connection_bytes_max: 2000, ..Limits::default() };
        let broker = Broker::start(limits, gates.echo());
        let mut client = broker.connect().await;
        let many: Vec<u8> = (0..6).flat_map(|id| request(id, &[7; 900])).collect();
        client.write_all(&many).await.unwrap();
        broker.until(|broker| broker.started().len() == 3).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(broker.started(), [0, 1, 2]);
        for id in 0..6 {
            broker.until(|broker| broker.started().contains(&id)).await;
            gates.open(id);
            assert_eq!(response(&mut client).await.0, id);
        }
    });
}

/// A partition that has much to take holds back who feeds it, to one request each, and nobody else.
#[test]
fn a_crowded_partition_is_fed_one_request_at_a_time() {
    const BATCH_BYTES: usize = 20 << 20;
    run(async {
        let inflow = Arc::new(Inflow::default());
        let gates = Gates::default();
        let (echo, partition) = (gates.echo(), inflow.clone());
        let serve: Serve = Box::new(move |context, body| {
            let entering = (&body[..] == b"crowded").then(|| partition.enter(BATCH_BYTES));
            if entering.is_some() {
                context.connection.crowd.feeds(&partition);
            }
            let answered = echo(context, body);
            Box::pin(async move {
                let outcome = answered.await;
                drop(entering);
                outcome
            })
        });
        let broker = Broker::start(Limits::default(), serve);
        let (mut first, mut second, mut other) = (broker.connect().await, broker.connect().await, broker.connect().await);
        let many: Vec<u8> = (0..5).flat_map(|id| request(id, b"crowded")).collect();
        first.write_all(&many).await.unwrap();
        broker.until(|broker| broker.started() == [0, 1]).await;
        second.write_all(&[request(10, b"crowded"), request(11, b"crowded")].concat()).await.unwrap();
        broker.until(|broker| broker.started() == [0, 1, 10]).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(broker.started(), [0, 1, 10]);
        other.write_all(&[request(20, b"other"), request(21, b"other")].concat()).await.unwrap();
        broker.until(|broker| broker.started() == [0, 1, 10, 20, 21]).await;
        gates.open(0);
        assert_eq!(response(&mut first).await.0, 0);
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(broker.started(), [0, 1, 10, 20, 21], "two are more than enough");
        gates.open(1);
        assert_eq!(response(&mut first).await.0, 1);
        broker.until(|broker| broker.started() == [0, 1, 10, 20, 21, 2]).await;
        gates.open(10);
        assert_eq!(response(&mut second).await.0, 10);
        for id in [2, 3, 4] {
            broker.until(|broker| broker.started().contains(&id)).await;
            gates.open(id);
            assert_eq!(response(&mut first).await.0, id);
        }
        broker.until(|broker| broker.started().contains(&11)).await;
        gates.open(11);
        assert_eq!(response(&mut second).await.0, 11);
        assert_eq!(inflow.bytes(), 0);
    });
}

#[test]
fn the_cores_budget_holds_back_large_requests_and_no_small_ones() {
    run(async {
        let gates = Gates::default();
        let limits = Limits { core_bytes_max: 2 << 20, ..Limits::default() };
        let broker = Broker::start(limits, gates.echo());
        let mut clients = Vec::new();
        for id in 0..4 {
            let mut client = broker.connect().await;
            // The third one passes the whole budget and gets all of it, alone.
            let len = if id == 2 { 3 << 20 } else { 900 << 10 };
            let bytes = request(id, &pattern(len, 1));
            let (read, mut write) = client.into_split();
            let writing = tokio::task::spawn_local(async move {
                write.write_all(&bytes).await.unwrap();
                write
            });
            clients.push((read, writing));
            if id < 2 {
                broker.until(|broker| broker.started().len() == id as usize + 1).await;
            } else {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            client = broker.connect().await;
            client.write_all(&request(100 + id, b"small")).await.unwrap();
            broker.until(|broker| broker.started().contains(&(100 + id))).await;
            gates.open(100 + id);
            assert_eq!(response(&mut client).await.0, 100 + id);
        }
        let large = |broker: &Broker| broker.started().into_iter().filter(|&id| id < 100).collect::<Vec<_>>();
        assert_eq!(large(&broker), [0, 1]);
        for (id, (mut read, writing)) in clients.into_iter().enumerate() {
            let id = id as i32;
            broker.until(|broker| broker.started().contains(&id)).await;
            if id == 2 {
                assert_eq!(large(&broker), [0, 1, 2], "first come, first served");
            }
            gates.open(id);
            let _write = writing.await.unwrap();
            let size = read.read_i32().await.unwrap();
            let mut body = vec![0; size as usize];
            read.read_exact(&mut body).await.unwrap();
            assert_eq!(body[..4], id.to_be_bytes());
        }
        assert_eq!(broker.core.budget.available(), 2 << 20);
    });
}
