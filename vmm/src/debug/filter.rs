//! Which faults are meant: of a process, of some kinds, in a range of addresses.

use std::ops::Range;

use pagelab_abi::event::{EVENT_FAULT, Event};
use pagelab_abi::fault::FaultKind;

/// Every kind, a bit each.
pub const ALL_KINDS: u32 = (1 << pagelab_abi::fault::FAULT_KINDS) - 1;

/// Which events are meant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultFilter {
    /// Of this process only.
    pub pid: Option<u32>,
    /// Kinds of fault, a bit each.
    pub kinds: u32,
    /// At these addresses only.
    pub range: Option<Range<u64>>,
    /// Whether events that are no faults are meant as well.
    pub others: bool,
}

impl Default for FaultFilter {
    fn default() -> Self {
        Self { pid: None, kinds: ALL_KINDS, range: None, others: true }
    }
}

impl FaultFilter {
    /// Whether `event` is meant.
    #[must_use]
    pub fn matches(&self, event: &Event) -> bool {
        if self.pid.is_some_and(|pid| pid != event.pid) {
            return false;
        }
        if event.class != EVENT_FAULT {
            return self.others;
        }
        let kind = self.kinds.checked_shr(event.kind.into()).unwrap_or(0) & 1 != 0;
        kind && self.range.as_ref().is_none_or(|range| range.contains(&event.address))
    }
}

/// The kind that a name means, however its words are joined.
#[must_use]
pub fn kind_by_name(name: &str) -> Option<FaultKind> {
    let plain = |text: &str| -> String {
        text.chars().filter(char::is_ascii_alphanumeric).collect::<String>().to_lowercase()
    };
    let wanted = plain(name);
    FaultKind::ALL.into_iter().find(|kind| plain(kind.name()) == wanted)
}

/// The names of kinds, a bit each.
#[must_use]
pub fn kind_names(kinds: u32) -> Vec<&'static str> {
    let wanted = FaultKind::ALL.into_iter().filter(|kind| kinds >> *kind as u32 & 1 != 0);
    wanted.map(FaultKind::name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(kind: FaultKind, pid: u32, address: u64) -> Event {
        Event { class: EVENT_FAULT, kind: kind as u8, pid, address, ..Event::default() }
    }

    #[test]
    fn each_condition_counts() {
        let event = fault(FaultKind::CowCopy, 3, 0x5000);
        assert!(FaultFilter::default().matches(&event));
        let filter = FaultFilter {
            pid: Some(3),
            kinds: 1 << FaultKind::CowCopy as u32,
            range: Some(0x5000..0x6000),
            others: false,
        };
        assert!(filter.matches(&event));
        assert!(!filter.matches(&fault(FaultKind::CowReuse, 3, 0x5000)));
        assert!(!filter.matches(&fault(FaultKind::CowCopy, 4, 0x5000)));
        assert!(!filter.matches(&fault(FaultKind::CowCopy, 3, 0x6000)));
        // A guest may write any number.
        let odd = Event { class: EVENT_FAULT, kind: 200, pid: 3, ..Event::default() };
        assert!(!FaultFilter::default().matches(&odd));
        assert!(!filter.matches(&Event { class: 2, pid: 3, ..Event::default() }));
    }

    #[test]
    fn kinds_have_names() {
        for kind in FaultKind::ALL {
            assert_eq!(kind_by_name(kind.name()), Some(kind));
            assert_eq!(kind_by_name(&kind.name().replace(['-', ' '], "_")), Some(kind));
        }
        assert_eq!(kind_by_name("nothing"), None);
    }
}
