//! What happens in a simulated game: its variables, and the records that it logs. Nothing is sent
//! here, and no clock is read.

use serde_json::{Value, json};

use super::random::Random;
use crate::device::values::{Outcome, Taken, Variable, Variables};

/// Names that players have.
const PLAYERS: [&str; 6] = ["Ada", "Linus", "Grace", "Edsger", "Barbara", "Ken"];

/// What lives in the game.
const CREATURES: [&str; 5] = ["wolf", "bandit", "slime", "drake", "golem"];

/// Where it is played.
const SCENES: [&str; 3] = ["forest", "ruins", "harbour"];

/// What an engine says when a script has a bug.
const STACKS: [(&str, &str); 2] = [
    (
        "NullReferenceException: Object reference not set to an instance of an object",
        "  at Enemy.ChooseTarget () in Assets/Scripts/Enemy.cs:112\n  at Enemy.Update () in \
         Assets/Scripts/Enemy.cs:41",
    ),
    (
        "IndexOutOfRangeException: Index was outside the bounds of the array",
        "  at Inventory.Slot (int index) in Assets/Scripts/Inventory.cs:67\n  at Hud.Redraw () in \
         Assets/Scripts/Hud.cs:23\n  at Hud.LateUpdate () in Assets/Scripts/Hud.cs:9",
    ),
];

/// Frames that pass between two records, about.
const FRAMES: u32 = 45;

/// Spawn rate at which nothing else happens any more.
const SPAWN_RATE_ONLY: u32 = 50;

/// The state of a game that its records tell of.
pub(super) struct Game {
    random: Random,
    scene: &'static str,
    frame: u64,
    health: i64,
    spawned: u64,
}

/// The variables of the game with that number.
pub(super) fn variables(number: usize) -> Variables {
    let player = PLAYERS[(number - 1) % PLAYERS.len()];
    let mut variables = Variables::default();
    for variable in [
        Variable::float("gravity", 9.8)
            .range(0.0, 20.0)
            .step(0.1)
            .unit("m/s²")
            .about("world", "How fast everything falls"),
        Variable::float("jump_height", 1.5)
            .range(0.1, 10.0)
            .step(0.1)
            .unit("m")
            .about("player", "How high a jump goes"),
        Variable::new("spawn_rate", "integer", "4")
            .range(0.0, 50.0)
            .step(1.0)
            .about("world", "Creatures a minute"),
        Variable::new("god_mode", "boolean", "false").about("player", "No damage is taken"),
        Variable::new("difficulty", "enum", "normal")
            .options(&["easy", "normal", "hard", "nightmare"])
            .about("world", "How strong creatures are"),
        Variable::new("player_name", "string", player).about("player", "Shown over the head"),
        Variable::new("tint", "color", "#ffcc88").about("look", "Colour of the light"),
        Variable::new("wind", "vector", "[1,0,0.5]").about("world", "Direction and strength"),
        Variable::float("fps", 60.0).watched().about("health", "Frames a second"),
        Variable::new("enemies", "integer", "0").watched().about("health", "Creatures alive"),
    ] {
        variables.declare(variable);
    }
    variables
}

impl Game {
    /// A game at its start.
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let scene = random.one_of(&SCENES);
        Self { random, scene, frame: 0, health: 100, spawned: 0 }
    }

    /// The next thing that happens, as a log record.
    pub(super) fn happens(&mut self, variables: &Variables, now_ms: u64) -> Value {
        self.frame += u64::from(1 + self.random.below(2 * FRAMES));
        let spawns = f64::from(self.random.below(SPAWN_RATE_ONLY)) < variables.number("spawn_rate");
        let record = match self.random.below(1_000) {
            _ if spawns => self.spawns(),
            0..450 => moves(variables),
            450..750 => self.fights(variables),
            750..880 => self.measures(variables),
            880..950 => self.network(),
            950..992 => self.finds(variables),
            _ => self.breaks(),
        };
        self.stamped(record, now_ms)
    }

    /// The record that tells of an edit.
    pub(super) fn edited(&mut self, outcome: &Outcome, now_ms: u64) -> Value {
        let level = match outcome.taken {
            Taken::AsAsked | Taken::Default => "info",
            Taken::Clamped | Taken::Rejected(_) | Taken::Waiting => "warn",
        };
        let record = json!({
            "level": level, "tag": "tuning", "message": outcome.describe(),
            "variable": outcome.name, "value": outcome.value,
        });
        self.stamped(record, now_ms)
    }

    /// The record that tells of records that were never sent.
    pub(super) fn dropped(&mut self, lines: u64, now_ms: u64) -> Value {
        let message = "lines were dropped while the connection was away";
        let record = json!({ "level": "warn", "tag": "log", "message": message, "lines": lines });
        self.stamped(record, now_ms)
    }

    /// What the game measures of itself drifts. Returns what has changed.
    pub(super) fn drift(&mut self, variables: &mut Variables) -> Vec<String> {
        let fps = (variables.number("fps") + self.random.between(-4.0, 4.0)).clamp(24.0, 144.0);
        let alive =
            (variables.number("enemies") + f64::from(self.random.below(5)) - 2.0).clamp(0.0, 40.0);
        let values = [("fps", format!("{fps:.1}")), ("enemies", format!("{alive:.0}"))];
        let mut changed = Vec::new();
        for (name, value) in values {
            let before = variables.value(name).to_owned();
            if variables.change(name, &value).is_ok() && variables.value(name) != before {
                changed.push(name.to_owned());
            }
        }
        changed
    }

    fn stamped(&self, mut record: Value, now_ms: u64) -> Value {
        record["timestamp"] = now_ms.into();
        record["frame"] = self.frame.into();
        record["scene"] = self.scene.into();
        record
    }

    fn fights(&mut self, variables: &Variables) -> Value {
        let from = self.random.one_of(&CREATURES);
        let most = match variables.value("difficulty") {
            "easy" => 6,
            "hard" => 25,
            "nightmare" => 60,
            _ => 14,
        };
        let damage = i64::from(1 + self.random.below(most));
        let name = variables.value("player_name");
        if variables.value("god_mode") == "true" {
            let message = format!("{from} hits {name} for {damage}, ignored in god mode");
            return json!({ "level": "debug", "tag": "combat", "message": message, "from": from });
        }
        self.health -= damage;
        if self.health <= 0 {
            self.health = 100;
            self.scene = self.random.one_of(&SCENES);
            let message = format!("{name} was killed by a {from}");
            return json!({ "level": "warn", "tag": "combat", "message": message, "from": from });
        }
        let message = format!("{from} hits {name} for {damage}");
        json!({
            "level": "debug", "tag": "combat", "message": message,
            "from": from, "damage": damage, "health": self.health,
        })
    }

    fn spawns(&mut self) -> Value {
        self.spawned += 1;
        let what = self.random.one_of(&CREATURES);
        let (x, y) = (self.random.between(-200.0, 200.0), self.random.between(-200.0, 200.0));
        let message = format!("{what} spawned at {x}, {y}");
        json!({
            "level": "info", "tag": "spawn", "message": message,
            "creature": what, "entity": self.spawned, "position": [x, y],
        })
    }

    fn measures(&mut self, variables: &Variables) -> Value {
        let fps = variables.number("fps");
        let heap_mb = self.random.between(180.0, 420.0);
        let message = format!("frame took {:.1} ms", 1_000.0 / fps.max(1.0));
        json!({
            "level": "debug", "tag": "performance", "message": message,
            "fps": fps, "heap_mb": heap_mb,
        })
    }

    fn network(&mut self) -> Value {
        let (ping_ms, lost) = (180 + self.random.below(600), 1 + self.random.below(9));
        let message = format!("ping {ping_ms} ms, {lost} packets sent again");
        json!({
            "level": "warn", "tag": "network", "message": message,
            "ping_ms": ping_ms, "packets_lost": lost,
        })
    }

    fn finds(&mut self, variables: &Variables) -> Value {
        let gold = 10 + self.random.below(90);
        let message = format!("{} found {gold} gold", variables.value("player_name"));
        json!({ "level": "info", "tag": "loot", "message": message, "gold": gold })
    }

    fn breaks(&mut self) -> Value {
        let (message, stack) = self.random.one_of(&STACKS);
        json!({
            "level": "error", "tag": "script", "kind": "exception",
            "message": message, "stack": stack,
        })
    }
}

fn moves(variables: &Variables) -> Value {
    let (height, gravity) = (variables.number("jump_height"), variables.number("gravity"));
    // Up and down again: 2·√(2h/g). Without gravity a jump has no end.
    let air = 2.0 * (2.0 * height / gravity.max(0.01)).sqrt();
    let message = format!("jumped {height:.1} m high, {air:.2} s in the air");
    json!({ "level": "trace", "tag": "player", "message": message, "air_s": round(air) })
}

/// Two digits behind the point are enough for people.
fn round(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::device::heard::Edit;

    /// Enough for everything to happen at least once.
    const MANY: usize = 5_000;

    #[test]
    fn a_game_logs_records_of_every_kind() {
        let (mut game, variables) = (Game::new(1), variables(1));
        let records: Vec<_> = (0..MANY).map(|_| game.happens(&variables, 1)).collect();
        let levels: BTreeSet<_> =
            records.iter().map(|record| record["level"].as_str().unwrap()).collect();
        let expected = ["debug", "error", "info", "trace", "warn"];
        assert_eq!(levels.into_iter().collect::<Vec<_>>(), expected);
        assert!(records.iter().any(|record| record["stack"].is_string()));
        assert!(records.iter().all(|record| record["message"].is_string()));
    }

    #[test]
    fn what_operators_set_is_seen_in_what_happens() {
        let (mut game, mut variables) = (Game::new(1), variables(1));
        variables.obey(&Edit::set("god_mode", "true"));
        variables.obey(&Edit::set("player_name", "Zoe"));
        let records: Vec<_> = (0..MANY).map(|_| game.happens(&variables, 1)).collect();
        assert!(records.iter().all(|record| record.get("health").is_none()));
        assert!(records.iter().any(|record| record["message"].as_str().unwrap().contains("Zoe")));
    }

    #[test]
    fn only_what_is_watched_drifts() {
        let (mut game, mut variables) = (Game::new(1), variables(1));
        let changed: BTreeSet<_> = (0..50).flat_map(|_| game.drift(&mut variables)).collect();
        assert_eq!(changed.into_iter().collect::<Vec<_>>(), ["enemies", "fps"]);
    }
}
