//! What a shard is asked, and what it answers. Owned, because it goes from core to core.

use bytes::Bytes;
use ringlog_protocol::{ErrorCode, Uuid};
use std::collections::BTreeSet;
use std::time::Duration;

use super::{Name, Partitions};

/// A number that goes with a request and comes back with its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CallId(pub u64);

/// What a shard is asked. Each is for one group, but [`Request::List`].
#[derive(Clone, Debug)]
pub enum Request {
    /// JoinGroup.
    Join(Box<Join>),
    /// SyncGroup.
    Sync(Sync),
    /// Heartbeat.
    Heartbeat(Identity),
    /// LeaveGroup.
    Leave(Vec<Leaver>),
    /// OffsetCommit.
    Commit(Commit),
    /// OffsetFetch: of these topics and partitions, or of all.
    Fetch(Option<Vec<(Name, Vec<i32>)>>),
    /// OffsetDelete.
    DeleteOffsets(Vec<(Name, i32)>),
    /// OffsetFetch by a member of a group of the new protocol.
    FetchAs(Identity, Option<Vec<(Name, Vec<i32>)>>),
    /// DescribeGroups.
    Describe,
    /// ConsumerGroupHeartbeat.
    ConsumerHeartbeat(Box<ConsumerHeartbeat>),
    /// ConsumerGroupDescribe.
    DescribeConsumers,
    /// DeleteGroups.
    Delete,
}

impl Request {
    /// Whether the group has to have a name. Offsets alone may be committed and read without one, as by clients of old.
    #[must_use]
    pub fn needs_group_id(&self) -> bool {
        match self {
            Self::Join(_) | Self::Sync(_) | Self::Heartbeat(_) | Self::Leave(_) | Self::DeleteOffsets(_) => true,
            Self::Commit(_) | Self::Fetch(_) | Self::FetchAs(..) => false,
            // They have answers of their own to that.
            Self::Describe | Self::Delete | Self::ConsumerHeartbeat(_) | Self::DescribeConsumers => false,
        }
    }

    /// Whether it seldom comes to a record: a member that says that it is there, or somebody who looks.
    #[must_use]
    pub fn seldom_writes(&self) -> bool {
        match self {
            Self::Heartbeat(_) | Self::ConsumerHeartbeat(_) | Self::Fetch(_) | Self::FetchAs(..) => true,
            Self::Describe | Self::DescribeConsumers => true,
            Self::Join(_) | Self::Sync(_) | Self::Leave(_) | Self::Commit(_) | Self::DeleteOffsets(_) | Self::Delete => false,
        }
    }
}

/// An answer: the error is the whole answer's.
pub type Answer = Result<Reply, ErrorCode>;

/// What a shard answers, each to the request of that name.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// To [`Request::Join`]: in, or an id with which to ask again.
    Joined(Box<Joined>),
    /// To [`Request::Join`] from a member without an id: it is to ask again with this one (KIP-394).
    MemberIdRequired(Name),
    /// To [`Request::Sync`].
    Synced(Synced),
    /// To [`Request::Heartbeat`].
    Alive,
    /// To [`Request::Leave`]: what became of each.
    Left(Vec<ErrorCode>),
    /// To [`Request::Commit`]: what became of each.
    Committed(Vec<ErrorCode>),
    /// To [`Request::Fetch`].
    Fetched(Vec<(Name, Vec<FetchedOffset>)>),
    /// To [`Request::DeleteOffsets`]: what became of each.
    OffsetsDeleted(Vec<ErrorCode>),
    /// To [`Request::Describe`].
    Described(Box<Described>),
    /// To [`Request::Delete`].
    Deleted,
    /// To [`Request::ConsumerHeartbeat`].
    Beat(Beat),
    /// To a request of the new protocol that is refused, which says why.
    Refused(Refusal),
    /// To [`Request::DescribeConsumers`].
    DescribedConsumers(Box<DescribedConsumers>),
}

/// Who asks: a member, as it knows itself.
#[derive(Clone, Debug, Default)]
pub struct Identity {
    /// The member; empty: none.
    pub member: Name,
    /// What its user calls it, if it is a static one (KIP-345).
    pub instance: Option<Name>,
    /// The generation that it is in.
    pub generation: i32,
}

/// See [`Request::Join`].
#[derive(Clone, Debug, Default)]
pub struct Join {
    /// The member; empty: it has no id yet.
    pub member: Name,
    /// What its user calls it, if it is a static one (KIP-345).
    pub instance: Option<Name>,
    /// What the client calls itself.
    pub client_id: Name,
    /// From where it is connected.
    pub client_host: Name,
    /// How long it may be silent.
    pub session_timeout: Duration,
    /// How long it may take to rejoin.
    pub rebalance_timeout: Duration,
    /// What kind of group it takes this for.
    pub protocol_type: Name,
    /// What it speaks, best first: name, and what it says of itself in it.
    pub protocols: Vec<(Name, Bytes)>,
    /// Whether a new member is to come again with the id that it is given (KIP-394).
    pub requires_member_id: bool,
    /// Whether the client understands that its leader need not assign (KIP-814).
    pub knows_skip_assignment: bool,
}

/// A member of the new generation, or of the one that goes on.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// The generation.
    pub generation: i32,
    /// The kind of group.
    pub protocol_type: Option<Name>,
    /// The protocol that all speak.
    pub protocol: Option<Name>,
    /// Who assigns.
    pub leader: Name,
    /// Whether the leader need not assign.
    pub skips_assignment: bool,
    /// The member.
    pub member: Name,
    /// For the leader: all members, what their users call them, and what they say of themselves.
    pub members: Vec<(Name, Option<Name>, Bytes)>,
}

/// See [`Request::Sync`].
#[derive(Clone, Debug, Default)]
pub struct Sync {
    /// Who.
    pub identity: Identity,
    /// What kind of group it takes this for; older clients don't say.
    pub protocol_type: Option<Name>,
    /// The protocol that it takes to be chosen; older clients don't say.
    pub protocol: Option<Name>,
    /// From the leader: who gets what.
    pub assignments: Vec<(Name, Bytes)>,
}

/// What a member gets.
#[derive(Clone, Debug, PartialEq)]
pub struct Synced {
    /// The kind of group.
    pub protocol_type: Option<Name>,
    /// The protocol that all speak.
    pub protocol: Option<Name>,
    /// What it gets.
    pub assignment: Bytes,
}

/// Who is to leave.
#[derive(Clone, Debug)]
pub struct Leaver {
    /// The member; empty: whoever has that instance id.
    pub member: Name,
    /// What its user calls it.
    pub instance: Option<Name>,
}

/// See [`Request::Commit`].
#[derive(Clone, Debug)]
pub struct Commit {
    /// Who; a client that is no member has an empty id and a negative generation.
    pub identity: Identity,
    /// Whether the client knows that its group may be of the new protocol.
    pub knows_epochs: bool,
    /// How long to keep the offsets, where the client says so.
    pub retention_ms: Option<i64>,
    /// What to keep.
    pub offsets: Vec<CommitOffset>,
}

/// An offset to keep.
#[derive(Clone, Debug)]
pub struct CommitOffset {
    /// The topic.
    pub topic: Name,
    /// The id of the topic.
    pub topic_id: Uuid,
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The leader epoch of the record before; -1: unknown.
    pub leader_epoch: i32,
    /// What the client keeps with it.
    pub metadata: Box<str>,
}

/// An offset that was kept; -1: none was.
#[derive(Clone, Debug, PartialEq)]
pub struct FetchedOffset {
    /// The partition.
    pub partition: i32,
    /// The offset.
    pub offset: i64,
    /// The leader epoch of the record before; -1: unknown.
    pub leader_epoch: i32,
    /// What the client keeps with it.
    pub metadata: Box<str>,
}

/// A group as a list has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Listed {
    /// The group.
    pub group: Name,
    /// What kind of group it is; empty: offsets alone.
    pub protocol_type: Name,
    /// Kafka's name of the state.
    pub state: &'static str,
    /// Kafka's name of the protocol: classic or consumer.
    pub group_type: &'static str,
}

/// A group with its members.
#[derive(Clone, Debug, PartialEq)]
pub struct Described {
    /// Kafka's name of the state.
    pub state: &'static str,
    /// What kind of group it is; empty: offsets alone.
    pub protocol_type: Name,
    /// The protocol of a stable group.
    pub protocol: Name,
    /// The members.
    pub members: Vec<DescribedMember>,
}

/// A member.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedMember {
    /// The member.
    pub member: Name,
    /// What its user calls it, if it is a static one.
    pub instance: Option<Name>,
    /// What the client calls itself.
    pub client_id: Name,
    /// From where it is connected.
    pub client_host: Name,
    /// What it says of itself, in a stable group.
    pub metadata: Bytes,
    /// What it has, in a stable group.
    pub assignment: Bytes,
}

/// See [`Request::ConsumerHeartbeat`]. What is `None` has not changed.
#[derive(Clone, Debug, Default)]
pub struct ConsumerHeartbeat {
    /// The member; empty: it has no id yet.
    pub member: Name,
    /// Its epoch; 0 joins, -1 leaves, -2 leaves to come back.
    pub epoch: i32,
    /// What its user calls it, if it is a static one (KIP-345).
    pub instance: Option<Name>,
    /// The rack that it is in.
    pub rack: Option<Name>,
    /// What the client calls itself.
    pub client_id: Name,
    /// From where it is connected.
    pub client_host: Name,
    /// How long it may take to give partitions up; negative: that has not changed.
    pub rebalance_timeout_ms: i32,
    /// The topics that it wants.
    pub topics: Option<BTreeSet<Name>>,
    /// A pattern of topics that it wants; empty: none.
    pub regex: Option<Name>,
    /// The assignor that it wants.
    pub assignor: Option<Name>,
    /// What it holds.
    pub owned: Option<Partitions>,
    /// Whether it has to give itself an id.
    pub requires_member_id: bool,
}

/// What a member is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Beat {
    /// The member.
    pub member: Name,
    /// Its epoch.
    pub epoch: i32,
    /// When to send the next heartbeat.
    pub interval: Duration,
    /// What it is to hold, if it has to be told.
    pub assignment: Option<Partitions>,
}

/// Why something of the new protocol is refused.
#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    /// The code.
    pub code: ErrorCode,
    /// For people.
    pub message: String,
}

/// A group of the new protocol with its members.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedConsumers {
    /// Kafka's name of the state.
    pub state: &'static str,
    /// The epoch of the group.
    pub epoch: i32,
    /// The epoch for which partitions were assigned.
    pub assignment_epoch: i32,
    /// The assignor.
    pub assignor: &'static str,
    /// The members.
    pub members: Vec<DescribedConsumer>,
}

/// A member of such a group.
#[derive(Clone, Debug, PartialEq)]
pub struct DescribedConsumer {
    /// The member.
    pub member: Name,
    /// What its user calls it, if it is a static one.
    pub instance: Option<Name>,
    /// The rack that it is in.
    pub rack: Option<Name>,
    /// Its epoch.
    pub epoch: i32,
    /// What the client calls itself.
    pub client_id: Name,
    /// From where it is connected.
    pub client_host: Name,
    /// The topics that it wants by name.
    pub topics: Vec<Name>,
    /// A pattern of those that it wants too.
    pub regex: Option<Name>,
    /// What it holds, also what it is to give up: id, name and partitions of each topic.
    pub assigned: Vec<(Uuid, Name, Vec<i32>)>,
    /// What it is to hold.
    pub target: Vec<(Uuid, Name, Vec<i32>)>,
    /// Whether it speaks the classic protocol.
    pub is_classic: bool,
}
