//! Which files there are in `/proc`, and their names.

use super::settings::{Directory, Setting};

/// Anything in `/proc`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    Root,
    /// `self`, `thread-self`, `mounts`.
    RootLink(RootLink),
    System(SystemFile),
    /// A process, or one of its threads below `task`.
    Process(Owner),
    Tasks(u32),
    File(Owner, ProcessFile),
    Link(Owner, ProcessLink),
    Descriptors(Owner),
    Descriptor(Owner, i32),
    DescriptorInfos(Owner),
    DescriptorInfo(Owner, i32),
    /// `sys`.
    Settings,
    SettingsOf(Directory),
    Setting(Setting),
    Identity(IdentityFile),
}

/// Whose files these are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) process: u32,
    pub(super) thread: u32,
    /// Seen below `task`.
    pub(super) as_task: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum RootLink {
    Myself,
    MyThread,
    Mounts,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SystemFile {
    CommandLine,
    CpuInfo,
    FileSystems,
    LoadAverage,
    MemoryInfo,
    Stat,
    Swaps,
    Uptime,
    Version,
    VmStat,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessFile {
    AuxiliaryVector,
    ClearReferences,
    CommandLine,
    Name,
    Environment,
    Limits,
    Maps,
    MountInfo,
    Mounts,
    OomScore,
    OomScoreAdjustment,
    PageMap,
    AreaUsage,
    AreaUsageSum,
    Stat,
    StatMemory,
    Status,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ProcessLink {
    WorkingDirectory,
    Executable,
    Root,
}

/// Texts in `sys/kernel`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IdentityFile {
    Host,
    System,
    Release,
    Version,
}

/// What stands in `/proc` beside the processes.
pub(super) static ROOT: [(&[u8], Node); 14] = [
    (b"cmdline", Node::System(SystemFile::CommandLine)),
    (b"cpuinfo", Node::System(SystemFile::CpuInfo)),
    (b"filesystems", Node::System(SystemFile::FileSystems)),
    (b"loadavg", Node::System(SystemFile::LoadAverage)),
    (b"meminfo", Node::System(SystemFile::MemoryInfo)),
    (b"mounts", Node::RootLink(RootLink::Mounts)),
    (b"self", Node::RootLink(RootLink::Myself)),
    (b"stat", Node::System(SystemFile::Stat)),
    (b"swaps", Node::System(SystemFile::Swaps)),
    (b"sys", Node::Settings),
    (b"thread-self", Node::RootLink(RootLink::MyThread)),
    (b"uptime", Node::System(SystemFile::Uptime)),
    (b"version", Node::System(SystemFile::Version)),
    (b"vmstat", Node::System(SystemFile::VmStat)),
];

/// What stands in the directory of a process or thread.
#[derive(Clone, Copy)]
pub(super) enum ProcessEntry {
    File(ProcessFile),
    Link(ProcessLink),
    Descriptors,
    DescriptorInfos,
    /// Only of processes.
    Tasks,
}

/// The entries of a process; `task` comes last, as threads do not have it.
pub(super) static PROCESS: [(&[u8], ProcessEntry); 23] = [
    (b"auxv", ProcessEntry::File(ProcessFile::AuxiliaryVector)),
    (b"clear_refs", ProcessEntry::File(ProcessFile::ClearReferences)),
    (b"cmdline", ProcessEntry::File(ProcessFile::CommandLine)),
    (b"comm", ProcessEntry::File(ProcessFile::Name)),
    (b"cwd", ProcessEntry::Link(ProcessLink::WorkingDirectory)),
    (b"environ", ProcessEntry::File(ProcessFile::Environment)),
    (b"exe", ProcessEntry::Link(ProcessLink::Executable)),
    (b"fd", ProcessEntry::Descriptors),
    (b"fdinfo", ProcessEntry::DescriptorInfos),
    (b"limits", ProcessEntry::File(ProcessFile::Limits)),
    (b"maps", ProcessEntry::File(ProcessFile::Maps)),
    (b"mountinfo", ProcessEntry::File(ProcessFile::MountInfo)),
    (b"mounts", ProcessEntry::File(ProcessFile::Mounts)),
    (b"oom_score", ProcessEntry::File(ProcessFile::OomScore)),
    (b"oom_score_adj", ProcessEntry::File(ProcessFile::OomScoreAdjustment)),
    (b"pagemap", ProcessEntry::File(ProcessFile::PageMap)),
    (b"root", ProcessEntry::Link(ProcessLink::Root)),
    (b"smaps", ProcessEntry::File(ProcessFile::AreaUsage)),
    (b"smaps_rollup", ProcessEntry::File(ProcessFile::AreaUsageSum)),
    (b"stat", ProcessEntry::File(ProcessFile::Stat)),
    (b"statm", ProcessEntry::File(ProcessFile::StatMemory)),
    (b"status", ProcessEntry::File(ProcessFile::Status)),
    (b"task", ProcessEntry::Tasks),
];

/// The texts of `sys/kernel`.
pub(super) static IDENTITY: [(&[u8], IdentityFile); 4] = [
    (b"hostname", IdentityFile::Host),
    (b"osrelease", IdentityFile::Release),
    (b"ostype", IdentityFile::System),
    (b"version", IdentityFile::Version),
];

impl ProcessFile {
    /// Permission bits.
    pub(super) const fn permissions(self) -> u16 {
        match self {
            Self::AuxiliaryVector | Self::Environment | Self::PageMap => 0o400,
            Self::ClearReferences => 0o200,
            Self::Name | Self::OomScoreAdjustment => 0o644,
            _ => 0o444,
        }
    }
}

/// The entry with this name in a table.
pub(super) fn find<T: Copy>(table: &[(&[u8], T)], name: &[u8]) -> Option<T> {
    table.iter().find(|(entry, _)| *entry == name).map(|(_, value)| *value)
}
