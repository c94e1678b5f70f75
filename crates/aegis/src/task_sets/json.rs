//! JSON values that keep what the faults of a line are about.
//!
//! `serde_json::Value` would not do: it drops the first of two equal keys silently, and tells an
//! integer from a fraction only after the fact.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};

/// A JSON value with the keys of objects in order, repeated ones too.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Null,
    Bool(bool),
    /// Written without point and exponent, and within 64 bits.
    Integer(i128),
    /// Any other number, as it is written once [`Json::quote`] has seen the text.
    Fraction(String),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(String, Json)>),
}

/// The most characters of a text that a message quotes.
const QUOTE_CHARS_MAX: usize = 40;

impl fmt::Display for Json {
    /// What it is, for a message: short whatever it holds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Integer(value) => write!(f, "{value}"),
            Self::Fraction(value) => {
                let start: String = value.chars().take(QUOTE_CHARS_MAX).collect();
                let more = if start.len() < value.len() { "..." } else { "" };
                write!(f, "{start}{more}")
            }
            Self::Text(text) if text.chars().count() > QUOTE_CHARS_MAX => {
                let start: String = text.chars().take(QUOTE_CHARS_MAX).collect();
                write!(f, "the text {start:?}...")
            }
            Self::Text(text) => write!(f, "the text {text:?}"),
            Self::List(_) => f.write_str("a list"),
            Self::Object(_) => f.write_str("an object"),
        }
    }
}

impl Json {
    /// Gives every other number the digits it has in `text`, from which the value was read: the
    /// numbers of the two come in the same order. Costs `O(n)`.
    pub(super) fn quote(&mut self, text: &str) {
        self.quote_from(&mut Numbers { rest: text });
    }

    fn quote_from(&mut self, numbers: &mut Numbers<'_>) {
        match self {
            Self::Integer(_) => drop(numbers.next()),
            Self::Fraction(written) => {
                if let Some(number) = numbers.next() {
                    number.clone_into(written);
                }
            }
            Self::List(list) => list.iter_mut().for_each(|item| item.quote_from(numbers)),
            Self::Object(entries) => {
                entries.iter_mut().for_each(|(_, value)| value.quote_from(numbers));
            }
            Self::Null | Self::Bool(_) | Self::Text(_) => {}
        }
    }
}

/// The numbers of valid JSON, as they are written.
struct Numbers<'a> {
    rest: &'a str,
}

impl<'a> Iterator for Numbers<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let mut quoted = false;
        let mut bytes = self.rest.bytes().enumerate();
        while let Some((at, byte)) = bytes.next() {
            match byte {
                b'"' => quoted = !quoted,
                b'\\' => drop(bytes.next()), // Only inside quotation marks.
                b'-' | b'0'..=b'9' if !quoted => {
                    let from = &self.rest[at..];
                    let part = |c: char| c.is_ascii_digit() || "+-.eE".contains(c);
                    let end = from.find(|c| !part(c)).unwrap_or(from.len());
                    self.rest = &from[end..];
                    return Some(&from[..end]);
                }
                _ => {}
            }
        }
        None
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

struct AnyValue;

impl<'de> Visitor<'de> for AnyValue {
    type Value = Json;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Json, E> {
        Ok(Json::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Json, E> {
        Ok(Json::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Json, E> {
        Ok(Json::Integer(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Json, E> {
        Ok(Json::Fraction(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Json, E> {
        Ok(Json::Text(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Json, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Json::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Json, A::Error> {
        let mut object = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            object.push(entry);
        }
        Ok(Json::Object(object))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_quoted_as_written_whatever_stands_between() {
        let text = r#"{"7\"8":[1e2,"9\\",-0,"a 5 \" 6",3],"b":{"c":1.50,"d":null}}"#;
        let mut json: Json = serde_json::from_str(text).expect("JSON");
        json.quote(text);
        let Json::Object(entries) = &json else { panic!("{json:?}") };
        let Json::List(list) = &entries[0].1 else { panic!("{json:?}") };
        let Json::Object(inner) = &entries[1].1 else { panic!("{json:?}") };
        assert_eq!((list[0].to_string(), list[2].to_string()), ("1e2".into(), "-0".into()));
        assert_eq!((list[4].to_string(), inner[0].1.to_string()), ("3".into(), "1.50".into()));
    }
}
