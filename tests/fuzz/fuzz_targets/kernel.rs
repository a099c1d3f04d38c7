//! A guest's kernel that lies in what it publishes: directory, processes, areas,
//! names, frames. Every question has an answer or an error, soon.

#![no_main]

use std::sync::atomic::Ordering;

use libfuzzer_sys::fuzz_target;
use pagelab::inspect::kernel::Kernel;
use pagelab::inspect::maps::{maps, smaps};
use pagelab_abi::addr::GuestPhys;
use pagelab_abi::directory::Directory;
use pagelab_fuzz::{BASE, Input, Memory, PAGES};
use zerocopy::IntoBytes;

/// Where the directory is.
const DIRECTORY: u64 = 0x1000;
/// Where the kernel's tables are: four pages.
const ROOT: u64 = 0x2000;

fuzz_target!(|data: &[u8]| {
    let mut input = Input::new(data);
    let mut memory = Memory::default();
    memory.map_as_kernel(ROOT);
    let mut directory = Directory::empty();
    let fields = [
        (&directory.kernel_root, ROOT),
        (&directory.frames, BASE + 0x8000),
        (&directory.frame_count, PAGES),
        (&directory.frame_counts, BASE + 0x9000),
        (&directory.processes, BASE + 0xa000),
        (&directory.process_places, 4),
        (&directory.names, BASE + 0xb000),
        (&directory.name_count, 4),
    ];
    for (field, value) in fields {
        field.store(value, Ordering::Relaxed);
    }
    for (place, word) in (DIRECTORY..).step_by(8).zip(directory.as_mut_bytes().chunks_exact(8)) {
        memory.set(place, u64::from_le_bytes(word.try_into().expect("eight bytes")));
    }
    // Four processes, for the input to change.
    for process in 0..4 {
        memory.set(0xa000 + process * 8, BASE + 0xc000 + process * 0x1000);
    }
    memory.fill(&mut input, usize::MAX);
    if let Ok(kernel) = Kernel::new(&memory, Some(GuestPhys(DIRECTORY))) {
        ask_everything(&kernel);
    }
});

fn ask_everything(kernel: &Kernel<'_, Memory>) {
    let _ = kernel.current();
    let _ = kernel.object_names();
    let _ = kernel.frames().map(|report| report.to_string());
    let _ = kernel.mapping_counts();
    let _ = kernel.swap_holders();
    for frame in [0, 5, PAGES - 1, u64::MAX / 4096] {
        let _ = kernel.frame(frame);
        let _ = kernel.mappers(frame, frame == 5).map(|mappers| mappers.to_string());
    }
    let Ok(list) = kernel.processes() else { return };
    for process in list.processes.iter().take(4) {
        let _ = kernel.process(process.pid);
        let _ = kernel.areas(process);
        let _ = maps(kernel, process).map(|maps| maps.to_string());
        let _ = smaps(kernel, process).map(|maps| maps.to_string());
    }
}
