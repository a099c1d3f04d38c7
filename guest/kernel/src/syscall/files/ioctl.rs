//! `ioctl`.

use linux_raw_sys::{general as linux, ioctl};
use pagelab_abi::addr::GuestVirt;
use pagelab_vfs::Errno;
use pagelab_vfs::abi::O_NONBLOCK;
use pagelab_vfs::file::IoctlArgument;
use pagelab_vfs::inode::FileKind;

use super::{Arguments, Outcome, int, open_file};
use crate::process::scheduler;
use crate::syscall::Failure;
use crate::user;

/// `ioctl`; `None` for other calls.
pub(super) fn dispatch(call: u32, a: &Arguments) -> Option<Outcome> {
    (call == linux::__NR_ioctl).then(|| control(a))
}

/// An argument in the program's memory.
struct Argument(u64);

impl IoctlArgument for Argument {
    fn value(&self) -> u64 {
        self.0
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), Errno> {
        user::read_bytes(GuestVirt(self.0), bytes)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Errno> {
        user::write_bytes(GuestVirt(self.0), bytes)
    }
}

fn control(a: &Arguments) -> Outcome {
    let file = open_file(a[0])?;
    let request = a[1] as u32;
    match request {
        ioctl::FIOCLEX | ioctl::FIONCLEX => {
            let files = scheduler::current().process.files();
            files.lock().set_close_on_exec(int(a[0]), request == ioctl::FIOCLEX)?;
            Ok(0)
        }
        ioctl::FIONBIO => {
            let on = user::read::<u32>(GuestVirt(a[2]))? != 0;
            let flags = file.flags() & !O_NONBLOCK;
            file.set_flags(if on { flags | O_NONBLOCK } else { flags })?;
            Ok(0)
        }
        ioctl::FIONREAD if file.pipe().is_some() => {
            let length = file.pipe().map_or(0, |pipe| pipe.length()) as u32;
            user::write(GuestVirt(a[2]), &length)?;
            Ok(0)
        }
        ioctl::FIONREAD if file.kind() == FileKind::Regular => {
            let position = file.seek(0, pagelab_vfs::Whence::Current)?;
            let left = file.inode().size()?.saturating_sub(position) as u32;
            user::write(GuestVirt(a[2]), &left)?;
            Ok(0)
        }
        _ => match file.ioctl(request, &mut Argument(a[2])) {
            // A process in the background is stopped first.
            Err(Errno::EINTR) => Err(Failure::Restart),
            result => Ok(result?.cast_unsigned()),
        },
    }
}
