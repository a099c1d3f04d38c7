//! From a path to a program that can be executed: the file itself, or the
//! interpreter that a script names in its first line.

use alloc::vec;
use alloc::vec::Vec;

use pagelab_vfs::buffer::SliceSink;
use pagelab_vfs::{Errno, Lookup, PathNode};

use super::{cache, vfs};
use crate::elf;
use crate::process::exec::Arguments;
use crate::process::program::ProgramFile;
use crate::process::scheduler;

/// How much of a script's first line counts, as on Linux.
const LINE: usize = 256;

/// Interpreters that may be scripts themselves, one after the other.
const DEEPEST: usize = 4;

/// Opens a program. For a script its arguments become those of its interpreter:
///
/// ```text
/// #! INTERPRETER ARGUMENT     →   INTERPRETER ARGUMENT SCRIPT arguments…
/// ```
///
/// The path that is returned is that of the file that is really executed.
///
/// # Errors
///
/// As Linux: what a walk gives, EACCES, ENOEXEC, ELOOP.
pub fn open_program(path: &[u8], given: &mut Arguments) -> Result<(ProgramFile, Vec<u8>), Errno> {
    let context = scheduler::current().process.folders().lock().clone();
    let mut path = path.to_vec();
    for _ in 0..=DEEPEST {
        let node = vfs().executable(&context, None, &path, Lookup::FOLLOW)?;
        let head = read_head(&node)?;
        let Some(line) = head.strip_prefix(b"#!") else {
            let object = node.inode().object().and_then(|file| cache().object(file));
            let object = object.ok_or(Errno::EACCES)?;
            cache().note_mapping(object, &node);
            return Ok((ProgramFile::new(object, head), node.display(&context.root)));
        };
        let (interpreter, argument) = parse_line(line)?;
        let mut arguments = vec![interpreter.clone()];
        arguments.extend(argument);
        arguments.push(path);
        arguments.extend(given.arguments.drain(..).skip(1));
        given.arguments = arguments;
        path = interpreter;
    }
    Err(Errno::ELOOP)
}

fn read_head(node: &PathNode) -> Result<Vec<u8>, Errno> {
    let mut head = vec![0; elf::HEAD_SIZE];
    let mut sink = SliceSink::new(&mut head);
    let length = node.inode().read_at(0, &mut sink)?;
    head.truncate(length);
    Ok(head)
}

/// Interpreter and argument of a script's first line, which begins after `#!`.
fn parse_line(rest: &[u8]) -> Result<(Vec<u8>, Option<Vec<u8>>), Errno> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let most = &rest[..rest.len().min(LINE - 2)];
    let end = most.iter().position(|&byte| byte == b'\n' || byte == 0);
    let line = most[..end.unwrap_or(most.len())].trim_ascii();
    let blank = line.iter().position(is_blank);
    if line.is_empty() || (end.is_none() && rest.len() >= LINE - 2 && blank.is_none()) {
        return Err(Errno::ENOEXEC);
    }
    let (interpreter, argument) = line.split_at(blank.unwrap_or(line.len()));
    let argument = argument.trim_ascii();
    Ok((interpreter.to_vec(), (!argument.is_empty()).then(|| argument.to_vec())))
}
