//! Where a key stands in a YAML text: enough for messages, by indentation alone (keys inside `{…}` count as their line's).

/// Every block key with its line, counted from 1, and its path: `provider.tls.cert`.
fn keys(text: &str) -> Vec<(usize, String)> {
    let mut open: Vec<(usize, &str)> = Vec::new();
    let mut keys = Vec::new();
    for (line, content) in text.lines().enumerate() {
        let bare = content.trim_start();
        let indent = content.len() - bare.len();
        let Some((key, _)) = bare.split_once(':').filter(|_| !bare.starts_with('#')) else { continue };
        open.retain(|(outer, _)| *outer < indent);
        open.push((indent, key.trim_matches(['"', '\'', '-', ' '])));
        keys.push((line + 1, open.iter().map(|(_, key)| *key).collect::<Vec<_>>().join(".")));
    }
    keys
}

/// The path of the key on or before a line; the empty path when there is none.
pub(super) fn path_at(text: &str, line: usize) -> String {
    keys(text).into_iter().rev().find(|(at, _)| *at <= line).map(|(_, path)| path).unwrap_or_default()
}

/// The line of a path, or of the nearest key above it that is there; 1 when none is.
pub(super) fn line_of(text: &str, path: &str) -> usize {
    let keys = keys(text);
    let mut path = path;
    loop {
        if let Some((line, _)) = keys.iter().find(|(_, known)| known == path) {
            return *line;
        }
        match path.rsplit_once('.') {
            Some((outer, _)) => path = outer,
            None => return 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "a: 1\n# b: 2\nprovider:\n  listen: x\n  tls: {cert: c}\nhttp:\n  listen: y\n";

    #[test]
    fn a_line_has_a_path_and_a_path_has_a_line() {
        for (line, path) in [(1, "a"), (2, "a"), (4, "provider.listen"), (5, "provider.tls"), (7, "http.listen")] {
            assert_eq!(path_at(TEXT, line), path, "{line}");
        }
        for (path, line) in [("provider.listen", 4), ("provider.tls.cert", 5), ("http", 6), ("nowhere.at.all", 1)] {
            assert_eq!(line_of(TEXT, path), line, "{path}");
        }
    }
}
