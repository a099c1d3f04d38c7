//! Users, groups, sessions, the machine's name: one user, root.

use linux_raw_sys::general as linux;
use pagelab_abi::addr::GuestVirt;
use pagelab_hal::time;
use pagelab_vfs::Errno;
use zerocopy::{Immutable, IntoBytes};

use super::{Arguments, Outcome, int};
use crate::files::cache;
use crate::memory::memory;
use crate::process::{Pid, Process, all, find, scheduler};
use crate::{publish, user};

/// What `uname` says.
pub const RELEASE: &str = "6.1.0-pagelab";

/// Calls about identity; `None` for other calls.
pub fn dispatch(call: u32, a: &Arguments) -> Option<Outcome> {
    Some(match call {
        linux::__NR_getuid | linux::__NR_geteuid | linux::__NR_getgid | linux::__NR_getegid => {
            Ok(0)
        }
        linux::__NR_setuid
        | linux::__NR_setgid
        | linux::__NR_setreuid
        | linux::__NR_setregid
        | linux::__NR_setresuid
        | linux::__NR_setresgid => only_root(a),
        linux::__NR_setgroups | linux::__NR_getgroups => Ok(0),
        linux::__NR_setfsuid | linux::__NR_setfsgid => Ok(0),
        linux::__NR_getresuid | linux::__NR_getresgid => a[..3]
            .iter()
            .try_for_each(|&at| user::write(GuestVirt(at), &0_u32))
            .map_err(Into::into)
            .map(|()| 0),
        linux::__NR_getpgrp => getpgid(0),
        linux::__NR_getpgid => getpgid(a[0] as Pid),
        linux::__NR_setpgid => setpgid(a[0] as Pid, int(a[1])),
        linux::__NR_getsid => getsid(a[0] as Pid),
        linux::__NR_setsid => setsid(),
        linux::__NR_uname => uname(a),
        linux::__NR_sysinfo => sysinfo(a),
        linux::__NR_getrandom => getrandom(a),
        linux::__NR_personality => Ok(0),
        linux::__NR_getpriority => Ok(20),
        linux::__NR_setpriority => Ok(0),
        linux::__NR_sched_getaffinity => sched_getaffinity(a),
        linux::__NR_sched_setaffinity => Ok(0),
        linux::__NR_getcpu => getcpu(a),
        linux::__NR_membarrier => {
            if a[0] == 0 {
                Ok(0)
            } else {
                Err(Errno::EINVAL.into())
            }
        }
        _ => return None,
    })
}

/// There is no other user to become: -1 leaves as is.
fn only_root(a: &Arguments) -> Outcome {
    if a[..1].iter().all(|&id| id as u32 == 0 || id as u32 == u32::MAX) {
        Ok(0)
    } else {
        Err(Errno::EPERM.into())
    }
}

fn process_or_self(pid: Pid) -> Result<alloc::sync::Arc<Process>, Errno> {
    if pid == 0 { Ok(scheduler::current().process.clone()) } else { find(pid).ok_or(Errno::ESRCH) }
}

fn getpgid(pid: Pid) -> Outcome {
    Ok(process_or_self(pid)?.family.lock().group.into())
}

fn getsid(pid: Pid) -> Outcome {
    Ok(process_or_self(pid)?.family.lock().session.into())
}

fn setpgid(pid: Pid, group: i32) -> Outcome {
    let group = Pid::try_from(group).map_err(|_| Errno::EINVAL)?;
    let caller = scheduler::current().process.clone();
    let process = process_or_self(pid)?;
    let group = if group == 0 { process.pid } else { group };
    let own_session = caller.family.lock().session;
    let (parent, session, has_executed) = {
        let family = process.family.lock();
        (family.parent, family.session, family.has_executed)
    };
    if process.pid != caller.pid {
        if parent != caller.pid {
            return Err(Errno::ESRCH.into());
        }
        if session != own_session {
            return Err(Errno::EPERM.into());
        }
        if has_executed {
            return Err(Errno::EACCES.into());
        }
    }
    let exists = || {
        all().iter().any(|other| {
            let family = other.family.lock();
            family.group == group && family.session == own_session
        })
    };
    if session == process.pid || (group != process.pid && !exists()) {
        return Err(Errno::EPERM.into());
    }
    let mut family = process.family.lock();
    family.group = group;
    publish::family_changed(&process, &family);
    Ok(0)
}

fn setsid() -> Outcome {
    let process = scheduler::current().process.clone();
    let pid = process.pid;
    if all().iter().any(|other| other.family.lock().group == pid) {
        return Err(Errno::EPERM.into());
    }
    let mut family = process.family.lock();
    family.session = pid;
    family.group = pid;
    publish::family_changed(&process, &family);
    Ok(pid.into())
}

fn uname(a: &Arguments) -> Outcome {
    const FIELD: usize = 65;
    let mut names = [[0_u8; FIELD]; 6];
    let texts = ["Linux", "pagelab", RELEASE, "#1 pagelab", "x86_64", "(none)"];
    for (name, text) in names.iter_mut().zip(texts) {
        name[..text.len()].copy_from_slice(text.as_bytes());
    }
    user::write(GuestVirt(a[0]), &names)?;
    Ok(0)
}

/// `struct sysinfo`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct SystemInfo {
    uptime: u64,
    loads: [u64; 3],
    total_ram: u64,
    free_ram: u64,
    shared_ram: u64,
    buffer_ram: u64,
    total_swap: u64,
    free_swap: u64,
    processes: u16,
    padding: [u16; 3],
    total_high: u64,
    free_high: u64,
    unit: u32,
    end: u32,
}

fn sysinfo(a: &Arguments) -> Outcome {
    const PAGE: u64 = pagelab_abi::addr::PAGE_SIZE;
    let counters = memory().frames.counters();
    let swap = memory().swap_use();
    let info = SystemInfo {
        uptime: time::since_start() / 1_000_000_000,
        loads: [0; 3],
        total_ram: counters.total * PAGE,
        free_ram: counters.free * PAGE,
        shared_ram: cache().pages_in_memory() * PAGE,
        buffer_ram: 0,
        total_swap: swap.total * PAGE,
        free_swap: swap.free * PAGE,
        processes: u16::try_from(all().len()).unwrap_or(u16::MAX),
        padding: [0; 3],
        total_high: 0,
        free_high: 0,
        unit: 1,
        end: 0,
    };
    user::write(GuestVirt(a[0]), &info)?;
    Ok(0)
}

fn getrandom(a: &Arguments) -> Outcome {
    const MOST: u64 = 256;
    const KNOWN_FLAGS: u64 = 7;
    if a[2] & !KNOWN_FLAGS != 0 {
        return Err(Errno::EINVAL.into());
    }
    let mut done = 0;
    while done < a[1] {
        let count = (a[1] - done).min(MOST) as usize;
        let mut bytes = [0; MOST as usize];
        crate::random::fill(&mut bytes[..count]);
        user::write_bytes(GuestVirt(a[0].wrapping_add(done)), &bytes[..count])?;
        done += count as u64;
    }
    Ok(done)
}

fn sched_getaffinity(a: &Arguments) -> Outcome {
    const WORD: u64 = 8;
    if a[1] < WORD || !a[1].is_multiple_of(WORD) {
        return Err(Errno::EINVAL.into());
    }
    user::write(GuestVirt(a[2]), &1_u64)?;
    Ok(WORD)
}

fn getcpu(a: &Arguments) -> Outcome {
    user::write_optional(GuestVirt(a[0]), &0_u32)?;
    user::write_optional(GuestVirt(a[1]), &0_u32)?;
    Ok(0)
}
