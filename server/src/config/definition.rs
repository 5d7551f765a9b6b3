//! What an option is: its name, type, accepted values, default, synonyms and documentation, said once, and how a text becomes its
//! value. `topic` and `broker` hold the tables; parsing, DescribeConfigs and the documentation all read them.
//! Nothing here knows a single option.

use std::collections::BTreeMap;
use std::fmt;

use super::error::Problem;

/// The type of an option's values, with the number it has in a DescribeConfigs answer (KIP-569).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub enum ValueType {
    /// `true` or `false`.
    Boolean = 1,
    /// Text.
    String = 2,
    /// 32 bits, signed.
    Int = 3,
    /// 64 bits, signed.
    Long = 5,
    /// A floating-point number.
    Double = 6,
    /// Texts separated by commas.
    List = 7,
}

impl ValueType {
    /// The number on the wire.
    #[must_use]
    pub fn code(self) -> i8 {
        self as i8
    }
}

impl fmt::Display for ValueType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Boolean => "boolean",
            Self::String => "string",
            Self::Int => "int",
            Self::Long => "long",
            Self::Double => "double",
            Self::List => "list",
        })
    }
}

/// Which values of the type are accepted.
#[derive(Clone, Copy, Debug)]
pub enum Valid {
    /// Every one.
    Any,
    /// Numbers from here on.
    AtLeast(i64),
    /// Numbers from here to there, both included.
    Between(i64, i64),
    /// One number, or the numbers from here to there, both included.
    OrBetween(i64, i64, i64),
    /// These texts; of a list, every entry.
    OneOf(&'static [&'static str]),
    /// A rule of its own: says what is wrong with the value, if anything is.
    Check(fn(&str) -> Option<String>),
}

impl fmt::Display for Valid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Any | Self::Check(_) => Ok(()),
            Self::AtLeast(min) => write!(f, "[{min},...]"),
            Self::Between(min, max) => write!(f, "[{min},...,{max}]"),
            Self::OrBetween(or, min, max) => write!(f, "[{min},...,{max}] or {or}"),
            Self::OneOf(texts) => write!(f, "[{}]", texts.join(", ")),
        }
    }
}

/// A broker option that gives a topic option its default, or another name of the same broker option.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Synonym {
    /// The broker option's name.
    pub name: &'static str,
    /// What its value is multiplied with: 1, or the milliseconds in its unit.
    pub factor: i64,
}

/// One option.
#[derive(Clone, Copy, Debug)]
pub struct Definition {
    /// Kafka's name, or ours with the prefix `ringlog.`.
    pub name: &'static str,
    /// The type of its values.
    pub value_type: ValueType,
    /// The accepted values.
    pub valid: Valid,
    /// Values that Kafka knows and that are refused here, each with the reason.
    pub refused: &'static [(&'static str, &'static str)],
    /// The value when it is not set; `None`: it has none, or (a topic's option) its synonyms say.
    pub default: Option<&'static str>,
    /// Broker options that say the value when this one is not set; the first that is set counts, else the last one's default.
    pub synonyms: &'static [Synonym],
    /// What it does, with units.
    pub doc: &'static str,
}

/// A value that was read.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// Of a `Boolean`.
    Boolean(bool),
    /// Of a `String`.
    String(String),
    /// Of an `Int`.
    Int(i32),
    /// Of a `Long`.
    Long(i64),
    /// Of a `Double`.
    Double(f64),
    /// Of a `List`.
    List(Vec<String>),
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Boolean(value) => value.fmt(f),
            Self::String(value) => f.write_str(value),
            Self::Int(value) => value.fmt(f),
            Self::Long(value) => value.fmt(f),
            // Java writes 1.0 where Rust's Display writes 1, and 1.0E300.
            Self::Double(value) => f.write_str(&format!("{value:?}").replace('e', "E")),
            Self::List(value) => f.write_str(&value.join(",")),
        }
    }
}

/// The values of overrides by name, and what is wrong with the others: names that `unknown` is asked about, texts that are no values.
pub(super) fn parse_overrides(
    overrides: &BTreeMap<String, String>,
    definition: impl Fn(&str) -> Option<&'static Definition>,
    unknown: impl Fn(&str) -> Problem,
) -> (BTreeMap<&'static str, Value>, Vec<Problem>) {
    let (mut values, mut problems) = (BTreeMap::new(), Vec::new());
    for (name, text) in overrides {
        match definition(name).map(|definition| (definition.name, definition.parse(text))) {
            Some((name, Ok(value))) => drop(values.insert(name, value)),
            Some((name, Err(why))) => problems.push(Problem::invalid(name, text, why)),
            None => problems.push(unknown(name)),
        }
    }
    (values, problems)
}

impl Definition {
    /// Reads a value; blanks around it don't count.
    ///
    /// # Errors
    /// What is wrong with it, in Kafka's words where Kafka has some: the part behind "Invalid value X for configuration Y: ".
    pub fn parse(&self, text: &str) -> Result<Value, String> {
        let text = text.trim();
        let value = match self.value_type {
            ValueType::Boolean => match text {
                _ if text.eq_ignore_ascii_case("true") => Value::Boolean(true),
                _ if text.eq_ignore_ascii_case("false") => Value::Boolean(false),
                _ => return Err("Expected value to be either true or false".to_owned()),
            },
            ValueType::String => Value::String(text.to_owned()),
            ValueType::Int => Value::Int(text.parse().map_err(|_| self.not_a_number("INT"))?),
            ValueType::Long => Value::Long(text.parse().map_err(|_| self.not_a_number("LONG"))?),
            ValueType::Double => {
                let value: f64 = text.parse().map_err(|_| self.not_a_number("DOUBLE"))?;
                if value.is_nan() {
                    return Err(self.not_a_number("DOUBLE"));
                }
                Value::Double(value)
            }
            ValueType::List => Value::List(split_list(text)),
        };
        self.check(text, &value)?;
        Ok(value)
    }

    fn not_a_number(&self, type_name: &str) -> String {
        match self.valid {
            Valid::Any | Valid::Check(_) => format!("Not a number of type {type_name}"),
            valid => format!("Not a number of type {type_name}, accepted: {valid}"),
        }
    }

    fn check(&self, text: &str, value: &Value) -> Result<(), String> {
        let entries: &[String] = match value {
            Value::List(entries) => entries,
            Value::String(entry) => std::slice::from_ref(entry),
            _ => &[text.to_owned()],
        };
        for (refused, why) in self.refused {
            if entries.iter().any(|entry| entry == refused) {
                return Err((*why).to_owned());
            }
        }
        match self.valid {
            Valid::Any => Ok(()),
            Valid::OneOf(accepted) => {
                if entries.iter().all(|entry| accepted.contains(&entry.as_str())) {
                    Ok(())
                } else {
                    Err(format!("String must be one of: {}", accepted.join(", ")))
                }
            }
            Valid::Check(rule) => rule(text).map_or(Ok(()), Err),
            Valid::AtLeast(min) => {
                if number(value) >= min as f64 {
                    Ok(())
                } else {
                    Err(format!("Value must be at least {min}"))
                }
            }
            Valid::Between(min, max) => {
                if number(value) < min as f64 {
                    Err(format!("Value must be at least {min}"))
                } else if number(value) > max as f64 {
                    Err(format!("Value must be no more than {max}"))
                } else {
                    Ok(())
                }
            }
            Valid::OrBetween(or, min, max) => {
                let number = number(value);
                if number == or as f64 || (min as f64..=max as f64).contains(&number) {
                    Ok(())
                } else {
                    Err(format!("Value must be between {min} and {max} or equal to {or}"))
                }
            }
        }
    }

    /// The default as a value.
    ///
    /// # Panics
    /// When the table holds a default that its own definition refuses: a test reads them all.
    #[must_use]
    pub fn default_value(&self) -> Option<Value> {
        let text = self.default?;
        match self.parse(text) {
            Ok(value) => Some(value),
            Err(why) => panic!("the default of {} is not valid: {why}", self.name),
        }
    }
}

/// A number as far as ranges need it: their ends are small enough to be exact.
fn number(value: &Value) -> f64 {
    match value {
        Value::Int(value) => f64::from(*value),
        Value::Long(value) => *value as f64,
        Value::Double(value) => *value,
        Value::Boolean(_) | Value::String(_) | Value::List(_) => panic!("a range on a type without numbers"),
    }
}

/// The entries of a list, without the blanks around them; none in an empty text.
#[must_use]
pub fn split_list(text: &str) -> Vec<String> {
    let text = text.trim();
    if text.is_empty() {
        return Vec::new();
    }
    text.split(',').map(|entry| entry.trim().to_owned()).collect()
}

/// A Rust type that an option's value can have, so that a table of options is also the definition of a struct.
pub trait Typed: Sized {
    /// The option's type.
    const VALUE_TYPE: ValueType;
    /// The value as that type; `None` for a value that is not set.
    fn from_value(value: Option<&Value>) -> Self;
}

macro_rules! typed {
    ($($type:ty = $variant:ident),*) => {$(
        impl Typed for $type {
            const VALUE_TYPE: ValueType = ValueType::$variant;
            fn from_value(value: Option<&Value>) -> Self {
                match value {
                    Some(Value::$variant(value)) => value.clone(),
                    other => panic!("an option of another type, or without a value: {other:?}"),
                }
            }
        }
        impl Typed for Option<$type> {
            const VALUE_TYPE: ValueType = ValueType::$variant;
            fn from_value(value: Option<&Value>) -> Self {
                value.map(|value| <$type>::from_value(Some(value)))
            }
        }
    )*};
}
typed!(bool = Boolean, String = String, i32 = Int, i64 = Long, f64 = Double, Vec<String> = List);

/// Makes, of one table, the struct with a typed field per option and the static list of definitions.
macro_rules! options {
    (
        $(#[$struct_doc:meta])* $struct:ident, $(#[$list_doc:meta])* $list:ident;
        $(
            $(#[doc = $doc:literal])+
            $field:ident: $type:ty = $name:literal,
            default $default:expr, valid $valid:expr
            $(, refused [$($refused:literal => $why:literal),+])?
            $(, synonyms [$($synonym:literal * $factor:literal),+])?;
        )+
    ) => {
        $(#[$struct_doc])*
        #[derive(Clone, Debug, PartialEq)]
        pub struct $struct {
            $(
                $(#[doc = $doc])+
                pub $field: $type,
            )+
        }

        $(#[$list_doc])*
        pub static $list: &[$crate::config::definition::Definition] = &[$(
            $crate::config::definition::Definition {
                name: $name,
                value_type: <$type as $crate::config::definition::Typed>::VALUE_TYPE,
                valid: $valid,
                refused: &[$($(($refused, $why)),+)?],
                default: $default,
                synonyms: &[$($($crate::config::definition::Synonym { name: $synonym, factor: $factor }),+)?],
                doc: concat!($($doc),+),
            },
        )+];

        impl $struct {
            /// Takes every field's value from `value_of` the option's name.
            pub(in crate::config) fn from_values<'a>(value_of: impl Fn(&'static str) -> Option<&'a $crate::config::definition::Value>) -> Self {
                Self { $($field: <$type as $crate::config::definition::Typed>::from_value(value_of($name)),)+ }
            }
        }
    };
}
pub(crate) use options;
