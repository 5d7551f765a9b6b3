//! Consumer groups in the simulator: members of both protocols and clients that are none, through crashes of their coordinator,
//! failing disks and compaction of the log that groups live in. Whether a seed has groups follows from it.
//!
//! - [`classic`], [`consumer`]: members; [`migrant`]: members that change from one protocol to the other; [`presence`]: when they do
//!   something. [`operator`]: commits without members, and what an
//!   administrator does. [`ask`]: what all ask.
//! - [`known`]: what has to hold; [`offsets`]: what a committed offset may be. [`plan`]: the groups of a seed. [`check`]: what is read back.
//!
//! Invariants, by name:
//! - **CommittedStays**: an acknowledged commit is what is read, through any crash, until another one or a removal may have come
//!   behind it; one without an answer is there or not, and does not come back once another is seen. What nobody sent is not read.
//! - **RefusedIsNotKept**: a commit that was refused is not read.
//! - **CommittedGoesWithTheTopic**: after a start nothing is read of what was committed for a topic that was deleted.
//! - **FencedStaysOut**: who left, or was told to be out, or names a generation before one that somebody is in, is told so, and
//!   commits nothing; nor does who is at an old epoch commit what another holds.
//! - **MembersStay**: who was told to be in is in until a session or the time for a rebalance can have ended, through any crash.
//! - **GenerationsGrow**, **EpochsGrow**: through crashes too, once a member got its part.
//! - **OneOwner**: in a generation a partition is one member's (classic); nobody gets what another holds, has not given up, and
//!   cannot have been put out of (KIP-848, and whoever is in a group of both protocols).
//! - **EveryPartitionIsOwned**: once members come and go no more, each partition that a group wants has an owner.
//! - **GroupStaysDeleted**: a deleted group is not listed until somebody asks for it again.
//! - **GroupErrorsAreExpected**: nothing is answered with an error that a client could not go on from.

pub mod ask;
pub mod check;
pub mod classic;
pub mod consumer;
pub mod known;
pub mod migrant;
pub mod offsets;
pub mod operator;
pub mod plan;
pub mod presence;
