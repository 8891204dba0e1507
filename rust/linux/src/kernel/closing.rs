// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cleans up after the last descriptor of an open file.

use crate::base::ids::InodeId;
use crate::fs::object::Object;
use crate::kernel::call::Call;

/// Drops a file of the overlay that has no name, unless it is open or mapped.
pub(crate) fn forget_file(call: &mut Call<'_, '_>, id: InodeId) {
    let is_open =
        call.process.files.objects().any(|object| matches!(object, Object::Memory { id: open, .. } if *open == id));
    let is_mapped = call.process.memory.maps_overlay(id);
    if !is_open && !is_mapped && !call.process.overlay.inodes().is_named(id) {
        call.process.overlay.edit().inodes_mut().forget(id);
    }
}

/// Drops the state of objects that are no longer open.
pub(crate) fn forget(call: &mut Call<'_, '_>, closed: impl IntoIterator<Item = Object>) {
    for object in closed {
        match object {
            Object::Memory { id, .. } => forget_file(call, id),
            Object::Pollable(id) => {
                call.process.pollables.edit().close(id);
                call.note_change();
            }
            Object::Log(stream) => {
                if call.process.pollables.has_registrations() {
                    call.process.pollables.edit().unwatch_log(stream);
                }
            }
            // There is no state besides the open file.
            Object::Null
            | Object::Zero
            | Object::Full
            | Object::Random { .. }
            | Object::Text { .. }
            | Object::Host(_)
            | Object::Directory { .. } => {}
        }
    }
}

/// Closes open files that were in flight to a closed receiver, and those in flight to them in turn.
pub(crate) fn close_orphans(call: &mut Call<'_, '_>) {
    while let Some(open) = call.process.pollables.edit().orphans.pop() {
        let gone = call.process.files.edit().release(open);
        forget(call, gone);
    }
}
