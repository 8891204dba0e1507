# SPDX-License-Identifier: MIT OR Apache-2.0
"""Mayfly's benchmark: vanilla Drogon against sandboxed requests, side by side in one run.

`cli` drives it; `server`, `wrk`, `micro` and `steady_state` each start one kind of process and
read one kind of figure, on each engine that `engines` finds; `bars` holds the figures that Mayfly set
itself; `summary` and `page` write them down. Nothing here knows a result: every figure that is shown was measured.
"""
