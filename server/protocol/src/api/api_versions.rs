//! ApiVersions: which APIs and versions the broker serves. The first request on a connection.

use std::borrow::Cow;

use crate::ErrorCode;
use crate::message::message;

message! {
    /// An ApiVersions request.
    struct ApiVersionsRequest<'a> for ApiVersions {
        /// What library the client uses.
        client_software_name: Cow<'a, str>, 3+, ignorable;
        /// That library's version.
        client_software_version: Cow<'a, str>, 3+, ignorable;
    }
}

message! {
    /// An ApiVersions response.
    struct ApiVersionsResponse<'a> for ApiVersions {
        /// What went wrong, or none.
        error_code: ErrorCode, 0+;
        /// The APIs served.
        api_keys: Vec<ApiVersion>, 0+;
        /// How long the request was held back because of a quota, in milliseconds.
        throttle_time_ms: i32, 1+, ignorable;
        /// Features that this broker could run with. Versions below 4 cannot say a minimum of 0 (KAFKA-17011).
        supported_features: Vec<SupportedFeatureKey<'a>>, 3+ tag 0, ignorable;
        /// Grows with each change of the finalized features; -1 if unknown.
        finalized_features_epoch: i64, 3+ tag 1 default (-1), ignorable;
        /// Features that the cluster runs with, valid if their epoch is known.
        finalized_features: Vec<FinalizedFeatureKey<'a>>, 3+ tag 2, ignorable;
        /// A leftover of Kafka's move away from ZooKeeper.
        zk_migration_ready: bool, 3+ tag 3, ignorable;
    }
}

message! {
    /// The versions served of one API.
    struct ApiVersion {
        /// The API's number.
        api_key: i16, 0+;
        /// Oldest version.
        min_version: i16, 0+;
        /// Newest version.
        max_version: i16, 0+;
    }
}

message! {
    /// A feature and the levels the broker could run with.
    struct SupportedFeatureKey<'a> {
        /// The name of the feature.
        name: Cow<'a, str>, 3+;
        /// Oldest version.
        min_version: i16, 3+;
        /// Newest version.
        max_version: i16, 3+;
    }
}

message! {
    /// A feature and the level the cluster runs with.
    struct FinalizedFeatureKey<'a> {
        /// The name of the feature.
        name: Cow<'a, str>, 3+;
        /// Newest level in use.
        max_version_level: i16, 3+;
        /// Oldest level in use.
        min_version_level: i16, 3+;
    }
}
