-- wrk: every request asks for a new URL, so that every request is a miss.
local size, tag, n = os.getenv("SIZE"), os.getenv("TAG"), 0
function request()
  n = n + 1
  return wrk.format("GET", "/" .. size .. "/" .. tag .. "-" .. n)
end
