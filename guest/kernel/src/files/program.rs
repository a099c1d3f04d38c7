//! From a path to a program that can be executed: the file itself, or the
//! interpreter that a script names in its first line.

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use pagelab_vfs::buffer::SliceSink;
use pagelab_vfs::executing::Executing;
use pagelab_vfs::{Errno, FsContext, Lookup, PathNode};

use super::{PATH_MAX, cache, vfs};
use crate::elf;
use crate::process::exec::Arguments;
use crate::process::program::ProgramFile;

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
/// As Linux: what a walk gives, EACCES, ENOEXEC, ELOOP, ELIBBAD, ETXTBSY.
pub fn open_program(
    context: &FsContext,
    path: &[u8],
    given: &mut Arguments,
) -> Result<(ProgramFile, Vec<u8>), Errno> {
    let mut path = path.to_vec();
    for _ in 0..=DEEPEST {
        let node = vfs().executable(context, None, &path, Lookup::FOLLOW)?;
        let head = read_head(&node)?;
        let Some(line) = head.strip_prefix(b"#!") else {
            let name = elf::Program::parse(&head).map_err(|_| Errno::ENOEXEC)?.interpreter;
            let mut file = file_at(&node, head)?;
            file.executing = Some(Executing::start(node.inode())?);
            if let Some(name) = name {
                file.interpreter = Some(open_interpreter(context, &node, name)?);
            }
            return Ok((file, node.display(&context.root)));
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

/// The file at a node, to be mapped.
fn file_at(node: &PathNode, head: Vec<u8>) -> Result<ProgramFile, Errno> {
    let object = node.inode().object().and_then(|file| cache().object(file));
    let object = object.ok_or(Errno::EACCES)?;
    cache().note_mapping(object, node);
    Ok(ProgramFile::new(object, head))
}

/// Opens the interpreter whose name a program has at `offset`, ended by a NUL.
fn open_interpreter(
    context: &FsContext,
    program: &PathNode,
    (offset, length): (u64, u64),
) -> Result<Box<ProgramFile>, Errno> {
    let length = usize::try_from(length).unwrap_or(usize::MAX);
    if !(2..=PATH_MAX).contains(&length) {
        return Err(Errno::ENOEXEC);
    }
    let mut name = vec![0; length];
    let read = program.inode().read_at(offset, &mut SliceSink::new(&mut name))?;
    if read < length {
        return Err(Errno::EIO);
    }
    if name.pop() != Some(0) {
        return Err(Errno::ENOEXEC);
    }
    let path = name.split(|&byte| byte == 0).next().unwrap_or_default();
    let node = vfs().executable(context, None, path, Lookup::FOLLOW)?;
    let head = read_head(&node)?;
    // What is no program, or asks for one itself, does not load others.
    match elf::Program::parse(&head) {
        Ok(parsed) if parsed.position_independent && parsed.interpreter.is_none() => {}
        _ => return Err(Errno::ELIBBAD),
    }
    Ok(Box::new(file_at(&node, head)?))
}

fn read_head(node: &PathNode) -> Result<Vec<u8>, Errno> {
    // As on Linux, what is executed counts as opened.
    node.inode().open(0)?;
    let mut head = vec![0; elf::USUAL_HEAD_SIZE];
    let length = node.inode().read_at(0, &mut SliceSink::new(&mut head))?;
    head.truncate(length);
    if length == elf::USUAL_HEAD_SIZE && elf::headers_end(&head) > length {
        head.resize(elf::HEAD_SIZE, 0);
        let more = node.inode().read_at(length as u64, &mut SliceSink::new(&mut head[length..]))?;
        head.truncate(length + more);
    }
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
