//! The page in the forms that readers ask for: text or OpenMetrics, plain or compressed. Made by the first reader who wants one, and kept with the page.
//! OpenMetrics is made from the text, line by line: names, labels and values are the same bytes.

use std::io::{self, Write};
use std::sync::OnceLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;

/// A format that Prometheus reads.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Format {
    /// Prometheus text 0.0.4.
    #[default]
    Text,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// `Content-Type` of a page in this format.
    #[must_use]
    pub fn content_type(self) -> &'static str {
        match self {
            Format::Text => "text/plain; version=0.0.4; charset=utf-8",
            Format::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        }
    }
}

/// One page in all its forms.
#[derive(Debug, Default)]
pub struct Forms {
    text: Bytes,
    made: [OnceLock<Bytes>; 3],
}

impl Forms {
    /// From the text format.
    #[must_use]
    pub fn new(text: Bytes) -> Self {
        Self { text, made: Default::default() }
    }

    /// The page in a form.
    #[must_use]
    pub fn get(&self, format: Format, compressed: bool) -> &Bytes {
        let [packed, open, open_packed] = &self.made;
        match (format, compressed) {
            (Format::Text, false) => &self.text,
            (Format::Text, true) => packed.get_or_init(|| gzip(&self.text)),
            (Format::OpenMetrics, false) => open.get_or_init(|| plain(&self.text)),
            (Format::OpenMetrics, true) => {
                open_packed.get_or_init(|| gzip_of(self.text.len(), |to| openmetrics(&self.text, to)))
            }
        }
    }
}

/// The fastest level: the page is small, and time at the node is worth more than bytes on its network.
#[must_use]
pub fn gzip(page: &[u8]) -> Bytes {
    gzip_of(page.len(), |to| to.write_all(page))
}

fn gzip_of(size: usize, write: impl FnOnce(&mut GzEncoder<Vec<u8>>) -> io::Result<()>) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::with_capacity(size / 8), Compression::fast());
    // Writing to memory does not fail.
    let _written = write(&mut encoder);
    encoder.finish().unwrap_or_default().into()
}

fn plain(text: &[u8]) -> Bytes {
    let mut page = Vec::with_capacity(text.len() + 16);
    // Writing to memory does not fail.
    let _written = openmetrics(text, &mut page);
    page.into()
}

/// A counter's family is named without `_total` here, quotes in help are escaped, and the end is marked. A counter under a foreign name
/// without `_total` (`DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION`) keeps its name, and so has to be of type unknown.
fn openmetrics(text: &[u8], page: &mut impl Write) -> io::Result<()> {
    let mut help: Option<&[u8]> = None;
    for line in text.split_inclusive(|byte| *byte == b'\n') {
        if let Some(rest) = line.strip_prefix(b"# HELP ") {
            help = Some(rest);
        } else if let Some(rest) = line.strip_prefix(b"# TYPE ") {
            page.write_all(&declaration(rest, help.take()))?;
        } else {
            page.write_all(line)?;
        }
    }
    page.write_all(b"# EOF\n")
}

fn declaration(declaration: &[u8], help: Option<&[u8]>) -> Vec<u8> {
    let mut page = Vec::new();
    let (name, kind) = words(declaration);
    let family = if kind == b"counter\n" { name.strip_suffix(b"_total") } else { Some(name) };
    let kind = if family.is_none() { b"unknown\n" } else { kind };
    let family = family.unwrap_or(name);
    if let Some(help) = help {
        page.extend_from_slice(b"# HELP ");
        page.extend_from_slice(family);
        page.push(b' ');
        for byte in words(help).1 {
            if *byte == b'"' {
                page.push(b'\\');
            }
            page.push(*byte);
        }
    }
    page.extend_from_slice(b"# TYPE ");
    page.extend_from_slice(family);
    page.push(b' ');
    page.extend_from_slice(kind);
    page
}

/// The first word, and what follows it.
fn words(line: &[u8]) -> (&[u8], &[u8]) {
    let space = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let (first, rest) = line.split_at(space);
    (first, rest.strip_prefix(b" ").unwrap_or(rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn openmetrics_names_counters_without_total_and_ends() {
        let text = "# HELP a_total Some \"x\" \\\\ y.\n# TYPE a_total counter\na_total{b=\"# TYPE\"} 1\n\
                    # HELP g A gauge.\n# TYPE g gauge\ng 2.5\n\
                    # HELP DCGM_ENERGY In mJ.\n# TYPE DCGM_ENERGY counter\nDCGM_ENERGY 3\n";
        let expect = "# HELP a Some \\\"x\\\" \\\\ y.\n# TYPE a counter\na_total{b=\"# TYPE\"} 1\n\
                      # HELP g A gauge.\n# TYPE g gauge\ng 2.5\n\
                      # HELP DCGM_ENERGY In mJ.\n# TYPE DCGM_ENERGY unknown\nDCGM_ENERGY 3\n# EOF\n";
        assert_eq!(plain(text.as_bytes()), expect);
        assert_eq!(plain(b""), "# EOF\n");
    }

    #[test]
    fn each_form_is_the_same_page() {
        use std::io::Read as _;
        let forms = Forms::new("# TYPE g gauge\ng 1\n".into());
        for format in [Format::Text, Format::OpenMetrics] {
            let mut plain = Vec::new();
            flate2::read::GzDecoder::new(&**forms.get(format, true)).read_to_end(&mut plain).unwrap();
            assert_eq!(plain, **forms.get(format, false));
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_is_converted_without_a_panic(text in "(# (HELP|TYPE) ?[a-z_]{0,8} ?[a-z\"]{0,8}\n?){0,6}") {
            assert!(plain(text.as_bytes()).ends_with(b"# EOF\n"));
        }
    }
}
