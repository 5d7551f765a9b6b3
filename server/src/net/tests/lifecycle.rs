//! Connections come and go: dealing, limits, idleness, a graceful stop.

use std::cell::Cell;
use std::future::poll_fn;
use std::task::Poll;

use super::*;
use crate::net::Crowd;
use crate::net::listener::BindError;

#[test]
fn a_port_in_use_is_an_error_that_says_what_to_do() {
    let first = loopback();
    let error = listener::bind("PLAINTEXT", "127.0.0.1", first.address().port(), 50).unwrap_err();
    assert!(matches!(error, BindError::InUse { .. }));
    let text = error.to_string();
    assert!(text.contains("in use") && text.contains("--listen") && !text.contains('\n'), "{text}");

    let error = listener::bind("PLAINTEXT", "192.0.2.1", 0, 50).unwrap_err().to_string();
    assert!(error.contains("192.0.2.1") && !error.contains('\n'), "{error}");
    let error = listener::bind("PLAINTEXT", "no such host", 0, 50).unwrap_err();
    assert!(matches!(error, BindError::Resolve { .. }));
    assert!(listener::bind("PLAINTEXT", "", 0, 50).unwrap().address().ip().is_unspecified());
}

#[test]
fn connections_are_dealt_out_evenly() {
    run(async {
        let (dealer, mut cores) = Dealer::new(3, ConnectionLimits { all_max: 100, descriptors_max: 100, per_address_max: 100 });
        let (_stop, stopped) = stop_channel();
        let listener = loopback();
        let address = listener.address();
        tokio::task::spawn_local(listener::accept(listener, dealer.clone(), stopped));
        let mut held = Vec::new();
        let mut dealt: Vec<Vec<_>> = vec![Vec::new(), Vec::new(), Vec::new()];
        for _ in 0..9 {
            held.push(TcpStream::connect(address).await.unwrap());
        }
        for (core, dealt) in cores.iter_mut().zip(&mut dealt) {
            for _ in 0..3 {
                dealt.push(core.recv().await.unwrap());
            }
        }
        assert_eq!(dealer.connections(), 9);
        // Core 1 loses two: it gets the next ones.
        dealt[1].truncate(1);
        for _ in 0..2 {
            held.push(TcpStream::connect(address).await.unwrap());
            dealt[1].push(cores[1].recv().await.unwrap());
        }
        assert_eq!(dealer.connections(), 9);
    });
}

#[test]
fn too_many_connections_are_refused_and_places_come_free() {
    run(async {
        let plenty = ConnectionLimits { all_max: 9, descriptors_max: 9, per_address_max: 9 };
        let limits = [
            ConnectionLimits { all_max: 2, ..plenty },
            ConnectionLimits { descriptors_max: 2, ..plenty },
            ConnectionLimits { per_address_max: 2, ..plenty },
        ];
        for limits in limits {
            let broker = Broker::with_connections(Limits::default(), echo(), limits);
            let mut first = broker.connect().await;
            let mut second = broker.connect().await;
            for client in [&mut first, &mut second] {
                client.write_all(&request(1, b"x")).await.unwrap();
                response(client).await;
            }
            let mut third = broker.connect().await;
            assert_eq!(rest_of(&mut third).await, b"");
            drop(first);
            broker.until(|broker| broker.dealer.connections() == 1).await;
            let mut fourth = broker.connect().await;
            fourth.write_all(&request(4, b"x")).await.unwrap();
            assert_eq!(response(&mut fourth).await.0, 4);
        }
    });
}

#[test]
fn an_idle_connection_is_closed_and_one_with_a_request_in_flight_is_not() {
    run(async {
        let gates = Gates::default();
        // Longer than this thread may stand still before the requests are read.
        let limits = Limits { idle_max: Duration::from_secs(3), ..Limits::default() };
        let broker = Broker::start(limits, gates.echo());
        let mut waiting = broker.connect().await;
        waiting.write_all(&request(1, b"poll")).await.unwrap();
        gates.arrival(1).await;
        let (mut idle, mut halfway) = (broker.connect().await, broker.connect().await);
        halfway.write_all(&request(2, &[0; 100_000])[..50_000]).await.unwrap();
        assert_eq!(rest_of(&mut idle).await, b"");
        assert_eq!(rest_of(&mut halfway).await, b"");
        tokio::time::sleep(Duration::from_millis(150)).await;
        gates.open(1);
        assert_eq!(response(&mut waiting).await, (1, b"poll".to_vec()));
        assert_eq!(rest_of(&mut waiting).await, b"");
    });
}

#[test]
fn a_handler_may_close_the_connection_after_earlier_answers() {
    run(async {
        let serve: Serve = Box::new(|context, body| {
            Box::pin(async move {
                match body.as_ref() {
                    b"close" => Outcome::Close("the test wants it".into()),
                    body => reply(&context, body),
                }
            })
        });
        let broker = Broker::start(Limits::default(), serve);
        let mut client = broker.connect().await;
        let all = [request(1, b"before"), request(2, b"close"), request(3, b"after")];
        client.write_all(&all.concat()).await.unwrap();
        assert_eq!(response(&mut client).await, (1, b"before".to_vec()));
        assert_eq!(rest_of(&mut client).await, b"");
        broker.until(|broker| broker.dealer.connections() == 0).await;
    });
}

#[test]
fn a_request_that_was_started_ends_though_its_peer_is_gone() {
    run(async {
        let gates = Gates::default();
        let finished: Rc<Cell<i32>> = Rc::default();
        let serve: Serve = {
            let (inner, finished) = (gates.echo(), finished.clone());
            Box::new(move |context, body| {
                let (inner, finished) = (inner(context, body), finished.clone());
                Box::pin(async move {
                    let outcome = inner.await;
                    finished.set(finished.get() + 1);
                    outcome
                })
            })
        };
        let broker = Broker::start(Limits::default(), serve);
        let mut client = broker.connect().await;
        client.write_all(&[request(1, b"x"), request(2, &[0; 100_000])].concat()).await.unwrap();
        broker.until(|broker| broker.started().len() == 2).await;
        drop(client);
        gates.open(1);
        broker.until(|_| finished.get() == 1).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        gates.open(2);
        broker.until(|broker| finished.get() == 2 && broker.dealer.connections() == 0).await;
        assert_eq!(broker.pool.out_bytes(), 0);
    });
}

/// Answers when the peer is gone.
fn when_gone() -> Serve {
    Box::new(|context, body| {
        Box::pin(async move {
            context.connection.gone.wait().await;
            reply(&context, &body)
        })
    })
}

#[test]
fn who_waits_for_others_hears_that_the_peer_is_gone() {
    run(async {
        let broker = Broker::start(Limits::default(), when_gone());
        let mut client = broker.connect().await;
        client.write_all(&[request(1, b"x"), request(2, &[0; 100_000])].concat()).await.unwrap();
        broker.until(|broker| broker.started().len() == 2).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
        assert_eq!(broker.dealer.connections(), 1);
        drop(client);
        broker.until(|broker| broker.dealer.connections() == 0).await;
        assert_eq!((broker.pool.out_bytes(), broker.core.budget.available()), (0, Limits::default().core_bytes_max));
    });
}

/// The end of a peer used to stand behind what it had sent, unread while that had to wait for the first request: up to 24 days for a
/// fetch that asks so. Found by fuzzing.
#[test]
fn who_waits_for_others_hears_it_although_more_was_sent() {
    run(async {
        let limits = Limits { connection_requests_max: 2, ..Limits::default() };
        let broker = Broker::start(limits, when_gone());
        let (mut half, mut whole) = (broker.connect().await, broker.connect().await);
        let sent: Vec<_> = (1..=5).map(|at| request(at, b"x")).collect();
        half.write_all(&sent.concat()).await.unwrap();
        whole.write_all(&sent.concat()).await.unwrap();
        broker.until(|broker| broker.started().len() == 4).await;
        tokio::time::sleep(Duration::from_millis(250)).await;
        assert_eq!((broker.started().len(), broker.dealer.connections()), (4, 2));
        drop(whole);
        half.shutdown().await.unwrap();
        for at in 1..=5 {
            assert_eq!(response(&mut half).await, (at, b"x".to_vec()));
        }
        broker.until(|broker| broker.dealer.connections() == 0).await;
    });
}

/// What is no request ends a connection, and what was waited for before it: the answer comes, and then the end. Found by fuzzing.
#[test]
fn who_waits_for_others_does_not_hold_up_the_end_of_a_connection() {
    run(async {
        let broker = Broker::start(Limits::default(), when_gone());
        let mut client = broker.connect().await;
        client.write_all(&request(1, b"x")).await.unwrap();
        broker.until(|broker| broker.started().len() == 1).await;
        client.write_all(&[0xff; 4]).await.unwrap();
        assert_eq!(response(&mut client).await, (1, b"x".to_vec()));
        assert_eq!(rest_of(&mut client).await, b"");
        broker.until(|broker| broker.dealer.connections() == 0).await;
    });
}

#[test]
fn a_stop_answers_what_is_in_flight_and_closes() {
    run(async {
        let gates = Gates::default();
        let broker = Broker::start(Limits::default(), gates.echo());
        let (mut busy, mut idle, mut halfway) = (broker.connect().await, broker.connect().await, broker.connect().await);
        busy.write_all(&[request(1, b"one"), request(2, b"two")].concat()).await.unwrap();
        halfway.write_all(&request(9, &[0; 100_000])[..50_000]).await.unwrap();
        broker.until(|broker| broker.started().len() == 2 && broker.dealer.connections() == 3).await;

        broker.stop.stop();
        assert_eq!(rest_of(&mut idle).await, b"");
        // Bytes we have not read make a reset of the close, which is as good.
        let mut rest = Vec::new();
        let _ = halfway.read_to_end(&mut rest).await;
        assert!(rest.is_empty());
        broker.accepting.await.unwrap();
        assert!(TcpStream::connect(broker.address).await.is_err());

        busy.write_all(&request(3, b"too late")).await.unwrap();
        assert!(!broker.serving.is_finished());
        gates.open(2);
        gates.open(1);
        assert_eq!(response(&mut busy).await, (1, b"one".to_vec()));
        assert_eq!(response(&mut busy).await, (2, b"two".to_vec()));
        assert_eq!(rest_of(&mut busy).await, b"");
        drop(busy);
        broker.serving.await.unwrap();
        assert_eq!(broker.fake.started.borrow()[..], [1, 2]);
        assert_eq!(broker.dealer.connections(), 0);
    });
}

#[test]
fn a_core_with_a_ring_serves_as_well() {
    use ringlog_engine::disk::ring;
    // Where io_uring is not allowed there is no broker either.
    if let Err(error) = ring::probe() {
        eprintln!("not tested: {error}");
        return;
    }
    ring::Runtime::with_defaults().unwrap().block_on(async {
        let broker = Broker::start(Limits::default(), echo());
        let mut client = broker.connect().await;
        for id in 0..100 {
            let body = pattern(id as usize * 5000, 1);
            let bytes = request(id, &body);
            let (mut read, mut write) = client.split();
            let (_, got) = tokio::join!(write.write_all(&bytes), async {
                let mut got = vec![0; body.len() + 8];
                read.read_exact(&mut got).await.unwrap();
                got
            });
            assert!(got[8..] == body, "request {id}");
        }
        broker.stop.stop();
        broker.serving.await.unwrap();
    });
}

#[test]
fn a_connection_s_task_is_small() {
    run(async {
        let broker = Broker::start(Limits::default(), echo());
        let stream = broker.connect().await;
        let info = ConnectionInfo {
            crowd: Crowd::default(),
            gone: Gone::default(),
            home: Home::dealt_to(0),
            id: 1,
            peer: stream.peer_addr().unwrap(),
            local: stream.local_addr().unwrap(),
            listener: "PLAINTEXT".into(),
            principal: "User:ANONYMOUS".into(),
        };
        let (_stop, stopped) = stop_channel();
        // Ten thousand quiet ones are read in turn, and none is in a cache when its turn comes.
        let bytes = size_of_val(&connection::run(broker.core.clone(), stream, Rc::new(info), stopped));
        assert!(bytes <= 3072, "{bytes}");
    });
}

/// A peer that sent a large request a byte at a time kept what it takes of the core's budget for as long as it liked. It may, while
/// nobody else wants it.
#[test]
fn who_drips_a_large_request_does_not_keep_the_budget_from_others() {
    run(async {
        let serve: Serve = Box::new(|context, body| {
            Box::pin(async move {
                drop(body);
                reply(&context, b"")
            })
        });
        let limits = Limits { idle_max: Duration::from_secs(1), core_bytes_max: 1 << 20, ..Limits::default() };
        let broker = Broker::start(limits, serve);
        let mut drips = broker.connect().await;
        let frame = request(1, &[0; 900_000]);
        drips.write_all(&frame[..70_000]).await.unwrap();
        for byte in frame[70_000..].chunks(1).take(25) {
            drips.write_all(byte).await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        assert_eq!(broker.dealer.connections(), 1, "nobody wants what it holds");
        let mut drips = tokio::task::spawn_local(async move {
            let mut rest = frame[70_025..].chunks(1);
            while let Some(byte) = rest.next()
                && drips.write_all(byte).await.is_ok()
            {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        });
        let mut other = broker.connect().await;
        other.write_all(&request(2, &[0; 500_000])).await.unwrap();
        let answer = tokio::time::timeout(Duration::from_secs(20), response(&mut other)).await;
        assert_eq!(answer.expect("it gets room").0, 2);
        tokio::time::timeout(Duration::from_secs(20), &mut drips).await.expect("it is closed").unwrap();
    });
}

/// Whatever a task is polled for when its turn is used up wakes nobody, and has to be asked again.
#[test]
fn a_turn_that_is_used_up_loses_no_timer() {
    run(async {
        let serve: Serve = Box::new(|context, body| {
            Box::pin(async move {
                for _ in 0..body[0] {
                    let (sender, receiver) = oneshot::channel();
                    let _ = sender.send(());
                    let _ = receiver.await;
                }
                reply(&context, b"")
            })
        });
        let limits = Limits { idle_max: Duration::from_secs(3), ..Limits::default() };
        let broker = Broker::start(limits, serve);
        let mut clients = Vec::new();
        for units in 110..=130_u8 {
            let mut client = broker.connect().await;
            // At once: this thread may stand still, and who is silent for so long before is closed unanswered.
            client.write_all(&request(0, &[0; 20_000])).await.unwrap();
            clients.push((units, client));
        }
        for (_, client) in &mut clients {
            response(client).await;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        for (units, client) in &mut clients {
            let bytes = [&request(1, &[*units])[..], &request(2, &[0; 60_000])[..10_000]].concat();
            assert_eq!(client.try_write(&bytes).unwrap(), bytes.len());
        }
        // The core is busy with something else while the timers come due.
        std::thread::sleep(Duration::from_millis(3200));
        let mut lost = Vec::new();
        for (units, mut client) in clients {
            let mut rest = Vec::new();
            if tokio::time::timeout(Duration::from_secs(30), client.read_to_end(&mut rest)).await.is_err() {
                lost.push(units);
            }
        }
        assert!(lost.is_empty(), "never closed though silent in the middle of a request: {lost:?}");
    });
}

/// A connection whose requests are answered at once gives the core's other tasks their turn.
#[test]
fn requests_that_are_answered_at_once_take_turns() {
    run(async {
        let broker = Broker::start(Limits::default(), echo());
        let client = broker.connect().await;
        broker.until(|broker| broker.dealer.connections() == 1).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        let bytes = request(1, b"").repeat(20_000);
        // Another task of the core's, which is always ready.
        let (fake, most) = (broker.fake.clone(), Rc::new(Cell::new(0)));
        let watcher = tokio::task::spawn_local({
            let most = most.clone();
            let mut last = 0;
            poll_fn(move |cx| -> Poll<()> {
                let started = fake.started.borrow().len();
                most.set(most.get().max(started - last));
                last = started;
                cx.waker().wake_by_ref();
                Poll::Pending
            })
        });
        let mut sent = 0;
        while broker.fake.started.borrow().len() < 20_000 {
            sent += client.try_write(&bytes[sent..]).unwrap_or(0);
            let _ = client.try_read(&mut [0; 65536]);
            tokio::task::yield_now().await;
        }
        watcher.abort();
        assert!((1..=512).contains(&most.get()), "{} in one turn", most.get());
    });
}
