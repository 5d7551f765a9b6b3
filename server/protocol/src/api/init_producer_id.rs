//! InitProducerId: gives an idempotent or transactional producer its id and epoch. Version 6 (two-phase commit) is not stable in Kafka and not here.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// An InitProducerId request.
    struct InitProducerIdRequest<'a> for InitProducerId {
        /// The name of the transactional producer, or null.
        transactional_id: Option<Cow<'a, str>>, 0+ nullable 0+;
        /// How long a transaction may stay open, in milliseconds.
        transaction_timeout_ms: i32, 0+;
        /// The id of the producer; -1 if none.
        producer_id: i64, 3+ default (-1);
        /// The epoch of the producer; -1 if none.
        producer_epoch: i16, 3+ default (-1);
    }
}

message! {
    /// An InitProducerId response.
    struct InitProducerIdResponse for InitProducerId {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+, ignorable;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The id of the producer; -1 if none.
        producer_id: i64, 0+ default (-1);
        /// The epoch of the producer; -1 if none.
        producer_epoch: i16, 0+;
    }
}
