//! A client as Prometheus is one: a kept connection, gzip when asked for, and a strict reading of the text format.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context as _, bail};

/// Longest wait for any answer, and largest answer.
const PATIENCE: Duration = Duration::from_secs(60);
const BODY_MAX: u64 = 64 << 20;

/// A connection to an HTTP server, made anew when the server closes it.
#[derive(Debug)]
pub struct Scraper {
    address: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

/// An answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// HTTP status.
    pub status: u16,
    /// Names in lower case.
    pub headers: BTreeMap<String, String>,
    /// As sent: still compressed where it was.
    pub body: Vec<u8>,
}

impl Scraper {
    /// Connects.
    pub fn connect(address: SocketAddr) -> anyhow::Result<Self> {
        Ok(Self { address, connection: Some(self::connection(address)?) })
    }

    /// Asks for a path, with further header lines.
    pub fn get(&mut self, path: &str, headers: &[&str]) -> anyhow::Result<Answer> {
        let mut connection = match self.connection.take() {
            Some(connection) => connection,
            None => self::connection(self.address)?,
        };
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n{lines}\r\n");
        connection.get_mut().write_all(request.as_bytes()).context("send the request")?;
        let first = line(&mut connection)?;
        let code = first.split(' ').nth(1).and_then(|code| code.parse().ok());
        let status = code.with_context(|| format!("status line {first:?}"))?;
        let mut headers = BTreeMap::new();
        loop {
            let line = line(&mut connection)?;
            let Some((name, value)) = line.split_once(':') else { break };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let closes = first.starts_with("HTTP/1.0") || headers.get("connection").is_some_and(|value| value == "close");
        let mut body = Vec::new();
        match headers.get("content-length").and_then(|length| length.parse::<u64>().ok()) {
            Some(length) if length <= BODY_MAX => {
                (&mut connection).take(length).read_to_end(&mut body).context("read the body")?;
            }
            Some(length) => bail!("a body of {length} bytes"),
            None if closes => {
                (&mut connection).take(BODY_MAX).read_to_end(&mut body).context("read the body")?;
            }
            None => chunks(&mut connection, &mut body)?,
        }
        self.connection = Some(connection).filter(|_| !closes);
        Ok(Answer { status, headers, body })
    }
}

fn connection(address: SocketAddr) -> anyhow::Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE).with_context(|| format!("connect to {address}"))?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_nodelay(true)?;
    Ok(BufReader::new(stream))
}

fn chunks(connection: &mut BufReader<TcpStream>, body: &mut Vec<u8>) -> anyhow::Result<()> {
    loop {
        let size = line(connection)?;
        let length = u64::from_str_radix(&size, 16).with_context(|| format!("chunk length {size:?}"))?;
        connection.take(length.min(BODY_MAX)).read_to_end(body)?;
        line(connection)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn line(connection: &mut BufReader<TcpStream>) -> anyhow::Result<String> {
    let mut line = String::new();
    connection.read_line(&mut line).context("read a line of the answer")?;
    if line.is_empty() {
        bail!("the server closed the connection");
    }
    Ok(line.trim_end().to_owned())
}

impl Answer {
    /// The body as text, decompressed.
    pub fn text(&self) -> anyhow::Result<String> {
        let mut text = String::new();
        if self.headers.get("content-encoding").is_some_and(|encoding| encoding == "gzip") {
            flate2::read::GzDecoder::new(self.body.as_slice()).read_to_string(&mut text).context("gunzip")?;
        } else {
            text = String::from_utf8(self.body.clone()).context("a body that is not UTF-8")?;
        }
        Ok(text)
    }
}

/// One series of a page.
#[derive(Debug, Clone, PartialEq)]
pub struct Series {
    /// Name of the metric.
    pub name: String,
    /// Labels by name.
    pub labels: BTreeMap<String, String>,
    /// Value.
    pub value: f64,
}

/// A page of metrics, read strictly.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// In the order of the page.
    pub series: Vec<Series>,
    /// Name → type, as `# TYPE` says.
    pub types: BTreeMap<String, String>,
}

impl Page {
    /// Reads text format 0.0.4. Anything malformed, doubled or without a type is an error.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let mut page = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').with_context(|| line.to_owned())?;
                if page.types.insert(name.to_owned(), kind.to_owned()).is_some() {
                    bail!("two types: {line}");
                }
            } else if !line.starts_with('#') && !line.is_empty() {
                let series = series(line).with_context(|| line.to_owned())?;
                if !page.types.contains_key(&series.name) {
                    bail!("no type before {line}");
                }
                page.series.push(series);
            }
        }
        let mut keys: Vec<_> = page.series.iter().map(|series| (&series.name, &series.labels)).collect();
        keys.sort_unstable();
        if let Some(pair) = keys.windows(2).find(|pair| pair.first() == pair.last()) {
            bail!("a series twice: {pair:?}");
        }
        Ok(page)
    }

    /// Every series of a name whose labels include these.
    pub fn select(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Series> {
        let has = |series: &&Series| {
            let same = |(label, value): &(&str, &str)| series.labels.get(*label).map_or("", String::as_str) == *value;
            series.name == name && labels.iter().all(same)
        };
        self.series.iter().filter(has).collect()
    }

    /// The value of the one series; `None` when there is none or several.
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        match self.select(name, labels).as_slice() {
            [series] => Some(series.value),
            _ => None,
        }
    }
}

fn series(line: &str) -> anyhow::Result<Series> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    let mut labels = BTreeMap::new();
    if let Some(inside) = rest.strip_prefix('{') {
        rest = inside;
        while !rest.starts_with('}') {
            let (label, after) = rest.split_once("=\"").context("a label without a value")?;
            let (value, after) = quoted(after)?;
            if labels.insert(label.to_owned(), value).is_some() {
                bail!("label {label} twice");
            }
            rest = after.strip_prefix(',').unwrap_or(after);
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    let value = rest.trim_start().parse().context("the value")?;
    Ok(Series { name: name.to_owned(), labels, value })
}

/// A label's value up to its closing quote, and what follows.
fn quoted(text: &str) -> anyhow::Result<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((value, text.get(at + 1..).unwrap_or_default())),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, escaped @ ('\\' | '"'))) => value.push(escaped),
                other => bail!("escape {other:?}"),
            },
            plain => value.push(plain),
        }
    }
    bail!("no closing quote")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_read_strictly() {
        let page = Page::parse("# HELP a x\n# TYPE a gauge\na{b=\"c\\\"\\\\\\n,\",d=\"\"} 1.5\na 2\n").unwrap();
        assert_eq!(page.value("a", &[("b", "c\"\\\n,")]), Some(1.5));
        assert_eq!(page.value("a", &[("b", "")]), Some(2.0));
        for bad in [
            "a 1",
            "# TYPE a gauge\na{b=\"c} 1",
            "# TYPE a gauge\na x",
            "# TYPE a gauge\na 1\na 1",
            "# TYPE a gauge\na{b} 1",
        ] {
            assert!(Page::parse(bad).is_err(), "{bad}");
        }
    }
}
