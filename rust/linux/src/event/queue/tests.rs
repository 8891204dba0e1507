// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;

fn filled(mut queue: Queue, bytes: &[u8]) -> Queue {
    queue.push(bytes);
    queue
}

#[test]
fn bytes_are_read_as_they_were_written() {
    let mut queue = Queue::stream(1 << 20, End::Gone, End::Gone);
    let (mut next_in, mut next_out) = (0_u32, 0_u32);
    for round in 0..2000_usize {
        for _ in 0..round % 7 {
            queue.push(&next_in.to_le_bytes());
            next_in += 1;
        }
        for _ in 0..(round % 5).min(queue.len() / 4) {
            assert_eq!(queue.front()[..4], next_out.to_le_bytes());
            queue.pop(4);
            next_out += 1;
        }
        assert_eq!(queue.len(), 4 * (next_in - next_out) as usize);
    }
    assert!(queue.bytes.capacity() < 16 * queue.len().max(1024), "bytes that were read are freed");
}

#[test]
fn a_page_of_a_pipe_is_free_when_all_of_it_was_read() {
    let mut queue = filled(Queue::pipe(2 * PAGE_BYTES, End::Gone, End::Gone), &[1; 2 * PAGE_BYTES]);
    assert!(!queue.is_writable());
    queue.pop(PAGE_BYTES - 1);
    assert!(!queue.is_writable());
    queue.pop(1);
    assert!(queue.is_writable());
    assert_eq!(queue.room(), PAGE_BYTES);
}

#[test]
fn a_message_is_read_as_a_whole() {
    let mut queue = Queue::messages(1 << 16, End::Gone, End::Gone);
    for message in [b"one".as_slice(), b"", b"three"] {
        queue.push(message);
        queue.end_message(message.len(), Sender::default());
    }
    assert_eq!((queue.next_len(), queue.len()), (3, 8));
    queue.pop(1);
    assert_eq!((queue.next_len(), queue.is_empty()), (0, false));
    queue.pop(0);
    assert_eq!((queue.next_len(), queue.front()), (5, b"three".as_slice()));
    queue.pop(0);
    assert!(queue.is_empty());
}

#[test]
fn empty_messages_fill_a_queue() {
    let mut queue = Queue::messages(4096, End::Gone, End::Gone);
    let mut count = 0;
    while queue.room() > 0 {
        queue.end_message(0, Sender::default());
        count += 1;
    }
    assert!(count <= 4096 / MESSAGE_COST, "{count}");
}

/// The host's memory for a queue is about what the queue holds: a program's account (`HELD_MAX`) counts only that.
#[test]
fn a_queue_retains_no_more_memory_than_its_content_needs() {
    const MOST: usize = 1 << 20;
    let bounded = |queue: &Queue, how: &str| {
        let (has, holds) = (queue.len(), queue.bytes.capacity());
        assert!(holds <= 4 * has + KEPT_INSIDE_BYTES, "{how}: {holds} bytes are held for {has}");
    };
    let inside = || End::Inside(PollableId(0));
    for make in [Queue::stream, Queue::pipe, Queue::messages] {
        let mut queue = make(MOST, inside(), inside());
        // A write whose source cannot be read.
        queue.grow(MOST);
        queue.shrink(MOST);
        bounded(&queue, "nothing was written");
        for part in [MOST / 8, MOST / 8, MOST / 2, 3] {
            queue.grow(part);
            queue.end_message(part, Sender::default());
            bounded(&queue, "filled");
        }
        queue.grow(MOST / 4);
        queue.shrink(MOST / 4);
        bounded(&queue, "filled, and a part undone");
        while queue.len() > 3 {
            queue.pop((queue.len() - 3).min(MOST / 64));
            bounded(&queue, "emptied in parts");
        }
        let mut copy = make(MOST, inside(), inside());
        copy.grow(MOST);
        copy.clone_from(&queue);
        bounded(&copy, "reset");
        queue.pop(3);
        bounded(&queue, "empty");
    }
}

/// A snapshot's queues may hold 32 MiB, and there may be a thousand forks, each reset after each request.
#[test]
fn forks_share_content_that_they_do_not_change() {
    const MUCH: usize = 64 << 10;
    let mut frozen = filled(Queue::stream(1 << 20, End::Gone, End::Gone), &[7; MUCH + 2]);
    frozen.pop(2);
    frozen.share();
    let mut fork = frozen.clone();
    let is_shared = |fork: &Queue| fork.front().as_ptr() == frozen.front().as_ptr();
    assert!(is_shared(&fork));
    // More than is left, and what is left fills its buffer when it becomes the fork's own.
    let mut most_read = frozen.clone();
    most_read.pop(MUCH - 1000);
    most_read.push(b"new");
    assert!(
        most_read.len() == 1003 && most_read.front().starts_with(&[7; 1000]) && most_read.front().ends_with(b"new")
    );
    fork.pop(MUCH / 2);
    assert_eq!(fork.front(), [7; MUCH / 2], "a read does not change other forks");
    fork.push(b"new");
    assert!(fork.front().ends_with(b"\x07new") && fork.len() == MUCH / 2 + 3);
    fork.grow(5);
    fork.shrink(6);
    assert!(fork.front().ends_with(b"\x07ne"));
    fork.clone_from(&frozen);
    assert!(is_shared(&fork));
    fork.grow(3);
    fork.shrink(3);
    assert_eq!((fork.front(), frozen.front()), (&[7; MUCH][..], &[7; MUCH][..]));
    fork.clone_from(&frozen);
    fork.pop(MUCH);
    assert!(fork.is_empty() && frozen.len() == MUCH);
    let mut little = filled(Queue::stream(1 << 20, End::Gone, End::Gone), b"little");
    little.share();
    assert_ne!(little.clone().front().as_ptr(), little.front().as_ptr());
}

#[test]
fn a_copy_has_the_unread_bytes() {
    let mut queue = filled(Queue::stream(64, End::Gone, End::Gone), b"abcdef");
    queue.pop(2);
    let mut other = filled(Queue::stream(64, End::Gone, End::Gone), b"xyz");
    other.clone_from(&queue);
    assert_eq!(other.front(), b"cdef");
    assert_eq!(queue.clone().front(), b"cdef");
}
