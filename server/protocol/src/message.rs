//! How a message is described and what that description becomes: the macro `message!`, and the trait by which each type reads and writes itself.
//! Only the files of `api`, `consumer_protocol` and `group_records` use the macro.

use std::borrow::Cow;

use crate::primitives::{DecodeError, Decoder, Encoder, Encoding, Uuid};
use crate::schema::{Kind, Structure, Versions};
use crate::{ApiKey, ErrorCode};

/// A request or a response.
pub trait Message<'a>: Sized {
    /// Whose it is.
    const API: ApiKey;
    /// What it looks like.
    const STRUCTURE: &'static Structure;

    /// Reads the body. Bytes after its end are left in the decoder.
    ///
    /// # Errors
    /// The bytes are not such a message, or `version` is not served.
    fn decode(decoder: &mut Decoder<'a>, version: i16) -> Result<Self, DecodeError>;

    /// Writes the body. Where `version` lacks a field, its value is dropped if Kafka calls it ignorable; any other value but the default is the
    /// caller's bug, and debug builds panic.
    ///
    /// # Panics
    /// If `version` is not served: whoever answers a request has decoded it before.
    fn encode(&self, encoder: &mut Encoder, version: i16);
}

/// What has versions of its own and is neither a request nor a response: bytes that members of a group exchange, records of the broker's own topics.
/// Its version stands in front of it.
pub trait Payload<'a>: Sized {
    /// Which versions there are.
    const VERSIONS: Versions;
    /// The first version in the flexible encoding (KIP-482); `i16::MAX` if there is none.
    const FLEXIBLE_MIN: i16;
    /// What it looks like.
    const STRUCTURE: &'static Structure;

    /// Reads what follows the version. Bytes after its end are left in the decoder.
    ///
    /// # Errors
    /// The bytes are not such a payload, or there is no such version.
    fn decode_body(decoder: &mut Decoder<'a>, version: i16) -> Result<Self, DecodeError>;

    /// Writes what follows the version, as [`Message::encode`] does.
    ///
    /// # Panics
    /// If there is no such version.
    fn encode_body(&self, encoder: &mut Encoder, version: i16);

    /// Reads the version and what follows.
    ///
    /// # Errors
    /// As [`Payload::decode_body`].
    fn decode(decoder: &mut Decoder<'a>) -> Result<Self, DecodeError> {
        let version = decoder.int16()?;
        Self::decode_body(decoder, version)
    }

    /// Writes the version and what follows.
    ///
    /// # Panics
    /// As [`Payload::encode_body`].
    fn encode(&self, encoder: &mut Encoder, version: i16) {
        encoder.int16(version);
        self.encode_body(encoder, version);
    }
}

/// The encoding of a payload's version, or the error that tells which versions there are.
pub(crate) const fn payload_encoding<'a, P: Payload<'a>>(version: i16) -> Result<Encoding, DecodeError> {
    if P::VERSIONS.contains(version) {
        return Ok(Encoding { version, flexible: version >= P::FLEXIBLE_MIN });
    }
    Err(DecodeError::UnsupportedVersion {
        api: P::STRUCTURE.name,
        version,
        version_min: P::VERSIONS.min,
        version_max: P::VERSIONS.max,
    })
}

/// The encoding of a version that we ourselves chose.
#[inline]
pub(crate) fn encoding(api: ApiKey, version: i16) -> Encoding {
    match api.encoding(version) {
        Ok(encoding) => encoding,
        Err(error) => panic!("cannot encode: {error}"),
    }
}

/// A type that can stand in a message.
pub(crate) trait Wire<'a>: Sized {
    const KIND: Kind;
    /// The fewest bytes that any value takes, 1 or more.
    fn size_min(encoding: Encoding) -> usize;
    fn read(decoder: &mut Decoder<'a>, encoding: Encoding) -> Result<Self, DecodeError>;
    fn write(&self, encoder: &mut Encoder, encoding: Encoding);
    #[inline]
    fn is_null(&self) -> bool {
        false
    }
}

/// A type that has a null on the wire, so that an `Option` of it can stand in a message.
pub(crate) trait WireNullable<'a>: Wire<'a> {
    /// The fewest bytes that null or any value takes.
    #[inline]
    fn size_min_nullable(encoding: Encoding) -> usize {
        Self::size_min(encoding)
    }
    fn read_nullable(decoder: &mut Decoder<'a>, encoding: Encoding) -> Result<Option<Self>, DecodeError>;
    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, encoding: Encoding);
}

impl<'a, T: WireNullable<'a>> Wire<'a> for Option<T> {
    const KIND: Kind = T::KIND;
    #[inline]
    fn size_min(encoding: Encoding) -> usize {
        T::size_min_nullable(encoding)
    }
    #[inline]
    fn read(decoder: &mut Decoder<'a>, encoding: Encoding) -> Result<Self, DecodeError> {
        T::read_nullable(decoder, encoding)
    }
    #[inline]
    fn write(&self, encoder: &mut Encoder, encoding: Encoding) {
        T::write_nullable(self.as_ref(), encoder, encoding);
    }
    #[inline]
    fn is_null(&self) -> bool {
        self.is_none()
    }
}

macro_rules! wire_fixed {
    ($($type:ty, $kind:ident, $size:literal, $read:ident, $write:ident;)*) => {$(
        impl<'a> Wire<'a> for $type {
            const KIND: Kind = Kind::$kind;
            #[inline]
            fn size_min(_: Encoding) -> usize {
                $size
            }
            #[inline]
            fn read(decoder: &mut Decoder<'a>, _: Encoding) -> Result<Self, DecodeError> {
                decoder.$read()
            }
            #[inline]
            fn write(&self, encoder: &mut Encoder, _: Encoding) {
                encoder.$write(*self);
            }
        }
    )*};
}

wire_fixed! {
    bool, Bool, 1, boolean, boolean;
    i8, Int8, 1, int8, int8;
    i16, Int16, 2, int16, int16;
    i32, Int32, 4, int32, int32;
    i64, Int64, 8, int64, int64;
}

impl<'a> Wire<'a> for Uuid {
    const KIND: Kind = Kind::Uuid;
    #[inline]
    fn size_min(_: Encoding) -> usize {
        16
    }
    #[inline]
    fn read(decoder: &mut Decoder<'a>, _: Encoding) -> Result<Self, DecodeError> {
        decoder.uuid()
    }
    #[inline]
    fn write(&self, encoder: &mut Encoder, _: Encoding) {
        encoder.uuid(self);
    }
}

impl<'a> Wire<'a> for ErrorCode {
    const KIND: Kind = Kind::Int16;
    #[inline]
    fn size_min(_: Encoding) -> usize {
        2
    }
    #[inline]
    fn read(decoder: &mut Decoder<'a>, _: Encoding) -> Result<Self, DecodeError> {
        decoder.int16().map(Self)
    }
    #[inline]
    fn write(&self, encoder: &mut Encoder, _: Encoding) {
        encoder.int16(self.0);
    }
}

impl<'a> Wire<'a> for Cow<'a, str> {
    const KIND: Kind = Kind::String;
    #[inline]
    fn size_min(encoding: Encoding) -> usize {
        if encoding.flexible { 1 } else { 2 }
    }
    #[inline]
    fn read(decoder: &mut Decoder<'a>, encoding: Encoding) -> Result<Self, DecodeError> {
        decoder.string(encoding)
    }
    #[inline]
    fn write(&self, encoder: &mut Encoder, encoding: Encoding) {
        encoder.string(self, encoding);
    }
}

impl<'a> WireNullable<'a> for Cow<'a, str> {
    #[inline]
    fn read_nullable(decoder: &mut Decoder<'a>, encoding: Encoding) -> Result<Option<Self>, DecodeError> {
        decoder.string_nullable(encoding)
    }
    #[inline]
    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, encoding: Encoding) {
        encoder.string_nullable(value.map(AsRef::as_ref), encoding);
    }
}

impl<'a> Wire<'a> for Cow<'a, [u8]> {
    const KIND: Kind = Kind::Bytes;
    #[inline]
    fn size_min(encoding: Encoding) -> usize {
        if encoding.flexible { 1 } else { 4 }
    }
    #[inline]
    fn read(decoder: &mut Decoder<'a>, encoding: Encoding) -> Result<Self, DecodeError> {
        decoder.bytes(encoding).map(Cow::Borrowed)
    }
    #[inline]
    fn write(&self, encoder: &mut Encoder, encoding: Encoding) {
        encoder.bytes_nullable(Some(self), encoding);
    }
}

impl<'a> WireNullable<'a> for Cow<'a, [u8]> {
    #[inline]
    fn read_nullable(decoder: &mut Decoder<'a>, encoding: Encoding) -> Result<Option<Self>, DecodeError> {
        Ok(decoder.bytes_nullable(encoding)?.map(Cow::Borrowed))
    }
    #[inline]
    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, encoding: Encoding) {
        encoder.bytes_nullable(value.map(AsRef::as_ref), encoding);
    }
}

/// What an array reserves at most before its elements have been read; beyond that it grows with them.
const RESERVE_BYTES_MAX: usize = 16 << 10;

impl<'a, T: Wire<'a>> Wire<'a> for Vec<T> {
    const KIND: Kind = Kind::Array(&T::KIND);
    #[inline]
    fn size_min(encoding: Encoding) -> usize {
        if encoding.flexible { 1 } else { 4 }
    }
    #[inline]
    fn read(decoder: &mut Decoder<'a>, encoding: Encoding) -> Result<Self, DecodeError> {
        Self::read_nullable(decoder, encoding)?.ok_or(DecodeError::UnexpectedNull("array"))
    }
    #[inline]
    fn write(&self, encoder: &mut Encoder, encoding: Encoding) {
        Self::write_nullable(Some(self), encoder, encoding);
    }
}

impl<'a, T: Wire<'a>> WireNullable<'a> for Vec<T> {
    fn read_nullable(decoder: &mut Decoder<'a>, encoding: Encoding) -> Result<Option<Self>, DecodeError> {
        let Some(count) = decoder.array_count(encoding, T::size_min(encoding))? else { return Ok(None) };
        let mut elements = Self::with_capacity(count.min(RESERVE_BYTES_MAX / size_of::<T>().max(1)));
        for _ in 0..count {
            elements.push(T::read(decoder, encoding)?);
        }
        Ok(Some(elements))
    }
    fn write_nullable(value: Option<&Self>, encoder: &mut Encoder, encoding: Encoding) {
        encoder.array_count(value.map(Vec::len), encoding);
        for element in value.into_iter().flatten() {
            element.write(encoder, encoding);
        }
    }
}

/// The records of one partition. Decoding gives bytes of the input; encoding takes bytes, or leaves a hole for bytes that are sent from elsewhere.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Records<'a> {
    /// No records field at all.
    #[default]
    Null,
    /// Record batches, as they are.
    Bytes(&'a [u8]),
    /// So many bytes of record batches that do not pass through the encoder: see [`Encoder::hole`].
    Hole(usize),
}

impl<'a> Records<'a> {
    /// The bytes, where they are here.
    #[must_use]
    pub const fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            Self::Null | Self::Hole(_) => None,
        }
    }

    /// How many bytes of records, wherever they are.
    #[must_use]
    pub const fn size(self) -> usize {
        match self {
            Self::Null => 0,
            Self::Bytes(bytes) => bytes.len(),
            Self::Hole(size) => size,
        }
    }
}

impl<'a> Wire<'a> for Records<'a> {
    const KIND: Kind = Kind::Records;
    #[inline]
    fn size_min(encoding: Encoding) -> usize {
        if encoding.flexible { 1 } else { 4 }
    }
    #[inline]
    fn read(decoder: &mut Decoder<'a>, encoding: Encoding) -> Result<Self, DecodeError> {
        Ok(decoder.bytes_nullable(encoding)?.map_or(Self::Null, Self::Bytes))
    }
    #[inline]
    fn write(&self, encoder: &mut Encoder, encoding: Encoding) {
        match *self {
            Self::Null => encoder.bytes_nullable(None, encoding),
            Self::Bytes(bytes) => encoder.bytes_nullable(Some(bytes), encoding),
            Self::Hole(size) => encoder.bytes_hole(size, encoding),
        }
    }
    #[inline]
    fn is_null(&self) -> bool {
        *self == Self::Null
    }
}

/// Describes a structure, field by field, in the words of Kafka's schemas, and makes of it the struct, its `Default`, `decode` and `encode`:
///
/// ```text
/// message! {
///     /// What it is.
///     struct Name<'a> for Produce {                  // `for` makes it a message of that API, `versions 0-3 flexible 2` a payload;
///                                                    // without either it is a part of one
///         /// What the field is.
///         field: Option<Cow<'a, str>>, 3-12 nullable 5+ tag 0 default (expression), ignorable;
///     }
/// }
/// ```
///
/// Of the parts after the type only the versions must be there: `3-12`, or `3+` for all from 3 on. Those in which it may be null are said likewise.
macro_rules! message {
    ($(#[$meta:meta])* struct $name:ident<$lifetime:lifetime> for $api:ident { $($fields:tt)* }) => {
        message!(@part [$(#[$meta])*] $name $lifetime [<$lifetime>] { $($fields)* });
        message!(@whole $name $lifetime [<$lifetime>] $api);
    };
    ($(#[$meta:meta])* struct $name:ident for $api:ident { $($fields:tt)* }) => {
        message!(@part [$(#[$meta])*] $name 'de [] { $($fields)* });
        message!(@whole $name 'de [] $api);
    };
    (
        $(#[$meta:meta])* struct $name:ident<$lifetime:lifetime> versions $min:literal - $max:literal $(flexible $flexible:literal)?
        { $($fields:tt)* }
    ) => {
        message!(@part [$(#[$meta])*] $name $lifetime [<$lifetime>] { $($fields)* });
        message!(@payload $name $lifetime [<$lifetime>] $min $max $($flexible)?);
    };
    ($(#[$meta:meta])* struct $name:ident versions $min:literal - $max:literal $(flexible $flexible:literal)? { $($fields:tt)* }) => {
        message!(@part [$(#[$meta])*] $name 'de [] { $($fields)* });
        message!(@payload $name 'de [] $min $max $($flexible)?);
    };
    ($(#[$meta:meta])* struct $name:ident<$lifetime:lifetime> { $($fields:tt)* }) => {
        message!(@part [$(#[$meta])*] $name $lifetime [<$lifetime>] { $($fields)* });
    };
    ($(#[$meta:meta])* struct $name:ident { $($fields:tt)* }) => {
        message!(@part [$(#[$meta])*] $name 'de [] { $($fields)* });
    };

    (@part [$($meta:tt)*] $name:ident $de:lifetime [$($generics:tt)*] {$(
        $(#[$field_meta:meta])*
        $field:ident: $type:ty, $min:literal $(- $max:literal)? $(+)?
            $(nullable $nullable:literal $(- $nullable_max:literal)? $(+)?)? $(tag $tag:literal)? $(default ($default:expr))? $(, $ignorable:ident)?;
    )*}) => {
        $($meta)*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $name $($generics)* {
            $($(#[$field_meta])* pub $field: $type,)*
        }

        impl $($generics)* Default for $name $($generics)* {
            #[inline]
            fn default() -> Self {
                Self { $($field: message!(@default $type $(, $default)?),)* }
            }
        }

        impl<$de> $crate::message::Wire<$de> for $name $($generics)* {
            const KIND: $crate::schema::Kind = $crate::schema::Kind::Structure(&$crate::schema::Structure {
                name: stringify!($name),
                fields: &[$($crate::schema::Field {
                    name: stringify!($field),
                    kind: <$type as $crate::message::Wire<$de>>::KIND,
                    versions: message!(@versions $min $(, $max)?),
                    nullable: message!(@nullable $($nullable $(, $nullable_max)?)?),
                    tag: message!(@tag $($tag)?),
                    ignorable: message!(@ignorable $($ignorable)?),
                    default: message!(@text $(stringify!($default))?),
                }),*],
            });

            fn size_min(encoding: $crate::primitives::Encoding) -> usize {
                let mut size = usize::from(encoding.flexible);
                $(
                    if message!(@tag $($tag)?).is_none() && message!(@versions $min $(, $max)?).contains(encoding.version) {
                        size += <$type as $crate::message::Wire<$de>>::size_min(encoding);
                    }
                )*
                size.max(1)
            }

            fn read(
                decoder: &mut $crate::primitives::Decoder<$de>,
                encoding: $crate::primitives::Encoding,
            ) -> Result<Self, $crate::primitives::DecodeError> {
                $(
                    let mut $field: $type = if message!(@tag $($tag)?).is_none()
                        && message!(@versions $min $(, $max)?).contains(encoding.version)
                    {
                        let value = <$type as $crate::message::Wire<$de>>::read(decoder, encoding)?;
                        if $crate::message::Wire::is_null(&value) && !message!(@nullable $($nullable $(, $nullable_max)?)?).contains(encoding.version) {
                            return Err($crate::primitives::DecodeError::UnexpectedNull(stringify!($field)));
                        }
                        value
                    } else {
                        message!(@default $type $(, $default)?)
                    };
                )*
                if encoding.flexible {
                    decoder.tagged_fields(|tag, value| {
                        $(
                            if message!(@tag $($tag)?) == Some(tag)
                                && message!(@versions $min $(, $max)?).contains(encoding.version)
                            {
                                $field = <$type as $crate::message::Wire<$de>>::read(value, encoding)?;
                                if $crate::message::Wire::is_null(&$field) && !message!(@nullable $($nullable $(, $nullable_max)?)?).contains(encoding.version) {
                                    return Err($crate::primitives::DecodeError::UnexpectedNull(stringify!($field)));
                                }
                                return Ok(true);
                            }
                        )*
                        Ok(false)
                    })?;
                }
                Ok(Self { $($field),* })
            }

            fn write(&self, encoder: &mut $crate::primitives::Encoder, encoding: $crate::primitives::Encoding) {
                let mut tagged_count = 0u32;
                $(
                    if !message!(@versions $min $(, $max)?).contains(encoding.version) {
                        debug_assert!(
                            message!(@ignorable $($ignorable)?) || self.$field == message!(@default $type $(, $default)?),
                            "{}.{} cannot be said in version {}", stringify!($name), stringify!($field), encoding.version
                        );
                    } else if message!(@tag $($tag)?).is_some() {
                        tagged_count += u32::from(self.$field != message!(@default $type $(, $default)?));
                    } else {
                        debug_assert!(
                            !$crate::message::Wire::is_null(&self.$field) || message!(@nullable $($nullable $(, $nullable_max)?)?).contains(encoding.version),
                            "{}.{} cannot be null in version {}", stringify!($name), stringify!($field), encoding.version
                        );
                        $crate::message::Wire::write(&self.$field, encoder, encoding);
                    }
                )*
                if encoding.flexible {
                    encoder.unsigned_varint(tagged_count);
                }
                if tagged_count > 0 {
                    // Fields are described in the order of their tags, as the wire wants them.
                    $(
                        if let Some(tag) = message!(@tag $($tag)?)
                            && message!(@versions $min $(, $max)?).contains(encoding.version)
                            && self.$field != message!(@default $type $(, $default)?)
                        {
                            encoder.tagged_field(tag, |encoder| $crate::message::Wire::write(&self.$field, encoder, encoding));
                        }
                    )*
                }
            }
        }

        // A structure that may be null is preceded by a byte: below zero for null.
        impl<$de> $crate::message::WireNullable<$de> for $name $($generics)* {
            fn size_min_nullable(_: $crate::primitives::Encoding) -> usize {
                1
            }

            fn read_nullable(
                decoder: &mut $crate::primitives::Decoder<$de>,
                encoding: $crate::primitives::Encoding,
            ) -> Result<Option<Self>, $crate::primitives::DecodeError> {
                if decoder.int8()? < 0 {
                    return Ok(None);
                }
                <Self as $crate::message::Wire<$de>>::read(decoder, encoding).map(Some)
            }

            fn write_nullable(
                value: Option<&Self>,
                encoder: &mut $crate::primitives::Encoder,
                encoding: $crate::primitives::Encoding,
            ) {
                encoder.int8(if value.is_some() { 1 } else { -1 });
                if let Some(value) = value {
                    $crate::message::Wire::write(value, encoder, encoding);
                }
            }
        }
    };

    (@whole $name:ident $de:lifetime [$($generics:tt)*] $api:ident) => {
        impl<$de> $name $($generics)* {
            /// Reads the body: see [`Message::decode`]($crate::Message::decode).
            ///
            /// # Errors
            /// The bytes are not such a message, or `version` is not served.
            pub fn decode(
                decoder: &mut $crate::primitives::Decoder<$de>,
                version: i16,
            ) -> Result<Self, $crate::primitives::DecodeError> {
                <Self as $crate::Message<$de>>::decode(decoder, version)
            }

            /// Writes the body: see [`Message::encode`]($crate::Message::encode).
            pub fn encode(&self, encoder: &mut $crate::primitives::Encoder, version: i16) {
                $crate::Message::encode(self, encoder, version);
            }
        }

        impl<$de> $crate::Message<$de> for $name $($generics)* {
            const API: $crate::ApiKey = $crate::ApiKey::$api;
            const STRUCTURE: &'static $crate::schema::Structure = message!(@structure $de);

            fn decode(
                decoder: &mut $crate::primitives::Decoder<$de>,
                version: i16,
            ) -> Result<Self, $crate::primitives::DecodeError> {
                <Self as $crate::message::Wire<$de>>::read(decoder, Self::API.encoding(version)?)
            }

            fn encode(&self, encoder: &mut $crate::primitives::Encoder, version: i16) {
                $crate::message::Wire::write(self, encoder, $crate::message::encoding(Self::API, version));
            }
        }
    };

    (@payload $name:ident $de:lifetime [$($generics:tt)*] $min:literal $max:literal $($flexible:literal)?) => {
        impl<$de> $crate::Payload<$de> for $name $($generics)* {
            const VERSIONS: $crate::schema::Versions = message!(@versions $min, $max);
            const FLEXIBLE_MIN: i16 = message!(@flexible $($flexible)?);
            const STRUCTURE: &'static $crate::schema::Structure = message!(@structure $de);

            fn decode_body(
                decoder: &mut $crate::primitives::Decoder<$de>,
                version: i16,
            ) -> Result<Self, $crate::primitives::DecodeError> {
                <Self as $crate::message::Wire<$de>>::read(decoder, $crate::message::payload_encoding::<Self>(version)?)
            }

            fn encode_body(&self, encoder: &mut $crate::primitives::Encoder, version: i16) {
                match $crate::message::payload_encoding::<Self>(version) {
                    Ok(encoding) => $crate::message::Wire::write(self, encoder, encoding),
                    Err(error) => panic!("cannot encode: {error}"),
                }
            }
        }
    };

    (@structure $de:lifetime) => {
        match <Self as $crate::message::Wire<$de>>::KIND {
            $crate::schema::Kind::Structure(structure) => structure,
            _ => unreachable!(),
        }
    };
    (@flexible) => { i16::MAX };
    (@flexible $min:literal) => { $min };
    (@versions $min:literal) => { $crate::schema::Versions { min: $min, max: i16::MAX } };
    (@versions $min:literal, $max:literal) => { $crate::schema::Versions { min: $min, max: $max } };
    (@nullable) => { $crate::schema::Versions::NONE };
    (@nullable $($range:tt)+) => { message!(@versions $($range)+) };
    (@tag) => { None::<u32> };
    (@tag $tag:literal) => { Some::<u32>($tag) };
    (@text) => { None };
    (@text $text:expr) => { Some($text) };
    (@ignorable) => { false };
    (@ignorable ignorable) => { true };
    (@default $type:ty) => { <$type as Default>::default() };
    (@default $type:ty, $default:expr) => { $default };
}

pub(crate) use message;
