// SPDX-License-Identifier: MIT OR Apache-2.0
//! An assembler for classic BPF, as far as seccomp filters need it (seccomp(2); Linux, `net/core/filter.c`).
//!
//! Conditional jumps of classic BPF are forward, and at most 255 instructions long. Labels make them; [`assemble`]
//! refuses what the encoding cannot hold, rather than truncate it.

/// Opcodes of the instructions below: `BPF_LD|BPF_W|BPF_ABS`, `BPF_ALU|BPF_AND|BPF_K`, `BPF_JMP|BPF_JEQ|BPF_K`,
/// `BPF_RET|BPF_K` (`linux/bpf_common.h`).
pub(crate) const LOAD: u16 = 0x20;
pub(crate) const AND: u16 = 0x54;
pub(crate) const JUMP_EQUAL: u16 = 0x15;
pub(crate) const RETURN: u16 = 0x06;

/// Most instructions that the kernel takes (`BPF_MAXINSNS`).
const MOST: usize = 4096;

/// One instruction as the kernel has it: `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// The opcode.
    pub code: u16,
    /// Instructions skipped if the comparison holds.
    pub if_true: u8,
    /// Instructions skipped if it does not.
    pub if_false: u8,
    /// The operand.
    pub operand: u32,
}

impl Instruction {
    /// Its bytes in memory.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 8] {
        let [code_low, code_high] = self.code.to_le_bytes();
        let [a, b, c, d] = self.operand.to_le_bytes();
        [code_low, code_high, self.if_true, self.if_false, a, b, c, d]
    }
}

/// A place in a program that jumps go to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Label(pub(crate) u16);

/// A line of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Line {
    /// The next instruction is where this label is.
    At(Label),
    /// Loads the word at this offset of `struct seccomp_data`.
    Load(u32),
    /// Clears the bits of the loaded word that are not in this mask.
    And(u32),
    /// Goes to the label if the loaded word is this one.
    JumpIfEqual(u32, Label),
    /// Goes to the label if the loaded word is another.
    JumpUnlessEqual(u32, Label),
    /// Ends with this action.
    Return(u32),
}

/// Why lines are not a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AssembleError {
    /// A jump to a label that is not behind it, or nowhere.
    #[error("line {line} jumps to a label that is not behind it")]
    Backwards {
        /// The line's index.
        line: usize,
    },
    /// A jump over more than 255 instructions.
    #[error("line {line} jumps over {distance} instructions; at most 255 are possible")]
    Far {
        /// The line's index.
        line: usize,
        /// Instructions between.
        distance: usize,
    },
    /// A label is defined twice.
    #[error("line {line} defines a label again")]
    Twice {
        /// The line's index.
        line: usize,
    },
    /// No instructions, too many, or no return at the end.
    #[error("a program has 1 to 4096 instructions, the last of which returns")]
    Shape,
}

/// The instructions of these lines.
///
/// # Errors
///
/// [`AssembleError`] if the encoding cannot hold a jump, or the kernel would refuse the program.
pub(crate) fn assemble(lines: &[Line]) -> Result<Vec<Instruction>, AssembleError> {
    let mut labels: Vec<(Label, usize)> = Vec::new();
    let mut position = 0_usize;
    for (line, content) in lines.iter().enumerate() {
        match content {
            Line::At(label) if labels.iter().any(|(known, _)| known == label) => {
                return Err(AssembleError::Twice { line });
            }
            Line::At(label) => labels.push((*label, position)),
            _ => position += 1,
        }
    }
    let distance = |line, from: usize, label: &Label| {
        let (_, to) = labels.iter().find(|(known, _)| known == label).ok_or(AssembleError::Backwards { line })?;
        // The offset counts from the instruction behind the jump.
        let distance = to.checked_sub(from + 1).ok_or(AssembleError::Backwards { line })?;
        u8::try_from(distance).map_err(|_| AssembleError::Far { line, distance })
    };
    let mut program = Vec::with_capacity(position);
    for (line, content) in lines.iter().enumerate() {
        let (code, if_true, if_false, operand) = match content {
            Line::At(_) => continue,
            Line::Load(offset) => (LOAD, 0, 0, *offset),
            Line::And(mask) => (AND, 0, 0, *mask),
            Line::JumpIfEqual(value, label) => (JUMP_EQUAL, distance(line, program.len(), label)?, 0, *value),
            Line::JumpUnlessEqual(value, label) => (JUMP_EQUAL, 0, distance(line, program.len(), label)?, *value),
            Line::Return(action) => (RETURN, 0, 0, *action),
        };
        program.push(Instruction { code, if_true, if_false, operand });
    }
    // A label at the end would make a jump leave the program; the kernel refuses that too.
    let ends = !matches!(lines.last(), Some(Line::At(_)));
    let returns = program.last().is_some_and(|last| last.code == RETURN);
    if ends && returns && program.len() <= MOST { Ok(program) } else { Err(AssembleError::Shape) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const END: Label = Label(0);

    fn padded(instructions: usize) -> Vec<Line> {
        let mut lines = vec![Line::JumpIfEqual(1, END)];
        lines.extend(vec![Line::Load(0); instructions]);
        lines.extend([Line::At(END), Line::Return(0)]);
        lines
    }

    #[test]
    fn a_jump_counts_from_the_instruction_behind_it() {
        let program = assemble(&padded(3)).unwrap();
        assert_eq!(program[0], Instruction { code: JUMP_EQUAL, if_true: 3, if_false: 0, operand: 1 });
        assert_eq!(program[0].to_bytes(), [0x15, 0, 3, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn a_jump_that_its_byte_cannot_hold_is_refused() {
        assert_eq!(assemble(&padded(255)).unwrap()[0].if_true, 255);
        assert_eq!(assemble(&padded(256)), Err(AssembleError::Far { line: 0, distance: 256 }));
    }

    #[test]
    fn jumps_back_or_nowhere_and_labels_of_two_places_are_refused() {
        let back = [Line::At(END), Line::JumpIfEqual(1, END), Line::Return(0)];
        assert_eq!(assemble(&back), Err(AssembleError::Backwards { line: 1 }));
        let nowhere = [Line::JumpUnlessEqual(1, END), Line::Return(0)];
        assert_eq!(assemble(&nowhere), Err(AssembleError::Backwards { line: 0 }));
        let twice = [Line::At(END), Line::Load(0), Line::At(END), Line::Return(0)];
        assert_eq!(assemble(&twice), Err(AssembleError::Twice { line: 2 }));
    }

    #[test]
    fn a_program_that_does_not_return_is_refused() {
        for lines in [&[][..], &[Line::Load(0)], &[Line::JumpIfEqual(1, END), Line::Return(0), Line::At(END)]] {
            assert_eq!(assemble(lines), Err(AssembleError::Shape), "{lines:?}");
        }
        assert_eq!(assemble(&vec![Line::Return(0); 4097]), Err(AssembleError::Shape));
    }
}
