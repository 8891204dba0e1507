// SPDX-License-Identifier: MIT OR Apache-2.0
//! The initial stack: a program's memory at RSP when it starts.
//!
//! ```text
//!  top          0                          8 bytes, as Linux leaves
//!               path of the program \0     AT_EXECFN
//!               NAME=value \0 ...          the last one here
//!               argument \0 ...            the last one here
//!               "x86_64" \0                AT_PLATFORM
//!               padding
//!               AT_NULL, 0                 auxiliary vector: pairs of 8 bytes
//!               ...
//!               0                          end of the environment
//!               pointers to NAME=value ...
//!               0                          end of the arguments
//!               pointers to arguments ...
//!  RSP          number of arguments        RSP is a multiple of 16
//! ```
//!
//! Arguments and environment follow each other upwards without a gap, as on Linux. Programs that change their title
//! (libuv, `setproctitle(3)`) overwrite everything from the first argument to the end of the last variable, or of the
//! last argument.
//!
//! Source: System V ABI, AMD64 supplement, 3.4.1 "Initial Stack and Register State"; Linux
//! `create_elf_tables`.

use mayfly_machine::{PAGE_SIZE, layout};

use crate::base::identity::{CLOCK_TICKS, GID, UID};
use crate::exec::elf::{Image, PROGRAM_HEADER_SIZE};

/// Most bytes of arguments and environment together with their pointers. Linux allows a quarter of the stack's limit;
/// this is enough for any server's configuration.
pub(crate) const STRINGS_MAX: usize = 128 * 1024;

/// CPUID leaf 1 EDX of the x86-64 baseline (FPU to SSE2), on which every program may rely. Programs find further
/// features by CPUID itself.
const HWCAP: u64 = 0x078b_fbff;
/// Size of a signal frame with AVX-512 state; some C libraries size alternate stacks by it.
const MINSIGSTKSZ: u64 = 3632;
/// `AT_MINSIGSTKSZ` of <linux/auxvec.h>, which the libc crate lacks.
const AT_MINSIGSTKSZ: u64 = 51;

/// Reasons why a stack could not be built.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StackError {
    /// An argument, a variable or the program's name contains a NUL byte, or a variable's name is empty or contains
    /// `=`.
    #[error("{what} cannot be passed to a program: {text:?}")]
    Text {
        /// Where the text is used.
        what: &'static str,
        /// The text.
        text: String,
    },
    /// Arguments and environment are too large.
    #[error("arguments and environment need {bytes} bytes, {STRINGS_MAX} is the limit")]
    TooLarge {
        /// Their size, with their pointers.
        bytes: usize,
    },
}

/// Content of an initial stack.
#[derive(Debug)]
pub(crate) struct StackContents<'a> {
    /// argv\[0\] and AT_EXECFN.
    pub(crate) name: &'a str,
    /// argv from 1 on.
    pub(crate) args: &'a [String],
    /// The environment, in order.
    pub(crate) env: &'a [(String, String)],
    /// AT_RANDOM: address of 16 bytes that differ from run to run.
    pub(crate) at_random: u64,
    /// AT_BASE: where the interpreter lies; 0 without one.
    pub(crate) interpreter_base: u64,
    /// Entries after Mayfly's own; a program uses the first of each type.
    pub(crate) auxv_extra: &'a [(u64, u64)],
}

/// An initial stack: `bytes` go to `pointer`, which is the initial RSP.
#[derive(Debug)]
pub(crate) struct InitialStack {
    pub(crate) pointer: u64,
    pub(crate) bytes: Vec<u8>,
    /// The auxiliary vector on its own.
    pub(crate) auxv: Vec<u8>,
}

impl InitialStack {
    /// Builds the stack that ends at `top`, for `image`. `top` is a multiple of 16.
    pub(crate) fn build(top: u64, image: &Image, contents: &StackContents<'_>) -> Result<Self, StackError> {
        contents.check()?;
        let mut strings = Strings { top, bytes: vec![0; 8] };
        let exec_fn = strings.push(contents.name)?;
        let mut env = Vec::with_capacity(contents.env.len());
        for (name, value) in contents.env.iter().rev() {
            env.push(strings.push(&format!("{name}={value}"))?);
        }
        let mut argv = Vec::with_capacity(contents.args.len().saturating_add(1));
        for argument in contents.args.iter().rev() {
            argv.push(strings.push(argument)?);
        }
        argv.push(strings.push(contents.name)?);
        let platform = strings.push("x86_64")?;

        let mut words = vec![argv.len() as u64];
        words.extend(argv.iter().rev());
        words.push(0);
        words.extend(env.iter().rev());
        words.push(0);
        let auxv: Vec<u64> =
            auxv(image, contents, exec_fn, platform).into_iter().flat_map(|(kind, value)| [kind, value]).collect();
        words.extend(&auxv);
        let auxv = auxv.iter().flat_map(|word| word.to_le_bytes()).collect();
        strings.finish(&words, auxv)
    }
}

impl StackContents<'_> {
    fn check(&self) -> Result<(), StackError> {
        let refuse = |what, text: &str| Err(StackError::Text { what, text: text.to_owned() });
        if self.name.is_empty() || self.name.contains('\0') {
            return refuse("the program's name", self.name);
        }
        if let Some(argument) = self.args.iter().find(|argument| argument.contains('\0')) {
            return refuse("an argument", argument);
        }
        for (name, value) in self.env {
            if name.is_empty() || name.contains(['\0', '=']) {
                return refuse("a variable's name", name);
            }
            if value.contains('\0') {
                return refuse("a variable's value", value);
            }
        }
        Ok(())
    }
}

/// The auxiliary vector with its terminator.
fn auxv(image: &Image, contents: &StackContents<'_>, exec_fn: u64, platform: u64) -> Vec<(u64, u64)> {
    let mut entries = vec![
        (libc::AT_SYSINFO_EHDR, layout::VDSO),
        (AT_MINSIGSTKSZ, MINSIGSTKSZ),
        (libc::AT_HWCAP, HWCAP),
        (libc::AT_PAGESZ, PAGE_SIZE),
        (libc::AT_CLKTCK, CLOCK_TICKS),
        (libc::AT_PHDR, image.headers),
        (libc::AT_PHENT, u64::from(PROGRAM_HEADER_SIZE)),
        (libc::AT_PHNUM, u64::from(image.header_count)),
        (libc::AT_BASE, contents.interpreter_base),
        (libc::AT_FLAGS, 0),
        (libc::AT_ENTRY, image.entry),
        (libc::AT_UID, u64::from(UID)),
        (libc::AT_EUID, u64::from(UID)),
        (libc::AT_GID, u64::from(GID)),
        (libc::AT_EGID, u64::from(GID)),
        (libc::AT_SECURE, 0),
        (libc::AT_RANDOM, contents.at_random),
        // Programs must not use instruction-set extensions because of this entry.
        (libc::AT_HWCAP2, 0),
        (libc::AT_EXECFN, exec_fn),
        (libc::AT_PLATFORM, platform),
    ];
    entries.extend_from_slice(contents.auxv_extra);
    entries.push((libc::AT_NULL, 0));
    entries
}

/// The strings at the top of the stack. They grow downwards, so they are stored in reverse until the end.
struct Strings {
    top: u64,
    bytes: Vec<u8>,
}

impl Strings {
    /// Pushes a string below the others; returns its address.
    fn push(&mut self, text: &str) -> Result<u64, StackError> {
        self.bytes.push(0);
        self.bytes.extend(text.bytes().rev());
        self.limit(0)?;
        Ok(self.top.saturating_sub(self.bytes.len() as u64))
    }

    /// Puts `words` below the strings, aligned.
    fn finish(self, words: &[u64], auxv: Vec<u8>) -> Result<InitialStack, StackError> {
        self.limit(words.len().saturating_mul(8))?;
        let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let used = bytes.len().saturating_add(self.bytes.len());
        let padding = used.next_multiple_of(16).saturating_sub(used);
        bytes.resize(bytes.len().saturating_add(padding), 0);
        bytes.extend(self.bytes.into_iter().rev());
        Ok(InitialStack { pointer: self.top.saturating_sub(bytes.len() as u64), bytes, auxv })
    }

    fn limit(&self, more: usize) -> Result<(), StackError> {
        let bytes = self.bytes.len().saturating_add(more);
        if bytes > STRINGS_MAX { Err(StackError::TooLarge { bytes }) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TOP: u64 = 0x7fff_0000_0000;

    fn image() -> Image {
        Image {
            bias: 0,
            entry: 0x40_1000,
            headers: 0x40_0040,
            header_count: 7,
            segments: Vec::new(),
            executable_stack: false,
            interpreter: None,
        }
    }

    /// Reads the stack as a program's start-up code does.
    struct Reader<'a>(&'a InitialStack);

    impl Reader<'_> {
        fn word(&self, address: u64) -> u64 {
            let at = usize::try_from(address - self.0.pointer).unwrap();
            u64::from_le_bytes(self.0.bytes[at..at + 8].try_into().unwrap())
        }

        fn text(&self, address: u64) -> String {
            let at = usize::try_from(address - self.0.pointer).unwrap();
            let end = self.0.bytes[at..].iter().position(|&b| b == 0).unwrap();
            String::from_utf8(self.0.bytes[at..at + end].to_vec()).unwrap()
        }

        /// The strings whose pointers start at `address`, up to the null pointer; and the address after it.
        fn strings(&self, mut address: u64) -> (Vec<String>, u64) {
            let mut found = Vec::new();
            while self.word(address) != 0 {
                found.push(self.text(self.word(address)));
                address += 8;
            }
            (found, address + 8)
        }

        fn auxv(&self, mut address: u64) -> Vec<(u64, u64)> {
            let mut found = Vec::new();
            while self.word(address) != libc::AT_NULL {
                found.push((self.word(address), self.word(address + 8)));
                address += 16;
            }
            found
        }
    }

    #[test]
    fn a_program_finds_arguments_environment_and_auxiliary_vector() {
        let args = ["-v".to_owned(), String::new()];
        let env = [("HOME".to_owned(), "/".to_owned()), ("A".to_owned(), "b=c".to_owned())];
        let contents = StackContents {
            name: "hello",
            args: &args,
            env: &env,
            at_random: 0x1234,
            interpreter_base: 0,
            auxv_extra: &[(0x4d59_464c, 0x5678)],
        };
        let stack = InitialStack::build(TOP, &image(), &contents).unwrap();
        let reader = Reader(&stack);

        assert_eq!(stack.pointer + stack.bytes.len() as u64, TOP);
        assert_eq!(stack.pointer % 16, 0);
        assert_eq!(reader.word(stack.pointer), 3);
        let (argv, next) = reader.strings(stack.pointer + 8);
        assert_eq!(argv, ["hello", "-v", ""]);
        let (envp, next) = reader.strings(next);
        assert_eq!(envp, ["HOME=/", "A=b=c"]);
        let auxv = reader.auxv(next);
        let entry = |kind| auxv.iter().find(|(k, _)| *k == kind).map(|(_, value)| *value);
        assert_eq!(entry(libc::AT_RANDOM), Some(0x1234));
        assert_eq!(entry(libc::AT_ENTRY), Some(0x40_1000));
        assert_eq!(entry(libc::AT_PHDR), Some(0x40_0040));
        assert_eq!(entry(libc::AT_PHNUM), Some(7));
        assert_eq!(entry(libc::AT_PHENT), Some(56));
        assert_eq!(entry(libc::AT_PAGESZ), Some(4096));
        assert_eq!(entry(libc::AT_SECURE), Some(0));
        assert_eq!(entry(libc::AT_SYSINFO_EHDR), Some(layout::VDSO));
        assert_eq!(entry(0x4d59_464c), Some(0x5678));
        assert_eq!(reader.text(entry(libc::AT_EXECFN).unwrap()), "hello");
        assert_eq!(reader.text(entry(libc::AT_PLATFORM).unwrap()), "x86_64");
        let mut kinds: Vec<_> = auxv.iter().map(|(kind, _)| *kind).collect();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), auxv.len(), "each type occurs once");
    }

    #[test]
    fn text_that_cannot_be_passed_is_named_in_the_error() {
        let build = |name: &str, args: &[String], env: &[(String, String)]| {
            let contents = StackContents { name, args, env, at_random: 0, interpreter_base: 0, auxv_extra: &[] };
            InitialStack::build(TOP, &image(), &contents).map(|_| ())
        };
        let pair = |name: &str, value: &str| [(name.to_owned(), value.to_owned())];
        assert!(matches!(build("a\0b", &[], &[]), Err(StackError::Text { what: "the program's name", .. })));
        assert!(matches!(build("", &[], &[]), Err(StackError::Text { .. })));
        assert!(matches!(build("a", &["\0".to_owned()], &[]), Err(StackError::Text { what: "an argument", .. })));
        assert!(matches!(build("a", &[], &pair("A=B", "")), Err(StackError::Text { what: "a variable's name", .. })));
        assert!(matches!(build("a", &[], &pair("A", "\0")), Err(StackError::Text { what: "a variable's value", .. })));
        assert!(matches!(build("a", &["x".repeat(STRINGS_MAX)], &[]), Err(StackError::TooLarge { .. })));
        let many = vec![String::new(); STRINGS_MAX / 8];
        assert!(matches!(build("a", &many, &[]), Err(StackError::TooLarge { .. })));
    }

    proptest! {
        #[test]
        fn any_text_is_read_back_and_rsp_is_aligned(
            args in prop::collection::vec("[^\0]{0,40}", 0..8),
            env in prop::collection::vec(("[^\0=]{1,10}", "[^\0]{0,40}"), 0..8),
        ) {
            let contents = StackContents {
                name: "p",
                args: &args,
                env: &env,
                at_random: 0,
                interpreter_base: 0,
                auxv_extra: &[],
            };
            let stack = InitialStack::build(TOP, &image(), &contents).unwrap();
            let reader = Reader(&stack);
            prop_assert_eq!(stack.pointer % 16, 0);
            let (argv, next) = reader.strings(stack.pointer + 8);
            prop_assert_eq!(&argv[1..], &args[..]);
            let (envp, _) = reader.strings(next);
            let expected: Vec<_> = env.iter().map(|(name, value)| format!("{name}={value}")).collect();
            prop_assert_eq!(envp, expected);

            // All strings are contiguous, up to the name for AT_EXECFN.
            let addresses = |first: u64| {
                (0..).map(move |n| first + 8 * n).map(|at| reader.word(at)).take_while(|word| *word != 0)
            };
            let all: Vec<u64> = addresses(stack.pointer + 8).chain(addresses(next)).collect();
            let mut end = all[0];
            for address in all {
                prop_assert_eq!(address, end);
                end += reader.text(address).len() as u64 + 1;
            }
            prop_assert_eq!(reader.text(end), "p");
            prop_assert_eq!(end + 2, TOP - 8);
        }
    }
}
