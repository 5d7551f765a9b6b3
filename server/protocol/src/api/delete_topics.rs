//! DeleteTopics: deletes topics.

use std::borrow::Cow;

use crate::message::message;
use crate::{ErrorCode, Uuid};

message! {
    /// A DeleteTopics request.
    struct DeleteTopicsRequest<'a> for DeleteTopics {
        /// The topics.
        topics: Vec<DeleteTopicState<'a>>, 6+;
        /// Names, in versions without ids.
        topic_names: Vec<Cow<'a, str>>, 0-5, ignorable;
        /// How long to wait, in milliseconds.
        timeout_ms: i32, 0+;
    }
}

message! {
    /// One topic in the request.
    struct DeleteTopicState<'a> {
        /// The name of the topic.
        name: Option<Cow<'a, str>>, 6+ nullable 6+;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 6+;
    }
}

message! {
    /// A DeleteTopics response.
    struct DeleteTopicsResponse<'a> for DeleteTopics {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 1+, ignorable;
        /// The outcome for each.
        responses: Vec<DeletableTopicResult<'a>>, 0+;
    }
}

message! {
    /// One topic in the response.
    struct DeletableTopicResult<'a> {
        /// The name of the topic.
        name: Option<Cow<'a, str>>, 0+ nullable 6+;
        /// The id of the topic; zeros if unknown.
        topic_id: Uuid, 6+, ignorable;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The error in words.
        error_message: Option<Cow<'a, str>>, 5+ nullable 5+, ignorable;
    }
}
