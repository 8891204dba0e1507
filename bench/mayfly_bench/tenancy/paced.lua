-- SPDX-License-Identifier: MIT OR Apache-2.0
-- Waits between an answer and the next request, as many milliseconds as the argument says. wrk's latency starts after
-- the wait.

local directory = debug.getinfo(1, "S").source:match("@(.*)/")

function init(arguments)
   pause = tonumber(arguments[1])
end

function delay()
   return pause
end

dofile(directory .. "/../wrk.lua")
