//! A connection goes on at another core, and its peer sees nothing of it.

use super::*;

/// Two cores, in this thread. Each answers with its index and the body. Of a body `to N` its connection belongs to a group on core N,
/// and of `records` it carries some.
struct TwoCores {
    address: SocketAddr,
    dealer: Dealer,
    stop: StopSender,
    gates: Gates,
    serving: Vec<JoinHandle<()>>,
}

impl TwoCores {
    fn start() -> Self {
        let (dealer, receivers) = Dealer::new(2, ConnectionLimits { all_max: 100, descriptors_max: 100, per_address_max: 100 });
        let (stop, stopped) = stop_channel();
        let gates = Gates::default();
        let mut serving = Vec::new();
        for (index, incoming) in receivers.into_iter().enumerate() {
            let gates = gates.clone();
            let serve: Serve = Box::new(move |context, body| {
                let home = &context.connection.home;
                match body.as_ref() {
                    b"records" => home.carries_records(),
                    [b't', b'o', b' ', core] => home.is_of_group_on(usize::from(core - b'0')),
                    b"wait" => return gates.echo()(context, body),
                    _ => {}
                }
                let answer = [&[b'0' + index as u8], body.as_ref()].concat();
                Box::pin(async move { reply(&context, &answer) })
            });
            let fake = Rc::new(Fake { serve, started: RefCell::default() });
            let core = Core::new(index, dealer.clone(), fake, Limits::default(), Pool::new(64 << 20));
            serving.push(tokio::task::spawn_local(super::super::serve(core, incoming, stopped.clone())));
        }
        let listener = loopback();
        let address = listener.address();
        let accepting = dealer.clone();
        tokio::task::spawn_local(async move { listener::accept(listener, accepting, stopped).await.unwrap() });
        Self { address, dealer, stop, gates, serving }
    }

    /// A connection at core 0: the first one is dealt to it.
    async fn connect(&self) -> TcpStream {
        let mut client = TcpStream::connect(self.address).await.unwrap();
        client.set_nodelay(true).unwrap();
        assert_eq!(ask(&mut client, 0, b"where").await, b"0where");
        client
    }
}

async fn ask(client: &mut TcpStream, id: i32, body: &[u8]) -> Vec<u8> {
    client.write_all(&request(id, body)).await.unwrap();
    let (answered, rest) = response(client).await;
    assert_eq!(answered, id);
    rest
}

/// Until the core answers that is expected: the connection moves when the answer is out, and the next request may be there before.
async fn arrives(client: &mut TcpStream, core: u8) {
    while ask(client, 50, b"where").await[0] != core {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
fn a_member_s_connection_goes_to_its_group_s_core_and_back_to_carry_records() {
    run(async {
        let broker = TwoCores::start();
        let mut client = broker.connect().await;
        assert_eq!(ask(&mut client, 1, b"to 1").await, b"0to 1");
        arrives(&mut client, b'1').await;
        // Requests of any size go on as before.
        let large = pattern(300_000, 7);
        assert_eq!(ask(&mut client, 2, &large).await[1..], large);
        assert_eq!(ask(&mut client, 3, b"to 0").await, b"1to 0", "a second group does not move it");
        assert_eq!(ask(&mut client, 4, b"where").await, b"1where");
        assert_eq!(ask(&mut client, 5, b"records").await, b"1records");
        arrives(&mut client, b'0').await;
        assert_eq!(ask(&mut client, 6, b"to 1").await, b"0to 1");
        assert_eq!(ask(&mut client, 7, b"where").await, b"0where");
        assert_eq!(broker.dealer.connections(), 1);
        drop(client);
        while broker.dealer.connections() > 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
}

#[test]
fn a_connection_with_anything_under_way_stays_where_it_is() {
    run(async {
        let broker = TwoCores::start();
        let mut client = broker.connect().await;
        // An unanswered request, and the beginning of another.
        let next = request(3, b"where");
        client.write_all(&[&request(1, b"wait"), &request(2, b"to 1"), &next[..7]].concat()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        broker.gates.arrival(1).await;
        broker.gates.open(1);
        assert_eq!(response(&mut client).await, (1, b"wait".to_vec()));
        assert_eq!(response(&mut client).await, (2, b"0to 1".to_vec()));
        tokio::time::sleep(Duration::from_millis(20)).await;
        client.write_all(&next[7..]).await.unwrap();
        assert_eq!(response(&mut client).await, (3, b"0where".to_vec()));
        arrives(&mut client, b'1').await;
    });
}

#[test]
fn requests_sent_while_a_connection_moves_are_answered_in_order() {
    run(async {
        let broker = TwoCores::start();
        for _ in 0..50 {
            let mut client = TcpStream::connect(broker.address).await.unwrap();
            client.set_nodelay(true).unwrap();
            for id in 0..20 {
                let body = if id == 3 { &b"to 1"[..] } else { b"where" };
                client.write_all(&request(id, body)).await.unwrap();
                if id % 3 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            for id in 0..20 {
                assert_eq!(response(&mut client).await.0, id);
            }
        }
    });
}

#[test]
fn a_moved_connection_hears_of_a_stop() {
    run(async {
        let broker = TwoCores::start();
        let mut client = broker.connect().await;
        ask(&mut client, 1, b"to 1").await;
        arrives(&mut client, b'1').await;
        client.write_all(&request(2, b"wait")).await.unwrap();
        broker.gates.arrival(2).await;
        broker.stop.stop();
        broker.gates.open(2);
        assert_eq!(response(&mut client).await, (2, b"wait".to_vec()));
        assert_eq!(rest_of(&mut client).await, b"");
        for serving in broker.serving {
            serving.await.unwrap();
        }
        assert_eq!(broker.dealer.connections(), 0);
    });
}
