//! Large memory: aligned blocks in huge pages where the kernel gives them, allocated once and reused, because the first touch
//! of fresh memory costs more than everything else done with it. The one place with raw memory.
//!
//! - [`Pool`]: where blocks come from, one per core, with a bound; blocks find their way back from any thread.
//! - [`Buffer`]: a block with one owner, a plain `[u8]`.
//! - [`Chunk`] and [`ChunkWriter`]: a block that one writer fills from the front while others read what is published.
//! - [`Slice`]: a piece of a chunk that is published, kept alive while somebody sends or writes it.

mod chunk;
mod pool;

pub use chunk::{Chunk, ChunkWriter, Slice};
pub use pool::{Buffer, Membership, Pool};
