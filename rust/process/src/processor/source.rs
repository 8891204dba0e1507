// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where an image's workers come from: a process that has the image mapped, and is copied.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use mayfly_machine::layout::{CONTROL, DOORBELL, PAGE_SIZE, VDSO};
use mayfly_machine::{CreateError, EnginePage, FileKey, FreezeError, Prot, vdso};
use mayfly_memory::sealed::SealedMemory;
use mayfly_memory::tables::Tables;

use crate::code::doorbell_page;
use crate::host::Host;
use crate::layout::{RESUME, RESUME_BYTES};
use crate::stub::Nursery;
use crate::zygote::zygote::Region;

/// Pages to map into a machine that boots.
#[must_use]
pub fn pages() -> Vec<EnginePage> {
    let code = Prot::READ | Prot::EXEC;
    let page = |address, prot, bytes| EnginePage { address, user: true, prot, bytes };
    let mut pages = vec![page(DOORBELL, code, doorbell_page()), page(VDSO, code, vdso::image().to_vec())];
    // Written when the program is frozen.
    pages.extend((RESUME..RESUME + RESUME_BYTES).step_by(PAGE_SIZE as usize).map(|at| page(at, Prot::READ, vec![])));
    pages
}

/// A process that has an image mapped, from which stubs are copied.
#[derive(Debug)]
pub struct ImageSource {
    nursery: Nursery,
    memory: Arc<SealedMemory>,
}

impl ImageSource {
    /// Starts the process, and maps the image's pages as `tables` have them.
    ///
    /// # Errors
    ///
    /// [`FreezeError::Image`] says which step failed.
    pub fn new(host: &Host, memory: &Arc<SealedMemory>, tables: Tables) -> Result<Self, FreezeError> {
        let file = memory.as_fd();
        // The control line and the inbox are each worker's own.
        let runs = tables.image_runs(memory).into_iter().filter(|run| run.address < CONTROL);
        let mut regions: Vec<Region<'_>> = runs.map(|run| region(file, &run)).collect();
        regions.extend(file_regions(memory, tables));
        let failed = |error| FreezeError::image("a zygote")(io::Error::other(error));
        let nursery = Nursery::with_image(host, &regions).map_err(failed)?;
        Ok(Self { nursery, memory: Arc::clone(memory) })
    }

    pub(crate) fn nursery(&self) -> &Nursery {
        &self.nursery
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        self.memory.as_fd()
    }
}

/// The pages of files that an image has.
fn file_regions(memory: &SealedMemory, tables: Tables) -> Vec<Region<'_>> {
    let mut regions: Vec<(FileKey, Region<'_>)> = Vec::new();
    for (address, entry) in tables.image_file_pages(memory) {
        let Some((key, file, page)) = entry.frame().and_then(|frame| memory.files().source(frame)) else { continue };
        let (offset, prot) = (page * PAGE_SIZE, entry.prot());
        match regions.last_mut() {
            Some((last, region))
                if *last == key
                    && region.prot == prot
                    && region.address + region.bytes == address
                    && region.offset + region.bytes == offset =>
            {
                region.bytes += PAGE_SIZE;
            }
            _ => regions.push((key, Region { file, offset, address, bytes: PAGE_SIZE, prot })),
        }
    }
    regions.into_iter().map(|(_, region)| region).collect()
}

/// The run as a region of this file.
pub(crate) fn region<'a>(file: BorrowedFd<'a>, run: &mayfly_memory::tables::Run) -> Region<'a> {
    Region { file, offset: run.frame * PAGE_SIZE, address: run.address, bytes: run.pages * PAGE_SIZE, prot: run.prot }
}

/// The error of a stub that could not be made.
pub(crate) fn unborn(error: crate::ForkError) -> CreateError {
    CreateError::Call { call: "a stub", source: io::Error::other(error) }
}
