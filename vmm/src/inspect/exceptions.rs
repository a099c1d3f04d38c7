//! Exceptions by name, and their error codes in words.

/// Name and meaning of an exception's vector.
#[must_use]
pub const fn name(vector: u8) -> &'static str {
    match vector {
        0 => "#DE, division by zero or overflow",
        1 => "#DB, debug",
        2 => "non-maskable interrupt",
        3 => "#BP, breakpoint",
        4 => "#OF, overflow",
        5 => "#BR, bound range exceeded",
        6 => "#UD, invalid instruction",
        7 => "#NM, no floating-point unit",
        8 => "#DF, double fault",
        10 => "#TS, invalid task state",
        11 => "#NP, segment not present",
        12 => "#SS, stack fault",
        13 => "#GP, general protection",
        14 => "#PF, page fault",
        16 => "#MF, floating-point error",
        17 => "#AC, misaligned access",
        18 => "#MC, machine check",
        19 => "#XM, SIMD floating-point error",
        20 => "#VE, virtualization",
        21 => "#CP, control protection",
        28..=30 => "an exception for hypervisors",
        9 | 15 | 22..=27 | 31 => "a reserved exception",
        32.. => "an interrupt",
    }
}

/// Vector of the page fault.
pub const PAGE_FAULT: u8 = 14;
/// Vector of the double fault.
pub const DOUBLE_FAULT: u8 = 8;

/// A page fault's error code: `write by ring 3 to a page that is not present`.
#[must_use]
pub fn describe_page_fault(error_code: u64) -> String {
    let bit = |number: u32| error_code & (1 << number) != 0;
    let access = match (bit(4), bit(1)) {
        (true, _) => "instruction fetch",
        (false, true) => "write",
        (false, false) => "read",
    };
    let ring = if bit(2) { "ring 3" } else { "ring 0" };
    let why = match (bit(3), bit(0)) {
        (true, _) => "through an entry with reserved bits set",
        (false, true) => "that the page's rights forbid",
        (false, false) => "of a page that is not present",
    };
    format!("{access} by {ring} {why}")
}

/// The error code of an exception in words, where it says anything.
#[must_use]
pub fn describe_error_code(vector: u8, error_code: u64) -> Option<String> {
    match vector {
        PAGE_FAULT => Some(describe_page_fault(error_code)),
        10..=13 if error_code != 0 => {
            let table = match error_code >> 1 & 3 {
                1 | 3 => "IDT vector",
                2 => "LDT selector",
                _ => "GDT selector",
            };
            let number = match error_code >> 1 & 3 {
                1 | 3 => error_code >> 3 & 0xff,
                _ => error_code & 0xfff8,
            };
            Some(format!("about {table} {number:#x}"))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn page_fault_codes_read_as_sentences() {
        assert_eq!(describe_page_fault(0x6), "write by ring 3 of a page that is not present");
        assert_eq!(
            describe_page_fault(0x15),
            "instruction fetch by ring 3 that the page's rights forbid"
        );
        assert_eq!(
            describe_page_fault(0x9),
            "read by ring 0 through an entry with reserved bits set"
        );
    }

    #[test]
    fn selectors_are_named_by_their_table() {
        assert_eq!(describe_error_code(13, 0x72).as_deref(), Some("about IDT vector 0xe"));
        assert_eq!(describe_error_code(11, 0x28).as_deref(), Some("about GDT selector 0x28"));
        assert_eq!(describe_error_code(13, 0), None);
        assert_eq!(describe_error_code(6, 1), None);
    }
}
