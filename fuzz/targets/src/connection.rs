//! A whole connection: any bytes into a broker with its request handlers, over a socket, and whatever it answers. Half a connection
//! is a client that says something sensible later: the broker has to answer that on a second one.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringlog_engine::core::{Core, CoreHandle, CoreSettings, recover, run_mailbox};
use ringlog_engine::disk::sim::SimDisk;
use ringlog_engine::env::sim::Simulation;
use ringlog_engine::memory::Pool;
use ringlog_server::api::Api;
use ringlog_server::broker::BrokerCore;
use ringlog_server::broker::boot::{self, Start};
use ringlog_server::config::BrokerConfig;
use ringlog_server::net::listener::{self, ConnectionLimits, Dealer};
use ringlog_server::net::{self, Limits};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

/// What a broker may take to answer a request that any client may send.
const PATIENCE: Duration = Duration::from_secs(20);
/// ApiVersions, version 0, and what its answer begins with.
const GREETING: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff];

thread_local! {
    static POOL: Pool = Pool::new(64 << 20);
    static CONFIG: Arc<BrokerConfig> =
        Arc::new(BrokerConfig::load(None, &[("auto.create.topics.enable".into(), "true".into())]).unwrap().0);
    /// Ports are scarce: one listener's worth of runtime for all inputs.
    static RUNTIME: RefCell<tokio::runtime::Runtime> =
        RefCell::new(tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap());
}

pub(crate) fn connection(input: &[u8]) {
    let simulation = Rc::new(Simulation::new(7));
    let disk = SimDisk::immediate(&simulation);
    let core = simulation.block_on(broker(&simulation, &disk));
    RUNTIME.with_borrow(|runtime| {
        LocalSet::new().block_on(runtime, async {
            // The broker's cores live in the simulation, its sockets here.
            let driver = tokio::task::spawn_local({
                let simulation = simulation.clone();
                async move {
                    loop {
                        simulation.run_for(Duration::from_millis(5));
                        tokio::task::yield_now().await;
                    }
                }
            });
            serve(core, input).await;
            driver.abort();
        });
    });
    // The broker's tasks hold each other.
    simulation.crash();
}

/// A broker of one core with a topic of two partitions.
async fn broker(simulation: &Simulation, disk: &SimDisk) -> Rc<BrokerCore> {
    let data: Arc<Path> = Path::new("/data").into();
    let mount = disk.mount();
    mount.create_dir(&data).await.unwrap();
    let recovered = recover::recover(&mount, &data).await.unwrap();
    let settings = CoreSettings {
        data_directory: data.to_path_buf(),
        journal_bytes: 128 << 10,
        journal_run_bytes_max: 512 << 10,
        tail_bytes: 16 << 20,
        open_files_max: 16,
    };
    let (handle, receiver) = CoreHandle::new(0);
    let handles: Arc<[CoreHandle]> = vec![handle].into();
    let core = Core::new(0, settings, mount, simulation.env(), Box::new(|_, _, _| false)).await.unwrap();
    core.start();
    core.env.spawn(Box::pin(run_mailbox(core.clone(), receiver)));
    let last_topic = AtomicU64::new(0);
    let start = Start {
        config: CONFIG.with(Arc::clone),
        cluster_id: "cluster-of-fuzzing".to_owned(),
        data_dir: data,
        recovered,
        // The same for the same input.
        new_topic_id: Arc::new(move || (1 << 64 | u128::from(last_topic.fetch_add(1, Ordering::Relaxed))).to_be_bytes()),
        snapshot_records: 1000,
    };
    let broker = boot::boot(&core, handles, start).await.unwrap();
    BrokerCore::new(broker, core)
}

async fn serve(core: Rc<BrokerCore>, input: &[u8]) {
    let limits = Limits { request_bytes_max: 1 << 20, ..Limits::default() };
    let (dealer, mut receivers) = Dealer::new(1, ConnectionLimits { all_max: 10, descriptors_max: 10, per_address_max: 10 });
    let core = net::Core::new(0, dealer.clone(), Api::new(core), limits, POOL.with(Pool::clone));
    let listener = listener::bind("PLAINTEXT", "127.0.0.1", 0, 50).unwrap();
    let address = listener.address();
    let (stop, stopped) = net::stop_channel();
    let accepting = tokio::task::spawn_local({
        let stopped = stopped.clone();
        async move { listener::accept(listener, dealer, stopped).await.unwrap() }
    });
    let serving = tokio::task::spawn_local(net::serve(core, receivers.remove(0), stopped));
    tokio::time::timeout(PATIENCE, hostile(address, input)).await.expect("it neither answers nor hangs up");
    tokio::time::timeout(PATIENCE, greet(address)).await.expect("the broker does not answer another client any more");
    stop.stop();
    accepting.await.unwrap();
    serving.abort();
}

/// Sends the input, says that there is no more, and reads what comes.
async fn hostile(address: SocketAddr, input: &[u8]) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    // A reset must not leave a port behind for a minute.
    let _ = stream.set_zero_linger();
    let (mut read, mut write) = stream.split();
    let send = async {
        let _ = write.write_all(input).await;
        let _ = write.shutdown().await;
    };
    let receive = async {
        let mut bytes = vec![0; 64 << 10];
        while matches!(read.read(&mut bytes).await, Ok(1..)) {}
    };
    tokio::join!(send, receive);
}

async fn greet(address: SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let _ = stream.set_zero_linger();
    stream.write_all(&GREETING).await.unwrap();
    let size = stream.read_i32().await.expect("an answer");
    assert!(size > 6 && stream.read_i32().await.unwrap() == 7);
}
