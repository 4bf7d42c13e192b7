//! What a client accepts, out of its headers: the format of the page, and whether it may come compressed.
//! What it does not say, or says in a way we do not understand, gets the text format, plain.

use crate::exposition::forms::Format;

/// The format for an `Accept` header. OpenMetrics has to be asked for by name: a wildcard gets the text.
#[must_use]
pub fn format(accepts: &str) -> Format {
    let (mut text, mut open) = (0.0_f32, 0.0_f32);
    for (range, weight, version) in ranges(accepts) {
        let known = matches!(version, None | Some("1.0.0" | "0.0.1"));
        match range.to_ascii_lowercase().as_str() {
            "application/openmetrics-text" if known => open = open.max(weight),
            "text/plain" | "text/*" | "*/*" => text = text.max(weight),
            _ => {}
        }
    }
    if open > 0.0 && open >= text { Format::OpenMetrics } else { Format::Text }
}

/// `gzip` named and not refused with `q=0`.
#[must_use]
pub fn gzip(accepts: &str) -> bool {
    ranges(accepts).any(|(coding, weight, _)| coding.eq_ignore_ascii_case("gzip") && weight > 0.0)
}

/// Each range with its weight and its version.
fn ranges(header: &str) -> impl Iterator<Item = (&str, f32, Option<&str>)> {
    header.split(',').map(|range| {
        let mut parts = range.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let (mut weight, mut version) = (1.0, None);
        for (parameter, value) in parts.filter_map(|part| part.split_once('=')) {
            match parameter.trim().to_ascii_lowercase().as_str() {
                "q" => weight = value.trim().parse::<f32>().map_or(1.0, |q| q.clamp(0.0, 1.0)),
                "version" => version = Some(value.trim().trim_matches('"')),
                _ => {}
            }
        }
        (name, weight, version)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gzip_is_sent_to_those_who_want_it() {
        for (accepts, expect) in [
            ("gzip", true),
            ("deflate, gzip;q=1.0, *;q=0.5", true),
            ("GZIP", true),
            ("gzip;q=0", false),
            ("gzip; Q=0.0", false),
            ("identity", false),
            ("", false),
            ("xgzip", false),
        ] {
            assert_eq!(gzip(accepts), expect, "{accepts}");
        }
    }

    #[test]
    fn openmetrics_is_sent_to_those_who_prefer_it() {
        for (accepts, expect) in [
            ("", Format::Text),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            ("application/openmetrics-text", Format::OpenMetrics),
            // Prometheus 2.42, and 3 with its protobuf first.
            (
                "application/openmetrics-text;version=1.0.0,application/openmetrics-text;version=0.0.1;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            (
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited;q=0.6,application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,text/plain;version=0.0.4;q=0.2,*/*;q=0.1",
                Format::OpenMetrics,
            ),
            ("application/openmetrics-text;version=2.0.0,text/plain;q=0.1", Format::Text),
            ("application/openmetrics-text;q=0.1,text/plain;q=0.9", Format::Text),
            ("application/openmetrics-text;q=0", Format::Text),
            ("text/html,application/xhtml+xml,*/*;q=0.8", Format::Text),
        ] {
            assert_eq!(format(accepts), expect, "{accepts}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_header_is_read_without_a_panic(header in "\\PC*") {
            let _any = (format(&header), gzip(&header));
        }
    }
}
