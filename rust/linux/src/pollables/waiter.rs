// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who waits for something to arrive from outside.
