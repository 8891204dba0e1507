// SPDX-License-Identifier: MIT OR Apache-2.0
//! The descriptor table.

use super::*;

fn is_log(files: &DescriptorTable, fd: i32, stream: Stream) -> bool {
    matches!(files.open_file(fd), Ok(OpenFile { object: Object::Log(found), .. }) if *found == stream)
}

#[test]
fn the_lowest_free_descriptor_is_used() {
    let mut files = DescriptorTable::standard(DESCRIPTORS_MAX);
    assert_eq!(files.duplicate(1, 0, false), Ok(3));
    files.close(0).unwrap();
    assert_eq!(files.duplicate(2, 0, true), Ok(0));
    assert!(is_log(&files, 0, Stream::Stderr) && files.get(0).unwrap().close_on_exec);
    assert_eq!(files.duplicate(1, 10, false), Ok(10));
}

#[test]
fn numbers_out_of_range_are_refused() {
    let mut files = DescriptorTable::standard(DESCRIPTORS_MAX);
    for fd in [-1, 3, 1024, i32::MAX, i32::MIN] {
        assert_eq!(files.get(fd), Err(Errno::EBADF));
        assert_eq!(files.close(fd).err(), Some(Errno::EBADF));
        assert_eq!(files.duplicate(fd, 0, false), Err(Errno::EBADF));
    }
    assert_eq!(files.duplicate_to(1, 1024, false).err(), Some(Errno::EBADF));
    assert_eq!(files.duplicate_to(1, -1, false).err(), Some(Errno::EBADF));
    assert_eq!(files.duplicate(1, 1024, false), Err(Errno::EINVAL));
    assert_eq!(files.duplicate(1, -1, false), Err(Errno::EINVAL));
}

#[test]
fn the_table_is_bounded_and_shrinks() {
    let mut files = DescriptorTable::standard(DESCRIPTORS_MAX);
    while files.duplicate(1, 0, false).is_ok() {}
    assert_eq!(files.table.len(), DESCRIPTORS_MAX);
    assert_eq!(files.duplicate(1, 0, false), Err(Errno::EMFILE));
    files.close_range(3, u32::MAX);
    assert_eq!((files.table.len(), files.open.len()), (3, 3));

    let mut files = DescriptorTable::standard(5);
    while files.install(OpenFile::new(Object::Null, b"/dev/null", 0), false).is_ok() {}
    assert_eq!((files.table.len(), files.open.len()), (5, 5));
    assert_eq!(files.duplicate_to(1, 5, false).err(), Some(Errno::EBADF));
    assert_eq!(
        (DescriptorTable::standard(0).limit(), DescriptorTable::standard(1 << 30).limit()),
        (3, DESCRIPTORS_MAX)
    );
}

#[test]
fn duplicates_share_offset_and_flags_and_keep_their_own_close_on_exec() {
    let mut files = DescriptorTable::standard(DESCRIPTORS_MAX);
    let copy = files.duplicate(1, 0, true).unwrap();
    files.set_status_flags(copy, libc::O_NONBLOCK | libc::O_RDWR).unwrap();
    files.open_file_mut(copy).unwrap().offset = 7;
    let first = files.open_file(1).unwrap();
    assert_eq!((first.flags, first.offset), (libc::O_WRONLY | libc::O_NONBLOCK, 7));
    assert!(!files.get(1).unwrap().close_on_exec);
}

#[test]
fn a_file_is_open_until_its_last_descriptor_is_closed() {
    let mut files = DescriptorTable::standard(DESCRIPTORS_MAX);
    let fd = files.install(OpenFile::new(Object::Null, b"/dev/null", 0), false).unwrap();
    let copies = [files.duplicate(fd, 0, false).unwrap(), files.duplicate(fd, 0, false).unwrap()];
    assert!(files.close(fd).unwrap().is_none());
    assert!(files.duplicate_to(1, copies[0], false).unwrap().is_none());
    assert!(files.duplicate_to(2, copies[1], false).unwrap().is_some(), "the last reference was replaced");
    assert_eq!(files.open.iter().flatten().count(), 3);
    assert!(files.duplicate_to(2, copies[1], false).unwrap().is_none(), "a duplicate over itself closes nothing");
    assert!(is_log(&files, copies[1], Stream::Stderr));
}

#[test]
fn what_the_host_stores_for_open_files_is_bounded() {
    let mut files = DescriptorTable::standard(DESCRIPTORS_MAX);
    let attributes = crate::host::attributes::Attributes::synthetic(1, libc::S_IFREG);
    let text = || Object::Text { content: vec![b'x'; HELD_MAX / 4].into(), attributes };
    for _ in 0..4 {
        files.check_held(&text()).unwrap();
        files.install(OpenFile::new(text(), b"/proc/self/maps", 0), false).unwrap();
    }
    assert_eq!(files.check_held(&text()), Err(Errno::ENOMEM));
    files.close(3).unwrap();
    files.check_held(&text()).unwrap();
}
