# SPDX-License-Identifier: MIT OR Apache-2.0
"""The changes of the database, in their order."""
