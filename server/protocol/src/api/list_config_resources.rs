//! ListConfigResources: the resources that have configuration (KIP-1142).

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// A ListConfigResources request.
    struct ListConfigResourcesRequest for ListConfigResources {
        /// The kinds of resources wanted; empty for all.
        resource_types: Vec<i8>, 1+;
    }
}

message! {
    /// A ListConfigResources response.
    struct ListConfigResourcesResponse<'a> for ListConfigResources {
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 0+;
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The resources.
        config_resources: Vec<ConfigResource<'a>>, 0+;
    }
}

message! {
    /// One resource in the response.
    struct ConfigResource<'a> {
        /// Its name; for a broker its id in decimals.
        resource_name: Cow<'a, str>, 0+;
        /// What kind of resource: 2 topic, 4 broker, 8 broker logger, 16 client metrics, 32 group.
        resource_type: i8, 1+ default (16), ignorable;
    }
}
