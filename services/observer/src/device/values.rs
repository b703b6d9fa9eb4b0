//! Variables of a device, and what an edit does to them. Nothing is sent here.

use std::collections::BTreeMap;

use observer_wire::value::{VarType, canonical};
use serde::Serialize;

use super::heard::Edit;

/// Edits of undeclared variables that are kept; one document of a project has no more.
const WAITING_MAX: usize = 1_000;

/// A variable: what it is now, and how it is declared.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Variable {
    /// Name.
    pub(crate) name: String,
    /// Name of its type.
    #[serde(rename = "type")]
    pub(crate) kind: String,
    /// What it is now, canonical.
    pub(crate) value: String,
    default: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    min: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    step: Option<f64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    options: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unit: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    help: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    access: Option<&'static str>,
}

impl Variable {
    /// A variable whose default is `value`. A value that is none of its type stays as it is.
    pub(crate) fn new(name: &str, kind: &str, value: &str) -> Self {
        let value = canonical(VarType::named(kind), value).unwrap_or_else(|_| value.to_owned());
        Self {
            name: name.to_owned(),
            kind: kind.to_owned(),
            default: value.clone(),
            value,
            min: None,
            max: None,
            step: None,
            options: Vec::new(),
            unit: None,
            group: None,
            help: None,
            access: None,
        }
    }

    /// A number with a decimal point.
    pub(crate) fn float(name: &str, value: f64) -> Self {
        Self::new(name, "float", &value.to_string())
    }

    /// Bounds of the number.
    pub(crate) fn range(mut self, min: f64, max: f64) -> Self {
        (self.min, self.max) = (Some(min), Some(max));
        self
    }

    /// Width of one step of the number.
    pub(crate) fn step(mut self, step: f64) -> Self {
        self.step = Some(step);
        self
    }

    /// What an `enum` may be.
    pub(crate) fn options(mut self, options: &[&str]) -> Self {
        self.options = options.iter().map(|option| (*option).to_owned()).collect();
        self
    }

    /// Unit of the number.
    pub(crate) fn unit(mut self, unit: &'static str) -> Self {
        self.unit = Some(unit);
        self
    }

    /// Group it is shown in, and a sentence about it.
    pub(crate) fn about(mut self, group: &'static str, help: &'static str) -> Self {
        (self.group, self.help) = (Some(group), Some(help));
        self
    }

    /// Shown, never edited.
    pub(crate) fn watched(mut self) -> Self {
        self.access = Some("watch");
        self
    }

    /// Takes a wanted value as far as the declaration allows.
    fn take(&mut self, text: &str) -> Taken {
        if self.access == Some("watch") {
            return Taken::Rejected("it can only be watched".to_owned());
        }
        let value = match canonical(VarType::named(&self.kind), text) {
            Ok(value) => value,
            Err(invalid) => return Taken::Rejected(invalid.to_string()),
        };
        if !self.options.is_empty() && !self.options.contains(&value) {
            return Taken::Rejected(format!("expected one of {}", self.options.join(", ")));
        }
        if let Some(bound) = self.beyond(&value) {
            self.value = bound.to_string();
            return Taken::Clamped;
        }
        self.value = value;
        Taken::AsAsked
    }

    /// The bound that a number lies beyond.
    fn beyond(&self, value: &str) -> Option<f64> {
        if !matches!(VarType::named(&self.kind), VarType::Float | VarType::Integer) {
            return None;
        }
        let number: f64 = value.parse().ok()?;
        let below = self.min.filter(|min| number < *min);
        below.or(self.max.filter(|max| *max < number))
    }
}

/// What became of a wanted value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is in force.
    AsAsked,
    /// It was beyond a bound, which is in force.
    Clamped,
    /// The default is in force again.
    Default,
    /// The value is as it was; the words say why.
    Rejected(String),
    /// There is no such variable yet; it is taken once there is.
    Waiting,
}

/// What an edit did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// The variable.
    pub(crate) name: String,
    /// What was wanted; `None` for the default.
    pub(crate) wanted: Option<String>,
    /// What it was before; empty while undeclared.
    pub(crate) before: String,
    /// What it is now; empty while undeclared.
    pub(crate) value: String,
    /// How that came.
    pub(crate) taken: Taken,
}

impl Outcome {
    /// The outcome as a sentence.
    pub(crate) fn describe(&self) -> String {
        let Self { name, wanted, before, value, taken } = self;
        let wanted = wanted.as_deref().unwrap_or("its default");
        match taken {
            Taken::AsAsked if before == value => format!("{name} is {value} already"),
            Taken::AsAsked => format!("{name} is {value} now, was {before}"),
            Taken::Clamped => {
                format!("{name} is {value} now, as near as its range allows to {wanted}")
            }
            Taken::Default => format!("{name} is back at its default {value}, was {before}"),
            Taken::Rejected(why) => format!("{name} stays {value}, not {wanted}: {why}"),
            Taken::Waiting => {
                format!("{name} is wanted as {wanted}, but this device has no {name}")
            }
        }
    }
}

/// All variables of a device, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Variables {
    known: BTreeMap<String, Variable>,
    /// What is wanted of variables that are not declared yet.
    waiting: BTreeMap<String, Edit>,
}

impl Variables {
    /// Adds or replaces a variable; what was wanted of it before is obeyed now.
    pub(crate) fn declare(&mut self, variable: Variable) -> Option<Outcome> {
        let name = variable.name.clone();
        self.known.insert(name.clone(), variable);
        let edit = self.waiting.remove(&name)?;
        Some(self.obey(&edit))
    }

    /// The variable of that name.
    pub(crate) fn get(&self, name: &str) -> Option<&Variable> {
        self.known.get(name)
    }

    /// The value of that name, or nothing.
    pub(crate) fn value(&self, name: &str) -> &str {
        self.known.get(name).map_or("", |variable| &variable.value)
    }

    /// The value of that name as a number, 0 when it is none.
    pub(crate) fn number(&self, name: &str) -> f64 {
        self.value(name).parse().unwrap_or_default()
    }

    /// All, by name.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Variable> {
        self.known.values()
    }

    /// All names.
    pub(crate) fn names(&self) -> Vec<String> {
        self.known.keys().cloned().collect()
    }

    /// The game itself changes a value; bounds of operators are not the game's. A text that is no
    /// value of the type is refused in words.
    pub(crate) fn change(&mut self, name: &str, text: &str) -> Result<(), String> {
        let variable = self.known.get_mut(name).ok_or_else(|| format!("there is no {name}"))?;
        variable.value = canonical(VarType::named(&variable.kind), text)
            .map_err(|invalid| format!("{name} is {}: {invalid}", variable.kind))?;
        Ok(())
    }

    /// Does what operators want, as far as the declaration allows.
    pub(crate) fn obey(&mut self, edit: &Edit) -> Outcome {
        let (name, wanted) = (edit.name.clone(), edit.value.clone());
        let Some(variable) = self.known.get_mut(&edit.name) else {
            self.wait_for(edit);
            let (before, value) = (String::new(), String::new());
            return Outcome { name, wanted, before, value, taken: Taken::Waiting };
        };
        let before = variable.value.clone();
        let taken = if let Some(text) = &edit.value {
            variable.take(text)
        } else {
            variable.value.clone_from(&variable.default);
            Taken::Default
        };
        Outcome { name, wanted, before, value: variable.value.clone(), taken }
    }

    fn wait_for(&mut self, edit: &Edit) {
        if edit.value.is_none() {
            self.waiting.remove(&edit.name);
        } else if self.waiting.len() < WAITING_MAX {
            self.waiting.insert(edit.name.clone(), edit.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        let mut variables = Variables::default();
        for variable in [
            Variable::float("gravity", 9.8).range(0.0, 20.0).step(0.1),
            Variable::new("rate", "integer", "3").range(1.0, 10.0),
            Variable::new("god", "boolean", "false"),
            Variable::new("mode", "enum", "easy").options(&["easy", "hard"]),
            Variable::new("tint", "color", "#ffffff"),
            Variable::float("fps", 60.0).watched(),
        ] {
            variables.declare(variable);
        }
        variables
    }

    fn check(name: &str, wanted: &str, value: &str, taken: &Taken) {
        let outcome = variables().obey(&Edit::set(name, wanted));
        assert_eq!((outcome.value.as_str(), &outcome.taken), (value, taken), "{name} = {wanted}");
    }

    #[test]
    fn values_are_taken_in_their_canonical_form() {
        check("gravity", "3.50", "3.5", &Taken::AsAsked);
        check("god", "True", "true", &Taken::AsAsked);
        check("tint", "#AABBCC", "#aabbccff", &Taken::AsAsked);
        check("mode", "hard", "hard", &Taken::AsAsked);
    }

    #[test]
    fn numbers_stop_at_their_bounds() {
        check("gravity", "20", "20", &Taken::AsAsked);
        check("gravity", "20.1", "20", &Taken::Clamped);
        check("gravity", "-1", "0", &Taken::Clamped);
        check("rate", "0", "1", &Taken::Clamped);
        check("rate", "11", "10", &Taken::Clamped);
    }

    #[test]
    fn what_is_no_value_changes_nothing() {
        for (name, wanted, value) in [
            ("gravity", "low", "9.8"),
            ("rate", "1.5", "3"),
            ("mode", "odd", "easy"),
            ("fps", "1", "60"),
        ] {
            let outcome = variables().obey(&Edit::set(name, wanted));
            assert_eq!(outcome.value, value);
            assert!(matches!(outcome.taken, Taken::Rejected(_)), "{outcome:?}");
        }
    }

    #[test]
    fn what_is_wanted_of_an_undeclared_variable_is_obeyed_once_it_is_declared() {
        let mut variables = Variables::default();
        assert_eq!(variables.obey(&Edit::set("wind", "2")).taken, Taken::Waiting);
        let outcome = variables.declare(Variable::float("wind", 1.0)).unwrap();
        assert_eq!((outcome.value.as_str(), outcome.taken), ("2", Taken::AsAsked));
        let unset = variables.obey(&Edit { name: "wind".into(), value: None });
        assert_eq!(unset.value, "1");
    }

    #[test]
    fn a_declaration_says_only_what_it_has() {
        let json = serde_json::to_string(&Variable::new("a", "string", "x")).unwrap();
        assert_eq!(json, r#"{"name":"a","type":"string","value":"x","default":"x"}"#);
    }
}
