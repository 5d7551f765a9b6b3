//! FindCoordinator: finds the broker that coordinates a group or a transactional id.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A FindCoordinator request.
    struct FindCoordinatorRequest<'a> for FindCoordinator {
        /// What to find the coordinator of.
        key: Cow<'a, str>, 0-3;
        /// What the keys are: 0 for groups, 1 for transactional ids, 2 for partitions of share groups.
        key_type: i8, 1+;
        /// What to find the coordinators of (KIP-699).
        coordinator_keys: Vec<Cow<'a, str>>, 4+;
    }
}

message! {
    /// A FindCoordinator response.
    struct FindCoordinatorResponse<'a> for FindCoordinator {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 1+, ignorable;
        /// What went wrong, or none.
        error_code: ErrorCode, 0-3;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 1-3 nullable 1-3, ignorable;
        /// The broker; -1 if none.
        node_id: i32, 0-3;
        /// Where it listens.
        host: Cow<'a, str>, 0-3;
        /// At which port.
        port: i32, 0-3;
        /// The coordinators, one for each key.
        coordinators: Vec<Coordinator<'a>>, 4+;
    }
}

message! {
    /// One coordinator in the response.
    struct Coordinator<'a> {
        /// The key.
        key: Cow<'a, str>, 4+;
        /// The broker; -1 if none.
        node_id: i32, 4+;
        /// Where it listens.
        host: Cow<'a, str>, 4+;
        /// At which port.
        port: i32, 4+;
        /// What went wrong, or none.
        error_code: ErrorCode, 4+;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 4+ nullable 4+, ignorable;
    }
}
