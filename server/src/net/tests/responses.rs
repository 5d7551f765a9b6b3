//! Bytes out: order, sources, slow readers.

use std::cell::Cell;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt;

use ringlog_engine::disk::{File, IoFuture, Payload};
use ringlog_engine::memory::{Buffer, ChunkWriter, Slice};
use ringlog_protocol::Encoder;

use super::*;

/// A file for reading; without a descriptor it is as the simulator's.
struct TestFile {
    file: std::fs::File,
    descriptor: bool,
    reads: Cell<usize>,
}

impl TestFile {
    fn new(content: &[u8], descriptor: bool) -> Rc<Self> {
        let file = tempfile::tempfile_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        file.write_all_at(content, 0).unwrap();
        Rc::new(Self { file, descriptor, reads: Cell::new(0) })
    }
}

fn unused<T: 'static>() -> IoFuture<T> {
    Box::pin(async { Err(std::io::ErrorKind::Unsupported.into()) })
}

impl File for TestFile {
    fn len_bytes(&self) -> IoFuture<u64> {
        unused()
    }
    fn read_at(&self, mut buffer: Buffer, len: usize, position: u64) -> IoFuture<(Buffer, usize)> {
        self.reads.set(self.reads.get() + 1);
        let result = self.file.read_at(&mut buffer[..len], position).map(|read| (buffer, read));
        Box::pin(async {
            tokio::task::yield_now().await;
            result
        })
    }
    fn write_at(&self, _: Payload, _: u64) -> IoFuture<()> {
        unused()
    }
    fn write_and_sync(&self, _: Payload, _: u64, _: oneshot::Sender<()>) -> IoFuture<()> {
        unused()
    }
    fn sync_data(&self) -> IoFuture<()> {
        unused()
    }
    fn set_len(&self, _: u64) -> IoFuture<()> {
        unused()
    }
    fn allocate(&self, _: u64, _: u64) -> IoFuture<()> {
        unused()
    }
    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.descriptor.then(|| self.file.as_fd())
    }
}

fn range(file: &Rc<TestFile>, position: u64, len: u64) -> FileRange {
    FileRange { file: file.clone(), position, len }
}

fn slice(pool: &Pool, content: &[u8]) -> Slice {
    let mut writer = ChunkWriter::new(pool, content.len()).unwrap();
    writer.fill(content);
    writer.publish(content.len());
    Slice::new(writer.chunk(), 0, content.len())
}

/// A home in a file that can be asked for.
struct InFile {
    range: FileRange,
    asked: Rc<Cell<usize>>,
}

impl TailRange for InFile {
    fn as_file(&self) -> Option<FileRange> {
        self.asked.set(self.asked.get() + 1);
        // Not at once: the segment may still be on its way to the disk.
        (self.asked.get() > 1).then(|| self.range.clone())
    }
}

#[test]
fn answers_keep_the_order_of_requests_however_their_handlers_finish() {
    run(async {
        let gates = Gates::default();
        let broker = Broker::start(Limits::default(), gates.echo());
        let mut client = broker.connect().await;
        let many: Vec<u8> = (0..5).flat_map(|id| request(id, &[id as u8; 3])).collect();
        client.write_all(&many).await.unwrap();
        broker.until(|broker| broker.started().len() == 5).await;
        assert_eq!(broker.started(), [0, 1, 2, 3, 4]);
        for id in [4, 2, 0, 3] {
            gates.open(id);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert_eq!(response(&mut client).await, (0, vec![0; 3]));
        let mut byte = [0];
        assert!(client.try_read(&mut byte).is_err(), "the second is not answered yet");
        gates.open(1);
        for id in 1..5 {
            assert_eq!(response(&mut client).await, (id, vec![id as u8; 3]));
        }
    });
}

#[test]
fn a_handler_runs_up_to_its_first_wait_before_the_next_is_made() {
    run(async {
        let steps: Rc<RefCell<Vec<String>>> = Rc::default();
        let serve: Serve = {
            let steps = steps.clone();
            Box::new(move |context, body| {
                let (steps, id) = (steps.clone(), context.correlation_id);
                steps.borrow_mut().push(format!("made {id}"));
                Box::pin(async move {
                    steps.borrow_mut().push(format!("started {id}"));
                    tokio::task::yield_now().await;
                    reply(&context, &body)
                })
            })
        };
        let broker = Broker::start(Limits::default(), serve);
        let mut client = broker.connect().await;
        let many: Vec<u8> = (0..3).flat_map(|id| request(id, b"")).collect();
        client.write_all(&many).await.unwrap();
        for id in 0..3 {
            assert_eq!(response(&mut client).await.0, id);
        }
        assert_eq!(*steps.borrow(), ["made 0", "started 0", "made 1", "started 1", "made 2", "started 2"]);
    });
}

/// Kafka takes the requests of a connection one after the other: whoever asks behind a write, on the same connection, finds it done.
#[test]
fn what_comes_behind_a_change_begins_when_it_has_ended() {
    const PRODUCE: i16 = ApiKey::Produce as i16;
    const DELETE_RECORDS: i16 = ApiKey::DeleteRecords as i16;
    run(async {
        let gates = Gates::default();
        let broker = Broker::start(Limits::default(), gates.echo());
        let mut client = broker.connect().await;
        let many = [
            request(0, b"a read, which changes nothing"),
            request_to(PRODUCE, 3, 1, b""),
            request_to(PRODUCE, 3, 2, b""),
            request_to(DELETE_RECORDS, 0, 3, b""),
            request_to(PRODUCE, 3, 4, b""),
            request(5, b"another"),
        ];
        client.write_all(&many.concat()).await.unwrap();
        let begun_when_open: [(i32, i32); 6] = [(0, 3), (2, 3), (1, 4), (3, 5), (4, 6), (5, 6)];
        for (id, begun) in begun_when_open {
            gates.arrival(id).await;
            gates.open(id);
            broker.until(|broker| broker.started().len() == begun as usize).await;
            tokio::time::sleep(Duration::from_millis(5)).await;
            assert_eq!(broker.started(), (0..begun).collect::<Vec<_>>(), "with {id} open");
        }
        for id in 0..6 {
            assert_eq!(response(&mut client).await.0, id);
        }
        // One that ends at its first turn holds up nobody, and what is read behind it is served.
        client.write_all(&[request_to(PRODUCE, 3, 6, b""), request(7, b"")].concat()).await.unwrap();
        gates.arrival(6).await;
        client.shutdown().await.unwrap();
        gates.open(6);
        gates.arrival(7).await;
        gates.open(7);
        assert_eq!((response(&mut client).await.0, response(&mut client).await.0), (6, 7));
    });
}

#[test]
fn what_waits_for_a_change_that_closes_the_connection_is_not_begun() {
    run(async {
        let gates = Gates::default();
        let serve: Serve = {
            let inner = gates.echo();
            Box::new(move |context, body| {
                let inner = inner(context, body);
                Box::pin(async move {
                    inner.await;
                    Outcome::Close("it failed, and nobody waits for an answer".into())
                })
            })
        };
        let broker = Broker::start(Limits::default(), serve);
        let mut client = broker.connect().await;
        client.write_all(&[request_to(ApiKey::Produce as i16, 3, 0, b""), request(1, b"")].concat()).await.unwrap();
        gates.arrival(0).await;
        gates.open(0);
        assert_eq!(rest_of(&mut client).await, b"");
        broker.until(|broker| broker.dealer.connections() == 0).await;
        assert_eq!(broker.started(), [0]);
    });
}

#[test]
fn headers_have_their_versions_and_the_context_is_whole() {
    run(async {
        let seen: Rc<RefCell<Vec<RequestContext>>> = Rc::default();
        let seen_by = seen.clone();
        let serve: Serve = Box::new(move |context, body| {
            seen_by.borrow_mut().push(context.clone());
            Box::pin(async move { if body.as_ref() == b"none" { Outcome::Nothing } else { reply(&context, &body) } })
        });
        let broker = Broker::start(Limits::default(), serve);
        let mut client = broker.connect().await;
        let all = [
            request_to(KEY, 5, 1, b"old"),
            request_to(KEY, 6, 2, b"new"),
            request_to(KEY, 1, 3, b"none"),
            request_to(18, 100, 4, b"who knows"),
        ];
        client.write_all(&all.concat()).await.unwrap();
        assert_eq!(response(&mut client).await, (1, b"old".to_vec()));
        assert_eq!(response(&mut client).await, (2, b"\0new".to_vec()));
        assert_eq!(response(&mut client).await, (4, b"".to_vec()));
        let seen = seen.borrow();
        assert_eq!(seen.iter().map(|context| context.version_unsupported).collect::<Vec<_>>(), [false, false, false, true]);
        let context = &seen[1];
        assert_eq!((context.api, context.api_version, context.client_id.as_deref()), (ApiKey::ListOffsets, 6, Some("test")));
        assert_eq!(context.connection.peer, client.local_addr().unwrap());
        assert_eq!(context.connection.local, broker.address);
        assert_eq!(&*context.connection.listener, "PLAINTEXT");
        assert_eq!(&*context.connection.principal, "User:ANONYMOUS");
    });
}

#[test]
fn pieces_of_memory_tail_and_files_arrive_byte_for_byte() {
    run(async {
        let content = pattern(5_000_000, 9);
        let tail = pattern(300_000, 10);
        let pool = Pool::new(8 << 20);
        let (warm, simulated) = (TestFile::new(&content, true), TestFile::new(&content, false));
        let expected = [
            b"ab".as_slice(),
            &tail,
            b"c",
            &content[3..3_000_003],
            &content[4_999_999..],
            b"d",
            &content[1_000..2_500_000],
            &tail[..10],
            b"ef",
        ]
        .concat();
        let serve: Serve = {
            let (warm, simulated, slice) = (warm.clone(), simulated.clone(), slice(&pool, &tail));
            let tail = tail.clone();
            Box::new(move |context, _| {
                let body = |encoder: &mut Encoder| {
                    for (text, size) in [("ab", 300_000), ("c", 3_000_001), ("d", 2_499_010), ("ef", 0)] {
                        encoder.raw(text.as_bytes());
                        encoder.hole(size);
                    }
                };
                let sources = [
                    Source::Tail { slice: slice.clone(), range: None },
                    Source::File(range(&warm, 3, 3_000_000)),
                    Source::File(range(&warm, 4_999_999, 1)),
                    Source::File(range(&simulated, 1_000, 2_499_000)),
                    Source::Bytes(Bytes::copy_from_slice(&tail[..10])),
                ];
                let outcome = Outcome::Reply(Response::encode_with_sources(&context, body, sources));
                Box::pin(async { outcome })
            })
        };
        let broker = Broker::start(Limits::default(), serve);
        let mut client = broker.connect().await;
        for id in 0..8 {
            client.write_all(&[request(2 * id, b""), request(2 * id + 1, b"")].concat()).await.unwrap();
            for id in [2 * id, 2 * id + 1] {
                let (got, body) = response(&mut client).await;
                assert_eq!((got, body.len()), (id, expected.len()));
                assert!(body == expected, "response {id}");
            }
        }
        // The kernel may move a page just when it is asked for, or want its memory for somebody else. Were all of it read, that would be
        // three times for each of the 16 responses.
        assert!(warm.reads.get() <= 16, "what is cached is not read: {}", warm.reads.get());
        assert!(simulated.reads.get() > 0);

        // Cold: read once, into the cache, then sent.
        warm.file.sync_all().unwrap();
        warm.reads.set(0);
        rustix::fs::fadvise(&warm.file, 0, None, rustix::fs::Advice::DontNeed).unwrap();
        // The kernel may have dropped a part of it only.
        let is_cached = |position, len| sendfile::is_cached(warm.file.as_fd(), position, len);
        let cold = !is_cached(3, 3_000_000) || !is_cached(4_999_999, 1);
        client.write_all(&request(99, b"")).await.unwrap();
        assert!(response(&mut client).await.1 == expected);
        // What was still cached may have been dropped since.
        assert!(warm.reads.get() > 0 || !cold);
        broker.until(|broker| broker.pool.out_bytes() == 0).await;
    });
}

#[test]
fn a_file_that_lost_bytes_closes_the_connection() {
    run(async {
        for descriptor in [true, false] {
            let file = TestFile::new(&pattern(1000, 1), descriptor);
            let serve: Serve = Box::new(move |context, _| {
                let source = Source::File(range(&file, 0, 2000));
                let outcome = Outcome::Reply(Response::encode_with_sources(&context, |encoder| encoder.hole(2000), [source]));
                Box::pin(async { outcome })
            });
            let broker = Broker::start(Limits::default(), serve);
            let mut client = broker.connect().await;
            client.write_all(&request(1, b"")).await.unwrap();
            assert_eq!(rest_of(&mut client).await.len(), 8 + 1000);
        }
    });
}

#[test]
fn a_slow_reader_delays_nobody_and_keeps_no_tail_memory() {
    run(async {
        const LEN: usize = 1 << 20;
        const RESPONSES: i32 = 32;
        let content = pattern(LEN, 3);
        let file = TestFile::new(&content, true);
        let tails = Pool::new(64 << 20);
        let asked: Rc<Cell<usize>> = Rc::default();
        let serve: Serve = {
            let (tails, asked, content) = (tails.clone(), asked.clone(), content.clone());
            Box::new(move |context, body| {
                if body.as_ref() == b"quick" {
                    return Box::pin(async move { reply(&context, b"quick") });
                }
                let home = Rc::new(InFile { range: range(&file, 0, LEN as u64), asked: asked.clone() });
                let source = Source::Tail { slice: slice(&tails, &content), range: Some(home) };
                let outcome = Outcome::Reply(Response::encode_with_sources(&context, |encoder| encoder.hole(LEN), [source]));
                Box::pin(async { outcome })
            })
        };
        let broker = Broker::start(Limits::default(), serve);
        let mut slow = broker.connect().await;
        let many: Vec<u8> = (0..RESPONSES).flat_map(|id| request(id, b"big")).collect();
        slow.write_all(&many).await.unwrap();
        broker.until(|broker| broker.started().len() == RESPONSES as usize).await;
        assert!(tails.out_bytes() > 0);

        let mut quick = broker.connect().await;
        for id in 0..20 {
            quick.write_all(&request(id, b"quick")).await.unwrap();
            assert_eq!(response(&mut quick).await, (id, b"quick".to_vec()));
        }
        while tails.out_bytes() > 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(asked.get() > 1);
        for id in 0..RESPONSES {
            let (got, body) = response(&mut slow).await;
            assert_eq!(got, id);
            assert!(body == content, "response {id}");
        }
    });
}

#[test]
fn small_answers_to_one_who_does_not_read_arrive_whole_and_in_order() {
    run(async {
        // More than the sockets take, each sent alone: the next request comes when the one before is with its handler.
        const LEN: usize = 9_000;
        const RESPONSES: i32 = 2_000;
        let content = pattern(LEN, 7);
        let serve: Serve = {
            let content = content.clone();
            Box::new(move |context, _| {
                let outcome = reply(&context, &content);
                Box::pin(async { outcome })
            })
        };
        let limits = Limits { connection_requests_max: usize::MAX, ..Limits::default() };
        let broker = Broker::start(limits, serve);
        let mut slow = broker.connect().await;
        for id in 0..RESPONSES {
            slow.write_all(&request(id, b"")).await.unwrap();
            broker.until(|broker| broker.started().len() > id as usize).await;
        }
        for id in 0..RESPONSES {
            let (got, body) = response(&mut slow).await;
            assert_eq!(got, id);
            assert!(body == content, "response {id}");
        }
    });
}

#[test]
fn a_reader_that_never_reads_is_given_up() {
    run(async {
        let serve: Serve = Box::new(|context, _| Box::pin(async move { reply(&context, &[0; 8 << 20]) }));
        let limits = Limits { idle_max: Duration::from_secs(2), ..Limits::default() };
        let broker = Broker::start(limits, serve);
        let mut client = broker.connect().await;
        client.write_all(&[request(1, b""), request(2, b"")].concat()).await.unwrap();
        broker.until(|broker| !broker.started().is_empty()).await;
        broker.until(|broker| broker.dealer.connections() == 0).await;
    });
}
