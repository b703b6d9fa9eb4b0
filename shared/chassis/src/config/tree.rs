//! All layers in one tree: what each place says is put in by name, and the higher layer wins.
//! Names are not judged here; that is the reader's part, which knows the type.

use std::collections::BTreeMap;

use super::error::ConfigError;
use super::origin::Origin;

/// A value, or a section of them.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Section(BTreeMap<String, Node>),
    List(Vec<Node>, Origin),
    Value(Scalar, Origin),
}

#[derive(Clone, Debug)]
pub(super) enum Scalar {
    /// From a flag, a variable or a file of its own: becomes whatever the field wants.
    Text(String),
    String(String),
    Integer(i64),
    Float(f64),
    Bool(bool),
}

impl Node {
    pub(super) fn empty() -> Self {
        Self::Section(BTreeMap::new())
    }

    /// Where it came from; a section, where its first value did.
    pub(super) fn origin(&self) -> Origin {
        match self {
            Self::Section(nodes) => nodes.values().next().map_or(Origin::Default, Node::origin),
            Self::List(_, origin) | Self::Value(_, origin) => origin.clone(),
        }
    }

    /// A value as its author wrote it; nothing for a section or a list.
    pub(super) fn shown(&self) -> Option<String> {
        let Self::Value(scalar, _) = self else { return None };
        Some(match scalar {
            Scalar::Text(text) | Scalar::String(text) => text.clone(),
            Scalar::Integer(integer) => integer.to_string(),
            Scalar::Float(float) => float.to_string(),
            Scalar::Bool(bool) => bool.to_string(),
        })
    }

    /// Puts `node` in at `path`, in place of what a lower layer said there.
    pub(super) fn put(&mut self, path: &[String], node: Node) -> Result<(), ConfigError> {
        let mut place = self;
        for (depth, name) in path.iter().enumerate() {
            let nodes = match place {
                Node::Section(nodes) => nodes,
                Node::List(_, first) | Node::Value(_, first) => {
                    let (name, first) = (path[..depth].join("."), first.clone());
                    let second = node.origin();
                    return Err(ConfigError::ValueAndSection { name, first, second });
                }
            };
            place = nodes.entry(name.clone()).or_insert_with(Node::empty);
        }
        place.replace(path, node)
    }

    fn replace(&mut self, path: &[String], node: Node) -> Result<(), ConfigError> {
        let name = || path.join(".");
        match self {
            Node::Section(nodes) if nodes.is_empty() => {}
            Node::Section(_) => {
                let (first, second) = (node.origin(), self.origin());
                return Err(ConfigError::ValueAndSection { name: name(), first, second });
            }
            Node::List(_, before) | Node::Value(_, before) => {
                if before.layer() == node.origin().layer() {
                    let (first, second) = (before.clone(), node.origin());
                    return Err(ConfigError::SetTwice { name: name(), first, second });
                }
            }
        }
        *self = node;
        Ok(())
    }
}
