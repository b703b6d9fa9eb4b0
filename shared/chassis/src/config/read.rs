//! The merged tree becomes the settings' type. The type's own field lists say which names exist;
//! values written as text become what the field wants.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, btree_map};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::vec;

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, MapAccess,
    SeqAccess, Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::error::ConfigError;
use super::origin::Origin;
use super::secret::SECRET_NAME;
use super::sources::{hint, read_bounded};
use super::suggest::nearest;
use super::tree::{Node, Scalar};

/// Largest file that holds one value, in bytes: room for a chain of certificates.
pub(super) const VALUE_FILE_BYTES_MAX: u64 = 64 * 1024;

/// What a name ends with when its value stands in a file.
const FILE_SUFFIX: &str = "_file";

/// What was learnt while reading: dotted names only.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) origins: BTreeMap<String, Origin>,
    pub(super) secrets: BTreeSet<String>,
}

/// The names of the fields of `T`; none if it is not a plain struct.
pub(super) fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    let names = Cell::new(&[][..]);
    // Always an error, and a default would be of no use either: only the names are wanted.
    T::deserialize(Probe(&names)).map(drop).ok();
    names.get()
}

/// Turns the tree into settings.
pub(super) fn read<T: DeserializeOwned>(tree: &Node) -> Result<(T, Reading), ConfigError> {
    let reading = RefCell::new(Reading::default());
    let settings = T::deserialize(Reader { name: "", node: tree, reading: &reading });
    match settings {
        Ok(settings) => Ok((settings, reading.into_inner())),
        Err(fault) => Err(fault.locate("", tree, &reading)),
    }
}

/// Learns the names of a struct's fields, and deserializes nothing.
struct Probe<'a>(&'a Cell<&'static [&'static str]>);

impl<'de> Deserializer<'de> for Probe<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, _: V) -> Result<V::Value, Fault> {
        Err(Fault::Value(String::new()))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Fault> {
        self.0.set(fields);
        Err(Fault::Value(String::new()))
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option
        unit unit_struct newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// Why a node could not become what was wanted; where it stands is learnt on the way up.
#[derive(Debug)]
enum Fault {
    Located(Box<ConfigError>),
    Missing(&'static str),
    Value(String),
}

impl Fault {
    fn locate(self, name: &str, node: &Node, reading: &RefCell<Reading>) -> ConfigError {
        match self {
            Self::Located(error) => *error,
            Self::Missing(field) => ConfigError::Missing { name: join(name, field) },
            Self::Value(reason) => {
                let value = node.shown().filter(|_| !reading.borrow().secrets.contains(name));
                let (name, origin) = (name.to_owned(), node.origin());
                ConfigError::BadValue { name, origin, value, reason }
            }
        }
    }
}

impl From<ConfigError> for Fault {
    fn from(error: ConfigError) -> Self {
        Self::Located(Box::new(error))
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Located(error) => error.fmt(f),
            Self::Missing(field) => write!(f, "{field} is missing"),
            Self::Value(reason) => f.write_str(reason),
        }
    }
}

impl std::error::Error for Fault {}

impl de::Error for Fault {
    fn custom<T: fmt::Display>(text: T) -> Self {
        let text = text.to_string();
        Self::Value(match text.as_str() {
            "invalid socket address syntax" => {
                "expected an address with its port, like 127.0.0.1:8080".to_owned()
            }
            "invalid IP address syntax" => "expected an address like 127.0.0.1".to_owned(),
            _ => text,
        })
    }

    fn invalid_type(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::Value(format!("expected {}", in_plain_words(&expected.to_string())))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(unexpected, expected)
    }

    fn unknown_variant(_: &str, expected: &'static [&'static str]) -> Self {
        Self::Value(format!("expected {}", expected.join(" or ")))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::Missing(field)
    }
}

/// Says a type of Rust as someone who only runs the program would.
fn in_plain_words(expected: &str) -> Cow<'_, str> {
    let (least, number) = match expected.strip_prefix("a nonzero ") {
        Some(number) => ("1", number),
        None => ("0", expected),
    };
    let most = match number {
        "u8" => u64::from(u8::MAX),
        "u16" => u64::from(u16::MAX),
        "u32" => u64::from(u32::MAX),
        "u64" | "usize" => return format!("a whole number, {least} or more").into(),
        "i8" | "i16" | "i32" | "i64" | "isize" => return "a whole number".into(),
        "f32" | "f64" => return "a number".into(),
        "a boolean" => return "true or false".into(),
        "a string" => return "text".into(),
        "a sequence" => return "a list".into(),
        other if other.starts_with("struct ") => return "a section, not a value".into(),
        other => return other.into(),
    };
    format!("a whole number from {least} to {most}").into()
}

/// One node of the tree, about to become a value.
#[derive(Clone, Copy)]
struct Reader<'a> {
    name: &'a str,
    node: &'a Node,
    reading: &'a RefCell<Reading>,
}

impl<'a> Reader<'a> {
    /// The text to be turned into whatever is wanted, if that is what the node holds.
    fn text(&self) -> Option<&'a str> {
        match self.node {
            Node::Value(Scalar::Text(text), _) => Some(text),
            Node::Section(_) | Node::List(..) | Node::Value(..) => None,
        }
    }

    fn integer<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Some(text) = self.text() else { return self.deserialize_any(visitor) };
        if let Ok(integer) = text.trim().parse() {
            return visitor.visit_i64(integer);
        }
        match text.trim().parse() {
            Ok(integer) => visitor.visit_u64(integer),
            Err(_) => Err(de::Error::invalid_value(Unexpected::Str(text), &visitor)),
        }
    }

    fn float<'de, V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Some(text) = self.text() else { return self.deserialize_any(visitor) };
        match text.trim().parse() {
            Ok(float) => visitor.visit_f64(float),
            Err(_) => Err(de::Error::invalid_value(Unexpected::Str(text), &visitor)),
        }
    }

    /// The nodes of a section by the names of `fields`, each from the highest layer that has it.
    fn fields(
        self,
        section: &'a BTreeMap<String, Node>,
        fields: &'static [&'static str],
    ) -> Result<Entries<'a>, Fault> {
        let mut chosen: BTreeMap<&'static str, (&'a str, &'a Node)> = BTreeMap::new();
        for (written, node) in section {
            let Some(field) = field_of(written, fields) else {
                return Err(self.unknown(written, node, fields).into());
            };
            match chosen.entry(field) {
                btree_map::Entry::Vacant(vacant) => {
                    vacant.insert((written, node));
                }
                btree_map::Entry::Occupied(mut other) => {
                    let (first, second) = (other.get().1.origin(), node.origin());
                    if first.layer() == second.layer() {
                        let name = join(self.name, field);
                        return Err(ConfigError::SetTwice { name, first, second }.into());
                    }
                    if first.layer() < second.layer() {
                        other.insert((written, node));
                    }
                }
            }
        }
        let mut entries = Vec::with_capacity(chosen.len());
        for (field, (written, node)) in chosen {
            let name = join(self.name, field);
            let node = if written == field {
                Cow::Borrowed(node)
            } else {
                self.reading.borrow_mut().secrets.insert(name.clone());
                Cow::Owned(value_from_file(&join(self.name, written), node)?)
            };
            entries.push(Entry { field: field.to_owned(), name, node });
        }
        Ok(Entries { waiting: entries.into_iter(), current: None, reading: self.reading })
    }

    fn unknown(self, written: &str, node: &Node, fields: &[&'static str]) -> ConfigError {
        let origin = node.origin();
        let meant = nearest(written, fields.iter().copied()).map(|near| join(self.name, near));
        let name = join(self.name, written);
        ConfigError::UnknownSetting { hint: hint(&origin, meant.as_deref()), name, origin }
    }

    /// The nodes of a section whose names are free.
    fn entries(self, section: &'a BTreeMap<String, Node>) -> Entries<'a> {
        let entry = |(field, node): (&String, &'a Node)| Entry {
            field: field.clone(),
            name: join(self.name, field),
            node: Cow::Borrowed(node),
        };
        let entries: Vec<_> = section.iter().map(entry).collect();
        Entries { waiting: entries.into_iter(), current: None, reading: self.reading }
    }
}

/// The field that `written` sets, itself or through a file.
fn field_of(written: &str, fields: &'static [&'static str]) -> Option<&'static str> {
    let find = |name: &str| fields.iter().copied().find(|field| *field == name);
    find(written).or_else(|| find(written.strip_suffix(FILE_SUFFIX)?))
}

/// Reads the file that `node` names.
fn value_from_file(name: &str, node: &Node) -> Result<Node, ConfigError> {
    let origin = node.origin();
    let Node::Value(Scalar::Text(path) | Scalar::String(path), _) = node else {
        let (name, reason) = (name.to_owned(), "expected the name of a file".to_owned());
        return Err(ConfigError::BadValue { name, origin, value: None, reason });
    };
    let path = Path::new(path);
    let mut text = read_bounded(path, VALUE_FILE_BYTES_MAX).map_err(|source| {
        let named_by = origin.to_string();
        ConfigError::FileUnreadable { path: path.to_owned(), named_by, source }
    })?;
    if text.ends_with('\n') {
        text.pop();
        if text.ends_with('\r') {
            text.pop();
        }
    }
    let origin = Origin::ValueFile { named_by: Arc::new(origin), path: path.into() };
    Ok(Node::Value(Scalar::Text(text), origin))
}

fn join(section: &str, name: &str) -> String {
    if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") }
}

/// Types that are read in the same way.
macro_rules! read_as {
    ($($method:ident)* => $how:ident) => {$(
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
            self.$how(visitor)
        }
    )*};
}

impl<'de> Deserializer<'de> for Reader<'_> {
    type Error = Fault;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.node {
            Node::Section(section) => visitor.visit_map(self.entries(section)),
            Node::List(items, _) => visitor.visit_seq(Items { waiting: items.iter(), list: self }),
            Node::Value(Scalar::Text(text) | Scalar::String(text), _) => visitor.visit_str(text),
            Node::Value(Scalar::Integer(integer), _) => visitor.visit_i64(*integer),
            Node::Value(Scalar::Float(float), _) => visitor.visit_f64(*float),
            Node::Value(Scalar::Bool(bool), _) => visitor.visit_bool(*bool),
        }
    }

    read_as!(deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64 deserialize_i128
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64 deserialize_u128 => integer);
    read_as!(deserialize_f32 deserialize_f64 => float);

    fn deserialize_bool<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text().map(str::trim) {
            Some("true") => visitor.visit_bool(true),
            Some("false") => visitor.visit_bool(false),
            Some(text) => Err(de::Error::invalid_value(Unexpected::Str(text), &visitor)),
            None => self.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        match self.text() {
            Some("") => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Fault> {
        if name == SECRET_NAME {
            self.reading.borrow_mut().secrets.insert(self.name.to_owned());
        }
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Fault> {
        let Some(text) = self.text() else { return self.deserialize_any(visitor) };
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let item = |part: &str| Node::Value(Scalar::Text(part.to_owned()), self.node.origin());
        let items: Vec<_> = parts.map(item).collect();
        visitor.visit_seq(Items { waiting: items.iter(), list: self })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        let Node::Section(section) = self.node else { return self.deserialize_any(visitor) };
        let entries = self.fields(section, fields)?;
        let located = |fault: Fault| fault.locate(self.name, self.node, self.reading).into();
        visitor.visit_map(entries).map_err(located)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Fault> {
        match self.node {
            Node::Value(Scalar::Text(text) | Scalar::String(text), _) => {
                visitor.visit_enum(text.as_str().into_deserializer())
            }
            Node::Section(_) | Node::List(..) | Node::Value(..) => {
                Err(de::Error::unknown_variant("", variants))
            }
        }
    }

    forward_to_deserialize_any! {
        char str string bytes byte_buf unit unit_struct tuple tuple_struct map identifier
        ignored_any
    }
}

/// A value and the names it goes by.
struct Entry<'a> {
    field: String,
    /// The whole dotted name.
    name: String,
    node: Cow<'a, Node>,
}

/// The values of a section, one after the other.
struct Entries<'a> {
    waiting: vec::IntoIter<Entry<'a>>,
    current: Option<Entry<'a>>,
    reading: &'a RefCell<Reading>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Fault;

    fn next_key_seed<K>(&mut self, seed: K) -> Result<Option<K::Value>, Fault>
    where
        K: DeserializeSeed<'de>,
    {
        self.current = self.waiting.next();
        let Some(entry) = &self.current else { return Ok(None) };
        seed.deserialize(entry.field.as_str().into_deserializer()).map(Some)
    }

    fn next_value_seed<V>(&mut self, seed: V) -> Result<V::Value, Fault>
    where
        V: DeserializeSeed<'de>,
    {
        let Entry { name, node, .. } = self.current.take().expect("a value follows its key");
        if !matches!(*node, Node::Section(_)) {
            self.reading.borrow_mut().origins.insert(name.clone(), node.origin());
        }
        seed.deserialize(Reader { name: &name, node: &node, reading: self.reading })
            .map_err(|fault| fault.locate(&name, &node, self.reading).into())
    }
}

/// The items of a list, one after the other; they go by the name of the list.
struct Items<'a> {
    waiting: std::slice::Iter<'a, Node>,
    list: Reader<'a>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Fault;

    fn next_element_seed<T>(&mut self, seed: T) -> Result<Option<T::Value>, Fault>
    where
        T: DeserializeSeed<'de>,
    {
        let Some(node) = self.waiting.next() else { return Ok(None) };
        let Reader { name, reading, .. } = self.list;
        seed.deserialize(Reader { name, node, reading })
            .map(Some)
            .map_err(|fault| fault.locate(name, node, reading).into())
    }
}
