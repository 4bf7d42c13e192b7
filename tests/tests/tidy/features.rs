//! The list of what is asked of a GPU exporter names a test for each row, and every test that names a row is in it.

use std::collections::BTreeMap;

use crate::source::{Source, every_rust_file, file};

const LIST: &str = "tests/features.md";
/// Rows of the list as others number them, and those that are no matter of NVML's.
const ROWS: u32 = 66;
const NOT_OURS: [u32; 3] = [43, 45, 65];

/// Number -> the tests that it names; without one it says that it is not built.
fn rows() -> BTreeMap<u32, Vec<String>> {
    let text = file(LIST).text;
    let mut rows = BTreeMap::new();
    for line in
        text.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| #") && !line.starts_with("| -"))
    {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let [number, _, tests] = cells[..] else { panic!("{LIST}: three cells, please: {line}") };
        let tests: Vec<String> = tests.split('`').skip(1).step_by(2).map(str::to_owned).collect();
        assert!(!tests.is_empty() || (number.ends_with('*') && line.contains("not built")), "no test: {line}");
        let number = number.trim_end_matches('*').parse().unwrap_or_else(|_| panic!("no number: {line}"));
        assert!(rows.insert(number, tests).is_none(), "{LIST}: row {number} twice");
    }
    rows
}

#[test]
fn every_feature_has_the_tests_that_its_row_names() {
    let (rows, sources) = (rows(), every_rust_file());
    let expected: Vec<u32> = (1..=ROWS).filter(|number| !NOT_OURS.contains(number)).collect();
    assert_eq!(rows.keys().copied().collect::<Vec<_>>(), expected);
    let mut lost = Vec::new();
    for test in rows.values().flatten() {
        let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
        let module = module.trim_end_matches("::tests").rsplit("::").next().unwrap_or_default();
        let declares = |source: &&Source| source.text.contains(&format!("fn {name}("));
        let lies = |source: &Source| {
            source.path.contains(&format!("/{module}.rs")) || source.path.contains(&format!("/{module}/"))
        };
        if !sources.iter().filter(declares).any(|source| module.is_empty() || lies(source)) {
            lost.push(test);
        }
    }
    assert!(lost.is_empty(), "{LIST} names tests that are not there: {lost:#?}");
}

#[test]
fn every_test_of_a_feature_is_in_its_row() {
    let rows = rows();
    let mut stray = Vec::new();
    for source in every_rust_file() {
        for named in source.text.split("fn feature_").skip(1) {
            let name = format!("feature_{}", named.split('(').next().unwrap_or_default());
            let Some(number) = name.split('_').nth(1).and_then(|number| number.parse().ok()) else { continue };
            let listed = rows.get(&number).is_some_and(|tests| tests.iter().any(|test| test.ends_with(&name)));
            if !listed {
                stray.push(format!("{}: {name}", source.path));
            }
        }
    }
    assert!(stray.is_empty(), "{LIST} does not name: {stray:#?}");
}
