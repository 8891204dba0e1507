// SPDX-License-Identifier: MIT OR Apache-2.0
//! Texts about mappings: `maps`, `smaps` and `smaps_rollup` of proc(5).

use std::fmt::Write;

use mayfly_engine::Residency;
use mayfly_machine::{PAGE_SIZE, Prot, layout};

use crate::base::errno::Errno;
use crate::fs::open_files::HELD_MAX;
use crate::kernel::call::Call;
use crate::kernel::process::Process;
use crate::kernel::residency;
use crate::mm::vma::{Vma, VmaKind};

/// `/proc/self/maps`.
pub(super) fn maps(process: &Process) -> String {
    let mut text: String = process.memory.all().iter().map(|vma| line(process, vma)).collect();
    text.push_str(&vdso());
    text
}

fn is_shared(kind: VmaKind) -> bool {
    match kind {
        VmaKind::Shared | VmaKind::Durable { .. } => true,
        VmaKind::Overlay { shared, .. } | VmaKind::File { shared, .. } => shared,
        VmaKind::Private | VmaKind::Stack => false,
    }
}

/// The line of a mapping.
fn line(process: &Process, vma: &Vma) -> String {
    let space = &process.memory;
    let flag = |prot, letter| if vma.prot.contains(prot) { letter } else { '-' };
    let shared = if is_shared(vma.kind) { 's' } else { 'p' };
    let (offset, device, inode, name) = match vma.kind {
        VmaKind::Stack => (0, 0, 0, "[stack]".into()),
        VmaKind::Private if space.heap().contains(&vma.range.start()) => (0, 0, 0, "[heap]".into()),
        VmaKind::Private | VmaKind::Shared => (0, 0, 0, String::new()),
        // Only the file's descriptors know its name.
        VmaKind::Overlay { offset, .. } => (offset, 0, 0, String::new()),
        VmaKind::File { file, offset, .. } | VmaKind::Durable { file, offset, .. } => match space.mapped_file(file) {
            Some(mapped) => {
                let (device, inode) = mapped.file.identity();
                (offset, device, inode, String::from_utf8_lossy(&mapped.path).replace('\n', "\\012"))
            }
            None => (0, 0, 0, String::new()),
        },
    };
    let line = format!(
        "{:x}-{:x} {}{}{}{shared} {offset:08x} 00:{device:02x} {inode} ",
        vma.range.start(),
        vma.range.end(),
        flag(Prot::READ, 'r'),
        flag(Prot::WRITE, 'w'),
        flag(Prot::EXEC, 'x'),
    );
    // Linux puts names in column 74.
    if name.is_empty() { format!("{line}\n") } else { format!("{line:<73}{name}\n") }
}

fn vdso() -> String {
    let line = format!("{:x}-{:x} r-xp 00000000 00:00 0 ", layout::VDSO, layout::VDSO.saturating_add(PAGE_SIZE));
    format!("{line:<73}[vdso]\n")
}

/// Figures of a mapping, or of all, in KiB.
#[derive(Default)]
struct Figures {
    size: u64,
    rss: u64,
    anonymous: u64,
    shared_clean: u64,
    shared_dirty: u64,
}

impl Figures {
    fn of(vma: &Vma, Residency { own, file }: Residency) -> Self {
        let kib = |pages: u64| pages.saturating_mul(PAGE_SIZE / 1024);
        let (anonymous, shared_dirty) = if is_shared(vma.kind) { (0, kib(own)) } else { (kib(own), 0) };
        Self {
            size: vma.range.len() / 1024,
            rss: kib(own.saturating_add(file)),
            anonymous,
            // Pages of files are the page cache's, which other programs may have, too.
            shared_clean: kib(file),
            shared_dirty,
        }
    }

    fn add(&mut self, other: &Self) {
        for (sum, more) in [
            (&mut self.size, other.size),
            (&mut self.rss, other.rss),
            (&mut self.anonymous, other.anonymous),
            (&mut self.shared_clean, other.shared_clean),
            (&mut self.shared_dirty, other.shared_dirty),
        ] {
            *sum = sum.saturating_add(more);
        }
    }

    /// The lines that `smaps` and `smaps_rollup` have in common.
    fn write(&self, text: &mut String) {
        for (label, value) in [
            ("Rss:", self.rss),
            ("Pss:", self.rss),
            ("Pss_Dirty:", self.anonymous.saturating_add(self.shared_dirty)),
            ("Shared_Clean:", self.shared_clean),
            ("Shared_Dirty:", 0),
            ("Private_Clean:", 0),
            ("Private_Dirty:", self.anonymous.saturating_add(self.shared_dirty)),
            ("Referenced:", self.rss),
            ("Anonymous:", self.anonymous),
            ("LazyFree:", 0),
            ("AnonHugePages:", 0),
            ("ShmemPmdMapped:", 0),
            ("FilePmdMapped:", 0),
            ("Shared_Hugetlb:", 0),
            ("Private_Hugetlb:", 0),
            ("Swap:", 0),
            ("SwapPss:", 0),
            ("Locked:", 0),
        ] {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{label:<15} {value:>8} kB");
        }
    }
}

/// The cost of a mapping's text in `smaps`: it is taken from [`residency::budget`], which is enough for 128 of them.
const TEXT_COST: u64 = mayfly_engine::RESIDENCY_AT_ONCE / 128;

/// `/proc/self/smaps`.
pub(super) fn smaps(call: &Call<'_, '_>) -> Result<String, Errno> {
    let mut text = String::new();
    let mut left = residency::budget(call);
    for vma in call.process.memory.all() {
        left = left.checked_sub(TEXT_COST).ok_or(Errno::NOT_HERE)?;
        // An open file may not hold more.
        if text.len() > HELD_MAX {
            return Err(Errno::ENOMEM);
        }
        let figures = Figures::of(vma, call.residency(vma.range, &mut left)?);
        text.push_str(&line(call.process, vma));
        let _ = writeln!(text, "{:<15} {:>8} kB", "Size:", figures.size);
        for label in ["KernelPageSize:", "MMUPageSize:"] {
            let _ = writeln!(text, "{label:<15} {:>8} kB", PAGE_SIZE / 1024);
        }
        figures.write(&mut text);
        text.push_str("THPeligible:           0\nVmFlags:");
        for (prot, name) in [(Prot::READ, "rd"), (Prot::WRITE, "wr"), (Prot::EXEC, "ex")] {
            if vma.prot.contains(prot) {
                let _ = write!(text, " {name}");
            }
        }
        text.push_str(if is_shared(vma.kind) { " sh mr mw me \n" } else { " mr mw me \n" });
    }
    Ok(text)
}

/// `/proc/self/smaps_rollup`.
pub(super) fn rollup(call: &Call<'_, '_>) -> Result<String, Errno> {
    let space = &call.process.memory;
    let mut sum = Figures::default();
    let mut left = residency::budget(call);
    for vma in space.all() {
        sum.add(&Figures::of(vma, call.residency(vma.range, &mut left)?));
    }
    let (first, last) = (space.all().first(), space.all().last());
    let (start, end) = (first.map_or(0, |vma| vma.range.start()), last.map_or(0, |vma| vma.range.end()));
    let line = format!("{start:x}-{end:x} ---p 00000000 00:00 0 ");
    let mut text = format!("{line:<73}[rollup]\n");
    sum.write(&mut text);
    Ok(text)
}
