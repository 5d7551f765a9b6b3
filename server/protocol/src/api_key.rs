//! The table of APIs: key, name, versions, the version from which each uses the flexible encoding, and whether the broker serves it. The only place
//! that states them.

use crate::primitives::{DecodeError, Encoding};

macro_rules! api_keys {
    ($($name:ident = $key:literal, $min:literal to $max:literal, flexible $flexible:tt $(, $unserved:ident)?;)*) => {
        /// An API that can be decoded and encoded.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(i16)]
        pub enum ApiKey {
            $(
                #[doc = concat!(stringify!($name), ", versions ", stringify!($min), " to ", stringify!($max), ".")]
                $name = $key,
            )*
        }

        impl ApiKey {
            /// All of them, by ascending key.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// The API with this key on the wire.
            #[must_use]
            pub const fn from_key(key: i16) -> Option<Self> {
                match key {
                    $($key => Some(Self::$name),)*
                    _ => None,
                }
            }

            /// Kafka's name for it.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => stringify!($name),)*
                }
            }

            const fn table(self) -> (i16, i16, i16) {
                match self {
                    $(Self::$name => ($min, $max, api_keys!(@flexible $flexible)),)*
                }
            }

            /// Whether the broker serves and advertises it. Of the others there is the codec alone: for clients, or because the handler is yet to
            /// come.
            #[must_use]
            pub const fn is_served(self) -> bool {
                match self {
                    $(Self::$name => api_keys!(@served $($unserved)?),)*
                }
            }
        }
    };
    (@flexible none) => { i16::MAX };
    (@flexible $min:literal) => { $min };
    (@served) => { true };
    (@served unserved) => { false };
}

api_keys! {
    Produce = 0, 3 to 13, flexible 9;
    Fetch = 1, 4 to 18, flexible 12;
    ListOffsets = 2, 1 to 11, flexible 6;
    Metadata = 3, 0 to 13, flexible 9;
    OffsetCommit = 8, 2 to 10, flexible 8;
    OffsetFetch = 9, 1 to 10, flexible 6;
    FindCoordinator = 10, 0 to 6, flexible 3;
    JoinGroup = 11, 0 to 9, flexible 6;
    Heartbeat = 12, 0 to 4, flexible 4;
    LeaveGroup = 13, 0 to 5, flexible 4;
    SyncGroup = 14, 0 to 5, flexible 4;
    DescribeGroups = 15, 0 to 6, flexible 5;
    ListGroups = 16, 0 to 5, flexible 3;
    ApiVersions = 18, 0 to 4, flexible 3;
    CreateTopics = 19, 2 to 7, flexible 5;
    DeleteTopics = 20, 1 to 6, flexible 4;
    DeleteRecords = 21, 0 to 2, flexible 2;
    InitProducerId = 22, 0 to 5, flexible 2;
    OffsetForLeaderEpoch = 23, 2 to 4, flexible 4;
    DescribeConfigs = 32, 1 to 4, flexible 4;
    AlterConfigs = 33, 0 to 2, flexible 2;
    DescribeLogDirs = 35, 1 to 5, flexible 2;
    CreatePartitions = 37, 0 to 3, flexible 2;
    DeleteGroups = 42, 0 to 2, flexible 2;
    IncrementalAlterConfigs = 44, 0 to 1, flexible 1;
    OffsetDelete = 47, 0 to 0, flexible none;
    DescribeCluster = 60, 0 to 2, flexible 0;
    DescribeProducers = 61, 0 to 0, flexible 0;
    ConsumerGroupHeartbeat = 68, 0 to 1, flexible 0;
    ConsumerGroupDescribe = 69, 0 to 1, flexible 0;
    ListConfigResources = 74, 0 to 1, flexible 0;
    DescribeTopicPartitions = 75, 0 to 0, flexible 0;
}

impl ApiKey {
    /// Its number on the wire.
    #[must_use]
    pub const fn key(self) -> i16 {
        self as i16
    }

    /// Oldest version that can be decoded and encoded.
    #[must_use]
    pub const fn version_min(self) -> i16 {
        self.table().0
    }

    /// Newest version that can be decoded and encoded.
    #[must_use]
    pub const fn version_max(self) -> i16 {
        self.table().1
    }

    /// Oldest version to advertise in ApiVersions. Produce says 0 though it serves from 3 on: librdkafka takes a higher minimum for a broker that
    /// cannot compress, and silently does not (KAFKA-18659).
    #[must_use]
    pub const fn version_min_advertised(self) -> i16 {
        match self {
            Self::Produce => 0,
            _ => self.version_min(),
        }
    }

    /// First version in the flexible encoding (KIP-482); `i16::MAX` if there is none.
    #[must_use]
    pub const fn flexible_min(self) -> i16 {
        self.table().2
    }

    /// Whether `version` can be decoded and encoded.
    #[must_use]
    pub const fn supports(self, version: i16) -> bool {
        self.version_min() <= version && version <= self.version_max()
    }

    /// Which version of the request header goes with `version`, also when that version itself is not served: 1 or 2.
    #[must_use]
    pub const fn request_header_version(self, version: i16) -> i16 {
        if version >= self.flexible_min() { 2 } else { 1 }
    }

    /// Which version of the response header goes with `version`: 0 or 1. ApiVersions always has 0, because a client must read the answer before
    /// it knows what the broker speaks (KIP-511).
    #[must_use]
    pub const fn response_header_version(self, version: i16) -> i16 {
        match self {
            Self::ApiVersions => 0,
            _ => (version >= self.flexible_min()) as i16,
        }
    }

    /// The encoding of `version`, or the error that tells the range served.
    pub(crate) const fn encoding(self, version: i16) -> Result<Encoding, DecodeError> {
        if self.supports(version) {
            return Ok(Encoding { version, flexible: version >= self.flexible_min() });
        }
        Err(DecodeError::UnsupportedVersion {
            api: self.name(),
            version,
            version_min: self.version_min(),
            version_max: self.version_max(),
        })
    }
}

impl std::fmt::Display for ApiKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_ascend_and_find_their_way_back() {
        assert!(ApiKey::ALL.is_sorted());
        for &api in ApiKey::ALL {
            assert_eq!(ApiKey::from_key(api.key()), Some(api));
            assert!(0 <= api.version_min_advertised() && api.version_min() <= api.version_max());
        }
        assert_eq!(ApiKey::from_key(-1), None);
        assert_eq!(ApiKey::from_key(4), None);
    }

    #[test]
    fn header_versions_follow_the_flexible_version() {
        assert_eq!(ApiKey::Fetch.request_header_version(11), 1);
        assert_eq!(ApiKey::Fetch.request_header_version(12), 2);
        assert_eq!(ApiKey::Fetch.response_header_version(11), 0);
        assert_eq!(ApiKey::Fetch.response_header_version(12), 1);
        assert_eq!(ApiKey::ApiVersions.request_header_version(99), 2);
        assert_eq!(ApiKey::ApiVersions.response_header_version(4), 0);
        assert_eq!(ApiKey::OffsetDelete.request_header_version(0), 1);
        assert_eq!(ApiKey::OffsetDelete.response_header_version(0), 0);
    }

    #[test]
    fn a_version_out_of_range_is_named() {
        let error = ApiKey::Fetch.encoding(3).unwrap_err();
        assert_eq!(error.to_string(), "Fetch version 3 is outside 4 to 18");
    }
}
