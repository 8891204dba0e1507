// SPDX-License-Identifier: MIT OR Apache-2.0
module redis

go 1.19
