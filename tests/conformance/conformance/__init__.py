# SPDX-License-Identifier: MIT OR Apache-2.0
"""Runs test suites of other projects natively and inside a sandbox, and compares test by test."""
