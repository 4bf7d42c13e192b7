//! Inputs for a parser, made from documents that it understands: most of them are still nearly one, so that what lies behind the first check is reached.

use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof};
use proptest::sample::{Index, select};

/// Longest input drawn at random: what is longer is found by changing real ones.
const RANDOM_MAX: usize = 192;
/// Changes of one document at most, and words of a salad.
const EDITS_MAX: usize = 5;
const WORDS_MAX: usize = 24;
/// Longest stretch that one change takes away or repeats, and how often.
const STRETCH_MAX: usize = 40;
const TIMES_MAX: usize = 70;

/// What parsers trip over, whatever they read.
const TRICKY: &[&[u8]] = &[
    b"\0", b"\xff", b"\xc3", b"\xed\xa0\x80", b"\xef\xbb\xbf", b"\n", b"\r\n", b"\t", b" ", b"\"", b"\\", b"'", b"{", b"}", b"[", b"]", b"(", b")", b"<",
    b":", b"::", b",", b";", b"/", b"-", b"_", b".", b"..", b"%", b"$", b"&a", b"*a", b"#", b"|", b"+", b"=", b"0", b"-1", b"-0", b"1e999", b"NaN",
    b"255", b"256", b"65536", b"4294967296", b"18446744073709551616", b"9999999999999999999999999999", b"0x7f", b"1_000", b"null", b"~", b"true",
    b"\\u0000", b"\\ud800", "é".as_bytes(), "漢".as_bytes(), "µs".as_bytes(), "\u{2028}".as_bytes(), "\u{202e}".as_bytes(),
    b"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
];

/// One change of a document.
#[derive(Clone, Debug)]
enum Edit {
    Byte(Index, u8),
    /// A word put in, over what is there or between.
    Word(Index, Vec<u8>, bool),
    Drop(Index, usize),
    Again(Index, usize, usize),
    /// The end of another document in place of one's own.
    Join(Index, Vec<u8>, Index),
    Cut(Index),
}

impl Edit {
    fn apply(self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        let place = |at: Index| at.index(len + 1);
        match self {
            Self::Byte(at, byte) => {
                if let Some(old) = bytes.get_mut(place(at)) {
                    *old = byte;
                }
            }
            Self::Word(at, word, over) => {
                let from = place(at);
                let to = if over { (from + word.len()).min(len) } else { from };
                bytes.splice(from..to, word);
            }
            Self::Drop(at, length) => drop(bytes.drain(place(at)..(place(at) + length).min(len))),
            Self::Again(at, length, times) => {
                let end = (place(at) + length).min(len);
                let again = bytes.get(place(at)..end).unwrap_or_default().repeat(times);
                bytes.splice(end..end, again);
            }
            Self::Join(at, other, from) => {
                bytes.truncate(place(at));
                bytes.extend(other.get(from.index(other.len() + 1)..).unwrap_or_default());
            }
            Self::Cut(at) => bytes.truncate(place(at)),
        }
    }
}

fn edit(real: Vec<Vec<u8>>, words: Vec<Vec<u8>>) -> impl Strategy<Value = Edit> {
    prop_oneof![
        2 => (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Edit::Byte(at, byte)),
        4 => (any::<Index>(), select(words), any::<bool>()).prop_map(|(at, word, over)| Edit::Word(at, word, over)),
        2 => (any::<Index>(), 1..STRETCH_MAX).prop_map(|(at, length)| Edit::Drop(at, length)),
        1 => (any::<Index>(), 1..STRETCH_MAX, 1..TIMES_MAX).prop_map(|(at, length, times)| Edit::Again(at, length, times)),
        1 => (any::<Index>(), select(real), any::<Index>()).prop_map(|(at, other, from)| Edit::Join(at, other, from)),
        1 => any::<Index>().prop_map(Edit::Cut),
    ]
}

/// The words of the documents, and what is tricky anywhere.
fn words(real: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let apart = |byte: &u8| !byte.is_ascii_alphanumeric() && *byte != b'_';
    let own = real.iter().flat_map(|text| text.split(apart)).filter(|word| !word.is_empty()).map(<[u8]>::to_vec);
    let mut all: Vec<Vec<u8>> = own.chain(TRICKY.iter().map(|word| word.to_vec())).collect();
    all.sort_unstable();
    all.dedup();
    all
}

/// Inputs like these documents.
pub(crate) fn like(real: &[Vec<u8>]) -> impl Strategy<Value = Vec<u8>> + use<> {
    let words = words(real);
    let salad = vec(select(words.clone()), 0..WORDS_MAX).prop_map(|words| words.concat());
    let edits = vec(edit(real.to_vec(), words), 0..EDITS_MAX);
    let changed = (select(real.to_vec()), edits).prop_map(|(mut bytes, edits)| {
        edits.into_iter().for_each(|edit| edit.apply(&mut bytes));
        bytes
    });
    prop_oneof![
        1 => vec(any::<u8>(), 0..RANDOM_MAX),
        2 => salad,
        7 => changed,
        1 => Just(Vec::new()),
    ]
}
