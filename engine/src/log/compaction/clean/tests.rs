//! What the simulator with its own logs does not come to: lists of aborted transactions, and lengths that are damaged.

use super::*;
use crate::batch::BatchBuilder;
use crate::disk::read_file;
use crate::disk::sim::SimDisk;
use crate::env::sim::Simulation;

const STALE: &str = "/00000000000000000000.txnindex.cleaned";

fn segment(bytes: u64) -> Arc<Segment> {
    Arc::new(Segment::new(Offset(0), PathBuf::from("/00000000000000000000.log"), bytes, Offset(1)))
}

async fn put(disk: &Rc<dyn Disk>, path: &str, bytes: &[u8]) {
    let file = disk.open(Path::new(path), OpenOptions::WRITE).await.unwrap();
    file.write_at(Payload::Bytes(bytes.to_vec()), 0).await.unwrap();
}

#[test]
fn a_list_of_aborted_transactions_that_an_earlier_try_left_does_not_stay() {
    let simulation = Simulation::new(1);
    let disk: Rc<dyn Disk> = SimDisk::new(&simulation, 1).mount();
    simulation.block_on(async move {
        let create = async || Files::create(&disk, Path::new("/"), &[segment(1)], Offset(0)).await.unwrap();
        put(&disk, STALE, b"of an earlier try").await;
        assert!(create().await.aborted.is_none());
        let left = disk.list(Path::new("/")).await.unwrap();
        assert!(
            left.iter().all(|entry| !STALE.ends_with(&entry.name)),
            "at start it would say that a finished swap is not: {left:?}"
        );
        put(&disk, STALE, b"of an earlier try").await;
        put(&disk, "/00000000000000000000.txnindex", b"aborted").await;
        assert_eq!(create().await.aborted.unwrap().1, b"aborted");
        assert_eq!(read_file(&disk, Path::new(STALE)).await.unwrap(), b"");
    });
}

#[test]
fn a_damaged_length_asks_for_no_memory() {
    let simulation = Simulation::new(1);
    let disk: Rc<dyn Disk> = SimDisk::new(&simulation, 1).mount();
    let env = simulation.env();
    let mut bytes = BatchBuilder::new(Offset(0)).record(TimestampMs(1), Some(b"key"), Some(&[7; 100])).build();
    bytes[8..12].copy_from_slice(&(500_i32 << 20).to_be_bytes());
    bytes.resize(2 * BLOCK_BYTES, 0);
    simulation.block_on(async move {
        put(&disk, "/00000000000000000000.log", &bytes).await;
        let io = CleanIo {
            disk: &disk,
            env: &env,
            pool: &Pool::new(1 << 20),
            step_bytes: BLOCK_BYTES,
            bytes_per_second_max: f64::MAX,
            is_wanted: &|| true,
        };
        let mut source = Source::open(&io, &segment(1 << 30)).await.unwrap();
        let piece = source.next(&io).await.unwrap();
        let refused = source.advance(&io, &piece, 0).unwrap_err();
        assert!(matches!(&refused, CleanError::Unfit { position: 0, .. }), "{refused}");
    });
}
