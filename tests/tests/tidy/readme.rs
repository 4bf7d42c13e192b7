//! README says what the programs do: its tables are the programs' own, and no flag or key is missing from it.
//! `UPDATE_EXPECT=1` writes the tables anew.

use std::{fmt::Write as _, fs};

use clap::{Command, CommandFactory as _};
use windlass_agent::{config::Args as AgentArgs, families};
use windlass_provider::{args::Args as ProviderArgs, metrics};

use crate::source::{Source, every_rust_file, file, root};

#[test]
fn tables_are_the_programs_own() {
    let readme = file("README.md").text;
    let tables = [
        ("agent metrics", agent_metrics()),
        ("provider metrics", provider_metrics()),
        ("agent flags", flags(AgentArgs::command())),
        ("provider flags", flags(ProviderArgs::command())),
    ];
    let wanted = tables.iter().fold(readme.clone(), |text, (name, table)| with_table(&text, name, table));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        fs::write(root().join("README.md"), wanted).expect("writing README.md");
        return;
    }
    let stale = readme.lines().zip(wanted.lines()).find(|(is, should)| is != should);
    assert!(
        readme == wanted,
        "README.md is not up to date: UPDATE_EXPECT=1 cargo test -p windlass-tests --test tidy writes it anew\n{stale:#?}"
    );
}

#[test]
fn every_key_of_the_configuration_is_there() {
    let readme = file("README.md").text;
    let written = [
        "provider/src/config.rs",
        "provider/src/config/cloud.rs",
        "provider/src/expander/bought.rs",
        "provider/src/fleet/offering.rs",
        "provider/src/cloud/sim/scenario/written.rs",
        "provider/src/fleet/group.rs",
    ];
    let mut found = 0;
    let mut missing = Vec::new();
    for (place, key) in written.iter().flat_map(|path| keys(&file(path))) {
        found += 1;
        let documented = readme.match_indices(&format!("{key}:")).any(|(at, _)| {
            !readme.get(..at).and_then(|before| before.chars().next_back()).is_some_and(char::is_alphanumeric)
        });
        if !documented {
            missing.push(format!("{place}: `{key}`"));
        }
    }
    assert!(found > 40, "only {found} keys were found: the rule looks at the wrong place");
    assert!(missing.is_empty(), "README.md does not say what these keys are for\n{}\n", missing.join("\n"));
}

/// The list of what is different from the in-tree provider names a test for each line, and each of these says so.
#[test]
fn what_is_different_in_tree_is_held_by_the_tests_that_it_names() {
    let text = file("deploy/aws/README.md").text;
    let list = text.split("## What is different from the in-tree provider").nth(1).expect("the list");
    let rows: Vec<&str> = list.lines().filter(|line| line.starts_with('|')).skip(2).collect();
    assert!(rows.len() > 25, "only {} lines were found", rows.len());
    let sources = every_rust_file();
    for row in rows {
        let tests = row.trim_end_matches(" |").rsplit(" | ").next().unwrap_or_default();
        let tests: Vec<&str> = tests.split('`').filter(|part| part.contains('_')).collect();
        assert!(!tests.is_empty(), "no test: {row}");
        for test in tests {
            let declared = format!("fn {test}(");
            let source = sources.iter().find_map(|source| source.text.split_once(&declared));
            let (before, after) = source.unwrap_or_else(|| panic!("there is no test {test}"));
            let near = |text: &str| text.contains("// in-tree: ");
            let above = before.rsplit("\n\n").next().unwrap_or_default();
            let inside = after.split("\n\n").next().unwrap_or_default();
            assert!(near(above) || near(inside), "{test} does not say what in-tree does");
        }
    }
}

/// What is looked up under "When something is odd" is what the program says, or what AWS says through it.
#[test]
fn troubles_are_listed_under_the_words_in_which_they_are_told() {
    const OF_AWS: &str = "no credentials found in chain";
    let said: String =
        every_rust_file().into_iter().filter(|it| it.path.starts_with("provider/src")).map(|it| it.text).collect();
    let guide = file("deploy/aws/README.md").text;
    let (_, table) = guide.split_once("\n| it says | do |\n").expect("the table");
    let rows = table.lines().take_while(|line| line.starts_with('|')).filter_map(|line| line.split('|').nth(1));
    // One word is a command, or a code of AWS's.
    let told: Vec<&str> =
        rows.flat_map(|row| row.split('`').skip(1).step_by(2)).filter(|told| told.contains(' ')).collect();
    assert!(told.len() > 15, "{told:?}");
    let is_ours = |told: &str| {
        let mut pieces =
            told.split(|letter: char| matches!(letter, '…' | ':') || letter.is_ascii_digit()).map(str::trim);
        told == OF_AWS || pieces.any(|piece| piece.len() > 5 && said.contains(piece))
    };
    let foreign: Vec<_> = told.into_iter().filter(|told| !is_ours(told)).collect();
    assert!(foreign.is_empty(), "deploy/aws/README.md lists what the provider never says: {foreign:#?}");
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for page in ["README.md", "deploy/aws/README.md"] {
        let text = file(page).text;
        let links = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for link in links.filter(|link| !link.starts_with("http")) {
            let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => root().join(page),
                path => root().join(page).with_file_name(path),
            };
            assert!(target.exists(), "{page}: {link} leads nowhere");
            let heads = || fs::read_to_string(&target).expect("a page of text");
            assert!(anchor.is_empty() || heads().lines().any(|line| anchor_of(line) == anchor), "{page}: no {link}");
            followed += 1;
        }
    }
    assert!(followed > 5, "only {followed} links were found");
}

/// What GitHub calls a heading in an address; nothing for other lines.
fn anchor_of(line: &str) -> String {
    let Some((_, head)) = line.split_once("# ").filter(|(hashes, _)| hashes.chars().all(|it| it == '#')) else {
        return String::new();
    };
    let letters = head.to_lowercase().replace(' ', "-");
    letters.chars().filter(|letter| letter.is_alphanumeric() || matches!(letter, '-' | '_')).collect()
}

#[test]
fn the_map_shows_files_that_exist() {
    let files = every_rust_file();
    let readme = file("README.md").text;
    let named = readme.split([' ', '\n', '`', '(', ')']).filter(|word| word.ends_with(".rs"));
    let lost: Vec<_> = named
        .filter(|name| !files.iter().any(|file| format!("/{}", file.path).ends_with(&format!("/{name}"))))
        .collect();
    assert!(lost.is_empty(), "README.md names files that are not there: {lost:?}");
}

/// The keys of what an operator writes, in camelCase, with the struct's name: those are the structs that refuse unknown fields.
fn keys(source: &Source) -> Vec<(String, String)> {
    let mut keys = Vec::new();
    let (mut strict, mut open, mut renamed, mut skipped) = (false, None, None, false);
    for line in source.text.lines().map(str::trim) {
        if let Some(attribute) = line.strip_prefix("#[serde(") {
            strict |= attribute.contains("deny_unknown_fields");
            renamed =
                attribute.split_once("rename = \"").and_then(|(_, rest)| rest.split_once('"')).map(|(name, _)| name);
            skipped = attribute.starts_with("skip");
        } else if let Some((_, name)) = line.split_once("struct ").filter(|_| line.ends_with('{')) {
            open = std::mem::take(&mut strict).then(|| name.trim_end_matches([' ', '{']).to_owned());
        } else if line == "}" {
            open = None;
        } else if let (Some(name), Some((field, _))) =
            (&open, line.split_once(": ").filter(|_| line.starts_with("pub")))
        {
            let field = field.rsplit(' ').next().unwrap_or(field);
            let key = renamed.take().map_or_else(|| camel(field), str::to_owned);
            if !std::mem::take(&mut skipped) {
                keys.push((name.clone(), key));
            }
        }
    }
    keys
}

fn camel(field: &str) -> String {
    let mut words = field.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |done, word| {
        let (initial, rest) = word.split_at(1.min(word.len()));
        done + &initial.to_uppercase() + rest
    })
}

/// The text with what stands between a table's markers replaced.
fn with_table(text: &str, name: &str, table: &str) -> String {
    let (begin, end) = (format!("<!-- {name} -->\n"), "<!-- end -->");
    let start = text.find(&begin).unwrap_or_else(|| panic!("README.md has no marker `<!-- {name} -->`")) + begin.len();
    let length = text[start..].find(end).unwrap_or_else(|| panic!("README.md: `<!-- {name} -->` has no end"));
    format!("{}{table}{}", &text[..start], &text[start + length..])
}

fn flags(command: Command) -> String {
    let mut table = "| flag | default | what |\n| --- | --- | --- |\n".to_owned();
    for argument in command.get_arguments().filter(|argument| !argument.is_hide_set()) {
        let Some(long) = argument.get_long().filter(|long| !["help", "version"].contains(long)) else { continue };
        let value = argument.get_value_names().filter(|_| argument.get_action().takes_values());
        let value = value.and_then(|names| names.first()).map(|name| format!(" {name}")).unwrap_or_default();
        let default = argument.get_default_values().first().map(|value| format!("`{}`", value.to_string_lossy()));
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let choices: Vec<_> =
            argument.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
        let choices = if choices.len() > 1 && argument.get_action().takes_values() {
            format!(" ({})", choices.join(", "))
        } else {
            String::new()
        };
        let _ = writeln!(table, "| `--{long}{value}` | {} | {help}{choices} |", default.unwrap_or_default());
    }
    table
}

fn agent_metrics() -> String {
    let row = |family: &families::Family| {
        let renamed = family.renamed.filter(|name| *name != family.name);
        let renamed = renamed.map(|name| format!("; with `--dcgm-names 4.6` `{name}`")).unwrap_or_default();
        format!("| `{}`{renamed} | {} | {} | {} |\n", family.name, family.kind.word(), family.unit, family.help)
    };
    // The agent's own are the last that a reader looks for, though the first on the page.
    let mut kinds: Vec<&str> = Vec::new();
    for labels in families::table().map(families::Family::labels) {
        if !kinds.contains(&labels) {
            kinds.push(labels);
        }
    }
    kinds.rotate_left(1);
    let table = |labels: &str| {
        let rows: String = families::table().filter(|family| family.labels() == labels).map(row).collect();
        format!("Labels: {labels}.\n\n| metric | type | unit | what |\n| --- | --- | --- | --- |\n{rows}\n")
    };
    let further: String = families::further().map(row).collect();
    let shown: String = kinds.into_iter().map(table).collect();
    format!(
        "{shown}Only where a counters CSV asks for them (`--collectors`).\n\n| metric | type | unit | what |\n| --- | --- | --- | --- |\n{further}\n"
    )
}

fn provider_metrics() -> String {
    let row = |metric: &metrics::Described| {
        let labels = metric.labels.join(" ");
        format!("| `{}` | {} | {labels} | {} |\n", metric.name, metric.kind, metric.help)
    };
    let rows: String = metrics::table().iter().map(row).collect();
    format!("| metric | type | labels | what |\n| --- | --- | --- | --- |\n{rows}")
}
