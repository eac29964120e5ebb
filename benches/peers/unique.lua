-- wrk: every request asks for a new URL, so that every request is a miss.
local size, tag, n = os.getenv("SIZE"), os.getenv("TAG"), 0
if os.getenv("HOST") then wrk.headers["Host"] = os.getenv("HOST") end
function request()
  n = n + 1
  return wrk.format("GET", "/" .. size .. "/" .. tag .. "-" .. n)
end
