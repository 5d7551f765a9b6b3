//! What every message looks like, as data: the description from which its `decode` and `encode` are made, for tests and tools to compare with
//! Kafka's own. Nothing on the data path reads it.

use crate::{ApiKey, Payload};

/// A range of versions, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Versions {
    /// The first.
    pub min: i16,
    /// The last; `i16::MAX` where it is open.
    pub max: i16,
}

impl Versions {
    /// No version at all.
    pub const NONE: Self = Self { min: 0, max: -1 };

    /// Whether `version` is among them.
    #[must_use]
    #[inline]
    pub const fn contains(self, version: i16) -> bool {
        self.min <= version && version <= self.max
    }
}

/// A request or a response.
#[derive(Clone, Copy, Debug)]
pub struct MessageSchema {
    /// Whose it is; the versions are there.
    pub api: ApiKey,
    /// Its fields.
    pub structure: &'static Structure,
}

/// A payload: see [`Payload`].
#[derive(Clone, Copy, Debug)]
pub struct PayloadSchema {
    /// Its versions.
    pub versions: Versions,
    /// The first in the flexible encoding; `i16::MAX` if there is none.
    pub flexible_min: i16,
    /// The number that stands in front of it as the key of a record, in place of the version.
    pub record_type: Option<i16>,
    /// Its fields.
    pub structure: &'static Structure,
}

impl PayloadSchema {
    pub(crate) const fn of<'a, P: Payload<'a>>(record_type: Option<i16>) -> Self {
        Self { versions: P::VERSIONS, flexible_min: P::FLEXIBLE_MIN, record_type, structure: P::STRUCTURE }
    }
}

/// A structure: a message, or an element of one.
#[derive(Clone, Copy, Debug)]
pub struct Structure {
    /// Kafka's name.
    pub name: &'static str,
    /// In the order of the wire; tagged ones by their tag.
    pub fields: &'static [Field],
}

/// A field of a structure.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Our name: Kafka's in snake case.
    pub name: &'static str,
    /// What it holds.
    pub kind: Kind,
    /// The versions that have it.
    pub versions: Versions,
    /// The versions in which it may be null.
    pub nullable: Versions,
    /// Its tag, if it is a tagged field (in all its versions).
    pub tag: Option<u32>,
    /// Whether a value is dropped in silence where the version lacks the field.
    pub ignorable: bool,
    /// Its default as a Rust expression; none for zero, empty, or null if nullable.
    pub default: Option<&'static str>,
}

/// The type of a field on the wire.
#[derive(Clone, Copy, Debug)]
#[expect(missing_docs, reason = "the variants are the wire's types")]
pub enum Kind {
    Bool,
    Int8,
    Int16,
    Int32,
    Int64,
    Uuid,
    String,
    Bytes,
    Records,
    Array(&'static Kind),
    Structure(&'static Structure),
}
