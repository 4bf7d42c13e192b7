//! The files of this repository, as the house rules see them: a path from its root, and a text.
//! Build output, caches and recorded data are not looked at.

use std::{fs, path::Path};

/// One file.
pub(crate) struct Source {
    /// From the repository's root, with forward slashes.
    pub(crate) path: String,
    /// All of it.
    pub(crate) text: String,
}

impl Source {
    pub(crate) fn is_rust(&self) -> bool {
        Path::new(&self.path).extension().is_some_and(|end| end == "rs")
    }

    /// A file of tests only; inline `mod tests` are cut off by `lines_of_code`.
    pub(crate) fn is_test(&self) -> bool {
        self.path.contains("/tests/") || self.path.ends_with("/tests.rs") || self.path.contains("/benches/")
    }

    /// Whether the path begins with one of these.
    pub(crate) fn is_under(&self, starts: &[&str]) -> bool {
        starts.iter().any(|start| self.path.starts_with(start))
    }

    /// Numbered lines without comments, up to an inline test module.
    pub(crate) fn lines_of_code(&self) -> impl Iterator<Item = (usize, &str)> {
        let code = |line: &&str| !line.trim_start().starts_with("//");
        let end = self.text.find("#[cfg(test)]\nmod tests").unwrap_or(self.text.len());
        let text = self.text.get(..end).unwrap_or(&self.text);
        (1..).zip(text.lines()).filter(move |(_, line)| code(line))
    }
}

/// Every Rust file that a person wrote.
pub(crate) fn every_rust_file() -> Vec<Source> {
    every_text_file().into_iter().filter(Source::is_rust).collect()
}

/// Every text that a person wrote: code, contracts, manifests, prose, settings.
pub(crate) fn every_text_file() -> Vec<Source> {
    let mut found = Vec::new();
    walk(&root(), "", &mut found);
    found.sort_by(|one, other| one.path.cmp(&other.path));
    found
}

/// One file, by its path from the root.
pub(crate) fn file(path: &str) -> Source {
    let text = fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("reading {path}: {error}"));
    Source { path: path.to_owned(), text }
}

/// The repository's root.
pub(crate) fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn walk(dir: &Path, prefix: &str, found: &mut Vec<Source>) {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("reading {}: {error}", dir.display()));
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = format!("{prefix}{name}");
        let skipped = ["target", ".git", "recordings", "Cargo.lock", "go.sum", "node_modules"].contains(&name.as_str());
        if skipped || path == "tests/rig/bin" || entry.file_type().is_ok_and(|kind| kind.is_symlink()) {
            continue;
        }
        if entry.path().is_dir() {
            walk(&entry.path(), &format!("{path}/"), found);
        } else if let Ok(text) = fs::read_to_string(entry.path()) {
            found.push(Source { path, text });
        }
    }
}
