//! Kubernetes quantities (`500m`, `16Gi`, `1e3`), read into whole integers by Kubernetes' own grammar and rounding, and written back.
//! Integers only: nothing here can overflow, lose a digit or panic, whatever the text.
//!
//! ```text
//! quantity = [+-] digits [suffix]          digits: 5  5.  .5  0.5 (of any length)
//! suffix   = n u m "" k M G T P E          powers of ten, 10^-9 .. 10^18
//!          | Ki Mi Gi Ti Pi Ei             powers of two, 2^10 .. 2^60
//!          | (e|E) [+-] digits             any power of ten
//! ```

use std::str::FromStr;

/// Why a text is not a quantity that fits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuantityError {
    /// Nothing was there to read.
    #[error("an empty quantity: write a number with an optional suffix, as in `500m`, `8` or `16Gi`")]
    Empty,
    /// The text does not start with a number.
    #[error("`{text}` is not a quantity: it must start with a decimal number, as in `500m`, `8`, `0.5` or `16Gi`")]
    NotANumber {
        /// What was read, cut to a readable length.
        text: String,
    },
    /// What follows the number is not a suffix that Kubernetes knows.
    #[error(
        "`{text}` is not a quantity: the suffix `{suffix}` is unknown (n u m k M G T P E, Ki Mi Gi Ti Pi Ei, or an exponent such as e3; case matters)"
    )]
    UnknownSuffix {
        /// What was read, cut to a readable length.
        text: String,
        /// The part of it that should have been a suffix.
        suffix: String,
    },
    /// A quantity, but one whose value does not fit into 64 bits. (Kubernetes caps some of these at 2^63 - 1 and reads
    /// others as 0; a machine of that size is a mistake in either case, and here it is named.)
    #[error("`{text}` is out of range: its value must lie between -2^63 and 2^63 - 1")]
    OutOfRange {
        /// What was read, cut to a readable length.
        text: String,
    },
}

/// The whole units of a quantity, with any fraction rounded up away from zero, as Kubernetes' `Value()` does: `1500m` is 2.
///
/// # Errors
/// When the text is not a quantity, or its value does not fit into an `i64`.
pub fn value(text: &str) -> Result<i64, QuantityError> {
    Parts::parse(text)?.scaled(1).ok_or_else(|| QuantityError::OutOfRange { text: shown(text) })
}

/// The thousandths of a quantity, with any fraction rounded up away from zero, as Kubernetes' `MilliValue()` does: `0.5` is 500.
///
/// # Errors
/// When the text is not a quantity, or its value in thousandths does not fit into an `i64`.
pub fn milli_value(text: &str) -> Result<i64, QuantityError> {
    Parts::parse(text)?.scaled(1000).ok_or_else(|| QuantityError::OutOfRange { text: shown(text) })
}

/// Bytes in canonical form, with the largest power-of-two suffix that keeps the number whole: 17179869184 is `16Gi`, 1000 is `1000`.
#[must_use]
pub fn format_bytes(bytes: i64) -> String {
    shortest(bytes, 1024, &["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"])
}

/// Thousandths in canonical form, with the largest power-of-ten suffix that keeps the number whole: 7910 is `7910m`, 8000 is `8`.
#[must_use]
pub fn format_milli(milli: i64) -> String {
    shortest(milli, 1000, &["m", "", "k", "M", "G", "T", "P"])
}

/// Whole units (pods, GPUs) in canonical form: 110 is `110`, 2000 is `2k`.
#[must_use]
pub fn format_count(count: i64) -> String {
    shortest(count, 1000, &["", "k", "M", "G", "T", "P", "E"])
}

fn shortest(mut number: i64, step: i64, suffixes: &[&str]) -> String {
    if number == 0 {
        return "0".to_owned();
    }
    let mut suffixes = suffixes.iter();
    let mut suffix = suffixes.next();
    while number % step == 0
        && let Some(larger) = suffixes.next()
    {
        number /= step;
        suffix = Some(larger);
    }
    format!("{number}{}", suffix.unwrap_or(&""))
}

/// A quantity taken apart: sign, digits on both sides of the point, and what the suffix multiplies them by.
struct Parts<'a> {
    negative: bool,
    whole: &'a [u8],
    fraction: &'a [u8],
    /// Power of ten.
    exponent: i64,
    /// Power of two.
    shift: u32,
}

impl<'a> Parts<'a> {
    fn parse(text: &'a str) -> Result<Self, QuantityError> {
        if text.is_empty() {
            return Err(QuantityError::Empty);
        }
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, text.get(1..).unwrap_or_default()),
            Some(b'+') => (false, text.get(1..).unwrap_or_default()),
            _ => (false, text),
        };
        let (whole, rest) = digits(unsigned);
        let (fraction, suffix) = rest.strip_prefix('.').map_or(("", rest), digits);
        if whole.is_empty() && fraction.is_empty() {
            return Err(QuantityError::NotANumber { text: shown(text) });
        }
        let (exponent, shift) = multiplier(suffix)
            .ok_or_else(|| QuantityError::UnknownSuffix { text: shown(text), suffix: shown(suffix) })?;
        Ok(Self { negative, whole: whole.as_bytes(), fraction: fraction.as_bytes(), exponent, shift })
    }

    /// The value times `times`, rounded away from zero; `None` if it does not fit.
    fn scaled(&self, times: u128) -> Option<i64> {
        // At most 2^60 x 1000 < 2^70, so that a digit more never overflows.
        let scale = times << self.shift;
        let len = self.whole.len() + self.fraction.len();
        // Where the decimal point falls once the exponent is applied; left of the first digit if negative.
        let point = i64::try_from(self.whole.len()).ok()?.checked_add(self.exponent)?;
        let cut = usize::try_from(point).unwrap_or(0).min(len);
        let mut whole: u128 = 0;
        for digit in self.digits().take(cut) {
            whole = whole.checked_mul(10)?.checked_add(digit)?;
        }
        // Digits that are not written down: an exponent beyond the last of them.
        for _ in i64::try_from(len).ok()?..point {
            if whole == 0 {
                break;
            }
            whole = whole.checked_mul(10)?;
        }
        let zeros = point.checked_neg().and_then(|zeros| usize::try_from(zeros).ok()).unwrap_or(0);
        let magnitude = whole.checked_mul(scale)?.checked_add(self.fraction_scaled(cut, zeros, scale))?;
        let signed = i128::try_from(magnitude).ok()?;
        i64::try_from(if self.negative { -signed } else { signed }).ok()
    }

    /// The digits from `cut` on, as the fraction 0.(`zeros` times 0)ddd…, times `scale`, rounded up.
    ///
    /// Horner's rule from the last digit to the first keeps every step small: nested floors are the floor of the whole, and
    /// a remainder anywhere means that the exact product was not an integer.
    fn fraction_scaled(&self, cut: usize, zeros: usize, scale: u128) -> u128 {
        let mut product: u128 = 0;
        let mut inexact = false;
        for digit in self.digits().skip(cut).rev() {
            let next = digit * scale + product;
            inexact |= !next.is_multiple_of(10);
            product = next / 10;
        }
        for _ in 0..zeros {
            if product == 0 {
                break;
            }
            inexact |= !product.is_multiple_of(10);
            product /= 10;
        }
        product + u128::from(inexact)
    }

    fn digits(&self) -> impl ExactSizeIterator<Item = u128> + DoubleEndedIterator {
        let (whole, fraction) = (self.whole, self.fraction);
        (0..whole.len() + fraction.len())
            .map(move |at| whole.get(at).or_else(|| fraction.get(at - whole.len())).copied().unwrap_or(b'0'))
            .map(|byte| u128::from(byte.wrapping_sub(b'0')))
    }
}

/// The leading ASCII digits, and what follows them.
fn digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// What a suffix multiplies by: a power of ten and a power of two.
fn multiplier(suffix: &str) -> Option<(i64, u32)> {
    Some(match suffix {
        "n" => (-9, 0),
        "u" => (-6, 0),
        "m" => (-3, 0),
        "" => (0, 0),
        "k" => (3, 0),
        "M" => (6, 0),
        "G" => (9, 0),
        "T" => (12, 0),
        "P" => (15, 0),
        "E" => (18, 0),
        "Ki" => (0, 10),
        "Mi" => (0, 20),
        "Gi" => (0, 30),
        "Ti" => (0, 40),
        "Pi" => (0, 50),
        "Ei" => (0, 60),
        _ => (i64::from_str(suffix.strip_prefix(['e', 'E'])?).ok()?, 0),
    })
}

/// Texts come from other people's manifests: an error quotes at most this many characters of one.
const SHOWN: usize = 64;

fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests;
