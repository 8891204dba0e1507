-- SPDX-License-Identifier: MIT OR Apache-2.0
-- Asks for /t/0, /t/1, … in turn, as many as the first argument says, then from the start. Each thread starts
-- elsewhere, and the second argument says where.

local directory = debug.getinfo(1, "S").source:match("@(.*)/")
local threads = 0

function setup(thread)
   thread:set("number", threads)
   threads = threads + 1
end

function init(arguments)
   requests = {}
   for tenant = 1, tonumber(arguments[1]) do
      requests[tenant] = wrk.format(nil, "/t/" .. tenant - 1)
   end
   -- 997 is prime, so threads are far apart unless there is one tenant.
   at = (number * 997 + tonumber(arguments[2] or 0)) % #requests
end

function request()
   at = at % #requests + 1
   return requests[at]
end

dofile(directory .. "/../wrk.lua")
