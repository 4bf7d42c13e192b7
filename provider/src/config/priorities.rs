//! The operator's order of groups, as it is written: a file in the format of CA's priority expander, or the list itself.

use std::{collections::BTreeMap, fmt, path::PathBuf};

use serde::{Deserialize, Deserializer};

/// The operator's order of groups: a file in the format of CA's priority expander, or the list itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Priorities {
    /// A file, read again when it changes.
    File(PathBuf),
    /// Patterns by number, the highest wins.
    List(BTreeMap<i64, Vec<String>>),
}

impl<'de> Deserialize<'de> for Priorities {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct Map;
        impl<'de> serde::de::Visitor<'de> for Map {
            type Value = Priorities;

            fn expecting(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str("either `file: PATH` or a list such as `50: [\".*spot.*\"]`")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Priorities, A::Error> {
                let mut list = BTreeMap::new();
                let mut file = None;
                while let Some(key) = map.next_key::<String>()? {
                    match key.parse::<i64>() {
                        Ok(rank) => _ = list.insert(rank, map.next_value()?),
                        Err(_) if key == "file" => file = Some(map.next_value()?),
                        Err(_) => {
                            return Err(serde::de::Error::custom(format!(
                                "\"{key}\" is neither a whole number nor `file`"
                            )));
                        }
                    }
                }
                match file {
                    Some(_) if !list.is_empty() => {
                        Err(serde::de::Error::custom("a file and a list cannot both be given"))
                    }
                    Some(file) => Ok(Priorities::File(file)),
                    None => Ok(Priorities::List(list)),
                }
            }
        }
        input.deserialize_map(Map)
    }
}
