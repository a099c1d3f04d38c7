//! Numbers as text, without the machinery of `core::fmt`: every instruction
//! counts on a host that emulates this kernel.

use alloc::vec::Vec;

/// Appends `value` in decimal.
pub fn push_decimal(out: &mut Vec<u8>, value: u64) {
    push_padded(out, value, 0, b' ');
}

/// Appends a negative or positive number in decimal.
pub fn push_signed(out: &mut Vec<u8>, value: i64) {
    if value < 0 {
        out.push(b'-');
    }
    push_decimal(out, value.unsigned_abs());
}

/// Appends `value` in decimal, with `pad` before it up to `width`.
pub fn push_padded(out: &mut Vec<u8>, mut value: u64, width: usize, pad: u8) {
    let mut digits = [0_u8; 20];
    let mut start = digits.len();
    loop {
        start -= 1;
        digits[start] = b'0' + digit(value % 10);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    let length = digits.len() - start;
    out.resize(out.len() + width.saturating_sub(length), pad);
    out.extend_from_slice(&digits[start..]);
}

/// Appends `value` in hexadecimal with at least `width` digits.
pub fn push_hex(out: &mut Vec<u8>, value: u64, width: usize) {
    let length = (64 - value.leading_zeros()).div_ceil(4).max(1) as usize;
    let length = length.max(width);
    for place in (0..length).rev() {
        let nibble = if place < 16 { digit(value >> (place * 4) & 0xf) } else { 0 };
        out.push(if nibble < 10 { b'0' + nibble } else { b'a' + nibble - 10 });
    }
}

/// A number below 256.
const fn digit(value: u64) -> u8 {
    (value & 0xff) as u8
}

/// The decimal number that `text` is, if it is one that fits.
#[must_use]
pub fn parse_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || text.len() > 20 {
        return None;
    }
    text.iter().try_fold(0_u64, |value, byte| {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        value.checked_mul(10)?.checked_add(digit.into())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::format;

    #[test]
    fn numbers_look_as_core_formats_them() {
        for value in [0, 1, 9, 10, 99, 12_345, u64::from(u32::MAX), u64::MAX] {
            let mut text = Vec::new();
            push_decimal(&mut text, value);
            text.push(b' ');
            push_padded(&mut text, value, 8, b' ');
            text.push(b' ');
            push_hex(&mut text, value, 8);
            assert_eq!(text, format!("{value} {value:8} {value:08x}").as_bytes());
            assert_eq!(parse_decimal(format!("{value}").as_bytes()), Some(value));
        }
        let mut text = Vec::new();
        push_signed(&mut text, i64::MIN);
        assert_eq!(text, format!("{}", i64::MIN).as_bytes());
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-1", "1x", "18446744073709551616", "99999999999999999999999"] {
            assert_eq!(parse_decimal(text.as_bytes()), None, "{text}");
        }
    }
}
