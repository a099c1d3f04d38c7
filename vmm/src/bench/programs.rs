//! The guest's programs for measurements, built here: a few instructions each, in
//! an ELF file of one segment.

use pagelab_abi::addr::PAGE_SIZE;

/// Where a program is loaded.
const START: u64 = 0x40_0000;
/// Bytes of an ELF header and of a program header.
const HEADERS: usize = 64 + 56;

/// Maps a block of `pages` pages, writes each and gives it back, `rounds` times.
#[must_use]
pub fn faulting(pages: u32, rounds: u32) -> Vec<u8> {
    let block = bytes_of(pages);
    let mut code = vec![0x41, 0xbc]; // mov r12d, rounds
    code.extend(rounds.max(1).to_le_bytes());
    let again = code.len();
    code.extend(touch(block));
    code.extend([0xb8, 11, 0, 0, 0]); // mov eax, munmap
    code.extend([0x48, 0x89, 0xdf]); // mov rdi, rbx
    code.push(0xbe); // mov esi, block
    code.extend(block.to_le_bytes());
    code.extend([0x0f, 0x05]); // syscall
    code.extend([0x41, 0xff, 0xcc]); // dec r12d
    code.extend([0x0f, 0x85]); // jnz again
    // A few dozen bytes.
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap, reason = "see above")]
    let back = again as i32 - (code.len() as i32 + 4);
    code.extend(back.to_le_bytes());
    code.extend([0xb8, 231, 0, 0, 0]); // mov eax, exit_group
    code.extend([0x31, 0xff, 0x0f, 0x05]); // xor edi, edi; syscall
    elf(&code)
}

/// Maps `pages` pages, writes each, and spins.
#[must_use]
pub fn standing(pages: u32) -> Vec<u8> {
    let mut code = touch(bytes_of(pages));
    code.extend([0xf3, 0x90, 0xeb, 0xfc]); // pause; jmp back to it
    elf(&code)
}

/// A mapping's length, below 2 GiB.
fn bytes_of(pages: u32) -> u32 {
    /// Bytes of a page.
    #[allow(clippy::cast_possible_truncation, reason = "4096")]
    const PAGE: u32 = PAGE_SIZE as u32;
    pages.clamp(1, (1 << 19) - 1) * PAGE
}

/// Maps `block` bytes at RBX and writes each page.
fn touch(block: u32) -> Vec<u8> {
    let length = block.to_le_bytes();
    let mut code = vec![0xb8, 9, 0, 0, 0]; // mov eax, mmap
    code.extend([0x31, 0xff, 0xbe]); // xor edi, edi; mov esi, block
    code.extend(length);
    code.extend([0xba, 3, 0, 0, 0]); // mov edx, read and write
    code.extend([0x41, 0xba, 0x22, 0, 0, 0]); // mov r10d, private and anonymous
    code.extend([0x49, 0xc7, 0xc0, 0xff, 0xff, 0xff, 0xff]); // mov r8, -1
    code.extend([0x45, 0x31, 0xc9, 0x0f, 0x05]); // xor r9d, r9d; syscall
    code.extend([0x48, 0x89, 0xc3, 0x31, 0xc9]); // mov rbx, rax; xor ecx, ecx
    code.extend([0xc6, 0x04, 0x0b, 1]); // mov byte [rbx + rcx], 1
    code.extend([0x48, 0x81, 0xc1, 0, 0x10, 0, 0]); // add rcx, 4096
    code.extend([0x48, 0x81, 0xf9]); // cmp rcx, block
    code.extend(length);
    code.extend([0x72, 0xec]); // jb to the store
    code
}

/// A static executable that is nothing but `code`.
fn elf(code: &[u8]) -> Vec<u8> {
    let size = (HEADERS + code.len()) as u64;
    let mut file = vec![0x7f, b'E', b'L', b'F', 2, 1, 1];
    file.resize(16, 0);
    // An executable for x86-64, of version 1.
    file.extend([2, 0, 62, 0, 1, 0, 0, 0]);
    for word in [START + HEADERS as u64, 64, 0] {
        file.extend(word.to_le_bytes());
    }
    // No flags; sizes of the headers; one program header, no sections.
    for half in [0_u16, 0, 64, 56, 1, 64, 0, 0] {
        file.extend(half.to_le_bytes());
    }
    // Loaded, readable and executable.
    file.extend([1, 0, 0, 0, 5, 0, 0, 0]);
    for word in [0, START, START, size, size, PAGE_SIZE] {
        file.extend(word.to_le_bytes());
    }
    file.extend(code);
    file
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_executables_that_begin_with_their_code() {
        let file = faulting(16, 2);
        let parsed = elf::ElfBytes::<elf::endian::LittleEndian>::minimal_parse(&file).unwrap();
        assert_eq!(parsed.ehdr.e_entry, START + HEADERS as u64);
        let segment = parsed.segments().unwrap().get(0).unwrap();
        assert_eq!((segment.p_vaddr, segment.p_filesz), (START, file.len() as u64));
        assert_eq!(&file[HEADERS..HEADERS + 6], [0x41, 0xbc, 2, 0, 0, 0]);
        assert_eq!(standing(1)[HEADERS], 0xb8);
    }
}
