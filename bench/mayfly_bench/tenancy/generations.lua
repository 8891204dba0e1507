-- SPDX-License-Identifier: MIT OR Apache-2.0
-- Holds every answer against its generation: odd ones have the page of the first argument, even ones that of the
-- second. Each thread has one connection, on which generations only go up. The third argument is the pause between
-- requests, in milliseconds.

local directory = debug.getinfo(1, "S").source:match("@(.*)/")
local threads = {}

function setup(thread)
   threads[#threads + 1] = thread
end

function init(arguments)
   pages = { [1] = arguments[1]:gsub("\\n", "\n"), [0] = arguments[2]:gsub("\\n", "\n") }
   pause = tonumber(arguments[3])
   answered, refused, unnumbered, mixed, backwards, last = 0, 0, 0, 0, 0, 0
end

function delay()
   return pause
end

function response(status, headers, body)
   answered = answered + 1
   if status ~= 200 then
      refused = refused + 1
      return
   end
   local generation = tonumber(headers["x-mayfly-generation"])
   if not generation then
      unnumbered = unnumbered + 1
      return
   end
   if body ~= pages[generation % 2] then
      mixed = mixed + 1
   end
   if generation < last then
      backwards = backwards + 1
   end
   last = generation
end

function more()
   local sums = {}
   for _, name in ipairs({ "answered", "refused", "unnumbered", "mixed", "backwards" }) do
      local sum = 0
      for _, thread in ipairs(threads) do
         sum = sum + thread:get(name)
      end
      sums[#sums + 1] = string.format('"%s":%d', name, sum)
   end
   return "{" .. table.concat(sums, ",") .. "}"
end

dofile(directory .. "/../wrk.lua")
