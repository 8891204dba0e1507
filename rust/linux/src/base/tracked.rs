// SPDX-License-Identifier: MIT OR Apache-2.0
//! State that knows whether it has changed since the snapshot.

use std::ops::Deref;

/// A value that a request may change and that reset restores.
///
/// # Invariants
///
/// The only way to change the value is [`Tracked::edit`], which records it. So an unedited value equals the snapshot's,
/// and reset may skip it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tracked<T> {
    value: T,
    changed: bool,
    edits: u32,
}

impl<T: Clone> Tracked<T> {
    /// A value as the snapshot has it.
    pub(crate) fn new(value: T) -> Self {
        Self { value, changed: false, edits: 0 }
    }

    /// Mutable access; records the edit.
    pub(crate) fn edit(&mut self) -> &mut T {
        self.changed = true;
        self.edits = self.edits.wrapping_add(1);
        &mut self.value
    }

    pub(crate) fn is_changed(&self) -> bool {
        self.changed
    }

    /// Number of edits since the value was the snapshot's; wraps.
    pub(crate) fn edits(&self) -> u32 {
        self.edits
    }

    /// Declares the present value to be the snapshot's.
    pub(crate) fn settle(&mut self) {
        (self.changed, self.edits) = (false, 0);
    }

    /// Restores the value of `frozen`.
    pub(crate) fn restore(&mut self, frozen: &Self) {
        if self.changed {
            self.value.clone_from(&frozen.value);
            (self.changed, self.edits) = (frozen.changed, frozen.edits);
        }
    }
}

impl<T> Deref for Tracked<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_edit_is_noted_and_undone() {
        let mut frozen = Tracked::new(vec![1]);
        frozen.edit().push(2);
        frozen.settle();
        let mut fork = frozen.clone();
        assert!(!fork.is_changed());
        fork.edit().clear();
        assert!(fork.is_changed());
        fork.restore(&frozen);
        assert!(!fork.is_changed());
        assert_eq!(*fork, [1, 2]);
    }
}
