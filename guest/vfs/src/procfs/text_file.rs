//! Open files of `/proc`: texts, and what may be written to them.

use alloc::sync::Arc;
use alloc::vec::Vec;

use spin::Mutex;

use super::data::AreaUsage;
use super::node::{IdentityFile, Node, Owner, ProcessFile, SystemFile};
use super::source::ProcSource;
use super::{maps, process, system};
use crate::buffer::{Sink, Source, moved_or_fault};
use crate::errno::{Errno, Result};
use crate::file::{File, Seeking};
use crate::text::{parse_decimal, push_decimal, push_signed};

/// Longest text that is worth reading from a program.
const WRITE_LIMIT: usize = 63;

/// A file of text.
pub(super) struct TextFile {
    source: Arc<dyn ProcSource>,
    node: Node,
    /// The text as it was when it was read from its start.
    text: Mutex<Option<Arc<[u8]>>>,
}

impl TextFile {
    pub(super) fn new(source: Arc<dyn ProcSource>, node: Node) -> Self {
        Self { source, node, text: Mutex::new(None) }
    }

    fn generate(&self, out: &mut Vec<u8>) -> Result<()> {
        let source = &*self.source;
        match self.node {
            Node::File(owner, file) => self.process_text(owner, file, out)?,
            Node::DescriptorInfo(owner, number) => descriptor_info(source, owner, number, out)?,
            Node::System(file) => system_text(source, file, out),
            Node::Setting(setting) => {
                push_decimal(out, source.setting(setting));
                out.push(b'\n');
            }
            Node::Identity(file) => {
                let identity = source.identity();
                let text = match file {
                    IdentityFile::Host => identity.host,
                    IdentityFile::System => identity.system,
                    IdentityFile::Release => identity.release,
                    IdentityFile::Version => identity.version,
                };
                out.extend_from_slice(text.as_bytes());
                out.push(b'\n');
            }
            _ => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    fn process_text(&self, owner: Owner, file: ProcessFile, out: &mut Vec<u8>) -> Result<()> {
        let source = &*self.source;
        let Owner { process: number, thread, .. } = owner;
        match file {
            ProcessFile::AuxiliaryVector => source.auxiliary_vector(number, out)?,
            ProcessFile::CommandLine => source.command_line(number, out)?,
            ProcessFile::Environment => source.environment(number, out)?,
            ProcessFile::Name => {
                let name = source.status(number, thread)?.name;
                out.extend(name.iter().take_while(|byte| **byte != 0));
                out.push(b'\n');
            }
            ProcessFile::Limits => process::write_limits(out, &source.limits(number)?),
            ProcessFile::AreaUsageSum => write_sum(source, number, out)?,
            ProcessFile::Mounts => {
                system::write_mounts(out, &source.mounts(), &source.context(number)?.root);
            }
            ProcessFile::MountInfo => {
                system::write_mount_info(out, &source.mounts(), &source.context(number)?.root);
            }
            ProcessFile::OomScore => {
                push_decimal(out, source.oom_score(number)?.into());
                out.push(b'\n');
            }
            ProcessFile::OomScoreAdjustment => {
                push_signed(out, source.oom_score_adjustment(number)?.into());
                out.push(b'\n');
            }
            ProcessFile::Stat => process::write_stat(out, &source.status(number, thread)?),
            ProcessFile::StatMemory => {
                let memory = source.status(number, thread)?.memory.unwrap_or_default();
                process::write_statm(out, &memory);
            }
            ProcessFile::Status => process::write_status(out, &source.status(number, thread)?),
            ProcessFile::ClearReferences
            | ProcessFile::PageMap
            | ProcessFile::Maps
            | ProcessFile::AreaUsage => return Err(Errno::EINVAL),
        }
        Ok(())
    }

    /// A program wrote `text` (without blanks around it).
    fn accept(&self, text: &[u8]) -> Result<()> {
        let source = &*self.source;
        match self.node {
            Node::File(owner, ProcessFile::OomScoreAdjustment) => {
                let value = parse_signed(text).filter(|value| (-1000..=1000).contains(value));
                source.set_oom_score_adjustment(owner.process, value.ok_or(Errno::EINVAL)?)
            }
            Node::File(owner, ProcessFile::ClearReferences) => {
                let which = parse_decimal(text).and_then(|value| u32::try_from(value).ok());
                let which = which.filter(|which| (1..=5).contains(which)).ok_or(Errno::EINVAL)?;
                source.clear_references(owner.process, which)
            }
            Node::File(owner, ProcessFile::Name) => {
                source.set_name(owner.process, owner.thread, &text[..text.len().min(15)])
            }
            Node::Setting(setting) => {
                let Some(range) = &setting.place().range else { return Err(Errno::EINVAL) };
                let value = parse_decimal(text).filter(|value| range.contains(value));
                source.set_setting(setting, value.ok_or(Errno::EINVAL)?)
            }
            _ => Err(Errno::EINVAL),
        }
    }
}

fn parse_signed(text: &[u8]) -> Option<i32> {
    let (negative, digits) = match text.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, text),
    };
    let value = i32::try_from(parse_decimal(digits)?).ok()?;
    Some(if negative { -value } else { value })
}

/// `smaps_rollup`.
fn write_sum(source: &dyn ProcSource, number: u32, out: &mut Vec<u8>) -> Result<()> {
    let mut bounds: Option<(u64, u64)> = None;
    let mut sum = AreaUsage::default();
    source.area_usage(number, 0, &mut |area, usage| {
        let start = bounds.map_or(area.start, |(start, _)| start);
        bounds = Some((start, area.end));
        sum.add(usage);
        true
    })?;
    if let Some((start, end)) = bounds {
        maps::write_rollup(out, start, end, &sum);
    }
    Ok(())
}

/// `fdinfo`.
fn descriptor_info(
    source: &dyn ProcSource,
    owner: Owner,
    number: i32,
    out: &mut Vec<u8>,
) -> Result<()> {
    let file = source.file(owner.process, number)?;
    out.extend_from_slice(b"pos:\t");
    push_decimal(out, file.seek(0, crate::Whence::Current).unwrap_or(0));
    out.extend_from_slice(b"\nflags:\t0");
    let flags = file.flags();
    let digits = (32 - flags.leading_zeros()).div_ceil(3).max(1);
    for place in (0..digits).rev() {
        out.push(b'0' + (flags >> (place * 3) & 7) as u8);
    }
    out.extend_from_slice(b"\nmnt_id:\t");
    push_decimal(out, file.node().mount().id.into());
    out.extend_from_slice(b"\nino:\t");
    push_decimal(out, file.inode().ino());
    out.push(b'\n');
    Ok(())
}

fn system_text(source: &dyn ProcSource, file: SystemFile, out: &mut Vec<u8>) {
    match file {
        SystemFile::CommandLine => {
            source.boot_command_line(out);
            out.push(b'\n');
        }
        SystemFile::CpuInfo => {
            let mut count = 0;
            source.processors(&mut |_, _| count += 1);
            let mut index = 0;
            source.processors(&mut |cpu, _| {
                system::write_cpu_info(out, cpu, index, count);
                index += 1;
            });
        }
        SystemFile::FileSystems => {
            let mut names: Vec<_> =
                source.mounts().iter().map(|mount| mount.file_system.name()).collect();
            names.sort_unstable();
            names.dedup();
            for name in names {
                out.extend_from_slice(b"nodev\t");
                out.extend_from_slice(name.as_bytes());
                out.push(b'\n');
            }
        }
        SystemFile::LoadAverage => {
            system::write_load_average(out, &source.load_average(), &source.counts());
        }
        SystemFile::MemoryInfo => system::write_memory_info(out, &source.memory_info()),
        SystemFile::Stat => {
            let mut times = Vec::new();
            source.processors(&mut |_, cpu| times.push(*cpu));
            system::write_counts(out, &times, &source.counts());
        }
        SystemFile::Swaps => system::write_swaps(out, &source.memory_info()),
        SystemFile::Uptime => {
            let (up, idle) = source.uptime();
            system::push_hundredths(out, up);
            out.push(b' ');
            system::push_hundredths(out, idle);
            out.push(b'\n');
        }
        SystemFile::Version => system::write_version(out, &source.identity()),
        SystemFile::VmStat => source.memory_counters(&mut |name, value| {
            out.extend_from_slice(name.as_bytes());
            out.push(b' ');
            push_decimal(out, value);
            out.push(b'\n');
        }),
    }
}

impl File for TextFile {
    fn read(&self, offset: u64, sink: &mut dyn Sink) -> Result<usize> {
        let known = if offset == 0 { None } else { self.text.lock().clone() };
        let text = match known {
            Some(text) => text,
            None => {
                let mut text = Vec::new();
                self.generate(&mut text)?;
                let text: Arc<[u8]> = text.into();
                *self.text.lock() = Some(Arc::clone(&text));
                text
            }
        };
        let start = usize::try_from(offset).unwrap_or(usize::MAX).min(text.len());
        let rest = &text[start..];
        let wanted = rest.len().min(sink.remaining());
        moved_or_fault(sink.put(&rest[..wanted]), wanted)
    }

    fn write(&self, _offset: u64, source: &mut dyn Source) -> Result<usize> {
        let count = source.remaining();
        let mut bytes = [0; WRITE_LIMIT];
        let length = count.min(bytes.len());
        if source.take(&mut bytes[..length]) < length {
            return Err(Errno::EFAULT);
        }
        self.accept(bytes[..length].trim_ascii())?;
        source.skip(count - length);
        Ok(count)
    }

    fn seeking(&self) -> Seeking {
        Seeking::Positioned
    }
}
