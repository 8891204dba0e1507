-- SPDX-License-Identifier: MIT OR Apache-2.0
-- Prints what wrk measured as one line of JSON; times in microseconds.
-- A script that defines only done() leaves wrk's request path as it is without a script.
-- A script for a special load may define more(), whose JSON object becomes the result's "more".

function done(summary, latency, requests)
   local errors = summary.errors
   local added = more and more() or "{}"
   io.write(string.format(
      'mayfly-wrk: {"requests":%d,"duration_us":%d,"p50_us":%d,"p75_us":%d,"p90_us":%d,"p99_us":%d,"max_us":%d,'
         .. '"connect":%d,"read":%d,"write":%d,"timeout":%d,"status":%d,"more":%s}\n',
      summary.requests, summary.duration,
      latency:percentile(50), latency:percentile(75), latency:percentile(90), latency:percentile(99), latency.max,
      errors.connect, errors.read, errors.write, errors.timeout, errors.status, added))
end
